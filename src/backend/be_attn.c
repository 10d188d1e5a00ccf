/* SPDX-License-Identifier: Apache-2.0
 *
 * be_attn.c - attention over pages on the CPU (online softmax: Milakov and Gimelshein, arXiv:1805.02867;
 * tiled as in FlashAttention, Dao et al., arXiv:2205.14135).
 *
 * A query row's result is the left-to-right fold of chunk results, chunks being 256 absolute positions.
 * Whether one thread folds as it goes or threads share out the chunks and the fold comes after, the same
 * operations happen in the same order: the split is invisible in the bits. What prompts leave out of their
 * past is decided in be_prompt.c. */
#include "backend/be_int.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const float SKIP = 9.2103404f; /* ln 10^4: so far below a row's maximum sparge drops a tile */

/* Kernels and tiles take heads in multiples of 16 channels; the channels added are zeros and change nothing.
 */

/* ---- rotate and store ------------------------------------------------------------------------ */

typedef struct {
    sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_seg *segs;
    int32_t n_segs;
    sq_rows *q, *k;
    const sq_rows *v;
    bool leads; /* some segment has rows of another */
} prepare_ctx;

static const sq_attn_seg *seg_of(const sq_attn_seg *segs, int32_t n, int32_t row) {
    int32_t i = 0;
    while (i + 1 < n && row >= segs[i + 1].row0) i++;
    return &segs[i];
}

static void head_rotate(const sq_kernels *k, const sq_attn_shape *s, float *x, const float *norm,
                        int32_t row) {
    const int32_t half = s->head_dim / 2;
    if (norm) k->rmsnorm(x, norm, s->head_dim, s->norm_eps, x);
    sq_rope_fn *rope = s->pairs ? k->rope_pairs : k->rope;
    rope(x, s->cos + (size_t)row * (size_t)half, s->sin + (size_t)row * (size_t)half, half);
}

/* x [d] held within +-limit, NaN as 0, padded with zeros to dp channels. A page outlives what is in it: an
 * infinity in a slot nobody looks at any more would meet a probability of zero in the next timeline's sums
 * and become NaN. */
static void hold(const float *x, int32_t d, int32_t dp, float limit, float *out) {
    for (int32_t i = 0; i < d; i++)
        out[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i] == x[i] ? x[i] : 0.0f;
    for (int32_t i = d; i < dp; i++) out[i] = 0.0f;
}

static void put(const sq_kernels *k, const sq_attn_shape *s, const float *kr, const float *vr, int32_t slot,
                uint16_t *ktile, uint16_t *vtile) {
    float kp[SQ_ATTN_D_MAX], vp[SQ_ATTN_D_MAX];
    const int32_t d = s->head_dim, dp = sq_be_padded(s);
    const float limit = s->kv_f32 ? FLT_MAX : 65504.0f; /* the largest f16 */
    hold(kr, d, dp, limit, kp);
    hold(vr, d, dp, limit, vp);
    if (s->rotate_v) {
        sq_be_hadamard(vp, d);
        hold(vp, d, dp, limit, vp);
    }
    (s->kv_f32 ? k->kv_put_f32 : k->kv_put_f16)(kp, vp, dp, slot, ktile, vtile);
}

/* Keys and values of a row, rotated, into slot `pos` of a segment's sequence. */
static void store_row(const prepare_ctx *c, int32_t row, const sq_attn_seg *seg, int32_t pos) {
    const sq_attn_shape *s = c->s;
    const int32_t d = s->head_dim;
    uint8_t *page = seg->pages[pos / SQ_KV_TILE];
    const float *kr = c->k->f + (size_t)row * sq_rows_ld(c->k);
    const float *vr = c->v->f + (size_t)row * sq_rows_ld(c->v);
    for (int32_t h = 0; h < s->n_kv_heads; h++) {
        uint8_t *head = page + (size_t)h * s->open.head_stride;
        put(&c->b->k, s, kr + (size_t)h * d, vr + (size_t)h * d, pos % SQ_KV_TILE,
            (uint16_t *)(head + s->open.k_off), (uint16_t *)(head + s->open.v_off));
    }
}

