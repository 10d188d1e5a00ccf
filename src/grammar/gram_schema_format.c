/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_format.c - formats of strings, where format is a demand.
 *
 * Written from the documents that the specification names: RFC 3339 (dates, durations), RFC 5321 (mail), RFC
 * 1123 (host names), RFC 4291 (IPv6), RFC 3986 and 3987 (URIs and IRIs), RFC 6570 (templates), RFC 6901
 * (pointers), RFC 4122 (UUIDs). A format that is not here (idn-hostname and names of others) satisfies. */
#include "grammar/gram_schema_int.h"

/* Reads from the left; ok falls at the first surprise. */
typedef struct {
    const char *p;
    size_t n, at;
    const squish_alloc *alloc;
} text;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
static bool is_hex(char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); }
static bool at_end(const text *t) { return t->at == t->n; }
static char peek(const text *t) { return t->at < t->n ? t->p[t->at] : 0; }
static bool take(text *t, char c) { return t->at < t->n && t->p[t->at] == c ? t->at++, true : false; }

/* Exactly `digits` digits, in [lo, hi]. */
static bool take_number(text *t, int digits, int lo, int hi, int *out) {
    int v = 0;
    for (int i = 0; i < digits; i++) {
        if (!is_digit(peek(t))) return false;
        v = v * 10 + (t->p[t->at++] - '0');
    }
    if (out) *out = v;
    return v >= lo && v <= hi;
}

static size_t take_digits(text *t) {
    const size_t from = t->at;
    while (is_digit(peek(t))) t->at++;
    return t->at - from;
}

/* ---- time ------------------------------------------------------------------------------------ */

static bool take_date(text *t) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day;
    if (!take_number(t, 4, 0, 9999, &year) || !take(t, '-') || !take_number(t, 2, 1, 12, &month) ||
        !take(t, '-'))
        return false;
    const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return take_number(t, 2, 1, days[month - 1] + (month == 2 && leap), &day);
}

/* A leap second is one only at 23:59:60 UTC. */
static bool take_time(text *t) {
    int hour, minute, second, off_hour = 0, off_minute = 0, sign = 0;
    if (!take_number(t, 2, 0, 23, &hour) || !take(t, ':') || !take_number(t, 2, 0, 59, &minute) ||
        !take(t, ':') || !take_number(t, 2, 0, 60, &second))
        return false;
    if (take(t, '.') && take_digits(t) == 0) return false;
    if (!take(t, 'Z') && !take(t, 'z')) {
        sign = take(t, '+') ? 1 : take(t, '-') ? -1 : 0;
        if (!sign || !take_number(t, 2, 0, 23, &off_hour) || !take(t, ':') ||
            !take_number(t, 2, 0, 59, &off_minute))
            return false;
    }
    const int utc = (hour * 60 + minute - sign * (off_hour * 60 + off_minute) + 2880) % 1440;
    return second < 60 || utc == 1439;
}

static bool date_ok(text t) { return take_date(&t) && at_end(&t); }
static bool time_ok(text t) { return take_time(&t) && at_end(&t); }
static bool date_time_ok(text t) {
    return take_date(&t) && (take(&t, 'T') || take(&t, 't')) && take_time(&t) && at_end(&t);
}

/* Units of `order` in that order and without a gap between; at least one. */
static bool take_units(text *t, const char *order) {
    const char *last = NULL;
    while (is_digit(peek(t))) {
        take_digits(t);
        const char *unit = peek(t) ? strchr(order, peek(t)) : NULL;
        if (!unit || (last && unit != last + 1)) return false;
        last = unit;
        t->at++;
    }
    return last != NULL;
}

static bool duration_ok(text t) {
    if (!take(&t, 'P')) return false;
    text week = t;
    if (take_digits(&week) && take(&week, 'W')) return at_end(&week);
    if (is_digit(peek(&t)) && !take_units(&t, "YMD")) return false;
    if (at_end(&t)) return t.n > 1;
    return take(&t, 'T') && take_units(&t, "HMS") && at_end(&t);
}

/* ---- hosts ----------------------------------------------------------------------------------- */

static bool ipv4_ok(text t) {
    for (int i = 0; i < 4; i++) {
        if (i && !take(&t, '.')) return false;
        const size_t from = t.at, n = take_digits(&t);
        if (n == 0 || n > 3 || (n > 1 && t.p[from] == '0')) return false;
        text number = {t.p + from, n, 0, NULL};
        if (!take_number(&number, (int)n, 0, 255, NULL)) return false;
    }
    return at_end(&t);
}

