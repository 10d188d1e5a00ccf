/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_int.h - what the files of the sampler share.
 *
 * The row is never copied. Almost all of its logits are used as they lie; the few ids whose logit is
 * changed (bias, penalties, bans) have an *entry* and are worked out one by one. The bitset `special`
 * marks them, so that a walk over the plain logits leaves them out:
 *
 *   logits   | block 0: 64 floats | block 1 | ...        one pass writes block_max[] and finds NaN and +inf
 *   special  | word 0: 64 bits    | word 1  | ...        1: has an entry, or no such id
 *   mask     | word 0: 64 bits    | word 1  | ...        the caller's, 1: allowed
 *
 * Every later pass first looks at block_max and skips the blocks that cannot matter. */
#ifndef SQ_SAMPLE_INT_H
#define SQ_SAMPLE_INT_H

#include "sample/sample.h"

enum {
    SQ_SAMPLE_BLOCK = 64, /* logits per block: one mask word */
    SQ_SAMPLE_TOP_MAX = 20,
    SQ_SAMPLE_BIAS_MAX = 1024,
    SQ_SAMPLE_BANS_MAX = 64,
    SQ_SAMPLE_VOCAB_MAX = 1 << 24,
    SQ_SAMPLE_HISTORY_MAX = 1 << 28,
    SQ_SAMPLE_DRY_KEY_MAX = 4 /* tokens hashed into a chain key */
};

/* Streams of noise: the last counter word of Philox. */
enum { SQ_NOISE_TOKEN = 1, SQ_NOISE_XTC = 4, SQ_NOISE_PROPOSAL = 5, SQ_NOISE_KEEP = 6, SQ_NOISE_BEYOND = 7 };

/* One id whose logit may differ from the raw one. Entries are never removed; one without effect costs a
 * few ns. */
typedef struct {
    int32_t id;
    int32_t seen;      /* occurrences inside the repetition window */
    int32_t generated; /* occurrences among generated tokens */
    int32_t dry;       /* longest repeated suffix this id would extend; 0 outside sq_sample_process */
    float bias;
    float l;           /* the processed logit of the row being drawn; -inf: not allowed */
    bool banned, ever_banned;
} sq_sample_entry;

/* A candidate that survived a threshold. */
typedef struct {
    double mass; /* exp((l - top) / T), not normalised */
    float l;     /* processed logit */
    int32_t id;
} sq_sample_cand;
_Static_assert(sizeof(sq_sample_cand) == 16, "four candidates per cache line");

struct sq_sampler {
    squish_alloc alloc;
    size_t bytes; /* of the one block everything lies in */
    squish_sampling p;
    int64_t seed;
    uint32_t key[2];
    int32_t n_vocab, n_ids, n_blocks;
    bool counts, dry; /* which history is needed */

    float *block_max;  /* [n_blocks] */
    uint64_t *special; /* [n_blocks] */

    sq_sample_entry *entries; /* [cap_entries], in order of first sight */
    int32_t n_entries, cap_entries, n_bans;
    int32_t *map; /* [map_mask + 1] open addressing, id -> entry + 1; 0: free */
    uint32_t map_mask;

    int32_t *history; /* [history_max] ids; a DRY breaker is stored as -1 - id */
    int32_t n_history, history_max;

    /* DRY: chains of positions whose last dry_key tokens hash alike, newest first, as LZ77 keeps them. */
    uint64_t *breakers; /* [n_blocks] bitset */
    int32_t *dry_head;  /* [dry_mask + 1] position + 1; 0: none */
    int32_t *dry_prev;  /* [history_max] position + 1; 0: end of chain */
    uint32_t dry_mask;
    int32_t dry_key, dry_len_max; /* beyond dry_len_max the penalty no longer grows */

    sq_sample_cand *cands; /* [cap_cands] */
    int32_t cap_cands;
};

/* One draw in progress. */
typedef struct {
    sq_sampler *s;
    const float *logits;  /* [n_vocab] */
    const uint64_t *mask; /* [n_blocks] or NULL */
    int64_t position;
    float top; /* largest processed logit that is allowed, and its lowest id; -inf and -1: none */
    int32_t top_id;
} sq_sample_row;

