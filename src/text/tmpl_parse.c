/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_parse.c - statements of a template, and sq_tmpl_compile.
 *
 * Recursive descent with one token of look-ahead. What recurses on the source passes sq_tmpl_nest, so the C
 * stack is bounded whatever the source says; chains of any length are loops. */
#include "text/tmpl_int.h"

/* ---- tokens ---------------------------------------------------------------------------------- */

squish_status sq_tmpl_advance(sq_tmpl_parser *p) {
    if (p->has_next) {
        p->cur = p->next;
        p->has_next = false;
        return SQUISH_OK;
    }
    return sq_tmpl_lex(&p->lex, &p->cur);
}

bool sq_tmpl_at_word(const sq_tmpl_parser *p, const char *word) {
    return p->cur.type == SQ_TT_NAME && sq_tmpl_is_word(word, p->cur.p, p->cur.n);
}

squish_status sq_tmpl_skip_word(sq_tmpl_parser *p, const char *word, bool *found) {
    *found = sq_tmpl_at_word(p, word);
    return *found ? sq_tmpl_advance(p) : SQUISH_OK;
}

/* "template line 3: expected 'in', found '%}'" */
squish_status sq_tmpl_unexpected(sq_tmpl_parser *p, const char *wanted) {
    const sq_tmpl_token *t = &p->cur;
    if (t->type == SQ_TT_EOF)
        return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: expected %s, found the end", t->line,
                       wanted);
    static const char *const marks[] = {"", "text", "{%", "%}", "{{", "}}"};
    bool is_mark = t->type < SQ_COUNT(marks);
    int n = t->n > 40 ? 40 : (int)t->n;
    return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: expected %s, found '%.*s'", t->line, wanted,
                   is_mark ? (int)strlen(marks[t->type]) : n, is_mark ? marks[t->type] : t->p);
}

squish_status sq_tmpl_expect(sq_tmpl_parser *p, sq_tmpl_token_type type, const char *what) {
    return p->cur.type == type ? sq_tmpl_advance(p) : sq_tmpl_unexpected(p, what);
}

squish_status sq_tmpl_nest(sq_tmpl_parser *p) {
    if (p->depth >= SQ_TMPL_NESTING)
        return sq_fail(p->err, SQUISH_UNSUPPORTED, "template line %u: nested more than %d deep", p->cur.line,
                       SQ_TMPL_NESTING);
    p->depth++;
    return SQUISH_OK;
}

static squish_status add(sq_tmpl_parser *p, sq_tmpl_kind kind, int op, uint32_t line, const uint32_t *args,
                         uint32_t *out) {
    return sq_tmpl_add(p->build, kind, op, line, args, out);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static squish_status parse_statement(sq_tmpl_parser *p, uint32_t *out);

static bool at_any_word(const sq_tmpl_parser *p, const char *const *words) {
    for (; words && *words; words++)
        if (sq_tmpl_at_word(p, *words)) return true;
    return false;
}

static squish_status parse_print(sq_tmpl_parser *p, uint32_t *out) {
    uint32_t line = p->cur.line, expr;
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(sq_tmpl_parse_tuple(p, true, NULL, &expr));
    SQ_TRY(sq_tmpl_expect(p, SQ_TT_VAR_END, "'}}'"));
    return add(p, SQ_TK_PRINT, 0, line, &expr, out);
}

/* Text, prints and statements up to a block that begins with one of `ends` (which stays the current token),
 * or to the end of the source where ends is NULL. */
static squish_status parse_until(sq_tmpl_parser *p, const char *const *ends, uint32_t *out) {
    size_t mark = sq_tmpl_mark(p->build);
    uint32_t line = p->cur.line, node, args[2] = {0, SQ_TMPL_NONE};
    while (p->cur.type != SQ_TT_EOF) {
        if (p->cur.type == SQ_TT_DATA) {
            SQ_TRY(add(p, SQ_TK_TEXT, 0, p->cur.line, &p->cur.string, &node));
            SQ_TRY(sq_tmpl_advance(p));
        } else if (p->cur.type == SQ_TT_VAR_BEGIN) {
            SQ_TRY(parse_print(p, &node));
        } else {
            SQ_TRY(sq_tmpl_advance(p));
            if (at_any_word(p, ends)) break;
            SQ_TRY(parse_statement(p, &node));
            SQ_TRY(sq_tmpl_expect(p, SQ_TT_BLOCK_END, "'%}'"));
        }
        SQ_TRY(sq_tmpl_push(p->build, node));
    }
    if (ends && p->cur.type == SQ_TT_EOF)
        return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: the block opened here has no '%s'", line,
                       ends[0]);
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[0]));
    return add(p, SQ_TK_BODY, 0, line, args, out);
}

