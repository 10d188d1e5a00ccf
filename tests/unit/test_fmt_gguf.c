/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_gguf.c - GGUF: hand-made files read back, and a corpus of bad ones, each refused with its code and
 * a text that names the field. Real vocabularies are read where $SQUISH_TESTDATA is set. */
#include "format/format.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- files made by hand ---------------------------------------------------------------------- */

static void head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    add(b, "GGUF", 4);
    add_u32(b, version);
    add_u64(b, n_tensors);
    add_u64(b, n_kv);
}

static void key(bytes *b, const char *name, uint32_t type) {
    add_str(b, name);
    add_u32(b, type);
}

static void key_u32(bytes *b, const char *name, uint32_t v) {
    key(b, name, SQ_GGUF_U32);
    add_u32(b, v);
}

static void key_str(bytes *b, const char *name, const char *v) {
    key(b, name, SQ_GGUF_STRING);
    add_str(b, v);
}

static void key_array(bytes *b, const char *name, uint32_t item, uint64_t n) {
    key(b, name, SQ_GGUF_ARRAY);
    add_u32(b, item);
    add_u64(b, n);
}

/* ne[0] (innermost) and ne[1]; ne1 = 0: one dimension. */
static void info(bytes *b, const char *name, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset) {
    add_str(b, name);
    add_u32(b, ne1 ? 2 : 1);
    add_u64(b, ne0);
    if (ne1) add_u64(b, ne1);
    add_u32(b, type);
    add_u64(b, offset);
}

static void pad(bytes *b, size_t align) { add_zero(b, (align - b->n % align) % align); }

/* Every value type, three tensors: F32 [5], Q8_0 [3, 64], BF16 [2, 4], with padding between them. */
static bytes good_file(void) {
    bytes b = {0};
    head(&b, 3, 3, 15);
    key_str(&b, "general.architecture", "qwen2");
    key_u32(&b, "general.alignment", 64);
    key(&b, "u8", SQ_GGUF_U8);
    add_u8(&b, 200);
    key(&b, "i8", SQ_GGUF_I8);
    add_u8(&b, 0xFE);
    key(&b, "u16", SQ_GGUF_U16);
    add(&b, "\x34\x12", 2);
    key(&b, "i16", SQ_GGUF_I16);
    add(&b, "\xFF\xFF", 2);
    key(&b, "i32", SQ_GGUF_I32);
    add_u32(&b, (uint32_t)-70000);
    key(&b, "u64", SQ_GGUF_U64);
    add_u64(&b, UINT64_MAX);
    key(&b, "i64", SQ_GGUF_I64);
    add_u64(&b, (uint64_t)INT64_MIN);
    key(&b, "f32", SQ_GGUF_F32);
    add_f32(&b, 1e-6f);
    key(&b, "f64", SQ_GGUF_F64);
    double d = 0.1;
    add(&b, &d, sizeof d);
    key(&b, "bool", SQ_GGUF_BOOL);
    add_u8(&b, 1);
    key_array(&b, "tokens", SQ_GGUF_STRING, 3);
    add_str(&b, "a");
    add_str(&b, "");
    add_str(&b, "\xC4\xA0the");
    key_array(&b, "types", SQ_GGUF_I32, 2);
    add_u32(&b, 1);
    add_u32(&b, 3);
    key_array(&b, "flags", SQ_GGUF_BOOL, 2);
    add(&b, "\x00\x01", 2);
    info(&b, "norm", 5, 0, 0, 0);
    info(&b, "w", 64, 3, 8, 64);
    info(&b, "e", 4, 2, 30, 320);
    pad(&b, 64);
    for (int i = 0; i < 336; i++) add_u8(&b, (uint8_t)i);
    return b;
}

