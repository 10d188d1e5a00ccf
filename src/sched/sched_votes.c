/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_votes.c - the end of a prompt, and what becomes of old tiles behind it: kv_private.c says which, the
 * backend writes them. */
#include "kv/kv_private.h"
#include "kv/kv_snap.h"
#include "sched/sched.h"

#include <math.h>
#include <string.h>

enum { JUDGES = 32 /* last tokens of a prompt, which stand for its question */ };

/* Write the pages of moves, and let them take their places. */
static void move_tiles(sq_engine *e, sq_kv_seq *kv, const sq_kv_move *moves, int32_t n) {
    sq_attn_move pages[SQ_KV_MOVES_MAX];
    for (int32_t l = 0; l < e->m->cfg.n_layers; l++) {
        const sq_attn_shape s = sq_forward_attn_shape(e->f, l);
        for (int32_t i = 0; i < n; i++)
            pages[i] = (sq_attn_move){moves[i].from_open ? sq_kv_column_page(e->kv, moves[i].from, l)
                                                         : sq_kv_column_sealed_page(e->kv, moves[i].from, l),
                                      sq_kv_column_sealed_page(e->kv, moves[i].to, l), moves[i].from_open,
                                      sq_kv_seq_weight(kv, l)};
        sq_be_attn_move(e->b, &s, pages, n);
    }
    sq_kv_seq_moved(kv, moves, n);
}

/* A tile loses bits for want of memory. False: there is no budget, or nothing can give. */
static bool give(sq_engine *e, sq_kv_seq *kv) {
    sq_kv_move move;
    if (!sq_kv_pool_policy(e->kv)->budget || sq_kv_seq_give(kv, &move) == 0) return false;
    move_tiles(e, kv, &move, 1);
    return true;
}

/* Of a prompt that has ended drop what its end does not look at. */
static squish_status drop_tokens(sq_engine *e, sq_kv_seq *kv, squish_error *err) {
    while (sq_kv_seq_snap_begin(kv, NULL) != SQUISH_OK)
        if (!give(e, kv)) return sq_kv_seq_snap_begin(kv, err);
    for (int32_t l = 0; l < e->m->cfg.n_layers; l++) {
        const sq_attn_shape s = sq_forward_attn_shape(e->f, l);
        int32_t n;
        uint8_t *const *to;
        const int32_t *slots = sq_kv_seq_snap_choose(kv, l, &n, &to);
        sq_be_attn_gather(e->b, &s, sq_kv_seq_pages(kv, l), sq_kv_seq_sealed_pages(kv, l),
                          sq_kv_seq_reads(kv), slots, n, to);
    }
    sq_kv_seq_snap_end(kv);
    return SQUISH_OK;
}

squish_status sq_votes_run(sq_engine *e, sq_kv_seq *kv, squish_error *err) {
    if (sq_kv_seq_snap_due(kv)) SQ_TRY(drop_tokens(e, kv, err));
    sq_kv_move moves[SQ_KV_MOVES_MAX];
    for (int32_t n; (n = sq_kv_seq_events(kv, moves)) > 0;) move_tiles(e, kv, moves, n);
    return SQUISH_OK;
}

squish_status sq_votes_room(sq_engine *e, sq_kv_seq *kv, int32_t n, squish_error *err) {
    const uint64_t slack = sq_kv_pool_slack(e->kv, false), least = sq_kv_pool_slack(e->kv, true);
    do {
        if (sq_kv_pool_make_room(e->kv, sq_kv_seq_missing(kv, n) + slack)) return SQUISH_OK;
    } while (give(e, kv));
    if (sq_kv_pool_make_room(e->kv, sq_kv_seq_missing(kv, n) + least)) return SQUISH_OK;
    if (slack == 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache is full: %llu of %llu bytes used",
                       (unsigned long long)sq_kv_pool_bytes_used(e->kv),
                       (unsigned long long)sq_kv_pool_bytes_max(e->kv));
    return sq_fail(
        err, SQUISH_NO_MEMORY,
        "the cache of %llu bytes (--kv-budget) is full at %d tokens, and the oldest have no bits left "
        "to give: raise it, or keep fewer tokens (--snap-kv)",
        (unsigned long long)sq_kv_pool_bytes_max(e->kv), sq_kv_seq_length(kv));
}

