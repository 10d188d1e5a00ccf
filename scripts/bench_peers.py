#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Speed of squish beside llama.cpp and beside what the machine allows, in one run, into results/ and the pages.

    scripts/bench_peers.py --build build [--llama-bin DIR] [--shapes 1.5b,...] [--rounds N] [--work DIR]
    scripts/bench_peers.py --check     compare the newest two results; print what lost more than 5 %

Models are random numbers in the shapes of real ones (scripts/make_shape.py). In every round each program measures
once, so that a slow minute of the machine meets all of them; a figure is the median of the rounds, its noise half
the range of the middle half. llama.cpp: Q4_0 and Q4_K_M, with and without repacking, the best of the four; Q8_0.
Without --llama-bin (a folder with llama-bench, llama-batched-bench, llama-quantize) its columns stay empty."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import targets
from targets import row

ROOT = targets.ROOT
MODEL = ROOT / "models" / "squish-tiny"
FORMS = ("Q4_0", "Q4_K_M", "Q8_0")
TIERS = {"0": "4.5 bpw", "q8": "INT8"}


def call(*command):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()[-400:]}")
    return done.stdout


class Samples(dict):
    """name -> figures, one of a round"""

    def add(self, name, value):
        self.setdefault(name, []).append(value)

    def median(self, name):
        return statistics.median(self[name]) if self.get(name) else None

    def noise(self, name):
        v = sorted(self[name])
        quarter = len(v) // 4
        middle = v[quarter:len(v) - quarter]
        return (middle[-1] - middle[0]) / 2


# ---- models -------------------------------------------------------------------------------------------------------

def make_models(o, shape, work):
    src = work / shape
    if not src.exists():
        call(sys.executable, "scripts/make_shape.py", src, shape, "--random", "--tokenizer", MODEL)
    for tier in TIERS:
        call(f"{o.build}/squish", "compress", src, "--tier", tier, "--method", "rtn", "--unchecked", "--refine", "off", "--quiet")
    if o.llama_bin and not (work / f"{shape}-Q8_0.gguf").exists():
        whole = work / f"{shape}.gguf"
        call(f"{o.build}/squish", "export", src, "--to", "gguf", "--tier", "source", "-o", whole, "--quiet")
        for form in FORMS:
            call(f"{o.llama_bin}/llama-quantize", whole, work / f"{shape}-{form}.gguf", form, o.threads)
        whole.unlink()
    return src


# ---- one round ----------------------------------------------------------------------------------------------------

def squish_round(o, src, tier, samples):
    for bench in ("decode", "prefill", "batch"):
        out = call(f"{o.build}/squish", "bench", bench, src, "--tier", tier, "--runs", 3, "--threads", o.threads,
                   "--json", "--quiet")
        for r in json.loads(out)["rows"]:
            samples.add((tier, r["name"]), r["value"])
            samples.add((tier, r["name"], "limit"), r["limit"])
            samples.add((tier, r["name"], "share"), r["share"])


def llama_round(o, shape, work, samples):
    for form in FORMS:
        for repack in ("1", "0"):
            out = call(f"{o.llama_bin}/llama-bench", "-m", work / f"{shape}-{form}.gguf", "-t", o.threads, "-p", "512",
                       "-n", "64", "-r", "1", "--repack", repack, "-o", "jsonl")
            for line in out.splitlines():
                if line.startswith("{"):
                    d = json.loads(line)
                    samples.add((form, repack, "prefill" if d["n_prompt"] else "decode"), d["avg_ts"])
    out = call(f"{o.llama_bin}/llama-bench", "-m", work / f"{shape}-Q4_0.gguf", "-t", o.threads, "-p", "0", "-n", "32",
               "-d", "4096", "-r", "1", "-o", "jsonl")
    for line in out.splitlines():
        if line.startswith("{"):
            samples.add("decode at 4096", json.loads(line)["avg_ts"])
    out = call(f"{o.llama_bin}/llama-batched-bench", "-m", work / f"{shape}-Q4_0.gguf", "-t", o.threads, "-c", "4096",
               "-npp", "128", "-ntg", "32", "-npl", "8", "--output-format", "jsonl")
    for line in out.splitlines():
        if line.startswith("{"):
            samples.add("batch 8", json.loads(line)["speed_tg"])


def llama_best(samples, forms, what):
    found = [samples.median((f, r, what)) for f in forms for r in "01"]
    found = [v for v in found if v]
    return max(found) if found else None


# ---- whole processes ----------------------------------------------------------------------------------------------

