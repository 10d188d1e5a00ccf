/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_oracle.h - the sampler once more, in double, with full sorts and the textbook formulas.
 *
 * Written for reading, not for speed, and sharing nothing with the room but the order of the pipeline.
 * Rows have at most ORACLE_MAX ids. */
#ifndef SQ_TEST_SAMPLE_ORACLE_H
#define SQ_TEST_SAMPLE_ORACLE_H

#include "squish.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ORACLE_MAX = 200000 };

static inline squish_sampling oracle_all_off(void) {
    return (squish_sampling){.temperature = 1,
                             .top_p = 1,
                             .typical_p = 1,
                             .repetition_penalty = 1,
                             .repeat_last_n = 64,
                             .dry_base = 1.75f,
                             .dry_allowed_length = 2,
                             .dry_last_n = -1,
                             .seed = 1};
}

/* A small generator for test data: xorshift64*, Vigna 2016. */
typedef struct {
    uint64_t state;
} oracle_rng;
static inline uint64_t oracle_next(oracle_rng *g) {
    g->state ^= g->state >> 12;
    g->state ^= g->state << 25;
    g->state ^= g->state >> 27;
    return g->state * 0x2545F4914F6CDD1Du;
}
static inline double oracle_unit(oracle_rng *g) { return ((double)(oracle_next(g) >> 11) + 0.5) * 0x1p-53; }
static inline int32_t oracle_below(oracle_rng *g, int32_t n) { return (int32_t)(oracle_next(g) >> 33) % n; }
static inline double oracle_normal(oracle_rng *g) {
    return sqrt(-2 * log(oracle_unit(g))) * cos(6.283185307179586 * oracle_unit(g));
}

/* ---- filters --------------------------------------------------------------------------------- */

typedef struct {
    int32_t id;
    double l, w, key; /* logit, exp((l - max) / T), what is sorted by */
} oracle_cand;

static inline int oracle_by_key(const void *a, const void *b) {
    const oracle_cand *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static inline void oracle_sort_by_logit(oracle_cand *c, int32_t n) {
    for (int32_t i = 0; i < n; i++) c[i].key = -c[i].l;
    qsort(c, (size_t)n, sizeof *c, oracle_by_key);
}

static inline double oracle_sum(const oracle_cand *c, int32_t n) {
    double sum = 0;
    for (int32_t i = n - 1; i >= 0; i--) sum += c[i].w;
    return sum;
}

/* Length of the shortest prefix whose share of the mass is at least p, at least 1. */
static inline int32_t oracle_prefix(const oracle_cand *c, int32_t n, double p) {
    double want = p * oracle_sum(c, n), have = 0;
    for (int32_t i = 0; i < n; i++) {
        have += c[i].w;
        if (have >= want) return i + 1;
    }
    return n;
}

static inline int32_t oracle_typical(oracle_cand *c, int32_t n, double p) {
    double sum = oracle_sum(c, n), entropy = 0;
    for (int32_t i = 0; i < n; i++)
        if (c[i].w > 0) entropy -= c[i].w / sum * log(c[i].w / sum);
    for (int32_t i = 0; i < n; i++) c[i].key = c[i].w > 0 ? fabs(-log(c[i].w / sum) - entropy) : INFINITY;
    qsort(c, (size_t)n, sizeof *c, oracle_by_key);
    n = oracle_prefix(c, n, p);
    oracle_sort_by_logit(c, n);
    return n;
}

static inline int32_t oracle_xtc(oracle_cand *c, int32_t n, double threshold) {
    double sum = oracle_sum(c, n);
    int32_t above = 0, first;
    while (above < n && c[above].w >= threshold * sum) above++;
    if (above < 2) return n;
    for (first = above - 1; first > 0 && c[first - 1].l == c[above - 1].l;)
        first--; /* equal ones: the lowest id */
    c[above - 1] = c[first];
    memmove(c, c + above - 1, (size_t)(n - above + 1) * sizeof *c);
    return n - above + 1;
}

/* l: processed logits, -inf where not allowed. keep[id]: survives. xtc: did the coin fire. Returns how
 * many. */
static inline int32_t oracle_filter(const squish_sampling *p, const float *l, int32_t n_ids, bool xtc,
                                    bool *keep) {
    static oracle_cand c[ORACLE_MAX];
    int32_t n = 0;
    double mean = 0, variance = 0;
    for (int32_t i = 0; i < n_ids; i++)
        if (l[i] > -INFINITY) c[n++] = (oracle_cand){.id = i, .l = l[i]};
    for (int32_t i = 0; i < n; i++) mean += c[i].l / n;
    for (int32_t i = 0; i < n; i++) variance += (c[i].l - mean) * (c[i].l - mean) / n;
    oracle_sort_by_logit(c, n);
    double top = c[0].l;
    for (int32_t i = 0; i < n; i++) c[i].w = exp((c[i].l - top) / p->temperature);
    if (p->top_k > 0 && p->top_k < n) n = p->top_k;
    if (p->typical_p < 1) n = oracle_typical(c, n, p->typical_p);
    if (p->top_p < 1) n = oracle_prefix(c, n, p->top_p);
    double largest = c[0].w, best = c[0].l;
    while (n > 1 && c[n - 1].w < p->min_p * largest) n--;
    while (p->top_n_sigma > 0 && n > 1 && c[n - 1].l < best - p->top_n_sigma * sqrt(variance)) n--;
    if (xtc) n = oracle_xtc(c, n, p->xtc_threshold);
    memset(keep, 0, (size_t)n_ids * sizeof *keep);
    for (int32_t i = 0; i < n; i++) keep[c[i].id] = true;
    return n;
}

/* Probabilities of the survivors. */
static inline void oracle_softmax(const squish_sampling *p, const float *l, int32_t n, const bool *keep,
                                  double *out) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        if (keep[i] && l[i] > top) top = l[i];
    for (int32_t i = 0; i < n; i++) sum += out[i] = keep[i] ? exp(((double)l[i] - top) / p->temperature) : 0;
    for (int32_t i = 0; i < n; i++) out[i] /= sum;
}

