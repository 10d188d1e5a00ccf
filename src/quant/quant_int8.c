/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_int8.c - symmetric 8-bit codes of a group or a row: the doors to quant_group.h. */
#include "quant/quant_group.h"

static void codes_of_row(const float *w, int32_t n, float scale, int8_t *codes) {
    for (int32_t i = 0; i < n; i += SQ_GROUP)
        int8_codes(w + i, n - i < SQ_GROUP ? n - i : SQ_GROUP, scale, (uint8_t *)codes + i);
}

void sq_quant_i8_g64(const float *w, int32_t n, sq_scale_type st, int8_t *codes, uint16_t *scale) {
    assert(n > 0 && n <= SQ_GROUP && st != SQ_SCALE_F32);
    *scale = int8_group_scale(max_abs(w, n, 0), st);
    codes_of_row(w, n, scale_value(st, *scale), codes);
}

void sq_quant_i8_row(const float *w, int32_t n, int8_t *codes, float *scale) {
    assert(n > 0);
    *scale = int8_row_scale(max_abs(w, n, 0));
    codes_of_row(w, n, *scale, codes);
}
