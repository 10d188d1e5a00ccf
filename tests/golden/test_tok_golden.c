/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_golden.c - ids and decoded text equal to independent tokenizers.
 *
 * Reference one: Hugging Face tokenizers, on the cases and the small tokenizers of tests/golden/tok (see
 * make_golden.py there) and on the shipped model. Reference two: the vocabularies of $SQUISH_TESTDATA,
 * with the ids llama.cpp's test set gives for them. */
#include "support/tok_load.h"

#include "format/format.h"
#include "format/json.h"
#include "model/model_text.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIR "tests/golden/tok/"
#define LEN(a) (int)(sizeof(a) / sizeof((a)[0]))

static json_t *load_json(const char *path) {
    size_t n;
    char *s = sq_test_slurp(path, &n);
    if (!s) fail_msg("cannot read %s (tests run from the project root)", path);
    json_t *j = NULL;
    squish_error err = {0};
    if (sq_json_parse(s, n, SQ_JSON_DEPTH, path, &j, &err) != SQUISH_OK) fail_msg("%s", err.text);
    free(s);
    return j;
}

/* Bytes of a string of hex digits, NUL-terminated, from malloc. */
static char *unhex(const json_t *v, size_t *n) {
    const char *h = json_string_value(v);
    *n = json_string_length(v) / 2;
    char *out = malloc(*n + 1);
    for (size_t i = 0; i < *n; i++) {
        unsigned byte = 0;
        sscanf(h + 2 * i, "%2x", &byte);
        out[i] = (char)byte;
    }
    out[*n] = '\0';
    return out;
}

static void check_ids(const char *what, size_t i_case, const sq_tok *t, const char *text, size_t n,
                      unsigned flags, const json_t *want) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    int32_t *ids;
    size_t n_ids;
    squish_error err = {0};
    if (sq_tok_encode(t, text, n, flags, &ar, &ids, &n_ids, &err) != SQUISH_OK)
        fail_msg("%s, case %zu: %s", what, i_case, err.text);
    for (size_t i = 0; i < n_ids || i < json_array_size(want); i++) {
        long long w = i < json_array_size(want) ? json_integer_value(json_array_get(want, i)) : -1;
        long long g = i < n_ids ? ids[i] : -1;
        if (w != g)
            fail_msg("%s, case %zu '%.60s': id %zu is %lld, wanted %lld", what, i_case, text, i, g, w);
    }
    sq_arena_deinit(&ar);
}

/* Decode the expected ids; the text must be the reference's. */
static void check_text(const char *what, size_t i_case, const sq_tok *t, const json_t *ids, const char *want,
                       size_t n) {
    sq_buf out;
    sq_buf_init(&out, NULL, 1 << 20);
    sq_detok d;
    sq_detok_init(&d, t, false, true);
    for (size_t i = 0; i < json_array_size(ids); i++)
        assert_true(sq_detok_push(&d, (int32_t)json_integer_value(json_array_get(ids, i)), &out));
    assert_true(sq_detok_finish(&d, &out));
    if (out.len != n || (n && memcmp(out.data, want, n) != 0))
        fail_msg("%s, case %zu: decodes to '%s', wanted '%s'", what, i_case, out.data ? out.data : "", want);
    sq_buf_deinit(&out);
}

static char *repaired(const char *s, size_t n, size_t *out_n) {
    char *out = malloc(3 * n + 1);
    *out_n = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += sq_utf8_decode(s + i, n - i, &cp, NULL);
        *out_n += sq_utf8_encode(cp, out + *out_n);
    }
    out[*out_n] = '\0';
    return out;
}

static void check_cases(const char *name, const sq_tok *t) {
    char path[256];
    snprintf(path, sizeof path, DIR "ids/%s.json", name);
    json_t *golden = load_json(path), *cases = load_json(DIR "cases.json");
    const json_t *plain = json_object_get(golden, "plain");
    assert_int_equal(json_array_size(plain), json_array_size(cases));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        size_t n, n_want;
        char *text = unhex(json_array_get(cases, i), &n);
        const json_t *want = json_array_get(plain, i),
                     *special = json_object_get(json_object_get(golden, "special"), key);
        const json_t *affixed = json_object_get(json_object_get(golden, "affixed"), key);
        const json_t *decoded = json_object_get(json_object_get(golden, "decoded"), key);
        check_ids(name, i, t, text, n, 0, want);
        check_ids(name, i, t, text, n, SQ_TOK_SPECIAL, special ? special : want);
        if (affixed) check_ids(name, i, t, text, n, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, affixed);
        char *back = decoded ? unhex(decoded, &n_want) : repaired(text, n, &n_want);
        check_text(name, i, t, want, back, n_want);
        free(back);
        free(text);
    }
    json_decref(cases);
    json_decref(golden);
}

