/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_options.c - from a command line, the environment and squish.ini to checked values.
 *
 * Precedence: flag, environment, file, default. Every value is checked against the table whatever it came
 * from. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IN(cmd) (UINT64_C(1) << CLI_##cmd)
#define ALL ((UINT64_C(1) << CLI_COMMANDS) - 1)
#define EXPERIMENTAL CLI_EXPERIMENTAL
const cli_option cli_options[OPT_COUNT] = {
#define CLI_OPT(id, name, letter, kind, arg, initial, low, high, commands, hint, help)                       \
    {name, letter, KIND_##kind, arg, initial, low, high, commands, CLI_HINT_##hint, help},
#include "cli/cli_options.def"
#undef CLI_OPT
};
#undef IN
#undef ALL
#undef EXPERIMENTAL

const cli_command *cli_command_find(const char *name) {
    for (int i = 0; i < CLI_COMMANDS; i++)
        if (strcmp(cli_commands[i].name, name) == 0) return &cli_commands[i];
    return NULL;
}

void cli_env_name(const cli_option *o, char *out, size_t n) {
    snprintf(out, n, "SQUISH_%s", o->name);
    for (char *p = out; *p; p++) *p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
}

/* config takes every option, to show its effect. */
static bool applies(const cli *c, cli_option_id id) {
    return c->id == CLI_CONFIG || (cli_options[id].commands & (UINT64_C(1) << c->id));
}

/* ---- checking -------------------------------------------------------------------------------- */

static bool word_in(const char *words, const char *w) {
    const size_t n = strlen(w);
    for (const char *p = words; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (n > 0 && strncmp(p, w, n) == 0 && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

static bool number_ok(const cli_option *o, const char *text, char *why, size_t n) {
    char *end = NULL;
    errno = 0;
    double v;
    if (o->kind == KIND_INT)
        v = (double)strtoll(text, &end, 10);
    else
        v = strtod(text, &end);
    const bool ok = end != text && *end == 0 && errno == 0 && v >= o->low && v <= o->high;
    if (!ok)
        snprintf(why, n, "a%s number from %.10g to %.10g", o->kind == KIND_INT ? " whole" : "", o->low,
                 o->high);
    return ok;
}

bool cli_value_ok(const cli_option *o, const char *text, char *why, size_t n) {
    switch (o->kind) {
    case KIND_INT:
    case KIND_NUM: return number_ok(o, text, why, n);
    case KIND_ENUM:
        if (word_in(o->arg, text)) return true;
        snprintf(why, n, "one of %s", o->arg);
        return false;
    case KIND_FLAG:
        if (word_in("true,false,1,0,yes,no,on,off", text)) return true;
        snprintf(why, n, "true or false");
        return false;
    default: return true;
    }
}

static const char *origin_text(cli_origin from, const cli_option *o, char out[96]) {
    char env[64];
    cli_env_name(o, env, sizeof env);
    if (from == CLI_FROM_ENV)
        snprintf(out, 96, "%s", env);
    else if (from == CLI_FROM_MADE)
        snprintf(out, 96, "the model's own %s", o->name);
    else if (from == CLI_FROM_FILE)
        snprintf(out, 96, "squish.ini: %s", o->name);
    else
        snprintf(out, 96, "--%s", o->name);
    return out;
}

bool cli_set(cli *c, cli_option_id id, const char *text, cli_origin origin) {
    const cli_option *o = &cli_options[id];
    cli_value *v = &c->values[id];
    char why[160], where[96];
    /* compress builds a list of tiers and checks it itself. */
    const bool list = id == OPT_TIER && c->id == CLI_COMPRESS;
    if (!list && !cli_value_ok(o, text, why, sizeof why)) {
        cli_fail_text(c, 2, "%s: '%.60s' is not %s", origin_text(origin, o, where), text, why);
        return false;
    }
    if (o->kind == KIND_LIST) {
        if (v->origin < origin) v->n_list = 0;
        if (v->n_list == CLI_LIST_MAX) {
            cli_fail_text(c, 2, "--%s: more than %d times", o->name, CLI_LIST_MAX);
            return false;
        }
        v->list[v->n_list++] = text;
    }
    v->text = text;
    v->origin = origin;
    return true;
}

/* ---- environment and file -------------------------------------------------------------------- */

static bool from_environment(cli *c) {
    for (int i = 0; i < OPT_COUNT; i++) {
        char name[64];
        cli_env_name(&cli_options[i], name, sizeof name);
        const char *text = getenv(name);
        if (text && *text && applies(c, (cli_option_id)i) &&
            !cli_set(c, (cli_option_id)i, text, CLI_FROM_ENV))
            return false;
    }
    return true;
}

static int option_named(const char *name, size_t n) {
    for (int i = 0; i < OPT_COUNT; i++)
        if (strlen(cli_options[i].name) == n && strncmp(cli_options[i].name, name, n) == 0) return i;
    return -1;
}

static const char *nearest_option(const cli *c, const char *name) {
    int best = 4;
    const char *found = NULL;
    for (int i = 0; i < OPT_COUNT; i++) {
        if (!applies(c, (cli_option_id)i)) continue;
        const int d = sq_edit_distance(name, cli_options[i].name);
        if (d < best) best = d, found = cli_options[i].name;
    }
    return found;
}

static char *trim(char *s) {
    while (*s == ' ' || *s == '\t') s++;
    size_t n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) s[--n] = 0;
    return s;
}

static bool ini_line(cli *c, char *line, int number) {
    line = trim(line);
    if (*line == 0 || *line == '#' || *line == ';') return true;
    char *eq = strchr(line, '=');
    if (!eq) {
        cli_fail_text(c, 2, "squish.ini line %d: '%.60s' is not NAME = VALUE", number, line);
        return false;
    }
    *eq = 0;
    const char *name = trim(line);
    const int id = option_named(name, strlen(name));
    if (id < 0) {
        cli_fail_text(c, 2, "squish.ini line %d: no option is called '%.60s' (see: squish config)", number,
                      name);
        return false;
    }
    if (!applies(c, (cli_option_id)id)) return true;
    return cli_set(c, (cli_option_id)id, trim(eq + 1), CLI_FROM_FILE);
}

/* NAME = VALUE a line, # or ; begin a comment. Read before flags, so --home on the line is looked up ahead.
 */
static bool from_file(cli *c, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--home") == 0 && i + 1 < argc) c->values[OPT_HOME].text = argv[i + 1];
        if (strncmp(argv[i], "--home=", 7) == 0) c->values[OPT_HOME].text = argv[i] + 7;
    }
    char path[4096];
    sq_span file;
    if (!cli_home_path(c, "squish.ini", path, sizeof path) || !sq_os_exists(path)) return true;
    squish_error err = {0};
    if (sq_os_read_file(path, 1 << 20, &c->arena, &file, &err) != SQUISH_OK) {
        cli_fail(c, &err);
        return false;
    }
    char *line = (char *)(uintptr_t)file.p;
    for (int number = 1; line; number++) {
        char *next = strchr(line, '\n');
        if (next) *next++ = 0;
        if (!ini_line(c, line, number)) return false;
        line = next;
    }
    return true;
}

/* ---- the line -------------------------------------------------------------------------------- */

static bool unknown(const cli *c, const char *text) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "="), text);
    const char *near = nearest_option(c, name);
    if (near)
        cli_fail_text(c, 2, "unknown option --%.60s (did you mean --%s?)", name, near);
    else
        cli_fail_text(c, 2, "unknown option --%.60s (see: squish %s --help)", name, c->command->name);
    return false;
}

