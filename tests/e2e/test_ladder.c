/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ladder.c - every tier stands alone, and where one is gone or damaged the next is taken with a word
 * why. */
#include "forge/forge.h"
#include "support/model_run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const squish_tier all[] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1, SQUISH_TIER_2, SQUISH_TIER_3};
static const char *const prompts[] = {"The capital of Japan is", "15 multiplied by 8 equals",
                                      "The chemical symbol for water is", "The French word for 'cat' is",
                                      "To get the length of a list in Python use"};
enum { N = 5 };

static char base[64], away[100], src[100], out[100], said[4096];

static void hear(void *user, const char *line) {
    (void)user;
    const size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", line);
}

static void shell(const char *command) {
    if (system(command) != 0) fail_msg("failed: %s", command);
}

/* The likeliest first token after each prompt, and which tier answered. */
static void answer(const char *path, squish_tier tier, int32_t ids[N], char tier_name[16]) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_error err = {0};
    squish_model_info info;
    said[0] = 0;
    mo.tier = tier, mo.warn = hear;
    eo.threads = 1, eo.ctx_tokens = 64;
    assert_ok(squish_model_open(&m, path, &mo, &err), &err);
    squish_model_get_info(m, &info);
    snprintf(tier_name, 16, "%s", info.tier);
    assert_ok(squish_engine_new(&e, m, &eo, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    for (int i = 0; i < N; i++) {
        squish_tokens t = {0};
        assert_ok(squish_tokenize(m, prompts[i], strlen(prompts[i]), 0, &t, &err), &err);
        assert_ok(squish_seq_sync(s, t.ids, t.count, &err), &err);
        const float *l = squish_seq_logits(s);
        ids[i] = 0;
        for (int32_t k = 1; k < info.n_vocab_tokens; k++)
            if (l[k] > l[ids[i]]) ids[i] = k;
        squish_tokens_free(&t);
    }
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
}

static int make_all(void **state) {
    (void)state;
    char command[600];
    snprintf(base, sizeof base, "/tmp/squish-ladder-XXXXXX");
    assert_non_null(mkdtemp(base));
    snprintf(src, sizeof src, "%s/model", base);
    snprintf(away, sizeof away, "%s/elsewhere", base);
    snprintf(out, sizeof out, "%s/model-compressed", base);
    snprintf(command, sizeof command, "cp -r models/squish-tiny %s", src);
    shell(command);
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        squish_compress_options o = squish_compress_options_default();
        squish_compress_result r;
        squish_error err = {0};
        o.out_dir = out, o.tier = all[i];
        assert_ok(squish_compress(src, &o, &r, &err), &err);
    }
    return 0;
}

static int remove_all(void **state) {
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command);
}

static void each_tier_answers_as_the_checkpoint_does_with_the_checkpoint_gone(void **state) {
    (void)state;
    int32_t want[N], got[N];
    char name[16];
    answer(src, SQUISH_TIER_SOURCE, want, name);
    assert_int_equal(rename(src, away), 0);
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        answer(out, all[i], got, name);
        assert_string_equal(name, sq_tier_get(all[i])->name);
        assert_memory_equal(want, got, sizeof want);
    }
    assert_int_equal(rename(away, src), 0);
}

/* Take the tier that is chosen now, spoil it, and look what comes next, until only the checkpoint is left. */
static void spoil_one_after_the_other(const char *how, bool file_is_kept) {
    char name[16], before[16] = "", command[700];
    int32_t ids[N];
    bool seen[SQ_COUNT(all)] = {false};
    for (size_t step = 0; step < SQ_COUNT(all); step++) {
        answer(src, SQUISH_TIER_AUTO, ids, name);
        assert_string_not_equal(name, before);
        if (step && file_is_kept) {
            char want[40];
            snprintf(want, sizeof want, "tier %s is not used: ", before);
            if (!strstr(said, want)) fail_msg("wanted '%s' in: %s", want, said);
        }
        for (size_t i = 0; i < SQ_COUNT(all); i++) {
            const sq_tier_info *t = sq_tier_get(all[i]);
            if (strcmp(t->name, name) != 0) continue;
            assert_false(seen[i]);
            seen[i] = true;
            snprintf(command, sizeof command, how, out, t->sentinel, out, t->file);
            shell(command);
        }
        snprintf(before, sizeof before, "%s", name);
    }
    answer(src, SQUISH_TIER_AUTO, ids, name);
    assert_string_equal(name, "source");
}