static squish_status parse(const bytes *b, size_t n, sq_gguf **g, squish_error *err, uint8_t **copy) {
    *copy = exact(b->p, n);
    return sq_gguf_parse(g, (sq_span){*copy, n}, "dir/x.gguf", NULL, err);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void every_value_type_reads_back(void **state) {
    (void)state;
    bytes b = good_file();
    sq_gguf *g;
    uint8_t *copy;
    squish_error err = {0};
    if (parse(&b, b.n, &g, &err, &copy) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_gguf_n_kv(g), 15);
    static const struct {
        const char *key;
        int64_t v;
    } ints[] = {{"general.alignment", 64}, {"u8", 200},       {"i8", -2}, {"u16", 0x1234}, {"i16", -1},
                {"i32", -70000},           {"i64", INT64_MIN}};
    int64_t v = 0;
    for (size_t i = 0; i < SQ_COUNT(ints); i++) {
        assert_true(sq_gguf_i64(g, ints[i].key, &v));
        assert_true(v == ints[i].v);
    }
    double d = 0;
    bool flag = false;
    sq_span s;
    assert_true(sq_gguf_f64(g, "f32", &d) && d == (double)1e-6f);
    assert_true(sq_gguf_f64(g, "f64", &d) && d == 0.1);
    assert_true(sq_gguf_bool(g, "bool", &flag) && flag);
    assert_true(sq_gguf_str(g, "general.architecture", &s) && s.n == 5 && memcmp(s.p, "qwen2", 5) == 0);
    sq_gguf_close(g);
    free(copy);
    drop(&b);
}

static void getters_refuse_other_kinds_and_absent_keys(void **state) {
    (void)state;
    bytes b = good_file();
    sq_gguf *g;
    uint8_t *copy;
    assert_int_equal(parse(&b, b.n, &g, NULL, &copy), SQUISH_OK);
    int64_t v = 5;
    double d = 5;
    bool flag = true;
    sq_span s;
    assert_false(sq_gguf_i64(g, "u64", &v)); /* 2^64 - 1 does not fit */
    assert_false(sq_gguf_i64(g, "f32", &v));
    assert_false(sq_gguf_i64(g, "bool", &v));
    assert_false(sq_gguf_i64(g, "types", &v));
    assert_false(sq_gguf_i64(g, "none", &v));
    assert_false(sq_gguf_f64(g, "u8", &d));
    assert_false(sq_gguf_bool(g, "u8", &flag));
    assert_false(sq_gguf_str(g, "tokens", &s));
    assert_true(v == 5 && d == 5 && flag);
    assert_null(sq_gguf_get(g, "u"));
    assert_null(sq_gguf_get(g, "u88"));
    assert_null(sq_gguf_kv_at(g, 15));
    assert_null(sq_gguf_tensor(g, 3));
    sq_gguf_close(g);
    free(copy);
    drop(&b);
}

static void arrays_are_views_and_string_arrays_come_on_demand(void **state) {
    (void)state;
    bytes b = good_file();
    sq_gguf *g;
    uint8_t *copy;
    assert_int_equal(parse(&b, b.n, &g, NULL, &copy), SQUISH_OK);
    sq_arena ar;
    sq_arena_init(&ar, NULL, 1024, 0);
    sq_span *s;
    size_t n;
    squish_error err = {0};
    assert_int_equal(sq_gguf_strings(g, "tokens", &ar, &s, &n, &err), SQUISH_OK);
    assert_int_equal(n, 3);
    assert_int_equal(s[0].n, 1);
    assert_int_equal(s[1].n, 0);
    assert_int_equal(s[2].n, 5);
    assert_memory_equal(s[2].p, "\xC4\xA0the", 5);
    const sq_gguf_kv *kv = sq_gguf_get(g, "types");
    assert_int_equal(kv->type, SQ_GGUF_ARRAY);
    assert_int_equal(kv->item_type, SQ_GGUF_I32);
    assert_int_equal(kv->count, 2);
    assert_memory_equal(kv->value.p, "\1\0\0\0\3\0\0\0", 8);
    assert_int_equal(sq_gguf_strings(g, "types", &ar, &s, &n, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "'types' has type 9, wanted an array of strings"));
    assert_int_equal(sq_gguf_strings(g, "none", &ar, &s, &n, NULL), SQUISH_NOT_FOUND);
    sq_arena_deinit(&ar);
    sq_gguf_close(g);
    free(copy);
    drop(&b);
}

static void tensors_come_outermost_first_with_checked_data(void **state) {
    (void)state;
    bytes b = good_file();
    sq_gguf *g;
    uint8_t *copy;
    assert_int_equal(parse(&b, b.n, &g, NULL, &copy), SQUISH_OK);
    assert_int_equal(sq_gguf_n_tensors(g), 3);
    const uint8_t *base = copy + b.n - 336;
    const sq_ftensor *t = sq_gguf_tensor(g, 0);
    assert_string_equal(t->name, "norm");
    assert_int_equal(t->dtype, SQ_DT_F32);
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->dims[0], 5);
    assert_int_equal(t->bytes, 20);
    assert_ptr_equal(t->data, base);
    t = sq_gguf_tensor(g, 1);
    assert_int_equal(t->dtype, SQ_DT_GGUF + 8);
    assert_int_equal(t->dims[0], 3);
    assert_int_equal(t->dims[1], 64);
    assert_int_equal(t->bytes, 3 * 2 * 34);
    assert_ptr_equal(t->data, base + 64);
    t = sq_gguf_tensor(g, 2);
    assert_int_equal(t->dtype, SQ_DT_BF16);
    assert_int_equal(t->bytes, 16);
    assert_string_equal(t->file, "x.gguf");
    sq_gguf_close(g);
    free(copy);
    drop(&b);
}

