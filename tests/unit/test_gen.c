/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gen.c - answers of the shipped model: how they end, what text comes when, and what is refused. */
#include "base/base.h"
#include "support/model_run.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { TEXT_BYTES = 65536, IDS_MAX = 2048, CTX = 1024 };

/* One answer, whole. */
typedef struct {
    char text[TEXT_BYTES];
    size_t bytes;
    int32_t ids[IDS_MAX], n; /* all that were drawn */
    squish_finish finish;
    char reason[300];
    squish_gen_stats stats;
} answer;

static run shared;
static squish_tokens prompt;

static int open_shared(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_error err = {0};
    static const char text[] =
        "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n";
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

static squish_gen_options greedy(void) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = 0;
    o.max_tokens = 60;
    return o;
}

static void take(answer *a, const squish_gen_event *ev) {
    assert_true(ev->text != NULL && strlen(ev->text) == ev->text_bytes);
    assert_true(sq_utf8_valid(ev->text, ev->text_bytes));
    assert_true(a->bytes + ev->text_bytes < TEXT_BYTES && a->n < IDS_MAX);
    memcpy(a->text + a->bytes, ev->text, ev->text_bytes + 1);
    a->bytes += ev->text_bytes;
    if (ev->id >= 0) a->ids[a->n++] = ev->id;
    a->finish = ev->finish;
    if (ev->stop_reason) snprintf(a->reason, sizeof a->reason, "%s", ev->stop_reason);
}

static answer *ask(const squish_gen_options *o) {
    static answer a;
    squish_gen *g = NULL;
    squish_gen_event ev;
    squish_error err = {0};
    memset(&a, 0, sizeof a);
    assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, o, &err), &err);
    do {
        assert_ok(squish_gen_next(g, &ev, &err), &err);
        take(&a, &ev);
    } while (ev.finish == SQUISH_FINISH_NONE);
    assert_int_equal(squish_gen_next(g, &ev, &err), SQUISH_INVALID); /* it is over */
    squish_gen_get_stats(g, &a.stats);
    squish_gen_free(g);
    assert_int_equal(a.stats.completion_tokens, a.n);
    assert_int_equal(a.stats.prompt_tokens, prompt.count);
    return &a;
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void an_end_token_ends_the_answer_and_leaves_no_text(void **state) {
    (void)state;
    const squish_gen_options o = greedy();
    const answer *a = ask(&o);
    assert_int_equal(a->finish, SQUISH_FINISH_STOP);
    assert_true(squish_token_is_eos(shared.m, a->ids[a->n - 1]));
    assert_non_null(strstr(a->text, "Tokyo"));
    assert_null(strstr(a->text, "<|"));
    assert_string_equal(a->reason, "");
}

static void control_tokens_show_where_they_are_asked_for(void **state) {
    (void)state;
    static const char form[] = "{\"type\":\"const_string\",\"value\":\"go <|im_start|>on\"}";
    squish_gen_options o = greedy();
    squish_grammar *g;
    squish_error err = {0};
    assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_TAGS, form, strlen(form), &err), &err);
    o.grammar = g;
    assert_string_equal(ask(&o)->text, "go on");
    o.special_text = true;
    assert_string_equal(ask(&o)->text, "go <|im_start|>on");
    squish_grammar_free(g);
}

static void max_tokens_is_kept_to_the_token(void **state) {
    (void)state;
    static const int32_t limits[] = {0, 1, 2, 5};
    for (size_t i = 0; i < SQ_COUNT(limits); i++) {
        squish_gen_options o = greedy();
        o.max_tokens = limits[i];
        o.ignore_eos = true;
        const answer *a = ask(&o);
        assert_int_equal(a->n, limits[i]);
        assert_int_equal(a->finish, SQUISH_FINISH_LENGTH);
        if (limits[i] == 0) assert_int_equal(a->bytes, 0);
    }
}

static void a_full_context_ends_with_length(void **state) {
    (void)state;
    squish_engine_options eo = squish_engine_options_default();
    squish_gen_options o = greedy();
    eo.ctx_tokens = (int32_t)prompt.count + 6;
    o.max_tokens = -1;
    o.ignore_eos = true;
    const run was = shared;
    shared = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &eo);
    const answer *a = ask(&o);
    assert_int_equal(a->finish, SQUISH_FINISH_LENGTH);
    assert_int_equal(a->n, 7); /* six have places, and the last needs none: it is never evaluated */
    squish_gen *g = NULL;
    squish_error err = {0};
    int32_t long_prompt[200];
    for (size_t i = 0; i < SQ_COUNT(long_prompt); i++) long_prompt[i] = 1;
    assert_int_equal(squish_gen_new(&g, shared.s, long_prompt, SQ_COUNT(long_prompt), &o, &err),
                     SQUISH_INVALID);
    assert_non_null(strstr(err.text, "context_length_exceeded: 200 tokens"));
    assert_null(g);
    run_close(&shared);
    shared = was;
}

