/* SPDX-License-Identifier: Apache-2.0
 *
 * own_faults.h - a test program whose own allocations and changes to the disk fail one by one. For rooms that
 * take no squish_alloc: the store, the hub, fetch.
 *
 * The program that includes this has its own realloc, free, pwrite, open, mkdir, ... which the rooms link
 * against. Only what our code calls is counted and refused (the address it returns to lies in the program,
 * not in a library); libcurl's allocations are counted through a hook of its own. jansson's blocks are
 * counted as ours but never refused: without memory its lexer (2.14) loses letters and then writes past its
 * buffer.
 *
 *     own_arm(OWN_MEMORY, 17, 0);       the 17th allocation of ours fails (OWN_CURL: of libcurl's)
 *     own_arm(OWN_DISK, 5, ENOSPC);     from the 5th change to the disk on there is no room
 *     own_arm(OWN_DISK, 5, EIO);        the 5th fails, once
 *     own_arm(OWN_DISK, 5, OWN_END);    the process ends there
 *     own_live()                        blocks of ours that nobody has freed
 *
 * Include it in one file of a program. */
#ifndef SQ_TEST_OWN_FAULTS_H
#define SQ_TEST_OWN_FAULTS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The sanitizer of threads calls these before it can be told anything. */
#if defined(__clang__) && defined(__has_feature)
#if __has_feature(thread_sanitizer)
#pragma clang attribute push(__attribute__((disable_sanitizer_instrumentation)), apply_to = function)
#define OWN_POP
#endif
#endif

typedef enum { OWN_NONE, OWN_MEMORY, OWN_CURL, OWN_DISK } own_kind;
enum { OWN_END = -1, OWN_ENDED = 77, OWN_BLOCKS = 1 << 16 };

static struct {
    atomic_flag lock; /* not of pthreads: sanitizers call free before they are ready for those */
    own_kind kind;
    int at, with, count;
    bool on, full; /* the disk, from the n-th change on */
    void *blocks[OWN_BLOCKS];
    int live;
} own = {.lock = ATOMIC_FLAG_INIT};

static inline void own_lock(void) {
    while (atomic_flag_test_and_set(&own.lock)) {}
}
static inline void own_unlock(void) { atomic_flag_clear(&own.lock); }

/* ---- what is counted ------------------------------------------------------------------------- */

extern char __executable_start, etext; /* of the linker: where the program's code lies */
static inline bool own_calls(const void *from) {
    return (uintptr_t)from >= (uintptr_t)&__executable_start && (uintptr_t)from < (uintptr_t)&etext;
}

static inline void own_arm(own_kind kind, int at, int with) {
    own.kind = kind, own.at = at, own.with = with, own.count = 0, own.full = false;
}

