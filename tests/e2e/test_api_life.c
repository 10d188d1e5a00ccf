/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_life.c - what happens around answers: clients that leave, drains, models that come and go, limits.
 */
#include "support/api_run.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#define CHAT "/v1/chat/completions"
/* An answer that takes as long as the window: end tokens are passed over. */
#define LONG                                                                                                 \
    "{\"stream\":true,\"ignore_eos\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Count for "         \
    "ever.\"}]}"
#define SHORT "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"

static json_t *health(const api_server *s) {
    const api_reply *r = ask(s, "GET", "/health", NULL);
    return json_loads(r->body, 0, NULL);
}

/* Until field of /health is `wanted`; false after a while that only catches hangs. */
static bool comes_to(const api_server *s, const char *field, json_int_t wanted) {
    for (int i = 0; i < 2000; i++) {
        json_t *h = health(s);
        const bool yes = int_at(h, field) == wanted;
        json_decref(h);
        if (yes) return true;
        usleep(5000);
    }
    return false;
}

/* Reads until the first frame has come, and leaves the connection open. */
static int begin_stream(const api_server *s, const char *body) {
    const int fd = api_send(s, "POST", CHAT, body);
    char text[4096] = "";
    size_t n = 0;
    while (n + 1 < sizeof text && !strstr(text, "data: ")) {
        const ssize_t k = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (k <= 0) break;
        text[n += (size_t)k] = 0;
    }
    assert_non_null(strstr(text, "data: "));
    return fd;
}

static void a_client_that_leaves_ends_its_answer(void **state) {
    (void)state;
    api_server s;
    assert_int_equal(api_start(&s, NULL), 0);
    for (int i = 0; i < 5; i++) {
        const int fd = begin_stream(&s, LONG);
        assert_true(comes_to(&s, "running", 1));
        close(fd);
        assert_true(comes_to(&s, "running", 0));
        assert_true(comes_to(&s, "inflight", 0));
    }
    /* also one that waits for a whole answer */
    const int fd = api_send(
        &s, "POST", CHAT, "{\"ignore_eos\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Count.\"}]}");
    assert_true(comes_to(&s, "running", 1));
    close(fd);
    assert_true(comes_to(&s, "inflight", 0));
    const api_reply *r = ask(&s, "GET", "/metrics", NULL);
    assert_non_null(strstr(r->body, "squish_requests_finished_total{reason=\"cancelled\"} 6\n"));
    api_end(&s);
}

static void a_request_is_cancelled_by_its_id_and_says_so(void **state) {
    (void)state;
    api_server s;
    assert_int_equal(api_start(&s, NULL), 0);
    const int fd = begin_stream(&s, LONG);
    json_t *slots = ask_json(&s, "GET", "/slots", NULL, 200);
    assert_int_equal(json_array_size(slots), 1);
    char path[200];
    snprintf(path, sizeof path, "/v1/requests/chatcmpl-%s/cancel", text_at(slots, "[0].id"));
    json_decref(slots);
    json_t *o = ask_json(&s, "POST", path, NULL, 200);
    assert_true(json_is_true(at(o, "cancelled")));
    json_decref(o);
    const api_reply *r = api_read(fd);
    (void)r;
    const char *error = strstr(r->head, "\"code\":\"cancelled\"") ? "yes"
                        : r->body                                 ? strstr(r->body, "\"cancelled\"")
                                                                  : NULL;
    assert_non_null(error);
    assert_true(comes_to(&s, "running", 0));
    api_end(&s);
}

static void streams_that_are_open_end_well_when_the_server_is_asked_to_go(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    assert_int_equal(api_start(&s, &o), 0);
    int fd[6];
    for (int i = 0; i < 6; i++)
        fd[i] = begin_stream(
            &s, "{\"stream\":true,\"ignore_eos\":true,\"max_tokens\":150,\"messages\":[{\"role\":"
                "\"user\",\"content\":\"Count.\"}]}");
    sq_api_stop(s.api);
    for (int i = 0; i < 6; i++) {
        char text[1 << 17];
        size_t n = 0;
        ssize_t k;
        while (n + 1 < sizeof text && (k = recv(fd[i], text + n, sizeof text - 1 - n, 0)) > 0) n += (size_t)k;
        text[n] = 0;
        close(fd[i]);
        assert_non_null(strstr(text, "\"finish_reason\":\"length\""));
        assert_non_null(strstr(text, "data: [DONE]"));
    }
    api_join(&s);
    assert_int_equal(s.status, SQUISH_OK);
    assert_int_equal(api_connect(&s), -1); /* nobody listens any more */
}

