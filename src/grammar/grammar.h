/* SPDX-License-Identifier: Apache-2.0
 *
 * grammar.h - which tokens may come next, so that an answer is a word of a language.
 *
 *   regex | GBNF | JSON Schema -> rules over terminals, each terminal a regular expression over bytes
 *                              -> matcher: bytes in; next tokens, and "may end here", out
 *
 * Regular expressions are terms taken apart by derivatives (Brzozowski, 1964; Owens, Reppy, Turon, 2009): a
 * counted repetition stays a count, intersection and complement cost nothing, and the DFA is built only where
 * an answer goes. What is not regular is parsed with Earley's algorithm (1970) over such terminals, every way
 * to split the bytes into terminals followed at once, so the language is the grammar's own: no terminal wins
 * over another. Rows of the parser are interned, and so is the whole state of a matcher (a *place*): the
 * second time an answer, or another answer, comes to a place, a byte is one table look-up and the mask is
 * there. Nothing backtracks.
 *
 * Units: bytes of text; token ids; masks are bitsets, bit id % 64 of word id / 64.
 *
 * Ownership: a grammar and a vocabulary's trie are counted references; a matcher holds one of each.
 *
 * Threads: a grammar and a trie may be shared by threads; what a grammar learns (states, rows, places, masks)
 * is behind its lock. A matcher belongs to one thread at a time. */
#ifndef SQ_GRAMMAR_H
#define SQ_GRAMMAR_H

#include "text/text.h"

enum {
    SQ_GRAM_SOURCE_MAX = 1 << 20,         /* bytes of source */
    SQ_GRAM_NESTING_MAX = 512,            /* groups, or schemas, in each other */
    SQ_GRAM_RULES_MAX = 65536,            /* rules of the parser, and alternatives of them */
    SQ_GRAM_TERMS_MAX = 262144,           /* regular expressions, parts counted once */
    SQ_GRAM_WAYS_MAX = 10000,             /* alternatives that a byte leads to in a regular expression */
    SQ_GRAM_STATES_MAX = 262144,          /* of the lexer */
    SQ_GRAM_ROW_ITEMS_MAX = 20000,        /* in one row of the parser */
    SQ_GRAM_BYTES_MAX = 256 << 20,        /* of everything one grammar learns */
    SQ_GRAM_COMPILE_BYTES_MAX = 48 << 20, /* while it is compiled */
    SQ_GRAM_MASK_BYTES_MAX = 64 << 20,
    SQ_GRAM_REPEAT_MAX = 1 << 24 /* largest count in a repetition */
};

/* ---- vocabularies ---------------------------------------------------------------------------- */

/* The tokens of a vocabulary as a trie of their bytes. Control tokens are reached only by grammars that name
 * them, end tokens only where a text may end. Built once per vocabulary (tens of ms for 150k tokens). */
typedef struct sq_gram_trie sq_gram_trie;
/* tok must outlive the trie. n_vocab: bits of a mask, at least sq_tok_count(tok). Errors: NO_MEMORY. */
squish_status sq_gram_trie_new(sq_gram_trie **out, const sq_tok *tok, int32_t n_vocab, const squish_alloc *a,
                               squish_error *err);
sq_gram_trie *sq_gram_trie_share(sq_gram_trie *t); /* one more owner; returns t */
void sq_gram_trie_free(sq_gram_trie *t);           /* one owner less */
/* Would the trie of this vocabulary be the same? */
bool sq_gram_trie_is_for(const sq_gram_trie *t, const sq_tok *tok, int32_t n_vocab);

/* ---- grammars -------------------------------------------------------------------------------- */

typedef struct sq_gram sq_gram;
typedef enum {
    SQ_GRAM_REGEX,
    SQ_GRAM_GBNF,
    SQ_GRAM_SCHEMA,
    SQ_GRAM_SCHEMA_LOOSE,
    SQ_GRAM_JSON,
    SQ_GRAM_TAGS,
    SQ_GRAM_EBNF,
    SQ_GRAM_LARK,
    SQ_GRAM_TEXT
} sq_gram_kind;

