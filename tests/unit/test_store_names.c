/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store_names.c - from what a user types to a path, and where tiers of a checkpoint belong. */
#include "store/store.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    char home[64];
} place;

static place place_of(void) {
    place p;
    snprintf(p.home, sizeof p.home, "/tmp/squish-store-XXXXXX");
    assert_non_null(mkdtemp(p.home));
    return p;
}

static void touch(const place *p, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/models/%s", p->home, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(sq_os_mkdirs(path, NULL), SQUISH_OK);
    *slash = '/';
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("{}", f);
    fclose(f);
}

static void assert_located(const place *p, const char *name, const char *want) {
    squish_text t = {0};
    squish_error err = {0};
    char full[256];
    assert_ok(squish_locate(p->home, name, &t, &err), &err);
    snprintf(full, sizeof full, "%s/models/%s", p->home, want);
    assert_string_equal(t.data, full);
    assert_int_equal(t.bytes, strlen(full));
    squish_text_free(&t);
}

static void names_are_found_in_each_of_their_forms(void **state) {
    (void)state;
    const place p = place_of();
    touch(&p, "alpha/config.json");
    touch(&p, "alpha-compressed/.squish_4bit_ready");
    touch(&p, "beta-compressed/.squish_q8_ready");
    touch(&p, "gamma.sqw");
    touch(&p, "delta.gguf");
    assert_located(&p, "alpha", "alpha");
    assert_located(&p, "alpha-compressed", "alpha-compressed");
    assert_located(&p, "beta", "beta-compressed");
    assert_located(&p, "gamma", "gamma.sqw");
    assert_located(&p, "gamma.sqw", "gamma.sqw");
    assert_located(&p, "delta", "delta.gguf");
    remove_tree(p.home);
}

static void a_path_stays_a_path(void **state) {
    (void)state;
    const place p = place_of();
    squish_text t = {0};
    squish_error err = {0};
    assert_ok(squish_locate(p.home, "models/squish-tiny", &t, &err), &err);
    assert_string_equal(t.data, "models/squish-tiny");
    squish_text_free(&t);
    assert_int_equal(squish_locate(p.home, "no/such/folder", &t, &err), SQUISH_NOT_FOUND);
    assert_string_equal(err.text, "no/such/folder: no such file or folder");
    assert_null(t.data);
    remove_tree(p.home);
}

static void nothing_means_the_shipped_model(void **state) {
    (void)state;
    const place p = place_of();
    static const char *const names[] = {NULL, "", "squish-tiny"};
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        squish_text t = {0};
        squish_error err = {0};
        assert_ok(squish_locate(p.home, names[i], &t, &err), &err);
        const char *end = strstr(t.data, "models/squish-tiny");
        assert_non_null(end);
        assert_string_equal(end, "models/squish-tiny");
        squish_text_free(&t);
    }
    remove_tree(p.home);
}

static void an_unknown_name_brings_the_three_nearest(void **state) {
    (void)state;
    const place p = place_of();
    touch(&p, "qwen2-7b/config.json");
    touch(&p, "qwen2-1b/config.json");
    touch(&p, "llama-8b/config.json");
    touch(&p, "qwen3-8b/config.json");
    touch(&p, "not-a-model/readme.txt");
    squish_text t = {0};
    squish_error err = {0};
    assert_int_equal(squish_locate(p.home, "qwen2-8b", &t, &err), SQUISH_NOT_FOUND);
    assert_string_equal(
        err.text,
        "no model 'qwen2-8b' (the nearest: qwen2-1b, qwen2-7b, qwen3-8b; all of them: squish list; "
        "to fetch: squish catalog)");
    err = (squish_error){0};
    char name[300];
    memset(name, 'x', sizeof name);
    name[299] = 0;
    assert_int_equal(squish_locate(p.home, name, &t, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "xxx' ("));
    remove_tree(p.home);
}

typedef struct {
    char text[1024];
    const char *home;
    int stop_after;
} listing;

