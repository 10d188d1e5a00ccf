/* SPDX-License-Identifier: Apache-2.0
 *
 * os_posix.c - clock, randomness, mapping, files and directories: what Linux and macOS share.
 *
 * Every open uses O_NONBLOCK until the file is known to be a regular one: opening a FIFO must be refused at
 * once, not wait for a writer. Nothing here keeps state; all functions may be called from any thread. */
#include "base/os_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* ---- clock and randomness -------------------------------------------------------------------- */

uint64_t sq_os_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int64_t sq_os_unix_time(void) { return (int64_t)time(NULL); }

uint64_t sq_os_unix_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t sq_os_files_max(uint64_t wanted) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return 0;
    if (r.rlim_cur != RLIM_INFINITY && r.rlim_cur < wanted) {
        struct rlimit more = r;
        more.rlim_cur = r.rlim_max == RLIM_INFINITY || r.rlim_max > wanted ? wanted : r.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) r = more;
    }
    return r.rlim_cur == RLIM_INFINITY ? UINT64_MAX : r.rlim_cur;
}

bool sq_os_random(void *out, size_t n) {
    enum { ONCE = 256 }; /* the most getentropy gives in one call */
    for (char *p = out; n > 0;) {
        size_t step = n < ONCE ? n : ONCE;
        if (getentropy(p, step) != 0) return false;
        p += step;
        n -= step;
    }
    return true;
}

/* ---- mapping --------------------------------------------------------------------------------- */

/* Open an existing regular file for reading. */
static squish_status open_regular(const char *path, int *fd, struct stat *st, squish_error *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) return sq_fail_errno(err, errno, "cannot open '%s'", path);
    squish_status status = SQUISH_OK;
    if (fstat(*fd, st) != 0)
        status = sq_fail_errno(err, errno, "cannot open '%s'", path);
    else if (!S_ISREG(st->st_mode))
        status = sq_fail(err, SQUISH_INVALID, "'%s' is %s, not a regular file", path,
                         S_ISDIR(st->st_mode) ? "a directory" : "a special file");
    if (status != SQUISH_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

squish_status sq_os_map_open(sq_map *out, const char *path, squish_error *err) {
    static const uint8_t nothing[1] = {0}; /* an empty file cannot be mapped, yet data is never NULL */
    *out = (sq_map){0};
    struct stat st;
    int fd;
    SQ_TRY(open_regular(path, &fd, &st, err));
    const uint8_t *data = nothing;
    squish_status status = SQUISH_OK;
    if ((uint64_t)st.st_size > SIZE_MAX / 2) {
        status = sq_fail(err, SQUISH_UNSUPPORTED, "'%s' does not fit the address space", path);
    } else if (st.st_size > 0) {
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) status = sq_fail_errno(err, errno, "cannot map '%s'", path);
    }
    close(fd); /* the mapping keeps the file */
    if (status != SQUISH_OK) return status;
    *out = (sq_map){data, (size_t)st.st_size, (uint64_t)st.st_ino, sq_os_mtime_ns(&st)};
    return SQUISH_OK;
}

void sq_os_map_close(sq_map *m) {
    if (m && m->bytes > 0) munmap((void *)(uintptr_t)m->data, m->bytes);
    if (m) *m = (sq_map){0};
}

void sq_os_map_advise(const sq_map *m, size_t offset, size_t bytes, int advice) {
    static const int advices[] = {[SQ_ADVISE_RANDOM] = MADV_RANDOM,
                                  [SQ_ADVISE_SEQUENTIAL] = MADV_SEQUENTIAL,
                                  [SQ_ADVISE_WILLNEED] = MADV_WILLNEED};
    if (offset >= m->bytes || advice < 0 || advice >= (int)SQ_COUNT(advices)) return;
    if (bytes > m->bytes - offset) bytes = m->bytes - offset;
    size_t in_page = offset % (size_t)sysconf(_SC_PAGESIZE);
    /* Advice is a hint; a kernel that refuses it costs speed, not correctness. */
    (void)madvise((void *)(uintptr_t)(m->data + offset - in_page), bytes + in_page, advices[advice]);
}