static void what_outlasts_the_drain_is_told_and_cut(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    o.drain_timeout_s = 0.2;
    assert_int_equal(api_start(&s, &o), 0);
    const int fd = begin_stream(&s, LONG);
    sq_api_stop(s.api);
    const api_reply *r = api_read(fd);
    assert_non_null(strstr(r->head, "\"code\":\"draining\""));
    api_join(&s);
    assert_int_equal(s.status, SQUISH_OK);
}

static void asked_twice_it_goes_at_once(void **state) {
    (void)state;
    api_server s;
    assert_int_equal(api_start(&s, NULL), 0);
    const int fd = begin_stream(&s, LONG);
    sq_api_stop(s.api);
    sq_api_stop(s.api);
    api_join(&s); /* does not wait for the answer */
    close(fd);
    assert_int_equal(s.status, SQUISH_OK);
}

static void limits_of_key_queue_and_time_have_their_own_status(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    o.key_limit = 2;
    assert_int_equal(api_start(&s, &o), 0);
    const int a = begin_stream(&s, LONG), b = begin_stream(&s, LONG);
    const api_reply *r = ask(&s, "POST", CHAT, SHORT);
    assert_int_equal(r->status, 429);
    assert_non_null(strcasestr(r->head, "retry-after: "));
    assert_non_null(strstr(r->body, "rate_limit_exceeded"));
    close(a);
    close(b);
    assert_true(comes_to(&s, "inflight", 0));
    api_end(&s);

    o = api_options(&s);
    o.request_timeout_s = 0.4;
    assert_int_equal(api_start(&s, &o), 0);
    r = ask(&s, "POST", CHAT, LONG); /* the stream breaks when its time is over */
    assert_non_null(strstr(r->body, "\"code\":\"timeout\""));
    assert_true(comes_to(&s, "inflight", 0));
    json_t *e =
        ask_json(&s, "POST", CHAT,
                 "{\"ignore_eos\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Count.\"}]}", 408);
    assert_string_equal(text_at(e, "error.code"), "timeout");
    json_decref(e);
    api_end(&s);

    o = api_options(&s);
    o.parallel = 1;
    o.queue_max = 1;
    assert_int_equal(api_start(&s, &o), 0);
    const int c = begin_stream(&s, LONG), d = api_send(&s, "POST", CHAT, LONG);
    assert_true(comes_to(&s, "queued", 1));
    r = ask(&s, "POST", CHAT, SHORT);
    assert_int_equal(r->status, 503);
    assert_non_null(strstr(r->body, "queue_full"));
    assert_non_null(strcasestr(r->head, "retry-after: "));
    close(c);
    close(d);
    assert_true(comes_to(&s, "inflight", 0) && comes_to(&s, "queued", 0));
    assert_int_equal(ask(&s, "POST", CHAT, SHORT)->status, 200);
    api_end(&s);
}

/* ---- models ---------------------------------------------------------------------------------- */

static bool is_loaded(const api_server *s, const char *name) {
    json_t *o = ask_json(s, "GET", "/v1/models", NULL, 200);
    const json_t *m;
    size_t i;
    bool yes = false, listed = false;
    json_array_foreach(at(o, "data"), i, m) {
        if (strcmp(text_at(m, "id"), name) != 0) continue;
        listed = true;
        yes = strcmp(text_at(m, "squish.state"), "loaded") == 0;
    }
    assert_true(listed);
    json_decref(o);
    return yes;
}

/* A store with a model of its own beside the one of the command line: a folder of links to the shipped files.
 */
static void make_store(const char *home, const char *model) {
    char line[9000];
    snprintf(
        line, sizeof line,
        "mkdir -p '%s/models/second' && cp -r '%s'/* '%s/models/second/' && ln -s /etc '%s/models/outside'",
        home, model, home, home);
    assert_int_equal(system(line), 0);
}

