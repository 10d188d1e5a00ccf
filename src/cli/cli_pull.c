/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_pull.c - models of hubs: the command pull, and names that were typed where a model was meant and are
 * not here yet.
 *
 * What it is, how large, under which licence and whether it would run here is said before much is fetched:
 * the plan is made of the configuration and the headers of its weights, which come first. */
#include "cli/cli.h"
#include "hub/hub.h"

#include <string.h>
#include <unistd.h>

/* A pull takes longer than a compression: its share of the bar that both have between them. */
static const double PULL_SHARE = 0.85;

typedef struct {
    cli *c;
    bool lines, planned, waited; /* lines: JSON on standard output */
    bool dry_run;
    uint64_t told_ns, begin_ns;
    char name[SQ_STORE_NAME_MAX + 1];
    char path[4096];
    bool was_here;
    const squish_plan_options *wish; /* of the command plan: only headers are fetched */
    squish_text *plan;
    bool looked; /* all that was asked for has been said */
} puller;

static bool is_stopped(void *user) {
    (void)user;
    return cli_signal_seen();
}

static void settings(const cli *c, hub_settings *s) {
    hub_settings_get(s);
    const char *rate = cli_text(c, OPT_LIMIT_RATE);
    s->home = cli_home(c);
    s->offline = s->offline || cli_flag(c, OPT_OFFLINE);
    s->connections = (int32_t)cli_int(c, OPT_CONNECTIONS);
    s->retries = (int32_t)cli_int(c, OPT_RETRIES);
    s->stall_s = cli_num(c, OPT_STALL);
    if (rate) cli_parse_size(rate, &s->rate);
    s->stop = is_stopped;
}

bool cli_hub_name(const cli *c, const char *name) {
    hub_catalog k;
    if (hub_catalog_open(&k, cli_home(c), NULL) != SQUISH_OK) return false;
    const bool is = hub_is_name(&k, name);
    hub_catalog_close(&k);
    return is;
}

/* ---- what is said ---------------------------------------------------------------------------- */

static void line(const puller *p, json_t *o) {
    if (p->lines)
        cli_print_json(o), fflush(stdout);
    else
        json_decref(o);
}

static int32_t count_wanted(const hub_listing *l) {
    int32_t n = 0;
    for (size_t i = 0; i < l->n; i++) n += l->files[i].wanted;
    return n;
}

static void say_found(const puller *p, const hub_listing *l) {
    char size[32];
    const int32_t n = count_wanted(l);
    line(p, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:i}", "status", "found", "name", p->name,
                      "source", l->source, "repo", l->repo, "revision", l->revision, "license", l->license,
                      "bytes", (json_int_t)l->bytes, "files", n));
    cli_note(p->c, "%s: %s%s%.12s, %s in %d %s, licence: %s%s", p->name, l->repo, *l->revision ? " at " : "",
             l->revision, cli_bytes(l->bytes, size), n, n == 1 ? "file" : "files",
             *l->license ? l->license : "not stated", l->gated ? " (gated)" : "");
}

/* Would it run here? Of headers alone; a model that cannot be read here is not fetched. */
static bool plan(puller *p, const hub_news *n, squish_error *err) {
    char path[4096];
    p->looked = p->wish || p->dry_run;
    squish_plan_options o = squish_plan_options_default();
    squish_text text = {0};
    squish_error why = {0};
    if (p->planned) return true;
    p->planned = true;
    if (snprintf(path, sizeof path, "%s%s%s", n->dir, *n->listing->main ? "/" : "", n->listing->main) >=
        (int)sizeof path)
        return true;
    if (p->wish) {
        squish_plan(path, p->wish, p->plan, err);
        return false;
    }
    o.home = cli_home(p->c);
    o.read_gb_s = 10; /* what fits does not hang on it */
    const squish_status st = squish_plan(path, &o, &text, &why);
    if (st == SQUISH_UNSUPPORTED) {
        *err = why;
        sq_err_prefix(err, "%.100s is not fetched", p->name);
        return false;
    }
    if (st != SQUISH_OK) return true; /* a header that is longer than what has come yet */
    json_t *plan = json_loads(text.data, 0, NULL);
    const char *says = json_string_value(json_object_get(plan, "line"));
    if (says) cli_note(p->c, "%s", says);
    if (plan) line(p, json_pack("{s:s, s:O}", "status", "planned", "plan", plan));
    json_decref(plan);
    squish_text_free(&text);
    return !p->dry_run;
}

static bool say_fetching(puller *p, const hub_news *n) {
    const fetch_files_progress *f = n->files;
    const uint64_t now = sq_os_now_ns();
    const bool verifying = n->stage == HUB_VERIFYING;
    if (!p->begin_ns) p->begin_ns = now;
    if (p->lines && now - p->told_ns > 500000000) {
        const double s = (double)(now - p->begin_ns) / 1e9;
        p->told_ns = now;
        line(p, json_pack("{s:s, s:s, s:I, s:I, s:f}", "status", verifying ? "verifying" : "pulling", "file",
                          n->file ? n->file->as : "", "completed", (json_int_t)f->bytes_done, "total",
                          (json_int_t)f->bytes_total, "bytes_s", s > 0 ? (double)f->bytes_fetched / s : 0.0));
    }
    return cli_progress(p->c, verifying ? "verifying" : "pulling", f->bytes_done, f->bytes_total);
}

