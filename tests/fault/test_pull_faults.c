/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pull_faults.c - a pull, an import and every change and look at the store, whose n-th allocation fails,
 * whose n-th change to the disk or read fails, finds no room, or is the last thing the process does, n = 1,
 * 2, 3 ...: a status and one line, no leak, a model that is whole or is not there, and the same again gets to
 * the same bytes. */
#include "support/own_faults.h"

#include "hub/hub.h"
#include "support/model_run.h"
#include "support/small_hub.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <sys/wait.h>

enum { RUN_MAX = 5000, WEIGHT_BYTES = 40000, SMALL_BYTES = 900, LITTLE_BYTES = 70000, FILES = 3 };

static char top[] = "/tmp/squish-pulls-XXXXXX", home[64];
static small_hub hub;
static bool has_curl;
static const char *const files[FILES] = {"config.json", "model.safetensors", "tokenizer.json"};

static char *in(const char *what) { /* one of four, each good for four calls */
    static char paths[4][256];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", top, what);
    return paths[next];
}

static void write_file(const char *path, size_t n, uint64_t seed) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (size_t i = 0; i < n; i += 8) {
        const uint64_t v = sq_splitmix64(&seed);
        fwrite(&v, 1, n - i < 8 ? n - i : 8, f);
    }
    fclose(f);
}

static bool same_file(const char *a, const char *b) {
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    static char x[1 << 16], y[1 << 16];
    bool same = f && g;
    for (size_t n = 1; same && n;) {
        n = fread(x, 1, sizeof x, f);
        same = fread(y, 1, sizeof y, g) == n && memcmp(x, y, n) == 0;
    }
    if (f) fclose(f);
    if (g) fclose(g);
    return same;
}

/* ---- what is tried ----------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    void (*prepare)(void); /* into an empty home */
    squish_status (*run)(squish_error *err);
    void (*check)(squish_status st); /* what is there afterwards, whatever came of it */
    bool asks, slow;                 /* a hub is asked; there are many changes */
} trial;

static void nothing(void) {}

static squish_status do_pull(squish_error *err) {
    hub_catalog c;
    hub_ref r;
    const hub_settings s = {
        .home = home, .endpoint = hub.url, .connections = 2, .retries = 1, .stall_s = 600};
    SQ_TRY(hub_catalog_open(&c, home, err));
    squish_status st = hub_name(&c, "hf.co/me/small", false, &r, err);
    if (st == SQUISH_OK) st = hub_pull(&s, &r, NULL, NULL, err);
    hub_catalog_close(&c);
    return st;
}

static squish_status do_pull_file(squish_error *err) {
    hub_ref r;
    const hub_settings s = {
        .home = home, .endpoint = hub.url, .registry = hub.url, .retries = 1, .stall_s = 600};
    SQ_TRY(hub_name(NULL, "ollama.com/library/little:1b", false, &r, err));
    return hub_pull(&s, &r, NULL, NULL, err);
}

/* The model is there with every file and a manifest that names them all, or it is not there. */
static void whole_or_not(const char *dir, const char *source, squish_status st) {
    char path[256], from[256];
    sq_store_manifest m;
    squish_error err = {0};
    snprintf(path, sizeof path, "%s/models/%s", home, dir);
    if (!sq_os_exists(path)) {
        assert_int_not_equal(st, SQUISH_OK);
        return;
    }
    assert_ok(sq_store_manifest_read(path, &m, &err), &err);
    const size_t n = json_array_size(m.files);
    assert_true(n >= 1);
    if (!m.file) assert_int_equal(n, FILES);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_object_get(json_array_get(m.files, i), "path"));
        assert_non_null(json_object_get(json_array_get(m.files, i), "sha256"));
        snprintf(path, sizeof path, "%s/models/%s/%s", home, dir, name);
        if (m.file)
            snprintf(from, sizeof from, "%s/%s", top, source);
        else
            snprintf(from, sizeof from, "%s/%s/%s", top, source, name);
        if (!same_file(path, from)) fail_msg("%s is not %s", path, from);
    }
    json_decref(m.root);
}

static void check_pull(squish_status st) { whole_or_not("hf.co--me--small", "root/me/small", st); }
static void check_pull_file(squish_status st) {
    whole_or_not("ollama.com--library--little:1b", "root/.ollama/library/little/1b.gguf", st);
}

