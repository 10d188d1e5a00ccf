/* SPDX-License-Identifier: Apache-2.0
 *
 * http_uri.c - percent-decoding of paths and queries (RFC 3986), strictly: what does not decode to clean
 * UTF-8 is refused, so that no handler sees a NUL, a line break or half a character in a name. */
#include "http/http_int.h"

#include <string.h>

enum { QUERIES_MAX = 64 };

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    const uint8_t low = c | 32;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static char *decode(sq_arena *ar, const uint8_t *p, size_t n, bool plus_is_space, const char **why) {
    *why = NULL;
    char *out = sq_arena_alloc(ar, n + 1, 1);
    if (!out) return NULL;
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        if (c == '+' && plus_is_space) {
            c = ' ';
        } else if (c == '%') {
            const int high = i + 2 < n ? hex_value(p[i + 1]) : -1;
            const int low = i + 2 < n ? hex_value(p[i + 2]) : -1;
            if (high < 0 || low < 0) {
                *why = "a '%' without two hexadecimal digits";
                return NULL;
            }
            c = (uint8_t)(16 * high + low);
            i += 2;
        }
        if (c < 0x20 || c == 0x7f) {
            *why = "a percent-encoded control character";
            return NULL;
        }
        out[len++] = (char)c;
    }
    if (sq_utf8_valid(out, len)) return out;
    *why = "percent-encoded bytes that are not UTF-8";
    return NULL;
}

const char *sq_http_decode_path(sq_arena *ar, const uint8_t *p, size_t n, const char **why) {
    const char *path = decode(ar, p, n, false, why);
    if (!path) return NULL;
    for (const char *s = path; s; s = strchr(s, '/')) {
        if (*s == '/') s++;
        const size_t len = strcspn(s, "/");
        if ((len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.')) {
            *why = "a path with '.' or '..' as a segment";
            return NULL;
        }
    }
    return path;
}

bool sq_http_decode_query(sq_arena *ar, const uint8_t *p, size_t n, sq_http_field **out, size_t *n_out,
                          const char **why) {
    *n_out = 0;
    *why = NULL;
    *out = SQ_ARENA_ARRAY(ar, sq_http_field, QUERIES_MAX);
    if (!*out) return false;
    for (size_t at = 0; at < n;) {
        const uint8_t *amp = memchr(p + at, '&', n - at);
        const size_t end = amp ? (size_t)(amp - p) : n;
        const uint8_t *eq = memchr(p + at, '=', end - at);
        const size_t name_end = eq ? (size_t)(eq - p) : end;
        if (end > at) {
            if (*n_out == QUERIES_MAX) {
                *why = "more than 64 query parameters";
                return false;
            }
            sq_http_field *f = &(*out)[*n_out];
            f->name = decode(ar, p + at, name_end - at, true, why);
            f->value = f->name
                           ? decode(ar, p + name_end + (eq ? 1 : 0), end - name_end - (eq ? 1 : 0), true, why)
                           : NULL;
            if (!f->value) return false;
            ++*n_out;
        }
        at = end + 1;
    }
    return true;
}
