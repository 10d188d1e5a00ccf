/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_bench.c - measurements of this machine with a model. */
#include "bench/bench.h"
#include "cli/cli.h"

#include <string.h>

static const struct {
    const char *name;
    squish_status (*run)(const bench_options *o, json_t *rows, squish_error *err);
    bool needs_model;
} benches[] = {{"load", bench_load, true},       {"decode", bench_decode, true},
               {"prefill", bench_prefill, true}, {"batch", bench_batch, true},
               {"quant", bench_quant, false},    {"limits", bench_limits_rows, false}};

static void print_rows(const json_t *rows) {
    size_t i;
    const json_t *r;
    printf("%-20s %12s %-6s %10s %10s %10s %10s %8s\n", "", "median", "", "mean", "sd", "min", "max",
           "of limit");
    json_array_foreach(rows, i, r) {
        const char *key[] = {"mean", "sd", "min", "max"};
        printf("%-20s %12.4g %-6s", json_string_value(json_object_get(r, "name")),
               json_number_value(json_object_get(r, "value")), json_string_value(json_object_get(r, "unit")));
        for (size_t k = 0; k < SQ_COUNT(key); k++)
            printf(" %10.4g", json_number_value(json_object_get(r, key[k])));
        const json_t *share = json_object_get(r, "share");
        if (share) printf(" %6.0f %%", 100 * json_number_value(share));
        printf("\n");
    }
}

/* The file or folder to measure; a checkpoint without a tier is compressed first, as everywhere. */
static int find_model(cli *c, const char *name, squish_text *path) {
    squish_error err = {0};
    squish_model *m = NULL;
    const int code = cli_open_model(c, name, false, &m);
    squish_model_close(m);
    if (code) return code;
    return squish_locate(cli_home(c), name, path, &err) == SQUISH_OK ? 0 : cli_fail(c, &err);
}

int cli_bench(cli *c) {
    char program[1024];
    squish_error err = {0};
    squish_text path = {0};
    if (c->n_args < 1 || c->n_args > 2)
        return cli_fail_text(c, 2,
                             "bench takes what to measure and maybe a model (squish bench load [MODEL])");
    size_t k = 0;
    while (k < SQ_COUNT(benches) && strcmp(benches[k].name, c->args[0]) != 0) k++;
    if (k == SQ_COUNT(benches))
        return cli_fail_text(
            c, 2, "no bench '%.40s' (there are: load, decode, prefill, batch, quant, limits)",
                             c->args[0]);
    if (c->n_args == 2 && !benches[k].needs_model)
        return cli_fail_text(c, 2, "bench %s looks at no model", benches[k].name);
    const char *model = c->n_args == 2 ? c->args[1] : cli_text(c, OPT_MODEL);
    int code = benches[k].needs_model ? find_model(c, model, &path) : 0;
    if (code) return code;
    const bench_options o = {.path = path.data,
                             .tier = cli_tier(c),
                             .tier_name = cli_text(c, OPT_TIER),
                             .runs = (int32_t)cli_int(c, OPT_BENCH_RUNS),
                             .threads = (int32_t)cli_int(c, OPT_THREADS),
                             .ctx = (int32_t)cli_int(c, OPT_BENCH_CTX),
                             .program = sq_os_exe_path(program, sizeof program) ? program : NULL,
                             .progress = cli_progress,
                             .progress_user = c};
    json_t *rows = json_array();
    squish_machine machine;
    squish_machine_get(&machine);
    if (benches[k].run(&o, rows, &err) != SQUISH_OK)
        code = cli_fail(c, &err);
    else if (cli_flag(c, OPT_JSON))
        code = cli_print_json(json_pack("{s:s, s:s, s:s, s:s, s:O}", "bench", benches[k].name, "model",
                                        path.data ? path.data : "", "cpu", machine.cpu, "isa", machine.isa,
                                        "rows", rows));
    else
        print_rows(rows);
    json_decref(rows);
    squish_text_free(&path);
    return code;
}
