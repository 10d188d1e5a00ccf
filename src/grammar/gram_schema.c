/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema.c - a JSON Schema (drafts 4 to 2020-12) to the language of the texts that are valid for it.
 *
 * The reader as a whole, and the last step: a goal to a symbol of the grammar. A goal that comes up inside of
 * itself becomes a nonterminal; all others are regular and stay terms. */
#include "grammar/gram_json_int.h"

#include <stdio.h>
#include <string.h>

/* ---- services --------------------------------------------------------------------------------- */

void *gram_schema_alloc(gram_schema *c, size_t bytes) {
    void *p = gram_failed(c->p) ? NULL : sq_arena_alloc(&c->arena, bytes, _Alignof(max_align_t));
    if (!p)
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory, or over the limit of %d MiB",
                  GRAM_CASE_BYTES >> 20);
    return p;
}

json_t *gram_schema_keep(gram_schema *c, json_t *v) {
    if (v && json_array_append_new(c->made, v) == 0) return v;
    gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
    return NULL;
}

gram_term gram_from_literal(gram_pool *p, const char *s) { return gram_literal(p, s, strlen(s)); }

/* The JSON pointer of a part of the document in out[cap], cut where it is too long. False: it is not in
 * there. */
static bool find(const json_t *at, const json_t *part, char *out, size_t cap) {
    const size_t n = strlen(out);
    const char *key;
    json_t *x;
    size_t i;
    if (at == part) return true;
    json_array_foreach((json_t *)at, i, x) {
        snprintf(out + n, cap - n, "/%zu", i);
        if (find(x, part, out, cap)) return true;
    }
    json_object_foreach((json_t *)at, key, x) {
        size_t m = n;
        if (m + 1 < cap) out[m++] = '/';
        for (const char *k = key; *k && m + 2 < cap; k++) {
            const bool escape = *k == '~' || *k == '/';
            if (escape) out[m++] = '~';
            out[m++] = (char)(escape ? *k == '~' ? '0' : '1' : *k);
        }
        out[m] = 0;
        if (find(x, part, out, cap)) return true;
    }
    out[n] = 0;
    return false;
}

static void complain(gram_schema *c, squish_status st, const json_t *schema, const char *keyword,
                     const char *why) {
    char pointer[GRAM_PATH_MAX] = "";
    if (gram_failed(c->p)) return;
    if (schema) find(c->root, schema, pointer, sizeof pointer);
    gram_fail(c->p, st, "schema: '%.40s' %s, at '#%s'", keyword, why, pointer);
}

/* Where the first refusal was, for whoever may do without. */
static void note(gram_schema *c, const json_t *schema, const char *keyword) {
    gram_relaxing *x = c->r->relaxing;
    if (!x || gram_failed(c->p)) return;
    x->document = c->root;
    x->at = schema;
    snprintf(x->key, sizeof x->key, "%s", keyword);
}

void gram_schema_refuse(gram_schema *c, const json_t *schema, const char *keyword, const char *why) {
    note(c, schema, keyword);
    complain(c, SQUISH_UNSUPPORTED, schema, keyword, why);
}

gram_term gram_schema_regex(gram_schema *c, const json_t *schema, const char *keyword, const char *s,
                            size_t n, gram_spelling spelling) {
    note(c, schema, keyword);
    const gram_term t = gram_regex(c->p, s, n, spelling, false, keyword);
    if (c->r->relaxing && !gram_failed(c->p)) c->r->relaxing->at = NULL;
    return t;
}

void gram_schema_invalid(gram_schema *c, const json_t *schema, const char *keyword, const char *why) {
    complain(c, SQUISH_INVALID, schema, keyword, why);
}

/* ---- symbols ---------------------------------------------------------------------------------- */

typedef struct {
    enum { SYMBOL_FRESH, SYMBOL_OPEN, SYMBOL_DONE } state;
    bool has_nt;
    uint32_t nt;
    gram_sym result;
} made;

static gram_sym of_case(gram_schema *c, const gram_case *x) {
    gram_pool *p = c->p;
    gram_sym s[8];
    size_t n = 0;
    if (x->types == TYPE_ALL && x->n == 0) return gram_any_json(p, c->loose, false);
    if (x->types & TYPE_NULL) s[n++] = gram_from_literal(p, "null");
    if (x->types & TYPE_FALSE) s[n++] = gram_from_literal(p, "false");
    if (x->types & TYPE_TRUE) s[n++] = gram_from_literal(p, "true");
    if (x->types & TYPE_NUMBER) s[n++] = gram_schema_number(c, x);
    if (x->types & TYPE_STRING) s[n++] = gram_quoted(p, gram_schema_string(c, x));
    if (x->types & TYPE_ARRAY) s[n++] = gram_schema_array(c, x);
    if (x->types & TYPE_OBJECT) s[n++] = gram_schema_object(c, x);
    return gram_failed(p) ? GRAM_EMPTY : gram_either(c->r, s, n);
}

