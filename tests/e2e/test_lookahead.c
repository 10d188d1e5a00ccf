/* SPDX-License-Identifier: Apache-2.0
 *
 * test_lookahead.c - guesses of experts in streamed models: the same bits with every kind, with maps that are
 * whole, damaged, of another model and missing, each with a clear status; none where nothing is streamed;
 * what calibrate, bench, run and serve say of them. */
#include "support/api_run.h"
#include "support/cli_sh.h"
#include "support/model_run.h"

#include "squish_build.h"

enum { TOKENS = 120, CTX = 256 };

static const char moe[] = "models/squish-tiny-moe/squish_q8/model.sqw";
static char path[300], maps[320]; /* a link to that, and its maps */

static int begin(void **state) {
    char here[2048];
    if (cli_begin(state)) return 1;
    snprintf(path, sizeof path, "%s/model.sqw", cli_folder);
    snprintf(maps, sizeof maps, "%s.lookahead", path);
    char *full = realpath(moe, NULL);
    snprintf(here, sizeof here, "%s", full ? full : "");
    free(full);
    return symlink(here, path);
}

/* ---- answers --------------------------------------------------------------------------------- */

static run open_streamed(squish_lookahead kind) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = CTX;
    o.chunk_tokens = 48;
    run_limit(path, 0.7, &o);
    o.agile.lookahead = kind;
    return run_open(path, SQUISH_TIER_AUTO, &o);
}

static const int32_t prompt[] = {17, 301, 4021, 77, 1200, 6, 93};

static void check(squish_lookahead kind, const int32_t *wanted, squish_lookahead used, const char *why) {
    run x = open_streamed(kind);
    int32_t got[TOKENS];
    squish_lookahead_info l;
    squish_engine_info i;
    run_greedy(&x, prompt, SQ_COUNT(prompt), got, TOKENS);
    assert_memory_equal(got, wanted, sizeof got);
    squish_engine_get_lookahead(x.e, &l);
    squish_engine_get_info(x.e, &i);
    assert_true(i.agile.on && i.agile.bytes_read > 0);
    assert_int_equal(l.kind, used);
    assert_non_null(strstr(l.why, why));
    if (!*why) assert_string_equal(l.why, "");
    if (used != SQUISH_LOOKAHEAD_OFF) {
        assert_true(l.tokens > 0 && l.strict > 0 && l.strict <= l.covered && l.covered <= 1);
        assert_true(l.resident > 0 && l.resident < 1 && l.us_layer > 0);
        assert_true(l.hit_bytes > 0 && l.miss_bytes > 0);
        assert_true(used == SQUISH_LOOKAHEAD_T0 || l.predicted_bytes > 0);
        assert_true(l.wasted_bytes <= i.agile.bytes_read);
    } else {
        assert_int_equal(l.tokens + l.predicted_bytes + l.hit_bytes, 0);
    }
    run_close(&x);
}

static void fit(int32_t tokens) {
    squish_model *m;
    squish_error err = {0};
    squish_calibrate_options o = squish_calibrate_options_default();
    squish_calibrate_result r;
    o.tokens_max = tokens;
    assert_ok(squish_model_open(&m, path, NULL, &err), &err);
    assert_ok(squish_calibrate_lookahead(m, NULL, &o, &r, &err), &err);
    assert_string_equal(r.file, maps);
    assert_int_equal(r.n_inputs, 6);
    squish_model_close(m);
}

static void answers_of_streamed_experts_do_not_depend_on_guesses(void **state) {
    (void)state;
    int32_t wanted[TOKENS];
    squish_engine_options o = squish_engine_options_default();
    squish_lookahead_info l;
    o.ctx_tokens = CTX;
    o.agile.lookahead = SQUISH_LOOKAHEAD_ROUTER;
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    run_greedy(&x, prompt, SQ_COUNT(prompt), wanted, TOKENS);
    squish_engine_get_lookahead(x.e, &l); /* nothing is streamed: nobody guesses */
    assert_int_equal(l.kind, SQUISH_LOOKAHEAD_OFF);
    assert_int_equal(l.tokens, 0);
    run_close(&x);
    check(SQUISH_LOOKAHEAD_OFF, wanted, SQUISH_LOOKAHEAD_OFF, "");
    check(SQUISH_LOOKAHEAD_T0, wanted, SQUISH_LOOKAHEAD_T0, "");
    check(SQUISH_LOOKAHEAD_ROUTER, wanted, SQUISH_LOOKAHEAD_ROUTER, "");
    check(SQUISH_LOOKAHEAD_AUTO, wanted, SQUISH_LOOKAHEAD_ROUTER, "");
    check(SQUISH_LOOKAHEAD_CALIBRATED, wanted, SQUISH_LOOKAHEAD_ROUTER, "No such file");
    fit(512);
    check(SQUISH_LOOKAHEAD_AUTO, wanted, SQUISH_LOOKAHEAD_CALIBRATED, "");
    check(SQUISH_LOOKAHEAD_CALIBRATED, wanted, SQUISH_LOOKAHEAD_CALIBRATED, "");
    /* One byte of a map, then text of no kind. */
    assert_int_equal(sh("printf x | dd of='%s' bs=1 seek=200000 conv=notrunc", maps)->status, 0);
    check(SQUISH_LOOKAHEAD_AUTO, wanted, SQUISH_LOOKAHEAD_ROUTER, "the data are damaged");
    assert_int_equal(sh("echo garbage > '%s'", maps)->status, 0);
    check(SQUISH_LOOKAHEAD_AUTO, wanted, SQUISH_LOOKAHEAD_ROUTER, maps);
    assert_int_equal(sh("rm '%s'", maps)->status, 0);
}

