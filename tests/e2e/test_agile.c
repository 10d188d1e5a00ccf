/* SPDX-License-Identifier: Apache-2.0
 *
 * test_agile.c - weights that do not fit the memory given: streamed, they give the same bits as mapped ones,
 * dense and with experts, alone and in a batch, with compressed caches, guesses and grammars; what cannot be
 * streamed or does not fit even so is refused; a file that changes is an error and never an answer. */
#include "support/api_run.h"
#include "support/batch_run.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOKENS = 150, CTX = 512 };

static char dense[128]; /* .sqw of the shipped dense model */
static char dense_dir[64];
static char moe[128]; /* a link to the shipped one with experts: files beside it are beside the link */

static int build(void **state) {
    (void)state;
    run x = run_compressed("models/squish-tiny", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    snprintf(dense, sizeof dense, "%s", info.path);
    snprintf(dense_dir, sizeof dense_dir, "%s", x.dir);
    x.dir[0] = 0; /* keep it */
    run_close(&x);
    snprintf(moe, sizeof moe, "%s/moe.sqw", dense_dir);
    char *whole = realpath("models/squish-tiny-moe/squish_q8/model.sqw", NULL);
    const int linked = whole ? symlink(whole, moe) : -1;
    free(whole);
    return linked;
}

static int drop(void **state) {
    (void)state;
    remove_tree(dense_dir);
    return 0;
}

/* ---- engines --------------------------------------------------------------------------------- */

static squish_engine_options options(void) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = CTX;
    o.chunk_tokens = 48;
    return o;
}

static run open_streamed(const char *path, double share, squish_engine_options o) {
    run_limit(path, share, &o);
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    assert_true(run_agile(&x).on);
    assert_true(run_agile(&x).budget_bytes <= o.memory_limit);
    return x;
}

/* ---- logits ---------------------------------------------------------------------------------- */

typedef struct {
    const float *wanted; /* NULL: keep what comes */
    float *kept;
    int32_t n_vocab, different;
} rows;

static bool one_row(void *user, int32_t position, const float *logits) {
    rows *r = user;
    const size_t n = (size_t)r->n_vocab, at = (size_t)position * n;
    if (!r->wanted)
        memcpy(r->kept + at, logits, n * sizeof *logits);
    else
        r->different += memcmp(r->wanted + at, logits, n * sizeof *logits) != 0;
    return true;
}

static void score(run *x, const squish_tokens *t, rows *r) {
    squish_error err = {0};
    assert_ok(squish_seq_score(x->s, t->ids, TOKENS, 0, one_row, r, &err), &err);
}

/* All logits of a text, mapped and streamed, twice: the second pass finds other units in memory. */
static void compare_logits(const char *path, double share, squish_engine_options o) {
    run a = run_open(path, SQUISH_TIER_AUTO, &o), b = open_streamed(path, share, o);
    squish_model_info info;
    squish_model_get_info(a.m, &info);
    squish_tokens t = run_tokens(&a, "tests/fixtures/own-prose.txt");
    assert_true(t.count >= TOKENS);
    rows r = {.kept = malloc((size_t)TOKENS * (size_t)info.n_vocab * sizeof(float)), .n_vocab = info.n_vocab};
    score(&a, &t, &r);
    r.wanted = r.kept;
    score(&b, &t, &r);
    score(&b, &t, &r);
    assert_int_equal(r.different, 0);
    assert_true(run_agile(&b).bytes_read > 0);
    assert_int_equal(run_agile(&b).failures, 0);
    free(r.kept);
    squish_tokens_free(&t);
    run_close(&a);
    run_close(&b);
}

static void logits_of_streamed_dense_weights_have_the_same_bits(void **state) {
    (void)state;
    compare_logits(dense, 0.85, options());
    squish_engine_options o = options();
    o.agile.backend = "pread";
    compare_logits(dense, 0.75, o);
    o.agile.on_demand = true;
    compare_logits(dense, 0.75, o);
}

static void logits_of_streamed_experts_have_the_same_bits(void **state) {
    (void)state;
    compare_logits(moe, 0.8, options());
    squish_engine_options o = options();
    o.agile.backend = "pread";
    compare_logits(moe, 0.6, o);
    o.agile.on_demand = true;
    compare_logits(moe, 0.6, o);
}

static void caches_of_fewer_bits_do_not_notice(void **state) {
    (void)state;
    squish_engine_options o = options();
    o.kv = SQUISH_KV_Q4;
    compare_logits(dense, 0.75, o);
    o.kv = SQUISH_KV_F16;
    o.attention.sage = true;
    compare_logits(dense, 0.75, o);
}

