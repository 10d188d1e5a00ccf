/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_attn.c - attention over a chunk, folding of chunks and storing of tokens on every instruction
 * set: same bits as scalar; scalar against a softmax in double precision. */
#include "support/attn_chunk.h"

static sq_test_tables tables;

/* ---- the oracle ------------------------------------------------------------------------------ */

/* A score is a sum of d products: off by at most e = d 2^-24 of the magnitudes; so is m, and each p by 2 e, 3
 * roundings of exp and of the difference s - m; then sums of 256. */
static void row_agrees_with_double(const chunk *c, const result *r, int32_t i) {
    const int32_t lo = c->lo[i], hi = c->hi[i], d = c->a.d;
    const float *q = c->a.q + (size_t)i * c->a.ldq, *o = r->o + (size_t)i * r->ldo;
    double s[SQ_ATTN_CHUNK], most = -INFINITY, e = 0, sum = 0;
    for (int32_t t = lo; t < hi; t++) {
        double magnitude = 0;
        s[t] = c->k[t / SQ_KV_TILE] ? 0 : -INFINITY;
        for (int32_t k = 0; c->k[t / SQ_KV_TILE] && k < d; k++) {
            s[t] += (double)q[k] * k_at(c, t, k);
            magnitude += fabs((double)q[k] * k_at(c, t, k));
        }
        most = fmax(most, s[t]);
        e = fmax(e, magnitude * d * 0x1p-24);
    }
    for (int32_t t = lo; t < hi; t++) sum += s[t] = s[t] == -INFINITY ? 0 : exp(s[t] - most);
    const double rel = 4 * e + 300 * 0x1p-24 + 1e-35;
    if (most == -INFINITY) assert_true(r->m[i] == -INFINITY);
    else near(most, r->m[i], e, "m");
    near(sum, r->l[i], sum * rel, "l");
    for (int32_t k = 0; k < d; k++) {
        double want = 0, magnitude = 0;
        for (int32_t t = lo; t < hi; t++) {
            if (!c->k[t / SQ_KV_TILE]) continue;
            want += s[t] * v_at(c, t, k);
            magnitude += fabs(s[t] * v_at(c, t, k));
        }
        near(want, o[k], magnitude * rel, "o");
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

static void same_on_every_isa(const chunk *c) {
    const int32_t n_q = c->a.n_q;
    result want = attend(tables.scalar.attn_f16, c, 0, n_q);
    if (!c->a.m_run)
        for (int32_t i = 0; i < n_q; i++) row_agrees_with_double(c, &want, i);
    for (int32_t k = 0; k < tables.n; k++) {
        result got = attend(tables.isa[k].attn_f16, c, 0, n_q);
        same_result(tables.isa[k].isa, &want, &got, 0, n_q);
        result_free(&got);
        const int32_t row0 = sq_test_below(&rng, n_q), part = 1 + sq_test_below(&rng, n_q - row0);
        got = attend(tables.isa[k].attn_f16, c, row0, part); /* other company, same bits */
        same_result(tables.isa[k].isa, &want, &got, row0, part);
        result_free(&got);
    }
    result_free(&want);
}

static void attention_case(int32_t n_q, int32_t d, float size) {
    chunk c;
    if (sq_test_left_out()) return;
    chunk_new(&c, n_q, d, size, false);
    same_on_every_isa(&c);
    chunk_thin(&c);
    same_on_every_isa(&c);
    chunk_free(&c);
}

static void attention_is_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t widths[] = {16, 32, 48, 64, 80, 96, 128, 256, 512},
                         rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 17, 24};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t r = 0; r < SQ_COUNT(rows); r++) {
            attention_case(rows[r], widths[w], 1.0f);
            if (widths[w] <= 64)
                attention_case(rows[r], widths[w], 40.0f); /* scores far apart: p reaches 0 */
        }
}

/* The full-precision cache exists in scalar code only; on values that f16 can hold it has the bits of the f16
 * one. */
