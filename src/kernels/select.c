/* SPDX-License-Identifier: Apache-2.0
 *
 * select.c - chooses the kernels of this machine: scalar first, then every instruction set it has, oldest
 * first, each overriding what it does better. Runs once per engine. */
#include "kernels/kernels.h"

#include <string.h>

static const char *const ISA_NAMES[SQ_ISA_COUNT] = {"scalar", "avx2", "avx512", "neon"};

void sq_kernels_select(sq_kernels *k, uint32_t features, sq_isa isa_max) {
    sq_kernels_scalar(k);
    k->isa = "scalar";
#if defined(__x86_64__)
    if ((features & SQ_CPU_AVX2) && isa_max >= SQ_ISA_AVX2) {
        sq_kernels_avx2(k);
        k->isa = "avx2";
    }
    if ((features & SQ_CPU_AVX512) && isa_max >= SQ_ISA_AVX512) {
        sq_kernels_avx512(k, features);
        k->isa = (features & SQ_CPU_AVX512_VNNI) ? "avx512+vnni" : "avx512";
    }
#elif defined(__aarch64__)
    if ((features & SQ_CPU_NEON) && isa_max >= SQ_ISA_NEON) {
        sq_kernels_neon(k, features);
        k->isa = (features & SQ_CPU_DOTPROD) ? "neon+dotprod" : "neon";
    }
#else
    (void)features;
    (void)isa_max;
#endif
}

bool sq_isa_from_name(const char *name, sq_isa *out) {
    *out = SQ_ISA_COUNT;
    if (!name || !*name) return true;
    for (int i = 0; i < SQ_ISA_COUNT; i++)
        if (!strcmp(name, ISA_NAMES[i])) {
            *out = (sq_isa)i;
            return true;
        }
    return false;
}
