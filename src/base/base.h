/* SPDX-License-Identifier: Apache-2.0
 *
 * base.h - what every room stands on: errors, memory, bytes, UTF-8, randomness, clock, threads, files, CPU.
 *
 * Nothing here knows about models. Everything platform dependent is in os_*.c. No mutable globals: the only
 * exception is the CPU feature word, computed once. */
#ifndef SQ_BASE_H
#define SQ_BASE_H

#include "squish.h"

#include <stdarg.h>

#define SQ_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SQ_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
/* a > 0; n + a must not wrap. */
static inline size_t sq_align_up(size_t n, size_t a) { return (n + a - 1) / a * a; }
static inline int32_t sq_div_up(int32_t n, int32_t d) { return (n + d - 1) / d; }

/* ---- errors ---------------------------------------------------------------------------------- */

/* Record a failure unless one is recorded already (the first cause wins), and return code. err may be NULL.
 *     return sq_fail(err, SQUISH_CORRUPT, "tensor '%s': %u columns, not a multiple of 32", name, n); */
squish_status sq_fail(squish_error *err, squish_status code, const char *fmt, ...) SQ_PRINTF(3, 4);
/* As sq_fail for a failed system call: appends strerror(errno_value) and maps ENOENT, ENOSPC, ENOMEM; the
 * rest, EACCES among them, is IO. */
squish_status sq_fail_errno(squish_error *err, int errno_value, const char *fmt, ...) SQ_PRINTF(3, 4);
/* Put "context: " in front of the recorded text. Nothing recorded: nothing done. */
void sq_err_prefix(squish_error *err, const char *fmt, ...) SQ_PRINTF(2, 3);

/* Leave the function with the status of `expr` unless it is OK. */
#define SQ_TRY(expr)                              \
    do {                                          \
        squish_status sq_try_ = (expr);           \
        if (sq_try_ != SQUISH_OK) return sq_try_; \
    } while (0)
/* The same with clean-up: sets `st` (declared by the caller) and jumps to its label fail. */
#define SQ_GUARD(expr)                       \
    do {                                     \
        st = (expr);                         \
        if (st != SQUISH_OK) goto fail;      \
    } while (0)

