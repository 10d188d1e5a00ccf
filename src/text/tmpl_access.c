/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_access.c - a.b, a['b'], a[0] and slices, with Jinja's two orders of looking.
 *
 * A dot looks for an attribute first and an item second, brackets the other way round; so x.items is the
 * method even where the object has a key of that name, and x['items'] the key. A miss is an undefined value
 * that remembers why. */
#include "text/tmpl_int.h"

#include <stdio.h>

static sq_tval missing(const sq_tval *owner, const char *name, size_t n) {
    sq_tval u = sq_tv_undef(SQ_TU_ATTR, name, n);
    u.owner = owner->type;
    return u;
}

/* Attributes proper: methods of built-in types, the fields of a loop. */
static squish_status find_attr(sq_trun *r, const sq_tval *v, const char *name, size_t n, sq_tval *out,
                               bool *found) {
    const char *method;
    bool forbidden = false;
    *found = true;
    if (v->type == SQ_TV_LOOP) {
        SQ_TRY(sq_tmpl_loop_attr(r, v->u.loop, name, n, out, found));
        if (*found) return SQUISH_OK;
    }
    *found = sq_tmpl_method(v, name, n, &method, &forbidden);
    if (!*found) return SQUISH_OK;
    if (forbidden) {
        char text[120];
        int len = snprintf(text, sizeof text, "access to attribute '%.*s' of '%s' object is unsafe.", (int)n,
                           name, sq_tmpl_type_name(v));
        void *kept;
        SQ_TRY(sq_tmpl_alloc(r, (size_t)len, 1, &kept));
        memcpy(kept, text, (size_t)len);
        *out = sq_tv_undef(SQ_TU_HINT, kept, (size_t)len);
        return SQUISH_OK;
    }
    void *m;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tmethod), &m));
    *(sq_tmethod *)m = (sq_tmethod){.self = *v, .name = method};
    *out = sq_tv(SQ_TV_METHOD);
    out->u.method = m;
    return SQUISH_OK;
}

squish_status sq_tmpl_getattr(sq_trun *r, const sq_tval *v, const char *name, size_t n, sq_tval *out) {
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    const sq_tval owner = *v;
    bool found;
    SQ_TRY(find_attr(r, &owner, name, n, out, &found));
    if (found) return SQUISH_OK;
    const sq_tval *item = NULL;
    if (owner.type == SQ_TV_DICT || owner.type == SQ_TV_NAMESPACE) {
        SQ_TRY(sq_tmpl_charge(r, owner.u.dict->n / 4));
        item = sq_tmpl_dict_find_str(owner.u.dict, name, n);
    }
    *out = item ? *item : missing(&owner, name, n);
    return SQUISH_OK;
}

/* "list object has no element 7" */
static squish_status missing_element(sq_trun *r, const sq_tval *owner, const sq_tval *key, sq_tval *out) {
    size_t start = r->scratch.len;
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, sq_tmpl_type_name(owner)));
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, " object has no element "));
    SQ_TRY(sq_tmpl_repr(r, &r->scratch, key, 0));
    SQ_TRY(sq_tmpl_take(r, start, out));
    out->type = SQ_TV_UNDEF;
    out->sub = SQ_TU_HINT;
    return SQUISH_OK;
}

/* Element i (from the end where negative) of a sequence. False: out of range. */
static bool element(const sq_tval *v, int64_t i, sq_tval *out) {
    if (v->type == SQ_TV_STR) {
        if (i < 0) i += (int64_t)sq_utf8_count(v->u.s, v->n);
        if (i < 0) return false;
        size_t at = sq_tmpl_offset(v->u.s, v->n, (uint64_t)i);
        if (at >= v->n) return false;
        *out = sq_tv_str(v->u.s + at, sq_tmpl_offset(v->u.s + at, v->n - at, 1));
        return true;
    }
    int64_t n = v->type == SQ_TV_RANGE ? v->u.range->n : v->u.seq->n;
    if (i < 0) i += n;
    if (i < 0 || i >= n) return false;
    *out = v->type == SQ_TV_RANGE ? sq_tv_int(v->u.range->start + i * v->u.range->step) : v->u.seq->items[i];
    return true;
}

