/* SPDX-License-Identifier: Apache-2.0
 *
 * k_table_scalar.c - fills the whole table: the scalar folder has every kernel, so no entry is ever NULL. */
#include "kernels/scalar/k_scalar.h"

void sq_kernels_scalar(sq_kernels *k) {
#define SQ_KERNEL(field, fn) k->field = sq_##field##__scalar;
#define SQ_KERNEL_SCALAR_ONLY SQ_KERNEL
#include "kernels/kernels.def"
#undef SQ_KERNEL_SCALAR_ONLY
#undef SQ_KERNEL
}
