/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_sh.h - running the built program in tests, through sh: $S is the program, $T a folder of the test's own
 * that is also HOME; the store lies in $T/.squish. Nothing of the caller's configuration is seen. */
#ifndef SQ_TEST_CLI_SH_H
#define SQ_TEST_CLI_SH_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char cli_folder[256];

typedef struct {
    int status;                       /* exit status; 128 + n for signal n */
    char out[1 << 18], err[1 << 16];  /* cut at these sizes */
} cli_result;

static inline void cli_slurp(const char *name, char *out, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", cli_folder, name);
    FILE *f = fopen(path, "rb");
    const size_t got = f ? fread(out, 1, n - 1, f) : 0;
    out[got] = 0;
    if (f) fclose(f);
}

/* Run a line of shell; the result is valid until the next call. */
static inline const cli_result *sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline const cli_result *sh(const char *fmt, ...) {
    static cli_result r;
    char line[4096], full[4800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    snprintf(full, sizeof full, "{ %s\n} >'%s/.out' 2>'%s/.err' </dev/null", line, cli_folder, cli_folder);
    const int status = system(full);
    r.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    cli_slurp(".out", r.out, sizeof r.out);
    cli_slurp(".err", r.err, sizeof r.err);
    return &r;
}

/* The last run's standard output as JSON, owned by the caller; NULL and a printed reason if it is not one
 * object. */
static inline json_t *cli_json(const cli_result *r) {
    json_error_t e;
    json_t *o = json_loads(r->out, JSON_REJECT_DUPLICATES, &e);
    if (!json_is_object(o)) printf("no JSON object (%s): %s\nstandard error: %s\n", e.text, r->out, r->err);
    return o;
}

static inline void cli_write(const char *name, const void *bytes, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", cli_folder, name);
    FILE *f = fopen(path, "wb");
    if (f) fwrite(bytes, 1, n, f), fclose(f);
}

/* Address-space limits can be tested: a program built with a sanitizer reserves terabytes and cannot start
 * under one. */
static inline bool cli_limits_work(void) {
    if (sh("ulimit -v 1000000; $S --version")->status == 0) return true;
    printf("skipped: a sanitizer's address space does not fit a limit\n");
    return false;
}

/* Environment and folder; returns 0 when the shipped model is ready (another test may be building its tier
 * just now). */
static inline int cli_begin(void **state) {
    (void)state;
    char bin[4096], *full;
    const char *given = getenv("SQUISH_BIN");
    snprintf(bin, sizeof bin, "%s", given ? given : "build/squish");
    full = realpath(bin, NULL);
    if (!full) {
        printf("%s: build the program first, or set SQUISH_BIN\n", bin);
        return 1;
    }
    snprintf(cli_folder, sizeof cli_folder, "/tmp/squish-cli-XXXXXX");
    if (!mkdtemp(cli_folder)) return 1;
    for (char **e = environ; *e;) {
        char name[64] = "";
        if (strncmp(*e, "SQUISH_", 7) == 0 && strncmp(*e, "SQUISH_TESTDATA", 15) != 0)
            snprintf(name, sizeof name, "%.*s", (int)strcspn(*e, "="), *e);
        if (*name) unsetenv(name), e = environ;
        else e++;
    }
    setenv("S", full, 1);
    setenv("T", cli_folder, 1);
    setenv("HOME", cli_folder, 1);
    unsetenv("NO_COLOR");
    free(full);
    return sh("i=0; while ! $S compress squish-tiny; do i=$((i + 1)); [ $i -lt 240 ] || exit 1; sleep 0.5; "
              "done")
        ->status;
}

/* A model of the first two layers of squish-tiny in $T/NAME, by links: for what does not ask what it says. */
static inline void cli_few_layers(const char *name) {
    const cli_result *r =
        sh("m=$PWD/models/squish-tiny && mkdir -p $T/%s && cd $T/%s && ln -s \"$m\"/* . && "
           "rm config.json heads.sqh && sed 's/\"num_hidden_layers\": *[0-9]*/\"num_hidden_layers\": 2/' "
           "\"$m/config.json\" >config.json",
           name, name);
    if (r->status != 0) printf("%s: %s\n", name, r->err);
}

static inline int cli_end(void **state) {
    (void)state;
    return system("chmod -R u+w \"$T\" && rm -rf \"$T\"");
}

#endif
