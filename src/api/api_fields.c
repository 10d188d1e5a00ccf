/* SPDX-License-Identifier: Apache-2.0
 *
 * api_fields.c - what stands in a request, typed and within its range, or a 400 that says what was found.
 *
 * One table holds the numeric fields that all dialects share, with type, range and place. Unknown fields are
 * ignored: clients send more than they need. Absent and null are the same. */
#include "api/api_int.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { STOP_BYTES_MAX = 256, TOKENS_MAX = 1 << 24 };
#define SPEC_WANTED "auto, off, ngram, heads, draft or skip"

/* ---- saying what was found ------------------------------------------------------------------- */

/* "the string 'abc'", "4097", "an array". */
static const char *found(const json_t *v, char *out, size_t n) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: {
        const char *s = json_string_value(v);
        size_t len = strnlen(s, 40);
        len -= sq_utf8_pending(s, len);
        snprintf(out, n, "the string '%.*s'%s", (int)len, s, s[len] ? "..." : "");
        return out;
    }
    case JSON_INTEGER: snprintf(out, n, "%lld", (long long)json_integer_value(v)); return out;
    case JSON_REAL: snprintf(out, n, "%.17g", json_real_value(v)); return out;
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: break;
    }
    return "null";
}

static bool wrong(sq_api_error *e, const char *code, const json_t *v, const char *path, const char *name,
                  const char *wanted) {
    char full[128], what[160];
    snprintf(full, sizeof full, "%s%s", path, name);
    return sq_api_refuse(e, 400, code, full, "'%s' is %s, wanted %s", full, found(v, what, sizeof what),
                         wanted);
}

/* NULL: absent, or null. */
static const json_t *value_of(const json_t *o, const char *name) {
    const json_t *v = json_object_get(o, name);
    return json_is_null(v) ? NULL : v;
}

/* ---- single fields --------------------------------------------------------------------------- */

bool sq_api_get_int(sq_api_error *e, const json_t *o, const char *path, const char *name, int64_t lo,
                    int64_t hi, int64_t *out) {
    const json_t *v = value_of(o, name);
    if (!v) return true;
    char wanted[96];
    snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)lo, (long long)hi);
    /* Some clients write every number as a float: 16.0 is an integer. */
    const double d = json_is_number(v) ? json_number_value(v) : NAN;
    if (!json_is_number(v) || (json_is_real(v) && d != floor(d)))
        return wrong(e, "invalid_type", v, path, name, wanted);
    if (json_is_real(v) && (d < -0x1p63 || d >= 0x1p63))
        return wrong(e, "invalid_value", v, path, name, wanted);
    const int64_t i = json_is_integer(v) ? (int64_t)json_integer_value(v) : (int64_t)d;
    if (i < lo || i > hi) return wrong(e, "invalid_value", v, path, name, wanted);
    *out = i;
    return true;
}

bool sq_api_get_num(sq_api_error *e, const json_t *o, const char *path, const char *name, double lo,
                    double hi, double *out) {
    const json_t *v = value_of(o, name);
    if (!v) return true;
    char wanted[96];
    snprintf(wanted, sizeof wanted, "a number from %g to %g", lo, hi);
    if (!json_is_number(v)) return wrong(e, "invalid_type", v, path, name, wanted);
    const double d = json_number_value(v);
    if (!(d >= lo && d <= hi)) return wrong(e, "invalid_value", v, path, name, wanted);
    *out = d;
    return true;
}

bool sq_api_get_bool(sq_api_error *e, const json_t *o, const char *path, const char *name, bool *out) {
    const json_t *v = value_of(o, name);
    if (!v) return true;
    if (!json_is_boolean(v)) return wrong(e, "invalid_type", v, path, name, "true or false");
    *out = json_is_true(v);
    return true;
}

bool sq_api_get_text(sq_api_error *e, const json_t *o, const char *path, const char *name, const char **out) {
    const json_t *v = value_of(o, name);
    if (!v) return true;
    if (!json_is_string(v)) return wrong(e, "invalid_type", v, path, name, "a string");
    *out = json_string_value(v);
    return true;
}

/* ---- the table ------------------------------------------------------------------------------- */

typedef enum { TO_F32, TO_I32, TO_I64, TO_BOOL } target;
#define IN_GEN(member) offsetof(squish_gen_options, member)

