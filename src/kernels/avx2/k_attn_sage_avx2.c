/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_sage_avx2.c - attention over a chunk of 256 tokens with keys and values in 8 bits (R7).
 *
 * Bytes of 255 times bytes of 127 do not fit the sums of maddubs. So codes are widened, the even and the odd
 * bytes of a line, and madd takes pairs of 16 bits; that has room for a whole probability, so no planes are
 * needed. A line is widened once for the rows of a block. */
#include "k_softmax_avx2.h"

enum { R_MAX = 3 }; /* query rows at a time: 3 x 4 accumulators */

/* Query rows and probabilities as integers: of each four the pairs (0, 2) and (1, 3), 16 bits each. */
typedef struct {
    int32_t w[SQ_ATTN_D_MAX / 4][2], p[SQ_ATTN_CHUNK / 4][2];
    float scale, base, L;
} codes;

/* Eight integers as pairs, in two groups of four. */
SQ_INLINE void store_pairs(__m256i v, int32_t *out) {
    const __m256i pairs = _mm256_shuffle_epi32(v, 0xd8); /* of four: 0 2 1 3 */
    _mm_storeu_si128((__m128i *)out, _mm_packs_epi32(_mm256_castsi256_si128(pairs),
                                                    _mm256_extracti128_si256(pairs, 1)));
}

/* Sums of the four products of each lane. */
SQ_INLINE __m256i add_products(__m256i acc, __m256i even, __m256i odd, const int32_t pairs[2]) {
    const __m256i p02 = _mm256_madd_epi16(even, _mm256_set1_epi32(pairs[0]));
    const __m256i p13 = _mm256_madd_epi16(odd, _mm256_set1_epi32(pairs[1]));
    return _mm256_add_epi32(acc, _mm256_add_epi32(p02, p13));
}

/* ---- scores ---------------------------------------------------------------------------------- */

