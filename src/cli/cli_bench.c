/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_bench.c - measurements of this machine with a model. */
#include "cli/cli_story.h"

#include <string.h>

/* Options that not every bench reads. */
enum { AT = 1, CTX = 2, ATT = 4, KVS = 8, SPEC = 16, PROSE = 32, PEERS = 64, MEM = 128 };

static const struct {
    const char *name;
    squish_status (*run)(const bench_options *o, json_t *rows, squish_error *err);
    bool needs_model, needs_weights;
    uint32_t reads;
} benches[] = {{"limits", bench_limits_rows, false, false, 0},
               {"load", bench_load, true, true, 0},
               {"decode", bench_decode, true, true, AT | CTX | ATT},
               {"prefill", bench_prefill, true, true, AT | ATT},
               {"batch", bench_batch, true, true, AT | ATT},
               {"threads", bench_threads, true, true, AT | ATT},
               {"attention", bench_attention, true, true, AT | ATT | PROSE},
               {"kv", bench_kv, true, true, AT | ATT | KVS | PROSE},
               {"kv-votes", bench_kv_votes, false, false, 0},
               {"latent", bench_latent, true, true, AT},
               {"moe", bench_moe, true, true, PROSE},
               {"tokenizer", bench_tokenizer, true, false, PROSE},
               {"grammar", bench_grammar, true, false, 0},
               {"schema", bench_schema, true, true, 0},
               {"spec", bench_spec, true, true, AT | SPEC | PROSE},
               {"quant", bench_quant, false, false, 0},
               {"needle", bench_needle, true, true, AT | ATT | KVS | PROSE},
               {"kv-memory", bench_kv_memory, true, true, AT | ATT | KVS | PROSE},
               {"agile", bench_agile, true, true, MEM}};

/* The last ones need a text, or a model that is larger than some memory: they are asked for by name. */
enum { ALL = (1u << (SQ_COUNT(benches) - 3)) - 1 };

static void print_rows(const json_t *rows) {
    static const char *const key[] = {"noise", "min", "max", "limit"};
    static const char *const more[] = {"speedup", "density",   "worst",           "same_token", "cost",
                                       "tok_s",   "tok_s_off", "tokens_per_step", "differ",     "smaller",
                                       "covered", "io_ms", "stall_ms"};
    size_t i;
    const json_t *r;
    printf("%-24s %12s %-6s %10s %10s %10s %10s %8s\n", "", "median", "", "noise", "min", "max", "limit",
           "of limit");
    json_array_foreach(rows, i, r) {
        printf("%-24s %12.4g %-6s", json_string_value(json_object_get(r, "name")),
               json_number_value(json_object_get(r, "value")), json_string_value(json_object_get(r, "unit")));
        for (size_t k = 0; k < SQ_COUNT(key) && json_object_get(r, key[k]); k++)
            printf(" %10.4g", json_number_value(json_object_get(r, key[k])));
        const json_t *share = json_object_get(r, "share");
        if (share) printf(" %6.0f %%", 100 * json_number_value(share));
        for (size_t k = 0; k < SQ_COUNT(more); k++)
            if (json_object_get(r, more[k]))
                printf("  %s %.3g", more[k], json_number_value(json_object_get(r, more[k])));
        printf("\n");
    }
}

/* The file or folder to measure; a checkpoint without a tier is compressed first, as everywhere. */
static int find_model(cli *c, const char *name, bool text_only, squish_text *path) {
    squish_error err = {0};
    squish_model *m = NULL;
    const int code = cli_open_model(c, name, text_only, &m);
    squish_model_close(m);
    if (code) return code;
    return squish_locate(cli_home(c), name, path, &err) == SQUISH_OK ? 0 : cli_fail(c, &err);
}

