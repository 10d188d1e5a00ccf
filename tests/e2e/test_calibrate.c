/* SPDX-License-Identifier: Apache-2.0
 *
 * test_calibrate.c - squish calibrate on the shipped model: a file whose header says what was run, the same
 * for any number of threads, and refusals that leave nothing behind. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#define FEW "--tokens 192 --block 64 --quiet"

/* The header of a safetensors file as JSON, owned by the caller. */
static json_t *header_of(const char *name) {
    static char bytes[1 << 20];
    uint64_t n = 0;
    cli_slurp(name, bytes, sizeof bytes);
    memcpy(&n, bytes, sizeof n);
    assert_true(n > 0 && n < sizeof bytes - sizeof n);
    json_t *o = json_loadb(bytes + sizeof n, (size_t)n, 0, NULL);
    assert_non_null(o);
    return o;
}

static const char *meta_of(const json_t *head, const char *key) {
    return json_string_value(json_object_get(json_object_get(head, "__metadata__"), key));
}

static json_int_t floats_of(const json_t *head, const char *tensor) {
    const json_t *t = json_object_get(head, tensor);
    assert_string_equal(json_string_value(json_object_get(t, "dtype")), "F32");
    return json_integer_value(json_array_get(json_object_get(t, "shape"), 0));
}

static void calibrate_gives_file_size_tokens_inputs_and_time(void **state) {
    (void)state;
    const cli_result *r = sh("$S calibrate squish-tiny " FEW " -o $T/c.safetensors --json");
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_non_null(o);
    assert_int_equal(json_integer_value(json_object_get(o, "tokens")), 192);
    assert_int_equal(json_integer_value(json_object_get(o, "inputs")), 32);
    assert_true(json_number_value(json_object_get(o, "seconds")) > 0);
    assert_non_null(strstr(json_string_value(json_object_get(o, "file")), "/c.safetensors"));
    assert_int_equal(sh("test $(wc -c < $T/c.safetensors) = %lld",
                        (long long)json_integer_value(json_object_get(o, "bytes")))
                         ->status,
                     0);
    json_decref(o);
}

static void the_header_says_what_was_run_and_holds_every_input(void **state) {
    (void)state;
    assert_int_equal(sh("$S calibrate squish-tiny " FEW " -o $T/h.safetensors")->status, 0);
    json_t *head = header_of("h.safetensors");
    assert_string_equal(meta_of(head, "squish_calibration"), "1");
    assert_string_equal(meta_of(head, "architecture"), "qwen2");
    assert_string_equal(meta_of(head, "layers"), "8");
    assert_string_equal(meta_of(head, "tokens"), "192");
    assert_string_equal(meta_of(head, "block"), "64");
    assert_int_equal(strlen(meta_of(head, "text")), 16);
    assert_int_equal(json_object_size(head), 1 + 8 * 4 * 2);
    static const char *const inputs[] = {"attn_in", "attn_out", "ffn_in", "ffn_mid"};
    for (int layer = 0; layer < 8; layer++)
        for (int i = 0; i < 4; i++) {
            char name[64];
            snprintf(name, sizeof name, "%d.%s.mean_abs", layer, inputs[i]);
            const json_int_t cols = floats_of(head, name);
            assert_true(cols >= 64 && cols % 64 == 0);
            snprintf(name, sizeof name, "%d.%s.hessian", layer, inputs[i]);
            assert_int_equal(floats_of(head, name), cols * 64);
        }
    json_decref(head);
}

static void one_and_two_threads_write_the_same_bytes(void **state) {
    (void)state;
    assert_int_equal(sh("$S calibrate squish-tiny " FEW " --threads 1 -o $T/1.safetensors && "
                        "$S calibrate squish-tiny " FEW " --threads 2 -o $T/2.safetensors && "
                        "cmp $T/1.safetensors $T/2.safetensors")
                         ->status,
                     0);
}

static void a_text_of_ones_own_gives_other_sums(void **state) {
    (void)state;
    assert_int_equal(sh("seq 1 200 > $T/numbers.txt; $S calibrate squish-tiny " FEW
                        " --text $T/numbers.txt -o $T/n.safetensors && "
                        "$S calibrate squish-tiny " FEW " -o $T/m.safetensors")
                         ->status,
                     0);
    json_t *a = header_of("n.safetensors"), *b = header_of("m.safetensors");
    assert_string_not_equal(meta_of(a, "text"), meta_of(b, "text"));
    json_decref(a);
    json_decref(b);
}

static void without_an_output_the_file_lies_beside_the_tiers(void **state) {
    (void)state;
    assert_int_equal(sh("cp -r models/squish-tiny $T/model && $S calibrate $T/model " FEW " && "
                        "test -s $T/model-compressed/calibration.safetensors")
                         ->status,
                     0);
}

static void refusals_name_the_cause_and_leave_no_file(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
        int status;
    } cases[] = {
        {"printf short > $T/s.txt; $S calibrate squish-tiny --text $T/s.txt -o $T/no", "at least 64", 1},
        {"$S calibrate squish-tiny --block 100 -o $T/no", "block is 100 columns", 1},
        {"$S calibrate squish-tiny --tokens 3 -o $T/no", "tokens", 2},
        {"$S calibrate squish-tiny " FEW " --text $T/none.txt -o $T/no", "none.txt", 3},
        {"$S calibrate $T/nothing " FEW " -o $T/no", "nothing", 3},
        {"$S calibrate a b", "calibrate takes one model", 2},
        {"$S calibrate squish-tiny " FEW " -o $T/none/no", "none", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const cli_result *r = sh("%s", cases[i].line);
        if (r->status != cases[i].status) print_error("%s: %d %s", cases[i].line, r->status, r->err);
        assert_int_equal(r->status, cases[i].status);
        if (!strstr(r->err, cases[i].says)) print_error("%s: %s", cases[i].line, r->err);
        assert_non_null(strstr(r->err, cases[i].says));
        assert_int_equal(sh("ls $T | grep -q '^no'")->status, 1);
    }
}

static void too_little_memory_is_refused_with_the_figure(void **state) {
    (void)state;
    if (!cli_limits_work()) skip();
    const cli_result *r = sh("(ulimit -v 200000; $S calibrate squish-tiny --threads 1 --block 4096 "
                             "-o $T/mem)");
    assert_int_equal(r->status, 5);
    assert_non_null(strstr(r->err, "GB of them sums"));
    assert_int_equal(sh("ls $T | grep -q '^mem'")->status, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calibrate_gives_file_size_tokens_inputs_and_time),
        cmocka_unit_test(the_header_says_what_was_run_and_holds_every_input),
        cmocka_unit_test(one_and_two_threads_write_the_same_bytes),
        cmocka_unit_test(a_text_of_ones_own_gives_other_sums),
        cmocka_unit_test(without_an_output_the_file_lies_beside_the_tiers),
        cmocka_unit_test(refusals_name_the_cause_and_leave_no_file),
        cmocka_unit_test(too_little_memory_is_refused_with_the_figure),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
