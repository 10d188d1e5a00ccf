/* SPDX-License-Identifier: Apache-2.0
 *
 * test_draft.c - another model guesses, or the first layers of the same one: an answer is the answer without,
 * whoever guesses, how well, in which cache and among whom; and what cannot guess is refused. */
#include "sched/sched.h"
#include "support/batch_run.h"
#include "support/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CTX = 512, TOKENS = 24 };

static const char *const texts[] = {
    "<|im_start|>user\nTell me about a fox and a wolf.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nTell me about a fox and a crow.<|im_end|>\n<|im_start|>assistant\n",
    "a1 b2 a3 b1 a2 b3 a1 b1 a3 b2 a2 b1 a1 b3 a3 b1 a2 b2 a1",
};

static squish_model *base, *shallow; /* the model that answers, and its first two layers, which know little */
static run shared;                   /* base, with itself as a draft, which is always right */
static squish_tokens prompts[SQ_COUNT(texts)];
static answer off, on;

static squish_model *open_model(const char *path, const squish_alloc *a) {
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    o.heads = "none";
    o.alloc = a;
    assert_ok(squish_model_open(&m, path, &o, &err), &err);
    return m;
}

static void make_engine(run *x, const squish_engine_options *o) {
    squish_error err = {0};
    assert_ok(squish_engine_new(&x->e, base, o, &err), &err);
    assert_ok(squish_seq_new(&x->s, x->e, &err), &err);
}

static void drop_engine(run *x) {
    squish_seq_free(x->s);
    squish_engine_free(x->e);
}

static int open_all(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    squish_error err = {0};
    squish_engine_options o = squish_engine_options_default();
    assert_non_null(mkdtemp(dir));
    make_shallow("models/squish-tiny", 2, dir);
    base = open_model("models/squish-tiny", NULL);
    shallow = open_model(dir, NULL);
    remove_tree(dir);
    o.ctx_tokens = CTX;
    o.chunk_tokens = 16; /* prompts are read in pieces */
    o.draft = base;
    make_engine(&shared, &o);
    for (size_t i = 0; i < SQ_COUNT(texts); i++)
        assert_ok(squish_tokenize(base, texts[i], strlen(texts[i]), SQUISH_TOK_SPECIAL, &prompts[i], &err),
                  &err);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(texts); i++) squish_tokens_free(&prompts[i]);
    drop_engine(&shared);
    squish_model_close(shallow);
    squish_model_close(base);
    return 0;
}

static squish_gen_options options(float temperature, squish_spec_mode mode, int32_t guesses) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.top_p = 0.95f;
    o.sampling.seed = 11;
    o.max_tokens = TOKENS;
    o.ignore_eos = true;
    o.spec = (squish_spec){.mode = mode, .guesses = guesses};
    return o;
}

static void a_draft_that_is_the_model_is_right_at_every_temperature(void **state) {
    (void)state;
    static const float temperatures[] = {0, 0.7f, 1};
    for (size_t t = 0; t < SQ_COUNT(temperatures); t++) {
        squish_gen_options o = options(temperatures[t], SQUISH_SPEC_OFF, 0);
        o.logprobs = t == 1 ? 2 : -1;
        o.sampling.top_p = 1;
        answer_alone(shared.s, prompts[t].ids, prompts[t].count, &o, &off);
        o.spec = (squish_spec){.mode = SQUISH_SPEC_DRAFT, .guesses = 4};
        answer_alone(shared.s, prompts[t].ids, prompts[t].count, &o, &on);
        assert_same_answer(&off, &on);
        assert_in_range(on.stats.gen.guessed_tokens, TOKENS / 3, TOKENS);
        /* Noise that lifts a token far below the likeliest is left out of guesses (sample.h). */
        if (t == 0) assert_int_equal(on.stats.gen.guessed_tokens, on.stats.gen.right_tokens);
        assert_true(2 * on.stats.gen.right_tokens > on.stats.gen.guessed_tokens);
    }
}

