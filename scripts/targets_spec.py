#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of speculation into results/, and make the pages anew.

    scripts/targets_spec.py [--build build] [--part NAME,...] [--runs N] [--shape-model DIR] [--print]

Parts: rows (what rows of an answer and drafts cost, on squish-tiny and --shape-model), answers (bench/prompts with and
without guesses, in turns, squish-tiny and squish-tiny-moe), draft (the 4-bit tier of squish-tiny and squish-tiny-moe guess for its
16-bit weights, beside n-grams and its first layers), trees (a chain of guesses, side branches beside it, and acceptance by ratio,
in turns with none, on bench/prompts), equal (1,000 prompts, three temperatures, answers of 12 tokens, by n-grams, by heads, by another
model, by the first layers, and with side branches), peer (copying beside llama.cpp's n-grams; needs --llama-bin, a folder with its
llama-speculative-simple)."""
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile

import targets
from targets import row

ROOT = targets.ROOT
AGREEMENT = (0.514, 0.501, 0.497, 0.489)  # of the heads of squish-tiny, as squish train-heads measured it
PROMPTS = ROOT / "bench/prompts"
TINY = ROOT / "models/squish-tiny"
MOE = ROOT / "models/squish-tiny-moe"


def rows(o):
    out = []
    for name, model in [("squish-tiny", TINY)] + ([("1.5B shape", o.shape_model)] if o.shape_model else []):
        found = targets.bench(o, "spec", model, "--runs", o.runs,
                              *(["--draft", o.shape_draft] if o.shape_draft and model is not TINY else []))
        steps = {r["at"]: r for r in found if r.get("bench") == "spec rows"}
        by_name = {r["name"]: r for r in found}
        table = ", ".join(f"{m}: {r['cost']:.2f}" for m, r in steps.items())
        one = steps[1]["value"]
        command = f"squish bench spec {name} --runs {o.runs}"
        out.append(row(f"c(m), cost of a step of m rows of one answer, {name}", "measured", f"{table} (one row {one:.2f} ms)", True,
                       command, figures={m: r["cost"] for m, r in steps.items()}))
        for who in ("a guess of a third of the layers", "a guess of another model"):
            if who not in by_name:
                continue
            d, steps_of = by_name[who]["value"] / one, {m: r["cost"] for m, r in steps.items()}
            gain = {p: max(sum(p ** k for k in range(m)) / (steps_of[m] + (m - 1) * d) for m in (2, 3, 4)) for p in (0.6, 0.8, 0.95)}
            out.append(row(f"{name}: {who}", "measured", f"{by_name[who]['value']:.3f} ms, {d:.2f} of a step; with 1 to 3 guesses that are right at "
                           + ", ".join(f"{p}: {g:.2f}x" for p, g in gain.items()), True, command))
        if model is not TINY:
            step = steps[4]["value"]
            out.append(row(f"{name}: tokens a second at 1.48 and 2.38 tokens a step, three guesses each", "printed",
                           f"{1.48e3 / step:.2f} and {2.38e3 / step:.2f} (plain {1e3 / one:.2f}: "
                           f"{1.48 * one / step:.2f}x and {2.38 * one / step:.2f}x)", True, command))
            accept, find = by_name["accept 16 rows"]["value"], by_name["n-gram guess"]["value"]
            draft = by_name["draft of 4 heads"]["value"]
            out.append(row(f"{name}: a draft of four heads, 2,048 ids each", "<= 1.3 ms", f"{draft:.3f} ms", draft <= 1.3, command))
            own = sum(AGREEMENT[0] ** k for k in range(4))
            out.append(row(f"{name}: tokens a second at the acceptance of squish-tiny's heads ({AGREEMENT[0]:.2f} each, three guesses, the draft paid)",
                           "printed", f"{own * 1e3 / (step + draft):.2f} ({own:.2f} tokens a step; plain {1e3 / one:.2f}: "
                           f"{own * one / (step + draft):.2f}x)", True, command))
            peaks = by_name["accept 16 rows of peaks"]["value"]
            out.append(row(f"{name}: drawing from 16 rows of logits", "<= 1.75 ms",
                           f"{peaks:.3f} ms of rows made as text has them (a bell, 64 ids that stand out); {accept:.3f} ms of its own, "
                           "where every id is as likely as any", peaks <= 1.75, command))
            out.append(row(f"{name}: an n-gram guess in 2,048 tokens", "<= 5 us", f"{find:.2f} us", find <= 5, command))
    return out


def answers(o):
    """The bars of copying and of stories are for temperature 0; below 0.98 nothing may come."""
    out = []
    bars = {"copy": 2.0, "stories": 1.5}
    for model, name, mode in [(m, n, "auto") for m in (TINY, MOE) for n in o.files.split(",")] + [(TINY, "stories", "heads")]:
        for r in targets.bench(o, "spec", model, "--text", PROMPTS / f"{name}.jsonl", "--runs", o.runs, "--spec", mode):
            temperature = r["name"].rpartition(" ")[2]
            bar = bars.get(name, 0.98) if temperature == "0" and model is TINY and mode == "auto" else 0.98
            good, wish = r["differ"] == 0 and r["speedup"] >= bar, f">= {bar}x"
            out.append(row(f"{model.name}, {mode}, prompts '{name}', T {temperature}: time without guesses over time with",
                           wish + "; text equal",
                           f"{r['speedup']:.2f}x ({r['tok_s']:.0f} over {r['tok_s_off']:.0f} tok/s, {r['tokens_per_step']:.2f} tokens a step; "
                           f"{r['right']} of {r['guessed']} guesses right; {r['differ']} of {r['answers']} answers differ)", good,
                           f"squish bench spec models/{model.name} --text bench/prompts/{name}.jsonl --runs {o.runs} --spec {mode}"))
    return out


def small_tier(o):
    """squish-tiny in 4 bits, by rounding: what guesses for its checkpoint."""
    folder = pathlib.Path(o.build) / "targets-draft"
    file = folder / "squish_4bit/model.sqw"
    if not file.exists():
        subprocess.run([pathlib.Path(o.build) / "squish", "compress", TINY, "--tier", "0", "--method", "rtn", "--unchecked", "--refine", "off",
                        "--quiet", "-o", folder], check=True, stdout=subprocess.DEVNULL)
    return file


def draft(o):
    out = []
    drafts = {"ngram": ("n-grams", ["--spec", "ngram"]), "draft": ("its 4-bit tier", ["--spec", "draft", "--draft", small_tier(o)]),
              "moe": ("squish-tiny-moe", ["--spec", "draft", "--draft", MOE]),
              "heads": ("its heads", ["--spec", "heads"]), "both": ("its heads and n-grams", ["--spec", "auto"]),
              "auto": ("its 4-bit tier and n-grams", ["--spec", "auto", "--draft", small_tier(o)]),
              "skip": ("its first layers", ["--spec", "skip"])}
    for name in o.files.split(","):
        for who, options in (drafts[k] for k in o.by.split(",") if k in drafts):
            for r in targets.bench(o, "spec", TINY, "--tier", "source", "--text", PROMPTS / f"{name}.jsonl", "--runs", o.runs, *options):
                t = r["name"].rpartition(" ")[2]
                least = 1.5 if "heads" in who and name == "stories" and t == "0" else 2.0 if name == "copy" and t == "0" else 0.98
                good = r["differ"] == 0 and r["speedup"] >= least
                out.append(row(f"squish-tiny (bf16), guesses by {who}, prompts '{name}', T {t}: time without guesses over time with",
                               f">= {least}x; text equal", f"{r['speedup']:.2f}x ({r['tok_s']:.0f} over {r['tok_s_off']:.0f} tok/s, "
                               f"{r['tokens_per_step']:.2f} tokens a step; {r['right']} of {r['guessed']} guesses right; {r['differ']} of {r['answers']} answers differ)",
                               good, f"scripts/targets_spec.py --part draft --by {o.by} --files {name} --runs {o.runs}"))
    return out


def trees(o):
    """Nobody is to lose by branches that are tried as they pay, nor by ratio; texts by ratio may differ."""
    out = []
    ways = {"chain": ["--spec", "ngram"], "tree": ["--spec", "ngram", "--spec-branches", -1],
            "ratio": ["--spec", "ngram", "--spec-accept", "ratio"],
            "draft chain": ["--spec", "draft", "--draft", small_tier(o)],
            "draft tree": ["--spec", "draft", "--draft", small_tier(o), "--spec-branches", -1],
            "draft ratio": ["--spec", "draft", "--draft", small_tier(o), "--spec-accept", "ratio"]}
    for name in o.files.split(","):
        for way, options in ways.items():
            for r in targets.bench(o, "spec", TINY, "--tier", "source", "--text", PROMPTS / f"{name}.jsonl", "--runs", o.runs, *options):
                t, by_ratio = r["name"].rpartition(" ")[2], way.endswith("ratio")
                good = r["speedup"] >= 0.98 and (r["differ"] == 0 or (by_ratio and t != "0"))
                out.append(row(f"squish-tiny (bf16), {way}, prompts '{name}', T {t}: time without guesses over time with",
                               ">= 0.98x" + ("; the same law" if by_ratio else "; text equal"),
                               f"{r['speedup']:.2f}x ({r['tok_s']:.0f} over {r['tok_s_off']:.0f} tok/s, {r['tokens_per_step']:.2f} tokens a "
                               f"step; {r['right']} of {r['guessed']} guesses right, {r['aside']} of these by branches; {r['differ']} of "
                               f"{r['answers']} answers differ)", good,
                               f"scripts/targets_spec.py --part trees --files {name} --runs {o.runs}"))
    return out


def equal(o):
    """Prompts are pieces of the committed ones, cut where it falls."""
    rng = random.Random(7)
    texts = []
    for path in sorted(PROMPTS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            v = json.loads(line)
            texts.append(v.get("prompt") or v["messages"][0]["content"])
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        for i in range(o.prompts):
            a, b = texts[i % len(texts)], rng.choice(texts)
            cut, end = rng.randrange(len(a)), rng.randrange(len(b) + 1)
            piece = a[cut:cut + rng.randrange(20, 160)] + "\n" + b[max(0, end - rng.randrange(20, 100)):end]
            f.write(json.dumps({"prompt": piece + "\n" + piece[:rng.randrange(8, 60)], "max_tokens": 12}) + "\n")
        f.flush()
        how = {"ngram": ("n-grams", ["--spec-guesses", 7]), "heads": ("heads", ["--spec-guesses", 4]),
               "draft": ("another model", ["--draft", MOE, "--spec-guesses", 4]),
               "skip": ("first layers", ["--spec-guesses", 2]),
               "tree": ("n-grams and three branches", ["--spec", "ngram", "--spec-guesses", 5, "--spec-branches", 3])}
        all_found = {how[k][0]: targets.bench(o, "spec", TINY, "--text", f.name, "--runs", 1, *([] if k == "tree" else ["--spec", k]), *how[k][1])
                     for k in o.by.split(",") if k in how}
    out = []
    for who, found in all_found.items():
        differ, n = sum(r["differ"] for r in found), sum(r["answers"] for r in found)
        out.append(row(f"{o.prompts} prompts at temperatures 0, 0.7 and 1, squish-tiny, {who}: answers with guesses that differ from those without",
                       "0", f"{differ} of {n} ({sum(r['right'] for r in found)} of {sum(r['guessed'] for r in found)} guesses were right)",
                       differ == 0, "scripts/targets_spec.py --part equal"))
    return out


def llama_said(o, file, prompt, kind):
    """Tokens and seconds of one answer. Its log sometimes ends before that line; then it is asked again."""
    for _ in range(4):
        done = subprocess.run([pathlib.Path(o.llama_bin) / "llama-speculative-simple", "-m", file, "-p", prompt["prompt"], "-n",
                               str(prompt["max_tokens"]), "--temp", "0", "-t", str(os.cpu_count()), "-c", "2048", *kind],
                              text=True, errors="replace", capture_output=True, check=True)
        said = re.search(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds", done.stdout + done.stderr)
        if said:
            return int(said.group(1)), float(said.group(2))
    sys.exit(f"llama-speculative-simple says no rate of {file.name}, prompt {prompt['id']}")


def llama_rate(o, file, prompts, kind):
    """Tokens a second of the peer over all prompts, reading them left out."""
    tokens, seconds = map(sum, zip(*(llama_said(o, file, p, kind) for p in prompts)))
    return tokens / seconds


def beside(o, file, text, prompts, what):
    """A round of each in turns."""
    kinds = {"12 tokens alike": [], "3 tokens alike": ["--spec-ngram-simple-size-n", "3"]}
    ours, theirs = [], {k: [] for k in kinds}
    for _ in range(o.runs):
        found = targets.bench(o, "spec", file, "--tier", "source", "--text", text, "--runs", 1, "--spec", "ngram")
        ours.append(next(r for r in found if r["name"].endswith(" 0")))
        for k, flags in kinds.items():
            theirs[k].append(llama_rate(o, file, prompts, ["--spec-type", "ngram-simple", *flags]))
    mine, gain = statistics.median(r["tok_s"] for r in ours), statistics.median(r["speedup"] for r in ours)
    rates = {k: statistics.median(v) for k, v in theirs.items()}
    best = max(rates.values())
    each = ", ".join(f"{v:.0f} with {k}" for k, v in rates.items())
    return row(f"squish-tiny as GGUF ({what}), prompts 'copy', T 0, n-grams: tokens a second beside llama.cpp's ngram-simple", ">= 1.10x",
               f"{mine / best:.2f}x ({mine:.0f} tok/s, {gain:.2f}x our own without guesses; llama.cpp {each})", mine >= 1.1 * best,
               "scripts/targets_spec.py --part peer --llama-bin DIR", figures={"ratio": mine / best})


def peer(o):
    """Copying at temperature 0, the same files and prompts."""
    if not o.llama_bin:
        return []
    prompts = [p for p in map(json.loads, (PROMPTS / "copy.jsonl").read_text().splitlines()) if "prompt" in p]
    out = []
    with tempfile.TemporaryDirectory() as folder:
        whole, text = pathlib.Path(folder) / "tiny.gguf", pathlib.Path(folder) / "copy.jsonl"
        text.write_text("".join(json.dumps(p) + "\n" for p in prompts))
        subprocess.run([pathlib.Path(o.build) / "squish", "export", TINY, "--to", "gguf", "--tier", "source", "-o", whole, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        for form in ("bf16", "Q8_0", "Q4_0"):
            file = whole if form == "bf16" else whole.with_name(f"{form}.gguf")
            if form != "bf16":
                subprocess.run([pathlib.Path(o.llama_bin) / "llama-quantize", whole, file, form], check=True, capture_output=True)
            out.append(beside(o, file, text, prompts, form))
    return out


PARTS = {"rows": rows, "answers": answers, "draft": draft, "trees": trees, "equal": equal, "peer": peer}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", default="copy,code,chat,stories", help="of bench/prompts")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--by", default="ngram,heads,draft,skip,moe,auto,tree", help="who guesses in parts draft and equal")
    parser.add_argument("--shape-model", type=pathlib.Path)
    parser.add_argument("--shape-draft", type=pathlib.Path, help="that guesses for it")
    parser.add_argument("--llama-bin", help="peer: a folder with llama-speculative-simple")
    parser.add_argument("--print", action="store_true", help="write no results")
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
