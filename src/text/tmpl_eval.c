/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_eval.c - expressions: from a node to a value.
 *
 * Recursion follows the nesting of the source; `depth` counts it together with macro calls, so that neither a
 * tree nor a template that calls itself can exhaust the C stack. */
#include "text/tmpl_int.h"

squish_status sq_tmpl_enter(sq_trun *r) {
    if (r->depth >= SQ_TMPL_DEPTH)
        return sq_tmpl_over(r, "evaluation nested more than %d deep", SQ_TMPL_DEPTH);
    r->depth++;
    return SQUISH_OK;
}

/* ---- names ----------------------------------------------------------------------------------- */

static sq_tval *find_in(const sq_tscope *s, uint32_t name) {
    for (uint32_t i = s->n; i-- > 0;)
        if (s->items[i].name == name) return &s->items[i].value;
    return NULL;
}

/* What the caller gave under this name, else a global, else undefined: asked for once, then remembered. */
static squish_status resolve(sq_trun *r, uint32_t name, sq_tval *out) {
    const char *s = sq_tmpl_str(r, name);
    size_t n = sq_tmpl_str_bytes(r, name);
    const json_t *given = r->vars ? json_object_get(r->vars, s) : NULL;
    if (given) SQ_TRY(sq_tmpl_from_json(r, given, 0, out));
    else if (!sq_tmpl_global(s, n, out)) *out = sq_tv_undef(SQ_TU_NAME, s, n);
    return sq_tmpl_bind(r, &r->base, name, out);
}

squish_status sq_tmpl_lookup_name(sq_trun *r, uint32_t name, sq_tval *out) {
    for (const sq_tscope *s = r->scope; s; s = s->parent) {
        const sq_tval *found = find_in(s, name);
        SQ_TRY(sq_tmpl_charge(r, s->n / 8));
        if (!found) continue;
        *out = *found;
        return SQUISH_OK;
    }
    return resolve(r, name, out);
}

squish_status sq_tmpl_bind(sq_trun *r, sq_tscope *scope, uint32_t name, const sq_tval *v) {
    sq_tval *found = find_in(scope, name);
    SQ_TRY(sq_tmpl_charge(r, scope->n / 8));
    if (found) {
        *found = *v;
        return SQUISH_OK;
    }
    if (scope->n == scope->cap) {
        uint32_t cap = scope->cap ? scope->cap * 2 : 4;
        void *items;
        SQ_TRY(sq_tmpl_alloc(r, cap, sizeof *scope->items, &items));
        if (scope->n > 0) memcpy(items, scope->items, scope->n * sizeof *scope->items);
        scope->items = items;
        scope->cap = cap;
    }
    scope->items[scope->n].name = name;
    scope->items[scope->n++].value = *v;
    return SQUISH_OK;
}

/* ---- literals -------------------------------------------------------------------------------- */

static const uint32_t *list_of(const sq_trun *r, uint32_t list, uint32_t *n) {
    *n = r->t->lists[list];
    return r->t->lists + list + 1;
}

static sq_tval number(const sq_tmpl_node *n) {
    sq_tval v = sq_tv(n->kind == SQ_TK_INT ? SQ_TV_INT : SQ_TV_FLOAT);
    uint64_t bits = n->arg[0] | (uint64_t)n->arg[1] << 32;
    memcpy(&v.u, &bits, sizeof bits);
    return v;
}

static sq_tval constant(int op) {
    return op == 0 ? sq_tv(SQ_TV_NONE) : sq_tv_bool(op == 2);
}

static squish_status eval_seq(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *items = list_of(r, n->arg[0], &count);
    sq_tval seq;
    SQ_TRY(sq_tmpl_new_seq(r, n->kind == SQ_TK_LIST ? SQ_TV_LIST : SQ_TV_TUPLE, count, &seq));
    for (uint32_t i = 0; i < count; i++) SQ_TRY(sq_tmpl_eval(r, items[i], &seq.u.seq->items[i]));
    seq.u.seq->n = count;
    *out = seq;
    return SQUISH_OK;
}

static squish_status eval_dict(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *items = list_of(r, n->arg[0], &count);
    sq_tval dict, key, value;
    SQ_TRY(sq_tmpl_new_dict(r, SQ_TV_DICT, count / 2, &dict));
    for (uint32_t i = 0; i < count; i += 2) {
        SQ_TRY(sq_tmpl_eval(r, items[i], &key));
        SQ_TRY(sq_tmpl_eval(r, items[i + 1], &value));
        SQ_TRY(sq_tmpl_dict_put(r, dict.u.dict, &key, &value));
    }
    *out = dict;
    return SQUISH_OK;
}

