/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_attention.c - attention of long prompts: exact, with keys in 8 bits, and with blocks left out.
 *
 * Speed is that of one layer in the model's shape, the whole prompt in steps as an engine makes them, modes
 * taking turns. Keys are planted: each block of 64 is about one of TOPICS directions and each head of each
 * block of queries asks for one, as heads that retrieve do. Quality is that of the model on a text. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEP = 256, TOPICS = 16, MODES = 4, KL_ROWS = 256, NOISE = 1 << 16 };

static const struct {
    const char *name;
    bool sage, sparge;
} modes[MODES] = {
    {"exact", false, false}, {"sage", true, false}, {"sparge", false, true}, {"both", true, true}};

static squish_attention attention_of(const bench_options *o, int i, int32_t n) {
    squish_attention a = o->attention;
    a.sage = modes[i].sage;
    a.sparge = modes[i].sparge;
    if (a.sparge_min >= n) a.sparge_min = n / 4; /* else there is nothing to measure */
    return a;
}

/* ---- speed ----------------------------------------------------------------------------------- */

/* One layer with n tokens in its cache. */
typedef struct {
    squish_alloc alloc;
    sq_attn_shape shape;
    sq_backend *b[MODES];
    sq_rows q, k, v, out;        /* q: all n rows; the others a step */
    void *memory;                /* of rows and pages */
    size_t bytes;
    uint8_t **pages;             /* [tiles] */
    float *cos, *noise, *topics; /* 1, 0; about normal; [TOPICS][head_dim] */
    int32_t n, tiles;
} layer;

static float normal(uint64_t *rng) {
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(sq_splitmix64(rng) >> 11) * 0x1p-53 - 0.5;
    return (float)(sum * 1.7320508);
}

