#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of formats, tiers and quantisers into results/, and make the pages anew.

    scripts/targets_weights.py [--build build] [--part NAME,...] [--text FILE] [--interop rows.json] [--work DIR]

Parts: tests, fidelity, cgroups, quant, methods, load, memory, kills (all of them unless named). methods needs a text of some hundred
kB that the model has not seen (--text, or $SQUISH_TESTDATA/data/heldout-prose.txt): its first half calibrates, its
second half is measured. quant compares with numpy where Python has it. memory and load write up to 13 GB to --work.
--interop takes what scripts/check_interop.py --json wrote."""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import targets
from targets import row

ROOT = targets.ROOT
MODEL = ROOT / "models" / "squish-tiny"


def squish(build, *args, **more):
    done = subprocess.run([f"{build}/squish", *map(str, args)], cwd=ROOT, text=True, capture_output=True, check=False, **more)
    return done.returncode, done.stdout, done.stderr


def answer(build, *args):
    code, out, err = squish(build, *args, "--json")
    if code:
        sys.exit(f"squish {' '.join(map(str, args))}: {err.strip() or out.strip()}")
    return json.loads(out.strip().splitlines()[-1])


# ---- tests that stand for a row -----------------------------------------------------------------------------------

def tests(build):
    return [targets.passes(build, program, name, bar) for program, name, bar in (
        ("e2e/test_ladder", "tiers 0, q8, 1, 2, 3 without the source: five first tokens; removed and damaged in turn", "equal, next named"),
        ("unit/test_forge_plan", "memory decision over 20 synthetic machines", "as tabled"),
        ("e2e/test_plan_gc", "plan, gc, --drop-source; bytes on disk by the formula", "within 1 %"),
        ("e2e/test_collapse", "2 bits and sabotaged 4 bits refused; 3, 4 and exactly 2 bits pass", "as told"),
        ("golden/test_ternary", "BitNet trained ternary: perplexity of the training program, tier found good", "within 1 %"),
        ("e2e/test_refine", "rounding published first, refined by another process", "passes"),
        ("prop/test_kernels_foreign", "GGUF blocks and MLX codes on every ISA against the scalar kernel", "equal bits"),
        ("unit/test_forge_methods_build", "awq, gptq, milo: same bytes for any threads and resumes; folding keeps logits", "passes"),
        ("unit/test_model_lora", "LoRA (PEFT, GGUF) against merged weights", "1e-4"),
        ("fault/test_compress_writes", "every write, fsync and rename of a build failing in turn", "no corrupt tier"))]


def fidelity(build, work):
    out = work / "q8"
    r = answer(build, "compress", MODEL, "--tier", "q8", "-o", out, "--quiet")
    f = answer(build, "fidelity", MODEL, r["file"], "--quiet")
    shutil.rmtree(out)
    q = f["quantised"]
    reasons = ", ".join(f"{k} {v}" for k, v in f["reasons"].items())
    command = "squish fidelity models/squish-tiny --tier q8"
    return [row("squish-tiny, INT8 group 64: cosine of quantised tensors", "mean >= 0.99998, least >= 0.99995",
                f"mean {q['cos_mean']:.7f}, least {q['cos_min']:.7f}, max abs {q['max_abs']:.5f} ({reasons})",
                q["cos_mean"] >= 0.99998 and q["cos_min"] >= 0.99995, command),
            row("squish-tiny, INT8 group 64: cosine of all tensors", "mean >= 0.99999, least >= 0.99995",
                f"mean {f['cos_mean']:.7f}, least {f['cos_min']:.7f}", f["cos_mean"] >= 0.99999 and f["cos_min"] >= 0.99995, command)]


def cgroups(build):
    done = subprocess.run([ROOT / "scripts" / "check_cgroups.sh"], env={**os.environ, "BUILD": build}, cwd=ROOT, text=True,
                          capture_output=True, check=False)
    if done.returncode == 77:
        print(done.stdout.strip())
        return []
    tiers = ", ".join(line.split("tier ")[1].split(":")[0] for line in done.stdout.splitlines() if "tier " in line)
    return [row("memory decision in three real cgroups (405, 425, 600 MB)", "0, q8, source", tiers, done.returncode == 0,
                "scripts/check_cgroups.sh")]


# ---- quantisers ---------------------------------------------------------------------------------------------------

def numpy_rates():
    """GB/s of bf16 input for the plain quantisers in numpy, which has to widen bf16 first."""
    try:
        import numpy as np
    except ImportError:
        return {}
    bits = (np.random.default_rng(0).standard_normal((2048, 4096)).astype(np.float32) * 0.02).view(np.uint32) >> 16
    half = bits.astype(np.uint16)

    def wide():
        return (half.astype(np.uint32) << 16).view(np.float32)

    def int8():
        w = wide()
        scale = np.abs(w).max(1, keepdims=True) / 127
        return np.clip(np.rint(w / scale), -127, 127).astype(np.int8)

    def int4():
        g = wide().reshape(2048, 64, 64)
        low, high = g.min(2, keepdims=True), g.max(2, keepdims=True)
        scale = (high - low) / 15
        q = np.clip(np.rint((g - low) / scale), 0, 15).astype(np.uint8).reshape(2048, 4096)
        return q[:, ::2] | q[:, 1::2] << 4

    rates = {}
    for name, fn in (("encode int8-row", int8), ("encode int4 rtn", int4)):
        fn()
        best = min(_timed(fn) for _ in range(5))
        rates[name] = half.size * 2 / best / 1e9
    return rates


def _timed(fn):
    begin = time.perf_counter()
    fn()
    return time.perf_counter() - begin


def quant(build):
    found = {r["name"]: r for r in answer(build, "bench", "quant", "--runs", 20)["rows"]}
    peer = numpy_rates()
    command, rows = "squish bench quant --runs 20", []
    for name, bar in (("encode int8-row", 6), ("encode int8-g64", 6), ("encode int4 rtn", 4), ("encode int4 lsq", 0.25)):
        r = found[name]
        text = f"{r['value']:.2f} GB/s (sd {r['sd']:.2f})"
        ok = r["value"] >= bar
        if name in peer:
            text += f"; numpy {peer[name]:.2f}, ratio {r['value'] / peer[name]:.1f}"
            ok = ok and r["value"] >= 10 * peer[name]
        rows.append(row(f"{name}, bf16 in memory, all threads", f">= {bar} GB/s" + (", 10x numpy" if name in peer else ""), text, ok, command))
    for name, bar in (("milo 64x128 rank 8", 18.0), ("milo 128x256 rank 8", 17.0), ("milo 256x512 rank 8", 16.5)):
        r = found[name]
        rows.append(row(f"{name}, 20 fresh matrices", f">= {bar} dB", f"{r['mean']:.2f} dB mean, {r['min']:.2f} least", r["mean"] >= bar, command))
    for name, bar, unit in (("milo 128x256 time", 5, "ms"), ("pack 8192 int3", 2, "us")):
        r = found[name]
        rows.append(row(name, f"<= {bar} {unit}", f"{r['value']:.2f} {unit} (sd {r['sd']:.2f})", r["value"] <= bar, command))
    return rows


def halves(text, work):
    data = pathlib.Path(text).read_bytes()
    cut = data.rfind(b"\n", 0, len(data) // 2) + 1
    first, second = work / "first.txt", work / "second.txt"
    first.write_bytes(data[:cut])
    second.write_bytes(data[cut:])
    return first, second


def methods(build, text, work):
    """Perplexity of the second half of a text, calibrated on the first."""
    first, second = halves(text, work)
    calibration = work / "calibration.safetensors"
    answer(build, "calibrate", MODEL, "--text", first, "-o", calibration, "--quiet")

    def perplexity(model, *tier):
        return answer(build, "ppl", model, *tier, "--text", second, "--window", 1024, "--quiet")["perplexity"]

    def built(name, *options):
        out = work / name
        r = answer(build, "compress", MODEL, "-o", out, "--unchecked", "--quiet", *options)
        ratio = perplexity(r["file"]) / source
        shutil.rmtree(out)
        return ratio, r

    source = perplexity(MODEL, "--tier", "source")
    cal = ("--calib", calibration)
    four = {"rtn": built("rtn", "--method", "rtn")[0], "lsq": built("lsq")[0], "lsq-imp": built("imp", *cal)[0],
            "awq": built("awq", "--method", "awq", *cal)[0], "gptq": built("gptq", "--method", "gptq", *cal)[0]}
    three, _ = built("three", "--bits", 3)
    fixed, f = built("fixed", "--bits", 3, "--method", "milo", "--rank", 8)
    low, high = 0.05, 4.0
    for _ in range(12):  # the budget that takes as many bytes as rank 8
        mid = (low + high) / 2
        chosen, r = built("chosen", "--bits", 3, "--method", "milo", "--rank-bpw", f"{mid:.5f}")
        low, high = (mid, high) if r["bytes"] <= f["bytes"] else (low, mid)
        if 0 <= f["bytes"] - r["bytes"] <= 20000:
            break
    small, s = built("small", "--bits", 3, "--method", "milo")
    command = "scripts/targets_weights.py --part methods"
    return [
        row("squish-tiny, INT4, second half of held-out prose: perplexity ratio", "lsq < rtn; awq or gptq < lsq",
            ", ".join(f"{k} {v:.5f}" for k, v in four.items()),
            four["lsq"] < four["rtn"] and min(four["awq"], four["gptq"]) < four["lsq"], command),
        row("squish-tiny, INT3: perplexity ratio with compensators", "below INT3 without",
            f"without {three:.5f}; 0.15 bpw {small:.5f} ({s['bpw']:.2f} bpw); rank 8 {fixed:.5f}", min(small, fixed) < three, command),
        row("squish-tiny, INT3: rank chosen per tensor against rank 8 at equal bytes", "better",
            f"{chosen:.5f} against {fixed:.5f} ({r['bytes']} and {f['bytes']} bytes)", chosen < fixed, command),
    ]


# ---- shapes of real models ----------------------------------------------------------------------------------------

def sparse(work, shape, *more):
    out = work / shape
    subprocess.run([sys.executable, ROOT / "scripts" / "make_shape.py", out, shape, *more], check=True, stdout=subprocess.DEVNULL)
    return out


def load(build, work, shapes):
    rows = []
    for shape in shapes:
        src = sparse(work, shape, "--tokenizer", MODEL)
        answer(build, "compress", src, "--method", "rtn", "--unchecked", "--quiet", "--refine", "off")
        file = work / f"{shape}-compressed" / "squish_4bit" / "model.sqw"
        code, out, err = squish(build, "bench", "load", file, "--runs", 10, "--json", "--quiet")
        if code:
            sys.exit(err)
        found = {r["name"]: r for r in json.loads(out)["rows"]}
        ms, added, peak = found["load_ms"], found["load_anon_added_mb"], found["load_anon_peak_mb"]
        command = f"squish bench load {shape}.sqw --runs 10"
        rows.append(row(f"{shape} shape, INT4: warm open to ready", "<= 15 ms",
                        f"mean {ms['mean']:.2f} ms, sd {ms['sd']:.2f}, min {ms['min']:.2f}, max {ms['max']:.2f}", ms["max"] <= 15, command))
        rows.append(row(f"{shape} shape, INT4: anonymous memory", "added <= 12 MB, peak <= 30 MB",
                        f"added {added['value']:.2f} MB, peak {peak['value']:.2f} MB", added["value"] <= 12 and peak["value"] <= 30, command))
        if "cold_resident_s" in found and "share" in found["cold_resident_s"]:
            share = found["cold_resident_s"]["share"]
            rows.append(row(f"{shape} shape, INT4: cold, all of it resident", "<= 1.1 x the disk's time",
                            f"{1 / share:.2f} x ({found['cold_resident_s']['value']:.2f} s)", 1 / share <= 1.1, command))
        if "first_byte_ms" in found and "prefill_ms" in found:
            over = found["first_byte_ms"]["value"] - found["prefill_ms"]["value"]
            rows.append(row(f"{shape} shape, INT4: start of the program to the first byte, beyond the prefill", "<= 100 ms",
                            f"{over:.1f} ms (prefill {found['prefill_ms']['value']:.0f} ms)", over <= 100, command))
        shutil.rmtree(work / f"{shape}-compressed")
        shutil.rmtree(src)
    return rows


def memory(build, work):
    src = sparse(work, "14b")
    r = answer(build, "compress", src, "--method", "rtn", "--unchecked", "--quiet", "--refine", "off")
    plan = answer(build, "plan", src)
    said = 0
    for t in plan["tiers"]:
        if t["tier"] == "0":
            said = t["bytes"]
    shutil.rmtree(work / "14b-compressed")
    for t in answer(build, "plan", src)["tiers"]:
        if t["tier"] == "0":
            said = t["bytes"]
    shutil.rmtree(src)
    off = said / r["bytes"] - 1
    return [row("29.6 GB of bf16 in the 14B shape to INT4: anonymous memory", "<= 256 MB",
                f"{r['peak_anon_mb']:.0f} MB, {r['seconds']:.0f} s", r["peak_anon_mb"] <= 256, "scripts/targets_weights.py --part memory"),
            row("14B shape, INT4: bytes on disk against the formula", "within 1 %",
                f"{r['bytes'] / 1e9:.3f} GB ({r['bytes'] / 2**30:.3f} GiB), {off * 100:+.3f} %", abs(off) <= 0.01,
                "scripts/targets_weights.py --part memory")]


def kills(build, work, n=50):
    """Kill builds at random moments, resume each to the end, compare with one that was left alone."""
    whole = work / "whole"
    answer(build, "compress", MODEL, "-o", whole, "--unchecked", "--quiet")
    want = (whole / "squish_4bit" / "model.sqw").read_bytes()
    seconds = 0.6
    out, corrupt, killed, finished, lost = work / "killed", 0, 0, 0, 0
    rng = random.Random(402)
    while killed < n:
        shutil.rmtree(out, ignore_errors=True)
        p = subprocess.Popen([f"{build}/squish", "compress", str(MODEL), "-o", str(out), "--unchecked", "--quiet", "--threads", "1"],
                             cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * seconds)
        if p.poll() is not None:
            finished += 1
            continue
        p.send_signal(signal.SIGKILL)
        p.wait()
        killed += 1
        ready = (out / ".squish_4bit_ready").exists()
        if ready and (out / "squish_4bit" / "model.sqw").read_bytes() != want:
            corrupt += 1
        partial = out / ".build" / "0.partial"
        had = partial.stat().st_size if partial.exists() else 0
        r = answer(build, "compress", MODEL, "-o", out, "--unchecked", "--quiet", "--resume")
        if not r["reused"]:
            lost = max(lost, had - r["resumed_bytes"])
        if (out / "squish_4bit" / "model.sqw").read_bytes() != want:
            corrupt += 1
    return [row(f"{n} random kill -9 of a build, each resumed to the end", "0 corrupt tiers",
                f"{corrupt} corrupt; every tier equal to an undisturbed one", corrupt == 0, "scripts/targets_weights.py --part kills")]


def interop(path):
    if not path:
        return []
    return [row(f"interop: {r['name']}", "equal" if "perplexity" not in r["name"] else "within 0.5 %", r["value"], r["state"] == "ok",
                "make test-interop") for r in json.loads(pathlib.Path(path).read_text())["rows"] if r["state"] != "skipped"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--part", default="tests,fidelity,cgroups,quant,methods,load,memory,kills")
    parser.add_argument("--text", default=os.environ.get("SQUISH_TESTDATA", "") + "/data/heldout-prose.txt")
    parser.add_argument("--shapes", default="1.5b,7b,14b,qwen3-8b")
    parser.add_argument("--interop")
    parser.add_argument("--work")
    o = parser.parse_args()
    os.environ["SQUISH_BIN"] = f"{o.build}/squish"
    known = parser.get_default("part").split(",")
    parts, rows = o.part.split(","), []
    if unknown := [p for p in parts if p not in known]:
        parser.error(f"no part '{unknown[0]}', wanted {', '.join(known)}")
    with tempfile.TemporaryDirectory(dir=o.work) as folder:
        work = pathlib.Path(folder)
        for name, fn in (("tests", lambda: tests(o.build)), ("fidelity", lambda: fidelity(o.build, work)),
                         ("cgroups", lambda: cgroups(o.build)), ("quant", lambda: quant(o.build)),
                         ("methods", lambda: methods(o.build, o.text, work)),
                         ("load", lambda: load(o.build, work, o.shapes.split(","))),
                         ("memory", lambda: memory(o.build, work)), ("kills", lambda: kills(o.build, work))):
            if name in parts:
                found = fn()
                for r in found:
                    print(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})", flush=True)
                rows += found
    rows += interop(o.interop)
    targets.write_result(rows)
    targets.pages()


if __name__ == "__main__":
    main()
