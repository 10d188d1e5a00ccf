/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_jump.c - text that a grammar forces, in the tokens that the tokenizer would choose.
 *
 *   forced: "degrees": 2|1      text: | "degrees |": | 2 |      the last one goes: 21 may be one token
 *
 * Between bytes that are forced a model may still choose how to cut them, and a small one cuts them oddly.
 * Here the tokenizer cuts them. At their end, tokens that a longer one could replace are left to the model,
 * up to four: whatever goes on there was never cut by force. */
#include "sched/sched.h"

#include <string.h>

enum { TEXT_MAX = 256, LEFT_MAX = 4, ARENA_BLOCK = 8 << 10, FIRST_OF_TOKENS = 0xF5 };

void sq_jump_init(sq_jump *j, const squish_alloc *a) {
    *j = (sq_jump){.n = 0};
    sq_arena_init(&j->arena, a, ARENA_BLOCK, 1 << 20);
    sq_buf_init(&j->text, a, TEXT_MAX);
}

void sq_jump_deinit(sq_jump *j) {
    sq_arena_deinit(&j->arena);
    sq_buf_deinit(&j->text);
}

/* Bytes of whole characters at the beginning of the text. */
static size_t whole_characters(const char *s, size_t n) {
    size_t k = n;
    while (k > 0 && n - k < 3 && ((uint8_t)s[k - 1] & 0xC0) == 0x80) k--;
    if (k == 0 || (uint8_t)s[k - 1] < 0xC0) return k == n ? n : k; /* no lead byte among the last four */
    const uint8_t lead = (uint8_t)s[k - 1];
    const size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    return n - (k - 1) == wanted ? n : k - 1;
}

/* Is there a token that begins with the rest of the text and goes on as the grammar may, at the matcher? */
static bool is_spanned(const sq_tok *tok, const uint64_t *mask, size_t words, const char *rest, size_t n) {
    for (size_t w = 0; w < words; w++)
        for (uint64_t bits = mask[w]; bits; bits &= bits - 1) {
            sq_span b;
            if (sq_tok_bytes(tok, (int32_t)(w * 64) + __builtin_ctzll(bits), &b) && b.n > n &&
                memcmp(b.p, rest, n) == 0)
                return true;
        }
    return false;
}

/* Where the last `left` tokens begin, at `from`: would a longer one do? */
static squish_status ask(sq_jump *j, sq_matcher *x, const sq_tok *tok, size_t from, uint64_t *mask,
                         size_t words, bool *spanned, squish_error *err) {
    bool ok;
    SQ_TRY(sq_matcher_bytes(x, j->text.data, from, &ok, err));
    const squish_status st = ok ? sq_matcher_mask(x, mask, NULL, err) : SQUISH_OK;
    if (ok) sq_matcher_rollback(x, 1);
    *spanned = ok && st == SQUISH_OK && is_spanned(tok, mask, words, j->text.data + from, j->text.len - from);
    return st;
}

/* Are the tokens the text? A tokenizer may put a blank in front, or change what it reads. */
static bool spells(const sq_jump *j, const sq_tok *tok, size_t n_text) {
    size_t at = 0;
    for (size_t i = 0; i < j->n; i++) {
        sq_span b;
        if (sq_tok_is_control(tok, j->ids[i]) || !sq_tok_bytes(tok, j->ids[i], &b) || b.n > n_text - at ||
            memcmp(j->text.data + at, b.p, b.n) != 0)
            return false;
        at += b.n;
    }
    return at == n_text;
}

squish_status sq_jump_find(sq_jump *j, sq_matcher *x, const sq_tok *tok, uint64_t *mask, size_t words,
                           squish_error *err) {
    if (j->looked) return SQUISH_OK;
    j->looked = true;
    j->n = j->at = 0;
    j->text.len = 0;
    if (!sq_matcher_is_narrow(x)) return SQUISH_OK;
    SQ_TRY(sq_matcher_forced(x, TEXT_MAX, &j->text, err));
    for (size_t i = 0; i < j->text.len; i++)
        if ((uint8_t)j->text.data[i] >= FIRST_OF_TOKENS)
            j->text.len = i; /* a control token is none of text */
    const size_t n_text = whole_characters(j->text.data, j->text.len);
    if (n_text < 2) return SQUISH_OK;
    sq_arena_reset(&j->arena);
    SQ_TRY(sq_tok_encode(tok, j->text.data, n_text, 0, &j->arena, &j->ids, &j->n, err));
    size_t from = n_text, keep = j->n;
    if (!spells(j, tok, n_text)) keep = 0;
    for (size_t left = 1; left <= LEFT_MAX && left <= j->n && keep; left++) {
        sq_span b = {0};
        bool spanned;
        sq_tok_bytes(tok, j->ids[j->n - left], &b);
        from -= b.n;
        SQ_TRY(ask(j, x, tok, from, mask, words, &spanned, err));
        if (spanned) keep = j->n - left;
    }
    j->n = keep;
    return SQUISH_OK;
}
