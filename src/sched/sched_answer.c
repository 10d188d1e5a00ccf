/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_answer.c - from logits to an event: draw, detokenise, look for stop strings.
 *
 *   logits -> sampler -> id -> detokenizer (holds incomplete UTF-8) -> stop strings (hold what could begin
 * one) -> text
 *
 * Knows nothing of timelines, caches and steps: whoever has the logits of position n - 1 asks for the token
 * of position n. So an answer alone and an answer among others are the same code on the same numbers. After
 * sq_answer_new nothing allocates, unless the text of one event outgrows its reserve, or a grammar sees
 * something for the first time. */
#include "sched/sched.h"

#include <string.h>

enum { TEXT_RESERVE = 8192, TEXT_MAX = 1 << 20, BREAKERS_MAX = 4096 };
/* A mask is late after so many microseconds beyond the forward pass; so many tokens are tried without it. */
enum { LATE_US = 200, TRIES_MAX = 64 };
/* Where no mask is there, the token is drawn first and shown to the grammar, so often; a model that was
 * refused has masks begun for the next 1, 2, 4 ... places of that kind. */
enum { BLIND_TRIES = 2, BLIND_PAUSE_MAX = 8 };

struct sq_answer {
    squish_alloc alloc;
    const sq_model *m;
    int32_t ctx;
    sq_sampler *sampler;
    sq_stops *stops;
    sq_detok detok;
    sq_buf piece, text; /* of the present call: detokenized, and certain */
    char *stop_text;    /* copies of the stop strings, one after another, for stop_reason */
    const char *stop_at[16];
    size_t stop_bytes;
    int32_t n_stop, max_tokens, min_tokens, n_top;
    bool include_stop, ignore_eos, finished;
    int32_t n_done;
    sq_sample_result drawn;
    int32_t guess;         /* of the next token, which is kept by ratio; -1: none */
    const sq_proposal *q;  /* what it was drawn from */
    /* Of a grammar (matcher NULL: none). The mask of the next token is not there, in the making, or there;
     * LATE: the one in the making is of a token that was drawn without it. */
    sq_matcher *matcher;
    enum { MASK_NONE, MASK_BEGUN, MASK_LATE, MASK_THERE } mask_state;
    sq_masks *masks; /* who makes it; NULL: nobody yet */
    sq_mask_job job;
    sq_mask_job *ahead;            /* [SQ_GUESS_MAX]: of masks behind guesses; those with a `g` were begun */
    uint32_t places[SQ_GUESS_MAX]; /* [n_places]: behind guesses; their masks are not there, nor begun */
    int32_t n_places;
    uint64_t *mask, *tried; /* [mask_words]: of the job; all but what was tried in vain */
    size_t mask_words;
    bool free_choice; /* the filters of the sampler do not depend on the mask */
    bool jumps;       /* forced text is cut as the tokenizer cuts it: */
    sq_jump jump;
    bool blind; /* tokens are to be drawn before there is a mask, until one is refused */
    int32_t blind_pause, blind_left; /* places to have masks begun for: after a refusal, and now */
    int32_t n_forced, n_unmasked, n_blind;
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

static squish_status make_sampler(sq_answer *a, const squish_gen_options *o, squish_error *err) {
    const sq_model *m = a->m;
    int32_t *breakers = NULL, n = 0;
    if (o->sampling.dry_multiplier > 0) {
        breakers = sq_alloc_new(&a->alloc, BREAKERS_MAX * sizeof *breakers);
        if (!breakers) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
        n = find_breakers(m, breakers);
    }
    squish_status st = sq_sampler_new(&a->sampler, &o->sampling, m->cfg.n_vocab, m->info.n_vocab_tokens,
                                      a->ctx, breakers, n, &a->alloc, err);
    sq_alloc_free(&a->alloc, breakers, breakers ? BREAKERS_MAX * sizeof *breakers : 0);
    return st;
}

static squish_status copy_stops(sq_answer *a, const squish_gen_options *o, squish_error *err) {
    a->n_stop = o->n_stop;
    SQ_TRY(sq_stops_new(&a->stops, o->stop, o->n_stop, &a->alloc, err));
    for (int32_t i = 0; i < o->n_stop; i++) a->stop_bytes += strlen(o->stop[i]) + 1;
    if (a->stop_bytes == 0) return SQUISH_OK;
    a->stop_text = sq_alloc_new(&a->alloc, a->stop_bytes);
    if (!a->stop_text) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    char *p = a->stop_text;
    for (int32_t i = 0; i < o->n_stop; i++) {
        const size_t n = strlen(o->stop[i]) + 1;
        a->stop_at[i] = memcpy(p, o->stop[i], n);
        p += n;
    }
    return SQUISH_OK;
}

/* Does the same token win, whether what is not allowed is taken out before or after the filters? */
static bool is_free_choice(const squish_sampling *s) {
    const bool filters = s->top_k > 0 || s->top_p < 1 || s->min_p > 0 || s->typical_p < 1 ||
                         s->top_n_sigma > 0 || s->xtc_probability > 0;
    return s->temperature < 1e-5f || !filters;
}

static squish_status begin_grammar(sq_answer *a, const squish_gen_options *o, squish_error *err) {
    const squish_grammar *g = o->grammar;
    if (!g) return SQUISH_OK;
    if (!a->m->tok || !sq_gram_trie_is_for(g->trie, a->m->tok, a->m->cfg.n_vocab))
        return sq_fail(err, SQUISH_INVALID, "the grammar was made for another vocabulary");
    if (o->ignore_eos) return sq_fail(err, SQUISH_INVALID, "ignore_eos and a grammar contradict each other");
    sq_jump_init(&a->jump, &a->alloc);
    a->job = (sq_mask_job){.g = g->g, .trie = g->trie};
    a->mask_words = ((size_t)a->m->cfg.n_vocab + 63) / 64;
    a->mask = sq_alloc_new(&a->alloc, 2 * a->mask_words * sizeof *a->mask);
    a->ahead = sq_alloc_zero(&a->alloc, SQ_GUESS_MAX * sizeof *a->ahead);
    if (!a->mask || !a->ahead) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    a->tried = a->mask + a->mask_words;
    a->free_choice = is_free_choice(&o->sampling);
    a->jumps = g->canonical;
    a->job.mask = a->mask;
    return sq_matcher_new(&a->matcher, g->g, g->trie, &a->alloc, err);
}

static void ban_ends(sq_answer *a, bool banned) {
    const sq_tok *t = a->m->tok;
    for (int32_t id = 0; t && id < sq_tok_count(t); id++)
        if (sq_tok_is_eos(t, id)) sq_sampler_ban(a->sampler, id, banned);
}

squish_status sq_answer_new(sq_answer **out, const sq_model *m, int32_t ctx, const squish_gen_options *o,
                            const squish_alloc *alloc, squish_error *err) {
    *out = NULL;
    SQ_TRY(check_options(o, err));
    sq_answer *a = sq_alloc_zero(alloc, sizeof *a);
    if (!a) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    *a = (sq_answer){.alloc = *alloc,
                     .m = m,
                     .ctx = ctx,
                     .max_tokens = o->max_tokens,
                     .min_tokens = o->min_tokens,
                     .n_top = o->logprobs,
                     .guess = -1,
                     .include_stop = o->include_stop,
                     .ignore_eos = o->ignore_eos};
    sq_buf_init(&a->piece, alloc, TEXT_MAX);
    sq_buf_init(&a->text, alloc, TEXT_MAX);
    squish_status st = SQUISH_OK;
    if (!sq_buf_reserve(&a->piece, TEXT_RESERVE) || !sq_buf_reserve(&a->text, TEXT_RESERVE)) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
        goto fail;
    }
    SQ_GUARD(make_sampler(a, o, err));
    SQ_GUARD(copy_stops(a, o, err));
    SQ_GUARD(begin_grammar(a, o, err));
    if (a->min_tokens > 0) ban_ends(a, true);
    if (m->tok) sq_detok_init(&a->detok, m->tok, o->special_text, false);
    *out = a;
    return SQUISH_OK;
fail:
    sq_answer_free(a);
    return st;
}

