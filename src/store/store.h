/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - models on this machine: from what a user types to a path.
 *
 *   $SQUISH_HOME/models/NAME              checkpoints; SQUISH_HOME is ~/.squish by default
 *   $SQUISH_HOME/models/NAME-compressed   tiers, also those of checkpoints that lie in read-only places
 *
 * The store is plain directories; there is no database. The shipped model is looked for beside the program (a
 * build tree: ../models; an installation: ../share/squish/models) and in ./models. */
#ifndef SQ_STORE_H
#define SQ_STORE_H

#include "format/format.h"

#define SQ_SHIPPED_MODEL "squish-tiny"

/* home: NULL for $SQUISH_HOME or ~/.squish. Writes into out [n]. INVALID if there is neither. */
squish_status sq_store_home(const char *home, char *out, size_t n, squish_error *err);
/* A path stays a path; a name is looked up in the store, then among shipped models. NOT_FOUND names the
 * nearest three. */
squish_status sq_store_locate(const char *home, const char *name, char *out, size_t n, squish_error *err);
/* The directory for tiers of src: out_dir if given, else SRC-compressed, or its place in the store where that
 * cannot be written and is not there. */
squish_status sq_store_compressed_dir(const char *src, const char *out_dir, const char *home, char *out,
                                      size_t n, squish_error *err);
/* Every model one can name, sorted; fn returns false to stop. */
squish_status sq_store_list(const char *home, bool (*fn)(void *user, const char *name, const char *path),
                            void *user, squish_error *err);
/* Bytes of the regular files in a directory, not below. */
uint64_t sq_store_dir_bytes(const char *dir);

#endif
