/* SPDX-License-Identifier: Apache-2.0
 *
 * k_seal_avx512.c - an open f16 tile becomes a sealed one (R6). Codes of four channels (K) or four tokens (V)
 * are the four bytes of a lane, so a line of the sealed tile is made without moving bytes between lanes. */
#include "kernels/avx512/k_avx512.h"

#include <math.h>

typedef struct {
    float c0;
    int bits;
} coding;

static coding coding_of(sq_kv_format f) {
    return (coding){(float)((1 << sq_kv_bits(f)) - 1) * 0.5f, sq_kv_bits(f)};
}

/* z and the step of numbers within [lo, hi]. */
BLOCK uint16_t middle(float lo, float hi, float c0, float *z, float *step) {
    const uint16_t h = sq_f32_to_f16((lo + hi) * 0.5f + 0.0f);
    *z = sq_f16_to_f32(h);
    const float up = hi - *z, down = *z - lo;
    *step = (up > down ? up : down) / c0 + 0.0f;
    return h;
}

BLOCK __m512i codes_of(__m512 x, float z, float inv, coding q) {
    const __m512 u =
        _mm512_fmadd_ps(_mm512_sub_ps(x, _mm512_set1_ps(z)), _mm512_set1_ps(inv), _mm512_set1_ps(q.c0));
    const __m512i n = _mm512_cvtps_epi32(u);
    return _mm512_min_epi32(_mm512_max_epi32(n, _mm512_setzero_si512()),
                            _mm512_set1_epi32((1 << q.bits) - 1));
}

/* Bring `codes` (one byte a code) to its place: into the line at `at`, from bit `shift` on. */
BLOCK void put_line(uint8_t *at, __m512i codes, int shift) {
    __m512i line = _mm512_sllv_epi32(codes, _mm512_set1_epi32(shift));
    if (shift) line = _mm512_or_si512(line, _mm512_load_si512(at));
    _mm512_store_si512(at, line);
}

static void seal_k(const uint16_t *k, int32_t d, sq_kv_format f, uint8_t *out) {
    const coding q = coding_of(f);
    uint8_t *params = out + sq_kv_code_bytes(f, d), *zs = params + sq_kv_k_z(d);
    memset(params, 0, sq_kv_k_bytes(f, d) - sq_kv_code_bytes(f, d));
    for (int32_t c4 = 0; c4 < d; c4 += 4) {
        __m512i line[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int e = 0; e < 4; e++) {
            const int32_t c = c4 + e;
            const uint16_t *x = k + (size_t)c * SQ_KV_TILE;
            const __m512 x0 = f16_load(x), x1 = f16_load(x + 16);
            float z, step;
            const uint16_t h = middle(_mm512_reduce_min_ps(_mm512_min_ps(x0, x1)),
                                      _mm512_reduce_max_ps(_mm512_max_ps(x0, x1)), q.c0, &z, &step);
            params[c] = sq_kv_scale_code(step);
            memcpy(zs + (size_t)c * 2, &h, 2);
            const float inv = 1.0f / sq_kv_scale(params[c]);
            const __m512i by = _mm512_set1_epi32(8 * e);
            line[0] = _mm512_or_si512(line[0], _mm512_sllv_epi32(codes_of(x0, z, inv, q), by));
            line[1] = _mm512_or_si512(line[1], _mm512_sllv_epi32(codes_of(x1, z, inv, q), by));
        }
        for (int h = 0; h < 2; h++) {
            const sq_kv_place p = sq_kv_k_place(f, c4, 16 * h);
            put_line(out + p.at, line[h], p.shift);
        }
    }
}

/* z and 1 / s of token t in group g. */
static void value_params(const uint16_t *v, int32_t d, int32_t t, int32_t g, coding q, uint8_t *params,
                         float *z, float *inv) {
    const int32_t first = g * SQ_KV_GROUP, end = first + SQ_KV_GROUP < d ? first + SQ_KV_GROUP : d;
    __m512 lo = _mm512_set1_ps(INFINITY), hi = _mm512_set1_ps(-INFINITY);
    for (int32_t c = first; c < end; c += 16) {
        const __m512 x = f16_load(v + (size_t)t * (size_t)d + (size_t)c);
        lo = _mm512_min_ps(lo, x), hi = _mm512_max_ps(hi, x);
    }
    float step;
    const uint16_t zh = middle(_mm512_reduce_min_ps(lo), _mm512_reduce_max_ps(hi), q.c0, z, &step);
    uint16_t sh = sq_f32_to_f16(step);
    sh = (uint16_t)(sh + (sq_f16_to_f32(sh) < step));
    uint8_t *at = params + (size_t)(g * SQ_KV_TILE + t) * 2;
    memcpy(at, &sh, 2);
    memcpy(at + sq_kv_v_z(d), &zh, 2);
    *inv = sh ? 1.0f / sq_f16_to_f32(sh) : 0.0f;
}

static void seal_v(const uint16_t *v, int32_t d, sq_kv_format f, uint8_t *out) {
    const coding q = coding_of(f);
    uint8_t *params = out + sq_kv_code_bytes(f, d);
    float z[4], inv[4];
    for (int32_t t4 = 0; t4 < SQ_KV_TILE; t4 += 4)
        for (int32_t c = 0; c < d; c += 16) {
            if (c % SQ_KV_GROUP == 0)
                for (int e = 0; e < 4; e++)
                    value_params(v, d, t4 + e, c / SQ_KV_GROUP, q, params, &z[e], &inv[e]);
            __m512i line = _mm512_setzero_si512();
            for (int e = 0; e < 4; e++)
                line = _mm512_or_si512(
                    line, _mm512_sllv_epi32(codes_of(f16_load(v + (size_t)(t4 + e) * (size_t)d + (size_t)c),
                                                     z[e], inv[e], q),
                                            _mm512_set1_epi32(8 * e)));
            const sq_kv_place p = sq_kv_v_place(f, d, c, t4);
            put_line(out + p.at, line, p.shift);
        }
}

void sq_kv_seal__avx512(const sq_kv_seal_args *a) {
    seal_k(a->k, a->d, a->k_fmt, a->k_out);
    seal_v(a->v, a->d, a->v_fmt, a->v_out);
}
