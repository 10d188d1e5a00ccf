/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_detok.c - streamed text: whole characters only, nothing taken back, the same as in one go. */
#include "support/tok_load.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Ids 0..255 are the bytes; 256 "ab", 257 a control token, 258 a gap, 259 "\xE4\xB8" (no character). */
static void open_bytes(sq_test_tok *t) {
    static char json[16384];
    int n = snprintf(json, sizeof json,
                     "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{\"id\":257,"
                     "\"content\":\"<|x|>\",\"special\":true}],\"model\":{\"merges\":[],\"vocab\":{");
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool self = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        char u[4];
        size_t len = sq_utf8_encode(self ? b : next++, u);
        const char *escape = b == '"' || b == '\\' ? "\\" : "";
        n += snprintf(json + n, sizeof json - (size_t)n, "\"%s%.*s\":%u,", escape, (int)len, u, b);
    }
    snprintf(json + n, sizeof json - (size_t)n, "\"ab\":256,\"\xC3\xA4\xC2\xB8\":259}}}");
    if (sq_test_tok_json(t, json) != SQUISH_OK) fail_msg("%s", t->err.text);
}

static void each_push_gives_what_became_certain(void **state) {
    (void)state;
    sq_test_tok t;
    open_bytes(&t);
    static const struct {
        int32_t id;
        const char *text; /* after the push */
    } steps[] = {
        {'a', "a"},
        {0xC3, "a"},
        {0xA9, "a\xC3\xA9"},
        {256, "a\xC3\xA9"
              "ab"},
        {0xF0, "a\xC3\xA9"
               "ab"},
        {0x9F, "a\xC3\xA9"
               "ab"},
        {0x98, "a\xC3\xA9"
               "ab"},
        {0x80, "a\xC3\xA9"
               "ab\xF0\x9F\x98\x80"},
        {258, "a\xC3\xA9"
              "ab\xF0\x9F\x98\x80"},
        {-1, "a\xC3\xA9"
             "ab\xF0\x9F\x98\x80"},
        {9999, "a\xC3\xA9"
               "ab\xF0\x9F\x98\x80"},
        {257, "a\xC3\xA9"
              "ab\xF0\x9F\x98\x80"},
    };
    sq_buf out;
    sq_buf_init(&out, NULL, 1 << 16);
    sq_detok d;
    sq_detok_init(&d, t.tok, false, true);
    for (size_t i = 0; i < SQ_COUNT(steps); i++) {
        assert_true(sq_detok_push(&d, steps[i].id, &out));
        assert_string_equal(out.data, steps[i].text);
    }
    sq_buf_deinit(&out);
    sq_test_tok_free(&t);
}

