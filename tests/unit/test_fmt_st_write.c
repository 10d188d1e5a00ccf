/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_st_write.c - the streaming writer of safetensors: the strict reader takes what it makes, data
 * begin on a page, nothing appears before the end. */
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const sq_ftensor declared[] = {
    {.name = "model.a", .dtype = SQ_DT_BF16, .n_dims = 2, .dims = {32, 64}, .bytes = 4096},
    {.name = "quo\"te\xC3\xA9", .dtype = SQ_DT_F32, .n_dims = 1, .dims = {16}, .bytes = 64},
    {.name = "empty", .dtype = SQ_DT_F16, .n_dims = 2, .dims = {0, 7}, .bytes = 0},
    {.name = "scalar", .dtype = SQ_DT_U8, .n_dims = 0, .bytes = 1},
};

static sq_st_writer *laid_out(const char *path, uint64_t *total) {
    sq_st_writer *w;
    squish_error err = {0};
    size_t index;
    assert_int_equal(sq_st_writer_new(&w, path, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_st_writer_meta(w, "format", "pt", &err), SQUISH_OK);
    assert_int_equal(sq_st_writer_meta(w, "a \"b\"", "c\n", &err), SQUISH_OK);
    for (size_t i = 0; i < SQ_COUNT(declared); i++) {
        if (sq_st_writer_tensor(w, &declared[i], &index, &err) != SQUISH_OK) fail_msg("%s", err.text);
        assert_int_equal(index, i);
    }
    if (sq_st_writer_layout(w, total, &err) != SQUISH_OK) fail_msg("%s", err.text);
    return w;
}

static void the_strict_reader_takes_it(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    uint64_t total;
    uint8_t data[4096];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7 + (i >> 8));
    sq_st_writer *w = laid_out(scratch_path(&d, path, "m.safetensors"), &total);
    squish_error err = {0};
    assert_int_equal(total, 4096 + 4096 + 64 + 1);
    assert_int_equal(sq_st_writer_put(w, 3, 0, "x", 1, &err), SQUISH_OK);
    assert_int_equal(sq_st_writer_put(w, 0, 1000, data + 1000, 3096, &err), SQUISH_OK);
    assert_int_equal(sq_st_writer_finish(w, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "tensor 'model.a': 3096 bytes were put, it has 4096"));
    assert_int_equal(sq_st_writer_put(w, 0, 0, data, 1000, &err), SQUISH_OK);
    assert_int_equal(sq_st_writer_put(w, 1, 0, data, 64, &err), SQUISH_OK);
    scratch_list(&d, names);
    assert_string_equal(names, "m.safetensors.partial ");
    err = (squish_error){0};
    if (sq_st_writer_finish(w, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_st_writer_free(w);
    sq_safetensors *s;
    if (sq_st_open(&s, path, NULL, NULL, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_st_count(s), 4);
    for (size_t i = 0; i < SQ_COUNT(declared); i++) {
        const sq_ftensor *t = sq_st_find(s, declared[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, declared[i].dtype);
        assert_int_equal(t->n_dims, declared[i].n_dims);
        assert_int_equal(t->bytes, declared[i].bytes);
    }
    const sq_ftensor *a = sq_st_find(s, "model.a");
    assert_memory_equal(a->data, data, 4096);
    assert_int_equal((uintptr_t)a->data % 4096, 0);
    assert_memory_equal(sq_st_find(s, declared[1].name)->data, data, 64);
    sq_st_close(s);
    scratch_remove(&d);
}

static void misuse_is_refused_and_leaves_nothing(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    uint64_t total;
    size_t index;
    sq_st_writer *w;
    scratch_path(&d, path, "m.safetensors");
    assert_int_equal(sq_st_writer_new(&w, path, NULL, NULL), SQUISH_OK);
    sq_ftensor t = declared[0];
    assert_int_equal(sq_st_writer_put(w, 0, 0, "x", 1, NULL), SQUISH_INVALID);
    t.bytes = 4095;
    assert_int_equal(sq_st_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t = declared[0], t.dims[0] = UINT64_MAX;
    assert_int_equal(sq_st_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t = declared[0], t.dtype = (sq_dtype)(SQ_DT_GGUF + 2);
    assert_int_equal(sq_st_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t = declared[0], t.name = "__metadata__";
    assert_int_equal(sq_st_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t.name = "\xFF";
    assert_int_equal(sq_st_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    assert_int_equal(sq_st_writer_meta(w, "\xFF", "", NULL), SQUISH_INVALID);
    assert_int_equal(sq_st_writer_tensor(w, &declared[0], &index, NULL), SQUISH_OK);
    assert_int_equal(sq_st_writer_tensor(w, &declared[0], &index, NULL), SQUISH_OK);
    assert_int_equal(sq_st_writer_layout(w, &total, NULL), SQUISH_INVALID); /* one name twice */
    sq_st_writer_free(w);
    w = laid_out(path, &total);
    assert_int_equal(sq_st_writer_put(w, 9, 0, "x", 1, NULL), SQUISH_INVALID);
    assert_int_equal(sq_st_writer_put(w, 1, 63, "xy", 2, NULL), SQUISH_INVALID);
    assert_int_equal(sq_st_writer_meta(w, "a", "b", NULL), SQUISH_INVALID);
    sq_st_writer_free(w);
    sq_st_writer_free(NULL);
    scratch_list(&d, names);
    assert_string_equal(names, "");
    scratch_remove(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_strict_reader_takes_it),
        cmocka_unit_test(misuse_is_refused_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
