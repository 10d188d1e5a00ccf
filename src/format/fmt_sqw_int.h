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
    uint32_t quality;      /* 0: not judged */
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

/* "TENS" for messages; out holds 5 bytes. */
const char *sq_sqw_fourcc_text(uint32_t fourcc, char out[5]);

#endif
