/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_doctor.c - is this machine fit, and does the shipped model answer? Every check is a row: name, ok,
 * detail. A warning is a row that is ok and says what the state costs. */
#include "cli/cli.h"

#include <errno.h>
#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utf8proc.h>
#include <xxhash.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

typedef enum { DOC_OK, DOC_WARN, DOC_FAIL } level;
typedef struct {
    cli *c;
    json_t *checks;
    bool failed;
} doctor;

static void report(doctor *d, level is, const char *name, const char *fmt, ...) SQ_PRINTF(4, 5);
static void report(doctor *d, level is, const char *name, const char *fmt, ...) {
    static const char *const words[] = {"ok", "warning", "FAILED"};
    char detail[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    d->failed |= is == DOC_FAIL;
    if (cli_flag(d->c, OPT_JSON)) {
        json_array_append_new(d->checks, json_pack("{s:s, s:b, s:b, s:s}", "name", name, "ok", is != DOC_FAIL,
                                                   "warning", is == DOC_WARN, "detail", detail));
        return;
    }
    static const char *const colors[] = {"\033[32m", "\033[33m", "\033[31m"};
    const bool color = cli_color(stdout);
    printf("%s%-8s%s %-12s %s\n", color ? colors[is] : "", words[is], color ? "\033[0m" : "", name, detail);
    fflush(stdout); /* the next check may take a while */
}

/* ---- the machine ----------------------------------------------------------------------------- */

static void check_cpu(doctor *d, const squish_machine *m) {
    const char *cap = cli_text(d->c, OPT_ISA);
    report(d, DOC_OK, "cpu", "%s (%s): %s", m->cpu, m->arch,
           *m->features ? m->features : "no vector extensions we use");
    if (strncmp(m->isa, "scalar", 6) == 0 && strcmp(m->arch, "x86_64") == 0)
        report(d, DOC_WARN, "kernels",
               "scalar: this CPU has no AVX2; answers are the same and come 30 to 50 times slower");
    else if (strncmp(m->isa, "scalar", 6) == 0)
        report(d, DOC_WARN, "kernels",
               "scalar: no vector kernels for this CPU; answers come many times slower");
    else if (cap && strcmp(cap, "scalar") == 0)
        report(d, DOC_WARN, "kernels",
               "scalar by --isa or SQUISH_ISA, %s could run; answers are the same and come 30 to 50 times "
               "slower",
               m->isa);
    else
        report(d, DOC_OK, "kernels", "%s%s%s", m->isa, cap ? ", capped at " : "", cap ? cap : "");
    report(d, DOC_OK, "cores", "%d for this process", m->cores);
}

static void check_memory(doctor *d, const squish_machine *m) {
    char total[32], available[32];
    cli_bytes(m->memory_total, total);
    cli_bytes(m->memory_available, available);
    if (m->memory_available < 200000000)
        report(d, DOC_FAIL, "memory",
               "%s of %s available: too little even for the shipped model (close something)", available,
               total);
    else report(d, DOC_OK, "memory", "%s of %s available", available, total);
}

/* The nearest existing parent of path, in place. */
static void existing_parent(char *path) {
    while (*path && !sq_os_exists(path)) {
        char *slash = strrchr(path, '/');
        if (slash == path) path[1] = 0;
        else if (slash) *slash = 0;
        else snprintf(path, 2, ".");
    }
}

static void check_home(doctor *d) {
    char home[4096], parent[4096], size[32];
    if (!cli_home_path(d->c, "", home, sizeof home)) {
        report(d, DOC_FAIL, "home", "neither SQUISH_HOME nor HOME is set (set SQUISH_HOME to a folder)");
        return;
    }
    home[strlen(home) - 1] = 0; /* the slash of the join */
    if (sq_os_writable_dir(home)) report(d, DOC_OK, "home", "%s can be written", home);
    else
        report(d, DOC_WARN, "home",
               "%s cannot be written: no history, and tiers only beside their checkpoint (set SQUISH_HOME to "
               "a folder you own)",
               home);
    snprintf(parent, sizeof parent, "%s", home);
    existing_parent(parent);
    const uint64_t bytes = sq_os_disk_free(parent);
    if (bytes < 100000000) report(d, DOC_WARN, "disk", "only %s free in %s", cli_bytes(bytes, size), home);
    else report(d, DOC_OK, "disk", "%s free in %s", cli_bytes(bytes, size), home);
}

static void check_libraries(doctor *d) {
    char pcre[64] = "?";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = 0; /* a date follows */
    const unsigned xxh = XXH_versionNumber();
    /* A library older than its header is a broken installation; jansson can tell. */
    const bool old =
        jansson_version_cmp(JANSSON_MAJOR_VERSION, JANSSON_MINOR_VERSION, JANSSON_MICRO_VERSION) < 0;
    report(d, old ? DOC_FAIL : DOC_OK, "libraries",
           "jansson %s%s, pcre2 %s, utf8proc %s, xxhash %u.%u.%u, libedit %d.%d", jansson_version_str(),
           old ? " (built with " JANSSON_VERSION ")" : "", pcre, utf8proc_version(), xxh / 10000,
           xxh / 100 % 100, xxh % 100, LIBEDIT_MAJOR, LIBEDIT_MINOR);
}

static const char *limit_text(int resource, bool bytes, char out[32]) {
    struct rlimit r;
    if (getrlimit(resource, &r) != 0) snprintf(out, 32, "?");
    else if (r.rlim_cur == RLIM_INFINITY) snprintf(out, 32, "unlimited");
    else if (bytes) cli_bytes(r.rlim_cur, out);
    else snprintf(out, 32, "%llu", (unsigned long long)r.rlim_cur);
    return out;
}

static void check_limits(doctor *d) {
    char as[32], lock[32], files[32];
    struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};
    getrlimit(RLIMIT_AS, &r);
    const bool tight = r.rlim_cur != RLIM_INFINITY;
    report(d, tight ? DOC_WARN : DOC_OK, "limits", "address space %s%s, locked memory %s, open files %s",
           limit_text(RLIMIT_AS, true, as),
           tight ? " (models are mapped: this bounds their size; ulimit -v unlimited)" : "",
           limit_text(RLIMIT_MEMLOCK, true, lock), limit_text(RLIMIT_NOFILE, false, files));
}

