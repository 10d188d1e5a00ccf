/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_cpu.c - the feature word and its text. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void the_word_is_stable_and_consistent(void **state) {
    (void)state;
    uint32_t f = sq_cpu_features();
    assert_int_equal(f, sq_cpu_features());
    const uint32_t needs_avx512 = SQ_CPU_AVX512_VNNI | SQ_CPU_AVX512_BF16;
    if (f & needs_avx512) assert_true(f & SQ_CPU_AVX512);
    if (f & (SQ_CPU_AVX512 | SQ_CPU_AVX_VNNI)) assert_true(f & SQ_CPU_AVX2);
    assert_int_equal(f >> 9, 0);
}

static void the_word_agrees_with_the_compiler(void **state) {
    (void)state;
#if defined(__x86_64__)
    __builtin_cpu_init();
    uint32_t f = sq_cpu_features();
    bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (f & SQ_CPU_AVX2) assert_true(avx2);
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    assert_int_equal((f & SQ_CPU_AVX512) != 0, avx512);
    assert_int_equal((f & SQ_CPU_AVX512_VNNI) != 0, avx512 && __builtin_cpu_supports("avx512vnni"));
#elif defined(__aarch64__)
    assert_true(sq_cpu_features() & SQ_CPU_NEON);
#else
    assert_int_equal(sq_cpu_features(), 0);
#endif
}

static void the_text_names_the_bits_and_never_half_a_name(void **state) {
    (void)state;
    char text[256];
    sq_cpu_features_text(0, text, sizeof text);
    assert_string_equal(text, "");
    sq_cpu_features_text(SQ_CPU_AVX2 | SQ_CPU_AVX512 | SQ_CPU_AVX512_VNNI, text, sizeof text);
    assert_string_equal(text, "avx2 avx512 avx512_vnni");
    sq_cpu_features_text(0x1FF, text, sizeof text);
    assert_string_equal(text, "avx2 avx512 avx512_vnni avx512_bf16 avx_vnni neon dotprod i8mm fp16");
    sq_cpu_features_text(0x1FF, text, 12);
    assert_string_equal(text, "avx2 avx512");
    sq_cpu_features_text(0x1FF, text, 11);
    assert_string_equal(text, "avx2");
    sq_cpu_features_text(0x1FF, text, 1);
    assert_string_equal(text, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_word_is_stable_and_consistent),
        cmocka_unit_test(the_word_agrees_with_the_compiler),
        cmocka_unit_test(the_text_names_the_bits_and_never_half_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
