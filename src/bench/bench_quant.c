/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_quant.c - the quantisers on weights in memory: GB/s of bf16 input, beside the rate at which the same
 * threads can read it, and MiLo's error and time on small Gaussian matrices.
 *
 * The one bench that looks inside: encoding has no public face of its own. */
#include "bench/bench.h"
#include "forge/forge_methods.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = 16384,
    COLS = 4096,
    TILES = ROWS / SQ_TILE_ROWS,
    SHARE = 32 /* of the rows, for slow methods */
};

/* ---- encoding -------------------------------------------------------------------------------- */

typedef struct {
    const uint16_t *w; /* bf16 [ROWS][COLS] */
    sq_encoding e;
    const sq_kernels *k;
    uint8_t *out; /* [TILES] row tiles */
    size_t tile_bytes;
    uint64_t sum[TILES];
} encode_job;

static void encode_item(void *ctx, int32_t tile, int32_t thread) {
    (void)thread;
    encode_job *j = ctx;
    const uint8_t *rows = (const uint8_t *)(j->w + (size_t)tile * SQ_TILE_ROWS * COLS);
    j->k->encode(&j->e, SQ_W_BF16, rows, COLS * 2, SQ_TILE_ROWS, COLS, j->out + (size_t)tile * j->tile_bytes);
}

static void read_item(void *ctx, int32_t tile, int32_t thread) {
    (void)thread;
    encode_job *j = ctx;
    const uint64_t *p = (const uint64_t *)(const void *)(j->w + (size_t)tile * SQ_TILE_ROWS * COLS);
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < SQ_TILE_ROWS * COLS / 4; i += 4)
        a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    j->sum[tile] = a + b + c + d;
}

static void rates(encode_job *j, sq_pool *pool, sq_pool_fn fn, int32_t tiles, int32_t runs, double *out) {
    sq_pool_run(pool, fn, j, tiles); /* pages and caches */
    for (int32_t r = 0; r < runs; r++) {
        const uint64_t begin = sq_os_now_ns();
        sq_pool_run(pool, fn, j, tiles);
        out[r] = (double)tiles * SQ_TILE_ROWS * COLS * 2 / (double)(sq_os_now_ns() - begin);
    }
}

static const struct {
    const char *name;
    sq_encoding e;
    bool slow;
} encodings[] = {
    {"encode int8-row", {.type = SQ_W_I8_ROW, .scale = SQ_SCALE_F32}, false},
    {"encode int8-g64", {.type = SQ_W_I8_G64}, false},
    {"encode int4 rtn", {.type = SQ_W_I4_G64, .scale = SQ_SCALE_BF16, .method = SQ_QUANT_RTN}, false},
    {"encode int4 lsq", {.type = SQ_W_I4_G64, .method = SQ_QUANT_LSQ}, true},
    {"encode int3 lsq", {.type = SQ_W_I3_G64, .method = SQ_QUANT_LSQ}, true},
    {"encode int2 lsq", {.type = SQ_W_I2_G64, .method = SQ_QUANT_LSQ}, true}};

/* Normal, sd 0.02 (Box and Muller, 1958). */
static float gaussian(uint64_t *g) {
    const double u = ((double)(sq_splitmix64(g) >> 11) + 1) * 0x1p-53,
                 v = (double)(sq_splitmix64(g) >> 11) * 0x1p-53;
    return (float)(0.02 * sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v));
}

