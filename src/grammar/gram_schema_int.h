/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_int.h - inside the schema referee.
 *
 *   text -> values (a tree that knows its parents) -> documents, resources, anchors -> schemas with rules
 *
 * Everything a schema handle owns lies in one arena; an instance has an arena of its own for as long as it is
 * judged. A value's parent chain is its JSON pointer, so paths are only spelled out when somebody complains.
 */
#ifndef SQ_GRAM_SCHEMA_INT_H
#define SQ_GRAM_SCHEMA_INT_H

#include "grammar/schema.h"

#include <string.h>

/* ---- numbers (gram_schema_number.c) ---------------------------------------------------------- */

/* (-1)^negative * digits * 10^exp, with neither leading nor trailing zeros among the digits; zero has none.
 */
typedef struct {
    const char *text, *digits; /* as written; digits may point into it */
    uint32_t text_bytes, n;
    int32_t exp;
    bool negative;
} gs_number;

/* text[0..n) is a number by JSON's grammar. Ceilings: UNSUPPORTED. text must outlive the number. */
squish_status gs_number_read(sq_arena *ar, const char *text, size_t n, gs_number *out, squish_error *err);
int gs_number_compare(const gs_number *a, const gs_number *b);
static inline bool gs_number_is_integer(const gs_number *a) { return a->n == 0 || a->exp >= 0; }
/* a / b has no fraction; b is not zero. */
bool gs_number_is_multiple(const gs_number *a, const gs_number *b);
/* A count such as maxLength: values beyond UINT32_MAX are given as that. False unless an integer >= 0. */
bool gs_number_count(const gs_number *a, uint32_t *out);

/* ---- values (gram_schema_value.c) ------------------------------------------------------------ */

typedef enum { GS_NULL, GS_BOOLEAN, GS_NUMBER, GS_STRING, GS_ARRAY, GS_OBJECT } gs_type;
typedef struct gs_value gs_value;
typedef struct gs_member gs_member;
typedef struct gs_schema gs_schema;

struct gs_value {
    gs_type type;
    bool yes;       /* BOOLEAN */
    bool is_name;   /* the name of a member of `parent`, judged as a string */
    uint32_t n;     /* bytes, elements or members */
    uint32_t index; /* in the parent */
    uint64_t hash;  /* equal values have equal hashes */
    const gs_value *parent;
    union {
        gs_number number;
        const char *text; /* UTF-8, may hold NUL */
        gs_value *items;
        struct {
            gs_member *members;     /* in the order of the text */
            const uint32_t *sorted; /* their indexes by name */
        } object;
    } u;
    gs_schema *schema; /* what was made of it, if it was met as a schema */
};
struct gs_member {
    const char *name;
    uint32_t bytes;
    gs_value value;
};

/* Read one JSON text. json must outlive the value. `what` names it in errors. */
squish_status gs_value_read(sq_arena *ar, const char *json, size_t bytes, const char *what, gs_value **out,
                            squish_error *err);
/* The member called name, or NULL; also NULL where v is no object. */
gs_value *gs_value_get(const gs_value *v, const char *name, size_t bytes);
static inline gs_value *gs_value_find(const gs_value *v, const char *name) {
    return gs_value_get(v, name, strlen(name));
}
/* Deep equality, numbers by value. *steps falls by one per pair looked at, and below zero means: given up. */
bool gs_value_equal(const gs_value *a, const gs_value *b, int64_t *steps);
/* The name of member i of an object, as a string to be judged. */
gs_value gs_value_name(const gs_value *object, uint32_t i);
const char *gs_type_name(const gs_value *v);
/* Messages cut names where they are long: what is no UTF-8 any more becomes '?'. */
void gs_tidy(char *text);
/* JSON pointer of v from the root of its text. */
void gs_value_pointer(const gs_value *v, sq_buf *out);

/* ---- URIs (gram_schema_uri.c) ---------------------------------------------------------------- */

/* RFC 3986, 5.2: ref seen from base. NULL without memory. */
char *gs_uri_resolve(sq_arena *ar, const char *base, const char *ref, size_t ref_bytes);
/* %41 to A, in place; the new length, or SIZE_MAX if a % is not followed by two hexadecimal digits. */
size_t gs_uri_decode(char *s, size_t n);

/* ---- patterns (gram_schema_regex.c, gram_schema_ecma.c) -------------------------------------- */

typedef struct gs_regex gs_regex;
/* ECMA source to a PCRE2 source, appended to out. NULL, or what is wrong with it. */
const char *gs_ecma_translate(const char *source, size_t n, sq_buf *out);
/* `where` names the pattern. The regex is freed with gs_regex_free, not with an arena. */
squish_status gs_regex_new(gs_regex **out, const squish_alloc *a, const char *source, size_t n,
                           const char *where, squish_error *err);
