/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_keys.c - what long prompts make of the cache, on every instruction set: codes of 8 bits and
 * attention on them (R7), pooled blocks (R8), and tiles that a row drops. Same bits as scalar; scalar against
 * double precision, with bounds that follow from the rounding. */
#include "support/attn_chunk.h"

static sq_test_tables tables;

static const int32_t widths[] = {16, 32, 48, 64, 80, 96, 128, 256, 512};

/* ---- keys ------------------------------------------------------------------------------------ */

/* What a channel may be: noise, noise around a constant far away (as a bias gives), constant, zeros of both
 * signs, and the ends of f16. */
static float key_of_kind(int kind) {
    switch (kind) {
    case 0: return sq_test_float(&rng);
    case 1: return 100.0f + sq_test_float(&rng);
    case 2: return -3.0f;
    case 3: return sq_test_below(&rng, 2) ? 0.0f : -0.0f;
    case 4: return sq_test_below(&rng, 2) ? 65504.0f : -65504.0f;
    default: return 0x1p-24f * (float)sq_test_below(&rng, 3);
    }
}

/* The channels of a chunk's keys and values get kinds of their own. */
static void odd_channels(chunk *c) {
    for (int32_t i = 0; i < c->a.d; i++) {
        const int kind = sq_test_below(&rng, 3) ? 0 : sq_test_below(&rng, 6);
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            uint16_t *k = (uint16_t *)(uintptr_t)c->k[t / SQ_KV_TILE];
            uint16_t *v = (uint16_t *)(uintptr_t)c->v[t / SQ_KV_TILE];
            k[(size_t)i * SQ_KV_TILE + (size_t)(t % SQ_KV_TILE)] = sq_f32_to_f16(key_of_kind(kind));
            v[(size_t)(t % SQ_KV_TILE) * (size_t)c->a.d + (size_t)i] = sq_f32_to_f16(key_of_kind(kind));
        }
    }
}

/* ---- sealing --------------------------------------------------------------------------------- */

typedef struct {
    sq_test_moat cm, sm, zm;
    uint8_t *codes;
    float *step, *z;
} sealed;

static sealed seal(const sq_kernels *k, const chunk *c, bool values) {
    const size_t d = (size_t)c->a.d;
    sealed s;
    s.codes = sq_test_moat_new(&s.cm, d * SQ_ATTN_CHUNK, 0);
    s.step = sq_test_moat_new(&s.sm, d * sizeof(float), 4);
    s.z = sq_test_moat_new(&s.zm, d * sizeof(float), 8);
    (values ? k->seal_values : k->seal_keys)(values ? c->v : c->k, c->a.d, s.codes, s.step, s.z);
    return s;
}

static void sealed_free(sealed *s) {
    sq_test_moat_free(&s->cm);
    sq_test_moat_free(&s->sm);
    sq_test_moat_free(&s->zm);
}

static double sealed_at(const sealed *s, bool values, int32_t d, int32_t t, int32_t c) {
    const uint8_t *tile = s->codes + (size_t)(t / SQ_KV_TILE) * SQ_KV_TILE * (size_t)d;
    const int32_t slot = t % SQ_KV_TILE;
    const size_t at = values ? (size_t)(slot / 4 * (d / 16) + c / 16) * 64 + (size_t)(c % 16 * 4 + slot % 4)
                             : (size_t)(c / 4) * 128 + (size_t)(slot * 4 + c % 4);
    return (double)s->z[c] + (double)s->step[c] * ((double)tile[at] - 127.5);
}

/* A code is off by half a step, and by the roundings of z and step beside the largest number. */
static void codes_are_nearest(const chunk *c, const sealed *s, bool values) {
    double (*at)(const chunk *, int32_t, int32_t) = values ? v_at : k_at;
    for (int32_t i = 0; i < c->a.d; i++) {
        double most = 0;
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) most = fmax(most, fabs(at(c, t, i)));
        const double allowed = 0.5001 * (double)s->step[i] + most * 0x1p-20;
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++)
            if (!(fabs(sealed_at(s, values, c->a.d, t, i) - at(c, t, i)) <= allowed))
                fail_msg("channel %d of token %d: %.9g, was %.9g, allowed %.3g", i, t,
                         sealed_at(s, values, c->a.d, t, i), at(c, t, i), allowed);
    }
}

