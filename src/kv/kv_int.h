/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_int.h - what pool, sequences and prefix tree share: columns and tables of sequences. */
#ifndef SQ_KV_INT_H
#define SQ_KV_INT_H

#include "kv/kv.h"

#include <stdatomic.h>

enum { SQ_KV_CURSORS = 4, SQ_KV_UNJUDGED = 2 };

typedef struct {
    int32_t holders;      /* 0: free */
    int32_t next_free;    /* while it is free; -1: the last */
    int32_t node;         /* of the prefix tree; -1: none */
    int32_t readers;      /* sequences that read the open form */
    int32_t newer, older; /* among the spare; -1: none */
    bool is_open;         /* its memory is there */
    bool has_sealed;      /* likewise; what it holds is valid if is_sealed */
    bool is_sealed;
    uint8_t rung;  /* of what is sealed: an sq_rung, where it is one sequence's own; 0: canonical */
    bool is_spare; /* the open form is kept for the prefix tree alone, beside a sealed one */
} sq_kv_column;

struct sq_kv_pool {
    squish_alloc alloc;
    sq_kv_shape shape;
    sq_kv_policy policy;
    sq_kv_geometry geo; /* of open pages */
    void *open_map;
    uint8_t *open, *sealed; /* column c at c * open_stride, c * sealed_bytes: its pages, layer by layer */
    size_t open_bytes, open_stride, sealed_bytes;
    size_t *sealed_at; /* [n_layers] of a layer's page in a sealed column; NULL: nothing is sealed */
    /* Likewise of private columns, by rung Q2 to Q8; NULL, 0 without votes. */
    uint8_t *private_map[SQ_RUNG_F16];
    size_t private_bytes[SQ_RUNG_F16], private_stride[SQ_RUNG_F16];
    size_t *private_at; /* [SQ_RUNG_F16][n_layers] */
    uint64_t bytes_max, bytes_evictable;
    _Atomic uint64_t bytes_used; /* read from elsewhere, too */
    int32_t n_columns, n_taken;
    int32_t carved;    /* columns handed out at least once: [0, carved) */
    int32_t free_list; /* columns given back; -1: none */
    int32_t spare_newest, spare_oldest;
    sq_kv_column *columns; /* [n_columns], valid up to carved */
    sq_kv_tree *tree;      /* NULL: none */
};

typedef struct sq_kv_snap sq_kv_snap;

struct sq_kv_seq {
    sq_kv_pool *pool;
    int32_t tokens_max, tiles_max, n_tiles, length;
    int32_t open_from;       /* tiles from here on are read open; so is the first */
    int32_t sealed_to;       /* tiles [1, here) are sealed */
    int32_t *columns;        /* [tiles_max] */
    uint8_t **pages;         /* [n_layers][tiles_max] */
    uint8_t **sealed_pages;  /* the same; NULL: nothing is sealed */
    int32_t node, n_in_tree; /* last tile that is in the tree, and how many are */
    /* (kv_private.c) Behind the end of a prompt, where the policy has votes. */
    bool departed;
    uint8_t *reads;          /* [tiles_max] SQ_KV_READ_; NULL without votes */
    uint8_t *rungs;          /* [tiles_max] what it reads is on */
    int8_t *relevance;       /* [tiles_max] Cocktail's, or SQ_KV_UNJUDGED */
    float *mass;             /* [tiles_max] NULL without Cocktail */
    float *weight;           /* [n_layers][n_kv_heads][head_dim] what queries weigh; NULL without MixKVQ */
    int32_t n_judged;        /* tiles before it were */
    int32_t event_at;        /* length from which on there is something to look at */
    int32_t cursor[SQ_KV_CURSORS];
    /* (kv_snap.c) length and tiles count slots: what is there. */
    int32_t dropped;         /* tokens from within: a position less its slot */
    int32_t cut_from;        /* slots before it are a choice, in which nothing can be cut */
    sq_kv_snap *snap;        /* NULL without SnapKV */
};

/* Rung that canonical sealed tiles are on. */
sq_rung sq_kv_canonical_rung(const sq_kv_policy *p);
/* A column that holds a private form alone, whose memory must be there; held once; -1: none is left. */
int32_t sq_kv_column_new_private(sq_kv_pool *p, int32_t tile, sq_rung r);

/* Bytes of a column that make_room could free. */
uint64_t sq_kv_column_evictable(const sq_kv_pool *p, int32_t column);
void sq_kv_column_set_node(sq_kv_pool *p, int32_t column, int32_t node);
/* A sequence begins to read the open form, which is there; or is done with it. */
void sq_kv_column_read_open(sq_kv_pool *p, int32_t column);
void sq_kv_column_leave_open(sq_kv_pool *p, int32_t column);
/* An open form beside a sealed one, read by nobody, is kept for the tree or goes. */
void sq_kv_column_nobody_reads(sq_kv_pool *p, int32_t column);
/* Add a form, of memory that is there; the caller writes the pages. Memory for a sealed form still to be
 * made.
 */
void sq_kv_column_add_open(sq_kv_pool *p, int32_t column, int32_t tile);
void sq_kv_column_add_sealed(sq_kv_pool *p, int32_t column, int32_t tile);
void sq_kv_column_reserve_sealed(sq_kv_pool *p, int32_t column, int32_t tile);
/* What is sealed of a column is no longer true: it is being written again. */
void sq_kv_column_unseal(sq_kv_pool *p, int32_t column);
/* Give `to` the forms it lacks and `from` has: the same tokens. */
void sq_kv_column_complete(sq_kv_pool *p, int32_t to, int32_t from, int32_t tile);

/* Write column c, held for the table already, or nothing (-1), into the table. */
void sq_kv_seq_set(sq_kv_seq *s, int32_t tile, int32_t column);
/* The same in place of what is there, an equal one, which is dropped. */
void sq_kv_seq_put(sq_kv_seq *s, int32_t tile, int32_t column);
bool sq_kv_seq_reads_open(const sq_kv_seq *s, int32_t tile);
/* Append a copy of the first rows (1..32) of an open column; the length is a whole number of tiles.
 * NO_MEMORY. */
squish_status sq_kv_seq_copy(sq_kv_seq *s, int32_t column, int32_t rows, squish_error *err);
/* (kv_snap.c) What a sequence needs for it, NULL where the policy has none; and forget what was looked at.
 * NO_MEMORY. */
squish_status sq_kv_snap_new(sq_kv_snap **out, const sq_kv_pool *p, int32_t tiles_max, squish_error *err);
void sq_kv_snap_free(sq_kv_snap *x, const sq_kv_pool *p);
void sq_kv_snap_forget(sq_kv_snap *x);
/* The prompt of a departed sequence has ended: what is to be dropped is dropped next. */
void sq_kv_snap_due(sq_kv_seq *s);
/* (kv_tree.c) A column of a node lost its last holder but the tree, or found one. */
void sq_kv_tree_rests(sq_kv_tree *t, int32_t node);
void sq_kv_tree_wakes(sq_kv_tree *t, int32_t node);
int32_t sq_kv_tree_parent(const sq_kv_tree *t, int32_t node);

#endif
