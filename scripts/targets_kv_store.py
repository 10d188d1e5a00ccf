#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what is found and held by a cache in fewer bits into results/, and make the pages anew.

    scripts/targets_kv_store.py [--build build] [--shape MODEL] [--part NAME,...] [--text FILE] [--trials N] [--kv FORMAT]

Parts: needle, bytes, archive, codec, speed, plan (all of them unless named). needle: pass keys in prompts of 600, 1,000 and 1,500 tokens of a text that
squish-tiny has not seen (--text, or $SQUISH_TESTDATA/data/heldout-prose.txt); lengths at which f16 finds fewer than 80 % do not count.
bytes, speed: need --shape, a model in the 1.5B shape; speed says something on a quiet machine alone.
plan: needs --plan-of."""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import server_client as sc
import targets
from targets import row
from targets_weights import answer

REST = 8  # tokens at the end of a context that are drawn
PREFIX = 12_000  # bytes of text before a question: some 3,000 tokens


def needle_rows(found, command):
    """found: rows of `squish bench needle`."""
    f16 = {r["at"]: r for r in found if r["kv"] == "f16"}
    lengths = [n for n, r in f16.items() if r["found"] >= 0.8 * r["trials"]]
    base = sum(f16[n]["found"] for n in lengths)
    trials = sum(f16[n]["trials"] for n in lengths)
    rows, kinds = [], dict.fromkeys(r["kv"] for r in found if r["kv"] != "f16")
    for kind in kinds:
        mine = [r for r in found if r["kv"] == kind and r["at"] in lengths]
        hits = sum(r["found"] for r in mine)
        each = ", ".join(f"{r['found']} at {r['at']}" for r in mine)
        rows.append(row(f"squish-tiny, pass key at three depths read sealed, {trials} trials: {kind}", ">= 95 % of f16",
                        f"{100 * hits / base:.1f} % ({hits} found, f16 {base}; {each})", hits >= 0.95 * base, command))
    return rows


def needle(build, text, trials, kv):
    if not text.exists():
        return []
    one = ["--kv", kv] if kv else []
    found = answer(build, "bench", "needle", "squish-tiny", "--text", text, "--at", "600,1000,1500", "--runs", trials, "--sparge-min", 512, *one)["rows"]
    return needle_rows(found, f"squish bench needle squish-tiny --text heldout-prose.txt --runs {trials} --sparge-min 512 {' '.join(one)}".strip())


def bytes_rows(build, shape):
    if not shape:
        return []
    found = answer(build, "bench", "kv", shape, "--at", "8192,16384", "--runs", 1)["rows"]
    command = "squish bench kv 1.5b.sqw --at 8192,16384 --runs 1"
    rows = []
    for r in found:
        if r["name"].startswith("bytes a token"):
            off = r["value"] / r["limit"] - 1
            rows.append(row(f"1.5B shape, {r['kv']}: bytes a token, slope of RSS from 8k to 16k", f"{r['limit']:.0f} +- 5 %",
                            f"{r['value']:.0f} ({100 * off:+.1f} %)", abs(off) <= 0.05, command))
    return rows


def first_answers(build, text, *options):
    """Greedy answers behind four long texts, each asked for on its own: (texts, median of first tokens in ms)."""
    said, firsts = [], []
    with sc.Server(build, "squish-tiny", "--spec", "off", *options) as s:
        for i in range(4):
            t = sc.talk(s.port, sc.completion(text[i * PREFIX:(i + 1) * PREFIX], 16, temperature=0))
            said.append(t.text())
            firsts.append(t.first_ms())
        s.stop()
    return said, statistics.median(firsts)


def archive_rows(build, text):
    """Prefixes on disk, as they are and archived: bytes, answers after a restart, and how long the first token takes."""
    if not text.exists():
        return []
    prose, rows, command = text.read_text(), [], "scripts/targets_kv_store.py --part archive"
    for kv in ("f16", "q8", "q4"):
        size = {}
        for options in ((), ("--snapshot-archive",)):
            with tempfile.TemporaryDirectory() as folder:
                kept = ("--kv", kv, "--snapshot-dir", folder, *options)
                cold, took = first_answers(build, prose, *kept)
                size[options] = sum(f.stat().st_size for f in pathlib.Path(folder).iterdir())
                warm, again = first_answers(build, prose, *kept)
        archived = size[("--snapshot-archive",)]
        rows.append(row(f"squish-tiny, four prefixes of {PREFIX} bytes of text on disk, {kv}, archived: answers after a restart; first token",
                        "equal; <= 0.5x of computing it", f"{'equal' if warm == cold else 'DIFFERENT'}; {again / took:.2f}x ({again:.0f} of {took:.0f} ms)",
                        warm == cold and again <= 0.5 * took, command))
        rows.append(row(f"squish-tiny, the same, {kv}: bytes of the archives against those of the plain files", "-",
                        f"{size[()] / archived:.3f}x fewer ({archived / 1e6:.1f} MB)", True, command))
    return rows


CODED = 24  # prefixes kept as codes: codebooks of 2.1 MB count, and weigh less the more is kept


def coded_answers(build, text, folder, n):
    """First tokens behind n long texts in ms, tokens that were not computed, and what the server said when it ended."""
    firsts, cached = [], []
    with sc.Server(build, "squish-tiny", "--spec", "off", "--snapshot-dir", folder, "--snapshot-codec") as s:
        for i in range(n):
            t = sc.talk(s.port, sc.completion(text[i * PREFIX:(i + 1) * PREFIX], 2, temperature=0))
            firsts.append(t.first_ms())
            cached.append(t.usage()["prompt_tokens_details"]["cached_tokens"])
        s.stop()
        said = (pathlib.Path(s.folder.name) / "log").read_text()
    return firsts, cached, said


def codec_rows(build, text):
    """Prefixes on disk as codes of trained codebooks: what they cost, and what they save."""
    if not text.exists():
        return []
    rows, command = [], "scripts/targets_kv_store.py --part codec"
    made = answer(build, "calibrate", "squish-tiny", "--codec", "--text", text, "--tokens", 24000, "--quiet")
    rows.append(row(f"squish-tiny, two stages of codes: KL to f16, {made['stretches']} x {made['continued']} tokens of prose the codebooks have not "
                    f"seen, behind {made['prefix']} that came back", "<= 0.02", f"{made['kl']:.4f}", made["kl"] <= 0.02, command))
    rows.append(row("squish-tiny, the same: pass keys", ">= 95 % of f16", f"{made['found']} of {made['pass_keys']}, f16 {made['found_f16']}",
                    made["found"] >= 0.95 * made["found_f16"], command))
    for what, bar in (("encode", 3), ("decode", 0.1)):
        rows.append(row(f"squish-tiny, the same: {what} a vector of 64, one thread", f"<= {bar} us", f"{made[f'{what}_us']:.3g} us",
                        made[f"{what}_us"] <= bar, command))
    prose = text.read_text()
    with tempfile.TemporaryDirectory() as folder:
        cold, _, said = coded_answers(build, prose, folder, CODED)
        warm, cached, _ = coded_answers(build, prose, folder, 4)
    kept = re.search(r"archived (\d+) bytes for (\d+) tokens: ([\d.]+)x fewer than f16, ([\d.]+)x with the codebooks \((\d+) bytes\)", said)
    size, tokens, alone, ratio, books = (float(x) for x in kept.groups())
    rows.append(row(f"squish-tiny, {CODED} prefixes as codes: bytes against f16, codebooks included", ">= 7x",
                    f"{ratio:.2f}x ({size / 1e6:.1f} MB for {tokens:.0f} tokens, {alone:.2f}x, and codebooks of {books / 1e6:.1f} MB)", ratio >= 7, command))
    again, took = statistics.median(warm), statistics.median(cold[:4])
    rows.append(row("squish-tiny, first token behind prefixes that come back from codes, the last 128 to 255 tokens computed", "<= 0.5x of computing it",
                    f"{again / took:.2f}x ({again:.0f} of {took:.0f} ms, {min(cached)} or more tokens came back)", again <= 0.5 * took and min(cached) > 0,
                    command))
    return rows


def speed_rows(build, shape):
    """Attention of a decoded token and whole tokens, each format beside f16 in the same run."""
    if not shape:
        return []
    found = answer(build, "bench", "kv", shape, "--at", "4096,8192,16384", "--runs", 7)["rows"]
    command = "squish bench kv 1.5b.sqw --at 4096,8192,16384 --runs 7"
    attention = {(n, kv): bar for n in (8192, 16384) for kv, bar in (("q8", 1.3), ("k8v4", 1.4), ("q4", 1.6))}
    token = {(16384, "k8v4"): 1.10, (16384, "q4"): 1.15}
    rows = []
    for r in found:
        at, kv = r["at"], r["kv"]
        took = f"{r['value']:.3g} +- {r['noise']:.2g} ms"
        if r["name"].startswith("attention at") and kv == "f16":
            ok = at < 16384 or r["share"] >= 0.75
            rows.append(row(f"1.5B shape, attention of a decoded token behind {at}, f16: share of the stream", ">= 75 %" if at == 16384 else "-",
                            f"{100 * r['share']:.0f} % ({took})", ok, command))
        elif r["name"].startswith("attention at"):
            bar = attention.get((at, kv))
            rows.append(row(f"1.5B shape, attention of a decoded token behind {at}, {kv}: against f16", f">= {bar}x" if bar else "-",
                            f"{r['f16_ratio']:.2f}x ({took})", not bar or r["f16_ratio"] >= bar, command))
        elif r["name"].startswith("token at") and kv != "f16":
            bar = token.get((at, kv), 1.0 if at == 4096 else None)
            rows.append(row(f"1.5B shape, a whole token behind {at}, {kv}: against f16", f">= {bar}x" if bar else "-",
                            f"{r['f16_ratio']:.2f}x ({took})", not bar or r["f16_ratio"] >= bar, command))
    return rows


def run_to(build, source, tier, kv, tokens, memory):
    """A prompt that fills a context but for its last tokens: (tokens evaluated, most memory of the process in bytes)."""
    prompt = " and" * (tokens - REST)
    p = subprocess.Popen([f"{build}/squish", "run", "-m", source, "--tier", tier, "--kv", kv, "--ctx", str(tokens), "--memory-limit", memory, "--raw",
                          "--temp", "0", "--ignore-eos", "--json", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    p.stdin.write(prompt)
    p.stdin.close()
    most = 0
    while p.poll() is None:
        status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        most = max([most] + [int(v) * 1024 for v in re.findall(r"VmHWM:\s+(\d+)", status)])
        time.sleep(0.2)
    said = p.stdout.read()
    if p.returncode:
        sys.exit(f"squish run --kv {kv} --ctx {tokens}: status {p.returncode}")
    said = json.loads(said)
    return said["prompt_tokens"] + len(said["tokens"]) - 1, most  # the last one drawn is not evaluated


def plan_rows(build, source, memory, kv):
    """The longest contexts that `squish plan` promises, run to their ends in the memory it was told of."""
    if not source:
        return []
    plan, rows = answer(build, "plan", source, "--memory", memory), []
    layers = json.loads((pathlib.Path(source) / "config.json").read_text())["num_hidden_layers"]
    wanted = kv.split(",") if kv else [c["kv"] for c in plan["contexts"]]
    for c in (c for c in plan["contexts"] if c["kv"] in wanted):
        tokens, most = run_to(build, source, plan["contexts_tier"], c["kv"], c["ctx"], memory)
        rows.append(row(f"plan, 7B shape with {layers} layers, {memory} of memory: longest context with {c['kv']}, run to its end",
                        "reached, within the memory", f"{c['ctx']} tokens planned, {tokens} run; at most {most / 1e6:.0f} of "
                        f"{plan['available'] / 1e6:.0f} MB", tokens == c["ctx"] and most <= plan["available"],
                        "scripts/targets_kv_store.py --part plan --plan-of 7B --plan-memory SIZE"))
    return rows


PARTS = {"needle": lambda o: needle(o.build, o.text, o.trials, o.kv), "bytes": lambda o: bytes_rows(o.build, o.shape),
         "archive": lambda o: archive_rows(o.build, o.text), "codec": lambda o: codec_rows(o.build, o.text),
         "speed": lambda o: speed_rows(o.build, o.shape), "plan": lambda o: plan_rows(o.build, o.plan_of, o.plan_memory, o.kv)}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    parser.add_argument("--shape")
    parser.add_argument("--plan-of", help="plan: a folder in the 7B shape whose tier 0 is there (fewer layers: so many times less memory)")
    parser.add_argument("--plan-memory", default="8G", help="plan: the memory to plan for")
    parser.add_argument("--trials", type=int, default=34)
    parser.add_argument("--kv", help="needle: caches of this format alone, beside f16; plan: of these")
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
