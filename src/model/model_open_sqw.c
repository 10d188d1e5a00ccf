/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_sqw.c - opening our own container: map, check, point. No vocabulary is parsed, no weight is
 * moved.
 *
 * The tensor records of a .sqw stand in the order sq_config_want gives, so binding walks both lists side by
 * side; any difference is damage. */
#include "model/model_int.h"

#include <string.h>

static squish_status read_config(sq_model *m, const char *path, squish_error *err) {
    const sq_span s = sq_sqw_section_of(m->sqw, SQ_SEC_NCFG);
    uint32_t version = 0;
    if (s.n >= sizeof version) memcpy(&version, s.p, sizeof version);
    const bool whole = s.n == sizeof m->cfg || s.n == SQ_CONFIG_DENSE_BYTES;
    if (!whole || version != SQ_CONFIG_VERSION)
        return sq_fail(
            err, SQUISH_CORRUPT,
            "%s: section NCFG is version %u with %zu bytes, wanted version %d with %zu (rebuild it with: "
            "squish compress)",
            path, version, s.n, SQ_CONFIG_VERSION, sizeof m->cfg);
    memcpy(&m->cfg, s.p, s.n);
    if (m->cfg.bytes == s.n) m->cfg.bytes = sizeof m->cfg;
    return sq_config_check(&m->cfg, err);
}

static squish_status check_place(const sq_model *m, const char *path, const sq_sqw_tensor *t,
                                 const sq_want *w, squish_error *err) {
    const int32_t layer = t->layer == 0xFFFF ? -1 : t->layer;
    if (t->role != w->role || layer != w->layer || t->expert != (w->expert < 0 ? 0 : (uint32_t)w->expert))
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' stands where '%s' belongs", path,
                       sq_sqw_name(m->sqw, t), w->name);
    const uint64_t rows = t->dims[0], cols = t->n_dims == 2 ? t->dims[1] : 1;
    if (t->n_dims != (w->vector ? 1 : 2) || rows != (uint64_t)w->rows || cols != (uint64_t)w->cols)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is %llu x %llu, the config wants %d x %d", path,
                       w->name, (unsigned long long)rows, (unsigned long long)cols, w->rows, w->cols);
    return SQUISH_OK;
}

/* Where the parts of a matrix with a low-rank term begin, from its own start. */
typedef struct {
    uint64_t v, u, end;
} parts;

static uint64_t line_up(uint64_t n) { return (n + 63) / 64 * 64; }

/* False: a type that no record may have. All sums are of numbers below 2^60. */
static bool parts_of(const sq_sqw_tensor *t, const sq_want *w, parts *p) {
    uint64_t codes = 0;
    if (!sq_weight_bytes((sq_wtype)t->wtype, w->rows, w->cols, &codes) || codes > (uint64_t)1 << 60)
        return false;
    *p = (parts){codes, codes, codes};
    if (t->rank == 0) return true;
    p->v = line_up(codes);
    p->u = line_up(p->v + (uint64_t)t->rank * (uint64_t)w->cols * sizeof(uint16_t));
    p->end = p->u + (uint64_t)t->rank * (uint64_t)w->rows * sizeof(uint16_t);
    return true;
}

static squish_status check_record(const sq_model *m, const char *path, const sq_sqw_tensor *t,
                                  const sq_want *w, parts *p, squish_error *err) {
    SQ_TRY(check_place(m, path, t, w, err));
    const bool known =
        w->vector ? t->wtype == SQ_W_F32 && t->rank == 0 : t->wtype < SQ_W_COUNT && t->wtype != SQ_W_AFFINE;
    const bool halves = known && sq_wtype_get((sq_wtype)t->wtype)->halves;
    if (t->scale_type > (halves ? SQ_SCALE_BF16 : SQ_SCALE_F32))
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': scale type %u with weight type %u", path,
                       w->name, t->scale_type, t->wtype);
    if (t->rank > 0 && sq_want_is_bare(w))
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tensor '%s': a low-rank term of this matrix is not run",
                       path, w->name);
    if (t->rank > SQ_MAX_RANK)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': rank %u, at most %d is read", path, w->name,
                       t->rank, SQ_MAX_RANK);
    *p = (parts){0};
    if (!known || !parts_of(t, w, p) || p->end != t->data_bytes)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': weight type %u with %llu bytes, wanted %llu",
                       path, w->name, t->wtype, (unsigned long long)t->data_bytes,
                       (unsigned long long)p->end);
    return SQUISH_OK;
}

