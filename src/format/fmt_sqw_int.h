/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_sqw_int.h - the superblock of a .sqw file and the arithmetic its reader and its writer share.
 * docs/format-sqw.md describes the format in prose. */
#ifndef SQ_FMT_SQW_INT_H
#define SQ_FMT_SQW_INT_H

#include "format/format.h"
#include "format/fmt_int.h"
#include "format/limits.h"

#define SQ_SQW_MAGIC "\x89SQW\x0D\x0A\x1A\x0A" /* not 7-bit clean, broken by text-mode copies */
#define SQ_SQW_ENDIAN 0x01020304u

enum {
    SQ_SQW_SECTION_ALIGN = 64,
    SQ_SQW_TENSOR_ALIGN = 64, /* tensors under one page */
    SQ_SQW_EXTENT = 4 << 20,  /* bytes of DATA under one sum of SUMS */
    SQ_SQW_DIMS = 4,
    SQ_SQW_UNITS_MAX = 65535,     /* a tensor names its unit in 16 bits */
    SQ_SQW_INCOMPATIBLE_KNOWN = 0 /* feature bits a reader must know to read on */
};

/* Bytes 0..4095. All sums are XXH3-64. The chain superblock -> section table -> TENS -> tensor data makes
 * `sum` a fingerprint of the whole file. */
typedef struct {
    uint8_t magic[8];
    uint32_t endian; /* SQ_SQW_ENDIAN as the writer saw it */
    uint16_t major, minor;
    uint64_t file_bytes;   /* must equal the real size */
    uint64_t incompatible; /* unknown bit: refuse */
    uint64_t compatible;   /* unknown bit: ignore */
    uint32_t n_sections, reserved0;
    uint64_t section_table; /* offset of n_sections records */
    uint32_t n_tensors, n_units;
    uint8_t source_id[16]; /* XXH3-128 over the source checkpoint */
    uint32_t quality;      /* sq_quality_flag */
    uint32_t reserved1;
    uint64_t table_sum; /* of the section table, which holds the sums of all other tables */
    char builder[64];   /* NUL-padded */
    uint8_t reserved[3928];
    uint64_t sum; /* of bytes 0..4087 */
} sq_sqw_super;
_Static_assert(sizeof(sq_sqw_super) == SQ_SQW_PAGE, "one page");
_Static_assert(offsetof(sq_sqw_super, builder) == 96 && offsetof(sq_sqw_super, sum) == 4088, "on disk");

/* Where tensors of this size may begin. */
static inline uint64_t sq_sqw_tensor_align(uint64_t bytes) {
    return bytes >= SQ_SQW_PAGE ? SQ_SQW_PAGE : SQ_SQW_TENSOR_ALIGN;
}
static inline uint64_t sq_sqw_n_extents(uint64_t data_bytes) {
    return data_bytes / SQ_SQW_EXTENT + (data_bytes % SQ_SQW_EXTENT != 0);
}

/* ---- journal of an unfinished file (fmt_sqw_journal.c) ---- */

/* Which file the journal belongs to. */
typedef struct {
    uint8_t layout[16]; /* XXH3-128 over all declarations and offsets */
    uint8_t source_id[16];
    uint64_t file_bytes;
} sq_sqw_key;

typedef struct {
    uint8_t magic[8];
    sq_sqw_key key;
    uint64_t reserved;
    uint64_t sum; /* of the bytes before it */
} sq_sqw_journal_head;
_Static_assert(sizeof(sq_sqw_journal_head) == 64, "on disk");

/* One finished tensor; note_bytes bytes of note follow, then zeros up to a multiple of 8. */
typedef struct {
    uint32_t index, batch; /* batch: counts flushes */
    uint32_t note_bytes, reserved;
    uint64_t data_sum, source_sum;
    uint64_t
        sum; /* of the record with this field 0 and its note; seeded with the head's sum and the offset */
} sq_sqw_journal_record;
_Static_assert(sizeof(sq_sqw_journal_record) == 40, "on disk");

typedef struct {
    sq_newfile file;
    sq_buf pending; /* records not yet written */
    uint64_t end;   /* of the records in the file */
    uint64_t seed;
    uint32_t batch; /* of the next flush */
} sq_sqw_journal;

/* Opened or made; holds nothing yet as far as we know. Memory belongs to the caller: always deinit. */
squish_status sq_sqw_journal_init(sq_sqw_journal *j, const char *path, const squish_alloc *a,
                                  squish_error *err);
/* Nothing in it any more, and the disk knows. */
squish_status sq_sqw_journal_clear(sq_sqw_journal *j, squish_error *err);
/* Begin an empty one for `key`. */
squish_status sq_sqw_journal_start(sq_sqw_journal *j, const sq_sqw_key *key, squish_error *err);
/* The good records of a journal read into memory: false from the first bad one on, or where none is left. *at
 * is 0 at the beginning and then the offset behind the record. `note` lies in `file`. */
bool sq_sqw_journal_next(sq_span file, const sq_sqw_key *key, uint64_t *at, sq_sqw_journal_record *rec,
                         const uint8_t **note);
/* Go on behind byte `end`; what lies after it is cut off. */
squish_status sq_sqw_journal_continue(sq_sqw_journal *j, const sq_sqw_key *key, uint64_t end, uint32_t batch,
                                      squish_error *err);
/* Remember a record; it is written by flush, whose caller has flushed the data before. */
bool sq_sqw_journal_add(sq_sqw_journal *j, sq_sqw_journal_record rec, const void *note);
squish_status sq_sqw_journal_flush(sq_sqw_journal *j, squish_error *err);
/* remove: the file goes too. */
void sq_sqw_journal_deinit(sq_sqw_journal *j, bool remove);

/* "TENS" for messages; out holds 5 bytes. */
const char *sq_sqw_fourcc_text(uint32_t fourcc, char out[5]);

#endif
