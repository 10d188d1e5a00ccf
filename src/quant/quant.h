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
 *
 * Scales (and biases) are F16 or BF16 as scale_type says: an MLX model comes in and goes out bit by bit.
 * Padding: rows up to 16 with scale = bias = 0, columns up to 64 with code 0 (activations there are 0, too).
 *
 * A type needs one row in the table of quant_types.c. Everything here is pure; safe from any thread. */
#ifndef SQ_QUANT_H
#define SQ_QUANT_H

#include "base/base.h"

typedef enum { SQ_W_F32, SQ_W_F16, SQ_W_BF16, SQ_W_I8_ROW, SQ_W_I8_G64, SQ_W_I4_G64, SQ_W_COUNT } sq_wtype;
typedef enum { SQ_SCALE_F16, SQ_SCALE_BF16, SQ_SCALE_F32 } sq_scale_type; /* F32: I8_ROW only */

enum { SQ_TILE_ROWS = 16, SQ_GROUP = 64, SQ_I4_RECORD = 576, SQ_I8_RECORD = 1024 };

typedef struct {
    const char *name;      /* "int4-g64" */
    int32_t bits;          /* of a code or element */
    bool packed;           /* T16x4; else row-major */
    int32_t record_bytes;  /* per 16 x 64, without I8 scales; 0 for row-major */
} sq_wtype_info;
const sq_wtype_info *sq_wtype_get(sq_wtype t);

/* A weight matrix as kernels see it. A view: data belong to a mapping. */
typedef struct {
    const uint8_t *data;   /* first row tile or first row */
    int32_t rows, cols;
    int32_t groups;        /* ceil(cols / 64) */
    uint8_t wtype, scale_type;
    uint16_t reserved;
    size_t tile_bytes;     /* bytes of 16 rows: packed row tile, or 16 * row bytes */
} sq_weight;

/* Fill in groups and tile_bytes. */
sq_weight sq_weight_make(sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, const uint8_t *data);
/* Bytes a matrix takes (packed rows padded to 16); false on overflow or sizes < 1. */
bool sq_weight_bytes(sq_wtype t, int64_t rows, int64_t cols, uint64_t *out);
/* Row tiles of W, also for row-major types: ceil(rows / 16). */
static inline int32_t sq_weight_tiles(const sq_weight *w) { return (w->rows + 15) / 16; }

/* Decode row r to f32: out [cols]. The reference of every kernel; also the embedding look-up. */
void sq_weight_row(const sq_weight *w, int32_t r, float *out);

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

typedef enum { SQ_QUANT_RTN, SQ_QUANT_LSQ } sq_quant_method; /* of I4; I8 has one method */

/* Quantise 16 rows into one row tile. rows: f32 [n_rows <= 16][cols], row r at w + r * ld. out: tile_bytes of
 * W, written whole (padding included). out need not be aligned. */
void sq_quant_tile(sq_wtype t, sq_scale_type st, sq_quant_method m, const float *w, size_t ld, int32_t n_rows,
                   int32_t cols, uint8_t *out);

/* ---- error measures -------------------------------------------------------------------------- */

/* Sums over elements, f64; add up over tiles and threads in a fixed order. Starts as {0}. */
typedef struct {
    double ww, vv, wv, ee; /* sum w^2, v^2, w v, (w - v)^2; v = decoded */
    double max_abs;        /* largest |w - v| */
    double worst_row_rel;  /* largest |w - v| / |w| of a row; infinite where a row of 0 did not decode to 0 */
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
