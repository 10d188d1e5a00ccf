/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_spec.c - how many guesses pay.
 *
 *   tokens of a step with m guesses   T(m) = T(0) + r1 + r1 r2 + ... + r1 .. rm       r: how often such a
 *   its cost                          C(m) = cost of rows + m rows of answers            guess is right
 *
 * The m with the most tokens a millisecond is taken, and none unless it is 3 % better than without. Guesses
 * are told apart by class (an n-gram's: how many tokens are equal before it; a drafter's: its place in the
 * row and how sure it was), and how often a class is right is learned by each answer for itself, beginning
 * with what other answers of the engine saw. Where nothing pays, once in 64 tokens one guess is tried all the
 * same: a text may begin to repeat itself.
 *
 * N-grams cost nothing and a drafter does. So what a draft would bring is foretold from how often places of a
 * row were right, its time added to C(m), and it is asked only where that beats the n-gram; once it was, how
 * sure it is decides whether it goes on, and how many of its guesses are tried. One that has to read the
 * timeline first is asked where what it would save until the end of the answer is twice what the reading
 * costs. Where it does not pay, a share of the time of steps is put aside, and spent on finding out whether
 * it does by now: that share is the most that a useless drafter costs.
 *
 * By ratio a guess that was drawn is tried, and whether one is drawn is decided before: by how sure its law
 * is, never by what came out of it. Else the tokens that are kept would not have the law of the model.
 *
 * A side branch is right only where the chain is wrong, r1 .. rk (1 - r(k+1)) of the times for one behind k
 * guesses, and then as often as such branches were: which is learned from all that were found, tried or not,
 * since what was drawn says it of both. A branch is tried where its rows give more tokens a millisecond. */
#include "sched/sched_spec.h"

#include <math.h>
#include <string.h>

static const double GAIN = 1.03;

/* No row is cheaper than this share of the step it joins: times are noisy, and the luckiest looks free. */
static const double FREE = 0.02;

enum { PROBE_EVERY = 64, SURE = 4 };

/* What a draft is taken to cost before one was made, as a share of a step. */
static const double DRAFT = 0.1;

/* A draft is asked where it promises so much more than none: its time is spent before it is known whether it
 * is sure, and at 3 % answers at temperature 0.7 lost 5 %. */
static const double DRAFT_GAIN = 1.15;

/* A share of the time of steps without drafts that may be spent on one, how many steps' time at most, and how
 * many a drafter has that was never asked. */
static const double CREDIT = 0.008, CREDIT_STEPS = 64, CREDIT_FIRST = 8;

/* Where it was for nothing the share is halved, down to a part, until a draft pays. */
static const double SHY_MAX = 4;

/* A lag up to this many tokens is what every draft begins with. */
enum { LAG_FREE = 2, LEFT_MAX = 256, LEFT_UNKNOWN = 128 };

/* A token that is read first, as a share of a guess, before any was. */
static const double LAG = 0.25;

/* What a step has to gain by a branch. */
static const double BRANCH_GAIN = 1.01;

/* How far one result moves a rate: of an answer, and of the engine; and how far a step without a draft moves
 * those of an answer back to the engine's. Where some bad guesses in a row have made them low nothing else
 * would, since nothing is asked. */
static const float LEARN = 1.0f / 12, LEARN_ALL = 1.0f / 24, FORGET = 1.0f / 64;

struct sq_spec {
    squish_alloc alloc;
    squish_spec opt;
    sq_ngram *ngram;
    sq_guess_rates rates;
    bool began;          /* rates are there */
    squish_spec_mode by; /* whose guesses are being tried */
    uint8_t class_of[SQ_GUESS_MAX];
    int32_t n_tried;
    sq_branch branches[SQ_BRANCHES_MAX]; /* found, those that are tried in front */
    uint8_t class_aside[SQ_BRANCHES_MAX];
    int32_t n_branches;
    sq_proposal *q; /* [SQ_DRAFT_PLACES] what guesses were drawn from; NULL: by match */
    int64_t turn;   /* guesses drawn so far, by ratio */
    int32_t guess_second; /* what a drafter would have guessed in place of the first; -1: nothing */
    int32_t since_probe; /* tokens since guesses were tried */
    sq_spec_count count;
    float *behind;                                /* [hidden] whose logits gave the first of: */
    int32_t hidden, since[SQ_SINCE_MAX], n_since; /* -1: there is none */
};

