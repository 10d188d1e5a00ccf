/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_agile.c - reading weights in units: what a get costs, what the device gives, and tokens and pieces of
 * a prompt of a model whose weights have half the memory they want.
 *
 * Cold means read from the device, past the page cache; where that is refused there is no cold row. Nothing
 * is written: units of 64 KiB are taken from the model's own file. */
#include "bench/bench_int.h"
#include "io/io.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    UNIT = 64 << 10,
    BLOCK = 1 << 20, /* of a read that measures the device */
    READERS = 16,    /* of these at once */
    DEVICE_BYTES = 256 << 20,
    PLACES = 512, /* at most so many units to choose from, spread over the file */
    PLACES_MIN = 64,
    WARM = 4,       /* of them, in memory: what a core keeps near itself */
    RATES_MAX = 64, /* times the device is measured */
    GETS = 20000,
    PROMPT = 16,
    PIECE = 64 /* tokens of a prompt at once: where computing is longer than reading */
};

/* ---- the device ------------------------------------------------------------------------------ */

typedef struct {
    sq_direct file;
    uint8_t *blocks; /* [READERS][BLOCK], in large pages, as slots are: a read of one is one request */
    _Atomic uint64_t next;
    _Atomic int32_t reader;
    uint64_t from, end;
    _Atomic bool failed;
} device;

static void *read_blocks(void *arg) {
    device *d = arg;
    uint8_t *p = d->blocks + (size_t)atomic_fetch_add(&d->reader, 1) * BLOCK;
    for (;;) {
        const uint64_t at = atomic_fetch_add(&d->next, BLOCK);
        if (at + BLOCK > d->end) return NULL;
        if (sq_os_direct_read(&d->file, d->from + at, p, BLOCK) != BLOCK) atomic_store(&d->failed, true);
    }
}

/* GB/s of blocks one after the other, so many in flight, from a place drawn with rng. */
static squish_status device_rate(const char *path, uint64_t *rng, double *gb_s, squish_error *err) {
    device d = {0};
    pthread_t t[READERS];
    int n = 0;
    SQ_TRY(sq_os_direct_open(&d.file, path, false, err));
    const uint64_t all = d.file.bytes / BLOCK;
    d.end = (all * BLOCK < DEVICE_BYTES ? all : DEVICE_BYTES / BLOCK) * BLOCK;
    d.from = sq_splitmix64(rng) % (all - d.end / BLOCK + 1) * BLOCK;
    d.blocks = sq_os_reserve(READERS * BLOCK);
    if (d.blocks) {
        sq_os_huge_pages(d.blocks, READERS * BLOCK);
        memset(d.blocks, 1, READERS * BLOCK);
    }
    const uint64_t begin = sq_os_now_ns();
    while (d.blocks && n < READERS && pthread_create(&t[n], NULL, read_blocks, &d) == 0) n++;
    for (int i = 0; i < n; i++) pthread_join(t[i], NULL);
    const double s = (double)(sq_os_now_ns() - begin) / 1e9;
    sq_os_direct_close(&d.file);
    if (d.blocks) sq_os_release(d.blocks, READERS * BLOCK);
    if (n == 0 || atomic_load(&d.failed)) return sq_fail(err, SQUISH_IO, "%s cannot be read", path);
    *gb_s = (double)d.end / 1e9 / s;
    return SQUISH_OK;
}

/* ---- gets ------------------------------------------------------------------------------------ */

typedef struct {
    const bench_options *o;
    json_t *rows;
    const char *path;
    sq_io_unit units[PLACES];
    size_t n;
    uint64_t rng;
    bool direct;
    double v[BENCH_RUNS_MAX], rates[RATES_MAX]; /* GB/s of the device */
    int32_t n_rates;
} gets;

static uint64_t word(const uint8_t *p) {
    uint64_t w;
    memcpy(&w, p, sizeof w);
    return w;
}

static uint64_t sum_of(const uint8_t *p) {
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (const uint8_t *end = p + UNIT; p < end; p += 32)
        a += word(p), b += word(p + 8), c += word(p + 16), d += word(p + 24);
    return a + b + c + d;
}

