/* SPDX-License-Identifier: Apache-2.0
 *
 * be_int.h - the CPU backend's inside, shared by its files. */
#ifndef SQ_BE_INT_H
#define SQ_BE_INT_H

#include "backend/backend.h"
#include "quant/quant_mix.h"

enum {
    SQ_BE_ATTN_ROWS = 64, /* query rows that share one pass over a tile */
    SQ_BE_SMALL = 1 << 14 /* work (multiply-adds) below which waking the pool costs more than it gives */
};

/* Scratch of one thread, carved from one block. */
typedef struct {
    float *tile;          /* [m_max][64]: outputs of a matrix on their way to bias, sum or gate */
    float *tile2;         /* [m_max][64]: the up half of a gate */
    float *tile3;         /* [m_max][64]: U t of a low-rank term; NULL without rank_max */
    float *q, *o, *oc;    /* [SQ_BE_ATTN_ROWS][d]: queries, running and chunk outputs */
    float *m, *l, *mc, *lc; /* [SQ_BE_ATTN_ROWS] */
    float *run_m, *run_l, *run_o; /* of a run of tiles in a chunk, like mc, lc, oc */
    int32_t *lo, *hi;     /* [SQ_BE_ATTN_ROWS] */
    uint8_t *mixed;       /* [SQ_ATTN_TILES] key tiles of Q8, in place of those with channels in classes */
    float *pooled;        /* sparge: [heads][d to 64] queries, then [heads][blocks] their scores */
    uint8_t *keep;        /* [blocks] of 64 keys that are read */
    uint64_t read, all;   /* of sparge: rows times blocks */
    uint64_t sage_tiles;  /* tiles of one head of one layer that sage put into 8 bits */
} sq_be_scratch;

/* What prompts read of the past of one segment, made anew for each layer (be_prompt.c); for `chunks` chunks
 * of a context of ctx_max tokens, all heads of keys and values. */
typedef struct {
    uint8_t *codes[2];    /* sage, of keys and of values: [kv heads][chunks][256 d] */
    float *step[2], *z[2];/* [kv heads][chunks][d] */
    float *mean, *alike;  /* sparge: [kv heads][blocks][d], [kv heads][blocks] */
    void *memory;
    size_t bytes;
    int32_t chunks;
} sq_be_past;

struct sq_backend {
    squish_alloc alloc;
    sq_backend_options opt;
    sq_kernels k;
    sq_pool *pool;
    sq_be_scratch *scratch; /* [threads] */
    void *scratch_mem;
    size_t scratch_bytes;
    float *partial;         /* chunk results of a split decode: [chunks][heads][head_dim to 16, + 16] */
    size_t partial_bytes;
    float *low;             /* [m_max][rank_max]: V x of the terms of one call; NULL without rank_max */
    size_t low_bytes;
    sq_be_past past;        /* empty without sq_attn_prompt */
};

/* ---- prompts (be_prompt.c) ------------------------------------------------------------------- */

size_t sq_be_past_bytes(const sq_backend_options *o);
/* Floats of sq_be_scratch.pooled, bytes of keep, of one thread. */
size_t sq_be_pooled_floats(const sq_backend_options *o);
size_t sq_be_keep_bytes(const sq_backend_options *o);
/* Point into b->past.memory. */
void sq_be_past_carve(sq_backend *b);
/* Does a segment need a past made for it before it attends? */
bool sq_be_past_wanted(const sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg);
void sq_be_past_make(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg);
/* The codes of a chunk of one head: of its keys, or of its values. */
sq_sealed sq_be_past_sealed(const sq_backend *b, bool values, int32_t kvh, int32_t chunk, int32_t d);
/* Blocks of 64 keys that rows s->q, n_tok tokens from position pos on by `group` heads, read: into s->keep.
 * False: all of them. */
bool sq_be_past_pick(sq_backend *b, const sq_attn_shape *s, int32_t kvh, int32_t pos, int32_t n_tok,
                     sq_be_scratch *scratch);

/* n tiles (or groups of tiles) as items of `step`; the last may be smaller. */
typedef struct {
    int32_t n, step, items;
} sq_be_split;
static inline sq_be_split sq_be_split_of(int32_t n, int32_t step) {
    if (step < 1) step = 1;
    return (sq_be_split){n, step, sq_div_up(n, step)};
}
/* First tile of an item and, in *count, how many it has. */
static inline int32_t sq_be_split_at(const sq_be_split *s, int32_t item, int32_t *count) {
    const int32_t first = item * s->step;
    *count = s->n - first < s->step ? s->n - first : s->step;
    return first;
}

/* Kernels and tiles take heads in multiples of 16 channels; the channels added are zeros and change nothing.
 */
