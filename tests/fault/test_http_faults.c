/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_faults.c - the n-th allocation of the room fails, n = 1, 2, 3 ... until none is left to fail: the
 * server starts or says NO_MEMORY, a client gets an answer or the end of the connection, nothing leaks, and
 * the server still answers afterwards where only one allocation failed. (libevent's own memory is malloc's.)
 */
#include "support/faults.h"
#include "support/http_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const char requests[] = "POST /echo HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
                               "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                               "GET /stream?x=1 HTTP/1.1\r\nHost: localhost\r\nx-api-key: k\r\n\r\n"
                               "GET /work HTTP/1.1\r\nHost: localhost\r\nx-api-key: k\r\n\r\n"
                               "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/* Everything up to the end of the connection; the length, or -1 if the end never came. */
static ssize_t talk(int port, char *out, size_t n) {
    const int fd = http_connect(port);
    if (fd < 0) return -1;
    http_put(fd, requests, sizeof requests - 1, SIZE_MAX);
    size_t len = 0;
    ssize_t got = 1;
    while (len < n - 1 && (got = http_get(fd, out + len, n - 1 - len, HTTP_TIMEOUT_MS)) > 0)
        len += (size_t)got;
    out[len] = '\0';
    close(fd);
    return got == 0 || errno == ECONNRESET ? (ssize_t)len : -1;
}

static bool is_whole(const char *text) {
    return strstr(text, "{}") && strstr(text, "three") && strstr(text, "worked") && strstr(text, "401 ");
}

/* False: that allocation was never asked for. */
static bool with_failure(int64_t n, bool persistent) {
    static http_server s;
    memset(&s, 0, sizeof s);
    struct sq_test_alloc_state state = {.fail_at = n, .persistent = persistent};
    const squish_alloc a = sq_test_alloc(&state);
    sq_http_options o = http_test_options(&s);
    o.alloc = &a;
    squish_error err = {0};
    squish_status st = sq_http_new(&s.h, &o, &err);
    if (st == SQUISH_OK) st = sq_http_set_keys(s.h, (const char *const[]){"k"}, 1, &err);
    if (st == SQUISH_OK) st = sq_http_listen(s.h, "127.0.0.1", 0, 0, false, &s.port, &err);
    if (st == SQUISH_OK) {
        static char text[1 << 16];
        assert_int_equal(pthread_create(&s.thread, NULL, http_thread, &s), 0);
        for (int i = 0; i < 3; i++) {
            const bool healed = !persistent && state.count >= n;
            assert_true(talk(s.port, text, sizeof text) >= 0);
            assert_true(!healed || is_whole(text));
        }
        http_end(&s);
    } else {
        assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_true(err.text[0]);
        sq_http_free(s.h);
    }
    assert_int_equal(state.live_blocks, 0);
    assert_int_equal(state.wrong_sizes, 0);
    return state.count >= n;
}

static void one_allocation_fails(void **state) {
    (void)state;
    int64_t n = 1;
    while (with_failure(n, false)) n++;
    assert_true(n > 20);
}

static void all_allocations_fail_from_the_nth_on(void **state) {
    (void)state;
    int64_t n = 1;
    while (with_failure(n, true)) n++;
    assert_true(n > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_allocation_fails),
        cmocka_unit_test(all_allocations_fail_from_the_nth_on),
    };
    return cmocka_run_group_tests_name("http faults", tests, NULL, NULL);
}
