/* SPDX-License-Identifier: Apache-2.0
 *
 * k_encode_neon.c - row tiles made with NEON: quant_encode.h and quant_compare.h compiled under this folder's
 * flags. The vectors there are the compiler's own; eight floats are two registers. */
#include "k_math_neon.h"

#include "quant/quant_compare.h"
#include "quant/quant_encode.h"

void sq_encode__neon(const sq_encoding *e, sq_wtype src, const uint8_t *rows, size_t row_bytes,
                     int32_t n_rows, int32_t cols, uint8_t *out) {
    encode_tile(e, src, rows, row_bytes, n_rows, cols, out);
}

void sq_compare__neon(const sq_weight *w, int32_t r, const float *row, float *back, sq_fidelity *f) {
    compare_row(w, r, row, back, f);
}
