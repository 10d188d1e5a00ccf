/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_attacks.c - what strangers send to end a server, over a socket: sources of grammars and templates
 * that grow without bound, names that want to be paths. Each is answered in the end, /health answers
 * meanwhile, and a plain question is answered as before. (Numbers, deep JSON and keys: test_api_limits.c;
 * browsers, smuggling, bodies: tests/server.) */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

static api_server server;
static char work[64];

#define CHAT "/v1/chat/completions"
#define SAY "\"max_tokens\":4,\"temperature\":0,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

/* The goals are 250 ms and 200 ms on a quiet machine; sanitizers and busy neighbours get more. */
enum { MS_MAX = 20000, HEALTH_MS_MAX = 5000 };

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void answers_as_ever(void) {
    json_t *o =
        ask_json(&server, "POST", CHAT,
                 "{\"temperature\":0,\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of "
                 "Japan?\"}]}",
                 200);
    assert_non_null(o);
    assert_non_null(strstr(text_at(o, "choices[0].message.content"), "Tokyo"));
    json_decref(o);
}

/* before, n times open, middle, n times close, after. */
static char *source_of(const char *before, const char *open, const char *middle, const char *close,
                       const char *after, size_t n) {
    char *s =
        malloc(strlen(before) + strlen(middle) + strlen(after) + n * (strlen(open) + strlen(close)) + 1);
    char *p = stpcpy(s, before);
    for (size_t k = 0; k < n; k++) p = stpcpy(p, open);
    p = stpcpy(p, middle);
    for (size_t k = 0; k < n; k++) p = stpcpy(p, close);
    stpcpy(p, after);
    return s;
}

/* ---- /health, all the while ------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    _Atomic bool over;
    _Atomic int n, wrong;
    double slowest_ms;
} pulse;

static void *ask_health(void *user) {
    (void)user;
    while (!pulse.over) {
        const double begin = now_ms();
        char head[16] = "";
        const int fd = api_send(&server, "GET", "/health", NULL);
        const ssize_t n = recv(fd, head, sizeof head - 1, MSG_WAITALL);
        close(fd);
        pulse.wrong += n < 15 || strncmp(head, "HTTP/1.1 200", 12) != 0;
        pulse.n++;
        if (now_ms() - begin > pulse.slowest_ms) pulse.slowest_ms = now_ms() - begin;
        usleep(5000);
    }
    return NULL;
}

static void begin_pulse(void) {
    pulse.over = false;
    pulse.n = pulse.wrong = 0;
    pulse.slowest_ms = 0;
    assert_int_equal(pthread_create(&pulse.thread, NULL, ask_health, NULL), 0);
}

static void end_pulse(void) {
    pulse.over = true;
    pthread_join(pulse.thread, NULL);
    print_message("/health meanwhile: %d times, slowest %.1f ms\n", pulse.n, pulse.slowest_ms);
    assert_true(pulse.n > 0);
    assert_int_equal(pulse.wrong, 0);
    assert_true(pulse.slowest_ms < HEALTH_MS_MAX);
}

/* ---- grammars (R11) --------------------------------------------------------------------------- */

#define SHAPED                                                                                               \
    CHAT, "{" SAY ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\","          \
                  "\"schema\":"
#define TOOL                                                                                                 \
    CHAT, "{" SAY                                                                                            \
          ",\"tool_choice\":\"required\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","    \
          "\"strict\":true,\"parameters\":"
#define GBNF CHAT, "{" SAY ",\"grammar\":\""
#define REGEX CHAT, "{" SAY ",\"guided_regex\":\""

