/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_story.c - see cli_story.h; and squish bench wave12 and eoe, the two tables of the first report. */
#include "cli/cli_story.h"

#include <math.h>
#include <string.h>

int story_begin(story *s, cli *c, const char *name) {
    squish_error err = {0};
    *s = (story){.c = c, .name = name ? name : "squish-tiny"};
    s->o = (bench_options){.tier = cli_tier(c),
                           .tier_name = cli_text(c, OPT_TIER),
                           .runs = (int32_t)cli_int(c, OPT_BENCH_RUNS),
                           .threads = (int32_t)cli_int(c, OPT_THREADS),
                           .ctx = 4096,
                           .attention = cli_attention(c),
                           .isa = cli_text(c, OPT_ISA),
                           .program = sq_os_exe_path(s->program, sizeof s->program) ? s->program : NULL,
                           .progress = cli_progress,
                           .progress_user = c};
    s->rows = json_array();
    s->checks = json_array();
    s->facts = json_object();
    if (!s->rows || !s->checks || !s->facts) return cli_fail_text(c, 5, "out of memory for a report");
    if (squish_locate(cli_home(c), name, &s->path, &err) != SQUISH_OK) return cli_fail(c, &err);
    s->o.path = s->path.data;
    return 0;
}

void story_end(story *s) {
    json_decref(s->rows);
    json_decref(s->checks);
    json_decref(s->facts);
    squish_text_free(&s->path);
}

squish_status story_take(story *s, story_bench bench, int32_t at, int32_t then, const char *prefix,
                         squish_error *err) {
    json_t *rows = json_array(), *r;
    size_t i;
    s->o.at[0] = at;
    s->o.at[1] = then;
    s->o.n_at = (at > 0) + (then > 0);
    squish_status st =
        rows ? bench(&s->o, rows, err) : sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    json_array_foreach(rows, i, r) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, json_string_value(json_object_get(r, "name")));
        json_object_set_new(r, "name", json_string(name));
        json_array_append(s->rows, r);
    }
    json_decref(rows);
    return st;
}

void story_check(story *s, const char *name, bool ok, const char *fmt, ...) {
    char detail[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    s->failed |= !ok;
    json_array_append_new(s->checks, json_pack("{s:s, s:b, s:s}", "name", name, "ok", ok, "detail", detail));
}

void story_fact(story *s, const char *name, json_t *value) { json_object_set_new(s->facts, name, value); }

/* ---- the report ------------------------------------------------------------------------------ */

static double num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static const char *str(const json_t *o, const char *key) {
    const char *t = json_string_value(json_object_get(o, key));
    return t ? t : "";
}

static void print_beside(const json_t *beside) {
    size_t i;
    const json_t *r;
    const char *table = "";
    json_array_foreach(beside, i, r) {
        if (strcmp(table, str(r, "table")) != 0) {
            printf("%s%-40s %-26s %12s %-6s %10s %8s\n", *table ? "\n" : "", str(r, "table"), "reported",
                   "here", "", "limit", "of limit");
            table = str(r, "table");
        }
        printf("%-40s %-26s ", str(r, "name"), str(r, "seed"));
        if (json_is_number(json_object_get(r, "value")))
            printf("%12.4g %-6s", num(r, "value"), str(r, "unit"));
        else
            printf("%12s %-6s", "-", "");
        if (json_object_get(r, "limit")) printf(" %10.4g", num(r, "limit"));
        if (json_object_get(r, "share")) printf(" %6.0f %%", 100 * num(r, "share"));
        printf("%s%s\n", *str(r, "note") ? "  " : "", str(r, "note"));
    }
}

static void print_rest(const json_t *rows, const json_t *checks) {
    size_t i;
    const json_t *r;
    printf("\n%-44s %12s %-6s %10s %8s\n", "every figure", "median", "", "limit", "of limit");
    json_array_foreach(rows, i, r) {
        printf("%-44s %12.4g %-6s", str(r, "name"), num(r, "value"), str(r, "unit"));
        if (json_object_get(r, "limit")) printf(" %10.4g %6.0f %%", num(r, "limit"), 100 * num(r, "share"));
        printf("\n");
    }
    if (json_array_size(checks)) printf("\n");
    json_array_foreach(checks, i, r)
        printf("%-7s %s: %s\n", json_is_true(json_object_get(r, "ok")) ? "ok" : "FAILED", str(r, "name"),
               str(r, "detail"));
}

int story_tell(story *s, const char *what, const bench_claim *list, size_t n) {
    squish_error err = {0};
    squish_machine machine;
    const char *dir = cli_text(s->c, OPT_BENCH_REPORT);
    int code = 0;
    squish_machine_get(&machine);
    json_t *report =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:o, s:O, s:O}", "bench", what, "model", s->name,
                  "tier", s->o.tier_name, "cpu", machine.cpu, "isa", bench_isa(s->o.isa), "threads",
                  (int)(s->o.threads ? s->o.threads : machine.cores), "squish", squish_build_info(), "beside",
                  bench_beside(list, n, s->rows), "checks", s->checks, "rows", s->rows);
    if (!report) return cli_fail_text(s->c, 5, "out of memory for the report");
    json_object_update(report, s->facts);
    if (dir && bench_page_write(report, dir, &err) != SQUISH_OK) code = cli_fail(s->c, &err);
    if (dir && code == 0) cli_note(s->c, "%s/index.html", dir);
    if (code == 0 && cli_flag(s->c, OPT_JSON))
        code = cli_print_json(json_incref(report));
    else if (code == 0)
        print_beside(json_object_get(report, "beside")), print_rest(s->rows, s->checks);
    json_decref(report);
    return code ? code : s->failed;
}

