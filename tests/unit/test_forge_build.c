/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_build.c - what tensors become in a tier: types by bits and group, ternary weights, weights
 * beyond f16, and what the file says of its source. */
#include "forge/forge.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct {
    char base[64], src[96], out[96];
} place;

static place place_of(const tiny_spec *s) {
    place p;
    snprintf(p.base, sizeof p.base, "/tmp/squish-forge-XXXXXX");
    assert_non_null(mkdtemp(p.base));
    snprintf(p.src, sizeof p.src, "%s/model", p.base);
    snprintf(p.out, sizeof p.out, "%s/model-compressed", p.base);
    assert_int_equal(sq_os_mkdirs(p.src, NULL), SQUISH_OK);
    tiny_write(s, p.src);
    return p;
}

static squish_compress_options options(const place *p) {
    squish_compress_options o = squish_compress_options_default();
    o.out_dir = p->out, o.threads = 2, o.force = true;
    return o;
}

/* fn over the f32 weights of every tensor of the checkpoint, changed in place. */
static void change(const place *p, void (*fn)(const char *name, bool matrix, float *w, size_t n)) {
    char path[128];
    snprintf(path, sizeof path, "%s/model.safetensors", p->src);
    sq_map map;
    sq_arena ar;
    sq_ftensor *t;
    size_t n;
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_os_map_open(&map, path, NULL), SQUISH_OK);
    assert_int_equal(sq_st_parse((sq_span){map.data, map.bytes}, path, &ar, &t, &n, NULL), SQUISH_OK);
    uint8_t *copy = malloc(map.bytes);
    memcpy(copy, map.data, map.bytes);
    for (size_t i = 0; i < n; i++) {
        float *w = malloc(t[i].bytes);
        memcpy(w, t[i].data, t[i].bytes);
        fn(t[i].name, t[i].n_dims == 2, w, t[i].bytes / sizeof(float));
        memcpy(copy + (t[i].data - map.data), w, t[i].bytes);
        free(w);
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(copy, 1, map.bytes, f), map.bytes);
    fclose(f);
    free(copy);
    sq_os_map_close(&map);
    sq_arena_deinit(&ar);
}

static sq_sqw *built(const squish_compress_options *o, const place *p, squish_compress_result *r) {
    squish_error err = {0};
    sq_sqw *s = NULL;
    assert_ok(squish_compress(p->src, o, r, &err), &err);
    assert_ok(sq_sqw_open(&s, r->file, NULL, &err), &err);
    assert_ok(sq_sqw_verify(s, NULL, NULL, &err), &err);
    return s;
}

static const sq_sqw_tensor *tensor(const sq_sqw *s, const char *name) {
    size_t n;
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(sq_sqw_name(s, &t[i]), name) == 0) return &t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static sq_weight weight(const sq_sqw *s, const sq_sqw_tensor *t) {
    return sq_weight_make((sq_wtype)t->wtype, (sq_scale_type)t->scale_type, (int32_t)t->dims[0],
                          (int32_t)t->dims[1], sq_sqw_data(s, t));
}

static const char q_name[] = "model.layers.0.self_attn.q_proj.weight";

/* ---- bits and group -------------------------------------------------------------------------- */

static void bits_and_group_choose_the_types(void **state) {
    (void)state;
    static const struct {
        squish_tier tier;
        int bits, group;
        sq_wtype body, table;
        double cosine;
    } cases[] = {{SQUISH_TIER_0, 4, 64, SQ_W_I4_G64, SQ_W_I8_G64, 0.99},
                 {SQUISH_TIER_0, 4, 32, SQ_W_I4_G32, SQ_W_I8_G32, 0.99},
                 {SQUISH_TIER_0, 3, 64, SQ_W_I3_G64, SQ_W_I8_G64, 0.97},
                 {SQUISH_TIER_0, 2, 64, SQ_W_I2_G64, SQ_W_I8_G64, 0.85},
                 {SQUISH_TIER_Q8, 0, 64, SQ_W_I8_G64, SQ_W_I8_G64, 0.9999},
                 {SQUISH_TIER_Q8, 8, 32, SQ_W_I8_G32, SQ_W_I8_G32, 0.9999},
                 {SQUISH_TIER_Q8, 8, 0, SQ_W_I8_ROW, SQ_W_I8_ROW, 0.9999}};
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        squish_compress_options o = options(&p);
        squish_compress_result r;
        o.tier = cases[i].tier, o.bits = cases[i].bits, o.group = cases[i].group;
        sq_sqw *q = built(&o, &p, &r);
        const sq_sqw_tensor *t = tensor(q, q_name);
        assert_int_equal(t->wtype, cases[i].body);
        assert_int_equal(t->group, cases[i].group);
        assert_int_equal(tensor(q, "model.embed_tokens.weight")->wtype, cases[i].table);
        assert_true(r.cos_min > cases[i].cosine);
        sq_sqw_close(q);
    }
    remove_tree(p.base);
}

