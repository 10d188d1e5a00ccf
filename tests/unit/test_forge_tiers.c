/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_tiers.c - tiers 1, 2 and 3: the checkpoint's bytes in one file, and its values as numpy files.
 */
#include "forge/forge.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

typedef struct {
    char base[64], src[96], out[96];
} place;

static place place_of(const tiny_spec *s) {
    place p;
    snprintf(p.base, sizeof p.base, "/tmp/squish-tiers-XXXXXX");
    assert_non_null(mkdtemp(p.base));
    snprintf(p.src, sizeof p.src, "%s/model", p.base);
    snprintf(p.out, sizeof p.out, "%s/model-compressed", p.base);
    assert_int_equal(sq_os_mkdirs(p.src, NULL), SQUISH_OK);
    tiny_write(s, p.src);
    return p;
}

static squish_compress_result make(const place *p, squish_tier tier) {
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    squish_error err = {0};
    char path[1024];
    o.out_dir = p->out, o.tier = tier;
    assert_ok(squish_compress(p->src, &o, &r, &err), &err);
    assert_true(sq_tier_ready(p->out, tier, path, sizeof path, NULL, 0));
    assert_string_equal(path, r.file);
    squish_compress_result again;
    assert_ok(squish_compress(p->src, &o, &again, &err), &err);
    assert_true(again.reused);
    assert_int_equal(again.bytes, r.bytes);
    return r;
}

static void assert_same_file(const char *dir_a, const char *dir_b, const char *name) {
    char a[1200], b[1200];
    sq_map x, y;
    snprintf(a, sizeof a, "%s/%s", dir_a, name);
    snprintf(b, sizeof b, "%s/%s", dir_b, name);
    assert_int_equal(sq_os_map_open(&x, a, NULL), SQUISH_OK);
    assert_int_equal(sq_os_map_open(&y, b, NULL), SQUISH_OK);
    assert_int_equal(x.bytes, y.bytes);
    assert_memory_equal(x.data, y.data, x.bytes);
    sq_os_map_close(&x);
    sq_os_map_close(&y);
}

static sq_safetensors *checkpoint(const char *path) {
    sq_safetensors *st = NULL;
    squish_error err = {0};
    assert_ok(sq_st_open(&st, path, NULL, NULL, NULL, &err), &err);
    return st;
}

static void tier_1_is_the_checkpoint_byte_for_byte(void **state) {
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++) {
        tiny_spec s = tiny_default();
        s.bf16 = bf16;
        const place p = place_of(&s);
        const squish_compress_result r = make(&p, SQUISH_TIER_1);
        sq_safetensors *a = checkpoint(p.src), *b = checkpoint(r.file);
        assert_int_equal(sq_st_count(a), sq_st_count(b));
        for (size_t i = 0; i < sq_st_count(a); i++) {
            const sq_ftensor *x = sq_st_at(a, i), *y = sq_st_at(b, i);
            assert_string_equal(x->name, y->name);
            assert_int_equal(x->dtype, y->dtype);
            assert_int_equal(x->n_dims, y->n_dims);
            assert_memory_equal(x->dims, y->dims, sizeof x->dims);
            assert_int_equal(x->bytes, y->bytes);
            assert_memory_equal(x->data, y->data, x->bytes);
        }
        sq_st_close(a);
        sq_st_close(b);
        char assets[128];
        snprintf(assets, sizeof assets, "%s/assets", p.out);
        assert_same_file(p.src, assets, "config.json");
        remove_tree(p.base);
    }
}

/* ---- numpy ----------------------------------------------------------------------------------- */

typedef struct {
    sq_map map;
    sq_ftensor t;
} array;

static array load(const char *dir, const char *name, const char *suffix) {
    array a;
    char stem[800], path[2200];
    squish_error err = {0};
    assert_true(sq_npy_name_encode(name, stem, sizeof stem));
    snprintf(path, sizeof path, "%s/%s%s.npy", dir, stem, suffix);
    assert_ok(sq_os_map_open(&a.map, path, &err), &err);
    assert_ok(sq_npy_parse((sq_span){a.map.data, a.map.bytes}, name, &a.t, &err), &err);
    return a;
}

static float source_at(const sq_ftensor *t, size_t i) {
    float v;
    const size_t element = sq_dtype_bytes(t->dtype);
    sq_row_to_f32(t->dtype == SQ_DT_F32 ? SQ_W_F32 : SQ_W_BF16, t->data + i * element, 1, &v);
    return v;
}

static void tier_2_is_the_checkpoint_in_f16(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    s.bf16 = true;
    const place p = place_of(&s);
    const squish_compress_result r = make(&p, SQUISH_TIER_2);
    sq_safetensors *st = checkpoint(p.src);
    assert_int_equal(r.n_passthrough, sq_st_count(st));
    for (size_t i = 0; i < sq_st_count(st); i++) {
        const sq_ftensor *t = sq_st_at(st, i);
        array a = load(r.file, t->name, "");
        assert_int_equal(a.t.dtype, SQ_DT_F16);
        assert_memory_equal(a.t.dims, t->dims, (size_t)t->n_dims * sizeof *t->dims);
        for (size_t k = 0; k < a.t.bytes / 2; k++) {
            uint16_t h;
            memcpy(&h, a.t.data + 2 * k, 2);
            assert_int_equal(h, sq_f32_to_f16(source_at(t, k)));
        }
        sq_os_map_close(&a.map);
    }
    sq_st_close(st);
    remove_tree(p.base);
}