/* Checked arithmetic on sizes from outside: false on overflow, *out then unspecified. */
static inline bool sq_add_ok(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool sq_mul_ok(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* a NULL, or an empty table, means the default. */
squish_alloc sq_alloc_default(void);                         /* malloc family */
void *sq_alloc_new(const squish_alloc *a, size_t bytes);     /* uninitialised; NULL on failure or bytes = 0 */
void *sq_alloc_zero(const squish_alloc *a, size_t bytes);
void *sq_alloc_resize(const squish_alloc *a, void *p, size_t old_bytes, size_t new_bytes);
void sq_alloc_free(const squish_alloc *a, void *p, size_t bytes); /* NULL is fine */

/* Arena: many small blocks with one lifetime. Blocks come zeroed, are never freed one by one.
 *
 *   block -> block -> block          each: | header | used ........ | free |
 *
 * The name of the arena in a signature is the ownership note. bytes_max bounds the whole; 0: no bound.
 * Under ASan blocks have poisoned gaps between them. */
typedef struct sq_arena_block sq_arena_block;
typedef struct {
    squish_alloc alloc;
    sq_arena_block *head;
    size_t block_bytes, bytes_used, bytes_max; /* bytes_used: taken from the allocator, headers included */
} sq_arena;
void sq_arena_init(sq_arena *ar, const squish_alloc *a, size_t block_bytes, size_t bytes_max);
void sq_arena_deinit(sq_arena *ar);
void sq_arena_reset(sq_arena *ar); /* keeps the first block */
/* Zeroed; NULL when full; align is a power of two. */
void *sq_arena_alloc(sq_arena *ar, size_t bytes, size_t align);
char *sq_arena_strndup(sq_arena *ar, const char *s, size_t n);  /* NUL-terminated copy */
#define SQ_ARENA_NEW(ar, type) ((type *)sq_arena_alloc((ar), sizeof(type), _Alignof(type)))
/* n elements; NULL if n * size overflows */
#define SQ_ARENA_ARRAY(ar, type, n) ((type *)sq_arena_array((ar), (n), sizeof(type), _Alignof(type)))
void *sq_arena_array(sq_arena *ar, size_t n, size_t size, size_t align);

/* Growing byte buffer with a maximum at birth (bytes without the NUL; 0 holds nothing). `data` is
 * NUL-terminated whenever it is not NULL. A failed append sets `failed`, changes nothing and makes all later
 * ones fail too, so callers may check once at the end. */
typedef struct {
    squish_alloc alloc;
    char *data;
    size_t len, cap, max;
    bool failed;
} sq_buf;
void sq_buf_init(sq_buf *b, const squish_alloc *a, size_t max);
void sq_buf_deinit(sq_buf *b);
bool sq_buf_append(sq_buf *b, const void *bytes, size_t n);
bool sq_buf_puts(sq_buf *b, const char *s);
bool sq_buf_putc(sq_buf *b, char c);
bool sq_buf_printf(sq_buf *b, const char *fmt, ...) SQ_PRINTF(2, 3);
bool sq_buf_reserve(sq_buf *b, size_t extra);
/* Hand the bytes to the caller as squish_text (always with data, even when empty; the block has bytes + 1) or
 * fail with NO_MEMORY. The buffer is empty afterwards, or as it was if this failed. */
squish_status sq_buf_take(sq_buf *b, squish_text *out, squish_error *err);

/* A view of bytes owned by somebody else. */
typedef struct {
    const uint8_t *p;
    size_t n;
} sq_span;

/* ---- UTF-8 (Unicode 15, table 3-7) ----------------------------------------------------------- */

/* Decode one code point at s[0..n), n > 0. Returns its bytes (1..4); ill-formed input gives *cp = 0xFFFD and
 * the length of the maximal ill-formed subpart. *ok (may be NULL) tells them apart. */
size_t sq_utf8_decode(const char *s, size_t n, uint32_t *cp, bool *ok);
size_t sq_utf8_encode(uint32_t cp, char out[4]); /* cp <= 0x10FFFF and no surrogate, else U+FFFD */
bool sq_utf8_valid(const char *s, size_t n);
size_t sq_utf8_count(const char *s, size_t n); /* code points */
/* Bytes at the end of s[0..n) that begin a code point still incomplete (0..3). */
size_t sq_utf8_pending(const char *s, size_t n);

/* ---- random numbers -------------------------------------------------------------------------- */

uint64_t sq_splitmix64(uint64_t *state);
/* Philox4x32-10 (Salmon et al., SC 2011): four words from a counter and a key; no state. */
void sq_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- text distance, for "did you mean" ------------------------------------------------------- */

/* Damerau-Levenshtein (adjacent swaps) between two strings of at most 63 bytes; longer ones give 99. */
int sq_edit_distance(const char *a, const char *b);

/* ---- operating system (os_posix.c, os_linux.c, os_darwin.c) ---------------------------------- */

uint64_t sq_os_now_ns(void);      /* monotonic */
int64_t sq_os_unix_time(void);
uint64_t sq_os_unix_ns(void);     /* the same clock, in nanoseconds */
bool sq_os_random(void *out, size_t n);
/* Ask for that many open files at once, as far as the hard limit goes. Returns how many may be. */
uint64_t sq_os_files_max(uint64_t wanted);
int32_t sq_os_cores(void);        /* CPUs this process may use: affinity, cgroup v1/v2 quota rounded up */
/* For a thread that works briefly and often: it gets a processor as soon as it wakes, and no more of it than
 * others (a short slice of Linux 6.12; a wish elsewhere). */
void sq_os_wake_first(void);
uint64_t sq_os_memory_total(void);
uint64_t sq_os_memory_available(void); /* MemAvailable, cgroup head-room and RLIMIT_AS, the least */
uint64_t sq_os_rss_anon(void);    /* anonymous resident bytes of this process; 0 if unknown */
uint64_t sq_os_rss_anon_peak(void); /* VmHWM-like upper bound; 0 if unknown */
bool sq_os_exe_path(char *out, size_t n); /* path of the running program */
void sq_os_cpu_name(char *out, size_t n);

/* A file mapped read-only. Opening refuses anything but a regular file (INVALID); the final component may be
 * a symlink. */
typedef struct {
    const uint8_t *data;
    size_t bytes;
    uint64_t inode, mtime_ns;
} sq_map;
squish_status sq_os_map_open(sq_map *out, const char *path, squish_error *err);
void sq_os_map_close(sq_map *m);
enum { SQ_ADVISE_RANDOM, SQ_ADVISE_SEQUENTIAL, SQ_ADVISE_WILLNEED };
void sq_os_map_advise(const sq_map *m, size_t offset, size_t bytes, int advice);
/* Have the pages of a mapping at p in memory and in the tables, at once instead of one fault after the other
 * as they are touched; a wish. */
void sq_os_populate(const void *p, size_t bytes);
/* Zeroed anonymous memory, page aligned, touched only as used; NULL on failure. */
void *sq_os_reserve(size_t bytes);
/* Ask for large pages where reserved memory will all be used; a wish. */
void sq_os_huge_pages(void *p, size_t bytes);
void sq_os_release(void *p, size_t bytes);
void sq_os_discard(void *p, size_t bytes); /* give pages back, contents become zero */

/* A file read past the page cache where its file system allows that; buffered, its pages given back, where it
 * does not (os_direct.c). Offsets, lengths and memory are multiples of SQ_DIRECT_ALIGN. */
enum { SQ_DIRECT_ALIGN = 4096 };
typedef struct {
    int fd;
    bool direct;
    uint64_t bytes, inode, mtime_ns; /* when it was opened */
} sq_direct;
squish_status sq_os_direct_open(sq_direct *out, const char *path, bool buffered, squish_error *err);
void sq_os_direct_close(sq_direct *d);
bool sq_os_direct_is_same(const sq_direct *d); /* nobody has written to it since, or cut it */
/* Bytes read, 0 at the end of the file, or an errno value below 0. */
int64_t sq_os_direct_read(const sq_direct *d, uint64_t offset, void *p, size_t n);
void sq_os_direct_forget(const sq_direct *d, uint64_t offset, size_t n); /* pages of a buffered read */

/* Whole small file into an arena, NUL-terminated, at most bytes_max. NOT_FOUND: absent; CORRUPT: larger. */
squish_status sq_os_read_file(const char *path, size_t bytes_max, sq_arena *out_arena, sq_span *out,
                              squish_error *err);
bool sq_os_exists(const char *path);
bool sq_os_is_dir(const char *path);
/* path, or its nearest existing parent, is a directory in which a file could be made. */
bool sq_os_writable_dir(const char *path);
uint64_t sq_os_file_bytes(const char *path); /* 0 if absent */
uint64_t sq_os_file_mtime_ns(const char *path); /* of a file or folder, unix time; 0 if absent */
squish_status sq_os_mkdirs(const char *path, squish_error *err);
/* Names in a directory, without . and .., sorted by bytes. */
squish_status sq_os_list_dir(const char *path, sq_arena *out_arena, char ***names, size_t *n,
                             squish_error *err);
uint64_t sq_os_disk_free(const char *path);

/* A file being made: written under a temporary name in the target's directory, visible only after publish
 * (fsync, rename, fsync of the directory). A crash or abandon leaves nothing under the final name. While one
 * writer is at work a second one for the same name gets BUSY. */
typedef struct {
    int fd;
    char tmp[1024], final[1024];
} sq_newfile;
squish_status sq_os_newfile_open(sq_newfile *f, const char *path, uint64_t bytes_expected, squish_error *err);
squish_status sq_os_newfile_write_at(sq_newfile *f, uint64_t offset, const void *p, size_t n,
                                     squish_error *err);
squish_status sq_os_newfile_publish(sq_newfile *f, squish_error *err);
void sq_os_newfile_abandon(sq_newfile *f); /* after publish or a failed open: nothing */
/* All of it in one call: path holds these bytes, or what it held before. */
squish_status sq_os_write_file(const char *path, const void *p, size_t n, squish_error *err);
/* The same for a file that may be continued after a crash: tmp is opened or made under just that name and
 * keeps what it holds (*bytes). write_at and abandon serve it too; publish_as syncs and renames, and after
 * its failure the file is as before. close lets go of the lock and leaves the file. */
squish_status sq_os_newfile_resume(sq_newfile *f, const char *tmp, uint64_t *bytes, squish_error *err);
/* Cut or grow to `bytes`, blocks claimed; NO_SPACE unless the disk would have `spare` bytes left. */
squish_status sq_os_newfile_resize(sq_newfile *f, uint64_t bytes, uint64_t spare, squish_error *err);
squish_status sq_os_newfile_sync(sq_newfile *f, squish_error *err); /* contents safe on the medium */
squish_status sq_os_newfile_publish_as(sq_newfile *f, const char *path, squish_error *err);
void sq_os_newfile_close(sq_newfile *f);
squish_status sq_os_sync_parent(const char *path, squish_error *err); /* the directory path lies in */
/* Exclusive advisory lock on a file (made if absent); BUSY when somebody else has it. */
squish_status sq_os_lock(int *out_fd, const char *path, squish_error *err);
void sq_os_unlock(int fd);

/* ---- CPU ------------------------------------------------------------------------------------- */

enum {
    SQ_CPU_AVX2 = 1u << 0,        /* AVX2 + FMA + F16C + BMI2, and the OS saves YMM */
    SQ_CPU_AVX512 = 1u << 1,      /* F, BW, VL, DQ, and the OS saves ZMM */
    SQ_CPU_AVX512_VNNI = 1u << 2,
    SQ_CPU_AVX512_BF16 = 1u << 3,
    SQ_CPU_AVX_VNNI = 1u << 4,
    SQ_CPU_NEON = 1u << 5,        /* aarch64 baseline */
    SQ_CPU_DOTPROD = 1u << 6,
    SQ_CPU_I8MM = 1u << 7,
    SQ_CPU_FP16 = 1u << 8         /* FEAT_FP16 arithmetic */
};
uint32_t sq_cpu_features(void);
/* Names of the set bits, space separated. */
void sq_cpu_features_text(uint32_t features, char *out, size_t n);

/* ---- threads --------------------------------------------------------------------------------- */

/* A pool that runs fn over items [0, n): each thread goes through a range of its own, from the front, then
 * takes items off the ends of others', so a thread whose core is busy is helped. Small items cost little:
 * neighbours are mostly done by one thread, one after the other. The caller works too: a pool of T has T-1
 * workers. Idle workers spin for a few microseconds, then sleep on a futex (condition variable elsewhere).
 * One run at a time; runs do not nest. A run happens-before its return. `thread` is 0..T-1, for per-thread
 * scratch. */
typedef struct sq_pool sq_pool;
typedef void (*sq_pool_fn)(void *ctx, int32_t item, int32_t thread);
squish_status sq_pool_new(sq_pool **out, const squish_alloc *a, int32_t threads, squish_error *err);
void sq_pool_free(sq_pool *p);
int32_t sq_pool_threads(const sq_pool *p);
void sq_pool_run(sq_pool *p, sq_pool_fn fn, void *ctx, int32_t n_items); /* n_items <= 0: nothing */

/* The calling thread, and threads it makes from now on, work in short bursts and should get a core at once
 * when they wake, from threads that compute for long. They get no larger share of it. A wish, which Linux has
 * known since 6.12; elsewhere nothing. */
void sq_os_thread_is_brief(void);

#endif
