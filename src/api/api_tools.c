/* SPDX-License-Identifier: Apache-2.0
 *
 * api_tools.c - what a request says of tools, in every dialect, into one shape:
 *
 *   wish.tools    [{type: "function", function: {name, description, parameters, strict}}], as templates read
 * them wish.choice   may calls be made, must they, must they not; wish.allowed: of these tools only
 *   wish.parallel several in one answer
 *
 * And what a model was told before, calls of earlier turns with their arguments as objects; and whether it
 * shall think. */
#include "api/api_int.h"
#include "format/json.h"

#include <stdio.h>
#include <string.h>

enum { TOOLS_MAX = 128, NAME_MAX_BYTES = 128 };

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

static bool is_there(const json_t *v) {
    return v && !json_is_null(v) && !(json_is_array(v) && json_array_size(v) == 0);
}

/* ---- tools ----------------------------------------------------------------------------------- */

static bool is_name(const char *s) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:";
    const size_t n = s ? strlen(s) : 0;
    return n >= 1 && n <= NAME_MAX_BYTES && strspn(s, letters) == n;
}

/* One tool; schema: the key of its parameters. */
static bool add_tool(sq_api_call *c, const json_t *function, const char *schema, size_t i) {
    char at[48];
    snprintf(at, sizeof at, "tools[%zu]", i);
    const char *name = json_string_value(json_object_get(function, "name"));
    json_t *parameters = json_object_get(function, schema),
           *description = json_object_get(function, "description");
    if (!is_name(name))
        return sq_api_refuse(&c->error, 400, "invalid_value", at,
                             "'%s' has no name of 1 to %d letters, digits and _ - . :", at, NAME_MAX_BYTES);
    if (is_there(parameters) && !json_is_object(parameters))
        return sq_api_refuse(&c->error, 400, "invalid_type", at, "'%s': '%s' is no JSON Schema", at, schema);
    json_t *f = json_pack("{s:s}", "name", name);
    if (json_is_string(description)) json_object_set(f, "description", description);
    json_object_set_new(f, "parameters",
                        is_there(parameters) ? json_incref(parameters)
                                             : json_pack("{s:s, s:{}}", "type", "object", "properties"));
    if (json_is_true(json_object_get(function, "strict"))) json_object_set_new(f, "strict", json_true());
    json_t *tool = json_pack("{s:s, s:o}", "type", "function", "function", f);
    return (tool && json_array_append_new(c->wish.tools, tool) == 0) || no_memory(c);
}

bool sq_api_get_tools(sq_api_call *c, const json_t *body, bool wrapped, const char *schema) {
    const json_t *list = json_object_get(body, "tools");
    if (!is_there(list)) return true;
    if (!json_is_array(list))
        return sq_api_refuse(&c->error, 400, "invalid_type", "tools", "'tools' is no array");
    if (json_array_size(list) > TOOLS_MAX)
        return sq_api_refuse(&c->error, 400, "invalid_value", "tools", "'tools' has %zu entries, at most %d",
                             json_array_size(list), TOOLS_MAX);
    c->wish.tools = json_array();
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *tool = json_array_get(list, i), *type = json_object_get(tool, "type");
        const char *word = json_string_value(type);
        if (word && strcmp(word, "function") != 0 && strcmp(word, "custom") != 0)
            return sq_api_refuse(&c->error, 400, "unsupported_parameter", "tools",
                                 "'tools[%zu]' is of type '%.40s', wanted function", i, word);
        if (!add_tool(c, wrapped ? json_object_get(tool, "function") : tool, schema, i)) return false;
    }
    return true;
}

/* ---- choice ---------------------------------------------------------------------------------- */

static bool wants_tools(sq_api_call *c) {
    return c->wish.tools || sq_api_refuse(&c->error, 400, "invalid_value", "tool_choice",
                                          "'tool_choice' wants a call, and there are no 'tools'");
}

/* One more tool that may be called. */
static bool allow(sq_api_call *c, json_t *name) {
    if (!c->wish.allowed) c->wish.allowed = json_array();
    return json_array_append(c->wish.allowed, name) == 0 || no_memory(c);
}

