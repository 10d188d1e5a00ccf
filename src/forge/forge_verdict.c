/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_verdict.c - the last step before a build gets its name: what was made is run, measured and judged.
 *
 * Nobody here asks how many bits there are or which method made them; tiers whose weights come out of 16
 * codes or fewer are measured because only they ever collapse, and every one of them is. */
#include "forge/forge_int.h"
#include "forge/forge_methods.h"

#include <math.h>
#include <stdio.h>

_Static_assert((int)SQUISH_QUALITY_OK == (int)SQ_QUALITY_OK &&
                   (int)SQUISH_QUALITY_COLLAPSED == (int)SQ_QUALITY_COLLAPSED &&
                   (int)SQUISH_QUALITY_UNVERIFIED == (int)SQ_QUALITY_UNVERIFIED &&
                   (int)SQUISH_QUALITY_DEGRADED == (int)SQ_QUALITY_DEGRADED,
               "one list, two names");

/* Figures go into JSON, which has no NaN. */
static double figure(double x) { return isfinite(x) ? x : 0; }

static void take(squish_compress_result *out, const sq_quality_measure *m) {
    out->ppl_ratio = m->ppl_reference > 0 ? figure(m->ppl / m->ppl_reference) : 0;
    out->agreement = figure(m->agreement);
    out->kl = figure(m->kl);
}

squish_status sq_forge_verdict(sq_forge_job *j, const char *file, sq_quality_flag *quality,
                               squish_error *err) {
    squish_compress_result *out = j->out;
    *quality = SQ_QUALITY_UNVERIFIED;
    out->quality = SQUISH_QUALITY_UNVERIFIED;
    if (j->o->tier != SQUISH_TIER_0 || j->o->unchecked || !j->measure) return SQUISH_OK;
    if (!j->m->tok) {
        snprintf(out->verdict, sizeof out->verdict, "not measured: the model has no tokenizer");
        return SQUISH_OK;
    }
    sq_quality_measure m = {0};
    const uint64_t begin = sq_os_now_ns();
    const squish_status st = j->measure(j->measure_user, file, j->m, &m, err);
    out->check_seconds = (double)(sq_os_now_ns() - begin) / 1e9;
    SQ_TRY(st);
    *quality = sq_quality_judge(&m, out->verdict, sizeof out->verdict);
    out->quality = (squish_quality)*quality;
    take(out, &m);
    if (*quality != SQ_QUALITY_COLLAPSED || j->o->allow_collapsed) return SQUISH_OK;
    return sq_fail(err, SQUISH_QUALITY,
                   "%s: what came out is useless: %s (compress to more bits or with --method milo; "
                   "--allow-collapsed keeps it)",
                   j->m->info.path, out->verdict);
}