static bool add_line(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    listing *l = user;
    if (strncmp(path, l->home, strlen(l->home)) != 0) return true; /* a shipped one */
    const size_t n = strlen(l->text);
    snprintf(l->text + n, sizeof l->text - n, "%s %d [%s]\n", name, (int)bytes, tiers);
    return --l->stop_after != 0;
}

static void a_list_is_sorted_and_names_each_model_once(void **state) {
    (void)state;
    const place p = place_of();
    touch(&p, "beta/config.json");
    touch(&p, "alpha/config.json");
    touch(&p, "alpha/weights");
    touch(&p, "alpha-compressed/.squish_4bit_ready"); /* not true: there is no file */
    touch(&p, "gone-compressed/.squish_q8_ready");
    touch(&p, "one.sqw");
    touch(&p, "readme.txt");
    touch(&p, "empty/nothing");
    listing l = {.home = p.home};
    squish_error err = {0};
    assert_ok(squish_list(p.home, add_line, &l, &err), &err);
    assert_string_equal(l.text, "alpha 4 []\nbeta 2 []\ngone-compressed 2 []\none.sqw 2 []\n");
    listing first = {.home = p.home, .stop_after = 1};
    assert_ok(squish_list(p.home, add_line, &first, &err), &err);
    assert_string_equal(first.text, "alpha 4 []\n");
    remove_tree(p.home);
}

static bool count_tiny(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    (void)path, (void)bytes, (void)tiers;
    *(int *)user += strcmp(name, "squish-tiny") == 0;
    return true;
}

static void a_model_in_two_places_is_listed_once(void **state) {
    (void)state;
    const place p = place_of();
    int n = 0;
    touch(&p, "squish-tiny/config.json"); /* hides the one in ./models */
    assert_int_equal(squish_list(p.home, count_tiny, &n, NULL), SQUISH_OK);
    assert_int_equal(n, 1);
    assert_located(&p, "squish-tiny", "squish-tiny");
    remove_tree(p.home);
}

static void ready_tiers_are_listed_and_found(void **state) {
    (void)state;
    const place p = place_of();
    char src[128];
    const tiny_spec s = tiny_default();
    snprintf(src, sizeof src, "%s/models/tiny", p.home);
    assert_int_equal(sq_os_mkdirs(src, NULL), SQUISH_OK);
    tiny_write(&s, src);
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    squish_error err = {0};
    squish_text file = {0};
    bool ready = true;
    assert_ok(squish_tier_path(src, &o, &file, &ready, &err), &err);
    assert_false(ready);
    assert_ok(squish_compress(src, &o, &r, &err), &err);
    assert_string_equal(file.data, r.file);
    squish_text_free(&file);
    assert_ok(squish_tier_path(src, &o, &file, &ready, &err), &err);
    assert_true(ready);
    squish_text_free(&file);
    o.tier = SQUISH_TIER_Q8;
    assert_ok(squish_compress(src, &o, &r, &err), &err);
    listing l = {.home = p.home};
    assert_ok(squish_list(p.home, add_line, &l, &err), &err);
    assert_non_null(strstr(l.text, "[0,q8]"));
    squish_model *m = NULL;
    assert_ok(squish_model_open(&m, src, NULL, &err), &err);
    squish_model_info info;
    squish_model_get_info(m, &info);
    assert_string_equal(info.tier, "q8"); /* AUTO: the best of those that fit and are quick enough */
    squish_model_close(m);
    remove_tree(p.home);
}

/* ---- where tiers go -------------------------------------------------------------------------- */

static void assert_compressed_dir(const char *src, const char *out_dir, const char *home, const char *want) {
    char out[4096];
    squish_error err = {0};
    assert_ok(sq_store_compressed_dir(src, out_dir, home, out, sizeof out, &err), &err);
    assert_string_equal(out, want);
}

