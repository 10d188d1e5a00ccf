/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_config.c - every option: the value in force and where it came from. Takes every option itself, to show
 * its effect. */
#include "cli/cli.h"

#include <string.h>

static const char *origin_name(cli_origin from) {
    switch (from) {
    case CLI_FROM_FLAG: return "flag";
    case CLI_FROM_ENV: return "environment";
    case CLI_FROM_FILE: return "squish.ini";
    default: return "default";
    }
}

static json_t *value_json(const cli *c, cli_option_id id) {
    const cli_value *v = &c->values[id];
    if (cli_options[id].kind == KIND_LIST) {
        json_t *list = json_array();
        for (int i = 0; i < v->n_list; i++) json_array_append_new(list, json_string(v->list[i]));
        return list;
    }
    if (!v->text) return json_null();
    switch (cli_options[id].kind) {
    case KIND_FLAG: return json_boolean(cli_flag(c, id));
    case KIND_INT: return json_integer(cli_int(c, id));
    case KIND_NUM: return json_real(cli_num(c, id));
    default: return json_string(v->text);
    }
}

static int print_json(const cli *c, const char *file, bool present) {
    json_t *all = json_array();
    for (int i = 0; i < OPT_COUNT; i++) {
        char env[64];
        cli_env_name(&cli_options[i], env, sizeof env);
        json_array_append_new(all, json_pack("{s:s, s:o, s:s, s:s}", "name", cli_options[i].name, "value",
                                             value_json(c, (cli_option_id)i), "origin",
                                             origin_name(c->values[i].origin), "environment", env));
    }
    return cli_print_json(
        json_pack("{s:s, s:b, s:o}", "file", file, "file_present", present, "options", all));
}

static void print_row(const cli *c, cli_option_id id) {
    const cli_value *v = &c->values[id];
    char env[64], value[96] = "-";
    cli_env_name(&cli_options[id], env, sizeof env);
    if (v->text)
        snprintf(value, sizeof value, v->n_list > 1 ? "%.40s (and %d more)" : "%.60s", v->text,
                 v->n_list - 1);
    printf("%-22s %-24s %-12s %s\n", cli_options[id].name, value, origin_name(v->origin), env);
}

int cli_config(cli *c) {
    char file[4096] = "";
    if (c->n_args) return cli_fail_text(c, 2, "config takes no arguments, only options");
    const bool present = cli_home_path(c, "squish.ini", file, sizeof file) && sq_os_exists(file);
    if (cli_flag(c, OPT_JSON)) return print_json(c, file, present);
    printf("%-22s %-24s %-12s %s\n", "option", "value", "from", "environment");
    for (int i = 0; i < OPT_COUNT; i++) print_row(c, (cli_option_id)i);
    printf("\n%s%s\n- : the model or the command decides\n",
           *file ? file : "squish.ini: neither SQUISH_HOME nor HOME is set",
           !*file || present ? "" : " (not there)");
    return 0;
}