/* A new revision over an old one, of which a file is the same. */
static void an_older_one(void) {
    squish_error err = {0};
    assert_ok(do_pull(&err), &err);
    char path[256], text[4096] = "";
    snprintf(path, sizeof path, "%s/models/hf.co--me--small/squish-manifest.json", home);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    char *sha = strstr(text, "\"revision\": \"");
    assert_non_null(sha);
    memset(sha + 13, '0', 40);
    f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
}

/* The old one, or the new one; both are whole. */
static void check_newer(squish_status st) {
    check_pull(st == SQUISH_OK ? SQUISH_OK : SQUISH_IO);
    assert_true(sq_os_is_dir(in("home/models/hf.co--me--small")));
}

static squish_status do_import_folder(squish_error *err) {
    char path[4096];
    return hub_import(home, in("root/me/small"), "mine", NULL, NULL, path, sizeof path, err);
}
static squish_status do_import_file(squish_error *err) {
    char path[4096];
    return hub_import(home, in("root/.ollama/library/little/1b.gguf"), "mine", NULL, NULL, path, sizeof path,
                      err);
}
static void check_import_folder(squish_status st) { whole_or_not("mine", "root/me/small", st); }
static void check_import_file(squish_status st) {
    whole_or_not("mine", "root/.ollama/library/little/1b.gguf", st);
}

/* Two models, tiers of one of them, a made one, and one of another program. */
static void a_store(void) {
    static const char *const dirs[] = {"home/models/one", "home/models/two", "home/models/one-compressed/x"};
    squish_error err = {0};
    for (size_t i = 0; i < SQ_COUNT(dirs); i++) assert_ok(sq_os_mkdirs(in(dirs[i]), &err), &err);
    write_file(in("home/models/one/config.json"), 10, 1);
    write_file(in("home/models/two/config.json"), 10, 2);
    write_file(in("home/models/one-compressed/x/w"), 10, 3);
    json_t *p = json_pack("{s:f}", "temperature", 0.5);
    const sq_store_made m = {.from = "two", .system = "Be brief.", .parameters = p};
    assert_ok(sq_store_made_write(home, "brief", &m, &err), &err);
    json_decref(p);
}

static bool count(void *user, const char *name, const char *path) {
    (void)path;
    int *n = user;
    *n += strcmp(name, "one") == 0 || strcmp(name, "two") == 0 || strcmp(name, "me/found") == 0;
    return true;
}
static squish_status do_list(squish_error *err) {
    int n = 0;
    SQ_TRY(sq_store_list(home, count, &n, err));
    if (own.kind == OWN_DISK) return SQUISH_OK; /* what cannot be read is passed over */
    return n == 3 ? SQUISH_OK : sq_fail(err, SQUISH_CORRUPT, "%d of 3 models are listed", n);
}

static bool count_made(void *user, const char *name, const char *path, const sq_store_made *m) {
    (void)path;
    *(int *)user += strcmp(name, "brief") == 0 && strcmp(m->from, "two") == 0 && m->parameters;
    return true;
}
static squish_status do_list_made(squish_error *err) {
    int n = 0;
    SQ_TRY(sq_store_made_each(home, count_made, &n, err));
    if (own.kind == OWN_DISK) return SQUISH_OK;
    return n == 1 ? SQUISH_OK : sq_fail(err, SQUISH_CORRUPT, "%d of 1 made models are listed", n);
}

static squish_status do_locate(squish_error *err) {
    static const char *const names[] = {"one", "brief", "me/found"};
    static const char *const ends[] = {"models/one", "models/two", "snapshots/0abc"};
    char path[4096];
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        SQ_TRY(sq_store_locate(home, names[i], path, sizeof path, err));
        const size_t n = strlen(path), k = strlen(ends[i]);
        if (n < k || strcmp(path + n - k, ends[i]) != 0)
            return sq_fail(err, SQUISH_CORRUPT, "%s is taken for %s", names[i], path);
    }
    return SQUISH_OK;
}

static squish_status do_copy(squish_error *err) { return sq_store_copy(home, "brief", "again", err); }
static void check_copy(squish_status st) {
    sq_store_made m;
    squish_error err = {0};
    const squish_status is = sq_store_made_read(home, "again", &m, &err);
    if (is == SQUISH_NOT_FOUND) {
        assert_int_not_equal(st, SQUISH_OK);
        return;
    }
    assert_ok(is, &err);
    assert_true(strcmp(m.from, "two") == 0 && strcmp(m.system, "Be brief.") == 0 && m.parameters);
    json_decref(m.root);
}

