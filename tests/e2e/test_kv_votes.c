/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_votes.c - tiles in fewer bits behind the end of a prompt, in whole engines: the distributions of
 * the tables out of running ones, nearness to a cache that is not compressed, and all that a cache has to put
 * up with beside: going back, company, giving way, shared beginnings, restarts, budgets. */
#include "kv/kv_private.h"
#include "sched/sched.h"
#include "support/batch_run.h"

#include <math.h>
#include <stdio.h>

static run base, shallow; /* a few layers do for what holds whatever is computed */
static squish_model *model;
static squish_tokens prose;
static bell *ring;

typedef struct {
    squish_engine *e;
    squish_seq *s;
} alone;

static squish_engine_options options_of(squish_kv kv, int32_t ctx) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = ctx;
    o.kv = kv;
    return o;
}

static alone alone_of(const squish_engine_options *o) {
    alone a = {0};
    squish_error err = {0};
    assert_ok(squish_engine_new(&a.e, model, o, &err), &err);
    assert_ok(squish_seq_new(&a.s, a.e, &err), &err);
    return a;
}

static void alone_free(alone *a) {
    squish_engine_info i;
    squish_seq_free(a->s);
    squish_engine_get_info(a->e, &i);
    assert_int_equal(i.kv_bytes_now, 0);
    squish_engine_free(a->e);
}

static void read_prompt(alone *a, const int32_t *ids, int32_t n) {
    squish_error err = {0};
    assert_ok(squish_seq_sync(a->s, ids, (size_t)n, &err), &err);
}

/* As an answer would: token by token, no prompt that ends. */
static void go_on(alone *a, const int32_t *ids, int32_t n) {
    squish_error err = {0};
    for (int32_t i = 0; i < n; i++) assert_ok(sq_seq_append(a->s, ids + i, 1, &err), &err);
}

/* ---- distributions --------------------------------------------------------------------------- */

static void pm_keeps_256_768_3072_of_4096(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_F16, 4096);
    o.kv_options.pm = true, o.kv_options.sink = 0, o.kv_options.residual = 256;
    static int32_t ids[4096];
    for (int32_t i = 0; i < 4096; i++) ids[i] = prose.ids[i % (int32_t)prose.count];
    alone a = alone_of(&o);
    squish_kv_census c;
    read_prompt(&a, ids, 4095);
    go_on(&a, ids + 4095, 1);
    sq_votes_run(a.e, a.s->kv, NULL); /* as before the next token */
    squish_seq_get_census(a.s, &c);
    const uint64_t all = c.bytes[0] + c.bytes[1] + c.bytes[2] + c.bytes[3];
    printf("pm: %d %d %d %d tokens, %.2fx\n", c.tokens[0], c.tokens[1], c.tokens[2], c.tokens[3],
           (double)c.bytes_f16 / (double)all);
    assert_int_equal(c.tokens[0], 256);
    assert_int_equal(c.tokens[1], 768);
    assert_int_equal(c.tokens[2], 3072);
    assert_int_equal(c.tokens[3], 0);
    squish_engine_info i;
    squish_engine_get_info(a.e, &i);
    assert_int_equal(all, i.kv_bytes_now); /* true bytes: nothing else is held */
    alone_free(&a);
}

static void cocktail_keeps_2_6_8_of_16(void **state) {
    (void)state;
    for (int embed = 0; embed < 2; embed++) {
        squish_engine_options o = options_of(SQUISH_KV_F16, 1024);
        o.kv_options.cocktail = true, o.kv_options.sink = 0, o.kv_options.cocktail_embed = embed;
        alone a = alone_of(&o);
        squish_kv_census c;
        read_prompt(&a, prose.ids, 640); /* 16 tiles and the residual */
        squish_seq_get_census(a.s, &c);
        if (!embed) printf("cocktail: %d %d %d of 16\n", c.chunks[2], c.chunks[1], c.chunks[0]);
        assert_true(c.chunks[0] == 8 && c.chunks[1] == 6 && c.chunks[2] == 2);
        assert_int_equal(c.tokens[0], 64 + 128);
        assert_int_equal(c.tokens[2], 192);
        assert_int_equal(c.tokens[3], 256);
        alone_free(&a);
    }
}