void gs_regex_free(gs_regex *r);
/* Is there a match anywhere in text? *steps falls by what it cost. UNSUPPORTED: the match limit was hit. */
squish_status gs_regex_match(const gs_regex *r, const char *text, size_t n, int64_t *steps, bool *matched,
                             squish_error *err);

/* ---- formats (gram_schema_format.c) ---------------------------------------------------------- */

/* True where text has the format, and for every format not known here. */
bool gs_format_ok(const squish_alloc *a, const gs_value *format, const char *text, size_t n);

/* ---- documents (gram_schema_load.c) ---------------------------------------------------------- */

enum { GS_D4 = 1, GS_D6 = 2, GS_D7 = 4, GS_D2019 = 8, GS_D2020 = 16 };
enum {
    GS_CORE = 1,
    GS_APPLICATOR = 2,
    GS_UNEVALUATED = 4,
    GS_VALIDATION = 8,
    GS_FORMAT = 16,
    GS_FORMAT_ASSERTION = 32,
    GS_OTHER = 64 /* metadata and content: annotations, never a verdict */
};
typedef struct {
    uint8_t draft, vocabularies;
} gs_dialect;

typedef struct gs_document gs_document;
struct gs_document {
    const char *uri, *json; /* uri "" for the schema itself without one */
    size_t bytes;
    bool is_main;   /* the schema itself */
    gs_value *root; /* NULL until somebody asks for it */
    gs_document *next;
};

/* A schema with an URI of its own, and everything in it down to the next such schema. */
typedef struct gs_resource {
    const gs_document *document;
    const char *uri; /* absolute if the document's was, without fragment */
    gs_value *root;
    gs_dialect dialect;
    bool recursive_anchor; /* 2019-09 */
} gs_resource;

/* One table for three kinds of name: resources (resource NULL, name = URI), anchors and dynamic anchors. */
typedef struct gs_entry gs_entry;
struct gs_entry {
    gs_entry *next;
    const gs_resource *resource;
    const char *name;
    bool dynamic;
    gs_value *value;
};
enum { GS_BUCKETS = 1024 };

/* ---- schemas and rules (gram_schema_compile.c) ----------------------------------------------- */

typedef struct gs_eval gs_eval;
typedef struct gs_frame gs_frame;
typedef struct gs_rule gs_rule;
typedef bool (*gs_rule_fn)(gs_eval *e, const gs_rule *r, gs_frame *f);

/* Where schemas lie in a keyword's argument. DEFS is scanned for names and compiled only on demand. */
typedef enum { GS_SUB_NONE, GS_SUB_ONE, GS_SUB_LIST, GS_SUB_MAP, GS_SUB_ONE_OR_LIST, GS_SUB_DEFS } gs_shape;
typedef enum {
    GS_ARG_ANY,
    GS_ARG_SHAPE, /* as the shape says */
    GS_ARG_COUNT,
    GS_ARG_NUMBER,
    GS_ARG_POSITIVE,
    GS_ARG_BOOLEAN,
    GS_ARG_STRING,
    GS_ARG_STRINGS,
    GS_ARG_NAMES, /* object of arrays of strings */
    GS_ARG_ARRAY,
    GS_ARG_TYPES
} gs_arg;
/* Rules that others of the same schema look at. */
typedef enum {
    GS_ROLE_NONE,
    GS_ROLE_PROPERTIES,
    GS_ROLE_PATTERNS,
    GS_ROLE_PREFIX,
    GS_ROLE_THEN,
    GS_ROLE_ELSE,
    GS_ROLE_MIN_CONTAINS,
    GS_ROLE_MAX_CONTAINS,
    GS_ROLE_STRICT_MAX,
    GS_ROLE_STRICT_MIN,
    GS_ROLE_COUNT
} gs_role;

typedef struct {
    const char *name;
    uint8_t drafts, vocabulary;
    gs_shape shape;
    gs_arg arg;
    gs_role role;
    gs_rule_fn eval; /* NULL: read by others, or only scanned */
} gs_keyword;
extern const gs_keyword gs_keywords[];
extern const size_t gs_n_keywords;

struct gs_rule {
    const gs_keyword *keyword;
    const gs_value *arg;
    const gs_schema *owner;
    gs_schema **subs; /* [n_subs]; NULL entries where dependencies are lists of names */
    uint32_t n_subs;
    gs_regex **regexes; /* [1], or one per member of patternProperties */
    uint32_t count;     /* of a COUNT; the mask of types */
    const char *anchor; /* of a $dynamicRef that goes by dynamic scope */
};
struct gs_schema {
    const gs_value *source;
    const gs_resource *resource;
    gs_rule *rules;
    uint32_t n_rules;
    const gs_rule *role[GS_ROLE_COUNT];
    bool queued;
    gs_schema *next; /* waiting to be compiled */
};

