/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_int.h - what the files of eval share. */
#ifndef SQ_EVAL_INT_H
#define SQ_EVAL_INT_H

#include "eval/eval.h"
#include "format/json.h"

/* (eval_tasks.c) The next line of *rest without its end; false: there is none. */
bool eval_next_line(sq_span *rest, sq_span *line);
void eval_sha256(sq_span bytes, char out[65]);

/* (eval_item.c) One record into an item, texts into the arena of s. label: of a list of labels, -1: none.
 * where: file and line, for errors. */
squish_status eval_item_read(eval_set *s, const json_t *doc, int64_t label, const char *where,
                             eval_item *item, squish_error *err);
uint64_t eval_item_hash(const eval_item *item);

#endif
