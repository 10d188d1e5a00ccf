/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_codes.c - sealing of tiles and attention over sealed ones on every instruction set: same bytes
 * and bits as scalar; scalar against the definition of the formats and a softmax in double precision. */
#include "support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { TILES = SQ_ATTN_CHUNK / SQ_KV_TILE, ROWS_MAX = 24 };

static sq_test_tables tables;
static uint64_t rng;

static const sq_kv_format formats[] = {SQ_KV_Q8, SQ_KV_Q4, SQ_KV_Q2};
static const int32_t widths[] = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 512};

/* ---- a tile ---------------------------------------------------------------------------------- */

typedef struct {
    int32_t d;
    sq_kv_format kf, vf;
    sq_test_moat km, vm, kom, vom;
    uint16_t *k, *v;
    uint8_t *ko, *vo;
} tile;

/* Keys with a channel of large constant part, as real ones have; sometimes constant, sometimes at the end of
 * the range of f16. */
static float key(int32_t c, int32_t kind) {
    if (kind == 1) return 3.25f;
    if (kind == 2) return c % 2 ? 65504.0f : -65504.0f;
    if (kind == 3) return 0.0f * sq_test_float(&rng);
    if (kind == 4) return 1e-7f * sq_test_float(&rng);
    return sq_test_float(&rng) + (c % 13 == 3 ? 40.0f : 0.0f);
}

static void tile_new(tile *t, int32_t d, sq_kv_format kf, sq_kv_format vf, int32_t kind) {
    const size_t n = (size_t)d * SQ_KV_TILE;
    *t = (tile){.d = d, .kf = kf, .vf = vf};
    t->k = sq_test_moat_new(&t->km, n * 2, 0);
    t->v = sq_test_moat_new(&t->vm, n * 2, 0);
    t->ko = sq_test_moat_new(&t->kom, sq_kv_k_bytes(kf, d), 0);
    t->vo = sq_test_moat_new(&t->vom, sq_kv_v_bytes(vf, d), 0);
    for (int32_t c = 0; c < d; c++)
        for (int32_t i = 0; i < SQ_KV_TILE; i++) {
            t->k[c * SQ_KV_TILE + i] = sq_f32_to_f16(key(c, kind));
            t->v[i * d + c] = sq_f32_to_f16(key(i, kind));
        }
}

static void tile_free(tile *t) {
    sq_test_moat *all[] = {&t->km, &t->vm, &t->kom, &t->vom};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_test_moat_free(all[i]);
}

static void seal(const sq_kernels *k, tile *t) {
    const sq_kv_seal_args a = {
        .d = t->d, .k_fmt = t->kf, .v_fmt = t->vf, .k = t->k, .v = t->v, .k_out = t->ko, .v_out = t->vo};
    k->kv_seal(&a);
}

static double f16_at(const uint8_t *p, int32_t i) {
    uint16_t h;
    memcpy(&h, p + (size_t)i * 2, sizeof h);
    return (double)sq_f16_to_f32(h);
}

static double centre(sq_kv_format f) { return ((1 << sq_kv_bits(f)) - 1) * 0.5; }

static int32_t code_at(const uint8_t *p, sq_kv_place at, sq_kv_format f) {
    return p[at.at] >> at.shift & ((1 << sq_kv_bits(f)) - 1);
}

static double k_scale(const tile *t, int32_t c) {
    return (double)sq_kv_scale(t->ko[sq_kv_code_bytes(t->kf, t->d) + (size_t)c]);
}

static double k_of(const tile *t, int32_t c, int32_t i) {
    const uint8_t *z = t->ko + sq_kv_code_bytes(t->kf, t->d) + sq_kv_k_z(t->d);
    return f16_at(z, c) + k_scale(t, c) * (code_at(t->ko, sq_kv_k_place(t->kf, c, i), t->kf) - centre(t->kf));
}

static double v_scale(const tile *t, int32_t c, int32_t i) {
    return f16_at(t->vo + sq_kv_code_bytes(t->vf, t->d), c / SQ_KV_GROUP * SQ_KV_TILE + i);
}

static double v_of(const tile *t, int32_t c, int32_t i) {
    const uint8_t *z = t->vo + sq_kv_code_bytes(t->vf, t->d) + sq_kv_v_z(t->d);
    return f16_at(z, c / SQ_KV_GROUP * SQ_KV_TILE + i) +
           v_scale(t, c, i) * (code_at(t->vo, sq_kv_v_place(t->vf, t->d, c, i), t->vf) - centre(t->vf));
}

/* ---- sealing --------------------------------------------------------------------------------- */

