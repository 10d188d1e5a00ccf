/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_affine.c - affine groups of 2, 3 and 4 bits, and ternary codes: the doors to quant_group.h, where the
 * methods are told. */
#include "quant/quant_group.h"

void sq_quant_affine(int32_t bits, sq_quant_method m, const float *w, const float *importance, int32_t n,
                     sq_scale_type st, uint8_t *codes, uint16_t *scale, uint16_t *bias) {
    group_affine(bits, m, w, importance, n, st, codes, scale, bias);
}

void sq_quant_i4_rtn(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias) {
    sq_quant_affine(4, SQ_QUANT_RTN, w, NULL, n, st, codes, scale, bias);
}

void sq_quant_i4_lsq(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias) {
    sq_quant_affine(4, SQ_QUANT_LSQ, w, NULL, n, st, codes, scale, bias);
}

void sq_quant_ternary(const float *w, int32_t n, float gamma, uint8_t *codes) {
    for (int32_t i = 0; i < n; i += SQ_GROUP)
        ternary_codes(w + i, n - i < SQ_GROUP ? n - i : SQ_GROUP, gamma, codes + i);
}
