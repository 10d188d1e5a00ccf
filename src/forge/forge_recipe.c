/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_recipe.c - the recipe: what each tensor becomes, as a rule over the wish and the source. */
#include "forge/forge_calibration.h"
#include "forge/forge_int.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- methods --------------------------------------------------------------------------------- */

const char *sq_method_name(squish_method m) {
    static const char *const names[] = {"rtn", "lsq", "awq", "gptq", "milo"};
    return (unsigned)m < SQ_COUNT(names) ? names[m] : "?";
}

bool sq_method_needs_calibration(squish_method m) {
    return m == SQUISH_METHOD_AWQ || m == SQUISH_METHOD_GPTQ;
}

bool sq_forge_calibration_path(const char *compressed, const squish_compress_options *o, char *path,
                               size_t n) {
    path[0] = 0;
    if (o->method == SQUISH_METHOD_RTN || o->bits == 8 || o->bits == 1) return false;
    const bool asked = o->calibration && o->calibration[0];
    if (asked) return snprintf(path, n, "%s", o->calibration) < (int)n;
    snprintf(path, n, "%s/calibration.safetensors", compressed);
    if (o->calibration || o->method == SQUISH_METHOD_MILO) return false;
    return sq_os_exists(path);
}

json_t *sq_recipe_json(const squish_compress_options *o, const char *tier, const struct sq_calibration *k) {
    char sum[20] = "";
    if (k) snprintf(sum, sizeof sum, "%016" PRIx64, sq_calibration_sum(k));
    json_t *r = json_pack("{s:s, s:i, s:i, s:s, s:b}", "tier", tier, "bits", o->bits, "group", o->group,
                          "method", sq_method_name(o->method), "requantise", o->requantise);
    if (r && k && json_object_set_new(r, "calibration", json_string(sum)) != 0) goto fail;
    if (r && o->method == SQUISH_METHOD_MILO) {
        if (json_object_set_new(r, "rank", json_integer(o->rank)) != 0) goto fail;
        if (json_object_set_new(r, "rank_bpw", json_real(o->rank > 0 ? 0 : o->rank_bpw)) != 0) goto fail;
    }
    return r;
fail:
    json_decref(r);
    return NULL;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* Parameters below which tables that feed logits stay at 8 bits. */
static const uint64_t SMALL_MODEL = 1000000000;

static sq_recipe quantised(sq_wtype t, sq_scale_type s, sq_quant_method m) {
    return (sq_recipe){.make = SQ_MAKE_QUANTISE, .type = t, .scale = s, .method = m, .reason = "Q"};
}

static sq_recipe copied(sq_wtype t, sq_scale_type s, const char *reason) {
    return (sq_recipe){.make = SQ_MAKE_COPY, .type = t, .scale = s, .method = SQ_QUANT_RTN, .reason = reason};
}

static sq_recipe eight(int32_t group) {
    if (group == 0) return quantised(SQ_W_I8_ROW, SQ_SCALE_F32, SQ_QUANT_RTN);
    return quantised(group == 32 ? SQ_W_I8_G32 : SQ_W_I8_G64, SQ_SCALE_F16, SQ_QUANT_RTN);
}

/* bf16 scales are what MLX stores for bf16 checkpoints, so rtn matches it to the bit; lsq uses f16's finer
 * step. */
static sq_recipe affine(const squish_compress_options *o, int32_t bits) {
    const sq_wtype type = bits == 2        ? SQ_W_I2_G64
                          : bits == 3      ? SQ_W_I3_G64
                          : o->group == 32 ? SQ_W_I4_G32
                                           : SQ_W_I4_G64;
    if (o->method == SQUISH_METHOD_RTN)
        return quantised(type, SQ_SCALE_BF16, SQ_QUANT_RTN);
    return quantised(type, SQ_SCALE_F16, SQ_QUANT_LSQ);
}

/* Weights that come quantised. False: they are to be quantised anew. */
static bool kept(const sq_weight *src, sq_recipe *r) {
    const sq_wtype_info *info = sq_wtype_get((sq_wtype)src->wtype);
    *r = copied((sq_wtype)src->wtype, (sq_scale_type)src->scale_type, "P_POLICY");
    if (info->layout == SQ_LAYOUT_ROWS) return false;
    if (info->layout == SQ_LAYOUT_T16X4) return true;
    if (sq_repack_type(src, &r->type, &r->scale)) {
        r->make = SQ_MAKE_REPACK;
        return true;
    }
    r->type = (sq_wtype)src->wtype;
    return src->wtype != SQ_W_AFFINE;
}

sq_recipe sq_recipe_for(const squish_compress_options *o, const sq_config *c, uint64_t n_params,
                        const sq_want *w, const sq_weight *src) {
    sq_recipe r = copied(SQ_W_F32, SQ_SCALE_F32, w->norm ? "P_NORM" : "P_BIAS");
    if (w->vector) return r;
    if (!o->requantise && kept(src, &r)) return r;
    /* Whom a token chooses flips with the last bits of these, and they are small. */
    const bool router = w->role == SQ_ROLE_ROUTER || w->role == SQ_ROLE_SHARED_SWITCH;
    if (router && sq_wtype_get((sq_wtype)src->wtype)->layout == SQ_LAYOUT_ROWS)
        return copied((sq_wtype)src->wtype, SQ_SCALE_F16, "P_ROUTER");
    const bool table = w->role == SQ_ROLE_EMBED || w->role == SQ_ROLE_HEAD;
    if (!table && (c->ternary || o->bits == 1)) return quantised(SQ_W_T2_ROW, SQ_SCALE_F32, SQ_QUANT_RTN);
    /* What feeds a router is held finer: it is a small share, and each flip is a large error. */
    if (o->bits == 8 && c->moe.n > 0 && !table && w->expert < 0 && o->group == SQ_GROUP) return eight(32);
    if (o->bits == 8) return eight(o->group);
    /* Small, and read by every token: the two forms of one projection stay close to each other. */
    if (w->role == SQ_ROLE_KV_B || w->role == SQ_ROLE_K_B) return eight(SQ_GROUP);
    const bool stays_8 = w->role == SQ_ROLE_EMBED && !c->tied;
    if (table && (stays_8 || n_params < SMALL_MODEL)) return eight(o->group == 32 ? 32 : SQ_GROUP);
    r = affine(o, table ? 4 : o->bits);
    if (!table && o->method == SQUISH_METHOD_GPTQ) r.by = SQ_BY_GPTQ;
    if (!table && !sq_want_is_bare(w) && o->method == SQUISH_METHOD_MILO) r.by = SQ_BY_MILO;
    return r;
}
