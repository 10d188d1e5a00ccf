/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_bpe.c - one piece of text to ids: byte-pair encoding (Sennrich et al., 2016, arXiv:1508.07909).
 *
 * A piece starts as units (bytes or code points); then the neighbours whose merge has the lowest priority
 * number are joined, leftmost first, until no pair merges. Three ways to the same result:
 *
 *   1. the piece is a token that its own merges yield (TOK_WHOLE): one hash lookup. Most English words.
 *   2. up to FEW units: arrays on the stack, the minimum found by a scan. Quadratic, but with a constant so
 *      small that a heap does not win below about a hundred units.
 *   3. more: linked units and a binary heap of (priority, position), O(n log n).
 *
 * SentencePiece texts come as one long piece; they are first cut where no merge can cross (see tok_int.h). */
#include "text/tok_int.h"

#define NO_MERGE UINT32_MAX
enum { FEW = 96 };

/* ---- units ----------------------------------------------------------------------------------- */

/* The token of the unit at p, -1 if it has none; *len: bytes of the unit. */
static int32_t unit_at(const sq_tok *t, const uint8_t *p, size_t n, size_t *len) {
    *len = 1;
    if (*p < 0x80 || (t->h->flags & TOK_BYTE_LEVEL)) return t->h->unit[*p];
    uint32_t cp;
    *len = tok_decode(p, n, &cp);
    int32_t id = tok_find(t, p, *len);
    return id >= 0 && (t->attrs[id] & TOK_MODEL) ? id : -1;
}

/* Write the units of p[0..n) to sym (room for n). A unit without a token is spelled in byte tokens, else
 * becomes unk, else is dropped, as the reference does. */
static size_t units_of(const sq_tok *t, const uint8_t *p, size_t n, uint32_t *sym) {
    const tok_header *h = t->h;
    size_t count = 0, len;
    bool after_unk = false;
    for (size_t i = 0; i < n; i += len) {
        int32_t id = unit_at(t, p + i, n - i, &len);
        if (id >= 0) {
            sym[count++] = (uint32_t)id;
            after_unk = false;
            continue;
        }
        size_t spelled = 0;
        while (spelled < len && h->fallback[p[i + spelled]] >= 0) spelled++;
        if (spelled == len) {
            for (size_t k = 0; k < len; k++) sym[count++] = (uint32_t)h->fallback[p[i + k]];
            after_unk = false;
        } else if (h->unk >= 0) {
            if (!(after_unk && (h->flags & TOK_FUSE_UNK))) sym[count++] = (uint32_t)h->unk;
            after_unk = true;
        }
    }
    return count;
}

/* ---- merging --------------------------------------------------------------------------------- */

static inline void look_up(const sq_tok *t, uint32_t left, uint32_t right, uint32_t *prio, uint32_t *made) {
    const tok_result *r = tok_merge_of(t, left, right);
    *prio = r ? r->prio : NO_MERGE;
    *made = r ? r->id : 0;
}

/* Merge sym[0..n), n <= FEW, in place; returns how many are left. */
static size_t merge_few(const sq_tok *t, uint32_t *sym, size_t n) {
    uint32_t prio[FEW], made[FEW]; /* of the pair (i, i + 1) */
    for (size_t i = 0; i + 1 < n; i++) look_up(t, sym[i], sym[i + 1], &prio[i], &made[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (prio[i] < prio[best]) best = i;
        if (prio[best] == NO_MERGE) break;
        sym[best] = made[best];
        size_t behind = n - best - 2; /* units after the pair */
        memmove(sym + best + 1, sym + best + 2, behind * sizeof *sym);
        memmove(prio + best, prio + best + 1, behind * sizeof *prio);
        memmove(made + best, made + best + 1, behind * sizeof *made);
        n--;
        if (best + 1 < n) look_up(t, sym[best], sym[best + 1], &prio[best], &made[best]);
        if (best > 0) look_up(t, sym[best - 1], sym[best], &prio[best - 1], &made[best - 1]);
    }
    return n;
}

typedef struct {
    uint32_t sym, prev, next, prio, made; /* prio and made of the pair (this, next) */
} node;
#define NO_NODE UINT32_MAX

/* Heap of priority << 32 | position, least first. */
static void sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= moving) break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

static size_t heap_push(uint64_t *heap, size_t n, uint64_t key) {
    size_t i = n;
    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
    return n + 1;
}

static size_t refresh_pair(const sq_tok *t, node *nodes, uint32_t i, uint64_t *heap, size_t n_heap) {
    node *u = &nodes[i];
    u->prio = NO_MERGE;
    if (u->next == NO_NODE) return n_heap;
    look_up(t, u->sym, nodes[u->next].sym, &u->prio, &u->made);
    return u->prio == NO_MERGE ? n_heap : heap_push(heap, n_heap, (uint64_t)u->prio << 32 | i);
}

/* As merge_few for any n. nodes[n], heap[2n]: a merge takes one entry out and puts at most two in, and
 * there are fewer than n merges. An entry is stale when its pair has another priority by now. */
