/* SPDX-License-Identifier: Apache-2.0
 *
 * test_architectures.c - every family against transformers: logits of the last 72 of 200 positions and
 * 24 greedy tokens. The references were made in float32 from the bf16 weights; see
 * tests/fixtures/architectures/README.md. */
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

/* int8: least cosine of the logits. With experts it is lower: a router that flips takes another path. */
static const struct {
    const char *name;
    double int8;
} families[] = {{"qwen2", 0.997},       {"qwen2-untied-yarn", 0.997}, {"qwen3", 0.997},
                {"llama3", 0.997},      {"mistral-window", 0.997},    {"phi3", 0.997},
                {"gemma3-text", 0.997}, {"qwen2-moe", 0.99},          {"qwen3-moe", 0.99},
                {"deepseek-v2", 0.99},  {"deepseek-v2-lite", 0.99}};

typedef struct {
    sq_safetensors *st;
    const int32_t *ids;
    int32_t ids_buf[200];
    const float *logits; /* [72][vocab] */
    int32_t n_ids, n_rows, n_vocab;
    int32_t prompt[40], next[24];
    float absmax;
} reference;

static void read_ids(const json_t *o, const char *key, int32_t *out, size_t n) {
    const json_t *a = json_object_get(o, key);
    assert_int_equal(json_array_size(a), n);
    for (size_t i = 0; i < n; i++) out[i] = (int32_t)json_integer_value(json_array_get(a, i));
}

static void open_reference(const char *family, reference *r) {
    char path[256];
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    snprintf(path, sizeof path, "tests/fixtures/architectures/%s/reference.safetensors", family);
    assert_ok(sq_st_open(&r->st, path, &a, NULL, NULL, &err), &err);
    const sq_ftensor *ids = sq_st_find(r->st, "input_ids"), *logits = sq_st_find(r->st, "logits");
    assert_non_null(ids);
    assert_non_null(logits);
    r->n_ids = (int32_t)(ids->bytes / 8);
    assert_int_equal(r->n_ids, 200);
    for (int32_t i = 0; i < r->n_ids; i++) {
        int64_t id;
        memcpy(&id, ids->data + 8 * i, 8);
        r->ids_buf[i] = (int32_t)id;
    }
    r->ids = r->ids_buf;
    r->n_rows = (int32_t)logits->dims[0];
    r->n_vocab = (int32_t)logits->dims[1];
    r->logits = (const float *)(const void *)logits->data;
    snprintf(path, sizeof path, "tests/fixtures/architectures/%s/reference.json", family);
    json_t *o = json_load_file(path, 0, NULL);
    assert_non_null(o);
    read_ids(o, "greedy_prompt", r->prompt, 40);
    read_ids(o, "greedy_next_24", r->next, 24);
    json_decref(o);
    r->absmax = 0;
    for (int32_t i = 0; i < r->n_rows * r->n_vocab; i++) r->absmax = fmaxf(r->absmax, fabsf(r->logits[i]));
}

typedef struct {
    const reference *r;
    float worst;
    double dot, aa, bb, worst_row_cos;
} compare;

static bool compare_row(void *user, int32_t pos, const float *logits) {
    compare *c = user;
    const float *ref = c->r->logits + (size_t)(pos - (c->r->n_ids - c->r->n_rows)) * (size_t)c->r->n_vocab;
    double dot = 0, aa = 0, bb = 0;
    for (int32_t i = 0; i < c->r->n_vocab; i++) {
        c->worst = fmaxf(c->worst, fabsf(ref[i] - logits[i]));
        dot += (double)ref[i] * logits[i], aa += (double)ref[i] * ref[i], bb += (double)logits[i] * logits[i];
    }
    c->dot += dot, c->aa += aa, c->bb += bb;
    c->worst_row_cos = fmin(c->worst_row_cos, dot / sqrt(aa * bb));
    return true;
}

static compare score(run *x, const reference *r) {
    compare c = {.r = r, .worst_row_cos = 1};
    squish_error err = {0};
    assert_ok(squish_seq_score(x->s, r->ids, (size_t)r->n_ids, r->n_ids - r->n_rows, compare_row, &c, &err),
              &err);
    return c;
}

static void source_logits_are_transformers_and_greedy_tokens_are_equal(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(families); i++) {
        reference r = {0};
        char path[256];
        open_reference(families[i].name, &r);
        snprintf(path, sizeof path, "tests/fixtures/architectures/%s", families[i].name);
        squish_engine_options exact = squish_engine_options_default();
        exact.kv = SQUISH_KV_F32;
        run x = run_open(path, SQUISH_TIER_SOURCE, &exact);
        const compare c = score(&x, &r);
        print_message("%-18s max |error| / absmax %.2e, cosine %.8f\n", families[i].name,
                      (double)(c.worst / r.absmax), c.dot / sqrt(c.aa * c.bb));
        assert_true(c.worst <= 2e-4f * r.absmax);
        int32_t next[24];
        run_greedy(&x, r.prompt, 40, next, 24);
        assert_memory_equal(next, r.next, sizeof next);
        run_close(&x);
        sq_st_close(r.st);
    }
}

static void int8_logits_keep_their_direction(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(families); i++) {
        reference r = {0};
        char path[256];
        open_reference(families[i].name, &r);
        snprintf(path, sizeof path, "tests/fixtures/architectures/%s", families[i].name);
        run x = run_compressed(path, SQUISH_TIER_Q8, SQUISH_METHOD_LSQ, NULL);
        const compare c = score(&x, &r);
        print_message("%-18s int8 cosine over all positions %.6f, worst position %.6f\n", families[i].name,
                      c.dot / sqrt(c.aa * c.bb), c.worst_row_cos);
        assert_true(c.dot / sqrt(c.aa * c.bb) >= families[i].int8);
        run_close(&x);
        sq_st_close(r.st);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_logits_are_transformers_and_greedy_tokens_are_equal),
        cmocka_unit_test(int8_logits_keep_their_direction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
