/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_codec_train.c - codebooks from vectors: k-means++ (Arthur and Vassilvitskii, SODA 2007), then Lloyd.
 *
 * Every subvector of every part is a task of its own, with a seed of its own, so books do not depend on who
 * does which. The second stage learns what the first, as it will stand in the file (f16), leaves over. */
#include "kv/kv_codec.h"

#include <math.h>
#include <string.h>

enum { DIMS = SQ_PQ_DIMS, ROWS = SQ_PQ_ROWS, ROUNDS = 25, SEEDED_FROM = 4096, VECTORS_MIN = 256 };

/* Work space of a thread. */
typedef struct {
    float *u;      /* [n][8] of the vectors that are to be stood for */
    float *away;   /* [SEEDED_FROM] squared distance to the nearest row so far */
    uint8_t *code; /* [2][n]: of this round, of the one before */
} space;

typedef struct {
    sq_codec *c;
    const sq_kernels *k;
    const uint16_t *x;
    int32_t part0, n;
    float *inv; /* [n_parts][n] one over the length; 0: it has none */
    space *spaces;
} training;

static float round_f16(float v) { return sq_f16_to_f32(sq_f32_to_f16(v)); }

static void each(sq_pool *pool, sq_pool_fn fn, void *ctx, int32_t n) {
    if (pool) sq_pool_run(pool, fn, ctx, n);
    for (int32_t i = 0; !pool && i < n; i++) fn(ctx, i, 0);
}

/* ---- means and lengths ----------------------------------------------------------------------- */

static void mean_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const training *t = ctx;
    const size_t d = (size_t)t->c->info.shape.head_dim, n = (size_t)t->n;
    const uint16_t *x = t->x + (size_t)item * n * d;
    float *mean = t->c->mean + (size_t)(t->part0 + item) * d, *inv = t->inv + (size_t)item * n;
    double sum[SQ_CODEC_DIM_MAX] = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < d; k++) sum[k] += (double)sq_f16_to_f32(x[i * d + k]);
    for (size_t k = 0; k < d; k++) mean[k] = round_f16((float)(sum[k] / (double)n));
    for (size_t i = 0; i < n; i++) {
        double square = 0;
        for (size_t k = 0; k < d; k++) {
            const double v = (double)(sq_f16_to_f32(x[i * d + k]) - mean[k]);
            square += v * v;
        }
        inv[i] = square > 1e-24 ? (float)(1.0 / sqrt(square)) : 0.0f;
    }
}

/* ---- one book -------------------------------------------------------------------------------- */

static double uniform(uint64_t *rng) { return (double)(sq_splitmix64(rng) >> 11) * 0x1p-53; }

/* Among n_s vectors, every step-th, the next row with a chance that grows with its distance. */
static size_t pick(const float *away, size_t n_s, uint64_t *rng) {
    double all = 0;
    for (size_t i = 0; i < n_s; i++) all += (double)away[i];
    double left = uniform(rng) * all;
    for (size_t i = 0; i + 1 < n_s; i++)
        if ((left -= (double)away[i]) < 0) return i;
    return n_s - 1;
}

static void seed_rows(const space *s, int32_t n, uint64_t *rng, float *rows) {
    const size_t step = (size_t)(n / SEEDED_FROM + 1), n_s = ((size_t)n - 1) / step + 1;
    for (size_t i = 0; i < n_s; i++) s->away[i] = 1.0f;
    for (int32_t c = 0; c < ROWS; c++) {
        const float *row = s->u + pick(s->away, n_s, rng) * step * DIMS;
        memcpy(rows + (size_t)c * DIMS, row, DIMS * sizeof *row);
        for (size_t i = 0; i < n_s; i++) {
            const float *u = s->u + i * step * DIMS;
            float square = 0.0f;
            for (int32_t k = 0; k < DIMS; k++) square += (u[k] - row[k]) * (u[k] - row[k]);
            if (c == 0 || square < s->away[i]) s->away[i] = square;
        }
    }
}

/* Every row to the middle of those it is nearest to; one that is nearest to none stays. */
static void move_rows(const space *s, int32_t n, float *rows, uint32_t *count) {
    double sum[ROWS][DIMS] = {{0}};
    memset(count, 0, ROWS * sizeof *count);
    for (int32_t i = 0; i < n; i++) {
        const float *u = s->u + (size_t)i * DIMS;
        for (int32_t k = 0; k < DIMS; k++) sum[s->code[i]][k] += (double)u[k];
        count[s->code[i]]++;
    }
    for (int32_t c = 0; c < ROWS; c++)
        for (int32_t k = 0; k < DIMS && count[c]; k++)
            rows[c * DIMS + k] = (float)(sum[c][k] / (double)count[c]);
}

