/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_int.h - what the files that read JSON Schema share.
 *
 * A schema becomes the language of the JSON texts that are valid for it. Nothing is widened: what cannot be
 * said exactly is refused, by keyword and JSON pointer.
 *
 *   claim   a value satisfies a schema, or equals a value; or it does not
 *   goal    a set of claims that one value must meet; interned, so that recursion comes back to the same
 * number cases   a goal taken apart: a value meets it if one of the cases holds for it case    types that are
 * left, and a list of atoms that must all hold atom    one thing said about values of one type, or that it is
 * not so: minLength 3, the schemas of members, ...
 *
 * So negation ends at atoms (`not` of a schema with members says that some member is not as it should be),
 * and what all the combining keywords do is to make, multiply and collect cases. It is an alternating tree
 * automaton made nondeterministic (Thatcher and Wright, 1968; Vardi, 1995), one goal at a time. */
#ifndef SQ_GRAM_JSON_INT_H
#define SQ_GRAM_JSON_INT_H

#include "format/json.h"
#include "grammar/gram_int.h"

enum {
    GRAM_CASES_MAX = 1024,      /* of a goal */
    GRAM_CASE_WORK = 1000000,   /* pairs of atoms in pairs of cases, by 4 */
    GRAM_CASE_BYTES = 16 << 20, /* of cases and what they refer to */
    GRAM_SCHEMA_DEPTH = 200,    /* schemas in each other, references followed */
    GRAM_PATH_MAX = 120         /* bytes of a JSON pointer in a message */
};

/* ---- what need not be kept to (gram_relax.c) ---------------------------------------------------- */

typedef struct gram_relaxing {
    json_t *root;     /* the tags */
    const char *name; /* of the schema that is being read, if it may be relaxed; else NULL */
    json_t *document; /* that schema */
    const json_t *at; /* the part of it that was refused ... */
    char key[64];     /* ... for this keyword; at NULL: nothing was */
} gram_relaxing;

/* ---- types ------------------------------------------------------------------------------------ */

enum {
    TYPE_NULL = 1,
    TYPE_FALSE = 2,
    TYPE_TRUE = 4,
    TYPE_WHOLE = 8,     /* numbers without a fraction, however they are written */
    TYPE_FRACTION = 16, /* all others */
    TYPE_STRING = 32,
    TYPE_ARRAY = 64,
    TYPE_OBJECT = 128,
    TYPE_ALL = 255,
    TYPE_NUMBER = TYPE_WHOLE | TYPE_FRACTION
};
uint32_t gram_types_of(const json_t *value); /* the bit of a value */

/* ---- claims and goals ------------------------------------------------------------------------- */

typedef uint32_t gram_claim; /* index * 2 + (1: it is not so) */
typedef uint32_t gram_goal;  /* GRAM_ANYTHING: no claims */
enum { GRAM_ANYTHING = 0 };
static inline gram_claim gram_claim_not(gram_claim x) { return x ^ 1; }

typedef enum {
    ATOM_MIN_LENGTH, /* lo */
    ATOM_MAX_LENGTH,
    ATOM_PATTERN, /* text */
    ATOM_FORMAT,
    ATOM_MINIMUM, /* value */
    ATOM_MAXIMUM,
    ATOM_ABOVE,
    ATOM_BELOW,
    ATOM_MULTIPLE,
    ATOM_VALUES,    /* value: a list, of which strings and numbers count */
    ATOM_ITEMS,     /* value: schemas of the first items, or NULL; rest: of those from lo on */
    ATOM_ITEM,      /* claim: of item lo, if it is there */
    ATOM_MIN_ITEMS, /* lo */
    ATOM_MAX_ITEMS,
    ATOM_SOME_ITEMS, /* lo to hi of the items from `from` on meet claim */
    ATOM_UNIQUE,
    ATOM_MEMBERS, /* value: a schema with properties and patternProperties, or NULL; rest: of other members;
                     but those that `spared` atoms know by name or pattern are spared it */
    ATOM_MEMBER,  /* claim: of member `text`, if it is there */
    ATOM_HAS,     /* member text is there */
    ATOM_MIN_MEMBERS,
    ATOM_MAX_MEMBERS,
    ATOM_NAMES,       /* claim: of all names */
    ATOM_SOME_MEMBER, /* one whose name matches the pattern text, or else is not in the properties and
                         patternProperties of value, or else meets claim, has a value that meets rest_claim */
    ATOM_KINDS
} gram_atom_kind;

typedef struct {
    gram_atom_kind kind;
    bool negative;        /* of scalars only */
    bool silent;          /* said under a `not`: no reason to call an item or member evaluated */
    const json_t *schema; /* where it was said, for messages */
    const json_t *value;
    const char *text;
    size_t n;           /* bytes of text */
    const json_t *rest; /* a schema, or NULL */
    gram_claim claim, rest_claim;
    bool has_claim;
    uint32_t lo, hi, from;
    const uint32_t *spared; /* atoms [n_spared] */
    uint32_t n_spared;
} gram_atom;

typedef struct {
    uint32_t types, n;
    const uint32_t *atoms; /* [n] */
} gram_case;
typedef struct {
    const gram_case *list;
    size_t n;
} gram_cases;

/* ---- the reader ------------------------------------------------------------------------------- */

typedef struct gram_schema {
    gram_rules *r;
    gram_pool *p;
    json_t *root;
    bool loose;
    uint32_t sets;  /* of members, spent on any order (gram_json_object.c) */
    bool zeros;     /* 1.0 is a whole number */
    bool evaluates; /* some unevaluated... is in it: annotations count */
    bool unknown;   /* cases depend on a claim that is open (gram_json_cases.c) */
    int probing;    /* only asking whether a goal is empty */
    int depth;
    int64_t work;   /* left */
    sq_arena arena; /* of cases and what they refer to */
    json_t *made;   /* array of JSON values made here */
    gram_vec claims, atoms, goals, goal_claims, symbols;
    gram_index claim_index, atom_index, goal_index;
    gram_vec resources, anchors, bases; /* gram_json_ref.c */
} gram_schema;

