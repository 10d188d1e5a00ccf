/* SPDX-License-Identifier: Apache-2.0
 *
 * hub.h - models on other machines: what a name means, what lies behind it, and bringing it into the store.
 *
 *   text --hub_name--> hub_ref --hub_look--> hub_listing --hub_pull--> $SQUISH_HOME/models/KEY
 *
 * A name is one of the catalogue (qwen2.5:1.5b), hf.co/USER/REPO[:QUANT][@REVISION] (also as the address of
 * its page or of one file of it), ollama.com/[library/]NAME[:TAG] (the registry of Ollama), or the URL of one
 * file. Of a repository only what a model needs is taken: configuration, tokenizer, template, licence and
 * either its safetensors or one GGUF file.
 *
 * The room is part of the program and not of the library: libsquish asks nobody anything. Threads: functions
 * here stand alone; two pulls of one name, in one process or two, wait for each other by a lock in the store.
 */
#ifndef SQ_HUB_H
#define SQ_HUB_H

#include "fetch/fetch_files.h"
#include "store/store.h"

/* ---- the catalogue (hub_catalog.c) ------------------------------------------------------------ */

enum { HUB_ENTRIES_MAX = 1024 };
typedef struct {
    const char *name, *repo, *revision, *license, *about;
    double billions;   /* of parameters */
    uint64_t bytes;    /* of its weights, as published */
    const char *needs; /* what it takes beside memory: "a licence to accept"; "" */
    bool verified;     /* seen on the hub, with these bytes */
} hub_entry;
typedef struct {
    hub_entry *entries;
    size_t n;
    sq_arena arena;
    json_t *roots[2];
} hub_catalog;
/* The bundled one, with the entries of $SQUISH_HOME/catalog.json in front of it. A damaged file of the user's
 * is an error. */
squish_status hub_catalog_open(hub_catalog *c, const char *home, squish_error *err);
void hub_catalog_close(hub_catalog *c);
/* {"models": [{"name", "repo", "revision", "license", "billions", "bytes", "needs", "about", "verified"}]} is
 * appended to c; the texts live in *root, a new reference. */
squish_status hub_catalog_read(hub_catalog *c, const char *text, size_t n, const char *what, json_t **root,
                               squish_error *err);
/* By its name, whatever the case of letters; "qwen2.5" is the first entry in front of a colon. NULL. */
const hub_entry *hub_catalog_find(const hub_catalog *c, const char *name);

/* ---- names (hub_name.c) ------------------------------------------------------------------------ */

typedef enum { HUB_HF, HUB_OLLAMA, HUB_URL } hub_kind;
typedef struct {
    hub_kind kind;
    char name[SQ_STORE_NAME_MAX + 1]; /* what the store will call it */
    char repo[SQ_STORE_NAME_MAX + 1]; /* USER/REPO; of Ollama library/NAME */
    char revision[128];               /* a branch or commit; of Ollama the tag */
    char quant[64];                   /* which GGUF file of several; "" */
    char file[SQ_STORE_NAME_MAX + 1]; /* one file of the repository; "" */
    char url[FETCH_FILES_URL_MAX];    /* URL: of the file */
    const hub_entry *entry;           /* of the catalogue; NULL */
} hub_ref;
/* What text means. bare: USER/REPO alone counts as one of hf.co. NOT_FOUND: it is no such name. INVALID: it
 * is one, and wrong. */
squish_status hub_name(const hub_catalog *c, const char *text, bool bare, hub_ref *out, squish_error *err);
/* Is this what hub_name takes, without asking anybody? */
bool hub_is_name(const hub_catalog *c, const char *text);

/* ---- settings ---------------------------------------------------------------------------------- */

typedef struct {
    const char *home;                /* the store; NULL: $SQUISH_HOME or ~/.squish */
    bool offline;                    /* nothing is asked of anybody */
    const char *endpoint, *registry; /* NULL: https://huggingface.co, https://registry.ollama.ai */
    char token[512];                 /* "": none */
    int32_t connections, retries;
    double stall_s;
    uint64_t rate;
    bool (*stop)(void *user); /* asked now and then while a hub is; NULL: never */
    void *stop_user;
} hub_settings;
/* From HF_ENDPOINT, HF_TOKEN (or its file), HF_HUB_OFFLINE and OLLAMA_REGISTRY; what a caller knows better he
 * sets afterwards. */
