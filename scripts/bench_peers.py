#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Speed of squish beside its peers and beside what the machine allows, in one run, into results/ and the pages.

    scripts/bench_peers.py --build build [--llama-bin DIR] [--python BIN] [--shapes 1.5b,...] [--rounds N] [--work DIR]
    scripts/bench_peers.py --check     compare the newest results with those before; print what lost more than 5 %

On a machine without integer dot products (VNNI, dotprod) rows carry its kernels in their names; bars in tokens a second,
which were set where there are some, are not theirs, and prompts are held to 60 % of the peak.

Models are random numbers in the shapes of real ones (scripts/make_shape.py). In every round each program measures
once, so that a slow minute of the machine meets all of them; a figure is the median of the rounds, its noise half
the range of the middle half. First our probes of the limits are held against two programs of others, where
$SQUISH_TESTDATA has them: more than 5 % lower ends the run. The shape 1.5b gets every row; the others decode and
first token only, in 4 bits, with fewer layers where disk or memory is short.

llama.cpp (--llama-bin: a folder with llama-bench, llama-batched-bench, llama-quantize): Q4_0 and Q4_K_M, with and
without repacking, the best of the four; Q8_0; squish runs the same files as they are, too. --python: an interpreter
with tokenizers, tiktoken, gguf, mlx and mlx-lm (scripts/bench_python_peers.py). What is absent is said and its
columns stay empty."""
import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import make_shape
import targets
from targets import row

ROOT = targets.ROOT
MODEL = ROOT / "models" / "squish-tiny"
TESTDATA = os.environ.get("SQUISH_TESTDATA")
FORMS = ("Q4_0", "Q4_K_M", "Q8_0")
BITS = {"0": "4.5 bpw", "q8": "INT8", "3": "3-bit", "2": "2-bit", "1.58": "ternary", "avx2": "AVX2"}
LOW = ("3", "2", "1.58")
LABEL = ""  # of a machine without integer dot products
FLAGS = ""  # of a run of some parts: its rows are not in place of a whole run's


def call(*command, env=None):
    done = subprocess.run([str(c) for c in command], cwd=ROOT, text=True, capture_output=True, check=False,
                          env={**os.environ, **(env or {})})
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()[-400:]}")
    return done.stdout


def say(text):
    print(text, file=sys.stderr, flush=True)


class Samples(dict):
    """name -> figures, one of a round"""

    def add(self, name, value):
        self.setdefault(name, []).append(value)

    def median(self, name):
        return statistics.median(self[name]) if self.get(name) else None

    def noise(self, name):
        """Of the rounds; where there was one, of its runs."""
        v = sorted(self[name])
        if len(v) == 1:
            return self.median(name[:-1] + ("noise",)) or 0.0
        quarter = len(v) // 4
        middle = v[quarter:len(v) - quarter]
        return (middle[-1] - middle[0]) / 2


# ---- the probes of our limits against others ----------------------------------------------------------------------

def probes(o):
    """Rows, and whether ours are within 5 %. Turns are taken and the best of each held together: what a machine can
    do is what it does undisturbed."""
    folder = pathlib.Path(TESTDATA or "/nonexistent") / "peers"
    if not (folder / "membw.c").exists():
        say("the probes of the limits: not compared, $SQUISH_TESTDATA has no peers/membw.c and peak.c")
        return [], True
    ours, theirs = Samples(), Samples()
    with tempfile.TemporaryDirectory() as tmp:
        for name, flags in (("membw", "-O3"), ("peak", "-O2")):
            done = subprocess.run(["gcc", flags, "-march=native", "-pthread", folder / f"{name}.c", "-o", f"{tmp}/{name}"],
                                  capture_output=True, check=False)
            if done.returncode:
                say(f"the probes of the limits: not compared, {name}.c does not compile for this machine")
                return [], True
        for _ in range(6):
            for r in json.loads(call(f"{o.build}/squish", "bench", "limits", "--runs", 5, "--threads", o.threads, "--json"))["rows"]:
                ours.add(r["name"], r["max"])
            theirs.add("read memory", float(re.search(r"best (\S+)", call(f"{tmp}/membw", 1, o.threads, 5)).group(1)))
            if LABEL:
                continue
            out = call(f"{tmp}/peak", o.threads, 0.05, 2)
            for name, there in (("int8 dot products", "int8 dp"), ("f32 multiply-adds", "f32 FMA")):
                theirs.add(name, max(float(v) for v in re.findall(rf"^{there}.*best\s+(\S+)", out, re.M)))
    if LABEL:
        say("the probes of arithmetic: not compared, peak.c has instructions that this machine lacks")
    rows = []
    for name, peer in (("read memory", "membw.c"), ("int8 dot products", "peak.c"), ("f32 multiply-adds", "peak.c")):
        if name not in theirs:
            continue
        a, b = max(ours[name]), max(theirs[name])
        rows.append(row(f"probe of the limits{LABEL}: {name}, {o.threads} threads", f">= 95 % of {peer}",
                        f"{a:.1f}, {peer} {b:.1f}: {a / b * 100:.0f} %", a >= 0.95 * b, "make bench-peers" + FLAGS, figures={"ratio": a / b}))
    return rows, all(r["ok"] for r in rows)


# ---- models -------------------------------------------------------------------------------------------------------

def compress(o, src, bits, out=None):
    tier = bits if bits == "q8" else "0"
    call(f"{o.build}/squish", "compress", src, "--tier", tier, "--method", "rtn", "--unchecked", "--refine", "off", "--quiet",
         *(("--bits", bits) if bits in LOW else ()), *(("-o", out) if out else ()))
    folder = out or src.parent / f"{src.name}-compressed"
    return folder / ("squish_q8" if bits == "q8" else "squish_4bit") / "model.sqw"


def make_models(o, shape, work):
    """bits -> file; and the folder of the source."""
    src = work / shape
    if not src.exists():
        call(sys.executable, "scripts/make_shape.py", src, shape, "--random", "--tokenizer", MODEL)
    files = {bits: compress(o, src, bits) for bits in ("0", "q8")}
    for bits in LOW:
        out = work / f"{shape}-{bits}"
        if not list(out.glob("*/model.sqw")):
            from_src = src
            if bits == "1.58":
                from_src = work / f"{shape}-source-{bits}"
                if not from_src.exists():
                    call(sys.executable, "scripts/make_shape.py", from_src, shape, "--ternary", "--tokenizer", MODEL)
            compress(o, from_src, bits, out)
            if from_src != src:
                shutil.rmtree(from_src)
        files[bits] = next(out.glob("*/model.sqw"))
    if o.llama_bin and not (work / f"{shape}-Q8_0.gguf").exists():
        whole = work / f"{shape}.gguf"
        call(f"{o.build}/squish", "export", src, "--to", "gguf", "--tier", "source", "-o", whole, "--quiet")
        for form in FORMS:
            call(f"{o.llama_bin}/llama-quantize", whole, work / f"{shape}-{form}.gguf", form, o.threads)
        whole.unlink()
    return src, files


def layers_that_fit(shape, wanted, work):
    """As many layers as disk (source and tier at once) and memory (the tier) take."""
    most = wanted or make_shape.SHAPES[shape][1]
    memory = int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) * 1024
    disk = shutil.disk_usage(work).free
    for n in range(most, 0, -1):
        source = sum(2 * dims[0] * (dims[1] if len(dims) > 1 else 1) for _, dims in make_shape.tensors(shape, n))
        if source * 1.3 < disk * 0.95 and source * 0.3 + 3e9 < memory:
            return n
    sys.exit(f"{shape}: no room for a single layer in {work}")


def make_large(o, shape, work):
    """A model in 4 bits without its source: (file, layers)."""
    whole = make_shape.SHAPES[shape][1]
    made = sorted(work.glob(f"{shape}-[0-9]*-layers/*/model.sqw"))
    if made and not o.layers:
        return made[-1], int(made[-1].parent.parent.name.split("-")[-2])
    layers = layers_that_fit(shape, o.layers, work)
    out, src = work / f"{shape}-{layers}-layers", work / f"{shape}-source"
    if not list(out.glob("*/model.sqw")):
        say(f"{shape}: {layers} of {whole} layers")
        shutil.rmtree(src, ignore_errors=True)
        call(sys.executable, "scripts/make_shape.py", src, shape, "--random", "--layers", layers, "--tokenizer", MODEL)
        compress(o, src, "0", out)
        shutil.rmtree(src)
    return next(out.glob("*/model.sqw")), layers


# ---- one round ----------------------------------------------------------------------------------------------------

def bench(o, model, what, *more):
    out = call(f"{o.build}/squish", "bench", what, model, "--threads", o.threads, "--json", "--quiet", *more)
    return json.loads(out)["rows"]


def take(o, samples, key, model, what, at, *more):
    for r in bench(o, model, what, "--at", at, "--runs", 3, *more):
        for name in ("value", "limit", "share", "noise"):
            samples.add((key, r["name"], name), r[name])


def squish_round(o, files, samples):
    take(o, samples, "0", files["0"], "decode", "16,4096")
    take(o, samples, "0", files["0"], "prefill", "128,512")
    take(o, samples, "0", files["0"], "batch", "8")
    for bits in ("q8", *LOW):
        take(o, samples, bits, files[bits], "decode", "16")
        take(o, samples, bits, files[bits], "prefill", "512")
    if "avx2" in call(f"{o.build}/squish", "--version"):
        take(o, samples, "avx2", files["0"], "decode", "16", "--isa", "avx2")
        take(o, samples, "avx2", files["0"], "prefill", "512", "--isa", "avx2")


def in_place_round(o, shape, work, samples):
    """The peer's own files, as they are."""
    for form in FORMS:
        take(o, samples, form, work / f"{shape}-{form}.gguf", "decode", "16", "--tier", "source")
        take(o, samples, form, work / f"{shape}-{form}.gguf", "prefill", "512", "--tier", "source")


