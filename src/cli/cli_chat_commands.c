/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_chat_commands.c - what begins with a slash in a chat. */
#include "cli/cli_chat.h"

#include <stdlib.h>
#include <string.h>

static char *trim(char *s) {
    s += strspn(s, " \t\n");
    size_t n = strlen(s);
    while (n && strchr(" \t\n", s[n - 1])) s[--n] = 0;
    return s;
}

/* ---- /set ------------------------------------------------------------------------------------ */

/* The names are those of the options with _ for -, and this one's common name. */
static const cli_option_id settings[] = {OPT_TEMP,           OPT_TOP_K,         OPT_TOP_P,    OPT_MIN_P,
                                         OPT_REPEAT_PENALTY, OPT_REPEAT_LAST_N, OPT_PRESENCE, OPT_FREQUENCY,
                                         OPT_SEED,           OPT_MAX_TOKENS,    OPT_VERBOSE};

static const char *setting_name(cli_option_id id, char out[32]) {
    snprintf(out, 32, "%s", id == OPT_TEMP ? "temperature" : cli_options[id].name);
    for (char *p = out; *p; p++)
        if (*p == '-') *p = '_';
    return out;
}

static void setting_value(const cli_talk *t, cli_option_id id, char out[48]) {
    const squish_sampling *s = &t->s.sampling;
    switch (id) {
    case OPT_TEMP: snprintf(out, 48, "%g", (double)s->temperature); break;
    case OPT_TOP_K: snprintf(out, 48, "%d", s->top_k); break;
    case OPT_TOP_P: snprintf(out, 48, "%g", (double)s->top_p); break;
    case OPT_MIN_P: snprintf(out, 48, "%g", (double)s->min_p); break;
    case OPT_REPEAT_PENALTY: snprintf(out, 48, "%g", (double)s->repetition_penalty); break;
    case OPT_VERBOSE: snprintf(out, 48, "%s", cli_flag(t->c, id) ? "true" : "false"); break;
    default: snprintf(out, 48, "%.40s", cli_text(t->c, id)); break; /* options with a default of their own */
    }
}

static void list_settings(const cli_talk *t) {
    for (size_t i = 0; i < SQ_COUNT(settings); i++) {
        const cli_option *o = &cli_options[settings[i]];
        char name[32], value[48];
        setting_value(t, settings[i], value);
        printf("%-18s %-10s %s\n", setting_name(settings[i], name), value, o->help);
    }
}

/* The setting called `name`, or -1 after naming the nearest. */
static int find_setting(const cli_talk *t, const char *name) {
    char own[32], wanted[64], near[32] = "";
    int best = 4;
    snprintf(wanted, sizeof wanted, "%.60s", strcmp(name, "temp") == 0 ? "temperature" : name);
    for (char *p = wanted; *p; p++)
        if (*p == '-') *p = '_';
    for (size_t i = 0; i < SQ_COUNT(settings); i++) {
        const int d = sq_edit_distance(wanted, setting_name(settings[i], own));
        if (d == 0) return (int)settings[i];
        if (d < best) best = d, snprintf(near, sizeof near, "%s", own);
    }
    if (*near) cli_fail_text(t->c, 2, "no setting '%.60s' (did you mean %s?)", name, near);
    else cli_fail_text(t->c, 2, "no setting '%.60s' (/set lists them)", name);
    return -1;
}

static bool run_set(cli_talk *t, char *rest) {
    char why[160], name[32], value[48];
    if (!*rest) {
        list_settings(t);
        return true;
    }
    char *text = rest + strcspn(rest, " \t=");
    if (*text) *text++ = 0;
    text = trim(text + strspn(text, " \t="));
    const int id = find_setting(t, rest);
    if (id < 0) return true;
    if (!*text) {
        setting_value(t, (cli_option_id)id, value);
        printf("%s %s\n", setting_name((cli_option_id)id, name), value);
    } else if (!cli_value_ok(&cli_options[id], text, why, sizeof why)) {
        cli_fail_text(t->c, 2, "%s: '%.60s' is not %s", setting_name((cli_option_id)id, name), text, why);
    } else {
        const char *kept = sq_arena_strndup(&t->c->arena, text, strlen(text));
        if (kept && cli_set(t->c, (cli_option_id)id, kept, CLI_FROM_FLAG))
            cli_apply_sampling(t->c, &t->s.sampling);
    }
    return true;
}