static void min_tokens_holds_the_end_back(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    const int32_t short_n = ask(&o)->n;
    o.min_tokens = short_n + 5;
    const answer *a = ask(&o);
    assert_true(a->n > short_n + 4);
    for (int32_t i = 0; i < short_n + 5 && i < a->n; i++)
        assert_true(i >= o.min_tokens || !squish_token_is_eos(shared.m, a->ids[i]));
}

static void ignore_eos_runs_on(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    o.ignore_eos = true;
    const answer *a = ask(&o);
    assert_int_equal(a->n, 60);
    assert_int_equal(a->finish, SQUISH_FINISH_LENGTH);
}

/* ---- stop strings ---------------------------------------------------------------------------- */

static void text_is_cut_before_the_stop_string_or_behind_it(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    char whole[TEXT_BYTES];
    memcpy(whole, ask(&o)->text, sizeof whole);
    const char *at = strstr(whole, "kyo");
    assert_non_null(at);
    const char *stops[] = {"never said", "kyo", "\xe2\x82\xac"};
    o.stop = stops, o.n_stop = 3;
    answer *a = ask(&o);
    assert_int_equal(a->finish, SQUISH_FINISH_STOP);
    assert_string_equal(a->reason, "kyo");
    assert_int_equal(a->bytes, at - whole);
    assert_memory_equal(a->text, whole, a->bytes);
    o.include_stop = true;
    a = ask(&o);
    assert_int_equal(a->bytes, at - whole + 3);
    assert_memory_equal(a->text, whole, a->bytes);
    assert_string_equal(a->reason, "kyo");
}

static void every_cut_of_the_answer_serves_as_a_stop_string(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    static char whole[TEXT_BYTES];
    memcpy(whole, ask(&o)->text, sizeof whole);
    const size_t n = strlen(whole);
    for (size_t from = 0; from < n && from < 30; from += 3)
        for (size_t len = 1; from + len <= n && len < 24; len += 6) {
            char stop[32] = "";
            const char *stops[] = {stop};
            memcpy(stop, whole + from, len);
            if (!sq_utf8_valid(stop, len)) continue;
            o.stop = stops, o.n_stop = 1;
            const answer *a = ask(&o);
            const size_t want = (size_t)(strstr(whole, stop) - whole);
            assert_int_equal(a->finish, SQUISH_FINISH_STOP);
            assert_string_equal(a->reason, stop);
            assert_int_equal(a->bytes, want);
            assert_memory_equal(a->text, whole, want);
        }
}

static void a_stop_string_only_begun_is_handed_out_in_the_end(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    static char whole[TEXT_BYTES];
    memcpy(whole, ask(&o)->text, sizeof whole);
    char stop[256];
    const char *stops[] = {stop};
    snprintf(stop, sizeof stop, "%.120s and then some", whole);
    o.stop = stops, o.n_stop = 1;
    const answer *a = ask(&o);
    assert_string_equal(a->text, whole);
    assert_string_equal(a->reason, "");
}

/* ---- text and ids ---------------------------------------------------------------------------- */

static void streamed_texts_are_the_text_of_the_ids_and_never_split_a_character(void **state) {
    (void)state;
    squish_error err = {0};
    for (int64_t seed = 0; seed < 12; seed++) {
        squish_gen_options o = squish_gen_options_default();
        o.sampling.temperature =
            5.0f; /* nearly every token of the vocabulary, broken characters among them */
        o.sampling.top_p = 1.0f;
        o.sampling.seed = seed;
        o.ignore_eos = true;
        o.max_tokens = 120;
        const answer *a = ask(&o);
        squish_text t;
        assert_ok(squish_detokenize(shared.m, a->ids, (size_t)a->n, false, &t, &err), &err);
        assert_int_equal(t.bytes, a->bytes);
        assert_string_equal(t.data, a->text);
        squish_text_free(&t);
    }
}