static inline int32_t sq_be_padded(const sq_attn_shape *s) {
    return (int32_t)sq_align_up((size_t)s->head_dim, 16);
}
/* Where tiles of these formats lie in a sealed page. */
static inline sq_attn_page sq_be_sealed_page(sq_kv_format k, sq_kv_format v, int32_t d) {
    const size_t k_bytes = sq_align_up(sq_kv_key_bytes(k, d), 64),
                 v_bytes = sq_align_up(sq_kv_v_bytes(v, d), 64);
    return (sq_attn_page){sizeof(sq_kv_page_header), sizeof(sq_kv_page_header) + k_bytes, k_bytes + v_bytes};
}
/* Positions [*lo, *hi) that the query at p sees. */
static inline void sq_be_visible(const sq_attn_shape *s, int32_t p, int32_t *lo, int32_t *hi) {
    *lo = s->window > 0 && p - s->window + 1 > 0 ? p - s->window + 1 : 0;
    *hi = p + 1;
}
/* Is the row one of another segment that is stored in this one too, and in which slot? */
static inline bool sq_be_leads(const sq_attn_seg *seg, int32_t row, int32_t *slot) {
    const int32_t at = row - seg->lead_row0;
    *slot = seg->pos0 - seg->lead + at;
    return at >= 0 && at < seg->lead;
}
static inline bool sq_be_any_leads(const sq_attn_seg *segs, int32_t n) {
    int32_t i = 0;
    while (i < n && segs[i].lead == 0) i++;
    return i < n;
}
/* Query rows of one KV head and some tokens of a segment, gathered in a thread's s->q: row i * group + g. */
typedef struct {
    const sq_attn_seg *seg;
    int32_t kvh, tok0, n_tok, group;
    bool asked, more; /* of chunks in a row this is not the first; not the last */
} sq_be_rows;
/* Keys of chunk `chunk` as these rows read it (open: all of it), for the kernel that works on the chunk
 * before; returns their bytes. NULL where there are none. */
size_t sq_be_next_keys(const sq_attn_shape *shape, const sq_be_rows *r, bool open, int32_t chunk,
                       const uint16_t *next[SQ_ATTN_TILES]);
/* Their attention over one chunk, into s->mc, s->lc, s->oc. All of them read the same tiles sealed. */
void sq_be_attn_chunk(const sq_backend *b, const sq_attn_shape *shape, const sq_be_rows *r, int32_t chunk,
                      sq_be_scratch *s);
/* Likewise over one tile alone, into s->mc and s->lc (and s->oc, which means nothing). */
void sq_be_attn_tile(const sq_backend *b, const sq_attn_shape *shape, const sq_be_rows *r, int32_t tile,
                     sq_be_scratch *s);
/* Formats of keys and values of a sealed tile. */
typedef struct {
    sq_kv_format k, v;
} sq_be_form;
/* How rows that share their passes read a tile: sealed, and then in which formats. */
bool sq_be_attn_tile_form(const sq_attn_shape *shape, const sq_be_rows *r, int32_t tile, sq_be_form *f);
/* (be_mix.c) An open K tile into one of SQ_KV_MIX or SQ_KV_LEAN, by a head's weights of queries [head_dim].
 */
void sq_be_mix_seal(const sq_kernels *kn, const sq_attn_shape *s, const uint16_t *k, int32_t f,
                    const float *weight, uint8_t *out);
/* Any sealed K tile as an open one [d][32], and one with channels in classes as one of Q8; d a multiple
 * of 16. */
void sq_be_mix_open(const uint8_t *tile, int32_t f, int32_t d, uint16_t *out);
void sq_be_mix_to_q8(const sq_kernels *kn, const uint8_t *tile, int32_t f, int32_t d, uint8_t *out);
/* x [n], n a power of two, in the orthonormal Walsh-Hadamard basis: its own inverse. */
void sq_be_hadamard(float *x, int32_t n);
/* Run fn over items, on the pool or, if the work is small, on the caller alone. */
void sq_be_run(sq_backend *b, sq_pool_fn fn, void *ctx, int32_t n_items, int64_t work);
sq_glu_fn *sq_be_glu(const sq_backend *b, sq_activation act);
/* Low-rank terms of a matrix. Floats that V x takes for m rows (0: no terms); V x of all terms into t; and
 * y [m][ldy] += scale * U t for the rows of tiles [tile0, tile0 + n_tiles), tmp [m][16 * n_tiles]. */
size_t sq_be_lowrank_floats(const sq_weight *w, int32_t m);
void sq_be_lowrank_down(sq_backend *b, const sq_weight *w, const sq_act *x, float *t);
void sq_be_lowrank_up(const sq_backend *b, const sq_weight *w, int32_t tile0, int32_t n_tiles, int32_t m,
                      const float *t, float *tmp, float *y, size_t ldy);
/* Rows as the kernels take them. */
sq_act sq_be_act(const sq_rows *r);

#endif
