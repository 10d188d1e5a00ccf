/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_evaluate.c - squish eval: the benchmark tasks, their table, and the comparison with a reference.
 *
 * A run is one model over all tasks; the reference is a second run (of another model, or of another tier of
 * the same one), or what a first one wrote with --items. */
#include "cli/cli.h"
#include "eval/eval.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    eval_set set;
    eval_result *ours, *theirs; /* [set.n] */
    double seconds, sealed;     /* of our run; share of the attended tokens that were read in fewer bits */
} one_task;

typedef struct {
    cli *c;
    const char *name; /* of the model, as typed */
    one_task tasks[EVAL_TASKS];
    size_t n, total, done;  /* tasks; items of all, items that are there */
    squish_model_info info; /* of our run */
    char model[256], weights[160], tier[16];
    squish_kv kv;
    int32_t threads;
    bool has_reference;
    FILE *items;
    one_task *current;
} evaluation;

/* ---- what to run ----------------------------------------------------------------------------- */

/* Fetch what t needs and dir lacks. */
static int fetch_task(cli *c, const eval_task *t, const char *dir) {
    squish_error err = {0};
    const eval_source *s;
    const size_t n = eval_task_is_there(t, dir) ? 0 : eval_sources(&s);
    for (size_t i = 0; i < n; i++) {
        if (!eval_source_has(&s[i], t)) continue;
        char size[32];
        cli_note(c, "fetching %s (%s) for %s", s[i].url, cli_bytes(s[i].bytes, size), t->name);
        if (eval_fetch(&s[i], dir, cli_progress, c, &err) != SQUISH_OK) return cli_fail(c, &err);
    }
    return 0;
}

/* --data, or the store's own folder; a code where that is not there and nothing is to be fetched. */
static int find_data(cli *c, char *dir, size_t n) {
    if (cli_text(c, OPT_DATA)) {
        snprintf(dir, n, "%s", cli_text(c, OPT_DATA));
        return 0;
    }
    if (!cli_home_path(c, "eval", dir, n))
        return cli_fail_text(c, 2, "eval needs --data DIR: neither SQUISH_HOME nor HOME is set");
    if (cli_flag(c, OPT_FETCH) || sq_os_is_dir(dir)) return 0;
    return cli_fail_text(c, 2,
                         "eval needs --data DIR, a folder of task files (see docs/eval.md), or --fetch");
}

static int wanted_tasks(evaluation *e, const char *dir) {
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    const double limit = cli_flag(e->c, OPT_NO_LIMIT) ? 0 : cli_num(e->c, OPT_LIMIT);
    for (const char *p = cli_text(e->c, OPT_TASKS); p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const size_t n = strcspn(p, ",");
        const eval_task *t = eval_task_find(p, n);
        if (!t)
            return cli_fail_text(
                e->c, 2, "no task '%.*s' (there are: arc_easy, arc_challenge, hellaswag, piqa, winogrande)",
                n < 40 ? (int)n : 40, p);
        if (e->n == EVAL_TASKS) return cli_fail_text(e->c, 2, "--tasks names more than %d tasks", EVAL_TASKS);
        const int code = cli_flag(e->c, OPT_FETCH) ? fetch_task(e->c, t, dir) : 0;
        if (code) return code;
        one_task *k = &e->tasks[e->n];
        if (eval_set_load(&k->set, t, dir, limit, &a, &err) != SQUISH_OK) return cli_fail(e->c, &err);
        e->n++;
        e->total += k->set.n;
        k->ours = SQ_ARENA_ARRAY(&k->set.arena, eval_result, k->set.n);
        k->theirs = SQ_ARENA_ARRAY(&k->set.arena, eval_result, k->set.n);
        if (!k->ours || !k->theirs) return cli_fail_text(e->c, 5, "out of memory for %zu results", k->set.n);
    }
    return 0;
}

