/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_text.c - strings by code points, as Python counts and strips them.
 *
 * Template strings are UTF-8; Python's are sequences of code points. Searching may stay with bytes (UTF-8 is
 * self synchronising), but lengths, indexes and sets of characters may not. */
#include "text/tmpl_int.h"

#include <utf8proc.h>

/* str.isspace(): the white space of Unicode plus the four information separators. */
bool sq_tmpl_is_space(uint32_t cp) {
    if (cp < 0x80) return cp == ' ' || (cp >= 0x09 && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x1f);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

/* str.isprintable(): everything but separators (other than the space), controls and what is not assigned. */
bool sq_tmpl_is_printable(uint32_t cp) {
    if (cp < 0x7f) return cp >= 0x20;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
        case UTF8PROC_CATEGORY_CC:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_CS:
        case UTF8PROC_CATEGORY_CO:
        case UTF8PROC_CATEGORY_CN:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
        case UTF8PROC_CATEGORY_ZS: return false;
        default: return true;
    }
}

int sq_tmpl_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10 : 99;
}

static bool in_set(uint32_t cp, const sq_tval *chars) {
    if (!chars) return sq_tmpl_is_space(cp);
    for (size_t at = 0; at < chars->n;) {
        uint32_t c;
        at += sq_utf8_decode(chars->u.s + at, chars->n - at, &c, NULL);
        if (c == cp) return true;
    }
    return false;
}

/* The part of s without white space (or the characters of `chars`) at its ends. */
sq_span sq_tmpl_strip(const char *s, size_t n, const sq_tval *chars, bool left, bool right) {
    size_t from = 0;
    uint32_t cp;
    while (left && from < n) {
        size_t step = sq_utf8_decode(s + from, n - from, &cp, NULL);
        if (!in_set(cp, chars)) break;
        from += step;
    }
    while (right && n > from) {
        size_t at = n - 1; /* back over continuation bytes to the start of the last code point */
        while (at > from && ((unsigned char)s[at] & 0xc0) == 0x80) at--;
        sq_utf8_decode(s + at, n - at, &cp, NULL);
        if (!in_set(cp, chars)) break;
        n = at;
    }
    return (sq_span){.p = (const uint8_t *)s + from, .n = n - from};
}

size_t sq_tmpl_offset(const char *s, size_t n, uint64_t chars) {
    size_t at = 0;
    uint32_t cp;
    for (; chars > 0 && at < n; chars--) at += sq_utf8_decode(s + at, n - at, &cp, NULL);
    return at;
}

/* The first place of sub in s, NULL if there is none. The empty string is found at once. */
const char *sq_tmpl_find(const char *s, size_t n, const char *sub, size_t n_sub) {
    if (n_sub == 0) return s;
    if (n_sub > n) return NULL;
    return memmem(s, n, sub, n_sub);
}
