/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hub_name.c - what names mean and that hostile ones lead nowhere; what hubs answer, read strictly. */
#include "fetch/fetch_pool.h"
#include "hub/hub.h"
#include "support/hostile_names.h"
#include "support/model_run.h"

#include <stdio.h>
#include <unistd.h>

/* ---- names ----------------------------------------------------------------------------------- */

static void names_mean_what_they_say(void **state) {
    (void)state;
    static const struct {
        const char *text, *name, *repo, *revision, *quant, *file;
        hub_kind kind;
    } rows[] = {
        {"hf.co/Qwen/Qwen2.5-0.5B", "hf.co/Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", "main", "", "", HUB_HF},
        {"huggingface.co/a/b:Q4_K_M", "hf.co/a/b:Q4_K_M", "a/b", "main", "Q4_K_M", "", HUB_HF},
        {"hf.co/a/b:latest", "hf.co/a/b", "a/b", "main", "", "", HUB_HF},
        {"hf.co/a/b@refs/pr/1", "hf.co/a/b", "a/b", "refs/pr/1", "", "", HUB_HF},
        {"https://huggingface.co/a/b/", "hf.co/a/b", "a/b", "main", "", "", HUB_HF},
        {"https://huggingface.co/a/b/tree/v1", "hf.co/a/b", "a/b", "v1", "", "", HUB_HF},
        {"https://hf.co/a/b/resolve/main/x-Q8_0.gguf?download=true", "hf.co/a/b:x-Q8_0", "a/b", "main", "",
         "x-Q8_0.gguf", HUB_HF},
        {"a/b", "hf.co/a/b", "a/b", "main", "", "", HUB_HF},
        {"ollama.com/llama3.2", "ollama.com/library/llama3.2:latest", "library/llama3.2", "latest", "", "",
         HUB_OLLAMA},
        {"registry.ollama.ai/me/x:1b", "ollama.com/me/x:1b", "me/x", "1b", "", "", HUB_OLLAMA},
        {"https://example.org/m/x-1.gguf?a=b", "x-1", "", "", "", "x-1.gguf", HUB_URL},
        {"QWEN2.5:1.5B", "qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct", "main", "", "", HUB_HF},
        {"qwen2.5", "qwen2.5:1.5b", "Qwen/Qwen2.5-1.5B-Instruct", "main", "", "", HUB_HF},
        {"qwen3:latest", "qwen3:8b", "Qwen/Qwen3-8B", "main", "", "", HUB_HF},
    };
    hub_catalog c;
    squish_error err = {0};
    assert_ok(hub_catalog_open(&c, "/nowhere", &err), &err);
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        hub_ref r;
        char key[512], back[256];
        assert_ok(hub_name(&c, rows[i].text, true, &r, &err), &err);
        assert_int_equal(r.kind, rows[i].kind);
        assert_string_equal(r.name, rows[i].name);
        assert_string_equal(r.repo, rows[i].repo);
        assert_string_equal(r.revision, rows[i].revision);
        assert_string_equal(r.quant, rows[i].quant);
        assert_string_equal(r.file, rows[i].file);
        assert_true(sq_store_key(r.name, key, sizeof key) && !strchr(key, '/'));
        sq_store_name_of_key(key, back, sizeof back);
        assert_string_equal(back, r.name);
    }
    static const char *const unclear[] = {"a-/b", "a/b-", "hf.co/a/b--c", "hf.co/a--b/c", "hf.co/a/b:q-"};
    for (size_t i = 0; i < SQ_COUNT(unclear); i++) { /* their folders would be called as others' are */
        hub_ref r;
        assert_int_equal(hub_name(&c, unclear[i], true, &r, NULL), SQUISH_INVALID);
    }
    assert_false(hub_is_name(&c, "a/b")); /* where a path or a prompt may be meant, hf.co/ is wanted */
    assert_false(hub_is_name(&c, "Why is the sky blue?"));
    hub_catalog_close(&c);
}