static size_t merge_many(const sq_tok *t, uint32_t *sym, size_t n, node *nodes, uint64_t *heap) {
    size_t n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        node *u = &nodes[i];
        *u =
            (node){sym[i], i ? (uint32_t)i - 1 : NO_NODE, i + 1 < n ? (uint32_t)i + 1 : NO_NODE, NO_MERGE, 0};
        if (i + 1 == n) break;
        look_up(t, sym[i], sym[i + 1], &u->prio, &u->made);
        if (u->prio != NO_MERGE) heap[n_heap++] = (uint64_t)u->prio << 32 | i;
    }
    for (size_t i = n_heap / 2; i-- > 0;) sift_down(heap, n_heap, i);
    while (n_heap > 0) {
        uint64_t top = heap[0];
        heap[0] = heap[--n_heap];
        if (n_heap) sift_down(heap, n_heap, 0);
        uint32_t i = (uint32_t)top;
        node *u = &nodes[i];
        if (u->prio != top >> 32) continue;
        u->sym = u->made;
        node *gone = &nodes[u->next];
        gone->prio = NO_MERGE;
        u->next = gone->next;
        if (u->next != NO_NODE) nodes[u->next].prev = i;
        n_heap = refresh_pair(t, nodes, i, heap, n_heap);
        if (u->prev != NO_NODE) n_heap = refresh_pair(t, nodes, u->prev, heap, n_heap);
    }
    size_t left = 0;
    for (uint32_t i = 0; i != NO_NODE; i = nodes[i].next) sym[left++] = nodes[i].sym;
    return left;
}

/* Scratch for n units of merge_many: heap, nodes, symbols. */
static squish_status get_work(tok_enc *e, size_t n, uint64_t **heap, node **nodes, uint32_t **sym) {
    if (n > TOK_PIECE_UNITS_MAX)
        return sq_fail(e->err, SQUISH_INVALID,
                       "a run of %zu bytes without a break cannot be tokenized; at most %zu", n,
                       TOK_PIECE_UNITS_MAX);
    size_t need = n * (2 * sizeof **heap + sizeof **nodes + sizeof **sym);
    if (need > e->work_bytes) {
        void *p = sq_alloc_resize(&e->alloc, e->work, e->work_bytes, need);
        if (!p) return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to tokenize a run of %zu bytes", n);
        e->work = p;
        e->work_bytes = need;
    }
    *heap = e->work;
    *nodes = (node *)(void *)(*heap + 2 * n);
    *sym = (uint32_t *)(void *)(*nodes + n);
    return SQUISH_OK;
}

static squish_status merge_piece(tok_enc *e, const uint8_t *p, size_t n) {
    uint32_t few[FEW], *sym = few;
    size_t count;
    if (n <= FEW) {
        count = merge_few(e->t, few, units_of(e->t, p, n, few));
    } else {
        uint64_t *heap = NULL;
        node *nodes = NULL;
        SQ_TRY(get_work(e, n, &heap, &nodes, &sym));
        count = units_of(e->t, p, n, sym);
        count = count <= FEW ? merge_few(e->t, sym, count) : merge_many(e->t, sym, count, nodes, heap);
    }
    for (size_t i = 0; i < count; i++) e->ids[e->n_ids++] = (int32_t)sym[i];
    return SQUISH_OK;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static inline bool push_whole(tok_enc *e, const uint8_t *p, size_t n, uint8_t attr) {
    const sq_tok *t = e->t;
    if (n > t->h->longest_whole) return false;
    int32_t id = tok_find(t, p, n);
    if (id < 0 || !(t->attrs[id] & attr)) return false;
    e->ids[e->n_ids++] = id;
    return true;
}

/* No merge reaches across the boundary before p[i], and units do not either. */
static bool may_cut(const sq_tok *t, const uint8_t *p, size_t i) {
    unsigned pair = (unsigned)p[i - 1] << 8 | p[i];
    if (t->joins[pair >> 3] >> (pair & 7) & 1) return false;
    return (t->h->flags & TOK_BYTE_LEVEL) || (p[i] & 0xC0) != 0x80;
}

squish_status tok_bpe_piece(tok_enc *e, const uint8_t *p, size_t n) {
    const tok_header *h = e->t->h;
    SQ_TRY(tok_enc_reserve(e, n)); /* a unit gives at most as many ids as it has bytes */
    if (push_whole(e, p, n, h->flags & TOK_IGNORE_MERGES ? TOK_MODEL : TOK_WHOLE)) return SQUISH_OK;
    /* Byte-level pieces are words already; cutting them only pays when they are long. */
    bool cut = (h->flags & TOK_MAY_CUT) && (n > FEW || !(h->flags & TOK_BYTE_LEVEL));
    if (!cut) return merge_piece(e, p, n);
    size_t from = 0;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && !may_cut(e->t, p, i)) continue;
        if (!push_whole(e, p + from, i - from, TOK_WHOLE)) SQ_TRY(merge_piece(e, p + from, i - from));
        from = i;
    }
    return SQUISH_OK;
}

bool tok_bpe_is_whole(tok_enc *e, const uint8_t *p, size_t n, int32_t id) {
    if (n == 0) return false;
    e->n_ids = 0;
    if (tok_enc_reserve(e, n) != SQUISH_OK || merge_piece(e, p, n) != SQUISH_OK) return false;
    return e->n_ids == 1 && e->ids[0] == id;
}
