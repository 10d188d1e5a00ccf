/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_pool.c - the arena behind the columns, who holds them, and in which forms they are there.
 *
 * Two reservations of address space, one for each form, and one budget of bytes for both. A column has its
 * place in either from the beginning; a form that is not there is address space without memory:
 *
 *   open     | 0: memory | 1: -      | 2: memory | 3: never touched ...
 *   sealed   | 0: -      | 1: memory | 2: memory | 3: never touched ...
 *
 * Columns given back go to a free list beside the arena. Where nothing is sealed they keep their memory; else
 * it returns to the system at once, since the other form may need it.
 *
 * One thread owns a pool and its sequences; only the bytes used are read from elsewhere. */
#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

enum { OS_PAGE = 1 << 14 }; /* the largest of a system we know; memory is given back in wholes of it */

/* ---- pool ------------------------------------------------------------------------------------ */

/* Address space for private columns, a range for each rung: nothing of it is memory until it is used. */
static squish_status make_private(sq_kv_pool *p, squish_error *err) {
    const int32_t n = p->shape.n_layers;
    if (!p->policy.votes) return SQUISH_OK;
    p->private_at = sq_alloc_zero(&p->alloc, SQ_RUNG_F16 * (size_t)n * sizeof *p->private_at);
    bool there = p->private_at != NULL;
    for (int r = SQ_RUNG_Q2; there && r < SQ_RUNG_F16; r++) {
        p->private_stride[r] = sq_align_up(p->private_bytes[r], 4096);
        p->private_map[r] = sq_os_reserve((size_t)p->n_columns * p->private_stride[r]);
        there = p->private_map[r] != NULL;
        for (int32_t l = 0, at = 0; l < n; l++) {
            p->private_at[r * n + l] = (size_t)at;
            at += (int32_t)sq_kv_geometry_private(&p->shape, &p->policy, (sq_rung)r, l).page_bytes;
        }
    }
    return there ? SQUISH_OK
                 : sq_fail(err, SQUISH_NO_MEMORY,
                           "kv cache: cannot reserve address space for tiles in "
                           "fewer bits");
}

static squish_status make_arena(sq_kv_pool *p, squish_error *err) {
    const squish_alloc *a = &p->alloc;
    const size_t n = (size_t)p->n_columns;
    p->columns = sq_alloc_new(a, n * sizeof *p->columns);
    p->open_map = sq_os_reserve(n * p->open_stride + OS_PAGE);
    p->open = p->open_map ? (uint8_t *)sq_align_up((uintptr_t)p->open_map, OS_PAGE) : NULL;
    if (p->policy.seals) {
        p->sealed = sq_os_reserve(n * p->sealed_bytes);
        p->sealed_at = sq_alloc_new(a, (size_t)p->shape.n_layers * sizeof *p->sealed_at);
    }
    if (!p->columns || !p->open || (p->policy.seals && (!p->sealed || !p->sealed_at)))
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache: cannot reserve %llu bytes of address space",
                       (unsigned long long)(n * (p->open_stride + p->sealed_bytes)));
    /* What is given back piece by piece is not to be taken by the large page. */
    if (p->policy.seals)
        sq_os_huge_pages(p->sealed, n * p->sealed_bytes);
    else if (!p->policy.votes)
        sq_os_huge_pages(p->open, n * p->open_stride);
    SQ_TRY(make_private(p, err));
    size_t at = 0;
    for (int32_t l = 0; p->sealed_at && l < p->shape.n_layers; l++) {
        p->sealed_at[l] = at;
        at += sq_kv_geometry_sealed(&p->shape, &p->policy, l).page_bytes;
    }
    return SQUISH_OK;
}