/* Put the text of --fewshot-file in front of every context, with one empty line between. */
static int put_in_front(evaluation *e) {
    squish_text text = {0};
    const char *file = cli_text(e->c, OPT_FEWSHOT);
    if (!file) return 0;
    const int code = cli_read(e->c, file, true, &text);
    for (size_t k = 0; code == 0 && k < e->n; k++)
        if (!eval_set_put_in_front(&e->tasks[k].set, text.data, text.bytes)) {
            squish_text_free(&text);
            return cli_fail_text(e->c, 5, "out of memory for %s before every context", file);
        }
    squish_text_free(&text);
    return code;
}

/* ---- one run --------------------------------------------------------------------------------- */

typedef struct {
    squish_model *model;
    squish_engine *engine;
    squish_batch *batch;
} machine;

static void close_machine(machine *m) {
    squish_batch_free(m->batch);
    squish_engine_free(m->engine);
    squish_model_close(m->model);
    *m = (machine){0};
}

enum { CTX_USUAL = 4096, JOBS = 16, TIMELINES = 6 };

static squish_status open_engine(cli *c, machine *m, squish_kv kv, squish_error *err) {
    squish_engine_options o = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    squish_model_info info;
    squish_mem_estimate need;
    squish_model_get_info(m->model, &info);
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    o.ctx_tokens = (int32_t)cli_int(c, OPT_CTX);
    if (o.ctx_tokens == 0) o.ctx_tokens = info.ctx_train < CTX_USUAL ? info.ctx_train : CTX_USUAL;
    o.chunk_tokens = (int32_t)cli_int(c, OPT_CHUNK);
    o.kv = kv;
    o.attention = cli_attention(c);
    o.isa_max = cli_text(c, OPT_ISA);
    cli_memory(c, &o); /* checked when the command began */
    SQ_TRY(squish_engine_estimate(m->model, &o, &need, err));
    /* Items are short: room for some whole timelines keeps what they begin with. */
    uint64_t most = need.available_bytes / 2;
    const uint64_t fixed = need.weight_bytes + need.scratch_bytes;
    if (o.memory_limit && o.memory_limit - fixed < most) most = o.memory_limit - fixed;
    o.kv_bytes_max = need.kv_bytes * TIMELINES <= most ? need.kv_bytes * TIMELINES : need.kv_bytes;
    bo.jobs_max = JOBS;
    SQ_TRY(squish_engine_new(&m->engine, m->model, &o, err));
    cli_say_memory(c, m->engine, m->model);
    return squish_batch_new(&m->batch, m->engine, &bo, err);
}

static bool item_done(void *user, size_t i, const eval_result *r) {
    evaluation *e = user;
    const eval_set *s = &e->current->set;
    if (e->items && !eval_items_put(e->items, s->task->name, i, &s->items[i], r)) return false;
    return cli_progress(e->c, s->task->name, ++e->done, e->total);
}

/* Share of what scored positions attend to that lies sealed: docs/kv.md, "what is read sealed". */
static double sealed_share(const eval_set *s, const squish_model *m, bool bos) {
    double sealed = 0, seen = 0;
    for (size_t i = 0; i < s->n; i++) {
        squish_tokens t;
        size_t n_context;
        if (eval_encode(m, &s->items[i].choices[0], bos, &t, &n_context, NULL) != SQUISH_OK) continue;
        for (size_t p = n_context - 1; p + 1 < t.count; p++) {
            const double far = 128.0 * ((double)(p / 128) - 1) - 32;
            sealed += far > 0 ? far : 0;
            seen += (double)p + 1;
        }
        squish_tokens_free(&t);
    }
    return seen > 0 ? sealed / seen : 0;
}