void sq_guess_rates_init(sq_guess_rates *r) {
    memset(r, 0, sizeof *r);
    for (int32_t c = 0; c < SQ_GUESS_CLASSES; c++) {
        const float seen = c <= SQ_NGRAM_MIN ? 0.05f : 1.0f - 2.0f / (float)c; /* 0.33 at 3, 0.86 at 14 */
        r->right[SQUISH_SPEC_NGRAM][c] = seen;
    }
    static const float sure[SURE] = {0.2f, 0.45f, 0.7f, 0.93f};
    for (int32_t m = 0; m < SQUISH_SPEC_COUNT; m++) {
        if (m == SQUISH_SPEC_NGRAM) continue;
        for (int32_t c = 0; c < SQ_GUESS_CLASSES; c++) r->right[m][c] = sure[c % SURE];
        for (int32_t k = 0; k < SQ_DRAFT_PLACES; k++) r->place[m][k] = 0.6f;
    }
    for (int32_t m = 0; m < SQUISH_SPEC_COUNT; m++)
        for (int32_t c = 0; c < SQ_GUESS_CLASSES; c++) r->aside[m][c] = 0.2f;
}

/* Of the guess at place k of a row. */
static uint8_t class_of_draft(int32_t k, float sure) {
    const int32_t places = SQ_GUESS_CLASSES / SURE, at = k < places ? k : places - 1;
    return (uint8_t)(at * SURE + (sure < 0.35f ? 0 : sure < 0.6f ? 1 : sure < 0.85f ? 2 : 3));
}

static squish_status check(const squish_spec *o, squish_error *err) {
    if (o->mode < 0 || o->mode >= SQUISH_SPEC_COUNT)
        return sq_fail(err, SQUISH_INVALID, "spec mode is %d, wanted %d (auto) to %d", (int)o->mode,
                       SQUISH_SPEC_AUTO, SQUISH_SPEC_COUNT - 1);
    if (o->guesses < 0 || o->guesses > SQ_GUESS_MAX)
        return sq_fail(err, SQUISH_INVALID, "spec guesses is %d, wanted 0 (as many as pay) to %d", o->guesses,
                       SQ_GUESS_MAX);
    if (o->branches < -1 || o->branches > SQ_BRANCHES_MAX)
        return sq_fail(err, SQUISH_INVALID, "spec branches is %d, wanted -1 (as many as pay) to %d",
                       o->branches, SQ_BRANCHES_MAX);
    if (o->accept < 0 || o->accept >= SQUISH_ACCEPT_COUNT)
        return sq_fail(err, SQUISH_INVALID, "spec accept is %d, wanted %d (match) or %d (ratio)",
                       (int)o->accept, SQUISH_ACCEPT_MATCH, SQUISH_ACCEPT_RATIO);
    if (o->accept == SQUISH_ACCEPT_RATIO && o->branches != 0)
        return sq_fail(err, SQUISH_INVALID,
                       "--spec-accept ratio beside --spec-branches: branches are accepted by match alone");
    return SQUISH_OK;
}

