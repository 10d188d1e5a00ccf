/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_globals.c - functions every template knows: range, dict, namespace, raise_exception, strftime_now. */
#include "text/tmpl_int.h"

static squish_status g_range(sq_trun *r, const sq_tval *self, const sq_tval *arg, sq_tval *out) {
    int64_t n[3] = {0, 0, 1};
    (void)self;
    bool one = arg[1].type == SQ_TV_UNSET;
    SQ_TRY(sq_tmpl_want_int(r, &arg[0], &n[one ? 1 : 0]));
    if (!one) SQ_TRY(sq_tmpl_want_int(r, &arg[1], &n[1]));
    if (arg[2].type != SQ_TV_UNSET) SQ_TRY(sq_tmpl_want_int(r, &arg[2], &n[2]));
    if (n[2] == 0) return sq_tmpl_fail(r, "range() arg 3 must not be zero");
    bool up = n[2] > 0;
    uint64_t step = up ? (uint64_t)n[2] : 0 - (uint64_t)n[2];
    uint64_t span = up ? (uint64_t)n[1] - (uint64_t)n[0] : (uint64_t)n[0] - (uint64_t)n[1];
    uint64_t count = (up ? n[1] > n[0] : n[1] < n[0]) ? (span - 1) / step + 1 : 0;
    if (count > SQ_TMPL_RANGE_MAX)
        return sq_tmpl_over(r, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                            SQ_TMPL_RANGE_MAX);
    void *range;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_trange), &range));
    *(sq_trange *)range = (sq_trange){.start = n[0], .stop = n[1], .step = n[2], .n = (int64_t)count};
    *out = sq_tv(SQ_TV_RANGE);
    out->u.range = range;
    return SQUISH_OK;
}

/* One (key, value) of a sequence of pairs. */
static squish_status put_pair(sq_trun *r, sq_tdict *d, const sq_tval *item) {
    sq_tval pair;
    SQ_TRY(sq_tmpl_to_seq(r, item, SQ_TV_TUPLE, &pair));
    if (pair.u.seq->n != 2)
        return sq_tmpl_fail(r, "dictionary update sequence element has length %u; 2 is required",
                            pair.u.seq->n);
    return sq_tmpl_dict_put(r, d, &pair.u.seq->items[0], &pair.u.seq->items[1]);
}

/* dict(other, key=value): a mapping or pairs, then keywords. */
static squish_status make_dict(sq_trun *r, const sq_targs *args, sq_tval_type type, sq_tval *out) {
    sq_tval made, item;
    if (args->n_pos > 1) return sq_tmpl_fail(r, "dict expected at most 1 argument, got %u", args->n_pos);
    SQ_TRY(sq_tmpl_new_dict(r, type, args->n_kw, &made));
    if (args->n_pos == 1) {
        const sq_tval *from = &args->pos[0];
        const sq_tval view = {.type = SQ_TV_VIEW, .sub = 2, .u.dict = from->u.dict};
        sq_titer it;
        SQ_TRY(sq_tmpl_iter(r, from->type == SQ_TV_DICT ? &view : from, &it));
        for (bool has;;) {
            SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
            if (!has) break;
            SQ_TRY(put_pair(r, made.u.dict, &item));
        }
    }
    for (uint32_t i = 0; i < args->n_kw; i++)
        SQ_TRY(sq_tmpl_dict_put(r, made.u.dict, &args->kw[i].key, &args->kw[i].value));
    *out = made;
    return SQUISH_OK;
}

static squish_status g_dict(sq_trun *r, const sq_tval *self, const sq_targs *args, sq_tval *out) {
    (void)self;
    return make_dict(r, args, SQ_TV_DICT, out);
}

static squish_status g_namespace(sq_trun *r, const sq_tval *self, const sq_targs *args, sq_tval *out) {
    (void)self;
    return make_dict(r, args, SQ_TV_NAMESPACE, out);
}

static squish_status g_raise(sq_trun *r, const sq_tval *self, const sq_tval *arg, sq_tval *out) {
    sq_tval text;
    (void)self;
    (void)out;
    SQ_TRY(sq_tmpl_to_str(r, &arg[0], &text));
    return sq_tmpl_fail(r, "%.*s", text.n > 4000 ? 4000 : (int)text.n, text.u.s);
}

static squish_status g_strftime(sq_trun *r, const sq_tval *self, const sq_tval *arg, sq_tval *out) {
    char bad = 0;
    (void)self;
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the time format"));
    if (arg[0].n > 4096) return sq_tmpl_over(r, "a time format of more than 4096 bytes");
    size_t mark = r->scratch.len;
    if (!sq_tmpl_strftime(r->now_unix, arg[0].u.s, arg[0].n, &r->scratch, &bad))
        return sq_tmpl_fail(r, "strftime_now: unknown directive '%%%c'", bad ? bad : ' ');
    if (r->scratch.failed) return sq_tmpl_over(r, "out of memory for text");
    return sq_tmpl_take(r, mark, out);
}

static const sq_tmpl_native globals[] = {
    {"range", g_range, NULL, 1, 3, {0}},
    {"dict", NULL, g_dict, 0, 0, {0}},
    {"namespace", NULL, g_namespace, 0, 0, {0}},
    {"raise_exception", g_raise, NULL, 1, 1, {"message"}},
    {"strftime_now", g_strftime, NULL, 1, 1, {"format"}},
};

bool sq_tmpl_global(const char *name, size_t n, sq_tval *out) {
    const sq_tmpl_native *row = sq_tmpl_lookup(globals, SQ_COUNT(globals), name, n);
    if (row) *out = (sq_tval){.type = SQ_TV_GLOBAL, .sub = (uint8_t)(row - globals)};
    return row != NULL;
}

squish_status sq_tmpl_call_global(sq_trun *r, int which, const sq_targs *args, sq_tval *out) {
    const sq_tval self = sq_tv(SQ_TV_NONE);
    return sq_tmpl_invoke(r, &globals[which], &self, args, out);
}