void sq_answer_free(sq_answer *a) {
    if (!a) return;
    sq_answer_settle(a);
    sq_sampler_free(a->sampler);
    sq_stops_free(a->stops);
    sq_matcher_free(a->matcher);
    if (a->job.g) sq_jump_deinit(&a->jump);
    sq_buf_deinit(&a->piece);
    sq_buf_deinit(&a->text);
    squish_alloc alloc = a->alloc;
    sq_alloc_free(&alloc, a->mask, a->mask ? 2 * a->mask_words * sizeof *a->mask : 0);
    sq_alloc_free(&alloc, a->ahead, a->ahead ? SQ_GUESS_MAX * sizeof *a->ahead : 0);
    sq_alloc_free(&alloc, a->stop_text, a->stop_bytes);
    sq_alloc_free(&alloc, a, sizeof *a);
}

void sq_answer_prompt(sq_answer *a, const int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) sq_sampler_accept(a->sampler, ids[i], false);
}

int32_t sq_answer_guess(const sq_answer *a, sq_drafter *d, const float *logits, const int32_t *ids, int32_t n,
                        int64_t position, float *sure) {
    if (d->q) return sq_sampler_propose(a->sampler, logits, ids, n, d->turn, d->q, sure);
    const int32_t at = sq_sampler_guess(a->sampler, logits, ids, n, -1, position, sure);
    float unused;
    if (!d->seconds || at < 0) return at;
    d->second = sq_sampler_guess(a->sampler, logits, ids, n, at, position, &unused);
    if (ids && d->second >= 0) d->second = ids[d->second];
    return at;
}