squish_status sq_tmpl_getitem(sq_trun *r, const sq_tval *v, const sq_tval *key, sq_tval *out) {
    const sq_tval owner = *v, k = *key;
    int64_t i;
    if (owner.type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (owner.type == SQ_TV_DICT) {
        sq_tval *found;
        SQ_TRY(sq_tmpl_dict_find(r, owner.u.dict, &k, &found));
        if (found) {
            *out = *found;
            return SQUISH_OK;
        }
    }
    bool is_seq = owner.type == SQ_TV_STR || owner.type == SQ_TV_LIST || owner.type == SQ_TV_TUPLE ||
                  owner.type == SQ_TV_RANGE;
    if (is_seq && sq_tmpl_as_int(&k, &i)) {
        if (owner.type == SQ_TV_STR) SQ_TRY(sq_tmpl_charge(r, owner.n / 16));
        if (element(&owner, i, out)) return SQUISH_OK;
    }
    if (k.type != SQ_TV_STR) return missing_element(r, &owner, &k, out);
    if (owner.type == SQ_TV_NAMESPACE) return sq_tmpl_getattr(r, &owner, k.u.s, k.n, out);
    bool found;
    SQ_TRY(find_attr(r, &owner, k.u.s, k.n, out, &found));
    if (!found) *out = missing(&owner, k.u.s, k.n);
    return SQUISH_OK;
}

/* ---- slices ---------------------------------------------------------------------------------- */

/* One bound as Python clamps it. */
static squish_status slice_bound(sq_trun *r, const sq_tval *v, int64_t n, int64_t step, bool is_start,
                                 int64_t *out) {
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    if (v->type == SQ_TV_UNSET || v->type == SQ_TV_NONE) {
        *out = (step < 0) == is_start ? high : low;
        return SQUISH_OK;
    }
    int64_t i;
    if (!sq_tmpl_as_int(v, &i))
        return sq_tmpl_fail(r, "slice indices must be integers or None or have an __index__ method");
    if (i < 0) i = i < -n ? low : i + n;
    *out = i < low ? low : i > high ? high : i;
    return SQUISH_OK;
}

/* Characters start, start + step, ... of s: `count` of them. */
static squish_status slice_text(sq_trun *r, const sq_tval *s, int64_t start, int64_t step, int64_t count,
                                sq_tval *out) {
    SQ_TRY(sq_tmpl_charge(r, s->n / 16));
    if (step == 1 || count == 0) {
        size_t from = sq_tmpl_offset(s->u.s, s->n, (uint64_t)start);
        *out = sq_tv_str(s->u.s + from, sq_tmpl_offset(s->u.s + from, s->n - from, (uint64_t)count));
        return SQUISH_OK;
    }
    SQ_TRY(sq_tmpl_charge(r, s->n / 2));
    void *offsets; /* of every character, so that any step is a look-up */
    int64_t n = 0;
    SQ_TRY(sq_tmpl_alloc(r, s->n + 1, sizeof(uint32_t), &offsets));
    uint32_t *at = offsets;
    for (size_t pos = 0; pos < s->n; n++) {
        at[n] = (uint32_t)pos;
        pos += sq_tmpl_offset(s->u.s + pos, s->n - pos, 1);
    }
    at[n] = s->n;
    size_t mark = r->scratch.len;
    for (int64_t k = 0, i = start; k < count; k++, i += step)
        SQ_TRY(sq_tmpl_put(r, &r->scratch, s->u.s + at[i], at[i + 1] - at[i]));
    return sq_tmpl_take(r, mark, out);
}

/* a + b * c, wrapping: the ends of an empty or one-element range may lie past the integers, unseen. */
static int64_t wrap_madd(int64_t a, int64_t b, int64_t c) {
    return (int64_t)((uint64_t)a + (uint64_t)b * (uint64_t)c);
}

static squish_status slice_range(sq_trun *r, const sq_trange *g, int64_t start, int64_t stop, int64_t step,
                                 int64_t count, sq_tval *out) {
    void *range;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_trange), &range));
    *(sq_trange *)range = (sq_trange){.start = wrap_madd(g->start, start, g->step),
                                      .stop = wrap_madd(g->start, stop, g->step),
                                      .step = wrap_madd(0, g->step, step), .n = count};
    *out = sq_tv(SQ_TV_RANGE);
    out->u.range = range;
    return SQUISH_OK;
}

