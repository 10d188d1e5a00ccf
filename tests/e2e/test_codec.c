/* SPDX-License-Identifier: Apache-2.0
 *
 * test_codec.c - codebooks of a cache, from calibration to answers behind prefixes that came back from codes
 * after a restart; and what is refused at start. The model has three layers of the shipped one: what it says
 * is nonsense, so whether its books pass is not asked of it; where a test wants them to, it writes so into
 * their file. */
#include "lib/lib_codec.h"
#include "sched/sched.h"
#include "support/batch_run.h"

#include <math.h>
#include <stdio.h>

enum { TEXT = 16000, PROMPT = 1510, BACK = 1280, SAID = 24 };

static run base;
static squish_tokens prose;
static char *text; /* without paragraphs: no pass keys are asked for */
static char path[1024];
static sq_buf file; /* of the books as calibration made them */
static squish_codec_result made;
static char lines[4096];
static bell *ring;

static void warn(void *user, const char *line) {
    (void)user;
    const size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, "%s\n", line);
}

static squish_calibrate_options few(int32_t threads) {
    squish_calibrate_options o = squish_calibrate_options_default();
    o.text = text;
    o.text_bytes = strlen(text);
    o.tokens_max = 1200;
    o.threads = threads;
    return o;
}

static sq_codec *parse(void) {
    sq_codec *c;
    squish_error err = {0};
    const sq_span whole = {(const uint8_t *)file.data, file.len};
    assert_ok(sq_codec_parse(&c, whole, &base.m->alloc, &err), &err);
    return c;
}

/* Put books where engines look for them; c is freed. */
static void publish(sq_codec *c) {
    sq_buf b;
    squish_error err = {0};
    sq_buf_init(&b, &base.m->alloc, 1 << 26);
    assert_ok(sq_codec_file(c, &b, &err), &err);
    assert_ok(sq_codec_publish(&b, path, &err), &err);
    sq_buf_deinit(&b);
    sq_codec_free(c);
}

static void publish_passed(void) {
    sq_codec *c = parse();
    c->info.gate.kl = 0.01;
    c->info.gate.prefill_us = 100;
    c->info.gate.decode_us = 1;
    publish(c);
}

/* A batch with codes in dir; its status. */
static squish_status batch(squish_engine **e, squish_batch **b, const squish_engine_options *eo,
                           const char *dir, squish_error *err) {
    squish_batch_options bo = squish_batch_options_default();
    bo.snapshot_dir = dir;
    bo.snapshot_codec = true;
    bo.warn = warn;
    assert_ok(squish_engine_new(e, base.m, eo, err), err);
    return squish_batch_new(b, *e, &bo, err);
}

static squish_engine_options usual(void) {
    squish_engine_options eo = squish_engine_options_default();
    eo.threads = 2;
    eo.ctx_tokens = 2048;
    return eo;
}

static void refused(const squish_engine_options *eo, squish_status wanted, const char *says) {
    char dir[] = "/tmp/squish-test-XXXXXX";
    squish_engine *e;
    squish_batch *b = NULL;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_int_equal(batch(&e, &b, eo, dir, &err), wanted);
    if (!strstr(err.text, says)) fail_msg("'%s' does not say '%s'", err.text, says);
    assert_null(strchr(err.text, '\n'));
    squish_engine_free(e);
    remove_tree(dir);
}

/* ---- calibration ----------------------------------------------------------------------------- */

static void calibration_says_what_it_made(void **state) {
    (void)state;
    sq_codec *c = parse();
    assert_string_equal(made.file.file, path);
    assert_int_equal(made.file.bytes, file.len);
    assert_int_equal(made.file.tokens, 1200);
    assert_int_equal(made.prefix, 2048);
    assert_int_equal(made.continued, 200);
    assert_int_equal(made.stretches, 1);
    assert_int_equal(made.trials, 0);
    assert_true(made.kl > 0 && isfinite(made.kl) && made.kl == c->info.gate.kl);
    assert_true(made.encode_us > 0 && made.decode_us > 0 && made.prefill_us > 0 && made.restore_us > 0);
    assert_true(made.bytes_token_f16 > 7 * made.bytes_token);
    assert_int_equal(made.passed, sq_codec_gate_check(&c->info.gate, NULL) == SQUISH_OK);
    sq_codec_free(c);
}

/* Everything but times is the same for any number of threads. */
static void books_do_not_depend_on_threads(void **state) {
    (void)state;
    char other[1100];
    squish_codec_result r;
    squish_error err = {0};
    sq_map map;
    const squish_calibrate_options o = few(1);
    snprintf(other, sizeof other, "%s.one", path);
    assert_ok(squish_calibrate_codec(base.m, other, &o, &r, &err), &err);
    assert_true(r.kl == made.kl);
    assert_ok(sq_os_map_open(&map, other, &err), &err);
    assert_int_equal(map.bytes, file.len);
    assert_memory_equal(map.data, file.data, 72);
    assert_memory_equal((const char *)map.data + 80, file.data + 80, 40);
    assert_memory_equal((const char *)map.data + 128, file.data + 128, file.len - 128);
    sq_os_map_close(&map);
}

