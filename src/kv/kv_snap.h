/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snap.h - fewer tokens: of a long prompt stay those that its end looks at (SnapKV, Li et al., 2024,
 * arXiv:2404.14469).
 *
 * The last tokens of a prompt, the window, judge. Each layer and head of keys notes of every token the
 * largest share of its attention that any of their queries gives it; that is pooled along the text (the
 * largest of 15 neighbours) and the best stay. Behind the end of the prompt they are copied, in order, into
 * tiles of this sequence's own, and the rest goes:
 *
 *   slot      0 ..    32 ..                              end ..
 *   before    | sink  | all the prompt before its window | window and the begun tile |
 *   after     | sink  | chosen, by head |                | the same columns |
 *                                       ^ cut_from
 *
 * The paper sums over the queries and pools 7 neighbours. A question is shorter than the window, though, and
 * what stands before it votes as well: of a sum the prose has most, of a maximum everybody has a say. And
 * what is asked for stands behind the words that the question repeats, so 3 neighbours do not reach to the
 * end of a number of four digits (docs/kv.md has the figures).
 *
 * So a token's slot is not its position any more. Keys stay rotated at the positions they stood at, and the
 * next token has the position behind the prompt; attention goes by slots, and needs no more. Heads choose
 * for themselves, all as many. In layers with a sliding window a slot would not say what is in sight: such
 * models are refused.
 *
 *   rows of the window -> sq_kv_seq_look, _looks      prompt's end -> sq_kv_seq_prompt_end
 *   -> sq_kv_seq_snap_begin -> for each layer _choose, and the backend copies -> sq_kv_seq_snap_end */
#ifndef SQ_KV_SNAP_H
#define SQ_KV_SNAP_H

#include "kv/kv.h"

/* n rows from position pos on, of a prompt whose window begins at position `from`, are about to look. What
 * rows of other prompts looked at is forgotten. The policy has SnapKV. */
void sq_kv_seq_look(sq_kv_seq *s, int32_t pos, int32_t n, int32_t from);
/* Shares of a layer, [n_kv_heads][*ld] by slot, of tiles [0, *tiles): who sees the queries raises them.
 * NULL: all of the prompt stays, nobody has to look. */
float *sq_kv_seq_looks(sq_kv_seq *s, int32_t layer, size_t *ld, int32_t *tiles);

/* Is there something to drop, and not yet done? */
bool sq_kv_seq_snap_due(const sq_kv_seq *s);
/* Take the columns for what stays. NO_MEMORY: there is no room now; nothing has changed. */
squish_status sq_kv_seq_snap_begin(sq_kv_seq *s, squish_error *err);
/* What stays of a layer: slots [n_kv_heads][*n], of each head rising, and where to, pages [*n / 32]. Both
 * live until the next call. */
const int32_t *sq_kv_seq_snap_choose(sq_kv_seq *s, int32_t layer, int32_t *n, uint8_t *const **pages);
/* All layers are copied: the rest goes. */
void sq_kv_seq_snap_end(sq_kv_seq *s);
int32_t sq_kv_seq_dropped(const sq_kv_seq *s); /* tokens, so far */

#endif