static void a_vocabulary_without_tensors_needs_no_padding(void **state) {
    (void)state;
    bytes b = {0};
    head(&b, 2, 0, 1);
    key_str(&b, "a", "b");
    sq_gguf *g;
    uint8_t *copy;
    assert_int_equal(parse(&b, b.n, &g, NULL, &copy), SQUISH_OK);
    assert_int_equal(sq_gguf_n_tensors(g), 0);
    sq_gguf_close(g);
    free(copy);
    drop(&b);
}

/* ---- bad files ------------------------------------------------------------------------------- */

static void bad_magic(bytes *b) { add(b, "GGUX\3\0\0\0aaaaaaaaaaaaaaaa", 24); }
static void bad_short(bytes *b) { add(b, "GGUF", 4); }
static void bad_empty(bytes *b) { add(b, "", 0); }
static void bad_lfs(bytes *b) { add(b, "version https://git-lfs.github.com/spec/v1\n", 43); }
static void bad_version_1(bytes *b) { head(b, 1, 0, 0); }
static void bad_version_9(bytes *b) { head(b, 9, 0, 0); }
static void bad_big_endian(bytes *b) { head(b, 3u << 24, 0, 0); }
static void bad_kv_count(bytes *b) { head(b, 3, 0, UINT64_MAX); }
static void bad_kv_count_over_limit(bytes *b) {
    head(b, 3, 0, 70000);
    add_zero(b, 2000000);
}
static void bad_tensor_count(bytes *b) { head(b, 3, (uint64_t)1 << 60, 0); }
static void bad_counts_without_bytes(bytes *b) { head(b, 3, 1, 1); }
static void bad_key_length(bytes *b) {
    head(b, 3, 0, 1);
    add_u64(b, 70000);
    add_zero(b, 80000);
}
static void bad_key_past_end(bytes *b) {
    head(b, 3, 0, 1);
    add_u64(b, 100);
    add_zero(b, 40);
}
static void bad_key_empty(bytes *b) {
    head(b, 3, 0, 1);
    key_u32(b, "", 1);
}
static void bad_key_nul(bytes *b) {
    head(b, 3, 0, 1);
    add_u64(b, 3);
    add(b, "a\0b", 3);
    add_u32(b, SQ_GGUF_U32);
    add_u32(b, 1);
}
static void bad_key_utf8(bytes *b) {
    head(b, 3, 0, 1);
    key_u32(b, "a\xFF\x1b", 1);
}
static void bad_key_twice(bytes *b) {
    head(b, 3, 0, 3);
    key_u32(b, "same", 1);
    key_u32(b, "other", 1);
    key_str(b, "same", "x");
}
static void bad_type(bytes *b) {
    head(b, 3, 0, 1);
    key(b, "k", 13);
    add_u64(b, 0);
}
static void bad_bool(bytes *b) {
    head(b, 3, 0, 1);
    key(b, "k", SQ_GGUF_BOOL);
    add_u8(b, 2);
}
static void bad_bool_in_array(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", SQ_GGUF_BOOL, 3);
    add(b, "\x00\x01\x80", 3);
}
static void bad_string_length(bytes *b) {
    head(b, 3, 0, 1);
    key(b, "k", SQ_GGUF_STRING);
    add_u64(b, UINT64_MAX);
}
static void bad_string_past_end(bytes *b) {
    head(b, 3, 0, 1);
    key(b, "k", SQ_GGUF_STRING);
    add_u64(b, 10);
    add(b, "abc", 3);
}
static void bad_array_nested(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", SQ_GGUF_ARRAY, 1);
    add_zero(b, 64);
}
static void bad_array_type(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", 77, 1);
    add_zero(b, 64);
}
static void bad_array_count(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", SQ_GGUF_U8, (uint64_t)1 << 40);
    add_zero(b, 64);
}
static void bad_array_wraps(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", SQ_GGUF_U64, 100000000); /* below the ceiling, far above the file */
    add_zero(b, 64);
}
static void bad_array_string(bytes *b) {
    head(b, 3, 0, 1);
    key_array(b, "k", SQ_GGUF_STRING, 2);
    add_str(b, "fine");
    add_u64(b, 1000);
}
static void bad_alignment_type(bytes *b) {
    head(b, 3, 0, 1);
    key_str(b, "general.alignment", "32");
}
static void bad_alignment_zero(bytes *b) {
    head(b, 3, 0, 1);
    key_u32(b, "general.alignment", 0);
}
static void bad_alignment_odd(bytes *b) {
    head(b, 3, 0, 1);
    key_u32(b, "general.alignment", 48);
}
static void tensor_of(bytes *b, uint64_t ne0, uint64_t ne1, uint32_t type, uint64_t offset) {
    head(b, 3, 1, 0);
    info(b, "blk.0", ne0, ne1, type, offset);
    pad(b, 32);
    add_zero(b, 64);
}
static void bad_dim_zero(bytes *b) { tensor_of(b, 0, 4, 0, 0); }
static void bad_dim_product(bytes *b) { tensor_of(b, (uint64_t)1 << 33, (uint64_t)1 << 33, 0, 0); }
static void bad_dim_bytes(bytes *b) { tensor_of(b, (uint64_t)1 << 62, 1, 0, 0); }
static void bad_dim_minus_one(bytes *b) { tensor_of(b, UINT64_MAX, 0, 24, 0); }
static void bad_block(bytes *b) { tensor_of(b, 48, 1, 2, 0); }
static void bad_k_block(bytes *b) { tensor_of(b, 128, 1, 12, 0); }
static void bad_type_removed(bytes *b) { tensor_of(b, 32, 1, 4, 0); }
static void bad_type_iq(bytes *b) { tensor_of(b, 256, 1, 23, 0); }
static void bad_type_unknown(bytes *b) { tensor_of(b, 32, 1, 99999, 0); }
static void bad_offset_alignment(bytes *b) { tensor_of(b, 4, 1, 0, 8); }
static void bad_offset_past_end(bytes *b) { tensor_of(b, 4, 1, 0, 96); }
static void bad_offset_huge(bytes *b) { tensor_of(b, 4, 1, 0, UINT64_MAX - 31); }
static void bad_bytes_past_end(bytes *b) { tensor_of(b, 17, 1, 0, 0); }
static void bad_n_dims(bytes *b) {
    head(b, 3, 1, 0);
    add_str(b, "t");
    add_u32(b, 5);
    add_zero(b, 100);
}
static void bad_n_dims_zero(bytes *b) {
    head(b, 3, 1, 0);
    add_str(b, "t");
    add_u32(b, 0);
    add_zero(b, 100);
}
static void bad_name_long(bytes *b) {
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    head(b, 3, 1, 0);
    info(b, name, 4, 1, 0, 0);
    add_zero(b, 200);
}
static void bad_name_twice(bytes *b) {
    head(b, 3, 2, 0);
    info(b, "t", 4, 1, 0, 0);
    info(b, "t", 4, 1, 0, 32);
    pad(b, 32);
    add_zero(b, 64);
}
static void bad_overlap(bytes *b) {
    head(b, 3, 2, 0);
    info(b, "one", 16, 1, 0, 0);
    info(b, "two", 4, 1, 0, 32);
    pad(b, 32);
    add_zero(b, 64);
}
static void bad_same_offset(bytes *b) {
    head(b, 3, 2, 0);
    info(b, "one", 4, 1, 0, 0);
    info(b, "two", 4, 1, 0, 0);
    pad(b, 32);
    add_zero(b, 64);
}
static void bad_no_data(bytes *b) {
    head(b, 3, 1, 0);
    info(b, "t", 4, 1, 0, 0);
}

