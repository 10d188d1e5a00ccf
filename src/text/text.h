/* SPDX-License-Identifier: Apache-2.0
 *
 * text.h - from text to token ids and back, and chat templates.
 *
 * A tokenizer and a template exist in one form only: a compiled blob, position independent, little-endian,
 * that lies in the .sqw file (sections TOKZ and TMPL) and is used in place: opening it checks tables,
 * allocates nothing, builds nothing. The compilers make that blob from tokenizer.json, from GGUF metadata or
 * from Jinja source.
 *
 * Everything behind a `const sq_tok *` or `const sq_tmpl *` is read-only and safe from several threads. */
#ifndef SQ_TEXT_H
#define SQ_TEXT_H

#include "base/base.h"

struct json_t; /* jansson */

/* ---- tokenizer ------------------------------------------------------------------------------- */

typedef struct sq_tok sq_tok; /* a view onto a blob; see tok_int.h */
enum { SQ_TOK_VIEW_BYTES = 512 };
/* Storage for a view, so that the owner decides where it lives. */
typedef union {
    uint64_t align;
    unsigned char bytes[SQ_TOK_VIEW_BYTES];
} sq_tok_view;

/* What the compiler takes from beside tokenizer.json. */
typedef struct {
    sq_span tokenizer_json;        /* Hugging Face tokenizer.json; required */
    sq_span tokenizer_config_json; /* may be empty: bos/eos names, add_bos_token */
    sq_span generation_config_json;/* may be empty: eos_token_id (int or list) joins the end set */
    sq_span config_json;           /* may be empty: eos_token_id */
    const char *const *extra_eos;  /* token strings that end a turn, NULL-terminated; may be NULL */
} sq_tok_hf_source;

/* Compile a tokenizer.json: byte-level BPE and SPM-style BPE. Writes the blob
 * into out. Unknown pre-tokenizer regexes are kept and run on PCRE2 with match limits (one warn line).
 * Errors: CORRUPT, UNSUPPORTED, NO_MEMORY, each naming field and value. */
squish_status sq_tok_compile_hf(const sq_tok_hf_source *src, const squish_alloc *a, sq_buf *out,
                                squish_warn_fn warn, void *warn_user, squish_error *err);

/* The vocabulary of a GGUF file, as its reader hands it over. Arrays live in the file mapping. */
typedef struct {
    const char *model, *pre;           /* "gpt2" or "llama"; pre-tokenizer name or NULL */
    int32_t n_tokens, n_merges;
    const sq_span *tokens, *merges;    /* bytes of each, not NUL-terminated */
    const int32_t *types; /* may be NULL: all normal. 1 normal 2 unknown 3 control 4 user 5 unused 6 byte */
    const float *scores;               /* "llama" only */
    int32_t bos, eos, eot, unk, pad;   /* -1: none */
    int8_t add_bos, add_eos, add_space_prefix; /* -1: not said */
} sq_tok_gguf_source;
squish_status sq_tok_compile_gguf(const sq_tok_gguf_source *src, const squish_alloc *a, sq_buf *out,
                                  squish_warn_fn warn, void *warn_user, squish_error *err);

/* Check a blob (every offset, count and id) and set up a view on it; the blob must be 8-byte aligned and
 * outlive the view. Allocates only if the pre-tokenizer needs PCRE2. CORRUPT for any inconsistency. */
squish_status sq_tok_open(sq_tok_view *view, sq_span blob, const squish_alloc *a, const sq_tok **out,
                          squish_error *err);
void sq_tok_close(const sq_tok *t);

enum { SQ_TOK_SPECIAL = 1, SQ_TOK_BOS_EOS = 2 }; /* equal to SQUISH_TOK_* */
/* Encode text[0..n) (ill-formed UTF-8 is read as U+FFFD). ids grow in out_arena. Added tokens that are not
 * special are always recognised; special ones only with SQ_TOK_SPECIAL. SQ_TOK_BOS_EOS adds nothing that
 * already stands there. NO_MEMORY, UNSUPPORTED (PCRE2 match limit), INVALID (a text over 1 GiB, or a run of
 * over 4 Mi units that no merge boundary divides). */
