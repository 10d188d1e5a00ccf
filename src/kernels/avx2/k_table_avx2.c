/* SPDX-License-Identifier: Apache-2.0
 *
 * k_table_avx2.c - the AVX2 column of the kernel table: every entry of kernels.def. */
#include "k_math_avx2.h"

void sq_kernels_avx2(sq_kernels *k) {
#define SQ_KERNEL(field, fn) k->field = sq_##field##__avx2;
#include "kernels/kernels.def"
#undef SQ_KERNEL
}
