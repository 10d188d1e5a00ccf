/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_tags.c - the other direction: what a model may write, so that what it writes can be read.
 *
 *   [thoughts] text [block]      block: open call separator call ... close
 *                                call:  begin F middle ARGUMENTS end
 *
 * A style is a row of these strings. Only the arguments are not the same everywhere: JSON for most, pairs
 * k=v for Python, a parameter each for XML. Each way of writing is one that the style's reader reads. */
#include "calls/calls_int.h"

#define BAR "\xEF\xBD\x9C"
#define DOT "\xE2\x96\x81"
#define DS(word) "<" BAR "tool" DOT word BAR ">"

/* Of the tool of that name; loose: its schema need not be kept to in full. */
typedef struct {
    const char *name;
    bool loose;
    const json_t *schema;
} tool_schema;
static json_t *json_arguments(const tool_schema *t);
static json_t *python_arguments(const tool_schema *t);
static json_t *xml_arguments(const tool_schema *t);

typedef struct {
    const char *open, *close;         /* of the block */
    const char *begin, *middle, *end; /* of a call: begin F middle arguments end */
    const char *separator;            /* NULL: one call is all there can be */
    const char *forbidden;            /* what text must not have in it, or it would be read as a call */
    json_t *(*arguments)(const tool_schema *t);
    bool special; /* marks are control tokens in most vocabularies */
} form;

static const form forms[SQ_CALLS_STYLES][2] = {
    [SQ_CALLS_HERMES] = {{"", "", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>",
                          "\n", "<tool_call>", json_arguments, false}},
    [SQ_CALLS_XML] = {{"", "", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>", "\n",
                       "<tool_call>", xml_arguments, false}},
    [SQ_CALLS_LLAMA] = {{"", "", "{\"name\": \"", "\", \"parameters\": ", "}", "; ", "{\"name\": \"",
                         json_arguments, true}},
    [SQ_CALLS_MISTRAL] = {{"[TOOL_CALLS][", "]", "{\"name\": \"", "\", \"arguments\": ", "}", ", ",
                           "[TOOL_CALLS]", json_arguments, true},
                          {"", "", "[TOOL_CALLS]", "[ARGS]", "", "", "[TOOL_CALLS]", json_arguments, true}},
    [SQ_CALLS_DEEPSEEK] = {{DS("calls" DOT "begin"), DS("calls" DOT "end"),
                            DS("call" DOT "begin") "function" DS("sep"), "\n```json\n",
                            "\n```" DS("call" DOT "end"), "\n", DS("calls" DOT "begin"), json_arguments,
                            true},
                           {DS("calls" DOT "begin"), DS("calls" DOT "end"), DS("call" DOT "begin"), DS("sep"),
                            DS("call" DOT "end"), "", DS("calls" DOT "begin"), json_arguments, true}},
    [SQ_CALLS_PYTHON] = {{"[", "]", "", "(", ")", ", ", NULL, python_arguments, false},
                         {"<|tool_call_start|>[", "]<|tool_call_end|>", "", "(", ")", ", ",
                          "<|tool_call_start|>", python_arguments, true}},
    [SQ_CALLS_HARMONY] = {{"", "", "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "",
                           NULL, NULL, json_arguments, true}},
};

static const form *form_of(const sq_calls_manner *m) {
    const form *f = &forms[m->style][m->named];
    return f->arguments ? f : &forms[m->style][0];
}

bool sq_calls_needs_special(const sq_calls_manner *m) { return form_of(m)->special; }

/* ---- elements -------------------------------------------------------------------------------- */

static json_t *constant(const char *s) { return json_pack("{s:s, s:s}", "type", "const_string", "value", s); }
static json_t *of(const char *type, json_t *content) {
    return json_pack("{s:s, s:o}", "type", type, "content", content);
}
static json_t *list_of(const char *type, json_t *elements) {
    return json_pack("{s:s, s:o}", "type", type, "elements", elements);
}
static json_t *two(const char *type, json_t *a, json_t *b) {
    return list_of(type, json_pack("[o, o]", a, b));
}
static json_t *tag(const char *begin, json_t *content, const char *end) {
    return json_pack("{s:s, s:s, s:o, s:s}", "type", "tag", "begin", begin, "content", content, "end", end);
}
static json_t *any_text(const char *excluded) {
    return excluded && *excluded ? json_pack("{s:s, s:[s]}", "type", "any_text", "excludes", excluded)
                                 : json_pack("{s:s}", "type", "any_text");
}

/* A value of the tool's schema, or of a part of it. */
static json_t *value_of(const tool_schema *t, const json_t *schema) {
    json_t *e = json_pack("{s:s, s:O}", "type", "json_schema", "json_schema", schema);
    if (t->loose) json_object_set_new(e, "relax", json_string(t->name));
    return e;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static json_t *json_arguments(const tool_schema *t) { return value_of(t, t->schema); }

static bool is_required(const json_t *schema, const char *key) {
    const json_t *list = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *s = json_string_value(json_array_get(list, i));
        if (s && strcmp(s, key) == 0) return true;
    }
    return false;
}

/* One parameter by its schema, with what stands before it. */
typedef json_t *(*one)(const tool_schema *t, const char *before, const char *key, const json_t *schema);

static json_t *python_one(const tool_schema *t, const char *before, const char *key, const json_t *schema) {
    json_t *name = json_pack("s++", before, key, "=");
    json_t *e = two("sequence", constant(json_string_value(name)), value_of(t, schema));
    json_decref(name);
    return e;
}