/* Compile source[0..n).
 *
 * REGEX: the whole text must match; bytes of UTF-8; ECMA syntax without look-around, back references, \b and
 * \p. GBNF: as llama.cpp reads it. EBNF: of the W3C or of ISO 14977. LARK: a subset. TEXT: one of
 * these three, told apart by what stands in it. SCHEMA: JSON Schema (see docs/grammar.md for what is
 * supported; every keyword that is not is refused by name, with its JSON pointer), white space bounded so
 * that an answer cannot run away in it. SCHEMA_LOOSE: the same with any white space. JSON: any object, at
 * most 64 values in each other; source is ignored.
 *
 * Errors: INVALID (syntax, with the offset), UNSUPPORTED (valid but not supported: the construct or keyword
 * by name), NO_MEMORY (a limit above, by name). */
squish_status sq_gram_new(sq_gram **out, sq_gram_kind kind, const char *source, size_t n,
                          const squish_alloc *a, squish_error *err);
/* The same for a vocabulary, which must outlive the call: its control tokens can be named. In TAGS their
 * names in begin, end and trigger strings mean the tokens. */
squish_status sq_gram_new_for(sq_gram **out, sq_gram_kind kind, const char *source, size_t n,
                              const sq_tok *tok, const squish_alloc *a, squish_error *err);
bool sq_gram_names_tokens(const sq_gram *g); /* a control token is in its language */
/* What schemas of TAGS are not kept to in, where their elements allow that: JSON pointers with the schemas'
 * names, "weather#/properties/day/pattern, ..."; "": nothing. */
const char *sq_gram_relaxed(const sq_gram *g);
sq_gram *sq_gram_share(sq_gram *g); /* one more owner; returns g */
void sq_gram_free(sq_gram *g);      /* one owner less */

typedef struct {
    size_t terms, classes, terminals, rules, states, rows, places, masks, bytes;
} sq_gram_stats;
void sq_gram_get_stats(sq_gram *g, sq_gram_stats *out);

/* ---- matchers -------------------------------------------------------------------------------- */

typedef struct sq_matcher sq_matcher;
/* At the beginning of the text. trie may be NULL: then there are no tokens, only bytes. */
squish_status sq_matcher_new(sq_matcher **out, sq_gram *g, sq_gram_trie *trie, const squish_alloc *a,
                             squish_error *err);
void sq_matcher_free(sq_matcher *m);

/* Go on by bytes, or by the bytes of a token. *ok false: no text of the language goes on so, and the matcher
 * is as before. End tokens are not for here. One call is one step of rollback. Errors: NO_MEMORY (a limit of
 * the grammar; the matcher is as before), INVALID (no such token). */
squish_status sq_matcher_bytes(sq_matcher *m, const void *bytes, size_t n, bool *ok, squish_error *err);
squish_status sq_matcher_token(sq_matcher *m, int32_t id, bool *ok, squish_error *err);
/* Undo the last n steps (all of them, if there are fewer). O(1). */
void sq_matcher_rollback(sq_matcher *m, size_t n);
size_t sq_matcher_steps(const sq_matcher *m);
bool sq_matcher_may_end(const sq_matcher *m); /* what was read is a word of the language */
bool sq_matcher_must_end(sq_matcher *m);      /* and no longer one begins with it */

/* Allowed ids into mask [(n_vocab + 63) / 64]: tokens after which the text can still become a word; end
 * tokens exactly where it may end. *n_allowed may be NULL. Needs a trie. Errors: NO_MEMORY. */
squish_status sq_matcher_mask(sq_matcher *m, uint64_t *mask, int32_t *n_allowed, squish_error *err);
/* The same for a place, which is a number that stays what it is as long as the grammar has a matcher: so a
 * mask can be made on one thread while another goes on with the matcher. mask NULL: it is only made. */
uint32_t sq_matcher_place(const sq_matcher *m);
squish_status sq_gram_mask_at(sq_gram *g, const sq_gram_trie *t, uint32_t place, uint64_t *mask,
                              int32_t *n_allowed, squish_error *err);
bool sq_gram_has_mask_at(sq_gram *g, const sq_gram_trie *t, uint32_t place); /* it was made before */
/* Only one byte may come next, and the text may not end: perhaps only one token may. */
bool sq_matcher_is_narrow(sq_matcher *m);
/* Bytes that must come next, appended to out: as long as there is one way to go on and no way to end.
 * At most max bytes. The matcher stays. */
squish_status sq_matcher_forced(sq_matcher *m, size_t max, sq_buf *out, squish_error *err);

#endif