/* Classes of channels as a page of a running engine has them: 6, 26 and 32 of 64. */
static void mix_keeps_6_26_32_of_64(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_Q4, 1024);
    o.kv_options.mix = true;
    alone a = alone_of(&o);
    read_prompt(&a, prose.ids, 700);
    int32_t mixed = 0;
    for (int32_t l = 0; l < 8; l++) {
        const uint8_t *page = sq_kv_seq_sealed_pages(a.s->kv, l)[5];
        sq_kv_page_header h;
        memcpy(&h, page, sizeof h);
        assert_true(h.k_fmt == SQ_KV_MIX || h.k_fmt == SQ_KV_Q8); /* flagged layers keep 8 bits */
        if (h.k_fmt != SQ_KV_MIX) continue;
        const sq_mix_classes c = sq_mix_classes_of(h.k_fmt, h.d);
        const uint8_t *order = page + sizeof h;
        uint64_t seen = 0;
        for (int32_t i = 0; i < 64; i++) seen |= (uint64_t)1 << order[i];
        if (mixed == 0)
            printf("mix: %d %d %d of 64, %.3f bits a channel, %.2f with scales and headers\n", c.high,
                   c.mid, c.low, (16 * c.high + 4 * c.mid + 2 * c.low) / 64.0,
                   8.0 * (double)sq_kv_key_bytes(h.k_fmt, h.d) / (64 * SQ_KV_TILE_TOKENS));
        assert_true(c.high == 6 && c.mid == 26 && c.low == 32 && seen == UINT64_MAX);
        mixed++;
    }
    assert_true(mixed >= 6);
    alone_free(&a);
}

/* What attention rests on is found: a mass of all the tiles sums to heads and rows, and the tile that was
 * judged high has more than one judged low. */
static void masses_are_probabilities(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_Q8, 1024);
    o.kv_options.cocktail = true;
    alone a = alone_of(&o);
    squish_model_info info;
    squish_model_get_info(model, &info);
    read_prompt(&a, prose.ids, 700);
    const float *mass = sq_kv_seq_mass(a.s->kv);
    double sum = 0;
    for (int32_t t = 0; t < 22; t++) sum += (double)mass[t];
    const double want = 32.0 * info.n_heads * (info.n_layers - 2);
    assert_true(fabs(sum - want) < 1e-3 * want);
    alone_free(&a);
}

/* ---- near the reference ---------------------------------------------------------------------- */

typedef struct {
    float *rows;
    int32_t first, n_vocab;
    double kl;
} compared;

static double log_sum(const float *v, int32_t n) {
    double most = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) most = fmax(most, (double)v[i]);
    for (int32_t i = 0; i < n; i++) sum += exp((double)v[i] - most);
    return most + log(sum);
}

static bool keep_row(void *user, int32_t pos, const float *logits) {
    compared *c = user;
    memcpy(c->rows + (size_t)(pos - c->first) * (size_t)c->n_vocab, logits,
           (size_t)c->n_vocab * sizeof *logits);
    return true;
}

static bool compare_row(void *user, int32_t pos, const float *q) {
    compared *c = user;
    const float *p = c->rows + (size_t)(pos - c->first) * (size_t)c->n_vocab;
    const double zp = log_sum(p, c->n_vocab), zq = log_sum(q, c->n_vocab);
    for (int32_t i = 0; i < c->n_vocab; i++) {
        const double lp = (double)p[i] - zp;
        c->kl += exp(lp) * (lp - ((double)q[i] - zq));
    }
    return true;
}

enum { PROMPT = 640, AFTER = 64 };

/* Mean KL of the tokens behind a prompt. */
static double kl_of(const squish_engine_options *o, compared *c) {
    squish_error err = {0};
    alone a = alone_of(o);
    c->kl = 0;
    read_prompt(&a, prose.ids, PROMPT);
    for (int32_t n = PROMPT; n < PROMPT + AFTER; n += 16)
        assert_ok(sq_seq_extend(a.s, prose.ids + n, 16, compare_row, c, &err), &err);
    alone_free(&a);
    return c->kl / AFTER;
}