void sq_answer_expect(sq_answer *a, int32_t id, const sq_proposal *q) {
    a->guess = id;
    a->q = q;
}

int64_t sq_answer_seed(const sq_answer *a) { return sq_sampler_seed(a->sampler); }
int32_t sq_answer_tokens(const sq_answer *a) { return a->n_done; }
int32_t sq_answer_forced(const sq_answer *a) { return a->n_forced; }
int32_t sq_answer_left(const sq_answer *a) {
    return a->max_tokens < 0 ? INT32_MAX : a->max_tokens - a->n_done;
}
int32_t sq_answer_unmasked(const sq_answer *a) { return a->n_unmasked; }
int32_t sq_answer_blind(const sq_answer *a) { return a->n_blind; }
bool sq_answer_wants_token(const sq_answer *a) { return !a->finished && a->max_tokens != 0; }

static void close_text(sq_answer *a, squish_gen_event *ev, squish_finish why) {
    if (a->detok.tok && ev->stop_reason == NULL) {
        a->piece.len = 0;
        sq_detok_finish(&a->detok, &a->piece);
        const int32_t hit = sq_stops_push(a->stops, a->piece.data, a->piece.len, a->include_stop, &a->text);
        if (hit < 0)
            sq_stops_finish(a->stops, &a->text);
        else
            ev->stop_reason = a->stop_at[hit], why = SQUISH_FINISH_STOP;
    }
    a->finished = true;
    ev->finish = why;
}

/* Text of a token that stays in the answer; true if a stop string fired. */
static bool show(sq_answer *a, int32_t id, squish_gen_event *ev) {
    if (!a->detok.tok) return false;
    a->piece.len = 0;
    sq_detok_push(&a->detok, id, &a->piece);
    const int32_t hit = sq_stops_push(a->stops, a->piece.data, a->piece.len, a->include_stop, &a->text);
    if (hit >= 0) ev->stop_reason = a->stop_at[hit];
    return hit >= 0;
}

/* ---- under a grammar -------------------------------------------------------------------------- */

/* Most tokens of a model that writes what it is to write are right, and to show one to the grammar takes a
 * hundredth of a mask. */
static bool goes_blind(sq_answer *a) {
    if (!a->free_choice || a->n_done < a->min_tokens) return false;
    if (a->blind_left == 0) return true;
    a->blind_left--;
    return false;
}

static void begin_mask(sq_answer *a, sq_masks *w) {
    if (a->mask_state == MASK_BEGUN || a->mask_state == MASK_THERE) return;
    if (a->mask_state == MASK_LATE) sq_masks_wait(a->masks, &a->job, -1);
    a->mask_state = MASK_NONE;
    a->blind = false;
    a->job.place = sq_matcher_place(a->matcher);
    if (sq_gram_has_mask_at(a->job.g, a->job.trie, a->job.place)) return; /* waking a thread takes longer */
    a->blind = goes_blind(a);
    if (a->blind) a->n_places = 0;
    if (a->blind) return;
    a->masks = w;
    sq_masks_begin(w, &a->job);
    a->mask_state = MASK_BEGUN;
}