static void the_same_seed_gives_the_same_answer(void **state) {
    (void)state;
    squish_gen_options o = squish_gen_options_default();
    o.max_tokens = 40, o.ignore_eos = true;
    o.sampling.temperature = 1.2f, o.sampling.seed = 77;
    static answer first, other;
    first = *ask(&o);
    squish_seq_truncate(shared.s, 0); /* cold this time */
    assert_memory_equal(ask(&o)->ids, first.ids, sizeof first.ids);
    assert_int_equal(first.stats.seed, 77);
    o.sampling.seed = 78;
    other = *ask(&o);
    assert_memory_not_equal(other.ids, first.ids, sizeof first.ids);
    o.sampling.seed = 77, o.sampling.choice = 1;
    assert_memory_not_equal(ask(&o)->ids, first.ids, sizeof first.ids);
    o.sampling.seed = -1, o.sampling.choice = 0;
    other = *ask(&o);
    assert_true(other.stats.seed >= 0);
    o.sampling.seed = other.stats.seed; /* what was drawn is reported and can be used again */
    assert_memory_equal(ask(&o)->ids, other.ids, sizeof other.ids);
}

static void a_second_answer_reuses_the_prompt(void **state) {
    (void)state;
    const squish_gen_options o = greedy();
    squish_seq_truncate(shared.s, 0);
    static answer cold;
    cold = *ask(&o);
    assert_int_equal(cold.stats.reused_tokens, 0);
    const answer *warm = ask(&o);
    assert_int_equal(warm->stats.reused_tokens, prompt.count - 1);
    assert_string_equal(warm->text, cold.text);
}

static void logprobs_are_sorted_and_those_of_the_logits(void **state) {
    (void)state;
    static const int32_t tops[] = {-1, 0, 1, 20};
    for (size_t i = 0; i < SQ_COUNT(tops); i++) {
        squish_gen_options o = greedy();
        squish_gen *g = NULL;
        squish_gen_event ev;
        squish_error err = {0};
        o.logprobs = tops[i];
        assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, &o, &err), &err);
        for (int k = 0; k < 5; k++) {
            assert_ok(squish_gen_next(g, &ev, &err), &err);
            assert_int_equal(ev.n_top, tops[i] > 0 ? tops[i] : 0);
            if (tops[i] < 0)
                assert_true(ev.logprob == 0.0f);
            else
                assert_true(ev.logprob < 0.0f && ev.logprob > -20.0f);
            double sum = 0;
            for (int32_t j = 0; j < ev.n_top; j++) {
                sum += exp((double)ev.top_logprobs[j]);
                if (j > 0) assert_true(ev.top_logprobs[j] <= ev.top_logprobs[j - 1]);
            }
            assert_true(sum < 1.000001);
            if (ev.n_top > 0) { /* greedy takes the first */
                assert_int_equal(ev.top_ids[0], ev.id);
                assert_true(ev.top_logprobs[0] == ev.logprob);
            }
        }
        squish_gen_free(g);
    }
}

/* ---- cancelling ------------------------------------------------------------------------------ */

static void *cancel_soon(void *s) {
    usleep(20000);
    squish_seq_cancel(s);
    return NULL;
}

static void another_thread_stops_an_answer_within_a_step(void **state) {
    (void)state;
    squish_gen_options o = greedy();
    squish_gen *g = NULL;
    squish_gen_event ev;
    squish_error err = {0};
    pthread_t t;
    o.ignore_eos = true, o.max_tokens = -1;
    assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, &o, &err), &err);
    assert_int_equal(pthread_create(&t, NULL, cancel_soon, shared.s), 0);
    squish_status st = SQUISH_OK;
    int32_t n = 0;
    for (ev.finish = SQUISH_FINISH_NONE; st == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE; n++)
        st = squish_gen_next(g, &ev, &err);
    pthread_join(t, NULL);
    assert_int_equal(st, SQUISH_CANCELLED);
    err = (squish_error){0};
    assert_int_equal(squish_gen_next(g, &ev, &err), SQUISH_CANCELLED); /* until it is cleared */
    squish_seq_cancel_clear(shared.s);
    err = (squish_error){0};
    assert_ok(squish_gen_next(g, &ev, &err), &err); /* and then it goes on */
    squish_gen_free(g);
}

