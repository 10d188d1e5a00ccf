/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_chars.c - sets of code points as terms over the bytes of UTF-8, and texts as JSON writes them.
 *
 * A range of code points of one encoded length is cut where a continuation byte wraps around; each piece is
 * then a product of byte ranges. Ill-formed UTF-8 (overlong forms, surrogates) is in none of them. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

enum { CODE_POINT_MAX = 0x10FFFF, TEXTS_LEVEL_MAX = 200 };

static void push(gram_pool *p, gram_term t) { gram_vec_push_u32(p, &p->scratch, t); }

/* lo and hi have the same encoded length. */
static void push_pieces(gram_pool *p, uint32_t lo, uint32_t hi) {
    char a[4], b[4];
    const size_t n = sq_utf8_encode(lo, a);
    sq_utf8_encode(hi, b);
    for (size_t i = 1; i < n; i++) {
        const uint32_t m = (1u << 6 * i) - 1;
        if ((lo & ~m) == (hi & ~m)) continue;
        if (lo & m) {
            push_pieces(p, lo, lo | m);
            push_pieces(p, (lo | m) + 1, hi);
            return;
        }
        if ((hi & m) != m) {
            push_pieces(p, lo, (hi & ~m) - 1);
            push_pieces(p, hi & ~m, hi);
            return;
        }
    }
    gram_term t = GRAM_EPS;
    for (size_t i = n; i-- > 0;) t = gram_cat(p, gram_byte(p, (uint8_t)a[i], (uint8_t)b[i]), t);
    push(p, t);
}

/* Pieces of a range on scratch, cut at encoded lengths and around the surrogates. */
static void push_range(gram_pool *p, uint32_t lo, uint32_t hi) {
    static const gram_range parts[] = {
        {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, CODE_POINT_MAX}};
    for (size_t i = 0; i < SQ_COUNT(parts); i++) {
        const uint32_t a = lo > parts[i].lo ? lo : parts[i].lo, b = hi < parts[i].hi ? hi : parts[i].hi;
        if (a <= b) push_pieces(p, a, b);
    }
}

static gram_term hex_digit(gram_pool *p, unsigned v) {
    const char *digits = "0123456789abcdef";
    const gram_term t = gram_byte(p, (uint8_t)digits[v], (uint8_t)digits[v]);
    return v < 10 ? t : gram_alt(p, t, gram_byte(p, (uint8_t)(digits[v] - 32), (uint8_t)(digits[v] - 32)));
}

/* The letter of a short escape that a code point must or may have; 0: none. */
static char short_escape(uint32_t c) {
    switch (c) {
    case '"':
    case '\\': return (char)c;
    case '\b': return 'b';
    case '\f': return 'f';
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return 0;
    }
}

/* A code point that must be escaped: the short form, and \u00XX. */
static gram_term escaped(gram_pool *p, uint32_t c, bool canonical) {
    const char e = short_escape(c), backslash = '\\';
    gram_term s = GRAM_EMPTY;
    if (e) s = gram_cat(p, gram_literal(p, &backslash, 1), gram_literal(p, &e, 1));
    if (e && canonical) return s;
    const gram_term u =
        gram_cat(p, gram_literal(p, "\\u00", 4), gram_cat(p, hex_digit(p, c >> 4), hex_digit(p, c & 15)));
    return gram_alt(p, s, u);
}

