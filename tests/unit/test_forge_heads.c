/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_heads.c - training heads: its arithmetic against plain loops, its gradient against differences
 * through what it learns, and a toy whose next tokens can be known. */
#include "forge/forge_heads.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <math.h>

enum { HIDDEN = 64, VOCAB = 96, SEQS = 12, LENGTH = 96, N = SEQS * LENGTH };

static uint64_t state = 3;
static float noise(void) { return (float)((double)(sq_splitmix64(&state) >> 11) * 0x1p-53 - 0.5); }

static sq_hm arithmetic(int32_t threads) {
    sq_hm h = {.pool = NULL};
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    sq_kernels_select(&h.k, sq_cpu_features(), SQ_ISA_COUNT);
    assert_ok(sq_pool_new(&h.pool, &a, threads, &err), &err);
    return h;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static void products_transposes_and_sums_are_those_of_plain_loops(void **unused) {
    (void)unused;
    enum { R = 37, C = 128, M = 150 };
    static float w[R * C], x[M * C], y[M * R], t[C * M], s[C];
    const sq_hm h = arithmetic(3);
    for (int i = 0; i < R * C; i++) w[i] = noise();
    for (int i = 0; i < M * C; i++) x[i] = noise();
    sq_hm_product(&h, w, R, C, x, M, y, R);
    for (int i = 0; i < M; i++)
        for (int r = 0; r < R; r++) {
            double want = 0;
            for (int c = 0; c < C; c++) want += (double)w[r * C + c] * (double)x[i * C + c];
            assert_true(fabs((double)y[i * R + r] - want) < 1e-4);
        }
    sq_hm_transpose(&h, x, M, C, t);
    for (int i = 0; i < M; i++)
        for (int c = 0; c < C; c++) assert_true(t[c * M + i] == x[i * C + c]);
    sq_hm_sum_rows(&h, x, M, C, s);
    for (int c = 0; c < C; c++) {
        double want = 0;
        for (int i = 0; i < M; i++) want += (double)x[i * C + c];
        assert_true(fabs((double)s[c] - want) < 1e-4);
    }
    sq_hm_softmax(&h, x, M, C);
    for (int i = 0; i < M; i++) {
        double sum = 0;
        for (int c = 0; c < C; c++) sum += (double)x[i * C + c];
        assert_true(fabs(sum - 1) < 1e-5);
    }
    sq_pool_free(h.pool);
}

static void silu_and_its_slope_agree_with_differences(void **unused) {
    (void)unused;
    enum { E = 200 };
    float u[E] = {0}, s[E], z[E], up[E], down[E], one[E], ds[E];
    const sq_hm h = arithmetic(1);
    for (int i = 0; i < E; i++) s[i] = 12 * noise(), one[i] = 1;
    sq_hm_silu(&h, u, s, E, z);
    sq_hm_silu_back(&h, one, s, E, ds);
    for (int i = 0; i < E; i++) {
        const double x = (double)s[i];
        assert_true(fabs((double)z[i] - x / (1 + exp(-x))) < 1e-5);
        s[i] += 1e-2f;
    }
    sq_hm_silu(&h, u, s, E, up);
    for (int i = 0; i < E; i++) s[i] -= 2e-2f;
    sq_hm_silu(&h, u, s, E, down);
    for (int i = 0; i < E; i++) assert_true(fabsf((up[i] - down[i]) / 2e-2f - ds[i]) < 2e-3f);
    sq_pool_free(h.pool);
}

static void least_squares_solve_their_equations(void **unused) {
    (void)unused;
    enum { D = 70, LEAD = 50, R = 3 };
    static double a[D * D], l[D * D], c[R * LEAD];
    static float w[R * LEAD];
    const sq_hm h = arithmetic(2);
    for (int i = 0; i < D; i++)
        for (int k = 0; k <= i; k++) a[i * D + k] = a[k * D + i] = (double)noise() + (i == k ? 20 : 0);
    for (int i = 0; i < R * LEAD; i++) c[i] = (double)noise();
    memcpy(l, a, sizeof l);
    assert_true(sq_hm_cholesky(&h, l, D));
    sq_hm_solve(&h, l, D, c, R, LEAD, w);
    for (int r = 0; r < R; r++)
        for (int i = 0; i < LEAD; i++) {
            double got = 0;
            for (int k = 0; k < LEAD; k++) got += a[i * D + k] * (double)w[r * LEAD + k];
            assert_true(fabs(got - c[r * LEAD + i]) < 1e-5);
        }
    memset(l, 0, sizeof l);
    assert_false(sq_hm_cholesky(&h, l, D));
    sq_pool_free(h.pool);
}

/* AdamW's first step goes by its rate against the sign of the gradient, and weights fade. */
static void a_first_step_goes_by_its_rate(void **unused) {
    (void)unused;
    float w[3] = {1, 1, 1}, m[3] = {0}, v[3] = {0};
    const float g[3] = {5, -0.01f, 0};
    const sq_hm h = arithmetic(1);
    const sq_hm_adam a = {.rate = 0.1f, .decay = 0.5f, .step = 1};
    sq_hm_adam_step(&h, &a, w, g, m, v, 3);
    assert_true(fabsf(w[0] - 0.85f) < 1e-4f && fabsf(w[1] - 1.05f) < 1e-4f && fabsf(w[2] - 0.95f) < 1e-4f);
    sq_pool_free(h.pool);
}

/* ---- a toy ----------------------------------------------------------------------------------- */

/* Token x is followed by next(x); the hidden state is what makes the head say so. */
static float embed_rows[VOCAB * HIDDEN];
static int32_t tokens[N], top[N];
static uint16_t hidden[N * HIDDEN];
static int64_t first[SEQS + 1];

/* Or, in a toy that lines cannot tell, by the token before it as well. */
static bool crossed;
static float before_rows[VOCAB * HIDDEN];

static int32_t next(int32_t x, int32_t before) { return crossed ? (x + before) % 8 : (7 * x + 3) % VOCAB; }

static sq_model toy(sq_heads_text *t) {
    static float norm[HIDDEN];
    sq_model m = {.alloc = sq_alloc_default(), .final_norm = norm};
    m.cfg.hidden = HIDDEN;
    m.cfg.n_vocab = VOCAB;
    m.cfg.embed_scale = 1;
    for (int i = 0; i < VOCAB * HIDDEN; i++) embed_rows[i] = noise(), before_rows[i] = noise();
    m.embed = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, VOCAB, HIDDEN, (const uint8_t *)embed_rows);
    m.head = m.embed;
    for (int s = 0; s <= SEQS; s++) first[s] = (int64_t)s * LENGTH;
    for (int i = 0; i < N; i++) {
        /* Anybody may come first, and one in nine is drawn against what is likely. */
        const int32_t drawn = (int32_t)(sq_splitmix64(&state) % (crossed ? 8 : VOCAB));
        tokens[i] = i % 9 == 0 || i < 2 ? drawn : next(tokens[i - 1], tokens[i - 2]);
        top[i] = next(tokens[i], i > 0 ? tokens[i - 1] : 0);
        for (int c = 0; c < HIDDEN; c++)
            hidden[i * HIDDEN + c] =
                sq_f32_to_f16(4 * embed_rows[top[i] * HIDDEN + c] +
                              (crossed ? 2 * before_rows[tokens[i] * HIDDEN + c] : 0.1f * noise()));
    }
    *t = (sq_heads_text){N, tokens, top, hidden, first, SEQS, 3};
    return m;
}

