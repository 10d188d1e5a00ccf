/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h - the device the model runs on: memory, rows of activations, and the operations of a forward
 * pass.
 *
 * The model room speaks only this language. A pointer that came from sq_backend_alloc, and every pointer
 * inside an sq_rows or a weight, is a *device pointer*: only the backend may follow it (on the CPU it happens
 * to be ordinary memory; a CUDA backend gives device addresses and copies ids, positions and page tables
 * itself). Host data in calls are marked.
 *
 * Operations run in order. They cannot fail: whatever could is planned and allocated before the first step.
 * Results do not depend on the number of rows in a call, on how rows are grouped, or on the number of
 * threads; see kernels.h. A backend is used by one thread at a time. */
#ifndef SQ_BACKEND_H
#define SQ_BACKEND_H

#include "kernels/kernels.h"

typedef struct sq_backend sq_backend;

/* m rows of activations [m][cols], padded with zeros to ld = groups * 64 columns. If `quantised` the integer
 * form is valid. */
typedef struct {
    int32_t m, m_max, cols, groups;
    bool quantised;
    float *f;
    int8_t *q;
    float *scale, *xsum;
    int32_t *isum;
    int16_t *isum16;
} sq_rows;
static inline size_t sq_rows_ld(const sq_rows *r) { return (size_t)r->groups * SQ_GROUP; }

/* One matrix applied to shared rows: y[i][r] = W[r] . x[i] (+ bias[r]); added
 * to what y holds if `accumulate`. */
typedef struct {
    const sq_weight *w;
    const float *bias; /* [rows] or NULL */
    sq_rows *y;        /* y->cols = w->rows */
    bool accumulate;
} sq_linear;

typedef enum { SQ_ACT_SILU, SQ_ACT_GELU_TANH, SQ_ACT_RELU2 } sq_activation;

enum { SQ_EXPERTS_MAX = 4096 };

/* One expert: h = act(gate x) * (up x), y = down h. */
typedef struct {
    sq_weight gate, up, down;
} sq_expert;

/* How rows choose among experts. */
typedef struct {
    int32_t n, used;             /* experts, and how many a row takes */
    int32_t n_group, topk_group; /* the chosen are of the topk_group groups with the largest best score */
    bool norm;                   /* weights are divided by their sum, else multiplied by scale */
    float scale;
} sq_route_rule;

/* The choice of m rows, on the host, ordered twice: by row, and by expert. */
typedef struct {
    int32_t m, m_max;
    sq_route_rule rule;
    int32_t *expert; /* [m][used] in rising order */
    float *weight;   /* [m][used] */
    int32_t *slot;   /* [m][used]: where this row stands among those gathered by expert */
    int32_t *first;  /* [n + 1]: slots of expert e are [first[e], first[e + 1]) */
    int32_t *row;    /* [m * used]: the row of a slot */
    int32_t *active; /* [n]: scratch of run */
    float *p;        /* [n]: probabilities of a row */
} sq_routes;

/* Memory of a block of experts; slots are rows gathered by expert, m_max * used of them. */
typedef struct {
    sq_rows in, mid, out; /* [slots][hidden], [slots][ffn], [slots][hidden] */
} sq_expert_rows;

/* What prompts leave out of their past. Both are off by default, and both are functions of positions, keys
 * and queries alone: neither threads nor other sequences of a step show in the result.
 *   sage    a row at position p reads whole chunks before its own, those below 256 floor(p / 256), in 8
 *           bits (kernels.h, R7). Where a prompt is cut does not show.
 *   sparge  from position sparge_min on, in layers without a window, rows come in aligned blocks of as many
 *           tokens as share a pass over a tile. Of the blocks of 64 keys behind it such a block reads those
 *           that its pooled queries give weight to (be_prompt.c), the first and the last two, and drops
 *           tiles of these whose scores turn out small (R4). Shows where a prompt is cut inside a block. */
