/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_compress.c - build a tier and say what came out. */
#include "cli/cli.h"

#include <string.h>

int cli_compress(cli *c) {
    if (c->n_args != 1) return cli_fail_text(c, 2, "compress takes one folder (squish compress SRC)");
    squish_error err = {0};
    squish_text src = {0};
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    const char *tier = cli_text(c, OPT_TIER);
    if (strcmp(tier, "source") == 0)
        return cli_fail_text(c, 2, "--tier source is what is there already; build 0 or q8");
    o.tier = strcmp(tier, "q8") == 0 ? SQUISH_TIER_Q8 : SQUISH_TIER_0;
    o.method = strcmp(cli_text(c, OPT_METHOD), "rtn") == 0 ? SQUISH_METHOD_RTN : SQUISH_METHOD_LSQ;
    o.group = (int32_t)cli_int(c, OPT_GROUP);
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    o.force = cli_flag(c, OPT_FORCE);
    o.out_dir = cli_text(c, OPT_OUT);
    o.home = cli_home(c);
    o.progress = cli_progress;
    o.progress_user = c;
    squish_status st = squish_locate(cli_home(c), c->args[0], &src, &err);
    if (st == SQUISH_OK) st = squish_compress(src.data, &o, &r, &err);
    squish_text_free(&src);
    if (st != SQUISH_OK) return cli_fail(c, &err);
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(
            json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:i, s:i, s:f, s:f, s:s, s:b}", "tier",
                      o.tier == SQUISH_TIER_0 ? "0" : "q8", "file", r.file, "bytes", (json_int_t)r.bytes,
                      "bpw", r.bits_per_weight, "seconds", r.seconds, "gb_per_s", r.gb_per_s, "peak_anon_mb",
                      r.peak_anon_mb, "quantised", r.n_quantised, "passthrough", r.n_passthrough, "cos_mean",
                      r.cos_mean, "cos_min", r.cos_min, "worst_tensor", r.worst_tensor, "reused", r.reused));
    char size[32];
    if (r.reused) {
        printf("%s is ready (%s; --force builds it again)\n", r.file, cli_bytes(r.bytes, size));
        return 0;
    }
    printf("%s\n%s, %.2f bits per weight, %.1f s (%.2f GB/s), peak memory %.0f MB\n", r.file,
           cli_bytes(r.bytes, size), r.bits_per_weight, r.seconds, r.gb_per_s, r.peak_anon_mb);
    printf("%d tensors quantised, %d kept; cosine mean %.6f, least %.6f (%s)\n", r.n_quantised,
           r.n_passthrough, r.cos_mean, r.cos_min, r.worst_tensor);
    return 0;
}