/* "decode,batch" or "all" to a bit per bench; 0 after saying what there is. */
static uint32_t wanted(const cli *c, const char *list) {
    if (strcmp(list, "all") == 0) return ALL;
    uint32_t set = 0;
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const size_t n = strcspn(p, ",");
        size_t k = 0;
        while (k < SQ_COUNT(benches) && (strlen(benches[k].name) != n || strncmp(benches[k].name, p, n))) k++;
        if (k == SQ_COUNT(benches)) {
            char names[200] = "all";
            for (size_t i = 0; i < SQ_COUNT(benches); i++) {
                const size_t at = strlen(names);
                snprintf(names + at, sizeof names - at, ", %s", benches[i].name);
            }
            const size_t at = strlen(names);
            snprintf(names + at, sizeof names - at, ", wave12, eoe");
            cli_fail_text(c, 2, "no bench '%.*s' (there are: %s)", n < 40 ? (int)n : 40, p, names);
            return 0;
        }
        set |= 1u << k;
    }
    return set;
}

/* An option that none of the set reads is refused, with those that do. set 0: wave12 and eoe (reads PEERS).
 */
static bool options_are_read(cli *c, const char *what, uint32_t set, uint32_t reads) {
    static const struct {
        cli_option_id id;
        uint32_t by;
    } some[] = {{OPT_BENCH_AT, AT},   {OPT_BENCH_CTX, CTX},     {OPT_SAGE, ATT},        {OPT_SPARGE, ATT},
                {OPT_SAGE_BITS, ATT}, {OPT_SPARGE_MIN, ATT},    {OPT_SPARGE_MASS, ATT}, {OPT_KV, KVS},
                {OPT_SPEC, SPEC},     {OPT_SPEC_GUESSES, SPEC}, {OPT_DRAFT, SPEC},
                {OPT_TEXT, PROSE},    {OPT_DRAFT_TIER, SPEC},   {OPT_PEER, PEERS},
                {OPT_MEMORY_LIMIT, MEM}, {OPT_SPEC_BRANCHES, SPEC}, {OPT_SPEC_ACCEPT, SPEC}};
    for (size_t k = 0; k < SQ_COUNT(benches); k++)
        if (set & (1u << k)) reads |= benches[k].reads;
    for (size_t i = 0; i < SQ_COUNT(some); i++) {
        if (c->values[some[i].id].origin != CLI_FROM_FLAG || (reads & some[i].by)) continue;
        char names[160] = "";
        for (size_t k = 0; k <= SQ_COUNT(benches); k++) {
            const char *name = k < SQ_COUNT(benches) ? benches[k].name : "eoe";
            const size_t at = strlen(names);
            if ((k < SQ_COUNT(benches) ? benches[k].reads : PEERS) & some[i].by)
                snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", name);
        }
        cli_fail_text(c, 2, "bench %s does not read --%s (these do: %s)", what, cli_options[some[i].id].name,
                      names);
        return false;
    }
    return true;
}

static bool reads_spec(uint32_t set) {
    for (size_t k = 0; k < SQ_COUNT(benches); k++)
        if ((set & (1u << k)) && (benches[k].reads & SPEC)) return true;
    return false;
}

static bool points(cli *c, bench_options *o) {
    int32_t *at = NULL;
    size_t n = 0;
    if (!cli_has(c, OPT_BENCH_AT)) return true;
    if (!cli_parse_ids(c, "--at", cli_text(c, OPT_BENCH_AT), &at, &n)) return false;
    if (n < 1 || n > BENCH_POINTS_MAX) {
        cli_fail_text(c, 2, "--at has %zu points, wanted 1 to %d", n, BENCH_POINTS_MAX);
        return false;
    }
    for (size_t i = 0; i < n; i++) o->at[i] = at[i];
    o->n_at = (int32_t)n;
    return true;
}

/* Every bench of the set into rows. With a choice of benches, --at means each of them. */
static int run(const cli *c, uint32_t set, const bench_options *o, json_t *rows) {
    squish_error err = {0};
    for (size_t k = 0; k < SQ_COUNT(benches); k++) {
        if (!(set & (1u << k))) continue;
        if (set & (set - 1)) cli_note(c, "%s ...", benches[k].name);
        const squish_status st = benches[k].run(o, rows, &err);
        if (st == SQUISH_UNSUPPORTED && set == ALL) { /* not of this model */
            cli_note(c, "%s", err.text);
            err = (squish_error){0};
        } else if (st != SQUISH_OK) {
            return cli_fail(c, &err);
        }
    }
    return 0;
}

