/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snap.c - which tokens of a prompt stay (see kv_snap.h). */
#include "kv/kv_snap.h"

#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

enum {
    TILE = SQ_KV_TILE_TOKENS,
    REACH = 7 /* neighbours on either side that count as one in pooling */
};

struct sq_kv_snap {
    float *looks;       /* [n_layers][n_kv_heads][ld]: address space, memory only while a prompt ends */
    size_t ld, bytes;   /* of looks */
    int32_t from, next; /* positions [from, next) have looked */
    int32_t tiles;      /* that they look at; 0: the prompt is short */
    int32_t end;        /* tiles before it are chosen from; 0: nothing is due */
    int32_t n;          /* tiles that stay of them */
    int32_t *columns;   /* [n] */
    uint8_t **pages;    /* [n] */
    int32_t *slots;     /* [n_kv_heads][32 n] */
    uint32_t *pooled;   /* [ld] */
};

/* ---- life ------------------------------------------------------------------------------------ */

squish_status sq_kv_snap_new(sq_kv_snap **out, const sq_kv_pool *p, int32_t tiles_max, squish_error *err) {
    const squish_alloc *a = &p->alloc;
    const size_t heads = (size_t)p->shape.n_kv_heads, n = (size_t)sq_kv_snap_tiles(&p->policy);
    *out = NULL;
    if (n == 0) return SQUISH_OK;
    sq_kv_snap *x = sq_alloc_zero(a, sizeof *x);
    if (!x) return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory");
    *x = (sq_kv_snap){.ld = (size_t)tiles_max * TILE, .n = (int32_t)n};
    x->bytes = (size_t)p->shape.n_layers * heads * x->ld * sizeof *x->looks;
    x->looks = sq_os_reserve(x->bytes);
    x->columns = sq_alloc_new(a, n * sizeof *x->columns);
    x->pages = sq_alloc_new(a, n * sizeof *x->pages);
    x->slots = sq_alloc_new(a, heads * n * TILE * sizeof *x->slots);
    x->pooled = sq_alloc_new(a, x->ld * sizeof *x->pooled);
    if (x->looks && x->columns && x->pages && x->slots && x->pooled) {
        *out = x;
        return SQUISH_OK;
    }
    sq_kv_snap_free(x, p);
    return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory for what prompts of %d tokens look at",
                   tiles_max * TILE);
}

void sq_kv_snap_free(sq_kv_snap *x, const sq_kv_pool *p) {
    if (!x) return;
    const squish_alloc *a = &p->alloc;
    const size_t heads = (size_t)p->shape.n_kv_heads, n = (size_t)x->n;
    sq_os_release(x->looks, x->bytes);
    sq_alloc_free(a, x->columns, x->columns ? n * sizeof *x->columns : 0);
    sq_alloc_free(a, x->pages, x->pages ? n * sizeof *x->pages : 0);
    sq_alloc_free(a, x->slots, x->slots ? heads * n * TILE * sizeof *x->slots : 0);
    sq_alloc_free(a, x->pooled, x->pooled ? x->ld * sizeof *x->pooled : 0);
    sq_alloc_free(a, x, sizeof *x);
}

/* Memory given back reads as zeros. */
void sq_kv_snap_forget(sq_kv_snap *x) {
    if (!x) return;
    if (x->next > 0) sq_os_discard(x->looks, x->bytes);
    x->from = x->next = x->end = x->tiles = 0;
}

/* ---- looking --------------------------------------------------------------------------------- */

/* Tiles before a window that begins at a position, or 0 if what is to stay is all there is. */
static int32_t end_of(const sq_kv_seq *s, int32_t from) {
    const int32_t sink = s->pool->policy.window.sink;
    const int32_t end = from > 0 ? sq_kv_seq_slot(s, from) / TILE : 0;
    return s->snap && end - sink > s->snap->n ? end : 0;
}

void sq_kv_seq_look(sq_kv_seq *s, int32_t pos, int32_t n, int32_t from) {
    sq_kv_snap *x = s->snap;
    if (from != x->from || pos != x->next) sq_kv_snap_forget(x);
    x->from = from, x->next = pos + n;
    x->tiles = end_of(s, from);
}

static float *shares_of(const sq_kv_seq *s, int32_t layer) {
    return s->snap->looks + (size_t)layer * (size_t)s->pool->shape.n_kv_heads * s->snap->ld;
}

float *sq_kv_seq_looks(sq_kv_seq *s, int32_t layer, size_t *ld, int32_t *tiles) {
    *ld = s->snap->ld;
    *tiles = s->snap->tiles;
    return *tiles > 0 ? shares_of(s, layer) : NULL;
}

/* ---- choosing -------------------------------------------------------------------------------- */

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return x > 0.0f ? u : 0; /* in the order of the floats; no number counts as nothing */
}

/* The largest of the neighbours within [0, n). */
static void pool_shares(const float *shares, int32_t n, uint32_t *out) {
    for (int32_t i = 0; i < n; i++) {
        const int32_t lo = i > REACH ? i - REACH : 0, hi = i + REACH < n ? i + REACH : n - 1;
        uint32_t most = 0;
        for (int32_t j = lo; j <= hi; j++) {
            const uint32_t x = bits_of(shares[j]);
            most = x > most ? x : most;
        }
        out[i] = most;
    }
}