/* A key is one file name, and no two names share one. */
static void keys_lead_back_to_their_names(void **state) {
    (void)state;
    static const char *const rows[][2] = {{"mine:v1", "mine:v1"},
                                          {"me/mine:v1", "me%2Fmine:v1"},
                                          {"a/b/c/d", "a%2Fb%2Fc%2Fd"},
                                          {"me/a--b-", "me%2Fa--b-"},
                                          {"a--b", "a--b"},
                                          {"hf.co/a/b:q", "hf.co--a--b:q"}};
    static const char *const none[] = {"",     "a/",        "/a",    "a//b", "a/../b",
                                       "a/.b", "a/b/c/d/e", "a%2Fb", "a/b\n"};
    static const char *const strange[] = {"..%2Fx", "a%2F..%2Fb", "%2Fx", "a%2F", "a%b", "a%2Fb c"};
    char key[400], name[400];
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        assert_true(sq_store_key(rows[i][0], key, sizeof key));
        assert_string_equal(key, rows[i][1]);
        sq_store_name_of_key(key, name, sizeof name);
        assert_string_equal(name, rows[i][0]);
        assert_int_equal(sq_store_name_is_good(rows[i][0]), strncmp(rows[i][0], "hf.co/", 6) != 0);
    }
    assert_false(sq_store_name_is_good("hf.co--a--b")); /* its key is hf.co/a/b's */
    for (size_t i = 0; i < SQ_COUNT(none); i++)
        if (sq_store_key(none[i], key, sizeof key)) fail_msg("'%s' has the key '%s'", none[i], key);
    for (size_t i = 0; i < SQ_COUNT(strange); i++) { /* files of somebody's keep their names */
        sq_store_name_of_key(strange[i], name, sizeof name);
        assert_string_equal(name, strange[i]);
    }
}

static void the_bundled_catalogue_is_whole(void **state) {
    (void)state;
    hub_catalog c;
    squish_error err = {0};
    assert_ok(hub_catalog_open(&c, "/nowhere", &err), &err);
    assert_true(c.n >= 25);
    for (size_t i = 0; i < c.n; i++) {
        assert_true(c.entries[i].bytes > 1000000 && c.entries[i].billions > 0 && *c.entries[i].license);
        /* 16 bits a weight, as they are published; what is tied or stored twice makes a difference */
        const double a_weight = (double)c.entries[i].bytes / (c.entries[i].billions * 1e9);
        if (a_weight < 1.9 || a_weight > 2.6)
            fail_msg("%s: %.2f bytes a weight", c.entries[i].name, a_weight);
        for (size_t k = 0; k < i; k++) assert_string_not_equal(c.entries[i].name, c.entries[k].name);
    }
    hub_catalog_close(&c);
}

/* ---- hostile names --------------------------------------------------------------------------- */

static void five_hundred_hostile_names_open_nothing_outside(void **state) {
    (void)state;
    hostile_place h;
    char name[512];
    assert_true(hostile_begin(&h));
    hub_catalog c;
    squish_error err = {0};
    assert_ok(hub_catalog_open(&c, h.home, &err), &err);
    const hub_settings s = {.home = h.home, .endpoint = "http://127.0.0.1:9", .retries = 1};
    int taken = 0;
    for (int i = 0; i < HOSTILE_NAMES; i++) {
        char key[512];
        sq_store_made m;
        hub_ref r;
        hostile_name(i, h.outside, name, sizeof name);
        if (sq_store_key(name, key, sizeof key)) assert_true(!strchr(key, '/') && key[0] != '.');
        assert_int_not_equal(sq_store_made_read(h.home, name, &m, NULL), SQUISH_OK);
        assert_int_not_equal(sq_store_remove(h.home, name, NULL), SQUISH_OK);
        assert_int_not_equal(sq_store_copy(h.home, "secret", name, NULL), SQUISH_OK);
        assert_int_not_equal(hub_unfinished_remove(h.home, name, NULL), SQUISH_OK);
        if (hub_name(&c, name, true, &r, NULL) != SQUISH_OK) continue;
        taken++; /* of those it takes for a name, a pull stays in the store as well */
        assert_int_not_equal(hub_pull(&s, &r, NULL, NULL, NULL), SQUISH_OK);
    }
    assert_true(taken < 100);
    assert_true(hostile_end(&h));
    hub_catalog_close(&c);
    remove_tree(h.top);
}

/* ---- what hubs answer ------------------------------------------------------------------------ */