/* The commonest rows first, in f16. */
static void order_rows(float *rows, const uint32_t *count) {
    float from[ROWS * DIMS];
    uint8_t order[ROWS];
    memcpy(from, rows, sizeof from);
    for (int32_t c = 0; c < ROWS; c++) {
        int32_t at = c;
        for (; at > 0 && count[order[at - 1]] < count[c]; at--) order[at] = order[at - 1];
        order[at] = (uint8_t)c;
    }
    for (int32_t c = 0; c < ROWS; c++)
        for (int32_t k = 0; k < DIMS; k++) rows[c * DIMS + k] = round_f16(from[order[c] * DIMS + k]);
}

static void train_book(const training *t, const space *s, uint64_t seed, float *rows) {
    float book[SQ_PQ_BOOK];
    uint32_t count[ROWS];
    uint8_t *before = s->code + t->n;
    seed_rows(s, t->n, &seed, rows);
    for (int32_t round = 0; round < ROUNDS; round++) {
        sq_codec_book(rows, book);
        t->k->pq_nearest(s->u, DIMS, t->n, book, s->code);
        move_rows(s, t->n, rows, count);
        if (round && memcmp(s->code, before, (size_t)t->n) == 0) break;
        memcpy(before, s->code, (size_t)t->n);
    }
    order_rows(rows, count);
    sq_codec_book(rows, book);
    t->k->pq_nearest(s->u, DIMS, t->n, book, s->code);
    for (int32_t i = 0; i < t->n; i++)
        for (int32_t k = 0; k < DIMS; k++) s->u[(size_t)i * DIMS + (size_t)k] -= rows[s->code[i] * DIMS + k];
}

/* A subvector of a part, both stages. */
static void book_item(void *ctx, int32_t item, int32_t thread) {
    const training *t = ctx;
    const space *s = &t->spaces[thread];
    const int32_t subs = t->c->subs, part = t->part0 + item / subs, sub = item % subs;
    const size_t d = (size_t)t->c->info.shape.head_dim, local = (size_t)(item / subs) * (size_t)t->n;
    const uint16_t *x = t->x + local * d + (size_t)sub * DIMS;
    const float *mean = t->c->mean + (size_t)part * d + (size_t)sub * DIMS;
    for (size_t i = 0; i < (size_t)t->n; i++)
        for (size_t k = 0; k < DIMS; k++)
            s->u[i * DIMS + k] = (sq_f16_to_f32(x[i * d + k]) - mean[k]) * t->inv[local + i];
    for (int32_t stage = 0; stage < SQ_CODEC_STAGES; stage++) {
        const uint64_t seed = ((uint64_t)part * (uint64_t)subs + (uint64_t)sub) * SQ_CODEC_STAGES;
        train_book(t, s, seed + (uint64_t)stage, sq_codec_rows(t->c, part, stage, sub));
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

static squish_status run(training *t, int32_t n_parts, sq_pool *pool, sq_codec_progress_fn progress,
                         void *user, squish_error *err) {
    each(pool, mean_item, t, n_parts);
    const training whole = *t;
    for (int32_t p = 0; p < n_parts; p++) {
        if (progress && !progress(user, p)) return sq_fail(err, SQUISH_CANCELLED, "stopped");
        t->part0 = whole.part0 + p;
        t->x = whole.x + (size_t)p * (size_t)t->n * (size_t)t->c->info.shape.head_dim;
        t->inv = whole.inv + (size_t)p * (size_t)t->n;
        each(pool, book_item, t, t->c->subs);
    }
    *t = whole;
    return SQUISH_OK;
}

squish_status sq_codec_train(sq_codec *c, int32_t part0, int32_t n_parts, const uint16_t *x, int32_t n,
                             sq_pool *pool, const sq_kernels *k, sq_codec_progress_fn progress, void *user,
                             squish_error *err) {
    if (n < VECTORS_MIN)
        return sq_fail(err, SQUISH_INVALID, "codebooks: trained on %d tokens, wanted at least %d", n,
                       VECTORS_MIN);
    const int32_t threads = pool ? sq_pool_threads(pool) : 1;
    const size_t floats = (size_t)n * DIMS + SEEDED_FROM;
    const size_t one = sq_align_up(floats * sizeof(float) + 2 * (size_t)n, 64);
    const size_t inv = sq_align_up((size_t)n_parts * (size_t)n * sizeof(float), 64);
    const size_t heads = sq_align_up((size_t)threads * sizeof(space), 64);
    const size_t bytes = heads + inv + (size_t)threads * one;
    uint8_t *memory = sq_alloc_new(&c->alloc, bytes);
    if (!memory) return sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory to train them");
    training t = {c, k, x, part0, n, (float *)(void *)(memory + heads), (space *)(void *)memory};
    for (int32_t i = 0; i < threads; i++) {
        float *f = (float *)(void *)(memory + heads + inv + (size_t)i * one);
        t.spaces[i] = (space){f, f + (size_t)n * DIMS, (uint8_t *)(f + floats)};
    }
    const squish_status st = run(&t, n_parts, pool, progress, user, err);
    sq_alloc_free(&c->alloc, memory, bytes);
    return st;
}