static void a_draft_that_knows_little_and_own_layers_change_nothing(void **state) {
    (void)state;
    squish_engine_options eo = squish_engine_options_default();
    run x;
    int32_t guessed = 0, right = 0;
    eo.ctx_tokens = CTX;
    eo.draft = shallow;
    eo.skip_layers = 6;
    make_engine(&x, &eo);
    for (size_t i = 0; i < SQ_COUNT(texts); i++) {
        const float temperature = (float)i * 0.4f;
        squish_gen_options o = options(temperature, SQUISH_SPEC_OFF, 0);
        answer_alone(x.s, prompts[i].ids, prompts[i].count, &o, &off);
        static const squish_spec specs[] = {{.mode = SQUISH_SPEC_DRAFT, .guesses = 3},
                                            {.mode = SQUISH_SPEC_SKIP, .guesses = 8},
                                            {.mode = SQUISH_SPEC_SKIP, .guesses = 2},
                                            {.mode = SQUISH_SPEC_AUTO, .guesses = 0},
                                            {.mode = SQUISH_SPEC_DRAFT, .guesses = 0}};
        for (size_t k = run_long() ? 0 : i; k < SQ_COUNT(specs); k += run_long() ? 1 : SQ_COUNT(texts)) {
            o.spec = specs[k];
            answer_alone(x.s, prompts[i].ids, prompts[i].count, &o, &on);
            assert_same_answer(&off, &on);
            guessed += on.stats.gen.guessed_tokens;
            right += on.stats.gen.right_tokens;
        }
    }
    assert_true(right > 0 && right < guessed); /* both ways were gone */
    drop_engine(&x);
}

/* Up to the end of the context, over places where tiles are sealed. */
static void caches_in_fewer_bits_take_guesses_back(void **state) {
    (void)state;
    static const struct {
        squish_kv kv;
        int32_t residual;
        squish_spec spec;
    } all[] = {{SQUISH_KV_Q8, 128, {.mode = SQUISH_SPEC_SKIP, .guesses = 5}},
               {SQUISH_KV_Q2, 32, {.mode = SQUISH_SPEC_SKIP, .guesses = 3}},
               {SQUISH_KV_Q8, 0, {.mode = SQUISH_SPEC_DRAFT, .guesses = 4}}};
    int32_t ids[236];
    for (int32_t i = 0; i < 236; i++) ids[i] = prompts[2].ids[(size_t)i % prompts[2].count];
    for (size_t k = 0; k < SQ_COUNT(all); k++) {
        squish_engine_options eo = squish_engine_options_default();
        run x;
        eo.ctx_tokens = 272;
        eo.kv = all[k].kv;
        eo.kv_options.residual = all[k].residual;
        eo.draft = shallow;
        make_engine(&x, &eo);
        squish_gen_options o = options(0.9f, SQUISH_SPEC_OFF, 0);
        o.max_tokens = -1;
        answer_alone(x.s, ids, SQ_COUNT(ids), &o, &off);
        o.spec = all[k].spec;
        answer_alone(x.s, ids, SQ_COUNT(ids), &o, &on);
        assert_same_answer(&off, &on);
        assert_int_equal(on.finish, SQUISH_FINISH_LENGTH);
        assert_true(on.stats.gen.guessed_tokens > on.stats.gen.right_tokens);
        drop_engine(&x);
    }
}

static void grammars_stops_and_penalties_see_tokens_not_guesses(void **state) {
    (void)state;
    static const char re[] = "( (yes|no), (yes|no);){1,6}";
    squish_grammar *g;
    squish_error err = {0};
    assert_ok(squish_grammar_new(&g, base, SQUISH_GRAMMAR_REGEX, re, strlen(re), &err), &err);
    for (int k = 0; k < 4; k++) {
        squish_gen_options o = options(k % 2 ? 0.8f : 0, SQUISH_SPEC_OFF, 0);
        if (k < 2) o.grammar = g, o.ignore_eos = false;
        if (k >= 2) o.sampling.repetition_penalty = 1.1f, o.sampling.dry_multiplier = 0.4f;
        answer_alone(shared.s, prompts[0].ids, prompts[0].count, &o, &off);
        o.spec = (squish_spec){.mode = k % 2 ? SQUISH_SPEC_SKIP : SQUISH_SPEC_DRAFT, .guesses = 4};
        answer_alone(shared.s, prompts[0].ids, prompts[0].count, &o, &on);
        assert_same_answer(&off, &on);
    }
    squish_grammar_free(g);
}

