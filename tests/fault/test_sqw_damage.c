/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sqw_damage.c - a finished .sqw cut short, with bits flipped, and forged with sums made right again:
 * refused with the damage named, or harmless. */
#include "support/fmt_files.h"
#include "support/model_run.h"

#include "model/model.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

typedef struct {
    char dir[64], file[1024], copy[1100];
    uint8_t *p; /* the intact file */
    size_t n;
    int fd; /* of the copy, which is equal to it between tests */
} damage;

static damage *d_of(void **state) { return *state; }

static int build(void **state) {
    damage *d = calloc(1, sizeof *d);
    run x = run_compressed("tests/fixtures/architectures/qwen2", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    snprintf(d->file, sizeof d->file, "%s", info.path);
    snprintf(d->dir, sizeof d->dir, "%s", x.dir);
    x.dir[0] = 0; /* keep it */
    run_close(&x);
    FILE *f = fopen(d->file, "rb");
    d->n = sq_os_file_bytes(d->file);
    d->p = malloc(d->n);
    if (!f || fread(d->p, 1, d->n, f) != d->n) abort();
    fclose(f);
    snprintf(d->copy, sizeof d->copy, "%s/copy.sqw", d->dir);
    d->fd = open(d->copy, O_RDWR | O_CREAT, 0600);
    if (pwrite(d->fd, d->p, d->n, 0) != (ssize_t)d->n) abort();
    *state = d;
    return 0;
}

static int drop_files(void **state) {
    damage *d = *state;
    close(d->fd);
    remove_tree(d->dir);
    free(d->p);
    free(d);
    return 0;
}

static void write_bytes(const damage *d, const void *p, size_t n, size_t at) {
    if (pwrite(d->fd, p, n, (off_t)at) != (ssize_t)n) abort();
}

static squish_status open_copy(const damage *d, bool verify, squish_error *err) {
    squish_model *m = NULL;
    squish_model_options o = squish_model_options_default();
    o.verify = verify;
    *err = (squish_error){0};
    const squish_status st = squish_model_open(&m, d->copy, &o, err);
    assert_true((st == SQUISH_OK) == (m != NULL));
    if (st != SQUISH_OK) assert_true(err->code == st && err->text[0] && !strchr(err->text, '\n'));
    squish_model_close(m);
    return st;
}

/* ---- where things lie ------------------------------------------------------------------------ */

static const sq_sqw_section *sections(const uint8_t *p, uint32_t *n) {
    const sq_sqw_super *sb = (const void *)p;
    *n = sb->n_sections;
    return (const void *)(p + sb->section_table);
}

static sq_sqw_section section(const uint8_t *p, uint32_t fourcc) {
    uint32_t n;
    const sq_sqw_section *s = sections(p, &n);
    for (uint32_t i = 0; i < n; i++)
        if (s[i].fourcc == fourcc) return s[i];
    return (sq_sqw_section){0};
}

/* Is the byte one that opening compares with a sum? Otherwise it is weights or padding between sections. */
static bool is_summed(const uint8_t *p, size_t at) {
    const sq_sqw_super *sb = (const void *)p;
    uint32_t n;
    const sq_sqw_section *s = sections(p, &n);
    if (at < SQ_SQW_PAGE) return true;
    if (at >= sb->section_table && at < sb->section_table + n * sizeof *s) return true;
    for (uint32_t i = 0; i < n; i++)
        if (s[i].fourcc != SQ_SEC_DATA && at >= s[i].offset && at < s[i].offset + s[i].bytes) return true;
    return false;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_file_cut_anywhere_is_refused(void **state) {
    const damage *d = d_of(state);
    uint64_t rng = 3;
    squish_error err;
    for (int i = 0; i < 600; i++) {
        size_t n = i < 100 ? 1 + (size_t)i * 50 : (size_t)(sq_splitmix64(&rng) % d->n);
        if (i == 599) n = d->n - 1;
        assert_int_equal(ftruncate(d->fd, (off_t)n), 0);
        const squish_status st = open_copy(d, false, &err);
        write_bytes(d, d->p + n, d->n - n, n);
        if (st != SQUISH_CORRUPT)
            fail_msg("%zu of %zu bytes: %s: %s", n, d->n, squish_status_name(st), err.text);
    }
    assert_int_equal(ftruncate(d->fd, (off_t)d->n + 1), 0);
    assert_int_equal(open_copy(d, false, &err), SQUISH_CORRUPT); /* a byte too many */
    assert_non_null(strstr(err.text, "file_bytes"));
    assert_int_equal(ftruncate(d->fd, (off_t)d->n), 0);
    assert_int_equal(open_copy(d, true, &err), SQUISH_OK);
}

static void every_flipped_bit_of_the_tables_is_noticed(void **state) {
    const damage *d = d_of(state);
    uint64_t rng = 4;
    int noticed = 0;
    for (int i = 0; i < 5000; i++) {
        const size_t bit = (size_t)(sq_splitmix64(&rng) % (8 * (size_t)(64 << 10))), at = bit / 8;
        const uint8_t byte = d->p[at] ^ (uint8_t)(1u << bit % 8);
        squish_error err;
        write_bytes(d, &byte, 1, at);
        const squish_status st = open_copy(d, false, &err);
        write_bytes(d, d->p + at, 1, at);
        const bool tag = at >= 8 && at < 16; /* byte order and version are read before any sum */
        const squish_status want = !is_summed(d->p, at)              ? SQUISH_OK
                                   : tag && st == SQUISH_UNSUPPORTED ? st
                                                                     : SQUISH_CORRUPT;
        if (st != want) fail_msg("bit %zu: %s: %s", bit, squish_status_name(st), err.text);
        noticed += st != SQUISH_OK;
    }
    print_message("%d of 5000 flips noticed, the others lie in weights or padding\n", noticed);
    assert_true(noticed > 500);
}

static const char *tensor_at(const damage *d, size_t at) {
    const sq_sqw_section tens = section(d->p, SQ_SEC_TENS), names = section(d->p, SQ_SEC_NAME);
    const sq_sqw_tensor *t = (const void *)(d->p + tens.offset);
    for (size_t i = 0; i < tens.bytes / sizeof *t; i++)
        if (at >= t[i].data_off && at < t[i].data_off + t[i].data_bytes)
            return (const char *)d->p + names.offset + t[i].name_off;
    return "between the tensors";
}

static void flipped_weights_are_found_by_verify_and_named(void **state) {
    const damage *d = d_of(state);
    const sq_sqw_section data = section(d->p, SQ_SEC_DATA);
    uint64_t rng = 5;
    for (int i = 0; i < 500; i++) {
        const size_t at = (size_t)(data.offset + sq_splitmix64(&rng) % data.bytes);
        const uint8_t byte = d->p[at] ^ (uint8_t)(1u << i % 8);
        squish_error err;
        write_bytes(d, &byte, 1, at);
        assert_int_equal(open_copy(d, false, &err), SQUISH_OK);
        const squish_status st = open_copy(d, true, &err);
        write_bytes(d, d->p + at, 1, at);
        if (st != SQUISH_CORRUPT || !strstr(err.text, tensor_at(d, at)))
            fail_msg("byte %zu of %s: %s: %s", at, tensor_at(d, at), squish_status_name(st), err.text);
    }
}

/* ---- forged ---------------------------------------------------------------------------------- */

/* The tables of `forged` with all their sums made right, then opened from the file. */
static squish_status open_forged(const damage *d, uint8_t *forged, squish_error *err) {
    sqw_repair(forged, d->n);
    write_bytes(d, forged, d->n, 0);
    return open_copy(d, false, err);
}

static void restore(const damage *d, uint8_t *forged) {
    memcpy(forged, d->p, d->n);
    write_bytes(d, d->p, d->n, 0);
}

static void a_forged_tensor_record_is_refused_by_name(void **state) {
    const damage *d = d_of(state);
    uint8_t *forged = exact(d->p, d->n);
    sq_sqw_tensor *t = (sq_sqw_tensor *)(void *)(forged + section(d->p, SQ_SEC_TENS).offset) + 2;
    const sq_sqw_tensor was = *t;
    const char *q = "model.layers.0.self_attn.q_proj.weight";
    assert_string_equal((char *)d->p + section(d->p, SQ_SEC_NAME).offset + was.name_off, q);
    const struct {
        sq_sqw_tensor t;
        const char *words;
    } forgeries[] = {
#define FORGED(field, value, words)                                                                          \
    {({                                                                                                      \
         sq_sqw_tensor f_ = was;                                                                             \
         f_.field = (value);                                                                                 \
         f_;                                                                                                 \
     }),                                                                                                     \
     words}
        FORGED(role, 7, "stands where"),
        FORGED(layer, 1, "stands where"),
        FORGED(layer, 0xFFFF, "stands where"),
        FORGED(dims[0], was.dims[0] + 1, "the config wants"),
        FORGED(dims[0], 0, "dims[0] is 0"),
        FORGED(dims[0], UINT64_MAX, "dims[0] is"),
        FORGED(dims[1], 1, "the config wants"),
        FORGED(n_dims, 1, "dims[1] is"),
        FORGED(n_dims, 9, "9 dimensions"),
        FORGED(wtype, SQ_W_F32, "weight type 0 with"),
        FORGED(wtype, SQ_W_COUNT, "weight type"),
        FORGED(wtype, 0xFFFF, "weight type 65535"),
        FORGED(scale_type, SQ_SCALE_F32, "scale type 2 with weight type 5"),
        FORGED(scale_type, 77, "scale type 77"),
        FORGED(data_bytes, was.data_bytes - 1, "bytes, wanted"),
        FORGED(data_bytes, 0, "0 bytes at data_off"),
        FORGED(data_bytes, UINT64_MAX, "bytes at data_off"),
        FORGED(data_off, was.data_off + 1, "wanted a multiple of"),
        FORGED(data_off, 0, "lies inside what ends at"),
        FORGED(data_off, UINT64_MAX - 4095, "its unit ends at"),
        FORGED(unit, 9, "names unit 9"),
#undef FORGED
    };
    for (size_t i = 0; i < SQ_COUNT(forgeries); i++) {
        squish_error err;
        *t = forgeries[i].t;
        const squish_status st = open_forged(d, forged, &err);
        restore(d, forged);
        if (st != SQUISH_CORRUPT || !strstr(err.text, q) || !strstr(err.text, forgeries[i].words))
            fail_msg("forgery %zu: %s: %s\n  wanted: %s", i, squish_status_name(st), err.text,
                     forgeries[i].words);
    }
    free(forged);
}

static void a_forged_config_is_refused_by_field(void **state) {
    const damage *d = d_of(state);
    uint8_t *forged = exact(d->p, d->n);
    sq_config *c = (sq_config *)(void *)(forged + section(d->p, SQ_SEC_NCFG).offset);
    const sq_config was = *c;
    const struct {
        sq_config c;
        const char *words;
    } forgeries[] = {
#define FORGED(field, value, words)                                                                          \
    {({                                                                                                      \
         sq_config f_ = was;                                                                                 \
         f_.field = (value);                                                                                 \
         f_;                                                                                                 \
     }),                                                                                                     \
     words}
        FORGED(version, 9, "version 9"),
        FORGED(bytes, 4, "bytes is 4"),
        FORGED(n_layers, INT32_MAX, "num_hidden_layers is 2147483647"),
        FORGED(n_layers, 1, "tensor"),
        FORGED(n_layers, 1024, "tensor"),
        FORGED(hidden, -64, "hidden_size is -64"),
        FORGED(hidden, was.hidden * 2, "the config wants"),
        FORGED(ffn, was.ffn + 1, "the config wants"),
        FORGED(n_heads, 0, "num_attention_heads is 0"),
        FORGED(n_kv_heads, 0, "num_key_value_heads is 0"),
        FORGED(head_dim, 1 << 20, "head_dim is 1048576"),
        FORGED(n_vocab, was.n_vocab + 16, "the config wants"),
        FORGED(ctx, 0, "max_position_embeddings is 0"),
        FORGED(window, -1, "sliding_window is -1"),
        FORGED(activation, 5, "hidden_act is 5"),
        FORGED(n_rope, 3, "rope sets is 3"),
        FORGED(tied, !was.tied, "tensor"),
        FORGED(qkv_bias, 0, "stands where"),
        FORGED(qk_norm, 1, "stands where"),
        FORGED(norm_eps, -1.0f, "norm_eps -1"),
        FORGED(softmax_scale, 0.0f, "softmax scale 0"),
        FORGED(rope[0].theta, 0.0, "rope parameters"),
        FORGED(rope[0].type, 9, "rope parameters"),
#undef FORGED
    };
    for (size_t i = 0; i < SQ_COUNT(forgeries); i++) {
        squish_error err;
        *c = forgeries[i].c;
        const squish_status st = open_forged(d, forged, &err);
        restore(d, forged);
        if (st != SQUISH_CORRUPT || !strstr(err.text, forgeries[i].words))
            fail_msg("forgery %zu: %s: %s\n  wanted: %s", i, squish_status_name(st), err.text,
                     forgeries[i].words);
    }
    free(forged);
}

/* A few tokens with whatever the file says: any status, no crash. */
static void use_copy(const damage *d) {
    squish_model *m = NULL;
    squish_engine *e = NULL;
    squish_seq *s = NULL;
    squish_engine_options o = squish_engine_options_default();
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    o.threads = 1, o.ctx_tokens = 40, o.chunk_tokens = 8;
    squish_status st = squish_model_open(&m, d->copy, NULL, NULL);
    squish_model_info info;
    if (st == SQUISH_OK) squish_model_get_info(m, &info);
    if (st == SQUISH_OK && info.ctx_train < 40) o.ctx_tokens = info.ctx_train;
    if (st == SQUISH_OK) st = squish_engine_new(&e, m, &o, NULL);
    if (st == SQUISH_OK) st = squish_seq_new(&s, e, NULL);
    if (st == SQUISH_OK) st = squish_seq_sync(s, ids, SQ_COUNT(ids), NULL);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
}

static void forged_tables_never_crash_the_engine(void **state) {
    const damage *d = d_of(state);
    static const uint32_t targets[] = {SQ_SEC_NCFG, SQ_SEC_TENS, SQ_SEC_UNIT, SQ_SEC_NAME, SQ_SEC_SUMS, 0, 1};
    uint8_t *forged = exact(d->p, d->n);
    uint64_t rng = 6;
    int ran = 0;
    for (int i = 0; i < 4000; i++) {
        const uint32_t target = targets[(size_t)i % SQ_COUNT(targets)];
        sq_sqw_section s = section(d->p, target);
        if (target == 0) s = (sq_sqw_section){.offset = 0, .bytes = 128};
        if (target == 1) {
            s.offset = ((const sq_sqw_super *)(const void *)d->p)->section_table;
            s.bytes = ((const sq_sqw_super *)(const void *)d->p)->n_sections * sizeof s;
        }
        const size_t at = (size_t)(s.offset + sq_splitmix64(&rng) % s.bytes);
        forged[at] = i % 2 ? forged[at] ^ (uint8_t)(1u << i / 2 % 8) : (uint8_t)sq_splitmix64(&rng);
        squish_error err;
        if (open_forged(d, forged, &err) == SQUISH_OK) {
            use_copy(d);
            ran++;
        }
        restore(d, forged);
    }
    print_message("%d of 4000 forgeries were opened and run\n", ran);
    assert_true(ran > 20);
    free(forged);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(every_flipped_bit_of_the_tables_is_noticed),
        cmocka_unit_test(flipped_weights_are_found_by_verify_and_named),
        cmocka_unit_test(a_forged_tensor_record_is_refused_by_name),
        cmocka_unit_test(a_forged_config_is_refused_by_field),
        cmocka_unit_test(forged_tables_never_crash_the_engine),
    };
    return cmocka_run_group_tests(tests, build, drop_files);
}