squish_status sq_tmpl_slice(sq_trun *r, const sq_tval *v, const sq_tval part[3], sq_tval *out) {
    const sq_tval s = *v;
    if (s.type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (s.type != SQ_TV_STR && s.type != SQ_TV_LIST && s.type != SQ_TV_TUPLE && s.type != SQ_TV_RANGE)
        return s.type == SQ_TV_DICT
                   ? sq_tmpl_fail(r, "unhashable type: 'slice'")
                   : sq_tmpl_fail(r, "'%s' object is not subscriptable", sq_tmpl_type_name(v));
    int64_t n, start, stop, step = 1;
    SQ_TRY(sq_tmpl_len(r, &s, &n));
    if (part[2].type != SQ_TV_UNSET && part[2].type != SQ_TV_NONE && !sq_tmpl_as_int(&part[2], &step))
        return sq_tmpl_fail(r, "slice indices must be integers or None or have an __index__ method");
    if (step == 0) return sq_tmpl_fail(r, "slice step cannot be zero");
    if (step > UINT32_MAX) step = UINT32_MAX; /* past the end either way, and far from overflow */
    if (step < -(int64_t)UINT32_MAX) step = -(int64_t)UINT32_MAX;
    SQ_TRY(slice_bound(r, &part[0], n, step, true, &start));
    SQ_TRY(slice_bound(r, &part[1], n, step, false, &stop));
    int64_t span = step > 0 ? stop - start : start - stop;
    int64_t size = step > 0 ? step : -step;
    int64_t count = span > 0 ? (span + size - 1) / size : 0;
    if (s.type == SQ_TV_STR) return slice_text(r, &s, start, step, count, out);
    if (s.type == SQ_TV_RANGE) return slice_range(r, s.u.range, start, stop, step, count, out);
    SQ_TRY(sq_tmpl_new_seq(r, (sq_tval_type)s.type, (size_t)count, out));
    SQ_TRY(sq_tmpl_charge(r, (uint64_t)count / 4));
    for (int64_t k = 0; k < count; k++) out->u.seq->items[k] = s.u.seq->items[start + k * step];
    out->u.seq->n = (uint32_t)count;
    return SQUISH_OK;
}

/* ---- paths ----------------------------------------------------------------------------------- */

static bool is_number(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return n > 0 && n < 10;
}

squish_status sq_tmpl_getpath(sq_trun *r, const sq_tval *v, const sq_tval *path, const sq_tval *dflt,
                              sq_tval *out) {
    *out = *v;
    if (path->type == SQ_TV_UNSET || path->type == SQ_TV_NONE) return SQUISH_OK;
    bool is_str = path->type == SQ_TV_STR;
    const char *s = is_str ? path->u.s : "", *end = s + (is_str ? path->n : 0);
    for (bool more = true; more;) {
        sq_tval key = *path;
        more = false;
        if (is_str) {
            const char *dot = s < end ? memchr(s, '.', (size_t)(end - s)) : NULL;
            size_t n = (size_t)((dot ? dot : end) - s);
            key = sq_tv_str(s, n);
            if (is_number(s, n)) {
                int64_t i = 0;
                for (size_t k = 0; k < n; k++) i = i * 10 + (s[k] - '0');
                key = sq_tv_int(i);
            }
            more = dot != NULL;
            s += n + 1;
        }
        SQ_TRY(sq_tmpl_getitem(r, out, &key, out));
        bool use_default = out->type == SQ_TV_UNDEF && dflt->type != SQ_TV_UNSET && dflt->type != SQ_TV_NONE;
        if (use_default) *out = *dflt;
    }
    return SQUISH_OK;
}
