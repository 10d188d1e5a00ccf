/* SPDX-License-Identifier: Apache-2.0
 *
 * api_shape.c - what an answer must look like, as the dialects spell it:
 *
 *   OpenAI     response_format {type: text | json_object | json_schema}; in /v1/responses text.format
 *   vLLM       guided_json, guided_regex, guided_choice, guided_grammar, structured_outputs {json, ...},
 *              response_format {type: structural_tag}
 *   llama.cpp  grammar, json_schema, response_format {type: json_object, schema}
 *   Ollama     format "json" or a schema
 *   Anthropic  output_format, output_config.format {type: json_schema, schema}
 *
 * All come down to a kind and a source in c->wish.shape. One request has one of them; two are a 400. */
#include "api/api_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

static bool set_shape(sq_api_call *c, const char *field, squish_grammar_kind kind, const char *source,
                      size_t bytes) {
    sq_api_shape *s = &c->wish.shape;
    if (s->field)
        return sq_api_refuse(&c->error, 400, "invalid_value", field,
                             "'%s' and '%s' both say what the answer must look like, wanted one of them",
                             s->field, field);
    *s = (sq_api_shape){.field = field, .kind = kind, .source = source, .bytes = bytes};
    return true;
}

static bool is_there(const json_t *v) { return v && !json_is_null(v); }

/* NULL: absent, null, false, or nothing in it. */
static json_t *value_of(const json_t *o, const char *name) {
    json_t *v = json_object_get(o, name);
    const bool nothing = !v || json_is_null(v) || json_is_false(v) ||
                         (json_is_string(v) && !json_string_length(v)) ||
                         (json_is_array(v) && json_array_size(v) == 0);
    return nothing ? NULL : v;
}

static bool wrong_type(sq_api_call *c, const char *field, const char *wanted) {
    return sq_api_refuse(&c->error, 400, "invalid_type", field, "'%s': wanted %s", field, wanted);
}

/* ---- kinds ----------------------------------------------------------------------------------- */

static bool take_dump(sq_api_call *c, const char *field, const json_t *v, squish_grammar_kind kind) {
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    const size_t n = text ? strlen(text) : 0;
    const char *kept = text ? sq_arena_strndup(&c->arena, text, n) : NULL;
    free(text);
    return kept ? set_shape(c, field, kind, kept, n) : no_memory(c);
}

/* A schema, or (as vLLM's guided_json may be) its text. */
static bool take_schema(sq_api_call *c, const char *field, const json_t *v) {
    if (json_is_string(v))
        return set_shape(c, field, SQUISH_GRAMMAR_SCHEMA, json_string_value(v), json_string_length(v));
    if (!json_is_object(v) && !json_is_boolean(v)) return wrong_type(c, field, "a JSON Schema");
    return take_dump(c, field, v, SQUISH_GRAMMAR_SCHEMA);
}

static bool take_text(sq_api_call *c, const char *field, const json_t *v, squish_grammar_kind kind) {
    if (!json_is_string(v)) return wrong_type(c, field, "a string");
    return set_shape(c, field, kind, json_string_value(v), json_string_length(v));
}

static bool take_regex(sq_api_call *c, const char *field, const json_t *v) {
    return take_text(c, field, v, SQUISH_GRAMMAR_REGEX);
}

static bool take_tags(sq_api_call *c, const char *field, const json_t *v) {
    if (json_is_string(v)) return take_text(c, field, v, SQUISH_GRAMMAR_TAGS);
    return json_is_object(v) ? take_dump(c, field, v, SQUISH_GRAMMAR_TAGS)
                             : wrong_type(c, field, "structural tags");
}

/* The notation by a word, or by what the source looks like. */
static bool take_notation(sq_api_call *c, const char *field, const json_t *source, const json_t *word) {
    static const struct {
        const char *word;
        squish_grammar_kind kind;
    } rows[] = {{"gbnf", SQUISH_GRAMMAR_GBNF},
                {"ebnf", SQUISH_GRAMMAR_EBNF},
                {"lark", SQUISH_GRAMMAR_LARK},
                {"regex", SQUISH_GRAMMAR_REGEX}};
    if (!is_there(word)) return take_text(c, field, source, SQUISH_GRAMMAR_TEXT);
    for (size_t i = 0; i < SQ_COUNT(rows) && json_is_string(word); i++)
        if (strcmp(json_string_value(word), rows[i].word) == 0)
            return take_text(c, field, source, rows[i].kind);
    return sq_api_refuse(&c->error, 400, "invalid_value", field,
                         "'%s.syntax' is '%.40s', wanted gbnf, ebnf, lark or regex", field,
                         json_is_string(word) ? json_string_value(word) : "no string");
}

