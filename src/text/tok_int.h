/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_int.h - the compiled tokenizer and what the files of its compiler and its runtime share.
 *
 * A blob is one block of little-endian bytes, position independent, used where it lies:
 *
 *   | header | token offsets | token bytes | attributes | string table | merge table | merge results | joins
 *   | added tokens, raw | added tokens, normalised | ops | ranges | pool | id lists |
 *
 * Text space. Tokens are kept as the bytes they stand for in text, and encoding works on those bytes: a
 * byte-level token is decoded from its printable alphabet, a SentencePiece token has a space where its
 * vocabulary says U+2581. So one merge loop serves both kinds; they differ only in the unit it starts from (a
 * byte or a code point).
 *
 * Two flags of a token make encoding quick without making it different:
 *   TOK_MODEL  the token belongs to the BPE model, so text may become it;
 *   TOK_WHOLE  merging the token's own bytes yields exactly this token. A piece equal to it needs no merging.
 * The joins bitmap has a bit for each pair of bytes (a, b) that stand side by side inside some TOK_MODEL
 * token. Where the pair has no bit no merge can ever cross, so a long piece may be cut there: the result
 * is the same. */
#ifndef SQ_TOK_INT_H
#define SQ_TOK_INT_H

#include "text/text.h"

#include <string.h>

enum {
    TOK_MAGIC = 0x4B545153, /* "SQTK" */
    TOK_VERSION = 1,
    TOK_OPS_MAX = 16,           /* normaliser and pre-tokenizer steps together */
    TOK_REGEX_BYTES_MAX = 16384,
    TOK_ADDED_BYTES_MAX = 4096, /* of one added token */
    TOK_EOS_MAX = 64,
    TOK_AFFIX_MAX = 8,          /* ids put before, and ids put after, a text */
    TOK_JOIN_BYTES = 65536 / 8
};
/* Bytes of one text to encode, and units of one piece that has to be merged as a whole. */
#define TOK_TEXT_BYTES_MAX ((size_t)1 << 30)
#define TOK_PIECE_UNITS_MAX ((size_t)1 << 22)

enum { /* tok_header.flags */
    TOK_BYTE_LEVEL = 1,    /* units are bytes; else code points */
    TOK_SPACE_MARK = 2,    /* U+2581 in text and vocabulary is a space */
    TOK_STRIP_FIRST = 4,   /* decoding drops one space at the start of a text */
    TOK_IGNORE_MERGES = 8, /* a piece that is a token is that token, mergeable or not */
    TOK_FUSE_UNK = 16,     /* neighbouring unknown units become one unk */
    TOK_MAY_CUT = 32,      /* every unit has a token of its own, so cutting at joins is exact */
    TOK_FLAGS_ALL = 63
};
enum { /* attributes of a token */
       TOK_PRESENT = 1,
       TOK_MODEL = 2,
       TOK_CONTROL = 4,
       TOK_ADDED = 8,
       TOK_BYTE = 16,
       TOK_EOS = 32,
       TOK_WHOLE = 64
};
enum { /* tok_added.flags */
    TOK_ADD_SPECIAL = 1, TOK_ADD_LSTRIP = 2, TOK_ADD_RSTRIP = 4, TOK_ADD_WORD = 8, TOK_ADD_NORM = 16
};

typedef enum {
    TOK_SEC_OFFSETS, /* u32[n_tokens + 1] into BYTES */
    TOK_SEC_BYTES,
    TOK_SEC_ATTRS,   /* u8[n_tokens] */
    TOK_SEC_STRINGS, /* u64[2^k]: id in the low half, high half of the hash above; TOK_EMPTY: free */
    TOK_SEC_MERGES, /* u64[2^k]: left id | right id | index into RESULTS, see tok_pair_key; TOK_EMPTY: free */
    TOK_SEC_RESULTS, /* tok_result[] */
    TOK_SEC_JOINS, /* bit a * 256 + b */
    TOK_SEC_ADDED_RAW,
    TOK_SEC_ADDED_NORM, /* tok_added[], sorted by bytes */
    TOK_SEC_OPS, /* tok_op[]: normaliser steps, then pre-tokenizer steps */
    TOK_SEC_RANGES, /* tok_range[] of the classes in OPS, each class sorted */
    TOK_SEC_POOL, /* bytes of the strings in OPS and ADDED */
    TOK_SEC_IDS, /* i32: end set, then prefix, then suffix */
    TOK_SEC_COUNT
} tok_sec;
#define TOK_EMPTY UINT64_MAX