static void every_vote_stays_near_f16(void **state) {
    (void)state;
    squish_model_info info;
    squish_error err = {0};
    squish_model_get_info(model, &info);
    compared c = {.first = PROMPT, .n_vocab = info.n_vocab};
    c.rows = malloc((size_t)AFTER * (size_t)info.n_vocab * sizeof *c.rows);
    squish_engine_options o = options_of(SQUISH_KV_F16, PROMPT + AFTER);
    alone a = alone_of(&o);
    read_prompt(&a, prose.ids, PROMPT);
    assert_ok(sq_seq_extend(a.s, prose.ids + PROMPT, AFTER, keep_row, &c, &err), &err);
    alone_free(&a);
    static const struct {
        squish_kv kv;
        bool pm, cocktail;
        int32_t age[3];
        double most;
        bool mix;
    } votes[] = {{SQUISH_KV_F16, true, false, {128, 256, 512}, 0.06, false},
                 {SQUISH_KV_Q8, true, false, {128, 256, 4096}, 0.005, false},
                 {SQUISH_KV_K8V4, true, false, {128, 256, 512}, 0.06, false},
                 {SQUISH_KV_F16, false, true, {256, 1024, 4096}, 0.06, false},
                 {SQUISH_KV_Q8, false, true, {256, 1024, 4096}, 0.06, false},
                 {SQUISH_KV_F16, true, true, {128, 512, 1024}, 0.06, false},
                 {SQUISH_KV_Q4, false, false, {256, 1024, 4096}, 0.01, true},
                 {SQUISH_KV_Q2, false, false, {256, 1024, 4096}, 0.06, true},
                 {SQUISH_KV_F16, true, true, {128, 256, 512}, 0.06, true}};
    for (size_t i = 0; i < SQ_COUNT(votes); i++) {
        o.kv = votes[i].kv;
        o.kv_options.pm = votes[i].pm, o.kv_options.cocktail = votes[i].cocktail;
        o.kv_options.mix = votes[i].mix;
        memcpy(o.kv_options.pm_age, votes[i].age, sizeof votes[i].age);
        const double kl = kl_of(&o, &c);
        printf("%s%s%s%s: KL to f16 %.3g\n", squish_kv_name(o.kv), votes[i].pm ? " pm" : "",
               votes[i].cocktail ? " cocktail" : "", votes[i].mix ? " mix" : "", kl);
        assert_true(kl > 1e-9 && kl <= votes[i].most);
    }
    free(c.rows);
}

/* ---- beside everything else ------------------------------------------------------------------ */

static squish_engine_options young_pm(squish_kv kv, int32_t ctx) {
    squish_engine_options o = options_of(kv, ctx);
    const int32_t age[3] = {128, 256, 512};
    o.kv_options.pm = true;
    memcpy(o.kv_options.pm_age, age, sizeof age);
    return o;
}

static void assert_same_logits(alone *a, const float *want) {
    squish_model_info info;
    squish_model_get_info(model, &info);
    assert_memory_equal(squish_seq_logits(a->s), want, (size_t)info.n_vocab * sizeof *want);
}

static float *keep_logits(alone *a) {
    squish_model_info info;
    squish_model_get_info(model, &info);
    float *out = malloc((size_t)info.n_vocab * sizeof *out);
    memcpy(out, squish_seq_logits(a->s), (size_t)info.n_vocab * sizeof *out);
    return out;
}

