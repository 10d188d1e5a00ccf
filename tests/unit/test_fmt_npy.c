/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_npy.c - npy files: what NumPy writes is read, what we write is what NumPy would write, all else is
 * refused with a reason; tensor names become file names and back. */
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A version 1.0 file with this header text and n bytes counting up. */
static bytes npy(const char *text, size_t n) {
    bytes b = {0};
    add(&b, "\x93NUMPY\x01\x00", 8);
    add_u8(&b, (uint8_t)strlen(text));
    add_u8(&b, (uint8_t)(strlen(text) >> 8));
    add(&b, text, strlen(text));
    for (size_t i = 0; i < n; i++) add_u8(&b, (uint8_t)i);
    return b;
}

static squish_status parse(bytes *b, sq_ftensor *t, squish_error *err) {
    uint8_t *p = exact(b->p, b->n);
    *err = (squish_error){0};
    squish_status st = sq_npy_parse((sq_span){p, b->n}, "a.npy", t, err);
    if (st == SQUISH_OK && t->data) t->data = b->p + (t->data - p);
    free(p);
    return st;
}

static void arrays_in_numpys_own_words_are_read(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        sq_dtype dtype;
        int n_dims;
        uint64_t dims[3];
    } rows[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24, SQ_DT_F32, 2, {2, 3}},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (5,), }\n", 10, SQ_DT_F16, 1, {5}},
        {"{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n", 8, SQ_DT_I64, 0, {0}},
        {"{'shape': (1, 0, 7), 'fortran_order': False, 'descr': '<i4'}", 0, SQ_DT_I32, 3, {1, 0, 7}},
        {"{\"descr\":\"|i1\",\"fortran_order\":False,\"shape\":(3,1,)}", 3, SQ_DT_I8, 2, {3, 1}},
        {"{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", 4, SQ_DT_U8, 1, {4}},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        bytes b = npy(rows[i].text, rows[i].n);
        sq_ftensor t;
        squish_error err;
        if (parse(&b, &t, &err) != SQUISH_OK) fail_msg("row %zu: %s", i, err.text);
        assert_int_equal(t.dtype, rows[i].dtype);
        assert_int_equal(t.n_dims, rows[i].n_dims);
        assert_int_equal(t.bytes, rows[i].n);
        for (int d = 0; d < t.n_dims; d++) assert_int_equal(t.dims[d], rows[i].dims[d]);
        assert_ptr_equal(t.data + t.bytes, b.p + b.n);
        drop(&b);
    }
}

static void what_cannot_be_read_is_refused_with_a_reason(void **state) {
    (void)state;
#define TAIL "', 'fortran_order': False, 'shape': (1,), }"
    static const struct {
        const char *text;
        size_t n;
        squish_status code;
        const char *words;
    } rows[] = {
        {"{'descr': '|O" TAIL, 8, SQUISH_UNSUPPORTED, "pickle"},
        {"{'descr': '>f4" TAIL, 4, SQUISH_UNSUPPORTED, "dtype '>f4'"},
        {"{'descr': '<f8" TAIL, 8, SQUISH_UNSUPPORTED, "dtype '<f8'"},
        {"{'descr': [('a', '<f4')], }", 8, SQUISH_UNSUPPORTED, "records"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", 4, SQUISH_UNSUPPORTED, "Fortran"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", 4, SQUISH_CORRUPT, "True or False"},
        {"{'descr': '<f4" TAIL, 5, SQUISH_CORRUPT, "5 bytes, the shape wants 4"},
        {"{'descr': '<f4" TAIL, 3, SQUISH_CORRUPT, "3 bytes, the shape wants 4"},
        {"{'descr': '<f4', 'shape': (1,), }", 4, SQUISH_CORRUPT, "nothing else"},
        {"{'descr': '<f4', 'descr': '<f4" TAIL, 4, SQUISH_CORRUPT, "each once"},
        {"{'x': 1, 'descr': '<f4" TAIL, 4, SQUISH_CORRUPT, "each once"},
        {"{'descr': '<f4" TAIL " x", 4, SQUISH_CORRUPT, "nothing else"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", 4, SQUISH_CORRUPT, "',' or ')'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, SQUISH_CORRUPT, "a dimension"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, SQUISH_CORRUPT,
         "2^64"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9), }", 4, SQUISH_CORRUPT,
         "the shape wants"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4, SQUISH_CORRUPT,
         "at most 8"},
        {"{'descr': '<f4", 0, SQUISH_CORRUPT, "plain string"},
        {"", 0, SQUISH_CORRUPT, "'{'"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        bytes b = npy(rows[i].text, rows[i].n);
        sq_ftensor t;
        squish_error err;
        assert_int_equal(parse(&b, &t, &err), rows[i].code);
        if (!strstr(err.text, rows[i].words))
            fail_msg("row %zu: '%s', wanted '%s'", i, err.text, rows[i].words);
        drop(&b);
    }
    bytes b = npy("{'descr': '<f4" TAIL, 4);
    sq_ftensor t;
    squish_error err;
    for (size_t n = 0; n < b.n; n++) { /* cut anywhere */
        bytes cut = {.p = b.p, .n = n};
        assert_int_equal(parse(&cut, &t, &err), SQUISH_CORRUPT);
    }
    b.p[6] = 3;
    assert_int_equal(parse(&b, &t, &err), SQUISH_UNSUPPORTED);
    drop(&b);
}

