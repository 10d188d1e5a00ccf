/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_parse_expr.c - expressions: Jinja's precedence, one function per level.
 *
 *     cond  a if t else b        lowest
 *     or, and, not
 *     compare  == != < <= > >= in, not in     (chained, as Python)
 *     add      + -
 *     concat   ~
 *     mul      * / // %
 *     pow      **                 (left to right, as Jinja)
 *     unary    - +
 *     postfix  .name [item] (call), then |filter and `is test`
 *
 * Note that ~ binds tighter than +, and a filter tighter than every operator. */
#include "text/tmpl_int.h"

static squish_status parse_cond(sq_tmpl_parser *p, uint32_t *out);
static squish_status parse_or(sq_tmpl_parser *p, uint32_t *out);
static squish_status parse_unary(sq_tmpl_parser *p, bool with_filters, uint32_t *out);

typedef squish_status (*level_fn)(sq_tmpl_parser *p, uint32_t *out);

static squish_status add(sq_tmpl_parser *p, sq_tmpl_kind kind, int op, uint32_t line, const uint32_t *args,
                         uint32_t *out) {
    return sq_tmpl_add(p->build, kind, op, line, args, out);
}

static squish_status peek(sq_tmpl_parser *p) {
    if (p->has_next) return SQUISH_OK;
    p->has_next = true;
    return sq_tmpl_lex(&p->lex, &p->next);
}

/* ---- primaries ------------------------------------------------------------------------------- */

/* Items up to `close`, pairs with colons where `pairs`. A comma may follow the last one. */
static squish_status parse_items(sq_tmpl_parser *p, sq_tmpl_token_type close, bool pairs, const char *what,
                                 uint32_t *list) {
    size_t mark = sq_tmpl_mark(p->build);
    SQ_TRY(sq_tmpl_advance(p));
    while (p->cur.type != close) {
        uint32_t item;
        if (sq_tmpl_mark(p->build) > mark) {
            SQ_TRY(sq_tmpl_expect(p, SQ_TT_COMMA, what));
            if (p->cur.type == close) break;
        }
        SQ_TRY(parse_cond(p, &item));
        SQ_TRY(sq_tmpl_push(p->build, item));
        if (!pairs) continue;
        SQ_TRY(sq_tmpl_expect(p, SQ_TT_COLON, "':'"));
        SQ_TRY(parse_cond(p, &item));
        SQ_TRY(sq_tmpl_push(p->build, item));
    }
    SQ_TRY(sq_tmpl_advance(p));
    return sq_tmpl_list(p->build, mark, list);
}

/* 'a' "b" is 'ab'. */
static squish_status parse_strings(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t id = p->cur.string;
    SQ_TRY(sq_tmpl_advance(p));
    sq_buf joined;
    sq_buf_init(&joined, &p->build->alloc, SQ_MAX_TEMPLATE);
    squish_status st = SQUISH_OK;
    while (st == SQUISH_OK && p->cur.type == SQ_TT_STRING) {
        const sq_tmpl_string *strings = (const sq_tmpl_string *)(const void *)p->build->strings.data;
        const char *pool = p->build->pool.data;
        if (joined.len == 0) sq_buf_append(&joined, pool + strings[id].offset, strings[id].bytes);
        sq_buf_append(&joined, pool + strings[p->cur.string].offset, strings[p->cur.string].bytes);
        st = joined.failed ? sq_fail(p->err, SQUISH_NO_MEMORY, "out of memory compiling a template")
                           : sq_tmpl_intern(p->build, joined.data, joined.len, &id);
        if (st == SQUISH_OK) st = sq_tmpl_advance(p);
    }
    sq_buf_deinit(&joined);
    return st == SQUISH_OK ? add(p, SQ_TK_STR, 0, line, &id, out) : st;
}

static squish_status parse_number(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint64_t bits;
    memcpy(&bits, &p->cur.u, sizeof bits);
    uint32_t args[2] = {(uint32_t)bits, (uint32_t)(bits >> 32)};
    sq_tmpl_kind kind = p->cur.type == SQ_TT_INT ? SQ_TK_INT : SQ_TK_FLOAT;
    SQ_TRY(sq_tmpl_advance(p));
    return add(p, kind, 0, line, args, out);
}

