/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_limits.c - what is out of range, too deep, too wide, without a key or not a name, over a socket.
 */
#include "api/api_int.h"
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

static api_server server;

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"

/* ---- numeric fields -------------------------------------------------------------------------- */

static json_t *described(void) {
    json_t *o = ask_json(&server, "GET", "/openapi.json", NULL, 200);
    assert_non_null(o);
    return o;
}

/* One field of one route with one value as text. 400 names the field; where a value is good nothing else is.
 */
static void try_value(const char *route, const char *field, const char *value, bool good) {
    char body[512];
    const bool chat = strcmp(route, CHAT) == 0, embed = strcmp(route, "/v1/embeddings") == 0;
    const char *prompt = chat    ? "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"
                         : embed ? "\"input\":\"a\""
                                 : "\"prompt\":\"a\"";
    /* answers are short: one token, or what is likeliest is the end */
    const char *end = strcmp(field, "logit_bias") == 0 || embed ? "" : ",\"logit_bias\":{\"12281\":100}";
    const char *most = embed || strncmp(field, "max_", 4) == 0 ? "" : ",\"max_tokens\":1";
    const char *logprobs = strcmp(field, "top_logprobs") == 0 ? ",\"logprobs\":true" : "";
    snprintf(body, sizeof body, "{%s,\"%s\":%s%s%s%s}", prompt, field, value, logprobs, most, end);
    const api_reply *r = ask(&server, "POST", route, body);
    if (r->status != (good ? 200 : 400)) fail_msg("%s %s: %d %s", route, body, r->status, r->body);
    if (good) return;
    json_t *o = json_loads(r->body, 0, NULL);
    const char *message = text_at(o, "error.message"), *param = text_at(o, "error.param");
    /* a number that is none at all (1e999, NaN) is found by the parser, which knows the place only */
    if (!(param && strncmp(param, field, strlen(field)) == 0) && !strstr(message, "body: line"))
        fail_msg("%s: %s: does not name it", body, message);
    json_decref(o);
}

/* Ranges are those of the description that clients see: if one of both is wrong, this fails. */
static void numeric_fields_are_held_to_the_ranges_of_the_description(void **state) {
    (void)state;
    static const struct {
        const char *route, *schema;
    } rows[] = {{CHAT, "ChatRequest"}, {TEXT, "CompletionRequest"}, {"/v1/embeddings", "EmbeddingRequest"}};
    json_t *d = described();
    int n = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        char path[96];
        snprintf(path, sizeof path, "components.schemas.%s.properties", rows[i].schema);
        const char *field;
        json_t *p;
        json_object_foreach((json_t *)at(d, path), field, p) {
            const json_t *lo = json_object_get(p, "minimum"), *hi = json_object_get(p, "maximum");
            if (!lo || strcmp(field, "best_of") == 0 || strcmp(field, "dimensions") == 0) continue;
            const bool whole = strcmp(text_at(p, "type[0]"), "integer") == 0;
            const bool huge = strcmp(field, "seed") == 0;
            char value[64];
            n++;
            if (huge) {
                try_value(rows[i].route, field, "-9223372036854775808", true);
                try_value(rows[i].route, field, "9223372036854775807", true);
            } else {
                const double l = json_number_value(lo), h = json_number_value(hi),
                             step = whole ? 1 : 0.0009765625;
                const double wanted[] = {l - step, l, h, h + step};
                for (int k = 0; k < 4; k++) {
                    snprintf(value, sizeof value, "%.17g", wanted[k]);
                    try_value(rows[i].route, field, value, k == 1 || k == 2);
                }
            }
            try_value(rows[i].route, field, "null", true);
            static const char *const never[] = {
                "\"1\"", "true", "[]", "{}", "1e999", "-1e999", "NaN", "99999999999999999999999999", "1e300"};
            for (size_t k = 0; k < SQ_COUNT(never); k++) {
                if (strcmp(field, "logprobs") == 0 && strcmp(never[k], "true") == 0) continue;
                try_value(rows[i].route, field, never[k], false);
            }
            if (whole) try_value(rows[i].route, field, "1.5", false);
        }
    }
    assert_true(n > 40);
    try_value(CHAT, "logit_bias", "{\"5\":101}", false);
    try_value("/v1/embeddings", "dimensions", "0", false);
    json_decref(d);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void expect_400(const char *body, size_t n) {
    const uint64_t t0 = sq_os_now_ns();
    const api_reply *r = api_read(api_send_n(&server, "POST", CHAT, "", body, n));
    assert_int_equal(r->status, 400);
    assert_true(sq_os_now_ns() - t0 < (uint64_t)10e9); /* a bound that only catches hangs */
}

