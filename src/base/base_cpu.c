/* SPDX-License-Identifier: Apache-2.0
 *
 * base_cpu.c - which instructions this machine has *and* whose registers the operating system saves.
 *
 * The answer is computed once. Two threads may both compute it at the start; they store the same word. */
#include "base/os_int.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t saved_registers(void) { /* XCR0 */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has_all(uint32_t word, uint32_t bits) {
    return (word & bits) == bits;
}

static uint32_t probe(void) {
    uint32_t a, b, c, d, f = 0;
    const uint32_t avx_f16c_osxsave_fma = 1u << 28 | 1u << 29 | 1u << 27 | 1u << 12;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, avx_f16c_osxsave_fma)) return 0;
    uint64_t saved = saved_registers();
    bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xE6) == 0xE6;
    if (!ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const uint32_t avx2_bmi2 = 1u << 5 | 1u << 8;
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    if (!has_all(b, avx2_bmi2)) return 0;
    f |= SQ_CPU_AVX2;
    bool wide = zmm && has_all(b, f_dq_bw_vl);
    if (wide) f |= SQ_CPU_AVX512;
    if (wide && has_all(c, 1u << 11)) f |= SQ_CPU_AVX512_VNNI;
    if (a < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return f;
    if (has_all(a, 1u << 4)) f |= SQ_CPU_AVX_VNNI;
    if (wide && has_all(a, 1u << 5)) f |= SQ_CPU_AVX512_BF16;
    return f;
}
#elif defined(__aarch64__)
static uint32_t probe(void) {
    return sq_os_arm_features();
}
#else
static uint32_t probe(void) {
    return 0;
}
#endif

uint32_t sq_cpu_features(void) {
    static _Atomic uint32_t word; /* the one mutable global: written once, always with the same value */
    const uint32_t known = 1u << 31;
    uint32_t f = atomic_load_explicit(&word, memory_order_relaxed);
    if (!(f & known)) {
        f = probe() | known;
        atomic_store_explicit(&word, f, memory_order_relaxed);
    }
    return f & ~known;
}

void sq_cpu_features_text(uint32_t features, char *out, size_t n) {
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {{SQ_CPU_AVX2, "avx2"},
                 {SQ_CPU_AVX512, "avx512"},
                 {SQ_CPU_AVX512_VNNI, "avx512_vnni"},
                 {SQ_CPU_AVX512_BF16, "avx512_bf16"},
                 {SQ_CPU_AVX_VNNI, "avx_vnni"},
                 {SQ_CPU_NEON, "neon"},
                 {SQ_CPU_DOTPROD, "dotprod"},
                 {SQ_CPU_I8MM, "i8mm"},
                 {SQ_CPU_FP16, "fp16"}};
    if (n == 0) return;
    out[0] = '\0';
    size_t len = 0;
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        if (!(features & names[i].bit)) continue;
        size_t need = strlen(names[i].name) + (len > 0);
        if (need >= n - len) return; /* never half a name */
        snprintf(out + len, n - len, "%s%s", len ? " " : "", names[i].name);
        len += need;
    }
}
