/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_server.c - what needs more than request and answer: clients that leave or do not read, limits of
 * connections, posts from many threads, the end of a server. */
#include "support/faults.h"
#include "support/http_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <ifaddrs.h>
#include <signal.h>
#include <sys/resource.h>

static http_server s;

static void start(const sq_http_options *o) {
    s.h = NULL;
    s.n_gone = s.n_done = s.n_waits = s.n_floods = s.n_pauses = 0;
    s.n_waiting = 0;
    sq_http_options plain = http_test_options(&s);
    assert_true(http_start(&s, o ? o : &plain, NULL, 0));
}

static int teardown(void **state) {
    (void)state;
    http_end(&s);
    return 0;
}

static int ask(const char *head) {
    const int fd = http_connect(s.port);
    assert_true(fd >= 0);
    assert_true(http_put(fd, head, strlen(head), SIZE_MAX));
    return fd;
}

/* Read until the connection ends or `until` is there; the text is valid until the next call. */
static const char *answer(int fd, const char *until) {
    static char text[1 << 16];
    size_t n = 0;
    text[0] = '\0';
    while (n < sizeof text - 1 && !(until && strstr(text, until))) {
        const ssize_t got = http_get(fd, text + n, sizeof text - 1 - n, HTTP_TIMEOUT_MS);
        if (got <= 0) break;
        n += (size_t)got;
        text[n] = '\0';
    }
    return text;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n\r\n"

static void a_client_that_leaves_while_it_waits_is_noticed_once(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask(GET("/wait"));
    assert_true(http_until(&s.n_waits, 1));
    close(fd);
    assert_true(http_until(&s.n_done, 1));
    assert_int_equal(s.n_gone, 1);
}

static void a_client_that_resets_is_noticed(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask(GET("/wait"));
    assert_true(http_until(&s.n_waits, 1));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(fd);
    assert_true(http_until(&s.n_gone, 1));
}

static void a_client_that_leaves_bytes_behind_its_request_is_noticed(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask(GET("/wait"));
    assert_true(http_until(&s.n_waits, 1));
    assert_true(http_put(fd, GET("/hello"), strlen(GET("/hello")), SIZE_MAX));
    poll(NULL, 0, 20);
    close(fd);
    assert_true(http_until(&s.n_gone, 1));
}

static void a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask("POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
    close(fd);
    assert_true(http_until(&s.n_done, 1));
    assert_int_equal(s.last_status, 0);
    assert_int_equal(s.n_gone, 0); /* no handler had begun */
}

static void a_client_that_leaves_a_silent_stream_is_noticed(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask(GET("/pings"));
    assert_non_null(strstr(answer(fd, ": ping\n\n"), ": ping\n\n"));
    close(fd);
    assert_true(http_until(&s.n_gone, 1));
    assert_true(http_until(&s.n_done, 1));
}

static void a_half_closed_client_gets_an_answer_that_is_ready(void **state) {
    (void)state;
    start(NULL);
    const int fd = ask(GET("/hello"));
    shutdown(fd, SHUT_WR);
    assert_non_null(strstr(answer(fd, NULL), "hello\n"));
    close(fd);
}

static void a_slow_reader_pauses_the_handler_and_then_gets_all(void **state) {
    (void)state;
    start(NULL);
    s.flood_bytes = 64u << 20;
    const int fd = ask(GET("/flood"));
    assert_true(http_until(&s.n_pauses, 1));
    poll(NULL, 0, 100);
    /* What the kernel holds for both sides, and output_max, is all that was made. */
    assert_true(s.flood_sent < s.flood_bytes);
    assert_int_equal(s.n_done, 0);
    uint64_t got = 0;
    static char piece[7 + (1 << 16)]; /* the last seven bytes before, then what came */
    do {
        const ssize_t n = http_get(fd, piece + 7, sizeof piece - 7, HTTP_TIMEOUT_MS);
        assert_true(n > 0);
        got += (uint64_t)n;
        memmove(piece, piece + n, 7);
    } while (memcmp(piece, "\r\n0\r\n\r\n", 7) != 0);
    assert_true(got > s.flood_bytes); /* framing comes on top */
    assert_true(s.flood_sent == s.flood_bytes);
    assert_true(s.n_pauses > 1);
    close(fd);
}

static void a_reader_who_takes_nothing_is_cut_off(void **state) {
    (void)state;
    sq_http_options o = http_test_options(&s);
    o.stalled_s = 0.3;
    start(&o);
    s.flood_bytes = 64u << 20;
    const int fd = ask(GET("/flood"));
    assert_true(http_until(&s.n_gone, 1));
    assert_true(http_until(&s.n_done, 1));
    assert_int_equal(s.n_gone, 1);
    close(fd);
}

static void silence_ends_idle_connections(void **state) {
    (void)state;
    sq_http_options o = http_test_options(&s);
    o.idle_s = 0.2;
    start(&o);
    char byte;
    const int silent = http_connect(s.port), used = ask(GET("/hello"));
    assert_non_null(strstr(answer(used, "hello\n"), "hello\n"));
    assert_int_equal(http_get(silent, &byte, 1, HTTP_TIMEOUT_MS), 0);
    assert_int_equal(http_get(used, &byte, 1, HTTP_TIMEOUT_MS), 0);
    close(silent);
    close(used);
}

static void bodies_beyond_a_mebibyte_go_to_a_file_that_is_removed(void **state) {
    (void)state;
    char folder[] = "/tmp/squish-http-XXXXXX";
    assert_non_null(mkdtemp(folder));
    sq_http_options o = http_test_options(&s);
    o.spool_dir = folder;
    start(&o);
    enum { BYTES = 3 << 20 };
    static char body[BYTES];
    memset(body, 1, sizeof body);
    char head[128];
    for (int large = 0; large < 2; large++) {
        const size_t n = large ? BYTES : 1000;
        snprintf(head, sizeof head, "POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n",
                 n);
        const int fd = ask(head);
        assert_true(http_put(fd, body, n, SIZE_MAX));
        const char *want = large ? "3145728 file 3145728\n" : "1000 memory 1000\n";
        assert_non_null(strstr(answer(fd, want), want));
        close(fd);
    }
    http_end(&s);
    assert_int_equal(rmdir(folder), 0); /* empty */
}

static void more_connections_than_the_maximum_wait_in_the_kernel(void **state) {
    (void)state;
    sq_http_options o = http_test_options(&s);
    o.connections_max = 2;
    start(&o);
    const int a = ask(GET("/wait")), b = ask(GET("/wait"));
    assert_true(http_until(&s.n_waits, 2));
    const int c = ask(GET("/hello"));
    char byte;
    assert_int_equal(http_get(c, &byte, 1, 50), -1);
    close(a);
    assert_non_null(strstr(answer(c, "hello\n"), "hello\n"));
    close(b);
    close(c);
}

static void a_socket_file_is_for_its_owner_and_needs_no_key(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/squish-http-%d.sock", (int)getpid());
    squish_error err = {0};
    sq_http_options o = http_test_options(&s);
    assert_int_equal(sq_http_new(&s.h, &o, &err), SQUISH_OK);
    assert_int_equal(sq_http_set_keys(s.h, (const char *const[]){"k"}, 1, &err), SQUISH_OK);
    assert_int_equal(sq_http_listen_unix(s.h, path, 3, &err), SQUISH_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(pthread_create(&s.thread, NULL, http_thread, &s), 0);
    struct sockaddr_un_like {
        unsigned short family;
        char path[108];
    } a = {AF_UNIX, ""};
    snprintf(a.path, sizeof a.path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_true(http_put(fd, "GET /hello HTTP/1.1\r\nHost: anything\r\n\r\n", 40, SIZE_MAX));
    assert_non_null(strstr(answer(fd, "hello\n"), "hello\n"));
    sq_http *second;
    assert_int_equal(sq_http_new(&second, &o, &err), SQUISH_OK);
    assert_int_equal(sq_http_listen_unix(second, path, 0, &err), SQUISH_INVALID); /* somebody answers there */
    sq_http_free(second);
    close(fd);
    http_end(&s);
    assert_int_not_equal(stat(path, &st), 0);
}

static void an_open_address_needs_a_key(void **state) {
    (void)state;
    squish_error err = {0};
    sq_http_options o = http_test_options(&s);
    int port;
    assert_int_equal(sq_http_new(&s.h, &o, &err), SQUISH_OK);
    assert_int_equal(sq_http_listen(s.h, "0.0.0.0", 0, 0, false, &port, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "needs an API key"));
    assert_int_equal(sq_http_check_address("0.0.0.0", 80, false, false, NULL), SQUISH_INVALID);
    assert_int_equal(sq_http_check_address("0.0.0.0", 80, false, true, NULL), SQUISH_OK);
    assert_int_equal(sq_http_check_address("0.0.0.0", 80, true, false, NULL), SQUISH_OK);
    assert_int_equal(sq_http_check_address("127.0.0.1", 80, false, false, NULL), SQUISH_OK);
    assert_int_equal(sq_http_check_address("127.0.0.1", 65536, false, false, NULL), SQUISH_INVALID);
    assert_int_equal(sq_http_listen(s.h, "0.0.0.0", 0, 0, true, &port, NULL), SQUISH_OK);
    assert_int_equal(sq_http_set_keys(s.h, (const char *const[]){"k"}, 1, NULL), SQUISH_OK);
    assert_int_equal(sq_http_listen(s.h, "0.0.0.0", 0, 0, false, &port, NULL), SQUISH_OK);
    assert_int_equal(sq_http_listen(s.h, "127.0.0.1", 65536, 0, false, &port, NULL), SQUISH_INVALID);
    sq_http_free(s.h);
    s.h = NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

/* Both sides of each connection are in this process, so the limit of files decides how many there can be. */
static void idle_and_half_open_connections_cost_at_most_4_kB(void **state) {
    (void)state;
    if (SANITIZED) {
        printf("skipped: memory under a sanitizer says nothing\n");
        skip();
    }
    enum { WANTED = 4000 };
    static int fds[WANTED];
    struct rlimit lim;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    const int n = lim.rlim_max > 2 * WANTED + 100 ? WANTED : (int)(lim.rlim_max - 100) / 2;
    start(NULL);
    close(ask(GET("/hello")));
    const uint64_t before = sq_os_rss_anon();
    static const char half[] = "GET /hello HTTP/1.1\r\nHost: localhost\r\nX-A: half a head";
    for (int i = 0; i < n; i++) {
        fds[i] = ask(i % 11 ? GET("/hello") : half);
        if (i % 11) answer(fds[i], "hello\n");
    }
    const double each = (double)(sq_os_rss_anon() - before) / n;
    printf("%d connections, one in eleven half open: %.0f bytes each\n", n, each);
    for (int i = 0; i < n; i++) close(fds[i]);
    assert_true(each <= 4096);
}

/* ---- limits of the machine and of addresses ------------------------------------------------- */

static _Atomic int n_warnings;
static void count_warning(void *user, const char *line) {
    (void)user;
    (void)line;
    n_warnings++;
}

static void without_file_descriptors_the_server_waits_and_comes_back(void **state) {
    (void)state;
    sq_http_options o = http_test_options(&s);
    o.warn = count_warning;
    n_warnings = 0;
    start(&o);
    struct rlimit lim, tight;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &lim), 0);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tight = lim;
    tight.rlim_cur = (rlim_t)fd + 1; /* the client's own is the last one there may be */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int connected = connect(fd, (struct sockaddr *)&a, sizeof a);
    http_put(fd, GET("/hello"), strlen(GET("/hello")), SIZE_MAX);
    const bool warned = http_until(&n_warnings, 1);
    poll(NULL, 0, 500); /* two more tries */
    const int in_between = n_warnings;
    setrlimit(RLIMIT_NOFILE, &lim);
    assert_int_equal(connected, 0);
    assert_true(warned);
    assert_int_equal(in_between, 1); /* told once, not over and over */
    assert_non_null(strstr(answer(fd, "hello\n"), "hello\n"));
    close(fd);
}

/* An address of this machine that is not loopback; false: it has none. */
static bool own_address(struct sockaddr_in *out) {
    struct ifaddrs *all;
    bool found = false;
    if (getifaddrs(&all) != 0) return false;
    for (struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET) continue;
        memcpy(out, i->ifa_addr, sizeof *out);
        found = ntohl(out->sin_addr.s_addr) >> 24 != 127;
    }
    freeifaddrs(all);
    return found;
}

static void one_address_has_no_more_than_its_share(void **state) {
    (void)state;
    struct sockaddr_in a;
    if (!own_address(&a)) {
        printf("skipped: this machine has no address but loopback\n");
        skip();
    }
    sq_http_options o = http_test_options(&s);
    o.connections_per_address = 2;
    assert_int_equal(sq_http_new(&s.h, &o, NULL), SQUISH_OK);
    assert_int_equal(sq_http_listen(s.h, "0.0.0.0", 0, 0, true, &s.port, NULL), SQUISH_OK);
    assert_int_equal(pthread_create(&s.thread, NULL, http_thread, &s), 0);
    a.sin_port = htons((uint16_t)s.port);
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], (struct sockaddr *)&a, sizeof a), 0);
        if (i == 2) break; /* the third is told without having asked */
        http_put(fds[i], GET("/hello"), strlen(GET("/hello")), SIZE_MAX);
        assert_non_null(strstr(answer(fds[i], "hello\n"), "hello\n"));
    }
    assert_non_null(strstr(answer(fds[2], NULL), "HTTP/1.1 503 "));
    const int loopback = ask(GET("/hello"));
    assert_non_null(strstr(answer(loopback, "hello\n"), "hello\n"));
    for (int i = 0; i < 3; i++) close(fds[i]);
    close(loopback);
}

