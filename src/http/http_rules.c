/* SPDX-License-Identifier: Apache-2.0
 *
 * http_rules.c - who may ask what: Host, Origin, key, route, method, media type, length.
 *
 * The rules run when the head is whole, before a byte of the body is taken, so a stranger cannot make the
 * server keep 32 MiB for him. The first rule that objects decides:
 *
 *   Host     on listeners bound to loopback: a loopback name or a listed one (DNS rebinding)        403
 *   Origin   absent, loopback, same as Host, or listed                                              403
 *   OPTIONS  answered here, without a key                                                           204
 *   key      on every path but those of open routes, unknown ones included                          401
 *   route    path, then method                                                                 404, 405
 *   body     type, coding, length                                                              415, 413 */
#include "http/http_int.h"

#include <arpa/inet.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void sq_http_sha256(const void *p, size_t n, uint8_t out[SQ_HTTP_SHA_BYTES]) {
    unsigned bytes = SQ_HTTP_SHA_BYTES;
    if (!EVP_Digest(p, n, out, &bytes, EVP_sha256(), NULL)) memset(out, 0, SQ_HTTP_SHA_BYTES);
}

static void say(sq_http_req *r, int status, const char *code, const char *text) {
    if (r->refused_status) return;
    r->refused_status = status;
    r->refused_code = code;
    snprintf(r->refused_text, sizeof r->refused_text, "%s", text);
}

/* ---- Host and Origin ------------------------------------------------------------------------- */

/* "name", "name:port", "[::1]:port": length of the name. False: not of this form. */
static bool split_port(const char *s, size_t n, size_t *name_n) {
    size_t end;
    if (n > 0 && s[0] == '[') {
        const char *close = memchr(s, ']', n);
        if (!close) return false;
        end = (size_t)(close - s) + 1;
    } else {
        const char *colon = memchr(s, ':', n);
        end = colon ? (size_t)(colon - s) : n;
    }
    *name_n = end;
    if (end == n) return end > 0;
    if (s[end] != ':' || n - end < 2 || n - end > 6) return false;
    for (size_t i = end + 1; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return end > 0;
}

/* localhost, 127.0.0.0/8 as four numbers, [::1]; with or without port. */
bool sq_http_is_loopback_host(const char *host, size_t n) {
    size_t name_n;
    char name[64];
    if (!split_port(host, n, &name_n) || name_n >= sizeof name) return false;
    memcpy(name, host, name_n);
    name[name_n] = '\0';
    if (strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0) return true;
    struct in_addr a;
    return inet_pton(AF_INET, name, &a) == 1 && ntohl(a.s_addr) >> 24 == 127;
}

bool sq_http_is_loopback_address(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 ||
           strncmp(address, "::ffff:127.", 11) == 0;
}

static bool is_listed_host(const sq_http_options *o, const char *host) {
    size_t name_n;
    if (!split_port(host, strlen(host), &name_n)) return false;
    for (int32_t i = 0; i < o->n_hosts; i++)
        if (strlen(o->hosts[i]) == name_n && strncasecmp(o->hosts[i], host, name_n) == 0) return true;
    return false;
}

static void check_host(sq_http_conn *c, sq_http_req *r) {
    if (!c->listener->loopback) return;
    const char *host = sq_http_header(r, "host");
    if (host && (sq_http_is_loopback_host(host, strlen(host)) || is_listed_host(&c->h->opt, host))) return;
    say(r, 403, "host_not_allowed",
        host ? "this Host is not served here; list it as a host name to allow it"
             : "a request without Host is not served here");
}

static bool is_allowed_origin(sq_http_req *r, const char *origin) {
    const sq_http_options *o = &r->h->opt;
    for (int32_t i = 0; i < o->n_origins; i++)
        if (strcmp(o->origins[i], "*") == 0 || strcasecmp(o->origins[i], origin) == 0) return true;
    const char *at = strncmp(origin, "http://", 7) == 0    ? origin + 7
                     : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                           : NULL;
    if (!at) return false;
    const char *host = sq_http_header(r, "host");
    return sq_http_is_loopback_host(at, strlen(at)) || (host && strcasecmp(host, at) == 0);
}

static size_t count_fields(const sq_http_req *r, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_fields; i++)
        if (strcasecmp(r->fields[i].name, name) == 0) n++;
    return n;
}

