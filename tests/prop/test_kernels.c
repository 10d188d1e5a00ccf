/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels.c - matrices: every GEMM of every instruction set present has the bits of the scalar one, and
 * the scalar one agrees with a sum in double precision. Selection and its caps are tested here as well. */
#include "support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sq_test_tables tables;
static uint64_t rng;

/* ---- selection ------------------------------------------------------------------------------- */

static void no_entry_is_null(const sq_kernels *k) {
#define SQ_KERNEL(field, fn) assert_non_null(k->field);
#define SQ_KERNEL_SCALAR_ONLY(field, fn) assert_non_null(k->field);
#include "kernels/kernels.def"
#undef SQ_KERNEL
#undef SQ_KERNEL_SCALAR_ONLY
    assert_non_null(k->isa);
}

static void every_table_is_whole(void **state) {
    (void)state;
    for (int cap = 0; cap <= SQ_ISA_COUNT; cap++) {
        sq_kernels k;
        memset(&k, 0, sizeof k);
        sq_kernels_select(&k, sq_cpu_features(), (sq_isa)cap);
        no_entry_is_null(&k);
        memset(&k, 0, sizeof k);
        sq_kernels_select(&k, 0, (sq_isa)cap);
        no_entry_is_null(&k);
        assert_string_equal(k.isa, "scalar");
    }
}

static void a_cap_keeps_newer_kernels_out(void **state) {
    (void)state;
    sq_kernels none, capped, all;
    sq_kernels_select(&none, 0, SQ_ISA_COUNT);
    sq_kernels_select(&capped, sq_cpu_features(), SQ_ISA_SCALAR);
    assert_string_equal(capped.isa, "scalar");
    assert_ptr_equal(none.gemm_i4g64, capped.gemm_i4g64);
    sq_kernels_select(&all, sq_cpu_features(), SQ_ISA_COUNT);
    const uint32_t wide = SQ_CPU_AVX2 | SQ_CPU_AVX512 | SQ_CPU_NEON;
    if (sq_cpu_features() & wide) assert_string_not_equal(all.isa, "scalar");
}

static void isa_names_are_read(void **state) {
    (void)state;
    sq_isa isa;
    assert_true(sq_isa_from_name("scalar", &isa) && isa == SQ_ISA_SCALAR);
    assert_true(sq_isa_from_name("avx2", &isa) && isa == SQ_ISA_AVX2);
    assert_true(sq_isa_from_name("avx512", &isa) && isa == SQ_ISA_AVX512);
    assert_true(sq_isa_from_name("neon", &isa) && isa == SQ_ISA_NEON);
    assert_true(sq_isa_from_name("", &isa) && isa == SQ_ISA_COUNT);
    assert_true(sq_isa_from_name(NULL, &isa) && isa == SQ_ISA_COUNT);
    assert_false(sq_isa_from_name("avx", &isa));
    assert_false(sq_isa_from_name("AVX2", &isa));
}

/* ---- a matrix and its activations ------------------------------------------------------------ */

typedef struct {
    sq_test_moat wm, fm, qm, sm, xm, im, hm;
    sq_weight w;
    sq_act x;
} gemm_case;

typedef enum { RANDOM, HIGHEST, LOWEST, ZERO_SCALE } extreme; /* what codes and scales look like */

static void put_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

/* A finite scale; its sign varies, as MLX's do. */
static float random_scale(extreme e) { return e == ZERO_SCALE ? 0.0f : 0.02f * sq_test_float(&rng); }

/* 16 scales or biases as they are stored; those of padding rows are 0. */
static void put_halves(uint8_t *p, const sq_weight *w, int32_t n_rows, extreme e) {
    for (int32_t r = 0; r < 16; r++)
        put_u16(p + 2 * r, sq_scale_from_f32(w->scale_type, r < n_rows ? random_scale(e) : 0.0f));
}

