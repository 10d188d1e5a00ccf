/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_load.c - how long a model takes to be ready, and what it costs in memory.
 *
 * Every run is a child process that starts with nothing of the model in its address space and sends its
 * figures back through a pipe, so memory of one run cannot hide in another. */
#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one run in a child ---------------------------------------------------------------------- */

typedef struct {
    double load_ms, added_mb, peak_mb, resident_s, prefill_ms;
    char path[1024];  /* of the file that was opened */
    squish_error err; /* code OK: the figures are good */
} figures;

typedef void (*child_fn)(const bench_options *o, figures *f);

static squish_status in_child(const bench_options *o, child_fn fn, figures *out, squish_error *err) {
    int ends[2];
    if (pipe(ends) != 0) return sq_fail(err, SQUISH_IO, "bench: no pipe: %s", strerror(errno));
    const pid_t pid = fork();
    if (pid == 0) {
        figures f = {0};
        close(ends[0]);
        fn(o, &f);
        const bool sent = write(ends[1], &f, sizeof f) == (ssize_t)sizeof f;
        _exit(sent ? 0 : 1);
    }
    close(ends[1]);
    size_t got = 0;
    for (ssize_t n = 1; pid > 0 && n > 0 && got<sizeof *out; got += n> 0 ? (size_t)n : 0)
        n = read(ends[0], (char *)out + got, sizeof *out - got);
    close(ends[0]);
    if (pid > 0) waitpid(pid, NULL, 0);
    if (pid < 0 || got < sizeof *out) return sq_fail(err, SQUISH_IO, "bench: a run ended without a result");
    if (out->err.code == SQUISH_OK) return SQUISH_OK;
    return sq_fail(err, out->err.code, "%s", out->err.text);
}

static squish_status open_model(const bench_options *o, squish_model **m, figures *f) {
    squish_model_options mo = squish_model_options_default();
    mo.tier = o->tier;
    const uint64_t anon = sq_os_rss_anon(), begin = sq_os_now_ns();
    const squish_status st = squish_model_open(m, o->path, &mo, &f->err);
    f->load_ms = (double)(sq_os_now_ns() - begin) / 1e6;
    const double after = (double)sq_os_rss_anon(), peak = (double)sq_os_rss_anon_peak();
    f->added_mb = (after - (double)anon) / 1e6;
    f->peak_mb = peak / 1e6;
    if (st != SQUISH_OK) return st;
    squish_model_info info;
    squish_model_get_info(*m, &info);
    snprintf(f->path, sizeof f->path, "%s", info.path);
    return SQUISH_OK;
}

static void load_once(const bench_options *o, figures *f) {
    squish_model *m = NULL;
    open_model(o, &m, f);
    squish_model_close(m);
}

/* Load, then touch every page of the weights as several readers would. */
static void load_and_read(const bench_options *o, figures *f) {
    squish_model *m = NULL;
    const uint64_t begin = sq_os_now_ns();
    if (open_model(o, &m, f) != SQUISH_OK) return;
    squish_model_close(m);
    squish_model_options mo = squish_model_options_default();
    mo.tier = o->tier;
    mo.verify = true; /* reads every byte */
    if (squish_model_open(&m, o->path, &mo, &f->err) != SQUISH_OK) return;
    f->resident_s = (double)(sq_os_now_ns() - begin) / 1e9;
    squish_model_close(m);
}

static const char prompt[] =
    "The history of the city begins with a small harbour, and the harbour begins with a "
    "river that";

static void prefill_once(const bench_options *o, figures *f) {
    squish_model *m = NULL;
    squish_engine *e = NULL;
    squish_seq *s = NULL;
    squish_tokens t = {0};
    squish_engine_options eo = squish_engine_options_default();
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = 256;
    squish_status st = open_model(o, &m, f);
    if (st == SQUISH_OK) st = squish_engine_new(&e, m, &eo, &f->err);
    if (st == SQUISH_OK) st = squish_seq_new(&s, e, &f->err);
    if (st == SQUISH_OK) st = squish_tokenize(m, prompt, strlen(prompt), 0, &t, &f->err);
    for (int i = 0; st == SQUISH_OK && i < 2; i++) { /* the second time everything is in place */
        squish_seq_truncate(s, 0);
        const uint64_t begin = sq_os_now_ns();
        st = squish_seq_sync(s, t.ids, t.count, &f->err);
        f->prefill_ms = (double)(sq_os_now_ns() - begin) / 1e6;
    }
    squish_tokens_free(&t);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
}

/* ---- the page cache -------------------------------------------------------------------------- */

#ifdef __linux__
/* Drop the file's pages; true if the system then says that none is left. */
static bool make_cold(const char *path) {
    sq_map map;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool asked = fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
    close(fd);
    if (!asked || sq_os_map_open(&map, path, NULL) != SQUISH_OK) return false;
    unsigned char present[4096];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), step = sizeof present * page;
    bool cold = true;
    for (size_t at = 0; cold && at < map.bytes; at += step) {
        const size_t n = map.bytes - at < step ? map.bytes - at : step;
        cold = mincore((void *)(uintptr_t)(map.data + at), n, present) == 0;
        for (size_t i = 0; cold && i < (n + page - 1) / page; i++) cold = !(present[i] & 1);
    }
    sq_os_map_close(&map);
    return cold;
}
#else
static bool make_cold(const char *path) {
    (void)path;
    return false;
}
#endif

