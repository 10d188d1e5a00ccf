/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_help.c - pages made from the tables: help, manual, completion. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

static const char *const commands[] = {"run",      "chat",       "compress",   "show",   "list",
                                       "tokenize", "detokenize", "template",   "logits", "ppl",
                                       "doctor",   "config",     "completion", "man",    "calibrate",
                                       "plan",     "gc",         "grammar",    "train-heads",
                                       "pull",     "search",     "catalog",    "import", "rm",
                                       "cp",       "ps",         "stop"};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void need_tool(const char *tool) {
    if (sh("command -v %s", tool)->status == 0) return;
    printf("skipped: %s is not installed\n", tool);
    skip();
}

static void every_command_has_help_with_usage_options_and_examples(void **state) {
    (void)state;
    for (int i = 0; i < N_COMMANDS; i++) {
        char usage[64], heading[64];
        snprintf(heading, sizeof heading, "squish %s - ", commands[i]);
        snprintf(usage, sizeof usage, "usage: squish %s", commands[i]);
        const cli_result *r = sh("$S %s --help", commands[i]);
        assert_int_equal(r->status, 0);
        assert_string_equal(r->err, "");
        assert_int_equal(strncmp(r->out, heading, strlen(heading)), 0);
        assert_non_null(strstr(r->out, usage));
        assert_non_null(strstr(r->out, "\n  -h, --help"));
        assert_non_null(strstr(r->out, "examples:\n  "));
    }
}

static void help_command_says_the_same_as_the_flag(void **state) {
    (void)state;
    assert_int_equal(
        sh("$S help logits >$T/a; $S logits --help >$T/b; $S logits -h >$T/c; cmp $T/a $T/b && cmp $T/b $T/c")
            ->status,
        0);
}

/* What loses to the simpler way is not offered, and is there for those who ask. */
static void experimental_options_stand_apart(void **state) {
    (void)state;
    static const char *const of[] = {"run", "chat", "serve"}, *const options[] = {"--mix-kvq",
                                                                                  "--cocktail-kv"};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            assert_null(strstr(sh("$S %s --help", of[i])->out, options[k]));
            const cli_result *r = sh("$S %s --help-experimental", of[i]);
            assert_int_equal(r->status, 0);
            assert_non_null(strstr(r->out, options[k]));
            assert_null(strstr(r->out, "--temp"));
            assert_non_null(strstr(r->out, "docs/kv.md"));
        }
    assert_non_null(strstr(sh("$S man")->out, "EXPERIMENTAL OPTIONS"));
}

static void help_stays_within_eighty_columns_and_has_no_blanks_at_line_ends(void **state) {
    (void)state;
    for (int i = 0; i < N_COMMANDS; i++) {
        const char *examples, *out = sh("$S %s --help", commands[i])->out;
        assert_non_null(examples = strstr(out, "examples:"));
        int column = 0;
        for (const char *p = out; p < examples; p++) {
            if (*p == '\n') {
                assert_true(p == out || p[-1] != ' ');
                column = 0;
            } else {
                assert_true(++column <= 80);
            }
        }
    }
}

static void the_overview_lists_every_command(void **state) {
    (void)state;
    const cli_result *r = sh("$S --help");
    assert_int_equal(r->status, 0);
    for (int i = 0; i < N_COMMANDS; i++) {
        char line[64];
        snprintf(line, sizeof line, "\n  %-12s", commands[i]);
        assert_non_null(strstr(r->out, line));
    }
}

static void no_command_shows_the_overview_on_standard_error_and_exits_2(void **state) {
    (void)state;
    const cli_result *r = sh("$S");
    assert_int_equal(r->status, 2);
    assert_string_equal(r->out, "");
    assert_non_null(strstr(r->err, "usage: squish COMMAND"));
}

static void version_names_version_commit_isa_and_features(void **state) {
    (void)state;
    const cli_result *r = sh("$S --version");
    assert_int_equal(r->status, 0);
    assert_int_equal(strncmp(r->out, "squish 0.", 9), 0);
    assert_non_null(strstr(r->out, " ("));
    assert_non_null(strstr(r->out, "\nisa: "));
    assert_non_null(strstr(r->out, "\nfeatures:"));
}

static void the_manual_passes_mandoc(void **state) {
    (void)state;
    need_tool("mandoc");
    const cli_result *r = sh("$S man | mandoc -T lint -W warning");
    assert_string_equal(r->out, "");
    assert_int_equal(r->status, 0);
}

static void the_manual_names_every_command_option_and_exit_status(void **state) {
    (void)state;
    need_tool("mandoc");
    assert_int_equal(sh("$S man | mandoc -T utf8 -O width=200 | sed 's/.\\x08//g' > $T/page")->status, 0);
    const cli_result *r = sh(
        "for i in $($S config --json | tr ',' '\\n' | sed -n 's/.*\"name\": \"\\([^\"]*\\)\".*/\\1/p'); do\n"
        "grep -qe \"--$i\" $T/page || { echo missing --$i; exit 1; }\n"
        "done");
    assert_string_equal(r->out, "");
    assert_int_equal(r->status, 0);
    for (int i = 0; i < N_COMMANDS; i++)
        assert_int_equal(sh("grep -q '^ *squish %s' $T/page", commands[i])->status, 0);
    assert_int_equal(
        sh("for i in 0 1 2 3 4 5 6 130; do grep -q \"^ *$i  *[A-Z]\" $T/page || exit 1; done")->status, 0);
    assert_int_equal(sh("grep -q '\"error\": {\"code\": ..., \"message\": ...}' $T/page")->status, 0);
}

