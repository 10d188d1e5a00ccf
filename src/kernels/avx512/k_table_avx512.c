/* SPDX-License-Identifier: Apache-2.0
 *
 * k_table_avx512.c - what AVX-512 overrides: everything. Integer products without VNNI are others, or stay
 * those of AVX2. */
#include "kernels/avx512/k_avx512.h"

void sq_kernels_avx512(sq_kernels *k, uint32_t features) {
    sq_attn_fn *const sage = k->attn_sage;
#define SQ_KERNEL(field, fn) k->field = sq_##field##__avx512;
#include "kernels/kernels.def"
#undef SQ_KERNEL
    if (features & SQ_CPU_AVX512_VNNI) return;
#define BW(field, fn) k->field = sq_##field##__avx512bw;
    SQ_TWICE(BW)
#undef BW
    k->attn_sage = sage;
}
