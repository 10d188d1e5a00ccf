/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_http_gate.c - the gate says the same however the bytes are cut, and what it lets through has the form
 * it promises.
 *
 * The first two bytes seed the cuts, the rest is what a client sends. The stream is read three times: in one
 * piece, byte by byte and in pieces of random size; verdicts, statuses, positions and bodies must agree. */
#include "http/http_gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD_MAX = 512, BODY_MAX = 4096, REQUESTS_MAX = 16 };

/* All that was seen, as text. */
typedef struct {
    sq_buf log, body;
} record;

static void check(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "fuzz_http_gate: %s\n", what);
    abort();
}

static int take(void *user, const uint8_t *p, size_t n) {
    record *r = user;
    check(r->body.len + n <= BODY_MAX, "a body over its limit");
    return sq_buf_append(&r->body, p, n) ? 0 : 503;
}

/* A head that was let through: printable, its fields found again one by one. */
static void check_head(const sq_gate *g, record *r) {
    const uint8_t *h = (const uint8_t *)g->head.data;
    check(g->head.len <= HEAD_MAX && g->head.len >= 4 && memcmp(h + g->head.len - 4, "\r\n\r\n", 4) == 0,
          "a head that does not end");
    for (size_t i = 0; i < g->head.len; i++) {
        check(h[i] != 0x7f && (h[i] >= 0x20 || h[i] == '\t' || h[i] == '\r' || h[i] == '\n'),
              "a control byte");
        check((h[i] == '\n') == (i > 0 && h[i - 1] == '\r'), "a bare line end");
    }
    check(g->minor == 0 || g->saw_host, "no Host");
    check(!(g->chunked && g->saw_length), "two lengths");
    check(h[g->target_at] == '/' || (g->target_n == 1 && h[g->target_at] == '*'), "a strange target");
    size_t at = 0, n = 0;
    sq_span name, value;
    for (; sq_gate_next_field(g, &at, &name, &value); n++) {
        check(name.n > 0 && !memchr(name.p, ' ', name.n), "a field name with a blank");
        sq_buf_printf(&r->log, "%.*s=%.*s;", (int)name.n, (const char *)name.p, (int)value.n,
                      (const char *)value.p);
    }
    check(n == g->n_fields && n <= SQ_GATE_FIELDS_MAX, "fields that are not found again");
}

/* piece 0: random sizes from seed. */
static void play(record *r, const uint8_t *p, size_t n, size_t piece, uint64_t seed) {
    sq_gate g;
    sq_gate_init(&g, NULL, HEAD_MAX, BODY_MAX);
    sq_buf_init(&r->log, NULL, 1 << 22);
    sq_buf_init(&r->body, NULL, 1 << 22);
    size_t at = 0;
    for (int requests = 0; at < n && requests < REQUESTS_MAX;) {
        size_t want = piece ? piece : 1 + (size_t)(sq_splitmix64(&seed) % 37), used;
        if (want > n - at) want = n - at;
        sq_gate_verdict v = sq_gate_feed(&g, p + at, want, &used, take, r);
        check(used <= want, "more taken than given");
        at += used;
        if (v == SQ_GATE_HEAD) {
            check_head(&g, r);
            v = sq_gate_feed(&g, p + at, 0, &used, take, r);
        }
        if (v == SQ_GATE_REFUSED) {
            check(g.status >= 400 && g.code && g.message, "a refusal without a reason");
            sq_buf_printf(&r->log, "[%d %s at %zu]", g.status, g.message, at);
            break;
        }
        if (v != SQ_GATE_DONE) continue;
        sq_buf_printf(&r->log, "[whole at %zu, %zu bytes]", at, r->body.len);
        sq_buf_append(&r->log, r->body.data, r->body.len);
        r->body.len = 0;
        sq_gate_reset(&g);
        requests++;
    }
    sq_buf_printf(&r->log, "[end in phase %d, %zu bytes]", g.phase, r->body.len);
    sq_gate_deinit(&g);
}

static void forget(record *r) {
    sq_buf_deinit(&r->log);
    sq_buf_deinit(&r->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    record whole, cut;
    play(&whole, data + 2, size - 2, SIZE_MAX, 0);
    for (size_t piece = 0; piece < 2; piece++) {
        play(&cut, data + 2, size - 2, piece, 256u * data[0] + data[1]);
        check(whole.log.len == cut.log.len && memcmp(whole.log.data, cut.log.data, cut.log.len) == 0,
              "cuts change what is read");
        forget(&cut);
    }
    forget(&whole);
    return 0;
}
