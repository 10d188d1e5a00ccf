/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_latent.c - attention over latent tiles on every instruction set: same bits as scalar, whatever
 * rows are beside a row; scalar against a softmax in double precision. */
#include "support/attn_chunk.h"

static sq_test_tables tables;

static double at(const chunk *c, int32_t t, int32_t i) {
    return (double)sq_f16_to_f32(c->k[t / SQ_KV_TILE][(size_t)(t % SQ_KV_TILE) * (size_t)c->a.d + (size_t)i]);
}

/* Tolerances as in test_kernels_attn.c. */
static void row_agrees_with_double(const chunk *c, const result *r, int32_t i) {
    const int32_t lo = c->lo[i], hi = c->hi[i], d = c->a.d;
    const float *q = c->a.q + (size_t)i * c->a.ldq, *o = r->o + (size_t)i * r->ldo;
    double s[SQ_ATTN_CHUNK], most = -INFINITY, e = 0, sum = 0;
    for (int32_t t = lo; t < hi; t++) {
        double magnitude = 0;
        s[t] = 0;
        for (int32_t k = 0; k < d; k++) {
            s[t] += (double)q[k] * at(c, t, k);
            magnitude += fabs((double)q[k] * at(c, t, k));
        }
        most = fmax(most, s[t]);
        e = fmax(e, magnitude * d * 0x1p-24);
    }
    for (int32_t t = lo; t < hi; t++) sum += s[t] = exp(s[t] - most);
    const double rel = 4 * e + 300 * 0x1p-24 + 1e-35;
    if (most == -INFINITY)
        assert_true(r->m[i] == -INFINITY);
    else
        near(most, r->m[i], e, "m");
    near(sum, r->l[i], sum * rel, "l");
    for (int32_t k = 0; k < c->a.d_out; k++) {
        double want = 0, magnitude = 0;
        for (int32_t t = lo; t < hi; t++) {
            want += s[t] * at(c, t, k);
            magnitude += fabs(s[t] * at(c, t, k));
        }
        near(want, o[k], magnitude * rel, "o");
    }
}

static void one_case(int32_t n_q, int32_t d, int32_t d_out, float size) {
    chunk c;
    chunk_new(&c, n_q, d, size, true);
    c.a.d_out = d_out;
    c.a.v = NULL;
    result want = attend(tables.scalar.attn_latent, &c, 0, n_q);
    for (int32_t i = 0; i < n_q; i++) row_agrees_with_double(&c, &want, i);
    for (int32_t k = 0; k < tables.n; k++) {
        result got = attend(tables.isa[k].attn_latent, &c, 0, n_q);
        same_result(tables.isa[k].isa, &want, &got, 0, n_q);
        result_free(&got);
        const int32_t row0 = sq_test_below(&rng, n_q), part = 1 + sq_test_below(&rng, n_q - row0);
        got = attend(tables.isa[k].attn_latent, &c, row0, part); /* other company, same bits */
        same_result(tables.isa[k].isa, &want, &got, row0, part);
        result_free(&got);
    }
    result_free(&want);
    chunk_free(&c);
}

static void latent_attention_is_the_same_everywhere(void **state) {
    (void)state;
    static const struct {
        int32_t d, d_out;
    } widths[] = {{32, 16}, {48, 32}, {96, 64}, {160, 128}, {208, 144}, {576, 512}};
    static const int32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 16};
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (size_t r = 0; r < SQ_COUNT(rows); r++) {
            one_case(rows[r], widths[w].d, widths[w].d_out, 1.0f);
            if (widths[w].d <= 96) one_case(rows[r], widths[w].d, widths[w].d_out, 40.0f);
        }
}

static int setup(void **state) {
    (void)state;
    rng = sq_test_seed();
    tables = sq_test_all_tables();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(latent_attention_is_the_same_everywhere)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