/* The k-th largest, and in *equal how many of those that are equal to it belong to the k largest. */
static uint32_t kth_largest(const uint32_t *x, int32_t n, int32_t k, int32_t *equal) {
    uint32_t prefix = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        int32_t count[256] = {0}, byte = 255;
        for (int32_t i = 0; i < n; i++)
            if ((x[i] & mask) == prefix) count[x[i] >> shift & 255]++;
        for (; count[byte] < k; byte--) k -= count[byte];
        prefix |= (uint32_t)byte << shift;
        mask |= (uint32_t)255 << shift;
    }
    *equal = k;
    return prefix;
}

/* k of slots [first, first + n), rising; of equal ones the first. */
static void choose(const float *shares, int32_t first, int32_t n, int32_t k, uint32_t *pooled,
                   int32_t *slots) {
    int32_t equal;
    pool_shares(shares + first, n, pooled);
    const uint32_t least = kth_largest(pooled, n, k, &equal);
    for (int32_t i = 0; i < n; i++) {
        const bool takes = pooled[i] > least || (pooled[i] == least && equal-- > 0);
        if (takes) *slots++ = first + i;
    }
}

const int32_t *sq_kv_seq_snap_choose(sq_kv_seq *s, int32_t layer, int32_t *n, uint8_t *const **pages) {
    sq_kv_snap *x = s->snap;
    const int32_t sink = s->pool->policy.window.sink, k = x->n * TILE;
    const float *shares = shares_of(s, layer);
    for (int32_t h = 0; h < s->pool->shape.n_kv_heads; h++)
        choose(shares + (size_t)h * x->ld, sink * TILE, (x->end - sink) * TILE, k, x->pooled,
               x->slots + (size_t)h * (size_t)k);
    for (int32_t i = 0; i < x->n; i++) x->pages[i] = sq_kv_column_page(s->pool, x->columns[i], layer);
    *n = k;
    *pages = x->pages;
    return x->slots;
}

/* ---- dropping -------------------------------------------------------------------------------- */

void sq_kv_snap_due(sq_kv_seq *s) {
    if (s->snap) s->snap->end = end_of(s, sq_kv_seq_length(s) - s->pool->policy.snap.window * TILE);
}

bool sq_kv_seq_snap_due(const sq_kv_seq *s) { return s->snap && s->snap->end > 0; }
int32_t sq_kv_seq_dropped(const sq_kv_seq *s) { return s->dropped; }

squish_status sq_kv_seq_snap_begin(sq_kv_seq *s, squish_error *err) {
    sq_kv_snap *x = s->snap;
    sq_kv_pool *p = s->pool;
    if (!sq_kv_pool_make_room(p, (uint64_t)x->n * p->open_bytes))
        return sq_fail(err, SQUISH_NO_MEMORY,
                       "kv cache is full: no room for a copy of what stays of a prompt");
    for (int32_t i = 0; i < x->n; i++) {
        x->columns[i] = sq_kv_column_take(p, p->policy.window.sink + i);
        if (x->columns[i] >= 0) continue;
        while (i-- > 0) sq_kv_column_drop(p, x->columns[i]);
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache is full: no column for what stays of a prompt");
    }
    return SQUISH_OK;
}

/* What is said of tile `from` is from now on said of `to`. */
static void move_tile(sq_kv_seq *s, int32_t to, int32_t from) {
    s->reads[to] = s->reads[from];
    s->rungs[to] = s->rungs[from];
    s->relevance[to] = s->relevance[from];
    sq_kv_seq_set(s, to, s->columns[from]);
}

void sq_kv_seq_snap_end(sq_kv_seq *s) {
    sq_kv_snap *x = s->snap;
    const int32_t sink = s->pool->policy.window.sink, kept = sink + x->n, gone = x->end - kept;
    assert(s->departed && gone > 0 && x->end <= s->n_tiles);
    for (int32_t t = sink; t < x->end; t++) {
        if (sq_kv_seq_reads_open(s, t)) sq_kv_column_leave_open(s->pool, s->columns[t]);
        sq_kv_column_drop(s->pool, s->columns[t]);
    }
    for (int32_t i = 0; i < x->n; i++) {
        sq_kv_seq_set(s, sink + i, x->columns[i]);
        sq_kv_column_read_open(s->pool, x->columns[i]);
        s->reads[sink + i] = SQ_KV_READ_OPEN;
        s->rungs[sink + i] = SQ_RUNG_F16;
    }
    for (int32_t t = x->end; t < s->n_tiles; t++) move_tile(s, t - gone, t);
    for (int32_t t = s->n_tiles - gone; t < s->n_tiles; t++) sq_kv_seq_set(s, t, -1);
    s->n_tiles -= gone;
    s->length -= gone * TILE;
    s->dropped += gone * TILE;
    s->cut_from = kept * TILE;
    s->event_at = 0;
    memset(s->cursor, 0, sizeof s->cursor);
    sq_kv_snap_forget(x);
}
