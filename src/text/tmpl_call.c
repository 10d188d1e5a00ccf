/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_call.c - calls: arguments, what can be called, and macros.
 *
 * A macro is a function with the scope it was written in; its result is the text of its body. */
#include "text/tmpl_int.h"

/* ---- arguments ------------------------------------------------------------------------------- */

/* f(*list) */
static squish_status append_star(sq_trun *r, uint32_t node, sq_targs *args) {
    sq_tval v, seq;
    SQ_TRY(sq_tmpl_eval(r, node, &v));
    SQ_TRY(sq_tmpl_to_seq(r, &v, SQ_TV_LIST, &seq));
    uint32_t n = args->n_pos + seq.u.seq->n;
    void *pos;
    SQ_TRY(sq_tmpl_alloc(r, n, sizeof(sq_tval), &pos));
    if (args->n_pos > 0) memcpy(pos, args->pos, args->n_pos * sizeof(sq_tval));
    if (seq.u.seq->n > 0)
        memcpy((sq_tval *)pos + args->n_pos, seq.u.seq->items, seq.u.seq->n * sizeof(sq_tval));
    args->pos = pos;
    args->n_pos = n;
    return SQUISH_OK;
}

/* f(**dict); a dictionary with the keywords so far takes them all, so that none comes twice. */
static squish_status append_double_star(sq_trun *r, uint32_t node, sq_targs *args) {
    sq_tval v;
    SQ_TRY(sq_tmpl_eval(r, node, &v));
    if (v.type != SQ_TV_DICT)
        return sq_tmpl_fail(r, "argument after ** must be a mapping, not %s", sq_tmpl_type_name(&v));
    sq_tdict all = {.items = args->kw, .n = args->n_kw, .cap = args->n_kw};
    for (uint32_t i = 0; i < v.u.dict->n; i++) {
        const sq_tpair *p = &v.u.dict->items[i];
        if (p->key.type != SQ_TV_STR) return sq_tmpl_fail(r, "keywords must be strings");
        if (sq_tmpl_dict_find_str(&all, p->key.u.s, p->key.n))
            return sq_tmpl_fail(r, "got multiple values for keyword argument '%.*s'", (int)p->key.n,
                                p->key.u.s);
        SQ_TRY(sq_tmpl_dict_put(r, &all, &p->key, &p->value));
    }
    args->kw = all.items;
    args->n_kw = all.n;
    return SQUISH_OK;
}

squish_status sq_tmpl_eval_args(sq_trun *r, uint32_t node, sq_targs *out) {
    const sq_tmpl_node *n = &r->t->nodes[node];
    const uint32_t *pos = r->t->lists + n->arg[0], *kw = r->t->lists + n->arg[1];
    void *values = NULL, *pairs = NULL;
    if (pos[0] > 0) SQ_TRY(sq_tmpl_alloc(r, pos[0], sizeof(sq_tval), &values));
    if (kw[0] > 0) SQ_TRY(sq_tmpl_alloc(r, kw[0], sizeof(sq_tpair), &pairs));
    *out = (sq_targs){.pos = values, .n_pos = pos[0], .kw = pairs, .n_kw = kw[0]};
    for (uint32_t i = 0; i < pos[0]; i++) SQ_TRY(sq_tmpl_eval(r, pos[1 + i], &out->pos[i]));
    for (uint32_t i = 0; i < kw[0]; i++) {
        const sq_tmpl_node *k = &r->t->nodes[kw[1 + i]];
        out->kw[i].key = sq_tv_str(sq_tmpl_str(r, k->arg[0]), sq_tmpl_str_bytes(r, k->arg[0]));
        SQ_TRY(sq_tmpl_eval(r, k->arg[1], &out->kw[i].value));
    }
    if (n->arg[2] != SQ_TMPL_NONE) SQ_TRY(append_star(r, n->arg[2], out));
    if (n->arg[3] != SQ_TMPL_NONE) SQ_TRY(append_double_star(r, n->arg[3], out));
    return SQUISH_OK;
}

/* ---- macros ---------------------------------------------------------------------------------- */

/* Take the keyword `name` out of the list. */
static bool pop_keyword(const sq_trun *r, sq_targs *args, uint32_t name, sq_tval *out) {
    const char *s = sq_tmpl_str(r, name);
    size_t n = sq_tmpl_str_bytes(r, name);
    for (uint32_t i = 0; i < args->n_kw; i++) {
        const sq_tval *key = &args->kw[i].key;
        if (key->n != n || memcmp(key->u.s, s, n) != 0) continue;
        *out = args->kw[i].value;
        args->n_kw--;
        memmove(&args->kw[i], &args->kw[i + 1], (args->n_kw - i) * sizeof *args->kw);
        return true;
    }
    return false;
}

static squish_status not_provided(sq_trun *r, uint32_t name, sq_tval *out) {
    size_t mark = r->scratch.len;
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "parameter '"));
    SQ_TRY(sq_tmpl_put(r, &r->scratch, sq_tmpl_str(r, name), sq_tmpl_str_bytes(r, name)));
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "' was not provided"));
    SQ_TRY(sq_tmpl_take(r, mark, out));
    out->type = SQ_TV_UNDEF;
    out->sub = SQ_TU_HINT;
    return SQUISH_OK;
}

