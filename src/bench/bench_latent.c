/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_latent.c - latent attention of a decoded token beside the same model's keys and values kept expanded:
 * what absorbing the projections gives, in bytes and in time.
 *
 * Both caches hold numbers out of nowhere for LAYERS layers, so that neither stays in a cache of the machine
 * that a real model would not fit into; both take turns. The absorbed side includes its projections, the
 * expanded one that of the new token. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LAYERS = 7 };

typedef struct {
    squish_alloc alloc;
    const sq_model *m;
    sq_backend *b;
    sq_mla_shape latent;
    sq_attn_shape heads;
    sq_kv_geometry geo[2]; /* latent, expanded */
    sq_rows q, out, wide_out, row, kv;
    sq_mla_rows rows;
    float *cos;         /* 1; the sines behind are zero */
    uint8_t **pages[2]; /* [LAYERS * tiles] */
    void *memory;
    size_t bytes;
    int32_t n, tiles;
} state;

static size_t carve(state *s, char *p) {
    const sq_config *c = &s->m->cfg;
    const struct {
        sq_rows *r;
        int32_t cols;
        bool q;
    } rows[] = {{&s->q, c->n_heads * c->head_dim, false},
                {&s->out, c->n_heads * c->mla.v, true},
                {&s->wide_out, c->n_heads * c->head_dim, true},
                {&s->row, c->mla.kv_rank, true},
                {&s->kv, c->n_heads * (c->mla.nope + c->mla.v), false}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (p) sq_rows_carve(rows[i].r, 1, rows[i].cols, rows[i].q, p + at);
        at += sq_rows_bytes(1, rows[i].cols, rows[i].q);
    }
    if (p) sq_mla_rows_carve(&s->rows, &s->latent, 1, p + at);
    at += sq_mla_rows_bytes(&s->latent, 1);
    if (p) s->cos = (float *)(void *)(p + at);
    at += sq_align_up(2 * (size_t)c->head_dim * sizeof(float), 64);
    for (int k = 0; k < 2; k++)
        for (int32_t t = 0; t < LAYERS * s->tiles; t++, at += s->geo[k].page_bytes)
            if (p) s->pages[k][t] = (uint8_t *)p + at;
    return at;
}

/* Finite f16 numbers below 1 in both caches, and a query. */
static void plant(state *s) {
    uint64_t rng = 1;
    for (int k = 0; k < 2; k++)
        for (int32_t t = 0; t < LAYERS * s->tiles; t++) {
            uint16_t *p = (uint16_t *)(void *)(s->pages[k][t] + s->geo[k].k_off);
            const size_t n = (s->geo[k].page_bytes - s->geo[k].k_off) / sizeof *p;
            for (size_t i = 0; i < n; i++)
                p[i] = (uint16_t)((i * 40503u + (size_t)t * 977u) & 0xBBFF); /* any sign, exponent below 1 */
        }
    for (int32_t i = 0; i < s->q.cols; i++)
        s->q.f[i] = (float)((double)(sq_splitmix64(&rng) >> 11) * 0x1p-53 - 0.5) / sqrtf((float)s->q.cols);
    for (int32_t i = 0; i < s->row.cols; i++) s->row.f[i] = s->q.f[i % s->q.cols];
    for (int32_t i = 0; i < s->m->cfg.head_dim; i++) s->cos[i] = 1.0f;
    s->q.m = s->row.m = 1;
}

static const sq_layer *layer_of(const state *s, int32_t i) { return &s->m->layers[i % s->m->cfg.n_layers]; }

/* Milliseconds of LAYERS layers. */
static double absorbed(state *s) {
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < LAYERS; i++) {
        const sq_attn_seg seg = {
            .n_rows = 1, .pos0 = s->n - 1, .pages = s->pages[0] + (size_t)i * (size_t)s->tiles};
        s->latent.k_b = &layer_of(s, i)->mat[SQ_ROLE_K_B];
        s->latent.kv_b = &layer_of(s, i)->mat[SQ_ROLE_KV_B];
        sq_be_mla_attend(s->b, &s->latent, &seg, 1, &s->q, true, &s->rows, &s->out);
    }
    return (double)(sq_os_now_ns() - begin) / 1e6;
}

static double expanded(state *s) {
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < LAYERS; i++) {
        const sq_attn_seg seg = {
            .n_rows = 1, .pos0 = s->n - 1, .pages = s->pages[1] + (size_t)i * (size_t)s->tiles};
        const sq_weight *kv_b = &layer_of(s, i)->mat[SQ_ROLE_KV_B];
        const sq_linear lin = {kv_b, NULL, &s->kv, false};
        s->row.quantised = sq_wtype_wants_q8((sq_wtype)kv_b->wtype);
        sq_be_linear(s->b, &s->row, &lin, 1);
        sq_be_attend(s->b, &s->heads, &seg, 1, &s->q, true, &s->wide_out);
    }
    return (double)(sq_os_now_ns() - begin) / 1e6;
}

static void state_free(state *s) {
    sq_backend_free(s->b);
    for (int k = 0; k < 2; k++)
        sq_alloc_free(&s->alloc, s->pages[k], (size_t)(LAYERS * s->tiles) * sizeof *s->pages[k]);
    if (s->memory) sq_os_release(s->memory, s->bytes);
}

