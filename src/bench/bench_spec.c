/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_spec.c - speculation: what rows of an answer cost, and what guesses bring on prompts of a file.
 *
 * Answers with and without guesses are made in turns, prompt by prompt, so that a slow minute meets both. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPEC_CTX = 128, SPEC_STEPS = 8, ROWS_MAX = SQ_GUESS_MAX + 1, ANSWER_MAX = 128 };

/* ---- c(m) ------------------------------------------------------------------------------------ */

/* Steps of m rows behind the prompt, each forgotten again, logits of all of them included. */
static squish_status rows_run(bench_speed *b, int32_t m, double *seconds, void *user, squish_error *err) {
    (void)user;
    SQ_TRY(sq_seq_sync(b->s, b->prompt, SPEC_CTX, err));
    const uint64_t begin = sq_os_now_ns();
    for (int32_t t = 0; t < SPEC_STEPS; t++) {
        SQ_TRY(sq_seq_try(b->s, b->prompt, 1, m - 1, err));
        sq_seq_truncate(b->s, SPEC_CTX);
    }
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9 / SPEC_STEPS;
    return SQUISH_OK;
}

static squish_status rows_rows(bench_speed *b, const bench_points *p, squish_error *err) {
    double one = 0;
    for (int32_t k = 0; k < p->count; k++) {
        const int32_t m = p->n[k];
        char name[32];
        snprintf(name, sizeof name, "step of %d rows", m);
        SQ_TRY(bench_take(b, m, rows_run, NULL, err));
        const double seen = (double)m * (SPEC_CTX + 0.5 * m);
        SQ_TRY(bench_speed_row(b, name, "spec rows", m, 0,
                               (bench_step){.tokens = m, .heads = m, .seen = seen, .cached = SPEC_CTX + m},
                               err));
        json_t *row = json_array_get(b->rows, json_array_size(b->rows) - 1);
        const double ms = json_number_value(json_object_get(row, "value"));
        if (k == 0) one = ms / m;
        json_object_set_new(row, "cost", json_real(ms / one));
    }
    return SQUISH_OK;
}

static squish_status step_rows(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), ROWS_MAX, &p, err));
    return bench_measure(o, SPEC_CTX + ROWS_MAX, 0, p.count, rows_rows, &p, rows, err);
}

/* ---- answers --------------------------------------------------------------------------------- */

typedef struct {
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_spec on;
    int32_t ids[2][ANSWER_MAX], n[2]; /* of the last prompt: without, with */
    double ms[2];                     /* of all, from the first token to the last */
    int64_t tokens, guessed, right, prompts, differ;
    double faster[BENCH_RUNS_MAX]; /* of each answer: time without over time with */
} answers;

static squish_status tokens_of(answers *a, const json_t *line, squish_tokens *out, squish_error *err) {
    const char *raw = json_string_value(json_object_get(line, "prompt"));
    if (raw) return squish_tokenize(a->m, raw, strlen(raw), SQUISH_TOK_BOS_EOS, out, err);
    squish_text text = {0};
    squish_template_options t = squish_template_options_default();
    char *messages = json_dumps(json_object_get(line, "messages"), JSON_COMPACT);
    if (!messages) return sq_fail(err, SQUISH_INVALID, "bench spec: a line without prompt and messages");
    t.messages_json = messages;
    squish_status st = squish_template_render(a->m, &t, &text, err);
    free(messages); /* jansson's */
    if (st == SQUISH_OK) st = squish_tokenize(a->m, text.data, text.bytes, SQUISH_TOK_SPECIAL, out, err);
    squish_text_free(&text);
    return st;
}

static squish_status answer(answers *a, int with, const squish_tokens *p, float temperature, int64_t seed,
                            double *ms, squish_error *err) {
    squish_gen_options o = squish_gen_options_default();
    squish_gen *g;
    squish_gen_event ev = {0};
    squish_gen_stats st;
    o.sampling.temperature = temperature;
    o.sampling.seed = seed;
    o.max_tokens = ANSWER_MAX;
    o.spec = with ? a->on : (squish_spec){.mode = SQUISH_SPEC_OFF};
    squish_seq_truncate(a->s, 0);
    SQ_TRY(squish_gen_new(&g, a->s, p->ids, p->count, &o, err));
    squish_status status = SQUISH_OK;
    a->n[with] = 0;
    while (status == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE) {
        status = squish_gen_next(g, &ev, err);
        if (status == SQUISH_OK && ev.id >= 0) a->ids[with][a->n[with]++] = ev.id;
    }
    squish_gen_get_stats(g, &st);
    *ms = st.decode_ms;
    a->ms[with] += st.decode_ms;
    if (with) a->tokens += st.completion_tokens, a->guessed += st.guessed_tokens, a->right += st.right_tokens;
    squish_gen_free(g);
    return status;
}

