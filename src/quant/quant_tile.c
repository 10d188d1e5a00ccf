/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_tile.c - f32 rows into one row tile, or into rows of a floating-point type: the door to
 * quant_encode.h. */
#include "quant/quant_encode.h"

void sq_quant_tile(const sq_encoding *e, const float *w, size_t ld, int32_t n_rows, int32_t cols,
                   uint8_t *out) {
    encode_tile(e, SQ_W_F32, (const uint8_t *)w, ld * sizeof *w, n_rows, cols, out);
}
