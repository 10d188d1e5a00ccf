/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch.c - many answers at once are the answers one gets alone, byte for byte: whatever runs beside
 * them, whatever was in the cache, however often they gave way. And everything comes back: columns, memory,
 * places in the queue. */
#include "base/base.h"
#include "support/batch_run.h"
#include "support/faults.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { JOBS = 16, LAYERS = 3 };

/* The first layers of squish-tiny in four bits: what holds whatever is computed is there in a tenth of the
 * time. Its source weights have a test of their own. */
static run base;
static squish_tokens prose;
static bell *ring;

typedef struct {
    squish_engine *e;
    squish_batch *b;
} company;

static company company_on(squish_model *m, const squish_engine_options *eo, const squish_batch_options *bo) {
    company c = {0};
    squish_error err = {0};
    assert_ok(squish_engine_new(&c.e, m, eo, &err), &err);
    assert_ok(squish_batch_new(&c.b, c.e, bo, &err), &err);
    return c;
}

static company company_of(const squish_engine_options *eo, const squish_batch_options *bo) {
    return company_on(base.m, eo, bo);
}

static void company_free(company *c) {
    squish_batch_free(c->b);
    squish_engine_info info;
    squish_engine_get_info(c->e, &info);
    assert_int_equal(info.kv_bytes_now, 0);
    squish_engine_free(c->e);
}

static squish_engine_options engine_options(int32_t ctx, int32_t columns) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = ctx;
    /* 2 heads of 64: 33 kB a page */
    o.kv_bytes_max = (uint64_t)columns * LAYERS * (64 + 2 * 2 * 64 * 32 * 2);
    return o;
}

static squish_job_options job_of(size_t from, size_t n, int32_t max_tokens) {
    squish_job_options o = squish_job_options_default();
    assert_true(from + n <= prose.count);
    o.prompt = prose.ids + from;
    o.n_prompt = n;
    o.gen.max_tokens = max_tokens;
    o.gen.sampling.temperature = 0;
    o.gen.ignore_eos = true;
    o.wake = bell_ring;
    o.wake_user = ring;
    return o;
}

static squish_job *submit(const company *c, const squish_job_options *o) {
    squish_job *j = NULL;
    squish_error err = {0};
    assert_ok(squish_job_submit(&j, c->b, o, &err), &err);
    return j;
}

/* The statistics as they are after the batch came to rest. */
static squish_batch_stats rest(const company *c) {
    squish_batch_stats s;
    for (int i = 0; i < 2000; i++) {
        squish_batch_get_stats(c->b, &s);
        if (s.running == 0 && s.queued == 0 && s.jobs == s.finished + s.cancelled + s.failed) break;
        usleep(1000);
    }
    assert_int_equal(s.running, 0);
    assert_int_equal(s.queued, 0);
    return s;
}

static answer ask(const company *c, const squish_job_options *o) {
    static answer a;
    squish_job *j = submit(c, o);
    answers_wait(ring, &j, &a, 1);
    squish_job_free(j);
    return a;
}

/* Sixteen different wishes: lengths, shared beginnings, temperatures, stop strings, log-probabilities. */
static const char *const stops[] = {"the", ". "};
static squish_job_options mixed(int32_t i, int32_t longest) {
    const int32_t n = 3 + i * longest / JOBS;
    squish_job_options o = job_of(i % 3 == 0 ? 0 : (size_t)(i * 50), (size_t)n, 6 + i % 5 * 4);
    o.gen.sampling.temperature = i % 2 ? 0.8f : 0;
    o.gen.sampling.seed = 1000 + i;
    o.gen.sampling.choice = i % 4;
    o.gen.ignore_eos = i % 3 != 1;
    o.gen.logprobs = i % 4 == 2 ? 5 : -1;
    if (i % 5 == 3) o.gen.stop = stops, o.gen.n_stop = 2;
    if (i % 5 == 4) o.gen.sampling.repetition_penalty = 1.3f, o.gen.sampling.top_k = 40;
    o.client = (uint64_t)(i % 3);
    return o;
}

static void check_mixed(const company *c, int32_t n, int32_t longest, const answer *want) {
    static answer got[JOBS];
    squish_job *j[JOBS] = {NULL};
    for (int32_t i = 0; i < n; i++) {
        const squish_job_options o = mixed(i, longest);
        j[i] = submit(c, &o);
    }
    answers_wait(ring, j, got, n);
    for (int32_t i = 0; i < n; i++) {
        assert_same_answer(&got[i], &want[i]);
        assert_true(got[i].started);
        assert_int_equal(got[i].stats.gen.completion_tokens, want[i].n);
        squish_job_free(j[i]);
    }
}

typedef struct {
    int32_t chunk, jobs, jobs_max, longest;
} way;

