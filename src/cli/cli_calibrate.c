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

static int print_codec(const cli *c, const squish_codec_result *r) {
    char size[32], each[32];
    if (cli_flag(c, OPT_JSON)) {
        const int code = cli_print_json(json_pack(
            "{s:s, s:I, s:i, s:i, s:i, s:i, s:f, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:b, s:f}",
            "file", r->file.file, "bytes", (json_int_t)r->file.bytes, "tokens", r->file.tokens, "prefix",
            r->prefix, "continued", r->continued, "stretches", r->stretches, "kl", r->kl, "pass_keys",
            r->trials, "found_f16", r->found_f16, "found", r->found, "bytes_token", r->bytes_token,
            "bytes_token_f16", r->bytes_token_f16, "encode_us", r->encode_us, "decode_us", r->decode_us,
            "restore_us", r->restore_us, "prefill_us", r->prefill_us, "passed", r->passed, "seconds",
            r->file.seconds));
        return code || r->passed ? code : 4;
    }
    printf("%s\n%s of codebooks from %d tokens, %.1f s\n", r->file.file, cli_bytes(r->file.bytes, size),
           r->file.tokens, r->file.seconds);
    printf("%s a token, %.2fx fewer than f16 before the codebooks and the entropy coder\n",
           cli_bytes((uint64_t)r->bytes_token, each), r->bytes_token_f16 / r->bytes_token);
    printf("KL %.4f nats to f16: %d times %d tokens behind %d, all but the last from codes\n", r->kl,
           r->stretches, r->continued, r->prefix);
    if (r->trials) printf("pass keys: %d of %d, %d with f16\n", r->found, r->trials, r->found_f16);
    printf("a vector: %.2f us to encode, %.3f us to decode; ", r->encode_us, r->decode_us);
    printf("a token: %.0f us to restore, %.0f us to compute\n", r->restore_us, r->prefill_us);
    return r->passed ? 0 : cli_fail_text(c, 4, "%s", r->why);
}

/* --moe and --codec are about the weights that run here. */
static bool of_what_runs(const cli *c) { return cli_flag(c, OPT_MOE) || cli_flag(c, OPT_CODEC); }

static int run(cli *c, squish_model *m, const squish_calibrate_options *o) {
    squish_error err = {0};
    squish_calibrate_result r;
    squish_codec_result codec;
    if (cli_flag(c, OPT_CODEC)) {
        const squish_status made = squish_calibrate_codec(m, cli_text(c, OPT_OUT), o, &codec, &err);
        return made == SQUISH_OK ? print_codec(c, &codec) : cli_fail(c, &err);
    }
    const squish_status st = cli_flag(c, OPT_MOE)
                                 ? squish_calibrate_lookahead(m, cli_text(c, OPT_OUT), o, &r, &err)
                                 : squish_calibrate(m, cli_text(c, OPT_OUT), o, &r, &err);
    return st == SQUISH_OK ? print_result(c, &r) : cli_fail(c, &err);
}

int cli_calibrate(cli *c) {
    if (c->n_args > 1) return cli_fail_text(c, 2, "calibrate takes one model (squish calibrate SRC)");
    const char *name = c->n_args ? c->args[0] : cli_text(c, OPT_MODEL);
    if (cli_flag(c, OPT_MOE) && cli_flag(c, OPT_CODEC))
        return cli_fail_text(c, 2, "--moe and --codec contradict: one file at a time");
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
        code = of_what_runs(c) ? cli_open_model(c, name, false, &m) : open_source(c, name, &m);
    if (code == 0) code = run(c, m, &o);
    squish_model_close(m);
    squish_text_free(&text);
    return code;
}
