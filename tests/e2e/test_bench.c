/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bench.c - the benches of speed give every row they promise, with figures that fit each other. No
 * figure is held against a clock. */
#include "base/base.h"
#include "support/cli_sh.h"

#include <math.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

static double number(const json_t *row, const char *key) {
    const json_t *v = json_object_get(row, key);
    assert_true(json_is_number(v) && isfinite(json_number_value(v)));
    return json_number_value(v);
}

/* names: those of the rows, separated by commas. Of one run the share is that of value and limit. */
static void expect_rows(const char *command, const char *names, bool limited) {
    const cli_result *r =
        sh("$S bench %s --runs %d --threads 2 -q --json", command, limited ? 1 : 3);
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_non_null(o);
    const json_t *row, *rows = json_object_get(o, "rows");
    size_t i;
    char found[1024] = "";
    json_array_foreach(rows, i, row) {
        const size_t at = strlen(found);
        snprintf(found + at, sizeof found - at, "%s%s", i ? "," : "",
                 json_string_value(json_object_get(row, "name")));
        const double value = number(row, "value");
        assert_true(value > 0 && number(row, "min") <= value && value <= number(row, "max"));
        assert_true(number(row, "noise") <= number(row, "max") - number(row, "min"));
        assert_int_equal((int)number(row, "runs"), limited ? 1 : 3);
        if (!limited) continue;
        const double ratio = value / number(row, "limit"), share = number(row, "share");
        const bool small = strcmp(json_string_value(json_object_get(row, "unit")), "ms") == 0;
        assert_true(fabs(share - (small ? 1 / ratio : ratio)) < 1e-6 * share);
        assert_true(number(row, "at") >= 1 && number(row, "ops_per_byte") > 0);
        assert_true(number(row, "gop_s") > 0 && number(row, "read_gb_s") > 0);
    }
    assert_string_equal(found, names);
    json_decref(o);
}

static void every_row_is_there(void **state) {
    (void)state;
    expect_rows("limits", "read memory,int8 dot products,f32 multiply-adds", false);
    expect_rows("decode squish-tiny --max-ctx 64", "decode at 16,decode at 64", true);
    expect_rows("threads squish-tiny",
                "decode, 1 thread,prefill 128, 1 thread,decode, 2 threads,prefill 128, 2 threads", true);
    expect_rows("tokenizer squish-tiny", "encode whole,encode 1 kB pieces,decode tokens", false);
    expect_rows("batch,prefill,decode squish-tiny --at 3,9",
                "decode at 3,decode at 9,prefill 3,first token after 3,prefill 9,first token after 9,batch 3,"
                "batch 9",
                true);
}

static void the_instruction_set_can_be_capped(void **state) {
    (void)state;
    json_t *o =
        cli_json(sh("$S bench decode squish-tiny --at 1 --runs 1 --threads 2 --isa scalar -q --json"));
    assert_string_equal(json_string_value(json_object_get(o, "isa")), "scalar");
    json_t *best = cli_json(sh("$S bench decode squish-tiny --at 1 --runs 1 --threads 2 -q --json"));
    const double slow = number(json_array_get(json_object_get(o, "rows"), 0), "dots_gop_s");
    const double fast = number(json_array_get(json_object_get(best, "rows"), 0), "dots_gop_s");
    const char *isa = json_string_value(json_object_get(best, "isa"));
    /* The probe is that of the cap; its rate differs by a factor of ten and more. */
    if (strcmp(isa, "scalar") != 0) assert_true(fast > 2 * slow);
    json_decref(best);
    json_decref(o);
}

static size_t count(const char *text, const char *what) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) n++;
    return n;
}

static void a_report_stands_alone(void **state) {
    (void)state;
    const char *tags[] = {"figure", "svg", "table", "div", "span", "title", "text", "style"};
    const char *rows[] = {"batch 1<", "batch 16<", "prefill 8<", "first token after 2048<"};
    const cli_result *r = sh("$S bench decode,prefill,batch,threads,limits squish-tiny --runs 1 --threads 2 "
                             "--max-ctx 64 -q --json --report $T/a/report");
    assert_int_equal(r->status, 0);
    json_t *printed = cli_json(r), *kept = cli_json(sh("cat $T/a/report/bench.json"));
    assert_true(json_equal(printed, kept));
    json_decref(printed);
    json_decref(kept);
    r = sh("cat $T/a/report/index.html");
    assert_int_equal(count(r->out, "<svg"), 5); /* a roofline and four plots of cost */
    assert_int_equal(count(r->out, "<script") + count(r->out, "http") + count(r->out, "src="), 0);
    assert_int_equal(count(r->out, "nan") + count(r->out, "inf\""), 0);
    assert_non_null(strstr(r->out, "prefers-color-scheme:dark"));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) assert_non_null(strstr(r->out, rows[i]));
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        char open[16], close[16];
        snprintf(open, sizeof open, "<%s", tags[i]);
        snprintf(close, sizeof close, "</%s>", tags[i]);
        assert_int_equal(count(r->out, open), count(r->out, close));
    }
    r = sh("$S bench limits --runs 1 --threads 2 -q --report $T/b >/dev/null && cat $T/b/index.html");
    assert_int_equal(r->status, 0);
    assert_int_equal(count(r->out, "<svg"), 0);
    assert_int_equal(sh("$S bench limits --runs 1 --report /dev/null/x")->status, 1);
}

