/* SPDX-License-Identifier: Apache-2.0
 *
 * test_heads.c - heads that guess: trained on what a model writes, found beside its tiers, and never seen in
 * an answer, whatever their file holds. */
#include "model/model_heads.h"
#include "support/batch_run.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADS = 2 };

static char dir[64], file[96], said[512];
static squish_heads_result made;

static void hear(void *user, const char *line) {
    (void)user;
    if (strstr(line, "heads"))
        snprintf(said, sizeof said, "%s", line); /* and not of layers that are left out */
}

static squish_heads_options few(int32_t threads) {
    squish_heads_options o = squish_heads_options_default();
    o.heads = HEADS;
    o.ids = 64;
    o.tokens = 8192;
    o.steps = 3;
    o.threads = threads;
    o.text = "The first line of a text.\n\nAnd the other one";
    o.text_bytes = strlen(o.text);
    return o;
}

static squish_model *open_with(const char *heads) {
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    o.heads = heads;
    o.warn = hear;
    said[0] = 0;
    assert_ok(squish_model_open(&m, dir, &o, &err), &err);
    return m;
}

static int train_once(void **state) {
    (void)state;
    squish_error err = {0};
    snprintf(dir, sizeof dir, "build/test_heads.%d", (int)getpid());
    assert_int_equal(mkdir(dir, 0755), 0);
    make_shallow("models/squish-tiny", 1, dir);
    snprintf(file, sizeof file, "%s/heads.sqh", dir);
    squish_model *m = open_with("none");
    const squish_heads_options o = few(2);
    assert_ok(squish_train_heads(m, file, &o, &made, &err), &err);
    squish_model_close(m);
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    char line[128];
    snprintf(line, sizeof line, "rm -rf %s", dir);
    return system(line);
}

static size_t slurp(const char *path, uint8_t **out) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    const size_t n = (size_t)ftell(f);
    rewind(f);
    *out = malloc(n);
    assert_int_equal(fread(*out, 1, n, f), n);
    fclose(f);
    return n;
}

static void write_file(const char *path, const uint8_t *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* ---- training -------------------------------------------------------------------------------- */

static void training_says_what_came_of_it_and_threads_do_not_show(void **state) {
    (void)state;
    squish_heads_result r;
    squish_error err = {0};
    uint8_t *a, *b;
    char other[128];
    assert_int_equal(made.heads, HEADS);
    assert_int_equal(made.tokens, 8192);
    assert_true(made.coverage > 0.2f && made.coverage <= 1);
    for (int i = 0; i < HEADS; i++) assert_true(made.agreement[i] > 0 && made.agreement[i] <= 1);
    snprintf(other, sizeof other, "%s/other.sqh", dir);
    squish_model *m = open_with("none");
    const squish_heads_options o = few(1);
    assert_ok(squish_train_heads(m, other, &o, &r, &err), &err);
    const size_t n = slurp(file, &a);
    assert_int_equal(n, made.bytes);
    assert_int_equal(slurp(other, &b), n);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    squish_model_close(m);
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)what, (void)done, (void)total;
    return false;
}

