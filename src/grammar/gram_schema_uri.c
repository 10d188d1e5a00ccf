/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_uri.c - the part of RFC 3986 that names schemas: resolving one reference against a base. */
#include "grammar/gram_schema_int.h"

typedef struct {
    const char *p;
    size_t n;
    bool there;
} part;
typedef struct {
    part scheme, authority, path, query, fragment;
} uri;

static bool is_alpha(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

static size_t scheme_length(const char *p, size_t n) {
    if (n == 0 || !is_alpha(*p)) return 0;
    for (size_t i = 1; i < n; i++) {
        if (p[i] == ':') return i;
        if (!is_alpha(p[i]) && !(p[i] >= '0' && p[i] <= '9') && p[i] != '+' && p[i] != '-' && p[i] != '.')
            break;
    }
    return 0;
}

/* Cut what stands behind the first c. */
static part cut(const char *p, size_t *n, char c) {
    const char *at = memchr(p, c, *n);
    if (!at) return (part){0};
    const part behind = {at + 1, *n - (size_t)(at - p) - 1, true};
    *n = (size_t)(at - p);
    return behind;
}

static uri split(const char *p, size_t n) {
    uri u = {0};
    u.fragment = cut(p, &n, '#');
    u.query = cut(p, &n, '?');
    const size_t scheme = scheme_length(p, n);
    if (scheme) {
        u.scheme = (part){p, scheme, true};
        p += scheme + 1;
        n -= scheme + 1;
    }
    if (n >= 2 && p[0] == '/' && p[1] == '/') {
        const char *slash = memchr(p + 2, '/', n - 2);
        const size_t end = slash ? (size_t)(slash - p) : n;
        u.authority = (part){p + 2, end - 2, true};
        p += end;
        n -= end;
    }
    u.path = (part){p, n, n > 0};
    return u;
}

/* RFC 3986, 5.2.4, on the path that begins at `from`: segments are taken one by one, ".." takes one back. */
static void remove_dots(sq_buf *out, size_t from, const char *p, size_t n) {
    const bool rooted = n && *p == '/';
    size_t i = 0;
    while (i < n) {
        size_t end = i + (p[i] == '/');
        while (end < n && p[end] != '/') end++;
        const char *segment = p + i + (p[i] == '/');
        const size_t length = (size_t)(p + end - segment);
        const bool one = length == 1 && segment[0] == '.', two = length == 2 && !memcmp(segment, "..", 2);
        if (two)
            while (out->len > from && out->data[--out->len] != '/') continue;
        if (one || two) {
            if (end == n && (rooted || out->len > from)) sq_buf_putc(out, '/');
        } else if (i == 0 || p[i] != '/' || out->len > from || rooted) {
            sq_buf_append(out, p + i, end - i);
        } else {
            sq_buf_append(out, segment, length);
        }
        i = end;
    }
}

static void put(sq_buf *out, const char *before, part p, const char *behind) {
    if (!p.there) return;
    sq_buf_puts(out, before);
    sq_buf_append(out, p.p, p.n);
    sq_buf_puts(out, behind);
}

/* The base's path up to its last slash, then ref's. */
static void merge(sq_buf *out, const uri *b, const uri *r) {
    sq_buf whole;
    sq_buf_init(&whole, &out->alloc, out->max);
    if (b->authority.there && b->path.n == 0) sq_buf_putc(&whole, '/');
    size_t keep = b->path.n;
    while (keep && b->path.p[keep - 1] != '/') keep--;
    sq_buf_append(&whole, keep ? b->path.p : "", keep);
    sq_buf_append(&whole, r->path.p, r->path.n);
    remove_dots(out, out->len, whole.data ? whole.data : "", whole.len);
    out->failed |= whole.failed;
    sq_buf_deinit(&whole);
}

static void resolve(sq_buf *out, const uri *b, const uri *r) {
    const bool own = r->scheme.there || r->authority.there;
    put(out, "", r->scheme.there ? r->scheme : b->scheme, ":");
    put(out, "//", own ? r->authority : b->authority, "");
    if (own || (r->path.n && r->path.p[0] == '/'))
        remove_dots(out, out->len, r->path.p, r->path.n);
    else if (r->path.n)
        merge(out, b, r);
    else
        sq_buf_append(out, b->path.n ? b->path.p : "", b->path.n);
    put(out, "?", own || r->path.n || r->query.there ? r->query : b->query, "");
    put(out, "#", r->fragment, "");
}

char *gs_uri_resolve(sq_arena *ar, const char *base, const char *ref, size_t ref_bytes) {
    const uri b = split(base, strlen(base)), r = split(ref, ref_bytes);
    sq_buf out;
    sq_buf_init(&out, &ar->alloc, 2 * (strlen(base) + ref_bytes) + 16);
    sq_buf_reserve(&out, 1);
    resolve(&out, &b, &r);
    char *s = out.failed ? NULL : sq_arena_strndup(ar, out.data, out.len);
    sq_buf_deinit(&out);
    return s;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return is_alpha(c) && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

size_t gs_uri_decode(char *s, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '%') {
            s[out++] = s[i];
            continue;
        }
        if (i + 2 >= n || hex(s[i + 1]) < 0 || hex(s[i + 2]) < 0) return SIZE_MAX;
        s[out++] = (char)(hex(s[i + 1]) * 16 + hex(s[i + 2]));
        i += 2;
    }
    return out;
}
