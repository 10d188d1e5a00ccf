/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_methods_build.c - tiers made by the expensive methods: that they are what they promise, the same
 * file every time, and that scales folded into a model do not change what it computes.
 *
 * Models and inputs are the test's own: columns of the inputs differ widely in size and hang together, which
 * is what the methods live on. */
#include "forge/forge_build.h"
#include "forge/forge_fidelity.h"
#include "support/faults.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { BLOCK = 64, INPUTS = 256, COLS_MAX = 512 };

typedef struct {
    char base[64], src[96], out[96], calibration[160];
} place;

/* ---- a model and its calibration ------------------------------------------------------------- */

static double unit(uint64_t *state) { return (double)(sq_splitmix64(state) >> 11) * 0x1p-52 - 1.0; }

/* Every column has a size of its own and a part that it shares with the one before. */
static void make_inputs(uint64_t seed, int32_t cols, float *x) {
    float size[COLS_MAX];
    assert_true(cols <= COLS_MAX);
    for (int32_t c = 0; c < cols; c++) size[c] = (float)exp(2.5 * unit(&seed));
    for (int32_t i = 0; i < INPUTS; i++) {
        double before = 0;
        for (int32_t c = 0; c < cols; c++) {
            before = 0.6 * before + unit(&seed);
            x[(size_t)i * (size_t)cols + (size_t)c] = size[c] * (float)before;
        }
    }
}

static sq_model *open_source(const place *p) {
    squish_model *m = NULL;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    assert_ok(squish_model_open(&m, p->src, &o, &err), &err);
    return m;
}

static void write_calibration(const place *p, int32_t block) {
    static float x[INPUTS * COLS_MAX];
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    sq_model *m = open_source(p);
    const sq_config *c = &m->cfg;
    const int32_t cols[SQ_TAP_COUNT] = {c->hidden, c->n_heads * c->head_dim, c->hidden, c->ffn};
    sq_calibrator *k = NULL;
    assert_ok(sq_calibrator_new(&k, c, block, NULL, &a, &err), &err);
    for (int32_t l = 0; l < c->n_layers; l++)
        for (int32_t t = 0; t < SQ_TAP_COUNT; t++) {
            make_inputs((uint64_t)(l * SQ_TAP_COUNT + t + 1), cols[t], x);
            sq_calibrator_take(k, l, (sq_tap)t, x, (size_t)cols[t], INPUTS);
        }
    assert_int_equal(sq_os_mkdirs(p->out, NULL), SQUISH_OK);
    assert_ok(sq_calibrator_write(k, p->calibration, INPUTS, INPUTS, 1, &err), &err);
    sq_calibrator_free(k);
    squish_model_close(m);
}

static place place_of(const tiny_spec *s) {
    place p;
    snprintf(p.base, sizeof p.base, "/tmp/squish-methods-XXXXXX");
    assert_non_null(mkdtemp(p.base));
    snprintf(p.src, sizeof p.src, "%s/model", p.base);
    snprintf(p.out, sizeof p.out, "%s/model-compressed", p.base);
    snprintf(p.calibration, sizeof p.calibration, "%s/calibration.safetensors", p.out);
    assert_int_equal(sq_os_mkdirs(p.src, NULL), SQUISH_OK);
    tiny_write(s, p.src);
    return p;
}

static place calibrated(void) {
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    write_calibration(&p, BLOCK);
    return p;
}

static squish_compress_options options(const place *p, squish_method m) {
    squish_compress_options o = squish_compress_options_default();
    o.out_dir = p->out, o.threads = 2, o.force = true, o.unchecked = true, o.method = m;
    return o;
}

/* ---- what was built -------------------------------------------------------------------------- */

static sq_sqw *built(const place *p, const squish_compress_options *o, squish_compress_result *r) {
    squish_error err = {0};
    sq_sqw *s = NULL;
    assert_ok(squish_compress(p->src, o, r, &err), &err);
    assert_ok(sq_sqw_open(&s, r->file, NULL, &err), &err);
    assert_ok(sq_sqw_verify(s, NULL, NULL, &err), &err);
    return s;
}

static json_t *section(const sq_sqw *s, uint32_t fourcc) {
    const sq_span text = sq_sqw_section_of(s, fourcc);
    json_t *o = json_loadb((const char *)text.p, text.n - 1, 0, NULL);
    assert_non_null(o);
    return o;
}