static bool on_news(void *user, const hub_news *n, squish_error *err) {
    puller *p = user;
    bool on = !cli_signal_seen();
    switch (n->stage) {
    case HUB_WAITING:
        if (!p->waited) cli_note(p->c, "squish: another program is pulling %s; waiting for it", p->name);
        p->waited = true;
        break;
    case HUB_FOUND: say_found(p, n->listing); break;
    case HUB_HEADERS: on = plan(p, n, err) && on; break;
    case HUB_FETCHING:
    case HUB_VERIFYING: on = say_fetching(p, n) && on; break;
    case HUB_DONE:
        snprintf(p->path, sizeof p->path, "%s", n->path);
        p->was_here = n->was_here;
        break;
    default: break;
    }
    if (!on) sq_fail(err, SQUISH_CANCELLED, "stopped; the same command goes on where this one was");
    return on;
}

/* ---- names that are not here yet ------------------------------------------------------------- */

static squish_status pull_ref(cli *c, const hub_ref *r, puller *p, squish_error *err) {
    hub_settings s;
    settings(c, &s);
    snprintf(p->name, sizeof p->name, "%s", r->name);
    p->c = c;
    return hub_pull(&s, r, on_news, p, err);
}

/* As pull_ref, up to the headers: nothing of it stays that was not there before. */
static squish_status look_ref(cli *c, const hub_ref *r, puller *p, squish_error *err) {
    char key[2 * SQ_STORE_NAME_MAX], what[2 * SQ_STORE_NAME_MAX + 8], stage[4096] = "";
    if (sq_store_key(r->name, key, sizeof key)) {
        snprintf(what, sizeof what, "pulls/%s", key);
        sq_store_place(cli_home(c), what, stage, sizeof stage, NULL);
    }
    const bool begun = sq_os_is_dir(stage);
    const squish_status st = pull_ref(c, r, p, err);
    if (!begun && *stage && sq_os_is_dir(stage)) hub_unfinished_remove(cli_home(c), key, NULL);
    if (!p->looked || cli_signal_seen() || (p->wish && !p->plan->data)) return st;
    *err = (squish_error){0};
    return SQUISH_OK;
}

squish_status cli_locate(cli *c, const char *name, squish_text *path, squish_error *err) {
    squish_error first = {0};
    hub_catalog k;
    hub_ref r;
    puller p = {0};
    squish_status st = squish_locate(cli_home(c), name, path, &first);
    if (st != SQUISH_NOT_FOUND || !name || hub_catalog_open(&k, cli_home(c), NULL) != SQUISH_OK) {
        *err = first;
        return st;
    }
    squish_error wrong = {0};
    st = hub_name(&k, name, false, &r, &wrong);
    if (st == SQUISH_INVALID) first = wrong;
    if (st == SQUISH_OK) {
        st = squish_locate(cli_home(c), r.name, path, NULL); /* qwen2.5 lies here as qwen2.5:1.5b */
        if (st != SQUISH_OK) {
            cli_progress_part(c, r.name, 0, PULL_SHARE);
            first = (squish_error){0};
            st = pull_ref(c, &r, &p, &first);
            cli_progress_part(c, r.name, PULL_SHARE, 1);
            if (st == SQUISH_OK) st = squish_locate(cli_home(c), r.name, path, &first);
            if (st != SQUISH_OK) cli_progress_part(c, NULL, 0, 0);
        }
    }
    hub_catalog_close(&k);
    if (st != SQUISH_OK) *err = first;
    return st == SQUISH_OK ? st : first.code;
}

squish_status cli_locate_here(const cli *c, const char *name, squish_text *path, squish_error *err) {
    const squish_status st = squish_locate(cli_home(c), name, path, err);
    if (st != SQUISH_NOT_FOUND || !name || !cli_hub_name(c, name)) return st;
    *err = (squish_error){0};
    return sq_fail(err, st, "'%.100s' is not on this machine yet (squish pull %.100s)", name, name);
}

squish_status cli_plan_of(cli *c, const char *name, const squish_plan_options *o, squish_text *out,
                          squish_error *err) {
    hub_catalog k;
    hub_ref r;
    squish_text path = {0};
    puller p = {.wish = o, .plan = out};
    squish_error first = {0};
    squish_status st = squish_locate(cli_home(c), name, &path, &first);
    if (st == SQUISH_NOT_FOUND && name && hub_catalog_open(&k, cli_home(c), NULL) == SQUISH_OK) {
        squish_error wrong = {0};
        const squish_status is = hub_name(&k, name, false, &r, &wrong);
        if (is == SQUISH_INVALID) first = wrong, st = is;
        if (is == SQUISH_OK) {
            first = (squish_error){0};
            st = squish_locate(cli_home(c), r.name, &path, NULL);
            if (st != SQUISH_OK) st = look_ref(c, &r, &p, &first);
        }
        hub_catalog_close(&k);
    }
    if (st == SQUISH_OK && path.data) st = squish_plan(path.data, o, out, &first);
    squish_text_free(&path);
    if (st != SQUISH_OK) *err = first;
    return st;
}

