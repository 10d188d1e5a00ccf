/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_filter.c - top-k, typical-p, top-p, min-p, top-n-sigma and XTC, in this order.
 *
 * Nothing here sorts. Top-k is a heap of k. Top-p and typical-p ask for the shortest prefix of an order
 * that holds a given mass, which a quickselect on masses finds in linear time. Filters that only
 * compare with a threshold (min-p, top-n-sigma) stay a threshold when they stand alone, and no
 * candidate is ever listed.
 *
 * z = (l - top) / T is the tempered logit relative to the best. Candidates for the mass filters are
 * gathered down to a depth in z. What lies deeper holds at most n * exp(-depth) of mass: top-p first
 * tries a shallow depth and goes deeper only while that bound could move the cut, so the result is that
 * of the full row. */
#include "sample/sample_int.h"

#include <float.h>
#include <math.h>

/* At this depth the rest, below 2^24 * exp(-60) = 1.5e-19, vanishes in a double sum of at least 1. */
static const double depth_full = 60;
static const double depth_first = 20, depth_step = 10;

static double z_of(const sq_sample_row *r, float l) {
    return ((double)l - (double)r->top) / (double)r->s->p.temperature;
}

/* ---- gathering ------------------------------------------------------------------------------- */

static void put(sq_sampler *s, int32_t *n, float l, int32_t id) {
    s->cands[*n].l = l;
    s->cands[*n].id = id;
    (*n)++;
}

/* List every allowed candidate with l >= cut. */
static int32_t gather(const sq_sample_row *r, double cut) {
    sq_sampler *s = r->s;
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_entries; i++) {
        const sq_sample_entry *e = &s->entries[i];
        if (e->l > -INFINITY && e->l >= cut) put(s, &n, e->l, e->id);
    }
    for (int32_t b = 0; b < s->n_blocks; b++) {
        if (!(s->block_max[b] >= cut) || s->block_max[b] == -INFINITY) continue;
        for (uint64_t word = sq_sample_plain(r, b); word; word &= word - 1) {
            int32_t id = b * SQ_SAMPLE_BLOCK + __builtin_ctzll(word);
            float l = r->logits[id];
            if (l >= cut && l > -INFINITY) put(s, &n, l, id);
        }
    }
    return n;
}

/* Is candidate a worse than b? The heap keeps the worst at its root. */
static bool is_worse(const sq_sample_cand *a, const sq_sample_cand *b) {
    return sq_sample_before(b->l, b->id, a->l, a->id);
}

static void sift_down(sq_sample_cand *heap, int32_t n, int32_t i) {
    sq_sample_cand moving = heap[i];
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_worse(&heap[child + 1], &heap[child])) child++;
        if (!is_worse(&heap[child], &moving)) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

/* Offer one candidate to the k best so far. The heap is built when the list is full. */
static void offer(sq_sampler *s, int32_t k, int32_t *n, float l, int32_t id) {
    if (l == -INFINITY) return;
    if (*n < k) {
        put(s, n, l, id);
        for (int32_t i = k / 2 - 1; *n == k && i >= 0; i--) sift_down(s->cands, k, i);
    } else if (sq_sample_before(l, id, s->cands[0].l, s->cands[0].id)) {
        s->cands[0].l = l;
        s->cands[0].id = id;
        sift_down(s->cands, k, 0);
    }
}

/* List the k best. */
static int32_t select_top_k(const sq_sample_row *r, int32_t k) {
    sq_sampler *s = r->s;
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_entries; i++) offer(s, k, &n, s->entries[i].l, s->entries[i].id);
    for (int32_t b = 0; b < s->n_blocks; b++) {
        if (n == k && s->block_max[b] < s->cands[0].l) continue;
        for (uint64_t word = sq_sample_plain(r, b); word; word &= word - 1) {
            int32_t id = b * SQ_SAMPLE_BLOCK + __builtin_ctzll(word);
            if (n < k || r->logits[id] >= s->cands[0].l) offer(s, k, &n, r->logits[id], id);
        }
    }
    return n;
}

/* ---- shortest prefix with a mass ------------------------------------------------------------- */

/* An order of candidates: by rank, then by id. Top-p ranks by falling logit; typical-p by the distance
 * of z from its mean, because |-ln p - entropy| = |z - sum p z|. */
typedef struct {
    const sq_sample_row *row;
    bool typical;
    double mean_z;
} order;

