/* SPDX-License-Identifier: Apache-2.0
 *
 * k_table_avx512.c - what AVX-512 overrides: everything, but integer products only where VNNI is present;
 * without it those of AVX2 stay. */
#include "kernels/avx512/k_avx512.h"

void sq_kernels_avx512(sq_kernels *k, uint32_t features) {
    const sq_kernels before = *k;
#define SQ_KERNEL(field, fn) k->field = sq_##field##__avx512;
#include "kernels/kernels.def"
#undef SQ_KERNEL
    if (features & SQ_CPU_AVX512_VNNI) return;
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
    k->attn_codes = before.attn_codes;
    k->probe_dots = before.probe_dots;
}
