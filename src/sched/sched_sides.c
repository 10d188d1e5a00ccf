/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_sides.c - side branches of guesses: rows of the same step, on sequences of their own.
 *
 *   timeline  | a b c | d' e' f'                 row of c first, logits behind c, d', e', f', g', h'
 *   branch 1  | a b c | g' h'                    begins where d' stands
 *   branch 2  | a b c | d' k'                    begins where e' stands; row d' is stored here too
 *
 * A branch's sequence shares the tiles before its first token, so its rows attend to the same numbers in the
 * same order as if the timeline had gone on that way: logits have the bits of plain decoding. Which of them
 * wins is found by drawing; then the two sequences change places. The sequences are the engine's and are
 * empty between steps. Those who make steps are one thread. */
#include "kv/kv_private.h"
#include "sched/sched.h"

#include <string.h>

squish_status sq_sides_new(sq_engine *e, squish_error *err) {
    if (e->stream || sq_kv_pool_policy(e->kv)->votes) return SQUISH_OK;
    for (int32_t i = 0; i < SQ_BRANCHES_MAX; i++)
        SQ_TRY(sq_kv_seq_new(&e->sides[i], e->kv, e->ctx, err));
    return SQUISH_OK;
}

void sq_sides_begin(sq_sides *x, sq_engine *e, const sq_kv_seq *kv, int32_t computed, int32_t certain) {
    int32_t kept = 0;
    x->rows = 0;
    for (int32_t i = 0; i < x->n; i++) {
        const sq_branch b = x->b[i];
        const int32_t pos = certain + b.at;
        if (!sq_sides_can(e) || e->n_sides == SQ_BRANCHES_MAX) break;
        sq_kv_seq *side = e->sides[e->n_sides];
        if (!sq_kv_seq_fork(side, kv, computed, pos, pos + b.n)) continue;
        e->n_sides++;
        x->b[kept] = b;
        x->kv[kept] = side;
        x->lead[kept++] = sq_kv_fork_lead(computed, pos);
        x->rows += b.n;
    }
    x->n = kept;
}

void sq_sides_add(const sq_sides *x, const sq_step_seg *main, int32_t certain, int32_t *ids, int32_t *m,
                  sq_step_seg *segs, int32_t *n) {
    for (int32_t i = 0; i < x->n; i++) {
        const sq_branch *b = &x->b[i];
        const int32_t pos = certain + b->at, row = main->row0 + pos - main->pos0;
        segs[(*n)++] = (sq_step_seg){.kv = x->kv[i],
                                     .row0 = *m,
                                     .n_rows = b->n,
                                     .pos0 = pos,
                                     .lead = x->lead[i],
                                     .lead_row0 = row - x->lead[i]};
        memcpy(ids + *m, b->ids, (size_t)b->n * sizeof *ids);
        *m += b->n;
    }
}

int32_t sq_sides_find(const sq_sides *x, int32_t at, int32_t id, int32_t *row) {
    *row = 0;
    for (int32_t i = 0; i < x->n; *row += x->b[i++].n)
        if (x->b[i].at == at && x->b[i].ids[0] == id) return i;
    return -1;
}

void sq_sides_end(sq_engine *e) {
    for (; e->n_sides > 0; e->n_sides--) sq_kv_seq_truncate(e->sides[e->n_sides - 1], 0);
    e->sides_of = NULL;
}
