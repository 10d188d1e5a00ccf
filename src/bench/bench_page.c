/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_page.c - a report as a page that stands alone: headline figures, a roofline (Williams et al., 2009),
 * time per token against context, batch and threads, and every row. */
#include "bench/bench_page_int.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>squish "
    "bench</title>\n<style>\n"
    ":root{color-scheme:light dark;--fg:#1c2430;--soft:#5d6878;--bg:#f6f7f9;--card:#fff;--edge:#e2e6ec;"
    "--grid:#eceff3;--a:#2458c5;--b:#0b8a78;--c:#b4570c;"
    "--d:#8a3fb5;--e:#b3204d;--g:#6b7a12;--limit:#8a94a3}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e3e7ee;--soft:#98a3b3;--bg:#13161b;--card:#1b2027;"
    "--edge:#2c333d;--grid:#262c35;--a:#7da7ff;--b:#4fd0bb;--c:#f2a65e;"
    "--d:#c99bf0;--e:#ff8fa8;--g:#c3d15a;--limit:#7c8796}}\n"
    "*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);"
    "max-width:82rem;margin:0 auto;padding:2.5rem 1.5rem 4rem}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0;letter-spacing:-.01em}h2{font-size:1.15rem;margin:2.5rem 0 "
    ".25rem}"
    "p{margin:.25rem 0 1rem;color:var(--soft);max-width:48rem}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:1rem;margin:1.75rem 0 "
    "0}"
    ".tile,figure,.rows{background:var(--card);border:1px solid var(--edge);border-radius:10px}"
    ".tile{padding:1rem 1.15rem}.tile span{display:block;color:var(--soft);font-size:.86rem}"
    ".tile b{font-size:1.9rem;line-height:1.3;font-weight:650;letter-spacing:-.02em}.tile b "
    "small{font-size:.95rem;"
    "font-weight:400;color:var(--soft);letter-spacing:0}\n"
    ".meter{display:block;height:5px;border-radius:3px;background:var(--grid);overflow:hidden;margin:.45rem "
    "0 .3rem}"
    ".meter i{display:block;height:100%;background:var(--a)}\n"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr));gap:1rem;margin:"
    "1rem 0}"
    "figure{margin:0;padding:1rem 1.15rem}.wide{grid-column:1/-1;overflow-x:auto}.wide "
    "svg{min-width:44rem}figcaption{font-weight:600}"
    ".legend{font-size:.86rem;margin:.1rem 0 .5rem}.legend span{margin-right:1.1rem;white-space:nowrap}"
    ".legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:50%;margin-right:.4rem;"
    "background:currentColor;vertical-align:-.05rem}.legend .rule i{height:0;border-radius:0;width:1.1rem;"
    "border-top:2px dashed;background:none;vertical-align:.22rem}"
    ".legend .a i{color:var(--a)}.legend .b i{color:var(--b)}.legend .c i{color:var(--c)}"
    ".legend .d i{color:var(--d)}.legend .e i{color:var(--e)}.legend .g i{color:var(--g)}"
    ".legend .limit i{color:var(--limit)}\n"
    "svg{width:100%;height:auto;display:block}svg text{font-size:12.5px;fill:var(--soft)}"
    ".grid{stroke:var(--grid)}.axis{stroke:var(--limit)}.line{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}"
    ".line.d{stroke:var(--d)}.line.e{stroke:var(--e)}.line.g{stroke:var(--g)}"
    ".line.limit{stroke:var(--limit);stroke-dasharray:5 4;stroke-width:1.6}"
    ".dot{stroke:var(--card);stroke-width:1.5}.dot.a{fill:var(--a)}.dot.b{fill:var(--b)}.dot.c{fill:var(--c)}"
    ".dot.d{fill:var(--d)}.dot.e{fill:var(--e)}.dot.g{fill:var(--g)}"
    "svg .label{font-weight:600;paint-order:stroke;stroke:var(--card);stroke-width:3px}svg "
    ".label.a{fill:var(--a)}svg .label.b{fill:var(--b)}svg .label.c{fill:var(--c)}\n"
    ".rows{overflow-x:auto;padding:.35rem 1.15rem .6rem;margin-top:1rem}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "td,th{text-align:right;padding:.38rem .6rem;border-bottom:1px solid var(--grid);white-space:nowrap}"
    "th{color:var(--soft);font-weight:500;font-size:.86rem}tr:last-child td{border:0}"
    "td:first-child,th:first-child{text-align:left;padding-left:0}td "
    ".meter{display:inline-block;width:4.5rem;"
    "margin:0 .6rem .1rem 0;vertical-align:middle}td small,.unit{color:var(--soft)}.unit{text-align:left;"
    "padding-left:0}td.note{text-align:left;white-space:normal;min-width:9rem;color:var(--soft)}\n"
    "@media(max-width:40rem){body{padding:1rem .6rem}.rows{padding:.2rem .5rem}td,th{padding:.3rem .35rem}}\n"
    "@media print{:root{--fg:#000;--soft:#333;--bg:#fff;--card:#fff;--edge:#bbb;--grid:#ddd}"
    "body{max-width:none;padding:0;font-size:11px}.rows{overflow:visible}figure,.tile,tr{break-inside:avoid}"
    "td,th{white-space:normal;padding:.15rem .3rem}}\n</style></head><body>\n";

