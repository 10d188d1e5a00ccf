/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_rules.c - what of a wish does not go together. Each rule refuses before anything is allocated, and names
 * both sides. The numbers are those of the design; rules whose feature is not built yet (R11, R13) are
 * not here, and three hold elsewhere: that no shared column is rewritten (R9: features work on copies,
 * kv_private.c), logprobs beside approximate attention (R16: a job's, sched_job.c), and that a snapshot of
 * another form is a miss (R17: sq_kv_policy_hash). Heads of a d that is no multiple of 16 are padded (R14);
 * the grid of tiles is fixed (R15). */
#include "kv/kv_policy.h"

#include <ctype.h>
#include <stdlib.h>

static bool seals(const sq_kv_wish *w) { return w->kv != SQUISH_KV_F16 && w->kv != SQUISH_KV_F32; }

/* Fewer than 8 bits somewhere without any help by a feature. */
static bool base_below_q8(squish_kv kv) {
    return kv == SQUISH_KV_K8V4 || kv == SQUISH_KV_Q4 || kv == SQUISH_KV_K4V2 || kv == SQUISH_KV_Q2;
}

static bool base_keys_below_q8(squish_kv kv) { return base_below_q8(kv) && kv != SQUISH_KV_K8V4; }

static const char *feature(const sq_kv_wish *w) {
    return w->options->pm         ? "--pm-kvq"
           : w->options->mix      ? "--mix-kvq"
           : w->options->cocktail ? "--cocktail-kv"
                                  : NULL;
}

bool sq_kv_floor_next(const char **at, int32_t *layer, sq_rung *rung) {
    const char *p = *at + (**at == ',');
    char *end;
    if (!isdigit((unsigned char)*p)) return false;
    const long n = strtol(p, &end, 10);
    if (n < 0 || n >= SQ_KV_LAYERS_MAX || *end != ':') return false;
    for (int r = SQ_RUNG_Q2; r <= SQ_RUNG_Q8; r++)
        if (strncmp(end + 1, sq_rung_name((sq_rung)r), 2) == 0 && (end[3] == ',' || end[3] == 0)) {
            *layer = (int32_t)n, *rung = (sq_rung)r, *at = end + 3;
            return true;
        }
    return false;
}

/* ---- windows --------------------------------------------------------------------------------- */

static squish_status check_window(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    const bool below = base_below_q8(w->kv) || feature(w) != NULL;
    if (o->residual < 0 || o->residual % SQ_KV_TILE) /* R10 */
        return sq_fail(err, SQUISH_INVALID, "--kv-residual %d: tiles have %d tokens, it is no multiple",
                       o->residual, SQ_KV_TILE);
    if (o->sink < 0 || o->sink % SQ_KV_TILE)
        return sq_fail(err, SQUISH_INVALID, "--kv-sink %d: tiles have %d tokens, it is no multiple", o->sink,
                       SQ_KV_TILE);
    if (o->residual == 0 && below) /* R10 */
        return sq_fail(err, SQUISH_INVALID,
                       "--kv-residual 0 beside %s%s: fewer than 8 bits right behind the "
                       "last tokens (wanted %d or more)",
                       feature(w) ? feature(w) : "--kv ", feature(w) ? "" : sq_kv_name(w->kv), SQ_KV_TILE);
    return SQUISH_OK;
}

/* ---- MixKVQ ---------------------------------------------------------------------------------- */

static squish_status check_mix(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (!o->mix) return SQUISH_OK;
    if (o->rotate == SQUISH_KV_ROTATE_KEYS) /* R1 */
        return sq_fail(err, SQUISH_INVALID,
                       "--kv-rotate keys beside --mix-kvq: rotation mixes the channels that "
                       "it tells apart");
    if (!base_keys_below_q8(w->kv) && !o->pm && !o->cocktail) /* R2 */
        return sq_fail(err, SQUISH_INVALID,
                       "--mix-kvq beside --kv %s: keys of 8 bits and more have nothing to "
                       "mix (wanted --kv q4, k4v2 or q2, --pm-kvq or --cocktail-kv)",
                       sq_kv_name(w->kv));
    if (w->head_dim > SQ_MIX_D_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--mix-kvq beside heads of %d channels: a tile names them in a byte", w->head_dim);
    return SQUISH_OK;
}

/* ---- CocktailKV, PM-KVQ, floors --------------------------------------------------------------- */

static squish_status check_cocktail(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (!o->cocktail) return SQUISH_OK;
    if (o->cocktail_chunk < SQ_KV_TILE || o->cocktail_chunk % SQ_KV_TILE) /* R3 */
        return sq_fail(err, SQUISH_INVALID, "--cocktail-chunk %d beside tiles of %d tokens: no multiple",
                       o->cocktail_chunk, SQ_KV_TILE);
    if (!(o->cocktail_high >= 0 && o->cocktail_low >= 0 && o->cocktail_high + o->cocktail_low <= 1)) /* R4 */
        return sq_fail(err, SQUISH_INVALID,
                       "--cocktail-high %g beside --cocktail-low %g: shares of one prompt, "
                       "wanted 0 or more and 1 together at most",
                       (double)o->cocktail_high, (double)o->cocktail_low);
    return SQUISH_OK;
}

static squish_status check_pm(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (!o->pm) return SQUISH_OK;
    if (!(0 <= o->pm_age[0] && o->pm_age[0] <= o->pm_age[1] && o->pm_age[1] <= o->pm_age[2]))
        return sq_fail(err, SQUISH_INVALID, "--pm-ages %d,%d,%d: wanted rising ages", o->pm_age[0],
                       o->pm_age[1], o->pm_age[2]);
    if (o->pm_floor != 2 && o->pm_floor != 4)
        return sq_fail(err, SQUISH_INVALID, "--pm-floor %d: wanted 4 or 2 bits", o->pm_floor);
    return SQUISH_OK;
}

static squish_status check_floors(const sq_kv_wish *w, squish_error *err) {
    const char *at = w->options->floors;
    int32_t layer;
    sq_rung rung;
    while (at && *at) {
        if (!sq_kv_floor_next(&at, &layer, &rung))
            return sq_fail(err, SQUISH_INVALID,
                           "--kv-floor: '%.40s' is not LAYER:RUNG (as 0:q8, RUNG one of q2, "
                           "q4, q8)",
                           at);
        if (layer >= w->n_layers)
            return sq_fail(err, SQUISH_INVALID, "--kv-floor: layer %d, the model has %d", layer, w->n_layers);
        if (w->flagged && w->flagged[layer / 64] >> (layer % 64) & 1 && rung < SQ_RUNG_Q8) /* R5 */
            return sq_fail(err, SQUISH_INVALID,
                           "--kv-floor %d:%s beside the key bias of that layer: with fewer "
                           "than 8 bits its keys are lost (wanted %d:q8)",
                           layer, sq_rung_name(rung), layer);
    }
    return SQUISH_OK;
}

/* ---- SnapKV ---------------------------------------------------------------------------------- */

static squish_status check_snap(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (o->snap == 0) return SQUISH_OK;
    if (o->snap < 0 || o->snap % SQ_KV_TILE)
        return sq_fail(err, SQUISH_INVALID, "--snap-kv %d beside tiles of %d tokens: no multiple", o->snap,
                       SQ_KV_TILE);
    if (o->snap_window < SQ_KV_TILE || o->snap_window % SQ_KV_TILE)
        return sq_fail(err, SQUISH_INVALID, "--snap-window %d beside tiles of %d tokens: no multiple",
                       o->snap_window, SQ_KV_TILE);
    if (o->snap <= o->snap_window + o->sink) /* R8 */
        return sq_fail(
            err, SQUISH_INVALID,
            "--snap-kv %d beside --snap-window %d and --kv-sink %d: these stay anyway (wanted %d or "
            "more)",
            o->snap, o->snap_window, o->sink, o->snap_window + o->sink + SQ_KV_TILE);
    if (o->cocktail)
        return sq_fail(
            err, SQUISH_INVALID,
            "--snap-kv beside --cocktail-kv: both go by what the end of a prompt looks at; what one "
            "would keep in 2 bits the other drops");
    if (w->windowed > 0) /* R12 */
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--snap-kv beside layers with a sliding window (the model has %d): what is in sight "
                       "there goes by positions, which the kept tokens of a head do not have in common",
                       w->windowed);
    return SQUISH_OK;
}

/* ---- attention and models ---------------------------------------------------------------------- */

static squish_status check_attention(const sq_kv_wish *w, squish_error *err) {
    const squish_attention *a = w->attention;
    if (a->sage && a->sage_bits != 8 && a->sage_bits != 0) /* R7 */
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--sage-bits %d beside --sage-attention: no processor here "
                       "multiplies fewer than 8 bits (--kv q4 stores keys in 4)",
                       a->sage_bits);
    if ((a->sage || a->sparge) && w->kv != SQUISH_KV_F16)
        return sq_fail(err, SQUISH_INVALID, "%s beside --kv %s: it reads f16 keys (use --kv f16)",
                       a->sage ? "--sage-attention" : "--sparge-attn", sq_kv_name(w->kv));
    return SQUISH_OK;
}

