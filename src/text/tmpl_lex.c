/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_lex.c - from Jinja source to tokens, white space control included.
 *
 * Outside tags, text runs to the next "{%", "{{" or "{#". A minus sign inside a tag eats the white space on
 * that side; without one, a block or comment alone at the start of its line loses the blanks before it
 * (lstrip_blocks) and the line end after it (trim_blocks); a plus sign keeps them. Inside tags an end mark
 * counts only when no bracket is open, so that {{ {"a": {}}}} closes where it should. */
#include "text/tmpl_int.h"

#include <locale.h>
#include <stdlib.h>
#include <utf8proc.h>

static squish_status fail(const sq_tmpl_lexer *l, squish_status code, const char *what) {
    return sq_fail(l->build->err, code, "template line %u: %s", l->line, what);
}

static bool at(const sq_tmpl_lexer *l, size_t pos, const char *mark) {
    size_t n = strlen(mark);
    return pos <= l->n && l->n - pos >= n && memcmp(l->s + pos, mark, n) == 0;
}

static size_t skip_space(const sq_tmpl_lexer *l, size_t pos) {
    while (pos < l->n) {
        uint32_t cp;
        size_t step = sq_utf8_decode(l->s + pos, l->n - pos, &cp, NULL);
        if (!sq_tmpl_is_space(cp)) break;
        pos += step;
    }
    return pos;
}

static void move_to(sq_tmpl_lexer *l, size_t pos) {
    for (; l->pos < pos; l->pos++)
        if (l->s[l->pos] == '\n') l->line++;
}

/* The end mark of a block or comment at pos, with what it swallows. 0: none here. */
static size_t block_end(const sq_tmpl_lexer *l, size_t pos, const char *mark) {
    char signed_mark[4] = {'-', mark[0], mark[1], 0};
    if (at(l, pos, signed_mark)) return skip_space(l, pos + 3);
    signed_mark[0] = '+';
    if (at(l, pos, signed_mark)) return pos + 3;
    if (!at(l, pos, mark)) return 0;
    pos += 2;
    return pos < l->n && l->s[pos] == '\n' ? pos + 1 : pos;
}

/* Is a tag "{% WORD %}" (any signs) at pos? Gives its first sign and the place of its end mark. */
static size_t word_tag(const sq_tmpl_lexer *l, size_t pos, const char *word, char *sign) {
    if (!at(l, pos, "{%")) return 0;
    pos += 2;
    *sign = pos < l->n && (l->s[pos] == '-' || l->s[pos] == '+') ? l->s[pos++] : 0;
    pos = skip_space(l, pos);
    if (!at(l, pos, word)) return 0;
    return skip_space(l, pos + strlen(word));
}

/* Text from l->pos to `end`, where a tag with this sign stands: emitted unless white space control leaves
 * nothing. */
static squish_status text_token(sq_tmpl_lexer *l, size_t end, char sign, bool can_lstrip, sq_tmpl_token *out,
                                bool *emitted) {
    const char *text = l->s + l->pos;
    size_t n = end - l->pos;
    if (sign == '-') {
        n = sq_tmpl_strip(text, n, NULL, false, true).n;
    } else if (sign != '+' && can_lstrip) {
        size_t line = n;
        while (line > 0 && text[line - 1] != '\n') line--;
        bool at_line_start = line > 0 || l->pos == 0 || text[-1] == '\n';
        if (at_line_start && sq_tmpl_strip(text + line, n - line, NULL, true, false).n == 0) n = line;
    }
    *out = (sq_tmpl_token){.type = SQ_TT_DATA, .line = l->line, .p = text, .n = (uint32_t)n};
    *emitted = n > 0;
    move_to(l, end);
    return n > 0 ? sq_tmpl_intern(l->build, text, n, &out->string) : SQUISH_OK;
}

