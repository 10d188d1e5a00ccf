/* SPDX-License-Identifier: Apache-2.0
 *
 * k_table_neon.c - the NEON column of the kernel table: every entry of kernels.def, except that the integer
 * matrices and their probe keep what they had (the scalar kernels) on a CPU without the dot-product
 * instructions. */
#include "k_math_neon.h"

void sq_kernels_neon(sq_kernels *k, uint32_t features) {
    const sq_kernels before = *k;
#define SQ_KERNEL(field, fn) k->field = sq_##field##__neon;
#include "kernels/kernels.def"
#undef SQ_KERNEL
    if (features & SQ_CPU_DOTPROD) return;
    k->gemm_i8row = before.gemm_i8row;
    k->gemm_i8g64 = before.gemm_i8g64;
    k->gemm_i4g64 = before.gemm_i4g64;
    k->gemm_i4g32 = before.gemm_i4g32;
    k->gemm_i8g32 = before.gemm_i8g32;
    k->gemm_i3g64 = before.gemm_i3g64;
    k->gemm_i2g64 = before.gemm_i2g64;
    k->gemm_t2row = before.gemm_t2row;
    k->gemm_foreign = before.gemm_foreign;
    k->attn_sage = before.attn_sage;
    k->probe_dots = before.probe_dots;
}
