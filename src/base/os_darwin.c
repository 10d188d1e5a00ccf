/* SPDX-License-Identifier: Apache-2.0
 *
 * os_darwin.c - what only macOS answers: sysctl, Mach statistics, full sync. Kept compilable; not tested on
 * every change as Linux is. */
#ifdef __APPLE__

#include "base/os_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mach-o/dyld.h>
#include <mach/mach.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <unistd.h>

/* ---- sleeping on a word ---------------------------------------------------------------------- */

bool sq_os_gate_init(sq_os_gate *g) {
    atomic_init(&g->value, 0);
    if (pthread_mutex_init(&g->lock, NULL) != 0) return false;
    if (pthread_cond_init(&g->moved, NULL) == 0) return true;
    pthread_mutex_destroy(&g->lock);
    return false;
}

void sq_os_gate_deinit(sq_os_gate *g) {
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
}

void sq_os_gate_wait(sq_os_gate *g, uint32_t seen) {
    pthread_mutex_lock(&g->lock);
    while (atomic_load(&g->value) == seen) pthread_cond_wait(&g->moved, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

void sq_os_gate_wake(sq_os_gate *g, int32_t n) {
    pthread_mutex_lock(&g->lock); /* a sleeper between its look and its sleep holds the lock */
    if (n == 1)
        pthread_cond_signal(&g->moved);
    else
        pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

/* ---- threads --------------------------------------------------------------------------------- */

void sq_os_thread_is_brief(void) {}

/* ---- files ----------------------------------------------------------------------------------- */

uint64_t sq_os_mtime_ns(const struct stat *st) {
    return (uint64_t)st->st_mtimespec.tv_sec * 1000000000u + (uint64_t)st->st_mtimespec.tv_nsec;
}

int sq_os_sync_fd(int fd) {
    if (fcntl(fd, F_FULLFSYNC) == 0) return 0; /* fsync alone stops at the drive's cache */
    while (fsync(fd) != 0)
        if (errno != EINTR) return errno;
    return 0;
}

int sq_os_preallocate(int fd, uint64_t bytes) {
    fstore_t want = {.fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE, .fst_length = (off_t)bytes};
    if (fcntl(fd, F_PREALLOCATE, &want) == 0 || errno == ENOTSUP || errno == EINVAL) return 0;
    return errno;
}

void sq_os_discard(void *p, size_t bytes) {
    /* MADV_DONTNEED keeps contents here; a fresh mapping in the same place does not. */
    if (p && bytes) (void)mmap(p, bytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANON, -1, 0);
}

void sq_os_populate(const void *p, size_t bytes) {
    const uintptr_t page = (uintptr_t)getpagesize(), from = (uintptr_t)p / page * page;
    if (p && bytes) (void)madvise((void *)from, (uintptr_t)p + bytes - from, MADV_WILLNEED);
}

void sq_os_huge_pages(void *p, size_t bytes) {
    (void)p; /* 16 KiB is what there is */
    (void)bytes;
}

bool sq_os_exe_path(char *out, size_t n) {
    char path[PATH_MAX], real[PATH_MAX];
    uint32_t bytes = sizeof path;
    out[0] = '\0';
    if (_NSGetExecutablePath(path, &bytes) != 0 || !realpath(path, real) || strlen(real) >= n) return false;
    memcpy(out, real, strlen(real) + 1);
    return true;
}

/* ---- processor ------------------------------------------------------------------------------- */

/* An integer of sysctl, of 4 or 8 bytes; 0 if there is no such name. */
static uint64_t sysctl_number(const char *name) {
    uint64_t value = 0; /* little-endian: a 4-byte answer fills the low half */
    size_t bytes = sizeof value;
    return sysctlbyname(name, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

int32_t sq_os_cores(void) {
    uint64_t n = sysctl_number("hw.activecpu");
    return n < 1 || n > INT32_MAX ? 1 : (int32_t)n;
}

void sq_os_wake_first(void) {}

uint32_t sq_os_arm_features(void) {
    return SQ_CPU_NEON | (sysctl_number("hw.optional.arm.FEAT_DotProd") ? SQ_CPU_DOTPROD : 0u) |
           (sysctl_number("hw.optional.arm.FEAT_I8MM") ? SQ_CPU_I8MM : 0u) |
           (sysctl_number("hw.optional.arm.FEAT_FP16") ? SQ_CPU_FP16 : 0u);
}

void sq_os_cpu_name(char *out, size_t n) {
    size_t bytes = n;
    if (sysctlbyname("machdep.cpu.brand_string", out, &bytes, NULL, 0) != 0) snprintf(out, n, "unknown");
    out[n - 1] = '\0';
}

/* ---- memory ---------------------------------------------------------------------------------- */

uint64_t sq_os_memory_total(void) {
    return sysctl_number("hw.memsize");
}

uint64_t sq_os_memory_available(void) {
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    mach_port_t host = mach_host_self();
    kern_return_t rc = host_statistics64(host, HOST_VM_INFO64, (host_info64_t)&vm, &count);
    mach_port_deallocate(mach_task_self(), host);
    if (rc != KERN_SUCCESS) return 0;
    uint64_t pages = (uint64_t)vm.free_count + vm.inactive_count + vm.purgeable_count;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static bool task_memory(task_vm_info_data_t *info) {
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    return task_info(mach_task_self(), TASK_VM_INFO, (task_info_t)info, &count) == KERN_SUCCESS;
}

uint64_t sq_os_rss_anon(void) {
    task_vm_info_data_t info;
    return task_memory(&info) ? info.internal : 0;
}

uint64_t sq_os_rss_anon_peak(void) {
    task_vm_info_data_t info;
    return task_memory(&info) ? info.internal_peak : 0;
}

#endif
