/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_safetensors.c - one safetensors file: hand-made good ones, a corpus of bad ones, and the writer
 * read back. */
#include "format/format.h"
#include "support/cpu_clock.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Four tensors not in data order, one a scalar, one empty, metadata, padding; 14 bytes of data. */
static const char good_header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[4,12]},"
                                  "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                                  "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[12,12]},"
                                  "\"u\":{\"data_offsets\":[12,14],\"shape\":[2],\"dtype\":\"U8\"}}   ";

typedef struct {
    bytes b;
    uint8_t *copy;
    sq_arena ar;
    sq_ftensor *t;
    size_t n;
    squish_error err;
} parsed;

static squish_status parse(parsed *p, const void *data, size_t n) {
    p->copy = exact(data, n);
    sq_arena_init(&p->ar, NULL, 1024, 0);
    return sq_st_parse((sq_span){p->copy, n}, "m.safetensors", &p->ar, &p->t, &p->n, &p->err);
}

static void done(parsed *p) {
    sq_arena_deinit(&p->ar);
    free(p->copy);
    drop(&p->b);
    *p = (parsed){0};
}

static void tensors_come_in_data_order(void **state) {
    (void)state;
    parsed p = {.b = st_file(good_header, 14)};
    if (parse(&p, p.b.p, p.b.n) != SQUISH_OK) fail_msg("%s", p.err.text);
    assert_int_equal(p.n, 4);
    const uint8_t *data = p.copy + p.b.n - 14;
    assert_string_equal(p.t[0].name, "a");
    assert_int_equal(p.t[0].n_dims, 0);
    assert_int_equal(p.t[0].bytes, 4);
    assert_ptr_equal(p.t[0].data, data);
    assert_string_equal(p.t[1].name, "b");
    assert_int_equal(p.t[1].dtype, SQ_DT_BF16);
    assert_int_equal(p.t[1].n_dims, 2);
    assert_int_equal(p.t[1].dims[0], 2);
    assert_ptr_equal(p.t[1].data, data + 4);
    assert_string_equal(p.t[2].name, "none");
    assert_int_equal(p.t[2].bytes, 0);
    assert_int_equal(p.t[2].dims[1], 7);
    assert_string_equal(p.t[3].name, "u");
    assert_ptr_equal(p.t[3].data, data + 12);
    assert_string_equal(p.t[3].file, "m.safetensors");
    done(&p);
}

static void an_empty_checkpoint_is_valid(void **state) {
    (void)state;
    static const char *const headers[] = {"{}", "{}      ", "{\"__metadata__\":{}}"};
    for (size_t i = 0; i < SQ_COUNT(headers); i++) {
        parsed p = {.b = st_file(headers[i], 0)};
        assert_int_equal(parse(&p, p.b.p, p.b.n), SQUISH_OK);
        assert_int_equal(p.n, 0);
        done(&p);
    }
}

static void every_dtype_has_its_size(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t size;
    } types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                 {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                 {"U32", 4},  {"F32", 4}, {"I64", 8}, {"U64", 8},     {"F64", 8}};
    for (size_t i = 0; i < SQ_COUNT(types); i++) {
        char header[200];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                 types[i].name, 3 * types[i].size);
        parsed p = {.b = st_file(header, 3 * types[i].size)};
        assert_int_equal(parse(&p, p.b.p, p.b.n), SQUISH_OK);
        assert_string_equal(sq_dtype_name(p.t[0].dtype), types[i].name);
        done(&p);
    }
}

#define T(dtype, shape, offsets)                                                                             \
    "{\"w\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TWO(a, b)                                                                                            \
    "{\"w\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":" a "},"                                        \
    "\"x\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":" b "}}"

