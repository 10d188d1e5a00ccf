/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_generate.c - answers of a model that knows nothing: tokens drawn at random from the masks of a
 * schema. What is finished is valid by the referee, which shares no code with the engine; what is cut off is
 * brought to an end by the shortest way there is, and is valid then.
 *
 * $SQUISH_GRAMMAR_OUTPUTS: how many (a few, unless it is set). Schemas: some of our own, and with
 * $SQUISH_TESTDATA those of MaskBench, with the vocabulary of Qwen2. Prints one line of JSON with the counts.
 */
#include "format/json.h"
#include "model/model.h"
#include "support/gram_finish.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS_MAX = 1024, HASTE_FROM = 192, SCHEMAS_MAX = 1000 };

static const char *const own[] = {
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":12},"
    "\"age\":{\"type\":\"integer\","
    "\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\"]},"
    "\"maxItems\":5}},\"required\":"
    "[\"name\"],\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"$ref\":\"#/$defs/"
    "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"string\",\"pattern\":\"^[a-"
    "z]+$\"},"
    "\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "n\"}}},\"required\":[\"v\"],\"additionalProperties\":false}}}",
    "{\"type\":\"object\"}",
    "{\"type\":\"array\",\"items\":{\"type\":[\"number\",\"null\",\"string\"],\"format\":\"date\"},"
    "\"minItems\":2}",
    "{\"anyOf\":[{\"type\":\"integer\",\"exclusiveMinimum\":-7,\"maximum\":1000},{\"const\":{\"a\":[1,\"x\"]}"
    "},{\"type\":\"string\","
    "\"format\":\"uuid\"}]}",
    "{\"type\":\"object\",\"properties\":{\"when\":{\"type\":\"string\",\"format\":\"date-time\"},\"at\":{"
    "\"type\":\"string\",\"format\":"
    "\"ipv4\"}},\"required\":[\"when\",\"at\"],\"additionalProperties\":false}",
};

typedef struct {
    const sq_tok *tok;
    int32_t n_vocab;
    size_t words; /* of a mask */
    sq_gram_trie *trie;
    uint64_t *mask, *ends, *closes; /* [words]: what is allowed; end tokens; tokens that only close things */
    uint64_t seed;
    char *schemas[SCHEMAS_MAX];
    int n_schemas, refused;
    int done, valid, cut, mended, repeated;
} run;

static unsigned draw(run *r, unsigned n) { return (unsigned)((sq_splitmix64(&r->seed) >> 11) % n); }

/* A random one of the tokens that are allowed and among these; -1: there is none. The winner of random logits
 * is as random as this. */
static int32_t pick(run *r, const uint64_t *among) {
    unsigned n = 0;
    for (size_t w = 0; w < r->words; w++) n += (unsigned)__builtin_popcountll(r->mask[w] & among[w]);
    if (n == 0) return -1;
    unsigned left = draw(r, n);
    size_t w = 0;
    for (unsigned k; left >= (k = (unsigned)__builtin_popcountll(r->mask[w] & among[w])); w++) left -= k;
    uint64_t bits = r->mask[w] & among[w];
    while (left--) bits &= bits - 1;
    return (int32_t)(w * 64) + __builtin_ctzll(bits);
}

/* One answer into out; true if it came to its end by `most` tokens. In haste ends and what closes things are
 * taken where they may be: a model that knows nothing would write for ever. */
