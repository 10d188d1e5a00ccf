/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_grammar.c - grammars for answers, and reading a text with one.
 *
 * The trie of a vocabulary takes some tens of ms, so a model keeps the one its first grammar made. */
#include "sched/sched.h"

#include <stdlib.h>
#include <string.h>

/* Bits of a mask: logits of the model, or tokens where it was opened for its text alone. */
static int32_t vocab_of(const squish_model *m) {
    return m->cfg.n_vocab > 0 ? m->cfg.n_vocab : sq_tok_count(m->tok);
}

static void free_trie(void *trie) { sq_gram_trie_free(trie); }

/* Two threads may make it at once: one of them is kept. */
static squish_status trie_of(squish_model *m, sq_gram_trie **out, squish_error *err) {
    void *there = m->trie;
    if (!there) {
        sq_gram_trie *fresh;
        SQ_TRY(sq_gram_trie_new(&fresh, m->tok, vocab_of(m), &m->alloc, err));
        if (atomic_compare_exchange_strong(&m->trie, &there, fresh)) {
            there = fresh;
            m->trie_free = free_trie; /* nobody asks before the model is closed */
        } else {
            sq_gram_trie_free(fresh);
        }
    }
    *out = sq_gram_trie_share(there);
    return SQUISH_OK;
}

squish_status squish_grammar_new(squish_grammar **out, const squish_model *m, squish_grammar_kind kind,
                                 const char *source, size_t bytes, squish_error *err) {
    static const sq_gram_kind kinds[] = {SQ_GRAM_REGEX,        SQ_GRAM_GBNF, SQ_GRAM_SCHEMA,
                                         SQ_GRAM_SCHEMA_LOOSE, SQ_GRAM_JSON, SQ_GRAM_TAGS,
                                         SQ_GRAM_EBNF,         SQ_GRAM_LARK, SQ_GRAM_TEXT};
    *out = NULL;
    if ((size_t)kind >= SQ_COUNT(kinds))
        return sq_fail(err, SQUISH_INVALID, "grammar kind %d, wanted 0 to %d", (int)kind,
                       (int)SQUISH_GRAMMAR_TEXT);
    if (!m->tok)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no tokenizer, which a grammar needs", m->info.path);
    squish_grammar *g = sq_alloc_zero(&m->alloc, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory");
    g->alloc = m->alloc;
    const uint64_t begin = sq_os_now_ns();
    squish_status st = sq_gram_new_for(&g->g, kinds[kind], source, bytes, m->tok, &m->alloc, err);
    g->compile_ms = (double)(sq_os_now_ns() - begin) / 1e6;
    if (st == SQUISH_OK) st = trie_of((squish_model *)m, &g->trie, err);
    if (st == SQUISH_OK)
        *out = g;
    else
        squish_grammar_free(g);
    return st;
}

void squish_grammar_free(squish_grammar *g) {
    if (!g) return;
    const squish_alloc a = g->alloc;
    sq_gram_free(g->g);
    sq_gram_trie_free(g->trie);
    sq_alloc_free(&a, g, sizeof *g);
}

const char *squish_grammar_relaxed(const squish_grammar *g) { return sq_gram_relaxed(g->g); }

void squish_grammar_cut_canonically(squish_grammar *g) { g->canonical = true; }

uint64_t squish_grammar_bytes(const squish_grammar *g) {
    sq_gram_stats s;
    sq_gram_get_stats(g->g, &s);
    return s.bytes;
}

/* ---- reading a text --------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void quantiles(double *v, size_t n, double out[4]) {
    memset(out, 0, 4 * sizeof *out);
    if (n == 0) return;
    qsort(v, n, sizeof *v, by_value);
    out[0] = v[n / 2];
    out[1] = v[n * 9 / 10];
    out[2] = v[n * 99 / 100];
    out[3] = v[n - 1];
}

typedef struct {
    const squish_grammar *g;
    const squish_model *m;
    const int32_t *ids;
    size_t n;
    uint64_t *mask;
    double *mask_us, *advance_us, *cold_us; /* [n + 1], [n], [n + 1] of the last run, and of the first */
} reading;

