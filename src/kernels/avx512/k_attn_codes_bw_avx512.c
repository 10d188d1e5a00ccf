/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_bw_avx512.c - attention on codes (k_attn_codes.h) with AVX-512BW and no VNNI. */
#include "kernels/avx512/k_softmax_avx512.h"

#define VNNI 0
#include "kernels/avx512/k_attn_codes.h"

void sq_attn_codes__avx512bw(const sq_attn_args *a) { attn_codes(a); }