static squish_status bench_encodings(const bench_options *o, encode_job *j, sq_pool *pool, double *v,
                                     json_t *rows, squish_error *err) {
    rates(j, pool, read_item, TILES, o->runs, v);
    const double limit = bench_median(v, o->runs);
    SQ_TRY(bench_row(rows, "read memory", "GB/s", v, o->runs, NAN, BENCH_LARGE_IS_GOOD, err));
    for (size_t i = 0; i < SQ_COUNT(encodings); i++) {
        j->e = encodings[i].e;
        j->tile_bytes = sq_weight_make(j->e.type, j->e.scale, ROWS, COLS, NULL).tile_bytes;
        rates(j, pool, encode_item, encodings[i].slow ? TILES / SHARE : TILES, o->runs, v);
        SQ_TRY(bench_row(rows, encodings[i].name, "GB/s", v, o->runs, limit, BENCH_LARGE_IS_GOOD, err));
        if (o->progress && !o->progress(o->progress_user, "bench", i + 1, SQ_COUNT(encodings) + 3))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    return SQUISH_OK;
}

/* ---- MiLo ------------------------------------------------------------------------------------ */

static const struct {
    const char *snr, *ms;
    int32_t rows, cols;
} shapes[] = {{"milo 64x128 rank 8", NULL, 64, 128},
              {"milo 128x256 rank 8", "milo 128x256 time", 128, 256},
              {"milo 256x512 rank 8", NULL, 256, 512}};

/* Decibels and milliseconds of one fresh matrix. */
static squish_status one_milo(uint64_t *g, float *w, int32_t rows, int32_t cols, double *db, double *ms,
                              squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_milo_options o = sq_milo_options_default();
    sq_coded c;
    double error = 0, energy = 0;
    o.rank = 8;
    for (int32_t i = 0; i < rows * cols; i++) {
        w[i] = gaussian(g);
        energy += (double)w[i] * (double)w[i];
    }
    const uint64_t begin = sq_os_now_ns();
    SQ_TRY(sq_milo_make(&c, &a, NULL, w, rows, cols, &o, &error, err));
    *ms = (double)(sq_os_now_ns() - begin) / 1e6;
    *db = 10 * log10(energy / error);
    sq_coded_free(&c);
    return SQUISH_OK;
}

static squish_status bench_milo(const bench_options *o, uint64_t *g, float *w, double *db, double *ms,
                                json_t *rows, squish_error *err) {
    for (size_t i = 0; i < SQ_COUNT(shapes); i++) {
        for (int32_t r = 0; r < o->runs; r++)
            SQ_TRY(one_milo(g, w, shapes[i].rows, shapes[i].cols, &db[r], &ms[r], err));
        SQ_TRY(bench_row(rows, shapes[i].snr, "dB", db, o->runs, NAN, BENCH_LARGE_IS_GOOD, err));
        if (shapes[i].ms)
            SQ_TRY(bench_row(rows, shapes[i].ms, "ms", ms, o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    }
    return SQUISH_OK;
}

/* 16 rows by 512 columns of 3-bit codes into a row tile. */
static squish_status bench_pack(const bench_options *o, double *us, json_t *rows, squish_error *err) {
    enum { PACK_COLS = 512, GROUPS = PACK_COLS / SQ_GROUP, REPEAT = 200 };
    static uint8_t out[GROUPS * SQ_I3_RECORD];
    static const uint16_t side[SQ_TILE_ROWS * GROUPS];
    uint8_t codes[SQ_TILE_ROWS * PACK_COLS];
    for (size_t i = 0; i < sizeof codes; i++) codes[i] = (uint8_t)(i * 5 & 7);
    for (int32_t r = 0; r < o->runs; r++) {
        const uint64_t begin = sq_os_now_ns();
        for (int i = 0; i < REPEAT; i++)
            sq_tile_pack(SQ_W_I3_G64, SQ_TILE_ROWS, PACK_COLS, codes, side, side, out);
        us[r] = (double)(sq_os_now_ns() - begin) / 1e3 / REPEAT;
    }
    return bench_row(rows, "pack 8192 int3", "us", us, o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
}

/* ---- all ------------------------------------------------------------------------------------- */

squish_status bench_quant(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const size_t in = (size_t)ROWS * COLS * 2, out = (size_t)ROWS * COLS * 2,
                 runs = (size_t)o->runs * sizeof(double);
    encode_job *j = sq_alloc_zero(&a, sizeof *j);
    double *v = sq_alloc_new(&a, 2 * runs);
    uint16_t *w = sq_os_reserve(in);
    uint8_t *made = sq_os_reserve(out);
    sq_kernels k;
    sq_isa isa;
    sq_pool *pool = NULL;
    uint64_t g = sq_os_now_ns(); /* matrices nobody has tuned on */
    squish_status st = SQUISH_OK;
    sq_isa_from_name(o->isa, &isa);
    sq_kernels_select(&k, sq_cpu_features(), isa);
    if (!j || !v || !w || !made) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
        goto fail;
    }
    SQ_GUARD(sq_pool_new(&pool, &a, o->threads ? o->threads : sq_os_cores(), err));
    for (size_t i = 0; i < COLS * SQ_TILE_ROWS; i++) w[i] = sq_f32_to_bf16(gaussian(&g));
    for (size_t t = 1; t < TILES; t++) memcpy(w + t * SQ_TILE_ROWS * COLS, w, SQ_TILE_ROWS * COLS * 2);
    j->w = w, j->out = made, j->k = &k;
    SQ_GUARD(bench_encodings(o, j, pool, v, rows, err));
    SQ_GUARD(bench_milo(o, &g, (float *)(void *)made, v, v + o->runs, rows, err));
    SQ_GUARD(bench_pack(o, v, rows, err));
fail:
    sq_pool_free(pool);
    if (made) sq_os_release(made, out);
    if (w) sq_os_release(w, in);
    sq_alloc_free(&a, v, 2 * runs);
    sq_alloc_free(&a, j, sizeof *j);
    return st;
}
