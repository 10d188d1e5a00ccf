/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_loop.c - for loops and the `loop` object.
 *
 * Items are pulled one by one through the loop's filter, at most one ahead (for loop.last and loop.nextitem),
 * so that a filter that looks at a namespace sees what the turns before it did, as in Jinja. */
#include "text/tmpl_int.h"

struct sq_tloop {
    const sq_tmpl_node *node; /* SQ_TK_FOR */
    sq_tscope *outer, *test_scope;
    sq_titer it;
    bool filtered;      /* the filter is still to be applied to what `it` gives */
    int64_t index0;     /* of the current item, -1 before the first */
    int64_t length;     /* -1: not known yet */
    sq_tval before, current, after;
    bool has_after, ended;
    int32_t depth0;     /* of a recursive loop */
    sq_tval changed;    /* arguments of the last loop.changed(...) */
};

static squish_status passes(sq_trun *r, sq_tloop *l, const sq_tval *item, bool *out) {
    sq_tscope *before = r->scope;
    sq_tval v;
    if (!l->test_scope || l->test_scope->captured) SQ_TRY(sq_tmpl_new_scope(r, l->outer, &l->test_scope));
    l->test_scope->n = 0;
    r->scope = l->test_scope;
    SQ_TRY(sq_tmpl_assign(r, l->node->arg[0], item));
    SQ_TRY(sq_tmpl_eval(r, l->node->arg[2], &v));
    r->scope = before;
    *out = sq_tmpl_truth(&v);
    return SQUISH_OK;
}

/* The next item that passes the filter. */
static squish_status pull(sq_trun *r, sq_tloop *l, sq_tval *out, bool *has) {
    for (bool ok = false; !ok;) {
        SQ_TRY(sq_tmpl_next(r, &l->it, out, has));
        if (!*has || !l->filtered) return SQUISH_OK;
        SQ_TRY(passes(r, l, out, &ok));
    }
    return SQUISH_OK;
}

static squish_status peek(sq_trun *r, sq_tloop *l) {
    if (l->has_after || l->ended) return SQUISH_OK;
    SQ_TRY(pull(r, l, &l->after, &l->has_after));
    l->ended = !l->has_after;
    return SQUISH_OK;
}

static squish_status advance(sq_trun *r, sq_tloop *l, bool *has) {
    SQ_TRY(peek(r, l));
    *has = l->has_after;
    if (!*has) return SQUISH_OK;
    l->before = l->current;
    l->current = l->after;
    l->has_after = false;
    l->index0++;
    return SQUISH_OK;
}

/* Known for what has a length; otherwise everything left is pulled now and walked over later. */
squish_status sq_tmpl_loop_len(sq_trun *r, sq_tloop *l, int64_t *out) {
    if (l->length < 0 && !l->filtered && l->it.src.type != SQ_TV_GENERATOR) {
        SQ_TRY(sq_tmpl_len(r, &l->it.src, &l->length));
    } else if (l->length < 0) {
        sq_tval rest, item;
        SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, 0, &rest));
        for (bool has;;) {
            SQ_TRY(pull(r, l, &item, &has));
            if (!has) break;
            SQ_TRY(sq_tmpl_seq_push(r, rest.u.seq, &item));
        }
        l->it = (sq_titer){.src = rest};
        l->filtered = false;
        l->length = l->index0 + 1 + l->has_after + rest.u.seq->n;
    }
    *out = l->length;
    return SQUISH_OK;
}

static squish_status number_attr(sq_trun *r, sq_tloop *l, const char *name, size_t n, sq_tval *out,
                                 bool *found) {
    enum { FROM_START, FROM_END, DEPTH, LENGTH };
    static const struct {
        const char *name;
        uint8_t base;
        int8_t offset;
    } rows[] = {{"index", FROM_START, 1},   {"index0", FROM_START, 0}, {"revindex", FROM_END, 0},
                {"revindex0", FROM_END, -1}, {"length", LENGTH, 0},     {"depth", DEPTH, 1},
                {"depth0", DEPTH, 0}};
    *found = false;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (!sq_tmpl_is_word(rows[i].name, name, n)) continue;
        int64_t base = rows[i].base == DEPTH ? l->depth0 : l->index0;
        *found = true;
        if (rows[i].base == LENGTH || rows[i].base == FROM_END) SQ_TRY(sq_tmpl_loop_len(r, l, &base));
        if (rows[i].base == FROM_END) base -= l->index0;
        *out = sq_tv_int(base + rows[i].offset);
        return SQUISH_OK;
    }
    return SQUISH_OK;
}