squish_status sq_kv_pool_new(sq_kv_pool **out, const sq_kv_shape *shape, const sq_kv_policy *policy,
                             uint64_t bytes_max, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    const size_t open = sq_kv_open_bytes(shape, policy), sealed = sq_kv_sealed_bytes(shape, policy);
    const size_t least = policy->votes ? sq_kv_private_bytes(shape, policy, SQ_RUNG_Q2) : SIZE_MAX;
    const size_t one = policy->seals ? sealed : open;
    uint64_t n = bytes_max / (least < one ? least : one);
    if (bytes_max < open)
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache: %llu bytes hold no page column of %zu bytes",
                       (unsigned long long)bytes_max, open);
    if (n > INT32_MAX / 2) n = INT32_MAX / 2;
    sq_kv_pool *p = sq_alloc_zero(a, sizeof *p);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "kv pool: out of memory");
    *p = (sq_kv_pool){.alloc = *a,
                      .shape = *shape,
                      .policy = *policy,
                      .geo = sq_kv_geometry_of(shape, policy->open),
                      .open_bytes = open,
                      .open_stride = policy->seals || policy->votes ? sq_align_up(open, OS_PAGE) : open,
                      .sealed_bytes = sealed,
                      .bytes_max = policy->seals || policy->votes ? bytes_max : n * open,
                      .n_columns = (int32_t)n,
                      .free_list = -1,
                      .spare_newest = -1,
                      .spare_oldest = -1};
    for (int r = SQ_RUNG_Q2; r < SQ_RUNG_F16; r++)
        p->private_bytes[r] = sq_kv_private_bytes(shape, policy, (sq_rung)r);
    const squish_status st = make_arena(p, err);
    if (st != SQUISH_OK) {
        sq_kv_pool_free(p);
        return st;
    }
    *out = p;
    return SQUISH_OK;
}

void sq_kv_pool_free(sq_kv_pool *p) {
    if (!p) return;
    const size_t n = (size_t)p->n_columns;
    squish_alloc a = p->alloc;
    sq_os_release(p->open_map, n * p->open_stride + OS_PAGE);
    sq_os_release(p->sealed, n * p->sealed_bytes);
    for (int r = 0; r < SQ_RUNG_F16; r++) sq_os_release(p->private_map[r], n * p->private_stride[r]);
    sq_alloc_free(&a, p->private_at,
                  p->private_at ? SQ_RUNG_F16 * (size_t)p->shape.n_layers * sizeof *p->private_at : 0);
    sq_alloc_free(&a, p->sealed_at, p->sealed_at ? (size_t)p->shape.n_layers * sizeof *p->sealed_at : 0);
    sq_alloc_free(&a, p->columns, p->columns ? n * sizeof *p->columns : 0);
    sq_alloc_free(&a, p, sizeof *p);
}

uint64_t sq_kv_pool_bytes_used(const sq_kv_pool *p) {
    return atomic_load_explicit(&p->bytes_used, memory_order_relaxed);
}
uint64_t sq_kv_pool_bytes_max(const sq_kv_pool *p) { return p->bytes_max; }
uint64_t sq_kv_pool_bytes_free(const sq_kv_pool *p) {
    const uint64_t used = sq_kv_pool_bytes_used(p);
    return used < p->bytes_max ? p->bytes_max - used : 0;
}
uint64_t sq_kv_pool_bytes_evictable(const sq_kv_pool *p) { return p->bytes_evictable; }
const sq_kv_geometry *sq_kv_pool_geometry(const sq_kv_pool *p) { return &p->geo; }
const sq_kv_policy *sq_kv_pool_policy(const sq_kv_pool *p) { return &p->policy; }
void sq_kv_pool_shape(const sq_kv_pool *p, sq_kv_shape *out) { *out = p->shape; }
const squish_alloc *sq_kv_pool_alloc(const sq_kv_pool *p) { return &p->alloc; }
int32_t sq_kv_pool_columns(const sq_kv_pool *p) { return p->n_columns; }
int32_t sq_kv_pool_columns_free(const sq_kv_pool *p) {
    const uint64_t room = sq_kv_pool_bytes_free(p) / p->open_bytes;
    const int32_t left = p->n_columns - p->n_taken;
    return room < (uint64_t)left ? (int32_t)room : left;
}

