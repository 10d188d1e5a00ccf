/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_scale.c - speed as the load grows: timelines in company, and threads. */
#include "bench/bench_int.h"

#include <stdio.h>

enum { BATCH_CTX = 128, BATCH_MAX = 16 };

/* ---- batch ----------------------------------------------------------------------------------- */

typedef struct {
    sq_kv_seq *kv[BATCH_MAX];
    int32_t n;
} company;

static void company_free(company *c) {
    for (int32_t i = 0; i < c->n; i++) sq_kv_seq_free(c->kv[i]);
}

/* `most` timelines with the prompt in each. */
static squish_status company_new(company *c, bench_speed *b, int32_t most, squish_error *err) {
    for (; c->n < most; c->n++) {
        SQ_TRY(sq_kv_seq_new(&c->kv[c->n], b->e->kv, BATCH_CTX + BENCH_STEPS, err));
        const squish_status st = sq_kv_seq_reserve(c->kv[c->n], BATCH_CTX + BENCH_STEPS, err);
        if (st != SQUISH_OK) {
            sq_kv_seq_free(c->kv[c->n]);
            return st;
        }
        const sq_step_seg seg = {.kv = c->kv[c->n], .n_rows = BATCH_CTX, .prompt = true};
        sq_forward_run(b->e->f, b->prompt, BATCH_CTX, &seg, 1, NULL);
    }
    return SQUISH_OK;
}

static squish_status batch_run(bench_speed *b, int32_t n, double *seconds, void *user, squish_error *err) {
    (void)err;
    const company *c = user;
    int32_t ids[BATCH_MAX], rows[BATCH_MAX];
    sq_step_seg segs[BATCH_MAX];
    const size_t ld = sq_forward_logits_ld(b->e->f);
    for (int32_t i = 0; i < n; i++) ids[i] = b->prompt[i], rows[i] = i;
    const uint64_t begin = sq_os_now_ns();
    for (int32_t t = 0; t < BENCH_STEPS; t++) {
        for (int32_t i = 0; i < n; i++)
            segs[i] = (sq_step_seg){.kv = c->kv[i], .row0 = i, .n_rows = 1, .pos0 = BATCH_CTX + t};
        sq_forward_run(b->e->f, ids, n, segs, n, NULL);
        const float *logits = sq_forward_logits(b->e->f, rows, n);
        for (int32_t i = 0; i < n; i++) ids[i] = bench_likeliest(logits + (size_t)i * ld, b->m->cfg.n_vocab);
    }
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9 / BENCH_STEPS;
    return SQUISH_OK;
}

static squish_status batch_rows(bench_speed *b, const bench_points *p, squish_error *err) {
    company c = {.n = 0};
    squish_status st = SQUISH_OK;
    const int32_t room = b->ctx / (BATCH_CTX + BENCH_STEPS); /* a model of a short context takes fewer */
    int32_t most = 0;
    for (int32_t k = 0; k < p->count; k++) most = p->n[k] > most && p->n[k] <= room ? p->n[k] : most;
    SQ_GUARD(company_new(&c, b, most, err));
    for (int32_t k = 0; k < p->count; k++) {
        const int32_t n = p->n[k];
        if (n > most) continue;
        const double seen = (double)n * (BATCH_CTX + BENCH_STEPS / 2);
        char name[32];
        SQ_GUARD(bench_take(b, n, batch_run, &c, err));
        snprintf(name, sizeof name, "batch %d", n);
        SQ_GUARD(bench_speed_row(b, name, "batch", n, n,
                                 (bench_step){.tokens = n, .heads = n, .seen = seen, .cached = seen}, err));
    }
fail:
    company_free(&c);
    return st;
}

squish_status bench_batch(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {1, 2, 4, 8, 16};
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), BATCH_MAX, &p, err));
    return bench_measure(o, BATCH_MAX * (BATCH_CTX + BENCH_STEPS), 0, p.count, batch_rows, &p, rows, err);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS_CTX = 16, THREADS_PROMPT = 128 };

static squish_status threads_rows(bench_speed *b, const bench_points *p, squish_error *err) {
    (void)p;
    char name[48];
    const int32_t n = b->e->threads;
    const char *s = n == 1 ? "" : "s";
    if (b->ctx < THREADS_PROMPT + BENCH_STEPS)
        return sq_fail(err, SQUISH_INVALID, "bench threads: a context of %d is too short, at least %d",
                       b->ctx, THREADS_PROMPT + BENCH_STEPS);
    SQ_TRY(bench_take(b, THREADS_CTX, bench_decode_run, NULL, err));
    snprintf(name, sizeof name, "decode, %d thread%s", n, s);
    SQ_TRY(bench_speed_row(b, name, "decode by threads", n, 1, bench_decode_step(THREADS_CTX), err));
    SQ_TRY(bench_take(b, THREADS_PROMPT, bench_prefill_run, NULL, err));
    snprintf(name, sizeof name, "prefill %d, %d thread%s", THREADS_PROMPT, n, s);
    return bench_speed_row(b, name, "prefill by threads", n, THREADS_PROMPT,
                           bench_prefill_step(THREADS_PROMPT), err);
}

squish_status bench_threads(const bench_options *o, json_t *rows, squish_error *err) {
    const int32_t all = o->threads ? o->threads : sq_os_cores();
    int32_t usual[BENCH_POINTS_MAX], n = 0;
    for (int32_t t = 1; t < all && n < BENCH_POINTS_MAX - 1; t *= 2) usual[n++] = t;
    usual[n++] = all;
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, (size_t)n, BENCH_THREADS_MAX, &p, err));
    for (int32_t i = 0; i < p.count; i++) {
        bench_options one = *o;
        one.threads = p.n[i];
        SQ_TRY(bench_measure(&one, THREADS_PROMPT + BENCH_STEPS, 2 * i, 2 * p.count, threads_rows, &p, rows,
                             err));
    }
    return SQUISH_OK;
}