static squish_status skip_comment(sq_tmpl_lexer *l) {
    size_t start = l->pos + 2;
    if (start < l->n && (l->s[start] == '-' || l->s[start] == '+')) start++;
    for (size_t pos = start; pos < l->n; pos++) {
        size_t after = block_end(l, pos, "#}");
        if (after == 0) continue;
        move_to(l, after);
        return SQUISH_OK;
    }
    if (start >= l->n) return move_to(l, l->n), SQUISH_OK; /* Jinja lets an opening mark end the source */
    return fail(l, SQUISH_CORRUPT, "this comment has no end");
}

/* {% raw %} text {% endraw %}; l->pos is at the opening tag, `body` behind it. */
static squish_status raw_token(sq_tmpl_lexer *l, size_t body, sq_tmpl_token *out, bool *emitted) {
    move_to(l, body);
    for (size_t pos = body; pos < l->n; pos++) {
        char sign;
        size_t mark = word_tag(l, pos, "endraw", &sign);
        size_t after = mark ? block_end(l, mark, "%}") : 0;
        if (after == 0) continue;
        SQ_TRY(text_token(l, pos, sign, true, out, emitted));
        move_to(l, after);
        return SQUISH_OK;
    }
    *emitted = false;
    return body == l->n ? SQUISH_OK : fail(l, SQUISH_CORRUPT, "this raw block has no end");
}

static size_t raw_begin(const sq_tmpl_lexer *l, size_t pos) {
    char sign;
    size_t mark = word_tag(l, pos, "raw", &sign);
    if (mark == 0) return 0;
    if (at(l, mark, "-%}")) return skip_space(l, mark + 3);
    return at(l, mark, "%}") ? mark + 2 : 0;
}

static size_t next_tag(const sq_tmpl_lexer *l, size_t pos) {
    while (pos < l->n) {
        const char *brace = memchr(l->s + pos, '{', l->n - pos);
        if (!brace) return l->n;
        pos = (size_t)(brace - l->s);
        if (at(l, pos, "{%") || at(l, pos, "{{") || at(l, pos, "{#")) return pos;
        pos++;
    }
    return l->n;
}

/* Step over the opening mark at l->pos. What it opens is remembered in `pending` (EOF: a comment, now
 * skipped). */
static squish_status open_tag(sq_tmpl_lexer *l, sq_tmpl_token *out, bool *emitted) {
    *emitted = false;
    if (at(l, l->pos, "{#")) return skip_comment(l);
    size_t body = raw_begin(l, l->pos);
    if (body) return raw_token(l, body, out, emitted);
    l->pending = at(l, l->pos, "{{") ? SQ_TT_VAR_BEGIN : SQ_TT_BLOCK_BEGIN;
    move_to(l, l->pos + 2);
    if (l->pos < l->n && (l->s[l->pos] == '-' || l->s[l->pos] == '+')) l->pos++;
    return SQUISH_OK;
}

static squish_status lex_text(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    bool emitted = false;
    while (!emitted) {
        if (l->pending != SQ_TT_EOF) {
            *out = (sq_tmpl_token){.type = l->pending, .line = l->line};
            l->mode = l->pending;
            l->pending = SQ_TT_EOF;
            return SQUISH_OK;
        }
        size_t tag = next_tag(l, l->pos);
        if (tag == l->n && l->pos == l->n) {
            *out = (sq_tmpl_token){.type = SQ_TT_EOF, .line = l->line};
            return SQUISH_OK;
        }
        if (tag == l->pos) {
            SQ_TRY(open_tag(l, out, &emitted));
            continue;
        }
        char sign = '+';
        if (tag < l->n)
            sign = tag + 2 < l->n && (l->s[tag + 2] == '-' || l->s[tag + 2] == '+') ? l->s[tag + 2] : 0;
        SQ_TRY(text_token(l, tag, sign, !at(l, tag, "{{"), out, &emitted));
    }
    return SQUISH_OK;
}

/* ---- inside tags ----------------------------------------------------------------------------- */

