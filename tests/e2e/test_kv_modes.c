/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_modes.c - a cache in fewer bits keeps every promise of one in f16: the same bits whatever the
 * chunks, threads and instruction sets, alone or in company, after giving way, from a shared beginning, after
 * a restart and after going back. And it stays near the reference that is not compressed. */
#include "support/batch_run.h"

#include <math.h>
#include <stdio.h>

/* Models of 4 bits: their matrices are the quick ones. Promises about bits are kept by a few layers or by
 * none; how near something is to f16 is a matter of the whole model. */
static run base, shallow;
static squish_model *model;
static squish_tokens prose;
static bell *ring;

static const squish_kv modes[] = {SQUISH_KV_Q8, SQUISH_KV_K8V4, SQUISH_KV_Q4, SQUISH_KV_K4V2, SQUISH_KV_Q2};

typedef struct {
    squish_engine *e;
    squish_seq *s;
} alone;

static squish_engine_options options_of(squish_kv kv, int32_t ctx, int32_t chunk) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = ctx;
    o.chunk_tokens = chunk;
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

static const float *logits_of(alone *a, const int32_t *ids, size_t n) {
    squish_error err = {0};
    assert_ok(squish_seq_sync(a->s, ids, n, &err), &err);
    return squish_seq_logits(a->s);
}

static void assert_same_logits(alone *a, const int32_t *ids, size_t n, const float *want) {
    squish_model_info info;
    squish_model_get_info(model, &info);
    assert_memory_equal(logits_of(a, ids, n), want, (size_t)info.n_vocab * sizeof *want);
}

static float *keep_logits(alone *a, const int32_t *ids, size_t n) {
    squish_model_info info;
    squish_model_get_info(model, &info);
    float *out = malloc((size_t)info.n_vocab * sizeof *out);
    memcpy(out, logits_of(a, ids, n), (size_t)info.n_vocab * sizeof *out);
    return out;
}

/* ---- alone ----------------------------------------------------------------------------------- */

static void every_way_of_computing_gives_the_same_bits(void **state) {
    (void)state;
    enum { N = 400 }; /* two cells that read sealed tiles, and both chunks of attention */
    static const struct {
        int32_t chunk, threads;
        const char *isa;
    } ways[] = {{1, 2, NULL},     {33, 1, NULL},      {512, 2, NULL},
                {200, 2, "avx2"}, {450, 4, "avx512"}, {128, 2, "neon"}};
    for (size_t k = 0; k < SQ_COUNT(modes); k++) {
        squish_engine_options o = options_of(modes[k], 1024, 256);
        alone a = alone_of(&o);
        float *want = keep_logits(&a, prose.ids, N);
        alone_free(&a);
        for (size_t i = k % 2; i < SQ_COUNT(ways); i += 1 + (k > 1)) {
            o = options_of(modes[k], 1024, ways[i].chunk);
            o.threads = ways[i].threads;
            o.isa_max = ways[i].isa;
            a = alone_of(&o);
            assert_same_logits(&a, prose.ids, N, want);
            alone_free(&a);
        }
        free(want);
    }
}

static void the_scalar_kernels_give_the_same_bits(void **state) {
    (void)state;
    enum { N = 134 }; /* queries from 128 on read sealed tiles */
    /* One of them; kernels have tests of their own. SQUISH_LONG=1: three. */
    for (size_t k = run_long() ? 0 : 2; k < SQ_COUNT(modes); k += run_long() ? 2 : 3) {
        squish_engine_options o = options_of(modes[k], 256, 256);
        o.kv_options.residual = 32;
        alone a = alone_of(&o);
        float *want = keep_logits(&a, prose.ids, N);
        alone_free(&a);
        o.isa_max = "scalar";
        a = alone_of(&o);
        assert_same_logits(&a, prose.ids, N, want);
        alone_free(&a);
        free(want);
    }
}

