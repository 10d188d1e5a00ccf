/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_codec.c - codes of keys and values: how near what comes back is, held against a plain oracle in
 * double; books that do not depend on threads; their file cut and changed at every place; what is refused.
 * SQ_CODEC_SEED=path writes the file it made there: a seed to fuzz. */
#include "support/codec_books.h"
#include "support/faults.h"

static const sq_kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = BOOK_D};
static squish_alloc heap;
static sq_kernels kernels;
static sq_codec *books;

/* ---- vectors --------------------------------------------------------------------------------- */

/* The nearest row of a stage, in double. */
static int32_t plain_nearest(const float *rows, const double *x) {
    double least = INFINITY;
    int32_t best = 0;
    for (int32_t c = 0; c < SQ_PQ_ROWS; c++) {
        double sum = 0;
        for (int32_t k = 0; k < 8; k++) sum += pow(x[k] - (double)rows[c * 8 + k], 2);
        if (sum < least) least = sum, best = c;
    }
    return best;
}

/* What the definition says comes back of x; returns its squared error. */
static double plain_error(int32_t part, const float *x) {
    double u[BOOK_D], y[BOOK_D] = {0}, norm = 0, uy = 0, yy = 0, error = 0;
    for (int32_t i = 0; i < BOOK_D; i++) u[i] = (double)x[i] - (double)books->mean[part * BOOK_D + i];
    for (int32_t i = 0; i < BOOK_D; i++) norm += u[i] * u[i];
    norm = sqrt(norm);
    for (int32_t i = 0; i < BOOK_D; i++) u[i] /= norm;
    for (int32_t s = 0; s < books->subs; s++) {
        double rest[8];
        for (int32_t k = 0; k < 8; k++) rest[k] = u[s * 8 + k];
        for (int32_t stage = 0; stage < SQ_CODEC_STAGES; stage++) {
            const float *rows = sq_codec_rows(books, part, stage, s);
            const float *row = rows + plain_nearest(rows, rest) * 8;
            for (int32_t k = 0; k < 8; k++) rest[k] -= (double)row[k], y[s * 8 + k] += (double)row[k];
        }
    }
    for (int32_t i = 0; i < BOOK_D; i++) uy += u[i] * y[i], yy += y[i] * y[i];
    for (int32_t i = 0; i < BOOK_D; i++) error += pow(norm * (u[i] - uy / yy * y[i]), 2);
    return error;
}

/* New vectors of the same kind come back as near as the oracle says, but for the six bits of a gain (2^-7 of
 * a length at most) and ties; and near enough for books of 256 rows: less than a tenth of the variance. */
static void what_comes_back_is_as_near_as_the_oracle_says(void **state) {
    (void)state;
    enum { N = 200 };
    for (int32_t part = 0; part < books->n_parts; part++) {
        float x[N * BOOK_D], back[N * BOOK_D], book[SQ_PQ_BOOK], rest[N * (BOOK_D + 1)];
        uint16_t gain[N], *noise = noise_vectors(1, N, 99 + (uint64_t)part);
        uint8_t code[N * 4];
        double all = 0, lost = 0;
        for (int32_t i = 0; i < N * BOOK_D; i++) x[i] = sq_f16_to_f32(noise[i]);
        free(noise);
        float *kept = malloc(sizeof x);
        memcpy(kept, x, sizeof x);
        sq_codec_encode(books, &kernels, part, x, N, book, rest, gain, code);
        sq_codec_decode(books, part, gain, code, N, back);
        for (int32_t i = 0; i < N; i++) {
            const float *v = kept + i * BOOK_D;
            double error = 0, size = 0;
            for (int32_t k = 0; k < BOOK_D; k++) {
                error += pow((double)v[k] - (double)back[i * BOOK_D + k], 2);
                size += pow((double)v[k] - (double)books->mean[part * BOOK_D + k], 2);
            }
            assert_int_equal(gain[i] & 15, 0);
            assert_true(error <= plain_error(part, v) + size * 0x1p-13 + 1e-6);
            all += size;
            lost += error;
        }
        assert_true(lost < 0.1 * all);
        free(kept);
    }
}

