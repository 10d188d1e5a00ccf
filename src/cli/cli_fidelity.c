/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_fidelity.c - what is left of a checkpoint in a model: a table, JSON, or a page with plots. */
#include "bench/bench_plot.h"
#include "cli/cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the two models -------------------------------------------------------------------------- */

static int open_both(cli *c, const char *src, const char *model, squish_model **a, squish_model **b) {
    squish_error err = {0};
    squish_text path = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    o.warn = cli_warn;
    o.warn_user = c;
    squish_status st = cli_locate(c, src, &path, &err);
    cli_progress_part(c, NULL, 0, 0);
    if (st == SQUISH_OK) st = squish_model_open(a, path.data, &o, &err);
    squish_text_free(&path);
    if (st != SQUISH_OK) return cli_fail(c, &err);
    return cli_open_model(c, model ? model : src, false, b);
}

enum { PROMPTS_MAX = 100000, PROMPT_FILE_MAX = 64 << 20 };

/* Lines of --prompts as strings in the arena; empty lines are passed over. */
static int read_prompts(cli *c, squish_fidelity_options *o) {
    squish_text text = {0};
    const char *file = cli_text(c, OPT_PROMPTS);
    if (!file) return 0;
    int code = cli_read(c, file, true, &text);
    if (code) return code;
    size_t lines = 1;
    for (size_t i = 0; i < text.bytes; i++) lines += text.data[i] == '\n';
    const char **list = SQ_ARENA_ARRAY(&c->arena, const char *, lines);
    for (char *p = text.data; list && p && *p;) {
        char *end = strchr(p, '\n');
        const size_t n = end ? (size_t)(end - p) : strlen(p);
        if (n) list[o->n_prompts++] = sq_arena_strndup(&c->arena, p, n);
        p = end ? end + 1 : NULL;
    }
    o->prompts = list;
    squish_text_free(&text);
    if (!list) return cli_fail_text(c, 5, "out of memory for the prompts");
    if (o->n_prompts == 0 || o->n_prompts > PROMPTS_MAX)
        return cli_fail_text(c, 2, "%s has %d prompts, wanted 1 to %d", file, o->n_prompts, PROMPTS_MAX);
    return 0;
}

/* ---- as a table ------------------------------------------------------------------------------ */

static double num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void print_table(const json_t *r) {
    const json_t *t, *q = json_object_get(r, "quantised");
    size_t i;
    printf("%-44s %-10s %-10s %6s %10s %8s %10s\n", "tensor", "type", "reason", "bpw", "cosine", "SNR dB",
           "max error");
    json_array_foreach(json_object_get(r, "tensors"), i, t) {
        char snr[16] = "exact";
        if (json_is_number(json_object_get(t, "snr_db"))) snprintf(snr, sizeof snr, "%.2f", num(t, "snr_db"));
        printf("%-44s %-10s %-10s %6.2f %10.7f %8s %10.2e\n", str(t, "name"), str(t, "type"),
               str(t, "reason"), num(t, "bpw"), num(t, "cos"), snr, num(t, "max_abs"));
    }
    printf("\nall tensors        cosine mean %.7f, least %.7f (%s), largest error %.3e\n", num(r, "cos_mean"),
           num(r, "cos_min"), str(r, "worst_tensor"), num(r, "max_abs"));
    printf("quantised (%3.0f)    cosine mean %.7f, least %.7f, largest error %.3e\n", num(q, "n"),
           num(q, "cos_mean"), num(q, "cos_min"), num(q, "max_abs"));
    const char *code;
    json_t *n;
    printf("reasons           ");
    json_object_foreach(json_object_get(r, "reasons"), code, n)
        printf(" %s %lld", code, (long long)json_integer_value(n));
    printf("\n");
    const json_t *tokens = json_object_get(r, "first_tokens"), *row;
    size_t same = 0;
    json_array_foreach(tokens, i, row) {
        same += json_is_true(json_object_get(row, "same"));
        if (json_array_size(tokens) > 20) continue;
        printf("%-4s %s -> ", json_is_true(json_object_get(row, "same")) ? "same" : "DIFF",
               str(row, "prompt"));
        printf("'%s'", str(json_object_get(row, "source"), "text"));
        if (!json_is_true(json_object_get(row, "same")))
            printf(", here '%s'", str(json_object_get(row, "model"), "text"));
        printf("\n");
    }
    printf("first tokens       %zu of %zu the same\n", same, json_array_size(tokens));
}

/* ---- as a page ------------------------------------------------------------------------------- */

enum { PLOT_W = 900, PLOT_H = 260, LEFT = 60, BOTTOM = 30 };

static double value_of(const json_t *t, const char *key, bool log_scale) {
    const double v = num(t, key);
    return log_scale ? log10(v > 1e-12 ? v : 1e-12) : v;
}