static void completion_scripts_parse_in_their_shells(void **state) {
    (void)state;
    static const char *const shells[] = {"bash", "zsh", "fish"};
    for (int i = 0; i < 3; i++) {
        need_tool(shells[i]);
        const cli_result *r =
            sh("$S completion %s > $T/s.%s && %s -n $T/s.%s", shells[i], shells[i], shells[i], shells[i]);
        assert_string_equal(r->err, "");
        assert_int_equal(r->status, 0);
    }
}

/* What bash offers after the words of `line`, the last of which is being typed. */
static const char *bash_offers(const char *line) {
    return sh("cd $T && PATH=$(dirname $S):$PATH bash --norc -c 'source <($S completion bash); "
              "COMP_WORDS=(%s);\n"
              "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _squish; printf \"%%s \" \"${COMPREPLY[@]}\"'",
              line)
        ->out;
}

static void bash_completes_commands_options_words_models_and_files(void **state) {
    (void)state;
    cli_write("notes.txt", "x", 1);
    assert_string_equal(bash_offers("squish comp"), "compress completion ");
    assert_string_equal(bash_offers("squish run --top"), "--top-k --top-p ");
    assert_string_equal(bash_offers("squish run --tier q"), "q8 ");
    assert_string_equal(bash_offers("squish run --tier \"\""), "auto 0 q8 1 2 3 source ");
    assert_string_equal(bash_offers("squish completion \"\""), "bash zsh fish ");
    assert_string_equal(bash_offers("squish run --system no"), " ");
    assert_string_equal(bash_offers("squish ppl -f no"), "notes.txt ");
    assert_string_equal(bash_offers("squish list --tens"), " ");
    /* The shipped model is found beside the program or from the folder of the project. */
    assert_int_equal(
        sh("mkdir -p $T/.squish/models/my-model && echo '{}' > $T/.squish/models/my-model/config.json")
            ->status,
        0);
    assert_non_null(strstr(bash_offers("squish show my"), "my-model "));
    assert_non_null(strstr(bash_offers("squish run --model my"), "my-model "));
}

static const char *fish_offers(const char *line) {
    return sh("cd $T && PATH=$(dirname $S):$PATH fish --no-config -c 'source ($S completion fish | psub); "
              "complete -C \"%s\"' | cut -f1 | "
              "tr '\\n' ' '",
              line)
        ->out;
}

static void fish_completes_commands_options_words_and_models(void **state) {
    (void)state;
    need_tool("fish");
    assert_string_equal(fish_offers("squish comp"), "completion compress ");
    assert_string_equal(fish_offers("squish run --top"), "--top-k --top-p ");
    assert_string_equal(fish_offers("squish run --tier q"), "q8 ");
    assert_string_equal(fish_offers("squish completion "), "bash fish zsh ");
    assert_int_equal(
        sh("mkdir -p $T/.squish/models/my-model && echo '{}' > $T/.squish/models/my-model/config.json")
            ->status,
        0);
    assert_non_null(strstr(fish_offers("squish show my"), "my-model "));
}

static void zsh_loads_the_completion_and_knows_the_command(void **state) {
    (void)state;
    need_tool("zsh");
    const cli_result *r =
        sh("mkdir -p $T/zfun && $S completion zsh > $T/zfun/_squish && ZDOTDIR=$T zsh -f -c '\n"
           "fpath=($T/zfun $fpath); autoload -Uz compinit; compinit -u -d $T/zdump; echo $_comps[squish];\n"
           "autoload +X _squish && echo loaded'");
    assert_string_equal(r->err, "");
    assert_string_equal(r->out, "_squish\nloaded\n");
}

/* A real zsh in a pseudo terminal of its own (zpty) presses Tab. */
static void zsh_completes_an_option_at_the_tab_key(void **state) {
    (void)state;
    need_tool("zsh");
    const cli_result *r =
        sh("mkdir -p $T/zfun && $S completion zsh > $T/zfun/_squish && cat > $T/tab.zsh <<'END'\n"
           "zmodload zsh/zpty\n"
           "zpty z \"ZDOTDIR=$T TERM=dumb PATH=$(dirname $S):$PATH zsh -f -i\"\n"
           "zpty -w z 'PS1=; fpath=($T/zfun $fpath); autoload -Uz compinit; compinit -u -d $T/zdump2; echo "
           "rea''dy'\n"
           "zpty -r -m z line '*ready*'\n"
           "zpty -w -n z $'squish run --repeat-l\\t 5; echo do''ne\\n'\n"
           "zpty -r -m z line '*--repeat-last-n*'\n"
           "print -r -- \"$line\"\n"
           "zpty -d z\n"
           "END\n"
           "timeout 30 zsh -f $T/tab.zsh");
    assert_non_null(strstr(r->out, "--repeat-last-n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_has_help_with_usage_options_and_examples),
        cmocka_unit_test(help_command_says_the_same_as_the_flag),
        cmocka_unit_test(experimental_options_stand_apart),
        cmocka_unit_test(help_stays_within_eighty_columns_and_has_no_blanks_at_line_ends),
        cmocka_unit_test(the_overview_lists_every_command),
        cmocka_unit_test(no_command_shows_the_overview_on_standard_error_and_exits_2),
        cmocka_unit_test(version_names_version_commit_isa_and_features),
        cmocka_unit_test(the_manual_passes_mandoc),
        cmocka_unit_test(the_manual_names_every_command_option_and_exit_status),
        cmocka_unit_test(completion_scripts_parse_in_their_shells),
        cmocka_unit_test(bash_completes_commands_options_words_models_and_files),
        cmocka_unit_test(fish_completes_commands_options_words_and_models),
        cmocka_unit_test(zsh_loads_the_completion_and_knows_the_command),
        cmocka_unit_test(zsh_completes_an_option_at_the_tab_key),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