def first_token_ms(o, model, cold):
    file = model.parent / f"{model.name}-compressed" / "squish_4bit" / "model.sqw"
    if cold:
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        begin = time.perf_counter()
        while os.read(fd, 8 << 20):
            pass
        read = time.perf_counter() - begin
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    begin = time.perf_counter()
    p = subprocess.Popen([f"{o.build}/squish", "run", "--raw", "--temp", "0", "--ignore-eos", "-n", "8", "--ctx", "512",
                          "--threads", str(o.threads), "--tier", "0", str(model), "The capital of Japan is"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    p.stdout.read(1)
    ms = (time.perf_counter() - begin) * 1e3
    p.kill()
    p.wait()
    p.stdout.close()
    return (ms, read * 1e3) if cold else ms


def anonymous_mb(o, model):
    """Most anonymous memory of a run over 4000 words of prompt, and what its cache takes."""
    c = json.loads((model / "config.json").read_text())
    cache = 4 * c["num_hidden_layers"] * c["num_key_value_heads"] * c["head_dim"] * 4096
    p = subprocess.Popen([f"{o.build}/squish", "run", "--raw", "--temp", "0", "--ignore-eos", "-n", "16", "--ctx", "4096",
                          "--threads", str(o.threads), "--tier", "0", str(model), " and" * 4000],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    most = 0
    while p.poll() is None:
        try:
            status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        except OSError:
            break
        most = max([most] + [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")])
        time.sleep(0.01)
    error = p.communicate()[1]
    if p.returncode:
        sys.exit(f"squish run: {error.strip()}")
    return most * 1024 / 1e6, cache / 1e6


def busy_share(o, src):
    """Decode speed beside a program that never lets go of one core, over quiet speed."""
    def speed():
        out = call(f"{o.build}/squish", "bench", "decode", src, "--tier", "0", "--runs", 5, "--threads", o.threads,
                   "--max-ctx", 16, "--json", "--quiet")
        return json.loads(out)["rows"][0]["value"]
    quiet = speed()
    hog = subprocess.Popen(["taskset", "-c", "0", sys.executable, "-c", "while True: pass"])
    try:
        return speed() / quiet
    finally:
        hog.kill()
        hog.wait()


# ---- the table ----------------------------------------------------------------------------------------------------

def speed_row(shape, name, s, key, peer, share_bar, ratio_bar, least, unit="tok/s"):
    """share_bar: of the limit; ratio_bar: of the peer; least: absolute, as the reference machine was asked. None: no bar."""
    value, share, limit = s.median(key), s.median(key + ("share",)), s.median(key + ("limit",))
    small = unit == "ms"
    ratio = (peer / value if small else value / peer) if peer else None
    bars, ok = [], True
    for bar, got, text in ((share_bar, share, "of the limit >="), (ratio_bar, ratio, "of llama.cpp >=")):
        if bar and got is not None:
            bars.append(f"{text} {bar:.2f}")
            ok = ok and got >= bar
    if least:
        bars.append(f"{'<=' if small else '>='} {least} {unit}")
        ok = ok and (value <= least if small else value >= least)
    text = f"{value:.1f} {unit} (noise {s.noise(key):.1f}), {share * 100:.0f} % of the limit {limit:.1f}"
    if ratio:
        text += f", {ratio:.2f} x llama.cpp ({peer:.1f})"
    return row(f"speed, {shape} shape: {name}", ", ".join(bars) or "printed", text, ok, f"make bench-peers SHAPES={shape}",
               figures={"share": share, **({"ratio": ratio} if ratio else {})},
               speed={"shape": shape, "row": name, "unit": unit, "value": value, "noise": s.noise(key), "limit": limit,
                      "share": share, "peer": peer, "ratio": ratio})


def table(o, shape, s, p):
    own = shape == "1.5b"  # absolute bars were set for this shape
    rows = []
    for tier, forms, least in (("0", FORMS[:2], (None, 250)), ("q8", FORMS[2:], (None, 250))):
        bits = TIERS[tier]
        rows.append(speed_row(shape, f"decode, {bits}", s, (tier, "decode at 16"), llama_best(p, forms, "decode"), 0.92,
                              1.05, None))
        rows.append(speed_row(shape, f"prefill 512, {bits}", s, (tier, "prefill 512"), llama_best(p, forms, "prefill"),
                              250 / 334, None, least[1] if own else None))
    rows.append(speed_row(shape, "first token after 128, 4.5 bpw", s, ("0", "first token after 128"), None, 1 / 1.4,
                          None, 540 if own else None, "ms"))
    rows.append(speed_row(shape, "decode behind 4096 tokens, f16 cache", s, ("0", "decode at 4096"),
                          p.median("decode at 4096"), None, 1.5 if own else None, 30 if own else None))
    rows.append(speed_row(shape, "8 sequences", s, ("0", "batch 8"), p.median("batch 8"), 200 / 270 if own else None,
                          None, 200 if own else None))
    for name in ("decode at 64", "decode at 256", "decode at 1024", "prefill 8", "prefill 32", "prefill 128",
                 "prefill 2048", "batch 1", "batch 2", "batch 4", "batch 16"):
        if ("0", name) in s:
            rows.append(speed_row(shape, f"{name}, 4.5 bpw", s, ("0", name), None, None, None, None))
    return rows


def process_rows(o, src, rounds):
    warm, cold, read = [], [], []
    first_token_ms(o, src, False)
    for _ in range(max(rounds, 5)):
        warm.append(first_token_ms(o, src, False))
    for _ in range(3):
        c, r = first_token_ms(o, src, True)
        cold.append(c)
        read.append(r)
    w, c, r = map(statistics.median, (warm, cold, read))
    share = busy_share(o, src)
    anon, cache = anonymous_mb(o, src)
    command = "make bench-peers SHAPES=1.5b"
    return [row("speed, 1.5b shape: start of the program to the first token, 5 words, warm", "<= 100 ms",
                f"{w:.0f} ms ({min(warm):.0f} to {max(warm):.0f})", w <= 100, command, figures={"ms": 1 / w}),
            row("speed, 1.5b shape: start of the program to the first token, 5 words, cold", "<= 1.1 x reading the file",
                f"{c:.0f} ms, reading alone {r:.0f} ms: {c / r:.2f} x", c <= 1.1 * r, command, figures={"share": r / c}),
            row("speed, 1.5b shape: most anonymous memory, context of 4096 tokens", "<= cache + 40 MB",
                f"{anon:.0f} MB, the cache alone {cache:.0f} MB", anon <= cache + 40, command, figures={"share": cache / anon}),
            row("speed, 1.5b shape: decoding on all cores beside one busy core", ">= 60 % of quiet speed",
                f"{share * 100:.0f} %", share >= 0.6, command, figures={"share": share})]


# ---- comparing ----------------------------------------------------------------------------------------------------

def check():
    """The newest figures of every row against those before them, where both are there."""
    found = {}
    for path in sorted((ROOT / "results").glob("*.json"), key=lambda p: (json.loads(p.read_text())["date"], p.stat().st_mtime)):
        result = json.loads(path.read_text())
        for r in result["rows"]:
            for name, figure in r.get("figures", {}).items():
                found.setdefault((result["machine"], r["name"], name), []).append((figure, result["commit"]))
    lost = 0
    for (_, name, figure), values in sorted(found.items()):
        if len(values) > 1 and values[-1][0] < 0.95 * values[-2][0]:
            lost += 1
            (new, new_commit), (old, old_commit) = values[-1], values[-2]
            print(f"{name}, {figure}: {old:.3f} ({old_commit}) to {new:.3f} ({new_commit}), {100 * (new / old - 1):.0f} %")
    compared = sum(len(v) > 1 for v in found.values())
    print(f"{compared} ratios compared with the results before, {lost} lost more than 5 %")
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--llama-bin")
    parser.add_argument("--shapes", default="1.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", help="where models are made and kept; a folder that goes away otherwise")
    parser.add_argument("--check", action="store_true")
    o = parser.parse_args()
    if o.check:
        sys.exit(1 if check() else 0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(o.work or folder)
        work.mkdir(parents=True, exist_ok=True)
        for shape in o.shapes.split(","):
            src, s, p = make_models(o, shape, work), Samples(), Samples()
            for i in range(o.rounds):
                print(f"{shape}: round {i + 1} of {o.rounds}", file=sys.stderr, flush=True)
                for tier in TIERS:
                    squish_round(o, src, tier, s)
                if o.llama_bin:
                    llama_round(o, shape, work, p)
            rows += table(o, shape, s, p) + (process_rows(o, src, o.rounds) if shape == "1.5b" else [])
            if not o.work:
                shutil.rmtree(src)
    for r in rows:
        print(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})", flush=True)
    targets.write_result(rows)
    targets.pages()


if __name__ == "__main__":
    main()