/* A step is undone by its bits; an edit far back begins anew, and gives the bits of a cold run. */
static void going_back(void **state) {
    (void)state;
    const squish_engine_options o = young_pm(SQUISH_KV_Q8, 1024);
    alone a = alone_of(&o), cold = alone_of(&o);
    read_prompt(&a, prose.ids, 700);
    go_on(&a, prose.ids + 700, 40);
    float *want = keep_logits(&a);
    go_on(&a, prose.ids + 740, 3);
    squish_seq_truncate(a.s, 739);
    assert_int_equal(squish_seq_length(a.s), 739);
    go_on(&a, prose.ids + 739, 1);
    assert_same_logits(&a, want);
    free(want);
    int32_t ids[800];
    memcpy(ids, prose.ids, sizeof ids);
    ids[300] ^= 1;
    read_prompt(&a, ids, 800);
    assert_int_equal(squish_seq_reused(a.s), 0);
    read_prompt(&cold, ids, 800);
    go_on(&a, prose.ids, 20);
    go_on(&cold, prose.ids, 20);
    want = keep_logits(&cold);
    assert_same_logits(&a, want);
    free(want);
    alone_free(&a);
    alone_free(&cold);
}

/* A conversation: each turn ends a prompt, and precision only goes down. */
static void turns_of_a_conversation(void **state) {
    (void)state;
    squish_engine_options o = young_pm(SQUISH_KV_F16, 1600);
    o.kv_options.cocktail = o.kv_options.mix = true;
    alone a = alone_of(&o);
    sq_rung before[50];
    int32_t tiles = 0;
    for (int32_t n = 300; n <= 1500; n += 300) {
        read_prompt(&a, prose.ids, n - 60);
        assert_true(n == 300 || squish_seq_reused(a.s) >= n - 300);
        go_on(&a, prose.ids + n - 60, 60);
        for (int32_t t = 0; t < n / 32; t++) {
            const sq_rung now = sq_kv_seq_rung(a.s->kv, t);
            assert_true(t >= tiles || now <= before[t]);
            before[t] = now;
        }
        tiles = n / 32;
    }
    squish_kv_census c;
    squish_seq_get_census(a.s, &c);
    assert_int_equal(c.tokens[0] + c.tokens[1] + c.tokens[2] + c.tokens[3], 1500);
    assert_true(c.tokens[3] > 300 && c.chunks[0] > 0);
    alone_free(&a);
}

static void a_budget_is_kept(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_Q8, 1400);
    squish_model_info info;
    squish_model_get_info(model, &info);
    o.kv_options.pm = true;
    o.kv_options.pm_budget = 22 * (uint64_t)(info.n_layers * 2 * 2 * 64 * 32 * 2); /* 22 open tiles */
    alone a = alone_of(&o);
    read_prompt(&a, prose.ids, 1000);
    for (int32_t n = 1000; n < 1390; n++) {
        squish_kv_census c;
        go_on(&a, prose.ids + n, 1);
        sq_votes_run(a.e, a.s->kv, NULL);
        squish_seq_get_census(a.s, &c);
        assert_true(c.bytes[0] + c.bytes[1] + c.bytes[2] + c.bytes[3] <= o.kv_options.pm_budget);
    }
    alone_free(&a);
}

typedef struct {
    squish_engine *e;
    squish_batch *b;
} company;

static company company_of(const squish_engine_options *eo, const squish_batch_options *bo) {
    company c = {0};
    squish_error err = {0};
    assert_ok(squish_engine_new(&c.e, model, eo, &err), &err);
    assert_ok(squish_batch_new(&c.b, c.e, bo, &err), &err);
    return c;
}

static void company_free(company *c) {
    squish_engine_info info;
    squish_batch_free(c->b);
    squish_engine_get_info(c->e, &info);
    assert_int_equal(info.kv_bytes_now, 0);
    squish_engine_free(c->e);
}

static squish_job_options job_of(const int32_t *ids, size_t n, int32_t max_tokens) {
    squish_job_options o = squish_job_options_default();
    o.prompt = ids;
    o.n_prompt = n;
    o.gen.max_tokens = max_tokens;
    o.gen.sampling.temperature = 0;
    o.gen.ignore_eos = true;
    o.gen.logprobs = 3;
    o.wake = bell_ring;
    o.wake_user = ring;
    return o;
}

