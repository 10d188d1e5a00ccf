/* SPDX-License-Identifier: Apache-2.0
 *
 * k_seal_avx2.c - an open f16 tile becomes a sealed one (R6). Codes of four channels (K) or four tokens (V)
 * are the four bytes of a lane, so a line of the sealed tile is made without moving bytes between lanes. */
#include "k_math_avx2.h"

typedef struct {
    float c0;
    int bits;
} coding;

static coding coding_of(sq_kv_format f) {
    return (coding){(float)((1 << sq_kv_bits(f)) - 1) * 0.5f, sq_kv_bits(f)};
}

SQ_INLINE __m256 negated(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

/* z and the step of n numbers, n a multiple of 16. */
SQ_INLINE uint16_t middle(const uint16_t *x, int32_t n, float c0, float *z, float *step) {
    __m256 lo = _mm256_set1_ps(__builtin_inff()), hi = negated(lo);
    for (int32_t i = 0; i < n; i += 8) {
        const __m256 v = load8_f16(x + i);
        lo = _mm256_min_ps(lo, v), hi = _mm256_max_ps(hi, v);
    }
    const float least = -lanes_max(negated(lo)), most = lanes_max(hi);
    const uint16_t h = sq_f32_to_f16((least + most) * 0.5f + 0.0f);
    *z = sq_f16_to_f32(h);
    const float up = most - *z, down = *z - least;
    *step = (up > down ? up : down) / c0 + 0.0f;
    return h;
}

SQ_INLINE __m256i codes_of(const uint16_t *x, float z, float inv, coding q) {
    const __m256 u = _mm256_fmadd_ps(_mm256_sub_ps(load8_f16(x), _mm256_set1_ps(z)), _mm256_set1_ps(inv),
                                     _mm256_set1_ps(q.c0));
    const __m256i n = _mm256_max_epi32(_mm256_cvtps_epi32(u), _mm256_setzero_si256());
    return _mm256_min_epi32(n, _mm256_set1_epi32((1 << q.bits) - 1));
}

/* Half a line of codes, a byte each, from bit `shift` of its place on. Lines are begun at bit 0. */
SQ_INLINE void put(uint8_t *at, __m256i codes, int shift) {
    __m256i line = _mm256_sll_epi32(codes, _mm_cvtsi32_si128(shift));
    if (shift) line = _mm256_or_si256(line, _mm256_load_si256((const __m256i *)at));
    _mm256_store_si256((__m256i *)at, line);
}

static void seal_k(const uint16_t *k, int32_t d, sq_kv_format f, uint8_t *out) {
    const coding q = coding_of(f);
    uint8_t *params = out + sq_kv_code_bytes(f, d), *zs = params + sq_kv_k_z(d);
    memset(params, 0, sq_kv_k_bytes(f, d) - sq_kv_code_bytes(f, d));
    for (int32_t c = 0; c < d; c += 4) {
        float z[4], inv[4], step;
        for (int e = 0; e < 4; e++) {
            const uint16_t h = middle(k + (size_t)(c + e) * SQ_KV_TILE, SQ_KV_TILE, q.c0, &z[e], &step);
            params[c + e] = sq_kv_scale_code(step);
            memcpy(zs + (size_t)(c + e) * 2, &h, 2);
            inv[e] = 1.0f / sq_kv_scale(params[c + e]);
        }
        for (int32_t t = 0; t < SQ_KV_TILE; t += 8) {
            __m256i line = _mm256_setzero_si256();
            for (int e = 0; e < 4; e++) {
                const __m256i u = codes_of(k + (size_t)(c + e) * SQ_KV_TILE + (size_t)t, z[e], inv[e], q);
                line = _mm256_or_si256(line, _mm256_sll_epi32(u, _mm_cvtsi32_si128(8 * e)));
            }
            const sq_kv_place p = sq_kv_k_place(f, c, t);
            put(out + p.at, line, p.shift);
        }
    }
}

/* z and 1 / s of token t in group g. */
static void value_params(const uint16_t *v, int32_t d, int32_t t, int32_t g, coding q, uint8_t *params,
                         float *z, float *inv) {
    const int32_t first = g * SQ_KV_GROUP, n = d - first < SQ_KV_GROUP ? d - first : SQ_KV_GROUP;
    float step;
    const uint16_t zh = middle(v + (size_t)t * (size_t)d + (size_t)first, n, q.c0, z, &step);
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
    for (int32_t t = 0; t < SQ_KV_TILE; t += 4)
        for (int32_t c = 0; c < d; c += 8) {
            if (c % SQ_KV_GROUP == 0)
                for (int e = 0; e < 4; e++)
                    value_params(v, d, t + e, c / SQ_KV_GROUP, q, params, &z[e], &inv[e]);
            __m256i line = _mm256_setzero_si256();
            for (int e = 0; e < 4; e++) {
                const __m256i u = codes_of(v + (size_t)(t + e) * (size_t)d + (size_t)c, z[e], inv[e], q);
                line = _mm256_or_si256(line, _mm256_sll_epi32(u, _mm_cvtsi32_si128(8 * e)));
            }
            const sq_kv_place p = sq_kv_v_place(f, d, c, t);
            put(out + p.at, line, p.shift);
        }
}

void sq_kv_seal__avx2(const sq_kv_seal_args *a) {
    seal_k(a->k, a->d, a->k_fmt, a->k_out);
    seal_v(a->v, a->d, a->v_fmt, a->v_out);
}
