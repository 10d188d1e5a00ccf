/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_faults.c - every reader and writer with the n-th allocation failing, n = 1, 2, 3 ... until it
 * succeeds, once transient and once persistent: NO_MEMORY, no leak, no file left. A writer killed
 * at any moment, and a disk that refuses to grow. */
#include "format/format.h"
#include "support/faults.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

/* The operation under test: OK or a status, everything released again. */
typedef squish_status (*operation)(const squish_alloc *a, const char *path, squish_error *err);

/* Returns how many allocations had to fail before it went through. */
static int64_t until_it_succeeds(operation op, const char *path, bool persistent) {
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state s = {.fail_at = n, .persistent = persistent};
        squish_alloc a = sq_test_alloc(&s);
        squish_error err = {0};
        squish_status st = op(&a, path, &err);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.live_bytes, 0);
        assert_int_equal(s.wrong_sizes, 0);
        if (st == SQUISH_OK) return n;
        if (st != SQUISH_NO_MEMORY) fail_msg("allocation %d: status %d, '%s'", (int)n, st, err.text);
        assert_int_equal(err.code, SQUISH_NO_MEMORY);
        assert_true(err.text[0] != 0);
        assert_true(n < 1000);
    }
}

static void both_ways(operation op, const char *path, int64_t at_least) {
    assert_true(until_it_succeeds(op, path, false) > at_least);
    assert_true(until_it_succeeds(op, path, true) > at_least);
}

/* ---- readers --------------------------------------------------------------------------------- */

static squish_status read_gguf(const squish_alloc *a, const char *path, squish_error *err) {
    sq_gguf *g;
    sq_arena ar;
    sq_span *s;
    size_t n;
    SQ_TRY(sq_gguf_open(&g, path, a, err));
    sq_arena_init(&ar, a, 256, 0);
    squish_status st = sq_gguf_strings(g, "t", &ar, &s, &n, err);
    if (st == SQUISH_OK) assert_int_equal(n, 100);
    sq_arena_deinit(&ar);
    sq_gguf_close(g);
    return st;
}

static void gguf_survives(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    bytes b = {0};
    add(&b, "GGUF", 4);
    add_u32(&b, 3);
    add_u64(&b, 200);
    add_u64(&b, 1);
    add_str(&b, "t");
    add_u32(&b, SQ_GGUF_ARRAY);
    add_u32(&b, SQ_GGUF_STRING);
    add_u64(&b, 100);
    for (int i = 0; i < 100; i++) add_str(&b, "token");
    for (uint32_t i = 0; i < 200; i++) { /* enough for several arena blocks */
        char name[256];
        snprintf(name, sizeof name, "%0200u", i);
        add_str(&b, name);
        add_u32(&b, 1);
        add_u64(&b, 8);
        add_u32(&b, 0);
        add_u64(&b, 32 * i);
    }
    add_zero(&b, (32 - b.n % 32) % 32 + 200 * 32);
    scratch_write(&d, "m.gguf", b.p, b.n);
    scratch_path(&d, path, "m.gguf");
    both_ways(read_gguf, path, 4);
    drop(&b);
    scratch_remove(&d);
}

static squish_status read_checkpoint(const squish_alloc *a, const char *path, squish_error *err) {
    sq_safetensors *s;
    SQ_TRY(sq_st_open(&s, path, a, NULL, NULL, err));
    assert_true(sq_st_count(s) > 10);
    sq_st_close(s);
    return SQUISH_OK;
}

static void a_sharded_checkpoint_survives(void **state) {
    (void)state;
    both_ways(read_checkpoint, "models/squish-tiny", 4);
}

static void a_single_checkpoint_survives(void **state) {
    (void)state;
    both_ways(read_checkpoint, "tests/fixtures/architectures/qwen2", 2);
}

/* ---- .sqw ------------------------------------------------------------------------------------ */

