/* SPDX-License-Identifier: Apache-2.0
 *
 * model_heads.c - running heads: one guess after the other behind one hidden state.
 *
 *   x [h; x1; ..; xn]  filled from the left; head i takes its first i + 1 parts
 *
 * Rows are one, so a row of fewer columns lies at the beginning of a longer one. */
#include "model/model_heads.h"

#include <string.h>

static const sq_wtype TABLE = SQ_W_I8_G64;

struct sq_heads_run {
    squish_alloc alloc;
    const sq_heads *h;
    const sq_weight *embed, *base_head;
    float scale; /* of embeddings */
    sq_backend *b;
    sq_rows x, e, u, s, logits;
    sq_rows rows; /* of the base's head, on their way into the table */
    sq_weight table;
    int32_t n; /* tokens in x */
    bool ready;
    void *memory;
    size_t bytes;
};

static size_t plan(sq_heads_run *r, const sq_heads *h, char *memory) {
    const struct {
        sq_rows *rows;
        int32_t m, cols;
        bool q;
    } all[] = {{&r->x, 1, (h->n + 1) * h->hidden, true},
               {&r->e, 1, h->hidden, false},
               {&r->u, 1, h->hidden, true},
               {&r->s, 1, h->hidden, false},
               {&r->logits, 1, h->n_ids, false},
               {&r->rows, SQ_TILE_ROWS, h->hidden, false}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        if (memory) sq_rows_carve(all[i].rows, all[i].m, all[i].cols, all[i].q, memory + at);
        at += sq_rows_bytes(all[i].m, all[i].cols, all[i].q);
    }
    uint64_t bytes = 0;
    sq_weight_bytes(TABLE, h->n_ids, h->hidden, &bytes); /* sizes are checked */
    if (memory) r->table = sq_weight_make(TABLE, SQ_SCALE_F16, h->n_ids, h->hidden, (uint8_t *)memory + at);
    return at + (size_t)bytes;
}

/* T from the base's head, in codes of 8 bits. */
static void make_table(sq_heads_run *r) {
    const sq_encoding e = {.type = TABLE, .scale = SQ_SCALE_F16, .method = SQ_QUANT_RTN};
    const size_t ld = (size_t)r->h->hidden;
    uint8_t *out = (uint8_t *)r->memory + (r->table.data - (const uint8_t *)r->memory);
    for (int32_t first = 0; first < r->h->n_ids; first += SQ_TILE_ROWS) {
        const int32_t left = r->h->n_ids - first, n = left < SQ_TILE_ROWS ? left : SQ_TILE_ROWS;
        for (int32_t i = 0; i < n; i++)
            sq_weight_row_whole(r->base_head, r->h->ids[first + i], r->rows.f + (size_t)i * ld);
        sq_quant_tile(&e, r->rows.f, ld, n, r->h->hidden, out);
        out += r->table.tile_bytes;
    }
}

squish_status sq_heads_ready(sq_heads_run *r, squish_error *err) {
    if (r->ready) return SQUISH_OK;
    SQ_TRY(sq_heads_check(r->h, err));
    make_table(r);
    r->ready = true;
    return SQUISH_OK;
}

uint64_t sq_heads_run_bytes(const sq_heads *h) {
    sq_heads_run r;
    return h ? plan(&r, h, NULL) : 0;
}

squish_status sq_heads_run_new(sq_heads_run **out, const sq_heads *h, const sq_model *m, sq_backend *b,
                               const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_heads_run *r = sq_alloc_zero(a, sizeof *r);
    if (!r) return sq_fail(err, SQUISH_NO_MEMORY, "heads: out of memory");
    *r = (sq_heads_run){.alloc = *a,
                        .h = h,
                        .embed = &m->embed,
                        .base_head = &m->head,
                        .scale = h->embed_scale * m->cfg.embed_scale,
                        .b = b};
    r->bytes = plan(r, h, NULL);
    r->memory = sq_backend_alloc(b, r->bytes);
    if (!r->memory) {
        sq_heads_run_free(r);
        return sq_fail(err, SQUISH_NO_MEMORY, "heads: out of memory");
    }
    plan(r, h, r->memory);
    *out = r;
    return SQUISH_OK;
}

void sq_heads_run_free(sq_heads_run *r) {
    if (!r) return;
    const squish_alloc a = r->alloc;
    sq_backend_release(r->b, r->memory, r->bytes);
    sq_alloc_free(&a, r, sizeof *r);
}

void sq_heads_push(sq_heads_run *r, int32_t id) {
    if (r->n == r->h->n) {
        r->n++; /* beyond: no head takes so many */
        return;
    }
    if (r->n > r->h->n) return;
    sq_be_embed(r->b, r->embed, &id, 1, r->scale, &r->e);
    r->n++;
    memcpy(r->x.f + (size_t)r->n * (size_t)r->h->hidden, r->e.f, (size_t)r->h->hidden * sizeof *r->x.f);
}

void sq_heads_begin(sq_heads_run *r, const float *h, const int32_t *since, int32_t n) {
    memcpy(r->x.f, h, (size_t)r->h->hidden * sizeof *r->x.f);
    r->n = 0;
    for (int32_t i = 0; i < n; i++) sq_heads_push(r, since[i]);
}

const float *sq_heads_logits(sq_heads_run *r) {
    if (r->n < 1 || r->n > r->h->n) return NULL;
    const sq_head *k = &r->h->head[r->n - 1];
    sq_rows x = r->x;
    x.m = 1;
    x.cols = (r->n + 1) * r->h->hidden;
    x.groups = x.cols / SQ_GROUP;
    sq_be_quantise(r->b, &x);
    const sq_linear in = {&k->in, k->in_bias, &r->u, false};
    sq_be_linear(r->b, &x, &in, 1);
    sq_be_quantise(r->b, &r->u);
    const sq_linear mid = {&k->mid, k->mid_bias, &r->s, false};
    sq_be_linear(r->b, &r->u, &mid, 1);
    sq_be_silu_add(r->b, &r->u, &r->s);
    sq_be_quantise(r->b, &r->u);
    const sq_linear table = {&r->table, NULL, &r->logits, false};
    sq_be_linear(r->b, &r->u, &table, 1);
    return sq_be_host(r->b, &r->logits);
}