/* ---- answers --------------------------------------------------------------------------------- */

static const char *const prompts[] = {
    "Once upon a time there was a small", "The dog and the cat",
    "Tom said:", "One day, a little girl named Lily went to the park with her mother"};

static squish_tokens prompt_of(const run *x, size_t i) {
    squish_tokens t;
    squish_error err = {0};
    assert_ok(squish_tokenize(x->m, prompts[i], strlen(prompts[i]), 0, &t, &err), &err);
    return t;
}

static squish_gen_options answers(float temperature) {
    squish_gen_options g = squish_gen_options_default();
    g.sampling.temperature = temperature;
    g.sampling.seed = 11;
    g.max_tokens = 40;
    g.ignore_eos = true;
    g.logprobs = 3;
    return g;
}

static void compare_answers(const char *path, double share) {
    static answer wanted, got;
    const squish_engine_options o = options();
    run a = run_open(path, SQUISH_TIER_AUTO, &o), b = open_streamed(path, share, o);
    for (size_t i = 0; i < SQ_COUNT(prompts); i++) {
        squish_tokens t = prompt_of(&a, i);
        squish_gen_options g = answers(i % 2 ? 0.8f : 0.0f);
        squish_grammar *grammar[2] = {0};
        squish_error err = {0};
        static const char regex[] = "[A-Z][a-z ,]{10,60}\\.";
        g.spec.mode = i == 1 ? SQUISH_SPEC_NGRAM : SQUISH_SPEC_OFF;
        for (int k = 0; i == 2 && k < 2; k++)
            assert_ok(squish_grammar_new(&grammar[k], k ? b.m : a.m, SQUISH_GRAMMAR_REGEX, regex,
                                         sizeof regex - 1, &err),
                      &err);
        g.ignore_eos = i != 2;
        g.grammar = grammar[0];
        answer_alone(a.s, t.ids, t.count, &g, &wanted);
        g.grammar = grammar[1];
        answer_alone(b.s, t.ids, t.count, &g, &got);
        assert_same_answer(&wanted, &got);
        squish_grammar_free(grammar[0]);
        squish_grammar_free(grammar[1]);
        squish_tokens_free(&t);
    }
    run_close(&a);
    run_close(&b);
}

static void answers_of_streamed_weights_are_the_same(void **state) {
    (void)state;
    compare_answers(dense, 0.75);
    compare_answers(moe, 0.6);
}

static void answers_in_a_batch_are_the_same(void **state) {
    (void)state;
    static answer wanted[SQ_COUNT(prompts)], got[SQ_COUNT(prompts)];
    const char *const paths[] = {dense, moe};
    for (size_t p = 0; p < SQ_COUNT(paths); p++) {
        squish_engine_options o = options();
        squish_error err = {0};
        run a = run_open(paths[p], SQUISH_TIER_AUTO, &o), b = open_streamed(paths[p], p ? 0.6 : 0.75, o);
        squish_seq_free(b.s);
        b.s = NULL;
        squish_batch *batch;
        squish_batch_options bo = squish_batch_options_default();
        squish_job *jobs[SQ_COUNT(prompts)];
        bo.jobs_max = 3;
        assert_ok(squish_batch_new(&batch, b.e, &bo, &err), &err);
        bell *rings = bell_new();
        for (size_t i = 0; i < SQ_COUNT(prompts); i++) {
            squish_tokens t = prompt_of(&a, i);
            squish_job_options jo = squish_job_options_default();
            jo.prompt = t.ids;
            jo.n_prompt = t.count;
            jo.gen = answers(0.8f);
            jo.wake = bell_ring;
            jo.wake_user = rings;
            answer_alone(a.s, t.ids, t.count, &jo.gen, &wanted[i]);
            assert_ok(squish_job_submit(&jobs[i], batch, &jo, &err), &err);
            squish_tokens_free(&t);
        }
        answers_wait(rings, jobs, got, (int32_t)SQ_COUNT(prompts));
        for (size_t i = 0; i < SQ_COUNT(prompts); i++) {
            assert_same_answer(&wanted[i], &got[i]);
            squish_job_free(jobs[i]);
        }
        assert_true(run_agile(&b).bytes_read > 0);
        squish_batch_free(batch);
        bell_free(rings);
        run_close(&a);
        run_close(&b);
    }
}

/* ---- decisions ------------------------------------------------------------------------------- */