/* ---- operators ------------------------------------------------------------------------------- */

/* and, or: the first operand that decides, as it is. */
static squish_status eval_logic(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *items = list_of(r, n->arg[0], &count);
    *out = sq_tv(SQ_TV_NONE);
    for (uint32_t i = 0; i < count; i++) {
        SQ_TRY(sq_tmpl_eval(r, items[i], out));
        if (sq_tmpl_truth(out) == (n->kind == SQ_TK_OR)) break;
    }
    return SQUISH_OK;
}

static squish_status eval_concat(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *items = list_of(r, n->arg[0], &count);
    size_t mark = r->scratch.len;
    for (uint32_t i = 0; i < count; i++) {
        sq_tval v;
        SQ_TRY(sq_tmpl_eval(r, items[i], &v));
        SQ_TRY(sq_tmpl_print(r, &r->scratch, &v));
    }
    return sq_tmpl_take(r, mark, out);
}

/* a < b < c: each operand once, ending at the first comparison that fails. */
static squish_status eval_compare(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *operands = list_of(r, n->arg[1], &count);
    sq_tval left, right;
    bool holds = true;
    SQ_TRY(sq_tmpl_eval(r, n->arg[0], &left));
    for (uint32_t i = 0; i < count && holds; i++) {
        const sq_tmpl_node *operand = &r->t->nodes[operands[i]];
        SQ_TRY(sq_tmpl_eval(r, operand->arg[0], &right));
        SQ_TRY(sq_tmpl_compare(r, operand->op, &left, &right, &holds));
        left = right;
    }
    *out = sq_tv_bool(holds);
    return SQUISH_OK;
}

/* Left to right. A run of texts joined by + grows in scratch and becomes a value once, not at every +. */
static squish_status eval_math(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    uint32_t count;
    const uint32_t *operands = list_of(r, n->arg[1], &count);
    sq_tval v, b;
    size_t mark = 0;
    bool growing = false; /* the value so far is scratch from mark on, not v */
    SQ_TRY(sq_tmpl_eval(r, n->arg[0], &v));
    for (uint32_t i = 0; i < count; i++) {
        const sq_tmpl_node *operand = &r->t->nodes[operands[i]];
        SQ_TRY(sq_tmpl_eval(r, operand->arg[0], &b));
        if (operand->op == SQ_TOP_ADD && b.type == SQ_TV_STR && (growing || v.type == SQ_TV_STR)) {
            if (!growing) {
                mark = r->scratch.len;
                growing = true;
                SQ_TRY(sq_tmpl_put(r, &r->scratch, v.u.s, v.n));
            }
            SQ_TRY(sq_tmpl_put(r, &r->scratch, b.u.s, b.n));
            continue;
        }
        if (growing) SQ_TRY(sq_tmpl_take(r, mark, &v));
        growing = false;
        SQ_TRY(sq_tmpl_math(r, operand->op, &v, &b, &v));
    }
    if (growing) return sq_tmpl_take(r, mark, out);
    *out = v;
    return SQUISH_OK;
}

static squish_status eval_unary(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    sq_tval v;
    SQ_TRY(sq_tmpl_eval(r, n->arg[0], &v));
    if (n->kind == SQ_TK_NEG) return sq_tmpl_negate(r, &v, out);
    if (n->kind == SQ_TK_NOT) {
        *out = sq_tv_bool(!sq_tmpl_truth(&v));
        return SQUISH_OK;
    }
    if (v.type == SQ_TV_BOOL) v = sq_tv_int(v.u.b);
    if (v.type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, &v);
    if (v.type != SQ_TV_INT && v.type != SQ_TV_FLOAT)
        return sq_tmpl_fail(r, "bad operand type for unary +: '%s'", sq_tmpl_type_name(&v));
    *out = v;
    return SQUISH_OK;
}

static squish_status eval_cond(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    static const char hint[] = "the inline if-expression evaluated to false and no else section was defined.";
    sq_tval test;
    SQ_TRY(sq_tmpl_eval(r, n->arg[0], &test));
    if (sq_tmpl_truth(&test)) return sq_tmpl_eval(r, n->arg[1], out);
    if (n->arg[2] != SQ_TMPL_NONE) return sq_tmpl_eval(r, n->arg[2], out);
    *out = sq_tv_undef(SQ_TU_HINT, hint, sizeof hint - 1);
    return SQUISH_OK;
}

/* ---- postfix chains -------------------------------------------------------------------------- */

