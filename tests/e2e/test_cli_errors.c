/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_errors.c - what a newcomer meets: one line that says what, why and what to type next, and the
 * right exit status. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

#include <cmocka.h>

/* Standard error is exactly one line "squish: ..." with `said` in it; nothing on standard output. */
static void refuse(int status, const char *line, const char *said) {
    const cli_result *r = sh("%s", line);
    const bool one_line = *r->err && strchr(r->err, '\n') == r->err + strlen(r->err) - 1;
    if (r->status != status || !one_line || !strstr(r->err, said))
        print_error("%s\nstatus %d, wanted %d; said: %s\nwanted: %s\n", line, r->status, status, r->err,
                    said);
    assert_int_equal(r->status, status);
    assert_true(one_line);
    assert_non_null(strstr(r->err, said));
    assert_int_equal(strncmp(r->err, "squish: ", 8), 0);
    assert_string_equal(r->out, "");
}

/* A copy of the shipped checkpoint without its weights. */
static void folder(const char *name) {
    assert_int_equal(
        sh("mkdir -p $T/%s && cp models/squish-tiny/config.json models/squish-tiny/tokenizer*.json $T/%s/",
           name, name)
            ->status,
        0);
}

static void an_unknown_name_gets_the_nearest_three(void **state) {
    (void)state;
    assert_int_equal(
        sh("for m in alpha-7b alpha-8b beta-1b gamma-2b; do mkdir -p $T/.squish/models/$m; echo '{}' > "
           "$T/.squish/models/$m/config.json; done")
            ->status,
        0);
    refuse(3, "$S run alpa-7b hi", "no model 'alpa-7b' (the nearest: alpha-7b, alpha-8b, ");
    refuse(3, "$S run alpa-7b hi", "all of them: squish list; ");
    refuse(3, "$S show ./nowhere", "./nowhere: no such file or folder");
    assert_int_equal(sh("rm -r $T/.squish/models")->status, 0);
}

static void a_pointer_file_of_git_lfs_says_git_lfs_pull(void **state) {
    (void)state;
    folder("lfs");
    assert_int_equal(
        sh("printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 12345\\n' 7 > "
           "$T/lfs/model.safetensors",
           0)
            ->status,
        0);
    refuse(3, "$S run $T/lfs hi", "git-lfs pointer");
    refuse(3, "$S run $T/lfs hi", "git lfs pull");
    assert_int_equal(sh("ls $T | grep -q lfs-compressed")->status, 1);
}

static void a_folder_with_pickled_weights_only_says_what_to_get(void **state) {
    (void)state;
    folder("pickle");
    cli_write("pickle/pytorch_model.bin", "x", 1);
    refuse(3, "$S run $T/pickle hi", "safetensors");
    refuse(3, "$S compress $T/pickle", "pytorch_model.bin");
}

static void an_unsupported_architecture_is_named_with_the_list(void **state) {
    (void)state;
    folder("bloom");
    assert_int_equal(sh("cp models/squish-tiny/model* $T/bloom/; sed -i "
                        "'s/Qwen2ForCausalLM/BloomForCausalLM/; s/\"qwen2\"/\"bloom\"/' "
                        "$T/bloom/config.json")
                         ->status,
                     0);
    refuse(1, "$S run $T/bloom hi", "'bloom'");
    refuse(1, "$S run $T/bloom hi",
           "(qwen2, qwen3, llama, mistral, phi3, bitnet, qwen2_moe, qwen3_moe, "
           "deepseek_v2, gemma3_text)");
}

static void a_folder_without_a_model_says_what_a_model_is(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/empty")->status, 0);
    refuse(3, "$S run $T/empty hi", "no config.json");
    refuse(3, "$S compress $T/empty", "no config.json");
    cli_write("text.sqw", "not a model", 11);
    assert_int_equal(sh("$S run $T/text.sqw hi")->status, 1);
}