/* ---- what is measured ------------------------------------------------------------------------ */

typedef struct {
    int32_t rows, mean;
    double strict, covered;
} heard;

static void hear(void *user, const squish_lookahead_row *r) {
    heard *h = user;
    h->rows++;
    assert_true(r->tokens > 0 && r->strict > 0 && r->strict <= r->covered && r->covered <= 1);
    if (r->layer >= 0) return;
    h->mean++;
    h->strict = r->strict, h->covered = r->covered;
}

/* Maps fitted to a text, measured on another: far more than chance, and more than routers alone. */
static void fitted_maps_guess_better_than_routers(void **state) {
    (void)state;
    static char text[1 << 16];
    squish_model *m;
    squish_error err = {0};
    heard h[2] = {{0}, {0}};
    squish_lookahead_result r;
    squish_calibrate_options o = squish_calibrate_options_default();
    FILE *f = fopen("tests/fixtures/own-prose.txt", "rb");
    assert_non_null(f);
    o.text_bytes = fread(text, 1, sizeof text, f);
    fclose(f);
    o.text = text;
    o.tokens_max = 1024;
    fit(3000); /* of the built-in text */
    assert_ok(squish_model_open(&m, path, NULL, &err), &err);
    for (int32_t k = 0; k < 2; k++) {
        const squish_lookahead_options l = {
            .kind = k ? SQUISH_LOOKAHEAD_CALIBRATED : SQUISH_LOOKAHEAD_ROUTER, .extra = 1, .at_once = 8};
        assert_ok(squish_lookahead_measure(m, &l, &o, hear, &h[k], &r, &err), &err);
        assert_int_equal(h[k].mean, 1);
        assert_int_equal(r.used, 2);
        assert_int_equal(r.experts, 16);
        printf("%s: strict %.3f, covered %.3f\n", k ? "calibrated" : "router", h[k].strict, h[k].covered);
    }
    assert_true(h[0].strict >= 0.75);
    assert_true(h[1].strict >= 0.86 && h[1].strict > h[0].strict);
    assert_true(h[1].covered >= 0.95);
    assert_int_equal(h[0].rows, 6 + 1);
    assert_int_equal(h[1].rows, 12 + 1);
    squish_model_close(m);
    assert_int_equal(sh("rm '%s'", maps)->status, 0);
}

/* ---- the program ----------------------------------------------------------------------------- */

static void calibrate_says_what_it_made_and_refuses_what_has_no_experts(void **state) {
    (void)state;
    const cli_result *r = sh("$S calibrate $T/model.sqw --moe --tokens 256 --quiet --json");
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_int_equal(json_integer_value(json_object_get(o, "layers")), 6);
    assert_int_equal(json_integer_value(json_object_get(o, "tokens")), 256);
    assert_string_equal(json_string_value(json_object_get(o, "file")), maps);
    json_decref(o);
    r = sh("$S calibrate $T/model.sqw --moe --tokens 256 --quiet -o $T/a.lookahead --threads 1 && "
           "cmp $T/a.lookahead $T/model.sqw.lookahead");
    assert_int_equal(r->status, 0);
    r = sh("$S calibrate squish-tiny --moe --quiet -o $T/no");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "has no experts to look ahead for"));
    r = sh("printf 'too short' > $T/s.txt; $S calibrate $T/model.sqw --moe --quiet --text $T/s.txt -o $T/no");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "wanted at least 128"));
    assert_int_equal(sh("test -e $T/no")->status, 1);
}