/* ---- the installation ------------------------------------------------------------------------ */

static void check_install(doctor *d) {
    static const struct {
        const char *file, *what;
    } parts[] = {
        {"share/man/man1/squish.1", "man page"},
        {"share/bash-completion/completions/squish", "completion of bash"},
        {"share/zsh/site-functions/_squish", "completion of zsh"},
        {"share/fish/vendor_completions.d/squish.fish", "completion of fish"},
        {"lib/systemd/system/squish.socket", "unit of the socket"},
        {"lib/systemd/system/squish.service", "unit of the service"},
    };
    char exe[4096], path[4200], missing[400] = "";
    char *slash = sq_os_exe_path(exe, sizeof exe) ? strrchr(exe, '/') : NULL;
    if (slash) *slash = 0;
    if (!slash || slash - exe < 4 || strcmp(slash - 4, "/bin") != 0) {
        report(d, DOC_OK, "install", "runs from the folder it was built in (make install, make deb)");
        return;
    }
    slash[-4] = 0;
    for (size_t i = 0; i < SQ_COUNT(parts); i++) {
        static const char *const forms[][2] = {{"", ""}, {"", ".gz"}, {"/..", ""}}; /* /lib of /usr */
        bool there = false;
        for (size_t j = 0; j < SQ_COUNT(forms) && !there; j++) {
            snprintf(path, sizeof path, "%s%s/%s%s", exe, forms[j][0], parts[i].file, forms[j][1]);
            there = sq_os_exists(path);
        }
        const size_t n = strlen(missing);
        if (!there) snprintf(missing + n, sizeof missing - n, "%s%s", n ? ", " : "", parts[i].what);
    }
    if (*missing) report(d, DOC_WARN, "install", "in %s, without: %s (make install)", exe, missing);
    else report(d, DOC_OK, "install", "in %s, with man page, completions and units", exe);
}

/* What runs as a service. Whether systemd is there is what sd_booted(3) looks at. */
static void check_service(doctor *d) {
    if (!sq_os_is_dir("/run/systemd/system")) {
        report(d, DOC_OK, "service", "no systemd here: squish serve runs by itself");
        return;
    }
    const bool enabled = sq_os_exists("/etc/systemd/system/sockets.target.wants/squish.socket");
    report(d, DOC_OK, "service",
           enabled ? "squish.socket is enabled"
                   : "squish.socket is not enabled (systemctl enable --now squish.socket)");
}

