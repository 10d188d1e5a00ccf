/* SPDX-License-Identifier: Apache-2.0
 *
 * k_foreign.h - weights of others on their way to the dot products: 16 rows by 256 columns as lines of T16x4
 * (quant.h). Each instruction set compiles it with its own flags.
 *
 * A panel is 4 KiB of codes and stays in the first cache level while all tokens of a call pass over it, so a
 * prompt pays for the unpacking once. k_unpack.h fills it. */
#ifndef SQ_K_FOREIGN_H
#define SQ_K_FOREIGN_H

#include "kernels/kernels.h"

enum { SQ_PANEL_LINES = SQ_PANEL / 4, SQ_PANEL_RUNS = 16 };

/* The lines of run s have scale[s] and bias[s], one of each a row. value = scale * (code - zero) + bias. Rows
 * past the matrix and runs past its columns: scales and biases 0. */
typedef struct {
    _Alignas(64) uint32_t line[SQ_PANEL_LINES][SQ_TILE_ROWS]; /* four codes each */
    _Alignas(64) float scale[SQ_PANEL_RUNS][SQ_TILE_ROWS], bias[SQ_PANEL_RUNS][SQ_TILE_ROWS];
} sq_panel;

/* What is subtracted from codes; 8-bit codes are s8 of their own and `zero8` above that. */
static inline int32_t sq_panel_zero(const sq_weight *w, int32_t zero8) {
    switch (w->wtype) {
    case SQ_W_Q4_0: return 8;
    case SQ_W_Q5_0: return 16;
    case SQ_W_Q3_K: return 4;
    case SQ_W_Q6_K: return 32;
    case SQ_W_TQ1_0:
    case SQ_W_TQ2_0: return 1;
    case SQ_W_Q8_0: return zero8;
    case SQ_W_AFFINE: return w->bits == 8 ? zero8 : w->coding == SQ_CODES_MINUS7 ? 7 : 0;
    default: return 0;
    }
}

/* Where products of codes and activations are summed in 16 bits (vpmaddubsw): lines of a panel that fit
 * together, by the largest code there is: 15, 63, or a whole byte, which needs its sign besides. */
enum { SQ_FIT_4 = 8, SQ_FIT_6 = 2, SQ_FIT_8 = 1 };
_Static_assert(SQ_FIT_4 * 2 * 127 * 15 <= INT16_MAX && SQ_FIT_6 * 2 * 127 * 63 <= INT16_MAX, "no saturation");

static inline int32_t sq_panel_fit(const sq_weight *w, const sq_wtype_info *t) {
    const int32_t bits = t->bits ? t->bits : w->bits;
    return bits > 6 ? SQ_FIT_8 : bits > 4 ? SQ_FIT_6 : SQ_FIT_4;
}

/* Sum of the n / 16 runs of 16 activation codes from column k of token i on. */
static inline int32_t sq_panel_sum(const sq_act *x, int32_t i, int32_t k, int32_t n) {
    const int16_t *p = x->isum16 + ((size_t)i * (size_t)x->groups * SQ_GROUP + (size_t)k) / 16;
    return n == 16 ? p[0] : p[0] + p[1];
}

#endif
