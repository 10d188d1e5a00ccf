/* SPDX-License-Identifier: Apache-2.0
 *
 * gram.c - a grammar as a whole: compiled, shared, and what it learned let go of.
 *
 * Threads: all of a grammar but its source-side tables is behind its lock; matchers take it for each call. */
#include "grammar/gram_int.h"

#include <string.h>

/* Everything that was learned while matching: states, rows, places, masks. Terms and rules stay. */
static void forget(sq_gram *g) {
    gram_pool *p = &g->pool;
    for (size_t i = 0; i < g->masks.n; i++) {
        gram_mask *m = &GRAM_AT(g->masks, gram_mask, i);
        sq_alloc_free(&g->alloc, m->data, m->bytes);
    }
    g->mask_bytes = 0;
    gram_vec_free(p, &g->masks, sizeof(gram_mask));
    gram_vec_free(p, &g->lex, sizeof(gram_lex_state));
    gram_vec_free(p, &g->lex_items, sizeof(gram_lex_item));
    gram_vec_free(p, &g->lex_done, sizeof(uint32_t));
    gram_vec_free(p, &g->lex_to, sizeof(uint32_t));
    gram_index_free(p, &g->lex_index);
    gram_vec_free(p, &g->rows, sizeof(gram_row));
    gram_vec_free(p, &g->row_items, sizeof(gram_item));
    gram_index_free(p, &g->row_index);
    gram_vec_free(p, &g->places, sizeof(gram_place));
    gram_vec_free(p, &g->pairs, sizeof(gram_pair));
    gram_vec_free(p, &g->place_to, sizeof(uint32_t));
    gram_index_free(p, &g->place_index);
    gram_forget_derived(p);
}

/* State 0, place 0 (both dead), and where a text begins. */
static void learn_start(sq_gram *g) {
    gram_lex_intern(g, NULL, 0);
    gram_place_of(g, NULL, 0, false);
    const uint32_t first = gram_row_first(g);
    if (first == GRAM_NONE) return;
    const gram_row *r = &GRAM_AT(g->rows, gram_row, first);
    gram_pair pair = {r->lex, first};
    g->start = gram_place_of(g, &pair, r->lex != 0, r->accept);
}

static void compile(sq_gram *g, sq_gram_kind kind, const char *source, size_t n) {
    gram_rules *r = &g->rules;
    gram_pool *p = &g->pool;
    gram_sym start = GRAM_EMPTY;
    switch (kind) {
    case SQ_GRAM_REGEX: start = gram_regex(p, source, n, GRAM_PLAIN, true, "regex"); break;
    case SQ_GRAM_GBNF: start = gram_from_gbnf(r, source, n); break;
    case SQ_GRAM_SCHEMA: start = gram_from_schema(r, source, n, false); break;
    case SQ_GRAM_SCHEMA_LOOSE: start = gram_from_schema(r, source, n, true); break;
    case SQ_GRAM_JSON: start = gram_any_json(p, false, true); break;
    case SQ_GRAM_EBNF: start = gram_from_ebnf(r, source, n); break;
    case SQ_GRAM_LARK: start = gram_from_lark(r, source, n); break;
    case SQ_GRAM_TEXT: start = gram_from_any_notation(r, source, n); break;
    case SQ_GRAM_TAGS: start = gram_from_tags(r); break;
    }
    gram_rules_finish(r, start);
    if (gram_failed(p)) return;
    g->stamp = sq_alloc_zero(&g->alloc, r->nts.n * sizeof *g->stamp);
    if (!g->stamp)
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: out of memory");
    else
        learn_start(g);
}

squish_status sq_gram_new(sq_gram **out, sq_gram_kind kind, const char *source, size_t n,
                          const squish_alloc *a, squish_error *err) {
    return sq_gram_new_for(out, kind, source, n, NULL, a, err);
}

