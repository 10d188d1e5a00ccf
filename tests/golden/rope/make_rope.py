# SPDX-License-Identifier: Apache-2.0
"""Golden rotary frequencies: writes rope.json, prints the comparison kept in make_rope.log.

    pip install numpy torch transformers
    python3 make_rope.py > make_rope.log

The numbers in rope.json are double precision, from the published formulas (Su et al. arXiv:2104.09864; YaRN,
Peng et al. arXiv:2309.00071; the Llama 3.1 rule as published with its weights), evaluated with numpy. Each set is
compared with what transformers computes itself, in float32, for the same configuration: the largest relative
difference is printed and must stay below 1e-6, attention factors below 1e-12.

rope.json: {"positions": [...], "cases": [{
  "name", "type": "default" | "linear" | "llama3" | "yarn",
  "theta", "factor", "low_freq", "high_freq", "original_ctx", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
  (0 where the type has no such parameter)
  "attention_factor",              scales cos and sin in the model; the probes below are without it
  "heads": [{"head_dim", "inv_freq": [head_dim / 2 numbers],
             "probes": [[index, [cos, sin], ... one pair for each position], ...]}]}]}
"""
import json
import math
import sys

import numpy as np
import torch
import transformers
from transformers.models.gemma3.configuration_gemma3 import Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

POSITIONS = [0, 1, 1000, 32767, 131071]
HEAD_DIMS = [64, 128, 256]
PARAMETERS = ["theta", "factor", "low_freq", "high_freq", "original_ctx", "beta_fast", "beta_slow", "mscale",
              "mscale_all_dim"]
CASES = [
    dict(name="default", type="default", theta=1e4),
    dict(name="linear-4", type="linear", theta=1e4, factor=4),
    dict(name="llama-3.1", type="llama3", theta=5e5, factor=8, low_freq=1, high_freq=4, original_ctx=8192),
    dict(name="qwen2.5-yarn", type="yarn", theta=1e6, factor=4, original_ctx=32768, beta_fast=32, beta_slow=1),
    dict(name="deepseek-v2-yarn", type="yarn", theta=1e4, factor=40, original_ctx=4096, beta_fast=32, beta_slow=1,
         mscale=0.707, mscale_all_dim=0.707),
    dict(name="gemma3-full", type="linear", theta=1e6, factor=8),
    dict(name="gemma3-local", type="default", theta=1e4),
]


# ---- the formulas, in double -------------------------------------------------------------------------------------

def base_frequencies(theta, dim):
    return np.float64(theta) ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def llama3(c, f):
    """Wavelengths shorter than ctx/high stay, longer than ctx/low are stretched, between them a linear blend."""
    turns = c["original_ctx"] * f / (2 * np.pi)  # rotations within the original context
    blend = np.clip((turns - c["low_freq"]) / (c["high_freq"] - c["low_freq"]), 0, 1)
    return blend * f + (1 - blend) * f / c["factor"]


def yarn(c, f, dim):
    """Pairs that turn often keep their frequency, slow ones are interpolated; the ramp runs over pair indices."""
    def index_with(turns):
        return dim * np.log(c["original_ctx"] / (2 * np.pi * turns)) / (2 * np.log(c["theta"]))
    first = max(np.floor(index_with(c["beta_fast"])), 0)
    last = min(np.ceil(index_with(c["beta_slow"])), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - first) / (last - first if last != first else 0.001), 0, 1)
    return (1 - ramp) * f + ramp * f / c["factor"]


def frequencies(c, dim):
    f = base_frequencies(c["theta"], dim)
    if c["type"] == "linear":
        return f / c["factor"]
    if c["type"] == "llama3":
        return llama3(c, f)
    if c["type"] == "yarn":
        return yarn(c, f, dim)
    return f


def attention_factor(c):
    if c["type"] != "yarn":
        return 1.0
    m = lambda k: 0.1 * k * math.log(c["factor"]) + 1
    if c.get("mscale") and c.get("mscale_all_dim"):
        return m(c["mscale"]) / m(c["mscale_all_dim"])
    return m(1)


# ---- the same from transformers ------------------------------------------------------------------------------------

def hf_parameters(c):
    names = dict(theta="rope_theta", factor="factor", low_freq="low_freq_factor", high_freq="high_freq_factor",
                 original_ctx="original_max_position_embeddings", beta_fast="beta_fast", beta_slow="beta_slow",
                 mscale="mscale", mscale_all_dim="mscale_all_dim")
    return {"rope_type": c["type"], **{names[k]: v for k, v in c.items() if k in names}}


def from_transformers(c, dim):
    if c["name"].startswith("gemma3"):
        kind = "full_attention" if c["name"] == "gemma3-full" else "sliding_attention"
        ropes = {"full_attention": hf_parameters(CASES[5]), "sliding_attention": hf_parameters(CASES[6])}
        config = Gemma3TextConfig(head_dim=dim, num_hidden_layers=6, rope_parameters=ropes,
                                  max_position_embeddings=131072)
        rope = Gemma3RotaryEmbedding(config)
        return getattr(rope, kind + "_inv_freq"), getattr(rope, kind + "_attention_scaling")
    config = LlamaConfig(head_dim=dim, hidden_size=dim * 8, num_attention_heads=8, rope_parameters=hf_parameters(c),
                         max_position_embeddings=c.get("factor", 1) * c.get("original_ctx", 4096))
    rope = LlamaRotaryEmbedding(config)
    return rope.inv_freq, rope.attention_scaling


# ---- writing -----------------------------------------------------------------------------------------------------

def number(x, digits):
    return "0" if x == 0 else f"{x:.{digits}g}"


def head(c, dim, inv_freq):
    probes = []
    for i in (0, dim // 8, dim // 2 - 1):
        pairs = [f"[{number(math.cos(p * inv_freq[i]), 14)},{number(math.sin(p * inv_freq[i]), 14)}]"
                 for p in POSITIONS]
        probes.append(f"[{i},{','.join(pairs)}]")
    # 15 digits: a probe at position 131,071 must not suffer from the rounding of the frequency beside it
    values = ",".join(number(x, 15) for x in inv_freq)
    return f'{{"head_dim":{dim},"inv_freq":[{values}],\n"probes":[{",".join(probes)}]}}'


def main():
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}")
    cases = []
    for c in CASES:
        factor, heads = attention_factor(c), []
        for dim in HEAD_DIMS:
            f = frequencies(c, dim)
            hf, hf_factor = from_transformers(c, dim)
            worst = float(np.max(np.abs(hf.double().numpy() - f) / f))
            print(f"{c['name']:18} head_dim {dim:3}: inverse frequencies differ by {worst:.1e}, "
                  f"attention factor {factor:.15g} by {abs(hf_factor - factor):.1e}")
            if len(hf) != dim // 2 or worst > 1e-6 or abs(hf_factor - factor) > 1e-12:
                sys.exit("transformers disagrees")
            heads.append(head(c, dim, f))
        fields = "".join(f'"{k}":{number(c.get(k, 0), 15)},' for k in PARAMETERS)
        cases.append(f'{{"name":"{c["name"]}","type":"{c["type"]}",{fields}"attention_factor":{number(factor, 17)},\n'
                     f'"heads":[{",".join(heads)}]}}')
    text = f'{{"positions":{json.dumps(POSITIONS)},\n"cases":[\n' + ",\n".join(cases) + "]}\n"
    json.loads(text)
    with open("rope.json", "w") as out:
        out.write(text)
    print(f"rope.json: {len(text)} bytes, {len(cases)} cases")


main()
