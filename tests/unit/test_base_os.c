/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_os.c - files, directories, mappings and locks in a directory of their own; the clock and the
 * machine. */
#include "base/base.h"
#include "support/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH = 300 };

/* Every test runs with a fresh directory as its working directory and leaves it empty of surprises. */
static char home[PATH], dir[PATH];

static int enter(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    if (!getcwd(home, sizeof home)) return -1;
    snprintf(dir, sizeof dir, "%s/squish-os-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    char command[PATH + 16];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return chdir(home) == 0 && system(command) == 0 ? 0 : -1;
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

static void assert_holds(const char *path, const char *text) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    sq_span s;
    assert_int_equal(sq_os_read_file(path, 100000, &ar, &s, NULL), SQUISH_OK);
    assert_int_equal(s.n, strlen(text));
    assert_string_equal((const char *)s.p, text);
    sq_arena_deinit(&ar);
}

static size_t count_names(void) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    char **names;
    size_t n;
    assert_int_equal(sq_os_list_dir(".", &ar, &names, &n, NULL), SQUISH_OK);
    sq_arena_deinit(&ar);
    return n;
}

/* ---- mapping and reading --------------------------------------------------------------------- */

static void a_mapping_shows_the_file(void **state) {
    (void)state;
    put("f", "hello");
    sq_map m;
    assert_int_equal(sq_os_map_open(&m, "f", NULL), SQUISH_OK);
    assert_int_equal(m.bytes, 5);
    assert_memory_equal(m.data, "hello", 5);
    struct stat st;
    stat("f", &st);
    assert_int_equal(m.inode, st.st_ino);
    assert_int_equal(m.mtime_ns / 1000000000u, (uint64_t)st.st_mtime);
    for (int advice = SQ_ADVISE_RANDOM; advice <= SQ_ADVISE_WILLNEED; advice++)
        sq_os_map_advise(&m, 1, 1000, advice);
    sq_os_map_advise(&m, 99, 1, SQ_ADVISE_RANDOM); /* beyond the end: nothing */
    assert_int_equal(symlink("f", "link"), 0);
    sq_map by_link;
    assert_int_equal(sq_os_map_open(&by_link, "link", NULL), SQUISH_OK);
    assert_int_equal(by_link.inode, m.inode);
    sq_os_map_close(&by_link);
    sq_os_map_close(&m);
    assert_null(m.data);
    sq_os_map_close(&m);
    sq_os_map_close(NULL);
}

static void an_empty_file_maps_to_no_bytes(void **state) {
    (void)state;
    put("empty", "");
    sq_map m;
    assert_int_equal(sq_os_map_open(&m, "empty", NULL), SQUISH_OK);
    assert_non_null(m.data);
    assert_int_equal(m.bytes, 0);
    sq_os_map_close(&m);
}

static void only_regular_files_are_opened(void **state) {
    (void)state;
    assert_int_equal(mkdir("d", 0777), 0);
    assert_int_equal(mkfifo("fifo", 0666), 0);
    put("f", "x");
    static const struct {
        const char *path, *word;
        squish_status code;
    } rows[] = {{"d", "'d' is a directory", SQUISH_INVALID},
                {"fifo", "'fifo' is a special file", SQUISH_INVALID},
                {"/dev/null", "special file", SQUISH_INVALID},
                {"absent", "'absent'", SQUISH_NOT_FOUND},
                {"f/below", "'f/below'", SQUISH_NOT_FOUND},
                {"", "''", SQUISH_NOT_FOUND}};
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        squish_error err = {0}, err2 = {0};
        sq_map m;
        assert_int_equal(sq_os_map_open(&m, rows[i].path, &err), rows[i].code);
        assert_non_null(strstr(err.text, rows[i].word));
        assert_null(m.data);
        sq_span s;
        assert_int_equal(sq_os_read_file(rows[i].path, 10, &ar, &s, &err2), rows[i].code);
        assert_non_null(strstr(err2.text, rows[i].word));
        assert_null(s.p);
    }
    sq_arena_deinit(&ar);
}