static void odd_vectors_come_back_finite(void **state) {
    (void)state;
    enum { N = 4 };
    float x[N * BOOK_D] = {0}, book[SQ_PQ_BOOK], rest[N * (BOOK_D + 1)];
    uint16_t gain[N];
    uint8_t code[N * 4];
    for (int32_t i = 0; i < BOOK_D; i++) {
        x[i] = books->mean[i]; /* no length at all */
        x[BOOK_D + i] = i % 2 ? 65504.0f : -65504.0f;
        x[2 * BOOK_D + i] = 0x1p-24f;
    }
    sq_codec_encode(books, &kernels, 0, x, N, book, rest, gain, code);
    assert_int_equal(gain[0], 0);
    for (int32_t i = 0; i < N; i++) assert_true((gain[i] & 0x7c00) != 0x7c00);
    gain[2] = 0x7bff;
    sq_codec_decode(books, 0, gain, code, N, x);
    for (int32_t i = 0; i < N * BOOK_D; i++) assert_true(isfinite(x[i]));
    for (int32_t i = 0; i < BOOK_D; i++) assert_true(x[i] == books->mean[i]);
}

/* ---- books ----------------------------------------------------------------------------------- */

static void books_do_not_depend_on_threads(void **state) {
    (void)state;
    squish_error err = {0};
    for (int32_t threads = 1; threads <= 3; threads++) {
        sq_pool *pool;
        sq_codec *c;
        assert_ok(sq_pool_new(&pool, &heap, threads, &err), &err);
        assert_ok(books_train(&c, &shape, pool, &heap, &err), &err);
        sq_buf a = books_file(c, &heap), b = books_file(books, &heap);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        sq_buf_deinit(&a);
        sq_buf_deinit(&b);
        sq_codec_free(c);
        sq_pool_free(pool);
    }
}

static void too_few_vectors_are_refused(void **state) {
    (void)state;
    uint16_t x[2 * 255 * BOOK_D] = {0};
    squish_error err = {0};
    assert_int_equal(sq_codec_train(books, 0, 2, x, 255, NULL, &kernels, NULL, NULL, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "at least 256"));
}

/* Equal vectors are one row, and nothing divides by what they are not. */
static void equal_vectors_make_books_too(void **state) {
    (void)state;
    sq_codec *c;
    squish_error err = {0};
    uint16_t *x = calloc(2 * 300 * BOOK_D, sizeof *x);
    assert_ok(sq_codec_new(&c, &shape, &heap, &err), &err);
    assert_ok(sq_codec_train(c, 0, 2, x, 300, NULL, &kernels, NULL, NULL, &err), &err);
    c->info.gate = books->info.gate;
    sq_buf b = books_file(c, &heap);
    sq_codec *again;
    assert_ok(sq_codec_parse(&again, (sq_span){(const uint8_t *)b.data, b.len}, &heap, &err), &err);
    sq_codec_free(again);
    sq_buf_deinit(&b);
    sq_codec_free(c);
    free(x);
}

static bool stop(void *user, int32_t done) {
    (void)user;
    return done < 1;
}

static void training_can_be_stopped(void **state) {
    (void)state;
    sq_codec *c;
    squish_error err = {0};
    uint16_t *x = noise_vectors(2, 300, 1);
    assert_ok(sq_codec_new(&c, &shape, &heap, &err), &err);
    assert_int_equal(sq_codec_train(c, 0, 2, x, 300, NULL, &kernels, stop, NULL, &err), SQUISH_CANCELLED);
    sq_codec_free(c);
    free(x);
}

/* ---- the file -------------------------------------------------------------------------------- */

static squish_status parse(const void *p, size_t n, squish_error *err) {
    sq_codec *c;
    const squish_status st = sq_codec_parse(&c, (sq_span){p, n}, &heap, err);
    if (st == SQUISH_OK) sq_codec_free(c);
    return st;
}

