/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_recipe.c - the recipe: what each tensor becomes, as a rule over the wish and the source. */
#include "forge/forge_int.h"

/* Parameters below which tables that feed logits stay at 8 bits. */
static const uint64_t SMALL_MODEL = 1000000000;

static sq_recipe eight(int32_t group) {
    if (group == 0) return (sq_recipe){SQ_MAKE_QUANTISE, SQ_W_I8_ROW, SQ_SCALE_F32, SQ_QUANT_RTN, "Q"};
    return (sq_recipe){SQ_MAKE_QUANTISE, group == 32 ? SQ_W_I8_G32 : SQ_W_I8_G64, SQ_SCALE_F16, SQ_QUANT_RTN,
                       "Q"};
}

/* bf16 scales are what MLX stores for bf16 checkpoints, so rtn matches it to the bit; lsq uses f16's finer
 * step. */
static sq_recipe affine(const squish_compress_options *o, int32_t bits) {
    const sq_wtype type = bits == 2        ? SQ_W_I2_G64
                          : bits == 3      ? SQ_W_I3_G64
                          : o->group == 32 ? SQ_W_I4_G32
                                           : SQ_W_I4_G64;
    if (o->method == SQUISH_METHOD_RTN)
        return (sq_recipe){SQ_MAKE_QUANTISE, type, SQ_SCALE_BF16, SQ_QUANT_RTN, "Q"};
    return (sq_recipe){SQ_MAKE_QUANTISE, type, SQ_SCALE_F16, SQ_QUANT_LSQ, "Q"};
}

/* Weights that come quantised. False: they are to be quantised anew. */
static bool kept(const sq_weight *src, sq_recipe *r) {
    const sq_wtype_info *info = sq_wtype_get((sq_wtype)src->wtype);
    *r = (sq_recipe){SQ_MAKE_COPY, (sq_wtype)src->wtype, (sq_scale_type)src->scale_type, SQ_QUANT_RTN,
                     "P_POLICY"};
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
    sq_recipe r = {SQ_MAKE_COPY, SQ_W_F32, SQ_SCALE_F32, SQ_QUANT_RTN, w->norm ? "P_NORM" : "P_BIAS"};
    if (w->vector) return r;
    if (!o->requantise && kept(src, &r)) return r;
    const bool table = w->role == SQ_ROLE_EMBED || w->role == SQ_ROLE_HEAD;
    if (!table && (c->ternary || o->bits == 1))
        return (sq_recipe){SQ_MAKE_QUANTISE, SQ_W_T2_ROW, SQ_SCALE_F32, SQ_QUANT_RTN, "Q"};
    if (o->bits == 8) return eight(o->group);
    const bool stays_8 = w->role == SQ_ROLE_EMBED && !c->tied;
    if (table && (stays_8 || n_params < SMALL_MODEL)) return eight(o->group == 32 ? 32 : SQ_GROUP);
    return affine(o, table ? 4 : o->bits);
}