/* Masks behind guesses of before are no more wanted; one that is being made keeps its job until it is. */
static void begin_masks_ahead(sq_answer *a, sq_masks *w) {
    int32_t k = 0;
    for (int32_t i = 0; i < SQ_GUESS_MAX; i++) {
        sq_mask_job *j = &a->ahead[i];
        if (j->g && !sq_masks_drop(a->masks, j)) continue;
        j->g = NULL;
        if (k == a->n_places) continue;
        *j = (sq_mask_job){.g = a->job.g, .trie = a->job.trie, .place = a->places[k++]};
        a->masks = w;
        sq_masks_begin(w, j);
    }
    a->n_places = 0;
}

void sq_answer_prepare(sq_answer *a, sq_masks *w) {
    if (!a->matcher || a->finished) return;
    begin_mask(a, w);
    begin_masks_ahead(a, w);
}

void sq_answer_settle(sq_answer *a) {
    if (!a->masks) return;
    for (int32_t i = 0; i < SQ_GUESS_MAX; i++) {
        if (a->ahead[i].g && !sq_masks_drop(a->masks, &a->ahead[i]))
            sq_masks_wait(a->masks, &a->ahead[i], -1);
        a->ahead[i].g = NULL;
    }
    sq_masks_wait(a->masks, &a->job, -1);
    a->masks = NULL;
    a->mask_state = MASK_NONE;
}

/* The mask of the place may be one that was begun behind a guess: it is nearer than one begun now. */
static void wait_for_mask_ahead(sq_answer *a) {
    const uint32_t place = sq_matcher_place(a->matcher);
    for (int32_t i = 0; i < SQ_GUESS_MAX; i++)
        if (a->ahead[i].g && a->ahead[i].place == place) sq_masks_wait(a->masks, &a->ahead[i], -1);
}

/* What the grammar allows now, into a->mask. */
static squish_status find_mask(sq_answer *a, squish_error *err) {
    if (a->mask_state == MASK_THERE) return SQUISH_OK;
    if (a->masks) sq_masks_wait(a->masks, &a->job, -1);
    if (a->masks && a->mask_state != MASK_BEGUN) wait_for_mask_ahead(a);
    if (a->mask_state == MASK_BEGUN)
        SQ_TRY(a->job.status == SQUISH_OK ? SQUISH_OK : sq_fail(err, a->job.status, "%s", a->job.err.text));
    else
        SQ_TRY(sq_matcher_mask(a->matcher, a->mask, &a->job.n_allowed, err));
    if (a->job.n_allowed == 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "no token of the vocabulary goes on as the grammar wants");
    a->mask_state = MASK_THERE;
    /* Only ends are left: then it is no use to wait for min_tokens. */
    if (a->n_done < a->min_tokens && sq_matcher_must_end(a->matcher)) ban_ends(a, false);
    return SQUISH_OK;
}

static int32_t only_id(const sq_answer *a) {
    size_t w = 0;
    while (a->mask[w] == 0) w++;
    return (int32_t)(w * 64) + __builtin_ctzll(a->mask[w]);
}

static squish_status look_for_jump(sq_answer *a, squish_error *err) {
    if (!a->jumps) return SQUISH_OK;
    return sq_jump_find(&a->jump, a->matcher, a->m->tok, a->tried, a->mask_words, err);
}

bool sq_answer_is_forced(sq_answer *a) {
    squish_error err = {0}; /* the call for the token says it again */
    if (!a->matcher || !sq_answer_wants_token(a) || a->n_top >= 0) return false;
    if (look_for_jump(a, &err) != SQUISH_OK) return false;
    if (sq_jump_is_on(&a->jump)) return true;
    if (a->mask_state == MASK_NONE && !sq_matcher_is_narrow(a->matcher)) return false;
    if (a->mask_state == MASK_BEGUN || a->mask_state == MASK_LATE || find_mask(a, &err) != SQUISH_OK)
        return false;
    return a->job.n_allowed == 1 && !sq_tok_is_eos(a->m->tok, only_id(a));
}

/* Does the token go on as the grammar wants? Then it joins the text the grammar reads. */
static squish_status follow(sq_answer *a, int32_t id, bool *ok, squish_error *err) {
    a->jump.looked = sq_jump_is_on(&a->jump);
    if (!sq_tok_is_eos(a->m->tok, id)) return sq_matcher_token(a->matcher, id, ok, err);
    *ok = sq_matcher_may_end(a->matcher);
    return SQUISH_OK;
}