static void a_text_of_ones_own_is_tokenized(void **state) {
    (void)state;
    cli_write("text", "Fisch frisst Fliege.\n", 21);
    assert_int_equal(sh("$S bench tokenizer squish-tiny --runs 1 --text $T/text -q")->status, 0);
    cli_write("text", "", 0);
    const cli_result *r = sh("$S bench tokenizer squish-tiny --runs 1 --text $T/text -q");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "0 bytes"));
}

static void a_pass_key_is_looked_for(void **state) {
    (void)state;
    const cli_result *r = sh("$S bench needle squish-tiny --kv q8 --at 420 --runs 3 --threads 2 -q --json "
                             "--text tests/fixtures/own-prose.txt");
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r), *rows = json_object_get(o, "rows");
    static const char *const names[] = {"pass key, 420, f16", "pass key, 420, q8"};
    assert_int_equal(json_array_size(rows), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *row = json_array_get(rows, i);
        assert_string_equal(json_string_value(json_object_get(row, "name")), names[i]);
        assert_int_equal((int)number(row, "trials"), 3);
        assert_true(number(row, "found") >= 2 && number(row, "found") <= 3);
    }
    json_decref(o);
    r = sh("$S bench needle squish-tiny -q");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "--text"));
}

/* All formats without --kv, that one beside f16 with it, its distance to f16, too; and plots of them. */
static void formats_are_measured_side_by_side(void **state) {
    (void)state;
    sh("head -c 8000 tests/fixtures/own-prose.txt >$T/prose");
    static const char *const one[] = {"f16", "q4"}, *const all[] = {"f16", "q8", "k8v4", "q4", "k4v2", "q2"};
    for (int given = 0; given < 2; given++) {
        json_t *o = cli_json(sh("$S bench kv squish-tiny %s --at 256,512 --runs 1 --threads 2 -q --json "
                                "--report $T/kv",
                                given ? "--kv q4 --text $T/prose" : ""));
        json_t *rows = json_object_get(o, "rows"), *row, *far = NULL;
        size_t i, seen = 0;
        json_array_foreach(rows, i, row) {
            const char *name = json_string_value(json_object_get(row, "name"));
            if (strncmp(name, "KL to f16, ", 11) == 0) {
                assert_string_equal(name + 11, "q4");
                assert_null(far);
                far = json_object_get(row, "by_position");
            }
            if (strncmp(name, "attention at 512, ", 18) != 0) continue;
            assert_true(seen < (given ? SQ_COUNT(one) : SQ_COUNT(all)));
            assert_string_equal(name + 18, given ? one[seen] : all[seen]);
            seen++;
        }
        assert_int_equal(seen, given ? SQ_COUNT(one) : SQ_COUNT(all));
        assert_int_equal(json_array_size(far), given);
        if (given) assert_in_range(number(json_array_get(far, 0), "value") * 1e7, 10, 200000);
        const cli_result *r = sh("cat $T/kv/index.html");
        assert_int_equal(count(r->out, "<svg"), given ? 4 : 3); /* attention, a token, memory; the distance */
        assert_int_equal(count(r->out, "<polyline"), 2 * seen);  /* memory and distance have one point here */
        json_decref(o);
    }
}

static void what_cannot_be_measured_is_said(void **state) {
    (void)state;
    assert_int_equal(sh("$S bench decode squish-tiny --runs 0")->status, 2);
    assert_int_equal(sh("$S bench decode no-such-model")->status, 3);
    assert_int_equal(sh("$S bench limits squish-tiny")->status, 2);
    assert_int_equal(sh("$S bench kv-memory squish-tiny -q")->status, 1); /* no text */
    assert_int_equal(sh("$S bench decode squish-tiny --at x")->status, 2);
    assert_int_equal(sh("$S bench decode squish-tiny --isa z80")->status, 2);
    const cli_result *r = sh("$S bench batch squish-tiny --at 17 -q");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "17, from 1 to 16"));
    r = sh("$S bench decode squish-tiny --at 1000000 -q");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "1000032 tokens"));
    static const struct {
        const char *command, *says;
    } unread[] = {{"decode squish-tiny --kv q8", "(these do: kv, needle, kv-memory)"},
                  {"limits --spec off", "does not read --spec (these do: spec)"},
                  {"wave12 --at 5", "bench wave12 does not read --at"},
                  {"decode --peer a=http://127.0.0.1:1", "does not read --peer (these do: eoe)"},
                  {"kv squish-tiny --kv f32", "does not measure --kv f32"}};
    for (size_t i = 0; i < SQ_COUNT(unread); i++) {
        r = sh("$S bench %s -q", unread[i].command);
        assert_int_equal(r->status, 2);
        assert_non_null(strstr(r->err, unread[i].says));
    }
    r = sh("$S bench decode,nonsense");
    assert_int_equal(r->status, 2);
    assert_non_null(strstr(r->err, "prefill"));
    assert_non_null(strstr(r->err, "'nonsense'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_there),
        cmocka_unit_test(the_instruction_set_can_be_capped),
        cmocka_unit_test(a_report_stands_alone),
        cmocka_unit_test(a_text_of_ones_own_is_tokenized),
        cmocka_unit_test(a_pass_key_is_looked_for),
        cmocka_unit_test(formats_are_measured_side_by_side),
        cmocka_unit_test(what_cannot_be_measured_is_said),
    };
    if (getenv("SQUISH_SAMPLE")) cmocka_set_test_filter("*measured*");
    return cmocka_run_group_tests_name("bench", tests, cli_begin, cli_end);
}
