/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_stream.h - a file of a header and tensors behind it, filled in any order; for the writers of this room.
 */
#ifndef SQ_FMT_STREAM_H
#define SQ_FMT_STREAM_H

#include "format/fmt_int.h"
#include "format/format.h"

#include <stdatomic.h>

typedef enum { SQ_FMT_COLLECTING, SQ_FMT_FILLING, SQ_FMT_FINISHED } sq_fmt_phase;

typedef struct {
    sq_ftensor t;    /* name in the arena; data unused */
    uint64_t offset; /* from the first byte of data */
} sq_fmt_item;

typedef struct {
    squish_alloc alloc;
    sq_arena arena;
    const char *path;
    sq_fmt_phase phase;
    sq_fmt_item *items;
    uint32_t n, cap;
    uint64_t data_bytes, data_at; /* data_at: of the first byte, once filling */
    _Atomic uint64_t *put;        /* bytes put into each tensor */
    sq_newfile file;
} sq_fmt_stream;

/* Always deinit, also after a failed init. deinit abandons an unfinished file. */
squish_status sq_fmt_stream_init(sq_fmt_stream *s, const char *path, const squish_alloc *a,
                                 squish_error *err);
void sq_fmt_stream_deinit(sq_fmt_stream *s);
/* INVALID with the name of the call unless the stream is in that phase. */
squish_status sq_fmt_stream_phase(const sq_fmt_stream *s, sq_fmt_phase wanted, const char *what,
                                  squish_error *err);
/* The caller has checked dtype, dims and bytes against each other. */
squish_status sq_fmt_stream_add(sq_fmt_stream *s, const sq_ftensor *t, uint64_t align, size_t *index,
                                squish_error *err);
squish_status sq_fmt_stream_check_names(sq_fmt_stream *s,
                                        squish_error *err); /* INVALID: one is there twice */
/* Make the file: n bytes of header, the data, `tail` bytes of zeros. */
squish_status sq_fmt_stream_begin(sq_fmt_stream *s, const void *head, size_t n, uint64_t tail,
                                  uint64_t *file_bytes, squish_error *err);
squish_status sq_fmt_stream_put(sq_fmt_stream *s, size_t index, uint64_t at, const void *p, size_t n,
                                squish_error *err);
squish_status sq_fmt_stream_finish(sq_fmt_stream *s, squish_error *err);

#endif
