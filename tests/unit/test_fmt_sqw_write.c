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

/* A writer with everything declared and laid out, resumed if there is something to go on with. */
static sq_sqw_writer *laid_out_as(const char *path, const char *conf, bool resume, uint64_t *kept) {
    sq_sqw_writer *w;
    uint64_t total;
    size_t index;
    squish_error err = {0};
    assert_int_equal(sqw_new(&w, path, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_CONF, conf, strlen(conf), &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_late(w, SQ_SEC_FIDL, 1000, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_RECP, "", 0, &err), SQUISH_OK);
    for (size_t i = 0; i < N_TENSORS; i++) {
        sq_sqw_tensor t = record(10, 20, tensors[i].n, tensors[i].layer);
        assert_int_equal(sq_sqw_writer_tensor(w, tensors[i].name, &t, tensors[i].kind, &index, &err),
                         SQUISH_OK);
        assert_int_equal(index, i);
    }
    if (sq_sqw_writer_layout(w, source_id, resume, &total, kept, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_true(total > 5 << 20 && total < 6 << 20 && total % SQ_SQW_UNIT_ALIGN == 0);
    return w;
}

static sq_sqw_writer *laid_out(const char *path) {
    uint64_t kept;
    sq_sqw_writer *w = laid_out_as(path, "{\"a\":1}", false, &kept);
    assert_int_equal(kept, 0);
    return w;
}

/* Put tensor t whole, say that it is done, with its index as the note. */
static void put_done(sq_sqw_writer *w, size_t t) {
    squish_error err = {0};
    put_pattern(w, t, 0, tensors[t].n);
    assert_int_equal(sq_sqw_writer_source_sum(w, t, 1000 + t, &err), SQUISH_OK);
    if (sq_sqw_writer_tensor_done(w, t, &t, sizeof t, &err) != SQUISH_OK) fail_msg("%s", err.text);
}

static uint64_t seal_and_publish(sq_sqw_writer *w, const char *path) {
    squish_error err = {0};
    uint64_t sum = 0;
    if (sq_sqw_writer_seal(w, &err) != SQUISH_OK) fail_msg("%s", err.text);
    if (sq_sqw_writer_publish(w, path, SQ_QUALITY_DEGRADED, &sum, &err) != SQUISH_OK)
        fail_msg("%s", err.text);
    sq_sqw_writer_free(w, true);
    return sum;
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
    assert_string_equal(names, "m.sqw.journal m.sqw.partial ");
    super_sum = seal_and_publish(w, path);
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw ");

    sq_sqw *s;
    if (sq_sqw_open(&s, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_true(sq_sqw_super_sum(s) == super_sum);
    assert_int_equal(sq_sqw_quality(s), SQ_QUALITY_DEGRADED);
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
    for (size_t t = 0; t < N_TENSORS; t++) put_pattern(w, t, 0, tensors[t].n);
    seal_and_publish(w, path);
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
    uint64_t total, kept;
    squish_error err = {0};
    assert_int_equal(sqw_new(&w, scratch_path(&d, path, "m.sqw"), NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_section(w, SQ_SEC_TOKZ, "tok", 3, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err), SQUISH_OK);
    seal_and_publish(w, path);
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
        sums[i] = seal_and_publish(w, path);
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
    uint64_t total, kept;
    size_t index;
    sq_sqw_tensor t = record(1, 1, 10, 0);
#define REFUSED(expr, message)                                                                               \
    do {                                                                                                     \
        err = (squish_error){0};                                                                             \
        assert_int_equal(expr, SQUISH_INVALID);                                                              \
        if (!strstr(err.text, message)) fail_msg("'%s', wanted '%s'", err.text, message);                    \
    } while (0)
    assert_int_equal(sqw_new(&w, scratch_path(&d, path, "m.sqw"), NULL, &err), SQUISH_OK);
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
    assert_int_equal(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err),
            "layout is called while filling after the layout");
    REFUSED(sq_sqw_writer_tensor(w, "u", &t, SQ_UNIT_MISC, &index, &err), "tensor is called while filling");
    REFUSED(sq_sqw_writer_put(w, 1, 0, "x", 1, &err), "put into tensor 1 of 1");
    REFUSED(sq_sqw_writer_put(w, 0, 8, "xyz", 3, &err), "tensor 't': put of 3 bytes at 8 of 10");
    REFUSED(sq_sqw_writer_put(w, 0, UINT64_MAX, "xyz", 3, &err), "tensor 't': put of 3 bytes");
    REFUSED(sq_sqw_writer_late_put(w, SQ_SEC_FIDL, "12345", 5, &err),
            "section FIDL: 5 bytes, 4 were reserved");
    REFUSED(sq_sqw_writer_late_put(w, SQ_SEC_CONF, "1", 1, &err), "section CONF was not declared late");
    assert_int_equal(sq_sqw_writer_put(w, 0, 0, "abc", 3, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_tensor_done(w, 0, "", 513, &err), "a note of 513 bytes");
    REFUSED(sq_sqw_writer_tensor_done(w, 0, "", 0, &err), "tensor 't': done too early, 3 of 10 bytes");
    REFUSED(sq_sqw_writer_publish(w, path, SQ_QUALITY_OK, &total, &err), "publish is called while filling");
    REFUSED(sq_sqw_writer_seal(w, &err), "tensor 't': 3 bytes were put, it has 10");
    assert_int_equal(sq_sqw_writer_put(w, 0, 3, "defghij", 7, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor_done(w, 0, "", 0, &err), SQUISH_OK);
    REFUSED(sq_sqw_writer_tensor_done(w, 0, "", 0, &err), "tensor 't': done twice");
    REFUSED(sq_sqw_writer_put(w, 0, 0, "x", 1, &err), "tensor 't': put after it was done");
    sq_sqw_writer_free(w, false);
    char names[1024];
    scratch_list(&d, names);
    assert_string_equal(names, ""); /* nothing appeared, nothing is left */

    assert_int_equal(sqw_new(&w, path, NULL, &err), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "same", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "other", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "same", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    REFUSED(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err),
            "tensor 'same' is declared twice");
    sq_sqw_writer_free(w, false);
    sq_sqw_writer_free(NULL, true);
    scratch_remove(&d);
}

static void an_abandoned_file_keeps_the_old_one(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    scratch_text(&d, "m.sqw", "old");
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    put_pattern(w, 0, 0, 100);
    sq_sqw_writer_free(w, false);
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
    sq_sqw_writer_free(w, false);
    scratch_remove(&d);
}

/* ---- crash and resume ------------------------------------------------------------------------ */

static uint64_t whole_sum(const scratch *d) {
    char path[512];
    sq_sqw_writer *w = laid_out(scratch_path(d, path, "whole.sqw"));
    for (size_t t = 0; t < N_TENSORS; t++) put_done(w, t);
    return seal_and_publish(w, path);
}

/* Three sessions: two batches are kept, and the file is the same as one made at once. */
static void what_was_done_need_not_be_put_again(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    uint64_t kept, wanted = whole_sum(&d);
    scratch_path(&d, path, "m.sqw");
    sq_sqw_writer *w = laid_out(path);
    put_done(w, 4);
    put_done(w, 0);
    put_pattern(w, 2, 0, 100); /* not done: lost */
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    assert_int_equal(kept, tensors[4].n + tensors[0].n);
    put_done(w, 6);
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    assert_int_equal(kept, tensors[4].n + tensors[0].n + tensors[6].n);
    for (size_t t = 0; t < N_TENSORS; t++) {
        bool has = t == 4 || t == 0 || t == 6;
        size_t n;
        const void *note = sq_sqw_writer_note(w, t, &n);
        assert_int_equal(sq_sqw_writer_has(w, t), has);
        assert_int_equal(n, has ? sizeof t : 0);
        if (has) assert_memory_equal(note, &t, sizeof t);
        if (!has) put_done(w, t);
    }
    assert_true(seal_and_publish(w, path) == wanted);
    scratch_list(&d, names);
    assert_string_equal(names, "m.sqw whole.sqw ");
    scratch_remove(&d);
}

static bytes slurp(const char *path) {
    sq_map m;
    assert_int_equal(sq_os_map_open(&m, path, NULL), SQUISH_OK);
    bytes b = {0};
    add(&b, m.data, m.bytes);
    sq_os_map_close(&m);
    return b;
}

/* Whatever happens to the journal, the tensors it still vouches for are right and the result is the same. */
static void a_cut_or_damaged_journal_only_costs_work(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    uint64_t kept, wanted = whole_sum(&d), most = 0;
    scratch_path(&d, path, "m.sqw");
    sq_sqw_writer *w = laid_out(path);
    for (size_t t = 0; t < 3; t++) put_done(w, t);
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    for (size_t t = 3; t < 6; t++) put_done(w, t);
    sq_sqw_writer_free(w, true);
    char other[512];
    bytes partial = slurp(scratch_path(&d, other, "m.sqw.partial"));
    bytes journal = slurp(scratch_path(&d, other, "m.sqw.journal"));
    assert_int_equal(journal.n, 64 + 6 * 48);
    for (size_t i = 0; i < 2 * journal.n; i += 7) {
        bool cut = i < journal.n;
        bytes bad = {0};
        add(&bad, journal.p, cut ? i : journal.n);
        if (!cut) bad.p[i - journal.n] ^= 0x10;
        scratch_write(&d, "m.sqw.partial", partial.p, partial.n);
        scratch_write(&d, "m.sqw.journal", bad.p, bad.n);
        drop(&bad);
        w = laid_out_as(path, "{\"a\":1}", true, &kept);
        size_t upto = (i % journal.n < 64) ? 0 : (i % journal.n - 64) / 48;
        uint64_t want_kept = 0;
        for (size_t t = 0; t < upto; t++) want_kept += tensors[t].n;
        assert_int_equal(kept, want_kept);
        if (kept > most) most = kept;
        if (i % 5 == 0) {
            for (size_t t = 0; t < N_TENSORS; t++) {
                if (!sq_sqw_writer_has(w, t)) put_done(w, t);
            }
            assert_true(seal_and_publish(w, path) == wanted);
            unlink(path);
        } else {
            sq_sqw_writer_free(w, false);
        }
    }
    assert_true(most > 10000);
    drop(&partial);
    drop(&journal);
    scratch_remove(&d);
}

/* The disk lost bytes of the last batch: that tensor is not kept, nor what the journal says after it. */
static void the_last_batch_is_compared_with_the_data(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], partial[600];
    uint64_t kept, wanted = whole_sum(&d);
    scratch_path(&d, path, "m.sqw");
    snprintf(partial, sizeof partial, "%s.partial", path);
    sq_sqw_writer *w = laid_out(path);
    for (size_t t = 0; t < 3; t++) put_done(w, t);
    sq_sqw_writer_free(w, true);
    bytes b = slurp(partial);
    size_t at = 0; /* tensor 2 by its first bytes; it lies on a page */
    while (b.p[at] != pattern(2, 0) || b.p[at + 1] != pattern(2, 1)) at += SQ_SQW_PAGE;
    b.p[at + 8999] ^= 1;
    scratch_write(&d, "m.sqw.partial", b.p, b.n);
    drop(&b);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    assert_int_equal(kept, tensors[0].n + tensors[1].n);
    assert_false(sq_sqw_writer_has(w, 2));
    for (size_t t = 2; t < N_TENSORS; t++) put_done(w, t);
    assert_true(seal_and_publish(w, path) == wanted);
    scratch_remove(&d);
}

/* Bytes that change between done and seal are found, and the next attempt begins afresh. */
static void damage_before_the_seal_is_found(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], partial[600];
    uint64_t kept;
    scratch_path(&d, path, "m.sqw");
    snprintf(partial, sizeof partial, "%s.partial", path);
    sq_sqw_writer *w = laid_out(path);
    for (size_t t = 0; t < N_TENSORS; t++) put_done(w, t);
    FILE *f = fopen(partial, "r+b");
    fseek(f, -(1 << 20), SEEK_END); /* inside 'head' */
    fputc(0xEE, f);
    fputc(0x77, f);
    fclose(f);
    squish_error err = {0};
    assert_int_equal(sq_sqw_writer_seal(w, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "tensor 'head': reads back"));
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    assert_int_equal(kept, 0);
    sq_sqw_writer_free(w, false);
    scratch_remove(&d);
}

static void another_layout_or_source_begins_anew(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    uint64_t kept;
    sq_sqw_writer *w = laid_out(scratch_path(&d, path, "m.sqw"));
    put_done(w, 0);
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":2}", true, &kept); /* same size, another recipe */
    assert_int_equal(kept, 0);
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", true, &kept); /* the old journal must be gone */
    assert_int_equal(kept, 0);
    put_done(w, 1);
    squish_error err = {0};
    sq_sqw_writer *second; /* while one is at work */
    uint64_t total;
    assert_int_equal(sqw_new(&second, path, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(second, source_id, true, &total, &kept, &err), SQUISH_BUSY);
    assert_non_null(strstr(err.text, "is held"));
    sq_sqw_writer_free(second, false);
    sq_sqw_writer_free(w, true);
    w = laid_out_as(path, "{\"a\":1}", false, &kept); /* not asked to resume */
    assert_int_equal(kept, 0);
    sq_sqw_writer_free(w, false);
    scratch_remove(&d);
}

/* Sealed, then killed before it was published: all is kept, and meanwhile the old file stays. */
static void a_sealed_file_can_be_opened_and_resumed(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], partial[600];
    uint64_t kept, sum, wanted = whole_sum(&d), all = 0;
    scratch_text(&d, "m.sqw", "old");
    scratch_path(&d, path, "m.sqw");
    snprintf(partial, sizeof partial, "%s.partial", path);
    sq_sqw_writer *w = laid_out(path);
    for (size_t t = 0; t < N_TENSORS; t++) put_done(w, t), all += tensors[t].n;
    squish_error err = {0};
    if (sq_sqw_writer_seal(w, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_sqw *s;
    if (sq_sqw_open(&s, partial, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_sqw_quality(s), SQ_QUALITY_UNVERIFIED);
    assert_int_equal(sq_sqw_verify(s, NULL, NULL, NULL), SQUISH_OK);
    sq_sqw_close(s);
    assert_int_equal(sq_sqw_writer_publish(w, d.path, SQ_QUALITY_OK, &sum, &err), SQUISH_IO);
    sq_sqw_writer_free(w, true);
    assert_int_equal(sq_os_file_bytes(path), 3);
    w = laid_out_as(path, "{\"a\":1}", true, &kept);
    assert_int_equal(kept, all);
    assert_int_equal(sq_sqw_open(&s, partial, NULL, NULL), SQUISH_CORRUPT); /* not whole until sealed again */
    assert_true(seal_and_publish(w, path) == wanted);
    scratch_remove(&d);
}

static void a_file_larger_than_the_disk_is_refused_at_layout(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512], names[1024];
    sq_sqw_writer *w;
    uint64_t total, kept;
    size_t index;
    squish_error err = {0};
    sq_sqw_tensor t = record(1, 1, (uint64_t)1 << 60, 0);
    assert_int_equal(sqw_new(&w, scratch_path(&d, path, "m.sqw"), NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err), SQUISH_NO_SPACE);
    sq_sqw_writer_free(w, false);
    assert_int_equal(sqw_new(&w, path, NULL, NULL), SQUISH_OK);
    t.data_bytes = UINT64_MAX - 5;
    assert_int_equal(sq_sqw_writer_tensor(w, "t", &t, SQ_UNIT_MISC, &index, NULL), SQUISH_OK);
    assert_int_equal(sq_sqw_writer_layout(w, source_id, false, &total, &kept, &err), SQUISH_INVALID);
    sq_sqw_writer_free(w, false);
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
        cmocka_unit_test(what_was_done_need_not_be_put_again),
        cmocka_unit_test(a_cut_or_damaged_journal_only_costs_work),
        cmocka_unit_test(the_last_batch_is_compared_with_the_data),
        cmocka_unit_test(damage_before_the_seal_is_found),
        cmocka_unit_test(another_layout_or_source_begins_anew),
        cmocka_unit_test(a_sealed_file_can_be_opened_and_resumed),
        cmocka_unit_test(a_file_larger_than_the_disk_is_refused_at_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
