/* SPDX-License-Identifier: Apache-2.0
 *
 * store.h - models on this machine: from what a user types to a path.
 *
 *   $SQUISH_HOME/models/NAME              checkpoints; SQUISH_HOME is ~/.squish by default
 *   $SQUISH_HOME/models/NAME-compressed   tiers, also those of checkpoints that lie in read-only places
 *   $SQUISH_HOME/models/NAME.made.json    another model with words and numbers of its own; a slash in NAME
 *                                         is written %2F
 *   $SQUISH_HOME/pulls/NAME               pulls that are under way or were stopped (hub/hub_pull.h)
 *   $SQUISH_HOME/tiers/KEY-compressed     tiers of models that other programs brought here
 *
 * The store is plain directories; there is no database. What was pulled has a manifest in its folder. The
 * shipped model is looked for beside the program (a build tree: ../models; an installation:
 * ../share/squish/models) and in ./models; after that in the folders of other programs (store_found.c). */
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
/* A name with slashes as one file name, and back: hf.co/USER/REPO:Q and ollama.com/.. are
 * hf.co--USER--REPO:Q, others write %2F (me%2Fmine:v1). A name without slashes is its own key. false: no
 * name: up to four parts of letters, digits and . _ : - that begin with a letter or digit, SQ_STORE_NAME_MAX
 * bytes in all. A key is at most 2 * SQ_STORE_NAME_MAX bytes. */
bool sq_store_key(const char *name, char *out, size_t n);
void sq_store_name_of_key(const char *key, char *out, size_t n);
/* May a user give it to a model? Names as above; those of hubs are theirs. */
bool sq_store_name_is_good(const char *name);
#define SQ_STORE_NAME_RULE                                                                                   \
    "letters, digits and . _ : - make one, up to four parts with slashes, and not hf.co or ollama.com first"
/* $SQUISH_HOME/WHAT */
squish_status sq_store_place(const char *home, const char *what, char *out, size_t n, squish_error *err);
/* Every model one can name but made ones, sorted; fn returns false to stop. A folder that cannot be read
 * holds none. NO_MEMORY: the list has come to no end. */
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
/* INVALID: no name that may be given, or too many words. */
squish_status sq_store_made_write(const char *home, const char *name, const sq_store_made *made,
                                  squish_error *err);
squish_status sq_store_made_remove(const char *home, const char *name, squish_error *err);
/* All of them, sorted; damaged ones are passed over. NO_MEMORY, as above. fn returns false to stop; made
 * lives until it does. */
typedef bool (*sq_store_made_fn)(void *user, const char *name, const char *path, const sq_store_made *made);
squish_status sq_store_made_each(const char *home, sq_store_made_fn fn, void *user, squish_error *err);

/* ---- what was pulled (store_manifest.c) ------------------------------------------------------- */

#define SQ_STORE_MANIFEST "squish-manifest.json"
enum { SQ_STORE_FILES_MAX = 4096 };

/* Where a folder of the store came from. Texts point into root. */
typedef struct {
    const char *name, *source, *repo, *revision, *license;
    const char *file; /* the file that is the model, where the folder itself is none; NULL */
    json_t *files;    /* [{"path", "bytes", "sha256"}] */
    int64_t pulled;   /* unix time, of reading only */
    json_t *root;     /* json_decref */
} sq_store_manifest;
/* NOT_FOUND: dir has none. CORRUPT: damaged, or it names a path that leaves the folder. */
squish_status sq_store_manifest_read(const char *dir, sq_store_manifest *out, squish_error *err);
/* From bytes; what names them in errors. */
squish_status sq_store_manifest_parse(const char *text, size_t n, const char *what, sq_store_manifest *out,
                                      squish_error *err);
squish_status sq_store_manifest_write(const char *dir, const sq_store_manifest *m, squish_error *err);
/* One part of a path that may be written into a model's folder: letters, digits and . _ - + @ = and spaces,
 * not first a dot or space. */
bool sq_store_file_is_plain(const char *name);

/* ---- models that other programs brought here (store_found.c) ------------------------------------ */

/* Hugging Face's cache (USER/REPO, and USER/REPO/FILE.gguf), Ollama's blobs (NAME:TAG), LM Studio's folder
 * (PUBLISHER/REPO, PUBLISHER/REPO/FILE.gguf). They run where they lie; nothing here writes there. origin:
 * "hf", "ollama" or "lmstudio". fn returns false to stop. NO_MEMORY. */
typedef bool (*sq_store_found_fn)(void *user, const char *name, const char *path, const char *origin);
squish_status sq_store_found_each(sq_store_found_fn fn, void *user, squish_error *err);
/* Is path a found model? key [n]: a folder name for its tiers. */
bool sq_store_found_key(const char *path, char *key, size_t n);
/* The digest of the model's layer in a manifest of OCI's, "sha256:HEX"; false: not such a manifest. */
bool sq_store_model_layer(const char *text, size_t n, char digest[72], uint64_t *bytes);

/* ---- changing the store (store_change.c) -------------------------------------------------------- */

/* Take a model of the store away with its tiers, or a made one. INVALID: it lies elsewhere. NOT_FOUND. */
squish_status sq_store_remove(const char *home, const char *name, squish_error *err);
/* `to` becomes another name of `from`, a made model. INVALID: `to` is taken or no name. */
squish_status sq_store_copy(const char *home, const char *from, const char *to, squish_error *err);
/* A file or folder with everything in it; links are removed, never followed. It leaves its name at once. */
squish_status sq_store_remove_tree(const char *path, squish_error *err);

#endif
