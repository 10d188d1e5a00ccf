/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_plan.h - which tier of a model to run on this machine: a pure function of sizes and one measured
 * rate.
 *
 * available is memory that can be had now (cgroup and rlimits included), never what the machine has in all.
 * need(tier) = weights + cache + scratch + 64 MB + max(256 MB, 5 % of the weights), and a tier fits if its
 * need is at most 9 tenths of what is available. A token costs at least the reading of the weights it
 * touches, so the speed expected is 8 tenths of the read rate over those bytes. */
#ifndef SQ_FORGE_PLAN_H
#define SQ_FORGE_PLAN_H

#include "base/base.h"

enum { SQ_PLAN_TIERS_MAX = 8 };

typedef struct {
    squish_tier tier;
    const char *name; /* "0", "q8", "1", "source" */
    bool ready;
    uint64_t weight_bytes;
    uint64_t token_bytes; /* of weights, read for one token */
    int32_t fidelity;     /* higher is closer to the checkpoint */
} sq_plan_tier;

/* BALANCED: the highest fidelity that fits and reaches min_tok_s, else the fastest that fits; QUALITY: the
 * highest fidelity that fits; SMALL: tier 0. */
typedef enum { SQ_PLAN_BALANCED, SQ_PLAN_QUALITY, SQ_PLAN_SMALL } sq_plan_policy;

typedef struct {
    uint64_t available, kv_bytes, scratch_bytes;
    double read_gb_s; /* of memory, by all threads */
    double min_tok_s; /* 0: 8 */
    sq_plan_policy policy;
    sq_plan_tier tiers[SQ_PLAN_TIERS_MAX];
    int32_t n;
} sq_plan_input;

typedef struct {
    int32_t index;         /* into tiers; -1: nothing fits */
    uint64_t need, usable; /* of the chosen one, or of the smallest */
    double tok_s;
    char line[400]; /* the decision with its terms, one line */
} sq_plan;

uint64_t sq_plan_need(const sq_plan_input *in, const sq_plan_tier *t);
double sq_plan_tok_s(const sq_plan_input *in, const sq_plan_tier *t);
/* Only ready tiers are looked at. Among equals the earlier one wins. */
void sq_plan_decide(const sq_plan_input *in, sq_plan *out);

#endif
