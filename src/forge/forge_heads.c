/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_heads.c - training heads.
 *
 * A step takes RUNS runs of neighbouring positions, so that what the base says of a position serves all heads
 * that guess it:
 *
 *   rows of a run      t = s .. s + L - 1          L = RUN + 1 - heads
 *   base, of a run     s + 1 .. s + RUN            head i at t learns from t + i
 *
 * The rows are padded with zeros to a multiple of 64, since gradients of weights are products over rows. */
#include "forge/forge_heads.h"

#include <math.h>
#include <string.h>

/* WIDE_MAX: inputs that sq_hm_solve takes. */
enum {
    RUNS = 16,
    RUN = 32,
    ROWS = RUNS * RUN,
    WARM_UP = 20,
    HELD_MAX = 8192,
    FIT_STEPS = 128,
    WIDE_MAX = 16384
};
_Static_assert(ROWS % SQ_GROUP == 0, "gradients are products over rows");

static const float DECAY = 0.01f;
static const double RIDGE = 1e-3; /* of the mean of the diagonal */

/* A parameter of n elements and what AdamW keeps of it. */
typedef struct {
    float *w, *g, *m, *v;
    size_t n;
} param;

typedef struct {
    param in, in_bias, mid, mid_bias;
} head;

typedef struct {
    const sq_model *m;
    const sq_heads_text *text;
    const sq_heads_wish *wish;
    sq_hm hm;
    sq_arena arena;
    int32_t hidden, n_ids, run_rows; /* of a run that learn: L */
    int64_t starts;                  /* how many runs there are */
    int64_t *starts_before;          /* [sequences that learn + 1] */
    float embed_scale;
    int32_t *ids;
    float *table, *table_t; /* [n_ids][hidden] and transposed */
    head heads[SQ_HEADS_MAX];
    /* Of a step: positions [ROWS], -1: padding; inputs of the widest head, transposed; what the base says. */
    int64_t *at;
    float *x, *x_t, *wide, *teacher, *teach_h;
    float *u, *s, *z, *logits, *dz, *ds, *du, *t1, *t2, *weight_t;
} job;

/* ---- memory ---------------------------------------------------------------------------------- */

static float *floats(job *j, size_t n) { return sq_arena_alloc(&j->arena, n * sizeof(float), 64); }

static bool param_make(job *j, param *p, size_t n) {
    *p = (param){floats(j, n), floats(j, n), floats(j, n), floats(j, n), n};
    return p->w && p->g && p->m && p->v;
}

static squish_status make(job *j, squish_error *err) {
    const size_t h = (size_t)j->hidden, k = (size_t)j->wish->heads, ids = (size_t)j->n_ids, rows = ROWS;
    bool ok = true;
    for (size_t i = 0; i < k; i++) {
        head *d = &j->heads[i];
        ok = ok && param_make(j, &d->in, h * (i + 2) * h) && param_make(j, &d->in_bias, h) &&
             param_make(j, &d->mid, h * h) && param_make(j, &d->mid_bias, h);
    }
    float **const all[] = {&j->u, &j->s, &j->z, &j->dz, &j->ds, &j->du, &j->t1, &j->t2, &j->teach_h};
    for (size_t i = 0; i < SQ_COUNT(all); i++) ok = ok && (*all[i] = floats(j, rows * h));
    ok = ok && (j->table = floats(j, ids * h)) && (j->table_t = floats(j, ids * h)) &&
         (j->x = floats(j, rows * (k + 1) * h)) && (j->x_t = floats(j, rows * (k + 1) * h)) &&
         (j->wide = floats(j, rows * (k + 1) * h)) && (j->teacher = floats(j, rows * ids)) &&
         (j->logits = floats(j, rows * ids)) && (j->weight_t = floats(j, h * h)) &&
         (j->at = SQ_ARENA_ARRAY(&j->arena, int64_t, rows)) &&
         (j->starts_before = SQ_ARENA_ARRAY(&j->arena, int64_t, (size_t)j->text->n_seqs + 1));
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
}

/* ---- ids, table, start ----------------------------------------------------------------------- */

typedef struct {
    int32_t id, count;
} counted;

static int by_count(const void *a, const void *b) {
    const counted *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count)
                                : (x->id > y->id) - (x->id < y->id);
}