SQ_INLINE int32_t lanes_sum(__m256i v) {
    __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

static void row_codes(const float *q, int32_t d, const sq_sealed *k, codes *out) {
    float w[SQ_ATTN_D_MAX];
    __m256 zdot[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256i bits = _mm256_setzero_si256(), sum = _mm256_setzero_si256();
    for (int32_t c = 0; c < d; c += 8) {
        const __m256 qc = _mm256_loadu_ps(q + c), wc = _mm256_mul_ps(qc, _mm256_loadu_ps(k->step + c));
        /* magnitudes order like their bits, and NaN is above all */
        bits = _mm256_max_epu32(
            bits, _mm256_and_si256(_mm256_castps_si256(wc), _mm256_set1_epi32(0x7fffffff)));
        zdot[c / 8 % 2] = _mm256_fmadd_ps(qc, _mm256_loadu_ps(k->z + c), zdot[c / 8 % 2]);
        _mm256_storeu_ps(w + c, wc);
    }
    __m128i top = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    top = _mm_max_epu32(top, _mm_shuffle_epi32(top, 0x4e));
    top = _mm_max_epu32(top, _mm_shuffle_epi32(top, 0xb1));
    const float most = _mm_cvtss_f32(_mm_castsi128_ps(top));
    const bool usable = most >= 0x1p-100f && most < __builtin_inff();
    const __m256i all = _mm256_set1_epi32(usable ? -1 : 0);
    for (int32_t c = 0; c < d; c += 8) {
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(w + c), _mm256_set1_ps(127.0f / most));
        const __m256i W = _mm256_and_si256(_mm256_cvtps_epi32(x), all);
        sum = _mm256_add_epi32(sum, W);
        store_pairs(W, out->w[c / 4]);
    }
    out->scale = usable ? most / 127.0f : 0.0f;
    out->base = __builtin_fmaf(-(out->scale * 127.5f), (float)lanes_sum(sum), lane_tree(zdot[0], zdot[1]));
}

/* s[r][t] for the 32 tokens of a tile of codes. */
SQ_INLINE void tile_scores(int n_r, const codes *row, int32_t d, const uint8_t *k, float *s) {
    const __m256i even = _mm256_set1_epi16(0xff);
    __m256i acc[R_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = _mm256_setzero_si256();
    for (int32_t quad = 0; quad < d / 4; quad++)
        for (int j = 0; j < 4; j++) {
            const __m256i line = _mm256_loadu_si256((const __m256i *)(k + (size_t)quad * 128 + 32 * j));
            const __m256i k02 = _mm256_and_si256(line, even), k13 = _mm256_srli_epi16(line, 8);
            for (int r = 0; r < n_r; r++) {
                acc[r][j] = add_products(acc[r][j], k02, k13, row[r].w[quad]);
            }
        }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++)
            _mm256_storeu_ps(s + r * SQ_ATTN_CHUNK + 8 * j,
                             _mm256_fmadd_ps(_mm256_set1_ps(row[r].scale), _mm256_cvtepi32_ps(acc[r][j]),
                                             _mm256_set1_ps(row[r].base)));
}

/* ---- probabilities and values ---------------------------------------------------------------- */

/* Scores of row i to integers, 0 where it does not see or drops a tile; m and l are written. */
static uint32_t row_integers(const sq_attn_args *a, int32_t i, extent e, const float *s, codes *out) {
    const row_max top = row_max_of(a, i, e.tile0, e.tile1, s);
    __m256i sum = _mm256_setzero_si256();
    for (int32_t t = SQ_KV_TILE * e.tile0; t < SQ_KV_TILE * e.tile1; t += 8) {
        __m256 prob = _mm256_setzero_ps();
        if (top.live >> (t / SQ_KV_TILE) & 1) prob = probabilities(s, t, a->lo[i], a->hi[i], top.m);
        const __m256i P = _mm256_cvtps_epi32(_mm256_mul_ps(prob, _mm256_set1_ps((float)SQ_SAGE_ONE)));
        store_pairs(P, out->p[t / 4]);
        sum = _mm256_add_epi32(sum, P);
    }
    out->L = (float)lanes_sum(sum);
    a->m[i] = top.m;
    a->l[i] = out->L * (1.0f / SQ_SAGE_ONE);
    return top.live;
}

/* o of n_r rows from row i on, channels [c, c + 8 n_v). */
SQ_INLINE void values(int n_r, int n_v, const sq_attn_args *a, int32_t i, extent e, uint32_t live,
                      const codes *row, int32_t c) {
    const __m256i low = _mm256_set1_epi16(0xff);
    const size_t d = (size_t)a->d;
    __m256i acc[R_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int n = 0; n < n_v; n++) acc[r][n] = _mm256_setzero_si256();
    for (int32_t quad = e.tile0 * (SQ_KV_TILE / 4); quad < e.tile1 * (SQ_KV_TILE / 4); quad++) {
        const uint8_t *at = a->sealed_v.codes + (size_t)quad * 4 * d + (size_t)c * 4;
        if (!(live >> (quad * 4 / SQ_KV_TILE) & 1)) continue;
        for (int n = 0; n < n_v; n++) {
            const __m256i line = _mm256_loadu_si256((const __m256i *)(at + 32 * n));
            const __m256i v02 = _mm256_and_si256(line, low), v13 = _mm256_srli_epi16(line, 8);
            for (int r = 0; r < n_r; r++) acc[r][n] = add_products(acc[r][n], v02, v13, row[r].p[quad]);
        }
    }
    for (int n = 0; n < n_v; n++) {
        const __m256 step = _mm256_mul_ps(_mm256_loadu_ps(a->sealed_v.step + c + 8 * n),
                                          _mm256_set1_ps(1.0f / SQ_SAGE_ONE));
        const __m256 z = _mm256_loadu_ps(a->sealed_v.z + c + 8 * n);
        for (int r = 0; r < n_r; r++) {
            const __m256 centred = _mm256_fmadd_ps(_mm256_set1_ps(row[r].L), _mm256_set1_ps(-127.5f),
                                                   _mm256_cvtepi32_ps(acc[r][n]));
            const __m256 o = _mm256_fmadd_ps(step, centred, _mm256_mul_ps(z, _mm256_set1_ps(a->l[i + r])));
            _mm256_storeu_ps(a->o + (size_t)(i + r) * a->ldo + c + 8 * n,
                             _mm256_add_ps(o, _mm256_setzero_ps()));
        }
    }
}

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    codes row[R_MAX];
    const extent e = extent_of(a, i, n_r);
    uint32_t live = 0;
    int32_t c = 0;
    for (int r = 0; r < n_r; r++) row_codes(a->q + (size_t)(i + r) * a->ldq, a->d, &a->sealed_k, &row[r]);
    for (int32_t j = e.tile0; j < e.tile1; j++)
        if (a->k[j])
            tile_scores(n_r, row, a->d, a->sealed_k.codes + (size_t)j * SQ_KV_TILE * (size_t)a->d,
                        s + SQ_KV_TILE * j);
    for (int r = 0; r < n_r; r++) live |= row_integers(a, i + r, e, s + r * SQ_ATTN_CHUNK, &row[r]);
    for (; c + 32 <= a->d; c += 32) values(n_r, 4, a, i, e, live, row, c);
    if (c < a->d) values(n_r, 2, a, i, e, live, row, c);
}

void sq_attn_sage__avx2(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i += rows_next(a->n_q - i)) switch (rows_next(a->n_q - i)) {
        case 1: row_block(1, a, i); break;
        case 2: row_block(2, a, i); break;
        default: row_block(3, a, i);
        }
}
