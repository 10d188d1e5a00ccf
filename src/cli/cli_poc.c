/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_poc.c - squish poc: the whole story of one model in one run.
 *
 *   machine -> checkpoint -> answers from the source -> compress -> load cold and warm, answers from the tier
 *           -> the tier alone in an empty folder -> weights and first tokens against the source -> report
 *
 * Every step is a check with a line of its own; a failed one makes the exit status 1. */
#include "cli/cli_story.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 20 };
static const char prompt[] = "The capital of France is";

/* ---- steps ----------------------------------------------------------------------------------- */

static void environment(story *s) {
    squish_machine m;
    squish_machine_get(&m);
    story_check(s, "machine", true, "%s, %d cores, %.1f of %.1f GB free, %s", m.cpu, m.cores,
                (double)m.memory_available / 1e9, (double)m.memory_total / 1e9, m.isa);
}

/* Nothing is downloaded here: --skip-download only says so, and a model that is not there is named. */
static void obtained(story *s) {
    story_check(s, "checkpoint", true, "%s (%s)", s->path.data,
                cli_flag(s->c, OPT_SKIP_DOWNLOAD) ? "--skip-download" : "it is here");
}

static squish_status speeds(story *s, squish_tier tier, const char *tier_name, const char *prefix,
                            squish_error *err) {
    s->o.tier = tier;
    s->o.tier_name = tier_name;
    SQ_TRY(story_take(s, bench_load, 0, 0, prefix, err));
    SQ_TRY(story_take(s, bench_prefill, 128, 0, prefix, err));
    return story_take(s, bench_decode, 64, 0, prefix, err);
}

static squish_status convert(story *s, squish_error *err) {
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    o.home = cli_home(s->c);
    o.tier = SQUISH_TIER_0;
    o.threads = s->o.threads;
    o.resume = true;
    o.progress = cli_progress;
    o.progress_user = s->c;
    if (cli_flag(s->c, OPT_SKIP_CONVERT)) {
        squish_text file = {0};
        bool is_ready = false;
        SQ_TRY(squish_tier_path(s->path.data, &o, &file, &is_ready, err));
        story_check(s, "compress", is_ready, "%s (--skip-convert)", file.data);
        squish_text_free(&file);
        return is_ready
                   ? SQUISH_OK
                   : sq_fail(err, SQUISH_NOT_FOUND, "%s has no tier yet (leave --skip-convert out)", s->name);
    }
    SQ_TRY(squish_compress(s->path.data, &o, &r, err));
    story_fact(s, "compressed",
               json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:i, s:i, s:b, s:s}", "file", r.file, "bytes",
                         (json_int_t)r.bytes, "bpw", r.bits_per_weight, "seconds", r.seconds, "gb_per_s",
                         r.gb_per_s, "peak_anon_mb", r.peak_anon_mb, "quantised", r.n_quantised,
                         "passthrough", r.n_passthrough, "reused", r.reused, "quality",
                         squish_quality_name(r.quality)));
    story_check(s, "compress", r.quality != SQUISH_QUALITY_COLLAPSED, "%.1f MB, %.2f bits per weight, %s",
                (double)r.bytes / 1e6, r.bits_per_weight, r.reused ? "there already" : r.verdict);
    return SQUISH_OK;
}

/* ---- the tier alone -------------------------------------------------------------------------- */

/* A greedy answer of a model file: its ids. */
static squish_status answer_of(const story *s, const char *path, squish_tier tier, int32_t out[TOKENS],
                               int32_t *n, squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_gen_options go = squish_gen_options_default();
    squish_model *m = NULL;
    squish_engine *e = NULL;
    squish_seq *q = NULL;
    squish_gen *g = NULL;
    squish_tokens t = {0};
    squish_gen_event ev = {0};
    mo.tier = tier;
    eo.threads = s->o.threads;
    eo.ctx_tokens = 128;
    eo.isa_max = s->o.isa;
    go.max_tokens = TOKENS;
    go.ignore_eos = true;
    go.sampling.temperature = 0;
    *n = 0;
    squish_status st = squish_model_open(&m, path, &mo, err);
    if (st == SQUISH_OK) st = squish_engine_new(&e, m, &eo, err);
    if (st == SQUISH_OK) st = squish_seq_new(&q, e, err);
    if (st == SQUISH_OK) st = squish_tokenize(m, prompt, strlen(prompt), 0, &t, err);
    if (st == SQUISH_OK) st = squish_gen_new(&g, q, t.ids, t.count, &go, err);
    while (st == SQUISH_OK && *n < TOKENS && ev.finish == SQUISH_FINISH_NONE) {
        st = squish_gen_next(g, &ev, err);
        if (st == SQUISH_OK && ev.id >= 0) out[(*n)++] = ev.id;
    }
    squish_gen_free(g);
    squish_tokens_free(&t);
    squish_seq_free(q);
    squish_engine_free(e);
    squish_model_close(m);
    return st;
}

