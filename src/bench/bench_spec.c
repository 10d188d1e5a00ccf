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
        SQ_TRY(sq_seq_try(b->s, b->prompt, 1, m - 1, NULL, err));
        sq_seq_truncate(b->s, SPEC_CTX);
    }
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9 / SPEC_STEPS;
    return SQUISH_OK;
}

/* What HEADS heads of 4 bits cost that are asked one after the other, each with a guess drawn from what it
 * says. Theirs is no matter for time, so they are made here, in the shape of the model. */
static squish_status draft_rows(bench_speed *b, sq_sampler *sampler, json_t *rows, squish_error *err) {
    enum { HEADS = 4, IDS = 2048, FILL = 0x22 /* as f16: 0.012 */ };
    const squish_alloc alloc = sq_alloc_default();
    const sq_config *c = &b->m->cfg;
    const sq_heads_head head = {.n = HEADS,
                                .hidden = c->hidden,
                                .n_ids = IDS < c->n_vocab ? IDS : c->n_vocab,
                                .n_vocab = c->n_vocab,
                                .type = SQ_W_I4_G64,
                                .embed_scale = 1};
    sq_heads_layout l;
    sq_heads *h = NULL;
    sq_heads_run *run = NULL;
    squish_status st = SQUISH_OK;
    double draft[BENCH_RUNS_MAX];
    if (c->hidden % SQ_GROUP) return SQUISH_OK;
    SQ_TRY(sq_heads_layout_of(&head, &l, err));
    uint8_t *file = sq_alloc_new(&alloc, l.bytes);
    if (!file) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    memset(file, FILL, l.bytes);
    for (int32_t i = 0; i < head.n_ids; i++) memcpy(file + l.ids + (size_t)i * sizeof i, &i, sizeof i);
    sq_heads_write_header(&head, &l, file);
    SQ_GUARD(sq_heads_parse(&h, (sq_span){file, l.bytes}, "bench", &alloc, err));
    SQ_GUARD(sq_heads_run_new(&run, h, b->m, b->e->b, &alloc, err));
    SQ_GUARD(sq_heads_ready(run, err));
    SQ_GUARD(sq_seq_sync(b->s, b->prompt, SPEC_CTX, err));
    for (int32_t k = -1; k < b->o->runs; k++) {
        int32_t id = 1;
        const uint64_t begin = sq_os_now_ns();
        sq_heads_begin(run, b->s->hidden, &id, 1);
        for (int32_t i = 0; i < HEADS; i++) {
            float sure;
            const float *logits = sq_heads_logits(run);
            const int32_t at = sq_sampler_guess(sampler, logits, h->ids, h->n_ids, -1, i, &sure);
            sq_heads_push(run, at < 0 ? 0 : h->ids[at]);
        }
        if (k >= 0) draft[k] = (double)(sq_os_now_ns() - begin) / 1e6;
    }
    SQ_GUARD(bench_row(rows, "draft of 4 heads", "ms", draft, b->o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
fail:
    sq_heads_run_free(run);
    sq_heads_close(h);
    sq_alloc_free(&alloc, file, l.bytes);
    return st;
}

/* What a guess of a drafter that is a model costs, reading the last token included. */
static squish_status drafter_row(bench_speed *b, sq_drafter *d, const sq_answer *answer, const char *name,
                                 json_t *rows, squish_error *err) {
    enum { GUESSES = 4 };
    double ms[BENCH_RUNS_MAX];
    float sure;
    if (!d) return SQUISH_OK;
    SQ_TRY(sq_seq_sync(b->s, b->prompt, SPEC_CTX, err));
    sq_draft_from from = sq_seq_draft_from(b->s, b->prompt, 1);
    from.answer = answer;
    for (int32_t k = -1; k < b->o->runs; k++) {
        bool ready = false;
        for (int32_t i = 0; i < SPEC_CTX && !ready && d->lag(d, &from) > 1; i++) ready = d->begin(d, &from);
        const uint64_t begin = sq_os_now_ns();
        if (!d->begin(d, &from)) return sq_fail(err, SQUISH_INVALID, "bench spec: no guess of %s", name);
        for (int32_t i = 0; i < GUESSES; i++) d->next(d, from.n + i, &sure);
        d->end(d);
        if (k >= 0) ms[k] = (double)(sq_os_now_ns() - begin) / 1e6 / GUESSES;
    }
    return bench_row(rows, name, "ms", ms, b->o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
}

static squish_status model_rows(bench_speed *b, json_t *rows, squish_error *err) {
    squish_gen_options o = squish_gen_options_default();
    const squish_alloc alloc = sq_alloc_default();
    sq_answer *answer;
    o.sampling.seed = 1;
    SQ_TRY(sq_answer_new(&answer, b->m, b->ctx, &o, &alloc, err));
    static const char *const name[] = {"a guess of a third of the layers", "a guess of another model"};
    squish_status st = drafter_row(b, sq_draft_drafter(b->e->skip), answer, name[0], rows, err);
    if (st == SQUISH_OK) st = drafter_row(b, sq_draft_drafter(b->e->draft), answer, name[1], rows, err);
    sq_answer_free(answer);
    return st;
}

enum { DRAWS = 16 };

/* 16 draws from rows of logits, ld floats apart; in ms. */
static squish_status time_draws(sq_sampler *s, const float *logits, size_t ld, double *ms,
                                squish_error *err) {
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < DRAWS; i++) {
        sq_sample_result drawn;
        SQ_TRY(sq_sampler_draw(s, logits + (size_t)i * ld, NULL, i, -1, &drawn, err));
    }
    *ms = (double)(sq_os_now_ns() - begin) / 1e6;
    return SQUISH_OK;
}

/* A row as models that were trained give: a bell around 0, and 64 ids that stand out, less and less. Random
 * weights give one where every id is as likely as any, which no text does, and drawing looks at them all. */
static void make_peaks(float *row, int32_t n, uint64_t seed) {
    for (int32_t i = 0; i < n; i++) {
        const uint64_t r = sq_splitmix64(&seed);
        float sum = 0;
        for (int32_t k = 0; k < 4; k++) sum += (float)(r >> 16 * k & 0xFFFF) / 65536.0f - 0.5f;
        row[i] = 3.5f * sum; /* of a deviation of 2 */
    }
    for (int32_t k = 0; k < 64; k++)
        row[sq_splitmix64(&seed) % (uint64_t)n] = 18.0f - 2.0f * logf((float)(1 + k));
}

/* The same draws from such rows. */
static squish_status peak_row(bench_speed *b, sq_sampler *s, json_t *rows, squish_error *err) {
    const squish_alloc alloc = sq_alloc_default();
    const size_t bytes = DRAWS * (size_t)b->m->cfg.n_vocab * sizeof(float);
    squish_status st = SQUISH_OK;
    double ms[BENCH_RUNS_MAX];
    float *logits = sq_alloc_zero(&alloc, bytes);
    if (!logits) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (int32_t i = 0; i < DRAWS; i++)
        make_peaks(logits + (size_t)i * (size_t)b->m->cfg.n_vocab, b->m->cfg.n_vocab, (uint64_t)i + 1);
    for (int32_t run = -1; run < b->o->runs && st == SQUISH_OK; run++)
        st = time_draws(s, logits, (size_t)b->m->cfg.n_vocab, &ms[run < 0 ? 0 : run], err);
    sq_alloc_free(&alloc, logits, bytes);
    if (st != SQUISH_OK) return st;
    return bench_row(rows, "accept 16 rows of peaks", "ms", ms, b->o->runs, NAN, BENCH_SMALL_IS_GOOD, err);
}

/* What guessing and accepting cost beside the step: an n-gram sought in 2,048 tokens, heads, and 16 rows of
 * logits drawn from. */
static squish_status logic_rows(bench_speed *b, json_t *rows, squish_error *err) {
    enum { HISTORY = 2048, FINDS = 1000 };
    const squish_alloc alloc = sq_alloc_default();
    sq_ngram *g = NULL;
    sq_sampler *sampler = NULL;
    squish_sampling how = squish_sampling_default();
    squish_status st = SQUISH_OK;
    int32_t ids[SQ_GUESS_MAX], length, most = 0;
    const int32_t runs = b->o->runs;
    double find[BENCH_RUNS_MAX], accept[BENCH_RUNS_MAX];
    how.seed = 1;
    SQ_GUARD(sq_ngram_new(&g, HISTORY + 1, &alloc, err));
    /* Every row of the head is an id, as in models of this shape: the tokenizer at hand may have fewer. */
    SQ_GUARD(sq_sampler_new(&sampler, &how, b->m->cfg.n_vocab, b->m->cfg.n_vocab, HISTORY, NULL, 0, &alloc,
                            err));
    for (int32_t i = 0; i < HISTORY; i++) sq_ngram_accept(g, (i * i / 7) % 97);
    SQ_GUARD(sq_seq_sync(b->s, b->prompt, SPEC_CTX, err));
    SQ_GUARD(sq_seq_try(b->s, b->prompt, 1, DRAWS - 1, NULL, err));
    const float *logits = sq_seq_logits(b->s);
    const size_t ld = sq_forward_logits_ld(b->e->f);
    for (int32_t run = 0; run < runs; run++) {
        const uint64_t begin = sq_os_now_ns();
        for (int32_t i = 0; i < FINDS; i++) most += sq_ngram_find(g, ids, SQ_GUESS_MAX, &length);
        find[run] = (double)(sq_os_now_ns() - begin) / 1e3 / FINDS;
        SQ_GUARD(time_draws(sampler, logits, ld, &accept[run], err));
    }
    SQ_GUARD(bench_row(rows, most > 0 ? "n-gram guess" : "n-gram found nothing", "us", find, runs, NAN,
                       BENCH_SMALL_IS_GOOD, err));
    SQ_GUARD(bench_row(rows, "accept 16 rows", "ms", accept, runs, NAN, BENCH_SMALL_IS_GOOD, err));
    SQ_GUARD(peak_row(b, sampler, rows, err));
    SQ_GUARD(draft_rows(b, sampler, rows, err));
fail:
    sq_sampler_free(sampler);
    sq_ngram_free(g);
    return st;
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
    SQ_TRY(model_rows(b, b->rows, err));
    return logic_rows(b, b->rows, err);
}

static squish_status step_rows(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), ROWS_MAX, &p, err));
    return bench_measure(o, SPEC_CTX + ROWS_MAX, 0, p.count, rows_rows, &p, rows, err);
}