static json_t *manifest_of(const char *dir) {
    char path[1200];
    snprintf(path, sizeof path, "%s/manifest.json", dir);
    json_t *whole = json_load_file(path, 0, NULL), *tensors = json_incref(json_object_get(whole, "tensors"));
    assert_non_null(tensors);
    json_decref(whole);
    return tensors;
}

static void check_rows(const sq_ftensor *t, const char *dir) {
    array q = load(dir, t->name, "__q"), s = load(dir, t->name, "__s"), shape = load(dir, t->name, "__shape");
    assert_int_equal(q.t.dtype, SQ_DT_I8);
    assert_int_equal(shape.t.dtype, SQ_DT_I64);
    assert_memory_equal(shape.t.data, t->dims, 16);
    for (size_t r = 0; r < t->dims[0]; r++) {
        float scale, most = 0;
        memcpy(&scale, s.t.data + 4 * r, 4);
        for (size_t c = 0; c < t->dims[1]; c++) {
            const size_t i = r * t->dims[1] + c;
            most = fmaxf(most, fabsf(source_at(t, i)));
            assert_true(fabsf(source_at(t, i) - scale * (float)(int8_t)q.t.data[i]) <= scale * 0.5001f);
        }
        assert_true(scale == most / 127);
    }
    sq_os_map_close(&q.map), sq_os_map_close(&s.map), sq_os_map_close(&shape.map);
}

static void tier_3_has_codes_and_a_scale_per_row(void **state) {
    (void)state;
    const tiny_spec spec = tiny_default();
    const place p = place_of(&spec);
    const squish_compress_result r = make(&p, SQUISH_TIER_3);
    sq_safetensors *st = checkpoint(p.src);
    json_t *manifest = manifest_of(r.file);
    assert_int_equal(json_object_size(manifest), sq_st_count(st));
    for (size_t i = 0; i < sq_st_count(st); i++) {
        const sq_ftensor *t = sq_st_at(st, i);
        const json_t *row = json_object_get(manifest, t->name);
        assert_int_equal(json_array_size(json_object_get(row, "shape")), t->n_dims);
        assert_string_equal(json_string_value(json_object_get(row, "kind")), t->n_dims == 2 ? "q" : "pt");
        if (t->n_dims == 2) {
            check_rows(t, r.file);
            continue;
        }
        array a = load(r.file, t->name, "__pt");
        assert_int_equal(a.t.dtype, SQ_DT_F32);
        assert_memory_equal(a.t.data, t->data, t->bytes);
        sq_os_map_close(&a.map);
    }
    json_decref(manifest);
    sq_st_close(st);
    remove_tree(p.base);
}

static bool stop_at(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)done, (void)total;
    return --*(int *)user > 0;
}

static void a_stopped_copy_leaves_nothing(void **state) {
    (void)state;
    static const squish_tier tiers[] = {SQUISH_TIER_1, SQUISH_TIER_2, SQUISH_TIER_3};
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    for (size_t i = 0; i < SQ_COUNT(tiers); i++) {
        squish_compress_options o = squish_compress_options_default();
        squish_compress_result r;
        int left = 5;
        o.out_dir = p.out, o.tier = tiers[i], o.progress = stop_at, o.progress_user = &left;
        assert_int_equal(squish_compress(p.src, &o, &r, NULL), SQUISH_CANCELLED);
        assert_false(sq_os_exists(p.out));
    }
    remove_tree(p.base);
}

static void numpy_tiers_of_large_models_are_skipped(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = squish_compress_options_default(), wish;
    squish_compress_result r;
    squish_error err = {0};
    squish_model *m = NULL;
    const squish_model_options mo = {.tier = SQUISH_TIER_SOURCE};
    assert_ok(squish_model_open(&m, p.src, &mo, &err), &err);
    m->info.n_params = 7100000000;
    o.tier = SQUISH_TIER_3;
    assert_ok(sq_forge_resolve(&o, &wish, &err), &err);
    assert_ok(sq_forge_compress(m, p.out, &wish, NULL, NULL, &r, &err), &err);
    assert_string_equal(r.skipped, "tier 3 is not made above 14 GB of weights; these have 14.2 GB");
    assert_false(sq_os_exists(p.out));
    squish_model_close(m);
    remove_tree(p.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tier_1_is_the_checkpoint_byte_for_byte),
        cmocka_unit_test(tier_2_is_the_checkpoint_in_f16),
        cmocka_unit_test(tier_3_has_codes_and_a_scale_per_row),
        cmocka_unit_test(a_stopped_copy_leaves_nothing),
        cmocka_unit_test(numpy_tiers_of_large_models_are_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