/* The body of a statement whose head has just been read. */
static squish_status parse_body(sq_tmpl_parser *p, const char *const *ends, uint32_t *out) {
    if (p->cur.type == SQ_TT_COLON) SQ_TRY(sq_tmpl_advance(p)); /* Jinja forgives Python's colon */
    SQ_TRY(sq_tmpl_expect(p, SQ_TT_BLOCK_END, "'%}'"));
    return parse_until(p, ends, out);
}

/* The same, and the single end word is consumed too. */
static squish_status parse_whole_body(sq_tmpl_parser *p, const char *end, uint32_t *out) {
    const char *const ends[] = {end, NULL};
    SQ_TRY(parse_body(p, ends, out));
    return sq_tmpl_advance(p);
}

/* ---- statements ------------------------------------------------------------------------------ */

static squish_status parse_if(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    size_t mark = sq_tmpl_mark(p->build);
    uint32_t test, body, args[2] = {0, SQ_TMPL_NONE};
    bool more = true;
    while (more) {
        SQ_TRY(sq_tmpl_parse_tuple(p, false, NULL, &test));
        SQ_TRY(parse_body(p, ends, &body));
        SQ_TRY(sq_tmpl_push(p->build, test));
        SQ_TRY(sq_tmpl_push(p->build, body));
        SQ_TRY(sq_tmpl_skip_word(p, "elif", &more));
    }
    bool has_else;
    SQ_TRY(sq_tmpl_skip_word(p, "else", &has_else));
    if (has_else) SQ_TRY(parse_whole_body(p, "endif", &args[1]));
    else SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[0]));
    return add(p, SQ_TK_IF, 0, line, args, out);
}

static squish_status parse_for(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    static const char *const ends[] = {"endfor", "else", NULL};
    uint32_t args[5] = {0, 0, SQ_TMPL_NONE, 0, SQ_TMPL_NONE};
    bool found, recursive;
    SQ_TRY(sq_tmpl_parse_target(p, false, "in", &args[0]));
    SQ_TRY(sq_tmpl_skip_word(p, "in", &found));
    if (!found) return sq_tmpl_unexpected(p, "'in'");
    SQ_TRY(sq_tmpl_parse_tuple(p, false, "recursive", &args[1]));
    SQ_TRY(sq_tmpl_skip_word(p, "if", &found));
    if (found) SQ_TRY(sq_tmpl_parse_expr(p, true, &args[2]));
    SQ_TRY(sq_tmpl_skip_word(p, "recursive", &recursive));
    p->loop_depth++;
    SQ_TRY(parse_body(p, ends, &args[3]));
    p->loop_depth--;
    SQ_TRY(sq_tmpl_skip_word(p, "else", &found));
    if (found) SQ_TRY(parse_whole_body(p, "endfor", &args[4]));
    else SQ_TRY(sq_tmpl_advance(p));
    return add(p, SQ_TK_FOR, recursive, line, args, out);
}

static squish_status parse_set(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t args[3] = {0, SQ_TMPL_NONE, 0};
    SQ_TRY(sq_tmpl_parse_target(p, true, NULL, &args[0]));
    if (p->cur.type == SQ_TT_ASSIGN) {
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(sq_tmpl_parse_tuple(p, true, NULL, &args[1]));
        return add(p, SQ_TK_SET, 0, line, args, out);
    }
    if (p->cur.type == SQ_TT_PIPE) SQ_TRY(sq_tmpl_parse_filters(p, false, &args[1]));
    SQ_TRY(parse_whole_body(p, "endset", &args[2]));
    return add(p, SQ_TK_SET_BLOCK, 0, line, args, out);
}

static squish_status parse_filter_block(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t args[2];
    SQ_TRY(sq_tmpl_parse_filters(p, true, &args[0]));
    SQ_TRY(parse_whole_body(p, "endfilter", &args[1]));
    return add(p, SQ_TK_FILTER_BLOCK, 0, line, args, out);
}

static squish_status parse_param(sq_tmpl_parser *p, bool *has_default, uint32_t *out) {
    uint32_t args[2] = {0, SQ_TMPL_NONE}, line = p->cur.line;
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "a parameter name");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type == SQ_TT_ASSIGN) {
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(sq_tmpl_parse_expr(p, true, &args[1]));
        *has_default = true;
    } else if (*has_default) {
        return sq_fail(p->err, SQUISH_CORRUPT,
                       "template line %u: a parameter without default behind one with", line);
    }
    return add(p, SQ_TK_PARAM, 0, line, args, out);
}

