/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_rows.c - the row kernels of every instruction set: int8 rounding, norm, rotation, sums and
 * gates. Same bits as scalar; scalar against double precision. And the probes of the bench. */
#include "support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sq_test_tables tables;
static uint64_t rng;

/* n floats between moats; filled at random. */
static float *floats(sq_test_moat *m, size_t n) {
    float *p = sq_test_moat_new(m, n * 4, 4 * (size_t)sq_test_below(&rng, 16));
    for (size_t i = 0; i < n; i++) p[i] = sq_test_float(&rng);
    return p;
}

static void near(double want, float got, double tolerance, const char *what, int32_t i) {
    if (!(fabs((double)got - want) <= tolerance))
        fail_msg("%s, element %d: %.9g, in double %.9g, allowed %.3g", what, (int)i, (double)got, want,
                 tolerance);
}

/* ---- int8 activations ------------------------------------------------------------------------ */

enum { QUANT_GROUPS = 24 };

typedef struct {
    int8_t q[QUANT_GROUPS * SQ_GROUP];
    float scale[QUANT_GROUPS], xsum[QUANT_GROUPS];
    int32_t isum[QUANT_GROUPS];
    int16_t isum16[QUANT_GROUPS * 4];
} quantised;

static void quantise(const sq_kernels *k, const float *x, int32_t g0, int32_t g1, quantised *out) {
    memset(out, 0x55, sizeof *out);
    k->quant_q8g64(x, g0, g1, out->q, out->scale, out->xsum, out->isum, out->isum16);
}

/* Groups of every kind: random at many magnitudes, silence, the edge of 2^-100, ties, the largest number, and
 * those that no code can express. */
static void fill_groups(float *x) {
    static const float peaks[] = {
        0.0f,     0x1p-149f, 0x1p-126f, 0x1.fffffep-101f, 0x1p-100f, 0x1.fffffep+127f, 127.0f,
        INFINITY, -INFINITY, NAN,       -0x1p-110f,       -3.0f};
    for (int32_t g = 0; g < QUANT_GROUPS; g++) {
        const float size = ldexpf(1.0f, sq_test_below(&rng, 60) - 30);
        float *p = x + g * SQ_GROUP;
        const bool special = g < (int32_t)SQ_COUNT(peaks);
        for (int32_t k = 0; k < SQ_GROUP; k++) p[k] = special ? 0.0f : size * sq_test_float(&rng);
        if (special) p[sq_test_below(&rng, SQ_GROUP)] = peaks[g];
        if (special && peaks[g] == 127.0f)
            for (int32_t k = 0; k < SQ_GROUP - 1; k++) p[k] = (float)(k - 32) + 0.5f; /* ties go to even */
    }
}

static void quantised_groups_are_the_same_everywhere(void **state) {
    (void)state;
    sq_test_moat m;
    float *x = floats(&m, QUANT_GROUPS * SQ_GROUP);
    for (int repeat = 0; repeat < 200; repeat++) {
        static quantised want, got;
        fill_groups(x);
        const int32_t g0 = sq_test_below(&rng, QUANT_GROUPS),
                      g1 = g0 + sq_test_below(&rng, QUANT_GROUPS - g0 + 1);
        quantise(&tables.scalar, x, g0, g1, &want);
        for (int32_t i = 0; i < tables.n; i++) {
            quantise(&tables.isa[i], x, g0, g1, &got);
            assert_memory_equal(want.q, got.q, sizeof got.q);
            assert_memory_equal(want.isum, got.isum, sizeof got.isum);
            assert_memory_equal(want.isum16, got.isum16, sizeof got.isum16);
            assert_true(sq_test_same("scale", tables.isa[i].isa, want.scale, got.scale, QUANT_GROUPS));
            assert_true(sq_test_same("xsum", tables.isa[i].isa, want.xsum, got.xsum, QUANT_GROUPS));
        }
    }
    sq_test_moat_free(&m);
}

