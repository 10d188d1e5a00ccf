/* SPDX-License-Identifier: Apache-2.0
 *
 * base_heap.h - malloc's heap as a whole: for programs that run for months, not for the library. */
#ifndef SQ_BASE_HEAP_H
#define SQ_BASE_HEAP_H

/* Give pages that hold nothing back to the system. What was freed in the middle of a heap stays with the
 * process else, and a cache whose entries come and go in many small pieces leaves more and more of it. Takes
 * a millisecond or so, during which other threads may wait for memory. glibc's; elsewhere nothing. */
void sq_heap_trim(void);

/* From now on threads share two arenas instead of having one each: what a thread frees another can have, so
 * that the heap is as large as it was when most was in use, and not as the sum of that over threads. glibc's;
 * elsewhere nothing. */
void sq_heap_share(void);

#endif