static void tiers_lie_beside_the_source(void **state) {
    (void)state;
    const place p = place_of();
    char src[192], want[160], here[4096], parent[4112];
    snprintf(src, sizeof src, "%s/m///", p.home);
    snprintf(want, sizeof want, "%s/m-compressed", p.home);
    assert_compressed_dir(src, NULL, p.home, want);
    assert_compressed_dir(src, "/elsewhere", p.home, "/elsewhere");
    assert_compressed_dir(want, NULL, p.home, want); /* tiers of tiers are the tiers */
    snprintf(src, sizeof src, "%s/", want);
    assert_compressed_dir(src, NULL, p.home, want);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(parent, sizeof parent, "%s-compressed", here);
    assert_compressed_dir(".", NULL, p.home, parent);
    assert_compressed_dir("src/..", NULL, p.home, parent);
    remove_tree(p.home);
}

/* As somebody who may not write everywhere; the answer is compared there, since the root user may. */
static void tiers_of_a_read_only_source_go_to_the_store(void **state) {
    (void)state;
    const place p = place_of();
    char src[160], want[160], locked[128];
    snprintf(locked, sizeof locked, "%s/locked", p.home);
    snprintf(src, sizeof src, "%s/m", locked);
    snprintf(want, sizeof want, "%s/home/models/m-compressed", p.home);
    assert_int_equal(sq_os_mkdirs(src, NULL), SQUISH_OK);
    assert_int_equal(chmod(p.home, 0777), 0);
    assert_int_equal(chmod(locked, 0555), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char home[128], out[4096] = "", nowhere[160];
        if (getuid() == 0 && setuid(65534) != 0) _exit(9);
        snprintf(home, sizeof home, "%s/home", p.home);
        squish_error err = {0};
        if (sq_store_compressed_dir(src, NULL, home, out, sizeof out, &err) != SQUISH_OK) _exit(1);
        if (strcmp(out, want) != 0) _exit(2);
        snprintf(nowhere, sizeof nowhere, "%s/home", locked);
        if (sq_store_compressed_dir(src, NULL, nowhere, out, sizeof out, &err) != SQUISH_IO) _exit(3);
        _exit(strstr(err.text, "can be written (set SQUISH_HOME or give -o DIR)") ? 0 : 4);
    }
    int status;
    waitpid(pid, &status, 0);
    chmod(locked, 0755);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    remove_tree(p.home);
}

static void homes_come_from_the_argument_then_the_environment(void **state) {
    (void)state;
    char out[64];
    squish_error err = {0};
    char *old_home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    setenv("SQUISH_HOME", "/from/environment", 1);
    assert_ok(sq_store_home("/given", out, sizeof out, &err), &err);
    assert_string_equal(out, "/given");
    assert_ok(sq_store_home(NULL, out, sizeof out, &err), &err);
    assert_string_equal(out, "/from/environment");
    unsetenv("SQUISH_HOME");
    setenv("HOME", "/users/ann", 1);
    assert_ok(sq_store_home("", out, sizeof out, &err), &err);
    assert_string_equal(out, "/users/ann/.squish");
    unsetenv("HOME");
    assert_int_equal(sq_store_home(NULL, out, sizeof out, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "neither SQUISH_HOME nor HOME is set"));
    if (old_home) setenv("HOME", old_home, 1);
    free(old_home);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_in_each_of_their_forms),
        cmocka_unit_test(a_path_stays_a_path),
        cmocka_unit_test(nothing_means_the_shipped_model),
        cmocka_unit_test(an_unknown_name_brings_the_three_nearest),
        cmocka_unit_test(a_list_is_sorted_and_names_each_model_once),
        cmocka_unit_test(a_model_in_two_places_is_listed_once),
        cmocka_unit_test(ready_tiers_are_listed_and_found),
        cmocka_unit_test(tiers_lie_beside_the_source),
        cmocka_unit_test(tiers_of_a_read_only_source_go_to_the_store),
        cmocka_unit_test(homes_come_from_the_argument_then_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
