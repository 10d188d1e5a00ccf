/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_int.h - what the files of the forge share. */
#ifndef SQ_FORGE_INT_H
#define SQ_FORGE_INT_H

#include "forge/forge.h"

#include <stdlib.h>

squish_status sq_sentinel_write(const char *path, const char *file, uint64_t bytes, uint64_t sum,
                                squish_error *err);

#endif
