/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_hub.c - everything a hub, a registry, a folder of the store or a user can say about models. The first
 * byte says which reader gets the rest:
 *
 *   i  model info       t  tree          o  OCI manifest    m  squish-manifest.json
 *   c  catalogue        p  part map      n  a name          h  lines of an answer's head */
#include "fetch/fetch_pool.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool fine) {
    if (!fine) abort();
}

/* Nothing that was taken leads out of a folder. */
static void check_listing(const hub_listing *l) {
    for (size_t i = 0; i < l->n; i++) check(sq_store_file_is_plain(l->files[i].path));
    check(!*l->main || sq_store_file_is_plain(l->main));
}

static void read_listing(char kind, const char *text, size_t n) {
    hub_listing l;
    hub_listing_init(&l);
    if (kind == 'i') hub_read_info(text, n, &l, NULL);
    if (kind == 'o') hub_read_oci(text, n, &l, NULL);
    if (kind == 't' && hub_read_tree(text, n, &l, NULL) == SQUISH_OK) hub_choose(&l, "", "", NULL);
    check_listing(&l);
    hub_listing_free(&l);
}

static void read_catalog(const char *text, size_t n) {
    hub_catalog c = {0};
    json_t *root;
    sq_arena_init(&c.arena, NULL, 4096, 0);
    c.entries = SQ_ARENA_ARRAY(&c.arena, hub_entry, HUB_ENTRIES_MAX);
    if (hub_catalog_read(&c, text, n, "catalogue", &root, NULL) == SQUISH_OK) {
        for (size_t i = 0; i < c.n; i++) check(hub_catalog_find(&c, c.entries[i].name) != NULL);
        json_decref(root);
    }
    hub_catalog_close(&c);
}

static void read_name(const char *text, size_t n) {
    char *name = malloc(n + 1), key[512], back[256];
    hub_ref r;
    memcpy(name, text, n);
    name[n] = 0;
    if (hub_name(NULL, name, true, &r, NULL) == SQUISH_OK) {
        check(sq_store_key(r.name, key, sizeof key) && !strchr(key, '/') && key[0] != '.');
        if (r.kind != HUB_URL) {
            sq_store_name_of_key(key, back, sizeof back);
            check(strcmp(back, r.name) == 0);
        }
        check(!*r.file || sq_store_file_is_plain(r.file));
    }
    if (fetch_origin(name, key, sizeof key)) check(!strchr(strstr(key, "://") + 3, '/') && !strchr(key, '@'));
    free(name);
}

static void read_head(const char *text, size_t n) {
    fetch_head h = {0};
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        const size_t len = end ? (size_t)(end - text) - at : n - at;
        fetch_read_header(&h, text + at, len);
        check(!h.has_range || (h.from < h.to && (!h.total || h.to <= h.total)));
        at += len + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    const char *text = (const char *)data + 1;
    const size_t n = size - 1;
    switch (data[0]) {
    case 'i':
    case 't':
    case 'o': read_listing((char)data[0], text, n); break;
    case 'm': {
        sq_store_manifest m;
        if (sq_store_manifest_parse(text, n, "manifest", &m, NULL) == SQUISH_OK) {
            check(!m.file || sq_store_file_is_plain(m.file));
            json_decref(m.root);
        }
        break;
    }
    case 'c': read_catalog(text, n); break;
    case 'p': {
        uint8_t blocks[64];
        fetch_map_read(text, n, 3 << 20, "abc", blocks, 3);
        fetch_map_read(text, n, 64 << 20, NULL, blocks, 64);
        break;
    }
    case 'n': read_name(text, n); break;
    case 'h': read_head(text, n); break;
    default: break;
    }
    return 0;
}
