#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the first report has and nothing else here measures, into results/, and the pages are made anew.

    scripts/targets_seed.py [--build build] [--part NAME,...] [--work DIR] [--layers 2] [--tokens 4500] [--print]

Parts: qwen3-8b and qwen2.5-7b run its command lines verbatim, on shapes of those names (random weights, as many layers as --layers says),
with a long prompt on standard input, and say what each flag touched; poc runs the commands of its "proof of concept" (times: on a quiet
machine); int2 makes the 14B shape in 2 bits (29.6 GB of holes, 5 GB of disk) and says its bytes, int2-speed how fast it opens and answers (on
a quiet machine). --work keeps the shapes and their tiers (a store: $SQUISH_HOME of the lines)."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

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
    p = subprocess.run([f"{o.build}/squish", *words[1:], "--json", "--ctx", str(o.tokens + 1024), "-n", "300", "--ignore-eos", "--allow-collapsed"],
                       cwd=targets.ROOT, env=env, input=prompt(o.tokens), text=True, capture_output=True, check=False)
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


def poc(o):
    """Both in a store of their own, so that the first one builds its tier."""
    rows = []
    source = o.work / "poc" / "squish-tiny"
    for extra, what, bar in (([], "every step passes; about 19 s reported", 19), (["--skip-convert"], "every step passes; 0.33 s reported", 0.33)):
        line = ["poc", "--skip-download", "--skip-reference", *extra]
        if not extra:
            shutil.rmtree(o.work / "poc", ignore_errors=True)
            shutil.copytree(targets.ROOT / "models" / "squish-tiny", source)
        begin = time.monotonic()
        p = subprocess.run([f"{o.build}/squish", *line, source, "--json", "-q"], cwd=targets.ROOT, text=True, capture_output=True, check=False,
                           env={**os.environ, "SQUISH_HOME": str(o.work / "poc-home")})
        seconds = time.monotonic() - begin
        answer = json.loads(p.stdout or "{}")
        checks = answer.get("checks", [])
        beside = {r["name"]: r["value"] for r in answer.get("beside", [])}
        passed = sum(c["ok"] for c in checks)
        loads = f"load {beside['load, warm'] * 1e3:.2f} ms warm, {beside['load, cold'] * 1e3:.2f} ms cold; " if extra and beside.get("load, cold") else ""
        ok = p.returncode == 0 and passed == len(checks) > 0 and (beside["load, warm"] if extra else seconds) <= bar
        rows.append(row(f"squish {' '.join(line)}: squish-tiny", what, f"{loads}{seconds:.1f} s in all, {passed} of {len(checks)} steps pass", ok,
                        f"squish {' '.join(line)}"))
    return rows


def int2_file(o):
    out = o.work / "14b"
    tier = o.work / "14b-int2"
    file = tier / "squish_4bit" / "model.sqw"
    if not (out / "config.json").exists():
        subprocess.run([sys.executable, "scripts/make_shape.py", out, "14b", "--tokenizer", "models/squish-tiny"], cwd=targets.ROOT, check=True)
    if not file.exists():
        subprocess.run([f"{o.build}/squish", "compress", out, "--tier", "0", "--bits", "2", "--method", "rtn", "--refine", "off", "--unchecked", "-q",
                        "-o", tier], cwd=targets.ROOT, check=True)
    return file, out


def int2(o):
    file, out = int2_file(o)
    source = sum(f.stat().st_size for f in out.glob("*.safetensors"))
    size = file.stat().st_size
    return [row("14B shape, INT2: bytes on disk", "printed beside 4.3 GB", f"{size / 1e9:.3f} GB of {source / 1e9:.1f} GB in bf16", True,
                "squish compress 14b --bits 2")]


def int2_speed(o):
    file, _ = int2_file(o)
    found = {r["name"]: r for r in targets.bench(o, "load", file, "--runs", 5)}
    first = {r["name"]: r for r in targets.bench(o, "prefill", file, "--at", 128, "--runs", 3)}
    load, token = found["load_ms"], first["first token after 128"]
    return [row("14B shape, INT2: warm open to ready", "<= 15 ms", f"median {load['value']:.2f} ms", load["value"] <= 15, "squish bench load"),
            row("14B shape, INT2: first token after 128", "printed beside 1,345 ms", f"{token['value']:.0f} ms", True, "squish bench prefill --at 128")]


PARTS = {name: (lambda o, line=(name, kind, line): [measure(o, *line)]) for name, kind, line in LINES}
PARTS |= {"poc": poc, "int2": int2, "int2-speed": int2_speed}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/seed"))
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4500)
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    o.work = o.work.resolve()
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
