/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_heads.c - train heads that guess: the model writes text, and they learn what it says of it. */
#include "cli/cli.h"

#include <string.h>

static int print_result(const cli *c, const squish_heads_result *r) {
    char size[32];
    json_t *agreement = json_array();
    for (int32_t i = 0; i < r->heads; i++)
        json_array_append_new(agreement, json_real((double)r->agreement[i]));
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:s, s:I, s:i, s:i, s:i, s:o, s:f, s:f, s:f, s:f}", "file", r->file,
                                        "bytes", (json_int_t)r->bytes, "heads", r->heads, "tokens", r->tokens,
                                        "steps", r->steps, "agreement", agreement, "coverage",
                                        (double)r->coverage, "loss_first", (double)r->loss_first, "loss_last",
                                        (double)r->loss_last, "seconds", r->seconds));
    json_decref(agreement);
    printf("%s\n%s, %d heads, %d steps on %d tokens, %.1f s\nagreement", r->file, cli_bytes(r->bytes, size),
           r->heads, r->steps, r->tokens, r->seconds);
    for (int32_t i = 0; i < r->heads; i++) printf(" %.3f", (double)r->agreement[i]);
    printf(", of ids that are %.1f %% of what the model says; loss %.3f to %.3f\n",
           100.0 * (double)r->coverage, (double)r->loss_first, (double)r->loss_last);
    return 0;
}

int cli_train_heads(cli *c) {
    if (c->n_args > 1) return cli_fail_text(c, 2, "train-heads takes one model (squish train-heads MODEL)");
    const char *name = c->n_args ? c->args[0] : cli_text(c, OPT_MODEL);
    const char *file = cli_text(c, OPT_TEXT);
    squish_heads_options o = squish_heads_options_default();
    squish_heads_result r;
    squish_error err = {0};
    squish_text text = {0};
    squish_model *m = NULL;
    int code = file && *file ? cli_read(c, file, true, &text) : 0;
    if (text.data) {
        o.text = text.data;
        o.text_bytes = text.bytes;
    }
    o.home = cli_home(c);
    o.heads = (int32_t)cli_int(c, OPT_HEADS_N);
    o.ids = (int32_t)cli_int(c, OPT_HEADS_IDS);
    o.tokens = (int32_t)cli_int(c, OPT_HEADS_TOKENS);
    o.steps = (int32_t)cli_int(c, OPT_HEADS_STEPS);
    o.bits = *cli_text(c, OPT_HEADS_BITS) - '0';
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    if (cli_int(c, OPT_SEED) >= 0) o.seed = (uint64_t)cli_int(c, OPT_SEED);
    o.progress = cli_progress;
    o.progress_user = c;
    if (code == 0) code = cli_open_model(c, name, false, &m);
    if (code == 0)
        code = squish_train_heads(m, cli_text(c, OPT_OUT), &o, &r, &err) == SQUISH_OK ? print_result(c, &r)
                                                                                      : cli_fail(c, &err);
    squish_model_close(m);
    squish_text_free(&text);
    return code;
}