def llama(o, program, *more):
    out = call(f"{o.llama_bin}/{program}", "-t", o.threads, *more)
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def llama_round(o, shape, work, samples):
    for form in FORMS:
        for repack in ("1", "0"):
            for d in llama(o, "llama-bench", "-m", work / f"{shape}-{form}.gguf", "-p", "512", "-n", "64", "-r", "1",
                           "--repack", repack, "-o", "jsonl"):
                samples.add((form, repack, "prefill" if d["n_prompt"] else "decode"), d["avg_ts"])
    for d in llama(o, "llama-bench", "-m", work / f"{shape}-Q4_0.gguf", "-p", "0", "-n", "32", "-d", "4096", "-r", "1", "-o",
                   "jsonl"):
        samples.add("decode at 4096", d["avg_ts"])
    for d in llama(o, "llama-batched-bench", "-m", work / f"{shape}-Q4_0.gguf", "-c", "4096", "-npp", "128", "-ntg", "32",
                   "-npl", "8", "--output-format", "jsonl"):
        samples.add("batch 8", d["speed_tg"])


def llama_best(samples, forms, what):
    found = [samples.median((f, r, what)) for f in forms for r in "01"]
    found = [v for v in found if v]
    return max(found) if found else None


# ---- whole processes ----------------------------------------------------------------------------------------------

