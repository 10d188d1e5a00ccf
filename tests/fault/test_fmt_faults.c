/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_faults.c - every reader and the writer with the n-th allocation failing, n = 1, 2, 3 ... until it
 * succeeds, once transient and once persistent: NO_MEMORY, no leak, no file left. And a disk that refuses to
 * grow. */
#include "format/format.h"
#include "support/faults.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>

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

static squish_status fill(sq_sqw_writer *w, squish_error *err) {
    uint64_t total, sum;
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
    SQ_TRY(sq_sqw_writer_layout(w, &total, err));
    for (size_t i = 0; i < 100; i++) SQ_TRY(sq_sqw_writer_put(w, i, 0, data, sizeof data, err));
    uint8_t *report = calloc(1, 90000);
    squish_status st = sq_sqw_writer_late_put(w, SQ_SEC_FIDL, report, 90000, err);
    free(report);
    SQ_TRY(st);
    return sq_sqw_writer_finish(w, data, &sum, err);
}

static squish_status write_sqw(const squish_alloc *a, const char *path, squish_error *err) {
    sq_sqw_writer *w;
    SQ_TRY(sq_sqw_writer_new(&w, path, a, err));
    squish_status st = fill(w, err);
    sq_sqw_writer_free(w);
    if (st != SQUISH_OK) assert_false(sq_os_exists(path));
    if (st == SQUISH_OK) unlink(path);
    return st;
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
    sq_sqw_writer *w;
    assert_int_equal(sq_sqw_writer_new(&w, path, NULL, NULL), SQUISH_OK);
    assert_int_equal(fill(w, NULL), SQUISH_OK);
    sq_sqw_writer_free(w);
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
    static const rlim_t sizes[] = {0, 1, 4096, 8192, 65536, 200000};
    for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
        limit = (struct rlimit){sizes[i], before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        squish_error err = {0};
        squish_status st = write_sqw(NULL, scratch_path(&d, path, "m.sqw"), &err);
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
        cmocka_unit_test(a_disk_that_refuses_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
