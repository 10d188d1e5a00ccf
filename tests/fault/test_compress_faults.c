/* SPDX-License-Identifier: Apache-2.0
 *
 * test_compress_faults.c - a build of a tier that is killed, runs out of disk, is locked out, is stopped, or
 * is given weights that are no good: a whole tier or none, one clear line, the source untouched. */
#include "forge/forge.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* A checkpoint and where its tiers go. */
typedef struct {
    char base[64], src[96], out[96];
} place;

static place place_of(const tiny_spec *s) {
    place p;
    snprintf(p.base, sizeof p.base, "/tmp/squish-compress-XXXXXX");
    assert_non_null(mkdtemp(p.base));
    snprintf(p.src, sizeof p.src, "%s/model", p.base);
    snprintf(p.out, sizeof p.out, "%s/model-compressed", p.base);
    assert_int_equal(sq_os_mkdirs(p.src, NULL), SQUISH_OK);
    if (s) tiny_write(s, p.src);
    return p;
}

static squish_compress_options options(const place *p) {
    squish_compress_options o = squish_compress_options_default();
    o.out_dir = p->out;
    o.threads = 2;
    return o;
}

/* All names below a directory, sorted by folder, one a line. */
static void list_tree(const char *dir, char *out, size_t n) {
    sq_arena ar;
    char **names = NULL;
    size_t count = 0;
    sq_arena_init(&ar, NULL, 4096, 0);
    if (sq_os_list_dir(dir, &ar, &names, &count, NULL) == SQUISH_OK)
        for (size_t i = 0; i < count; i++) {
            char path[1024];
            snprintf(path, sizeof path, "%s/%s", dir, names[i]);
            const size_t at = strlen(out);
            snprintf(out + at, n - at, "%s\n", names[i]);
            if (sq_os_is_dir(path)) list_tree(path, out, n);
        }
    sq_arena_deinit(&ar);
}

static void assert_tree(const char *dir, const char *want) {
    char have[4096] = "";
    list_tree(dir, have, sizeof have);
    assert_string_equal(have, want);
}

static const char finished[] = ".squish_4bit_ready\nsquish_4bit\nmodel.sqw\n";

static uint8_t *slurp(const char *path, size_t *n) {
    *n = (size_t)sq_os_file_bytes(path);
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(*n);
    assert_non_null(f);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static bool is_ready(const place *p) {
    char path[1024];
    return sq_tier_ready(p->out, SQUISH_TIER_0, path, sizeof path, NULL, 0);
}

static void assert_whole(const place *p) {
    char path[1024];
    squish_model *m = NULL;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    assert_true(sq_tier_ready(p->out, SQUISH_TIER_0, path, sizeof path, NULL, 0));
    o.verify = true;
    assert_ok(squish_model_open(&m, path, &o, &err), &err);
    squish_model_close(m);
}

/* ---- killed ---------------------------------------------------------------------------------- */

static pid_t start_build(const place *p) {
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    const squish_compress_options o = options(p);
    squish_compress_result r;
    _exit(squish_compress(p->src, &o, &r, NULL) == SQUISH_OK ? 0 : 1);
}

static void a_killed_build_leaves_a_whole_tier_or_none(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    s.hidden = 256, s.ffn = 512, s.vocab = 1500, s.layers = 4;
    const place p = place_of(&s);
    uint64_t rng = 9;
    int status, whole = 0, none = 0;
    const uint64_t begin = sq_os_now_ns();
    waitpid(start_build(&p), &status, 0);
    const uint64_t took = sq_os_now_ns() - begin;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < 20; i++) {
        if (is_ready(&p)) remove_tree(p.out); /* what a kill left stays for the next one to trip over */
        const pid_t pid = start_build(&p);
        usleep((useconds_t)(sq_splitmix64(&rng) % (took + took / 4) / 1000));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (is_ready(&p)) {
            assert_whole(&p);
            whole++;
        } else {
            none++;
        }
    }
    print_message("killed 20 times: %d whole, %d none\n", whole, none);
    const squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_whole(&p);
    squish_compress_options again = o;
    again.force = true;
    assert_ok(squish_compress(p.src, &again, &r, &err), &err);
    assert_tree(p.out, finished); /* no lock, nothing partial */
    remove_tree(p.base);
}

