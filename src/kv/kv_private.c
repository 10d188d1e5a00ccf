/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_private.c - tiles in fewer bits behind the end of a prompt (see kv_private.h).
 *
 * An event is a tile that leaves the residual window, or passes an age of the ladder. Ages are passed in
 * order, so each threshold has a cursor: tiles before it have passed. A token costs one comparison; every
 * 32nd looks at the cursors. */
#include "kv/kv_private.h"

#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

enum { TILE = SQ_KV_TILE_TOKENS };

const uint8_t *sq_kv_seq_reads(const sq_kv_seq *s) { return s->departed ? s->reads : NULL; }

float *sq_kv_seq_weight(sq_kv_seq *s, int32_t layer) {
    const sq_kv_shape *shape = &s->pool->shape;
    return s->weight ? s->weight + (size_t)layer * (size_t)(shape->n_kv_heads * shape->head_dim) : NULL;
}

float *sq_kv_seq_mass(sq_kv_seq *s) { return s->mass; }
int8_t sq_kv_seq_relevance(const sq_kv_seq *s, int32_t tile) { return s->relevance[tile]; }
bool sq_kv_seq_departed(const sq_kv_seq *s) { return s->departed; }

static const sq_kv_column *column_of(const sq_kv_seq *s, int32_t tile) {
    return &s->pool->columns[s->columns[tile]];
}

static sq_rung rung_of(const sq_kv_seq *s, int32_t tile) {
    if (sq_kv_seq_reads_open(s, tile)) return SQ_RUNG_F16;
    const sq_kv_column *c = column_of(s, tile);
    return c->rung ? (sq_rung)c->rung : sq_kv_canonical_rung(&s->pool->policy);
}

sq_rung sq_kv_seq_rung(const sq_kv_seq *s, int32_t tile) {
    return s->departed ? (sq_rung)s->rungs[tile] : rung_of(s, tile);
}

const uint8_t *sq_kv_seq_rungs(const sq_kv_seq *s) { return s->departed ? s->rungs : NULL; }

/* All tiles, at the next event. */
static void vote_again(sq_kv_seq *s) {
    s->event_at = 0;
    memset(s->cursor, 0, sizeof s->cursor);
}

/* ---- departure ------------------------------------------------------------------------------- */

static void depart(sq_kv_seq *s) {
    for (int32_t t = 0; t < s->n_tiles; t++) {
        const bool open = sq_kv_seq_reads_open(s, t) || !column_of(s, t)->is_sealed;
        if (open && !sq_kv_seq_reads_open(s, t)) sq_kv_column_read_open(s->pool, s->columns[t]);
        s->reads[t] = open ? SQ_KV_READ_OPEN : SQ_KV_READ_SEALED;
        s->relevance[t] = SQ_KV_UNJUDGED;
    }
    s->departed = true;
    for (int32_t t = 0; t < s->n_tiles; t++) s->rungs[t] = (uint8_t)rung_of(s, t);
    s->node = -1;
    s->n_in_tree = 0;
    s->n_judged = 0;
}

void sq_kv_seq_prompt_end(sq_kv_seq *s) {
    if (!s->pool->policy.votes) return;
    sq_kv_seq_missing(s, s->length); /* what the last queries read open alone is let go of */
    if (!s->departed) depart(s);
    sq_kv_snap_due(s);
    vote_again(s);
}

/* ---- votes ----------------------------------------------------------------------------------- */

/* First tile that is read open because it is near the end. */
static int32_t residual_from(const sq_kv_seq *s) {
    return sq_kv_sealed_tiles(s->pool->policy.window, s->length);
}

static bool is_pinned(const sq_kv_seq *s, int32_t tile) {
    return tile < s->pool->policy.window.sink || tile >= residual_from(s);
}

/* The shares of chunks that are found high and low, by rank; of equal ones the later is higher. */
void sq_kv_seq_judge(sq_kv_seq *s) {
    const float *mass = s->mass;
    const sq_kv_policy *p = &s->pool->policy;
    const int32_t sink = p->window.sink, from = s->n_judged > sink ? s->n_judged : sink;
    const int32_t end = residual_from(s), chunk = p->cocktail.chunk;
    const int32_t n = (end - from) / chunk;
    if (!p->cocktail.on || !s->departed || n <= 0) return;
    const int32_t high = (int32_t)((float)n * p->cocktail.high + 0.5f);
    int32_t low = (int32_t)((float)n * p->cocktail.low + 0.5f);
    if (low > n - high) low = n - high;
    for (int32_t i = 0; i < n; i++) {
        int32_t rank = 0; /* chunks below this one */
        float own = 0;
        for (int32_t t = 0; t < chunk; t++) own += mass[from + i * chunk + t];
        for (int32_t k = 0; k < n; k++) {
            float other = 0;
            for (int32_t t = 0; t < chunk; t++) other += mass[from + k * chunk + t];
            rank += other < own || (other == own && k < i);
        }
        for (int32_t t = 0; t < chunk; t++)
            s->relevance[from + i * chunk + t] = rank >= n - high ? 1 : rank < low ? -1 : 0;
    }
    s->n_judged = from + n * chunk;
    vote_again(s);
}

static sq_rung vote_of(const sq_kv_seq *s, int32_t tile) {
    const sq_kv_policy *p = &s->pool->policy;
    const sq_kv_votes v = {.age = s->length - (tile + 1) * TILE + 1,
                           .pinned = is_pinned(s, tile),
                           .judged = s->relevance[tile] != SQ_KV_UNJUDGED,
                           .relevance = s->relevance[tile] == SQ_KV_UNJUDGED ? 0 : s->relevance[tile]};
    return sq_kv_merge(p, &v, sq_kv_seq_rung(s, tile));
}

