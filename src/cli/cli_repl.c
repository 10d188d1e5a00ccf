/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_repl.c - messages from a terminal (libedit) or a pipe.
 *
 * A paste. The terminal wraps it in ESC[200~ ... ESC[201~ (bracketed paste). One short line goes into the
 * edit line as if typed. Anything longer is kept aside and a mark such as [paste 1: 200 lines] takes its
 * place, so that the line can still be edited; when the line is entered each mark becomes its text again.
 * Marks brought back by the arrow keys do so too.
 *
 * Signals. libedit's own handlers resend a signal to the whole process group and forget to watch for the
 * next, so ours stay: every byte is awaited with pselect, which lets signals in only while waiting, and
 * nothing is lost between check and sleep.
 *
 * Threads: the one that reads. Handlers store flags. */
#include "cli/cli_chat.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <termios.h>
#include <unistd.h>

enum { MESSAGE_MAX = 16 << 20, PASTES = 16, HISTORY_LINES = 1000, INLINE_MAX = 400 };

typedef struct {
    int number;                /* counts from 1; 0: empty place */
    char mark[48];
    sq_buf text;
} paste;

struct cli_repl {
    squish_alloc alloc;
    bool terminal, brackets;   /* line editing; the terminal knows bracketed paste */
    EditLine *el;
    History *history;
    const char *history_path;  /* NULL: none is kept */
    const char *prompt;
    struct termios cooked;
    bool has_cooked;
    paste pastes[PASTES];
    int n_pastes;              /* ever */
    sq_buf line;               /* without a terminal: what is being read */
};

/* ---- signals --------------------------------------------------------------------------------- */

/* A handler has no argument to carry its state. */
static volatile sig_atomic_t resized, continued;
static struct termios terminal_before;
static volatile sig_atomic_t has_terminal_before;

static const char brackets_on[] = "\033[?2004h", brackets_off[] = "\033[?2004l";

static void on_window(int sig) {
    if (sig == SIGCONT) continued = 1;
    else resized = 1;
}

/* Before a signal ends the program: the terminal as it was found. Both calls are safe in a handler. */
static void leave_terminal(void) {
    if (!has_terminal_before) return;
    const ssize_t n = write(STDOUT_FILENO, brackets_off, sizeof brackets_off - 1);
    (void)n;
    tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
}

static void watch_signals(void) {
    struct sigaction a = {.sa_handler = on_window};
    sigemptyset(&a.sa_mask);
    sigaction(SIGWINCH, &a, NULL);
    sigaction(SIGCONT, &a, NULL);
    cli_signal_converse(leave_terminal);
}

/* Wait until standard input has something; false: interrupted by Ctrl-C. Redraws after a resize or a stop. */
static bool wait_input(cli_repl *r) {
    sigset_t block, before;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGWINCH);
    sigaddset(&block, SIGCONT);
    sigprocmask(SIG_BLOCK, &block, &before);
    bool ready = false;
    while (!ready && !cli_signal_seen()) {
        if (resized) resized = 0, el_resize(r->el);
        if (continued) {
            continued = 0;
            el_set(r->el, EL_PREP_TERM, 0);
            el_set(r->el, EL_PREP_TERM, 1);
            el_set(r->el, EL_REFRESH);
        }
        fd_set in;
        FD_ZERO(&in);
        FD_SET(STDIN_FILENO, &in);
        ready = pselect(STDIN_FILENO + 1, &in, NULL, NULL, NULL, &before) == 1;
        if (!ready && errno != EINTR) break;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return ready;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* 1: a byte, 0: the end, -1: interrupted or failed. */
static int read_byte(cli_repl *r, char *out) {
    if (!wait_input(r)) return -1;
    const ssize_t n = read(STDIN_FILENO, out, 1);
    return n == 1 ? 1 : n == 0 || errno == EIO ? 0 : -1; /* EIO: the terminal hung up */
}

/* libedit's source of characters: UTF-8, whatever is not becomes U+FFFD. */
static int read_key(EditLine *el, wchar_t *out) {
    cli_repl *r;
    char s[4];
    size_t n = 0;
    el_get(el, EL_CLIENTDATA, &r);
    do {
        const int got = read_byte(r, s + n);
        if (got != 1) return got;
        n++;
    } while (n < 4 && sq_utf8_pending(s, n) == n);
    uint32_t cp;
    sq_utf8_decode(s, n, &cp, NULL);
    *out = (wchar_t)cp;
    return 1;
}

static char *prompt_of(EditLine *el) {
    cli_repl *r;
    el_get(el, EL_CLIENTDATA, &r);
    return (char *)(uintptr_t)r->prompt; /* libedit only reads it */
}

/* ---- pastes ---------------------------------------------------------------------------------- */

/* Bytes up to ESC[201~ into out, ends of lines as \n, none at the end. */
static void read_paste(cli_repl *r, sq_buf *out) {
    static const char end[] = "\033[201~";
    size_t matched = 0;
    char c, before = 0;
    for (; matched < sizeof end - 1 && read_byte(r, &c) == 1; before = c) {
        matched = c == end[matched] ? matched + 1 : c == end[0];
        if (c == '\n' && before == '\r') continue; /* \r\n is one end of a line */
        sq_buf_putc(out, c == '\r' ? '\n' : c);
    }
    if (out->failed) return;
    if (matched == sizeof end - 1) out->len -= matched;
    while (out->len > 0 && out->data[out->len - 1] == '\n') out->len--;
    if (out->data) out->data[out->len] = 0;
}

static size_t count_lines(const char *s, size_t n) {
    size_t lines = 1;
    for (size_t i = 0; i < n; i++) lines += s[i] == '\n';
    return lines;
}

/* Keep the text aside, forgetting the oldest of sixteen, and say what stands for it. */
static const char *keep_paste(cli_repl *r, sq_buf *text) {
    paste *p = &r->pastes[r->n_pastes++ % PASTES];
    const size_t lines = count_lines(text->data, text->len);
    if (p->number) sq_buf_deinit(&p->text);
    p->number = r->n_pastes;
    p->text = *text;
    if (lines > 1) snprintf(p->mark, sizeof p->mark, "[paste %d: %zu lines]", p->number, lines);
    else
        snprintf(p->mark, sizeof p->mark, "[paste %d: %zu characters]", p->number,
                 sq_utf8_count(text->data, text->len));
    return p->mark;
}

static unsigned char on_paste(EditLine *el, int key) {
    (void)key;
    cli_repl *r;
    sq_buf text;
    el_get(el, EL_CLIENTDATA, &r);
    sq_buf_init(&text, &r->alloc, MESSAGE_MAX);
    read_paste(r, &text);
    const bool is_short = text.len <= INLINE_MAX && !(text.data && memchr(text.data, '\n', text.len));
    int bad = text.failed || text.len == 0;
    if (!bad && is_short) bad = el_insertstr(el, text.data) != 0;
    else if (!bad) return el_insertstr(el, keep_paste(r, &text)) == 0 ? CC_REFRESH : CC_REFRESH_BEEP;
    sq_buf_deinit(&text);
    return bad ? CC_REFRESH_BEEP : CC_REFRESH;
}

/* Append line to out, marks replaced by what they stand for. */
static void append_expanded(const cli_repl *r, const char *line, size_t n, sq_buf *out) {
    for (size_t i = 0; i < n;) {
        const paste *found = NULL;
        for (int k = 0; line[i] == '[' && k < PASTES && !found; k++) {
            const paste *p = &r->pastes[k];
            const size_t m = strlen(p->mark);
            if (p->number && n - i >= m && memcmp(line + i, p->mark, m) == 0) found = p;
        }
        if (found) sq_buf_append(out, found->text.data, found->text.len), i += strlen(found->mark);
        else sq_buf_putc(out, line[i++]);
    }
}

static bool has_mark(const cli_repl *r, const char *line) {
    for (int k = 0; k < PASTES; k++)
        if (r->pastes[k].number && strstr(line, r->pastes[k].mark)) return true;
    return false;
}

/* ---- history --------------------------------------------------------------------------------- */

/* A line as libedit's history files have it: blanks and anything that is not plain ASCII as \ooo. */
static void put_encoded(FILE *f, const char *line) {
    for (; *line; line++) {
        const unsigned char c = (unsigned char)*line;
        if (c <= 0x20 || c >= 0x7f || c == '\\') fprintf(f, "\\%03o", c);
        else putc(c, f);
    }
    putc('\n', f);
}

/* One line more, in memory and at the end of the file; sessions side by side append to the same file.
 * (libedit's own H_NSAVE_FP writes one line more than it is asked for.) What was pasted aside is remembered
 * in this session only. */
static void remember(cli_repl *r, const char *line) {
    HistEvent ev;
    if (!r->history || !*line) return;
    if (history(r->history, &ev, H_ENTER, line) < 0) return;
    if (!r->history_path || has_mark(r, line)) return;
    const int fd = open(r->history_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "a") : NULL;
    if (f) {
        if (lseek(fd, 0, SEEK_END) == 0) fputs("_HiStOrY_V2_\n", f);
        put_encoded(f, line);
        fclose(f);
    } else if (fd >= 0) {
        close(fd);
    }
}

static void load_history(cli_repl *r) {
    HistEvent ev;
    r->history = history_init();
    if (!r->history) return;
    history(r->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(r->history, &ev, H_SETUNIQUE, 1);
    if (!r->history_path) return;
    const int n = history(r->history, &ev, H_LOAD, r->history_path);
    /* The file grows by one line a message: cut it to size once it is twice as long. */
    if (n > 2 * HISTORY_LINES) history(r->history, &ev, H_SAVE, r->history_path);
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* In a plain "C" locale libedit would not know how wide a letter is. */
static void want_utf8(void) {
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0 && !setlocale(LC_CTYPE, "C.UTF-8"))
        setlocale(LC_CTYPE, "en_US.UTF-8");
}

/* From here to the end keys are neither echoed nor cut into lines: what is typed while an answer is made
 * waits, whole, for the prompt (a Ctrl-D or a long paste would not survive the kernel's line discipline). -x
 * is libedit's mode between two lines, -d the one within; Return and line feed stay apart in both. */
static void keep_keys(cli_repl *r) {
    el_set(r->el, EL_SETTY, "-x", "-icanon", "-echo", "-icrnl", NULL);
    el_set(r->el, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL);
}

static bool open_terminal(cli_repl *r) {
    want_utf8();
    r->has_cooked = tcgetattr(STDIN_FILENO, &r->cooked) == 0;
    if (r->has_cooked) terminal_before = r->cooked, has_terminal_before = 1;
    r->el = el_init("squish", stdin, stdout, stderr);
    if (!r->el) return false;
    keep_keys(r);
    const char *term = getenv("TERM");
    r->brackets = term && *term && strcmp(term, "dumb") != 0;
    load_history(r);
    el_set(r->el, EL_CLIENTDATA, r);
    el_set(r->el, EL_PROMPT, prompt_of);
    el_set(r->el, EL_EDITOR, "emacs");
    el_set(r->el, EL_SIGNAL, 0);
    el_set(r->el, EL_GETCFN, read_key);
    if (r->history) el_set(r->el, EL_HIST, history, r->history);
    /* The narrow form of this one call copies the two texts and forgets them. */
    el_wset(r->el, EL_ADDFN, L"paste", L"text between the terminal's marks", on_paste);
    el_set(r->el, EL_BIND, "\\e[200~", "paste", NULL);
    /* Home, End, Delete, and words with Ctrl and the arrows, as terminals send them. */
    static const char *const keys[][2] = {
        {"\\e[H", "ed-move-to-beg"},       {"\\eOH", "ed-move-to-beg"},   {"\\e[1~", "ed-move-to-beg"},
        {"\\e[F", "ed-move-to-end"},       {"\\eOF", "ed-move-to-end"},   {"\\e[4~", "ed-move-to-end"},
        {"\\e[3~", "ed-delete-next-char"}, {"\\e[1;5D", "ed-prev-word"},  {"\\e[1;5C", "em-next-word"},
        {"^R", "em-inc-search-prev"},      {"^W", "ed-delete-prev-word"},
    };
    for (size_t i = 0; i < SQ_COUNT(keys); i++) el_set(r->el, EL_BIND, keys[i][0], keys[i][1], NULL);
    watch_signals();
    return true;
}

static void brackets(const cli_repl *r, bool on) {
    if (!r->brackets) return;
    fputs(on ? brackets_on : brackets_off, stdout);
    fflush(stdout);
}

cli_repl *cli_repl_open(const char *history_path, bool terminal) {
    const squish_alloc a = sq_alloc_default();
    cli_repl *r = sq_alloc_zero(&a, sizeof *r);
    if (!r) return NULL;
    r->alloc = a;
    r->terminal = terminal;
    r->history_path = history_path;
    sq_buf_init(&r->line, &a, MESSAGE_MAX);
    if (terminal && !open_terminal(r)) {
        cli_repl_close(r);
        return NULL;
    }
    brackets(r, true);
    return r;
}

void cli_repl_close(cli_repl *r) {
    if (!r) return;
    brackets(r, false);
    if (r->el) el_end(r->el);
    if (r->has_cooked) tcsetattr(STDIN_FILENO, TCSADRAIN, &r->cooked);
    has_terminal_before = 0;
    if (r->terminal) cli_signal_converse(NULL);
    if (r->history) history_end(r->history);
    for (int i = 0; i < PASTES; i++)
        if (r->pastes[i].number) sq_buf_deinit(&r->pastes[i].text);
    sq_buf_deinit(&r->line);
    const squish_alloc a = r->alloc;
    sq_alloc_free(&a, r, sizeof *r);
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* One line without its end, valid until the next call. */
static cli_repl_got edit_line(cli_repl *r, const char *prompt, const char **line, size_t *n) {
    int count = 0;
    r->prompt = prompt;
    const char *s = el_gets(r->el, &count);
    if (cli_signal_seen()) {
        cli_signal_clear();
        el_reset(r->el);
        fputs("^C\n", stdout);
        fflush(stdout);
        return REPL_INTERRUPTED;
    }
    if (!s || count <= 0) return REPL_END;
    r->line.len = 0;
    sq_buf_append(&r->line, s, (size_t)count - (s[count - 1] == '\n'));
    if (r->line.failed) return REPL_FAILED;
    *line = r->line.data ? r->line.data : "";
    *n = r->line.len;
    remember(r, *line);
    return REPL_MESSAGE;
}

static cli_repl_got plain_line(cli_repl *r, const char **line, size_t *n) {
    int c;
    r->line.len = 0;
    while ((c = getchar()) != EOF && c != '\n') sq_buf_putc(&r->line, (char)c);
    if (cli_signal_seen()) return REPL_INTERRUPTED;
    if (r->line.failed) return REPL_FAILED;
    if (c == EOF && r->line.len == 0) return REPL_END;
    if (r->line.len > 0 && r->line.data[r->line.len - 1] == '\r') r->line.len--;
    *line = r->line.len ? r->line.data : "";
    *n = r->line.len;
    return REPL_MESSAGE;
}

static cli_repl_got next_line(cli_repl *r, const char *prompt, const char **line, size_t *n) {
    return r->terminal ? edit_line(r, prompt, line, n) : plain_line(r, line, n);
}

static bool ends_fence(const sq_buf *b) {
    return b->len >= 3 && memcmp(b->data + b->len - 3, "\"\"\"", 3) == 0;
}

cli_repl_got cli_repl_read(cli_repl *r, sq_buf *out, bool *fenced) {
    const char *line;
    size_t n;
    out->len = 0;
    cli_repl_got got = next_line(r, ">>> ", &line, &n);
    if (got != REPL_MESSAGE) return got;
    *fenced = n >= 3 && memcmp(line, "\"\"\"", 3) == 0;
    append_expanded(r, line + (*fenced ? 3 : 0), n - (*fenced ? 3 : 0), out);
    while (*fenced && !ends_fence(out)) {
        got = next_line(r, "... ", &line, &n);
        if (got == REPL_END && out->len > 0) break; /* the end of the input ends the message as well */
        if (got != REPL_MESSAGE) return got;
        if (out->len > 0) sq_buf_putc(out, '\n');
        append_expanded(r, line, n, out);
    }
    if (*fenced && ends_fence(out)) out->len -= 3;
    while (*fenced && out->len > 0 && out->data[out->len - 1] == '\n') out->len--;
    if (out->data) out->data[out->len] = 0;
    return out->failed ? REPL_FAILED : REPL_MESSAGE;
}
