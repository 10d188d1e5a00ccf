/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_linalg.c - the few pieces of linear algebra quantisers need.
 *
 * Everything large is one of two products: dots of rows, and Q^T A for a tall Q. Both keep a small block of
 * the result in registers, four columns at a time, and compute every element from the first product to the
 * last in one thread, so threads cannot change a bit. */
#include "forge/forge_methods.h"

#include "quant/quant_vec.h"

#include <math.h>

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline float f4_sum(f4 x) { return (x[0] + x[2]) + (x[1] + x[3]); }

/* ---- dots of rows ---------------------------------------------------------------------------- */

typedef struct {
    const float *a, *b;
    size_t lda, ldb, ldo;
    int32_t m, n, k;
    float *out;
} dots_ctx;

enum { DOT_ROWS = 32 }; /* of an item */

/* Two rows of A with four of B. */
static inline void dots_2x4(const float *a0, const float *a1, const float *const b[4], int32_t k, float *s) {
    f4 c[8] = {{0}};
    int32_t i = 0;
    for (; i + 4 <= k; i += 4) {
        const f4 x = f4_load(a0 + i), y = f4_load(a1 + i);
        for (int32_t j = 0; j < 4; j++) {
            const f4 z = f4_load(b[j] + i);
            c[j] += x * z;
            c[4 + j] += y * z;
        }
    }
    for (int32_t j = 0; j < 8; j++) s[j] = f4_sum(c[j]);
    for (; i < k; i++) {
        for (int32_t j = 0; j < 4; j++) {
            s[j] += a0[i] * b[j][i];
            s[4 + j] += a1[i] * b[j][i];
        }
    }
}

/* Rows past the end are read as the last one again and not stored. */
static void dots_item(void *ctx, int32_t item, int32_t thread) {
    const dots_ctx *c = ctx;
    const int32_t r0 = item * DOT_ROWS, r1 = least(c->m, r0 + DOT_ROWS);
    (void)thread;
    for (int32_t j = 0; j < c->n; j += 4) {
        const float *b[4];
        for (int32_t t = 0; t < 4; t++) b[t] = c->b + (size_t)least(j + t, c->n - 1) * c->ldb;
        for (int32_t i = r0; i < r1; i += 2) {
            const int32_t i2 = least(i + 1, c->m - 1);
            float s[8];
            dots_2x4(c->a + (size_t)i * c->lda, c->a + (size_t)i2 * c->lda, b, c->k, s);
            for (int32_t t = 0; t < 4 && j + t < c->n; t++) {
                c->out[(size_t)i * c->ldo + (size_t)(j + t)] = s[t];
                if (i + 1 < r1) c->out[(size_t)(i + 1) * c->ldo + (size_t)(j + t)] = s[4 + t];
            }
        }
    }
}

void sq_la_dots(sq_pool *pool, const float *a, size_t lda, int32_t m, const float *b, size_t ldb, int32_t n,
                int32_t k, float *out, size_t ldo) {
    dots_ctx c = {a, b, lda, ldb, ldo, m, n, k, out};
    sq_each(pool, dots_item, &c, sq_div_up(m, DOT_ROWS));
}

/* ---- Q^T A ------------------------------------------------------------------------------------- */

typedef struct {
    const float *q, *a;
    size_t ldq, lda, ldo;
    int32_t l, m, n;
    float *out;
} tall_ctx;

enum { TALL_COLS = 64 };

/* Four rows of the result, eight columns. */
static inline void tall_4x8(const tall_ctx *t, int32_t j, int32_t c) {
    f4 s[8] = {{0}};
    const float *a = t->a + c, *q = t->q + j;
    for (int32_t i = 0; i < t->m; i++, a += t->lda, q += t->ldq) {
        const f4 x = f4_load(a), y = f4_load(a + 4);
        for (int32_t k = 0; k < 4; k++) {
            const f4 z = {q[k], q[k], q[k], q[k]};
            s[k] += z * x;
            s[4 + k] += z * y;
        }
    }
    for (int32_t k = 0; k < 4; k++) {
        float *o = t->out + (size_t)(j + k) * t->ldo + c;
        memcpy(o, &s[k], sizeof s[k]);
        memcpy(o + 4, &s[4 + k], sizeof s[k]);
    }
}