/* Everything lies within half a step, and the step is not much wider than the range asks for. */
static void sealed_is_near(const tile *t) {
    for (int32_t c = 0; c < t->d; c++) {
        double lo = 1e9, hi = -1e9;
        for (int32_t i = 0; i < SQ_KV_TILE; i++) {
            const double x = (double)sq_f16_to_f32(t->k[c * SQ_KV_TILE + i]);
            const double y = (double)sq_f16_to_f32(t->v[i * t->d + c]);
            lo = fmin(lo, x), hi = fmax(hi, x);
            assert_true(fabs(k_of(t, c, i) - x) <= 0.5001 * k_scale(t, c));
            assert_true(fabs(v_of(t, c, i) - y) <= 0.5001 * v_scale(t, c, i));
        }
        const double least = (hi - lo) / (2 * centre(t->kf));
        assert_true(k_scale(t, c) <= least * 1.126 + fmax(fabs(lo), fabs(hi)) * 0x1p-11 + 0x1.1p-15);
    }
}

static void sealing_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t f = 0; f < 9; f++)
            for (int32_t kind = 0; kind < 5; kind++) {
                if (sq_test_left_out()) continue;
                tile t;
                tile_new(&t, widths[w], formats[f / 3], formats[f % 3], kind);
                seal(&tables.scalar, &t);
                sealed_is_near(&t);
                const size_t kn = sq_kv_k_bytes(t.kf, t.d), vn = sq_kv_v_bytes(t.vf, t.d);
                static uint8_t k[512 * 40], v[512 * 40];
                memcpy(k, t.ko, kn), memcpy(v, t.vo, vn);
                for (int32_t i = 0; i < tables.n; i++) {
                    memset(t.ko, 0x5a, kn), memset(t.vo, 0x5a, vn);
                    seal(&tables.isa[i], &t);
                    assert_memory_equal(t.ko, k, kn);
                    assert_memory_equal(t.vo, v, vn);
                }
                tile_free(&t);
            }
}

static void codes_have_places_of_their_own(void **state) {
    (void)state;
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t f = 0; f < SQ_COUNT(formats); f++)
            for (int values = 0; values < 2; values++) {
                static uint8_t taken[512 * 32];
                const int32_t d = widths[w], mask = (1 << sq_kv_bits(formats[f])) - 1;
                const size_t bytes = sq_kv_code_bytes(formats[f], d);
                memset(taken, 0, sizeof taken);
                for (int32_t c = 0; c < d; c++)
                    for (int32_t t = 0; t < SQ_KV_TILE; t++) {
                        const sq_kv_place p =
                            values ? sq_kv_v_place(formats[f], d, c, t) : sq_kv_k_place(formats[f], c, t);
                        assert_true(p.at < bytes && !(taken[p.at] & mask << p.shift));
                        taken[p.at] = (uint8_t)(taken[p.at] | mask << p.shift);
                    }
                for (size_t i = 0; i < bytes; i++) assert_int_equal(taken[i], 0xff);
            }
}

static void sizes_are_those_of_the_page(void **state) {
    (void)state;
    assert_int_equal(sq_kv_k_bytes(SQ_KV_Q8, 128), 4480);
    assert_int_equal(sq_kv_k_bytes(SQ_KV_Q4, 128), 2432);
    assert_int_equal(sq_kv_k_bytes(SQ_KV_Q2, 128), 1408);
    assert_int_equal(sq_kv_v_bytes(SQ_KV_Q8, 128), 4352);
    assert_int_equal(sq_kv_v_bytes(SQ_KV_Q4, 128), 2304);
    assert_int_equal(sq_kv_v_bytes(SQ_KV_Q2, 128), 1280);
    assert_int_equal(sq_kv_k_bytes(SQ_KV_F16, 128), 8192);
}

/* ---- fewer bits from codes -------------------------------------------------------------------- */

/* Sum of squares of what x as keys and values is away from the tile. */
static double distance(const tile *t, double *values) {
    double keys = 0;
    *values = 0;
    for (int32_t c = 0; c < t->d; c++)
        for (int32_t i = 0; i < SQ_KV_TILE; i++) {
            keys += pow(k_of(t, c, i) - (double)sq_f16_to_f32(t->k[c * SQ_KV_TILE + i]), 2);
            *values += pow(v_of(t, c, i) - (double)sq_f16_to_f32(t->v[i * t->d + c]), 2);
        }
    return keys;
}

/* The same everywhere, and hardly worse than sealed at once: the scale of a key is rounded up twice. Few
 * channels say little about a mean. */
