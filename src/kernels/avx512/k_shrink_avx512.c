/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_avx512.c - a sealed tile in fewer bits, made from its codes (R9). As in k_seal_avx512.c the codes
 * of four channels (K) or four tokens (V) are the bytes of a lane: a byte is taken out of all lanes, becomes
 * 16 floats, and goes back to where it was. */
#include "kernels/avx512/k_avx512.h"

typedef struct {
    sq_kv_format from, to;
    __m512 c0, c1;        /* centres of the codes */
    __m512i most0, most1; /* largest codes */
    float ratio;          /* of the steps, if both could be had exactly */
} change;

static change change_of(sq_kv_format from, sq_kv_format to) {
    const int32_t m0 = (1 << sq_kv_bits(from)) - 1, m1 = (1 << sq_kv_bits(to)) - 1;
    return (change){from,
                    to,
                    _mm512_set1_ps((float)m0 * 0.5f),
                    _mm512_set1_ps((float)m1 * 0.5f),
                    _mm512_set1_epi32(m0),
                    _mm512_set1_epi32(m1),
                    (float)m0 / (float)m1};
}

/* A line of bytes from `shift` on into one of fewer bits; r: ratios of its four bytes. */
BLOCK void change_line(const change *q, const uint8_t *in, int in_shift, const __m512 r[4], uint8_t *out,
                       int out_shift, bool first) {
    const __m512i line = _mm512_load_si512(in);
    __m512i made = first ? _mm512_setzero_si512() : _mm512_load_si512(out);
    for (int e = 0; e < 4; e++) {
        const __m512i u =
            _mm512_and_si512(_mm512_srlv_epi32(line, _mm512_set1_epi32(8 * e + in_shift)), q->most0);
        const __m512 x = _mm512_fmadd_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(u), q->c0), r[e], q->c1);
        const __m512i n =
            _mm512_min_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(x), _mm512_setzero_si512()), q->most1);
        made = _mm512_or_si512(made, _mm512_sllv_epi32(n, _mm512_set1_epi32(8 * e + out_shift)));
    }
    _mm512_store_si512(out, made);
}

static void shrink_k(const uint8_t *k, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = k + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memset(params, 0, sq_kv_k_bytes(to, d) - sq_kv_code_bytes(to, d));
    memcpy(params + sq_kv_k_z(d), in + sq_kv_k_z(d), (size_t)d * 2);
    for (int32_t c4 = 0; c4 < d; c4 += 4) {
        __m512 r[4];
        for (int e = 0; e < 4; e++) {
            const float s = sq_kv_scale(in[c4 + e]);
            params[c4 + e] = sq_kv_scale_code(s * q.ratio);
            r[e] = _mm512_set1_ps(s / sq_kv_scale(params[c4 + e]));
        }
        for (int h = 0; h < 2; h++) {
            const sq_kv_place a = sq_kv_k_place(from, c4, 16 * h), b = sq_kv_k_place(to, c4, 16 * h);
            change_line(&q, k + a.at, a.shift, r, out + b.at, b.shift, b.shift == 0);
        }
    }
}

/* Scales of token t in group g: the wider one into params, and the ratio. */
static float wider_step(const uint8_t *in, uint8_t *params, int32_t i, float ratio) {
    uint16_t sh;
    memcpy(&sh, in + (size_t)i * 2, sizeof sh);
    const float s = sq_f16_to_f32(sh);
    uint16_t wide = sq_f32_to_f16(s * ratio);
    wide = (uint16_t)(wide + (sq_f16_to_f32(wide) < s * ratio));
    memcpy(params + (size_t)i * 2, &wide, sizeof wide);
    return wide ? s / sq_f16_to_f32(wide) : 0.0f;
}

static void shrink_v(const uint8_t *v, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = v + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memcpy(params + sq_kv_v_z(d), in + sq_kv_v_z(d), sq_kv_v_z(d));
    for (int32_t t4 = 0; t4 < SQ_KV_TILE; t4 += 4) {
        __m512 r[4];
        for (int32_t c = 0; c < d; c += 16) {
            if (c % SQ_KV_GROUP == 0)
                for (int e = 0; e < 4; e++)
                    r[e] = _mm512_set1_ps(
                        wider_step(in, params, c / SQ_KV_GROUP * SQ_KV_TILE + t4 + e, q.ratio));
            const sq_kv_place a = sq_kv_v_place(from, d, c, t4), b = sq_kv_v_place(to, d, c, t4);
            change_line(&q, v + a.at, a.shift, r, out + b.at, b.shift, b.shift == 0);
        }
    }
}

void sq_kv_shrink__avx512(const sq_kv_shrink_args *a) {
    if (a->k_from == a->k_to)
        memcpy(a->k_out, a->k, sq_kv_k_bytes(a->k_to, a->d));
    else
        shrink_k(a->k, a->d, a->k_from, a->k_to, a->k_out);
    if (a->v_from == a->v_to)
        memcpy(a->v_out, a->v, sq_kv_v_bytes(a->v_to, a->d));
    else
        shrink_v(a->v, a->d, a->v_from, a->v_to, a->v_out);
}