/* The tier's file under a name of its own in an empty folder: no source, no tokenizer, nothing beside it. */
static squish_status alone(story *s, squish_error *err) {
    squish_compress_options o = squish_compress_options_default();
    squish_text file = {0};
    char folder[1200], link_path[1300];
    int32_t beside[TOKENS], by_itself[TOKENS], n[2];
    o.home = cli_home(s->c);
    o.tier = SQUISH_TIER_0;
    SQ_TRY(squish_tier_path(s->path.data, &o, &file, NULL, err));
    const char *slash = strrchr(file.data, '/');
    snprintf(folder, sizeof folder, "%.*s/../.poc-XXXXXX", (int)(slash ? slash - file.data : 0), file.data);
    if (!mkdtemp(folder)) {
        squish_text_free(&file);
        return sq_fail_errno(err, errno, "%s", folder);
    }
    snprintf(link_path, sizeof link_path, "%s/model.sqw", folder);
    squish_status st =
        link(file.data, link_path) == 0 ? SQUISH_OK : sq_fail_errno(err, errno, "%s", link_path);
    if (st == SQUISH_OK) st = answer_of(s, file.data, SQUISH_TIER_AUTO, beside, &n[0], err);
    if (st == SQUISH_OK) st = answer_of(s, link_path, SQUISH_TIER_AUTO, by_itself, &n[1], err);
    unlink(link_path);
    rmdir(folder);
    if (st == SQUISH_OK)
        story_check(s, "the tier alone",
                    n[0] == n[1] && memcmp(beside, by_itself, (size_t)n[0] * sizeof *beside) == 0,
                    "%d tokens from the file in an empty folder, compared with those from its place", n[1]);
    squish_text_free(&file);
    return st;
}

/* ---- against the source ---------------------------------------------------------------------- */

static double figure(const story *s, const char *name) {
    size_t i;
    const json_t *r;
    json_array_foreach(s->rows, i, r) if (strcmp(json_string_value(json_object_get(r, "name")), name) ==
                                          0) return json_number_value(json_object_get(r, "value"));
    return 0;
}

static squish_status verify(story *s, squish_error *err) {
    SQ_TRY(story_quality(s, err));
    const json_t *q = json_object_get(s->facts, "quality");
    if (!q) return SQUISH_OK;
    const double least = json_number_value(json_object_get(q, "cos_min"));
    story_check(s, "weights", least >= 0.985,
                "cosine %.6f mean, %.6f least (wanted 0.985; reported, in 8 bits: 0.99995)",
                json_number_value(json_object_get(q, "cos_mean")), least);
    if (cli_flag(s->c, OPT_SKIP_REFERENCE)) return SQUISH_OK;
    const double before = figure(s, "source: decode at 64"), after = figure(s, "decode at 64");
    story_check(s, "speed", after > 0, "%.1f tokens a second from the tier, %.1f from the source", after,
                before);
    return SQUISH_OK;
}

int cli_poc(cli *c) {
    story s;
    squish_error err = {0};
    const char *name = cli_take_model(c, false);
    if (c->n_args)
        return cli_fail_text(c, 3, "no model '%.60s' here, and poc downloads none (see: squish list)",
                             c->args[0]);
    int code = story_begin(&s, c, name);
    if (code == 0 && !sq_os_is_dir(s.path.data))
        code = cli_fail_text(c, 2, "poc takes a checkpoint folder, and %s is a file", s.path.data);
    if (code == 0) {
        squish_status st = SQUISH_OK;
        environment(&s);
        obtained(&s);
        if (!cli_flag(c, OPT_SKIP_REFERENCE)) st = speeds(&s, SQUISH_TIER_SOURCE, "source", "source: ", &err);
        if (st == SQUISH_OK) st = convert(&s, &err);
        if (st == SQUISH_OK) st = speeds(&s, SQUISH_TIER_0, "0", "", &err);
        if (st == SQUISH_OK) st = alone(&s, &err);
        if (st == SQUISH_OK) st = verify(&s, &err);
        code = st == SQUISH_OK ? story_tell(&s, "poc", bench_eoe_claims, bench_eoe_count) : cli_fail(c, &err);
    }
    story_end(&s);
    return code;
}
