/* SPDX-License-Identifier: Apache-2.0
 *
 * faults.h - an allocator for tests that counts what lives and refuses the n-th request.
 *
 *     for (int64_t n = 1;; n++) {
 *         struct sq_test_alloc_state state = {.fail_at = n};
 *         squish_alloc a = sq_test_alloc(&state);
 *         squish_status st = the_operation(&a, ...);
 *         release what the operation gave, then
 *         assert_int_equal(state.live_blocks, 0);
 *         if (st == SQUISH_OK) break;
 *         assert_int_equal(st, SQUISH_NO_MEMORY);
 *     }
 *
 * Every block is exact and carries its size in front, so that a caller who misremembers old_bytes is found
 * (wrong_sizes) and ASan sees a step over the end. Safe from several threads. */
#ifndef SQ_TEST_FAULTS_H
#define SQ_TEST_FAULTS_H

#include "squish.h"

struct sq_test_alloc_state {
    int64_t fail_at;       /* this request fails, counted from 1; 0: none */
    bool persistent;       /* and every later one too */
    _Atomic int64_t count; /* requests so far: allocations and resizes, not frees */
    _Atomic int64_t live_bytes, live_blocks, peak_bytes;
    _Atomic int64_t wrong_sizes; /* calls whose old_bytes was not the size of the block */
};

squish_alloc sq_test_alloc(struct sq_test_alloc_state *state);

#endif
