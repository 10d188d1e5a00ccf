/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_gen.c - one answer: draw, take the token in, turn it into text that may be shown.
 *
 *   logits -> sampler -> id -> detokenizer (holds incomplete UTF-8) -> stop strings (hold what could begin
 * one) -> text
 *
 * A drawn token is evaluated at the start of the next call, so the first token leaves as soon as the prompt
 * is done and the last one is never evaluated at all. After sq_gen_new nothing allocates. */
#include "sched/sched.h"

#include <string.h>

enum { TEXT_RESERVE = 8192, TEXT_MAX = 1 << 20, BREAKERS_MAX = 4096 };

struct squish_gen {
    sq_seq *s;
    squish_alloc alloc;
    sq_sampler *sampler;
    sq_stops *stops;
    sq_detok detok;
    sq_buf piece, text; /* of the present call: detokenized, and certain */
    char *stop_text;    /* copies of the stop strings, one after another, for stop_reason */
    const char *stop_at[16];
    size_t stop_bytes;
    int32_t n_stop, max_tokens, min_tokens, n_top;
    bool include_stop, ignore_eos, finished;
    int32_t pending; /* drawn, not evaluated yet; -1: none */
    int32_t n_done;
    sq_sample_result drawn;
    uint64_t t_begin, t_prefilled, t_first, t_last;
    int32_t n_prompt, n_reused;
};

static squish_status check_options(const squish_gen_options *o, squish_error *err) {
    if (o->n_stop < 0 || o->n_stop > 16)
        return sq_fail(err, SQUISH_INVALID, "%d stop strings, wanted at most 16", o->n_stop);
    if (o->max_tokens < -1)
        return sq_fail(err, SQUISH_INVALID, "max_tokens is %d, wanted -1 or more", o->max_tokens);
    if (o->min_tokens < 0)
        return sq_fail(err, SQUISH_INVALID, "min_tokens is %d, wanted 0 or more", o->min_tokens);
    if (o->logprobs < -1 || o->logprobs > 20)
        return sq_fail(err, SQUISH_INVALID, "logprobs is %d, wanted -1 to 20", o->logprobs);
    return SQUISH_OK;
}

/* Tokens at which a repetition match ends: those with a newline, colon, quote or star in them. */
static int32_t find_breakers(const sq_model *m, int32_t *ids) {
    int32_t n = 0;
    for (int32_t id = 0; m->tok && id < sq_tok_count(m->tok) && n < BREAKERS_MAX; id++) {
        sq_span b;
        if (!sq_tok_bytes(m->tok, id, &b)) continue;
        for (size_t i = 0; i < b.n; i++)
            if (memchr("\n:\"*", b.p[i], 4)) {
                ids[n++] = id;
                break;
            }
    }
    return n;
}

static squish_status make_sampler(sq_gen *g, const squish_gen_options *o, squish_error *err) {
    const sq_model *m = g->s->e->m;
    int32_t *breakers = NULL, n = 0;
    if (o->sampling.dry_multiplier > 0) {
        breakers = sq_alloc_new(&g->alloc, BREAKERS_MAX * sizeof *breakers);
        if (!breakers) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
        n = find_breakers(m, breakers);
    }
    squish_status st = sq_sampler_new(&g->sampler, &o->sampling, m->cfg.n_vocab, m->info.n_vocab_tokens,
                                      g->s->e->ctx, breakers, n, &g->alloc, err);
    sq_alloc_free(&g->alloc, breakers, breakers ? BREAKERS_MAX * sizeof *breakers : 0);
    return st;
}

static squish_status copy_stops(sq_gen *g, const squish_gen_options *o, squish_error *err) {
    g->n_stop = o->n_stop;
    SQ_TRY(sq_stops_new(&g->stops, o->stop, o->n_stop, &g->alloc, err));
    for (int32_t i = 0; i < o->n_stop; i++) g->stop_bytes += strlen(o->stop[i]) + 1;
    if (g->stop_bytes == 0) return SQUISH_OK;
    g->stop_text = sq_alloc_new(&g->alloc, g->stop_bytes);
    if (!g->stop_text) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    char *p = g->stop_text;
    for (int32_t i = 0; i < o->n_stop; i++) {
        const size_t n = strlen(o->stop[i]) + 1;
        g->stop_at[i] = memcpy(p, o->stop[i], n);
        p += n;
    }
    return SQUISH_OK;
}

static void ban_ends(sq_gen *g, bool banned) {
    const sq_tok *t = g->s->e->m->tok;
    for (int32_t id = 0; t && id < sq_tok_count(t); id++)
        if (sq_tok_is_eos(t, id)) sq_sampler_ban(g->sampler, id, banned);
}

squish_status sq_gen_new(sq_gen **out, sq_seq *s, const int32_t *prompt, size_t n,
                         const squish_gen_options *o, squish_error *err) {
    *out = NULL;
    SQ_TRY(check_options(o, err));
    const squish_alloc *a = &s->e->alloc;
    sq_gen *g = sq_alloc_zero(a, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    g->s = s;
    g->alloc = *a;
    g->max_tokens = o->max_tokens;
    g->min_tokens = o->min_tokens;
    g->n_top = o->logprobs;
    g->include_stop = o->include_stop;
    g->ignore_eos = o->ignore_eos;
    g->pending = -1;
    g->t_begin = sq_os_now_ns();
    sq_buf_init(&g->piece, a, TEXT_MAX);
    sq_buf_init(&g->text, a, TEXT_MAX);
    squish_status st = SQUISH_OK;
    if (!sq_buf_reserve(&g->piece, TEXT_RESERVE) || !sq_buf_reserve(&g->text, TEXT_RESERVE)) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
        goto fail;
    }
    SQ_GUARD(make_sampler(g, o, err));
    SQ_GUARD(copy_stops(g, o, err));
    SQ_GUARD(sq_seq_sync(s, prompt, n, err));
    for (size_t i = 0; i < n; i++) sq_sampler_accept(g->sampler, prompt[i], false);
    if (g->min_tokens > 0) ban_ends(g, true);
    if (s->e->m->tok) sq_detok_init(&g->detok, s->e->m->tok, false, false);
    g->n_prompt = (int32_t)n;
    g->n_reused = s->reused;
    g->t_prefilled = g->t_last = sq_os_now_ns();
    *out = g;
    return SQUISH_OK;
fail:
    sq_gen_free(g);
    return st;
}

