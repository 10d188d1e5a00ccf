/* SPDX-License-Identifier: Apache-2.0
 *
 * test_http_cases.c - the cases of tests/server, sent whole and sent byte by byte.
 *
 * A case is what a client sends and what must come back:
 *
 *   %case a sentence
 *   %keys one two            keys of the server; without the line: none
 *   %send                    the lines up to the next % line, each with CRLF
 *   %expect                  lines of the answer; '*' matches anything within one
 *   %open | %closed          what the connection is afterwards
 *
 * In both, "\" at the end of a line leaves out its CRLF; \r \n \t \\ \xNN are bytes; {A*200} is 200 times A.
 * %send and %expect may alternate. */
#include "support/http_run.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { CASE_TIMEOUT_MS = 5000, TEXT_MAX = 1 << 17, CASES_MAX = 400, STEPS_MAX = 12, KEYS_MAX = 4 };

typedef struct {
    bool is_send;
    sq_buf text;
} step;
typedef struct {
    char name[160], file[64];
    char keys[KEYS_MAX][64];
    size_t n_keys;
    step steps[STEPS_MAX];
    size_t n_steps;
    bool closed, whole;
} http_case;

static http_case cases[CASES_MAX];
static size_t n_cases;

static void append_line(sq_buf *b, const char *s) {
    bool crlf = true;
    for (; *s && *s != '\n'; s++) {
        unsigned byte;
        char unit;
        int count, used = 0;
        if (sscanf(s, "{%c*%d}%n", &unit, &count, &used) == 2 && used) {
            for (int i = 0; i < count; i++) sq_buf_putc(b, unit);
            s += used - 1;
        } else if (*s != '\\') {
            sq_buf_putc(b, *s);
        } else if (s[1] == '\n' || !s[1]) {
            crlf = false;
        } else {
            s++;
            if (*s == 'x' && sscanf(s + 1, "%2x", &byte) == 1)
                sq_buf_putc(b, (char)byte), s += 2;
            else
                sq_buf_putc(b, *s == 'r' ? '\r' : *s == 'n' ? '\n' : *s == 't' ? '\t' : *s);
        }
    }
    if (crlf) sq_buf_puts(b, "\r\n");
}

static void directive(http_case **c, const char *file, char *line) {
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "%case ", 6) == 0) {
        assert_true(n_cases < CASES_MAX);
        *c = &cases[n_cases++];
        snprintf((*c)->name, sizeof(*c)->name, "%.150s", line + 6);
        snprintf((*c)->file, sizeof(*c)->file, "%.60s", file);
    } else if (strncmp(line, "%keys ", 6) == 0) {
        char *save = NULL;
        for (char *k = strtok_r(line + 6, " ", &save); k; k = strtok_r(NULL, " ", &save))
            snprintf((*c)->keys[(*c)->n_keys++], 64, "%.60s", k);
    } else if (strcmp(line, "%send") == 0 || strcmp(line, "%expect") == 0) {
        assert_true((*c)->n_steps < STEPS_MAX);
        step *s = &(*c)->steps[(*c)->n_steps++];
        s->is_send = line[1] == 's';
        sq_buf_init(&s->text, NULL, TEXT_MAX);
    } else if (strcmp(line, "%closed") == 0) {
        (*c)->closed = (*c)->whole = true;
    } else if (strcmp(line, "%open") == 0) {
        (*c)->whole = true;
    } else {
        fail_msg("%s: unknown line %s", file, line);
    }
}

static void load(const char *folder, const char *file) {
    char path[300], line[4096];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    http_case *c = NULL;
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#' && (!c || c->n_steps == 0 || c->whole)) continue;
        if (line[0] == '%')
            directive(&c, file, line);
        else if (c && c->n_steps > 0 && !c->whole)
            append_line(&c->steps[c->n_steps - 1].text, line);
    }
    fclose(f);
}

/* How many bytes of got[0..n) the pattern takes, '*' never over a line's end; -1: it does not fit. more: it
 * fits as far as there are bytes. */