static const struct {
    const char *name;
    target to;
    double lo, hi;
    size_t at;
} table[SQ_API_FIELDS] = {
    [SQ_API_TEMPERATURE] = {"temperature", TO_F32, 0, 5, IN_GEN(sampling.temperature)},
    [SQ_API_TOP_P] = {"top_p", TO_F32, 0, 1, IN_GEN(sampling.top_p)},
    [SQ_API_TOP_K] = {"top_k", TO_I32, -1, TOKENS_MAX, IN_GEN(sampling.top_k)},
    [SQ_API_MIN_P] = {"min_p", TO_F32, 0, 1, IN_GEN(sampling.min_p)},
    [SQ_API_TYPICAL_P] = {"typical_p", TO_F32, 0, 1, IN_GEN(sampling.typical_p)},
    [SQ_API_TOP_N_SIGMA] = {"top_n_sigma", TO_F32, 0, 100, IN_GEN(sampling.top_n_sigma)},
    [SQ_API_XTC_PROBABILITY] = {"xtc_probability", TO_F32, 0, 1, IN_GEN(sampling.xtc_probability)},
    [SQ_API_XTC_THRESHOLD] = {"xtc_threshold", TO_F32, 0, 1, IN_GEN(sampling.xtc_threshold)},
    [SQ_API_REPETITION_PENALTY] = {"repetition_penalty", TO_F32, 0.01, 100,
                                   IN_GEN(sampling.repetition_penalty)},
    [SQ_API_REPEAT_LAST_N] = {"repeat_last_n", TO_I32, -1, TOKENS_MAX, IN_GEN(sampling.repeat_last_n)},
    [SQ_API_FREQUENCY_PENALTY] = {"frequency_penalty", TO_F32, -2, 2, IN_GEN(sampling.frequency_penalty)},
    [SQ_API_PRESENCE_PENALTY] = {"presence_penalty", TO_F32, -2, 2, IN_GEN(sampling.presence_penalty)},
    [SQ_API_DRY_MULTIPLIER] = {"dry_multiplier", TO_F32, 0, 100, IN_GEN(sampling.dry_multiplier)},
    [SQ_API_DRY_BASE] = {"dry_base", TO_F32, 1, 100, IN_GEN(sampling.dry_base)},
    [SQ_API_DRY_ALLOWED_LENGTH] = {"dry_allowed_length", TO_I32, 1, 1000,
                                   IN_GEN(sampling.dry_allowed_length)},
    [SQ_API_DRY_LAST_N] = {"dry_penalty_last_n", TO_I32, -1, TOKENS_MAX, IN_GEN(sampling.dry_last_n)},
    [SQ_API_SEED] = {"seed", TO_I64, -0x1p63, 0x1p63, IN_GEN(sampling.seed)},
    [SQ_API_MAX_TOKENS] = {"max_tokens", TO_I32, -1, TOKENS_MAX, IN_GEN(max_tokens)},
    [SQ_API_MIN_TOKENS] = {"min_tokens", TO_I32, 0, TOKENS_MAX, IN_GEN(min_tokens)},
    [SQ_API_IGNORE_EOS] = {"ignore_eos", TO_BOOL, 0, 1, IN_GEN(ignore_eos)},
    [SQ_API_INCLUDE_STOP] = {"include_stop_str_in_output", TO_BOOL, 0, 1, IN_GEN(include_stop)},
};

bool sq_api_get_field(sq_api_call *c, const json_t *o, const char *path, const char *name, sq_api_field f) {
    if (!value_of(o, name)) return true;
    char *at = (char *)&c->wish.gen + table[f].at;
    const double lo = table[f].lo, hi = table[f].hi;
    double d = 0;
    int64_t i = 0;
    bool ok = false;
    switch (table[f].to) {
    case TO_F32:
        ok = sq_api_get_num(&c->error, o, path, name, lo, hi, &d);
        if (ok) *(float *)at = (float)d;
        break;
    case TO_I32:
        ok = sq_api_get_int(&c->error, o, path, name, (int64_t)lo, (int64_t)hi, &i);
        if (ok) *(int32_t *)at = (int32_t)i;
        break;
    case TO_I64:
        ok = sq_api_get_int(&c->error, o, path, name, INT64_MIN, INT64_MAX, &i);
        if (ok) *(int64_t *)at = i;
        break;
    case TO_BOOL: ok = sq_api_get_bool(&c->error, o, path, name, (bool *)at); break;
    }
    if (ok) c->wish.set |= 1u << f;
    return ok;
}