/* A token that is there already is still handed out: the first, and with guesses those that were right. */
static void cancel_again_and_again(squish_spec_mode spec) {
    squish_gen_options o = greedy();
    squish_error err = {0};
    squish_gen *g = NULL;
    squish_gen_event ev;
    squish_seq *other = NULL;
    int cancelled = 0;
    o.ignore_eos = true, o.max_tokens = 30, o.spec.mode = spec;
    static answer want;
    want = *ask(&o);
    assert_ok(squish_seq_new(&other, shared.e, &err), &err);
    assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, &o, &err), &err);
    for (int32_t i = 0; i < 30; i++) {
        /* Another timeline takes the engine's logits away, a cancellation comes on top. */
        if (i % 3 == 0) assert_ok(squish_seq_sync(other, prompt.ids, 1 + (size_t)i % 5, &err), &err);
        if (i % 2 == 0) {
            squish_seq_cancel(shared.s);
            err = (squish_error){0};
            const squish_status st = squish_gen_next(g, &ev, &err);
            squish_seq_cancel_clear(shared.s);
            assert_true(st == SQUISH_CANCELLED || (st == SQUISH_OK && (i == 0 || spec != SQUISH_SPEC_OFF)));
            cancelled += st == SQUISH_CANCELLED;
            err = (squish_error){0};
            if (st == SQUISH_OK) assert_int_equal(ev.id, want.ids[i]);
            if (st == SQUISH_OK) continue;
        }
        assert_ok(squish_gen_next(g, &ev, &err), &err);
        assert_int_equal(ev.id, want.ids[i]);
    }
    assert_true(cancelled > 5);
    squish_gen_free(g);
    squish_seq_free(other);
}

static void a_cancelled_answer_goes_on_as_if_nothing_had_been(void **state) {
    (void)state;
    cancel_again_and_again(SQUISH_SPEC_OFF);
    cancel_again_and_again(SQUISH_SPEC_NGRAM);
}

static void a_cancelled_prompt_leaves_a_shorter_timeline(void **state) {
    (void)state;
    squish_error err = {0};
    squish_seq_truncate(shared.s, 0);
    squish_seq_cancel(shared.s);
    assert_int_equal(squish_seq_sync(shared.s, prompt.ids, prompt.count, &err), SQUISH_CANCELLED);
    assert_int_equal(squish_seq_length(shared.s), 0);
    assert_null(squish_seq_logits(shared.s));
    squish_seq_cancel_clear(shared.s);
    err = (squish_error){0};
    assert_ok(squish_seq_sync(shared.s, prompt.ids, prompt.count, &err), &err);
    assert_int_equal(squish_seq_length(shared.s), prompt.count);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void assert_refused(const squish_gen_options *o, const char *words) {
    squish_gen *g = NULL;
    squish_error err = {0};
    assert_int_equal(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, o, &err), SQUISH_INVALID);
    assert_null(g);
    if (!strstr(err.text, words)) fail_msg("'%s', wanted '%s'", err.text, words);
}

static void options_out_of_range_are_refused_by_name(void **state) {
    (void)state;
    static const char *const empty[] = {""}, *const missing[] = {NULL};
    char long_stop[300];
    memset(long_stop, 'x', sizeof long_stop - 1);
    long_stop[sizeof long_stop - 1] = 0;
    const char *const too_long[] = {long_stop};
#define REFUSED(change, words)                                                                               \
    do {                                                                                                     \
        squish_gen_options o = greedy();                                                                     \
        change;                                                                                              \
        assert_refused(&o, words);                                                                           \
    } while (0)
    REFUSED(o.max_tokens = -2, "max_tokens is -2");
    REFUSED(o.min_tokens = -1, "min_tokens is -1");
    REFUSED(o.logprobs = 21, "logprobs is 21");
    REFUSED(o.logprobs = -2, "logprobs is -2");
    REFUSED(o.n_stop = 17, "17 stop strings");
    REFUSED(o.n_stop = -1, "-1 stop strings");
    REFUSED(o.n_stop = 1, "none given");
    REFUSED((o.n_stop = 1, o.stop = empty), "stop[0]: an empty string");
    REFUSED((o.n_stop = 1, o.stop = missing), "stop[0]");
    REFUSED((o.n_stop = 1, o.stop = too_long), "stop[0]: a longer string");
    REFUSED(o.sampling.temperature = 5.5f, "temperature: 5.5");
    REFUSED(o.sampling.temperature = NAN, "temperature: nan");
    REFUSED(o.sampling.top_p = 1.5f, "top_p: 1.5");
    REFUSED(o.sampling.top_k = -5, "top_k: -5");
    REFUSED(o.sampling.n_bias = 1, "n_bias");
#undef REFUSED
}

