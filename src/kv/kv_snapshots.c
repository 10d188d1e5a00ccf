/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snapshots.c - a folder of prefixes: which are there, reading them into the tree, writing them beside it.
 *
 *   pool's owner   picks a chain, copies its columns into a file image -> queue (bounded) -> writer thread:
 *                  sums, temporary name, fsync, rename, then the index; the least recently used go
 *
 * The owner never waits for the disk but to read what it wants, and at the end. lock guards index, queue and
 * counts. Files are named by the hash of everything to their end; times of files carry the order of use over
 * a restart. */
#include "kv/kv_archive.h"
#include "kv/kv_snapshot_int.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 4096, QUEUE_MAX = 4, TILE = SQ_KV_TILE_TOKENS, DIR_MAX = 900, PATH_MAX_ = 1024 };

typedef struct {
    uint64_t chain, bytes, last_use;
} entry;

/* A file to be written; its image follows. */
typedef struct image {
    struct image *next;
    size_t bytes;
    sq_snapshot_view v;
} image;

struct sq_snapshots {
    squish_alloc alloc;
    sq_kv_pool *pool;
    sq_kv_tree *tree;
    sq_kv_seq *scratch; /* through it pages reach the tree */
    uint64_t *chains;   /* [tiles_max + 1] of the prompt looked for; chains[t]: to the end of tile t - 1 */
    uint64_t *kept;     /* the same of the chain written: reading may evict, and so write */
    int32_t *path;      /* [tiles_max] its nodes */
    int32_t tiles_max;
    uint64_t identity, bytes_max;
    bool archive;
    const sq_codec *codec;
    int32_t coded_min;
    sq_kernels kernels; /* of codes */
    squish_warn_fn warn;
    void *warn_user;
    char dir[DIR_MAX];
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    /* Under lock. */
    entry *index; /* [n_files] */
    int32_t n_files;
    uint64_t bytes, clock;
    image *queue, **queue_end;
    int32_t n_queued; /* the one being written included */
    uint64_t writing; /* its chain; 0: none */
    bool stop;
    sq_snapshots_counts counts;
};

static void path_of(const sq_snapshots *s, uint64_t chain, char out[PATH_MAX_]) {
    snprintf(out, PATH_MAX_, "%s/%016llx.kv", s->dir, (unsigned long long)chain);
}

static void complain(const sq_snapshots *s, const char *path, const squish_error *err) {
    char line[PATH_MAX_ + 600];
    if (!s->warn) return;
    snprintf(line, sizeof line, "%s is not used: %s", path, err->text);
    s->warn(s->warn_user, line);
}

/* ---- the index (under lock) ------------------------------------------------------------------ */

static entry *find(sq_snapshots *s, uint64_t chain) {
    for (int32_t i = 0; i < s->n_files; i++)
        if (s->index[i].chain == chain) return &s->index[i];
    return NULL;
}

static void forget(sq_snapshots *s, entry *e) {
    s->bytes -= e->bytes;
    *e = s->index[--s->n_files];
}

static bool is_known(sq_snapshots *s, uint64_t chain) {
    if (s->writing == chain || find(s, chain)) return true;
    for (const image *q = s->queue; q; q = q->next)
        if (q->v.chain == chain) return true;
    return false;
}

/* Make room for a file of so many bytes: the least recently used go, from the disk, too. */
static void make_room(sq_snapshots *s, uint64_t bytes) {
    while (s->n_files > 0 && (s->n_files == FILES_MAX || s->bytes + bytes > s->bytes_max)) {
        char path[PATH_MAX_];
        entry *oldest = s->index;
        for (int32_t i = 1; i < s->n_files; i++)
            if (s->index[i].last_use < oldest->last_use) oldest = &s->index[i];
        path_of(s, oldest->chain, path);
        unlink(path);
        forget(s, oldest);
    }
}

static void add_entry(sq_snapshots *s, uint64_t chain, uint64_t bytes) {
    make_room(s, bytes);
    s->index[s->n_files++] = (entry){chain, bytes, ++s->clock};
    s->bytes += bytes;
}

/* ---- writing --------------------------------------------------------------------------------- */

static uint8_t *image_file(image *q) { return (uint8_t *)q + sq_align_up(sizeof *q, 64); }
static size_t image_bytes(const image *q) { return sq_align_up(sizeof *q, 64) + q->bytes; }

