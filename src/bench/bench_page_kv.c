/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_page_kv.c - the formats of the cache against context, a line for each of them. */
#include "bench/bench_page_int.h"

static const struct {
    const char *kv, *style;
} formats[] = {{"f16", "a"}, {"q8", "b"}, {"k8v4", "c"}, {"q4", "d"}, {"k4v2", "e"}, {"q2", "g"}};

/* Rows "what at N, FORMAT" of bench kv. */
static void add_rows(plot *p, const json_t *rows, const char *what) {
    for (size_t k = 0; k < SQ_COUNT(formats); k++) {
        plot_series *s = &p->s[p->n++];
        *s = (plot_series){.name = formats[k].kv, .style = formats[k].style, .line = true, .dots = true};
        size_t i;
        const json_t *r;
        json_array_foreach(rows, i, r) {
            if (!row_of_bench(r, "kv") || strcmp(row_text(r, "kv"), formats[k].kv) != 0) continue;
            const char *name = row_text(r, "name");
            if (strncmp(name, what, strlen(what)) != 0) continue;
            plot_add(s, row_number(r, "at"), row_number(r, "value"), 0, name);
        }
    }
}

/* "by_position" of the rows of quality. */
static void add_errors(plot *p, const json_t *rows) {
    for (size_t k = 0; k < SQ_COUNT(formats); k++) {
        plot_series *s = &p->s[p->n++];
        *s = (plot_series){.name = formats[k].kv, .style = formats[k].style, .line = true, .dots = true};
        size_t i, j;
        const json_t *r, *point;
        json_array_foreach(rows, i, r) {
            if (!row_of_bench(r, "kv") || strcmp(row_text(r, "kv"), formats[k].kv) != 0) continue;
            json_array_foreach(json_object_get(r, "by_position"), j, point)
                plot_add(s, row_number(point, "position"), row_number(point, "value"), 0,
                         row_text(r, "name"));
        }
    }
}

static size_t points_of(const plot *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += p->s[i].n;
    return n;
}

void bench_page_kv(FILE *f, const json_t *rows) {
    plot attention = {.title = "Attention of a token, all layers",
                      .x_name = "tokens of context",
                      .y_name = "ms",
                      .log_x = true};
    plot token = {
        .title = "A whole token", .x_name = "tokens of context", .y_name = "ms", .log_x = true};
    plot bytes = {.title = "Memory of a token, by what the process grew",
                  .x_name = "tokens of context",
                  .y_name = "bytes",
                  .log_x = true};
    plot error = {.title = "Distance to f16 (KL of the next token)",
                  .x_name = "position in the text",
                  .y_name = "nats",
                  .log_x = true,
                  .log_y = true};
    add_rows(&attention, rows, "attention at ");
    add_rows(&token, rows, "token at ");
    add_rows(&bytes, rows, "bytes a token at ");
    add_errors(&error, rows);
    if (!points_of(&attention) && !points_of(&error)) return;
    fputs("<h2>The cache in fewer bits</h2>\n<p>Lower is better. Formats took turns in one run; f16 is as "
          "keys and values were computed.</p>\n<div class=\"plots\">\n",
          f);
    plot_write(f, &attention);
    plot_write(f, &token);
    plot_write(f, &bytes);
    plot_write(f, &error);
    fputs("</div>\n", f);
}
