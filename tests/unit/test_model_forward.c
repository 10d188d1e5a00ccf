/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_forward.c - the forward pass against naive_llama.c, on models made here: head sizes that fill no
 * vector, grouped heads, biases, head norms, windows; and the same bits however the work is cut. */
#include "sched/sched.h"
#include "support/model_run.h"
#include "support/naive_llama.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>

enum { N_IDS = 300, N_ROWS = 60 };

static void make_ids(int32_t *ids, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)((uint32_t)(i + 3) * 2654435761u >> 9) % n_vocab;
}

static void make_dir(char dir[64], const tiny_spec *s) {
    snprintf(dir, 64, "/tmp/squish-forward-XXXXXX");
    assert_non_null(mkdtemp(dir));
    tiny_write(s, dir);
}

typedef struct {
    float *rows;
    int32_t n_vocab, first;
} kept;

static bool keep(void *user, int32_t pos, const float *logits) {
    kept *k = user;
    memcpy(k->rows + (size_t)(pos - k->first) * (size_t)k->n_vocab, logits,
           (size_t)k->n_vocab * sizeof *logits);
    return true;
}

/* Logits of positions first..n-1. */
static float *engine_logits(const char *path, const squish_engine_options *o, const int32_t *ids, int32_t n,
                            int32_t first, int32_t n_vocab) {
    run x = run_open(path, SQUISH_TIER_SOURCE, o);
    squish_error err = {0};
    kept k = {calloc((size_t)(n - first) * (size_t)n_vocab, sizeof(float)), n_vocab, first};
    assert_ok(squish_seq_score(x.s, ids, (size_t)n, first, keep, &k, &err), &err);
    run_close(&x);
    return k.rows;
}

static void compare_with_naive(const char *what, const tiny_spec *s) {
    char dir[64];
    int32_t ids[N_IDS];
    make_dir(dir, s);
    make_ids(ids, N_IDS, s->vocab);
    squish_engine_options o = squish_engine_options_default();
    o.kv = SQUISH_KV_F32;
    double *want = naive_logits(dir, ids, N_IDS), worst = 0, top = 0;
    float *got = engine_logits(dir, &o, ids, N_IDS, 0, s->vocab);
    for (int32_t i = 0; i < N_IDS * s->vocab; i++) {
        worst = fmax(worst, fabs(want[i] - (double)got[i]));
        top = fmax(top, fabs(want[i]));
    }
    print_message("%-40s max |error| / absmax %.1e\n", what, worst / top);
    assert_true(top > 0.5);           /* something was computed */
    assert_true(worst <= 2e-5 * top); /* a few hundred f32 roundings of 6e-8, three layers deep */
    free(want), free(got);
    remove_tree(dir);
}

static void every_shape_and_family_agrees_with_the_naive_transformer(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    compare_with_naive("llama, head_dim 24, 4 heads over 2", &s);
    s.head_dim = 72, s.heads = 3, s.kv_heads = 3, s.hidden = 130, s.ffn = 77;
    compare_with_naive("llama, head_dim 72, hidden 130, ffn 77", &s);
    s.head_dim = 100, s.heads = 5, s.kv_heads = 1, s.tied = true, s.vocab = 101;
    compare_with_naive("llama, head_dim 100, 5 heads over 1, tied", &s);
    s.head_dim = 2, s.heads = 8, s.kv_heads = 4, s.hidden = 33, s.ffn = 1;
    compare_with_naive("llama, head_dim 2, hidden 33, ffn 1", &s);
    s = tiny_default(), s.bias = s.mlp_bias = true;
    compare_with_naive("llama with biases everywhere", &s);
    s = tiny_default(), s.heads = 64, s.kv_heads = 1, s.head_dim = 6, s.layers = 1;
    compare_with_naive("llama, 64 heads over 1", &s);
    s = tiny_default(), s.model_type = "qwen2", s.heads = 7, s.kv_heads = 1, s.seed = 8;
    compare_with_naive("qwen2, 7 heads over 1", &s);
    s = tiny_default(), s.model_type = "qwen2", s.window = 37;
    compare_with_naive("qwen2, window 37 from layer 1", &s);
    s = tiny_default(), s.model_type = "qwen3", s.head_dim = 40, s.bias = true;
    compare_with_naive("qwen3, head norms and biases", &s);
    s = tiny_default(), s.model_type = "mistral", s.window = 1;
    compare_with_naive("mistral, window 1", &s);
    s.window = 33;
    compare_with_naive("mistral, window 33", &s);
    s.window = 256;
    compare_with_naive("mistral, window 256", &s);
}