static void codes_of_a_group_are_the_nearest(const float *x, const int8_t *q, float scale, int32_t isum) {
    int32_t sum = 0, most = 0;
    float a = 0.0f;
    bool finite = true;
    for (int32_t k = 0; k < SQ_GROUP; k++) {
        sum += q[k];
        most = abs(q[k]) > most ? abs(q[k]) : most;
        a = fmaxf(a, fabsf(x[k]));
        finite = finite && isfinite(x[k]);
    }
    assert_int_equal(isum, sum);
    if (!finite || a < 0x1p-100f) {
        assert_int_equal(most, 0);
        assert_true(finite ? scale == 0.0f : isnan(scale));
        return;
    }
    assert_true(most == 127 && scale == a / 127.0f);
    for (int32_t k = 0; k < SQ_GROUP; k++) near((double)x[k] / (double)scale, q[k], 0.50001, "code", k);
}

static void codes_are_the_nearest(void **state) {
    (void)state;
    float x[QUANT_GROUPS * SQ_GROUP];
    static quantised out;
    fill_groups(x);
    quantise(&tables.scalar, x, 0, QUANT_GROUPS, &out);
    for (int32_t g = 0; g < QUANT_GROUPS; g++)
        codes_of_a_group_are_the_nearest(x + g * SQ_GROUP, out.q + g * SQ_GROUP, out.scale[g], out.isum[g]);
}

/* ---- norm, rotation, sum --------------------------------------------------------------------- */

static void rmsnorm_case(int32_t n, float eps) {
    sq_test_moat mx, mw, my, mz;
    float *x = floats(&mx, (size_t)n), *w = floats(&mw, (size_t)n);
    float *want = floats(&my, (size_t)n), *got = floats(&mz, (size_t)n);
    tables.scalar.rmsnorm(x, w, n, eps, want);
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    const double r = 1 / sqrt(sum / n + (double)eps);
    for (int32_t i = 0; i < n; i++) { /* half the error of the sum, and six roundings */
        const double y = (double)x[i] * r * w[i];
        near(y, want[i], fabs(y) * 0x1p-24 * (n / 32.0 + 9), "rmsnorm", i);
    }
    for (int32_t i = 0; i < tables.n; i++) {
        tables.isa[i].rmsnorm(x, w, n, eps, got);
        assert_true(sq_test_same("rmsnorm", tables.isa[i].isa, want, got, (size_t)n));
        memcpy(got, x, (size_t)n * 4);
        tables.isa[i].rmsnorm(got, w, n, eps, got);
        assert_true(sq_test_same("rmsnorm in place", tables.isa[i].isa, want, got, (size_t)n));
    }
    sq_test_moat_free(&mx);
    sq_test_moat_free(&mw);
    sq_test_moat_free(&my);
    sq_test_moat_free(&mz);
}

static void rmsnorm_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++)
        for (int repeat = 0; repeat < 8; repeat++) rmsnorm_case(sq_test_sizes[i], repeat ? 1e-6f : 0.5f);
}

static void rope_case(bool pairs, int32_t half) {
    sq_test_moat mx, mc, ms, mw, mg;
    const size_t n = 2 * (size_t)half;
    float *x = floats(&mx, n), *c = floats(&mc, (size_t)half), *s = floats(&ms, (size_t)half);
    float *want = floats(&mw, n), *got = floats(&mg, n);
    for (int32_t i = 0; i < half; i++) {
        const double angle = sq_test_float(&rng) * 100.0;
        c[i] = (float)cos(angle);
        s[i] = (float)sin(angle);
    }
    memcpy(want, x, n * 4);
    (pairs ? tables.scalar.rope_pairs : tables.scalar.rope)(want, c, s, half);
    for (int32_t i = 0; i < half; i++) {
        const int32_t first = pairs ? 2 * i : i, second = pairs ? 2 * i + 1 : i + half;
        const double a = (double)x[first], b = (double)x[second], size = fabs(a) + fabs(b);
        near(a * c[i] - b * s[i], want[first], size * 0x1p-23, "rope", first);
        near(b * c[i] + a * s[i], want[second], size * 0x1p-23, "rope", second);
    }
    for (int32_t i = 0; i < tables.n; i++) {
        memcpy(got, x, n * 4);
        (pairs ? tables.isa[i].rope_pairs : tables.isa[i].rope)(got, c, s, half);
        assert_true(sq_test_same("rope", tables.isa[i].isa, want, got, n));
    }
    sq_test_moat *all[] = {&mx, &mc, &ms, &mw, &mg};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_test_moat_free(all[i]);
}