/* A text, or (as OpenAI has it for tools) {syntax, definition}. */
static bool take_grammar(sq_api_call *c, const char *field, const json_t *v) {
    const json_t *inner = json_object_get(v, "definition");
    if (!json_is_object(v)) return take_notation(c, field, v, NULL);
    return take_notation(c, field, inner ? inner : json_object_get(v, "grammar"),
                         json_object_get(v, "syntax"));
}

static bool take_json(sq_api_call *c, const char *field, const json_t *v) {
    (void)v;
    return set_shape(c, field, SQUISH_GRAMMAR_JSON, "", 0);
}

/* One of some strings, as a regular expression. */
static bool take_choice(sq_api_call *c, const char *field, const json_t *v) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, 1 << 20);
    bool ok = json_is_array(v) || wrong_type(c, field, "an array of strings");
    for (size_t i = 0; ok && i < json_array_size(v); i++) {
        const json_t *word = json_array_get(v, i);
        const char *s = json_string_value(word);
        if (!s) ok = wrong_type(c, field, "an array of strings");
        if (i) sq_buf_putc(&b, '|');
        for (size_t k = 0; ok && k < json_string_length(word); k++) {
            if (strchr("\\^$.|?*+()[]{}/", s[k])) sq_buf_putc(&b, '\\');
            sq_buf_putc(&b, s[k]);
        }
    }
    const char *kept = ok && !b.failed ? sq_arena_strndup(&c->arena, b.data ? b.data : "", b.len) : NULL;
    if (kept)
        ok = set_shape(c, field, SQUISH_GRAMMAR_REGEX, kept, b.len);
    else if (ok)
        ok = b.failed ? sq_api_refuse(&c->error, 400, "invalid_value", field, "'%s' is over 1 MiB", field)
                      : no_memory(c);
    sq_buf_deinit(&b);
    return ok;
}

/* ---- where they stand ------------------------------------------------------------------------ */

/* OpenAI's chat puts name, schema and strict into "json_schema", its responses beside the type. A schema that
 * is not strict is kept to as far as the grammar engine can, and the answer says how far that is. */
static bool take_schema_format(sq_api_call *c, const char *field, const json_t *v) {
    const json_t *inner = json_object_get(v, "json_schema"), *o = inner ? inner : v;
    const json_t *schema = value_of(o, "schema");
    bool strict = false;
    if (!sq_api_get_bool(&c->error, o, "response_format.", "strict", &strict)) return false;
    if (!schema)
        return sq_api_refuse(&c->error, 400, "missing_required_parameter", field, "'%s' has no schema",
                             field);
    return take_schema(c, field, schema) && (c->wish.shape.relaxes = !strict, true);
}

static bool take_object_format(sq_api_call *c, const char *field, const json_t *v) {
    const json_t *schema = value_of(v, "schema");
    return schema ? take_schema(c, field, schema) : take_json(c, field, NULL);
}

static bool take_nothing(sq_api_call *c, const char *field, const json_t *v) {
    (void)c, (void)field, (void)v;
    return true;
}

/* An object with a type. */
static bool take_format(sq_api_call *c, const char *field, const json_t *v) {
    static const struct {
        const char *type;
        bool (*take)(sq_api_call *c, const char *field, const json_t *v);
    } types[] = {{"text", take_nothing},
                 {"json_object", take_object_format},
                 {"json_schema", take_schema_format},
                 {"structural_tag", take_tags},
                 {"grammar", take_grammar}};
    static const char wanted[] = "text, json_object, json_schema, structural_tag or grammar";
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type)
        return sq_api_refuse(&c->error, 400, "invalid_type", field,
                             "'%s': wanted an object whose 'type' is %s", field, wanted);
    for (size_t i = 0; i < SQ_COUNT(types); i++)
        if (strcmp(types[i].type, type) == 0) return types[i].take(c, field, v);
    return sq_api_refuse(&c->error, 400, "invalid_value", field, "'%s' is of type '%.40s', wanted %s", field,
                         type, wanted);
}

static const struct {
    const char *name;
    bool (*take)(sq_api_call *c, const char *field, const json_t *v);
} fields[] = {{"response_format", take_format}, {"guided_json", take_schema},
              {"guided_regex", take_regex},     {"guided_choice", take_choice},
              {"guided_grammar", take_grammar}, {"grammar", take_grammar},
              {"json_schema", take_schema}},
  outputs[] = {{"json", take_schema},     {"regex", take_regex},         {"choice", take_choice},
               {"grammar", take_grammar}, {"structural_tag", take_tags}, {"json_object", take_json}};