/* Is this the one? errno is set. */
static inline bool own_refuses(own_kind kind) {
    if (own.kind != kind) return false;
    own_lock();
    const int n = ++own.count;
    if (n == own.at && own.with == ENOSPC) own.full = true;
    const bool no = n == own.at || own.full;
    own_unlock();
    if (no && own.with == OWN_END) _exit(OWN_ENDED);
    if (no) errno = kind == OWN_DISK ? own.with : ENOMEM;
    return no;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Sanitizers have their own; where they are linked in these names are there. */
extern void *__libc_realloc(void *p, size_t n);
extern void __libc_free(void *p);
extern void *__interceptor_realloc(void *p, size_t n) __attribute__((weak));
extern void __interceptor_free(void *p) __attribute__((weak));

static inline size_t own_slot(const void *p) { return ((uintptr_t)p >> 4) * 2654435761u % OWN_BLOCKS; }

/* Open addressing; a block that goes leaves a mark, so that those behind it are found. */
static void *const own_gone = (void *)(uintptr_t)1;
static inline void own_note(void *p) {
    own_lock();
    size_t i = own_slot(p);
    while (own.blocks[i] && own.blocks[i] != own_gone) i = (i + 1) % OWN_BLOCKS;
    own.blocks[i] = p;
    own.live++;
    own_unlock();
}
static inline void own_forget(const void *p) {
    own_lock();
    for (size_t i = own_slot(p); own.blocks[i]; i = (i + 1) % OWN_BLOCKS)
        if (own.blocks[i] == p) {
            own.blocks[i] = own_gone;
            own.live--;
            break;
        }
    own_unlock();
}
/* Blocks of ours; the marks go when there are none. */
static inline int own_live(void) {
    own_lock();
    const int n = own.live;
    if (n == 0) memset(own.blocks, 0, sizeof own.blocks);
    own_unlock();
    return n;
}

void *realloc(void *p, size_t n) {
    void *(*real)(void *, size_t) = __interceptor_realloc ? __interceptor_realloc : __libc_realloc;
    if (!own_calls(__builtin_return_address(0))) return real(p, n);
    if (own_refuses(OWN_MEMORY)) return NULL;
    if (p) own_forget(p);
    p = real(p, n);
    if (p) own_note(p);
    return p;
}
/* Sanitizers call it before their shadow is there. */
__attribute__((no_sanitize("address", "undefined", "thread"))) void free(void *p) {
    if (p && own.on) own_forget(p);
    (__interceptor_free ? __interceptor_free : __libc_free)(p);
}
static inline void *own_json_malloc(size_t n) {
    void *p = malloc(n);
    if (p) own_note(p);
    return p;
}

static inline void *own_curl_malloc(size_t n) { return own_refuses(OWN_CURL) ? NULL : malloc(n); }
static inline void *own_curl_calloc(size_t n, size_t k) {
    return own_refuses(OWN_CURL) ? NULL : calloc(n, k);
}
static inline char *own_curl_strdup(const char *s) { return own_refuses(OWN_CURL) ? NULL : strdup(s); }
static inline void *own_curl_realloc(void *p, size_t n) {
    return own_refuses(OWN_CURL) ? NULL
                                 : (__interceptor_realloc ? __interceptor_realloc : __libc_realloc)(p, n);
}

/* First of all. false: there is no libcurl here. */
static inline bool own_begin(void) {
    own.on = true;
    json_set_alloc_funcs(own_json_malloc, free);
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    int (*init)(long, void *(*)(size_t), void (*)(void *), void *(*)(void *, size_t), char *(*)(const char *),
                void *(*)(size_t, size_t)) = NULL;
    if (library) *(void **)&init = dlsym(library, "curl_global_init_mem");
    return init && init(3 /* all of it */, own_curl_malloc, free, own_curl_realloc, own_curl_strdup,
                        own_curl_calloc) == 0;
}

/* ---- the disk -------------------------------------------------------------------------------- */

#define OWN_FAULT(refusal, call)                                                                             \
    (own_calls(__builtin_return_address(0)) && own_refuses(OWN_DISK) ? (refusal) : (call))

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    if (own_calls(__builtin_return_address(0)) && own_refuses(OWN_DISK)) {
        /* the last bytes that find room */
        if (own.with == ENOSPC && own.count == own.at && n > 1)
            return (ssize_t)syscall(SYS_pwrite64, fd, p, n / 2, at);
        errno = own.with;
        return -1;
    }
    return (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);
}
ssize_t pread(int fd, void *p, size_t n, off_t at) {
    if (own.with == ENOSPC) return (ssize_t)syscall(SYS_pread64, fd, p, n, at); /* reading needs no room */
    return OWN_FAULT(-1, (ssize_t)syscall(SYS_pread64, fd, p, n, at));
}
ssize_t read(int fd, void *p, size_t n) {
    if (own.with == ENOSPC) return (ssize_t)syscall(SYS_read, fd, p, n);
    return OWN_FAULT(-1, (ssize_t)syscall(SYS_read, fd, p, n));
}
int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    const mode_t mode = flags & O_CREAT ? (mode_t)va_arg(ap, int) : 0;
    va_end(ap);
    if (!(flags & O_CREAT) && own.with == ENOSPC)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    return OWN_FAULT(-1, (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
/* Nothing here needs to outlive the machine: the flushes are only counted. */
int fsync(int fd) { return (void)fd, OWN_FAULT(-1, 0); }
int fdatasync(int fd) { return (void)fd, OWN_FAULT(-1, 0); }
int ftruncate(int fd, off_t n) { return OWN_FAULT(-1, (int)syscall(SYS_ftruncate, fd, n)); }
int fallocate(int fd, int mode, off_t at, off_t n) {
    return OWN_FAULT(-1, (int)syscall(SYS_fallocate, fd, mode, at, n));
}
int mkdir(const char *path, mode_t mode) {
    struct stat st;
    if (stat(path, &st) == 0) return errno = EEXIST, -1; /* nothing is changed */
    return OWN_FAULT(-1, (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int link(const char *a, const char *b) {
    return OWN_FAULT(-1, (int)syscall(SYS_linkat, AT_FDCWD, a, AT_FDCWD, b, 0));
}
int unlink(const char *path) {
    if (own.with == ENOSPC) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    return OWN_FAULT(-1, (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
int rename(const char *a, const char *b) {
    return OWN_FAULT(-1, (int)syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 0));
}
int renameat2(int x, const char *a, int y, const char *b, unsigned flags) {
    return OWN_FAULT(-1, (int)syscall(SYS_renameat2, x, a, y, b, flags));
}
ssize_t copy_file_range(int from, off_t *in, int to, off_t *out, size_t n, unsigned flags) {
    return OWN_FAULT(-1, (ssize_t)syscall(SYS_copy_file_range, from, in, to, out, n, flags));
}

#ifdef OWN_POP
#pragma clang attribute pop
#endif

#endif
