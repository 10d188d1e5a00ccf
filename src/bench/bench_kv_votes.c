/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kv_votes.c - what it takes to keep old tiles in fewer bits: a token's look at the ladder, the rung of
 * a tile, sealing and shrinking of tiles, and a prompt of 512 tokens judged and sealed. No model is needed;
 * each figure is a mean over many calls, several times. */
#include "bench/bench_int.h"

#include "kv/kv_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 16384, WIDE = 128, NARROW = 64, ROUNDS = 400, STORE_TILES = 16, STORES = 40 };

typedef struct {
    json_t *rows;
    int32_t runs;
    sq_kernels k;
    uint16_t *open; /* a tile of keys and one of values */
    uint8_t *sealed, *less;
    double v[BENCH_RUNS_MAX];
} votes_bench;

static double since(uint64_t begin) { return (double)(sq_os_now_ns() - begin); }

static squish_status row(votes_bench *b, const char *name, const char *unit, squish_error *err) {
    SQ_TRY(bench_row(b->rows, name, unit, b->v, b->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    return json_object_set_new(json_array_get(b->rows, json_array_size(b->rows) - 1), "bench",
                               json_string("kv-votes"))
               ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory")
               : SQUISH_OK;
}

/* ---- the ladder ------------------------------------------------------------------------------ */

static sq_kv_policy policy_of(bool cocktail) {
    squish_kv_options o = squish_kv_options_default();
    sq_kv_policy p = sq_kv_policy_of(SQUISH_KV_F16);
    o.sink = 0;
    o.pm = !cocktail, o.cocktail = cocktail;
    o.pm_age[0] = o.pm_age[1] = o.pm_age[2] = TOKENS * 2; /* thresholds are looked at, and never passed */
    sq_kv_policy_add(&p, SQUISH_KV_F16, &o);
    p.step_tokens = 256;
    return p;
}

static squish_status seq_of(const sq_kv_policy *policy, int32_t tokens, sq_kv_pool **p, sq_kv_seq **s,
                            squish_error *err) {
    const sq_kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = NARROW};
    const squish_alloc a = sq_alloc_default();
    SQ_TRY(sq_kv_pool_new(p, &shape, policy, sq_kv_bytes(&shape, policy, tokens), &a, err));
    return sq_kv_seq_new(s, *p, tokens, err);
}

/* Nanoseconds of the looks at the ladder that tokens of a growing sequence cost, and of a look at a tile. */
static squish_status grow(const sq_kv_policy *policy, double *ns, double *lookup, squish_error *err) {
    sq_kv_pool *p = NULL;
    sq_kv_seq *s = NULL;
    sq_kv_move moves[SQ_KV_MOVES_MAX];
    int64_t sum = 0;
    squish_status st;
    *ns = 0;
    SQ_GUARD(seq_of(policy, TOKENS, &p, &s, err));
    SQ_GUARD(sq_kv_seq_reserve(s, 1, err));
    sq_kv_seq_prompt_end(s);
    for (int32_t n = SQ_KV_TILE; n <= TOKENS; n += SQ_KV_TILE) {
        SQ_GUARD(sq_kv_seq_reserve(s, n, err));
        const uint64_t begin = sq_os_now_ns();
        for (int32_t i = 0; i < SQ_KV_TILE; i++) sum += sq_kv_seq_events(s, moves); /* one finds a new tile */
        *ns += since(begin) / TOKENS;
    }
    const uint64_t then = sq_os_now_ns();
    for (int32_t i = 0; i < ROUNDS; i++) {
        const volatile uint8_t *rungs = sq_kv_seq_rungs(s); /* every look is one */
        for (int32_t t = 0; t < TOKENS / SQ_KV_TILE; t++) sum += rungs[t];
    }
    *lookup = since(then) / ROUNDS / (TOKENS / SQ_KV_TILE);
    if (sum < 0) st = sq_fail(err, SQUISH_CORRUPT, "bench: a rung below none");
fail:
    sq_kv_seq_free(s);
    sq_kv_pool_free(p);
    return st;
}

static squish_status ladder_rows(votes_bench *b, squish_error *err) {
    const sq_kv_policy policy = policy_of(false);
    double lookup[BENCH_RUNS_MAX];
    for (int32_t r = 0; r < b->runs; r++) SQ_TRY(grow(&policy, &b->v[r], &lookup[r], err));
    SQ_TRY(row(b, "PM-KVQ advance, a token", "ns", err));
    memcpy(b->v, lookup, sizeof lookup);
    return row(b, "PM-KVQ lookup, a tile", "ns", err);
}

/* ---- tiles ----------------------------------------------------------------------------------- */

static void fill(votes_bench *b, int32_t d) {
    uint64_t rng = 1;
    for (int32_t i = 0; i < 2 * d * SQ_KV_TILE; i++)
        b->open[i] = sq_f32_to_f16((float)(int32_t)(sq_splitmix64(&rng) & 0xffff) / 32768.0f - 1.0f +
                                   (i / SQ_KV_TILE % 16 ? 0 : 4));
}

static void seal(const votes_bench *b, int32_t d, sq_kv_format f, uint8_t *out) {
    const sq_kv_seal_args a = {
        d, f, f, b->open, b->open + (size_t)d * SQ_KV_TILE, out, out + sq_align_up(sq_kv_k_bytes(f, d), 64)};
    b->k.kv_seal(&a);
}

static void shrink(const votes_bench *b, int32_t d, sq_kv_format from, sq_kv_format to) {
    const sq_kv_shrink_args a = {d,
                                 from,
                                 to,
                                 from,
                                 to,
                                 b->sealed,
                                 b->sealed + sq_align_up(sq_kv_k_bytes(from, d), 64),
                                 b->less,
                                 b->less + sq_align_up(sq_kv_k_bytes(to, d), 64)};
    b->k.kv_shrink(&a);
}

static squish_status tile_rows(votes_bench *b, squish_error *err) {
    static const struct {
        const char *name;
        sq_kv_format f;
    } formats[] = {{"q8", SQ_KV_Q8}, {"q4", SQ_KV_Q4}, {"q2", SQ_KV_Q2}};
    char name[64];
    fill(b, WIDE);
    for (size_t f = 0; f < SQ_COUNT(formats); f++) {
        for (int32_t r = 0; r < b->runs; r++) {
            const uint64_t begin = sq_os_now_ns();
            for (int32_t i = 0; i < ROUNDS; i++) seal(b, WIDE, formats[f].f, b->sealed);
            b->v[r] = since(begin) / ROUNDS / 1e3 / (2 * SQ_KV_TILE);
        }
        snprintf(name, sizeof name, "seal a vector of %d, %s", WIDE, formats[f].name);
        SQ_TRY(row(b, name, "us", err));
    }
    for (size_t f = 0; f + 1 < SQ_COUNT(formats); f++) {
        seal(b, WIDE, formats[f].f, b->sealed);
        for (int32_t r = 0; r < b->runs; r++) {
            const uint64_t begin = sq_os_now_ns();
            for (int32_t i = 0; i < ROUNDS; i++) shrink(b, WIDE, formats[f].f, formats[f + 1].f);
            b->v[r] = since(begin) / ROUNDS / 1e3 / 2;
        }
        snprintf(name, sizeof name, "shrink a tile of %d, %s to %s", WIDE, formats[f].name,
                 formats[f + 1].name);
        SQ_TRY(row(b, name, "us", err));
    }
    return SQUISH_OK;
}

/* A step's queries of 12 heads of 128 over 2 of keys, as they count in the running mean. */
static squish_status weigh_row(votes_bench *b, squish_error *err) {
    enum { HEADS = 12, KV_HEADS = 2 };
    float weight[KV_HEADS * WIDE] = {0}, memory[HEADS * WIDE];
    const sq_attn_shape s = {.n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim = WIDE};
    const sq_attn_seg seg = {.n_rows = 1};
    const sq_rows q = {
        .m = 1, .m_max = 1, .cols = HEADS * WIDE, .groups = HEADS * WIDE / SQ_GROUP, .f = memory};
    for (int32_t i = 0; i < HEADS * WIDE; i++) memory[i] = (float)(i % 17) - 8.0f;
    for (int32_t r = 0; r < b->runs; r++) {
        const uint64_t begin = sq_os_now_ns();
        for (int32_t i = 0; i < ROUNDS; i++) sq_be_attn_weigh(&s, &seg, 0, 1, &q, weight);
        b->v[r] = since(begin) / ROUNDS / HEADS;
    }
    return row(b, "MixKVQ assign, a head of 128 a step", "ns", err);
}

/* ---- a prompt of 512 tokens ------------------------------------------------------------------- */

/* 16 chunks judged, and those found middling and low sealed, keys and values of one head of 64. */
static squish_status store_row(votes_bench *b, squish_error *err) {
    const sq_kv_policy policy = policy_of(true);
    const int32_t tokens = STORE_TILES * SQ_KV_TILE + policy.window.residual * SQ_KV_TILE;
    sq_kv_census c = {0};
    fill(b, NARROW);
    for (int32_t r = 0; r < b->runs; r++) {
        sq_kv_pool *p = NULL;
        sq_kv_seq *s = NULL;
        double ns = 0;
        squish_status st = seq_of(&policy, tokens, &p, &s, err);
        for (int32_t i = 0; i < STORES && st == SQUISH_OK; i++) {
            if ((st = sq_kv_seq_reserve(s, tokens, err)) != SQUISH_OK) break;
            sq_kv_seq_prompt_end(s);
            float *mass = sq_kv_seq_mass(s);
            for (int32_t t = 0; t < STORE_TILES; t++) mass[t] = (float)(t * 7 % STORE_TILES);
            const uint64_t begin = sq_os_now_ns();
            sq_kv_seq_judge(s);
            for (int32_t t = 0; t < STORE_TILES; t++) {
                const sq_kv_votes v = {.age = tokens, .judged = true, .relevance = sq_kv_seq_relevance(s, t)};
                const sq_rung to = sq_kv_merge(&policy, &v, SQ_RUNG_F16);
                if (to < SQ_RUNG_F16) seal(b, NARROW, sq_kv_form_of(&policy, to, 0).k, b->sealed);
            }
            ns += since(begin);
            sq_kv_seq_census(s, &c);
            sq_kv_seq_truncate(s, 0);
        }
        sq_kv_seq_free(s);
        sq_kv_pool_free(p);
        if (st != SQUISH_OK) return st;
        b->v[r] = ns / STORES / 1e3;
    }
    SQ_TRY(row(b, "CocktailKV: judge and seal 512 tokens of 64", "us", err));
    json_t *more = json_pack("{s:[i,i,i]}", "chunks", (int)c.judged[2], (int)c.judged[1], (int)c.judged[0]);
    const int failed = json_object_update(json_array_get(b->rows, json_array_size(b->rows) - 1), more);
    json_decref(more);
    return failed ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory") : SQUISH_OK;
}

squish_status bench_kv_votes(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const size_t open = (size_t)2 * WIDE * SQ_KV_TILE * sizeof(uint16_t), all = 3 * open;
    sq_isa isa;
    if (!sq_isa_from_name(o->isa, &isa)) return sq_fail(err, SQUISH_INVALID, "isa '%.20s' is none", o->isa);
    SQ_TRY(bench_check_runs(o, err));
    votes_bench b = {.rows = rows, .runs = o->runs};
    uint8_t *memory = sq_alloc_new(&a, all + 64);
    if (!memory) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    uint8_t *at = memory + (sq_align_up((uintptr_t)memory, 64) - (uintptr_t)memory);
    b.open = (uint16_t *)(void *)at, b.sealed = at + open, b.less = at + 2 * open;
    sq_kernels_select(&b.k, sq_cpu_features(), isa);
    squish_status st = ladder_rows(&b, err);
    if (st == SQUISH_OK) st = tile_rows(&b, err);
    if (st == SQUISH_OK) st = weigh_row(&b, err);
    if (st == SQUISH_OK) st = store_row(&b, err);
    sq_alloc_free(&a, memory, all + 64);
    return st;
}
