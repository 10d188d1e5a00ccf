/* SPDX-License-Identifier: Apache-2.0
 *
 * api_shape.c - what an answer must look like, as the dialects spell it:
 *
 *   OpenAI     response_format {type: text | json_object | json_schema}, in /v1/responses as text.format
 *   vLLM       guided_json, guided_regex, guided_choice, guided_grammar; structured_outputs {json, ...}
 *   llama.cpp  grammar, json_schema; response_format {type: json_object, schema}
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

/* A schema, or (as vLLM's guided_json may be) its text. */
static bool take_schema(sq_api_call *c, const char *field, const json_t *v) {
    if (json_is_string(v))
        return set_shape(c, field, SQUISH_GRAMMAR_SCHEMA, json_string_value(v), json_string_length(v));
    if (!json_is_object(v) && !json_is_boolean(v)) return wrong_type(c, field, "a JSON Schema");
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    const size_t n = text ? strlen(text) : 0;
    const char *kept = text ? sq_arena_strndup(&c->arena, text, n) : NULL;
    free(text);
    return kept ? set_shape(c, field, SQUISH_GRAMMAR_SCHEMA, kept, n) : no_memory(c);
}

static bool take_text(sq_api_call *c, const char *field, const json_t *v, squish_grammar_kind kind) {
    if (!json_is_string(v)) return wrong_type(c, field, "a string");
    return set_shape(c, field, kind, json_string_value(v), json_string_length(v));
}

static bool take_regex(sq_api_call *c, const char *field, const json_t *v) {
    return take_text(c, field, v, SQUISH_GRAMMAR_REGEX);
}

static bool take_grammar(sq_api_call *c, const char *field, const json_t *v) {
    return take_text(c, field, v, SQUISH_GRAMMAR_GBNF);
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

/* An object with a type. OpenAI's chat puts name, schema and strict into "json_schema", its responses beside
 * the type. */
static bool take_format(sq_api_call *c, const char *field, const json_t *v) {
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *inner = json_object_get(v, "json_schema");
    if (!type) return wrong_type(c, field, "an object whose 'type' is text, json_object or json_schema");
    if (strcmp(type, "text") == 0) return true;
    json_t *schema = value_of(inner ? inner : v, "schema");
    if (strcmp(type, "json_object") == 0)
        return schema ? take_schema(c, field, schema) : take_json(c, field, NULL);
    if (strcmp(type, "json_schema") != 0)
        return sq_api_refuse(&c->error, 400, "invalid_value", field,
                             "'%s' is of type '%.40s', wanted text, json_object or json_schema", field, type);
    if (schema) return take_schema(c, field, schema);
    return sq_api_refuse(&c->error, 400, "missing_required_parameter", field, "'%s' has no schema", field);
}

static const struct {
    const char *name;
    bool (*take)(sq_api_call *c, const char *field, const json_t *v);
} fields[] = {{"response_format", take_format}, {"guided_json", take_schema},
              {"guided_regex", take_regex},     {"guided_choice", take_choice},
              {"guided_grammar", take_grammar}, {"grammar", take_grammar},
              {"json_schema", take_schema}},
  outputs[] = {{"json", take_schema},
               {"regex", take_regex},
               {"choice", take_choice},
               {"grammar", take_grammar},
               {"json_object", take_json}};

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

bool sq_api_get_shape(sq_api_call *c, const json_t *body) {
    for (size_t i = 0; i < SQ_COUNT(fields); i++) {
        const json_t *v = value_of(body, fields[i].name);
        if (v && !fields[i].take(c, fields[i].name, v)) return false;
    }
    return take_outputs(c, value_of(body, "structured_outputs"));
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
    if (json_is_object(v)) return take_schema(c, "format", v);
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
    return sq_api_grammar_get(m->grammars, m->model, kind, source, n, out, err) == SQUISH_OK;
}

/* The shape as an element of structural tags; NULL: there is none. */
static json_t *element_of(const sq_api_shape *s) {
    switch (s->kind) {
    case SQUISH_GRAMMAR_REGEX:
        return json_pack("{s:s, s:s%}", "type", "regex", "pattern", s->source, s->bytes);
    case SQUISH_GRAMMAR_GBNF:
        return json_pack("{s:s, s:s%}", "type", "grammar", "grammar", s->source, s->bytes);
    case SQUISH_GRAMMAR_JSON: return json_pack("{s:s}", "type", "json_object");
    default: break;
    }
    return json_pack("{s:s, s:o?}", "type", "json_schema", "json_schema",
                     json_loadb(s->source, s->bytes, JSON_DECODE_ANY, NULL));
}

/* Arguments of a tool that is not strict may be any object, where its schema is beyond the grammar engine. */
static bool relax_tools(sq_api_call *c, json_t *tools) {
    bool relaxed = false;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *f = json_object_get(json_array_get(tools, i), "function");
        char *schema = json_dumps(json_object_get(f, "parameters"), JSON_COMPACT);
        squish_grammar *g = NULL;
        const bool fits = schema && squish_grammar_new(&g, c->model->model, SQUISH_GRAMMAR_SCHEMA, schema,
                                                       strlen(schema), NULL) == SQUISH_OK;
        squish_grammar_free(g);
        free(schema);
        if (fits || json_is_true(json_object_get(f, "strict"))) continue;
        json_object_set_new(f, "parameters", json_pack("{s:s}", "type", "object"));
        const size_t n = strlen(c->relaxed);
        snprintf(c->relaxed + n, sizeof c->relaxed - n, "%s%s", n ? ", " : "",
                 json_string_value(json_object_get(f, "name")));
        relaxed = true;
    }
    return relaxed;
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
    json_t *text = c->wish.shape.field ? element_of(&c->wish.shape) : NULL;
    json_t *offered = sq_api_offered_tools(c), *copy = offered ? json_deep_copy(offered) : NULL;
    bool ok = compile_tags(c, copy, text, &err);
    if (!ok && !c->error.status && err.code == SQUISH_UNSUPPORTED && relax_tools(c, copy)) {
        err = (squish_error){0};
        ok = compile_tags(c, copy, text, &err);
    }
    json_decref(text);
    json_decref(offered);
    json_decref(copy);
    if (!ok && !c->wish.shape.field) c->wish.shape.field = "tools";
    return ok || (c->error.status ? false : refuse(c, &err));
}

static bool make_grammar(sq_api_call *c) {
    const sq_api_shape *s = &c->wish.shape;
    const bool thinks = c->manner.think_open && c->starts != SQ_CALLS_THOUGHT_DONE;
    squish_error err = {0};
    c->wish.gen.special_text =
        (c->wish.tools && sq_calls_needs_special(&c->manner)) || c->manner.style == SQ_CALLS_HARMONY ||
        (c->manner.think_open && c->manner.think_open[0] == '['); /* Magistral's are control tokens */
    if (c->wish.tools || (s->field && (thinks || c->manner.style == SQ_CALLS_HARMONY))) return make_tags(c);
    return !s->field || compile(c, s->kind, s->source, s->bytes, &c->grammar, &err) || refuse(c, &err);
}

bool sq_api_make_grammar(sq_api_call *c) {
    const bool ok = make_grammar(c);
    if (ok && c->grammar) c->wish.gen.grammar = sq_api_grammar_of(c->grammar);
    return ok;
}