static char *repeated(const char *before, const char *piece, size_t count, const char *after, size_t *n) {
    const size_t len = strlen(piece), head = strlen(before);
    char *p = malloc(head + len * count + strlen(after) + 1);
    memcpy(p, before, head);
    for (size_t i = 0; i < count; i++) memcpy(p + head + i * len, piece, len);
    memcpy(p + head + len * count, after, strlen(after) + 1);
    *n = head + len * count + strlen(after);
    return p;
}

static void deep_and_wide_json_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *before, *piece;
        size_t count;
        const char *after;
    } rows[] = {
        {"{\"x\":", "[", 129, ""},
        {"{\"x\":", "[", 1000000, ""},
        {"", "{\"a\":", 1000000, ""},
        {"{\"messages\":[", "1,", 1000000, "1]}"},
        {"{\"x\":{", "\"a\":1,", 1000000, "\"b\":1}}"},
        {"{\"a\":1,\"a\":1", "", 0, "}"},
        {"[", "", 0, "]"},
        {"{\"x\":\"\\u0000\"", "", 0, "}"},
        {"\xEF\xBB\xBF{", "", 0, "}"},
        {"{\"x\":\"\xC0\x80\"", "", 0, "}"},
        {"{} ", "x", 1, ""},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        size_t n;
        char *body = repeated(rows[i].before, rows[i].piece, rows[i].count, rows[i].after, &n);
        expect_400(body, n);
        free(body);
    }
}

/* ---- names ----------------------------------------------------------------------------------- */

static void a_name_that_is_no_name_of_the_store_opens_nothing(void **state) {
    (void)state;
    static const char *const names[] = {"..",
                                        ".",
                                        "../squish-tiny",
                                        "models/squish-tiny",
                                        "/etc/passwd",
                                        "./squish-tiny",
                                        "squish-tiny/",
                                        "squish-tiny/../squish-tiny",
                                        "%2e%2e%2fsquish-tiny",
                                        "..\\\\squish-tiny",
                                        "SQUISH-TINY",
                                        "squish-tiny\\u0001",
                                        "~",
                                        "$HOME",
                                        "squish-tiny.sqw",
                                        "config.json",
                                        "squish-tiny:latest:latest",
                                        ":latest",
                                        "\\u002e\\u002e",
                                        "sha256:0000",
                                        "file:///etc/passwd",
                                        "http://127.0.0.1/x",
                                        "-rf",
                                        "*",
                                        "squish-tin\\u0443"};
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
                 names[i]);
        json_t *o = ask_json(&server, "POST", CHAT, body, 404);
        assert_non_null(o);
        assert_string_equal(text_at(o, "error.code"), "model_not_found");
        json_decref(o);
    }
    assert_int_equal(ask(&server, "GET", "/v1/models/..%2f..%2fetc", NULL)->status >= 400, 1);
    json_t *o = ask_json(&server, "POST", CHAT,
                         "{\"model\":\"squish-tiny:latest\",\"max_tokens\":1,\"messages\":[{\"role\":"
                         "\"user\",\"content\":\"a\"}]}",
                         200);
    assert_string_equal(text_at(o, "model"), "squish-tiny:latest"); /* said as it was asked */
    json_decref(o);
}

/* ---- routes and keys ------------------------------------------------------------------------- */

