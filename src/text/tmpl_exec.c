/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_exec.c - statements, scopes, and sq_tmpl_render.
 *
 * Text goes to the caller's buffer, or to scratch while a block is being captured. Loops, macros and captured
 * blocks have scopes of their own; `if` has none. */
#include "text/tmpl_int.h"

static sq_buf *target_of(sq_trun *r) { return r->captures > 0 ? &r->scratch : r->out; }

squish_status sq_tmpl_new_scope(sq_trun *r, sq_tscope *parent, sq_tscope **out) {
    void *scope;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tscope), &scope));
    *out = scope;
    **out = (sq_tscope){.parent = parent};
    return SQUISH_OK;
}

/* The text a body makes, run in `scope`. */
squish_status sq_tmpl_capture(sq_trun *r, uint32_t body, sq_tscope *scope, sq_tval *out) {
    sq_tscope *before = r->scope;
    size_t mark = r->scratch.len;
    r->scope = scope;
    r->captures++;
    SQ_TRY(sq_tmpl_exec(r, body));
    r->captures--;
    r->scope = before;
    return sq_tmpl_take(r, mark, out);
}

/* ---- assignment ------------------------------------------------------------------------------ */

static squish_status assign_attr(sq_trun *r, const sq_tmpl_node *n, const sq_tval *v) {
    sq_tval space;
    SQ_TRY(sq_tmpl_lookup_name(r, n->arg[0], &space));
    if (space.type != SQ_TV_NAMESPACE)
        return sq_tmpl_fail(r, "cannot assign attribute on non-namespace object");
    const sq_tval key = sq_tv_str(sq_tmpl_str(r, n->arg[1]), sq_tmpl_str_bytes(r, n->arg[1]));
    return sq_tmpl_dict_put(r, space.u.dict, &key, v);
}

static squish_status unpack(sq_trun *r, const sq_tmpl_node *n, const sq_tval *v) {
    const uint32_t *targets = r->t->lists + n->arg[0];
    sq_titer it;
    sq_tval item;
    bool has;
    SQ_TRY(sq_tmpl_iter(r, v, &it));
    for (uint32_t i = 0; i < targets[0]; i++) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) return sq_tmpl_fail(r, "not enough values to unpack (expected %u, got %u)", targets[0], i);
        SQ_TRY(sq_tmpl_assign(r, targets[1 + i], &item));
    }
    SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
    return has ? sq_tmpl_fail(r, "too many values to unpack (expected %u)", targets[0]) : SQUISH_OK;
}

squish_status sq_tmpl_assign(sq_trun *r, uint32_t target, const sq_tval *v) {
    const sq_tmpl_node *n = &r->t->nodes[target];
    if (n->kind == SQ_TK_T_NAME) return sq_tmpl_bind(r, r->scope, n->arg[0], v);
    if (n->kind == SQ_TK_T_ATTR) return assign_attr(r, n, v);
    SQ_TRY(sq_tmpl_enter(r));
    SQ_TRY(unpack(r, n, v));
    r->depth--;
    return SQUISH_OK;
}

/* ---- statements ------------------------------------------------------------------------------ */

static squish_status exec_print(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval v;
    SQ_TRY(sq_tmpl_eval(r, n->arg[0], &v));
    return sq_tmpl_print(r, target_of(r), &v);
}

static squish_status exec_if(sq_trun *r, const sq_tmpl_node *n) {
    const uint32_t *branches = r->t->lists + n->arg[0];
    for (uint32_t i = 0; i < branches[0]; i += 2) {
        sq_tval test;
        SQ_TRY(sq_tmpl_eval(r, branches[1 + i], &test));
        if (sq_tmpl_truth(&test)) return sq_tmpl_exec(r, branches[2 + i]);
    }
    return n->arg[1] == SQ_TMPL_NONE ? SQUISH_OK : sq_tmpl_exec(r, n->arg[1]);
}

static squish_status exec_set(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval v;
    SQ_TRY(sq_tmpl_eval(r, n->arg[1], &v));
    return sq_tmpl_assign(r, n->arg[0], &v);
}