/* Read the whole file in pieces of 8 MiB: what the disk gives to a program that does nothing else. */
static double read_seconds(const char *path) {
    const size_t piece = (size_t)8 << 20;
    void *p = sq_os_reserve(piece);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const uint64_t begin = sq_os_now_ns();
    ssize_t n = p && fd >= 0 ? 1 : -1;
    while (n > 0) n = read(fd, p, piece);
    const double seconds = (double)(sq_os_now_ns() - begin) / 1e9;
    if (fd >= 0) close(fd);
    if (p) sq_os_release(p, piece);
    return n == 0 ? seconds : NAN;
}

/* ---- whole process --------------------------------------------------------------------------- */

/* Milliseconds from fork to the first byte of the answer on the program's stdout; NAN if there was none. */
static double first_byte_ms(const bench_options *o) {
    int ends[2];
    char threads[16];
    snprintf(threads, sizeof threads, "%d", (int)o->threads);
    if (pipe(ends) != 0) return NAN;
    const uint64_t begin = sq_os_now_ns();
    const pid_t pid = fork();
    if (pid == 0) {
        if (o->isa) setenv("SQUISH_ISA", o->isa, 1);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        const int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDERR_FILENO);
        execl(o->program, o->program, "run", "--raw", "--temp", "0", "--ignore-eos", "-n", "8", "--ctx",
              "256", "--threads", threads, "--tier", o->tier_name, o->path, prompt, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    char byte;
    const bool came = pid > 0 && read(ends[0], &byte, 1) == 1;
    const double ms = (double)(sq_os_now_ns() - begin) / 1e6;
    close(ends[0]);
    if (pid > 0) kill(pid, SIGTERM), waitpid(pid, NULL, 0);
    return came ? ms : NAN;
}

/* ---- the rows -------------------------------------------------------------------------------- */

typedef struct {
    double load[BENCH_RUNS_MAX], added[BENCH_RUNS_MAX], peak[BENCH_RUNS_MAX], prefill[BENCH_RUNS_MAX];
    double cold_load[BENCH_RUNS_MAX], cold[BENCH_RUNS_MAX], disk[BENCH_RUNS_MAX], first[BENCH_RUNS_MAX];
} samples;

static squish_status warm_rows(const bench_options *o, samples *s, figures *f, json_t *rows,
                               squish_error *err) {
    SQ_TRY(in_child(o, load_once, f, err)); /* brings the tables into the page cache */
    for (int32_t i = 0; i < o->runs; i++) {
        SQ_TRY(in_child(o, load_once, f, err));
        s->load[i] = f->load_ms, s->added[i] = f->added_mb, s->peak[i] = f->peak_mb;
        if (o->progress && !o->progress(o->progress_user, "load", (uint64_t)i + 1, (uint64_t)o->runs))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    SQ_TRY(bench_row(rows, "load_ms", "ms", s->load, o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    SQ_TRY(bench_row(rows, "load_anon_added_mb", "MB", s->added, o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    return bench_row(rows, "load_anon_peak_mb", "MB", s->peak, o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
}

enum { COLD_RUNS_MAX = 5 };

static squish_status cold_rows(const bench_options *o, samples *s, const char *file, json_t *rows,
                               squish_error *err) {
    const int32_t runs = o->runs < COLD_RUNS_MAX ? o->runs : COLD_RUNS_MAX;
    int32_t n = 0;
    figures f;
    for (; n < runs && make_cold(file); n++) {
        s->disk[n] = read_seconds(file);
        if (isnan(s->disk[n]) || !make_cold(file)) break;
        SQ_TRY(in_child(o, load_and_read, &f, err));
        s->cold_load[n] = f.load_ms, s->cold[n] = f.resident_s;
        if (o->progress && !o->progress(o->progress_user, "cold", (uint64_t)n + 1, (uint64_t)runs))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    if (n == 0) return SQUISH_OK; /* this file system does not let go of its pages */
    SQ_TRY(bench_row(rows, "read_cold_s", "s", s->disk, n, NAN, BENCH_SMALL_IS_GOOD, err));
    const double limit = s->disk[n / 2];
    SQ_TRY(bench_row(rows, "load_cold_ms", "ms", s->cold_load, n, NAN, BENCH_SMALL_IS_GOOD, err));
    return bench_row(rows, "cold_resident_s", "s", s->cold, n, limit, BENCH_SMALL_IS_GOOD, err);
}

static squish_status process_rows(const bench_options *o, samples *s, json_t *rows, squish_error *err) {
    figures f;
    int32_t n = 0;
    if (!o->program) return SQUISH_OK;
    for (int32_t i = 0; i < o->runs; i++) {
        const double ms = first_byte_ms(o);
        if (!isnan(ms)) s->first[n++] = ms;
        SQ_TRY(in_child(o, prefill_once, &f, err));
        s->prefill[i] = f.prefill_ms;
    }
    SQ_TRY(bench_row(rows, "first_byte_ms", "ms", s->first, n, NAN, BENCH_SMALL_IS_GOOD, err));
    return bench_row(rows, "prefill_ms", "ms", s->prefill, o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
}

squish_status bench_load(const bench_options *o, json_t *rows, squish_error *err) {
    SQ_TRY(bench_check_runs(o, err));
    squish_alloc a = sq_alloc_default();
    samples *s = sq_alloc_zero(&a, sizeof *s);
    figures f = {0};
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    squish_status st = warm_rows(o, s, &f, rows, err);
    if (st == SQUISH_OK) st = process_rows(o, s, rows, err);
    if (st == SQUISH_OK && !sq_os_is_dir(f.path)) st = cold_rows(o, s, f.path, rows, err);
    sq_alloc_free(&a, s, sizeof *s);
    return st;
}