static void check_way(const run *x, const way *w, bool uncached) {
    static answer want[JOBS];
    for (int32_t i = 0; i < w->jobs; i++) {
        const squish_job_options o = mixed(i, w->longest);
        answer_alone(x->s, o.prompt, o.n_prompt, &o.gen, &want[i]);
    }
    for (int cache = !uncached; cache < 2; cache++) {
        squish_engine_options eo = engine_options(512, 64);
        squish_batch_options bo = squish_batch_options_default();
        eo.chunk_tokens = w->chunk;
        bo.jobs_max = w->jobs_max;
        bo.prefix_cache = cache;
        company c = company_on(x->m, &eo, &bo);
        check_mixed(&c, w->jobs, w->longest, want);
        if (cache) check_mixed(&c, w->jobs, w->longest, want); /* again, warm */
        const squish_batch_stats s = rest(&c);
        assert_true(cache || s.cached_tokens == 0);
        assert_true(!cache || w->longest < 200 || s.prefix_hits >= (uint64_t)w->jobs / 2);
        company_free(&c);
    }
}

static void answers_in_company_equal_answers_alone(void **state) {
    (void)state;
    static const way ways[] = {
        {1, 3, 8, 30}, {7, 8, 8, 60}, {64, 16, 8, 200}, {256, 16, 16, 250}, {256, 5, 2, 100}};
    for (size_t w = 0; w < SQ_COUNT(ways); w++)
        check_way(&base, &ways[w], ways[w].chunk == 64); /* without a cache once is enough */
}

/* Beside a stream prompts go on by layers: some rows where steps have a little time for them, one where they
 * have none. The second prompt shares tiles with the first, which seals them on its way. */
static void so_they_do_where_prompts_go_on_by_layers(void **state) {
    (void)state;
    enum { N = 3 };
    static const squish_kv formats[] = {SQUISH_KV_F16, SQUISH_KV_Q8};
    static const double targets_ms[] = {0, 0.01};
    static answer want[N], got[N];
    const squish_job_options o[N] = {job_of(900, 20, 400), job_of(0, 330, 8), job_of(0, 420, 8)};
    const size_t pairs = SQ_COUNT(formats) * SQ_COUNT(targets_ms);
    /* The first and the last of the pairs; SQUISH_LONG=1: all. */
    for (size_t k = 0; k < pairs; k += run_long() ? 1 : pairs - 1) {
        squish_engine_options eo = engine_options(512, 64);
        squish_batch_options bo = squish_batch_options_default();
        squish_job *j[N] = {NULL};
        run x = {.m = base.m};
        squish_error err = {0};
        eo.kv = formats[k / 2];
        bo.itl_target_ms = targets_ms[k % 2];
        assert_ok(squish_engine_new(&x.e, x.m, &eo, &err), &err);
        assert_ok(squish_seq_new(&x.s, x.e, &err), &err);
        for (int32_t i = 0; i < N; i++) answer_alone(x.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
        squish_seq_free(x.s), squish_engine_free(x.e);
        company c = company_of(&eo, &bo);
        for (int32_t i = 0; i < N; i++) j[i] = submit(&c, &o[i]);
        answers_wait(ring, j, got, N);
        for (int32_t i = 0; i < N; i++) assert_same_answer(&got[i], &want[i]), squish_job_free(j[i]);
        company_free(&c);
    }
}

static void so_they_do_of_weights_as_they_came(void **state) {
    (void)state;
    const squish_engine_options eo = engine_options(512, 64);
    run x = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &eo);
    check_way(&x, &(const way){24, 6, 4, 80}, true);
    run_close(&x);
}

static void give_way(int32_t chunk) {
    squish_engine_options eo = engine_options(128, 5);
    eo.chunk_tokens = chunk;
    company c = company_of(&eo, NULL);
    static answer got[4], want;
    gate *g = gate_new(ring);
    squish_job *j[4];
    squish_job_options o[4];
    for (int32_t i = 0; i < 4; i++) {
        o[i] = job_of((size_t)(i * 70), 20, 70); /* three columns each at the end, five there are */
        o[i].gen.sampling.temperature = i % 2 ? 0.8f : 0;
        o[i].gen.sampling.seed = i;
        o[i].gen.stop = stops + 1;
        o[i].gen.n_stop = i == 2;
        if (i == 0) o[i].wake = gate_wait, o[i].wake_user = g;
        j[i] = submit(&c, &o[i]);
    }
    gate_open(g);
    answers_wait(ring, j, got, 4);
    int32_t preempted = 0;
    for (int32_t i = 0; i < 4; i++) {
        answer_alone(base.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want);
        assert_same_answer(&got[i], &want);
        preempted += got[i].stats.preemptions;
        squish_job_free(j[i]);
    }
    const squish_batch_stats s = rest(&c);
    gate_free(g);
    assert_true(preempted > 0);
    assert_int_equal(s.preemptions, preempted);
    assert_int_equal(s.tiles_free + s.tiles_cached, s.tiles);
    company_free(&c);
}

static void giving_way_changes_no_answer(void **state) {
    (void)state;
    give_way(256);
}

/* With a row a step, who gives way may be the only one in it; nobody submits or cancels afterwards. */
static void a_step_that_all_its_jobs_left_is_followed_by_another(void **state) {
    (void)state;
    give_way(1);
}

