#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of experts and latent attention into results/, and make the pages anew.

    scripts/targets_latent.py [--build build] [--part NAME,...] [--text FILE]

Parts: tests, quality, speed (all of them unless named). Quality needs a text that squish-tiny-moe has not seen (--text, or
$SQUISH_TESTDATA/data/heldout-prose.txt). Speed is that of attention, on squish-tiny-moe and on random weights in the shape of
DeepSeek-V2-Lite, of which one layer is made here."""
import json
import pathlib
import random
import struct
import tempfile

import targets
from targets import row
from targets_weights import answer

LITE = {"model_type": "deepseek_v2", "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": None,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "num_hidden_layers": 1,
        "intermediate_size": 64, "vocab_size": 64, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": True}


def make_lite(folder):
    """A checkpoint of one dense layer; attention is what is measured."""
    layer = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (64, 2048), "model.norm.weight": (2048,), layer + "input_layernorm.weight": (2048,),
              layer + "post_attention_layernorm.weight": (2048,), layer + "self_attn.q_proj.weight": (3072, 2048),
              layer + "self_attn.kv_a_proj_with_mqa.weight": (576, 2048), layer + "self_attn.kv_a_layernorm.weight": (512,),
              layer + "self_attn.kv_b_proj.weight": (4096, 512), layer + "self_attn.o_proj.weight": (2048, 2048),
              layer + "mlp.gate_proj.weight": (64, 2048), layer + "mlp.up_proj.weight": (64, 2048), layer + "mlp.down_proj.weight": (2048, 64)}
    header, at = {}, 0
    for name, shape in shapes.items():
        n = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = random.Random(1)
    block = bytes(b & (0xBC if i % 2 else 0xFF) for i, b in enumerate(rng.randbytes(1 << 16)))  # exponents below 2^-6
    with open(folder / "model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for left in range(at, 0, -len(block)):
            f.write(block[:min(left, len(block))])
    (folder / "config.json").write_text(json.dumps(LITE))


def tests(build):
    return [targets.passes(build, program, name, bar) for program, name, bar in (
        ("golden/test_architectures", "qwen2-moe, qwen3-moe, deepseek-v2, deepseek-v2-lite against transformers", "logits 2e-4 of absmax, 24 tokens, INT8 cosine >= 0.99"),
        ("unit/test_model_experts", "experts from MLX, fused and GGUF tensors", "equal bits"),
        ("prop/test_kernels_latent", "latent attention on every ISA against scalar, scalar against double", "equal bits, within bounds"))]


def quality(build, text):
    if not text.exists():
        return []
    reference = json.load(open("models/squish-tiny-moe/reference.json"))["texts"]["data/heldout-prose.txt"]["perplexity"]
    got = answer(build, "ppl", "squish-tiny-moe", "--text", text)["perplexity"]
    return [row("squish-tiny-moe, 8-bit container: perplexity of held-out prose to transformers in float32", "within 0.1 %",
                f"{got:.4f}, reference {reference:.4f} ({100 * (got / reference - 1):+.3f} %)", abs(got / reference - 1) <= 1e-3,
                "squish ppl squish-tiny-moe --text heldout-prose.txt")]


def speed(build):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_lite(pathlib.Path(folder))
        for what, model, tier, smaller in (("squish-tiny-moe", "squish-tiny-moe", "q8", 4.5), ("DeepSeek-V2-Lite shape", folder, "source", 8)):
            found = {r["name"]: r for r in answer(build, "bench", "latent", model, "--tier", tier, "--at", "8192", "--runs", 7)["rows"]}
            command = f"squish bench latent {what if model != folder else 'V2-LITE'} --at 8192 --runs 7"
            size, latent, whole = (found[n] for n in ("latent, bytes of a token and layer", "latent, a layer at 8192", "expanded, a layer at 8192"))
            rows.append(row(f"{what}: cache smaller than keys and values", f">= {smaller}x", f"{size['smaller']:.2f}x ({size['value']:.0f} B a token and layer)",
                            size["smaller"] >= smaller, command))
            rows.append(row(f"{what}: attention of a decoded token at 8,192 over keys and values kept", ">= 1.5x",
                            f"{latent['speedup']:.2f}x ({latent['value']:.2f} +- {latent['noise']:.2f} ms a layer, {whole['value']:.2f} +- {whole['noise']:.2f})",
                            latent["speedup"] >= 1.5, command))
    return rows


PARTS = {"tests": lambda o: tests(o.build), "quality": lambda o: quality(o.build, o.text), "speed": lambda o: speed(o.build)}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    targets.text_option(parser)
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