/* An edit far back, one inside the last cells, and the same again. */
static void going_back_gives_the_bits_of_a_cold_run(void **state) {
    (void)state;
    enum { N = 520, LAST = N / 128 * 128 };
    static const int32_t edits[] = {517, 500, 400, 200, 5};
    for (size_t k = 1; k < SQ_COUNT(modes); k += 2) {
        const squish_engine_options o = options_of(modes[k], 1024, 256);
        alone a = alone_of(&o), cold = alone_of(&o);
        int32_t ids[N];
        memcpy(ids, prose.ids, sizeof ids);
        logits_of(&a, ids, N);
        for (size_t i = 0; i < SQ_COUNT(edits); i++) {
            ids[edits[i]] ^= 1;
            squish_seq_truncate(cold.s, 0);
            float *want = keep_logits(&cold, ids, N);
            assert_same_logits(&a, ids, N, want);
            if (edits[i] >= LAST) assert_int_equal(squish_seq_reused(a.s), edits[i]);
            free(want);
        }
        alone_free(&a);
        alone_free(&cold);
    }
}

static void logits_asked_for_again_are_the_same(void **state) {
    (void)state;
    const squish_engine_options o = options_of(SQUISH_KV_Q4, 1024, 256);
    for (size_t n = 640; n < 642; n++) { /* at a border of cells, and behind it */
        alone a = alone_of(&o);
        float *want = keep_logits(&a, prose.ids, n);
        logits_of(&a, prose.ids, n + 1);
        squish_seq_truncate(a.s, (int32_t)n);
        assert_same_logits(&a, prose.ids, n, want);
        free(want);
        alone_free(&a);
    }
}

/* Bytes of N tokens; the last step is one token, so that nothing is held for the one before it. */
static uint64_t bytes_of(squish_kv kv) {
    enum { N = 1341 };
    squish_engine_info info;
    const squish_engine_options o = options_of(kv, 2048, 256);
    alone a = alone_of(&o);
    logits_of(&a, prose.ids, N - 1);
    logits_of(&a, prose.ids, N);
    squish_engine_get_info(a.e, &info);
    assert_true(info.kv_bytes_now <= info.kv_bytes_max);
    alone_free(&a);
    return info.kv_bytes_now;
}

static void fewer_bits_take_less_memory(void **state) {
    (void)state;
    const uint64_t f16 = bytes_of(SQUISH_KV_F16);
    uint64_t used[SQ_COUNT(modes)];
    for (size_t k = 0; k < SQ_COUNT(modes); k++) {
        used[k] = bytes_of(modes[k]);
        assert_true(used[k] < (k == 0 ? f16 * 2 / 3 : used[k - 1]));
    }
    assert_true(used[2] < f16 * 45 / 100); /* q4: 35 tiles of 42 in under a third, the rest open */
}

/* ---- near the reference ---------------------------------------------------------------------- */