static squish_status use(sq_io *io, int32_t unit, bool read, uint64_t *sum, squish_error *err) {
    const uint8_t *p;
    SQ_TRY(sq_io_get(io, unit, &p, err));
    if (read) *sum += sum_of(p);
    sq_io_put(io, unit);
    return SQUISH_OK;
}

static squish_status open_pool(gets *g, int32_t slots, sq_io **io, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const sq_io_options o = {.budget_bytes = (uint64_t)slots * UNIT};
    return sq_io_new(io, g->path, g->units, g->n, &o, &a, err);
}

static squish_status warm_gets(gets *g, squish_error *err) {
    sq_io *io;
    squish_status st = SQUISH_OK;
    uint64_t sum = 0;
    SQ_TRY(open_pool(g, WARM, &io, err));
    for (int32_t i = 0; i < WARM && st == SQUISH_OK; i++) st = use(io, i, true, &sum, err);
    for (int read = 0; read < 2 && st == SQUISH_OK; read++) {
        const int32_t n = read ? GETS / 20 : GETS;
        for (int32_t r = 0; r < g->o->runs && st == SQUISH_OK; r++) {
            const uint64_t begin = sq_os_now_ns();
            for (int32_t i = 0; i < n && st == SQUISH_OK; i++) st = use(io, i % WARM, read, &sum, err);
            g->v[r] = (double)(sq_os_now_ns() - begin) / 1e3 / n;
        }
        const char *name = read ? "get and read 64 KiB, warm" : "get, warm";
        if (st == SQUISH_OK)
            st = bench_row(g->rows, name, "us", g->v, g->o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
    }
    if (st == SQUISH_OK && sum == 1) st = sq_fail(err, SQUISH_IO, "the sum of all bytes is 1");
    sq_io_free(io);
    return st;
}

/* Three units that are not in memory. */
static void draw(gets *g, const sq_io *io, int32_t u[3]) {
    for (int k = 0; k < 3; k++) do
            u[k] = (int32_t)(sq_splitmix64(&g->rng) % g->n);
        while (sq_io_has(io, u[k]) || (k > 0 && u[k] == u[0]) || (k > 1 && u[k] == u[1]));
}

typedef enum { ONE, IN_TURN, AHEAD, BEHIND, WAYS } way;

static squish_status cold_once(gets *g, sq_io *io, way w, double *us, squish_error *err) {
    int32_t u[3];
    uint64_t sum = 0;
    draw(g, io, u);
    uint64_t begin = sq_os_now_ns();
    if (w >= AHEAD) sq_io_prefetch_sequence(io, u, 3);
    const uint64_t away = sq_os_now_ns();
    for (int k = 0; w == BEHIND && k < 3; k++)
        while (!sq_io_has(io, u[k])) nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    if (w == BEHIND) begin += sq_os_now_ns() - away; /* while something else is done */
    for (int k = 0; k < (w == ONE ? 1 : 3); k++) SQ_TRY(use(io, u[k], false, &sum, err));
    *us = (double)(sq_os_now_ns() - begin) / 1e3;
    return SQUISH_OK;
}

/* bytes from where a unit begins, or, near the end, as far before it as they need. */
static squish_status read_once(gets *g, const sq_direct *file, void *block, size_t bytes, double *us,
                               squish_error *err) {
    const uint64_t from = g->units[sq_splitmix64(&g->rng) % g->n].offset;
    const uint64_t last = (file->bytes - bytes) / UNIT * UNIT;
    const uint64_t begin = sq_os_now_ns();
    if (sq_os_direct_read(file, from < last ? from : last, block, bytes) != (int64_t)bytes)
        return sq_fail(err, SQUISH_IO, "%s cannot be read", g->path);
    *us = (double)(sq_os_now_ns() - begin) / 1e3;
    return SQUISH_OK;
}

/* The four ways in turns, so that all see the device in the same moods; and plain reads beside them. */
static squish_status cold_gets(gets *g, squish_error *err) {
    enum { ALL = WAYS + 2 };
    static const char *const names[ALL] = {"get 64 KiB, cold",
                                           "three cold gets in turn",
                                           "prefetch of three and gets",
                                           "prefetch of three, time, gets",
                                           "read 64 KiB, cold",
                                           "read 1 MiB, cold"};
    const int32_t n = g->o->runs * 10 < BENCH_RUNS_MAX ? g->o->runs * 10 : BENCH_RUNS_MAX;
    const squish_alloc a = sq_alloc_default();
    sq_io *io = NULL;
    sq_direct file;
    squish_status st = SQUISH_OK;
    SQ_TRY(sq_os_direct_open(&file, g->path, false, err));
    void *block = sq_os_reserve(BLOCK);
    double *v = sq_alloc_new(&a, ALL * (size_t)n * sizeof *v);
    if (!v || !block) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
        goto fail;
    }
    SQ_GUARD(open_pool(g, 6, &io, err));
    for (int32_t r = 0; r < n; r++)
        for (int i = 0; i < ALL; i++) {
            const int w = (r + i) % ALL;
            if (w < WAYS)
                SQ_GUARD(cold_once(g, io, (way)w, &v[w * n + r], err));
            else
                SQ_GUARD(read_once(g, &file, block, w == WAYS ? UNIT : BLOCK, &v[w * n + r], err));
        }
    for (int w = 0; w < ALL; w++)
        SQ_GUARD(bench_row(g->rows, names[w], "us", v + w * n, n, NAN, BENCH_SMALL_IS_GOOD, err));
fail:
    sq_io_free(io);
    sq_os_direct_close(&file);
    if (block) sq_os_release(block, BLOCK);
    sq_alloc_free(&a, v, ALL * (size_t)n * sizeof *v);
    return st;
}

