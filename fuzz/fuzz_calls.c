/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_calls.c - an answer in some style, whole and in pieces: what is told must not depend on the pieces,
 * and without a style and thoughts it must be the answer itself.
 *
 *   input: style, flags (1: calls whole only, 2: thoughts, 4: tools are known, 8: begins in thoughts),
 *          bytes of a piece, answer */
#include "support/calls_run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools_text[] = "[{\"function\":{\"name\":\"sum\",\"parameters\":{\"properties\":{\"a\":{"
                                 "\"type\":\"number\"},\"s\":{\"type\":"
                                 "\"string\"}}}}},{\"function\":{\"name\":\"f\"}}]";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 3) return 0;
    const uint8_t flags = data[1];
    json_t *tools = flags & 4 ? json_loads(tools_text, 0, NULL) : NULL;
    sq_calls_options o = {
        .manner = {.style = (sq_calls_style)(data[0] % SQ_CALLS_STYLES)}, .tools = tools, .whole = flags & 1};
    if (flags & 2) {
        o.manner.think_open = "<think>";
        o.manner.think_close = "</think>";
        if (flags & 8) o.start = SQ_CALLS_THINKS;
    }
    const char *text = (const char *)data + 3;
    const size_t n = size - 3, piece = 1 + data[2] % 16;
    char *at_once = calls_tell_pieces(&o, text, n, 0, n + 1);
    char *in_pieces = calls_tell_pieces(&o, text, n, 0, piece);
    if (strcmp(at_once, in_pieces) != 0) abort();
    if (o.manner.style == SQ_CALLS_NONE && !(flags & 2) && strncmp(at_once, text, n) != 0) abort();
    free(at_once);
    free(in_pieces);
    json_decref(tools);
    return 0;
}
