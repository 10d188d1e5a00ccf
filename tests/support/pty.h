/* SPDX-License-Identifier: Apache-2.0
 *
 * pty.h - talking to a program in a pseudo terminal: send keys, wait for text, look at what stands there. */
#ifndef SQ_TEST_PTY_H
#define SQ_TEST_PTY_H

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int fd;
    pid_t pid;
    char seen[1 << 20]; /* everything the program wrote */
    size_t n, at;       /* at: where the next expect begins */
} pty;

static inline double pty_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Start a line of shell on a terminal of 100 columns and 30 rows. */
static inline void pty_start(pty *p, const char *line, const char *term) {
    const struct winsize size = {.ws_row = 30, .ws_col = 100};
    char full[2048];
    p->n = p->at = 0;
    p->seen[0] = 0;
    snprintf(full, sizeof full, "exec %s", line);
    p->pid = forkpty(&p->fd, NULL, NULL, &size);
    if (p->pid == 0) {
        setenv("TERM", term, 1);
        setenv("LC_ALL", "C", 1); /* the poorest there is */
        execl("/bin/sh", "sh", "-c", full, (char *)NULL);
        _exit(127);
    }
}

/* Take what the program wrote within ms; false if it has nothing more to say (it left). */
static inline bool pty_read(pty *p, int ms) {
    struct pollfd f = {.fd = p->fd, .events = POLLIN};
    if (poll(&f, 1, ms) <= 0) return true;
    if (p->n + 1 >= sizeof p->seen) return false;
    const ssize_t n = read(p->fd, p->seen + p->n, sizeof p->seen - 1 - p->n);
    if (n <= 0) return false;
    p->n += (size_t)n;
    p->seen[p->n] = 0;
    return true;
}

/* Wait until text appears after what was expected before; false after 30 seconds or if the program left
 * without it. */
static inline bool pty_expect(pty *p, const char *text) {
    const double until = pty_seconds() + 30;
    for (bool more = true;;) {
        const char *hit = strstr(p->seen + p->at, text);
        if (hit) {
            p->at = (size_t)(hit - p->seen) + strlen(text);
            return true;
        }
        if (!more || pty_seconds() > until) break;
        more = pty_read(p, 100);
    }
    printf("waited for: %s\nthere is: %s\n", text, p->seen + p->at);
    return false;
}

static inline void pty_send(pty *p, const char *keys) {
    for (size_t n = strlen(keys); n > 0;) {
        const ssize_t k = write(p->fd, keys, n < 512 ? n : 512);
        if (k < 0 && errno != EAGAIN) return;
        if (k > 0) keys += k, n -= (size_t)k;
        pty_read(p, 0); /* the echo must not fill the line */
    }
}

/* Wait for the end; exit status, or 128 + signal. Kills after 30 seconds. */
static inline int pty_wait(pty *p) {
    const double until = pty_seconds() + 30;
    int status = 0;
    while (waitpid(p->pid, &status, WNOHANG) == 0) {
        if (pty_seconds() > until) kill(p->pid, SIGKILL);
        pty_read(p, 20);
    }
    for (double end = pty_seconds() + 1; pty_seconds() < end && pty_read(p, 20);) {
        struct pollfd f = {.fd = p->fd, .events = POLLIN};
        if (poll(&f, 1, 0) <= 0) break;
    }
    close(p->fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif
