/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_signal.c - Ctrl-C. The handler only stores flags (squish_seq_cancel does no more). */
#include "cli/cli.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* A handler has no argument to carry its state. */
static volatile sig_atomic_t seen;
static _Atomic(squish_seq *) watched;
typedef void (*leave_fn)(void);
static _Atomic(leave_fn) conversation;

static void on_interrupt(int sig) {
    squish_seq *s = atomic_load(&watched);
    const leave_fn leave = atomic_load(&conversation);
    if (leave && sig == SIGTERM) {
        leave();
        _exit(128 + SIGTERM);
    }
    if (seen && !leave) _exit(130); /* the second time means now */
    seen = 1;
    if (s) squish_seq_cancel(s);
}

void cli_signal_install(void) {
    struct sigaction a = {.sa_handler = on_interrupt};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

void cli_signal_converse(void (*leave)(void)) { atomic_store(&conversation, leave); }
void cli_signal_watch(squish_seq *s) { atomic_store(&watched, s); }
bool cli_signal_seen(void) { return seen; }
void cli_signal_clear(void) { seen = 0; }
