/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_text.c - tokenize, detokenize, template. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The text of a command: an argument, --text FILE, or standard input. */
static int input_text(cli *c, squish_text *owned, const char **text, size_t *n) {
    if (c->n_args > 0 && !cli_has(c, OPT_TEXT)) {
        *text = c->args[0];
        *n = strlen(*text);
        return 0;
    }
    const int code = cli_read(c, cli_has(c, OPT_TEXT) ? cli_text(c, OPT_TEXT) : "-", false, owned);
    *text = owned->data;
    *n = owned->bytes;
    return code;
}

static int print_ids(const cli *c, const squish_tokens *t) {
    if (cli_flag(c, OPT_JSON)) {
        json_t *ids = json_array();
        for (size_t i = 0; i < t->count; i++) json_array_append_new(ids, json_integer(t->ids[i]));
        return cli_print_json(json_pack("{s:o, s:I}", "ids", ids, "count", (json_int_t)t->count));
    }
    for (size_t i = 0; i < t->count; i++) printf(i ? " %d" : "%d", t->ids[i]);
    putchar('\n');
    return 0;
}

int cli_tokenize(cli *c) {
    const char *model = cli_take_model(c, true), *text = NULL;
    squish_text owned = {0};
    squish_tokens t = {0};
    squish_model *m = NULL;
    size_t n = 0;
    if (c->n_args > 1) return cli_fail_text(c, 2, "one text at a time (quote it)");
    int code = cli_open_model(c, model, true, &m);
    if (code == 0) code = input_text(c, &owned, &text, &n);
    if (code == 0) {
        squish_error err = {0};
        const unsigned flags = (cli_flag(c, OPT_SPECIAL) ? SQUISH_TOK_SPECIAL : 0) |
                               (cli_flag(c, OPT_BOS) ? SQUISH_TOK_BOS_EOS : 0);
        code =
            squish_tokenize(m, text, n, flags, &t, &err) == SQUISH_OK ? print_ids(c, &t) : cli_fail(c, &err);
    }
    squish_tokens_free(&t);
    squish_text_free(&owned);
    squish_model_close(m);
    return code;
}

bool cli_parse_ids(cli *c, const char *what, const char *text, int32_t **out, size_t *n) {
    const size_t max = strlen(text) / 2 + 1;
    *out = SQ_ARENA_ARRAY(&c->arena, int32_t, max);
    *n = 0;
    for (const char *p = text; *out;) {
        p += strspn(p, ", \t\r\n[]");
        if (!*p) return true;
        char *end;
        errno = 0;
        const long v = strtol(p, &end, 10);
        if (end == p || errno || v < 0 || v > INT32_MAX) {
            cli_fail_text(c, 2, "%s: '%.20s' is not a list of token ids", what, p);
            return false;
        }
        (*out)[(*n)++] = (int32_t)v;
        p = end;
    }
    cli_fail_text(c, 5, "out of memory for the ids");
    return false;
}

int cli_detokenize(cli *c) {
    const char *model = cli_take_model(c, true);
    squish_text owned = {0}, text = {0};
    squish_model *m = NULL;
    int code = cli_open_model(c, model, true, &m);
    if (code == 0 && c->n_args == 0) code = cli_read(c, "-", true, &owned);
    if (code == 0) {
        const squish_alloc a = sq_alloc_default();
        squish_error err = {0};
        sq_buf joined;
        sq_buf_init(&joined, &a, 1 << 28);
        if (owned.data) sq_buf_puts(&joined, owned.data);
        for (int i = 0; i < c->n_args; i++) sq_buf_puts(&joined, c->args[i]), sq_buf_putc(&joined, ' ');
        int32_t *ids;
        size_t n;
        if (!cli_parse_ids(c, "detokenize", joined.data ? joined.data : "", &ids, &n)) code = 2;
        else if (squish_detokenize(m, ids, n, cli_flag(c, OPT_SPECIAL), &text, &err) != SQUISH_OK)
            code = cli_fail(c, &err);
        else if (cli_flag(c, OPT_JSON))
            code = cli_print_json(json_pack("{s:s%}", "text", text.data, text.bytes));
        else printf("%s\n", text.data);
        sq_buf_deinit(&joined);
    }
    squish_text_free(&text);
    squish_text_free(&owned);
    squish_model_close(m);
    return code;
}

/* --var K=V into an object; V is JSON where it parses as JSON, else text. */
static json_t *variables(const cli *c) {
    json_t *o = json_object();
    for (int i = 0; i < c->values[OPT_VAR].n_list; i++) {
        const char *kv = c->values[OPT_VAR].list[i], *eq = strchr(kv, '=');
        if (!eq) {
            cli_fail_text(c, 2, "--var: '%.60s' is not K=V", kv);
            json_decref(o);
            return NULL;
        }
        json_t *v = json_loads(eq + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
        json_object_setn_new(o, kv, (size_t)(eq - kv), v ? v : json_string(eq + 1));
    }
    return o;
}

int cli_template(cli *c) {
    const char *model = cli_take_model(c, false);
    squish_text messages = {0}, tools = {0}, source = {0}, out = {0};
    squish_model *m = NULL;
    char *vars_text = NULL;
    int code = 0;
    if (!cli_has(c, OPT_MESSAGES))
        return cli_fail_text(c, 2, "template needs --messages FILE (or - for standard input)");
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    json_t *vars = variables(c);
    if (!vars) return 2;
    vars_text = json_dumps(vars, JSON_COMPACT);
    json_decref(vars);
    if (model || !cli_has(c, OPT_TEMPLATE)) code = cli_open_model(c, model, true, &m);
    if (code == 0) code = cli_read(c, cli_text(c, OPT_MESSAGES), true, &messages);
    if (code == 0 && cli_has(c, OPT_TOOLS)) code = cli_read(c, cli_text(c, OPT_TOOLS), true, &tools);
    if (code == 0 && cli_has(c, OPT_TEMPLATE)) code = cli_read(c, cli_text(c, OPT_TEMPLATE), true, &source);
    if (code == 0) {
        squish_error err = {0};
        squish_template_options o = squish_template_options_default();
        o.messages_json = messages.data;
        o.tools_json = tools.data;
        o.vars_json = vars_text;
        o.template_source = source.data;
        o.add_generation_prompt = !cli_flag(c, OPT_NO_GENERATION_PROMPT);
        if (squish_template_render(m, &o, &out, &err) != SQUISH_OK) code = cli_fail(c, &err);
        else if (cli_flag(c, OPT_JSON))
            code = cli_print_json(json_pack("{s:s%}", "text", out.data, out.bytes));
        else fwrite(out.data, 1, out.bytes, stdout);
    }
    free(vars_text); /* jansson's */
    squish_text_free(&out);
    squish_text_free(&source);
    squish_text_free(&tools);
    squish_text_free(&messages);
    squish_model_close(m);
    return code;
}