static void tall_item(void *ctx, int32_t item, int32_t thread) {
    const tall_ctx *t = ctx;
    const int32_t end = least(t->n, (item + 1) * TALL_COLS);
    int32_t c = item * TALL_COLS;
    (void)thread;
    for (; c < end; c += c + 8 <= end ? 8 : 1) {
        int32_t j = 0;
        for (; c + 8 <= end && j + 4 <= t->l; j += 4) tall_4x8(t, j, c);
        for (; j < t->l; j++) {
            for (int32_t k = c; k < (c + 8 <= end ? c + 8 : c + 1); k++) {
                float s = 0;
                for (int32_t i = 0; i < t->m; i++)
                    s += t->q[(size_t)i * t->ldq + (size_t)j] * t->a[(size_t)i * t->lda + (size_t)k];
                t->out[(size_t)j * t->ldo + (size_t)k] = s;
            }
        }
    }
}

void sq_la_tall(sq_pool *pool, const float *q, size_t ldq, int32_t l, const float *a, size_t lda, int32_t m,
                int32_t n, float *out, size_t ldo) {
    tall_ctx t = {q, a, ldq, lda, ldo, l, m, n, out};
    sq_each(pool, tall_item, &t, sq_div_up(n, TALL_COLS));
}

/* ---- orthonormal rows, eigenvectors ------------------------------------------------------------ */

static double dot_f64(const float *x, const float *y, int32_t n) {
    d2 s0 = {0}, s1 = {0};
    double tail = 0;
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const f4 a = f4_load(x + i), b = f4_load(y + i);
        s0 += d2_low(a) * d2_low(b);
        s1 += d2_high(a) * d2_high(b);
    }
    for (; i < n; i++) tail += (double)x[i] * (double)y[i];
    return (s0[0] + s1[0]) + (s0[1] + s1[1]) + tail;
}

static void add_scaled(float *y, const float *x, float f, int32_t n) {
    const f4 all = {f, f, f, f};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const f4 s = f4_load(y + i) + all * f4_load(x + i);
        memcpy(y + i, &s, sizeof s);
    }
    for (; i < n; i++) y[i] += f * x[i];
}

void sq_la_orthonormal(float *y, size_t ld, int32_t l, int32_t n) {
    for (int32_t j = 0; j < l; j++) {
        float *v = y + (size_t)j * ld;
        const double before = dot_f64(v, v, n);
        for (int32_t pass = 0; pass < 2; pass++) {
            for (int32_t k = 0; k < j; k++) {
                const float *u = y + (size_t)k * ld;
                add_scaled(v, u, (float)-dot_f64(v, u, n), n);
            }
        }
        const double after = dot_f64(v, v, n);
        const float f = after > 1e-10 * before && after > 1e-60 ? (float)(1 / sqrt(after)) : 0;
        for (int32_t i = 0; i < n; i++) v[i] = f == 0 ? 0 : v[i] * f;
    }
}

/* One rotation that makes g[p][q] zero. */
static void rotate(double *g, double *v, int32_t n, int32_t p, int32_t q) {
    const double theta = (g[q * n + q] - g[p * n + p]) / (2 * g[p * n + q]);
    const double t = (theta >= 0 ? 1 : -1) / (fabs(theta) + sqrt(theta * theta + 1));
    const double c = 1 / sqrt(t * t + 1), s = t * c;
    for (int32_t k = 0; k < n; k++) {
        const double a = g[k * n + p], b = g[k * n + q];
        g[k * n + p] = c * a - s * b;
        g[k * n + q] = s * a + c * b;
    }
    for (int32_t k = 0; k < n; k++) {
        const double a = g[p * n + k], b = g[q * n + k];
        g[p * n + k] = c * a - s * b;
        g[q * n + k] = s * a + c * b;
    }
    for (int32_t k = 0; k < n; k++) {
        const double a = v[p * n + k], b = v[q * n + k];
        v[p * n + k] = c * a - s * b;
        v[q * n + k] = s * a + c * b;
    }
}

