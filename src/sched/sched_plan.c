/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_plan.c - who is next, and how many tokens of whom the next step holds.
 *
 * A step serves every answer that streams with one token, then prompts with what is left; without prompts,
 * guesses (sched_spec.h):
 *
 *   | a | b | c | prompt of d ............. | prompt of e ..... |      rows, at most the engine's chunk
 *     one each    as many as keep the step near the target
 *   | a | b | c | rows of d | through some layers: where whole ones are too dear
 *   | a a'a'| b | c c'|
 *
 * Between clients the one served least goes first (start-time fair queueing, Goyal et al., 1996: unlike
 * deficit round robin it needs no quantum, which tokens of a step would have to be matched to). Within a
 * client the class decides, then arrival. */
#include "sched/sched_int.h"

#include <math.h>
#include <string.h>

enum {
    DECODE_CHARGE = 4, /* prompt tokens that a decoded one counts as: it reads all weights alone */
    AGE_S = 10,        /* waiting that lifts a job by a class */
    FADE_S = 10,
    WHOLE_ROWS = 2 /* of a prompt, with time for them in a step: else rows go on by layers */
};

/* How much longer a step of several answers may get by guesses. */
static const double COMPANY = 1.02;

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
        if (!sq_share_ends(b, s)) continue;
        const bool decoded = s->j->n > s->j->n_prompt && s->n_rows == 1 + s->j->n_guesses;
        const double charge = decoded ? DECODE_CHARGE + s->j->n_guesses + s->j->sides.rows : s->n_rows;
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

/* ---- a step ---------------------------------------------------------------------------------- */

static bool runs(const sq_job *j) { return j && !j->paused; }
bool sq_job_streams(const sq_job *j) {
    const int32_t rows = j->n - j->computed;
    return rows > 0 && rows <= SQ_JUMP_MAX && j->computed >= j->n_prompt;
}

static int32_t n_layers(const sq_batch *b) { return b->e->m->cfg.n_layers; }

static void add_share(sq_batch *b, sq_job *j, int32_t rows) {
    j->last_step = b->step;
    b->plan[b->n_plan++] = (sq_share){j, rows, 0, n_layers(b)};
}