static void f32_tiles_agree_with_f16_tiles(void **state) {
    (void)state;
    enum { D = 48, N_Q = 7 };
    static float kf[TILES][D * SQ_KV_TILE], vf[TILES][D * SQ_KV_TILE];
    chunk c;
    chunk_new(&c, N_Q, D, 1.0f, false);
    result want = attend(tables.scalar.attn_f16, &c, 0, N_Q);
    for (int32_t j = 0; j < TILES; j++) {
        if (!c.k[j]) continue;
        for (int32_t i = 0; i < D * SQ_KV_TILE; i++) {
            kf[j][i] = sq_f16_to_f32(c.k[j][i]);
            vf[j][i] = sq_f16_to_f32(c.v[j][i]);
        }
        c.k[j] = (const uint16_t *)(const void *)kf[j];
        c.v[j] = (const uint16_t *)(const void *)vf[j];
    }
    for (int32_t k = -1; k < tables.n; k++) {
        sq_kernels t = k < 0 ? tables.scalar : tables.isa[k];
        t.attn_f16 = t.attn_f32;
        result got = attend(t.attn_f16, &c, 0, N_Q);
        same_result(t.isa, &want, &got, 0, N_Q);
        result_free(&got);
    }
    result_free(&want);
    chunk_free(&c);
}

/* With q = 0 every p is 1, l counts and o adds up. */
static void a_flat_softmax_counts_tokens(void **state) {
    (void)state;
    chunk c;
    chunk_new(&c, 3, 64, 0.0f, false);
    for (int32_t k = -1; k < tables.n; k++) {
        result r = attend(k < 0 ? tables.scalar.attn_f16 : tables.isa[k].attn_f16, &c, 0, 3);
        for (int32_t i = 0; i < 3; i++) assert_true(r.l[i] == (float)(c.hi[i] - c.lo[i]));
        result_free(&r);
    }
    chunk_free(&c);
}

/* ---- folding chunks -------------------------------------------------------------------------- */

static void merge_case(int32_t d) {
    enum { CHUNKS = 6 };
    float m[CHUNKS], l[CHUNKS];
    static float oc[CHUNKS][D_MAX], want[D_MAX], got[D_MAX];
    double most = -INFINITY, sum = 0;
    for (int j = 0; j < CHUNKS; j++) {
        m[j] = sq_test_below(&rng, 3) ? 5 * sq_test_float(&rng) : -INFINITY;
        l[j] = m[j] == -INFINITY ? 0.0f : 1.0f + 100 * fabsf(sq_test_float(&rng));
        for (int32_t c = 0; c < d; c++) oc[j][c] = m[j] == -INFINITY ? 0.0f : sq_test_float(&rng);
        most = fmax(most, (double)m[j]);
    }
    for (int32_t k = -1; k < tables.n; k++) {
        const sq_kernels *t = k < 0 ? &tables.scalar : &tables.isa[k];
        static float m_want, l_want;
        float *o = k < 0 ? want : got, m_run = -INFINITY, l_run = 0;
        for (int32_t c = 0; c < D_MAX; c++) o[c] = c < d ? 0.0f : 7.0f;
        for (int j = 0; j < CHUNKS; j++) t->attn_merge(&m_run, &l_run, o, m[j], l[j], oc[j], d);
        if (k < 0) m_want = m_run, l_want = l_run;
        assert_true(sq_test_same("m", t->isa, &m_want, &m_run, 1));
        assert_true(sq_test_same("l", t->isa, &l_want, &l_run, 1));
        assert_true(sq_test_same("o", t->isa, want, o, D_MAX));
        if (k >= 0) continue;
        for (int j = 0; j < CHUNKS; j++)
            if (m[j] != -INFINITY) sum += (double)l[j] * exp((double)m[j] - most);
        near(sum, l_run, sum * 4e-6, "merged l");
        for (int32_t c = 0; c < d; c++) {
            double v = 0, magnitude = 0;
            for (int j = 0; j < CHUNKS; j++) {
                if (m[j] == -INFINITY) continue;
                v += (double)oc[j][c] * exp((double)m[j] - most);
                magnitude += fabs((double)oc[j][c] * exp((double)m[j] - most));
            }
            near(v, o[c], magnitude * 4e-6, "merged o");
        }
    }
}

static void merging_is_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t widths[] = {16, 64, 80, 128, 256, 512};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int repeat = 0; repeat < 50; repeat++) merge_case(widths[w]);
}

/* ---- storing tokens -------------------------------------------------------------------------- */

/* Values a cache meets, and the edges of f16: ties, subnormals, the largest number, and past it. */
static float cache_value(void) {
    static const float edges[] = {0.0f,       -0.0f,      65504.0f,   65519.9f,     65520.0f, -65536.0f,
                                  1e30f,      -INFINITY,  INFINITY,   NAN,          0x1p-24f, 0x1p-25f,
                                  0x1.8p-25f, 0x1.002p0f, 0x1.006p0f, 0x1.ffcp-15f, -0x1p-14f};
    if (sq_test_below(&rng, 4) == 0) return edges[sq_test_below(&rng, SQ_COUNT(edges))];
    return ldexpf(sq_test_float(&rng), sq_test_below(&rng, 40) - 26);
}