/* A tool by its name; false: there is none, and c->error says so. */
static bool knows(sq_api_call *c, const json_t *name) {
    for (size_t i = 0; i < json_array_size(c->wish.tools); i++) {
        const json_t *f = json_object_get(json_array_get(c->wish.tools, i), "function");
        if (json_is_string(name) && json_equal(json_object_get(f, "name"), name)) return true;
    }
    return sq_api_refuse(&c->error, 400, "invalid_value", "tool_choice",
                         "'tool_choice' names '%.100s', which is none of the 'tools'",
                         json_is_string(name) ? json_string_value(name) : "");
}

/* The name of {name} or {function: {name}}. */
static json_t *name_in(const json_t *tool) {
    const json_t *f = json_object_get(tool, "function");
    return json_object_get(f ? f : tool, "name");
}

static bool choose_one(sq_api_call *c, json_t *name) {
    if (!wants_tools(c) || !knows(c, name)) return false;
    c->wish.choice = SQ_CALLS_REQUIRED;
    return allow(c, name);
}

static bool choose(sq_api_call *c, const char *word) {
    static const struct {
        const char *word;
        sq_calls_choice choice;
    } rows[] = {{"auto", SQ_CALLS_AUTO},
                {"none", SQ_CALLS_FORBIDDEN},
                {"required", SQ_CALLS_REQUIRED},
                {"any", SQ_CALLS_REQUIRED}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (strcmp(rows[i].word, word) == 0) {
            c->wish.choice = rows[i].choice;
            return rows[i].choice != SQ_CALLS_REQUIRED || wants_tools(c);
        }
    return sq_api_refuse(&c->error, 400, "invalid_value", "tool_choice",
                         "'tool_choice' is '%.40s', wanted auto, none, required, or the name of a tool",
                         word);
}

/* {mode, tools: [...]}: the others are told to the model and cannot be called. Its fields stand in an object
 * of that name (chat) or beside the type (responses). */
static bool choose_some(sq_api_call *c, const json_t *v) {
    const json_t *inner = json_object_get(v, "allowed_tools"), *o = inner ? inner : v;
    const json_t *list = json_object_get(o, "tools");
    const char *mode = NULL;
    if (!sq_api_get_text(&c->error, o, "tool_choice.", "mode", &mode)) return false;
    if (mode && strcmp(mode, "auto") != 0 && strcmp(mode, "required") != 0)
        return sq_api_refuse(&c->error, 400, "invalid_value", "tool_choice",
                             "'tool_choice.mode' is '%.40s', wanted auto or required", mode);
    if (!json_is_array(list) || json_array_size(list) == 0)
        return sq_api_refuse(&c->error, 400, "invalid_type", "tool_choice",
                             "'tool_choice' allows no tools, wanted a list of some in 'tools'");
    if (!wants_tools(c)) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *name = name_in(json_array_get(list, i));
        if (!knows(c, name) || !allow(c, name)) return false;
    }
    return choose(c, mode ? mode : "auto");
}

bool sq_api_get_tool_choice(sq_api_call *c, const json_t *body) {
    const json_t *v = json_object_get(body, "tool_choice");
    c->wish.parallel = true;
    if (!sq_api_get_bool(&c->error, body, "", "parallel_tool_calls", &c->wish.parallel)) return false;
    if (!is_there(v)) return true;
    if (json_is_string(v)) return choose(c, json_string_value(v));
    const char *type = json_string_value(json_object_get(v, "type"));
    bool alone = !c->wish.parallel;
    if (!sq_api_get_bool(&c->error, v, "tool_choice.", "disable_parallel_tool_use", &alone)) return false;
    c->wish.parallel = !alone;
    if (!type)
        return sq_api_refuse(&c->error, 400, "invalid_type", "tool_choice", "'tool_choice' has no type");
    if (strcmp(type, "allowed_tools") == 0) return choose_some(c, v);
    return strcmp(type, "function") == 0 || strcmp(type, "tool") == 0 ? choose_one(c, name_in(v))
                                                                      : choose(c, type);
}

