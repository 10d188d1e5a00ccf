/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_codec.h - keys and values as codes, for prefixes on disk: product quantisation of gain and shape in two
 * stages (Jegou et al., "Product quantization for nearest neighbor search", TPAMI 2011; Sabin and Gray,
 * "Product code vector quantizers", 1984).
 *
 *   key    turned back to position 0, less its mean:  x = g u            each by the codebooks of its
 *   value  less its mean:                             x = g u            part: layer, head, K or V
 *   u      subvectors of 8:  u ~ row of stage 1 + row of stage 2         one of 256 rows: a byte a stage
 *   g      f16, the one that makes g (row + row) nearest to x; its last four bits are zero, so that the coder
 *          behind this one (kv_rans.h) has less to keep
 *
 * The mean takes the place of a key's bias: it holds that and what else all keys have in common, and it does
 * not matter whether a norm stands between bias and key. Rows are numbered by how often they are nearest, so
 * that low codes are common in all streams at once, and the coder needs no table for each.
 *
 * Books of a model lie in one file, made by squish calibrate --codec:
 *
 *   header 128 B | of each part, by layer, head, K before V: mean [d] f16, rows [2][d / 8][256][8] f16
 *
 *   header   0 magic "SQKVBKS1"   8 version u32   12 header bytes u32   16 identity u64 (of the model)
 *           24 layers u32   28 KV heads u32   32 head dim u32   36 stages u32
 *           40 prefix u32   44 tokens continued u32   48 stretches u32   52 pass keys asked for u32
 *           56 found with f16 u32   60 found with codes u32   64 KL f64   72 us to compute a token f32
 *           76 us to decode one f32   80 tokens trained on u64   88 sum of the text u64   96 file bytes u64
 *          104 sum of the body u64   112 zeros   120 sum of bytes 0..119 u64
 *
 * Little-endian; sums are XXH3-64. A book may be read by several threads at once. */
#ifndef SQ_KV_CODEC_H
#define SQ_KV_CODEC_H

#include "backend/backend.h"
#include "kv/kv.h"

enum {
    SQ_CODEC_HEADER = 128,
    SQ_CODEC_STAGES = 2,
    SQ_CODEC_DIM_MAX = 512,  /* of a head; a multiple of 16 */
    SQ_CODEC_RESIDUAL = 4,   /* tiles before the cell of a query that are never decoded but computed */
    SQ_CODEC_SETS = 2        /* ways to rotate */
};
#define SQ_CODEC_KL_MAX 0.02      /* nats, behind a prefix that came from codes */
#define SQ_CODEC_KEYS_PERCENT 95  /* of the pass keys that f16 finds */
#define SQ_CODEC_KEYS_ABLE 80     /* percent that f16 must find for them to say anything */

/* What was measured when the books were made. */
typedef struct {
    int32_t prefix, continued, stretches; /* tokens restored, tokens behind them, how often */
    int32_t trials, found_f16, found;     /* pass keys; trials 0: the model has no template */
    double kl;                            /* mean over all continued tokens, nats */
    float prefill_us, decode_us;          /* of a token */
} sq_codec_gate;
/* Why books are not to be used, in one line with the numbers: QUALITY. */
squish_status sq_codec_gate_check(const sq_codec_gate *g, squish_error *err);
/* Tokens from which on a prefix comes back in half the time it takes to compute; INT32_MAX: none does. code
 * bytes come from a disk of 200 MB/s. */
int32_t sq_codec_worth(const sq_codec_gate *g, uint64_t bytes_token);

/* How keys are rotated: those of layer l by set[l] of frequencies. */
typedef struct {
    double inv_freq[SQ_CODEC_SETS][SQ_CODEC_DIM_MAX / 2], factor[SQ_CODEC_SETS];
    uint8_t set[SQ_KV_LAYERS_MAX];
    bool pairs; /* neighbours, else halves */
} sq_codec_turns;

typedef struct {
    sq_kv_shape shape;
    uint64_t identity, tokens, text;
    sq_codec_gate gate;
} sq_codec_info;

typedef struct {
    squish_alloc alloc;
    sq_codec_info info;
    sq_codec_turns turns; /* the caller's to set before anything is coded */
    uint64_t sum;         /* of the body; never 0 */
    int32_t n_parts, subs;
    float *mean;          /* [n_parts][d] */
    float *rows;          /* [n_parts][stages][subs][256][8] */
} sq_codec;

