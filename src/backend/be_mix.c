/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mix.c - keys with bits by channel: what queries weigh, which channels get the bits, making such tiles
 * and reading them.
 *
 * The error of a score is the sum over channels of q times the error of the key there, so a channel deserves
 * bits where |q| is large and its step is. |q| is a running mean of the sequence's own queries, over the
 * heads that share keys and over the two channels that rotation turns into each other; the step is the range
 * of the channel in the very tile that is made.
 *
 * Such tiles are read through one of 8 bits per channel, made anew for every pass: the kernels of sealed
 * tiles then do the rest. That costs more than it saves in traffic (docs/kv.md has the figures). */
#include "backend/be_int.h"
#include "quant/quant_vec.h"

#include <math.h>
#include <string.h>

static const float FADES = 0.99f; /* of the running mean, a step */

/* ---- what queries weigh ---------------------------------------------------------------------- */

enum { LANES = 16 };

/* w[c] += (mean of |q| over the group - w[c]) * (1 - FADES) for LANES channels of one head of keys. */
static void weigh_lanes(const float *q, int32_t group, int32_t d, float *w) {
    f4 sum[LANES / 4] = {{0}};
    for (int32_t g = 0; g < group; g++, q += d) {
        sum[0] += (f4)((i4)f4_load(q) & INT32_MAX);
        sum[1] += (f4)((i4)f4_load(q + 4) & INT32_MAX);
        sum[2] += (f4)((i4)f4_load(q + 8) & INT32_MAX);
        sum[3] += (f4)((i4)f4_load(q + 12) & INT32_MAX);
    }
    const float part = (1.0f - FADES) / (float)group;
    for (int32_t i = 0; i < LANES / 4; i++) {
        const f4 now = f4_load(w + 4 * i) * FADES + sum[i] * part;
        memcpy(w + 4 * i, &now, sizeof now);
    }
}

static void weigh_row(const float *q, int32_t group, int32_t d, float *w) {
    int32_t c = 0;
    for (; c + LANES <= d; c += LANES) weigh_lanes(q + c, group, d, w + c);
    for (; c < d; c++) {
        float sum = 0.0f;
        for (int32_t g = 0; g < group; g++) sum += fabsf(q[g * d + c]);
        w[c] = w[c] * FADES + sum * ((1.0f - FADES) / (float)group);
    }
}

void sq_be_attn_weigh(const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0, int32_t n_rows,
                      const sq_rows *q, float *weight) {
    const int32_t group = s->n_heads / s->n_kv_heads, d = s->head_dim;
    for (int32_t i = 0; i < n_rows; i++) {
        const float *row = q->f + (size_t)(seg->row0 + row0 + i) * sq_rows_ld(q);
        for (int32_t h = 0; h < s->n_kv_heads; h++)
            weigh_row(row + (size_t)h * (size_t)(group * d), group, d, weight + (size_t)h * (size_t)d);
    }
}

/* ---- which channels -------------------------------------------------------------------------- */

static float range_of(const uint16_t *x) {
    float lo = INFINITY, hi = -INFINITY;
    for (int32_t t = 0; t < SQ_KV_TILE; t++) {
        const float v = sq_f16_to_f32(x[t]);
        lo = v < lo ? v : lo, hi = v > hi ? v : hi;
    }
    return hi - lo;
}

