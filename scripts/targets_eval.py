#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure what INT8, INT4, INT3 and caches of fewer bits cost on the benchmark tasks, into results/, and make the pages anew.

    scripts/targets_eval.py --data DIR [--build build] [--part NAME,...] [--work DIR] [--limit N] [--kv-limit N] [--threads N] [--print]

Parts: reference (item by item against transformers), speed (five tasks, limit 200), clients (lm-eval through the server), weights
(tiers against the source's dtype), kv (caches against f16, every context behind 1.5k tokens of prose, which are computed once). --work
keeps models and items, so that a stopped run goes on, and one of more items begins where one of fewer ended; --limit and --kv-limit take
the first items of each task only (default: all). The public task files and what docs/eval.md says about them: --data, or
$SQUISH_TESTDATA/data/eval. No figure depends on --threads; --print writes no results."""
import json
import os
import pathlib
import re
import subprocess
import time

import targets
from targets import row

TASKS = ("arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande")
PREFIX_BYTES = 6300  # some 1,550 tokens of squish-tiny


def squish(o, *args, check=True):
    p = subprocess.run([f"{o.build}/squish", *map(str, args)], cwd=targets.ROOT, text=True, capture_output=True, check=False)
    if check and p.returncode not in (0, 1):
        raise SystemExit(f"squish {' '.join(map(str, args))}: {p.stderr[-1000:]}")
    return p


def limits(n):
    return ["--limit", n] if n else ["--no-limit"]


def evaluate(o, name, limit, model, *flags):
    """Run into o.work/name.jsonl, going on with what is there; the whole answer."""
    items = o.work / f"{name}.jsonl"
    done = o.work / f"{name}{''.join(map(str, limits(limit)))}.json"
    if done.exists():
        return json.loads(done.read_text())
    resume = ["--resume"] if items.exists() else []
    p = squish(o, "eval", model, "--data", o.data, "--items", items, *resume, "--threads", o.threads, "--json", *flags, *limits(limit))
    answer = json.loads(p.stdout)
    if "tasks" not in answer:
        raise SystemExit(p.stderr)
    for task in answer["tasks"].values():
        del task["items"]
    done.write_text(json.dumps(answer))
    return answer


def reference(o):
    code, out = targets.run(f"{o.build}/tests/golden/test_eval_reference")
    found = re.findall(r"^(\S+): (\d+) items, predictions equal but for (\d+) near-ties, largest difference of log-likelihoods (\S+), acc (\S+) "
                       r"acc_norm (\S+)$", out, re.M)
    command = "SQUISH_LONG=1 build/tests/golden/test_eval_reference"
    ok = code == 0 and len(found) == len(TASKS)
    return [row(f"squish-tiny, source dtype, {n} items of {task}: predictions against transformers, item by item",
                "equal but for near-ties (0.01), scores within 0.3 points",
                f"{'equal' if ok else 'DIFFERENT'}, {ties} near-ties, largest difference of a log-likelihood {worst}, acc {float(acc) * 100:.1f} %"
                + (f", acc_norm {float(norm) * 100:.1f} %" if task != "winogrande" else ""), ok, command)
            for task, n, ties, worst, acc, norm in found] or [row("squish-tiny: predictions against transformers", "equal", "FAILED", False, command)]


def speed(o):
    rows = []
    for tier in ("source", "0"):
        begin = time.monotonic()
        p = squish(o, "eval", "squish-tiny", "--tier", tier, "--data", o.data, "--limit", 200, "--json")
        seconds = time.monotonic() - begin
        n = sum(t["n"] for t in json.loads(p.stdout)["tasks"].values())
        rows.append(row(f"five tasks, limit 200, squish-tiny, tier {tier}: the whole command", "<= 60 s on 2 cores",
                        f"{seconds:.1f} s, {n} items ({n / seconds:.1f} items/s)", seconds <= 60,
                        f"squish eval squish-tiny --tier {tier} --data DIR --limit 200"))
    return rows


def clients(o):
    limit = os.environ.get("LM_EVAL_LIMIT", "200")
    p = subprocess.run(["make", "-s", "test-clients", "CLIENTS=lm-eval"], cwd=targets.ROOT, text=True, capture_output=True, check=False,
                       env={**os.environ, "LM_EVAL_LIMIT": limit})
    found = re.search(r"(\d+) log-likelihoods, (\d+) items a task: equal doubles", p.stdout)
    value = f"{found.group(1)} log-likelihoods of {int(found.group(2)) * len(TASKS)} items: equal doubles" if found else "DIFFERENT"
    return [row("lm-evaluation-harness through squish serve against squish eval, five tasks", "identical doubles", value, bool(found),
                f"LM_EVAL_LIMIT={limit} make test-clients CLIENTS=lm-eval")]


def compared(o, name, base, model, *flags):
    """Items of name against those of base, without running anything again."""
    p = squish(o, "eval", model, "--data", o.data, *flags, "--items", o.work / f"{name}.jsonl", "--resume", "--reference", o.work / f"{base}.jsonl",
               "--json")
    return json.loads(p.stdout)["tasks"]


def error_of(c):
    """Standard error of the paired difference, in points: the interval is 1.96 of them to each side."""
    return 100 * (c["interval"][1] - c["interval"][0]) / 2 / 1.96


def rows_of(what, bar, tasks, command, mean_bar=None, task_bar=None):
    rows = []
    deltas = []
    for task, t in tasks.items():
        c = t["compared"]
        deltas.append(100 * c["delta"])
        ok = not (c["mcnemar_p"] < 0.01 and c["delta"] < 0) and (task_bar is None or abs(100 * c["delta"]) <= task_bar)
        sealed = f", {100 * t['read_sealed']:.0f} % of what was attended to read in fewer bits" if t.get("read_sealed") else ""
        rows.append(row(f"squish-tiny, {what}, {t['n']} items of {task} ({t['metric']}) against the source's dtype", bar,
                        f"{100 * (c['reference'] + c['delta']):.2f} % (standard error {100 * t['stderr']:.2f}) against {100 * c['reference']:.2f} %: "
                        f"{100 * c['delta']:+.2f} points (standard error {error_of(c):.2f}, 95 % {100 * c['interval'][0]:+.2f} to "
                        f"{100 * c['interval'][1]:+.2f}), lost {c['lost']}, won {c['won']}, McNemar p "
                        f"{c['mcnemar_p']:.3f}{sealed}", ok, command))
    if mean_bar is not None:
        mean = sum(deltas) / len(deltas)
        rows.append(row(f"squish-tiny, {what}: mean over {len(deltas)} tasks against the source's dtype", f"within {mean_bar} points",
                        f"{mean:+.2f} points", abs(mean) <= mean_bar, command))
    return rows


def weights(o):
    rows = []
    int3 = o.work / "int3"
    if not int3.exists():
        squish(o, "compress", "squish-tiny", "--tier", "0", "--bits", "3", "--method", "milo", "-o", int3)
    evaluate(o, "source", o.limit, "squish-tiny", "--tier", "source")
    for name, what, model, flags, mean_bar in (("q8", "INT8", "squish-tiny", ("--tier", "q8"), 0.3),
                                               ("int4", "INT4", "squish-tiny", ("--tier", "0"), 1.5),
                                               ("int3", "INT3 (milo)", int3, ("--tier", "0"), None)):
        evaluate(o, name, o.limit, model, *flags)
        bar = "no task with McNemar p < 0.01" if mean_bar else "printed beside INT4"
        rows += rows_of(what, bar, compared(o, name, "source", model, *flags, *limits(o.limit)),
                        f"squish eval {'squish-tiny' if name != 'int3' else 'int3'} {' '.join(flags)} --reference source --data DIR "
                        + " ".join(map(str, limits(o.limit))), mean_bar)
    return rows


def caches(o):
    prefix = o.work / "prefix.txt"
    prefix.write_text((targets.ROOT / "tests/fixtures/own-prose.txt").read_text()[:PREFIX_BYTES])
    more = ("--tier", "source", "--fewshot-file", prefix, "--tasks", o.kv_tasks)
    evaluate(o, "kv-f16", o.kv_limit, "squish-tiny", *more)
    rows = []
    for kv in o.kv.split(","):
        evaluate(o, f"kv-{kv}", o.kv_limit, "squish-tiny", *more, "--kv", kv)
        rows += rows_of(f"cache {kv}, contexts behind {PREFIX_BYTES} bytes of prose", "within 0.5 points, not McNemar p < 0.01",
                        compared(o, f"kv-{kv}", "kv-f16", "squish-tiny", *more, "--kv", kv, *limits(o.kv_limit)),
                        f"squish eval squish-tiny --tier source --kv {kv} --fewshot-file prefix.txt --data DIR "
                        + " ".join(map(str, limits(o.kv_limit))), None, 0.5)
    return rows


PARTS = {"reference": reference, "speed": speed, "clients": clients, "weights": weights, "kv": caches}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(os.environ.get("SQUISH_TESTDATA", "") + "/data/eval"))
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/eval"))
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--kv-limit", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="write no results")
    parser.add_argument("--kv", default="q8,k8v4,q4,k4v2,q2")
    parser.add_argument("--kv-tasks", default=",".join(TASKS))
    o = parser.parse_args()
    o.work = o.work.resolve()
    o.work.mkdir(parents=True, exist_ok=True)
    targets.measure_parts(parser, o, PARTS)


if __name__ == "__main__":
    main()
