/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grammar_answers.c - answers under a grammar: tokens that are forced cost no step and change nothing,
 * alone and among others; masks that come late change nothing either. */
#include "grammar/gram_int.h"
#include "sched/sched.h"
#include "support/batch_run.h"

#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

enum { CTX = 512 };

static run shared;
static squish_tokens prompt;

static int open_shared(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_error err = {0};
    static const char text[] = "<|im_start|>user\nWhat is the weather?<|im_end|>\n<|im_start|>assistant\n";
    o.ctx_tokens = CTX;
    shared = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &o);
    assert_ok(squish_tokenize(shared.m, text, strlen(text), SQUISH_TOK_SPECIAL, &prompt, &err), &err);
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    squish_tokens_free(&prompt);
    run_close(&shared);
    return 0;
}

/* What comes in digits and stars has one token for each, so that most tokens are forced. */
static const struct {
    squish_grammar_kind kind;
    const char *source;
    int32_t forced_min;
} cases[] = {
    {SQUISH_GRAMMAR_REGEX, "(\\x01\\x02\\x03\\x04\\x05\\x06\\x07(a|b)){40}x", 20},
    {SQUISH_GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":20},\"degrees\":{"
     "\"type\":\"integer\"},"
     "\"sky\":{\"enum\":[\"clear\",\"cloudy\"]}},\"required\":[\"city\",\"degrees\",\"sky\"],"
     "\"additionalProperties\":false}",
     0},
    {SQUISH_GRAMMAR_TAGS, "{\"type\":\"const_string\",\"value\":\"<|im_start|><|im_start|><|im_start|>ok\"}",
     3},
};

static squish_gen_options options(float temperature, const squish_grammar *g) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.seed = 7;
    o.max_tokens = 300;
    o.grammar = g;
    return o;
}

static squish_grammar *grammar(size_t i) {
    squish_grammar *g;
    squish_error err = {0};
    assert_ok(squish_grammar_new(&g, shared.m, cases[i].kind, cases[i].source, strlen(cases[i].source), &err),
              &err);
    return g;
}

/* Log-probabilities need logits, so with them every token has a step of its own. */
static void forced_tokens_are_those_that_would_have_been_drawn(void **state) {
    (void)state;
    static answer slow, fast;
    for (size_t i = 0; i < SQ_COUNT(cases); i++)
        for (int k = 0; k < 2; k++) {
            squish_grammar *g = grammar(i);
            squish_gen_options o = options(k ? 1.0f : 0.0f, g);
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &fast);
            o.logprobs = 0;
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &slow);
            assert_int_equal(fast.status, SQUISH_OK);
            assert_int_equal(fast.n, slow.n);
            assert_memory_equal(fast.ids, slow.ids, (size_t)fast.n * sizeof *fast.ids);
            assert_string_equal(fast.text, slow.text);
            assert_int_equal(fast.finish, slow.finish);
            squish_grammar_free(g);
        }
}

static int32_t forced_of(const squish_gen_options *o, int32_t *ids, int32_t *n) {
    squish_gen *g;
    squish_gen_event ev = {.finish = SQUISH_FINISH_NONE};
    squish_gen_stats stats;
    squish_error err = {0};
    assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, o, &err), &err);
    for (*n = 0; ev.finish == SQUISH_FINISH_NONE;) {
        assert_ok(squish_gen_next(g, &ev, &err), &err);
        if (ev.id >= 0) ids[(*n)++] = ev.id;
    }
    squish_gen_get_stats(g, &stats);
    squish_gen_free(g);
    return stats.forced_tokens;
}