static void seal_case(int32_t d, bool odd, bool values) {
    chunk c;
    chunk_new(&c, 1, d, 1.0f, true);
    if (odd) odd_channels(&c);
    sealed want = seal(&tables.scalar, &c, values);
    codes_are_nearest(&c, &want, values);
    for (int32_t k = 0; k < tables.n; k++) {
        sealed got = seal(&tables.isa[k], &c, values);
        assert_memory_equal(want.codes, got.codes, (size_t)d * SQ_ATTN_CHUNK);
        assert_true(sq_test_same("step", tables.isa[k].isa, want.step, got.step, (size_t)d));
        assert_true(sq_test_same("z", tables.isa[k].isa, want.z, got.z, (size_t)d));
        sealed_free(&got);
    }
    sealed_free(&want);
    chunk_free(&c);
}

static void sealing_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int how = 0; how < 4; how++) seal_case(widths[w], how & 1, how & 2);
}

/* ---- attention on codes ---------------------------------------------------------------------- */

/* Scores of row i in double, exact and as R7 may be off: half a step of each key, half a step of each weight
 * of 7 bits times half the range of codes, and a little for the floats. */
static double score_bound(const chunk *c, const sealed *s, int32_t i, double *exact) {
    const float *q = c->a.q + (size_t)i * c->a.ldq;
    double most = 0, keys = 0, sum = 0;
    for (int32_t k = 0; k < c->a.d; k++) {
        const double w = fabs((double)q[k] * (double)s->step[k]);
        most = fmax(most, w);
        keys += 0.5001 * w;
        sum += fabs((double)q[k]) * (fabs((double)s->z[k]) + 128 * (double)s->step[k]);
    }
    for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
        exact[t] = 0;
        for (int32_t k = 0; k < c->a.d; k++) exact[t] += (double)q[k] * k_at(c, t, k);
    }
    return keys + c->a.d * 127.5 * 0.5001 * most / 127 + sum * c->a.d * 0x1p-22;
}

/* m, and o / l against exact attention: if no score is off by more than e, no probability is by more than a
 * factor of exp(2 e). */
static void row_is_near_exact(const chunk *c, const sealed *s, const sealed *v, const result *r,
                              int32_t i) {
    double exact[SQ_ATTN_CHUNK], most = -INFINITY, l = 0;
    const double e = score_bound(c, s, i, exact);
    for (int32_t t = c->lo[i]; t < c->hi[i]; t++) most = fmax(most, exact[t]);
    if (c->lo[i] == c->hi[i]) {
        assert_true(r->m[i] == -INFINITY && r->l[i] == 0);
        return;
    }
    if (!(fabs((double)r->m[i] - most) <= e))
        fail_msg("m %g, exact %g, allowed %g", (double)r->m[i], most, e);
    for (int32_t t = c->lo[i]; t < c->hi[i]; t++) l += exp(exact[t] - most);
    for (int32_t k = 0; k < c->a.d; k++) {
        double o = 0, magnitude = 0;
        for (int32_t t = c->lo[i]; t < c->hi[i]; t++) {
            o += exp(exact[t] - most) * v_at(c, t, k) / l;
            magnitude += exp(exact[t] - most) * fabs(v_at(c, t, k)) / l;
        }
        const double got = (double)r->o[(size_t)i * r->ldo + (size_t)k] / (double)r->l[i];
        /* half a step of a value, and each probability rounded to 1 / 16256 where the largest is 1 */
        const double rounding = (double)v->step[k] * (0.51 + 127.5 * SQ_ATTN_CHUNK / 2 / 16256 / l);
        if (!(fabs(got - o) <= magnitude * (expm1(4 * e) + 1e-4) + rounding * exp(4 * e)))
            fail_msg("row %d channel %d: %g, exact %g, scores within %g", i, k, got, o, e);
    }
}