static void every_variant_gives_the_ids_and_text_of_the_reference(void **state) {
    (void)state;
    json_t *variants = load_json(DIR "variants.json");
    assert_true(json_array_size(variants) >= 18);
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const json_t *v = json_array_get(variants, i);
        const char *name = json_string_value(json_object_get(v, "name"));
        char path[256];
        snprintf(path, sizeof path, DIR "bases/%s.json", json_string_value(json_object_get(v, "base")));
        json_t *j = load_json(path);
        json_object_update(j, json_object_get(v, "patch"));
        char *text = json_dumps(j, JSON_COMPACT);
        sq_test_tok t;
        if (sq_test_tok_json(&t, text) != SQUISH_OK) fail_msg("%s: %s", name, t.err.text);
        assert_int_equal(t.n_warnings, strcmp(name, "unknown-regex") == 0);
        check_cases(name, t.tok);
        sq_test_tok_free(&t);
        free(text);
        json_decref(j);
    }
    json_decref(variants);
}

static void load_tiny(sq_test_tok *t) {
    size_t n[4];
    static const char *const paths[4] = {
        "models/squish-tiny/tokenizer.json", "models/squish-tiny/tokenizer_config.json",
        "models/squish-tiny/generation_config.json", "models/squish-tiny/config.json"};
    char *file[4];
    for (int i = 0; i < 4; i++) {
        file[i] = sq_test_slurp(paths[i], &n[i]);
        if (!file[i]) fail_msg("cannot read %s", paths[i]);
    }
    sq_tok_hf_source src = {{(uint8_t *)file[0], n[0]},
                            {(uint8_t *)file[1], n[1]},
                            {(uint8_t *)file[2], n[2]},
                            {(uint8_t *)file[3], n[3]},
                            NULL};
    if (sq_test_tok_hf(t, &src) != SQUISH_OK) fail_msg("%s", t->err.text);
    for (int i = 0; i < 4; i++) free(file[i]);
}

static void the_shipped_model_gives_the_ids_of_the_reference(void **state) {
    (void)state;
    sq_test_tok t;
    load_tiny(&t);
    check_cases("squish-tiny", t.tok);
    assert_int_equal(sq_tok_count(t.tok), 12288);
    assert_int_equal(sq_tok_eos(t.tok), 12281);
    assert_true(sq_tok_is_eos(t.tok, 12279));
    assert_false(sq_tok_is_eos(t.tok, 12280));
    assert_int_equal(sq_tok_bos(t.tok), -1); /* tokenizer_config.json says null */
    assert_true(sq_tok_is_control(t.tok, 12280));
    assert_false(sq_tok_is_control(t.tok, 12282)); /* <tool_call> */
    sq_test_tok_free(&t);
}

static void own_prose_gives_the_ids_of_the_reference(void **state) {
    (void)state;
    sq_test_tok t;
    load_tiny(&t);
    size_t n, n_golden;
    char *prose = sq_test_slurp("tests/fixtures/own-prose.txt", &n),
         *golden = sq_test_slurp(DIR "own-prose.ids", &n_golden);
    assert_non_null(prose);
    assert_non_null(golden);
    sq_arena ar;
    sq_arena_init(&ar, NULL, 1 << 16, 0);
    int32_t *ids;
    size_t n_ids, i = 0;
    assert_int_equal(sq_tok_encode(t.tok, prose, n, 0, &ar, &ids, &n_ids, NULL), SQUISH_OK);
    for (char *at = golden, *end; ; at = end, i++) {
        long want = strtol(at, &end, 10);
        if (end == at) break;
        assert_true(i < n_ids);
        assert_int_equal(ids[i], want);
    }
    assert_int_equal(i, n_ids);
    sq_arena_deinit(&ar);
    free(golden);
    free(prose);
    sq_test_tok_free(&t);
}

/* ---- real vocabularies ----------------------------------------------------------------------- */

static const char *testdata(void) {
    const char *dir = getenv("SQUISH_TESTDATA");
    if (!dir || !*dir) {
        print_message("skipped: SQUISH_TESTDATA is not set\n");
        skip();
    }
    return dir;
}