static int run_tasks(evaluation *e, machine *m, bool reference) {
    squish_engine_info info;
    squish_engine_get_info(m->engine, &info);
    const bool bos = cli_flag(e->c, OPT_BOS);
    const eval_run_options o = {m->model, m->batch, info.ctx_tokens, bos, item_done, e};
    e->threads = info.threads;
    for (size_t k = 0; k < e->n; k++) {
        squish_error err = {0};
        one_task *t = e->current = &e->tasks[k];
        const uint64_t begin = sq_os_now_ns();
        const squish_status st = eval_run(&o, &t->set, reference ? t->theirs : t->ours, &err);
        if (st == SQUISH_CANCELLED && e->items && !cli_signal_seen())
            return cli_fail_text(e->c, 1, "cannot write %s: %s", cli_text(e->c, OPT_ITEMS), strerror(errno));
        if (st != SQUISH_OK) return cli_fail(e->c, &err);
        if (reference) continue;
        t->seconds = (double)(sq_os_now_ns() - begin) / 1e9;
        if (e->kv != SQUISH_KV_F16 && e->kv != SQUISH_KV_F32)
            t->sealed = sealed_share(&t->set, m->model, bos);
    }
    return 0;
}

/* ---- items on disk --------------------------------------------------------------------------- */

static int read_items(evaluation *e, const char *file, const eval_header *whose, bool reference,
                      squish_text *text) {
    squish_error err = {0};
    int code = cli_read(e->c, file, true, text);
    for (size_t k = 0; code == 0 && k < e->n; k++) {
        one_task *t = &e->tasks[k];
        size_t found;
        const sq_span bytes = {(const uint8_t *)text->data, text->bytes};
        if (eval_items_read(bytes, file, whose, &t->set, reference ? t->theirs : t->ours, &found, &err) !=
            SQUISH_OK)
            code = cli_fail(e->c, &err);
        else if (reference && found < t->set.n)
            code = cli_fail_text(e->c, 1, "%s has %zu of the %zu items of %s", file, found, t->set.n,
                                 t->set.task->name);
        else if (!reference)
            e->done += found;
    }
    return code;
}

/* Open --items for more lines: a new file, or with --resume what a stopped run left, without its cut end. */
static int open_items(evaluation *e) {
    const char *file = cli_text(e->c, OPT_ITEMS);
    const eval_header head = {e->model, e->weights, squish_kv_name(e->kv), cli_flag(e->c, OPT_BOS)};
    if (!file) return 0;
    const bool there = sq_os_exists(file), resume = cli_flag(e->c, OPT_RESUME);
    if (there && !resume)
        return cli_fail_text(e->c, 1, "%s is there already (go on with it: --resume; or remove it)", file);
    if (there && sq_os_file_bytes(file) > 0) {
        squish_text text = {0};
        const int code = read_items(e, file, &head, false, &text);
        size_t whole = text.bytes;
        while (whole > 0 && text.data[whole - 1] != '\n') whole--;
        squish_text_free(&text);
        if (code) return code;
        if (truncate(file, (off_t)whole) != 0) return cli_fail_text(e->c, 1, "%s: %s", file, strerror(errno));
        e->items = whole ? fopen(file, "ab") : NULL;
        if (e->items) return 0;
    }
    e->items = fopen(file, "wb");
    if (e->items && eval_items_put_header(e->items, &head)) return 0;
    return cli_fail_text(e->c, 1, "%s: %s", file, strerror(errno));
}

/* ---- ours, and the reference ----------------------------------------------------------------- */

static int run_ours(evaluation *e) {
    machine m = {0};
    squish_error err = {0};
    int code = cli_open_model(e->c, e->name, false, &m.model);
    if (code) return code;
    squish_model_get_info(m.model, &e->info);
    const char *base = strrchr(e->info.path, '/');
    snprintf(e->model, sizeof e->model, "%s", base && base[1] ? base + 1 : e->info.path);
    snprintf(e->weights, sizeof e->weights, "%s", e->info.weight_types);
    snprintf(e->tier, sizeof e->tier, "%s", e->info.tier);
    squish_kv_from_name(cli_text(e->c, OPT_KV), &e->kv);
    code = open_items(e);
    if (code == 0 && open_engine(e->c, &m, e->kv, &err) != SQUISH_OK) code = cli_fail(e->c, &err);
    if (code == 0) code = run_tasks(e, &m, false);
    close_machine(&m);
    if (e->items && fclose(e->items) != 0 && code == 0)
        code = cli_fail_text(e->c, 1, "%s: %s", cli_text(e->c, OPT_ITEMS), strerror(errno));
    e->items = NULL;
    return code;
}