uint64_t sq_kv_pool_needs(const sq_kv_pool *p, int32_t n, int32_t tiles, int32_t others) {
    const uint64_t all = sq_kv_bytes(&p->shape, &p->policy, n);
    const uint64_t shared = (uint64_t)tiles * (p->policy.seals ? p->sealed_bytes : p->open_bytes);
    return (all > shared ? all - shared : 0) + (uint64_t)others * p->open_bytes;
}

/* ---- forms of a column ----------------------------------------------------------------------- */

uint8_t *sq_kv_column_page(const sq_kv_pool *p, int32_t column, int32_t layer) {
    return p->open + (size_t)column * p->open_stride + (size_t)layer * p->geo.page_bytes;
}

uint8_t *sq_kv_column_sealed_page(const sq_kv_pool *p, int32_t column, int32_t layer) {
    const int32_t r = p->columns[column].rung;
    if (r)
        return p->private_map[r] + (size_t)column * p->private_stride[r] +
               p->private_at[r * p->shape.n_layers + layer];
    return p->sealed ? p->sealed + (size_t)column * p->sealed_bytes + p->sealed_at[layer] : NULL;
}

bool sq_kv_column_is_open(const sq_kv_pool *p, int32_t c) { return p->columns[c].is_open; }
bool sq_kv_column_is_sealed(const sq_kv_pool *p, int32_t c) { return p->columns[c].is_sealed; }

static void use_bytes(sq_kv_pool *p, uint64_t bytes) {
    atomic_fetch_add_explicit(&p->bytes_used, bytes, memory_order_relaxed);
}

static void free_bytes(sq_kv_pool *p, uint64_t bytes) {
    atomic_fetch_sub_explicit(&p->bytes_used, bytes, memory_order_relaxed);
}

/* The whole pages of the system inside [at, at + bytes). */
static void discard(uint8_t *at, size_t bytes) {
    uint8_t *from = at + (sq_align_up((uintptr_t)at, OS_PAGE) - (uintptr_t)at);
    const size_t skipped = (size_t)(from - at);
    if (bytes > skipped) sq_os_discard(from, (bytes - skipped) / OS_PAGE * OS_PAGE);
}

static sq_kv_page_header header_of(const sq_kv_pool *p, int32_t layer, int32_t tile, sq_kv_form f) {
    sq_kv_page_header h = sq_kv_header_of(&p->shape, f.k, layer, tile);
    h.v_fmt = (uint8_t)f.v;
    return h;
}

static sq_kv_form sealed_form(const sq_kv_pool *p, int32_t column, int32_t layer) {
    const int32_t r = p->columns[column].rung;
    return r ? sq_kv_form_of(&p->policy, (sq_rung)r, layer)
             : (sq_kv_form){sq_kv_policy_k(&p->policy, layer), sq_kv_policy_v(&p->policy, layer)};
}

static size_t sealed_bytes(const sq_kv_pool *p, int32_t column) {
    const int32_t r = p->columns[column].rung;
    return r ? p->private_bytes[r] : p->sealed_bytes;
}

void sq_kv_column_add_open(sq_kv_pool *p, int32_t column, int32_t tile) {
    sq_kv_column *c = &p->columns[column];
    if (c->is_open) return;
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    c->is_open = true;
    use_bytes(p, p->open_bytes);
    for (int32_t l = 0; l < p->shape.n_layers; l++) {
        const sq_kv_page_header h = header_of(p, l, tile, (sq_kv_form){p->policy.open, p->policy.open});
        memcpy(sq_kv_column_page(p, column, l), &h, sizeof h);
    }
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}

void sq_kv_column_reserve_sealed(sq_kv_pool *p, int32_t column, int32_t tile) {
    sq_kv_column *c = &p->columns[column];
    if (c->has_sealed) return;
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    c->has_sealed = true;
    use_bytes(p, sealed_bytes(p, column));
    for (int32_t l = 0; l < p->shape.n_layers; l++) {
        const sq_kv_page_header h = header_of(p, l, tile, sealed_form(p, column, l));
        memcpy(sq_kv_column_sealed_page(p, column, l), &h, sizeof h);
    }
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}