/* ---- the command ------------------------------------------------------------------------------ */

int cli_pull(cli *c) {
    hub_catalog k;
    hub_ref r;
    squish_error err = {0};
    puller p = {.lines = cli_flag(c, OPT_JSON), .dry_run = cli_flag(c, OPT_DRY_RUN)};
    if (c->n_args != 1)
        return cli_fail_text(c, 2, "pull takes one name (squish pull NAME; see: squish catalog)");
    if (hub_catalog_open(&k, cli_home(c), &err) != SQUISH_OK) return cli_fail(c, &err);
    squish_status st = hub_name(&k, c->args[0], true, &r, &err);
    if (st == SQUISH_OK) {
        cli_progress_part(c, r.name, 0, 1);
        st = p.dry_run ? look_ref(c, &r, &p, &err) : pull_ref(c, &r, &p, &err);
        cli_progress_part(c, NULL, 0, 0);
    }
    hub_catalog_close(&k);
    if (p.looked && st == SQUISH_OK) return 0;
    if (st != SQUISH_OK) return cli_fail(c, &err);
    line(&p, json_pack("{s:s, s:s, s:s, s:b}", "status", "success", "name", p.name, "path", p.path,
                       "was_here", p.was_here));
    if (!p.lines)
        printf("%s %s %s\n", p.name, p.was_here ? "is here already, as the hub has it:" : "is here:", p.path);
    return 0;
}

/* ---- the catalogue ----------------------------------------------------------------------------- */

static json_t *entry_json(const hub_entry *e) {
    return json_pack("{s:s, s:s, s:s, s:s, s:f, s:I, s:s, s:s, s:b}", "name", e->name, "repo", e->repo,
                     "revision", e->revision, "license", e->license, "billions", e->billions, "bytes",
                     (json_int_t)e->bytes, "needs", e->needs, "about", e->about, "verified", e->verified);
}

static void print_entry(const hub_entry *e, bool eyes) {
    char size[32];
    if (!eyes) {
        printf("%s\t%s\t%llu\t%s\t%s\t%d\n", e->name, e->repo, (unsigned long long)e->bytes, e->license,
               e->needs, e->verified);
        return;
    }
    printf("%-22s %9s%s %-40s %-16s %s%s%s\n", e->name, e->bytes ? cli_bytes(e->bytes, size) : "?",
           e->verified ? " " : "*", e->repo, e->license, e->about, *e->needs ? "; needs " : "", e->needs);
}

static bool has_word(const char *text, const char *word) {
    const size_t n = strlen(word);
    for (; *text; text++)
        if (strncasecmp(text, word, n) == 0) return true;
    return n == 0;
}

/* Entries that have every word. */
static int show_entries(cli *c) {
    hub_catalog k;
    squish_error err = {0};
    if (hub_catalog_open(&k, cli_home(c), &err) != SQUISH_OK) return cli_fail(c, &err);
    json_t *all = cli_flag(c, OPT_JSON) ? json_array() : NULL;
    const bool eyes = isatty(STDOUT_FILENO);
    int n = 0;
    for (size_t i = 0; i < k.n; i++) {
        const hub_entry *e = &k.entries[i];
        bool fits = true;
        for (int w = 0; w < c->n_args; w++)
            fits = fits && (has_word(e->name, c->args[w]) || has_word(e->repo, c->args[w]) ||
                            has_word(e->about, c->args[w]));
        if (!fits) continue;
        n++;
        if (all)
            json_array_append_new(all, entry_json(e));
        else
            print_entry(e, eyes);
    }
    hub_catalog_close(&k);
    if (all) {
        const int code = cli_print_json(json_pack("{s:o}", "models", all));
        return n || !c->n_args ? code : 3;
    }
    if (eyes && n)
        printf("\n* not looked at on the hub: size and licence may differ. squish pull NAME fetches one.\n");
    if (!n && c->n_args)
        return cli_fail_text(c, 3,
                             "nothing in the catalogue fits '%.60s' (any model of Hugging Face can be named: "
                             "squish pull hf.co/USER/REPO)",
                             c->args[0]);
    return 0;
}

int cli_search(cli *c) {
    if (!c->n_args) return cli_fail_text(c, 2, "search takes a word (squish search qwen)");
    return show_entries(c);
}

int cli_catalog(cli *c) {
    if (c->n_args) return cli_fail_text(c, 2, "catalog takes no arguments (squish search WORD)");
    return show_entries(c);
}