static void too_little_memory_exits_5_and_says_what_would_fit(void **state) {
    (void)state;
    if (!cli_limits_work()) skip();
    refuse(5, "ulimit -v 54000; $S run hi", "a smaller model or tier is needed");
    const cli_result *r = sh("ulimit -v 67000; $S run --temp 0 'What is the capital of Japan?'");
    assert_int_equal(r->status, 0); /* it fits with a shorter context */
    assert_string_equal(r->out, "The capital of Japan is Tokyo.\n");
    refuse(5, "ulimit -v 67000; $S run --ctx 4096 hi", " fits");
    refuse(5, "ulimit -v 67000; $S run --ctx 4096 hi", "--ctx ");
}

static void attention_that_does_not_go_together_is_refused_at_start(void **state) {
    (void)state;
    refuse(1, "$S run hi --sage-attention --kv f32", "--sage-attention beside --kv f32");
    refuse(1, "$S run hi --sparge-attn --kv f32", "--sparge-attn beside --kv f32");
    refuse(2, "$S run hi --sparge-min 100", "--sparge-min says how --sparge-attn works, which is off");
    refuse(2, "$S run hi --sparge-attn --sparge-mass 0", "--sparge-mass");
    refuse(2, "$S run hi --kv-budget abc", "--kv-budget: 'abc' is no size");
    refuse(2, "SQUISH_PM_BUDGET=1x $S serve --pm-kvq", "--pm-budget: '1x' is no size");
    refuse(1, "$S run hi --kv-budget 1k", "--kv-budget of 1024 bytes");
    refuse(2, "$S run hi --spec ngram --kv q4 --mix-kvq", "--spec ngram beside --mix-kvq");
    refuse(2, "$S serve --spec ngram --pm-kvq", "--spec ngram beside --pm-kvq");
    refuse(2, "$S serve --spec ngram --snap-kv 256", "--spec ngram beside --snap-kv");
    refuse(2, "$S serve --snapshot-archive", "add --snapshot-dir");
    refuse(2, "$S serve --snapshot-codec", "add --snapshot-dir");
    refuse(2, "$S serve --snapshot-dir $T/s --snapshot-codec --snapshot-archive", "contradict");
    refuse(3, "$S serve --port 0 --snapshot-dir $T/s --snapshot-codec", "squish calibrate MODEL --codec");
    refuse(1, "$S serve --port 0 --snapshot-dir $T/s --snapshot-codec --kv q8",
           "--snapshot-codec beside --kv of fewer bits");
    refuse(2, "$S calibrate --moe --codec", "--moe and --codec contradict");
    refuse(2, "$S serve --spec ngram --kv-budget 64M", "--spec ngram beside --kv-budget");
    refuse(2, "$S run hi --spec draft", "--spec draft needs a model that guesses (--draft MODEL)");
    refuse(2, "$S serve --spec draft --port 0", "--spec draft needs a model that guesses");
    refuse(2, "$S run hi --spec ngram --draft models/squish-tiny", "--draft and --spec ngram contradict");
    refuse(3, "$S run hi --draft no/such/model", "no/such/model");
    refuse(1, "$S run hi --draft tests/fixtures/architectures/llama3 --draft-tier source",
           "has another vocabulary");
    refuse(1, "$S run hi --spec skip --skip-layers 8", "skip_layers is 8");
}

static void a_home_that_cannot_be_written_is_no_obstacle_beside_a_writable_model(void **state) {
    (void)state;
    cli_write("file", "x", 1);
    const cli_result *r = sh("SQUISH_HOME=$T/file/home $S run --temp 0 'What is the capital of Japan?'");
    assert_int_equal(r->status, 0);
    assert_string_equal(r->out, "The capital of Japan is Tokyo.\n");
    assert_non_null(strstr(sh("SQUISH_HOME=$T/file/home $S doctor")->out, "cannot be written"));
}

static void no_place_for_a_tier_names_both_places_and_the_way_out(void **state) {
    (void)state;
    assert_int_equal(
        sh("mkdir -p $T/ro && cp -r models/squish-tiny $T/ro/m && touch $T/ro/m-compressed")->status, 0);
    cli_write("file", "x", 1);
    refuse(1, "SQUISH_HOME=$T/file/home $S run $T/ro/m hi",
           "can be written (set SQUISH_HOME or give -o DIR)");
}

