#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure a pull over loopback beside curl into a file and sha256sum, pulls that are killed, and what the tests of pulls and of
names say, into results/; and make the pages anew.

    scripts/targets_pull.py [--build build] [--part speed,kills,tests] [--runs N] [--megabytes N] [--kills N] [--print]

The hub is tests/support/fake_hub.py. speed: one file of random bytes; runs of the two take turns, and the share is that of the
medians. kills: random moments, then one pull to the end; what was sent twice is counted by the hub. tests: the programs of tests/ that the
rows name, with every fault instead of every fourth, and tests/clients/test_hub.py in the environment of make test-hub."""
import json
import os
import pathlib
import random
import re
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


PULL_TESTS = {  # of tests/e2e/test_pull.c
    "pulls from a hub that cuts every 5 MB and every 0.7, stalls 20 s, ends a byte short, packs bodies, sends wrong sums, other lengths, "
    "429 and 5xx, has no ranges; disk full; 6 kills; two pulls at once": (
        "same bytes, <= 64 MB twice; a wrong sum never installed, nothing half listed",
        ["connections_that_break_are_taken_up_again", "servers_without_ranges_and_packed_bodies_are_met_once", "a_wrong_sum_is_never_installed",
         "a_killed_pull_goes_on", "two_pulls_of_one_name_fetch_once", "a_disk_that_fills_up_in_mid_write_keeps_the_part",
         "a_full_disk_is_said_before_and_leaves_nothing"]),
    "a token, by what both hosts logged of headers": ("at its own host alone", ["the_token_goes_to_its_own_host_alone"]),
    "no name server, no route, proxy 407, expired certificate, gated repository, no space": (
        "one line each, exit status 6 (5: space)",
        ["what_stands_in_the_way_is_said_in_one_line", "without_a_route_one_line_says_so", "certificates_are_checked",
         "the_token_goes_to_its_own_host_alone", "a_full_disk_is_said_before_and_leaves_nothing"]),
    "models pulled through /api/pull by three clients at once, one of whom leaves": (
        "fetched once, told to all", ["a_server_pulls_once_for_all_who_ask", "a_server_compresses_what_it_pulls"]),
}


def program(o, name):
    path = f"{o.build}/tests/{name}"
    env = dict(os.environ, SQUISH_BIN=o.squish, SQUISH_LONG="1")
    done = subprocess.run([path], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode == 0, done.stdout


def number(pattern, text):
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def tests(o):
    _, out = program(o, "e2e/test_pull")
    rows = []
    for name, (bar, wanted) in PULL_TESTS.items():
        well = [t for t in wanted if f"[       OK ] {t}" in out]
        rows.append(targets.row(name, bar, f"{len(well)} of {len(wanted)} tests passed", len(well) == len(wanted),
                                f"{o.build}/tests/e2e/test_pull"))
    ok, out = program(o, "fault/test_pull_faults")
    n = number(r"(\d+) failures", out)
    rows.append(targets.row("pull, import and changes of the store, with the n-th allocation, write or read failing, the disk full from there, or "
                            "the process ended there, for every n", "whole or not there; one line; no leak; goes on", f"{n} failures, "
                            f"{'all so' if ok else 'NOT ALL SO'}", ok and n > 500, f"SQUISH_LONG=1 {o.build}/tests/fault/test_pull_faults"))
    requests, good = 0, True
    for t in ("e2e/test_api_names", "e2e/test_api_attacks", "unit/test_hub_name"):
        ok, out = program(o, t)
        good, requests = good and ok, requests + number(r"(\d+) requests", out)
    rows.append(targets.row("500 hostile names in every route and command that takes a name", "0 opens outside the store (inotify)",
                            f"{'0' if good else 'SOME'} ({requests} requests)", good and requests > 1000, f"{o.build}/tests/e2e/test_api_names"))
    done = subprocess.run([o.hub_python, "tests/clients/test_hub.py", "--squish", o.squish], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    last = done.stdout.strip().splitlines()[-1]
    rows.append(targets.row("PyPI's huggingface_hub, unchanged, and Ollama's client on the hub of tests/support; squish pull from it", "same bytes",
                            f"{last}", done.returncode == 0, "make test-hub"))
    done = subprocess.run(["scripts/test_live.sh", o.squish, "smollm2:135m", f"{o.build}/live"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False)
    rows.append(targets.row("a small public model: of the hub its first 20 tokens, of PyPI as GGUF beside transformers", "answers; skipped without "
                            "a network", done.stdout.strip().splitlines()[-1] + (", no network to the hub here" if "skipped: smollm2" in done.stdout
                            else ""), done.returncode == 0, "make test-live"))
    return rows


PARTS = {"speed": speed, "kills": kills, "tests": tests}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", help="a folder for 4 GB (default: that of temporary files)")
    parser.add_argument("--hub-python", default="build/venv-hub/bin/python", help="of make test-hub")
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    o.squish = str(pathlib.Path(o.build).absolute() / "squish")
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
