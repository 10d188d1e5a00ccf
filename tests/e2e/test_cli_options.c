/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_options.c - flags, environment, squish.ini and what is said about wrong ones. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

static void ini(const char *text) {
    assert_int_equal(sh("mkdir -p $T/.squish")->status, 0);
    cli_write(".squish/squish.ini", text, strlen(text));
}

static int no_ini(void **state) {
    (void)state;
    return sh("rm -f $T/.squish/squish.ini")->status;
}

/* The entry of one option in what `squish config --json` prints; the whole goes to *all, owned by the caller.
 */
static json_t *config_entry(const char *before, const char *flags, const char *name, json_t **all) {
    const cli_result *r = sh("%s $S config --json %s", before, flags);
    assert_int_equal(r->status, 0);
    *all = cli_json(r);
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(*all, "options"), i, o)
        if (strcmp(json_string_value(json_object_get(o, "name")), name) == 0) return o;
    fail();
    return NULL;
}

static void expect(const char *before, const char *flags, const char *name, const char *value,
                   const char *origin) {
    json_t *all, *o = config_entry(before, flags, name, &all), *v = json_object_get(o, "value");
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    assert_string_equal(text, value);
    assert_string_equal(json_string_value(json_object_get(o, "origin")), origin);
    free(text);
    json_decref(all);
}

/* ---- precedence ------------------------------------------------------------------------------ */

static void a_value_comes_from_flag_then_environment_then_file_then_default(void **state) {
    (void)state;
    expect("", "", "top-k", "null", "default");
    expect("", "", "chunk", "256", "default");
    ini("top-k = 11\nchunk=7\n");
    expect("", "", "top-k", "11", "squish.ini");
    expect("", "", "chunk", "7", "squish.ini");
    expect("SQUISH_TOP_K=22", "", "top-k", "22", "environment");
    expect("SQUISH_TOP_K=22", "--top-k 33", "top-k", "33", "flag");
    expect("SQUISH_TOP_K=22", "--top-k=33", "top-k", "33", "flag");
    expect("", "--top-k 33", "top-k", "33", "flag");
    expect("SQUISH_TOP_K=", "", "top-k", "11", "squish.ini");
}

static void the_values_are_the_ones_a_command_uses(void **state) {
    (void)state;
    ini("max-tokens = 1\ntemp = 0\n");
    json_t *o = cli_json(sh("$S run --json 'What is the capital of Japan?'"));
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), 1);
    assert_string_equal(json_string_value(json_object_get(o, "finish_reason")), "length");
    json_decref(o);
    o = cli_json(sh("SQUISH_MAX_TOKENS=2 $S run --json 'What is the capital of Japan?'"));
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), 2);
    json_decref(o);
    o = cli_json(sh("SQUISH_MAX_TOKENS=2 $S run -n 3 --json 'What is the capital of Japan?'"));
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), 3);
    json_decref(o);
}

static void lists_gather_entries_and_a_flag_replaces_those_of_the_file(void **state) {
    (void)state;
    ini("stop = a\nstop = b c\n");
    expect("", "", "stop", "[\"a\",\"b c\"]", "squish.ini");
    expect("", "--stop x --stop y --stop z", "stop", "[\"x\",\"y\",\"z\"]", "flag");
    assert_int_equal(sh("$S run $(for i in $(seq 17); do echo --stop x$i; done) hi")->status, 2);
}

static void flags_take_true_and_false_in_the_file(void **state) {
    (void)state;
    ini("verbose = yes\nquiet = false\n");
    expect("", "", "verbose", "true", "squish.ini");
    expect("", "", "quiet", "false", "squish.ini");
    expect("", "--verbose=false", "verbose", "false", "flag");
}

static void letters_take_their_value_with_or_without_a_blank(void **state) {
    (void)state;
    expect("", "-n5", "max-tokens", "5", "flag");
    expect("", "-n 5", "max-tokens", "5", "flag");
    expect("", "-t 0.5", "temp", "0.5", "flag");
}

static void home_names_the_file_from_flag_and_environment(void **state) {
    (void)state;
    assert_int_equal(
        sh("mkdir -p $T/h1 $T/h2; echo seed=1 > $T/h1/squish.ini; echo seed=2 > $T/h2/squish.ini")->status,
        0);
    expect("SQUISH_HOME=$T/h1", "", "seed", "1", "squish.ini");
    expect("SQUISH_HOME=$T/h1", "--home $T/h2", "seed", "2", "squish.ini");
    expect("", "--home=$T/h2", "seed", "2", "squish.ini");
}

