/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_blob.c - opening: what is accepted, what is refused and by which words, and questions about
 * tokens. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void tokens_answer_by_id_and_by_bytes(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{"
                                          "\"id\":6,\"content\":"
                                          "\"<|im_end|>\",\"special\":true},{\"id\":4,\"content\":\"<t>\"}],"
                                          "\"model\":{\"vocab\":{"
                                          "\"\xC4\xA0"
                                          "a\":0,\"b\":1,\"\xC3\xA9\":2},\"merges\":[]}}"),
                     SQUISH_OK);
    sq_span s;
    assert_int_equal(sq_tok_count(t.tok), 7);
    assert_true(sq_tok_bytes(t.tok, 0, &s) && s.n == 2 && memcmp(s.p, " a", 2) == 0);
    assert_true(sq_tok_bytes(t.tok, 2, &s) && s.n == 1 &&
                s.p[0] == 0xE9); /* the alphabet's e acute is the byte E9 */
    assert_true(sq_tok_bytes(t.tok, 6, &s) && s.n == 10);
    assert_false(sq_tok_bytes(t.tok, 3, &s)); /* a gap */
    assert_false(sq_tok_bytes(t.tok, -1, &s));
    assert_false(sq_tok_bytes(t.tok, 7, &s));
    assert_int_equal(sq_tok_find(t.tok, " a", 2), 0);
    assert_int_equal(sq_tok_find(t.tok, "<t>", 3), 4);
    assert_int_equal(sq_tok_find(t.tok, "<|im_end|>", 10), 6);
    assert_int_equal(sq_tok_find(t.tok, "a", 1), -1);
    assert_int_equal(sq_tok_find(t.tok, "", 0), -1);
    assert_true(sq_tok_is_control(t.tok, 6) && sq_tok_is_eos(t.tok, 6));
    assert_false(sq_tok_is_control(t.tok, 4) || sq_tok_is_eos(t.tok, 4) || sq_tok_is_control(t.tok, -5));
    assert_int_equal(sq_tok_bos(t.tok), -1);
    assert_int_equal(sq_tok_eos(t.tok), 6);
    sq_test_tok_free(&t);
}

static void equal_vocabularies_have_equal_hashes_and_others_not(void **state) {
    (void)state;
    sq_test_tok a, b, c;
    assert_int_equal(sq_test_tok_base(&a, "byte", NULL), SQUISH_OK);
    assert_int_equal(sq_test_tok_base(&b, "byte", NULL), SQUISH_OK);
    assert_int_equal(sq_test_tok_base(&c, "byte", "{\"normalizer\":{\"type\":\"NFC\"}}"), SQUISH_OK);
    assert_true(sq_tok_hash(a.tok) == sq_tok_hash(b.tok));
    assert_true(sq_tok_hash(a.tok) != sq_tok_hash(c.tok));
    assert_int_equal(a.blob.len, b.blob.len);
    assert_memory_equal(a.blob.data, b.blob.data, a.blob.len);
    sq_test_tok_free(&c);
    sq_test_tok_free(&b);
    sq_test_tok_free(&a);
}

static void a_blob_may_move(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    size_t n = t.blob.len;
    char *copy = malloc(n), a[256], b[256];
    memcpy(copy, t.blob.data, n);
    sq_test_tok_ids(t.tok, "the story 123", 13, 0, a, sizeof a);
    memset(t.blob.data, 0, n);
    sq_test_tok_free(&t);
    sq_tok_view view;
    const sq_tok *moved;
    assert_int_equal(sq_tok_open(&view, (sq_span){(uint8_t *)copy, n}, NULL, &moved, NULL), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(moved, "the story 123", 13, 0, b, sizeof b), a);
    sq_tok_close(moved);
    sq_tok_close(NULL);
    free(copy);
}

static void *refuse(void *user, void *p, size_t old_bytes, size_t new_bytes) {
    (void)user;
    (void)p;
    (void)old_bytes;
    (void)new_bytes;
    fail_msg("opening allocated");
    return NULL;
}

