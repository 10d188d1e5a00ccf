/* SPDX-License-Identifier: Apache-2.0
 *
 * os_linux.c - what only Linux answers: /proc, futex, affinity, hardware capabilities. */
#ifdef __linux__

#include "base/os_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- sleeping on a word ---------------------------------------------------------------------- */

bool sq_os_gate_init(sq_os_gate *g) {
    atomic_init(&g->value, 0);
    return true;
}

void sq_os_gate_deinit(sq_os_gate *g) {
    (void)g;
}

void sq_os_gate_wait(sq_os_gate *g, uint32_t seen) {
    syscall(SYS_futex, &g->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void sq_os_gate_wake(sq_os_gate *g, int32_t n) {
    syscall(SYS_futex, &g->value, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* ---- threads --------------------------------------------------------------------------------- */

/* The kernel's struct sched_attr, which not every C library declares. */
typedef struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
} sched_attributes;

/* The fair scheduler runs who has the earliest virtual deadline, which lies a slice ahead: one shorter than
 * the usual 1.4 ms and more lets a waking thread pass by (Stoica and Abdel-Wahab, "Earliest eligible virtual
 * deadline first", 1995). Whoever is interrupted at its end may wait for a tick, so it must not be shorter
 * than a burst. */
void sq_os_thread_is_brief(void) {
    enum { SLICE_NS = 500000 };
    sched_attributes a = {.size = sizeof a};
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0 || a.policy != SCHED_OTHER) return;
    a.runtime_ns = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &a, 0);
}

/* ---- files ----------------------------------------------------------------------------------- */

uint64_t sq_os_mtime_ns(const struct stat *st) {
    return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

int sq_os_sync_fd(int fd) {
    while (fsync(fd) != 0)
        if (errno != EINTR) return errno;
    return 0;
}

int sq_os_preallocate(int fd, uint64_t bytes) {
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) != 0) {
        if (errno == EOPNOTSUPP || errno == ENOSYS) return 0;
        if (errno != EINTR) return errno;
    }
    return 0;
}

void sq_os_discard(void *p, size_t bytes) {
    if (p && bytes) (void)madvise(p, bytes, MADV_DONTNEED);
}

/* And look at each page once: the processor's first way to it is a long one, 30 ms of the first step on 870
 * MB. */
void sq_os_populate(const void *p, size_t bytes) {
    enum { POPULATE_READ = 22 }; /* MADV_POPULATE_READ of Linux 5.14 */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)p / page * page;
    if (!p || bytes == 0) return;
    if (madvise((void *)from, (uintptr_t)p + bytes - from, POPULATE_READ) == 0) return;
    for (size_t at = 0; at < bytes; at += page) (void)((const volatile uint8_t *)p)[at];
}

void sq_os_huge_pages(void *p, size_t bytes) { (void)madvise(p, bytes, MADV_HUGEPAGE); }

bool sq_os_exe_path(char *out, size_t n) {
    ssize_t got = readlink("/proc/self/exe", out, n - 1);
    if (got < 0 || (size_t)got >= n - 1) got = 0; /* cut is as good as unknown */
    out[got] = '\0';
    return got > 0;
}

/* ---- processor ------------------------------------------------------------------------------- */

int32_t sq_os_cores(void) {
    cpu_set_t set;
    long n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    sq_os_cgroup limits;
    sq_os_cgroup_read("", &limits);
    if (n > limits.cpus) n = limits.cpus;
    return n < 1 ? 1 : (int32_t)n;
}

void sq_os_wake_first(void) {
    struct { /* struct sched_attr, which not every libc has */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a;
    if (syscall(SYS_sched_getattr, 0, &a, sizeof a, 0) != 0 || a.policy != SCHED_OTHER) return;
    a.runtime = 100000; /* ns, the least there is */
    (void)syscall(SYS_sched_setattr, 0, &a, 0);
}

uint32_t sq_os_arm_features(void) {
    /* Bit numbers of the kernel's ABI (arch/arm64 hwcap), written out so that this file builds everywhere. */
    const unsigned long asimdhp = 1ul << 10, asimddp = 1ul << 20, i8mm_2 = 1ul << 13;
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    return SQ_CPU_NEON | (caps & asimddp ? SQ_CPU_DOTPROD : 0u) | (caps2 & i8mm_2 ? SQ_CPU_I8MM : 0u) |
           (caps & asimdhp ? SQ_CPU_FP16 : 0u);
}

/* Value of the first line "key<blanks>:<blanks>value" in text; NULL if there is none. */
static const char *value_of(const char *text, const char *key) {
    size_t n = strlen(key);
    for (const char *line = text; line && *line;) {
        if (strncmp(line, key, n) == 0) {
            const char *p = line + n;
            p += strspn(p, " \t");
            if (*p == ':') return p + 1 + strspn(p + 1, " \t");
        }
        line = strchr(line, '\n');
        if (line) line++;
    }
    return NULL;
}

void sq_os_cpu_name(char *out, size_t n) {
    char text[4096];
    sq_os_read_text("/proc/cpuinfo", text, sizeof text);
    const char *name = value_of(text, "model name"); /* absent on most ARM machines */
    struct utsname u;
    if (name && *name != '\n')
        snprintf(out, n, "%.*s", (int)strcspn(name, "\n"), name);
    else
        snprintf(out, n, "%s", uname(&u) == 0 ? u.machine : "unknown");
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* A line "key: number kB" of a /proc file, in bytes; 0 if absent. */
static uint64_t proc_kb(const char *path, const char *key) {
    char text[8192];
    sq_os_read_text(path, text, sizeof text);
    const char *value = value_of(text, key);
    return value ? strtoull(value, NULL, 10) * 1024 : 0;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

uint64_t sq_os_memory_total(void) {
    sq_os_cgroup limits;
    sq_os_cgroup_read("", &limits);
    return least(proc_kb("/proc/meminfo", "MemTotal"), limits.memory_max);
}

/* Address space this process may still map; UINT64_MAX: not limited. */
static uint64_t address_space_left(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    uint64_t used = proc_kb("/proc/self/status", "VmSize");
    return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

uint64_t sq_os_memory_available(void) {
    sq_os_cgroup limits;
    sq_os_cgroup_read("", &limits);
    uint64_t machine = proc_kb("/proc/meminfo", "MemAvailable");
    return least(least(machine, limits.memory_headroom), address_space_left());
}

uint64_t sq_os_rss_anon(void) {
    return proc_kb("/proc/self/status", "RssAnon");
}

uint64_t sq_os_rss_anon_peak(void) {
    return proc_kb("/proc/self/status", "VmHWM");
}

#endif