static void weights_that_fit_are_mapped_and_the_engine_says_so(void **state) {
    (void)state;
    squish_engine_options o = options();
    o.agile.on = true;
    run x = run_open(dense, SQUISH_TIER_AUTO, &o);
    assert_false(run_agile(&x).on);
    assert_string_equal(run_agile(&x).why, "weights fit: mapped");
    run_close(&x);
    o.agile.on = false;
    x = run_open(dense, SQUISH_TIER_AUTO, &o);
    assert_string_equal(run_agile(&x).why, "");
    run_close(&x);
}

static void too_little_even_so_is_refused_with_the_number(void **state) {
    (void)state;
    squish_engine_options o = options();
    squish_model *m;
    squish_engine *e;
    squish_error err = {0}, plain = {0};
    run_limit(dense, 0.1, &o);
    assert_ok(squish_model_open(&m, dense, NULL, &err), &err);
    assert_int_equal(squish_engine_new(&e, m, &o, &err), SQUISH_NO_MEMORY);
    assert_non_null(strstr(err.text, "even when weights are streamed"));
    o.agile.on = false;
    assert_int_equal(squish_engine_new(&e, m, &o, &plain), SQUISH_NO_MEMORY);
    assert_null(strstr(plain.text, "streamed"));
    o = options();
    run_limit(dense, 0.75, &o);
    o.agile.backend = "tape";
    assert_int_equal(squish_engine_new(&e, m, &o, &(squish_error){0}), SQUISH_INVALID);
    squish_model_close(m);
}