/* ---- wave12 and eoe -------------------------------------------------------------------------- */

/* The tier that is asked for, built if it is not there. */
static int ready(story *s) {
    squish_text path = {0};
    const int code = cli_find_model(s->c, s->name, s->o.tier, &path);
    squish_text_free(&path);
    return code;
}

/* Reading in units, where the weights lie in a file of ours that is long enough. */
static squish_status take_gets(story *s, squish_error *err) {
    const squish_status st = story_take(s, bench_agile_gets, 0, 0, "", err);
    if (st != SQUISH_UNSUPPORTED && st != SQUISH_INVALID) return st;
    cli_note(s->c, "no rows of AgileIO: %s", err->text);
    *err = (squish_error){0};
    return SQUISH_OK;
}

int cli_bench_wave12(cli *c, const char *model) {
    story s;
    squish_error err = {0};
    int code = story_begin(&s, c, model);
    if (code == 0) code = ready(&s);
    if (code == 0) {
        s.o.attention.sparge_min = 0; /* the whole prompt */
        squish_status st = story_take(&s, bench_quant, 0, 0, "", &err);
        /* What a token takes is counted from the first point to the second. */
        if (st == SQUISH_OK) st = story_take(&s, bench_kv, 1024, 2048, "", &err);
        if (st == SQUISH_OK) st = story_take(&s, bench_kv_votes, 0, 0, "", &err);
        if (st == SQUISH_OK) st = take_gets(&s, &err);
        if (st == SQUISH_OK) st = story_take(&s, bench_attention, 2048, 0, "", &err);
        code = st == SQUISH_OK ? story_tell(&s, "wave12", bench_wave12_claims, bench_wave12_count)
                               : cli_fail(c, &err);
    }
    story_end(&s);
    return code;
}

/* --peer NAME=URL, each. */
static int ask_peers(story *s) {
    const cli_value *v = &s->c->values[OPT_PEER];
    squish_error err = {0};
    for (int i = 0; i < v->n_list; i++) {
        const char *eq = strchr(v->list[i], '=');
        char name[64];
        if (!eq || eq == v->list[i] || strncmp(eq + 1, "http", 4) != 0)
            return cli_fail_text(s->c, 2, "--peer is '%.80s', wanted NAME=http://HOST:PORT", v->list[i]);
        snprintf(name, sizeof name, "%.*s", (int)(eq - v->list[i]), v->list[i]);
        if (bench_peer(&s->o, name, eq + 1, s->rows, &err) != SQUISH_OK) return cli_fail(s->c, &err);
    }
    return 0;
}

/* What is left of the source in the tier: first tokens and weights, where there is a source. */
squish_status story_quality(story *s, squish_error *err) {
    squish_model_options o = squish_model_options_default();
    squish_fidelity_options fo = squish_fidelity_options_default();
    squish_model *source = NULL, *model = NULL;
    squish_text text = {0};
    fo.threads = s->o.threads;
    fo.progress = cli_progress;
    fo.progress_user = s->c;
    o.tier = s->o.tier;
    squish_status st = squish_model_open(&model, s->o.path, &o, err);
    o.tier = SQUISH_TIER_SOURCE;
    if (st == SQUISH_OK && squish_model_open(&source, s->o.path, &o, NULL) == SQUISH_OK)
        st = squish_fidelity(source, model, &fo, &text, err);
    if (st == SQUISH_OK && text.data) {
        json_t *all = json_loads(text.data, 0, NULL), *q = json_object_get(all, "quantised");
        story_fact(s, "quality",
                   json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "cos_mean", num(all, "cos_mean"), "cos_min",
                             num(all, "cos_min"), "max_abs", num(all, "max_abs"), "quantised", num(q, "n"),
                             "quantised_cos_min", num(q, "cos_min"), "first_token_agreement",
                             num(all, "first_token_agreement")));
        const double agree = num(all, "first_token_agreement");
        story_check(s, "first tokens of five prompts", agree == 1,
                    "%.0f %% as the source's (reported: 5 of 5)", 100 * agree);
        json_decref(all);
    }
    squish_text_free(&text);
    squish_model_close(model);
    squish_model_close(source);
    return st;
}

int cli_bench_eoe(cli *c, const char *model) {
    story s;
    squish_error err = {0};
    int code = story_begin(&s, c, model);
    if (code == 0) code = ready(&s);
    if (code == 0) {
        squish_status st = story_take(&s, bench_load, 0, 0, "", &err);
        if (st == SQUISH_OK) st = story_take(&s, bench_prefill, 128, 0, "", &err);
        if (st == SQUISH_OK) st = story_take(&s, bench_decode, 64, 0, "", &err);
        if (st == SQUISH_OK) st = story_quality(&s, &err);
        if (st != SQUISH_OK) code = cli_fail(c, &err);
    }
    if (code == 0) code = ask_peers(&s);
    if (code == 0) code = story_tell(&s, "eoe", bench_eoe_claims, bench_eoe_count);
    story_end(&s);
    return code;
}