static json_t *line_of(const json_t *report, const char *name) {
    size_t i;
    json_t *line;
    json_array_foreach(json_object_get(report, "tensors"), i, line) {
        if (strcmp(json_string_value(json_object_get(line, "name")), name) == 0) return line;
    }
    fail_msg("no line of %s", name);
    return NULL;
}

/* Squared errors over squared weights, added up over the matrices of the layers; by the report. */
static double relative_errors(const sq_sqw *s, size_t *n) {
    json_t *report = section(s, SQ_SEC_FIDL), *line;
    double sum = 0;
    size_t i;
    *n = 0;
    json_array_foreach(json_object_get(report, "tensors"), i, line) {
        const char *name = json_string_value(json_object_get(line, "name"));
        if (!json_object_get(line, "snr_db") || !strstr(name, "layers")) continue;
        sum += pow(10, -json_number_value(json_object_get(line, "snr_db")) / 10);
        ++*n;
    }
    json_decref(report);
    return sum;
}

static uint64_t rank_bytes(const sq_sqw *s, int32_t *most) {
    size_t n;
    uint64_t sum = 0;
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
    *most = 0;
    for (size_t i = 0; i < n; i++) {
        sum += t[i].rank * 2 * (t[i].dims[0] + t[i].dims[1]);
        if ((int32_t)t[i].rank > *most) *most = (int32_t)t[i].rank;
    }
    return sum;
}

static const sq_sqw_tensor *tensor(const sq_sqw *s, const char *name) {
    size_t n;
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(sq_sqw_name(s, &t[i]), name) == 0) return &t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static const float *vector(const sq_sqw *s, const char *name) {
    return (const float *)(const void *)sq_sqw_data(s, tensor(s, name));
}

/* tr(E H E^T) over the matrices of the layers that read the normed inputs (roles, zero-ended). Columns of a
 * folded build are divided by what its norms lost. */
static double output_error(const place *p, const sq_sqw *s, const sq_role *roles) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    sq_model *m = open_source(p);
    sq_calibration *k = NULL;
    float w[COLS_MAX], v[COLS_MAX];
    double sum = 0;
    assert_ok(sq_calibration_open(&k, p->calibration, &m->cfg, &a, &err), &err);
    sq_want want;
    for (size_t i = 0; sq_config_want(&m->cfg, i, &want); i++) {
        bool wanted = false;
        for (const sq_role *r = roles; *r; r++) wanted |= want.role == *r;
        if (!wanted) continue;
        sq_hessian h;
        const float *mean_abs;
        assert_true(sq_calibration_input(k, want.layer, want.role, &h, &mean_abs));
        char norm[96];
        const bool ffn = want.role == SQ_ROLE_GATE || want.role == SQ_ROLE_UP;
        snprintf(norm, sizeof norm, "model.layers.%d.%s.weight", want.layer,
                 ffn ? "post_attention_layernorm" : "input_layernorm");
        const float *gamma = m->layers[want.layer].vec[ffn ? SQ_ROLE_FFN_NORM : SQ_ROLE_ATTN_NORM];
        const float *stored = vector(s, norm);
        const sq_sqw_tensor *t = tensor(s, want.name);
        const sq_weight made = sq_weight_make((sq_wtype)t->wtype, (sq_scale_type)t->scale_type, want.rows,
                                              want.cols, sq_sqw_data(s, t));
        const sq_weight *src = sq_model_matrix(m, &want);
        for (int32_t r = 0; r < want.rows; r++) {
            sq_weight_row(src, r, w);
            sq_weight_row(&made, r, v);
            for (int32_t c = 0; c < want.cols; c++) v[c] = v[c] * (stored[c] / gamma[c]) - w[c];
            sum += sq_hessian_error(&h, v);
        }
    }
    sq_calibration_close(k);
    squish_model_close(m);
    return sum;
}

/* V and its rows are divided further down, so v is left out. */
static const sq_role normed[] = {SQ_ROLE_Q, SQ_ROLE_K, SQ_ROLE_GATE, 0};