static void ill_formed_bytes_become_one_replacement_per_maximal_subpart(void **state) {
    (void)state;
    sq_test_tok t;
    open_bytes(&t);
    static const struct {
        int32_t ids[8];
        size_t n;
        const char *text;
    } cases[] = {
        {{0xFF, 'a'}, 2, "\xEF\xBF\xBD" "a"},
        {{0xE2, 0x82, 'a'}, 3, "\xEF\xBF\xBD" "a"},
        {{0xE2, 0x82}, 2, "\xEF\xBF\xBD"},
        {{0xE2, 0x82, 0xE2, 0x82, 0xAC}, 5, "\xEF\xBF\xBD\xE2\x82\xAC"},
        {{0xED, 0xA0, 0x80}, 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {{0xF0, 0x9F, 0x98, 256}, 4, "\xEF\xBF\xBD" "ab"},
        {{0xF0, 0x9F, 0x98, 0xF0}, 4, "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {{259, 0xAD}, 2, "\xE4\xB8\xAD"},
        {{259, 259, 0xAD}, 3, "\xEF\xBF\xBD\xE4\xB8\xAD"},
        {{0xC3, 257, 0xA9}, 3, "\xC3\xA9"}, /* a hidden control token does not part a character */
    };
    char out[64];
    for (size_t i = 0; i < SQ_COUNT(cases); i++)
        assert_string_equal(sq_test_tok_text(t.tok, cases[i].ids, cases[i].n, false, out, sizeof out),
                            cases[i].text);
    static const int32_t shown[] = {0xC3, 257, 'a'};
    assert_string_equal(sq_test_tok_text(t.tok, shown, 3, true, out, sizeof out), "\xEF\xBF\xBD<|x|>" "a");
    sq_test_tok_free(&t);
}

/* Concatenated bytes of ids, repaired in one go. */
static size_t one_shot(const sq_tok *t, const int32_t *ids, size_t n, char *out) {
    char raw[4096];
    size_t n_raw = 0, n_out = 0;
    for (size_t i = 0; i < n; i++) {
        sq_span s;
        if (!sq_tok_bytes(t, ids[i], &s) || sq_tok_is_control(t, ids[i])) continue;
        memcpy(raw + n_raw, s.p, s.n);
        n_raw += s.n;
    }
    for (size_t i = 0; i < n_raw;) {
        uint32_t cp;
        i += sq_utf8_decode(raw + i, n_raw - i, &cp, NULL);
        n_out += sq_utf8_encode(cp, out + n_out);
    }
    return n_out;
}

static void random_ids_stream_to_the_text_of_one_go_and_every_prefix_is_valid(void **state) {
    (void)state;
    sq_test_tok t[2];
    open_bytes(&t[0]);
    assert_int_equal(sq_test_tok_base(&t[1], "byte", NULL), SQUISH_OK);
    uint64_t seed = 5;
    for (int round = 0; round < 20000; round++) {
        const sq_tok *tok = t[round & 1].tok;
        int32_t ids[24];
        size_t n = sq_splitmix64(&seed) % SQ_COUNT(ids);
        char want[4096];
        sq_buf out;
        sq_buf_init(&out, NULL, 1 << 16);
        sq_detok d;
        sq_detok_init(&d, tok, false, true);
        size_t before = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t r = sq_splitmix64(&seed);
            static const uint8_t likely[] = {0xF0, 0x9F, 0x98, 0x80, 0xE2, 0x82,
                                             0xAC, 0xC3, 0xA9, 0xED, 0xA0, 'a'};
            ids[i] = round & 1 ? (int32_t)(r % (uint64_t)sq_tok_count(tok))
                               : (int32_t)(r & 1 ? likely[(r >> 8) % SQ_COUNT(likely)] : (r >> 8) % 260);
            assert_true(sq_detok_push(&d, ids[i], &out));
            assert_true(out.len >= before && (out.len == 0 || sq_utf8_valid(out.data, out.len)));
            before = out.len;
        }
        assert_true(sq_detok_finish(&d, &out));
        size_t n_want = one_shot(tok, ids, n, want);
        assert_int_equal(out.len, n_want);
        if (n_want) assert_memory_equal(out.data, want, n_want);
        sq_buf_deinit(&out);
    }
    sq_test_tok_free(&t[1]);
    sq_test_tok_free(&t[0]);
}

static void a_full_buffer_is_told_and_loses_nothing(void **state) {
    (void)state;
    sq_test_tok t;
    open_bytes(&t);
    sq_buf out;
    sq_buf_init(&out, NULL, 4);
    sq_detok d;
    sq_detok_init(&d, t.tok, false, true);
    assert_true(sq_detok_push(&d, 0xC3, &out));
    assert_false(sq_detok_push(&d, 256, &out));
    assert_int_equal(d.n_pending, 1);
    assert_int_equal(out.len, 0);
    sq_buf_deinit(&out);
    sq_test_tok_free(&t);
}

static void the_first_space_of_a_sentencepiece_text_goes_once(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "spm", NULL), SQUISH_OK);
    int32_t space = sq_tok_find(t.tok, " ", 1), a = sq_tok_find(t.tok, "a", 1),
            special = sq_tok_find(t.tok, "<s>", 3);
    assert_true(space >= 0 && a >= 0 && special == 1);
    char out[64];
    const int32_t ids[] = {special, space, space, a, space};
    assert_string_equal(sq_test_tok_text(t.tok, ids, 5, false, out, sizeof out), " a ");
    assert_string_equal(sq_test_tok_text(t.tok, ids, 5, true, out, sizeof out), "<s>  a ");
    sq_buf middle;
    sq_buf_init(&middle, NULL, 64);
    sq_detok d;
    sq_detok_init(&d, t.tok, false, false); /* goes on a text that has begun */
    assert_true(sq_detok_push(&d, space, &middle));
    assert_string_equal(middle.data, " ");
    sq_buf_deinit(&middle);
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_push_gives_what_became_certain),
        cmocka_unit_test(ill_formed_bytes_become_one_replacement_per_maximal_subpart),
        cmocka_unit_test(random_ids_stream_to_the_text_of_one_go_and_every_prefix_is_valid),
        cmocka_unit_test(a_full_buffer_is_told_and_loses_nothing),
        cmocka_unit_test(the_first_space_of_a_sentencepiece_text_goes_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
