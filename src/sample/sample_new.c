/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_new.c - the life of a sampler: one block of memory, planned from the options.
 *
 * Everything a draw can need is reserved here, but only what the options can use: a greedy sampler is
 * 30 kB at a vocabulary of 151,936; top-p adds room for every candidate (16 bytes each, touched only as
 * far as candidates come), penalties add the history. */
#include "sample/sample_int.h"

#include <math.h>
#include <string.h>

/* The block seen as a sequence of arrays. First with base NULL to measure, then to place. */
typedef struct {
    char *base;
    size_t used;
} region;

static void *take(region *g, size_t count, size_t size) {
    size_t at = sq_align_up(g->used, 16);
    g->used = at + count * size;
    return g->base ? g->base + at : NULL;
}

static uint32_t pow2_above(uint32_t n) {
    uint32_t p = 16;
    while (p < n) p *= 2;
    return p;
}

/* Sizes that follow from the options. */
static void size_tables(sq_sampler *s, int32_t history_max) {
    const squish_sampling *p = &s->p;
    s->n_blocks = sq_div_up(s->n_vocab, SQ_SAMPLE_BLOCK);
    bool repetition = p->repetition_penalty != 1 && p->repeat_last_n != 0;
    s->counts = repetition || p->frequency_penalty != 0 || p->presence_penalty != 0;
    s->dry = p->dry_multiplier > 0 && p->dry_last_n != 0;
    s->history_max = s->counts || s->dry ? history_max : 0;
    int32_t distinct = s->history_max < s->n_vocab ? s->history_max : s->n_vocab;
    s->cap_entries = distinct + p->n_bias + SQ_SAMPLE_BANS_MAX;
    s->map_mask = pow2_above(2 * (uint32_t)s->cap_entries) - 1;
    uint32_t heads = s->history_max < 1 << 16 ? (uint32_t)s->history_max : 1 << 16;
    s->dry_mask = pow2_above(heads) - 1;
    s->cap_cands = 0;
    if (sq_sample_is_greedy(p)) return;
    int32_t k = sq_sample_top_k(p, s->n_ids);
    if (k < s->n_ids || p->typical_p < 1 || p->top_p < 1 || sq_sample_has_xtc(p)) s->cap_cands = k;
}

static void place(sq_sampler *s, region *g) {
    size_t blocks = (size_t)s->n_blocks;
    s->block_max = take(g, blocks, sizeof(float));
    s->special = take(g, blocks, sizeof(uint64_t));
    s->map = take(g, (size_t)s->map_mask + 1, sizeof(int32_t));
    s->entries = take(g, (size_t)s->cap_entries, sizeof(sq_sample_entry));
    s->history = take(g, (size_t)s->history_max, sizeof(int32_t));
    if (s->dry) {
        s->breakers = take(g, blocks, sizeof(uint64_t));
        s->dry_head = take(g, (size_t)s->dry_mask + 1, sizeof(int32_t));
        s->dry_prev = take(g, (size_t)s->history_max, sizeof(int32_t));
    }
    s->cands = take(g, (size_t)s->cap_cands, sizeof(sq_sample_cand));
}

/* What must be zero at birth; the large arrays stay untouched. */
static void clear_tables(sq_sampler *s) {
    memset(s->special, 0, (size_t)s->n_blocks * sizeof(uint64_t));
    memset(s->map, 0, ((size_t)s->map_mask + 1) * sizeof(int32_t));
    if (!s->dry) return;
    memset(s->breakers, 0, (size_t)s->n_blocks * sizeof(uint64_t));
    memset(s->dry_head, 0, ((size_t)s->dry_mask + 1) * sizeof(int32_t));
}

/* Ids that do not exist count as special, and no entry ever speaks for them. */
static void hide_padding(sq_sampler *s) {
    for (int32_t b = s->n_ids / SQ_SAMPLE_BLOCK; b < s->n_blocks; b++) {
        int32_t keep = s->n_ids - b * SQ_SAMPLE_BLOCK;
        s->special[b] |= keep > 0 ? ~(uint64_t)0 << keep : ~(uint64_t)0;
    }
}

/* The longest match worth measuring: one more token would bring the penalty to 1e4 or add nothing to it. */
static int32_t dry_length_max(const squish_sampling *p) {
    double base = p->dry_base, multiplier = p->dry_multiplier;
    if (base <= 1) return p->dry_allowed_length;
    double exponent = fmin(floor(log(1e4 / multiplier) / log(base)), 1 << 20);
    while (exponent > 0 && multiplier * pow(base, exponent) >= 1e4) exponent--;
    return p->dry_allowed_length + (int32_t)exponent;
}