/* ---- judged by embeddings: the mean of a tile's tokens beside that of the last ones ------------ */

static void mean_of(const sq_model *m, const int32_t *ids, int32_t n, float *row, float *out) {
    memset(out, 0, (size_t)m->cfg.hidden * sizeof *out);
    for (int32_t i = 0; i < n; i++) {
        sq_weight_row(&m->embed, ids[i], row);
        for (int32_t c = 0; c < m->cfg.hidden; c++) out[c] += row[c];
    }
}

static float cosine(const float *a, const float *b, int32_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (int32_t i = 0; i < n; i++)
        ab += (double)a[i] * b[i], aa += (double)a[i] * a[i], bb += (double)b[i] * b[i];
    return aa > 0 && bb > 0 ? (float)(ab / sqrt(aa * bb)) : 0.0f;
}

/* Without memory for it all tiles count the same. */
static void judge_by_embeddings(sq_engine *e, sq_kv_seq *kv, const int32_t *ids, int32_t n) {
    const size_t wide = (size_t)e->m->cfg.hidden, bytes = 3 * wide * sizeof(float);
    const int32_t last = n < JUDGES ? n : JUDGES;
    float *question = sq_alloc_new(&e->alloc, bytes), *mass = sq_kv_seq_mass(kv);
    if (!question) {
        memset(mass, 0, (size_t)(n / SQ_KV_TILE) * sizeof *mass);
        return;
    }
    mean_of(e->m, ids + n - last, last, question + wide, question);
    for (int32_t t = 0; t < n / SQ_KV_TILE; t++) {
        mean_of(e->m, ids + (size_t)t * SQ_KV_TILE, SQ_KV_TILE, question + wide, question + 2 * wide);
        mass[t] = cosine(question, question + 2 * wide, e->m->cfg.hidden);
    }
    sq_alloc_free(&e->alloc, question, bytes);
}

int32_t sq_votes_observe(const sq_engine *e, int32_t pos, int32_t n, int32_t n_prompt, int32_t *from) {
    const sq_kv_policy *p = sq_kv_pool_policy(e->kv);
    const bool ends = pos + n == n_prompt;
    *from = n_prompt - p->snap.window * SQ_KV_TILE;
    if (p->snap.tiles && pos + n <= n_prompt && pos + n > *from) return *from > pos ? pos + n - *from : n;
    if (!p->cocktail.on || p->cocktail.embed || !ends) return 0;
    return n < JUDGES ? n : JUDGES;
}

int32_t sq_votes_reusable(const sq_engine *e, int32_t n_prompt, int32_t n) {
    const sq_kv_policy *p = sq_kv_pool_policy(e->kv);
    if (!p->votes) return n;
    const bool looks = p->snap.tiles && n_prompt > p->snap.tiles * SQ_KV_TILE;
    const int32_t most = n_prompt - (looks ? p->snap.window * SQ_KV_TILE : 1);
    return most < n ? most : n;
}

void sq_votes_prompt_end(sq_engine *e, sq_kv_seq *kv, const int32_t *ids, int32_t n) {
    const sq_kv_policy *p = sq_kv_pool_policy(e->kv);
    if (!p->votes) return;
    sq_kv_seq_prompt_end(kv);
    if (p->cocktail.on && p->cocktail.embed) judge_by_embeddings(e, kv, ids, n);
    if (p->cocktail.on) sq_kv_seq_judge(kv);
    sq_votes_run(e, kv, NULL); /* where there is no room now, before the next step */
}