static squish_status write_file(const char *path, const uint8_t *bytes, size_t n, squish_error *err) {
    sq_newfile f;
    SQ_TRY(sq_os_newfile_open(&f, path, n, err));
    squish_status st = SQUISH_OK;
    if (fchmod(f.fd, 0600) != 0) st = sq_fail(err, SQUISH_IO, "'%s' cannot be made private", path);
    if (st == SQUISH_OK) st = sq_os_newfile_write_at(&f, 0, bytes, n, err);
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
    sq_os_newfile_abandon(&f);
    return st;
}

/* Sums go with pages as they are; codes need none. */
static squish_status write_plain(sq_snapshots *s, image *q, size_t *bytes, squish_error *err) {
    char path[PATH_MAX_];
    const size_t bound = sq_archive_bound(q->bytes), room = bound + sq_archive_scratch();
    uint8_t *archive = s->archive ? sq_alloc_new(&s->alloc, room) : NULL;
    path_of(s, q->v.chain, path);
    sq_snapshot_seal(image_file(q), &q->v);
    *bytes = archive ? sq_archive_make(image_file(q), q->bytes, archive, archive + bound) : q->bytes;
    const squish_status st = write_file(path, archive ? archive : image_file(q), *bytes, err);
    sq_alloc_free(&s->alloc, archive, archive ? room : 0);
    return st;
}

/* Coded image, work space (the coder's, then the archive's) and archive. */
static squish_status write_coded(sq_snapshots *s, image *q, uint8_t *memory, size_t *bytes,
                                 squish_error *err) {
    char path[PATH_MAX_];
    const size_t n = sq_coded_bytes(s->codec, q->v.n_tiles), work_at = sq_align_up(n, 64);
    const size_t out_at = sq_align_up(work_at + sq_coded_scratch(s->codec, q->v.n_tiles), 64);
    path_of(s, q->v.chain, path);
    sq_coded_make(s->codec, &s->kernels, image_file(q), &q->v, memory, memory + work_at);
    *bytes = sq_archive_make_coded(memory, n, s->codec->sum, memory + out_at, memory + work_at);
    return write_file(path, memory + out_at, *bytes, err);
}

static size_t coded_room(const sq_snapshots *s, int32_t n_tiles) {
    const size_t n = sq_coded_bytes(s->codec, n_tiles), work = sq_coded_scratch(s->codec, n_tiles);
    const size_t least = sq_archive_scratch();
    return sq_align_up(n, 64) + sq_align_up(work > least ? work : least, 64) + 64 + sq_archive_bound(n);
}

/* *bytes: of the file. Where there is no memory for fewer bytes the file stays as it is. */
static squish_status write_image(sq_snapshots *s, image *q, size_t *bytes, bool *coded, squish_error *err) {
    const size_t room = s->codec ? coded_room(s, q->v.n_tiles) : 0;
    uint8_t *memory = s->codec ? sq_alloc_new(&s->alloc, room) : NULL;
    *coded = memory != NULL;
    if (!memory) return write_plain(s, q, bytes, err);
    const squish_status st = write_coded(s, q, memory, bytes, err);
    sq_alloc_free(&s->alloc, memory, room);
    return st;
}

static void count_written(sq_snapshots *s, const image *q, size_t bytes, bool coded) {
    add_entry(s, q->v.chain, bytes);
    s->counts.written++;
    if (!coded) return;
    s->counts.coded_tokens += (uint64_t)q->v.n_tiles * TILE;
    s->counts.coded_bytes += bytes;
}

static void *writer_main(void *arg) {
    sq_snapshots *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->queue && !s->stop) pthread_cond_wait(&s->moved, &s->lock);
        image *q = s->queue;
        if (!q) break; /* to stop, and nothing is left */
        s->queue = q->next;
        if (!s->queue) s->queue_end = &s->queue;
        s->writing = q->v.chain;
        pthread_mutex_unlock(&s->lock);
        squish_error err = {0};
        size_t bytes;
        bool coded;
        const squish_status st = write_image(s, q, &bytes, &coded, &err);
        if (st != SQUISH_OK && s->warn) s->warn(s->warn_user, err.text);
        pthread_mutex_lock(&s->lock);
        s->writing = 0;
        s->n_queued--;
        if (st == SQUISH_OK)
            count_written(s, q, bytes, coded);
        else
            s->counts.dropped++;
        sq_alloc_free(&s->alloc, q, image_bytes(q));
        pthread_cond_broadcast(&s->moved);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

