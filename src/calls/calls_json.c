/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_json.c - is this still the beginning of a JSON object (RFC 8259)? One byte at a time.
 *
 * Strict, so that arguments which are handed on while they are written are right so far. Bytes above 0x7F are
 * the business of whoever makes the text, which is UTF-8 by then. */
#include "calls/calls_int.h"

enum {
    VALUE,     /* a value must come */
    FIRST,     /* behind '[': a value or ']' */
    KEY,       /* behind ',' in an object: a key */
    FIRST_KEY, /* behind '{': a key or '}' */
    COLON,
    BEHIND, /* behind a value */
    STRING,
    KEY_STRING,
    ESCAPE,
    KEY_ESCAPE,
    HEX,
    KEY_HEX,
    WORD, /* true, false, null */
    MINUS,
    ZERO,
    DIGITS,
    POINT,
    FRACTION,
    EXPONENT, /* behind 'e' */
    SIGN,     /* behind its sign */
    POWER
};

void calls_json_begin(calls_json *j) { *j = (calls_json){.state = VALUE}; }

static bool in_object(const calls_json *j) {
    const int32_t i = j->depth - 1;
    return j->objects[i / 64] >> i % 64 & 1;
}

static calls_answer open_level(calls_json *j, bool object) {
    if (j->depth == CALLS_JSON_DEPTH) return CALLS_NO;
    const uint64_t bit = (uint64_t)1 << j->depth % 64;
    if (object)
        j->objects[j->depth / 64] |= bit;
    else
        j->objects[j->depth / 64] &= ~bit;
    j->depth++;
    j->state = object ? FIRST_KEY : FIRST;
    return CALLS_MORE;
}

static calls_answer close_level(calls_json *j, bool object) {
    if (in_object(j) != object) return CALLS_NO;
    j->depth--;
    j->state = BEHIND;
    return j->depth == 0 ? CALLS_YES : CALLS_MORE;
}

static calls_answer to(calls_json *j, int state) {
    j->state = (uint8_t)state;
    return CALLS_MORE;
}

static calls_answer begin_word(calls_json *j, const char *rest) {
    j->word = rest;
    return to(j, WORD);
}

static calls_answer begin_value(calls_json *j, unsigned char c) {
    if (j->depth == 0 && c != '{') return CALLS_NO;
    switch (c) {
    case '{': return open_level(j, true);
    case '[': return open_level(j, false);
    case '"': return to(j, STRING);
    case 't': return begin_word(j, "rue");
    case 'f': return begin_word(j, "alse");
    case 'n': return begin_word(j, "ull");
    case '-': return to(j, MINUS);
    case '0': return to(j, ZERO);
    default: return c >= '1' && c <= '9' ? to(j, DIGITS) : CALLS_NO;
    }
}

static calls_answer behind(calls_json *j, unsigned char c) {
    if (c == ',') return to(j, in_object(j) ? KEY : VALUE);
    if (c == '}' || c == ']') return close_level(j, c == '}');
    return calls_is_blank((char)c) ? to(j, BEHIND) : CALLS_NO;
}

static bool is_hex(unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Keys and strings have the same states, keys one further on. */
static calls_answer in_string(calls_json *j, unsigned char c) {
    const int key = j->state == KEY_STRING || j->state == KEY_ESCAPE || j->state == KEY_HEX;
    switch (j->state) {
    case STRING:
    case KEY_STRING:
        if (c == '"') return to(j, key ? COLON : BEHIND);
        if (c == '\\') return to(j, ESCAPE + key);
        return c < 0x20 ? CALLS_NO : CALLS_MORE;
    case ESCAPE:
    case KEY_ESCAPE:
        j->digits = 4;
        if (c == 'u') return to(j, HEX + key);
        return c && strchr("\"\\/bfnrt", c) ? to(j, STRING + key) : CALLS_NO;
    default:
        if (!is_hex(c)) return CALLS_NO;
        return --j->digits ? CALLS_MORE : to(j, STRING + key);
    }
}

static calls_answer in_number(calls_json *j, unsigned char c) {
    const bool digit = c >= '0' && c <= '9';
    switch (j->state) {
    case MINUS: return c == '0' ? to(j, ZERO) : digit ? to(j, DIGITS) : CALLS_NO;
    case POINT: return digit ? to(j, FRACTION) : CALLS_NO;
    case EXPONENT: return digit ? to(j, POWER) : c == '+' || c == '-' ? to(j, SIGN) : CALLS_NO;
    case SIGN: return digit ? to(j, POWER) : CALLS_NO;
    case DIGITS:
    case FRACTION:
    case POWER:
        if (digit) return CALLS_MORE;
        break;
    default: break;
    }
    if (c == '.' && (j->state == ZERO || j->state == DIGITS)) return to(j, POINT);
    if ((c == 'e' || c == 'E') && j->state != POWER) return to(j, EXPONENT);
    return behind(j, c);
}

calls_answer calls_json_byte(calls_json *j, unsigned char c) {
    const bool blank = calls_is_blank((char)c);
    switch (j->state) {
    case VALUE: return blank && j->depth ? CALLS_MORE : begin_value(j, c);
    case FIRST: return blank ? CALLS_MORE : c == ']' ? close_level(j, false) : begin_value(j, c);
    case FIRST_KEY:
        if (c == '}') return close_level(j, true);
        return blank ? CALLS_MORE : c == '"' ? to(j, KEY_STRING) : CALLS_NO;
    case KEY: return blank ? CALLS_MORE : c == '"' ? to(j, KEY_STRING) : CALLS_NO;
    case COLON: return blank ? CALLS_MORE : c == ':' ? to(j, VALUE) : CALLS_NO;
    case BEHIND: return behind(j, c);
    case WORD:
        if (c != (unsigned char)*j->word) return CALLS_NO;
        return *++j->word ? CALLS_MORE : to(j, BEHIND);
    case STRING:
    case KEY_STRING:
    case ESCAPE:
    case KEY_ESCAPE:
    case HEX:
    case KEY_HEX: return in_string(j, c);
    default: return in_number(j, c);
    }
}