static squish_status slice_part(sq_trun *r, const sq_tmpl_node *n, sq_tval *v) {
    sq_tval part[3] = {{0}};
    for (int i = 0; i < 3; i++)
        if (n->arg[i] != SQ_TMPL_NONE) SQ_TRY(sq_tmpl_eval(r, n->arg[i], &part[i]));
    return sq_tmpl_slice(r, v, part, v);
}

static squish_status filter_or_test(sq_trun *r, const sq_tmpl_node *n, sq_tval *v) {
    const char *name = sq_tmpl_str(r, n->arg[0]);
    size_t bytes = sq_tmpl_str_bytes(r, n->arg[0]);
    sq_targs args = {0};
    bool passed;
    if (n->arg[1] != SQ_TMPL_NONE) SQ_TRY(sq_tmpl_eval_args(r, n->arg[1], &args));
    r->line = n->line;
    if (n->kind == SQ_TK_FILTER) return sq_tmpl_filter(r, name, bytes, v, &args, v);
    SQ_TRY(sq_tmpl_test(r, name, bytes, v, &args, &passed));
    *v = sq_tv_bool(passed != (n->op == 1));
    return SQUISH_OK;
}

static squish_status apply_part(sq_trun *r, uint32_t part, sq_tval *v) {
    const sq_tmpl_node *n = &r->t->nodes[part];
    sq_tval key;
    sq_targs args;
    SQ_TRY(sq_tmpl_charge(r, 1));
    r->line = n->line;
    switch (n->kind) {
        case SQ_TK_ATTR:
            return sq_tmpl_getattr(r, v, sq_tmpl_str(r, n->arg[0]), sq_tmpl_str_bytes(r, n->arg[0]), v);
        case SQ_TK_ITEM:
            SQ_TRY(sq_tmpl_eval(r, n->arg[0], &key));
            return sq_tmpl_getitem(r, v, &key, v);
        case SQ_TK_SLICE: return slice_part(r, n, v);
        case SQ_TK_CALL:
            SQ_TRY(sq_tmpl_eval_args(r, n->arg[0], &args));
            r->line = n->line;
            return sq_tmpl_call(r, v, &args, v);
        case SQ_TK_FILTER:
        case SQ_TK_TEST: return filter_or_test(r, n, v);
        default: return sq_tmpl_damaged(r);
    }
}

/* The base of a chain (or *v where it has none) and its first n_parts parts. */
squish_status sq_tmpl_eval_parts(sq_trun *r, const sq_tmpl_node *n, sq_tval *v, uint32_t n_parts) {
    uint32_t count;
    const uint32_t *parts = list_of(r, n->arg[1], &count);
    if (n->arg[0] != SQ_TMPL_NONE) SQ_TRY(sq_tmpl_eval(r, n->arg[0], v));
    for (uint32_t i = 0; i < count && i < n_parts; i++) SQ_TRY(apply_part(r, parts[i], v));
    return SQUISH_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static squish_status eval_node(sq_trun *r, const sq_tmpl_node *n, sq_tval *out) {
    switch (n->kind) {
    case SQ_TK_STR:
        *out = sq_tv_str(sq_tmpl_str(r, n->arg[0]), sq_tmpl_str_bytes(r, n->arg[0]));
        return SQUISH_OK;
    case SQ_TK_INT:
    case SQ_TK_FLOAT: *out = number(n); return SQUISH_OK;
    case SQ_TK_CONST: *out = constant(n->op); return SQUISH_OK;
    case SQ_TK_NAME: return sq_tmpl_lookup_name(r, n->arg[0], out);
    case SQ_TK_LIST:
    case SQ_TK_TUPLE: return eval_seq(r, n, out);
    case SQ_TK_DICT: return eval_dict(r, n, out);
    case SQ_TK_NOT:
    case SQ_TK_NEG:
    case SQ_TK_POS: return eval_unary(r, n, out);
    case SQ_TK_COND: return eval_cond(r, n, out);
    case SQ_TK_AND:
    case SQ_TK_OR: return eval_logic(r, n, out);
    case SQ_TK_CONCAT: return eval_concat(r, n, out);
    case SQ_TK_COMPARE: return eval_compare(r, n, out);
    case SQ_TK_MATH: return eval_math(r, n, out);
    case SQ_TK_POSTFIX: *out = sq_tv(SQ_TV_NONE); return sq_tmpl_eval_parts(r, n, out, UINT32_MAX);
    default: return sq_tmpl_damaged(r);
    }
}

squish_status sq_tmpl_eval(sq_trun *r, uint32_t node, sq_tval *out) {
    SQ_TRY(sq_tmpl_enter(r));
    SQ_TRY(sq_tmpl_charge(r, 1));
    SQ_TRY(eval_node(r, &r->t->nodes[node], out));
    r->depth--;
    return SQUISH_OK;
}