static void fill_scales(uint8_t *tile, const sq_weight *w, int32_t n_rows, extreme e) {
    const sq_wtype_info *t = sq_wtype_get(w->wtype);
    uint8_t *tail = tile + (size_t)w->groups * (size_t)t->record_bytes;
    if (t->sub == 0) {
        for (int32_t r = 0; r < 16; r++) {
            const float s = r < n_rows ? random_scale(e) : 0.0f;
            memcpy(tail + 4 * r, &s, 4);
        }
        return;
    }
    const int32_t lines = SQ_GROUP / t->sub * (t->bias ? 2 : 1); /* of 16 halves, in a record or after all */
    for (int32_t g = 0; g < w->groups; g++)
        for (int32_t i = 0; i < lines; i++)
            put_halves(t->bias ? tile + (size_t)(g + 1) * (size_t)t->record_bytes - 32 * (lines - i)
                               : tail + 32 * (g * lines + i),
                       w, n_rows, e);
}

/* A byte of codes: any but the ones a type does not have, -128 and a ternary 3. */
static uint8_t random_codes(const sq_weight *w, extreme e) {
    const bool s8 = sq_wtype_get(w->wtype)->bits == 8, ternary = w->wtype == SQ_W_T2_ROW;
    uint8_t b = (uint8_t)sq_test_u32(&rng);
    if (s8 && b == 0x80) b = 0x81;
    if (ternary) b = (uint8_t)(b & ~(b >> 1 & 0x55)); /* 3 becomes 2 */
    if (e == HIGHEST) b = s8 ? 0x7f : ternary ? 0xaa : 0xff;
    if (e == LOWEST) b = s8 ? 0x81 : 0x00;
    return b;
}

static void fill_tile(uint8_t *tile, const sq_weight *w, int32_t n_rows, extreme e) {
    for (size_t i = 0; i < w->tile_bytes; i++) tile[i] = random_codes(w, e);
    fill_scales(tile, w, n_rows, e);
}

static void fill_rows(uint8_t *data, sq_wtype t, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float v = sq_test_float(&rng);
        if (t == SQ_W_F32) memcpy(data + 4 * i, &v, 4);
        else put_u16(data + 2 * i, t == SQ_W_F16 ? sq_f32_to_f16(v) : sq_f32_to_bf16(v));
    }
}

static void weight_new(gemm_case *c, sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, extreme e) {
    uint64_t bytes;
    assert_true(sq_weight_bytes(t, rows, cols, &bytes));
    const bool packed = sq_wtype_packed(t);
    const size_t misalign = packed ? 16 * (size_t)sq_test_below(&rng, 4) : (size_t)sq_test_below(&rng, 64);
    uint8_t *data = sq_test_moat_new(&c->wm, (size_t)bytes, misalign);
    c->w = sq_weight_make(t, st, rows, cols, data);
    if (!packed) {
        fill_rows(data, t, (size_t)rows * (size_t)cols);
        return;
    }
    for (int32_t tile = 0; tile < sq_weight_tiles(&c->w); tile++)
        fill_tile(data + (size_t)tile * c->w.tile_bytes, &c->w, rows - tile * 16, e);
}

static void act_new(gemm_case *c, int32_t m, int32_t cols, extreme e) {
    const int32_t groups = sq_div_up(cols, SQ_GROUP);
    const size_t ld = (size_t)groups * SQ_GROUP, n_groups = (size_t)m * (size_t)groups;
    float *f = sq_test_moat_new(&c->fm, (size_t)m * ld * 4, 4 * (size_t)sq_test_below(&rng, 16));
    int8_t *q = sq_test_moat_new(&c->qm, (size_t)m * ld, 0);
    float *scale = sq_test_moat_new(&c->sm, n_groups * 4, 4),
          *xsum = sq_test_moat_new(&c->xm, n_groups * 4, 8);
    int32_t *isum = sq_test_moat_new(&c->im, n_groups * 4, 12);
    int16_t *isum16 = sq_test_moat_new(&c->hm, n_groups * 8, 8);
    for (size_t i = 0; i < (size_t)m; i++) {
        for (size_t k = 0; k < ld; k++) {
            float v = sq_test_float(&rng);
            if (e == HIGHEST) v = 1.5f;
            if (e == LOWEST) v = -1.5f;
            f[i * ld + k] = k < (size_t)cols ? v : 0.0f;
        }
        const size_t g0 = i * (size_t)groups;
        tables.scalar.quant_q8g64(f + i * ld, 0, groups, q + i * ld, scale + g0, xsum + g0, isum + g0,
                                  isum16 + 4 * g0);
    }
    c->x = (sq_act){.m = m,
                    .cols = cols,
                    .groups = groups,
                    .f = f,
                    .q = q,
                    .scale = scale,
                    .xsum = xsum,
                    .isum = isum,
                    .isum16 = isum16};
}