/* Given parameters first, then defaults in order: a default may use any parameter that was given. */
static squish_status bind_params(sq_trun *r, const sq_tmpl_node *macro, sq_targs *args, sq_tscope *scope) {
    const uint32_t *params = r->t->lists + macro->arg[1];
    sq_tval v;
    for (uint32_t i = 0; i < params[0]; i++) {
        uint32_t name = r->t->nodes[params[1 + i]].arg[0];
        bool has = i < args->n_pos;
        if (has) v = args->pos[i];
        else has = pop_keyword(r, args, name, &v);
        if (has) SQ_TRY(sq_tmpl_bind(r, scope, name, &v));
    }
    uint32_t n_given = args->n_pos;
    for (uint32_t i = n_given; i < params[0]; i++) {
        const sq_tmpl_node *param = &r->t->nodes[params[1 + i]];
        bool bound = false;
        for (uint32_t k = 0; k < scope->n; k++) bound |= scope->items[k].name == param->arg[0];
        if (bound) continue;
        if (param->arg[1] != SQ_TMPL_NONE) SQ_TRY(sq_tmpl_eval(r, param->arg[1], &v));
        else SQ_TRY(not_provided(r, param->arg[0], &v));
        SQ_TRY(sq_tmpl_bind(r, scope, param->arg[0], &v));
    }
    return SQUISH_OK;
}

/* caller, kwargs and varargs where the body speaks of them; leftovers are errors where it does not. */
static squish_status bind_rest(sq_trun *r, const sq_tmpl_node *macro, sq_targs *args, sq_tscope *scope) {
    static const char no_caller[] = "No caller defined";
    const uint32_t *params = r->t->lists + macro->arg[1];
    const char *name = sq_tmpl_str(r, macro->arg[0]);
    sq_tval v;
    bool explicit_caller = false;
    for (uint32_t i = 0; i < params[0]; i++)
        explicit_caller |= r->t->nodes[params[1 + i]].arg[0] == SQ_TMPL_S_CALLER;
    if ((macro->op & SQ_TMPL_USES_CALLER) && !explicit_caller) {
        if (!pop_keyword(r, args, SQ_TMPL_S_CALLER, &v))
            v = sq_tv_undef(SQ_TU_HINT, no_caller, sizeof no_caller - 1);
        SQ_TRY(sq_tmpl_bind(r, scope, SQ_TMPL_S_CALLER, &v));
    }
    if (macro->op & SQ_TMPL_USES_KWARGS) {
        SQ_TRY(sq_tmpl_new_dict(r, SQ_TV_DICT, 0, &v));
        for (uint32_t i = 0; i < args->n_kw; i++)
            SQ_TRY(sq_tmpl_dict_put(r, v.u.dict, &args->kw[i].key, &args->kw[i].value));
        SQ_TRY(sq_tmpl_bind(r, scope, SQ_TMPL_S_KWARGS, &v));
    } else if (args->n_kw > 0) {
        return sq_tmpl_fail(r, "macro '%s' takes no keyword argument '%.*s'", name, (int)args->kw[0].key.n,
                            args->kw[0].key.u.s);
    }
    if (macro->op & SQ_TMPL_USES_VARARGS) {
        SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_TUPLE, 0, &v));
        for (uint32_t i = params[0]; i < args->n_pos; i++)
            SQ_TRY(sq_tmpl_seq_push(r, v.u.seq, &args->pos[i]));
        return sq_tmpl_bind(r, scope, SQ_TMPL_S_VARARGS, &v);
    }
    if (args->n_pos > params[0])
        return sq_tmpl_fail(r, "macro '%s' takes not more than %u argument(s)", name, params[0]);
    return SQUISH_OK;
}

squish_status sq_tmpl_call_macro(sq_trun *r, sq_tmacro *m, const sq_targs *args, sq_tval *out) {
    const sq_tmpl_node *macro = &r->t->nodes[m->node];
    sq_targs left = *args;
    sq_tscope *scope, *before = r->scope;
    sq_tmpl_flow flow = r->flow;
    SQ_TRY(sq_tmpl_enter(r));
    SQ_TRY(sq_tmpl_new_scope(r, m->scope, &scope));
    r->scope = scope;
    SQ_TRY(bind_params(r, macro, &left, scope));
    SQ_TRY(bind_rest(r, macro, &left, scope));
    r->flow = SQ_TFLOW_ON;
    SQ_TRY(sq_tmpl_capture(r, macro->arg[2], scope, out));
    r->flow = flow;
    r->scope = before;
    r->depth--;
    return SQUISH_OK;
}

squish_status sq_tmpl_call(sq_trun *r, const sq_tval *f, const sq_targs *args, sq_tval *out) {
    switch (f->type) {
        case SQ_TV_MACRO: return sq_tmpl_call_macro(r, f->u.macro, args, out);
        case SQ_TV_METHOD: return sq_tmpl_call_method(r, f->u.method, args, out);
        case SQ_TV_GLOBAL: return sq_tmpl_call_global(r, f->sub, args, out);
        case SQ_TV_LOOP: return sq_tmpl_call_loop(r, f->u.loop, args, out);
        case SQ_TV_UNDEF: return sq_tmpl_undefined(r, f);
        default: return sq_tmpl_fail(r, "'%s' object is not callable", sq_tmpl_type_name(f));
    }
}