static void init_dry(sq_sampler *s, const int32_t *breakers, int32_t n_breakers) {
    int32_t allowed = s->p.dry_allowed_length;
    s->dry_key = allowed < SQ_SAMPLE_DRY_KEY_MAX ? allowed : SQ_SAMPLE_DRY_KEY_MAX;
    s->dry_len_max = dry_length_max(&s->p);
    for (int32_t i = 0; i < n_breakers; i++) {
        int32_t id = breakers[i];
        s->breakers[id >> 6] |= (uint64_t)1 << (id & 63);
    }
}

static void init_bias(sq_sampler *s) {
    for (int32_t i = 0; i < s->p.n_bias; i++) {
        sq_sample_entry *e = sq_sample_entry_of(s, s->p.bias_ids[i]);
        if (e) e->bias += s->p.bias_values[i]; /* the table has a place for each */
    }
    s->p.bias_ids = NULL; /* the caller's memory */
    s->p.bias_values = NULL;
}

static squish_status init_seed(sq_sampler *s, squish_error *err) {
    s->seed = s->p.seed;
    if (s->seed == -1) {
        if (!sq_os_random(&s->seed, sizeof s->seed))
            return sq_fail(err, SQUISH_IO, "seed: the system gives no random bytes");
        s->seed &= INT64_MAX;
    }
    uint64_t state = (uint64_t)s->seed;
    uint64_t key = sq_splitmix64(&state);
    s->key[0] = (uint32_t)key;
    s->key[1] = (uint32_t)(key >> 32);
    return SQUISH_OK;
}

static squish_status check_sizes(int32_t n_vocab, int32_t n_ids, int32_t history_max, squish_error *err) {
    if (n_vocab < 1 || n_vocab > SQ_SAMPLE_VOCAB_MAX)
        return sq_fail(err, SQUISH_INVALID, "n_vocab: %d is outside 1..%d", n_vocab, SQ_SAMPLE_VOCAB_MAX);
    if (n_ids < 1 || n_ids > n_vocab)
        return sq_fail(err, SQUISH_INVALID, "n_ids: %d is outside 1..%d", n_ids, n_vocab);
    if (history_max < 0 || history_max > SQ_SAMPLE_HISTORY_MAX)
        return sq_fail(err, SQUISH_INVALID, "history_max: %d is outside 0..%d", history_max,
                       SQ_SAMPLE_HISTORY_MAX);
    return SQUISH_OK;
}

static squish_status check_breakers(const int32_t *breakers, int32_t n, int32_t n_vocab, squish_error *err) {
    if (n < 0 || (n > 0 && !breakers)) return sq_fail(err, SQUISH_INVALID, "n_breakers: %d without ids", n);
    for (int32_t i = 0; i < n; i++)
        if (breakers[i] < 0 || breakers[i] >= n_vocab)
            return sq_fail(err, SQUISH_INVALID, "breakers[%d]: %d is outside 0..%d", i, breakers[i],
                           n_vocab - 1);
    return SQUISH_OK;
}

squish_status sq_sampler_new(sq_sampler **out, const squish_sampling *p, int32_t n_vocab, int32_t n_ids,
                             int32_t history_max, const int32_t *breakers, int32_t n_breakers,
                             const squish_alloc *a, squish_error *err) {
    *out = NULL;
    SQ_TRY(check_sizes(n_vocab, n_ids, history_max, err));
    SQ_TRY(sq_sampling_check(p, n_vocab, err));
    SQ_TRY(check_breakers(breakers, n_breakers, n_vocab, err));

    sq_sampler plan = {.alloc = a ? *a : sq_alloc_default(), .p = *p, .n_vocab = n_vocab, .n_ids = n_ids};
    SQ_TRY(init_seed(&plan, err));
    size_tables(&plan, history_max);
    region measure = {NULL, sizeof plan};
    place(&plan, &measure);
    plan.bytes = measure.used;
    sq_sampler *s = sq_alloc_new(&plan.alloc, plan.bytes);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "sampler: %zu bytes", plan.bytes);

    region block = {(char *)s, sizeof plan};
    place(&plan, &block);
    *s = plan;
    clear_tables(s);
    hide_padding(s);
    if (s->dry) init_dry(s, breakers, n_breakers);
    init_bias(s);
    *out = s;
    return SQUISH_OK;
}

void sq_sampler_free(sq_sampler *s) {
    if (!s) return;
    squish_alloc a = s->alloc;
    sq_alloc_free(&a, s, s->bytes);
}

int64_t sq_sampler_seed(const sq_sampler *s) {
    return s->seed;
}