/* The timeline after an answer with jumps gives the logits of one that was never there. */
static void forced_tokens_are_counted_and_leave_the_same_cache(void **state) {
    (void)state;
    int32_t all[CTX], n;
    const size_t vocab = (size_t)shared.m->cfg.n_vocab;
    float *after = malloc(vocab * sizeof *after);
    squish_error err = {0};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        squish_grammar *g = grammar(i);
        squish_gen_options o = options(0, g);
        memcpy(all, prompt.ids, prompt.count * sizeof *all);
        assert_true(forced_of(&o, all + prompt.count, &n) >= cases[i].forced_min);
        assert_ok(squish_seq_sync(shared.s, all, prompt.count + (size_t)n, &err), &err);
        memcpy(after, squish_seq_logits(shared.s), vocab * sizeof *after);
        squish_seq_truncate(shared.s, 0);
        assert_ok(squish_seq_sync(shared.s, all, prompt.count + (size_t)n, &err), &err);
        assert_memory_equal(after, squish_seq_logits(shared.s), vocab * sizeof *after);
        o.logprobs = 0;
        assert_int_equal(forced_of(&o, all + prompt.count, &n), 0);
        squish_grammar_free(g);
    }
    free(after);
}

static void a_batch_gives_the_answers_of_solo_runs(void **state) {
    (void)state;
    enum { N = 6 };
    static answer alone[N], many[N];
    squish_grammar *g[N];
    squish_job *j[N];
    squish_error err = {0};
    squish_batch *b;
    bell *done = bell_new();
    squish_engine_options eo = squish_engine_options_default();
    eo.ctx_tokens = CTX;
    run x = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &eo);
    squish_seq_free(x.s);
    x.s = NULL;
    squish_batch_options bo = squish_batch_options_default();
    assert_ok(squish_batch_new(&b, x.e, &bo, &err), &err);
    for (int i = 0; i < N; i++) {
        g[i] = grammar((size_t)i % SQ_COUNT(cases));
        const squish_gen_options o = options(i < 3 ? 0.0f : 0.8f, g[i]);
        if (i == 1 || i == 4) squish_grammar_cut_canonically(g[i]);
        answer_alone(shared.s, prompt.ids, prompt.count, &o, &alone[i]);
        squish_job_options jo = squish_job_options_default();
        jo.prompt = prompt.ids;
        jo.n_prompt = prompt.count;
        jo.gen = o;
        jo.wake = bell_ring;
        jo.wake_user = done;
        assert_ok(squish_job_submit(&j[i], b, &jo, &err), &err);
    }
    answers_wait(done, j, many, N);
    squish_batch_free(b); /* answers are kept longer than what made their masks */
    for (int i = 0; i < N; i++) {
        assert_int_equal(many[i].status, SQUISH_OK);
        assert_int_equal(many[i].n, alone[i].n);
        assert_memory_equal(many[i].ids, alone[i].ids, (size_t)many[i].n * sizeof *many[i].ids);
        assert_string_equal(many[i].text, alone[i].text);
        assert_true(many[i].stats.gen.forced_tokens >= cases[(size_t)i % SQ_COUNT(cases)].forced_min);
        squish_job_free(j[i]);
        squish_grammar_free(g[i]);
    }
    run_close(&x);
    bell_free(done);
}

/* ---- text that is forced ----------------------------------------------------------------------- */

/* At a temperature at which a model cuts words anyhow, the tokens are those of the tokenizer. */
static void forced_text_is_cut_as_the_tokenizer_cuts_it(void **state) {
    (void)state;
    static const char text[] = "The weather in Köln is 21 degrees today,\n    and it's \"sunny\" – 東京.";
    squish_grammar *g;
    squish_tokens wanted = {0};
    squish_error err = {0};
    static answer x;
    json_t *tags = json_pack("{s:s, s:s}", "type", "const_string", "value", text);
    char *source = json_dumps(tags, 0);
    assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_TAGS, source, strlen(source), &err), &err);
    assert_ok(squish_tokenize(shared.m, text, strlen(text), 0, &wanted, &err), &err);
    squish_gen_options o = options(2, g);
    answer_alone(shared.s, prompt.ids, prompt.count, &o, &x);
    assert_string_equal(x.text, text);
    assert_true((size_t)x.n > wanted.count); /* without it the model cuts them otherwise */
    squish_grammar_cut_canonically(g);
    for (o.logprobs = -1; o.logprobs < 1; o.logprobs++) {
        answer_alone(shared.s, prompt.ids, prompt.count, &o, &x);
        assert_int_equal(x.status, SQUISH_OK);
        assert_string_equal(x.text, text);
        assert_int_equal(x.n, wanted.count);
        assert_memory_equal(x.ids, wanted.ids, wanted.count * sizeof *wanted.ids);
    }
    o.logprobs = -1;
    int32_t ids[CTX], n;
    assert_true((size_t)forced_of(&o, ids, &n) + 1 + wanted.count / SQ_JUMP_MAX >= wanted.count);
    squish_tokens_free(&wanted);
    squish_grammar_free(g);
    free(source);
    json_decref(tags);
}

