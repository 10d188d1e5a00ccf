/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mass.c - how much some queries look at each tile of their past, or at each token.
 *
 * The attention kernels say of any tiles the largest score m and the sum l of exp(s - m). Tile by tile that
 * is enough: once over all tiles for the totals M and L of a row, and once more for l exp(m - M) / L. Of
 * single tokens the scores are made again here, and the largest exp(s - M) / L of all rows counts. */
#include "backend/be_int.h"
#include "quant/quant_vec.h"

#include <math.h>
#include <string.h>

typedef struct {
    sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_seg *seg;
    int32_t row0, n_rows, group, n_tiles;
    const sq_rows *q;
    float *top, *sum; /* [n_heads][n_rows] M and L */
    float *mass;
    size_t ld; /* of one head of keys in mass, where it is by token */
} mass_ctx;

/* m and l of one tile for a block of rows of one KV head, row i * group + g, into s->mc, s->lc. */
static void look(const mass_ctx *c, int32_t kvh, int32_t tok0, int32_t n_tok, int32_t tile,
                 sq_be_scratch *s) {
    const sq_be_rows r = {c->seg, kvh, c->row0 + tok0, n_tok, c->group, false, false};
    sq_be_attn_tile(c->b, c->s, &r, tile, s);
}

static void gather(const mass_ctx *c, int32_t kvh, int32_t tok0, int32_t n_tok, float *q) {
    const size_t d = (size_t)c->s->head_dim, dp = (size_t)sq_be_padded(c->s), group = (size_t)c->group;
    for (size_t i = 0; i < (size_t)n_tok; i++) {
        const size_t row = (size_t)(c->seg->row0 + c->row0 + tok0) + i;
        const float *from = c->q->f + row * sq_rows_ld(c->q) + (size_t)kvh * group * d;
        for (size_t g = 0; g < group; g++) {
            float *to = memcpy(q + (i * group + g) * dp, from + g * d, d * sizeof *to);
            for (size_t j = d; j < dp; j++) to[j] = 0.0f;
        }
    }
}

/* Tokens from `at` on that share a pass: they read the same tiles sealed, wherever a step begins. */
static int32_t block_at(const mass_ctx *c, int32_t at) {
    int32_t n = SQ_BE_ATTN_ROWS / c->group;
    while (n & (n - 1)) n &= n - 1;
    n -= (c->seg->pos0 + c->row0 + at) % n;
    return n < c->n_rows - at ? n : c->n_rows - at;
}

/* Totals of the rows of one KV head. */
static void total_item(void *ctx, int32_t kvh, int32_t thread) {
    const mass_ctx *c = ctx;
    sq_be_scratch *s = &c->b->scratch[thread];
    for (int32_t at = 0, n; at < c->n_rows; at += n) {
        n = block_at(c, at);
        gather(c, kvh, at, n, s->q);
        float *top = c->top + (kvh * c->n_rows + at) * c->group,
              *sum = c->sum + (kvh * c->n_rows + at) * c->group;
        for (int32_t i = 0; i < n * c->group; i++) top[i] = -INFINITY, sum[i] = 0.0f;
        for (int32_t t = 0; t < c->n_tiles; t++) {
            look(c, kvh, at, n, t, s);
            for (int32_t i = 0; i < n * c->group; i++) {
                if (s->mc[i] == -INFINITY) continue;
                const float most = fmaxf(top[i], s->mc[i]);
                sum[i] = sum[i] * expf(top[i] - most) + s->lc[i] * expf(s->mc[i] - most);
                top[i] = most;
            }
        }
    }
}

/* What both ways begin with: the rows' maxima and sums over all they read, in scratch. */
static mass_ctx totals_of(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0,
                          int32_t n_rows, const sq_rows *q, float *scratch, int64_t *work) {
    mass_ctx c = {.b = b,
                  .s = s,
                  .seg = seg,
                  .row0 = row0,
                  .n_rows = n_rows,
                  .group = s->n_heads / s->n_kv_heads,
                  .n_tiles = (seg->pos0 + row0 + n_rows - 1) / SQ_KV_TILE + 1,
                  .q = q,
                  .top = scratch,
                  .sum = scratch + (size_t)n_rows * (size_t)s->n_heads};
    *work = (int64_t)n_rows * s->n_heads * s->head_dim * SQ_KV_TILE * c.n_tiles;
    sq_be_run(b, total_item, &c, s->n_kv_heads, *work);
    return c;
}