/* The number of a constant's name + 1, 0: an ordinary name. */
static int constant(const sq_tmpl_parser *p) {
    static const char *const names[] = {"none", "None", "false", "False", "true", "True"};
    for (int i = 0; i < (int)SQ_COUNT(names); i++)
        if (sq_tmpl_at_word(p, names[i])) return i / 2 + 1;
    return 0;
}

static squish_status parse_name(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    int con = constant(p);
    uint32_t id = 0;
    if (!con) SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &id));
    if (id == SQ_TMPL_S_CALLER && !con) p->macro_uses |= SQ_TMPL_USES_CALLER;
    if (id == SQ_TMPL_S_VARARGS) p->macro_uses |= SQ_TMPL_USES_VARARGS;
    if (id == SQ_TMPL_S_KWARGS) p->macro_uses |= SQ_TMPL_USES_KWARGS;
    SQ_TRY(sq_tmpl_advance(p));
    if (con) return add(p, SQ_TK_CONST, con - 1, line, NULL, out);
    return add(p, SQ_TK_NAME, 0, line, &id, out);
}

/* (a), (a, b), (a,) and (). */
static squish_status parse_paren(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type == SQ_TT_RPAREN) {
        uint32_t list;
        SQ_TRY(sq_tmpl_list(p->build, sq_tmpl_mark(p->build), &list));
        SQ_TRY(add(p, SQ_TK_TUPLE, 0, line, &list, out));
    } else {
        SQ_TRY(sq_tmpl_parse_tuple(p, true, NULL, out));
    }
    return sq_tmpl_expect(p, SQ_TT_RPAREN, "')'");
}

static squish_status parse_primary(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, list;
    switch (p->cur.type) {
        case SQ_TT_NAME: return parse_name(p, line, out);
        case SQ_TT_STRING: return parse_strings(p, line, out);
        case SQ_TT_INT:
        case SQ_TT_FLOAT: return parse_number(p, line, out);
        case SQ_TT_LPAREN: return parse_paren(p, line, out);
        case SQ_TT_LBRACKET:
            SQ_TRY(parse_items(p, SQ_TT_RBRACKET, false, "',' or ']'", &list));
            return add(p, SQ_TK_LIST, 0, line, &list, out);
        case SQ_TT_LBRACE:
            SQ_TRY(parse_items(p, SQ_TT_RBRACE, true, "',' or '}'", &list));
            return add(p, SQ_TK_DICT, 0, line, &list, out);
        default: return sq_tmpl_unexpected(p, "an expression");
    }
}

/* ---- postfix --------------------------------------------------------------------------------- */

static squish_status refuse(sq_tmpl_parser *p, const char *why) {
    return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: %s", p->cur.line, why);
}

/* One argument of a call. args: positional list (pushed), keywords (pushed to kw), *list, **dict. */
static squish_status parse_arg(sq_tmpl_parser *p, sq_buf *kw, uint32_t *star, uint32_t *dstar) {
    uint32_t line = p->cur.line, value, args[2];
    if (p->cur.type == SQ_TT_MUL || p->cur.type == SQ_TT_POW) {
        uint32_t *into = p->cur.type == SQ_TT_MUL ? star : dstar;
        if (*into != SQ_TMPL_NONE || *dstar != SQ_TMPL_NONE) return refuse(p, "more than one * or **");
        SQ_TRY(sq_tmpl_advance(p));
        return parse_cond(p, into);
    }
    if (p->cur.type == SQ_TT_NAME) SQ_TRY(peek(p));
    if (p->cur.type == SQ_TT_NAME && p->next.type == SQ_TT_ASSIGN && p->has_next) {
        SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(parse_cond(p, &args[1]));
        SQ_TRY(add(p, SQ_TK_KWARG, 0, line, args, &value));
        return sq_buf_append(kw, &value, sizeof value)
                   ? SQUISH_OK
                   : sq_fail(p->err, SQUISH_NO_MEMORY, "out of memory compiling a template");
    }
    if (kw->len > 0 || *star != SQ_TMPL_NONE || *dstar != SQ_TMPL_NONE)
        return refuse(p, "a positional argument behind a keyword");
    SQ_TRY(parse_cond(p, &value));
    return sq_tmpl_push(p->build, value);
}