static squish_status do_remove(squish_error *err) { return sq_store_remove(home, "one", err); }
static void check_remove(squish_status st) { /* what is listed is whole */
    if (st == SQUISH_OK) assert_false(sq_os_exists(in("home/models/one-compressed")));
    if (sq_os_exists(in("home/models/one"))) {
        assert_int_not_equal(st, SQUISH_OK);
        assert_true(sq_os_exists(in("home/models/one/config.json")));
    }
    assert_true(sq_os_exists(in("home/models/two/config.json")));
}

static squish_status do_remove_made(squish_error *err) { return sq_store_remove(home, "brief", err); }
static void check_store(squish_status st) {
    (void)st;
    assert_true(sq_os_exists(in("home/models/one/config.json")));
    assert_true(sq_os_exists(in("home/models/two/config.json")));
}

static const trial trials[] = {
    {"pull", nothing, do_pull, check_pull, true, true},
    {"pull of a file", nothing, do_pull_file, check_pull_file, true, true},
    {"pull of a newer one", an_older_one, do_pull, check_newer, true, true},
    {"import of a folder", nothing, do_import_folder, check_import_folder, false, true},
    {"import of a file", nothing, do_import_file, check_import_file, false, true},
    {"list", a_store, do_list, check_store, false, false},
    {"list of made ones", a_store, do_list_made, check_store, false, false},
    {"locate", a_store, do_locate, check_store, false, false},
    {"copy", a_store, do_copy, check_copy, false, false},
    {"remove", a_store, do_remove, check_remove, false, false},
    {"remove a made one", a_store, do_remove_made, check_store, false, false},
};

/* ---- how ---------------------------------------------------------------------------------------- */

static int refusals;

static void begin_trial(const trial *t) {
    own_arm(OWN_NONE, 0, 0);
    remove_tree(home);
    assert_int_equal(mkdir(home, 0755), 0);
    t->prepare();
}

/* What a failure says. */
static void check_words(const trial *t, int n, squish_status st, const squish_error *err) {
    if (st == SQUISH_OK) return;
    if (err->code != st || !err->text[0] || strchr(err->text, '\n'))
        fail_msg("%s, %d: %s, but %s: %s", t->name, n, squish_status_name(st), squish_status_name(err->code),
                 err->text);
}

/* And once more, with nothing in the way. */
static void again(const trial *t, int n) {
    squish_error err = {0};
    own_arm(OWN_NONE, 0, 0);
    squish_status st = t->run(&err);
    if (st == SQUISH_INVALID && strstr(err.text, "already")) st = SQUISH_OK; /* it had come to its end */
    if (st == SQUISH_NOT_FOUND && strncmp(t->name, "remove", 6) == 0) st = SQUISH_OK;
    if (st != SQUISH_OK) fail_msg("%s, %d: again: %s", t->name, n, err.text);
    t->check(SQUISH_OK);
}

/* Each request for memory refused in turn; every `step`-th. */
static void each_allocation(const trial *t, own_kind kind, int step) {
    for (int n = 1; n < RUN_MAX; n += step) {
        squish_error err = {0};
        begin_trial(t);
        assert_int_equal(own_live(), 0);
        own_arm(kind, n, 0);
        const squish_status st = t->run(&err);
        const int asked = own.count, live = own_live();
        own_arm(OWN_NONE, 0, 0);
        if (live != 0) fail_msg("%s: request %d: %d blocks leaked (%s)", t->name, n, live, err.text);
        check_words(t, n, st, &err);
        t->check(st);
        if (asked < n) {
            if (st != SQUISH_OK) fail_msg("%s: %s", t->name, err.text);
            print_message("%s: %d requests for memory%s\n", t->name, asked,
                          kind == OWN_CURL ? " of libcurl" : "");
            return;
        }
        /* what can be done without is; libcurl may call it the network's */
        const bool told =
            st == SQUISH_OK || st == SQUISH_NO_MEMORY || (kind == OWN_CURL && st == SQUISH_NETWORK);
        if (!told) fail_msg("%s: request %d: %s: %s", t->name, n, squish_status_name(st), err.text);
        if (n % 8 == 1) again(t, n);
        refusals++;
    }
    fail_msg("%s: no end", t->name);
}