static void every_flipped_bit_and_every_cut_is_found(void **state) {
    (void)state;
    sq_buf b = books_file(books, &heap);
    uint8_t *p = (uint8_t *)b.data;
    assert_int_equal(b.len, sq_codec_file_bytes(&shape));
    assert_int_equal(parse(p, b.len, NULL), SQUISH_OK);
    for (size_t i = 0; i < b.len; i++) {
        p[i] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(parse(p, b.len, NULL), SQUISH_CORRUPT);
        p[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 0; i < 8 * SQ_CODEC_HEADER; i++) {
        p[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(parse(p, b.len, NULL), SQUISH_CORRUPT);
        p[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t cut = 0; cut < b.len; cut++) assert_int_equal(parse(p, cut, NULL), SQUISH_CORRUPT);
    const char *seed = getenv("SQ_CODEC_SEED");
    FILE *f = seed ? fopen(seed, "wb") : NULL;
    if (f) {
        fwrite(p, 1, b.len, f);
        fclose(f);
    }
    sq_buf_deinit(&b);
}

/* Behind sums that are right every field is looked at. */
static void every_field_is_checked(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        const char *says;
    } bad[] = {{8, 2, "version"},           {12, 64, "header size"},    {24, 0, "layers"},
               {24, 100000, "layers"},      {24, 2, "file size"},       {28, 0, "heads"},
               {28, 300, "heads"},          {32, 8, "head dim"},        {32, 24, "head dim"},
               {32, 1024, "head dim"},      {36, 1, "stages"},          {40, 0, "measured prefix"},
               {44, 0, "measured prefix"},  {48, 0, "measured prefix"}, {52, 1u << 30, "asked for"},
               {56, 21, "pass keys of f16"}, {60, 21, "pass keys found"}, {68, 0x7ff80000, "KL"},
               {68, 0xbff00000, "KL"},      {72, 0x7fc00000, "times"},  {76, 0xbf800000, "times"},
               {112, 1, "padding"},         {128, 0x7c00, "not numbers"}};
    sq_buf b = books_file(books, &heap);
    uint8_t *p = (uint8_t *)b.data;
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        uint8_t was[4];
        squish_error err = {0};
        memcpy(was, p + bad[i].at, 4);
        memcpy(p + bad[i].at, &bad[i].value, 4);
        sq_codec_mend(p, b.len);
        assert_int_equal(parse(p, b.len, &err), SQUISH_CORRUPT);
        if (!strstr(err.text, bad[i].says)) fail_msg("%s does not name %s", err.text, bad[i].says);
        memcpy(p + bad[i].at, was, 4);
    }
    sq_codec_mend(p, b.len);
    assert_int_equal(parse(p, b.len, NULL), SQUISH_OK);
    sq_buf_deinit(&b);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX", path[80];
    sq_codec *c;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.codec", dir);
    sq_buf b = books_file(books, &heap);
    assert_ok(sq_codec_publish(&b, path, &err), &err);
    assert_ok(sq_codec_open(&c, path, &heap, &err), &err);
    assert_memory_equal(&c->info, &books->info, sizeof c->info);
    assert_true(c->sum == books->sum && c->sum != 0);
    const size_t rows = (size_t)c->n_parts * 2 * 2 * 256 * 8;
    assert_memory_equal(c->rows, books->rows, rows * sizeof(float));
    sq_codec_free(c);
    b.len--;
    assert_ok(sq_codec_publish(&b, path, &err), &err);
    assert_int_equal(sq_codec_open(&c, path, &heap, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, path));
    remove_tree(dir);
    err = (squish_error){0};
    assert_int_equal(sq_codec_open(&c, path, &heap, &err), SQUISH_NOT_FOUND);
    assert_int_not_equal(sq_codec_publish(&b, path, NULL), SQUISH_OK); /* no folder */
    sq_buf_deinit(&b);
}

static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    sq_buf b = books_file(books, &heap);
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state t = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&t);
        sq_codec *c;
        const squish_status st = sq_codec_parse(&c, (sq_span){(const uint8_t *)b.data, b.len}, &a, NULL);
        if (st == SQUISH_OK) sq_codec_free(c);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
    sq_buf_deinit(&b);
    struct sq_test_alloc_state t = {0};
    const squish_alloc a = sq_test_alloc(&t);
    sq_codec *c;
    uint16_t *x = noise_vectors(2, 300, 1);
    assert_int_equal(sq_codec_new(&c, &shape, &a, NULL), SQUISH_OK);
    t.fail_at = t.count + 1;
    assert_int_equal(sq_codec_train(c, 0, 2, x, 300, NULL, &kernels, NULL, NULL, NULL), SQUISH_NO_MEMORY);
    t.fail_at = t.count + 1;
    sq_buf_init(&b, &a, 1 << 20);
    assert_int_equal(sq_codec_file(c, &b, NULL), SQUISH_NO_MEMORY);
    sq_buf_deinit(&b);
    sq_codec_free(c);
    assert_int_equal(t.live_blocks, 0);
    free(x);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void the_gate_refuses_by_its_numbers(void **state) {
    (void)state;
    sq_codec_gate g = books->info.gate;
    squish_error err = {0};
    assert_int_equal(sq_codec_gate_check(&g, &err), SQUISH_OK);
    g.kl = 0.0201;
    assert_int_equal(sq_codec_gate_check(&g, &err), SQUISH_QUALITY);
    assert_non_null(strstr(err.text, "0.0201"));
    g.kl = NAN;
    assert_int_equal(sq_codec_gate_check(&g, NULL), SQUISH_QUALITY);
    g.kl = 0.02;
    g.found = 18; /* of 19: 94.7 % */
    err = (squish_error){0};
    assert_int_equal(sq_codec_gate_check(&g, &err), SQUISH_QUALITY);
    assert_non_null(strstr(err.text, "18 of 20"));
    g.found_f16 = 15, g.found = 0; /* a model that cannot do it says nothing by not doing it */
    assert_int_equal(sq_codec_gate_check(&g, NULL), SQUISH_OK);
}