static int32_t ask_all(company *c, const squish_job_options *o, int32_t n, answer *got) {
    squish_job *j[8];
    squish_error err = {0};
    int32_t preempted = 0;
    gate *g = gate_new(ring);
    squish_job_options first = o[0];
    first.wake = gate_wait, first.wake_user = g;
    for (int32_t i = 0; i < n; i++)
        assert_ok(squish_job_submit(&j[i], c->b, i ? &o[i] : &first, &err), &err);
    gate_open(g);
    answers_wait(ring, j, got, n);
    for (int32_t i = 0; i < n; i++) {
        preempted += got[i].stats.preemptions;
        squish_job_free(j[i]);
    }
    gate_free(g);
    return preempted;
}

static answer got[4], want[4];

/* PM-KVQ looks at ages alone, so company, warm beginnings and other prompts on the same tiles do not show. */
static void answers_in_company_equal_answers_alone(void **state) {
    (void)state;
    static int32_t ids[4 * 700];
    squish_job_options o[4];
    for (int32_t i = 0; i < 4; i++) {
        memcpy(ids + 700 * i, prose.ids, 700 * sizeof *ids);
        for (int32_t t = 350 * (i % 2); t < 700; t++) ids[700 * i + t] = prose.ids[1000 + 37 * i + t];
        o[i] = job_of(ids + 700 * i, (size_t)(400 + 83 * i), 40);
    }
    for (int open = 0; open < 2; open++) {
        squish_engine_options eo = young_pm(open ? SQUISH_KV_F16 : SQUISH_KV_Q8, 1024);
        alone a = alone_of(&eo);
        for (int32_t i = 0; i < 4; i++) answer_alone(a.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
        alone_free(&a);
        squish_mem_estimate est;
        squish_error err = {0};
        assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
        eo.kv_bytes_max = est.kv_bytes * 6;
        company c = company_of(&eo, NULL);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(ask_all(&c, o, 4, got), 0);
            for (int32_t i = 0; i < 4; i++) assert_same_answer(&got[i], &want[i]);
            for (int32_t i = 0; again && i < 4; i++)
                assert_true(got[i].stats.gen.reused_tokens >= (int32_t)o[i].n_prompt - 32);
        }
        company_free(&c);
    }
}

/* With too little room some give way and are computed again; then the ages of the tiles differ, and so may
 * answers. They end, as long as they should be, and nothing is left behind. */
/* Such a cache has no guesses: asked for by name they are refused, else left out. */
static void guesses_are_refused_by_name_or_left_out(void **state) {
    (void)state;
    squish_engine_options eo = young_pm(SQUISH_KV_Q8, 1024);
    company c = company_of(&eo, NULL);
    squish_job_options o = job_of(prose.ids, 60, 8);
    squish_job *j = NULL;
    squish_error err = {0};
    o.gen.spec.mode = SQUISH_SPEC_NGRAM;
    assert_int_equal(squish_job_submit(&j, c.b, &o, &err), SQUISH_INVALID);
    assert_null(j);
    assert_non_null(strstr(err.text, "--spec ngram beside --pm-kvq"));
    o.gen.spec.mode = SQUISH_SPEC_AUTO;
    ask_all(&c, &o, 1, got);
    assert_int_equal(got[0].status, SQUISH_OK);
    assert_int_equal(got[0].stats.gen.guessed_tokens, 0);
    company_free(&c);
}

static void giving_way(void **state) {
    (void)state;
    squish_engine_options eo = young_pm(SQUISH_KV_Q8, 640);
    squish_mem_estimate est;
    squish_error err = {0};
    squish_job_options o[4];
    eo.chunk_tokens = 32;
    eo.kv_options.cocktail = eo.kv_options.mix = true;
    assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
    for (int32_t i = 0; i < 4; i++) o[i] = job_of(prose.ids + 300 * i, 300, 200);
    eo.kv_bytes_max = est.kv_bytes * 9 / 8;
    squish_batch_options bo = squish_batch_options_default();
    bo.itl_target_ms = 1e6; /* however slow the machine is: prompts in whole chunks */
    company c = company_of(&eo, &bo);
    const int32_t preempted = ask_all(&c, o, 4, got);
    for (int32_t i = 0; i < 4; i++) assert_true(got[i].status == SQUISH_OK && got[i].n == 200);
    assert_true(preempted > 0);
    company_free(&c);
}