void *gram_schema_alloc(gram_schema *c, size_t bytes); /* NULL after a failure */
void gram_schema_refuse(gram_schema *c, const json_t *schema, const char *keyword, const char *why);
/* An expression that stands there; what it cannot be is refused as the keyword. */
gram_term gram_schema_regex(gram_schema *c, const json_t *schema, const char *keyword, const char *s,
                            size_t n, gram_spelling spelling);
void gram_schema_invalid(gram_schema *c, const json_t *schema, const char *keyword, const char *why);
/* Keep a new value for as long as the reader lives. Takes over v; NULL fails the reader. */
json_t *gram_schema_keep(gram_schema *c, json_t *v);
gram_term gram_from_literal(gram_pool *p, const char *s);

/* gram_json_ref.c: identifiers and references */
void gram_refs_read(gram_schema *c);
void gram_refs_free(gram_schema *c);
bool gram_refs_draft4(const gram_schema *c);                       /* of the document as a whole */
bool gram_refs_legacy(const gram_schema *c, const json_t *schema); /* $ref hides what stands beside it */
/* Where the reference of a schema leads; NULL after a failure. */
const json_t *gram_refs_find(gram_schema *c, const json_t *schema, const char *keyword);

/* gram_json_cases.c: claims, goals, cases */
gram_claim gram_claim_of(gram_schema *c, const json_t *what, bool is_value);
gram_claim gram_claim_schema(gram_schema *c, const json_t *schema);
gram_claim gram_claim_never(gram_schema *c);
gram_goal gram_goal_of(gram_schema *c, gram_claim *claims, size_t n); /* sorts them */
gram_goal gram_goal_with(gram_schema *c, gram_goal g, gram_claim x);
void gram_cases_free(gram_schema *c);
gram_cases gram_goal_cases(gram_schema *c, gram_goal g);
gram_cases gram_claim_cases(gram_schema *c, gram_claim x);
bool gram_goal_is_empty(gram_schema *c, gram_goal g); /* "no" is not certain */
const gram_atom *gram_atom_at(const gram_schema *c, uint32_t i);
uint32_t gram_atom_of(gram_schema *c, const gram_atom *x);
gram_cases gram_cases_one(gram_schema *c, uint32_t types, const gram_atom *atoms, size_t n);
gram_cases gram_cases_all(gram_schema *c); /* one case: anything */
gram_cases gram_cases_both(gram_schema *c, gram_cases a, gram_cases b);
gram_cases gram_cases_either(gram_schema *c, gram_cases a, gram_cases b);
uint32_t gram_atom_types(gram_atom_kind k);

/* gram_json_words.c: what keywords say */
gram_cases gram_words_hold(gram_schema *c, const json_t *schema);
gram_cases gram_words_fail(gram_schema *c, const json_t *schema);
/* gram_json_combine.c: those that combine schemas; false: it is not one of them */
bool gram_combine(gram_schema *c, const json_t *schema, const char *key, const json_t *v, bool holds,
                  gram_cases *out);
/* unevaluatedItems and unevaluatedProperties of a schema, given the cases of the rest of it. */
gram_cases gram_unevaluated(gram_schema *c, const json_t *schema, gram_cases cases);
/* gram_json_equal.c: values as cases */
gram_cases gram_values_hold(gram_schema *c, const json_t *list);
gram_cases gram_value_fails(gram_schema *c, const json_t *list);

/* gram_schema.c */
static inline gram_sym gram_or(const gram_schema *c, gram_sym a, gram_sym b) {
    return gram_either(c->r, (gram_sym[]){a, b}, 2);
}
gram_sym gram_from_schema_value(gram_rules *r, json_t *root, bool loose); /* a schema that was read already */
gram_sym gram_goal_symbol(gram_schema *c, gram_goal g);

/* gram_json_scalar.c */
gram_term gram_schema_string(gram_schema *c, const gram_case *x); /* without quotes; GRAM_EMPTY: none */
gram_term gram_schema_number(gram_schema *c, const gram_case *x);
/* All strings that meet a goal, without quotes and in the canonical spelling. */
gram_term gram_goal_strings(gram_schema *c, gram_goal g);
bool gram_goal_takes_name(gram_schema *c, gram_goal g, const char *name, size_t n);
/* Does a name match one of the patternProperties of a schema? */
bool gram_pattern_matches(gram_schema *c, const json_t *schema, const char *pattern, const char *name,
                          size_t n);
gram_term gram_canonical_strings(gram_pool *p, uint32_t lo, uint32_t hi);
/* The types among strings and numbers that the listed values leave to a case. */
uint32_t gram_listed_types(gram_schema *c, const gram_case *x);
void gram_lengths(const gram_schema *c, const gram_case *x, uint32_t *lo, uint32_t *hi);

/* gram_json_array.c, gram_json_object.c */
gram_sym gram_schema_array(gram_schema *c, const gram_case *x);
gram_sym gram_schema_object(gram_schema *c, const gram_case *x);
bool gram_array_is_empty(gram_schema *c, const gram_case *x);
bool gram_object_is_empty(gram_schema *c, const gram_case *x);

/* gram_json.c: white space, around the contents of brackets, and after a comma and a colon */
gram_term gram_space_inside(gram_pool *p, bool loose);
gram_term gram_comma(gram_pool *p, bool loose);
gram_term gram_colon(gram_pool *p, bool loose);
gram_term gram_quoted(gram_pool *p, gram_term inside);

#endif