/* Compile DIR/fixtures/tokenizers/ggml-vocab-NAME.gguf. */
static void load_gguf(sq_test_tok *t, const char *dir, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-%s.gguf", dir, name);
    sq_gguf *g;
    squish_error err = {0};
    memset(t, 0, sizeof *t);
    sq_buf_init(&t->blob, NULL, SIZE_MAX / 4);
    if (sq_gguf_open(&g, path, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    if (sq_model_tok_from_gguf(g, NULL, &t->blob, NULL, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_gguf_close(g);
    if (sq_tok_open(&t->view, (sq_span){(uint8_t *)t->blob.data, t->blob.len}, NULL, &t->tok, &err) !=
        SQUISH_OK)
        fail_msg("%s", err.text);
}

static int check_gguf_cases(const char *dir, const char *name, const sq_tok *t) {
    static const char separator[] = "\n__ggml_vocab_test__\n";
    char path[1024];
    size_t n;
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-%s.gguf.inp", dir, name);
    char *inputs = sq_test_slurp(path, &n);
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-%s.gguf.out", dir, name);
    char *outputs = sq_test_slurp(path, &n);
    assert_non_null(inputs);
    assert_non_null(outputs);
    int n_cases = 0;
    char *line = outputs;
    for (char *text = inputs, *end; (end = strstr(text, separator)) != NULL;
         text = end + sizeof separator - 1) {
        *end = '\0';
        char *line_end = strchr(line, '\n');
        assert_non_null(line_end);
        json_t *want = json_array();
        for (char *at = line, *next; at < line_end; at = next) {
            long id = strtol(at, &next, 10);
            if (next == at || next > line_end) break;
            json_array_append_new(want, json_integer(id));
        }
        check_ids(name, (size_t)n_cases, t, text, strlen(text), 0, want);
        json_decref(want);
        line = line_end + 1;
        n_cases++;
    }
    free(outputs);
    free(inputs);
    return n_cases;
}

static void every_gguf_vocabulary_gives_the_ids_of_its_test_set(void **state) {
    (void)state;
    const char *dir = testdata();
    static const char *const names[] = {"gpt-2", "llama-bpe", "llama-spm", "qwen2"};
    for (int i = 0; i < LEN(names); i++) {
        sq_test_tok t;
        load_gguf(&t, dir, names[i]);
        assert_true(check_gguf_cases(dir, names[i], t.tok) >= 40);
        sq_test_tok_free(&t);
    }
}

/* Encode the text, decode the ids: the same bytes. */
static void check_round_trip(const char *name, const sq_tok *t, const char *text, size_t n) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 1 << 16, 0);
    int32_t *ids;
    size_t n_ids;
    assert_int_equal(sq_tok_encode(t, text, n, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, &ar, &ids, &n_ids, NULL),
                     SQUISH_OK);
    sq_buf out;
    sq_buf_init(&out, NULL, 1 << 24);
    sq_detok d;
    sq_detok_init(&d, t, false, true);
    for (size_t i = 0; i < n_ids; i++) assert_true(sq_detok_push(&d, ids[i], &out));
    assert_true(sq_detok_finish(&d, &out));
    if (out.len != n || memcmp(out.data, text, n) != 0) fail_msg("%s: the round trip changed the text", name);
    sq_buf_deinit(&out);
    sq_arena_deinit(&ar);
}

static void held_out_prose_survives_a_round_trip(void **state) {
    (void)state;
    const char *dir = testdata();
    char path[1024];
    size_t n;
    snprintf(path, sizeof path, "%s/data/heldout-prose.txt", dir);
    char *prose = sq_test_slurp(path, &n);
    assert_non_null(prose);
    sq_test_tok t;
    load_tiny(&t);
    check_round_trip("squish-tiny", t.tok, prose, n);
    sq_test_tok_free(&t);
    static const char *const names[] = {"gpt-2", "llama-bpe", "llama-spm", "qwen2"};
    for (int i = 0; i < LEN(names); i++) {
        load_gguf(&t, dir, names[i]);
        check_round_trip(names[i], t.tok, prose, n);
        sq_test_tok_free(&t);
    }
    free(prose);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_gives_the_ids_and_text_of_the_reference),
        cmocka_unit_test(the_shipped_model_gives_the_ids_of_the_reference),
        cmocka_unit_test(own_prose_gives_the_ids_of_the_reference),
        cmocka_unit_test(every_gguf_vocabulary_gives_the_ids_of_its_test_set),
        cmocka_unit_test(held_out_prose_survives_a_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