static void prepare_item(void *ctx, int32_t row, int32_t thread) {
    (void)thread;
    const prepare_ctx *c = ctx;
    const sq_attn_shape *s = c->s;
    const sq_kernels *k = &c->b->k;
    const int32_t d = s->head_dim;
    float *q = c->q->f + (size_t)row * sq_rows_ld(c->q);
    for (int32_t h = 0; h < s->n_heads; h++) {
        head_rotate(k, s, q + (size_t)h * d, s->q_norm, row);
        for (int32_t i = 0; i < d; i++) q[h * d + i] *= s->scale;
    }
    float *kr = c->k->f + (size_t)row * sq_rows_ld(c->k);
    for (int32_t h = 0; h < s->n_kv_heads; h++) head_rotate(k, s, kr + (size_t)h * d, s->k_norm, row);
    const sq_attn_seg *seg = seg_of(c->segs, c->n_segs, row);
    store_row(c, row, seg, seg->pos0 + row - seg->row0);
    for (int32_t i = 0, pos; c->leads && i < c->n_segs; i++)
        if (sq_be_leads(&c->segs[i], row, &pos)) store_row(c, row, &c->segs[i], pos);
}

void sq_be_attn_prepare(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                        sq_rows *q, sq_rows *k, const sq_rows *v) {
    prepare_ctx c = {b, s, segs, n_segs, q, k, v, sq_be_any_leads(segs, n_segs)};
    sq_be_run(b, prepare_item, &c, q->m, q->m > 1 ? (int64_t)q->m * (q->cols + k->cols) * 8 : 0);
}

/* ---- attend ---------------------------------------------------------------------------------- */

typedef struct {
    sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_seg *segs;
    int32_t n_segs;
    const sq_rows *q;
    sq_rows *out;
    bool past;                     /* the one segment reads what be_prompt.c made of its past */
    int32_t group;                 /* query heads of one KV head */
    int32_t block;                 /* tokens of an item; items begin at its multiples */
    int32_t first_chunk, n_chunks; /* split decode: chunks shared out */
} attend_ctx;

static int32_t clip(int32_t x) { return x < 0 ? 0 : x > SQ_ATTN_CHUNK ? SQ_ATTN_CHUNK : x; }

/* Query rows of tokens [tok0, tok0 + n_tok) and one KV head, contiguous: row i * group + g. */
static void gather_q(const attend_ctx *c, const sq_attn_seg *seg, int32_t kvh, int32_t tok0, int32_t n_tok,
                     float *q) {
    const size_t d = (size_t)c->s->head_dim, dp = (size_t)sq_be_padded(c->s), group = (size_t)c->group;
    for (size_t i = 0; i < (size_t)n_tok; i++) {
        const float *row =
            c->q->f + ((size_t)(seg->row0 + tok0) + i) * sq_rows_ld(c->q) + (size_t)kvh * group * d;
        for (size_t g = 0; g < group; g++) {
            float *dst = memcpy(q + (i * group + g) * dp, row + g * d, d * sizeof(float));
            for (size_t j = d; j < dp; j++) dst[j] = 0.0f;
        }
    }
}

/* Query tokens of one KV head that share their passes over tiles. */
typedef struct {
    const sq_attn_seg *seg;
    int32_t kvh, tok0, n_tok; /* tokens of the segment */
    bool sparse;              /* of blocks of keys before its own, only those in keep are read */
    bool asked, more;         /* of a run of chunks this is not the first; not the last */
} query_block;

static bool is_read(const query_block *qb, const sq_be_scratch *s, int32_t tile) {
    const int32_t block = tile / (SQ_POOL_KEYS / SQ_KV_TILE);
    return !qb->sparse || block >= (qb->seg->pos0 + qb->tok0) / SQ_POOL_KEYS || s->keep[block];
}

static sq_sealed sealed_of(const attend_ctx *c, const query_block *qb, int32_t chunk, bool sage,
                           bool values) {
    return sage ? sq_be_past_sealed(c->b, values, qb->kvh, chunk, sq_be_padded(c->s)) : (sq_sealed){0};
}