static void reading_has_a_ceiling_and_ends_with_nul(void **state) {
    (void)state;
    put("f", "0123456789");
    put("empty", "");
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    sq_span s;
    squish_error err = {0};
    assert_int_equal(sq_os_read_file("f", 10, &ar, &s, NULL), SQUISH_OK);
    assert_string_equal((const char *)s.p, "0123456789");
    assert_int_equal(sq_os_read_file("f", 9, &ar, &s, &err), SQUISH_CORRUPT);
    assert_string_equal(err.text, "'f': 10 bytes, the limit is 9");
    assert_int_equal(sq_os_read_file("empty", 0, &ar, &s, NULL), SQUISH_OK);
    assert_int_equal(s.n, 0);
    assert_string_equal((const char *)s.p, "");
    sq_arena_deinit(&ar);
}

/* ---- questions and directories --------------------------------------------------------------- */

static void questions_about_paths_are_answered(void **state) {
    (void)state;
    put("f", "12345");
    assert_int_equal(mkdir("d", 0777), 0);
    assert_true(sq_os_exists("f") && sq_os_exists("d") && !sq_os_exists("absent"));
    assert_true(sq_os_is_dir("d") && !sq_os_is_dir("f") && !sq_os_is_dir("absent"));
    assert_int_equal(sq_os_file_bytes("f"), 5);
    assert_int_equal(sq_os_file_bytes("d"), 0);
    assert_int_equal(sq_os_file_bytes("absent"), 0);
    assert_true(sq_os_writable_dir("d"));
    assert_true(sq_os_writable_dir("d/new/newer"));
    assert_true(sq_os_writable_dir("new"));
    assert_false(sq_os_writable_dir("f"));
    assert_false(sq_os_writable_dir("f/below/deep"));
    assert_true(sq_os_disk_free("d") > 0);
    assert_true(sq_os_disk_free("new/newer") > 0);
    char real[PATH + 16];
    snprintf(real, sizeof real, "%s/new/newer", dir);
    assert_true(sq_os_disk_free(real) > 0);
}

static void directories_are_made_with_their_parents(void **state) {
    (void)state;
    squish_error err = {0};
    assert_int_equal(sq_os_mkdirs("a//b/c/", &err), SQUISH_OK);
    assert_true(sq_os_is_dir("a/b/c"));
    assert_int_equal(sq_os_mkdirs("a/b/c", &err), SQUISH_OK);
    assert_int_equal(sq_os_mkdirs("/", &err), SQUISH_OK);
    put("f", "x");
    assert_int_equal(sq_os_mkdirs("f", &err), SQUISH_IO);
    assert_string_equal(err.text, "'f' is in the way: not a directory");
    assert_int_not_equal(sq_os_mkdirs("f/g", NULL), SQUISH_OK);
    assert_int_equal(sq_os_mkdirs("", NULL), SQUISH_INVALID);
    char *huge = malloc(5001);
    memset(huge, 'x', 5000);
    huge[5000] = '\0';
    assert_int_equal(sq_os_mkdirs(huge, NULL), SQUISH_INVALID);
    free(huge);
}

static void names_come_sorted_by_bytes(void **state) {
    (void)state;
    static const char *const want[] = {".hidden", "A", "Z", "a", "a-", "b", "\xC3\xA9"};
    for (size_t i = SQ_COUNT(want); i-- > 0;) put(want[i], "");
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    char **names;
    size_t n;
    assert_int_equal(sq_os_list_dir(".", &ar, &names, &n, NULL), SQUISH_OK);
    assert_int_equal(n, SQ_COUNT(want));
    for (size_t i = 0; i < n; i++) assert_string_equal(names[i], want[i]);
    assert_int_equal(mkdir("none", 0777), 0);
    assert_int_equal(sq_os_list_dir("none", &ar, &names, &n, NULL), SQUISH_OK);
    assert_int_equal(n, 0);
    squish_error err = {0};
    assert_int_equal(sq_os_list_dir("absent", &ar, &names, &n, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "'absent'"));
    sq_arena_deinit(&ar);
}

static void failing_allocations_in_listing_and_reading_are_reported(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++) {
        char name[64];
        snprintf(name, sizeof name, "a-rather-long-file-name-%02d", i);
        put(name, "content");
    }
    squish_status st = SQUISH_NO_MEMORY;
    for (int64_t at = 1; st != SQUISH_OK; at++) {
        assert_true(at < 100);
        struct sq_test_alloc_state s = {.fail_at = at};
        squish_alloc a = sq_test_alloc(&s);
        sq_arena ar;
        sq_arena_init(&ar, &a, 256, 0);
        char **names;
        size_t n;
        sq_span text;
        st = sq_os_list_dir(".", &ar, &names, &n, NULL);
        if (st == SQUISH_OK) st = sq_os_read_file(names[n - 1], 100, &ar, &text, NULL);
        if (st != SQUISH_OK) assert_int_equal(st, SQUISH_NO_MEMORY);
        sq_arena_deinit(&ar);
        assert_int_equal(s.live_blocks, 0);
    }
}