static squish_status parse_arg_list(sq_tmpl_parser *p, sq_buf *kw, uint32_t args[4]) {
    size_t mark = sq_tmpl_mark(p->build);
    args[2] = args[3] = SQ_TMPL_NONE;
    SQ_TRY(sq_tmpl_advance(p));
    for (bool first = true; p->cur.type != SQ_TT_RPAREN; first = false) {
        if (!first) {
            SQ_TRY(sq_tmpl_expect(p, SQ_TT_COMMA, "',' or ')'"));
            if (p->cur.type == SQ_TT_RPAREN) break;
        }
        SQ_TRY(parse_arg(p, kw, &args[2], &args[3]));
    }
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[0]));
    mark = sq_tmpl_mark(p->build);
    for (size_t i = 0; i < kw->len; i += sizeof(uint32_t)) {
        uint32_t node;
        memcpy(&node, kw->data + i, sizeof node);
        SQ_TRY(sq_tmpl_push(p->build, node));
    }
    return sq_tmpl_list(p->build, mark, &args[1]);
}

static squish_status parse_args(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args[4];
    sq_buf kw; /* keywords wait here, as the stack fills with positional arguments */
    sq_buf_init(&kw, &p->build->alloc, SQ_MAX_TEMPLATE);
    squish_status st = parse_arg_list(p, &kw, args);
    sq_buf_deinit(&kw);
    return st == SQUISH_OK ? add(p, SQ_TK_ARGS, 0, line, args, out) : st;
}

/* [1], [a:b], [::-1]: an ITEM or a SLICE. [1, 2] is an item with a tuple. */
static squish_status parse_subscript(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, part[3] = {SQ_TMPL_NONE, SQ_TMPL_NONE, SQ_TMPL_NONE};
    SQ_TRY(sq_tmpl_advance(p));
    int n_colons = 0;
    while (p->cur.type != SQ_TT_RBRACKET) {
        if (p->cur.type == SQ_TT_COLON && n_colons < 2) {
            n_colons++;
            SQ_TRY(sq_tmpl_advance(p));
        } else if (part[n_colons] == SQ_TMPL_NONE) {
            SQ_TRY(n_colons ? parse_cond(p, &part[n_colons]) : sq_tmpl_parse_tuple(p, true, NULL, &part[0]));
        } else {
            break;
        }
    }
    SQ_TRY(sq_tmpl_expect(p, SQ_TT_RBRACKET, "']'"));
    if (n_colons > 0) return add(p, SQ_TK_SLICE, 0, line, part, out);
    if (part[0] == SQ_TMPL_NONE) return refuse(p, "an empty index");
    return add(p, SQ_TK_ITEM, 0, line, part, out);
}

static squish_status parse_dot(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, arg;
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type == SQ_TT_INT) {
        SQ_TRY(parse_number(p, line, &arg));
        return add(p, SQ_TK_ITEM, 0, line, &arg, out);
    }
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "a name behind '.'");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &arg));
    SQ_TRY(sq_tmpl_advance(p));
    return add(p, SQ_TK_ATTR, 0, line, &arg, out);
}

static squish_status parse_call(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args;
    SQ_TRY(parse_args(p, &args));
    return add(p, SQ_TK_CALL, 0, line, &args, out);
}

static squish_status unknown(sq_tmpl_parser *p, const char *what) {
    int n = p->cur.n > 60 ? 60 : (int)p->cur.n;
    return sq_fail(p->err, SQUISH_UNSUPPORTED, "template line %u: unknown %s '%.*s'", p->cur.line, what, n,
                   p->cur.p);
}