static int by_id(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The commonest of what the base says or would have said. */
static squish_status choose_ids(job *j, sq_heads_outcome *got, squish_error *err) {
    const int32_t n_vocab = j->m->cfg.n_vocab;
    counted *c = SQ_ARENA_ARRAY(&j->arena, counted, (size_t)n_vocab);
    j->ids = SQ_ARENA_ARRAY(&j->arena, int32_t, (size_t)j->n_ids);
    if (!c || !j->ids) return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
    for (int32_t i = 0; i < n_vocab; i++) c[i].id = i;
    for (int64_t i = 0; i < j->text->n; i++) c[j->text->tokens[i]].count++, c[j->text->top[i]].count++;
    qsort(c, (size_t)n_vocab, sizeof *c, by_count);
    double covered = 0;
    for (int32_t i = 0; i < j->n_ids; i++) j->ids[i] = c[i].id, covered += c[i].count;
    got->coverage = (float)(covered / (2.0 * (double)j->text->n));
    qsort(j->ids, (size_t)j->n_ids, sizeof *j->ids, by_id);
    for (int32_t i = 0; i < j->n_ids; i++)
        sq_weight_row_whole(&j->m->head, j->ids[i], j->table + (size_t)i * (size_t)j->hidden);
    sq_hm_transpose(&j->hm, j->table, j->n_ids, j->hidden, j->table_t);
    return SQUISH_OK;
}

static double uniform(uint64_t seed, uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t counter[4] = {a, b, c, 7}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    sq_philox(counter, key, out);
    return ((double)out[0] + 0.5) / 4294967296.0;
}

static double mean_square(const float *x, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return s / (double)n;
}

static void hidden_of(const job *j, int64_t t, float *out) {
    const uint16_t *h = j->text->hidden + (size_t)t * (size_t)j->hidden;
    for (int32_t i = 0; i < j->hidden; i++) out[i] = sq_f16_to_f32(h[i]);
}

/* What brings embeddings to the size of hidden states. */
static void measure_scale(job *j) {
    double hs = 0, es = 0;
    const int64_t step = j->text->n / 256 + 1;
    for (int64_t t = 0; t < j->text->n; t += step) {
        hidden_of(j, t, j->u);
        sq_weight_row_whole(&j->m->embed, j->text->tokens[t], j->s);
        hs += mean_square(j->u, (size_t)j->hidden);
        es += mean_square(j->s, (size_t)j->hidden);
    }
    j->embed_scale = es > 0 ? (float)sqrt(hs / es) / j->m->cfg.embed_scale : 1;
}

static squish_status count_starts(job *j, squish_error *err) {
    const sq_heads_text *t = j->text;
    for (int32_t s = 0; s < t->n_seqs - t->n_held; s++) {
        const int64_t len = t->first[s + 1] - t->first[s], runs = len - RUN;
        j->starts_before[s] = j->starts;
        if (runs > 0) j->starts += runs;
    }
    j->starts_before[t->n_seqs - t->n_held] = j->starts;
    if (j->starts < RUNS || t->n_held < 1)
        return sq_fail(err, SQUISH_INVALID, "training heads: %lld tokens in %d sequences are too few",
                       (long long)t->n, t->n_seqs);
    return SQUISH_OK;
}

/* ---- rows of a step -------------------------------------------------------------------------- */

static int64_t start_at(const job *j, int64_t u) {
    int32_t lo = 0, hi = j->text->n_seqs - j->text->n_held;
    while (hi - lo > 1) {
        const int32_t mid = (lo + hi) / 2;
        if (j->starts_before[mid] <= u)
            lo = mid;
        else
            hi = mid;
    }
    return j->text->first[lo] + (u - j->starts_before[lo]);
}

static void row_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    job *j = ctx;
    const size_t h = (size_t)j->hidden, parts = (size_t)j->wish->heads + 1;
    float *x = j->x + (size_t)i * parts * h;
    if (j->at[i] < 0) {
        memset(x, 0, parts * h * sizeof *x);
        return;
    }
    hidden_of(j, j->at[i], x);
    for (size_t p = 1; p < parts; p++) {
        float *e = x + p * h;
        sq_weight_row_whole(&j->m->embed, j->text->tokens[j->at[i] + (int64_t)p], e);
        for (size_t c = 0; c < h; c++) e[c] *= j->embed_scale * j->m->cfg.embed_scale;
    }
}

typedef struct {
    const job *j;
    const int64_t *first; /* [RUNS] */
} teach_ctx;

static void teach_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const teach_ctx *c = ctx;
    hidden_of(c->j, c->first[i / RUN] + 1 + i % RUN, c->j->teach_h + (size_t)i * (size_t)c->j->hidden);
}

