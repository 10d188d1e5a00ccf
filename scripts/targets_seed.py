#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the command lines of the first report verbatim, on shapes of those names (random weights, as many layers as --layers says), with a
long prompt on standard input; what each flag touched goes into results/, and the pages are made anew.

    scripts/targets_seed.py [--build build] [--part NAME,...] [--work DIR] [--layers 4] [--tokens 9000] [--print]

--work keeps the shapes and their tiers (a store: $SQUISH_HOME of the lines)."""
import json
import os
import pathlib
import subprocess
import sys

import targets
from targets import row

LINES = [
    ("qwen3-8b", "qwen3-8b", "squish run --model qwen3-8b --pm-kvq --mix-kvq --cocktail-kv --agile-io --milo --sage-attention --sparge-attn"),
    ("qwen2.5-7b", "7b", "squish run --model qwen2.5-7b --pm-kvq --mix-kvq"),
]


def shape(o, name, kind):
    out = o.work / "models" / name
    if not (out / "config.json").exists():
        subprocess.run([sys.executable, "scripts/make_shape.py", out, kind, "--random", "--layers", str(o.layers), "--tokenizer", "models/squish-tiny"],
                       cwd=targets.ROOT, check=True)
        # Noise in few bits is noise: what a check says of it is of no use here.
        subprocess.run([f"{o.build}/squish", "compress", out, "--tier", "0", "--method", "rtn", "--refine", "off", "--unchecked", "-q"],
                       cwd=targets.ROOT, check=True)


def prompt(tokens):
    """Our own prose, over and over with a number each time, in about so many tokens of squish-tiny."""
    prose = (targets.ROOT / "tests/fixtures/own-prose.txt").read_text()
    text, k = "", 0
    while len(text) < tokens * 4.4:
        k += 1
        text += f"Part {k}. " + prose[(k * 7001) % 60000:][:20000] + "\n"
    return text[: int(tokens * 4.4)]


def measure(o, name, kind, line):
    shape(o, name, kind)
    words = line.split()
    env = {**os.environ, "SQUISH_HOME": str(o.work)}
    env.pop("SQUISH_TESTDATA", None)
    p = subprocess.run([f"{o.build}/squish", *words[1:], "--json", "--ctx", str(o.tokens + 1024), "-n", "300", "--ignore-eos"], cwd=targets.ROOT,
                       env=env, input=prompt(o.tokens), text=True, capture_output=True, check=False)
    label = f"seed command: {name}, {o.layers} layers, behind a prompt of some {o.tokens} tokens"
    if p.returncode:
        return row(label, "runs, every flag touches something or says why not", f"exit {p.returncode}: {p.stderr.strip()[-200:]}", False, line)
    answer = json.loads(p.stdout)
    touched = {t["name"]: t for t in answer.get("touched", [])}
    flags = [w[2:] for w in words[4:] if w.startswith("--")]
    told = [f"{f} {touched[f]['count']:.6g} {touched[f]['unit']}" + (f" ({touched[f]['why']})" if "why" in touched[f] else "")
            for f in flags if f in touched]
    ok = all(f in touched and (touched[f]["count"] or touched[f].get("why")) for f in flags)
    return row(label, "runs, every flag touches something or says why not",
               f"{answer['prompt_tokens']} + {len(answer['tokens'])} tokens: " + "; ".join(told), ok, line + " < prompt")


PARTS = {name: (lambda o, line=(name, kind, line): [measure(o, *line)]) for name, kind, line in LINES}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/seed"))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=9000)
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    o.work = o.work.resolve()
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
