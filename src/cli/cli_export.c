/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_export.c - write a model in the form of others. */
#include "cli/cli.h"

int cli_export(cli *c) {
    const char *name = cli_take_model(c, false), *out = cli_text(c, OPT_OUT), *to = cli_text(c, OPT_TO);
    squish_error err = {0};
    squish_model *m = NULL;
    squish_export_result r;
    const squish_export_options o = {.progress = cli_progress, .progress_user = c};
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    if (!out)
        return cli_fail_text(c, 2, "export needs a place to write to (squish export MODEL --to %s -o PATH)",
                             to);
    const int code = cli_open_model(c, name, false, &m);
    if (code) return code;
    const squish_status st = squish_export(m, to, out, &o, &r, &err);
    squish_model_close(m);
    if (st != SQUISH_OK) return cli_fail(c, &err);
    if (!r.has_tokenizer) cli_note(c, "squish: no vocabulary was found to go with it");
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:s, s:s, s:I, s:i, s:i, s:b}", "to", to, "file", out, "bytes",
                                        (json_int_t)r.bytes, "exact", r.n_exact, "decoded", r.n_decoded,
                                        "tokenizer", r.has_tokenizer));
    char size[32];
    printf("%s\n%s; %d matrices as they are, %d decoded\n", out, cli_bytes(r.bytes, size), r.n_exact,
           r.n_decoded);
    return 0;
}