/* A long option at argv[*i]; takes its argument along. */
static bool long_option(cli *c, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2, *eq = strchr(name, '=');
    const size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const int id = option_named(name, n);
    if (id < 0 || !applies(c, (cli_option_id)id)) return unknown(c, name);
    if (cli_options[id].kind == KIND_FLAG)
        return cli_set(c, (cli_option_id)id, eq ? eq + 1 : "true", CLI_FROM_FLAG);
    if (eq) return cli_set(c, (cli_option_id)id, eq + 1, CLI_FROM_FLAG);
    if (*i + 1 >= argc) {
        cli_fail_text(c, 2, "--%s needs a value: %s", name, cli_options[id].arg);
        return false;
    }
    return cli_set(c, (cli_option_id)id, argv[++*i], CLI_FROM_FLAG);
}

static bool short_option(cli *c, int argc, char **argv, int *i) {
    const char *p = argv[*i] + 1;
    int id = -1;
    for (int k = 0; k < OPT_COUNT; k++)
        if (cli_options[k].letter == *p && applies(c, (cli_option_id)k)) id = k;
    if (id < 0) {
        cli_fail_text(c, 2, "unknown option -%c (see: squish %s --help)", *p, c->command->name);
        return false;
    }
    if (cli_options[id].kind == KIND_FLAG) {
        if (p[1]) {
            cli_fail_text(c, 2, "-%c takes no value", *p);
            return false;
        }
        return cli_set(c, (cli_option_id)id, "true", CLI_FROM_FLAG);
    }
    if (p[1]) return cli_set(c, (cli_option_id)id, p + 1, CLI_FROM_FLAG);
    if (*i + 1 >= argc) {
        cli_fail_text(c, 2, "-%c needs a value: %s", *p, cli_options[id].arg);
        return false;
    }
    return cli_set(c, (cli_option_id)id, argv[++*i], CLI_FROM_FLAG);
}

