/* SPDX-License-Identifier: Apache-2.0
 *
 * k_foreign.h - weights of others on their way to the dot products: 16 rows by 256 columns, unpacked and
 * turned into the lines of T16x4 (quant.h). Each instruction set compiles it with its own flags.
 *
 * A panel is 4 KiB of codes and stays in the first cache level while all tokens of a call pass over it, so a
 * prompt pays for the unpacking once. */
#ifndef SQ_K_FOREIGN_H
#define SQ_K_FOREIGN_H

#include "kernels/kernels.h"

#include <string.h>

enum { SQ_PANEL_LINES = SQ_PANEL / 4, SQ_PANEL_RUNS = 16 };

/* Run s of line 4 (sub / 16) s on has scale[s] and bias[s], one of each a row. Rows past the matrix: codes,
 * scales and biases 0. */
typedef struct {
    _Alignas(64) int32_t line[SQ_PANEL_LINES][SQ_TILE_ROWS]; /* four s8 codes each */
    _Alignas(64) float scale[SQ_PANEL_RUNS][SQ_TILE_ROWS], bias[SQ_PANEL_RUNS][SQ_TILE_ROWS];
} sq_panel;

static inline void sq_panel_load(const sq_weight *w, const sq_wtype_info *t, int32_t tile, int32_t k0,
                                 sq_panel *p) {
    _Alignas(64) int32_t codes[SQ_TILE_ROWS][SQ_PANEL_LINES];
    float scale[SQ_PANEL_RUNS], bias[SQ_PANEL_RUNS] = {0};
    const int32_t row0 = tile * SQ_TILE_ROWS, runs = SQ_PANEL / t->sub;
    const int32_t n = w->rows - row0 < SQ_TILE_ROWS ? w->rows - row0 : SQ_TILE_ROWS;
    if (n < SQ_TILE_ROWS) memset(p, 0, sizeof *p), memset(codes, 0, sizeof codes);
    for (int32_t r = 0; r < n; r++) {
        sq_row_unpack(w, row0 + r, k0, (int8_t *)codes[r], scale, bias);
        for (int32_t s = 0; s < runs; s++) p->scale[s][r] = scale[s], p->bias[s][r] = bias[s];
    }
    for (int32_t l = 0; l < SQ_PANEL_LINES; l++)
        for (int32_t r = 0; r < SQ_TILE_ROWS; r++) p->line[l][r] = codes[r][l];
}

/* Sum of the n / 16 runs of 16 activation codes from column k of token i on. */
static inline int32_t sq_panel_sum(const sq_act *x, int32_t i, int32_t k, int32_t n) {
    const int16_t *p = x->isum16 + ((size_t)i * (size_t)x->groups * SQ_GROUP + (size_t)k) / 16;
    return n == 16 ? p[0] : p[0] + p[1];
}

#endif
