/* SPDX-License-Identifier: Apache-2.0
 *
 * model_heads.h - heads that guess the tokens after the next one (Hydra: Ankner et al., arXiv:2402.05109, on
 * Medusa: Cai et al., arXiv:2401.10774), their file, and running them.
 *
 *   h          hidden state behind the final norm, of the position whose logits gave token x1
 *   x1 .. xi   tokens since: x1 is certain, those behind it are guesses of heads 1 .. i-1
 *
 *   u = W_i [h; x1; ..; xi] + b_i          embeddings of the base, scaled to the size of h
 *   z = u + silu(R_i u + c_i)
 *   logits = T z                           T: rows of the base's own head, of the ids that heads can name
 *
 * Head i guesses the token behind x1 .. xi. A full head of the base would cost more than a guess brings; the
 * ids are the commonest of what the base says, and T is made of its weights when an engine first guesses.
 *
 * Heads only guess (sched_spec.h): whatever a file holds, text is the same. So a file is checked for what
 * keeps memory safe, for its sums, and for the model it was made for, and numbers are taken as they are. */
#ifndef SQ_MODEL_HEADS_H
#define SQ_MODEL_HEADS_H

#include "model/model.h"

enum {
    SQ_HEADS_MAX = 8,
    SQ_HEADS_IDS_MAX = 1 << 16,
    SQ_HEADS_VERSION = 1,
    SQ_HEADS_ALIGN = 64 /* of every part of the file */
};
#define SQ_HEADS_FILE "heads.sqh" /* beside the tiers, or in the folder of the checkpoint */

typedef struct {
    sq_weight in, mid;               /* W_i [hidden, (i + 1) * hidden], R_i [hidden, hidden] */
    const float *in_bias, *mid_bias; /* [hidden] */
} sq_head;

typedef struct sq_heads {
    squish_alloc alloc;
    int32_t n, hidden, n_ids, n_vocab;
    float embed_scale;
    float agreement[SQ_HEADS_MAX]; /* how often head i named the base's likeliest token, when it was made */
    const int32_t *ids;            /* [n_ids], rising, each < n_vocab */
    sq_head head[SQ_HEADS_MAX];    /* [n] */
    uint64_t model;                /* sq_heads_model of the base */
    sq_span file;
    sq_map map; /* closed if the bytes are somebody else's */
} sq_heads;

/* What a base has to have in common with the one that heads were made for: its shape and its final norm,
 * which every tier of a model keeps as it is. */
uint64_t sq_heads_model(const sq_model *m);

/* ---- the file (model_heads_file.c) ----------------------------------------------------------- */

/*   header 128 bytes, little endian:
 *      "squishHD", u32 version, heads, hidden, ids, vocabulary, weight type, f32 embed_scale, u32 zero,
 *      u64 model, u64 sum of what follows the header (XXH3), f32 agreement [8], zeros, u64 sum of the header
 *   ids i32 [ids], then for each head in_bias, mid_bias f32 [hidden], W, R as sq_weight_make has them */
typedef struct {
    int32_t n, hidden, n_ids, n_vocab;
    sq_wtype type; /* I4_G64 or I8_G64, scales F16 */
    float embed_scale, agreement[SQ_HEADS_MAX];
    uint64_t model;
} sq_heads_head;
/* Offsets of the parts and the size of the whole; n checked. */
typedef struct {
    size_t ids, in_bias[SQ_HEADS_MAX], mid_bias[SQ_HEADS_MAX], in[SQ_HEADS_MAX], mid[SQ_HEADS_MAX], bytes;
} sq_heads_layout;
/* INVALID names what is out of range. */
squish_status sq_heads_layout_of(const sq_heads_head *h, sq_heads_layout *out, squish_error *err);
/* The 128 bytes in front of a file whose other bytes are there already. */
void sq_heads_write_header(const sq_heads_head *h, const sq_heads_layout *l, uint8_t *file);
/* Bytes that outlive the result, which is freed by sq_heads_close. Only the header is read: CORRUPT,
 * UNSUPPORTED say what is wrong. */
squish_status sq_heads_parse(sq_heads **out, sq_span file, const char *name, const squish_alloc *a,
                             squish_error *err);
/* Map and parse. INVALID: heads of another model. NOT_FOUND, NO_MEMORY, IO. */
squish_status sq_heads_open(sq_heads **out, const char *path, const sq_model *m, squish_error *err);
/* Sum and ids, which opening leaves for the first use; CORRUPT. */
squish_status sq_heads_check(const sq_heads *h, squish_error *err);
void sq_heads_close(sq_heads *h);

/* ---- running them (model_heads.c) ------------------------------------------------------------ */

/* T and scratch of one engine; guesses of one timeline at a time. */
typedef struct sq_heads_run sq_heads_run;
squish_status sq_heads_run_new(sq_heads_run **out, const sq_heads *h, const sq_model *m, sq_backend *b,
                               const squish_alloc *a, squish_error *err);
void sq_heads_run_free(sq_heads_run *r);
uint64_t sq_heads_run_bytes(const sq_heads *h); /* what new reserves; NULL: 0 */
/* Before the first guess, once: the file is checked (sq_heads_check) and T made. Allocates nothing. */
squish_status sq_heads_ready(sq_heads_run *r, squish_error *err);
/* Begin behind hidden state h [hidden] (host) and the n >= 1 tokens since. Further tokens are pushed. */
void sq_heads_begin(sq_heads_run *r, const float *h, const int32_t *since, int32_t n);
void sq_heads_push(sq_heads_run *r, int32_t id);
/* Logits over h->ids of the token behind those that are there, host, valid until the next call; NULL: there
 * is no head for so many. */
const float *sq_heads_logits(sq_heads_run *r);

#endif
