/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_claims.c - the figures of the first report, and which of our rows stands beside each. */
#include "bench/bench.h"

#define WAVE_KV "Module latency: keys and values"
#define WAVE_IO "Module latency: reading and weights"
#define WAVE_SIZE "Memory of keys and values"
#define WAVE_SNR "Three bits with a low-rank compensator"
#define WAVE_ATTN "Attention"

const bench_claim bench_wave12_claims[] = {
    {WAVE_KV, "PM-KVQ, advance of the schedule", "14 us", "PM-KVQ advance, a token", NULL, 1e-3, "us", NULL},
    {WAVE_KV, "PM-KVQ, bits of a token", "0.4 us", "PM-KVQ lookup, a tile", NULL, 1e-3, "us", NULL},
    {WAVE_KV, "MixKVQ, bits of a step's channels", "72 us", "MixKVQ assign, a head of 128 a step", NULL, 1e-3,
     "us", NULL},
    {WAVE_KV, "MixKVQ, quantise a vector", "712 us", "seal a vector of 128, q4", NULL, 0, "us",
     "a vector of 128 in 4 bits, of a whole tile"},
    {WAVE_KV, "MixKVQ, read a vector back", "205 us", NULL, NULL, 0, "us",
     "ours is never read back: attention reads codes"},
    {WAVE_KV, "Cocktail, keep 512 tokens", "895 us", "CocktailKV: judge and seal 512 tokens of 64", NULL, 0.5,
     "us", "keys; values take as long"},
    {WAVE_KV, "Cocktail, read 512 tokens back", "187 us", "attention at 1024, q4", NULL, 1e3, "us",
     "ours is never read back: attention of all layers of a token over 1,024 tokens, on their codes"},
    {WAVE_IO, "AgileIO, cold read of 64 KiB", "89 us", "read 64 KiB, cold", NULL, 0, "us", NULL},
    {WAVE_IO, "AgileIO, cold read of 1 MiB", "126 us", "read 1 MiB, cold", NULL, 0, "us", NULL},
    {WAVE_IO, "AgileIO, cached read", "3.5 us", "get and read 64 KiB, warm", NULL, 0, "us",
     "64 KiB of weights, all of them read"},
    {WAVE_IO, "AgileIO, three files fetched ahead", "297 us", "prefetch of three and gets", NULL, 0, "us",
     "three units of 64 KiB, past the page cache"},
    {WAVE_IO, "MiLo, quantise 128 x 256", "99 ms", "milo 128x256 time", NULL, 0, "ms", NULL},
    {WAVE_IO, "MiLo, pack 8,192 values of 3 bits", "4,200 us", "pack 8192 int3", NULL, 0, "us", NULL},
    {WAVE_SIZE, "MixKVQ: times less memory than 16 bits", "3.9", "bytes a token at 2048, k4v2", "f16_ratio",
     0, "x", "--kv k4v2, measured growth of the process"},
    {WAVE_SIZE, "PM-KVQ: times less memory than 16 bits", "4.2", "bytes a token at 2048, q4", "f16_ratio", 0,
     "x", "--kv q4, measured growth of the process"},
    {WAVE_SIZE, "eight bits: times less memory than 16 bits", "-", "bytes a token at 2048, q8", "f16_ratio",
     0, "x", "--kv q8"},
    {WAVE_SNR, "64 x 128, rank 8", "14.7 dB", "milo 64x128 rank 8", NULL, 0, "dB", NULL},
    {WAVE_SNR, "128 x 256, rank 8", "13.9 dB", "milo 128x256 rank 8", NULL, 0, "dB", NULL},
    {WAVE_SNR, "256 x 512, rank 8", "13.5 dB", "milo 256x512 rank 8", NULL, 0, "dB", NULL},
    {WAVE_ATTN, "SageAttn, times faster", "2.1 (paper)", "attention sage, 2048", "speedup", 0, "x",
     "prompts of 2,048 tokens, against our exact attention"},
    {WAVE_ATTN, "SpargeAttn, times faster", "2.5 to 5 (paper)", "attention sparge, 2048", "speedup", 0, "x",
     "prompts of 2,048 tokens on planted keys"},
    {WAVE_ATTN, "both", "2.1 to 5 (paper)", "attention both, 2048", "speedup", 0, "x", NULL},
};
const size_t bench_wave12_count = SQ_COUNT(bench_wave12_claims);

#define EOE_LOAD "Loading"
#define EOE_SPEED "Answering"

const bench_claim bench_eoe_claims[] = {
    {EOE_LOAD, "load, warm", "0.33 to 0.53 s (1.5B); 2.27 s (7B)", "load_ms", NULL, 1e-3, "s", NULL},
    {EOE_LOAD, "load, cold", "4.6 s (Ollama, 7B); 1.96 to 28 s (mlx_lm, 1.5B)", "load_cold_ms", NULL, 1e-3,
     "s", "pages are read when they are needed"},
    {EOE_LOAD, "every byte in memory, cold", "-", "cold_resident_s", NULL, 0, "s", NULL},
    {EOE_LOAD, "memory added by loading", "160 MB (1.5B)", "load_anon_added_mb", NULL, 0, "MB",
     "anonymous; weights stay in the file's pages"},
    {EOE_LOAD, "peak memory of loading", "402 MB (1.5B)", "load_anon_peak_mb", NULL, 0, "MB", NULL},
    {EOE_LOAD, "start of the program to the first byte of an answer", "-", "first_byte_ms", NULL, 0, "ms",
     NULL},
    {EOE_SPEED, "first token", "148 ms (1.5B); 533 ms (7B)", "first token after 128", NULL, 0, "ms",
     "a prompt of 128 tokens"},
    {EOE_SPEED, "decode", "18.9 tok/s, 7.5 later (1.5B); 14.3 (7B)", "decode at 64", NULL, 0, "tok/s", NULL},
    {EOE_SPEED, "prompt", "-", "prefill 128", NULL, 0, "tok/s", NULL},
};
const size_t bench_eoe_count = SQ_COUNT(bench_eoe_claims);
