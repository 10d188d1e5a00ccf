/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_calibrate.c - run a text through a model's source weights and keep what goes into its matrices. */
#include "cli/cli.h"

#include <string.h>

/* The weights as they came: what a build is measured against is what it should be made with. */
static int open_source(cli *c, const char *name, squish_model **out) {
    squish_error err = {0};
    squish_text path = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    o.warn = cli_warn;
    o.warn_user = c;
    squish_status st = cli_locate(c, name, &path, &err);
    cli_progress_part(c, NULL, 0, 0);
    if (st == SQUISH_OK) st = squish_model_open(out, path.data, &o, &err);
    squish_text_free(&path);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

static int print_result(const cli *c, const squish_calibrate_result *r) {
    char size[32];
    if (cli_flag(c, OPT_JSON) && cli_flag(c, OPT_MOE))
        return cli_print_json(json_pack("{s:s, s:I, s:i, s:i, s:f}", "file", r->file, "bytes",
                                        (json_int_t)r->bytes, "tokens", r->tokens, "layers", r->n_inputs,
                                        "seconds", r->seconds));
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:s, s:I, s:i, s:i, s:f}", "file", r->file, "bytes",
                                        (json_int_t)r->bytes, "tokens", r->tokens, "inputs", r->n_inputs,
                                        "seconds", r->seconds));
    printf("%s\n%s, %d %s over %d tokens, %.1f s\n", r->file, cli_bytes(r->bytes, size), r->n_inputs,
           cli_flag(c, OPT_MOE) ? "layers with experts" : "inputs", r->tokens, r->seconds);
    return 0;
}

/* --moe is about the weights that run here. */
static int run(cli *c, squish_model *m, const squish_calibrate_options *o) {
    squish_error err = {0};
    squish_calibrate_result r;
    const squish_status st = cli_flag(c, OPT_MOE)
                                 ? squish_calibrate_lookahead(m, cli_text(c, OPT_OUT), o, &r, &err)
                                 : squish_calibrate(m, cli_text(c, OPT_OUT), o, &r, &err);
    return st == SQUISH_OK ? print_result(c, &r) : cli_fail(c, &err);
}

int cli_calibrate(cli *c) {
    if (c->n_args > 1) return cli_fail_text(c, 2, "calibrate takes one model (squish calibrate SRC)");
    const char *name = c->n_args ? c->args[0] : cli_text(c, OPT_MODEL);
    const char *file = cli_text(c, OPT_TEXT);
    squish_calibrate_options o = squish_calibrate_options_default();
    squish_text text = {0};
    squish_model *m = NULL;
    int code = file && *file ? cli_read(c, file, true, &text) : 0;
    if (text.data) {
        o.text = text.data;
        o.text_bytes = text.bytes;
    }
    o.home = cli_home(c);
    o.tokens_max = (int32_t)cli_int(c, OPT_TOKENS);
    o.block = (int32_t)cli_int(c, OPT_BLOCK);
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    o.progress = cli_progress;
    o.progress_user = c;
    if (code == 0)
        code = cli_flag(c, OPT_MOE) ? cli_open_model(c, name, false, &m) : open_source(c, name, &m);
    if (code == 0) code = run(c, m, &o);
    squish_model_close(m);
    squish_text_free(&text);
    return code;
}
