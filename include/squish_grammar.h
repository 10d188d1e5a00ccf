/* SPDX-License-Identifier: Apache-2.0
 *
 * squish_grammar.h - more of grammars: any notation, schemas that may be relaxed, canonical tokens. It
 * belongs to squish.h, which has the length a header may have here. */
#ifndef SQUISH_GRAMMAR_H
#define SQUISH_GRAMMAR_H

#include "squish.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* One kind more: GBNF, EBNF or Lark, told apart by what stands in it (docs/grammar.md). */
#define SQUISH_GRAMMAR_TEXT ((squish_grammar_kind)8)

/* What schemas of TAGS are not kept to in, where their elements allow that ("relax"): JSON pointers behind
 * the schemas' names, "weather#/properties/day/pattern, ..."; "": nothing. Lives as long as the grammar. */
const char *squish_grammar_relaxed(const squish_grammar *g);

/* Text that the grammar forces is cut into tokens as the tokenizer cuts it, without asking the model, which
 * might cut it otherwise. Call it before an answer uses the grammar. */
void squish_grammar_cut_canonically(squish_grammar *g);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