static void sage_case(int32_t n_q, int32_t d, float size, bool odd) {
    chunk c;
    if (sq_test_left_out()) return;
    chunk_new(&c, n_q, d, size, true);
    if (odd) odd_channels(&c);
    sealed s = seal(&tables.scalar, &c, false), v = seal(&tables.scalar, &c, true);
    c.a.sealed_k = (sq_sealed){s.codes, s.step, s.z};
    c.a.sealed_v = (sq_sealed){v.codes, v.step, v.z};
    for (int thin = 0; thin < 2; thin++) {
        if (thin) chunk_thin(&c);
        result want = attend(tables.scalar.attn_sage, &c, 0, n_q);
        for (int32_t i = 0; i < n_q && !thin && !odd; i++) row_is_near_exact(&c, &s, &v, &want, i);
        for (int32_t k = 0; k < tables.n; k++) {
            result got = attend(tables.isa[k].attn_sage, &c, 0, n_q);
            same_result(tables.isa[k].isa, &want, &got, 0, n_q);
            result_free(&got);
            const int32_t row0 = sq_test_below(&rng, n_q), part = 1 + sq_test_below(&rng, n_q - row0);
            got = attend(tables.isa[k].attn_sage, &c, row0, part); /* other company, same bits */
            same_result(tables.isa[k].isa, &want, &got, row0, part);
            result_free(&got);
        }
        result_free(&want);
    }
    sealed_free(&s);
    sealed_free(&v);
    chunk_free(&c);
}

static void attention_on_codes_is_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 17, 24};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t r = 0; r < SQ_COUNT(rows); r++) {
            sage_case(rows[r], widths[w], 1.0f, false);
            if (widths[w] <= 64) sage_case(rows[r], widths[w], 40.0f, true);
        }
}

/* Rows of zeros, of one huge channel, and with a NaN: flat, exact in that channel, seen. */
static void odd_queries_have_the_same_bits(void **state) {
    (void)state;
    enum { D = 64, N_Q = 9 };
    chunk c;
    chunk_new(&c, N_Q, D, 1.0f, true);
    float *q = (float *)(uintptr_t)c.a.q;
    for (int32_t k = 0; k < D; k++) {
        q[k] = 0.0f;
        q[c.a.ldq + (size_t)k] = k ? 0x1p-120f : 0.0f;
        q[2 * c.a.ldq + (size_t)k] = k == 5 ? 0x1p20f : 0x1p-20f;
    }
    sealed s = seal(&tables.scalar, &c, false), v = seal(&tables.scalar, &c, true);
    c.a.sealed_k = (sq_sealed){s.codes, s.step, s.z};
    c.a.sealed_v = (sq_sealed){v.codes, v.step, v.z};
    c.lo[0] = c.lo[1] = c.lo[2] = 0, c.hi[0] = c.hi[1] = c.hi[2] = SQ_ATTN_CHUNK;
    result want = attend(tables.scalar.attn_sage, &c, 0, N_Q);
    assert_true(want.l[0] == SQ_ATTN_CHUNK && want.l[1] == SQ_ATTN_CHUNK);
    for (int32_t k = 0; k < tables.n; k++) {
        result got = attend(tables.isa[k].attn_sage, &c, 0, N_Q);
        same_result(tables.isa[k].isa, &want, &got, 0, N_Q);
        result_free(&got);
    }
    q[7] = NAN;
    for (int32_t k = -1; k < tables.n; k++) {
        result got = attend(k < 0 ? tables.scalar.attn_sage : tables.isa[k].attn_sage, &c, 0, 1);
        assert_true(isnan(got.l[0]) || isnan(got.o[0]) || got.l[0] == 0);
        result_free(&got);
    }
    result_free(&want);
    sealed_free(&s);
    sealed_free(&v);
    chunk_free(&c);
}

/* ---- dropping tiles -------------------------------------------------------------------------- */