/* The text of a block, through its filters. False in *finished: a break left the block half-way. */
static squish_status block_text(sq_trun *r, uint32_t filters, uint32_t body, sq_tval *out, bool *finished) {
    sq_tscope *scope;
    SQ_TRY(sq_tmpl_new_scope(r, r->scope, &scope));
    SQ_TRY(sq_tmpl_capture(r, body, scope, out));
    *finished = r->flow == SQ_TFLOW_ON;
    if (!*finished || filters == SQ_TMPL_NONE) return SQUISH_OK;
    const sq_tmpl_node *chain = &r->t->nodes[filters];
    if (chain->kind != SQ_TK_POSTFIX) return sq_tmpl_damaged(r);
    return sq_tmpl_eval_parts(r, chain, out, UINT32_MAX);
}

static squish_status exec_set_block(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval v;
    bool finished;
    SQ_TRY(block_text(r, n->arg[1], n->arg[2], &v, &finished));
    return finished ? sq_tmpl_assign(r, n->arg[0], &v) : SQUISH_OK;
}

static squish_status exec_filter_block(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval v;
    bool finished;
    SQ_TRY(block_text(r, n->arg[0], n->arg[1], &v, &finished));
    return finished ? sq_tmpl_print(r, target_of(r), &v) : SQUISH_OK;
}

/* A macro value that remembers the scopes around it. */
static squish_status make_macro(sq_trun *r, uint32_t node, sq_tval *out) {
    void *macro;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tmacro), &macro));
    *(sq_tmacro *)macro = (sq_tmacro){.node = node, .scope = r->scope};
    for (sq_tscope *s = r->scope; s && !s->captured; s = s->parent) s->captured = true;
    *out = sq_tv(SQ_TV_MACRO);
    out->u.macro = macro;
    return SQUISH_OK;
}

static squish_status exec_macro_def(sq_trun *r, const sq_tmpl_node *n) {
    sq_tval macro;
    SQ_TRY(make_macro(r, n->arg[0], &macro));
    return sq_tmpl_bind(r, r->scope, r->t->nodes[n->arg[0]].arg[0], &macro);
}

/* The call with one more keyword: the block itself, as `caller`. */
static squish_status exec_call_block(sq_trun *r, const sq_tmpl_node *n) {
    const sq_tmpl_node *chain = &r->t->nodes[n->arg[0]];
    const uint32_t *parts = r->t->lists + chain->arg[1];
    if (chain->kind != SQ_TK_POSTFIX || parts[0] == 0) return sq_tmpl_damaged(r);
    const sq_tmpl_node *call = &r->t->nodes[parts[parts[0]]];
    if (call->kind != SQ_TK_CALL) return sq_tmpl_damaged(r);
    sq_tval f = sq_tv(SQ_TV_NONE), macro;
    sq_targs args;
    void *kw;
    SQ_TRY(sq_tmpl_eval_parts(r, chain, &f, parts[0] - 1));
    SQ_TRY(sq_tmpl_eval_args(r, call->arg[0], &args));
    SQ_TRY(make_macro(r, n->arg[1], &macro));
    SQ_TRY(sq_tmpl_alloc(r, args.n_kw + 1u, sizeof(sq_tpair), &kw));
    if (args.n_kw > 0) memcpy(kw, args.kw, args.n_kw * sizeof(sq_tpair));
    args.kw = kw;
    const char *caller = sq_tmpl_fixed_strings[SQ_TMPL_S_CALLER];
    args.kw[args.n_kw++] = (sq_tpair){.key = sq_tv_str(caller, strlen(caller)), .value = macro};
    SQ_TRY(sq_tmpl_call(r, &f, &args, &f));
    return sq_tmpl_print(r, target_of(r), &f);
}

/* Values belong to the scope around, names to the one inside. */
static squish_status exec_with(sq_trun *r, const sq_tmpl_node *n) {
    const uint32_t *pairs = r->t->lists + n->arg[0];
    sq_tscope *outer = r->scope, *inner;
    SQ_TRY(sq_tmpl_new_scope(r, outer, &inner));
    for (uint32_t i = 0; i < pairs[0]; i += 2) {
        sq_tval v;
        SQ_TRY(sq_tmpl_eval(r, pairs[2 + i], &v));
        r->scope = inner;
        SQ_TRY(sq_tmpl_assign(r, pairs[1 + i], &v));
        r->scope = outer;
    }
    r->scope = inner;
    SQ_TRY(sq_tmpl_exec(r, n->arg[1]));
    r->scope = outer;
    return SQUISH_OK;
}