squish_status gram_compile(sq_gram **out, sq_gram_kind kind, const char *source, size_t n, const sq_tok *tok,
                           struct gram_relaxing *relaxing, const squish_alloc *alloc, squish_error *err) {
    *out = NULL;
    sq_gram *g = sq_alloc_zero(alloc, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory");
    g->alloc = *alloc;
    g->refs = 1;
    if (pthread_mutex_init(&g->lock, NULL) != 0) {
        sq_alloc_free(alloc, g, sizeof *g);
        return sq_fail(err, SQUISH_NO_MEMORY, "grammar: no lock to be had");
    }
    g->rules.p = &g->pool;
    g->rules.tok = tok;
    g->rules.relaxing = relaxing;
    gram_pool_init(&g->pool, alloc, SQ_GRAM_COMPILE_BYTES_MAX);
    g->pool.digits_max = kind == SQ_GRAM_SCHEMA_LOOSE ? GRAM_INF : GRAM_DIGITS_MAX;
    if (!gram_failed(&g->pool)) compile(g, kind, source, n);
    if (gram_failed(&g->pool)) {
        const squish_status st = sq_fail(err, g->pool.err.code, "%s", g->pool.err.text);
        sq_gram_free(g);
        return st;
    }
    g->rules.tok = NULL;
    g->rules.relaxing = NULL;
    g->pool.bytes_max = SQ_GRAM_BYTES_MAX;
    *out = g;
    return SQUISH_OK;
}

squish_status sq_gram_new_for(sq_gram **out, sq_gram_kind kind, const char *source, size_t n,
                              const sq_tok *tok, const squish_alloc *a, squish_error *err) {
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    *out = NULL;
    if (n > SQ_GRAM_SOURCE_MAX)
        return sq_fail(err, SQUISH_NO_MEMORY, "grammar: %zu bytes of source, at most %d", n,
                       SQ_GRAM_SOURCE_MAX);
    return kind == SQ_GRAM_TAGS ? gram_compile_tags(out, source, n, tok, &alloc, err)
                                : gram_compile(out, kind, source, n, tok, NULL, &alloc, err);
}

const char *sq_gram_relaxed(const sq_gram *g) { return g->relaxed.len ? g->relaxed.data : ""; }
bool sq_gram_names_tokens(const sq_gram *g) { return g->rules.names_tokens; }

sq_gram *sq_gram_share(sq_gram *g) {
    gram_lock(g);
    g->refs++;
    pthread_mutex_unlock(&g->lock);
    return g;
}

void sq_gram_free(sq_gram *g) {
    if (!g) return;
    gram_lock(g);
    const bool last = --g->refs == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last) return;
    const squish_alloc a = g->alloc;
    forget(g);
    gram_vec_free(&g->pool, &g->work, sizeof(gram_item));
    gram_vec_free(&g->pool, &g->seen, sizeof(uint32_t));
    gram_vec_free(&g->pool, &g->ends, sizeof(gram_pair));
    gram_vec_free(&g->pool, &g->next_pairs, sizeof(gram_pair));
    sq_alloc_free(&a, g->stamp, g->stamp ? g->rules.nts.n * sizeof *g->stamp : 0);
    gram_rules_free(&g->rules);
    sq_buf_deinit(&g->relaxed);
    gram_pool_deinit(&g->pool);
    pthread_mutex_destroy(&g->lock);
    sq_alloc_free(&a, g, sizeof *g);
}

void gram_settle(sq_gram *g) {
    if (g->n_matchers || g->pool.bytes < SQ_GRAM_BYTES_MAX / 2) return;
    forget(g);
    learn_start(g);
}

void sq_gram_get_stats(sq_gram *g, sq_gram_stats *out) {
    gram_lock(g);
    *out = (sq_gram_stats){.terms = g->pool.nodes.n,
                           .classes = g->pool.n_classes,
                           .terminals = g->rules.terminals.n,
                           .rules = g->rules.rules.n,
                           .states = g->lex.n,
                           .rows = g->rows.n,
                           .places = g->places.n,
                           .masks = g->masks.n,
                           .bytes = g->pool.bytes + g->mask_bytes};
    pthread_mutex_unlock(&g->lock);
}
