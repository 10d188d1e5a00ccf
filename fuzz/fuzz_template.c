/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_template.c - hostile template source: compile, open what was compiled, render it.
 *
 * Input: template source, then optionally a NUL byte and the variables as JSON. What compiles must open; what
 * renders twice renders the same; limits hold. */
#include "format/json.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char some_vars[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi \\u00e9\"},{\"role\":\"assistant\",\"content\":null,"
    "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.5}}}]}],\"tools\":[],"
    "\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"x\":[1,\"a\",{\"b\":[]}]}";

static squish_status render(const sq_tmpl *t, const json_t *vars, sq_buf *out) {
    const sq_tmpl_limits limits = {.now_unix = 1767323045, .steps_max = 100000, .output_max = 1 << 20};
    squish_error err = {0};
    squish_status st = sq_tmpl_render(t, vars, &limits, NULL, out, &err);
    if (st != SQUISH_OK && (err.text[0] == 0 || out->len != 0)) abort();
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - data) : size;
    json_t *vars = NULL;
    squish_error err = {0}, open_err = {0};
    sq_buf blob, a, b;
    sq_tmpl_view view;
    const sq_tmpl *t;
    sq_buf_init(&blob, NULL, 64 << 20);
    sq_buf_init(&a, NULL, 2 << 20);
    sq_buf_init(&b, NULL, 2 << 20);
    if (nul) sq_json_parse((const char *)nul + 1, size - n - 1, SQ_JSON_DEPTH, "variables", &vars, NULL);
    if (!vars) vars = json_loads(some_vars, 0, NULL);
    if (sq_tmpl_compile((const char *)data, n, NULL, &blob, &err) == SQUISH_OK) {
        if (sq_tmpl_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, &t, &open_err) != SQUISH_OK)
            abort();
        if (strlen(sq_tmpl_source(t)) != n) abort();
        squish_status first = render(t, vars, &a), second = render(t, vars, &b);
        if (first != second || a.len != b.len || (a.len > 0 && memcmp(a.data, b.data, a.len) != 0)) abort();
    } else if (err.text[0] == 0) {
        abort();
    }
    json_decref(vars);
    sq_buf_deinit(&blob);
    sq_buf_deinit(&a);
    sq_buf_deinit(&b);
    return 0;
}
