/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_faults.c - the n-th allocation behind a request fails, n = 1, 2, 3 ... until none is left to fail,
 * once in the memory of server, model and batch, once in jansson's: the client gets an answer, a refusal or
 * the end of the connection; nothing hangs, and the same request afterwards is answered as ever. At the end
 * nothing has leaked. (libevent's and PCRE2's own memory is malloc's.)
 *
 * The model is that of api_tiny.h. */
#include "support/api_run.h"
#include "support/api_tiny.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

static api_server server;
static struct sq_test_alloc_state memory;
static struct { _Atomic int64_t count, fail_at; /* fail_at 0: none */ } json_memory;

static void *json_malloc(size_t n) {
    const int64_t i = atomic_fetch_add(&json_memory.count, 1) + 1;
    return i == atomic_load(&json_memory.fail_at) ? NULL : malloc(n);
}

/* ---- requests -------------------------------------------------------------------------------- */

#define SAID "\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"}]"
#define TINY "\"model\":\"squish-tiny\""

static const struct {
    const char *method, *path, *body;
    bool stream;
} requests[] = {
    {"POST", "/v1/chat/completions", "{" SAID ",\"max_tokens\":2,\"temperature\":0,\"logprobs\":true}",
     false},
    {"POST", "/v1/chat/completions", "{" SAID ",\"max_tokens\":2,\"stream\":true,\"n\":2}", true},
    {"POST", "/v1/completions",
     "{\"prompt\":[\"a b\",\"c\"],\"max_tokens\":1,\"echo\":true,\"logprobs\":2,\"stop\":[\"x\"]}", false},
    {"POST", "/v1/embeddings", "{\"input\":[\"a\",\"b c\"],\"encoding_format\":\"base64\"}", false},
    {"POST", "/v1/responses",
     "{" TINY ",\"input\":\"hello\",\"stream\":true,\"text\":{\"format\":{\"type\":\"json_schema\","
     "\"name\":\"a\",\"schema\":{\"enum\":[7,\"b\"]}}}}",
     true},
    {"POST", "/v1/messages", "{" TINY "," SAID ",\"max_tokens\":2}", false},
    {"POST", "/api/chat", "{" TINY "," SAID ",\"options\":{\"num_predict\":2}}", true},
    {"POST", "/api/generate", "{" TINY ",\"prompt\":\"a\",\"stream\":false,\"options\":{\"num_predict\":2}}",
     false},
    {"POST", "/api/embed", "{" TINY ",\"input\":\"a\"}", false},
    {"POST", "/api/show", "{" TINY "}", false},
    {"GET", "/api/tags", NULL, false},
    {"POST", "/tokenize", "{\"prompt\":\"a b c\"}", false},
    {"POST", "/detokenize", "{\"tokens\":[1,2,3]}", false},
    {"POST", "/apply-template", "{" SAID "}", false},
    {"GET", "/v1/models", NULL, false},
};

static char last_body[400];

/* The status, 0 where the connection ended without one. A whole answer is whole. */
static int talk(size_t i) {
    const api_reply *r = ask(&server, requests[i].method, requests[i].path, requests[i].body);
    if (r->hung) fail_msg("%s %s hung", requests[i].method, requests[i].path);
    if (r->status == 200 && !requests[i].stream) {
        const char *length = strcasestr(r->head, "content-length:");
        if (length) assert_int_equal(strtoul(length + 15, NULL, 10), r->n);
    }
    snprintf(last_body, sizeof last_body, "%s", r->body);
    return r->status;
}

/* Both counters at rest: workers and the batch may still put things away. */
static void settle(void) {
    int64_t seen = -1;
    for (int64_t now; (now = memory.count + json_memory.count) != seen; seen = now) usleep(1000);
}

/* 529 is Anthropic's 503. jansson's lexer says "invalid token" when it has no memory for one. A connection
 * that http had no memory for is refused by evhttp, in HTML. */
static bool is_right(int status, bool json) {
    static const int all[] = {0, 200, 500, 503, 529};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        if (status == all[k]) return true;
    return (json && status == 400) || strncmp(last_body, "<HTML>", 6) == 0;
}

/* False: that allocation was never asked for. */
static bool with_failure(size_t i, int64_t n, bool json) {
    settle();
    const int64_t at = (json ? json_memory.count : memory.count) + n;
    if (json)
        json_memory.fail_at = at;
    else
        memory.fail_at = at;
    const int status = talk(i);
    settle();
    const bool failed = (json ? json_memory.count : memory.count) >= at;
    memory.fail_at = 0;
    json_memory.fail_at = 0;
    if (!is_right(status, json))
        fail_msg("%s %s: %d with allocation %lld failing: %s", requests[i].method, requests[i].path, status,
                 (long long)n, last_body);
    if (talk(i) != 200)
        fail_msg("%s %s: not well again after %lld: %s", requests[i].method, requests[i].path, (long long)n,
                 last_body);
    return failed;
}

/* Every one of the first, then further and further apart: tokens are alike. */
static void each_request(bool json) {
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int64_t n = 1;
        assert_int_equal(talk(i), 200);
        while (with_failure(i, n, json)) n += n < 24 ? 1 : n / 8;
        json_t *h = ask_json(&server, "GET", "/health", NULL, 200);
        assert_int_equal(int_at(h, "inflight"), 0);
        json_decref(h);
    }
}

static void one_allocation_of_server_model_or_batch_fails(void **state) {
    (void)state;
    each_request(false);
}

static void one_allocation_of_jansson_fails(void **state) {
    (void)state;
    each_request(true);
}

static void nothing_is_left_behind(void **state) {
    (void)state;
    api_end(&server);
    assert_int_equal(memory.live_blocks, 0);
    assert_int_equal(memory.wrong_sizes, 0);
}

/* The server itself: it starts or says why. */
static void a_server_starts_or_says_that_there_is_no_memory(void **state) {
    (void)state;
    for (int64_t n = 1;; n++) {
        static api_server s;
        struct sq_test_alloc_state m = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&m);
        sq_api_options o = api_options(&s);
        o.alloc = &a;
        const squish_status st = sq_api_new(&s.api, &o, &s.err);
        if (st == SQUISH_OK)
            sq_api_free(s.api);
        else
            assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_int_equal(m.live_blocks, 0);
        assert_int_equal(m.wrong_sizes, 0);
        if (m.count < n) break;
    }
}

static char folder[] = "/tmp/squish-api-faults-XXXXXX";

static int teardown(void **state) {
    (void)state;
    return api_tiny_remove(folder);
}

static int setup(void **state) {
    (void)state;
    static squish_alloc a;
    json_set_alloc_funcs(json_malloc, free);
    a = sq_test_alloc(&memory);
    sq_api_options o = api_options(&server);
    if (!api_tiny_make(folder, server.path)) return 1;
    snprintf(server.path, sizeof server.path, "%s", folder);
    o.alloc = &a;
    o.home = "/tmp/squish-no-such-home";
    o.threads = 1; /* rows are few: a second one would only be waited for */
    return api_start(&server, &o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_starts_or_says_that_there_is_no_memory),
        cmocka_unit_test(one_allocation_of_server_model_or_batch_fails),
        cmocka_unit_test(one_allocation_of_jansson_fails),
        cmocka_unit_test(nothing_is_left_behind),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