/* Which filters a sampling asks for. */
static inline bool sq_sample_is_greedy(const squish_sampling *p) { return p->temperature < 1e-5f; }
static inline bool sq_sample_has_xtc(const squish_sampling *p) {
    return p->xtc_probability > 0 && p->xtc_threshold > 0;
}
/* top_k as a count; n_ids when it is off or no limit. */
static inline int32_t sq_sample_top_k(const squish_sampling *p, int32_t n_ids) {
    return p->top_k > 0 && p->top_k < n_ids ? p->top_k : n_ids;
}

/* ---- sample_row.c: passes over the logits ---------------------------------------------------- */

/* Fill block_max[]; the index of a logit that is NaN or +inf, or -1. */
int32_t sq_sample_scan(const float *logits, int32_t n, float *block_max);
/* Find top and top_id; entries must be processed. */
void sq_sample_find_top(sq_sample_row *r);
/* The n best raw logits of ids < n_ids into out->top_*, less log_norm. Needs block_max. */
void sq_sample_top_logprobs(const sq_sample_row *r, double log_norm, int32_t n, sq_sample_result *out);

/* Allowed plain ids of block b as bits. */
static inline uint64_t sq_sample_plain(const sq_sample_row *r, int32_t b) {
    uint64_t word = ~r->s->special[b];
    return r->mask ? word & r->mask[b] : word;
}
static inline bool sq_sample_has_bit(const uint64_t *bits, int32_t id) {
    return bits[id >> 6] >> (id & 63) & 1;
}
/* The order of candidates: larger logit first, then lower id. */
static inline bool sq_sample_before(float l, int32_t id, float l2, int32_t id2) {
    return l > l2 || (l == l2 && id < id2);
}

/* ---- sample_history.c: entries and what they cost -------------------------------------------- */

/* The entry of id, made if absent; NULL only if the table is full. id in [0, n_vocab). */
sq_sample_entry *sq_sample_entry_of(sq_sampler *s, int32_t id);
/* Work out entry.l for the row: bias, penalties, DRY, bans, mask. */
void sq_sample_process(const sq_sample_row *r);

/* ---- sample_filter.c: from the row to the survivors ------------------------------------------ */

/* Survivors are either listed in s->cands[0..n), or are all allowed ids with a processed logit >= cut. */
typedef struct {
    bool listed;
    int32_t n;
    double cut;
} sq_sample_survivors;
sq_sample_survivors sq_sample_filter(const sq_sample_row *r);
/* The logit below which min-p and top-n-sigma remove, given the largest that is left. */
double sq_sample_cut(const sq_sample_row *r, double largest);

/* ---- sample_top_p.c: who is a survivor, without a list of them --------------------------------- */

/* Top-p, with nothing but thresholds around it. */
bool sq_sample_is_top_p(const sq_sampler *s);
/* Whether top-p keeps an allowed id of processed logit l, whatever thresholds do. UNSURE: it lies so near the
 * cut that rounding decides, and only sq_sample_filter knows. */
typedef enum { SQ_SAMPLE_IN, SQ_SAMPLE_OUT, SQ_SAMPLE_UNSURE } sq_sample_place;
sq_sample_place sq_sample_in_top_p(const sq_sample_row *r, float l, int32_t id);

/* ---- sample_draw.c --------------------------------------------------------------------------- */

/* Noise in (0, 1) from the top 23 bits of a Philox word: (k + 0.5) / 2^23, exact in f32. */
static inline double sq_sample_uniform(uint32_t word) { return ((double)(word >> 9) + 0.5) * 0x1p-23; }
/* The four Philox words of a group (token id >> 2) at the row's position. */
void sq_sample_noise(const sq_sample_row *r, uint32_t group, uint32_t stream, uint32_t out[4]);

/* ---- sample_ratio.c -------------------------------------------------------------------------- */

/* The guess, or a token in its place: sq_sampler_draw_by_ratio, where there is a temperature. */
int32_t sq_sample_by_ratio(const sq_sample_row *r, const sq_sample_survivors *v, int32_t guess,
                           const sq_proposal *q);

#endif
