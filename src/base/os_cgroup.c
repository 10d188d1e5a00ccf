/* SPDX-License-Identifier: Apache-2.0
 *
 * os_cgroup.c - limits that containers and services put on a process: control groups, version 1 and 2.
 *
 * /proc/self/cgroup tells in which group we are, /proc/self/mountinfo where the hierarchy is mounted and
 * which part of it ("root") one sees there. A limit may stand on any level from our group up to the mount, so
 * all are read and the tightest counts. Plain file reading, so that tests can give a directory instead of a
 * machine. */
#include "base/os_int.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 1024, DIR_BYTES = 1024, FILE_BYTES = DIR_BYTES + 64 };

/* Lines of a text file without stdio's buffers; a longer line is cut. */
typedef struct {
    int fd;
    size_t at, end;
    char chunk[2048];
} lines;

static bool next_line(lines *in, char out[LINE_BYTES]) {
    size_t n = 0;
    bool any = false;
    for (;;) {
        if (in->at == in->end) {
            ssize_t got = read(in->fd, in->chunk, sizeof in->chunk);
            if (got <= 0) break;
            in->at = 0;
            in->end = (size_t)got;
        }
        any = true;
        char c = in->chunk[in->at++];
        if (c == '\n') break;
        if (n < LINE_BYTES - 1) out[n++] = c;
    }
    out[n] = '\0';
    return any;
}

/* Is word one of the comma-separated items of list (n bytes)? */
static bool has_item(const char *list, size_t n, const char *word) {
    size_t w = strlen(word);
    for (size_t i = 0; i < n;) {
        const char *comma = memchr(list + i, ',', n - i);
        size_t item = comma ? (size_t)(comma - list) - i : n - i;
        if (item == w && memcmp(list + i, word, w) == 0) return true;
        i += item + 1;
    }
    return false;
}

/* Our group in a v1 controller's hierarchy, or in v2 (controller ""), from lines "id:controllers:path". */
static bool own_group(const char *root, const char *controller, char path[LINE_BYTES]) {
    char name[DIR_BYTES], line[LINE_BYTES];
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    lines in = {.fd = open(name, O_RDONLY | O_CLOEXEC)};
    if (in.fd < 0) return false;
    bool found = false;
    while (!found && next_line(&in, line)) {
        char *first = strchr(line, ':');
        char *second = first ? strchr(first + 1, ':') : NULL;
        if (!second) continue;
        size_t n = (size_t)(second - first) - 1;
        found = controller[0] ? has_item(first + 1, n, controller) : n == 0;
        if (found) memcpy(path, second + 1, strlen(second + 1) + 1);
    }
    close(in.fd);
    return found;
}

/* Where the hierarchy is mounted and which directory of it is seen there. mountinfo has lines
 * "36 35 0:30 <root> <mount point> <options> ... - <type> <source> <super options, v1: controllers>". */
static bool find_mount(const char *root, const char *controller, char seen[LINE_BYTES],
                       char point[LINE_BYTES]) {
    char name[DIR_BYTES], line[LINE_BYTES];
    snprintf(name, sizeof name, "%s/proc/self/mountinfo", root);
    lines in = {.fd = open(name, O_RDONLY | O_CLOEXEC)};
    if (in.fd < 0) return false;
    bool found = false;
    while (!found && next_line(&in, line)) {
        const char *tail = strstr(line, " - ");
        char type[32], super[LINE_BYTES];
        if (!tail || sscanf(tail, " - %31s %*s %1023s", type, super) != 2) continue;
        bool wanted = controller[0]
                          ? strcmp(type, "cgroup") == 0 && has_item(super, strlen(super), controller)
                          : strcmp(type, "cgroup2") == 0;
        found = wanted && sscanf(line, "%*s %*s %*s %1023s %1023s", seen, point) == 2;
    }
    close(in.fd);
    return found;
}