/* Digits with single underscores between them. */
static size_t digits(const sq_tmpl_lexer *l, size_t pos, int base) {
    size_t start = pos;
    while (pos < l->n) {
        char c = l->s[pos];
        if (c == '_' && pos > start && pos + 1 < l->n) c = l->s[pos + 1];
        else if (c == '_') break;
        int v = sq_tmpl_digit(c);
        if (v >= base) break;
        pos += l->s[pos] == '_' ? 2 : 1;
    }
    return pos;
}

bool sq_tmpl_parse_f64(const char *s, size_t n, double *out) {
    char buf[512];
    size_t len = 0;
    const char *point = localeconv()->decimal_point;
    for (size_t i = 0; i < n; i++) {
        if (len + 8 > sizeof buf) return false;
        if (s[i] == '_') continue;
        if (s[i] == '.') {
            size_t n_point = strnlen(point, 4);
            memcpy(buf + len, point, n_point);
            len += n_point;
        } else {
            buf[len++] = s[i];
        }
    }
    buf[len] = 0;
    char *end;
    *out = strtod(buf, &end);
    return len > 0 && *end == 0;
}

static squish_status lex_integer(sq_tmpl_lexer *l, size_t start, sq_tmpl_token *out) {
    int base = 10;
    size_t first = start;
    char kind = start + 1 < l->n && l->s[start] == '0' ? (char)(l->s[start + 1] | 32) : 0;
    if (kind == 'x' || kind == 'o' || kind == 'b') {
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : 2;
        first = start + 2;
        if (first < l->n && l->s[first] == '_') first++;
    }
    size_t end = digits(l, first, base);
    if (end == first) return fail(l, SQUISH_CORRUPT, "a number without digits");
    uint64_t value = 0;
    for (size_t i = first; i < end; i++) {
        char c = l->s[i];
        if (c == '_') continue;
        uint64_t digit = (uint64_t)sq_tmpl_digit(c);
        if (!sq_mul_ok(value, (uint64_t)base, &value) || !sq_add_ok(value, digit, &value) ||
            value > INT64_MAX)
            return fail(l, SQUISH_UNSUPPORTED, "an integer of more than 63 bits");
    }
    if (base == 10 && l->s[start] == '0' && value != 0)
        return fail(l, SQUISH_CORRUPT, "a decimal number with a leading zero");
    out->type = SQ_TT_INT;
    out->u.i = (int64_t)value;
    l->pos = end;
    return SQUISH_OK;
}

static squish_status lex_number(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    size_t start = l->pos, end = digits(l, start, 10);
    bool is_float = false;
    bool after_dot = start > 0 && l->s[start - 1] == '.'; /* x.0.1 is an index of an index */
    if (!after_dot && end < l->n && l->s[end] == '.') {
        size_t frac = digits(l, end + 1, 10);
        if (frac > end + 1) end = frac, is_float = true;
    }
    if (!after_dot && end < l->n && (l->s[end] | 32) == 'e') {
        size_t sign = end + 1 < l->n && (l->s[end + 1] == '+' || l->s[end + 1] == '-') ? 2 : 1;
        size_t exp = digits(l, end + sign, 10);
        if (exp > end + sign) end = exp, is_float = true;
    }
    if (!is_float) return lex_integer(l, start, out);
    out->type = SQ_TT_FLOAT;
    if (!sq_tmpl_parse_f64(l->s + start, end - start, &out->u.f))
        return fail(l, SQUISH_UNSUPPORTED, "a number of more than 500 characters");
    l->pos = end;
    return SQUISH_OK;
}

static bool is_word(uint32_t cp, bool first) {
    if (cp < 0x80) {
        uint32_t lower = cp | 32;
        return (lower >= 'a' && lower <= 'z') || cp == '_' || (!first && cp >= '0' && cp <= '9');
    }
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
    return letter || c == UTF8PROC_CATEGORY_NL ||
           (!first && (c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ND ||
                       c == UTF8PROC_CATEGORY_PC));
}