static void keep_a_copy(void) {
    char command[500];
    snprintf(command, sizeof command, "rm -rf %s.bak; cp -a %s %s.bak", out, out, out);
    shell(command);
}

static void restore_the_copy(void) {
    char command[500];
    snprintf(command, sizeof command, "rm -rf %s; mv %s.bak %s", out, out, out);
    shell(command);
}

static void the_next_tier_is_taken_where_one_is_removed(void **state) {
    (void)state;
    keep_a_copy();
    spoil_one_after_the_other("rm -rf %s/%s %s/%s", false);
    restore_the_copy();
}

static void the_next_tier_is_taken_where_the_announcement_is_empty(void **state) {
    (void)state;
    keep_a_copy();
    spoil_one_after_the_other(": > %s/%s; test -e %s/%s", true);
    restore_the_copy();
}

static void a_damaged_file_is_left_alone(void **state) {
    (void)state;
    char command[600], name[16];
    int32_t ids[N];
    keep_a_copy();
    snprintf(command, sizeof command, "truncate -s 5000 %s/squish_4bit/model.sqw %s/squish_q8/model.sqw", out,
             out);
    shell(command);
    answer(src, SQUISH_TIER_AUTO, ids, name);
    assert_string_equal(name, "1");
    assert_non_null(strstr(said, "tier 0 is not used: "));
    assert_non_null(strstr(said, "tier q8 is not used: "));
    snprintf(command, sizeof command, "%s/squish_4bit/model.sqw", out);
    assert_int_equal(sq_os_file_bytes(command), 5000);
    restore_the_copy();
}

/* What others can read, read back: MLX from tier 0, GGUF Q8_0 from eight bits in groups of 32. */
static void mlx_and_gguf_q8_0_answer_as_the_checkpoint_does(void **state) {
    (void)state;
    int32_t want[N], got[N];
    char name[16], mlx[160], gguf[160], tiers[160];
    squish_error err = {0};
    squish_export_options eo = {.assets = src};
    squish_export_result r;
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result built;
    squish_model *m;
    squish_model_options mo = squish_model_options_default();
    answer(src, SQUISH_TIER_SOURCE, want, name);
    snprintf(mlx, sizeof mlx, "%s/mlx", base);
    snprintf(gguf, sizeof gguf, "%s/q8_0.gguf", base);
    snprintf(tiers, sizeof tiers, "%s/g32", base);
    mo.tier = SQUISH_TIER_0;
    assert_ok(squish_model_open(&m, src, &mo, &err), &err);
    assert_ok(squish_export(m, "mlx", mlx, &eo, &r, &err), &err);
    squish_model_close(m);
    o.tier = SQUISH_TIER_Q8, o.group = 32, o.out_dir = tiers;
    assert_ok(squish_compress(src, &o, &built, &err), &err);
    assert_ok(squish_model_open(&m, built.file, NULL, &err), &err);
    assert_ok(squish_export(m, "gguf", gguf, &eo, &r, &err), &err);
    assert_int_equal(r.n_decoded, 0); /* all of it Q8_0 */
    squish_model_close(m);
    answer(mlx, SQUISH_TIER_SOURCE, got, name);
    assert_memory_equal(got, want, sizeof want);
    answer(gguf, SQUISH_TIER_AUTO, got, name);
    assert_memory_equal(got, want, sizeof want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_tier_answers_as_the_checkpoint_does_with_the_checkpoint_gone),
        cmocka_unit_test(mlx_and_gguf_q8_0_answer_as_the_checkpoint_does),
        cmocka_unit_test(the_next_tier_is_taken_where_one_is_removed),
        cmocka_unit_test(the_next_tier_is_taken_where_the_announcement_is_empty),
        cmocka_unit_test(a_damaged_file_is_left_alone),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