static double error_by(const place *p, squish_method method, const char *calibration, const char *names) {
    squish_compress_options o = options(p, method);
    squish_compress_result r;
    o.calibration = calibration;
    sq_sqw *s = built(p, &o, &r);
    json_t *report = section(s, SQ_SEC_FIDL);
    const json_t *line = line_of(report, "model.layers.1.self_attn.q_proj.weight");
    assert_string_equal(json_string_value(json_object_get(line, "method")), names);
    json_decref(report);
    assert_int_equal(r.n_fallback, 0);
    const double e = output_error(p, s, normed);
    sq_sqw_close(s);
    return e;
}

/* ---- what the methods promise ---------------------------------------------------------------- */

static void what_the_inputs_say_lowers_the_error_of_the_output(void **state) {
    (void)state;
    const place p = calibrated();
    const double rtn = error_by(&p, SQUISH_METHOD_RTN, NULL, "rtn");
    const double lsq = error_by(&p, SQUISH_METHOD_LSQ, "", "lsq");
    const double weighted = error_by(&p, SQUISH_METHOD_LSQ, NULL, "lsq-imp");
    const double gptq = error_by(&p, SQUISH_METHOD_GPTQ, NULL, "gptq");
    const double awq = error_by(&p, SQUISH_METHOD_AWQ, p.calibration, "lsq-imp");
    print_message("output error, rtn 1: lsq %.3f, lsq-imp %.3f, gptq %.3f, awq %.3f\n", lsq / rtn,
                  weighted / rtn, gptq / rtn, awq / rtn);
    assert_true(lsq < rtn);
    assert_true(weighted < lsq);
    assert_true(gptq < weighted);
    assert_true(awq < lsq);
    remove_tree(p.base);
}

static void compensators_make_three_bits_better(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p, SQUISH_METHOD_LSQ);
    squish_compress_result r;
    size_t n, n_fixed, n_chosen;
    int32_t most;
    o.bits = 3;
    sq_sqw *plain = built(&p, &o, &r);
    o.method = SQUISH_METHOD_MILO, o.rank = 8;
    sq_sqw *fixed = built(&p, &o, &r);
    const double lsq = relative_errors(plain, &n), eight = relative_errors(fixed, &n_fixed);
    const uint64_t bytes = rank_bytes(fixed, &most);
    assert_int_equal(n, 21);
    assert_int_equal(n_fixed, n);
    assert_int_equal(most, 8);
    assert_true(eight < lsq);
    /* As many bytes, spent where they gain most. */
    uint64_t weights = 0;
    size_t n_tensors;
    const sq_sqw_tensor *t = sq_sqw_tensors(fixed, &n_tensors);
    for (size_t i = 0; i < n_tensors; i++)
        if (t[i].rank) weights += t[i].dims[0] * t[i].dims[1];
    o.rank = 0, o.rank_bpw = 8.0 * (double)bytes / (double)weights;
    sq_sqw *chosen = built(&p, &o, &r);
    const double by_gain = relative_errors(chosen, &n_chosen);
    print_message("relative errors of 21 matrices: lsq %.4f, rank 8 %.4f, chosen %.4f (up to rank %d)\n", lsq,
                  eight, by_gain, (rank_bytes(chosen, &most), most));
    assert_true(rank_bytes(chosen, &most) <= bytes);
    assert_true(by_gain <= eight);
    sq_sqw_close(plain), sq_sqw_close(fixed), sq_sqw_close(chosen);
    remove_tree(p.base);
}

/* ---- scales that are folded in --------------------------------------------------------------- */

/* A build without quantisation, so that only the folds can make a difference. */
static void build_folded_only(const place *p, char *file, size_t n) {
    squish_error err = {0};
    squish_compress_options wish = options(p, SQUISH_METHOD_AWQ), o;
    squish_compress_result r = {0};
    sq_places at = {.tier = sq_tier_get(SQUISH_TIER_0)};
    uint64_t sum;
    assert_ok(sq_forge_resolve(&wish, &o, &err), &err);
    snprintf(at.compressed, sizeof at.compressed, "%s", p->out);
    snprintf(at.file, sizeof at.file, "%s/folded.sqw", p->out);
    snprintf(at.dir, sizeof at.dir, "%s", p->out);
    snprintf(at.partial, sizeof at.partial, "%s/folded.partial", p->out);
    snprintf(at.journal, sizeof at.journal, "%s/folded.journal", p->out);
    sq_model *m = open_source(p);
    sq_forge_job j = {.alloc = sq_alloc_default(), .o = &o, .m = m, .at = &at, .out = &r,
                      .unquantised = true};
    assert_ok(sq_pool_new(&j.pool, &j.alloc, 2, &err), &err);
    assert_ok(sq_forge_build_sqw(&j, &sum, &err), &err);
    sq_pool_free(j.pool);
    squish_model_close(m);
    assert_true(snprintf(file, n, "%s", at.file) < (int)n);
}

