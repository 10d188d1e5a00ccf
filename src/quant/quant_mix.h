/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_mix.h - key tiles whose channels have bits of their own (MixKVQ, Zhang et al., arXiv:2512.19206):
 * those that weigh most in f16, the next in 4 bits, the rest in 2.
 *
 *   order [d] u8 | high: [n][32] f16 | mid: a K tile of Q4 | low: a K tile of Q2      each part padded to 64
 *
 * order[i] is the channel that stands at place i: first all of high, then mid, then low. mid is stored as a
 * multiple of 4 channels, low as one of 8; places added are of no channel. A tile says for itself which
 * channels are which, so that nothing but the tile is needed to read it. Counts follow from d alone.
 *
 *            high       mid        low          bytes at d = 128 (Q4: 2432, Q2: 1408)   code bits
 *   MIX      3/32 d     13/32 d    d/2          2624                                    4.125
 *   LEAN     1/32 d     3/32 d     7/8 d        1856                                    2.625 */
#ifndef SQ_QUANT_MIX_H
#define SQ_QUANT_MIX_H

#include "quant/quant_kv.h"

enum {
    SQ_KV_MIX = SQ_KV_FORMATS, /* stands where a sq_kv_format of keys does */
    SQ_KV_LEAN,
    SQ_MIX_D_MAX = 256
};

typedef struct {
    int32_t high, mid, low;
} sq_mix_classes;
static inline sq_mix_classes sq_mix_classes_of(int32_t f, int32_t d) {
    const bool lean = f == SQ_KV_LEAN;
    const int32_t low = (lean ? d * 7 / 8 : d / 2) / 8 * 8, high = (lean ? d : 3 * d) / 32;
    return (sq_mix_classes){high, d - low - high, low};
}
static inline bool sq_is_mix(int32_t f) { return f == SQ_KV_MIX || f == SQ_KV_LEAN; }

/* Where the parts of a tile begin, and its end. */
typedef struct {
    size_t high, mid, low, bytes;
    int32_t mid_d, low_d; /* channels as stored */
} sq_mix_places;
static inline sq_mix_places sq_mix_places_of(int32_t f, int32_t d) {
    const sq_mix_classes c = sq_mix_classes_of(f, d);
    sq_mix_places p = {
        .high = sq_align_up((size_t)d, 64), .mid_d = (c.mid + 3) / 4 * 4, .low_d = (c.low + 7) / 8 * 8};
    p.mid = p.high + (size_t)c.high * SQ_KV_TILE * 2;
    p.low = p.mid + sq_align_up(sq_kv_k_bytes(SQ_KV_Q4, p.mid_d), 64);
    p.bytes = p.low + sq_align_up(sq_kv_k_bytes(SQ_KV_Q2, p.low_d), 64);
    return p;
}
/* Bytes of a key tile of any format. */
static inline size_t sq_kv_key_bytes(int32_t f, int32_t d) {
    return sq_is_mix(f) ? sq_mix_places_of(f, d).bytes : sq_kv_k_bytes((sq_kv_format)f, d);
}

#endif