def start_run(o, file, *more, **streams):
    return subprocess.Popen([f"{o.build}/squish", "run", "--raw", "--temp", "0", "--ignore-eos", "--threads", str(o.threads),
                             str(file), *more], stdin=subprocess.DEVNULL, **streams)


def drop_pages(file):
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def read_ms(file):
    begin = time.perf_counter()
    with open(file, "rb", buffering=0) as f:
        piece = bytearray(8 << 20)
        while f.readinto(piece):
            pass
    return (time.perf_counter() - begin) * 1e3


def first_token_ms(o, file):
    begin = time.perf_counter()
    p = start_run(o, file, "The capital of Japan is", "-n", "8", "--ctx", "512", stdout=subprocess.PIPE,
                  stderr=subprocess.DEVNULL)
    p.stdout.read(1)
    ms = (time.perf_counter() - begin) * 1e3
    p.kill()
    p.wait()
    p.stdout.close()
    return ms


def anonymous_mb(o, src, file):
    """Most anonymous memory of a run over 4000 words of prompt, and what its cache takes."""
    c = json.loads((src / "config.json").read_text())
    cache = 4 * c["num_hidden_layers"] * c["num_key_value_heads"] * c["head_dim"] * 4096
    p = start_run(o, file, " and" * 4000, "-n", "16", "--ctx", "4096", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                  text=True)
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


