/* SPDX-License-Identifier: Apache-2.0
 *
 * be_prompt.c - what prompts read of their past: keys and values in 8 bits (SageAttention, Zhang et al.,
 * arXiv:2410.02367) and only blocks of keys that matter (SpargeAttn, Zhang et al., arXiv:2502.18137).
 *
 * Attention of a prompt is quadratic and bound by arithmetic, so both save operations. Before a segment
 * attends, everything behind it is gone over once for all of its rows:
 *
 *   chunk of 256 keys, or values -> codes [256 d] u8, step and centre [d]      sage
 *   block of 64 keys             -> mean [d], how alike its keys are           sparge
 *
 * Sage here differs from the paper where a processor differs from a GPU: one step and one centre for each
 * channel and chunk, folded into the query, instead of one scale a block and the mean over all keys. A chunk
 * is read in 8 bits only by rows behind it, when it is whole and will not change, so no result depends on
 * what else was computed in a step. P has 14 bits, V 8 (the paper: 16 and 16).
 *
 * Sparge predicts per block of query tokens and head: pooled query times pooled keys, softmax, and the
 * heaviest blocks up to a share of the weight. Blocks whose keys (or queries) point anywhere are not judged
 * by a mean and always read; heads that share keys read the union. */
#include "backend/be_int.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK_BLOCKS = SQ_ATTN_CHUNK / SQ_POOL_KEYS,
    NEAR_BLOCKS = 2 /* before a query's own, always read */
};

static const float ALIKE_MIN = 0.1f; /* below: a mean says nothing */

static size_t padded_dim(const sq_backend_options *o) { return sq_align_up((size_t)o->head_dim_max, 16); }
static size_t chunks_of(const sq_backend_options *o) { return (size_t)o->ctx_max / SQ_ATTN_CHUNK; }
static size_t blocks_of(const sq_backend_options *o) { return chunks_of(o) * CHUNK_BLOCKS + CHUNK_BLOCKS; }
static size_t query_floats(const sq_backend_options *o) {
    return (size_t)o->heads_max * sq_align_up((size_t)o->head_dim_max, SQ_GROUP);
}

/* ---- memory ---------------------------------------------------------------------------------- */

size_t sq_be_past_bytes(const sq_backend_options *o) {
    const size_t d = padded_dim(o), heads = (size_t)o->kv_heads_max;
    size_t n = 0;
    if (o->prompt.sage) n += 2 * heads * chunks_of(o) * (SQ_ATTN_CHUNK * d + 2 * d * sizeof(float));
    if (o->prompt.sparge) n += heads * blocks_of(o) * (d + 1) * sizeof(float);
    return n;
}

size_t sq_be_pooled_floats(const sq_backend_options *o) {
    return o->prompt.sparge ? query_floats(o) + (size_t)o->heads_max * blocks_of(o) : 0;
}

size_t sq_be_keep_bytes(const sq_backend_options *o) { return o->prompt.sparge ? blocks_of(o) : 0; }

void sq_be_past_carve(sq_backend *b) {
    const sq_backend_options *o = &b->opt;
    const size_t d = padded_dim(o), heads = (size_t)o->kv_heads_max, chunks = chunks_of(o);
    char *p = b->past.memory;
    b->past.chunks = (int32_t)chunks;
    for (int i = 0; o->prompt.sage && i < 2; i++) {
        b->past.codes[i] = (uint8_t *)p, p += heads * chunks * SQ_ATTN_CHUNK * d;
        b->past.step[i] = (float *)p, p += heads * chunks * d * sizeof(float);
        b->past.z[i] = (float *)p, p += heads * chunks * d * sizeof(float);
    }
    if (!o->prompt.sparge) return;
    b->past.mean = (float *)p, p += heads * blocks_of(o) * d * sizeof(float);
    b->past.alike = (float *)p;
}

/* Entry of a head and a chunk, or a block, in arrays of so many a head. */
static size_t entry(size_t per_head, int32_t kvh, int32_t i) { return (size_t)kvh * per_head + (size_t)i; }

sq_sealed sq_be_past_sealed(const sq_backend *b, bool values, int32_t kvh, int32_t chunk, int32_t d) {
    const size_t at = entry((size_t)b->past.chunks, kvh, chunk) * (size_t)d;
    return (sq_sealed){b->past.codes[values] + at * SQ_ATTN_CHUNK, b->past.step[values] + at,
                       b->past.z[values] + at};
}

/* ---- going over the past --------------------------------------------------------------------- */

static bool sparge_wanted(const sq_backend *b, const sq_attn_shape *s, int32_t end) {
    return b->opt.prompt.sparge && s->window == 0 && end > b->opt.prompt.sparge_min && end > SQ_POOL_KEYS;
}