static void bad_files_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        void (*make)(bytes *);
        squish_status code;
        const char *message;
    } cases[] = {
        {bad_magic, SQUISH_CORRUPT, "not a GGUF file"},
        {bad_short, SQUISH_CORRUPT, "file ends at byte 4 inside the header"},
        {bad_empty, SQUISH_CORRUPT, "not a GGUF file"},
        {bad_lfs, SQUISH_NOT_FOUND, "git-lfs pointer, the model itself was never fetched: git lfs pull"},
        {bad_version_1, SQUISH_UNSUPPORTED, "GGUF version 1, wanted 2 or 3"},
        {bad_version_9, SQUISH_UNSUPPORTED, "GGUF version 9, wanted 2 or 3"},
        {bad_big_endian, SQUISH_UNSUPPORTED, "big-endian"},
        {bad_kv_count, SQUISH_CORRUPT, "kv_count is 18446744073709551615"},
        {bad_kv_count_over_limit, SQUISH_CORRUPT, "kv_count is 70000, at most 65536"},
        {bad_tensor_count, SQUISH_CORRUPT, "tensor_count is 1152921504606846976"},
        {bad_counts_without_bytes, SQUISH_CORRUPT, "kv_count is 1"},
        {bad_key_length, SQUISH_CORRUPT, "key 0 is 70000 bytes long, at most 65535"},
        {bad_key_past_end, SQUISH_CORRUPT, "key 0 is 100 bytes long, 40 remain"},
        {bad_key_empty, SQUISH_CORRUPT, "key 0 is empty"},
        {bad_key_nul, SQUISH_CORRUPT, "key 0 'a?b' is not UTF-8 text"},
        {bad_key_utf8, SQUISH_CORRUPT, "key 0 'a?\?' is not UTF-8 text"},
        {bad_key_twice, SQUISH_CORRUPT, "key 'same' stands there twice"},
        {bad_type, SQUISH_CORRUPT, "'k' has unknown type 13"},
        {bad_bool, SQUISH_CORRUPT, "'k' is a bool of value 2"},
        {bad_bool_in_array, SQUISH_CORRUPT, "'k' is a bool of value 128"},
        {bad_string_length, SQUISH_CORRUPT, "'k' is 18446744073709551615 bytes long, at most 67108864"},
        {bad_string_past_end, SQUISH_CORRUPT, "'k' is 10 bytes long, 3 remain"},
        {bad_array_nested, SQUISH_UNSUPPORTED, "'k' is an array of arrays"},
        {bad_array_type, SQUISH_CORRUPT, "'k' has items of unknown type 77"},
        {bad_array_count, SQUISH_CORRUPT, "'k' has 1099511627776 items, at most 134217728"},
        {bad_array_wraps, SQUISH_CORRUPT, "'k' claims 100000000 items of at least 8 bytes, 64 bytes remain"},
        {bad_array_string, SQUISH_CORRUPT, "'k', item 1 of 2, is 1000 bytes long, 0 remain"},
        {bad_alignment_type, SQUISH_CORRUPT, "'general.alignment' has type 8"},
        {bad_alignment_zero, SQUISH_CORRUPT, "'general.alignment' is 0, wanted a power of two"},
        {bad_alignment_odd, SQUISH_CORRUPT, "'general.alignment' is 48, wanted a power of two"},
        {bad_dim_zero, SQUISH_CORRUPT, "tensor 'blk.0': dimension 0 is 0"},
        {bad_dim_product, SQUISH_CORRUPT, "tensor 'blk.0': the product of its dimensions overflows"},
        {bad_dim_bytes, SQUISH_CORRUPT, "tensor 'blk.0': its size in bytes overflows"},
        {bad_dim_minus_one, SQUISH_CORRUPT, "tensor 'blk.0' takes 18446744073709551615 bytes"},
        {bad_block, SQUISH_CORRUPT, "tensor 'blk.0': 48 columns, not a multiple of 32 (Q4_0)"},
        {bad_k_block, SQUISH_CORRUPT, "tensor 'blk.0': 128 columns, not a multiple of 256 (Q4_K)"},
        {bad_type_removed, SQUISH_UNSUPPORTED, "tensor 'blk.0' has type Q4_2 (id 4)"},
        {bad_type_iq, SQUISH_UNSUPPORTED, "tensor 'blk.0' has type IQ4_XS (id 23)"},
        {bad_type_unknown, SQUISH_UNSUPPORTED, "tensor 'blk.0' has type ? (id 99999)"},
        {bad_offset_alignment, SQUISH_CORRUPT, "tensor 'blk.0' has offset 8, wanted a multiple of 32"},
        {bad_offset_past_end, SQUISH_CORRUPT, "tensor 'blk.0' takes 16 bytes at offset 96"},
        {bad_offset_huge, SQUISH_CORRUPT, "tensor 'blk.0' takes 16 bytes at offset 18446744073709551584"},
        {bad_bytes_past_end, SQUISH_CORRUPT,
         "tensor 'blk.0' takes 68 bytes at offset 0 of the data, the file holds 64"},
        {bad_n_dims, SQUISH_CORRUPT, "tensor 't' has 5 dimensions, wanted 1 to 4"},
        {bad_n_dims_zero, SQUISH_CORRUPT, "tensor 't' has 0 dimensions, wanted 1 to 4"},
        {bad_name_long, SQUISH_CORRUPT, "the name of tensor 0 is 256 bytes long, at most 255"},
        {bad_name_twice, SQUISH_CORRUPT, "tensor 't' stands there twice"},
        {bad_overlap, SQUISH_CORRUPT, "tensor 'two' overlaps tensor 'one'"},
        {bad_same_offset, SQUISH_CORRUPT, "overlaps tensor '"},
        {bad_no_data, SQUISH_CORRUPT, "tensor 't' takes 16 bytes at offset 0 of the data, the file holds 0"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        bytes b = {0};
        cases[i].make(&b);
        sq_gguf *g = (sq_gguf *)1;
        uint8_t *copy;
        squish_error err = {0};
        squish_status st = parse(&b, b.n, &g, &err, &copy);
        if (st != cases[i].code || !strstr(err.text, cases[i].message) || !strstr(err.text, "x.gguf")) {
            fail_msg("case %zu: status %d, '%s', wanted '%s'", i, st, err.text, cases[i].message);
        }
        assert_null(g);
        free(copy);
        drop(&b);
    }
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    bytes b = good_file();
    for (size_t n = 0; n < b.n; n++) {
        sq_gguf *g;
        uint8_t *copy;
        squish_error err = {0};
        assert_int_equal(parse(&b, n, &g, &err, &copy), SQUISH_CORRUPT);
        assert_true(err.text[0] != 0);
        free(copy);
    }
    drop(&b);
}