static void texts_that_are_too_short_are_refused(void **state) {
    (void)state;
    squish_codec_result r;
    squish_error err = {0};
    squish_calibrate_options o = few(2);
    o.text_bytes = 4000;
    assert_int_equal(squish_calibrate_codec(base.m, NULL, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "1024 to be made and 2249 to be measured"));
    o = few(2);
    o.tokens_max = 100;
    err = (squish_error){0};
    assert_int_equal(squish_calibrate_codec(base.m, NULL, &o, &r, &err), SQUISH_INVALID);
}

/* ---- a restart ------------------------------------------------------------------------------- */

static answer first, again;

static void ask(squish_batch *b, answer *out) {
    squish_job_options o = squish_job_options_default();
    squish_error err = {0};
    squish_job *j;
    o.prompt = prose.ids;
    o.n_prompt = PROMPT;
    o.gen.sampling.temperature = 0;
    o.gen.max_tokens = SAID;
    o.gen.ignore_eos = true;
    o.wake = bell_ring;
    o.wake_user = ring;
    memset(out, 0, sizeof *out);
    assert_ok(squish_job_submit(&j, b, &o, &err), &err);
    answers_wait(ring, &j, out, 1);
    squish_job_get_stats(j, &out->stats);
    squish_job_free(j);
    assert_int_equal(out->status, SQUISH_OK);
    assert_int_equal(out->n, SAID);
}

static void a_prefix_comes_back_from_codes_after_a_restart(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    squish_engine *e;
    squish_batch *b;
    squish_batch_stats s;
    squish_error err = {0};
    const squish_engine_options eo = usual();
    assert_non_null(mkdtemp(dir));
    publish_passed();
    lines[0] = 0;
    assert_ok(batch(&e, &b, &eo, dir, &err), &err);
    assert_non_null(strstr(lines, "are kept as codes: answers behind restored ones differ (KL 0.0100"));
    ask(b, &first);
    assert_false(first.stats.behind_codes);
    ask(b, &again); /* of memory, as it was computed */
    assert_false(again.stats.behind_codes);
    assert_memory_equal(first.ids, again.ids, SAID * sizeof *first.ids);
    squish_batch_free(b);
    squish_engine_free(e);
    assert_non_null(strstr(lines, "archived "));
    assert_non_null(strstr(lines, "with the codebooks"));
    for (int i = 0; i < 2; i++) { /* what comes back is the same each time */
        assert_ok(batch(&e, &b, &eo, dir, &err), &err);
        ask(b, i ? &again : &first);
        assert_true((i ? &again : &first)->stats.behind_codes);
        assert_int_equal((i ? &again : &first)->stats.gen.reused_tokens, BACK);
        squish_batch_get_stats(b, &s);
        assert_int_equal(s.snapshot_hits, 2);
        squish_batch_free(b);
        squish_engine_free(e);
    }
    assert_memory_equal(first.ids, again.ids, SAID * sizeof *first.ids);
    remove_tree(dir);
}

/* A server without codes shares the folder and reads none of them. */
static void exact_servers_read_no_codes(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    const squish_engine_options eo = usual();
    assert_non_null(mkdtemp(dir));
    publish_passed();
    assert_ok(batch(&e, &b, &eo, dir, &err), &err);
    ask(b, &first);
    squish_batch_free(b);
    squish_engine_free(e);
    squish_batch_options bo = squish_batch_options_default();
    bo.snapshot_dir = dir;
    assert_ok(squish_engine_new(&e, base.m, &eo, &err), &err);
    assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
    ask(b, &again);
    assert_int_equal(again.stats.gen.reused_tokens, 0);
    assert_false(again.stats.behind_codes);
    assert_memory_equal(first.ids, again.ids, SAID * sizeof *first.ids);
    squish_batch_free(b);
    squish_engine_free(e);
    remove_tree(dir);
}

/* ---- what is refused at start ---------------------------------------------------------------- */

/* Books that stand for nothing: measured, found out, and refused. */
static void sabotaged_books_fail_their_gate(void **state) {
    (void)state;
    squish_error err = {0};
    const squish_engine_options eo = usual();
    sq_codec *c = parse();
    const size_t n = (size_t)c->n_parts * SQ_CODEC_STAGES * (size_t)c->subs * SQ_PQ_ROWS * SQ_PQ_DIMS;
    for (size_t i = 0; i < n; i++) c->rows[i] = (i / SQ_PQ_DIMS) % 2 ? 0.25f : -0.25f;
    sq_model_codec_turns(base.m, &c->turns);
    const sq_codec_measuring o = {
        .m = base.m, .ids = prose.ids, .prefix = 2048, .stretches = 1, .text = "", .threads = 2};
    assert_ok(sq_codec_measure(&o, c, &err), &err);
    assert_true(c->info.gate.kl > SQ_CODEC_KL_MAX && c->info.gate.kl > made.kl);
    publish(c);
    refused(&eo, SQUISH_QUALITY, "codebooks refused: 200 tokens behind 2048 from codes have a KL of");
}

