/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_archive.h - a snapshot file (kv_snapshot.h) in fewer bytes, for prefixes that nobody reads now.
 *
 *   1 lossless   the whole file through an entropy coder (kv_rans.h): the same bytes come back
 *   2 coded      its header and tables as they are, its pages as codes of trained books (kv_codec.h), all
 *                that through the same coder: pages that are near come back
 *
 *   header 64 B   0 magic "SQKVARC1"   8 version u32   12 codec u32   16 bytes before the entropy coder u64
 *                24 bytes behind the header u64   32 sum of them u64   40 sum of the books u64 (lossless: 0)
 *                48 zeros   56 sum of bytes 0..55 u64
 *
 *   coded image  header and tables of the snapshot, sums of tiles zero | gains, codes: of each part
 *                (kv_codec.h) for all tokens of the file, gains of all parts first
 *
 * Little-endian; sums are XXH3-64. A folder may hold both kinds of file under the same names: a reader tells
 * them apart by their first eight bytes, and what comes out of an archive is checked as any snapshot is. No
 * function allocates. */
#ifndef SQ_KV_ARCHIVE_H
#define SQ_KV_ARCHIVE_H

#include "kv/kv_codec.h"
#include "kv/kv_snapshot.h"

enum { SQ_ARCHIVE_HEADER = 64 };

/* Room that sq_archive_make needs: for the archive, and for its work. */
size_t sq_archive_bound(size_t snapshot_bytes);
size_t sq_archive_scratch(void);
/* Archive a finished snapshot file of n bytes; returns the bytes at out. */
size_t sq_archive_make(const uint8_t *snapshot, size_t n, uint8_t *out, uint8_t *scratch);

/* The same of a coded image, made with books of this sum. */
size_t sq_archive_make_coded(const uint8_t *image, size_t n, uint64_t books, uint8_t *out, uint8_t *scratch);

bool sq_archive_is_one(sq_span file); /* by its magic */
/* Check the header; *n: bytes of the snapshot or coded image, bytes_max at most. CORRUPT names the field. */
squish_status sq_archive_header(sq_span file, size_t bytes_max, size_t *n, squish_error *err);
/* The sum of the books that a file whose header was checked needs; 0: none, it is lossless. */
uint64_t sq_archive_books(sq_span file);
/* What is in a file whose header was checked, all n bytes of it. CORRUPT: a sum or a code is wrong, and
 * `snapshot` undefined. */
squish_status sq_archive_open(sq_span file, uint8_t *snapshot, size_t n, squish_error *err);
/* Make the sums right again, as far as there is a header: for tests that look behind them. */
void sq_archive_mend(uint8_t *file, size_t n);

/* ---- coded images (kv_coded.c) --------------------------------------------------------------- */

/* Of a snapshot's tiles, all of them open and f16. */
size_t sq_coded_bytes(const sq_codec *c, int32_t n_tiles);
/* Bytes of work space that coding n tiles, or decoding them, takes. */
size_t sq_coded_scratch(const sq_codec *c, int32_t n_tiles);
/* image: sq_coded_bytes; of a snapshot file with its header. */
void sq_coded_make(const sq_codec *c, const sq_kernels *k, const uint8_t *snapshot, const sq_snapshot_view *v,
                   uint8_t *image, uint8_t *scratch);
/* Check all of an image but its ids; numbers of *v are set, file_bytes those of the snapshot. CORRUPT. */
squish_status sq_coded_header(const sq_codec *c, sq_span image, const sq_kv_policy *p, sq_snapshot_view *v,
                              squish_error *err);
/* The snapshot of an image that was checked: v->file_bytes, 64-byte aligned, with sums of its own. */
void sq_coded_open(const sq_codec *c, const sq_kernels *k, sq_span image, const sq_snapshot_view *v,
                   uint8_t *snapshot, uint8_t *scratch);

#endif
