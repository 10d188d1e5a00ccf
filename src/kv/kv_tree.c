/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_tree.c - the prefix tree: columns found again by the tokens they were computed from.
 *
 *   salt 0   [The capital of ..] -> [.. Japan is ..] -> [..]        a node = 32 ids and one column
 *                                -> [.. Peru is ..]
 *
 * A radix tree whose edges were cut to single tiles (Zheng et al., SGLang, arXiv:2312.07104, keeps runs): a
 * node never splits, a table of one hash finds the child, and what a node costs is known in advance: all
 * nodes are allocated at birth, as many as the pool has columns.
 *
 *   table    (parent, salt, hash of 32 ids; seeded per process) -> chain of nodes; ids are always compared
 *   children doubly linked, the last used first; looked through only for the rest of less than a tile
 *   idle     leaves nobody else holds: two lists, the longest unused last.  once | again
 *
 * Whoever uses a node uses all its ancestors, so below an idle node everything is idle, and every idle node
 * can be reached by taking leaves. Leaves found again since they were made go after those never found
 * (Karedla et al., "Caching strategies to improve disk system performance", 1994): a flood of long prompts
 * that nobody repeats does not wash out what is used daily.
 *
 * Owned by the pool's thread. */
#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    TILE = SQ_KV_TILE_TOKENS,
    CHILDREN_LOOKED_AT = 64 /* siblings compared for the rest of less than a tile */
};

typedef struct {
    int32_t ids[TILE];
    uint64_t salt, hash, last_use;
    int32_t parent, child, prev, next; /* siblings; -1: none */
    int32_t chain;                     /* next with the same bucket, or next free */
    int32_t newer, older;              /* idle list */
    int32_t column, tile;
    uint32_t uses;
    bool listed, again, marked;        /* listed: in an idle list; again: in which */
    uint8_t lossy;                     /* SQ_KV_LOSSY_ */
} node;

typedef struct {
    int32_t newest, oldest, n;
} list;

struct sq_kv_tree {
    sq_kv_pool *pool;
    node *nodes;      /* [n_max], valid up to made */
    int32_t *buckets; /* [mask + 1] node or -1 */
    uint32_t mask;
    int32_t n_max, made, free_list, n_nodes, n_idle, root_child;
    uint64_t seed, clock;
    list idle[2]; /* used once, used again */
    sq_kv_evict_fn on_evict;
    void *on_evict_user;
};

squish_status sq_kv_tree_new(sq_kv_tree **out, sq_kv_pool *p, squish_error *err) {
    *out = NULL;
    const squish_alloc *a = &p->alloc;
    sq_kv_tree *t = sq_alloc_zero(a, sizeof *t);
    if (!t) return sq_fail(err, SQUISH_NO_MEMORY, "prefix tree: out of memory");
    *t = (sq_kv_tree){.pool = p, .n_max = p->n_columns, .free_list = -1, .root_child = -1};
    for (int i = 0; i < 2; i++) t->idle[i] = (list){-1, -1, 0};
    for (t->mask = 15; t->mask < 2 * (uint32_t)t->n_max; t->mask = 2 * t->mask + 1) {}
    const size_t bucket_bytes = ((size_t)t->mask + 1) * sizeof *t->buckets;
    t->nodes = sq_alloc_new(a, (size_t)t->n_max * sizeof *t->nodes);
    t->buckets = sq_alloc_new(a, bucket_bytes);
    if (!t->nodes || !t->buckets) {
        sq_kv_tree_free(t);
        return sq_fail(err, SQUISH_NO_MEMORY, "prefix tree: out of memory for %d nodes", p->n_columns);
    }
    memset(t->buckets, 0xff, bucket_bytes);
    /* A seed nobody can guess keeps buckets short whatever prompts are sent. Without one it still works. */
    if (!sq_os_random(&t->seed, sizeof t->seed)) t->seed = sq_os_now_ns();
    p->tree = t;
    *out = t;
    return SQUISH_OK;
}

void sq_kv_tree_free(sq_kv_tree *t) {
    if (!t) return;
    t->on_evict = NULL;
    if (t->nodes && t->buckets) sq_kv_tree_evict(t, t->n_max);
    if (t->pool->tree == t) t->pool->tree = NULL;
    const squish_alloc *a = &t->pool->alloc;
    sq_alloc_free(a, t->nodes, t->nodes ? (size_t)t->n_max * sizeof *t->nodes : 0);
    sq_alloc_free(a, t->buckets, t->buckets ? ((size_t)t->mask + 1) * sizeof *t->buckets : 0);
    sq_alloc_free(a, t, sizeof *t);
}

/* ---- idle leaves ----------------------------------------------------------------------------- */