static void a_read_only_place_puts_the_tier_into_the_store(void **state) {
    (void)state;
    cli_few_layers("ro2/m");
    assert_int_equal(sh("touch $T/ro2/m-compressed")->status, 0);
    const cli_result *r = sh("$S run --temp 0 -n 4 $T/ro2/m hi");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "/.squish/models/m-compressed/squish_4bit/model.sqw"));
    assert_int_equal(sh("$S run --temp 0 -n 4 $T/ro2/m hi")->err[0], 0); /* once */
    assert_int_equal(sh("rm -r $T/.squish/models")->status, 0);
    /* The same with --home instead of the environment. */
    r = sh("$S run --home $T/other --temp 0 -n 4 $T/ro2/m hi");
    assert_non_null(strstr(r->err, "/other/models/m-compressed/squish_4bit/model.sqw"));
    assert_int_equal(sh("$S run --home $T/other --temp 0 -n 4 $T/ro2/m hi")->err[0], 0);
    r = sh("$S run --home $T/other --temp 0 -n 4 $T/ro2/m hi --json");
    assert_int_equal(r->status, 0);
    r = sh("$S show --home $T/other $T/ro2/m");
    assert_non_null(strstr(r->out, "tier          0\n"));
}

static void a_checkpoint_is_compressed_once_beside_itself(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/w && cp -r models/squish-tiny $T/w/m")->status, 0);
    const cli_result *r = sh("$S run --temp 0 $T/w/m 'What is the capital of Japan?'");
    assert_string_equal(r->out, "The capital of Japan is Tokyo.\n");
    assert_non_null(strstr(r->err, "compressed to "));
    r = sh("$S run --temp 0 $T/w/m 'What is the capital of Japan?'");
    assert_string_equal(r->err, "");
    assert_int_equal(
        sh("test -f $T/w/m-compressed/squish_4bit/model.sqw && test $(ls $T/w | wc -l) = 2")->status, 0);
}

static void milo_is_built_once_and_runs_in_place_of_a_tier(void **state) {
    (void)state;
    const bool whole = getenv("SQUISH_LONG") != NULL;
    if (whole) assert_int_equal(sh("mkdir -p $T/mi && cp -r models/squish-tiny $T/mi/m")->status, 0);
    else cli_few_layers("mi/m");
    const cli_result *r = sh("$S run --temp 0 -n 12 --milo $T/mi/m 'What is the capital of Japan?'");
    assert_int_equal(r->status, 0);
    if (whole) assert_string_equal(r->out, "The capital of Japan is Tokyo.\n");
    assert_non_null(strstr(r->err, "compressed to "));
    assert_non_null(strstr(r->err, "/mi/m-compressed/milo/squish_4bit/model.sqw"));
    r = sh("$S run --temp 0 -n 12 --milo $T/mi/m --json 'What is the capital of Japan?'");
    assert_string_equal(r->err, "");
    assert_int_equal(sh("test $(ls $T/mi/m-compressed) = milo")->status, 0);
    r = sh("head -c 3000 tests/fixtures/own-prose.txt >$T/mi/text; $S ppl --milo $T/mi/m --text $T/mi/text "
           ">$T/mi/milo && "
           "$S ppl --tier source $T/mi/m --text $T/mi/text >$T/mi/source");
    assert_int_equal(r->status, 0);
    assert_int_equal(sh("cmp -s $T/mi/milo $T/mi/source")->status, 1); /* other weights */
    refuse(2, "$S run --milo --tier q8 $T/mi/m hi", "--milo and --tier both say");
    refuse(1, "$S run --milo $T/mi/m-compressed/milo hi", "is none");
}

/* Noise in place of weights, large and of both signs: its few bits have little to do with it. */
static void write_noise(const char *name) {
    char path[512];
    uint8_t head[8] = {0}, pair[2];
    uint64_t rng = 20;
    snprintf(path, sizeof path, "%s/%s", cli_folder, name);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fread(head, 1, 8, f), 8);
    const long from = 8 + (long)(head[0] | head[1] << 8 | head[2] << 16);
    fseek(f, 0, SEEK_END);
    const long end = ftell(f);
    fseek(f, from, SEEK_SET);
    for (long at = from; at + 2 <= end; at += 2) {
        const uint64_t x = (rng = rng * 6364136223846793005u + 1442695040888963407u) >> 32;
        pair[0] = (uint8_t)x, pair[1] = (uint8_t)(0x3F | (x >> 8 & 0x80)); /* bf16 */
        fwrite(pair, 1, 2, f);
    }
    assert_int_equal(fclose(f), 0);
}

