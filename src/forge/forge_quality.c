/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_quality.c - is a made model still coherent? Judged by measurements alone: some families fall apart at
 * 3 bits and others do not, so a list of names or bits would be wrong both ways.
 *
 * Greedy text of a small model loops now and then however it is stored: of squish-tiny at 4 bits, perplexity
 * 1.03 times the source's, two texts in five did where none of the source's did. So loops decide only where
 * perplexity is in doubt already, and only those that the reference does not have. */
#include "forge/forge_methods.h"

#include <math.h>
#include <stdio.h>

static const double ratio_ok = 1.15, ratio_degraded = 2.0, agreement_min = 0.5;
enum { LOOPS_MAX = 2, PERIOD_MAX = 16, PERIODS_MIN = 4, LOOP_PERCENT = 40 };

bool sq_quality_loops(const int32_t *tokens, size_t n, int32_t *period) {
    if (period) *period = 0;
    for (size_t p = 1; p <= PERIOD_MAX && PERIODS_MIN * p <= n; p++) {
        size_t same = 0; /* tokens at the end that equal the one a period earlier */
        while (same + p < n && tokens[n - 1 - same] == tokens[n - 1 - same - p]) same++;
        const size_t covered = same + p;
        if (same == 0 || covered < PERIODS_MIN * p || covered * 100 < LOOP_PERCENT * n) continue;
        if (period) *period = (int32_t)p;
        return true;
    }
    return false;
}

double sq_quality_distinct2(const int32_t *tokens, size_t n) {
    if (n < 2) return 1;
    size_t distinct = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        size_t j = 0;
        while (j < i && (tokens[j] != tokens[i] || tokens[j + 1] != tokens[i + 1])) j++;
        distinct += j == i;
    }
    return (double)distinct / (double)(n - 1);
}

sq_quality_flag sq_quality_judge(const sq_quality_measure *m, char *why, size_t n) {
    const double ratio = m->ppl / m->ppl_reference;
    const int32_t more = m->loops - m->loops_reference;
    if (n > 0) *why = 0;
    if (m->nonfinite > 0) {
        snprintf(why, n, "%llu logits are not numbers", (unsigned long long)m->nonfinite);
        return SQ_QUALITY_COLLAPSED;
    }
    if (!isfinite(m->ppl_reference) || m->ppl_reference < 1) {
        snprintf(why, n, "the reference has no perplexity (%g)", m->ppl_reference);
        return SQ_QUALITY_UNVERIFIED;
    }
    if (!(ratio <= ratio_degraded)) { /* NaN too */
        snprintf(why, n, "perplexity %.4g, %.4g times the reference's", m->ppl, ratio);
        return SQ_QUALITY_COLLAPSED;
    }
    if (!(m->agreement >= agreement_min)) {
        snprintf(why, n, "first choices agree with the reference's for %.1f %% of tokens",
                 100 * m->agreement);
        return SQ_QUALITY_COLLAPSED;
    }
    if (ratio > ratio_ok && more >= LOOPS_MAX) {
        snprintf(why, n, "%d of %d greedy texts repeat themselves, %d of the reference's", m->loops, m->texts,
                 m->loops_reference);
        return SQ_QUALITY_COLLAPSED;
    }
    snprintf(why, n, "perplexity %.4g times the reference's, first choices agree for %.1f %%, mean KL %.3g",
             ratio, 100 * m->agreement, m->kl);
    return ratio <= ratio_ok ? SQ_QUALITY_OK : SQ_QUALITY_DEGRADED;
}