/* ---- no room --------------------------------------------------------------------------------- */

static void a_file_that_may_not_grow_leaves_nothing(void **state) {
    (void)state;
    static const rlim_t limits[] = {1, 4096, 60000, 200000};
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    char before[4096] = "", after[4096] = "";
    list_tree(p.src, before, sizeof before);
    size_t n0, n1;
    char weights[128];
    snprintf(weights, sizeof weights, "%s/model.safetensors", p.src);
    uint8_t *source = slurp(weights, &n0);
    for (size_t i = 0; i < SQ_COUNT(limits); i++) {
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            const squish_compress_options o = options(&p);
            const struct rlimit limit = {limits[i], limits[i]};
            squish_compress_result r;
            squish_error err = {0};
            signal(SIGXFSZ, SIG_IGN);
            setrlimit(RLIMIT_FSIZE, &limit);
            const squish_status st = squish_compress(p.src, &o, &r, &err);
            const bool named = strstr(err.text, "model-compressed/") != NULL && !strchr(err.text, '\n');
            _exit((st == SQUISH_IO || st == SQUISH_NO_SPACE) && named ? 0 : 1);
        }
        int status;
        waitpid(pid, &status, 0);
        if (limits[i] < 100000) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            assert_false(sq_os_exists(p.out));
        }
    }
    list_tree(p.src, after, sizeof after);
    assert_string_equal(before, after);
    uint8_t *same = slurp(weights, &n1);
    assert_int_equal(n0, n1);
    assert_memory_equal(source, same, n0);
    free(source), free(same);
    remove_tree(p.base);
}

/* ---- locked, stopped ------------------------------------------------------------------------- */

static void a_second_builder_is_told_so(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    char build[128], lock[160];
    int fd = -1;
    snprintf(build, sizeof build, "%s/.build", p.out);
    snprintf(lock, sizeof lock, "%s/0.lock", build);
    assert_int_equal(sq_os_mkdirs(build, NULL), SQUISH_OK);
    assert_int_equal(sq_os_lock(&fd, lock, NULL), SQUISH_OK);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_BUSY);
    assert_non_null(strstr(err.text, "0.lock' is held by another process"));
    assert_true(sq_os_exists(lock));
    o.tier = SQUISH_TIER_Q8; /* another tier has a lock of its own */
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    sq_os_unlock(fd);
    o.tier = SQUISH_TIER_0;
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_whole(&p);
    remove_tree(p.base);
}

static bool stop_at(void *user, const char *what, uint64_t done, uint64_t total) {
    int *left = user;
    assert_string_equal(what, "compress");
    assert_true(done <= total);
    return (*left)-- > 0;
}

static const char stopped[] = ".build\n0.journal\n0.partial\n";

static void stopping_keeps_the_work_and_what_was_there(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    o.progress = stop_at;
    for (int after = 0; after < 12; after += 5) {
        int left = after;
        o.progress_user = &left;
        err = (squish_error){0};
        assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_CANCELLED);
        assert_non_null(strstr(err.text, "--resume"));
        assert_tree(p.out, stopped);
    }
    int enough = 1000, none = 0;
    err = (squish_error){0};
    o.progress_user = &enough;
    assert_ok(squish_compress(p.src, &o, &r, &err), &err); /* without resume from the start */
    assert_int_equal(r.resumed_bytes, 0);
    assert_tree(p.out, finished);
    o.force = true;
    o.progress_user = &none;
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_CANCELLED);
    assert_whole(&p);
    o.force = false;
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_true(r.reused);
    remove_tree(p.base);
}

/* ---- resumed --------------------------------------------------------------------------------- */

/* The finished file of an undisturbed build, and a tree without it. */
static uint8_t *undisturbed(const place *p, size_t *n, uint64_t *took_ns) {
    const squish_compress_options o = options(p);
    squish_compress_result r;
    squish_error err = {0};
    const uint64_t begin = sq_os_now_ns();
    assert_ok(squish_compress(p->src, &o, &r, &err), &err);
    *took_ns = sq_os_now_ns() - begin;
    uint8_t *bytes = slurp(r.file, n);
    remove_tree(p->out);
    return bytes;
}

static void assert_file_is(const char *path, const uint8_t *want, size_t n) {
    size_t have_n;
    uint8_t *have = slurp(path, &have_n);
    assert_int_equal(have_n, n);
    assert_memory_equal(have, want, n);
    free(have);
}