/* --reference: a file of items; a tier of the same model; or a model. Runs with an f16 cache. */
static int run_reference(evaluation *e) {
    const char *what = cli_text(e->c, OPT_REFERENCE);
    machine m = {0};
    squish_error err = {0};
    squish_text path = {0}, text = {0};
    if (!what) return 0;
    e->has_reference = true;
    const size_t n = strlen(what);
    if (n > 6 && strcmp(what + n - 6, ".jsonl") == 0) {
        const int code = read_items(e, what, NULL, true, &text);
        squish_text_free(&text);
        return code;
    }
    squish_model_options o = squish_model_options_default();
    o.warn = cli_warn;
    o.warn_user = e->c;
    o.tier = strcmp(what, "auto") == 0 ? SQUISH_TIER_AUTO : cli_tier_named(what);
    int code = cli_find_model(e->c, o.tier == SQUISH_TIER_AUTO ? what : e->name, o.tier, &path);
    if (code) return code;
    e->done = 0;
    squish_status st = squish_model_open(&m.model, path.data, &o, &err);
    if (st == SQUISH_OK) st = open_engine(e->c, &m, SQUISH_KV_F16, &err);
    code = st == SQUISH_OK ? run_tasks(e, &m, true) : cli_fail(e->c, &err);
    close_machine(&m);
    squish_text_free(&path);
    return code;
}

/* ---- saying it ------------------------------------------------------------------------------- */

static json_t *items_json(const one_task *t) {
    json_t *list = json_array();
    for (size_t i = 0; i < t->set.n; i++) {
        const eval_result *r = &t->ours[i];
        json_t *ll = json_array(), *tokens = json_array(), *greedy = json_array();
        for (int32_t k = 0; k < r->n; k++) {
            json_array_append_new(ll, json_real(r->choices[k].ll));
            json_array_append_new(tokens, json_integer(r->choices[k].tokens));
            json_array_append_new(greedy, json_boolean(r->choices[k].greedy));
        }
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:o, s:o, s:i, s:i, s:i}", "doc_id", (json_int_t)i, "ll", ll,
                            "tokens", tokens, "greedy", greedy, "acc", r->acc, "acc_norm", r->acc_norm,
                            "gold", r->gold));
    }
    return list;
}

static json_t *compared_json(const eval_compared *d) {
    return json_pack("{s:f, s:f, s:i, s:i, s:f, s:[f, f], s:b}", "reference", d->reference, "delta", d->delta,
                     "lost", d->lost, "won", d->won, "mcnemar_p", d->p, "interval", d->low, d->high, "pass",
                     d->pass);
}

static json_t *task_json(const evaluation *e, const one_task *t) {
    const eval_sum s = eval_sum_of(t->ours, t->set.n);
    const bool norm = t->set.task->norm;
    json_t *o = json_pack("{s:i, s:I, s:f, s:f, s:f, s:s, s:f, s:s, s:s}", "n", s.n, "n_file",
                          (json_int_t)t->set.n_file, "acc", s.acc, "acc_stderr", s.acc_err, "stderr",
                          norm ? s.acc_norm_err : s.acc_err, "metric", norm ? "acc_norm" : "acc", "seconds",
                          t->seconds, "file", t->set.file, "sha256", t->set.sha256);
    if (norm) json_object_set_new(o, "acc_norm", json_real(s.acc_norm));
    if (norm) json_object_set_new(o, "acc_norm_stderr", json_real(s.acc_norm_err));
    if (t->sealed > 0) json_object_set_new(o, "read_sealed", json_real(t->sealed));
    if (e->has_reference) {
        const eval_compared d = eval_compare(t->ours, t->theirs, t->set.n, norm);
        json_object_set_new(o, "compared", compared_json(&d));
    }
    json_object_set_new(o, "items", items_json(t));
    return o;
}

