/* SPDX-License-Identifier: Apache-2.0
 *
 * test_decode_allocations.c - the decode loop never allocates: counted through the library's allocator table
 * and through malloc itself, over answers long enough to cross pages of the cache. */
#include "support/faults.h"
#include "support/model_run.h"

#include <stdatomic.h>

static atomic_long n_malloc;

/* Every malloc of this process passes here (the linker binds to the program first). */
extern void *__libc_malloc(size_t n);
void *malloc(size_t n) {
    atomic_fetch_add(&n_malloc, 1);
    return __libc_malloc(n);
}

static void a_decoded_token_costs_no_allocation(void **state) {
    (void)state;
    struct sq_test_alloc_state counting = {0};
    const squish_alloc a = sq_test_alloc(&counting);
    squish_model_options mo = squish_model_options_default();
    squish_error err = {0};
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_gen *g;
    mo.alloc = &a;
    mo.tier = SQUISH_TIER_SOURCE;
    assert_ok(squish_model_open(&m, "models/squish-tiny", &mo, &err), &err);
    assert_ok(squish_engine_new(&e, m, NULL, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    const int32_t prompt[] = {309, 607, 289, 3542, 298};
    static const char *const stops[] = {"never in the text", "\x01"};
    squish_gen_options o = squish_gen_options_default();
    o.ignore_eos = true;
    o.stop = stops;
    o.n_stop = 2;
    o.logprobs = 5;
    o.sampling.top_k = 40;
    o.sampling.min_p = 0.01f;
    o.sampling.repetition_penalty = 1.1f;
    o.sampling.frequency_penalty = 0.1f;
    o.sampling.dry_multiplier = 0.8f;
    assert_ok(squish_gen_new(&g, s, prompt, 5, &o, &err), &err);
    const int64_t before = counting.count;
    const long malloc_before = atomic_load(&n_malloc);
    for (int i = 0; i < 200; i++) {
        squish_gen_event ev;
        assert_int_equal(squish_gen_next(g, &ev, &err), SQUISH_OK);
    }
    assert_int_equal(counting.count - before, 0);
    assert_int_equal(atomic_load(&n_malloc) - malloc_before, 0);
    squish_gen_free(g);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
    assert_int_equal(counting.live_bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_decoded_token_costs_no_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
