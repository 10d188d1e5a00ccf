/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_sqw_write.c - making a .sqw: what goes in comes out, offsets keep their promises, misuse is
 * refused and an unfinished file leaves nothing. */
#include "format/format.h"
#include "support/fmt_files.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const uint8_t source_id[16] = "0123456789abcde";

static sq_sqw_tensor record(uint64_t rows, uint64_t cols, uint64_t n, uint16_t layer) {
    return (sq_sqw_tensor){.n_dims = 2,
                           .dims = {rows, cols, 99, 99},
                           .wtype = 3,
                           .role = 4,
                           .layer = layer,
                           .group = 64,
                           .expert = UINT32_MAX,
                           .data_bytes = n,
                           .source_sum = 77};
}

/* Byte i of tensor t. */
static uint8_t pattern(size_t t, uint64_t i) { return (uint8_t)(i * 31 + t * 7 + (i >> 8)); }

static void put_pattern(sq_sqw_writer *w, size_t t, uint64_t at, size_t n) {
    uint8_t *p = malloc(n);
    for (size_t i = 0; i < n; i++) p[i] = pattern(t, at + i);
    squish_error err = {0};
    if (sq_sqw_writer_put(w, t, at, p, n, &err) != SQUISH_OK) fail_msg("%s", err.text);
    free(p);
}

static const struct {
    const char *name;
    uint64_t n;
    sq_unit_kind kind;
    uint16_t layer;
} tensors[] = {{"embed", 5000, SQ_UNIT_EMBED, 0xFFFF}, {"l0.norm", 100, SQ_UNIT_ATTN, 0},
               {"l0.q", 9000, SQ_UNIT_ATTN, 0},        {"l0.k", 4096, SQ_UNIT_ATTN, 0},
               {"l0.up", 4095, SQ_UNIT_FFN, 0},        {"l1.q", 1, SQ_UNIT_ATTN, 1},
               {"head", 5 << 20, SQ_UNIT_HEAD, 0xFFFF}};
enum { N_TENSORS = 7 };

