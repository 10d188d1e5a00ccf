/* SPDX-License-Identifier: Apache-2.0
 *
 * schema.h - JSON Schema as a referee: does a finished value satisfy a schema?
 *
 * Dialects: 2020-12 whole, and 2019-09, 7, 6 and 4 by $schema. A schema is read once into an immutable handle
 * that any number of threads may use. Numbers are compared as exact decimals, strings are counted in code
 * points, patterns are ECMA regexes run by PCRE2 under limits, and nothing is ever fetched: a $ref finds the
 * schema itself, the documents registered with it, and the metaschemas. */
#ifndef SQ_SCHEMA_H
#define SQ_SCHEMA_H

#include "base/base.h"

enum {
    SQ_SCHEMA_BYTES_MAX = 1 << 20,     /* of one schema document */
    SQ_SCHEMA_INSTANCE_MAX = 32 << 20, /* bytes of one instance */
    SQ_SCHEMA_NESTING_MAX = 128,       /* levels of either */
    SQ_SCHEMA_DIGITS_MAX = 1024,       /* significant digits of one number */
    SQ_SCHEMA_EXPONENT_MAX = 1000000,  /* of one number, either way */
    SQ_SCHEMA_FRAMES_MAX = 1000,       /* schemas inside one another while one value is judged */
    SQ_SCHEMA_STEPS = 10000000         /* of work on one instance, unless the options say otherwise */
};

typedef struct sq_schema sq_schema;

/* The three functions of the public header's section on schemas, with the same contracts. */
squish_status sq_schema_new(sq_schema **out, const char *json, size_t bytes, const squish_schema_options *opt,
                            squish_error *err);
void sq_schema_free(sq_schema *s);
squish_status sq_schema_validate(const sq_schema *s, const char *json, size_t bytes, squish_schema_report fn,
                                 void *user, bool *valid, squish_error *err);
#endif
