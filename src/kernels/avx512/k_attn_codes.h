/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes.h - attention over sealed tiles on their codes (R5), for two instruction sets: VNNI 1 makes
 * the kernel of vpdpbusd, VNNI 0 that of AVX-512BW alone.
 *
 * A weight has 15 bits and codes are bytes, so a line meets two halves of its weights:
 *
 *   VNNI 1    W = 128 h0 + h1, planes of bytes: vpdpbusd of all codes with either
 *   VNNI 0    even and odd codes as words: vpmaddwd of either with their weights
 *
 * For scores a line is 16 tokens x 4 channels, for values 16 channels x 4 tokens, and lanes are added
 * nowhere. It is loaded and unpacked once for the query rows of a block.
 *
 * At best the dot products are half of the work, the rest is making weights. So these are made 16 bits wide;
 * those of values once for all tiles; those of keys a tile ahead, so that their chain of dependent operations
 * (products, largest, quotient, integers, sums) runs beside the dot products of the tile before. */
#ifndef VNNI
#error "VNNI is 0 or 1, and said first"
#endif

enum { ROWS = 6 }; /* of a block: two halves of two lines take 24 registers of sums */

#define FOR_FORMATS(X, R) X(R, Q8) X(R, Q4) X(R, Q2)
#define FOR_ROWS(X)                                                                                          \
    FOR_FORMATS(X, 1)                                                                                        \
    FOR_FORMATS(X, 2) FOR_FORMATS(X, 3) FOR_FORMATS(X, 4) FOR_FORMATS(X, 5) FOR_FORMATS(X, 6)

/* Lines of a tile, a line or two of scales included, for 16 of its channels. */
#define LINES(f) (sq_kv_bits(f) + 1)

/* What makes floats of the sums, for each row. */
typedef struct {
    _Alignas(32) float step[8], inv[8], base[8];
} floats;

/* Of a tile of keys. Four bytes for each quad of channels: of both halves, quad 16 g + 4 x + l at
 * 16 g + 4 l + x, as packing leaves them. */
typedef struct {
    _Alignas(64) int32_t q[ROWS][2][SQ_ATTN_D_MAX / 4];
    floats f;
} key_weights;

/* Of all values of a group of channels, a line a tile: half n of the quad 4 x + l of tokens at
 * 4 l + 2 n + x. */
typedef struct {
    _Alignas(64) int32_t p[ROWS][SQ_ATTN_TILES][16];
    floats f;
} value_weights;

/* A block of at most ROWS query rows and what it works on. */
typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1;                         /* first row; tiles seen by one row or more */
    _Alignas(64) float p[ROWS][SQ_ATTN_CHUNK];          /* scores, then probabilities */
    _Alignas(64) float w[SQ_ATTN_D_MAX / 16][ROWS][16]; /* weights being made, in the order of their making */
    key_weights k[2];                                   /* of even and of odd tiles */
    value_weights v;
    bool cold;                          /* no block before this one read the tiles: they come from memory */
    const uint8_t *next[SQ_ATTN_TILES]; /* keys of the next call */
    size_t k_part, v_part, next_part;   /* how much of a tile is asked for with 16 channels of another */
} block;

BLOCK float centre(sq_kv_format f) { return (float)((1 << sq_kv_bits(f)) - 1) * 0.5f; }

/* ---- weights: what rows have in common is done for all at once ------------------------------- */

/* Lane i: the sum, by the tree of R1, of v[i]. So one chain of dependent operations serves all rows. */
BLOCK __m256 trees(int R, const __m512 *v) {
    const __m128 lo = lane_tree4(v[0], v[R > 1 ? 1 : 0], v[R > 2 ? 2 : 0], v[R > 3 ? 3 : 0]);
    const __m128 hi = R > 4 ? lane_tree4(v[4], v[R - 1], v[4], v[4]) : lo;
    return _mm256_set_m128(hi, lo);
}

