/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_report.c - what the report says of a tensor: one line of JSON that travels in the journal, so that a
 * resumed build reports as an undisturbed one does. */
#include "forge/forge_build.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* JSON has no infinity. */
static double bounded(double v) { return fmin(v, DBL_MAX); }

/* Adds an optional field; a line that lost one for want of memory is none. */
static json_t *with(json_t *line, const char *key, json_t *value) {
    if (line && value && json_object_set(line, key, value) == 0) {
        json_decref(value);
        return line;
    }
    json_decref(value);
    json_decref(line);
    return NULL;
}

json_t *sq_build_quantised_line(const sq_want *w, const sq_recipe *r, const sq_build_made *made,
                                const sq_fidelity *f) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "name", w->name, "type",
                          sq_wtype_get(r->type)->name, "reason", r->reason, "method", made->method, "cos",
                          sq_fidelity_cos(f), "snr_db", sq_fidelity_snr_db(f), "max_abs", bounded(f->max_abs),
                          "worst_row_rel", bounded(f->worst_row_rel));
    if (r->rank > 0) o = with(o, "rank", json_integer(r->rank));
    if (made->folded) o = with(o, "folded", json_true());
    if (made->fallback[0]) o = with(o, "fallback", json_string(made->fallback));
    return o;
}

json_t *sq_build_kept_line(const sq_want *w, const sq_recipe *r, bool folded) {
    json_t *o = json_pack("{s:s, s:s, s:s}", "name", w->name, "type", sq_wtype_get(r->type)->name, "reason",
                          r->reason);
    return folded ? with(o, "folded", json_true()) : o;
}

static void count_quantised(sq_build *b, const char *name, double cosine, double snr) {
    squish_compress_result *out = b->j->out;
    if (out->n_quantised == 0 || cosine < out->cos_min) {
        out->cos_min = cosine;
        snprintf(out->worst_tensor, sizeof out->worst_tensor, "%s", name);
    }
    if (out->n_quantised == 0 || snr < out->snr_db_min) out->snr_db_min = snr;
    out->n_quantised++;
    b->cos_sum += cosine;
}

/* Takes the line into the report and the sums; the same for a fresh line and one from the journal. */
static squish_status take_line(sq_build *b, json_t *line, squish_error *err) {
    const char *name = json_string_value(json_object_get(line, "name"));
    const json_t *cosine = json_object_get(line, "cos");
    if (cosine && name)
        count_quantised(b, name, json_real_value(cosine), json_real_value(json_object_get(line, "snr_db")));
    else
        b->j->out->n_passthrough++;
    if (json_object_get(line, "fallback")) b->j->out->n_fallback++;
    if (!line || json_array_append_new(b->report, line) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    return SQUISH_OK;
}

/* ---- complete tensors -------------------------------------------------------------------------- */

static squish_status note(sq_build *b, size_t index, const json_t *line, squish_error *err) {
    char *text = json_dumps(line, JSON_COMPACT);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    const squish_status st = sq_sqw_writer_tensor_done(b->w, index, text, strlen(text), err);
    free(text); /* jansson's */
    return st;
}

static void note_open(sq_build *b) {
    sq_build_aside *a = &b->aside;
    for (size_t i = 0; i < a->n_open && a->err.code == SQUISH_OK; i++)
        if (!a->open[i].noted && note(b, a->open[i].index, a->open[i].line, &a->err) == SQUISH_OK)
            a->open[i].noted = true;
}

void sq_build_work_aside(sq_build *b) {
    sq_build_aside *a = &b->aside;
    sq_want w;
    note_open(b);
    if (a->next == SIZE_MAX || !sq_config_want(&b->j->m->cfg, a->next, &w)) return;
    a->sum = sq_forge_source_sum(b->j->m, &w);
    a->summed = a->next;
}

squish_status sq_build_settle(sq_build *b, squish_error *err) {
    sq_build_aside *a = &b->aside;
    size_t taken = 0;
    squish_status st = SQUISH_OK;
    note_open(b);
    while (st == SQUISH_OK && taken < a->n_open && a->open[taken].noted)
        st = take_line(b, a->open[taken++].line, err);
    memmove(a->open, a->open + taken, (a->n_open - taken) * sizeof *a->open);
    a->n_open -= taken;
    if (st != SQUISH_OK || a->err.code == SQUISH_OK) return st;
    return sq_fail(err, a->err.code, "%s", a->err.text);
}

void sq_build_aside_clear(sq_build *b) {
    for (size_t i = 0; i < b->aside.n_open; i++) json_decref(b->aside.open[i].line);
    b->aside = (sq_build_aside){.next = SIZE_MAX, .summed = SIZE_MAX};
}

squish_status sq_build_close(sq_build *b, size_t index, json_t *line, squish_error *err) {
    sq_build_aside *a = &b->aside;
    if (!line) return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    if (a->n_open == SQ_BUILD_OPEN_MAX) {
        const squish_status st = sq_build_settle(b, err);
        if (st != SQUISH_OK) {
            json_decref(line);
            return st;
        }
    }
    a->open[a->n_open].index = index;
    a->open[a->n_open].line = line;
    a->open[a->n_open++].noted = false;
    return SQUISH_OK;
}

squish_status sq_build_reopen(sq_build *b, size_t index, squish_error *err) {
    size_t n = 0;
    const char *note = sq_sqw_writer_note(b->w, index, &n);
    json_t *line = NULL;
    SQ_TRY(sq_json_parse(note, n, SQ_JSON_DEPTH, "journal", &line, err));
    return take_line(b, line, err);
}