/* How many of n tokens pass, one behind the other. Of places from the known'th token on masks are made. */
static int32_t try_tokens(sq_answer *a, const int32_t *ids, int32_t n, int32_t known) {
    squish_error err = {0}; /* a guess less */
    int32_t k = 0;
    for (bool ok = true; k < n && !sq_tok_is_eos(a->m->tok, ids[k]); k++) {
        if (sq_matcher_token(a->matcher, ids[k], &ok, &err) != SQUISH_OK || !ok) break;
        const uint32_t place = sq_matcher_place(a->matcher);
        if (k >= known && a->n_places < SQ_GUESS_MAX && !sq_gram_has_mask_at(a->job.g, a->job.trie, place))
            a->places[a->n_places++] = place;
    }
    return k;
}

int32_t sq_answer_allows(sq_answer *a, const int32_t *ids, int32_t n) {
    if (!a->matcher) return n;
    const size_t begin = sq_matcher_steps(a->matcher);
    a->n_places = 0;
    const int32_t k = try_tokens(a, ids, n, 0);
    sq_matcher_rollback(a->matcher, sq_matcher_steps(a->matcher) - begin);
    return k;
}

void sq_answer_allows_aside(sq_answer *a, const int32_t *ids, sq_branch *b) {
    if (!a->matcher) return;
    const size_t begin = sq_matcher_steps(a->matcher);
    if (try_tokens(a, ids, b->at, b->at) < b->at)
        b->n = 0;
    else
        b->n = try_tokens(a, b->ids, b->n, 0);
    sq_matcher_rollback(a->matcher, sq_matcher_steps(a->matcher) - begin);
}

/* The token from what may be drawn, where it was guessed by the ratio. */
static squish_status draw_row(sq_answer *a, const float *logits, const uint64_t *mask, int32_t position,
                              squish_error *err) {
    return sq_sampler_draw_by_ratio(a->sampler, logits, mask, position, a->n_top, a->guess, a->q, &a->drawn,
                                    err);
}

/* Draw from everything, then ask the grammar, and again without what it refused. Where the filters do not
 * look at the mask this is the token that would have been drawn with it. */
static squish_status draw_unmasked(sq_answer *a, const float *logits, int32_t position, int tries, bool *done,
                                   squish_error *err) {
    const int32_t rest = a->m->cfg.n_vocab % 64;
    memset(a->tried, 0xFF, a->mask_words * sizeof *a->tried);
    if (rest) a->tried[a->mask_words - 1] = (1ull << rest) - 1;
    *done = false;
    for (int i = 0; i < tries && !*done; i++) {
        SQ_TRY(sq_sampler_draw(a->sampler, logits, a->tried, position, a->n_top, &a->drawn, err));
        const int32_t id = a->drawn.id;
        SQ_TRY(follow(a, id, done, err));
        a->tried[id / 64] &= ~(1ull << id % 64);
    }
    return SQUISH_OK;
}

static squish_status draw_late(sq_answer *a, const float *logits, int32_t position, bool *done,
                               squish_error *err) {
    SQ_TRY(draw_unmasked(a, logits, position, TRIES_MAX, done, err));
    if (*done) a->mask_state = MASK_LATE, a->n_unmasked++;
    return SQUISH_OK;
}

static squish_status draw_blind(sq_answer *a, const float *logits, int32_t position, bool *done,
                                squish_error *err) {
    SQ_TRY(draw_unmasked(a, logits, position, BLIND_TRIES, done, err));
    a->blind = *done;
    a->n_blind += *done;
    const int32_t next = a->blind_pause ? 2 * a->blind_pause : 1;
    a->blind_pause = *done ? 0 : next < BLIND_PAUSE_MAX ? next : BLIND_PAUSE_MAX;
    a->blind_left = a->blind_pause;
    return SQUISH_OK;
}

/* logits NULL: there is one token. */
static squish_status draw_masked(sq_answer *a, const float *logits, int32_t position, squish_error *err) {
    bool ok;
    SQ_TRY(find_mask(a, err));
    if (logits) {
        SQ_TRY(draw_row(a, logits, a->mask, position, err));
    } else {
        a->drawn = (sq_sample_result){.id = only_id(a)};
        a->n_forced++;
    }
    a->mask_state = MASK_NONE;
    SQ_TRY(follow(a, a->drawn.id, &ok, err));
    if (ok) return SQUISH_OK;
    return sq_fail(err, SQUISH_NUMERIC, "token %d was drawn against the grammar", a->drawn.id);
}

