/* SPDX-License-Identifier: Apache-2.0
 *
 * http_gate.c - the grammar of a request, byte by byte (RFC 9112, RFC 9110 section 5).
 *
 * Everything that two parsers might read differently is refused here, because such differences are what
 * request smuggling is made of: two lengths, a length beside chunks, bare line feeds, folded lines, blanks
 * before a colon, chunk extensions, trailers. Each line is judged when its CRLF comes, each byte when it
 * comes, so a verdict falls at the same byte however the bytes were cut.
 *
 *   START -> LINE -> ... empty line -> HEAD (to the caller) -> LENGTH | SIZE -> DATA ... -> WHOLE */
#include "http/http_gate.h"

#include <string.h>
#include <strings.h>

/* In order: whatever is below HEAD reads the head. */
enum { START, START_LF, LINE, LINE_LF, HEAD, LENGTH, SIZE, SIZE_LF, DATA, DATA_CR, DATA_LF, END_CR, END_LF };
enum { WHOLE = END_LF + 1, REFUSED };
enum { LENGTH_DIGITS_MAX = 18, CHUNK_DIGITS_MAX = 15 };

void sq_gate_init(sq_gate *g, const squish_alloc *a, uint32_t head_max, uint64_t body_max) {
    *g = (sq_gate){.body_max = body_max};
    sq_buf_init(&g->head, a, head_max);
}

void sq_gate_deinit(sq_gate *g) { sq_buf_deinit(&g->head); }

void sq_gate_reset(sq_gate *g) {
    sq_buf_deinit(&g->head);
    const squish_alloc a = g->head.alloc;
    sq_gate_init(g, &a, (uint32_t)g->head.max, g->body_max);
}

bool sq_gate_has_begun(const sq_gate *g) { return g->phase != START; }

bool sq_gate_expects_body(const sq_gate *g) { return g->chunked || g->left > 0; }

static sq_gate_verdict refuse(sq_gate *g, int status, const char *code, const char *message) {
    g->phase = REFUSED;
    g->status = (int16_t)status;
    g->code = code;
    g->message = message;
    return SQ_GATE_REFUSED;
}

static bool bad(sq_gate *g, const char *message) {
    refuse(g, 400, "bad_request", message);
    return false;
}