static bool all_pass(const evaluation *e) {
    bool pass = true;
    for (size_t k = 0; e->has_reference && k < e->n; k++)
        pass &=
            eval_compare(e->tasks[k].ours, e->tasks[k].theirs, e->tasks[k].set.n, e->tasks[k].set.task->norm)
                .pass;
    return pass;
}

static int print_json(const evaluation *e) {
    double seconds = 0;
    json_t *tasks = json_object();
    for (size_t k = 0; k < e->n; k++) {
        seconds += e->tasks[k].seconds;
        json_object_set_new(tasks, e->tasks[k].set.task->name, task_json(e, &e->tasks[k]));
    }
    const double limit = cli_flag(e->c, OPT_NO_LIMIT) ? 0 : cli_num(e->c, OPT_LIMIT);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:f, s:s, s:o}", "model", e->model, "tier",
                          e->tier, "weight_types", e->weights, "kv", squish_kv_name(e->kv), "threads",
                          e->threads, "seed", (json_int_t)cli_int(e->c, OPT_SEED), "num_fewshot", 0,
                          "seconds", seconds, "squish", squish_build_info(), "tasks", tasks);
    json_object_set_new(o, "limit", limit > 0 ? json_real(limit) : json_null());
    if (e->has_reference) json_object_set_new(o, "pass", json_boolean(all_pass(e)));
    return cli_print_json(o);
}

static void print_table(const evaluation *e) {
    printf("%-14s %6s %8s %8s %9s %8s %8s\n", "task", "items", "acc", "+-", "acc_norm", "+-", "seconds");
    for (size_t k = 0; k < e->n; k++) {
        const one_task *t = &e->tasks[k];
        const eval_sum s = eval_sum_of(t->ours, t->set.n);
        printf("%-14s %6d %7.2f%% %7.2f%%", t->set.task->name, s.n, 100 * s.acc, 100 * s.acc_err);
        if (t->set.task->norm)
            printf(" %8.2f%% %7.2f%%", 100 * s.acc_norm, 100 * s.acc_norm_err);
        else
            printf(" %9s %8s", "", "");
        printf(" %8.1f\n", t->seconds);
    }
    if (!e->has_reference) return;
    printf("\n%-14s %10s %9s %7s %6s %6s %10s  %-20s %s\n", "against", "reference", "ours", "delta", "lost",
           "won", "McNemar p", "95 % of delta", "");
    for (size_t k = 0; k < e->n; k++) {
        const one_task *t = &e->tasks[k];
        const eval_compared d = eval_compare(t->ours, t->theirs, t->set.n, t->set.task->norm);
        char interval[32];
        snprintf(interval, sizeof interval, "%+.2f to %+.2f", 100 * d.low, 100 * d.high);
        printf("%-14s %9.2f%% %8.2f%% %+7.2f %6d %6d %10.4f  %-20s %s\n", t->set.task->name,
               100 * d.reference, 100 * (d.reference + d.delta), 100 * d.delta, d.lost, d.won, d.p, interval,
               d.pass ? "PASS" : "FAIL");
    }
    for (size_t k = 0; k < e->n; k++)
        if (e->tasks[k].sealed > 0)
            printf("%s: %.0f %% of what was attended to was read in %s\n", e->tasks[k].set.task->name,
                   100 * e->tasks[k].sealed, squish_kv_name(e->kv));
}

int cli_eval(cli *c) {
    evaluation e = {.c = c};
    e.name = cli_take_model(c, false);
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    char dir[4096];
    squish_engine_options memory = squish_engine_options_default();
    int code = cli_memory(c, &memory);
    if (code == 0) code = find_data(c, dir, sizeof dir);
    if (code == 0) code = wanted_tasks(&e, dir);
    if (code == 0) code = put_in_front(&e);
    if (code == 0) code = run_ours(&e);
    if (code == 0) code = run_reference(&e);
    if (code == 0 && cli_flag(c, OPT_JSON))
        code = print_json(&e);
    else if (code == 0)
        print_table(&e);
    if (code == 0 && !all_pass(&e)) code = 1;
    for (size_t k = 0; k < e.n; k++) eval_set_free(&e.tasks[k].set);
    return code;
}