static void run_says_what_guesses_did(void **state) {
    (void)state;
    const char *line =
        "$S run $T/model.sqw 'The fox' --raw -n 40 --temp 0 --json --memory-limit 40M --ctx 256 -q";
    const cli_result *r = sh("%s", line);
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r), *l = json_object_get(o, "lookahead");
    assert_string_equal(json_string_value(json_object_get(l, "kind")), "calibrated");
    assert_true(json_number_value(json_object_get(l, "strict")) > 0.5);
    assert_true(json_integer_value(json_object_get(l, "tokens")) > 0);
    char *text = strdup(json_string_value(json_object_get(o, "text")));
    json_decref(o);
    assert_int_equal(sh("echo garbage > $T/model.sqw.lookahead")->status, 0);
    r = sh("%s -v", line);
    assert_int_equal(r->status, 0);
    o = cli_json(r);
    l = json_object_get(o, "lookahead");
    assert_string_equal(json_string_value(json_object_get(l, "kind")), "router");
    assert_non_null(strstr(json_string_value(json_object_get(l, "why")), "model.sqw.lookahead"));
    assert_string_equal(json_string_value(json_object_get(o, "text")), text);
    json_decref(o);
    r = sh("%s --lookahead off", line);
    o = cli_json(r);
    assert_string_equal(json_string_value(json_object_get(json_object_get(o, "lookahead"), "kind")), "off");
    assert_string_equal(json_string_value(json_object_get(o, "text")), text);
    json_decref(o);
    r = sh("$S run $T/model.sqw 'The fox' --raw -n 4 --temp 0 --json --ctx 256 -q");
    o = cli_json(r);
    assert_null(json_object_get(o, "lookahead"));
    json_decref(o);
    free(text);
    assert_int_equal(sh("rm $T/model.sqw.lookahead")->status, 0);
}

static void bench_has_rows_of_recall_and_of_cost(void **state) {
    (void)state;
    const cli_result *r = sh("head -c 4000 tests/fixtures/own-prose.txt > $T/t.txt; "
                             "$S bench moe $T/model.sqw --text $T/t.txt --runs 1 --json -q");
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    const json_t *row;
    size_t i;
    int32_t means = 0, costs = 0, layers = 0;
    json_array_foreach(json_object_get(o, "rows"), i, row) {
        const char *bench = json_string_value(json_object_get(row, "bench"));
        const bool recall = strcmp(bench, "moe recall") == 0;
        means += recall && json_integer_value(json_object_get(row, "layer")) < 0;
        layers += recall && json_integer_value(json_object_get(row, "layer")) >= 0;
        costs += strcmp(bench, "moe cost") == 0;
        assert_true(json_number_value(json_object_get(row, "value")) > 0);
    }
    assert_int_equal(means, 3);
    assert_int_equal(layers, 6 + 6 + 12);
    assert_int_equal(costs, 3);
    json_decref(o);
    r = sh("$S bench moe squish-tiny --runs 1 -q");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "has no experts"));
}

static void the_server_counts_them(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    snprintf(s.path, sizeof s.path, "%s", path);
    o.tier = SQUISH_TIER_AUTO;
    o.memory_limit = 40 << 20;
    o.agile = true;
    o.ctx_tokens = CTX;
    o.parallel = 1;
    api_start(&s, &o);
    const api_reply *r = ask(&s, "POST", "/v1/completions",
                             "{\"prompt\": \"The fox\", \"max_tokens\": 40, \"temperature\": 0}");
    assert_int_equal(r->status, 200);
    r = ask(&s, "GET", "/metrics", NULL);
    assert_int_equal(r->status, 200);
    static const char *const names[] = {"hit_bytes_total", "miss_bytes_total", "predicted_bytes_total",
                                        "strict_recall", "covered_recall"};
    assert_non_null(strstr(r->body, "squish_moe_wasted_bytes_total{"));
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        char name[64];
        snprintf(name, sizeof name, "squish_moe_%s{", names[i]);
        const char *at = strstr(r->body, name);
        assert_non_null(at);
        assert_true(strtod(strstr(at, "} ") + 2, NULL) > 0);
    }
    api_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_of_streamed_experts_do_not_depend_on_guesses),
        cmocka_unit_test(fitted_maps_guess_better_than_routers),
        cmocka_unit_test(calibrate_says_what_it_made_and_refuses_what_has_no_experts),
        cmocka_unit_test(run_says_what_guesses_did),
        cmocka_unit_test(bench_has_rows_of_recall_and_of_cost),
        cmocka_unit_test(the_server_counts_them),
    };
    run_sampled("answers_of_streamed*");
    return cmocka_run_group_tests(tests, begin, cli_end);
}
