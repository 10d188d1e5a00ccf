/* SPDX-License-Identifier: Apache-2.0
 *
 * base_heap.c - malloc's heap as a whole. */
#include "base/base_heap.h"

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>

void sq_heap_trim(void) { (void)malloc_trim(0); }
void sq_heap_share(void) { (void)mallopt(M_ARENA_MAX, 2); }
#else
void sq_heap_trim(void) {}
void sq_heap_share(void) {}
#endif