void sq_api_lay_sampling(squish_gen_options *onto, const squish_gen_options *from, uint32_t set) {
    static const size_t bytes[] = {[TO_F32] = 4, [TO_I32] = 4, [TO_I64] = 8, [TO_BOOL] = sizeof(bool)};
    for (int f = 0; f < SQ_API_FIELDS; f++)
        if (set >> f & 1)
            memcpy((char *)onto + table[f].at, (const char *)from + table[f].at, bytes[table[f].to]);
}

/* ---- lists ----------------------------------------------------------------------------------- */

static bool one_stop(sq_api_call *c, const json_t *v, const char *path, const char *name, const char **out) {
    static const char wanted[] = "a string of 1 to 256 bytes";
    if (!json_is_string(v)) return wrong(&c->error, "invalid_type", v, path, name, wanted);
    const char *s = json_string_value(v);
    const size_t n = json_string_length(v);
    if (n < 1 || n > STOP_BYTES_MAX || strlen(s) != n)
        return wrong(&c->error, "invalid_value", v, path, name, wanted);
    *out = s;
    return true;
}

bool sq_api_get_stops(sq_api_call *c, const json_t *o, const char *path, const char *name) {
    const json_t *v = value_of(o, name);
    if (!v) return true;
    const bool list = json_is_array(v);
    const size_t n = list ? json_array_size(v) : 1;
    if (n > SQ_API_STOPS_MAX)
        return sq_api_refuse(&c->error, 400, "invalid_value", name, "'%s%s' has %zu entries, at most %d",
                             path, name, n, SQ_API_STOPS_MAX);
    const char **stops = SQ_ARENA_ARRAY(&c->arena, const char *, n + 1);
    if (!stops)
        return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    for (size_t i = 0; i < n; i++)
        if (!one_stop(c, list ? json_array_get(v, i) : v, path, name, &stops[i])) return false;
    c->wish.gen.stop = stops;
    c->wish.gen.n_stop = (int32_t)n;
    return true;
}

/* {"50256": -100}: ids are checked against the vocabulary where the answer is made. */
static bool get_bias(sq_api_call *c, const json_t *o) {
    const json_t *v = value_of(o, "logit_bias");
    if (!v) return true;
    if (!json_is_object(v)) return wrong(&c->error, "invalid_type", v, "", "logit_bias", "an object");
    const size_t n = json_object_size(v);
    if (n > SQ_API_BIAS_MAX)
        return sq_api_refuse(&c->error, 400, "invalid_value", "logit_bias",
                             "'logit_bias' has %zu entries, at most %d", n, SQ_API_BIAS_MAX);
    int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, n + 1);
    float *values = SQ_ARENA_ARRAY(&c->arena, float, n + 1);
    if (!ids || !values)
        return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    size_t i = 0;
    const char *key;
    json_t *bias;
    json_object_foreach((json_t *)v, key, bias) {
        const size_t digits = strspn(key, "0123456789");
        if (digits == 0 || digits > 9 || key[digits])
            return sq_api_refuse(&c->error, 400, "invalid_value", "logit_bias",
                                 "'logit_bias' has the key '%.40s', wanted a token id", key);
        double d = 0;
        if (json_is_null(bias))
            return wrong(&c->error, "invalid_type", bias, "logit_bias.", key, "a number from -100 to 100");
        if (!sq_api_get_num(&c->error, v, "logit_bias.", key, -100, 100, &d)) return false;
        int32_t id = 0;
        for (size_t k = 0; k < digits; k++) id = id * 10 + (key[k] - '0');
        ids[i] = id;
        values[i++] = (float)d;
    }
    c->wish.gen.sampling.bias_ids = ids;
    c->wish.gen.sampling.bias_values = values;
    c->wish.gen.sampling.n_bias = (int32_t)n;
    return true;
}

/* FNV-1a: a salt tells prefixes apart, it hides nothing. */
static uint64_t hash_text(const char *s) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

