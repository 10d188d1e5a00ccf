/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_needle.c - does an answer find what stands far back? A pass key among paragraphs of a text, asked for
 * at the end, through the chat template, with the cache of every kind.
 *
 *   first tile | ....... key at 1/6, 1/2 or 5/6 of this ....... | cell before and own cell, the question
 *   open       | sealed                                         | open
 *
 * A key in what is kept as it was computed would prove nothing, so it stands between the first tile and the
 * last tokens that the question reads sealed. All kinds get the same prompts, many in each step. */
#include "bench/bench_int.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTHS = 3, PARAGRAPHS_MAX = 4096, WORDS_MIN = 12, WORDS_MAX = 90, ANSWER = 24, TRIES = 64, JOBS = 8 };
static const sq_kv_window open_window = {1, SQ_KV_CELL / SQ_KV_TILE}; /* of an engine's defaults */
static const char QUESTION[] = "What is the pass key?";

typedef struct {
    const char *name;
    squish_kv kv;
    bool sage, sparge;
    int32_t snap; /* tokens of a prompt that stay; 0: all */
} kind;
static const kind kinds[] = {{"f16", SQUISH_KV_F16, false, false, 0},
                             {"q8", SQUISH_KV_Q8, false, false, 0},
                             {"k8v4", SQUISH_KV_K8V4, false, false, 0},
                             {"q4", SQUISH_KV_Q4, false, false, 0},
                             {"k4v2", SQUISH_KV_K4V2, false, false, 0},
                             {"q2", SQUISH_KV_Q2, false, false, 0},
                             {"sage", SQUISH_KV_F16, true, false, 0},
                             {"sparge", SQUISH_KV_F16, false, true, 0},
                             {"sage and sparge", SQUISH_KV_F16, true, true, 0},
                             {"snap 256", SQUISH_KV_F16, false, false, 256},
                             {"snap 256 in q4", SQUISH_KV_Q4, false, false, 256}};

typedef struct {
    const char *text;
    size_t bytes;
    int32_t tokens;
} paragraph;

typedef struct {
    squish_tokens prompt;
    char key[8];
} trial;

typedef struct {
    const bench_options *o;
    squish_model *m;
    paragraph *p; /* [n_p] */
    int32_t n_p;
    bench_points points;
    trial *trials; /* [points.count][runs] */
    int32_t f16[BENCH_POINTS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool poked;
} needle;

/* ---- paragraphs ------------------------------------------------------------------------------ */

static int32_t count_words(const char *s, size_t n) {
    int32_t words = 0;
    for (size_t i = 0; i < n; i++) words += s[i] > ' ' && (i == 0 || s[i - 1] <= ' ');
    return words;
}

static squish_status find_paragraphs(needle *b, squish_error *err) {
    const char *at = b->o->text, *end = at + b->o->text_bytes;
    while (at < end && b->n_p < PARAGRAPHS_MAX) {
        const char *stop = at;
        while (stop < end && !(stop[0] == '\n' && (stop + 1 == end || stop[1] == '\n'))) stop++;
        const size_t n = (size_t)(stop - at);
        const int32_t words = count_words(at, n);
        if (words >= WORDS_MIN && words <= WORDS_MAX) {
            squish_tokens t = {0};
            SQ_TRY(squish_tokenize(b->m, at, n, 0, &t, err));
            b->p[b->n_p++] = (paragraph){at, n, (int32_t)t.count + 1};
            squish_tokens_free(&t);
        }
        for (at = stop; at < end && *at == '\n';) at++;
    }
    if (b->n_p >= 32) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "bench needle: the text has %d paragraphs of %d to %d words, wanted 32 or more (--text)",
                   b->n_p, WORDS_MIN, WORDS_MAX);
}

/* ---- a prompt -------------------------------------------------------------------------------- */

static bool put_paragraph(sq_buf *out, const paragraph *p) {
    bool fits = true;
    for (size_t i = 0; i < p->bytes; i++)
        fits &= sq_buf_append(out, p->text[i] == '\n' ? " " : &p->text[i], 1);
    return fits && sq_buf_puts(out, "\n\n");
}

/* Paragraphs of about n tokens with the key's sentence behind about `at` of them. */
static squish_status write_prompt(const needle *b, int32_t n, int32_t at, const char *sentence, uint64_t *rng,
                                  sq_buf *out, squish_error *err) {
    const int32_t around = 48; /* the template, both sentences */
    bool fits = true, said = false;
    for (int32_t tokens = 0; fits && (tokens < n - around || !said);) {
        const paragraph *p = &b->p[sq_splitmix64(rng) % (uint64_t)b->n_p];
        if (!said && tokens + p->tokens / 2 >= at - around / 2) {
            fits = sq_buf_puts(out, sentence) && sq_buf_puts(out, "\n\n");
            said = true;
        }
        fits = fits && put_paragraph(out, p);
        tokens += p->tokens;
    }
    fits = fits && sq_buf_puts(out, QUESTION);
    return fits ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
}