typedef struct {
    uint64_t offset, bytes;
} tok_section;
typedef struct {
    uint32_t prio, id; /* lower prio merges first; equal ones leftmost first */
} tok_result;
typedef struct {
    uint32_t offset, bytes; /* in POOL */
    int32_t id;
    uint32_t flags;
} tok_added;
typedef struct {
    uint32_t lo, hi; /* code points, inclusive */
} tok_range;

/* A set of code points: categories, white space and ranges together, possibly complemented. Members below
 * 128 are answered by the bitmap alone. */
typedef struct {
    uint32_t ascii[4];
    uint32_t categories; /* bit per utf8proc category */
    uint32_t first_range, n_ranges;
    uint8_t space, negate, pad[2];
} tok_class;

typedef enum {
    TOK_OP_FORM, /* normaliser: Unicode form `variant` (tok_form) */
    TOK_OP_PREPEND, /* normaliser: text in front of a text that is not empty */
    TOK_OP_REPLACE, /* normaliser: text -> with */
    TOK_OP_MARK, /* normaliser: U+2581 -> space */
    TOK_OP_KNOWN, /* split: hand-compiled regex `variant` (tok_known) */
    TOK_OP_CLASS, /* split: one run of a class */
    TOK_OP_LITERAL, /* split: a string */
    TOK_OP_PCRE, /* split: any other regex */
    TOK_OP_PREFIX, /* a space in front of a piece that does not begin with one (ByteLevel add_prefix_space) */
    TOK_OP_METASPACE, /* U+2581 -> space, prefix by `variant` (tok_scheme), cut before each space if max != 0
                       */
    TOK_OP_COUNT
} tok_op_kind;
typedef enum { TOK_NFC, TOK_NFD, TOK_NFKC, TOK_NFKD, TOK_FORM_COUNT } tok_form;
typedef enum { TOK_KNOWN_GPT2, TOK_KNOWN_QWEN2, TOK_KNOWN_LLAMA3, TOK_KNOWN_COUNT } tok_known;
typedef enum { TOK_SCHEME_NEVER, TOK_SCHEME_FIRST, TOK_SCHEME_ALWAYS, TOK_SCHEME_COUNT } tok_scheme;
typedef enum {
    TOK_ISOLATED, TOK_REMOVED, TOK_WITH_PREVIOUS, TOK_WITH_NEXT, TOK_CONTIGUOUS, TOK_BEHAVIOR_COUNT
} tok_behavior;
typedef enum {
    TOK_LEAD_NONE,
    TOK_LEAD_WHITE,
    TOK_LEAD_SPACE,
    TOK_LEAD_COUNT
} tok_lead; /* \s? or a space and ? */

typedef struct {
    uint8_t kind, variant, behavior, invert;
    uint8_t lead, at_end, pad[2]; /* CLASS: optional lead before the run; the run must reach a line end */
    uint32_t max;                 /* CLASS: longest run; METASPACE: 1 to cut before each space */
    uint32_t text, text_bytes, with, with_bytes; /* in POOL */
    uint32_t reserved;
    tok_class cls;
} tok_op;
_Static_assert(sizeof(tok_op) == 64, "an op is 64 bytes in the blob");

