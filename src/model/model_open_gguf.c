/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_gguf.c - opening a GGUF file for its words: vocabulary and chat template. Its tensors are not
 * run. */
#include "model/model_int.h"
#include "model/model_text.h"

squish_status sq_model_open_gguf(sq_model **out, const char *path, const squish_model_options *opt,
                                 squish_error *err) {
    *out = NULL;
    sq_model *m = NULL;
    SQ_TRY(sq_model_new(&m, opt, err));
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_gguf_open(&m->gguf, path, &m->alloc, err));
    if (!opt->text_only) {
        st = sq_fail(err, SQUISH_UNSUPPORTED,
                     "%s: GGUF weights cannot be run (only its vocabulary and template can be used; give a "
                     "Hugging Face folder)",
                     path);
        goto fail;
    }
    sq_span source;
    SQ_GUARD(sq_model_tok_from_gguf(m->gguf, &m->alloc, &m->tok_blob, opt->warn, opt->warn_user, err));
    if (sq_gguf_str(m->gguf, "tokenizer.chat_template", &source) && source.n) {
        /* A template we cannot read disables chat, not the vocabulary. */
        st = sq_tmpl_compile((const char *)source.p, source.n, &m->alloc, &m->tmpl_blob, &m->tmpl_error);
        if (st == SQUISH_NO_MEMORY) goto fail;
    }
    SQ_GUARD(sq_model_open_text(m, (sq_span){(uint8_t *)m->tok_blob.data, m->tok_blob.len},
                                (sq_span){(uint8_t *)m->tmpl_blob.data, m->tmpl_blob.len}, err));
    SQ_GUARD(sq_model_finish(m, path, "gguf", err));
    *out = m;
    return SQUISH_OK;
fail:
    if (st == SQUISH_NO_MEMORY) sq_fail(err, st, "%s: out of memory", path);
    sq_model_close(m);
    return st;
}
