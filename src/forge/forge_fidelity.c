/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_fidelity.c - weights of two models, compared in f64 (see forge_fidelity.h).
 *
 * Rows are items of the thread pool; their sums are added up in row order, so the report is the same for any
 * number of threads.
 *
 * A build that folded scales into its tensors (method awq) computes what the source does with other numbers.
 * Which tensors those are stands in its report, and of them it repeats what the build measured against the
 * scaled matrix: reason FOLDED, counted in no mean. */
#include "forge/forge_fidelity.h"

#include <math.h>
#include <string.h>

typedef struct {
    const sq_weight *a, *b; /* source and model */
    int32_t head_dim;       /* > 0: rows of a are matched to rows of b by rotary pair */
    bool a_pairs;           /* a holds neighbouring pairs, b halves; else the other way round */
    float *scratch;         /* per thread: two rows */
    sq_fidelity *rows;      /* [block] */
    int32_t row0;
} compare_ctx;

/* Row r of b's order in a's: within a head, half-split row p * half + i is neighbouring row 2i + p. */
static int32_t source_row(const compare_ctx *c, int32_t r) {
    if (c->head_dim == 0) return r;
    const int32_t half = c->head_dim / 2, base = r / c->head_dim * c->head_dim, i = r - base;
    return base + (c->a_pairs ? 2 * (i % half) + i / half : i % 2 * half + i / 2);
}

static void compare_row(void *ctx, int32_t item, int32_t thread) {
    const compare_ctx *c = ctx;
    const int32_t cols = c->a->cols, r = c->row0 + item;
    float *w = c->scratch + (size_t)thread * 2 * (size_t)cols, *v = w + cols;
    sq_weight_row_whole(c->a, source_row(c, r), w);
    sq_weight_row_whole(c->b, r, v);
    c->rows[item] = (sq_fidelity){0};
    sq_fidelity_row(&c->rows[item], w, v, cols);
}

typedef struct {
    squish_alloc alloc;
    const sq_model *src, *m;
    sq_pool *pool;
    json_t *tensors, *reasons;
    json_t *built, *folded;   /* report of a build that folded, and its lines by name; NULL: none */
    sq_fidelity all, quantised;
    double cos_sum, cos_min, q_cos_sum, q_cos_min;
    int32_t n, n_q;
    char worst[96];
} report;

enum { BLOCK_ROWS = 4096 };

static squish_status compare_matrix(report *r, const sq_want *w, const sq_weight *a, const sq_weight *b,
                                    sq_fidelity *out, squish_error *err) {
    compare_ctx c = {.a = a, .b = b};
    if (r->src->cfg.rope_pairs != r->m->cfg.rope_pairs && (w->role == SQ_ROLE_Q || w->role == SQ_ROLE_K)) {
        c.head_dim = r->src->cfg.head_dim;
        c.a_pairs = r->src->cfg.rope_pairs;
    }
    const size_t scratch = (size_t)sq_pool_threads(r->pool) * 2 * (size_t)a->cols * sizeof(float);
    const size_t rows = BLOCK_ROWS * sizeof *c.rows;
    c.scratch = sq_alloc_new(&r->alloc, scratch);
    c.rows = sq_alloc_new(&r->alloc, rows);
    squish_status st = SQUISH_OK;
    if (!c.scratch || !c.rows) st = sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    for (c.row0 = 0; st == SQUISH_OK && c.row0 < b->rows; c.row0 += BLOCK_ROWS) {
        const int32_t n = b->rows - c.row0 < BLOCK_ROWS ? b->rows - c.row0 : BLOCK_ROWS;
        sq_pool_run(r->pool, compare_row, &c, n);
        for (int32_t i = 0; i < n; i++) sq_fidelity_merge(out, &c.rows[i]);
    }
    sq_alloc_free(&r->alloc, c.rows, rows);
    sq_alloc_free(&r->alloc, c.scratch, scratch);
    return st;
}