void sq_gen_free(sq_gen *g) {
    if (!g) return;
    sq_sampler_free(g->sampler);
    sq_stops_free(g->stops);
    sq_buf_deinit(&g->piece);
    sq_buf_deinit(&g->text);
    squish_alloc a = g->alloc;
    sq_alloc_free(&a, g->stop_text, g->stop_bytes);
    sq_alloc_free(&a, g, sizeof *g);
}

static void close_text(sq_gen *g, squish_gen_event *ev, squish_finish why) {
    if (g->detok.tok && ev->stop_reason == NULL) {
        g->piece.len = 0;
        sq_detok_finish(&g->detok, &g->piece);
        const int32_t hit = sq_stops_push(g->stops, g->piece.data, g->piece.len, g->include_stop, &g->text);
        if (hit < 0)
            sq_stops_finish(g->stops, &g->text);
        else
            ev->stop_reason = g->stop_at[hit], why = SQUISH_FINISH_STOP;
    }
    g->finished = true;
    ev->finish = why;
}

/* Text of a token that stays in the answer; true if a stop string fired. */
static bool show(sq_gen *g, int32_t id, squish_gen_event *ev) {
    if (!g->detok.tok) return false;
    g->piece.len = 0;
    sq_detok_push(&g->detok, id, &g->piece);
    const int32_t hit = sq_stops_push(g->stops, g->piece.data, g->piece.len, g->include_stop, &g->text);
    if (hit >= 0) ev->stop_reason = g->stop_at[hit];
    return hit >= 0;
}

static squish_status draw(sq_gen *g, squish_gen_event *ev, squish_error *err) {
    sq_seq *s = g->s;
    const float *logits = NULL;
    SQ_TRY(sq_seq_logits_now(s, &logits, err));
    SQ_TRY(sq_sampler_draw(g->sampler, logits, NULL, s->n, g->n_top, &g->drawn, err));
    const int32_t id = g->drawn.id;
    sq_sampler_accept(g->sampler, id, true);
    g->pending = id;
    g->n_done++;
    g->t_last = sq_os_now_ns();
    if (g->n_done == 1) g->t_first = g->t_last;
    if (g->n_done == g->min_tokens) ban_ends(g, false);
    ev->id = id;
    ev->logprob = g->drawn.logprob;
    ev->n_top = g->drawn.n_top > 0 ? g->drawn.n_top : 0;
    ev->top_ids = g->drawn.top_ids;
    ev->top_logprobs = g->drawn.top_logprobs;
    return SQUISH_OK;
}

squish_status sq_gen_next(sq_gen *g, squish_gen_event *ev, squish_error *err) {
    sq_seq *s = g->s;
    *ev = (squish_gen_event){.id = -1, .text = ""};
    if (g->finished) return sq_fail(err, SQUISH_INVALID, "the answer is finished");
    g->text.len = 0;
    if (g->max_tokens == 0) {
        close_text(g, ev, SQUISH_FINISH_LENGTH);
    } else {
        if (g->pending >= 0) SQ_TRY(sq_seq_append(s, g->pending, err));
        g->pending = -1;
        SQ_TRY(draw(g, ev, err));
        const bool end = s->e->m->tok && sq_tok_is_eos(s->e->m->tok, ev->id) && !g->ignore_eos;
        if (end || show(g, ev->id, ev)) close_text(g, ev, SQUISH_FINISH_STOP);
        /* The drawn token needs a place of its own before the next can be drawn. */
        else if (g->n_done == g->max_tokens || s->n + 1 > s->e->ctx)
            close_text(g, ev, SQUISH_FINISH_LENGTH);
    }
    if (g->piece.failed || g->text.failed)
        return sq_fail(err, SQUISH_NO_MEMORY, "answer: text over %d bytes", TEXT_MAX);
    if (g->text.len) ev->text = g->text.data;
    ev->text_bytes = g->text.len;
    return SQUISH_OK;
}

void sq_gen_stats(const sq_gen *g, squish_gen_stats *o) {
    *o = (squish_gen_stats){.prompt_tokens = g->n_prompt,
                            .reused_tokens = g->n_reused,
                            .completion_tokens = g->n_done,
                            .seed = sq_sampler_seed(g->sampler)};
    o->prefill_ms = (double)(g->t_prefilled - g->t_begin) / 1e6;
    if (g->n_done > 0) {
        o->ttft_ms = (double)(g->t_first - g->t_begin) / 1e6;
        o->decode_ms = (double)(g->t_last - g->t_first) / 1e6;
    }
    if (o->prefill_ms > 0) o->prefill_tok_s = (g->n_prompt - g->n_reused) / o->prefill_ms * 1e3;
    if (o->decode_ms > 0) o->decode_tok_s = (g->n_done - 1) / o->decode_ms * 1e3;
}
