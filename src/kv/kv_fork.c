/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_fork.c - a sequence that goes on from within another, for a step: a side branch of guesses.
 *
 *   from   | 7 | 31 | 12 | 9 ......written|to come . |      reserved, of a step that was not run yet
 *   to     | 7 | 31 | 12 | 40 copied .....|lead| own |      pos is where own begins; the lead is in both
 *
 * Whole tiles before pos are shared, also those the step will still write: whoever reads them reads them
 * behind what was stored. The tile of pos is the branch's own, so it takes a copy of what is there, and the
 * step stores the rows between what was written and pos in both. */
#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

enum { TILE = SQ_KV_TILE_TOKENS };

static void share_pages(uint8_t **to, uint8_t *const *from, const sq_kv_seq *s, int32_t tiles) {
    const size_t ld = (size_t)s->tiles_max;
    for (size_t l = 0; to && l < (size_t)s->pool->shape.n_layers; l++)
        memcpy(to + l * ld, from + l * ld, (size_t)tiles * sizeof *to);
}

static void share(sq_kv_seq *to, const sq_kv_seq *from, int32_t tiles) {
    to->open_from = from->open_from < tiles ? from->open_from : tiles;
    to->sealed_to = from->sealed_to;
    to->node = from->node;
    to->n_in_tree = from->n_in_tree;
    to->n_tiles = tiles;
    to->length = tiles * TILE;
    memcpy(to->columns, from->columns, (size_t)tiles * sizeof *to->columns);
    share_pages(to->pages, from->pages, to, tiles);
    share_pages(to->sealed_pages, from->sealed_pages, to, tiles);
    for (int32_t t = 0; t < tiles; t++) {
        sq_kv_column_hold(to->pool, to->columns[t]);
        if (sq_kv_seq_reads_open(to, t)) sq_kv_column_read_open(to->pool, to->columns[t]);
    }
}

int32_t sq_kv_fork_lead(int32_t written, int32_t pos) {
    const int32_t first = pos / TILE * TILE;
    return pos - (written > first ? written : first);
}

bool sq_kv_seq_fork(sq_kv_seq *to, const sq_kv_seq *from, int32_t written, int32_t pos, int32_t n) {
    const int32_t tiles = pos / TILE;
    assert(to->n_tiles == 0 && to->pool == from->pool && !from->departed && from->dropped == 0);
    assert(written <= pos && from->n_in_tree <= tiles && from->n_tiles >= tiles);
    share(to, from, tiles);
    if (sq_kv_seq_missing(to, n) > sq_kv_pool_bytes_free(to->pool) ||
        sq_kv_seq_reserve(to, n, NULL) != SQUISH_OK) {
        sq_kv_seq_truncate(to, 0);
        return false;
    }
    if (written > tiles * TILE)
        memcpy(sq_kv_column_page(to->pool, to->columns[tiles], 0),
               sq_kv_column_page(to->pool, from->columns[tiles], 0), to->pool->open_bytes);
    return true;
}

void sq_kv_seq_swap(sq_kv_seq *a, sq_kv_seq *b) {
    assert(a->pool == b->pool && a->tokens_max == b->tokens_max);
    const sq_kv_seq t = *a;
    *a = *b;
    *b = t;
}