/* ---- headline -------------------------------------------------------------------------------- */

static void put_meter(FILE *f, double share) {
    fprintf(f, "<span class=\"meter\"><i style=\"width:%.0f%%\"></i></span>", 100 * fmin(fmax(share, 0), 1));
}

static void put_value(FILE *f, double v) {
    if (v >= 1000)
        fprintf(f, "%.0f", v);
    else
        fprintf(f, v >= 100 ? "%.0f" : v >= 10 ? "%.1f" : "%.3g", v);
}

static void tile(FILE *f, const json_t *rows, const char *name, const char *label) {
    size_t i;
    const json_t *r;
    json_array_foreach(rows, i, r) {
        if (strcmp(row_text(r, "name"), name) != 0) continue;
        fprintf(f, "<div class=\"tile\"><span>%s</span><b>", label);
        put_value(f, row_number(r, "value"));
        fprintf(f, " <small>%s</small></b>", row_text(r, "unit"));
        if (json_object_get(r, "share")) {
            put_meter(f, row_number(r, "share"));
            fprintf(f, "<span>%.0f %% of the limit</span>", 100 * row_number(r, "share"));
        }
        fputs("</div>\n", f);
        return;
    }
}

static void put_title(FILE *f, const json_t *report) {
    char day[32] = "";
    const time_t now = (time_t)sq_os_unix_time();
    struct tm tm;
    if (gmtime_r(&now, &tm)) strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &tm);
    const char *model = row_text(report, "model"), *slash = strrchr(model, '/');
    fputs("<h1>", f);
    plot_escaped(f, *model ? (slash && slash[1] ? slash + 1 : model) : "This machine");
    fputs("</h1>\n<p>", f);
    plot_escaped(f, row_text(report, "cpu"));
    fprintf(f, ", %.0f threads, %s", row_number(report, "threads"), row_text(report, "isa"));
    if (*model) fprintf(f, ", tier %s", row_text(report, "tier"));
    fputs("<br>squish ", f);
    plot_escaped(f, row_text(report, "squish"));
    fprintf(f, ", %s</p>\n", day);
}

/* ---- plots ----------------------------------------------------------------------------------- */

enum { NOTES = 128 };
typedef struct {
    char text[NOTES][96];
    size_t n;
} notes;

static const char *note(notes *n, const json_t *r) {
    if (n->n == NOTES) return NULL;
    char *t = n->text[n->n++];
    snprintf(t, sizeof n->text[0], "%s: %.4g %s, %.0f %% of the limit", row_text(r, "name"),
             row_number(r, "value"), row_text(r, "unit"), 100 * row_number(r, "share"));
    return t;
}

/* Milliseconds per token of a bench's rows against their point, and the machine's own. */
static void add_cost(plot *p, const json_t *rows, const char *bench, const char *name, const char *limit_name,
                     const char *style, bool below, notes *n) {
    plot_series *s = &p->s[p->n], *limit = &p->s[p->n + 1];
    *limit = (plot_series){.name = limit_name, .style = "limit", .line = true};
    *s = (plot_series){
        .name = name, .style = style, .line = true, .dots = true, .labels = true, .below = below};
    size_t i;
    const json_t *r;
    json_array_foreach(rows, i, r) {
        if (!row_of_bench(r, bench)) continue;
        const double ms = 1e3 / row_number(r, "value");
        plot_add(s, row_number(r, "at"), ms, ms, note(n, r));
        plot_add(limit, row_number(r, "at"), 1e3 / row_number(r, "limit"), 0, NULL);
    }
    p->n += 2;
}

