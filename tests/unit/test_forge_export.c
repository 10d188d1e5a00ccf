/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_export.c - models in the form of others, and back: values, order of rows, and the tokens that a
 * model says must stay what they were. */
#include "model/model.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <unistd.h>

typedef struct {
    char base[64], src[96];
} place;

static place place_of(const tiny_spec *s) {
    place p;
    snprintf(p.base, sizeof p.base, "/tmp/squish-export-XXXXXX");
    assert_non_null(mkdtemp(p.base));
    snprintf(p.src, sizeof p.src, "%s/model", p.base);
    assert_int_equal(sq_os_mkdirs(p.src, NULL), SQUISH_OK);
    tiny_write(s, p.src);
    return p;
}

static squish_model *open_model(const char *path, squish_tier tier) {
    squish_model_options o = squish_model_options_default();
    squish_model *m = NULL;
    squish_error err = {0};
    o.tier = tier;
    assert_ok(squish_model_open(&m, path, &o, &err), &err);
    return m;
}

/* from in the form `to` as base/name. */
static squish_export_result export_to(const place *p, const char *from, squish_tier tier, const char *to,
                                      const char *name, char *path, size_t n) {
    squish_export_result r;
    squish_error err = {0};
    squish_model *m = open_model(from, tier);
    snprintf(path, n, "%s/%s", p->base, name);
    assert_ok(squish_export(m, to, path, NULL, &r, &err), &err);
    squish_model_close(m);
    return r;
}

static void assert_same_tokens(const char *a, squish_tier ta, const char *b, squish_tier tb) {
    const int32_t prompt[] = {3, 17, 40, 5, 88};
    int32_t x[24], y[24];
    run one = run_open(a, ta, NULL), two = run_open(b, tb, NULL);
    run_greedy(&one, prompt, SQ_COUNT(prompt), x, SQ_COUNT(x));
    run_greedy(&two, prompt, SQ_COUNT(prompt), y, SQ_COUNT(y));
    run_close(&one);
    run_close(&two);
    assert_memory_equal(x, y, sizeof x);
}

/* Row r of b stands at which row of a? Families and files differ in q and k only. */
static int32_t row_in(const squish_model *a, const squish_model *b, const sq_want *w, int32_t r) {
    if (a->cfg.rope_pairs == b->cfg.rope_pairs || (w->role != SQ_ROLE_Q && w->role != SQ_ROLE_K)) return r;
    const int32_t d = a->cfg.head_dim, base = r / d * d, i = r - base;
    return base + (a->cfg.rope_pairs ? i % (d / 2) * 2 + i / (d / 2) : i % 2 * (d / 2) + i / 2);
}

static void assert_same_values(const char *path_a, squish_tier ta, const char *path_b, squish_tier tb) {
    squish_model *a = open_model(path_a, ta), *b = open_model(path_b, tb);
    sq_want w;
    for (size_t i = 0; sq_config_want(&a->cfg, i, &w); i++) {
        float x[1024], y[1024];
        if (w.vector) continue;
        for (int32_t r = 0; r < w.rows; r++) {
            sq_weight_row_whole(sq_model_matrix(a, &w), row_in(a, b, &w, r), x);
            sq_weight_row_whole(sq_model_matrix(b, &w), r, y);
            for (int32_t k = 0; k < w.cols; k++)
                if (x[k] != y[k]) fail_msg("%s row %d column %d: %.9g, %.9g", w.name, r, k, x[k], y[k]);
        }
    }
    squish_model_close(a);
    squish_model_close(b);
}

/* Every tensor of checkpoint a stands in b, byte by byte. */
static void assert_same_checkpoint(const char *a, const char *b) {
    sq_safetensors *x = NULL, *y = NULL;
    squish_error err = {0};
    assert_ok(sq_st_open(&x, a, NULL, NULL, NULL, &err), &err);
    assert_ok(sq_st_open(&y, b, NULL, NULL, NULL, &err), &err);
    assert_int_equal(sq_st_count(x), sq_st_count(y));
    for (size_t i = 0; i < sq_st_count(x); i++) {
        const sq_ftensor *s = sq_st_at(x, i), *t = sq_st_at(y, i);
        assert_string_equal(s->name, t->name);
        assert_int_equal(s->dtype, t->dtype);
        assert_int_equal(s->n_dims, t->n_dims);
        assert_memory_equal(s->dims, t->dims, sizeof s->dims);
        assert_int_equal(s->bytes, t->bytes);
        assert_memory_equal(s->data, t->data, s->bytes);
    }
    sq_st_close(x);
    sq_st_close(y);
}

static const char *const archs[] = {"llama", "qwen2", "qwen3"};

static tiny_spec spec_of(const char *arch, bool bf16) {
    tiny_spec s = tiny_default();
    s.model_type = arch;
    s.bf16 = bf16;
    s.bias = strcmp(arch, "llama") == 0;
    return s;
}

static void a_checkpoint_comes_back_bit_by_bit(void **state) {
    (void)state;
    for (size_t i = 0; i < 2 * SQ_COUNT(archs); i++) {
        const tiny_spec s = spec_of(archs[i / 2], i % 2);
        const place p = place_of(&s);
        char st[128];
        const squish_export_result r =
            export_to(&p, p.src, SQUISH_TIER_SOURCE, "safetensors", "st", st, sizeof st);
        assert_int_equal(r.n_decoded, 0);
        assert_same_checkpoint(p.src, st);
        remove_tree(p.base);
    }
}