/* Where free text follows, a token that reaches into it is the model's to choose: none is cut off by force.
 */
static void where_forced_text_ends_the_model_chooses(void **state) {
    (void)state;
    static const char regex[] = "answer: (1|12|123)( and (on|off)){0,9}!";
    squish_grammar *g;
    squish_error err = {0};
    static answer x, slow;
    assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, regex, strlen(regex), &err), &err);
    squish_grammar_cut_canonically(g);
    for (int i = 0; i < 20; i++) {
        squish_gen_options o = options(2, g);
        o.sampling.seed = i;
        answer_alone(shared.s, prompt.ids, prompt.count, &o, &x);
        assert_int_equal(x.finish, SQUISH_FINISH_STOP);
        assert_memory_equal(x.text, "answer: 1", 9);
        o.logprobs = 0;
        answer_alone(shared.s, prompt.ids, prompt.count, &o, &slow);
        assert_int_equal(slow.status, SQUISH_OK);
        assert_int_equal(x.n, slow.n);
        assert_memory_equal(x.ids, slow.ids, (size_t)x.n * sizeof *x.ids);
    }
    squish_grammar_free(g);
}

/* ---- masks that are late ---------------------------------------------------------------------- */

/* Logits that change from position to position. */
static void noise(float *logits, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) logits[i] = (float)(sq_splitmix64(&seed) >> 40) / (float)(1 << 22);
}

/* An answer from noise: how many tokens were drawn while their mask was late, and before there was one.
 * stuck: while it waits for a mask, another one in front of it is held up. */
static int32_t from_noise(const squish_gen_options *o, sq_masks *w, squish_grammar *stuck, int32_t *ids,
                          int32_t *n, int32_t *blind) {
    const size_t vocab = (size_t)shared.m->cfg.n_vocab;
    float *logits = malloc(vocab * sizeof *logits);
    uint64_t *mask = malloc((vocab + 63) / 64 * sizeof *mask);
    squish_error err = {0};
    squish_gen_event ev = {.finish = SQUISH_FINISH_NONE};
    const squish_alloc alloc = sq_alloc_default();
    sq_answer *a;
    assert_ok(sq_answer_new(&a, shared.m, CTX, o, &alloc, &err), &err);
    for (*n = 0; ev.finish == SQUISH_FINISH_NONE; ids[(*n)++] = ev.id) {
        sq_mask_job in_front = {0};
        noise(logits, vocab, 99 + (uint64_t)*n);
        if (stuck) {
            in_front = (sq_mask_job){.g = stuck->g, .trie = stuck->trie, .mask = mask};
            pthread_mutex_lock(&stuck->g->lock);
            sq_masks_begin(w, &in_front);
        }
        if (w) sq_answer_prepare(a, w);
        const bool late = stuck && *n % 3 != 2;
        if (stuck && !late) pthread_mutex_unlock(&stuck->g->lock);
        assert_ok(sq_answer_next(a, logits, *n, &ev, &err), &err);
        if (late) pthread_mutex_unlock(&stuck->g->lock);
        if (stuck) sq_masks_wait(w, &in_front, -1);
    }
    const int32_t unmasked = sq_answer_unmasked(a);
    *blind = sq_answer_blind(a);
    sq_answer_free(a);
    free(mask);
    free(logits);
    return unmasked;
}