static void odd_head_sizes_give_the_same_bits_however_the_work_is_cut(void **state) {
    (void)state;
    static const struct {
        const char *isa;
        int32_t threads, chunk;
    } ways[] = {{"scalar", 1, 512}, {"scalar", 3, 7}, {"avx2", 2, 64},
                {"avx512", 1, 1},   {"neon", 2, 33},  {NULL, 4, 100}};
    static const int32_t dims[] = {24, 72, 100};
    for (size_t d = 0; d < SQ_COUNT(dims); d++) {
        tiny_spec s = tiny_default();
        char dir[64];
        int32_t ids[N_IDS];
        s.head_dim = dims[d], s.layers = 2, s.bf16 = true;
        make_dir(dir, &s);
        make_ids(ids, N_IDS, s.vocab);
        squish_engine_options o = squish_engine_options_default();
        o.threads = 1;
        float *want = engine_logits(dir, &o, ids, N_IDS, N_IDS - N_ROWS, s.vocab);
        for (size_t i = 0; i < SQ_COUNT(ways); i++) {
            o.isa_max = ways[i].isa, o.threads = ways[i].threads, o.chunk_tokens = ways[i].chunk;
            float *got = engine_logits(dir, &o, ids, N_IDS, N_IDS - N_ROWS, s.vocab);
            assert_memory_equal(got, want, (size_t)N_ROWS * (size_t)s.vocab * sizeof *got);
            free(got);
        }
        free(want);
        remove_tree(dir);
    }
}

/* One timeline goes on token by token, the other beside it in parts: 1 to 32 rows of a tile through one to
 * three layers a step, and longer than the first, so that at last it is alone. */
static void check_parts(const run *x, const int32_t *ids, const float *want, const float *beside,
                        int32_t n_vocab) {
    enum { BESIDE = 20 };
    sq_engine *e = x->e;
    const int32_t layers = e->m->cfg.n_layers;
    const size_t row = (size_t)n_vocab * sizeof *want;
    int32_t pos = 0, rows = 0, at = 0, n = 0, step_ids[1 + SQ_PART_ROWS];
    sq_kv_seq *parted, *whole;
    squish_error err = {0};
    assert_ok(sq_kv_seq_new(&parted, e->kv, N_IDS, &err), &err);
    assert_ok(sq_kv_seq_new(&whole, e->kv, BESIDE, &err), &err);
    for (int32_t step = 0, from = 0, to; pos < N_IDS; step++, from = to % layers) {
        n = at < BESIDE;
        if (from == 0) {
            const int32_t tile = SQ_KV_TILE - pos % SQ_KV_TILE, left = N_IDS - pos;
            rows = 1 + step * 7 % SQ_PART_ROWS;
            rows = rows < tile ? rows : tile;
            rows = rows < left ? rows : left;
            assert_ok(sq_kv_seq_reserve(parted, pos + rows, &err), &err);
        }
        to = from + 1 + step % 3 < layers ? from + 1 + step % 3 : layers;
        const sq_step_seg segs[] = {{.kv = whole, .row0 = 0, .n_rows = 1, .pos0 = at, .prompt = true},
                                    {.kv = parted, .row0 = n, .n_rows = rows, .pos0 = pos, .prompt = true}};
        if (n) assert_ok(sq_kv_seq_reserve(whole, at + 1, &err), &err);
        step_ids[0] = ids[N_IDS - 1 - at]; /* another text: backwards */
        memcpy(step_ids + n, ids + pos, (size_t)rows * sizeof *ids);
        sq_forward_run_part(e->f, step_ids, n + rows, segs + 1 - n, 1 + n, from, to, NULL);
        const int32_t first = 0, last = n + rows - 1;
        if (n)
            assert_memory_equal(sq_forward_logits(e->f, &first, 1), beside + (size_t)at * (size_t)n_vocab,
                                row);
        at += n;
        if (to < layers) continue;
        assert_memory_equal(sq_forward_logits(e->f, &last, 1),
                            want + (size_t)(pos + rows - 1) * (size_t)n_vocab, row);
        pos += rows;
    }
    assert_int_equal(n, 0);
    sq_kv_seq_free(parted), sq_kv_seq_free(whole);
}