static void equal_prompts_at_once_are_computed_once(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 64);
    eo.chunk_tokens = 32;
    company c = company_of(&eo, NULL);
    static answer got[6], want;
    squish_job *j[6];
    const squish_job_options o = job_of(0, 300, 2);
    for (int i = 0; i < 6; i++) j[i] = submit(&c, &o);
    answers_wait(ring, j, got, 6);
    answer_alone(base.s, o.prompt, o.n_prompt, &o.gen, &want);
    for (int i = 0; i < 6; i++) {
        assert_same_answer(&got[i], &want);
        squish_job_free(j[i]);
    }
    const squish_batch_stats s = rest(&c);
    assert_true(s.evaluated_tokens <= 300 + 5 * 32 + 6);
    /* Of its two tokens each took in the first. */
    assert_int_equal(s.evaluated_tokens, s.prompt_tokens - s.cached_tokens + 6);
    company_free(&c);
}

static void shared_beginnings_cost_nothing(void **state) {
    (void)state;
    static const int32_t shared[] = {100, 512, 549};
    squish_engine_options eo = engine_options(1024, 200);
    company c = company_of(&eo, NULL);
    int32_t ids[700];
    squish_job_options o = job_of(0, 600, 1);
    assert_int_equal(ask(&c, &o).stats.gen.reused_tokens, 0);
    for (size_t i = 0; i < SQ_COUNT(shared); i++) {
        const int32_t n = shared[i] + 20;
        memcpy(ids, prose.ids, (size_t)shared[i] * sizeof *ids);
        memcpy(ids + shared[i], prose.ids + 1000 + i * 100, 20 * sizeof *ids);
        o.prompt = ids;
        o.n_prompt = (size_t)n;
        static answer want;
        const answer got = ask(&c, &o);
        assert_true(got.stats.gen.reused_tokens >= shared[i]);
        answer_alone(base.s, o.prompt, o.n_prompt, &o.gen, &want);
        assert_same_answer(&got, &want);
    }
    company_free(&c);
}

static void a_chat_prefills_what_is_new(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(1024, 64);
    company c = company_of(&eo, NULL);
    int32_t ids[1024], n = 0;
    for (int turn = 0; turn < 5; turn++) {
        const int32_t before = n, new_tokens = turn == 0 ? 90 : 25;
        memcpy(ids + n, prose.ids + 200 * turn, (size_t)new_tokens * sizeof *ids);
        n += new_tokens;
        squish_job_options o = job_of(0, 1, 24);
        o.prompt = ids;
        o.n_prompt = (size_t)n;
        const answer a = ask(&c, &o);
        static answer want;
        answer_alone(base.s, ids, (size_t)n, &o.gen, &want);
        assert_same_answer(&a, &want);
        if (turn > 0) assert_true(a.stats.gen.reused_tokens >= before - 32); /* its own answer as well */
        memcpy(ids + n, a.ids, (size_t)a.n * sizeof *ids);
        n += a.n;
    }
    company_free(&c);
}

static void salts_are_walls(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 64);
    company c = company_of(&eo, NULL);
    squish_job_options o = job_of(0, 200, 1);
    ask(&c, &o);
    o.salt = 7;
    assert_int_equal(ask(&c, &o).stats.gen.reused_tokens, 0);
    assert_int_equal(ask(&c, &o).stats.gen.reused_tokens, 199 - 199 % 32);
    company_free(&c);
}

static void storms_of_cancellations_leave_nothing(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 24);
    squish_batch_options bo = squish_batch_options_default();
    bo.jobs_max = 4;
    company c = company_of(&eo, &bo);
    uint64_t rng = 3;
    static answer a;
    for (int round = 0; round < 6; round++) {
        squish_job *j[12];
        for (int i = 0; i < 12; i++) {
            const size_t from = sq_splitmix64(&rng) % 500, n = 1 + sq_splitmix64(&rng) % 300;
            const squish_job_options o = job_of(from, n, 100);
            j[i] = submit(&c, &o);
        }
        usleep((useconds_t)(sq_splitmix64(&rng) % 30000));
        for (int i = 0; i < 12; i++) {
            if (sq_splitmix64(&rng) % 2) squish_job_cancel(j[i]);
            if (sq_splitmix64(&rng) % 4 == 0) answer_read(j[i], memset(&a, 0, sizeof a));
            squish_job_free(j[i]); /* without reading to the end: gone clients */
        }
        const squish_batch_stats s = rest(&c);
        assert_int_equal(s.tiles_free + s.tiles_cached, s.tiles);
    }
    const squish_job_options o = job_of(0, 50, 10);
    static answer want;
    answer_alone(base.s, o.prompt, o.n_prompt, &o.gen, &want);
    a = ask(&c, &o);
    assert_same_answer(&a, &want);
    assert_true(rest(&c).cancelled > 40);
    company_free(&c);
}

static void a_cancelled_job_says_so(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 16);
    company c = company_of(&eo, NULL);
    static answer a;
    const squish_job_options o = job_of(0, 200, 300);
    squish_job *j = submit(&c, &o);
    squish_job_cancel(j);
    answers_wait(ring, &j, &a, 1);
    assert_int_equal(a.status, SQUISH_CANCELLED);
    assert_int_equal(a.finish, SQUISH_FINISH_NONE);
    assert_non_null(strstr(a.error, "stopped at"));
    squish_job_free(j);
    company_free(&c);
}