static void files_that_lead_out_of_a_repository_are_passed_over(void **state) {
    (void)state;
    static const char tree[] = "[{\"type\":\"file\",\"path\":\"../x.safetensors\",\"size\":1,\"oid\":\"a\"},"
                               "{\"type\":\"file\",\"path\":\"/etc/passwd\",\"size\":1,\"oid\":\"a\"},"
                               "{\"type\":\"file\",\"path\":\"sub/config.json\",\"size\":1,\"oid\":\"a\"},"
                               "{\"type\":\"file\",\"path\":\".git\",\"size\":1,\"oid\":\"a\"},"
                               "{\"type\":\"directory\",\"path\":\"sub\",\"size\":0,\"oid\":\"a\"},"
                               "{\"type\":\"file\",\"path\":\"a\\u0001b\",\"size\":1,\"oid\":\"a\"},"
                               "{\"type\":\"file\",\"path\":\"config.json\",\"size\":7,\"oid\":"
                               "\"0123456789012345678901234567890123456789\"},"
                               "{\"type\":\"file\",\"path\":\"model.safetensors\",\"size\":9,\"oid\":\"x\","
                               "\"lfs\":{\"size\":900,\"oid\":"
                               "\"0123456789012345678901234567890123456789012345678901234567890123\"}}]";
    hub_listing l;
    squish_error err = {0};
    hub_listing_init(&l);
    assert_ok(hub_read_tree(tree, sizeof tree - 1, &l, &err), &err);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.files[0].kind, FETCH_SUM_GIT);
    assert_int_equal(l.files[1].kind, FETCH_SUM_SHA256);
    assert_int_equal(l.files[1].bytes, 900);
    assert_ok(hub_choose(&l, "", "", &err), &err);
    assert_int_equal(l.bytes, 907);
    hub_listing_free(&l);
}

static void nonsense_of_hubs_is_refused(void **state) {
    (void)state;
    static const char *const trees[] = {"",
                                        "{}",
                                        "[1]",
                                        "[{\"path\":1}]",
                                        "[{\"path\":\"a\",\"size\":-1}]",
                                        "[{\"path\":\"a\",\"size\":1,\"oid\":\"xyz\"}]",
                                        "[{\"path\":\"a\",\"size\":1,\"lfs\":{\"oid\":\"00\"}}]",
                                        "[[[["};
    static const char *const infos[] = {"", "[]", "{}", "{\"sha\":1}", "{\"sha\":\"../../x\"}"};
    static const char *const manifests[] = {
        "", "[]", "{\"layers\":[]}",
        ("{\"layers\":[{\"mediaType\":\"application/"
         "vnd.ollama.image.model\",\"size\":1,\"digest\":\"sha256:../x\"}]}")};
    for (size_t i = 0; i < SQ_COUNT(trees); i++) {
        hub_listing l;
        hub_listing_init(&l);
        assert_int_not_equal(hub_read_tree(trees[i], strlen(trees[i]), &l, NULL), SQUISH_OK);
        if (i < SQ_COUNT(infos))
            assert_int_not_equal(hub_read_info(infos[i], strlen(infos[i]), &l, NULL), SQUISH_OK);
        if (i < SQ_COUNT(manifests))
            assert_int_not_equal(hub_read_oci(manifests[i], strlen(manifests[i]), &l, NULL), SQUISH_OK);
        hub_listing_free(&l);
    }
}

static void one_gguf_file_of_many_is_chosen(void **state) {
    (void)state;
    static const char *const paths[] = {"README.md",
                                        "m-Q2_K.gguf",
                                        "m-Q4_K_M-00002-of-00002.gguf",
                                        "mmproj-f16.gguf",
                                        "m-Q4_K_M-00001-of-00002.gguf",
                                        "m-Q8_0.gguf"};
    squish_error err = {0};
    static const char *const quants[] = {"", "q8_0", "Q2_K", "Q3_K"};
    static const char *const mains[] = {"m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf", "m-Q2_K.gguf", NULL};
    for (size_t q = 0; q < SQ_COUNT(quants); q++) {
        hub_listing l;
        hub_listing_init(&l);
        for (size_t i = 0; i < SQ_COUNT(paths); i++)
            assert_true(hub_add_file(&l, paths[i], 10, FETCH_SUM_NONE, NULL));
        const squish_status st = hub_choose(&l, quants[q], "", &err);
        assert_int_equal(st, mains[q] ? SQUISH_OK : SQUISH_NOT_FOUND);
        if (mains[q]) assert_string_equal(l.main, mains[q]);
        assert_int_equal(l.bytes, q == 0 ? 20 : mains[q] ? 10 : 0);
        hub_listing_free(&l);
    }
}

