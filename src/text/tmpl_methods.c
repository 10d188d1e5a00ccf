/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_methods.c - methods of objects and lists, and the way from a value and a name to any method.
 *
 * Chat templates run in Jinja's immutable sandbox: what would change an object or a list in place is
 * undefined there, whatever its keys are called, and so it is here. The one exception is append, which
 * templates in the wild expect. */
#include "text/tmpl_int.h"

static squish_status m_get(sq_trun *r, const sq_tval *d, const sq_tval *arg, sq_tval *out) {
    sq_tval *found;
    SQ_TRY(sq_tmpl_hashable(r, &arg[0]));
    SQ_TRY(sq_tmpl_dict_find(r, d->u.dict, &arg[0], &found));
    *out = found ? *found : arg[1].type == SQ_TV_UNSET ? sq_tv(SQ_TV_NONE) : arg[1];
    return SQUISH_OK;
}

static squish_status m_keys(sq_trun *r, const sq_tval *d, const sq_tval *arg, sq_tval *out) {
    (void)r;
    (void)arg;
    *out = (sq_tval){.type = SQ_TV_VIEW, .sub = 0, .u.dict = d->u.dict};
    return SQUISH_OK;
}

static squish_status m_values(sq_trun *r, const sq_tval *d, const sq_tval *arg, sq_tval *out) {
    (void)r;
    (void)arg;
    *out = (sq_tval){.type = SQ_TV_VIEW, .sub = 1, .u.dict = d->u.dict};
    return SQUISH_OK;
}

static squish_status m_items(sq_trun *r, const sq_tval *d, const sq_tval *arg, sq_tval *out) {
    (void)r;
    (void)arg;
    *out = (sq_tval){.type = SQ_TV_VIEW, .sub = 2, .u.dict = d->u.dict};
    return SQUISH_OK;
}

static squish_status m_copy_dict(sq_trun *r, const sq_tval *d, const sq_tval *arg, sq_tval *out) {
    const sq_tdict *from = d->u.dict;
    (void)arg;
    SQ_TRY(sq_tmpl_new_dict(r, SQ_TV_DICT, from->n, out));
    if (from->n > 0) memcpy(out->u.dict->items, from->items, from->n * sizeof(sq_tpair));
    out->u.dict->n = from->n;
    return sq_tmpl_charge(r, from->n / 4);
}

static squish_status m_append(sq_trun *r, const sq_tval *list, const sq_tval *arg, sq_tval *out) {
    SQ_TRY(sq_tmpl_charge(r, 1));
    SQ_TRY(sq_tmpl_seq_push(r, list->u.seq, &arg[0]));
    *out = sq_tv(SQ_TV_NONE);
    return SQUISH_OK;
}

static squish_status m_copy_list(sq_trun *r, const sq_tval *list, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_to_seq(r, list, SQ_TV_LIST, out);
}

static squish_status m_index(sq_trun *r, const sq_tval *list, const sq_tval *arg, sq_tval *out) {
    for (uint32_t i = 0; i < list->u.seq->n; i++) {
        bool same;
        SQ_TRY(sq_tmpl_equal(r, &list->u.seq->items[i], &arg[0], &same));
        if (!same) continue;
        *out = sq_tv_int(i);
        return SQUISH_OK;
    }
    return sq_tmpl_fail(r, "the value is not in the %s", sq_tmpl_type_name(list));
}

static squish_status m_count(sq_trun *r, const sq_tval *list, const sq_tval *arg, sq_tval *out) {
    int64_t n = 0;
    for (uint32_t i = 0; i < list->u.seq->n; i++) {
        bool same;
        SQ_TRY(sq_tmpl_equal(r, &list->u.seq->items[i], &arg[0], &same));
        n += same;
    }
    *out = sq_tv_int(n);
    return SQUISH_OK;
}

static const sq_tmpl_native dict_methods[] = {
    {"items", m_items, NULL, 0, 0, {0}},    {"get", m_get, NULL, 1, 2, {0}},
    {"keys", m_keys, NULL, 0, 0, {0}},      {"values", m_values, NULL, 0, 0, {0}},
    {"copy", m_copy_dict, NULL, 0, 0, {0}}, {"clear", NULL, NULL, 0, 0, {0}},
    {"pop", NULL, NULL, 0, 0, {0}},         {"popitem", NULL, NULL, 0, 0, {0}},
    {"setdefault", NULL, NULL, 0, 0, {0}},  {"update", NULL, NULL, 0, 0, {0}},
    {"fromkeys", NULL, NULL, 0, 0, {0}},
};
static const sq_tmpl_native list_methods[] = {
    {"append", m_append, NULL, 1, 1, {0}}, {"copy", m_copy_list, NULL, 0, 0, {0}},
    {"index", m_index, NULL, 1, 1, {0}},   {"count", m_count, NULL, 1, 1, {0}},
    {"clear", NULL, NULL, 0, 0, {0}},      {"extend", NULL, NULL, 0, 0, {0}},
    {"insert", NULL, NULL, 0, 0, {0}},     {"pop", NULL, NULL, 0, 0, {0}},
    {"remove", NULL, NULL, 0, 0, {0}},     {"reverse", NULL, NULL, 0, 0, {0}},
    {"sort", NULL, NULL, 0, 0, {0}},
};
static const sq_tmpl_native tuple_methods[] = {
    {"index", m_index, NULL, 1, 1, {0}},
    {"count", m_count, NULL, 1, 1, {0}},
};

static const sq_tmpl_native *find(const sq_tval *self, const char *name, size_t n) {
    switch (self->type) {
        case SQ_TV_STR: return sq_tmpl_lookup(sq_tmpl_str_methods, sq_tmpl_n_str_methods, name, n);
        case SQ_TV_DICT: return sq_tmpl_lookup(dict_methods, SQ_COUNT(dict_methods), name, n);
        case SQ_TV_LIST: return sq_tmpl_lookup(list_methods, SQ_COUNT(list_methods), name, n);
        case SQ_TV_TUPLE: return sq_tmpl_lookup(tuple_methods, SQ_COUNT(tuple_methods), name, n);
        default: return NULL;
    }
}

bool sq_tmpl_method(const sq_tval *self, const char *name, size_t n, const char **found, bool *forbidden) {
    static const char *const loop_methods[] = {"cycle", "changed"};
    for (size_t i = 0; self->type == SQ_TV_LOOP && i < SQ_COUNT(loop_methods); i++) {
        if (!sq_tmpl_is_word(loop_methods[i], name, n)) continue;
        *found = loop_methods[i];
        *forbidden = false;
        return true;
    }
    const sq_tmpl_native *row = find(self, name, n);
    if (!row) return false;
    *found = row->name;
    *forbidden = !row->fn && !row->raw;
    return true;
}

squish_status sq_tmpl_call_method(sq_trun *r, const sq_tmethod *m, const sq_targs *args, sq_tval *out) {
    if (m->self.type == SQ_TV_LOOP) return sq_tmpl_loop_method(r, m->self.u.loop, m->name, args, out);
    const sq_tmpl_native *row = find(&m->self, m->name, strlen(m->name));
    if (!row || (!row->fn && !row->raw)) return sq_tmpl_fail(r, "'%s' cannot be called", m->name);
    return sq_tmpl_invoke(r, row, &m->self, args, out);
}