typedef struct {
    bool sage, sparge;
    int32_t sparge_min;    /* >= 0 */
    float sparge_mass;     /* share of the predicted weight that is read, (0, 1] */
} sq_attn_prompt;

/* Rows of one sequence within a step, and where its cache lies. */
typedef struct {
    int32_t row0, n_rows;  /* rows of the step */
    int32_t pos0;          /* slot of the first of them; slots are consecutive. A token's slot is its
                              position, less what was dropped before it */
    bool prompt;           /* all rows are of a prompt: they attend as sq_attn_prompt says, else exactly */
    uint8_t *const *pages; /* host table: pages[t] = open page of tokens [32t, 32t + 32) in this layer */
    uint8_t *const *sealed; /* the same of sealed pages, read as sq_kv_sealed_tiles says; NULL: all is open */
    const uint8_t *reads; /* host table: how tile t is read, SQ_KV_READ_; then headers of sealed pages say in
                             which formats. NULL: as sq_kv_sealed_tiles says, in those of the layer */
    int32_t lead, lead_row0; /* rows [lead_row0, lead_row0 + lead) of the step, of another segment, are stored
                                here too, in the slots before pos0 */
} sq_attn_seg;

/* A tile to be sealed before its layer attends. */
typedef struct {
    int32_t seg, tile;
} sq_attn_seal;

/* Where the tiles of head 0 lie in a page, and how far the next head is, in bytes. */
typedef struct {
    size_t k_off, v_off, head_stride;
} sq_attn_page;

/* Attention of one layer. */
typedef struct {
    int32_t n_heads, n_kv_heads, head_dim;
    float scale;           /* softmax scale, multiplied into q */
    bool kv_f32;           /* tiles hold f32, else f16 */
    int32_t window;        /* a query at p sees [p - window + 1, p]; 0: all of [0, p] */
    const float *q_norm, *k_norm; /* [head_dim] RMSNorm of every head before rotation, or NULL */
    float norm_eps;
    const float *cos, *sin;/* [m][head_dim / 2] of the step's rows */
    bool pairs;            /* rotate neighbours (2i, 2i + 1), else halves (i, i + head_dim / 2) */
    sq_attn_page open;
    bool seals;                /* old tiles are read sealed */
    sq_kv_format k_fmt, v_fmt; /* of sealed tiles */
    sq_attn_page sealed;
    sq_kv_window kept_open;    /* what is read open beside sealed tiles */
    bool rotate_v; /* values are stored in a Walsh-Hadamard basis; head_dim is a power of two */
} sq_attn_shape;

/* ---- life ------------------------------------------------------------------------------------ */

typedef struct {
    int32_t threads;       /* >= 1 */
    sq_isa isa_max;
    int32_t m_max;         /* most rows in one step */
    int32_t heads_max, kv_heads_max; /* most query heads, most heads of keys and values */
    int32_t head_dim_max, ctx_max;
    int32_t rank_max;      /* largest sum of low-rank ranks, each rounded up to 64, in one sq_be_linear or
                              sq_be_gated; 0: none */
    sq_attn_prompt prompt;
} sq_backend_options;
/* The CPU backend: owns a thread pool and per-thread scratch. NO_MEMORY. */
squish_status sq_backend_cpu_new(sq_backend **out, const sq_backend_options *opt, const squish_alloc *a,
                                 squish_error *err);
void sq_backend_free(sq_backend *b);
const char *sq_backend_isa(const sq_backend *b);
uint64_t sq_backend_scratch_bytes(const sq_backend_options *opt);

/* Zeroed device memory, 64-byte aligned, touched only as used. NULL on failure. */
void *sq_backend_alloc(sq_backend *b, size_t bytes);
void sq_backend_release(sq_backend *b, void *p, size_t bytes);
/* Bytes sq_rows_carve takes for m_max rows of cols columns, and the carving of such a block. */
size_t sq_rows_bytes(int32_t m_max, int32_t cols, bool with_q);
void sq_rows_carve(sq_rows *r, int32_t m_max, int32_t cols, bool with_q, void *memory);