/* ---- events ---------------------------------------------------------------------------------- */

/* A column of its own for a tile that goes down to r; false: there is no room now. */
static bool begin_move(sq_kv_seq *s, int32_t tile, sq_rung r, sq_kv_move *m) {
    sq_kv_pool *p = s->pool;
    if (!sq_kv_pool_make_room(p, p->private_bytes[r])) return false;
    const int32_t to = sq_kv_column_new_private(p, tile, r);
    if (to < 0) return false;
    *m = (sq_kv_move){tile, s->columns[tile], to, s->reads[tile] == SQ_KV_READ_OPEN, (uint8_t)r};
    return true;
}

/* Tiles [*at, end) that go down; *at stops where the list is full or the pool is. */
static int32_t collect(sq_kv_seq *s, int32_t *at, int32_t end, sq_kv_move *moves, int32_t n) {
    for (; *at < end && n < SQ_KV_MOVES_MAX; ++*at) {
        const sq_rung now = sq_kv_seq_rung(s, *at), r = vote_of(s, *at);
        if (r >= now) continue;
        if (!begin_move(s, *at, r, &moves[n])) break;
        n++;
    }
    return n;
}

static uint64_t bytes_of(const sq_kv_seq *s, int32_t tile) {
    const sq_kv_pool *p = s->pool;
    const sq_kv_column *c = column_of(s, tile);
    return sq_kv_seq_reads_open(s, tile) ? p->open_bytes
           : c->rung                     ? p->private_bytes[c->rung]
                                         : p->sealed_bytes;
}

/* The oldest tiles go down a rung each until all fit the budget. */
static int32_t collect_over_budget(sq_kv_seq *s, sq_kv_move *moves) {
    const sq_kv_policy *p = &s->pool->policy;
    uint64_t all = s->pool->open_bytes; /* the tile that the next tokens begin */
    int32_t n = 0;
    if (p->pm.budget == 0 || !p->pm.on) return 0;
    for (int32_t t = 0; t < s->n_tiles; t++) all += bytes_of(s, t);
    for (int r = SQ_RUNG_F16; r > (int)p->pm.floor && all > p->pm.budget; r--)
        for (int32_t t = p->window.sink; t < residual_from(s) && all > p->pm.budget; t++) {
            const sq_rung lower = (sq_rung)(r - 1);
            if (sq_kv_seq_rung(s, t) != (sq_rung)r) continue;
            if (n == SQ_KV_MOVES_MAX || !begin_move(s, t, lower, &moves[n])) return n;
            n++;
            all -= bytes_of(s, t) - s->pool->private_bytes[lower];
        }
    return n;
}

int32_t sq_kv_seq_give(sq_kv_seq *s, sq_kv_move *move) {
    const sq_kv_policy *p = &s->pool->policy;
    if (!s->departed && s->n_tiles > 0) depart(s);
    for (int r = SQ_RUNG_F16; r > (int)p->pm.floor; r--)
        for (int32_t t = p->window.sink; t < residual_from(s); t++) {
            if (sq_kv_seq_rung(s, t) != (sq_rung)r) continue;
            for (int lower = r - 1; lower >= (int)p->pm.floor; lower--) /* as there is room for its copy */
                if (begin_move(s, t, (sq_rung)lower, move)) return 1;
            return 0;
        }
    return 0;
}

/* How far a cursor has to go: the residual window's, or that of an age. */
static int32_t target(const sq_kv_seq *s, int i) {
    const sq_kv_policy *p = &s->pool->policy;
    const int32_t end = residual_from(s);
    if (i == 0) return end;
    const int32_t to = p->pm.on ? (s->length + 1 - p->pm.age[i - 1]) / TILE : 0;
    return to < end ? to : end;
}

int32_t sq_kv_seq_events(sq_kv_seq *s, sq_kv_move *moves) {
    if (!s->departed || s->length < s->event_at) return 0;
    int32_t n = 0;
    for (int i = 0; i < SQ_KV_CURSORS; i++) {
        if (s->cursor[i] < s->pool->policy.window.sink) s->cursor[i] = s->pool->policy.window.sink;
        n = collect(s, &s->cursor[i], target(s, i), moves, n);
        if (n > 0) return n; /* a tile stands once in a list */
    }
    n = collect_over_budget(s, moves);
    if (n == 0) s->event_at = (s->length / TILE + 1) * TILE;
    return n;
}

void sq_kv_seq_moved(sq_kv_seq *s, const sq_kv_move *moves, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const sq_kv_move *m = &moves[i];
        if (m->from_open) sq_kv_column_leave_open(s->pool, m->from);
        s->reads[m->tile] = SQ_KV_READ_SEALED;
        s->rungs[m->tile] = m->rung;
        sq_kv_seq_set(s, m->tile, m->to);
        sq_kv_column_drop(s->pool, m->from);
    }
}

void sq_kv_seq_census(const sq_kv_seq *s, sq_kv_census *out) {
    const int32_t all = s->n_tiles + s->dropped / TILE;
    *out = (sq_kv_census){.bytes_f16 = (uint64_t)all * s->pool->open_bytes, .dropped = s->dropped};
    for (int32_t t = 0; t < s->n_tiles; t++) {
        const sq_rung r = sq_kv_seq_rung(s, t);
        const int32_t left = s->length - t * TILE;
        out->tokens[r] += left < TILE ? left : TILE;
        out->bytes[r] += bytes_of(s, t);
        if (s->departed && s->relevance[t] != SQ_KV_UNJUDGED) out->judged[s->relevance[t] + 1]++;
    }
}