def busy_share(o, file):
    """Decode speed beside a program that never lets go of one core, over quiet speed."""
    def speed():
        return bench(o, file, "decode", "--at", 16, "--runs", 5)[0]["value"]
    quiet = speed()
    hog = subprocess.Popen(["taskset", "-c", "0", sys.executable, "-c", "while True: pass"])
    try:
        return speed() / quiet
    finally:
        hog.kill()
        hog.wait()


def process_rows(o, src, file):
    warm, cold, read = [], [], []
    first_token_ms(o, file)
    for _ in range(7):
        warm.append(first_token_ms(o, file))
    for _ in range(5):  # reading on both sides of the run: the disk's speed wanders
        drop_pages(file)
        before = read_ms(file)
        drop_pages(file)
        cold.append(first_token_ms(o, file))
        drop_pages(file)
        read.append((before + read_ms(file)) / 2)
    w, c, r = map(statistics.median, (warm, cold, read))
    ratio = statistics.median(a / b for a, b in zip(cold, read))
    share = busy_share(o, file)
    anon, cache = anonymous_mb(o, src, file)
    name, command = f"speed, 1.5b shape{LABEL}: ", "make bench-peers SHAPES=1.5b" + FLAGS
    return [row(name + "start of the program to the first token, 5 words, warm", "<= 100 ms",
                f"{w:.0f} ms ({min(warm):.0f} to {max(warm):.0f})", w <= 100, command, figures={"ms": 1 / w}),
            row(name + "start of the program to the first token, 5 words, cold", "<= 1.1 x reading the file",
                f"{c:.0f} ms, reading alone {r:.0f} ms: {ratio:.2f} x", ratio <= 1.1, command, figures={"share": 1 / ratio}),
            row(name + "most anonymous memory, context of 4096 tokens", "<= cache + 40 MB",
                f"{anon:.0f} MB, the cache alone {cache:.0f} MB", anon <= cache + 40, command, figures={"share": cache / anon}),
            row(name + "decoding on all cores beside one busy core", ">= 60 % of quiet speed",
                f"{share * 100:.0f} %", share >= 0.6, command, figures={"share": share})]


# ---- the table ----------------------------------------------------------------------------------------------------