static void gguf_says_the_same_tokens_and_comes_back_with_rows_in_halves(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(archs); i++) {
        const tiny_spec s = spec_of(archs[i], true);
        const place p = place_of(&s);
        char file[128], again[128], st[128];
        const squish_export_result r =
            export_to(&p, p.src, SQUISH_TIER_SOURCE, "gguf", "a.gguf", file, sizeof file);
        assert_int_equal(r.n_decoded, 0);
        assert_same_tokens(p.src, SQUISH_TIER_SOURCE, file, SQUISH_TIER_AUTO);
        assert_same_values(p.src, SQUISH_TIER_SOURCE, file, SQUISH_TIER_AUTO);
        export_to(&p, file, SQUISH_TIER_AUTO, "gguf", "b.gguf", again, sizeof again);
        assert_same_values(file, SQUISH_TIER_AUTO, again, SQUISH_TIER_AUTO);
        export_to(&p, file, SQUISH_TIER_AUTO, "safetensors", "st", st, sizeof st);
        assert_same_checkpoint(p.src, st);
        assert_same_tokens(p.src, SQUISH_TIER_SOURCE, st, SQUISH_TIER_SOURCE);
        remove_tree(p.base);
    }
}

static void numpy_files_hold_every_value_and_open_as_tier_2(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const tiny_spec s = spec_of("llama", bf16);
        const place p = place_of(&s);
        char npy[128];
        export_to(&p, p.src, SQUISH_TIER_SOURCE, "npy", "npy", npy, sizeof npy);
        assert_same_values(p.src, SQUISH_TIER_SOURCE, npy, SQUISH_TIER_2);
        assert_same_tokens(p.src, SQUISH_TIER_SOURCE, npy, SQUISH_TIER_2);
        remove_tree(p.base);
    }
}

/* Scales in f16 have a place in blocks of GGUF. */
static void codes_go_over_as_blocks(void **state) {
    (void)state;
    static const int32_t bits[] = {2, 3, 4, 8};
    for (size_t i = 0; i < SQ_COUNT(bits); i++) {
        tiny_spec s = spec_of("llama", true);
        squish_compress_options o = squish_compress_options_default();
        squish_compress_result made;
        squish_error err = {0};
        char out[128], file[128], npy[128];
        s.hidden = 128, s.ffn = 192;
        const place p = place_of(&s);
        snprintf(out, sizeof out, "%s/model-compressed", p.base);
        o.out_dir = out, o.tier = bits[i] == 8 ? SQUISH_TIER_Q8 : SQUISH_TIER_0, o.bits = bits[i];
        o.allow_collapsed = true;
        assert_ok(squish_compress(p.src, &o, &made, &err), &err);
        export_to(&p, p.src, o.tier, "gguf", "a.gguf", file, sizeof file);
        export_to(&p, p.src, o.tier, "npy", "npy", npy, sizeof npy);
        assert_same_values(p.src, o.tier, npy, SQUISH_TIER_2);
        const squish_export_result r =
            export_to(&p, p.src, o.tier, "gguf", "b.gguf", file, sizeof file);
        if (r.n_decoded == 0) assert_same_values(p.src, o.tier, file, SQUISH_TIER_AUTO);
        remove_tree(p.base);
    }
}

static void what_is_there_stays(void **state) {
    (void)state;
    const tiny_spec s = spec_of("qwen2", true);
    const place p = place_of(&s);
    squish_model *m = open_model(p.src, SQUISH_TIER_SOURCE);
    squish_export_result r;
    squish_error err = {0};
    static const char *const forms[] = {"mlx", "gguf", "safetensors", "npy"};
    for (size_t i = 0; i < SQ_COUNT(forms); i++) {
        assert_int_equal(squish_export(m, forms[i], p.src, NULL, &r, &err), SQUISH_INVALID);
        assert_non_null(strstr(err.text, "is there already"));
        err = (squish_error){0};
    }
    assert_int_equal(squish_export(m, "onnx", p.src, NULL, &r, &err), SQUISH_INVALID);
    squish_model_close(m);
    remove_tree(p.base);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)what, (void)done, (void)total;
    return false;
}

static void a_stopped_export_leaves_nothing(void **state) {
    (void)state;
    const tiny_spec s = spec_of("llama", true);
    const place p = place_of(&s);
    squish_model *m = open_model(p.src, SQUISH_TIER_SOURCE);
    squish_export_result r;
    squish_error err = {0};
    const squish_export_options o = {.progress = stop};
    static const char *const forms[] = {"gguf", "safetensors", "npy"};
    for (size_t i = 0; i < SQ_COUNT(forms); i++) {
        char out[128], partial[160];
        snprintf(out, sizeof out, "%s/%s", p.base, forms[i]);
        snprintf(partial, sizeof partial, "%s.partial", out);
        assert_int_equal(squish_export(m, forms[i], out, &o, &r, &err), SQUISH_CANCELLED);
        assert_false(sq_os_exists(out));
        assert_false(sq_os_exists(partial));
    }
    squish_model_close(m);
    remove_tree(p.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_comes_back_bit_by_bit),
        cmocka_unit_test(gguf_says_the_same_tokens_and_comes_back_with_rows_in_halves),
        cmocka_unit_test(numpy_files_hold_every_value_and_open_as_tier_2),
        cmocka_unit_test(codes_go_over_as_blocks),
        cmocka_unit_test(what_is_there_stays),
        cmocka_unit_test(a_stopped_export_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