static void a_tier_that_run_makes_is_kept_though_useless_where_that_is_allowed(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/no/m && cd models/squish-tiny && cp *.json *.safetensors $T/no/m && "
                        "sed -i 's/\"num_hidden_layers\": *8/\"num_hidden_layers\": 1/' $T/no/m/config.json")
                         ->status,
                     0);
    for (int i = 1; i <= 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "no/m/model-%05d-of-00004.safetensors", i);
        write_noise(name);
    }
    refuse(4, "$S run --milo $T/no/m hi -n 4", "--allow-collapsed");
    const cli_result *r = sh("$S run --milo --allow-collapsed $T/no/m hi -n 4 --temp 0");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "compressed to "));
}

static void an_open_address_without_a_key_is_refused_before_models_are_looked_at(void **state) {
    (void)state;
    folder("open");
    assert_int_equal(sh("cp models/squish-tiny/model* $T/open/")->status, 0);
    refuse(1, "$S serve nobody --host 0.0.0.0 --port 0", "needs an API key (--api-key-file FILE)");
    refuse(1, "$S serve $T/open --tier 0 --host :: --port 0", "needs an API key");
    refuse(1, "$S serve $T/open --tier 0 --host 127.0.0.1 --api-key-file $T/open/config.json", "mode 0");
    assert_int_equal(sh("ls $T | grep -q open-compressed || ls $T/.squish | grep -q open")->status, 1);
    refuse(3, "$S serve nobody --host 0.0.0.0 --port 0 --api-key k", "no model 'nobody'");
}

static void text_that_is_not_utf8_is_refused_as_such(void **state) {
    (void)state;
    refuse(1, "$S run \"$(printf 'a\\377b')\"", "the prompt is not UTF-8 text");
    refuse(1, "printf 'a\\377b' | $S run",
           "standard input: not UTF-8 text (convert it first, for example with iconv)");
    assert_int_equal(sh("printf 'a\\377b' > $T/latin.txt")->status, 0);
    refuse(1, "$S ppl --text $T/latin.txt", "latin.txt: not UTF-8 text");
}

static void an_empty_prompt_is_wrong_usage(void **state) {
    (void)state;
    refuse(2, "$S run ''", "the prompt is empty (squish run MODEL \"PROMPT\")");
    refuse(2, "$S run </dev/null", "the prompt is empty");
    refuse(2, "$S run squish-tiny ''", "the prompt is empty");
}

static void a_prompt_longer_than_the_context_is_refused_not_cut(void **state) {
    (void)state;
    refuse(1, "seq 200 | $S run --ctx 64", "context_length_exceeded");
    refuse(1, "seq 200 | $S run --ctx 64", "the context holds 64");
}

static void missing_arguments_say_what_is_needed(void **state) {
    (void)state;
    refuse(2, "$S compress", "compress takes one model (squish compress SRC)");
    refuse(2, "$S logits", "logits needs --ids 1,2,3");
    refuse(2, "$S ppl", "ppl needs --text FILE");
    refuse(2, "$S template", "template needs --messages FILE");
    refuse(2, "$S logits --ids 1,x", "--ids: 'x' is not a list of token ids");
    refuse(2, "$S compress squish-tiny --tier source", "--tier source is what is there already");
}

static void a_full_disk_fails_instead_of_pretending(void **state) {
    (void)state;
    refuse(1, "$S run --temp 0 'What is the capital of Japan?' > /dev/full",
           "cannot write the result: No space left on device");
    refuse(1, "$S show --json > /dev/full", "cannot write the result");
    assert_int_equal(sh("$S logits --ids 1 -o /dev/full/x.safetensors")->status != 0, 1);
}

static void a_closed_pipe_ends_quietly(void **state) {
    (void)state;
    const cli_result *r = sh("$S man | head -n 1");
    assert_int_equal(r->status, 0);
    assert_string_equal(r->err, "");
}