/* ---- the shipped model ----------------------------------------------------------------------- */

typedef struct {
    squish_model *model;
    squish_engine *engine;
    squish_seq *seq;
    squish_gen *gen;
} trial;

static squish_status open_trial(const cli *c, trial *t, squish_error *err) {
    squish_text path = {0};
    SQ_TRY(squish_locate(cli_home(c), NULL, &path, err));
    squish_status st = squish_model_open(&t->model, path.data, NULL, err);
    squish_text_free(&path);
    squish_engine_options o = squish_engine_options_default();
    o.isa_max = cli_text(c, OPT_ISA);
    if (st == SQUISH_OK) st = squish_engine_new(&t->engine, t->model, &o, err);
    if (st == SQUISH_OK) st = squish_seq_new(&t->seq, t->engine, err);
    return st;
}

/* The answer to one question, at most 24 tokens, the likeliest each. */
static squish_status ask(trial *t, const char *question, char *answer, size_t n, squish_error *err) {
    squish_template_options to = squish_template_options_default();
    squish_gen_options go = squish_gen_options_default();
    squish_text text = {0};
    squish_tokens ids = {0};
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", question);
    char *json = json_dumps(messages, JSON_COMPACT);
    json_decref(messages);
    to.messages_json = json;
    go.sampling.temperature = 0;
    go.max_tokens = 24;
    squish_status st = squish_template_render(t->model, &to, &text, err);
    free(json); /* jansson's */
    if (st == SQUISH_OK) st = squish_tokenize(t->model, text.data, text.bytes, SQUISH_TOK_SPECIAL, &ids, err);
    if (st == SQUISH_OK) st = squish_gen_new(&t->gen, t->seq, ids.ids, ids.count, &go, err);
    squish_gen_event ev = {0};
    *answer = 0;
    for (size_t at = 0; st == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE;) {
        st = squish_gen_next(t->gen, &ev, err);
        if (st == SQUISH_OK && at + ev.text_bytes < n)
            memcpy(answer + at, ev.text, ev.text_bytes), at += ev.text_bytes, answer[at] = 0;
    }
    squish_tokens_free(&ids);
    squish_text_free(&text);
    return st;
}

static void check_model(doctor *d) {
    trial t = {0};
    squish_error err = {0};
    char answer[512];
    squish_status st = open_trial(d->c, &t, &err);
    if (st == SQUISH_OK) st = ask(&t, "What is the capital of Japan?", answer, sizeof answer, &err);
    for (char *p = answer; st == SQUISH_OK && *p; p++)
        if (*p == '\n') *p = ' ';
    if (st != SQUISH_OK) {
        report(d, DOC_FAIL, "model", "%s", err.text);
    } else {
        squish_model_info m;
        squish_engine_info e;
        squish_gen_stats s;
        squish_model_get_info(t.model, &m);
        squish_engine_get_info(t.engine, &e);
        squish_gen_get_stats(t.gen, &s);
        const bool right = strstr(answer, "Tokyo") != NULL;
        report(d, right ? DOC_OK : DOC_FAIL, "model",
               "%s, tier %s, on %s: '%.200s'%s (loaded in %.1f ms, %.0f tokens a second)", m.path, m.tier,
               e.isa, answer, right ? "" : ", wanted Tokyo", m.load_ms, s.decode_tok_s);
    }
    squish_gen_free(t.gen);
    squish_seq_free(t.seq);
    squish_engine_free(t.engine);
    squish_model_close(t.model);
}

int cli_doctor(cli *c) {
    if (c->n_args) return cli_fail_text(c, 2, "doctor takes no arguments");
    doctor d = {.c = c, .checks = json_array()};
    squish_machine m;
    squish_machine_get(&m);
    if (!cli_flag(c, OPT_JSON)) printf("squish %s\n", squish_build_info());
    check_cpu(&d, &m);
    check_memory(&d, &m);
    check_home(&d);
    check_libraries(&d);
    check_limits(&d);
    check_install(&d);
    check_service(&d);
    check_model(&d);
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:b, s:s, s:o}", "ok", !d.failed, "version", squish_build_info(),
                                        "checks", d.checks)) ||
               d.failed;
    json_decref(d.checks);
    return d.failed;
}