/* What a parse accepted must stay inside the file. */
static void walk(const sq_gguf *g, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < sq_gguf_n_tensors(g); i++) {
        const sq_ftensor *t = sq_gguf_tensor(g, i);
        assert_true(t->data >= p && t->data <= p + n && t->bytes <= (uint64_t)(p + n - t->data));
    }
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    for (size_t i = 0; i < sq_gguf_n_kv(g); i++) {
        const sq_gguf_kv *kv = sq_gguf_kv_at(g, i);
        assert_true(kv->value.p >= p && kv->value.n <= (size_t)(p + n - kv->value.p));
        if (kv->type != SQ_GGUF_ARRAY || kv->item_type != SQ_GGUF_STRING) continue;
        char name[64] = "";
        if (kv->key.n >= sizeof name) continue;
        memcpy(name, kv->key.p, kv->key.n);
        sq_span *s;
        size_t count;
        assert_int_equal(sq_gguf_strings(g, name, &ar, &s, &count, NULL), SQUISH_OK);
        assert_int_equal(count, kv->count);
        if (count) assert_ptr_equal(s[count - 1].p + s[count - 1].n, kv->value.p + kv->value.n);
    }
    sq_arena_deinit(&ar);
}

static void flipped_bits_are_refused_or_harmless(void **state) {
    (void)state;
    bytes b = good_file();
    size_t header = b.n - 336, refused = 0, total = 0;
    uint64_t seed = 11;
    for (int round = 0; round < 20000; round++) {
        uint8_t *copy = exact(b.p, b.n);
        int flips = round < (int)(8 * header) ? 1 : 1 + round % 4; /* every single bit first */
        for (int k = 0; k < flips; k++) {
            uint64_t bit = flips == 1 && round < (int)(8 * header) ? (uint64_t)round
                                                                   : sq_splitmix64(&seed) % (8 * header);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        sq_gguf *g;
        squish_error err = {0};
        squish_status st = sq_gguf_parse(&g, (sq_span){copy, b.n}, "x.gguf", NULL, &err);
        total++;
        if (st == SQUISH_OK) {
            walk(g, copy, b.n);
        } else {
            assert_true(st == SQUISH_CORRUPT || st == SQUISH_UNSUPPORTED);
            assert_memory_equal(err.text, "x.gguf: ", 8);
            refused++;
        }
        sq_gguf_close(st == SQUISH_OK ? g : NULL);
        free(copy);
    }
    assert_true(refused > total / 3);
    drop(&b);
}

static void names_in_messages_cannot_steer_a_terminal(void **state) {
    (void)state;
    bytes b = {0};
    head(&b, 3, 1, 0);
    info(&b, "\x1b[2J\r", 3, 1, 2, 0);
    add_zero(&b, 64);
    sq_gguf *g;
    uint8_t *copy;
    squish_error err = {0};
    assert_int_equal(parse(&b, b.n, &g, &err, &copy), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "tensor '?[2J?'"));
    free(copy);
    drop(&b);
}

