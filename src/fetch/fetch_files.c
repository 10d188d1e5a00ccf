/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_files.c - see fetch_files.h. The caller's thread runs the connections and owns everything but `front`
 * and what hangs on it, which the thread that sums (fetch_sums.c) reads under its lock. */
#include "fetch/fetch_files_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MISSING, THERE, TAKEN };
enum { SYNC_BLOCKS = 16 };
static const double PAUSE_NONE_S = 0.02, PAUSE_FIRST_S = 0.25, PAUSE_MAX_S = 30, PAUSE_ASKED_MAX_S = 600;

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- files and their maps -------------------------------------------------------------------- */

static uint64_t block_end(const fetch_track *f, size_t b) {
    const uint64_t end = ((uint64_t)b + 1) * FETCH_BLOCK;
    return end < f->item->bytes ? end : f->item->bytes;
}

static squish_status grab(const squish_alloc *a, fetch_track *f, squish_error *err) {
    const uint64_t n = (f->item->bytes + FETCH_BLOCK - 1) / FETCH_BLOCK;
    if (n > FETCH_BLOCKS_MAX)
        return sq_fail(err, SQUISH_INVALID, "%s: %llu bytes are more than a file may have",
                       base_name(f->item->path), (unsigned long long)f->item->bytes);
    f->n_blocks = (size_t)n;
    f->blocks = sq_alloc_zero(a, f->n_blocks + 1);
    return f->blocks ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
}

/* Marks of an earlier run into f->blocks. */
static void read_map(const squish_alloc *a, fetch_track *f) {
    sq_arena ar;
    sq_span text;
    sq_arena_init(&ar, a, 4096, 0);
    if (sq_os_file_bytes(f->item->path) == f->item->bytes &&
        sq_os_read_file(f->item->map, (size_t)FETCH_BLOCKS_MAX + 256, &ar, &text, NULL) == SQUISH_OK)
        f->resumed = fetch_map_read((const char *)text.p, text.n, f->item->bytes, f->item->sum, f->blocks,
                                    f->n_blocks);
    sq_arena_deinit(&ar);
}