/* "/v1/models/{id}" and "/v1/models/" + star are the same. */
static void as_pattern(const char *path, char out[128]) {
    snprintf(out, 128, "%s", path);
    char *brace = strchr(out, '{');
    if (brace) snprintf(brace, 2, "*");
}

static void the_description_lists_every_route_and_no_other(void **state) {
    (void)state;
    json_t *d = described();
    size_t n = 0;
    for (const sq_http_route *r; (r = sq_api_route(n)); n++) {
        bool found = false;
        const char *path;
        json_t *item;
        json_object_foreach((json_t *)at(d, "paths"), path, item) {
            char p[128];
            as_pattern(path, p);
            if (strcmp(p, r->path) != 0) continue;
            if (r->methods & SQ_HTTP_GET) found |= json_object_get(item, "get") != NULL;
            if (r->methods & SQ_HTTP_POST) found |= json_object_get(item, "post") != NULL;
            if (r->methods & SQ_HTTP_DELETE) found |= json_object_get(item, "delete") != NULL;
            if (r->methods & SQ_HTTP_PUT) found |= json_object_get(item, "put") != NULL;
        }
        if (!found) fail_msg("%s is a route and not described", r->path);
    }
    const char *path;
    json_t *item;
    json_object_foreach((json_t *)at(d, "paths"), path, item) {
        char p[128];
        bool found = false;
        as_pattern(path, p);
        for (size_t i = 0; i < n; i++) found |= strcmp(sq_api_route(i)->path, p) == 0;
        if (!found) fail_msg("%s is described and no route", path);
    }
    json_decref(d);
}

static void with_keys_set_every_route_but_liveness_asks_for_one(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    static const char *const keys[] = {"correct horse", "battery"};
    o.keys = keys;
    o.n_keys = 2;
    assert_int_equal(api_start(&s, &o), 0);
    static const char *const shown[] = {NULL, "correct", "Correct horse", "correct horse x", "nonsense"};
    for (size_t i = 0; sq_api_route(i); i++) {
        const sq_http_route *r = sq_api_route(i);
        const char *method = r->methods & SQ_HTTP_GET    ? "GET"
                             : r->methods & SQ_HTTP_POST ? "POST"
                             : r->methods & SQ_HTTP_PUT  ? "PUT"
                                                         : "DELETE";
        char path[128];
        snprintf(path, sizeof path, "%s", r->path);
        char *star = strchr(path, '*');
        if (star) snprintf(star, 4, "abc");
        for (size_t k = 0; k < SQ_COUNT(shown); k++) {
            s.key = shown[k];
            const int status = ask(&s, method, path, method[0] == 'G' ? NULL : "{}")->status;
            /* open routes answer without a key; a key that is wrong is said to be so even there, or passed
             * over */
            if (r->flags & SQ_HTTP_OPEN)
                assert_true(status == 200 || status == 404 || status == 401);
            else if (status != 401)
                fail_msg("%s %s with '%s': %d", method, path, shown[k] ? shown[k] : "", status);
        }
    }
    s.key = NULL;
    assert_int_equal(ask(&s, "GET", "/livez", NULL)->status, 200);
    json_t *h = ask_json(&s, "GET", "/health", NULL, 200);
    assert_int_equal(json_object_size(h), 1); /* the status alone */
    assert_string_equal(text_at(h, "status"), "ok");
    json_decref(h);
    assert_int_equal(ask(&s, "OPTIONS", CHAT, NULL)->status, 204);
    for (size_t k = 0; k < 2; k++) {
        s.key = keys[k];
        assert_int_equal(ask(&s, "GET", "/v1/models", NULL)->status, 200);
        h = ask_json(&s, "GET", "/health", NULL, 200);
        assert_true(json_object_size(h) > 10);
        json_decref(h);
    }
    json_t *e;
    s.key = "nonsense";
    e = ask_json(&s, "GET", "/v1/models", NULL, 401);
    assert_string_equal(text_at(e, "error.type"), "authentication_error");
    assert_string_equal(text_at(e, "error.code"), "invalid_api_key");
    json_decref(e);
    api_end(&s);
}