/* ---- timers, signals, workers ---------------------------------------------------------------- */

static _Atomic int n_every, n_after, n_signals, n_worked, n_work_done;
static void count_one(void *user) { ++*(_Atomic int *)user; }
static void count_signal(void *user, int sig) {
    if (sig == SIGUSR1) ++*(_Atomic int *)user;
}

static void timers_and_signals_are_told_to_the_loop(void **state) {
    (void)state;
    n_every = n_after = n_signals = 0;
    sq_http_options o = http_test_options(&s);
    assert_int_equal(sq_http_new(&s.h, &o, NULL), SQUISH_OK);
    assert_int_equal(sq_http_every(s.h, 0.01, count_one, (void *)&n_every), SQUISH_OK);
    assert_int_equal(sq_http_after(s.h, 0.01, count_one, (void *)&n_after), SQUISH_OK);
    assert_int_equal(sq_http_on_signal(s.h, SIGUSR1, count_signal, (void *)&n_signals), SQUISH_OK);
    assert_int_equal(pthread_create(&s.thread, NULL, http_thread, &s), 0);
    assert_true(http_until(&n_every, 3) && http_until(&n_after, 1));
    kill(getpid(), SIGUSR1);
    assert_true(http_until(&n_signals, 1));
    http_end(&s);
    assert_int_equal(n_after, 1);
    assert_int_equal(n_signals, 1);
}