static void a_prefix_is_coded_where_that_halves_the_time(void **state) {
    (void)state;
    sq_codec_gate g = {.prefill_us = 100, .decode_us = 0};
    assert_int_equal(sq_codec_worth(&g, 0), 512);
    g.decode_us = 10;
    assert_int_equal(sq_codec_worth(&g, 0), 576); /* 256 * 90 / 40 */
    assert_int_equal(sq_codec_worth(&g, 2000), 683); /* 10 us more of the disk: 256 * 80 / 30, up */
    g.decode_us = 50;
    assert_int_equal(sq_codec_worth(&g, 0), INT32_MAX);
    g = (sq_codec_gate){0};
    assert_int_equal(sq_codec_worth(&g, 0), INT32_MAX);
}

static void shapes_that_cannot_be_coded_are_named(void **state) {
    (void)state;
    sq_codec *c;
    squish_error err = {0};
    const sq_kv_shape odd = {1, 1, 24, false}, latent = {1, 1, 64, true};
    assert_int_equal(sq_codec_new(&c, &odd, &heap, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "24 channels"));
    err = (squish_error){0};
    assert_int_equal(sq_codec_new(&c, &latent, &heap, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "latent"));
}

static int setup(void **state) {
    (void)state;
    squish_error err = {0};
    heap = sq_alloc_default();
    sq_kernels_select(&kernels, sq_cpu_features(), SQ_ISA_COUNT);
    assert_ok(books_train(&books, &shape, NULL, &heap, &err), &err);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    sq_codec_free(books);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_is_as_near_as_the_oracle_says),
        cmocka_unit_test(odd_vectors_come_back_finite),
        cmocka_unit_test(books_do_not_depend_on_threads),
        cmocka_unit_test(too_few_vectors_are_refused),
        cmocka_unit_test(equal_vectors_make_books_too),
        cmocka_unit_test(training_can_be_stopped),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_found),
        cmocka_unit_test(every_field_is_checked),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
        cmocka_unit_test(the_gate_refuses_by_its_numbers),
        cmocka_unit_test(a_prefix_is_coded_where_that_halves_the_time),
        cmocka_unit_test(shapes_that_cannot_be_coded_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