enum { SWEEPS_MAX = 30 };

void sq_la_eigen(double *g, int32_t n, double *values, double *vectors) {
    double trace = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = 0; k < n; k++) vectors[i * n + k] = i == k;
        trace += fabs(g[i * n + i]);
    }
    for (int32_t sweep = 0, turned = 1; sweep < SWEEPS_MAX && turned; sweep++) {
        turned = 0;
        for (int32_t p = 0; p < n; p++) {
            for (int32_t q = p + 1; q < n; q++) {
                if (!(fabs(g[p * n + q]) > 1e-9 * trace / n)) continue;
                rotate(g, vectors, n, p, q);
                turned = 1;
            }
        }
    }
    for (int32_t i = 0; i < n; i++) values[i] = g[i * n + i];
    for (int32_t i = 0; i < n; i++) { /* the largest of the rest comes to place i */
        int32_t best = i;
        for (int32_t k = i + 1; k < n; k++) best = values[k] > values[best] ? k : best;
        if (best == i) continue;
        const double x = values[i];
        values[i] = values[best];
        values[best] = x;
        for (int32_t k = 0; k < n; k++) {
            const double y = vectors[i * n + k];
            vectors[i * n + k] = vectors[best * n + k];
            vectors[best * n + k] = y;
        }
    }
}

/* ---- the factor of an inverse -------------------------------------------------------------------
 *
 * With H = R R^T, R upper triangular (Cholesky from the last column to the first), U = R^-1 is upper
 * triangular too and U^T U = (R R^T)^-1 = H^-1: H is never inverted. R grows by panels of 64 columns from
 * the right; what a panel gets from the columns right of it is one product of rows. */

enum { PANEL = 64 };

typedef struct {
    float *r;               /* R, and above its panels what is left of H */
    const float *product;   /* [rows][PANEL] */
    int32_t n, j0, j1;
} panel_ctx;

static inline float dot_f32(const float *x, const float *y, int32_t n) {
    f4 s = {0};
    float tail = 0;
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) s += f4_load(x + i) * f4_load(y + i);
    for (; i < n; i++) tail += x[i] * y[i];
    return f4_sum(s) + tail;
}

/* Rows above the panel: one substitution each. */
static void panel_item(void *ctx, int32_t item, int32_t thread) {
    const panel_ctx *c = ctx;
    const size_t n = (size_t)c->n;
    float *row = c->r + (size_t)item * n;
    (void)thread;
    for (int32_t j = c->j1 - 1; j >= c->j0; j--) {
        const float *rj = c->r + (size_t)j * n;
        row[j] = (row[j] - dot_f32(row + j + 1, rj + j + 1, c->j1 - j - 1)) / rj[j];
    }
}

static bool factor_panel(sq_pool *pool, panel_ctx *c) {
    const size_t n = (size_t)c->n;
    for (int32_t j = c->j1 - 1; j >= c->j0; j--) {
        float *rj = c->r + (size_t)j * n;
        const float d = rj[j] - dot_f32(rj + j + 1, rj + j + 1, c->j1 - j - 1);
        if (!(d > 0) || !isfinite(d)) return false;
        rj[j] = sqrtf(d);
        for (int32_t i = c->j0; i < j; i++) {
            float *ri = c->r + (size_t)i * n;
            ri[j] = (ri[j] - dot_f32(ri + j + 1, rj + j + 1, c->j1 - j - 1)) / rj[j];
        }
    }
    sq_each(pool, panel_item, c, c->j0);
    return true;
}

/* Rows of U^T, eight at a time: R u = e_j from the diagonal upwards. */
typedef struct {
    const float *r;
    float *ut;
    int32_t n;
} invert_ctx;
enum { INVERT_ROWS = 8 };

static void invert_item(void *ctx, int32_t item, int32_t thread) {
    const invert_ctx *c = ctx;
    const size_t n = (size_t)c->n;
    const int32_t j0 = item * INVERT_ROWS, j1 = least(c->n, j0 + INVERT_ROWS);
    (void)thread;
    for (int32_t i = j1 - 1; i >= 0; i--) {
        const float *row = c->r + (size_t)i * n;
        for (int32_t j = j0; j < j1; j++) {
            float *u = c->ut + (size_t)j * n;
            if (i > j) u[i] = 0;
            else if (i == j) u[i] = 1 / row[i];
            else u[i] = -dot_f32(row + i + 1, u + i + 1, j - i) / row[i];
        }
    }
}