squish_status sq_tmpl_loop_attr(sq_trun *r, sq_tloop *l, const char *name, size_t n, sq_tval *out,
                                bool *found) {
    static const char no_previous[] = "there is no previous item", no_next[] = "there is no next item";
    SQ_TRY(number_attr(r, l, name, n, out, found));
    if (*found) return SQUISH_OK;
    *found = true;
    if (sq_tmpl_is_word("first", name, n)) {
        *out = sq_tv_bool(l->index0 == 0);
    } else if (sq_tmpl_is_word("last", name, n)) {
        SQ_TRY(peek(r, l));
        *out = sq_tv_bool(!l->has_after);
    } else if (sq_tmpl_is_word("previtem", name, n)) {
        *out = l->index0 > 0 ? l->before : sq_tv_undef(SQ_TU_HINT, no_previous, sizeof no_previous - 1);
    } else if (sq_tmpl_is_word("nextitem", name, n)) {
        SQ_TRY(peek(r, l));
        *out = l->has_after ? l->after : sq_tv_undef(SQ_TU_HINT, no_next, sizeof no_next - 1);
    } else {
        *found = false;
    }
    return SQUISH_OK;
}

squish_status sq_tmpl_loop_method(sq_trun *r, sq_tloop *l, const char *name, const sq_targs *args,
                                  sq_tval *out) {
    if (args->n_kw > 0) return sq_tmpl_fail(r, "loop.%s takes no keyword arguments", name);
    if (strcmp(name, "cycle") == 0) {
        if (args->n_pos == 0) return sq_tmpl_fail(r, "no items for cycling given");
        *out = args->pos[l->index0 % args->n_pos];
        return SQUISH_OK;
    }
    sq_tval now;
    bool same = false;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_TUPLE, args->n_pos, &now));
    for (uint32_t i = 0; i < args->n_pos; i++) SQ_TRY(sq_tmpl_seq_push(r, now.u.seq, &args->pos[i]));
    if (l->changed.type == SQ_TV_TUPLE) SQ_TRY(sq_tmpl_equal(r, &l->changed, &now, &same));
    if (!same) l->changed = now;
    *out = sq_tv_bool(!same);
    return SQUISH_OK;
}

/* One turn. *finished: the body ran to its end. */
static squish_status run_turn(sq_trun *r, const sq_tmpl_node *n, sq_tloop *l, sq_tscope **scope,
                              bool *finished) {
    sq_tval loop = sq_tv(SQ_TV_LOOP);
    loop.u.loop = l;
    if (!*scope || (*scope)->captured) SQ_TRY(sq_tmpl_new_scope(r, l->outer, scope));
    (*scope)->n = 0;
    r->scope = *scope;
    SQ_TRY(sq_tmpl_bind(r, *scope, SQ_TMPL_S_LOOP, &loop));
    SQ_TRY(sq_tmpl_assign(r, n->arg[0], &l->current));
    SQ_TRY(sq_tmpl_exec(r, n->arg[3]));
    r->scope = l->outer;
    *finished = r->flow == SQ_TFLOW_ON;
    return SQUISH_OK;
}

static squish_status run_loop(sq_trun *r, const sq_tmpl_node *n, const sq_tval *items, sq_tscope *outer,
                              int32_t depth0) {
    void *memory;
    sq_tscope *scope = NULL, *before = r->scope;
    bool ran =
        false; /* Jinja's else runs unless some turn came to its end: break and continue do not count */
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tloop), &memory));
    sq_tloop *l = memory;
    *l = (sq_tloop){.node = n,
                    .outer = outer,
                    .filtered = n->arg[2] != SQ_TMPL_NONE,
                    .index0 = -1,
                    .length = -1,
                    .depth0 = depth0};
    SQ_TRY(sq_tmpl_iter(r, items, &l->it));
    for (bool has, finished;;) {
        SQ_TRY(advance(r, l, &has));
        if (!has) break;
        SQ_TRY(run_turn(r, n, l, &scope, &finished));
        ran |= finished;
        bool stop = r->flow == SQ_TFLOW_BREAK;
        r->flow = SQ_TFLOW_ON;
        if (stop) break;
    }
    if (!ran && n->arg[4] != SQ_TMPL_NONE) {
        SQ_TRY(sq_tmpl_new_scope(r, outer, &r->scope));
        SQ_TRY(sq_tmpl_exec(r, n->arg[4]));
    }
    r->scope = before;
    return SQUISH_OK;
}

squish_status sq_tmpl_exec_for(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval items;
    SQ_TRY(sq_tmpl_eval(r, n->arg[1], &items));
    return run_loop(r, n, &items, r->scope, 0);
}

/* loop(children) in a recursive loop: the same loop over other items, as text. */
squish_status sq_tmpl_call_loop(sq_trun *r, sq_tloop *l, const sq_targs *args, sq_tval *out) {
    if (l->node->op != 1)
        return sq_tmpl_fail(r, "The loop must have the 'recursive' marker to be called recursively.");
    if (args->n_pos != 1 || args->n_kw > 0) return sq_tmpl_fail(r, "a recursive loop takes one argument");
    const sq_tval items = args->pos[0];
    size_t mark = r->scratch.len;
    SQ_TRY(sq_tmpl_enter(r));
    r->captures++;
    SQ_TRY(run_loop(r, l->node, &items, l->outer, l->depth0 + 1));
    r->captures--;
    r->depth--;
    return sq_tmpl_take(r, mark, out);
}
