/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_seq_filters.c - filters that walk over a sequence: map, select, sort, join and their like.
 *
 * What is a generator in Jinja is one here: it can be walked over once and has no length and no index, so a
 * template that works here works there. */
#include "text/tmpl_int.h"

static bool given(const sq_tval *v) { return v->type != SQ_TV_UNSET && v->type != SQ_TV_NONE; }
static bool flag(const sq_tval *v) { return v->type != SQ_TV_UNSET && sq_tmpl_truth(v); }

static squish_status f_list(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_to_seq(r, v, SQ_TV_LIST, out);
}

static squish_status f_items(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_new_seq(r, SQ_TV_GENERATOR, 0, out);
    if (v->type != SQ_TV_DICT) return sq_tmpl_fail(r, "Can only get item pairs from a mapping.");
    sq_tval view = {.type = SQ_TV_VIEW, .sub = 2, .u.dict = v->u.dict};
    return sq_tmpl_to_seq(r, &view, SQ_TV_GENERATOR, out);
}

static squish_status f_join(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_titer it;
    const sq_tval none = sq_tv(SQ_TV_UNSET);
    sq_tval item, sep = sq_tv_str("", 0);
    if (arg[0].type != SQ_TV_UNSET) SQ_TRY(sq_tmpl_to_str(r, &arg[0], &sep));
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    size_t mark = r->scratch.len;
    for (bool first = true, has;; first = false) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        if (given(&arg[1])) SQ_TRY(sq_tmpl_getpath(r, &item, &arg[1], &none, &item));
        if (!first) SQ_TRY(sq_tmpl_put(r, &r->scratch, sep.u.s, sep.n));
        SQ_TRY(sq_tmpl_print(r, &r->scratch, &item));
    }
    return sq_tmpl_take(r, mark, out);
}

static squish_status f_first(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    static const char hint[] = "No first item, sequence was empty.";
    sq_titer it;
    bool has;
    (void)arg;
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    SQ_TRY(sq_tmpl_next(r, &it, out, &has));
    if (!has) *out = sq_tv_undef(SQ_TU_HINT, hint, sizeof hint - 1);
    return SQUISH_OK;
}

static squish_status f_last(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    static const char hint[] = "No last item, sequence was empty.";
    (void)arg;
    sq_tval seq;
    SQ_TRY(sq_tmpl_reversed(r, v, &seq));
    *out = seq.u.seq->n > 0 ? seq.u.seq->items[0] : sq_tv_undef(SQ_TU_HINT, hint, sizeof hint - 1);
    return SQUISH_OK;
}

static squish_status f_reverse(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval backwards[3] = {{0}, {0}, sq_tv_int(-1)};
    (void)arg;
    if (v->type == SQ_TV_STR) return sq_tmpl_slice(r, v, backwards, out);
    if (v->type != SQ_TV_GENERATOR) return sq_tmpl_reversed(r, v, out);
    sq_tval list;
    SQ_TRY(sq_tmpl_to_seq(r, v, SQ_TV_LIST, &list));
    SQ_TRY(sq_tmpl_reversed(r, &list, out));
    out->type = SQ_TV_LIST; /* Jinja reverses a generator into a list */
    return SQUISH_OK;
}

/* ---- map, select, reject --------------------------------------------------------------------- */

static squish_status check_name(sq_trun *r, const sq_tval *name, const char *what) {
    return sq_tmpl_want_str(r, name, what);
}

/* map(attribute='a.b', default=x) */
static squish_status map_attribute(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    const sq_tval *path = NULL;
    sq_tval dflt = sq_tv(SQ_TV_UNSET), item;
    for (uint32_t i = 0; i < args->n_kw; i++) {
        if (sq_tv_is(&args->kw[i].key, "attribute")) path = &args->kw[i].value;
        else if (sq_tv_is(&args->kw[i].key, "default")) dflt = args->kw[i].value;
        else
            return sq_tmpl_fail(r, "Unexpected keyword argument '%.*s'", (int)args->kw[i].key.n,
                                args->kw[i].key.u.s);
    }
    if (!path) return sq_tmpl_fail(r, "map requires a filter argument");
    sq_titer it;
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) return SQUISH_OK;
        SQ_TRY(sq_tmpl_getpath(r, &item, path, &dflt, &item));
        SQ_TRY(sq_tmpl_seq_push(r, out->u.seq, &item));
    }
}

