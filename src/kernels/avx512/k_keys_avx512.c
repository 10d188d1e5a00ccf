/* SPDX-License-Identifier: Apache-2.0
 *
 * k_keys_avx512.c - cached keys and values as codes of 8 bits (R7), keys as means of blocks (R8). A tile of
 * keys is channel-major, so lanes are tokens; the codes of four channels are the four bytes of a lane, and a
 * line of codes is made without moving bytes between lanes. */
#include "kernels/avx512/k_avx512.h"

#include <math.h>

/* What a channel of a chunk is: smallest key and the inverse of its step. */
typedef struct {
    __m512 lo, inv;
} channel;

static channel channel_of(const uint16_t *const *k, int32_t c, float *step, float *z) {
    __m512 lo = _mm512_set1_ps(INFINITY), hi = _mm512_set1_ps(-INFINITY);
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
        for (int32_t h = 0; h < 2; h++) {
            const __m512 x = f16_load(k[j] + (size_t)c * SQ_KV_TILE + 16 * h);
            lo = _mm512_min_ps(lo, x);
            hi = _mm512_max_ps(hi, x);
        }
    const float low = _mm512_reduce_min_ps(lo) + 0.0f, r = _mm512_reduce_max_ps(hi) + 0.0f - low;
    *step = r / 255.0f;
    *z = fmaf(*step, 127.5f, low);
    return (channel){_mm512_set1_ps(low), _mm512_set1_ps(r > 0.0f ? 255.0f / r : 0.0f)};
}

BLOCK __m512i codes16(const uint16_t *k, const channel *c) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(f16_load(k), c->lo), c->inv));
}

void sq_seal_keys__avx512(const uint16_t *const *k, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c += 4) {
        channel ch[4];
        for (int32_t i = 0; i < 4; i++) ch[i] = channel_of(k, c + i, &step[c + i], &z[c + i]);
        for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
            for (int32_t h = 0; h < 2; h++) {
                const uint16_t *at = k[j] + (size_t)c * SQ_KV_TILE + 16 * h;
                __m512i line = codes16(at, &ch[0]);
                uint8_t *to = codes + (size_t)j * SQ_KV_TILE * (size_t)d + (size_t)c * 32 + 64 * h;
                for (int32_t i = 1; i < 4; i++)
                    line = _mm512_or_si512(line, _mm512_slli_epi32(codes16(at + SQ_KV_TILE * i, &ch[i]),
                                                                   (unsigned)(8 * i)));
                _mm512_store_si512(to, line);
            }
    }
}

/* Lanes are channels here, and the four tokens of a line the bytes of a lane. */
void sq_seal_values__avx512(const uint16_t *const *v, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c += 16) {
        __m512 lo = _mm512_set1_ps(INFINITY), hi = _mm512_set1_ps(-INFINITY);
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            const __m512 x = f16_load(v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c);
            lo = _mm512_min_ps(lo, x);
            hi = _mm512_max_ps(hi, x);
        }
        lo = _mm512_add_ps(lo, _mm512_setzero_ps());
        const __m512 r = _mm512_sub_ps(_mm512_add_ps(hi, _mm512_setzero_ps()), lo);
        const __m512 s = _mm512_div_ps(r, _mm512_set1_ps(255.0f));
        const __mmask16 wide = _mm512_cmp_ps_mask(r, _mm512_setzero_ps(), _CMP_GT_OQ);
        const channel ch = {lo, _mm512_maskz_div_ps(wide, _mm512_set1_ps(255.0f), r)};
        _mm512_storeu_ps(step + c, s);
        _mm512_storeu_ps(z + c, _mm512_fmadd_ps(s, _mm512_set1_ps(127.5f), lo));
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t += 4) {
            const uint16_t *at = v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c;
            __m512i line = codes16(at, &ch);
            for (int32_t i = 1; i < 4; i++)
                line = _mm512_or_si512(
                    line, _mm512_slli_epi32(codes16(at + i * d, &ch), (unsigned)(8 * i)));
            _mm512_store_si512(codes + (size_t)t * (size_t)d + (size_t)c * 4, line);
        }
    }
}

/* Sixteen of the 64 keys of a block, channel c. */
BLOCK __m512 keys16(const uint16_t *const *k, int32_t c, int32_t i) {
    return f16_load(k[i / 2] + (size_t)c * SQ_KV_TILE + 16 * (i % 2));
}

float sq_pool_keys__avx512(const uint16_t *const *k, int32_t d, float *mean) {
    enum { PARTS = SQ_POOL_KEYS / 16 };
    _Alignas(64) float unit[SQ_ATTN_D_MAX];
    __m512 inv[PARTS], alike = _mm512_setzero_ps();
    for (int32_t i = 0; i < PARTS; i++) {
        __m512 norm = _mm512_setzero_ps();
        for (int32_t c = 0; c < d; c++) norm = _mm512_fmadd_ps(keys16(k, c, i), keys16(k, c, i), norm);
        inv[i] = _mm512_maskz_div_ps(_mm512_cmp_ps_mask(norm, _mm512_setzero_ps(), _CMP_GT_OQ),
                                     _mm512_set1_ps(1.0f), _mm512_sqrt_ps(norm));
    }
    for (int32_t c = 0; c < d; c += 4) {
        __m512 sum[4], turned[4];
        for (int32_t n = 0; n < 4; n++) {
            sum[n] = turned[n] = _mm512_setzero_ps();
            for (int32_t i = 0; i < PARTS; i++) {
                const __m512 x = keys16(k, c + n, i);
                sum[n] = _mm512_add_ps(sum[n], x);
                turned[n] = _mm512_add_ps(turned[n], _mm512_mul_ps(x, inv[i]));
            }
        }
        const __m128 total = lane_tree4(sum[0], sum[1], sum[2], sum[3]);
        _mm_storeu_ps(mean + c, _mm_div_ps(total, _mm_set1_ps((float)SQ_POOL_KEYS)));
        _mm_store_ps(unit + c, lane_tree4(turned[0], turned[1], turned[2], turned[3]));
    }
    for (int32_t c = 0; c < d; c += 16) {
        const __m512 u = _mm512_load_ps(unit + c);
        alike = _mm512_fmadd_ps(u, u, alike);
    }
    return lane_tree(alike) / (float)(SQ_POOL_KEYS * SQ_POOL_KEYS);
}
