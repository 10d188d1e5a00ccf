/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_heads.c - a file of heads: what is written is read, damage is named, and what heads say is what
 * their formula says. */
#include "model/model_heads.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <math.h>

enum { HIDDEN = 64, HEADS = 2, IDS = 20, VOCAB = 50 };

static uint64_t state = 7;

static float noise(void) { return (float)((double)(sq_splitmix64(&state) >> 11) * 0x1p-53 - 0.5); }

/* A file with weights of int8, and these weights. */
typedef struct {
    uint8_t *bytes;
    sq_heads_head head;
    sq_heads_layout l;
} file;

static void encode(sq_wtype t, int32_t rows, int32_t cols, uint8_t *out) {
    const sq_encoding e = {.type = t, .scale = SQ_SCALE_F16, .method = SQ_QUANT_RTN};
    const sq_weight w = sq_weight_make(t, SQ_SCALE_F16, rows, cols, out);
    static float x[SQ_TILE_ROWS * (HEADS + 1) * HIDDEN];
    for (int32_t i = 0; i < sq_weight_tiles(&w); i++) {
        for (int32_t k = 0; k < SQ_TILE_ROWS * cols; k++) x[k] = 0.3f * noise();
        sq_quant_tile(&e, x, (size_t)cols, SQ_TILE_ROWS, cols, out + (size_t)i * w.tile_bytes);
    }
}

static file make(sq_wtype type, uint64_t model) {
    file f = {.head = {.n = HEADS,
                       .hidden = HIDDEN,
                       .n_ids = IDS,
                       .n_vocab = VOCAB,
                       .type = type,
                       .embed_scale = 2,
                       .agreement = {0.5f, 0.25f},
                       .model = model}};
    squish_error err = {0};
    assert_ok(sq_heads_layout_of(&f.head, &f.l, &err), &err);
    f.bytes = calloc(1, f.l.bytes);
    assert_non_null(f.bytes);
    int32_t ids[IDS];
    for (int32_t i = 0; i < IDS; i++) ids[i] = 2 * i + 1;
    memcpy(f.bytes + f.l.ids, ids, sizeof ids);
    for (int32_t i = 0; i < HEADS; i++) {
        float bias[2][HIDDEN];
        for (int32_t k = 0; k < HIDDEN; k++) bias[0][k] = noise(), bias[1][k] = noise();
        memcpy(f.bytes + f.l.in_bias[i], bias[0], sizeof bias[0]);
        memcpy(f.bytes + f.l.mid_bias[i], bias[1], sizeof bias[1]);
        encode(type, HIDDEN, (i + 2) * HIDDEN, f.bytes + f.l.in[i]);
        encode(type, HIDDEN, HIDDEN, f.bytes + f.l.mid[i]);
    }
    sq_heads_write_header(&f.head, &f.l, f.bytes);
    return f;
}

static squish_status parse(const uint8_t *p, size_t n, sq_heads **h, squish_error *err) {
    *err = (squish_error){0};
    squish_status st = sq_heads_parse(h, (sq_span){p, n}, "a file", NULL, err);
    if (st == SQUISH_OK) st = sq_heads_check(*h, err);
    return st;
}

static void what_is_written_is_read(void **unused) {
    (void)unused;
    const sq_wtype types[] = {SQ_W_I4_G64, SQ_W_I8_G64};
    for (size_t t = 0; t < SQ_COUNT(types); t++) {
        file f = make(types[t], 99);
        squish_error err;
        sq_heads *h;
        assert_ok(parse(f.bytes, f.l.bytes, &h, &err), &err);
        assert_int_equal(h->n, HEADS);
        assert_int_equal(h->hidden, HIDDEN);
        assert_int_equal(h->n_vocab, VOCAB);
        assert_int_equal(h->ids[IDS - 1], 2 * IDS - 1);
        assert_true(h->model == 99 && h->embed_scale == 2 && h->agreement[1] == 0.25f);
        assert_int_equal(h->head[1].in.cols, 3 * HIDDEN);
        assert_int_equal(h->head[1].mid.wtype, types[t]);
        sq_heads_close(h);
        free(f.bytes);
    }
}

static void every_damaged_byte_is_noticed(void **unused) {
    (void)unused;
    file f = make(SQ_W_I4_G64, 1);
    squish_error err;
    sq_heads *h;
    for (size_t at = 0; at < f.l.bytes; at += at < 256 ? 1 : 37) {
        f.bytes[at] ^= 0x10;
        assert_int_not_equal(parse(f.bytes, f.l.bytes, &h, &err), SQUISH_OK);
        assert_true(err.text[0] != 0);
        sq_heads_close(h);
        f.bytes[at] ^= 0x10;
    }
    for (size_t n = 0; n < f.l.bytes; n += 61) {
        assert_int_equal(parse(f.bytes, n, &h, &err), SQUISH_CORRUPT);
        assert_null(h);
    }
    free(f.bytes);
}

