/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - models on this machine: from what a user types to a path.
 *
 *   $SQUISH_HOME/models/NAME              checkpoints; SQUISH_HOME is ~/.squish by default
 *   $SQUISH_HOME/models/NAME-compressed   tiers, also those of checkpoints that lie in read-only places
 *   $SQUISH_HOME/models/NAME.made.json    another model with words and numbers of its own
 *
 * The store is plain directories; there is no database. The shipped model is looked for beside the program (a
 * build tree: ../models; an installation: ../share/squish/models) and in ./models. */
#ifndef SQ_STORE_H
#define SQ_STORE_H

#include "format/format.h"

#include <jansson.h>

#define SQ_SHIPPED_MODEL "squish-tiny"

/* home: NULL for $SQUISH_HOME or ~/.squish. Writes into out [n]. INVALID if there is neither. */
squish_status sq_store_home(const char *home, char *out, size_t n, squish_error *err);
/* A path stays a path; a name is looked up in the store, then among shipped models. A made model lies where
 * the one it is made from does. NOT_FOUND names the nearest three. */
squish_status sq_store_locate(const char *home, const char *name, char *out, size_t n, squish_error *err);
/* The directory for tiers of src: out_dir if given, else SRC-compressed, or its place in the store where that
 * is not there and cannot be written or would lie among installed files. */
squish_status sq_store_compressed_dir(const char *src, const char *out_dir, const char *home, char *out,
                                      size_t n, squish_error *err);
/* Every model one can name but made ones, sorted; fn returns false to stop. */
squish_status sq_store_list(const char *home, bool (*fn)(void *user, const char *name, const char *path),
                            void *user, squish_error *err);
/* Bytes of the regular files in a directory, not below. */
uint64_t sq_store_dir_bytes(const char *dir);

/* ---- made models (store_made.c) -------------------------------------------------------------- */

enum { SQ_STORE_NAME_MAX = 200 }; /* bytes */

typedef struct {
    const char *from; /* a name, never a made one's */
    const char *system, *template_source, *license; /* NULL: none */
    json_t *parameters;                             /* options under Ollama's names; NULL: none */
    json_t *root;                                   /* owns all of it: json_decref */
    uint64_t mtime_ns;                              /* of its file */
} sq_store_made;
/* Letters, digits and . _ : - after a letter or digit; at most SQ_STORE_NAME_MAX bytes. What may become a
 * file name. */
bool sq_store_name_is_plain(const char *name);
/* Bytes of a name without ":latest" at its end, which says nothing. */
size_t sq_store_bare_length(const char *name);
/* NOT_FOUND: no made model is called so. CORRUPT: its file is damaged. */
squish_status sq_store_made_read(const char *home, const char *name, sq_store_made *out, squish_error *err);
/* Its file as JSON text, to be freed with free(); NULL: no memory. */
char *sq_store_made_text(const sq_store_made *m);
/* INVALID: not a plain name, or too many words. */
squish_status sq_store_made_write(const char *home, const char *name, const sq_store_made *made,
                                  squish_error *err);
squish_status sq_store_made_remove(const char *home, const char *name, squish_error *err);
/* All of them, sorted; damaged ones are passed over. fn returns false to stop; made lives until it does. */
typedef bool (*sq_store_made_fn)(void *user, const char *name, const char *path, const sq_store_made *made);
squish_status sq_store_made_each(const char *home, sq_store_made_fn fn, void *user, squish_error *err);

#endif
