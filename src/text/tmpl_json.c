/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_json.c - values as JSON, byte for byte what Python's json.dumps writes.
 *
 * The tojson of chat templates keeps insertion order, writes ", " and ": " (only "," in front of line ends
 * when indenting), leaves non-ASCII text alone unless asked, and escapes nothing for HTML. */
#include "text/tmpl_int.h"

#include <math.h>
#include <stdio.h>

static squish_status dump(sq_trun *r, const sq_tjson *how, const sq_tval *v, int depth);

static squish_status put_escaped(sq_trun *r, uint32_t cp) {
    static const char named[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    char text[16];
    const char *hit = cp && cp < 0x80 ? strchr(named, (int)cp) : NULL;
    if (hit) snprintf(text, sizeof text, "\\%c", letters[hit - named]);
    else if (cp < 0x10000) snprintf(text, sizeof text, "\\u%04x", cp);
    else snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10), 0xdc00 + (cp & 0x3ff));
    return sq_tmpl_puts(r, &r->scratch, text);
}

static squish_status dump_text(sq_trun *r, const sq_tjson *how, const sq_tval *v) {
    SQ_TRY(sq_tmpl_charge(r, v->n / 16));
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "\""));
    size_t from = 0; /* start of the stretch that needs no escape */
    for (size_t at = 0; at < v->n;) {
        unsigned char c = (unsigned char)v->u.s[at];
        uint32_t cp = c;
        size_t n = c < 0x80 || !how->ascii ? 1 : sq_utf8_decode(v->u.s + at, v->n - at, &cp, NULL);
        bool escape = c < 0x20 || c == '"' || c == '\\' || (how->ascii && c >= 0x7f);
        if (escape) {
            SQ_TRY(sq_tmpl_put(r, &r->scratch, v->u.s + from, at - from));
            SQ_TRY(put_escaped(r, cp));
            from = at + n;
        }
        at += n;
    }
    SQ_TRY(sq_tmpl_put(r, &r->scratch, v->u.s + from, v->n - from));
    return sq_tmpl_puts(r, &r->scratch, "\"");
}

static squish_status dump_float(sq_trun *r, double f) {
    char text[32];
    if (isnan(f)) return sq_tmpl_puts(r, &r->scratch, "NaN");
    if (isinf(f)) return sq_tmpl_puts(r, &r->scratch, f < 0 ? "-Infinity" : "Infinity");
    sq_tmpl_float_repr(f, text);
    return sq_tmpl_puts(r, &r->scratch, text);
}

static squish_status line_break(sq_trun *r, const sq_tjson *how, int depth) {
    if (!how->pretty) return SQUISH_OK;
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "\n"));
    for (int i = 0; i < depth; i++) SQ_TRY(sq_tmpl_put(r, &r->scratch, how->indent.u.s, how->indent.n));
    return SQUISH_OK;
}

static squish_status dump_list(sq_trun *r, const sq_tjson *how, const sq_tseq *s, int depth) {
    if (s->n == 0) return sq_tmpl_puts(r, &r->scratch, "[]");
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "["));
    for (uint32_t i = 0; i < s->n; i++) {
        if (i > 0) SQ_TRY(sq_tmpl_put(r, &r->scratch, how->item_sep.u.s, how->item_sep.n));
        SQ_TRY(line_break(r, how, depth + 1));
        SQ_TRY(dump(r, how, &s->items[i], depth + 1));
    }
    SQ_TRY(line_break(r, how, depth));
    return sq_tmpl_puts(r, &r->scratch, "]");
}

/* Keys become texts: numbers, booleans and none as JSON writes them. */
static squish_status dump_key(sq_trun *r, const sq_tjson *how, const sq_tval *key, int depth) {
    if (key->type == SQ_TV_STR) return dump_text(r, how, key);
    bool plain = key->type == SQ_TV_NONE || key->type == SQ_TV_BOOL || key->type == SQ_TV_INT ||
                 key->type == SQ_TV_FLOAT;
    if (!plain)
        return sq_tmpl_fail(r, "keys must be str, int, float, bool or None, not %s", sq_tmpl_type_name(key));
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "\""));
    SQ_TRY(dump(r, how, key, depth));
    return sq_tmpl_puts(r, &r->scratch, "\"");
}

/* The order of the pairs: as they stand, or sorted by key. */
static squish_status pair_order(sq_trun *r, const sq_tjson *how, const sq_tdict *d, uint32_t **perm) {
    void *keys, *numbers;
    *perm = NULL;
    if (!how->sort_keys) return SQUISH_OK;
    SQ_TRY(sq_tmpl_alloc(r, d->n, sizeof(sq_tval), &keys));
    SQ_TRY(sq_tmpl_alloc(r, d->n, sizeof(uint32_t), &numbers));
    for (uint32_t i = 0; i < d->n; i++) ((sq_tval *)keys)[i] = d->items[i].key;
    *perm = numbers;
    return sq_tmpl_sort(r, keys, d->n, false, numbers);
}

static squish_status dump_object(sq_trun *r, const sq_tjson *how, const sq_tdict *d, int depth) {
    if (d->n == 0) return sq_tmpl_puts(r, &r->scratch, "{}");
    uint32_t *perm;
    SQ_TRY(pair_order(r, how, d, &perm));
    SQ_TRY(sq_tmpl_puts(r, &r->scratch, "{"));
    for (uint32_t i = 0; i < d->n; i++) {
        const sq_tpair *pair = &d->items[perm ? perm[i] : i];
        if (i > 0) SQ_TRY(sq_tmpl_put(r, &r->scratch, how->item_sep.u.s, how->item_sep.n));
        SQ_TRY(line_break(r, how, depth + 1));
        SQ_TRY(dump_key(r, how, &pair->key, depth));
        SQ_TRY(sq_tmpl_put(r, &r->scratch, how->key_sep.u.s, how->key_sep.n));
        SQ_TRY(dump(r, how, &pair->value, depth + 1));
    }
    SQ_TRY(line_break(r, how, depth));
    return sq_tmpl_puts(r, &r->scratch, "}");
}

static squish_status dump(sq_trun *r, const sq_tjson *how, const sq_tval *v, int depth) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    SQ_TRY(sq_tmpl_charge(r, 1));
    switch (v->type) {
        case SQ_TV_NONE: return sq_tmpl_puts(r, &r->scratch, "null");
        case SQ_TV_BOOL: return sq_tmpl_puts(r, &r->scratch, v->u.b ? "true" : "false");
        case SQ_TV_INT: return sq_tmpl_print(r, &r->scratch, v);
        case SQ_TV_FLOAT: return dump_float(r, v->u.f);
        case SQ_TV_STR: return dump_text(r, how, v);
        case SQ_TV_LIST:
        case SQ_TV_TUPLE: return dump_list(r, how, v->u.seq, depth);
        case SQ_TV_DICT: return dump_object(r, how, v->u.dict, depth);
        default: return sq_tmpl_fail(r, "Object of type %s is not JSON serializable", sq_tmpl_type_name(v));
    }
}

squish_status sq_tmpl_dump_json(sq_trun *r, const sq_tjson *how, const sq_tval *v, sq_tval *out) {
    size_t mark = r->scratch.len;
    SQ_TRY(dump(r, how, v, 0));
    return sq_tmpl_take(r, mark, out);
}
