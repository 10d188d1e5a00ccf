/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_top_p.c - is an id among those that top-p keeps?
 *
 * They are the shortest prefix of the order (larger logit first, then lower id) whose mass is at least p of
 * all, so an id is kept if what stands before it has less than p of all:
 *
 *   mass   | before the id | the id | behind it, summed down to a depth | deeper: at most n exp(-depth) |
 *
 * Two sums decide, and need neither a list nor an order. They are taken in f32, four ids at a time, and what
 * they say counts only if it is clear by more than they can be wrong; so whoever is told IN or OUT is told
 * what sq_sample_filter would do, to the last id. Most ids that are asked for lie near the top, where few
 * blocks have a say and what is deeper does not matter. */
#include "sample/sample_int.h"

#include <math.h>
#include <string.h>

typedef float vec4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));
typedef uint32_t word4 __attribute__((vector_size(16)));

/* How far sums are wrong, as a share: an exponent of up to 17 (deeper ones are nothing) rounded three times,
 * exp4, and 64 additions are 2^-16 together. */
static const double DOUBT = 0x1p-14;

static const double DEPTHS[] = {8, 16, 60}; /* at the last, what is deeper vanishes: sample_filter.c */

static inline vec4 all4(float x) { return (vec4){x, x, x, x}; }
static inline int4 ints4(int32_t x) { return (int4){x, x, x, x}; }

/* e^x for x <= 0, to 2^-20; e^-87 below. */
static inline vec4 exp4(vec4 x) {
    const int4 deep = x < all4(-87);
    x = (vec4)(((int4)all4(-87) & deep) | ((int4)x & ~deep));
    const vec4 shifted = x * all4(0x1.715476p+0f) + all4(0x1.8p23f), n = shifted - all4(0x1.8p23f);
    const vec4 r = x - n * all4(0x1.62e4p-1f) - n * all4(0x1.7f7d1cp-20f);
    vec4 p = all4(0x1.123bccp-7f);
    p = p * r + all4(0x1.555b98p-5f);
    p = p * r + all4(0x1.55548ep-3f);
    p = p * r + all4(0x1.fffff8p-2f);
    p = p * r + all4(1);
    p = p * r + all4(1);
    return (vec4)((word4)p + ((word4)shifted << 23));
}

/* What is summed. */
typedef struct {
    const sq_sample_row *row;
    float l, after; /* of the id that is asked for, and the next number above */
    int32_t id;
    float slope; /* 1 / T */
    double before, total;
    double skipped; /* ids not looked at */
} sums;

/* Adds the ids of a word, 64 logits at x; those from `least` on stand before the id. */
static void add_word(sums *s, const float *x, uint64_t word, float least) {
    const int4 bit = {1, 2, 4, 8};
    vec4 total = all4(0), before = all4(0);
    for (int i = 0; i < SQ_SAMPLE_BLOCK; i += 4) {
        vec4 l;
        memcpy(&l, x + i, sizeof l);
        const int4 in = (ints4((int32_t)(word >> i & 15)) & bit) == bit;
        const vec4 m = (vec4)((int4)exp4((l - all4(s->row->top)) * all4(s->slope)) & in);
        total += m;
        before += (vec4)((int4)m & (l >= all4(least)));
    }
    s->total += (double)(total[0] + total[1] + total[2] + total[3]);
    s->before += (double)(before[0] + before[1] + before[2] + before[3]);
}

static void add_block(sums *s, int32_t b) {
    const sq_sample_row *r = s->row;
    const int32_t first = b * SQ_SAMPLE_BLOCK, left = r->s->n_vocab - first;
    const uint64_t word = sq_sample_plain(r, b);
    const float *x = r->logits + first;
    if (!word) return;
    float end[SQ_SAMPLE_BLOCK] = {0};
    if (left < SQ_SAMPLE_BLOCK) x = memcpy(end, x, (size_t)left * sizeof *end);
    if (first > s->id || first + SQ_SAMPLE_BLOCK <= s->id) {
        add_word(s, x, word, first > s->id ? s->after : s->l);
        return;
    }
    const uint64_t lower = ((uint64_t)1 << (s->id & 63)) - 1; /* of equal ones these stand before it */
    add_word(s, x, word & lower, s->l);
    add_word(s, x, word & ~lower, s->after);
}

static void add_all(sums *s, double depth) {
    const sq_sample_row *r = s->row;
    const double cut = fmin((double)r->top - depth * (double)r->s->p.temperature, (double)s->l);
    s->before = s->total = s->skipped = 0;
    for (int32_t i = 0; i < r->s->n_entries; i++) {
        const sq_sample_entry *e = &r->s->entries[i];
        const double m = exp(((double)e->l - (double)r->top) / (double)r->s->p.temperature);
        s->total += m;
        if (sq_sample_before(e->l, e->id, s->l, s->id)) s->before += m;
    }
    for (int32_t b = 0; b < r->s->n_blocks; b++)
        if ((double)r->s->block_max[b] >= cut)
            add_block(s, b);
        else
            s->skipped += SQ_SAMPLE_BLOCK;
}

sq_sample_place sq_sample_in_top_p(const sq_sample_row *r, float l, int32_t id) {
    const double p = r->s->p.top_p;
    sums s = {.row = r, .l = l, .after = nextafterf(l, INFINITY), .id = id, .slope = 1 / r->s->p.temperature};
    if (id == r->top_id) return SQ_SAMPLE_IN;
    for (size_t i = 0; i < SQ_COUNT(DEPTHS); i++) {
        add_all(&s, DEPTHS[i]);
        const double all = s.total + s.skipped * exp(-DEPTHS[i]);
        if (s.before < p * s.total * (1 - DOUBT)) return SQ_SAMPLE_IN;
        if (s.before > p * all * (1 + DOUBT)) return SQ_SAMPLE_OUT;
    }
    return SQ_SAMPLE_UNSURE;
}
