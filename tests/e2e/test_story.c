/* SPDX-License-Identifier: Apache-2.0
 *
 * test_story.c - poc and bench eoe: every step is a check, figures stand beside those first reported, the
 * page says what the JSON says, and another server is asked the way its clients ask it. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char page[1 << 19];

static const json_t *named(const json_t *list, const char *name) {
    size_t i;
    const json_t *o;
    json_array_foreach(list, i,
                       o) if (strcmp(json_string_value(json_object_get(o, "name")), name) == 0) return o;
    fail_msg("no '%s'", name);
    return NULL;
}

/* Every figure beside a reported one stands in the page as it is printed there. */
static void check_page(const json_t *report) {
    size_t i, n = 0;
    const json_t *r;
    cli_slurp("report/index.html", page, sizeof page);
    assert_non_null(strstr(page, "</html>"));
    assert_null(strstr(page, "<script"));
    json_array_foreach(json_object_get(report, "beside"), i, r) {
        char text[64];
        const json_t *v = json_object_get(r, "value");
        const double x = json_number_value(v), size = x < 0 ? -x : x;
        if (!json_is_number(v)) continue;
        snprintf(text, sizeof text,
                 size >= 1000  ? "<td>%.0f<td"
                 : size >= 100 ? "<td>%.4g<td"
                               : "<td>%.3g<td",
                 x);
        if (!strstr(page, text)) fail_msg("%s is not in the page", text);
        n++;
    }
    assert_true(n >= 6);
}

static void poc_tells_the_whole_story(void **state) {
    (void)state;
    static const char *const checks[] = {"machine", "checkpoint",     "compress",
                                         "weights", "the tier alone", "first tokens of five prompts"};
    const cli_result *r = sh("$S poc --runs 1 --skip-download --skip-reference --report $T/report --json");
    json_t *o = cli_json(r), *written;
    char text[1 << 16];
    if (r->status != 0) fail_msg("status %d: %s%s", r->status, r->err, r->out);
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        assert_true(json_is_true(json_object_get(named(json_object_get(o, "checks"), checks[i]), "ok")));
    assert_true(json_number_value(json_object_get(named(json_object_get(o, "beside"), "decode"), "limit")) >
                0);
    check_page(o);
    cli_slurp("report/bench.json", text, sizeof text);
    written = json_loads(text, 0, NULL);
    assert_true(json_equal(json_object_get(written, "beside"), json_object_get(o, "beside")));
    json_decref(written);
    json_decref(o);
}

/* Every row of the first report has one of ours beside it, or says why there is none; cold reads where the
 * device can be read past the page cache. */
static void wave12_leaves_no_row_of_the_report_alone(void **state) {
    (void)state;
    const cli_result *r = sh("$S bench wave12 --runs 1 -q --json");
    json_t *o = cli_json(r), *beside = json_object_get(o, "beside"), *row;
    size_t i;
    assert_int_equal(r->status, 0);
    json_array_foreach(beside, i, row) {
        if (json_is_number(json_object_get(row, "value"))) continue;
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *why = json_string_value(json_object_get(row, "note"));
        if (strncmp(why, "not ", 4) == 0 && !strstr(name, "AgileIO"))
            fail_msg("'%s' has neither figure nor reason", name);
    }
    assert_true(json_number_value(json_object_get(named(beside, "AgileIO, cached read"), "value")) > 0);
    json_decref(o);
}

static void a_server_is_asked_as_its_clients_do(void **state) {
    (void)state;
    const cli_result *r =
        sh("$S serve squish-tiny --port 0 --json > $T/serve.log 2>&1 & p=$!; i=0; "
           "until grep -q http $T/serve.log || [ $i -gt 300 ]; do i=$((i + 1)); sleep 0.1; done; "
           "u=$(grep -o 'http://[0-9.:]*' $T/serve.log | head -n 1); "
           "$S bench eoe --runs 2 --peer self=$u#squish-tiny --json; s=$?; kill $p; wait $p; exit $s");
    json_t *o = cli_json(r);
    if (r->status != 0) fail_msg("status %d: %s", r->status, r->err);
    const json_t *rows = json_object_get(o, "rows");
    static const char *const names[] = {"self: first token, first run", "self: first token, put out before",
                                        "self: first token, loaded", "self: decode"};
    for (size_t i = 0; i < 4; i++)
        assert_true(json_number_value(json_object_get(named(rows, names[i]), "value")) > 0);
    assert_true(json_number_value(json_object_get(json_object_get(o, "quality"), "cos_min")) > 0.98);
    json_decref(o);
}

static void what_cannot_be_measured_is_said(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
        int status;
    } cases[] = {
        {"$S poc nobody", "no model 'nobody' here", 3},
        {"cp \"$(ls -d models)\"/../README.md $T/x.gguf; $S poc $T/x.gguf", "poc takes a checkpoint folder",
         2},
        {"$S poc --help", "", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cli_result *r = sh("%s", cases[i].line);
        if (r->status != cases[i].status || !strstr(r->err, cases[i].says))
            fail_msg("%s: status %d: %s", cases[i].line, r->status, r->err);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poc_tells_the_whole_story),
        cmocka_unit_test(wave12_leaves_no_row_of_the_report_alone),
        cmocka_unit_test(a_server_is_asked_as_its_clients_do),
        cmocka_unit_test(what_cannot_be_measured_is_said),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
