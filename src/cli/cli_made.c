/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_made.c - a made model's words and numbers, as options that neither line nor environment gave. */
#include "cli/cli.h"

#include <string.h>

static bool is_free(const cli *c, cli_option_id id) { return c->values[id].origin < CLI_FROM_MADE; }

/* A value as somebody would have typed it, in the arena. False after saying why. */
static bool set_value(cli *c, cli_option_id id, const json_t *v) {
    char text[64];
    if (json_is_integer(v)) snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) snprintf(text, sizeof text, "%.9g", json_real_value(v));
    const char *from = json_is_string(v) ? json_string_value(v) : json_is_number(v) ? text : NULL;
    const char *kept = from ? sq_arena_strndup(&c->arena, from, strlen(from)) : NULL;
    if (kept) return cli_set(c, id, kept, CLI_FROM_MADE);
    cli_fail_text(c, 1, "the model's own %s is neither a text nor a number", cli_options[id].name);
    return false;
}

static bool set_stops(cli *c, const json_t *v) {
    if (!is_free(c, OPT_STOP)) return true;
    if (!json_is_array(v)) return set_value(c, OPT_STOP, v);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!set_value(c, OPT_STOP, json_array_get(v, i))) return false;
    return true;
}

/* Ollama's name of an option; OPT_COUNT: we have none. */
static cli_option_id option_of(const char *parameter) {
    static const struct {
        const char *parameter;
        cli_option_id id;
    } rows[] = {{"temperature", OPT_TEMP},
                {"top_k", OPT_TOP_K},
                {"top_p", OPT_TOP_P},
                {"min_p", OPT_MIN_P},
                {"repeat_penalty", OPT_REPEAT_PENALTY},
                {"repeat_last_n", OPT_REPEAT_LAST_N},
                {"presence_penalty", OPT_PRESENCE},
                {"frequency_penalty", OPT_FREQUENCY},
                {"seed", OPT_SEED},
                {"num_predict", OPT_MAX_TOKENS},
                {"num_ctx", OPT_CTX}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (strcmp(rows[i].parameter, parameter) == 0) return rows[i].id;
    return OPT_COUNT;
}

static bool set_parameters(cli *c, const char *name, json_t *parameters) {
    const char *key;
    json_t *v;
    json_object_foreach(parameters, key, v) {
        const cli_option_id id = option_of(key);
        bool ok = true;
        if (strcmp(key, "stop") == 0) ok = set_stops(c, v);
        else if (id == OPT_COUNT) cli_note(c, "squish: '%.60s' of %s says nothing here", key, name);
        else if (is_free(c, id)) ok = set_value(c, id, v);
        if (!ok) return false;
    }
    return true;
}

static bool take(cli *c, const char *name, const json_t *made) {
    const json_t *system = json_object_get(made, "system");
    const char *source = json_string_value(json_object_get(made, "template"));
    if (source) c->made_template = sq_arena_strndup(&c->arena, source, strlen(source));
    if (json_is_string(system) && is_free(c, OPT_SYSTEM) && !set_value(c, OPT_SYSTEM, system)) return false;
    return set_parameters(c, name, json_object_get(made, "parameters"));
}

int cli_take_made(cli *c, const char *name) {
    squish_text text = {0};
    squish_error err = {0};
    if (!name || (strchr(name, '/') && sq_os_exists(name))) return 0; /* a path stays a path */
    const squish_status st = squish_made_json(cli_home(c), name, &text, &err);
    if (st != SQUISH_OK) return st == SQUISH_NOT_FOUND ? 0 : cli_fail(c, &err);
    json_t *made = json_loadb(text.data, text.bytes, 0, NULL);
    squish_text_free(&text);
    if (!made) return cli_fail_text(c, 5, "%s: out of memory", name);
    const bool ok = take(c, name, made);
    json_decref(made);
    return ok ? 0 : 1;
}

int cli_read_template(cli *c, squish_text *owned, const char **source) {
    *source = c->made_template;
    if (!cli_has(c, OPT_TEMPLATE)) return 0;
    const int code = cli_read(c, cli_text(c, OPT_TEMPLATE), true, owned);
    *source = owned->data;
    return code;
}
