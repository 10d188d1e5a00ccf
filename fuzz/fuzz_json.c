/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_json.c - strict JSON: whatever is accepted is not nested too deeply, and parses again after being
 * written. */
#include "format/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int depth_of(const json_t *v) {
    int deepest = 0;
    size_t i;
    const char *key;
    json_t *child;
    if (json_is_array(v)) {
        json_array_foreach(v, i, child) {
            int d = depth_of(child);
            deepest = d > deepest ? d : deepest;
        }
    } else if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, child) {
            int d = depth_of(child);
            deepest = d > deepest ? d : deepest;
        }
    } else {
        return 0;
    }
    return deepest + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *j, *again;
    squish_error err = {0};
    squish_status st = sq_json_parse((const char *)data, size, SQ_JSON_DEPTH, "fuzz.json", &j, &err);
    if (st != SQUISH_OK) {
        if (j || err.code != st || !sq_utf8_valid(err.text, strlen(err.text))) abort();
        return 0;
    }
    if (depth_of(j) > SQ_JSON_DEPTH) abort();
    char *text = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text) {
        if (sq_json_parse(text, strlen(text), SQ_JSON_DEPTH, "again", &again, NULL) != SQUISH_OK) abort();
        json_decref(again);
    }
    free(text);
    int64_t i = 0;
    double d = 0;
    const char *s = NULL;
    (void)sq_json_i64(j, "a", true, -5, 5, &i, "fuzz.json", &err);
    (void)sq_json_f64(j, "a", true, -5, 5, &d, "fuzz.json", NULL);
    (void)sq_json_str(j, "a", true, &s, "fuzz.json", NULL);
    if (i < -5 || i > 5 || !(d >= -5 && d <= 5)) abort();
    json_decref(j);
    return 0;
}
