/* SPDX-License-Identifier: Apache-2.0
 *
 * k_encode_scalar.c - row tiles made on any CPU: quant_encode.h and quant_compare.h compiled under this
 * folder's flags. */
#include "kernels/scalar/k_scalar.h"

#include "quant/quant_compare.h"
#include "quant/quant_encode.h"

void sq_encode__scalar(const sq_encoding *e, sq_wtype src, const uint8_t *rows, size_t row_bytes,
                       int32_t n_rows, int32_t cols, uint8_t *out) {
    encode_tile(e, src, rows, row_bytes, n_rows, cols, out);
}

void sq_compare__scalar(const sq_weight *w, int32_t r, const float *row, float *back, sq_fidelity *f) {
    compare_row(w, r, row, back, f);
}