static squish_status exec_statement(sq_trun *r, const sq_tmpl_node *n) {
    SQ_TRY(sq_tmpl_charge(r, 1));
    r->line = n->line;
    switch (n->kind) {
        case SQ_TK_TEXT:
            return sq_tmpl_put(r, target_of(r), sq_tmpl_str(r, n->arg[0]), sq_tmpl_str_bytes(r, n->arg[0]));
        case SQ_TK_PRINT: return exec_print(r, n);
        case SQ_TK_IF: return exec_if(r, n);
        case SQ_TK_FOR: return sq_tmpl_exec_for(r, n);
        case SQ_TK_SET: return exec_set(r, n);
        case SQ_TK_SET_BLOCK: return exec_set_block(r, n);
        case SQ_TK_FILTER_BLOCK: return exec_filter_block(r, n);
        case SQ_TK_MACRO_DEF: return exec_macro_def(r, n);
        case SQ_TK_CALL_BLOCK: return exec_call_block(r, n);
        case SQ_TK_WITH: return exec_with(r, n);
        case SQ_TK_BREAK: r->flow = SQ_TFLOW_BREAK; return SQUISH_OK;
        case SQ_TK_CONTINUE: r->flow = SQ_TFLOW_CONTINUE; return SQUISH_OK;
        default: return sq_tmpl_damaged(r);
    }
}

/* Names the block owns are undefined until it sets them (tmpl_scope.c). */
static squish_status declare(sq_trun *r, uint32_t list) {
    const uint32_t *names = r->t->lists + list;
    for (uint32_t i = 0; i < names[0]; i++) {
        uint32_t name = names[1 + i];
        const sq_tval v = sq_tv_undef(SQ_TU_NAME, sq_tmpl_str(r, name), sq_tmpl_str_bytes(r, name));
        SQ_TRY(sq_tmpl_bind(r, r->scope, name, &v));
    }
    return SQUISH_OK;
}

squish_status sq_tmpl_exec(sq_trun *r, uint32_t body) {
    const sq_tmpl_node *n = &r->t->nodes[body];
    const uint32_t *list = r->t->lists + n->arg[0];
    SQ_TRY(sq_tmpl_enter(r));
    if (n->arg[1] != SQ_TMPL_NONE) SQ_TRY(declare(r, n->arg[1]));
    for (uint32_t i = 0; i < list[0] && r->flow == SQ_TFLOW_ON; i++)
        SQ_TRY(exec_statement(r, &r->t->nodes[list[1 + i]]));
    r->depth--;
    return SQUISH_OK;
}

/* ---- render ---------------------------------------------------------------------------------- */

squish_status sq_tmpl_render(const sq_tmpl *t, const struct json_t *vars, const sq_tmpl_limits *limits,
                             const squish_alloc *a, sq_buf *out, squish_error *err) {
    if (vars && !json_is_object(vars))
        return sq_fail(err, SQUISH_INVALID, "template variables: an object is wanted");
    const sq_tmpl_limits none = {0};
    if (!limits) limits = &none;
    sq_tscope root = {0};
    sq_trun r = {.t = t,
                 .vars = vars,
                 .out = out,
                 .out_start = out->len,
                 .err = err,
                 .line = 1,
                 .scope = &root,
                 .now_unix = limits->now_unix,
                 .steps_max = limits->steps_max ? limits->steps_max : SQ_TMPL_STEPS,
                 .output_max = limits->output_max ? limits->output_max : SQ_TMPL_OUTPUT};
    root.parent = &r.base;
    root.captured = r.base.captured = true;
    sq_arena_init(&r.arena, a, 64 << 10, SQ_TMPL_ARENA_MAX);
    sq_buf_init(&r.scratch, a, r.output_max);
    squish_status st = sq_tmpl_exec(&r, t->n_nodes - 1);
    sq_buf_deinit(&r.scratch);
    sq_arena_deinit(&r.arena);
    if (st != SQUISH_OK && out->data) { /* nothing half-made */
        out->len = r.out_start;
        out->data[out->len] = 0;
    }
    return st;
}