static void an_open_address_or_a_key_file_for_all_is_refused_at_the_start(void **state) {
    (void)state;
    api_server s;
    sq_api *api = NULL;
    squish_error err = {0};
    sq_api_options o = api_options(&s);
    o.host = "0.0.0.0";
    assert_int_equal(sq_api_new(&api, &o, &err), SQUISH_INVALID);
    assert_null(api);
    assert_int_equal(sq_api_check(&o, NULL), SQUISH_INVALID);
    o.host = "127.0.0.1";
    assert_int_equal(sq_api_check(&o, NULL), SQUISH_OK);
    o.keys = (const char *const[]){""};
    o.n_keys = 1;
    assert_int_equal(sq_api_check(&o, NULL), SQUISH_INVALID);
    char path[] = "/tmp/squish-keys-XXXXXX";
    const int fd = mkstemp(path);
    api_write(fd, "", 0);
    assert_int_equal(write(fd, "# mine\n\n  alpha  \n", 18), 18);
    close(fd);
    assert_int_equal(chmod(path, 0644), 0);
    o = api_options(&s);
    o.key_file = path;
    err = (squish_error){0};
    assert_int_equal(sq_api_new(&api, &o, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "0644"));
    assert_int_equal(sq_api_check(&o, NULL), SQUISH_INVALID);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(api_start(&s, &o), 0);
    s.key = "alpha";
    assert_int_equal(ask(&s, "GET", "/v1/models", NULL)->status, 200);
    s.key = "# mine";
    assert_int_equal(ask(&s, "GET", "/v1/models", NULL)->status, 401);
    api_end(&s);
    unlink(path);
}

static void errors_of_the_server_itself_have_the_same_shape(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *code;
        int status;
    } rows[] = {{"GET", "/nothing/here", "unknown_url", 404},
                {"GET", CHAT, "method_not_allowed", 405},
                {"POST", "/v1/rerank", "unsupported", 501},
                {"POST", "/v1/requests/nobody/cancel", "request_not_found", 404}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        json_t *o = ask_json(&server, rows[i].method, rows[i].path, rows[i].method[0] == 'P' ? "{}" : NULL,
                             rows[i].status);
        assert_non_null(o);
        assert_string_equal(text_at(o, "error.code"), rows[i].code);
        assert_true(json_is_string(at(o, "error.message")) && json_is_null(at(o, "error.param")));
        json_decref(o);
    }
}

static void a_path_that_cannot_be_read_is_refused_in_the_shape_of_its_dialect(void **state) {
    (void)state;
    json_t *o = ask_json(&server, "GET", "/v1/models/%11", NULL, 400);
    assert_string_equal(text_at(o, "error.code"), "bad_request");
    json_decref(o);
    o = ask_json(&server, "POST", "/api/blobs/%11", "{}", 400);
    assert_true(json_is_string(at(o, "error")));
    json_decref(o);
    o = ask_json(&server, "POST", "/v1/messages?a=%ff", "{}", 400);
    assert_string_equal(text_at(o, "type"), "error");
    json_decref(o);
}

static int begin(void **state) {
    (void)state;
    return api_start(&server, NULL);
}
static int end(void **state) {
    (void)state;
    api_end(&server);
    return server.status == SQUISH_OK ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_fields_are_held_to_the_ranges_of_the_description),
        cmocka_unit_test(deep_and_wide_json_is_refused),
        cmocka_unit_test(a_name_that_is_no_name_of_the_store_opens_nothing),
        cmocka_unit_test(the_description_lists_every_route_and_no_other),
        cmocka_unit_test(with_keys_set_every_route_but_liveness_asks_for_one),
        cmocka_unit_test(an_open_address_or_a_key_file_for_all_is_refused_at_the_start),
        cmocka_unit_test(errors_of_the_server_itself_have_the_same_shape),
        cmocka_unit_test(a_path_that_cannot_be_read_is_refused_in_the_shape_of_its_dialect),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
