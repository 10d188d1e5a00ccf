/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_tags.c - structural tags: texts that are partly free and partly of a form.
 *
 *   free text <tool_call>{"name": "sum", "arguments": {...}}</tool_call> free text
 *             `- trigger ----- begin -------------- content  end ------'
 *
 * The source is a tree in JSON of the shape that xgrammar and the servers around it read (docs/grammar.md).
 * Free text ends at the first trigger, exactly: it is every text in which a trigger stands at the end and
 * nowhere before, an intersection with a complement, which terms have. Once the trigger is there, only its
 * tags go on. */
#include "grammar/gram_json_int.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

typedef struct {
    gram_rules *r;
    gram_pool *p;
    char path[GRAM_PATH_MAX]; /* JSON pointer, cut where it is too long */
    int depth;
} reader;

static gram_sym element(reader *c, const json_t *f);

static gram_sym refuse(reader *c, const char *key, const char *why) {
    gram_fail(c->p, SQUISH_INVALID, "tags: '%.40s' %s, at '#%s'", key, why, c->path);
    return GRAM_EMPTY;
}

/* ---- fields ----------------------------------------------------------------------------------- */

/* Read what lies below a key (and, in a list, at i), with its steps on the path. */
static gram_sym below(reader *c, const char *key, size_t i, const json_t *f,
                      gram_sym (*read)(reader *, const json_t *)) {
    const size_t n = strlen(c->path);
    if (i == SIZE_MAX)
        snprintf(c->path + n, sizeof c->path - n, "/%s", key);
    else
        snprintf(c->path + n, sizeof c->path - n, "/%s/%zu", key, i);
    const gram_sym s = read(c, f);
    if (!gram_failed(c->p)) c->path[n] = 0;
    return s;
}

static bool flag(reader *c, const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key);
    if (v && !json_is_boolean(v)) refuse(c, key, "is no boolean");
    return json_is_true(v);
}

static const json_t *list(reader *c, const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key);
    if (!json_is_array(v) || json_array_size(v) == 0) refuse(c, key, "is no list, or empty");
    return gram_failed(c->p) ? NULL : v;
}

/* A string, in which names of control tokens mean them. */
static gram_term text(reader *c, const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key);
    if (!json_is_string(v)) return refuse(c, key, "is no string");
    return gram_spelled(c->r, json_string_value(v), json_string_length(v));
}

/* One of the strings of a list, or the one string; GRAM_EMPTY if there is nothing. */
static gram_term texts(reader *c, const json_t *f, const char *key) {
    const json_t *v = json_object_get(f, key), *x;
    if (!v) return GRAM_EMPTY;
    if (json_is_string(v)) return text(c, f, key);
    if (!json_is_array(v)) return refuse(c, key, "is neither a string nor a list of them");
    gram_term t = GRAM_EMPTY;
    size_t i;
    json_array_foreach((json_t *)v, i, x) {
        if (!json_is_string(x)) return refuse(c, key, "is neither a string nor a list of them");
        t = gram_alt(c->p, t, gram_spelled(c->r, json_string_value(x), json_string_length(x)));
    }
    return t;
}

/* ---- free text -------------------------------------------------------------------------------- */

static gram_term anything(gram_pool *p) { return gram_not(p, GRAM_EMPTY); }

/* Text in which none of the words stands (EMPTY: there are none). */
static gram_term text_without(gram_pool *p, gram_term words) {
    const gram_term all = gram_rep(p, gram_any_char(p, GRAM_PLAIN), 0, GRAM_INF);
    if (words == GRAM_EMPTY) return all;
    return gram_and(p, all, gram_not(p, gram_cat(p, anything(p), gram_cat(p, words, anything(p)))));
}

/* Text, then end: none of stops (end is one of them) stands in it before, none of excluded in the text. */
static gram_term text_until(gram_pool *p, gram_term end, gram_term stops, gram_term excluded) {
    const gram_term more = gram_cat(p, gram_byte(p, 0, 255), anything(p));
    const gram_term early = gram_cat(p, anything(p), gram_cat(p, stops, more));
    return gram_and(p, gram_cat(p, text_without(p, excluded), end), gram_not(p, early));
}

static gram_term excluded(reader *c, const json_t *f) {
    const gram_term t = gram_alt(c->p, texts(c, f, "excludes"), texts(c, f, "excluded_str"));
    if (gram_nullable(c->p, t)) refuse(c, "excludes", "holds an empty string");
    return t;
}

static gram_sym any_text(reader *c, const json_t *f) { return text_without(c->p, excluded(c, f)); }

/* ---- leaves ----------------------------------------------------------------------------------- */

static gram_sym const_string(reader *c, const json_t *f) { return text(c, f, "value"); }

static gram_sym json_schema(reader *c, const json_t *f) {
    json_t *v = json_object_get(f, "json_schema");
    const json_t *relax = json_object_get(f, "relax");
    if (!v) return refuse(c, "json_schema", "is missing");
    if (relax && !json_is_string(relax)) return refuse(c, "relax", "is no string");
    c->r->relaxing->name = json_string_value(relax);
    return gram_from_schema_value(c->r, v, false);
}

static gram_sym any_object(reader *c, const json_t *f) {
    (void)f;
    return gram_any_json(c->p, false, true);
}

static gram_sym regex(reader *c, const json_t *f) {
    const json_t *v = json_object_get(f, "pattern");
    if (!json_is_string(v)) return refuse(c, "pattern", "is no string");
    return gram_regex(c->p, json_string_value(v), json_string_length(v), GRAM_PLAIN, true, "regex");
}

static gram_sym grammar(reader *c, const json_t *f) {
    static const struct {
        const char *word;
        gram_sym (*read)(gram_rules *r, const char *s, size_t n);
    } rows[] = {{"gbnf", gram_from_gbnf}, {"ebnf", gram_from_ebnf}, {"lark", gram_from_lark}};
    const json_t *v = json_object_get(f, "grammar"), *syntax = json_object_get(f, "syntax");
    if (!json_is_string(v)) return refuse(c, "grammar", "is no string");
    c->r->relaxing->name = NULL; /* a schema in a grammar is kept to */
    if (!syntax) return gram_from_any_notation(c->r, json_string_value(v), json_string_length(v));
    for (size_t i = 0; i < SQ_COUNT(rows) && json_is_string(syntax); i++)
        if (strcmp(json_string_value(syntax), rows[i].word) == 0)
            return rows[i].read(c->r, json_string_value(v), json_string_length(v));
    return refuse(c, "syntax", "is none of gbnf, ebnf, lark");
}

/* ---- compositions ----------------------------------------------------------------------------- */

typedef gram_sym (*reading)(reader *c, const json_t *f);

/* The elements of a list, in order, into out. */
static void read_list(reader *c, const json_t *f, const char *key, reading read, gram_vec *out) {
    const json_t *l = list(c, f, key);
    for (size_t i = 0; i < json_array_size(l) && !gram_failed(c->p); i++)
        gram_vec_push_u32(c->p, out, below(c, key, i, json_array_get(l, i), read));
}

static gram_sym joined(reader *c, const json_t *f, const char *key, reading read,
                       gram_sym (*join)(gram_rules *r, const gram_sym *s, size_t n)) {
    gram_vec syms = {0};
    read_list(c, f, key, read, &syms);
    const gram_sym s = gram_failed(c->p) ? GRAM_EMPTY : join(c->r, syms.p, syms.n);
    gram_vec_free(c->p, &syms, sizeof(gram_sym));
    return s;
}

static gram_sym sequence(reader *c, const json_t *f) { return joined(c, f, "elements", element, gram_seq); }
static gram_sym any_of(reader *c, const json_t *f) { return joined(c, f, "elements", element, gram_either); }

static gram_sym content(reader *c, const json_t *f) {
    const json_t *v = json_object_get(f, "content");
    return v ? below(c, "content", SIZE_MAX, v, element) : refuse(c, "content", "is missing");
}

static gram_sym maybe(gram_rules *r, gram_sym s) { return gram_either(r, (gram_sym[]){s, GRAM_EPS}, 2); }
static gram_sym both(gram_rules *r, gram_sym a, gram_sym b) { return gram_seq(r, (gram_sym[]){a, b}, 2); }

static gram_sym optional(reader *c, const json_t *f) { return maybe(c->r, content(c, f)); }
static gram_sym star(reader *c, const json_t *f) { return gram_repeat(c->r, content(c, f), 0, GRAM_INF); }
static gram_sym plus(reader *c, const json_t *f) { return gram_repeat(c->r, content(c, f), 1, GRAM_INF); }

/* ---- tags ------------------------------------------------------------------------------------- */

static bool is_any_text(const json_t *f) {
    const json_t *t = json_object_get(f, "type");
    return json_is_string(t) && strcmp(json_string_value(t), "any_text") == 0;
}

/* What follows the beginning of a tag. The older form has a schema where the newer has a content. */
static gram_sym after_begin(reader *c, const json_t *f) {
    if (!json_is_object(f)) return refuse(c, "tags", "has an element that is no object");
    json_t *inside = json_object_get(f, "content"), *schema = json_object_get(f, "schema");
    const gram_term end = texts(c, f, "end");
    if (!json_object_get(f, "end")) return refuse(c, "end", "is missing");
    if (gram_failed(c->p)) return GRAM_EMPTY;
    c->r->relaxing->name = NULL;
    if (!inside && schema) return both(c->r, gram_from_schema_value(c->r, schema, false), end);
    if (is_any_text(inside) && !gram_nullable(c->p, end))
        return text_until(c->p, end, end, excluded(c, inside));
    return both(c->r, content(c, f), end);
}

static gram_sym tag(reader *c, const json_t *f) {
    const gram_sym rest = after_begin(c, f);
    return both(c->r, text(c, f, "begin"), rest);
}

typedef struct {
    const char *s;
    size_t n;
    gram_term t;
} trigger;

/* The shortest trigger that the beginning of a tag starts with: it is the first to be complete. */
static size_t trigger_of(reader *c, const json_t *f, const trigger *l, size_t n) {
    const json_t *begin = json_object_get(f, "begin");
    size_t best = n;
    if (!json_is_string(begin)) refuse(c, "begin", "is no string");
    for (size_t i = 0; i < n && json_is_string(begin); i++) {
        const bool starts =
            json_string_length(begin) >= l[i].n && memcmp(json_string_value(begin), l[i].s, l[i].n) == 0;
        if (starts && (best == n || l[i].n < l[best].n)) best = i;
    }
    if (best == n) refuse(c, "begin", "starts with none of the triggers");
    return best;
}

/* The beginning of a tag behind its trigger. */
static gram_term rest_of(reader *c, const json_t *f, const trigger *t) {
    const json_t *begin = json_object_get(f, "begin");
    const gram_term rest =
        gram_spelled(c->r, json_string_value(begin) + t->n, json_string_length(begin) - t->n);
    if (gram_cat(c->p, t->t, rest) == text(c, f, "begin")) return rest;
    return refuse(c, "triggers", "has one that ends inside the name of a token");
}

/* Free text and tags: the triggers, their union, what else is not in the text; of each tag what follows its
 * beginning. */
typedef struct {
    const json_t *tags;
    gram_vec triggers, bodies;
    gram_term stops, banned;
} dispatch;

static gram_sym body(const dispatch *d, size_t i) { return GRAM_AT(d->bodies, gram_sym, i); }

/* Free text up to trigger t, and a tag of it. */
static gram_sym segment(reader *c, const dispatch *d, size_t t) {
    const trigger *x = &GRAM_AT(d->triggers, trigger, t);
    gram_vec tags = {0};
    for (size_t i = 0; i < d->bodies.n && !gram_failed(c->p); i++) {
        const json_t *f = json_array_get(d->tags, i);
        if (trigger_of(c, f, d->triggers.p, d->triggers.n) != t) continue;
        gram_vec_push_u32(c->p, &tags, both(c->r, rest_of(c, f, x), body(d, i)));
    }
    const gram_sym all = gram_failed(c->p) ? GRAM_EMPTY : gram_either(c->r, tags.p, tags.n);
    gram_vec_free(c->p, &tags, sizeof(gram_sym));
    return both(c->r, text_until(c->p, x->t, d->stops, d->banned), all);
}

static gram_sym any_segment(reader *c, const dispatch *d) {
    gram_vec l = {0};
    for (size_t t = 0; t < d->triggers.n && !gram_failed(c->p); t++)
        gram_vec_push_u32(c->p, &l, segment(c, d, t));
    const gram_sym all = gram_failed(c->p) ? GRAM_EMPTY : gram_either(c->r, l.p, l.n);
    gram_vec_free(c->p, &l, sizeof(gram_sym));
    return all;
}

/* A tag without text in front of it. */
static gram_sym any_tag(reader *c, const dispatch *d) {
    gram_vec l = {0};
    for (size_t i = 0; i < d->bodies.n && !gram_failed(c->p); i++)
        gram_vec_push_u32(c->p, &l, both(c->r, text(c, json_array_get(d->tags, i), "begin"), body(d, i)));
    const gram_sym all = gram_failed(c->p) ? GRAM_EMPTY : gram_either(c->r, l.p, l.n);
    gram_vec_free(c->p, &l, sizeof(gram_sym));
    return all;
}

static void read_triggers(reader *c, const json_t *f, gram_vec *out) {
    const json_t *l = list(c, f, "triggers"), *x;
    trigger *to = gram_vec_room(c->p, out, json_array_size(l), sizeof *to);
    size_t i;
    if (!to) return;
    json_array_foreach((json_t *)l, i, x) {
        if (!json_is_string(x) || json_string_length(x) == 0) refuse(c, "triggers", "holds no texts");
        if (gram_failed(c->p)) return;
        const gram_term t = gram_spelled(c->r, json_string_value(x), json_string_length(x));
        to[out->n++] = (trigger){json_string_value(x), json_string_length(x), t};
    }
}

static gram_sym triggered_tags(reader *c, const json_t *f) {
    gram_rules *r = c->r;
    const bool first = flag(c, f, "at_least_one"), once = flag(c, f, "stop_after_first");
    dispatch d = {.tags = list(c, f, "tags"), .banned = excluded(c, f)};
    gram_sym s = GRAM_EMPTY;
    read_triggers(c, f, &d.triggers);
    read_list(c, f, "tags", after_begin, &d.bodies);
    for (size_t i = 0; i < d.triggers.n && !gram_failed(c->p); i++)
        d.stops = gram_alt(c->p, d.stops, GRAM_AT(d.triggers, trigger, i).t);
    if (!gram_failed(c->p)) {
        const gram_term last = text_without(c->p, gram_alt(c->p, d.stops, d.banned));
        const gram_sym one = any_segment(c, &d);
        const gram_sym many = both(r, gram_repeat(r, one, 0, GRAM_INF), last);
        if (first)
            s = both(r, any_tag(c, &d), once ? GRAM_EPS : many);
        else
            s = once ? gram_either(r, (gram_sym[]){last, one}, 2) : many;
    }
    gram_vec_free(c->p, &d.triggers, sizeof(trigger));
    gram_vec_free(c->p, &d.bodies, sizeof(gram_sym));
    return s;
}

static gram_sym tags_with_separator(reader *c, const json_t *f) {
    gram_rules *r = c->r;
    const bool first = flag(c, f, "at_least_one"), once = flag(c, f, "stop_after_first");
    const gram_term separator = text(c, f, "separator");
    gram_sym s = joined(c, f, "tags", tag, gram_either);
    if (!once) s = both(r, s, gram_repeat(r, both(r, separator, s), 0, GRAM_INF));
    return first ? s : maybe(r, s);
}

/* ---- the tree --------------------------------------------------------------------------------- */

static gram_sym structural_tag(reader *c, const json_t *f);

static const struct {
    const char *type;
    reading read;
    const char *keys[6];
} types[] = {
    {"const_string", const_string, {"value"}},
    {"any_text", any_text, {"excludes", "excluded_str"}},
    {"json_schema", json_schema, {"json_schema", "relax"}},
    {"json_object", any_object, {NULL}},
    {"regex", regex, {"pattern"}},
    {"grammar", grammar, {"grammar", "syntax"}},
    {"sequence", sequence, {"elements"}},
    {"or", any_of, {"elements"}},
    {"optional", optional, {"content"}},
    {"star", star, {"content"}},
    {"plus", plus, {"content"}},
    {"tag", tag, {"begin", "content", "schema", "end"}},
    {"triggered_tags",
     triggered_tags,
     {"triggers", "tags", "at_least_one", "stop_after_first", "excludes", "excluded_str"}},
    {"tags_with_separator", tags_with_separator, {"tags", "separator", "at_least_one", "stop_after_first"}},
    {"structural_tag", structural_tag, {"format", "structures", "triggers"}},
};

static bool check_keys(reader *c, const json_t *f, size_t type) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)f, key, v) {
        bool known = strcmp(key, "type") == 0;
        for (size_t i = 0; i < SQ_COUNT(types[type].keys) && types[type].keys[i]; i++)
            known |= strcmp(key, types[type].keys[i]) == 0;
        if (!known) return refuse(c, key, "is not known here"), false;
    }
    return true;
}

static gram_sym element(reader *c, const json_t *f) {
    const char *name = json_string_value(json_object_get(f, "type"));
    gram_sym s = GRAM_EMPTY;
    if (gram_failed(c->p)) return s;
    if (!name) return refuse(c, "type", "is no string");
    if (c->depth >= DEPTH_MAX) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "tags: over the limit of %d elements in each other", DEPTH_MAX);
        return s;
    }
    c->depth++;
    size_t i = 0;
    while (i < SQ_COUNT(types) && strcmp(types[i].type, name) != 0) i++;
    if (i == SQ_COUNT(types))
        refuse(c, name, "is no type that is known");
    else if (check_keys(c, f, i))
        s = types[i].read(c, f);
    c->depth--;
    return s;
}

/* The older form has its tags in `structures`, without an element around them. */
static gram_sym structural_tag(reader *c, const json_t *f) {
    const json_t *format = json_object_get(f, "format");
    if (format) return below(c, "format", SIZE_MAX, format, element);
    json_t *tags = json_pack("{s:O, s:O}", "triggers", json_object_get(f, "triggers"), "tags",
                             json_object_get(f, "structures"));
    if (!tags) return refuse(c, "format", "is missing");
    const gram_sym s = triggered_tags(c, tags);
    json_decref(tags);
    return s;
}

gram_sym gram_from_tags(gram_rules *r) {
    reader c = {.r = r, .p = r->p};
    return element(&c, r->relaxing->root);
}
