/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tmpl_blob.c - hostile compiled templates, as they could lie in a .sqw file: open refuses them, or
 * rendering stays inside its limits. Magic and sizes are put right first, so that the checks behind them are
 * reached. */
#include "text/tmpl_int.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair_header(uint8_t *blob, size_t size) {
    sq_tmpl_header h;
    if (size < sizeof h) return;
    memcpy(&h, blob, sizeof h);
    uint64_t tables = sizeof h + (uint64_t)h.n_nodes * sizeof(sq_tmpl_node) + (uint64_t)h.n_lists * 4 +
                      (uint64_t)h.n_strings * sizeof(sq_tmpl_string);
    h.magic = SQ_TMPL_MAGIC;
    h.version = SQ_TMPL_VERSION;
    h.bytes = (uint32_t)size;
    if (tables <= size) h.pool_bytes = (uint32_t)(size - tables);
    memcpy(blob, &h, sizeof h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *exact = malloc(size ? size : 1); /* aligned, and exact for ASan */
    if (!exact) return 0;
    if (size) memcpy(exact, data, size);
    repair_header(exact, size);
    const sq_tmpl_limits limits = {.steps_max = 100000, .output_max = 1 << 20};
    sq_tmpl_view view;
    const sq_tmpl *t;
    squish_error err = {0};
    if (sq_tmpl_open(&view, (sq_span){exact, size}, &t, &err) == SQUISH_OK) {
        json_t *vars =
            json_loads("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"x\":[1,2]}", 0, NULL);
        sq_buf out;
        sq_buf_init(&out, NULL, 2 << 20);
        squish_status st = sq_tmpl_render(t, vars, &limits, NULL, &out, &err);
        if (st != SQUISH_OK && err.text[0] == 0) abort();
        sq_buf_deinit(&out);
        json_decref(vars);
    } else if (err.text[0] == 0) {
        abort();
    }
    free(exact);
    return 0;
}
