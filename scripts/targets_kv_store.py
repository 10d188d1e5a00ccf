#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what is found and held by a cache in fewer bits into results/, and make the pages anew.

    scripts/targets_kv_store.py [--build build] [--shape MODEL] [--part NAME,...] [--text FILE] [--trials N] [--kv FORMAT]

Parts: needle, bytes (all of them unless named). needle: pass keys in prompts of 600, 1,000 and 1,500 tokens of a text that
squish-tiny has not seen (--text, or $SQUISH_TESTDATA/data/heldout-prose.txt); lengths at which f16 finds fewer than 80 % do not count.
bytes: needs --shape, a model in the 1.5B shape."""

import targets
from targets import row
from targets_weights import answer


def needle_rows(found, command):
    """found: rows of `squish bench needle`."""
    f16 = {r["at"]: r for r in found if r["kv"] == "f16"}
    lengths = [n for n, r in f16.items() if r["found"] >= 0.8 * r["trials"]]
    base = sum(f16[n]["found"] for n in lengths)
    trials = sum(f16[n]["trials"] for n in lengths)
    rows, kinds = [], dict.fromkeys(r["kv"] for r in found if r["kv"] != "f16")
    for kind in kinds:
        mine = [r for r in found if r["kv"] == kind and r["at"] in lengths]
        hits = sum(r["found"] for r in mine)
        each = ", ".join(f"{r['found']} at {r['at']}" for r in mine)
        rows.append(row(f"squish-tiny, pass key at three depths read sealed, {trials} trials: {kind}", ">= 95 % of f16",
                        f"{100 * hits / base:.1f} % ({hits} found, f16 {base}; {each})", hits >= 0.95 * base, command))
    return rows


def needle(build, text, trials, kv):
    if not text.exists():
        return []
    one = ["--kv", kv] if kv else []
    found = answer(build, "bench", "needle", "squish-tiny", "--text", text, "--at", "600,1000,1500", "--runs", trials, "--sparge-min", 512, *one)["rows"]
    return needle_rows(found, f"squish bench needle squish-tiny --text heldout-prose.txt --runs {trials} --sparge-min 512 {' '.join(one)}".strip())


def bytes_rows(build, shape):
    if not shape:
        return []
    found = answer(build, "bench", "kv", shape, "--at", "8192,16384", "--runs", 1)["rows"]
    command = "squish bench kv 1.5b.sqw --at 8192,16384 --runs 1"
    rows = []
    for r in found:
        if r["name"].startswith("bytes a token"):
            off = r["value"] / r["limit"] - 1
            rows.append(row(f"1.5B shape, {r['kv']}: bytes a token, slope of RSS from 8k to 16k", f"{r['limit']:.0f} +- 5 %",
                            f"{r['value']:.0f} ({100 * off:+.1f} %)", abs(off) <= 0.05, command))
    return rows


PARTS = {"needle": lambda o: needle(o.build, o.text, o.trials, o.kv), "bytes": lambda o: bytes_rows(o.build, o.shape)}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    parser.add_argument("--shape")
    parser.add_argument("--trials", type=int, default=34)
    parser.add_argument("--kv", help="needle: caches of this format alone, beside f16")
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