static void ctrl_c_while_compressing_exits_130_and_leaves_nothing(void **state) {
    (void)state;
    assert_int_equal(sh("mkdir -p $T/int && cp -r models/squish-tiny $T/int/m")->status, 0);
    /* The signal may come before there is anything to stop, or after the end: try until it hits the middle.
     */
    int hits = 0;
    for (int ms = 20; ms <= 400 && !hits; ms += 20) {
        const cli_result *r = sh("rm -rf $T/int/m-compressed; timeout --foreground --signal=INT 0.%03d $S "
                                 "run --threads 1 $T/int/m hi; "
                                 "s=$?; test $s = 124 && exit 124; exit $s",
                                 ms);
        hits = r->status == 124 && strstr(r->err, "stopped") != NULL;
        if (r->status != 124) continue;
        assert_int_equal(
            sh("ls $T/int/m-compressed/squish_4bit/model.sqw $T/int/m-compressed/.squish_4bit_ready")
                        ->status != 0 ||
                !hits,
            1);
        assert_int_equal(sh("find $T/int -name '*.tmp*' | grep -q .")->status, 1);
    }
    assert_true(hits);
}

static void the_exit_status_of_an_interruption_is_130(void **state) {
    (void)state;
    /* temperature 5 hardly ever draws an end token, so the answer is long */
    const cli_result *r = sh("SQUISH_ISA=scalar $S run --threads 1 --temp 5 --top-p 1 --ignore-eos hi "
                             ">$T/long & "
                             "p=$!; until test $(wc -c <$T/long) -gt 1; do sleep 0.1; done; "
                             "kill -INT $p; wait $p; s=$?; cat $T/long; exit $s");
    assert_int_equal(r->status, 130);
    assert_non_null(strstr(r->err, "squish: stopped"));
    assert_true(strlen(r->out) > 1);
}

static void no_color_and_pipes_keep_escape_codes_away(void **state) {
    (void)state;
    assert_null(strchr(sh("$S run squish-tny hi")->err, '\033'));
    assert_null(strchr(sh("$S doctor")->out, '\033'));
    cli_few_layers("tc/m");
    const cli_result *r = sh("$S compress $T/tc/m");
    assert_int_equal(r->status, 0);
    assert_null(strchr(r->err, '\033'));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_name_gets_the_nearest_three),
        cmocka_unit_test(a_pointer_file_of_git_lfs_says_git_lfs_pull),
        cmocka_unit_test(a_folder_with_pickled_weights_only_says_what_to_get),
        cmocka_unit_test(an_unsupported_architecture_is_named_with_the_list),
        cmocka_unit_test(a_folder_without_a_model_says_what_a_model_is),
        cmocka_unit_test(too_little_memory_exits_5_and_says_what_would_fit),
        cmocka_unit_test(a_home_that_cannot_be_written_is_no_obstacle_beside_a_writable_model),
        cmocka_unit_test(no_place_for_a_tier_names_both_places_and_the_way_out),
        cmocka_unit_test(a_read_only_place_puts_the_tier_into_the_store),
        cmocka_unit_test(a_checkpoint_is_compressed_once_beside_itself),
        cmocka_unit_test(milo_is_built_once_and_runs_in_place_of_a_tier),
        cmocka_unit_test(a_tier_that_run_makes_is_kept_though_useless_where_that_is_allowed),
        cmocka_unit_test(an_open_address_without_a_key_is_refused_before_models_are_looked_at),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_as_such),
        cmocka_unit_test(an_empty_prompt_is_wrong_usage),
        cmocka_unit_test(a_prompt_longer_than_the_context_is_refused_not_cut),
        cmocka_unit_test(missing_arguments_say_what_is_needed),
        cmocka_unit_test(a_full_disk_fails_instead_of_pretending),
        cmocka_unit_test(a_closed_pipe_ends_quietly),
        cmocka_unit_test(ctrl_c_while_compressing_exits_130_and_leaves_nothing),
        cmocka_unit_test(attention_that_does_not_go_together_is_refused_at_start),
        cmocka_unit_test(the_exit_status_of_an_interruption_is_130),
        cmocka_unit_test(no_color_and_pipes_keep_escape_codes_away),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
