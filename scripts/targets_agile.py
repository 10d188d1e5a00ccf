#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The targets of weights that do not fit (docs/io.md): what a get costs beside the device, and models of 4 GB and more
with half the memory they want, beside demand loading and page faults.

    scripts/targets_agile.py MODEL.sqw [MODEL.sqw ...] [--build build] [--runs 5] [--tokens 6] [--no-results]

Each model is measured by `squish bench agile` (cold: direct reads). Where a memory cgroup can be made (root), it is
also run twice in one that holds half of the weights beside cache and scratch: streamed, and mapped, as page faults
bring it. The tokens must be the same. Rows are printed and written into results/."""
import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import targets

PROMPT = "Tell me a story about a small boat"


def bench(options, model):
    line = [options.squish, "bench", "agile", model, "--runs", str(options.runs), "--json", "--quiet"]
    report = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {r["name"]: r for r in report["rows"]}


def gets(rows):
    value = {n: r["value"] for n, r in rows.items()}
    warm, read = value["get, warm"], value["get and read 64 KiB, warm"]
    cold, turn = value["read 64 KiB, cold"], value["three cold gets in turn"]
    at_once, time_between = value["prefetch of three and gets"], value["prefetch of three, time, gets"]
    yield "read 64 KiB, cold", cold, "us", "beside 89 us", True
    yield "read 1 MiB, cold", value["read 1 MiB, cold"], "us", "beside 126 us", True
    yield "get, warm", warm, "us", "<= 0.3", warm <= 0.3
    yield "get and read 64 KiB, warm", read, "us", "<= 8", read <= 8
    yield "cold read of 64 KiB over a warm get", cold / warm, "x", ">= 25", cold / warm >= 25
    yield "cold get over a cold read", value["get 64 KiB, cold"] - cold, "us", "<= 10", value["get 64 KiB, cold"] - cold <= 10
    yield "prefetch of three and gets at once, over three cold gets in turn", at_once / turn, "x", "<= 1/3", at_once / turn <= 1 / 3
    yield "the same calls with time between prefetch and gets", time_between / turn, "x", "<= 1/3", time_between / turn <= 1 / 3


def half(rows, what):
    streamed, demand, mapped = rows[f"{what}, streamed"], rows[f"{what}, on demand"], rows[f"{what}, mapped"]
    compute, io, total = mapped["value"], streamed["io_ms"], streamed["mean_ms"]
    longer, shorter = max(compute, io), min(compute, io)
    hidden = 1 - streamed["stall_ms"] / streamed["busy_ms"] if streamed["busy_ms"] else 1
    gain = demand["mean_ms"] / total
    yield "device", rows[f"device, while {what}s ran"]["value"], "GB/s", "", True
    yield "computing, mapped and warm", compute, "ms", "", True
    yield "reading, its bytes at the device's rate", io, "ms", "", True
    yield "total over the longer of both", total / longer, "x", "<= 1.10", total / longer <= 1.10
    yield "reads hidden behind computing", 100 * hidden, "%", ">= 90 where computing is longer", hidden >= 0.9 or compute < io
    want = 0.9 * (1 + shorter / longer)
    yield "gain over demand loading", gain, "x", f">= {want:.2f}", gain >= want
    yield "tokens that differ", streamed["differ"] + demand["differ"], "", "0", streamed["differ"] + demand["differ"] == 0


class Group:
    """A memory cgroup of version 1 or 2."""

    def __init__(self, limit):
        v1 = pathlib.Path("/sys/fs/cgroup/memory")
        self.path = (v1 if v1.is_dir() else pathlib.Path("/sys/fs/cgroup")) / f"squish-agile-{os.getpid()}"
        self.path.mkdir()
        (self.path / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(limit))

    def add(self, pid):
        (self.path / "cgroup.procs").write_text(str(pid))

    def end(self):
        for _ in range(100):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)


def chat(options, model, group, flags):
    """Answer of `squish chat` and its tokens a second. The model is open, and its pages are not there, when the process
    enters the group."""
    line = [options.squish, "chat", "-m", model, "--temp", "0", "-n", str(options.tokens), "-v", "--ctx", "512", "--chunk",
            "32", "--spec", "off", *flags]
    with open(model, "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    p = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(1.0)
        group.add(p.pid)
        out, err = p.communicate(PROMPT + "\n", timeout=options.seconds)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGKILL)
        p.communicate()
        return None, None
    rate = re.search(r"answer \d+ tokens ([0-9.]+) tok/s", err)
    return out, float(rate.group(1)) if rate else None


def page_faults(options, model, limit):
    group = Group(limit)
    try:
        streamed, fast = chat(options, model, group, ["--agile-io", "--memory-limit", str(int(limit * 0.95))])
        mapped, slow = chat(options, model, group, [])
    finally:
        group.end()
    if not fast:
        yield "in a cgroup of half", 0, "tok/s", "runs", False
        return
    yield "in a cgroup of half, streamed", fast, "tok/s", "", True
    if not slow:
        yield f"in a cgroup of half, page faults: no answer in {options.seconds} s", 0, "tok/s", "", True
        return
    yield "in a cgroup of half, page faults", slow, "tok/s", "", True
    yield "gain over page faults", fast / slow, "x", ">= 1.5", fast / slow >= 1.5
    yield "the same answer", float(streamed == mapped), "", "1", streamed == mapped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--build", default="build")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=240, help="longest wait for an answer by page faults")
    parser.add_argument("--no-faults", action="store_true", help="leave the cgroups out")
    parser.add_argument("--no-results", action="store_true")
    options = parser.parse_args()
    options.squish = str(pathlib.Path(options.build) / "squish")
    done, met = [], True
    for i, model in enumerate(options.models):
        rows = bench(options, model)
        name = pathlib.Path(model).resolve().parents[1].name
        lists = ([("gets", gets(rows))] if i == 0 else []) + [(f"half, {name}", half(rows, "token")),
                                                              (f"half, {name}, prompt of 64", half(rows, "prompt of 64"))]
        if not options.no_faults:
            limit = rows["token, streamed"]["budget"] + (256 << 20)
            try:
                lists.append((f"half, {name}", page_faults(options, model, limit)))
            except OSError as e:
                print(f"no cgroup here: {e}", file=sys.stderr)
        for table, some in lists:
            for what, value, unit, bar, ok in some:
                print(f"{table:24} {what:62} {value:10.4g} {unit:10} {bar:32} {'ok' if ok else 'MISSED'}", flush=True)
                if bar:
                    done.append(targets.row(f"{table}: {what}", bar, f"{value:.4g} {unit}".strip(), bool(ok),
                                            "scripts/targets_agile.py MODEL.sqw"))
                met &= bool(ok)
    if not options.no_results:
        targets.write_result(done)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
