/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_source.h - what the readers of grammars in text share: GBNF, EBNF and Lark.
 *
 * A source is read twice: once to find the rules and every error of syntax (`dry`), once to build them, each
 * when it is first referred to, so that a rule which is not recursive can be part of a regular expression.
 * A reader of one notation says how a body is read. */
#ifndef SQ_GRAM_SOURCE_H
#define SQ_GRAM_SOURCE_H

#include "grammar/gram_int.h"

typedef struct {
    const char *name;
    size_t n, body; /* body: where it begins in the source */
    enum { RULE_NEW, RULE_OPEN, RULE_DONE } state;
    bool has_nt;
    uint32_t nt;
    gram_sym result;
} gram_named;

typedef struct gram_source {
    gram_rules *r;
    gram_pool *p;
    const char *what; /* the notation, for errors */
    const char *s;
    size_t n, at;
    int depth, total; /* groups in each other in this rule; groups and rules in each other in all */
    bool dry;
    gram_vec rules;
    gram_index index;
    gram_sym (*body)(struct gram_source *c, const gram_named *rule); /* read it at `at` */
} gram_source;

/* Fail with the line; what follows is not read. Gives GRAM_EMPTY. */
gram_sym gram_source_refuse(gram_source *c, squish_status st, const char *why);
void gram_source_free(gram_source *c);

static inline bool gram_next_is(const gram_source *c, char x) { return c->at < c->n && c->s[c->at] == x; }
bool gram_take(gram_source *c, const char *token);                          /* go past it if it stands here */
size_t gram_take_name(gram_source *c, const char *also, const char **name); /* letters, digits, and these */
bool gram_take_number(gram_source *c, uint32_t *out); /* digits; over SQ_GRAM_REPEAT_MAX: one more than it */
uint32_t gram_take_char(gram_source *c);              /* one character of UTF-8 */
bool gram_take_hex(gram_source *c, int n_min, int n_max, uint32_t *out); /* a code point */

bool gram_check_count(gram_source *c, uint32_t lo, uint32_t hi); /* of a repetition */
/* A token of the vocabulary, by its text with the angles, <name>, or by number, <[id]>. */
gram_sym gram_source_token(gram_source *c);

/* Enter a group; leave it with gram_leave. False after a failure. */
bool gram_enter(gram_source *c);
static inline void gram_leave(gram_source *c) { c->depth--, c->total--; }

/* The rule is there: its body begins at `at`. Refuses a second one of the name. */
void gram_source_rule(gram_source *c, const char *name, size_t n);
gram_named *gram_source_find(gram_source *c, const char *name, size_t n); /* or NULL */
/* A reference to a rule, built if it was not; GRAM_EPS while dry. */
gram_sym gram_source_reference(gram_source *c, const char *name, size_t n);
/* Build a rule of the table. It may be open: then it is recursive, and a nonterminal. */
gram_sym gram_source_build(gram_source *c, gram_named *rule);
/* After the dry run: build `start`, then what nobody referred to, since its references must be there, too. */
gram_sym gram_source_finish(gram_source *c, const char *start);

/* Symbols in the making wait on the pool's scratch, from base on: in sequence, or as alternatives. */
gram_sym gram_source_seq(gram_source *c, size_t base);
gram_sym gram_source_either(gram_source *c, size_t base);

#endif