static bool is_float(uint8_t wtype) { return wtype == SQ_W_F32 || wtype == SQ_W_F16 || wtype == SQ_W_BF16; }

static const char *reason_of(const sq_want *w, const sq_weight *a, const sq_weight *b) {
    if (w->vector) return w->norm ? "P_NORM" : "P_BIAS";
    if (!is_float(b->wtype)) return "Q";
    return b->wtype == SQ_W_F32 && a->wtype != SQ_W_F32 ? "P_RANGE" : "P_POLICY";
}

static int32_t rank_of(const sq_weight *w) { return w->low ? w->low->v.rows : 0; }

/* JSON has no infinity: an exact tensor has no SNR. */
static json_t *snr_json(const sq_fidelity *f) {
    return f->ee > 0 ? json_real(sq_fidelity_snr_db(f)) : json_null();
}

static void count(report *r, const char *reason, const sq_want *w, const sq_fidelity *f) {
    const double c = sq_fidelity_cos(f);
    const bool q = strcmp(reason, "Q") == 0;
    if (r->n == 0 || c < r->cos_min) {
        r->cos_min = c;
        memcpy(r->worst, w->name, sizeof r->worst);
    }
    if (q && (r->n_q == 0 || c < r->q_cos_min)) r->q_cos_min = c;
    r->n++;
    r->cos_sum += c;
    sq_fidelity_merge(&r->all, f);
    if (q) {
        r->n_q++;
        r->q_cos_sum += c;
        sq_fidelity_merge(&r->quantised, f);
    }
}

typedef struct {
    double cosine, rel, max_abs, worst_row_rel;
    json_t *snr_db;
    uint64_t n_nonfinite;
} measures;

static void count_reason(report *r, const char *reason) {
    const json_t *old = json_object_get(r->reasons, reason);
    json_object_set_new(r->reasons, reason, json_integer(json_integer_value(old) + 1));
}

