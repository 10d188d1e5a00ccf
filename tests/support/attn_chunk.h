/* SPDX-License-Identifier: Apache-2.0
 *
 * attn_chunk.h - random chunks of attention for the tests of its kernels: tiles between moats, ranges of all
 * kinds, gaps, and results that must not be written past. */
#ifndef SQ_TEST_ATTN_CHUNK_H
#define SQ_TEST_ATTN_CHUNK_H

#include "support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static uint64_t rng;

enum { TILES = SQ_ATTN_TILES, ROWS_MAX = 24, D_MAX = SQ_ATTN_D_MAX };

typedef struct {
    sq_test_moat qm, km[TILES], vm[TILES];
    const uint16_t *k[TILES], *v[TILES];
    int32_t lo[ROWS_MAX], hi[ROWS_MAX];
    float m_run[ROWS_MAX];
    sq_attn_args a;
} chunk;

static inline const uint16_t *random_tile(sq_test_moat *m, int32_t d, float size) {
    const size_t n = (size_t)d * SQ_KV_TILE;
    uint16_t *p = sq_test_moat_new(m, n * 2, 0);
    for (size_t i = 0; i < n; i++) p[i] = sq_f32_to_f16(size * sq_test_float(&rng));
    return p;
}

static inline void random_range(int32_t *lo, int32_t *hi) {
    const int32_t a = sq_test_below(&rng, SQ_ATTN_CHUNK + 1), b = sq_test_below(&rng, SQ_ATTN_CHUNK + 1);
    *lo = a < b ? a : b;
    *hi = a < b ? b : a;
    if (sq_test_below(&rng, 4) == 0) *lo = 0;
    if (sq_test_below(&rng, 8) == 0) *hi = *lo; /* sees nothing */
    if (sq_test_below(&rng, 8) == 0 && *lo < SQ_ATTN_CHUNK) *hi = *lo + 1;
}

/* Tiles that no row sees are NULL, unless all are to be there. */
static inline void chunk_new(chunk *c, int32_t n_q, int32_t d, float size, bool whole) {
    const size_t ldq = (size_t)d + 5;
    float *q = sq_test_moat_new(&c->qm, (size_t)n_q * ldq * 4, 4);
    uint32_t seen = 0;
    for (int32_t i = 0; i < n_q; i++) {
        for (int32_t k = 0; k < d; k++)
            q[(size_t)i * ldq + (size_t)k] = size * sq_test_float(&rng) / sqrtf((float)d);
        random_range(&c->lo[i], &c->hi[i]);
        for (int32_t t = c->lo[i]; t < c->hi[i]; t++) seen |= 1u << (t / SQ_KV_TILE);
    }
    for (int32_t j = 0; j < TILES; j++) {
        c->k[j] = random_tile(&c->km[j], d, 1.0f);
        c->v[j] = random_tile(&c->vm[j], d, 1.0f);
        if (!whole && !(seen >> j & 1)) c->k[j] = c->v[j] = NULL;
    }
    c->a = (sq_attn_args){
        .q = q, .ldq = ldq, .n_q = n_q, .d = d, .k = c->k, .v = c->v, .lo = c->lo, .hi = c->hi};
}

static inline void chunk_free(chunk *c) {
    sq_test_moat_free(&c->qm);
    for (int32_t j = 0; j < TILES; j++) {
        sq_test_moat_free(&c->km[j]);
        sq_test_moat_free(&c->vm[j]);
    }
}

typedef struct {
    sq_test_moat mm, lm, om;
    float *m, *l, *o;
    size_t ldo;
} result;

/* Rows [row0, row0 + n_q) of c by one kernel. */
static inline result attend(sq_attn_fn *fn, const chunk *c, int32_t row0, int32_t n_q) {
    result r = {.ldo = (size_t)c->a.d + 3};
    r.m = sq_test_moat_new(&r.mm, (size_t)n_q * 4, 4);
    r.l = sq_test_moat_new(&r.lm, (size_t)n_q * 4, 8);
    r.o = sq_test_moat_new(&r.om, (size_t)n_q * r.ldo * 4, 12);
    sq_attn_args a = c->a;
    a.q += (size_t)row0 * a.ldq;
    a.lo += row0;
    a.hi += row0;
    if (a.m_run) a.m_run += row0;
    a.n_q = n_q;
    a.m = r.m;
    a.l = r.l;
    a.o = r.o;
    a.ldo = r.ldo;
    fn(&a);
    return r;
}

static inline void result_free(result *r) {
    sq_test_moat_free(&r->mm);
    sq_test_moat_free(&r->lm);
    sq_test_moat_free(&r->om);
}

static inline void same_result(const char *isa, const result *want, const result *got, int32_t row0,
                               int32_t n_q) {
    assert_true(sq_test_same("m", isa, want->m + row0, got->m, (size_t)n_q));
    assert_true(sq_test_same("l", isa, want->l + row0, got->l, (size_t)n_q));
    assert_true(sq_test_same("o", isa, want->o + (size_t)row0 * want->ldo, got->o, (size_t)n_q * want->ldo));
}

/* Some tiles become gaps, and rows drop tiles: about half of them, so far apart scores are. */
static inline void chunk_thin(chunk *c) {
    for (int32_t j = 0; j < TILES; j++)
        if (sq_test_below(&rng, 3) == 0) c->k[j] = NULL;
    for (int32_t i = 0; i < c->a.n_q; i++)
        c->m_run[i] = sq_test_below(&rng, 4) ? 3 * sq_test_float(&rng) : -INFINITY;
    if (sq_test_below(&rng, 4)) c->a.m_run = c->m_run;
    c->a.skip = 2 * fabsf(sq_test_float(&rng));
}

static inline double k_at(const chunk *c, int32_t t, int32_t i) {
    return (double)sq_f16_to_f32(c->k[t / SQ_KV_TILE][(size_t)i * SQ_KV_TILE + (size_t)(t % SQ_KV_TILE)]);
}

static inline double v_at(const chunk *c, int32_t t, int32_t i) {
    return (double)sq_f16_to_f32(c->v[t / SQ_KV_TILE][(size_t)(t % SQ_KV_TILE) * (size_t)c->a.d + (size_t)i]);
}

static inline void near(double want, float got, double tolerance, const char *what) {
    if (!(fabs((double)got - want) <= tolerance))
        fail_msg("%s: %.9g, in double %.9g, allowed %.3g", what, (double)got, want, tolerance);
}

#endif