/* A flag, or a number that is 0 where it is off. */
static bool is_on(const cli *c, cli_option_id id) {
    if (cli_options[id].kind == KIND_TEXT) return cli_text(c, id) != NULL;
    return cli_options[id].kind == KIND_INT ? cli_int(c, id) > 0 : cli_flag(c, id);
}

/* A flag that says how another one works does nothing without it. (squish bench attention measures both ways
 * unasked, squish config shows.) */
static bool flags_have_their_flag(const cli *c) {
    static const struct {
        cli_option_id part, of;
    } parts[] = {{OPT_SPARGE_MIN, OPT_SPARGE},       {OPT_SPARGE_MASS, OPT_SPARGE},
                 {OPT_SAGE_BITS, OPT_SAGE},          {OPT_PM_AGES, OPT_PM_KVQ},
                 {OPT_PM_FLOOR, OPT_PM_KVQ},         {OPT_PM_BUDGET, OPT_PM_KVQ},
                 {OPT_COCKTAIL_HIGH, OPT_COCKTAIL},  {OPT_COCKTAIL_LOW, OPT_COCKTAIL},
                 {OPT_COCKTAIL_CHUNK, OPT_COCKTAIL}, {OPT_COCKTAIL_BY, OPT_COCKTAIL},
                 {OPT_SNAP_WINDOW, OPT_SNAP_KV},     {OPT_SNAPSHOT_ARCHIVE, OPT_SNAPSHOT_DIR},
                 {OPT_SNAPSHOT_CODEC, OPT_SNAPSHOT_DIR}};
    for (size_t i = 0; i < SQ_COUNT(parts); i++)
        if (c->values[parts[i].part].origin == CLI_FROM_FLAG && !is_on(c, parts[i].of) &&
            !(parts[i].part == OPT_PM_FLOOR && is_on(c, OPT_KV_BUDGET)) && c->id != CLI_BENCH &&
            c->id != CLI_CONFIG) {
            const char *of = cli_options[parts[i].of].name;
            cli_fail_text(c, 2, "--%s says how --%s works, which is off (add --%s)",
                          cli_options[parts[i].part].name, of, of);
            return false;
        }
    return true;
}

static bool sizes_are_sizes(const cli *c) {
    static const cli_option_id sizes[] = {OPT_PM_BUDGET, OPT_KV_BUDGET};
    uint64_t bytes;
    for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
        const char *t = applies(c, sizes[i]) ? cli_text(c, sizes[i]) : NULL;
        if (!t || cli_parse_size(t, &bytes)) continue;
        cli_fail_text(c, 2, "--%s: '%.60s' is no size (as 8G or 512M)", cli_options[sizes[i]].name, t);
        return false;
    }
    return true;
}