bool sq_la_inverse_factor(sq_pool *pool, const float *h, int32_t n, float *u, float *work) {
    const size_t ld = (size_t)n;
    float *r = work, *product = u; /* u is free until R is whole */
    memcpy(r, h, ld * ld * sizeof *r);
    for (int32_t j1 = n; j1 > 0; j1 = (j1 - 1) / PANEL * PANEL) {
        panel_ctx c = {r, product, n, (j1 - 1) / PANEL * PANEL, j1};
        if (j1 < n) {
            const int32_t width = j1 - c.j0;
            sq_la_dots(pool, r + j1, ld, j1, r + (size_t)c.j0 * ld + j1, ld, width, n - j1, product, PANEL);
            for (int32_t i = 0; i < j1; i++)
                for (int32_t j = 0; j < width; j++)
                    r[(size_t)i * ld + (size_t)(c.j0 + j)] -= product[(size_t)i * PANEL + (size_t)j];
        }
        if (!factor_panel(pool, &c)) return false;
    }
    for (int32_t i = 0; i < n; i++) memset(r + (size_t)i * ld, 0, (size_t)i * sizeof *r);
    invert_ctx v = {r, u, n};
    sq_each(pool, invert_item, &v, sq_div_up(n, INVERT_ROWS));
    for (int32_t i = 0; i < n; i++) { /* U^T to U in place */
        for (int32_t j = 0; j < i; j++) {
            u[(size_t)j * ld + (size_t)i] = u[(size_t)i * ld + (size_t)j];
            u[(size_t)i * ld + (size_t)j] = 0;
        }
    }
    return true;
}

/* ---- second moments ------------------------------------------------------------------------------ */

size_t sq_hessian_floats(int32_t cols, int32_t block) {
    if (cols < 1 || block < 1 || (block > 1 && block % SQ_GROUP != 0)) return 0;
    const size_t full = (size_t)(cols / block), rest = (size_t)(cols % block);
    return full * (size_t)block * (size_t)block + rest * rest;
}

typedef struct {
    float *h;
    const float *x;
    size_t ld;
    int32_t cols, block, n;
} moments_ctx;

static void moments_row(void *ctx, int32_t item, int32_t thread) {
    const moments_ctx *c = ctx;
    const int32_t b = item / c->block, first = b * c->block, size = least(c->block, c->cols - first);
    float *out = c->h + (size_t)b * (size_t)c->block * (size_t)c->block +
        (size_t)(item - first) * (size_t)size;
    (void)thread;
    for (int32_t t = 0; t < c->n; t++) {
        const float *x = c->x + (size_t)t * c->ld;
        add_scaled(out, x + first, x[item], size);
    }
}

void sq_hessian_add(sq_pool *pool, float *h, int32_t cols, int32_t block, const float *x, size_t ld,
                    int32_t n) {
    moments_ctx c = {h, x, ld, cols, block, n};
    sq_each(pool, moments_row, &c, cols);
}

void sq_hessian_diagonal(const sq_hessian *h, float *out) {
    const float *p = h->h;
    for (int32_t first = 0; first < h->cols; first += h->block) {
        const int32_t size = least(h->block, h->cols - first);
        for (int32_t i = 0; i < size; i++) out[first + i] = p[(size_t)i * (size_t)size + (size_t)i];
        p += (size_t)size * (size_t)size;
    }
}

double sq_hessian_error(const sq_hessian *h, const float *e) {
    const float *p = h->h;
    double sum = 0;
    for (int32_t first = 0; first < h->cols; first += h->block) {
        const int32_t size = least(h->block, h->cols - first);
        for (int32_t i = 0; i < size; i++, p += size)
            sum += (double)e[first + i] * (double)dot_f32(p, e + first, size);
    }
    return sum;
}