static void rope_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++) rope_case(false, sq_test_sizes[i]);
}

static void rope_of_pairs_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++) rope_case(true, sq_test_sizes[i]);
}

static void add_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t s = 0; s < SQ_COUNT(sq_test_sizes); s++) {
        const int32_t n = sq_test_sizes[s];
        sq_test_moat mx, my, mg;
        float *x = floats(&mx, (size_t)n), *y = floats(&my, (size_t)n), *got = floats(&mg, (size_t)n);
        for (int32_t k = -1; k < tables.n; k++) {
            memcpy(got, x, (size_t)n * 4);
            (k < 0 ? &tables.scalar : &tables.isa[k])->add(got, y, n);
            for (int32_t i = 0; i < n; i++) assert_true(got[i] == x[i] + y[i]);
        }
        sq_test_moat_free(&mx);
        sq_test_moat_free(&my);
        sq_test_moat_free(&mg);
    }
}

/* ---- gates ----------------------------------------------------------------------------------- */

static double silu_double(double g) { return g / (1 + exp(-g)); }

static double gelu_double(double g) {
    const double z = 0.79788456080286535588 * (g + 0.044715 * g * g * g);
    return g / (1 + exp(-2 * z)); /* 0.5 g (1 + tanh z) without its cancellation */
}

/* exp is good to 1.5 ulp, the argument to one more (times its own size: e^z loses |z| ulps of z, for gelu
 * twice), three roundings after it. Below e^-88 the gate gives up to |g| 2^-126 instead of less. */
static double gate_tolerance(double want, float g) {
    const double z = fabs((double)g) * (1 + 0.05 * (double)g * (double)g);
    return fabs(want) * 0x1p-24 * (16 + 16 * fmin(z, 90)) + 1e-36 + fabs((double)g) * 0x1p-126;
}

static void gate_case(bool gelu, int32_t n) {
    static const float edges[] = {0.0f,   -0.0f,   87.0f,  -87.0f,  -87.1f, 88.0f,  88.1f, -88.5f,
                                  200.0f, -200.0f, 1e-30f, -1e-40f, 1e10f,  -1e10f, 6.5f,  -6.5f};
    sq_test_moat mg, mu, mw, mh;
    float *g = floats(&mg, (size_t)n), *u = floats(&mu, (size_t)n);
    float *want = floats(&mw, (size_t)n), *got = floats(&mh, (size_t)n);
    for (int32_t i = 0; i < n; i++) {
        g[i] *= (float)(1 << sq_test_below(&rng, 6));
        if (sq_test_below(&rng, 4) == 0) g[i] = edges[sq_test_below(&rng, SQ_COUNT(edges))];
    }
    (gelu ? tables.scalar.gelu_mul : tables.scalar.silu_mul)(g, u, n, want);
    for (int32_t i = 0; i < n; i++) {
        const double act = gelu ? gelu_double((double)g[i]) : silu_double((double)g[i]);
        near(act * u[i], want[i], gate_tolerance(act, g[i]) * (fabs((double)u[i]) + 1e-6), "gate", i);
    }
    for (int32_t k = 0; k < tables.n; k++) {
        sq_glu_fn *fn = gelu ? tables.isa[k].gelu_mul : tables.isa[k].silu_mul;
        fn(g, u, n, got);
        assert_true(sq_test_same("gate", tables.isa[k].isa, want, got, (size_t)n));
        memcpy(got, g, (size_t)n * 4);
        fn(got, u, n, got);
        assert_true(sq_test_same("gate in place", tables.isa[k].isa, want, got, (size_t)n));
    }
    sq_test_moat *all[] = {&mg, &mu, &mw, &mh};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_test_moat_free(all[i]);
}

static void silu_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++)
        for (int repeat = 0; repeat < 20; repeat++) gate_case(false, sq_test_sizes[i]);
}

static void gelu_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++)
        for (int repeat = 0; repeat < 20; repeat++) gate_case(true, sq_test_sizes[i]);
}

