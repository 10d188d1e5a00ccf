/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_token.c - control tokens in a language over bytes.
 *
 *   "[TOOL_CALLS][" with a vocabulary where [TOOL_CALLS] is control token 9:   F5 F5 F5 F5 F5 F5 FE 5B
 *
 * A vocabulary may have a control token and ordinary ones that spell its name; a text that a template writes
 * means the control token, and so does a text that a grammar spells. */
#include "grammar/gram_int.h"

#include <string.h>

void gram_token_bytes(int32_t id, uint8_t out[GRAM_TOKEN_BYTES]) {
    for (int i = GRAM_TOKEN_BYTES; i-- > 0; id /= 10) out[i] = (uint8_t)(GRAM_TOKEN_ZERO + id % 10);
}

bool gram_is_text(sq_span b) {
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] >= GRAM_TOKEN_ZERO) return false;
    return true;
}

gram_term gram_token(gram_rules *r, int32_t id) {
    sq_span b = {0};
    gram_pool *p = r->p;
    if (!r->tok)
        gram_fail(p, SQUISH_UNSUPPORTED, "grammar: a token literal needs a vocabulary");
    else if (!sq_tok_bytes(r->tok, id, &b) || b.n == 0)
        gram_fail(p, SQUISH_INVALID, "grammar: no token %d in the vocabulary", id);
    else if (sq_tok_is_eos(r->tok, id))
        gram_fail(p, SQUISH_UNSUPPORTED, "grammar: '%.*s' ends answers, so it cannot stand in one",
                  (int)(b.n < 64 ? b.n : 64), (const char *)b.p);
    if (gram_failed(p)) return GRAM_EMPTY;
    if (!sq_tok_is_control(r->tok, id)) return gram_literal(p, b.p, b.n);
    uint8_t name[GRAM_TOKEN_BYTES];
    gram_token_bytes(id, name);
    r->names_tokens = true;
    return gram_literal(p, name, sizeof name);
}

gram_term gram_token_named(gram_rules *r, const char *name, size_t n) {
    const int32_t id = r->tok ? sq_tok_find(r->tok, name, n) : -1;
    if (r->tok && id < 0) {
        gram_fail(r->p, SQUISH_INVALID, "grammar: no token '%.*s' in the vocabulary", (int)(n < 64 ? n : 64),
                  name);
        return GRAM_EMPTY;
    }
    return gram_token(r, id);
}

/* Where the name of a token begins in s, or NULL. */
static const char *find(const char *s, size_t n, sq_span name) {
    for (; n >= name.n; s++, n--)
        if (memcmp(s, name.p, name.n) == 0) return s;
    return NULL;
}

gram_term gram_spelled(gram_rules *r, const char *s, size_t n) {
    gram_pool *p = r->p;
    if (!r->tok || n == 0) return gram_literal(p, s, n);
    sq_arena ar;
    int32_t *ids;
    size_t n_ids = 0;
    squish_error err = {0};
    gram_term t = GRAM_EPS;
    sq_arena_init(&ar, &p->alloc, 4 << 10, 0);
    if (sq_tok_encode(r->tok, s, n, SQ_TOK_SPECIAL, &ar, &ids, &n_ids, &err) != SQUISH_OK)
        gram_fail(p, err.code, "%s", err.text);
    for (size_t i = 0; i < n_ids && !gram_failed(p); i++) {
        sq_span name;
        if (!sq_tok_is_control(r->tok, ids[i]) || !sq_tok_bytes(r->tok, ids[i], &name) || name.n == 0)
            continue;
        const char *at = find(s, n, name);
        if (!at) continue;
        const gram_term before = gram_literal(p, s, (size_t)(at - s));
        t = gram_cat(p, t, gram_cat(p, before, gram_token(r, ids[i])));
        n -= (size_t)(at - s) + name.n;
        s = at + name.n;
    }
    t = gram_cat(p, t, gram_literal(p, s, n));
    sq_arena_deinit(&ar);
    return gram_failed(p) ? GRAM_EMPTY : t;
}