/* Rows of runs that begin at first [RUNS]; what the base says behind each. */
static void gather(job *j, const int64_t *first) {
    for (int32_t i = 0; i < ROWS; i++) {
        const int32_t in = i % RUN;
        j->at[i] = in < j->run_rows ? first[i / RUN] + in : -1;
    }
    teach_ctx c = {j, first};
    sq_pool_run(j->hm.pool, row_item, j, ROWS);
    sq_pool_run(j->hm.pool, teach_item, &c, ROWS);
    sq_hm_product(&j->hm, j->table, j->n_ids, j->hidden, j->teach_h, ROWS, j->teacher, (size_t)j->n_ids);
    sq_hm_softmax(&j->hm, j->teacher, ROWS, j->n_ids);
}

/* ---- where they begin -------------------------------------------------------------------------- */

static void runs_of(const job *j, uint32_t step, uint32_t stream, int64_t *first) {
    for (uint32_t r = 0; r < RUNS; r++)
        first[r] = start_at(j, (int64_t)(uniform(j->wish->seed, step, r, stream) * (double)j->starts));
}

static void add_f64(double *to, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) to[i] += (double)x[i];
}

/* Sums of x x^T, and of y x^T for each head, over some rows of all sequences. Inputs of a head are the first
 * of those of the next, so one matrix and one decomposition serve all. */
static squish_status sum_products(job *j, double *xx, double *const *yx, float *part, squish_error *err) {
    const int32_t h = j->hidden, k = j->wish->heads, wide = (k + 1) * h;
    /* Each position once, as far as that goes. */
    const int64_t whole = j->starts / (RUNS * j->run_rows) + 1;
    const int32_t steps = whole < FIT_STEPS ? (int32_t)whole : FIT_STEPS;
    for (int32_t s = 0; s < steps; s++) {
        int64_t first[RUNS];
        runs_of(j, (uint32_t)s, 3, first);
        gather(j, first);
        sq_hm_transpose(&j->hm, j->x, ROWS, wide, j->x_t);
        sq_hm_product(&j->hm, j->x_t, wide, ROWS, j->x_t, wide, part, (size_t)wide);
        add_f64(xx, part, (size_t)wide * (size_t)wide);
        for (int32_t i = 0; i < k; i++) {
            const int32_t cols = (i + 2) * h;
            memset(j->t1 + (size_t)(ROWS - i) * (size_t)h, 0, (size_t)i * (size_t)h * sizeof *j->t1);
            memcpy(j->t1, j->teach_h + (size_t)i * (size_t)h, (size_t)(ROWS - i) * (size_t)h * sizeof *j->t1);
            sq_hm_transpose(&j->hm, j->t1, ROWS, h, j->t2);
            sq_hm_product(&j->hm, j->x_t, cols, ROWS, j->t2, h, part, (size_t)cols);
            add_f64(yx[i], part, (size_t)h * (size_t)cols);
        }
        if (j->wish->progress &&
            !j->wish->progress(j->wish->progress_user, "least squares", (uint64_t)s + 1, (uint64_t)steps))
            return sq_fail(err, SQUISH_CANCELLED, "stopped before training");
    }
    return SQUISH_OK;
}

static squish_status fit(job *j, squish_error *err) {
    const int32_t h = j->hidden, k = j->wish->heads, wide = (k + 1) * h;
    const size_t n = (size_t)wide;
    double *xx = sq_arena_alloc(&j->arena, n * n * sizeof *xx, 64), *yx[SQ_HEADS_MAX], mean = 0;
    float *part = floats(j, n * n);
    bool ok = xx && part;
    for (int32_t i = 0; i < k; i++) {
        yx[i] = sq_arena_alloc(&j->arena, (size_t)h * (size_t)(i + 2) * (size_t)h * sizeof *yx[i], 64);
        ok = ok && yx[i];
    }
    if (!ok) return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
    SQ_TRY(sum_products(j, xx, yx, part, err));
    for (size_t i = 0; i < n; i++) mean += xx[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++) xx[i * n + i] += RIDGE * mean;
    if (!sq_hm_cholesky(&j->hm, xx, wide))
        return sq_fail(err, SQUISH_NUMERIC, "training heads: hidden states that are not numbers");
    for (int32_t i = 0; i < k; i++) sq_hm_solve(&j->hm, xx, wide, yx[i], h, (i + 2) * h, j->heads[i].in.w);
    return SQUISH_OK;
}

