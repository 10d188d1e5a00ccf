/* SPDX-License-Identifier: Apache-2.0
 *
 * model_pagein.c - weights come into memory while the first prompt already runs.
 *
 * Left to page faults, a cold file is read in the order and at the pace in which threads happen to stumble
 * over it. One thread asks for the matrices in the order they run, a window ahead of the piece it waits for,
 * so the disk always has something to do, and the forward pass follows a little behind. Where everything is
 * in the page cache already it only fills page tables, which somebody must do anyway.
 *
 * Threads: one, which reads the model's tables and touches nothing else; stopped before the model goes. */
#include "model/model.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PIECE = 8 << 20, AHEAD = 4, GAP = 1 << 16 };

typedef struct {
    const uint8_t *p;
    size_t n;
} span;

struct sq_pagein {
    squish_alloc alloc;
    pthread_t thread;
    bool running;
    atomic_bool stop;
    size_t n, room;
    span spans[]; /* [room], n of them used, in the order they run */
};

/* Neighbours in the file become one span. */
static void add(sq_pagein *p, const sq_weight *w) {
    const uint8_t *at = w->data;
    const size_t bytes = (size_t)sq_div_up(w->rows, SQ_TILE_ROWS) * w->tile_bytes;
    span *last = p->n ? &p->spans[p->n - 1] : NULL;
    if (!at || bytes == 0) return;
    if (last && at >= last->p + last->n && at - (last->p + last->n) <= GAP)
        last->n = (size_t)(at - last->p) + bytes;
    else if (p->n < p->room)
        p->spans[p->n++] = (span){at, bytes};
}

static void *work(void *user) {
    sq_pagein *p = user;
    for (size_t i = 0; i < p->n; i++) {
        const span s = p->spans[i];
        size_t asked = 0;
        for (size_t at = 0; at < s.n && !atomic_load(&p->stop); at += PIECE) {
            const size_t want = at + (size_t)AHEAD * PIECE < s.n ? at + (size_t)AHEAD * PIECE : s.n;
            if (want > asked) sq_os_page_ahead(s.p + asked, want - asked);
            asked = want;
            sq_os_page_in(s.p + at, s.n - at < PIECE ? s.n - at : PIECE);
        }
    }
    return NULL;
}

squish_status sq_pagein_new(sq_pagein **out, const sq_model *m, squish_error *err) {
    const size_t room = (size_t)m->cfg.n_layers * SQ_ROLE_COUNT + 1;
    *out = NULL;
    sq_pagein *p = sq_alloc_zero(&m->alloc, sizeof *p + room * sizeof *p->spans);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "page-in: out of memory");
    p->alloc = m->alloc;
    p->room = room;
    sq_want w;
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++)
        if (!w.vector && w.layer >= 0) add(p, sq_model_matrix(m, &w));
    add(p, &m->head);
    /* Without a thread the pages come by themselves, later. */
    p->running = pthread_create(&p->thread, NULL, work, p) == 0;
    *out = p;
    return SQUISH_OK;
}

void sq_pagein_free(sq_pagein *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    if (p->running) pthread_join(p->thread, NULL);
    const squish_alloc a = p->alloc;
    sq_alloc_free(&a, p, sizeof *p + p->room * sizeof *p->spans);
}