static void assert_folded(const sq_sqw *s, const char *const *names, bool folded) {
    json_t *report = section(s, SQ_SEC_FIDL);
    for (; *names; names++)
        if (json_is_true(json_object_get(line_of(report, *names), "folded")) != folded)
            fail_msg("%s is%s folded", *names, folded ? " not" : "");
    json_decref(report);
}

static void same_logits(const char *a, const char *b) {
    static const int32_t ids[] = {3, 17, 80, 41, 5, 5, 62, 90, 11, 2, 33, 70};
    squish_engine_options eo = squish_engine_options_default();
    squish_error err = {0};
    eo.kv = SQUISH_KV_F32, eo.threads = 1;
    run x = run_open(a, SQUISH_TIER_SOURCE, &eo), y = run_open(b, SQUISH_TIER_AUTO, &eo);
    assert_ok(squish_seq_sync(x.s, ids, SQ_COUNT(ids), &err), &err);
    assert_ok(squish_seq_sync(y.s, ids, SQ_COUNT(ids), &err), &err);
    const float *u = squish_seq_logits(x.s), *v = squish_seq_logits(y.s);
    double size = 0, difference = 0;
    for (int32_t i = 0; i < 96; i++) {
        size += (double)u[i] * (double)u[i];
        difference += ((double)u[i] - (double)v[i]) * ((double)u[i] - (double)v[i]);
    }
    print_message("relative difference of logits %.2g\n", sqrt(difference / size));
    assert_true(size > 0 && difference > 0);
    assert_true(sqrt(difference / size) < 1e-3);
    run_close(&x);
    run_close(&y);
}

static void folded_scales_do_not_change_what_the_model_computes(void **state) {
    (void)state;
    static const char *const folded[] = {
        "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
        "model.layers.1.self_attn.o_proj.weight", "model.layers.1.post_attention_layernorm.weight",
        "model.layers.2.mlp.gate_proj.weight", "model.layers.2.mlp.up_proj.weight",
        "model.layers.2.mlp.down_proj.weight", NULL};
    static const char *const biases[] = {"model.layers.0.self_attn.v_proj.bias",
                                         "model.layers.2.mlp.up_proj.bias", NULL};
    static const char *const others[] = {"model.embed_tokens.weight", "model.norm.weight", NULL};
    static const struct {
        const char *type;
        bool bias;
        int32_t kv_heads;
    } cases[] = {{"llama", true, 2}, {"llama", false, 1}, {"qwen2", false, 4}, {"qwen3", false, 2}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        tiny_spec s = tiny_default();
        char file[256];
        sq_sqw *q = NULL;
        s.model_type = cases[i].type, s.bias = s.mlp_bias = cases[i].bias, s.kv_heads = cases[i].kv_heads;
        const place p = place_of(&s);
        write_calibration(&p, BLOCK);
        build_folded_only(&p, file, sizeof file);
        assert_int_equal(sq_sqw_open(&q, file, NULL, NULL), SQUISH_OK);
        assert_folded(q, folded, true);
        if (cases[i].bias) assert_folded(q, biases, true);
        assert_folded(q, others, false);
        sq_sqw_close(q);
        same_logits(p.src, file);
        remove_tree(p.base);
    }
}