void sq_kv_column_add_sealed(sq_kv_pool *p, int32_t column, int32_t tile) {
    sq_kv_column_reserve_sealed(p, column, tile);
    p->columns[column].is_sealed = true;
}

static void drop_open(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    if (!c->is_open) return;
    c->is_open = false;
    free_bytes(p, p->open_bytes);
    if (p->policy.seals || p->policy.votes) discard(sq_kv_column_page(p, column, 0), p->open_stride);
}

void sq_kv_column_unseal(sq_kv_pool *p, int32_t column) { p->columns[column].is_sealed = false; }

/* Does some canonical sealed form lie in bytes [from, to) of the range? Columns there were handed out. */
static bool sealed_in(const sq_kv_pool *p, size_t from, size_t to) {
    for (size_t c = from / p->sealed_bytes; c * p->sealed_bytes < to && c < (size_t)p->carved; c++)
        if (p->columns[c].has_sealed && p->columns[c].rung == 0) return true;
    return false;
}

/* Sealed columns stand shoulder to shoulder, so a page of the system may be of several: whose last one went
 * takes it along. */
static void discard_sealed(const sq_kv_pool *p, int32_t column) {
    const uintptr_t base = (uintptr_t)p->sealed;
    const size_t from = (size_t)column * p->sealed_bytes, to = from + p->sealed_bytes;
    const uintptr_t first = (base + from) / OS_PAGE * OS_PAGE, end = sq_align_up(base + to, OS_PAGE);
    const size_t before = first > base ? (size_t)(first - base) : 0, after = (size_t)(end - base);
    const bool shares_first = sealed_in(p, before, from), shares_last = sealed_in(p, to, after);
    uint8_t *at = shares_first || first < base ? p->sealed + from : p->sealed + before;
    const uint8_t *stop =
        shares_last || after > (size_t)p->n_columns * p->sealed_bytes ? p->sealed + to : p->sealed + after;
    discard(at, (size_t)(stop - at));
}

static void drop_sealed(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    c->is_sealed = false;
    if (!c->has_sealed) return;
    c->has_sealed = false;
    free_bytes(p, sealed_bytes(p, column));
    if (c->rung) /* has whole pages of the system to itself */
        sq_os_discard(sq_kv_column_sealed_page(p, column, 0), p->private_stride[c->rung]);
    else
        discard_sealed(p, column);
}

void sq_kv_column_complete(sq_kv_pool *p, int32_t to, int32_t from, int32_t tile) {
    if (p->columns[from].is_open && !p->columns[to].is_open) {
        sq_kv_column_add_open(p, to, tile);
        memcpy(sq_kv_column_page(p, to, 0), sq_kv_column_page(p, from, 0), p->open_bytes);
    }
    if (p->columns[from].is_sealed && !p->columns[to].is_sealed) {
        sq_kv_column_add_sealed(p, to, tile);
        memcpy(sq_kv_column_sealed_page(p, to, 0), sq_kv_column_sealed_page(p, from, 0), p->sealed_bytes);
    }
}

/* ---- open forms kept for prefixes: the spare ------------------------------------------------- */

uint64_t sq_kv_column_evictable(const sq_kv_pool *p, int32_t column) {
    const sq_kv_column *c = &p->columns[column];
    if (c->node >= 0 && c->holders == 1)
        return (c->is_open ? p->open_bytes : 0) + (c->has_sealed ? p->sealed_bytes : 0);
    return c->is_spare ? p->open_bytes : 0;
}

static void spare_remove(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    if (!c->is_spare) return;
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    *(c->newer < 0 ? &p->spare_newest : &p->columns[c->newer].older) = c->older;
    *(c->older < 0 ? &p->spare_oldest : &p->columns[c->older].newer) = c->newer;
    c->is_spare = false;
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}

static void spare_add(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    c->newer = -1;
    c->older = p->spare_newest;
    *(c->older < 0 ? &p->spare_oldest : &p->columns[c->older].newer) = column;
    p->spare_newest = column;
    c->is_spare = true;
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}