/* One pass; *ok: the tokens read, *valid: their bytes. A token that the mask does not hold ends it. */
static squish_status read_once(reading *r, bool first, size_t *n_read, size_t *valid, bool *accepted,
                               squish_error *err) {
    sq_matcher *x;
    squish_status st = SQUISH_OK;
    SQ_TRY(sq_matcher_new(&x, r->g->g, r->g->trie, &r->g->alloc, err));
    *valid = *n_read = 0;
    bool ok = true;
    for (size_t i = 0; st == SQUISH_OK; i++) {
        const uint64_t t0 = sq_os_now_ns();
        st = sq_matcher_mask(x, r->mask, NULL, err);
        const uint64_t t1 = sq_os_now_ns();
        (first ? r->cold_us : r->mask_us)[i] = (double)(t1 - t0) / 1e3;
        if (i == r->n || st != SQUISH_OK) break;
        const int32_t id = r->ids[i];
        sq_span b;
        if (!(r->mask[id / 64] >> id % 64 & 1))
            ok = false;
        else
            st = sq_matcher_token(x, id, &ok, err);
        r->advance_us[i] = (double)(sq_os_now_ns() - t1) / 1e3;
        if (!ok || st != SQUISH_OK) break;
        *n_read = i + 1;
        if (sq_tok_bytes(r->m->tok, id, &b)) *valid += b.n;
    }
    *accepted = st == SQUISH_OK && ok && *n_read == r->n && sq_matcher_may_end(x);
    sq_matcher_free(x);
    return st;
}

static squish_status read_runs(reading *r, int32_t runs, squish_grammar_report *out, squish_error *err) {
    size_t n_read = 0;
    for (int32_t i = 0; i < runs; i++) {
        SQ_TRY(read_once(r, i == 0, &n_read, &out->valid_bytes, &out->accepted, err));
        if (i == 0) quantiles(r->cold_us, n_read + 1, out->cold_us);
    }
    if (runs > 1) quantiles(r->mask_us, n_read + 1, out->mask_us);
    quantiles(r->advance_us, n_read, out->advance_us);
    return SQUISH_OK;
}

squish_status squish_grammar_check(const squish_grammar *g, const squish_model *m, const char *text,
                                   size_t bytes, int32_t runs, squish_grammar_report *out,
                                   squish_error *err) {
    *out = (squish_grammar_report){.compile_ms = g->compile_ms};
    if (runs < 1) return sq_fail(err, SQUISH_INVALID, "runs is %d, wanted 1 or more", runs);
    if (!m->tok || !sq_gram_trie_is_for(g->trie, m->tok, vocab_of(m)))
        return sq_fail(err, SQUISH_INVALID, "the grammar was made for another vocabulary");
    sq_arena ar;
    sq_arena_init(&ar, &m->alloc, 64 << 10, 0);
    int32_t *ids = NULL;
    reading r = {.g = g, .m = m};
    /* Where control tokens are in the language, their names in the text mean them. */
    const unsigned flags = sq_gram_names_tokens(g->g) ? SQ_TOK_SPECIAL : 0;
    squish_status st = sq_tok_encode(m->tok, text, bytes, flags, &ar, &ids, &r.n, err);
    if (st == SQUISH_OK) {
        r.ids = ids;
        out->n_tokens = (int32_t)r.n;
        r.mask = SQ_ARENA_ARRAY(&ar, uint64_t, ((size_t)vocab_of(m) + 63) / 64);
        r.mask_us = SQ_ARENA_ARRAY(&ar, double, r.n + 1);
        r.advance_us = SQ_ARENA_ARRAY(&ar, double, r.n + 1);
        r.cold_us = SQ_ARENA_ARRAY(&ar, double, r.n + 1);
        st = r.mask && r.mask_us && r.advance_us && r.cold_us
                 ? read_runs(&r, runs, out, err)
                 : sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory for %zu tokens", r.n);
    }
    sq_arena_deinit(&ar);
    return st;
}