static squish_status fill(sq_sqw_writer *w, const char *path, squish_error *err) {
    uint64_t total, sum, kept;
    size_t index;
    uint8_t data[300] = {1, 2, 3};
    for (int i = 0; i < 100; i++) {
        char name[64];
        snprintf(name, sizeof name, "layer.%d.weight", i);
        sq_sqw_tensor t = {.n_dims = 1, .dims = {300}, .layer = (uint16_t)i, .data_bytes = 300};
        SQ_TRY(sq_sqw_writer_tensor(w, name, &t, SQ_UNIT_FFN, &index, err));
    }
    SQ_TRY(sq_sqw_writer_section(w, SQ_SEC_CONF, data, sizeof data, err));
    SQ_TRY(sq_sqw_writer_late(w, SQ_SEC_FIDL, 100000, err));
    SQ_TRY(sq_sqw_writer_layout(w, data, true, &total, &kept, err));
    for (size_t i = 0; i < 100; i++) {
        if (sq_sqw_writer_has(w, i)) continue;
        SQ_TRY(sq_sqw_writer_put(w, i, 0, data, sizeof data, err));
        SQ_TRY(sq_sqw_writer_tensor_done(w, i, data, 200, err));
    }
    uint8_t *report = calloc(1, 90000);
    squish_status st = sq_sqw_writer_late_put(w, SQ_SEC_FIDL, report, 90000, err);
    free(report);
    SQ_TRY(st);
    SQ_TRY(sq_sqw_writer_seal(w, err));
    return sq_sqw_writer_publish(w, path, SQ_QUALITY_OK, &sum, err);
}

static squish_status write_sqw(const squish_alloc *a, const char *path, squish_error *err) {
    sq_sqw_writer *w;
    SQ_TRY(sqw_new(&w, path, a, err));
    squish_status st = fill(w, path, err);
    sq_sqw_writer_free(w, false);
    if (st != SQUISH_OK) assert_false(sq_os_exists(path));
    if (st == SQUISH_OK) unlink(path);
    return st;
}

/* The same, but what a failure leaves is kept for the next attempt. */
static squish_status write_sqw_on(const squish_alloc *a, const char *path, squish_error *err) {
    sq_sqw_writer *w;
    SQ_TRY(sqw_new(&w, path, a, err));
    squish_status st = fill(w, path, err);
    sq_sqw_writer_free(w, true);
    if (st != SQUISH_OK) assert_false(sq_os_exists(path));
    return st;
}

static squish_status fill_st(sq_st_writer *w, squish_error *err) {
    uint64_t total;
    size_t index;
    uint8_t data[300] = {1, 2, 3};
    SQ_TRY(sq_st_writer_meta(w, "format", "pt", err));
    for (int i = 0; i < 200; i++) {
        char name[200];
        snprintf(name, sizeof name, "%0190d", i);
        sq_ftensor t = {.name = name, .dtype = SQ_DT_U8, .n_dims = 1, .dims = {300}, .bytes = 300};
        SQ_TRY(sq_st_writer_tensor(w, &t, &index, err));
    }
    SQ_TRY(sq_st_writer_layout(w, &total, err));
    for (size_t i = 0; i < 200; i++) SQ_TRY(sq_st_writer_put(w, i, 0, data, sizeof data, err));
    return sq_st_writer_finish(w, err);
}

static squish_status write_st(const squish_alloc *a, const char *path, squish_error *err) {
    sq_st_writer *w;
    SQ_TRY(sq_st_writer_new(&w, path, a, err));
    squish_status st = fill_st(w, err);
    sq_st_writer_free(w);
    if (st != SQUISH_OK) assert_false(sq_os_exists(path));
    if (st == SQUISH_OK) unlink(path);
    return st;
}

static squish_status fill_gguf(sq_gguf_writer *w, squish_error *err) {
    uint64_t total;
    size_t index;
    uint8_t data[256] = {1, 2, 3};
    sq_span words[50];
    for (size_t i = 0; i < SQ_COUNT(words); i++) words[i] = (sq_span){data, 200};
    SQ_TRY(sq_gguf_writer_strings(w, "words", words, SQ_COUNT(words), err));
    SQ_TRY(sq_gguf_writer_u32(w, "n", 1, err));
    for (int i = 0; i < 200; i++) {
        char name[200];
        snprintf(name, sizeof name, "%0190d", i);
        sq_ftensor t = {.name = name, .dtype = SQ_DT_F32, .n_dims = 1, .dims = {64}, .bytes = 256};
        SQ_TRY(sq_gguf_writer_tensor(w, &t, &index, err));
    }
    SQ_TRY(sq_gguf_writer_layout(w, &total, err));
    for (size_t i = 0; i < 200; i++) SQ_TRY(sq_gguf_writer_put(w, i, 0, data, sizeof data, err));
    return sq_gguf_writer_finish(w, err);
}

static squish_status write_gguf(const squish_alloc *a, const char *path, squish_error *err) {
    sq_gguf_writer *w;
    SQ_TRY(sq_gguf_writer_new(&w, path, a, err));
    squish_status st = fill_gguf(w, err);
    sq_gguf_writer_free(w);
    if (st != SQUISH_OK) assert_false(sq_os_exists(path));
    if (st == SQUISH_OK) unlink(path);
    return st;
}