static squish_status render(const needle *b, const char *prompt, squish_text *out, squish_error *err) {
    squish_template_options o = squish_template_options_default();
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", prompt);
    char *text = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    json_decref(messages);
    if (!text) return sq_fail(err, SQUISH_INVALID, "bench needle: the text is not UTF-8");
    o.messages_json = text;
    const squish_status st = squish_template_render(b->m, &o, out, err);
    free(text); /* jansson's */
    return st;
}

/* Tokens of a rendered prompt, and whether its key stands where it is read sealed. */
static squish_status tokens_of(const needle *b, const squish_text *text, const char *sentence,
                               squish_tokens *out, bool *far, squish_error *err) {
    squish_tokens before = {0}, said = {0};
    const char *at = strstr(text->data, sentence);
    squish_status st = squish_tokenize(b->m, text->data, text->bytes, SQUISH_TOK_SPECIAL, out, err);
    if (st == SQUISH_OK)
        st = squish_tokenize(b->m, text->data, (size_t)(at - text->data), SQUISH_TOK_SPECIAL, &before, err);
    if (st == SQUISH_OK) st = squish_tokenize(b->m, sentence, strlen(sentence), 0, &said, err);
    if (st == SQUISH_OK) {
        const size_t end = (size_t)sq_kv_sealed_tiles(open_window, (int32_t)out->count - 1) * SQ_KV_TILE;
        *far = before.count >= SQ_KV_TILE && before.count + said.count <= end;
    }
    squish_tokens_free(&before);
    squish_tokens_free(&said);
    return st;
}

static squish_status make_trial(const needle *b, int32_t n, int32_t i, trial *out, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const int32_t lo = SQ_KV_TILE, hi = sq_kv_sealed_tiles(open_window, n - 1) * SQ_KV_TILE;
    uint64_t rng = (uint64_t)i * 1000003 + (uint64_t)n;
    bool far = false;
    for (int32_t k = 0; !far && k < TRIES; k++) {
        char sentence[64];
        sq_buf prompt;
        squish_text text = {0};
        squish_tokens_free(&out->prompt);
        out->prompt = (squish_tokens){0};
        snprintf(out->key, sizeof out->key, "%d", 1000 + (int)(sq_splitmix64(&rng) % 9000));
        snprintf(sentence, sizeof sentence, "The pass key is %s. Remember it.", out->key);
        sq_buf_init(&prompt, &a, (size_t)1 << 24);
        squish_status st = write_prompt(b, n, lo + (hi - lo) * (2 * (i % DEPTHS) + 1) / (2 * DEPTHS),
                                        sentence, &rng, &prompt, err);
        if (st == SQUISH_OK) st = render(b, prompt.data, &text, err);
        if (st == SQUISH_OK) st = tokens_of(b, &text, sentence, &out->prompt, &far, err);
        sq_buf_deinit(&prompt);
        squish_text_free(&text);
        SQ_TRY(st);
    }
    if (far) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "bench needle: no place for a key in prompts of %d tokens", n);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void wake(void *user) {
    needle *b = user;
    pthread_mutex_lock(&b->lock);
    b->poked = true;
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->lock);
}

static void wait_for_news(needle *b) {
    pthread_mutex_lock(&b->lock);
    while (!b->poked) pthread_cond_wait(&b->moved, &b->lock);
    b->poked = false;
    pthread_mutex_unlock(&b->lock);
}

/* Read a job to its end: is the key in its answer? */
static squish_status read_answer(needle *b, squish_job *j, const char *key, bool *found, squish_error *err) {
    char text[512];
    size_t n = 0;
    for (squish_job_event ev;;) {
        if (!squish_job_next(j, &ev)) {
            wait_for_news(b);
            continue;
        }
        if (ev.text_bytes < sizeof text - n) {
            memcpy(text + n, ev.text, ev.text_bytes);
            n += ev.text_bytes;
        }
        if (ev.kind != SQUISH_JOB_END) continue;
        text[n] = 0;
        *found = strstr(text, key) != NULL;
        return ev.status == SQUISH_OK ? SQUISH_OK : sq_fail(err, ev.status, "%s", ev.error);
    }
}