static const struct {
    const char *name, *route, *begin, *before, *open, *middle, *close, *after, *end;
    size_t n;
} grammars[] = {
    {"60,000 groups", GBNF, "root ::= ", "(", "\\\"a\\\"", ")", "", "\"}", 60000},
    {"60,000 groups, regex", REGEX, "", "(", "a", ")", "", "\"}", 60000},
    {"a? a? a? ...", GBNF, "root ::= (", "\\\"a\\\"? ", "", "", ")*", "\"}", 3000},
    {"a?a?a? ... a", REGEX, "(", "a?", "", "", ")*b", "\"}", 20000},
    {"counts of counts", REGEX, "", "(", "a?", "){1000}", "", "\"}", 8},
    {"(a+)+", REGEX, "", "(", "a", ")+", "", "\"}", 400},
    {"10,000 alternatives", REGEX, "x", "|ab", "", "", "", "\"}", 10000},
    {"a class of 100,000 ranges", REGEX, "[", "a", "", "", "]", "\"}", 100000},
    {"recursion on both sides", GBNF, "root ::= root root | \\\"a\\\"", "", "", "", "", "\"}", 0},
    {"words of 1 MB", GBNF, "root ::= \\\"", "x", "", "", "\\\"", "\"}", 1 << 20},
    {"a schema of itself", SHAPED, "{\"$ref\":\"#\"}", "", "", "", "", "}}}", 0},
    {"two that want each other", SHAPED,
     "{\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/b\"}]},\"b\":{\"allOf\":[{\"$ref\":\"#/$defs/a\"}]}},"
     "\"$ref\":\"#/$defs/a\"}",
     "", "", "", "", "}}}", 0},
    {"an object in itself, needed", SHAPED,
     "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"$ref\":\"#\"}}}", "", "", "", "",
     "}}}", 0},
    {"10,000 values", SHAPED, "{\"enum\":[", "\"abcdefgh\",", "\"z\"", "", "]}", "}}}", 10000},
    {"lists of lists of 2,000", SHAPED, "",
     "{\"type\":\"array\",\"maxItems\":2000,\"minItems\":2000,\"items\":",
     "{\"type\":\"string\",\"maxLength\":2000}", "}", "", "}}}", 20},
    {"deep lists", SHAPED, "", "{\"items\":", "true", "}", "", "}}}", 60000},
    {"anyOf of anyOf", SHAPED, "", "{\"anyOf\":[{\"type\":\"null\"},", "true", "]}", "", "}}}", 40},
    {"oneOf of oneOf", SHAPED, "", "{\"oneOf\":[{\"type\":\"null\"},{\"const\":1},", "true", "]}", "", "}}}",
     20},
    {"a pattern that goes back and forth", SHAPED, "{\"type\":\"string\",\"pattern\":\"^(", "(a|a?)+", "", "",
     ")+$\"}", "}}}", 30},
    {"not of not", SHAPED, "", "{\"not\":", "{\"type\":\"string\"}", "}", "", "}}}", 40},
    {"not of not", TOOL, "", "{\"not\":", "{\"type\":\"string\"}", "}", "", "}}]}", 40},
    {"2,000 properties in any order", TOOL, "{\"type\":\"object\",\"properties\":{\"q\":{}", "", "", "",
     ",\"r\":{\"patternProperties\":{\"^a*a*a*a*a*$\":{\"type\":\"integer\"}}}}}", "}}]}", 0},
    {"maxLength of a million", TOOL,
     "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":"
     "999999,"
     "\"maxLength\":1000000}}}",
     "", "", "", "", "}}]}", 0},
    {"Ollama's format", "/api/chat",
     "{\"model\":\"squish-tiny\",\"options\":{\"num_predict\":4}," SAY ",\"format\":", "",
     "{\"allOf\":[{\"maxLength\":9},", "true", "]}", "", "}", 40},
};