/* Of what takes long every fourth change is tried, another fourth in each run; SQUISH_LONG: all. */
static int step_of(const trial *t) { return t->slow && !getenv("SQUISH_LONG") ? 4 : 1; }
static int first_of(int step) { return 1 + (int)getpid() % step; }

static void each_change(const trial *t, int with) {
    const int step = step_of(t);
    for (int n = first_of(step); n < RUN_MAX; n += step) {
        squish_error err = {0};
        begin_trial(t);
        own_arm(OWN_DISK, n, with);
        squish_status st = t->run(&err);
        const int asked = own.count, live = own_live();
        own_arm(OWN_NONE, 0, 0);
        if (live != 0) fail_msg("%s: change %d: %d blocks leaked (%s)", t->name, n, live, err.text);
        check_words(t, n, st, &err);
        t->check(st);
        if (asked < n) {
            if (st != SQUISH_OK) fail_msg("%s: %s", t->name, err.text);
            print_message("%s: %d changes and reads (%s)\n", t->name, asked, strerror(with));
            return;
        }
        const bool told = st == SQUISH_OK || st == (with == ENOSPC ? SQUISH_NO_SPACE : SQUISH_IO);
        if (!told) fail_msg("%s: change %d: %s: %s", t->name, n, squish_status_name(st), err.text);
        again(t, n);
        refusals++;
    }
    fail_msg("%s: no end", t->name);
}

static void each_end(const trial *t) {
    const int step = step_of(t);
    for (int n = first_of(step); n < RUN_MAX; n += step) {
        begin_trial(t);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            squish_error err = {0};
            own_arm(OWN_DISK, n, OWN_END);
            _exit(t->run(&err) == SQUISH_OK ? 0 : 1);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) != OWN_ENDED && WEXITSTATUS(status) != 0)
            fail_msg("%s: end at change %d: status %d", t->name, n, WEXITSTATUS(status));
        t->check(WEXITSTATUS(status) == 0 ? SQUISH_OK : SQUISH_IO);
        again(t, n);
        if (WEXITSTATUS(status) == 0) {
            print_message("%s: ended at %d changes and reads\n", t->name, n / step);
            return;
        }
        refusals++;
    }
    fail_msg("%s: no end", t->name);
}

static void every_failing_allocation_is_told(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(trials); i++)
        if (has_curl || !trials[i].asks) each_allocation(&trials[i], OWN_MEMORY, 1);
}

static void libcurl_without_memory_is_told(void **state) {
    (void)state;
    if (has_curl) each_allocation(&trials[0], OWN_CURL, getenv("SQUISH_LONG") ? 1 : 11);
}

static void every_failing_change_is_told(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(trials); i++)
        if (has_curl || !trials[i].asks) each_change(&trials[i], EIO);
}

static void a_disk_that_fills_up_keeps_what_has_come(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(trials); i++)
        if (has_curl || !trials[i].asks) each_change(&trials[i], ENOSPC);
}

static void an_end_at_any_moment_leaves_whole_models(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(trials); i++)
        if (has_curl || !trials[i].asks) each_end(&trials[i]);
}

/* ---- the hub ------------------------------------------------------------------------------------- */

static void hex_of(const EVP_MD *md, const char *head, size_t n_head, const void *p, size_t n, char out[65]) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned k = 0;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_DigestInit_ex(c, md, NULL);
    EVP_DigestUpdate(c, head, n_head);
    EVP_DigestUpdate(c, p, n);
    EVP_DigestFinal_ex(c, sum, &k);
    EVP_MD_CTX_free(c);
    for (unsigned i = 0; i < k; i++) snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

#define COMMIT "0123456789012345678901234567890123456789"