/* Have bytes at p, of a file mapping, in memory and in the page tables, by all threads. A wish: the first
 * step would do the same, page by page. */
void sq_be_populate(sq_backend *b, const void *p, size_t bytes);

/* ---- operations ------------------------------------------------------------------------------ */

/* x[i] = scale * table[ids[i]]; ids host [m], each < table rows; sets x->m. */
void sq_be_embed(sq_backend *b, const sq_weight *table, const int32_t *ids, int32_t m, float scale,
                 sq_rows *x);
/* y[i] = rmsnorm(x[pick ? pick[i] : i]) * w for i < m; pick: host [m] or NULL. Quantised too if asked. y may
 * be x if pick is NULL. */
void sq_be_rmsnorm(sq_backend *b, const sq_rows *x, const int32_t *pick, int32_t m, const float *w, float eps,
                   bool quantise, sq_rows *y);
/* n <= 4 matrices on the same rows, in one pass over the threads. Low-rank terms of a matrix are added in the
 * order of its chain: t = V x (f32, whatever the form of x), then y += scale * U t, before the bias. V x of
 * all terms of the call is made first, once. */
void sq_be_linear(sq_backend *b, const sq_rows *x, const sq_linear *l, int32_t n);
/* h = act(Wg x) * (Wu x), quantised if asked. gate_bias and up_bias may be NULL. */
void sq_be_gated(sq_backend *b, const sq_rows *x, const sq_weight *wg, const float *gate_bias,
                 const sq_weight *wu, const float *up_bias, sq_activation act, bool quantise, sq_rows *h);
/* Bytes of sq_routes for m_max rows, and the carving of such a block of host memory. */
size_t sq_routes_bytes(const sq_route_rule *rule, int32_t m_max);
void sq_routes_carve(sq_routes *r, const sq_route_rule *rule, int32_t m_max, void *memory);
/* Softmax over the scores [m][n] and the choice of each row: the largest, of equal ones the first. */
void sq_be_route(sq_backend *b, const sq_rows *scores, sq_routes *r);
/* A block of experts in three parts, so that experts may come in any order, some at a time:
 *   gather   the rows of x, expert by expert, into e->in (quantised if x is)
 *   run      experts[i - from] for i in [from, to): e->out of their slots; or some of experts[0..n), by
 *            their numbers in rising order
 *   sum      y[i] += sum over the chosen in rising order of weight * out, then (shared != NULL) shared[i],
 *            times the sigmoid of `gate` [m][1] if that is not NULL
 * What a row gets does not depend on the other rows, nor on how experts are spread over calls of run. */
void sq_be_experts_gather(sq_backend *b, const sq_rows *x, const sq_routes *r, sq_expert_rows *e);
void sq_be_experts_run(sq_backend *b, const sq_routes *r, const sq_expert *experts, int32_t from, int32_t to,
                       sq_activation act, sq_expert_rows *e);
void sq_be_experts_run_some(sq_backend *b, const sq_routes *r, const sq_expert *experts, const int32_t *ids,
                            int32_t n, sq_activation act, sq_expert_rows *e);
void sq_be_experts_sum(sq_backend *b, const sq_routes *r, const sq_expert_rows *e, const sq_rows *shared,
                       const sq_rows *gate, sq_rows *y);
/* x += y */
void sq_be_add(sq_backend *b, sq_rows *x, const sq_rows *y);
/* x += silu(s) = s / (1 + exp(-s)); s ends with its silu. */
void sq_be_silu_add(sq_backend *b, sq_rows *x, sq_rows *s);
/* Make the integer form of rows from the other. */
void sq_be_quantise(sq_backend *b, sq_rows *r);
/* y[to + i] = x[from + i] for i < n, of the same width, the f32 form alone; y ends with them. */
void sq_be_copy_rows(sq_backend *b, const sq_rows *x, int32_t from, int32_t n, sq_rows *y, int32_t to);
/* cos[i][j] = A cos(pos[i] * inv_freq[j]), sin alike; angles in double (an f32 angle is off in the third
 * decimal at position 100k). pos host [m]; inv_freq host [half]. */
