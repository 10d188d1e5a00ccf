/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_stats.c - figures of a task, and of two runs over the same items.
 *
 * Two models answer the same items, so what tells them apart is where they differ: McNemar's test (McNemar,
 * 1947) asks whether lost and won items could be throws of a fair coin, here with the exact binomial tail. */
#include "eval/eval.h"

#include <math.h>

void eval_choose(eval_result *r, const eval_item *item) {
    double best = 0, best_norm = 0;
    r->gold = item->gold;
    for (int32_t i = 0; i < r->n; i++) {
        const double ll = r->choices[i].ll, chars = item->choices[i].chars,
                     norm = chars > 0 ? ll / chars : ll;
        if (i == 0 || ll > best) best = ll, r->acc = i;
        if (i == 0 || norm > best_norm) best_norm = norm, r->acc_norm = i;
    }
}

static double error_of(double p, int32_t n) { return n > 1 ? sqrt(p * (1 - p) / (n - 1)) : 0; }

eval_sum eval_sum_of(const eval_result *r, size_t n) {
    eval_sum s = {0};
    double acc = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        if (!r[i].done) continue;
        s.n++;
        acc += r[i].acc == r[i].gold;
        norm += r[i].acc_norm == r[i].gold;
    }
    if (s.n == 0) return s;
    s.acc = acc / s.n;
    s.acc_norm = norm / s.n;
    s.acc_err = error_of(s.acc, s.n);
    s.acc_norm_err = error_of(s.acc_norm, s.n);
    return s;
}

/* P(X <= k) for n throws of a fair coin. */
static double coin_tail(int32_t k, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i <= k; i++)
        sum += exp(lgamma(n + 1.0) - lgamma(i + 1.0) - lgamma(n - i + 1.0) - n * log(2));
    return sum;
}

static double mcnemar(int32_t lost, int32_t won) {
    const int32_t n = lost + won;
    if (n == 0) return 1;
    const double p = 2 * coin_tail(lost < won ? lost : won, n);
    return p < 1 ? p : 1;
}

eval_compared eval_compare(const eval_result *ours, const eval_result *reference, size_t n, bool norm) {
    eval_compared c = {.p = 1, .pass = true};
    int32_t right = 0;
    for (size_t i = 0; i < n; i++) {
        const eval_result *a = &ours[i], *b = &reference[i];
        if (!a->done || !b->done) continue;
        const bool here = (norm ? a->acc_norm : a->acc) == a->gold;
        const bool there = (norm ? b->acc_norm : b->acc) == b->gold;
        c.n++;
        right += there;
        c.lost += there && !here;
        c.won += here && !there;
    }
    if (c.n == 0) return c;
    const double differ = c.lost + c.won, d = c.won - c.lost;
    c.reference = (double)right / c.n;
    c.delta = d / c.n;
    const double half = 1.959964 * sqrt(differ - d * d / c.n) / c.n;
    c.low = c.delta - half;
    c.high = c.delta + half;
    c.p = mcnemar(c.lost, c.won);
    c.pass = 100.0 * d >= -2.0 * c.n && !(c.p < 0.01 && d < 0);
    return c;
}