static gram_sym of_goal(gram_schema *c, gram_goal g) {
    const gram_cases cases = gram_goal_cases(c, g);
    if (cases.n == 1) return of_case(c, cases.list);
    gram_vec syms = {0};
    for (size_t i = 0; i < cases.n && !gram_failed(c->p); i++) {
        const gram_sym s = of_case(c, &cases.list[i]);
        gram_vec_push_u32(c->p, &syms, s);
    }
    const gram_sym all = gram_failed(c->p) ? GRAM_EMPTY : gram_either(c->r, syms.p, syms.n);
    gram_vec_free(c->p, &syms, sizeof(gram_sym));
    return all;
}

static made *made_at(gram_schema *c, gram_goal g) {
    while (c->symbols.n <= g) {
        made *to = gram_vec_room(c->p, &c->symbols, 1, sizeof *to);
        if (!to) return NULL;
        *to = (made){.state = SYMBOL_FRESH};
        c->symbols.n++;
    }
    return &GRAM_AT(c->symbols, made, g);
}

gram_sym gram_goal_symbol(gram_schema *c, gram_goal g) {
    made *x = gram_failed(c->p) ? NULL : made_at(c, g);
    if (!x) return GRAM_EMPTY;
    if (x->state == SYMBOL_DONE) return x->result;
    if (x->state == SYMBOL_OPEN) {
        if (!x->has_nt) x->nt = gram_nt_new(c->r);
        x->has_nt = true;
        return x->nt | GRAM_NT;
    }
    if (c->depth >= GRAM_SCHEMA_DEPTH) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: over the limit of %d schemas in each other",
                  GRAM_SCHEMA_DEPTH);
        return GRAM_EMPTY;
    }
    x->state = SYMBOL_OPEN;
    c->depth++;
    const gram_sym body = of_goal(c, g);
    c->depth--;
    x = made_at(c, g); /* the list may have moved */
    if (!x) return GRAM_EMPTY;
    x->state = SYMBOL_DONE;
    x->result = body;
    if (x->has_nt) {
        gram_nt_define(c->r, x->nt, body);
        x->result = x->nt | GRAM_NT;
    }
    return x->result;
}

/* ---- the reader ------------------------------------------------------------------------------- */

static gram_sym read_document(gram_schema *c) {
    gram_refs_read(c);
    c->zeros = c->loose && !gram_refs_draft4(c);
    gram_goal_of(c, NULL, 0); /* the first one: GRAM_ANYTHING */
    return gram_goal_symbol(c, gram_goal_with(c, GRAM_ANYTHING, gram_claim_schema(c, c->root)));
}

gram_sym gram_from_schema_value(gram_rules *r, json_t *root, bool loose) {
    gram_schema c = {
        .r = r, .p = r->p, .root = root, .loose = loose, .work = GRAM_CASE_WORK, .made = json_array()};
    gram_sym start = GRAM_EMPTY;
    sq_arena_init(&c.arena, &r->p->alloc, 16 << 10, GRAM_CASE_BYTES);
    if (!c.made)
        gram_fail(r->p, SQUISH_NO_MEMORY, "schema: out of memory");
    else
        start = read_document(&c);
    if (loose && !gram_failed(r->p)) {
        const gram_term space = gram_space_inside(r->p, true);
        start = gram_seq(r, (gram_sym[]){space, start, space}, 3);
    }
    gram_vec_free(r->p, &c.symbols, sizeof(made));
    gram_cases_free(&c);
    gram_refs_free(&c);
    sq_arena_deinit(&c.arena);
    json_decref(c.made);
    return start;
}

gram_sym gram_from_schema(gram_rules *r, const char *s, size_t n, bool loose) {
    json_t *root = NULL;
    squish_error err = {0};
    gram_sym start = GRAM_EMPTY;
    if (sq_json_parse(s, n, SQ_JSON_DEPTH_SCHEMA, "schema", &root, &err) != SQUISH_OK)
        gram_fail(r->p, err.code == SQUISH_CORRUPT ? SQUISH_INVALID : err.code, "%s", err.text);
    else
        start = gram_from_schema_value(r, root, loose);
    json_decref(root);
    return start;
}
