/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_avx512.c - attention on codes (k_attn_codes.h) with VNNI. */
#include "kernels/avx512/k_softmax_avx512.h"

#define VNNI 1
#include "kernels/avx512/k_attn_codes.h"

void sq_attn_codes__avx512(const sq_attn_args *a) { attn_codes(a); }