static void case_free(gemm_case *c) {
    sq_test_moat *all[] = {&c->wm, &c->fm, &c->qm, &c->sm, &c->xm, &c->im, &c->hm};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_test_moat_free(all[i]);
}

/* Token i alone. */
static sq_act act_row(const sq_act *x, int32_t i) {
    const size_t ld = (size_t)x->groups * SQ_GROUP, g = (size_t)i * (size_t)x->groups;
    return (sq_act){.m = 1,
                    .cols = x->cols,
                    .groups = x->groups,
                    .f = x->f + (size_t)i * ld,
                    .q = x->q + (size_t)i * ld,
                    .scale = x->scale + g,
                    .xsum = x->xsum + g,
                    .isum = x->isum + g,
                    .isum16 = x->isum16 + 4 * g};
}

/* ---- the oracle ------------------------------------------------------------------------------ */

/* W[r] . x[i] in double, and the sum of magnitudes a rounding error is relative to. For packed types x is
 * what its codes say. Grouped like the kernel: the 64 products of a group are summed exactly there as here.
 */
static double dot_double(const gemm_case *c, const float *row, int32_t i, double *magnitude) {
    const sq_act x = act_row(&c->x, i);
    const bool packed = sq_wtype_wants_q8(c->w.wtype);
    double sum = 0;
    *magnitude = 0;
    for (int32_t k = 0; k < c->w.cols; k++) {
        const double xk = packed ? (double)x.scale[k / SQ_GROUP] * x.q[k] : (double)x.f[k];
        sum += (double)row[k] * xk;
        *magnitude += fabs((double)row[k] * xk);
    }
    return sum;
}

/* Float: cols / 16 fused steps and a tree of 4, each within 2^-24 of the magnitudes. Packed: 2 to 4 roundings
 * a group; code * scale + bias loses up to the size of the bias, at most 16 times what is left of the
 * weight after cancellation in these cases, and sq_weight_row rounds each weight once. */
static double tolerance(const gemm_case *c, double magnitude) {
    const double steps = sq_wtype_wants_q8(c->w.wtype) ? 8.0 * c->w.groups + 8 : c->w.cols / 16.0 + 6;
    const double cancel = sq_wtype_get(c->w.wtype)->bias ? 16 : 1;
    return 0x1p-24 * (steps * cancel) * (magnitude + 0.01) + 1e-30;
}

static void scalar_agrees_with_double(const gemm_case *c, const float *y, size_t ldy) {
    float row[1024];
    for (int32_t r = 0; r < c->w.rows; r++) {
        sq_weight_row(&c->w, r, row);
        for (int32_t i = 0; i < c->x.m; i++) {
            double magnitude;
            const double want = dot_double(c, row, i, &magnitude);
            const double got = (double)y[(size_t)i * ldy + (size_t)r];
            if (!(fabs(got - want) <= tolerance(c, magnitude)))
                fail_msg("%s %dx%d row %d token %d: %.9g, in double %.9g", sq_wtype_get(c->w.wtype)->name,
                         (int)c->w.rows, (int)c->w.cols, (int)r, (int)i, got, want);
        }
    }
}

/* ---- one case, all tables -------------------------------------------------------------------- */

typedef struct {
    sq_test_moat moat;
    float *y;
    size_t n;
} output;