static void tile_item(void *ctx, int32_t t, int32_t thread) {
    const mass_ctx *c = ctx;
    sq_be_scratch *s = &c->b->scratch[thread];
    float mass = 0.0f;
    for (int32_t kvh = 0; kvh < c->s->n_kv_heads; kvh++)
        for (int32_t at = 0, n; at < c->n_rows; at += n) {
            n = block_at(c, at);
            gather(c, kvh, at, n, s->q);
            look(c, kvh, at, n, t, s);
            const float *top = c->top + (kvh * c->n_rows + at) * c->group;
            const float *sum = c->sum + (kvh * c->n_rows + at) * c->group;
            for (int32_t i = 0; i < n * c->group; i++)
                if (s->mc[i] != -INFINITY) mass += s->lc[i] * expf(s->mc[i] - top[i]) / sum[i];
        }
    c->mass[t] += mass;
}

void sq_be_attn_mass(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0,
                     int32_t n_rows, const sq_rows *q, float *scratch, float *mass) {
    int64_t work;
    mass_ctx c = totals_of(b, s, seg, row0, n_rows, q, scratch, &work);
    c.mass = mass;
    sq_be_run(b, tile_item, &c, c.n_tiles, work);
}

/* ---- by token -------------------------------------------------------------------------------- */

/* Keys of a tile as f32 [dp][32], as some rows read them. */
static void keys_of(const mass_ctx *c, int32_t kvh, int32_t t, bool sealed, sq_be_form f, float *out) {
    _Alignas(64) uint16_t made[SQ_ATTN_D_MAX * SQ_KV_TILE];
    const int32_t dp = sq_be_padded(c->s), n = dp * SQ_KV_TILE;
    const sq_attn_page coded = sq_be_sealed_page(f.k, f.v, dp), *page = sealed ? &coded : &c->s->open;
    const uint8_t *k =
        (sealed ? c->seg->sealed : c->seg->pages)[t] + (size_t)kvh * page->head_stride + page->k_off;
    if (sealed)
        sq_be_mix_open(k, (int32_t)f.k, dp, made);
    else
        memcpy(made, k, (size_t)n * sizeof *made);
    for (int32_t i = 0; i < n; i++) out[i] = sq_f16_to_f32(made[i]);
}

/* looks[j] = at least exp(q . k_j - top) / sum, for the 32 tokens of a tile. */
static void add_looks(const float *q, const float *k, int32_t dp, float top, float sum, float *looks) {
    f4 s[SQ_KV_TILE / 4] = {{0}};
    for (int32_t i = 0; i < dp; i++, k += SQ_KV_TILE)
        for (int32_t j = 0; j < SQ_KV_TILE / 4; j++) s[j] += f4_load(k + 4 * j) * q[i];
    for (int32_t j = 0; j < SQ_KV_TILE; j++) looks[j] = fmaxf(looks[j], expf(s[j / 4][j % 4] - top) / sum);
}

static void token_item(void *ctx, int32_t item, int32_t thread) {
    const mass_ctx *c = ctx;
    _Alignas(64) float k[SQ_ATTN_D_MAX * SQ_KV_TILE];
    sq_be_scratch *s = &c->b->scratch[thread];
    const int32_t kvh = item % c->s->n_kv_heads, t = item / c->s->n_kv_heads, dp = sq_be_padded(c->s);
    float *looks = c->mass + (size_t)kvh * c->ld + (size_t)t * SQ_KV_TILE;
    sq_be_form made = {SQ_KV_F32, SQ_KV_F32}; /* none yet */
    bool made_sealed = false;
    for (int32_t at = 0, n; at < c->n_rows; at += n) {
        n = block_at(c, at);
        const sq_be_rows r = {c->seg, kvh, c->row0 + at, n, c->group, false, false};
        sq_be_form f;
        const bool sealed = sq_be_attn_tile_form(c->s, &r, t, &f);
        if (sealed != made_sealed || f.k != made.k) keys_of(c, kvh, t, sealed, f, k);
        made = f, made_sealed = sealed;
        gather(c, kvh, at, n, s->q);
        const int32_t first = (kvh * c->n_rows + at) * c->group;
        for (int32_t i = 0; i < n * c->group; i++)
            add_looks(s->q + (size_t)i * (size_t)dp, k, dp, c->top[first + i], c->sum[first + i], looks);
    }
}

void sq_be_attn_looks(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0,
                      int32_t n_rows, const sq_rows *q, int32_t n_tiles, float *scratch, float *looks,
                      size_t ld) {
    int64_t work;
    mass_ctx c = totals_of(b, s, seg, row0, n_rows, q, scratch, &work);
    c.mass = looks, c.ld = ld;
    sq_be_run(b, token_item, &c, n_tiles * s->n_kv_heads, work);
}
