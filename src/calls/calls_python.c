/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_python.c - [f(city="Oslo", days=3), g()]: a list of calls as Python writes them, bare (Llama 4) or
 * between marks (LFM2). Arguments have names; their values are literals: strings, numbers, True, False, None,
 * lists, tuples, dictionaries.
 *
 * A call is read once its closing bracket is there, which is found by counting brackets outside of strings.
 */
#include "calls/calls_int.h"

#include <stdlib.h>

enum { LIST, CALL, BEHIND, CLOSE };
enum { NESTED_MAX = 64 };

/* ---- literals -------------------------------------------------------------------------------- */

/* Python text that is all there: s[at..n). */
typedef struct {
    const char *s;
    size_t n, at;
    int32_t depth;
} literal;

static void blanks(literal *l) {
    while (l->at < l->n && calls_is_blank(l->s[l->at])) l->at++;
}

static bool take(literal *l, char c) {
    blanks(l);
    if (l->at == l->n || l->s[l->at] != c) return false;
    l->at++;
    return true;
}

/* Hexadecimal digits of an escape. */
static bool read_hex(literal *l, int digits, uint32_t *out) {
    char text[9] = "", *end;
    if (l->n - l->at < (size_t)digits) return false;
    memcpy(text, l->s + l->at, (size_t)digits);
    *out = (uint32_t)strtoul(text, &end, 16);
    l->at += (size_t)digits;
    return end == text + digits && text[0] != '-' && text[0] != '+' && !calls_is_blank(text[0]);
}

/* Behind a backslash. */
static bool read_escape(literal *l, sq_buf *out) {
    static const char from[] = "nrtbf\\'\"", as[] = "\n\r\t\b\f\\'\"";
    if (l->at == l->n) return false;
    const char c = l->s[l->at++], *at = c ? strchr(from, c) : NULL;
    if (at) return sq_buf_putc(out, as[at - from]);
    if (c != 'x' && c != 'u') return sq_buf_putc(out, '\\') && sq_buf_putc(out, c); /* as Python does */
    uint32_t cp;
    char utf8[4];
    if (!read_hex(l, c == 'x' ? 2 : 4, &cp) || cp == 0) return false;
    return sq_buf_append(out, utf8, sq_utf8_encode(cp, utf8));
}

/* Appends a JSON string. */
static bool put_string(sq_buf *out, const char *s, size_t n) {
    json_t *v = json_stringn(s, n);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    const bool ok = text && sq_buf_puts(out, text);
    free(text);
    json_decref(v);
    return ok;
}

static bool read_string(literal *l, sq_buf *out) {
    const char quote = l->s[l->at++];
    sq_buf text;
    sq_buf_init(&text, &out->alloc, out->max);
    bool ok = true;
    while (ok && l->at < l->n && l->s[l->at] != quote) {
        const char c = l->s[l->at++];
        ok = c == '\\' ? read_escape(l, &text) : sq_buf_putc(&text, c);
    }
    ok = ok && take(l, quote) && put_string(out, text.data ? text.data : "", text.len);
    sq_buf_deinit(&text);
    return ok;
}

static bool read_value(literal *l, sq_buf *out);

/* Values up to `close`; keys: of a dictionary. */
static bool read_items(literal *l, char close, bool keys, sq_buf *out) {
    for (bool first = true; !take(l, close); first = false) {
        if (!first && !take(l, ',')) return false;
        if (!first && take(l, close)) return true; /* a comma at the end */
        if (!first) sq_buf_putc(out, ',');
        blanks(l);
        if (keys) {
            if (l->at == l->n || (l->s[l->at] != '"' && l->s[l->at] != '\'') || !read_string(l, out) ||
                !take(l, ':'))
                return false;
            sq_buf_putc(out, ':');
        }
        if (!read_value(l, out)) return false;
    }
    return true;
}

static bool read_nested(literal *l, sq_buf *out) {
    const char open = l->s[l->at++];
    if (l->depth == NESTED_MAX) return false;
    l->depth++;
    sq_buf_putc(out, open == '{' ? '{' : '[');
    const bool ok = read_items(l, open == '{' ? '}' : open == '[' ? ']' : ')', open == '{', out);
    l->depth--;
    return ok && sq_buf_putc(out, open == '{' ? '}' : ']');
}

/* A word of Python or JSON, or a number as JSON writes it. */
static bool read_plain(literal *l, sq_buf *out) {
    static const char *const words[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                                           {"true", "true"}, {"false", "false"}, {"null", "null"}};
    const char *s = l->s + l->at;
    size_t n = 0;
    while (l->at + n < l->n && s[n] && !strchr(",)]}: \t\r\n", s[n])) n++;
    l->at += n;
    for (size_t i = 0; i < SQ_COUNT(words); i++)
        if (strlen(words[i][0]) == n && memcmp(words[i][0], s, n) == 0) return sq_buf_puts(out, words[i][1]);
    json_t *v = n && strchr("-0123456789", s[0]) ? json_loadb(s, n, JSON_DECODE_ANY, NULL) : NULL;
    const bool ok = json_is_number(v) && sq_buf_append(out, s, n);
    json_decref(v);
    return ok;
}

