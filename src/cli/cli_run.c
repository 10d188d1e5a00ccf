/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_run.c - one prompt, one answer, streamed as it is made. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the prompt ------------------------------------------------------------------------------ */

static squish_status render(cli *c, const cli_session *s, const char *prompt, const char *source,
                            squish_text *out, squish_error *err) {
    json_t *messages = json_array();
    squish_template_options o = squish_template_options_default();
    if (cli_has(c, OPT_SYSTEM))
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "system", "content", cli_text(c, OPT_SYSTEM)));
    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", prompt));
    char *text = json_dumps(messages, JSON_COMPACT);
    json_decref(messages);
    if (!text) return sq_fail(err, SQUISH_INVALID, "the prompt is not UTF-8 text");
    o.messages_json = text;
    o.template_source = source;
    const squish_status st = squish_template_render(s->model, &o, out, err);
    free(text); /* jansson's */
    return st;
}

/* Prompt text to ids: through the chat template, or as it is. */
static int prompt_tokens(cli *c, const cli_session *s, const char *prompt, squish_tokens *out) {
    squish_error err = {0};
    squish_text text = {0}, file = {0};
    squish_status st;
    const char *source = NULL;
    const int code = cli_read_template(c, &file, &source);
    if (code) return code;
    const bool has_template = s->info.has_template || source;
    if (!has_template && !cli_flag(c, OPT_RAW))
        cli_note(c, "squish: %s has no chat template: continuing the text as it is (--raw says so)",
                 s->info.path);
    if (has_template && !cli_flag(c, OPT_RAW)) {
        st = render(c, s, prompt, source, &text, &err);
        if (st == SQUISH_OK)
            st = squish_tokenize(s->model, text.data, text.bytes, SQUISH_TOK_SPECIAL, out, &err);
    } else {
        st = squish_tokenize(s->model, prompt, strlen(prompt), SQUISH_TOK_BOS_EOS, out, &err);
    }
    squish_text_free(&text);
    squish_text_free(&file);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

/* ---- the answer ------------------------------------------------------------------------------ */

typedef struct {
    sq_buf text;
    json_t *ids; /* with --json */
    squish_finish finish;
    squish_gen_stats stats;
    bool cancelled;
} answer;

static squish_status generate(cli *c, const cli_session *s, const squish_tokens *prompt,
                              const squish_grammar *grammar, answer *a, squish_error *err) {
    squish_gen_options o = cli_gen_options(c, s);
    o.grammar = grammar;
    o.special_text = cli_has(c, OPT_TAGS); /* tags may name control tokens */
    squish_gen *g = NULL;
    const bool json = cli_flag(c, OPT_JSON);
    SQ_TRY(squish_gen_new(&g, s->seq, prompt->ids, prompt->count, &o, err));
    squish_gen_event ev = {0};
    squish_status st = SQUISH_OK;
    while (st == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE && !ferror(stdout)) {
        st = squish_gen_next(g, &ev, err);
        if (st != SQUISH_OK) break;
        if (json) {
            sq_buf_append(&a->text, ev.text, ev.text_bytes);
            if (ev.id >= 0) json_array_append_new(a->ids, json_integer(ev.id));
        } else if (ev.text_bytes) {
            cli_put_text(stdout, ev.text, ev.text_bytes); /* each token out the moment it exists */
        }
    }
    a->finish = ev.finish;
    squish_gen_get_stats(g, &a->stats);
    squish_gen_free(g);
    return st;
}

void cli_print_stats(const cli_session *s, const squish_gen_stats *t) {
    fprintf(stderr,
            "load %.1f ms, first token %.1f ms, prompt %d tokens (%d reused) %.0f tok/s, answer %d tokens "
            "%.1f tok/s, %d of %d guesses right, seed %lld\n",
            s->info.load_ms, t->ttft_ms, t->prompt_tokens, t->reused_tokens, t->prefill_tok_s,
            t->completion_tokens, t->decode_tok_s, t->right_tokens, t->guessed_tokens, (long long)t->seed);
    cli_print_agile(s->engine);
}

static int print_json(cli *c, const cli_session *s, answer *a) {
    const squish_gen_stats *t = &a->stats;
    squish_engine_info e;
    squish_engine_get_info(s->engine, &e);
    json_t *o =
        json_pack("{s:s%, s:O, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:I, s:f}", "text",
                  a->text.data ? a->text.data : "", a->text.len, "tokens", a->ids, "finish_reason",
                  cli_finish_name(a->finish), "prompt_tokens", t->prompt_tokens, "reused_tokens",
                  t->reused_tokens, "forced_tokens", t->forced_tokens, "checked_tokens", t->checked_tokens,
                  "guessed_tokens", t->guessed_tokens, "right_tokens", t->right_tokens, "load_ms",
                  s->info.load_ms, "ttft_ms", t->ttft_ms, "decode_tok_s", t->decode_tok_s, "prefill_tok_s",
                  t->prefill_tok_s, "seed", (json_int_t)t->seed, "attn_density", e.attn_density);
    json_t *agile = cli_agile_json(s->engine);
    if (agile) json_object_set_new(o, "agile_io", agile);
    json_t *look = cli_lookahead_json(s->engine);
    if (look) json_object_set_new(o, "lookahead", look);
    json_t *touched = cli_touched(c, s, t);
    if (json_array_size(touched)) json_object_set(o, "touched", touched);
    json_decref(touched);
    return cli_print_json(o);
}

static int answer_prompt(cli *c, const cli_session *s, const char *prompt) {
    squish_tokens ids = {0};
    squish_grammar *grammar = NULL;
    int code = cli_open_grammar(c, s->model, false, &grammar);
    if (grammar && cli_flag(c, OPT_JUMPS)) squish_grammar_cut_canonically(grammar);
    if (code == 0) code = prompt_tokens(c, s, prompt, &ids);
    if (code) {
        squish_grammar_free(grammar);
        return code;
    }
    const squish_alloc alloc = sq_alloc_default();
    answer a = {.ids = json_array()};
    squish_error err = {0};
    sq_buf_init(&a.text, &alloc, (size_t)1 << 30);
    const squish_status st = generate(c, s, &ids, grammar, &a, &err);
    if (st == SQUISH_OK) {
        if (cli_flag(c, OPT_JSON))
            code = print_json(c, s, &a);
        else if (!ferror(stdout))
            putchar('\n');
        cli_note_untouched(c, s, &a.stats);
        if (cli_flag(c, OPT_VERBOSE)) cli_print_stats(s, &a.stats);
    } else {
        if (!cli_flag(c, OPT_JSON) && a.stats.completion_tokens > 0) putchar('\n');
        code = cli_fail(c, &err);
    }
    json_decref(a.ids);
    sq_buf_deinit(&a.text);
    squish_tokens_free(&ids);
    squish_grammar_free(grammar);
    return code;
}

int cli_run(cli *c) {
    const char *model = cli_take_model(c, true);
    if (c->n_args > 1)
        return cli_fail_text(c, 2, "one prompt at a time: '%.60s' is too many (quote the prompt)",
                             c->args[1]);
    if (c->n_args == 0 && isatty(STDIN_FILENO)) {
        if (cli_flag(c, OPT_JSON)) return cli_fail_text(c, 2, "--json needs a prompt");
        if (cli_names_grammar(c)) return cli_fail_text(c, 2, "a grammar for the answer needs a prompt");
        if (model && !cli_has(c, OPT_MODEL)) c->args[c->n_args++] = model;
        return cli_chat(c);
    }
    squish_text piped = {0};
    const char *prompt = c->n_args ? c->args[0] : NULL;
    int code = 0;
    if (!prompt) {
        code = cli_read(c, "-", true, &piped);
        prompt = piped.data;
    }
    if (code == 0 && !*prompt)
        code = cli_fail_text(c, 2, "the prompt is empty (squish run MODEL \"PROMPT\")");
    if (code == 0 && !sq_utf8_valid(prompt, strlen(prompt)))
        code = cli_fail_text(c, 1, "the prompt is not UTF-8 text");
    cli_session s;
    if (code == 0) code = cli_take_made(c, model);
    if (code == 0 && (code = cli_open_session(c, model, &s)) == 0) {
        code = answer_prompt(c, &s, prompt);
        cli_close_session(&s);
    }
    squish_text_free(&piped);
    return code;
}
