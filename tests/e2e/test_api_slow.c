/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_slow.c - readers who take ten bytes a second (R9): what the server keeps for one of them is
 * bounded, then its answer stands still; slots go to those who read, whose answers are what they always are;
 * and who reads on gets the rest, to the last byte. */
#include "support/api_run.h"
#include "support/api_tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* More slow readers than slots. Twenty alternatives a token: 5 kB of frames. */
enum { SLOW = 4, SLOTS = 2, TOKENS = 700, OTHERS = 8, KEPT_MAX = 1 << 20 };

static api_server server;
static char folder[] = "/tmp/squish-api-slow-XXXXXX";

static void wish(char *out, size_t n, int i, bool stream) {
    snprintf(out, n,
             "{\"prompt\":\"Reader %d\",\"max_tokens\":%d,\"ignore_eos\":true,\"temperature\":0.8,"
             "\"seed\":%d,\"logprobs\":20,\"stream\":%s}",
             i, TOKENS, i, stream ? "true" : "false");
}

/* A connection with the least of a receive buffer. */
static int begin_slow(int i) {
    char body[300], head[200];
    const int small = 2048, fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in a = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server.port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
    wish(body, sizeof body, i, true);
    snprintf(head, sizeof head,
             "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    api_write(fd, head, strlen(head));
    api_write(fd, body, strlen(body));
    return fd;
}

typedef struct {
    int fd;
    size_t n, cap;
    char *text;
} slow_reader;

/* At most `most` bytes; 0: the end. */
static size_t take(slow_reader *r, size_t most) {
    if (r->n + most + 1 > r->cap) r->text = realloc(r->text, r->cap = 2 * (r->n + most) + 4096);
    assert_true(api_wait(r->fd));
    const ssize_t k = recv(r->fd, r->text + r->n, most, 0);
    if (k > 0) r->n += (size_t)k;
    r->text[r->n] = 0;
    return k > 0 ? (size_t)k : 0;
}

static double metric(const char *name) {
    const api_reply *r = ask(&server, "GET", "/metrics", NULL);
    const char *p = strstr(r->body, name);
    while (p && p > r->body && p[-1] != '\n') p = strstr(p + 1, name);
    p = p ? strpbrk(p, " \n") : NULL;
    assert_non_null(p);
    return strtod(p, NULL);
}

/* The texts of a stream's frames joined; tokens may be NUL bytes. */
static char *streamed(const slow_reader *r, size_t *n) {
    char *gap = strstr(r->text, "\r\n\r\n");
    assert_non_null(gap);
    assert_non_null(strstr(r->text, "data: [DONE]"));
    api_reply reply = {.body = gap + 4, .n = r->n - (size_t)(gap + 4 - r->text)};
    reply.n = api_unchunk(reply.body, reply.n);
    json_t *frames = api_frames(&reply);
    assert_non_null(frames);
    char *all = calloc(1, reply.n + 1), *end = all;
    size_t i;
    json_t *f;
    json_array_foreach(frames, i, f) {
        const json_t *text = json_is_object(f) ? at(f, "choices[0].text") : NULL;
        if (json_string_length(text)) end = mempcpy(end, json_string_value(text), json_string_length(text));
    }
    json_decref(frames);
    *n = (size_t)(end - all);
    return all;
}

/* An answer of somebody who reads; owned by the caller. */
static char *other(int i) {
    char body[200];
    snprintf(body, sizeof body,
             "{\"prompt\":\"Other %d\",\"max_tokens\":12,\"ignore_eos\":true,\"temperature\":0.8,"
             "\"seed\":7}",
             i);
    json_t *o = ask_json(&server, "POST", "/v1/completions", body, 200);
    assert_non_null(o);
    char *text = strdup(text_at(o, "choices[0].text"));
    json_decref(o);
    return text;
}

/* Memory under a sanitizer says nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED false
#endif

static void readers_of_ten_bytes_a_second_stop_their_own_answers_alone(void **state) {
    (void)state;
    char *alone[OTHERS], body[300];
    slow_reader slow[SLOW] = {{0}};
    for (int i = 0; i < OTHERS; i++) alone[i] = other(i);
    const double before = metric("squish_evaluated_tokens_total");
    const uint64_t kept_before = sq_os_rss_anon();
    for (int i = 0; i < SLOW; i++) slow[i].fd = begin_slow(i);
    double seen = -1, made = before;
    while (made != seen || made == before) { /* until all of them stand still */
        seen = made;
        for (int k = 0; k < 3; k++) {
            usleep(100000);
            for (int i = 0; i < SLOW; i++)
                if (made != before) take(&slow[i], 1);
        }
        made = metric("squish_evaluated_tokens_total");
    }
    const uint64_t kept = sq_os_rss_anon();
    print_message("stand still after %.0f tokens each, +%.0f kB each\n", (made - before) / SLOW,
                  ((double)kept - (double)kept_before) / SLOW / 1e3);
    assert_true(made - before < SLOW * TOKENS * 0.9);
    if (!SANITIZED) assert_true(kept < kept_before + (uint64_t)SLOW * KEPT_MAX);
    for (int i = 0; i < OTHERS; i++) {
        char *text = other(i);
        assert_string_equal(text, alone[i]);
        free(text);
        free(alone[i]);
        for (int k = 0; k < SLOW; k++) take(&slow[k], 10);
    }
    for (int i = 0; i < SLOW; i++) {
        while (take(&slow[i], 1 << 16)) {}
        close(slow[i].fd);
    }
    for (int i = 0; i < SLOW; i++) {
        size_t n, same = 0;
        char *text = streamed(&slow[i], &n);
        wish(body, sizeof body, i, false);
        json_t *o = ask_json(&server, "POST", "/v1/completions", body, 200);
        assert_non_null(o);
        const char *whole = text_at(o, "choices[0].text");
        const size_t n_whole = json_string_length(at(o, "choices[0].text"));
        while (same < n && same < n_whole && text[same] == whole[same]) same++;
        if (same < n || same < n_whole)
            fail_msg("reader %d: %zu bytes, wanted %zu; from byte %zu on they differ", i, n, n_whole, same);
        assert_int_equal(int_at(o, "usage.completion_tokens"), TOKENS);
        json_decref(o);
        free(text);
        free(slow[i].text);
    }
}

static int setup(void **state) {
    (void)state;
    sq_api_options o = api_options(&server);
    if (!api_tiny_make(folder, server.path)) return 1;
    snprintf(server.path, sizeof server.path, "%s", folder);
    o.home = "/tmp/squish-no-such-home";
    o.parallel = SLOTS;
    o.threads = 1;
    return api_start(&server, &o);
}

static int teardown(void **state) {
    (void)state;
    api_end(&server);
    return api_tiny_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_of_ten_bytes_a_second_stop_their_own_answers_alone),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