/* ---- history --------------------------------------------------------------------------------- */

/* Longest suffix of h[0..n) that, followed by x, stands inside h[0..n); breakers (is_break) end every
 * match. */
static inline int32_t oracle_dry_length(const int32_t *h, int32_t n, const bool *is_break, int32_t x) {
    int32_t best = 0;
    if (is_break[x]) return 0;
    for (int32_t i = 1; i < n; i++) {
        int32_t len = 0;
        if (h[i] != x) continue;
        while (len < i && h[i - 1 - len] == h[n - 1 - len] && !is_break[h[i - 1 - len]]) len++;
        if (len > best) best = len;
    }
    return best;
}

static inline int32_t oracle_count(const int32_t *h, int32_t begin, int32_t end, int32_t x) {
    int32_t count = 0;
    for (int32_t i = begin; i < end; i++) count += h[i] == x;
    return count;
}

/* The processed logit of x; bias is its sum over the pairs; tokens from n_prompt on are generated. */
static inline double oracle_processed(const squish_sampling *p, double l, double bias, const int32_t *h,
                                      int32_t n, int32_t n_prompt, const bool *is_break, int32_t x) {
    int32_t begin = p->repeat_last_n < 0 || p->repeat_last_n > n ? 0 : n - p->repeat_last_n;
    l += bias;
    if (oracle_count(h, begin, n, x) > 0) l = l > 0 ? l / p->repetition_penalty : l * p->repetition_penalty;
    int32_t made = oracle_count(h, n_prompt, n, x);
    if (made > 0) l -= (double)made * p->frequency_penalty + p->presence_penalty;
    int32_t skip = p->dry_last_n < 0 || p->dry_last_n > n ? 0 : n - p->dry_last_n;
    int32_t len = oracle_dry_length(h + skip, n - skip, is_break, x);
    if (p->dry_multiplier > 0 && p->dry_last_n != 0 && len >= p->dry_allowed_length) {
        int32_t e = len - p->dry_allowed_length;
        while (e > 0 && (p->dry_multiplier * pow(p->dry_base, e) >= 1e4)) e--;
        l -= p->dry_multiplier * pow(p->dry_base, e);
    }
    return l;
}

#endif