/* ---- new files ------------------------------------------------------------------------------- */

static void a_new_file_appears_only_when_published(void **state) {
    (void)state;
    sq_newfile f;
    assert_int_equal(sq_os_newfile_open(&f, "out", 10, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 5, "world", 5, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "hello", 5, NULL), SQUISH_OK);
    assert_false(sq_os_exists("out"));
    assert_int_equal(sq_os_newfile_publish(&f, NULL), SQUISH_OK);
    assert_holds("out", "helloworld");
    assert_int_equal(count_names(), 1);
    sq_os_newfile_abandon(&f); /* after publish: nothing */
    assert_holds("out", "helloworld");
    squish_error err = {0};
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "x", 1, &err), SQUISH_INVALID);
    assert_int_equal(sq_os_newfile_publish(&f, NULL), SQUISH_INVALID);
}

static void publishing_replaces_the_old_content_whole(void **state) {
    (void)state;
    put("out", "the old and longer content");
    sq_map old;
    assert_int_equal(sq_os_map_open(&old, "out", NULL), SQUISH_OK);
    sq_newfile f;
    assert_int_equal(sq_os_newfile_open(&f, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "new", 3, NULL), SQUISH_OK);
    assert_holds("out", "the old and longer content");
    assert_int_equal(sq_os_newfile_publish(&f, NULL), SQUISH_OK);
    assert_holds("out", "new");
    assert_memory_equal(old.data, "the old", 7); /* who had it mapped keeps the old one */
    sq_os_map_close(&old);
}

static void an_abandoned_file_leaves_nothing(void **state) {
    (void)state;
    sq_newfile f;
    assert_int_equal(sq_os_newfile_open(&f, "out", 1 << 20, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "x", 1, NULL), SQUISH_OK);
    sq_os_newfile_abandon(&f);
    assert_int_equal(count_names(), 0);
    sq_os_newfile_abandon(&f);
    sq_os_newfile_abandon(NULL);
    sq_newfile untouched = {0};
    sq_os_newfile_abandon(&untouched); /* must not close descriptor 0 */
    assert_true(fcntl(0, F_GETFD) != -1 || errno != EBADF);
}