void sq_kv_column_read_open(sq_kv_pool *p, int32_t column) {
    assert(p->columns[column].is_open);
    if (p->columns[column].readers++ == 0) spare_remove(p, column);
}

void sq_kv_column_leave_open(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    assert(c->readers > 0);
    c->readers--;
    sq_kv_column_nobody_reads(p, column);
}

void sq_kv_column_nobody_reads(sq_kv_pool *p, int32_t column) {
    const sq_kv_column *c = &p->columns[column];
    if (c->readers > 0 || !c->is_open || !c->is_sealed || c->is_spare) return;
    if (c->node >= 0)
        spare_add(p, column);
    else
        drop_open(p, column);
}

uint64_t sq_kv_pool_slack(const sq_kv_pool *p, bool least) {
    return p->policy.budget ? p->private_bytes[least ? p->policy.pm.floor : SQ_RUNG_Q8] : 0;
}

bool sq_kv_pool_make_room(sq_kv_pool *p, uint64_t bytes) {
    while (sq_kv_pool_bytes_free(p) < bytes) {
        const int32_t spare = p->spare_oldest;
        if (spare >= 0) {
            spare_remove(p, spare);
            p->bytes_evictable -= sq_kv_column_evictable(p, spare);
            drop_open(p, spare);
            p->bytes_evictable += sq_kv_column_evictable(p, spare);
        } else if (!p->tree || sq_kv_tree_evict(p->tree, 1) == 0) {
            return false;
        }
    }
    return true;
}

/* ---- holders --------------------------------------------------------------------------------- */

int32_t sq_kv_column_new(sq_kv_pool *p, int32_t tile, uint32_t forms) {
    int32_t c = p->free_list;
    if (c >= 0)
        p->free_list = p->columns[c].next_free;
    else if (p->carved < p->n_columns)
        c = p->carved++;
    else
        return -1;
    p->columns[c] = (sq_kv_column){.holders = 1, .next_free = -1, .node = -1};
    p->n_taken++;
    if (forms & SQ_KV_FORM_OPEN) sq_kv_column_add_open(p, c, tile);
    if (forms & SQ_KV_FORM_SEALED) sq_kv_column_add_sealed(p, c, tile);
    return c;
}

int32_t sq_kv_column_new_private(sq_kv_pool *p, int32_t tile, sq_rung r) {
    const int32_t c = sq_kv_column_new(p, tile, 0);
    if (c < 0) return -1;
    p->columns[c].rung = (uint8_t)r;
    sq_kv_column_add_sealed(p, c, tile);
    return c;
}

int32_t sq_kv_column_take(sq_kv_pool *p, int32_t tile) {
    return sq_kv_pool_bytes_free(p) < p->open_bytes ? -1 : sq_kv_column_new(p, tile, SQ_KV_FORM_OPEN);
}

void sq_kv_column_hold(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    assert(c->holders > 0);
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    if (c->holders++ == 1 && c->node >= 0) sq_kv_tree_wakes(p->tree, c->node);
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}

void sq_kv_column_drop(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    assert(c->holders > 0);
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    if (--c->holders == 1 && c->node >= 0) sq_kv_tree_rests(p->tree, c->node);
    p->bytes_evictable += sq_kv_column_evictable(p, column);
    if (c->holders > 0) return;
    assert(c->readers == 0);
    spare_remove(p, column);
    drop_open(p, column);
    drop_sealed(p, column);
    c->next_free = p->free_list;
    p->free_list = column;
    p->n_taken--;
}

int32_t sq_kv_column_holders(const sq_kv_pool *p, int32_t column) { return p->columns[column].holders; }

void sq_kv_column_set_node(sq_kv_pool *p, int32_t column, int32_t node) {
    p->bytes_evictable -= sq_kv_column_evictable(p, column);
    p->columns[column].node = node;
    p->bytes_evictable += sq_kv_column_evictable(p, column);
}