static void folded_tensors_are_not_compared_with_the_source(void **state) {
    (void)state;
    const place p = calibrated();
    const squish_compress_options o = options(&p, SQUISH_METHOD_AWQ);
    squish_compress_result r;
    squish_error err = {0};
    squish_model *made = NULL;
    json_t *report = NULL;
    sq_sqw_close(built(&p, &o, &r));
    squish_model *m = open_source(&p);
    assert_ok(squish_model_open(&made, r.file, NULL, &err), &err);
    assert_ok(sq_forge_fidelity(m, made, 2, NULL, NULL, &report, &err), &err);
    const json_t *q = line_of(report, "model.layers.0.self_attn.q_proj.weight");
    assert_string_equal(json_string_value(json_object_get(q, "reason")), "FOLDED");
    assert_true(json_number_value(json_object_get(q, "cos")) > 0.98);
    const json_t *norm = line_of(report, "model.layers.0.input_layernorm.weight");
    assert_string_equal(json_string_value(json_object_get(norm, "reason")), "FOLDED");
    const json_t *head = line_of(report, "lm_head.weight");
    assert_string_equal(json_string_value(json_object_get(head, "reason")), "Q");
    assert_true(json_number_value(json_object_get(report, "cos_min")) > 0.999); /* tables of 8 bits */
    json_decref(report);
    squish_model_close(made);
    squish_model_close(m);
    remove_tree(p.base);
}

/* ---- moments that are none --------------------------------------------------------------------- */

/* One block of one input as no sum of squares can be. */
static void spoil_moments(const place *p, const char *name) {
    sq_map map;
    sq_arena ar;
    sq_ftensor *t;
    size_t n;
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_os_map_open(&map, p->calibration, NULL), SQUISH_OK);
    assert_int_equal(sq_st_parse((sq_span){map.data, map.bytes}, p->calibration, &ar, &t, &n, NULL),
                     SQUISH_OK);
    uint8_t *copy = malloc(map.bytes);
    memcpy(copy, map.data, map.bytes);
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(t[i].name, name) != 0) continue;
        float h[BLOCK * BLOCK], most = 0;
        memcpy(h, t[i].data, sizeof h);
        for (size_t k = 0; k < BLOCK; k++) most = fmaxf(most, h[k * BLOCK + k]);
        for (size_t k = 0; k < SQ_COUNT(h); k++)
            if (k % (BLOCK + 1) != 0) h[k] = 100 * most;
        memcpy(copy + (t[i].data - map.data), h, sizeof h);
        found = true;
    }
    assert_true(found);
    FILE *f = fopen(p->calibration, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(copy, 1, map.bytes, f), map.bytes);
    fclose(f);
    free(copy);
    sq_os_map_close(&map);
    sq_arena_deinit(&ar);
}

static void what_gptq_cannot_do_is_done_plainly_and_said(void **state) {
    (void)state;
    const place p = calibrated();
    spoil_moments(&p, "1.ffn_mid.hessian");
    squish_compress_options o = options(&p, SQUISH_METHOD_GPTQ);
    squish_compress_result r;
    sq_sqw *s = built(&p, &o, &r);
    json_t *report = section(s, SQ_SEC_FIDL);
    assert_int_equal(r.n_fallback, 1);
    const json_t *down = line_of(report, "model.layers.1.mlp.down_proj.weight");
    assert_string_equal(json_string_value(json_object_get(down, "method")), "lsq-imp");
    assert_non_null(strstr(json_string_value(json_object_get(down, "fallback")), "not positive definite"));
    const json_t *up = line_of(report, "model.layers.1.mlp.up_proj.weight");
    assert_string_equal(json_string_value(json_object_get(up, "method")), "gptq");
    assert_null(json_object_get(up, "fallback"));
    json_decref(report);
    sq_sqw_close(s);
    remove_tree(p.base);
}

/* ---- the same file every time ---------------------------------------------------------------- */

static uint8_t *slurp(const char *path, size_t *n) {
    *n = (size_t)sq_os_file_bytes(path);
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(*n);
    assert_non_null(f);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static bool stop_at(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)done, (void)total;
    return strcmp(what, "compress") != 0 || (*(int *)user)-- > 0;
}

static const struct {
    squish_method method;
    int32_t bits, rank;
} kinds[] = {{SQUISH_METHOD_LSQ, 4, 0},  {SQUISH_METHOD_AWQ, 4, 0},  {SQUISH_METHOD_AWQ, 3, 0},
             {SQUISH_METHOD_GPTQ, 4, 0}, {SQUISH_METHOD_GPTQ, 2, 0}, {SQUISH_METHOD_MILO, 3, 5},
             {SQUISH_METHOD_MILO, 3, 0}};