void hub_settings_get(hub_settings *s);

/* ---- what lies there (hub_look.c, hub_read.c) -------------------------------------------- */

typedef struct {
    char path[SQ_STORE_NAME_MAX + 1], as[SQ_STORE_NAME_MAX + 1]; /* there, and in the store */
    char url[FETCH_FILES_URL_MAX];                               /* where to get it */
    uint64_t bytes;
    fetch_sum kind;
    char sum[65];
    bool wanted;
} hub_file;
typedef struct {
    char source[300], repo[SQ_STORE_NAME_MAX + 1], revision[128], license[80];
    bool gated;
    char main[SQ_STORE_NAME_MAX + 1]; /* the file that is the model; "": the folder */
    hub_file *files;
    size_t n, cap;
    uint64_t bytes; /* of wanted files */
    sq_arena arena;
} hub_listing;
void hub_listing_init(hub_listing *l);
void hub_listing_free(hub_listing *l);
/* Ask what a name's files are, and choose. Errors: NETWORK, NOT_FOUND, CORRUPT (nonsense), UNSUPPORTED (no
 * weights that are read here). */
squish_status hub_look(const hub_settings *s, const hub_ref *r, hub_listing *out, squish_error *err);

/* The parts of it that read bytes of strangers. Names of files that are no plain names are passed over. */
squish_status hub_read_info(const char *text, size_t n, hub_listing *l, squish_error *err);
squish_status hub_read_tree(const char *text, size_t n, hub_listing *l, squish_error *err);
squish_status hub_read_oci(const char *text, size_t n, hub_listing *l, squish_error *err);
/* Mark what is wanted of a repository's files. quant, file: as in hub_ref. */
squish_status hub_choose(hub_listing *l, const char *quant, const char *file, squish_error *err);
bool hub_add_file(hub_listing *l, const char *path, uint64_t bytes, fetch_sum kind, const char *sum);

/* ---- pulling (hub_pull.c) ----------------------------------------------------------------------- */

typedef enum {
    HUB_LOOKING,  /* the hub is asked */
    HUB_WAITING,  /* another program pulls the same */
    HUB_FOUND,    /* listing: what it is; false refuses it */
    HUB_HEADERS,  /* dir: a folder with configuration and the beginnings of the weights; false refuses it */
    HUB_FETCHING, /* done, total, file */
    HUB_VERIFYING,
    HUB_WRITING,
    HUB_DONE /* path */
} hub_stage;
typedef struct {
    hub_stage stage;
    const hub_ref *ref;
    const hub_listing *listing; /* from FOUND on */
    const char *dir;            /* HEADERS: of the files */
    const fetch_files_progress *files;
    const hub_file *file; /* FETCHING: the one last written to */
    const char *path;     /* DONE: the model, as squish_locate gives it */
    bool was_here;        /* DONE: nothing had to be fetched */
} hub_news;
/* false stops: CANCELLED, or what the callee put into err. */
typedef bool (*hub_news_fn)(void *user, const hub_news *n, squish_error *err);
/* Bring it into the store, whole and verified or not at all. A pull that was stopped in any way goes on where
 * it was. Errors: as hub_look, NO_SPACE, IO, CANCELLED, CORRUPT (a wrong sum). */
squish_status hub_pull(const hub_settings *s, const hub_ref *r, hub_news_fn fn, void *user,
                       squish_error *err);
/* (hub_import.c) A folder with a config.json, or a .gguf or .sqw file, copied into the store with a manifest
 * (where the file system can share blocks it does). name NULL: as the source is called. path [n]: the model.
 * Errors: INVALID (the name is taken or none, no model), NO_SPACE, IO, CANCELLED. */
squish_status hub_import(const char *home, const char *src, const char *name, squish_progress_fn progress,
                         void *user, char *path, size_t n, squish_error *err);

/* Pulls that were stopped: fn(user, key, bytes on disk). false stops. */
void hub_unfinished(const char *home, bool (*fn)(void *user, const char *key, uint64_t bytes), void *user);
/* Throw one away. BUSY: it is under way. */
squish_status hub_unfinished_remove(const char *home, const char *key, squish_error *err);

#endif