static size_t word_end(const sq_tmpl_lexer *l, size_t pos) {
    size_t start = pos;
    while (pos < l->n) {
        uint32_t cp;
        size_t step = sq_utf8_decode(l->s + pos, l->n - pos, &cp, NULL);
        if (!is_word(cp, pos == start)) break;
        pos += step;
    }
    return pos;
}

/* \xHH, \uHHHH, \UHHHHHHHH, octal: the code point, and the bytes used behind the backslash; 0: malformed. */
static size_t numeric_escape(const char *s, size_t n, uint32_t *cp) {
    size_t max = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 3;
    int base = max == 3 ? 8 : 16;
    size_t i = max == 3 ? 0 : 1, used = 0;
    uint64_t v = 0;
    for (; used < max && i < n; used++, i++) {
        char c = s[i];
        int d = sq_tmpl_digit(c);
        if (d >= base) break;
        v = v * (uint64_t)base + (uint64_t)d;
    }
    if (max != 3 && used < max) return 0;
    *cp = v > 0x10ffff ? 0xd800 : (uint32_t)v; /* out of range: treated as a lone surrogate by the caller */
    return i;
}

/* One escape behind a backslash at s[0..n). Returns the bytes used, 0 if malformed or not representable. */
static size_t unescape(const char *s, size_t n, sq_buf *out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s[0];
    const char *hit = c ? strchr(from, c) : NULL;
    if (c == '\n') return 1;
    if (hit) {
        sq_buf_putc(out, to[hit - from]);
        return 1;
    }
    if (c == 'x' || c == 'u' || c == 'U' || (c >= '0' && c <= '7')) {
        uint32_t cp = 0;
        size_t used = numeric_escape(s, n, &cp);
        if (used == 0 || (cp >= 0xd800 && cp < 0xe000) || cp == 0) return 0;
        char utf8[4];
        sq_buf_append(out, utf8, sq_utf8_encode(cp, utf8));
        return used;
    }
    if (c == 'N') return 0;
    sq_buf_putc(out, '\\'); /* Python keeps escapes it does not know */
    sq_buf_putc(out, c);
    return 1;
}

static squish_status lex_string(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    char quote = l->s[l->pos];
    size_t end = l->pos + 1;
    while (end < l->n && l->s[end] != quote) end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n) return fail(l, SQUISH_CORRUPT, "this string has no end");
    sq_buf text;
    sq_buf_init(&text, &l->build->alloc, SQ_MAX_TEMPLATE);
    squish_status st = SQUISH_OK;
    for (size_t i = l->pos + 1; i < end && st == SQUISH_OK;) {
        if (l->s[i] != '\\') {
            sq_buf_putc(&text, l->s[i++]);
            continue;
        }
        size_t used = unescape(l->s + i + 1, end - i - 1, &text);
        if (used == 0)
            st = fail(l, SQUISH_UNSUPPORTED,
                      "a string escape that is malformed, named, NUL or half a surrogate pair");
        i += 1 + used;
    }
    if (st == SQUISH_OK && text.failed) st = fail(l, SQUISH_NO_MEMORY, "out of memory");
    out->type = SQ_TT_STRING;
    if (st == SQUISH_OK) st = sq_tmpl_intern(l->build, text.data ? text.data : "", text.len, &out->string);
    sq_buf_deinit(&text);
    move_to(l, end + 1);
    return st;
}

