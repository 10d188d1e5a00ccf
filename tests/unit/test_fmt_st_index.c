/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_st_index.c - checkpoints: which files belong to one, what is refused with which advice, and our
 * own models. */
#include "format/format.h"
#include "support/cpu_clock.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

#define U8(name, n) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[0," #n "]}}"
#define INDEX "model.safetensors.index.json"

static void put_st(const scratch *dir, const char *file, const char *header, size_t data) {
    bytes b = st_file(header, data);
    scratch_write(dir, file, b.p, b.n);
    drop(&b);
}

static void keep_line(void *user, const char *line) { snprintf(user, 512, "%s", line); }

static void an_index_joins_its_shards(void **state) {
    (void)state;
    scratch d = scratch_make();
    char warning[512] = "";
    put_st(&d, "m-1.safetensors", U8("zeta", 3), 3);
    put_st(&d, "m-2.safetensors", U8("alpha", 5), 5);
    put_st(&d, "stray.safetensors", U8("alpha", 1), 1); /* not in the index, so not read */
    scratch_text(&d, INDEX,
                 "{\"metadata\":{\"total_size\":1},\"weight_map\":"
                 "{\"zeta\":\"m-1.safetensors\",\"alpha\":\"m-2.safetensors\"}}");
    sq_safetensors *s;
    squish_error err = {0};
    if (sq_st_open(&s, d.path, NULL, keep_line, warning, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_st_count(s), 2);
    assert_string_equal(sq_st_at(s, 0)->name, "alpha");
    assert_string_equal(sq_st_at(s, 0)->file, "m-2.safetensors");
    assert_string_equal(sq_st_at(s, 1)->name, "zeta");
    assert_null(sq_st_at(s, 2));
    assert_int_equal(sq_st_find(s, "alpha")->bytes, 5);
    assert_null(sq_st_find(s, "beta"));
    assert_int_equal(sq_st_bytes(s), 16 + strlen(U8("zeta", 3)) + strlen(U8("alpha", 5)) + 8);
    assert_string_equal(warning, "");
    sq_st_close(s);
    scratch_remove(&d);
}

static void a_tensor_the_index_does_not_know_is_a_warning(void **state) {
    (void)state;
    scratch d = scratch_make();
    char warning[512] = "";
    put_st(&d, "m.safetensors",
           "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
           2);
    scratch_text(&d, INDEX, "{\"weight_map\":{\"a\":\"m.safetensors\"}}");
    sq_safetensors *s;
    assert_int_equal(sq_st_open(&s, d.path, NULL, keep_line, warning, NULL), SQUISH_OK);
    assert_int_equal(sq_st_count(s), 2);
    assert_string_equal(warning, "1 tensors are not in " INDEX ", the first is 'b' in m.safetensors");
    sq_st_close(s);
    assert_int_equal(sq_st_open(&s, d.path, NULL, NULL, NULL, NULL), SQUISH_OK); /* nobody listens */
    sq_st_close(s);
    scratch_remove(&d);
}

static void model_safetensors_goes_before_a_union(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    put_st(&d, "x.safetensors", U8("x", 1), 1);
    put_st(&d, "y.safetensors", U8("y", 1), 1);
    sq_safetensors *s;
    assert_int_equal(sq_st_open(&s, d.path, NULL, NULL, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_st_count(s), 2);
    sq_st_close(s);
    put_st(&d, "model.safetensors", U8("m", 1), 1);
    assert_int_equal(sq_st_open(&s, d.path, NULL, NULL, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_st_count(s), 1);
    assert_non_null(sq_st_find(s, "m"));
    sq_st_close(s);
    assert_int_equal(sq_st_open(&s, scratch_path(&d, path, "y.safetensors"), NULL, NULL, NULL, NULL),
                     SQUISH_OK);
    assert_string_equal(sq_st_at(s, 0)->file, "y.safetensors");
    sq_st_close(s);
    scratch_remove(&d);
}

/* Shards behind symbolic links, as the hub's cache keeps them. */
static void linked_shards_are_followed(void **state) {
    (void)state;
    scratch d = scratch_make(), blobs = scratch_make();
    char from[512], to[512];
    put_st(&blobs, "0123abcd", U8("w", 4), 4);
    scratch_path(&blobs, to, "0123abcd");
    assert_int_equal(symlink(to, scratch_path(&d, from, "model.safetensors")), 0);
    sq_safetensors *s;
    assert_int_equal(sq_st_open(&s, d.path, NULL, NULL, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_st_find(s, "w")->bytes, 4);
    sq_st_close(s);
    scratch_remove(&d);
    scratch_remove(&blobs);
}

/* Up to three files in a directory and what opening it says. data TEXT: a text file, else a safetensors
 * header and bytes of data. */
typedef struct {
    struct {
        const char *name, *content;
        size_t data;
    } files[3];
    squish_status code;
    const char *message;
} bad_case;
#define TEXT SIZE_MAX
#define MAP(file) "{\"weight_map\":{\"w\":\"" file "\"}}"

static void bad_directories_are_refused_with_advice(void **state) {
    (void)state;
    static const bad_case cases[] = {
        {{{0}}, SQUISH_NOT_FOUND, "holds no *.safetensors file"},
        {{{"pytorch_model.bin", "x", TEXT}},
         SQUISH_NOT_FOUND,
         "holds only pickled PyTorch weights ('pytorch_model.bin'), which can run code and are never read; "
         "get the "
         "model's safetensors files or convert it with transformers: model.save_pretrained"},
        {{{"consolidated.00.pth", "x", TEXT}}, SQUISH_NOT_FOUND, "('consolidated.00.pth')"},
        {{{"q4.gguf", "x", TEXT}}, SQUISH_NOT_FOUND, "holds no safetensors but a GGUF file; give its path: "},
        {{{"model.safetensors.incomplete", "x", TEXT}},
         SQUISH_NOT_FOUND,
         "is half a download; fetch the model again"},
        {{{"model.safetensors", "version https://git-lfs.github.com/spec/v1\noid", TEXT}},
         SQUISH_NOT_FOUND,
         "model.safetensors is a git-lfs pointer"},
        {{{"model.safetensors", "", TEXT}}, SQUISH_CORRUPT, "model.safetensors: 0 bytes, wanted at least 10"},
        {{{"a.safetensors", U8("w", 1), 1}, {"b.safetensors", U8("w", 1), 1}},
         SQUISH_CORRUPT,
         "tensor 'w' stands in two files, "},
        /* the index */
        {{{INDEX, "{", TEXT}}, SQUISH_CORRUPT, INDEX ": line 1"},
        {{{INDEX, "[]", TEXT}}, SQUISH_CORRUPT, INDEX ": 'weight_map' is missing"},
        {{{INDEX, "{\"weight_map\":[]}", TEXT}},
         SQUISH_CORRUPT,
         "'weight_map' is something else, wanted an object"},
        {{{INDEX, "{\"weight_map\":{}}", TEXT}}, SQUISH_CORRUPT, "'weight_map' is empty"},
        {{{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\",\"w\":\"a.safetensors\"}}", TEXT}},
         SQUISH_CORRUPT,
         "duplicate object key"},
        {{{INDEX, "{\"weight_map\":{\"w\":7}}", TEXT}},
         SQUISH_CORRUPT,
         "'weight_map' entry 'w' is no string"},
        {{{INDEX, MAP("../m.safetensors"), TEXT}},
         SQUISH_CORRUPT,
         "'w' is '../m.safetensors', wanted a plain file name"},
        {{{INDEX, MAP("/etc/m.safetensors"), TEXT}}, SQUISH_CORRUPT, "wanted a plain file name"},
        {{{INDEX, MAP("a\\\\m.safetensors"), TEXT}}, SQUISH_CORRUPT, "wanted a plain file name"},
        {{{INDEX, MAP("..safetensors"), TEXT}}, SQUISH_CORRUPT, "wanted a plain file name"},
        {{{INDEX, MAP(".safetensors"), TEXT}}, SQUISH_CORRUPT, "wanted a plain file name"},
        {{{INDEX, MAP(""), TEXT}}, SQUISH_CORRUPT, "wanted a plain file name"},
        {{{INDEX, MAP("pytorch_model-1.bin"), TEXT}},
         SQUISH_UNSUPPORTED,
         "'w' is 'pytorch_model-1.bin', wanted *.safetensors"},
        {{{INDEX, MAP("m.safetensors"), TEXT}}, SQUISH_NOT_FOUND, "shard 'm.safetensors' is missing; fetch"},
        {{{INDEX, MAP("m.safetensors"), TEXT}, {"m.safetensors.incomplete", "", TEXT}},
         SQUISH_NOT_FOUND,
         "shard 'm.safetensors' is missing, its download stopped half way; fetch the model again"},
        {{{INDEX, MAP("m.safetensors"), TEXT}, {"m.safetensors", U8("x", 1), 1}},
         SQUISH_CORRUPT,
         "tensor 'w' should be in 'm.safetensors', it is in no shard"},
        {{{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\",\"x\":\"b.safetensors\"}}", TEXT},
          {"a.safetensors", U8("x", 1), 1},
          {"b.safetensors", U8("w", 1), 1}},
         SQUISH_CORRUPT,
         "tensor 'w' should be in 'a.safetensors', it is in b.safetensors"},
        {{{INDEX, "{\"weight_map\":{\"w\":\"a.safetensors\",\"x\":\"b.safetensors\"}}", TEXT},
          {"a.safetensors", U8("w", 1), 1},
          {"b.safetensors", U8("w", 1), 1}},
         SQUISH_CORRUPT,
         "tensor 'w' stands in two files, "},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        scratch d = scratch_make();
        char before[1024], after[1024];
        for (int f = 0; f < 3 && cases[i].files[f].name; f++) {
            if (cases[i].files[f].data == TEXT) {
                scratch_text(&d, cases[i].files[f].name, cases[i].files[f].content);
            } else {
                put_st(&d, cases[i].files[f].name, cases[i].files[f].content, cases[i].files[f].data);
            }
        }
        scratch_list(&d, before);
        sq_safetensors *s = (sq_safetensors *)1;
        squish_error err = {0};
        squish_status st = sq_st_open(&s, d.path, NULL, NULL, NULL, &err);
        if (st != cases[i].code || !strstr(err.text, cases[i].message)) {
            fail_msg("case %zu: status %d, '%s', wanted '%s'", i, st, err.text, cases[i].message);
        }
        assert_null(s);
        scratch_list(&d, after);
        assert_string_equal(before, after);
        scratch_remove(&d);
    }
}

static void paths_that_are_no_checkpoint_are_named(void **state) {
    (void)state;
    scratch d = scratch_make();
    char path[512];
    sq_safetensors *s;
    squish_error err = {0};
    assert_int_equal(sq_st_open(&s, scratch_path(&d, path, "none"), NULL, NULL, NULL, &err),
                     SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "/none"));
    err = (squish_error){0};
    scratch_text(&d, "weights.bin", "x");
    assert_int_equal(sq_st_open(&s, scratch_path(&d, path, "weights.bin"), NULL, NULL, NULL, &err),
                     SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "weights.bin' is a pickled PyTorch file"));
    assert_int_equal(mkfifo(scratch_path(&d, path, "model.safetensors"), 0600), 0);
    assert_int_not_equal(sq_st_open(&s, d.path, NULL, NULL, NULL, NULL), SQUISH_OK); /* and does not hang */
    scratch_remove(&d);
}

static void open_ours(const char *dir, const char *name) {
    sq_safetensors *s;
    squish_error err = {0};
    uint64_t t0 = sq_test_cpu_ns();
    if (sq_st_open(&s, dir, NULL, NULL, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    uint64_t t = sq_test_cpu_ns() - t0, sum = 0;
    assert_non_null(sq_st_find(s, name));
    for (size_t k = 0; k < sq_st_count(s); k++) {
        const sq_ftensor *f = sq_st_at(s, k);
        assert_ptr_equal(sq_st_find(s, f->name), f);
        sum += f->bytes;
    }
    assert_true(sum < sq_st_bytes(s) && sum > sq_st_bytes(s) / 2);
    assert_true(t < 500 * 1000 * 1000); /* under a millisecond in a plain build */
    sq_st_close(s);
}

static void our_own_checkpoints_open(void **state) {
    (void)state;
    open_ours("models/squish-tiny", "model.embed_tokens.weight");
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    char **names, path[512];
    size_t n;
    assert_int_equal(sq_os_list_dir("tests/fixtures/architectures", &ar, &names, &n, NULL), SQUISH_OK);
    assert_true(n >= 11);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "tests/fixtures/architectures/%s", names[i]);
        if (sq_os_is_dir(path)) open_ours(path, "model.norm.weight");
    }
    sq_arena_deinit(&ar);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_joins_its_shards),
        cmocka_unit_test(a_tensor_the_index_does_not_know_is_a_warning),
        cmocka_unit_test(model_safetensors_goes_before_a_union),
        cmocka_unit_test(linked_shards_are_followed),
        cmocka_unit_test(bad_directories_are_refused_with_advice),
        cmocka_unit_test(paths_that_are_no_checkpoint_are_named),
        cmocka_unit_test(our_own_checkpoints_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