/* Answers to all trials of a length, in company; how many found their key. */
static squish_status answer_all(needle *b, squish_batch *batch, const trial *t, int32_t n, int32_t *found,
                                squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_job **jobs = sq_alloc_zero(&a, (size_t)n * sizeof *jobs);
    squish_status st = SQUISH_OK;
    *found = 0;
    if (!jobs) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (int32_t i = 0; i < n && st == SQUISH_OK; i++) {
        squish_job_options o = squish_job_options_default();
        o.prompt = t[i].prompt.ids;
        o.n_prompt = t[i].prompt.count;
        o.gen.sampling.temperature = 0;
        o.gen.max_tokens = ANSWER;
        o.wake = wake;
        o.wake_user = b;
        st = squish_job_submit(&jobs[i], batch, &o, err);
    }
    for (int32_t i = 0; i < n && st == SQUISH_OK; i++) {
        bool hit = false;
        st = read_answer(b, jobs[i], t[i].key, &hit, err);
        *found += hit;
    }
    for (int32_t i = 0; i < n; i++) squish_job_free(jobs[i]);
    sq_alloc_free(&a, jobs, (size_t)n * sizeof *jobs);
    return st;
}

static squish_status add_row(needle *b, const kind *k, int32_t i, int32_t found, double density, json_t *rows,
                             squish_error *err) {
    char name[64];
    double share = 100.0 * found / b->o->runs;
    snprintf(name, sizeof name, "pass key, %d, %s", b->points.n[i], k->name);
    SQ_TRY(bench_row(rows, name, "%", &share, 1, 100, BENCH_LARGE_IS_GOOD, err));
    json_t *more = json_pack("{s:s, s:i, s:s, s:i, s:i, s:i, s:f}", "bench", "needle", "at",
                             (int)b->points.n[i], "kv", k->name, "found", (int)found, "trials",
                             (int)b->o->runs, "found_f16", (int)b->f16[i], "density", density);
    const int failed = json_object_update(json_array_get(rows, json_array_size(rows) - 1), more);
    json_decref(more);
    return failed ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory") : SQUISH_OK;
}

static squish_status one_kind(needle *b, const kind *k, json_t *rows, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    squish_engine *e = NULL;
    squish_batch *batch = NULL;
    squish_status st = SQUISH_OK;
    eo.threads = b->o->threads;
    eo.isa_max = b->o->isa;
    eo.kv = k->kv;
    eo.attention = b->o->attention;
    eo.attention.sage = k->sage, eo.attention.sparge = k->sparge;
    eo.kv_options.snap = k->snap;
    bo.jobs_max = JOBS;
    bo.queue_max = b->o->runs;
    SQ_GUARD(squish_engine_new(&e, b->m, &eo, err));
    SQ_GUARD(squish_batch_new(&batch, e, &bo, err));
    for (int32_t i = 0; i < b->points.count; i++) {
        int32_t found;
        SQ_GUARD(answer_all(b, batch, b->trials + (size_t)i * (size_t)b->o->runs, b->o->runs, &found, err));
        if (k == kinds) b->f16[i] = found;
        squish_batch_stats s;
        squish_batch_get_stats(batch, &s);
        SQ_GUARD(add_row(b, k, i, found, s.attn_density, rows, err));
    }
fail:
    squish_batch_free(batch);
    squish_engine_free(e);
    return st;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static squish_status measure(needle *b, json_t *rows, squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    mo.tier = b->o->tier;
    SQ_TRY(squish_model_open(&b->m, b->o->path, &mo, err));
    SQ_TRY(find_paragraphs(b, err));
    for (int32_t i = 0; i < b->points.count; i++)
        for (int32_t r = 0; r < b->o->runs; r++)
            SQ_TRY(make_trial(b, b->points.n[i], r, &b->trials[i * b->o->runs + r], err));
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        if (b->o->progress && !b->o->progress(b->o->progress_user, "bench", k, SQ_COUNT(kinds)))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
        if (k > 0 && b->o->one_kv && b->o->kv != kinds[k].kv) continue;
        SQ_TRY(one_kind(b, &kinds[k], rows, err));
    }
    return SQUISH_OK;
}

squish_status bench_needle(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {600, 1000, 1500};
    const squish_alloc a = sq_alloc_default();
    needle b = {.o = o};
    if (!o->text)
        return sq_fail(err, SQUISH_INVALID, "bench needle: give paragraphs to hide a key in (--text)");
    SQ_TRY(bench_check_runs(o, err));
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), SQ_MAX_CTX, &b.points, err));
    const size_t n = (size_t)b.points.count * (size_t)o->runs;
    b.p = sq_alloc_zero(&a, PARAGRAPHS_MAX * sizeof *b.p);
    b.trials = sq_alloc_zero(&a, n * sizeof *b.trials);
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.moved, NULL);
    const squish_status st =
        b.p && b.trials ? measure(&b, rows, err) : sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (size_t i = 0; b.trials && i < n; i++) squish_tokens_free(&b.trials[i].prompt);
    squish_model_close(b.m);
    pthread_cond_destroy(&b.moved);
    pthread_mutex_destroy(&b.lock);
    sq_alloc_free(&a, b.trials, b.trials ? n * sizeof *b.trials : 0);
    sq_alloc_free(&a, b.p, b.p ? PARAGRAPHS_MAX * sizeof *b.p : 0);
    return st;
}