static void a_second_model_comes_when_asked_for_and_goes_when_idle(void **state) {
    (void)state;
    char home[] = "/tmp/squish-api-XXXXXX", line[200];
    assert_non_null(mkdtemp(home));
    api_server s;
    sq_api_options o = api_options(&s);
    make_store(home, s.path);
    o.home = home;
    o.keep_alive_s = 0.3;
    assert_int_equal(api_start(&s, &o), 0);
    assert_true(is_loaded(&s, "squish-tiny"));
    assert_false(is_loaded(&s, "second"));
    /* both at once, several who wait for the same load */
    int fd[4];
    for (int i = 0; i < 4; i++)
        fd[i] = api_send(&s, "POST", CHAT,
                         "{\"model\":\"second\",\"temperature\":0,\"messages\":[{\"role\":\"user\","
                         "\"content\":\"What is the "
                         "capital of Japan?\"}]}");
    assert_int_equal(ask(&s, "POST", CHAT, SHORT)->status, 200);
    for (int i = 0; i < 4; i++) {
        const api_reply *r = api_read(fd[i]);
        assert_int_equal(r->status, 200);
        assert_non_null(strstr(r->body, "The capital of Japan is Tokyo."));
        assert_non_null(strstr(r->body, "\"model\":\"second\""));
    }
    for (int i = 0; i < 2000 && is_loaded(&s, "second"); i++) usleep(5000);
    assert_false(is_loaded(&s, "second"));
    assert_true(is_loaded(&s, "squish-tiny")); /* the command line's stays */
    assert_int_equal(ask(&s, "POST", CHAT,
                         "{\"model\":\"second\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\","
                         "\"content\":\"x\"}]}")
                         ->status,
                     200); /* and back */
    /* a link that leads out of the store is no model of it */
    assert_int_equal(
        ask(&s, "POST", CHAT, "{\"model\":\"outside\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}")
            ->status,
        404);
    api_end(&s);
    assert_int_equal(s.status, SQUISH_OK);
    snprintf(line, sizeof line, "rm -rf '%s'", home);
    assert_int_equal(system(line), 0);
}

static uint64_t bytes_of_one(const sq_api_options *o) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_mem_estimate e = {0};
    squish_model *m = NULL;
    mo.tier = o->tier;
    eo.ctx_tokens = o->ctx_tokens;
    assert_int_equal(squish_model_open(&m, o->models[0].path, &mo, NULL), SQUISH_OK);
    assert_int_equal(squish_engine_estimate(m, &eo, &e, NULL), SQUISH_OK);
    squish_model_close(m);
    return e.total_bytes;
}

static void a_model_that_does_not_fit_makes_room_or_is_refused(void **state) {
    (void)state;
    char home[] = "/tmp/squish-api-XXXXXX", line[200];
    assert_non_null(mkdtemp(home));
    api_server s;
    sq_api_options o = api_options(&s);
    make_store(home, s.path);
    snprintf(line, sizeof line, "cp -r '%s/models/second' '%s/models/third'", home, home);
    assert_int_equal(system(line), 0);
    o.home = home;
    o.ctx_tokens = 256;
    o.parallel = 1;
    const uint64_t one = bytes_of_one(&o);
    o.memory_limit = one * 5 / 2; /* two of them, not three */
    assert_int_equal(api_start(&s, &o), 0);
    static const char body[] =
        "{\"model\":\"%s\",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    char text[200];
    snprintf(text, sizeof text, body, "second");
    const int first = ask(&s, "POST", CHAT, text)->status;
    snprintf(text, sizeof text, body, "third");
    const int second = ask(&s, "POST", CHAT, text)->status;
    assert_int_equal(first, 200);
    assert_int_equal(second, 200);
    assert_false(is_loaded(&s, "second") && is_loaded(&s, "third")); /* the idle one had to go */
    api_end(&s);
    o.memory_limit = one * 3 / 2; /* room for the pinned one only */
    s.port = 0;
    s.is_ready = false;
    assert_int_equal(api_start(&s, &o), 0);
    json_t *e = ask_json(&s, "POST", CHAT, text, 503);
    assert_string_equal(text_at(e, "error.code"), "insufficient_memory");
    json_decref(e);
    assert_int_equal(ask(&s, "POST", CHAT, SHORT)->status, 200);
    api_end(&s);
    snprintf(line, sizeof line, "rm -rf '%s'", home);
    assert_int_equal(system(line), 0);
}

