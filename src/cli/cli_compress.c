/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_compress.c - build tiers and say what came out: a few lines, or one JSON object a line, for each. */
#include "cli/cli.h"

#include <string.h>

enum { TIERS_MAX = 5 };

static const struct {
    const char *name;
    squish_tier tier;
} tiers[TIERS_MAX] = {{"0", SQUISH_TIER_0},
                      {"q8", SQUISH_TIER_Q8},
                      {"1", SQUISH_TIER_1},
                      {"2", SQUISH_TIER_2},
                      {"3", SQUISH_TIER_3}};

/* "0,q8,1" to indexes into the table, each once. "auto" is what --bits says. Returns how many, 0 after saying
 * why. */
static int parse_tiers(const cli *c, int out[TIERS_MAX]) {
    const char *text = cli_text(c, OPT_TIER), *bits = cli_text(c, OPT_BITS);
    int n = 0;
    if (strcmp(text, "auto") == 0) text = bits && strcmp(bits, "8") == 0 ? "q8" : "0";
    for (const char *p = text; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const int len = (int)strcspn(p, ",");
        int found = -1;
        for (int i = 0; i < TIERS_MAX; i++)
            if ((int)strlen(tiers[i].name) == len && strncmp(tiers[i].name, p, (size_t)len) == 0) found = i;
        for (int i = 0; i < n; i++)
            if (out[i] == found) found = -1;
        if (found < 0) {
            if (strncmp(p, "source", 6) == 0 && len == 6)
                cli_fail_text(c, 2, "--tier source is what is there already; build 0, q8, 1, 2 or 3");
            else
                cli_fail_text(c, 2, "--tier: '%.60s' is not a list of 0, q8, 1, 2 and 3, each once", text);
            return 0;
        }
        out[n++] = found;
    }
    return n;
}

static json_t *quality_json(const squish_compress_result *r) {
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f}", "quality", squish_quality_name(r->quality), "verdict",
                     r->verdict, "ppl_ratio", r->ppl_ratio, "agreement", r->agreement, "kl", r->kl,
                     "check_seconds", r->check_seconds);
}

static int print_json(const char *tier, const squish_compress_result *r, int32_t refining) {
    if (r->skipped[0])
        return cli_print_json(
            json_pack("{s:s, s:s, s:s}", "tier", tier, "file", r->file, "skipped", r->skipped));
    json_t *o = json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:i, s:i, s:b, s:I, s:i}", "tier", tier,
                          "file",
                          r->file, "bytes", (json_int_t)r->bytes, "bpw", r->bits_per_weight, "seconds",
                          r->seconds, "gb_per_s", r->gb_per_s, "peak_anon_mb", r->peak_anon_mb, "quantised",
                          r->n_quantised, "passthrough", r->n_passthrough, "reused", r->reused,
                          "resumed_bytes", (json_int_t)r->resumed_bytes, "fallback", r->n_fallback);
    /* Copies are not measured: there is nothing to lose. */
    if (r->worst_tensor[0])
        json_object_update_new(o, json_pack("{s:f, s:f, s:s}", "cos_mean", r->cos_mean, "cos_min", r->cos_min,
                                            "worst_tensor", r->worst_tensor));
    json_object_update_new(o, quality_json(r));
    if (refining) json_object_set_new(o, "refining", json_integer(refining));
    return cli_print_json(o);
}

static void print_quality(const squish_compress_result *r) {
    if (!r->verdict[0]) return;
    printf("quality: %s (%s; measured in %.1f s)\n", squish_quality_name(r->quality), r->verdict,
           r->check_seconds);
}

static void print_lines(const squish_compress_result *r, bool takes_few_bits) {
    char size[32];
    if (r->skipped[0]) {
        printf("%s\n", r->skipped);
        return;
    }
    if (r->reused) {
        printf("%s is ready (%s; --force builds it again)\n", r->file, cli_bytes(r->bytes, size));
        return;
    }
    printf("%s\n%s, %.2f bits per weight, %.1f s (%.2f GB/s), peak memory %.0f MB\n", r->file,
           cli_bytes(r->bytes, size), r->bits_per_weight, r->seconds, r->gb_per_s, r->peak_anon_mb);
    if (r->resumed_bytes) printf("%s were there from an earlier run\n", cli_bytes(r->resumed_bytes, size));
    if (r->worst_tensor[0])
        printf("%d tensors quantised, %d kept; cosine mean %.6f, least %.6f (%s)\n", r->n_quantised,
               r->n_passthrough, r->cos_mean, r->cos_min, r->worst_tensor);
    else
        printf("%d tensors quantised, %d kept\n", r->n_quantised, r->n_passthrough);
    if (r->n_quantised == 0 && takes_few_bits)
        puts("its weights come quantised and keep their codes; --requantise makes new ones");
    if (r->n_fallback) printf("%d tensors took least squares instead (see squish fidelity)\n", r->n_fallback);
    print_quality(r);
}

