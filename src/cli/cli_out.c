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
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col : 80;
}

/* A line can be written over. */
static bool has_bar(const cli *c) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !cli_flag(c, OPT_QUIET) && !(term && strcmp(term, "dumb") == 0);
}

/* What several pieces of work share one bar between them, and the state of the bar on the screen. */
static struct {
    char label[64];
    double from, to, end, farthest;
    bool shared, shown;
    uint64_t begin, part_begin, part_from, last;
} bar;

static const char *seconds(double s, char out[32]) {
    if (s < 0)
        out[0] = 0; /* nobody knows yet */
    else if (s < 100)
        snprintf(out, 32, "%.0f s left", s);
    else if (s < 6000)
        snprintf(out, 32, "%.0f min left", s / 60);
    else
        snprintf(out, 32, "%.0f h left", s / 3600 < 1000 ? s / 3600 : 999);
    return out;
}

/* What is counted in bytes; other work counts texts, layers or runs, and a rate of these says nothing. */
static bool counts_bytes(const char *what) {
    static const char *const words[] = {"pulling", "compress", "importing", "verify"};
    for (size_t i = 0; i < SQ_COUNT(words); i++)
        if (strcmp(what, words[i]) == 0) return true;
    return false;
}

/* One line that rewrites itself: what, bar, share, rate, time left; as much of it as the terminal is wide. */
static void draw(const char *what, double share, double rate, double left) {
    static const struct {
        int marks;
        bool rate, left;
    } forms[] = {{30, true, true}, {10, true, true}, {10, false, true}, {0, false, true}, {0, false, false}};
    char tail[120] = "", size[32], speed[48] = "", time[32];
    const int most = columns() - 1, n = (int)strlen(what);
    if (rate > 0) snprintf(speed, sizeof speed, "  %s/s", cli_bytes((uint64_t)rate, size));
    seconds(left, time);
    for (size_t k = 0; k < SQ_COUNT(forms) && (k == 0 || n + (int)strlen(tail) > most); k++) {
        char marks[40] = "";
        const int width = forms[k].marks;
        if (width) snprintf(marks, sizeof marks, " [%*s]", width, "");
        for (int i = 0; i < width; i++) marks[2 + i] = i < (int)(share * width) ? '#' : '.';
        snprintf(tail, sizeof tail, "%s %3d %%%s%s%s", marks, (int)(share * 100), forms[k].rate ? speed : "",
                 forms[k].left && *time ? "  " : "", forms[k].left ? time : "");
    }
    const int m = (int)strlen(tail), room = most > m ? most - m : 0;
    const int used = (n < room ? n : room) + m;
    fprintf(stderr, "\r%.*s%.*s%*s", room, what, most, tail, most > used ? most - used : 0, "");
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
    if (!on) bar.begin = sq_os_now_ns(), bar.farthest = 0;
    bar.last = bar.part_begin = 0;
}

/* Work begins anew, or another kind of it. Of the last piece on a shared bar nobody knows how many kinds it
 * has, so each takes four fifths of what the ones before it left. */
static void begin_part(uint64_t done, uint64_t now) {
    if (bar.shared && bar.farthest > bar.from) bar.from = bar.farthest;
    bar.end = bar.to < 1 ? bar.to : bar.from + 0.8 * (1 - bar.from);
    bar.part_begin = now;
    bar.part_from = done; /* what an earlier run left is not of this one's speed */
    if (!bar.shared) bar.begin = now, bar.shown = false, bar.farthest = 0;
}

bool cli_progress(void *user, const char *what, uint64_t done, uint64_t total) {
    const cli *c = user;
    const uint64_t now = sq_os_now_ns();
    if (done < bar.last || bar.part_begin == 0) begin_part(done, now);
    bar.last = done;
    if (!has_bar(c)) return !cli_signal_seen();
    const double part = total ? (double)done / (double)total : 0;
    const double part_s = (double)(now - bar.part_begin) / 1e9;
    const double all_s = (double)(now - bar.begin) / 1e9;
    double whole = bar.shared ? bar.from + part * (bar.end - bar.from) : part;
    if (whole < bar.farthest) whole = bar.farthest;
    bar.farthest = whole;
    char text[160];
    snprintf(text, sizeof text, "%s%s%s", bar.label, bar.shared ? ": " : "", what);
    if (bar.shown || all_s > 0.2) {
        const double begun = total ? (double)bar.part_from / (double)total : 0;
        const double left = bar.shared    ? (whole > 0 ? all_s * (1 - whole) / whole : -1)
                            : part > begun ? part_s * (1 - part) / (part - begun)
                                           : -1;
        const double rate = part_s > 0 ? (double)(done - bar.part_from) / part_s : 0;
        draw(text, whole, counts_bytes(what) ? rate : 0, left);
        bar.shown = true;
    }
    if (done >= total && !bar.shared) wipe();
    return !cli_signal_seen();
}
