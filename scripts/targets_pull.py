#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a pull over loopback beside curl into a file and sha256sum, and pulls that are killed, into results/; and make the pages
anew.

    scripts/targets_pull.py [--build build] [--part speed,kills] [--runs N] [--megabytes N] [--kills N] [--print]

The hub is tests/support/fake_hub.py. speed: one file of random bytes; runs of the two take turns, and the share is that of the
medians. kills: random moments, then one pull to the end; what was sent twice is counted by the hub."""
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import targets

ROOT = targets.ROOT
CONFIG = ROOT / "tests" / "fixtures" / "architectures" / "qwen2" / "config.json"


class Fake:
    def __init__(self, work, megabytes):
        self.work, self.bytes = pathlib.Path(work), megabytes * 1_000_000
        repo = self.work / "root" / "me" / "wide"
        repo.mkdir(parents=True)
        shutil.copy(CONFIG, repo)
        self.file = repo / "model.safetensors"
        with open(self.file, "wb") as f:
            for _ in range(megabytes):
                f.write(os.urandom(1_000_000))
        self.faults, self.log = self.work / "faults", self.work / "log"
        self.p = subprocess.Popen([sys.executable, str(ROOT / "tests/support/fake_hub.py"), "--root", str(self.work / "root"), "--faults",
                                   str(self.faults), "--log", str(self.log), "--parent", str(os.getpid())], stdout=subprocess.PIPE, text=True)
        self.hub = json.loads(self.p.stdout.readline())["hub"]
        self.env = dict(os.environ, HF_ENDPOINT=self.hub, SQUISH_HOME=str(self.work / "home"), HF_TOKEN="")

    def sent(self):
        return sum(json.loads(line)["sent"] for line in open(self.log)) if self.log.exists() else 0

    def fresh(self):
        shutil.rmtree(self.work / "home", ignore_errors=True)

    def pull(self, o):
        return [o.squish, "pull", "hf.co/me/wide", "-q", "--connections", str(o.connections)]

    def end(self):
        self.p.terminate()
        self.p.wait(20)


def timed(command, env, shell=False):
    begin = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, shell=shell)
    return time.perf_counter() - begin


def speed(o):
    with tempfile.TemporaryDirectory(dir=o.work) as work:
        fake, ours, theirs = Fake(work, o.megabytes), [], []
        try:
            revision = json.load(os.popen(f"curl -s {fake.hub}/api/models/me/wide"))["sha"]  # sums of the file are known after this
            out = pathlib.Path(work) / "curl.bin"
            line = f"curl -sL -o {out} {fake.hub}/me/wide/resolve/{revision}/model.safetensors && sha256sum {out}"
            for i in range(o.runs + 1):
                fake.fresh()
                a = timed(fake.pull(o), fake.env)
                b = timed(line, fake.env, shell=True)
                out.unlink()
                if i:  # the first is not counted
                    ours.append(a)
                    theirs.append(b)
        finally:
            fake.end()
    share = statistics.median(theirs) / statistics.median(ours)
    gb = fake.bytes / 1e9
    return [targets.row(f"pull over loopback, {gb:.2g} GB, beside curl into a file and sha256sum", ">= 0.8x",
                        f"{share:.2f}x ({gb / statistics.median(ours):.2f} and {gb / statistics.median(theirs):.2f} GB/s, medians of {o.runs}, "
                        "in turn)", share >= 0.8, "make bench-pull")]


def kills(o):
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir=o.work) as work:
        fake, listed, n = Fake(work, 60), 0, 0
        try:
            fake.faults.write_text(json.dumps({"rate": 2_000_000}))  # slow enough for all of them to fall into one pull
            while n < o.kills:
                p = subprocess.Popen(fake.pull(o), env=fake.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(rng.uniform(0.02, 0.3))
                if p.poll() is not None:
                    break
                p.kill()
                p.wait()
                n += 1
                names = subprocess.run([o.squish, "list"], env=fake.env, capture_output=True, text=True).stdout
                listed += "hf.co" in names
            fake.faults.write_text("{}")
            subprocess.run(fake.pull(o), env=fake.env, check=True, stdout=subprocess.DEVNULL)
            same = (pathlib.Path(work) / "home/models/hf.co--me--wide/model.safetensors").read_bytes() == fake.file.read_bytes()
            repeated = max(0, fake.sent() - fake.bytes) / 1e6
        finally:
            fake.end()
    return [targets.row(f"pull of 60 MB killed at {n} random moments", ">= 50 kills, same bytes, <= 64 MB twice, never half listed",
                        f"{'same' if same else 'OTHER'} bytes, {repeated:.1f} MB sent twice, half listed {listed} times",
                        n >= 50 and same and repeated <= 64 and not listed, "make bench-pull")]


PARTS = {"speed": speed, "kills": kills}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", help="a folder for 4 GB (default: that of temporary files)")
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    o.squish = str(pathlib.Path(o.build).absolute() / "squish")
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