static squish_status f_map(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    const sq_tval in = *v;
    sq_tval item, made;
    sq_titer it;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_GENERATOR, 0, &made));
    *out = made;
    if (!sq_tmpl_truth(&in)) return SQUISH_OK; /* nothing to map, and no complaint about what it is */
    if (args->n_pos == 0) return map_attribute(r, &in, args, &made);
    SQ_TRY(check_name(r, &args->pos[0], "the filter's name"));
    const sq_targs rest = {
        .pos = args->pos + 1, .n_pos = args->n_pos - 1, .kw = args->kw, .n_kw = args->n_kw};
    SQ_TRY(sq_tmpl_iter(r, &in, &it));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) return SQUISH_OK;
        SQ_TRY(sq_tmpl_filter(r, args->pos[0].u.s, args->pos[0].n, &item, &rest, &item));
        SQ_TRY(sq_tmpl_seq_push(r, made.u.seq, &item));
    }
}

/* Items whose value (or attribute) passes the test named next, or is true where none is. */
static squish_status select_items(sq_trun *r, const sq_tval *v, const sq_targs *args, bool by_attr, bool keep,
                                  sq_tval *out) {
    const sq_tval in = *v, none = sq_tv(SQ_TV_UNSET);
    uint32_t off = by_attr;
    sq_tval item, probe, made;
    sq_titer it;
    if (args->n_pos < off) return sq_tmpl_fail(r, "Missing parameter for attribute name");
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_GENERATOR, 0, &made));
    *out = made;
    if (!sq_tmpl_truth(&in)) return SQUISH_OK;
    bool has_test = args->n_pos > off;
    if (has_test) SQ_TRY(check_name(r, &args->pos[off], "the test's name"));
    const uint32_t used = off + has_test;
    const sq_targs rest = {.pos = used ? args->pos + used : NULL, .n_pos = args->n_pos - used, .kw = args->kw,
                           .n_kw = args->n_kw};
    SQ_TRY(sq_tmpl_iter(r, &in, &it));
    for (bool has, pass;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) return SQUISH_OK;
        probe = item;
        if (by_attr) SQ_TRY(sq_tmpl_getpath(r, &item, &args->pos[0], &none, &probe));
        pass = sq_tmpl_truth(&probe);
        if (has_test) SQ_TRY(sq_tmpl_test(r, args->pos[off].u.s, args->pos[off].n, &probe, &rest, &pass));
        if (pass == keep) SQ_TRY(sq_tmpl_seq_push(r, made.u.seq, &item));
    }
}

static squish_status f_select(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    return select_items(r, v, args, false, true, out);
}
static squish_status f_reject(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    return select_items(r, v, args, false, false, out);
}
static squish_status f_selectattr(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    return select_items(r, v, args, true, true, out);
}
static squish_status f_rejectattr(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    return select_items(r, v, args, true, false, out);
}

/* ---- order ----------------------------------------------------------------------------------- */

/* What an item is compared by: its attribute, in lower case where texts compare without case. */
static squish_status sort_key(sq_trun *r, const sq_tval *item, const sq_tval *path, bool with_case,
                              sq_tval *out) {
    const sq_tval none = sq_tv(SQ_TV_UNSET);
    SQ_TRY(sq_tmpl_getpath(r, item, path, &none, out));
    return out->type == SQ_TV_STR && !with_case ? sq_tmpl_recase(r, SQ_TCASE_LOWER, out, out) : SQUISH_OK;
}