/* The same refusal as the engine's (sq_engine_spec), before a model is opened. */
static bool guesses_go_together(const cli *c) {
    static const cli_option_id ages[] = {OPT_PM_KVQ, OPT_MIX_KVQ, OPT_COCKTAIL, OPT_SNAP_KV, OPT_KV_BUDGET};
    const char *spec = cli_text(c, OPT_SPEC);
    if (c->id == CLI_CONFIG || !spec) return true;
    const bool any = strcmp(spec, "auto") == 0, draft = strcmp(spec, "draft") == 0;
    if (applies(c, OPT_DRAFT) && !cli_text(c, OPT_DRAFT) && draft) {
        cli_fail_text(c, 2, "--spec draft needs a model that guesses (--draft MODEL)");
        return false;
    }
    if (applies(c, OPT_DRAFT) && cli_text(c, OPT_DRAFT) && !any && !draft) {
        cli_fail_text(c, 2, "--draft and --spec %s contradict each other (wanted --spec auto or draft)",
                      spec);
        return false;
    }
    const char *accept = cli_text(c, OPT_SPEC_ACCEPT);
    if (accept && strcmp(accept, "ratio") == 0 && cli_int(c, OPT_SPEC_BRANCHES) != 0) {
        cli_fail_text(c, 2,
                      "--spec-accept ratio beside --spec-branches: branches are accepted by match alone");
        return false;
    }
    if (any || strcmp(spec, "off") == 0) return true;
    for (size_t i = 0; i < SQ_COUNT(ages); i++)
        if (applies(c, ages[i]) && is_on(c, ages[i])) {
            cli_fail_text(c, 2,
                          "--spec %s beside --%s: guesses and tiles that lose bits by age do not go together "
                          "(wanted auto or off)",
                          spec, cli_options[ages[i]].name);
            return false;
        }
    return true;
}

int cli_parse(cli *c, int argc, char **argv) {
    for (int i = 0; i < OPT_COUNT; i++) {
        const char *initial = cli_options[i].initial;
        c->values[i] = (cli_value){.text = *initial ? initial : NULL};
    }
    if (!from_file(c, argc, argv)) return 2;
    if (!from_environment(c)) return 2;
    bool only_args = false;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i];
        bool ok = true;
        if (!only_args && strcmp(a, "--") == 0)
            only_args = true;
        else if (!only_args && a[0] == '-' && a[1] == '-')
            ok = long_option(c, argc, argv, &i);
        else if (!only_args && a[0] == '-' && a[1])
            ok = short_option(c, argc, argv, &i);
        else if (c->n_args < CLI_ARGS_MAX)
            c->args[c->n_args++] = a;
        else
            ok = false, cli_fail_text(c, 2, "more than %d arguments", CLI_ARGS_MAX);
        if (!ok) return 2;
    }
    if (!flags_have_their_flag(c) || !sizes_are_sizes(c) || !guesses_go_together(c)) return 2;
    /* The library looks for tiers in the home folder by itself. */
    if (cli_home(c)) setenv("SQUISH_HOME", cli_home(c), 1);
    return 0;
}

/* ---- reading values -------------------------------------------------------------------------- */

bool cli_has(const cli *c, cli_option_id id) { return c->values[id].text != NULL; }

bool cli_flag(const cli *c, cli_option_id id) {
    const char *t = c->values[id].text;
    return t && word_in("true,1,yes,on", t);
}

int64_t cli_int(const cli *c, cli_option_id id) {
    const char *t = c->values[id].text;
    return t ? strtoll(t, NULL, 10) : 0;
}

double cli_num(const cli *c, cli_option_id id) {
    const char *t = c->values[id].text;
    return t ? strtod(t, NULL) : 0.0;
}

const char *cli_text(const cli *c, cli_option_id id) { return c->values[id].text; }
const char *cli_home(const cli *c) { return c->values[OPT_HOME].text; }

bool cli_home_path(const cli *c, const char *name, char *out, size_t n) {
    const char *home = cli_home(c), *user = getenv("HOME");
    if (!home) home = getenv("SQUISH_HOME");
    if (home && *home) return snprintf(out, n, "%s/%s", home, name) < (int)n;
    return user && *user && snprintf(out, n, "%s/.squish/%s", user, name) < (int)n;
}