static squish_status state_new(state *s, const bench_options *o, const sq_model *m, int32_t n,
                               squish_error *err) {
    const sq_config *c = &m->cfg;
    const sq_kv_shape latent = sq_model_kv_shape(c);
    const int32_t width = latent.head_dim > c->head_dim ? latent.head_dim : c->head_dim;
    /* What a model without latent rows would keep: keys of head_dim channels, values of as many or fewer. */
    const sq_kv_shape heads = {.n_layers = 1, .n_kv_heads = c->n_heads, .head_dim = c->head_dim};
    sq_isa isa;
    sq_isa_from_name(o->isa, &isa);
    *s = (state){.alloc = sq_alloc_default(), .m = m, .n = n, .tiles = sq_div_up(n, SQ_KV_TILE)};
    s->geo[0] = sq_kv_geometry_of(&latent, SQ_KV_F16);
    s->geo[1] = sq_kv_geometry_of(&heads, SQ_KV_F16);
    const sq_backend_options bo = {.threads = o->threads ? o->threads : sq_os_cores(),
                                   .isa_max = isa,
                                   .m_max = SQ_ATTN_CHUNK,
                                   .heads_max = c->n_heads,
                                   .kv_heads_max = c->n_heads,
                                   .head_dim_max = width,
                                   .ctx_max = n};
    SQ_TRY(sq_backend_cpu_new(&s->b, &bo, &s->alloc, err));
    for (int k = 0; k < 2; k++) {
        s->pages[k] = sq_alloc_zero(&s->alloc, (size_t)(LAYERS * s->tiles) * sizeof *s->pages[k]);
        if (!s->pages[k]) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    }
    s->latent = (sq_mla_shape){.n_heads = c->n_heads,
                               .nope = c->mla.nope,
                               .rope = c->mla.rope,
                               .v = c->mla.v,
                               .rank = c->mla.kv_rank,
                               .scale = 1.0f,
                               .k_off = s->geo[0].k_off};
    s->heads = (sq_attn_shape){.n_heads = c->n_heads,
                               .n_kv_heads = c->n_heads,
                               .head_dim = c->head_dim,
                               .scale = 1.0f,
                               .open = {s->geo[1].k_off, s->geo[1].v_off, s->geo[1].head_stride}};
    s->bytes = carve(s, NULL);
    s->memory = sq_os_reserve(s->bytes);
    if (!s->memory) return sq_fail(err, SQUISH_NO_MEMORY, "bench: no memory for %d tokens", n);
    carve(s, s->memory);
    plant(s);
    return SQUISH_OK;
}

static squish_status also(json_t *rows, const char *key, double value, squish_error *err) {
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    if (json_object_set_new(row, key, json_real(value)) == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
}

static squish_status rows_of(const bench_options *o, const sq_model *m, int32_t n, json_t *rows,
                             squish_error *err) {
    double ms[2][BENCH_RUNS_MAX];
    char name[64];
    state s;
    squish_status st = state_new(&s, o, m, n, err);
    for (int32_t r = -1; st == SQUISH_OK && r < o->runs; r++) { /* the first warms up */
        const double a = absorbed(&s), e = expanded(&s);
        if (r >= 0) ms[0][r] = a / LAYERS, ms[1][r] = e / LAYERS;
    }
    for (int k = 1; st == SQUISH_OK && k >= 0; k--) {
        snprintf(name, sizeof name, "%s, a layer at %d", k ? "expanded" : "latent", n);
        st = bench_row(rows, name, "ms", ms[k], o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
    }
    if (st == SQUISH_OK)
        st = also(rows, "speedup", bench_median(ms[1], o->runs) / bench_median(ms[0], o->runs), err);
    state_free(&s);
    return st;
}

/* Of a token and layer. Expanded keys and values count as a cache of their exact widths would have them. */
static squish_status bytes_row(const sq_model *m, json_t *rows, squish_error *err) {
    const sq_config *c = &m->cfg;
    const sq_kv_shape latent = sq_model_kv_shape(c);
    double bytes = (double)sq_kv_geometry_of(&latent, SQ_KV_F16).page_bytes / SQ_KV_TILE;
    const double whole = 2.0 * c->n_heads * (c->head_dim + c->mla.v);
    SQ_TRY(
        bench_row(rows, "latent, bytes of a token and layer", "B", &bytes, 1, NAN, BENCH_SMALL_IS_GOOD, err));
    return also(rows, "smaller", whole / bytes, err);
}

squish_status bench_latent(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {2048, 8192};
    squish_model_options mo = squish_model_options_default();
    squish_model *m = NULL;
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), SQ_MAX_CTX, &p, err));
    SQ_TRY(bench_check_runs(o, err));
    mo.tier = o->tier;
    SQ_TRY(squish_model_open(&m, o->path, &mo, err));
    squish_status st = SQUISH_OK;
    if (m->cfg.mla.kv_rank == 0)
        st = sq_fail(err, SQUISH_UNSUPPORTED, "bench latent: %s (%s) has no latent attention", o->path,
                     m->cfg.arch);
    if (st == SQUISH_OK) st = bytes_row(m, rows, err);
    for (int32_t i = 0; st == SQUISH_OK && i < p.count; i++) st = rows_of(o, m, p.n[i], rows, err);
    squish_model_close(m);
    return st;
}
