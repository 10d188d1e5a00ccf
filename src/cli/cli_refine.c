/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_refine.c - building a 4-bit tier in two steps where one would take long: rounding is published within
 * seconds and runs at once, least squares replaces it later.
 *
 * The second step is this program again, started apart from the terminal with a lower priority; it publishes
 * as every build does, so whoever runs the first tier keeps it until they open the model again. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a process of its own -------------------------------------------------------------------- */

enum { ARGS_MAX = 40 };

/* The command line that refines what o describes; strings in the arena. */
static bool command_line(cli *c, const char *src, const squish_compress_options *o, const char *exe,
                         const char *args[ARGS_MAX]) {
    char bits[16], group[16], threads[16];
    snprintf(bits, sizeof bits, "%d", o->bits ? o->bits : 4);
    snprintf(group, sizeof group, "%d", o->group);
    snprintf(threads, sizeof threads, "%d", o->threads);
    const char *const fixed[] = {exe,    "compress",  src,     "--tier",   "0",       "--bits",
                                 bits,   "--group",   group,   "--method", "lsq",     "--refine",
                                 "wait", "--threads", threads, "--resume", "--quiet", NULL};
    int n = 0;
    for (size_t i = 0; fixed[i]; i++) args[n++] = sq_arena_strndup(&c->arena, fixed[i], strlen(fixed[i]));
    if (o->out_dir) args[n++] = "-o", args[n++] = o->out_dir;
    if (o->home) args[n++] = "--home", args[n++] = o->home;
    if (o->calibration) args[n++] = "--calib", args[n++] = o->calibration;
    if (o->requantise) args[n++] = "--requantise";
    if (o->unchecked) args[n++] = "--unchecked";
    if (o->allow_collapsed) args[n++] = "--allow-collapsed";
    args[n] = NULL;
    for (int i = 0; i < n; i++)
        if (!args[i]) return false;
    return true;
}

/* In the child: away from the terminal, output to the log. Does not return. */
static void become(const char *const *args, const char *log) {
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(127);
    if (nice(10) == -1) { /* then it runs as eagerly as others */
    }
    execv(args[0], (char *const *)(uintptr_t)args);
    _exit(127);
}

/* Start it as nobody's child. Returns its process id, 0 on failure. No thread may be running. */
static int32_t start_apart(const char *const *args, const char *log) {
    int pipe_fd[2];
    int32_t pid = 0;
    if (pipe(pipe_fd) != 0) return 0;
    const pid_t between = fork();
    if (between == 0) {
        close(pipe_fd[0]);
        setsid();
        const pid_t last = fork();
        if (last == 0) {
            close(pipe_fd[1]);
            become(args, log);
        }
        const int32_t id = last > 0 ? (int32_t)last : 0;
        _exit(write(pipe_fd[1], &id, sizeof id) == (ssize_t)sizeof id ? 0 : 1);
    }
    close(pipe_fd[1]);
    if (between > 0) {
        if (read(pipe_fd[0], &pid, sizeof pid) != (ssize_t)sizeof pid) pid = 0;
        waitpid(between, NULL, 0);
    }
    close(pipe_fd[0]);
    return pid;
}

static int32_t refine_later(cli *c, const char *src, const squish_compress_options *o,
                            const char *tier_file) {
    char exe[4096], log[1200];
    const char *args[ARGS_MAX], *slash = strrchr(tier_file, '/');
    if (!slash || !sq_os_exe_path(exe, sizeof exe) || !command_line(c, src, o, exe, args)) return 0;
    snprintf(log, sizeof log, "%.*s/refine.log", (int)(slash - tier_file), tier_file);
    const int32_t pid = start_apart(args, log);
    if (pid)
        cli_note(c, "squish: process %d makes it better and then replaces it (log: %s)", pid, log);
    else
        cli_note(c, "squish: no process could be started to refine it (squish compress %s --refine wait)",
                 src);
    return pid;
}

/* ---- one step or two ------------------------------------------------------------------------- */

static bool is_ready(const char *src, const squish_compress_options *o) {
    squish_text file = {0};
    bool ready = false;
    if (squish_tier_path(src, o, &file, &ready, NULL) != SQUISH_OK) ready = false;
    squish_text_free(&file);
    return ready;
}

/* Worth two steps: least squares, nothing there yet, and long. */
static bool in_two_steps(const cli *c, const char *src, const squish_compress_options *o) {
    squish_compress_estimate e;
    char size[32];
    if (o->tier != SQUISH_TIER_0 || o->method != SQUISH_METHOD_LSQ || o->bits == 1 || o->force) return false;
    if (strcmp(cli_text(c, OPT_REFINE), "off") == 0 || is_ready(src, o)) return false;
    if (squish_compress_expect(src, o, &e, NULL) != SQUISH_OK || e.gb_per_s <= 0) return false;
    if (e.seconds > 5)
        cli_note(c, "squish: %s of weights, about %.0f s at %.2f GB/s", cli_bytes(e.source_bytes, size),
                 e.seconds, e.gb_per_s);
    return e.seconds > (double)cli_int(c, OPT_REFINE_AFTER);
}

squish_status cli_build(cli *c, const char *src, const squish_compress_options *o, squish_compress_result *r,
                        int32_t *pid, squish_error *err) {
    squish_compress_options first = *o, then = *o;
    *pid = 0;
    if (!in_two_steps(c, src, o)) {
        first.refine = first.refine || (c->values[OPT_REFINE].origin == CLI_FROM_FLAG &&
                                        strcmp(cli_text(c, OPT_REFINE), "wait") == 0);
        return squish_compress(src, &first, r, err);
    }
    first.method = SQUISH_METHOD_RTN;
    first.calibration = NULL;
    SQ_TRY(squish_compress(src, &first, r, err));
    cli_note(c, "squish: %s is ready to use, rounded", r->file);
    /* Another process would find its checkpoint gone. */
    const bool drops = c->id == CLI_COMPRESS && cli_flag(c, OPT_DROP_SOURCE);
    if (strcmp(cli_text(c, OPT_REFINE), "wait") != 0 && !drops) {
        *pid = refine_later(c, src, o, r->file);
        return SQUISH_OK;
    }
    then.refine = true;
    return squish_compress(src, &then, r, err);
}