static output output_new(const gemm_case *c, size_t ldy) {
    output o = {.n = (size_t)c->x.m * ldy};
    o.y = sq_test_moat_new(&o.moat, o.n * 4, 4);
    return o;
}

static void check_isa(const gemm_case *c, const sq_kernels *k, const output *want, size_t ldy) {
    sq_gemm_fn *gemm = sq_kernels_gemm(k, c->w.wtype);
    const char *name = sq_wtype_get(c->w.wtype)->name;
    const int32_t tiles = sq_weight_tiles(&c->w), cut = sq_test_below(&rng, tiles + 1);
    output whole = output_new(c, ldy), split = output_new(c, ldy), single = output_new(c, ldy);
    gemm(&c->w, 0, tiles, &c->x, whole.y, ldy);
    assert_true(sq_test_same(name, k->isa, want->y, whole.y, want->n));
    gemm(&c->w, cut, tiles, &c->x, split.y, ldy);
    gemm(&c->w, 0, cut, &c->x, split.y, ldy);
    assert_true(sq_test_same("tile range", k->isa, want->y, split.y, want->n));
    for (int32_t i = 0; i < c->x.m; i++) {
        const sq_act row = act_row(&c->x, i);
        gemm(&c->w, 0, tiles, &row, single.y + (size_t)i * ldy, ldy);
    }
    assert_true(sq_test_same("token alone", k->isa, want->y, single.y, want->n));
    sq_test_moat_free(&whole.moat);
    sq_test_moat_free(&split.moat);
    sq_test_moat_free(&single.moat);
}

static void check_gemm(sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, int32_t m, extreme e) {
    gemm_case c;
    if (sq_test_left_out()) return;
    weight_new(&c, t, st, rows, cols, e);
    act_new(&c, m, cols, e);
    const size_t ldy =
        (size_t)rows + 3; /* the gap keeps its 0xff, or sq_test_same sees it: NaN against a number */
    output want = output_new(&c, ldy);
    sq_kernels_gemm(&tables.scalar, t)(&c.w, 0, sq_weight_tiles(&c.w), &c.x, want.y, ldy);
    for (int32_t i = 0; i < m; i++) assert_true(isnan(want.y[(size_t)i * ldy + (size_t)rows]));
    scalar_agrees_with_double(&c, want.y, ldy);
    check_isa(&c, &tables.scalar, &want, ldy);
    for (int32_t i = 0; i < tables.n; i++) check_isa(&c, &tables.isa[i], &want, ldy);
    sq_test_moat_free(&want.moat);
    case_free(&c);
}

static const int32_t TOKENS[] = {1, 2, 3, 4, 5, 6, 8, 16, 17, 33, 37};

/* Every pair of odd sizes, each with one number of tokens in turn; then every number of tokens. */
static void check_type(sq_wtype t, sq_scale_type st) {
    size_t turn = 0;
    for (size_t r = 0; r < SQ_COUNT(sq_test_sizes); r++)
        for (size_t c = 0; c < SQ_COUNT(sq_test_sizes); c++) {
            if (sq_test_sizes[r] > 255 && sq_test_sizes[c] > 65) continue; /* 1023 x 1023 shows nothing new */
            check_gemm(t, st, sq_test_sizes[r], sq_test_sizes[c], TOKENS[turn++ % SQ_COUNT(TOKENS)], RANDOM);
        }
    for (int32_t m = 1; m <= 40; m++) check_gemm(t, st, 33, 129, m, RANDOM);
    for (int32_t m = 7; m <= 39; m += 4) check_gemm(t, st, 70, 1023, m, RANDOM); /* two chunks of columns */
}

static void check_extremes(sq_wtype t, sq_scale_type st) {
    for (int e = HIGHEST; e <= ZERO_SCALE; e++)
        for (size_t i = 0; i < SQ_COUNT(TOKENS); i++) check_gemm(t, st, 33, 255, TOKENS[i], (extreme)e);
}

static void f32_rows_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_F32, SQ_SCALE_F32);
}

static void f16_rows_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_F16, SQ_SCALE_F32);
}

static void bf16_rows_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_BF16, SQ_SCALE_F32);
}