static void shrinking_is_the_same_everywhere(void **state) {
    (void)state;
    static const struct {
        sq_kv_format from, to;
        double most;
    } ways[] = {{SQ_KV_Q8, SQ_KV_Q8, 1.0},
                {SQ_KV_Q8, SQ_KV_Q4, 1.05},
                {SQ_KV_Q4, SQ_KV_Q2, 1.09},
                {SQ_KV_Q8, SQ_KV_Q2, 1.05}};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t f = 0; f < SQ_COUNT(ways); f++)
            for (int32_t kind = 0; kind < 5; kind++) {
                if (sq_test_left_out()) continue;
                tile from, to;
                tile_new(&from, widths[w], ways[f].from, ways[f].from, kind);
                tile_new(&to, widths[w], ways[f].to, ways[f].to, kind);
                seal(&tables.scalar, &from);
                memcpy(to.k, from.k, (size_t)to.d * SQ_KV_TILE * 2);
                memcpy(to.v, from.v, (size_t)to.d * SQ_KV_TILE * 2);
                seal(&tables.scalar, &to);
                double values, direct_values;
                const double direct = distance(&to, &direct_values);
                static uint8_t k[512 * 40], v[512 * 40];
                const size_t kn = sq_kv_k_bytes(to.kf, to.d), vn = sq_kv_v_bytes(to.vf, to.d);
                const sq_kv_shrink_args a = {to.d,    from.kf, to.kf, from.vf, to.vf,
                                             from.ko, from.vo, to.ko, to.vo};
                tables.scalar.kv_shrink(&a);
                memcpy(k, to.ko, kn), memcpy(v, to.vo, vn);
                if (kind == 0 && to.d >= 64) {
                    assert_true(sqrt(distance(&to, &values)) <= ways[f].most * sqrt(direct) + 1e-6);
                    assert_true(sqrt(values) <= ways[f].most * sqrt(direct_values) + 1e-6);
                }
                for (int32_t i = 0; i < tables.n; i++) {
                    memset(to.ko, 0x5a, kn), memset(to.vo, 0x5a, vn);
                    tables.isa[i].kv_shrink(&a);
                    assert_memory_equal(to.ko, k, kn);
                    assert_memory_equal(to.vo, v, vn);
                }
                tile_free(&from);
                tile_free(&to);
            }
}

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct {
    tile t[TILES];
    const uint16_t *k[TILES], *v[TILES];
    sq_test_moat qm;
    int32_t lo[ROWS_MAX], hi[ROWS_MAX];
    sq_attn_args a;
} chunk;

static void chunk_new(chunk *c, int32_t n_q, int32_t d, sq_kv_format kf, sq_kv_format vf, float size) {
    const size_t ldq = (size_t)d + 5;
    float *q = sq_test_moat_new(&c->qm, (size_t)n_q * ldq * 4, 4);
    for (int32_t j = 0; j < TILES; j++) {
        tile_new(&c->t[j], d, kf, vf, j == 3 ? 1 : 0);
        seal(&tables.scalar, &c->t[j]);
        c->k[j] = (const uint16_t *)(const void *)c->t[j].ko;
        c->v[j] = (const uint16_t *)(const void *)c->t[j].vo;
    }
    for (int32_t i = 0; i < n_q; i++) {
        for (int32_t k = 0; k < d; k++)
            q[(size_t)i * ldq + (size_t)k] = size * sq_test_float(&rng) / sqrtf((float)d);
        const int32_t a = sq_test_below(&rng, SQ_ATTN_CHUNK + 1), b = sq_test_below(&rng, SQ_ATTN_CHUNK + 1);
        c->lo[i] = sq_test_below(&rng, 3) ? 0 : a < b ? a : b;
        c->hi[i] = sq_test_below(&rng, 2) ? SQ_ATTN_CHUNK : a < b ? b : a;
        if (sq_test_below(&rng, 9) == 0) c->hi[i] = c->lo[i]; /* sees nothing */
    }
    if (n_q > 1) memset(q, 0, (size_t)d * 4); /* a row of zeros */
    c->a = (sq_attn_args){.q = q,
                          .ldq = ldq,
                          .n_q = n_q,
                          .d = d,
                          .k = c->k,
                          .v = c->v,
                          .lo = c->lo,
                          .hi = c->hi,
                          .k_fmt = kf,
                          .v_fmt = vf};
}

static void chunk_free(chunk *c) {
    sq_test_moat_free(&c->qm);
    for (int32_t j = 0; j < TILES; j++) tile_free(&c->t[j]);
}

typedef struct {
    sq_test_moat mm, lm, om;
    float *m, *l, *o;
    size_t ldo;
} result;

static result attend(const sq_kernels *k, const chunk *c, int32_t row0, int32_t n_q) {
    result r = {.ldo = (size_t)c->a.d + 3};
    r.m = sq_test_moat_new(&r.mm, (size_t)n_q * 4, 4);
    r.l = sq_test_moat_new(&r.lm, (size_t)n_q * 4, 8);
    r.o = sq_test_moat_new(&r.om, (size_t)n_q * r.ldo * 4, 12);
    sq_attn_args a = c->a;
    a.q += (size_t)row0 * a.ldq;
    a.lo += row0, a.hi += row0, a.n_q = n_q;
    a.m = r.m, a.l = r.l, a.o = r.o, a.ldo = r.ldo;
    k->attn_codes(&a);
    return r;
}