/* The same in any order: lane i of the result is of the lanes of the i-th operand. */
BLOCK __m128 max4(__m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)),
                 cd = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 x = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    return _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
}

BLOCK __m128i add4(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)),
                  cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i x = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i y = _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
}

/* Steps of rows and their inverses; most: lanes of a row's weights, one of them the largest magnitude. */
BLOCK void set_steps(int R, floats *f, const __m512 *most) {
    const __m128 lo = max4(most[0], most[R > 1 ? 1 : 0], most[R > 2 ? 2 : 0], most[R > 3 ? 3 : 0]);
    const __m256 A = _mm256_set_m128(R > 4 ? max4(most[4], most[R - 1], most[4], most[4]) : lo, lo);
    const __mmask8 any = _mm256_cmp_ps_mask(A, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ) &
                         _mm256_cmp_ps_mask(A, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);
    const __m256 planes = _mm256_set1_ps(SQ_KV_PLANES);
    _mm256_store_ps(f->inv, _mm256_maskz_div_ps(any, planes, A));
    _mm256_store_ps(f->step, _mm256_maskz_div_ps(any, A, planes));
}

/* sum: lanes of a row's integers. */
BLOCK void set_bases(int R, floats *f, sq_kv_format fmt, const __m512i *sum, const __m512 *zdot) {
    const __m128i lo = add4(sum[0], sum[R > 1 ? 1 : 0], sum[R > 2 ? 2 : 0], sum[R > 3 ? 3 : 0]);
    const __m128i hi = R > 4 ? add4(sum[4], sum[R - 1], sum[4], sum[4]) : lo;
    const __m256 total = _mm256_cvtepi32_ps(_mm256_set_m128i(hi, lo));
    const __m256 c = _mm256_mul_ps(_mm256_load_ps(f->step), _mm256_set1_ps(centre(fmt)));
    _mm256_store_ps(f->base, _mm256_fnmadd_ps(c, total, trees(R, zdot)));
}

/* ---- weights and codes in halves --------------------------------------------------------------- */

/* What a line of codes becomes before rows use it: itself; or its even and odd codes. */
typedef struct {
    __m512i half[2 - VNNI];
} codes;

#if VNNI

BLOCK __m512i add_words(__m512i sum, __m512i W) {
    return _mm512_dpwssd_epi32(sum, W, _mm512_set1_epi16(1));
}
BLOCK __m512i plane_hi(__m512i W) { return _mm512_srai_epi16(W, 7); }
BLOCK __m512i plane_lo(__m512i W) { return _mm512_and_si512(W, _mm512_set1_epi16(127)); }
/* Both halves of 64 weights in x and y, as `integers` gives them: half n of quad x' of lane l at 4 l + x'. */
BLOCK void split_two(__m512i x, __m512i y, int32_t *h0, int32_t *h1) {
    _mm512_store_si512(h0, _mm512_packs_epi16(plane_hi(x), plane_hi(y)));
    _mm512_store_si512(h1, _mm512_packs_epi16(plane_lo(x), plane_lo(y)));
}
/* Of 32: half n of quad x' of lane l at 4 l + 2 n + x'. */
BLOCK __m512i split_one(__m512i W) { return _mm512_packs_epi16(plane_hi(W), plane_lo(W)); }

/* Bits [shift, shift + bits) of each byte. */
BLOCK codes codes_of(__m512i line, int bits, int shift) {
    if (bits == 8) return (codes){{line}};
    const __m512i v = _mm512_srli_epi16(line, (unsigned)shift);
    return (codes){{_mm512_and_si512(v, _mm512_set1_epi8((char)((1 << bits) - 1)))}};
}
BLOCK __m512i add_dots(__m512i sum, codes u, int half, int32_t w) {
    (void)half;
    return _mm512_dpbusd_epi32(sum, u.half[0], _mm512_set1_epi32(w));
}
BLOCK __m512i whole(__m512i h0, __m512i h1) { return _mm512_add_epi32(_mm512_slli_epi32(h0, 7), h1); }

