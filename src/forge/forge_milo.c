/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_milo.c - few bits and a low-rank compensator, W ~ codes + U V, by turns (MiLo: Huang et al., 2025,
 * arXiv:2504.02658): quantise what U V does not explain, decompose what the codes do not explain.
 *
 * Both turns go on from where the last one stood. The first round searches the grid of every group and draws
 * random directions; most later rounds only re-fit the grids to weights that moved a little, and rotate the
 * subspace by one more step of the iteration (Halko, Martinsson and Tropp, 2011). That is a fifth of the
 * work for the same result, for the alternation itself forgives what one turn leaves undone. The factors are
 * rounded to f16 inside the loop, so the next codes repair their rounding. */
#include "forge/forge_methods.h"

#include "quant/quant_group.h"

sq_milo_options sq_milo_options_default(void) {
    return (sq_milo_options){.bits = 3, .rank = 16, .rounds = 8, .power_steps = 3, .scale_type = SQ_SCALE_F16,
                             .gain_min = 1e-4, .seed = 1};
}

/* One iterate and its scratch. ld: cols rounded up to 8; columns past cols are 0. */
typedef struct {
    squish_alloc alloc;
    sq_pool *pool;
    const sq_milo_options *o;
    const float *w;
    int32_t rows, cols, rank, l; /* l: directions followed, rank and a few more */
    size_t ld;
    sq_coded now;
    float *m;              /* [rows][ld] what is to be quantised; then, what the codes left over, weighted */
    float *root, *back;    /* [ld] square roots of the importance, and their inverses; NULL: all 1 */
    float *dirs;           /* [l][ld] directions; their images B; right factors */
    float *q;              /* [l][rows] orthonormal */
    float *qt;             /* [rows][l] */
    float *u, *v;          /* [rows][rank], [rank][ld]: values of the f16 factors, v weighted */
    double *small;         /* three of [l][l] and [l] values */
    double *row_error;
    bool first;            /* no directions yet */
    bool search;           /* look for grids anew in this round */
} milo;

static size_t small_doubles(const milo *s) { return 2 * (size_t)s->l * (size_t)s->l + (size_t)s->l; }

static void milo_deinit(milo *s) {
    const size_t rows = (size_t)s->rows, l = (size_t)s->l, f = sizeof(float);
    sq_alloc_free(&s->alloc, s->row_error, rows * sizeof(double));
    sq_alloc_free(&s->alloc, s->small, small_doubles(s) * sizeof(double));
    sq_alloc_free(&s->alloc, s->v, l * s->ld * f);
    sq_alloc_free(&s->alloc, s->u, l * rows * f);
    sq_alloc_free(&s->alloc, s->qt, l * rows * f);
    sq_alloc_free(&s->alloc, s->q, l * rows * f);
    sq_alloc_free(&s->alloc, s->dirs, l * s->ld * f);
    sq_alloc_free(&s->alloc, s->root, 2 * s->ld * f);
    sq_alloc_free(&s->alloc, s->m, rows * s->ld * f);
    sq_coded_free(&s->now);
}

/* Columns that never mattered still get a little weight, so that dividing by it is harmless. */
static void fill_roots(milo *s) {
    const float *h = s->o->importance;
    double mean = 0;
    for (int32_t k = 0; k < s->cols; k++) mean += (double)h[k] / s->cols;
    for (int32_t k = 0; k < s->cols; k++) {
        const double share = mean > 0 ? (double)h[k] / mean : 1;
        s->root[k] = (float)sqrt(share > 1e-4 ? share : 1e-4);
        s->back[k] = 1 / s->root[k];
    }
}

