#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Squish against the programs and packages of others, on the shipped model.

    make test-interop                       makes build/venv-interop and runs this in it
    scripts/check_interop.py --squish build/squish [--llama-bin DIR] [--json rows.json] [--only gguf,mlx,...]

  gguf    files of every block type, made by the gguf package or by llama-quantize: the values squish reads are
          those of gguf.dequantize bit by bit; perplexity within 0.5 % of llama-perplexity on the same file
  export  what squish writes as GGUF is opened by the gguf package and by llama-perplexity
  mlx     4-bit and 8-bit directories of mlx-lm: equal values; our export opens in mlx-lm, same first token
  tier1   squish_weights.safetensors opened by safetensors: every tensor equal

Each row is ok, FAIL or skipped with the reason. Exit status 1 if a row failed. llama-quantize and
llama-perplexity are taken from --llama-bin or the search path; without them their rows are skipped.
"""
import argparse
import contextlib
import glob
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE_TYPES = ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
LLAMA_TYPES = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
PPL_BAR = 0.005
ROWS = []


class Skip(Exception):
    """A reason for which a check cannot be made here."""


def run(*command):
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{pathlib.Path(command[0]).name} {command[1]}: "
                           f"{(done.stderr or done.stdout).strip()[-300:]} (exit {done.returncode})")
    return done.stdout + done.stderr


def check(name, function, *arguments):
    """One row of the table: function gives (ok, value)."""
    try:
        ok, value = function(*arguments)
        state = "ok" if ok else "FAIL"
    except Skip as reason:
        state, value = "skipped", str(reason)
    except ImportError as missing:
        state, value = "skipped", str(missing).splitlines()[0]
    except Exception as error:  # a check that breaks is a check that failed, and the others still run
        state, value = "FAIL", f"{type(error).__name__}: {error}"
    ROWS.append({"name": name, "state": state, "value": value})
    print(f"{state:8}{name:44}{value}", flush=True)


# ---- reading ---------------------------------------------------------------------------------------------------------

def arrays(folder):
    """{checkpoint name: array} of a folder that squish export --to npy made."""
    import numpy as np
    return {urllib.parse.unquote(pathlib.Path(p).stem): np.load(p)
            for p in glob.glob(f"{folder}/finalized/*.npy")}


def exported(a, path, name, *more):
    """The values squish reads from a model, as f32 (the export to npy never rounds)."""
    out = a.work / f"{name}-npy"
    shutil.rmtree(out, ignore_errors=True)
    run(a.squish, "export", path, "--to", "npy", "-o", out, *more)
    values = arrays(out)
    shutil.rmtree(out)
    return values


def checkpoint(folder):
    """{name: f32 array} of a folder with safetensors."""
    import numpy as np
    sys.path.insert(0, str(ROOT / "scripts"))
    import make_tiny_gguf
    return {name: np.ascontiguousarray(values) for name, values in make_tiny_gguf.tensors(str(folder))}


def gguf_values(path):
    """{checkpoint name: f32 array} of a GGUF file of the qwen2 family, by the gguf package."""
    import gguf
    import numpy as np
    sys.path.insert(0, str(ROOT / "scripts"))
    import make_tiny_gguf as names
    back = {v: k for k, v in names.LAYER.items()}
    outer = {v: k for k, v in names.OUTER.items()}
    values = {}
    for t in gguf.GGUFReader(path).tensors:
        module, kind = t.name.rsplit(".", 1)
        if module in outer:
            name = f"{outer[module]}.{kind}"
        else:
            _, layer, rest = module.split(".", 2)
            name = f"model.layers.{layer}.{back[rest]}.{kind}"
        shape = [int(n) for n in reversed(t.shape)]
        values[name] = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(shape)
    return values


def compare(ours, theirs):
    """(equal, words): bit by bit as f32; -0 and 0 are different bits and count."""
    import numpy as np
    missing = set(theirs) ^ set(ours)
    if missing:
        return False, f"{len(missing)} tensors on one side only, such as {sorted(missing)[0]}"
    bad = [n for n in theirs
           if not np.array_equal(ours[n].astype(np.float32).view(np.uint32), theirs[n].view(np.uint32))]
    if bad:
        n = sorted(bad)[0]
        worst = float(np.max(np.abs(ours[n].astype(np.float32) - theirs[n])))
        return False, f"{len(bad)} of {len(theirs)} tensors differ, {n} by {worst:.2e}"
    return True, f"{len(theirs)} tensors, {sum(v.size for v in theirs.values())} values equal bit by bit"


# ---- gguf ------------------------------------------------------------------------------------------------------------

def llama(a, program):
    path = shutil.which(program, path=a.llama_bin) if a.llama_bin else shutil.which(program)
    if not path:
        raise Skip(f"no {program} here (--llama-bin DIR)")
    return path


def make_file(a, kind):
    out = a.work / f"tiny-{kind}.gguf"
    if not out.exists():
        if kind in PACKAGE_TYPES:
            import gguf  # noqa: F401 (a missing package is a reason, not a failure)
            run(sys.executable, ROOT / "scripts/make_tiny_gguf.py", a.model, out, "--type", kind)
        else:
            run(llama(a, "llama-quantize"), "--pure", make_file(a, "F16"), out, kind)
    return out


def same_values(a, kind):
    path = make_file(a, kind)
    return compare(exported(a, path, kind), gguf_values(path))


def ppl_pair(a, path):
    theirs = run(llama(a, "llama-perplexity"), "-m", path, "-f", a.text, "-c", a.window)
    p = float(re.search(r"Final estimate: PPL = ([0-9.]+)", theirs).group(1))
    ours = json.loads(run(a.squish, "ppl", path, "--mode", "chunk", "--window", a.window, "--text", a.text, "--json"))
    q = float(ours.get("ppl", ours.get("perplexity", 0)))
    return abs(q / p - 1) <= PPL_BAR, f"squish {q:.4f}, llama.cpp {p:.4f}, {100 * (q / p - 1):+.3f} %"


def same_perplexity(a, kind):
    return ppl_pair(a, make_file(a, kind))


def ready(a, tier):
    """Tiers are built beside a copy of the model, so that nothing appears in the tree."""
    if tier != "source" and not (a.work / "model-compressed/squish_4bit/model.sqw").exists():
        run(a.squish, "compress", a.model, "--tier", tier)


def own_gguf(a, tier):
    ready(a, tier)
    out = a.work / f"own-{tier}.gguf"
    out.unlink(missing_ok=True)
    run(a.squish, "export", a.model, "--tier", tier, "--to", "gguf", "-o", out)
    return out


def own_values(a):
    import numpy as np
    theirs = gguf_values(own_gguf(a, "source"))
    return compare({n: v.astype(np.float32) for n, v in theirs.items()}, checkpoint(a.model))


def own_quantised(a):
    path = own_gguf(a, "0")
    return compare(exported(a, a.model, "tier0", "--tier", "0"), gguf_values(path))


def own_perplexity(a, tier):
    return ppl_pair(a, own_gguf(a, tier))


# ---- mlx -------------------------------------------------------------------------------------------------------------

def mlx_folder(a, bits):
    out = a.work / f"mlx-{bits}"
    if not out.exists():
        from mlx_lm import convert
        with contextlib.redirect_stdout(io.StringIO()):
            convert(str(a.model), mlx_path=str(out), quantize=True, q_bits=bits, q_group_size=64)
    return out


def mlx_values(folder, bits):
    import mlx.core as mx
    import numpy as np
    raw = {}
    for path in glob.glob(f"{folder}/*.safetensors"):
        raw.update(mx.load(path))
    values = {}
    for name, v in raw.items():
        module = name.rsplit(".", 1)[0]
        if name.endswith((".scales", ".biases")):
            continue
        if name.endswith(".weight") and module + ".scales" in raw:
            f32 = [raw[module + s].astype(mx.float32) for s in (".scales", ".biases")]
            v = mx.dequantize(v, *f32, group_size=64, bits=bits)
        values[name] = np.array(v.astype(mx.float32))
    return values


def mlx_same(a, bits):
    import mlx.core as mx
    mx.set_default_device(mx.cpu)
    folder = mlx_folder(a, bits)
    return compare(exported(a, folder, f"mlx{bits}", "--tier", "source"), mlx_values(folder, bits))


def top_token_mlx(folder, ids):
    import mlx.core as mx
    from mlx_lm import load
    mx.set_default_device(mx.cpu)
    model, _ = load(str(folder))
    return int(mx.argmax(model(mx.array([ids]))[0, -1]).item())


def mlx_export(a, tier):
    from tokenizers import Tokenizer
    ready(a, tier)
    out = a.work / f"own-mlx-{tier}"
    shutil.rmtree(out, ignore_errors=True)
    run(a.squish, "export", a.model, "--tier", tier, "--to", "mlx", "-o", out)
    ids = Tokenizer.from_file(str(pathlib.Path(a.model) / "tokenizer.json")).encode("The capital of Japan is").ids
    theirs = top_token_mlx(out, ids)
    rows = a.work / "logits.safetensors"
    rows.unlink(missing_ok=True)
    run(a.squish, "logits", out, "--ids", ",".join(map(str, ids)), "-o", rows)
    from safetensors.numpy import load_file
    ours = int(load_file(str(rows))["logits"][-1].argmax())
    return ours == theirs, f"token {ours} here, {theirs} in mlx-lm"


# ---- tier 1 ----------------------------------------------------------------------------------------------------------

def tier1(a):
    from safetensors import safe_open
    out = a.work / "tiers"
    shutil.rmtree(out, ignore_errors=True)
    run(a.squish, "compress", a.model, "--tier", "1", "-o", out)
    path = glob.glob(f"{out}/**/squish_weights.safetensors", recursive=True)[0]
    with safe_open(path, "numpy") as f:  # checks the header and every offset
        names = set(f.keys())
    import numpy as np
    source = checkpoint(a.model)
    copy = a.work / "tier1"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copy(path, copy / "model.safetensors")
    ours = checkpoint(copy)
    if names != set(source):
        return False, f"{len(names ^ set(source))} names differ"
    return compare({n: v.astype(np.float32) for n, v in ours.items()}, source)


# ---- the whole -------------------------------------------------------------------------------------------------------

def text_of(a):
    if not a.text:
        a.text = a.work / "text.txt"
        prose = "\n".join(p.read_text() for p in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
        a.text.write_text(prose[:a.bytes])


def copy_model(a):
    source, a.model = pathlib.Path(a.model), a.work / "model"
    if not a.model.exists():
        shutil.copytree(source, a.model)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--squish", default=str(ROOT / "build/squish"))
    p.add_argument("--model", default=str(ROOT / "models/squish-tiny"))
    p.add_argument("--work", type=pathlib.Path, default=ROOT / "build/interop", help="files made on the way")
    p.add_argument("--llama-bin", help="folder with llama-quantize and llama-perplexity")
    p.add_argument("--text", type=pathlib.Path, help="text for perplexity (default: README.md and docs/)")
    p.add_argument("--bytes", type=int, default=20000, help="of the default text")
    p.add_argument("--window", type=int, default=512)
    p.add_argument("--only", default="gguf,export,mlx,tier1")
    p.add_argument("--json", help="write the rows there")
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    copy_model(a)
    text_of(a)
    only = a.only.split(",")
    for kind in (PACKAGE_TYPES + LLAMA_TYPES) * ("gguf" in only):
        check(f"gguf {kind}: values", same_values, a, kind)
        check(f"gguf {kind}: perplexity within 0.5 %", same_perplexity, a, kind)
    if "export" in only:
        check("export --to gguf, source: values", own_values, a)
        check("export --to gguf, tier 0: values", own_quantised, a)
        for tier in ("source", "0"):
            check(f"export --to gguf, tier {tier}: perplexity", own_perplexity, a, tier)
    if "mlx" in only:
        for bits in (4, 8):
            check(f"mlx-lm {bits} bits: values", mlx_same, a, bits)
        for tier in ("source", "0"):
            check(f"export --to mlx, tier {tier}: first token", mlx_export, a, tier)
    if "tier1" in only:
        check("tier 1: tensors", tier1, a)
    failed = sum(r["state"] == "FAIL" for r in ROWS)
    skipped = sum(r["state"] == "skipped" for r in ROWS)
    print(f"{len(ROWS) - failed - skipped} ok, {failed} failed, {skipped} skipped")
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps({"rows": ROWS}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