#else

BLOCK __m512i add_words(__m512i sum, __m512i W) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(W, _mm512_set1_epi16(1)));
}
/* Of 32: even (n = 0) and odd weights of quad x' of lane l at 4 l + 2 n + x'. */
BLOCK __m512i split_one(__m512i W) {
    const __m128i at = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    return _mm512_shuffle_epi8(W, _mm512_broadcast_i32x4(at));
}
/* Both halves of 64 weights in x and y: half n of quad x' of lane l at 4 l + x'. */
BLOCK void split_two(__m512i x, __m512i y, int32_t *h0, int32_t *h1) {
    const __m512i a = split_one(x), b = split_one(y);
    _mm512_store_si512(h0, _mm512_unpacklo_epi64(a, b));
    _mm512_store_si512(h1, _mm512_unpackhi_epi64(a, b));
}

BLOCK codes codes_of(__m512i line, int bits, int shift) {
    const __m512i mask = _mm512_set1_epi16((short)((1 << bits) - 1));
    const __m512i odd = _mm512_srli_epi16(line, (unsigned)shift + 8);
    return (codes){{_mm512_and_si512(_mm512_srli_epi16(line, (unsigned)shift), mask),
                    bits == 8 ? odd : _mm512_and_si512(odd, mask)}};
}
BLOCK __m512i add_dots(__m512i sum, codes u, int half, int32_t w) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(u.half[half], _mm512_set1_epi32(w)));
}
BLOCK __m512i whole(__m512i h0, __m512i h1) { return _mm512_add_epi32(h0, h1); }

#endif

/* 32 weights as integers of 16 bits: a, b, a, b by fours; their sums go into sum. */
BLOCK __m512i integers(const float *a, const float *b, __m512 inv, __m512i *sum) {
    const __m512i W = _mm512_packs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(a), inv)),
                                         _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(b), inv)));
    *sum = add_words(*sum, W);
    return W;
}

/* ---- scores ---------------------------------------------------------------------------------- */

BLOCK __m512 key_scale(const uint8_t *code) {
    const __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(c, 20), _mm512_set1_epi32(112 << 23)));
}

/* Query rows with the scales of a tile in them. */
BLOCK void set_key_weights(int R, block *b, int32_t j) {
    const sq_kv_format f = b->a->k_fmt;
    const int32_t d = b->a->d;
    const uint8_t *params = (const uint8_t *)b->a->k[j] + sq_kv_code_bytes(f, d), *z = params + sq_kv_k_z(d);
    const float *q = b->a->q + (size_t)b->row0 * b->a->ldq;
    key_weights *k = &b->k[j % 2];
    __m512 most[ROWS], zdot[ROWS];
    __m512i sum[ROWS];
    for (int r = 0; r < R; r++) most[r] = zdot[r] = _mm512_setzero_ps(), sum[r] = _mm512_setzero_si512();
    for (int32_t c = 0; c < d; c += 16) {
        const __m512 scale = key_scale(params + c), zc = f16_load(z + 2 * c);
        for (int r = 0; r < R; r++) {
            const __m512 qc = _mm512_loadu_ps(q + (size_t)r * b->a->ldq + (size_t)c);
            const __m512 wc = _mm512_mul_ps(qc, scale);
            most[r] = _mm512_range_ps(most[r], wc, 0x0b); /* the larger magnitude, positive */
            zdot[r] = _mm512_fmadd_ps(qc, zc, zdot[r]);
            _mm512_store_ps(b->w[c / 16][r], wc);
        }
    }
    for (int32_t c = d; c % 64; c += 16)
        for (int r = 0; r < R; r++) _mm512_store_ps(b->w[c / 16][r], _mm512_setzero_ps());
    set_steps(R, &k->f, most);
    for (int32_t c = 0; c < d; c += 64)
        for (int r = 0; r < R; r++) {
            const __m512 inv = _mm512_set1_ps(k->f.inv[r]);
            const __m512i x = integers(b->w[c / 16][r], b->w[c / 16 + 1][r], inv, &sum[r]),
                          y = integers(b->w[c / 16 + 2][r], b->w[c / 16 + 3][r], inv, &sum[r]);
            split_two(x, y, k->q[r][0] + c / 4, k->q[r][1] + c / 4);
        }
    set_bases(R, &k->f, f, sum, zdot);
}