static void check_origin(sq_http_req *r) {
    const char *origin = sq_http_header(r, "origin");
    if (!origin) return;
    if (count_fields(r, "origin") == 1 && is_allowed_origin(r, origin))
        r->origin = origin;
    else
        say(r, 403, "origin_not_allowed",
            "this web page may not use this server; list its origin to allow it");
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Compared with every key, so that time does not tell which one, or how much of it, was right. */
static bool is_key(const sq_http *h, const uint8_t sha[SQ_HTTP_SHA_BYTES]) {
    int found = 0;
    for (size_t i = 0; i < h->n_keys; i++) found |= CRYPTO_memcmp(h->keys[i], sha, SQ_HTTP_SHA_BYTES) == 0;
    return found != 0;
}

static const char *bearer_of(const char *authorization) {
    if (!authorization || strncasecmp(authorization, "bearer ", 7) != 0) return NULL;
    authorization += 7;
    while (*authorization == ' ') authorization++;
    return authorization;
}

/* Every key that was shown must be right; two fields of one name are refused like a wrong key. */
static void check_key(sq_http_conn *c, sq_http_req *r, bool open_route) {
    r->key_is_right = c->h->n_keys == 0 || c->listener->unix_socket;
    if (r->key_is_right) return;
    const char *authorization = sq_http_header(r, "authorization");
    const char *shown[2] = {bearer_of(authorization), sq_http_header(r, "x-api-key")};
    bool any = false, right = count_fields(r, "authorization") <= 1 && count_fields(r, "x-api-key") <= 1 &&
                              (!authorization || shown[0]);
    for (int i = 0; i < 2; i++) {
        if (!shown[i]) continue;
        uint8_t sha[SQ_HTTP_SHA_BYTES];
        sq_http_sha256(shown[i], strlen(shown[i]), sha);
        right = is_key(c->h, sha) && right;
        if (!any) memcpy(&r->client, sha, sizeof r->client);
        any = true;
    }
    if (any && right) {
        r->key_is_right = true;
        return;
    }
    r->client = c->peer_hash;
    if (open_route) return;
    say(r, 401, "invalid_api_key",
        any || authorization ? "the API key is wrong" : "an API key is needed: Authorization: Bearer KEY");
    sq_http_add_header(r, "WWW-Authenticate", "Bearer");
}

/* ---- routes ---------------------------------------------------------------------------------- */

/* 0: no match; the longer the better. */
static size_t match(const sq_http_route *t, const char *path) {
    const size_t n = strlen(t->path);
    if (n > 0 && t->path[n - 1] == '*') return strncmp(t->path, path, n - 1) == 0 && path[n - 1] ? n : 0;
    return strcmp(t->path, path) == 0 ? SIZE_MAX : 0;
}

static unsigned methods_of(const sq_http_route *t) {
    return t->methods | (t->methods & SQ_HTTP_GET ? SQ_HTTP_HEAD : 0u);
}

/* The best route for path and method; *allowed: methods of all routes of the best path. */
static const sq_http_route *find_route(const sq_http *h, const char *path, unsigned method, unsigned *allowed,
                                       bool *open_path) {
    size_t best = 0;
    const sq_http_route *found = NULL;
    *allowed = 0;
    *open_path = false;
    for (size_t i = 0; i < h->opt.n_routes; i++) {
        const sq_http_route *t = &h->opt.routes[i];
        const size_t m = match(t, path);
        if (m == 0 || m < best) continue;
        if (m > best) {
            found = NULL;
            *allowed = 0;
            *open_path = true;
        }
        best = m;
        *allowed |= methods_of(t);
        if (methods_of(t) & method) found = t;
        if (!(t->flags & SQ_HTTP_OPEN)) *open_path = false;
    }
    return found;
}

static void list_methods(unsigned methods, char *out, size_t n) {
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{SQ_HTTP_GET, "GET"}, {SQ_HTTP_HEAD, "HEAD"},     {SQ_HTTP_POST, "POST"},
                 {SQ_HTTP_PUT, "PUT"}, {SQ_HTTP_DELETE, "DELETE"}, {SQ_HTTP_OPTIONS, "OPTIONS"}};
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < SQ_COUNT(names); i++)
        if (methods & names[i].bit)
            len += (size_t)snprintf(out + len, n - len, "%s%s", len ? ", " : "", names[i].name);
}