/* The files of root, as a hub and a registry show them. */
static void fill_hub(void) {
    static char bytes[FILES][WEIGHT_BYTES], little[LITTLE_BYTES], tree[2048], manifest[512];
    static const char info[] = "{\"sha\": \"" COMMIT "\", \"cardData\": {\"license\": \"mit\"}}";
    char path[256], sum[65], head[32];
    int n = snprintf(tree, sizeof tree, "[");
    for (int i = 0; i < FILES; i++) {
        const bool large = strstr(files[i], "model.") != NULL;
        const size_t size = large ? WEIGHT_BYTES : SMALL_BYTES;
        snprintf(path, sizeof path, "%s/root/me/small/%s", top, files[i]);
        write_file(path, size, (uint64_t)i);
        FILE *f = fopen(path, "rb");
        assert_int_equal(fread(bytes[i], 1, size, f), size);
        fclose(f);
        const int k = snprintf(head, sizeof head, "blob %zu", size);
        hex_of(EVP_sha1(), head, (size_t)k + 1, bytes[i], size, sum);
        n += snprintf(tree + n, sizeof tree - (size_t)n,
                      "%s{\"type\": \"file\", \"path\": \"%s\", \"size\": %zu, \"oid\": \"%s\"",
                      i ? ", " : "", files[i], size, sum);
        hex_of(EVP_sha256(), "", 0, bytes[i], size, sum);
        if (large) n += snprintf(tree + n, sizeof tree - (size_t)n, ", \"lfs\": {\"oid\": \"%s\"}", sum);
        n += snprintf(tree + n, sizeof tree - (size_t)n, "}");
        snprintf(path, sizeof path, "/me/small/resolve/" COMMIT "/%s", files[i]);
        small_hub_page(&hub, path, bytes[i], size);
    }
    n += snprintf(tree + n, sizeof tree - (size_t)n, "]");
    small_hub_page(&hub, "/api/models/me/small/revision/main", info, sizeof info - 1);
    small_hub_page(&hub, "/api/models/me/small/tree/" COMMIT, tree, (size_t)n);
    write_file(in("root/.ollama/library/little/1b.gguf"), LITTLE_BYTES, 9);
    FILE *f = fopen(in("root/.ollama/library/little/1b.gguf"), "rb");
    assert_int_equal(fread(little, 1, LITTLE_BYTES, f), LITTLE_BYTES);
    fclose(f);
    hex_of(EVP_sha256(), "", 0, little, LITTLE_BYTES, sum);
    n = snprintf(manifest, sizeof manifest,
                 "{\"layers\": [{\"mediaType\": \"application/vnd.ollama.image.model\", \"digest\": "
                 "\"sha256:%s\", \"size\": %d}]}",
                 sum, LITTLE_BYTES);
    small_hub_page(&hub, "/v2/library/little/manifests/1b", manifest, (size_t)n);
    snprintf(path, sizeof path, "/v2/library/little/blobs/sha256:%s", sum);
    small_hub_page(&hub, path, little, LITTLE_BYTES);
}

static int begin(void **state) {
    (void)state;
    has_curl = own_begin();
    if (!has_curl) printf("skipped: no libcurl here: the store alone\n");
    if (!mkdtemp(top) || !small_hub_begin(&hub)) return 1;
    snprintf(home, sizeof home, "%s/home", top);
    setenv("HOME", top, 1);
    static const char *const gone[] = {"HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "OLLAMA_MODELS", "SQUISH_HOME"};
    for (size_t i = 0; i < SQ_COUNT(gone); i++) unsetenv(gone[i]);
    static const char *const dirs[] = {"root/me/small", "root/.ollama/library/little",
                                       ".cache/huggingface/hub/models--me--found/refs",
                                       ".cache/huggingface/hub/models--me--found/snapshots/0abc"};
    for (size_t i = 0; i < SQ_COUNT(dirs); i++)
        if (sq_os_mkdirs(in(dirs[i]), NULL) != SQUISH_OK) return 1;
    fill_hub();
    FILE *f = fopen(in(".cache/huggingface/hub/models--me--found/refs/main"), "wb");
    fputs("0abc", f);
    fclose(f);
    write_file(in(".cache/huggingface/hub/models--me--found/snapshots/0abc/config.json"), 9, 4);
    write_file(in(".cache/huggingface/hub/models--me--found/snapshots/0abc/model.safetensors"), 9, 5);
    return 0;
}

static int end(void **state) {
    (void)state;
    own_arm(OWN_NONE, 0, 0);
    small_hub_end(&hub);
    remove_tree(top);
    printf("%d failures\n", refusals);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failing_allocation_is_told),
        cmocka_unit_test(libcurl_without_memory_is_told),
        cmocka_unit_test(every_failing_change_is_told),
        cmocka_unit_test(a_disk_that_fills_up_keeps_what_has_come),
        cmocka_unit_test(an_end_at_any_moment_leaves_whole_models),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
