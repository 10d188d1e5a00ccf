/* SPDX-License-Identifier: Apache-2.0
 *
 * io_run.h - what tests of the cache of units ask it. Include it in one file of a program. */
#ifndef SQ_TEST_IO_RUN_H
#define SQ_TEST_IO_RUN_H

#include "io/io.h"
#include "support/model_run.h"

#include <unistd.h>

static inline sq_io_stats io_stats(sq_io *io) {
    sq_io_stats s;
    sq_io_get_stats(io, &s);
    return s;
}

static inline void io_wait_until_there(const sq_io *io, int32_t unit, int32_t seconds) {
    for (int i = 0; !sq_io_has(io, unit); i++) {
        if (i > 10000 * seconds) fail_msg("unit %d never came", unit);
        usleep(100);
    }
}

#endif
