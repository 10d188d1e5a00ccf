/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_limits.c - what this machine can do at all, by the probes of the instruction set and on as many
 * threads as the engine uses. */
#include "bench/bench.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    ITEM = 4 << 20,      /* bytes of a reading item */
    ITEMS = 256,         /* 1 GiB: far beyond any cache */
    SUM_ITEMS = 16,      /* arithmetic items of a thread */
    SUM_ROUNDS = 1 << 15 /* 16 accumulators each: about a millisecond */
};

struct bench_limits {
    squish_alloc alloc;
    sq_kernels k;
    sq_pool *pool;
    int32_t threads;
    uint8_t *memory; /* [ITEMS][ITEM] */
    uint64_t sums[ITEMS];
    uint64_t ops[SUM_ITEMS * BENCH_THREADS_MAX];
};

static void read_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    bench_limits *l = ctx;
    l->sums[item] = l->k.probe_read(l->memory + (size_t)item * ITEM, ITEM);
}

static void dots_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    bench_limits *l = ctx;
    const uint8_t w[64] = {1, 2, 3};
    const int8_t x[64] = {1, -2, 3};
    int32_t sum;
    l->ops[item] = l->k.probe_dots(SUM_ROUNDS, w, x, &sum);
}

static void fma_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    bench_limits *l = ctx;
    float sum;
    l->ops[item] = l->k.probe_fma(SUM_ROUNDS, 0.5f, 0.25f, &sum);
}

static double seconds(bench_limits *l, sq_pool_fn fn, int32_t items) {
    const uint64_t begin = sq_os_now_ns();
    sq_pool_run(l->pool, fn, l, items);
    return (double)(sq_os_now_ns() - begin) / 1e9;
}

static double arithmetic(bench_limits *l, sq_pool_fn fn) {
    const int32_t items = SUM_ITEMS * l->threads;
    double ops = 0;
    const double s = seconds(l, fn, items);
    for (int32_t i = 0; i < items; i++) ops += (double)l->ops[i];
    return ops / s / 1e9;
}

squish_status bench_limits_new(bench_limits **out, int32_t threads, const char *isa, squish_error *err) {
    sq_isa isa_max;
    *out = NULL;
    if (!sq_isa_from_name(isa, &isa_max)) return sq_fail(err, SQUISH_INVALID, "no isa '%.20s'", isa);
    const squish_alloc a = sq_alloc_default();
    bench_limits *l = sq_alloc_zero(&a, sizeof *l);
    if (!l) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    l->alloc = a;
    l->threads = threads ? threads : sq_os_cores();
    squish_status st = SQUISH_OK;
    sq_kernels_select(&l->k, sq_cpu_features(), isa_max);
    if (l->threads > BENCH_THREADS_MAX) {
        st = sq_fail(err, SQUISH_INVALID, "bench: %d threads, at most %d", l->threads, BENCH_THREADS_MAX);
        goto fail;
    }
    l->memory = sq_os_reserve((size_t)ITEMS * ITEM);
    if (!l->memory) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "bench: no memory for a stream of 1 GiB");
        goto fail;
    }
    sq_os_huge_pages(l->memory, (size_t)ITEMS * ITEM);
    memset(l->memory, 1, (size_t)ITEMS * ITEM); /* zero pages would all be one */
    SQ_GUARD(sq_pool_new(&l->pool, &a, l->threads, err));
    *out = l;
    return SQUISH_OK;
fail:
    bench_limits_free(l);
    return st;
}

void bench_limits_free(bench_limits *l) {
    if (!l) return;
    sq_pool_free(l->pool);
    if (l->memory) sq_os_release(l->memory, (size_t)ITEMS * ITEM);
    const squish_alloc a = l->alloc;
    sq_alloc_free(&a, l, sizeof *l);
}

double bench_limits_read(bench_limits *l) {
    return (double)ITEMS * ITEM / seconds(l, read_item, ITEMS) / 1e9;
}
double bench_limits_dots(bench_limits *l) { return arithmetic(l, dots_item); }
double bench_limits_fma(bench_limits *l) { return arithmetic(l, fma_item); }

const char *bench_isa(const char *isa) {
    sq_isa isa_max;
    sq_kernels k;
    sq_isa_from_name(isa, &isa_max);
    sq_kernels_select(&k, sq_cpu_features(), isa_max);
    return k.isa;
}

squish_status bench_limits_rows(const bench_options *o, json_t *rows, squish_error *err) {
    static const struct {
        const char *name, *unit;
        double (*measure)(bench_limits *l);
    } probes[] = {{"read memory", "GB/s", bench_limits_read},
                  {"int8 dot products", "Gop/s", bench_limits_dots},
                  {"f32 multiply-adds", "Gop/s", bench_limits_fma}};
    bench_limits *l;
    double v[BENCH_RUNS_MAX];
    SQ_TRY(bench_limits_new(&l, o->threads, o->isa, err));
    squish_status st = SQUISH_OK;
    for (size_t i = 0; st == SQUISH_OK && i < SQ_COUNT(probes); i++) {
        probes[i].measure(l); /* clocks rise, pages are there */
        for (int32_t r = 0; r < o->runs; r++) v[r] = probes[i].measure(l);
        st = bench_row(rows, probes[i].name, probes[i].unit, v, o->runs, NAN, BENCH_LARGE_IS_GOOD, err);
    }
    bench_limits_free(l);
    return st;
}