/* ---- characters ------------------------------------------------------------------------------ */

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static bool is_alpha(uint8_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
static bool is_token(uint8_t c) { return is_digit(c) || is_alpha(c) || (c && strchr("!#$%&'*+-.^_`|~", c)); }
static int hex_value(uint8_t c) {
    if (is_digit(c)) return c - '0';
    const uint8_t low = c | 32;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static bool equals(sq_span s, const char *word) {
    return s.n == strlen(word) && strncasecmp((const char *)s.p, word, s.n) == 0;
}

static sq_span trimmed(const uint8_t *p, size_t n) {
    while (n > 0 && (*p == ' ' || *p == '\t')) p++, n--;
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t')) n--;
    return (sq_span){p, n};
}

/* ---- the request line ------------------------------------------------------------------------ */

static bool read_method(sq_gate *g, const uint8_t *p, size_t n) {
    static const struct {
        const char *name;
        sq_http_method method;
    } known[] = {{"GET", SQ_HTTP_GET},   {"POST", SQ_HTTP_POST}, {"DELETE", SQ_HTTP_DELETE},
                 {"HEAD", SQ_HTTP_HEAD}, {"PUT", SQ_HTTP_PUT},   {"OPTIONS", SQ_HTTP_OPTIONS}};
    for (size_t i = 0; i < SQ_COUNT(known); i++)
        if (n == strlen(known[i].name) && memcmp(p, known[i].name, n) == 0)
            g->method = (uint8_t)known[i].method;
    if (g->method) return true;
    for (size_t i = 0; i < n; i++)
        if (p[i] < 'A' || p[i] > 'Z') return bad(g, "the method is not a word in capitals");
    refuse(g, 501, "unknown_method", "this method is not served");
    return false;
}

/* method SP target SP HTTP/1.x, single spaces */
static bool read_request_line(sq_gate *g, const uint8_t *p, size_t n) {
    const uint8_t *sp1 = memchr(p, ' ', n);
    const uint8_t *sp2 = sp1 ? memchr(sp1 + 1, ' ', (size_t)(p + n - sp1 - 1)) : NULL;
    if (!sp2 || sp1 == p) return bad(g, "the request line is not 'METHOD target HTTP/1.1'");
    const uint8_t *target = sp1 + 1, *version = sp2 + 1;
    const size_t target_n = (size_t)(sp2 - target), version_n = (size_t)(p + n - version);
    if (!read_method(g, p, (size_t)(sp1 - p))) return false;
    if (version_n != 8 || memcmp(version, "HTTP/", 5) != 0 || !is_digit(version[5]) || version[6] != '.' ||
        !is_digit(version[7]))
        return bad(g, "the request line does not end in HTTP/1.1");
    if (version[5] != '1' || version[7] > '1') {
        refuse(g, 505, "unknown_version", "only HTTP/1.0 and HTTP/1.1 are served");
        return false;
    }
    g->minor = (uint8_t)(version[7] - '0');
    const bool star = target_n == 1 && target[0] == '*' && g->method == SQ_HTTP_OPTIONS;
    if (!star && (target_n == 0 || target[0] != '/')) return bad(g, "the target does not begin with '/'");
    /* A second slash would make a parser of URIs see a host. */
    if (target_n > 1 && target[1] == '/') return bad(g, "the target begins with '//'");
    for (size_t i = 0; i < target_n; i++)
        if (target[i] < 0x21 || target[i] > 0x7e || strchr("#\"<>\\^`{|}", target[i]))
            return bad(g, "the target has a character that must be percent-encoded");
    g->target_at = (uint32_t)(target - (const uint8_t *)g->head.data);
    g->target_n = (uint32_t)target_n;
    return true;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static bool read_host(sq_gate *g, sq_span v) {
    if (g->saw_host) return bad(g, "more than one Host");
    g->saw_host = true;
    if (v.n == 0 || v.n > 255) return bad(g, "Host is empty or longer than 255 bytes");
    for (size_t i = 0; i < v.n; i++)
        if (!is_digit(v.p[i]) && !is_alpha(v.p[i]) && !strchr(".-_:[]", v.p[i]))
            return bad(g, "Host is not a name or address with an optional port");
    return true;
}

static bool read_length(sq_gate *g, sq_span v) {
    if (g->saw_length) return bad(g, "more than one Content-Length");
    if (g->chunked) return bad(g, "Content-Length beside Transfer-Encoding");
    g->saw_length = true;
    if (v.n == 0) return bad(g, "Content-Length is not a number");
    uint64_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (!is_digit(v.p[i])) return bad(g, "Content-Length is not a number");
        if (i >= LENGTH_DIGITS_MAX) return bad(g, "Content-Length has more than 18 digits");
        n = 10 * n + (uint64_t)(v.p[i] - '0');
    }
    g->left = n;
    return true;
}

static bool read_transfer_encoding(sq_gate *g, sq_span v) {
    if (g->chunked) return bad(g, "more than one Transfer-Encoding");
    if (g->saw_length) return bad(g, "Transfer-Encoding beside Content-Length");
    if (g->minor == 0) return bad(g, "Transfer-Encoding in HTTP/1.0");
    if (!equals(v, "chunked")) {
        refuse(g, 501, "unknown_transfer_encoding", "the only Transfer-Encoding served is chunked");
        return false;
    }
    g->chunked = true;
    return true;
}

static bool read_connection(sq_gate *g, sq_span v) {
    for (size_t at = 0; at <= v.n;) {
        const uint8_t *comma = at < v.n ? memchr(v.p + at, ',', v.n - at) : NULL;
        const size_t end = comma ? (size_t)(comma - v.p) : v.n;
        const sq_span word = trimmed(v.p + at, end - at);
        if (equals(word, "close")) g->wants_close = true;
        if (equals(word, "keep-alive")) g->wants_keep_alive = true;
        at = end + 1;
    }
    return true;
}

static bool read_expect(sq_gate *g, sq_span v) {
    g->expect_continue = true;
    if (equals(v, "100-continue")) return true;
    refuse(g, 417, "unknown_expectation", "the only Expect served is 100-continue");
    return false;
}

static bool read_field(sq_gate *g, const uint8_t *p, size_t n) {
    static const struct {
        const char *name;
        bool (*read)(sq_gate *g, sq_span value);
    } readers[] = {{"host", read_host},
                   {"content-length", read_length},
                   {"transfer-encoding", read_transfer_encoding},
                   {"connection", read_connection},
                   {"expect", read_expect}};
    if (g->n_fields == SQ_GATE_FIELDS_MAX) {
        refuse(g, 431, "headers_too_large", "more than 100 header fields");
        return false;
    }
    g->n_fields++;
    if (p[0] == ' ' || p[0] == '\t') return bad(g, "a folded header line");
    size_t colon = 0;
    while (colon < n && is_token(p[colon])) colon++;
    if (colon == 0 || colon == n || p[colon] != ':')
        return bad(g, "a header line is not 'name: value', without blanks before the colon");
    const sq_span name = {p, colon}, value = trimmed(p + colon + 1, n - colon - 1);
    for (size_t i = 0; i < SQ_COUNT(readers); i++)
        if (equals(name, readers[i].name)) return readers[i].read(g, value);
    return true;
}

bool sq_gate_next_field(const sq_gate *g, size_t *at, sq_span *name, sq_span *value) {
    const uint8_t *base = (const uint8_t *)g->head.data;
    if (*at == 0) {
        const uint8_t *lf = base ? memchr(base, '\n', g->head.len) : NULL;
        if (!lf) return false;
        *at = (size_t)(lf - base) + 1;
    }
    const uint8_t *p = base + *at;
    const uint8_t *lf = memchr(p, '\n', g->head.len - *at);
    const uint8_t *colon = lf ? memchr(p, ':', (size_t)(lf - p)) : NULL;
    if (!colon) return false;
    *name = (sq_span){p, (size_t)(colon - p)};
    *value = trimmed(colon + 1, (size_t)(lf - 1 - colon - 1));
    *at = (size_t)(lf - base) + 1;
    return true;
}

/* ---- lines of the head ----------------------------------------------------------------------- */

/* A line is whole, its CRLF in the buffer. */
static void take_line(sq_gate *g) {
    const uint8_t *p = (const uint8_t *)g->head.data + g->line_at;
    const size_t n = g->head.len - g->line_at - 2;
    const bool first = g->line_at == 0;
    g->phase = LINE;
    if (n == 0) {
        if (g->minor == 1 && !g->saw_host)
            bad(g, "no Host");
        else
            g->phase = HEAD;
        return;
    }
    if (!(first ? read_request_line(g, p, n) : read_field(g, p, n))) return;
    g->line_at = (uint32_t)g->head.len;
}

static void keep(sq_gate *g, uint8_t c) {
    if (g->head.len == g->head.max)
        refuse(g, 431, "headers_too_large", "the request line and headers are too long");
    else if (!sq_buf_putc(&g->head, (char)c))
        refuse(g, 503, "no_memory", "out of memory");
}

static void take_head_byte(sq_gate *g, uint8_t c) {
    switch (g->phase) {
    case START: /* one empty line before a request is forgiven, as RFC 9112 section 2.2 wishes */
        if (c == '\r') {
            g->phase = START_LF;
            return;
        }
        break;
    case START_LF:
        if (c != '\n')
            bad(g, "a carriage return without line feed");
        else
            g->phase = LINE;
        return;
    case LINE_LF:
        if (c != '\n') {
            bad(g, "a carriage return without line feed");
            return;
        }
        keep(g, c);
        if (g->phase != REFUSED) take_line(g);
        return;
    default: break;
    }
    g->phase = LINE;
    if (c == '\n')
        bad(g, "a line feed without carriage return");
    else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
        bad(g, "a control character in the head");
    else
        keep(g, c);
    if (c != '\r' || g->phase == REFUSED) return;
    if (g->head.len == 1)
        bad(g, "no request line");
    else
        g->phase = LINE_LF;
}

/* ---- body ------------------------------------------------------------------------------------ */

static void begin_body(sq_gate *g) {
    if (g->chunked)
        g->phase = SIZE;
    else if (g->left > g->body_max)
        refuse(g, 413, "body_too_large", "the body is too large");
    else
        g->phase = g->left ? LENGTH : WHOLE;
    g->n_digits = 0;
}

/* One byte of chunk framing. */
static void take_frame_byte(sq_gate *g, uint8_t c) {
    const int hex = hex_value(c);
    switch (g->phase) {
    case SIZE:
        if (hex >= 0 && g->n_digits < CHUNK_DIGITS_MAX) {
            g->left = 16 * (g->n_digits ? g->left : 0) + (uint64_t)hex;
            g->n_digits++;
        } else if (c == '\r' && g->n_digits > 0) {
            g->phase = SIZE_LF;
        } else {
            bad(g, "a chunk size that is not plain hexadecimal followed by CRLF");
        }
        return;
    case SIZE_LF:
        if (c != '\n')
            bad(g, "a chunk size without line feed");
        else if (g->left > g->body_max - g->body_bytes)
            refuse(g, 413, "body_too_large", "the body is too large");
        else
            g->phase = g->left ? DATA : END_CR;
        g->n_digits = 0;
        return;
    case DATA_CR:
    case END_CR:
        if (c != '\r')
            bad(g, g->phase == END_CR ? "trailers behind the last chunk" : "a chunk is longer than its size");
        else
            g->phase = g->phase == END_CR ? END_LF : DATA_LF;
        return;
    default: /* DATA_LF, END_LF */
        if (c != '\n')
            bad(g, "a carriage return without line feed");
        else
            g->phase = g->phase == END_LF ? WHOLE : SIZE;
    }
}

static size_t take_body(sq_gate *g, const uint8_t *p, size_t n, sq_gate_body_fn body, void *user) {
    const size_t take = n < g->left ? n : (size_t)g->left;
    const int status = body ? body(user, p, take) : 0;
    if (status) {
        refuse(g, status, status == 413 ? "body_too_large" : "no_space", "the body cannot be kept");
        return take;
    }
    g->left -= take;
    g->body_bytes += take;
    if (g->left == 0) g->phase = g->chunked ? DATA_CR : WHOLE;
    return take;
}

sq_gate_verdict sq_gate_feed(sq_gate *g, const uint8_t *p, size_t n, size_t *used, sq_gate_body_fn body,
                             void *user) {
    size_t at = 0;
    if (g->phase == HEAD) begin_body(g);
    while (at < n && g->phase != WHOLE && g->phase != REFUSED && g->phase != HEAD) {
        if (g->phase < HEAD)
            take_head_byte(g, p[at++]);
        else if (g->phase == LENGTH || g->phase == DATA)
            at += take_body(g, p + at, n - at, body, user);
        else
            take_frame_byte(g, p[at++]);
    }
    *used = at;
    switch (g->phase) {
    case HEAD: return SQ_GATE_HEAD;
    case WHOLE: return SQ_GATE_DONE;
    case REFUSED: return SQ_GATE_REFUSED;
    default: return SQ_GATE_MORE;
    }
}
