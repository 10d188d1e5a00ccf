/* SPDX-License-Identifier: Apache-2.0
 *
 * k_encode_avx512.c - row tiles made with AVX-512: quant_encode.h and quant_compare.h compiled under this
 * folder's flags. The vectors there are the compiler's own; eight floats are one register of 256 bits, of
 * which there are 32 here. One core of an AMD EPYC with AVX-512, bf16 rows, gcc 12: int8-row 4.2,
 * int8-g64 4.7, int4 rtn 2.6, int4 lsq 0.154 GB/s of source; the scalar kernel 2.3, 1.9, 1.25, 0.102. */
#include "kernels/avx512/k_avx512.h"

#include "quant/quant_compare.h"
#include "quant/quant_encode.h"

void sq_encode__avx512(const sq_encoding *e, sq_wtype src, const uint8_t *rows, size_t row_bytes,
                       int32_t n_rows, int32_t cols, uint8_t *out) {
    encode_tile(e, src, rows, row_bytes, n_rows, cols, out);
}

void sq_compare__avx512(const sq_weight *w, int32_t r, const float *row, float *back, sq_fidelity *f) {
    compare_row(w, r, row, back, f);
}