static bool ipv6_ok(text t) {
    int groups = 0;
    bool gap = false;
    while (!at_end(&t)) {
        if (t.n - t.at >= 2 && !memcmp(t.p + t.at, "::", 2)) {
            if (gap) return false;
            gap = true;
            t.at += 2;
            if (at_end(&t)) break;
        } else if (groups && !take(&t, ':')) {
            return false;
        }
        const size_t from = t.at;
        while (is_hex(peek(&t))) t.at++;
        if (peek(&t) == '.') {
            if (!ipv4_ok((text){t.p + from, t.n - from, 0, NULL})) return false;
            groups += 2;
            break;
        }
        if (t.at == from || t.at - from > 4) return false;
        groups++;
    }
    return gap ? groups < 8 : groups == 8;
}

static bool label_ok(const char *p, size_t n) {
    if (n == 0 || n > 63 || p[0] == '-' || p[n - 1] == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!is_letter(p[i]) && !is_digit(p[i]) && p[i] != '-') return false;
    /* "--" in third place is reserved for encoded names; what they encode is not looked into. */
    return !(n >= 4 && p[2] == '-' && p[3] == '-') || ((p[0] | 0x20) == 'x' && (p[1] | 0x20) == 'n' && n > 4);
}

static bool hostname_ok(text t) {
    if (t.n == 0 || t.n > 253) return false;
    for (size_t from = 0;;) {
        const char *dot = memchr(t.p + from, '.', t.n - from);
        const size_t end = dot ? (size_t)(dot - t.p) : t.n;
        if (!label_ok(t.p + from, end - from)) return false;
        if (!dot) return true;
        from = end + 1;
    }
}

static bool is_atom(char c, bool wide) {
    return is_letter(c) || is_digit(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c)) ||
           (wide && (unsigned char)c >= 0x80);
}

/* A quoted local part from its first quote; behind the closing one afterwards. */
static bool take_quoted(text *t) {
    for (t->at++; t->at < t->n && t->p[t->at] != '"'; t->at++) {
        if (t->p[t->at] == '\\') t->at++;
        if (t->at < t->n && (unsigned char)t->p[t->at] < 0x20) return false;
    }
    return take(t, '"');
}

static bool mail_ok(text t, bool wide) {
    if (peek(&t) == '"') {
        if (!take_quoted(&t)) return false;
    } else {
        do {
            const size_t from = t.at;
            while (is_atom(peek(&t), wide)) t.at++;
            if (t.at == from) return false;
        } while (take(&t, '.'));
    }
    if (t.at > 64 || !take(&t, '@')) return false;
    text host = {t.p + t.at, t.n - t.at, 0, NULL};
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        host = (text){host.p + 1, host.n - 2, 0, NULL};
        if (host.n > 5 && !memcmp(host.p, "IPv6:", 5))
            return ipv6_ok((text){host.p + 5, host.n - 5, 0, NULL});
        return ipv4_ok(host);
    }
    if (!wide) return hostname_ok(host);
    for (size_t i = 0; i < host.n; i++)
        if ((unsigned char)host.p[i] <= 0x20 || host.p[i] == '@') return false;
    return host.n > 0;
}

static bool email_ok(text t) { return mail_ok(t, false); }
static bool idn_email_ok(text t) { return mail_ok(t, true); }

/* ---- URIs ------------------------------------------------------------------------------------ */

/* A character of RFC 3986, or with `wide` of 3987; % must have its digits. */
static bool take_uri_char(text *t, const char *extra, bool wide) {
    const char c = peek(t);
    if (c == '%') {
        if (t->n - t->at < 3 || !is_hex(t->p[t->at + 1]) || !is_hex(t->p[t->at + 2])) return false;
        t->at += 3;
        return true;
    }
    if (!(is_letter(c) || is_digit(c) || (c && strchr("-._~!$&'()*+,;=", c)) || (c && strchr(extra, c)) ||
          (wide && (unsigned char)c >= 0x80)))
        return false;
    t->at++;
    return true;
}

static bool authority_ok(text t, bool wide) {
    text user = t;
    while (take_uri_char(&user, ":", wide)) continue;
    if (take(&user, '@')) t.at = user.at;
    if (take(&t, '[')) {
        const char *close = memchr(t.p + t.at, ']', t.n - t.at);
        if (!close) return false;
        const text host = {t.p + t.at, (size_t)(close - t.p) - t.at, 0, NULL};
        if (!ipv6_ok(host) && !(host.n > 3 && (host.p[0] | 0x20) == 'v' && is_hex(host.p[1]))) return false;
        t.at = (size_t)(close - t.p) + 1;
    } else {
        while (take_uri_char(&t, "", wide)) continue;
    }
    if (take(&t, ':')) take_digits(&t);
    return at_end(&t);
}

static bool has_scheme(const text *t, size_t *behind) {
    if (!is_letter(peek(t))) return false;
    for (size_t i = 1; i < t->n; i++) {
        *behind = i + 1;
        if (t->p[i] == ':') return true;
        if (!is_letter(t->p[i]) && !is_digit(t->p[i]) && !strchr("+-.", t->p[i])) return false;
    }
    return false;
}

