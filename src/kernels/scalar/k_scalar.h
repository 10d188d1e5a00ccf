/* SPDX-License-Identifier: Apache-2.0
 *
 * k_scalar.h - declares every kernel of the scalar folder, sq_<field>__scalar, from the one list. */
#ifndef SQ_K_SCALAR_H
#define SQ_K_SCALAR_H

#include "kernels/kernels.h"

#define SQ_KERNEL(field, fn) fn sq_##field##__scalar;
#define SQ_KERNEL_SCALAR_ONLY SQ_KERNEL
#include "kernels/kernels.def"
#undef SQ_KERNEL_SCALAR_ONLY
#undef SQ_KERNEL

#endif