def speed_row(shape, name, s, key, peer=None, share_bar=None, ratio_bar=None, least=None, unit="tok/s", other=None,
              peer_name="llama.cpp"):
    """key: (form, row of squish bench). share_bar: of the limit; ratio_bar: of the peer; least: absolute (most, for ms);
    other: (figure, bar, its name), one more thing to hold the value against. None: no bar."""
    value, share, limit = (s.median(key + (part,)) for part in ("value", "share", "limit"))
    noise, small = s.noise(key + ("value",)), unit == "ms"
    ratio = (peer / value if small else value / peer) if peer else None
    bars, ok = [], True
    least = None if LABEL else least
    for bar, got, text in ((share_bar, share, "of the limit >="), (ratio_bar, ratio, f"of {peer_name} >=")):
        if bar and got is not None:
            bars.append(f"{text} {bar:.2f}")
            ok = ok and got >= bar
    if least:
        bars.append(f"{'<=' if small else '>='} {least} {unit}")
        ok = ok and (value <= least if small else value >= least)
    text = f"{value:.1f} {unit} (noise {noise:.1f}), {share * 100:.0f} % of the limit {limit:.1f}"
    figures = {"share": share}
    if ratio:
        text += f", {ratio:.2f} x {peer_name} ({peer:.1f})"
        figures["ratio"] = ratio
    if other:
        figure, bar, what = other
        bars.append(f"of {what} >= {bar:.2f}")
        ok = ok and value / figure >= bar
        text += f", {value / figure:.2f} x {what} ({figure:.1f})"
        figures["other"] = value / figure
    return row(f"speed, {shape} shape{LABEL}: {name}", ", ".join(bars) or "printed", text, ok,
               f"make bench-peers SHAPES={shape.split(',')[0]}" + FLAGS, figures=figures,
               speed={"shape": shape + LABEL, "row": name, "unit": unit, "value": value, "noise": noise, "limit": limit,
                      "share": share, "peer": peer, "ratio": ratio, "peer_name": peer_name})


def table(shape, s, p):
    rows = []
    for tier, forms, ratio in (("0", FORMS[:2], 1.05), ("q8", FORMS[2:], None)):
        bits = BITS[tier]
        rows.append(speed_row(shape, f"decode, {bits}", s, (tier, "decode at 16"), llama_best(p, forms, "decode"), 0.92, ratio))
        rows.append(speed_row(shape, f"prefill 512, {bits}", s, (tier, "prefill 512"), llama_best(p, forms, "prefill"),
                              0.6 if LABEL else None, least=250))
    rows += [speed_row(shape, "first token after 128, 4.5 bpw", s, ("0", "first token after 128"), least=540, unit="ms"),
             speed_row(shape, "prefill 128, 4.5 bpw", s, ("0", "prefill 128")),
             speed_row(shape, "decode behind 4096 tokens, f16 cache", s, ("0", "decode at 4096"), p.median("decode at 4096"),
                       least=30),
             speed_row(shape, "8 sequences", s, ("0", "batch 8"), p.median("batch 8"), least=200)]
    four = s.median(("0", "prefill 512", "value"))
    for bits in LOW:
        rows.append(speed_row(shape, f"decode, {BITS[bits]}", s, (bits, "decode at 16"), share_bar=0.85))
        rows.append(speed_row(shape, f"prefill 512, {BITS[bits]}", s, (bits, "prefill 512"), other=(four, 0.8, "4-bit's")))
    for form in FORMS:
        if (form, "decode at 16", "value") in s:
            rows.append(speed_row(shape, f"decode, {form} file as it is", s, (form, "decode at 16"),
                                  llama_best(p, (form,), "decode"), ratio_bar=1.0))
            rows.append(speed_row(shape, f"prefill 512, {form} file as it is", s, (form, "prefill 512"),
                                  llama_best(p, (form,), "prefill"), other=(four, 0.7, "the 4-bit tier")))
    if ("avx2", "decode at 16", "value") in s:
        rows.append(speed_row(shape, "decode, 4.5 bpw, AVX2", s, ("avx2", "decode at 16"), share_bar=0.85))
        rows.append(speed_row(shape, "prefill 512, 4.5 bpw, AVX2", s, ("avx2", "prefill 512"), share_bar=0.6))
    return rows