/* ---- heads and maps -------------------------------------------------------------------------- */

static void heads_of_answers_are_read(void **state) {
    (void)state;
    static const char *const lines[] = {"HTTP/1.1 206 Partial Content",
                                        "Content-Range: bytes 5-9/100",
                                        "ETag: W/\"abc\"",
                                        "content-length: 5",
                                        "X-Linked-Etag: \"0123\"",
                                        "Retry-After: 7",
                                        "Link: <https://x/y?cursor=2>; rel=\"next\"",
                                        "Content-Encoding: gzip"};
    fetch_head h = {0};
    uint64_t a, b, c;
    char origin[64];
    for (size_t i = 0; i < SQ_COUNT(lines); i++) fetch_read_header(&h, lines[i], strlen(lines[i]));
    assert_true(h.has_range && h.from == 5 && h.to == 10 && h.total == 100 && h.has_length && h.length == 5 &&
                h.packed);
    assert_string_equal(h.etag, "abc");
    assert_string_equal(h.linked_etag, "0123");
    assert_string_equal(h.next, "https://x/y?cursor=2");
    assert_true(h.retry_after_s == 7);
    fetch_read_header(&h, "HTTP/1.1 200 OK", 15); /* behind a redirect: only what hubs say on the way stays */
    assert_true(!h.has_range && !h.packed && !h.etag[0] && !h.next[0]);
    assert_string_equal(h.linked_etag, "0123");
    static const char *const bad[] = {"bytes 9-5/100",
                                      "bytes 0-99/50",
                                      "bytes */5",
                                      "0-5/6",
                                      "bytes 0-/6",
                                      "bytes -1-5/6",
                                      "bytes 0-99999999999999999999999/6",
                                      "bytes 0-18446744073709551615/*",
                                      "bytes 0-5/6x"};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) assert_false(fetch_read_range(bad[i], &a, &b, &c));
    assert_true(fetch_origin("HTTPS://Hf.co:443/a?b", origin, sizeof origin));
    assert_string_equal(origin, "https://hf.co");
    assert_true(fetch_origin("http://[::1]:8080", origin, sizeof origin));
    static const char *const none[] = {"ftp://x",
                                       "http://",
                                       "http://u@x/",
                                       "https://u:p@x",
                                       "x",
                                       "http:///a",
                                       "https://evil.example\\@hf.co/"};
    for (size_t i = 0; i + 1 < SQ_COUNT(none); i++)
        assert_false(fetch_origin(none[i], origin, sizeof origin));
    assert_true(fetch_origin(none[6], origin,
                             sizeof origin)); /* ends at the backslash, as curl and browsers see it */
    assert_string_equal(origin, "https://evil.example");
}

static void a_part_map_is_taken_only_if_it_is_of_this_file(void **state) {
    (void)state;
    static const char map[] = "squish-parts 1 3000000 abc\n#.#";
    uint8_t blocks[3];
    assert_true(fetch_map_read(map, sizeof map - 1, 3000000, "abc", blocks, 3));
    assert_true(blocks[0] && !blocks[1] && blocks[2]);
    assert_false(fetch_map_read(map, sizeof map - 1, 3000001, "abc", blocks, 3));
    assert_false(fetch_map_read(map, sizeof map - 1, 3000000, "abd", blocks, 3));
    assert_false(fetch_map_read(map, sizeof map - 2, 3000000, "abc", blocks, 3));
    assert_false(
        fetch_map_read("squish-parts 1 3000000 abc\n#?#", sizeof map - 1, 3000000, "abc", blocks, 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_mean_what_they_say),
        cmocka_unit_test(keys_lead_back_to_their_names),
        cmocka_unit_test(the_bundled_catalogue_is_whole),
        cmocka_unit_test(five_hundred_hostile_names_open_nothing_outside),
        cmocka_unit_test(files_that_lead_out_of_a_repository_are_passed_over),
        cmocka_unit_test(nonsense_of_hubs_is_refused),
        cmocka_unit_test(one_gguf_file_of_many_is_chosen),
        cmocka_unit_test(heads_of_answers_are_read),
        cmocka_unit_test(a_part_map_is_taken_only_if_it_is_of_this_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