/* What a draft has read goes by tokens: two timelines in turns, then one that begins as they did. */
static void timelines_in_turns_share_a_draft(void **state) {
    (void)state;
    squish_seq *s[2] = {shared.s, NULL};
    squish_gen *g[2];
    squish_error err = {0};
    squish_gen_event ev;
    static int32_t ids[2][TOKENS], want[2][TOKENS];
    assert_ok(squish_seq_new(&s[1], shared.e, &err), &err);
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int k = 0; k < 2; k++) {
            const squish_gen_options o = options(0.5f, !pass ? SQUISH_SPEC_OFF : SQUISH_SPEC_DRAFT, pass * 3);
            assert_ok(squish_gen_new(&g[k], s[k], prompts[k].ids, prompts[k].count, &o, &err), &err);
        }
        for (int32_t i = 0; i < 2 * TOKENS; i++) {
            assert_ok(squish_gen_next(g[i % 2], &ev, &err), &err);
            (pass ? ids : want)[i % 2][i / 2] = ev.id;
        }
        for (int k = 0; k < 2; k++) squish_gen_free(g[k]);
    }
    assert_memory_equal(ids, want, sizeof ids);
    squish_seq_free(s[1]);
}

/* Of its own, and of any other, a beginning that was read is not read again. */
static void a_draft_reads_a_chunk_a_step_and_what_it_has_read_once(void **state) {
    (void)state;
    sq_drafter *d = sq_draft_drafter(shared.e->draft);
    int32_t ids[100];
    for (int32_t i = 0; i < 100; i++) ids[i] = 100 + i;
    sq_draft_from from = {.tokens = ids, .n = 100};
    assert_int_equal(d->lag(d, &from), 100);
    for (int32_t left = 100; left > 16; left -= 16) { /* the engine's chunk */
        assert_int_equal(d->lag(d, &from), left);
        assert_false(d->begin(d, &from));
    }
    assert_int_equal(d->lag(d, &from), 100 % 16);
    from.n = 64; /* as after an answer that was given up */
    assert_int_equal(d->lag(d, &from), 1);
    from.n = 100;
    from.salt = 1; /* somebody else's */
    assert_int_equal(d->lag(d, &from), 100);
    from.n = CTX - 1;
    assert_int_equal(d->lag(d, &from), -1); /* no room for guesses */
    ids[99] = base->cfg.n_vocab;
    from = (sq_draft_from){.tokens = ids, .n = 100};
    assert_int_equal(d->lag(d, &from), -1); /* no token of its */
}

/* ---- among others ---------------------------------------------------------------------------- */

static void answers_of_a_batch_are_those_alone_without_guesses(void **state) {
    (void)state;
    enum { JOBS = 9 };
    static answer alone[JOBS], many[JOBS];
    static const squish_spec specs[] = {{.mode = SQUISH_SPEC_DRAFT, .guesses = 4},
                                        {.mode = SQUISH_SPEC_SKIP, .guesses = 3},
                                        {.mode = SQUISH_SPEC_AUTO}};
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    squish_job *jobs[JOBS];
    bell *ring = bell_new();
    eo.ctx_tokens = 128;
    eo.kv_bytes_max = 2u << 20; /* some give way, guesses find no room */
    eo.draft = shallow;
    bo.jobs_max = 4;
    for (int32_t i = 0; i < JOBS; i++) {
        squish_gen_options o = options(i % 2 ? 0.9f : 0, SQUISH_SPEC_OFF, 0);
        answer_alone(shared.s, prompts[i % 3].ids, prompts[i % 3].count, &o, &alone[i]);
    }
    assert_ok(squish_engine_new(&e, base, &eo, &err), &err);
    assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
    for (int32_t i = 0; i < JOBS; i++) {
        squish_job_options o = squish_job_options_default();
        o.prompt = prompts[i % 3].ids;
        o.n_prompt = prompts[i % 3].count;
        o.gen = options(i % 2 ? 0.9f : 0, specs[(i / 3 + i) % 3].mode, specs[(i / 3 + i) % 3].guesses);
        o.wake = bell_ring;
        o.wake_user = ring;
        assert_ok(squish_job_submit(&jobs[i], b, &o, &err), &err);
    }
    answers_wait(ring, jobs, many, JOBS);
    int32_t guessed = 0;
    for (int32_t i = 0; i < JOBS; i++) {
        assert_same_answer(&alone[i], &many[i]);
        guessed += many[i].stats.gen.guessed_tokens;
        squish_job_free(jobs[i]);
    }
    assert_true(guessed > JOBS);
    squish_batch_free(b);
    squish_engine_free(e);
    bell_free(ring);
}