static double rank_of(const order *o, const sq_sample_cand *c) {
    return o->typical ? fabs(z_of(o->row, c->l) - o->mean_z) : -(double)c->l;
}

static bool is_first(const order *o, const sq_sample_cand *a, const sq_sample_cand *b) {
    double ra = rank_of(o, a), rb = rank_of(o, b);
    return ra < rb || (ra == rb && a->id < b->id);
}

static void swap(sq_sample_cand *a, sq_sample_cand *b) {
    sq_sample_cand t = *a;
    *a = *b;
    *b = t;
}

/* Move the median of first, middle and last to the end, where partition expects its pivot. */
static void choose_pivot(const order *o, sq_sample_cand *c, int32_t lo, int32_t hi) {
    sq_sample_cand *a = &c[lo], *m = &c[lo + (hi - lo) / 2], *z = &c[hi - 1];
    if (is_first(o, m, a)) swap(m, a);
    if (is_first(o, z, m)) swap(z, m);
    if (is_first(o, m, a)) swap(m, a);
    swap(m, z);
}

/* Partition c[lo..hi) around its pivot; returns the pivot's place, *mass: sum before it. */
static int32_t partition(const order *o, sq_sample_cand *c, int32_t lo, int32_t hi, double *mass) {
    choose_pivot(o, c, lo, hi);
    int32_t mid = lo;
    *mass = 0;
    for (int32_t i = lo; i < hi - 1; i++) {
        if (!is_first(o, &c[i], &c[hi - 1])) continue;
        *mass += c[i].mass;
        swap(&c[i], &c[mid++]);
    }
    swap(&c[mid], &c[hi - 1]);
    return mid;
}

/* Bring the shortest prefix with mass >= target to the front; returns its length, at least 1, and its
 * mass. */
static int32_t select_mass(const order *o, sq_sample_cand *c, int32_t n, double target, double *reached) {
    int32_t lo = 0, hi = n;
    double sum = 0;
    target = fmax(target, DBL_MIN); /* a prefix of nothing is never enough */
    while (lo < hi) {
        double left;
        int32_t mid = partition(o, c, lo, hi, &left);
        if (sum + left >= target) {
            hi = mid;
            continue;
        }
        sum += left + c[mid].mass;
        lo = mid + 1;
        if (sum >= target) break;
    }
    *reached = sum;
    return lo;
}

/* Fill in masses; returns their sum. */
static double weigh(const sq_sample_row *r, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += r->s->cands[i].mass = exp(z_of(r, r->s->cands[i].l));
    return sum;
}

/* ---- the filters ----------------------------------------------------------------------------- */

static int32_t filter_typical(const sq_sample_row *r, int32_t n) {
    sq_sample_cand *c = r->s->cands;
    double sum = weigh(r, n), sum_z = 0, reached;
    for (int32_t i = 0; i < n; i++) sum_z += c[i].mass * z_of(r, c[i].l);
    order o = {r, true, sum_z / sum};
    return select_mass(&o, c, n, (double)r->s->p.typical_p * sum, &reached);
}

/* Drop candidates so light that all of them together hold less than the mass top-p leaves out: the
 * prefix it wants lies among the others. Of tens of thousands a few hundred stay. */
static int32_t drop_light(sq_sample_cand *c, int32_t n, double left_out) {
    double least = 0.5 * left_out / n; /* half: far from any rounding */
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (c[i].mass >= least) c[kept++] = c[i];
    return kept;
}

/* rest: most mass that the list may lack. False if more of it could move the cut. */
static bool filter_top_p(const sq_sample_row *r, int32_t *n, double rest) {
    double p = r->s->p.top_p, sum = weigh(r, *n), reached;
    order o = {r, false, 0};
    *n = drop_light(r->s->cands, *n, (1 - p) * sum);
    *n = select_mass(&o, r->s->cands, *n, p * sum, &reached);
    return reached >= p * (sum + rest) || rest == 0;
}

/* Gather as deep as top-p needs, and cut. */
static int32_t gather_top_p(const sq_sample_row *r) {
    for (double depth = depth_first;; depth += depth_step) {
        int32_t n = gather(r, (double)r->top - depth * (double)r->s->p.temperature);
        double rest = depth < depth_full ? (r->s->n_ids - n) * exp(-depth) : 0;
        if (filter_top_p(r, &n, rest)) return n;
    }
}