static void list_remove(sq_kv_tree *t, int32_t i) {
    node *n = &t->nodes[i];
    if (!n->listed) return;
    list *l = &t->idle[n->again];
    *(n->newer < 0 ? &l->newest : &t->nodes[n->newer].older) = n->older;
    *(n->older < 0 ? &l->oldest : &t->nodes[n->older].newer) = n->newer;
    l->n--;
    n->listed = false;
}

static void list_add(sq_kv_tree *t, int32_t i, bool again, bool as_oldest) {
    node *n = &t->nodes[i];
    list *l = &t->idle[again];
    n->newer = as_oldest ? l->oldest : -1;
    n->older = as_oldest ? -1 : l->newest;
    *(n->newer < 0 ? &l->newest : &t->nodes[n->newer].older) = i;
    *(n->older < 0 ? &l->oldest : &t->nodes[n->older].newer) = i;
    n->listed = true;
    n->again = again;
    l->n++;
}

static bool is_idle(const sq_kv_tree *t, int32_t i) {
    return t->pool->columns[t->nodes[i].column].holders == 1;
}

/* An idle leaf joins its list. What was used again may fill three quarters; then its oldest compete with the
 * rest. */
static void enlist(sq_kv_tree *t, int32_t i, bool as_oldest) {
    const node *n = &t->nodes[i];
    if (n->child >= 0 || n->listed) return;
    list_add(t, i, n->uses > 0, as_oldest);
    if (t->idle[1].n <= t->n_max / 4 * 3) return;
    const int32_t oldest = t->idle[1].oldest;
    list_remove(t, oldest);
    list_add(t, oldest, false, false);
}

void sq_kv_tree_rests(sq_kv_tree *t, int32_t i) {
    t->n_idle++;
    t->nodes[i].last_use = ++t->clock;
    enlist(t, i, false);
}

void sq_kv_tree_wakes(sq_kv_tree *t, int32_t i) {
    t->n_idle--;
    list_remove(t, i);
}

/* ---- finding --------------------------------------------------------------------------------- */

static uint64_t hash_of(const sq_kv_tree *t, int32_t parent, uint64_t salt, const int32_t *ids) {
    const uint64_t place = parent < 0 ? salt : (uint64_t)parent + 1;
    return XXH3_64bits_withSeed(ids, TILE * sizeof *ids, t->seed ^ place * 0x9E3779B97F4A7C15u);
}

static int32_t find_child(const sq_kv_tree *t, int32_t parent, uint64_t salt, const int32_t *ids,
                          uint64_t h) {
    for (int32_t i = t->buckets[h & t->mask]; i >= 0; i = t->nodes[i].chain) {
        const node *n = &t->nodes[i];
        if (n->hash == h && n->parent == parent && n->salt == salt && memcmp(n->ids, ids, sizeof n->ids) == 0)
            return i;
    }
    return -1;
}

/* The child that shares most of the next ids[0..n), n < 32 or no child has them all. */
static int32_t find_part(const sq_kv_tree *t, int32_t parent, uint64_t salt, const int32_t *ids, int32_t n,
                         int32_t *shared) {
    int32_t best = -1, looked_at = 0;
    *shared = 0;
    for (int32_t i = parent < 0 ? t->root_child : t->nodes[parent].child;
         i >= 0 && looked_at < CHILDREN_LOOKED_AT; i = t->nodes[i].next, looked_at++) {
        const node *c = &t->nodes[i];
        int32_t same = 0;
        if (c->salt != salt) continue;
        while (same < n && same < TILE && c->ids[same] == ids[same]) same++;
        if (same > *shared) best = i, *shared = same;
    }
    return best;
}

/* Along a path: where its last run of open tiles begins, and one past the sealed ones, which begin behind the
 * sink. */
typedef struct {
    int32_t open_from, sealed_to;
} forms;

static void add_forms(const sq_kv_tree *t, forms *f, int32_t i) {
    const sq_kv_column *c = &t->pool->columns[t->nodes[i].column];
    const int32_t tile = t->nodes[i].tile;
    if (!c->is_open) f->open_from = tile + 1;
    if (c->is_sealed && f->sealed_to == tile) f->sealed_to++;
}

/* Is all there that a query at position p and those behind it read? Tiles that are not sealed yet can still
 * be: a few, as a sequence does in a step. */
static bool can_go_on(const sq_kv_tree *t, const forms *f, int32_t p) {
    const int32_t sealed = sq_kv_sealed_tiles(t->pool->policy.window, p);
    if (f->open_from == 0) return sealed - f->sealed_to <= SQ_KV_SEAL_MAX / 2;
    return f->open_from <= sealed && f->open_from <= f->sealed_to &&
           sealed - f->sealed_to <= SQ_KV_SEAL_MAX / 2;
}