/* "(a, b=1)"; an absent list is an empty one. */
static squish_status parse_params(sq_tmpl_parser *p, uint32_t *out) {
    size_t mark = sq_tmpl_mark(p->build);
    bool has_default = false;
    if (p->cur.type == SQ_TT_LPAREN) {
        SQ_TRY(sq_tmpl_advance(p));
        for (uint32_t param; p->cur.type != SQ_TT_RPAREN;) {
            if (sq_tmpl_mark(p->build) > mark) SQ_TRY(sq_tmpl_expect(p, SQ_TT_COMMA, "','"));
            SQ_TRY(parse_param(p, &has_default, &param));
            SQ_TRY(sq_tmpl_push(p->build, param));
        }
        SQ_TRY(sq_tmpl_advance(p));
    }
    return sq_tmpl_list(p->build, mark, out);
}

/* The body of a macro is a function: loops around it end at its border, and it is seen which special names it
 * uses. */
static squish_status parse_macro_body(sq_tmpl_parser *p, uint32_t line, const char *end, uint32_t *args,
                                      uint32_t *out) {
    int loop_depth = p->loop_depth, uses = p->macro_uses;
    p->loop_depth = p->macro_uses = 0;
    SQ_TRY(parse_whole_body(p, end, &args[2]));
    SQ_TRY(add(p, SQ_TK_MACRO, p->macro_uses, line, args, out));
    p->loop_depth = loop_depth;
    p->macro_uses |= uses; /* Jinja looks into macros within macros, too */
    return SQUISH_OK;
}

static squish_status parse_macro(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t args[3], macro;
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "a macro name");
    SQ_TRY(sq_tmpl_intern(p->build, p->cur.p, p->cur.n, &args[0]));
    SQ_TRY(sq_tmpl_advance(p));
    if (p->cur.type != SQ_TT_LPAREN) return sq_tmpl_unexpected(p, "'('");
    SQ_TRY(parse_params(p, &args[1]));
    SQ_TRY(parse_macro_body(p, line, "endmacro", args, &macro));
    return add(p, SQ_TK_MACRO_DEF, 0, line, &macro, out);
}

/* {% call(x) f(1) %}...{% endcall %}: f may call the block as caller(x). */
static squish_status parse_call_block(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t macro[3] = {SQ_TMPL_S_CALLER, 0, 0}, args[2];
    SQ_TRY(parse_params(p, &macro[1]));
    SQ_TRY(sq_tmpl_parse_expr(p, true, &args[0]));
    const sq_tmpl_node *call = (const sq_tmpl_node *)(const void *)p->build->nodes.data + args[0];
    const uint32_t *parts = (const uint32_t *)(const void *)p->build->lists.data + call->arg[1];
    const sq_tmpl_node *last =
        call->kind == SQ_TK_POSTFIX && parts[0] > 0
            ? (const sq_tmpl_node *)(const void *)p->build->nodes.data + parts[parts[0]]
            : NULL;
    if (!last || last->kind != SQ_TK_CALL)
        return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: a call is expected here", line);
    SQ_TRY(parse_macro_body(p, line, "endcall", macro, &args[1]));
    return add(p, SQ_TK_CALL_BLOCK, 0, line, args, out);
}

static squish_status parse_with(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    size_t mark = sq_tmpl_mark(p->build);
    uint32_t args[2], target, value;
    while (p->cur.type != SQ_TT_BLOCK_END) {
        if (sq_tmpl_mark(p->build) > mark) SQ_TRY(sq_tmpl_expect(p, SQ_TT_COMMA, "','"));
        SQ_TRY(sq_tmpl_parse_target(p, false, NULL, &target));
        SQ_TRY(sq_tmpl_expect(p, SQ_TT_ASSIGN, "'='"));
        SQ_TRY(sq_tmpl_parse_expr(p, true, &value));
        SQ_TRY(sq_tmpl_push(p->build, target));
        SQ_TRY(sq_tmpl_push(p->build, value));
    }
    SQ_TRY(sq_tmpl_list(p->build, mark, &args[0]));
    SQ_TRY(parse_whole_body(p, "endwith", &args[1]));
    return add(p, SQ_TK_WITH, 0, line, args, out);
}

/* {% generation %} marks what an assistant says, for training. Its text is the text of its body, in a scope
 * of its own: a `with` without names. */
static squish_status parse_generation(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    uint32_t args[2];
    SQ_TRY(sq_tmpl_list(p->build, sq_tmpl_mark(p->build), &args[0]));
    SQ_TRY(parse_whole_body(p, "endgeneration", &args[1]));
    return add(p, SQ_TK_WITH, 0, line, args, out);
}

