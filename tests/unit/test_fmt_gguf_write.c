/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_gguf_write.c - GGUF files written and read back, in one part and in several; a file made by the
 * Python package reads as it was meant. SQUISH_KEEP=PATH keeps the written file, for a look with other
 * programs. */
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static sq_span text(const char *s) { return (sq_span){(const uint8_t *)s, strlen(s)}; }

#define OK(expr)                                                                                             \
    do {                                                                                                     \
        squish_error e_ = {0};                                                                               \
        squish_error *err = &e_;                                                                             \
        if ((expr) != SQUISH_OK) fail_msg("%s: %s", #expr, e_.text);                                         \
    } while (0)

/* q8_0 "w" of [2, 64] and f32 "v" of [3], all bytes counting up. */
static void write_file(const char *path) {
    sq_gguf_writer *w;
    size_t q, v;
    uint64_t total;
    const sq_span words[] = {text("one"), text(""), text("dr\xC3\xA4i")};
    const int32_t ids[] = {1, -2, 3};
    uint8_t data[136];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    const float vec[] = {1.5f, -2.0f, 0.25f};
    OK(sq_gguf_writer_new(&w, path, NULL, err));
    OK(sq_gguf_writer_str(w, "general.architecture", text("llama"), err));
    OK(sq_gguf_writer_u32(w, "llama.block_count", 7, err));
    OK(sq_gguf_writer_f32(w, "llama.eps", 1e-5f, err));
    OK(sq_gguf_writer_bool(w, "tok.add_bos", true, err));
    OK(sq_gguf_writer_strings(w, "tok.words", words, 3, err));
    OK(sq_gguf_writer_array(w, "tok.ids", SQ_GGUF_I32, ids, 3, err));
    OK(sq_gguf_writer_tensor(
        w,
        &(sq_ftensor){
            .name = "w", .dtype = (sq_dtype)(SQ_DT_GGUF + 8), .n_dims = 2, .dims = {2, 64}, .bytes = 136},
        &q, err));
    OK(sq_gguf_writer_tensor(
        w, &(sq_ftensor){.name = "v", .dtype = SQ_DT_F32, .n_dims = 1, .dims = {3}, .bytes = 12}, &v, err));
    OK(sq_gguf_writer_layout(w, &total, err));
    OK(sq_gguf_writer_put(w, v, 0, vec, 12, err));
    OK(sq_gguf_writer_put(w, q, 100, data + 100, 36, err));
    assert_int_equal(sq_gguf_writer_finish(w, NULL), SQUISH_INVALID);
    OK(sq_gguf_writer_put(w, q, 0, data, 100, err));
    OK(sq_gguf_writer_finish(w, err));
    sq_gguf_writer_free(w);
    assert_int_equal(sq_os_file_bytes(path), total);
    assert_int_equal(total % 32, 0);
}

static void what_is_written_reads_back(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], copy_path[512];
    write_file(scratch_path(&d, path, "m.gguf"));
    if (getenv("SQUISH_KEEP")) write_file(getenv("SQUISH_KEEP"));
    sq_gguf *g;
    OK(sq_gguf_open(&g, path, NULL, err));
    int64_t i;
    double f;
    bool b;
    sq_span s, *words;
    size_t n;
    assert_true(sq_gguf_i64(g, "llama.block_count", &i) && i == 7);
    assert_true(sq_gguf_f64(g, "llama.eps", &f) && f == (double)1e-5f);
    assert_true(sq_gguf_bool(g, "tok.add_bos", &b) && b);
    assert_true(sq_gguf_str(g, "general.architecture", &s) && s.n == 5 && memcmp(s.p, "llama", 5) == 0);
    assert_int_equal(sq_gguf_get(g, "tok.ids")->count, 3);
    assert_int_equal(sq_gguf_kv_at(g, 1)->key.n, strlen("llama.block_count")); /* in the order given */
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    OK(sq_gguf_strings(g, "tok.words", &ar, &words, &n, err));
    assert_int_equal(n, 3);
    assert_memory_equal(words[2].p, "dr\xC3\xA4i", 5);
    sq_arena_deinit(&ar);
    const sq_ftensor *w = sq_gguf_find(g, "w"), *v = sq_gguf_find(g, "v");
    assert_non_null(w);
    assert_int_equal(w->dtype, SQ_DT_GGUF + 8);
    assert_int_equal(w->dims[0], 2);
    assert_int_equal(w->dims[1], 64);
    for (size_t k = 0; k < 136; k++) assert_int_equal(w->data[k], k);
    assert_int_equal(v->dtype, SQ_DT_F32);
    assert_null(sq_gguf_find(g, "x"));
    assert_int_equal(sq_gguf_bytes(g), sq_os_file_bytes(path));

    sq_gguf_writer *again; /* all keys taken over as they are */
    uint64_t total;
    OK(sq_gguf_writer_new(&again, scratch_path(&d, copy_path, "copy.gguf"), NULL, err));
    for (size_t k = 0; k < sq_gguf_n_kv(g); k++) OK(sq_gguf_writer_kv(again, sq_gguf_kv_at(g, k), err));
    for (size_t k = 0; k < 2; k++) OK(sq_gguf_writer_tensor(again, sq_gguf_tensor(g, k), &n, err));
    OK(sq_gguf_writer_layout(again, &total, err));
    for (size_t k = 0; k < 2; k++) {
        const sq_ftensor *t = sq_gguf_tensor(g, k);
        OK(sq_gguf_writer_put(again, k, 0, t->data, t->bytes, err));
    }
    OK(sq_gguf_writer_finish(again, err));
    sq_gguf_writer_free(again);
    sq_gguf_close(g);
    sq_map a, c;
    OK(sq_os_map_open(&a, path, err));
    OK(sq_os_map_open(&c, copy_path, err));
    assert_int_equal(a.bytes, c.bytes);
    assert_memory_equal(a.data, c.data, a.bytes);
    sq_os_map_close(&a);
    sq_os_map_close(&c);
    scratch_remove(&d);
}