static void check_parts_of(const char *dir, squish_kv kv, int32_t n_vocab) {
    int32_t ids[N_IDS], back[N_IDS];
    squish_engine_options o = squish_engine_options_default();
    make_ids(ids, N_IDS, n_vocab);
    for (int32_t i = 0; i < N_IDS; i++) back[i] = ids[N_IDS - 1 - i];
    o.kv = kv;
    float *want = engine_logits(dir, &o, ids, N_IDS, 0, n_vocab);
    float *beside = engine_logits(dir, &o, back, N_IDS, 0, n_vocab);
    run x = run_open(dir, SQUISH_TIER_SOURCE, &o);
    check_parts(&x, ids, want, beside, n_vocab);
    run_close(&x);
    free(want), free(beside);
}

static void rows_that_go_on_by_layers_have_the_bits_of_whole_steps(void **state) {
    (void)state;
    static const squish_kv formats[] = {SQUISH_KV_F16, SQUISH_KV_Q8, SQUISH_KV_K4V2};
    static const char *const families[] = {"gemma3-text", "qwen2-moe", "deepseek-v2"};
    tiny_spec s = tiny_default();
    char dir[64], path[96];
    s.layers = 5;
    make_dir(dir, &s);
    for (size_t i = 0; i < SQ_COUNT(formats); i++) check_parts_of(dir, formats[i], s.vocab);
    remove_tree(dir);
    for (size_t i = 0; i < SQ_COUNT(families); i++) {
        squish_model *m;
        squish_error err = {0};
        snprintf(path, sizeof path, "tests/fixtures/architectures/%s", families[i]);
        assert_ok(squish_model_open(&m, path, NULL, &err), &err);
        const int32_t n_vocab = m->cfg.n_vocab;
        squish_model_close(m);
        check_parts_of(path, SQUISH_KV_F16, n_vocab);
    }
}

static void a_compressed_odd_model_stays_close(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    char dir[64];
    int32_t ids[N_IDS];
    make_dir(dir, &s);
    make_ids(ids, N_IDS, s.vocab);
    float *want = engine_logits(dir, NULL, ids, N_IDS, N_IDS - 1, s.vocab);
    run x = run_compressed(dir, SQUISH_TIER_Q8, SQUISH_METHOD_LSQ, NULL);
    squish_error err = {0};
    assert_ok(squish_seq_sync(x.s, ids, N_IDS, &err), &err);
    const float *got = squish_seq_logits(x.s);
    double dot = 0, aa = 0, bb = 0;
    for (int32_t i = 0; i < s.vocab; i++)
        dot += (double)want[i] * got[i], aa += (double)want[i] * want[i], bb += (double)got[i] * got[i];
    assert_true(dot / sqrt(aa * bb) > 0.998);
    free(want);
    run_close(&x);
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_and_family_agrees_with_the_naive_transformer),
        cmocka_unit_test(odd_head_sizes_give_the_same_bits_however_the_work_is_cut),
        cmocka_unit_test(rows_that_go_on_by_layers_have_the_bits_of_whole_steps),
        cmocka_unit_test(a_compressed_odd_model_stays_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
