#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of caches in fewer bits into results/, and make the pages anew.

    scripts/targets_kv_votes.py [--build build] [--part NAME,...] [--text FILE] [--bytes N] [--shape MODEL]

Parts: tests, cost, memory, quality (all of them unless named). Memory and quality need a text that squish-tiny has not seen
(--text, or $SQUISH_TESTDATA/data/heldout-prose.txt), of which the first N bytes are read for quality; without one they are left out.
--shape: for memory, four layers of the 1.5B shape (scripts/make_shape.py --layers 4 makes them)."""
import re
import tempfile

import targets
from targets import row
from targets_weights import answer

KL = {"q8": 1e-4, "k8v4": 5e-4, "q4": 1.5e-3, "q2": 0.03}


def shares(build):
    """What the ladders of the first report keep in how many bits, out of running engines."""
    program = f"{build}/tests/e2e/test_kv_votes"
    _, out = targets.run(program)
    rows = []
    for name, bar, pattern, said in (
            ("PM-KVQ: tokens of 4,096 in 16, 8, 4 and 2 bits", "256, 768, 3072, 0", r"^pm: (\d+) (\d+) (\d+) (\d+) tokens, (\S+)x$",
             "{0}, {1}, {2}, {3}; {4}x fewer bytes than f16, scales and headers included"),
            ("MixKVQ: channels of a head of 64 in 16, 4 and 2 bits", "6, 26, 32", r"^mix: (\d+) (\d+) (\d+) of 64, (\S+) bits a channel, (\S+) with",
             "{0}, {1}, {2}; {3} bits a channel, {4} with scales and headers"),
            ("CocktailKV: chunks of 16 in 16, 4 and 2 bits", "2, 6, 8", r"^cocktail: (\d+) (\d+) (\d+) of 16$", "{0}, {1}, {2}")):
        found = re.search(pattern, out, re.M)
        got = ", ".join(found.groups()[: bar.count(",") + 1]) if found else "FAILED"
        rows.append(row(name, bar, said.format(*found.groups()) if found else got, got == bar, "build/tests/e2e/test_kv_votes"))
    return rows


def tests(build):
    return shares(build) + [targets.passes(build, program, name, bar) for program, name, bar in (
        ("unit/test_kv_rules", "options of the cache that do not go together, R1 to R17 one by one", "refused by both names"),
        ("prop/test_kernels_codes", "sealed tiles and their shrinking, every ISA against scalar, shrinking against sealing", "equal bits; <= 5 % more error from 8 bits, 9 % from 4"),
        ("unit/test_be_mix", "MixKVQ: classes, order, what is exact and what within half a step", "as the format says"),
        ("unit/test_be_looks", "SnapKV: what queries look at against the formula in double, what is copied out of tiles", "1e-4 of each; the same bits, or half a step"),
        ("e2e/test_kv_snap", "SnapKV and --kv-budget in engines: true positions, window and sink, any chunk, threads, instruction set, rollback, turns, company, giving way, restart, a chat ten times too long", "equal bits; never over the budget; refused by name"),
        ("unit/test_kv_rans", "archives of prefixes: any bytes through the entropy coder and back, every flipped bit and cut", "equal bytes; found"),
        ("unit/test_kv_snapshot", "prefixes written by one process and read by another, archived and not", "equal rows"),
        ("e2e/test_plan_kv", "squish plan: the longest context of each cache format, run to", "in the bytes that were planned, by RSS"),
        ("e2e/test_kv_votes", "PM-KVQ, MixKVQ and CocktailKV in engines: 256/768/3072/0 of 4,096, 6/26/32 of 64 and 2/6/8 of 16 out of running ones, rollback, conversation, budget, company, giving way, restart", "equal bits or near f16"))]


def cost(build):
    found = {r["name"]: r for r in answer(build, "bench", "kv-votes", "--runs", 9)["rows"]}
    command = "squish bench kv-votes --runs 9"

    def one(name, key, bar, unit, seed=None, parts=1):
        r = found[key]
        said = f"{r['value'] / parts:.3g} {unit}, median of nine runs (least {r['min'] / parts:.3g})"
        return row(name, f"<= {bar} {unit}", said + (f"; the seed's: {seed}" if seed else ""), r["value"] / parts <= bar, command)

    return [one("PM-KVQ: advance, a token", "PM-KVQ advance, a token", 10, "ns", "14 us"),
            one("PM-KVQ: lookup of a tile's rung", "PM-KVQ lookup, a tile", 2, "ns", "0.4 us"),
            one("PM-KVQ: a tile of 128 from 8 to 4 bits", "shrink a tile of 128, q8 to q4", 1, "us"),
            one("PM-KVQ: a tile of 128 from 4 to 2 bits", "shrink a tile of 128, q4 to q2", 1, "us"),
            one("a vector of 128 sealed in 8 bits", "seal a vector of 128, q8", 0.2, "us", "712 us"),
            one("a vector of 128 sealed in 4 bits", "seal a vector of 128, q4", 0.2, "us", "712 us"),
            one("a vector of 128 sealed in 2 bits", "seal a vector of 128, q2", 0.2, "us", "712 us"),
            one("MixKVQ: assign, a head of 128 a step", "MixKVQ assign, a head of 128 a step", 15, "ns", "72 us"),
            one("CocktailKV: 512 tokens of 64 judged and sealed, of keys and values each", "CocktailKV: judge and seal 512 tokens of 64", 30, "us", "895 us", 2)]


def memory(build, text, shape):
    """What a process holds more once a prompt is read, by RSS: squish-tiny at 4,064 tokens, another model at 16,384."""
    rows = []
    if not text.exists():
        return rows
    for model, what, at, kv, bars in (("squish-tiny", "squish-tiny", 4064, (), {"snap 2048 in q4": 4}),
                                      (shape, "four layers of the 1.5B shape", 16384, ("--kv", "f16"), {"the report's flags": 3.2})):
        if not model:
            continue
        found = answer(build, "bench", "kv-memory", model, "--text", text, "--at", at, *kv)["rows"]
        command = " ".join(("squish bench kv-memory", "squish-tiny" if model == "squish-tiny" else "SHAPE", "--text heldout-prose.txt --at", str(at), *kv))
        for r in found:
            if r["kv"] == "f16":
                continue
            bar = bars.get(r["kv"])
            rows.append(row(f"{what}, a prompt of {at} tokens, {r['kv']}: memory by RSS, against f16", f">= {bar}x" if bar else "-",
                            f"{r['f16_ratio']:.2f}x less ({r['value'] / 1e6:.1f} MB)", not bar or r["f16_ratio"] >= bar, command))
    return rows


def quality(build, text, size):
    if not text.exists():
        return []
    with tempfile.NamedTemporaryFile() as part:
        part.write(text.read_bytes()[:size].decode("utf-8", "ignore").encode())
        part.flush()
        found = answer(build, "bench", "kv", "squish-tiny", "--tier", "source", "--text", part.name, "--at", 256, "--runs", 1,
                       "--sparge-min", 512)["rows"]
    command = f"squish bench kv squish-tiny --tier source --sparge-min 512 --text heldout-prose.txt (first {size} bytes)"
    rows = []
    for r in found:
        if not r["name"].startswith("KL to f16, "):
            continue
        kind, read = r["kv"], r["read"]
        shares = "/".join(f"{100 * x:.0f}" for x in read)
        dropped = f", {100 * r['dropped']:.0f} % not there" if r["dropped"] else ""
        counts = r["read_sealed"] >= 0.7
        bar = KL.get(kind)
        if kind == "the report's flags":
            rows.append(row("squish-tiny, held-out prose in windows of 4,096, the report's flags all together: perplexity", "<= x1.03",
                            f"x{r['ppl_ratio']:.4f}", r["ppl_ratio"] <= 1.03, command))
        rows.append(row(f"squish-tiny, held-out prose in windows of 4,096, {kind}: KL to f16", f"<= {bar}" if bar else "-",
                        f"{r['value']:.2e} nats, perplexity x{r['ppl_ratio']:.4f}, {r['bytes_ratio']:.2f}x fewer bytes, read in 16/8/4/2 bits: "
                        f"{shares} %{dropped}" + ("" if counts or r["dropped"] else "; too little was compressed to count"), (counts and r["value"] <= bar) if bar else True, command))
    return rows


PARTS = {"tests": lambda o: tests(o.build), "cost": lambda o: cost(o.build),
         "memory": lambda o: memory(o.build, o.text, o.shape), "quality": lambda o: quality(o.build, o.text, o.bytes)}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    parser.add_argument("--shape")
    parser.add_argument("--bytes", type=int, default=100_000)
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