typedef struct {
    uint8_t *file;
    size_t bytes;
    sq_heads_outcome got;
    squish_status st;
    squish_error err;
} trained;

static trained train(const sq_heads_wish *w, int32_t threads, const squish_alloc *alloc) {
    trained r = {0};
    sq_heads_text t;
    state = 5;
    const sq_model m = toy(&t);
    const sq_hm h = arithmetic(threads);
    const squish_alloc a = alloc ? *alloc : sq_alloc_default();
    r.st = sq_heads_train(&m, &t, w, h.pool, &a, &r.file, &r.bytes, &r.got, &r.err);
    sq_pool_free(h.pool);
    return r;
}

static const sq_heads_wish small = {
    .heads = 2, .n_ids = 64, .steps = 12, .rate = 1e-3f, .seed = 1, .type = SQ_W_I8_G64};

static void heads_learn_what_can_be_known_and_threads_do_not_show(void **unused) {
    (void)unused;
    trained a = train(&small, 1, NULL), b = train(&small, 3, NULL);
    sq_heads *h;
    assert_ok(a.st, &a.err);
    assert_ok(b.st, &b.err);
    print_message("agreement %g %g, coverage %g, loss %g to %g\n", (double)a.got.agreement[0],
                  (double)a.got.agreement[1], (double)a.got.coverage, (double)a.got.loss_first,
                  (double)a.got.loss_last);
    assert_true(a.got.coverage > 0.6f && a.got.coverage < 0.8f); /* 64 of 96 ids */
    for (int i = 0; i < 2; i++) assert_true(a.got.agreement[i] > 0.6f && a.got.agreement[i] < 0.8f);
    assert_int_equal(a.bytes, b.bytes);
    assert_memory_equal(a.file, b.file, a.bytes);
    assert_ok(sq_heads_parse(&h, (sq_span){a.file, a.bytes}, "toy", NULL, &a.err), &a.err);
    assert_ok(sq_heads_check(h, &a.err), &a.err);
    assert_true(h->agreement[1] == a.got.agreement[1]);
    sq_heads_close(h);
    sq_heads_wish other = small;
    other.seed = 2;
    trained c = train(&other, 2, NULL);
    assert_ok(c.st, &c.err);
    assert_true(memcmp(a.file, c.file, a.bytes) != 0);
    const squish_alloc d = sq_alloc_default();
    sq_alloc_free(&d, a.file, a.bytes);
    sq_alloc_free(&d, b.file, b.bytes);
    sq_alloc_free(&d, c.file, c.bytes);
}

