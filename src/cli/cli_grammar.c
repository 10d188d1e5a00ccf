/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_grammar.c - is a file in a language, and how long masks take. */
#include "cli/cli.h"

#include <string.h>

static const struct {
    cli_option_id option;
    squish_grammar_kind kind;
} ways[] = {{OPT_SCHEMA, SQUISH_GRAMMAR_SCHEMA}, {OPT_REGEX, SQUISH_GRAMMAR_REGEX},
            {OPT_GBNF, SQUISH_GRAMMAR_GBNF},     {OPT_EBNF, SQUISH_GRAMMAR_EBNF},
            {OPT_LARK, SQUISH_GRAMMAR_LARK},     {OPT_TAGS, SQUISH_GRAMMAR_TAGS},
            {OPT_NOTATION, SQUISH_GRAMMAR_TEXT}};

bool cli_names_grammar(const cli *c) {
    for (size_t i = 0; i < SQ_COUNT(ways); i++)
        if (cli_has(c, ways[i].option)) return true;
    return false;
}

int cli_open_grammar(cli *c, const squish_model *m, bool read, squish_grammar **out) {
    int found = -1;
    *out = NULL;
    for (size_t i = 0; i < SQ_COUNT(ways); i++) {
        if (!cli_has(c, ways[i].option)) continue;
        if (found >= 0) return cli_fail_text(c, 2, "one grammar, not two");
        found = (int)i;
    }
    if (found < 0) return 0;
    const char *text = cli_text(c, ways[found].option);
    squish_text file = {0};
    squish_grammar_kind kind = ways[found].kind;
    if (kind != SQUISH_GRAMMAR_REGEX) {
        const int code = cli_read(c, text, true, &file);
        if (code) return code;
    }
    if (kind == SQUISH_GRAMMAR_SCHEMA && read) kind = SQUISH_GRAMMAR_SCHEMA_LOOSE;
    squish_error err = {0};
    const squish_status st = squish_grammar_new(out, m, kind, file.data ? file.data : text,
                                                file.data ? file.bytes : strlen(text), &err);
    squish_text_free(&file);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

static json_t *quantiles(const double us[4]) {
    return json_pack("{s:f, s:f, s:f, s:f}", "p50", us[0], "p90", us[1], "p99", us[2], "max", us[3]);
}

static void print_line(const char *name, const double us[4]) {
    printf("%-12s %8.2f %8.2f %8.2f %8.2f\n", name, us[0], us[1], us[2], us[3]);
}

static int print(const cli *c, const squish_grammar_report *r, size_t bytes) {
    if (cli_flag(c, OPT_JSON)) {
        const int code = cli_print_json(
            json_pack("{s:b, s:I, s:I, s:i, s:f, s:o, s:o, s:o}", "accepted", r->accepted, "bytes",
                      (json_int_t)bytes, "valid_bytes", (json_int_t)r->valid_bytes, "tokens", r->n_tokens,
                      "compile_ms", r->compile_ms, "mask_us", quantiles(r->mask_us), "cold_mask_us",
                      quantiles(r->cold_us), "advance_us", quantiles(r->advance_us)));
        return code ? code : !r->accepted;
    }
    if (r->accepted)
        printf("accepted: %zu bytes, %d tokens\n", bytes, r->n_tokens);
    else if (r->valid_bytes == bytes)
        printf("not accepted: the text ends too early, after %zu bytes\n", bytes);
    else
        printf("not accepted: %zu of %zu bytes could begin such a text\n", r->valid_bytes, bytes);
    printf("compile      %8.3f ms\n%-12s %8s %8s %8s %8s\n", r->compile_ms, "us", "p50", "p90", "p99", "max");
    print_line("mask", r->mask_us);
    print_line("mask, cold", r->cold_us);
    print_line("advance", r->advance_us);
    return !r->accepted;
}

int cli_grammar(cli *c) {
    const char *model = cli_take_model(c, false);
    squish_text text = {0};
    squish_model *m = NULL;
    squish_grammar *g = NULL;
    if (!cli_has(c, OPT_CHECK))
        return cli_fail_text(c, 2, "grammar needs --check FILE (or - for standard input)");
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    if (!cli_names_grammar(c))
        return cli_fail_text(
            c, 2, "grammar needs --schema, --grammar, --gbnf, --ebnf, --lark or --tags FILE, or --regex RE");
    int code = cli_open_model(c, model, true, &m);
    if (code == 0) code = cli_open_grammar(c, m, true, &g);
    if (code == 0) code = cli_read(c, cli_text(c, OPT_CHECK), false, &text);
    if (code == 0) {
        squish_error err = {0};
        squish_grammar_report r;
        const int32_t runs = cli_flag(c, OPT_MASKS) ? (int32_t)cli_int(c, OPT_BENCH_RUNS) + 1 : 2;
        code = squish_grammar_check(g, m, text.data, text.bytes, runs, &r, &err) == SQUISH_OK
                   ? print(c, &r, text.bytes)
                   : cli_fail(c, &err);
    }
    squish_text_free(&text);
    squish_grammar_free(g);
    squish_model_close(m);
    return code;
}