static void sizes_out_of_range_are_named(void **unused) {
    (void)unused;
    static const struct {
        sq_heads_head h;
        const char *says;
    } all[] = {{{0, 64, 16, 64, SQ_W_I4_G64, 1, {0}, 0}, "0 heads"},
               {{9, 64, 16, 64, SQ_W_I4_G64, 1, {0}, 0}, "9 heads"},
               {{1, 65, 16, 64, SQ_W_I4_G64, 1, {0}, 0}, "hidden size 65"},
               {{1, 64, 65, 64, SQ_W_I4_G64, 1, {0}, 0}, "65 ids"},
               {{1, 64, 0, 64, SQ_W_I4_G64, 1, {0}, 0}, "0 ids"},
               {{1, 64, 16, 0, SQ_W_I4_G64, 1, {0}, 0}, "vocabulary of 0"},
               {{1, 64, 16, 64, SQ_W_F32, 1, {0}, 0}, "weight type 0"}};
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        sq_heads_layout l;
        squish_error err = {0};
        assert_int_equal(sq_heads_layout_of(&all[i].h, &l, &err), SQUISH_INVALID);
        assert_non_null(strstr(err.text, all[i].says));
    }
}

static void ids_have_to_rise_and_exist(void **unused) {
    (void)unused;
    file f = make(SQ_W_I4_G64, 1);
    const int32_t wrong[] = {-1, VOCAB, 3};
    for (size_t i = 0; i < SQ_COUNT(wrong); i++) {
        squish_error err;
        sq_heads *h;
        memcpy(f.bytes + f.l.ids + 5 * sizeof(int32_t), &wrong[i], sizeof(int32_t));
        sq_heads_write_header(&f.head, &f.l, f.bytes);
        assert_int_equal(parse(f.bytes, f.l.bytes, &h, &err), SQUISH_CORRUPT);
        assert_non_null(strstr(err.text, "id "));
        sq_heads_close(h);
    }
    free(f.bytes);
}

/* ---- running --------------------------------------------------------------------------------- */

static float embed_rows[VOCAB * HIDDEN];

static sq_model toy(void) {
    for (int32_t i = 0; i < VOCAB * HIDDEN; i++) embed_rows[i] = noise();
    sq_model m = {.alloc = sq_alloc_default()};
    m.cfg.hidden = HIDDEN;
    m.cfg.n_vocab = VOCAB;
    m.cfg.embed_scale = 1;
    m.embed = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, VOCAB, HIDDEN, (const uint8_t *)embed_rows);
    m.head = m.embed;
    return m;
}

/* In double, from the weights as they are stored. */
static void oracle(const sq_heads *h, const float *hidden, const int32_t *since, int32_t n, double *logits) {
    const sq_head *k = &h->head[n - 1];
    double x[(HEADS + 1) * HIDDEN], u[HIDDEN], z[HIDDEN];
    float row[(HEADS + 1) * HIDDEN];
    for (int32_t c = 0; c < HIDDEN; c++) x[c] = (double)hidden[c];
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < HIDDEN; c++)
            x[(i + 1) * HIDDEN + c] = (double)(h->embed_scale * embed_rows[since[i] * HIDDEN + c]);
    for (int32_t r = 0; r < HIDDEN; r++) {
        sq_weight_row(&k->in, r, row);
        u[r] = (double)k->in_bias[r];
        for (int32_t c = 0; c < (n + 1) * HIDDEN; c++) u[r] += (double)row[c] * x[c];
    }
    for (int32_t r = 0; r < HIDDEN; r++) {
        sq_weight_row(&k->mid, r, row);
        double s = (double)k->mid_bias[r];
        for (int32_t c = 0; c < HIDDEN; c++) s += (double)row[c] * u[c];
        z[r] = u[r] + s / (1 + exp(-s));
    }
    for (int32_t i = 0; i < h->n_ids; i++) {
        logits[i] = 0;
        for (int32_t c = 0; c < HIDDEN; c++) logits[i] += z[c] * (double)embed_rows[h->ids[i] * HIDDEN + c];
    }
}

