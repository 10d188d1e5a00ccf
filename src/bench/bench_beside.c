/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_beside.c - figures that somebody else reported, beside ours and the limit of this machine.
 *
 * The others' are those of the report of the first Squish (Python and MLX on Apple silicon). They were
 * measured elsewhere and on another model: what stands beside them says what was measured here, not who is
 * faster. */
#include "bench/bench.h"
#include "bench/bench_plot.h"

#include <math.h>
#include <string.h>

static const json_t *find(const json_t *rows, const char *name) {
    size_t i;
    const json_t *r;
    json_array_foreach(rows, i, r) {
        const char *is = json_string_value(json_object_get(r, "name"));
        if (name && is && strcmp(is, name) == 0) return r;
    }
    return NULL;
}

static json_t *scaled(const json_t *r, const char *key, double scale) {
    const json_t *v = json_object_get(r, key);
    return json_is_number(v) && isfinite(json_number_value(v)) ? json_real(json_number_value(v) * scale)
                                                               : NULL;
}

json_t *bench_beside(const bench_claim *list, size_t n, const json_t *rows) {
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++) {
        const bench_claim *c = &list[i];
        const json_t *r = find(rows, c->row);
        const double scale = c->scale != 0 ? c->scale : 1;
        json_t *value = r ? scaled(r, c->key ? c->key : "value", scale) : NULL;
        json_t *limit = r && !c->key ? scaled(r, "limit", scale) : NULL;
        const json_t *share = limit ? json_object_get(r, "share") : NULL;
        json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:s, s:s}", "table", c->table, "name", c->name, "seed",
                              c->seed, "value", value ? value : json_null(), "unit", c->unit, "note",
                              c->note  ? c->note
                              : c->row ? (value ? "" : "not measured in this run")
                                       : "not in this build");
        if (limit) json_object_set_new(o, "limit", limit);
        if (share) json_object_set(o, "share", (json_t *)(uintptr_t)share);
        json_array_append_new(out, o);
    }
    return out;
}

/* ---- as a part of a page --------------------------------------------------------------------- */

static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void put_cell(FILE *f, const json_t *v) {
    const double x = json_number_value(v);
    fputs("<td>", f);
    if (json_is_number(v)) fprintf(f, fabs(x) >= 1000 ? "%.0f" : fabs(x) >= 100 ? "%.4g" : "%.3g", x);
}

void bench_beside_put(FILE *f, const json_t *beside) {
    size_t i;
    const json_t *r;
    const char *table = "";
    json_array_foreach(beside, i, r) {
        if (strcmp(table, str(r, "table")) != 0) {
            if (*table) fputs("</table></div>\n", f);
            table = str(r, "table");
            fputs("<h2>", f);
            plot_escaped(f, table);
            fputs("</h2>\n<div class=\"rows "
                  "beside\"><table>\n<tr><th><th>reported<th>here<th><th>limit<th>of the "
                  "limit<th></tr>\n",
                  f);
        }
        fputs("<tr><td>", f);
        plot_escaped(f, str(r, "name"));
        fputs("<td>", f);
        plot_escaped(f, str(r, "seed"));
        put_cell(f, json_object_get(r, "value"));
        fputs("<td class=\"unit\">", f);
        plot_escaped(f, str(r, "unit"));
        put_cell(f, json_object_get(r, "limit"));
        fputs("<td>", f);
        if (json_object_get(r, "share")) {
            const double share = json_number_value(json_object_get(r, "share"));
            fprintf(f, "<span class=\"meter\"><i style=\"width:%.0f%%\"></i></span>%.0f %%",
                    100 * fmin(fmax(share, 0), 1), 100 * share);
        }
        fputs("<td class=\"note\">", f);
        plot_escaped(f, str(r, "note"));
        fputs("</tr>\n", f);
    }
    if (*table) fputs("</table></div>\n", f);
}

void bench_checks_put(FILE *f, const json_t *checks) {
    size_t i;
    const json_t *c;
    if (!json_array_size(checks)) return;
    fputs("<h2>Checks</h2>\n<div class=\"rows\"><table>\n", f);
    json_array_foreach(checks, i, c) {
        fprintf(f, "<tr><td>%s <td class=\"note\">",
                json_is_true(json_object_get(c, "ok")) ? "ok" : "<b>FAILED</b>");
        plot_escaped(f, str(c, "name"));
        fputs("<td class=\"note\">", f);
        plot_escaped(f, str(c, "detail"));
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}