/* The key of "a,b": a list with one key per name. A single key is a list, too: lists compare their items for
 * equality before order, and so two items without the attribute may stand in one list. */
static squish_status multi_key(sq_trun *r, const sq_tval *item, const sq_tval *paths, bool with_case,
                               sq_tval *out) {
    sq_tval key;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, 1, out));
    if (paths->type != SQ_TV_STR) {
        SQ_TRY(sort_key(r, item, paths, with_case, &key));
        return sq_tmpl_seq_push(r, out->u.seq, &key);
    }
    const char *s = paths->u.s, *end = s + paths->n;
    for (const char *comma; s <= end; s = comma + 1) {
        comma = s < end ? memchr(s, ',', (size_t)(end - s)) : NULL;
        if (!comma) comma = end;
        const sq_tval path = sq_tv_str(s, (size_t)(comma - s));
        SQ_TRY(sort_key(r, item, &path, with_case, &key));
        SQ_TRY(sq_tmpl_seq_push(r, out->u.seq, &key));
    }
    return SQUISH_OK;
}

/* list, in the order of its keys. */
static squish_status sorted(sq_trun *r, const sq_tseq *list, const sq_tval *keys, bool reverse,
                            sq_tval *out) {
    void *perm;
    SQ_TRY(sq_tmpl_alloc(r, list->n, sizeof(uint32_t), &perm));
    SQ_TRY(sq_tmpl_sort(r, keys, list->n, reverse, perm));
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, list->n, out));
    for (uint32_t i = 0; i < list->n; i++) out->u.seq->items[i] = list->items[((uint32_t *)perm)[i]];
    out->u.seq->n = list->n;
    return SQUISH_OK;
}

static squish_status f_sort(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_tval list;
    void *keys;
    SQ_TRY(sq_tmpl_to_seq(r, v, SQ_TV_LIST, &list));
    uint32_t n = list.u.seq->n;
    SQ_TRY(sq_tmpl_alloc(r, n, sizeof(sq_tval), &keys));
    for (uint32_t i = 0; i < n; i++)
        SQ_TRY(multi_key(r, &list.u.seq->items[i], &arg[2], flag(&arg[1]), &((sq_tval *)keys)[i]));
    return sorted(r, list.u.seq, keys, flag(&arg[0]), out);
}

static squish_status f_dictsort(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    bool by_value = sq_tv_is(&arg[1], "value");
    const sq_tval which = sq_tv_int(by_value);
    if (given(&arg[1]) && !by_value && !sq_tv_is(&arg[1], "key"))
        return sq_tmpl_fail(r, "You can only sort by either \"key\" or \"value\"");
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (v->type != SQ_TV_DICT)
        return sq_tmpl_fail(r, "'%s' object has no attribute 'items'", sq_tmpl_type_name(v));
    const sq_tval view = {.type = SQ_TV_VIEW, .sub = 2, .u.dict = v->u.dict};
    const sq_tval args[3] = {arg[2], arg[0], which};
    return f_sort(r, &view, args, out);
}

static squish_status f_unique(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_titer it;
    sq_tval item, key, seen, made;
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_GENERATOR, 0, &made));
    SQ_TRY(sq_tmpl_new_dict(r, SQ_TV_DICT, 0, &seen));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        SQ_TRY(sort_key(r, &item, &arg[1], flag(&arg[0]), &key));
        uint32_t before = seen.u.dict->n;
        SQ_TRY(sq_tmpl_dict_put(r, seen.u.dict, &key, &key));
        if (seen.u.dict->n > before) SQ_TRY(sq_tmpl_seq_push(r, made.u.seq, &item));
    }
    *out = made;
    return SQUISH_OK;
}