typedef struct {
    float *rows; /* of the reference */
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

/* The bars of the measure over many contexts are a few times what it gives; so is this one window's. */
static void every_mode_stays_near_f16(void **state) {
    (void)state;
    enum { N = 1024, FIRST = 896 };
    static const double most[] = {1e-4, 5e-4, 1.5e-3, 0.02, 0.03};
    squish_model_info info;
    squish_model_get_info(model, &info);
    compared c = {.first = FIRST, .n_vocab = info.n_vocab};
    c.rows = malloc((size_t)(N - FIRST) * (size_t)info.n_vocab * sizeof *c.rows);
    squish_error err = {0};
    squish_engine_options o = options_of(SQUISH_KV_F16, N, 256);
    alone a = alone_of(&o);
    assert_ok(squish_seq_score(a.s, prose.ids, N, FIRST, keep_row, &c, &err), &err);
    alone_free(&a);
    for (size_t k = 0; k < SQ_COUNT(modes); k++) {
        o.kv = modes[k];
        c.kl = 0;
        a = alone_of(&o);
        assert_ok(squish_seq_score(a.s, prose.ids, N, FIRST, compare_row, &c, &err), &err);
        alone_free(&a);
        const double kl = c.kl / (N - FIRST);
        printf("%s: KL to f16 %.3g\n", squish_kv_name(modes[k]), kl);
        assert_true(kl > 1e-9 && kl <= most[k]); /* nothing compressed would give 0 */
    }
    free(c.rows);
}

/* ---- in company ------------------------------------------------------------------------------ */

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

static answer got[8], want[8];

/* Prompts that share a beginning and go apart, some longer than others. */
static void six_wishes(squish_job_options *o, int32_t *ids) {
    for (int32_t i = 0; i < 6; i++) {
        int32_t *p = ids + 800 * i;
        memcpy(p, prose.ids, 800 * sizeof *p);
        for (int32_t t = 150 * (i % 4); t < 800; t++) p[t] = prose.ids[1000 + 37 * i + t];
        o[i] = job_of(p, (size_t)(300 + 83 * i), 40 + 7 * i);
    }
}

static void answers_in_company_equal_answers_alone(void **state) {
    (void)state;
    static int32_t ids[6 * 800];
    squish_job_options o[6];
    six_wishes(o, ids);
    for (size_t k = run_long() ? 0 : 2; k < SQ_COUNT(modes); k += run_long() ? 2 : 3) {
        squish_engine_options eo = options_of(modes[k], 1024, 256);
        alone a = alone_of(&eo);
        for (int32_t i = 0; i < 6; i++) answer_alone(a.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
        alone_free(&a);
        for (int small = k == 4; small < 2 - (k == 0); small++) { /* both ways in the middle one */
            squish_mem_estimate est;
            squish_error err = {0};
            assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
            eo.kv_bytes_max = small ? est.kv_bytes * 5 / 4 : est.kv_bytes * 8; /* small: they give way */
            company c = company_of(&eo, NULL);
            for (int again = 0; again < 2; again++) { /* the second time warm */
                const int32_t preempted = ask_all(&c, o, 6, got);
                for (int32_t i = 0; i < 6; i++) assert_same_answer(&got[i], &want[i]);
                if (!small) assert_int_equal(preempted, 0);
                if (!small && again)
                    for (int32_t i = 0; i < 6; i++)
                        assert_true(got[i].stats.gen.reused_tokens >= (int32_t)o[i].n_prompt - 32);
            }
            company_free(&c);
            eo.kv_bytes_max = 0;
        }
    }
}

static void giving_way_changes_no_answer(void **state) {
    (void)state;
    squish_engine_options eo = options_of(SQUISH_KV_Q4, 640, 32);
    squish_mem_estimate est;
    squish_error err = {0};
    squish_job_options o[3];
    assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
    alone a = alone_of(&eo);
    for (int32_t i = 0; i < 3; i++) {
        o[i] = job_of(prose.ids + 300 * i, 260, 330);
        answer_alone(a.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
    }
    alone_free(&a);
    eo.kv_bytes_max = est.kv_bytes * 9 / 8; /* room for two while they read, and not when they answer */
    squish_batch_options bo = squish_batch_options_default();
    bo.itl_target_ms = 1e6; /* however slow the machine is: prompts in whole chunks */
    company c = company_of(&eo, &bo);
    const int32_t preempted = ask_all(&c, o, 3, got);
    for (int32_t i = 0; i < 3; i++) assert_same_answer(&got[i], &want[i]);
    assert_true(preempted > 0);
    company_free(&c);
}

static void a_shared_beginning_is_found_where_prompts_part(void **state) {
    (void)state;
    static const int32_t shared[] = {800, 641, 512, 300, 130, 64};
    squish_engine_options eo = options_of(SQUISH_KV_K8V4, 1024, 256);
    alone a = alone_of(&eo);
    eo.kv_bytes_max = 64 << 20;
    company c = company_of(&eo, NULL);
    int32_t ids[900];
    squish_job_options o = job_of(prose.ids, 900, 1);
    ask_all(&c, &o, 1, got);
    for (size_t i = 0; i < SQ_COUNT(shared); i++) {
        memcpy(ids, prose.ids, sizeof ids);
        for (int32_t t = shared[i]; t < 900; t++) ids[t] = prose.ids[1000 + t + 17 * (int32_t)i];
        o = job_of(ids, (size_t)shared[i] + 60, 20);
        ask_all(&c, &o, 1, got);
        answer_alone(a.s, o.prompt, o.n_prompt, &o.gen, want);
        assert_same_answer(got, want);
        assert_true(got->stats.gen.reused_tokens >= shared[i]);
    }
    company_free(&c);
    alone_free(&a);
}

static int32_t n_warnings;
static void count_warning(void *user, const char *line) {
    (void)user;
    if (n_warnings++ == 0) printf("%s\n", line);
}

static void prefixes_survive_a_restart(void **state) {
    (void)state;
    for (size_t k = 0; k < SQ_COUNT(modes); k++) {
        char dir[] = "/tmp/squish-test-XXXXXX";
        assert_non_null(mkdtemp(dir));
        squish_engine_options eo = options_of(modes[k], 2048, 256);
        squish_batch_options bo = squish_batch_options_default();
        bo.snapshot_dir = dir;
        bo.warn = count_warning;
        n_warnings = 0;
        const int32_t n = k == 0 ? 1300 : 500; /* more than a file holds; less */
        squish_job_options o = job_of(prose.ids, (size_t)n, 12);
        company c = company_of(&eo, &bo);
        ask_all(&c, &o, 1, want);
        company_free(&c);
        c = company_of(&eo, &bo);
        ask_all(&c, &o, 1, got);
        assert_same_answer(got, want);
        assert_true(got->stats.gen.reused_tokens >= n - 32);
        company_free(&c);
        assert_int_equal(n_warnings, 0);
        eo.kv = modes[(k + 1) % SQ_COUNT(modes)]; /* another format: a miss, and a line that says so */
        c = company_of(&eo, &bo);
        ask_all(&c, &o, 1, got);
        assert_int_equal(got->stats.gen.reused_tokens, 0);
        company_free(&c);
        assert_int_equal(n_warnings, 1);
        remove_tree(dir);
    }
}

static int open_all(void **state) {
    (void)state;
    base = run_compressed("models/squish-tiny", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    shallow = run_shallow("models/squish-tiny", 3, SQUISH_METHOD_RTN);
    model = shallow.m;
    prose = run_tokens(&base, "tests/fixtures/own-prose.txt");
    assert_true(prose.count > 3000);
    ring = bell_new();
    return 0;
}

static int with_the_whole_model(void **state) {
    (void)state;
    model = base.m;
    return 0;
}

static int with_a_shallow_one(void **state) {
    (void)state;
    model = shallow.m;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_of_computing_gives_the_same_bits),
        cmocka_unit_test(the_scalar_kernels_give_the_same_bits),
        cmocka_unit_test(going_back_gives_the_bits_of_a_cold_run),
        cmocka_unit_test(logits_asked_for_again_are_the_same),
        cmocka_unit_test(fewer_bits_take_less_memory),
        cmocka_unit_test_setup_teardown(every_mode_stays_near_f16, with_the_whole_model, with_a_shallow_one),
        cmocka_unit_test(answers_in_company_equal_answers_alone),
        cmocka_unit_test(giving_way_changes_no_answer),
        cmocka_unit_test(a_shared_beginning_is_found_where_prompts_part),
        cmocka_unit_test(prefixes_survive_a_restart),
    };
    run_sampled("giving_way_*");
    return cmocka_run_group_tests(tests, open_all, close_all);
}