static void misuse_is_refused_and_leaves_nothing(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    sq_gguf_writer *w;
    size_t index;
    OK(sq_gguf_writer_new(&w, scratch_path(&d, path, "m.gguf"), NULL, err));
    OK(sq_gguf_writer_u32(w, "a", 1, err));
    assert_int_equal(sq_gguf_writer_u32(w, "a", 1, NULL), SQUISH_INVALID);
    assert_int_equal(sq_gguf_writer_u32(w, "", 1, NULL), SQUISH_INVALID);
    assert_int_equal(sq_gguf_writer_array(w, "b", SQ_GGUF_U8, "x", 1, NULL), SQUISH_INVALID);
    sq_ftensor t = {
        .name = "t", .dtype = (sq_dtype)(SQ_DT_GGUF + 8), .n_dims = 2, .dims = {2, 60}, .bytes = 136};
    assert_int_equal(sq_gguf_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID); /* 60 columns */
    t.dims[1] = 64, t.bytes = 135;
    assert_int_equal(sq_gguf_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t.dtype = (sq_dtype)(SQ_DT_GGUF + 39); /* MXFP4 */
    assert_int_equal(sq_gguf_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    t.dtype = SQ_DT_F8_E4M3;
    assert_int_equal(sq_gguf_writer_tensor(w, &t, &index, NULL), SQUISH_INVALID);
    sq_gguf_writer_free(w);
    sq_gguf_writer_free(NULL);
    scratch_list(&d, names);
    assert_string_equal(names, "");
    scratch_remove(&d);
}

/* Part i of n: split keys and one tensor "tI". */
static void write_part(const scratch *d, const char *file, uint32_t no, uint32_t n, uint32_t total,
                       const char *name) {
    char path[512];
    sq_gguf_writer *w;
    size_t index;
    uint64_t bytes_made;
    float v[8] = {(float)no};
    /* Real files have 16-bit counts here; any integer is read. */
    OK(sq_gguf_writer_new(&w, scratch_path(d, path, file), NULL, err));
    OK(sq_gguf_writer_u32(w, "split.no", no, err));
    OK(sq_gguf_writer_u32(w, "split.count", n, err));
    OK(sq_gguf_writer_u32(w, "split.tensors.count", total, err));
    OK(sq_gguf_writer_tensor(w, &(sq_ftensor){.name = name, .n_dims = 1, .dims = {8}, .bytes = 32}, &index,
                             err));
    OK(sq_gguf_writer_layout(w, &bytes_made, err));
    OK(sq_gguf_writer_put(w, 0, 0, v, 32, err));
    OK(sq_gguf_writer_finish(w, err));
    sq_gguf_writer_free(w);
}

static void several_parts_are_one_file(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_gguf *g;
    squish_error e = {0};
    write_part(&d, "m-00001-of-00003.gguf", 0, 3, 3, "t0");
    write_part(&d, "m-00002-of-00003.gguf", 1, 3, 3, "t1");
    write_part(&d, "m-00003-of-00003.gguf", 2, 3, 3, "t2");
    OK(sq_gguf_open(&g, scratch_path(&d, path, "m-00001-of-00003.gguf"), NULL, err));
    assert_int_equal(sq_gguf_n_tensors(g), 3);
    assert_int_equal(sq_gguf_bytes(g), 3 * sq_os_file_bytes(path));
    const sq_ftensor *t = sq_gguf_find(g, "t2");
    float f;
    assert_non_null(t);
    memcpy(&f, t->data, sizeof f);
    assert_true(f == 2.0f);
    assert_string_equal(t->file, "m-00003-of-00003.gguf");
    sq_gguf_close(g);
#define REFUSED(file, code, words)                                                                           \
    do {                                                                                                     \
        e = (squish_error){0};                                                                               \
        assert_int_equal(sq_gguf_open(&g, scratch_path(&d, path, file), NULL, &e), code);                    \
        if (!strstr(e.text, words)) fail_msg("'%s', wanted '%s'", e.text, words);                            \
        assert_null(g);                                                                                      \
    } while (0)
    REFUSED("m-00002-of-00003.gguf", SQUISH_INVALID, "part 2 of 3: open the first part");
    write_part(&d, "m-00003-of-00003.gguf", 2, 3, 3, "t1");
    REFUSED("m-00001-of-00003.gguf", SQUISH_CORRUPT, "tensor 't1' stands there twice");
    write_part(&d, "m-00003-of-00003.gguf", 1, 3, 3, "t2");
    REFUSED("m-00001-of-00003.gguf", SQUISH_CORRUPT, "split.no is 1");
    write_part(&d, "m-00003-of-00003.gguf", 2, 4, 3, "t2");
    REFUSED("m-00001-of-00003.gguf", SQUISH_CORRUPT, "split.count 4");
    unlink(scratch_path(&d, path, "m-00003-of-00003.gguf"));
    REFUSED("m-00001-of-00003.gguf", SQUISH_NOT_FOUND, "m-00003-of-00003.gguf");
    write_part(&d, "m-00003-of-00003.gguf", 2, 3, 3, "t2");
    write_part(&d, "m-00001-of-00003.gguf", 0, 3, 4, "t0");
    REFUSED("m-00001-of-00003.gguf", SQUISH_CORRUPT, "split.tensors.count is 4, the parts hold 3");
    write_part(&d, "other.gguf", 0, 3, 3, "t0");
    REFUSED("other.gguf", SQUISH_INVALID, "NAME-00001-of-00003.gguf");
    write_part(&d, "single.gguf", 0, 1, 1, "t0");
    OK(sq_gguf_open(&g, scratch_path(&d, path, "single.gguf"), NULL, err));
    sq_gguf_close(g);
    scratch_remove(&d);
}

/* tests/golden/gguf/make.py wrote it with the gguf package. */
static void a_file_of_the_python_package_is_read(void **state) {
    (void)state;
    sq_gguf *g;
    OK(sq_gguf_open(&g, "tests/golden/gguf/package.gguf", NULL, err));
    int64_t i;
    sq_span s;
    assert_true(sq_gguf_str(g, "general.architecture", &s) && s.n == 5);
    assert_true(sq_gguf_i64(g, "llama.block_count", &i) && i == 3);
    assert_true(sq_gguf_i64(g, "x.u64", &i) && i == (int64_t)1 << 40);
    assert_int_equal(sq_gguf_get(g, "tokenizer.ggml.tokens")->count, 4);
    assert_int_equal(sq_gguf_n_tensors(g), 3);
    const sq_ftensor *a = sq_gguf_find(g, "f32"), *q = sq_gguf_find(g, "q8");
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->dims[0], 2);
    assert_int_equal(a->dims[1], 5);
    for (int k = 0; k < 10; k++) {
        float f;
        memcpy(&f, a->data + 4 * k, 4);
        assert_true(f == (float)k / 4);
    }
    assert_int_equal(sq_gguf_find(g, "f16")->dtype, SQ_DT_F16);
    assert_int_equal(q->dtype, SQ_DT_GGUF + 8);
    assert_int_equal(q->dims[0], 3);
    assert_int_equal(q->dims[1], 64);
    assert_int_equal((int8_t)q->data[2 + 31], 127); /* the last of 0..31 is its block's largest */
    sq_gguf_close(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(misuse_is_refused_and_leaves_nothing),
        cmocka_unit_test(several_parts_are_one_file),
        cmocka_unit_test(a_file_of_the_python_package_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