/* The next token of forced text. Where its log-probability is asked for it is drawn as the only one there is.
 */
static squish_status draw_forced(sq_answer *a, const float *logits, int32_t position, squish_error *err) {
    const int32_t id = a->jump.ids[a->jump.at++];
    bool ok;
    a->drawn = (sq_sample_result){.id = id};
    a->n_forced += logits == NULL;
    if (logits && a->n_top >= 0) {
        memset(a->tried, 0, a->mask_words * sizeof *a->tried);
        a->tried[id / 64] = 1ull << id % 64;
        SQ_TRY(sq_sampler_draw(a->sampler, logits, a->tried, position, a->n_top, &a->drawn, err));
    }
    if (a->mask_state == MASK_BEGUN) sq_masks_wait(a->masks, &a->job, -1);
    if (a->mask_state != MASK_LATE) a->mask_state = MASK_NONE;
    SQ_TRY(follow(a, id, &ok, err));
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NUMERIC, "token %d was forced against the grammar", id);
}

static squish_status draw_grammatical(sq_answer *a, const float *logits, int32_t position,
                                      squish_error *err) {
    bool done = false;
    const bool may_try = logits && a->guess < 0; /* by ratio what is drawn depends on the whole mask */
    SQ_TRY(look_for_jump(a, err));
    if (sq_jump_is_on(&a->jump)) return draw_forced(a, logits, position, err);
    if (may_try && a->blind && a->mask_state == MASK_NONE &&
        !sq_gram_has_mask_at(a->job.g, a->job.trie, sq_matcher_place(a->matcher)))
        SQ_TRY(draw_blind(a, logits, position, &done, err));
    else if (may_try && a->free_choice && a->n_done >= a->min_tokens && a->mask_state == MASK_BEGUN &&
             !sq_masks_wait(a->masks, &a->job, LATE_US))
        SQ_TRY(draw_late(a, logits, position, &done, err));
    return done ? SQUISH_OK : draw_masked(a, logits, position, err);
}

/* ---- a token ---------------------------------------------------------------------------------- */

static squish_status draw(sq_answer *a, const float *logits, int32_t position, squish_gen_event *ev,
                          squish_error *err) {
    if (a->matcher)
        SQ_TRY(draw_grammatical(a, logits, position, err));
    else
        SQ_TRY(draw_row(a, logits, NULL, position, err));
    const int32_t id = a->drawn.id;
    a->guess = -1;
    sq_sampler_accept(a->sampler, id, true);
    a->n_done++;
    if (a->n_done == a->min_tokens) ban_ends(a, false);
    ev->id = id;
    ev->logprob = a->drawn.logprob;
    ev->n_top = a->drawn.n_top > 0 ? a->drawn.n_top : 0;
    ev->top_ids = a->drawn.top_ids;
    ev->top_logprobs = a->drawn.top_logprobs;
    return SQUISH_OK;
}

squish_status sq_answer_next(sq_answer *a, const float *logits, int32_t n, squish_gen_event *ev,
                             squish_error *err) {
    *ev = (squish_gen_event){.id = -1, .text = ""};
    if (a->finished) return sq_fail(err, SQUISH_INVALID, "the answer is finished");
    a->text.len = 0;
    if (a->max_tokens == 0) {
        close_text(a, ev, SQUISH_FINISH_LENGTH);
    } else {
        SQ_TRY(draw(a, logits, n, ev, err));
        const bool end = a->m->tok && sq_tok_is_eos(a->m->tok, ev->id) && !a->ignore_eos;
        if (end || show(a, ev->id, ev)) close_text(a, ev, SQUISH_FINISH_STOP);
        /* A whole word that nothing can follow is the end, without a token that says so. */
        else if (a->matcher && sq_matcher_must_end(a->matcher))
            close_text(a, ev, SQUISH_FINISH_STOP);
        /* The drawn token needs a place of its own before the next can be drawn. */
        else if (a->n_done == a->max_tokens || n + 1 > a->ctx)
            close_text(a, ev, SQUISH_FINISH_LENGTH);
    }
    if (a->piece.failed || a->text.failed)
        return sq_fail(err, SQUISH_NO_MEMORY, "answer: text over %d bytes", TEXT_MAX);
    if (a->text.len) ev->text = a->text.data;
    ev->text_bytes = a->text.len;
    return SQUISH_OK;
}