static void opening_allocates_nothing(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    squish_alloc none = {refuse, NULL};
    sq_tok_view view;
    const sq_tok *again;
    sq_span blob = {(uint8_t *)t.blob.data, t.blob.len};
    assert_int_equal(sq_tok_open(&view, blob, &none, &again, NULL), SQUISH_OK);
    sq_tok_close(again);
    sq_test_tok_free(&t);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void open_must_fail(uint8_t *blob, size_t n, const char *words) {
    sq_tok_view view;
    const sq_tok *t;
    squish_error err = {0};
    if (sq_tok_open(&view, (sq_span){blob, n}, NULL, &t, &err) != SQUISH_CORRUPT)
        fail_msg("status %d, wanted a refusal that says '%s'", err.code, words);
    assert_null(t);
    if (!strstr(err.text, words)) fail_msg("'%s' does not say '%s'", err.text, words);
}

/* Each case overwrites four bytes of a sealed blob. */
static void every_broken_field_is_refused_by_name(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    const tok_header *h = t.tok->h;
#define SEC(s) (h->sec[TOK_SEC_##s].offset)
    const struct {
        uint64_t offset;
        uint32_t value;
        const char *words;
    } cases[] = {
        {offsetof(tok_header, magic), 0, "magic"},
        {offsetof(tok_header, version), 2, "version"},
        {offsetof(tok_header, bytes), 64, "size"},
        {offsetof(tok_header, flags), 64, "flag"},
        {offsetof(tok_header, n_tokens), 0, "number of tokens"},
        {offsetof(tok_header, n_tokens), 0xFFFFFFFF, "number of tokens"},
        {offsetof(tok_header, n_tokens), 691, "offsets"},
        {offsetof(tok_header, bos), 5000, "bos"},
        {offsetof(tok_header, unk), 5000, "unk"},
        {offsetof(tok_header, id_bits), 9, "bits"},
        {offsetof(tok_header, id_bits), 40, "bits"},
        {offsetof(tok_header, n_pre), 17, "ops"},
        {offsetof(tok_header, n_eos), 4, "id lists"},
        {offsetof(tok_header, n_prefix), 9, "id lists"},
        {offsetof(tok_header, unit), 5000, "byte 0"},
        {offsetof(tok_header, fallback), 0x80000000, "byte 0"},
        {offsetof(tok_header, sec[TOK_SEC_OPS]), 4, "section 'ops'"},
        {offsetof(tok_header, sec[TOK_SEC_OPS]), 0x7FFFFFF8, "section 'ops'"},
        {offsetof(tok_header, sec[TOK_SEC_POOL]) + 8, 0x7FFFFFF8, "section 'pool'"},
        {offsetof(tok_header, sec[TOK_SEC_POOL]) + 8, 1, "pool"},
        {offsetof(tok_header, sec[TOK_SEC_JOINS]) + 8, 8, "joins"},
        {offsetof(tok_header, sec[TOK_SEC_STRINGS]) + 8, 24, "power of two"},
        {offsetof(tok_header, sec[TOK_SEC_MERGES]) + 8, 32, "power of two"},
        {SEC(OFFSETS), 1, "end of the token bytes"},
        {SEC(OFFSETS) + 40, 0xFFFFFFFF, "backwards"},
        {SEC(RESULTS) + 4, 5000, "no such token"},
        {SEC(RESULTS), 0xFFFFFFFF, "priority"},
        {SEC(ADDED_RAW), 0x7FFFFFFF, "outside the pool"},
        {SEC(ADDED_RAW) + 4, 0, "outside the pool"},
        {SEC(ADDED_RAW) + 8, 5000, "no such token"},
        {SEC(ADDED_RAW) + 16, h->sec[TOK_SEC_POOL].bytes ? t.tok->added[0][0].offset : 0, "not in order"},
        {SEC(OPS), TOK_OP_FORM, "not a step"},
        {SEC(OPS), TOK_OP_KNOWN | 7 << 8, "not a step"},
        {SEC(OPS), TOK_OP_KNOWN | 9 << 16, "not a step"},
        {SEC(OPS), TOK_OP_CLASS, "not a step"},
        {SEC(OPS), TOK_OP_LITERAL, "not a step"},
        {SEC(OPS), TOK_OP_PCRE, "not a step"},
        {SEC(OPS), TOK_OP_COUNT, "not a step"},
        {SEC(OPS) + 12, 0x7FFFFFFF, "not a step"},
        {SEC(IDS), 5000, "no such token"},
    };
#undef SEC
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        uint8_t *copy = malloc(t.blob.len);
        memcpy(copy, t.blob.data, t.blob.len);
        memcpy(copy + cases[i].offset, &cases[i].value, 4);
        tok_blob_seal(copy, t.blob.len);
        open_must_fail(copy, t.blob.len, cases[i].words);
        free(copy);
    }
    sq_test_tok_free(&t);
}

