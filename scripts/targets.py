#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the rows that have a bar, write results/DATE-COMMIT-MACHINE.json, and make docs/targets.md,
docs/results.md (the first report, row by row), docs/measured.md and docs/performance.md from what lies in results/. No
figure is typed by hand. The other targets_*.py measure rows of their own with what is here.

    scripts/targets.py [--build build] [--fresh fresh.json]     measure, then write the pages
    scripts/targets.py --pages                                  only write the pages
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess

import seed_table

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(*command):
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          env={**os.environ, "SQUISH_LONG": "1"})
    return done.returncode, done.stdout


def machine():
    info = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    name = f"{info.get('model name', 'unknown')}, family {info.get('cpu family', '?')} model {info.get('model', '?')}"
    return f"{name}, {os.cpu_count()} cores"


def row(name, bar, value, ok, command, **more):
    return {"name": name, "bar": bar, "value": value, "ok": bool(ok), "command": command, **more}


def architectures(build):
    program = f"{build}/tests/golden/test_architectures"
    _, out = run(program)
    errors = [(float(e), f) for f, e in re.findall(r"^(\S+)\s+max \|error\| / absmax (\S+),", out, re.M)]
    cosines = [(float(c), f) for f, c in re.findall(r"^(\S+)\s+int8 cosine over all positions (\S+),", out, re.M)]
    greedy = "[       OK ] source_logits_are_transformers_and_greedy_tokens_are_equal" in out
    worst, family = max(errors)
    least, family8 = min(cosines)
    return [
        row("seven families, source dtype: largest logit error over absmax; 24 greedy tokens equal", "<= 2e-4, equal",
            f"{worst:.1e} ({family}), {'equal' if greedy else 'DIFFERENT'}", worst <= 2e-4 and greedy and len(errors) == 7,
            program),
        row("seven families, INT8: least cosine over 72 positions", ">= 0.997", f"{least:.5f} ({family8})",
            least >= 0.997 and len(cosines) == 7, program),
    ]


def squish_tiny(build):
    program = f"{build}/tests/golden/test_squish_tiny"
    _, out = run(program)
    rows = []
    for text in ("held-out prose", "own prose"):
        found = re.search(rf"^{text}: perplexity (\S+), reference (\S+)$", out, re.M)
        if found:
            got, want = map(float, found.groups())
            off = abs(got / want - 1)
            rows.append(row(f"squish-tiny, source dtype: perplexity of {text}", "within 0.1 % of the reference",
                            f"{got:.5f} against {want:.5f} ({off * 100:.4f} %)", off <= 1e-3, program))
    for name, bar in (("int8", 1.003), ("int4 lsq", 1.03), ("int4 rtn", None)):
        found = re.search(rf"^{name}\s+perplexity ratio (\S+)$", out, re.M)
        if found:
            ratio = float(found.group(1))
            rows.append(row(f"squish-tiny, {name}: perplexity ratio to the source", f"<= {bar}" if bar else "reported",
                            f"{ratio:.5f}", bar is None or ratio <= bar, program))
    for test, name in (("five_answers_are_equal_token_by_token", "squish-tiny: five answers equal token by token"),
                       ("int8_costs_at_most_0_3_percent_and_int4_3_percent_of_perplexity",
                        "squish-tiny, INT8 and INT4: five first tokens equal")):
        ok = f"[       OK ] {test}" in out
        rows.append(row(name, "equal", "equal" if ok else "DIFFERENT", ok, program))
    return rows


def passes(build, program, name, bar):
    path = f"{build}/tests/{program}"
    code, out = run(path)
    n = len(re.findall(r"^\[       OK \]", out, re.M))
    skipped = len(set(re.findall(r"^\[  SKIPPED \] (\S+)$", out, re.M)))
    value = f"{n} tests passed" + (f", {skipped} skipped" if skipped else "") if code == 0 else "FAILED"
    return row(name, bar, value, code == 0 and n > 0, f"build/tests/{program}")  # wherever that build lies


def load(build):
    program = f"{build}/tests/e2e/test_load"
    ms, mb = [], []
    for _ in range(11):
        _, out = run(program)
        found = re.search(r"^load: (\S+) ms, anonymous memory added: \S+ MB open, (\S+) MB ready", out, re.M)
        ms.append(float(found.group(1)))
        mb.append(float(found.group(2)))
    return [
        row("squish-tiny: open to ready, warm file, median of 11", "<= 5 ms",
            f"{statistics.median(ms):.2f} ms (least {min(ms):.2f}, most {max(ms):.2f})", statistics.median(ms) <= 5, program),
        row("squish-tiny: anonymous memory added by model, engine and timeline", "<= 8 MB",
            f"{statistics.median(mb):.2f} MB", max(mb) <= 8, program),
    ]