static void opening_reads_a_file_and_reports_a_missing_one(void **state) {
    (void)state;
    scratch dir = scratch_make();
    bytes b = good_file();
    scratch_write(&dir, "m.gguf", b.p, b.n);
    char path[512];
    sq_gguf *g;
    squish_error err = {0};
    assert_int_equal(sq_gguf_open(&g, scratch_path(&dir, path, "m.gguf"), NULL, &err), SQUISH_OK);
    assert_int_equal(sq_gguf_tensor(g, 1)->data[0], 64);
    sq_gguf_close(g);
    assert_int_equal(sq_gguf_open(&g, scratch_path(&dir, path, "none.gguf"), NULL, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "none.gguf"));
    scratch_write(&dir, "empty.gguf", "", 0);
    assert_int_equal(sq_gguf_open(&g, scratch_path(&dir, path, "empty.gguf"), NULL, NULL), SQUISH_CORRUPT);
    sq_gguf_close(NULL);
    scratch_remove(&dir);
    drop(&b);
}

static void real_vocabularies_open(void **state) {
    (void)state;
    const char *data = getenv("SQUISH_TESTDATA");
    if (!data) {
        printf("skipped: real vocabularies need $SQUISH_TESTDATA\n");
        skip();
    }
    static const struct {
        const char *name, *model, *pre;
        size_t n_tokens, n_merges;
    } files[] = {{"gpt-2", "gpt2", "gpt-2", 50257, 50000},
                 {"llama-bpe", "gpt2", "llama-bpe", 128256, 280147},
                 {"llama-spm", "llama", "default", 32000, 0},
                 {"qwen2", "gpt2", "qwen2", 151936, 151387}};
    for (size_t i = 0; i < SQ_COUNT(files); i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-%s.gguf", data, files[i].name);
        sq_gguf *g;
        squish_error err = {0};
        if (sq_gguf_open(&g, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
        sq_span model, *s;
        size_t n;
        sq_arena ar;
        sq_arena_init(&ar, NULL, 1 << 20, 0);
        assert_true(sq_gguf_str(g, "tokenizer.ggml.model", &model));
        assert_int_equal(model.n, strlen(files[i].model));
        assert_memory_equal(model.p, files[i].model, model.n);
        assert_int_equal(sq_gguf_strings(g, "tokenizer.ggml.tokens", &ar, &s, &n, &err), SQUISH_OK);
        assert_int_equal(n, files[i].n_tokens);
        const sq_gguf_kv *types = sq_gguf_get(g, "tokenizer.ggml.token_type");
        assert_non_null(types);
        assert_int_equal(types->count, n);
        assert_int_equal(types->item_type, SQ_GGUF_I32);
        if (files[i].n_merges) {
            assert_int_equal(sq_gguf_strings(g, "tokenizer.ggml.merges", &ar, &s, &n, &err), SQUISH_OK);
            assert_int_equal(n, files[i].n_merges);
        }
        sq_arena_deinit(&ar);
        sq_gguf_close(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_type_reads_back),
        cmocka_unit_test(getters_refuse_other_kinds_and_absent_keys),
        cmocka_unit_test(arrays_are_views_and_string_arrays_come_on_demand),
        cmocka_unit_test(tensors_come_outermost_first_with_checked_data),
        cmocka_unit_test(a_vocabulary_without_tensors_needs_no_padding),
        cmocka_unit_test(bad_files_are_refused_by_name),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(flipped_bits_are_refused_or_harmless),
        cmocka_unit_test(names_in_messages_cannot_steer_a_terminal),
        cmocka_unit_test(opening_reads_a_file_and_reports_a_missing_one),
        cmocka_unit_test(real_vocabularies_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