static void threads_and_interruptions_do_not_change_a_byte(void **state) {
    (void)state;
    const place p = calibrated();
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        squish_compress_options o = options(&p, kinds[i].method);
        squish_compress_result r, again;
        squish_error err = {0};
        size_t n, m;
        o.bits = kinds[i].bits, o.rank = kinds[i].rank, o.threads = 1;
        if (kinds[i].method == SQUISH_METHOD_MILO && o.rank == 0) o.rank_bpw = 0.8;
        assert_ok(squish_compress(p.src, &o, &r, &err), &err);
        uint8_t *want = slurp(r.file, &n);
        o.threads = 3;
        int left = 11;
        o.progress = stop_at, o.progress_user = &left;
        assert_int_equal(squish_compress(p.src, &o, &again, &err), SQUISH_CANCELLED);
        o.progress = NULL, o.resume = true;
        err = (squish_error){0};
        assert_ok(squish_compress(p.src, &o, &again, &err), &err);
        assert_true(again.resumed_bytes > 0);
        uint8_t *have = slurp(again.file, &m);
        assert_int_equal(n, m);
        assert_memory_equal(want, have, n);
        assert_true(again.cos_min == r.cos_min && again.snr_db_min == r.snr_db_min);
        assert_int_equal(again.n_fallback, r.n_fallback);
        free(want), free(have);
    }
    remove_tree(p.base);
}

static void what_was_built_opens_and_answers(void **state) {
    (void)state;
    static const int32_t ids[] = {3, 17, 80, 41};
    const place p = calibrated();
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        squish_compress_options o = options(&p, kinds[i].method);
        squish_compress_result r;
        squish_error err = {0};
        squish_model_options mo = squish_model_options_default();
        o.bits = kinds[i].bits, o.rank = kinds[i].rank;
        assert_ok(squish_compress(p.src, &o, &r, &err), &err);
        mo.verify = true;
        squish_model *m = NULL;
        assert_ok(squish_model_open(&m, r.file, &mo, &err), &err);
        squish_model_close(m);
        run x = run_open(r.file, SQUISH_TIER_AUTO, NULL);
        assert_ok(squish_seq_sync(x.s, ids, SQ_COUNT(ids), &err), &err);
        for (int32_t k = 0; k < 96; k++) assert_true(isfinite(squish_seq_logits(x.s)[k]));
        run_close(&x);
    }
    remove_tree(p.base);
}

/* ---- what cannot be -------------------------------------------------------------------------- */

static void wishes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    const struct {
        squish_tier tier;
        squish_method method;
        int bits, group, rank;
        double bpw;
        const char *calibration;
        squish_status st;
        const char *words;
    } bad[] = {
        {SQUISH_TIER_0, SQUISH_METHOD_AWQ, 4, 64, 0, 0, NULL, SQUISH_NOT_FOUND, "run squish calibrate"},
        {SQUISH_TIER_0, SQUISH_METHOD_GPTQ, 4, 64, 0, 0, NULL, SQUISH_NOT_FOUND, "method gptq needs"},
        {SQUISH_TIER_0, SQUISH_METHOD_GPTQ, 4, 64, 0, 0, "", SQUISH_INVALID, "needs a calibration"},
        {SQUISH_TIER_0, SQUISH_METHOD_LSQ, 4, 64, 0, 0, "/nowhere", SQUISH_NOT_FOUND, "/nowhere"},
        {SQUISH_TIER_0, SQUISH_METHOD_RTN, 4, 64, 0, 0, "/nowhere", SQUISH_INVALID, "looks at no"},
        {SQUISH_TIER_0, SQUISH_METHOD_MILO, 4, 32, 0, 0, NULL, SQUISH_INVALID, "group is 32, wanted 64"},
        {SQUISH_TIER_0, SQUISH_METHOD_MILO, 1, 64, 0, 0, NULL, SQUISH_INVALID, "4, 3 or 2 bits, not 1.58"},
        {SQUISH_TIER_Q8, SQUISH_METHOD_MILO, 8, 64, 0, 0, NULL, SQUISH_INVALID, "4, 3 or 2 bits, not 8"},
        {SQUISH_TIER_0, SQUISH_METHOD_MILO, 3, 64, 300, 0, NULL, SQUISH_INVALID, "rank is 300"},
        {SQUISH_TIER_0, SQUISH_METHOD_MILO, 3, 64, 0, -1, NULL, SQUISH_INVALID, "rank_bpw is -1"},
        {SQUISH_TIER_0, SQUISH_METHOD_LSQ, 3, 64, 4, 0, NULL, SQUISH_INVALID, "rank is of milo"}};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        squish_compress_options o = options(&p, bad[i].method);
        squish_compress_result r;
        squish_error err = {0};
        o.tier = bad[i].tier, o.bits = bad[i].bits, o.group = bad[i].group, o.rank = bad[i].rank,
        o.rank_bpw = bad[i].bpw, o.calibration = bad[i].calibration;
        const squish_status st = squish_compress(p.src, &o, &r, &err);
        if (st != bad[i].st || !strstr(err.text, bad[i].words))
            fail_msg("%s: %s: wanted %s", squish_status_name(st), err.text, bad[i].words);
        assert_false(sq_os_exists(p.out));
    }
    remove_tree(p.base);
}

