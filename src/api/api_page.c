/* SPDX-License-Identifier: Apache-2.0
 *
 * api_page.c - files that are part of the program: the chat page, and the API's description.
 *
 * The table sq_api_files is made at build time by scripts/embed.sh. The page talks to this server alone and
 * loads nothing else: the Content-Security-Policy says so to the browser, and allows no script or style
 * inside the HTML. */
#include "api/api_int.h"

#include <string.h>

static const char policy[] =
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

const sq_api_file *sq_api_page_find(const char *path) {
    for (const sq_api_file *f = sq_api_files; f->path; f++)
        if (strcmp(f->path, path) == 0) return f;
    return NULL;
}

void sq_api_page_reply(sq_http_req *r, const sq_api_file *f) {
    if (!f) {
        sq_http_refuse(r, 404, "unknown_url", "no such page");
        return;
    }
    const char *known = sq_http_header(r, "If-None-Match");
    sq_http_add_header(r, "ETag", f->etag);
    sq_http_add_header(r, "Cache-Control", "no-cache");
    sq_http_add_header(r, "Content-Security-Policy", policy);
    sq_http_add_header(r, "Referrer-Policy", "no-referrer");
    if (known && strcmp(known, f->etag) == 0)
        sq_http_reply(r, 304, f->type, "", 0);
    else
        sq_http_reply(r, 200, f->type, f->data, f->bytes);
}

static void get_page(void *user, sq_http_req *r) {
    (void)user;
    static const char alive[] = "Ollama is running"; /* its clients look for these words */
    const char *path = sq_http_path(r);
    if (strcmp(path, "/") == 0 && sq_http_tag(r) == SQ_API_TAG_OLLAMA)
        sq_http_reply(r, 200, "text/plain; charset=utf-8", alive, sizeof alive - 1);
    else
        sq_api_page_reply(r, sq_api_page_find(strcmp(path, "/chat") == 0 ? "/" : path));
}

static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/", SQ_HTTP_OPEN, 0, get_page},
    {SQ_HTTP_GET, "/chat", SQ_HTTP_OPEN, 0, get_page},
    {SQ_HTTP_GET, "/page/*", SQ_HTTP_OPEN, 0, get_page},
};
const sq_api_routes sq_api_routes_page = {routes, SQ_COUNT(routes)};
