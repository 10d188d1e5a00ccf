/* SPDX-License-Identifier: Apache-2.0
 *
 * model_forward_int.h - the forward pass's inside: model_forward.c, model_moe.c, model_latent.c. */
#ifndef SQ_MODEL_FORWARD_INT_H
#define SQ_MODEL_FORWARD_INT_H

#include "model/model_look.h"
#include "model/model_stream.h"

/* ---- latent attention (model_latent.c) --------------------------------------------------------- */

typedef struct {
    sq_rows q_a, kv_a; /* [m][q_rank], [m][kv_rank + rope] */
    sq_mla_rows rows;
} sq_latent_rows;

/* ---- experts (model_moe.c) ------------------------------------------------------------------- */

typedef struct {
    sq_rows scores, gate;       /* [m][n], [m][1] */
    sq_rows shared_mid, shared; /* [m][shared_ffn], [m][hidden] */
    sq_expert_rows e;
    sq_routes routes; /* host */
} sq_moe_rows;

struct sq_forward {
    squish_alloc alloc;
    const sq_model *m;
    sq_backend *b;
    sq_stream *stream;     /* NULL: weights are where the model has them */
    const sq_layer *layer; /* at hand; NULL between runs */
    squish_error error;    /* why weights could not be read; code OK: they could */
    sq_kv_shape kv_shape;
    sq_kv_policy kv;
    int32_t m_max, n_seg_max, out_max;
    sq_rows x, h, q, k, v, a, y, f;      /* m_max rows */
    sq_rows out, logits;                 /* out_max rows */
    sq_rows part;                        /* SQ_PART_ROWS rows of x, between two layers */
    float *cos[2], *sin[2];              /* [m_max][head_dim / 2], device */
    double *inv_freq[2], rope_factor[2]; /* [head_dim / 2], host */
    int32_t *pos;                        /* [m_max], host */
    sq_attn_seg *segs;                   /* [n_seg_max], host */
    sq_attn_seal *seals;                 /* [seals_max], host: tiles that become sealed in this step */
    int32_t n_seals;
    float *seen; /* [2][last rows of a prompt][heads], host: scratch of who observes them */
    void *device;
    size_t device_bytes, host_bytes;
    void *host;
    sq_moe_rows moe; /* empty without experts */
    sq_latent_rows latent; /* empty without latent attention */
    sq_tap_fn tap;   /* NULL: nobody listens */
    void *tap_user;
    sq_look *look;   /* NULL: nobody guesses experts */
};

/* The layer's attention from h to a: f->segs are filled in. */
void sq_latent_attention(sq_forward *f, int32_t i_layer, int32_t n_segs);
size_t sq_latent_plan(const sq_forward *f, sq_latent_rows *r, char *memory);

static inline bool sq_forward_wants_q8(const sq_weight *w) { return sq_wtype_wants_q8((sq_wtype)w->wtype); }
/* Show the input of a matrix to whoever records it. */
void sq_forward_show(sq_forward *f, int32_t i_layer, sq_tap tap, const sq_rows *r);

/* Device and host memory for steps of m_max rows: carved from `memory`, or only counted if it is NULL. */
size_t sq_moe_plan_device(const sq_config *c, int32_t m_max, sq_moe_rows *r, char *memory);
size_t sq_moe_plan_host(const sq_config *c, int32_t m_max, sq_moe_rows *r, char *memory);
/* x += what the experts of the layer give for x. Fails as sq_forward_run does. */
squish_status sq_moe_block(sq_forward *f, int32_t i_layer);

#endif
