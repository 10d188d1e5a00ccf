/* SPDX-License-Identifier: Apache-2.0
 *
 * k_keys_avx2.c - cached keys and values as codes of 8 bits (R7), keys as means of blocks (R8). A tile of
 * keys is channel-major, so lanes are tokens; the codes of four channels are the four bytes of a lane, and a
 * line of codes is made without moving bytes between lanes. */
#include "k_math_avx2.h"

/* What a channel of a chunk is: smallest key and the inverse of its step. */
typedef struct {
    __m256 lo, inv;
} channel;

static channel channel_of(const uint16_t *const *k, int32_t c, float *step, float *z) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 least = _mm256_set1_ps(-__builtin_inff()), hi = least; /* least: of the keys' negatives */
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
        for (int32_t i = 0; i < 4; i++) {
            const __m256 x = load8_f16(k[j] + (size_t)c * SQ_KV_TILE + 8 * i);
            least = _mm256_max_ps(least, _mm256_xor_ps(x, sign));
            hi = _mm256_max_ps(hi, x);
        }
    const float low = -lanes_max(least) + 0.0f, r = lanes_max(hi) + 0.0f - low;
    *step = r / 255.0f;
    *z = __builtin_fmaf(*step, 127.5f, low);
    return (channel){_mm256_set1_ps(low), _mm256_set1_ps(r > 0.0f ? 255.0f / r : 0.0f)};
}

SQ_INLINE __m256i codes8(const uint16_t *k, const channel *c) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_sub_ps(load8_f16(k), c->lo), c->inv));
}

void sq_seal_keys__avx2(const uint16_t *const *k, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c += 4) {
        channel ch[4];
        for (int32_t n = 0; n < 4; n++) ch[n] = channel_of(k, c + n, &step[c + n], &z[c + n]);
        for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
            for (int32_t i = 0; i < 4; i++) {
                const uint16_t *at = k[j] + (size_t)c * SQ_KV_TILE + 8 * i;
                __m256i line = codes8(at, &ch[0]);
                line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + SQ_KV_TILE, &ch[1]), 8));
                line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + 2 * SQ_KV_TILE, &ch[2]), 16));
                line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + 3 * SQ_KV_TILE, &ch[3]), 24));
                uint8_t *to = codes + (size_t)j * SQ_KV_TILE * (size_t)d + (size_t)c * 32 + 32 * i;
                _mm256_store_si256((__m256i *)to, line);
            }
    }
}

/* Lanes are channels here, and the four tokens of a line the bytes of a lane. */
void sq_seal_values__avx2(const uint16_t *const *v, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c += 8) {
        __m256 lo = _mm256_set1_ps(__builtin_inff()), hi = _mm256_set1_ps(-__builtin_inff());
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            const __m256 x = load8_f16(v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c);
            lo = _mm256_min_ps(lo, x);
            hi = _mm256_max_ps(hi, x);
        }
        lo = _mm256_add_ps(lo, _mm256_setzero_ps());
        const __m256 r = _mm256_sub_ps(_mm256_add_ps(hi, _mm256_setzero_ps()), lo);
        const __m256 s = _mm256_div_ps(r, _mm256_set1_ps(255.0f));
        const __m256 wide = _mm256_cmp_ps(r, _mm256_setzero_ps(), _CMP_GT_OQ);
        const channel ch = {lo, _mm256_and_ps(wide, _mm256_div_ps(_mm256_set1_ps(255.0f), r))};
        _mm256_storeu_ps(step + c, s);
        _mm256_storeu_ps(z + c, _mm256_fmadd_ps(s, _mm256_set1_ps(127.5f), lo));
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t += 4) {
            const uint16_t *at = v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c;
            __m256i line = codes8(at, &ch);
            line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + d, &ch), 8));
            line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + 2 * d, &ch), 16));
            line = _mm256_or_si256(line, _mm256_slli_epi32(codes8(at + 3 * d, &ch), 24));
            _mm256_store_si256((__m256i *)(codes + (size_t)t * (size_t)d + (size_t)c * 4), line);
        }
    }
}

/* Eight of the 64 keys of a block, channel c. */
SQ_INLINE __m256 keys8(const uint16_t *const *k, int32_t c, int32_t i) {
    return load8_f16(k[i / 4] + (size_t)c * SQ_KV_TILE + 8 * (i % 4));
}

float sq_pool_keys__avx2(const uint16_t *const *k, int32_t d, float *mean) {
    enum { PARTS = SQ_POOL_KEYS / 8 };
    __m256 inv[PARTS];
    float alike[16] = {0};
    for (int32_t i = 0; i < PARTS; i++) {
        __m256 norm = _mm256_setzero_ps();
        for (int32_t c = 0; c < d; c++) norm = _mm256_fmadd_ps(keys8(k, c, i), keys8(k, c, i), norm);
        const __m256 root = _mm256_div_ps(_mm256_set1_ps(1.0f), _mm256_sqrt_ps(norm));
        inv[i] = _mm256_and_ps(root, _mm256_cmp_ps(norm, _mm256_setzero_ps(), _CMP_GT_OQ));
    }
    for (int32_t c = 0; c < d; c++) {
        __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, unit[2] = {sum[0], sum[1]};
        for (int32_t i = 0; i < PARTS; i++) {
            const __m256 x = keys8(k, c, i);
            sum[i % 2] = _mm256_add_ps(sum[i % 2], x);
            unit[i % 2] = _mm256_add_ps(unit[i % 2], _mm256_mul_ps(x, inv[i]));
        }
        const float u = lane_tree(unit[0], unit[1]);
        mean[c] = lane_tree(sum[0], sum[1]) / (float)SQ_POOL_KEYS;
        alike[c % 16] = __builtin_fmaf(u, u, alike[c % 16]);
    }
    return lane_tree(_mm256_loadu_ps(alike), _mm256_loadu_ps(alike + 8)) /
           (float)(SQ_POOL_KEYS * SQ_POOL_KEYS);
}