/* ---- one head -------------------------------------------------------------------------------- */

typedef struct {
    job *j;
    int32_t i_head, cols;
    double loss[ROWS];
} head_ctx;

/* The first parts of each row, as one matrix. */
static void narrow_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const head_ctx *c = ctx;
    const size_t parts = (size_t)(c->j->wish->heads + 1) * (size_t)c->j->hidden;
    memcpy(c->j->wide + (size_t)i * (size_t)c->cols, c->j->x + (size_t)i * parts,
           (size_t)c->cols * sizeof(float));
}

/* logits become (q - p) / rows; loss of the row: KL(p || q). */
static void loss_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    head_ctx *c = ctx;
    job *j = c->j;
    float *q = j->logits + (size_t)i * (size_t)j->n_ids;
    c->loss[i] = 0;
    if (j->at[i] < 0) {
        memset(q, 0, (size_t)j->n_ids * sizeof *q);
        return;
    }
    const float *p = j->teacher + (size_t)(i + c->i_head) * (size_t)j->n_ids;
    const float by = 1.0f / (float)(RUNS * j->run_rows);
    double loss = 0;
    for (int32_t k = 0; k < j->n_ids; k++) {
        if (p[k] > 1e-6f) loss += (double)p[k] * (double)logf(p[k] / (q[k] + 1e-12f));
        q[k] = (q[k] - p[k]) * by;
    }
    c->loss[i] = loss;
}

static void forward(job *j, const head *d, int32_t cols, const float *x, int32_t m) {
    const int32_t h = j->hidden;
    sq_hm_product(&j->hm, d->in.w, h, cols, x, m, j->u, (size_t)h);
    sq_hm_bias(&j->hm, j->u, m, h, d->in_bias.w);
    sq_hm_product(&j->hm, d->mid.w, h, h, j->u, m, j->s, (size_t)h);
    sq_hm_bias(&j->hm, j->s, m, h, d->mid_bias.w);
    sq_hm_silu(&j->hm, j->u, j->s, (size_t)m * (size_t)h, j->z);
    sq_hm_product(&j->hm, j->table, j->n_ids, h, j->z, m, j->logits, (size_t)j->n_ids);
}

/* g of W [rows][cols] from dy [ROWS][rows] and x transposed [cols][ROWS]. */
static void weight_gradient(job *j, const float *dy, int32_t rows, const float *x_t, int32_t cols, param *p) {
    sq_hm_transpose(&j->hm, dy, ROWS, rows, j->t2);
    sq_hm_product(&j->hm, x_t, cols, ROWS, j->t2, rows, p->g, (size_t)cols);
}

static void backward(job *j, head *d, int32_t cols) {
    const int32_t h = j->hidden;
    const size_t n = (size_t)ROWS * (size_t)h;
    sq_hm_product(&j->hm, j->table_t, h, j->n_ids, j->logits, ROWS, j->dz, (size_t)h);
    sq_hm_silu_back(&j->hm, j->dz, j->s, n, j->ds);
    sq_hm_transpose(&j->hm, d->mid.w, h, h, j->weight_t);
    sq_hm_product(&j->hm, j->weight_t, h, h, j->ds, ROWS, j->du, (size_t)h);
    sq_hm_add(&j->hm, j->du, j->dz, n);
    sq_hm_transpose(&j->hm, j->u, ROWS, h, j->t1);
    weight_gradient(j, j->ds, h, j->t1, h, &d->mid);
    sq_hm_sum_rows(&j->hm, j->ds, ROWS, h, d->mid_bias.g);
    sq_hm_transpose(&j->hm, j->wide, ROWS, cols, j->x_t);
    weight_gradient(j, j->du, h, j->x_t, cols, &d->in);
    sq_hm_sum_rows(&j->hm, j->du, ROWS, h, d->in_bias.g);
}

static void learn(job *j, head *d, int32_t step) {
    const int32_t all = j->wish->steps;
    const double warm = step < WARM_UP ? (double)step / WARM_UP : 1;
    const double turn = 0.5 * (1 + cos(3.141592653589793 * step / all));
    const sq_hm_adam a = {(float)((double)j->wish->rate * warm * (0.02 + 0.98 * turn)), DECAY, step};
    const sq_hm_adam bias = {a.rate, 0, step};
    sq_hm_adam_step(&j->hm, &a, d->in.w, d->in.g, d->in.m, d->in.v, d->in.n);
    sq_hm_adam_step(&j->hm, &a, d->mid.w, d->mid.g, d->mid.m, d->mid.v, d->mid.n);
    sq_hm_adam_step(&j->hm, &bias, d->in_bias.w, d->in_bias.g, d->in_bias.m, d->in_bias.v, d->in_bias.n);
    sq_hm_adam_step(&j->hm, &bias, d->mid_bias.w, d->mid_bias.g, d->mid_bias.m, d->mid_bias.v, d->mid_bias.n);
}

