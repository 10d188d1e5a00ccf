/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_sqw.c - opening a .sqw: damage is found by the sums, and with the sums made right again by the
 * checks behind them; verification names the tensor; opening is quick and allocates once. */
#include "format/format.h"
#include "support/cpu_clock.h"
#include "support/faults.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Two units, three tensors: a 5000 B and b 100 B in unit 0, c 6000 B in unit 1; a CONF section. 8-byte
 * aligned. */
static uint8_t *file_bytes;
static size_t file_n;

static void add_tensor(sq_sqw_writer *w, const char *name, uint64_t n, uint16_t layer) {
    sq_sqw_tensor t = {.n_dims = 2, .dims = {n, 1}, .layer = layer, .data_bytes = n};
    size_t index;
    assert_int_equal(sq_sqw_writer_tensor(w, name, &t, SQ_UNIT_ATTN, &index, NULL), SQUISH_OK);
}

static void put_all(sq_sqw_writer *w, const uint64_t *sizes, size_t n) {
    for (size_t t = 0; t < n; t++) {
        uint8_t *p = malloc(sizes[t]);
        for (uint64_t i = 0; i < sizes[t]; i++) p[i] = (uint8_t)(i + t);
        assert_int_equal(sq_sqw_writer_put(w, t, 0, p, sizes[t], NULL), SQUISH_OK);
        free(p);
    }
}