static void prefixes_survive_a_restart(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = young_pm(SQUISH_KV_Q8, 1024);
    squish_batch_options bo = squish_batch_options_default();
    bo.snapshot_dir = dir;
    bo.snapshot_archive = true;
    squish_job_options o = job_of(prose.ids, 900, 40);
    company c = company_of(&eo, &bo);
    ask_all(&c, &o, 1, want);
    company_free(&c);
    c = company_of(&eo, &bo);
    ask_all(&c, &o, 1, got);
    assert_same_answer(got, want);
    assert_true(got->stats.gen.reused_tokens >= 900 - 32);
    company_free(&c);
    remove_tree(dir);
}

/* All flags of the first report's command together, with everything a cache has to put up with: company, a
 * beginning that is shared, prefixes on disk. What is approximate depends on how a prompt was cut, so answers
 * are not held against each other; they end, are of the length asked for, and everything is given back. */
static void the_reports_flags_go_together(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    eo.threads = 2;
    eo.ctx_tokens = 2048;
    eo.kv_options.pm = eo.kv_options.mix = eo.kv_options.cocktail = true;
    eo.attention.sage = eo.attention.sparge = true;
    eo.attention.sparge_min = 512;
    bo.snapshot_dir = dir;
    squish_mem_estimate est;
    squish_error err = {0};
    assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
    eo.kv_bytes_max = est.kv_bytes * 5;
    for (int restart = 0; restart < 2; restart++) {
        company c = company_of(&eo, &bo);
        squish_job_options o[4];
        for (int32_t i = 0; i < 4; i++) o[i] = job_of(prose.ids, (size_t)(1100 + 150 * i), 40);
        ask_all(&c, o, 1, got);
        assert_true(restart ? got->stats.gen.reused_tokens >= 1024 : got->stats.gen.reused_tokens == 0);
        ask_all(&c, o, 4, got);
        for (int32_t i = 0; i < 4; i++) {
            assert_true(got[i].status == SQUISH_OK && got[i].n == 40);
            assert_true(got[i].stats.gen.reused_tokens >= 1024);
        }
        squish_batch_stats s;
        squish_batch_get_stats(c.b, &s);
        assert_true(s.attn_density > 0 && s.attn_density < 1 && (restart == 0 || s.snapshot_hits > 0));
        company_free(&c);
    }
    remove_tree(dir);
}

static int open_all(void **state) {
    (void)state;
    base = run_compressed("models/squish-tiny", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    shallow = run_shallow("models/squish-tiny", 3, SQUISH_METHOD_RTN);
    model = base.m;
    prose = run_tokens(&base, "tests/fixtures/own-prose.txt");
    assert_true(prose.count > 3000);
    ring = bell_new();
    return 0;
}

static int with_a_shallow_one(void **state) {
    (void)state;
    model = shallow.m;
    return 0;
}

static int with_the_whole_model(void **state) {
    (void)state;
    model = base.m;
    return 0;
}

static int close_all(void **state) {
    (void)state;
    squish_tokens_free(&prose);
    run_close(&base);
    run_close(&shallow);
    bell_free(ring);
    return 0;
}

#define SHALLOW(fn) cmocka_unit_test_setup_teardown(fn, with_a_shallow_one, with_the_whole_model)

int main(void) {
    const struct CMUnitTest tests[] = {
        SHALLOW(pm_keeps_256_768_3072_of_4096),
        SHALLOW(cocktail_keeps_2_6_8_of_16),
        cmocka_unit_test(mix_keeps_6_26_32_of_64),
        cmocka_unit_test(masses_are_probabilities),
        cmocka_unit_test(every_vote_stays_near_f16),
        SHALLOW(going_back),
        SHALLOW(turns_of_a_conversation),
        SHALLOW(a_budget_is_kept),
        SHALLOW(answers_in_company_equal_answers_alone),
        SHALLOW(guesses_are_refused_by_name_or_left_out),
        SHALLOW(giving_way),
        SHALLOW(prefixes_survive_a_restart),
        SHALLOW(the_reports_flags_go_together),
    };
    run_sampled("giving_way");
    return cmocka_run_group_tests(tests, open_all, close_all);
}