static void config_shows_the_same_as_a_table(void **state) {
    (void)state;
    ini("# a comment\n; another\n\n  top-p =  0.5  \r\n");
    const cli_result *r = sh("SQUISH_SEED=9 $S config --threads 2");
    assert_int_equal(r->status, 0);
    assert_non_null(
        strstr(r->out, "top-p                  0.5                      squish.ini   SQUISH_TOP_P\n"));
    assert_non_null(
        strstr(r->out, "seed                   9                        environment  SQUISH_SEED\n"));
    assert_non_null(
        strstr(r->out, "threads                2                        flag         SQUISH_THREADS\n"));
    assert_non_null(
        strstr(r->out, "top-k                  -                        default      SQUISH_TOP_K\n"));
    assert_non_null(strstr(r->out, "/.squish/squish.ini\n"));
}

static void config_json_has_the_file_and_typed_values(void **state) {
    (void)state;
    ini("temp = 0.25\n");
    json_t *all, *o = config_entry("", "", "temp", &all);
    assert_true(json_real_value(json_object_get(o, "value")) == 0.25);
    assert_string_equal(json_string_value(json_object_get(o, "environment")), "SQUISH_TEMP");
    assert_true(json_is_true(json_object_get(all, "file_present")));
    assert_non_null(strstr(json_string_value(json_object_get(all, "file")), "/.squish/squish.ini"));
    json_decref(all);
    expect("", "", "verify", "false", "default");
    expect("", "", "tier", "\"auto\"", "default");
}

/* ---- wrong ones ------------------------------------------------------------------------------ */

static void refuse(const char *line, const char *said) {
    const cli_result *r = sh("%s", line);
    assert_int_equal(r->status, 2);
    if (!strstr(r->err, said)) print_error("%s\nsaid: %s\nwanted: %s\n", line, r->err, said);
    assert_non_null(strstr(r->err, said));
    assert_string_equal(r->out, "");
    /* one line */
    assert_ptr_equal(strchr(r->err, '\n'), r->err + strlen(r->err) - 1);
    assert_int_equal(strncmp(r->err, "squish: ", 8), 0);
}

static void an_unknown_option_names_the_nearest(void **state) {
    (void)state;
    refuse("$S run --tmep 0 hi", "unknown option --tmep (did you mean --temp?)");
    refuse("$S run --topk=3 hi", "unknown option --topk (did you mean --top-k?)");
    refuse("$S run --frobnicate hi", "unknown option --frobnicate (see: squish run --help)");
    refuse("$S run -Z hi", "unknown option -Z (see: squish run --help)");
    refuse("$S list --temp 1", "unknown option --temp");
}

static void an_unknown_command_names_the_nearest(void **state) {
    (void)state;
    refuse("$S comprss x", "unknown command 'comprss' (did you mean compress?)");
    refuse("$S frobnicate", "unknown command 'frobnicate' (see: squish --help)");
    refuse("$S help shwo", "unknown command 'shwo' (did you mean show?)");
}

static void a_value_out_of_range_names_the_range(void **state) {
    (void)state;
    refuse("$S run --temp 9 hi", "--temp: '9' is not a number from 0 to 5");
    refuse("$S run --temp nan hi", "--temp: 'nan' is not a number from 0 to 5");
    refuse("$S run --temp 1x hi", "--temp: '1x' is not a number");
    refuse("$S run --top-k 1.5 hi", "--top-k: '1.5' is not a whole number from -1 to 1000000");
    refuse("$S run --threads 99999999999999999999 hi", "--threads: ");
    refuse("$S run --tier 7 hi", "--tier: '7' is not one of auto,0,q8,1,2,3,source");
    refuse("$S run --verify=maybe hi", "--verify: 'maybe' is not true or false");
    refuse("SQUISH_TEMP=hot $S run hi", "SQUISH_TEMP: 'hot' is not a number from 0 to 5");
    refuse("$S run hi --temp", "--temp needs a value: T");
    refuse("$S run hi -n", "-n needs a value: N");
}

static void wrong_lines_of_the_file_are_named_by_number(void **state) {
    (void)state;
    ini("temp = 0\n\nnonsense\n");
    refuse("$S run hi", "squish.ini line 3: 'nonsense' is not NAME = VALUE");
    ini("tmep = 0\n");
    refuse("$S run hi", "squish.ini line 1: no option is called 'tmep'");
    ini("temp = 9\n");
    refuse("$S run hi", "squish.ini: temp: '9' is not a number from 0 to 5");
}

static void an_option_of_another_command_in_the_file_is_no_error(void **state) {
    (void)state;
    ini("temp = 0.1\nwindow = 64\n");
    assert_int_equal(sh("$S list")->status, 0);
}

static void too_many_arguments_are_wrong_usage(void **state) {
    (void)state;
    refuse("$S run squish-tiny a b", "one prompt at a time: 'b' is too many");
    refuse("$S config x", "config takes no arguments");
    refuse("$S list x", "list takes no arguments");
    refuse("$S doctor x", "doctor takes no arguments");
    refuse("$S man x", "man takes no arguments");
    refuse("$S show squish-tiny x", "show takes one model");
    refuse("$S completion", "completion takes one shell: bash, zsh or fish");
    refuse("$S completion tcsh", "no completion for 'tcsh' (bash, zsh or fish)");
}

