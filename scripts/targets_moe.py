#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of lookahead routing into results/, and make the pages anew.

    scripts/targets_moe.py --text FILE [--build build] [--part NAME,...] [--runs N] [--shape-model DIR] [--print]

Parts: recall (squish-tiny-moe on FILE: maps fitted to its first half, guesses counted on the second), cost (what guesses
of a layer take at 128 experts: --shape-model, or two layers of qwen3-30b-a3b made for it)."""
import pathlib
import subprocess
import sys
import tempfile

import targets
from targets import row

ROOT = targets.ROOT
TINY = ROOT / "models/squish-tiny-moe"
COST_BAR = 12  # us


def recall(o):
    if not o.text:
        sys.exit("part recall needs --text FILE")
    command = f"squish bench moe squish-tiny-moe --text {o.text.name}"
    found = [r for r in targets.bench(o, "moe", TINY, "--text", o.text, "--runs", 1) if r.get("bench") == "moe recall"]
    out = []
    bars = {"t0": None, "router": 0.75, "calibrated": 0.94}
    what = {"t0": "experts of the tokens before", "router": "routers, nothing trained",
            "calibrated": "maps fitted to the other half"}
    for kind, bar in bars.items():
        layers = [r for r in found if r["kind"] == kind and r["layer"] >= 0]
        mean = next(r for r in found if r["kind"] == kind and r["layer"] < 0)
        last = {r["layer"]: r for r in sorted(layers, key=lambda r: r["moment"])}
        each = ", ".join(f"{t}: {r['value']:.3f}" for t, r in sorted(last.items()))
        out.append(row(f"squish-tiny-moe, {what[kind]}: strict recall@2, mean of layers", f">= {bar}" if bar else "measured",
                       f"{mean['value']:.3f} ({each}; {mean['tokens'] // len(last):,} tokens)", not bar or mean["value"] >= bar,
                       command, figures={t: r["value"] for t, r in last.items()}))
        if kind == "calibrated":
            early = [r for r in layers if r["moment"] == 0]
            out.append(row("squish-tiny-moe, maps fitted to the other half: covered by one expert more", ">= 0.98",
                           f"{mean['covered']:.3f}", mean["covered"] >= 0.98, command))
            out.append(row("squish-tiny-moe, the same maps a whole layer ahead: strict recall@2 and covered", "measured",
                           f"{sum(r['value'] for r in early) / len(early):.3f} and "
                           f"{sum(r['covered'] for r in early) / len(early):.3f}", True, command))
    return out


def cost(o):
    with tempfile.TemporaryDirectory() as tmp:
        model = o.shape_model
        if not model:
            model = pathlib.Path(tmp) / "moe"
            subprocess.run([sys.executable, ROOT / "scripts/make_shape.py", model, "qwen3-30b-a3b", "--layers", "2", "--tokenizer",
                            ROOT / "models/squish-tiny"], check=True, stdout=subprocess.DEVNULL)
        found = targets.bench(o, "moe", model, "--tier", "source", "--runs", o.runs)
    out = []
    for r in found:
        if r.get("bench") != "moe cost" or r["experts"] != 128:
            continue
        kind = r["name"].rpartition(" ")[2]
        out.append(row(f"guesses of a layer at 128 experts, hidden size {r['hidden']:,}, {kind}: time", f"<= {COST_BAR} us",
                       f"{r['value']:.1f} +- {r['noise']:.1f} us ({r['threads']} threads"
                       + (f"; {r['map_bytes'] / 1e3:.0f} kB of maps, which memory gives in {r['limit']:.1f} us)" if r["map_bytes"] else ")"),
                       r["value"] <= COST_BAR,
                       f"squish bench moe MODEL --tier source --runs {o.runs}"))
    return out


PARTS = {"recall": recall, "cost": cost}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--shape-model", type=pathlib.Path)
    parser.add_argument("--print", action="store_true", help="write no results")
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