static void put_scaling(FILE *f, const json_t *rows, notes *n) {
    plot context = {.title = "One answer, by context",
                    .x_name = "tokens of context",
                    .y_name = "ms per token",
                    .log_x = true};
    plot batch = {.title = "Answers at once, by batch",
                  .x_name = "timelines of 128 tokens in a step",
                  .y_name = "ms per token, all together",
                  .log_x = true};
    plot prompt = {.title = "Reading a prompt, by its length",
                   .x_name = "tokens of the prompt",
                   .y_name = "ms per token",
                   .log_x = true};
    plot threads = {.title = "By threads", .x_name = "threads", .y_name = "ms per token"};
    add_cost(&context, rows, "decode", "squish", "limit of the machine", "a", false, n);
    add_cost(&batch, rows, "batch", "squish", "limit of the machine", "c", false, n);
    add_cost(&prompt, rows, "prefill", "squish", "limit of the machine", "b", false, n);
    add_cost(&threads, rows, "decode by threads", "decode", "limits of as many threads", "a", false, n);
    add_cost(&threads, rows, "prefill by threads", "prompt of 128 tokens", NULL, "b", false, n);
    fputs("<h2>What a token costs</h2>\n<p>Lower is better. The dashed line is what memory and arithmetic "
          "allow, "
          "measured between the runs.</p>\n<div class=\"plots\">\n",
          f);
    plot_write(f, &context);
    plot_write(f, &prompt);
    plot_write(f, &batch);
    plot_write(f, &threads);
    fputs("</div>\n", f);
}

/* Median over the rows that have the key. */
static double typical(const json_t *rows, const char *key) {
    double v[256];
    int32_t n = 0;
    size_t i;
    const json_t *r;
    json_array_foreach(rows, i, r) {
        const bool whole =
            row_of_bench(r, "decode") || row_of_bench(r, "prefill") || row_of_bench(r, "batch");
        if (whole && n < (int32_t)SQ_COUNT(v)) v[n++] = row_number(r, key);
    }
    return n ? bench_median(v, n) : NAN;
}

static void put_roofline(FILE *f, const json_t *rows, notes *n) {
    static const struct {
        const char *bench, *name, *style;
        bool below, labels;
    } kinds[] = {{"decode", "decode", "a", false, false},
                 {"batch", "batch, from 2", "c", true, true},
                 {"prefill", "prompt, by its length", "b", false, true}};
    const double read = typical(rows, "read_gb_s"), dots = typical(rows, "dots_gop_s");
    plot p = {.title = "Roofline",
              .x_name = "operations per byte read",
              .y_name = "billion operations a second",
              .log_x = true,
              .log_y = true,
              .wide = true};
    char roof[96];
    double lo = INFINITY, hi = 0;
    if (!(read > 0) || !(dots > 0)) return;
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        plot_series *s = &p.s[p.n++];
        *s = (plot_series){.name = kinds[k].name,
                           .style = kinds[k].style,
                           .dots = true,
                           .labels = kinds[k].labels,
                           .below = kinds[k].below};
        size_t i;
        const json_t *r;
        json_array_foreach(rows, i, r) {
            if (!row_of_bench(r, kinds[k].bench) || (kinds[k].below && row_number(r, "at") < 2)) continue;
            const double x = row_number(r, "ops_per_byte");
            plot_add(s, x, row_number(r, "gop_s"), row_number(r, "at"), note(n, r));
            lo = fmin(lo, x), hi = fmax(hi, x);
        }
    }
    const double ridge = dots / read, left = fmin(lo / 2, ridge / 2), right = fmax(hi * 2, ridge * 2);
    snprintf(roof, sizeof roof, "roof: memory %.0f GB/s, int8 dot products %.0f Gop/s", read, dots);
    plot_series *s = &p.s[p.n++];
    *s = (plot_series){.name = roof, .style = "limit", .line = true};
    plot_add(s, left, left * read, 0, NULL);
    plot_add(s, ridge, dots, 0, NULL);
    plot_add(s, right, dots, 0, NULL);
    fputs("<h2>Against the machine</h2>\n<p>Left of the bend memory decides, right of it arithmetic. "
          "Attention runs "
          "in floats, whose peak is lower than the roof drawn here, so long prompts cannot reach it.</p>\n"
          "<div class=\"plots\">\n",
          f);
    plot_write(f, &p);
    fputs("</div>\n", f);
}