/* Mean KL over heads. */
static double step_once(job *j, int32_t step) {
    int64_t first[RUNS];
    double loss = 0;
    runs_of(j, (uint32_t)step, 2, first);
    gather(j, first);
    for (int32_t i = 0; i < j->wish->heads; i++) {
        head_ctx c = {.j = j, .i_head = i, .cols = (i + 2) * j->hidden};
        sq_pool_run(j->hm.pool, narrow_item, &c, ROWS);
        forward(j, &j->heads[i], c.cols, j->wide, ROWS);
        sq_hm_softmax(&j->hm, j->logits, ROWS, j->n_ids);
        sq_pool_run(j->hm.pool, loss_item, &c, ROWS);
        for (int32_t k = 0; k < ROWS; k++) loss += c.loss[k];
        backward(j, &j->heads[i], c.cols);
        learn(j, &j->heads[i], step);
    }
    return loss / (RUNS * j->run_rows * j->wish->heads);
}

static squish_status train(job *j, sq_heads_outcome *got, squish_error *err) {
    const int32_t n = j->wish->steps, part = n / 100 + 1;
    for (int32_t s = 1; s <= n; s++) {
        const double loss = step_once(j, s);
        if (!isfinite(loss))
            return sq_fail(err, SQUISH_NUMERIC, "training heads: the loss of step %d is not a number", s);
        if (s <= part) got->loss_first += (float)(loss / part);
        if (s > n - part) got->loss_last += (float)(loss / part);
        if (j->wish->progress &&
            !j->wish->progress(j->wish->progress_user, "training heads", (uint64_t)s, (uint64_t)n))
            return sq_fail(err, SQUISH_CANCELLED, "stopped after %d of %d steps", s, n);
    }
    return SQUISH_OK;
}

/* ---- what comes out -------------------------------------------------------------------------- */

static void encode(const job *j, const param *p, int32_t cols, uint8_t *out) {
    const sq_encoding e = {.type = j->wish->type, .scale = SQ_SCALE_F16, .method = SQ_QUANT_LSQ};
    const sq_weight w = sq_weight_make(e.type, e.scale, j->hidden, cols, out);
    for (int32_t t = 0; t < sq_weight_tiles(&w); t++)
        sq_quant_tile(&e, p->w + (size_t)t * SQ_TILE_ROWS * (size_t)cols, (size_t)cols, SQ_TILE_ROWS, cols,
                      out + (size_t)t * w.tile_bytes);
}

/* Weights as they will be read. */
static void decode(const job *j, param *p, int32_t cols, const uint8_t *in) {
    const sq_weight w = sq_weight_make(j->wish->type, SQ_SCALE_F16, j->hidden, cols, in);
    for (int32_t r = 0; r < j->hidden; r++) sq_weight_row(&w, r, p->w + (size_t)r * (size_t)cols);
}

/* Of head i, over the positions of what was held back. */
static float agreement(job *j, int32_t i) {
    const sq_heads_text *t = j->text;
    const int64_t begin = t->first[t->n_seqs - t->n_held];
    int64_t seen = 0, right = 0, at = begin;
    const int32_t cols = (i + 2) * j->hidden;
    for (int32_t s = t->n_seqs - t->n_held; s < t->n_seqs && seen < HELD_MAX; s++)
        for (at = t->first[s]; at + j->wish->heads < t->first[s + 1] && seen < HELD_MAX;) {
            head_ctx c = {.j = j, .i_head = i, .cols = cols};
            int32_t n = 0;
            for (; n < ROWS && at + n + j->wish->heads < t->first[s + 1]; n++) j->at[n] = at + n;
            for (int32_t k = n; k < ROWS; k++) j->at[k] = -1;
            sq_pool_run(j->hm.pool, row_item, j, n);
            sq_pool_run(j->hm.pool, narrow_item, &c, n);
            forward(j, &j->heads[i], cols, j->wide, n);
            for (int32_t k = 0; k < n; k++) {
                const float *l = j->logits + (size_t)k * (size_t)j->n_ids;
                int32_t best = 0;
                for (int32_t v = 1; v < j->n_ids; v++)
                    if (l[v] > l[best]) best = v;
                right += j->ids[best] == t->top[at + k + i + 1];
            }
            seen += n;
            at += n;
        }
    return seen ? (float)right / (float)seen : 0;
}