/* The words of --method in the order of squish_method. */
static squish_method method_of(const cli *c) {
    static const char *const names[] = {"rtn", "lsq", "awq", "gptq", "milo"};
    for (size_t i = 0; i < SQ_COUNT(names); i++)
        if (strcmp(cli_text(c, OPT_METHOD), names[i]) == 0) return (squish_method)i;
    return SQUISH_METHOD_LSQ;
}

static squish_compress_options options(cli *c) {
    squish_compress_options o = squish_compress_options_default();
    const char *bits = cli_text(c, OPT_BITS);
    o.method = method_of(c);
    o.calibration = cli_text(c, OPT_CALIB);
    if (cli_has(c, OPT_RANK)) o.rank = (int32_t)cli_int(c, OPT_RANK);
    if (cli_has(c, OPT_RANK_BPW)) o.rank_bpw = cli_num(c, OPT_RANK_BPW);
    o.unchecked = cli_flag(c, OPT_UNCHECKED);
    o.allow_collapsed = cli_flag(c, OPT_ALLOW_COLLAPSED);
    o.group = (int32_t)cli_int(c, OPT_GROUP);
    o.bits = bits && *bits ? bits[0] - '0' : 0; /* "1.58" is 1 */
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    o.force = cli_flag(c, OPT_FORCE);
    o.resume = cli_flag(c, OPT_RESUME);
    o.requantise = cli_flag(c, OPT_REQUANTISE);
    o.out_dir = cli_text(c, OPT_OUT);
    o.home = cli_home(c);
    o.progress = cli_progress;
    o.progress_user = c;
    return o;
}

/* --drop-source: the checkpoint goes, if a tier that was built reads back whole. */
static squish_status drop_source(const cli *c, const char *src, squish_error *err) {
    const squish_gc_options o = {.keep = SQUISH_TIER_AUTO, .drop_source = true};
    uint64_t freed = 0;
    char size[32];
    if (!cli_flag(c, OPT_DROP_SOURCE)) return SQUISH_OK;
    SQ_TRY(squish_gc(src, cli_home(c), &o, &freed, err));
    cli_note(c, "the checkpoint's weights were removed (%s)", cli_bytes(freed, size));
    return SQUISH_OK;
}

int cli_compress(cli *c) {
    if (cli_flag(c, OPT_DROP_SOURCE) && cli_has(c, OPT_OUT))
        return cli_fail_text(c, 2, "--drop-source looks for tiers beside the source; leave -o out");
    if (c->n_args != 1) return cli_fail_text(c, 2, "compress takes one model (squish compress SRC)");
    int list[TIERS_MAX];
    const int n = parse_tiers(c, list);
    if (n == 0) return 2;
    squish_error err = {0};
    squish_text src = {0};
    const squish_compress_options wish = options(c);
    squish_status st = cli_locate(c, c->args[0], &src, &err);
    cli_progress_part(c, NULL, 0, 0);
    int code = 0;
    for (int i = 0; st == SQUISH_OK && code == 0 && i < n; i++) {
        squish_compress_options o = wish;
        squish_compress_result r;
        o.tier = tiers[list[i]].tier;
        /* Of several tiers each has the bits it is known for, where --bits is for another. */
        if (n > 1 && o.tier == SQUISH_TIER_Q8) o.bits = 0;
        if (n > 1 && o.tier == SQUISH_TIER_0 && o.bits == 8) o.bits = 0;
        int32_t refining = 0;
        st = cli_build(c, src.data, &o, &r, &refining, &err);
        if (st != SQUISH_OK) break;
        if (cli_flag(c, OPT_JSON))
            code = print_json(tiers[list[i]].name, &r, refining);
        else
            print_lines(&r, o.tier == SQUISH_TIER_0 || o.tier == SQUISH_TIER_Q8);
    }
    if (st == SQUISH_OK && code == 0) st = drop_source(c, src.data, &err);
    squish_text_free(&src);
    return st != SQUISH_OK ? cli_fail(c, &err) : code;
}
