/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_source.c - the table of rules and the small change of reading, for all notations. */
#include "grammar/gram_source.h"

#include <string.h>

enum { NAME_MAX_BYTES = 255, CHAIN_MAX = 128, RULES_MAX = 4096, CODE_POINT_MAX = 0x10FFFF };

gram_sym gram_source_refuse(gram_source *c, squish_status st, const char *why) {
    size_t line = 1;
    /* The first failure is the one that is told. */
    for (size_t i = 0; i < c->at && i < c->n && !gram_failed(c->p); i++) line += c->s[i] == '\n';
    gram_fail(c->p, st, "%s: %s in line %zu", c->what, why, line);
    c->at = c->n;
    return GRAM_EMPTY;
}

void gram_source_free(gram_source *c) {
    gram_vec_free(c->p, &c->rules, sizeof(gram_named));
    gram_index_free(c->p, &c->index);
}

/* ---- reading ---------------------------------------------------------------------------------- */

bool gram_take(gram_source *c, const char *token) {
    const size_t n = strlen(token);
    if (c->n - c->at < n || memcmp(c->s + c->at, token, n) != 0) return false;
    c->at += n;
    return true;
}

static bool is_name(char x, const char *also) {
    return (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z') || (x >= '0' && x <= '9') ||
           (x && strchr(also, x));
}

size_t gram_take_name(gram_source *c, const char *also, const char **name) {
    *name = c->s + c->at;
    const size_t from = c->at;
    while (c->at < c->n && is_name(c->s[c->at], also)) c->at++;
    const size_t n = c->at - from;
    if (n > NAME_MAX_BYTES) gram_source_refuse(c, SQUISH_INVALID, "a name of over 255 bytes");
    return n > NAME_MAX_BYTES ? 0 : n;
}

bool gram_take_number(gram_source *c, uint32_t *out) {
    const size_t from = c->at;
    uint64_t v = 0;
    for (; c->at < c->n && c->s[c->at] >= '0' && c->s[c->at] <= '9'; c->at++)
        if (v <= SQ_GRAM_REPEAT_MAX) v = v * 10 + (uint64_t)(c->s[c->at] - '0');
    *out = v > SQ_GRAM_REPEAT_MAX ? SQ_GRAM_REPEAT_MAX + 1 : (uint32_t)v;
    return c->at > from;
}

uint32_t gram_take_char(gram_source *c) {
    uint32_t x = 0;
    bool ok = false;
    const size_t n = sq_utf8_decode(c->s + c->at, c->n - c->at, &x, &ok);
    if (ok)
        c->at += n;
    else
        gram_source_refuse(c, SQUISH_INVALID, "ill-formed UTF-8");
    return x;
}

bool gram_take_hex(gram_source *c, int n_min, int n_max, uint32_t *out) {
    uint32_t v = 0;
    int n = 0;
    for (; n < n_max && c->at < c->n; n++, c->at++) {
        const char x = c->s[c->at];
        const int d = x >= '0' && x <= '9'   ? x - '0'
                      : x >= 'a' && x <= 'f' ? x - 'a' + 10
                      : x >= 'A' && x <= 'F' ? x - 'A' + 10
                                             : -1;
        if (d < 0) break;
        v = v * 16 + (uint32_t)d;
    }
    *out = v;
    if (n < n_min) return gram_source_refuse(c, SQUISH_INVALID, "wrong hexadecimal escape"), false;
    if (v > CODE_POINT_MAX) return gram_source_refuse(c, SQUISH_INVALID, "no such code point"), false;
    return true;
}

bool gram_check_count(gram_source *c, uint32_t lo, uint32_t hi) {
    if (hi < lo) return gram_source_refuse(c, SQUISH_INVALID, "a count runs backwards"), false;
    if (lo > SQ_GRAM_REPEAT_MAX || (hi > SQ_GRAM_REPEAT_MAX && hi != GRAM_INF))
        return gram_source_refuse(c, SQUISH_NO_MEMORY, "a count over the limit of 16777216"), false;
    return true;
}

gram_sym gram_source_token(gram_source *c) {
    const size_t from = c->at;
    uint32_t id;
    if (gram_take(c, "<[")) {
        if (!gram_take_number(c, &id) || !gram_take(c, "]>"))
            return gram_source_refuse(c, SQUISH_INVALID, "a token literal without its ]>");
        return c->dry ? GRAM_EPS : gram_token(c->r, (int32_t)id);
    }
    while (c->at < c->n && c->s[c->at] != '>' && c->s[c->at] != '\n') c->at++;
    if (!gram_take(c, ">")) return gram_source_refuse(c, SQUISH_INVALID, "a token literal without its >");
    return c->dry ? GRAM_EPS : gram_token_named(c->r, c->s + from, c->at - from);
}

bool gram_enter(gram_source *c) {
    c->depth++, c->total++;
    if (c->depth > SQ_GRAM_NESTING_MAX / 2)
        gram_source_refuse(c, SQUISH_NO_MEMORY, "over the limit of 256 groups in each other");
    return !gram_failed(c->p);
}

/* ---- rules ------------------------------------------------------------------------------------ */

static uint64_t hash_name(const char *name, size_t n) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = gram_mix(h, (uint8_t)name[i]);
    return h;
}

