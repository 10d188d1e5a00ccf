/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_store.c - changing the store (import, rm, cp), and asking a server what it has loaded (ps, stop). */
#include "cli/cli.h"
#include "fetch/fetch.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- rm and cp --------------------------------------------------------------------------------- */

/* A stopped pull of that name, if there is one. */
static bool remove_unfinished(const cli *c, const char *name, squish_error *err) {
    char key[2 * SQ_STORE_NAME_MAX];
    return sq_store_key(name, key, sizeof key) && hub_unfinished_remove(cli_home(c), key, err) == SQUISH_OK;
}

int cli_rm(cli *c) {
    if (!c->n_args) return cli_fail_text(c, 2, "rm takes names of models (squish rm NAME)");
    json_t *gone = json_array();
    int code = 0;
    for (int i = 0; i < c->n_args && code == 0; i++) {
        const char *name = c->args[i];
        squish_error err = {0}, none = {0};
        const squish_status st = sq_store_remove(cli_home(c), name, &err);
        const bool stopped = remove_unfinished(c, name, &none);
        if (st != SQUISH_OK && !(stopped && st == SQUISH_NOT_FOUND)) {
            if (none.code == SQUISH_BUSY && st == SQUISH_NOT_FOUND) err = none; /* it is being pulled */
            code = cli_fail(c, &err);
        } else {
            json_array_append_new(gone, json_string(name));
            if (!cli_flag(c, OPT_JSON)) printf("removed %s\n", name);
        }
    }
    if (code == 0 && cli_flag(c, OPT_JSON)) return cli_print_json(json_pack("{s:o}", "removed", gone));
    json_decref(gone);
    return code;
}

int cli_cp(cli *c) {
    squish_error err = {0};
    if (c->n_args != 2) return cli_fail_text(c, 2, "cp takes a model and a new name (squish cp MODEL NAME)");
    if (sq_store_copy(cli_home(c), c->args[0], c->args[1], &err) != SQUISH_OK) return cli_fail(c, &err);
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:s, s:s}", "from", c->args[0], "name", c->args[1]));
    printf("%s is %s\n", c->args[1], c->args[0]);
    return 0;
}

/* ---- import ------------------------------------------------------------------------------------- */

static bool on_import(void *user, const char *what, uint64_t done, uint64_t total) {
    return cli_progress(user, what, done, total);
}

int cli_import(cli *c) {
    char path[4096];
    squish_error err = {0};
    if (c->n_args < 1 || c->n_args > 2)
        return cli_fail_text(c, 2,
                             "import takes a folder or file, and maybe a name (squish import PATH [NAME])");
    const squish_status st = hub_import(cli_home(c), c->args[0], c->n_args > 1 ? c->args[1] : NULL, on_import,
                                        c, path, sizeof path, &err);
    if (st != SQUISH_OK) return cli_fail(c, &err);
    if (cli_flag(c, OPT_JSON)) return cli_print_json(json_pack("{s:s}", "path", path));
    printf("%s\n", path);
    return 0;
}

/* ---- ps and stop --------------------------------------------------------------------------------- */

static squish_status ask(const cli *c, const char *route, const char *json, json_t **out, squish_error *err) {
    char url[300];
    const char *host = cli_text(c, OPT_HOST);
    const bool bare6 = strchr(host, ':') && host[0] != '[';
    squish_text text = {0};
    const char *key = c->values[OPT_API_KEY].n_list ? c->values[OPT_API_KEY].list[0] : NULL;
    snprintf(url, sizeof url, "http://%s%.200s%s:%lld%s", bare6 ? "[" : "",
             strcmp(host, "0.0.0.0") ? host : "127.0.0.1", bare6 ? "]" : "", (long long)cli_int(c, OPT_PORT),
             route);
    const squish_status st = fetch_text_keyed(url, json, key, 60, &text, err);
    if (st != SQUISH_OK) return st;
    *out = json_loadb(text.data, text.bytes, 0, NULL);
    squish_text_free(&text);
    return *out ? SQUISH_OK : sq_fail(err, SQUISH_CORRUPT, "%s: the answer is no JSON", url);
}

