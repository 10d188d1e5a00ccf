/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_iter.c - walking over what Python iterates: lists, texts, keys of objects, ranges, generators.
 *
 * A generator holds items computed ahead but is used up like Python's: what was taken once is gone. */
#include "text/tmpl_int.h"

bool sq_tmpl_is_iterable(const sq_tval *v) {
    switch (v->type) {
        case SQ_TV_UNDEF:
        case SQ_TV_STR:
        case SQ_TV_LIST:
        case SQ_TV_TUPLE:
        case SQ_TV_DICT:
        case SQ_TV_RANGE:
        case SQ_TV_GENERATOR:
        case SQ_TV_VIEW: return true;
        default: return false;
    }
}

squish_status sq_tmpl_iter(sq_trun *r, const sq_tval *v, sq_titer *it) {
    if (!sq_tmpl_is_iterable(v)) return sq_tmpl_fail(r, "'%s' object is not iterable", sq_tmpl_type_name(v));
    *it = (sq_titer){.src = *v};
    return SQUISH_OK;
}

static squish_status next_of_view(sq_trun *r, const sq_tpair *pair, int which, sq_tval *out) {
    if (which == 2) return sq_tmpl_pair(r, &pair->key, &pair->value, out);
    *out = which == 0 ? pair->key : pair->value;
    return SQUISH_OK;
}

/* One code point, viewed. */
static void next_char(sq_titer *it, sq_tval *out) {
    uint32_t cp;
    const char *s = it->src.u.s + it->pos;
    size_t n = sq_utf8_decode(s, it->src.n - it->pos, &cp, NULL);
    *out = sq_tv_str(s, n);
    it->pos += n;
}

squish_status sq_tmpl_next(sq_trun *r, sq_titer *it, sq_tval *out, bool *has) {
    const sq_tval *v = &it->src;
    SQ_TRY(sq_tmpl_charge(r, 1));
    switch (v->type) {
        case SQ_TV_STR:
            *has = it->pos < v->n;
            if (*has) next_char(it, out);
            return SQUISH_OK;
        case SQ_TV_LIST:
        case SQ_TV_TUPLE:
            *has = it->pos < v->u.seq->n;
            if (*has) *out = v->u.seq->items[it->pos++];
            return SQUISH_OK;
        case SQ_TV_GENERATOR:
            *has = v->u.seq->taken < v->u.seq->n;
            if (*has) *out = v->u.seq->items[v->u.seq->taken++];
            return SQUISH_OK;
        case SQ_TV_DICT:
        case SQ_TV_VIEW:
            *has = it->pos < v->u.dict->n;
            return *has ? next_of_view(r, &v->u.dict->items[it->pos++], v->type == SQ_TV_VIEW ? v->sub : 0,
                                       out)
                        : SQUISH_OK;
        case SQ_TV_RANGE:
            *has = (int64_t)it->pos < v->u.range->n;
            if (*has) *out = sq_tv_int(v->u.range->start + (int64_t)it->pos++ * v->u.range->step);
            return SQUISH_OK;
        default: *has = false; return SQUISH_OK;
    }
}

/* A new list, tuple or generator of everything v gives. */
squish_status sq_tmpl_to_seq(sq_trun *r, const sq_tval *v, sq_tval_type type, sq_tval *out) {
    sq_titer it;
    sq_tval seq, item;
    int64_t n = 0;
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    if (v->type != SQ_TV_GENERATOR) SQ_TRY(sq_tmpl_len(r, v, &n));
    SQ_TRY(sq_tmpl_new_seq(r, type, (size_t)n, &seq));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        SQ_TRY(sq_tmpl_seq_push(r, seq.u.seq, &item));
    }
    *out = seq;
    return SQUISH_OK;
}

/* Last to first; what has no end to start from (generators) is refused, as Python does. */
squish_status sq_tmpl_reversed(sq_trun *r, const sq_tval *v, sq_tval *out) {
    if (v->type == SQ_TV_GENERATOR || !sq_tmpl_is_iterable(v))
        return sq_tmpl_fail(r, "'%s' object is not reversible", sq_tmpl_type_name(v));
    sq_tval seq;
    SQ_TRY(sq_tmpl_to_seq(r, v, SQ_TV_GENERATOR, &seq));
    for (uint32_t i = 0, j = seq.u.seq->n; i + 1 < j; i++) {
        sq_tval keep = seq.u.seq->items[i];
        seq.u.seq->items[i] = seq.u.seq->items[--j];
        seq.u.seq->items[j] = keep;
    }
    *out = seq;
    return SQUISH_OK;
}