def fresh(path):
    if not path:
        return []
    found = json.loads(pathlib.Path(path).read_text())
    return [
        row("bare Debian 12 (git, gcc, make): make run answers Tokyo, with all installs", "<= 180 s",
            f"{found['run_seconds']} s, {'Tokyo' if found['tokyo'] else 'WRONG'}",
            found["tokyo"] and found["run_seconds"] <= 180, "scripts/fresh_debian.sh"),
        row("bare Debian 12: make test", "passes", f"{found['totals']} ({found['test_seconds']} s with installs)",
            " 0 failed" in found["totals"], "scripts/fresh_debian.sh"),
    ]


def measure(build, fresh_file):
    rows = fresh(fresh_file) + architectures(build) + squish_tiny(build)
    for program, name, bar in (
            ("golden/test_tok_golden", "tokenizers: ids of the original vocabularies, round trip of held-out prose", "equal"),
            ("golden/test_tmpl_golden", "templates: every rendering byte-equal, errors where expected", "equal"),
            ("unit/test_model_rope", "positions: frequencies and factors of llama3, yarn, linear, Gemma up to 128k", "1e-6"),
            ("e2e/test_repl", "chat in a pty: keys, history, paste, Ctrl-C, Ctrl-D, commands", "passes"),
            ("e2e/test_sameness", "same bits: threads 1, 2, 4; chunks 1, 7, 64, 512; every ISA at hand", "equal bits"),
            ("prop/test_kernels", "matrix kernels of every ISA against the scalar oracle at odd sizes", "equal bits"),
            ("prop/test_kernels_rows", "row kernels of every ISA against the scalar oracle", "equal bits"),
            ("prop/test_kernels_attn", "attention kernels of every ISA against the scalar oracle", "equal bits"),
            ("e2e/test_decode_allocations", "decode loop: heap allocations a token", "0")):
        rows.append(passes(build, program, name, bar))
    return rows + load(build)


def write_result(rows):
    _, commit = run("git", "rev-parse", "--short", "HEAD")
    today = datetime.date.today().isoformat()
    slug = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-")
    path = ROOT / "results" / f"{today}-{commit.strip()}-{slug}.json"
    path.parent.mkdir(exist_ok=True)
    if path.exists():  # parts of one commit's measurements go into one file
        names = {r["name"] for r in rows}
        rows = [r for r in json.loads(path.read_text())["rows"] if r["name"] not in names] + rows
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    path.write_text(json.dumps({"schema_version": 1, "date": today, "time": now, "commit": commit.strip(), "machine": machine(),
                                "rows": rows}, indent=1) + "\n")


def all_results():
    """Every result, oldest first. Those of one day without a time stand in the order of their commits."""
    found = []
    for path in (ROOT / "results").glob("*.json"):
        result = json.loads(path.read_text())
        code, out = run("git", "show", "-s", "--format=%ct", result["commit"])
        found.append((result["date"], result.get("time", ""), int(out) if code == 0 else 0, str(path), result))
    return [f[-1] for f in sorted(found, key=lambda f: f[:-1])]


EACH_MACHINE = ("make bench-peers", "squish bench kv 1.5b.sqw --at 4096")


def newest_rows(results, each_machine=False):
    """name -> (row, result). A run of bench-peers, or of a part of bench-server, makes all its rows anew, so older rows of
    the same command go: they may be called differently today. each_machine: rows that say how near to its machine
    a program comes are kept for every machine, and keys are (name, machine or "")."""
    newest = {}

    def machine_of(r, result):
        return result["machine"] if each_machine and r["command"].startswith(EACH_MACHINE) else ""

    for result in results:
        anew = {(r["command"], machine_of(r, result)) for r in result["rows"]
                if r["command"].startswith(("make bench-peers", "make bench-server"))}
        newest = {key: (r, of) for key, (r, of) in newest.items() if (r["command"], machine_of(r, of)) not in anew}
        for r in result["rows"]:
            newest[(r["name"], machine_of(r, result)) if each_machine else r["name"]] = (r, result)
    return without_samples(newest)


def without_samples(newest):
    """Less the rows of some items of a task where there is one of more of them; docs/measured.md keeps all."""
    found = {key: re.match(r"(.*), (\d+) items of (.*)", r["name"]) for key, (r, _) in newest.items()}
    most = {}
    for m in found.values():
        if m:
            most[m[1], m[3]] = max(most.get((m[1], m[3]), 0), int(m[2]))
    return {key: kept for key, kept in newest.items() if not found[key] or int(found[key][2]) == most[found[key][1], found[key][3]]}


