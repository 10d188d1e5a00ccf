/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compress_writes.c - a build of tier 0 whose n-th change to the disk fails or is its last, n = 1, 2, 3
 * ...: a whole tier or none, and --resume always gets to the same bytes.
 *
 * This program has its own pwrite, fsync, fdatasync, ftruncate and rename, which the library links against.
 */
#include "forge/forge.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int calls;
static int fail_at, fail_with; /* errno, or 0: the process ends there */

static bool refused(void) {
    const int n = atomic_fetch_add(&calls, 1) + 1;
    if (fail_at == 0 || n != fail_at) return false;
    if (fail_with == 0) _exit(77);
    errno = fail_with;
    return true;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    return refused() ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);
}
int fsync(int fd) { return refused() ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return refused() ? -1 : (int)syscall(SYS_fdatasync, fd); }
int ftruncate(int fd, off_t n) { return refused() ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
int rename(const char *a, const char *b) {
    return refused() ? -1 : (int)syscall(SYS_renameat, -100, a, -100, b); /* AT_FDCWD */
}

typedef struct {
    char base[64], src[96], out[96];
    uint8_t *want;
    size_t n;
} place;

static squish_compress_options options(const place *p) {
    squish_compress_options o = squish_compress_options_default();
    o.out_dir = p->out, o.threads = 1, o.method = SQUISH_METHOD_RTN;
    return o;
}

static uint8_t *slurp(const char *path, size_t *n) {
    *n = (size_t)sq_os_file_bytes(path);
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(*n + 1);
    assert_non_null(f);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

/* The smallest model there is, and the file it becomes. Returns how often the disk was changed for it. */
static int prepare(place *p) {
    tiny_spec s = tiny_default();
    s.layers = 1, s.vocab = 16;
    snprintf(p->base, sizeof p->base, "/tmp/squish-writes-XXXXXX");
    assert_non_null(mkdtemp(p->base));
    snprintf(p->src, sizeof p->src, "%s/model", p->base);
    snprintf(p->out, sizeof p->out, "%s/model-compressed", p->base);
    assert_int_equal(sq_os_mkdirs(p->src, NULL), SQUISH_OK);
    tiny_write(&s, p->src);
    const squish_compress_options o = options(p);
    squish_compress_result r;
    squish_error err = {0};
    atomic_store(&calls, 0);
    assert_ok(squish_compress(p->src, &o, &r, &err), &err);
    const int n = atomic_load(&calls);
    p->want = slurp(r.file, &p->n);
    remove_tree(p->out);
    return n;
}

static int build_in_child(const place *p, int at, int with) {
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const squish_compress_options o = options(p);
        squish_compress_result r;
        squish_error err = {0};
        atomic_store(&calls, 0);
        fail_at = at, fail_with = with;
        const squish_status st = squish_compress(p->src, &o, &r, &err);
        if (st == SQUISH_OK) _exit(0);
        _exit((st == SQUISH_IO || st == SQUISH_NO_SPACE) && err.text[0] && !strchr(err.text, '\n') ? 1 : 2);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check_whole(const place *p, const char *path) {
    size_t n;
    uint8_t *have = slurp(path, &n);
    assert_int_equal(n, p->n);
    assert_memory_equal(have, p->want, n);
    free(have);
}

/* After whatever happened: a tier that says it is ready is right, and going on gets there. */
static void check_and_go_on(const place *p) {
    char path[1024];
    squish_compress_options o = options(p);
    squish_compress_result r;
    squish_error err = {0};
    if (sq_tier_ready(p->out, SQUISH_TIER_0, path, sizeof path, NULL, 0)) check_whole(p, path);
    o.resume = true;
    assert_ok(squish_compress(p->src, &o, &r, &err), &err);
    check_whole(p, r.file);
    remove_tree(p->out);
}

static void each_way(int with, int wanted) {
    place p;
    const int n = prepare(&p);
    assert_true(n > 20);
    for (int at = 1; at <= n; at++) {
        const int code = build_in_child(&p, at, with);
        if (code != wanted && code != 0) fail_msg("change %d of %d: the build ended with %d", at, n, code);
        check_and_go_on(&p);
    }
    print_message("%d changes\n", n);
    free(p.want);
    remove_tree(p.base);
}

static void a_failing_write_leaves_a_whole_tier_or_none(void **state) {
    (void)state;
    each_way(EIO, 1);
}

static void a_full_disk_keeps_the_work(void **state) {
    (void)state;
    each_way(ENOSPC, 1);
}

static void an_end_between_any_two_writes_leaves_a_whole_tier_or_none(void **state) {
    (void)state;
    each_way(0, 77);
}

/* Every change to the disk of one call fails once. */
static void a_file_written_in_one_call_is_the_old_one_or_the_new_one(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-writes-XXXXXX", path[64], partial[80];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    snprintf(partial, sizeof partial, "%s.partial", path);
    for (int at = 1, done = 0; !done; at++) {
        squish_error err = {0};
        size_t n;
        assert_ok(sq_os_write_file(path, "old", 3, &err), &err);
        atomic_store(&calls, 0);
        fail_at = at, fail_with = ENOSPC;
        const squish_status st = sq_os_write_file(path, "the new", 7, &err);
        fail_at = 0;
        done = atomic_load(&calls) < at;
        assert_int_equal(st, done ? SQUISH_OK : SQUISH_NO_SPACE);
        assert_true(done || err.text[0]);
        uint8_t *have = slurp(path, &n);
        const bool is_new = n == 7 && memcmp(have, "the new", 7) == 0;
        assert_true(is_new || (!done && n == 3 && memcmp(have, "old", 3) == 0));
        assert_false(sq_os_exists(partial));
        free(have);
        if (done) assert_in_range(at, 4, 9);
    }
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_written_in_one_call_is_the_old_one_or_the_new_one),
        cmocka_unit_test(a_failing_write_leaves_a_whole_tier_or_none),
        cmocka_unit_test(a_full_disk_keeps_the_work),
        cmocka_unit_test(an_end_between_any_two_writes_leaves_a_whole_tier_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
