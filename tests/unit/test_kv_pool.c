/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_pool.c - pages: where things lie in them, who has which, and what happens when there are none left.
 */
#include "backend/backend.h"
#include "kv/kv.h"
#include "support/faults.h"
#include "support/model_run.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <math.h>

static const sq_kv_shape shape = {.n_layers = 3, .n_kv_heads = 2, .head_dim = 24};

static sq_kv_pool *pool_of(sq_kv_format f, int32_t columns) {
    sq_kv_pool *p = NULL;
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    assert_ok(sq_kv_pool_new(&p, &shape, &(sq_kv_policy){.open = f},
                             sq_kv_bytes(&shape, &(sq_kv_policy){.open = f}, columns * 32), &a, &err),
              &err);
    return p;
}

static sq_kv_seq *seq_of(sq_kv_pool *p, int32_t tokens_max) {
    sq_kv_seq *s = NULL;
    squish_error err = {0};
    assert_ok(sq_kv_seq_new(&s, p, tokens_max, &err), &err);
    return s;
}

static void geometry_pads_heads_to_16_channels_and_parts_to_lines(void **state) {
    (void)state;
    const sq_kv_geometry h = sq_kv_geometry_of(&shape, SQ_KV_F16), f = sq_kv_geometry_of(&shape, SQ_KV_F32);
    assert_int_equal(h.k_off, 64);
    assert_int_equal(h.v_off, 64 + 32 * 32 * 2); /* 24 channels are kept as 32 */
    assert_int_equal(h.head_stride, 2 * 32 * 32 * 2);
    assert_int_equal(h.page_bytes, 64 + 2 * h.head_stride);
    assert_int_equal(f.v_off, 64 + 32 * 32 * 4);
    assert_int_equal(f.page_bytes, 64 + 2 * 2 * 32 * 32 * 4);
    for (int32_t d = 2; d <= 512; d += 2) {
        const sq_kv_shape s = {1, 1, d, false};
        const sq_kv_geometry g = sq_kv_geometry_of(&s, SQ_KV_F16);
        assert_true(g.v_off % 64 == 0 && g.head_stride % 64 == 0 && g.page_bytes % 64 == 0);
        assert_true(g.v_off - g.k_off >= (size_t)d * 64);
    }
}

static void bytes_count_whole_columns(void **state) {
    (void)state;
    const uint64_t column = 3 * sq_kv_geometry_of(&shape, SQ_KV_F16).page_bytes;
    assert_int_equal(sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 0), 0);
    assert_int_equal(sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 1), column);
    assert_int_equal(sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 32), column);
    assert_int_equal(sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 33), 2 * column);
    const sq_kv_shape huge = {1024, 255, 512, false};
    assert_true(sq_kv_bytes(&huge, &(sq_kv_policy){.open = SQ_KV_F32}, 1 << 24) >
                (uint64_t)1 << 50); /* no 32-bit product on the way */
}

static void headers_say_layer_position_and_shape(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQ_KV_F32, 4);
    sq_kv_seq *s = seq_of(p, 128);
    squish_error err = {0};
    assert_ok(sq_kv_seq_reserve(s, 100, &err), &err);
    for (int32_t l = 0; l < 3; l++)
        for (int32_t t = 0; t < 4; t++) {
            sq_kv_page_header h;
            memcpy(&h, sq_kv_seq_pages(s, l)[t], sizeof h);
            assert_int_equal(h.magic, SQ_KV_PAGE_MAGIC);
            assert_int_equal(h.layer, l);
            assert_int_equal(h.pos0, 32 * t);
            assert_int_equal(h.k_fmt, SQ_KV_F32);
            assert_int_equal(h.n_kv_heads, 2);
            assert_int_equal(h.d, 24);
            assert_int_equal((uintptr_t)sq_kv_seq_pages(s, l)[t] % 64, 0);
        }
    sq_kv_seq_free(s);
    assert_int_equal(sq_kv_pool_bytes_used(p), 0);
    sq_kv_pool_free(p);
}

static void one_column_serves_a_thousand_sequences_in_turn(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQ_KV_F16, 1);
    squish_error err = {0};
    for (int i = 0; i < 1000; i++) {
        sq_kv_seq *s = seq_of(p, 32);
        assert_ok(sq_kv_seq_reserve(s, 1 + i % 32, &err), &err);
        assert_int_equal(sq_kv_pool_bytes_used(p), sq_kv_pool_bytes_max(p));
        sq_kv_seq_free(s);
    }
    sq_kv_pool_free(p);
}

