/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_chat.c - a conversation: the whole of it is rendered for every answer, and the timeline keeps what it
 * shares with the one before, so only what is new is evaluated.
 *
 * A message that gets no answer (stopped before the first word, too long, refused by the template) is taken
 * back, since many templates insist on turns. An answer that is stopped half-way stays. */
#include "cli/cli_chat.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages -------------------------------------------------------------------------------- */

json_t *cli_talk_last(const cli_talk *t, const char *role) {
    const size_t n = json_array_size(t->messages);
    json_t *last = n ? json_array_get(t->messages, n - 1) : NULL;
    return last && strcmp(json_string_value(json_object_get(last, "role")), role) == 0 ? last : NULL;
}

void cli_talk_drop_last(cli_talk *t) {
    const size_t n = json_array_size(t->messages);
    if (n) json_array_remove(t->messages, n - 1);
}

static bool append(cli_talk *t, const char *role, const char *text, size_t n) {
    return json_array_append_new(t->messages, json_pack("{s:s, s:s%}", "role", role, "content", text, n)) ==
           0;
}

/* ---- the prompt ------------------------------------------------------------------------------ */

/* Without a template a conversation is one text that goes on. */
static squish_status join_contents(const cli_talk *t, squish_text *out, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    json_t *m;
    size_t i;
    sq_buf_init(&b, &a, (size_t)1 << 28);
    json_array_foreach(t->messages, i, m) {
        const json_t *text = json_object_get(m, "content");
        sq_buf_append(&b, json_string_value(text), json_string_length(text));
    }
    const squish_status st = sq_buf_take(&b, out, err);
    sq_buf_deinit(&b);
    return st;
}

static squish_status render(const cli_talk *t, squish_text *out, squish_error *err) {
    if (!t->s.info.has_template && !t->template_source) return join_contents(t, out, err);
    squish_template_options o = squish_template_options_default();
    char *json = json_dumps(t->messages, JSON_COMPACT);
    if (!json) return sq_fail(err, SQUISH_NO_MEMORY, "out of memory for the conversation");
    o.messages_json = json;
    o.template_source = t->template_source;
    const squish_status st = squish_template_render(t->s.model, &o, out, err);
    free(json); /* jansson's */
    return st;
}

static squish_status make_prompt(const cli_talk *t, squish_tokens *out, squish_error *err) {
    const bool templated = t->s.info.has_template || t->template_source;
    squish_text text = {0};
    squish_engine_info e;
    SQ_TRY(render(t, &text, err));
    squish_status st = squish_tokenize(t->s.model, text.data, text.bytes,
                                       templated ? SQUISH_TOK_SPECIAL : SQUISH_TOK_BOS_EOS, out, err);
    squish_text_free(&text);
    if (st != SQUISH_OK) return st;
    squish_engine_get_info(t->s.engine, &e);
    if (out->count <= (size_t)e.ctx_tokens) return SQUISH_OK;
    st = sq_fail(err, SQUISH_INVALID,
                 "the conversation with this message has %zu tokens, the context holds %d (/clear begins "
                 "anew, a shorter message "
                 "may fit, --ctx gives more room)",
                 out->count, e.ctx_tokens);
    squish_tokens_free(out);
    return st;
}

/* ---- the answer ------------------------------------------------------------------------------ */

static squish_status stream(cli_talk *t, const squish_tokens *prompt, sq_buf *text, squish_finish *why,
                            squish_error *err) {
    const squish_gen_options o = cli_gen_options(t->c, &t->s);
    squish_gen *g = NULL;
    squish_gen_event ev = {0};
    SQ_TRY(squish_gen_new(&g, t->s.seq, prompt->ids, prompt->count, &o, err));
    squish_status st = SQUISH_OK;
    while (st == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE) {
        st = squish_gen_next(g, &ev, err);
        if (st != SQUISH_OK || ev.text_bytes == 0) continue;
        cli_put_text(stdout, ev.text, ev.text_bytes);
        sq_buf_append(text, ev.text, ev.text_bytes);
    }
    *why = ev.finish;
    squish_gen_get_stats(g, &t->stats);
    t->has_stats = true;
    squish_gen_free(g);
    if (text->failed) st = sq_fail(err, SQUISH_NO_MEMORY, "out of memory for the answer");
    return st;
}

/* Why the answer ends here, if not because the model ended it. */
static void say_end(const cli_talk *t, squish_finish why, bool stopped) {
    squish_engine_info e;
    squish_engine_get_info(t->s.engine, &e);
    if (stopped) cli_note(t->c, "[stopped]");
    else if (why == SQUISH_FINISH_LENGTH && squish_seq_length(t->s.seq) + 1 > e.ctx_tokens)
        cli_note(t->c, "[the context of %d tokens is full and the answer ends here: /clear begins anew]",
                 e.ctx_tokens);
    else if (why == SQUISH_FINISH_LENGTH)
        cli_note(t->c, "[stopped at %lld tokens, see /set max_tokens]",
                 (long long)cli_int(t->c, OPT_MAX_TOKENS));
    if (cli_flag(t->c, OPT_VERBOSE)) cli_print_stats(&t->s, &t->stats);
}

