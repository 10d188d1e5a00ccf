#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of grammars into results/, and make the pages anew.

    scripts/targets_grammar.py [--build build] [--part NAME,...] [--python PYTHON] [--shape-model DIR] [--print]

Parts: peers (times beside xgrammar and llguidance, from --python), oracle, generate, bombs, suites (counts, beside
llguidance's, and times over MaskBench), decode. The vocabulary is that of Qwen2 in $SQUISH_TESTDATA; decode measures squish-tiny and, with --shape-model, a folder in the 1.5B shape (scripts/make_shape.py,
with the tokenizer that scripts/grammar_peers.py --write-tokenizer makes)."""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import targets
from targets import row

ROOT = targets.ROOT
VOCABULARY = pathlib.Path(os.environ.get("SQUISH_TESTDATA", "")) / "fixtures/tokenizers/ggml-vocab-qwen2.gguf"


def closed(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
DOCUMENTS = {
    "flat": (closed(title=TEXT, year=WHOLE, publisher=TEXT, shelves={"type": "array", "items": TEXT}, lent={"type": "boolean"}),
             {"title": "Tides of the northern coast", "year": 1907, "publisher": "Harbour Press",
              "shelves": ["sea", "maps", "history"], "lent": True}),
    "nested": (closed(ticket=TEXT, state={"enum": ["open", "paid", "used", "void"]},
                      traveller=closed(name=TEXT, home=closed(street=TEXT, town=TEXT, code=TEXT)),
                      legs={"type": "array", "items": closed(**{"from": TEXT, "minutes": WHOLE, "fare": {"type": "number"},
                                                               "remark": {"anyOf": [TEXT, {"type": "null"}]}})}),
               {"ticket": "K-2210-B", "state": "paid",
                "traveller": {"name": "Marta Brandt", "home": {"street": "3 Ferry Steps", "town": "Aldersund", "code": "N417"}},
                "legs": [{"from": "pier 2", "minutes": 95, "fare": 12.4, "remark": None},
                         {"from": "main station", "minutes": 240, "fare": 31.75, "remark": "seat by the window"}]}),
    "any JSON": (None, {"a": [3, 0.25, "two \"words\" and \n a line", None, {"b": {"c": [False, True, {}]}}],
                        "place": "Köln 東京"}),
}


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, text=True, capture_output=True, check=False, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def answer(o, *args):
    return json.loads(run(f"{o.build}/squish", *args, "--json").strip().splitlines()[-1])


# ---- beside the peers ---------------------------------------------------------------------------------------------

def ours(o, work, name, schema, text):
    (work / "schema").write_text(json.dumps(schema or {"type": "object"}))
    (work / "text").write_text(text)
    compiled, reports = [], []
    for _ in range(5):
        r = answer(o, "grammar", VOCABULARY, "--check", work / "text", "--schema", work / "schema", "--bench", "--runs", 20)
        if not r["accepted"]:
            sys.exit(f"'{name}' is not read whole")
        compiled.append(r["compile_ms"])
        reports.append(r)
    r = sorted(reports, key=lambda r: r["mask_us"]["p99"])[2]
    return {"compile_ms": statistics.median(compiled), "mask_us": r["mask_us"]["p50"], "mask_p99_us": r["mask_us"]["p99"],
            "cold_p99_us": r["cold_mask_us"]["p99"], "advance_us": r["advance_us"]["p50"], "advance_p99_us": r["advance_us"]["p99"]}


def peers(o):
    figures, documents = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for name, (schema, value) in DOCUMENTS.items():
            text = json.dumps(value, ensure_ascii=False)
            figures["squish", name] = ours(o, work, name, schema, text)
            ids = answer(o, "tokenize", VOCABULARY, "--text", work / "text")
            documents[name] = {"schema": schema, "text": text, "ids": ids["ids"] if isinstance(ids, dict) else ids}
        (work / "documents.json").write_text(json.dumps(documents))
        out = run(o.python, ROOT / "scripts/grammar_peers.py", "--vocabulary", VOCABULARY, "--documents", work / "documents.json")
    versions = {}
    for line in out.splitlines():
        r = json.loads(line)
        figures[r["peer"], r["document"]] = r
        versions[r["peer"]] = r["version"]
    rows = []
    for title, key, unit, bar in (("mask, median", "mask_us", "us", 2), ("mask, p99", "mask_p99_us", "us", 25),
                                  ("cold mask, p99", "cold_p99_us", "us", 400), ("advance, median", "advance_us", "us", 0.5),
                                  ("advance, p99", "advance_p99_us", "us", 2), ("compile, median", "compile_ms", "ms", 0.5)):
        parts = []
        for peer in ("squish", *versions):
            values = " / ".join(f"{figures[peer, d][key]:.2f}" for d in DOCUMENTS)
            parts.append(f"{values} {unit}" if peer == "squish" else f"{peer} {versions[peer]}: {values}")
        worst = max(figures["squish", d][key] for d in DOCUMENTS)
        rows.append(row(f"grammar, {title}: flat, nested, any JSON; Qwen2's vocabulary", f"<= {bar} {unit}", "; ".join(parts), worst <= bar,
                        "make bench-grammar", figures={f"{p}, {d}": figures[p, d][key] for p, d in figures}))
    return rows


# ---- what is right ------------------------------------------------------------------------------------------------

def oracle(o):
    program, env = f"{o.build}/tests/prop/test_gram_props", dict(os.environ, SQUISH_GRAMMAR_STATES=str(o.states))
    out = subprocess.run([program], cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    good = out.returncode == 0 and "[  PASSED  ]" in out.stdout + out.stderr
    return [row(f"masks of {o.states} random states equal to trying every token of Qwen2's vocabulary", "all equal",
                "all equal" if good else "DIFFERENT", good, f"SQUISH_GRAMMAR_STATES={o.states} {program}")]


def generate(o):
    program, env = f"{o.build}/tests/prop/test_gram_generate", dict(os.environ, SQUISH_GRAMMAR_OUTPUTS=str(o.outputs))
    out = subprocess.run([program], cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    line = re.search(r"^\{.*\}$", out.stdout, re.M)
    r = json.loads(line.group()) if line else {"outputs": 0, "finished": 0, "valid": 0, "cut": 0, "mended": 0, "schemas": 0}
    share = r["finished"] / max(1, r["outputs"])
    good = out.returncode == 0 and share >= 0.95 and r["valid"] == r["finished"] and r["mended"] == r["cut"]
    return [row(f"{o.outputs} answers from random logits over the schemas of MaskBench: finished within 1,024 tokens; of these valid",
                ">= 95 %, 100 %; the rest can be finished", f"{100 * share:.2f} %, {r['valid']} of {r['finished']}; of {r['cut']} cut off {r['mended']} could be finished",
                good, f"SQUISH_GRAMMAR_OUTPUTS={o.outputs} {program}")]


def bombs(o):
    program = f"{o.build}/tests/unit/test_gram_bombs"
    out = subprocess.run([program], cwd=ROOT, text=True, capture_output=True, check=False)
    found = re.findall(r"^bomb (.+): ([0-9.]+) ms, ([0-9.]+) MB,", out.stdout, re.M)
    slowest = max((float(ms), name) for name, ms, _ in found)
    largest = max((float(mb), name) for name, _, mb in found)
    good = out.returncode == 0 and slowest[0] <= 250 and largest[0] <= 64
    return [row(f"{len(found)} sources that end other engines: compiled or refused by name", "<= 250 ms, <= 64 MB",
                f"{slowest[0]:.1f} ms ({slowest[1]}), {largest[0]:.1f} MB ({largest[1]})", good, program)]


def suites(o):
    """The counts of the two suites, and the times of masks over all of MaskBench."""
    program = f"{o.build}/tests/golden/test_grammar_suite"
    out = subprocess.run([program], cwd=ROOT, text=True, capture_output=True, check=False)
    text = out.stdout + out.stderr
    found = {part: tuple(map(int, n)) for part, *n in re.findall(
        r"^(\S+): (\d+) right, (\d+) wrongly accepted, (\d+) wrongly rejected, (\d+) of refused schemas", text, re.M)}
    names = ("draft2020-12", "draft2020-12/optional", "draft2020-12/optional/format")
    right, accepted, rejected, refused = map(sum, zip(*(found[n] for n in names)))
    peer = [json.loads(line) for line in run(o.python, ROOT / "scripts/grammar_suite_peer.py", VOCABULARY.parent.parent).splitlines()]
    theirs = sum(p["right"] for p in peer if p["part"] in names)
    rows = [row("JSON-Schema-Test-Suite, 2020-12 with its optional parts, against the engine",
                "llguidance's count + 70; <= 20 wrongly accepted, all listed",
                f"{right} right (llguidance {theirs}), {accepted} wrongly accepted, {rejected} wrongly rejected, {refused} of refused schemas",
                out.returncode == 0 and right >= theirs + 70 and accepted <= 20, "make bench-grammar")]
    program = f"{o.build}/tests/golden/test_maskbench"
    out = subprocess.run([program], cwd=ROOT, text=True, capture_output=True, check=False, env={**os.environ, "SQUISH_LONG": "1"})
    text = out.stdout + out.stderr
    n, right, wrong, refused = map(int, re.search(r"^(\d+) schemas: (\d+) right, (\d+) wrong, (\d+) refused", text, re.M).groups())
    p50, p90, p99, p999, most = map(float, re.search(
        r"^mask, cold, us: p50 (\S+), p90 (\S+), p99 (\S+), p99.9 (\S+), max (\S+) ", text, re.M).groups())
    return [*rows, row(f"MaskBench, {n} schemas, Qwen2's vocabulary: schemas wholly right; wrong", ">= 88 %; <= 0.2 %",
                       f"{100 * right / n:.1f} %; {wrong} wrong, {refused} refused by name",
                       out.returncode == 0 and right >= 0.88 * n and wrong <= 0.002 * n, f"SQUISH_LONG=1 {program}"),
            row("masks over all of MaskBench, each grammar cold", "p50 <= 20 us, p99 <= 400",
                f"p50 {p50} us, p90 {p90}, p99 {p99}, p99.9 {p999}, longest {most}", p50 <= 20 and p99 <= 400, f"SQUISH_LONG=1 {program}")]


# ---- speed of answers ---------------------------------------------------------------------------------------------

def decode(o):
    """squish bench schema: both answers in one process, token by token in turn."""
    rows = []
    for model, path in (("squish-tiny", ROOT / "models/squish-tiny"), ("1.5B shape, 151,936 tokens", o.shape_model)):
        if not path:
            continue
        for r in answer(o, "bench", "schema", path, "--tier", "0", "--runs", o.rounds)["rows"]:
            rows.append(row(f"decode under a grammar over decode without, {r['name']}, {model}", ">= 0.98",
                            f"{r['value']:.3f} ({r['tok_s']:.1f} over {r['tok_s_off']:.1f} tok/s; middle half +-{r['noise']:.3f} of {r['runs']} runs); "
                            f"{r['forced_tokens']} tokens forced", r["value"] >= 0.98, "make bench-grammar GRAMMAR_PARTS=decode"))
    return rows


PARTS = {"peers": peers, "oracle": oracle, "generate": generate, "bombs": bombs, "suites": suites, "decode": decode}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--python", default=sys.executable, help="one that has the peers")
    parser.add_argument("--shape-model", type=pathlib.Path)
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--outputs", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=15, help="of decode")
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    parts = o.part.split(",")
    if unknown := [p for p in parts if p not in PARTS]:
        parser.error(f"no part '{unknown[0]}', wanted {', '.join(PARTS)}")
    if not VOCABULARY.is_file() and set(parts) - {"bombs", "decode"}:
        parser.error("peers, oracle, generate and suites need $SQUISH_TESTDATA")
    rows = [r for name in parts for r in PARTS[name](o)]
    for r in rows:
        print(f"{'ok  ' if r['ok'] else 'MISS'} {r['name']}: {r['value']} ({r['bar']})")
    if not o.print:
        targets.write_result(rows)
        targets.pages()


if __name__ == "__main__":
    main()
