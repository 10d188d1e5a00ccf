/* SPDX-License-Identifier: Apache-2.0
 *
 * k_pq_scalar.c - nearest rows of codebooks (R10). */
#include "kernels/scalar/k_scalar.h"

#include <math.h>

static uint8_t nearest(const float *x, const float *book) {
    const float *half = book + SQ_PQ_DIMS * SQ_PQ_ROWS;
    float least = INFINITY;
    int32_t best = 0;
    for (int32_t c = 0; c < SQ_PQ_ROWS; c++) {
        float s = half[c];
        for (int32_t k = 0; k < SQ_PQ_DIMS; k++) s = fmaf(-x[k], book[k * SQ_PQ_ROWS + c], s);
        if (s < least) least = s, best = c;
    }
    return (uint8_t)best;
}

void sq_pq_nearest__scalar(const float *x, size_t stride, int32_t n, const float *book, uint8_t *code) {
    for (int32_t i = 0; i < n; i++) code[i] = nearest(x + (size_t)i * stride, book);
}
