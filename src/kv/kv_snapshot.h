/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snapshot.h - prefixes on disk: what one process computed, another finds.
 *
 * One file holds up to 32 tiles in a row. It is addressed by a hash of everything from the first token to its
 * last, so prompts that begin the same share files:
 *
 *   header 256 B | ids [tiles][32] i32 | forms [32] u8 | sums [tiles] u64 | pad to 64 | pages, tile by tile
 *
 * A tile is there open, sealed or in both forms (1, 2, 3), all layers of the one before all of the other: in
 * the forms that a sequence reads which goes on at the end of the file or of a later one.
 *
 *   header   0 magic "SQKVSNP1"   8 version u32   12 header bytes u32   16 identity u64   24 salt u64
 *           32 parent u64 (hash of the tokens before)   40 chain u64 (hash of all to the end)
 *           48 first tile u32     52 tiles u32    56 layers u32   60 KV heads u32   64 head dim u32
 *           68 zero               72 policy u64 (a hash of what formats pages have)
 *           80 pages offset u64   88 file bytes u64   96 zeros
 *          240 sum of ids, forms and sums u64   248 sum of bytes 0..247 u64
 *
 * Little-endian; sums are XXH3-64, as everywhere in this house. identity stands for the model. */
#ifndef SQ_KV_SNAPSHOT_H
#define SQ_KV_SNAPSHOT_H

#include "kv/kv_codec.h"

enum { SQ_SNAPSHOT_TILES = 32, SQ_SNAPSHOT_HEADER = 256 };

typedef struct {
    uint64_t identity, salt, parent, chain;
    int32_t first_tile, n_tiles;
    sq_kv_shape shape;
    sq_kv_policy policy;
    uint8_t forms[SQ_SNAPSHOT_TILES]; /* SQ_KV_FORM_OPEN, SEALED */
    const uint8_t *ids;   /* [32 * n_tiles] i32; 64-byte aligned if the file is */
    const uint8_t *sums;  /* [n_tiles] u64 */
    const uint8_t *pages;
    uint64_t file_bytes;
} sq_snapshot_view;

/* Check a header of SQ_SNAPSHOT_HEADER bytes, of pages as `policy` has them. CORRUPT names the field. Only
 * numbers of *out are set. */
squish_status sq_snapshot_header(const uint8_t *p, size_t n, const sq_kv_policy *policy,
                                 sq_snapshot_view *out, squish_error *err);
/* Check a whole file but for its pages. CORRUPT. */
squish_status sq_snapshot_parse(sq_span file, const sq_kv_policy *policy, sq_snapshot_view *out,
                                squish_error *err);
/* Check a tile: its sum, headers of its pages, and that all its numbers are finite. CORRUPT. */
squish_status sq_snapshot_tile(const sq_snapshot_view *v, int32_t tile, squish_error *err);
/* Its pages in one form, all layers; NULL: it is not there in that form. */
const uint8_t *sq_snapshot_form(const sq_snapshot_view *v, int32_t tile, uint32_t form);
/* The most bytes of a file of such pages. */
uint64_t sq_snapshot_bytes_max(const sq_kv_shape *s, const sq_kv_policy *p);
/* Hash of 32 more tokens; chain 0 is the beginning. */
uint64_t sq_snapshot_chain(uint64_t identity, uint64_t salt, uint64_t chain, const int32_t *ids);

/* ---- a folder of them ------------------------------------------------------------------------ */

/* A thread of its own writes; the others are called by the pool's owner, counts from anywhere. */
typedef struct sq_snapshots sq_snapshots;
typedef struct {
    const char *dir;
    uint64_t bytes_max, identity;
    int32_t tokens_max; /* longest prefix */
    bool archive;       /* files are written in fewer bytes (kv_archive.h); both kinds are read */
    /* Files are written as codes, which goes before archive. NULL: none. The pool's pages are f16, open, and
     * have the shape of the books, which outlive the folder. Nothing is coded twice, so what came back and
     * was cut within a file is not written again; and prefixes that would not come back in half the time that
     * computing takes are neither written nor read: their ids are with whoever asks. */
    const sq_codec *codec;
    int32_t coded_min;  /* tokens of the shortest prefix that is coded (sq_codec_worth) */
    squish_warn_fn warn;
    void *warn_user;
} sq_snapshots_options;
/* Makes the folder (0700) if it is not there. IO, NO_MEMORY. */
squish_status sq_snapshots_new(sq_snapshots **out, sq_kv_pool *p, sq_kv_tree *t,
                               const sq_snapshots_options *o, squish_error *err);
/* Waits until what was handed over is written; then nothing more is, and counts are final. s may be NULL. */
void sq_snapshots_finish(sq_snapshots *s);
void sq_snapshots_free(sq_snapshots *s); /* the same first */
/* Read what continues the beginning of ids[0..n) beyond what is in the tree into the tree, as far as columns
 * are free or idle; returns the tokens read. A file that does not fit is a miss, with one line of warning. Of
 * codes come only the tiles that a query at n may read as such (sq_codec_tiles). */
int32_t sq_snapshots_restore(sq_snapshots *s, uint64_t salt, const int32_t *ids, int32_t n);
/* Hand over idle prefixes that are not on disk: those found again since they were computed, or all. wait: for
 * room in the queue; else what finds none is left for later. */
void sq_snapshots_keep(sq_snapshots *s, bool all, bool wait);
typedef struct {
    uint64_t hits, written, dropped; /* files; dropped: evicted while the queue was full, or not writable */
    uint64_t coded_tokens, coded_bytes; /* of files written as codes */
} sq_snapshots_counts;
sq_snapshots_counts sq_snapshots_count(sq_snapshots *s);

#endif