static void work_is_done_also_when_the_server_ends_first(void **state) {
    (void)state;
    n_worked = n_work_done = 0;
    sq_http_options o = http_test_options(&s);
    o.workers = 2;
    assert_int_equal(sq_http_new(&s.h, &o, NULL), SQUISH_OK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(sq_http_work(s.h, count_one, count_one, (void *)(i % 2 ? &n_worked : &n_work_done)),
                         SQUISH_OK);
    sq_http_free(s.h); /* its loop never ran */
    s.h = NULL;
    assert_int_equal(n_worked, 100);
    assert_int_equal(n_work_done, 100);
}

/* ---- posts ----------------------------------------------------------------------------------- */

enum { POSTERS = 4, POSTS = 5000 };
static int posted[POSTERS]; /* loop thread; by sender, so that order can be seen */
static _Atomic int n_posted, n_disorder;
static int numbers[POSTERS][POSTS];

static void count_post(void *user) {
    const int *at = user, poster = (int)((at - &numbers[0][0]) / POSTS);
    if (*at != posted[poster]++) n_disorder++;
    n_posted++;
}

static void *poster(void *user) {
    int *mine = user;
    for (int i = 0; i < POSTS; i++) {
        mine[i] = i;
        if (sq_http_post(s.h, count_post, &mine[i]) != SQUISH_OK) n_disorder++;
    }
    return NULL;
}

static void posts_from_many_threads_all_run_in_their_order(void **state) {
    (void)state;
    start(NULL);
    n_posted = n_disorder = 0;
    memset(posted, 0, sizeof posted);
    pthread_t t[POSTERS];
    for (int i = 0; i < POSTERS; i++) assert_int_equal(pthread_create(&t[i], NULL, poster, numbers[i]), 0);
    for (int i = 0; i < POSTERS; i++) pthread_join(t[i], NULL);
    assert_true(http_until(&n_posted, POSTERS * POSTS));
    assert_int_equal(n_disorder, 0);
}

/* Notes that are posted again from where they run. */
static struct {
    sq_http_note note;
    int n;
} lent[POSTERS];

static void post_again(void *user) {
    const int i = *(int *)user;
    n_posted++;
    if (++lent[i].n < POSTS) sq_http_post_lent(s.h, &lent[i].note, post_again, user);
}

static void a_lent_note_runs_each_time_it_is_posted_and_takes_no_memory(void **state) {
    (void)state;
    struct sq_test_alloc_state m = {0};
    const squish_alloc a = sq_test_alloc(&m);
    sq_http_options o = http_test_options(&s);
    o.alloc = &a;
    start(&o);
    n_posted = 0;
    memset(lent, 0, sizeof lent);
    const int64_t before = m.count;
    for (int i = 0; i < POSTERS; i++) {
        numbers[i][0] = i;
        sq_http_post_lent(s.h, &lent[i].note, post_again, &numbers[i][0]);
    }
    assert_true(http_until(&n_posted, POSTERS * POSTS));
    assert_int_equal(m.count, before);
    http_end(&s);
    assert_int_equal(m.live_blocks, 0);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void close_listeners(void *user) {
    sq_http_close_listeners(((http_server *)user)->h);
    ((http_server *)user)->n_pauses++;
}

static void a_drain_lets_requests_end_and_closes_the_rest(void **state) {
    (void)state;
    start(NULL);
    const int at_work = ask(GET("/wait")), idle = ask(GET("/hello"));
    assert_true(http_until(&s.n_waits, 1));
    assert_non_null(strstr(answer(idle, "hello\n"), "hello\n"));
    assert_int_equal(sq_http_post(s.h, close_listeners, &s), SQUISH_OK);
    assert_true(http_until(&s.n_pauses, 1));
    char byte;
    assert_int_equal(http_get(idle, &byte, 1, HTTP_TIMEOUT_MS), 0);
    assert_int_equal(http_connect(s.port), -1);
    http_release(&s);
    const char *text = answer(at_work, NULL); /* to the end of the connection */
    assert_non_null(strstr(text, "Connection: close\r\n"));
    assert_non_null(strstr(text, "released\n"));
    close(at_work);
    close(idle);
}

static void a_server_that_stops_with_requests_open_tells_their_handlers(void **state) {
    (void)state;
    start(NULL);
    s.flood_bytes = 64u << 20;
    const int a = ask(GET("/wait")), b = ask(GET("/flood")), c = ask(GET("/pings"));
    assert_true(http_until(&s.n_waits, 2) && http_until(&s.n_pauses, 1));
    http_end(&s);
    assert_int_equal(s.n_gone, 3);
    assert_int_equal(s.n_done, 3);
    assert_int_equal(s.run_status, SQUISH_OK);
    close(a);
    close(b);
    close(c);
}

int main(void) {
#define TEST(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_client_that_leaves_while_it_waits_is_noticed_once),
        TEST(a_client_that_resets_is_noticed),
        TEST(a_client_that_leaves_bytes_behind_its_request_is_noticed),
        TEST(a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing),
        TEST(a_client_that_leaves_a_silent_stream_is_noticed),
        TEST(a_half_closed_client_gets_an_answer_that_is_ready),
        TEST(a_slow_reader_pauses_the_handler_and_then_gets_all),
        TEST(a_reader_who_takes_nothing_is_cut_off),
        TEST(silence_ends_idle_connections),
        TEST(bodies_beyond_a_mebibyte_go_to_a_file_that_is_removed),
        TEST(more_connections_than_the_maximum_wait_in_the_kernel),
        TEST(a_socket_file_is_for_its_owner_and_needs_no_key),
        TEST(an_open_address_needs_a_key),
        TEST(idle_and_half_open_connections_cost_at_most_4_kB),
        TEST(without_file_descriptors_the_server_waits_and_comes_back),
        TEST(one_address_has_no_more_than_its_share),
        TEST(timers_and_signals_are_told_to_the_loop),
        TEST(work_is_done_also_when_the_server_ends_first),
        TEST(posts_from_many_threads_all_run_in_their_order),
        TEST(a_lent_note_runs_each_time_it_is_posted_and_takes_no_memory),
        TEST(a_drain_lets_requests_end_and_closes_the_rest),
        TEST(a_server_that_stops_with_requests_open_tells_their_handlers),
    };
    return cmocka_run_group_tests_name("http server", tests, NULL, NULL);
}