static squish_status check_models(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (o->flash_mla && !w->latent) /* R6 */
        return sq_fail(err, SQUISH_INVALID,
                       "--flash-mla beside a model without latent projections: it is a way "
                       "models are trained, not one to run others");
    return SQUISH_OK;
}

squish_status sq_kv_rules_check(const sq_kv_wish *w, squish_error *err) {
    const squish_kv_options *o = w->options;
    if (o->rotate == SQUISH_KV_ROTATE_KEYS && seals(w) && !o->mix) /* R1 */
        return sq_fail(err, SQUISH_INVALID,
                       "--kv-rotate keys beside --kv %s: keys have a scale per channel, which "
                       "rotation mixes",
                       sq_kv_name(w->kv));
    if (o->rotate == SQUISH_KV_ROTATE_KEYS && !o->mix)
        return sq_fail(err, SQUISH_INVALID,
                       "--kv-rotate keys beside --kv %s: nothing that is rotated is kept", sq_kv_name(w->kv));
    if (w->kv == SQUISH_KV_F32 && (o->snap || o->budget))
        return sq_fail(err, SQUISH_INVALID,
                       "%s beside --kv f32: it is there to verify (wanted another format)",
                       o->snap ? "--snap-kv" : "--kv-budget");
    if (w->kv == SQUISH_KV_F32 && feature(w))
        return sq_fail(err, SQUISH_INVALID,
                       "%s beside --kv f32: it is there to verify (wanted another format)", feature(w));
    SQ_TRY(check_window(w, err));
    SQ_TRY(check_mix(w, err));
    SQ_TRY(check_cocktail(w, err));
    SQ_TRY(check_pm(w, err));
    SQ_TRY(check_floors(w, err));
    SQ_TRY(check_snap(w, err));
    SQ_TRY(check_attention(w, err));
    return check_models(w, err);
}