static void a_model_of_the_command_line_that_cannot_be_opened_ends_the_server(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    s.model.path = "/nowhere/at/all";
    assert_int_equal(api_start(&s, &o), 1);
    api_join(&s);
    assert_int_equal(s.status, SQUISH_NOT_FOUND);
    assert_non_null(strstr(s.err.text, "/nowhere/at/all"));
}

static void metrics_have_the_names_of_the_contract(void **state) {
    (void)state;
    static const char *const names[] = {
        "squish_requests_total",
        "squish_tokens_generated_total",
        "squish_inflight_requests",
        "squish_avg_tokens_per_second",
        "squish_avg_ttft_seconds",
        "squish_uptime_seconds",
        "squish_model_load_seconds",
        "squish_prefix_cache_hits_total",
        "squish_radix_prefix_hits_total",
        "squish_paged_kv_free_blocks",
        "squish_paged_kv_used_blocks",
        "squish_kv_cache_tokens",
        "squish_kv_cache_memory_mb",
        "squish_ttft_seconds_bucket",
        "squish_inter_token_seconds_sum",
        "squish_queue_seconds_count",
        "squish_prefill_tokens_bucket",
        "squish_step_seconds_bucket",
        "squish_requests_finished_total{reason=\"stop\"}",
        "squish_http_requests_total{route=\"/v1/chat/completions\",code=\"200\"}",
        "squish_cached_prompt_tokens_total",
        "squish_preemptions_total",
        "squish_cancelled_total",
        "squish_batch_size",
        "squish_queue_depth",
        "squish_rss_bytes"};
    api_server s;
    assert_int_equal(api_start(&s, NULL), 0);
    assert_int_equal(ask(&s, "POST", CHAT, SHORT)->status, 200);
    static const char *const paths[] = {"/metrics", "/v1/metrics"};
    for (size_t k = 0; k < 2; k++) {
        const api_reply *r = ask(&s, "GET", paths[k], NULL);
        assert_int_equal(r->status, 200);
        for (size_t i = 0; i < SQ_COUNT(names); i++)
            if (!strstr(r->body, names[i])) fail_msg("%s: no %s", paths[k], names[i]);
    }
    api_end(&s);
}

/* ---- privacy --------------------------------------------------------------------------------- */

static json_int_t cached(const api_server *s) {
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 16);
    sq_buf_puts(&b, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 200; i++) sq_buf_puts(&b, "Secret words. ");
    sq_buf_puts(&b, "\"}]}");
    json_t *o = ask_json(s, "POST", CHAT, b.data, 200);
    assert_non_null(o);
    const json_int_t n = int_at(o, "usage.prompt_tokens_details.cached_tokens");
    json_decref(o);
    sq_buf_deinit(&b);
    return n;
}

static void a_prompt_is_kept_for_its_own_key_alone(void **state) {
    (void)state;
    static const char *const keys[] = {"alpha", "beta"};
    api_server s;
    sq_api_options o = api_options(&s);
    o.keys = keys;
    o.n_keys = 2;
    assert_int_equal(api_start(&s, &o), 0);
    s.key = "alpha";
    assert_int_equal(cached(&s), 0);
    assert_true(cached(&s) >= 256); /* the second time most of it is there */
    s.key = "beta";
    assert_int_equal(cached(&s), 0); /* nobody else can tell */
    api_end(&s);
}

static void the_log_has_one_line_a_request_and_prompts_only_if_asked(void **state) {
    (void)state;
    for (int with = 0; with < 2; with++) {
        char path[] = "/tmp/squish-log-XXXXXX", text[1 << 14];
        close(mkstemp(path));
        api_server s;
        sq_api_options o = api_options(&s);
        o.log_path = path;
        o.log_prompts = with;
        assert_int_equal(api_start(&s, &o), 0);
        assert_int_equal(ask(&s, "POST", CHAT, SHORT)->status, 200);
        assert_int_equal(ask(&s, "POST", CHAT, "{\"messages\":\"Hi\"}")->status, 400);
        assert_int_equal(ask(&s, "GET", "/no/such", NULL)->status, 404);
        api_end(&s);
        FILE *f = fopen(path, "rb");
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        unlink(path);
        int n = 0;
        for (char *p = text, *end; (end = strchr(p, '\n')); p = end + 1, n++) {
            json_t *line = json_loadb(p, (size_t)(end - p), 0, NULL);
            static const int status[] = {200, 400, 404};
            assert_in_range(n, 0, 2);
            assert_int_equal(int_at(line, "status"), status[n]);
            assert_true(text_at(line, "id") && text_at(line, "time") && json_is_number(at(line, "ms")));
            if (n == 0) assert_int_equal(int_at(line, "completion_tokens"), 2);
            if (n == 1) assert_string_equal(text_at(line, "error"), "invalid_type");
            json_decref(line);
        }
        assert_int_equal(n, 3);
        assert_int_equal(strstr(text, "\"content\":\"Hi\"") != NULL, with);
    }
}

