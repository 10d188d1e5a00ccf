/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_cgroup.c - limits of control groups, read from directories that look like a machine's. */
#include "base/os_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char root[200];

static int enter(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/squish-cgroup-XXXXXX", base ? base : P_tmpdir);
    return mkdtemp(root) ? 0 : -1;
}

static int leave(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void put(const char *path, const char *text) {
    char full[1000];
    snprintf(full, sizeof full, "%s%s", root, path);
    *strrchr(full, '/') = '\0';
    assert_int_equal(sq_os_mkdirs(full, NULL), SQUISH_OK);
    full[strlen(full)] = '/';
    FILE *f = fopen(full, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void assert_limits(int32_t cpus, uint64_t memory_max, uint64_t headroom) {
    sq_os_cgroup got;
    sq_os_cgroup_read(root, &got);
    assert_int_equal(got.cpus, cpus);
    assert_true(got.memory_max == memory_max);
    assert_true(got.memory_headroom == headroom);
}

static void put_v2_mount(void) {
    put("/proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
}

static void no_files_mean_no_limits(void **state) {
    (void)state;
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/proc/self/cgroup", "");
    put("/proc/self/mountinfo", "garbage\n - \n1 2 3\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/proc/self/cgroup", "garbage\n0:\n::\n0::/a\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
}

static void version_two_takes_the_tightest_level(void **state) {
    (void)state;
    put_v2_mount();
    put("/proc/self/cgroup", "0::/user.slice/job.scope\n");
    put("/sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n"); /* one and a half, rounded up */
    put("/sys/fs/cgroup/user.slice/memory.max", "1000000\n");
    put("/sys/fs/cgroup/user.slice/memory.current", "600000\n");
    put("/sys/fs/cgroup/user.slice/memory.stat", "anon 400000\nfile 200000\ninactive_file 100000\n");
    assert_limits(2, 1000000, 500000);
    put("/sys/fs/cgroup/user.slice/job.scope/memory.high", "800000\n");
    put("/sys/fs/cgroup/user.slice/job.scope/memory.current", "100\n");
    assert_limits(2, 800000, 500000); /* head-room and ceiling may come from different levels */
    put("/sys/fs/cgroup/user.slice/job.scope/cpu.max", "50000 100000\n");
    assert_limits(1, 800000, 500000);
    put("/sys/fs/cgroup/user.slice/memory.current", "2000000\n");
    assert_limits(1, 800000, 0);
}

static void the_root_of_a_container_has_limits_too(void **state) {
    (void)state;
    put_v2_mount();
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    put("/sys/fs/cgroup/memory.max", "2000\n");
    assert_limits(4, 2000, 2000);
}

static void put_v1(const char *group, const char *seen) {
    char text[500];
    snprintf(text, sizeof text, "12:memory:%s\n5:cpuset:%s\n4:cpu,cpuacct:%s\n1:name=systemd:/\n0::/\n",
             group, group, group);
    put("/proc/self/cgroup", text);
    snprintf(text, sizeof text,
             "31 30 0:27 %s /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
             "32 30 0:28 %s /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
             "33 30 0:29 %s /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n",
             seen, seen, seen);
    put("/proc/self/mountinfo", text);
}

static void version_one_reads_quota_and_memory(void **state) {
    (void)state;
    put_v1("/job/inner", "/");
    put("/sys/fs/cgroup/cpu,cpuacct/job/inner/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/inner/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/job/inner/memory.limit_in_bytes", "9223372036854771712\n"); /* no limit */
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "5000\n");
    put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3000\n");
    put("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
    assert_limits(2, 5000, 2500);
}

static void a_container_sees_a_part_of_the_tree(void **state) {
    (void)state;
    put_v1("/docker/abc/inner", "/docker/abc");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
    put("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "6000\n");
    put("/sys/fs/cgroup/memory/inner/memory.usage_in_bytes", "10\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300001\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_limits(4, 6000, 5990);
    put_v1("/elsewhere", "/docker/abc"); /* told from outside: fall back to what is mounted */
    assert_limits(4, 7000, 6000);
}

static void absurd_numbers_limit_nothing(void **state) {
    (void)state;
    put_v2_mount();
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "0 0\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/sys/fs/cgroup/cpu.max", "99999999999999999999 1\n");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
    put("/sys/fs/cgroup/cpu.max", "");
    assert_limits(INT32_MAX, UINT64_MAX, UINT64_MAX);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_ROOT(no_files_mean_no_limits),
        WITH_ROOT(version_two_takes_the_tightest_level),
        WITH_ROOT(the_root_of_a_container_has_limits_too),
        WITH_ROOT(version_one_reads_quota_and_memory),
        WITH_ROOT(a_container_sees_a_part_of_the_tree),
        WITH_ROOT(absurd_numbers_limit_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