static void tokens_that_do_not_exist_are_refused(void **state) {
    (void)state;
    static const int32_t bad[] = {1, -1}, large[] = {1, 2, INT32_MAX};
    squish_gen *g = NULL;
    squish_error err = {0};
    assert_int_equal(squish_gen_new(&g, shared.s, bad, 2, NULL, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "token 1 is -1"));
    err = (squish_error){0};
    assert_int_equal(squish_gen_new(&g, shared.s, large, 3, NULL, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "token 2 is 2147483647"));
    err = (squish_error){0};
    assert_int_equal(squish_gen_new(&g, shared.s, bad, 0, NULL, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "no tokens to evaluate");
}

static void engine_options_out_of_range_are_refused_by_name(void **state) {
    (void)state;
#define REFUSED(change, status, words)                                                                       \
    do {                                                                                                     \
        squish_engine_options o = squish_engine_options_default();                                           \
        squish_engine *e = NULL;                                                                             \
        squish_error err = {0};                                                                              \
        change;                                                                                              \
        assert_int_equal(squish_engine_new(&e, shared.m, &o, &err), status);                                 \
        assert_null(e);                                                                                      \
        if (!strstr(err.text, words)) fail_msg("'%s', wanted '%s'", err.text, words);                        \
    } while (0)
    REFUSED(o.threads = -1, SQUISH_INVALID, "threads is -1");
    REFUSED(o.threads = 1025, SQUISH_INVALID, "threads is 1025");
    REFUSED(o.chunk_tokens = 0, SQUISH_INVALID, "chunk is 0 tokens");
    REFUSED(o.chunk_tokens = 2049, SQUISH_INVALID, "chunk is 2049 tokens");
    REFUSED(o.ctx_tokens = -1, SQUISH_INVALID, "ctx is -1 tokens");
    REFUSED(o.ctx_tokens = 1 << 30, SQUISH_INVALID, "ctx is 1073741824 tokens");
    REFUSED(o.isa_max = "sse9", SQUISH_INVALID, "isa 'sse9'");
    REFUSED(o.kv = (squish_kv)7, SQUISH_INVALID, "kv format is 7");
    REFUSED(o.kv_bytes_max = 1, SQUISH_NO_MEMORY, "a larger cache cap is needed");
#undef REFUSED
}

static void a_cap_on_the_cache_shortens_the_context_and_nothing_else(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_mem_estimate full, capped, wished;
    squish_error err = {0};
    assert_ok(squish_engine_estimate(shared.m, &o, &full, &err), &err);
    o.kv_bytes_max = full.kv_bytes / 2;
    assert_ok(squish_engine_estimate(shared.m, &o, &capped, &err), &err);
    assert_true(capped.kv_bytes <= o.kv_bytes_max && capped.kv_bytes > o.kv_bytes_max / 2);
    assert_true(capped.ctx_tokens < full.ctx_tokens && capped.ctx_tokens > 0);
    o.ctx_tokens = 40; /* shorter than any step of the search */
    assert_ok(squish_engine_estimate(shared.m, &o, &wished, &err), &err);
    assert_int_equal(wished.ctx_tokens, 40);
    o.ctx_tokens = full.ctx_tokens;
    assert_int_equal(squish_engine_estimate(shared.m, &o, &wished, &err), SQUISH_NO_MEMORY);
    assert_non_null(strstr(err.text, " fits"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_token_ends_the_answer_and_leaves_no_text),
        cmocka_unit_test(control_tokens_show_where_they_are_asked_for),
        cmocka_unit_test(max_tokens_is_kept_to_the_token),
        cmocka_unit_test(a_full_context_ends_with_length),
        cmocka_unit_test(min_tokens_holds_the_end_back),
        cmocka_unit_test(ignore_eos_runs_on),
        cmocka_unit_test(text_is_cut_before_the_stop_string_or_behind_it),
        cmocka_unit_test(every_cut_of_the_answer_serves_as_a_stop_string),
        cmocka_unit_test(a_stop_string_only_begun_is_handed_out_in_the_end),
        cmocka_unit_test(streamed_texts_are_the_text_of_the_ids_and_never_split_a_character),
        cmocka_unit_test(the_same_seed_gives_the_same_answer),
        cmocka_unit_test(a_second_answer_reuses_the_prompt),
        cmocka_unit_test(logprobs_are_sorted_and_those_of_the_logits),
        cmocka_unit_test(another_thread_stops_an_answer_within_a_step),
        cmocka_unit_test(a_cancelled_answer_goes_on_as_if_nothing_had_been),
        cmocka_unit_test(a_cancelled_prompt_leaves_a_shorter_timeline),
        cmocka_unit_test(options_out_of_range_are_refused_by_name),
        cmocka_unit_test(tokens_that_do_not_exist_are_refused),
        cmocka_unit_test(engine_options_out_of_range_are_refused_by_name),
        cmocka_unit_test(a_cap_on_the_cache_shortens_the_context_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