/* What is dropped weighs less than exp(-skip) for each of its tokens beside the largest. */
static void what_is_dropped_weighs_little(void **state) {
    (void)state;
    enum { D = 32, N_Q = 6 };
    const float skip = 9.0f;
    for (int repeat = 0; repeat < 40; repeat++) {
        chunk c;
        chunk_new(&c, N_Q, D, 12.0f, true);
        result all = attend(tables.scalar.attn_f16, &c, 0, N_Q);
        for (int32_t i = 0; i < N_Q; i++) c.m_run[i] = -INFINITY;
        c.a.m_run = c.m_run;
        c.a.skip = skip;
        result some = attend(tables.scalar.attn_f16, &c, 0, N_Q);
        for (int32_t i = 0; i < N_Q; i++) {
            assert_true(all.m[i] == some.m[i] && some.l[i] <= all.l[i]);
            assert_true((double)(all.l[i] - some.l[i]) <= SQ_ATTN_CHUNK * exp(-(double)skip));
        }
        for (int32_t i = 0; i < N_Q; i++) c.m_run[i] = 1e30f; /* the past outweighs all of this chunk */
        result none = attend(tables.scalar.attn_f16, &c, 0, N_Q);
        for (int32_t i = 0; i < N_Q; i++) assert_true(none.l[i] == 0 && all.m[i] == none.m[i]);
        result_free(&none);
        result_free(&some);
        result_free(&all);
        chunk_free(&c);
    }
}

/* ---- pooling --------------------------------------------------------------------------------- */

static void pool_case(int32_t d, bool odd) {
    chunk c;
    chunk_new(&c, 1, d, 1.0f, true);
    if (odd) odd_channels(&c);
    sq_test_moat mw, mg;
    float *want = sq_test_moat_new(&mw, (size_t)d * 4, 4);
    const float alike = tables.scalar.pool_keys(c.k, d, want);
    double sum2 = 0;
    for (int32_t k = 0; k < d; k++) {
        double mean = 0, unit = 0, most = 0;
        for (int32_t t = 0; t < SQ_POOL_KEYS; t++) {
            double norm = 0;
            for (int32_t i = 0; i < d; i++) norm += k_at(&c, t, i) * k_at(&c, t, i);
            mean += k_at(&c, t, k) / SQ_POOL_KEYS;
            most = fmax(most, fabs(k_at(&c, t, k)));
            unit += norm > 0 ? k_at(&c, t, k) / sqrt(norm) : 0;
        }
        assert_true(fabs(mean - (double)want[k]) <= most * 0x1p-20);
        sum2 += unit * unit / (SQ_POOL_KEYS * SQ_POOL_KEYS);
    }
    if (!odd) assert_true(fabs(sum2 - (double)alike) <= 1e-4);
    for (int32_t k = 0; k < tables.n; k++) {
        float *got = sq_test_moat_new(&mg, (size_t)d * 4, 4);
        const float same = tables.isa[k].pool_keys(c.k, d, got);
        assert_true(sq_test_same("alike", tables.isa[k].isa, &alike, &same, 1));
        assert_true(sq_test_same("mean", tables.isa[k].isa, want, got, (size_t)d));
        sq_test_moat_free(&mg);
    }
    sq_test_moat_free(&mw);
    chunk_free(&c);
}

static void pooling_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int odd = 0; odd < 2; odd++) pool_case(widths[w], odd);
}

static void keys_of_one_direction_are_alike(void **state) {
    (void)state;
    enum { D = 64 };
    chunk c;
    float mean[D];
    chunk_new(&c, 1, D, 1.0f, true);
    assert_true(tables.scalar.pool_keys(c.k, D, mean) < 0.1f);
    for (int32_t i = 0; i < D; i++)
        for (int32_t t = 0; t < SQ_POOL_KEYS; t++) {
            uint16_t *tile = (uint16_t *)(uintptr_t)c.k[t / SQ_KV_TILE];
            tile[i * SQ_KV_TILE + t % SQ_KV_TILE] = sq_f32_to_f16((float)(i - 20) * (float)(1 + t % 3));
        }
    assert_true(tables.scalar.pool_keys(c.k, D, mean) > 0.999f);
    chunk_free(&c);
}

static int setup(void **state) {
    (void)state;
    rng = sq_test_seed();
    tables = sq_test_all_tables();
    for (int32_t i = 0; i < tables.n; i++) print_message("# kernels of %s\n", tables.isa[i].isa);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealing_is_the_same_everywhere),
        cmocka_unit_test(attention_on_codes_is_the_same_everywhere),
        cmocka_unit_test(odd_queries_have_the_same_bits),
        cmocka_unit_test(what_is_dropped_weighs_little),
        cmocka_unit_test(pooling_is_the_same_everywhere),
        cmocka_unit_test(keys_of_one_direction_are_alike),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