/* A writer with everything declared and laid out. */
static sq_sqw_writer *laid_out(const char *path) {
    sq_sqw_writer *w;
    uint64_t total;
    size_t index;
    squish_error err = {0};
    assert_int_equal(sq_sqw_writer_new(&w, path, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_CONF, "{\"a\":1}", 7, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_late(w, SQ_SEC_FIDL, 1000, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_RECP, "", 0, &err), SQUISH_OK);
    for (size_t i = 0; i < N_TENSORS; i++) {
        sq_sqw_tensor t = record(10, 20, tensors[i].n, tensors[i].layer);
        assert_int_equal(sq_sqw_writer_tensor(w, tensors[i].name, &t, tensors[i].kind, &index, &err),
                         SQUISH_OK);
        assert_int_equal(index, i);
    }
    if (sq_sqw_writer_layout(w, &total, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_true(total > 5 << 20 && total < 6 << 20 && total % SQ_SQW_UNIT_ALIGN == 0);
    return w;
}

static void *fill_odd(void *w) {
    for (size_t t = 1; t < N_TENSORS; t += 2) put_pattern(w, t, 0, tensors[t].n);
    return NULL;
}

static void what_goes_in_comes_out(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    squish_error err = {0};
    uint64_t super_sum;
    pthread_t
        thread; /* odd tensors whole and by another thread, even ones in three pieces, last piece first */
    assert_int_equal(pthread_create(&thread, NULL, fill_odd, w), 0);
    for (size_t t = 0; t < N_TENSORS; t += 2) {
        uint64_t n = tensors[t].n, a = n / 3, b = n / 2;
        put_pattern(w, t, b, n - b);
        put_pattern(w, t, 0, a);
        put_pattern(w, t, a, b - a);
    }
    pthread_join(thread, NULL);
    assert_int_equal(sq_sqw_writer_late_put(w, SQ_SEC_FIDL, "{\"cos\":1}", 9, &err), SQUISH_OK);
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw.partial ");
    if (sq_sqw_writer_finish(w, source_id, &super_sum, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_sqw_writer_free(w);
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw ");

    sq_sqw *s;
    if (sq_sqw_open(&s, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_true(sq_sqw_super_sum(s) == super_sum);
    assert_memory_equal(sq_sqw_source_id(s), source_id, 16);
    sq_span conf = sq_sqw_section_of(s, SQ_SEC_CONF), fidl = sq_sqw_section_of(s, SQ_SEC_FIDL);
    assert_int_equal(conf.n, 7);
    assert_memory_equal(conf.p, "{\"a\":1}", 7);
    assert_int_equal((uintptr_t)conf.p % 64, 0);
    assert_int_equal(fidl.n, 9);
    assert_memory_equal(fidl.p, "{\"cos\":1}", 9);
    assert_non_null(sq_sqw_section_of(s, SQ_SEC_RECP).p);
    assert_int_equal(sq_sqw_section_of(s, SQ_SEC_RECP).n, 0);
    assert_null(sq_sqw_section_of(s, SQ_SEC_TOKZ).p);
    size_t n;
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
    assert_int_equal(n, N_TENSORS);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(sq_sqw_name(s, &t[i]), tensors[i].name);
        assert_int_equal(t[i].data_bytes, tensors[i].n);
        assert_int_equal(t[i].dims[1], 20);
        assert_int_equal(t[i].dims[2], 0); /* unused dims are cleared */
        assert_int_equal(t[i].wtype, 3);
        assert_int_equal(t[i].role, 4);
        assert_int_equal(t[i].layer, tensors[i].layer);
        assert_int_equal(t[i].source_sum, 77);
        const uint8_t *p = sq_sqw_data(s, &t[i]);
        for (uint64_t k = 0; k < tensors[i].n; k++) {
            if (p[k] != pattern(i, k)) fail_msg("tensor %zu byte %zu", i, (size_t)k);
        }
        assert_int_equal(t[i].data_off % (tensors[i].n >= 4096 ? 4096 : 64), 0);
        assert_true(t[i].sum == XXH3_64bits(p, tensors[i].n));
    }
    assert_int_equal(sq_sqw_verify(s, NULL, NULL, &err), SQUISH_OK);
    sq_sqw_close(s);
    scratch_remove(&d);
}

static void units_follow_kind_and_layer(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    uint64_t sum;
    for (size_t t = 0; t < N_TENSORS; t++) put_pattern(w, t, 0, tensors[t].n);
    assert_int_equal(sq_sqw_writer_finish(w, source_id, &sum, NULL), SQUISH_OK);
    sq_sqw_writer_free(w);
    sq_sqw *s;
    assert_int_equal(sq_sqw_open(&s, path, NULL, NULL), SQUISH_OK);
    size_t n, n_tensors;
    const sq_sqw_unit *u = sq_sqw_units(s, &n);
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n_tensors);
    static const uint32_t counts[] = {1, 3, 1, 1, 1};
    static const uint16_t kinds[] = {SQ_UNIT_EMBED, SQ_UNIT_ATTN, SQ_UNIT_FFN, SQ_UNIT_ATTN, SQ_UNIT_HEAD};
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(u[i].n_tensors, counts[i]);
        assert_int_equal(u[i].kind, kinds[i]);
        assert_int_equal(u[i].offset % 16384, 0);
        const sq_sqw_tensor *last = &t[u[i].first_tensor + u[i].n_tensors - 1];
        assert_true(u[i].offset + u[i].bytes == last->data_off + last->data_bytes);
        assert_int_equal(last->unit, i);
    }
    assert_int_equal(u[3].layer, 1);
    sq_sqw_close(s);
    scratch_remove(&d);
}

static void a_container_without_tensors_is_valid(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_sqw_writer *w;
    uint64_t total, sum;
    squish_error err = {0};
    assert_int_equal(sq_sqw_writer_new(&w, scratch_path(&d, path, "m.sqw"), NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_TOKZ, "tok", 3, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, &total, &err), SQUISH_OK);
    if (sq_sqw_writer_finish(w, source_id, &sum, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_sqw_writer_free(w);
    sq_sqw *s;
    if (sq_sqw_open(&s, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_sqw_section_of(s, SQ_SEC_TOKZ).n, 3);
    assert_int_equal(sq_sqw_bytes(s), total);
    assert_int_equal(sq_sqw_verify(s, NULL, NULL, NULL), SQUISH_OK);
    sq_sqw_close(s);
    scratch_remove(&d);
}

static void the_same_input_gives_the_same_file(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    uint64_t sums[2];
    for (int i = 0; i < 2; i++) {
        sq_sqw_writer *w = laid_out(scratch_path(&d, path, i ? "b.sqw" : "a.sqw"));
        for (size_t t = 0; t < N_TENSORS; t++) put_pattern(w, t, 0, tensors[t].n);
        assert_int_equal(sq_sqw_writer_finish(w, source_id, &sums[i], NULL), SQUISH_OK);
        sq_sqw_writer_free(w);
    }
    assert_true(sums[0] == sums[1]);
    scratch_remove(&d);
}

static void misuse_is_refused_by_name(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_sqw_writer *w;
    squish_error err = {0};
    uint64_t total;
    size_t index;
    sq_sqw_tensor t = record(1, 1, 10, 0);
#define REFUSED(expr, message)                                                                               \
    do {                                                                                                     \
        err = (squish_error){0};                                                                             \
        assert_int_equal(expr, SQUISH_INVALID);                                                              \
        if (!strstr(err.text, message)) fail_msg("'%s', wanted '%s'", err.text, message);                    \
    } while (0)
    assert_int_equal(sq_sqw_writer_new(&w, scratch_path(&d, path, "m.sqw"), NULL, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_section(w, SQ_SEC_TENS, "", 0, &err), "section TENS is made by the writer itself");
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_CONF, "x", 1, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_section(w, SQ_SEC_CONF, "x", 1, &err), "section CONF is given twice");
    REFUSED(sq_sqw_writer_put(w, 0, 0, "x", 1, &err), "put is called before the layout");
    REFUSED(sq_sqw_writer_tensor(w, "", &t, SQ_UNIT_MISC, &index, &err), "0 bytes of name");
    t.data_bytes = 0;
    REFUSED(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, &err), "0 bytes");
    t = record(1, 1, 10, 0);
    t.n_dims = 5;
    REFUSED(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, &err), "5 dimensions");
    t = record(0, 1, 10, 0);
    REFUSED(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, &err), "dims[0] is 0");
    t = record(1, 1, 10, 0);
    assert_int_equal(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_late(w, SQ_SEC_FIDL, 4, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, &total, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_layout(w, &total, &err), "layout is called while filling after the layout");
    REFUSED(sq_sqw_writer_tensor(w, "u", &t, SQ_UNIT_MISC, &index, &err), "tensor is called while filling");
    REFUSED(sq_sqw_writer_put(w, 1, 0, "x", 1, &err), "put into tensor 1 of 1");
    REFUSED(sq_sqw_writer_put(w, 0, 8, "xyz", 3, &err), "tensor 't': put of 3 bytes at 8 of 10");
    REFUSED(sq_sqw_writer_put(w, 0, UINT64_MAX, "xyz", 3, &err), "tensor 't': put of 3 bytes");
    REFUSED(sq_sqw_writer_late_put(w, SQ_SEC_FIDL, "12345", 5, &err),
            "section FIDL: 5 bytes, 4 were reserved");
    REFUSED(sq_sqw_writer_late_put(w, SQ_SEC_CONF, "1", 1, &err), "section CONF was not declared late");
    assert_int_equal(sq_sqw_writer_put(w, 0, 0, "abc", 3, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_finish(w, source_id, &total, &err), "tensor 't': 3 bytes were put, it has 10");
    sq_sqw_writer_free(w);
    char names[1024];
    scratch_list(&d, names);
    assert_string_equal(names, ""); /* nothing appeared, nothing is left */

    assert_int_equal(sq_sqw_writer_new(&w, path, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "same", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "other", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "same", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    REFUSED(sq_sqw_writer_layout(w, &total, &err), "tensor 'same' is declared twice");
    sq_sqw_writer_free(w);
    sq_sqw_writer_free(NULL);
    scratch_remove(&d);
}

static void an_abandoned_file_keeps_the_old_one(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    scratch_text(&d, "m.sqw", "old");
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    put_pattern(w, 0, 0, 100);
    sq_sqw_writer_free(w);
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw ");
    assert_int_equal(sq_os_file_bytes(path), 3);
    scratch_remove(&d);
}

/* A file as a crash would leave it: full size, data there, superblock still zero. */
static void a_file_cut_off_before_its_superblock_is_refused(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    for (size_t t = 0; t < N_TENSORS; t++) put_pattern(w, t, 0, tensors[t].n);
    sq_sqw *s;
    squish_error err = {0};
    assert_int_equal(sq_sqw_open(&s, scratch_path(&d, path, "m.sqw.partial"), NULL, &err), SQUISH_CORRUPT);
    assert_string_equal(err.text,
                        "m.sqw.partial: empty superblock: the file was never finished; build it again");
    sq_sqw_writer_free(w);
    scratch_remove(&d);
}

static void a_file_larger_than_the_disk_is_refused_at_layout(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    sq_sqw_writer *w;
    uint64_t total;
    size_t index;
    squish_error err = {0};
    sq_sqw_tensor t = record(1, 1, (uint64_t)1 << 60, 0);
    assert_int_equal(sq_sqw_writer_new(&w, scratch_path(&d, path, "m.sqw"), NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, &total, &err), SQUISH_NO_SPACE);
    sq_sqw_writer_free(w);
    assert_int_equal(sq_sqw_writer_new(&w, path, NULL, NULL), SQUISH_OK);
    t.data_bytes = UINT64_MAX - 5;
    assert_int_equal(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, &total, &err), SQUISH_INVALID);
    sq_sqw_writer_free(w);
    scratch_list(&d, names);
    assert_string_equal(names, "");
    scratch_remove(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(units_follow_kind_and_layer),
        cmocka_unit_test(a_container_without_tensors_is_valid),
        cmocka_unit_test(the_same_input_gives_the_same_file),
        cmocka_unit_test(misuse_is_refused_by_name),
        cmocka_unit_test(an_abandoned_file_keeps_the_old_one),
        cmocka_unit_test(a_file_cut_off_before_its_superblock_is_refused),
        cmocka_unit_test(a_file_larger_than_the_disk_is_refused_at_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