typedef enum { KNOWN, TAKEN, NO_ROOM } offer;

static offer has_place(sq_snapshots *s, uint64_t chain, bool wait) {
    pthread_mutex_lock(&s->lock);
    offer o = is_known(s, chain) ? KNOWN : TAKEN;
    while (o == TAKEN && s->n_queued == QUEUE_MAX && wait) pthread_cond_wait(&s->moved, &s->lock);
    if (o == TAKEN && s->n_queued == QUEUE_MAX) o = NO_ROOM;
    pthread_mutex_unlock(&s->lock);
    return o;
}

/* A tile in the forms that are read by whoever goes on behind `end` tiles, or further on. */
static uint8_t forms_of(const sq_snapshots *s, int32_t column, int32_t tile, int32_t end) {
    const bool sealed = sq_kv_column_is_sealed(s->pool, column), open = sq_kv_column_is_open(s->pool, column);
    const sq_kv_window window = sq_kv_pool_policy(s->pool)->window;
    const bool tail = tile < window.sink || tile >= sq_kv_sealed_tiles(window, end * TILE);
    return (uint8_t)((open && (tail || !sealed) ? SQ_KV_FORM_OPEN : 0) | (sealed ? SQ_KV_FORM_SEALED : 0));
}

/* Nothing is coded twice. */
static bool has_codes(const sq_snapshots *s, const int32_t *path, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (sq_kv_tree_lossy(s->tree, path[i]) == SQ_KV_LOSSY_CODED) return true;
    return false;
}

/* Tiles [first, first + n) of s->path. */
static offer hand_over(sq_snapshots *s, int32_t first, int32_t n, uint64_t salt, bool wait) {
    sq_kv_node_info info[SQ_SNAPSHOT_TILES];
    sq_snapshot_view v = {.identity = s->identity,
                          .salt = salt,
                          .parent = s->kept[first],
                          .chain = s->kept[first + n],
                          .first_tile = first,
                          .n_tiles = n,
                          .policy = *sq_kv_pool_policy(s->pool)};
    sq_kv_pool_shape(s->pool, &v.shape);
    for (int32_t i = 0; i < n; i++) {
        sq_kv_tree_node(s->tree, s->path[first + i], &info[i]);
        v.forms[i] = forms_of(s, info[i].column, first + i, first + n);
    }
    if (has_codes(s, s->path + first, n)) return KNOWN;
    const size_t bytes = (size_t)sq_snapshot_bytes(&v);
    const offer o = has_place(s, v.chain, wait);
    if (o != TAKEN || bytes > s->bytes_max) return o == NO_ROOM ? NO_ROOM : KNOWN;
    image *q = sq_alloc_new(&s->alloc, sq_align_up(sizeof *q, 64) + bytes);
    if (!q) return NO_ROOM;
    *q = (image){.v = v, .bytes = bytes};
    sq_snapshot_begin(image_file(q), &v);
    for (int32_t i = 0; i < n; i++)
        sq_snapshot_put_tile(image_file(q), &v, s->pool, i, info[i].ids, info[i].column);
    pthread_mutex_lock(&s->lock);
    *s->queue_end = q;
    s->queue_end = &q->next;
    s->n_queued++;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    return TAKEN;
}

/* The chain that ends in a leaf, file by file. False: the queue was full. */
static bool keep_chain(sq_snapshots *s, int32_t leaf, bool wait) {
    sq_kv_node_info info;
    sq_kv_tree_node(s->tree, leaf, &info);
    const int32_t n = info.tile + 1;
    const uint64_t salt = info.salt;
    if (n > s->tiles_max || (s->codec && n * TILE < s->coded_min)) return true;
    for (int32_t i = leaf; i >= 0; i = info.parent) {
        sq_kv_tree_node(s->tree, i, &info);
        s->path[info.tile] = i;
    }
    s->kept[0] = 0;
    for (int32_t t = 0; t < n; t++) {
        sq_kv_tree_node(s->tree, s->path[t], &info);
        s->kept[t + 1] = sq_snapshot_chain(s->identity, salt, s->kept[t], info.ids);
    }
    for (int32_t first = 0; first < n; first += SQ_SNAPSHOT_TILES) {
        const int32_t k = n - first < SQ_SNAPSHOT_TILES ? n - first : SQ_SNAPSHOT_TILES;
        if (hand_over(s, first, k, salt, wait) == NO_ROOM) return false;
    }
    for (int32_t t = 0; t < n; t++) sq_kv_tree_mark(s->tree, s->path[t]);
    return true;
}