static void other_files_than_containers_are_refused(void **state) {
    (void)state;
    squish_engine_options o = options();
    squish_model *m;
    squish_engine *e;
    squish_error err = {0};
    const squish_model_options mo = {.tier = SQUISH_TIER_SOURCE};
    assert_ok(squish_model_open(&m, "models/squish-tiny", &mo, &err), &err);
    o.agile.on = true;
    o.memory_limit = 40 << 20;
    o.ctx_tokens = 256;
    assert_int_equal(squish_engine_new(&e, m, &o, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "only weights in a .sqw file can be streamed"));
    squish_model_close(m);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void copy_file(const char *from, const char *to) {
    static char block[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in && out);
    for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;)
        assert_int_equal(fwrite(block, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

/* Change one byte in the middle: it is in some layer. */
static void spoil(const char *path) {
    struct stat st;
    uint8_t byte;
    const int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    assert_int_equal(pread(fd, &byte, 1, st.st_size / 2), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, st.st_size / 2), 1);
    close(fd);
}

static void a_file_that_somebody_writes_to_ends_answers(void **state) {
    (void)state;
    char path[96];
    squish_error err = {0};
    snprintf(path, sizeof path, "%s/changing.sqw", dense_dir);
    copy_file(dense, path);
    run x = open_streamed(path, 0.75, options());
    squish_tokens t = prompt_of(&x, 0);
    assert_ok(squish_seq_sync(x.s, t.ids, t.count, &err), &err);
    spoil(path);
    int32_t longer[64];
    memcpy(longer, t.ids, t.count * sizeof *longer);
    longer[t.count] = 7;
    assert_int_equal(squish_seq_sync(x.s, longer, t.count + 1, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "somebody wrote to it"));
    assert_null(strchr(err.text, '\n'));
    assert_null(squish_seq_logits(x.s));
    assert_true(squish_seq_length(x.s) <= (int32_t)t.count); /* a valid, shorter one */
    squish_tokens_free(&t);
    run_close(&x);
    unlink(path);
}

static void damage_is_found_when_a_unit_is_first_read(void **state) {
    (void)state;
    char path[96];
    squish_error err = {0};
    squish_engine_options o = options();
    snprintf(path, sizeof path, "%s/spoilt.sqw", dense_dir);
    copy_file(dense, path);
    spoil(path);
    run x = open_streamed(path, 0.75, o);
    squish_tokens t = prompt_of(&x, 0);
    assert_int_equal(squish_seq_sync(x.s, t.ids, t.count, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "checksum"));
    squish_seq_free(x.s);
    x.s = NULL;
    squish_batch *b;
    squish_job *j;
    static answer got;
    bell *rings = bell_new();
    squish_job_options jo = squish_job_options_default();
    jo.prompt = t.ids;
    jo.n_prompt = t.count;
    jo.gen = answers(0);
    jo.wake = bell_ring;
    jo.wake_user = rings;
    err = (squish_error){0};
    assert_ok(squish_batch_new(&b, x.e, NULL, &err), &err);
    for (int i = 0; i < 2; i++) { /* the batch goes on */
        assert_ok(squish_job_submit(&j, b, &jo, &err), &err);
        answers_wait(rings, &j, &got, 1);
        assert_int_equal(got.status, SQUISH_CORRUPT);
        assert_non_null(strstr(got.error, "checksum"));
        squish_job_free(j);
    }
    squish_batch_free(b);
    bell_free(rings);
    squish_tokens_free(&t);
    run_close(&x);
    unlink(path);
}

/* ---- the server ------------------------------------------------------------------------------ */

static const char ask_text[] = "{\"max_tokens\":24,\"temperature\":0.8,\"seed\":5,\"logprobs\":true,"
                               "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story\"}]}";

/* The answer of a server whose model has that share of its memory; 0: all it wants. */
static json_t *served(const char *path, double share) {
    api_server s;
    sq_api_options o = api_options(&s);
    squish_engine_options eo = options();
    s.model.path = path;
    o.tier = SQUISH_TIER_AUTO;
    o.ctx_tokens = CTX;
    o.parallel = 2;
    eo.chunk_tokens = squish_engine_options_default().chunk_tokens;
    if (share > 0) run_limit(path, share, &eo);
    o.memory_limit = eo.memory_limit;
    o.agile = true;
    assert_int_equal(api_start(&s, &o), 0);
    json_t *a = NULL;
    for (int i = 0; i < 2; i++) {
        json_decref(a);
        a = ask_json(&s, "POST", "/v1/chat/completions", ask_text, 200);
    }
    const api_reply *m = ask(&s, "GET", "/metrics", NULL);
    const char *bytes = strstr(m->body, "squish_agile_read_bytes_total{");
    assert_non_null(bytes);
    assert_int_equal(strtod(strchr(bytes, ' '), NULL) > 0, share > 0);
    api_end(&s);
    return a;
}

static void a_server_answers_the_same(void **state) {
    (void)state;
    json_t *a = served(dense, 0), *b = served(dense, 0.8);
    assert_true(json_equal(at(a, "choices[0]"), at(b, "choices[0]")));
    assert_true(strlen(text_at(a, "choices[0].message.content")) > 0);
    json_decref(a);
    json_decref(b);
}

/* Pieces of a prompt choose nearly all experts, again and again: what does not fit is read for each, and
 * what fits is not. */
static void pieces_of_a_prompt_read_what_does_not_fit(void **state) {
    (void)state;
    enum { PIECES = 4, PIECE = 120 };
    squish_engine_options o = options();
    o.agile.lookahead = SQUISH_LOOKAHEAD_OFF;
    o.agile.cold = true;
    o.chunk_tokens = PIECE;
    run x = open_streamed(moe, 0.7, o);
    int32_t ids[PIECES * PIECE];
    squish_error err = {0};
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    for (int i = 0; i < PIECES * PIECE; i++) ids[i] = (i * i * 7 + 11 * i + 5) % info.n_vocab_tokens;
    assert_ok(squish_seq_sync(x.s, ids, PIECE, &err), &err);
    const squish_agile_info a = run_agile(&x);
    assert_ok(squish_seq_sync(x.s, ids, PIECES * PIECE, &err), &err);
    const squish_agile_info b = run_agile(&x);
    const double piece = (double)(b.bytes_read - a.bytes_read) / (PIECES - 1);
    const double rest = (double)a.bytes_read - (double)a.pinned_bytes; /* of the first: all experts */
    const double fits = (double)(a.budget_bytes - a.pinned_bytes);
    printf("%.1f MB a piece, %.1f MB of experts, %.1f MB fit\n", piece / 1e6, rest / 1e6, fits / 1e6);
    assert_true(piece <= 1.4 * (rest - fits));
    run_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_of_streamed_dense_weights_have_the_same_bits),
        cmocka_unit_test(logits_of_streamed_experts_have_the_same_bits),
        cmocka_unit_test(caches_of_fewer_bits_do_not_notice),
        cmocka_unit_test(answers_of_streamed_weights_are_the_same),
        cmocka_unit_test(answers_in_a_batch_are_the_same),
        cmocka_unit_test(weights_that_fit_are_mapped_and_the_engine_says_so),
        cmocka_unit_test(too_little_even_so_is_refused_with_the_number),
        cmocka_unit_test(other_files_than_containers_are_refused),
        cmocka_unit_test(a_server_answers_the_same),
        cmocka_unit_test(a_file_that_somebody_writes_to_ends_answers),
        cmocka_unit_test(damage_is_found_when_a_unit_is_first_read),
        cmocka_unit_test(pieces_of_a_prompt_read_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, build, drop);
}
