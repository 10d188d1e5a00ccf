#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of approximate attention of prompts into results/, and make the pages anew.

    scripts/targets_attention.py --shape MODEL [--build build] [--part NAME,...] [--text FILE] [--trials N]

Parts: tests, speed, quality, needle (all of them unless named). --shape: a model in the 1.5B shape (scripts/make_shape.py and
squish compress make one), for speed. Quality and needle need a text that squish-tiny has not seen (--text, or
$SQUISH_TESTDATA/data/heldout-prose.txt); without one they are left out. The needle is a pass key among paragraphs of the text, at
three depths in prompts of about 1,400 tokens: as far as squish-tiny finds it with exact attention."""
import random
import tempfile

import targets
from targets import row
from targets_weights import answer

MODES = (("exact", ()), ("sage", ("--sage-attention",)), ("sparge", ("--sparge-attn", "--sparge-min", "1024")),
         ("both", ("--sage-attention", "--sparge-attn", "--sparge-min", "1024")))


def tests(build):
    return [targets.passes(build, program, name, bar) for program, name, bar in (
        ("prop/test_kernels_keys", "keys in 8 bits and pooled, on every ISA against scalar, scalar against double", "equal bits, within bounds"),
        ("e2e/test_long_prompts", "Sage: any chunks, threads, ISA, prefix, company and preemption; Sparge: threads, ISA", "equal bits"))]


def bench(build, *args):
    return {r["name"]: r for r in answer(build, "bench", "attention", *args)["rows"]}


def speed(build, shape):
    found = bench(build, shape, "--at", 8192, "--runs", 7)
    command = "squish bench attention 1.5b.sqw --at 8192 --runs 7"
    exact, sage, sparge, both = (found[f"attention {m}, 8192"] for m, _ in MODES)

    def times(r):
        return f"{r['speedup']:.2f}x ({r['value']:.0f} +- {r['noise']:.0f} ms a layer"

    return [row("prefill attention, 8,192 tokens, 1.5B shape: exact, share of the multiply-adds' limit", "-",
                f"{100 * exact['share']:.0f} % ({exact['value']:.0f} +- {exact['noise']:.0f} ms a layer)", True, command),
            row("prefill attention, 8,192 tokens, 1.5B shape: Sage over exact", ">= 1.3x", times(sage) + ")", sage["speedup"] >= 1.3, command),
            row("prefill attention, 8,192 tokens, 1.5B shape: Sparge over exact, planted keys", ">= 1.8x at density <= 0.5", times(sparge) + f", density {sparge['density']:.2f})",
                sparge["speedup"] >= 1.8 and sparge["density"] <= 0.5, command),
            row("prefill attention, 8,192 tokens, 1.5B shape: both over exact", "-", times(both) + f", density {both['density']:.2f})", True, command)]


def quality(build, text):
    if not text.exists():
        return []
    found = bench(build, "squish-tiny", "--text", text, "--at", 4096, "--sparge-min", 1024)
    command = "squish bench attention squish-tiny --text heldout-prose.txt --at 4096 --sparge-min 1024"
    rows = []
    for mode, flags in MODES[1:]:
        r = found[f"KL {mode}, 4096"]
        rows.append(row(f"squish-tiny, 4,096 tokens of held-out prose, {mode}: KL to exact attention, second half", "-",
                        f"{r['value']:.1e} nats (worst {r['worst']:.1e}), same token {100 * r['same_token']:.1f} %, density {r['density']:.2f}",
                        True, command))
    exact = perplexity(build, text, ())
    for mode, flags in MODES[1:]:
        p = perplexity(build, text, flags)
        ratio = p["perplexity"] / exact["perplexity"]
        bar = 1.001 if mode == "sage" else 1.005
        rows.append(row(f"squish-tiny, 100 kB of held-out prose in windows of 4,096, {mode}: perplexity ratio", f"<= {bar}",
                        f"{ratio:.5f} ({p['perplexity']:.3f}, density {p['attn_density']:.2f})", ratio <= bar,
                        f"squish ppl squish-tiny --text PART --window 4096 {' '.join(flags)}"))
    return rows


def perplexity(build, text, flags):
    """Over the first 100 kB, six windows: enough to compare, and a whole text takes minutes four times over."""
    with tempfile.NamedTemporaryFile() as part:
        part.write(text.read_bytes()[:100_000].decode("utf-8", "ignore").encode())
        part.flush()
        return answer(build, "ppl", "squish-tiny", "--text", part.name, "--window", 4096, *flags)


def haystack(paragraphs, key, depth, rng, words=850):
    some, n = [], 0
    for p in rng.sample(paragraphs, len(paragraphs)):
        if n >= words:
            break
        some.append(p)
        n += len(p.split())
    some.insert(round(depth * len(some)), f"The pass key is {key}. Remember it.")
    return "\n\n".join(some) + "\n\nWhat is the pass key?"


def needle(build, text, trials):
    if not text.exists():
        return []
    paragraphs = [p.replace("\n", " ") for p in text.read_text().split("\n\n") if 30 <= len(p.split()) <= 150]
    hits, tokens, densities = {m: 0 for m, _ in MODES}, [], []
    for i in range(trials):
        rng = random.Random(i)
        key = rng.randint(1000, 9999)
        prompt = haystack(paragraphs, key, (0.2, 0.5, 0.8)[i % 3], rng)
        for mode, flags in MODES:
            r = answer(build, "run", "squish-tiny", prompt, "--temp", 0, "-n", 24, "--quiet", *flags)
            hits[mode] += str(key) in r["text"]
            if mode == "sparge":
                densities.append(r["attn_density"])
        tokens.append(r["prompt_tokens"])
    command = "scripts/targets_attention.py --part needle"
    mean = sum(densities) / len(densities)
    where = f"squish-tiny, pass key in prompts of {min(tokens)} to {max(tokens)} tokens, three depths, {trials} trials"
    return [row(f"{where}: {mode}", ">= 95 % of exact", f"{hits[mode]} found, exact {hits['exact']}" +
                (f", density {mean:.2f} behind token 1,024" if "spar" in mode else ""), hits[mode] >= 0.95 * hits["exact"], command)
            for mode, _ in MODES[1:]]


PARTS = {"tests": lambda o: tests(o.build), "speed": lambda o: speed(o.build, o.shape) if o.shape else [],
         "quality": lambda o: quality(o.build, o.text), "needle": lambda o: needle(o.build, o.text, o.trials)}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    parser.add_argument("--shape", help="a model of the 1.5B shape, for the part speed")
    parser.add_argument("--trials", type=int, default=30)
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