/* ---- every row ------------------------------------------------------------------------------- */

static void put_rows(FILE *f, const json_t *rows) {
    size_t i;
    const json_t *r;
    fputs("<h2>Every figure</h2>\n<p>Medians; noise is half the range of the middle half of the runs.</p>\n"
          "<div class=\"rows\"><table>\n<tr><th><th>median<th><th>noise<th>least<th>most<th>runs<th>limit"
          "<th>of the limit</tr>\n",
          f);
    json_array_foreach(rows, i, r) {
        static const char *const key[] = {"noise", "min", "max"};
        fputs("<tr><td>", f);
        plot_escaped(f, row_text(r, "name"));
        fputs("<td>", f);
        put_value(f, row_number(r, "value"));
        fprintf(f, "<td class=\"unit\">%s", row_text(r, "unit"));
        for (size_t k = 0; k < SQ_COUNT(key); k++) {
            fputs("<td>", f);
            put_value(f, row_number(r, key[k]));
        }
        fprintf(f, "<td>%.0f<td>", row_number(r, "runs"));
        if (json_object_get(r, "limit")) {
            put_value(f, row_number(r, "limit"));
            fputs("<td>", f);
            put_meter(f, row_number(r, "share"));
            fprintf(f, "%.0f %%", 100 * row_number(r, "share"));
        } else {
            fputs("<td>", f);
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

static void put_page(FILE *f, const json_t *report, notes *n) {
    const json_t *rows = json_object_get(report, "rows");
    bool speed = false;
    size_t i;
    const json_t *r;
    json_array_foreach(rows, i, r) speed |= json_object_get(r, "ops_per_byte") != NULL;
    fputs(head, f);
    put_title(f, report);
    fputs("<div class=\"tiles\">\n", f);
    tile(f, rows, "decode at 16", "One answer");
    tile(f, rows, "prefill 512", "Reading a prompt of 512 tokens");
    tile(f, rows, "first token after 128", "First token after a prompt of 128");
    tile(f, rows, "batch 8", "Eight answers at once");
    tile(f, rows, "encode whole", "Text to tokens, one thread");
    fputs("</div>\n", f);
    bench_checks_put(f, json_object_get(report, "checks"));
    bench_beside_put(f, json_object_get(report, "beside"));
    if (speed) put_roofline(f, rows, n);
    if (speed) put_scaling(f, rows, n);
    bench_page_kv(f, rows);
    put_rows(f, rows);
    fputs("</body></html>\n", f);
}

/* ---- files ----------------------------------------------------------------------------------- */

static squish_status write_file(const char *dir, const char *name, const char *text, size_t n,
                                squish_error *err) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "report: the path of %s is too long", name);
    return sq_os_write_file(path, text, n, err);
}

squish_status bench_page_write(const json_t *report, const char *dir, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    char *page = NULL, *text = NULL;
    size_t n = 0;
    squish_status st = SQUISH_OK;
    notes *said = sq_alloc_zero(&a, sizeof *said);
    FILE *f = said ? open_memstream(&page, &n) : NULL;
    if (f) put_page(f, report, said);
    if (!f || fclose(f) != 0 || !(text = json_dumps(report, JSON_INDENT(1))))
        st = sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    if (st == SQUISH_OK) st = sq_os_mkdirs(dir, err);
    if (st == SQUISH_OK) st = write_file(dir, "index.html", page, n, err);
    if (st == SQUISH_OK) st = write_file(dir, "bench.json", text, strlen(text), err);
    free(text); /* jansson's */
    free(page); /* the stream's */
    sq_alloc_free(&a, said, sizeof *said);
    return st;
}