static void relu2_case(int32_t n) {
    static const float edges[] = {0.0f, -0.0f, NAN, INFINITY, -INFINITY, 1e-30f, -1e-30f, 1e30f};
    sq_test_moat mg, mu, mh;
    float *g = floats(&mg, (size_t)n), *u = floats(&mu, (size_t)n), *got = floats(&mh, (size_t)n);
    for (int32_t i = 0; i < n; i++)
        if (sq_test_below(&rng, 4) == 0) g[i] = edges[sq_test_below(&rng, SQ_COUNT(edges))];
    for (int32_t k = -1; k < tables.n; k++) {
        const sq_kernels *t = k < 0 ? &tables.scalar : &tables.isa[k];
        t->relu2_mul(g, u, n, got);
        for (int32_t i = 0; i < n; i++) {
            const float r = g[i] > 0.0f ? g[i] : 0.0f, want = (r * r) * u[i];
            assert_true(sq_test_same("relu2", t->isa, &want, &got[i], 1));
        }
    }
    sq_test_moat_free(&mg);
    sq_test_moat_free(&mu);
    sq_test_moat_free(&mh);
}

static void relu2_is_the_same_everywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(sq_test_sizes); i++)
        for (int repeat = 0; repeat < 20; repeat++) relu2_case(sq_test_sizes[i]);
}

static void a_gate_passes_nan_on(void **state) {
    (void)state;
    const float g[2] = {NAN, 1.0f}, u[2] = {1.0f, NAN};
    for (int32_t k = -1; k < tables.n; k++) {
        const sq_kernels *t = k < 0 ? &tables.scalar : &tables.isa[k];
        float h[2];
        t->silu_mul(g, u, 2, h);
        assert_true(isnan(h[0]) && isnan(h[1]));
        t->gelu_mul(g, u, 2, h);
        assert_true(isnan(h[0]) && isnan(h[1]));
    }
}

/* ---- probes ---------------------------------------------------------------------------------- */

static void probes_do_what_they_say(void **state) {
    (void)state;
    enum { BYTES = 4096, ROUNDS = 1000 };
    sq_test_moat m;
    uint64_t *words = sq_test_moat_new(&m, BYTES, 0), want = 0;
    uint8_t w[64];
    int8_t x[64];
    int32_t dot = 0;
    float acc = 0;
    for (int i = 0; i < BYTES / 8; i++) {
        words[i] = (uint64_t)sq_test_u32(&rng) << 32 | sq_test_u32(&rng);
        want ^= words[i];
    }
    for (int i = 0; i < 64; i++) {
        w[i] = (uint8_t)sq_test_below(&rng, 128);
        x[i] = (int8_t)(sq_test_below(&rng, 255) - 127);
        dot += w[i] * x[i];
    }
    for (int i = 0; i < ROUNDS; i++) acc = fmaf(acc, 0.75f, 1.5f);
    for (int32_t i = -1; i < tables.n; i++) {
        const sq_kernels *k = i < 0 ? &tables.scalar : &tables.isa[i];
        int32_t sum = 0;
        float f = 0;
        assert_true(k->probe_read(words, BYTES) == want);
        assert_true(k->probe_dots(ROUNDS, w, x, &sum) % (ROUNDS * 2 * 16) == 0);
        assert_int_equal(sum, ROUNDS * dot);
        assert_true(k->probe_fma(ROUNDS, 0.75f, 1.5f, &f) >= ROUNDS * 2);
        assert_true(f == acc);
    }
    sq_test_moat_free(&m);
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
        cmocka_unit_test(quantised_groups_are_the_same_everywhere),
        cmocka_unit_test(codes_are_the_nearest),
        cmocka_unit_test(rmsnorm_is_the_same_everywhere),
        cmocka_unit_test(rope_is_the_same_everywhere),
        cmocka_unit_test(rope_of_pairs_is_the_same_everywhere),
        cmocka_unit_test(add_is_the_same_everywhere),
        cmocka_unit_test(silu_is_the_same_everywhere),
        cmocka_unit_test(gelu_is_the_same_everywhere),
        cmocka_unit_test(relu2_is_the_same_everywhere),
        cmocka_unit_test(a_gate_passes_nan_on),
        cmocka_unit_test(probes_do_what_they_say),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