/* Shapes that can be coded. UNSUPPORTED names what cannot. */
squish_status sq_codec_check_shape(const sq_kv_shape *s, squish_error *err);
/* Books of zeros, to be trained. NO_MEMORY. */
squish_status sq_codec_new(sq_codec **out, const sq_kv_shape *s, const squish_alloc *a, squish_error *err);
void sq_codec_free(sq_codec *c);
/* Parts of a shape are numbered by layer, head, K before V. */
static inline int32_t sq_codec_part(const sq_codec *c, int32_t layer, int32_t head, bool value) {
    return (layer * c->info.shape.n_kv_heads + head) * 2 + value;
}
static inline float *sq_codec_rows(const sq_codec *c, int32_t part, int32_t stage, int32_t sub) {
    return c->rows + ((size_t)(part * SQ_CODEC_STAGES + stage) * (size_t)c->subs + (size_t)sub) * SQ_PQ_ROWS *
                         SQ_PQ_DIMS;
}
/* Bytes of a vector's codes, before the coder: its gain and a byte a subvector and stage. */
static inline size_t sq_codec_vector_bytes(const sq_codec *c) {
    return 2 + (size_t)SQ_CODEC_STAGES * (size_t)c->subs;
}

/* ---- the file (kv_codec_file.c) -------------------------------------------------------------- */

uint64_t sq_codec_file_bytes(const sq_kv_shape *s);
/* The file of books whose numbers f16 holds; sets c->sum. */
squish_status sq_codec_file(sq_codec *c, sq_buf *out, squish_error *err);
/* Whole or not at all. IO, NO_SPACE. */
squish_status sq_codec_publish(const sq_buf *file, const char *path, squish_error *err);
/* CORRUPT names the field. Whose books they are, and whether they passed, is the caller's to ask. */
squish_status sq_codec_parse(sq_codec **out, sq_span file, const squish_alloc *a, squish_error *err);
squish_status sq_codec_open(sq_codec **out, const char *path, const squish_alloc *a, squish_error *err);
/* Make the sums right again, as far as there is a header: for tests that look behind them. */
void sq_codec_mend(uint8_t *file, size_t n);

/* ---- training (kv_codec_train.c) ------------------------------------------------------------- */

/* Books of parts [part0, part0 + n_parts) from n vectors of each, x [n_parts][n][d] f16, keys turned back:
 * k-means++ on 4096 of them, 25 rounds of Lloyd, stage after stage. The same books whatever the number of
 * threads. pool may be NULL. progress: parts done of n_parts, false stops. NO_MEMORY, CANCELLED; INVALID: n
 * is below 256. */
typedef bool (*sq_codec_progress_fn)(void *user, int32_t done);
squish_status sq_codec_train(sq_codec *c, int32_t part0, int32_t n_parts, const uint16_t *x, int32_t n,
                             sq_pool *pool, const sq_kernels *k, sq_codec_progress_fn progress, void *user,
                             squish_error *err);

/* ---- coding ---------------------------------------------------------------------------------- */

/* A book's rows as the kernel wants them (R10): book [SQ_PQ_BOOK]. */
void sq_codec_book(const float *rows, float *book);
/* n vectors x [n][d] of a part, to gain [n] and code [stages][subs][n]. x is left changed; book
 * [SQ_PQ_BOOK] and rest [n][d + 1] are work space. */
void sq_codec_encode(const sq_codec *c, const sq_kernels *k, int32_t part, float *x, int32_t n, float *book,
                     float *rest, uint16_t *gain, uint8_t *code);
/* And back: x [n][d]. Any codes and any finite gains give finite numbers. */
void sq_codec_decode(const sq_codec *c, int32_t part, const uint16_t *gain, const uint8_t *code, int32_t n,
                     float *x);

/* Tiles [first_tile, first_tile + n_tiles) at once, f16 pages of one layer. One thread at a time has work. */
typedef struct {
    const sq_codec *c;
    const sq_kernels *k;
    int32_t first_tile, n_tiles;
    float *work; /* sq_codec_work_floats */
} sq_codec_run;
size_t sq_codec_work_floats(const sq_codec *c, int32_t n_tiles);
/* Angles, of keys turned back or forth. */
void sq_codec_begin(const sq_codec_run *r, bool back);
/* Keys (turned back) or values of a head, x [32 n_tiles][d]; begun with back. */
void sq_codec_gather(const sq_codec_run *r, int32_t layer, int32_t head, bool value,
                     const uint8_t *const *pages, float *x);
/* A layer to gain [heads][2][tokens] and code [heads][2][stages][subs][tokens], begun with back; and from
 * there into pages, all but their headers, begun without. */
void sq_codec_put(const sq_codec_run *r, int32_t layer, const uint8_t *const *pages, uint16_t *gain,
                  uint8_t *code);
void sq_codec_get(const sq_codec_run *r, int32_t layer, const uint16_t *gain, const uint8_t *code,
                  uint8_t *const *pages);

/* How many tiles of a prompt may come from codes where position p is computed first: the cell of p and the
 * four tiles before it are not among them, as with sealed tiles. Continuations look at these most. */
static inline int32_t sq_codec_tiles(int32_t p) {
    return sq_kv_sealed_tiles((sq_kv_window){0, SQ_CODEC_RESIDUAL}, p);
}

#endif