static ssize_t match(const char *pat, size_t pn, const char *got, size_t n, bool *more) {
    size_t p = 0, g = 0, star_p = SIZE_MAX, star_g = 0;
    while (p < pn) {
        if (pat[p] == '*') {
            star_p = ++p;
            star_g = g;
        } else if (g == n) {
            *more = true;
            return -1;
        } else if (pat[p] == got[g]) {
            if (pat[p] == '\n') star_p = SIZE_MAX;
            p++, g++;
        } else if (star_p != SIZE_MAX && got[star_g] != '\n') {
            p = star_p;
            g = ++star_g;
        } else {
            *more = false;
            return -1;
        }
    }
    return (ssize_t)g;
}

static bool expect(int fd, const sq_buf *want, sq_buf *got, const char *who) {
    for (;;) {
        bool more = false;
        const ssize_t took = match(want->data, want->len, got->data ? got->data : "", got->len, &more);
        if (took >= 0) {
            memmove(got->data, got->data + took, got->len - (size_t)took + 1);
            got->len -= (size_t)took;
            return true;
        }
        char piece[4096];
        const ssize_t n = more ? http_get(fd, piece, sizeof piece, CASE_TIMEOUT_MS) : -1;
        if (n <= 0) {
            printf("%s\n--- wanted\n%s\n--- got%s\n%s\n", who, want->data,
                   more && n == 0 ? " (and then the end)" : "", got->data ? got->data : "");
            return false;
        }
        sq_buf_append(got, piece, (size_t)n);
    }
}

static bool play(const http_case *c, int port, size_t piece) {
    const int fd = http_connect(port);
    char who[260], extra;
    snprintf(who, sizeof who, "%s: %s (%s)", c->file, c->name, piece == 1 ? "byte by byte" : "whole");
    sq_buf got;
    sq_buf_init(&got, NULL, TEXT_MAX);
    bool ok = fd >= 0;
    for (size_t i = 0; ok && i < c->n_steps; i++) {
        const step *s = &c->steps[i];
        if (s->is_send)
            http_put(fd, s->text.data, s->text.len, piece); /* a refusal may come in the middle */
        else
            ok = expect(fd, &s->text, &got, who);
    }
    if (ok && got.len) printf("%s: bytes behind the answer: %s\n", who, got.data), ok = false;
    if (ok && c->closed) {
        const ssize_t n = http_get(fd, &extra, 1, CASE_TIMEOUT_MS);
        if (n != 0) printf("%s: not closed (%zd)\n", who, n), ok = false;
    } else if (ok && http_get(fd, &extra, 1, 0) >= 0) {
        printf("%s: closed, or more bytes\n", who), ok = false;
    }
    sq_buf_deinit(&got);
    if (fd >= 0) close(fd);
    return ok;
}

static bool play_with_server(const http_case *c) {
    static http_server s;
    memset(&s, 0, sizeof s);
    sq_http_options o = http_test_options(&s);
    o.header_s = o.body_s = 0.5;
    o.hosts = (const char *const[]){"listed.example"};
    o.origins = (const char *const[]){"https://listed.example"};
    o.n_hosts = o.n_origins = 1;
    const char *keys[KEYS_MAX];
    for (size_t i = 0; i < c->n_keys; i++) keys[i] = c->keys[i];
    if (!http_start(&s, &o, keys, c->n_keys)) return false;
    const bool whole = play(c, s.port, SIZE_MAX), cut = play(c, s.port, 1);
    http_end(&s);
    return whole && cut;
}

static void run_one(void **state) { assert_true(play_with_server(*state)); }

int main(void) {
    static const char folder[] = "tests/server";
    struct dirent **list;
    const int n = scandir(folder, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (strstr(list[i]->d_name, ".case")) load(folder, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    static struct CMUnitTest tests[CASES_MAX];
    for (size_t i = 0; i < n_cases; i++)
        tests[i] = (struct CMUnitTest){cases[i].name, run_one, NULL, NULL, &cases[i]};
    const int failed = n_cases ? _cmocka_run_group_tests("http cases", tests, n_cases, NULL, NULL) : 1;
    for (size_t i = 0; i < n_cases; i++)
        for (size_t k = 0; k < cases[i].n_steps; k++) sq_buf_deinit(&cases[i].steps[k].text);
    return failed;
}