/* A filter from its name on. */
static squish_status parse_filter(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args[2] = {0, SQ_TMPL_NONE};
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "the name of a filter");
    if (!sq_tmpl_has_filter(p->cur.p, p->cur.n)) return unknown(p, "filter");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type == SQ_TT_LPAREN) SQ_TRY(parse_args(p, &args[1]));
    return add(p, SQ_TK_FILTER, 0, line, args, out);
}

/* Attributes, items and calls pushed as parts. */
static squish_status push_postfix(sq_tmpl_parser *p) {
    for (;;) {
        uint32_t part;
        if (p->cur.type == SQ_TT_DOT) SQ_TRY(parse_dot(p, &part));
        else if (p->cur.type == SQ_TT_LBRACKET) SQ_TRY(parse_subscript(p, &part));
        else if (p->cur.type == SQ_TT_LPAREN) SQ_TRY(parse_call(p, &part));
        else return SQUISH_OK;
        SQ_TRY(sq_tmpl_push(p->build, part));
    }
}

/* base and the parts pushed since mark; the base alone if there are none. */
static squish_status make_postfix(sq_tmpl_parser *p, size_t mark, uint32_t line, uint32_t base,
                                  uint32_t *out) {
    uint32_t args[2] = {base, 0};
    if (sq_tmpl_mark(p->build) == mark) {
        *out = base;
        return SQUISH_OK;
    }
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[1]));
    return add(p, SQ_TK_POSTFIX, 0, line, args, out);
}

/* A test may take one argument without parentheses: x is divisibleby 3. */
static squish_status parse_bare_arg(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, base, args[4] = {0, 0, SQ_TMPL_NONE, SQ_TMPL_NONE};
    size_t mark = sq_tmpl_mark(p->build);
    SQ_TRY(parse_primary(p, &base));
    SQ_TRY(push_postfix(p));
    SQ_TRY(make_postfix(p, mark, line, base, &base));
    SQ_TRY(sq_tmpl_push(p->build, base));
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[0]));
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[1]));
    return add(p, SQ_TK_ARGS, 0, line, args, out);
}

static bool starts_bare_arg(const sq_tmpl_parser *p) {
    switch (p->cur.type) {
        case SQ_TT_NAME:
            return !sq_tmpl_at_word(p, "else") && !sq_tmpl_at_word(p, "or") && !sq_tmpl_at_word(p, "and");
        case SQ_TT_STRING:
        case SQ_TT_INT:
        case SQ_TT_FLOAT:
        case SQ_TT_LBRACKET:
        case SQ_TT_LBRACE: return true;
        default: return false;
    }
}

static squish_status parse_test(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args[2] = {0, SQ_TMPL_NONE};
    bool negated;
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(sq_tmpl_skip_word(p, "not", &negated));
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "the name of a test");
    if (!sq_tmpl_has_test(p->cur.p, p->cur.n)) return unknown(p, "test");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type == SQ_TT_LPAREN) SQ_TRY(parse_args(p, &args[1]));
    else if (sq_tmpl_at_word(p, "is")) return refuse(p, "tests cannot be chained with 'is'");
    else if (starts_bare_arg(p)) SQ_TRY(parse_bare_arg(p, &args[1]));
    return add(p, SQ_TK_TEST, negated, line, args, out);
}

/* Filters, tests and calls of their results pushed as parts. */
static squish_status push_filters(sq_tmpl_parser *p) {
    for (;;) {
        uint32_t part;
        if (p->cur.type == SQ_TT_PIPE) {
            SQ_TRY(sq_tmpl_advance(p));
            SQ_TRY(parse_filter(p, &part));
        } else if (sq_tmpl_at_word(p, "is")) {
            SQ_TRY(parse_test(p, &part));
        } else if (p->cur.type == SQ_TT_LPAREN) {
            SQ_TRY(parse_call(p, &part));
        } else {
            return SQUISH_OK;
        }
        SQ_TRY(sq_tmpl_push(p->build, part));
    }
}

