/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_plan.c - the choice of a tier (see forge_plan.h). */
#include "forge/forge_plan.h"

#include <stdio.h>

static const double DEFAULT_MIN_TOK_S = 8;

uint64_t sq_plan_need(const sq_plan_input *in, const sq_plan_tier *t) {
    const uint64_t margin = t->weight_bytes / 20 > 256000000 ? t->weight_bytes / 20 : 256000000;
    return t->weight_bytes + in->kv_bytes + in->scratch_bytes + 64000000 + margin;
}

double sq_plan_tok_s(const sq_plan_input *in, const sq_plan_tier *t) {
    return t->token_bytes ? 0.8 * in->read_gb_s * 1e9 / (double)t->token_bytes : 0;
}

static uint64_t usable_of(const sq_plan_input *in) { return in->available / 10 * 9; }

static bool fits(const sq_plan_input *in, const sq_plan_tier *t) {
    return t->ready && sq_plan_need(in, t) <= usable_of(in);
}

/* Is a the better choice? Both fit. */
static bool better(const sq_plan_input *in, const sq_plan_tier *a, const sq_plan_tier *b) {
    const double floor = in->min_tok_s > 0 ? in->min_tok_s : DEFAULT_MIN_TOK_S;
    const double fast_a = sq_plan_tok_s(in, a), fast_b = sq_plan_tok_s(in, b);
    if (in->policy == SQ_PLAN_SMALL && (a->tier == SQUISH_TIER_0) != (b->tier == SQUISH_TIER_0))
        return a->tier == SQUISH_TIER_0;
    if (in->policy == SQ_PLAN_BALANCED && (fast_a >= floor) != (fast_b >= floor)) return fast_a >= floor;
    if (in->policy == SQ_PLAN_BALANCED && fast_a < floor) return fast_a > fast_b;
    return a->fidelity > b->fidelity;
}

static int32_t smallest(const sq_plan_input *in) {
    int32_t best = -1;
    for (int32_t i = 0; i < in->n; i++)
        if (in->tiers[i].ready && (best < 0 || in->tiers[i].weight_bytes < in->tiers[best].weight_bytes))
            best = i;
    return best;
}

void sq_plan_decide(const sq_plan_input *in, sq_plan *out) {
    static const char *const policies[] = {"balanced", "quality", "small"};
    *out = (sq_plan){.index = -1, .usable = usable_of(in)};
    for (int32_t i = 0; i < in->n; i++)
        if (fits(in, &in->tiers[i]) && (out->index < 0 || better(in, &in->tiers[i], &in->tiers[out->index])))
            out->index = i;
    const int32_t shown = out->index >= 0 ? out->index : smallest(in);
    if (shown < 0) {
        snprintf(out->line, sizeof out->line, "no tier is ready");
        return;
    }
    const sq_plan_tier *t = &in->tiers[shown];
    out->need = sq_plan_need(in, t);
    out->tok_s = sq_plan_tok_s(in, t);
    const int n =
        snprintf(out->line, sizeof out->line,
                 "tier %s%s: needs %.2f GB (weights %.2f, cache %.2f, scratch %.2f), may use %.2f of %.2f "
                 "GB; about %.*f tok/s at %.3g GB/s; %s",
                 t->name, out->index >= 0 ? "" : " does not fit", (double)out->need / 1e9,
                 (double)t->weight_bytes / 1e9, (double)in->kv_bytes / 1e9, (double)in->scratch_bytes / 1e9,
                 (double)out->usable / 1e9, (double)in->available / 1e9, out->tok_s < 100, out->tok_s,
                 in->read_gb_s, policies[in->policy]);
    (void)n;
}