static void a_stopped_build_goes_on_to_the_same_bytes(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    size_t n;
    uint64_t took;
    uint8_t *want = undisturbed(&p, &n, &took);
    for (int after = 1; after < 25; after += 4) {
        squish_compress_options o = options(&p);
        squish_compress_result r;
        squish_error err = {0};
        int left = after;
        o.progress = stop_at, o.progress_user = &left;
        assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_CANCELLED);
        o.progress = NULL, o.resume = true;
        err = (squish_error){0};
        assert_ok(squish_compress(p.src, &o, &r, &err), &err);
        assert_true(r.resumed_bytes > 0);
        assert_file_is(r.file, want, n);
        assert_tree(p.out, finished);
        remove_tree(p.out);
    }
    free(want);
    remove_tree(p.base);
}

static void a_killed_build_goes_on_to_the_same_bytes(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    s.hidden = 256, s.ffn = 512, s.vocab = 1500, s.layers = 4;
    const place p = place_of(&s);
    uint64_t rng = 4, took;
    size_t n;
    uint8_t *want = undisturbed(&p, &n, &took);
    for (int i = 0; i < 10; i++) {
        squish_compress_options o = options(&p);
        squish_compress_result r;
        squish_error err = {0};
        int status;
        const pid_t pid = start_build(&p);
        usleep((useconds_t)(sq_splitmix64(&rng) % took / 1000));
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        if (is_ready(&p)) assert_whole(&p);
        o.resume = true;
        assert_ok(squish_compress(p.src, &o, &r, &err), &err);
        assert_file_is(r.file, want, n);
        /* Killed after the tier was announced, only the lock and the journal may be left over. */
        if (!r.reused) assert_tree(p.out, finished);
        remove_tree(p.out);
    }
    free(want);
    remove_tree(p.base);
}

static void another_source_or_wish_starts_over(void **state) {
    (void)state;
    tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    for (int i = 0; i < 2; i++) {
        int left = 10;
        o = options(&p);
        o.progress = stop_at, o.progress_user = &left;
        assert_int_equal(squish_compress(p.src, &o, &r, NULL), SQUISH_CANCELLED);
        o.progress = NULL, o.resume = true;
        if (i == 0) o.method = SQUISH_METHOD_RTN;
        if (i == 1) s.seed++, tiny_write(&s, p.src);
        assert_ok(squish_compress(p.src, &o, &r, &err), &err);
        assert_int_equal(r.resumed_bytes, 0);
        assert_whole(&p);
        remove_tree(p.out);
    }
    remove_tree(p.base);
}

static void a_tier_of_another_recipe_is_not_reused(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    o.bits = 3;
    assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
    assert_non_null(
        strstr(err.text, "is there with bits 4, group 64, method lsq; wanted are 3, 64, lsq (--force"));
    o.force = true;
    err = (squish_error){0};
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_false(r.reused);
    o.force = false;
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    assert_true(r.reused);
    remove_tree(p.base);
}

static void a_tier_that_is_not_usable_says_why(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    const squish_compress_options o = options(&p);
    squish_compress_result r;
    squish_error err = {0};
    char path[1024], why[200];
    assert_false(sq_tier_ready(p.out, SQUISH_TIER_0, path, sizeof path, why, sizeof why));
    assert_non_null(strstr(why, "no sentinel"));
    assert_ok(squish_compress(p.src, &o, &r, &err), &err);
    const uint64_t bytes = sq_os_file_bytes(r.file);
    FILE *f = fopen(r.file, "r+b");
    assert_non_null(f);
    fseek(f, 200, SEEK_SET);
    fputc(0x55, f); /* in the superblock */
    fclose(f);
    assert_false(sq_tier_ready(p.out, SQUISH_TIER_0, path, sizeof path, why, sizeof why));
    assert_non_null(strstr(why, "damaged"));
    assert_int_equal(truncate(r.file, (off_t)bytes - 1), 0);
    assert_false(sq_tier_ready(p.out, SQUISH_TIER_0, path, sizeof path, why, sizeof why));
    assert_non_null(strstr(why, "its sentinel says"));
    assert_int_equal(unlink(r.file), 0);
    assert_false(sq_tier_ready(p.out, SQUISH_TIER_0, path, sizeof path, why, sizeof why));
    assert_non_null(strstr(why, "missing"));
    remove_tree(p.base);
}