/* The filters of a filter or set block, whose input is its text. first_is_bare: no '|' before the first. */
squish_status sq_tmpl_parse_filters(sq_tmpl_parser *p, bool first_is_bare, uint32_t *out) {
    size_t mark = sq_tmpl_mark(p->build);
    uint32_t line = p->cur.line, part;
    while (first_is_bare || p->cur.type == SQ_TT_PIPE) {
        if (!first_is_bare) SQ_TRY(sq_tmpl_advance(p));
        first_is_bare = false;
        SQ_TRY(parse_filter(p, &part));
        SQ_TRY(sq_tmpl_push(p->build, part));
    }
    return make_postfix(p, mark, line, SQ_TMPL_NONE, out);
}

/* ---- operators ------------------------------------------------------------------------------- */

static squish_status parse_sign(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, operand;
    sq_tmpl_kind kind = p->cur.type == SQ_TT_SUB ? SQ_TK_NEG : SQ_TK_POS;
    SQ_TRY(sq_tmpl_nest(p));
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(parse_unary(p, false, &operand));
    p->depth--;
    return add(p, kind, 0, line, &operand, out);
}

static squish_status parse_unary(sq_tmpl_parser *p, bool with_filters, uint32_t *out) {
    uint32_t line = p->cur.line, base;
    size_t mark = sq_tmpl_mark(p->build);
    bool is_signed = p->cur.type == SQ_TT_SUB || p->cur.type == SQ_TT_ADD;
    SQ_TRY(is_signed ? parse_sign(p, &base) : parse_primary(p, &base));
    SQ_TRY(push_postfix(p));
    if (with_filters) SQ_TRY(push_filters(p));
    return make_postfix(p, mark, line, base, out);
}

static squish_status parse_filtered(sq_tmpl_parser *p, uint32_t *out) { return parse_unary(p, true, out); }

typedef struct {
    uint8_t token, op;
} op_row;

/* first (op next)* as one node of `kind`. */
static squish_status parse_chain(sq_tmpl_parser *p, sq_tmpl_kind kind, level_fn next, const op_row *rows,
                                 size_t n_rows, uint32_t *out) {
    uint32_t line = p->cur.line, args[2], operand, expr;
    SQ_TRY(next(p, &args[0]));
    size_t mark = sq_tmpl_mark(p->build);
    for (;;) {
        size_t i = 0;
        while (i < n_rows && rows[i].token != p->cur.type) i++;
        if (i == n_rows) break;
        uint32_t op_line = p->cur.line;
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(next(p, &expr));
        SQ_TRY(add(p, SQ_TK_OPERAND, rows[i].op, op_line, &expr, &operand));
        SQ_TRY(sq_tmpl_push(p->build, operand));
    }
    *out = args[0];
    if (sq_tmpl_mark(p->build) == mark) return SQUISH_OK;
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[1]));
    return add(p, kind, 0, line, args, out);
}

static squish_status parse_pow(sq_tmpl_parser *p, uint32_t *out) {
    static const op_row rows[] = {{SQ_TT_POW, SQ_TOP_POW}};
    return parse_chain(p, SQ_TK_MATH, parse_filtered, rows, SQ_COUNT(rows), out);
}

static squish_status parse_mul(sq_tmpl_parser *p, uint32_t *out) {
    static const op_row rows[] = {{SQ_TT_MUL, SQ_TOP_MUL},
                                  {SQ_TT_DIV, SQ_TOP_DIV},
                                  {SQ_TT_FLOORDIV, SQ_TOP_FLOORDIV},
                                  {SQ_TT_MOD, SQ_TOP_MOD}};
    return parse_chain(p, SQ_TK_MATH, parse_pow, rows, SQ_COUNT(rows), out);
}