/* ---- what cannot guess ----------------------------------------------------------------------- */

static void refused(const squish_engine_options *o, squish_status want, const char *says) {
    squish_engine *e;
    squish_error err = {0};
    assert_int_equal(squish_engine_new(&e, base, o, &err), want);
    assert_null(e);
    assert_non_null(strstr(err.text, says));
}

static void another_vocabulary_and_odd_options_are_refused(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_model *other = open_model("tests/fixtures/architectures/llama3", NULL);
    o.ctx_tokens = 128;
    o.draft = other;
    refused(&o, SQUISH_INVALID, "has another vocabulary: ");
    o.draft = base;
    o.kv_options.pm = true;
    refused(&o, SQUISH_INVALID, "--draft beside --pm-kvq");
    o = squish_engine_options_default();
    o.skip_layers = base->cfg.n_layers;
    refused(&o, SQUISH_INVALID, "skip_layers is 8, wanted 0 (a third of them) to 7");
    squish_model_close(other);
    squish_model_options text = squish_model_options_default();
    squish_error err = {0};
    text.text_only = true;
    assert_ok(squish_model_open(&other, "models/squish-tiny", &text, &err), &err);
    o.skip_layers = 0;
    o.draft = other;
    refused(&o, SQUISH_UNSUPPORTED, "was opened for its text only");
    squish_model_close(other);
}

static void what_a_draft_takes_is_planned_for(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_mem_estimate without, with;
    squish_error err = {0};
    o.ctx_tokens = 1024;
    assert_ok(squish_engine_estimate(base, &o, &without, &err), &err);
    o.draft = shallow;
    assert_ok(squish_engine_estimate(base, &o, &with, &err), &err);
    const uint64_t kv = without.kv_bytes / 8 * 2, more = with.total_bytes - without.total_bytes;
    assert_true(more >= shallow->info.weight_bytes + kv);
    assert_true(more < shallow->info.weight_bytes + kv + (8u << 20));
    o.memory_limit = (without.total_bytes + with.total_bytes) / 2;
    refused(&o, SQUISH_NO_MEMORY, "may be used");
}

static void where_memory_ends_there_is_a_status_and_no_leak(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    o.ctx_tokens = 128;
    o.threads = 1;
    o.draft = shallow;
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state counting = {0};
        const squish_alloc a = sq_test_alloc(&counting);
        squish_model *m = open_model("models/squish-tiny", &a);
        squish_engine *e;
        squish_error err = {0};
        const int64_t live = counting.live_blocks;
        counting.fail_at = counting.count + n;
        const squish_status st = squish_engine_new(&e, m, &o, &err);
        squish_engine_free(e);
        assert_int_equal(counting.live_blocks, live);
        assert_int_equal(counting.wrong_sizes, 0);
        counting.fail_at = 0;
        squish_model_close(m);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_draft_that_is_the_model_is_right_at_every_temperature),
        cmocka_unit_test(a_draft_that_knows_little_and_own_layers_change_nothing),
        cmocka_unit_test(caches_in_fewer_bits_take_guesses_back),
        cmocka_unit_test(grammars_stops_and_penalties_see_tokens_not_guesses),
        cmocka_unit_test(timelines_in_turns_share_a_draft),
        cmocka_unit_test(a_draft_reads_a_chunk_a_step_and_what_it_has_read_once),
        cmocka_unit_test(answers_of_a_batch_are_those_alone_without_guesses),
        cmocka_unit_test(another_vocabulary_and_odd_options_are_refused),
        cmocka_unit_test(what_a_draft_takes_is_planned_for),
        cmocka_unit_test(where_memory_ends_there_is_a_status_and_no_leak),
    };
    run_sampled("where_memory_ends*");
    return cmocka_run_group_tests(tests, open_all, close_all);
}
