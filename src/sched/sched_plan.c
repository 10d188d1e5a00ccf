/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_plan.c - who is next, and how many tokens of whom the next step holds.
 *
 * A step serves every answer that streams with one token, then prompts with what is left:
 *
 *   | a | b | c | prompt of d ............. | prompt of e ..... |      rows, at most the engine's chunk
 *     one each    as many as keep the step near the target
 *
 * Between clients the one served least goes first (start-time fair queueing, Goyal et al., 1996: unlike
 * deficit round robin it needs no quantum, which tokens of a step would have to be matched to). Within a
 * client the class decides, then arrival. */
#include "sched/sched_int.h"

#include <math.h>
#include <string.h>

enum {
    DECODE_CHARGE = 4,    /* prompt tokens that a decoded one counts as: it reads all weights alone */
    PROMPT_ROWS_MIN = 2,  /* of a step while answers stream: prompts always go on */
    PROMPT_ROWS_FIRST = 8, /* of the first step with prompts after steps without; then at most doubled */
    FITS_MIN = 8,         /* steps before the fit is believed */
    AGE_S = 10,           /* waiting that lifts a job by a class */
    FADE_S = 10
};

/* ---- order ----------------------------------------------------------------------------------- */

int32_t sq_plan_class(const sq_job *j, uint64_t now) {
    const uint64_t waited = now > j->t_wait ? now - j->t_wait : 0;
    const int32_t patient = j->pool != SQUISH_POOL_NONE || j->prompt_logprobs >= 0;
    const uint64_t aged = waited / (AGE_S * (uint64_t)1000000000);
    return j->priority - patient + (int32_t)(aged < 1000 ? aged : 1000);
}

bool sq_plan_before(const sq_job *a, const sq_job *c, uint64_t now) {
    if ((a->preemptions > 0) != (c->preemptions > 0)) return a->preemptions > 0;
    if (a->client != c->client && a->client->served != c->client->served)
        return a->client->served < c->client->served;
    const int32_t class_a = sq_plan_class(a, now), class_c = sq_plan_class(c, now);
    if (class_a != class_c) return class_a > class_c;
    return a->arrival < c->arrival;
}

/* ---- clients --------------------------------------------------------------------------------- */

sq_client *sq_plan_client(sq_batch *b, uint64_t id) {
    sq_client *fresh = NULL;
    double least = INFINITY;
    for (int32_t i = 0; i < b->n_clients; i++) {
        sq_client *c = &b->clients[i];
        if (c->jobs > 0 && c->id == id) return c;
        if (c->jobs > 0 && c->served < least) least = c->served;
        if (c->jobs == 0 && (!fresh || c->id == id)) fresh = c; /* rather the entry it had before */
    }
    const double before = fresh->id == id ? fresh->served : 0;
    *fresh = (sq_client){.id = id, .served = least < INFINITY && before < least ? least : before};
    if (least == INFINITY) fresh->served = 0;
    return fresh;
}

void sq_plan_charge(sq_batch *b, uint64_t now) {
    const double fade = exp(-(double)(now - b->t_faded) / (FADE_S * 1e9));
    b->t_faded = now;
    for (int32_t i = 0; i < b->n_clients; i++) b->clients[i].recent *= fade;
    for (int32_t i = 0; i < b->n_plan; i++) {
        const sq_share *s = &b->plan[i];
        const bool decoded = s->j->n > s->j->n_prompt && s->n_rows == 1;
        const double charge = decoded ? DECODE_CHARGE : s->n_rows;
        s->j->client->served += charge;
        s->j->client->recent += charge;
    }
}

double sq_plan_fairness(const sq_batch *b) {
    double sum = 0, squares = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < b->n_clients; i++) {
        if (b->clients[i].jobs == 0) continue;
        n++;
        sum += b->clients[i].recent;
        squares += b->clients[i].recent * b->clients[i].recent;
    }
    return squares > 0 ? sum * sum / (n * squares) : 1;
}

/* ---- what a step costs ----------------------------------------------------------------------- */

/* Units in which the three terms are of one size, so that the sums can be solved. */
static const double unit[3] = {1, 64, 65536};
static const double forget = 0.97;

/* Gaussian elimination with pivots; false: singular. */
static bool solve(double a[3][4], double x[3]) {
    for (int c = 0; c < 3; c++) {
        int best = c;
        for (int r = c + 1; r < 3; r++)
            if (fabs(a[r][c]) > fabs(a[best][c])) best = r;
        if (fabs(a[best][c]) < 1e-12) return false;
        for (int k = 0; k < 4; k++) {
            const double t = a[c][k];
            a[c][k] = a[best][k];
            a[best][k] = t;
        }
        for (int r = 0; r < 3; r++) {
            const double f = r == c ? 0 : a[r][c] / a[c][c];
            for (int k = c; k < 4; k++) a[r][k] -= f * a[c][k];
        }
    }
    for (int c = 0; c < 3; c++) x[c] = a[c][3] / a[c][c];
    return true;
}