static bool take_outputs(sq_api_call *c, const json_t *v) {
    static const char field[] = "structured_outputs";
    if (!v) return true;
    if (!json_is_object(v)) return wrong_type(c, field, "an object");
    for (size_t i = 0; i < SQ_COUNT(outputs); i++) {
        const json_t *inner = value_of(v, outputs[i].name);
        if (inner && !outputs[i].take(c, field, inner)) return false;
    }
    return true;
}

/* How text that is forced is cut into tokens. */
static bool get_jumps(sq_api_call *c, const json_t *body) {
    const char *word = "forced";
    if (!sq_api_get_text(&c->error, body, "", "jump_forward", &word)) return false;
    c->wish.canonical = strcmp(word, "canonical") == 0;
    return c->wish.canonical || strcmp(word, "forced") == 0 ||
           sq_api_refuse(&c->error, 400, "invalid_value", "jump_forward",
                         "'jump_forward' is '%.40s', wanted forced or canonical", word);
}

bool sq_api_get_shape(sq_api_call *c, const json_t *body) {
    for (size_t i = 0; i < SQ_COUNT(fields); i++) {
        const json_t *v = value_of(body, fields[i].name);
        if (v && !fields[i].take(c, fields[i].name, v)) return false;
    }
    return take_outputs(c, value_of(body, "structured_outputs")) && get_jumps(c, body);
}

bool sq_api_get_format(sq_api_call *c, const json_t *o, const char *name, const char *field) {
    const json_t *v = value_of(o, name);
    return !v || take_format(c, field, v);
}

bool sq_api_get_ollama_format(sq_api_call *c, const json_t *body) {
    const json_t *v = value_of(body, "format");
    const char *word = json_string_value(v);
    if (!v) return true;
    if (word && strcmp(word, "json") == 0) return take_json(c, "format", v);
    if (json_is_object(v)) return take_schema(c, "format", v) && (c->wish.shape.relaxes = true);
    return sq_api_refuse(&c->error, 400, "invalid_value", "format",
                         "'format': wanted \"json\" or a JSON Schema");
}

/* ---- with the model -------------------------------------------------------------------------- */

/* A keyword that is not supported is the client's to mend, as a mistake is, and so is a schema beyond a
 * limit. */
static bool refuse(sq_api_call *c, const squish_error *err) {
    if (err->code == SQUISH_NO_MEMORY && strstr(err->text, "out of memory"))
        return sq_api_refuse_lib(&c->error, err);
    const bool schema = c->wish.shape.kind == SQUISH_GRAMMAR_SCHEMA;
    return sq_api_refuse(&c->error, 400, schema ? "invalid_json_schema" : "invalid_grammar",
                         c->wish.shape.field, "%s", err->text);
}

static bool compile(sq_api_call *c, squish_grammar_kind kind, const char *source, size_t n,
                    sq_api_grammar **out, squish_error *err) {
    sq_api_model *m = c->model;
    return sq_api_grammar_get(m->grammars, m->model, kind, c->wish.canonical, source, n, out, err) ==
           SQUISH_OK;
}

/* The shape as an element of structural tags; NULL: no memory. */
static json_t *element_of(const sq_api_shape *s) {
    static const char *const syntax[] = {
        [SQUISH_GRAMMAR_GBNF] = "gbnf", [SQUISH_GRAMMAR_EBNF] = "ebnf", [SQUISH_GRAMMAR_LARK] = "lark"};
    switch (s->kind) {
    case SQUISH_GRAMMAR_REGEX:
        return json_pack("{s:s, s:s%}", "type", "regex", "pattern", s->source, s->bytes);
    case SQUISH_GRAMMAR_TEXT:
        return json_pack("{s:s, s:s%}", "type", "grammar", "grammar", s->source, s->bytes);
    case SQUISH_GRAMMAR_GBNF:
    case SQUISH_GRAMMAR_EBNF:
    case SQUISH_GRAMMAR_LARK:
        return json_pack("{s:s, s:s, s:s%}", "type", "grammar", "syntax", syntax[s->kind], "grammar",
                         s->source, s->bytes);
    case SQUISH_GRAMMAR_JSON: return json_pack("{s:s}", "type", "json_object");
    case SQUISH_GRAMMAR_TAGS: return json_loadb(s->source, s->bytes, 0, NULL);
    default: break;
    }
    json_t *e = json_pack("{s:s, s:o?}", "type", "json_schema", "json_schema",
                          json_loadb(s->source, s->bytes, JSON_DECODE_ANY, NULL));
    if (s->relaxes) json_object_set_new(e, "relax", json_string(""));
    return e;
}