static void stored_is_nearest(float x, uint16_t h) {
    const double v = (double)sq_f16_to_f32(h),
                 limit = fmax(fabs(fmin(fmax((double)x, -65504), 65504)), 0x1p-14);
    if (isnan(x)) assert_true(isnan(v));
    else near(v, (float)fmin(fmax((double)x, -65504), 65504), limit * 0x1p-11, "f16");
}

static void put_case(int32_t d, int32_t t) {
    if (sq_test_left_out()) return;
    sq_test_moat mk, mv, mkw, mvw, ma, mb;
    const size_t bytes = (size_t)d * SQ_KV_TILE * 2;
    float *krow = sq_test_moat_new(&ma, (size_t)d * 4, 4), *vrow = sq_test_moat_new(&mb, (size_t)d * 4, 8);
    uint16_t *kw = sq_test_moat_new(&mkw, bytes, 0), *vw = sq_test_moat_new(&mvw, bytes, 0);
    for (int32_t c = 0; c < d; c++) krow[c] = cache_value(), vrow[c] = cache_value();
    tables.scalar.kv_put_f16(krow, vrow, d, t, kw, vw);
    for (int32_t c = 0; c < d; c++) {
        stored_is_nearest(krow[c], kw[c * SQ_KV_TILE + t]);
        stored_is_nearest(vrow[c], vw[t * d + c]);
        for (int32_t other = 0; other < SQ_KV_TILE; other++)
            if (other != t) assert_true(kw[c * SQ_KV_TILE + other] == 0xffff && vw[other * d + c] == 0xffff);
        if (isnan(krow[c])) kw[c * SQ_KV_TILE + t] = 0x7e00; /* any NaN will do */
        if (isnan(vrow[c])) vw[t * d + c] = 0x7e00;
    }
    for (int32_t i = 0; i < tables.n; i++) {
        uint16_t *k = sq_test_moat_new(&mk, bytes, 0), *v = sq_test_moat_new(&mv, bytes, 0);
        tables.isa[i].kv_put_f16(krow, vrow, d, t, k, v);
        for (int32_t c = 0; c < d; c++) {
            if (isnan(krow[c]) && isnan(sq_f16_to_f32(k[c * SQ_KV_TILE + t]))) k[c * SQ_KV_TILE + t] = 0x7e00;
            if (isnan(vrow[c]) && isnan(sq_f16_to_f32(v[t * d + c]))) v[t * d + c] = 0x7e00;
        }
        assert_memory_equal(kw, k, bytes);
        assert_memory_equal(vw, v, bytes);
        sq_test_moat_free(&mk);
        sq_test_moat_free(&mv);
    }
    sq_test_moat *all[] = {&mkw, &mvw, &ma, &mb};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_test_moat_free(all[i]);
}

static void stored_tokens_are_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t widths[] = {16, 64, 80, 128, 256, 512};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int32_t t = 0; t < SQ_KV_TILE; t++) put_case(widths[w], t);
}

static void an_f32_cache_stores_what_it_is_given(void **state) {
    (void)state;
    enum { D = 64 };
    static float krow[D], vrow[D], k[D * SQ_KV_TILE], v[D * SQ_KV_TILE];
    for (int32_t t = 0; t < SQ_KV_TILE; t++) {
        for (int32_t c = 0; c < D; c++) krow[c] = cache_value(), vrow[c] = cache_value();
        tables.scalar.kv_put_f32(krow, vrow, D, t, (uint16_t *)(void *)k, (uint16_t *)(void *)v);
        for (int32_t c = 0; c < D; c++) {
            assert_memory_equal(&k[c * SQ_KV_TILE + t], &krow[c], sizeof *k);
            assert_memory_equal(&v[t * D + c], &vrow[c], sizeof *v);
        }
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
        cmocka_unit_test(attention_is_the_same_everywhere),
        cmocka_unit_test(f32_tiles_agree_with_f16_tiles),
        cmocka_unit_test(a_flat_softmax_counts_tokens),
        cmocka_unit_test(merging_is_the_same_everywhere),
        cmocka_unit_test(stored_tokens_are_the_same_everywhere),
        cmocka_unit_test(an_f32_cache_stores_what_it_is_given),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
