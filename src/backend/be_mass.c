/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mass.c - how much some queries look at each tile of their past.
 *
 * The attention kernels say of any tiles the largest score m and the sum l of exp(s - m). Tile by tile that
 * is enough: once over all tiles for the totals M and L of a row, and once more for l exp(m - M) / L. */
#include "backend/be_int.h"

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

static int32_t block_of(const mass_ctx *c) { return SQ_BE_ATTN_ROWS / c->group; }

/* Totals of the rows of one KV head. */
static void total_item(void *ctx, int32_t kvh, int32_t thread) {
    const mass_ctx *c = ctx;
    sq_be_scratch *s = &c->b->scratch[thread];
    for (int32_t at = 0, n; at < c->n_rows; at += n) {
        n = c->n_rows - at < block_of(c) ? c->n_rows - at : block_of(c);
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

static void tile_item(void *ctx, int32_t t, int32_t thread) {
    const mass_ctx *c = ctx;
    sq_be_scratch *s = &c->b->scratch[thread];
    float mass = 0.0f;
    for (int32_t kvh = 0; kvh < c->s->n_kv_heads; kvh++)
        for (int32_t at = 0, n; at < c->n_rows; at += n) {
            n = c->n_rows - at < block_of(c) ? c->n_rows - at : block_of(c);
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
    mass_ctx c = {.b = b,
                  .s = s,
                  .seg = seg,
                  .row0 = row0,
                  .n_rows = n_rows,
                  .group = s->n_heads / s->n_kv_heads,
                  .n_tiles = (seg->pos0 + row0 + n_rows - 1) / SQ_KV_TILE + 1,
                  .q = q,
                  .top = scratch,
                  .sum = scratch + (size_t)n_rows * (size_t)s->n_heads,
                  .mass = mass};
    const int64_t work = (int64_t)n_rows * s->n_heads * s->head_dim * SQ_KV_TILE * c.n_tiles;
    sq_be_run(b, total_item, &c, s->n_kv_heads, work);
    sq_be_run(b, tile_item, &c, c.n_tiles, work);
}