def scaling_rows(o, shape, file):
    """Once: the cost of a token by context, batch and threads; and the page with plots."""
    s, found = Samples(), {}
    for r in bench(o, file, "limits,decode,prefill,batch,threads", "--runs", 3, "--max-ctx", 16384, "--report", o.report):
        if "at" in r:
            found.setdefault(r["bench"], []).append(r)
            for name in ("value", "limit", "share", "noise"):
                s.add(("0", r["name"], name), r[name])
    say(f"{o.report}/index.html")
    rows, command = [], f"make bench-peers SHAPES={shape}" + FLAGS
    for kind, what, bar in (("decode", "context", "share of the limit never below 0.85 of the first"),
                            ("batch", "batch", "never 5 % above the one before"),
                            ("decode by threads", "threads", "never 5 % above the one before")):
        points = found.get(kind, [])
        cost = [1e3 / r["value"] for r in points]
        if kind == "decode":
            ok = all(r["share"] >= 0.85 * points[0]["share"] for r in points)
        else:
            ok = all(b <= 1.05 * a for a, b in zip(cost, cost[1:]))
        text = ", ".join(f"{r['at']}: {c:.1f}" for r, c in zip(points, cost)) + " ms"
        rows.append(row(f"speed, {shape} shape{LABEL}: cost of a token by {what}, 4.5 bpw", bar, text, ok, command,
                        figures={"share": min(r["share"] for r in points)}))
    for kind in ("decode", "prefill", "batch", "decode by threads", "prefill by threads"):
        rows += [speed_row(shape, f"{r['name']}, 4.5 bpw, once", s, ("0", r["name"])) for r in found.get(kind, [])]
    return rows


# ---- packages of Python -------------------------------------------------------------------------------------------