static void a_table_without_a_free_slot_is_refused(void **state) {
    (void)state;
    static const tok_sec tables[] = {TOK_SEC_STRINGS, TOK_SEC_MERGES};
    for (size_t i = 0; i < SQ_COUNT(tables); i++) {
        sq_test_tok t;
        assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
        const tok_section *s = &t.tok->h->sec[tables[i]];
        memset(t.blob.data + s->offset, 0, s->bytes);
        tok_blob_seal((uint8_t *)t.blob.data, t.blob.len);
        open_must_fail((uint8_t *)t.blob.data, t.blob.len, "no free slot");
        sq_test_tok_free(&t);
    }
}

static void every_truncation_and_flipped_bit_is_refused(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    uint8_t *blob = (uint8_t *)t.blob.data;
    sq_tok_view view;
    const sq_tok *again;
    uint64_t seed = 9;
    for (size_t n = 0; n < sizeof(tok_header) + 64; n++)
        assert_int_equal(sq_tok_open(&view, (sq_span){blob, n}, NULL, &again, NULL), SQUISH_CORRUPT);
    for (int i = 0; i < 1000; i++) {
        size_t n = sq_splitmix64(&seed) % t.blob.len;
        assert_int_equal(sq_tok_open(&view, (sq_span){blob, n}, NULL, &again, NULL), SQUISH_CORRUPT);
    }
    for (int i = 0; i < 20000; i++) {
        uint64_t bit = sq_splitmix64(&seed) % (i & 1 ? sizeof(tok_header) * 8 : t.blob.len * 8);
        blob[bit >> 3] ^= (uint8_t)(1u << (bit & 7));
        assert_int_equal(sq_tok_open(&view, (sq_span){blob, t.blob.len}, NULL, &again, NULL), SQUISH_CORRUPT);
        blob[bit >> 3] ^= (uint8_t)(1u << (bit & 7));
    }
    sq_test_tok_free(&t);
}

/* A forger can fix the checksum. Then a blob may be accepted, but must not lead outside itself (see ASan). */
static void forged_blobs_never_lead_outside(void **state) {
    (void)state;
    static const char *const bases[] = {"byte", "spm"};
    static const char text[] = "It's <|eot_id|> the caf\xC3\xA9 \xE2\x96\x81 123  WORD AB \xF0\x9F\x98\x80\n";
    uint64_t seed = 13;
    int accepted = 0;
    for (int i = 0; i < 6000; i++) {
        static sq_test_tok t[2];
        if (i < 2) assert_int_equal(sq_test_tok_base(&t[i], bases[i], NULL), SQUISH_OK);
        const sq_buf *from = &t[i & 1].blob;
        uint8_t *blob = malloc(from->len);
        memcpy(blob, from->data, from->len);
        for (int k = 0; k <= i % 3; k++) {
            uint64_t r = sq_splitmix64(&seed);
            size_t where = (r >> 8) % (r & 3 ? from->len : sizeof(tok_header));
            blob[where] ^= (uint8_t)(1u << (r >> 2 & 7));
        }
        tok_blob_seal(blob, from->len);
        sq_tok_view view;
        const sq_tok *f;
        if (sq_tok_open(&view, (sq_span){blob, from->len}, NULL, &f, NULL) == SQUISH_OK) {
            char out[2048];
            sq_test_tok_ids(f, text, sizeof text - 1, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, out, sizeof out);
            int32_t all[64];
            for (int32_t k = 0; k < 64; k++) all[k] = k * 11;
            sq_test_tok_text(f, all, 64, true, out, sizeof out);
            sq_tok_close(f);
            accepted++;
        }
        free(blob);
        if (i >= 5998) sq_test_tok_free(&t[i & 1]);
    }
    assert_true(accepted > 100); /* the test reaches behind the checks */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_answer_by_id_and_by_bytes),
        cmocka_unit_test(equal_vocabularies_have_equal_hashes_and_others_not),
        cmocka_unit_test(a_blob_may_move),
        cmocka_unit_test(opening_allocates_nothing),
        cmocka_unit_test(every_broken_field_is_refused_by_name),
        cmocka_unit_test(a_table_without_a_free_slot_is_refused),
        cmocka_unit_test(every_truncation_and_flipped_bit_is_refused),
        cmocka_unit_test(forged_blobs_never_lead_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