static void deadlines_end_jobs_that_run_and_jobs_that_wait(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 16);
    squish_batch_options bo = squish_batch_options_default();
    bo.jobs_max = 1;
    company c = company_of(&eo, &bo);
    static answer a[2];
    squish_job_options o = job_of(0, 300, -1);
    o.deadline_s = 0.05;
    squish_job *j[2] = {submit(&c, &o), NULL};
    o.deadline_s = 0.01;
    j[1] = submit(&c, &o);
    answers_wait(ring, j, a, 2);
    assert_int_equal(a[0].status, SQUISH_TIMEOUT);
    assert_int_equal(a[1].status, SQUISH_TIMEOUT);
    assert_non_null(strstr(a[1].error, "deadline"));
    assert_false(a[1].started);
    squish_job_free(j[0]);
    squish_job_free(j[1]);
    company_free(&c);
}

static void a_full_queue_and_a_draining_batch_refuse(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 16);
    squish_batch_options bo = squish_batch_options_default();
    bo.jobs_max = 1;
    bo.queue_max = 2;
    company c = company_of(&eo, &bo);
    static answer a[4];
    squish_job *j[4], *more = NULL;
    squish_error err = {0};
    squish_job_options o = job_of(0, 100, 300);
    int32_t n = 0;
    while (n < 4 && squish_job_submit(&j[n], c.b, &o, &err) == SQUISH_OK) n++;
    assert_true(n == 2 || n == 3); /* the first may have left the queue already */
    assert_int_equal(err.code, SQUISH_BUSY);
    assert_non_null(strstr(err.text, "the queue is full"));
    for (int32_t i = 0; i < n; i++) squish_job_cancel(j[i]);
    answers_wait(ring, j, a, n);
    for (int32_t i = 0; i < n; i++) squish_job_free(j[i]);
    rest(&c);
    o.gen.max_tokens = 30;
    j[0] = submit(&c, &o);
    squish_batch_drain(c.b);
    err = (squish_error){0};
    assert_int_equal(squish_job_submit(&more, c.b, &o, &err), SQUISH_BUSY);
    assert_non_null(strstr(err.text, "draining"));
    assert_null(more);
    answers_wait(ring, j, a, 1);
    assert_int_equal(a[0].status, SQUISH_OK); /* what runs goes on */
    assert_int_equal(a[0].n, 30);
    rest(&c);
    assert_true(squish_batch_drain(c.b));
    squish_job_free(j[0]);
    company_free(&c);
}

/* In which order jobs that wait for one slot begin. */
static void start_order(company *c, const squish_job_options *o, int32_t n, int32_t *order) {
    static answer a[8];
    squish_job *j[8], *first;
    squish_job_options busy = job_of(0, 64, 30);
    busy.client = 99;
    first = submit(c, &busy);
    squish_job_event ev;
    while (!squish_job_next(first, &ev)) usleep(100); /* it has the slot */
    for (int32_t i = 0; i < n; i++) j[i] = submit(c, &o[i]);
    answers_wait(ring, j, a, n);
    for (int32_t i = 0; i < n; i++) {
        int32_t rank = 0;
        for (int32_t k = 0; k < n; k++) rank += a[k].stats.queue_ms < a[i].stats.queue_ms;
        order[rank] = i;
        squish_job_free(j[i]);
    }
    squish_job_free(first);
    rest(c);
}

static void priority_decides_within_a_client_and_service_between_clients(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 32);
    squish_batch_options bo = squish_batch_options_default();
    bo.jobs_max = 1;
    bo.prefix_cache = false;
    company c = company_of(&eo, &bo);
    squish_job_options o[4];
    int32_t order[4];
    for (int32_t i = 0; i < 4; i++) o[i] = job_of((size_t)(10 * i), 20, 2);
    o[2].priority = 2;
    o[1].priority = -2;
    start_order(&c, o, 4, order);
    assert_int_equal(order[0], 2);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], 3);
    assert_int_equal(order[3], 1);
    for (int32_t i = 0; i < 4; i++) o[i] = job_of((size_t)(10 * i), 20, 2);
    for (int32_t i = 0; i < 4; i++) o[i].client = 5;
    o[3].client = 6; /* came last, but the other had three turns before */
    start_order(&c, o, 4, order);
    assert_true(order[0] == 3 || order[1] == 3);
    company_free(&c);
}

/* ---- log-probabilities and embeddings --------------------------------------------------------- */

typedef struct {
    const int32_t *ids;
    size_t n;
    int32_t n_vocab;
    float out[512];
} scored;

static bool score(void *user, int32_t pos, const float *logits) {
    scored *k = user;
    float top = -INFINITY;
    double sum = 0;
    if ((size_t)pos + 1 >= k->n) return true;
    for (int32_t i = 0; i < k->n_vocab; i++) top = logits[i] > top ? logits[i] : top;
    for (int32_t i = 0; i < k->n_vocab; i++) sum += exp((double)logits[i] - (double)top);
    k->out[pos + 1] = (float)((double)logits[k->ids[pos + 1]] - ((double)top + log(sum)));
    return true;
}