static void what_least_squares_cannot_tell_is_learned(void **unused) {
    (void)unused;
    sq_heads_wish w = small;
    w.steps = 200;
    w.rate = 1e-3f;
    crossed = true;
    trained r = train(&w, 2, NULL);
    crossed = false;
    assert_ok(r.st, &r.err);
    print_message("loss %g to %g, agreement %g\n", (double)r.got.loss_first, (double)r.got.loss_last,
                  (double)r.got.agreement[0]);
    assert_true(r.got.loss_last < 0.5f * r.got.loss_first);
    assert_true(r.got.agreement[0] > 0.25f); /* one in eight by chance */
    const squish_alloc d = sq_alloc_default();
    sq_alloc_free(&d, r.file, r.bytes);
}

static bool stop_now(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)done, (void)total;
    return strcmp(what, "training heads") != 0;
}

static void training_stops_when_asked_and_refuses_what_it_cannot_do(void **unused) {
    (void)unused;
    sq_heads_wish w = small;
    w.progress = stop_now;
    trained r = train(&w, 1, NULL);
    assert_int_equal(r.st, SQUISH_CANCELLED);
    assert_null(r.file);
    w = small;
    w.heads = 9;
    r = train(&w, 1, NULL);
    assert_int_equal(r.st, SQUISH_INVALID);
    w = small;
    w.n_ids = 65;
    r = train(&w, 1, NULL);
    assert_int_equal(r.st, SQUISH_INVALID);
}

static void no_memory_is_a_status_and_nothing_leaks(void **unused) {
    (void)unused;
    sq_heads_wish w = small;
    w.steps = 1;
    for (int64_t n = 1;; n += n > 4 ? 5 : 1) {
        struct sq_test_alloc_state s = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&s);
        trained r = train(&w, 1, &a);
        sq_alloc_free(&a, r.file, r.bytes);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
        if (r.st == SQUISH_OK) break;
        assert_int_equal(r.st, SQUISH_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_transposes_and_sums_are_those_of_plain_loops),
        cmocka_unit_test(silu_and_its_slope_agree_with_differences),
        cmocka_unit_test(least_squares_solve_their_equations),
        cmocka_unit_test(a_first_step_goes_by_its_rate),
        cmocka_unit_test(heads_learn_what_can_be_known_and_threads_do_not_show),
        cmocka_unit_test(what_least_squares_cannot_tell_is_learned),
        cmocka_unit_test(training_stops_when_asked_and_refuses_what_it_cannot_do),
        cmocka_unit_test(no_memory_is_a_status_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
