/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h - the arithmetic of the engine: signatures, and the one order of operations they all follow.
 *
 * ## One arithmetic on every machine
 *
 * Every kernel of every ISA returns the same bits as the scalar one. That is possible at full speed because
 * each sum has a fixed order that suits vector units, and because each multiply-add is a fused one on every
 * ISA (fmaf in the scalar folder). A kernel computes one output element the same way whatever M, the tile
 * range or the thread, so results cannot depend on batch size, chunking or thread count either. The rules:
 *
 *  R1  dot over k of f32 products ("lane sum"): 16 lanes, acc[l] = fma(a[i], b[i], acc[l]) for i = l, l+16,
 *      ... in rising order from acc = +0; missing elements of the last 16 count as a = b = +0. Then the tree:
 *      acc[l] += acc[l+8] for l < 8, then +4, +2, +1.
 *  R2  integer groups: for k group g in rising order, from acc = +0:
 *          t   = scale_w * scale_x                   (rounded once)
 *          acc = fma(t, (float)idot, acc)            idot = exact sum of code_w * code_x over the 64 columns
 *          acc = fma(bias_w, xsum, acc)              types with bias; xsum = scale_x * (float)(sum of code_x)
 *      Types whose scales cover `sub` < 64 columns (sq_wtype_info.sub) do this once per run of `sub` columns
 *      in rising order, with the exact idot of the run and xsum = scale_x * (float)(its sum of code_x, from
 *      isum16).
 *      One scale per row: acc = fma(scale_x, (float)idot, acc) for each g; y = acc * scale_row at the end.
 *      T2_ROW: idot is of the values -1, 0, 1 (code - 1).
 *      Foreign types are what sq_row_unpack says, 256 columns at a time: acc goes on from panel to panel.
 *      Lanes are rows: no horizontal sums.
 *  R3  exp is sq_exp of the contract below; division and square root are IEEE.
 *  R4  attention scores of one token: fma over channels c = 0, 1, ..., d-1 from +0 (lanes are tokens).
 *      Probabilities are summed as in R1 without products (acc[t % 16] += p[t]).
 *      Values: o[c] = fma(p[t], v[t][c], o[c]), t rising from +0 (lanes are channels). At the end +0 is added
 *      to m and to every o[c]: the sign of a zero then does not depend on which unseen slots (p = +0) a
 *      kernel walked over. A row given m_run drops every tile whose largest score, over what the row sees of
 *      it, is < max(m_run, m) - skip: such tokens have p = +0 (m is still over all that is seen).
 *  R7  keys and values of a chunk in 8 bits (Sage). For each channel over the 256 tokens: lo = min + 0,
 *      hi = max + 0, r = hi - lo, step = r / 255, z = fma(step, 127.5, lo), u = rint((x - lo) * i) with
 *      i = 255 / r, or 0 where r is 0. A query row becomes integers once a chunk: w[c] = q[c] * step_k[c],
 *      A = max |w|; A < 2^-100 or not finite: scale = 0 and all W = 0; else scale = A / 127,
 *      W[c] = rint(w[c] * (127 / A)).
 *          base = fma(-(scale * 127.5), (float)(sum of W), R1(q, z_k))
 *          s[t] = fma(scale, (float)(sum over c of W[c] * u_k[t][c]), base)     exact sums: below 2^24
 *      m, dropped tiles and p as in R4. P[t] = rint(p[t] * 16256), L = sum of P, k = 1 / 16256 rounded.
 *          l    = (float)L * k
 *          e    = fma((float)L, -127.5, (float)(sum over t of P[t] * u_v[t][c]))
 *          o[c] = fma(step_v[c] * k, e, z_v[c] * l) + 0
 *  R8  a pooled block of 64 keys (Sparge): mean[c] = (16 lanes of sums over t, t+16, ..., and the tree of R1)
 *      / 64. norm[t] = the sum over c of fma(x, x, .); inv[t] = norm > 0 ? 1 / sqrt(norm) : 0. unit[c] = the
 *      same lanes and tree over x * inv[t]; alike = R1(unit, unit) / 4096.
 *
 *  R5  sealed tiles (quant_kv.h). n weights w become integers of 15 bits: A = max |w|; A < 2^-100 or not
 *      finite: step = 0 and all W = 0; else step = A / 16256, W[i] = rint(w[i] * (16256 / A)), nearest even.
 *      With any set of codes u [n] of b bits, dot = sum of W * u and sum = sum of W, both exact in int32:
 *          base  = fma(-(step * c), (float)sum, zdot)         c = (2^b - 1) / 2
 *      scores   s[t] = fma(step, (float)dot, base)            over channels: w = q * s_k, zdot = R1(q, z_k)
 *      values   o[c] = fma(step, (float)dot, base) + 0        over the tokens of the call, per group of 64
 *               channels: w = p * s_v, zdot = R1(p, z_v)
 *      m, l as in R4. The tokens of a call are those of its tiles: where a row does not see, p = +0.
 *  R6  sealing: z = f16((min + max) / 2 + 0); step = max(max - z, z - min) / c + 0; s = step rounded up (K:
 * to 5 + 3 bits, V: to f16); u = rint(fma(x - z, 1 / s, c)), held within [0, 2 c]; s = 0 (V): 1 / s is 0.
 *
 *  R10 nearest rows of a codebook: s[c] = half[c]; s[c] = fma(-x[k], rows[k][c], s[c]) for k = 0 .. 7; the
 *      first c whose s[c] is least.
 *
 *  R9  fewer bits from codes (the "equivalent right shift" of PM-KVQ, exact): z stays. With largest codes m
 * of the old bits and n of the new, s' = s * (m / n) rounded up as in R6, r = s / s' (0 where s' is 0), and
 *      u' = rint(fma(u - m / 2, r, n / 2)), held within [0, n].
 *
 * sq_exp(x): x < -87 (also -inf) gives +0; x > 88 is taken as 88; NaN stays NaN (any payload). Otherwise
 *      n = rint(x * 0x1.715476p+0f)                    one rounded multiply, then round to nearest even
 *      r = fma(n, -0x1.62e4p-1f, x);  r = fma(n, -0x1.7f7d1cp-20f, r)
 *      p = 0x1.6850e4p-10f;  p = fma(p, r, 0x1.123bccp-7f);  p = fma(p, r, 0x1.555b98p-5f);
 *      p = fma(p, r, 0x1.55548ep-3f);  p = fma(p, r, 0x1.fffff8p-2f);
 *      p = fma(p, r, 1.0f);            p = fma(p, r, 1.0f)
 *      result = p * 2^n by adding n << 23 to the bits of p    (n in [-126, 127], p in [0.7, 1.42])
 *
 * Shapes: M rows of activations x [M][cols], weights W [rows, cols], y [M][ldy]. Nothing aliases unless said.
 * Kernels allocate nothing, cannot fail, and are safe on disjoint tile or row ranges from several threads.
 * Pointers to f32 are 4-byte aligned; weight data may be unaligned for row-major types, are 64-byte aligned
 * for packed types in a container and 16-byte aligned elsewhere. */
#ifndef SQ_KERNELS_H
#define SQ_KERNELS_H

#include "quant/quant.h"
#include "quant/quant_kv.h"

/* M rows of activations, in both forms a matrix may want. Columns are padded with zeros to ld, a multiple
 * of 64. */
typedef struct {
    int32_t m, cols;
    int32_t groups;       /* ceil(cols / 64); ld = groups * 64 */
    const float *f;       /* [m][ld] f32 */
    const int8_t *q;      /* [m][ld] codes in [-127, 127]; 64-byte aligned rows. NULL if not quantised */
    const float *scale;   /* [m][groups] */
    const float *xsum;    /* [m][groups] scale * (float)isum */
    const int32_t *isum;  /* [m][groups] sum of the 64 codes */
    const int16_t *isum16;/* [m][groups][4] sums of 16 codes each, for weights with finer scales */
} sq_act;

/* y[i*ldy + r] = W[r] . x[i] for all i < x->m and rows r of tiles [tile0, tile1). Rows past w->rows are not
 * written. */
typedef void sq_gemm_fn(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                        size_t ldy);
typedef sq_gemm_fn sq_gemm_f_fn; /* reads x->f */
typedef sq_gemm_fn sq_gemm_q_fn; /* reads x->q, scale, xsum, isum */

/* Quantise groups [g0, g1) of one row: a = max|x| over the group; scale = a / 127 (0: scale 0, codes 0),
 * inv = 127 / a, code = rint(x * inv) to nearest even. a < 2^-100 counts as 0: 127 / a must not overflow.
 * A group with an infinity or a NaN gets codes 0 and scale = xsum = NaN: a broken model is seen, not hidden.
 * x [ld] f32, q [ld]; scale, xsum, isum [groups], indexed by g; isum16 [groups][4]. */
typedef void sq_quant_act_fn(const float *x, int32_t g0, int32_t g1, int8_t *q, float *scale, float *xsum,
                             int32_t *isum, int16_t *isum16);
/* isum16 of one group of codes. */
static inline void sq_isum16(const int8_t *q, int16_t *isum16) {
    for (int32_t s = 0; s < 4; s++) {
        int32_t sum = 0;
        for (int32_t k = 0; k < 16; k++) sum += q[16 * s + k];
        isum16[s] = (int16_t)sum;
    }
}

/* y[i] = x[i] * r * w[i], r = 1 / sqrt(lanesum(x*x) / n + eps): s = R1 sum; v = s / (float)n; v = v + eps;
 * r = 1.0f / sqrtf(v); y = (x[i] * r) * w[i]. y may be x. */
typedef void sq_rmsnorm_fn(const float *x, const float *w, int32_t n, float eps, float *y);

/* Rotate pairs (i, i + half) of one head row x [2*half] in place: a = x[i], b = x[i+half];
 * x[i] = fma(a, cos[i], -(b * sin[i])); x[i+half] = fma(b, cos[i], a * sin[i]).
 * rope_pairs: the same with a = x[2i], b = x[2i+1], as GGUF files of the llama family have their rows. */
typedef void sq_rope_fn(float *x, const float *cos, const float *sin, int32_t half);

/* x[i] += y[i] */
typedef void sq_add_fn(float *x, const float *y, int32_t n);

/* h[i] = act(g[i]) * u[i]; h may be g.
 *   silu_mul: (g / (1 + sq_exp(-g))) * u
 *   relu2_mul: (r * r) * u, r = g > 0 ? g : 0 (BitNet)
 *   gelu_mul: (g / (1 + sq_exp(-2 z))) * u, the tanh form,
 *             z = (g * 0x1.988454p-1f) * fma(g * g, 0x1.6e4e26p-5f, 1) */
typedef void sq_glu_fn(const float *g, const float *u, int32_t n, float *h);

/* ---- attention over tiles of 32 tokens ------------------------------------------------------- */

enum {
    SQ_ATTN_CHUNK = 256,
    SQ_POOL_KEYS = 64, /* tokens */
    SQ_ATTN_TILES = SQ_ATTN_CHUNK / SQ_KV_TILE,
    SQ_ATTN_D_MAX = 512,
    SQ_LATENT_D_MAX = 1024,
    SQ_SAGE_ONE = 127 * 128,   /* a probability of 1, in two planes of 7 bits where that is needed */
    SQ_KV_PLANES = SQ_SAGE_ONE /* integers of R5 are 128 hi + lo, hi and lo of 7 bits and a sign */
};
_Static_assert(255 * 127 * SQ_ATTN_D_MAX < 1 << 24, "a dot product of R7 is exact as a float");
_Static_assert(255 * (int64_t)SQ_SAGE_ONE * SQ_ATTN_CHUNK <= INT32_MAX, "and those of its values fit int32");
_Static_assert(255 * (int64_t)SQ_KV_PLANES * SQ_ATTN_D_MAX <= INT32_MAX, "a dot product of R5 fits int32");
_Static_assert(255 * (int64_t)SQ_KV_PLANES * SQ_ATTN_CHUNK <= INT32_MAX, "and those of its values as well");

/* Keys or values of a chunk in 8 bits: a view of what seal_keys or seal_values wrote. */
typedef struct {
    const uint8_t *codes;
    const float *step, *z;
} sq_sealed;

/* R9, attn_latent: a tile is token-major [32][d], keys and values in one. s[t] = R1(q, row t) over all d
 * channels; m, p and l as in R4; o[c] = fma(p[t], row t[c], o[c]) for c < d_out, + 0 at the end. */

/* One chunk of one KV head for a block of query rows that share it (G heads times some tokens).
 *   q     [n_q][d] f32, rotated and multiplied by the softmax scale; row i at q + i * ldq
 *   k[j]  tile j of the chunk, channel-major f16 [d][32];  v[j] token-major f16 [32][d];
 *         a tile whose k[j] is NULL is seen by no row
 *   row i sees tokens [lo[i], hi[i]) of the chunk, 0 <= lo <= hi <= 256; none: m = -inf, l = 0, o = 0
 * attn_f32 reads tiles of the same shape whose elements are f32, attn_codes sealed tiles of k_fmt and v_fmt
 * (the pointers are cast; none that lies between tiles that rows see is NULL). attn_sage reads sealed_k
 * and sealed_v; k[j] then only says which tiles are seen.
 * Results: m [n_q] largest score, l [n_q] sum of exp(s - m), o [n_q][d] sum of exp(s - m) * v; row i at
 * o + i * ldo. d is a multiple of 16, at most 512; with d_out, of latent tiles, at most 1,024. Slots a row
 * may not see are finite numbers. */
typedef struct {
    const float *q;
    size_t ldq;
    int32_t n_q, d;
    const uint16_t *const *k, *const *v; /* [8] */
    const int32_t *lo, *hi;              /* [n_q] */
    float *m, *l, *o;
    size_t ldo;
    const float *m_run;                  /* [n_q] running maxima that tiles are dropped against, or NULL */
    float skip;                          /* by how much; >= 0 */
    sq_sealed sealed_k, sealed_v;        /* attn_sage only */
    sq_kv_format k_fmt, v_fmt;           /* attn_codes only */
    int32_t d_out;                       /* attn_latent only: k[j] are its tiles, o is [n_q][d_out] */
    bool asked;                          /* the call before had these keys as its next */
    const uint16_t *const *next;         /* [8] keys that the next call reads, or NULL; they change nothing */
    size_t next_bytes;                   /* of each of them */
} sq_attn_args;
typedef void sq_attn_fn(const sq_attn_args *a);

/* R7: all 8 tiles, all of them there, to codes [8][32 d], 64-byte aligned, step and z [d]. In a tile of
 * codes, key channel c of token t lies at (c / 4) * 128 + 4 t + c % 4, value channel c of token t at
 * (t / 4 * d / 16 + c / 16) * 64 + 4 (c % 16) + t % 4: a line is 16 sums of four products. */
typedef void sq_seal_fn(const uint16_t *const *tiles, int32_t d, uint8_t *codes, float *step, float *z);

/* R8: the two tiles of a block of 64 keys to mean [d]; returns how alike the keys are, 1: all of one
 * direction, near 0: of none. d is at most 512. */
typedef float sq_pool_keys_fn(const uint16_t *const *k, int32_t d, float *mean);

/* Fold a chunk's (mc, lc, oc) into the running (m, l, o) of one row; chunks come in rising order; start with
 * m = -inf, l = 0, o = 0.
 *   mc = -inf: nothing. M = max(m, mc); a = sq_exp(m - M); b = sq_exp(mc - M);
 *   l = fma(lc, b, l * a);  o[c] = fma(oc[c], b, o[c] * a);  m = M */
typedef void sq_attn_merge_fn(float *m, float *l, float *o, float mc, float lc, const float *oc, int32_t d);

/* Store one token in slot t (0..31) of a tile: k[c][t] = f16(krow[c]), v[t][c] = f16(vrow[c]). Round to
 * nearest even; values past the range of f16 become +-65504 (never inf). kv_put_f32 stores f32 as is. */
typedef void sq_kv_put_fn(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                          uint16_t *v);

/* An open f16 tile into a sealed one (R6). k [d][32], v [32][d] f16, all finite; k_out, v_out:
 * sq_kv_k_bytes(k_fmt, d), sq_kv_v_bytes(v_fmt, d), 64-byte aligned, all of them written. */
typedef struct {
    int32_t d;
    sq_kv_format k_fmt, v_fmt;
    const uint16_t *k, *v;
    uint8_t *k_out, *v_out;
} sq_kv_seal_args;
typedef void sq_kv_seal_fn(const sq_kv_seal_args *a);

/* A sealed tile in fewer bits (R9), or in as many: then a copy. All pointers 64-byte aligned. */
typedef struct {
    int32_t d;
    sq_kv_format k_from, k_to, v_from, v_to;
    const uint8_t *k, *v;
    uint8_t *k_out, *v_out;
} sq_kv_shrink_args;
typedef void sq_kv_shrink_fn(const sq_kv_shrink_args *a);

/* ---- making tiles, judging them ----------------------------------------------------------------- */

/* Of n vectors of 8, vector i at x + i * stride, the nearest of 256 rows (R10), whose channels lie apart:
 * book is rows [8][256] and half of each row's square [256]. All finite. code [n]. */
enum { SQ_PQ_DIMS = 8, SQ_PQ_ROWS = 256, SQ_PQ_BOOK = (SQ_PQ_DIMS + 1) * SQ_PQ_ROWS };
typedef void sq_pq_nearest_fn(const float *x, size_t stride, int32_t n, const float *book, uint8_t *code);

/* Row tile of e from n_rows <= 16 source rows of type src (F32, F16, BF16; row r at rows + r * row_bytes,
 * maybe unaligned): sq_row_to_f32, then sq_quant_tile, to the same bytes on every ISA. */
typedef void sq_encode_fn(const sq_encoding *e, sq_wtype src, const uint8_t *rows, size_t row_bytes,
                          int32_t n_rows, int32_t cols, uint8_t *out);

/* Row r of w, of a packed type, into back [cols], and its distance to row [cols] added to f: sq_weight_row
 * and sq_fidelity_row, to the same bits on every ISA. w's low-rank terms are left out. */
typedef void sq_compare_fn(const sq_weight *w, int32_t r, const float *row, float *back, sq_fidelity *f);

/* ---- what the machine can do at all ---------------------------------------------------------- */

/* Probes for the bench: the best of each instruction set with nothing around it. Results are sums that are
 * known beforehand, so nothing can be left out.
 *   probe_read: the exclusive or of the 64-bit words of p; bytes is a multiple of 1024, p 64-byte aligned
 *   probe_dots: rounds * the sum of w[k] * x[k], modulo 2^32, into *sum; w at most 127. The operations that
 *     this took all accumulators (2 for each product) are returned
 *   probe_fma: acc = fma(acc, a, b) for all rounds from acc = +0, into *sum; operations as above */
typedef uint64_t sq_probe_read_fn(const void *p, size_t bytes);
typedef uint64_t sq_probe_dots_fn(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum);
typedef uint64_t sq_probe_fma_fn(int32_t rounds, float a, float b, float *sum);

/* ---- the table ------------------------------------------------------------------------------- */

typedef struct {
#define SQ_KERNEL(field, fn) fn *field;
#define SQ_KERNEL_SCALAR_ONLY SQ_KERNEL
#include "kernels/kernels.def"
#undef SQ_KERNEL_SCALAR_ONLY
#undef SQ_KERNEL
    const char *isa; /* what the table was filled with, e.g. "avx512+vnni" */
} sq_kernels;

typedef enum { SQ_ISA_SCALAR, SQ_ISA_AVX2, SQ_ISA_AVX512, SQ_ISA_NEON, SQ_ISA_COUNT } sq_isa;

/* Fill the whole table: scalar first, then every ISA that `features` (SQ_CPU_*) has, oldest first, up to
 * isa_max (SQ_ISA_COUNT: no cap). No entry is ever NULL. */
void sq_kernels_select(sq_kernels *k, uint32_t features, sq_isa isa_max);
/* "scalar", "avx2", "avx512", "neon"; false for another name. NULL or "" gives SQ_ISA_COUNT. */
bool sq_isa_from_name(const char *name, sq_isa *out);

/* Each ISA folder has one function that overrides what it has. */
void sq_kernels_scalar(sq_kernels *k);
void sq_kernels_avx2(sq_kernels *k);
void sq_kernels_avx512(sq_kernels *k, uint32_t features);
void sq_kernels_neon(sq_kernels *k, uint32_t features);

/* The GEMM for a weight type. */
static inline sq_gemm_fn *sq_kernels_gemm(const sq_kernels *k, sq_wtype t) {
    switch (t) {
    case SQ_W_F32: return k->gemm_f32;
    case SQ_W_F16: return k->gemm_f16;
    case SQ_W_BF16: return k->gemm_bf16;
    case SQ_W_I8_ROW: return k->gemm_i8row;
    case SQ_W_I8_G64: return k->gemm_i8g64;
    case SQ_W_I4_G64: return k->gemm_i4g64;
    case SQ_W_I4_G32: return k->gemm_i4g32;
    case SQ_W_I8_G32: return k->gemm_i8g32;
    case SQ_W_I3_G64: return k->gemm_i3g64;
    case SQ_W_I2_G64: return k->gemm_i2g64;
    case SQ_W_T2_ROW: return k->gemm_t2row;
    default: return k->gemm_foreign;
    }
}
static inline bool sq_wtype_wants_q8(sq_wtype t) { return t >= SQ_W_I8_ROW; }

#endif