static bool uri_like(text t, bool must_be_absolute, bool wide) {
    size_t behind = 0;
    const bool absolute = has_scheme(&t, &behind);
    if (must_be_absolute && !absolute) return false;
    if (absolute) t.at = behind;
    if (t.n - t.at >= 2 && !memcmp(t.p + t.at, "//", 2)) {
        const size_t from = t.at += 2;
        while (t.at < t.n && !strchr("/?#", t.p[t.at])) t.at++;
        if (!authority_ok((text){t.p + from, t.at - from, 0, NULL}, wide)) return false;
    } else if (!absolute) { /* a colon in the first segment would make it a scheme */
        for (size_t i = t.at; i < t.n && !strchr("/?#", t.p[i]); i++)
            if (t.p[i] == ':') return false;
    }
    while (take_uri_char(&t, ":@/", wide)) continue;
    if (take(&t, '?'))
        while (take_uri_char(&t, ":@/?", wide)) continue;
    if (take(&t, '#'))
        while (take_uri_char(&t, ":@/?", wide)) continue;
    return at_end(&t);
}

static bool uri_ok(text t) { return uri_like(t, true, false); }
static bool uri_reference_ok(text t) { return uri_like(t, false, false); }
static bool iri_ok(text t) { return uri_like(t, true, true); }
static bool iri_reference_ok(text t) { return uri_like(t, false, true); }

/* One name of an expression with its modifier: parts between single dots, then * or a prefix of 1 to 9999. */
static bool take_variable(text *t) {
    do {
        const size_t from = t->at;
        while (is_letter(peek(t)) || is_digit(peek(t)) || peek(t) == '_' || peek(t) == '%') t->at++;
        if (t->at == from) return false;
    } while (take(t, '.'));
    if (take(t, ':')) {
        const char first = peek(t);
        const size_t n = take_digits(t);
        return n >= 1 && n <= 4 && first != '0';
    }
    take(t, '*');
    return true;
}

static bool uri_template_ok(text t) {
    while (!at_end(&t)) {
        const char c = t.p[t.at++];
        if ((unsigned char)c <= 0x20 || c == 0x7f || strchr("\"<>\\^`|}", c)) return false;
        if (c != '{') continue;
        if (peek(&t) && strchr("+#./;?&=,!@|", peek(&t))) t.at++;
        do
            if (!take_variable(&t)) return false;
        while (take(&t, ','));
        if (!take(&t, '}')) return false;
    }
    return true;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static bool pointer_ok(text t) {
    if (t.n && t.p[0] != '/') return false;
    for (size_t i = 0; i < t.n; i++)
        if (t.p[i] == '~' && (i + 1 >= t.n || (t.p[i + 1] != '0' && t.p[i + 1] != '1'))) return false;
    return true;
}

static bool relative_pointer_ok(text t) {
    const size_t n = take_digits(&t);
    if (n == 0 || (n > 1 && t.p[0] == '0')) return false;
    if (t.n - t.at == 1 && t.p[t.at] == '#') return true;
    return pointer_ok((text){t.p + t.at, t.n - t.at, 0, NULL});
}

static bool uuid_ok(text t) {
    if (t.n != 36) return false;
    for (size_t i = 0; i < t.n; i++) {
        const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? t.p[i] != '-' : !is_hex(t.p[i])) return false;
    }
    return true;
}

static bool regex_ok(text t) {
    gs_regex *r = NULL;
    const squish_status st = gs_regex_new(&r, t.alloc, t.p, t.n, "regex", NULL);
    gs_regex_free(r);
    return st != SQUISH_INVALID;
}

bool gs_format_ok(const squish_alloc *a, const gs_value *format, const char *p, size_t n) {
    static const struct {
        const char *name;
        bool (*ok)(text t);
    } formats[] = {{"date-time", date_time_ok},
                   {"date", date_ok},
                   {"time", time_ok},
                   {"duration", duration_ok},
                   {"email", email_ok},
                   {"idn-email", idn_email_ok},
                   {"hostname", hostname_ok},
                   {"ipv4", ipv4_ok},
                   {"ipv6", ipv6_ok},
                   {"uri", uri_ok},
                   {"uri-reference", uri_reference_ok},
                   {"iri", iri_ok},
                   {"iri-reference", iri_reference_ok},
                   {"uri-template", uri_template_ok},
                   {"uuid", uuid_ok},
                   {"json-pointer", pointer_ok},
                   {"relative-json-pointer", relative_pointer_ok},
                   {"regex", regex_ok}};
    for (size_t i = 0; i < SQ_COUNT(formats); i++)
        if (format->n == strlen(formats[i].name) && memcmp(format->u.text, formats[i].name, format->n) == 0)
            return formats[i].ok((text){p, n, 0, a});
    return true;
}