static squish_status add_row(report *r, const sq_want *w, const sq_weight *a, const sq_weight *b,
                             const char *reason, const measures *k, squish_error *err) {
    uint64_t bytes = 0;
    if (b->wtype == SQ_W_AFFINE || !sq_weight_bytes((sq_wtype)b->wtype, b->rows, b->cols, &bytes))
        bytes = (b->tile_bytes + b->side_bytes * (b->biases ? 2 : 1)) * (size_t)sq_weight_tiles(b);
    bytes += (uint64_t)rank_of(b) * (uint64_t)(b->rows + b->cols) * 2;
    count_reason(r, reason);
    json_t *o = json_pack(
        "{s:s, s:i, s:i, s:i, s:s, s:s, s:f, s:i, s:s, s:f, s:f, s:o, s:f, s:f, s:I}", "name", w->name,
        "layer", w->layer, "rows", w->rows, "cols", w->cols, "source", sq_wtype_get((sq_wtype)a->wtype)->name,
        "type", sq_wtype_get((sq_wtype)b->wtype)->name, "bpw",
        8.0 * (double)bytes / ((double)b->rows * b->cols), "rank", rank_of(b), "reason", reason, "cos",
        k->cosine, "rel", k->rel, "snr_db", k->snr_db, "max_abs", k->max_abs, "worst_row_rel",
        isfinite(k->worst_row_rel) ? k->worst_row_rel : 1e300, "nonfinite", (json_int_t)k->n_nonfinite);
    if (!o || json_array_append_new(r->tensors, o) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    return SQUISH_OK;
}

static squish_status add_tensor(report *r, const sq_want *w, const sq_weight *a, const sq_weight *b,
                                const sq_fidelity *f, squish_error *err) {
    const char *reason = reason_of(w, a, b);
    const measures k = {.cosine = sq_fidelity_cos(f),
                        .rel = f->ww > 0 ? sqrt(f->ee / f->ww) : 0.0,
                        .max_abs = f->max_abs,
                        .worst_row_rel = f->worst_row_rel,
                        .snr_db = snr_json(f),
                        .n_nonfinite = f->n_nonfinite};
    count(r, reason, w, f);
    return add_row(r, w, a, b, reason, &k, err);
}

/* ---- builds that folded ---------------------------------------------------------------------- */

static double number(const json_t *line, const char *key, double otherwise) {
    const json_t *v = json_object_get(line, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

/* Vectors are divided in f32 and else as they were. */
static squish_status add_folded(report *r, const sq_want *w, const sq_weight *a, const sq_weight *b,
                                const json_t *line, squish_error *err) {
    const json_t *snr = json_object_get(line, "snr_db");
    const measures k = {.cosine = number(line, "cos", 1),
                        .rel = snr ? pow(10, -number(line, "snr_db", 999) / 20) : 0,
                        .max_abs = number(line, "max_abs", 0),
                        .worst_row_rel = number(line, "worst_row_rel", 0),
                        .snr_db = snr ? json_real(number(line, "snr_db", 999)) : json_null()};
    return add_row(r, w, a, b, "FOLDED", &k, err);
}

static json_t *section_json(const sq_model *m, uint32_t fourcc) {
    json_t *o = NULL;
    const sq_span s = m->sqw ? sq_sqw_section_of(m->sqw, fourcc) : (sq_span){0};
    if (s.n > 1) sq_json_parse((const char *)s.p, s.n - 1, SQ_JSON_DEPTH, m->info.path, &o, NULL);
    return o;
}

static squish_status find_folded(report *r, squish_error *err) {
    json_t *recipe = section_json(r->m, SQ_SEC_RECP);
    const char *method = json_string_value(json_object_get(recipe, "method"));
    const bool folds = method && strcmp(method, "awq") == 0;
    json_decref(recipe);
    if (!folds) return SQUISH_OK;
    size_t i;
    json_t *line;
    r->built = section_json(r->m, SQ_SEC_FIDL);
    r->folded = json_object();
    if (!r->folded) return sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    if (!r->built) return sq_fail(err, SQUISH_CORRUPT, "%s: no report of its build", r->m->info.path);
    json_array_foreach(json_object_get(r->built, "tensors"), i, line) {
        const char *name = json_string_value(json_object_get(line, "name"));
        if (!name || !json_is_true(json_object_get(line, "folded"))) continue;
        if (json_object_set(r->folded, name, line) != 0)
            return sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    }
    return SQUISH_OK;
}

static squish_status same_shape(const sq_model *a, const sq_model *b, squish_error *err) {
    const sq_config *x = &a->cfg, *y = &b->cfg;
    if (!a->has_weights || !b->has_weights)
        return sq_fail(err, SQUISH_INVALID, "fidelity: %s has no weights",
                       a->has_weights ? b->info.path : a->info.path);
    if (x->n_layers == y->n_layers && x->hidden == y->hidden && x->ffn == y->ffn &&
        x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads && x->head_dim == y->head_dim &&
        x->n_vocab == y->n_vocab && memcmp(&x->moe, &y->moe, sizeof x->moe) == 0 &&
        memcmp(&x->mla, &y->mla, sizeof x->mla) == 0)
        return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s (%s, %d layers of %d) is not made from %s (%s, %d layers of %d)",
                   b->info.path, y->arch, y->n_layers, y->hidden, a->info.path, x->arch, x->n_layers,
                   x->hidden);
}

/* A vector as a matrix of one row. */
static sq_weight as_row(const float *v, int32_t n) {
    return sq_weight_make(SQ_W_F32, SQ_SCALE_F32, 1, n, (const uint8_t *)v);
}

/* Biases of q and k follow the rows of their matrices. */
static squish_status compare_bias(report *r, const sq_want *w, const float *a, const float *b, sq_fidelity *f,
                                  squish_error *err) {
    const sq_role role = w->role == SQ_ROLE_Q_BIAS   ? SQ_ROLE_Q
                         : w->role == SQ_ROLE_K_BIAS ? SQ_ROLE_K
                                                     : w->role;
    const sq_weight x = sq_weight_make(SQ_W_F32, SQ_SCALE_F32, w->rows, 1, (const uint8_t *)a);
    const sq_weight y = sq_weight_make(SQ_W_F32, SQ_SCALE_F32, w->rows, 1, (const uint8_t *)b);
    const sq_want as = {.role = role};
    return compare_matrix(r, &as, &x, &y, f, err);
}

static squish_status compare_one(report *r, const sq_want *w, squish_error *err) {
    sq_fidelity f = {0};
    const json_t *line = json_object_get(r->folded, w->name);
    if (!w->vector) {
        const sq_weight *a = sq_model_matrix(r->src, w), *b = sq_model_matrix(r->m, w);
        if (!a || !b) return SQUISH_OK; /* a head that one of the two shares with its embedding */
        if (line) return add_folded(r, w, a, b, line, err);
        SQ_TRY(compare_matrix(r, w, a, b, &f, err));
        return add_tensor(r, w, a, b, &f, err);
    }
    const float *a = sq_model_vector(r->src, w), *b = sq_model_vector(r->m, w);
    if (!a || !b) return SQUISH_OK;
    const sq_weight x = as_row(a, w->rows), y = as_row(b, w->rows);
    if (line) return add_folded(r, w, &x, &y, line, err);
    SQ_TRY(compare_bias(r, w, a, b, &f, err));
    return add_tensor(r, w, &x, &y, &f, err);
}

static json_t *summary(const report *r) {
    json_t *o = json_pack("{s:f, s:f, s:f, s:o, s:s, s:{s:i, s:f, s:f, s:f, s:o}, s:O, s:O}", "cos_mean",
                          r->n ? r->cos_sum / r->n : 1.0, "cos_min", r->n ? r->cos_min : 1.0, "max_abs",
                          r->all.max_abs, "snr_db", snr_json(&r->all), "worst_tensor", r->worst, "quantised",
                          "n", r->n_q, "cos_mean", r->n_q ? r->q_cos_sum / r->n_q : 1.0, "cos_min",
                          r->n_q ? r->q_cos_min : 1.0, "max_abs", r->quantised.max_abs, "snr_db",
                          snr_json(&r->quantised), "reasons", r->reasons, "tensors", r->tensors);
    return o;
}

squish_status sq_forge_fidelity(const sq_model *src, const sq_model *m, int32_t threads,
                                squish_progress_fn progress, void *user, json_t **out, squish_error *err) {
    *out = NULL;
    SQ_TRY(same_shape(src, m, err));
    report r = {.alloc = m->alloc, .src = src, .m = m, .tensors = json_array(), .reasons = json_object()};
    squish_status st = SQUISH_OK;
    sq_want w;
    size_t total = 0;
    while (sq_config_want(&src->cfg, total, &w)) total++;
    if (!r.tensors || !r.reasons) st = sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    if (st == SQUISH_OK) st = find_folded(&r, err);
    if (st == SQUISH_OK) st = sq_pool_new(&r.pool, &r.alloc, threads ? threads : sq_os_cores(), err);
    for (size_t i = 0; st == SQUISH_OK && sq_config_want(&src->cfg, i, &w); i++) {
        st = compare_one(&r, &w, err);
        if (st == SQUISH_OK && progress && !progress(user, "compare", i + 1, total))
            st = sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    if (st == SQUISH_OK && src->cfg.tied) json_object_set_new(r.reasons, "ALIAS", json_integer(1));
    if (st == SQUISH_OK && !(*out = summary(&r)))
        st = sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    sq_pool_free(r.pool);
    json_decref(r.folded);
    json_decref(r.built);
    json_decref(r.tensors);
    json_decref(r.reasons);
    return st;
}
