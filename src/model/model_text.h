/* SPDX-License-Identifier: Apache-2.0
 *
 * model_text.h - the tokenizer that a GGUF file carries in its metadata. */
#ifndef SQ_MODEL_TEXT_H
#define SQ_MODEL_TEXT_H

#include "format/format.h"
#include "text/text.h"

/* Compile the vocabulary under tokenizer.ggml.* of g into blob (empty, see sq_tok_open). a may be NULL.
 * NOT_FOUND: the file has no vocabulary. CORRUPT, UNSUPPORTED, NO_MEMORY, each naming the key. */
squish_status sq_model_tok_from_gguf(const sq_gguf *g, const squish_alloc *a, sq_buf *blob,
                                     squish_warn_fn warn, void *warn_user, squish_error *err);

#endif