static int hand_out(const cli *c, const char *what, const char *model, const bench_options *o,
                    const json_t *rows) {
    squish_error err = {0};
    squish_machine machine;
    int code = 0;
    squish_machine_get(&machine);
    json_t *report = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:O}", "bench", what, "model", model,
                               "tier", o->tier_name, "cpu", machine.cpu, "isa", bench_isa(o->isa), "threads",
                               (int)(o->threads ? o->threads : sq_os_cores()), "squish", squish_build_info(),
                               "rows", rows);
    const char *dir = cli_text(c, OPT_BENCH_REPORT);
    if (!report) return cli_fail_text(c, 5, "out of memory for the report");
    if (dir && bench_page_write(report, dir, &err) != SQUISH_OK) code = cli_fail(c, &err);
    if (dir && code == 0) cli_note(c, "%s/index.html", dir);
    if (code == 0 && cli_flag(c, OPT_JSON))
        code = cli_print_json(json_incref(report));
    else if (code == 0)
        print_rows(rows);
    json_decref(report);
    return code;
}

int cli_bench(cli *c) {
    char program[1024];
    squish_text path = {0}, text = {0};
    squish_model *draft = NULL;
    if (c->n_args > 2)
        return cli_fail_text(c, 2,
                             "bench takes what to measure and maybe a model (squish bench load [MODEL])");
    const char *what = c->n_args > 0 ? c->args[0] : "all";
    const char *model = c->n_args == 2 ? c->args[1] : cli_text(c, OPT_MODEL);
    if (strcmp(what, "wave12") == 0) return options_are_read(c, what, 0, 0) ? cli_bench_wave12(c, model) : 2;
    if (strcmp(what, "eoe") == 0) return options_are_read(c, what, 0, PEERS) ? cli_bench_eoe(c, model) : 2;
    const uint32_t set = wanted(c, what);
    bool needs_model = false, needs_weights = false;
    if (!set || !options_are_read(c, what, set, 0)) return 2;
    for (size_t k = 0; k < SQ_COUNT(benches); k++) {
        needs_model |= (set & (1u << k)) && benches[k].needs_model;
        needs_weights |= (set & (1u << k)) && benches[k].needs_weights;
    }
    if (c->n_args == 2 && !needs_model) return cli_fail_text(c, 2, "bench %s looks at no model", what);
    bench_options o = {.tier = cli_tier(c),
                       .tier_name = cli_text(c, OPT_TIER),
                       .runs = (int32_t)cli_int(c, OPT_BENCH_RUNS),
                       .threads = (int32_t)cli_int(c, OPT_THREADS),
                       .ctx = (int32_t)cli_int(c, OPT_BENCH_CTX),
                       .attention = cli_attention(c),
                       .spec = cli_spec(c),
                       .heads = cli_heads(c),
                       .isa = cli_text(c, OPT_ISA),
                       .program = sq_os_exe_path(program, sizeof program) ? program : NULL,
                       .progress = cli_progress,
                       .progress_user = c};
    squish_engine_options memory;
    if (cli_memory(c, &memory)) return 2;
    o.memory_limit = memory.memory_limit;
    squish_kv_from_name(cli_text(c, OPT_KV), &o.kv);
    o.one_kv = c->values[OPT_KV].origin == CLI_FROM_FLAG;
    if (o.one_kv && o.kv == SQUISH_KV_F32)
        return cli_fail_text(c, 2, "bench %s does not measure --kv f32, which is there to verify", what);
    if (!points(c, &o)) return 2;
    int code = needs_model ? find_model(c, c->n_args == 2 ? c->args[1] : cli_text(c, OPT_MODEL),
                                        !needs_weights, &path)
                           : 0;
    if (code == 0 && reads_spec(set)) code = cli_open_draft(c, &draft);
    o.draft = draft;
    if (code == 0 && cli_has(c, OPT_TEXT)) code = cli_read(c, cli_text(c, OPT_TEXT), true, &text);
    o.path = path.data;
    o.text = text.data;
    o.text_bytes = text.bytes;
    json_t *rows = json_array();
    if (code == 0) code = run(c, set, &o, rows);
    if (code == 0) code = hand_out(c, what, path.data ? path.data : "", &o, rows);
    json_decref(rows);
    squish_model_close(draft);
    squish_text_free(&text);
    squish_text_free(&path);
    return code;
}
