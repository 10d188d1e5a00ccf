/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_gc.c - remove what a model no longer needs, and say what went. */
#include "cli/cli.h"
#include "hub/hub.h"

#include <string.h>

typedef struct {
    json_t *list; /* NULL: lines instead */
    bool dry_run;
} seen;

static bool tell(void *user, const char *path, uint64_t bytes, const char *why) {
    const seen *s = user;
    char size[32];
    if (s->list)
        json_array_append_new(
            s->list, json_pack("{s:s, s:I, s:s}", "path", path, "bytes", (json_int_t)bytes, "why", why));
    else
        printf("%s %s (%s): %s\n", s->dry_run ? "would remove" : "removed", path, cli_bytes(bytes, size),
               why);
    return true;
}

/* ---- pulls that were stopped ------------------------------------------------------------------- */

typedef struct {
    cli *c;
    seen *s;
    uint64_t bytes;
    squish_error err;
} unfinished;

static bool drop_pull(void *user, const char *key, uint64_t bytes) {
    unfinished *u = user;
    squish_error err = {0};
    char name[300];
    sq_store_name_of_key(key, name, sizeof name);
    if (!u->s->dry_run && hub_unfinished_remove(cli_home(u->c), key, &err) != SQUISH_OK) {
        if (err.code != SQUISH_BUSY) u->err = err; /* one that is under way stays */
        return u->err.code == SQUISH_OK;
    }
    u->bytes += bytes;
    return tell(u->s, name, bytes, "a pull that was stopped");
}

static squish_status drop_pulls(cli *c, seen *s, uint64_t *freed, squish_error *err) {
    unfinished u = {.c = c, .s = s};
    hub_unfinished(cli_home(c), drop_pull, &u);
    *freed = u.bytes;
    if (u.err.code != SQUISH_OK) *err = u.err;
    return u.err.code;
}

/* ---- the command ------------------------------------------------------------------------------- */

int cli_gc(cli *c) {
    const char *name = cli_take_model(c, false);
    squish_gc_options o = {.dry_run = cli_flag(c, OPT_DRY_RUN), .drop_source = cli_flag(c, OPT_DROP_SOURCE)};
    squish_text path = {0};
    squish_error err = {0};
    uint64_t freed = 0;
    if (!name && (cli_flag(c, OPT_DROP_SOURCE) || cli_tier_named(cli_text(c, OPT_KEEP)) != SQUISH_TIER_AUTO))
        return cli_fail_text(c, 2, "gc takes a model (squish gc MODEL)");
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    o.keep = cli_tier_named(cli_text(c, OPT_KEEP)); /* "all" is none of them */
    seen s = {cli_flag(c, OPT_JSON) ? json_array() : NULL, o.dry_run};
    o.fn = tell;
    o.user = &s;
    squish_status st = SQUISH_OK;
    if (!name) st = drop_pulls(c, &s, &freed, &err);
    else st = cli_locate_here(c, name, &path, &err);
    if (name && st == SQUISH_OK) st = squish_gc(path.data, cli_home(c), &o, &freed, &err);
    squish_text_free(&path);
    if (st != SQUISH_OK) {
        json_decref(s.list);
        return cli_fail(c, &err);
    }
    if (s.list)
        return cli_print_json(json_pack("{s:o, s:I, s:b}", "removed", s.list, "bytes", (json_int_t)freed,
                                        "dry_run", o.dry_run));
    char size[32];
    printf("%s %s\n", cli_bytes(freed, size), o.dry_run ? "would be free" : "freed");
    return 0;
}