bool sq_api_get_spec(sq_api_call *c, const json_t *o, const char *path) {
    const char *name = NULL;
    if (!sq_api_get_text(&c->error, o, path, "spec", &name)) return false;
    c->wish.spec_set = name != NULL;
    if (name && !squish_spec_from_name(name, &c->wish.gen.spec.mode))
        return wrong(&c->error, "invalid_value", json_object_get(o, "spec"), path, "spec", SPEC_WANTED);
    name = NULL;
    if (!sq_api_get_text(&c->error, o, path, "spec_accept", &name)) return false;
    c->wish.accept_set = name != NULL;
    if (!name || squish_spec_accept_from_name(name, &c->wish.gen.spec.accept)) return true;
    return wrong(&c->error, "invalid_value", json_object_get(o, "spec_accept"), path, "spec_accept",
                 "match or ratio");
}

bool sq_api_get_sampling(sq_api_call *c, const json_t *o) {
    for (int f = 0; f < SQ_API_FIELDS; f++)
        if (!sq_api_get_field(c, o, "", table[f].name, (sq_api_field)f)) return false;
    int64_t priority = 0;
    const char *salt = NULL;
    if (!sq_api_get_stops(c, o, "", "stop") || !get_bias(c, o) ||
        !sq_api_get_int(&c->error, o, "", "priority", -2, 2, &priority) ||
        !sq_api_get_text(&c->error, o, "", "cache_salt", &salt) || !sq_api_get_spec(c, o, ""))
        return false;
    c->wish.priority = (int32_t)priority;
    if (salt && *salt) c->wish.salt = hash_text(salt) | 1;
    return true;
}

/* ---- prompts and messages -------------------------------------------------------------------- */

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

static bool take_ids(sq_api_call *c, const json_t *list, const char *name, sq_api_input *in) {
    const size_t n = json_array_size(list);
    if (n == 0) return sq_api_refuse(&c->error, 400, "invalid_value", name, "'%s' has no tokens", name);
    int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, n);
    if (!ids) return no_memory(c);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX) {
            char at[96];
            snprintf(at, sizeof at, "%.60s[%zu]", name, i);
            return wrong(&c->error, json_is_integer(v) ? "invalid_value" : "invalid_type", v, "", at,
                         "a token id");
        }
        ids[i] = (int32_t)id;
    }
    *in = (sq_api_input){.ids = ids, .n_ids = n};
    return true;
}

static bool take_input(sq_api_call *c, const json_t *v, const char *name, sq_api_input *in) {
    if (json_is_string(v)) {
        *in = (sq_api_input){.text = json_string_value(v), .bytes = json_string_length(v)};
        return true;
    }
    if (json_is_array(v)) return take_ids(c, v, name, in);
    return wrong(&c->error, "invalid_type", v, "", name,
                 "a string, an array of strings, of token ids, or of arrays of token ids");
}

bool sq_api_get_inputs(sq_api_call *c, const json_t *o, const char *name) {
    const json_t *v = value_of(o, name);
    if (!v) return sq_api_refuse(&c->error, 400, "missing_required_parameter", name, "'%s' is missing", name);
    const bool many = json_is_array(v) && !json_is_number(json_array_get(v, 0));
    const size_t n = many ? json_array_size(v) : 1;
    if (n < 1 || n > SQ_API_PROMPTS_MAX)
        return sq_api_refuse(&c->error, 400, "invalid_value", name, "'%s' has %zu entries, wanted 1 to %d",
                             name, n, SQ_API_PROMPTS_MAX);
    sq_api_input *in = SQ_ARENA_ARRAY(&c->arena, sq_api_input, n);
    if (!in) return no_memory(c);
    for (size_t i = 0; i < n; i++)
        if (!take_input(c, many ? json_array_get(v, i) : v, name, &in[i])) return false;
    c->wish.inputs = in;
    c->wish.n_inputs = n;
    return true;
}

/* Parts of text joined as they are. "input_text" and "output_text" are the words of /v1/responses. */
static json_t *join_parts(sq_api_call *c, const json_t *parts, const char *at) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, 32 << 20);
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(parts); i++) {
        const json_t *p = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(p, "type"));
        const json_t *text = json_object_get(p, "text");
        char where[128];
        snprintf(where, sizeof where, "%.80s[%zu]", at, i);
        if (json_is_string(p)) {
            ok = sq_buf_append(&b, json_string_value(p), json_string_length(p)) || no_memory(c);
        } else if (type && strcmp(type, "text") != 0 && strcmp(type, "input_text") != 0 &&
                   strcmp(type, "output_text") != 0) {
            ok = sq_api_refuse(&c->error, 400, "unsupported_parameter", where,
                               "'%s' is a part of type '%.40s': this model reads text only", where, type);
        } else if (!json_is_string(text)) {
            ok = sq_api_refuse(&c->error, 400, "invalid_type", where, "'%s' has no 'text' that is a string",
                               where);
        } else {
            ok = sq_buf_append(&b, json_string_value(text), json_string_length(text)) || no_memory(c);
        }
    }
    json_t *out = ok ? json_stringn(b.data ? b.data : "", b.len) : NULL;
    sq_buf_deinit(&b);
    if (ok && !out) no_memory(c);
    return out;
}

