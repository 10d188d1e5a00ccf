/* SPDX-License-Identifier: Apache-2.0
 *
 * be_tiles.c - one chunk of attention over tiles in two forms, and the making of sealed ones.
 *
 *   chunk, 8 tiles   | open (the sink)       | sealed ............ | open (near the query) |
 *                         run                      run                   run
 *
 * Runs of one form go to the kernel of that form; their results are folded from left to right, as chunks are.
 * Where runs begin depends on the position of the query alone. */
#include "backend/be_int.h"

#include <math.h>
#include <string.h>

typedef struct {
    int32_t from, to; /* tiles of the chunk */
    bool sealed;
    sq_kv_format k, v; /* of sealed ones */
} run;

static int32_t within(int32_t x, int32_t lo, int32_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* Runs of a sequence that says of each tile how it reads it. */
static int runs_said(const sq_be_rows *r, int32_t chunk, run out[SQ_ATTN_TILES]) {
    const int32_t first = chunk * SQ_ATTN_TILES, last = (r->seg->pos0 + r->tok0 + r->n_tok - 1) / SQ_KV_TILE;
    int n = 0;
    for (int32_t j = 0; j < SQ_ATTN_TILES && first + j <= last; j++) {
        run u = {j, j + 1, r->seg->reads[first + j] == SQ_KV_READ_SEALED, SQ_KV_F16, SQ_KV_F16};
        if (u.sealed) {
            sq_kv_page_header h;
            memcpy(&h, r->seg->sealed[first + j], sizeof h);
            u.k = (sq_kv_format)h.k_fmt, u.v = (sq_kv_format)h.v_fmt;
        }
        if (n > 0 && out[n - 1].sealed == u.sealed && out[n - 1].k == u.k && out[n - 1].v == u.v)
            out[n - 1].to++;
        else
            out[n++] = u;
    }
    return n;
}

/* Returns the number of runs. */
static int runs_of(const sq_attn_shape *shape, const sq_be_rows *r, int32_t chunk, run out[SQ_ATTN_TILES]) {
    if (r->seg->reads) return runs_said(r, chunk, out);
    const sq_kv_window kept = shape->kept_open;
    const sq_kv_format k = shape->k_fmt, v = shape->v_fmt;
    const int32_t first = chunk * SQ_ATTN_TILES, pos = r->seg->pos0 + r->tok0;
    const int32_t end = r->seg->sealed ? within(sq_kv_sealed_tiles(kept, pos) - first, 0, SQ_ATTN_TILES) : 0;
    const int32_t begin = within(kept.sink - first, 0, end);
    int n = 0;
    if (begin > 0) out[n++] = (run){.to = begin};
    if (end > begin) out[n++] = (run){begin, end, true, k, v};
    if (end < SQ_ATTN_TILES) out[n++] = (run){.from = end, .to = SQ_ATTN_TILES};
    return n;
}

/* What each row sees of a run, in s->lo and s->hi; false: nothing. *lo, *hi: of all rows. */
static bool see(const sq_attn_shape *shape, const sq_be_rows *r, int32_t chunk, run u, sq_be_scratch *s,
                int32_t *lo, int32_t *hi) {
    const int32_t start = chunk * SQ_ATTN_CHUNK;
    *lo = SQ_ATTN_CHUNK, *hi = 0;
    for (int32_t i = 0; i < r->n_tok; i++) {
        int32_t a, z;
        sq_be_visible(shape, r->seg->pos0 + r->tok0 + i, &a, &z);
        a = within(a - start, u.from * SQ_KV_TILE, u.to * SQ_KV_TILE);
        z = within(z - start, u.from * SQ_KV_TILE, u.to * SQ_KV_TILE);
        if (a < z && a < *lo) *lo = a;
        if (a < z && z > *hi) *hi = z;
        for (int32_t g = 0; g < r->group; g++) s->lo[i * r->group + g] = a, s->hi[i * r->group + g] = z;
    }
    return *lo < *hi;
}

size_t sq_be_next_keys(const sq_attn_shape *shape, const sq_be_rows *r, bool open, int32_t chunk,
                       const uint16_t *next[SQ_ATTN_TILES]) {
    run runs[SQ_ATTN_TILES] = {{.from = 0, .to = SQ_ATTN_TILES}};
    const int n = open ? 1 : runs_of(shape, r, chunk, runs);
    const int32_t first = chunk * SQ_ATTN_TILES, last = (r->seg->pos0 + r->tok0) / SQ_KV_TILE;
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++) next[j] = NULL;
    for (int i = 0; i < n; i++) {
        const sq_attn_page sealed = sq_be_sealed_page(runs[i].k, runs[i].v, sq_be_padded(shape));
        const sq_attn_page *page = runs[i].sealed ? &sealed : &shape->open;
        for (int32_t j = runs[i].from; j < runs[i].to && first + j <= last; j++)
            next[j] = (const uint16_t *)((runs[i].sealed ? r->seg->sealed : r->seg->pages)[first + j] +
                                         (size_t)r->kvh * page->head_stride + page->k_off);
    }
    const sq_kv_format k = runs[0].sealed ? runs[0].k : SQ_KV_F16;
    /* Mixed tiles are not asked for ahead. */
    return k < SQ_KV_FORMATS ? sq_kv_k_bytes(k, sq_be_padded(shape)) : 0;
}