static void grammars_that_explode_are_refused_or_kept_to_and_nothing_stands_still(void **state) {
    (void)state;
    begin_pulse();
    for (size_t i = 0; i < SQ_COUNT(grammars); i++) {
        char *source = source_of(grammars[i].before, grammars[i].open, grammars[i].middle, grammars[i].close,
                                 grammars[i].after, grammars[i].n);
        const size_t size = strlen(source) + 1024;
        char *body = malloc(size);
        snprintf(body, size, "%s%s%s", grammars[i].begin, source, grammars[i].end);
        const double begin = now_ms();
        const api_reply *r = ask(&server, "POST", grammars[i].route, body);
        const double ms = now_ms() - begin;
        print_message("%s: %d in %.0f ms\n", grammars[i].name, r->status, ms);
        if (r->status != 200 && r->status != 400)
            fail_msg("%s: %d %.300s", grammars[i].name, r->status, r->body);
        if (r->status == 400 && !strstr(r->body, "\"message\"") && !strstr(r->body, "\"error\""))
            fail_msg("%s: %.300s", grammars[i].name, r->body);
        if (ms > MS_MAX) fail_msg("%s: %.0f ms", grammars[i].name, ms);
        free(source);
        free(body);
    }
    end_pulse();
    answers_as_ever();
}

/* ---- templates (R12) -------------------------------------------------------------------------- */

static const char *const templates[] = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{% set x = s|upper %}{% endfor %}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{{ s.replace('a', s) }}{% endfor %}",
    "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ 2 ** 10 ** 10 }}",
    "{{ 'a'.center(10 ** 12) }}",
    "{% for i in range(99999) %}{% set x = x|default('') ~ 'x' * 99999 %}{{ x|tojson|tojson }}{% endfor %}",
};

static void templates_that_explode_are_refused_wherever_they_may_be_given(void **state) {
    (void)state;
    static const struct {
        const char *path, *begin;
    } routes[] = {
        {"/api/generate", "{\"model\":\"squish-tiny\",\"prompt\":\"a\",\"stream\":false,\"template\":\""},
        {"/api/create", "{\"model\":\"bomb\",\"from\":\"squish-tiny\",\"stream\":false,\"template\":\""},
    };
    begin_pulse();
    double slowest = 0;
    for (size_t i = 0; i < SQ_COUNT(templates); i++)
        for (size_t k = 0; k < SQ_COUNT(routes); k++) {
            char body[1024];
            snprintf(body, sizeof body, "%s%s\"}", routes[k].begin, templates[i]);
            const double begin = now_ms();
            const api_reply *r = ask(&server, "POST", routes[k].path, body);
            const double ms = now_ms() - begin;
            if (r->status != 400)
                fail_msg("%s %s: %d %.300s", routes[k].path, templates[i], r->status, r->body);
            if (ms > slowest) slowest = ms;
        }
    print_message("slowest template: %.0f ms\n", slowest);
    assert_true(slowest < MS_MAX);
    end_pulse();
    answers_as_ever();
}

/* ---- names (R13) ------------------------------------------------------------------------------ */

/* Beside the store lies a model that would open, and a link in the store leads to it: whatever of these names
 * became a path would be answered. */
static int n_names;

static void try_name(const char *name) {
    char body[1400];
    static const char *const routes[] = {CHAT, "/api/show", "/api/generate", "/v1/messages"};
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"prompt\":\"a\"," SAY "}", name);
    const char *route = routes[n_names % SQ_COUNT(routes)];
    const api_reply *r = ask(&server, "POST", route, body);
    if (r->status != 404 && r->status != 400) fail_msg("%s '%s': %d %.300s", route, name, r->status, r->body);
    r = ask(&server, "DELETE", "/api/delete", body);
    if (r->status != 404 && r->status != 400 && r->status != 403)
        fail_msg("delete '%s': %d %.300s", name, r->status, r->body);
    snprintf(body, sizeof body, "{\"source\":\"squish-tiny\",\"destination\":\"%s\"}", name);
    r = ask(&server, "POST", "/api/copy", body);
    if (r->status != 404 && r->status != 400) fail_msg("copy to '%s': %d %.300s", name, r->status, r->body);
    n_names++;
}