static void a_full_pool_leaves_the_sequence_as_it_was(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQ_KV_F16, 5);
    sq_kv_seq *a = seq_of(p, 320), *b = seq_of(p, 320);
    squish_error err = {0};
    assert_ok(sq_kv_seq_reserve(a, 96, &err), &err);
    assert_ok(sq_kv_seq_reserve(b, 20, &err), &err);
    uint8_t *const mine = sq_kv_seq_pages(b, 2)[0];
    const uint64_t used = sq_kv_pool_bytes_used(p);
    assert_int_equal(sq_kv_seq_reserve(b, 96, &err), SQUISH_NO_MEMORY);
    assert_non_null(strstr(err.text, "kv cache is full"));
    assert_int_equal(sq_kv_pool_bytes_used(p), used);
    assert_ptr_equal(sq_kv_seq_pages(b, 2)[0], mine);
    assert_null(sq_kv_seq_pages(b, 2)[1]);
    err = (squish_error){0};
    assert_ok(sq_kv_seq_reserve(b, 64, &err), &err); /* the fifth column is still to be had */
    sq_kv_seq_truncate(a, 64);                       /* and one given back as well */
    assert_ok(sq_kv_seq_reserve(b, 96, &err), &err);
    assert_ptr_equal(sq_kv_seq_pages(b, 2)[0], mine);
    sq_kv_seq_free(a);
    sq_kv_seq_free(b);
    sq_kv_pool_free(p);
}

static void more_than_the_sequence_may_hold_is_refused(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQ_KV_F16, 4);
    sq_kv_seq *s = seq_of(p, 50);
    squish_error err = {0};
    assert_int_equal(sq_kv_seq_reserve(s, 51, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "51 tokens do not fit the sequence's 50");
    assert_int_equal(sq_kv_pool_bytes_used(p), 0);
    sq_kv_seq_free(s);
    sq_kv_pool_free(p);
}

enum { SEQS = 12, COLUMNS = 20 };

/* Every page belongs to one place only, and says which. */
static void check_owners(const sq_kv_pool *p, sq_kv_seq *const *s, const int32_t *n) {
    static const uint8_t *seen[3 * COLUMNS];
    size_t n_seen = 0;
    for (int i = 0; i < SEQS; i++)
        for (int32_t l = 0; s[i] && l < 3; l++)
            for (int32_t t = 0; t < sq_div_up(n[i], 32); t++) {
                const uint8_t *page = sq_kv_seq_pages(s[i], l)[t];
                sq_kv_page_header h;
                memcpy(&h, page, sizeof h);
                assert_int_equal(h.layer, l);
                assert_int_equal(h.pos0, 32 * t);
                for (size_t k = 0; k < n_seen; k++) assert_ptr_not_equal(seen[k], page);
                seen[n_seen++] = page;
            }
    assert_int_equal(sq_kv_pool_bytes_used(p), n_seen * sq_kv_pool_geometry(p)->page_bytes);
}

static void many_sequences_grow_and_shrink_without_sharing_a_page(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQ_KV_F16, COLUMNS);
    sq_kv_seq *s[SEQS] = {0};
    int32_t n[SEQS] = {0};
    uint64_t rng = 11;
    int full = 0;
    for (int step = 0; step < 4000; step++) {
        const int i = (int)(sq_splitmix64(&rng) % SEQS);
        const int32_t want = (int32_t)(sq_splitmix64(&rng) % 200);
        if (!s[i]) s[i] = seq_of(p, 200);
        if (sq_splitmix64(&rng) % 16 == 0) {
            sq_kv_seq_free(s[i]);
            s[i] = NULL, n[i] = 0;
        } else if (want < n[i]) {
            sq_kv_seq_truncate(s[i], want);
            n[i] = want;
        } else if (sq_kv_seq_reserve(s[i], want, NULL) == SQUISH_OK) {
            n[i] = want;
        } else {
            full++;
        }
        check_owners(p, s, n);
    }
    assert_true(full > 100);
    for (int i = 0; i < SEQS; i++) sq_kv_seq_free(s[i]);
    assert_int_equal(sq_kv_pool_bytes_used(p), 0);
    sq_kv_pool_free(p);
}

static void a_pool_too_small_for_a_column_is_refused(void **state) {
    (void)state;
    sq_kv_pool *p = NULL;
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    assert_int_equal(sq_kv_pool_new(&p, &shape, &(sq_kv_policy){.open = SQ_KV_F16}, 1000, &a, &err),
                     SQUISH_NO_MEMORY);
    assert_null(p);
    assert_non_null(strstr(err.text, "1000 bytes hold no page column"));
}

static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state t = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&t);
        sq_kv_pool *p = NULL;
        sq_kv_seq *s = NULL;
        squish_status st = sq_kv_pool_new(&p, &shape, &(sq_kv_policy){.open = SQ_KV_F16}, 1 << 20, &a, NULL);
        if (st == SQUISH_OK) st = sq_kv_seq_new(&s, p, 300, NULL);
        sq_kv_seq_free(s);
        sq_kv_pool_free(p);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