static void attend_run(const sq_backend *b, const sq_attn_shape *shape, const sq_be_rows *r, int32_t chunk,
                       run u, int32_t lo, int32_t hi, sq_be_scratch *s, float *m, float *l, float *o) {
    const uint16_t *k[SQ_ATTN_TILES] = {0}, *v[SQ_ATTN_TILES] = {0}, *next[SQ_ATTN_TILES];
    const int32_t dp = sq_be_padded(shape);
    const bool last = u.to == SQ_ATTN_TILES;
    const size_t next_bytes = last && r->more ? sq_be_next_keys(shape, r, false, chunk + 1, next) : 0;
    const sq_attn_page sealed = sq_be_sealed_page(u.k, u.v, dp);
    const sq_attn_page *page = u.sealed ? &sealed : &shape->open;
    for (int32_t j = lo / SQ_KV_TILE; j * SQ_KV_TILE < hi; j++) {
        const uint8_t *head = (u.sealed ? r->seg->sealed : r->seg->pages)[chunk * SQ_ATTN_TILES + j] +
                              (size_t)r->kvh * page->head_stride;
        k[j] = (const uint16_t *)(head + page->k_off);
        v[j] = (const uint16_t *)(head + page->v_off);
        if (!u.sealed || !sq_is_mix(u.k)) continue;
        uint8_t *made = s->mixed + (size_t)j * sq_align_up(sq_kv_k_bytes(SQ_KV_Q8, dp), 64);
        sq_be_mix_to_q8(&b->k, head + page->k_off, u.k, dp, made);
        k[j] = (const uint16_t *)(const void *)made;
    }
    if (u.sealed && sq_is_mix(u.k)) u.k = SQ_KV_Q8;
    const size_t d = (size_t)dp;
    const sq_attn_args a = {.q = s->q,
                            .ldq = d,
                            .n_q = r->n_tok * r->group,
                            .d = (int32_t)d,
                            .k = k,
                            .v = v,
                            .lo = s->lo,
                            .hi = s->hi,
                            .m = m,
                            .l = l,
                            .o = o,
                            .ldo = d,
                            .k_fmt = u.k,
                            .v_fmt = u.v,
                            .asked = u.from == 0 && r->asked,
                            .next = next_bytes ? next : NULL,
                            .next_bytes = next_bytes};
    (u.sealed ? b->k.attn_codes : shape->kv_f32 ? b->k.attn_f32 : b->k.attn_f16)(&a);
}

/* Nothing seen is a result as well. */
static void attend_nothing(const sq_attn_shape *shape, const sq_be_rows *r, sq_be_scratch *s) {
    const int32_t rows = r->n_tok * r->group;
    for (int32_t i = 0; i < rows; i++) s->mc[i] = -INFINITY, s->lc[i] = 0.0f;
    memset(s->oc, 0, (size_t)rows * (size_t)sq_be_padded(shape) * sizeof *s->oc);
}