/* Codes of the 16 tokens of half h, of quad 4 x + l of channels. */
BLOCK codes key_codes(sq_kv_format f, const uint8_t *k, int32_t x, int l, int h) {
    const int line = f == SQ_KV_Q8 ? 8 * x + 2 * l + h : f == SQ_KV_Q4 ? 4 * x + l : 2 * x + l / 2;
    const int shift = f == SQ_KV_Q8 ? 0 : f == SQ_KV_Q4 ? 4 * h : 4 * (l % 2) + 2 * h;
    return codes_of(_mm512_load_si512(k + (size_t)line * 64), sq_kv_bits(f), shift);
}

BLOCK void tile_scores(int R, sq_kv_format f, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *k = (const uint8_t *)a->k[j];
    const key_weights *w = &b->k[j % 2];
    const bool more = !a->asked && j + 1 < b->tile1;
    stream values = stream_of(b->cold ? a->v[j] : NULL, b->v_part, k),
           keys = stream_of(b->cold && more ? a->k[j + 1] : NULL, b->k_part, k);
    __m512i h0[ROWS][2], h1[ROWS][2];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int h = 0; h < 2; h++) h0[r][h] = h1[r][h] =
        _mm512_setzero_si512();
    int32_t x = 0;
    do {
        const int32_t *q = w->q[0][0] + x / 4 * 16 + x % 4;
        ask(&values, LINES(f));
        ask(&keys, LINES(f));
        UNROLL for (int l = 0; l < 4; l++) {
            const codes u0 = key_codes(f, k, x, l, 0), u1 = key_codes(f, k, x, l, 1);
            UNROLL for (int r = 0; r < R; r++) {
                const int32_t *qr = q + (size_t)r * 2 * (SQ_ATTN_D_MAX / 4) + 4 * l;
                const int32_t w0 = qr[0], w1 = qr[SQ_ATTN_D_MAX / 4];
                h0[r][0] = add_dots(h0[r][0], u0, 0, w0);
                h0[r][1] = add_dots(h0[r][1], u1, 0, w0);
                h1[r][0] = add_dots(h1[r][0], u0, 1, w1);
                h1[r][1] = add_dots(h1[r][1], u1, 1, w1);
            }
        }
    } while (++x < a->d / 16);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int h = 0; h < 2; h++) {
        const __m512i dot = whole(h0[r][h], h1[r][h]);
        _mm512_store_ps(b->p[r] + SQ_KV_TILE * j + 16 * h,
                        _mm512_fmadd_ps(_mm512_set1_ps(w->f.step[r]), _mm512_cvtepi32_ps(dot),
                                        _mm512_set1_ps(w->f.base[r])));
    }
}

/* Loops whose sums fill the registers are functions of their own: inlined, they would spill for the constants
 * of what surrounds them. */
typedef void part_fn(block *b, int32_t at);
#define SCORES(R, F)                                                                                         \
    static __attribute__((noinline)) void scores_##R##_##F(block *b, int32_t j) {                            \
        tile_scores(R, SQ_KV_##F, b, j);                                                                     \
    }
FOR_ROWS(SCORES)
#undef SCORES
#define NAME(R, F) [R][SQ_KV_##F] = scores_##R##_##F,
static part_fn *const scores_of[ROWS + 1][SQ_KV_FORMATS] = {FOR_ROWS(NAME)};
#undef NAME