static const char *role_of(sq_api_call *c, const json_t *m, const char *at) {
    static const char *const roles[] = {"system", "user", "assistant", "tool", "function"};
    const json_t *v = json_object_get(m, "role");
    const char *role = json_string_value(v);
    if (role && strcmp(role, "developer") == 0) return "system";
    for (size_t i = 0; role && i < SQ_COUNT(roles); i++)
        if (strcmp(role, roles[i]) == 0) return role;
    char where[128], what[160];
    snprintf(where, sizeof where, "%.80s.role", at);
    sq_api_refuse(&c->error, 400, role || !v ? "invalid_value" : "invalid_type", where,
                  "'%s' is %s, wanted system, developer, user, assistant or tool", where,
                  v ? found(v, what, sizeof what) : "missing");
    return NULL;
}

static json_t *content_of(sq_api_call *c, const json_t *m, const char *at) {
    const json_t *v = value_of(m, "content");
    char where[128], what[160];
    snprintf(where, sizeof where, "%.80s.content", at);
    if (json_is_string(v)) return json_incref((json_t *)v);
    if (json_is_array(v)) return join_parts(c, v, where);
    if (!v && json_object_get(m, "tool_calls")) return json_string("");
    sq_api_refuse(&c->error, 400, v ? "invalid_type" : "invalid_value", where,
                  "'%s' is %s, wanted a string or an array of parts", where,
                  v ? found(v, what, sizeof what) : "missing");
    return NULL;
}

/* Templates know the one name, some clients say the other. false: no memory. */
static bool rename_member(json_t *o, const char *from, const char *to) {
    json_t *v = json_object_get(o, from);
    if (!json_is_string(v) || json_object_get(o, to)) return true;
    return json_object_set(o, to, v) == 0;
}

static bool one_message(sq_api_call *c, const json_t *m, const char *at, json_t *list) {
    char what[160];
    if (!json_is_object(m))
        return sq_api_refuse(&c->error, 400, "invalid_type", at, "'%s' is %s, wanted an object", at,
                             found(m, what, sizeof what));
    const char *role = role_of(c, m, at);
    json_t *content = role ? content_of(c, m, at) : NULL;
    if (!content) return c->error.status ? false : no_memory(c);
    json_t *copy =
        json_copy((json_t *)m); /* keeps what templates read: name, tool_calls, reasoning_content */
    const bool set = json_object_set_new(copy, "content", content) == 0 &&
                     json_object_set_new(copy, "role", json_string(role)) == 0;
    const bool ok = set && rename_member(copy, "thinking", "reasoning_content") &&
                    rename_member(copy, "reasoning", "reasoning_content") &&
                    rename_member(copy, "tool_name", "name") && sq_api_settle_calls(c, copy, at);
    if (ok) return json_array_append_new(list, copy) == 0 || no_memory(c);
    json_decref(copy);
    return no_memory(c);
}

bool sq_api_read_messages(sq_api_call *c, const json_t *messages, const char *path, json_t **out) {
    *out = NULL;
    char what[160];
    if (!messages || json_is_null(messages))
        return sq_api_refuse(&c->error, 400, "missing_required_parameter", path, "'%s' is missing", path);
    if (!json_is_array(messages))
        return sq_api_refuse(&c->error, 400, "invalid_type", path, "'%s' is %s, wanted an array", path,
                             found(messages, what, sizeof what));
    if (json_array_size(messages) == 0)
        return sq_api_refuse(&c->error, 400, "invalid_value", path, "'%s' is empty", path);
    json_t *list = json_array();
    if (!list) return no_memory(c);
    for (size_t i = 0; i < json_array_size(messages); i++) {
        char at[96];
        snprintf(at, sizeof at, "%.60s[%zu]", path, i);
        if (!one_message(c, json_array_get(messages, i), at, list)) {
            json_decref(list);
            return false;
        }
    }
    *out = list;
    return true;
}