void sq_be_attn_chunk(const sq_backend *b, const sq_attn_shape *shape, const sq_be_rows *r, int32_t chunk,
                      sq_be_scratch *s) {
    run runs[SQ_ATTN_TILES];
    const int n = runs_of(shape, r, chunk, runs);
    const int32_t d = sq_be_padded(shape);
    bool any = false;
    for (int i = 0; i < n; i++) {
        int32_t lo, hi;
        if (!see(shape, r, chunk, runs[i], s, &lo, &hi)) continue;
        if (!any) {
            attend_run(b, shape, r, chunk, runs[i], lo, hi, s, s->mc, s->lc, s->oc);
            any = true;
            continue;
        }
        attend_run(b, shape, r, chunk, runs[i], lo, hi, s, s->run_m, s->run_l, s->run_o);
        for (int32_t q = 0; q < r->n_tok * r->group; q++)
            b->k.attn_merge(&s->mc[q], &s->lc[q], s->oc + (size_t)q * d, s->run_m[q], s->run_l[q],
                            s->run_o + (size_t)q * d, d);
    }
    if (!any) attend_nothing(shape, r, s);
}

/* The run of one tile alone. */
static run run_of_tile(const sq_attn_shape *shape, const sq_be_rows *r, int32_t tile) {
    run runs[SQ_ATTN_TILES];
    const int32_t chunk = tile / SQ_ATTN_TILES, j = tile % SQ_ATTN_TILES;
    const int n = r->seg->sealed && (r->seg->reads || shape->seals) ? runs_of(shape, r, chunk, runs) : 0;
    run u = {.from = j, .to = j + 1};
    for (int i = 0; i < n; i++)
        if (runs[i].from <= j && j < runs[i].to) u = runs[i];
    u.from = j, u.to = j + 1;
    return u;
}

bool sq_be_attn_tile_form(const sq_attn_shape *shape, const sq_be_rows *r, int32_t tile, sq_be_form *f) {
    const run u = run_of_tile(shape, r, tile);
    *f = u.sealed ? (sq_be_form){u.k, u.v} : (sq_be_form){SQ_KV_F16, SQ_KV_F16};
    return u.sealed;
}

void sq_be_attn_tile(const sq_backend *b, const sq_attn_shape *shape, const sq_be_rows *r, int32_t tile,
                     sq_be_scratch *s) {
    const int32_t chunk = tile / SQ_ATTN_TILES;
    const run u = run_of_tile(shape, r, tile);
    int32_t lo, hi;
    if (see(shape, r, chunk, u, s, &lo, &hi))
        attend_run(b, shape, r, chunk, u, lo, hi, s, s->mc, s->lc, s->oc);
    else
        attend_nothing(shape, r, s);
}

/* ---- sealing --------------------------------------------------------------------------------- */

typedef struct {
    const sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_seg *segs;
    const sq_attn_seal *seals;
} seal_ctx;

static void seal_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const seal_ctx *c = ctx;
    const sq_attn_shape *s = c->s;
    const sq_attn_seal *l = &c->seals[item / s->n_kv_heads];
    const size_t head = (size_t)(item % s->n_kv_heads);
    const uint8_t *open = c->segs[l->seg].pages[l->tile] + head * s->open.head_stride;
    uint8_t *sealed = c->segs[l->seg].sealed[l->tile] + head * s->sealed.head_stride;
    const sq_kv_seal_args a = {.d = sq_be_padded(s),
                               .k_fmt = s->k_fmt,
                               .v_fmt = s->v_fmt,
                               .k = (const uint16_t *)(open + s->open.k_off),
                               .v = (const uint16_t *)(open + s->open.v_off),
                               .k_out = sealed + s->sealed.k_off,
                               .v_out = sealed + s->sealed.v_off};
    c->b->k.kv_seal(&a);
}

void sq_be_attn_seal(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs,
                     const sq_attn_seal *seals, int32_t n) {
    seal_ctx c = {b, s, segs, seals};
    sq_be_run(b, seal_item, &c, n * s->n_kv_heads, (int64_t)n * s->n_kv_heads * s->head_dim * SQ_KV_TILE);
}

void sq_be_hadamard(float *x, int32_t n) {
    for (int32_t half = 1; half < n; half *= 2)
        for (int32_t i = 0; i < n; i += 2 * half)
            for (int32_t j = i; j < i + half; j++) {
                const float a = x[j], c = x[j + half];
                x[j] = a + c;
                x[j + half] = a - c;
            }
    const float scale = 1.0f / sqrtf((float)n);
    for (int32_t i = 0; i < n; i++) x[i] *= scale;
}
