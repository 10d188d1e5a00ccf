/* SPDX-License-Identifier: Apache-2.0
 *
 * quant.h - weight types: how a matrix W [rows, cols] lies in memory, how it is made and how it is read back.
 *
 * rows = outputs, cols = inputs (the dimension a dot product runs over). Quantised types group along cols.
 *
 * Row-major types (F32, F16, BF16) are the checkpoint's own bytes, row after row, possibly unaligned.
 *
 * Packed types use the layout T16x4, the same on every ISA: 16 rows by 64 columns make a record, the records
 * of 16 rows lie in order of k and make a row tile, row tiles follow each other. Within a record byte[64c +
 * 4r + b] belongs to row r, so one 64-byte line feeds 16 rows with 4 consecutive columns each: the shape of
 * an int8 dot-product instruction.
 *
 *   I4_G64   record 576 B, 8 lines of codes then scales and biases:
 *            line c of 0..7, byte 4r+b: low nibble = code[r][4c+b], high nibble = code[r][32+4c+b]
 *            then scale[16] u16, bias[16] u16.         value = scale * code + bias, code 0..15       4.5 bpw
 *   I8_G64   row tile = all lines of codes (16 per record), then the scales u16 [groups][16], padded to 64
 *            bytes: line c of 0..15, byte 4r+b = code[r][4c+b] as s8 in [-127, 127].
 *            value = scale * code                                                                    8.25 bpw
 *   I8_ROW   as I8_G64, but one f32 scale per row: f32[16] after the codes. value = scale * code     8.0x bpw
 *   I4_G32   record 640 B: the codes of I4_G64, then scale[2][16] u16, bias[2][16] u16; [0] for columns 0..31
 *            of the record, [1] for 32..63.                                                          5.0 bpw
 *   I8_G32   as I8_G64 with scales u16 [2 * groups][16]                                              8.5 bpw
 *   I3_G64   record 448 B: low plane 256 B, high plane 128 B, scale[16], bias[16]. code = low + 4 * high.
 *            low:  line c of 0..3, byte 4r+b, bit pair p of 0..3: column 16p + 4c + b
 *            high: line h of 0..1, byte 4r+b, bit i of 0..7: column 32h + 4i + b                     3.5 bpw
 *            so the high bit of (p, c) is bit 4(p & 1) + c of line p >> 1
 *   I2_G64   record 320 B: the low plane, scale[16], bias[16].                                       2.5 bpw
 *   T2_ROW   ternary (BitNet b1.58, arXiv:2402.17764): record 256 B, the low plane, code 0..2; f32[16] scales
 *            after the row tile's codes. value = scale * (code - 1)                                  2.0x bpw
 *
 * Scales (and biases) are F16 or BF16 as scale_type says: an MLX model comes in and goes out bit by bit.
 * Padding: rows up to 16 with scale = bias = 0, columns up to 64 with code 0 (T2_ROW: 1); activations there
 * are 0, too.
 *
 * Foreign types are files of others, used where they lie: rows of GGUF blocks (row-major, K within a row),
 * and SQ_W_AFFINE, row-major codes with scales and biases beside them (MLX directories, npy tiers). Kernels
 * unpack 16 rows by 256 columns of them at a time into s8 codes (sq_row_unpack) and go on as with packed
 * types.
 *
 * A type needs one row in the table of quant_types.c. Everything here is pure; safe from any thread. */
#ifndef SQ_QUANT_H
#define SQ_QUANT_H

#include "base/base.h"

