/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.h - what the kernel tests share: random numbers with a printed seed, memory between moats, the
 * odd sizes, and the table of every instruction set this machine has. */
#ifndef SQ_TEST_KERNEL_CASES_H
#define SQ_TEST_KERNEL_CASES_H

#include "kernels/kernels.h"

/* Sizes that end before, on and after every register, line and group. */
extern const int32_t sq_test_sizes[16]; /* 1 .. 1023 */

/* ---- random numbers -------------------------------------------------------------------------- */

/* One stream per test program: from $SQUISH_TEST_SEED or a constant; printed once. */
uint64_t sq_test_seed(void);
uint32_t sq_test_u32(uint64_t *rng);
int32_t sq_test_below(uint64_t *rng, int32_t n); /* [0, n) */
float sq_test_float(uint64_t *rng);              /* about normal, sd 1 */

/* ---- memory between moats -------------------------------------------------------------------- */

/* A block whose first byte lies `misalign` bytes past a multiple of 64, with 256 bytes of 0xff on both sides:
 * a NaN as f32, f16 and bf16, so that reading past an edge spoils a sum, and writing past it is seen by
 * sq_test_moat_ok. */
typedef struct {
    uint8_t *raw;
    size_t bytes, misalign;
} sq_test_moat;
void *sq_test_moat_new(sq_test_moat *m, size_t bytes, size_t misalign); /* the block, also filled with 0xff */
bool sq_test_moat_ok(const sq_test_moat *m);
void sq_test_moat_free(sq_test_moat *m); /* asserts that the moats are whole */

/* ---- comparing ------------------------------------------------------------------------------- */

/* Same bits, where all NaNs count as one. Prints the first difference. */
bool sq_test_same(const char *what, const char *isa, const float *want, const float *got, size_t n);

/* ---- tables ---------------------------------------------------------------------------------- */

typedef struct {
    sq_kernels scalar, isa[6];
    int32_t n;
} sq_test_tables;

/* The scalar table and one for every other set of kernels this machine can run: each cap, and each optional
 * extension taken away. */
static inline sq_test_tables sq_test_all_tables(void) {
    static const struct {
        sq_isa cap;
        uint32_t needs, without;
    } wanted[] = {
        {SQ_ISA_AVX2, SQ_CPU_AVX2, 0},
        {SQ_ISA_AVX512, SQ_CPU_AVX512, SQ_CPU_AVX512_VNNI},
        {SQ_ISA_AVX512, SQ_CPU_AVX512 | SQ_CPU_AVX512_VNNI, 0},
        {SQ_ISA_NEON, SQ_CPU_NEON, SQ_CPU_DOTPROD | SQ_CPU_I8MM | SQ_CPU_FP16},
        {SQ_ISA_NEON, SQ_CPU_NEON | SQ_CPU_DOTPROD, 0},
    };
    sq_test_tables t = {.n = 0};
    const uint32_t have = sq_cpu_features();
    sq_kernels_select(&t.scalar, have, SQ_ISA_SCALAR);
    for (size_t i = 0; i < SQ_COUNT(wanted); i++)
        if ((have & wanted[i].needs) == wanted[i].needs)
            sq_kernels_select(&t.isa[t.n++], have & ~wanted[i].without, wanted[i].cap);
    return t;
}

/* SQUISH_SAMPLE=N: every Nth case alone (under sanitizers and emulators). */
bool sq_test_left_out(void);

#endif
