/* SPDX-License-Identifier: Apache-2.0
 *
 * http_gate.h - the strict reader in front of evhttp: one request at a time, from bytes in pieces of any
 * size.
 *
 * The gate knows the grammar of RFC 9112 and nothing else: no sockets, no routes, no clock. Where a piece
 * ends never changes what it says; the fuzz target holds it to that. */
#ifndef SQ_HTTP_GATE_H
#define SQ_HTTP_GATE_H

#include "http/http.h"

enum { SQ_GATE_FIELDS_MAX = 100 };

typedef enum {
    SQ_GATE_MORE, /* all bytes taken, the request is not whole */
    SQ_GATE_HEAD, /* the head is whole: now the caller may apply rules and set body_max, then go on feeding */
    SQ_GATE_DONE, /* the request is whole; bytes behind it were not taken */
    SQ_GATE_REFUSED /* status, code and message say why; the connection is to be closed */
} sq_gate_verdict;

/* Where body bytes go, without their chunk framing. 0, or the HTTP status of a refusal. */
typedef int (*sq_gate_body_fn)(void *user, const uint8_t *p, size_t n);

typedef struct {
    sq_buf head;         /* the lines of the head as they came, CRLF included */
    uint64_t body_max;   /* bytes without framing */
    uint64_t body_bytes; /* taken so far */
    uint64_t left;       /* of the body (length) or of this chunk */
    const char *code, *message;
    uint32_t line_at, target_at, target_n;
    int16_t status;
    uint8_t phase, n_fields, n_digits, minor; /* minor: HTTP/1.minor */
    uint8_t method;                           /* sq_http_method */
    bool saw_host, saw_length, chunked, expect_continue, wants_close, wants_keep_alive;
} sq_gate;

void sq_gate_init(sq_gate *g, const squish_alloc *a, uint32_t head_max, uint64_t body_max);
/* Ready for the next request on the connection; gives memory back. */
void sq_gate_reset(sq_gate *g);
void sq_gate_deinit(sq_gate *g);
/* Take bytes from p[0..n); *used says how many. After HEAD call again with the rest (also when nothing is
 * left: a request without body is then DONE). After DONE or REFUSED call reset first. */
sq_gate_verdict sq_gate_feed(sq_gate *g, const uint8_t *p, size_t n, size_t *used, sq_gate_body_fn body,
                             void *user);
/* Some byte of a request has come. */
bool sq_gate_has_begun(const sq_gate *g);
/* The head says that a body follows. */
bool sq_gate_expects_body(const sq_gate *g);
/* Fields of a whole head, in order. *at: 0 at first, advanced. False: no more. Spans lie in g->head. */
bool sq_gate_next_field(const sq_gate *g, size_t *at, sq_span *name, sq_span *value);

#endif