static squish_status take_gets(gets *g, uint64_t file_bytes, squish_error *err) {
    const uint64_t whole = file_bytes / UNIT, step = whole > PLACES ? whole / PLACES : 1;
    if (whole < PLACES_MIN)
        return sq_fail(err, SQUISH_INVALID, "%s has %llu bytes, bench agile wants %d at least", g->path,
                       (unsigned long long)file_bytes, PLACES_MIN * UNIT);
    for (g->n = 0; g->n < PLACES && g->n < whole; g->n++)
        g->units[g->n] = (sq_io_unit){g->n * step * UNIT, UNIT, SQ_IO_POOL};
    SQ_TRY(warm_gets(g, err));
    return g->direct ? cold_gets(g, err) : SQUISH_OK;
}

/* ---- tokens, and pieces of a prompt ---------------------------------------------------------- */

typedef struct {
    double seconds[BENCH_RUNS_MAX], bytes, io, stall, busy; /* of a step; all but the first are means */
    int32_t ids[BENCH_RUNS_MAX];
    squish_agile_info info;
} tokens;

typedef enum { STREAMED, ON_DEMAND, MAPPED, KINDS } kind;

typedef struct {
    squish_engine *e;
    squish_seq *s;
    int32_t n_vocab, n, tokens, *ids; /* tokens: of a step, the likeliest one first */
} greedy;

static int32_t any_id(const greedy *k, int32_t at) { return (7 + 13 * at) % k->n_vocab; }

/* seconds may be NULL. */
static squish_status step(greedy *k, double *seconds, squish_error *err) {
    k->ids[k->n++] = bench_likeliest(squish_seq_logits(k->s), k->n_vocab);
    for (int32_t i = 1; i < k->tokens; i++, k->n++) k->ids[k->n] = any_id(k, k->n);
    const uint64_t begin = sq_os_now_ns();
    SQ_TRY(squish_seq_sync(k->s, k->ids, (size_t)k->n, err));
    if (seconds) *seconds = (double)(sq_os_now_ns() - begin) / 1e9;
    return SQUISH_OK;
}

/* Until what was read ahead for the next token has come. */
static void wait_for_quiet(const squish_engine *e) {
    squish_engine_info now, before;
    squish_engine_get_info(e, &now);
    do {
        before = now;
        nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
        squish_engine_get_info(e, &now);
    } while (now.agile.bytes_read != before.agile.bytes_read);
}