/* Text as it stands, unless it is one of some words; anything else as JSON. */
static json_t *xml_value(const tool_schema *t, const json_t *schema) {
    const char *type = json_string_value(json_object_get(schema, "type"));
    const json_t *words = json_object_get(schema, "enum");
    if (!type || strcmp(type, "string") != 0) return value_of(t, schema);
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(words); i++) {
        const char *s = json_string_value(json_array_get(words, i));
        if (s && *s) json_array_append_new(list, constant(s));
    }
    if (json_array_size(list)) return list_of("or", list);
    json_decref(list);
    return any_text(NULL);
}

static json_t *xml_one(const tool_schema *t, const char *before, const char *key, const json_t *schema) {
    json_t *begin = json_pack("s+++", before, "<parameter=", key, ">\n");
    json_t *e = tag(json_string_value(begin), xml_value(t, schema), "\n</parameter>\n");
    json_decref(begin);
    return e;
}

/* Those from the i-th on, in the schema's order: one that is not required may be missing. Needs no separator,
 * or has one in front already. */
static void add_rest(json_t *list, const tool_schema *t, size_t from, const char *separator, one make) {
    const char *key;
    json_t *p;
    size_t i = 0;
    json_object_foreach(json_object_get(t->schema, "properties"), key, p) {
        if (i++ < from) continue;
        json_t *e = make(t, separator, key, p);
        json_array_append_new(list, is_required(t->schema, key) ? e : of("optional", e));
    }
}

static json_t *xml_arguments(const tool_schema *t) {
    json_t *list = json_array();
    add_rest(list, t, 0, "", xml_one);
    return json_array_size(list) ? list_of("sequence", list) : (json_decref(list), constant(""));
}

/* The first one that is there has no comma in front of it: one way for each that could be the first. */
static json_t *python_arguments(const tool_schema *t) {
    json_t *ways = json_array(), *p;
    const char *key;
    size_t i = 0;
    bool done = false;
    json_object_foreach(json_object_get(t->schema, "properties"), key, p) {
        i++;
        if (done) continue;
        json_t *list = json_pack("[o]", python_one(t, "", key, p));
        add_rest(list, t, i, ", ", python_one);
        json_array_append_new(ways, list_of("sequence", list));
        done = is_required(t->schema, key);
    }
    if (!done) json_array_append_new(ways, constant(""));
    return list_of("or", ways);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* An object, whatever the schema leaves open. */
static json_t *schema_of(const json_t *function) {
    const json_t *given = json_object_get(function, "parameters");
    json_t *schema = json_is_object(given) ? json_copy((json_t *)given) : json_object();
    if (!json_object_get(schema, "type")) json_object_set_new(schema, "type", json_string("object"));
    return schema;
}

static json_t *call(const form *f, const json_t *tool) {
    const json_t *function = json_object_get(tool, "function");
    const char *name = json_string_value(json_object_get(function, "name"));
    json_t *begin = json_pack("s++", f->begin, name ? name : "", f->middle), *schema = schema_of(function);
    const tool_schema t = {name ? name : "", !json_is_true(json_object_get(function, "strict")), schema};
    json_t *e = tag(json_string_value(begin), f->arguments(&t), f->end);
    json_decref(begin);
    json_decref(schema);
    return e;
}

static json_t *block(const form *f, const json_t *tools, bool parallel) {
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(tools); i++)
        json_array_append_new(list, call(f, json_array_get(tools, i)));
    json_t *calls = json_pack("{s:s, s:o, s:s, s:b, s:b}", "type", "tags_with_separator", "tags", list,
                              "separator", f->separator ? f->separator : "", "at_least_one", 1,
                              "stop_after_first", !(parallel && f->separator));
    return *f->open ? tag(f->open, calls, f->close) : calls;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* gpt-oss: a message of thoughts, then one to the user or to a tool. The prompt ends behind "assistant". */
static json_t *harmony(json_t *calls, json_t *text, sq_calls_choice choice) {
    json_t *thought = two("sequence", tag("<|channel|>analysis<|message|>", any_text(NULL), "<|end|>"),
                          constant("<|start|>assistant"));
    json_t *said = tag("<|channel|>final<|message|>", text, "");
    json_t *rest = !calls                    ? said
                   : choice == SQ_CALLS_AUTO ? two("or", calls, said)
                                             : (json_decref(said), calls);
    return two("sequence", of("optional", thought), rest);
}

static json_t *after_thoughts(const sq_calls_manner *m, sq_calls_start start, json_t *rest) {
    if (!m->think_open || start == SQ_CALLS_THOUGHT_DONE) return rest;
    json_t *blanks = json_pack("{s:s, s:s}", "type", "regex", "pattern", "[ \\n]{0,8}");
    if (start == SQ_CALLS_THINKS)
        return two("sequence", tag("", any_text(NULL), m->think_close), two("sequence", blanks, rest));
    json_t *thought = two("sequence", tag(m->think_open, any_text(NULL), m->think_close), blanks);
    return two("sequence", of("optional", thought), rest);
}

json_t *sq_calls_tags(const sq_calls_manner *m, sq_calls_start start, const json_t *tools,
                      sq_calls_choice choice, bool parallel, json_t *text) {
    const form *f = form_of(m);
    json_t *calls = choice != SQ_CALLS_FORBIDDEN && f->arguments ? block(f, tools, parallel) : NULL;
    json_t *said = text ? json_incref(text) : any_text(f->forbidden);
    if (m->style == SQ_CALLS_HARMONY) return harmony(calls, said, choice);
    json_t *answer;
    if (!calls) {
        answer = said;
    } else if (choice == SQ_CALLS_REQUIRED) {
        json_decref(said);
        answer = calls;
    } else {
        /* A style whose calls are bare has them at the very start; a text of a form of its own stands alone.
         */
        const bool bare = !f->forbidden || m->style == SQ_CALLS_LLAMA || text;
        answer = bare ? two("or", calls, said) : two("sequence", said, of("optional", calls));
    }
    return after_thoughts(m, start, answer);
}
