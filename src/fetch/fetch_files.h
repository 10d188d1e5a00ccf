/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_files.h - several large files at once, by ranges, with a part map on disk for each.
 *
 * A file is blocks of 1 MiB. Connections take runs of up to 32 missing blocks, from whichever file is next;
 * bytes go to their place by pwrite, and a block that is whole is marked in the map behind them:
 *
 *   PATH   |block 0|block 1| hole  |block 3| ...      the file at its full length, sparse
 *   MAP    "squish-parts 1 BYTES SUM\n" "##.#..."     one letter a block, '#' is there
 *
 * So a kill at any moment loses at most one block of each connection. A connection that breaks is asked again
 * from the byte it had come to, after a pause that doubles up to 30 s and starts anew with every byte;
 * without a byte from anywhere it is given up after `retries` tries. A server without ranges, and one that
 * packs what nobody asked it to pack, gets one request for the whole file.
 *
 * Sums are taken by a thread behind the connections as the front of a file grows, so verifying costs no pass
 * of its own. A file whose sum is wrong is not kept: neither it nor its map is there afterwards. Where blocks
 * came from an earlier run (whose last writes a power cut may have lost) it is fetched once more first. */
#ifndef SQ_FETCH_FILES_H
#define SQ_FETCH_FILES_H

#include "fetch/fetch.h"

enum {
    FETCH_BLOCK = 1 << 20,
    FETCH_RUN_BLOCKS = 32,
    FETCH_BLOCKS_MAX = 4 << 20, /* 4 TiB */
    FETCH_CONNECTIONS_MAX = 16,
    FETCH_FILES_URL_MAX = 2048
};

typedef enum { FETCH_SUM_NONE, FETCH_SUM_SHA256, FETCH_SUM_GIT } fetch_sum; /* GIT: SHA-1 of a git blob */

typedef struct {
    const char *url;
    const char *path, *map; /* folders exist; the map stays until whoever asked removes it */
    uint64_t bytes;
    fetch_sum kind;
    const char *sum; /* hex digits, lower case; NULL with NONE */
    uint64_t lead;   /* of fetch_files_lead: bytes from the front that are enough to look at the file */
    /* out: */
    char sha256[65]; /* of the file */
} fetch_file_item;

typedef struct {
    uint64_t bytes_done, bytes_total, bytes_fetched; /* fetched: over the network, in this run */
    const char *name;                                /* of the file that was last written to */
    size_t file;                                     /* its index */
    uint64_t file_done;
    bool verifying; /* all is here; sums are being finished */
} fetch_files_progress;

typedef struct {
    const char *token, *token_origin;
    int32_t connections;                                         /* 0: 4 */
    int32_t retries;                                             /* 0: 8 */
    double stall_s;                                              /* 0: 20 */
    uint64_t rate;                                               /* bytes a second; 0: no cap */
    bool (*progress)(void *user, const fetch_files_progress *p); /* false stops (CANCELLED) */
    void *user;
} fetch_files_options;

/* Fetch all of them; every one is whole and verified afterwards, or the error says of which it is not true.
 * What is there already is not asked for again. Errors: NETWORK, NOT_FOUND, CORRUPT (a wrong sum: not kept),
 * NO_SPACE, IO, CANCELLED, NO_MEMORY. */
squish_status fetch_files(fetch_file_item *files, size_t n, const fetch_files_options *o, squish_error *err);
/* Only the first `lead` bytes of each, so that headers can be read. */
squish_status fetch_files_lead(fetch_file_item *files, size_t n, const fetch_files_options *o,
                               squish_error *err);
/* Bytes of the file that are marked as there; 0 without a map. */
uint64_t fetch_files_there(const fetch_file_item *f);

/* A map's text: letters into blocks [n_blocks], 1 for there. false: not a map of a file of `bytes` and that
 * sum ("-" for none). */
bool fetch_map_read(const char *text, size_t n, uint64_t bytes, const char *sum, uint8_t *blocks,
                    size_t n_blocks);
size_t fetch_map_header(uint64_t bytes, const char *sum, char *out, size_t n);

#endif
