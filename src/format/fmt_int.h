/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_int.h - what the readers of this room share and nobody else needs. */
#ifndef SQ_FMT_INT_H
#define SQ_FMT_INT_H

#include "format/format.h"

#include <inttypes.h>

/* Text from a file, made fit for a one-line message: control bytes and ill-formed UTF-8 become '?', anything
 * longer than SQ_SHOW_BYTES ends in "...". A hostile name must not steer the terminal it is printed on.
 * Returns out->text. */
enum { SQ_SHOW_BYTES = 96 };
typedef struct {
    char text[SQ_SHOW_BYTES + 4];
} sq_shown;
const char *sq_fmt_show(sq_shown *out, const char *s, size_t n);

/* The text file git leaves in place of a large one that was never fetched. */
bool sq_fmt_is_lfs_pointer(sq_span s);

/* Heap sort of item[0..n) in place: n log n at worst, whatever a file holds, and no memory. less must be a
 * strict weak order of the things the items stand for. Equal items come in no particular order. */
typedef bool (*sq_fmt_less)(const void *ctx, uint32_t a, uint32_t b);
void sq_fmt_sort(uint32_t *item, size_t n, sq_fmt_less less, const void *ctx);

/* Block geometry of a GGUF tensor type. False if the type cannot be read here; *name is then still what it is
 * called,
 * "?" if nobody knows. Plain types have blocks of one element. */
bool sq_fmt_gguf_type(uint32_t type_id, const char **name, uint32_t *block_items, uint32_t *block_bytes);
/* Between plain dtypes (or SQ_DT_GGUF + id) and GGUF's ids. */
sq_dtype sq_fmt_gguf_dtype(uint32_t type_id);
bool sq_fmt_gguf_id(sq_dtype t, uint32_t *type_id); /* false: GGUF has none */

#endif