/* A step, whose own reading began in the one before it; then the device alone. */
static squish_status one_step(gets *g, greedy *k, int32_t r, tokens *t, squish_error *err) {
    squish_engine_info a, b;
    const double runs = g->o->runs;
    double rate = 0;
    SQ_TRY(step(k, NULL, err));
    squish_engine_get_info(k->e, &a);
    SQ_TRY(step(k, &t->seconds[r], err));
    squish_engine_get_info(k->e, &b);
    t->ids[r] = k->ids[k->n - k->tokens];
    t->info = b.agile;
    const double bytes = (double)(b.agile.bytes_read - a.agile.bytes_read);
    t->bytes += bytes / runs;
    t->stall += (b.agile.stall_ms - a.agile.stall_ms) / 1e3 / runs;
    t->busy += (b.agile.busy_ms - a.agile.busy_ms) / 1e3 / runs;
    if (!g->direct || !b.agile.on) return SQUISH_OK;
    wait_for_quiet(k->e);
    SQ_TRY(device_rate(g->path, &g->rng, &rate, err));
    t->io += bytes / 1e9 / rate / runs;
    if (g->n_rates < RATES_MAX) g->rates[g->n_rates++] = rate;
    return SQUISH_OK;
}

/* Tokens of a timeline whose steps are of so many. */
static int32_t timeline_of(const gets *g, int32_t n) { return PROMPT + 2 * g->o->runs * n; }

static squish_status run_steps(gets *g, squish_model *m, const squish_engine_options *eo, int32_t n,
                               tokens *t, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const size_t bytes = (size_t)timeline_of(g, n) * sizeof(int32_t);
    squish_model_info info;
    squish_model_get_info(m, &info);
    greedy k = {.n_vocab = info.n_vocab_tokens, .n = PROMPT, .tokens = n, .ids = sq_alloc_new(&a, bytes)};
    if (!k.ids) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (int i = 0; i < PROMPT; i++) k.ids[i] = any_id(&k, i);
    squish_status st = squish_engine_new(&k.e, m, eo, err);
    if (st == SQUISH_OK) st = squish_seq_new(&k.s, k.e, err);
    if (st == SQUISH_OK) st = squish_seq_sync(k.s, k.ids, PROMPT, err);
    for (int32_t r = 0; r < g->o->runs && st == SQUISH_OK; r++) st = one_step(g, &k, r, t, err);
    squish_seq_free(k.s);
    squish_engine_free(k.e);
    sq_alloc_free(&a, k.ids, bytes);
    return st;
}

