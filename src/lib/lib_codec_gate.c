/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_codec_gate.c - see lib_codec.h.
 *
 *   timeline 0   prefix as it was computed                                       | 200 tokens
 *   timeline 1   tiles through codes and back, in their pages | rest, computed   | 200 tokens, and KL
 *
 * Both are on one engine and take turns, 32 tokens at a time, so nothing larger than that is held, whatever
 * the vocabulary. */
#include "lib/lib_codec.h"
#include "sample/sample.h"
#include "sched/sched.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STRIP = SQ_LOGIT_ROWS, PARAGRAPHS_MAX = 512, PROMPT_MAX = 1100, ANSWER = 16, DEPTHS = 3, STEP = 256 };

typedef struct {
    const sq_codec_measuring *o;
    sq_codec *c;
    sq_kernels k;
    sq_engine *e;
    sq_seq *s[2];
    float *strip, *work; /* [STRIP][n_vocab] of timeline 0; of coding */
    uint16_t *gain;      /* of a layer */
    uint8_t *code;
    size_t strip_bytes, work_bytes, gain_bytes, code_bytes;
    int32_t filled, at;
    double kl;
    int64_t n, decoded, computed; /* positions compared; tokens timed */
    uint64_t decode_ns, compute_ns;
} gate;

static squish_status tell(const gate *g, int32_t done, int32_t total, squish_error *err) {
    const sq_codec_measuring *o = g->o;
    if (!o->progress || o->progress(o->progress_user, "check", (uint64_t)done, (uint64_t)total))
        return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

/* ---- codes in place -------------------------------------------------------------------------- */

/* The first tiles of a timeline through codes and back. */
static void through_codes(gate *g, sq_seq *s, int32_t n_tiles) {
    const sq_codec_run r = {g->c, &g->k, 0, n_tiles, g->work};
    for (int32_t l = 0; l < g->c->info.shape.n_layers; l++) {
        uint8_t *const *pages = sq_kv_seq_pages(s->kv, l);
        sq_codec_begin(&r, true);
        sq_codec_put(&r, l, (const uint8_t *const *)pages, g->gain, g->code);
        sq_codec_begin(&r, false);
        const uint64_t t = sq_os_now_ns();
        sq_codec_get(&r, l, g->gain, g->code, pages);
        g->decode_ns += sq_os_now_ns() - t;
    }
    g->decoded += n_tiles * SQ_KV_TILE_TOKENS;
}

/* The prompt on a timeline whose beginning comes from codes. Pages of f16 stay where they are when the end is
 * cut off, and nobody else holds them. */
static squish_status restore(gate *g, sq_seq *s, const int32_t *ids, int32_t n, squish_error *err) {
    const int32_t tiles = sq_codec_tiles(n - 1);
    SQ_TRY(sq_seq_sync(s, ids, (size_t)n, err));
    sq_seq_truncate(s, tiles * SQ_KV_TILE_TOKENS);
    through_codes(g, s, tiles);
    return sq_seq_sync(s, ids, (size_t)n, err);
}

/* ---- KL -------------------------------------------------------------------------------------- */

static bool keep(void *user, int32_t pos, const float *logits) {
    (void)pos;
    gate *g = user;
    const size_t n = (size_t)g->o->m->cfg.n_vocab;
    memcpy(g->strip + (size_t)g->filled++ * n, logits, n * sizeof *logits);
    return true;
}

static bool compare(void *user, int32_t pos, const float *b) {
    (void)pos;
    gate *g = user;
    const int32_t n = g->o->m->info.n_vocab_tokens;
    const float *a = g->strip + (size_t)g->at++ * (size_t)g->o->m->cfg.n_vocab;
    const double za = sq_logsumexp(a, n), zb = sq_logsumexp(b, n);
    for (int32_t i = 0; i < n; i++) {
        const double la = (double)a[i] - za;
        g->kl += exp(la) * (la - ((double)b[i] - zb));
    }
    g->n++;
    return true;
}

static squish_status stretch(gate *g, const int32_t *ids, squish_error *err) {
    const int32_t n = g->o->prefix;
    sq_seq_truncate(g->s[0], 0);
    sq_seq_truncate(g->s[1], 0);
    const uint64_t t = sq_os_now_ns();
    SQ_TRY(sq_seq_sync(g->s[0], ids, (size_t)n, err));
    g->compute_ns += sq_os_now_ns() - t;
    g->computed += n;
    SQ_TRY(restore(g, g->s[1], ids, n, err));
    for (int32_t at = 0, rows; at < SQ_CODEC_CONTINUED; at += rows) {
        rows = SQ_CODEC_CONTINUED - at < STRIP ? SQ_CODEC_CONTINUED - at : STRIP;
        g->filled = g->at = 0;
        SQ_TRY(sq_seq_extend(g->s[0], ids + n + at, (size_t)rows, keep, g, err));
        SQ_TRY(sq_seq_extend(g->s[1], ids + n + at, (size_t)rows, compare, g, err));
    }
    return SQUISH_OK;
}

/* ---- pass keys ------------------------------------------------------------------------------- */

typedef struct {
    const char *text;
    size_t bytes;
} paragraph;

static int32_t find_paragraphs(const sq_codec_measuring *o, paragraph *p) {
    const char *at = o->text, *end = at + o->text_bytes;
    int32_t n = 0;
    while (at < end && n < PARAGRAPHS_MAX) {
        const char *stop = at;
        while (stop < end && !(stop[0] == '\n' && (stop + 1 == end || stop[1] == '\n'))) stop++;
        if (stop - at >= 60 && stop - at <= 600) p[n++] = (paragraph){at, (size_t)(stop - at)};
        for (at = stop; at < end && *at == '\n';) at++;
    }
    return n;
}

static bool put_plain(sq_buf *out, const paragraph *p) {
    bool fits = true;
    for (size_t i = 0; i < p->bytes; i++) fits &= sq_buf_putc(out, p->text[i] == '\n' ? ' ' : p->text[i]);
    return fits && sq_buf_puts(out, "\n\n");
}

/* About `bytes` of paragraphs, the key behind one, three or five sixths of them, the question at the end. */
static bool write_prompt(const paragraph *p, int32_t n, int32_t trial, size_t bytes, const char *sentence,
                         sq_buf *out) {
    uint64_t rng = (uint64_t)trial * 1000003;
    const size_t place = bytes * (size_t)(2 * (trial % DEPTHS) + 1) / (2 * DEPTHS);
    bool said = false, fits = true;
    while (fits && (out->len < bytes || !said)) {
        if (!said && out->len >= place) {
            fits = sq_buf_puts(out, sentence) && sq_buf_puts(out, "\n\n");
            said = true;
        }
        fits = fits && put_plain(out, &p[sq_splitmix64(&rng) % (uint64_t)n]);
    }
    return fits && sq_buf_puts(out, "What is the pass key?");
}

static squish_status tokens_of(const gate *g, const char *prompt, squish_tokens *out, squish_error *err) {
    squish_template_options o = squish_template_options_default();
    squish_text text = {0};
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", prompt);
    char *json = messages ? json_dumps(messages, JSON_COMPACT) : NULL;
    json_decref(messages);
    if (!json) return sq_fail(err, SQUISH_INVALID, "codebooks: the text is not UTF-8");
    o.messages_json = json;
    squish_status st = squish_template_render(g->o->m, &o, &text, err);
    free(json); /* jansson's */
    if (st == SQUISH_OK)
        st = squish_tokenize(g->o->m, text.data, text.bytes, SQUISH_TOK_SPECIAL, out, err);
    squish_text_free(&text);
    return st;
}

/* Is the key in a greedy answer? */
static squish_status ask(sq_seq *s, const squish_tokens *t, const char *key, bool *found, squish_error *err) {
    squish_gen_options o = squish_gen_options_default();
    squish_gen_event ev;
    sq_gen *gen;
    char text[512];
    size_t n = 0;
    o.sampling.temperature = 0;
    o.max_tokens = ANSWER;
    o.spec.mode = SQUISH_SPEC_OFF;
    SQ_TRY(sq_gen_new(&gen, s, t->ids, t->count, &o, err));
    squish_status st;
    do {
        st = sq_gen_next(gen, &ev, err);
        if (st != SQUISH_OK || ev.text_bytes >= sizeof text - n) break;
        memcpy(text + n, ev.text, ev.text_bytes);
        n += ev.text_bytes;
    } while (ev.finish == SQUISH_FINISH_NONE);
    text[n] = 0;
    *found = strstr(text, key) != NULL;
    sq_gen_free(gen);
    return st;
}

static squish_status trial(gate *g, const paragraph *p, int32_t n, int32_t i, squish_error *err) {
    char key[8], sentence[64];
    uint64_t rng = 77 + (uint64_t)i;
    sq_buf prompt;
    squish_tokens t = {0};
    bool hit[2] = {false, false};
    const int32_t tokens = g->o->prefix < PROMPT_MAX ? g->o->prefix : PROMPT_MAX;
    snprintf(key, sizeof key, "%d", 1000 + (int)(sq_splitmix64(&rng) % 9000));
    snprintf(sentence, sizeof sentence, "The pass key is %s. Remember it.", key);
    sq_buf_init(&prompt, &g->o->m->alloc, (size_t)1 << 20);
    const bool fits = write_prompt(p, n, i, (size_t)tokens * 7 / 2, sentence, &prompt);
    squish_status st = fits ? tokens_of(g, prompt.data, &t, err)
                            : sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory");
    sq_buf_deinit(&prompt);
    for (int32_t k = 0; st == SQUISH_OK && k < 2; k++) {
        sq_seq_truncate(g->s[k], 0);
        if (t.count + ANSWER + 1 > (size_t)g->e->ctx)
            st = sq_fail(err, SQUISH_INVALID, "codebooks: a prompt of %zu tokens with a pass key", t.count);
        if (st == SQUISH_OK && k) st = restore(g, g->s[k], t.ids, (int32_t)t.count, err);
        if (st == SQUISH_OK) st = ask(g->s[k], &t, key, &hit[k], err);
    }
    squish_tokens_free(&t);
    g->c->info.gate.found_f16 += hit[0];
    g->c->info.gate.found += hit[1];
    return st;
}

static squish_status pass_keys(gate *g, squish_error *err) {
    paragraph p[PARAGRAPHS_MAX];
    const int32_t n = g->o->m->tmpl ? find_paragraphs(g->o, p) : 0;
    if (n < 8) return SQUISH_OK;
    g->c->info.gate.trials = SQ_CODEC_TRIALS;
    for (int32_t i = 0; i < SQ_CODEC_TRIALS; i++) {
        SQ_TRY(trial(g, p, n, i, err));
        SQ_TRY(tell(g, g->o->stretches + i, g->o->stretches + SQ_CODEC_TRIALS, err));
    }
    return SQUISH_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static squish_status prepare(gate *g, squish_error *err) {
    const squish_alloc *a = &g->o->m->alloc;
    squish_engine_options eo = squish_engine_options_default(), resolved;
    squish_mem_estimate est;
    const int32_t tiles = g->o->prefix / SQ_KV_TILE_TOKENS;
    const size_t n = (size_t)g->c->info.shape.n_kv_heads * 2 * (size_t)tiles * SQ_KV_TILE_TOKENS;
    eo.threads = g->o->threads;
    eo.chunk_tokens = STEP;
    eo.ctx_tokens = g->o->prefix + SQ_CODEC_CONTINUED + 1;
    SQ_TRY(sq_engine_plan(g->o->m, &eo, &resolved, &est, err));
    eo.kv_bytes_max = 2 * est.kv_bytes; /* of two timelines */
    SQ_TRY(sq_engine_new(&g->e, g->o->m, &eo, err));
    for (int32_t i = 0; i < 2; i++) SQ_TRY(sq_seq_new(&g->s[i], g->e, err));
    sq_kernels_select(&g->k, sq_cpu_features(), SQ_ISA_COUNT);
    g->strip_bytes = (size_t)STRIP * (size_t)g->o->m->cfg.n_vocab * sizeof *g->strip;
    g->work_bytes = sq_codec_work_floats(g->c, tiles) * sizeof *g->work;
    g->gain_bytes = n * sizeof *g->gain;
    g->code_bytes = n * sq_codec_vector_bytes(g->c);
    g->strip = sq_alloc_new(a, g->strip_bytes);
    g->work = sq_alloc_new(a, g->work_bytes);
    g->gain = sq_alloc_new(a, g->gain_bytes);
    g->code = sq_alloc_new(a, g->code_bytes);
    const bool have = g->strip && g->work && g->gain && g->code;
    return have ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory to measure them");
}

static squish_status measure(gate *g, squish_error *err) {
    const sq_codec_measuring *o = g->o;
    SQ_TRY(prepare(g, err));
    for (int32_t i = 0; i < o->stretches; i++) {
        SQ_TRY(stretch(g, o->ids + (size_t)i * (size_t)(o->prefix + SQ_CODEC_CONTINUED), err));
        SQ_TRY(tell(g, i, o->stretches + SQ_CODEC_TRIALS, err));
    }
    sq_codec_gate *out = &g->c->info.gate;
    const double kl = g->kl / (double)g->n;
    *out = (sq_codec_gate){.prefix = o->prefix,
                           .continued = SQ_CODEC_CONTINUED,
                           .stretches = o->stretches,
                           .kl = kl < 0 ? 0 : kl}; /* what is no number stays, and is refused */
    out->prefill_us = (float)((double)g->compute_ns / 1e3 / (double)g->computed);
    out->decode_us = (float)((double)g->decode_ns / 1e3 / (double)g->decoded);
    return pass_keys(g, err);
}

squish_status sq_codec_measure(const sq_codec_measuring *o, sq_codec *c, squish_error *err) {
    const squish_alloc *a = &o->m->alloc;
    gate g = {.o = o, .c = c};
    const squish_status st = measure(&g, err);
    for (int32_t i = 0; i < 2; i++) sq_seq_free(g.s[i]);
    sq_engine_free(g.e);
    sq_alloc_free(a, g.strip, g.strip ? g.strip_bytes : 0);
    sq_alloc_free(a, g.work, g.work ? g.work_bytes : 0);
    sq_alloc_free(a, g.gain, g.gain ? g.gain_bytes : 0);
    sq_alloc_free(a, g.code, g.code ? g.code_bytes : 0);
    return st;
}
