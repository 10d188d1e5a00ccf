/* SPDX-License-Identifier: Apache-2.0
 *
 * json.h - strict JSON from bytes we do not trust: jansson behind a pre-scan.
 *
 * Rejected: duplicate keys, ill-formed UTF-8, trailing bytes, numbers out of range, NUL escapes, depth over
 * the limit, and input over SQ_MAX_JSON. Objects keep the order of the text. */
#ifndef SQ_JSON_H
#define SQ_JSON_H

#include "base/base.h"
#include <jansson.h>

enum { SQ_JSON_DEPTH = 64, SQ_JSON_DEPTH_SCHEMA = 128 };

/* Parse bytes[0..n), any JSON value. *out is a new reference. `what` names the input in errors
 * ("config.json"). CORRUPT with line and column; NO_MEMORY. */
squish_status sq_json_parse(const char *bytes, size_t n, int depth_max, const char *what, json_t **out,
                            squish_error *err);

/* As json_dumps, to be freed with free(), but whole or NULL: jansson's own leaves out what it found no memory
 * for. */
char *sq_json_dump(const json_t *o, size_t flags);

/* Typed getters. A missing key (or null) leaves *out as it was and returns OK unless `required`. A value of
 * the wrong type or out of [lo, hi] is CORRUPT and names the key, the value found and the value wanted.
 * Integers may be written as floats with no fraction. */
squish_status sq_json_i64(const json_t *o, const char *key, bool required, int64_t lo, int64_t hi,
                          int64_t *out, const char *what, squish_error *err);
squish_status sq_json_f64(const json_t *o, const char *key, bool required, double lo, double hi, double *out,
                          const char *what, squish_error *err);
squish_status sq_json_bool(const json_t *o, const char *key, bool required, bool *out, const char *what,
                           squish_error *err);
/* *out points into the JSON value. */
squish_status sq_json_str(const json_t *o, const char *key, bool required, const char **out, const char *what,
                          squish_error *err);
#endif
