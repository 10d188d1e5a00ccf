/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_heads.c - a file of heads from arbitrary bytes, also with its sums made right so that what is behind
 * them is reached: what is accepted can be read to its last byte, and names ids that there are. */
#include "model/model_heads.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sq_heads *h) {
    for (int32_t i = 0; i < h->n_ids; i++)
        if (h->ids[i] < 0 || h->ids[i] >= h->n_vocab) abort();
    for (int32_t i = 0; i < h->n; i++) {
        const sq_weight *w[] = {&h->head[i].in, &h->head[i].mid};
        volatile float sink = h->head[i].in_bias[h->hidden - 1] + h->head[i].mid_bias[h->hidden - 1];
        (void)sink;
        for (int k = 0; k < 2; k++) {
            float *row = malloc((size_t)w[k]->cols * sizeof *row);
            for (int32_t r = 0; r < w[k]->rows; r += w[k]->rows - 1) sq_weight_row(w[k], r, row);
            free(row);
        }
    }
}

static void look(const uint8_t *p, size_t n) {
    sq_heads *h;
    squish_error err = {0};
    squish_status st = sq_heads_parse(&h, (sq_span){p, n}, "fuzz", NULL, &err);
    if ((st == SQUISH_OK) != (h != NULL)) abort();
    if (h) st = sq_heads_check(h, &err);
    if (st == SQUISH_OK) use(h);
    if (st != SQUISH_OK && (err.code != st || err.text[0] == 0)) abort();
    sq_heads_close(h);
}

/* The sums of a file whose header can be understood are made right. */
static void mend(uint8_t *p, size_t n) {
    enum { HEADER = 128 };
    uint32_t w[8];
    if (n < HEADER) return;
    memcpy(w, p + 8, sizeof w);
    sq_heads_head h = {.n = (int32_t)w[1],
                       .hidden = (int32_t)w[2],
                       .n_ids = (int32_t)w[3],
                       .n_vocab = (int32_t)w[4],
                       .type = (sq_wtype)w[5]};
    sq_heads_layout l;
    if (sq_heads_layout_of(&h, &l, NULL) != SQUISH_OK || l.bytes != n) return;
    sq_heads_write_header(&h, &l, p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    uint8_t *p = malloc(size);
    memcpy(p, data, size);
    look(p, size);
    mend(p, size);
    look(p, size);
    free(p);
    return 0;
}