json_t *sq_api_offered_tools(const sq_api_call *c) {
    if (!c->wish.allowed) return json_incref(c->wish.tools);
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(c->wish.tools); i++) {
        json_t *tool = json_array_get(c->wish.tools, i);
        for (size_t k = 0; k < json_array_size(c->wish.allowed); k++)
            if (json_equal(name_in(tool), json_array_get(c->wish.allowed, k))) {
                json_array_append(list, tool);
                break;
            }
    }
    return list;
}

/* ---- with the model -------------------------------------------------------------------------- */

bool sq_api_find_manner(sq_api_call *c) {
    const char *own = squish_model_template(c->model->model);
    sq_calls_detect(c->wish.template_source ? c->wish.template_source : own, &c->manner);
    if (!c->wish.tools || (c->manner.tools && c->manner.style != SQ_CALLS_NONE)) return true;
    return sq_api_refuse(&c->error, 400, "unsupported_parameter", "tools", "\"%s\" does not support tools%s",
                         c->model_name,
                         c->manner.tools ? ": how it writes calls is not known here"
                                         : ": its chat template says nothing of them");
}

/* ---- earlier turns --------------------------------------------------------------------------- */

/* One call with its arguments as an object, which is what templates take. A new reference. */
static json_t *settled_call(sq_api_call *c, const json_t *call, const char *at) {
    json_t *f = json_object_get(call, "function"), *args = json_object_get(f, "arguments"), *parsed = NULL;
    if (!json_is_object(f) || !json_is_string(json_object_get(f, "name"))) {
        sq_api_refuse(&c->error, 400, "invalid_value", at, "'%s' has no function with a name", at);
        return NULL;
    }
    if (json_is_string(args)) {
        const size_t n = json_string_length(args);
        if (n == 0)
            parsed = json_object();
        else
            sq_json_parse(json_string_value(args), n, SQ_JSON_DEPTH_SCHEMA, "arguments", &parsed, NULL);
    } else if (!is_there(args)) {
        parsed = json_object();
    } else {
        parsed = json_incref(args);
    }
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        sq_api_refuse(&c->error, 400, "invalid_value", at, "'%s': its arguments are no JSON object", at);
        return NULL;
    }
    json_t *copy = json_copy((json_t *)call), *inner = json_copy(f);
    json_object_set_new(inner, "arguments", parsed);
    json_object_set_new(copy, "function", inner);
    if (!json_object_get(copy, "type")) json_object_set_new(copy, "type", json_string("function"));
    return copy;
}

bool sq_api_settle_calls(sq_api_call *c, json_t *message, const char *at) {
    const json_t *calls = json_object_get(message, "tool_calls");
    if (!is_there(calls)) return json_object_del(message, "tool_calls"), true;
    if (!json_is_array(calls))
        return sq_api_refuse(&c->error, 400, "invalid_type", at, "'%s.tool_calls' is no array", at);
    json_t *list = json_array();
    for (size_t i = 0; !c->error.status && i < json_array_size(calls); i++) {
        char where[128];
        snprintf(where, sizeof where, "%.60s.tool_calls[%zu]", at, i);
        json_t *call = settled_call(c, json_array_get(calls, i), where);
        if (call && json_array_append_new(list, call) != 0) no_memory(c);
    }
    if (json_object_set_new(message, "tool_calls", list) != 0) no_memory(c);
    return c->error.status == 0;
}

/* ---- thoughts -------------------------------------------------------------------------------- */

static bool set_var(sq_api_call *c, const char *key, json_t *v) {
    if (!c->wish.template_vars) c->wish.template_vars = json_object();
    return json_object_set_new(c->wish.template_vars, key, v) == 0 || no_memory(c);
}

bool sq_api_set_thinking(sq_api_call *c, bool on) { return set_var(c, "enable_thinking", json_boolean(on)); }

bool sq_api_set_effort(sq_api_call *c, const char *effort) {
    return set_var(c, "reasoning_effort", json_string(effort)) &&
           sq_api_set_thinking(c, strcmp(effort, "none") != 0);
}

bool sq_api_get_think_tokens(sq_api_call *c, const json_t *o, const char *path, const char *name) {
    int64_t n = 0;
    if (!sq_api_get_int(&c->error, o, path, name, 0, 1 << 24, &n)) return false;
    c->wish.think_tokens = (int32_t)n;
    return true;
}
