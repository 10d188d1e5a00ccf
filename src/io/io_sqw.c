/* SPDX-License-Identifier: Apache-2.0
 *
 * io_sqw.c - the bytes of a container's unit, compared with the sums its tensors came with. */
#include "io/io.h"

#include <stdio.h>
#include <xxhash.h>

bool sq_io_check_sqw(void *user, int32_t unit, const uint8_t *p, char *what, size_t n) {
    const sq_sqw *s = user;
    size_t n_units, n_tensors;
    const sq_sqw_unit *u = &sq_sqw_units(s, &n_units)[unit];
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n_tensors) + u->first_tensor;
    for (uint32_t i = 0; i < u->n_tensors; i++, t++) {
        const uint64_t sum = XXH3_64bits(p + (t->data_off - u->offset), (size_t)t->data_bytes);
        if (sum == t->sum) continue;
        snprintf(what, n, "tensor '%.60s': checksum is %016llx, wanted %016llx", sq_sqw_name(s, t),
                 (unsigned long long)sum, (unsigned long long)t->sum);
        return false;
    }
    return true;
}