static int no_server(const cli *c, const squish_error *err) {
    if (err->code != SQUISH_NETWORK || strstr(err->text, "status ")) return cli_fail(c, err);
    return cli_fail_text(c, 6, "no server answers at %s:%lld (start one with: squish serve)",
                         cli_text(c, OPT_HOST), (long long)cli_int(c, OPT_PORT));
}

int cli_ps(cli *c) {
    json_t *o = NULL, *m;
    squish_error err = {0};
    size_t i;
    if (c->n_args) return cli_fail_text(c, 2, "ps takes no arguments");
    if (ask(c, "/api/ps", NULL, &o, &err) != SQUISH_OK) return no_server(c, &err);
    if (cli_flag(c, OPT_JSON)) return cli_print_json(o);
    const bool eyes = isatty(STDOUT_FILENO);
    if (eyes) printf("%-32s %10s %10s  %s\n", "name", "memory", "context", "until");
    json_array_foreach(json_object_get(o, "models"), i, m) {
        char size[32];
        const char *name = json_string_value(json_object_get(m, "name"));
        const char *until = json_string_value(json_object_get(m, "expires_at"));
        const json_int_t bytes = json_integer_value(json_object_get(m, "size"));
        const json_int_t ctx = json_integer_value(json_object_get(m, "context_length"));
        if (eyes)
            printf("%-32s %10s %10lld  %s\n", name ? name : "", cli_bytes((uint64_t)bytes, size),
                   (long long)ctx, until ? until : "");
        else
            printf("%s\t%lld\t%lld\t%s\n", name ? name : "", (long long)bytes, (long long)ctx,
                   until ? until : "");
    }
    json_decref(o);
    return 0;
}

/* Has the server loaded a model of that name? */
static squish_status is_loaded(const cli *c, const char *name, bool *loaded, squish_error *err) {
    json_t *o = NULL, *m;
    size_t i;
    *loaded = false;
    SQ_TRY(ask(c, "/api/ps", NULL, &o, err));
    json_array_foreach(json_object_get(o, "models"), i, m) {
        const char *other = json_string_value(json_object_get(m, "name"));
        const size_t n = sq_store_bare_length(name);
        if (other && sq_store_bare_length(other) == n && memcmp(other, name, n) == 0) *loaded = true;
    }
    json_decref(o);
    return SQUISH_OK;
}

int cli_stop(cli *c) {
    json_t *o = NULL;
    squish_error err = {0};
    bool loaded = false;
    if (c->n_args != 1)
        return cli_fail_text(c, 2, "stop takes one model (squish stop MODEL; see: squish ps)");
    if (is_loaded(c, c->args[0], &loaded, &err) != SQUISH_OK) return no_server(c, &err);
    if (!loaded) return cli_fail_text(c, 3, "the server has no '%.100s' loaded (see: squish ps)", c->args[0]);
    json_t *q = json_pack("{s:s, s:i, s:b}", "model", c->args[0], "keep_alive", 0, "stream", 0);
    char *text = q ? json_dumps(q, JSON_COMPACT) : NULL;
    json_decref(q);
    if (!text) return cli_fail_text(c, 1, "the name is not UTF-8 text");
    const squish_status st = ask(c, "/api/generate", text, &o, &err);
    free(text); /* jansson's */
    if (st != SQUISH_OK) return no_server(c, &err);
    const char *reason = json_string_value(json_object_get(o, "done_reason"));
    const bool stays = reason && strcmp(reason, "load") == 0;
    json_decref(o);
    if (stays)
        return cli_fail_text(c, 1, "'%.100s' belongs to the command line of the server and stays loaded",
                             c->args[0]);
    if (cli_flag(c, OPT_JSON)) return cli_print_json(json_pack("{s:s}", "stopped", c->args[0]));
    printf("%s is unloaded\n", c->args[0]);
    return 0;
}