static squish_status extreme(sq_trun *r, const sq_tval *v, const sq_tval *arg, bool largest, sq_tval *out) {
    static const char hint[] = "No aggregated item, sequence was empty.";
    sq_titer it;
    sq_tval item, key, best_key = sq_tv(SQ_TV_UNSET), best = sq_tv_undef(SQ_TU_HINT, hint, sizeof hint - 1);
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    for (bool has, better = true;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        SQ_TRY(sort_key(r, &item, &arg[1], flag(&arg[0]), &key));
        if (best_key.type != SQ_TV_UNSET)
            SQ_TRY(largest ? sq_tmpl_less(r, ">", &best_key, &key, &better)
                           : sq_tmpl_less(r, "<", &key, &best_key, &better));
        if (better) best = item, best_key = key;
    }
    *out = best;
    return SQUISH_OK;
}

static squish_status f_min(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return extreme(r, v, arg, false, out);
}
static squish_status f_max(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return extreme(r, v, arg, true, out);
}

static squish_status f_sum(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval none = sq_tv(SQ_TV_UNSET);
    sq_titer it;
    sq_tval item, sum = arg[1].type == SQ_TV_UNSET ? sq_tv_int(0) : arg[1];
    if (sum.type == SQ_TV_STR) return sq_tmpl_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        SQ_TRY(sq_tmpl_getpath(r, &item, &arg[0], &none, &item));
        SQ_TRY(sq_tmpl_math(r, SQ_TOP_ADD, &sum, &item, &sum));
    }
    *out = sum;
    return SQUISH_OK;
}

/* ---- grouping -------------------------------------------------------------------------------- */

/* Rows of n items; the last one filled up where a filler is given. */
static squish_status f_batch(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    int64_t size;
    sq_titer it;
    sq_tval item, row = sq_tv(SQ_TV_UNSET), made;
    SQ_TRY(sq_tmpl_want_int(r, &arg[0], &size));
    if (size < 1 || size > SQ_TMPL_RANGE_MAX) return sq_tmpl_over(r, "rows of %lld items", (long long)size);
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_GENERATOR, 0, &made));
    for (bool has;;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        if (row.type == SQ_TV_UNSET || row.u.seq->n == size) {
            SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, 0, &row));
            SQ_TRY(sq_tmpl_seq_push(r, made.u.seq, &row));
        }
        SQ_TRY(sq_tmpl_seq_push(r, row.u.seq, &item));
    }
    while (row.type != SQ_TV_UNSET && given(&arg[1]) && row.u.seq->n < size)
        SQ_TRY(sq_tmpl_seq_push(r, row.u.seq, &arg[1]));
    *out = made;
    return SQUISH_OK;
}

const sq_tmpl_native sq_tmpl_seq_filters[] = {
    {"list", f_list, NULL, 0, 0, {0}},
    {"items", f_items, NULL, 0, 0, {0}},
    {"join", f_join, NULL, 0, 2, {"d", "attribute"}},
    {"first", f_first, NULL, 0, 0, {0}},
    {"last", f_last, NULL, 0, 0, {0}},
    {"reverse", f_reverse, NULL, 0, 0, {0}},
    {"map", NULL, f_map, 0, 0, {0}},
    {"select", NULL, f_select, 0, 0, {0}},
    {"reject", NULL, f_reject, 0, 0, {0}},
    {"selectattr", NULL, f_selectattr, 0, 0, {0}},
    {"rejectattr", NULL, f_rejectattr, 0, 0, {0}},
    {"sort", f_sort, NULL, 0, 3, {"reverse", "case_sensitive", "attribute"}},
    {"dictsort", f_dictsort, NULL, 0, 3, {"case_sensitive", "by", "reverse"}},
    {"unique", f_unique, NULL, 0, 2, {"case_sensitive", "attribute"}},
    {"min", f_min, NULL, 0, 2, {"case_sensitive", "attribute"}},
    {"max", f_max, NULL, 0, 2, {"case_sensitive", "attribute"}},
    {"sum", f_sum, NULL, 0, 2, {"attribute", "start"}},
    {"batch", f_batch, NULL, 1, 2, {"linecount", "fill_with"}},
};
const size_t sq_tmpl_n_seq_filters = SQ_COUNT(sq_tmpl_seq_filters);