static const struct {
    char text[3];
    uint8_t type;
} operators[] = {
    {"//", SQ_TT_FLOORDIV}, {"**", SQ_TT_POW},   {"==", SQ_TT_EQ},      {"!=", SQ_TT_NE},
    {"<=", SQ_TT_LE},       {">=", SQ_TT_GE},    {"+", SQ_TT_ADD},      {"-", SQ_TT_SUB},
    {"*", SQ_TT_MUL},       {"/", SQ_TT_DIV},    {"%", SQ_TT_MOD},      {"~", SQ_TT_TILDE},
    {"<", SQ_TT_LT},        {">", SQ_TT_GT},     {"=", SQ_TT_ASSIGN},   {".", SQ_TT_DOT},
    {",", SQ_TT_COMMA},     {":", SQ_TT_COLON},  {"|", SQ_TT_PIPE},     {";", SQ_TT_SEMICOLON},
    {"(", SQ_TT_LPAREN},    {")", SQ_TT_RPAREN}, {"[", SQ_TT_LBRACKET}, {"]", SQ_TT_RBRACKET},
    {"{", SQ_TT_LBRACE},    {"}", SQ_TT_RBRACE},
};

/* Brackets must pair, or the end of the tag could not be told. */
static squish_status balance(sq_tmpl_lexer *l, const char *op) {
    const char *open = strchr("([{", op[0]);
    if (open) {
        if (l->n_closers == sizeof l->closers)
            return fail(l, SQUISH_UNSUPPORTED, "brackets nested too deeply");
        l->closers[l->n_closers++] = ")]}"[open - "([{"];
        return SQUISH_OK;
    }
    if (!strchr(")]}", op[0])) return SQUISH_OK;
    if (l->n_closers == 0 || l->closers[--l->n_closers] != op[0])
        return sq_fail(l->build->err, SQUISH_CORRUPT, "template line %u: unexpected '%s'", l->line, op);
    return SQUISH_OK;
}

static squish_status lex_operator(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    for (size_t i = 0; i < SQ_COUNT(operators); i++) {
        if (!at(l, l->pos, operators[i].text)) continue;
        SQ_TRY(balance(l, operators[i].text));
        out->type = (sq_tmpl_token_type)operators[i].type;
        l->pos += strlen(operators[i].text);
        return SQUISH_OK;
    }
    uint32_t cp;
    size_t n = sq_utf8_decode(l->s + l->pos, l->n - l->pos, &cp, NULL);
    return sq_fail(l->build->err, SQUISH_CORRUPT, "template line %u: unexpected character '%.*s'", l->line,
                   (int)n, l->s + l->pos);
}

/* The end of the tag we are in, if it is here: where text goes on. 0: not here. */
static size_t tag_end(const sq_tmpl_lexer *l) {
    if (l->n_closers > 0) return 0;
    if (l->mode == SQ_TT_BLOCK_BEGIN) return block_end(l, l->pos, "%}");
    if (at(l, l->pos, "-}}")) return skip_space(l, l->pos + 3);
    return at(l, l->pos, "}}") ? l->pos + 2 : 0;
}

static squish_status lex_tag(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    size_t end = tag_end(l);
    if (!end) {
        move_to(l, skip_space(l, l->pos));
        end = tag_end(l);
    }
    *out = (sq_tmpl_token){.type = SQ_TT_EOF, .line = l->line, .p = l->s + l->pos};
    size_t start = l->pos;
    squish_status st = SQUISH_OK;
    if (end) {
        out->type = l->mode == SQ_TT_BLOCK_BEGIN ? SQ_TT_BLOCK_END : SQ_TT_VAR_END;
        l->mode = SQ_TT_EOF;
        move_to(l, end);
        return SQUISH_OK;
    }
    if (start == l->n) return SQUISH_OK;
    char c = l->s[start];
    if (c >= '0' && c <= '9') {
        st = lex_number(l, out);
    } else if (c == '"' || c == '\'') {
        st = lex_string(l, out);
    } else if (word_end(l, start) > start) {
        out->type = SQ_TT_NAME;
        l->pos = word_end(l, start);
    } else {
        st = lex_operator(l, out);
    }
    out->n = (uint32_t)(l->pos - start);
    return st;
}

squish_status sq_tmpl_lex(sq_tmpl_lexer *l, sq_tmpl_token *out) {
    return l->mode == SQ_TT_EOF ? lex_text(l, out) : lex_tag(l, out);
}