static void prompts_are_scored_as_alone(void **state) {
    (void)state;
    static const int32_t chunks[] = {5, 64, 256};
    squish_model_info info;
    squish_error err = {0};
    squish_model_get_info(base.m, &info);
    static scored want;
    want.ids = prose.ids;
    want.n = 200;
    want.n_vocab = info.n_vocab;
    assert_ok(squish_seq_score(base.s, prose.ids, 200, 0, score, &want, &err), &err);
    for (size_t k = 0; k < SQ_COUNT(chunks); k++) {
        squish_engine_options eo = engine_options(512, 64);
        eo.chunk_tokens = chunks[k];
        company c = company_of(&eo, NULL);
        static answer a[4], alone;
        squish_job *j[4];
        squish_job_options o = job_of(0, 200, 0);
        for (int i = 0; i < 4; i++) { /* warm, in company, with and without an answer behind */
            o.prompt_logprobs = i == 3 ? -1 : 3;
            o.gen.max_tokens = i == 1 ? 1 : i == 3 ? 20 : 0;
            o.gen.ignore_eos = false;
            j[i] = submit(&c, &o);
        }
        answers_wait(ring, j, a, 4);
        for (int i = 0; i < 4; i++) squish_job_free(j[i]);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(a[i].status, SQUISH_OK);
            assert_int_equal(a[i].n_prompt_events, 200);
            assert_true(a[i].prompt_first_untold);
            assert_memory_equal(a[i].prompt_logprobs + 1, want.out + 1, 199 * sizeof(float));
            assert_int_equal(a[i].prompt_tops, a[0].prompt_tops);
            assert_int_equal(a[i].n, i == 1);
            assert_int_equal(a[i].finish == SQUISH_FINISH_NONE, false);
            assert_int_equal(a[i].stats.gen.reused_tokens, 0);
        }
        answer_alone(base.s, o.prompt, o.n_prompt, &o.gen, &alone);
        assert_same_answer(&a[3], &alone);
        company_free(&c);
    }
}

static void what_lies_before_the_scored_tokens_is_reused(void **state) {
    (void)state;
    static const int32_t from[] = {0, 1, 33, 150, 199};
    squish_engine_options eo = engine_options(512, 64);
    company c = company_of(&eo, NULL);
    static answer all, part;
    squish_job_options o = job_of(0, 200, 0);
    o.prompt_logprobs = 1;
    all = ask(&c, &o);
    assert_int_equal(all.n_prompt_events, 200);
    for (size_t k = 0; k < SQ_COUNT(from); k++) {
        const int32_t n = 200 - from[k];
        squish_job *j = NULL;
        squish_error err = {0};
        o.wake = bell_ring;
        o.wake_user = ring;
        o.prompt_logprobs_from = from[k];
        assert_ok(squish_job_submit(&j, c.b, &o, &err), &err);
        answers_wait(ring, &j, &part, 1);
        squish_job_free(j);
        assert_int_equal(part.status, SQUISH_OK);
        assert_int_equal(part.n_prompt_events, n);
        assert_int_equal(part.prompt_first_untold, from[k] == 0);
        const int32_t known = from[k] > 0 ? from[k] - 1 : 0; /* the tree keeps whole tiles */
        assert_in_range(part.stats.gen.reused_tokens, known / 32 * 32, known);
        const int32_t skip = from[k] == 0; /* the first of all has none */
        assert_memory_equal(part.prompt_logprobs + skip, all.prompt_logprobs + from[k] + skip,
                            (size_t)(n - skip) * sizeof(float));
    }
    squish_job *j = NULL;
    squish_error err = {0};
    o.prompt_logprobs_from = 200;
    assert_int_equal(squish_job_submit(&j, c.b, &o, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "prompt_logprobs_from is 200"));
    company_free(&c);
}

static void scores_survive_giving_way(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(128, 5);
    eo.chunk_tokens = 32;
    company c = company_of(&eo, NULL);
    static answer a[3], again;
    squish_job *j[3];
    squish_job_options o[3];
    for (int i = 0; i < 3; i++) {
        o[i] = job_of((size_t)(40 * i), 40, 50);
        o[i].prompt_logprobs = 2;
        o[i].priority = -i;
        j[i] = submit(&c, &o[i]);
    }
    answers_wait(ring, j, a, 3);
    assert_true(rest(&c).preemptions > 0);
    for (int i = 0; i < 3; i++) {
        squish_job_free(j[i]);
        again = ask(&c, &o[i]);
        assert_int_equal(a[i].n_prompt_events, 40);
        assert_memory_equal(a[i].prompt_logprobs, again.prompt_logprobs, 40 * sizeof(float));
        assert_same_answer(&a[i], &again);
    }
    company_free(&c);
}

static answer embed(const company *c, size_t from, size_t n, squish_pooling pool) {
    squish_job_options o = job_of(from, n, 0);
    o.pool = pool;
    return ask(c, &o);
}