BLOCK void scores(int R, block *b) {
    part_fn *tile = scores_of[R][b->a->k_fmt];
    set_key_weights(R, b, b->tile0);
    for (int32_t j = b->tile0; j < b->tile1; j++) {
        if (j + 1 < b->tile1) set_key_weights(R, b, j + 1);
        tile(b, j);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Probabilities with the scales of group g in them. */
BLOCK void set_value_weights(int R, block *b, int32_t g) {
    const sq_kv_format f = b->a->v_fmt;
    const sq_attn_args *a = b->a;
    const size_t at = sq_kv_code_bytes(f, a->d) + (size_t)g * SQ_KV_TILE * 2;
    __m512 most[ROWS], zdot[ROWS];
    __m512i sum[ROWS];
    for (int r = 0; r < R; r++) most[r] = zdot[r] = _mm512_setzero_ps(), sum[r] = _mm512_setzero_si512();
    for (int32_t t = SQ_KV_TILE * b->tile0; t < SQ_KV_TILE * b->tile1; t += 16) {
        const uint8_t *s = (const uint8_t *)a->v[t / SQ_KV_TILE] + at + 2 * (t % SQ_KV_TILE);
        const __m512 scale = f16_load(s), z = f16_load(s + sq_kv_v_z(a->d));
        for (int r = 0; r < R; r++) {
            const __m512 p = _mm512_load_ps(b->p[r] + t), wt = _mm512_mul_ps(p, scale);
            most[r] = _mm512_max_ps(most[r], wt);
            zdot[r] = _mm512_fmadd_ps(p, z, zdot[r]);
            _mm512_store_ps(b->w[t / 16][r], wt);
        }
    }
    set_steps(R, &b->v.f, most);
    for (int r = 0; r < R; r++) {
        const __m512 inv = _mm512_set1_ps(b->v.f.inv[r]);
        for (int32_t j = b->tile0; j < b->tile1; j++) {
            const __m512i W = integers(b->w[2 * j][r], b->w[2 * j + 1][r], inv, &sum[r]);
            _mm512_store_si512(b->v.p[r][j], split_one(W));
        }
    }
    set_bases(R, &b->v.f, f, sum, zdot);
}

/* Codes of a quad of tokens, 16 channels. */
BLOCK codes value_codes(sq_kv_format f, const uint8_t *v, size_t blocks, int quad) {
    const int bits = sq_kv_bits(f);
    return codes_of(_mm512_load_si512(v + (size_t)(quad % bits) * blocks * 64), bits, quad / bits * bits);
}

/* Channels [16 blk, 16 (blk + C)) of R rows. Meanwhile the keys of the next call are asked for, a part of
 * each tile. */
BLOCK void block_values(int R, int C, sq_kv_format f, block *b, int32_t blk) {
    const sq_attn_args *a = b->a;
    const size_t blocks = (size_t)a->d / 16;
    const int bits = sq_kv_bits(f);
    __m512i h0[ROWS][2], h1[ROWS][2];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < C; n++) h0[r][n] = h1[r][n] =
        _mm512_setzero_si512();
    int32_t j = b->tile0;
    do {
        const uint8_t *v = (const uint8_t *)a->v[j] + (size_t)blk * 64;
        const uint8_t *next = b->next[j] + (size_t)blk * b->next_part;
        for (int n = 0; n < C * LINES(f == SQ_KV_Q4 ? SQ_KV_Q8 : f); n++) fetch_far(next, (size_t)n * 64);
        UNROLL for (int i = 0; i < SQ_KV_TILE / 4; i++) { /* the quads of a line one after the other */
            const int line = i * bits / 8, quad = line + i % (8 / bits) * bits;
            codes u[2];
            for (int n = 0; n < C; n++) u[n] = value_codes(f, v + 64 * n, blocks, quad);
            UNROLL for (int r = 0; r < R; r++) {
                const int32_t *p = b->v.p[r][j] + 4 * (quad % 4) + quad / 4;
                for (int n = 0; n < C; n++) h0[r][n] = add_dots(h0[r][n], u[n], 0, p[0]);
                for (int n = 0; n < C; n++) h1[r][n] = add_dots(h1[r][n], u[n], 1, p[2]);
            }
        }
    } while (++j < b->tile1);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int n = 0; n < C; n++) {
        const __m512 dot = _mm512_cvtepi32_ps(whole(h0[r][n], h1[r][n]));
        const __m512 o = _mm512_fmadd_ps(_mm512_set1_ps(b->v.f.step[r]), dot, _mm512_set1_ps(b->v.f.base[r]));
        _mm512_storeu_ps(a->o + (size_t)(b->row0 + r) * a->ldo + 16 * (blk + n),
                         _mm512_add_ps(o, _mm512_setzero_ps()));
    }
}