static void after_two_hyphens_everything_is_an_argument(void **state) {
    (void)state;
    json_t *o = cli_json(sh("$S tokenize --json -- --temp"));
    assert_true(json_array_size(json_object_get(o, "ids")) > 0);
    json_decref(o);
}

/* ---- made models ----------------------------------------------------------------------------- */

static void made(const char *name, const char *text) {
    char path[100];
    assert_int_equal(sh("mkdir -p $T/.squish/models")->status, 0);
    snprintf(path, sizeof path, ".squish/models/%s.made.json", name);
    cli_write(path, text, strlen(text));
}

static json_int_t run_int(const char *before, const char *flags, const char *key) {
    json_t *o = cli_json(sh("%s $S run %s --json 'What is the capital of Japan?'", before, flags));
    const json_t *v = json_object_get(o, key);
    const json_int_t n = json_is_array(v) ? (json_int_t)json_array_size(v) : json_integer_value(v);
    json_decref(o);
    return n;
}

static void a_made_model_brings_options_of_its_own(void **state) {
    (void)state;
    made("mario", "{\"from\":\"squish-tiny\",\"system\":\"You are Mario the plumber.\","
                  "\"parameters\":{\"num_predict\":3,\"temperature\":0,\"seed\":5,\"stop\":[\"#\"]}}");
    assert_int_equal(run_int("", "mario", "tokens"), 3);
    assert_int_equal(run_int("", "mario:latest", "seed"), 5);
    assert_true(run_int("", "mario", "prompt_tokens") > run_int("", "squish-tiny", "prompt_tokens"));
    assert_int_equal(run_int("", "mario --system ''", "prompt_tokens"),
                     run_int("", "squish-tiny --system ''", "prompt_tokens"));
    ini("max-tokens = 1\n");
    assert_int_equal(run_int("", "mario", "tokens"), 3); /* the file is for all models */
    assert_int_equal(run_int("SQUISH_MAX_TOKENS=2", "mario", "tokens"), 2);
    assert_int_equal(run_int("SQUISH_MAX_TOKENS=2", "mario -n 4", "tokens"), 4);
    const cli_result *r = sh("$S list");
    assert_int_equal(r->status, 0);
    const char *line = strstr(r->out, "mario\t");
    assert_non_null(line);
    assert_non_null(strstr(line, "\tmade\t"));
    made("echo", "{\"from\":\"squish-tiny\",\"template\":\"{{ messages[-1].content }}\"}");
    assert_int_equal(run_int("", "echo -n 1", "prompt_tokens"), 7);
}

static void a_made_model_that_is_damaged_is_refused_by_name(void **state) {
    (void)state;
    made("bad", "{\"from\":\"squish-tiny\",\"parameters\":{\"temperature\":-3}}");
    const cli_result *r = sh("$S run bad hello");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "the model's own temp: '-3'"));
    made("bad", "{\"from\":");
    r = sh("$S run bad hello");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "bad.made.json"));
    made("bad", "{\"from\":\"nobody\"}");
    r = sh("$S run bad hello");
    assert_int_equal(r->status, 3);
    assert_non_null(strstr(r->err, "no model 'nobody'"));
    made("bad", "{\"from\":\"../models/squish-tiny\"}");
    assert_int_equal(sh("$S run bad hello")->status, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_value_comes_from_flag_then_environment_then_file_then_default, no_ini),
        cmocka_unit_test_setup(the_values_are_the_ones_a_command_uses, no_ini),
        cmocka_unit_test_setup(lists_gather_entries_and_a_flag_replaces_those_of_the_file, no_ini),
        cmocka_unit_test_setup(flags_take_true_and_false_in_the_file, no_ini),
        cmocka_unit_test_setup(letters_take_their_value_with_or_without_a_blank, no_ini),
        cmocka_unit_test_setup(home_names_the_file_from_flag_and_environment, no_ini),
        cmocka_unit_test_setup(config_shows_the_same_as_a_table, no_ini),
        cmocka_unit_test_setup(config_json_has_the_file_and_typed_values, no_ini),
        cmocka_unit_test_setup(an_unknown_option_names_the_nearest, no_ini),
        cmocka_unit_test_setup(an_unknown_command_names_the_nearest, no_ini),
        cmocka_unit_test_setup(a_value_out_of_range_names_the_range, no_ini),
        cmocka_unit_test_setup(wrong_lines_of_the_file_are_named_by_number, no_ini),
        cmocka_unit_test_setup(an_option_of_another_command_in_the_file_is_no_error, no_ini),
        cmocka_unit_test_setup(too_many_arguments_are_wrong_usage, no_ini),
        cmocka_unit_test_setup(after_two_hyphens_everything_is_an_argument, no_ini),
        cmocka_unit_test_teardown(a_made_model_brings_options_of_its_own, no_ini),
        cmocka_unit_test(a_made_model_that_is_damaged_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
