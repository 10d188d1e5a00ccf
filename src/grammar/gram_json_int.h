/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_int.h - what the files that read JSON Schema share.
 *
 * A schema becomes the language of the JSON texts that are valid for it. Nothing is widened: what cannot be
 * said exactly is refused, by keyword and JSON pointer. */
#ifndef SQ_GRAM_JSON_INT_H
#define SQ_GRAM_JSON_INT_H

#include "format/json.h"
#include "grammar/gram_int.h"

enum { GRAM_PATH_MAX = 200 };

/* A schema that a $ref leads to. */
typedef struct {
    const json_t *schema;
    enum { REF_OPEN, REF_DONE } state;
    bool has_nt;
    uint32_t nt;
    gram_sym result;
} gram_ref;

typedef struct {
    gram_rules *r;
    gram_pool *p;
    json_t *root;
    bool loose;
    int depth;
    char path[GRAM_PATH_MAX]; /* JSON pointer of the schema being read, cut where it is too long */
    gram_vec refs;
    json_t *made; /* array of schemas that were made by merging: they live as long as the reader */
} gram_schema;

gram_sym gram_from_schema_value(gram_rules *r, json_t *root, bool loose); /* a schema that was read already */
gram_sym gram_schema_value(gram_schema *c, const json_t *schema);
gram_sym gram_schema_object(gram_schema *c, const json_t *schema);
gram_sym gram_schema_array(gram_schema *c, const json_t *schema);
gram_term gram_schema_string(gram_schema *c, const json_t *schema);
/* A child of the schema, with its step on the pointer. */
gram_sym gram_schema_child(gram_schema *c, const char *step, const json_t *schema);
/* What must be said about both a and b, or NULL after a failure. Borrowed: c owns it. */
json_t *gram_schema_merge(gram_schema *c, const json_t *a, const json_t *b);
void gram_schema_refuse(gram_schema *c, const char *keyword, const char *why);
/* A count (minLength and the like): default if it is not there; false after a failure. */
bool gram_schema_count(gram_schema *c, const json_t *schema, const char *keyword, uint32_t initial,
                       uint32_t *out);

/* White space: around the contents of brackets, and after a comma and a colon. */
gram_term gram_space_inside(gram_pool *p, bool loose);
gram_term gram_comma(gram_pool *p, bool loose);
gram_term gram_colon(gram_pool *p, bool loose);
gram_term gram_quoted(gram_pool *p, gram_term inside);

#endif