#define VALUES(R, F)                                                                                         \
    static __attribute__((noinline)) void values_##R##_##F(block *b, int32_t blk) {                          \
        block_values(R, 2, SQ_KV_##F, b, blk);                                                               \
    }                                                                                                        \
    static __attribute__((noinline)) void half_values_##R##_##F(block *b, int32_t blk) {                     \
        block_values(R, 1, SQ_KV_##F, b, blk);                                                               \
    }
FOR_ROWS(VALUES)
#undef VALUES
#define NAME(R, F) [R][SQ_KV_##F] = {half_values_##R##_##F, values_##R##_##F},
static part_fn *const values_of[ROWS + 1][SQ_KV_FORMATS][2] = {FOR_ROWS(NAME)};
#undef NAME

BLOCK void values(int R, block *b) {
    part_fn *const *part = values_of[R][b->a->v_fmt];
    for (int32_t g = 0; g < sq_kv_groups(b->a->d); g++) {
        const int32_t first = g * (SQ_KV_GROUP / 16), left = b->a->d / 16 - first;
        const int32_t end = first + (left < SQ_KV_GROUP / 16 ? left : SQ_KV_GROUP / 16);
        int32_t blk = first;
        set_value_weights(R, b, g);
        for (; blk + 2 <= end; blk += 2) part[1](b, blk);
        if (blk < end) part[0](b, blk);
    }
}

/* ---- a block of rows ------------------------------------------------------------------------- */

BLOCK size_t part_of(size_t bytes, int32_t d) { return sq_align_up(bytes / (size_t)(d / 16), 64); }

BLOCK void plan_streams(block *b) {
    const sq_attn_args *a = b->a;
    const bool any = b->cold && a->next;
    for (int j = 0; j < SQ_ATTN_TILES; j++)
        b->next[j] = any && a->next[j] ? (const uint8_t *)a->next[j] : (const uint8_t *)b;
    b->k_part = part_of(sq_kv_k_bytes(a->k_fmt, a->d), a->d);
    b->v_part = part_of(sq_kv_v_bytes(a->v_fmt, a->d), a->d);
    b->next_part = any ? part_of(a->next_bytes, a->d) : 0;
}

BLOCK void no_values(int R, const block *b) {
    for (int r = 0; r < R; r++) memset(b->a->o + (size_t)(b->row0 + r) * b->a->ldo, 0, (size_t)b->a->d * 4);
}

BLOCK void rows_block(int R, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + R; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo / SQ_KV_TILE;
    b->tile1 = sq_div_up(hi, SQ_KV_TILE);
    if (lo < hi) {
        b->cold = b->row0 == 0;
        plan_streams(b);
        scores(R, b);
    }
    for (int r = 0; r < R; r++) softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->p[r]);
    if (lo < hi)
        values(R, b);
    else
        no_values(R, b);
    b->row0 += R;
}

/* Rows of blocks as equal as may be: 7 are 4 and 3. */
BLOCK void attn_codes(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        switch (left >= 12 ? 6 : left > 6 ? (left + 1) / 2 : left) {
        case 1: rows_block(1, &b); break;
        case 2: rows_block(2, &b); break;
        case 3: rows_block(3, &b); break;
        case 4: rows_block(4, &b); break;
        case 5: rows_block(5, &b); break;
        default: rows_block(6, &b);
        }
    }
}
