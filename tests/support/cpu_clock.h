/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_clock.h - time this thread has computed, in ns: bounds that catch quadratic work hold on a crowded
 * machine too. */
#ifndef SQ_TEST_CPU_CLOCK_H
#define SQ_TEST_CPU_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t sq_test_cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