typedef struct gs_pattern gs_pattern;
struct gs_pattern {
    gs_pattern *next;
    const gs_value *source;
    gs_regex *regex;
};

struct sq_schema {
    squish_alloc alloc;
    sq_arena arena;
    gs_dialect dialect; /* where no $schema says otherwise */
    bool assert_format;
    bool track;   /* some schema has unevaluated*: frames note what was evaluated */
    bool dynamic; /* some schema refers by dynamic scope */
    int32_t errors_max;
    int64_t steps_max;
    gs_document *documents;
    const gs_schema *root;
    gs_entry *entries[GS_BUCKETS];
    gs_pattern *patterns[GS_BUCKETS];
    gs_schema *waiting;
};

/* All of these work on a handle in the making. */
squish_status gs_documents_add(sq_schema *s, const squish_schema_options *opt, squish_error *err);
squish_status gs_document_scan(sq_schema *s, gs_document *d, squish_error *err);
/* What ref points at from within resource. *schema is on the waiting list if it is new. */
squish_status gs_ref_resolve(sq_schema *s, const gs_resource *from, const gs_value *ref, gs_value **target,
                             const char **fragment, squish_error *err);
const gs_resource *gs_resource_of(const gs_value *v);
gs_value *gs_anchor_find(const sq_schema *s, const gs_resource *r, const char *name, bool *dynamic);
/* The text of a metaschema of one of the drafts, or NULL (gram_schema_meta.c). */
const char *gs_metaschema(const char *uri);
gs_schema *gs_schema_of(sq_schema *s, gs_value *v, const gs_resource *r);
squish_status gs_compile(sq_schema *s, squish_error *err);
/* "#/a/b", or with the document's URI in front: the place of v in the schema. */
void gs_place(const gs_resource *r, const gs_value *v, sq_buf *out);
/* Fail with the place of v in front of the reason. */
squish_status gs_fail_at(const sq_schema *s, const gs_resource *r, const gs_value *v, squish_status code,
                         squish_error *err, const char *fmt, ...) SQ_PRINTF(6, 7);

/* ---- judging (gram_schema_eval.c) ------------------------------------------------------------ */

typedef struct gs_scope gs_scope;
struct gs_scope {
    const gs_scope *outer;
    const gs_resource *resource;
};

/* One schema applied to one value. `seen`: which members or elements somebody here has evaluated, as an
 * offset into the stack of bits. */
struct gs_frame {
    const gs_schema *schema;
    const gs_value *value;
    size_t seen;
};

struct gs_eval {
    const sq_schema *schema;
    int64_t steps;
    int frames;
    int quiet; /* above 0: only the verdict counts, nobody hears the reasons */
    int32_t n_errors;
    const gs_scope *scope;
    uint64_t *bits; /* stack of sets */
    size_t bits_used, bits_cap;
    squish_status st; /* not OK: there is no verdict */
    squish_error *err;
    squish_schema_report report;
    void *user;
};

/* The verdict of s on v. On success what it evaluated is added to `into` (may be NULL), a frame on the same
 * value. After a fault (e->st) the verdict is false and means nothing. */
bool gs_judge(gs_eval *e, const gs_schema *s, const gs_value *v, const gs_frame *into);
/* The same without words. */
bool gs_judge_quietly(gs_eval *e, const gs_schema *s, const gs_value *v, const gs_frame *into);
bool gs_complain(gs_eval *e, const gs_rule *r, const gs_value *at, const char *fmt, ...) SQ_PRINTF(4, 5);
bool gs_spend(gs_eval *e, int64_t steps); /* false: the budget is gone, e->st says so */
void gs_note_seen(gs_eval *e, const gs_frame *f, uint32_t index);
bool gs_was_seen(const gs_eval *e, const gs_frame *f, uint32_t index);
bool gs_stop(const gs_eval *e, bool ok); /* no need to look further */
bool gs_match(gs_eval *e, const gs_regex *r, const char *text, size_t n);

bool gs_rule_ref(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_dynamic_ref(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_recursive_ref(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_all_of(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_any_of(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_one_of(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_not(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_if(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_dependencies(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_properties(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_patterns(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_additional(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_names(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_items(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_old_items(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_additional_items(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_prefix(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_contains(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_unevaluated(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_type(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_enum(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_const(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_multiple(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_maximum(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_minimum(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_strict_maximum(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_strict_minimum(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_max_length(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_min_length(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_pattern(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_max_items(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_min_items(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_unique(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_max_members(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_min_members(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_required(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_dependent_required(gs_eval *e, const gs_rule *r, gs_frame *f);
bool gs_rule_format(gs_eval *e, const gs_rule *r, gs_frame *f);
#endif