/* first (separator next)* as one node with a plain list. */
static squish_status parse_row(sq_tmpl_parser *p, sq_tmpl_kind kind, level_fn next, sq_tmpl_token_type token,
                               const char *word, uint32_t *out) {
    uint32_t line = p->cur.line, item, list;
    size_t mark = sq_tmpl_mark(p->build);
    SQ_TRY(next(p, out));
    while (word ? sq_tmpl_at_word(p, word) : p->cur.type == token) {
        if (sq_tmpl_mark(p->build) == mark) SQ_TRY(sq_tmpl_push(p->build, *out));
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(next(p, &item));
        SQ_TRY(sq_tmpl_push(p->build, item));
    }
    if (sq_tmpl_mark(p->build) == mark) return SQUISH_OK;
    SQ_TRY(sq_tmpl_list(p->build, mark, &list));
    return add(p, kind, 0, line, &list, out);
}

static squish_status parse_concat(sq_tmpl_parser *p, uint32_t *out) {
    return parse_row(p, SQ_TK_CONCAT, parse_mul, SQ_TT_TILDE, NULL, out);
}

static squish_status parse_sum(sq_tmpl_parser *p, uint32_t *out) {
    static const op_row rows[] = {{SQ_TT_ADD, SQ_TOP_ADD}, {SQ_TT_SUB, SQ_TOP_SUB}};
    return parse_chain(p, SQ_TK_MATH, parse_concat, rows, SQ_COUNT(rows), out);
}

/* The comparison at the current token, consumed; -1: none. */
static squish_status skip_comparison(sq_tmpl_parser *p, int *op) {
    static const op_row rows[] = {{SQ_TT_EQ, SQ_TOP_EQ}, {SQ_TT_NE, SQ_TOP_NE}, {SQ_TT_LT, SQ_TOP_LT},
                                  {SQ_TT_LE, SQ_TOP_LE}, {SQ_TT_GT, SQ_TOP_GT}, {SQ_TT_GE, SQ_TOP_GE}};
    *op = -1;
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (rows[i].token == p->cur.type) *op = rows[i].op;
    if (sq_tmpl_at_word(p, "in")) *op = SQ_TOP_IN;
    if (sq_tmpl_at_word(p, "not")) {
        SQ_TRY(peek(p));
        if (p->next.type != SQ_TT_NAME || p->next.n != 2 || memcmp(p->next.p, "in", 2) != 0) return SQUISH_OK;
        SQ_TRY(sq_tmpl_advance(p));
        *op = SQ_TOP_NOT_IN;
    }
    return *op < 0 ? SQUISH_OK : sq_tmpl_advance(p);
}

static squish_status parse_compare(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args[2], expr, operand;
    SQ_TRY(parse_sum(p, &args[0]));
    size_t mark = sq_tmpl_mark(p->build);
    for (;;) {
        int op;
        SQ_TRY(skip_comparison(p, &op));
        if (op < 0) break;
        SQ_TRY(parse_sum(p, &expr));
        SQ_TRY(add(p, SQ_TK_OPERAND, op, line, &expr, &operand));
        SQ_TRY(sq_tmpl_push(p->build, operand));
    }
    *out = args[0];
    if (sq_tmpl_mark(p->build) == mark) return SQUISH_OK;
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[1]));
    return add(p, SQ_TK_COMPARE, 0, line, args, out);
}

static squish_status parse_not(sq_tmpl_parser *p, uint32_t *out) {
    if (!sq_tmpl_at_word(p, "not")) return parse_compare(p, out);
    uint32_t line = p->cur.line, operand;
    SQ_TRY(sq_tmpl_nest(p));
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(parse_not(p, &operand));
    p->depth--;
    return add(p, SQ_TK_NOT, 0, line, &operand, out);
}

static squish_status parse_and(sq_tmpl_parser *p, uint32_t *out) {
    return parse_row(p, SQ_TK_AND, parse_not, SQ_TT_EOF, "and", out);
}

static squish_status parse_or(sq_tmpl_parser *p, uint32_t *out) {
    return parse_row(p, SQ_TK_OR, parse_and, SQ_TT_EOF, "or", out);
}