/* ---- ternary --------------------------------------------------------------------------------- */

static void to_ternary(const char *name, bool matrix, float *w, size_t n) {
    const float s = name[0] == 'l' ? 0.5f : 0.03125f;
    for (size_t i = 0; matrix && i < n; i++) w[i] = w[i] > 0.01f ? s : w[i] < -0.01f ? -s : 0;
}

static void ternary_weights_stay_exactly_what_they_are(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    change(&p, to_ternary);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    o.bits = 1;
    sq_sqw *q = built(&o, &p, &r);
    const sq_sqw_tensor *t = tensor(q, q_name);
    assert_int_equal(t->wtype, SQ_W_T2_ROW);
    assert_int_equal(tensor(q, "lm_head.weight")->wtype, SQ_W_I8_G64);
    const sq_weight w = weight(q, t);
    float row[256];
    sq_weight_row(&w, 3, row);
    for (int32_t c = 0; c < w.cols; c++) assert_true(row[c] == 0 || fabsf(row[c]) == 0.03125f);
    sq_sqw_close(q);
    remove_tree(p.base);
}

static void other_weights_are_not_forced_to_be_ternary(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    o.bits = 1;
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_QUALITY);
    assert_non_null(strstr(err.text, "q_proj.weight' is not ternary"));
    assert_false(sq_os_exists(p.out));
    remove_tree(p.base);
}

/* ---- beyond f16 ------------------------------------------------------------------------------ */

static void widen(const char *name, bool matrix, float *w, size_t n) {
    (void)matrix, (void)n;
    if (strcmp(name, q_name) == 0) w[5] = 70000.0f;
    if (strstr(name, "layers.2.mlp.down_proj")) w[9] = -3e30f;
}

static void weights_beyond_f16_get_wider_types(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    change(&p, widen);
    const squish_compress_options o = options(&p);
    squish_compress_result r;
    sq_sqw *q = built(&o, &p, &r);
    const sq_sqw_tensor *a = tensor(q, q_name), *b = tensor(q, "model.layers.2.mlp.down_proj.weight");
    assert_int_equal(a->wtype, SQ_W_I8_G64);
    assert_int_equal(a->scale_type, SQ_SCALE_F16);
    assert_int_equal(b->wtype, SQ_W_I8_G64);
    assert_int_equal(b->scale_type, SQ_SCALE_BF16);
    assert_int_equal(tensor(q, "model.layers.1.self_attn.q_proj.weight")->wtype, SQ_W_I4_G64);
    const sq_weight w = weight(q, a), v = weight(q, b);
    float row[256];
    sq_weight_row(&w, 0, row);
    assert_true(fabsf(row[5] - 70000.0f) < 300);
    sq_weight_row(&v, 0, row);
    assert_true(fabsf(row[9] / -3e30f - 1) < 0.01f);
    const sq_span report = sq_sqw_section_of(q, SQ_SEC_FIDL);
    assert_non_null(strstr((const char *)report.p, "P_RANGE"));
    sq_sqw_close(q);
    remove_tree(p.base);
}

/* ---- what the file knows of its source ------------------------------------------------------- */

static void every_tensor_carries_the_sum_of_its_source(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    const squish_compress_options o = options(&p);
    squish_compress_result r;
    sq_sqw *q = built(&o, &p, &r);
    sq_safetensors *st = NULL;
    assert_int_equal(sq_st_open(&st, p.src, NULL, NULL, NULL, NULL), SQUISH_OK);
    for (size_t i = 0; i < sq_st_count(st); i++) {
        const sq_ftensor *t = sq_st_at(st, i);
        assert_int_equal(tensor(q, t->name)->source_sum, XXH3_64bits(t->data, t->bytes));
    }
    sq_st_close(st);
    sq_sqw_close(q);
    remove_tree(p.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_and_group_choose_the_types),
        cmocka_unit_test(ternary_weights_stay_exactly_what_they_are),
        cmocka_unit_test(other_weights_are_not_forced_to_be_ternary),
        cmocka_unit_test(weights_beyond_f16_get_wider_types),
        cmocka_unit_test(every_tensor_carries_the_sum_of_its_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