static squish_status bind_matrix(sq_model *m, const sq_sqw_tensor *t, const sq_want *w, const parts *p,
                                 squish_error *err) {
    const uint8_t *data = sq_sqw_data(m->sqw, t);
    sq_weight view = sq_weight_make((sq_wtype)t->wtype, (sq_scale_type)t->scale_type, w->rows, w->cols, data);
    if (t->rank > 0) {
        const int32_t rank = (int32_t)t->rank;
        sq_lowrank *low = SQ_ARENA_NEW(&m->load, sq_lowrank);
        if (!low) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory");
        low->v = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, rank, w->cols, data + p->v);
        low->u = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, w->rows, rank, data + p->u);
        low->scale = 1.0f;
        view.low = low;
    }
    sq_model_bind_matrix(m, w, &view);
    return SQUISH_OK;
}

static squish_status bind(sq_model *m, const char *path, squish_error *err) {
    size_t n = 0, i = 0;
    const sq_sqw_tensor *t = sq_sqw_tensors(m->sqw, &n);
    sq_want w;
    for (; sq_config_want(&m->cfg, i, &w); i++) {
        parts p = {0};
        if (i >= n) return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is missing", path, w.name);
        SQ_TRY(check_record(m, path, &t[i], &w, &p, err));
        if (w.vector)
            sq_model_bind_vector(m, &w, (const float *)(const void *)sq_sqw_data(m->sqw, &t[i]));
        else
            SQ_TRY(bind_matrix(m, &t[i], &w, &p, err));
    }
    if (i != n) return sq_fail(err, SQUISH_CORRUPT, "%s: %zu tensors, the config wants %zu", path, n, i);
    return SQUISH_OK;
}

/* JSON sections carry a final NUL, so that they can be handed out as C strings. */
static squish_status json_section(const sq_model *m, const char *path, uint32_t fourcc, const char **out,
                                  squish_error *err) {
    const sq_span s = sq_sqw_section_of(m->sqw, fourcc);
    if (s.n && s.p[s.n - 1] != 0) return sq_fail(err, SQUISH_CORRUPT, "%s: a JSON section has no end", path);
    *out = s.n ? (const char *)s.p : NULL;
    return SQUISH_OK;
}

/* A tier that was published although it was measured to be useless. */
static squish_status check_quality(const sq_sqw *s, const char *path, squish_error *err) {
    if (sq_sqw_quality(s) != SQ_QUALITY_COLLAPSED) return SQUISH_OK;
    return sq_fail(err, SQUISH_QUALITY,
                   "%s: its answers were measured to be useless when it was made (compress to 4 bits or with "
                   "--method milo, or run it with --allow-collapsed)",
                   path);
}

squish_status sq_model_open_sqw(sq_model **out, const char *path, const squish_model_options *opt,
                                squish_error *err) {
    *out = NULL;
    sq_model *m = NULL;
    SQ_TRY(sq_model_new(&m, opt, err));
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_sqw_open(&m->sqw, path, &m->alloc, err));
    if (opt->verify) SQ_GUARD(sq_sqw_verify(m->sqw, NULL, NULL, err));
    if (!opt->text_only && !opt->allow_collapsed) SQ_GUARD(check_quality(m->sqw, path, err));
    SQ_GUARD(read_config(m, path, err));
    SQ_GUARD(json_section(m, path, SQ_SEC_CONF, &m->config_json, err));
    SQ_GUARD(json_section(m, path, SQ_SEC_GENC, &m->generation_json, err));
    SQ_GUARD(sq_model_open_text(m, sq_sqw_section_of(m->sqw, SQ_SEC_TOKZ),
                                sq_sqw_section_of(m->sqw, SQ_SEC_TMPL), err));
    if (!opt->text_only) {
        SQ_GUARD(sq_model_make_layers(m, err));
        SQ_GUARD(bind(m, path, err));
    }
    const bool eight =
        !opt->text_only && sq_wtype_get((sq_wtype)m->layers[0].mat[SQ_ROLE_O].wtype)->bits == 8;
    SQ_GUARD(sq_model_finish(m, path, eight ? "q8" : "0", err));
    m->info.quality = (squish_quality)sq_sqw_quality(m->sqw);
    *out = m;
    return SQUISH_OK;
fail:
    sq_model_close(m);
    return st;
}
