/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_names.c - 500 hostile names through every route of the server that takes a name of the store: each
 * is refused, and nothing outside the store is opened. */
#include "support/api_run.h"
#include "support/hostile_names.h"
#include "support/model_run.h"
#include "support/small_hub.h"

/* A string of JSON. Bytes that are no UTF-8 go as they are: the server shall see them. */
static void quote(const char *s, char *out, size_t n) {
    size_t k = (size_t)snprintf(out, n, "\"");
    for (; *s && k + 8 < n; s++) {
        const unsigned char c = (unsigned char)*s;
        k += (size_t)snprintf(out + k, n - k,
                              c < 0x20 || c == '"' || c == '\\' || c == 0x7f ? "\\u%04x" : "%c", c);
    }
    snprintf(out + k, n - k, "\"");
}

/* The rest of a path: what a client would not have to escape is not. */
static void escape(const char *s, char *out, size_t n) {
    size_t k = 0;
    out[0] = 0;
    for (; *s && k + 4 < n; s++) {
        const unsigned char c = (unsigned char)*s;
        k += (size_t)snprintf(out + k, n - k, c <= 0x20 || c >= 0x7f || strchr("?#", c) ? "%%%02X" : "%c", c);
    }
}

static void five_hundred_hostile_names_are_refused_and_open_nothing(void **state) {
    (void)state;
    static const struct {
        const char *method, *path, *body; /* the name twice, at most */
    } routes[] = {
        {"POST", "/api/show", "{\"model\": %s}"},
        {"DELETE", "/api/delete", "{\"model\": %s}"},
        {"POST", "/api/copy", "{\"source\": %s, \"destination\": \"x\"}"},
        {"POST", "/api/copy", "{\"source\": \"squish-tiny\", \"destination\": %s}"},
        {"POST", "/api/create", "{\"model\": %s, \"from\": \"squish-tiny\", \"stream\": false}"},
        {"POST", "/api/create", "{\"model\": \"x\", \"from\": %s, \"stream\": false}"},
        {"POST", "/api/create", "{\"model\": \"x\", \"files\": {\"a.gguf\": %s}, \"stream\": false}"},
        {"POST", "/api/create",
         "{\"model\": \"x\", \"files\": {%s: \"sha256:"
         "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}, \"stream\": false}"},
        {"POST", "/api/pull", "{\"model\": %s, \"stream\": false}"},
        {"POST", "/api/generate", "{\"model\": %s, \"prompt\": \"a\", \"stream\": false}"},
        {"POST", "/v1/chat/completions",
         "{\"model\": %s, \"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}"},
        {"HEAD", "/api/blobs/%s", NULL},
        {"POST", "/api/blobs/%s", "x"},
        {"GET", "/v1/models/%s", NULL}};
    hostile_place h;
    small_hub hub; /* which knows nothing */
    api_server s;
    char name[512], quoted[2048], escaped[2048], path[4096], body[4096];
    assert_true(hostile_begin(&h) && small_hub_begin(&hub));
    setenv("HF_ENDPOINT", hub.url, 1);
    setenv("OLLAMA_REGISTRY", hub.url, 1);
    sq_api_options o = api_options(&s);
    o.home = h.home;
    o.pulls = true;
    assert_int_equal(api_start(&s, &o), 0);
    int asked = 0;
    for (int i = 0; i < HOSTILE_NAMES; i++) {
        hostile_name(i, h.outside, name, sizeof name);
        quote(name, quoted, sizeof quoted);
        escape(name, escaped, sizeof escaped);
        for (size_t k = 0; k < SQ_COUNT(routes); k++) {
            const char *in_path = strstr(routes[k].path, "%s"), *in_body = routes[k].body;
            snprintf(path, sizeof path, "%.*s%s", (int)strcspn(routes[k].path, "%"), routes[k].path,
                     in_path ? escaped : "");
            const char *at = in_body ? strstr(in_body, "%s") : NULL;
            if (at)
                snprintf(body, sizeof body, "%.*s%s%s", (int)(at - in_body), in_body, quoted, at + 2);
            else
                snprintf(body, sizeof body, "%s", in_body ? in_body : "");
            const api_reply *r = ask(&s, routes[k].method, path, in_body ? body : NULL);
            asked++;
            if (r->status < 400 || r->hung)
                fail_msg("%s %s %s: %d %.200s", routes[k].method, path, body, r->status,
                         r->body ? r->body : "");
        }
    }
    assert_int_equal(ask(&s, "GET", "/api/version", NULL)->status, 200); /* and it is there still */
    api_end(&s);
    small_hub_end(&hub);
    assert_true(hostile_end(&h));
    snprintf(path, sizeof path, "%s/models/x.made.json", h.home);
    assert_false(sq_os_exists(path));
    printf("%d requests\n", asked);
    remove_tree(h.top);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_hundred_hostile_names_are_refused_and_open_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