/* ---- bad sources ----------------------------------------------------------------------------- */

/* Both words are in the one line, and nothing is left. */
static void assert_refused(const place *p, squish_status want, const char *file, const char *words) {
    const squish_compress_options o = options(p);
    squish_compress_result r;
    squish_error err = {0};
    const squish_status st = squish_compress(p->src, &o, &r, &err);
    if (st != want || !strstr(err.text, file) || !strstr(err.text, words) || strchr(err.text, '\n'))
        fail_msg("%s: %s\n  wanted %s with '%s' and '%s'", squish_status_name(st), err.text,
                 squish_status_name(want), file, words);
    assert_false(sq_os_exists(p->out));
}

static void spoilt_tensors_are_named_and_nothing_is_built(void **state) {
    (void)state;
    static const struct {
        tiny_fault fault;
        squish_status st;
        const char *tensor, *words;
    } cases[] = {
        {TINY_NAN, SQUISH_CORRUPT, "model.layers.1.mlp.up_proj.weight", "1 of 15360 weights are not finite"},
        {TINY_NAN, SQUISH_CORRUPT, "model.layers.2.input_layernorm.weight",
         "value 48 is not a finite number"},
        {TINY_NAN, SQUISH_CORRUPT, "lm_head.weight", "not finite"},
        {TINY_MISSING, SQUISH_CORRUPT, "model.layers.0.self_attn.k_proj.weight", "is missing"},
        {TINY_MISSING, SQUISH_CORRUPT, "lm_head.weight", "is missing"},
        {TINY_SHAPE, SQUISH_CORRUPT, "model.layers.0.self_attn.k_proj.weight",
         "is 47 x 96 (2 dims), config.json wants 48 x 96"},
        {TINY_SHAPE, SQUISH_CORRUPT, "model.norm.weight", "is 95 x 1 (1 dims), config.json wants 96 x 1"},
        {TINY_DTYPE, SQUISH_UNSUPPORTED, "model.layers.0.mlp.down_proj.weight",
         "is I32, wanted F32, F16 or BF16"}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        tiny_spec s = tiny_default();
        s.fault = cases[i].fault, s.spoilt = cases[i].tensor;
        const place p = place_of(&s);
        assert_refused(&p, cases[i].st, cases[i].tensor, cases[i].words);
        const bool has_file = cases[i].fault == TINY_SHAPE || cases[i].fault == TINY_DTYPE;
        assert_refused(&p, cases[i].st, has_file ? "model.safetensors" : p.src, cases[i].words);
        remove_tree(p.base);
    }
}

static void link_all_but(const place *p, const char *from, const char *left_out) {
    char whole[4096];
    assert_non_null(realpath(from, whole));
    sq_arena ar;
    char **names = NULL;
    size_t n = 0;
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_os_list_dir(whole, &ar, &names, &n, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        char old[8192], fresh[1024];
        snprintf(old, sizeof old, "%s/%s", whole, names[i]);
        snprintf(fresh, sizeof fresh, "%s/%s", p->src, names[i]);
        if (strcmp(names[i], left_out) != 0 && strncmp(names[i], "reference", 9) != 0)
            assert_int_equal(symlink(old, fresh), 0);
    }
    sq_arena_deinit(&ar);
}

static void a_missing_shard_is_named(void **state) {
    (void)state;
    static const char shard[] = "model-00003-of-00004.safetensors";
    const place p = place_of(NULL);
    link_all_but(&p, "tests/fixtures/architectures/qwen3", shard);
    assert_refused(&p, SQUISH_NOT_FOUND, shard, p.src);
    remove_tree(p.base);
}

static void write_text(const place *p, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", p->src, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_pointer_in_place_of_the_weights_is_recognised(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    write_text(&p, "model.safetensors",
               "version https://git-lfs.github.com/spec/v1\n"
               "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n");
    assert_refused(&p, SQUISH_NOT_FOUND, "model.safetensors", "git-lfs pointer");
    remove_tree(p.base);
}