static void a_written_array_is_byte_for_byte_numpys(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    float v[6] = {1, 2, 3, 4, 5, 6};
    sq_ftensor t = {
        .name = "x", .dtype = SQ_DT_F32, .n_dims = 2, .dims = {2, 3}, .data = (uint8_t *)v, .bytes = 24};
    squish_error err = {0};
    if (sq_npy_write(scratch_path(&d, path, "x.npy"), &t, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_map m;
    assert_int_equal(sq_os_map_open(&m, path, NULL), SQUISH_OK);
    assert_int_equal(m.bytes, 128 + 24);
    char text[129];
    snprintf(text, sizeof text, "%-117s\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    assert_memory_equal(m.data, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(m.data + 10, text, 118);
    assert_memory_equal(m.data + 128, v, 24);
    sq_os_map_close(&m);
    t.bytes = 20;
    assert_int_equal(sq_npy_write(path, &t, &err), SQUISH_INVALID);
    t.dtype = SQ_DT_BF16;
    char small[256];
    size_t used;
    assert_int_equal(sq_npy_header(&t, small, sizeof small, &used, NULL), SQUISH_INVALID);
    t.dtype = SQ_DT_F16;
    assert_int_equal(sq_npy_header(&t, small, 127, &used, NULL), SQUISH_INVALID);
    t.n_dims = 8;
    for (int i = 0; i < 8; i++) t.dims[i] = 123456;
    assert_int_equal(sq_npy_header(&t, small, sizeof small, &used, NULL), SQUISH_INVALID); /* overflows */
    t.dims[0] = 0;
    for (int i = 1; i < 8; i++) t.dims[i] = 99999999999ull;
    (void)sq_npy_header(&t, small, sizeof small, &used, NULL);
    scratch_remove(&d);
}

static void names_survive_the_way_through_a_file_name(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"model.layers.0.q-proj", "model.layers.0.q-proj"},
                                          {"a/b_c%", "a%2Fb%5Fc%25"},
                                          {"", ""},
                                          {"\xC3\xA9 ", "%C3%A9%20"}};
    char out[64], back[64];
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        assert_true(sq_npy_name_encode(rows[i][0], out, sizeof out));
        assert_string_equal(out, rows[i][1]);
        assert_true(sq_npy_name_decode(out, back, sizeof back));
        assert_string_equal(back, rows[i][0]);
        for (size_t n = 0; n <= strlen(out); n++) assert_false(sq_npy_name_encode(rows[i][0], back, n));
        for (size_t n = 0; n <= strlen(rows[i][0]); n++) assert_false(sq_npy_name_decode(out, back, n));
        assert_true(sq_npy_name_encode(rows[i][0], back, strlen(out) + 1));
    }
    static const char *const wrong[] = {"a/b", "%", "%2", "%2f", "%41", "%00", "a_b", "%GG"};
    for (size_t i = 0; i < SQ_COUNT(wrong); i++)
        assert_false(sq_npy_name_decode(wrong[i], back, sizeof back));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_in_numpys_own_words_are_read),
        cmocka_unit_test(what_cannot_be_read_is_refused_with_a_reason),
        cmocka_unit_test(a_written_array_is_byte_for_byte_numpys),
        cmocka_unit_test(names_survive_the_way_through_a_file_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