bool sq_be_past_wanted(const sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg) {
    const int32_t end = seg->pos0 + seg->n_rows;
    if (!seg->prompt || s->kv_f32 || seg->reads) return false;
    return (b->opt.prompt.sage && end > SQ_ATTN_CHUNK) || sparge_wanted(b, s, end);
}

typedef struct {
    sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_seg *seg;
    int32_t d, last;      /* padded; position of the segment's last row */
    int32_t first_chunk;
    bool sparge;
} past_ctx;

static void pool_blocks(const past_ctx *c, int32_t kvh, int32_t chunk, const uint16_t *const *k) {
    const size_t per_head = blocks_of(&c->b->opt);
    for (int32_t i = 0; i < CHUNK_BLOCKS; i++) {
        const int32_t block = chunk * CHUNK_BLOCKS + i;
        if ((block + 1) * SQ_POOL_KEYS > c->last) return;
        const size_t at = entry(per_head, kvh, block);
        c->b->past.alike[at] = c->b->k.pool_keys(k + (SQ_POOL_KEYS / SQ_KV_TILE) * i, c->d,
                                                 c->b->past.mean + at * (size_t)c->d);
    }
}

static void seal_chunk(const past_ctx *c, int32_t kvh, int32_t chunk, const uint16_t *const *k,
                       const uint16_t *const *v) {
    const sq_be_past *p = &c->b->past;
    const size_t at = entry((size_t)p->chunks, kvh, chunk) * (size_t)c->d;
    c->b->k.seal_keys(k, c->d, p->codes[0] + at * SQ_ATTN_CHUNK, p->step[0] + at, p->z[0] + at);
    c->b->k.seal_values(v, c->d, p->codes[1] + at * SQ_ATTN_CHUNK, p->step[1] + at, p->z[1] + at);
}

static void past_item(void *ctx, int32_t item, int32_t thread) {
    const past_ctx *c = ctx;
    const int32_t kvh = item % c->s->n_kv_heads, chunk = c->first_chunk + item / c->s->n_kv_heads;
    const uint16_t *k[SQ_ATTN_TILES] = {0}, *v[SQ_ATTN_TILES] = {0};
    for (int32_t j = 0; j < SQ_ATTN_TILES && (chunk * SQ_ATTN_TILES + j) * SQ_KV_TILE <= c->last; j++) {
        const uint8_t *page = c->seg->pages[chunk * SQ_ATTN_TILES + j];
        const uint8_t *head = page + (size_t)kvh * c->s->open.head_stride;
        k[j] = (const uint16_t *)(head + c->s->open.k_off);
        v[j] = (const uint16_t *)(head + c->s->open.v_off);
    }
    if (c->sparge) pool_blocks(c, kvh, chunk, k);
    if (!c->b->opt.prompt.sage || chunk >= c->last / SQ_ATTN_CHUNK) return;
    seal_chunk(c, kvh, chunk, k, v);
    c->b->scratch[thread].sage_tiles += SQ_ATTN_TILES;
}

void sq_be_past_make(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg) {
    past_ctx c = {.b = b, .s = s, .seg = seg, .last = seg->pos0 + seg->n_rows - 1};
    c.d = (int32_t)sq_align_up((size_t)s->head_dim, 16);
    c.sparge = sparge_wanted(b, s, c.last + 1);
    if (s->window > 0 && seg->pos0 >= s->window)
        c.first_chunk = (seg->pos0 - s->window + 1) / SQ_ATTN_CHUNK;
    const int32_t chunks = sq_div_up(c.last, SQ_ATTN_CHUNK) - c.first_chunk;
    sq_be_run(b, past_item, &c, chunks * s->n_kv_heads, (int64_t)chunks * SQ_ATTN_CHUNK * c.d);
}

/* ---- which blocks matter --------------------------------------------------------------------- */

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* e^x for x <= 0, to 1e-4, by products and sums alone: the same bits wherever it is compiled. */
static float weight_of(float x) {
    if (!(x > -60.0f)) return 0.0f;
    const float y = x * 1.44269504f;
    const int32_t n = (int32_t)y;
    const float f = y - (float)n;
    const float p = 1.0f + f * (0.6931472f + f * (0.2402265f + f * (0.0555041f + f * 0.0096181f)));
    return p * from_bits((uint32_t)(127 + n) << 23);
}

/* Keep the heaviest of w [n], at most 1 each, that make up `share` of all: those not below a limit, the
 * largest one with 7 bits behind its point for which that is so. */
static void keep_heaviest(const float *w, int32_t n, float share, uint8_t *keep) {
    uint32_t limit = 0;
    float all = 0.0f;
    for (int32_t i = 0; i < n; i++) all += w[i];
    for (uint32_t bit = 1u << 29; bit >= 1u << 16; bit >>= 1) {
        const float least = from_bits(limit | bit);
        float sum = 0.0f;
        for (int32_t i = 0; i < n; i++) sum += w[i] >= least ? w[i] : 0.0f;
        if (sum >= share * all) limit |= bit;
    }
    for (int32_t i = 0; i < n; i++) keep[i] |= w[i] >= from_bits(limit);
}

