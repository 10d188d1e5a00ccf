/* SPDX-License-Identifier: Apache-2.0
 *
 * base_service.c - the service manager: sockets that it listens on already (sd_listen_fds(3)),
 * and what it wants to hear (sd_notify(3)). Both protocols are environment variables and a datagram, and
 * stable; nothing is linked for them. */
#include "base/base_service.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

/* A whole number of the environment, 0 where it is none. */
static uint64_t number(const char *name) {
    const char *text = getenv(name);
    char *end = NULL;
    if (!text || *text < '0' || *text > '9') return 0;
    errno = 0;
    const unsigned long long v = strtoull(text, &end, 10);
    return *end || errno ? 0 : v;
}

squish_status sq_service_sockets(sq_service_socket *out, int32_t max, int32_t *n, squish_error *err) {
    *n = 0;
    if (number("LISTEN_PID") != (uint64_t)getpid()) return SQUISH_OK;
    const uint64_t count = number("LISTEN_FDS");
    if (count > (uint64_t)max)
        return sq_fail(err, SQUISH_INVALID,
                       "the service manager hands over %llu sockets, at most %d are taken",
                       (unsigned long long)count, max);
    const char *name = getenv("LISTEN_FDNAMES");
    for (int32_t i = 0; i < (int32_t)count; i++) {
        out[i] = (sq_service_socket){.fd = FIRST_FD + i};
        const size_t length = name ? strcspn(name, ":") : 0;
        if (name) snprintf(out[i].name, sizeof out[i].name, "%.*s", (int)length, name);
        if (name) name = name[length] ? name + length + 1 : NULL;
        const int flags = fcntl(out[i].fd, F_GETFD);
        if (flags < 0 || fcntl(out[i].fd, F_SETFD, flags | FD_CLOEXEC) != 0)
            return sq_fail_errno(err, errno, "socket %d of the service manager", out[i].fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    *n = (int32_t)count;
    return SQUISH_OK;
}

void sq_service_say(const char *lines) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof to.sun_path || (*path != '/' && *path != '@')) return;
    memcpy(to.sun_path, path, n);
    if (*path == '@') to.sun_path[0] = '\0'; /* a name that is no file */
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    /* Who manages services and does not listen learns nothing; that is no fault of ours. */
    (void)sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
    close(fd);
}

uint64_t sq_service_watchdog_ns(void) {
    const uint64_t pid = number("WATCHDOG_PID"), us = number("WATCHDOG_USEC");
    if (pid && pid != (uint64_t)getpid()) return 0;
    return us > UINT64_MAX / 1000 ? 0 : us * 1000;
}
