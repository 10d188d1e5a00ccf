/* SPDX-License-Identifier: Apache-2.0
 *
 * api_page.c - embedded files: the chat page, what it loads, and the description of the API.
 *
 * The bytes are in the program (scripts/embed.sh), so the page works without a network, from any folder, and cannot
 * differ from the server it talks to. Answers carry an ETag of the content and "no-cache": a browser asks every time
 * and gets 304 until the program is another one. */
#include "api/api_int.h"

#include <string.h>

/* Nothing inline, nothing from elsewhere, never in a frame. Pictures may be data: because icons in dialogs of the
 * browser are. */
static const char csp[] = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
                          "form-action 'none'; frame-ancestors 'none'";

const sq_api_file *sq_api_page_find(const char *path) {
    if (strcmp(path, "/chat") == 0) path = "/";
    for (const sq_api_file *f = sq_api_files; f->path; f++)
        if (strcmp(f->path, path) == 0) return f;
    return NULL;
}

/* If-None-Match is "*" or a list of tags; ours contain no comma, and W/ in front does not matter (RFC 9110, 13.1.2). */
static bool has_tag(const char *list, const char *etag) {
    if (strcmp(list, "*") == 0) return true;
    const size_t n = strlen(etag);
    for (const char *p = strstr(list, etag); p; p = strstr(p + 1, etag))
        if (p[n] == '\0' || p[n] == ',' || p[n] == ' ') return true;
    return false;
}

void sq_api_page_reply(sq_http_req *r, const sq_api_file *f) {
    sq_http_add_header(r, "ETag", f->etag);
    sq_http_add_header(r, "Cache-Control", "no-cache");
    sq_http_add_header(r, "Content-Security-Policy", csp);
    sq_http_add_header(r, "Referrer-Policy", "no-referrer");
    sq_http_add_header(r, "Cross-Origin-Opener-Policy", "same-origin");
    sq_http_add_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    const char *seen = sq_http_header(r, "If-None-Match");
    if (seen && has_tag(seen, f->etag)) sq_http_reply(r, 304, f->type, "", 0);
    else sq_http_reply(r, 200, f->type, f->data, f->bytes);
}

static void get_file(void *user, sq_http_req *r) {
    (void)user;
    const sq_api_file *f = sq_api_page_find(sq_http_path(r));
    if (f) sq_api_page_reply(r, f);
    else sq_http_refuse(r, 404, "unknown_url", "%s: no such file", sq_http_path(r));
}

/* Open without a key: the page is how a key gets entered, and holds no secret. */
static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/", SQ_HTTP_OPEN, 0, get_file},
    {SQ_HTTP_GET, "/chat", SQ_HTTP_OPEN, 0, get_file},
    {SQ_HTTP_GET, "/page/*", SQ_HTTP_OPEN, 0, get_file},
};
const sq_api_routes sq_api_routes_page = {routes, SQ_COUNT(routes)};