static void a_crashed_writer_leaves_no_final_file_and_no_obstacle(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        sq_newfile f;
        if (sq_os_newfile_open(&f, "out", 0, NULL) != SQUISH_OK) _exit(1);
        if (sq_os_newfile_write_at(&f, 0, "half of a long fi", 17, NULL) != SQUISH_OK) _exit(1);
        _exit(0); /* neither published nor abandoned */
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(how, 0);
    assert_false(sq_os_exists("out"));
    sq_newfile f;
    assert_int_equal(sq_os_newfile_open(&f, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "whole", 5, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_publish(&f, NULL), SQUISH_OK);
    assert_holds("out", "whole");
    assert_int_equal(count_names(), 1);
}

static void a_file_in_one_call_is_whole_or_left_to_who_writes_it(void **state) {
    (void)state;
    sq_newfile other;
    squish_error err = {0};
    assert_int_equal(sq_os_write_file("out", "one", 3, NULL), SQUISH_OK);
    assert_holds("out", "one");
    assert_int_equal(sq_os_newfile_open(&other, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_write_file("out", "two", 3, &err), SQUISH_BUSY);
    assert_holds("out", "one");
    assert_true(sq_os_exists("out.partial")); /* it is the other's */
    sq_os_newfile_abandon(&other);
    assert_int_equal(sq_os_write_file("out", "", 0, NULL), SQUISH_OK);
    assert_holds("out", "");
    assert_int_equal(sq_os_write_file("absent/out", "x", 1, NULL), SQUISH_NOT_FOUND);
}

static void two_writers_of_one_name_do_not_mix(void **state) {
    (void)state;
    sq_newfile first, second;
    squish_error err = {0};
    assert_int_equal(sq_os_newfile_open(&first, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_open(&second, "out", 0, &err), SQUISH_BUSY);
    assert_non_null(strstr(err.text, "is held"));
    sq_os_newfile_abandon(&second);
    assert_int_equal(sq_os_newfile_write_at(&first, 0, "1", 1, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_publish(&first, NULL), SQUISH_OK);
    assert_holds("out", "1");
    assert_int_equal(sq_os_newfile_open(&second, "out", 0, NULL), SQUISH_OK);
    sq_os_newfile_abandon(&second);
    assert_holds("out", "1");
}

/* A limit on file size stands for a full disk: the write fails after some bytes. */
static void a_failed_write_is_reported_and_leaves_the_old_file(void **state) {
    (void)state;
    put("out", "old");
    struct rlimit saved, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &saved), 0);
    tight = saved;
    tight.rlim_cur = 1000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    sq_newfile f, g;
    assert_int_equal(sq_os_newfile_open(&f, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    char block[700] = {0};
    squish_error err = {0}, err2 = {0};
    squish_status st1 = sq_os_newfile_write_at(&f, 0, block, sizeof block, NULL);
    squish_status st2 = sq_os_newfile_write_at(&f, 700, block, sizeof block, &err);
    squish_status st3 = sq_os_newfile_open(&g, "other", 5000, &err2); /* reserving fails as well */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &saved), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(st1, SQUISH_OK);
    assert_int_equal(st2, SQUISH_IO);
    assert_string_equal(err.text, "cannot write 'out': File too large");
    if (st3 == SQUISH_OK) sq_os_newfile_abandon(&g); /* a file system that cannot reserve */
    sq_os_newfile_abandon(&f);
    assert_holds("out", "old");
    assert_int_equal(count_names(), 1);
}

static void too_little_room_is_told_before_writing(void **state) {
    (void)state;
    sq_newfile f;
    squish_error err = {0};
    assert_int_equal(sq_os_newfile_open(&f, "out", 1ull << 60, &err), SQUISH_NO_SPACE);
    assert_non_null(strstr(err.text, "'out' needs 1099511627776 MB, the disk has "));
    assert_int_equal(f.fd, -1);
    assert_int_equal(count_names(), 0);
}

static void places_that_cannot_be_written_are_named(void **state) {
    (void)state;
    sq_newfile f;
    squish_error err = {0};
    assert_int_equal(sq_os_newfile_open(&f, "absent/out", 0, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "'absent/out.partial'"));
    assert_int_equal(sq_os_newfile_open(&f, "", 0, NULL), SQUISH_INVALID);
    char huge[2000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    assert_int_equal(sq_os_newfile_open(&f, huge, 0, NULL), SQUISH_INVALID);
    assert_int_equal(mkdir("out.partial", 0777), 0);
    assert_int_not_equal(sq_os_newfile_open(&f, "out", 0, NULL), SQUISH_OK);
    put("victim", "precious");
    assert_int_equal(symlink("victim", "trap.partial"), 0);
    assert_int_not_equal(sq_os_newfile_open(&f, "trap", 0, NULL), SQUISH_OK);
    assert_holds("victim", "precious");
    assert_int_equal(mkdir("d", 0777), 0);
    assert_int_equal(sq_os_newfile_open(&f, "d", 0, NULL), SQUISH_OK); /* a directory is in the final place */
    err = (squish_error){0};
    assert_int_equal(sq_os_newfile_publish(&f, &err), SQUISH_IO);
    assert_non_null(strstr(err.text, "cannot publish 'd'"));
    assert_false(sq_os_exists("d.partial"));
    assert_int_equal(f.fd, -1);
}

static void offsets_past_the_largest_are_refused(void **state) {
    (void)state;
    sq_newfile f;
    assert_int_equal(sq_os_newfile_open(&f, "out", 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, UINT64_MAX, "x", 1, NULL), SQUISH_INVALID);
    assert_int_equal(sq_os_newfile_write_at(&f, INT64_MAX, "x", 1, NULL), SQUISH_INVALID);
    sq_os_newfile_abandon(&f);
}

/* ---- locks ----------------------------------------------------------------------------------- */

static void a_file_can_be_continued_and_published_later(void **state) {
    (void)state;
    sq_newfile f, second;
    uint64_t n = 99;
    squish_error err = {0};
    assert_int_equal(sq_os_newfile_resume(&f, "work", &n, NULL), SQUISH_OK);
    assert_int_equal(n, 0);
    assert_int_equal(sq_os_newfile_resize(&f, 10, 0, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_write_at(&f, 5, "world", 5, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_sync(&f, NULL), SQUISH_OK);
    assert_int_equal(sq_os_newfile_resume(&second, "work", &n, &err), SQUISH_BUSY);
    assert_non_null(strstr(err.text, "is held"));
    sq_os_newfile_close(&f);
    sq_os_newfile_close(&f);
    assert_int_equal(sq_os_newfile_sync(&f, NULL), SQUISH_INVALID);
    assert_int_equal(sq_os_newfile_resume(&f, "work", &n, NULL), SQUISH_OK);
    assert_int_equal(n, 10);
    err = (squish_error){0};
    assert_int_equal(sq_os_newfile_resize(&f, 1 << 20, UINT64_MAX - 4, &err), SQUISH_NO_SPACE);
    assert_int_equal(sq_os_newfile_write_at(&f, 0, "hello", 5, NULL), SQUISH_OK);
    assert_int_equal(mkdir("dir", 0777), 0);
    assert_int_not_equal(sq_os_newfile_publish_as(&f, "dir", NULL), SQUISH_OK); /* and the file stays */
    assert_int_equal(sq_os_newfile_publish_as(&f, "out", NULL), SQUISH_OK);
    assert_holds("out", "helloworld");
    assert_false(sq_os_exists("work"));
    assert_int_equal(sq_os_newfile_resume(&f, "work", &n, NULL), SQUISH_OK);
    sq_os_newfile_abandon(&f);
    assert_false(sq_os_exists("work"));
}

static void a_lock_is_held_by_one_until_released(void **state) {
    (void)state;
    int a, b;
    squish_error err = {0};
    assert_int_equal(sq_os_lock(&a, "lock", NULL), SQUISH_OK);
    assert_int_equal(sq_os_lock(&b, "lock", &err), SQUISH_BUSY);
    assert_string_equal(err.text, "'lock' is held by another process");
    assert_int_equal(b, -1);
    sq_os_unlock(b);
    sq_os_unlock(a);
    assert_int_equal(sq_os_lock(&b, "lock", NULL), SQUISH_OK);
    sq_os_unlock(b);
    assert_int_equal(sq_os_lock(&b, "absent/lock", NULL), SQUISH_NOT_FOUND);
}

static void a_lock_ends_with_its_process(void **state) {
    (void)state;
    int ready[2], fd;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        char told = sq_os_lock(&fd, "lock", NULL) == SQUISH_OK ? 'y' : 'n';
        if (write(ready[1], &told, 1) != 1) _exit(1);
        for (;;) pause();
    }
    char told = 0;
    assert_int_equal(read(ready[0], &told, 1), 1);
    assert_int_equal(told, 'y');
    assert_int_equal(sq_os_lock(&fd, "lock", NULL), SQUISH_BUSY);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(sq_os_lock(&fd, "lock", NULL), SQUISH_OK);
    sq_os_unlock(fd);
    close(ready[0]);
    close(ready[1]);
}

/* ---- memory, clock, machine ------------------------------------------------------------------ */

static void reserved_memory_is_zero_and_can_be_given_back(void **state) {
    (void)state;
    size_t bytes = (size_t)64 << 20;
    unsigned char *p = sq_os_reserve(bytes);
    assert_non_null(p);
    uint64_t before = sq_os_rss_anon();
    for (size_t i = 0; i < bytes; i += 4096) {
        assert_int_equal(p[i], 0);
        p[i] = 1;
    }
    uint64_t full = sq_os_rss_anon();
    if (full) {
        assert_true(full - before > bytes / 2);
        assert_true(sq_os_rss_anon_peak() >= full / 2);
    }
    sq_os_discard(p, bytes);
    if (full) assert_true(sq_os_rss_anon() < full - bytes / 2);
    for (size_t i = 0; i < bytes; i += 4096) assert_int_equal(p[i], 0);
    sq_os_release(p, bytes);
    sq_os_release(NULL, 0);
    assert_null(sq_os_reserve(0));
    assert_null(sq_os_reserve(SIZE_MAX / 2));
}

static void the_clock_goes_forward(void **state) {
    (void)state;
    uint64_t a = sq_os_now_ns();
    usleep(2000);
    uint64_t b = sq_os_now_ns();
    assert_true(b - a >= 2000000 && b - a < 60000000000u);
    assert_true(sq_os_unix_time() > 1700000000);
}

static void random_bytes_fill_the_whole_block(void **state) {
    (void)state;
    unsigned char a[1000] = {0}, b[1000] = {0};
    assert_true(sq_os_random(a, sizeof a) && sq_os_random(b, sizeof b));
    assert_memory_not_equal(a, b, sizeof a);
    for (size_t at = 0; at + 16 <= sizeof a; at += 16) {
        unsigned char zero[16] = {0};
        assert_memory_not_equal(a + at, zero, 16);
    }
    assert_true(sq_os_random(a, 0));
}

/* A thread that is nice stays so. */
static void waking_first_is_no_more_of_a_processor(void **state) {
    (void)state;
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        errno = 0;
        if (nice(7) == -1 && errno) _exit(1);
        const int before = getpriority(PRIO_PROCESS, 0);
        sq_os_wake_first();
        _exit(before == getpriority(PRIO_PROCESS, 0) ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void the_machine_is_described(void **state) {
    (void)state;
    assert_in_range(sq_os_cores(), 1, (uintmax_t)sysconf(_SC_NPROCESSORS_CONF));
    uint64_t total = sq_os_memory_total();
    assert_true(total > 64u << 20);
    assert_true(sq_os_memory_available() > 0 && sq_os_memory_available() <= total);
    char text[PATH];
    sq_os_cpu_name(text, sizeof text);
    assert_true(strlen(text) > 2);
    assert_null(strchr(text, '\n'));
    assert_true(sq_os_exe_path(text, sizeof text));
    assert_non_null(strstr(text, "test_base_os"));
    assert_false(sq_os_exe_path(text, 5));
    assert_string_equal(text, "");
}

static void a_limit_on_address_space_counts_as_memory(void **state) {
    (void)state;
    struct rlimit saved, tight;
    assert_int_equal(getrlimit(RLIMIT_AS, &saved), 0);
    tight = saved;
    tight.rlim_cur = 1u << 30;
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    uint64_t available = sq_os_memory_available();
    assert_int_equal(setrlimit(RLIMIT_AS, &saved), 0);
    assert_true(available < 1u << 30);
}

static void open_files_are_raised_to_what_is_wanted_and_no_further_than_the_hard_limit(void **state) {
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit few = {64, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(sq_os_files_max(32), 64); /* never lowered */
    assert_int_equal(sq_os_files_max(100), 100);
    assert_int_equal(sq_os_files_max(UINT64_MAX - 1), before.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_DIR(a_mapping_shows_the_file),
        IN_DIR(an_empty_file_maps_to_no_bytes),
        IN_DIR(only_regular_files_are_opened),
        IN_DIR(reading_has_a_ceiling_and_ends_with_nul),
        IN_DIR(questions_about_paths_are_answered),
        IN_DIR(directories_are_made_with_their_parents),
        IN_DIR(names_come_sorted_by_bytes),
        IN_DIR(failing_allocations_in_listing_and_reading_are_reported),
        IN_DIR(a_new_file_appears_only_when_published),
        IN_DIR(publishing_replaces_the_old_content_whole),
        IN_DIR(an_abandoned_file_leaves_nothing),
        IN_DIR(a_crashed_writer_leaves_no_final_file_and_no_obstacle),
        IN_DIR(a_file_in_one_call_is_whole_or_left_to_who_writes_it),
        IN_DIR(two_writers_of_one_name_do_not_mix),
        IN_DIR(a_failed_write_is_reported_and_leaves_the_old_file),
        IN_DIR(too_little_room_is_told_before_writing),
        IN_DIR(places_that_cannot_be_written_are_named),
        IN_DIR(offsets_past_the_largest_are_refused),
        IN_DIR(a_file_can_be_continued_and_published_later),
        IN_DIR(a_lock_is_held_by_one_until_released),
        IN_DIR(a_lock_ends_with_its_process),
        cmocka_unit_test(reserved_memory_is_zero_and_can_be_given_back),
        cmocka_unit_test(the_clock_goes_forward),
        cmocka_unit_test(random_bytes_fill_the_whole_block),
        cmocka_unit_test(waking_first_is_no_more_of_a_processor),
        cmocka_unit_test(the_machine_is_described),
        cmocka_unit_test(open_files_are_raised_to_what_is_wanted_and_no_further_than_the_hard_limit),
        cmocka_unit_test(a_limit_on_address_space_counts_as_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