def python_peer(o, *what):
    """The JSON its last line is; None after saying why there is none."""
    if not o.python:
        say(f"{what[0]}: skipped, no --python")
        return None
    done = subprocess.run([o.python, str(ROOT / "scripts" / "bench_python_peers.py"), *map(str, what)], text=True,
                          capture_output=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    say(f"{what[0]}: skipped, {(done.stderr.strip().splitlines() or ['no reason'])[-1][:200]}")
    return None


def tokenizer_rows(o):
    vocabulary = pathlib.Path(TESTDATA or "/nonexistent") / "fixtures" / "tokenizers" / "ggml-vocab-qwen2.gguf"
    text = vocabulary.parent.parent.parent / "data" / "heldout-prose.txt"
    if not vocabulary.exists() or not text.exists():
        say("tokenizer: skipped, $SQUISH_TESTDATA has no Qwen2 vocabulary or prose")
        return []
    s, peers = Samples(), Samples()
    for _ in range(3):
        for r in bench(o, vocabulary, "tokenizer", "--text", text, "--runs", 5):
            s.add(r["name"], r["value"])
        found = python_peer(o, "tokenizers", vocabulary, text) or {}
        for name, value in found.items():
            peers.add(name, value)
    rows = []
    for name, what in (("encode 1 kB pieces", "pieces"), ("encode whole", "whole"), ("decode tokens", "decode")):
        value, beside = s.median(name), []
        figures = {}
        for package in ("tiktoken", "tokenizers"):
            peer = peers.median(f"{package} {what}")
            if peer:
                beside.append(f"{value / peer:.1f} x {package} ({peer:.1f})")
                figures[package] = value / peer
        bar = 40 if what != "decode" else None
        rows.append(row(f"tokenizer, Qwen2 vocabulary, English prose, one thread: {name}", ">= 40 MB/s" if bar else "printed",
                        ", ".join([f"{value:.1f} MB/s (noise {s.noise(name):.1f})"] + beside), not bar or value >= bar,
                        "make bench-peers SHAPES=1.5b" + FLAGS, figures=figures))
    return rows


def mlx_rows(o, shape, src, work):
    folder = work / f"{shape}-mlx"
    if not folder.exists():
        call(f"{o.build}/squish", "export", src, "--to", "mlx", "--tier", "0", "-o", folder, "--quiet")
    s = Samples()
    take(o, s, "mlx", folder, "decode", "16", "--tier", "source")
    found = python_peer(o, "mlx", folder)
    return [speed_row(shape, "decode, the 4-bit folder of mlx-lm as it is", s, ("mlx", "decode at 16"),
                      found["decode"] if found else None, peer_name="mlx-lm")]


# ---- comparing ----------------------------------------------------------------------------------------------------

def check():
    """The newest figures of every row against those before them, where both are there."""
    found = {}
    for result in targets.all_results():
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


# ---- all ----------------------------------------------------------------------------------------------------------

def whole_shape(o, shape, work):
    say(f"{shape}: models")
    src, files = make_models(o, shape, work)
    s, p = Samples(), Samples()
    for i in range(o.rounds if "table" in o.parts else 0):
        say(f"{shape}: round {i + 1} of {o.rounds}")
        squish_round(o, files, s)
        if o.llama_bin:
            in_place_round(o, shape, work, s)
            llama_round(o, shape, work, p)
    rows = table(shape, s, p) if "table" in o.parts else []
    if "scaling" in o.parts:
        say(f"{shape}: contexts, batches, threads")
        rows += scaling_rows(o, shape, files["0"])
    if "processes" in o.parts:
        say(f"{shape}: whole processes")
        rows += process_rows(o, src, files["0"])
    if "python" in o.parts:
        say("packages of Python")
        rows += tokenizer_rows(o) + mlx_rows(o, shape, src, work)
    return rows


def large_shape(o, shape, work):
    file, layers = make_large(o, shape, work)
    whole, s = make_shape.SHAPES[shape][1], Samples()
    for i in range(o.rounds):
        say(f"{shape}: round {i + 1} of {o.rounds}")
        take(o, s, "0", file, "decode", "16")
        take(o, s, "0", file, "prefill", "128")
    if not o.work:
        shutil.rmtree(file.parent.parent)
    name = shape if layers == whole else f"{shape}, {layers} of {whole} layers"
    return [speed_row(name, "decode, 4.5 bpw", s, ("0", "decode at 16"), share_bar=0.92),
            speed_row(name, "first token after 128, 4.5 bpw", s, ("0", "first token after 128"), share_bar=1 / 1.4, unit="ms")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--llama-bin")
    parser.add_argument("--python", help="an interpreter that has the packages of the peers")
    parser.add_argument("--shapes", default="1.5b")
    parser.add_argument("--layers", type=int, default=0, help="of the shapes other than 1.5b; 0: as many as fit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", default="table,scaling,processes,python", help="of the shape 1.5b (default: all of it)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", help="where models are made and kept; a folder that goes away otherwise")
    parser.add_argument("--report", help="folder of the page with plots (default: BUILD/bench-report)")
    parser.add_argument("--no-results", action="store_true", help="print the table and write nothing")
    parser.add_argument("--check", action="store_true")
    o = parser.parse_args()
    o.parts = o.part.split(",")
    o.report = o.report or f"{o.build}/bench-report"
    if o.check:
        sys.exit(1 if check() else 0)
    begin = time.time()
    global LABEL, FLAGS
    FLAGS = "" if o.part == parser.get_default("part") else f" BENCH_FLAGS='--part {o.part}'"
    isa = re.search(r"isa: (\S+)", call(f"{o.build}/squish", "--version")).group(1)
    LABEL = "" if "vnni" in isa or "dotprod" in isa else f", {isa} without integer dot products"
    rows, good = probes(o)
    for r in rows:
        say(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})")
    if not good:
        sys.exit("the limits cannot be trusted: our probes are more than 5 % below others")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(o.work or folder)
        work.mkdir(parents=True, exist_ok=True)
        for shape in o.shapes.split(","):
            rows += whole_shape(o, shape, work) if shape == "1.5b" else large_shape(o, shape, work)
    for r in rows:
        print(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})", flush=True)
    print(f"{(time.time() - begin) / 60:.0f} minutes")
    if not o.no_results:
        targets.write_result(rows)
        targets.pages()


if __name__ == "__main__":
    main()
