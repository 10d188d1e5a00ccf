/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_row.c - passes over a row of logits: largest value, normaliser, best raw log-probabilities.
 *
 * A row of 151,936 floats is 608 kB, so the aim is to read it once. That pass keeps one maximum per
 * block of 64; what comes later touches only blocks whose maximum says they matter. The pass is written
 * with the compilers' vector types: plain loops made gcc store the running maxima on every step. */
#include "sample/sample_int.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef float vec4 __attribute__((vector_size(16)));

static inline vec4 load4(const float *p) {
    vec4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* In a loop over numbers, it is one instruction. */
static inline vec4 max4(vec4 a, vec4 b) {
    float x[4], y[4];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 4; i++) x[i] = x[i] > y[i] ? x[i] : y[i];
    return load4(x);
}

/* Largest of 64 values; *has_nan is set if one of them is NaN (the maximum then means nothing). A sum
 * tells: NaN stays in it. It also comes of infinities or large numbers of both signs; then each is asked. */
static inline float max64(const float *x, bool *has_nan) {
    vec4 m0 = load4(x), m1 = load4(x + 4), m2 = load4(x + 8), m3 = load4(x + 12);
    vec4 s0 = m0, s1 = m1, s2 = m2, s3 = m3;
    for (int i = 16; i < 64; i += 16) {
        const vec4 a = load4(x + i), b = load4(x + i + 4), c = load4(x + i + 8), d = load4(x + i + 12);
        m0 = max4(a, m0);
        m1 = max4(b, m1);
        m2 = max4(c, m2);
        m3 = max4(d, m3);
        s0 += a;
        s1 += b;
        s2 += c;
        s3 += d;
    }
    const vec4 most = max4(max4(m0, m1), max4(m2, m3)), all = (s0 + s1) + (s2 + s3);
    float best = most[0];
    for (int i = 1; i < 4; i++) best = most[i] > best ? most[i] : best;
    if (isnan((all[0] + all[1]) + (all[2] + all[3])))
        for (int i = 0; i < 64; i++) *has_nan |= isnan(x[i]);
    return best;
}

static float max_of(const float *x, int32_t n, bool *has_nan) {
    if (n == SQ_SAMPLE_BLOCK) return max64(x, has_nan);
    float best = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (isnan(x[i])) *has_nan = true;
        if (x[i] > best) best = x[i];
    }
    return best;
}

static int32_t block_size(int32_t n, int32_t first) {
    return n - first < SQ_SAMPLE_BLOCK ? n - first : SQ_SAMPLE_BLOCK;
}

int32_t sq_argmax(const float *logits, int32_t n) {
    bool has_nan = false;
    float best = -INFINITY;
    int32_t best_first = 0;
    for (int32_t i = 0; i < n; i += SQ_SAMPLE_BLOCK) {
        float m = max_of(logits + i, block_size(n, i), &has_nan);
        if (m > best) {
            best = m;
            best_first = i;
        }
    }
    if (n <= 0 || has_nan) return -1;
    int32_t id = best_first;
    while (logits[id] != best) id++;
    return id;
}

int32_t sq_sample_scan(const float *logits, int32_t n, float *block_max) {
    bool bad = false;
    for (int32_t i = 0; i < n; i += SQ_SAMPLE_BLOCK) {
        float m = max_of(logits + i, block_size(n, i), &bad);
        block_max[i / SQ_SAMPLE_BLOCK] = m;
        if (m > FLT_MAX) bad = true;
    }
    if (!bad) return -1;
    int32_t id = 0;
    while (logits[id] <= FLT_MAX) id++;
    return id;
}

double sq_logsumexp(const float *logits, int32_t n) {
    int32_t i_max = sq_argmax(logits, n);
    if (i_max < 0) return NAN;
    double m = logits[i_max], sum = 0;
    if (isinf(m)) return m;
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - m);
    return m + log(sum);
}

float sq_logprob(const float *logits, int32_t n, int32_t id) {
    return (float)((double)logits[id] - sq_logsumexp(logits, n));
}

static void find_top_in_block(sq_sample_row *r, int32_t b) {
    for (uint64_t word = sq_sample_plain(r, b); word; word &= word - 1) {
        int32_t id = b * SQ_SAMPLE_BLOCK + __builtin_ctzll(word);
        if (!sq_sample_before(r->logits[id], id, r->top, r->top_id)) continue;
        r->top = r->logits[id];
        r->top_id = id;
    }
}

void sq_sample_find_top(sq_sample_row *r) {
    const sq_sampler *s = r->s;
    r->top = -INFINITY;
    r->top_id = INT32_MAX;
    for (int32_t i = 0; i < s->n_entries; i++) {
        const sq_sample_entry *e = &s->entries[i];
        if (!sq_sample_before(e->l, e->id, r->top, r->top_id)) continue;
        r->top = e->l;
        r->top_id = e->id;
    }
    /* The block with the largest raw value is most often the answer and makes the others fall at a glance. */
    find_top_in_block(r, sq_argmax(s->block_max, s->n_blocks));
    for (int32_t b = 0; b < s->n_blocks; b++)
        if (sq_sample_before(s->block_max[b], b * SQ_SAMPLE_BLOCK, r->top, r->top_id))
            find_top_in_block(r, b);
    if (r->top == -INFINITY) r->top_id = -1;
}

/* Keep the list sorted; it has room for n, so the last one falls out. */
static void insert_top(int32_t n, float l, int32_t id, sq_sample_result *out) {
    int32_t at = out->n_top < n ? out->n_top++ : n - 1;
    for (; at > 0 && sq_sample_before(l, id, out->top_logprobs[at - 1], out->top_ids[at - 1]); at--) {
        out->top_logprobs[at] = out->top_logprobs[at - 1];
        out->top_ids[at] = out->top_ids[at - 1];
    }
    out->top_logprobs[at] = l;
    out->top_ids[at] = id;
}

void sq_sample_top_logprobs(const sq_sample_row *r, double log_norm, int32_t n, sq_sample_result *out) {
    const sq_sampler *s = r->s;
    out->n_top = 0;
    for (int32_t first = 0; n > 0 && first < s->n_ids; first += SQ_SAMPLE_BLOCK) {
        bool full = out->n_top == n;
        if (full && !(s->block_max[first / SQ_SAMPLE_BLOCK] > out->top_logprobs[n - 1])) continue;
        int32_t end = first + block_size(s->n_ids, first);
        for (int32_t id = first; id < end; id++)
            if (out->n_top < n || r->logits[id] > out->top_logprobs[n - 1])
                insert_top(n, r->logits[id], id, out);
    }
    for (int32_t i = 0; i < out->n_top; i++)
        out->top_logprobs[i] = (float)((double)out->top_logprobs[i] - log_norm);
}
