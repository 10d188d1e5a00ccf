/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_head.c - origins of URLs, and the lines of an answer's head that matter here. All of it is bytes of
 * strangers. */
#include "fetch/fetch_pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool fetch_origin(const char *url, char *out, size_t n) {
    const bool secure = strncasecmp(url, "https://", 8) == 0;
    if (!secure && strncasecmp(url, "http://", 7) != 0) return false;
    const char *host = url + (secure ? 8 : 7);
    size_t len = strcspn(host, "/?#\\");
    if (len == 0 || memchr(host, '@', len)) return false;
    const char *implied = secure ? ":443" : ":80";
    const size_t m = strlen(implied);
    if (len > m && memcmp(host + len - m, implied, m) == 0) len -= m;
    if (snprintf(out, n, "%s://%.*s", secure ? "https" : "http", (int)len, host) >= (int)n) return false;
    for (char *p = out; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p += 'a' - 'A';
    return true;
}

/* Digits at *p, which moves behind them. */
static bool number(const char **p, uint64_t *out) {
    uint64_t v = 0;
    const char *s = *p;
    if (*s < '0' || *s > '9') return false;
    for (; *s >= '0' && *s <= '9'; s++)
        if (!sq_mul_ok(v, 10, &v) || !sq_add_ok(v, (uint64_t)(*s - '0'), &v)) return false;
    *p = s;
    *out = v;
    return true;
}

bool fetch_read_range(const char *value, uint64_t *from, uint64_t *to, uint64_t *total) {
    uint64_t last;
    while (*value == ' ') value++;
    if (strncasecmp(value, "bytes ", 6) != 0) return false;
    value += 6;
    *total = 0;
    if (!number(&value, from) || *value++ != '-' || !number(&value, &last) || *value++ != '/') return false;
    if (*value == '*')
        value++;
    else if (!number(&value, total) || *total <= last)
        return false;
    if (last < *from || last == UINT64_MAX) return false;
    *to = last + 1;
    return *value == 0 || *value == ' ';
}

static void copy(char *out, size_t n, const char *value) {
    snprintf(out, n, "%s", value);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f) *p = '?';
}

/* "abc", W/"abc" or abc -> abc */
static void copy_etag(char *out, size_t n, const char *value) {
    if (strncmp(value, "W/", 2) == 0) value += 2;
    if (*value == '"') value++;
    copy(out, n, value);
    out[strcspn(out, "\"")] = 0;
}

/* <https://..>; rel="next" */
static void copy_next(char *out, size_t n, const char *value) {
    const char *begin = strchr(value, '<'), *end = begin ? strchr(begin, '>') : NULL;
    if (!end || !strstr(end, "next") || (size_t)(end - begin) > n) return;
    snprintf(out, n, "%.*s", (int)(end - begin - 1), begin + 1);
}

void fetch_read_header(fetch_head *h, const char *line, size_t n) {
    char text[FETCH_URL_MAX + 256];
    if (n >= sizeof text || memchr(line, 0, n)) return;
    memcpy(text, line, n);
    text[n] = 0;
    if (strncmp(text, "HTTP/", 5) == 0) { /* the next answer begins; what hubs say on the way stays */
        h->status = 0;
        h->has_range = h->has_length = h->packed = false;
        h->from = h->to = h->total = h->length = 0;
        h->retry_after_s = 0;
        h->etag[0] = h->next[0] = 0;
        return;
    }
    char *value = strchr(text, ':');
    if (!value) return;
    *value++ = 0;
    while (*value == ' ' || *value == '\t') value++;
    const char *at = value;
    uint64_t v = 0;
    if (strcasecmp(text, "content-range") == 0) {
        h->has_range = fetch_read_range(value, &h->from, &h->to, &h->total);
    } else if (strcasecmp(text, "content-length") == 0) {
        h->has_length = number(&at, &h->length);
    } else if (strcasecmp(text, "content-encoding") == 0) {
        h->packed = *value && strcasecmp(value, "identity") != 0;
    } else if (strcasecmp(text, "retry-after") == 0) {
        if (number(&at, &v) && *at == 0) h->retry_after_s = v < 86400 ? (double)v : 86400;
    } else if (strcasecmp(text, "etag") == 0) {
        copy_etag(h->etag, sizeof h->etag, value);
    } else if (strcasecmp(text, "x-linked-etag") == 0) {
        copy_etag(h->linked_etag, sizeof h->linked_etag, value);
    } else if (strcasecmp(text, "x-linked-size") == 0) {
        if (!number(&at, &h->linked_size)) h->linked_size = 0;
    } else if (strcasecmp(text, "x-error-code") == 0) {
        copy(h->error_code, sizeof h->error_code, value);
    } else if (strcasecmp(text, "link") == 0) {
        copy_next(h->next, sizeof h->next, value);
    }
}