typedef struct {
    uint32_t magic, version;
    uint64_t hash;  /* XXH3-64 of everything after this field */
    uint64_t bytes; /* of the blob */
    uint32_t flags;
    int32_t n_tokens, bos, unk;
    uint32_t id_bits; /* of an id in a merge slot */
    uint32_t n_norm, n_pre;             /* steps in OPS */
    uint32_t n_eos, n_prefix, n_suffix; /* in IDS */
    uint32_t longest_whole; /* bytes of the longest TOK_WHOLE or, with IGNORE_MERGES, TOK_MODEL token */
    uint32_t reserved;
    int32_t unit[256];     /* token of a byte (byte level) or of an ASCII character; -1 none */
    int32_t fallback[256]; /* token <0xHH>; -1 none */
    tok_section sec[TOK_SEC_COUNT];
} tok_header;
_Static_assert(sizeof(tok_header) % 8 == 0, "sections start 8-byte aligned");
enum { TOK_HASHED_FROM = 16 }; /* the hash covers the blob from this byte on */

/* The view: pointers into a checked blob, and the compiled PCRE2 patterns of its unknown regexes. */
struct sq_tok {
    const tok_header *h;
    const uint32_t *offsets;
    const uint8_t *bytes, *attrs;
    const uint64_t *strings, *merges;
    uint64_t strings_mask;
    uint32_t merges_shift, index_bits; /* slot = hash >> shift; low bits of a slot that are the index */
    uint64_t merges_mask;
    const tok_result *results;
    const uint8_t *joins;
    const tok_added *added[2];
    uint32_t n_added[2];
    uint64_t first[2][4]; /* bytes an added token begins with */
    const tok_op *ops;
    const tok_range *ranges;
    const uint8_t *pool;
    const int32_t *ids;
    squish_alloc alloc;
    void *regex[TOK_OPS_MAX]; /* pcre2_code of TOK_OP_PCRE */
};
_Static_assert(sizeof(struct sq_tok) <= SQ_TOK_VIEW_BYTES, "the view fits its storage");

/* ---- hashing: part of the format ------------------------------------------------------------- */