/* Standard deviation of all allowed processed logits, by sums around the top. */
static double sigma_of(const sq_sample_row *r) {
    const sq_sampler *s = r->s;
    double sum = 0, squares = 0, n = 0;
    for (int32_t i = 0; i < s->n_entries; i++) {
        double d = (double)s->entries[i].l - (double)r->top;
        if (isinf(d)) continue;
        sum += d;
        squares += d * d;
        n++;
    }
    for (int32_t b = 0; b < s->n_blocks; b++)
        for (uint64_t word = sq_sample_plain(r, b); word; word &= word - 1) {
            double d = (double)r->logits[b * SQ_SAMPLE_BLOCK + __builtin_ctzll(word)] - (double)r->top;
            if (isinf(d)) continue;
            sum += d;
            squares += d * d;
            n++;
        }
    return sqrt(fmax(squares / n - sum / n * (sum / n), 0));
}

double sq_sample_cut(const sq_sample_row *r, double largest) {
    const squish_sampling *p = &r->s->p;
    double cut = -INFINITY;
    if (p->min_p > 0) cut = largest + (double)p->temperature * log((double)p->min_p);
    if (p->top_n_sigma > 0) cut = fmax(cut, largest - (double)p->top_n_sigma * sigma_of(r));
    return cut;
}

static int32_t filter_cut(const sq_sample_row *r, int32_t n) {
    sq_sample_cand *c = r->s->cands;
    float largest = c[0].l;
    for (int32_t i = 1; i < n; i++)
        if (c[i].l > largest) largest = c[i].l;
    double cut = sq_sample_cut(r, largest);
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (c[i].l >= cut) c[kept++] = c[i];
    return kept;
}

/* XTC: of the candidates with p >= threshold only the least likely stays (of equal ones the lowest id). */
static int32_t filter_xtc(const sq_sample_row *r, int32_t n) {
    sq_sample_cand *c = r->s->cands;
    double least = (double)r->s->p.xtc_threshold * weigh(r, n);
    int32_t keep = -1, kept = 0;
    for (int32_t i = 0; i < n; i++) {
        if (c[i].mass < least) continue;
        if (keep < 0 || c[i].l < c[keep].l || (c[i].l == c[keep].l && c[i].id < c[keep].id)) keep = i;
    }
    for (int32_t i = 0; i < n; i++)
        if (i == keep || c[i].mass < least) c[kept++] = c[i];
    return kept;
}

static bool xtc_fires(const sq_sample_row *r) {
    if (!sq_sample_has_xtc(&r->s->p)) return false;
    uint32_t words[4];
    sq_sample_noise(r, 0, SQ_NOISE_XTC, words);
    return sq_sample_uniform(words[0]) < (double)r->s->p.xtc_probability;
}

bool sq_sample_is_top_p(const sq_sampler *s) {
    const squish_sampling *p = &s->p;
    return p->top_p < 1 && !(p->typical_p < 1) && !sq_sample_has_xtc(p) &&
           sq_sample_top_k(p, s->n_ids) == s->n_ids;
}

sq_sample_survivors sq_sample_filter(const sq_sample_row *r) {
    const sq_sampler *s = r->s;
    const squish_sampling *p = &s->p;
    int32_t k = sq_sample_top_k(p, s->n_ids), n;
    bool has_k = k < s->n_ids, has_typical = p->typical_p < 1, has_top_p = p->top_p < 1;
    bool has_xtc = xtc_fires(r);
    if (!has_k && !has_typical && !has_top_p && !has_xtc)
        return (sq_sample_survivors){.listed = false, .cut = sq_sample_cut(r, (double)r->top)};

    double depth = depth_full;
    if (has_xtc) depth -= log((double)p->xtc_threshold); /* XTC may remove everything above its threshold */
    if (has_k)
        n = select_top_k(r, k);
    else if (!has_typical && has_top_p)
        n = gather_top_p(r);
    else
        n = gather(r, (double)r->top - depth * (double)p->temperature);
    if (has_typical) n = filter_typical(r, n);
    if (has_top_p && (has_k || has_typical)) filter_top_p(r, &n, 0);
    if (p->min_p > 0 || p->top_n_sigma > 0) n = filter_cut(r, n);
    if (has_xtc) n = filter_xtc(r, n);
    return (sq_sample_survivors){.listed = true, .n = n};
}