squish_status sq_tok_encode(const sq_tok *t, const char *text, size_t n, unsigned flags, sq_arena *out_arena,
                            int32_t **ids, size_t *n_ids, squish_error *err);
int32_t sq_tok_count(const sq_tok *t);                 /* ids are 0..count-1; gaps have no bytes */
/* Bytes of a token as they stand in text (control tokens: their name). False if out of range or a gap. */
bool sq_tok_bytes(const sq_tok *t, int32_t id, sq_span *out);
bool sq_tok_is_control(const sq_tok *t, int32_t id);   /* special: never shown, never matched in user text */
bool sq_tok_is_eos(const sq_tok *t, int32_t id);
int32_t sq_tok_bos(const sq_tok *t);                   /* -1: none */
int32_t sq_tok_eos(const sq_tok *t);                   /* the first of the end set, -1: none */
int32_t sq_tok_find(const sq_tok *t, const char *bytes, size_t n); /* id of an exact token, -1 */
uint64_t sq_tok_hash(const sq_tok *t);                 /* of the blob: two equal vocabularies compare equal */

/* Streaming detokenizer: ids in, certain UTF-8 out. Holds at most a few bytes; no allocation. */
typedef struct {
    const sq_tok *tok;
    uint8_t pending[4];
    uint8_t n_pending;
    bool at_start;      /* an SPM vocabulary strips one leading space of the text */
    bool with_special;
} sq_detok;
void sq_detok_init(sq_detok *d, const sq_tok *t, bool with_special, bool at_text_start);
/* Append the text that became certain with id (or nothing). Ill-formed bytes become U+FFFD, once per maximal
 * subpart, and never a byte is taken back. False: out is full. */
bool sq_detok_push(sq_detok *d, int32_t id, sq_buf *out);
bool sq_detok_finish(sq_detok *d, sq_buf *out); /* flush what is held */

/* ---- chat templates (the Jinja subset) ------------------------------------------------------- */

typedef struct sq_tmpl sq_tmpl;
enum { SQ_TMPL_VIEW_BYTES = 256 };
typedef union {
    uint64_t align;
    unsigned char bytes[SQ_TMPL_VIEW_BYTES];
} sq_tmpl_view;

/* Compile Jinja source (trim_blocks and lstrip_blocks on, final newline dropped) to a blob.
 * UNSUPPORTED or CORRUPT names line and construct. Limits: source 1 MiB, nesting 64. */
squish_status sq_tmpl_compile(const char *source, size_t n, const squish_alloc *a, sq_buf *out,
                              squish_error *err);
/* Check a blob (every offset, class and order) and set up a view on it; allocates nothing. The blob must be
 * 4-byte aligned and outlive the view. CORRUPT for any inconsistency. */
squish_status sq_tmpl_open(sq_tmpl_view *view, sq_span blob, const sq_tmpl **out, squish_error *err);
const char *sq_tmpl_source(const sq_tmpl *t); /* NUL-terminated */

typedef struct {
    int64_t now_unix;      /* for strftime_now (UTC) */
    uint64_t steps_max;    /* 0: 5,000,000 */
    size_t output_max;     /* 0: 16 MiB */
} sq_tmpl_limits;
/* Render with the object `vars` (messages, tools, add_generation_prompt, bos_token, ...) into out.
 * INVALID: raise_exception (its words) or a type error as Jinja would raise, with the line. NO_MEMORY: a
 * limit. */
squish_status sq_tmpl_render(const sq_tmpl *t, const struct json_t *vars, const sq_tmpl_limits *limits,
                             const squish_alloc *a, sq_buf *out, squish_error *err);

#endif