static squish_status write(job *j, sq_heads_outcome *got, const squish_alloc *a, uint8_t **out, size_t *bytes,
                           squish_error *err) {
    const size_t row = (size_t)j->hidden * sizeof(float);
    sq_heads_head h = {.n = j->wish->heads,
                       .hidden = j->hidden,
                       .n_ids = j->n_ids,
                       .n_vocab = j->m->cfg.n_vocab,
                       .type = j->wish->type,
                       .embed_scale = j->embed_scale,
                       .model = sq_heads_model(j->m)};
    sq_heads_layout l;
    SQ_TRY(sq_heads_layout_of(&h, &l, err));
    uint8_t *file = sq_alloc_zero(a, l.bytes);
    if (!file) return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
    memcpy(file + l.ids, j->ids, (size_t)j->n_ids * sizeof *j->ids);
    for (int32_t i = 0; i < h.n; i++) {
        head *d = &j->heads[i];
        memcpy(file + l.in_bias[i], d->in_bias.w, row);
        memcpy(file + l.mid_bias[i], d->mid_bias.w, row);
        encode(j, &d->in, (i + 2) * j->hidden, file + l.in[i]);
        encode(j, &d->mid, j->hidden, file + l.mid[i]);
        decode(j, &d->in, (i + 2) * j->hidden, file + l.in[i]);
        decode(j, &d->mid, j->hidden, file + l.mid[i]);
        got->agreement[i] = h.agreement[i] = agreement(j, i);
    }
    sq_heads_write_header(&h, &l, file);
    *out = file;
    *bytes = l.bytes;
    return SQUISH_OK;
}

squish_status sq_heads_train(const sq_model *m, const sq_heads_text *t, const sq_heads_wish *w, sq_pool *pool,
                             const squish_alloc *a, uint8_t **out, size_t *bytes, sq_heads_outcome *got,
                             squish_error *err) {
    job *j = sq_alloc_zero(a, sizeof *j);
    *out = NULL;
    *got = (sq_heads_outcome){0};
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
    *j = (job){.m = m,
               .text = t,
               .wish = w,
               .hidden = m->cfg.hidden,
               .n_ids = w->n_ids,
               .run_rows = RUN + 1 - w->heads};
    j->hm.pool = pool;
    sq_kernels_select(&j->hm.k, sq_cpu_features(), SQ_ISA_COUNT);
    sq_arena_init(&j->arena, a, 1 << 20, 0);
    _Static_assert(SQ_HEADS_MAX + 1 <= WIDE_MAX / SQ_GROUP, "the narrowest model has room for all heads");
    const sq_heads_head shape = {
        .n = w->heads, .hidden = j->hidden, .n_ids = w->n_ids, .n_vocab = m->cfg.n_vocab, .type = w->type};
    sq_heads_layout l;
    squish_status st = sq_heads_layout_of(&shape, &l, err);
    if (st == SQUISH_OK && w->n_ids % SQ_GROUP)
        st = sq_fail(err, SQUISH_INVALID, "training heads: %d ids, wanted a multiple of %d", w->n_ids,
                     SQ_GROUP);
    if (st == SQUISH_OK && (w->heads + 1) * j->hidden > WIDE_MAX)
        st = sq_fail(err, SQUISH_UNSUPPORTED,
                     "training heads: %d heads of a hidden size of %d have inputs of %d, at most %d do",
                     w->heads, j->hidden, (w->heads + 1) * j->hidden, WIDE_MAX);
    if (st == SQUISH_OK) st = make(j, err);
    if (st == SQUISH_OK) st = count_starts(j, err);
    if (st == SQUISH_OK) st = choose_ids(j, got, err);
    if (st == SQUISH_OK) {
        measure_scale(j);
        st = fit(j, err);
    }
    if (st == SQUISH_OK) st = train(j, got, err);
    if (st == SQUISH_OK) st = write(j, got, a, out, bytes, err);
    sq_arena_deinit(&j->arena);
    sq_alloc_free(a, j, sizeof *j);
    return st;
}
