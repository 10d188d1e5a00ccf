/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_jump.c - text that a grammar forces, cut into tokens behind any text it read.
 *
 *   input: kind byte (mod 9), source up to a NUL, text. The tokens must be ones that the grammar takes in
 * turn, and spell what is forced; the matcher stays where it is. */
#include "sched/sched.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

/* ---- a vocabulary: printable characters, and some longer tokens that overlap what JSON forces
 * ---------------- */

static const char *const merges[][2] = {
    {"t", "r"}, {"u", "e"},   {"tr", "ue"}, {"f", "a"},   {"l", "s"},     {"fa", "ls"},
    {"n", "a"}, {"m", "e"},   {"na", "me"}, {"\"", "na"}, {"\"na", "me"}, {"\"", ":"},
    {":", "Ġ"}, {"\":", "Ġ"}, {"{", "\""},  {"}", "}"},   {"1", "2"},     {"12", "3"},
    {"3", "4"}, {"a", "b"},   {"ab", "ab"}, {"a", "a"},   {"aa", "aa"},   {"<", "t"},
};

static void put_token(sq_buf *b, const char *s, int id) {
    sq_buf_puts(b, id ? ",\"" : "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') sq_buf_putc(b, '\\');
        sq_buf_putc(b, *s);
    }
    if (id >= 0) sq_buf_printf(b, "\":%d", id);
}

static const sq_tok *vocabulary(void) {
    static sq_buf blob;
    static sq_tok_view view;
    static const sq_tok *tok;
    if (tok) return tok;
    sq_buf json;
    int id = 0;
    sq_buf_init(&json, NULL, 1 << 20);
    sq_buf_init(&blob, NULL, 1 << 24);
    sq_buf_puts(&json, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (char c[2] = "!"; c[0] < 0x7F; c[0]++) put_token(&json, c, id++);
    put_token(&json, "Ġ", id++);
    put_token(&json, "Ċ", id++);
    for (size_t i = 0; i < SQ_COUNT(merges); i++) {
        char both[32];
        snprintf(both, sizeof both, "%s%s", merges[i][0], merges[i][1]);
        put_token(&json, both, id++);
    }
    sq_buf_puts(&json, "},\"merges\":[");
    for (size_t i = 0; i < SQ_COUNT(merges); i++) {
        sq_buf_puts(&json, i ? ",[\"" : "[\"");
        for (int k = 0; k < 2; k++) {
            for (const char *s = merges[i][k]; *s; s++) {
                if (*s == '"') sq_buf_putc(&json, '\\');
                sq_buf_putc(&json, *s);
            }
            sq_buf_puts(&json, k ? "\"]" : "\",\"");
        }
    }
    sq_buf_printf(&json, "]},\"added_tokens\":[{\"id\":%d,\"content\":\"<|x|>\",\"special\":true}],", id);
    sq_buf_puts(&json,
                "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false},"
                "\"decoder\":{\"type\":\"ByteLevel\"}}");
    squish_error err = {0};
    const sq_tok_hf_source src = {.tokenizer_json = {(const uint8_t *)json.data, json.len}};
    check(sq_tok_compile_hf(&src, NULL, &blob, NULL, NULL, &err) == SQUISH_OK);
    check(sq_tok_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, NULL, &tok, &err) == SQUISH_OK);
    sq_buf_deinit(&json);
    return tok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static sq_gram_trie *trie;
    const sq_tok *tok = vocabulary();
    uint64_t mask[8];
    check(sq_tok_count(tok) <= 64 * (int32_t)SQ_COUNT(mask));
    if (!trie) check(sq_gram_trie_new(&trie, tok, sq_tok_count(tok), NULL, NULL) == SQUISH_OK);
    if (size < 1 || size > 4096) return 0;
    const uint8_t *source = data + 1, *nul = memchr(source, 0, size - 1);
    const size_t n_source = nul ? (size_t)(nul - source) : size - 1;
    const uint8_t *text = nul ? nul + 1 : data + size, *end = data + size;
    sq_gram *g;
    sq_matcher *m;
    if (sq_gram_new_for(&g, (sq_gram_kind)(data[0] % 9), (const char *)source, n_source, tok, NULL, NULL) !=
        SQUISH_OK)
        return 0;
    check(sq_matcher_new(&m, g, trie, NULL, NULL) == SQUISH_OK);
    sq_jump j;
    sq_jump_init(&j, NULL);
    for (size_t i = 0; i <= (size_t)(end - text) && i < 64; i++) {
        const size_t steps = sq_matcher_steps(m);
        const uint32_t place = sq_matcher_place(m);
        const size_t words = ((size_t)sq_tok_count(tok) + 63) / 64;
        bool ok = true;
        j.looked = false;
        if (sq_jump_find(&j, m, tok, mask, words, NULL) != SQUISH_OK) break;
        check(sq_matcher_steps(m) == steps && sq_matcher_place(m) == place);
        size_t at = 0;
        for (size_t k = 0; k < j.n; k++) {
            sq_span b;
            check(sq_tok_bytes(tok, j.ids[k], &b) && at + b.n <= j.text.len &&
                  !memcmp(j.text.data + at, b.p, b.n));
            check(sq_matcher_token(m, j.ids[k], &ok, NULL) == SQUISH_OK && ok);
            at += b.n;
        }
        sq_matcher_rollback(m, j.n);
        if (text + i == end || sq_matcher_bytes(m, text + i, 1, &ok, NULL) != SQUISH_OK || !ok) break;
    }
    sq_jump_deinit(&j);
    sq_matcher_free(m);
    sq_gram_free(g);
    return 0;
}