static void what_cannot_be_trained_is_refused_and_nothing_is_left(void **state) {
    (void)state;
    static const struct {
        int32_t heads, ids, tokens, steps, bits;
        const char *says;
    } all[] = {{9, 64, 8192, 1, 4, "heads is 9"},
               {1, 65, 8192, 1, 4, "ids is 65"},
               {1, 64, 8191, 1, 4, "tokens is 8191"},
               {1, 64, 8192, -1, 4, "steps is -1"},
               {1, 64, 8192, 1, 5, "bits is 5"}};
    char other[128];
    snprintf(other, sizeof other, "%s/none.sqh", dir);
    squish_model *m = open_with("none");
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        squish_heads_options o = few(1);
        squish_heads_result r;
        squish_error err = {0};
        o.heads = all[i].heads, o.ids = all[i].ids, o.tokens = all[i].tokens;
        o.steps = all[i].steps, o.bits = all[i].bits;
        assert_int_equal(squish_train_heads(m, other, &o, &r, &err), SQUISH_INVALID);
        assert_non_null(strstr(err.text, all[i].says));
    }
    squish_heads_options o = few(1);
    squish_heads_result r;
    squish_error err = {0};
    o.progress = stop;
    assert_int_equal(squish_train_heads(m, other, &o, &r, &err), SQUISH_CANCELLED);
    assert_int_not_equal(access(other, F_OK), 0);
    squish_model_close(m);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void answer_of(squish_model *m, squish_spec spec, float temperature, answer *out) {
    static const char text[] = "Once there was a king who had three daughters, and";
    squish_engine_options eo = squish_engine_options_default();
    squish_error err = {0};
    squish_engine *e;
    squish_seq *s;
    squish_tokens p;
    eo.ctx_tokens = 256;
    assert_ok(squish_engine_new(&e, m, &eo, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    assert_ok(squish_tokenize(m, text, strlen(text), 0, &p, &err), &err);
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.seed = 5;
    o.max_tokens = 60;
    o.ignore_eos = true;
    o.spec = spec;
    answer_alone(s, p.ids, p.count, &o, out);
    squish_tokens_free(&p);
    squish_seq_free(s);
    squish_engine_free(e);
}

static answer off, on;
static const squish_spec none = {.mode = SQUISH_SPEC_OFF}, heads = {.mode = SQUISH_SPEC_HEADS},
                         always = {.mode = SQUISH_SPEC_HEADS, .guesses = 2}, any = {.mode = SQUISH_SPEC_AUTO},
                         both = {.mode = SQUISH_SPEC_AUTO, .guesses = 2};

/* They lie beside the checkpoint, so they are found. */
static void heads_are_found_and_never_seen_in_an_answer(void **state) {
    (void)state;
    const squish_spec specs[] = {heads, always, any, both};
    squish_model *m = open_with(NULL);
    squish_model_info info;
    squish_model_get_info(m, &info);
    assert_int_equal(info.guess_heads, HEADS);
    assert_string_equal(said, "");
    for (int t = 0; t < 3; t++) {
        const float temperature = (float)t * 0.5f;
        answer_of(m, none, temperature, &off);
        for (size_t k = 0; k < SQ_COUNT(specs); k++) {
            answer_of(m, specs[k], temperature, &on);
            assert_same_answer(&off, &on);
            if (k == 1) assert_true(on.stats.gen.guessed_tokens > 20);
            if (k == 3) assert_true(on.stats.gen.guessed_tokens > 10); /* behind the first steps */
            if (k == 1) assert_true(on.stats.gen.right_tokens > 0);
        }
    }
    squish_model_close(m);
}

static void damage_is_told_in_one_line_and_answers_stay(void **state) {
    (void)state;
    enum { IN_HEADER = 60, IN_WEIGHTS = 5000 };
    static const char *const says[] = {"sum of the header", "sum of the weights", "bytes, wanted",
                                       "not a file of heads", "No such file"};
    uint8_t *bytes;
    char bad[128];
    const size_t n = slurp(file, &bytes);
    snprintf(bad, sizeof bad, "%s/bad.sqh", dir);
    for (size_t k = 0; k < SQ_COUNT(says); k++) {
        const size_t at = k == 0 ? IN_HEADER : IN_WEIGHTS;
        if (k < 2) bytes[at] ^= 1;
        if (k == 3) bytes[0] = 'x';
        if (k < 4)
            write_file(bad, bytes, k == 2 ? n - 1 : n);
        else
            unlink(bad);
        if (k < 2) bytes[at] ^= 1;
        squish_model *m = open_with(bad);
        char at_open[sizeof said];
        snprintf(at_open, sizeof at_open, "%s", said);
        answer_of(m, none, 0.7f, &off);
        assert_string_equal(said, at_open); /* who does not ask for heads hears no more of them */
        answer_of(m, heads, 0.7f, &on);
        assert_same_answer(&off, &on);
        assert_non_null(strstr(k == 1 ? said : at_open, says[k]));
        assert_null(strchr(said, '\n'));
        squish_model_close(m);
    }
    free(bytes);
}

/* Sums are right, and what stands there was never trained. */
static void weights_of_noise_and_of_no_number_change_nothing(void **state) {
    (void)state;
    enum { HEADER = 128 };
    uint8_t *bytes;
    uint64_t noise = 1;
    char bad[128];
    const size_t n = slurp(file, &bytes);
    snprintf(bad, sizeof bad, "%s/noise.sqh", dir);
    for (int k = 0; k < 2; k++) {
        uint32_t w[8];
        memcpy(w, bytes + 8, sizeof w);
        sq_heads_head h = {.n = (int32_t)w[1],
                           .hidden = (int32_t)w[2],
                           .n_ids = (int32_t)w[3],
                           .n_vocab = (int32_t)w[4],
                           .type = (sq_wtype)w[5],
                           .embed_scale = 1};
        memcpy(&h.model, bytes + 40, sizeof h.model);
        sq_heads_layout l;
        assert_int_equal(sq_heads_layout_of(&h, &l, NULL), SQUISH_OK);
        for (size_t i = l.in_bias[0]; i < n; i++) bytes[i] = k ? 0xff : (uint8_t)sq_splitmix64(&noise);
        sq_heads_write_header(&h, &l, bytes);
        write_file(bad, bytes, n);
        squish_model *m = open_with(bad);
        for (int t = 0; t < 2; t++) {
            answer_of(m, none, (float)t, &off);
            answer_of(m, always, (float)t, &on);
            assert_same_answer(&off, &on);
        }
        assert_string_equal(said, "");
        squish_model_close(m);
    }
    free(bytes);
}

static void heads_of_another_model_and_none_at_all_are_told(void **state) {
    (void)state;
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    o.heads = file;
    o.warn = hear;
    assert_ok(squish_model_open(&m, "models/squish-tiny", &o, &err), &err);
    assert_non_null(strstr(said, "heads of another model"));
    squish_model_close(m);
    m = open_with("none");
    assert_string_equal(said, "");
    answer_of(m, none, 0, &off);
    answer_of(m, heads, 0, &on);
    assert_same_answer(&off, &on);
    assert_non_null(strstr(said, "the model has no heads"));
    squish_model_close(m);
}

/* ---- among others ---------------------------------------------------------------------------- */

static void answers_of_a_batch_are_those_alone_without_guesses(void **state) {
    (void)state;
    enum { JOBS = 6 };
    static answer alone[JOBS], many[JOBS];
    squish_model *m = open_with(NULL);
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    squish_engine *e;
    squish_batch *b;
    squish_seq *s;
    squish_error err = {0};
    squish_job *jobs[JOBS];
    squish_tokens p;
    squish_gen_options o[JOBS];
    bell *ring = bell_new();
    eo.ctx_tokens = 128;
    assert_ok(squish_tokenize(m, "It was a dark night, and", 24, 0, &p, &err), &err);
    assert_ok(squish_engine_new(&e, m, &eo, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    for (int i = 0; i < JOBS; i++) {
        o[i] = squish_gen_options_default();
        o[i].sampling.temperature = i % 2 ? 0.8f : 0;
        o[i].sampling.seed = i;
        o[i].max_tokens = 50;
        o[i].ignore_eos = true;
        o[i].spec = none;
        answer_alone(s, p.ids, p.count, &o[i], &alone[i]);
    }
    squish_seq_free(s);
    squish_engine_free(e);
    eo.kv_bytes_max = 1u << 20; /* some give way */
    bo.jobs_max = 3;
    assert_ok(squish_engine_new(&e, m, &eo, &err), &err);
    assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
    for (int i = 0; i < JOBS; i++) {
        squish_job_options jo = squish_job_options_default();
        jo.prompt = p.ids;
        jo.n_prompt = p.count;
        jo.gen = o[i];
        jo.gen.spec = i % 3 == 2 ? any : always;
        jo.wake = bell_ring;
        jo.wake_user = ring;
        assert_ok(squish_job_submit(&jobs[i], b, &jo, &err), &err);
    }
    answers_wait(ring, jobs, many, JOBS);
    int32_t guessed = 0;
    for (int i = 0; i < JOBS; i++) {
        assert_same_answer(&alone[i], &many[i]);
        guessed += many[i].stats.gen.guessed_tokens;
        squish_job_free(jobs[i]);
    }
    assert_true(guessed > 0);
    squish_batch_free(b);
    squish_engine_free(e);
    squish_tokens_free(&p);
    bell_free(ring);
    squish_model_close(m);
}

int main(void) {

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_says_what_came_of_it_and_threads_do_not_show),
        cmocka_unit_test(what_cannot_be_trained_is_refused_and_nothing_is_left),
        cmocka_unit_test(heads_are_found_and_never_seen_in_an_answer),
        cmocka_unit_test(damage_is_told_in_one_line_and_answers_stay),
        cmocka_unit_test(weights_of_noise_and_of_no_number_change_nothing),
        cmocka_unit_test(heads_of_another_model_and_none_at_all_are_told),
        cmocka_unit_test(answers_of_a_batch_are_those_alone_without_guesses),
    };
    return cmocka_run_group_tests(tests, train_once, remove_all);
}
