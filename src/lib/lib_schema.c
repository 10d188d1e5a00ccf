/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_schema.c - JSON Schema as a referee, as the public header tells it. The public handle is the room's. */
#include "grammar/schema.h"

squish_schema_options squish_schema_options_default(void) {
    return (squish_schema_options){.draft = 2020, .errors_max = 100, .steps_max = SQ_SCHEMA_STEPS};
}

squish_status squish_schema_new(squish_schema **out, const char *json, size_t bytes,
                                const squish_schema_options *opt, squish_error *err) {
    const squish_schema_options defaults = squish_schema_options_default();
    sq_schema *s = NULL;
    const squish_status st = sq_schema_new(&s, json, bytes, opt ? opt : &defaults, err);
    *out = (squish_schema *)s;
    return st;
}

void squish_schema_free(squish_schema *s) { sq_schema_free((sq_schema *)s); }

squish_status squish_schema_validate(const squish_schema *s, const char *json, size_t bytes,
                                     squish_schema_report fn, void *user, bool *valid, squish_error *err) {
    return sq_schema_validate((const sq_schema *)s, json, bytes, fn, user, valid, err);
}