/* First directory to look at (our group) and the length of the mount point, where climbing ends. */
static bool group_dir(const char *root, const char *controller, char dir[DIR_BYTES], size_t *top) {
    char path[LINE_BYTES], seen[LINE_BYTES], point[LINE_BYTES];
    if (!own_group(root, controller, path) || !find_mount(root, controller, seen, point)) return false;
    /* In a container the mount shows a part of the tree; the group's path may be told from the outer root. */
    size_t n = strcmp(seen, "/") == 0 ? 0 : strlen(seen);
    const char *below = strncmp(path, seen, n) == 0 && (path[n] == '/' || path[n] == '\0') ? path + n : "";
    if (strcmp(below, "/") == 0) below = "";
    *top = strlen(root) + strlen(point);
    return snprintf(dir, DIR_BYTES, "%s%s%s", root, point, below) < DIR_BYTES;
}

/* One level up, unless dir is the mount point. */
static bool climb(char dir[DIR_BYTES], size_t top) {
    char *slash = strlen(dir) > top ? strrchr(dir + top, '/') : NULL;
    if (slash) *slash = '\0';
    return slash != NULL;
}

static bool read_in(const char *dir, const char *file, char *out, size_t n) {
    char name[FILE_BYTES];
    snprintf(name, sizeof name, "%s/%s", dir, file);
    return sq_os_read_text(name, out, n) > 0;
}

/* A file with one number; UINT64_MAX where there is none, or "max", or a negative one. */
static uint64_t number_in(const char *dir, const char *file) {
    char text[64];
    if (!read_in(dir, file, text, sizeof text) || text[0] < '0' || text[0] > '9') return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* The number after "key " at the start of a line of memory.stat; 0 if absent. */
static uint64_t stat_in(const char *dir, const char *key) {
    char text[8192];
    size_t n = strlen(key);
    if (!read_in(dir, "memory.stat", text, sizeof text)) return 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, n) == 0 && line[n] == ' ') return strtoull(line + n, NULL, 10);
    }
    return 0;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void limit_cpus(sq_os_cgroup *out, uint64_t quota, uint64_t period) {
    if (quota == 0 || quota == UINT64_MAX || period == 0 || period == UINT64_MAX) return;
    uint64_t cpus = quota / period + (quota % period != 0);
    if (cpus < (uint64_t)out->cpus) out->cpus = (int32_t)cpus;
}

static void limit_memory(sq_os_cgroup *out, uint64_t max, uint64_t used, uint64_t droppable) {
    if (max == UINT64_MAX) return;
    uint64_t kept = used == UINT64_MAX ? 0 : used > droppable ? used - droppable : 0;
    out->memory_max = least(out->memory_max, max);
    out->memory_headroom = least(out->memory_headroom, max > kept ? max - kept : 0);
}

static void read_v2(const char *root, sq_os_cgroup *out) {
    char dir[DIR_BYTES], text[64];
    size_t top;
    if (!group_dir(root, "", dir, &top)) return;
    do {
        uint64_t period = 0;
        char *rest;
        if (read_in(dir, "cpu.max", text, sizeof text) && text[0] != 'm') { /* "max 100000": no quota */
            uint64_t quota = strtoull(text, &rest, 10);
            period = strtoull(rest, NULL, 10);
            limit_cpus(out, quota, period);
        }
        uint64_t max = least(number_in(dir, "memory.max"), number_in(dir, "memory.high"));
        if (max != UINT64_MAX)
            limit_memory(out, max, number_in(dir, "memory.current"), stat_in(dir, "inactive_file"));
    } while (climb(dir, top));
}

static void read_v1(const char *root, sq_os_cgroup *out) {
    char dir[DIR_BYTES];
    size_t top;
    if (group_dir(root, "cpu", dir, &top)) {
        do
            limit_cpus(out, number_in(dir, "cpu.cfs_quota_us"), number_in(dir, "cpu.cfs_period_us"));
        while (climb(dir, top));
    }
    if (!group_dir(root, "memory", dir, &top)) return;
    do {
        uint64_t max = number_in(dir, "memory.limit_in_bytes");
        if (max >= (uint64_t)INT64_MAX / 2) continue; /* how v1 writes "no limit" */
        limit_memory(out, max, number_in(dir, "memory.usage_in_bytes"), stat_in(dir, "total_inactive_file"));
    } while (climb(dir, top));
}

void sq_os_cgroup_read(const char *root, sq_os_cgroup *out) {
    *out = (sq_os_cgroup){INT32_MAX, UINT64_MAX, UINT64_MAX};
    read_v2(root, out);
    read_v1(root, out);
}