static void masks_that_are_late_or_not_made_change_nothing(void **state) {
    (void)state;
    int32_t ids[CTX], late_ids[CTX], n, n_late, blind;
    squish_error err = {0};
    const squish_alloc alloc = sq_alloc_default();
    squish_grammar *stuck = grammar(0);
    sq_masks *w;
    assert_ok(sq_masks_new(&w, &alloc, &err), &err);
    for (int k = 0; k < 2; k++) {
        squish_grammar *g;
        static const char regex[] = "[^e]{5,300}"; /* about half of all tokens, at every place */
        assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, regex, strlen(regex), &err), &err);
        squish_gen_options o = options(k ? 1.0f : 0.0f, g);
        o.sampling.top_p = 1;
        o.max_tokens = 12;
        assert_int_equal(from_noise(&o, NULL, NULL, ids, &n, &blind), 0);
        assert_int_equal(blind, 0);
        squish_grammar_free(g); /* one that has no masks yet */
        assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, regex, strlen(regex), &err), &err);
        o.grammar = g;
        const int32_t unmasked = from_noise(&o, w, stuck, late_ids, &n_late, &blind);
        assert_true(n > 3);
        assert_int_equal(n, n_late);
        assert_memory_equal(ids, late_ids, (size_t)n * sizeof *ids);
        assert_true(unmasked > 0 && blind > 0);
        squish_grammar_free(g);
    }
    sq_masks_free(w);
    squish_grammar_free(stuck);
}

/* Five guesses, each at a place of its own: their masks and that of the certain token are there without a
 * draw. Guesses that come instead of them, before the masks are made, get theirs; an answer may end
 * meanwhile. */
static void masks_behind_guesses_are_made_beside_the_step(void **state) {
    (void)state;
    enum { GUESSES = 5, PATIENCE = 20000 };
    int32_t ids[CTX], n, blind;
    squish_error err = {0};
    const squish_alloc alloc = sq_alloc_default();
    sq_masks *w;
    assert_ok(sq_masks_new(&w, &alloc, &err), &err);
    static const char regex[] = "[^e]{5,300}";
    for (int k = 0; k < 2; k++) {
        squish_grammar *g;
        assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, regex, strlen(regex), &err), &err);
        squish_gen_options o = options(1, g);
        o.sampling.top_p = 0.9f; /* looks at the mask, so that it has to be there */
        o.max_tokens = 12;
        from_noise(&o, NULL, NULL, ids, &n, &blind);
        assert_true(n > GUESSES);
        squish_grammar_free(g);
        assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, regex, strlen(regex), &err), &err);
        o.grammar = g;
        sq_answer *a;
        sq_gram_stats stats = {.masks = 0};
        assert_ok(sq_answer_new(&a, shared.m, CTX, &o, &alloc, &err), &err);
        assert_int_equal(sq_answer_allows(a, ids, GUESSES), GUESSES);
        if (k) {
            sq_answer_prepare(a, w);
            assert_int_equal(sq_answer_allows(a, ids, GUESSES), GUESSES);
        }
        sq_answer_prepare(a, w);
        for (int i = 0; i < PATIENCE && stats.masks <= GUESSES; i++) {
            usleep(500);
            sq_gram_get_stats(g->g, &stats);
        }
        assert_int_equal(stats.masks, GUESSES + 1);
        sq_answer_free(a);
        squish_grammar_free(g);
    }
    sq_masks_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forced_tokens_are_those_that_would_have_been_drawn),
        cmocka_unit_test(forced_tokens_are_counted_and_leave_the_same_cache),
        cmocka_unit_test(a_batch_gives_the_answers_of_solo_runs),
        cmocka_unit_test(forced_text_is_cut_as_the_tokenizer_cuts_it),
        cmocka_unit_test(where_forced_text_ends_the_model_chooses),
        cmocka_unit_test(masks_that_are_late_or_not_made_change_nothing),
        cmocka_unit_test(masks_behind_guesses_are_made_beside_the_step),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
