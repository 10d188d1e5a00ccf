/* SPDX-License-Identifier: Apache-2.0
 *
 * test_service.c - squish serve under a service manager, played by this test: it is handed sockets that
 * listen already, says when it is ready and going down, and is heard of as often as it was asked to be. */
#include "support/cli_sh.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

enum { FIRST_FD = 3, WAIT_MS = 60000 };

static char where[40]; /* folder of the sockets */

static int tcp_socket(uint32_t address, int type, int *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(address)}};
    socklen_t n = sizeof a;
    const int fd = socket(AF_INET, type, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    if (type == SOCK_STREAM) assert_int_equal(listen(fd, 16), 0);
    if (port) *port = ntohs(a.sin_port);
    return fd;
}

static int unix_socket(const char *name, int type) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/%s", where, name);
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    if (type == SOCK_STREAM) assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* The program with these files as 3, 4, ...; its standard error into $T/serve.err. */
static pid_t start(const int *fds, int n, const char *names, const char *extra) {
    char path[300], count[16], pid[16], notify[300];
    snprintf(path, sizeof path, "%s/serve.err", cli_folder);
    snprintf(notify, sizeof notify, "%s/notify", where);
    const pid_t child = fork();
    if (child != 0) return child;
    const int err = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(err, 2);
    int copies[8];
    for (int i = 0; i < n; i++) copies[i] = fcntl(fds[i], F_DUPFD, 100);
    for (int i = 0; i < n; i++) dup2(copies[i], FIRST_FD + i);
    snprintf(count, sizeof count, "%d", n);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_FDS", count, 1);
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDNAMES", names, 1);
    setenv("NOTIFY_SOCKET", notify, 1);
    setenv("WATCHDOG_USEC", "1500000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    execl(getenv("S"), "squish", "serve", "--tier", "source", "--threads", "1", "--log-file", "/dev/null",
          extra, (char *)NULL);
    _exit(127);
}

/* The next datagram; "" when none comes. */
static const char *hears(int notify) {
    static char text[300];
    struct pollfd p = {.fd = notify, .events = POLLIN};
    text[0] = 0;
    if (poll(&p, 1, WAIT_MS) != 1) return text;
    const ssize_t n = recv(notify, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return text;
}

/* Status line of GET path; the socket is connected and is closed. */
static const char *get(int fd, const char *path) {
    static char answer[4096];
    char request[200];
    const int n = snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    size_t got = 0;
    assert_int_equal(send(fd, request, (size_t)n, MSG_NOSIGNAL), n);
    for (ssize_t k; got < sizeof answer - 1 && (k = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0;)
        got += (size_t)k;
    answer[got] = 0;
    close(fd);
    return answer;
}

static int connected(int port, const char *name) {
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (name) snprintf(un.sun_path, sizeof un.sun_path, "%s/%s", where, name);
    const int fd = socket(name ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    assert_int_equal(name ? connect(fd, (struct sockaddr *)&un, sizeof un)
                          : connect(fd, (struct sockaddr *)&in, sizeof in),
                     0);
    return fd;
}

static int ends_with(pid_t child) {
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int begin(void **state) {
    snprintf(where, sizeof where, "/tmp/squish-service-XXXXXX"); /* short: names of socket files are */
    return mkdtemp(where) ? cli_begin(state) : -1;
}

static int end(void **state) {
    char line[300];
    snprintf(line, sizeof line, "rm -rf '%s'", where);
    return system(line) == 0 ? cli_end(state) : -1;
}

static void inherited_sockets_are_served_and_the_manager_is_told(void **state) {
    (void)state;
    int port = 0, ollama = 0;
    const int fds[3] = {tcp_socket(INADDR_LOOPBACK, SOCK_STREAM, &port), unix_socket("s", SOCK_STREAM),
                        tcp_socket(INADDR_LOOPBACK, SOCK_STREAM, &ollama)};
    const int notify = unix_socket("notify", SOCK_DGRAM);
    /* a client that came before the server, as behind a socket unit */
    const int early = connected(port, NULL);
    const pid_t child = start(fds, 3, "http:file:ollama", NULL);
    assert_string_equal(hears(notify), "READY=1\nSTATUS=serving");
    assert_non_null(strstr(get(early, "/health"), "HTTP/1.1 200"));
    assert_non_null(strstr(get(connected(0, "s"), "/v1/models"), "squish-tiny"));
    assert_non_null(strstr(get(connected(ollama, NULL), "/"), "Ollama is running"));
    assert_null(strstr(get(connected(port, NULL), "/"), "Ollama is running"));
    assert_string_equal(hears(notify), "WATCHDOG=1");
    assert_string_equal(hears(notify), "WATCHDOG=1");
    kill(child, SIGTERM);
    const char *last = hears(notify);
    while (strcmp(last, "WATCHDOG=1") == 0) last = hears(notify);
    assert_string_equal(last, "STOPPING=1\nSTATUS=finishing answers");
    assert_int_equal(ends_with(child), 0);
    assert_int_equal(sh("test -S '%s/s'", where)->status, 0); /* its file is the manager's */
    for (int i = 0; i < 3; i++) close(fds[i]);
    close(notify);
    assert_int_equal(sh("rm -f '%s'/*", where)->status, 0);
}

static void what_is_handed_over_is_held_to_the_rules(void **state) {
    (void)state;
    const int open_to_all = tcp_socket(INADDR_ANY, SOCK_STREAM, NULL);
    assert_int_equal(ends_with(start(&open_to_all, 1, "http", NULL)), 1);
    assert_non_null(strstr(sh("cat $T/serve.err >&2")->err,
                           "listening on 0.0.0.0, which others can reach, needs an API key"));
    close(open_to_all);
    const int datagrams = tcp_socket(INADDR_LOOPBACK, SOCK_DGRAM, NULL);
    assert_int_equal(ends_with(start(&datagrams, 1, "", NULL)), 1);
    assert_non_null(strstr(sh("cat $T/serve.err >&2")->err, "no listening stream socket"));
    const int many[5] = {datagrams, datagrams, datagrams, datagrams, datagrams};
    assert_int_equal(ends_with(start(many, 5, "", NULL)), 1);
    assert_non_null(strstr(sh("cat $T/serve.err >&2")->err, "hands over 5 sockets, at most 4"));
    close(datagrams);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inherited_sockets_are_served_and_the_manager_is_told),
        cmocka_unit_test(what_is_handed_over_is_held_to_the_rules),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
