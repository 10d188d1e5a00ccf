/* SPDX-License-Identifier: Apache-2.0
 *
 * os_direct.c - reading a file past the page cache.
 *
 * What streams through a file larger than memory must not push everything else out of the page cache, nor be
 * counted twice, so it asks for direct reads: offset, length and memory on multiples of SQ_DIRECT_ALIGN.
 * Where a file system refuses them (older tmpfs, some overlay and network ones) reads are buffered and the
 * pages are given back. Nothing here keeps state; all functions may be called from any thread. */
#include "base/os_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#ifndef O_DIRECT
#define O_DIRECT 0 /* macOS: F_NOCACHE, below */
#endif

/* Does a direct read of the first block work? Some file systems take the flag and refuse the read. */
static bool reads_directly(int fd) {
    _Alignas(SQ_DIRECT_ALIGN) char block[SQ_DIRECT_ALIGN];
    ssize_t n;
    do n = pread(fd, block, sizeof block, 0);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}

static bool make_direct(int fd, const char *path, int *direct_fd) {
    *direct_fd = -1;
#ifdef F_NOCACHE
    if (fcntl(fd, F_NOCACHE, 1) == 0) *direct_fd = dup(fd);
#endif
    if (O_DIRECT != 0) *direct_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (*direct_fd < 0) return false;
    struct stat a, b;
    const bool same =
        fstat(fd, &a) == 0 && fstat(*direct_fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    if (same && reads_directly(*direct_fd)) return true;
    close(*direct_fd);
    return false;
}

squish_status sq_os_direct_open(sq_direct *out, const char *path, bool buffered, squish_error *err) {
    struct stat st;
    *out = (sq_direct){.fd = -1};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sq_fail_errno(err, errno, "cannot open '%s'", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return sq_fail(err, SQUISH_INVALID, "'%s' is not a regular file", path);
    }
    int direct_fd = -1;
    if (!buffered && make_direct(fd, path, &direct_fd)) {
        close(fd);
        out->direct = true;
    }
    out->fd = out->direct ? direct_fd : fd;
    out->bytes = (uint64_t)st.st_size;
    out->inode = (uint64_t)st.st_ino;
    out->mtime_ns = sq_os_mtime_ns(&st);
    return SQUISH_OK;
}

void sq_os_direct_close(sq_direct *d) {
    if (d->fd >= 0) close(d->fd);
    d->fd = -1;
}

bool sq_os_direct_is_same(const sq_direct *d) {
    struct stat st;
    return fstat(d->fd, &st) == 0 && (uint64_t)st.st_size == d->bytes && sq_os_mtime_ns(&st) == d->mtime_ns;
}

int64_t sq_os_direct_read(const sq_direct *d, uint64_t offset, void *p, size_t n) {
    ssize_t got;
    do got = pread(d->fd, p, n, (off_t)offset);
    while (got < 0 && errno == EINTR);
    if (got < 0) return -errno;
    sq_os_direct_forget(d, offset, (size_t)got);
    return got;
}

void sq_os_direct_forget(const sq_direct *d, uint64_t offset, size_t n) {
#ifdef POSIX_FADV_DONTNEED
    if (!d->direct) (void)posix_fadvise(d->fd, (off_t)offset, (off_t)n, POSIX_FADV_DONTNEED);
#else
    (void)d, (void)offset, (void)n;
#endif
}