static size_t carve(layer *l, char *p) {
    const sq_attn_shape *s = &l->shape;
    const int32_t wide = s->n_heads * s->head_dim, narrow = s->n_kv_heads * s->head_dim;
    const sq_kv_shape kv = {.n_layers = 1, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    const sq_kv_geometry g = sq_kv_geometry_of(&kv, SQ_KV_F16);
    struct {
        sq_rows *r;
        int32_t m, cols;
    } rows[] = {{&l->q, l->n, wide}, {&l->k, STEP, narrow}, {&l->v, STEP, narrow}, {&l->out, STEP, wide}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (p) sq_rows_carve(rows[i].r, rows[i].m, rows[i].cols, false, p + at);
        at += sq_rows_bytes(rows[i].m, rows[i].cols, false);
    }
    for (int32_t t = 0; t < l->tiles; t++, at += g.page_bytes)
        if (p) l->pages[t] = (uint8_t *)p + at;
    l->shape.open = (sq_attn_page){g.k_off, g.v_off, g.head_stride};
    const size_t half = (size_t)STEP * (size_t)(s->head_dim / 2) * sizeof(float);
    if (p) l->cos = (float *)(p + at), l->noise = (float *)(p + at + 2 * half);
    if (p) l->topics = l->noise + NOISE;
    return at + 2 * half + (NOISE + (size_t)TOPICS * (size_t)s->head_dim) * sizeof(float);
}

static void plant(layer *l) {
    const sq_attn_shape *s = &l->shape;
    const size_t d = (size_t)s->head_dim;
    uint64_t rng = 1;
    for (int i = 0; i < STEP * s->head_dim / 2; i++) l->cos[i] = 1.0f; /* the sines behind are zero */
    for (size_t i = 0; i < NOISE + TOPICS * d; i++) l->noise[i] = normal(&rng);
    for (int32_t t = 0; t < l->n; t++)
        for (int32_t h = 0; h < s->n_heads; h++) {
            uint64_t block = (uint64_t)(t / SQ_POOL_KEYS * 64 + h);
            const float *topic = l->topics + sq_splitmix64(&block) % TOPICS * d;
            float *q = l->q.f + (size_t)t * sq_rows_ld(&l->q) + (size_t)h * d;
            for (size_t c = 0; c < d; c++) q[c] = topic[c] + 0.5f * l->noise[sq_splitmix64(&rng) % NOISE];
        }
}

/* Keys and values of a step; the queries of all are ready. */
static void store_step(layer *l, int32_t pos0, uint64_t *rng) {
    const sq_attn_shape *s = &l->shape;
    const size_t d = (size_t)s->head_dim;
    for (int32_t i = 0; i < STEP; i++)
        for (int32_t h = 0; h < s->n_kv_heads; h++) {
            uint64_t block = (uint64_t)((pos0 + i) / SQ_POOL_KEYS);
            const float *topic = l->topics + sq_splitmix64(&block) % TOPICS * d;
            const size_t at = (size_t)i * sq_rows_ld(&l->k) + (size_t)h * d;
            for (size_t c = 0; c < d; c++) {
                l->k.f[at + c] = topic[c] + 0.5f * l->noise[sq_splitmix64(rng) % NOISE];
                l->v.f[at + c] = l->noise[sq_splitmix64(rng) % NOISE];
            }
        }
    sq_rows q = l->q;
    q.f += (size_t)pos0 * sq_rows_ld(&q);
    q.m = l->k.m = l->v.m = STEP;
    const sq_attn_seg seg = {.n_rows = STEP, .pos0 = pos0, .prompt = true, .pages = l->pages};
    sq_be_attn_prepare(l->b[0], s, &seg, 1, &q, &l->k, &l->v);
}

/* Seconds of the attention of the whole prompt. */
static double prompt_seconds(layer *l, sq_backend *b) {
    const uint64_t begin = sq_os_now_ns();
    for (int32_t pos0 = 0; pos0 < l->n; pos0 += STEP) {
        sq_rows q = l->q;
        q.f += (size_t)pos0 * sq_rows_ld(&q);
        q.m = STEP;
        const sq_attn_seg seg = {.n_rows = STEP, .pos0 = pos0, .prompt = true, .pages = l->pages};
        sq_be_attend(b, &l->shape, &seg, 1, &q, false, &l->out);
    }
    return (double)(sq_os_now_ns() - begin) / 1e9;
}

static void layer_free(layer *l) {
    for (int i = 0; i < MODES; i++) sq_backend_free(l->b[i]);
    if (l->memory) sq_os_release(l->memory, l->bytes);
    if (l->pages) sq_alloc_free(&l->alloc, l->pages, (size_t)l->tiles * sizeof *l->pages);
}

static squish_status layer_new(layer *l, const bench_options *o, const sq_config *c, int32_t n,
                               squish_error *err) {
    sq_isa isa;
    sq_isa_from_name(o->isa, &isa);
    *l = (layer){.alloc = sq_alloc_default(), .n = n, .tiles = n / SQ_KV_TILE};
    l->shape = (sq_attn_shape){.n_heads = c->n_heads,
                               .n_kv_heads = c->n_kv_heads,
                               .head_dim = c->head_dim,
                               .scale = 1.0f / sqrtf((float)c->head_dim)};
    for (int i = 0; i < MODES; i++) {
        const squish_attention a = attention_of(o, i, n);
        const sq_backend_options bo = {.threads = o->threads ? o->threads : sq_os_cores(),
                                       .isa_max = isa,
                                       .m_max = STEP,
                                       .heads_max = c->n_heads,
                                       .kv_heads_max = c->n_kv_heads,
                                       .head_dim_max = c->head_dim,
                                       .ctx_max = n,
                                       .prompt = {a.sage, a.sparge, a.sparge_min, a.sparge_mass}};
        SQ_TRY(sq_backend_cpu_new(&l->b[i], &bo, &l->alloc, err));
    }
    l->pages = sq_alloc_zero(&l->alloc, (size_t)l->tiles * sizeof *l->pages);
    l->bytes = l->pages ? carve(l, NULL) : 0;
    l->memory = l->bytes ? sq_os_reserve(l->bytes) : NULL;
    if (!l->memory) return sq_fail(err, SQUISH_NO_MEMORY, "bench: no memory for a layer of %d tokens", n);
    carve(l, l->memory);
    l->shape.cos = l->cos;
    l->shape.sin = l->cos + (size_t)STEP * (size_t)(c->head_dim / 2);
    plant(l);
    uint64_t rng = 2;
    for (int32_t pos0 = 0; pos0 < n; pos0 += STEP) store_step(l, pos0, &rng);
    return SQUISH_OK;
}

/* A number more in the last row. */
static squish_status also(json_t *rows, const char *key, double value, squish_error *err) {
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    if (json_object_set_new(row, key, json_real(value)) == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
}

static squish_status speed_rows(const bench_options *o, const sq_config *c, int32_t n, json_t *rows,
                                squish_error *err) {
    double s[MODES][BENCH_RUNS_MAX];
    layer l;
    bench_limits *limits = NULL;
    squish_status st = layer_new(&l, o, c, n, err);
    if (st == SQUISH_OK) st = bench_limits_new(&limits, o->threads, o->isa, err);
    double fma = 0;
    for (int32_t r = -1; st == SQUISH_OK && r < o->runs; r++) { /* the first warms up */
        for (int i = 0; i < MODES; i++) {
            const double seconds = prompt_seconds(&l, l.b[i]);
            if (r >= 0) s[i][r] = seconds * 1e3;
        }
        fma += r >= 0 ? bench_limits_fma(limits) / o->runs : 0;
    }
    const double ops = 4.0 * c->n_heads * c->head_dim * 0.5 * n * (n + 1.0);
    for (int i = 0; st == SQUISH_OK && i < MODES; i++) {
        char name[64];
        snprintf(name, sizeof name, "attention %s, %d", modes[i].name, n);
        const double exact = bench_median(s[0], o->runs);
        const double limit = i == 0 ? ops / fma / 1e6 : NAN;
        st = bench_row(rows, name, "ms", s[i], o->runs, limit, BENCH_SMALL_IS_GOOD, err);
        if (st == SQUISH_OK) st = also(rows, "speedup", exact / bench_median(s[i], o->runs), err);
        if (st == SQUISH_OK) st = also(rows, "density", sq_be_attn_density(l.b[i]), err);
    }
    bench_limits_free(limits);
    layer_free(&l);
    return st;
}

/* ---- quality --------------------------------------------------------------------------------- */

/* Logits of exact attention at every step-th position, and how far those of another mode are from them. */
typedef struct {
    float *exact; /* [KL_ROWS][n_vocab] */
    int32_t n_vocab, first, step;
    bool keeps;
    double kl, worst, agree;
    int32_t n;
} comparison;

static bool compare(void *user, int32_t pos, const float *logits) {
    comparison *k = user;
    const int32_t row = (pos - k->first) / k->step;
    if ((pos - k->first) % k->step != 0 || row >= KL_ROWS) return true;
    float *p = k->exact + (size_t)row * (size_t)k->n_vocab;
    if (k->keeps) {
        memcpy(p, logits, (size_t)k->n_vocab * sizeof *p);
        return true;
    }
    const double np = sq_logsumexp(p, k->n_vocab), nq = sq_logsumexp(logits, k->n_vocab);
    double kl = 0;
    for (int32_t i = 0; i < k->n_vocab; i++) {
        const double lp = (double)p[i] - np;
        kl += exp(lp) * (lp - ((double)logits[i] - nq));
    }
    k->kl += kl;
    k->worst = fmax(k->worst, kl);
    k->agree += bench_likeliest(p, k->n_vocab) == bench_likeliest(logits, k->n_vocab);
    k->n++;
    return true;
}

static squish_status score(const bench_options *o, squish_model *m, int mode, const squish_tokens *t,
                           comparison *k, double *density, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    squish_engine_info info;
    sq_engine *e = NULL;
    sq_seq *s = NULL;
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = (int32_t)t->count;
    eo.attention = attention_of(o, mode, (int32_t)t->count);
    k->keeps = mode == 0;
    k->kl = k->worst = k->agree = 0;
    k->n = 0;
    squish_status st = sq_engine_new(&e, m, &eo, err);
    if (st == SQUISH_OK) st = sq_seq_new(&s, e, err);
    if (st == SQUISH_OK) st = sq_seq_score(s, t->ids, t->count, k->first, compare, k, err);
    if (st == SQUISH_OK) squish_engine_get_info(e, &info), *density = info.attn_density;
    sq_seq_free(s);
    sq_engine_free(e);
    return st;
}

static squish_status quality_row(const comparison *k, int mode, int32_t n, double density, json_t *rows,
                                 squish_error *err) {
    char name[64];
    double kl = k->kl / k->n;
    snprintf(name, sizeof name, "KL %s, %d", modes[mode].name, n);
    SQ_TRY(bench_row(rows, name, "nats", &kl, 1, NAN, BENCH_SMALL_IS_GOOD, err));
    SQ_TRY(also(rows, "worst", k->worst, err));
    SQ_TRY(also(rows, "same_token", k->agree / k->n, err));
    return also(rows, "density", density, err);
}

/* The first n tokens of the text, the second half of them compared. */
static squish_status quality_rows(const bench_options *o, squish_model *m, int32_t n, json_t *rows,
                                  squish_error *err) {
    squish_tokens t = {0};
    SQ_TRY(squish_tokenize(m, o->text, o->text_bytes, 0, &t, err));
    const size_t all = t.count;
    squish_status st = SQUISH_OK;
    if (all < (size_t)n)
        st = sq_fail(err, SQUISH_INVALID, "bench: the text has %zu tokens, wanted %d", all, n);
    comparison k = {.n_vocab = m->cfg.n_vocab, .first = n / 2, .step = sq_div_up(n / 2, KL_ROWS)};
    const size_t bytes = (size_t)KL_ROWS * (size_t)k.n_vocab * sizeof(float);
    if (st == SQUISH_OK && !(k.exact = sq_alloc_new(&m->alloc, bytes)))
        st = sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (int mode = 0; st == SQUISH_OK && mode < MODES; mode++) {
        double density = 1;
        const squish_tokens part = {t.ids, (size_t)n, t.alloc};
        st = score(o, m, mode, &part, &k, &density, err);
        if (st == SQUISH_OK && mode > 0) st = quality_row(&k, mode, n, density, rows, err);
    }
    if (k.exact) sq_alloc_free(&m->alloc, k.exact, bytes);
    squish_tokens_free(&t);
    return st;
}

/* ---- both ------------------------------------------------------------------------------------ */

squish_status bench_attention(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {2048, 8192};
    squish_model_options mo = squish_model_options_default();
    squish_model *m = NULL;
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), SQ_MAX_CTX, &p, err));
    mo.tier = o->tier;
    SQ_TRY(squish_model_open(&m, o->path, &mo, err));
    squish_status st = SQUISH_OK;
    if (m->cfg.mla.kv_rank)
        st = sq_fail(err, SQUISH_UNSUPPORTED,
                     "bench attention: %s has latent attention, which these modes do not read", m->cfg.arch);
    for (int32_t i = 0; st == SQUISH_OK && i < p.count; i++) {
        if (p.n[i] % STEP)
            st = sq_fail(err, SQUISH_INVALID, "bench: attention at %d tokens, wanted a multiple of %d",
                         p.n[i], STEP);
        else if (o->text)
            st = quality_rows(o, m, p.n[i], rows, err);
        else
            st = speed_rows(o, &m->cfg, p.n[i], rows, err);
    }
    squish_model_close(m);
    return st;
}