/* Numbers are on disk (.sqw): append only. */
typedef enum {
    SQ_W_F32, SQ_W_F16, SQ_W_BF16, SQ_W_I8_ROW, SQ_W_I8_G64, SQ_W_I4_G64,
    SQ_W_I4_G32, SQ_W_I8_G32, SQ_W_I3_G64, SQ_W_I2_G64, SQ_W_T2_ROW,
    SQ_W_Q4_0, SQ_W_Q4_1, SQ_W_Q5_0, SQ_W_Q5_1, SQ_W_Q8_0, /* blocks of 32 */
    SQ_W_Q2_K, SQ_W_Q3_K, SQ_W_Q4_K, SQ_W_Q5_K, SQ_W_Q6_K, SQ_W_TQ1_0, SQ_W_TQ2_0, /* blocks of 256 */
    SQ_W_AFFINE,           /* never in a .sqw */
    SQ_W_COUNT
} sq_wtype;
typedef enum { SQ_SCALE_F16, SQ_SCALE_BF16, SQ_SCALE_F32 } sq_scale_type; /* F32: one per row, AFFINE */

enum {
    SQ_TILE_ROWS = 16, SQ_GROUP = 64,
    SQ_I4_RECORD = 576, SQ_I4_G32_RECORD = 640, SQ_I8_RECORD = 1024, SQ_I3_RECORD = 448, SQ_I2_RECORD = 320,
    SQ_T2_RECORD = 256,
    SQ_PANEL = 256         /* columns of a foreign type unpacked at a time */
};

typedef enum {
    SQ_LAYOUT_ROWS,        /* f32, f16, bf16: elements row after row */
    SQ_LAYOUT_T16X4,
    SQ_LAYOUT_FOREIGN
} sq_layout;

typedef struct {
    const char *name;      /* "int4-g64", "q4_k" */
    int32_t bits;          /* of a code or element */
    sq_layout layout;
    int32_t record_bytes;  /* T16x4: per 16 x 64, without scales that follow the row tile; else 0 */
    int32_t block, block_bytes; /* GGUF: columns and bytes of a block; else 0 */
    int32_t sub;           /* columns that share a scale: 64, 32 or 16; 0: all of a row, or no scale.
                              AFFINE: 32, the granule its kernels work in */
    bool bias;             /* value = scale * code + bias; else scale * code */
    bool halves;           /* scale_type is F16 or BF16 */
} sq_wtype_info;
const sq_wtype_info *sq_wtype_get(sq_wtype t);
static inline bool sq_wtype_packed(sq_wtype t) { return sq_wtype_get(t)->layout == SQ_LAYOUT_T16X4; }

/* How the codes of SQ_W_AFFINE are stored. */
typedef enum {
    SQ_CODES_UNSIGNED,     /* bits 2, 3, 4, 5, 6, 8: LSB first, row by row; value = scale * code + bias */
    SQ_CODES_SIGNED,       /* bits 8: two's complement; value = scale * code */
    SQ_CODES_MINUS7        /* bits 4: low nibble first; value = scale * (code - 7) */
} sq_coding;

struct sq_lowrank;

/* A weight matrix as kernels see it. A view: data belong to a mapping. */
typedef struct {
    const uint8_t *data;   /* first row tile or first row */
    int32_t rows, cols;
    int32_t groups;        /* ceil(cols / 64) */
    uint8_t wtype, scale_type;
    uint8_t bits, coding;  /* AFFINE */
    int32_t group;         /* AFFINE: columns that share a scale: 32, 64 or 128; 0: the whole row */
    size_t tile_bytes;     /* bytes of 16 rows: packed row tile, or 16 * row bytes */
    const uint8_t *scales, *biases; /* AFFINE: [rows][cols / group], maybe unaligned; biases may be NULL */
    size_t side_bytes;     /* AFFINE: bytes of 16 rows of scales */
    const struct sq_lowrank *low;   /* added to the product by the backend; kernels ignore it. NULL: none */
} sq_weight;

/* y += scale * U (V x): a low-rank term beside a matrix [rows, cols], an error compensator or an adapter. */
typedef struct sq_lowrank {
    sq_weight v;           /* [rank, cols], row-major F32, F16 or BF16 */
    sq_weight u;           /* [rows, rank], likewise */
    float scale;
    const struct sq_lowrank *next;
} sq_lowrank;