/* ---- the conversation ------------------------------------------------------------------------ */

static json_t *system_message(const cli_talk *t) {
    json_t *first = json_array_get(t->messages, 0);
    return first && strcmp(json_string_value(json_object_get(first, "role")), "system") == 0 ? first : NULL;
}

static bool run_system(cli_talk *t, char *rest) {
    json_t *now = system_message(t);
    if (!*rest) {
        if (now) cli_put_text(stdout, json_string_value(json_object_get(now, "content")),
                              json_string_length(json_object_get(now, "content"))), putchar('\n');
        else puts("no system message (/system TEXT sets one)");
    } else if (strcmp(rest, "\"\"") == 0) {
        if (now) json_array_remove(t->messages, 0);
    } else if (!sq_utf8_valid(rest, strlen(rest))) {
        cli_fail_text(t->c, 1, "the system message is not UTF-8 text");
    } else if (now) {
        json_object_set_new(now, "content", json_string(rest));
    } else {
        json_array_insert_new(t->messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", rest));
    }
    return true;
}

static bool run_clear(cli_talk *t, char *rest) {
    (void)rest;
    json_t *system = json_incref(system_message(t));
    json_array_clear(t->messages);
    if (system) json_array_append_new(t->messages, system);
    squish_seq_truncate(t->s.seq, 0);
    return true;
}

static bool run_regen(cli_talk *t, char *rest) {
    (void)rest;
    json_t *answer = json_incref(cli_talk_last(t, "assistant"));
    if (!answer) {
        cli_fail_text(t->c, 2, "there is no answer to make again");
        return true;
    }
    cli_talk_drop_last(t);
    if (!cli_talk_answer(t)) json_array_append(t->messages, answer); /* the old one stays */
    json_decref(answer);
    return true;
}

static bool run_stats(cli_talk *t, char *rest) {
    (void)rest;
    squish_engine_info e;
    char bytes[32];
    squish_engine_get_info(t->s.engine, &e);
    if (t->has_stats) {
        const squish_gen_stats *s = &t->stats;
        printf("last prompt    %d tokens, %d of them reused, %.0f tokens a second\n", s->prompt_tokens,
               s->reused_tokens, s->prefill_tok_s);
        printf("last answer    %d tokens, first after %.1f ms, %.1f tokens a second, seed %lld\n",
               s->completion_tokens, s->ttft_ms, s->decode_tok_s, (long long)s->seed);
    }
    printf("context        %d of %d tokens, %s\n", squish_seq_length(t->s.seq), e.ctx_tokens,
           cli_bytes(e.kv_bytes_now, bytes));
    printf("messages       %zu\n", json_array_size(t->messages));
    printf("engine         %s, %d threads, tier %s\n", e.isa, e.threads, t->s.info.tier);
    return true;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* "~/x" as shells read it. */
static bool expand(const cli_talk *t, const char *file, char *out, size_t n) {
    const char *home = getenv("HOME");
    const bool tilde = file[0] == '~' && file[1] == '/' && home;
    if (!*file) cli_fail_text(t->c, 2, "the name of a file is wanted");
    else if (snprintf(out, n, "%s%s", tilde ? home : "", tilde ? file + 1 : file) >= (int)n)
        cli_fail_text(t->c, 2, "the name is too long");
    else return true;
    return false;
}

static bool is_message(const json_t *m) {
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const char *role = json_string_value(json_object_get(m, "role"));
    for (size_t i = 0; role && i < SQ_COUNT(roles); i++)
        if (strcmp(role, roles[i]) == 0) return json_is_string(json_object_get(m, "content"));
    return false;
}

/* Messages of a file; NULL with the reason in why [n]. */
static json_t *read_messages(const char *path, char *why, size_t n) {
    json_error_t e;
    json_t *all = json_load_file(path, JSON_REJECT_DUPLICATES, &e), *m;
    size_t i;
    if (!all) {
        snprintf(why, n, "%.300s: %s", path, e.line > 0 ? "no JSON" : e.text);
        if (e.line > 0) snprintf(why, n, "%.200s: line %d: %s", path, e.line, e.text);
        return NULL;
    }
    bool ok = json_is_array(all);
    if (!ok) snprintf(why, n, "%.300s: not a JSON array of messages", path);
    json_array_foreach(ok ? all : NULL, i, m) {
        if (ok && !is_message(m))
            snprintf(
                why, n,
                "%.200s: message %zu is not {\"role\": system, user, assistant or tool, \"content\": TEXT}",
                path, i),
                ok = false;
    }
    if (ok) return all;
    json_decref(all);
    return NULL;
}

static bool run_save(cli_talk *t, char *rest) {
    char path[4096], why[480];
    squish_error err = {0};
    if (!expand(t, rest, path, sizeof path)) return true;
    json_t *there = sq_os_exists(path) ? read_messages(path, why, sizeof why) : NULL;
    if (sq_os_exists(path) && !there) {
        cli_fail_text(t->c, 1, "%.300s is there and no conversation: choose another name", path);
        return true;
    }
    json_decref(there);
    char *json = json_dumps(t->messages, JSON_INDENT(1));
    const squish_status st = json ? sq_os_write_file(path, json, strlen(json), &err)
                                  : sq_fail(&err, SQUISH_NO_MEMORY, "out of memory");
    free(json); /* jansson's */
    if (st == SQUISH_OK) printf("saved %zu messages to %s\n", json_array_size(t->messages), path);
    else cli_fail(t->c, &err);
    return true;
}

static bool run_load(cli_talk *t, char *rest) {
    char path[4096], why[480];
    if (!expand(t, rest, path, sizeof path)) return true;
    json_t *all = read_messages(path, why, sizeof why);
    if (!all) {
        cli_fail_text(t->c, 1, "%s", why);
        return true;
    }
    json_decref(t->messages);
    t->messages = all;
    printf("loaded %zu messages\n", json_array_size(all));
    return true;
}

/* ---- the table ------------------------------------------------------------------------------- */

static bool run_bye(cli_talk *t, char *rest) {
    (void)t, (void)rest;
    return false;
}

static bool run_help(cli_talk *t, char *rest) {
    (void)t, (void)rest;
    for (int i = 0; i < CLI_CHAT_COMMANDS; i++) {
        char what[64];
        snprintf(what, sizeof what, "/%s %s", cli_chat_commands[i].name, cli_chat_commands[i].args);
        printf("%-20s %s\n", what, cli_chat_commands[i].help);
    }
    puts("\n\"\"\" opens a message of many lines and ends it.\n"
         "Ctrl-C stops an answer or empties the line, Ctrl-D leaves.\n"
         "The up arrow brings earlier lines, Ctrl-R searches them.");
    return true;
}

const cli_chat_command cli_chat_commands[CLI_CHAT_COMMANDS] = {
    {"set", "[NAME VALUE]", "list settings, or change one, such as: /set temperature 0.2", run_set},
    {"system", "[TEXT]", "show or set the system message; \"\" removes it", run_system},
    {"save", "FILE", "write the conversation, a JSON array of messages", run_save},
    {"load", "FILE", "go on with a saved conversation", run_load},
    {"clear", "", "forget the conversation, keep the system message", run_clear},
    {"regen", "", "make the last answer again", run_regen},
    {"stats", "", "times and counts of the last answer, and the context used", run_stats},
    {"help", "", "this list", run_help},
    {"bye", "", "leave, as Ctrl-D does", run_bye},
};

bool cli_chat_command_run(cli_talk *t, char *line) {
    char *name = line + 1, *rest = name + strcspn(name, " \t\n");
    if (*rest) *rest++ = 0;
    rest = trim(rest);
    int best = 4;
    const char *near = NULL;
    for (int i = 0; i < CLI_CHAT_COMMANDS; i++) {
        const int d = sq_edit_distance(name, cli_chat_commands[i].name);
        if (d == 0) return cli_chat_commands[i].run(t, rest);
        if (d < best) best = d, near = cli_chat_commands[i].name;
    }
    if (near) cli_fail_text(t->c, 2, "unknown command /%.40s (did you mean /%s?)", name, near);
    else
        cli_fail_text(
            t->c, 2,
            "unknown command /%.40s (/help lists them; \"\"\" begins a message that starts with a slash)",
            name);
    t->failed = true;
    return true;
}