void sq_snapshots_keep(sq_snapshots *s, bool all, bool wait) {
    for (int32_t leaf = -1; (leaf = sq_kv_tree_idle_leaf(s->tree, leaf)) >= 0;) {
        sq_kv_node_info info;
        sq_kv_tree_node(s->tree, leaf, &info);
        if (sq_kv_tree_marked(s->tree, leaf) || (info.uses == 0 && !all)) continue;
        if (!keep_chain(s, leaf, wait) && !wait) return;
    }
}

static void on_evict(void *user, int32_t node) {
    sq_snapshots *s = user;
    if (sq_kv_tree_marked(s->tree, node) || keep_chain(s, node, false)) return;
    pthread_mutex_lock(&s->lock);
    s->counts.dropped++;
    pthread_mutex_unlock(&s->lock);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Is this the file of tiles [first, end) of the prompt? */
static squish_status check_view(const sq_snapshots *s, const sq_snapshot_view *v, uint64_t salt,
                                const int32_t *ids, int32_t first, int32_t end, squish_error *err) {
    sq_kv_shape shape;
    sq_kv_pool_shape(s->pool, &shape);
    if (v->identity != s->identity) return sq_fail(err, SQUISH_CORRUPT, "snapshot: of another model");
    if (v->shape.n_layers != shape.n_layers || v->shape.n_kv_heads != shape.n_kv_heads ||
        v->shape.head_dim != shape.head_dim || v->shape.latent != shape.latent)
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: of another shape");
    if (v->salt != salt || v->first_tile != first || v->n_tiles != end - first ||
        v->parent != s->chains[first] || v->chain != s->chains[end] ||
        memcmp(v->ids, ids + (size_t)first * TILE, (size_t)v->n_tiles * TILE * sizeof *ids) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: of other tokens");
    for (int32_t t = 0; t < v->n_tiles; t++) SQ_TRY(sq_snapshot_tile(v, t, err));
    return SQUISH_OK;
}

/* A tile of the file as a column; -1: the pool has none left. */
static int32_t column_of(sq_snapshots *s, const sq_snapshot_view *v, int32_t t) {
    const uint8_t *open = sq_snapshot_form(v, t, SQ_KV_FORM_OPEN),
                  *sealed = sq_snapshot_form(v, t, SQ_KV_FORM_SEALED);
    const uint64_t bytes = (open ? sq_kv_open_bytes(&v->shape, &v->policy) : 0) +
                           (sealed ? sq_kv_sealed_bytes(&v->shape, &v->policy) : 0);
    if (!sq_kv_pool_make_room(s->pool, bytes)) return -1;
    const int32_t c = sq_kv_column_new(s->pool, v->first_tile + t, v->forms[t]);
    if (c < 0) return -1;
    if (open) memcpy(sq_kv_column_page(s->pool, c, 0), open, sq_kv_open_bytes(&v->shape, &v->policy));
    if (sealed)
        memcpy(sq_kv_column_sealed_page(s->pool, c, 0), sealed, sq_kv_sealed_bytes(&v->shape, &v->policy));
    return c;
}

/* What of a file is wanted: tiles [first, end) of a prompt are in it, those before `have` are in the tree,
 * and those from `upto` on are not to be read. */
typedef struct {
    int32_t first, end, have, upto;
    bool coded;
} wanted;

/* Pages of a file into the tree, behind tiles [0, first) that are there. False: no columns, or it broke. */
static bool load(sq_snapshots *s, const sq_snapshot_view *v, uint64_t salt, const int32_t *ids,
                 const wanted *w) {
    const int32_t first = w->first, end = w->upto;
    const sq_kv_match m = sq_kv_tree_path(s->tree, salt, ids, first * TILE);
    bool ok = m.tiles == first;
    if (ok) sq_kv_tree_acquire(s->tree, &m, s->scratch);
    for (int32_t t = 0; ok && t < end - first; t++) {
        const int32_t c = column_of(s, v, t);
        ok = c >= 0;
        if (ok) sq_kv_seq_append(s->scratch, c);
    }
    if (ok) {
        sq_kv_tree_insert(s->tree, salt, s->scratch, ids, end * TILE);
        for (int32_t i = sq_kv_seq_node(s->scratch), t = end; t > first; t--) {
            sq_kv_node_info info;
            sq_kv_tree_mark(s->tree, i);
            if (w->coded && t > w->have) sq_kv_tree_set_coded(s->tree, i);
            sq_kv_tree_node(s->tree, i, &info);
            i = info.parent;
        }
    }
    sq_kv_seq_truncate(s->scratch, 0);
    return ok;
}

/* The longest file of the group that begins at tile first, over `have` and up to n tiles: its end, or 0. */
static int32_t longest(sq_snapshots *s, int32_t first, int32_t have, int32_t n) {
    int32_t end = first + SQ_SNAPSHOT_TILES < n ? first + SQ_SNAPSHOT_TILES : n;
    pthread_mutex_lock(&s->lock);
    while (end > have && !find(s, s->chains[end])) end--;
    if (end > have) find(s, s->chains[end])->last_use = ++s->clock;
    pthread_mutex_unlock(&s->lock);
    return end > have ? end : 0;
}

/* A snapshot on its way out of a file. */
typedef struct {
    sq_span file;   /* the snapshot, once it is open */
    uint8_t *inner; /* what an archive held, and what its codes became; NULL: nothing */
    uint8_t *pages;
    size_t inner_bytes, pages_bytes;
    bool coded;
} opening;

static void close_opening(sq_snapshots *s, opening *o) {
    sq_alloc_free(&s->alloc, o->inner, o->inner ? o->inner_bytes : 0);
    sq_alloc_free(&s->alloc, o->pages, o->pages ? o->pages_bytes : 0);
}

static squish_status open_codes(sq_snapshots *s, opening *o, uint64_t books, squish_error *err) {
    sq_snapshot_view v;
    if (!s->codec || s->codec->sum != books)
        return sq_fail(err, SQUISH_CORRUPT, "archive: made with other codebooks");
    SQ_TRY(sq_coded_header(s->codec, o->file, sq_kv_pool_policy(s->pool), &v, err));
    const size_t n = (size_t)v.file_bytes, work = sq_coded_scratch(s->codec, v.n_tiles);
    o->pages_bytes = sq_align_up(n, 64) + work;
    o->pages = sq_alloc_new(&s->alloc, o->pages_bytes);
    if (!o->pages) return sq_fail(err, SQUISH_NO_MEMORY, "snapshot: no memory to decode an archive");
    sq_coded_open(s->codec, &s->kernels, o->file, &v, o->pages, o->pages + sq_align_up(n, 64));
    o->file = (sq_span){o->pages, n};
    o->coded = true;
    return SQUISH_OK;
}

static squish_status open_archive(sq_snapshots *s, opening *o, squish_error *err) {
    sq_kv_shape shape;
    const sq_span file = o->file;
    sq_kv_pool_shape(s->pool, &shape);
    const uint64_t most = sq_snapshot_bytes_max(&shape, sq_kv_pool_policy(s->pool));
    SQ_TRY(sq_archive_header(file, most, &o->inner_bytes, err));
    o->inner = sq_alloc_new(&s->alloc, o->inner_bytes);
    if (!o->inner) return sq_fail(err, SQUISH_NO_MEMORY, "snapshot: no memory to open an archive");
    SQ_TRY(sq_archive_open(file, o->inner, o->inner_bytes, err));
    o->file = (sq_span){o->inner, o->inner_bytes};
    return sq_archive_books(file) ? open_codes(s, o, sq_archive_books(file), err) : SQUISH_OK;
}

static bool restore_file(sq_snapshots *s, uint64_t salt, const int32_t *ids, wanted *w) {
    char path[PATH_MAX_];
    sq_map map;
    sq_snapshot_view v;
    squish_error err = {0};
    path_of(s, s->chains[w->end], path);
    squish_status st = sq_os_map_open(&map, path, &err);
    if (st == SQUISH_OK) {
        opening o = {.file = {map.data, map.bytes}};
        if (sq_archive_is_one(o.file)) st = open_archive(s, &o, &err);
        if (st == SQUISH_OK) st = sq_snapshot_parse(o.file, sq_kv_pool_policy(s->pool), &v, &err);
        if (st == SQUISH_OK) st = check_view(s, &v, salt, ids, w->first, w->end, &err);
        w->coded = o.coded;
        const bool loaded = st == SQUISH_OK && load(s, &v, salt, ids, w);
        close_opening(s, &o);
        sq_os_map_close(&map);
        if (loaded) utimensat(AT_FDCWD, path, NULL, 0); /* used now; if that fails it only goes earlier */
        if (st == SQUISH_OK) return loaded;
    }
    complain(s, path, &err);
    pthread_mutex_lock(&s->lock);
    entry *e = find(s, s->chains[w->end]);
    if (e) forget(s, e);
    pthread_mutex_unlock(&s->lock);
    return false;
}

/* Tiles of a prompt of n tokens that are to be had from files. */
static int32_t tiles_wanted(const sq_snapshots *s, int32_t n, int32_t tiles) {
    if (!s->codec) return tiles;
    const int32_t most = n < s->coded_min ? 0 : sq_codec_tiles(n);
    return most < tiles ? most : tiles;
}

int32_t sq_snapshots_restore(sq_snapshots *s, uint64_t salt, const int32_t *ids, int32_t n) {
    const int32_t tiles = n / TILE < s->tiles_max ? n / TILE : s->tiles_max;
    const int32_t had = sq_kv_tree_match(s->tree, salt, ids, tiles * TILE).tiles;
    const int32_t upto = tiles_wanted(s, n, tiles);
    int32_t have = had;
    if (have >= upto) return 0;
    s->chains[0] = 0;
    for (int32_t t = 0; t < tiles; t++)
        s->chains[t + 1] = sq_snapshot_chain(s->identity, salt, s->chains[t], ids + (size_t)t * TILE);
    while (have < upto) {
        wanted w = {.first = have / SQ_SNAPSHOT_TILES * SQ_SNAPSHOT_TILES, .have = have};
        w.end = longest(s, w.first, have, tiles);
        w.upto = w.end < upto ? w.end : upto;
        if (w.end == 0 || !restore_file(s, salt, ids, &w)) break;
        have = w.upto;
        pthread_mutex_lock(&s->lock);
        s->counts.hits++;
        pthread_mutex_unlock(&s->lock);
    }
    return (have - had) * TILE;
}

sq_snapshots_counts sq_snapshots_count(sq_snapshots *s) {
    pthread_mutex_lock(&s->lock);
    const sq_snapshots_counts c = s->counts;
    pthread_mutex_unlock(&s->lock);
    return c;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* What a crash left of a file half written; a writer at work holds its lock. */
static void remove_leftover(const char *path) {
    int fd;
    if (sq_os_lock(&fd, path, NULL) != SQUISH_OK) return;
    unlink(path);
    sq_os_unlock(fd);
}

/* A file that was found: into the index if it is named and sized as one of ours. What another model left is
 * kept and counted: the folder may be shared. */
static void find_file(sq_snapshots *s, const char *name, uint64_t *used) {
    char path[PATH_MAX_], *end;
    const uint64_t chain = strtoull(name, &end, 16);
    struct stat st;
    if (end != name + 16) return;
    snprintf(path, sizeof path, "%s/%.40s", s->dir, name);
    if (strcmp(end, ".kv.partial") == 0) remove_leftover(path);
    if (strcmp(end, ".kv") != 0 || s->n_files == FILES_MAX) return;
    if (lstat(path, &st) != 0 || !S_ISREG(st.st_mode)) return;
    *used = (uint64_t)st.st_mtime;
    s->index[s->n_files++] = (entry){chain, (uint64_t)st.st_size, *used};
    s->bytes += (uint64_t)st.st_size;
    if (*used > s->clock) s->clock = *used;
}

static squish_status find_files(sq_snapshots *s, squish_error *err) {
    sq_arena names;
    char **all;
    size_t n;
    uint64_t used;
    const bool is_new = !sq_os_is_dir(s->dir);
    SQ_TRY(sq_os_mkdirs(s->dir, err));
    if (is_new && chmod(s->dir, 0700) != 0)
        return sq_fail(err, SQUISH_IO, "'%s' cannot be made private", s->dir);
    sq_arena_init(&names, &s->alloc, 1 << 14, 64 << 20);
    const squish_status st = sq_os_list_dir(s->dir, &names, &all, &n, err);
    for (size_t i = 0; st == SQUISH_OK && i < n; i++) find_file(s, all[i], &used);
    sq_arena_deinit(&names);
    if (st == SQUISH_OK) make_room(s, 0);
    return st;
}

static squish_status start_writer(sq_snapshots *s, squish_error *err) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int cause = pthread_create(&s->thread, NULL, writer_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    s->has_thread = cause == 0;
    return cause ? sq_fail_errno(err, cause, "cannot start the thread that writes snapshots") : SQUISH_OK;
}

squish_status sq_snapshots_new(sq_snapshots **out, sq_kv_pool *p, sq_kv_tree *t,
                               const sq_snapshots_options *o, squish_error *err) {
    *out = NULL;
    const squish_alloc *a = sq_kv_pool_alloc(p);
    if (strlen(o->dir) >= DIR_MAX)
        return sq_fail(err, SQUISH_INVALID, "snapshot folder: a name of %zu bytes, at most %d",
                       strlen(o->dir), DIR_MAX - 1);
    sq_snapshots *s = sq_alloc_zero(a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "snapshots: out of memory");
    *s = (sq_snapshots){.alloc = *a,
                        .pool = p,
                        .tree = t,
                        .tiles_max = o->tokens_max / TILE,
                        .identity = o->identity,
                        .bytes_max = o->bytes_max,
                        .archive = o->archive,
                        .codec = o->codec,
                        .coded_min = o->coded_min,
                        .warn = o->warn,
                        .warn_user = o->warn_user};
    snprintf(s->dir, sizeof s->dir, "%s", o->dir);
    sq_kernels_select(&s->kernels, sq_cpu_features(), SQ_ISA_COUNT);
    s->queue_end = &s->queue;
    squish_status st = SQUISH_OK;
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        sq_alloc_free(a, s, sizeof *s);
        return sq_fail(err, SQUISH_NO_MEMORY, "snapshots: no lock to be had");
    }
    pthread_cond_init(&s->moved, NULL); /* cannot fail without attributes */
    s->chains = sq_alloc_new(a, ((size_t)s->tiles_max + 1) * sizeof *s->chains);
    s->kept = sq_alloc_new(a, ((size_t)s->tiles_max + 1) * sizeof *s->kept);
    s->path = sq_alloc_new(a, ((size_t)s->tiles_max + 1) * sizeof *s->path);
    s->index = sq_alloc_new(a, FILES_MAX * sizeof *s->index);
    if (!s->chains || !s->kept || !s->path || !s->index) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "snapshots: out of memory");
        goto fail;
    }
    SQ_GUARD(sq_kv_seq_new(&s->scratch, p, o->tokens_max, err));
    SQ_GUARD(find_files(s, err));
    SQ_GUARD(start_writer(s, err));
    sq_kv_tree_on_evict(t, on_evict, s);
    *out = s;
    return SQUISH_OK;
fail:
    sq_snapshots_free(s);
    return st;
}

void sq_snapshots_finish(sq_snapshots *s) {
    if (!s || !s->has_thread) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->has_thread = false;
    sq_kv_tree_on_evict(s->tree, NULL, NULL);
}

void sq_snapshots_free(sq_snapshots *s) {
    if (!s) return;
    sq_snapshots_finish(s);
    const squish_alloc a = s->alloc;
    sq_kv_seq_free(s->scratch);
    sq_alloc_free(&a, s->chains, s->chains ? ((size_t)s->tiles_max + 1) * sizeof *s->chains : 0);
    sq_alloc_free(&a, s->kept, s->kept ? ((size_t)s->tiles_max + 1) * sizeof *s->kept : 0);
    sq_alloc_free(&a, s->path, s->path ? ((size_t)s->tiles_max + 1) * sizeof *s->path : 0);
    sq_alloc_free(&a, s->index, s->index ? FILES_MAX * sizeof *s->index : 0);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    sq_alloc_free(&a, s, sizeof *s);
}