static void write_keys(const char *path, const char *key) {
    FILE *f = fopen(path, "wb");
    fputs(key, f);
    fclose(f);
}

/* ---- the program ----------------------------------------------------------------------------- */

static void the_program_serves_until_it_gets_a_signal(void **state) {
    (void)state;
    const char *bin = getenv("SQUISH_BIN") ? getenv("SQUISH_BIN") : "build/squish";
    char keys[] = "/tmp/squish-keys-XXXXXX";
    close(mkstemp(keys)); /* mode 0600 */
    write_keys(keys, "alpha\n");
    api_server s = {.key = "alpha"};
    char line[400];
    int out[2];
    assert_int_equal(pipe(out), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        execl(bin, bin, "serve", "--port", "0", "--json", "--quiet", "--tier", "source", "--api-key-file",
              keys, "--log-file", "/dev/null", NULL);
        _exit(127);
    }
    close(out[1]);
    size_t n = 0;
    ssize_t k;
    while (n + 1 < sizeof line && (k = read(out[0], line + n, sizeof line - 1 - n)) > 0) {
        n += (size_t)k;
        if (memchr(line, '\n', n)) break;
    }
    line[n] = 0;
    json_t *o = json_loads(line, JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(text_at(o, "ready"));
    assert_true(json_is_number(at(o, "load_ms")));
    s.port = (int)strtol(strrchr(text_at(o, "ready"), ':') + 1, NULL, 10);
    json_decref(o);
    json_t *h = health(&s);
    assert_string_equal(text_at(h, "status"), "ok");
    json_decref(h);
    const int fd = begin_stream(
        &s, "{\"stream\":true,\"ignore_eos\":true,\"max_tokens\":400,\"messages\":[{\"role\":\"user\","
            "\"content\":\"Count.\"}]}");
    write_keys(keys, "beta\n"); /* a reload changes who may ask, and breaks no stream */
    kill(pid, SIGHUP);
    s.key = "beta";
    for (int i = 0; i < 2000 && ask(&s, "GET", "/v1/models", NULL)->status != 200; i++) usleep(5000);
    assert_int_equal(ask(&s, "GET", "/v1/models", NULL)->status, 200);
    s.key = "alpha";
    assert_int_equal(ask(&s, "GET", "/v1/models", NULL)->status, 401);
    kill(pid, SIGTERM);
    static char text[1 << 18];
    n = 0;
    while (n + 1 < sizeof text && (k = recv(fd, text + n, sizeof text - 1 - n, 0)) > 0) n += (size_t)k;
    text[n] = 0;
    close(fd);
    close(out[0]);
    unlink(keys);
    assert_non_null(strstr(text, "data: [DONE]"));
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_leaves_ends_its_answer),
        cmocka_unit_test(a_request_is_cancelled_by_its_id_and_says_so),
        cmocka_unit_test(streams_that_are_open_end_well_when_the_server_is_asked_to_go),
        cmocka_unit_test(what_outlasts_the_drain_is_told_and_cut),
        cmocka_unit_test(asked_twice_it_goes_at_once),
        cmocka_unit_test(limits_of_key_queue_and_time_have_their_own_status),
        cmocka_unit_test(a_second_model_comes_when_asked_for_and_goes_when_idle),
        cmocka_unit_test(a_model_that_does_not_fit_makes_room_or_is_refused),
        cmocka_unit_test(a_model_of_the_command_line_that_cannot_be_opened_ends_the_server),
        cmocka_unit_test(metrics_have_the_names_of_the_contract),
        cmocka_unit_test(a_prompt_is_kept_for_its_own_key_alone),
        cmocka_unit_test(the_log_has_one_line_a_request_and_prompts_only_if_asked),
        cmocka_unit_test(the_program_serves_until_it_gets_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
