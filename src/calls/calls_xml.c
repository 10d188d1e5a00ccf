/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_xml.c - Qwen3-Coder's way:
 *
 *   <tool_call>
 *   <function=weather>
 *   <parameter=city>
 *   Oslo
 *   </parameter>
 *   </function>
 *   </tool_call>
 *
 * Values are text; what they are is said by the tool's schema: a string is taken as it stands, anything else
 * is read as JSON, and is a string where it is none. A parameter is told once it is whole. */
#include "calls/calls_int.h"

#include <stdlib.h>

enum { HEAD, PARAMETER, VALUE, CLOSE };

static const char *const value_end[] = {"</parameter>", NULL};

/* <function=NAME> */
static calls_answer head(sq_calls *p) {
    calls_reader r = calls_read(p);
    const char *word;
    size_t n;
    calls_blanks(&r);
    calls_answer a = calls_literal(&r, "<function=");
    if (a == CALLS_YES) a = calls_word(&r, &word, &n);
    if (a == CALLS_YES) a = calls_literal(&r, ">");
    if (a != CALLS_YES) return a;
    if (!calls_begin(p, word, n)) return CALLS_NO;
    p->properties = calls_properties(p, word, n);
    calls_consume(p, r.at);
    calls_arguments(p, "{", 1);
    p->depth = 0; /* parameters so far */
    p->stage = PARAMETER;
    return CALLS_YES;
}

static void put_key(sq_calls *p, const char *key, size_t n) {
    json_t *v = json_stringn(key, n);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    if (p->depth++) calls_arguments(p, ",", 1);
    if (text) calls_arguments(p, text, strlen(text));
    calls_arguments(p, ":", 1);
    free(text);
    json_decref(v);
    p->property = json_object_getn(p->properties, key, n);
}

/* <parameter=KEY>, or </function>. */
static calls_answer parameter(sq_calls *p) {
    calls_reader r = calls_read(p);
    const char *key;
    size_t n;
    calls_blanks(&r);
    calls_reader ahead = r;
    calls_answer a = calls_literal(&ahead, "</function>");
    if (a == CALLS_YES) {
        calls_arguments(p, "}", 1);
        calls_consume(p, ahead.at);
        calls_end(p);
        p->stage = CLOSE;
    }
    if (a != CALLS_NO) return a;
    a = calls_literal(&r, "<parameter=");
    if (a == CALLS_YES) a = calls_word(&r, &key, &n);
    if (a == CALLS_YES) a = calls_literal(&r, ">");
    if (a != CALLS_YES) return a;
    put_key(p, key, n);
    calls_consume(p, r.at);
    p->stage = VALUE;
    return CALLS_YES;
}

static bool is_text(const json_t *property) {
    const char *type = json_string_value(json_object_get(property, "type"));
    return !property || (type && strcmp(type, "string") == 0);
}

/* As JSON; NULL: not valid UTF-8, or no memory. */
static char *convert(const json_t *property, const char *s, size_t n) {
    json_t *v = is_text(property) ? NULL : json_loadb(s, n, JSON_DECODE_ANY, NULL);
    if (!v) v = json_stringn(s, n);
    char *text = v ? json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(v);
    return text;
}

/* One new line at either end is the form's. */
static calls_answer value(sq_calls *p) {
    int32_t which;
    const calls_answer a = calls_find(p, value_end, &which);
    if (a == CALLS_MORE) return p->ended ? CALLS_NO : a;
    const char *s = calls_here(p);
    const size_t whole = p->scan - p->at;
    size_t n = whole;
    if (n && *s == '\n') s++, n--;
    if (n && s[n - 1] == '\n') n--;
    char *text = convert(p->property, s, n);
    if (text) calls_arguments(p, text, strlen(text));
    free(text);
    if (!text) return CALLS_NO;
    calls_consume(p, whole + strlen(value_end[0]));
    p->stage = PARAMETER;
    return CALLS_YES;
}

static calls_answer close_call(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    const calls_answer a = calls_literal(&r, "</tool_call>");
    if (a == CALLS_YES) calls_consume(p, r.at);
    return a == CALLS_MORE ? a : CALLS_YES;
}

static calls_answer read_xml(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        const int32_t stage = p->stage;
        if (stage == HEAD) a = head(p);
        if (stage == PARAMETER) a = parameter(p);
        if (stage == VALUE) a = value(p);
        if (stage == CLOSE) return close_call(p);
        if (a != CALLS_YES) return a;
    }
}

const calls_style calls_xml = {.name = "xml", .open = {"<tool_call>"}, .read = read_xml};