static inline uint64_t tok_fold(uint64_t a, uint64_t b) {
    unsigned __int128 m = (unsigned __int128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Hash of a token's bytes, n > 0. Reads of 8, 4 or 1 bytes that overlap, so no byte is outside p[0..n). */
static inline uint64_t tok_hash(const uint8_t *p, size_t n) {
    const uint64_t k0 = 0x9E3779B97F4A7C15u, k1 = 0xD6E8FEB86659FD93u;
    uint64_t a, b, h = k1 ^ n;
    uint32_t w, v;
    if (n >= 8) {
        for (size_t i = 0; i + 16 < n; i += 8) {
            memcpy(&a, p + i, 8);
            h = tok_fold(h ^ a, k0);
        }
        size_t tail = n > 16 ? n - 16 : 0;
        memcpy(&a, p + tail, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&w, p, 4);
        memcpy(&v, p + n - 4, 4);
        a = w;
        b = v;
    } else {
        a = (uint64_t)p[0] << 16 | (uint64_t)p[n >> 1] << 8 | p[n - 1];
        b = 0;
    }
    return tok_fold(a ^ h, b ^ k0);
}

/* A merge slot is  left << (64 - id_bits) | right << (64 - 2 id_bits) | index. The key is the slot without
 * index. */
static inline uint64_t tok_pair_key(uint32_t left, uint32_t right, uint32_t id_bits) {
    return (uint64_t)left << (64 - id_bits) | (uint64_t)right << (64 - 2 * id_bits);
}
static inline uint64_t tok_pair_hash(uint64_t key) { return (key ^ key >> 29) * 0x9E3779B97F4A7C15u; }

/* ---- lookups (tok_blob.c) -------------------------------------------------------------------- */

/* Id of the token with exactly these bytes, -1. If several have them a TOK_MODEL token is preferred. */
int32_t tok_find(const sq_tok *t, const uint8_t *p, size_t n);

/* The result of merging (left, right), NULL if the pair does not merge. */
static inline const tok_result *tok_merge_of(const sq_tok *t, uint32_t left, uint32_t right) {
    uint64_t key = tok_pair_key(left, right, t->h->id_bits);
    uint64_t at = tok_pair_hash(key) >> t->merges_shift;
    for (;; at = (at + 1) & t->merges_mask) { /* an open table always has a free slot */
        uint64_t slot = t->merges[at];
        if (slot == TOK_EMPTY) return NULL;
        if (slot >> t->index_bits == key >> t->index_bits)
            return &t->results[slot & ((1ull << t->index_bits) - 1)];
    }
}

/* ---- classes of characters (tok_class.c) ----------------------------------------------------- */

enum {
    TOK_L = 1,
    TOK_N = 2,
    TOK_S = 4,
    TOK_NL = 8
}; /* letter, number, white space, CR or LF (which is S too) */
extern const uint8_t tok_ascii_kind[128];
uint32_t tok_kind_wide(uint32_t cp); /* of a code point from 128 on */
bool tok_is_space(uint32_t cp);      /* White_Space */
bool tok_is_word(uint32_t cp);       /* \w of Unicode regular expressions */
bool tok_class_has(const tok_class *c, const tok_range *ranges, uint32_t cp);
void tok_class_fill_ascii(tok_class *c, const tok_range *ranges); /* once, when the class is complete */
/* One code point of well-formed UTF-8; returns its bytes. */
static inline size_t tok_decode(const uint8_t *p, size_t n, uint32_t *cp) {
    if (*p < 0x80) {
        *cp = *p;
        return 1;
    }
    return sq_utf8_decode((const char *)p, n, cp, NULL);
}

/* ---- encoding (tok_encode.c, tok_norm.c, tok_split.c, tok_bpe.c) ----------------------------- */

/* State of one sq_tok_encode call: the result so far and scratch. */
typedef struct {
    const sq_tok *t;
    unsigned flags;
    squish_alloc alloc;
    squish_error *err;
    int32_t *ids;
    size_t n_ids, cap_ids;
    sq_buf norm[2];          /* normaliser steps write them in turn */
    sq_buf copy[2];          /* pieces with a prefix: PREFIX, METASPACE */
    void *work;              /* merging of long pieces */
    size_t work_bytes;
    void *match_data, *match_ctx; /* PCRE2 */
} tok_enc;
void tok_enc_init(tok_enc *e, const sq_tok *t, unsigned flags, const squish_alloc *a, squish_error *err);
squish_status tok_enc_reserve(tok_enc *e, size_t n); /* room for n more ids */

/* Put a text through the normaliser steps. *out points into `in` or into e->norm. */
squish_status tok_normalize(tok_enc *e, sq_span in, sq_span *out);
/* Cut a text by the pre-tokenizer steps and encode the pieces. first: it begins where the user's text
 * begins. */
squish_status tok_pre_tokenize(tok_enc *e, sq_span text, bool first);
/* Encode one piece by the model. */
squish_status tok_bpe_piece(tok_enc *e, const uint8_t *p, size_t n);
/* True if merging p[0..n) alone gives exactly this token (for the compiler). */
bool tok_bpe_is_whole(tok_enc *e, const uint8_t *p, size_t n, int32_t id);
void tok_enc_release(tok_enc *e);

/* ---- regular expressions (tok_regex.c) ------------------------------------------------------- */

/* Turn regex source into an op: KNOWN, CLASS, or PCRE when it is neither. Ranges are appended to `ranges`. */
bool tok_regex_op(const char *source, size_t n, tok_op *op, sq_buf *ranges);
/* Compile op's source for matching. UNSUPPORTED with PCRE2's words. */
squish_status tok_regex_compile(const uint8_t *source, size_t n, const squish_alloc *a, void **out,
                                squish_error *err);
void tok_regex_free(void *code);
/* Next match at or after `at`: *start = SIZE_MAX if there is none. UNSUPPORTED at the match limit. */
squish_status tok_regex_next(tok_enc *e, void *code, const uint8_t *p, size_t n, size_t at, size_t *start,
                             size_t *end);
void tok_regex_enc_release(tok_enc *e);

/* ---- the compiler ---------------------------------------------------------------------------- */

typedef struct {
    sq_span bytes; /* in text space */
    uint8_t attr;
} tok_item;
typedef struct {
    uint32_t left, right, id, prio;
} tok_merge;
typedef struct {
    sq_span text;
    int32_t id;
    uint32_t flags;
} tok_added_item;

/* A tokenizer between its source and its blob. */
typedef struct {
    sq_arena ar; /* holds what the spans point at */
    const squish_alloc *alloc;
    squish_error *err;
    squish_warn_fn warn;
    void *warn_user;
    uint32_t flags;
    int32_t n_tokens, bos, unk;
    tok_item *items;
    tok_merge *merges;
    size_t n_merges;
    tok_added_item *added;
    size_t n_added;
    tok_op ops[TOK_OPS_MAX];
    uint32_t n_norm, n_pre;
    int32_t fallback[256];
    int32_t eos[TOK_EOS_MAX], prefix[TOK_AFFIX_MAX], suffix[TOK_AFFIX_MAX];
    uint32_t n_eos, n_prefix, n_suffix;
    sq_buf pool, ranges;
} tok_ir;

void tok_ir_init(tok_ir *ir, const squish_alloc *a, squish_warn_fn warn, void *warn_user, squish_error *err);
void tok_ir_deinit(tok_ir *ir);
/* Next step of the normaliser or, once pre is true, of the pre-tokenizer; NULL (with the error set) when
 * full. */
tok_op *tok_ir_op(tok_ir *ir, bool pre, tok_op_kind kind);
squish_status tok_ir_pool(tok_ir *ir, sq_span s, uint32_t *offset, uint32_t *bytes);
/* Append a split by regex; warns once for one that runs on PCRE2. */
squish_status tok_ir_regex(tok_ir *ir, const char *source, size_t n, tok_behavior behavior, bool invert);
squish_status tok_ir_add_eos(tok_ir *ir, int64_t id, const char *what);
/* Add every control token whose text is a known end-of-turn name. */
squish_status tok_ir_known_eos(tok_ir *ir);
/* Write the blob (tok_build.c). */
squish_status tok_ir_build(tok_ir *ir, sq_buf *out);
/* Recompute the hash after a change. */
void tok_blob_seal(uint8_t *blob, size_t n);

/* The normalizer, pre_tokenizer, decoder and post_processor of a tokenizer.json (tok_hf_steps.c).
 * byte_level: some pre-tokenizer step is ByteLevel. */
struct json_t;
bool tok_hf_is_byte_level(const struct json_t *pre_tokenizer);
squish_status tok_hf_normalizer(tok_ir *ir, const struct json_t *j, int depth);
squish_status tok_hf_pre_tokenizer(tok_ir *ir, const struct json_t *j, int depth);
squish_status tok_hf_decoder(tok_ir *ir, const struct json_t *j, int depth);
squish_status tok_hf_post_processor(tok_ir *ir, const struct json_t *j, int depth);

/* Bytes of a token spelled in the byte-level alphabet; false if a character is outside it. out has room
 * for s.n. */
bool tok_byte_chars(sq_span s, uint8_t *out, size_t *n);
/* "<0xHH>": its byte, -1 if the text is anything else. */
int tok_byte_token(sq_span s);
/* s with U+2581 made a space, in the arena; NULL: no memory. */
const uint8_t *tok_unmark(sq_arena *ar, sq_span s, size_t *n);
#define TOK_MARK "\xE2\x96\x81" /* U+2581 */

typedef struct {
    char text[64];
} tok_shown;
/* Printable form of untrusted bytes for a message, cut where long. */
const char *tok_show(tok_shown *buf, const void *p, size_t n);

#endif
