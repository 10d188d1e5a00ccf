/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_private.h - what becomes of a sequence's tiles behind the end of its prompt: fewer bits by votes.
 *
 * Up to there tiles are canonical: their form follows from positions, and they may be shared. At the end of a
 * prompt a sequence *departs*, if the policy has votes: from then on it remembers for each tile how it is
 * read, and events change tiles, always by a copy in fewer bits that is this sequence's own:
 *
 *   tile      0      1       2       3       ...     n - 4 .. n - 1
 *   read      open   q2      q8      q4              open
 *   column    [ 7 ]  [ 31 ]  [ 12 ]  [ 33 ]          [ 9 ] ..
 *             shared own     shared  own             shared until written
 *
 *   step of the sequence -> sq_kv_seq_events -> moves -> the backend writes the new pages -> sq_kv_seq_moved
 *
 * What it shared stays in the prefix tree as it was, for whoever begins alike, as long as there is room. The
 * sequence adds nothing to the tree any more. */
#ifndef SQ_KV_PRIVATE_H
#define SQ_KV_PRIVATE_H

#include "kv/kv.h"

enum { SQ_KV_MOVES_MAX = 32 };

/* A tile on its way: every layer's page of `from`, open or sealed, is made into one of `to`. */
typedef struct {
    int32_t tile, from, to; /* columns */
    bool from_open;
    uint8_t rung; /* of `to` */
} sq_kv_move;

/* How tiles are read, [tiles]; NULL: as positions say. */
const uint8_t *sq_kv_seq_reads(const sq_kv_seq *s);

/* The prompt of s has ended: it departs, and all tiles have a vote. Without votes: nothing. */
void sq_kv_seq_prompt_end(sq_kv_seq *s);
/* [n_kv_heads][head_dim] the running weight of a layer's queries by channel, written by whoever sees them;
 * NULL: nobody asks (MixKVQ is off). */
float *sq_kv_seq_weight(sq_kv_seq *s, int32_t layer);
/* [tiles] what Cocktail judges tiles by, more is more relevant; written by whoever knows. NULL: nobody asks.
 */
float *sq_kv_seq_mass(sq_kv_seq *s);
/* Judge all full tiles that were not judged before and are not pinned, by that. */
void sq_kv_seq_judge(sq_kv_seq *s);
int8_t sq_kv_seq_relevance(const sq_kv_seq *s, int32_t tile); /* what came of it */
bool sq_kv_seq_departed(const sq_kv_seq *s);
/* Tiles that go down now, up to SQ_KV_MOVES_MAX, with columns of their own in *moves; 0: none, and nearly
 * free as long as no threshold was crossed. As long as it is not 0 there may be more after sq_kv_seq_moved.
 */
int32_t sq_kv_seq_events(sq_kv_seq *s, sq_kv_move *moves);
/* One tile goes down a rung before its time, since memory is short: the oldest of those with the most bits. A
 * sequence whose prompt has not ended departs. Returns 0 where nothing can give. */
int32_t sq_kv_seq_give(sq_kv_seq *s, sq_kv_move *move);
/* The pages of these moves are written: they take their places. */
void sq_kv_seq_moved(sq_kv_seq *s, const sq_kv_move *moves, int32_t n);

/* Rungs of all tiles of a sequence that has departed, [tiles] of sq_rung, as the next query reads them; a
 * table that stays where it is. NULL: it has not, and positions say. */
const uint8_t *sq_kv_seq_rungs(const sq_kv_seq *s);
/* Rung of a tile, departed or not. */
sq_rung sq_kv_seq_rung(const sq_kv_seq *s, int32_t tile);
/* What a sequence holds now. */
typedef struct {
    int32_t tokens[SQ_RUNGS]; /* by rung */
    int32_t judged[3];        /* tiles that Cocktail found low, middling, high */
    uint64_t bytes[SQ_RUNGS]; /* of their columns: headers, codes and scales of all layers */
    uint64_t bytes_f16;       /* of all its tokens in f16, dropped ones too, in tiles of the same headers */
    int32_t dropped;          /* tokens (SnapKV) */
} sq_kv_census;
void sq_kv_seq_census(const sq_kv_seq *s, sq_kv_census *out);

#endif