static squish_status parse_jump(sq_tmpl_parser *p, sq_tmpl_kind kind, uint32_t line, uint32_t *out) {
    if (p->loop_depth == 0)
        return sq_fail(p->err, SQUISH_CORRUPT, "template line %u: break or continue outside a loop", line);
    return add(p, kind, 0, line, NULL, out);
}
static squish_status parse_break(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    return parse_jump(p, SQ_TK_BREAK, line, out);
}
static squish_status parse_continue(sq_tmpl_parser *p, uint32_t line, uint32_t *out) {
    return parse_jump(p, SQ_TK_CONTINUE, line, out);
}

static const struct {
    const char *word;
    squish_status (*parse)(sq_tmpl_parser *p, uint32_t line, uint32_t *out);
} statements[] = {
    {"if", parse_if},
    {"for", parse_for},
    {"set", parse_set},
    {"macro", parse_macro},
    {"filter", parse_filter_block},
    {"call", parse_call_block},
    {"with", parse_with},
    {"generation", parse_generation},
    {"break", parse_break},
    {"continue", parse_continue},
};

static squish_status parse_statement(sq_tmpl_parser *p, uint32_t *out) {
    if (p->cur.type != SQ_TT_NAME) return sq_tmpl_unexpected(p, "the name of a statement");
    for (size_t i = 0; i < SQ_COUNT(statements); i++) {
        if (!sq_tmpl_at_word(p, statements[i].word)) continue;
        uint32_t line = p->cur.line;
        SQ_TRY(sq_tmpl_nest(p));
        SQ_TRY(sq_tmpl_advance(p));
        SQ_TRY(statements[i].parse(p, line, out));
        p->depth--;
        return SQUISH_OK;
    }
    bool is_end = (p->cur.n > 3 && memcmp(p->cur.p, "end", 3) == 0) || sq_tmpl_at_word(p, "else") ||
                  sq_tmpl_at_word(p, "elif");
    int n = p->cur.n > 40 ? 40 : (int)p->cur.n;
    return sq_fail(p->err, is_end ? SQUISH_CORRUPT : SQUISH_UNSUPPORTED, "template line %u: %s '%.*s'",
                   p->cur.line, is_end ? "nothing is open for" : "unsupported statement", n, p->cur.p);
}

/* The root is added last of all, as open expects. */
squish_status sq_tmpl_parse(sq_tmpl_parser *p) {
    uint32_t root;
    SQ_TRY(sq_tmpl_advance(p));
    SQ_TRY(parse_until(p, NULL, &root));
    return sq_tmpl_scope(p->build);
}

/* ---- compile --------------------------------------------------------------------------------- */

/* \r\n and \r become \n; one final line end is dropped. Returns the bytes left. */
static size_t normalise(const char *source, size_t n, char *out) {
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            out[len++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else {
            out[len++] = source[i];
        }
    }
    return len > 0 && out[len - 1] == '\n' ? len - 1 : len;
}

static squish_status check_source(const char *source, size_t n, squish_error *err) {
    if (n > SQ_MAX_TEMPLATE)
        return sq_fail(err, SQUISH_UNSUPPORTED, "template: %zu bytes, more than %d", n, SQ_MAX_TEMPLATE);
    if (n > 0 && memchr(source, 0, n)) return sq_fail(err, SQUISH_CORRUPT, "template: a NUL byte");
    if (!sq_utf8_valid(source, n)) return sq_fail(err, SQUISH_CORRUPT, "template: ill-formed UTF-8");
    return SQUISH_OK;
}

squish_status sq_tmpl_compile(const char *source, size_t n, const squish_alloc *a, sq_buf *out,
                              squish_error *err) {
    SQ_TRY(check_source(source, n, err));
    sq_tmpl_build build;
    char *text = NULL;
    squish_status st = sq_tmpl_build_init(&build, a, source, n, err);
    if (st == SQUISH_OK && !(text = sq_alloc_new(&build.alloc, n + 1)))
        st = sq_fail(err, SQUISH_NO_MEMORY, "out of memory compiling a template");
    if (st == SQUISH_OK) {
        sq_tmpl_parser p = {.build = &build, .err = err};
        p.lex = (sq_tmpl_lexer){.s = text, .n = normalise(source, n, text), .line = 1, .build = &build};
        st = sq_tmpl_parse(&p);
    }
    if (st == SQUISH_OK) st = sq_tmpl_build_finish(&build, n, out);
    sq_alloc_free(&build.alloc, text, n + 1);
    sq_tmpl_build_deinit(&build);
    return st;
}