def pages():
    results = all_results()
    newest = newest_rows(results)
    head = "<!-- made by scripts/targets.py from results/; do not edit -->\n"
    lines = [head, "# Targets\n", "| target | bar | measured | met | command | date | machine |", "|---|---|---|---|---|---|---|"]
    each = newest_rows(results, each_machine=True)
    for r, result in each.values():
        if r["bar"] == "printed":  # these stand in docs/performance.md
            continue
        lines.append(f"| {r['name']} | {r['bar']} | {r['value']} | {'yes' if r['ok'] else '**no**'} | `{r['command']}` | "
                     f"{result['date']} | {result['machine']} |")
    (ROOT / "docs" / "targets.md").write_text("\n".join(lines) + "\n")
    performance(each)
    lines = [head, "# Every measurement\n"]
    for result in reversed(results):
        lines += [f"## {result['date']}, {result['commit']}, {result['machine']}\n", "| row | measured |", "|---|---|"]
        lines += [f"| {r['name']} | {r['value']} |" for r in result["rows"]] + [""]
    (ROOT / "docs" / "measured.md").write_text("\n".join(lines))
    (ROOT / "docs" / "results.md").write_text(seed_table.page(newest))


def performance(newest):
    """docs/performance.md: the newest speed rows of every machine, a table for each shape, then what has no limit."""
    lines = ["<!-- made by scripts/targets.py from results/; do not edit -->\n", "# Performance\n",
             "Random weights in the shapes of real models (`make bench-peers`; how it measures: [bench.md](bench.md)). The "
             "limit is what the memory or the arithmetic of the machine gives, measured between the runs, attention "
             "included; noise is half the range of the middle half of the rounds. Peers run in the same rounds: llama.cpp "
             "in the better of its two weight layouts, mlx-lm on its own 4-bit folder.\n"]
    groups, others = {}, {}
    for r, result in newest.values():
        if "speed" in r:
            groups.setdefault((r["speed"]["shape"], result["machine"]), []).append((r["speed"], r["command"], result))
        elif r["command"].startswith("make bench-peers"):
            others.setdefault(result["machine"], []).append(r)
    for (shape, machine_name), rows in groups.items():
        _, command, result = rows[0]
        lines += [f"## {shape}, {machine_name}\n", f"`{command}`, {result['date']}, {result['commit']}\n",
                  "| row | squish | noise | limit | share | peer | ratio |", "|---|---|---|---|---|---|---|"]
        for s, _, _ in rows:
            peer = f"{s.get('peer_name', 'llama.cpp')} {s['peer']:.3g} | {s['ratio']:.2f}" if s.get("peer") else " | "
            lines.append(f"| {s['row']} | {s['value']:.1f} {s['unit']} | {s['noise']:.1f} | {s['limit']:.1f} | "
                         f"{s['share'] * 100:.0f} % | {peer} |")
        lines.append("")
    for machine_name, rows in others.items():
        lines += [f"## Whole programs, tokenizer, probes, {machine_name}\n", "| row | bar | measured |", "|---|---|---|"]
        lines += [f"| {r['name']} | {r['bar']} | {r['value']} |" for r in rows] + [""]
    (ROOT / "docs" / "performance.md").write_text("\n".join(lines))


def parser_of(doc, parts):
    """The options of every targets_*.py: --build, --part (a list of some of parts, all unless said)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--part", default=",".join(parts), help=", ".join(parts))
    return parser


def bench(o, what, model, *args):
    """Rows of squish bench WHAT MODEL; ends the script where that fails."""
    command = [f"{o.build}/squish", "bench", what, str(model), "--json", "-q", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])["rows"]


def text_option(parser):
    prose = pathlib.Path(os.environ.get("SQUISH_TESTDATA", "") + "/data/heldout-prose.txt")
    parser.add_argument("--text", type=pathlib.Path, default=prose, help="held-out prose (default: %(default)s)")


def measure_parts(parser, options, parts):
    """Measure the wanted parts (name -> function of options that gives rows), keep each as it is done, write the pages."""
    wanted = options.part.split(",")
    if unknown := [p for p in wanted if p not in parts]:
        parser.error(f"no part '{unknown[0]}', wanted {', '.join(parts)}")
    for name in (p for p in parts if p in wanted):
        found = parts[name](options)
        for r in found:
            print(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})", flush=True)
        if not getattr(options, "print", False):
            write_result(found)
    if not getattr(options, "print", False):
        pages()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--fresh", help="what scripts/fresh_debian.sh wrote")
    parser.add_argument("--pages", action="store_true")
    options = parser.parse_args()
    if not options.pages:
        write_result(measure(options.build, options.fresh))
    pages()


if __name__ == "__main__":
    main()
