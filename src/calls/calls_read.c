/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_read.c - the small words of which all styles are made, each with three answers: it is there, it is
 * not, or that cannot be said yet. */
#include "calls/calls_int.h"

enum { WORD_MAX = 256, BLANKS_MAX = 256 }; /* bytes of a tool's name, and between two words */

/* What is missing at the end of an answer will not come. */
static calls_answer more(const calls_reader *r) { return r->ended ? CALLS_NO : CALLS_MORE; }

void calls_blanks(calls_reader *r) {
    for (int i = 0; i < BLANKS_MAX && r->at < r->n && calls_is_blank(r->s[r->at]); i++) r->at++;
}

calls_answer calls_literal(calls_reader *r, const char *text) {
    const size_t len = strlen(text), left = r->n - r->at, n = left < len ? left : len;
    if (memcmp(r->s + r->at, text, n) != 0) return CALLS_NO;
    if (n < len) return more(r);
    r->at += len;
    return CALLS_YES;
}

calls_answer calls_word(calls_reader *r, const char **word, size_t *n) {
    const size_t from = r->at;
    while (r->at < r->n) {
        const unsigned char c = (unsigned char)r->s[r->at];
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c < 0x80 && (!c || !strchr("_.-:", c))) break;
        r->at++;
    }
    *word = r->s + from;
    *n = r->at - from;
    if (*n > WORD_MAX) return CALLS_NO;
    if (r->at == r->n) return more(r);
    return *n ? CALLS_YES : CALLS_NO;
}

/* Four hexadecimal digits at s. */
static bool read_unit(const char *s, uint32_t *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        const char c = s[i];
        const int d = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0) return false;
        *unit = *unit << 4 | (uint32_t)d;
    }
    return true;
}

/* The escape at s[0..n), of which the first byte is '\\'; its bytes, 0: it is none. */
static size_t read_escape(const char *s, size_t n, sq_buf *out) {
    static const char from[] = "\"\\/bfnrt", as[] = "\"\\/\b\f\n\r\t";
    uint32_t u, low;
    if (n < 2) return 0;
    const char *at = s[1] ? strchr(from, s[1]) : NULL;
    if (at) return sq_buf_putc(out, as[at - from]), 2;
    if (s[1] != 'u' || n < 6 || !read_unit(s + 2, &u)) return 0;
    size_t used = 6;
    if (u >> 10 == 0x36 && n >= 12 && s[6] == '\\' && s[7] == 'u' && read_unit(s + 8, &low) &&
        low >> 10 == 0x37) {
        u = 0x10000 + ((u & 0x3FF) << 10) + (low & 0x3FF);
        used = 12;
    }
    char utf8[4];
    sq_buf_append(out, utf8, sq_utf8_encode(u, utf8));
    return u ? used : 0;
}

calls_answer calls_string(calls_reader *r, sq_buf *out) {
    size_t end = r->at + 1;
    if (r->at == r->n) return more(r);
    if (r->s[r->at] != '"') return CALLS_NO;
    while (end < r->n && r->s[end] != '"') end += r->s[end] == '\\' ? 2 : 1;
    if (end >= r->n) return end - r->at > 6 * WORD_MAX ? CALLS_NO : more(r);
    for (size_t i = r->at + 1; i < end;) {
        if (r->s[i] != '\\') {
            sq_buf_putc(out, r->s[i++]);
            continue;
        }
        const size_t used = read_escape(r->s + i, end - i, out);
        if (used == 0) return CALLS_NO;
        i += used;
    }
    r->at = end + 1;
    return CALLS_YES;
}

calls_answer calls_read_arguments(sq_calls *p) {
    const char *s = calls_here(p);
    const size_t n = calls_left(p);
    calls_answer a = CALLS_MORE;
    size_t i = 0;
    while (i < n && a == CALLS_MORE) a = calls_json_byte(&p->json, (unsigned char)s[i++]);
    if (a == CALLS_NO) i--; /* that byte belongs to something else */
    if (i) {
        calls_arguments(p, s, i);
        calls_consume(p, i);
    }
    return a == CALLS_MORE && p->ended ? CALLS_NO : a;
}