/* Mean of rows g, g + group, ... of q [n group][d] into mean [ld], zeros behind d; how alike they are. */
static float pool_queries(const float *q, int32_t n, int32_t group, int32_t d, float *mean, size_t ld) {
    float unit[SQ_ATTN_D_MAX] = {0}, alike = 0.0f;
    memset(mean, 0, ld * sizeof *mean);
    for (int32_t i = 0; i < n; i++) {
        const float *row = q + (size_t)(i * group) * (size_t)d;
        float norm = 0.0f;
        for (int32_t c = 0; c < d; c++) norm += row[c] * row[c];
        const float inv = norm > 0.0f ? 1.0f / sqrtf(norm) : 0.0f;
        for (int32_t c = 0; c < d; c++) {
            mean[c] += row[c] / (float)n;
            unit[c] += row[c] * inv;
        }
    }
    for (int32_t c = 0; c < d; c++) alike += unit[c] * unit[c];
    return alike / (float)(n * n);
}

/* One head's scores [n] of blocks into blocks to keep. */
static void keep_by_scores(float *scores, const float *alike, int32_t n, float share, uint8_t *keep) {
    float most = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (alike[i] >= ALIKE_MIN && scores[i] > most) most = scores[i];
    for (int32_t i = 0; i < n; i++) {
        const bool judged = alike[i] >= ALIKE_MIN;
        keep[i] |= !judged;
        scores[i] = judged ? weight_of(scores[i] - most) : 0.0f;
    }
    keep_heaviest(scores, n, share, keep);
}

static void count(sq_be_scratch *scratch, int32_t n, int32_t n_tok) {
    for (int32_t i = 0; i < n; i++) scratch->read += scratch->keep[i] ? (uint64_t)n_tok : 0;
    scratch->read += (uint64_t)n_tok; /* their own */
    scratch->all += (uint64_t)n_tok * (uint64_t)(n + 1);
}

bool sq_be_past_pick(sq_backend *b, const sq_attn_shape *s, int32_t kvh, int32_t pos, int32_t n_tok,
                     sq_be_scratch *scratch) {
    const int32_t n = pos / SQ_POOL_KEYS, group = s->n_heads / s->n_kv_heads;
    const int32_t d = (int32_t)sq_align_up((size_t)s->head_dim, 16);
    const size_t ld = sq_align_up((size_t)d, SQ_GROUP), first = entry(blocks_of(&b->opt), kvh, 0);
    if (n == 0 || pos < b->opt.prompt.sparge_min || !sparge_wanted(b, s, pos + n_tok)) return false;
    float *scores = scratch->pooled + query_floats(&b->opt), alike[SQ_BE_ATTN_ROWS];
    for (int32_t g = 0; g < group; g++)
        alike[g] = pool_queries(scratch->q + (size_t)g * (size_t)d, n_tok, group, d,
                                scratch->pooled + (size_t)g * ld, ld);
    const sq_weight keys = sq_weight_make(SQ_W_F32, SQ_SCALE_F32, n, d,
                                          (const uint8_t *)(b->past.mean + first * (size_t)d));
    const sq_act queries = {
        .m = group, .cols = d, .groups = (int32_t)(ld / SQ_GROUP), .f = scratch->pooled};
    b->k.gemm_f32(&keys, 0, sq_weight_tiles(&keys), &queries, scores, (size_t)n);
    memset(scratch->keep, 0, (size_t)n);
    for (int32_t g = 0; g < group; g++)
        if (alike[g] >= ALIKE_MIN)
            keep_by_scores(scores + (size_t)g * (size_t)n, b->past.alike + first, n,
                           b->opt.prompt.sparge_mass, scratch->keep);
        else
            memset(scratch->keep, 1, (size_t)n);
    scratch->keep[0] = 1;
    for (int32_t i = n > NEAR_BLOCKS ? n - NEAR_BLOCKS : 0; i < n; i++) scratch->keep[i] = 1;
    count(scratch, n, n_tok);
    return true;
}

uint64_t sq_be_attn_sage_tiles(const sq_backend *b) {
    uint64_t n = 0;
    for (int32_t t = 0; t < b->opt.threads; t++) n += b->scratch[t].sage_tiles;
    return n;
}

double sq_be_attn_density(const sq_backend *b) {
    uint64_t read = 0, all = 0;
    for (int32_t t = 0; t < b->opt.threads; t++) read += b->scratch[t].read, all += b->scratch[t].all;
    return all ? (double)read / (double)all : 1.0;
}