static void make_file(const char *path) {
    static const uint64_t sizes[] = {5000, 100, 6000};
    uint64_t total, sum, kept;
    sq_sqw_writer *w;
    assert_int_equal(sqw_new(&w, path, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_CONF, "{\"x\":1}", 7, NULL), SQUISH_OK);
    add_tensor(w, "a", sizes[0], 0);
    add_tensor(w, "b", sizes[1], 0);
    add_tensor(w, "c", sizes[2], 1);
    assert_int_equal(sq_sqw_writer_layout(w, (const uint8_t *)"0123456789abcdef", false, &total, &kept, NULL),
                     SQUISH_OK);
    put_all(w, sizes, 3);
    assert_int_equal(sq_sqw_writer_seal(w, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_publish(w, path, SQ_QUALITY_OK, &sum, NULL), SQUISH_OK);
    sq_sqw_writer_free(w, false);
}

static int set_up(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    make_file(scratch_path(&d, path, "m.sqw"));
    sq_map m;
    assert_int_equal(sq_os_map_open(&m, path, NULL), SQUISH_OK);
    file_n = m.bytes;
    file_bytes = exact(m.data, m.bytes);
    sq_os_map_close(&m);
    scratch_remove(&d);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    free(file_bytes);
    return 0;
}

static squish_status parse(const uint8_t *p, size_t n, squish_error *err) {
    sq_sqw *s = NULL;
    *err = (squish_error){0};
    squish_status st = sq_sqw_parse(&s, (sq_span){p, n}, "dir/m.sqw", NULL, err);
    if (st != SQUISH_OK) assert_null(s);
    sq_sqw_close(s);
    return st;
}

/* The tables of a copy, to damage. */
typedef struct {
    uint8_t *p;
    size_t n;
    sq_sqw_super *super;
    sq_sqw_section *sec;
    sq_sqw_section *tens_sec, *name_sec, *data_sec;
    sq_sqw_tensor *tens;
    sq_sqw_unit *unit;
    char *name;
} view;

static sq_sqw_section *section(view *v, uint32_t fourcc) {
    for (uint32_t i = 0; i < v->super->n_sections; i++) {
        if (v->sec[i].fourcc == fourcc) return &v->sec[i];
    }
    return NULL;
}

static view copy_file(void) {
    view v = {.p = exact(file_bytes, file_n), .n = file_n};
    v.super = (void *)v.p;
    v.sec = (void *)(v.p + v.super->section_table);
    v.tens_sec = section(&v, SQ_SEC_TENS);
    v.name_sec = section(&v, SQ_SEC_NAME);
    v.data_sec = section(&v, SQ_SEC_DATA);
    v.tens = (void *)(v.p + v.tens_sec->offset);
    v.unit = (void *)(v.p + section(&v, SQ_SEC_UNIT)->offset);
    v.name = (char *)v.p + v.name_sec->offset;
    return v;
}

static void the_file_itself_is_valid(void **state) {
    (void)state;
    squish_error err;
    if (parse(file_bytes, file_n, &err) != SQUISH_OK) fail_msg("%s", err.text);
}

/* ---- damage behind right sums ---------------------------------------------------------------- */

#define DAMAGE(name, code)                                                                                   \
    static void name(view *v) { code; }
DAMAGE(no_damage, (void)v)
DAMAGE(magic, v->super->magic[7] = 0x0D)
DAMAGE(zeros, memset(v->p, 0, 4096))
DAMAGE(endian, v->super->endian = 0x04030201)
DAMAGE(major, v->super->major = 2)
DAMAGE(minor, v->super->minor = 40000)
DAMAGE(feature, v->super->incompatible = 1u << 5)
DAMAGE(compatible, v->super->compatible = 1u << 5)
DAMAGE(quality, v->super->quality = 77)
DAMAGE(rank_huge, v->tens[0].rank = 4097)
DAMAGE(rank_too_large, v->tens[0].rank = 1)
DAMAGE(size_less, v->super->file_bytes -= 1)
DAMAGE(size_more, v->super->file_bytes = UINT64_MAX)
DAMAGE(sections_many, v->super->n_sections = 65)
DAMAGE(sections_most, v->super->n_sections = UINT32_MAX)
DAMAGE(tensors_most, v->super->n_tensors = UINT32_MAX)
DAMAGE(units_most, v->super->n_units = 65536)
DAMAGE(tensors_one_more, v->super->n_tensors++)
DAMAGE(tensors_one_less, v->super->n_tensors--)
DAMAGE(units_one_less, v->super->n_units--)
DAMAGE(table_in_super, v->super->section_table = 4088)
DAMAGE(table_odd, v->super->section_table += 4)
DAMAGE(table_far, v->super->section_table = UINT64_MAX - 7)
DAMAGE(table_at_end, v->super->section_table = v->n - 32)
DAMAGE(sec_far, v->sec[0].offset = (uint64_t)1 << 40)
DAMAGE(sec_wraps, v->sec[0].bytes = UINT64_MAX - 63)
DAMAGE(sec_odd, v->sec[0].offset += 8)
DAMAGE(sec_overlap, v->sec[1].offset = v->sec[0].offset)
DAMAGE(sec_in_table, v->sec[0].offset = 4096)
DAMAGE(sec_twice, v->sec[1].fourcc = v->sec[0].fourcc)
DAMAGE(data_odd, v->data_sec->offset += 64)
DAMAGE(data_far, v->data_sec->bytes += 1)
DAMAGE(data_short, v->data_sec->bytes = 16384)
DAMAGE(sums_gone, section(v, SQ_SEC_SUMS)->fourcc = SQ_FOURCC('Z', 'Z', 'Z', 'Z'))
DAMAGE(tens_gone, v->tens_sec->fourcc = SQ_FOURCC('Z', 27, 'Z', 'Z'))
DAMAGE(names_gone, v->name_sec->fourcc = SQ_FOURCC('Z', 'Z', 'Z', 'Z'))
DAMAGE(names_short, v->name_sec->bytes -= 1)
DAMAGE(name_off, v->tens[1].name_off = UINT32_MAX)
DAMAGE(name_len, v->tens[1].name_len = 2)
DAMAGE(name_len_zero, v->tens[1].name_len = 0)
DAMAGE(name_long, v->tens[0].name_len = 256)
DAMAGE(name_no_nul, v->name[1] = 'x')
DAMAGE(name_same, v->name[2] = 'a')
DAMAGE(name_shared, v->tens[2].name_off = 0)
DAMAGE(dims_none, v->tens[0].n_dims = 0)
DAMAGE(dims_five, v->tens[0].n_dims = 5)
DAMAGE(dim_zero, v->tens[0].dims[1] = 0)
DAMAGE(dim_extra, v->tens[0].dims[3] = 1)
DAMAGE(dim_product, v->tens[0].dims[0] = v->tens[0].dims[1] = (uint64_t)1 << 33)
DAMAGE(dim_sign, v->tens[0].dims[0] = (uint64_t)1 << 63)
DAMAGE(off_odd, v->tens[1].data_off += 8)
DAMAGE(off_page, v->tens[2].data_off += 64)
DAMAGE(off_before, v->tens[0].data_off = 0)
DAMAGE(off_overlap, v->tens[1].data_off = v->tens[0].data_off)
DAMAGE(off_wraps, v->tens[1].data_off = UINT64_MAX - 63)
DAMAGE(bytes_zero, v->tens[1].data_bytes = 0)
DAMAGE(bytes_more, v->tens[1].data_bytes += 1)
DAMAGE(bytes_wrap, v->tens[1].data_bytes = UINT64_MAX)
DAMAGE(tensor_unit, v->tens[1].unit = 1)
DAMAGE(unit_kind, v->unit[0].kind = 7)
DAMAGE(unit_odd, v->unit[1].offset += 4096)
DAMAGE(unit_overlap, v->unit[1].offset = v->unit[0].offset)
DAMAGE(unit_outside, v->unit[0].offset = 0)
DAMAGE(unit_far, v->unit[1].offset = (uint64_t)1 << 50)
DAMAGE(unit_bytes, v->unit[1].bytes = UINT64_MAX)
DAMAGE(unit_first, v->unit[1].first_tensor = 0)
DAMAGE(unit_empty, v->unit[0].n_tensors = 0)
DAMAGE(unit_too_many, v->unit[0].n_tensors = UINT32_MAX)
DAMAGE(unit_too_few, v->unit[1].first_tensor = 1; v->unit[0].n_tensors = 1)

static void damage_behind_right_sums_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        void (*damage)(view *);
        squish_status code;
        const char *message;
    } cases[] = {
        {no_damage, SQUISH_OK, ""},
        {minor, SQUISH_OK, ""},
        {compatible, SQUISH_OK, ""},
        {quality, SQUISH_OK, ""},
        {rank_huge, SQUISH_CORRUPT, "rank 4097"},
        {rank_too_large, SQUISH_CORRUPT, "tensor 'a': rank 1 with 5000 bytes"},
        {magic, SQUISH_CORRUPT, "not a .sqw file"},
        {zeros, SQUISH_CORRUPT, "empty superblock: the file was never finished"},
        {endian, SQUISH_UNSUPPORTED, "endian tag 0x04030201, wanted 0x01020304"},
        {major, SQUISH_UNSUPPORTED,
         "format version 2.0, this build reads 1.x; build it again with: squish compress"},
        {feature, SQUISH_UNSUPPORTED, "needs features 0x20"},
        {size_less, SQUISH_CORRUPT, "file_bytes is "},
        {size_more, SQUISH_CORRUPT, "file_bytes is 18446744073709551615, the file has "},
        {sections_many, SQUISH_CORRUPT, "n_sections is 65, at most 64"},
        {sections_most, SQUISH_CORRUPT, "n_sections is 4294967295"},
        {tensors_most, SQUISH_CORRUPT, "n_tensors is 4294967295"},
        {units_most, SQUISH_CORRUPT, "n_units 65536"},
        {tensors_one_more, SQUISH_CORRUPT, "section TENS has 384 bytes, 4 records want 512"},
        {tensors_one_less, SQUISH_CORRUPT, "section TENS has 384 bytes, 2 records want 256"},
        {units_one_less, SQUISH_CORRUPT, "section UNIT has 64 bytes, 1 records want 32"},
        {table_in_super, SQUISH_CORRUPT, "section_table of 6 records at byte 4088"},
        {table_odd, SQUISH_CORRUPT, "section_table of 6 records at byte 4100"},
        {table_far, SQUISH_CORRUPT, "section_table of 6 records at byte 18446744073709551608"},
        {table_at_end, SQUISH_CORRUPT, "section_table of 6 records"},
        {sec_far, SQUISH_CORRUPT, "section CONF takes 7 bytes at byte 1099511627776"},
        {sec_wraps, SQUISH_CORRUPT, "section CONF takes 18446744073709551552 bytes"},
        {sec_odd, SQUISH_CORRUPT, "section CONF begins at byte "},
        {sec_overlap, SQUISH_CORRUPT, "section TENS begins at byte "},
        {sec_in_table, SQUISH_CORRUPT, "section CONF begins at byte 4096, inside what ends at 4288"},
        {sec_twice, SQUISH_CORRUPT, "section CONF stands there twice"},
        {data_odd, SQUISH_CORRUPT, "section DATA begins at byte "},
        {data_far, SQUISH_CORRUPT, "section DATA takes "},
        {data_short, SQUISH_CORRUPT, "unit 1 takes "},
        {sums_gone, SQUISH_CORRUPT, "section SUMS has 0 bytes, 1 records want 8"},
        {tens_gone, SQUISH_CORRUPT, "section TENS has 0 bytes, 3 records want 384"},
        {names_gone, SQUISH_CORRUPT, "tensor 0: name of 1 bytes at byte 0 of NAME, which has 0"},
        {names_short, SQUISH_CORRUPT, "tensor 2: name of 1 bytes at byte 4 of NAME, which has 5"},
        {name_off, SQUISH_CORRUPT, "tensor 1: name of 1 bytes at byte 4294967295 of NAME"},
        {name_len, SQUISH_CORRUPT, "tensor 1: its name does not end at its name_len of 2"},
        {name_len_zero, SQUISH_CORRUPT, "tensor 1: name of 0 bytes"},
        {name_long, SQUISH_CORRUPT, "tensor 0: name of 256 bytes"},
        {name_no_nul, SQUISH_CORRUPT, "tensor 0: its name does not end"},
        {name_same, SQUISH_CORRUPT, "tensor 'a' stands there twice"},
        {name_shared, SQUISH_CORRUPT, "tensor 'a' stands there twice"},
        {dims_none, SQUISH_CORRUPT, "tensor 'a' has 0 dimensions, wanted 1 to 4"},
        {dims_five, SQUISH_CORRUPT, "tensor 'a' has 5 dimensions"},
        {dim_zero, SQUISH_CORRUPT, "tensor 'a': dims[1] is 0 with 2 dimensions"},
        {dim_extra, SQUISH_CORRUPT, "tensor 'a': dims[3] is 1 with 2 dimensions"},
        {dim_product, SQUISH_CORRUPT, "tensor 'a': dims[1] is 8589934592"},
        {dim_sign, SQUISH_CORRUPT, "tensor 'a': dims[0] is 9223372036854775808"},
        {off_odd, SQUISH_CORRUPT, "tensor 'b': 100 bytes at data_off "},
        {off_page, SQUISH_CORRUPT, "wanted a multiple of 4096"},
        {off_before, SQUISH_CORRUPT, "tensor 'a': data_off 0 lies inside what ends at "},
        {off_overlap, SQUISH_CORRUPT, "tensor 'b': data_off "},
        {off_wraps, SQUISH_CORRUPT,
         "tensor 'b': 100 bytes at data_off 18446744073709551552, its unit ends at "},
        {bytes_zero, SQUISH_CORRUPT, "tensor 'b': 0 bytes"},
        {bytes_more, SQUISH_CORRUPT, "tensor 'b': 101 bytes at data_off "},
        {bytes_wrap, SQUISH_CORRUPT, "tensor 'b': 18446744073709551615 bytes"},
        {tensor_unit, SQUISH_CORRUPT, "tensor 'b' names unit 1, unit 0 holds it"},
        {unit_kind, SQUISH_CORRUPT, "unit 0 has kind 7, wanted 0 to 6"},
        {unit_odd, SQUISH_CORRUPT, "unit 1 takes "},
        {unit_overlap, SQUISH_CORRUPT, "unit 1 takes "},
        {unit_outside, SQUISH_CORRUPT, "unit 0 takes "},
        {unit_far, SQUISH_CORRUPT, "unit 1 takes 6000 bytes at byte 1125899906842624"},
        {unit_bytes, SQUISH_CORRUPT, "unit 1 takes 18446744073709551615 bytes"},
        {unit_first, SQUISH_CORRUPT, "unit 1 holds 1 tensors from 0, wanted some from 2 of 3"},
        {unit_empty, SQUISH_CORRUPT, "unit 0 holds 0 tensors"},
        {unit_too_many, SQUISH_CORRUPT, "unit 0 holds 4294967295 tensors"},
        {unit_too_few, SQUISH_CORRUPT, "tensor 'b' names unit 0, unit 1 holds it"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        view v = copy_file();
        squish_error err;
        cases[i].damage(&v);
        bool empty = cases[i].damage == zeros;
        if (!empty) sqw_repair(v.p, v.n);
        squish_status st = parse(v.p, v.n, &err);
        if (st != cases[i].code || !strstr(err.text, cases[i].message)) {
            fail_msg("case %zu: status %d, '%s', wanted '%s'", i, st, err.text, cases[i].message);
        }
        if (st != SQUISH_OK) assert_memory_equal(err.text, "m.sqw: ", 7);
        free(v.p);
    }
}