void *sq_os_reserve(size_t bytes) {
    if (bytes == 0) return NULL;
    int flags = MAP_PRIVATE | MAP_ANON | MAP_NORESERVE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void sq_os_release(void *p, size_t bytes) {
    if (p) munmap(p, bytes);
}

/* ---- small files and questions --------------------------------------------------------------- */

/* Read up to n bytes; the count, or -1 with errno. */
static ssize_t read_full(int fd, char *out, size_t n) {
    size_t got = 0;
    while (got < n) {
        ssize_t r = read(fd, out + got, n - got);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return -1;
        if (r == 0) break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

long sq_os_read_text(const char *path, char *out, size_t n) {
    out[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t got = read_full(fd, out, n - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got;
}

squish_status sq_os_read_file(const char *path, size_t bytes_max, sq_arena *out_arena, sq_span *out,
                              squish_error *err) {
    *out = (sq_span){0};
    struct stat st;
    int fd;
    SQ_TRY(open_regular(path, &fd, &st, err));
    squish_status status = SQUISH_OK;
    char *text = NULL;
    ssize_t got = 0;
    if ((uint64_t)st.st_size > bytes_max)
        status = sq_fail(err, SQUISH_CORRUPT, "'%s': %lld bytes, the limit is %zu", path,
                         (long long)st.st_size, bytes_max);
    else if (!(text = sq_arena_alloc(out_arena, (size_t)st.st_size + 1, 16)))
        status =
            sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its %lld bytes", path, (long long)st.st_size);
    else if ((got = read_full(fd, text, (size_t)st.st_size)) < 0)
        status = sq_fail_errno(err, errno, "cannot read '%s'", path);
    close(fd);
    if (status == SQUISH_OK) *out = (sq_span){(const uint8_t *)text, (size_t)got};
    return status;
}

bool sq_os_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool sq_os_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

uint64_t sq_os_file_bytes(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

uint64_t sq_os_file_mtime_ns(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? sq_os_mtime_ns(&st) : 0;
}

/* Shorten path in place to its parent directory: "a/b" -> "a", "/a" -> "/", "a" -> ".". */
static void to_parent(char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    while (n > 1 && path[n - 1] == '/') n--;
    if (n == 0) path[n++] = '.';
    path[n] = '\0';
}

/* path itself or its nearest parent that is there. False: too long. */
static bool nearest_existing(const char *path, char out[PATH_BYTES]) {
    if (snprintf(out, PATH_BYTES, "%s", path[0] ? path : ".") >= PATH_BYTES) return false;
    while (!sq_os_exists(out) && strcmp(out, "/") != 0 && strcmp(out, ".") != 0) to_parent(out);
    return true;
}

bool sq_os_writable_dir(const char *path) {
    char dir[PATH_BYTES];
    return nearest_existing(path, dir) && sq_os_is_dir(dir) && access(dir, W_OK | X_OK) == 0;
}

uint64_t sq_os_disk_free(const char *path) {
    char dir[PATH_BYTES];
    struct statvfs st;
    if (!nearest_existing(path, dir) || statvfs(dir, &st) != 0) return 0;
    return (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
}

/* ---- directories ----------------------------------------------------------------------------- */

static squish_status mkdir_one(const char *path, squish_error *err) {
    if (mkdir(path, 0777) == 0) return SQUISH_OK;
    int cause = errno; /* EEXIST, but also EROFS or EACCES for a directory that is there already */
    if (sq_os_is_dir(path)) return SQUISH_OK;
    if (cause == EEXIST) return sq_fail(err, SQUISH_IO, "'%s' is in the way: not a directory", path);
    return sq_fail_errno(err, cause, "cannot make directory '%s'", path);
}

squish_status sq_os_mkdirs(const char *path, squish_error *err) {
    char part[PATH_BYTES];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return sq_fail(err, SQUISH_INVALID, "a directory name of %zu bytes, allowed are 1 to %d", n,
                       PATH_BYTES - 1);
    memcpy(part, path, n + 1);
    for (size_t i = 1; i < n; i++) {
        if (part[i] != '/' || part[i - 1] == '/') continue;
        part[i] = '\0';
        SQ_TRY(mkdir_one(part, err));
        part[i] = '/';
    }
    return mkdir_one(part, err);
}

typedef struct entry {
    struct entry *next;
    char *name;
} entry;

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Collect names as a list (their number is not known before), newest first. */
static squish_status read_names(DIR *d, const char *path, sq_arena *ar, entry **list, size_t *n,
                                squish_error *err) {
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e && errno) return sq_fail_errno(err, errno, "cannot list '%s'", path);
        if (!e) return SQUISH_OK;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        entry *one = SQ_ARENA_NEW(ar, entry);
        if (!one || !(one->name = sq_arena_strndup(ar, e->d_name, strlen(e->d_name))))
            return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its list of names", path);
        one->next = *list;
        *list = one;
        ++*n;
    }
}

squish_status sq_os_list_dir(const char *path, sq_arena *out_arena, char ***names, size_t *n,
                             squish_error *err) {
    *names = NULL;
    *n = 0;
    DIR *d = opendir(path);
    if (!d) return sq_fail_errno(err, errno, "cannot list '%s'", path);
    entry *list = NULL;
    size_t count = 0;
    squish_status status = read_names(d, path, out_arena, &list, &count, err);
    closedir(d);
    if (status != SQUISH_OK) return status;
    char **all = SQ_ARENA_ARRAY(out_arena, char *, count);
    if (!all) return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its list of names", path);
    for (size_t i = 0; list; list = list->next) all[i++] = list->name;
    qsort(all, count, sizeof *all, by_bytes);
    *names = all;
    *n = count;
    return SQUISH_OK;
}

/* ---- new files and locks --------------------------------------------------------------------- */

/* The temporary name is the final one plus ".partial", and the writer holds a lock on it. So what a crash
 * left behind is taken over by the next writer instead of piling up, and two writers cannot mix bytes. */

/* Does path still name the file behind fd? Somebody may have renamed or removed it before we got the lock. */
static bool still_there(int fd, const char *path) {
    struct stat by_fd, by_path;
    return fstat(fd, &by_fd) == 0 && stat(path, &by_path) == 0 && by_fd.st_dev == by_path.st_dev &&
           by_fd.st_ino == by_path.st_ino;
}

static squish_status open_locked(int *out_fd, const char *path, int flags, squish_error *err) {
    *out_fd = -1;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags, 0666);
        if (fd < 0) return sq_fail_errno(err, errno, "cannot write '%s'", path);
        struct stat st;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
            close(fd);
            return sq_fail(err, SQUISH_INVALID, "'%s' is in the way: not a regular file", path);
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            int cause = errno;
            close(fd);
            if (cause == EINTR) continue;
            if (cause == EWOULDBLOCK)
                return sq_fail(err, SQUISH_BUSY, "'%s' is held by another process", path);
            return sq_fail_errno(err, cause, "cannot lock '%s'", path);
        }
        if (still_there(fd, path)) {
            *out_fd = fd;
            return SQUISH_OK;
        }
        close(fd);
    }
}

squish_status sq_os_lock(int *out_fd, const char *path, squish_error *err) {
    return open_locked(out_fd, path, 0, err);
}

void sq_os_unlock(int fd) {
    if (fd >= 0) close(fd);
}

/* Refuse early with numbers a person can use, then claim the blocks: the disk cannot fill up half-way. What
 * the file holds already is not asked for again. */
static squish_status claim_space(const sq_newfile *f, uint64_t bytes, uint64_t spare, squish_error *err) {
    struct stat st;
    if (fstat(f->fd, &st) != 0) return sq_fail_errno(err, errno, "cannot write '%s'", f->tmp);
    uint64_t held = (uint64_t)st.st_blocks * 512, missing = bytes > held ? bytes - held : 0, needed = 0;
    uint64_t left = sq_os_disk_free(f->tmp);
    if (missing && (!sq_add_ok(missing, spare, &needed) || needed > left))
        return sq_fail(err, SQUISH_NO_SPACE, "'%s' needs %llu MB, the disk has %llu MB left", f->final,
                       (unsigned long long)(needed >> 20), (unsigned long long)(left >> 20));
    int cause = missing ? sq_os_preallocate(f->fd, bytes) : 0;
    if (cause)
        return sq_fail_errno(err, cause, "cannot reserve %llu bytes for '%s'", (unsigned long long)bytes,
                             f->final);
    return SQUISH_OK;
}

squish_status sq_os_newfile_open(sq_newfile *f, const char *path, uint64_t bytes_expected,
                                 squish_error *err) {
    *f = (sq_newfile){.fd = -1};
    size_t n = strlen(path);
    if (n == 0 || n + sizeof ".partial" > sizeof f->tmp)
        return sq_fail(err, SQUISH_INVALID, "a file name of %zu bytes, allowed are 1 to %zu", n,
                       sizeof f->tmp - sizeof ".partial");
    memcpy(f->final, path, n + 1);
    memcpy(f->tmp, path, n);
    memcpy(f->tmp + n, ".partial", sizeof ".partial");
    squish_status st = open_locked(&f->fd, f->tmp, O_NOFOLLOW, err);
    if (st != SQUISH_OK) return st; /* the .partial is somebody else's: leave it alone */
    if (ftruncate(f->fd, 0) != 0)
        st = sq_fail_errno(err, errno, "cannot write '%s'", f->tmp);
    else
        st = claim_space(f, bytes_expected, 0, err);
    if (st != SQUISH_OK) sq_os_newfile_abandon(f);
    return st;
}

squish_status sq_os_newfile_write_at(sq_newfile *f, uint64_t offset, const void *p, size_t n,
                                     squish_error *err) {
    if (f->fd < 0) return sq_fail(err, SQUISH_INVALID, "a file that is not open for writing");
    if (offset > INT64_MAX || n > INT64_MAX - offset)
        return sq_fail(err, SQUISH_INVALID, "'%s': writing past the largest file offset", f->final);
    for (const char *at = p; n > 0;) {
        ssize_t w = pwrite(f->fd, at, n, (off_t)offset);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return sq_fail_errno(err, errno, "cannot write '%s'", f->final);
        at += w;
        offset += (uint64_t)w;
        n -= (size_t)w;
    }
    return SQUISH_OK;
}

/* Make the new name itself durable. */
static squish_status sync_parent(const char *path, squish_error *err) {
    char dir[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", path);
    to_parent(dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int cause = fd < 0 ? errno : sq_os_sync_fd(fd);
    if (fd >= 0) close(fd);
    if (cause == 0 || cause == EINVAL) return SQUISH_OK; /* some file systems cannot sync directories */
    return sq_fail_errno(err, cause, "'%s' is written, but its directory cannot be synced", path);
}

squish_status sq_os_newfile_publish(sq_newfile *f, squish_error *err) {
    if (f->fd < 0) return sq_fail(err, SQUISH_INVALID, "a file that is not open for writing");
    int cause = sq_os_sync_fd(f->fd);
    if (cause == 0 && rename(f->tmp, f->final) != 0) cause = errno;
    if (cause) {
        squish_status st = sq_fail_errno(err, cause, "cannot publish '%s'", f->final);
        sq_os_newfile_abandon(f);
        return st;
    }
    close(f->fd); /* only now: until the rename the lock keeps other writers off */
    f->fd = -1;
    return sync_parent(f->final, err);
}

squish_status sq_os_write_file(const char *path, const void *p, size_t n, squish_error *err) {
    sq_newfile f;
    SQ_TRY(sq_os_newfile_open(&f, path, n, err));
    squish_status st = sq_os_newfile_write_at(&f, 0, p, n, err);
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
    sq_os_newfile_abandon(&f);
    return st;
}

squish_status sq_os_newfile_resume(sq_newfile *f, const char *tmp, uint64_t *bytes, squish_error *err) {
    *f = (sq_newfile){.fd = -1};
    size_t n = strlen(tmp);
    if (n == 0 || n >= sizeof f->tmp)
        return sq_fail(err, SQUISH_INVALID, "a file name of %zu bytes, allowed are 1 to %zu", n,
                       sizeof f->tmp - 1);
    memcpy(f->tmp, tmp, n + 1);
    memcpy(f->final, tmp, n + 1); /* what messages call it until publish_as gives it a name */
    SQ_TRY(open_locked(&f->fd, f->tmp, O_NOFOLLOW, err));
    struct stat st;
    if (fstat(f->fd, &st) != 0) {
        squish_status status = sq_fail_errno(err, errno, "cannot read '%s'", tmp);
        sq_os_newfile_close(f);
        return status;
    }
    *bytes = (uint64_t)st.st_size;
    return SQUISH_OK;
}

squish_status sq_os_newfile_resize(sq_newfile *f, uint64_t bytes, uint64_t spare, squish_error *err) {
    if (f->fd < 0 || bytes > INT64_MAX)
        return sq_fail(err, SQUISH_INVALID, "a file that is not open for writing, or too large a size");
    SQ_TRY(claim_space(f, bytes, spare, err));
    if (ftruncate(f->fd, (off_t)bytes) != 0)
        return sq_fail_errno(err, errno, "cannot give '%s' its size", f->final);
    return SQUISH_OK;
}

squish_status sq_os_newfile_sync(sq_newfile *f, squish_error *err) {
    if (f->fd < 0) return sq_fail(err, SQUISH_INVALID, "a file that is not open for writing");
    int cause = sq_os_sync_fd(f->fd);
    return cause ? sq_fail_errno(err, cause, "cannot flush '%s'", f->final) : SQUISH_OK;
}

squish_status sq_os_newfile_publish_as(sq_newfile *f, const char *path, squish_error *err) {
    SQ_TRY(sq_os_newfile_sync(f, err));
    if (rename(f->tmp, path) != 0) return sq_fail_errno(err, errno, "cannot publish '%s'", path);
    sq_os_newfile_close(f);
    return sync_parent(path, err);
}

squish_status sq_os_sync_parent(const char *path, squish_error *err) { return sync_parent(path, err); }

void sq_os_newfile_close(sq_newfile *f) {
    if (!f || f->fd < 0 || f->tmp[0] == '\0') return;
    close(f->fd);
    f->fd = -1;
}

void sq_os_newfile_abandon(sq_newfile *f) {
    if (!f || f->fd < 0 || f->tmp[0] == '\0') return;
    unlink(f->tmp); /* before the lock goes */
    close(f->fd);
    f->fd = -1;
}
