/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_int.h - what pool and prefix tree share: columns and tables of sequences. */
#ifndef SQ_KV_INT_H
#define SQ_KV_INT_H

#include "kv/kv.h"

#include <stdatomic.h>

typedef struct {
    int32_t holders;   /* 0: free */
    int32_t next_free; /* while it is free; -1: the last */
    int32_t node;      /* of the prefix tree; -1: none */
} sq_kv_column;

struct sq_kv_pool {
    squish_alloc alloc;
    sq_kv_shape shape;
    sq_kv_format format;
    sq_kv_geometry geo;
    uint8_t *base;          /* column c at c * column_bytes: its pages, layer by layer */
    size_t column_bytes;
    int32_t n_columns;
    int32_t carved;         /* columns handed out at least once: [0, carved) */
    int32_t free_list;      /* columns given back; -1: none */
    _Atomic int32_t n_used; /* read from elsewhere, too */
    sq_kv_column *columns;  /* [n_columns], valid up to carved */
    sq_kv_tree *tree;       /* NULL: none */
};

struct sq_kv_seq {
    sq_kv_pool *pool;
    int32_t tokens_max, tiles_max, n_tiles, length;
    int32_t *columns;        /* [tiles_max] */
    uint8_t **pages;         /* [n_layers][tiles_max] */
    int32_t node, n_in_tree; /* last tile that is in the tree, and how many are */
};

/* Write column c, held for the table already, or nothing (-1), into the table. */
void sq_kv_seq_set(sq_kv_seq *s, int32_t tile, int32_t column);
/* The same in place of what is there, which is dropped. */
void sq_kv_seq_put(sq_kv_seq *s, int32_t tile, int32_t column);
/* Append a copy of the first rows (1..32) of a column; the length is a whole number of tiles. NO_MEMORY. */
squish_status sq_kv_seq_copy(sq_kv_seq *s, int32_t column, int32_t rows, squish_error *err);
/* (kv_tree.c) A column of a node lost its last holder but the tree, or found one. */
void sq_kv_tree_rests(sq_kv_tree *t, int32_t node);
void sq_kv_tree_wakes(sq_kv_tree *t, int32_t node);
int32_t sq_kv_tree_parent(const sq_kv_tree *t, int32_t node);

#endif
