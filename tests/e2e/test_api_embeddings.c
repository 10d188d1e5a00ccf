/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_embeddings.c - how hidden states become one vector: as 1_Pooling/config.json or a GGUF file's
 * pooling_type says, else their mean with a warning. */
#include "support/api_run.h"
#include "squish_build.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static api_server server;
static char home[64];

enum { DIM = 512 };

/* The vector of three tokens; *warned: a header says that nobody told how. */
static void embed(const char *model, double v[DIM], bool *warned) {
    char body[200];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"input\":[[1000,2000,3000]]}", model);
    const api_reply *r = ask(&server, "POST", "/v1/embeddings", body);
    if (r->status != 200) fail_msg("%s: %d %s", model, r->status, r->body);
    *warned = strstr(r->head, "x-squish-warning") != NULL;
    json_t *o = json_loads(r->body, 0, NULL);
    const json_t *e = at(o, "data[0].embedding");
    assert_int_equal(json_array_size(e), DIM);
    for (size_t i = 0; i < DIM; i++) v[i] = json_real_value(json_array_get(e, i));
    json_decref(o);
}

static double cosine(const double *a, const double *b) { /* both have length 1 */
    double sum = 0;
    for (int i = 0; i < DIM; i++) sum += a[i] * b[i];
    return sum;
}

static bool is_for_embeddings(const char *model) {
    char body[100];
    snprintf(body, sizeof body, "{\"model\":\"%s\"}", model);
    json_t *o = ask_json(&server, "POST", "/api/show", body, 200);
    bool found = false;
    for (size_t i = 0; i < json_array_size(at(o, "capabilities")); i++)
        found |= strcmp(json_string_value(json_array_get(at(o, "capabilities"), i)), "embedding") == 0;
    json_decref(o);
    return found;
}

static void a_model_that_says_nothing_gives_the_mean_and_a_warning(void **state) {
    (void)state;
    double mean[DIM], last[DIM], first[DIM];
    bool warned;
    embed("squish-tiny", mean, &warned);
    assert_true(warned);
    assert_false(is_for_embeddings("squish-tiny"));
    embed("last", last, &warned);
    assert_false(warned);
    assert_true(is_for_embeddings("last"));
    embed("first", first, &warned);
    assert_false(warned);
    assert_true(cosine(mean, last) < 0.99 && cosine(mean, first) < 0.99 && cosine(first, last) < 0.99);
}

static void a_gguf_file_says_it_by_a_key(void **state) {
    (void)state;
    double want[DIM], got[DIM];
    bool warned;
    embed("last", want, &warned);
    embed("keyed", got, &warned);
    assert_false(warned);
    assert_true(cosine(want, got) > 0.9999);
    assert_true(is_for_embeddings("keyed"));
    embed("squish-tiny", want, &warned);
    embed("plain", got, &warned);
    assert_true(warned && cosine(want, got) > 0.9999);
    assert_false(is_for_embeddings("plain"));
}

/* ---- models ---------------------------------------------------------------------------------- */

/* A copy of squish-tiny whose makers want one of its tokens. */
static int make_folder(const char *name, const char *way) {
    char command[9000];
    snprintf(command, sizeof command,
             "mkdir -p %s/models && cp -r '%s' %s/models/%s && mkdir %s/models/%s/1_Pooling && "
             "echo '{\"word_embedding_dimension\":512,\"%s\":true}' > %s/models/%s/1_Pooling/config.json",
             home, server.path, home, name, home, name, way, home, name);
    return system(command);
}

/* Keys put in front of those of a GGUF file, filled up so that its tensors stay aligned. */
static size_t pooling_keys(char *out) {
    static const char key[] = "qwen2.pooling_type", filler[] = "x.filler";
    const uint32_t u32 = 4, string = 8, last = 3;
    const uint64_t n_key = sizeof key - 1, n_filler = sizeof filler - 1, n_text = 64 - 34 - 28;
    char *p = out;
#define PUT(value, n) (memcpy(p, value, n), p += (n))
    PUT(&n_key, 8);
    PUT(key, n_key);
    PUT(&u32, 4);
    PUT(&last, 4);
    PUT(&n_filler, 8);
    PUT(filler, n_filler);
    PUT(&string, 4);
    PUT(&n_text, 8);
    PUT("..", n_text);
#undef PUT
    return (size_t)(p - out);
}

static int add_pooling(const char *from, const char *to) {
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    char head[24], keys[64], block[1 << 16];
    uint64_t n_keys;
    bool ok = in && out && fread(head, 1, sizeof head, in) == sizeof head;
    if (ok && pooling_keys(keys) == sizeof keys) {
        memcpy(&n_keys, head + 16, 8);
        n_keys += 2;
        memcpy(head + 16, &n_keys, 8);
        ok = fwrite(head, 1, sizeof head, out) == sizeof head &&
             fwrite(keys, 1, sizeof keys, out) == sizeof keys;
    }
    for (size_t n; ok && (n = fread(block, 1, sizeof block, in)) > 0;) ok = fwrite(block, 1, n, out) == n;
    if (in) fclose(in);
    if (out) ok = fclose(out) == 0 && ok;
    return !ok;
}

static int make_ggufs(void) {
    char plain[128], keyed[128];
    squish_model *m;
    squish_export_result r;
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    snprintf(plain, sizeof plain, "%s/models/plain.gguf", home);
    snprintf(keyed, sizeof keyed, "%s/models/keyed.gguf", home);
    if (squish_model_open(&m, server.path, &o, NULL) != SQUISH_OK) return 1;
    const squish_status st = squish_export(m, "gguf", plain, NULL, &r, NULL);
    squish_model_close(m);
    return st != SQUISH_OK || add_pooling(plain, keyed);
}

static int setup(void **state) {
    (void)state;
    snprintf(home, sizeof home, "/tmp/squish-embed-XXXXXX");
    if (!mkdtemp(home)) return 1;
    sq_api_options o = api_options(&server);
    if (make_folder("last", "pooling_mode_lasttoken") || make_folder("first", "pooling_mode_cls_token") ||
        make_ggufs())
        return 1;
    o.home = home;
    return api_start(&server, &o);
}

static int teardown(void **state) {
    (void)state;
    char command[100];
    api_end(&server);
    snprintf(command, sizeof command, "rm -rf %s", home);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_says_nothing_gives_the_mean_and_a_warning),
        cmocka_unit_test(a_gguf_file_says_it_by_a_key),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
