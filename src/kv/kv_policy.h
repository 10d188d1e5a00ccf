/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_policy.h - one policy for the whole cache: what every feature has to say about a tile, in one struct,
 * and the one function that makes a format of it.
 *
 *   wish   what was asked for: a format (--kv), options of features, and facts of the model
 *            |  sq_kv_rules_check: what does not go together is refused by the names of both
 *   policy   what an engine does, decided once
 *            |  at events: a tile leaves the residual window, a prompt ends, a threshold is crossed
 *   votes    what each feature says of one tile, each in a field of its own
 *            |  sq_kv_merge
 *   rung     how many bits, for all layers of the tile; a layer may have a floor (sq_kv_form_of)
 *
 * Precision only goes down. While a prompt is read its tiles are *canonical*: open or in the form of the
 * policy, a function of the tokens alone, and may be shared. Behind its end votes make *private* tiles, which
 * no other sequence reads. */
#ifndef SQ_KV_POLICY_H
#define SQ_KV_POLICY_H

#include "quant/quant_mix.h"

enum { SQ_KV_LAYERS_MAX = 1024 };

/* Bits of a tile. More is higher; NONE: no private form. */
typedef enum { SQ_RUNG_NONE, SQ_RUNG_Q2, SQ_RUNG_Q4, SQ_RUNG_Q8, SQ_RUNG_F16, SQ_RUNGS } sq_rung;
const char *sq_rung_name(sq_rung r); /* "q2" .. "f16"; "none" */

/* Formats of keys and values of a sealed tile. */
typedef struct {
    sq_kv_format k, v;
} sq_kv_form;

/* Decided once, when the pool is made. {.open = SQ_KV_F16} alone: nothing is ever sealed. */
typedef struct {
    /* Canonical tiles. */
    sq_kv_format open; /* F16, F32 */
    bool seals;        /* old tiles are sealed, as k and v say */
    sq_kv_format k, v;
    bool rotate_v;                           /* values are kept in a Walsh-Hadamard basis */
    int32_t step_tokens;                     /* most tokens of one step: they are all open at once */
    sq_kv_window window;                     /* what is read open */
    uint64_t k_floor[SQ_KV_LAYERS_MAX / 64]; /* bit of a layer: its keys take Q8 at least (flagged) */

    /* Private tiles, behind the end of a prompt. */
    bool votes;                      /* some feature below changes tiles there; else all stays canonical */
    sq_rung base;                    /* of tiles nobody votes on: what --kv says */
    sq_kv_format v_most;             /* values of private tiles take no more than this; F16: Q8 */
    uint8_t floor[SQ_KV_LAYERS_MAX]; /* least sq_rung of a layer, keys and values */
    struct {
        bool on;
        int32_t age[3]; /* from which on Q8, Q4, floor */
        sq_rung floor;
        uint64_t budget; /* bytes of a sequence behind its prompt; 0: none */
    } pm;
    uint64_t budget; /* bytes of the pool: where they are short tiles go down to pm.floor; 0: they do not */
    bool mix; /* keys of Q4 and Q2 have channels in classes (quant_mix.h) */
    struct {
        bool on, embed;
        float high, low;
        int32_t chunk; /* tiles */
    } cocktail;
    struct {
        int32_t tiles;  /* that stay of a prompt; 0: all (SnapKV is off) */
        int32_t window; /* the last ones among them, whose queries judge */
    } snap;
} sq_kv_policy;

/* What squish_kv_name and squish_kv_from_name are; and a format of the enum, without options and floors. */
const char *sq_kv_name(squish_kv kv);
bool sq_kv_from_name(const char *name, squish_kv *out);
sq_kv_policy sq_kv_policy_of(squish_kv kv);
/* Add what options say to a policy of sq_kv_policy_of(kv). They have passed sq_kv_rules_check. */
void sq_kv_policy_add(sq_kv_policy *p, squish_kv kv, const squish_kv_options *o);
/* Formats of canonical sealed keys and values of a layer. */
sq_kv_format sq_kv_policy_k(const sq_kv_policy *p, int32_t layer);
sq_kv_format sq_kv_policy_v(const sq_kv_policy *p, int32_t layer);
/* A number that differs where canonical pages differ. */
uint64_t sq_kv_policy_hash(const sq_kv_policy *p);

/* ---- votes ----------------------------------------------------------------------------------- */

/* What is said of one tile. A field belongs to the feature that is named; zero: it says nothing. */
typedef struct {
    int32_t age;      /* tokens between its last one and the next of the sequence */
    bool pinned;      /* sink, residual or observation window: nobody changes it */
    int8_t relevance; /* Cocktail, of tiles of the prompt: 1 high, -1 low; 0 between */
    bool judged;      /* Cocktail has looked at it */
} sq_kv_votes;

/* PM-KVQ's rung for an age (Liu et al., arXiv:2505.18610, as a ladder of ages). */
static inline sq_rung sq_kv_ladder(const sq_kv_policy *p, int32_t age) {
    return age < p->pm.age[0]   ? SQ_RUNG_F16
           : age < p->pm.age[1] ? SQ_RUNG_Q8
           : age < p->pm.age[2] ? SQ_RUNG_Q4
                                : p->pm.floor;
}
/* The one rule. Never above `now`, what the tile has already: precision only goes down. */
sq_rung sq_kv_merge(const sq_kv_policy *p, const sq_kv_votes *v, sq_rung now);
/* Formats of a layer of a tile on a rung between Q2 and Q8. */
sq_kv_form sq_kv_form_of(const sq_kv_policy *p, sq_rung r, int32_t layer);
/* ---- what does not go together (kv_rules.c) --------------------------------------------------- */

/* All that is asked for, and what is known of the model. Zero: not asked for. */
typedef struct {
    squish_kv kv;
    const squish_kv_options *options;
    const squish_attention *attention;
    int32_t n_layers, head_dim;
    bool latent;             /* attention on latents */
    int32_t windowed;        /* layers with a sliding window */
    const uint64_t *flagged; /* [n_layers / 64] layers whose key bias forbids fewer than 8 bits */
} sq_kv_wish;
/* INVALID or UNSUPPORTED, with the names of both options. */
squish_status sq_kv_rules_check(const sq_kv_wish *w, squish_error *err);
/* The next "LAYER:RUNG" of options.floors at *at, which moves behind it. False: none is left, or it is not
 * one: then *at stays. */
bool sq_kv_floor_next(const char **at, int32_t *layer, sq_rung *rung);

#endif
