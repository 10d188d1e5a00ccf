/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_load.h - tokenizers for tests: compiled from a file or from JSON in memory, with everything they
 * own. */
#ifndef SQ_TEST_TOK_LOAD_H
#define SQ_TEST_TOK_LOAD_H

#include "text/text.h"

typedef struct {
    sq_buf blob;
    sq_tok_view view;
    const sq_tok *tok;
    int n_warnings;
    char warning[256]; /* the last one */
    squish_error err;
} sq_test_tok;

/* Compile src and open the blob; t->tok is NULL and t->err tells when that fails. */
squish_status sq_test_tok_hf(sq_test_tok *t, const sq_tok_hf_source *src);
squish_status sq_test_tok_json(sq_test_tok *t, const char *json); /* tokenizer.json alone */
/* tests/golden/tok/bases/BASE.json with the top-level keys of the object `patch` (may be NULL) replaced. */
squish_status sq_test_tok_base(sq_test_tok *t, const char *base, const char *patch);
squish_status sq_test_tok_gguf(sq_test_tok *t, const sq_tok_gguf_source *src);
void sq_test_tok_free(sq_test_tok *t);

/* Ids of text as "1 2 3", in out; an error's text if it fails. */
const char *sq_test_tok_ids(const sq_tok *t, const char *text, size_t n, unsigned flags, char *out,
                            size_t out_n);
/* Text of ids through the streaming detokenizer, NUL-terminated in out. */
const char *sq_test_tok_text(const sq_tok *t, const int32_t *ids, size_t n, bool special, char *out,
                             size_t out_n);

/* A whole file, NUL-terminated, from malloc; NULL if it cannot be read. */
char *sq_test_slurp(const char *path, size_t *n);

#endif