squish_status sq_spec_new(sq_spec **out, const squish_spec *o, int32_t tokens_max, int32_t hidden,
                          const squish_alloc *a, squish_error *err) {
    *out = NULL;
    SQ_TRY(check(o, err));
    if (o->mode == SQUISH_SPEC_OFF) return SQUISH_OK;
    sq_spec *s = sq_alloc_zero(a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory");
    *s = (sq_spec){.alloc = *a, .opt = *o, .hidden = hidden, .n_since = -1};
    squish_status st = sq_ngram_new(&s->ngram, tokens_max, a, err);
    if (st == SQUISH_OK && hidden > 0 && !(s->behind = sq_alloc_new(a, (size_t)hidden * sizeof *s->behind)))
        st = sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory");
    const size_t laws = SQ_DRAFT_PLACES * sizeof *s->q;
    if (st == SQUISH_OK && o->accept == SQUISH_ACCEPT_RATIO && !(s->q = sq_alloc_new(a, laws)))
        st = sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory");
    if (st != SQUISH_OK) {
        sq_spec_free(s);
        return st;
    }
    *out = s;
    return SQUISH_OK;
}

void sq_spec_free(sq_spec *s) {
    if (!s) return;
    sq_ngram_free(s->ngram);
    const squish_alloc a = s->alloc;
    sq_alloc_free(&a, s->behind, s->behind ? (size_t)s->hidden * sizeof *s->behind : 0);
    sq_alloc_free(&a, s->q, s->q ? SQ_DRAFT_PLACES * sizeof *s->q : 0);
    sq_alloc_free(&a, s, sizeof *s);
}

const squish_spec *sq_spec_wish(const sq_spec *s) { return &s->opt; }

void sq_spec_accept(sq_spec *s, int32_t id) {
    sq_ngram_accept(s->ngram, id);
    s->since_probe++;
    if (s->n_since < 0) return;
    if (s->n_since < SQ_SINCE_MAX)
        s->since[s->n_since++] = id;
    else
        s->n_since = -1;
}

void sq_spec_behind(sq_spec *s, const float *h) {
    if (!s->behind) return;
    memcpy(s->behind, h, (size_t)s->hidden * sizeof *s->behind);
    s->n_since = 0;
}

/* What a step is compared by: tokens and ms. draft_ms is that of one guess, on top of its row. */
typedef struct {
    int32_t count;
    double rate, tokens; /* tokens a ms with count guesses; 0, 0: none is better than without */
} choice;

/* The number of guesses, of n, with which a step gives the most tokens a millisecond, when guess i is right
 * with chance right[i]; the first `made` of them are there and cost nothing more. What more rows cost is
 * known only once they have run, so they double at most. */
static choice best_count(const sq_spec_step *at, const float *right, int32_t n, int32_t made,
                         double draft_ms) {
    const double alone = sq_step_cost_alone(at->cost, at->rows), before = at->tokens;
    if (alone <= 0) return (choice){0};
    const int32_t most = 2 * sq_step_cost_seen(at->cost) + 2 - at->rows;
    double sum = before, chance = 1;
    choice best = {.rate = before / alone * (1 + (GAIN - 1) / before)};
    if (n > most) n = most;
    for (int32_t i = 0; i < n; i++) {
        chance *= (double)right[i];
        sum += chance;
        const double ms = sq_step_cost_alone(at->cost, at->rows + i + 1);
        const double least = alone * (1 + FREE * (i + 1)), drafts = i >= made ? (i + 1 - made) * draft_ms : 0;
        const double paid = (ms > least ? ms : least) + drafts;
        if (at->ms_max > 0 && ms + drafts > at->ms_max) break;
        if (!(sum > best.rate * paid)) continue;
        best = (choice){i + 1, sum / paid, sum};
    }
    return best;
}

/* Of n guesses one behind the other, how many are right. */
static double expected(const float *right, int32_t n) {
    double sum = 0, chance = 1;
    for (int32_t i = 0; i < n; i++) sum += chance *= (double)right[i];
    return sum;
}

static void learn(float *rate, float right, float by) { *rate += (right - *rate) * by; }

/* ---- n-grams --------------------------------------------------------------------------------- */

static int32_t find_ngram(sq_spec *s, int32_t max, int32_t *ids, float *right) {
    int32_t length;
    s->by = SQUISH_SPEC_NGRAM;
    const int32_t n = sq_ngram_find(s->ngram, ids, max, &length);
    for (int32_t i = 0; i < n; i++) {
        const int32_t k = length + i < SQ_GUESS_CLASSES - 1 ? length + i : SQ_GUESS_CLASSES - 1;
        s->class_of[i] = (uint8_t)k;
        right[i] = s->rates.right[SQUISH_SPEC_NGRAM][k];
    }
    return n;
}

/* ---- drafts ---------------------------------------------------------------------------------- */

/* Where the answer's drafts begin. */
static sq_draft_from from_of(const sq_spec *s, const sq_spec_step *at) {
    sq_draft_from f = at->from;
    f.h = s->behind, f.since = s->since, f.n_since = s->n_since;
    return f;
}

static double guess_ms(const sq_drafter *d, const sq_spec_step *at) {
    return d->ms > 0 ? d->ms : DRAFT * sq_step_cost_alone(at->cost, at->rows);
}

static double read_ms(const sq_drafter *d, const sq_spec_step *at, int32_t lag) {
    if (lag <= LAG_FREE) return 0;
    return lag * (d->row_ms > 0 ? d->row_ms : LAG * guess_ms(d, at));
}

/* Begin, and learn what reading costs. */
static bool begin_draft(sq_drafter *d, const sq_draft_from *from, int32_t lag) {
    const uint64_t begin = sq_os_now_ns();
    const bool ready = d->begin(d, from);
    const int32_t rows = lag - (ready || !d->lag ? 0 : d->lag(d, from));
    if (lag <= LAG_FREE || rows <= LAG_FREE) return ready;
    const double ms = (double)(sq_os_now_ns() - begin) / 1e6 / rows;
    d->row_ms += (ms - d->row_ms) / (d->row_ms > 0 ? 4 : 1);
    return ready;
}

/* Guesses of the drafter into ids, as many as seem worth their time; all of max where their number was
 * asked for. right: how often such guesses are. */
static int32_t make_draft(sq_spec *s, const sq_spec_step *at, int32_t lag, int64_t position, int32_t max,
                          int32_t *ids, float *right) {
    sq_drafter *d = at->drafter;
    const sq_draft_from from = from_of(s, at);
    const float *place = s->rates.place[d->mode];
    uint64_t begin = sq_os_now_ns();
    int32_t n = 0;
    if (!begin_draft(d, &from, lag)) return 0;
    if (lag > LAG_FREE) begin = sq_os_now_ns();
    while (n < max && n < SQ_DRAFT_PLACES) {
        float sure = 0;
        d->q = s->q ? &s->q[n] : NULL;
        d->turn = s->turn++;
        d->seconds = n == 0 && s->opt.branches != 0;
        const int32_t id = d->next(d, position + n, &sure);
        if (d->seconds) s->guess_second = id < 0 ? -1 : d->second;
        if (id < 0) break;
        s->class_of[n] = class_of_draft(n, sure);
        right[n] = s->rates.right[d->mode][s->class_of[n]];
        ids[n++] = id;
        for (int32_t k = n; k < max; k++) right[k] = place[k < SQ_DRAFT_PLACES ? k : SQ_DRAFT_PLACES - 1];
        if (s->opt.guesses == 0 && best_count(at, right, max, n, d->ms).count <= n) break;
    }
    if (d->end) d->end(d);
    const double ms = (double)(sq_os_now_ns() - begin) / 1e6;
    if (n > 0) d->ms += (ms / n - d->ms) / (d->ms > 0 ? 16 : 1);
    return n;
}

/* What has to be read before a draft; -1: there is nobody to ask. */
static int32_t lag_of(const sq_spec *s, const sq_spec_step *at) {
    sq_drafter *d = at->drafter;
    if (!d || (s->opt.mode != SQUISH_SPEC_AUTO && s->opt.mode != d->mode)) return -1;
    const sq_draft_from from = from_of(s, at);
    return d->lag ? d->lag(d, &from) : 0;
}

/* What a draft of at most max guesses promises. */
static choice promise(const sq_spec *s, const sq_spec_step *at, int32_t max) {
    const sq_drafter *d = at->drafter;
    float right[SQ_GUESS_MAX];
    for (int32_t k = 0; k < max; k++)
        right[k] = s->rates.place[d->mode][k < SQ_DRAFT_PLACES ? k : SQ_DRAFT_PLACES - 1];
    return best_count(at, right, max, 0, guess_ms(d, at));
}

/* Does a draft with that promise pay, beside the best there is without it? */
static bool draft_pays(const sq_spec_step *at, choice draft, choice best, double read) {
    const double alone = sq_step_cost_alone(at->cost, at->rows), plain = alone > 0 ? at->tokens / alone : 0;
    const double other = best.rate > plain ? best.rate : plain;
    int32_t left = at->left > 0 ? at->left : LEFT_UNKNOWN;
    if (draft.count == 0 || draft.rate <= best.rate || draft.rate <= DRAFT_GAIN * plain) return false;
    if (read == 0) return true;
    if (at->ms_max > 0 && read > at->ms_max - alone) return false; /* others would wait */
    if (left > LEFT_MAX) left = at->left == INT32_MAX ? LEFT_UNKNOWN : LEFT_MAX;
    return left * (1 / other - 1 / draft.rate) > 2 * read;
}

/* Put aside, or spend what finding out costs: reading, a guess and its row. */
static bool may_probe(const sq_spec_step *at, double read) {
    sq_drafter *d = at->drafter;
    const double alone = sq_step_cost_alone(at->cost, at->rows);
    const double ms = read + guess_ms(d, at) + sq_step_cost_alone(at->cost, at->rows + 1) - alone;
    const double shy = d->shy > 0 ? d->shy : 1;
    d->credit += d->ms > 0 || d->credit > 0 ? CREDIT * alone / shy : CREDIT_FIRST * alone;
    if (d->credit > CREDIT_STEPS * alone) d->credit = CREDIT_STEPS * alone;
    if (alone <= 0 || d->credit < ms || (at->ms_max > 0 && ms > at->ms_max - alone)) return false;
    d->credit -= ms;
    d->shy = shy < SHY_MAX ? 2 * shy : shy;
    return true;
}

/* Draft in place of the n guesses in ids, where that is better; returns how many there are now. */
static int32_t draft(sq_spec *s, const sq_spec_step *at, int64_t position, int32_t max, int32_t *ids,
                     float *right, int32_t n, choice *best) {
    const bool fixed = s->opt.guesses > 0;
    const int32_t lag = lag_of(s, at), most = lag >= 0 && at->drafter->most < max ? at->drafter->most : max;
    if (lag < 0 || (fixed && n > 0)) return n;
    const double read = read_ms(at->drafter, at, lag);
    const bool pays = !fixed && draft_pays(at, promise(s, at, most), *best, read);
    if (!fixed && !pays && (best->count > 0 || !may_probe(at, read))) {
        for (int32_t k = 0; k < SQ_DRAFT_PLACES; k++)
            learn(&s->rates.place[at->drafter->mode][k], at->rates->place[at->drafter->mode][k], FORGET);
        return n;
    }
    if (pays) at->drafter->shy = 0;
    const int32_t made = make_draft(s, at, lag, position, fixed || pays ? most : 1, ids, right);
    if (made == 0) return n;
    n = made;
    s->by = at->drafter->mode;
    *best = best_count(at, right, n, n, 0);
    if (s->q) *best = (choice){n, 0, at->tokens + expected(right, n)};
    /* A probe is tried, or it was for nothing. */
    if (!fixed && !pays && best->count == 0) *best = (choice){1, 0, at->tokens};
    /* What is not tried was paid for too, and counts as its class is right. */
    for (int32_t i = fixed ? n : best->count; i < n && i < SQ_DRAFT_PLACES; i++)
        learn(&s->rates.place[s->by][i], right[i], LEARN);
    return n;
}

int32_t sq_spec_guess(sq_spec *s, sq_spec_step *at, int64_t position, int32_t max, int32_t *ids) {
    float right[SQ_GUESS_MAX];
    const bool fixed = s->opt.guesses > 0, known = sq_step_cost_seen(at->cost) > 0;
    s->n_tried = s->n_branches = 0;
    s->guess_second = -1;
    if (!s->began) s->rates = *at->rates;
    s->began = true;
    if (fixed && max > s->opt.guesses) max = s->opt.guesses;
    if (max > SQ_GUESS_MAX) max = SQ_GUESS_MAX;
    if (max > SQ_COST_ROWS_MAX - at->rows) max = SQ_COST_ROWS_MAX - at->rows;
    if (max <= 0) return 0;
    const bool ngrams = s->opt.mode == SQUISH_SPEC_AUTO || s->opt.mode == SQUISH_SPEC_NGRAM;
    int32_t n = ngrams ? find_ngram(s, max, ids, right) : 0;
    choice best = n > 0 ? best_count(at, right, n, n, 0) : (choice){0};
    const bool probe = known && s->since_probe >= PROBE_EVERY;
    n = draft(s, at, position, max, ids, right, n, &best);
    if (fixed) best = (choice){n, 0, at->tokens + expected(right, n)};
    if (best.count == 0 && n > 0 && probe) best = (choice){1, 0, at->tokens};
    if (best.count > 0) {
        s->since_probe = 0;
        if (best.tokens > 0) at->tokens = best.tokens;
    }
    at->rows += best.count;
    return s->n_tried = best.count;
}

bool sq_spec_by_ratio(const sq_spec *s, int32_t i, const sq_proposal **q) {
    *q = s->q && s->by != SQUISH_SPEC_NGRAM ? &s->q[i] : NULL;
    return s->q != NULL;
}

int32_t sq_spec_tried(const sq_spec *s, int32_t n, int32_t n_allowed) {
    return s->q && n_allowed < n ? n_allowed + 1 : n_allowed;
}

/* ---- side branches --------------------------------------------------------------------------- */

/* What there is beside the chain: places that an n-gram ends too, or a drafter's second choice. */
static int32_t find_branches(sq_spec *s, const int32_t *ids, int32_t n) {
    if (s->by == SQUISH_SPEC_NGRAM) {
        s->n_branches = sq_ngram_others(s->ngram, ids, n, s->branches);
        for (int32_t i = 0; i < s->n_branches; i++) {
            const int32_t k = s->branches[i].length + s->branches[i].at;
            s->class_aside[i] = (uint8_t)(k < SQ_GUESS_CLASSES - 1 ? k : SQ_GUESS_CLASSES - 1);
        }
    } else if (s->guess_second >= 0) {
        s->branches[0] = (sq_branch){.n = 1, .ids = {s->guess_second}};
        s->class_aside[0] = s->class_of[0];
        s->n_branches = 1;
    }
    return s->n_branches;
}

/* How often the token at place k of a branch's own is right, given those before. */
static double right_aside(const sq_spec *s, int32_t i, int32_t k) {
    const int32_t c = s->class_aside[i] + k < SQ_GUESS_CLASSES ? s->class_aside[i] + k : SQ_GUESS_CLASSES - 1;
    return k == 0 ? (double)s->rates.aside[s->by][c] : (double)s->rates.right[s->by][c];
}

/* Of the branch, whose place is reached in vain `reach` of the times, so many tokens that the step gives most
 * a millisecond. 0: it is better without. */
static int32_t best_aside(const sq_spec *s, sq_spec_step *at, int32_t i, double reach, int32_t most) {
    const double alone = sq_step_cost_alone(at->cost, at->rows);
    double sum = at->tokens, chance = reach, rate = alone > 0 ? sum / alone * BRANCH_GAIN : INFINITY;
    double tokens = 0;
    int32_t best = 0;
    for (int32_t k = 0; k < most; k++) {
        chance *= right_aside(s, i, k);
        sum += chance;
        const double ms = sq_step_cost_alone(at->cost, at->rows + k + 1);
        const double least = alone * (1 + FREE * (k + 1));
        if (at->ms_max > 0 && ms > at->ms_max) break;
        const double r = sum / (ms > least ? ms : least);
        if (r > rate) best = k + 1, rate = r, tokens = sum;
    }
    if (best > 0) at->tokens = tokens;
    return best;
}

/* Those that are tried come first, in the order they were found. */
static void to_front(sq_spec *s, int32_t to, int32_t i) {
    const sq_branch b = s->branches[i];
    const uint8_t c = s->class_aside[i];
    for (; i > to; i--) s->branches[i] = s->branches[i - 1], s->class_aside[i] = s->class_aside[i - 1];
    s->branches[to] = b;
    s->class_aside[to] = c;
}

int32_t sq_spec_branches(sq_spec *s, sq_spec_step *at, const int32_t *ids, int32_t n, int32_t max,
                         int32_t rows, sq_branch *out) {
    double missed[SQ_GUESS_MAX], reach = 1; /* that the chain is wrong at a place, and no branch so far */
    int32_t tried = 0;
    if (s->opt.branches == 0 || n == 0) return 0;
    for (int32_t k = 0; k < n; k++) {
        const double right = (double)s->rates.right[s->by][s->class_of[k]];
        missed[k] = reach * (1 - right);
        reach *= right;
    }
    const int32_t seen = sq_step_cost_seen(at->cost); /* rows never run before are tried by doubling */
    const int32_t most_rows = s->opt.branches < 0 ? 2 * seen + 2 : SQ_COST_ROWS_MAX;
    if (rows > SQ_COST_ROWS_MAX - at->rows) rows = SQ_COST_ROWS_MAX - at->rows;
    if (rows > most_rows - at->rows) rows = most_rows - at->rows;
    for (int32_t i = 0, found = find_branches(s, ids, n); i < found; i++) {
        const sq_branch *b = &s->branches[i];
        int32_t most = b->n < max - b->at ? b->n : max - b->at;
        if (most > rows) most = rows;
        if (s->opt.branches < 0)
            most = best_aside(s, at, i, missed[b->at], most);
        else if (tried == s->opt.branches)
            most = 0;
        if (most <= 0) continue;
        missed[b->at] *= 1 - right_aside(s, i, 0);
        at->rows += most;
        rows -= most;
        to_front(s, tried, i);
        out[tried] = s->branches[tried];
        out[tried++].n = most;
    }
    return tried;
}

void sq_spec_aside(sq_spec *s, int32_t n_right, int32_t id, int32_t n_aside, int32_t n_tried,
                   sq_guess_rates *rates) {
    s->count.guessed += n_tried;
    s->count.right += n_aside;
    s->count.aside += n_aside;
    for (int32_t i = 0; n_right < s->n_tried && i < s->n_branches; i++) {
        const sq_branch *b = &s->branches[i];
        if (b->at != n_right) continue;
        const float right = b->ids[0] == id ? 1 : 0;
        const int32_t c = s->class_aside[i];
        learn(&s->rates.aside[s->by][c], right, LEARN);
        learn(&rates->aside[s->by][c], right, LEARN_ALL);
        if (right > 0) break; /* those behind it had no chance */
    }
    s->n_branches = 0;
}

void sq_spec_cut(sq_spec *s, int32_t n) {
    if (n < s->n_tried) s->n_tried = n;
}

void sq_spec_result(sq_spec *s, int32_t n_right, sq_guess_rates *rates) {
    for (int32_t i = 0; i < s->n_tried && i <= n_right; i++) {
        const int32_t c = s->class_of[i];
        const float right = i < n_right ? 1 : 0;
        learn(&s->rates.right[s->by][c], right, LEARN);
        learn(&rates->right[s->by][c], right, LEARN_ALL);
        if (s->by == SQUISH_SPEC_NGRAM || i >= SQ_DRAFT_PLACES) continue;
        learn(&s->rates.place[s->by][i], right, LEARN);
        learn(&rates->place[s->by][i], right, LEARN_ALL);
    }
    s->count.guessed += s->n_tried;
    s->count.right += n_right;
    s->n_tried = 0;
}

sq_spec_count sq_spec_counts(const sq_spec *s) { return s ? s->count : (sq_spec_count){0}; }