/* Channels by weight times range, the heaviest first; of equal ones the lower first. */
static void order_of(const sq_attn_shape *s, const uint16_t *k, int32_t d, const float *weight,
                     uint8_t *order) {
    float score[SQ_MIX_D_MAX];
    const int32_t half = s->head_dim / 2;
    for (int32_t c = 0; c < d; c++) {
        const int32_t mate = c >= s->head_dim ? c : s->pairs ? c ^ 1 : c < half ? c + half : c - half;
        const float w = c < s->head_dim && mate < s->head_dim ? weight[c] + weight[mate] : 0.0f;
        const float x = w * range_of(k + (size_t)c * SQ_KV_TILE);
        int32_t at = c;
        for (; at > 0 && x > score[order[at - 1]]; at--) order[at] = order[at - 1];
        order[at] = (uint8_t)c;
        score[c] = x;
    }
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Rows of some channels of an open K tile, then zeros, sealed. */
static void seal_rows(const sq_kernels *kn, const uint16_t *k, const uint8_t *order, int32_t n,
                      int32_t n_stored, sq_kv_format f, uint8_t *out) {
    _Alignas(64) uint16_t rows[SQ_MIX_D_MAX * SQ_KV_TILE];
    _Alignas(64) uint8_t made[SQ_MIX_D_MAX * SQ_KV_TILE * 2], unused[SQ_MIX_D_MAX * SQ_KV_TILE * 2];
    const int32_t d = (int32_t)sq_align_up((size_t)n_stored, 16); /* what kernels take */
    memset(rows, 0, (size_t)d * SQ_KV_TILE * sizeof *rows);
    for (int32_t i = 0; i < n; i++)
        memcpy(rows + (size_t)i * SQ_KV_TILE, k + (size_t)order[i] * SQ_KV_TILE, SQ_KV_TILE * sizeof *rows);
    const sq_kv_seal_args a = {d, f, SQ_KV_Q2, rows, rows, made, unused};
    kn->kv_seal(&a);
    const size_t codes = sq_kv_code_bytes(f, n_stored), from = sq_kv_code_bytes(f, d);
    memcpy(out, made, codes);
    memcpy(out + codes, made + from, (size_t)n_stored);
    memcpy(out + codes + sq_kv_k_z(n_stored), made + from + sq_kv_k_z(d), (size_t)n_stored * 2);
}

void sq_be_mix_seal(const sq_kernels *kn, const sq_attn_shape *s, const uint16_t *k, int32_t f,
                    const float *weight, uint8_t *out) {
    const int32_t d = sq_be_padded(s);
    const sq_mix_classes c = sq_mix_classes_of(f, d);
    const sq_mix_places p = sq_mix_places_of(f, d);
    memset(out, 0, p.bytes);
    order_of(s, k, d, weight, out);
    for (int32_t i = 0; i < c.high; i++)
        memcpy(out + p.high + (size_t)i * SQ_KV_TILE * 2, k + (size_t)out[i] * SQ_KV_TILE, SQ_KV_TILE * 2);
    seal_rows(kn, k, out + c.high, c.mid, p.mid_d, SQ_KV_Q4, out + p.mid);
    seal_rows(kn, k, out + c.high + c.mid, c.low, p.low_d, SQ_KV_Q2, out + p.low);
}

/* ---- reading --------------------------------------------------------------------------------- */

static float f16_at(const uint8_t *p, int32_t i) {
    uint16_t h;
    memcpy(&h, p + (size_t)i * 2, sizeof h);
    return sq_f16_to_f32(h);
}

/* Channels of a K tile of codes, d of them as stored, n of a channel, into rows of f16. */
static void open_codes(const uint8_t *k, int32_t d, sq_kv_format f, const uint8_t *order, int32_t n,
                       uint16_t *out) {
    const uint8_t *s = k + sq_kv_code_bytes(f, d), *z = s + sq_kv_k_z(d);
    const int32_t mask = (1 << sq_kv_bits(f)) - 1;
    for (int32_t i = 0; i < n; i++) {
        const float step = sq_kv_scale(s[i]), base = f16_at(z, i) - step * (float)mask * 0.5f;
        uint16_t *row = out + (size_t)(order ? order[i] : i) * SQ_KV_TILE;
        for (int32_t t = 0; t < SQ_KV_TILE; t++) {
            const sq_kv_place at = sq_kv_k_place(f, i, t);
            const float x = base + step * (float)(k[at.at] >> at.shift & mask);
            row[t] = sq_f32_to_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
        }
    }
}

void sq_be_mix_open(const uint8_t *tile, int32_t f, int32_t d, uint16_t *out) {
    if (!sq_is_mix(f)) {
        open_codes(tile, d, (sq_kv_format)f, NULL, d, out);
        return;
    }
    const sq_mix_classes c = sq_mix_classes_of(f, d);
    const sq_mix_places p = sq_mix_places_of(f, d);
    for (int32_t i = 0; i < c.high; i++)
        memcpy(out + (size_t)tile[i] * SQ_KV_TILE, tile + p.high + (size_t)i * SQ_KV_TILE * 2,
               SQ_KV_TILE * 2);
    open_codes(tile + p.mid, p.mid_d, SQ_KV_Q4, tile + c.high, c.mid, out);
    open_codes(tile + p.low, p.low_d, SQ_KV_Q2, tile + c.high + c.mid, c.low, out);
}

void sq_be_mix_to_q8(const sq_kernels *kn, const uint8_t *tile, int32_t f, int32_t d, uint8_t *out) {
    _Alignas(64) uint16_t open[SQ_MIX_D_MAX * SQ_KV_TILE];
    _Alignas(64) uint8_t unused[SQ_MIX_D_MAX * SQ_KV_TILE * 2];
    sq_be_mix_open(tile, f, d, open);
    const sq_kv_seal_args a = {d, SQ_KV_Q8, SQ_KV_Q2, open, open, out, unused};
    kn->kv_seal(&a);
}