static squish_status parse_cond(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, args[3];
    bool found;
    SQ_TRY(sq_tmpl_nest(p));
    SQ_TRY(parse_or(p, out));
    for (;;) {
        SQ_TRY(sq_tmpl_skip_word(p, "if", &found));
        if (!found) break;
        args[1] = *out;
        args[2] = SQ_TMPL_NONE;
        SQ_TRY(parse_or(p, &args[0]));
        SQ_TRY(sq_tmpl_skip_word(p, "else", &found));
        if (found) SQ_TRY(parse_cond(p, &args[2]));
        SQ_TRY(add(p, SQ_TK_COND, 0, line, args, out));
    }
    p->depth--;
    return SQUISH_OK;
}

squish_status sq_tmpl_parse_expr(sq_tmpl_parser *p, bool cond, uint32_t *out) {
    return cond ? parse_cond(p, out) : parse_or(p, out);
}

static bool ends_tuple(const sq_tmpl_parser *p, const char *end_word) {
    return p->cur.type == SQ_TT_VAR_END || p->cur.type == SQ_TT_BLOCK_END || p->cur.type == SQ_TT_RPAREN ||
           p->cur.type == SQ_TT_RBRACKET || p->cur.type == SQ_TT_ASSIGN ||
           (end_word && sq_tmpl_at_word(p, end_word));
}

/* a, or the tuple a, b with or without a comma at the end. */
squish_status sq_tmpl_parse_tuple(sq_tmpl_parser *p, bool cond, const char *end_word, uint32_t *out) {
    uint32_t line = p->cur.line, list;
    size_t mark = sq_tmpl_mark(p->build);
    SQ_TRY(sq_tmpl_parse_expr(p, cond, out));
    if (p->cur.type != SQ_TT_COMMA) return SQUISH_OK;
    SQ_TRY(sq_tmpl_push(p->build, *out));
    while (p->cur.type == SQ_TT_COMMA) {
        SQ_TRY(sq_tmpl_advance(p));
        if (ends_tuple(p, end_word)) break;
        SQ_TRY(sq_tmpl_parse_expr(p, cond, out));
        SQ_TRY(sq_tmpl_push(p->build, *out));
    }
    SQ_TRY(sq_tmpl_list(p->build, mark, &list));
    return add(p, SQ_TK_TUPLE, 0, line, &list, out);
}

/* ---- targets of assignments ------------------------------------------------------------------ */

static squish_status parse_one_target(sq_tmpl_parser *p, bool with_attr, uint32_t *out) {
    uint32_t line = p->cur.line, args[2];
    if (p->cur.type == SQ_TT_LPAREN) {
        SQ_TRY(sq_tmpl_nest(p));
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(sq_tmpl_parse_target(p, with_attr, NULL, out));
        p->depth--;
        return sq_tmpl_expect(p, SQ_TT_RPAREN, "')'");
    }
    if (p->cur.type != SQ_TT_NAME || constant(p)) return sq_tmpl_unexpected(p, "a name to assign to");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type != SQ_TT_DOT || !with_attr) return add(p, SQ_TK_T_NAME, 0, line, args, out);
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "a name behind '.'");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[1]));
    SQ_TRY(sq_tmpl_advance(p));
    return add(p, SQ_TK_T_ATTR, 0, line, args, out);
}

squish_status sq_tmpl_parse_target(sq_tmpl_parser *p, bool with_attr, const char *end_word, uint32_t *out) {
    uint32_t line = p->cur.line, list;
    size_t mark = sq_tmpl_mark(p->build);
    SQ_TRY(parse_one_target(p, with_attr, out));
    if (p->cur.type != SQ_TT_COMMA) return SQUISH_OK;
    SQ_TRY(sq_tmpl_push(p->build, *out));
    while (p->cur.type == SQ_TT_COMMA) {
        SQ_TRY(sq_tmpl_advance(p));
        if (ends_tuple(p, end_word)) break;
        SQ_TRY(parse_one_target(p, with_attr, out));
        SQ_TRY(sq_tmpl_push(p->build, *out));
    }
    SQ_TRY(sq_tmpl_list(p->build, mark, &list));
    return add(p, SQ_TK_T_TUPLE, 0, line, &list, out);
}