/* One tile further, if it is there. */
static bool step_down(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n, sq_kv_match *m) {
    const int32_t *at = ids + (size_t)m->tiles * TILE;
    if ((m->tiles + 1) * TILE > n) return false;
    const int32_t i = find_child(t, m->node, salt, at, hash_of(t, m->node, salt, at));
    if (i < 0) return false;
    m->node = i;
    m->tiles++;
    m->tokens = m->tiles * TILE;
    m->idle += is_idle(t, i);
    m->idle_bytes += sq_kv_column_evictable(t->pool, t->nodes[i].column);
    return true;
}

sq_kv_match sq_kv_tree_path(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n) {
    sq_kv_match m = {.node = -1, .part = -1};
    while (step_down(t, salt, ids, n, &m)) {}
    m.open_from = m.tiles;
    return m;
}

sq_kv_match sq_kv_tree_match(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n) {
    sq_kv_match best = {.node = -1, .part = -1}, m = best;
    const bool seals = t->pool->policy.seals;
    forms f = {0, t->pool->policy.window.sink};
    while (step_down(t, salt, ids, n, &m)) {
        add_forms(t, &f, m.node);
        m.open_from = f.open_from;
        if (!seals || can_go_on(t, &f, m.tokens)) best = m;
    }
    if (best.node != m.node) return best;
    int32_t shared;
    const int32_t part =
        find_part(t, m.node, salt, ids + (size_t)m.tiles * TILE, n - m.tiles * TILE, &shared);
    if (part < 0 || !t->pool->columns[t->nodes[part].column].is_open) return best;
    if (t->nodes[part].lossy) return best; /* its rows would stand in a tile that nobody calls so */
    best.part = part;
    best.tokens += shared;
    return best;
}

static int32_t *first_child(sq_kv_tree *t, int32_t parent) {
    return parent < 0 ? &t->root_child : &t->nodes[parent].child;
}

static void unlink_sibling(sq_kv_tree *t, int32_t i) {
    const node *n = &t->nodes[i];
    *(n->prev < 0 ? first_child(t, n->parent) : &t->nodes[n->prev].next) = n->next;
    if (n->next >= 0) t->nodes[n->next].prev = n->prev;
}

static void link_first(sq_kv_tree *t, int32_t i) {
    node *n = &t->nodes[i];
    int32_t *first = first_child(t, n->parent);
    n->prev = -1;
    n->next = *first;
    if (*first >= 0) t->nodes[*first].prev = i;
    *first = i;
}

static void touch(sq_kv_tree *t, int32_t i) {
    if (t->nodes[i].uses < UINT32_MAX) t->nodes[i].uses++;
    unlink_sibling(t, i);
    link_first(t, i);
}

/* From the last tile to the first: a node knows its place. */
static void share_path(sq_kv_tree *t, const sq_kv_match *m, sq_kv_seq *s) {
    s->open_from = m->open_from;
    for (int32_t i = m->node; i >= 0; i = t->nodes[i].parent) {
        const node *n = &t->nodes[i];
        sq_kv_column_hold(t->pool, n->column);
        sq_kv_seq_set(s, n->tile, n->column);
        if (sq_kv_seq_reads_open(s, n->tile)) sq_kv_column_read_open(t->pool, n->column);
        touch(t, i);
    }
    s->node = m->node;
    s->n_tiles = s->n_in_tree = m->tiles;
    s->length = s->n_tiles * TILE;
    while (s->sealed_to < s->n_tiles && t->pool->columns[s->columns[s->sealed_to]].is_sealed) s->sealed_to++;
}

int32_t sq_kv_tree_acquire(sq_kv_tree *t, const sq_kv_match *m, sq_kv_seq *s) {
    assert(s->n_tiles == 0);
    if (m->node >= 0) share_path(t, m, s);
    if (m->part < 0) return s->length;
    /* Held while it is copied: the room for the copy may have to come from the tree. */
    const int32_t column = t->nodes[m->part].column;
    sq_kv_column_hold(t->pool, column);
    sq_kv_column_read_open(t->pool, column);
    sq_kv_pool_make_room(t->pool, sq_kv_seq_missing(s, m->tokens));
    if (sq_kv_seq_copy(s, column, m->tokens - m->tiles * TILE, NULL) == SQUISH_OK) touch(t, m->part);
    sq_kv_column_leave_open(t->pool, column);
    sq_kv_column_drop(t->pool, column);
    return s->length;
}

/* ---- growing and shrinking ------------------------------------------------------------------- */