/* One grammar for an answer that begins as the prompt left off, and, where thoughts may be cut, one for what
 * comes behind them. */
static bool compile_tags(sq_api_call *c, const json_t *tools, json_t *text, squish_error *err) {
    const sq_calls_choice choice = c->wish.tools ? c->wish.choice : SQ_CALLS_FORBIDDEN;
    const struct {
        sq_calls_start start;
        sq_api_grammar **out;
    } both[] = {{c->starts, &c->grammar}, {SQ_CALLS_THOUGHT_DONE, &c->behind}};
    bool ok = true;
    for (size_t i = 0; ok && i < (c->wish.think_tokens > 0 ? 2 : 1); i++) {
        json_t *tags = sq_calls_tags(&c->manner, both[i].start, tools, choice, c->wish.parallel, text);
        char *source = tags ? json_dumps(tags, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
        ok =
            source ? compile(c, SQUISH_GRAMMAR_TAGS, source, strlen(source), both[i].out, err) : no_memory(c);
        free(source);
        json_decref(tags);
    }
    return ok;
}

static bool make_tags(sq_api_call *c) {
    squish_error err = {0};
    json_t *text = c->wish.shape.field ? element_of(&c->wish.shape) : NULL, *tools = sq_api_offered_tools(c);
    const bool read = text || !c->wish.shape.field, ok = read && compile_tags(c, tools, text, &err);
    if (!read) sq_fail(&err, SQUISH_INVALID, "'%s' is no JSON object", c->wish.shape.field);
    json_decref(text);
    json_decref(tools);
    if (!ok && !c->wish.shape.field) c->wish.shape.field = "tools";
    return ok || (c->error.status ? false : refuse(c, &err));
}

/* The shape alone; a schema that may be relaxed is, where it must. */
static bool make_shape(sq_api_call *c) {
    const sq_api_shape *s = &c->wish.shape;
    squish_error err = {0};
    if (compile(c, s->kind, s->source, s->bytes, &c->grammar, &err)) return true;
    if (!s->relaxes || err.code != SQUISH_UNSUPPORTED) return refuse(c, &err);
    json_t *element = element_of(s);
    char *source = element ? json_dumps(element, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    err = (squish_error){0};
    const bool ok = source && compile(c, SQUISH_GRAMMAR_TAGS, source, strlen(source), &c->grammar, &err);
    json_decref(element);
    if (!source) return no_memory(c);
    free(source);
    return ok || refuse(c, &err);
}

static bool make_grammar(sq_api_call *c) {
    const sq_api_shape *s = &c->wish.shape;
    const bool thinks = c->manner.think_open && c->starts != SQ_CALLS_THOUGHT_DONE;
    c->wish.gen.special_text =
        s->kind == SQUISH_GRAMMAR_TAGS || (c->wish.tools && sq_calls_needs_special(&c->manner)) ||
        c->manner.style == SQ_CALLS_HARMONY ||
        (c->manner.think_open && c->manner.think_open[0] == '['); /* Magistral's are control tokens */
    if (c->wish.tools || (s->field && (thinks || c->manner.style == SQ_CALLS_HARMONY))) return make_tags(c);
    return !s->field || make_shape(c);
}

bool sq_api_make_grammar(sq_api_call *c) {
    if (!make_grammar(c)) return false;
    if (!c->grammar) return true;
    c->wish.gen.grammar = sq_api_grammar_of(c->grammar);
    c->relaxed = squish_grammar_relaxed(c->wish.gen.grammar);
    if (*c->relaxed && c->wish.shape.relaxes) c->wish.whole_text = true;
    return true;
}

static json_t *verdict(const sq_api_shape *s, const sq_buf *text) {
    squish_schema *schema;
    bool valid = false;
    if (squish_schema_new(&schema, s->source, s->bytes, NULL, NULL) != SQUISH_OK) return json_null();
    const squish_status st =
        squish_schema_validate(schema, sq_api_text_of(text), text->len, NULL, NULL, &valid, NULL);
    squish_schema_free(schema);
    return st == SQUISH_OK ? json_boolean(valid) : st == SQUISH_CORRUPT ? json_false() : json_null();
}

void sq_api_put_verdict(sq_api_call *c, const sq_api_answer *a, json_t *o) {
    if (c->wish.shape.relaxes && c->relaxed && *c->relaxed && !a->uses)
        sq_api_put(c, o, "schema_valid", verdict(&c->wish.shape, &a->text));
}
