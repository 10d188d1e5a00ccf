/* SPDX-License-Identifier: Apache-2.0
 *
 * test_eval_fetch.c - task files from a server of this test's own: whole and out of archives, checked, each
 * there whole or not at all; and that every task has a place it can be fetched from. */
#include "eval/eval.h"
#include "support/model_run.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ZIP_SUM "e47a7575b8020af0528fda9255b5cdbb9bb64a51aa87eb930db6976ce514bf40"
#define PLAIN_SUM "1bb49ad069a89066e5d167c14a11faee08ce2e6b184ef2bc114cc3e7be1335f8"

/* ---- a server of three files ----------------------------------------------------------------- */

static int listener, port;
static pthread_t thread;
static char folder[64];

static void send_all(int fd, const char *p, size_t n) {
    for (size_t at = 0; at < n;) {
        const ssize_t k = send(fd, p + at, n - at, MSG_NOSIGNAL);
        if (k <= 0) return;
        at += (size_t)k;
    }
}

/* GET /NAME: that file of tests/fixtures/eval; /cut/NAME: its first half, then the connection ends. */
static void answer(int fd) {
    static char body[1 << 20];
    char request[2048] = "", name[256] = "", path[600], head[200];
    size_t n = 0;
    for (ssize_t k; !strstr(request, "\r\n\r\n") && n < sizeof request - 1; n += (size_t)k) {
        k = recv(fd, request + n, sizeof request - 1 - n, 0);
        if (k <= 0) return;
    }
    sscanf(request, "GET /%255s", name);
    const bool cut = strncmp(name, "cut/", 4) == 0;
    snprintf(path, sizeof path, "tests/fixtures/eval/%s", name + (cut ? 4 : 0));
    FILE *f = fopen(path, "rb");
    const size_t bytes = f ? fread(body, 1, sizeof body, f) : 0;
    if (f) fclose(f);
    const int k =
        snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                 f ? "200 OK" : "404 Not Found", bytes);
    send_all(fd, head, (size_t)k);
    send_all(fd, body, cut ? bytes / 2 : bytes);
}

static void *serve(void *user) {
    (void)user;
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        if (fd < 0) return NULL;
        answer(fd);
        close(fd);
    }
}

static int begin(void **state) {
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    snprintf(folder, sizeof folder, "/tmp/squish-fetch-XXXXXX");
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (!mkdtemp(folder) || bind(listener, (struct sockaddr *)&a, sizeof a) != 0 ||
        listen(listener, 8) != 0 || getsockname(listener, (struct sockaddr *)&a, &n) != 0)
        return -1;
    port = ntohs(a.sin_port);
    setenv("no_proxy", "*", 1);
    return pthread_create(&thread, NULL, serve, NULL);
}

static int end(void **state) {
    (void)state;
    char line[100];
    shutdown(listener, SHUT_RDWR);
    close(listener);
    pthread_join(thread, NULL);
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    return system(line);
}

static eval_source source(const char *name, const char *sum, char url[200]) {
    snprintf(url, 200, "http://127.0.0.1:%d/%s", port, name);
    return (eval_source){.url = url, .sha256 = sum, .bytes = 100000};
}

static size_t files_there(void) {
    char line[200], text[32] = "";
    snprintf(line, sizeof line, "find '%s' -type f | wc -l", folder);
    FILE *p = popen(line, "r");
    if (p && !fgets(text, sizeof text, p)) text[0] = 0;
    if (p) pclose(p);
    return strtoul(text, NULL, 10);
}

static bool count_calls(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)what;
    assert_true(done > 0);
    assert_int_equal(total, 100000);
    ++*(int *)user;
    return true;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void expect(const eval_source *s, squish_status wanted, const char *text) {
    squish_error err = {0};
    assert_int_equal(eval_fetch(s, folder, NULL, NULL, &err), wanted);
    if (text) assert_non_null(strstr(err.text, text));
}

static void nothing_stays_of_what_is_not_right(void **state) {
    (void)state;
    char url[200];
    eval_source s = source("hellaswag/validation.jsonl", ZIP_SUM, url);
    s.parts[0].place = "hellaswag/validation.jsonl";
    expect(&s, SQUISH_CORRUPT, "SHA-256 is " PLAIN_SUM ", wanted " ZIP_SUM);
    s = source("cut/hellaswag/validation.jsonl", PLAIN_SUM, url);
    s.parts[0].place = "hellaswag/validation.jsonl";
    expect(&s, SQUISH_NETWORK, NULL);
    s = source("gone.jsonl", PLAIN_SUM, url);
    s.parts[0].place = "hellaswag/validation.jsonl";
    expect(&s, SQUISH_NETWORK, "status 404");
    s = source("parts.zip", ZIP_SUM, url);
    s.parts[0].name = "deep/missing";
    s.parts[0].place = "piqa/validation.jsonl";
    expect(&s, SQUISH_CORRUPT, NULL);
    s = source("hellaswag/validation.jsonl", PLAIN_SUM, url); /* right, but no archive */
    s.parts[0].name = "deep/records.jsonl";
    s.parts[0].place = "piqa/validation.jsonl";
    expect(&s, SQUISH_CORRUPT, NULL);
    s.bytes = UINT64_MAX / 2;
    expect(&s, SQUISH_NO_SPACE, NULL);
    assert_int_equal(files_there(), 0);
}

static void what_is_right_can_be_read_as_a_task(void **state) {
    (void)state;
    char url[200];
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    int calls = 0;
    eval_source s = source("hellaswag/validation.jsonl", PLAIN_SUM, url);
    s.parts[0].place = "hellaswag/validation.jsonl";
    assert_ok(eval_fetch(&s, folder, count_calls, &calls, &err), &err);
    assert_true(calls > 0);
    s = source("parts.zip", ZIP_SUM, url);
    s.parts[0].name = "deep/labels.lst";
    s.parts[0].place = "piqa/validation-labels.lst";
    s.parts[1].name = "deep/records.jsonl";
    s.parts[1].place = "piqa/validation.jsonl";
    assert_ok(eval_fetch(&s, folder, NULL, NULL, &err), &err);
    assert_int_equal(files_there(), 3); /* the archive is gone */
    static const char *const names[] = {"hellaswag", "piqa"};
    for (size_t i = 0; i < 2; i++) {
        const eval_task *t = eval_task_find(names[i], strlen(names[i]));
        eval_set got, own;
        assert_true(eval_task_is_there(t, folder));
        assert_ok(eval_set_load(&got, t, folder, 0, &a, &err), &err);
        assert_ok(eval_set_load(&own, t, "tests/fixtures/eval", 0, &a, &err), &err);
        assert_string_equal(got.sha256, own.sha256);
        assert_int_equal(got.n, own.n);
        eval_set_free(&got);
        eval_set_free(&own);
    }
}

static void every_task_can_be_fetched(void **state) {
    (void)state;
    const eval_source *s;
    const size_t n = eval_sources(&s);
    for (size_t i = 0; i < EVAL_TASKS; i++) {
        size_t found = 0;
        for (size_t k = 0; k < n; k++) found += eval_source_has(&s[k], &eval_tasks[i]);
        assert_int_equal(found, 1);
    }
    for (size_t k = 0; k < n; k++) {
        assert_int_equal(strlen(s[k].sha256), 64);
        assert_int_equal(strspn(s[k].sha256, "0123456789abcdef"), 64);
        assert_int_equal(strncmp(s[k].url, "https://", 8), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_stays_of_what_is_not_right),
        cmocka_unit_test(what_is_right_can_be_read_as_a_task),
        cmocka_unit_test(every_task_can_be_fetched),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