/* ---- answers --------------------------------------------------------------------------------- */

enum { TEMPERATURES = 3 };
static const float temperatures[TEMPERATURES] = {0, 0.7f, 1};

/* Of one temperature. */
typedef struct {
    double ms[2]; /* of all answers, without and with, from the first token to the last */
    int64_t tokens, guessed, right, aside, answers, differ;
    double faster[BENCH_RUNS_MAX]; /* of each answer: time without over time with */
} tally;

typedef struct {
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_spec on;
    int32_t ids[2][ANSWER_MAX], n[2]; /* of the last prompt: without, with */
    tally tallies[TEMPERATURES];
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

/* One answer; the prompt's cache is there from the one before. */
static squish_status answer(answers *a, int with, const squish_tokens *p, squish_gen_options *o, tally *t,
                            double *ms, squish_error *err) {
    squish_gen *g;
    squish_gen_event ev = {0};
    squish_gen_stats st;
    o->spec = with ? a->on : (squish_spec){.mode = SQUISH_SPEC_OFF};
    SQ_TRY(squish_gen_new(&g, a->s, p->ids, p->count, o, err));
    squish_status status = SQUISH_OK;
    a->n[with] = 0;
    while (status == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE) {
        status = squish_gen_next(g, &ev, err);
        if (status == SQUISH_OK && ev.id >= 0) a->ids[with][a->n[with]++] = ev.id;
    }
    squish_gen_get_stats(g, &st);
    squish_gen_free(g);
    *ms = st.decode_ms;
    t->ms[with] += st.decode_ms;
    if (with) t->tokens += st.completion_tokens, t->guessed += st.guessed_tokens, t->right += st.right_tokens;
    if (with) t->aside += st.aside_tokens;
    return status;
}

/* Both ways, whichever goes first in turns. */
static squish_status both(answers *a, const squish_tokens *p, float temperature, int32_t max_tokens, tally *t,
                          squish_error *err) {
    double ms[2] = {0, 0};
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.seed = t->answers;
    o.max_tokens = max_tokens;
    const int first = (int)(t->answers & 1);
    SQ_TRY(answer(a, first, p, &o, t, &ms[first], err));
    SQ_TRY(answer(a, !first, p, &o, t, &ms[!first], err));
    const size_t bytes = (size_t)a->n[0] * sizeof *a->ids[0];
    t->differ += a->n[0] != a->n[1] || memcmp(a->ids[0], a->ids[1], bytes) != 0;
    if (t->answers < BENCH_RUNS_MAX) t->faster[t->answers] = ms[1] > 0 ? ms[0] / ms[1] : 1;
    t->answers++;
    return SQUISH_OK;
}

static squish_status answers_row(tally *t, const char *name, float temperature, json_t *rows,
                                 squish_error *err) {
    char full[64];
    const int32_t n = t->answers < BENCH_RUNS_MAX ? (int32_t)t->answers : BENCH_RUNS_MAX;
    const double drawn = (double)(t->tokens - t->answers), with = t->ms[1] / 1e3, without = t->ms[0] / 1e3;
    const double steps = drawn - (double)t->right;
    snprintf(full, sizeof full, "%s, T %g", name, (double)temperature);
    SQ_TRY(bench_row(rows, full, "x", t->faster, n, NAN, BENCH_LARGE_IS_GOOD, err));
    json_t *more =
        json_pack("{s:s, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I}", "bench", "spec answers", "speedup",
                  with > 0 ? without / with : 1, "tok_s", with > 0 ? drawn / with : 0, "tok_s_off",
                  without > 0 ? drawn / without : 0, "tokens_per_step", steps > 0 ? drawn / steps : 0,
                  "guessed", (json_int_t)t->guessed, "right", (json_int_t)t->right, "aside",
                  (json_int_t)t->aside, "answers", (json_int_t)t->answers, "differ", (json_int_t)t->differ);
    if (!more || json_object_update_new(json_array_get(rows, json_array_size(rows) - 1), more) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    return SQUISH_OK;
}

static squish_status line_answers(answers *a, const bench_options *o, const char *line, size_t n,
                                  squish_error *err) {
    squish_tokens p = {0};
    json_t *v = NULL;
    SQ_TRY(sq_json_parse(line, n, SQ_JSON_DEPTH, "bench spec: a line of the prompts", &v, err));
    const json_int_t asked = json_integer_value(json_object_get(v, "max_tokens"));
    const int32_t max_tokens = asked > 0 && asked < ANSWER_MAX ? (int32_t)asked : ANSWER_MAX;
    squish_status st = tokens_of(a, v, &p, err);
    json_decref(v);
    for (int32_t i = 0; i < o->runs * TEMPERATURES && st == SQUISH_OK; i++)
        st = both(a, &p, temperatures[i % TEMPERATURES], max_tokens, &a->tallies[i % TEMPERATURES], err);
    squish_tokens_free(&p);
    return st;
}

static squish_status all_lines(answers *a, const bench_options *o, squish_error *err) {
    for (size_t at = 0; at < o->text_bytes;) {
        const size_t n = strcspn(o->text + at, "\n");
        if (n > 0) SQ_TRY(line_answers(a, o, o->text + at, n, err));
        at += n + 1;
        if (o->progress && !o->progress(o->progress_user, "answers", (uint64_t)at, (uint64_t)o->text_bytes))
            return sq_fail(err, SQUISH_CANCELLED, "stopped on request");
    }
    return SQUISH_OK;
}

static squish_status answer_rows(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc alloc = sq_alloc_default();
    answers *a = sq_alloc_zero(&alloc, sizeof *a);
    squish_engine_options eo = squish_engine_options_default();
    const squish_model_options mo = {.tier = o->tier, .heads = o->heads};
    squish_status st = SQUISH_OK;
    if (!a) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = 2048;
    eo.draft = o->draft;
    a->on = o->spec;
    SQ_GUARD(squish_model_open(&a->m, o->path, &mo, err));
    SQ_GUARD(squish_engine_new(&a->e, a->m, &eo, err));
    SQ_GUARD(squish_seq_new(&a->s, a->e, err));
    SQ_GUARD(all_lines(a, o, err));
    for (int32_t t = 0; t < TEMPERATURES; t++)
        SQ_GUARD(answers_row(&a->tallies[t], squish_spec_name(o->spec.mode), temperatures[t], rows, err));
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