static bool read_value(literal *l, sq_buf *out) {
    blanks(l);
    if (l->at == l->n) return false;
    const char c = l->s[l->at];
    if (c == '"' || c == '\'') return read_string(l, out);
    if (c == '[' || c == '{' || c == '(') return read_nested(l, out);
    return read_plain(l, out);
}

/* k=v, ... up to the closing bracket, as a JSON object. */
static bool read_keywords(literal *l, sq_buf *out) {
    sq_buf_putc(out, '{');
    for (bool first = true; !take(l, ')'); first = false) {
        if (!first && !take(l, ',')) return false;
        blanks(l);
        const size_t from = l->at;
        while (l->at < l->n && l->s[l->at] && !strchr("=,()[]{}'\" \t\r\n", l->s[l->at])) l->at++;
        const size_t n = l->at - from;
        if (!first) sq_buf_putc(out, ',');
        if (n == 0 || !put_string(out, l->s + from, n) || !take(l, '=')) return false;
        sq_buf_putc(out, ':');
        if (!read_value(l, out)) return false;
    }
    return sq_buf_putc(out, '}');
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* From `scan` on, which stays at the closing bracket of a call that began at `from`. */
static calls_answer find_end(sq_calls *p, size_t from) {
    if (p->scan < from) {
        p->scan = from;
        p->depth = 0;
        p->quote = 0;
        p->escaped = false;
    }
    for (; p->scan < p->in.len; p->scan++) {
        const char c = p->in.data[p->scan];
        if (p->quote) {
            if (p->escaped)
                p->escaped = false;
            else if (c == '\\')
                p->escaped = true;
            else if (c == p->quote)
                p->quote = 0;
        } else if (c == '"' || c == '\'') {
            p->quote = c;
        } else if (c == '(' || c == '[' || c == '{') {
            p->depth++;
        } else if ((c == ')' || c == ']' || c == '}') && --p->depth == 0) {
            return c == ')' ? CALLS_YES : CALLS_NO;
        }
    }
    return p->ended ? CALLS_NO : CALLS_MORE;
}

calls_answer calls_python_call(sq_calls *p, const char *name, size_t n, size_t at) {
    if (at == calls_left(p)) return p->ended ? CALLS_NO : CALLS_MORE;
    if (calls_here(p)[at] != '(') return CALLS_NO;
    /* Read from the byte behind what was consumed: `scan` may not lie there yet, but never behind it. */
    calls_answer a = find_end(p, p->at + at);
    if (a != CALLS_YES) return a;
    const size_t end = p->scan + 1 - p->at;
    literal l = {.s = calls_here(p), .n = end, .at = at + 1};
    sq_buf json;
    sq_buf_init(&json, &p->alloc, p->in.max);
    a = read_keywords(&l, &json) && l.at == end && !json.failed && calls_begin(p, name, n) ? CALLS_YES
                                                                                           : CALLS_NO;
    if (a == CALLS_YES) calls_arguments(p, json.data, json.len);
    calls_consume(p, end);
    if (a == CALLS_YES) calls_end(p);
    sq_buf_deinit(&json);
    return a;
}

static calls_answer list(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    const calls_answer a = calls_literal(&r, "[");
    if (a != CALLS_YES) return a;
    calls_consume(p, r.at);
    p->stage = CALL;
    return a;
}

static calls_answer call(sq_calls *p) {
    calls_reader r = calls_read(p);
    const char *word;
    size_t n;
    calls_blanks(&r);
    const calls_answer a = calls_word(&r, &word, &n);
    if (a != CALLS_YES) return a;
    const calls_answer whole = calls_python_call(p, word, n, r.at);
    if (whole == CALLS_YES) p->stage = BEHIND;
    return whole;
}

static calls_answer behind(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_YES : CALLS_MORE;
    const char c = r.s[r.at];
    if (c != ',' && c != ']') return CALLS_NO;
    p->stage = c == ',' ? CALL : CLOSE;
    calls_consume(p, r.at + 1);
    return CALLS_YES;
}

static calls_answer read_python(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        const int32_t stage = p->stage;
        if (stage == LIST) a = list(p);
        if (stage == CALL) a = call(p);
        if (stage == BEHIND) a = behind(p);
        if (stage == CLOSE) {
            calls_reader r = calls_read(p);
            calls_blanks(&r);
            a = calls_literal(&r, calls_python.close);
            if (a == CALLS_YES) calls_consume(p, r.at);
            return a == CALLS_MORE ? a : CALLS_YES;
        }
        if (a != CALLS_YES) return a;
        if (stage == BEHIND && p->stage == BEHIND) return a;
    }
}

const calls_style calls_python = {.name = "python",
                                  .open = {"<|tool_call_start|>"},
                                  .close = "<|tool_call_end|>",
                                  .bare = '[',
                                  .read = read_python};