/* Both ways, whichever goes first in turns. */
static squish_status both(answers *a, const squish_tokens *p, float temperature, squish_error *err) {
    double ms[2] = {0, 0};
    const int first = (int)(a->prompts & 1);
    SQ_TRY(answer(a, first, p, temperature, a->prompts, &ms[first], err));
    SQ_TRY(answer(a, !first, p, temperature, a->prompts, &ms[!first], err));
    const bool same =
        a->n[0] == a->n[1] && memcmp(a->ids[0], a->ids[1], (size_t)a->n[0] * sizeof(int32_t)) == 0;
    a->differ += !same;
    if (a->prompts < BENCH_RUNS_MAX) a->faster[a->prompts] = ms[1] > 0 ? ms[0] / ms[1] : 1;
    a->prompts++;
    return SQUISH_OK;
}

/* The row of one temperature: tokens a second with guesses; "speedup" is of all prompts together. */
static squish_status answers_row(answers *a, const char *name, float temperature, json_t *rows,
                                 squish_error *err) {
    char full[64];
    const int32_t n = a->prompts < BENCH_RUNS_MAX ? (int32_t)a->prompts : BENCH_RUNS_MAX;
    const double steps = (double)(a->tokens - a->prompts), with = a->ms[1] / 1e3, without = a->ms[0] / 1e3;
    snprintf(full, sizeof full, "%s, T %g", name, (double)temperature);
    SQ_TRY(bench_row(rows, full, "x", a->faster, n, NAN, BENCH_LARGE_IS_GOOD, err));
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    return json_object_update_new(
               row, json_pack("{s:s, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "bench", "spec answers",
                              "speedup", with > 0 ? without / with : 1, "tok_s", with > 0 ? steps / with : 0,
                              "tok_s_off", without > 0 ? steps / without : 0, "tokens_per_step",
                              steps > a->right ? steps / (steps - (double)a->right) : 0, "guessed",
                              (json_int_t)a->guessed, "right", (json_int_t)a->right, "answers",
                              (json_int_t)a->prompts, "differ", (json_int_t)a->differ)) == 0
               ? SQUISH_OK
               : sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
}

static squish_status lines(answers *a, const bench_options *o, float temperature, squish_error *err) {
    for (size_t at = 0; at < o->text_bytes;) {
        const char *line = o->text + at;
        const size_t n = strcspn(line, "\n");
        squish_tokens p = {0};
        json_t *v = NULL;
        at += n + 1;
        if (n == 0) continue;
        SQ_TRY(sq_json_parse(line, n, SQ_JSON_DEPTH, "bench spec: a line of the prompts", &v, err));
        squish_status st = tokens_of(a, v, &p, err);
        json_decref(v);
        for (int32_t run = 0; run < o->runs && st == SQUISH_OK; run++) st = both(a, &p, temperature, err);
        squish_tokens_free(&p);
        SQ_TRY(st);
        if (!o->progress) continue;
        if (!o->progress(o->progress_user, "answers", (uint64_t)at, (uint64_t)o->text_bytes))
            return sq_fail(err, SQUISH_CANCELLED, "stopped on request");
    }
    return SQUISH_OK;
}

static squish_status answer_rows(const bench_options *o, json_t *rows, squish_error *err) {
    static const float temperatures[] = {0, 0.7f, 1};
    const squish_alloc alloc = sq_alloc_default();
    answers *a = sq_alloc_zero(&alloc, sizeof *a);
    squish_engine_options eo = squish_engine_options_default();
    const squish_model_options mo = {.tier = o->tier};
    squish_status st = SQUISH_OK;
    if (!a) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = 2048;
    a->on = o->spec;
    SQ_GUARD(squish_model_open(&a->m, o->path, &mo, err));
    SQ_GUARD(squish_engine_new(&a->e, a->m, &eo, err));
    SQ_GUARD(squish_seq_new(&a->s, a->e, err));
    for (size_t t = 0; t < SQ_COUNT(temperatures); t++) {
        a->tokens = a->guessed = a->right = a->prompts = a->differ = 0;
        a->ms[0] = a->ms[1] = 0;
        SQ_GUARD(lines(a, o, temperatures[t], err));
        SQ_GUARD(answers_row(a, squish_spec_name(o->spec.mode), temperatures[t], rows, err));
    }
fail:
    squish_seq_free(a->s);
    squish_engine_free(a->e);
    squish_model_close(a->m);
    sq_alloc_free(&alloc, a, sizeof *a);
    return st;
}

squish_status bench_spec(const bench_options *o, json_t *rows, squish_error *err) {
    return o->text ? answer_rows(o, rows, err) : step_rows(o, rows, err);
}