static squish_status milo_init(milo *s, int32_t rank, squish_error *err) {
    const int32_t shorter = s->rows < s->cols ? s->rows : s->cols;
    const size_t rows = (size_t)s->rows, f = sizeof(float);
    SQ_TRY(sq_coded_new(&s->now, &s->alloc, s->o->bits, s->rows, s->cols, rank, s->o->scale_type, err));
    s->rank = rank;
    s->l = rank + SQ_MILO_EXTRA < shorter ? rank + SQ_MILO_EXTRA : shorter;
    s->ld = sq_align_up((size_t)s->cols, 8);
    s->first = s->search = true;
    const size_t l = (size_t)s->l;
    s->m = sq_alloc_zero(&s->alloc, rows * s->ld * f);
    s->dirs = sq_alloc_zero(&s->alloc, l * s->ld * f);
    s->q = sq_alloc_zero(&s->alloc, l * rows * f);
    s->qt = sq_alloc_zero(&s->alloc, l * rows * f);
    s->u = sq_alloc_zero(&s->alloc, l * rows * f);
    s->v = sq_alloc_zero(&s->alloc, l * s->ld * f);
    s->small = sq_alloc_zero(&s->alloc, small_doubles(s) * sizeof(double));
    s->row_error = sq_alloc_zero(&s->alloc, rows * sizeof(double));
    if (s->o->importance) {
        s->root = sq_alloc_zero(&s->alloc, 2 * s->ld * f);
        s->back = s->root ? s->root + s->ld : NULL;
    }
    if (s->m && s->dirs && s->q && s->qt && s->u && s->v && s->small && s->row_error &&
        (s->root || !s->o->importance)) {
        if (s->root) fill_roots(s);
        return SQUISH_OK;
    }
    milo_deinit(s);
    return sq_fail(err, SQUISH_NO_MEMORY, "matrix of %d x %d: out of memory", s->rows, s->cols);
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* One group: a search the first time, later a re-fit from the grid it had. */
static void code_group(const milo *s, const float *t, int32_t k, int32_t n, uint8_t *codes, uint16_t *scale,
                       uint16_t *bias) {
    const float *h = s->o->importance ? s->o->importance + k : NULL;
    const sq_scale_type st = s->o->scale_type;
    if (s->search) {
        sq_quant_affine(s->o->bits, SQ_QUANT_LSQ, t, h, n, st, codes, scale, bias);
        return;
    }
    affine_group g;
    uint8_t all[SQ_GROUP];
    group_init(&g, s->o->bits, t, n, st);
    group_sums(&g, t, h);
    const affine_grid r = refine(&g, try_grid(&g, scale_value(st, *scale), scale_value(st, *bias)), 3);
    codes_of(&g, &r, all);
    memcpy(codes, all, (size_t)n);
    *scale = r.scale;
    *bias = r.bias;
}

/* m = W - U V before; codes, and m = (W - decoded) sqrt(h) after. */
static void code_row(void *ctx, int32_t r, int32_t thread) {
    milo *s = ctx;
    const float *w = s->w + (size_t)r * (size_t)s->cols;
    float *m = s->m + (size_t)r * s->ld;
    (void)thread;
    for (int32_t g = 0; g < s->now.groups; g++) {
        const int32_t k = g * SQ_GROUP, n = s->cols - k < SQ_GROUP ? s->cols - k : SQ_GROUP;
        const size_t side = (size_t)r * (size_t)s->now.groups + (size_t)g;
        uint8_t *codes = s->now.codes + (size_t)r * (size_t)s->cols + k;
        code_group(s, m + k, k, n, codes, &s->now.scale[side], &s->now.bias[side]);
        const float scale = sq_scale_to_f32(s->o->scale_type, s->now.scale[side]);
        const float bias = sq_scale_to_f32(s->o->scale_type, s->now.bias[side]);
        for (int32_t i = 0; i < n; i++) m[k + i] = w[k + i] - (scale * (float)codes[i] + bias);
    }
    for (int32_t k = 0; s->root && k < s->cols; k++) m[k] *= s->root[k];
}

/* ---- factors --------------------------------------------------------------------------------- */

static void random_directions(milo *s) {
    uint64_t state = s->o->seed;
    for (int32_t j = 0; j < s->l; j++)
        for (int32_t k = 0; k < s->cols; k++)
            s->dirs[(size_t)j * s->ld + (size_t)k] =
                (float)(int32_t)(sq_splitmix64(&state) >> 40) * 0x1p-23f - 1;
}

/* q = orthonormal images of the directions; dirs = q^T M. */
static void subspace_step(milo *s) {
    const int32_t l = s->l, rows = s->rows;
    sq_la_dots(s->pool, s->m, s->ld, rows, s->dirs, s->ld, l, s->cols, s->qt, (size_t)l);
    for (int32_t j = 0; j < l; j++)
        for (int32_t i = 0; i < rows; i++)
            s->q[(size_t)j * (size_t)rows + (size_t)i] = s->qt[(size_t)i * (size_t)l + (size_t)j];
    sq_la_orthonormal(s->q, (size_t)rows, l, rows);
    for (int32_t j = 0; j < l; j++)
        for (int32_t i = 0; i < rows; i++)
            s->qt[(size_t)i * (size_t)l + (size_t)j] = s->q[(size_t)j * (size_t)rows + (size_t)i];
    sq_la_tall(s->pool, s->qt, (size_t)l, l, s->m, s->ld, rows, (int32_t)s->ld, s->dirs, s->ld);
}

/* Squared singular values of M as far as the subspace sees them, and the left vectors' coordinates in it. */
static const double *decompose(milo *s, double **vectors) {
    const int32_t l = s->l;
    double *gram = s->small, *values = gram + 2 * (size_t)l * (size_t)l;
    *vectors = gram + (size_t)l * (size_t)l;
    if (s->first) {
        random_directions(s);
        for (int32_t i = 0; i < s->o->power_steps; i++) subspace_step(s);
    }
    subspace_step(s);
    for (int32_t i = 0; i < l; i++) {
        for (int32_t j = 0; j <= i; j++) {
            const float *x = s->dirs + (size_t)i * s->ld, *y = s->dirs + (size_t)j * s->ld;
            double even = 0, odd = 0;
            for (size_t k = 0; k < s->ld; k += 2) {
                even += (double)x[k] * (double)y[k];
                odd += (double)x[k + 1] * (double)y[k + 1];
            }
            gram[i * l + j] = gram[j * l + i] = even + odd;
        }
    }
    sq_la_eigen(gram, l, values, *vectors);
    return values;
}

/* As large as f16 holds; a factor beyond it is a sign of weights that are no weights. */
static uint16_t half_of(float x) { return float_to_half(x > 65504 ? 65504 : x < -65504 ? -65504 : x); }

/* U = Q E sqrt(S), V = E^T B / sqrt(S), rounded to f16; V is kept without the weights of columns in the
 * result and with them in s->v. */
static void make_factors(milo *s) {
    double *e;
    const double *values = decompose(s, &e);
    const int32_t l = s->l, rank = s->rank;
    for (int32_t j = 0; j < rank; j++) {
        const double sigma = values[j] > 0 ? sqrt(values[j]) : 0, half = sqrt(sigma);
        float *v = s->v + (size_t)j * s->ld;
        memset(v, 0, s->ld * sizeof *v);
        for (int32_t t = 0; t < l; t++) {
            const float f = half > 0 ? (float)(e[j * l + t] / half) : 0;
            const float *b = s->dirs + (size_t)t * s->ld;
            for (int32_t k = 0; k < s->cols; k++) v[k] += f * b[k];
        }
        uint16_t *stored = s->now.v + (size_t)j * (size_t)s->cols;
        for (int32_t k = 0; k < s->cols; k++) {
            stored[k] = half_of(s->back ? v[k] * s->back[k] : v[k]);
            v[k] = half_to_float(stored[k]);
        }
        for (int32_t i = 0; i < s->rows; i++) {
            float x = 0;
            for (int32_t t = 0; t < l; t++)
                x += (float)(e[j * l + t] * half) * s->qt[(size_t)i * (size_t)l + (size_t)t];
            const size_t at = (size_t)i * (size_t)rank + (size_t)j;
            s->now.u[at] = half_of(x);
            s->u[at] = half_to_float(s->now.u[at]);
        }
    }
}

/* The error of the iterate, and W - U V for the next one. */
static void residual_row(void *ctx, int32_t r, int32_t thread) {
    milo *s = ctx;
    const float *w = s->w + (size_t)r * (size_t)s->cols;
    float *m = s->m + (size_t)r * s->ld;
    double sum = 0;
    (void)thread;
    for (int32_t k0 = 0; k0 < s->cols; k0 += SQ_GROUP) {
        const int32_t n = s->cols - k0 < SQ_GROUP ? s->cols - k0 : SQ_GROUP;
        float uv[SQ_GROUP] = {0}, lanes[8] = {0};
        for (int32_t j = 0; j < s->rank; j++) {
            const float f = s->u[(size_t)r * (size_t)s->rank + (size_t)j];
            const float *v = s->v + (size_t)j * s->ld + k0;
            int32_t i = 0;
            for (; i + 8 <= n; i += 8) {
                const f8 y = f8_load(uv + i) + f8_all(f) * f8_load(v + i);
                memcpy(uv + i, &y, sizeof y);
            }
            for (; i < n; i++) uv[i] += f * v[i];
        }
        for (int32_t i = 0; i < n; i++) {
            const float e = m[k0 + i] - (s->root ? uv[i] * s->root[k0 + i] : uv[i]);
            lanes[i & 7] += e * e;
            m[k0 + i] = w[k0 + i] - uv[i];
        }
        sum += (double)f8_sum(f8_load(lanes));
    }
    s->row_error[r] = sum;
}

static double residual(milo *s) {
    double sum = 0;
    sq_each(s->pool, residual_row, s, s->rows);
    for (int32_t r = 0; r < s->rows; r++) sum += s->row_error[r];
    return sum;
}

static void keep(sq_coded *best, const sq_coded *now) {
    const size_t rows = (size_t)now->rows, cols = (size_t)now->cols, side = rows * (size_t)now->groups;
    memcpy(best->codes, now->codes, rows * cols);
    memcpy(best->scale, now->scale, side * sizeof *now->scale);
    memcpy(best->bias, now->bias, side * sizeof *now->bias);
    if (now->rank == 0) return;
    memcpy(best->v, now->v, (size_t)now->rank * cols * sizeof *now->v);
    memcpy(best->u, now->u, (size_t)now->rank * rows * sizeof *now->u);
}

static void begin(milo *s) {
    for (int32_t r = 0; r < s->rows; r++)
        memcpy(s->m + (size_t)r * s->ld, s->w + (size_t)r * (size_t)s->cols, (size_t)s->cols * sizeof *s->m);
}

/* Rounds that search: the first, and one more when the factors have settled (+0.06 dB for a tenth more time).
 * Searching in all of them gives 0.15 dB more for twice the time, which small matrices can have. */
enum { SEARCH_AGAIN = 3, SMALL = 16384 };

static bool searches(const milo *s, int32_t round) {
    return round == 0 || round == SEARCH_AGAIN || (int64_t)s->rows * s->cols <= SMALL;
}

squish_status sq_milo_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                           int32_t cols, const sq_milo_options *o, double *error, squish_error *err) {
    milo s = {.alloc = a ? *a : sq_alloc_default(), .pool = pool, .o = o, .w = w, .rows = rows, .cols = cols};
    double best = HUGE_VAL;
    SQ_TRY(sq_coded_new(out, a, o->bits, rows, cols, o->rank, o->scale_type, err));
    const squish_status st = milo_init(&s, o->rank, err);
    if (st != SQUISH_OK) {
        sq_coded_free(out);
        return st;
    }
    begin(&s);
    for (int32_t round = 0; round < (o->rank > 0 ? o->rounds : 1); round++) {
        s.search = searches(&s, round);
        sq_each(pool, code_row, &s, rows);
        if (o->rank > 0) make_factors(&s);
        s.first = false;
        const double now = residual(&s);
        const bool enough = !(best - now > o->gain_min * best);
        if (now < best || round == 0) {
            best = now;
            keep(out, &s.now);
        }
        if (round > 0 && enough) break;
    }
    milo_deinit(&s);
    if (error) *error = best;
    return SQUISH_OK;
}

