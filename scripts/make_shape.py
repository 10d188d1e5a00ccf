#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint in the shape of a known model, for memory, size, loading and speed, where the values do not matter.
Its weights are holes in the file: headers are real, every value is 0 and nothing is stored. With --random they are
noise around 0.02 and take their place on the disk; with --ternary they are 1/64, 0 and -1/64. Norms are 1. With --slow
the noise of embeddings is 16 times as large and that of attention's output a sixteenth: what a layer adds is small beside
what it is given, as in trained models, so that a router can be foretold from the layer before it; `squish bench moe` says
how well. With plain noise the first layers drown the token.

    scripts/make_shape.py OUT SHAPE [--random | --slow | --ternary] [--layers N] [--tokenizer DIR]

SHAPE: 0.5b, 1.5b, 7b, 14b (Qwen2.5), qwen3-8b, qwen3-30b-a3b (128 experts, of which a token takes 8) or dsv2-lite
(latent attention; 64 experts, of which a token takes 6, and 2 that all share; the first layer dense)."""
import argparse
import json
import pathlib
import random
import shutil

SHAPES = {
    #          hidden, layers, heads, kv, ffn, vocab, tied, head norms
    "0.5b": (896, 24, 7, 1, 4864, 151936, True, False),  # its 14 heads of 64 as 7 of 128: matrices of the same sizes
    "1.5b": (1536, 28, 12, 2, 8960, 151936, True, False),
    "7b": (3584, 28, 28, 4, 18944, 152064, False, False),
    "14b": (5120, 48, 40, 8, 13824, 152064, False, False),
    "qwen3-8b": (4096, 36, 32, 8, 12288, 151936, False, True),
    "qwen3-30b-a3b": (2048, 48, 32, 4, 6144, 151936, False, True),
    "dsv2-lite": (2048, 27, 16, 16, 10944, 102400, False, False),
}
# how many, those a token takes, their ffn, those that all share
EXPERTS = {"qwen3-30b-a3b": (128, 8, 768, 0), "dsv2-lite": (64, 6, 1408, 2)}
LATENT = {"dsv2-lite": (512, 64, 128)}  # rank, positions, head


def attention(shape):
    hidden, _, heads, kv, _, _, _, norms = SHAPES[shape]
    if shape in LATENT:
        rank, rope, head = LATENT[shape]
        yield "q_proj.weight", (heads * (head + rope), hidden)
        yield "kv_a_proj_with_mqa.weight", (rank + rope, hidden)
        yield "kv_a_layernorm.weight", (rank,)
        yield "kv_b_proj.weight", (heads * 2 * head, rank)
    else:
        for name, rows in (("q", heads * 128), ("k", kv * 128), ("v", kv * 128)):
            yield f"{name}_proj.weight", (rows, hidden)
            if not norms:
                yield f"{name}_proj.bias", (rows,)
    yield "o_proj.weight", (hidden, heads * 128)
    if norms:
        yield "q_norm.weight", (128,)
        yield "k_norm.weight", (128,)


def blocks_of(shape, layer):
    """Feed-forward blocks: (name, width)."""
    n, _, wide, shared = EXPERTS.get(shape, (0, 0, 0, 0))
    if not n or (shape in LATENT and layer == 0):
        return [("", SHAPES[shape][4])]
    return [(f"experts.{k}.", wide) for k in range(n)] + ([("shared_experts.", shared * wide)] if shared else [])


def tensors(shape, layers):
    hidden, _, _, _, _, vocab, tied, _ = SHAPES[shape]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, dims in attention(shape):
            yield f"{p}self_attn.{name}", dims
        blocks = blocks_of(shape, i)
        if len(blocks) > 1:
            yield p + "mlp.gate.weight", (EXPERTS[shape][0], hidden)
        for e, wide in blocks:
            yield f"{p}mlp.{e}gate_proj.weight", (wide, hidden)
            yield f"{p}mlp.{e}up_proj.weight", (wide, hidden)
            yield f"{p}mlp.{e}down_proj.weight", (hidden, wide)
        yield p + "input_layernorm.weight", (hidden,)
        yield p + "post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not tied:
        yield "lm_head.weight", (vocab, hidden)


BLOCK = 32 << 20  # bytes of noise; a tensor begins anywhere in them


def noise(rng, fours=0):
    """bf16 numbers of both signs between 2^-7 and 2^-5, times 4^fours."""
    low = bytearray(rng.randbytes(BLOCK))
    low[1::2] = rng.randbytes(BLOCK // 2).translate(bytes(0x3C + fours | (i & 1) << 7 for i in range(256)))
    return bytes(low)


def random_blocks(rng):
    block = noise(rng)
    return lambda name: block


def slow_blocks(rng):
    small, middle, large = (noise(rng, fours) for fours in (-2, 0, 2))
    return lambda name: large if "embed" in name else small if "o_proj" in name else middle


def ternary_blocks(rng):
    """bf16 numbers 1/64, 0 and -1/64, as often."""
    high = rng.randbytes(BLOCK // 2).translate(bytes((0x3C, 0x00, 0xBC)[i % 3] for i in range(256)))
    both = bytearray(BLOCK)
    both[1::2] = high
    both[0::2] = high.translate(bytes(0x80 if i else 0 for i in range(256)))
    block = bytes(both)
    return lambda name: block


def fill(f, header, base, make):
    rng = random.Random(402)
    blocks = make(rng)
    for name, t in header.items():
        at, end = t["data_offsets"]
        f.seek(base + at)
        if "norm" in name:
            f.write(b"\x80\x3f" * ((end - at) // 2))
            continue
        block = blocks(name)
        while at < end:
            start = rng.randrange(BLOCK // 4) * 2
            at += f.write(block[start:start + min(end - at, BLOCK - start)])


def write(out, shape, layers, make):
    hidden, all_layers, heads, kv, ffn, vocab, tied, norms = SHAPES[shape]
    layers = layers or all_layers
    out.mkdir(parents=True)
    header, at = {}, 0
    for name, dims in tensors(shape, layers):
        size = 2
        for n in dims:
            size *= n
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(out / "model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + at)
        if make:
            fill(f, header, 8 + len(text), make)
    config = {"architectures": ["Qwen3ForCausalLM" if norms else "Qwen2ForCausalLM"],
              "model_type": "qwen3" if norms else "qwen2", "hidden_size": hidden, "intermediate_size": ffn,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": 128,
              "vocab_size": vocab, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
              "hidden_act": "silu", "tie_word_embeddings": tied, "torch_dtype": "bfloat16"}
    if shape in EXPERTS:
        n, used, wide, shared = EXPERTS[shape]
        config.update(num_experts_per_tok=used, moe_intermediate_size=wide)
    if shape in LATENT:
        rank, rope, head = LATENT[shape]
        del config["head_dim"]
        config.update(architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", q_lora_rank=None, kv_lora_rank=rank,
                      qk_rope_head_dim=rope, qk_nope_head_dim=head, v_head_dim=head, n_routed_experts=n, n_shared_experts=shared,
                      first_k_dense_replace=1, moe_layer_freq=1, norm_topk_prob=False, scoring_func="softmax",
                      topk_method="greedy", n_group=1, topk_group=1, routed_scaling_factor=1.0, rope_theta=10000.0)
    elif shape in EXPERTS:
        config.update(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_experts=n, norm_topk_prob=True,
                      decoder_sparse_step=1, mlp_only_layers=[])
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return at


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--layers", type=int, default=0, help="fewer of them, with the same widths")
    parser.add_argument("--random", dest="make", action="store_const", const=random_blocks, help="noise instead of holes")
    parser.add_argument("--slow", dest="make", action="store_const", const=slow_blocks,
                        help="noise of which a layer adds little to what it is given")
    parser.add_argument("--ternary", dest="make", action="store_const", const=ternary_blocks,
                        help="three values instead of holes")
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder whose tokenizer files go along")
    options = parser.parse_args()
    size = write(options.out, options.shape, options.layers, options.make)
    if options.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(options.tokenizer / name, options.out)
    print(f"{options.out}: {size / 1e9:.2f} GB of weights" + ("" if options.make else ", none of them on the disk"))


if __name__ == "__main__":
    main()