static bool answer(run *r, sq_matcher *m, const char *schema, int most, int haste_from, sq_buf *out) {
    squish_error err = {0};
    for (int i = 0; i < most; i++) {
        int32_t n;
        bool ok;
        sq_span b;
        if (sq_matcher_mask(m, r->mask, &n, &err) != SQUISH_OK) fail_msg("%s", err.text);
        if (n == 0) fail_msg("nothing goes on behind %.*s of %s", (int)out->len, out->data, schema);
        const bool haste = i >= haste_from || (int)draw(r, (unsigned)haste_from) < i;
        int32_t id = pick(r, r->ends);
        if (id >= 0 && !haste && n > 1 && draw(r, 4)) id = -1;
        if (id < 0 && haste) id = pick(r, r->closes);
        if (id < 0) id = pick(r, r->mask);
        if (sq_tok_is_eos(r->tok, id)) return true;
        assert_int_equal(sq_matcher_token(m, id, &ok, &err), SQUISH_OK);
        assert_true(ok && sq_tok_bytes(r->tok, id, &b));
        assert_true(sq_buf_append(out, b.p, b.n));
    }
    return sq_matcher_may_end(m);
}

/* ---- judging ------------------------------------------------------------------------------------ */

/* A name that no schema declares may come twice, which the referee does not read: then the last one counts.
 */
static bool judge(run *r, const squish_schema *s, const char *schema, const sq_buf *text) {
    bool valid = false;
    squish_error err = {0};
    squish_status st = squish_schema_validate(s, text->data, text->len, NULL, NULL, &valid, &err);
    if (st == SQUISH_CORRUPT && strstr(err.text, "duplicate object key")) {
        json_t *last = json_loadb(text->data, text->len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        char *again = last ? json_dumps(last, JSON_ENCODE_ANY) : NULL;
        if (again) st = squish_schema_validate(s, again, strlen(again), NULL, NULL, &valid, &err);
        r->repeated++;
        free(again);
        json_decref(last);
    }
    if (st == SQUISH_OK && valid) return true;
    print_error("%s: %s\n%.*s\n", st == SQUISH_OK ? "not valid" : "not judged", err.text, (int)text->len,
                text->data);
    if (st == SQUISH_OK) fail_msg("of %s", schema);
    return false;
}

/* What the parts of a grammar say of the way to an end is so for its matcher, too. */
static bool ends_by(sq_matcher *m, const char *bytes, size_t n) {
    bool ok = n == 0;
    if (n > 0) assert_int_equal(sq_matcher_bytes(m, bytes, n, &ok, NULL), SQUISH_OK);
    return ok && sq_matcher_may_end(m);
}

static void one_output(run *r, sq_gram *g, const squish_schema *s, const char *schema) {
    sq_matcher *m;
    sq_buf text;
    sq_buf_init(&text, NULL, 16 << 20);
    assert_int_equal(sq_matcher_new(&m, g, r->trie, NULL, NULL), SQUISH_OK);
    if (answer(r, m, schema, TOKENS_MAX, HASTE_FROM, &text)) {
        r->done++;
        r->valid += judge(r, s, schema, &text);
    } else {
        r->cut++;
        static const char *const what[] = {"not valid", "without an end", "too far from an end"};
        const size_t drawn = text.len;
        const sq_test_finish_result how = sq_test_finish_text(g, &text);
        const bool fine = how == SQ_TEST_FINISHED && ends_by(m, text.data + drawn, text.len - drawn) &&
                          judge(r, s, schema, &text);
        if (!fine) print_error("cut off and %s: %s\n", what[how], schema);
        r->mended += fine;
    }
    sq_matcher_free(m);
    sq_buf_deinit(&text);
}

static void outputs_of(run *r, const char *schema, int n) {
    sq_gram *g;
    squish_schema *s;
    squish_error err = {0};
    squish_schema_options o = squish_schema_options_default();
    o.assert_format = true;
    if (sq_gram_new(&g, SQ_GRAM_SCHEMA, schema, strlen(schema), NULL, &err) != SQUISH_OK) {
        r->refused++;
        return;
    }
    if (squish_schema_new(&s, schema, strlen(schema), &o, &err) != SQUISH_OK) { /* nobody could judge */
        sq_gram_free(g);
        r->refused++;
        return;
    }
    for (int i = 0; i < n && !gram_failed(&g->pool); i++)
        one_output(r, g, s, schema);
    squish_schema_free(s);
    sq_gram_free(g);
}

/* ---- what there is ---------------------------------------------------------------------------- */

static void add_file(run *r, const char *path) {
    sq_map file;
    squish_error err = {0};
    json_t *root = NULL;
    if (r->n_schemas == SCHEMAS_MAX || sq_os_map_open(&file, path, &err) != SQUISH_OK) return;
    if (sq_json_parse((const char *)file.data, file.bytes, SQ_JSON_DEPTH_SCHEMA + 8, path, &root, &err) ==
        SQUISH_OK) {
        char *s = json_dumps(json_object_get(root, "schema"), JSON_ENCODE_ANY | JSON_COMPACT);
        if (s) r->schemas[r->n_schemas++] = s;
    }
    json_decref(root);
    sq_os_map_close(&file);
}

static void add_maskbench(run *r, const char *data, int every) {
    char dir[512], path[1024];
    sq_arena ar;
    char **names = NULL;
    size_t n = 0;
    snprintf(dir, sizeof dir, "%s/fixtures/maskbench", data);
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_os_list_dir(dir, &ar, &names, &n, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i += (size_t)every) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        add_file(r, path);
    }
    sq_arena_deinit(&ar);
}