static bool must_escape(uint32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

static void push_json_range(gram_pool *p, uint32_t lo, uint32_t hi) {
    for (uint32_t c = lo; c <= hi && c <= '\\'; c++)
        if (must_escape(c)) push(p, escaped(p, c, false));
    static const gram_range raw[] = {{0x20, '!'}, {'#', '['}, {']', CODE_POINT_MAX}};
    for (size_t i = 0; i < SQ_COUNT(raw); i++) {
        const uint32_t a = lo > raw[i].lo ? lo : raw[i].lo, b = hi < raw[i].hi ? hi : raw[i].hi;
        if (a <= b) push_range(p, a, b);
    }
}

gram_term gram_chars(gram_pool *p, const gram_range *r, size_t n, gram_spelling s) {
    const size_t base = p->scratch.n;
    for (size_t i = 0; i < n; i++) {
        const uint32_t hi = r[i].hi < CODE_POINT_MAX ? r[i].hi : CODE_POINT_MAX;
        if (s == GRAM_PLAIN)
            push_range(p, r[i].lo, hi);
        else
            push_json_range(p, r[i].lo, hi);
    }
    return gram_alt_list(p, base);
}

gram_term gram_chars_except(gram_pool *p, const gram_range *r, size_t n) {
    const size_t base = p->scratch.n;
    uint32_t from = 0;
    while (from <= CODE_POINT_MAX) { /* the next stretch that no range covers */
        uint32_t next = CODE_POINT_MAX + 1;
        bool covered = false;
        for (size_t i = 0; i < n && !covered; i++) {
            covered = r[i].lo <= from && from <= r[i].hi;
            if (covered)
                from = r[i].hi + 1;
            else if (r[i].lo > from && r[i].lo < next)
                next = r[i].lo;
        }
        if (covered) continue;
        push_range(p, from, next - 1);
        from = next;
    }
    return gram_alt_list(p, base);
}

static gram_term hex_range(gram_pool *p, const char *ranges) {
    gram_term t = GRAM_EMPTY;
    for (; *ranges; ranges += 2) t = gram_alt(p, t, gram_byte(p, (uint8_t)ranges[0], (uint8_t)ranges[1]));
    return t;
}

gram_term gram_any_char(gram_pool *p, gram_spelling s) {
    static const gram_range all = {0, CODE_POINT_MAX},
                            raw[] = {{0x20, '!'}, {'#', '['}, {']', CODE_POINT_MAX}};
    if (s == GRAM_PLAIN) return gram_chars(p, &all, 1, s);
    if (p->any_char && !gram_failed(p)) return p->any_char;
    const gram_term hex = hex_range(p, "09afAF");
    /* \u: not a surrogate, or a high one and a low one. */
    const gram_term d = hex_range(p, "ddDD");
    const gram_term unit = gram_alt(p, gram_cat(p, hex_range(p, "09acACefEF"), gram_rep(p, hex, 3, 3)),
                                    gram_cat(p, d, gram_cat(p, hex_range(p, "07"), gram_rep(p, hex, 2, 2))));
    const gram_term high = gram_cat(p, d, gram_cat(p, hex_range(p, "89abAB"), gram_rep(p, hex, 2, 2)));
    const gram_term low = gram_cat(p, d, gram_cat(p, hex_range(p, "cfCF"), gram_rep(p, hex, 2, 2)));
    const gram_term pair = gram_cat(p, high, gram_cat(p, gram_literal(p, "\\u", 2), low));
    const gram_term u = gram_cat(p, gram_byte(p, 'u', 'u'), gram_alt(p, unit, pair));
    const size_t base = p->scratch.n;
    for (const char *c = "\"\\/bfnrt"; *c; c++) push(p, gram_literal(p, c, 1));
    push(p, u);
    const gram_term escape = gram_cat(p, gram_literal(p, "\\", 1), gram_alt_list(p, base));
    for (size_t i = 0; i < SQ_COUNT(raw); i++) push_range(p, raw[i].lo, raw[i].hi);
    push(p, escape);
    return p->any_char = gram_alt_list(p, base);
}

gram_term gram_text(gram_pool *p, const char *s, size_t n, gram_spelling spelling) {
    gram_term t = GRAM_EPS;
    while (n--) {
        const uint8_t c = (uint8_t)s[n];
        const bool esc = spelling == GRAM_IN_JSON && must_escape(c);
        t = gram_cat(p, esc ? escaped(p, c, true) : gram_byte(p, c, c), t);
    }
    return t;
}

static int by_bytes(const void *a, const void *b) {
    const sq_span *x = a, *y = b;
    const size_t n = x->n < y->n ? x->n : y->n;
    const int c = n ? memcmp(x->p, y->p, n) : 0;
    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

/* texts [n] sorted and equal up to `from`: what follows, as a tree. */
static gram_term tree(gram_pool *p, const sq_span *texts, size_t n, size_t from, int level) {
    const sq_span a = texts[0], z = texts[n - 1];
    size_t same = from;
    while (same < a.n && same < z.n && a.p[same] == z.p[same]) same++;
    const gram_term stem = gram_literal(p, a.p + from, same - from);
    const size_t base = p->scratch.n;
    for (size_t i = 0; i < n && !gram_failed(p);) {
        size_t end = i + 1;
        if (texts[i].n == same) {
            push(p, GRAM_EPS);
        } else if (level == TEXTS_LEVEL_MAX) {
            push(p, gram_literal(p, texts[i].p + same, texts[i].n - same));
        } else {
            while (end < n && texts[end].p[same] == texts[i].p[same]) end++;
            push(p, end == i + 1 ? gram_literal(p, texts[i].p + same, texts[i].n - same)
                                 : tree(p, texts + i, end - i, same, level + 1));
        }
        i = end;
    }
    return gram_cat(p, stem, gram_alt_list(p, base));
}

gram_term gram_texts(gram_pool *p, sq_span *texts, size_t n) {
    if (n == 0) return GRAM_EMPTY;
    qsort(texts, n, sizeof *texts, by_bytes);
    return tree(p, texts, n, 0, 0);
}