static void other_models_and_damage_are_refused(void **state) {
    (void)state;
    squish_error err = {0};
    const squish_engine_options eo = usual();
    sq_codec *c = parse();
    c->info.gate.kl = 0.01;
    c->info.identity ^= 1;
    publish(c);
    refused(&eo, SQUISH_INVALID, "codebooks of another model");
    sq_buf cut = file;
    cut.len -= 2;
    assert_ok(sq_codec_publish(&cut, path, &err), &err);
    refused(&eo, SQUISH_CORRUPT, ".codec: codebooks: file size");
    assert_int_equal(remove(path), 0);
    refused(&eo, SQUISH_NOT_FOUND, "squish calibrate MODEL --codec");
}

static void other_options_are_refused_by_name(void **state) {
    (void)state;
    squish_engine_options eo = usual();
    squish_batch_options bo = squish_batch_options_default();
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    publish_passed();
    eo.kv = SQUISH_KV_Q8;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --kv of fewer bits");
    eo.kv = SQUISH_KV_F32;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --kv f32");
    eo = usual();
    eo.kv_options.pm = true;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --pm-kvq");
    eo = usual();
    eo.kv_options.cocktail = true;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --cocktail-kv");
    eo = usual();
    eo.kv_options.snap = 256;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --snap-kv");
    eo = usual();
    eo.attention.sage = true;
    refused(&eo, SQUISH_INVALID, "--snapshot-codec beside --sage-attention");
    eo = usual();
    assert_ok(squish_engine_new(&e, base.m, &eo, &err), &err);
    bo.snapshot_codec = true;
    assert_int_equal(squish_batch_new(&b, e, &bo, &err), SQUISH_INVALID); /* no folder */
    bo.snapshot_dir = "/tmp/none";
    bo.snapshot_archive = true;
    err = (squish_error){0};
    assert_int_equal(squish_batch_new(&b, e, &bo, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "--snapshot-codec beside --snapshot-archive"));
    squish_engine_free(e);
}

static void latents_are_refused(void **state) {
    (void)state;
    const sq_kv_shape latent = {2, 1, 64, true};
    squish_error err = {0};
    assert_int_equal(sq_codec_check_shape(&latent, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--snapshot-codec beside latent rows"));
}

/* Layers with rotations of their own get them. */
static void two_ways_to_rotate_are_told_apart(void **state) {
    (void)state;
    sq_codec_turns turns;
    run x = run_open("tests/fixtures/architectures/gemma3-text", SQUISH_TIER_SOURCE, NULL);
    sq_model_codec_turns(x.m, &turns);
    bool seen[2] = {false, false};
    for (int32_t l = 0; l < x.m->cfg.n_layers; l++) {
        assert_int_equal(turns.set[l], x.m->layers[l].rope);
        seen[turns.set[l]] = true;
    }
    assert_true(seen[0] && seen[1]);
    assert_true(turns.inv_freq[0][1] != turns.inv_freq[1][1]);
    run_close(&x);
}

static int setup(void **state) {
    (void)state;
    squish_error err = {0};
    base = run_shallow("models/squish-tiny", 3, SQUISH_METHOD_RTN);
    prose = run_tokens(&base, "tests/fixtures/own-prose.txt");
    text = malloc(TEXT + 1);
    FILE *f = fopen("tests/fixtures/own-prose.txt", "rb");
    assert_non_null(f);
    text[fread(text, 1, TEXT, f)] = 0;
    fclose(f);
    for (char *p = text; *p; p++)
        if (*p == '\n') *p = ' ';
    ring = bell_new();
    const squish_calibrate_options o = few(2);
    assert_ok(sq_model_codec_path(base.m, path, sizeof path, &err), &err);
    assert_ok(squish_calibrate_codec(base.m, NULL, &o, &made, &err), &err);
    sq_map map;
    assert_ok(sq_os_map_open(&map, path, &err), &err);
    sq_buf_init(&file, &base.m->alloc, map.bytes);
    assert_true(sq_buf_append(&file, map.data, map.bytes));
    sq_os_map_close(&map);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    sq_buf_deinit(&file);
    bell_free(ring);
    free(text);
    squish_tokens_free(&prose);
    run_close(&base);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calibration_says_what_it_made),
        cmocka_unit_test(books_do_not_depend_on_threads),
        cmocka_unit_test(texts_that_are_too_short_are_refused),
        cmocka_unit_test(a_prefix_comes_back_from_codes_after_a_restart),
        cmocka_unit_test(exact_servers_read_no_codes),
        cmocka_unit_test(sabotaged_books_fail_their_gate),
        cmocka_unit_test(other_models_and_damage_are_refused),
        cmocka_unit_test(other_options_are_refused_by_name),
        cmocka_unit_test(latents_are_refused),
        cmocka_unit_test(two_ways_to_rotate_are_told_apart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