/* Rows between two layers begin again some time. */
static void drop_part(sq_batch *b) {
    if (b->part.j) sq_kv_seq_truncate(b->part.j->kv, b->part.j->computed);
    b->part.j = NULL;
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

/* What a job computes next of its prompt. What was drawn before it gave way attends as it did then, so not in
 * a step with its prompt. */
static int32_t rows_wanted(const sq_job *j) {
    const int32_t end = j->computed < j->n_prompt && j->n_prompt < j->n ? j->n_prompt : j->n;
    return end - j->computed;
}

/* Rows of j, as far as they have come, through as many layers as there is room for: one at least. */
static sq_share part_of(const sq_batch *b, sq_share s, double room) {
    const double fits = room * n_layers(b) / s.n_rows;
    const int32_t more = n_layers(b) - s.to;
    s.from = s.to;
    s.to += fits >= more ? more : fits > 1 ? (int32_t)fits : 1;
    return s;
}

/* A part begins: as many rows as there is room for in one layer, within one tile. */
static sq_share begin_part(const sq_batch *b, sq_job *j, int32_t most, double room) {
    const int32_t tile = SQ_KV_TILE_TOKENS - j->computed % SQ_KV_TILE_TOKENS;
    const double fits = room * n_layers(b);
    int32_t n = most < tile ? most : tile;
    if (n > SQ_PART_ROWS) n = SQ_PART_ROWS;
    if (n > fits) n = fits > 1 ? (int32_t)fits : 1;
    j->last_step = b->step;
    return part_of(b, (sq_share){j, n, 0, 0}, room);
}

/* Prompts, at most `left` rows in a step that has room for `room` rows through all layers. Rows go whole
 * where a few of them fit: beside answers they share the pass over the weights. Where they do not, since a
 * row reads all keys of its past and that is much of a step, some rows go through some layers, and share
 * that. */
static void plan_prompts(sq_batch *b, uint64_t now, int32_t left, double room) {
    sq_share part = {0};
    if (b->part.j) {
        part = part_of(b, b->part, room);
        part.j->last_step = b->step;
        left -= part.n_rows;
        room -= (double)part.n_rows * (part.to - part.from) / n_layers(b);
    }
    for (sq_job *j; left > 0 && (j = next_prompt(b, now));) {
        const int32_t want = rows_wanted(j), most = want < left ? want : left;
        const bool fits = most <= room || room >= WHOLE_ROWS;
        if (!fits && b->parts) {
            if (!part.j) part = begin_part(b, j, most, room);
            break;
        }
        const int32_t rows = most <= room ? most : room > 1 ? (int32_t)room : 1;
        add_share(b, j, rows);
        left -= rows;
        room -= rows;
        if (room < 1) break;
    }
    if (part.j) b->plan[b->n_plan++] = part;
}

/* Side branches of a job's guesses, as far as its grammar allows; returns their rows. */
static int32_t plan_aside(sq_batch *b, sq_job *j, sq_spec_step *at, int32_t room, int32_t spare) {
    const int32_t *ids = j->tokens + j->n, rows = SQ_GUESS_MAX - j->n_guesses;
    sq_sides *x = &j->sides;
    if (!sq_sides_can(b->e)) return 0;
    const int32_t found =
        sq_spec_branches(j->spec, at, ids, j->n_guesses, room, rows < spare ? rows : spare, x->b);
    for (int32_t i = 0; i < found; i++) {
        sq_branch k = x->b[i];
        const int32_t planned = k.n;
        sq_answer_allows_aside(j->answer, ids, &k);
        at->rows -= planned - k.n;
        x->rows += k.n;
        if (k.n > 0) x->b[x->n++] = k;
    }
    return x->rows;
}

/* Guesses behind the rows of streams, where they pay and those without do not feel it. Beside prompts there
 * are none: rows are theirs. */
static void plan_guesses(sq_batch *b, int32_t spare) {
    sq_spec_step at = {.cost = &b->cost, .rates = &b->e->rates, .tokens = b->n_plan};
    for (int32_t i = 0; i < b->n_plan; i++) at.rows += b->plan[i].n_rows;
    if (b->n_plan > 1) at.ms_max = COMPANY * sq_step_cost_alone(&b->cost, at.rows);
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_job *j = b->plan[i].j;
        if (!j->spec || b->plan[i].n_rows < j->n - j->computed) continue;
        int32_t room = j->tokens_max - j->n - 1; /* the last token of a job is never evaluated */
        if (room > spare) room = spare;
        at.drafter = sq_engine_drafter(b->e, sq_spec_wish(j->spec));
        at.from = (sq_draft_from){.tokens = j->tokens,
                                  .n = j->n,
                                  .computed = j->computed,
                                  .kv = j->kv,
                                  .salt = j->salt,
                                  .answer = j->answer};
        at.left = sq_answer_left(j->answer);
        const int32_t n = sq_spec_guess(j->spec, &at, j->n, room, j->tokens + j->n);
        j->n_guesses = sq_spec_tried(j->spec, n, sq_answer_allows(j->answer, j->tokens + j->n, n));
        sq_spec_cut(j->spec, j->n_guesses);
        at.rows -= n - j->n_guesses;
        b->plan[i].n_rows += j->n_guesses;
        spare -= j->n_guesses;
        spare -= plan_aside(b, j, &at, room, spare);
    }
}

void sq_plan_step(sq_batch *b, uint64_t now) {
    int32_t n_running = 0;
    b->n_plan = 0;
    b->step++;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        n_running += runs(b->active[i]);
        if (b->active[i]) b->active[i]->n_guesses = b->active[i]->sides.n = b->active[i]->sides.rows = 0;
    }
    if (b->part.j && (n_running > b->e->chunk || !runs(b->part.j))) drop_part(b);
    if (n_running > b->e->chunk) {
        plan_turns(b);
        return;
    }
    int32_t spare = b->e->chunk - n_running; /* rows beyond one for each */
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        sq_job *j = b->active[i];
        if (!runs(j) || !sq_job_streams(j)) continue;
        const int32_t want = j->n - j->computed, rows = want - 1 < spare ? want : spare + 1;
        add_share(b, j, rows);
        spare -= rows - 1;
    }
    if (b->n_plan == n_running) {
        plan_guesses(b, spare);
        return;
    }
    const int32_t left = spare + n_running - b->n_plan;
    const double room =
        b->n_plan > 0 ? sq_step_cost_rows(&b->cost, b->n_plan, b->opt.itl_target_ms) : b->e->chunk;
    if (room <= 0) return;
    if (b->part.j && b->part.n_rows > left) drop_part(b); /* there are more streams than when it began */
    plan_prompts(b, now, left, room);
}