static squish_status put_tokens(gets *g, const char *name, tokens *t, const tokens *first,
                                squish_error *err) {
    const bench_options *o = g->o;
    json_t *rows = g->rows;
    int differ = 0;
    double mean = 0;
    for (int32_t i = 0; i < o->runs; i++)
        differ += t->ids[i] != first->ids[i], mean += t->seconds[i] / o->runs;
    for (int32_t i = 0; i < o->runs; i++) t->seconds[i] *= 1e3;
    SQ_TRY(bench_row(rows, name, "ms", t->seconds, o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    json_object_set_new(row, "differ", json_integer(differ));
    if (!t->info.on) return SQUISH_OK;
    json_object_set_new(row, "bytes", json_real(t->bytes));
    json_object_set_new(row, "io_ms", json_real(t->io * 1e3));
    json_object_set_new(row, "stall_ms", json_real(t->stall * 1e3));
    json_object_set_new(row, "busy_ms", json_real(t->busy * 1e3));
    json_object_set_new(row, "mean_ms", json_real(mean * 1e3));
    json_object_set_new(row, "budget", json_integer((json_int_t)t->info.budget_bytes));
    json_object_set_new(row, "backend", json_string(t->info.backend));
    return SQUISH_OK;
}

/* As much memory as a context of a few tokens takes with half of the weights, or o->memory_limit. */
static squish_status options_of(const gets *g, const squish_model *m, int32_t n, squish_engine_options *eo,
                                squish_error *err) {
    const bench_options *o = g->o;
    squish_mem_estimate e;
    *eo = squish_engine_options_default();
    eo->threads = o->threads;
    eo->isa_max = o->isa;
    eo->ctx_tokens = timeline_of(g, n);
    eo->chunk_tokens = PIECE;
    SQ_TRY(squish_engine_estimate(m, eo, &e, err));
    eo->agile.on = eo->agile.cold = true; /* every run begins with the same */
    eo->memory_limit = o->memory_limit ? o->memory_limit : e.weight_bytes / 2 + e.kv_bytes + e.scratch_bytes;
    return SQUISH_OK;
}

/* Steps of n tokens each. */
static squish_status take_steps(gets *g, squish_model *m, const char *what, int32_t n, squish_error *err) {
    static const char *const names[KINDS] = {"streamed", "on demand", "mapped"};
    const squish_alloc a = sq_alloc_default();
    const bench_options *o = g->o;
    squish_engine_options eo;
    squish_status st = SQUISH_OK;
    char name[48];
    SQ_TRY(options_of(g, m, n, &eo, err));
    tokens *t = sq_alloc_zero(&a, KINDS * sizeof *t);
    if (!t) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    /* Once for nothing: what lies between here and the medium remembers what was read, and the first pays. */
    SQ_GUARD(run_steps(g, m, &eo, n, &t[STREAMED], err));
    t[STREAMED] = (tokens){0};
    g->n_rates = 0;
    for (int k = 0; k < KINDS; k++) {
        eo.agile.on = k != MAPPED;
        eo.agile.on_demand = k == ON_DEMAND;
        if (k == MAPPED) eo.memory_limit = 0;
        SQ_GUARD(run_steps(g, m, &eo, n, &t[k], err));
        if (o->progress && !o->progress(o->progress_user, what, (uint64_t)k + 1, KINDS)) {
            st = sq_fail(err, SQUISH_CANCELLED, "stopped");
            goto fail;
        }
    }
    snprintf(name, sizeof name, "device, while %ss ran", what);
    if (g->n_rates)
        SQ_GUARD(bench_row(g->rows, name, "GB/s", g->rates, g->n_rates, NAN, BENCH_LARGE_IS_GOOD, err));
    for (int k = 0; k < KINDS; k++) {
        snprintf(name, sizeof name, "%s, %s", what, names[k]);
        SQ_GUARD(put_tokens(g, name, &t[k], &t[MAPPED], err));
    }
fail:
    sq_alloc_free(&a, t, KINDS * sizeof *t);
    return st;
}

static squish_status measure(const bench_options *o, bool steps_too, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_model_options mo = squish_model_options_default();
    squish_model_info info;
    squish_model *m = NULL;
    sq_direct file;
    squish_status st = SQUISH_OK;
    mo.tier = o->tier;
    gets *g = sq_alloc_zero(&a, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    *g = (gets){.o = o, .rows = rows, .rng = sq_os_now_ns()};
    SQ_GUARD(squish_model_open(&m, o->path, &mo, err));
    squish_model_get_info(m, &info);
    g->path = info.path;
    if (!m->sqw) {
        st = sq_fail(err, SQUISH_UNSUPPORTED, "%s: bench agile wants weights in a .sqw file", info.path);
        goto fail;
    }
    SQ_GUARD(sq_os_direct_open(&file, g->path, false, err));
    g->direct = file.direct;
    const uint64_t bytes = file.bytes;
    sq_os_direct_close(&file);
    SQ_GUARD(take_gets(g, bytes, err));
    if (steps_too) {
        SQ_GUARD(take_steps(g, m, "token", 1, err));
        SQ_GUARD(take_steps(g, m, "prompt of 64", PIECE, err));
    }
fail:
    squish_model_close(m);
    sq_alloc_free(&a, g, sizeof *g);
    return st;
}

squish_status bench_agile(const bench_options *o, json_t *rows, squish_error *err) {
    return measure(o, true, rows, err);
}

squish_status bench_agile_gets(const bench_options *o, json_t *rows, squish_error *err) {
    return measure(o, false, rows, err);
}