static void folders_that_are_no_checkpoint_are_refused(void **state) {
    (void)state;
    const place p = place_of(NULL);
    assert_refused(&p, SQUISH_NOT_FOUND, p.src, "no config.json");
    write_text(&p, "config.json", "{\"model_type\":\"mamba\"}");
    assert_refused(&p, SQUISH_UNSUPPORTED, "config.json", "mamba");
    write_text(&p, "config.json", "{");
    assert_refused(&p, SQUISH_CORRUPT, "config.json", "line 1");
    remove_tree(p.base);
}

static void options_out_of_range_are_refused_by_name(void **state) {
    (void)state;
    const tiny_spec s = tiny_default();
    const place p = place_of(&s);
    const struct {
        int tier, bits, group, threads, method;
        const char *words;
    } bad[] = {{SQUISH_TIER_SOURCE, 0, 64, 1, 0, "only tiers 0, q8, 1, 2 and 3"},
               {SQUISH_TIER_0, 8, 64, 1, 0, "tier 0 has 4, 3, 2 or 1.58 bits, not 8"},
               {SQUISH_TIER_Q8, 4, 64, 1, 0, "tier q8 has 8 bits, not 4"},
               {SQUISH_TIER_0, 3, 32, 1, 0, "group is 32, wanted 64 with fewer than 4 bits"},
               {SQUISH_TIER_0, 4, 0, 1, 0, "group is 0, wanted 64"},
               {SQUISH_TIER_Q8, 8, 16, 1, 0, "group is 16"},
               {SQUISH_TIER_0, 4, 64, -1, 0, "threads is -1"},
               {SQUISH_TIER_0, 4, 64, 1, 7, "method is 7"}};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        squish_compress_options o = options(&p);
        squish_compress_result r;
        squish_error err = {0};
        o.tier = (squish_tier)bad[i].tier, o.bits = bad[i].bits, o.group = bad[i].group,
        o.threads = bad[i].threads;
        o.method = (squish_method)bad[i].method;
        assert_int_equal(squish_compress(p.src, &o, &r, &err), SQUISH_INVALID);
        if (!strstr(err.text, bad[i].words)) fail_msg("%s: wanted %s", err.text, bad[i].words);
    }
    assert_false(sq_os_exists(p.out));
    remove_tree(p.base);
}

/* ---- the same file every time ---------------------------------------------------------------- */

static void any_number_of_threads_builds_the_same_bytes(void **state) {
    (void)state;
    static const squish_tier tiers[] = {SQUISH_TIER_0, SQUISH_TIER_Q8};
    tiny_spec s = tiny_default();
    s.bf16 = true, s.vocab = 700;
    const place p = place_of(&s);
    for (size_t i = 0; i < SQ_COUNT(tiers); i++) {
        uint8_t *bytes[2];
        size_t n[2];
        for (size_t k = 0; k < 2; k++) {
            squish_compress_options o = options(&p);
            squish_compress_result r;
            squish_error err = {0};
            o.tier = tiers[i], o.threads = k ? 3 : 1, o.force = true;
            assert_ok(squish_compress(p.src, &o, &r, &err), &err);
            bytes[k] = slurp(r.file, &n[k]);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(bytes[0], bytes[1], n[0]);
        free(bytes[0]), free(bytes[1]);
    }
    remove_tree(p.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_build_leaves_a_whole_tier_or_none),
        cmocka_unit_test(a_file_that_may_not_grow_leaves_nothing),
        cmocka_unit_test(a_second_builder_is_told_so),
        cmocka_unit_test(stopping_keeps_the_work_and_what_was_there),
        cmocka_unit_test(a_stopped_build_goes_on_to_the_same_bytes),
        cmocka_unit_test(a_killed_build_goes_on_to_the_same_bytes),
        cmocka_unit_test(another_source_or_wish_starts_over),
        cmocka_unit_test(a_tier_of_another_recipe_is_not_reused),
        cmocka_unit_test(a_tier_that_is_not_usable_says_why),
        cmocka_unit_test(spoilt_tensors_are_named_and_nothing_is_built),
        cmocka_unit_test(a_missing_shard_is_named),
        cmocka_unit_test(a_pointer_in_place_of_the_weights_is_recognised),
        cmocka_unit_test(folders_that_are_no_checkpoint_are_refused),
        cmocka_unit_test(options_out_of_range_are_refused_by_name),
        cmocka_unit_test(any_number_of_threads_builds_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