static void int8_row_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I8_ROW, SQ_SCALE_F32);
    check_extremes(SQ_W_I8_ROW, SQ_SCALE_F32);
}

static void int8_g64_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I8_G64, SQ_SCALE_F16);
    check_extremes(SQ_W_I8_G64, SQ_SCALE_F16);
    check_extremes(SQ_W_I8_G64, SQ_SCALE_BF16);
}

static void int4_g64_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I4_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I4_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I4_G64, SQ_SCALE_F16);
}

static void int4_g32_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I4_G32, SQ_SCALE_BF16);
    check_extremes(SQ_W_I4_G32, SQ_SCALE_BF16);
    check_extremes(SQ_W_I4_G32, SQ_SCALE_F16);
}

static void int8_g32_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I8_G32, SQ_SCALE_BF16);
    check_extremes(SQ_W_I8_G32, SQ_SCALE_BF16);
    check_extremes(SQ_W_I8_G32, SQ_SCALE_F16);
}

static void int3_g64_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I3_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I3_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I3_G64, SQ_SCALE_F16);
}

static void int2_g64_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_I2_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I2_G64, SQ_SCALE_BF16);
    check_extremes(SQ_W_I2_G64, SQ_SCALE_F16);
}

static void ternary_tiles_have_one_sum(void **state) {
    (void)state;
    check_type(SQ_W_T2_ROW, SQ_SCALE_F32);
    check_extremes(SQ_W_T2_ROW, SQ_SCALE_F32);
}

static void a_broken_activation_is_not_hidden(void **state) {
    (void)state;
    const sq_wtype types[] = {SQ_W_F32, SQ_W_BF16, SQ_W_I8_ROW, SQ_W_I8_G64, SQ_W_I4_G64,
                              SQ_W_I4_G32, SQ_W_I8_G32, SQ_W_I3_G64, SQ_W_I2_G64, SQ_W_T2_ROW};
    for (size_t n = 0; n < SQ_COUNT(types); n++) {
        gemm_case c;
        const sq_scale_type st = sq_wtype_get(types[n])->halves ? SQ_SCALE_F16 : SQ_SCALE_F32;
        weight_new(&c, types[n], st, 16, 128, RANDOM);
        act_new(&c, 1, 128, RANDOM);
        float *f = (float *)(uintptr_t)c.x.f;
        f[70] = NAN;
        tables.scalar.quant_q8g64(f, 0, 2, (int8_t *)(uintptr_t)c.x.q, (float *)(uintptr_t)c.x.scale,
                                  (float *)(uintptr_t)c.x.xsum, (int32_t *)(uintptr_t)c.x.isum,
                                  (int16_t *)(uintptr_t)c.x.isum16);
        for (int32_t i = 0; i < tables.n; i++) {
            float y[16];
            sq_kernels_gemm(&tables.isa[i], types[n])(&c.w, 0, 1, &c.x, y, 16);
            for (int r = 0; r < 16; r++) assert_true(isnan(y[r]));
        }
        case_free(&c);
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
        cmocka_unit_test(every_table_is_whole),        cmocka_unit_test(a_cap_keeps_newer_kernels_out),
        cmocka_unit_test(isa_names_are_read),          cmocka_unit_test(f32_rows_have_one_sum),
        cmocka_unit_test(f16_rows_have_one_sum),       cmocka_unit_test(bf16_rows_have_one_sum),
        cmocka_unit_test(int8_row_tiles_have_one_sum), cmocka_unit_test(int8_g64_tiles_have_one_sum),
        cmocka_unit_test(int4_g64_tiles_have_one_sum), cmocka_unit_test(a_broken_activation_is_not_hidden),
        cmocka_unit_test(int4_g32_tiles_have_one_sum),
        cmocka_unit_test(int8_g32_tiles_have_one_sum),
        cmocka_unit_test(int3_g64_tiles_have_one_sum),
        cmocka_unit_test(int2_g64_tiles_have_one_sum),
        cmocka_unit_test(ternary_tiles_have_one_sum),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