/* Fill in groups and tile_bytes. For a block type cols must be a multiple of its block. Not for AFFINE. */
sq_weight sq_weight_make(sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, const uint8_t *data);
/* An AFFINE view. cols is a multiple of 32 and of group. */
sq_weight sq_weight_affine(sq_coding coding, int32_t bits, int32_t group, sq_scale_type st, int32_t rows,
                           int32_t cols, const uint8_t *codes, const uint8_t *scales, const uint8_t *biases);
/* Bytes a matrix takes (packed rows padded to 16); false on overflow, sizes < 1, cols that are no multiple
 * of the block, and AFFINE. */
bool sq_weight_bytes(sq_wtype t, int64_t rows, int64_t cols, uint64_t *out);
/* Row tiles of W, also for row-major types: ceil(rows / 16). */
static inline int32_t sq_weight_tiles(const sq_weight *w) { return (w->rows + 15) / 16; }
/* Tiles [tile0, tile0 + n) of W, or as many as there are, as a matrix of its own. `low` is dropped. */
sq_weight sq_weight_slice(const sq_weight *w, int32_t tile0, int32_t n);

/* Decode row r to f32: out [cols], without low-rank terms. The reference of every kernel; also the embedding
 * look-up. GGUF blocks give the values of the `gguf` package bit by bit, AFFINE those of MLX. */
void sq_weight_row(const sq_weight *w, int32_t r, float *out);
/* The same with low-rank terms added (f64 sums). */
void sq_weight_row_whole(const sq_weight *w, int32_t r, float *out);

/* Foreign types. Columns [k0, k0 + 256) of row r as s8 codes [256], and scale and bias of each run of `sub`
 * columns (sq_wtype_info.sub): [256 / sub]. Past cols: codes 0, scales and biases 0. k0 is a multiple of
 * 256. value = scale * code + bias is sq_weight_row's value, except that codes of 8-bit AFFINE are shifted
 * by 128 and their bias by 128 * scale, rounded once. Types without bias leave `bias` as it is. */
void sq_row_unpack(const sq_weight *w, int32_t r, int32_t k0, int8_t *codes, float *scale, float *bias);

/* ---- number formats: exact, subnormals honoured, round to nearest even ----------------------- */

float sq_f16_to_f32(uint16_t h);
uint16_t sq_f32_to_f16(float f);
static inline float sq_bf16_to_f32(uint16_t h) {
    union { uint32_t u; float f; } v = {(uint32_t)h << 16};
    return v.f;
}
uint16_t sq_f32_to_bf16(float f); /* NaN stays quiet */
float sq_scale_to_f32(sq_scale_type t, uint16_t bits);     /* F16, BF16 */
uint16_t sq_scale_from_f32(sq_scale_type t, float f);

/* ---- making quantised tiles ------------------------------------------------------------------ */

/* Sources are finite. From others come codes in range and whatever scales: see sq_fidelity.n_nonfinite.
 *
 * A scale or bias beyond its stored type (F16 ends at 65504) is held at the largest finite number of that
 * type, never infinite; what it cannot reach shows up in the error measures. sq_scale_from_f32 itself rounds
 * to infinity.
 *
 * Quantise one group of n <= 64 weights to 4 bits:
 * rtn: lo, hi -> scale with the sign of the larger edge, that edge kept, zero on a whole code. Bit-equal to
 *      mx.quantize(w, 64, 4) of MLX's CPU backend for f32, f16 and bf16 sources alike: MLX computes in f32
 *      whatever the source type, chooses codes with scale and bias unrounded and then rounds both to the
 *      source's type, here scale_type. So a bf16 checkpoint with SQ_SCALE_BF16 gives what mlx_lm.convert
 *      writes. (MLX's Metal kernel departs from its CPU code in all-negative groups and rounds ties away.)
 * lsq: least squares over scale, bias and codes, scale and bias rounded to scale_type before codes are
 *      chosen; never a larger squared error than rtn. 1 dB better on Gaussian weights, some 15 times slower.
 * Writes codes[n] (0..15) and the stored scale and bias bits. */