squish_status sq_milo_spectrum(const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                               int32_t cols,
                               const sq_milo_options *o, int32_t rank_max, float *gains, squish_error *err) {
    milo s = {.alloc = a ? *a : sq_alloc_default(), .pool = pool, .o = o, .w = w, .rows = rows, .cols = cols};
    const int32_t shorter = rows < cols ? rows : cols;
    const int32_t rank = rank_max < shorter ? rank_max : shorter;
    double *e;
    if (rank_max < 1) return sq_fail(err, SQUISH_INVALID, "ranks: %d, wanted at least 1", rank_max);
    SQ_TRY(milo_init(&s, rank, err));
    begin(&s);
    sq_each(pool, code_row, &s, rows);
    const double *values = decompose(&s, &e);
    for (int32_t j = 0; j < rank_max; j++) gains[j] = j < rank && values[j] > 0 ? (float)values[j] : 0;
    milo_deinit(&s);
    return SQUISH_OK;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

/* Gains fall with the rank, so always taking the best next one is the best choice up to the last tensor. */
uint64_t sq_rank_allocate(sq_rank_request *r, size_t n, uint64_t bytes) {
    uint64_t used = 0;
    for (size_t i = 0; i < n; i++) r[i].rank = 0;
    for (;;) {
        size_t best = n;
        double best_gain = 0;
        for (size_t i = 0; i < n; i++) {
            const uint64_t cost = 2 * ((uint64_t)r[i].rows + (uint64_t)r[i].cols);
            if (r[i].rank >= r[i].rank_max || cost > bytes - used) continue;
            const double gain = r[i].weight * (double)r[i].gains[r[i].rank] / (double)cost;
            if (!(gain > best_gain)) continue;
            best = i;
            best_gain = gain;
        }
        if (best == n) return used;
        used += 2 * ((uint64_t)r[best].rows + (uint64_t)r[best].cols);
        r[best].rank++;
    }
}