static void embeddings_do_not_depend_on_chunks_or_cache(void **state) {
    (void)state;
    static answer want[4];
    static const int32_t chunks[] = {256, 7, 64};
    for (size_t k = 0; k < SQ_COUNT(chunks); k++) {
        squish_engine_options eo = engine_options(512, 64);
        eo.chunk_tokens = chunks[k];
        company c = company_of(&eo, NULL);
        for (int warm = 0; warm < 2; warm++)
            for (int p = SQUISH_POOL_MEAN; p <= SQUISH_POOL_FIRST; p++) {
                const answer a = embed(&c, 3, 100, (squish_pooling)p);
                assert_int_equal(a.status, SQUISH_OK);
                assert_int_equal(a.n_embedding, 512);
                assert_int_equal(a.n, 0);
                if (k == 0 && !warm) want[p] = a;
                assert_memory_equal(a.embedding, want[p].embedding, 512 * sizeof(float));
            }
        /* Of one token they are all the same. */
        const answer one = embed(&c, 3, 1, SQUISH_POOL_MEAN), last = embed(&c, 3, 1, SQUISH_POOL_LAST);
        assert_memory_equal(one.embedding, want[SQUISH_POOL_FIRST].embedding, 512 * sizeof(float));
        assert_memory_equal(one.embedding, last.embedding, 512 * sizeof(float));
        assert_memory_not_equal(want[1].embedding, want[2].embedding, 512 * sizeof(float));
        company_free(&c);
    }
}

/* ---- on disk ---------------------------------------------------------------------------------- */

static int32_t n_warnings;
static void count_warning(void *user, const char *line) {
    (void)user, (void)line;
    n_warnings++;
}

static squish_batch_options snapshot_options(const char *dir) {
    squish_batch_options o = squish_batch_options_default();
    o.snapshot_dir = dir;
    o.warn = count_warning;
    return o;
}

static void prefixes_survive_a_restart(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = engine_options(2048, 100);
    squish_batch_options bo = snapshot_options(dir);
    static answer cold, warm;
    squish_job_options o = job_of(0, 1200, 12); /* two files: 1024 tokens, and the rest */
    o.gen.logprobs = 5;
    company c = company_of(&eo, &bo);
    cold = ask(&c, &o);
    company_free(&c);
    n_warnings = 0;
    c = company_of(&eo, &bo);
    warm = ask(&c, &o);
    assert_same_answer(&warm, &cold);
    assert_true(warm.stats.gen.reused_tokens >= 1200 - 32);
    assert_int_equal(rest(&c).snapshot_hits, 2);
    o.n_prompt = 520; /* a part of what was kept */
    o.salt = 1;
    assert_int_equal(ask(&c, &o).stats.gen.reused_tokens, 0);
    company_free(&c);
    c = company_of(&eo, &bo); /* what is there is not written again */
    o.salt = 0;
    o.n_prompt = 1200;
    ask(&c, &o);
    company_free(&c);
    assert_int_equal(n_warnings, 0);
    remove_tree(dir);
}

static void damaged_snapshots_are_misses(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX", path[512];
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = engine_options(512, 40);
    squish_batch_options bo = snapshot_options(dir);
    const squish_job_options o = job_of(0, 200, 5);
    static answer cold, again;
    company c = company_of(&eo, &bo);
    cold = ask(&c, &o);
    company_free(&c);
    sq_arena ar;
    char **names;
    size_t n;
    squish_error err = {0};
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_ok(sq_os_list_dir(dir, &ar, &names, &n, &err), &err);
    assert_int_equal(n, 1);
    snprintf(path, sizeof path, "%s/%s", dir, names[0]);
    static const long at[] = {20, 300, 5000, -1}; /* header, ids, pages; cut */
    for (size_t i = 0; i < SQ_COUNT(at); i++) {
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        if (at[i] < 0) {
            assert_int_equal(ftruncate(fileno(f), 100000), 0);
        } else {
            fseek(f, at[i], SEEK_SET);
            const int byte = fgetc(f);
            fseek(f, at[i], SEEK_SET);
            fputc(byte ^ 4, f);
        }
        fclose(f);
        n_warnings = 0;
        c = company_of(&eo, &bo);
        again = ask(&c, &o);
        assert_same_answer(&again, &cold);
        assert_int_equal(again.stats.gen.reused_tokens, 0);
        assert_int_equal(n_warnings, 1);
        company_free(&c); /* writes it anew */
        c = company_of(&eo, &bo);
        again = ask(&c, &o);
        assert_same_answer(&again, &cold);
        assert_true(again.stats.gen.reused_tokens > 160);
        company_free(&c);
    }
    sq_arena_deinit(&ar);
    remove_tree(dir);
}

static void snapshots_stay_under_their_cap(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = engine_options(512, 40);
    squish_batch_options bo = snapshot_options(dir);
    bo.snapshot_bytes_max = 5 << 20; /* a file of six tiles is 1.6 MB */
    company c = company_of(&eo, &bo);
    for (size_t i = 0; i < 8; i++) {
        const squish_job_options o = job_of(i * 100, 200, 1);
        ask(&c, &o);
    }
    company_free(&c);
    sq_arena ar;
    char **names, path[512];
    size_t n;
    uint64_t bytes = 0;
    squish_error err = {0};
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_ok(sq_os_list_dir(dir, &ar, &names, &n, &err), &err);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        bytes += sq_os_file_bytes(path);
    }
    assert_true(n >= 2 && bytes <= bo.snapshot_bytes_max);
    sq_arena_deinit(&ar);
    remove_tree(dir);
}

/* ---- what goes wrong -------------------------------------------------------------------------- */