static void units_that_leave_tensors_over_are_refused(void **state) {
    (void)state;
    view v = copy_file();
    squish_error err;
    v.super->n_units = 1; /* UNIT shortened to fit, so that the tensor of unit 1 belongs to nobody */
    section(&v, SQ_SEC_UNIT)->bytes = sizeof(sq_sqw_unit);
    sqw_repair(v.p, v.n);
    assert_int_equal(parse(v.p, v.n, &err), SQUISH_CORRUPT);
    assert_string_equal(err.text, "m.sqw: units hold 2 tensors of 3");
    free(v.p);
}

/* ---- damage the sums find -------------------------------------------------------------------- */

static void every_flipped_bit_of_the_tables_is_found(void **state) {
    (void)state;
    view v = copy_file();
    squish_error err;
    for (uint32_t i = 0; i <= v.super->n_sections; i++) {
        bool super = i == v.super->n_sections;
        size_t from = super ? 0 : v.sec[i].offset, n = super ? 4096 + i * 32 : v.sec[i].bytes;
        if (!super && v.sec[i].fourcc == SQ_SEC_DATA) continue;
        for (size_t bit = 0; bit < 8 * n; bit++) {
            v.p[from + bit / 8] ^= (uint8_t)(1u << bit % 8);
            squish_status st = parse(v.p, v.n, &err);
            if (st != SQUISH_CORRUPT && st != SQUISH_UNSUPPORTED)
                fail_msg("byte %zu: %d", from + bit / 8, st);
            v.p[from + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    assert_int_equal(parse(v.p, v.n, &err), SQUISH_OK);
    free(v.p);
}

static void flipped_bits_behind_right_sums_are_refused_or_harmless(void **state) {
    (void)state;
    uint64_t seed = 5;
    size_t refused = 0;
    view v = copy_file();
    size_t header = (size_t)v.data_sec->offset;
    for (int round = 0; round < 20000; round++) {
        uint8_t saved[3];
        size_t at[3];
        for (int k = 0; k < 3; k++) {
            uint64_t r = sq_splitmix64(&seed);
            at[k] = 4096 + (size_t)(r >> 8) % (header - 4096);
            if (k == 0 && round % 2) at[k] = (size_t)(r >> 8) % 96;
            saved[k] = v.p[at[k]];
            v.p[at[k]] = round % 3 ? (uint8_t)(saved[k] ^ (1u << r % 8)) : (uint8_t)r;
        }
        sqw_repair(v.p, v.n);
        sq_sqw *s = NULL;
        squish_error err = {0};
        squish_status st = sq_sqw_parse(&s, (sq_span){v.p, v.n}, "m.sqw", NULL, &err);
        refused += st != SQUISH_OK;
        if (st == SQUISH_OK) { /* whatever it says now, it stays inside the file */
            size_t n;
            const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
            for (size_t i = 0; i < n; i++) {
                assert_true(t[i].data_off <= v.n && t[i].data_bytes <= v.n - t[i].data_off);
                assert_int_equal(strlen(sq_sqw_name(s, &t[i])), t[i].name_len);
            }
            sq_sqw_close(s);
        }
        for (int k = 2; k >= 0; k--) v.p[at[k]] = saved[k];
    }
    assert_true(refused > 5000);
    free(v.p);
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    squish_error err;
    for (size_t n = 0; n < file_n; n += n < 8192 ? 1 : 997) {
        uint8_t *p = exact(file_bytes, n);
        assert_int_equal(parse(p, n, &err), SQUISH_CORRUPT);
        free(p);
    }
    uint8_t *longer = malloc(file_n + 1);
    memcpy(longer, file_bytes, file_n);
    assert_int_equal(parse(longer, file_n + 1, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "file_bytes is "));
    free(longer);
}

static void bytes_at_an_odd_address_are_the_callers_mistake(void **state) {
    (void)state;
    uint8_t *p = malloc(file_n + 4);
    squish_error err;
    memcpy(p + 4, file_bytes, file_n);
    assert_int_equal(parse(p + 4, file_n, &err), SQUISH_INVALID);
    free(p);
}

static void a_git_lfs_pointer_is_recognised(void **state) {
    (void)state;
    uint8_t *p = exact("version https://git-lfs.github.com/spec/v1\n", 43);
    squish_error err;
    assert_int_equal(parse(p, 43, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "git lfs pull"));
    free(p);
}

/* ---- verify ---------------------------------------------------------------------------------- */

static bool count_calls(void *user, const char *what, uint64_t done, uint64_t total) {
    assert_string_equal(what, "verify");
    assert_true(done <= total);
    ++*(int *)user;
    return *(int *)user < 100;
}

static void verification_names_the_damaged_tensor(void **state) {
    (void)state;
    view v = copy_file();
    sq_sqw *s;
    squish_error err = {0};
    int calls = 0;
    assert_int_equal(sq_sqw_parse(&s, (sq_span){v.p, v.n}, "m.sqw", NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_verify(s, count_calls, &calls, &err), SQUISH_OK);
    assert_int_equal(calls, 1);
    calls = 99;
    assert_int_equal(sq_sqw_verify(s, count_calls, &calls, &err), SQUISH_CANCELLED);
    for (int i = 0; i < 3; i++) {
        char wanted[64];
        uint8_t *last = v.p + v.tens[i].data_off + v.tens[i].data_bytes - 1;
        *last ^= 1;
        err = (squish_error){0};
        assert_int_equal(sq_sqw_verify(s, NULL, NULL, &err), SQUISH_CORRUPT);
        snprintf(wanted, sizeof wanted, "tensor '%c': checksum is ", 'a' + i);
        assert_memory_equal(err.text, wanted, strlen(wanted));
        *last ^= 1;
    }
    v.p[v.n - 1] ^= 1; /* padding */
    err = (squish_error){0};
    assert_int_equal(sq_sqw_verify(s, NULL, NULL, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "checksum differs between the tensors"));
    sq_sqw_close(s);
    free(v.p);
}

/* ---- cost ------------------------------------------------------------------------------------ */

static void four_hundred_tensors_open_at_once_with_one_allocation(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_sqw_writer *w;
    uint64_t kept, total, sum, sizes[400];
    assert_int_equal(sqw_new(&w, scratch_path(&d, path, "m.sqw"), NULL, NULL), SQUISH_OK);
    for (int i = 0; i < 400; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.self_attn.w%d.weight", i / 12, i % 12);
        sizes[i] = 64 + (uint64_t)i;
        add_tensor(w, name, sizes[i], (uint16_t)(i / 12));
    }
    assert_int_equal(sq_sqw_writer_layout(w, (const uint8_t *)"0123456789abcdef", false, &total, &kept, NULL),
                     SQUISH_OK);
    put_all(w, sizes, 400);
    assert_int_equal(sq_sqw_writer_seal(w, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_publish(w, path, SQ_QUALITY_OK, &sum, NULL), SQUISH_OK);
    sq_sqw_writer_free(w, false);
    struct sq_test_alloc_state a = {0};
    squish_alloc alloc = sq_test_alloc(&a);
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < 20; round++) {
        sq_sqw *s;
        uint64_t t0 = sq_test_cpu_ns();
        assert_int_equal(sq_sqw_open(&s, path, &alloc, NULL), SQUISH_OK);
        uint64_t t = sq_test_cpu_ns() - t0;
        best = t < best ? t : best;
        sq_sqw_close(s);
    }
    assert_int_equal(a.count, 20);
    assert_int_equal(a.live_blocks, 0);
    assert_int_equal(a.wrong_sizes, 0);
    print_message("opened in %.3f ms\n", (double)best / 1e6);
    assert_true(best < 5 * 1000 * 1000); /* 0.05 ms in a plain build; the bound leaves room for sanitizers */
    scratch_remove(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_itself_is_valid),
        cmocka_unit_test(damage_behind_right_sums_is_refused_by_name),
        cmocka_unit_test(units_that_leave_tensors_over_are_refused),
        cmocka_unit_test(every_flipped_bit_of_the_tables_is_found),
        cmocka_unit_test(flipped_bits_behind_right_sums_are_refused_or_harmless),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(bytes_at_an_odd_address_are_the_callers_mistake),
        cmocka_unit_test(a_git_lfs_pointer_is_recognised),
        cmocka_unit_test(verification_names_the_damaged_tensor),
        cmocka_unit_test(four_hundred_tensors_open_at_once_with_one_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