static void diagonals_are_enough_for_some_methods(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p, SQUISH_METHOD_GPTQ);
    squish_compress_result r;
    squish_error err = {0};
    write_calibration(&p, 1);
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "diagonals only"));
    o.method = SQUISH_METHOD_AWQ;
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    remove_tree(p.base);
}

static void another_method_is_refused_or_refines(void **state) {
    (void)state;
    const place p = calibrated();
    squish_compress_options o = options(&p, SQUISH_METHOD_LSQ);
    squish_compress_result r;
    squish_error err = {0};
    o.force = false, o.calibration = "";
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    o.calibration = NULL;
    assert_ok(squish_compress(p.src, &o, &r, &err), &err); /* what merely lies there is no reason */
    assert_true(r.reused);
    o.method = SQUISH_METHOD_MILO, o.bits = 4;
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "method lsq; wanted are 4, 64, milo"));
    o.refine = true, o.bits = 3;
    err = (squish_error){0};
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID); /* other bits are another tier */
    o.bits = 4;
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_false(r.reused);
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_true(r.reused);
    o.refine = false, o.rank = 3;
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "other ranks"));
    o.method = SQUISH_METHOD_LSQ, o.rank = 0, o.refine = true;
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_false(r.reused);
    o.refine = false, o.calibration = "";
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "another calibration"));
    remove_tree(p.base);
}

/* ---- out of memory --------------------------------------------------------------------------- */

static void a_refused_allocation_is_an_error_and_nothing_leaks(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    s.layers = 1;
    const place p = place_of(&s);
    write_calibration(&p, BLOCK);
    for (size_t i = 1; i < SQ_COUNT(kinds); i++) {
        int64_t n = 1;
        for (;; n += 1 + n / 24) {
            struct sq_test_alloc_state a = {.fail_at = n};
            const squish_alloc alloc = sq_test_alloc(&a);
            squish_compress_options o = options(&p, kinds[i].method);
            squish_compress_result r;
            squish_error err = {0};
            o.bits = kinds[i].bits, o.rank = kinds[i].rank, o.alloc = &alloc, o.threads = 1;
            const squish_status st = squish_compress(p.src, &o, &r, &err);
            assert_int_equal(a.live_blocks, 0);
            assert_int_equal(a.wrong_sizes, 0);
            if (st == SQUISH_OK) break;
            if (st != SQUISH_NO_MEMORY) fail_msg("%s: %s", squish_status_name(st), err.text);
        }
        print_message("%s: %lld allocations\n", sq_method_name(kinds[i].method), (long long)n);
    }
    remove_tree(p.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_inputs_say_lowers_the_error_of_the_output),
        cmocka_unit_test(compensators_make_three_bits_better),
        cmocka_unit_test(folded_scales_do_not_change_what_the_model_computes),
        cmocka_unit_test(folded_tensors_are_not_compared_with_the_source),
        cmocka_unit_test(what_gptq_cannot_do_is_done_plainly_and_said),
        cmocka_unit_test(threads_and_interruptions_do_not_change_a_byte),
        cmocka_unit_test(what_was_built_opens_and_answers),
        cmocka_unit_test(wishes_that_make_no_sense_are_refused),
        cmocka_unit_test(diagonals_are_enough_for_some_methods),
        cmocka_unit_test(another_method_is_refused_or_refines),
        cmocka_unit_test(a_refused_allocation_is_an_error_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