static void a_reader_that_falls_behind_stops_only_its_own_job(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    tiny_spec spec = tiny_default();
    spec.ctx = 2048;
    tiny_write(&spec, dir);
    run alone = run_open(dir, SQUISH_TIER_SOURCE, NULL);
    company c = {0};
    squish_error err = {0};
    squish_batch_options bo = squish_batch_options_default();
    bo.jobs_max = 1;
    assert_ok(squish_engine_new(&c.e, alone.m, NULL, &err), &err);
    assert_ok(squish_batch_new(&c.b, c.e, &bo, &err), &err);
    static answer a, other, want;
    static const int32_t ids[20] = {1, 2, 3, 4, 5, 6, 7};
    squish_job_options o = job_of(0, 1, 1500), quick = job_of(0, 1, 5);
    o.prompt = quick.prompt = ids;
    o.n_prompt = 10;
    quick.n_prompt = 20;
    o.gen.logprobs = 20;
    squish_job *slow = submit(&c, &o);
    squish_batch_stats s;
    uint64_t before;
    do { /* until it stands still */
        squish_batch_get_stats(c.b, &s);
        before = s.generated_tokens;
        usleep(200000);
        squish_batch_get_stats(c.b, &s);
    } while (s.generated_tokens != before || before == 0);
    assert_true(s.generated_tokens > 100 && s.generated_tokens < 1500);
    other = ask(&c, &quick); /* there is one slot: it is given up */
    answer_alone(alone.s, quick.prompt, quick.n_prompt, &quick.gen, &want);
    assert_same_answer(&other, &want);
    answers_wait(ring, &slow, &a, 1);
    answer_alone(alone.s, o.prompt, o.n_prompt, &o.gen, &want);
    assert_same_answer(&a, &want);
    squish_job_free(slow);
    company_free(&c);
    run_close(&alone);
    remove_tree(dir);
}

static void values_that_are_not_numbers_end_one_job_only(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    tiny_spec spec = tiny_default();
    spec.fault = TINY_NAN;
    spec.spoilt = "model.embed_tokens.weight"; /* of token 48 */
    tiny_write(&spec, dir);
    run x = run_open(dir, SQUISH_TIER_SOURCE, NULL);
    squish_seq_free(x.s);
    x.s = NULL;
    squish_batch *b;
    squish_error err = {0};
    assert_ok(squish_batch_new(&b, x.e, NULL, &err), &err);
    static answer a[3];
    squish_job *j[3];
    static int32_t ids[3][40];
    for (int i = 0; i < 3; i++) {
        for (int32_t k = 0; k < 40; k++) ids[i][k] = (k * 7 + i) % 40;
        if (i == 1) ids[i][20] = 48;
        squish_job_options o = job_of(0, 1, 1);
        o.prompt = ids[i];
        o.n_prompt = 40;
        o.prompt_logprobs = i == 1 ? 0 : -1;
        assert_ok(squish_job_submit(&j[i], b, &o, &err), &err);
    }
    answers_wait(ring, j, a, 3);
    assert_int_equal(a[0].status, SQUISH_OK);
    assert_int_equal(a[1].status, SQUISH_NUMERIC);
    assert_int_equal(a[1].n_prompt_events, 21);
    assert_int_equal(a[2].status, SQUISH_OK);
    for (int i = 0; i < 3; i++) squish_job_free(j[i]);
    squish_batch_free(b);
    run_close(&x);
    remove_tree(dir);
}

static void wrong_wishes_are_refused_by_name(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(256, 16);
    company c = company_of(&eo, NULL);
    squish_job *j = NULL;
    const int32_t wrong[] = {1, 99999};
    const struct {
        squish_job_options o;
        const char *text;
    } cases[] = {
#define CASE(what, text) {({ squish_job_options o = job_of(0, 10, 5); what; o; }), text}
        CASE(o.n_prompt = 0, "no tokens"),
        CASE(o.n_prompt = 257, "context_length_exceeded: 257"),
        CASE((o.prompt = wrong, o.n_prompt = 2), "token 1 is 99999"),
        CASE(o.prompt_logprobs = 21, "prompt_logprobs is 21"),
        CASE(o.pool = (squish_pooling)9, "pool is 9"),
        CASE((o.pool = SQUISH_POOL_MEAN, o.prompt_logprobs = 0), "an embedding has no prompt_logprobs"),
        CASE(o.priority = 3, "priority is 3"),
        CASE(o.deadline_s = (double)NAN, "deadline is nan"),
        CASE(o.gen.max_tokens = -2, "max_tokens is -2"),
        CASE(o.gen.sampling.temperature = -1, "temperature"),
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        squish_error err = {0};
        assert_int_equal(squish_job_submit(&j, c.b, &cases[i].o, &err), SQUISH_INVALID);
        if (!strstr(err.text, cases[i].text)) fail_msg("'%s' does not say '%s'", err.text, cases[i].text);
        assert_null(j);
    }
    company_free(&c);
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    squish_batch_options bo = squish_batch_options_default();
    assert_ok(squish_engine_new(&e, base.m, &eo, &err), &err);
    bo.jobs_max = 33;
    assert_int_equal(squish_batch_new(&b, e, &bo, &err), SQUISH_INVALID);
    assert_null(b);
    squish_engine_free(e);
}