/* Dots of one measure over the tensors in execution order; exact tensors are left out. */
static void draw_measure(FILE *f, const json_t *tensors, const char *key, const char *title, bool log_scale) {
    double lo = INFINITY, hi = -INFINITY;
    size_t i, n = json_array_size(tensors);
    const json_t *t;
    json_array_foreach(tensors, i, t) {
        if (!json_is_number(json_object_get(t, "snr_db"))) continue;
        const double v = value_of(t, key, log_scale);
        lo = fmin(lo, v), hi = fmax(hi, v);
    }
    if (!(lo <= hi)) return;
    if (hi - lo < 1e-9) lo -= 0.5, hi += 0.5;
    fprintf(f, "<h2>%s</h2>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", title, PLOT_W, PLOT_H);
    for (int k = 0; k <= 4; k++) {
        const double v = lo + (hi - lo) * k / 4,
                     y = (PLOT_H - BOTTOM) - (PLOT_H - BOTTOM - 10) * (double)k / 4;
        fprintf(f, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" class=\"g\"/>", LEFT, PLOT_W, y, y);
        if (log_scale)
            fprintf(f, "<text x=\"2\" y=\"%.1f\">%.1e</text>\n", y + 4, pow(10, v));
        else
            fprintf(f, "<text x=\"2\" y=\"%.1f\">%.2f</text>\n", y + 4, v);
    }
    json_array_foreach(tensors, i, t) {
        if (!json_is_number(json_object_get(t, "snr_db"))) continue;
        const double v = value_of(t, key, log_scale);
        const double x = LEFT + 8 + (PLOT_W - LEFT - 16) * (double)i / (double)(n > 1 ? n - 1 : 1);
        const double y = (PLOT_H - BOTTOM) - (PLOT_H - BOTTOM - 10) * (v - lo) / (hi - lo);
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>", x, y);
        plot_escaped(f, str(t, "name"));
        fprintf(f, ": %g</title></circle>\n", num(t, key));
    }
    fprintf(f, "<text x=\"%d\" y=\"%d\">tensors in the order they run</text></svg>\n", LEFT + 8, PLOT_H - 8);
}

static void page_table(FILE *f, const json_t *tensors) {
    size_t i;
    const json_t *t;
    fputs("<h2>Tensors</h2>\n<table><tr><th>tensor<th>type<th>reason<th>bits<th>cosine<th>SNR dB<th>largest "
          "error</tr>\n",
          f);
    json_array_foreach(tensors, i, t) {
        fputs("<tr><td>", f);
        plot_escaped(f, str(t, "name"));
        fprintf(f, "<td>%s<td>%s<td>%.2f<td>%.7f<td>", str(t, "type"), str(t, "reason"), num(t, "bpw"),
                num(t, "cos"));
        if (json_is_number(json_object_get(t, "snr_db")))
            fprintf(f, "%.2f", num(t, "snr_db"));
        else
            fputs("exact", f);
        fprintf(f, "<td>%.3e</tr>\n", num(t, "max_abs"));
    }
    fputs("</table>\n", f);
}

static const char page_head[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>squish fidelity</title>\n<style>\n"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 "
    "1rem;color:#222;background:#fff}\n"
    "svg{width:100%;height:auto}svg "
    "text{font-size:12px;fill:#555}.g{stroke:#ddd}circle{fill:#2563c9;fill-opacity:.75}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{text-align:right;"
    "padding:.1rem .5rem;"
    "border-bottom:1px solid #eee}td:first-child,th:first-child{text-align:left}\n"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}svg "
    "text{fill:#aaa}.g{stroke:#444}td,th{border-color:#333}"
    "circle{fill:#7fb0ff}}\n</style>\n";

static int write_page(const cli *c, const json_t *r, const char *src, const char *model) {
    const char *path = cli_text(c, OPT_HTML);
    if (!path) return 0;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return cli_fail_text(c, 5, "out of memory for the page");
    const json_t *tensors = json_object_get(r, "tensors"), *q = json_object_get(r, "quantised");
    fputs(page_head, f);
    fputs("<h1>Fidelity of ", f);
    plot_escaped(f, model);
    fputs("</h1>\n<p>against ", f);
    plot_escaped(f, src);
    fprintf(f, "</p>\n<p>Cosine over all tensors: mean %.7f, least %.7f (", num(r, "cos_mean"),
            num(r, "cos_min"));
    plot_escaped(f, str(r, "worst_tensor"));
    fprintf(f,
            "). Over the %.0f quantised ones: mean %.7f, least %.7f. First tokens the same: %.0f %%.</p>\n",
            num(q, "n"), num(q, "cos_mean"), num(q, "cos_min"), 100 * num(r, "first_token_agreement"));
    draw_measure(f, tensors, "snr_db", "Signal to noise, dB", false);
    draw_measure(f, tensors, "max_abs", "Largest error of a weight", true);
    draw_measure(f, tensors, "bpw", "Bits per weight", false);
    page_table(f, tensors);
    fputs("</html>\n", f);
    const bool made = fclose(f) == 0;
    squish_error err = {0};
    const squish_status st = made ? sq_os_write_file(path, text, n, &err)
                                  : sq_fail(&err, SQUISH_NO_MEMORY, "page: out of memory");
    free(text); /* the stream's */
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

/* ---- the command ----------------------------------------------------------------------------- */

int cli_fidelity(cli *c) {
    if (c->n_args < 1 || c->n_args > 2)
        return cli_fail_text(c, 2,
                             "fidelity takes a checkpoint and maybe a model (squish fidelity SRC [MODEL])");
    const char *src = c->args[0], *model = c->n_args == 2 ? c->args[1] : NULL;
    squish_model *a = NULL, *b = NULL;
    squish_error err = {0};
    squish_text text = {0};
    squish_fidelity_options o = {
        .threads = (int32_t)cli_int(c, OPT_THREADS), .progress = cli_progress, .progress_user = c};
    int code = read_prompts(c, &o);
    if (code == 0) code = open_both(c, src, model, &a, &b);
    if (code == 0) {
        squish_model_info info;
        squish_model_get_info(b, &info);
        json_t *r = NULL;
        if (squish_fidelity(a, b, &o, &text, &err) != SQUISH_OK)
            code = cli_fail(c, &err);
        else if (!(r = json_loads(text.data, 0, NULL)))
            code = cli_fail_text(c, 1, "the report cannot be read");
        if (r) code = write_page(c, r, src, info.path);
        if (r && code == 0 && cli_flag(c, OPT_JSON))
            code = cli_print_json(json_incref(r));
        else if (r && code == 0)
            print_table(r);
        json_decref(r);
    }
    squish_text_free(&text);
    squish_model_close(b);
    squish_model_close(a);
    return code;
}