static bool only(sq_span b, const char *chars) {
    for (size_t i = 0; i < b.n; i++)
        if (!b.p[i] || !strchr(chars, b.p[i])) return false;
    return b.n > 0;
}

static squish_model *open_vocabulary(run *r, const char *path) {
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, path, &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    r->tok = m->tok;
    r->n_vocab = sq_tok_count(m->tok);
    r->words = ((size_t)r->n_vocab + 63) / 64;
    r->mask = calloc(3 * r->words, sizeof *r->mask);
    r->ends = r->mask + r->words;
    r->closes = r->ends + r->words;
    assert_int_equal(sq_gram_trie_new(&r->trie, m->tok, r->n_vocab, NULL, NULL), SQUISH_OK);
    for (int32_t id = 0; id < r->n_vocab; id++) {
        sq_span b;
        const uint64_t bit = 1ull << id % 64;
        if (sq_tok_is_eos(m->tok, id))
            r->ends[id / 64] |= bit;
        else if (!sq_tok_is_control(m->tok, id) && sq_tok_bytes(m->tok, id, &b) && only(b, "\"}]"))
            r->closes[id / 64] |= bit;
    }
    return m;
}

static void what_is_drawn_from_masks_satisfies_the_schema(void **state) {
    (void)state;
    const char *data = getenv("SQUISH_TESTDATA"), *wanted = getenv("SQUISH_GRAMMAR_OUTPUTS");
    run r = {.seed = 20261129};
    char path[512] = "models/squish-tiny";
    if (data) snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-qwen2.gguf", data);
    squish_model *m = open_vocabulary(&r, path);
    for (size_t i = 0; i < SQ_COUNT(own); i++) r.schemas[r.n_schemas++] = strdup(own[i]);
    if (data) add_maskbench(&r, data, wanted ? 1 : 16);
    const int outputs = wanted ? (int)strtol(wanted, NULL, 10) : 2 * r.n_schemas;
    for (int round = 0; r.done + r.cut < outputs && round < outputs; round++)
        for (int i = 0; i < r.n_schemas && r.done + r.cut < outputs; i++)
            outputs_of(&r, r.schemas[i], wanted ? 4 : 2);
    printf("{\"outputs\": %d, \"finished\": %d, \"valid\": %d, \"cut\": %d, \"mended\": %d, \"repeated\": "
           "%d, \"schemas\": %d}\n",
           r.done + r.cut, r.done, r.valid, r.cut, r.mended, r.repeated, r.n_schemas);
    assert_true(r.done > 0);
    assert_int_equal(r.valid, r.done);
    assert_int_equal(r.mended, r.cut);
    for (int i = 0; i < r.n_schemas; i++) free(r.schemas[i]);
    sq_gram_trie_free(r.trie);
    free(r.mask);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_drawn_from_masks_satisfies_the_schema)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