/* There is always a node for a column: nodes hold one each, and there are as many as columns. */
static int32_t add_node(sq_kv_tree *t, int32_t parent, uint64_t salt, const int32_t *ids, uint64_t h,
                        int32_t column) {
    int32_t i = t->free_list;
    if (i >= 0)
        t->free_list = t->nodes[i].chain;
    else
        i = t->made++;
    node *n = &t->nodes[i];
    *n = (node){.salt = salt,
                .hash = h,
                .parent = parent,
                .child = -1,
                .column = column,
                .tile = parent < 0 ? 0 : t->nodes[parent].tile + 1,
                .lossy = parent >= 0 && t->nodes[parent].lossy ? SQ_KV_LOSSY_BEHIND : 0,
                .chain = t->buckets[h & t->mask]};
    memcpy(n->ids, ids, sizeof n->ids);
    t->buckets[h & t->mask] = i;
    link_first(t, i);
    t->n_nodes++;
    sq_kv_column_hold(t->pool, column);
    sq_kv_column_set_node(t->pool, column, i);
    return i;
}

void sq_kv_tree_insert(sq_kv_tree *t, uint64_t salt, sq_kv_seq *s, const int32_t *ids, int32_t n) {
    if (s->departed) return; /* its tiles are no function of ids any more */
    while ((s->n_in_tree + 1) * TILE <= n) {
        const int32_t tile = s->n_in_tree, *at = ids + (size_t)tile * TILE;
        const uint64_t h = hash_of(t, s->node, salt, at);
        int32_t i = find_child(t, s->node, salt, at, h);
        if (i < 0) {
            i = add_node(t, s->node, salt, at, h, s->columns[tile]);
        } else if (t->nodes[i].column != s->columns[tile]) {
            sq_kv_column_hold(t->pool, t->nodes[i].column);
            sq_kv_column_complete(t->pool, t->nodes[i].column, s->columns[tile], tile);
            sq_kv_seq_put(s, tile, t->nodes[i].column);
        }
        sq_kv_column_nobody_reads(t->pool, s->columns[tile]);
        s->node = i;
        s->n_in_tree++;
    }
}

static void remove_leaf(sq_kv_tree *t, int32_t i) {
    node *n = &t->nodes[i];
    const int32_t parent = n->parent;
    list_remove(t, i);
    unlink_sibling(t, i);
    int32_t *link = &t->buckets[n->hash & t->mask];
    while (*link != i) link = &t->nodes[*link].chain;
    *link = n->chain;
    sq_kv_column_set_node(t->pool, n->column, -1);
    sq_kv_column_drop(t->pool, n->column);
    n->chain = t->free_list;
    t->free_list = i;
    t->n_nodes--;
    t->n_idle--;
    /* The parent was last used with this leaf, or later on its own. */
    if (parent >= 0 && is_idle(t, parent)) enlist(t, parent, t->nodes[parent].last_use <= n->last_use + 1);
}

int32_t sq_kv_tree_evict(sq_kv_tree *t, int32_t n) {
    for (int32_t done = 0; done < n; done++) {
        const int32_t i = t->idle[0].oldest >= 0 ? t->idle[0].oldest : t->idle[1].oldest;
        if (i < 0) return done;
        if (t->on_evict) t->on_evict(t->on_evict_user, i);
        remove_leaf(t, i);
    }
    return n;
}

/* ---- looking --------------------------------------------------------------------------------- */

int32_t sq_kv_tree_nodes(const sq_kv_tree *t) { return t->n_nodes; }
int32_t sq_kv_tree_idle(const sq_kv_tree *t) { return t->n_idle; }
int32_t sq_kv_tree_parent(const sq_kv_tree *t, int32_t i) { return t->nodes[i].parent; }
bool sq_kv_tree_marked(const sq_kv_tree *t, int32_t i) { return t->nodes[i].marked; }
void sq_kv_tree_mark(sq_kv_tree *t, int32_t i) { t->nodes[i].marked = true; }
int32_t sq_kv_tree_lossy(const sq_kv_tree *t, int32_t i) { return t->nodes[i].lossy; }
void sq_kv_tree_set_coded(sq_kv_tree *t, int32_t i) { t->nodes[i].lossy = SQ_KV_LOSSY_CODED; }

void sq_kv_tree_on_evict(sq_kv_tree *t, sq_kv_evict_fn fn, void *user) {
    t->on_evict = fn;
    t->on_evict_user = user;
}

void sq_kv_tree_node(const sq_kv_tree *t, int32_t i, sq_kv_node_info *out) {
    const node *n = &t->nodes[i];
    *out = (sq_kv_node_info){n->ids, n->parent, n->tile, n->column, n->salt, n->uses};
}

int32_t sq_kv_tree_idle_leaf(const sq_kv_tree *t, int32_t i) {
    if (i >= 0 && t->nodes[i].newer >= 0) return t->nodes[i].newer;
    if (i >= 0) return t->nodes[i].again ? -1 : t->idle[1].oldest;
    return t->idle[0].oldest >= 0 ? t->idle[0].oldest : t->idle[1].oldest;
}