static sq_be_rows rows_of(const attend_ctx *c, const query_block *qb) {
    return (sq_be_rows){qb->seg, qb->kvh, qb->tok0, qb->n_tok, c->group, qb->asked, qb->more};
}

/* chunk_attend where all tiles are open: of a past that is not read whole, what is read of it. */
static bool open_attend(const attend_ctx *c, const query_block *qb, int32_t chunk, sq_be_scratch *s) {
    const sq_attn_seg *seg = qb->seg;
    const uint16_t *k[SQ_ATTN_TILES] = {0}, *v[SQ_ATTN_TILES] = {0}, *next[SQ_ATTN_TILES];
    const int32_t start = chunk * SQ_ATTN_CHUNK, pos = seg->pos0 + qb->tok0;
    const bool sage = c->past && c->b->opt.prompt.sage && chunk < pos / SQ_ATTN_CHUNK;
    bool any = false;
    int32_t seen_lo = SQ_ATTN_CHUNK, seen_hi = 0;
    for (int32_t i = 0; i < qb->n_tok; i++) {
        int32_t lo, hi;
        sq_be_visible(c->s, pos + i, &lo, &hi);
        lo = clip(lo - start), hi = clip(hi - start);
        if (lo < seen_lo) seen_lo = lo;
        if (hi > seen_hi) seen_hi = hi;
        for (int32_t g = 0; g < c->group; g++) {
            s->lo[i * c->group + g] = lo;
            s->hi[i * c->group + g] = hi;
        }
    }
    for (int32_t j = seen_lo / SQ_KV_TILE; j < SQ_ATTN_TILES && j * SQ_KV_TILE < seen_hi; j++) {
        const int32_t tile = chunk * SQ_ATTN_TILES + j;
        if (!is_read(qb, s, tile)) continue;
        const uint8_t *head = seg->pages[tile] + (size_t)qb->kvh * c->s->open.head_stride;
        any = true;
        k[j] = (const uint16_t *)(head + c->s->open.k_off);
        v[j] = (const uint16_t *)(head + c->s->open.v_off);
    }
    const sq_be_rows r = rows_of(c, qb);
    const size_t next_bytes = qb->more ? sq_be_next_keys(c->s, &r, true, chunk + 1, next) : 0;
    const size_t d = (size_t)sq_be_padded(c->s);
    const sq_attn_args a = {.q = s->q,
                            .ldq = d,
                            .n_q = qb->n_tok * c->group,
                            .d = sq_be_padded(c->s),
                            .k = k,
                            .v = v,
                            .lo = s->lo,
                            .hi = s->hi,
                            .m = s->mc,
                            .l = s->lc,
                            .o = s->oc,
                            .ldo = d,
                            .m_run = qb->sparse ? s->m : NULL,
                            .skip = SKIP,
                            .sealed_k = sealed_of(c, qb, chunk, sage, false),
                            .sealed_v = sealed_of(c, qb, chunk, sage, true),
                            .asked = qb->asked,
                            .next = next_bytes ? next : NULL,
                            .next_bytes = next_bytes};
    if (any) (sage ? c->b->k.attn_sage : c->s->kv_f32 ? c->b->k.attn_f32 : c->b->k.attn_f16)(&a);
    return any;
}

/* Results of one chunk for gathered rows in s->q, into s->mc, s->lc, oc. False: nothing of it is read. */
static bool chunk_attend(const attend_ctx *c, const query_block *qb, int32_t chunk, sq_be_scratch *s) {
    if (!qb->seg->sealed || !(qb->seg->reads || c->s->seals)) return open_attend(c, qb, chunk, s);
    const sq_be_rows r = rows_of(c, qb);
    sq_be_attn_chunk(c->b, c->s, &r, chunk, s);
    return true;
}

static void finish_row(const attend_ctx *c, float l, const float *o, float *dst) {
    const float inv = 1.0f / l;
    for (int32_t i = 0; i < c->s->head_dim; i++) dst[i] = o[i] * inv;
    if (c->s->rotate_v) sq_be_hadamard(dst, c->s->head_dim);
}