/* OPTIONS, of a page that asks first (CORS preflight) or of a curious client. */
static void answer_options(sq_http_req *r, unsigned allowed) {
    char methods[64];
    const bool star = strcmp(r->path, "*") == 0;
    if (!star && allowed == 0) {
        say(r, 404, "unknown_url", "nothing is served under this path");
        return;
    }
    list_methods(star ? 63u : allowed | SQ_HTTP_OPTIONS, methods, sizeof methods);
    sq_http_add_header(r, "Allow", methods);
    if (r->origin && sq_http_header(r, "access-control-request-method")) {
        sq_http_add_header(r, "Access-Control-Allow-Methods", methods);
        const char *wanted = sq_http_header(r, "access-control-request-headers");
        const bool sane =
            wanted && strlen(wanted) < 512 &&
            strspn(wanted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") ==
                strlen(wanted);
        sq_http_add_header(r, "Access-Control-Allow-Headers",
                           sane ? wanted : "authorization, content-type, x-api-key");
        sq_http_add_header(r, "Access-Control-Max-Age", "600");
    }
    say(r, 204, "", "");
}

static void check_route(sq_http_req *r, unsigned allowed) {
    if (r->route) return;
    if (allowed == 0) {
        say(r, 404, "unknown_url", "nothing is served under this path");
        return;
    }
    char methods[64];
    list_methods(allowed | SQ_HTTP_OPTIONS, methods, sizeof methods);
    if (!r->refused_status) sq_http_add_header(r, "Allow", methods);
    say(r, 405, "method_not_allowed", "this path is not served with this method");
}

/* ---- body ------------------------------------------------------------------------------------ */

static bool is_json(const char *type) {
    static const char json[] = "application/json";
    if (!type || strncasecmp(type, json, sizeof json - 1) != 0) return false;
    type += sizeof json - 1;
    type += strspn(type, " \t");
    return *type == '\0' || *type == ';';
}

static void check_body(sq_http_conn *c, sq_http_req *r) {
    const sq_http_route *t = r->route;
    if (t && t->body_max)
        c->gate.body_max = t->body_max;
    else
        c->gate.body_max = r->h->opt.body_max;
    if (!sq_gate_expects_body(&c->gate)) return;
    const char *coding = sq_http_header(r, "content-encoding");
    if (coding && strcasecmp(coding, "identity") != 0)
        say(r, 415, "unsupported_encoding", "a body with Content-Encoding is not taken");
    const bool page = sq_http_header(r, "origin") || sq_http_header(r, "sec-fetch-site");
    if (t && t->flags & SQ_HTTP_JSON && (page || !(t->flags & SQ_HTTP_JSON_LOOSE)) &&
        (!is_json(sq_http_header(r, "content-type")) || count_fields(r, "content-type") != 1))
        say(r, 415, "unsupported_media_type", "the body must have Content-Type: application/json");
    if (!c->gate.chunked && c->gate.left > c->gate.body_max) {
        char text[96];
        snprintf(text, sizeof text, "the body has %llu bytes, at most %llu are taken",
                 (unsigned long long)c->gate.left, (unsigned long long)c->gate.body_max);
        say(r, 413, "body_too_large", text);
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

static bool copy_fields(sq_http_conn *c, sq_http_req *r) {
    r->fields = SQ_ARENA_ARRAY(&r->arena, sq_http_field, (size_t)c->gate.n_fields + 1);
    if (!r->fields) return false;
    size_t at = 0;
    sq_span name, value;
    while (sq_gate_next_field(&c->gate, &at, &name, &value)) {
        sq_http_field *f = &r->fields[r->n_fields];
        f->name = sq_arena_strndup(&r->arena, (const char *)name.p, name.n);
        f->value = sq_arena_strndup(&r->arena, (const char *)value.p, value.n);
        if (!f->name || !f->value) return false;
        r->n_fields++;
    }
    return true;
}

static void make_id(sq_http_req *r) {
    const char *theirs = sq_http_header(r, "x-request-id");
    const size_t n = theirs ? strlen(theirs) : 0;
    if (n > 0 && n <= 64 &&
        strspn(theirs, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == n)
        memcpy(r->id, theirs, n + 1);
    else
        snprintf(r->id, sizeof r->id, "req_%016llx", (unsigned long long)sq_splitmix64(&r->h->id_state));
}

static bool decode_target(sq_http_conn *c, sq_http_req *r) {
    const uint8_t *target = (const uint8_t *)c->gate.head.data + c->gate.target_at;
    const uint8_t *mark = memchr(target, '?', c->gate.target_n);
    const size_t path_n = mark ? (size_t)(mark - target) : c->gate.target_n;
    const char *why = NULL;
    r->path = sq_http_decode_path(&r->arena, target, path_n, &why);
    if (r->path && mark &&
        !sq_http_decode_query(&r->arena, mark + 1, c->gate.target_n - path_n - 1, &r->queries, &r->n_queries,
                              &why) &&
        !why)
        return false;
    if (why) say(r, 400, "bad_request", why);
    if (!r->path && why) { /* the form of the refusal goes by the path: so much of it as is plain */
        size_t n = 0;
        while (n < path_n && target[n] > 0x20 && target[n] < 0x7f && target[n] != '%') n++;
        r->path = sq_arena_strndup(&r->arena, (const char *)target, n);
    }
    return r->path != NULL;
}

static void apply(sq_http_conn *c, sq_http_req *r) {
    unsigned allowed;
    bool open_path;
    r->route = find_route(r->h, r->path, r->method, &allowed, &open_path);
    if (!c->listener->unix_socket) {
        check_host(c, r);
        check_origin(r);
    }
    if (!r->refused_status && r->method == SQ_HTTP_OPTIONS) answer_options(r, allowed);
    if (!r->refused_status) check_key(c, r, r->route ? (r->route->flags & SQ_HTTP_OPEN) != 0 : open_path);
    check_route(r, allowed);
    check_body(c, r);
    const size_t n = r->route ? strlen(r->route->path) : 0;
    r->rest = n > 0 && r->route->path[n - 1] == '*' ? r->path + n - 1 : "";
}

sq_http_req *sq_http_req_from_head(sq_http_conn *c) {
    sq_http *h = c->h;
    sq_http_req *r = sq_alloc_zero(&h->alloc, sizeof *r);
    if (!r) return NULL;
    r->h = h;
    r->conn = c;
    r->body_fd = -1;
    r->begun_ns = sq_os_now_ns();
    r->tag = c->listener->tag;
    r->client = c->peer_hash;
    r->method = c->gate.method;
    r->minor = c->gate.minor;
    memcpy(r->peer, c->peer, sizeof r->peer);
    sq_arena_init(&r->arena, &h->alloc, 2048, 0);
    sq_buf_init(&r->body, &h->alloc, SIZE_MAX / 4);
    r->next = h->reqs;
    if (h->reqs) h->reqs->prev = r;
    h->reqs = r;
    h->n_reqs++;
    if (!copy_fields(c, r) || !decode_target(c, r)) {
        sq_http_req_free(r);
        return NULL;
    }
    make_id(r);
    apply(c, r);
    return r;
}