static squish_status put(int fd, const char *path, const void *bytes, size_t n, uint64_t at,
                         squish_error *err) {
    const char *p = bytes;
    while (n > 0) {
        const ssize_t k = pwrite(fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return sq_fail_errno(err, k < 0 ? errno : EIO, "cannot write '%s'", path);
        p += k, n -= (size_t)k, at += (uint64_t)k;
    }
    return SQUISH_OK;
}

static squish_status write_map(fetch_track *f, squish_error *err) {
    char head[160];
    f->map_head = fetch_map_header(f->item->bytes, f->item->sum, head, sizeof head);
    if (!f->map_head || ftruncate(f->map_fd, 0) != 0)
        return sq_fail_errno(err, errno, "cannot write '%s'", f->item->map);
    SQ_TRY(put(f->map_fd, f->item->map, head, f->map_head, 0, err));
    char line[4096];
    for (size_t b = 0; b < f->n_blocks; b += sizeof line) {
        const size_t n = f->n_blocks - b < sizeof line ? f->n_blocks - b : sizeof line;
        for (size_t i = 0; i < n; i++) line[i] = f->blocks[b + i] == THERE ? '#' : '.';
        SQ_TRY(put(f->map_fd, f->item->map, line, n, f->map_head + b, err));
    }
    return SQUISH_OK;
}

static squish_status open_file(const squish_alloc *a, fetch_track *f, squish_error *err) {
    SQ_TRY(grab(a, f, err));
    read_map(a, f);
    f->fd = open(f->item->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (f->fd < 0) return sq_fail_errno(err, errno, "cannot write '%s'", f->item->path);
    f->map_fd = open(f->item->map, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (f->map_fd < 0) return sq_fail_errno(err, errno, "cannot write '%s'", f->item->map);
    if (ftruncate(f->fd, (off_t)f->item->bytes) != 0)
        return sq_fail_errno(err, errno, "cannot give '%s' its size", f->item->path);
    for (size_t b = 0; b < f->n_blocks; b++)
        if (f->blocks[b] == THERE)
            f->n_there++, f->bytes_there += block_end(f, b) - b * (uint64_t)FETCH_BLOCK;
    return write_map(f, err);
}

uint64_t fetch_files_there(const fetch_file_item *item) {
    const squish_alloc a = sq_alloc_default();
    fetch_track f = {.item = (fetch_file_item *)(uintptr_t)item};
    uint64_t sum = 0;
    if (grab(&a, &f, NULL) != SQUISH_OK) return 0;
    read_map(&a, &f);
    for (size_t b = 0; b < f.n_blocks; b++)
        if (f.blocks[b] == THERE) sum += block_end(&f, b) - b * (uint64_t)FETCH_BLOCK;
    sq_alloc_free(&a, f.blocks, f.n_blocks + 1);
    return sum;
}

/* A file that is linked to from elsewhere (an installed model of an older revision) is not written over: the
 * name gets a file of its own. */
static squish_status let_go_of_links(const fetch_track *f, squish_error *err) {
    struct stat st;
    if (fstat(f->fd, &st) != 0 || st.st_nlink < 2) return SQUISH_OK;
    if (unlink(f->item->path) != 0) return sq_fail_errno(err, errno, "cannot replace '%s'", f->item->path);
    const int fd = open(f->item->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    const bool ok = fd >= 0 && ftruncate(fd, (off_t)f->item->bytes) == 0 && dup3(fd, f->fd, O_CLOEXEC) >= 0;
    const int cause = errno;
    if (fd >= 0) close(fd);
    return ok ? SQUISH_OK : sq_fail_errno(err, cause, "cannot replace '%s'", f->item->path);
}

/* All blocks are missing again, and its sum begins anew. */
static void start_over(fetch_run_all *r, fetch_track *f) {
    if (let_go_of_links(f, &r->err) != SQUISH_OK) return;
    for (size_t b = 0; b < f->n_blocks; b++) f->blocks[b] = MISSING;
    r->bytes_done -= f->bytes_there;
    f->n_there = f->next_hint = f->unsynced = 0;
    f->bytes_there = 0;
    f->resumed = false;
    write_map(f, &r->err);
    fetch_sums_front(r->sums, f, 0, true);
}

/* ---- connections ----------------------------------------------------------------------------- */

static size_t blocks_wanted(const fetch_run_all *r, const fetch_track *f) {
    if (!r->lead_only) return f->n_blocks;
    const uint64_t n = (f->item->lead + FETCH_BLOCK - 1) / FETCH_BLOCK;
    return n < f->n_blocks ? (size_t)n : f->n_blocks;
}

/* The next run of missing blocks, of any file. */
static bool take_run(fetch_run_all *r, fetch_slot *s) {
    for (size_t i = 0; i < r->n_files; i++) {
        fetch_track *f = &r->files[i];
        if (f->done || (f->whole && f->n_slots)) continue;
        const size_t end = blocks_wanted(r, f);
        size_t b = f->next_hint;
        while (b < end && f->blocks[b] != MISSING) b++;
        f->next_hint = b;
        if (b >= end) continue;
        size_t n = 0;
        const size_t most = f->whole ? f->n_blocks : FETCH_RUN_BLOCKS;
        while (b + n < end && n < most && f->blocks[b + n] == MISSING) f->blocks[b + n++] = TAKEN;
        s->file = f;
        s->at = s->from = (uint64_t)b * FETCH_BLOCK;
        s->to = block_end(f, b + n - 1);
        s->tries = 0;
        f->n_slots++;
        return true;
    }
    return false;
}

static void release(fetch_slot *s) {
    fetch_track *f = s->file;
    for (size_t b = (size_t)(s->from / FETCH_BLOCK); b < f->n_blocks && b * (uint64_t)FETCH_BLOCK < s->to;
         b++)
        if (f->blocks[b] == TAKEN) {
            f->blocks[b] = MISSING;
            if (b < f->next_hint) f->next_hint = b;
        }
    f->n_slots--;
    s->file = NULL;
}

static bool tell(fetch_run_all *r, const fetch_track *f, bool verifying) {
    const fetch_files_progress p = {.bytes_done = r->bytes_done,
                                    .bytes_total = r->bytes_total,
                                    .bytes_fetched = r->bytes_fetched,
                                    .name = f ? base_name(f->item->path) : "",
                                    .file = f ? (size_t)(f - r->files) : 0,
                                    .file_done = f ? f->bytes_there : 0,
                                    .verifying = verifying};
    r->told_ns = sq_os_now_ns();
    if (!r->o.progress || r->o.progress(r->o.user, &p)) return true;
    sq_fail(&r->err, SQUISH_CANCELLED, "stopped");
    return false;
}

/* The mark of block b on disk. Where no sum will tell whether a power cut lost bytes, these are on the disk
 * before their marks are. */
static squish_status note(fetch_track *f, size_t b, squish_error *err) {
    if (f->item->kind != FETCH_SUM_NONE) return put(f->map_fd, f->item->map, "#", 1, f->map_head + b, err);
    if (++f->unsynced < SYNC_BLOCKS && f->n_there < f->n_blocks) return SQUISH_OK;
    f->unsynced = 0;
    if (fdatasync(f->fd) != 0) return sq_fail_errno(err, errno, "cannot flush '%s'", f->item->path);
    return write_map(f, err);
}

/* Block b came to its end. */
static bool mark(fetch_run_all *r, fetch_track *f, size_t b) {
    if (f->blocks[b] == THERE) return true;
    f->blocks[b] = THERE;
    f->n_there++;
    const uint64_t n = block_end(f, b) - b * (uint64_t)FETCH_BLOCK;
    f->bytes_there += n;
    r->bytes_done += n;
    if (note(f, b, &r->err) != SQUISH_OK) return false;
    size_t front = f->front_block;
    while (front < f->n_blocks && f->blocks[front] == THERE) front++;
    if (front != f->front_block) {
        f->front_block = front;
        fetch_sums_front(r->sums, f, front ? block_end(f, front - 1) : 0, false);
    }
    return true;
}

static bool on_begin(void *user, const fetch_head *h) {
    fetch_slot *s = user;
    const fetch_track *f = s->file;
    s->unfit = NULL;
    if (h->packed && !f->whole)
        s->unfit = "packs it";
    else if (h->status == 206 && !f->whole) {
        if (!h->has_range || h->from != s->at)
            s->unfit = "sends another range than was asked for";
        else if (h->total && h->total != f->item->bytes)
            s->unfit = "has a file of another length";
    } else if (s->at != 0) {
        s->unfit = "knows no ranges";
    } else if (!h->packed && h->has_length && h->length != f->item->bytes) {
        s->unfit = "has a file of another length";
    }
    return s->unfit == NULL;
}

static bool on_bytes(void *user, const char *bytes, size_t n) {
    fetch_slot *s = user;
    fetch_run_all *r = s->run;
    fetch_track *f = s->file;
    const uint64_t room = s->to - s->at;
    s->too_much = n > room;
    const size_t take = s->too_much ? (size_t)room : n;
    if (put(f->fd, f->item->path, bytes, take, s->at, &r->err) != SQUISH_OK) return false;
    const size_t first = (size_t)(s->at / FETCH_BLOCK);
    s->at += take;
    r->bytes_fetched += take;
    if (!f->whole || s->at > f->farthest) { /* in one piece only what nobody had come to before is progress */
        s->tries = 0;
        f->farthest = s->at;
        r->heard_ns = sq_os_now_ns();
    }
    for (size_t b = first; b < f->n_blocks && block_end(f, b) <= s->at; b++)
        if (!mark(r, f, b)) return false;
    if (sq_os_now_ns() - r->told_ns > 50000000 && !tell(r, f, false)) return false;
    return !s->too_much; /* it was asked for so much and no more */
}

/* This server cannot do it by parts: once in one piece, and then no more. */
static bool fall_back(fetch_run_all *r, fetch_slot *s) {
    fetch_track *f = s->file;
    if (f->whole && f->restart) return false; /* another connection saw it first */
    if (f->whole || strcmp(s->unfit, "has a file of another length") == 0) {
        sq_fail(&r->err, SQUISH_NETWORK, "%s: the server %s (%llu bytes were announced)",
                base_name(f->item->path), s->unfit, (unsigned long long)f->item->bytes);
        return false;
    }
    f->whole = true;
    return true;
}

static void again_later(fetch_run_all *r, fetch_slot *s, const fetch_end *e) {
    const uint64_t now = sq_os_now_ns();
    double pause = s->tries ? PAUSE_FIRST_S : PAUSE_NONE_S; /* it had sent something: on with it */
    for (int i = 1; i < s->tries && pause < PAUSE_MAX_S; i++) pause *= 2;
    if (pause > PAUSE_MAX_S) pause = PAUSE_MAX_S;
    if (e->head->retry_after_s > 0)
        pause = e->head->retry_after_s < PAUSE_ASKED_MAX_S ? e->head->retry_after_s : PAUSE_ASKED_MAX_S;
    if (!s->tries++) s->fails_since_ns = now;
    s->state = FETCH_SLOT_WAITS;
    s->until_ns = now + (uint64_t)(pause * 1e9);
    if (s->tries > r->o.retries && r->heard_ns <= s->fails_since_ns) { /* and nothing came to others either */
        r->err = e->err;
        sq_err_prefix(&r->err, "%.80s", base_name(s->file->item->path));
    }
}

static void on_done(void *user, const fetch_end *e) {
    fetch_slot *s = user;
    fetch_run_all *r = s->run;
    fetch_track *f = s->file;
    s->state = FETCH_SLOT_IDLE;
    if (r->err.code != SQUISH_OK) return;
    if (s->unfit) {
        f->restart = fall_back(r, s) || f->restart;
        release(s);
    } else if (s->at == s->to) { /* all of it, whatever came behind */
        release(s);
    } else if (f->whole && e->st != SQUISH_OK && e->again) {
        again_later(r, s, e);
        start_over(r, f);
        for (size_t b = 0; b < f->n_blocks; b++) f->blocks[b] = TAKEN;
        s->at = 0;
    } else if (e->st == SQUISH_OK || e->again) { /* OK: the body was short */
        fetch_end cut = *e;
        if (e->st == SQUISH_OK) sq_fail(&cut.err, SQUISH_NETWORK, "the answer was shorter than announced");
        again_later(r, s, &cut);
    } else {
        r->err = e->err;
    }
    if (f->restart &&
        f->n_slots == 0) { /* the last connection has left a file that shall come in one piece */
        f->restart = false;
        start_over(r, f);
    }
}

static squish_status ask(fetch_run_all *r, fetch_slot *s, squish_error *err) {
    const fetch_track *f = s->file;
    fetch_ask q = {.url = f->item->url,
                   .token = r->o.token,
                   .token_origin = r->o.token_origin,
                   .begin = on_begin,
                   .sink = on_bytes,
                   .done = on_done,
                   .user = s};
    s->unfit = NULL;
    s->too_much = false;
    if (f->whole)
        q.unpack = true;
    else
        q.from = s->at, q.to = s->to;
    s->state = FETCH_SLOT_RUNS;
    return fetch_pool_ask(r->pool, &q, err);
}

/* ---- the run --------------------------------------------------------------------------------- */

/* Whole files leave their names to the thread that sums; wrong ones begin again or end the run. */
static void collect(fetch_run_all *r) {
    for (size_t i = 0; i < r->n_files && r->err.code == SQUISH_OK; i++) {
        fetch_track *f = &r->files[i];
        if (f->done || r->lead_only || f->n_there < f->n_blocks || f->n_slots) continue;
        char found[65];
        const fetch_verdict v = fetch_sums_verdict(r->sums, f, found, &r->err);
        if (v == FETCH_SUM_RIGHT) {
            f->done = true;
            memcpy(f->item->sha256, f->sha256, sizeof f->sha256);
        } else if (v == FETCH_SUM_WRONG && f->resumed) {
            start_over(r, f);
        } else if (v == FETCH_SUM_WRONG) {
            unlink(f->item->path);
            unlink(f->item->map);
            sq_fail(&r->err, SQUISH_CORRUPT,
                    "%.80s: its sum is %s, wanted %s (not kept; the hub's file is "
                    "damaged or was changed)",
                    base_name(f->item->path), found, f->item->sum);
        }
    }
}

static bool all_done(const fetch_run_all *r) {
    for (size_t i = 0; i < r->n_files; i++) {
        const fetch_track *f = &r->files[i];
        if (f->n_slots) return false;
        if (!r->lead_only && !f->done) return false;
        for (size_t b = 0; r->lead_only && b < blocks_wanted(r, f); b++)
            if (f->blocks[b] != THERE) return false;
    }
    return true;
}

static bool anything_moves(const fetch_run_all *r) {
    for (int32_t i = 0; i < r->o.connections; i++)
        if (r->slots[i].file) return true;
    return false;
}

static void run(fetch_run_all *r) {
    const fetch_track *last = NULL;
    while (r->err.code == SQUISH_OK && !all_done(r)) {
        const uint64_t now = sq_os_now_ns();
        for (int32_t i = 0; i < r->o.connections && r->err.code == SQUISH_OK; i++) {
            fetch_slot *s = &r->slots[i];
            if (s->state == FETCH_SLOT_RUNS || (s->state == FETCH_SLOT_WAITS && now < s->until_ns)) continue;
            if (!s->file && !take_run(r, s)) continue;
            last = s->file;
            ask(r, s, &r->err);
        }
        const bool moves = anything_moves(r);
        if (r->err.code == SQUISH_OK && !tell(r, last, !moves)) break;
        if (fetch_pool_wait(r->pool, 0.05) == 0 && !all_done(r)) fetch_sums_wait(r->sums, moves ? 0.05 : 0.2);
        collect(r);
    }
}

static void close_files(const squish_alloc *a, fetch_run_all *r) {
    for (size_t i = 0; i < r->n_files; i++) {
        fetch_track *f = &r->files[i];
        if (f->fd >= 0) close(f->fd);
        if (f->map_fd >= 0) close(f->map_fd);
        sq_alloc_free(a, f->blocks, f->n_blocks + 1);
    }
    sq_alloc_free(a, r->files, (r->n_files + 1) * sizeof *r->files);
}

static squish_status fetch_all(fetch_file_item *items, size_t n, const fetch_files_options *o, bool lead_only,
                               squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    fetch_run_all r = {.o = *o, .n_files = n, .lead_only = lead_only, .heard_ns = sq_os_now_ns()};
    if (r.o.connections <= 0) r.o.connections = 4;
    if (r.o.connections > FETCH_CONNECTIONS_MAX) r.o.connections = FETCH_CONNECTIONS_MAX;
    if (r.o.retries <= 0) r.o.retries = 8;
    if (r.o.stall_s <= 0) r.o.stall_s = 20;
    r.files = sq_alloc_zero(&a, (n + 1) * sizeof *r.files);
    if (!r.files) return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) r.files[i] = (fetch_track){.item = &items[i], .fd = -1, .map_fd = -1};
    for (int32_t i = 0; i < FETCH_CONNECTIONS_MAX; i++) r.slots[i].run = &r;
    squish_status st = SQUISH_OK;
    for (size_t i = 0; i < n && st == SQUISH_OK; i++) {
        st = open_file(&a, &r.files[i], &r.err);
        r.bytes_done += r.files[i].bytes_there;
        r.bytes_total += items[i].bytes;
    }
    if (st == SQUISH_OK) st = fetch_pool_new(&r.pool, r.o.stall_s, &r.err);
    if (st == SQUISH_OK) st = fetch_sums_new(&r.sums, r.files, n, &r.err);
    if (st == SQUISH_OK) {
        fetch_pool_rate(r.pool, r.o.rate);
        for (size_t i = 0; i < n && !lead_only; i++) { /* what an earlier run left is summed first */
            fetch_track *f = &r.files[i];
            while (f->front_block < f->n_blocks && f->blocks[f->front_block] == THERE) f->front_block++;
            fetch_sums_front(r.sums, f, f->front_block ? block_end(f, f->front_block - 1) : 0, false);
        }
        run(&r);
    }
    fetch_pool_free(r.pool);
    fetch_sums_free(r.sums);
    close_files(&a, &r);
    if (r.err.code != SQUISH_OK && err) *err = r.err;
    return r.err.code;
}

squish_status fetch_files(fetch_file_item *files, size_t n, const fetch_files_options *o, squish_error *err) {
    return fetch_all(files, n, o, false, err);
}

squish_status fetch_files_lead(fetch_file_item *files, size_t n, const fetch_files_options *o,
                               squish_error *err) {
    return fetch_all(files, n, o, true, err);
}