/* What a broken model leaves in a page must not reach the sequence that gets the page next. */
static void pages_stay_finite_whatever_a_model_computes(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e30f};
    for (int fmt = SQ_KV_F16; fmt <= SQ_KV_F32; fmt++) {
        sq_kv_pool *p = pool_of((sq_kv_format)fmt, 1);
        sq_kv_seq *s = seq_of(p, 32);
        squish_error err = {0};
        assert_ok(sq_kv_seq_reserve(s, 32, &err), &err);
        const squish_alloc a = sq_alloc_default();
        const sq_backend_options o = {.threads = 1,
                                      .isa_max = SQ_ISA_COUNT,
                                      .m_max = 32,
                                      .heads_max = 2,
                                      .head_dim_max = 24,
                                      .ctx_max = 256};
        sq_backend *b = NULL;
        assert_ok(sq_backend_cpu_new(&b, &o, &a, &err), &err);
        sq_rows r[3];
        const size_t bytes = sq_rows_bytes(32, 48, false);
        char *memory = sq_backend_alloc(b, 3 * bytes);
        for (size_t i = 0; i < 3; i++) {
            sq_rows_carve(&r[i], 32, 48, false, memory + i * bytes);
            r[i].m = 32;
            for (size_t j = 0; j < 32 * sq_rows_ld(&r[i]); j++) r[i].f[j] = bad[(i + j) % SQ_COUNT(bad)];
        }
        static const float one[32 * 12] = {1}, zero[32 * 12] = {0};
        const sq_kv_geometry *g = sq_kv_pool_geometry(p);
        const sq_attn_shape as = {.n_heads = 2,
                                  .n_kv_heads = 2,
                                  .head_dim = 24,
                                  .scale = 1,
                                  .kv_f32 = fmt == SQ_KV_F32,
                                  .norm_eps = 1e-6f,
                                  .cos = one,
                                  .sin = zero,
                                  .open = {g->k_off, g->v_off, g->head_stride}};
        const sq_attn_seg seg = {.n_rows = 32, .pages = sq_kv_seq_pages(s, 0)};
        sq_be_attn_prepare(b, &as, &seg, 1, &r[0], &r[1], &r[2]);
        const uint8_t *page = sq_kv_seq_pages(s, 0)[0];
        for (size_t at = g->k_off; at < g->page_bytes; at += fmt == SQ_KV_F32 ? 4 : 2) {
            float f = 0;
            uint16_t h = 0;
            memcpy(&f, page + at, fmt == SQ_KV_F32 ? 4 : 0);
            memcpy(&h, page + at, 2);
            assert_true(isfinite(fmt == SQ_KV_F32 ? f : sq_f16_to_f32(h)));
        }
        sq_backend_release(b, memory, 3 * bytes);
        sq_backend_free(b);
        sq_kv_seq_free(s);
        sq_kv_pool_free(p);
    }
}

/* Sealed columns share pages of the system, and whatever order they go in, all of their memory goes. */
static void memory_of_sealed_columns_goes_back(void **state) {
    (void)state;
    enum { N = 4000 };
    sq_kv_pool *p = NULL;
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    const sq_kv_policy policy = sq_kv_policy_of(SQUISH_KV_Q4);
    const uint64_t one = sq_kv_sealed_bytes(&shape, &policy);
    assert_ok(sq_kv_pool_new(&p, &shape, &policy, N * one, &a, &err), &err);
#ifdef __linux__
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* khugepaged fills what was given back among pages that stay */
#endif
    const uint64_t before = sq_os_rss_anon();
    if (before == 0) skip(); /* the system does not say */
    for (int32_t i = 0; i < N; i++) assert_int_equal(sq_kv_column_new(p, i, SQ_KV_FORM_SEALED), i);
    const uint64_t there = sq_os_rss_anon() - before;
    for (int32_t i = 0; i < N; i += 2) sq_kv_column_drop(p, i);
    for (int32_t i = 1; i < N; i += 2)
        if (i % 32 != 1) sq_kv_column_drop(p, i);
    for (int32_t i = 1; i < N; i += 32) /* what stayed is what it was */
        assert_int_equal(((const sq_kv_page_header *)(const void *)sq_kv_column_sealed_page(p, i, 2))->pos0,
                         32 * i);
    for (int32_t i = 1; i < N; i += 32) sq_kv_column_drop(p, i);
    const uint64_t after = sq_os_rss_anon(), left = after > before ? after - before : 0;
    printf("%d sealed columns: %.1f MB of the system, %.2f MB when they are gone\n", N, (double)there / 1e6,
           (double)left / 1e6);
    assert_true(there >= N * one / 10 * 9 && left <= there / 20);
    sq_kv_pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geometry_pads_heads_to_16_channels_and_parts_to_lines),
        cmocka_unit_test(bytes_count_whole_columns),
        cmocka_unit_test(headers_say_layer_position_and_shape),
        cmocka_unit_test(one_column_serves_a_thousand_sequences_in_turn),
        cmocka_unit_test(a_full_pool_leaves_the_sequence_as_it_was),
        cmocka_unit_test(more_than_the_sequence_may_hold_is_refused),
        cmocka_unit_test(many_sequences_grow_and_shrink_without_sharing_a_page),
        cmocka_unit_test(a_pool_too_small_for_a_column_is_refused),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
        cmocka_unit_test(memory_of_sealed_columns_goes_back),
        cmocka_unit_test(pages_stay_finite_whatever_a_model_computes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