static void result_free(result *r) {
    sq_test_moat_free(&r->mm);
    sq_test_moat_free(&r->lm);
    sq_test_moat_free(&r->om);
}

/* Distance of o / l to attention in double over the same sealed values: weights are rounded to 15 bits, so
 * the error is of the size of what is summed, not of the sum. */
static void row_agrees_with_double(const chunk *c, const result *r, int32_t i) {
    const int32_t lo = c->lo[i], hi = c->hi[i], d = c->a.d;
    const float *q = c->a.q + (size_t)i * c->a.ldq, *o = r->o + (size_t)i * r->ldo;
    double s[SQ_ATTN_CHUNK], most = -INFINITY, sum = 0, off = 0, size = 0, e = 0;
    if (lo >= hi) {
        assert_true(r->m[i] == -INFINITY && r->l[i] == 0.0f);
        for (int32_t k = 0; k < d; k++) assert_true(o[k] == 0.0f);
        return;
    }
    for (int32_t t = lo; t < hi; t++) {
        double magnitude = 0;
        s[t] = 0;
        for (int32_t k = 0; k < d; k++) {
            const double x = (double)q[k] * k_of(&c->t[t / SQ_KV_TILE], k, t % SQ_KV_TILE);
            s[t] += x, magnitude += fabs(x);
        }
        e = fmax(e, magnitude * 0x1p-14);
        most = fmax(most, s[t]);
    }
    for (int32_t t = lo; t < hi; t++) sum += s[t] = exp(s[t] - most);
    for (int32_t k = 0; k < d; k++) {
        double want = 0, magnitude = 0;
        for (int32_t t = lo; t < hi; t++) {
            const double v = s[t] * v_of(&c->t[t / SQ_KV_TILE], k, t % SQ_KV_TILE);
            want += v, magnitude += fabs(v);
        }
        off += pow((double)o[k] / (double)r->l[i] - want / sum, 2);
        size += pow(magnitude / sum, 2);
    }
    if (!(sqrt(off) <= (1e-4 + e) * sqrt(size))) fail_msg("row %d: off by %.3g", i, sqrt(off / size));
}

static void same_result(const char *isa, const result *want, const result *got, int32_t row0, int32_t n_q) {
    assert_true(sq_test_same("m", isa, want->m + row0, got->m, (size_t)n_q));
    assert_true(sq_test_same("l", isa, want->l + row0, got->l, (size_t)n_q));
    assert_true(sq_test_same("o", isa, want->o + (size_t)row0 * want->ldo, got->o, (size_t)n_q * want->ldo));
}

static void attention_case(int32_t n_q, int32_t d, sq_kv_format kf, sq_kv_format vf, float size) {
    static chunk c;
    chunk_new(&c, n_q, d, kf, vf, size);
    result want = attend(&tables.scalar, &c, 0, n_q);
    for (int32_t i = 0; i < n_q; i++) row_agrees_with_double(&c, &want, i);
    for (int32_t k = 0; k < tables.n; k++) {
        result got = attend(&tables.isa[k], &c, 0, n_q);
        same_result(tables.isa[k].isa, &want, &got, 0, n_q);
        result_free(&got);
        const int32_t row0 = sq_test_below(&rng, n_q), part = 1 + sq_test_below(&rng, n_q - row0);
        got = attend(&tables.isa[k], &c, row0, part); /* other company, same bits */
        same_result(tables.isa[k].isa, &want, &got, row0, part);
        result_free(&got);
    }
    result_free(&want);
    chunk_free(&c);
}

static void attention_is_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 2, 3, 5, 6, 7, 17};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t r = 0; r < SQ_COUNT(rows); r++) {
            const size_t f = (w + r) % 9; /* every pair of formats meets several widths and rows */
            attention_case(rows[r], widths[w], formats[f / 3], formats[f % 3], 1.0f);
        }
    for (size_t f = 0; f < 9; f++) {
        attention_case(6, 128, formats[f / 3], formats[f % 3], 1.0f);
        attention_case(7, 64, formats[f / 3], formats[f % 3], 20.0f); /* scores far apart: p reaches 0 */
    }
}

static int setup(void **state) {
    (void)state;
    rng = sq_test_seed();
    tables = sq_test_all_tables();
    for (int32_t i = 0; i < tables.n; i++) printf("kernels of %s against scalar\n", tables.isa[i].isa);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_those_of_the_page),
        cmocka_unit_test(codes_have_places_of_their_own),
        cmocka_unit_test(sealing_is_the_same_everywhere),
        cmocka_unit_test(shrinking_is_the_same_everywhere),
        cmocka_unit_test(attention_is_the_same_everywhere),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
