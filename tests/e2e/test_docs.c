/* SPDX-License-Identifier: Apache-2.0
 *
 * test_docs.c - every command line of README.md and docs is one that the program takes: its command is there,
 * and every option with its value. Each is run with --help behind it, so that all of it is read and nothing
 * is done; lines of the README that need no model of the reader's are run as they stand. */
#include "support/cli_sh.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LINES_MAX = 600 };
static struct { char text[400], where[64]; } lines[LINES_MAX];
static size_t n_lines;

/* "squish ..." up to what no shell would hand to it; the rest of the line is not ours. */
static void add(const char *s, size_t n, const char *file, int number, bool span) {
    if (n > 13 && strncmp(s, "build/squish ", 13) == 0) s += 6, n -= 6;
    if (n < 8 || strncmp(s, "squish ", 7) != 0) return;
    size_t end = 7;
    bool quoted = false;
    for (; end < n; end++) {
        if (s[end] == '"') quoted = !quoted;
        if (quoted) continue;
        if (strchr("#|<>&;[(", s[end]) || strncmp(s + end, "...", 3) == 0) break;
        if (!span && s[end] == ' ' && s[end + 1] == ' ') break; /* a remark behind it */
    }
    const bool pattern = s[7] >= 'A' && s[7] <= 'Z';
    if (pattern || (end < n && (s[end] == '[' || s[end] == '.'))) return;
    if (end >= sizeof lines[0].text || n_lines == LINES_MAX) return;
    snprintf(lines[n_lines].text, sizeof lines[0].text, "%.*s", (int)(end - 7), s + 7);
    snprintf(lines[n_lines++].where, sizeof lines[0].where, "%.50s:%d", file, number);
}

static void collect(const char *file) {
    char line[8192];
    FILE *f = fopen(file, "rb");
    bool fenced = false;
    assert_non_null(f);
    for (int number = 1; fgets(line, sizeof line, f); number++) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "```", 3) == 0) fenced = !fenced;
        const size_t blank = strspn(line, " ");
        if (fenced || blank >= 4) add(line + blank, strlen(line + blank), file, number, false);
        for (char *p = fenced ? NULL : strchr(line, '`'); p;) {
            char *end = strchr(p + 1, '`');
            if (!end) break;
            add(p + 1, (size_t)(end - p - 1), file, number, true);
            p = strchr(end + 1, '`');
        }
    }
    fclose(f);
}

static void every_command_line_is_one(void **state) {
    (void)state;
    glob_t g;
    int bad = 0;
    collect("README.md");
    assert_int_equal(glob("docs/*.md", 0, NULL, &g), 0);
    for (size_t i = 0; i < g.gl_pathc; i++) collect(g.gl_pathv[i]);
    globfree(&g);
    for (size_t i = 0; i < n_lines; i++) {
        /* Flags of the program itself have no page of theirs. */
        const bool own = strncmp(lines[i].text, "--", 2) == 0;
        const cli_result *r = sh("$S %s %s", lines[i].text, own ? "" : "--help");
        if (r->status != 0) r = sh("$S %s x --help", lines[i].text); /* an option named without its value */
        if (r->status == 0) continue;
        printf("%s: squish %s: %s", lines[i].where, lines[i].text, r->err);
        bad++;
    }
    printf("%zu command lines\n", n_lines);
    assert_int_equal(bad, 0);
    assert_true(n_lines > 60);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_line_is_one),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
