/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snapshot_int.h - making a snapshot file in memory: begin, its tiles, seal. */
#ifndef SQ_KV_SNAPSHOT_INT_H
#define SQ_KV_SNAPSHOT_INT_H

#include "kv/kv_snapshot.h"

/* Bytes of a file of v's shape, policy, tiles and forms. */
uint64_t sq_snapshot_bytes(const sq_snapshot_view *v);
/* Where the pages of a file of so many tiles begin: behind header and tables. */
size_t sq_snapshot_tables(int32_t n_tiles);
/* The header without its sums, and zeros up to the pages. file: sq_snapshot_bytes, 8-byte aligned. */
void sq_snapshot_begin(uint8_t *file, const sq_snapshot_view *v);
/* Copy tile 0..n_tiles - 1 of the file from a column that has the forms v says. */
void sq_snapshot_put_tile(uint8_t *file, const sq_snapshot_view *v, const sq_kv_pool *p, int32_t tile,
                          const int32_t *ids, int32_t column);
/* Sums: the slow part, for the thread that writes. */
void sq_snapshot_seal(uint8_t *file, const sq_snapshot_view *v);
/* The sums of header and tables alone, as far as there are tables in n bytes. */
void sq_snapshot_mend(uint8_t *file, size_t n);

#endif
