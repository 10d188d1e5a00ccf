/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_bw_avx512.c - packed integer matrices with AVX-512BW and no VNNI (k_gemm_packed.h): Skylake servers.
 *
 * Ladder. One thread of an Intel Xeon, family 6 model 85 stepping 4, at 1.75 GHz; 8960 x 1536 out of cache,
 * gcc 12; Gop/s of 1, 8 and 256 tokens:
 *
 *     rung                                              int4-g64           int8-g64           int3-g64
 *     kernels of AVX2                                   49, 76, 73         28, 52, 54         35, 45, 44
 *     8 lines held while 8 tokens pass                  58, 159, 152       29, 75, 76         52, 137, 127
 *     operands unpacked once for many tokens            -, -, 111          -, -, 67           -, -, 112
 *
 * Unpacking (k_gemm_q_avx512.c) loses here: sums of 16 bits beside those of 32 do not fit the registers. Of 8
 * lines and a token 8 vpmaddubsw, 7 additions and 2 instructions to widen go to two pipes; 8 bits want 4
 * instructions a line. */
#include "kernels/avx512/k_avx512.h"

#define VNNI 0
#include "kernels/avx512/k_gemm_packed.h"

#define NAME(field) sq_##field##__avx512bw
SQ_PACKED_KERNELS(NAME, gemm_blocks)