void sq_step_cost_add(sq_step_cost *c, double tokens, double context, double ms) {
    const double x[3] = {1 / unit[0], tokens / unit[1], context / unit[2]};
    double a[3][4], k[3];
    for (int i = 0; i < 3; i++) {
        for (int l = 0; l < 3; l++) c->s[i][l] = forget * c->s[i][l] + x[i] * x[l];
        c->y[i] = forget * c->y[i] + x[i] * ms;
        for (int l = 0; l < 3; l++) a[i][l] = c->s[i][l] + (i == l ? 1e-6 : 0);
        a[i][3] = c->y[i];
    }
    if (c->n < FITS_MIN) c->n++;
    if (!solve(a, k)) return;
    /* A term below zero is noise of steps that were all alike. */
    for (int i = 0; i < 3; i++) c->k[i] = k[i] > 0 ? k[i] / unit[i] : 0;
}

int32_t sq_step_cost_room(const sq_step_cost *c, double tokens, double context, double pos, double ms) {
    if (c->n < FITS_MIN) return PROMPT_ROWS_FIRST;
    const double left = ms - (c->k[0] + c->k[1] * tokens + c->k[2] * context);
    const double each = c->k[1] + c->k[2] * pos;
    if (left <= PROMPT_ROWS_MIN * each) return PROMPT_ROWS_MIN;
    const double n = each > 0 ? left / each : SQ_CHUNK_MAX;
    return n < SQ_CHUNK_MAX ? (int32_t)n : SQ_CHUNK_MAX;
}

/* Steps without prompts, of just these answers: they may have joined while there always was a prompt, so the
 * mean of such steps may be that of fewer. */
static double target_ms(const sq_batch *b, int32_t n_streams, double context) {
    const sq_step_cost *c = &b->cost;
    if (b->opt.itl_target_ms > 0) return b->opt.itl_target_ms;
    const double now = c->n < FITS_MIN ? 0 : c->k[0] + c->k[1] * n_streams + c->k[2] * context;
    return 2 * (now > c->alone_ms ? now : c->alone_ms);
}

/* ---- a step ---------------------------------------------------------------------------------- */

static bool runs(const sq_job *j) { return j && !j->paused; }
static bool streams(const sq_job *j) { return j->n - j->computed == 1 && j->n > j->n_prompt; }

static void add_share(sq_batch *b, sq_job *j, int32_t rows) {
    b->plan[b->n_plan++] = (sq_share){j, rows};
}

/* More jobs than rows: the one whose last step is longest ago first, one row each. */
static void plan_turns(sq_batch *b) {
    while (b->n_plan < b->e->chunk) {
        sq_job *best = NULL;
        for (int32_t i = 0; i < b->opt.jobs_max; i++) {
            sq_job *j = b->active[i];
            if (runs(j) && j->last_step != b->step && (!best || j->last_step < best->last_step)) best = j;
        }
        if (!best) return;
        best->last_step = b->step;
        add_share(b, best, 1);
    }
}

static sq_job *next_prompt(sq_batch *b, uint64_t now) {
    sq_job *best = NULL;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        sq_job *j = b->active[i];
        if (runs(j) && j->last_step != b->step && (!best || sq_plan_before(j, best, now))) best = j;
    }
    return best;
}

void sq_plan_step(sq_batch *b, uint64_t now) {
    int32_t n_running = 0;
    double context = 0;
    b->n_plan = 0;
    b->step++;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) n_running += runs(b->active[i]);
    if (n_running > b->e->chunk) {
        plan_turns(b);
        return;
    }
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        sq_job *j = b->active[i];
        if (!runs(j) || !streams(j)) continue;
        j->last_step = b->step;
        context += j->n;
        add_share(b, j, 1);
    }
    const int32_t n_streams = b->n_plan;
    const double target = target_ms(b, n_streams, context);
    int32_t left = b->e->chunk - n_streams, used = 0;
    for (sq_job *j; left > 0 && (j = next_prompt(b, now));) {
        if (n_streams > 0 && used == 0) {
            const int32_t room =
                target > 0 ? sq_step_cost_room(&b->cost, n_streams, context, j->computed, target)
                           : PROMPT_ROWS_FIRST;
            /* Steps without prompts say nothing of what a row costs, and the fit forgets: so it is believed
             * step by step. */
            const int32_t most = b->prompt_rows > 0 ? 2 * b->prompt_rows : PROMPT_ROWS_FIRST;
            if (room < left) left = room;
            if (most < left) left = most;
        }
        const int32_t want = j->n - j->computed, rows = want < left ? want : left;
        j->last_step = b->step;
        add_share(b, j, rows);
        left -= rows;
        used += rows;
    }
    b->prompt_rows = used;
}
