/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_archive.h - a snapshot file (kv_snapshot.h) in fewer bytes, for prefixes that nobody reads now.
 *
 *   lossless   the whole file through an entropy coder (kv_rans.h): the same bytes come back
 *
 *   header 64 B   0 magic "SQKVARC1"   8 version u32   12 codec u32 (1)   16 bytes of the snapshot u64
 *                24 bytes behind the header u64   32 sum of them u64   40 zeros   56 sum of bytes 0..55 u64
 *
 * Little-endian; sums are XXH3-64. A folder may hold both kinds of file under the same names: a reader tells
 * them apart by their first eight bytes, and what comes out of an archive is checked as any snapshot is. No
 * function allocates. */
#ifndef SQ_KV_ARCHIVE_H
#define SQ_KV_ARCHIVE_H

#include "base/base.h"

enum { SQ_ARCHIVE_HEADER = 64 };

/* Room that sq_archive_make needs: for the archive, and for its work. */
size_t sq_archive_bound(size_t snapshot_bytes);
size_t sq_archive_scratch(void);
/* Archive a finished snapshot file of n bytes; returns the bytes at out. */
size_t sq_archive_make(const uint8_t *snapshot, size_t n, uint8_t *out, uint8_t *scratch);

bool sq_archive_is_one(sq_span file); /* by its magic */
/* Check the header; *n: bytes of the snapshot, bytes_max at most. CORRUPT names the field. */
squish_status sq_archive_header(sq_span file, size_t bytes_max, size_t *n, squish_error *err);
/* The snapshot of a file whose header was checked, all n bytes of it. CORRUPT: a sum or a code is wrong, and
 * `snapshot` undefined. */
squish_status sq_archive_open(sq_span file, uint8_t *snapshot, size_t n, squish_error *err);
/* Make the sums right again, as far as there is a header: for tests that look behind them. */
void sq_archive_mend(uint8_t *file, size_t n);

#endif
