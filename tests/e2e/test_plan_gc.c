/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan_gc.c - what fits and what can go: the plan's figures, and that nothing goes which is still
 * needed. */
#include "support/model_run.h"

#include <stdio.h>
#include <sys/stat.h>

static char root[64], src[100];

/* A copy of the shipped model with tiers 0 and q8 beside it. */
static int setup(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/squish-test-XXXXXX");
    if (!mkdtemp(root)) return -1;
    char command[400];
    snprintf(src, sizeof src, "%s/m", root);
    snprintf(command, sizeof command, "cp -r models/squish-tiny %s", src);
    if (system(command) != 0) return -1;
    const squish_tier tiers[] = {SQUISH_TIER_0, SQUISH_TIER_Q8};
    for (size_t i = 0; i < 2; i++) {
        squish_compress_options o = squish_compress_options_default();
        squish_compress_result r;
        o.tier = tiers[i];
        o.method = SQUISH_METHOD_RTN;
        o.unchecked = true;
        if (squish_compress(src, &o, &r, NULL) != SQUISH_OK) return -1;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_tree(root);
    return 0;
}

static bool there(const char *name) {
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", root, name);
    return stat(path, &st) == 0;
}

static json_t *plan(uint64_t memory, const char *policy) {
    squish_plan_options o = squish_plan_options_default();
    squish_text text = {0};
    squish_error err = {0};
    o.memory = memory;
    o.policy = policy;
    o.read_gb_s = 10;
    assert_ok(squish_plan(src, &o, &text, &err), &err);
    json_t *j = json_loads(text.data, 0, NULL);
    squish_text_free(&text);
    assert_non_null(j);
    return j;
}

static const char *chosen(const json_t *j) {
    const json_t *t;
    size_t i;
    json_array_foreach(
        json_object_get(j, "tiers"), i,
        t) if (json_is_true(json_object_get(t, "chosen"))) return json_string_value(json_object_get(t,
                                                                                                    "tier"));
    return "none";
}

static void the_choice_follows_memory_and_policy(void **state) {
    (void)state;
    static const struct {
        uint64_t memory;
        const char *policy, *want;
    } cases[] = {{(uint64_t)8 << 30, NULL, "source"}, {(uint64_t)8 << 30, "quality", "source"},
                 {(uint64_t)8 << 30, "small", "0"},   {430000000, "quality", "q8"},
                 {405000000, "balanced", "0"},        {100000000, "balanced", "none"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = plan(cases[i].memory, cases[i].policy);
        assert_string_equal(chosen(j), cases[i].want);
        assert_true(json_integer_value(json_object_get(j, "available")) == (json_int_t)cases[i].memory);
        assert_true(strlen(json_string_value(json_object_get(j, "line"))) > 20);
        json_decref(j);
    }
}

/* Tier 1 is not built: what it would take is known all the same, and that of a tier to the percent. */
static void sizes_of_tiers_that_are_not_there_are_those_they_would_have(void **state) {
    (void)state;
    json_t *before = plan(0, NULL), *after;
    squish_gc_options o = {.keep = SQUISH_TIER_0};
    squish_error err = {0};
    assert_int_equal(json_array_size(json_object_get(before, "tiers")), 4);
    squish_compress_options q8 = squish_compress_options_default();
    squish_compress_result r;
    q8.tier = SQUISH_TIER_Q8;
    assert_ok(squish_gc(src, NULL, &o, NULL, &err), &err);
    after = plan(0, NULL);
    const json_t *a = json_array_get(json_object_get(before, "tiers"), 1),
                 *b = json_array_get(json_object_get(after, "tiers"), 1);
    assert_true(json_is_true(json_object_get(a, "ready")) && json_is_false(json_object_get(b, "ready")));
    const double built = (double)json_integer_value(json_object_get(a, "bytes")),
                 said = (double)json_integer_value(json_object_get(b, "bytes"));
    print_message("q8: %.0f bytes on disk, %.0f by the formula\n", built, said);
    assert_true(said / built > 0.99 && said / built < 1.01);
    assert_ok(squish_compress(src, &q8, &r, &err), &err);
    json_decref(before);
    json_decref(after);
}

static void a_dry_run_removes_nothing(void **state) {
    (void)state;
    const squish_gc_options o = {.keep = SQUISH_TIER_0, .drop_source = true, .dry_run = true};
    squish_error err = {0};
    uint64_t freed = 0;
    assert_ok(squish_gc(src, NULL, &o, &freed, &err), &err);
    assert_true(freed > 80000000); /* q8 and the checkpoint */
    assert_true(there("m-compressed/squish_q8/model.sqw") && there("m/model-00001-of-00004.safetensors"));
}

static void leftovers_go_and_tiers_stay(void **state) {
    (void)state;
    char path[200];
    snprintf(path, sizeof path,
             "mkdir -p %s/m-compressed/.build && echo x > %s/m-compressed/.build/0.partial", root, root);
    assert_int_equal(system(path), 0);
    squish_error err = {0};
    uint64_t freed = 0;
    assert_ok(squish_gc(src, NULL, NULL, &freed, &err), &err);
    assert_int_equal(freed, 2);
    assert_false(there("m-compressed/.build"));
    assert_true(there("m-compressed/squish_q8/model.sqw") && there("m-compressed/.squish_4bit_ready"));
}

/* Counts of a tier's experts, and what a kill left of such a file. */
static void put_counts(const char *folder) {
    char line[400];
    snprintf(line, sizeof line,
             "cd %s/m-compressed && mkdir -p %s && echo x > %s/model.sqw.heat && echo x > "
             "%s/model.sqw.heat.partial",
             root, folder, folder, folder);
    assert_int_equal(system(line), 0);
}

static void counts_of_experts_go_with_their_tier(void **state) {
    (void)state;
    char line[400];
    squish_error err = {0};
    uint64_t freed = 0;
    const squish_gc_options look = {.keep = SQUISH_TIER_AUTO, .dry_run = true};
    put_counts("squish_q8");
    assert_ok(squish_gc(src, NULL, NULL, &freed, &err), &err);
    assert_int_equal(freed, 0); /* the tier is there */
    assert_true(there("m-compressed/squish_q8/model.sqw.heat"));
    snprintf(line, sizeof line, "mv %s-compressed/squish_q8/model.sqw %s/away", src, root);
    assert_int_equal(system(line), 0);
    assert_ok(squish_gc(src, NULL, &look, &freed, &err), &err);
    assert_int_equal(freed, 4);
    assert_true(there("m-compressed/squish_q8/model.sqw.heat"));
    assert_ok(squish_gc(src, NULL, NULL, &freed, &err), &err);
    assert_int_equal(freed, 4);
    assert_false(there("m-compressed/squish_q8"));
    snprintf(line, sizeof line,
             "mkdir %s-compressed/squish_q8 && mv %s/away %s-compressed/squish_q8/model.sqw", src, root, src);
    assert_int_equal(system(line), 0);
}

static void what_is_not_ours_to_remove_stays(void **state) {
    (void)state;
    char line[900], compressed[120];
    squish_error err = {0};
    /* A tier's folder that is a link to a folder of somebody else, and an adapter beside the weights. */
    snprintf(line, sizeof line,
             "mkdir -p %s/other && echo mine > %s/other/mine && ln -s %s/other %s/m-compressed/finalized && "
             "echo a > %s/m/adapter_model.safetensors",
             root, root, root, root, root);
    assert_int_equal(system(line), 0);
    const squish_gc_options keep = {.keep = SQUISH_TIER_0}, drop = {.drop_source = true};
    snprintf(compressed, sizeof compressed, "%s-compressed", src);
    assert_int_equal(squish_gc(compressed, NULL, &drop, NULL, &err), SQUISH_INVALID); /* no checkpoint */
    /* While another tier is being built nothing goes but leftovers. */
    snprintf(line, sizeof line, "mkdir -p %s/m-compressed/.build", root);
    assert_int_equal(system(line), 0);
    int fd = -1;
    snprintf(line, sizeof line, "%s/m-compressed/.build/1.lock", root);
    memset(&err, 0, sizeof err);
    assert_ok(sq_os_lock(&fd, line, &err), &err);
    assert_int_equal(squish_gc(src, NULL, &keep, NULL, &err), SQUISH_INVALID);
    assert_true(there("m-compressed/squish_q8/model.sqw"));
    sq_os_unlock(fd);
    memset(&err, 0, sizeof err);
    put_counts("squish_q8");
    put_counts("squish_4bit");
    assert_ok(squish_gc(src, NULL, &keep, NULL, &err), &err);
    assert_true(there("other/mine"));
    assert_true(there("m-compressed/squish_4bit/model.sqw.heat"));
    assert_false(there("m-compressed/finalized") || there("m-compressed/squish_q8"));
    assert_true(there("m/adapter_model.safetensors"));
    squish_compress_options q8 = squish_compress_options_default();
    squish_compress_result r;
    q8.tier = SQUISH_TIER_Q8;
    assert_ok(squish_compress(src, &q8, &r, &err), &err);
}

static void five_tokens(const char *path, int32_t out[5]) {
    run x = run_open(path, SQUISH_TIER_0, NULL);
    squish_tokens t;
    squish_error err = {0};
    assert_ok(squish_tokenize(x.m, "The capital of Japan is", 23, 0, &t, &err), &err);
    run_greedy(&x, t.ids, t.count, out, 5);
    squish_tokens_free(&t);
    run_close(&x);
}

static void a_checkpoint_goes_only_for_a_tier_that_reads_back_whole(void **state) {
    (void)state;
    int32_t before[5], after[5];
    char file[200];
    squish_gc_options o = {.keep = SQUISH_TIER_0, .drop_source = true};
    squish_error err = {0};
    five_tokens(src, before);
    /* One byte of the weights is wrong: size and superblock still agree with the sentinel. */
    snprintf(file, sizeof file, "%s-compressed/squish_4bit/model.sqw", src);
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    fseek(f, -100000, SEEK_END);
    const int byte = fgetc(f);
    fseek(f, -100000, SEEK_END);
    fputc(byte ^ 1, f);
    fclose(f);
    assert_int_equal(squish_gc(src, NULL, &o, NULL, &err), SQUISH_CORRUPT);
    assert_true(there("m/model-00001-of-00004.safetensors"));
    assert_true(there("m-compressed/squish_q8/model.sqw")); /* nothing goes before the kept tier was read */
    f = fopen(file, "r+b");
    fseek(f, -100000, SEEK_END);
    fputc(byte, f);
    fclose(f);
    memset(&err, 0, sizeof err);
    assert_ok(squish_gc(src, NULL, &o, NULL, &err), &err);
    assert_false(there("m/model-00001-of-00004.safetensors") || there("m-compressed/squish_q8"));
    assert_true(there("m/config.json") && there("m/adapter_model.safetensors"));
    json_decref(plan(0, NULL)); /* tiers are still planned for */
    five_tokens(src, after);
    assert_memory_equal(before, after, sizeof before);
    o.keep = SQUISH_TIER_Q8;
    assert_int_equal(squish_gc(src, NULL, &o, NULL, &err), SQUISH_INVALID); /* nothing would be left */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_choice_follows_memory_and_policy),
        cmocka_unit_test(sizes_of_tiers_that_are_not_there_are_those_they_would_have),
        cmocka_unit_test(a_dry_run_removes_nothing),
        cmocka_unit_test(leftovers_go_and_tiers_stay),
        cmocka_unit_test(counts_of_experts_go_with_their_tier),
        cmocka_unit_test(what_is_not_ours_to_remove_stays),
        cmocka_unit_test(a_checkpoint_goes_only_for_a_tier_that_reads_back_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
