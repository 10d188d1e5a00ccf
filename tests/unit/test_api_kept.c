/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_kept.c - answers that are kept: the last 256, each for its own client, as copies. */
#include "api/api_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sq_api api;

static int setup(void **state) {
    (void)state;
    api = (sq_api){.alloc = sq_alloc_default()};
    return sq_api_kept_begin(&api) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    sq_api_kept_free(&api);
    return 0;
}

static void put(uint64_t client, const char *id, int number) {
    json_t *o = json_pack("{s:i}", "number", number), *m = json_pack("[i]", number);
    assert_true(sq_api_kept_put(&api, client, id, o, m));
    json_decref(o);
    json_decref(m);
}

/* -1: not there */
static int number_of(uint64_t client, const char *id) {
    json_t *o = NULL, *m = NULL;
    if (!sq_api_kept_get(&api, client, id, &o, &m)) return -1;
    const int n = (int)json_integer_value(json_object_get(o, "number"));
    assert_int_equal(json_integer_value(json_array_get(m, 0)), n);
    json_decref(o);
    json_decref(m);
    return n;
}

static void an_answer_belongs_to_the_client_that_asked(void **state) {
    (void)state;
    put(1, "resp_a", 7);
    assert_int_equal(number_of(1, "resp_a"), 7);
    assert_int_equal(number_of(2, "resp_a"), -1);
    assert_false(sq_api_kept_remove(&api, 2, "resp_a"));
    assert_true(sq_api_kept_remove(&api, 1, "resp_a"));
    assert_int_equal(number_of(1, "resp_a"), -1);
    assert_false(sq_api_kept_remove(&api, 1, "resp_a"));
}

static void the_least_recently_used_of_256_goes_first(void **state) {
    (void)state;
    char id[32];
    for (int i = 0; i < SQ_API_KEPT_MAX; i++) {
        snprintf(id, sizeof id, "resp_%d", i);
        put(1, id, i);
    }
    assert_int_equal(number_of(1, "resp_0"), 0); /* now it is the most recently used */
    put(1, "resp_new", 999);
    assert_int_equal(number_of(1, "resp_0"), 0);
    assert_int_equal(number_of(1, "resp_1"), -1);
    assert_int_equal(number_of(1, "resp_2"), 2);
    assert_int_equal(number_of(1, "resp_new"), 999);
}

static void what_is_kept_takes_64_megabytes_at_most_or_is_the_newest(void **state) {
    (void)state;
    enum { N = 12, BYTES = 8 << 20 };
    char *text = malloc(9 * BYTES), id[32];
    assert_non_null(text);
    memset(text, 'a', 9 * BYTES);
    json_t *o = json_pack("{s:i}", "number", 5), *m = json_pack("[is#]", 5, text, (int)BYTES);
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "resp_%d", i);
        assert_true(sq_api_kept_put(&api, 1, id, o, m));
    }
    int there = 0;
    for (int i = 0; i < N; i++) {
        snprintf(id, sizeof id, "resp_%d", i);
        const bool found = number_of(1, id) == 5;
        assert_true(found || there == 0); /* the first ones went */
        there += found;
    }
    assert_in_range(there, 3, 7); /* a buffer may have grown to twice its text */
    json_decref(m);
    m = json_pack("[is#]", 5, text, 9 * BYTES);
    assert_false(sq_api_kept_put(&api, 1, "resp_vast", o, m));
    json_decref(o);
    json_decref(m);
    free(text);
}

static void an_id_that_is_too_long_is_not_kept(void **state) {
    (void)state;
    char id[100];
    memset(id, 'x', sizeof id);
    id[sizeof id - 1] = 0;
    json_t *o = json_object();
    assert_false(sq_api_kept_put(&api, 1, id, o, o));
    assert_int_equal(number_of(1, id), -1);
    assert_int_equal(number_of(1, ""), -1);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_answer_belongs_to_the_client_that_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(the_least_recently_used_of_256_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_kept_takes_64_megabytes_at_most_or_is_the_newest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_id_that_is_too_long_is_not_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