static uint64_t name_hash(void *owner, uint32_t i) {
    const gram_named *x = &GRAM_AT(((gram_source *)owner)->rules, gram_named, i);
    return hash_name(x->name, x->n);
}

gram_named *gram_source_find(gram_source *c, const char *name, size_t n) {
    const gram_index *x = &c->index;
    if (!x->cap) return NULL;
    for (size_t at = hash_name(name, n) & (x->cap - 1); x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        gram_named *y = &GRAM_AT(c->rules, gram_named, x->slots[at] - 1);
        if (y->n == n && memcmp(y->name, name, n) == 0) return y;
    }
    return NULL;
}

void gram_source_rule(gram_source *c, const char *name, size_t n) {
    if (gram_failed(c->p)) return;
    if (gram_source_find(c, name, n)) {
        gram_source_refuse(c, SQUISH_INVALID, "a rule is defined twice");
        return;
    }
    if (c->rules.n >= RULES_MAX) gram_source_refuse(c, SQUISH_NO_MEMORY, "over the limit of 4096 rules");
    gram_named *to = gram_failed(c->p) ? NULL : gram_vec_room(c->p, &c->rules, 1, sizeof *to);
    if (!to || !gram_index_reserve(c->p, &c->index, name_hash, c)) return;
    *to = (gram_named){.name = name, .n = n, .body = c->at};
    gram_index *x = &c->index;
    size_t at = hash_name(name, n) & (x->cap - 1);
    while (x->slots[at]) at = (at + 1) & (x->cap - 1);
    x->slots[at] = (uint32_t)++c->rules.n;
    x->n++;
}

gram_sym gram_source_build(gram_source *c, gram_named *x) {
    if (x->state == RULE_DONE) return x->result;
    if (x->state == RULE_OPEN || c->total >= CHAIN_MAX) {
        if (!x->has_nt) x->nt = gram_nt_new(c->r);
        x->has_nt = true;
        return x->nt | GRAM_NT;
    }
    const size_t back = c->at;
    const int depth = c->depth;
    x->state = RULE_OPEN;
    c->at = x->body;
    c->depth = 0;
    c->total++;
    const gram_sym body = c->body(c, x);
    c->total--;
    c->depth = depth;
    if (!gram_failed(c->p)) c->at = back;
    x->state = RULE_DONE;
    x->result = body;
    if (x->has_nt) {
        gram_nt_define(c->r, x->nt, body);
        x->result = x->nt | GRAM_NT;
    }
    return x->result;
}

gram_sym gram_source_reference(gram_source *c, const char *name, size_t n) {
    if (c->dry || gram_failed(c->p)) return GRAM_EPS;
    gram_named *x = gram_source_find(c, name, n);
    if (x) return gram_source_build(c, x);
    gram_fail(c->p, SQUISH_INVALID, "%s: rule '%.*s' is not defined", c->what, (int)(n < 64 ? n : 64), name);
    return GRAM_EMPTY;
}

gram_sym gram_source_finish(gram_source *c, const char *start) {
    gram_sym s = GRAM_EMPTY;
    gram_named *root = gram_failed(c->p) ? NULL : gram_source_find(c, start, strlen(start));
    c->dry = false;
    if (root)
        s = gram_source_build(c, root);
    else
        gram_fail(c->p, SQUISH_INVALID, "%s: no rule '%s'", c->what, start);
    for (size_t i = 0; i < c->rules.n && !gram_failed(c->p); i++)
        gram_source_build(c, &GRAM_AT(c->rules, gram_named, i));
    return s;
}

/* ---- symbols ---------------------------------------------------------------------------------- */

static gram_sym from_scratch(gram_source *c, size_t base,
                             gram_sym (*join)(gram_rules *r, const gram_sym *s, size_t n)) {
    gram_pool *p = c->p;
    if (gram_failed(p)) {
        p->scratch.n = base < p->scratch.n ? base : p->scratch.n;
        return GRAM_EMPTY;
    }
    /* The builder pushes on scratch, so it gets a copy. */
    const size_t n = p->scratch.n - base;
    gram_vec copy = {0};
    gram_sym *list = gram_vec_room(p, &copy, n, sizeof *list);
    if (!list) return GRAM_EMPTY;
    if (n) memcpy(list, (uint32_t *)p->scratch.p + base, n * sizeof *list);
    p->scratch.n = base;
    const gram_sym s = join(c->r, list, n);
    gram_vec_free(p, &copy, sizeof *list);
    return s;
}

gram_sym gram_source_seq(gram_source *c, size_t base) { return from_scratch(c, base, gram_seq); }
gram_sym gram_source_either(gram_source *c, size_t base) { return from_scratch(c, base, gram_either); }