static float *out_row(const attend_ctx *c, int32_t row, int32_t head) {
    return c->out->f + (size_t)row * sq_rows_ld(c->out) + (size_t)head * (size_t)c->s->head_dim;
}

/* One KV head, a block of tokens, all their chunks. */
static void block_attend(const attend_ctx *c, query_block *qb, int32_t thread) {
    sq_be_scratch *s = &c->b->scratch[thread];
    const sq_attn_seg *seg = qb->seg;
    const int32_t d = sq_be_padded(c->s), rows = qb->n_tok * c->group, pos = seg->pos0 + qb->tok0;
    gather_q(c, seg, qb->kvh, qb->tok0, qb->n_tok, s->q);
    qb->sparse = c->past && sq_be_past_pick(c->b, c->s, qb->kvh, pos, qb->n_tok, s);
    for (int32_t i = 0; i < rows; i++) s->m[i] = -INFINITY, s->l[i] = 0.0f;
    memset(s->o, 0, (size_t)rows * (size_t)d * sizeof(float));
    int32_t lo, hi, unused;
    sq_be_visible(c->s, pos, &lo, &unused);
    sq_be_visible(c->s, pos + qb->n_tok - 1, &unused, &hi);
    for (int32_t chunk = lo / SQ_ATTN_CHUNK; chunk * SQ_ATTN_CHUNK < hi; chunk++) {
        qb->asked = qb->more;
        qb->more = qb->n_tok == 1 && (chunk + 1) * SQ_ATTN_CHUNK < hi;
        if (!chunk_attend(c, qb, chunk, s)) continue;
        for (int32_t i = 0; i < rows; i++)
            c->b->k.attn_merge(&s->m[i], &s->l[i], s->o + (size_t)i * d, s->mc[i], s->lc[i],
                               s->oc + (size_t)i * d, d);
    }
    for (int32_t i = 0; i < rows; i++)
        finish_row(c, s->l[i], s->o + (size_t)i * d,
                   out_row(c, seg->row0 + qb->tok0 + i / c->group, qb->kvh * c->group + i % c->group));
}

static int32_t blocks_of(const attend_ctx *c, const sq_attn_seg *seg) {
    return (seg->pos0 + seg->n_rows - 1) / c->block - seg->pos0 / c->block + 1;
}

static void attend_item(void *ctx, int32_t item, int32_t thread) {
    const attend_ctx *c = ctx;
    const sq_attn_seg *seg = c->segs;
    int32_t block = item / c->s->n_kv_heads;
    for (; block >= blocks_of(c, seg); seg++) block -= blocks_of(c, seg);
    const int32_t begin = (seg->pos0 / c->block + block) * c->block - seg->pos0, end = begin + c->block;
    query_block qb = {.seg = seg, .kvh = item % c->s->n_kv_heads, .tok0 = begin > 0 ? begin : 0};
    qb.n_tok = (end < seg->n_rows ? end : seg->n_rows) - qb.tok0;
    block_attend(c, &qb, thread);
}

/* ---- one long row: the chunks are shared out ------------------------------------------------- */

/* Partial result of (chunk, head): o [d], then m, l. */
static float *partial_of(const attend_ctx *c, int32_t chunk, int32_t head) {
    const size_t d = sq_align_up((size_t)c->s->head_dim, 16) + 16;
    return c->b->partial + ((size_t)(chunk - c->first_chunk) * (size_t)c->s->n_heads + (size_t)head) * d;
}

/* Chunks that one item goes through, so that each asks for what the next one reads. */
enum { RUN = 4 };

static void chunk_partials(const attend_ctx *c, const query_block *qb, int32_t chunk, sq_be_scratch *s) {
    const int32_t d = sq_be_padded(c->s);
    chunk_attend(c, qb, chunk, s);
    for (int32_t g = 0; g < c->group; g++) {
        float *p = partial_of(c, chunk, qb->kvh * c->group + g);
        memcpy(p, s->oc + (size_t)g * d, (size_t)d * sizeof(float));
        p[d] = s->mc[g];
        p[d + 1] = s->lc[g];
    }
}