static squish_status write_npy(const squish_alloc *a, const char *path, squish_error *err) {
    (void)a;
    static const uint8_t data[70000];
    sq_ftensor t = {
        .name = "t", .dtype = SQ_DT_U8, .n_dims = 1, .dims = {70000}, .data = data, .bytes = 70000};
    SQ_TRY(sq_npy_write(path, &t, err));
    unlink(path);
    return SQUISH_OK;
}

static void the_streaming_writers_survive(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    both_ways(write_st, scratch_path(&d, path, "m"), 8);
    both_ways(write_gguf, path, 8);
    scratch_list(&d, names);
    assert_string_equal(names, "");
    scratch_remove(&d);
}

/* A process killed at any moment of making a file: the name shows the old file or the whole new one, and the
 * next attempt makes the same bytes. */
static void a_killed_writer_leaves_the_old_file_or_the_new(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    squish_error err = {0};
    scratch_path(&d, path, "m.sqw");
    if (write_sqw_on(NULL, path, &err) != SQUISH_OK) fail_msg("%s", err.text);
    const uint64_t whole = sq_os_file_bytes(path);
    int killed = 0;
    for (int i = 0; i < 40; i++) {
        scratch_text(&d, "m.sqw", "old");
        const pid_t child = fork();
        if (child == 0) _exit(write_sqw_on(NULL, path, NULL) == SQUISH_OK ? 0 : 1);
        usleep((useconds_t)(i * 400));
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        killed += WIFSIGNALED(how) != 0;
        const uint64_t n = sq_os_file_bytes(path);
        assert_true(n == 3 || n == whole);
        if (n == 3 && write_sqw_on(NULL, path, &err) != SQUISH_OK) fail_msg("%s", err.text);
        sq_sqw *s;
        if (sq_sqw_open(&s, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
        assert_int_equal(sq_sqw_verify(s, NULL, NULL, NULL), SQUISH_OK);
        sq_sqw_close(s);
    }
    print_message("%d of 40 writers were killed at work\n", killed);
    scratch_remove(&d);
}

static squish_status read_sqw(const squish_alloc *a, const char *path, squish_error *err) {
    sq_sqw *s;
    SQ_TRY(sq_sqw_open(&s, path, a, err));
    sq_sqw_close(s);
    return SQUISH_OK;
}

static void the_container_survives(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    scratch_path(&d, path, "m.sqw");
    both_ways(write_sqw, path, 8);
    scratch_list(&d, names);
    assert_string_equal(names, "");
    assert_true(until_it_succeeds(write_sqw_on, path, false) > 8); /* each attempt goes on where one failed */
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw ");
    unlink(path);
    sq_sqw_writer *w;
    assert_int_equal(sqw_new(&w, path, NULL, NULL), SQUISH_OK);
    assert_int_equal(fill(w, path, NULL), SQUISH_OK);
    sq_sqw_writer_free(w, false);
    both_ways(read_sqw, path, 1);
    scratch_remove(&d);
}

/* The system refuses to let files grow past some size: at the layout, in a put, at the end. */
static void a_disk_that_refuses_leaves_nothing(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    struct rlimit before, limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    static const rlim_t sizes[] = {0, 1, 4096, 8192, 65536};
    static const operation writers[] = {write_sqw, write_st, write_gguf, write_npy};
    for (size_t i = 0; i < SQ_COUNT(sizes) * SQ_COUNT(writers); i++) {
        limit = (struct rlimit){sizes[i / SQ_COUNT(writers)], before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        squish_error err = {0};
        squish_status st = writers[i % SQ_COUNT(writers)](NULL, scratch_path(&d, path, "m.sqw"), &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_true(st == SQUISH_IO || st == SQUISH_NO_SPACE);
        assert_non_null(strstr(err.text, "m.sqw"));
        scratch_list(&d, names);
        assert_string_equal(names, "");
    }
    scratch_remove(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_survives),
        cmocka_unit_test(a_sharded_checkpoint_survives),
        cmocka_unit_test(a_single_checkpoint_survives),
        cmocka_unit_test(the_container_survives),
        cmocka_unit_test(the_streaming_writers_survive),
        cmocka_unit_test(a_killed_writer_leaves_the_old_file_or_the_new),
        cmocka_unit_test(a_disk_that_refuses_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
