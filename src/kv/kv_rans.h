/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_rans.h - bytes in as few bytes as how often each of them occurs allows (range asymmetric numeral
 * systems, Duda, 2013, arXiv:1311.2540), for pages of a cache on disk.
 *
 * A stream is coded in blocks; each says how: as it is, as one row of bytes, or as two, the even and the odd
 * ones (halves of f16: signs and exponents repeat themselves, low bits do not).
 *
 *   block   kind u8 | raw bytes u32 | coded bytes u32 | kind 0: the bytes; 1: one row; 2: two rows
 *   row     frequencies u16 [256] of 4096 | states u32 [4] | bytes, in the order they are read
 *
 * Four states take turns, so that one does not wait for another. Little-endian. No function allocates. */
#ifndef SQ_KV_RANS_H
#define SQ_KV_RANS_H

#include "base/base.h"

enum { SQ_RANS_BLOCK = 1 << 16 };

/* The most bytes that n become. */
size_t sq_rans_bound(size_t n);
/* Room for sq_rans_bound(n) bytes at out; scratch: 2 * SQ_RANS_BLOCK bytes. Returns how many there are. */
size_t sq_rans_encode(const uint8_t *in, size_t n, uint8_t *out, uint8_t *scratch);
/* Exactly n bytes, from exactly `in.n`. CORRUPT: it is no such stream; what is in out is then undefined. */
squish_status sq_rans_decode(sq_span in, uint8_t *out, size_t n, squish_error *err);

#endif