static void bad_headers_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        squish_status code;
        const char *message;
    } cases[] = {
        /* JSON */
        {"{", 0, SQUISH_CORRUPT, "header length is 1, wanted 2 to"},
        {" {}", 0, SQUISH_CORRUPT, "header begins with byte 0x20, wanted '{'"},
        {"[]", 0, SQUISH_CORRUPT, "header begins with byte 0x5b"},
        {"{}x", 0, SQUISH_CORRUPT, "line 1, column 3"},
        {"{\"a\":}", 0, SQUISH_CORRUPT, "line 1, column 6"},
        {"{\"\xC0\x80\":1}", 0, SQUISH_CORRUPT, "unable to decode"},
        {"{\"a\\u0000\":{}}", 0, SQUISH_CORRUPT, "NUL byte"},
        {"{\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"w\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, SQUISH_CORRUPT, "duplicate object key"},
        {"{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         SQUISH_CORRUPT, "duplicate object key"},
        /* structure */
        {"{\"w\":1}", 0, SQUISH_CORRUPT, "tensor 'w': its entry is a number, wanted an object"},
        {"{\"w\":null}", 0, SQUISH_CORRUPT, "tensor 'w': its entry is null"},
        {"{\"\":{}}", 0, SQUISH_CORRUPT, "its name has 0 bytes"},
        {"{\"__metadata__\":[]}", 0, SQUISH_CORRUPT, "'__metadata__' is an array"},
        {"{\"__metadata__\":{\"k\":1}}", 0, SQUISH_CORRUPT, "'__metadata__' holds 'k', which is a number"},
        {"{\"w\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SQUISH_CORRUPT,
         "tensor 'w': 'dtype' is missing"},
        {"{\"w\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, SQUISH_CORRUPT,
         "'dtype' is a number"},
        {"{\"w\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, SQUISH_CORRUPT, "'shape' is missing"},
        {"{\"w\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, SQUISH_CORRUPT, "'data_offsets' is missing"},
        /* dtype */
        {T("F4", "[2]", "[0,1]"), 1, SQUISH_UNSUPPORTED, "tensor 'w': dtype 'F4' is not read here"},
        {T("F6_E2M3", "[4]", "[0,3]"), 3, SQUISH_UNSUPPORTED, "dtype 'F6_E2M3' is not read here"},
        {T("C64", "[1]", "[0,8]"), 8, SQUISH_UNSUPPORTED, "dtype 'C64' is not read here"},
        {T("f32", "[1]", "[0,4]"), 4, SQUISH_UNSUPPORTED, "dtype 'f32' is not read here"},
        {T("", "[1]", "[0,4]"), 4, SQUISH_UNSUPPORTED, "dtype '' is not read here"},
        {T("\\u001b[2J", "[1]", "[0,4]"), 4, SQUISH_UNSUPPORTED, "dtype '?[2J' is not"},
        /* shape */
        {T("U8", "4", "[0,4]"), 4, SQUISH_CORRUPT, "'shape' is a number, wanted an array"},
        {T("U8", "[-1]", "[0,4]"), 4, SQUISH_CORRUPT, "'shape'[0] is -1, wanted at least 0"},
        {T("U8", "[4.0]", "[0,4]"), 4, SQUISH_CORRUPT, "'shape'[0] is a fraction, wanted an integer"},
        {T("U8", "[2,\"2\"]", "[0,4]"), 4, SQUISH_CORRUPT, "'shape'[1] is a string"},
        {T("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, SQUISH_CORRUPT, "'shape' has 9 dimensions, at most 8"},
        {T("U8", "[4294967296,4294967296]", "[0,0]"), 0, SQUISH_CORRUPT,
         "the product of its 'shape' overflows at dimension 1"},
        {T("F64", "[4611686018427387904]", "[0,0]"), 0, SQUISH_CORRUPT,
         "the product of its 'shape' overflows at dimension 0"},
        {T("U8", "[18446744073709551616]", "[0,0]"), 0, SQUISH_CORRUPT, "too big integer"},
        {T("U8", "[9223372036854775807]", "[0,4]"), 4, SQUISH_CORRUPT,
         "dtype U8 and 'shape' want 9223372036854775807"},
        {T("U8", "[3]", "[0,4]"), 4, SQUISH_CORRUPT,
         "'data_offsets' span 4 bytes, dtype U8 and 'shape' want 3"},
        {T("F32", "[4]", "[0,4]"), 4, SQUISH_CORRUPT,
         "'data_offsets' span 4 bytes, dtype F32 and 'shape' want 16"},
        {T("U8", "[0]", "[0,4]"), 4, SQUISH_CORRUPT,
         "'data_offsets' span 4 bytes, dtype U8 and 'shape' want 0"},
        /* offsets */
        {T("U8", "[4]", "[0]"), 4, SQUISH_CORRUPT,
         "'data_offsets' is an array of 1 items, wanted an array of 2"},
        {T("U8", "[4]", "[0,4,4]"), 4, SQUISH_CORRUPT, "'data_offsets' is an array of 3 items"},
        {T("U8", "[4]", "{}"), 4, SQUISH_CORRUPT, "'data_offsets' is an object"},
        {T("U8", "[4]", "[4,0]"), 4, SQUISH_CORRUPT, "'data_offsets' run backwards, 4 to 0"},
        {T("U8", "[4]", "[-4,0]"), 4, SQUISH_CORRUPT, "'data_offsets'[0] is -4, wanted at least 0"},
        {T("U8", "[4]", "[0,1e1]"), 4, SQUISH_CORRUPT, "'data_offsets'[1] is a fraction"},
        {T("U8", "[8]", "[0,8]"), 4, SQUISH_CORRUPT,
         "'data_offsets' end at 8, the file holds 4 bytes of data (4 missing)"},
        {T("U8", "[4]", "[9223372036854775803,9223372036854775807]"), 4, SQUISH_CORRUPT,
         "end at 9223372036854775807"},
        {T("U8", "[4]", "[1,5]"), 5, SQUISH_CORRUPT, "'data_offsets' begin at 1, wanted 0: a hole"},
        {T("U8", "[4]", "[0,4]"), 5, SQUISH_CORRUPT, "5 bytes of data, its tensors take 4"},
        {"{}", 1, SQUISH_CORRUPT, "1 bytes of data, its tensors take 0"},
        {TWO("[0,8]", "[0,8]"), 8, SQUISH_CORRUPT, "begin at 0 and overlap"},
        {TWO("[0,8]", "[7,15]"), 15, SQUISH_CORRUPT,
         "tensor 'x': 'data_offsets' begin at 7 and overlap 'w', which ends at 8"},
        {TWO("[9,17]", "[0,8]"), 17, SQUISH_CORRUPT,
         "tensor 'w': 'data_offsets' begin at 9, wanted 8: a hole"},
        {"{\"w\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
         "\"z\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}",
         8, SQUISH_CORRUPT, "tensor 'z': 'data_offsets' begin at 4 and overlap 'w'"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        parsed p = {.b = st_file(cases[i].header, cases[i].data)};
        squish_status st = parse(&p, p.b.p, p.b.n);
        bool named = strstr(p.err.text, cases[i].message) && memcmp(p.err.text, "m.safetensors: ", 15) == 0;
        if (st != cases[i].code || !named) {
            fail_msg("case %zu: status %d, '%s', wanted '%s'", i, st, p.err.text, cases[i].message);
        }
        assert_null(p.t);
        assert_int_equal(p.n, 0);
        done(&p);
    }
}

static void lengths_that_lie_are_refused(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        const char *message;
    } cases[] = {{0, "header length is 0, wanted 2 to 100000000"},
                 {1, "header length is 1"},
                 {3, "header length is 3, the file holds 2 bytes after it"},
                 {100000001, "header length is 100000001, wanted 2 to 100000000"},
                 {UINT64_MAX, "header length is 18446744073709551615"},
                 {UINT64_MAX - 7, "header length is 18446744073709551608"}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        parsed p = {0};
        add_u64(&p.b, cases[i].length);
        add(&p.b, "{}", 2);
        assert_int_equal(parse(&p, p.b.p, p.b.n), SQUISH_CORRUPT);
        assert_non_null(strstr(p.err.text, cases[i].message));
        done(&p);
    }
}

static void names_have_a_ceiling(void **state) {
    (void)state;
    for (size_t n = 255; n <= 256; n++) {
        char name[300], header[600];
        memset(name, 'n', n);
        name[n] = 0;
        snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                 name);
        parsed p = {.b = st_file(header, 1)};
        assert_int_equal(parse(&p, p.b.p, p.b.n), n == 255 ? SQUISH_OK : SQUISH_CORRUPT);
        if (n == 256) assert_non_null(strstr(p.err.text, "its name has 256 bytes, wanted 1 to 255"));
        done(&p);
    }
}

static void a_git_lfs_pointer_is_recognised(void **state) {
    (void)state;
    static const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n";
    parsed p = {0};
    assert_int_equal(parse(&p, text, sizeof text - 1), SQUISH_NOT_FOUND);
    assert_string_equal(
        p.err.text,
        "m.safetensors is a git-lfs pointer, the weights themselves were never fetched: git lfs pull");
    done(&p);
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    bytes b = st_file(good_header, 14);
    for (size_t n = 0; n < b.n; n++) {
        parsed p = {0};
        assert_int_equal(parse(&p, b.p, n), SQUISH_CORRUPT);
        assert_memory_equal(p.err.text, "m.safetensors: ", 15);
        done(&p);
    }
    drop(&b);
}

/* A header of n tensors, shape [3, i % 4] of I16, without a hole. */
static bytes many(size_t n) {
    bytes h = {0};
    size_t at = 0;
    char line[200];
    add(&h, "{", 1);
    for (size_t i = 0; i < n; i++) {
        size_t size = 6 * (i % 4);
        int len = snprintf(line, sizeof line,
                           "%s\"model.layers.%zu.mlp.w%zu.weight\":{\"dtype\":\"I16\",\"shape\":[3,%zu],"
                           "\"data_offsets\":[%zu,%zu]}",
                           i ? "," : "", i / 7, i % 7, i % 4, at, at + size);
        add(&h, line, (size_t)len);
        at += size;
    }
    add(&h, "}", 2); /* with its NUL */
    bytes b = st_file((char *)h.p, at);
    drop(&h);
    return b;
}

static void flipped_bits_are_refused_or_harmless(void **state) {
    (void)state;
    bytes b = many(5);
    size_t header, refused = 0;
    memcpy(&header, b.p, 8);
    header += 8;
    uint64_t seed = 3;
    for (size_t round = 0; round < 20000; round++) {
        parsed p = {0};
        uint8_t *damaged = exact(b.p, b.n);
        uint64_t bit = round < 8 * header ? round : sq_splitmix64(&seed) % (8 * header);
        damaged[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (round >= 8 * header) damaged[sq_splitmix64(&seed) % header] = (uint8_t)sq_splitmix64(&seed);
        squish_status st = parse(&p, damaged, b.n);
        uint64_t at = 0;
        for (size_t i = 0; i < p.n; i++) { /* still the same data, cut the same way */
            assert_ptr_equal(p.t[i].data, p.copy + b.n - 6 * 6 + at);
            at += p.t[i].bytes;
        }
        if (st == SQUISH_OK) assert_int_equal(at, 6 * 6);
        if (st != SQUISH_OK) assert_true(st == SQUISH_CORRUPT || st == SQUISH_UNSUPPORTED);
        refused += st != SQUISH_OK;
        free(damaged);
        done(&p);
    }
    assert_true(refused > 10000);
    drop(&b);
}

static void a_header_of_a_thousand_tensors_takes_milliseconds(void **state) {
    (void)state;
    parsed p = {.b = many(1000)};
    uint64_t t0 = sq_test_cpu_ns();
    assert_int_equal(parse(&p, p.b.p, p.b.n), SQUISH_OK);
    uint64_t t = sq_test_cpu_ns() - t0;
    assert_int_equal(p.n, 1000);
    assert_true(t < 100 * 1000 * 1000); /* a few ms in a plain build; the rest is for sanitizers */
    done(&p);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void what_is_written_reads_back(void **state) {
    (void)state;
    scratch dir = scratch_make();
    char path[512], names[1024];
    float logits[6] = {1, 2, 3, 4, 5, 6};
    int64_t ids[3] = {7, 8, 9};
    sq_ftensor t[3] = {
        {.name = "logits",
         .dtype = SQ_DT_F32,
         .n_dims = 2,
         .dims = {2, 3},
         .data = (void *)logits,
         .bytes = 24},
        {.name = "a \"quoted\" \xC3\xA4",
         .dtype = SQ_DT_U8,
         .n_dims = 1,
         .dims = {0},
         .data = (void *)"",
         .bytes = 0},
        {.name = "ids", .dtype = SQ_DT_I64, .n_dims = 1, .dims = {3}, .data = (void *)ids, .bytes = 24}};
    squish_error err = {0};
    scratch_path(&dir, path, "out.safetensors");
    if (sq_st_write(path, t, 3, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_safetensors *s;
    assert_int_equal(sq_st_open(&s, path, NULL, NULL, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_st_count(s), 3);
    const sq_ftensor *r = sq_st_find(s, "logits");
    assert_int_equal(r->n_dims, 2);
    assert_int_equal(r->dims[1], 3);
    assert_memory_equal(r->data, logits, sizeof logits);
    assert_int_equal((uintptr_t)r->data % 8, 0);
    assert_int_equal(sq_st_find(s, t[1].name)->bytes, 0);
    assert_memory_equal(sq_st_find(s, "ids")->data, ids, sizeof ids);
    sq_st_close(s);
    scratch_list(&dir, names);
    assert_string_equal(names, "out.safetensors ");
    scratch_remove(&dir);
}

static void the_writer_refuses_what_it_could_not_read(void **state) {
    (void)state;
    scratch dir = scratch_make();
    char path[512], names[1024];
    float x[2] = {1, 2};
    sq_ftensor t[2] = {
        {.name = "t", .dtype = SQ_DT_F32, .n_dims = 1, .dims = {2}, .data = (void *)x, .bytes = 8},
        {.name = "t", .dtype = SQ_DT_F32, .n_dims = 1, .dims = {2}, .data = (void *)x, .bytes = 8}};
    squish_error err = {0};
    scratch_path(&dir, path, "out.safetensors");
    assert_int_equal(sq_st_write(path, t, 2, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "tensor 't' is given twice");
    t[0].bytes = 4;
    err = (squish_error){0};
    assert_int_equal(sq_st_write(path, t, 1, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "tensor 't': 4 bytes given, its shape wants 8");
    t[0].dtype = (sq_dtype)(SQ_DT_GGUF + 2);
    assert_int_equal(sq_st_write(path, t, 1, NULL), SQUISH_INVALID);
    scratch_list(&dir, names);
    assert_string_equal(names, "");
    assert_int_not_equal(sq_st_write("/nonexistent/dir/x.safetensors", t + 1, 1, NULL), SQUISH_OK);
    scratch_remove(&dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_in_data_order),
        cmocka_unit_test(an_empty_checkpoint_is_valid),
        cmocka_unit_test(every_dtype_has_its_size),
        cmocka_unit_test(bad_headers_are_refused_by_name),
        cmocka_unit_test(lengths_that_lie_are_refused),
        cmocka_unit_test(names_have_a_ceiling),
        cmocka_unit_test(a_git_lfs_pointer_is_recognised),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(flipped_bits_are_refused_or_harmless),
        cmocka_unit_test(a_header_of_a_thousand_tensors_takes_milliseconds),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(the_writer_refuses_what_it_could_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
