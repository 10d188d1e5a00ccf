/* SPDX-License-Identifier: Apache-2.0
 *
 * os_int.h - what os_posix.c, base_pool.c and base_cpu.c need from the operating system at hand. */
#ifndef SQ_OS_INT_H
#define SQ_OS_INT_H

#include "base/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* A 32-bit word one can sleep on. Linux sleeps in the kernel on the word itself; elsewhere lock and moved
 * serve. */
typedef struct {
    _Atomic uint32_t value;
    pthread_mutex_t lock;
    pthread_cond_t moved;
} sq_os_gate;
bool sq_os_gate_init(sq_os_gate *g);
void sq_os_gate_deinit(sq_os_gate *g);
/* Sleep while value == seen. May return early; the caller looks again. */
void sq_os_gate_wait(sq_os_gate *g, uint32_t seen);
/* Wake up to n sleepers. Call after changing value. */
void sq_os_gate_wake(sq_os_gate *g, int32_t n);

uint64_t sq_os_mtime_ns(const struct stat *st);
int sq_os_sync_fd(int fd);         /* down to the medium; 0 or an errno value */
/* Claim disk space, the file's size unchanged. 0, also where there is no such call, or an errno value. */
int sq_os_preallocate(int fd, uint64_t bytes);
uint32_t sq_os_arm_features(void); /* SQ_CPU_* bits; asked on aarch64 only */

/* Limits of the control groups (v1 and v2, whichever is mounted) this process lives in, the tightest of all
 * levels. */
typedef struct {
    int32_t cpus;             /* quota rounded up; INT32_MAX: none */
    uint64_t memory_max;      /* bytes; UINT64_MAX: none */
    uint64_t memory_headroom; /* bytes until the tightest level is full; droppable page cache is not use */
} sq_os_cgroup;
/* root is put in front of every path read: "" for this machine, a directory in tests. */
void sq_os_cgroup_read(const char *root, sq_os_cgroup *out);

/* Small text file (/proc, /sys) into out, NUL-terminated, cut at n - 1 bytes. Its length; -1: no file. */
long sq_os_read_text(const char *path, char *out, size_t n);

#endif
