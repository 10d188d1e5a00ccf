/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_validate.c - squish validate: the JSON-Schema referee on files. */
#include "cli/cli.h"

#include <string.h>

typedef struct {
    json_t *errors; /* with --json */
    int n;
} heard;

static void hear(void *user, const squish_schema_violation *v) {
    heard *h = user;
    h->n++;
    if (h->errors) {
        json_array_append_new(
            h->errors, json_pack("{s:s, s:s, s:s}", "at", v->at, "keyword", v->keyword, "message", v->text));
        return;
    }
    cli_put_text(stdout, v->at, strlen(v->at));
    cli_put_text(stdout, ": ", 2);
    cli_put_text(stdout, v->text, strlen(v->text));
    cli_put_text(stdout, " (", 2);
    cli_put_text(stdout, v->keyword, strlen(v->keyword));
    cli_put_text(stdout, ")\n", 2);
}

/* The schema with the documents beside it; 0 or an exit status after saying why. */
static int open_schema(cli *c, squish_schema **out) {
    squish_text text = {0}, refs[CLI_LIST_MAX] = {0};
    squish_schema_document documents[CLI_LIST_MAX];
    const cli_value *given = &c->values[OPT_SCHEMA_REF];
    squish_schema_options opt = squish_schema_options_default();
    squish_error err = {0};
    int code = cli_read(c, cli_text(c, OPT_SCHEMA), false, &text);
    for (int i = 0; i < given->n_list && code == 0; i++) {
        code = cli_read(c, given->list[i], false, &refs[i]);
        documents[i] = (squish_schema_document){NULL, refs[i].data, refs[i].bytes};
    }
    opt.documents = documents;
    opt.n_documents = (size_t)given->n_list;
    opt.assert_format = cli_flag(c, OPT_ASSERT_FORMAT);
    if (code == 0 && squish_schema_new(out, text.data, text.bytes, &opt, &err) != SQUISH_OK) {
        sq_err_prefix(&err, "%s", cli_text(c, OPT_SCHEMA));
        code = cli_fail(c, &err);
    }
    for (int i = 0; i < given->n_list; i++) squish_text_free(&refs[i]);
    squish_text_free(&text);
    return code;
}

static int judge(cli *c, const squish_schema *s, const squish_text *text) {
    const bool json = cli_flag(c, OPT_JSON);
    heard h = {json ? json_array() : NULL, 0};
    squish_error err = {0};
    bool valid = false;
    if (squish_schema_validate(s, text->data, text->bytes, hear, &h, &valid, &err) != SQUISH_OK) {
        json_decref(h.errors);
        sq_err_prefix(&err, "%s", c->args[0]);
        return cli_fail(c, &err);
    }
    if (json) {
        const int bad = cli_print_json(json_pack("{s:b, s:o}", "valid", valid, "errors", h.errors));
        return bad ? bad : !valid;
    }
    if (valid) puts("valid");
    return !valid;
}

int cli_validate(cli *c) {
    if (c->n_args != 1) return cli_fail_text(c, 2, "validate takes one file");
    if (!cli_has(c, OPT_SCHEMA)) return cli_fail_text(c, 2, "validate wants --schema FILE");
    squish_schema *s = NULL;
    squish_text text = {0};
    int code = open_schema(c, &s);
    if (code == 0) code = cli_read(c, c->args[0], false, &text);
    if (code == 0) code = judge(c, s, &text);
    squish_text_free(&text);
    squish_schema_free(s);
    return code;
}