static void split_item(void *ctx, int32_t item, int32_t thread) {
    const attend_ctx *c = ctx;
    sq_be_scratch *s = &c->b->scratch[thread];
    const int32_t runs = sq_div_up(c->n_chunks, RUN), end = c->first_chunk + c->n_chunks;
    query_block qb = {.seg = c->segs, .kvh = item / runs, .n_tok = 1};
    const int32_t from = c->first_chunk + item % runs * RUN, to = from + RUN < end ? from + RUN : end;
    gather_q(c, c->segs, qb.kvh, 0, 1, s->q);
    for (int32_t chunk = from; chunk < to; chunk++) {
        qb.asked = chunk > from, qb.more = chunk + 1 < to;
        chunk_partials(c, &qb, chunk, s);
    }
}

static void fold_item(void *ctx, int32_t head, int32_t thread) {
    const attend_ctx *c = ctx;
    const int32_t d = sq_be_padded(c->s);
    float m = -INFINITY, l = 0.0f, *o = c->b->scratch[thread].o;
    memset(o, 0, (size_t)d * sizeof(float));
    for (int32_t chunk = c->first_chunk; chunk < c->first_chunk + c->n_chunks; chunk++) {
        const float *p = partial_of(c, chunk, head);
        c->b->k.attn_merge(&m, &l, o, p[d], p[d + 1], p, d);
    }
    finish_row(c, l, o, out_row(c, c->segs->row0, head));
}

static void split_attend(attend_ctx *c) {
    sq_be_run(c->b, split_item, c, sq_div_up(c->n_chunks, RUN) * c->s->n_kv_heads, INT32_MAX);
    sq_be_run(c->b, fold_item, c, c->s->n_heads, (int64_t)c->n_chunks * c->s->n_heads * c->s->head_dim);
}

/* ---- all segments ---------------------------------------------------------------------------- */

/* Query tokens that share a pass. Where the past is read in blocks and chunks, or sealed by cells, a power of
 * two: then no pass crosses one of their borders. */
static int32_t block_tokens(int32_t group, bool aligned) {
    int32_t n = SQ_BE_ATTN_ROWS / group;
    while (aligned && (n & (n - 1))) n &= n - 1;
    return n;
}

static void attend_segments(attend_ctx *c) {
    int32_t items = 0, lo, hi;
    int64_t work = 0;
    c->block = block_tokens(c->group, c->past || c->segs[0].sealed);
    for (int32_t i = 0; i < c->n_segs; i++) {
        const sq_attn_seg *seg = &c->segs[i];
        items += blocks_of(c, seg) * c->s->n_kv_heads;
        work += (int64_t)seg->n_rows * (seg->pos0 + seg->n_rows) * c->q->cols * 2;
    }
    sq_be_visible(c->s, c->segs[0].pos0, &lo, &hi);
    c->first_chunk = lo / SQ_ATTN_CHUNK;
    c->n_chunks = sq_div_up(hi, SQ_ATTN_CHUNK) - c->first_chunk;
    const int32_t threads = c->b->opt.threads;
    if (c->q->m == 1 && !c->past && items < 2 * threads && threads > 1 && c->n_chunks >= 4)
        split_attend(c);
    else
        sq_be_run(c->b, attend_item, c, items, work);
}

void sq_be_attend(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                  const sq_rows *q, bool quantise, sq_rows *out) {
    attend_ctx c = {.b = b, .s = s, .q = q, .out = out, .group = s->n_heads / s->n_kv_heads};
    /* One past at a time: a segment that has one attends alone, others together. */
    for (int32_t i = 0; i < n_segs; i += c.n_segs) {
        c.segs = segs + i;
        c.n_segs = 1;
        c.past = sq_be_past_wanted(b, s, c.segs);
        if (c.past) sq_be_past_make(b, s, c.segs);
        while (!c.past && i + c.n_segs < n_segs && !sq_be_past_wanted(b, s, c.segs + c.n_segs)) c.n_segs++;
        attend_segments(&c);
    }
    out->m = q->m;
    out->quantised = false;
    if (quantise) sq_be_quantise(b, out);
}