bool cli_talk_answer(cli_talk *t) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    squish_tokens prompt = {0};
    squish_finish why = SQUISH_FINISH_NONE;
    sq_buf text;
    sq_buf_init(&text, &a, (size_t)1 << 28);
    /* In the plain form a Ctrl-C still ends the program, so it must not be forgotten. */
    if (t->terminal) cli_signal_clear(), squish_seq_cancel_clear(t->s.seq);
    squish_status st = make_prompt(t, &prompt, &err);
    if (st == SQUISH_OK) st = stream(t, &prompt, &text, &why, &err);
    const bool stopped = st == SQUISH_CANCELLED;
    if (t->terminal) cli_signal_clear(); /* also one that came too late to stop anything */
    if (text.len > 0 && text.data[text.len - 1] != '\n') putchar('\n');
    fflush(stdout);
    const bool answered = (st == SQUISH_OK || (stopped && text.len > 0)) &&
                          append(t, "assistant", text.data ? text.data : "", text.len);
    if (answered) say_end(t, why, stopped);
    else if (stopped)
        cli_note(t->c, "[stopped: the message was taken back%s]",
                 t->terminal ? ", the up arrow brings it" : "");
    else cli_fail(t->c, &err);
    squish_tokens_free(&prompt);
    sq_buf_deinit(&text);
    return answered;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void take_message(cli_talk *t, const sq_buf *text) {
    if (!sq_utf8_valid(text->data, text->len)) {
        cli_fail_text(t->c, 1, "the message is not UTF-8 text");
        t->failed = true;
        return;
    }
    const bool done = append(t, "user", text->data, text->len) && cli_talk_answer(t);
    if (!done) t->failed = true, cli_talk_drop_last(t);
}

/* Read and answer until the end. Returns the exit status. */
static int converse(cli_talk *t, cli_repl *r, sq_buf *text) {
    for (;;) {
        bool fenced = false;
        const cli_repl_got got = cli_repl_read(r, text, &fenced);
        if (got == REPL_END) break;
        if (got == REPL_FAILED) return cli_fail_text(t->c, 5, "the message is longer than 16 MiB");
        if (got == REPL_INTERRUPTED && !t->terminal) return cli_fail_text(t->c, 130, "stopped");
        if (got == REPL_INTERRUPTED || text->len == 0) continue;
        if (!fenced && text->data[0] == '/') {
            if (!cli_chat_command_run(t, text->data)) break;
        } else {
            take_message(t, text);
        }
        if (t->terminal) putchar('\n');
        else if (cli_signal_seen()) return 130; /* said already */
    }
    return !t->terminal && t->failed;
}

static void welcome(const cli_talk *t, const char *name) {
    squish_engine_info e;
    squish_engine_get_info(t->s.engine, &e);
    const char *base = strrchr(name, '/');
    printf("%s (tier %s, context of %d tokens). /help lists commands, Ctrl-D leaves.\n",
           base && base[1] ? base + 1 : name, t->s.info.tier, e.ctx_tokens);
}

/* The history file, its folder made if need be; NULL if none can be kept. */
static const char *history_path(const cli_talk *t, char *path, size_t n) {
    squish_error err = {0};
    char home[4096];
    if (!t->terminal) return NULL;
    if (!cli_home_path(t->c, "", home, sizeof home) || !cli_home_path(t->c, "history", path, n)) return NULL;
    if (sq_os_mkdirs(home, &err) == SQUISH_OK && access(home, W_OK) == 0) return path;
    cli_note(t->c, "squish: no history is kept: %s",
             err.code ? err.text : "the home folder cannot be written (set SQUISH_HOME)");
    return NULL;
}

static int talk(cli_talk *t, const char *name) {
    char path[4096];
    const squish_alloc a = sq_alloc_default();
    sq_buf text;
    const char *system = cli_text(t->c, OPT_SYSTEM);
    if (system && *system && !append(t, "system", system, strlen(system)))
        return cli_fail_text(t->c, 1, "--system is not UTF-8 text");
    if (!t->s.info.has_template && !t->template_source)
        cli_note(t->c, "squish: this model has no chat template: each message is continued as text "
                       "(--template FILE gives one)");
    cli_repl *r = cli_repl_open(history_path(t, path, sizeof path), t->terminal);
    if (!r)
        return cli_fail_text(t->c, 1, "the terminal cannot be used (TERM is '%.40s')",
                             getenv("TERM") ? getenv("TERM") : "");
    if (t->terminal) welcome(t, name);
    sq_buf_init(&text, &a, (size_t)16 << 20);
    const int code = converse(t, r, &text);
    cli_repl_close(r);
    sq_buf_deinit(&text);
    if (t->terminal) putchar('\n');
    return code;
}

int cli_chat(cli *c) {
    const bool given = cli_has(c, OPT_MODEL);
    const char *name = given ? cli_text(c, OPT_MODEL) : c->n_args ? c->args[0] : NULL;
    if (c->n_args > !given) return cli_fail_text(c, 2, "chat takes one model");
    cli_talk t = {.c = c, .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    squish_text file = {0};
    int code = cli_take_made(c, name);
    if (code == 0) code = cli_read_template(c, &file, &t.template_source);
    if (code == 0) code = cli_open_session(c, name, &t.s);
    if (code == 0) {
        t.messages = json_array();
        code = talk(&t, name ? name : "squish-tiny");
        json_decref(t.messages);
        cli_close_session(&t.s);
    }
    squish_text_free(&file);
    return code;
}