static void jobs_may_outlive_their_batch(void **state) {
    (void)state;
    squish_engine_options eo = engine_options(512, 32);
    company c = company_of(&eo, NULL);
    static answer a[10];
    squish_job *j[10];
    for (int i = 0; i < 10; i++) {
        const squish_job_options o = job_of((size_t)i, 100, 400);
        j[i] = submit(&c, &o);
    }
    company_free(&c);
    answers_wait(ring, j, a, 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(a[i].status, SQUISH_CANCELLED);
        squish_job_free(j[i]);
    }
}

/* The n-th allocation fails, n = 1, 2, ...: in making the batch, in submitting, in the thread. */
static void failing_allocations_end_jobs_not_the_batch(void **state) {
    (void)state;
    struct sq_test_alloc_state t = {0};
    const squish_alloc a = sq_test_alloc(&t);
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = engine_options(256, 16);
    squish_error err = {0};
    squish_model *m;
    squish_engine *e;
    mo.alloc = &a;
    squish_model_info info;
    squish_model_get_info(base.m, &info);
    assert_ok(squish_model_open(&m, info.path, &mo, &err), &err);
    assert_ok(squish_engine_new(&e, m, &eo, &err), &err);
    const int64_t blocks = t.live_blocks;
    static answer got, want;
    squish_job_options o = job_of(0, 40, 6);
    o.gen.stop = stops + 1;
    o.gen.n_stop = 1;
    o.gen.logprobs = 20;
    o.prompt_logprobs = 20; /* more events than the reserve holds */
    run alone = run_open(info.path, SQUISH_TIER_AUTO, &eo);
    answer_alone(alone.s, o.prompt, o.n_prompt, &o.gen, &want);
    run_close(&alone);
    bool clean = false;
    for (int64_t n = 1; !clean; n++) {
        squish_batch *b = NULL;
        squish_job *j = NULL;
        t.fail_at = t.count + n;
        squish_status st = squish_batch_new(&b, e, NULL, NULL);
        if (st == SQUISH_OK) st = squish_job_submit(&j, b, &o, NULL);
        if (st == SQUISH_OK) {
            answers_wait(ring, &j, &got, 1);
            st = got.status;
        }
        if (st == SQUISH_OK) assert_same_answer(&got, &want);
        else assert_int_equal(st, SQUISH_NO_MEMORY);
        clean = t.count < t.fail_at;
        t.fail_at = 0;
        squish_job_free(j);
        if (b && !clean) { /* the batch still serves */
            assert_ok(squish_job_submit(&j, b, &o, &err), &err);
            answers_wait(ring, &j, &got, 1);
            assert_same_answer(&got, &want);
            squish_job_free(j);
        }
        squish_batch_free(b);
        assert_int_equal(t.live_blocks, blocks);
        assert_int_equal(t.wrong_sizes, 0);
    }
    squish_engine_free(e);
    squish_model_close(m);
    assert_int_equal(t.live_blocks, 0);
}

static int open_all(void **state) {
    (void)state;
    const squish_engine_options eo = engine_options(2048, 64);
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    make_shallow("models/squish-tiny", LAYERS, dir);
    base = run_compressed(dir, SQUISH_TIER_0, SQUISH_METHOD_RTN, &eo);
    remove_tree(dir);
    prose = run_tokens(&base, "tests/fixtures/own-prose.txt");
    ring = bell_new();
    return 0;
}

static int close_all(void **state) {
    (void)state;
    squish_tokens_free(&prose);
    run_close(&base);
    bell_free(ring);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_in_company_equal_answers_alone),
        cmocka_unit_test(so_they_do_where_prompts_go_on_by_layers),
        cmocka_unit_test(so_they_do_of_weights_as_they_came),
        cmocka_unit_test(giving_way_changes_no_answer),
        cmocka_unit_test(a_step_that_all_its_jobs_left_is_followed_by_another),
        cmocka_unit_test(equal_prompts_at_once_are_computed_once),
        cmocka_unit_test(shared_beginnings_cost_nothing),
        cmocka_unit_test(a_chat_prefills_what_is_new),
        cmocka_unit_test(salts_are_walls),
        cmocka_unit_test(storms_of_cancellations_leave_nothing),
        cmocka_unit_test(a_cancelled_job_says_so),
        cmocka_unit_test(deadlines_end_jobs_that_run_and_jobs_that_wait),
        cmocka_unit_test(a_full_queue_and_a_draining_batch_refuse),
        cmocka_unit_test(priority_decides_within_a_client_and_service_between_clients),
        cmocka_unit_test(prompts_are_scored_as_alone),
        cmocka_unit_test(what_lies_before_the_scored_tokens_is_reused),
        cmocka_unit_test(scores_survive_giving_way),
        cmocka_unit_test(embeddings_do_not_depend_on_chunks_or_cache),
        cmocka_unit_test(prefixes_survive_a_restart),
        cmocka_unit_test(damaged_snapshots_are_misses),
        cmocka_unit_test(snapshots_stay_under_their_cap),
        cmocka_unit_test(a_reader_that_falls_behind_stops_only_its_own_job),
        cmocka_unit_test(values_that_are_not_numbers_end_one_job_only),
        cmocka_unit_test(wrong_wishes_are_refused_by_name),
        cmocka_unit_test(jobs_may_outlive_their_batch),
        cmocka_unit_test(failing_allocations_end_jobs_not_the_batch),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