static void five_hundred_names_that_want_to_be_paths_open_nothing(void **state) {
    (void)state;
    static const char *const ups[] = {
        "../",  "..%2f",           "%2e%2e/",  "%2e%2e%2f",       "..\\\\",     "....//",   "./../", "..//",
        "..;/", "%252e%252e%252f", "..%c0%af", "\\uff0e\\uff0e/", "models/../", "a/../../", "/../"};
    static const char *const targets[] = {"outside", "outside/config.json", "home/models/link"};
    static const char *const ends[] = {"", "/", "/.", ":latest", "%00", "\\u0000", ".sqw", "@sha256:00"};
    char name[512];
    for (size_t u = 0; u < SQ_COUNT(ups); u++)
        for (int depth = 1; depth <= 2; depth++)
            for (size_t t = 0; t < SQ_COUNT(targets); t++)
                for (size_t e = 0; e < SQ_COUNT(ends); e++) {
                    char *p = name;
                    for (int d = 0; d < depth; d++) p = stpcpy(p, ups[u]);
                    p = stpcpy(p, targets[t]);
                    stpcpy(p, ends[e]);
                    if (strchr(name, '/') || strchr(name, '%') || strchr(name, '\\')) try_name(name);
                }
    const char *const others[] = {
        "%s/outside",   "file://%s/outside",          "%s/home/models/../../outside",
        "//%s/outside", "\\\\\\\\?\\\\%s\\\\outside", "%s/outside/."};
    for (size_t i = 0; i < SQ_COUNT(others); i++) {
        snprintf(name, sizeof name, others[i], work);
        try_name(name);
    }
    static const char *const odd[] = {
        "..",      ".",          "/",       "~",      "~root", "$HOME", "link/", "LINK/../link",
        "-rf",     "*",          "?",       "[a-z]*", "|id",   "`id`",  "$(id)", "sha256-00/../../outside",
        "con/.nul", "a\\u202eb/", "\\u0001", "\\ud800"};
    for (size_t i = 0; i < SQ_COUNT(odd); i++) try_name(odd[i]);
    print_message("%d names, each read, removed and written to\n", n_names);
    assert_true(n_names >= 500);
    assert_int_equal(ask(&server, "POST", CHAT, "{\"model\":\"link\"," SAY "}")->status, 404);
    snprintf(name, sizeof name, "%s/outside/config.json", work);
    struct stat st;
    assert_int_equal(stat(name, &st), 0); /* nothing was removed either */
    answers_as_ever();
}

/* ------------------------------------------------------------------------------------------------ */

static int setup(void **state) {
    (void)state;
    static char home[96];
    char path[512];
    snprintf(work, sizeof work, "/tmp/squish-attacks-XXXXXX");
    if (!mkdtemp(work)) return 1;
    snprintf(home, sizeof home, "%s/home", work);
    mkdir(home, 0700);
    snprintf(path, sizeof path, "%s/models", home);
    mkdir(path, 0700);
    sq_api_options o = api_options(&server);
    o.home = home;
    char *model = realpath(server.path, NULL);
    snprintf(path, sizeof path, "%s/outside", work);
    if (!model || symlink(model, path) != 0) return 1;
    snprintf(path, sizeof path, "%s/models/link", home);
    if (symlink(model, path) != 0) return 1;
    free(model);
    return api_start(&server, &o);
}

static int teardown(void **state) {
    (void)state;
    static const char *const made[] = {"/home/models/link", "/outside", "/home/models", "/home", ""};
    char path[512];
    api_end(&server);
    for (size_t i = 0; i < SQ_COUNT(made); i++) {
        snprintf(path, sizeof path, "%s%s", work, made[i]);
        remove(path);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammars_that_explode_are_refused_or_kept_to_and_nothing_stands_still),
        cmocka_unit_test(templates_that_explode_are_refused_wherever_they_may_be_given),
        cmocka_unit_test(five_hundred_names_that_want_to_be_paths_open_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