static void heads_say_what_their_formula_says(void **unused) {
    (void)unused;
    file f = make(SQ_W_I8_G64, 1);
    const sq_model m = toy();
    const sq_backend_options bo = {.threads = 2,
                                   .isa_max = SQ_ISA_COUNT,
                                   .m_max = 1,
                                   .heads_max = 1,
                                   .kv_heads_max = 1,
                                   .head_dim_max = 16,
                                   .ctx_max = 32};
    squish_error err = {0};
    sq_heads *h;
    sq_backend *b;
    sq_heads_run *r;
    float hidden[HIDDEN];
    const int32_t since[HEADS + 1] = {3, 44, 7};
    for (int32_t i = 0; i < HIDDEN; i++) hidden[i] = noise();
    assert_ok(parse(f.bytes, f.l.bytes, &h, &err), &err);
    assert_ok(sq_backend_cpu_new(&b, &bo, &m.alloc, &err), &err);
    assert_ok(sq_heads_run_new(&r, h, &m, b, &m.alloc, &err), &err);
    assert_ok(sq_heads_ready(r, &err), &err);
    for (int32_t n = 1; n <= HEADS; n++) {
        double want[IDS], most = 0;
        oracle(h, hidden, since, n, want);
        sq_heads_begin(r, hidden, since, n);
        const float *got = sq_heads_logits(r);
        assert_non_null(got);
        for (int32_t i = 0; i < IDS; i++) most = fmax(most, fabs(want[i]));
        for (int32_t i = 0; i < IDS; i++) assert_true(fabs((double)got[i] - want[i]) < 0.03 * most);
        /* Pushed one by one it is the same. */
        float first[IDS];
        memcpy(first, got, sizeof first);
        sq_heads_begin(r, hidden, since, 1);
        for (int32_t i = 1; i < n; i++) sq_heads_push(r, since[i]);
        assert_memory_equal(sq_heads_logits(r), first, sizeof first);
    }
    sq_heads_begin(r, hidden, since, HEADS + 1);
    assert_null(sq_heads_logits(r)); /* no head takes so many */
    sq_heads_run_free(r);
    sq_backend_free(b);
    sq_heads_close(h);
    free(f.bytes);
}

static void a_file_of_another_model_is_refused_and_one_of_this_opens(void **unused) {
    (void)unused;
    sq_model m = toy();
    float norm[HIDDEN] = {1};
    m.final_norm = norm;
    file f[2] = {make(SQ_W_I4_G64, sq_heads_model(&m)), make(SQ_W_I4_G64, 5)};
    static const char path[] = "build/test_model_heads.sqh";
    for (int i = 0; i < 2; i++) {
        squish_error err = {0};
        sq_heads *h;
        FILE *o = fopen(path, "wb");
        assert_non_null(o);
        assert_int_equal(fwrite(f[i].bytes, 1, f[i].l.bytes, o), f[i].l.bytes);
        fclose(o);
        assert_int_equal(sq_heads_open(&h, path, &m, &err), i ? SQUISH_INVALID : SQUISH_OK);
        if (i) assert_non_null(strstr(err.text, "another model"));
        sq_heads_close(h);
        free(f[i].bytes);
    }
    squish_error err = {0};
    sq_heads *h;
    remove(path);
    assert_int_equal(sq_heads_open(&h, path, &m, &err), SQUISH_NOT_FOUND);
}

static void no_memory_is_a_status_and_nothing_leaks(void **unused) {
    (void)unused;
    file f = make(SQ_W_I4_G64, 1);
    const sq_model m = toy();
    const sq_backend_options bo = {.threads = 1,
                                   .isa_max = SQ_ISA_COUNT,
                                   .m_max = 1,
                                   .heads_max = 1,
                                   .kv_heads_max = 1,
                                   .head_dim_max = 16,
                                   .ctx_max = 32};
    sq_backend *b;
    squish_error err = {0};
    assert_ok(sq_backend_cpu_new(&b, &bo, &m.alloc, &err), &err);
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state s = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&s);
        sq_heads *h;
        sq_heads_run *r = NULL;
        err = (squish_error){0};
        squish_status st = sq_heads_parse(&h, (sq_span){f.bytes, f.l.bytes}, "a file", &a, &err);
        if (st == SQUISH_OK) st = sq_heads_run_new(&r, h, &m, b, &a, &err);
        sq_heads_run_free(r);
        sq_heads_close(h);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
    sq_backend_free(b);
    free(f.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(every_damaged_byte_is_noticed),
        cmocka_unit_test(sizes_out_of_range_are_named),
        cmocka_unit_test(ids_have_to_rise_and_exist),
        cmocka_unit_test(heads_say_what_their_formula_says),
        cmocka_unit_test(a_file_of_another_model_is_refused_and_one_of_this_opens),
        cmocka_unit_test(no_memory_is_a_status_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