void sq_be_rope_table(sq_backend *b, const int32_t *pos, int32_t m, const double *inv_freq, int32_t half,
                      double A, float *cos, float *sin);
/* Normalise and rotate q and k in place, scale q, and store k and v in the pages of their sequences. */
void sq_be_attn_prepare(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                        sq_rows *q, sq_rows *k, const sq_rows *v);
/* Make sealed tiles from open ones that are full: n of them, host list. */
void sq_be_attn_seal(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs,
                     const sq_attn_seal *seals, int32_t n);
/* A page on its way to fewer bits: of all heads of a layer. from is open, or sealed as its header says; the
 * header of `to` says what it is to be. */
typedef struct {
    const uint8_t *from;
    uint8_t *to;
    bool from_open;
    const float *weight; /* [n_kv_heads][head_dim] of queries, host; for keys with channels in classes */
} sq_attn_move;
/* Write the tiles of n pages from those of others; host list. (be_move.c) */
void sq_be_attn_move(sq_backend *b, const sq_attn_shape *s, const sq_attn_move *moves, int32_t n);
/* Let the queries of a segment's rows [row0, row0 + n_rows), prepared, count in a running mean of |q| by
 * channel, weight [n_kv_heads][head_dim], over the heads that share keys. Host. (be_mix.c) */
void sq_be_attn_weigh(const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0, int32_t n_rows,
                      const sq_rows *q, float *weight);
/* How much rows look at each tile: for the segment's rows [row0, row0 + n_rows), whose queries are prepared,
 * mass[t] += the sum over rows and heads of the probability of tile t, for all tiles up to the last row's.
 * scratch: 2 * n_rows * n_heads floats. Host. (be_mass.c) */
void sq_be_attn_mass(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0,
                     int32_t n_rows, const sq_rows *q, float *scratch, float *mass);
/* Likewise at each token of tiles [0, n_tiles), which lie before all these rows, by heads of keys:
 * looks[h * ld + t] becomes the largest of itself and the probabilities of token t over rows and heads of
 * queries. What a row says does not depend on the rows of its step. (be_mass.c) */
void sq_be_attn_looks(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *seg, int32_t row0,
                      int32_t n_rows, const sq_rows *q, int32_t n_tiles, float *scratch, float *looks,
                      size_t ld);
/* Copy tokens into open pages of their own: of each head h of keys slots[h * n + i], rising, become slot i of
 * pages `to`, i < n, a whole number of tiles. pages, sealed, reads: how the sequence reads its tiles
 * (sq_attn_seg). What is sealed is read as its codes say. Host. (be_gather.c) */
void sq_be_attn_gather(sq_backend *b, const sq_attn_shape *s, uint8_t *const *pages, uint8_t *const *sealed,
                       const uint8_t *reads, const int32_t *slots, int32_t n, uint8_t *const *to);
/* out[i] = attention of row i over its sequence's pages. out->cols = n_heads * head_dim. Quantised if asked.
 */
void sq_be_attend(sq_backend *b, const sq_attn_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                  const sq_rows *q, bool quantise, sq_rows *out);
/* Of the keys that prompts under sparge could have read, the share that they did; 1 before there were any. */
double sq_be_attn_density(const sq_backend *b);
/* Tiles of keys and values, each of one head of one layer, that sage put into 8 bits for a step. */
uint64_t sq_be_attn_sage_tiles(const sq_backend *b);
/* Host view of rows, row i at i * sq_rows_ld(r); valid until r is written again. */
const float *sq_be_host(sq_backend *b, const sq_rows *r);

#endif
