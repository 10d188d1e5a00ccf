/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_out.c - what the program says: errors, notes, JSON, sizes, progress. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int cli_exit_code(squish_status st) {
    switch (st) {
    case SQUISH_OK: return 0;
    case SQUISH_NOT_FOUND: return 3;
    case SQUISH_QUALITY: return 4;
    case SQUISH_NO_MEMORY:
    case SQUISH_NO_SPACE: return 5;
    case SQUISH_NETWORK: return 6;
    case SQUISH_CANCELLED: return 130;
    default: return 1;
    }
}

bool cli_color(FILE *f) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(f)) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

static void wipe(void); /* the bar, before something is said */

static int say(const cli *c, int code, const char *name, const char *text) {
    const bool color = cli_color(stderr);
    wipe();
    fprintf(stderr, "%ssquish:%s %s\n", color ? "\033[31m" : "", color ? "\033[0m" : "", text);
    if (cli_flag(c, OPT_JSON))
        cli_print_json(json_pack("{s:{s:s, s:s}}", "error", "code", name, "message", text));
    return code;
}

int cli_fail(const cli *c, const squish_error *err) {
    return say(c, cli_exit_code(err->code), squish_status_name(err->code), err->text);
}

int cli_fail_text(const cli *c, int code, const char *fmt, ...) {
    char text[480];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return say(c, code,
               code == 2     ? "USAGE"
               : code == 3   ? "NOT_FOUND"
               : code == 130 ? "CANCELLED"
                             : "FAILED",
               text);
}

void cli_note(const cli *c, const char *fmt, ...) {
    if (cli_flag(c, OPT_QUIET)) return;
    wipe();
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void cli_warn(void *user, const char *line) { cli_note(user, "squish: %s", line); }

int cli_print_json(json_t *o) {
    if (!o) return 1;
    /* 17 digits: a double comes back as it went. */
    const int bad = json_dumpf(o, stdout, JSON_REAL_PRECISION(17)) != 0 || putchar('\n') == EOF;
    json_decref(o);
    return bad;
}

int cli_close_stdout(const cli *c, int code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return code;
    if (errno == EPIPE) return code ? code : 1; /* the reader left: nobody to tell */
    return cli_fail_text(c, 1, "cannot write the result: %s", strerror(errno));
}

void cli_put_text(FILE *f, const char *text, size_t n) {
    const bool eyes = isatty(fileno(f));
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool c1 = c == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] < 0xa0;
        const bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f || c1;
        if (eyes && control)
            fputs("\xef\xbf\xbd", f), i += c1;
        else
            putc(c, f);
    }
    fflush(f); /* each token out the moment it exists */
}

const char *cli_bytes(uint64_t n, char out[32]) {
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)n;
    int i = 0;
    while (v >= 999.5 && i < 4) v /= 1000, i++;
    snprintf(out, 32, i == 0 ? "%.0f %s" : v < 10 ? "%.2f %s" : v < 100 ? "%.1f %s" : "%.0f %s", v, unit[i]);
    return out;
}

/* ---- progress -------------------------------------------------------------------------------- */

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

/* What several pieces of work share one bar between them, and the state of the bar on the screen. */
static struct {
    char label[64];
    double from, to;
    bool shared, shown;
    uint64_t begin, part_begin, last;
} bar;

/* One line that rewrites itself: what, bar, share, rate, time left. */
static void draw(const char *what, double share, double rate, double left) {
    char line[256], a[32], marks[41];
    const int width = columns() < 70 ? 10 : 30;
    for (int i = 0; i < width; i++) marks[i] = i < share * width ? '#' : '.';
    marks[width] = 0;
    snprintf(line, sizeof line, "%s [%s] %3.0f %%  %s/s  %.0f s left", what, marks, share * 100,
             cli_bytes((uint64_t)rate, a), left);
    fprintf(stderr, "\r%-*.*s", columns() - 1, columns() - 1, line);
}

static void wipe(void) {
    if (bar.shown) fprintf(stderr, "\r%*s\r", columns() - 1, "");
    bar.shown = false;
}

void cli_progress_part(const cli *c, const char *label, double from, double to) {
    (void)c;
    const bool on = bar.shared && label;
    if (!label) wipe();
    bar.shared = label != NULL;
    snprintf(bar.label, sizeof bar.label, "%s", label ? label : "");
    bar.from = from;
    bar.to = to;
    if (!on) bar.begin = sq_os_now_ns();
    bar.last = bar.part_begin = 0;
}

bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    const cli *c = user;
    const uint64_t now = sq_os_now_ns();
    if (done <= bar.last || bar.part_begin == 0) {
        bar.part_begin = now;
        if (!bar.shared) bar.begin = now, bar.shown = false;
    }
    bar.last = done;
    if (!isatty(STDERR_FILENO) || cli_flag(c, OPT_QUIET)) return !cli_signal_seen();
    const double share = bar.from + (total ? (double)done / (double)total : 0) * (bar.to - bar.from);
    const double all_s = (double)(now - bar.begin) / 1e9, part_s = (double)(now - bar.part_begin) / 1e9;
    const double whole = bar.shared ? share : total ? (double)done / (double)total : 0;
    char text[160];
    snprintf(text, sizeof text, "%s%s%s", bar.label, bar.shared ? ": " : "", what);
    if (bar.shown || all_s > 0.2) {
        draw(text, whole, part_s > 0 ? (double)done / part_s : 0,
             whole > 0 ? all_s * (1 - whole) / whole : 0);
        bar.shown = true;
    }
    if (done >= total && !bar.shared) wipe();
    return !cli_signal_seen();
}