void sq_quant_i4_rtn(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias);
void sq_quant_i4_lsq(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias);
/* INT8 symmetric: scale = max|w| / 127 as stored, codes round half to even of w / scale, in [-127, 127].
 * |w - value| <= scale / 2. All zero: scale and codes 0. */
void sq_quant_i8_g64(const float *w, int32_t n, sq_scale_type st, int8_t *codes, uint16_t *scale);
void sq_quant_i8_row(const float *w, int32_t n, int8_t *codes, float *scale);

typedef enum { SQ_QUANT_RTN, SQ_QUANT_LSQ } sq_quant_method; /* of affine groups; I8 and T2 have one method */

/* As above for codes of 2, 3 or 4 bits, CODE_MAX = 2^bits - 1. importance [n] > 0, or NULL for all alike: lsq
 * minimises sum importance * (w - value)^2; rtn does not look at it. */
void sq_quant_affine(int32_t bits, sq_quant_method m, const float *w, const float *importance, int32_t n,
                     sq_scale_type st, uint8_t *codes, uint16_t *scale, uint16_t *bias);
/* BitNet b1.58: code = clamp(rne(w / gamma), -1, 1) + 1; gamma 0: all 1. */
void sq_quant_ternary(const float *w, int32_t n, float gamma, uint8_t *codes);

/* What a matrix becomes. */
typedef struct {
    sq_wtype type;           /* T16x4, F32, F16 or BF16 */
    sq_scale_type scale;
    sq_quant_method method;
    const float *importance; /* [cols] weights of squared errors by column (mean x^2), or NULL */
    float gamma;             /* T2_ROW: the scale of the whole tensor */
} sq_encoding;

/* Quantise 16 rows into one row tile. rows: f32 [n_rows <= 16][cols], row r at w + r * ld. out: tile_bytes
 * of W, written whole (padding included); of row-major types n_rows rows, for they have no padding. out need
 * not be aligned. */
void sq_quant_tile(const sq_encoding *e, const float *w, size_t ld, int32_t n_rows, int32_t cols,
                   uint8_t *out);

/* Codes and side data of one row tile, in plain order: codes [n_rows][cols] (I8: s8), scale and bias
 * [n_rows] [groups of the type]; bias is NULL for types without, scale holds f32 for I8_ROW and T2_ROW (one
 * per row) and 16-bit patterns else. pack writes out whole, padding included; unpack is its inverse. */
void sq_tile_pack(sq_wtype t, int32_t n_rows, int32_t cols, const uint8_t *codes, const void *scale,
                  const uint16_t *bias, uint8_t *out);
void sq_tile_unpack(const sq_weight *w, int32_t tile, uint8_t *codes, void *scale, uint16_t *bias);

/* ---- error measures -------------------------------------------------------------------------- */

/* Sums over elements, f64; add up over tiles and threads in a fixed order. Starts as {0}. */
typedef struct {
    double ww, vv, wv, ee; /* sum w^2, v^2, w v, (w - v)^2; v = decoded */
    double max_abs;        /* largest |w - v| */
    double worst_row_rel;  /* largest |w - v| / |w| of a row; infinite where a row of 0 did not decode to 0 */
    double peak;           /* largest |w| */
    uint64_t n;            /* all elements, */
    uint64_t n_nonfinite;  /* and those where w or v is not finite: left out of the sums */
} sq_fidelity;
/* Add one row of n elements. */
void sq_fidelity_row(sq_fidelity *f, const float *w, const float *v, int32_t n);
void sq_fidelity_merge(sq_fidelity *f, const sq_fidelity *g);
double sq_fidelity_cos(const sq_fidelity *f);    /* 1 if both are zero, 0 if one is */
double sq_fidelity_snr_db(const sq_fidelity *f); /* 999 for exact, -999 for errors on a zero source */

/* Source elements to f32: n elements of type t at p, possibly unaligned. t: F32, F16 or BF16. */
void sq_row_to_f32(sq_wtype t, const uint8_t *p, int32_t n, float *out);

#endif
