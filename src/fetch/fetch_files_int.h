/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_files_int.h - what fetch_files.c (connections) and fetch_sums.c (the thread that sums) share. */
#ifndef SQ_FETCH_FILES_INT_H
#define SQ_FETCH_FILES_INT_H

#include "fetch/fetch_files.h"
#include "fetch/fetch_pool.h"

typedef struct {
    fetch_file_item *item;
    int fd, map_fd;
    uint8_t *blocks; /* [n_blocks] */
    size_t n_blocks, n_there, next_hint, front_block, map_head, unsynced;
    uint64_t bytes_there, farthest;
    int32_t n_slots;
    bool whole, restart, resumed, done; /* whole: in one request; restart: once its connections are gone */
    char sha256[65];
    /* Under the lock of the sums: bytes from the front that are there, and how often the file began anew. */
    uint64_t front;
    uint32_t generation;
} fetch_track;

typedef enum { FETCH_SLOT_IDLE, FETCH_SLOT_RUNS, FETCH_SLOT_WAITS } fetch_slot_state;
typedef struct {
    struct fetch_run_all *run;
    fetch_slot_state state;
    fetch_track *file; /* NULL: nothing to do */
    uint64_t from, at, to;
    int32_t tries; /* since the last byte */
    uint64_t until_ns, fails_since_ns;
    const char *unfit;
    bool too_much;
} fetch_slot;

typedef struct fetch_sums fetch_sums;
typedef struct fetch_run_all {
    fetch_files_options o;
    fetch_track *files;
    size_t n_files;
    bool lead_only;
    fetch_slot slots[FETCH_CONNECTIONS_MAX];
    fetch_pool *pool;
    fetch_sums *sums;
    uint64_t bytes_done, bytes_total, bytes_fetched, told_ns, heard_ns;
    squish_error err; /* the first thing that went wrong */
} fetch_run_all;

typedef enum { FETCH_SUM_OPEN, FETCH_SUM_RIGHT, FETCH_SUM_WRONG, FETCH_SUM_FAILED } fetch_verdict;
squish_status fetch_sums_new(fetch_sums **out, fetch_track *files, size_t n, squish_error *err);
void fetch_sums_free(fetch_sums *s);
/* The front of f is at byte `front`; anew: whatever was summed of it does not count. */
void fetch_sums_front(fetch_sums *s, fetch_track *f, uint64_t front, bool anew);
void fetch_sums_wait(fetch_sums *s, double seconds); /* for a verdict, that long */
/* found: the sum that was found. FAILED: err. f->sha256 is filled when it is RIGHT. */
fetch_verdict fetch_sums_verdict(fetch_sums *s, fetch_track *f, char found[65], squish_error *err);

#endif
