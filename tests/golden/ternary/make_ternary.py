#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a small BitNet b1.58 (arXiv:2402.17764) on our own prose and write it the way such checkpoints are
published: ternary codes packed four to a byte, one scale a matrix. Weights are ternary and activations 8-bit in
every step of the training (straight-through gradients), so the codes are the model and not a rounding of one.

    pip install mlx numpy tokenizers safetensors
    make_ternary.py [--steps 1200]        from the root of the project; writes tests/golden/ternary/

Beside the model it writes reference.json: perplexity of the held-out tenth and of the first tenth, computed here in
f32 with the same 8-bit activations (one scale a token, which differs a little from one scale per 64)."""
import argparse
import json
import math
import pathlib
import time

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
VOCAB, HIDDEN, FFN, LAYERS, HEADS, KV, DIM = 1024, 192, 512, 4, 6, 2, 32
THETA, EPS, WINDOW = 10000.0, 1e-5, 128


def tokenizer(text):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def straight_through(exact, rounded):
    return exact + mx.stop_gradient(rounded - exact)


def ternary(w):
    gamma = mx.mean(mx.abs(w))
    return straight_through(w, mx.clip(mx.round(w / gamma), -1, 1) * gamma)


def eight_bits(x):
    scale = 127 / mx.maximum(mx.max(mx.abs(x), axis=-1, keepdims=True), 1e-5)
    return straight_through(x, mx.clip(mx.round(x * scale), -128, 127) / scale)


class BitLinear(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.weight = mx.random.normal((n_out, n_in)) * n_in ** -0.5

    def __call__(self, x):
        return eight_bits(x) @ ternary(self.weight).T


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = BitLinear(HIDDEN, HEADS * DIM), BitLinear(HIDDEN, KV * DIM), BitLinear(HIDDEN, KV * DIM)
        self.o = BitLinear(HEADS * DIM, HIDDEN)
        self.gate, self.up, self.down = BitLinear(HIDDEN, FFN), BitLinear(HIDDEN, FFN), BitLinear(FFN, HIDDEN)
        self.norm, self.post = nn.RMSNorm(HIDDEN, EPS), nn.RMSNorm(HIDDEN, EPS)
        self.attn_sub, self.ffn_sub = nn.RMSNorm(HEADS * DIM, EPS), nn.RMSNorm(FFN, EPS)
        self.rope = nn.RoPE(DIM, traditional=False, base=THETA)

    def __call__(self, x):
        b, t, _ = x.shape
        h = self.norm(x)
        q, k, v = (m(h).reshape(b, t, -1, DIM).transpose(0, 2, 1, 3) for m in (self.q, self.k, self.v))
        mask = nn.MultiHeadAttention.create_additive_causal_mask(t)
        a = mx.fast.scaled_dot_product_attention(self.rope(q), self.rope(k), v, scale=DIM ** -0.5, mask=mask)
        x = x + self.o(self.attn_sub(a.transpose(0, 2, 1, 3).reshape(b, t, -1)))
        h = self.post(x)
        return x + self.down(self.ffn_sub(mx.square(nn.relu(self.gate(h))) * self.up(h)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, HIDDEN)
        self.layers = [Layer() for _ in range(LAYERS)]
        self.norm = nn.RMSNorm(HIDDEN, EPS)

    def __call__(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.embed.as_linear(self.norm(x))


def perplexity(net, ids):
    """Windows that do not overlap; each predicts its tokens 2.. and the next one's first, as `squish ppl` does."""
    nats, count = 0.0, 0
    for i in range(0, len(ids) - 1, WINDOW):
        part = ids[i:i + WINDOW + 1]
        x, y = mx.array(part[:-1])[None], mx.array(part[1:])[None]
        nats += float(nn.losses.cross_entropy(net(x).astype(mx.float32), y, reduction="sum"))
        count += len(part) - 1
    return math.exp(nats / count), count


def train(net, ids, steps, batch=12):
    schedule = optim.join_schedules([optim.linear_schedule(0, 3e-3, 50), optim.cosine_decay(3e-3, steps - 50, 1e-5)], [50])
    optimiser = optim.AdamW(learning_rate=schedule, weight_decay=0.02)
    rng = np.random.default_rng(1)
    ids = np.array(ids)

    def loss(net, x, y):
        return nn.losses.cross_entropy(net(x), y, reduction="mean")

    step = nn.value_and_grad(net, loss)
    begin = time.time()
    for i in range(steps):
        at = rng.integers(0, len(ids) - WINDOW - 1, batch)
        x = mx.array(np.stack([ids[a:a + WINDOW] for a in at]))
        y = mx.array(np.stack([ids[a + 1:a + WINDOW + 1] for a in at]))
        value, grads = step(net, x, y)
        optimiser.update(net, grads)
        mx.eval(net.parameters(), optimiser.state)
        if i % 50 == 0 or i == steps - 1:
            print(f"step {i}: loss {float(value):.3f}, {time.time() - begin:.0f} s", flush=True)


def pack(codes):
    """[n, k] of -1, 0, 1 to U8 [n / 4, k]: bits 2i.. of byte (r, k) are row i * n / 4 + r, plus 1."""
    parts = np.split((codes + 1).astype(np.uint8), 4)
    return sum((p << (2 * i)).astype(np.uint8) for i, p in enumerate(parts))


def bf16(a):
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


NAMES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
         "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "norm": "input_layernorm",
         "post": "post_attention_layernorm", "attn_sub": "self_attn.attn_sub_norm", "ffn_sub": "mlp.ffn_sub_norm"}


def write(net, tok, reference):
    tensors = {}
    for name, value in tree_flatten(net.parameters()):
        a = np.array(value.astype(mx.float32))
        parts = name.split(".")
        if parts[0] != "layers":
            tensors["model.embed_tokens.weight" if parts[0] == "embed" else "model.norm.weight"] = a.astype(np.float16)
            continue
        path = f"model.layers.{parts[1]}.{NAMES[parts[2]]}"
        if a.ndim == 1:
            tensors[path + ".weight"] = a.astype(np.float16)
            continue
        gamma = np.float32(np.abs(a).mean())
        tensors[path + ".weight"] = pack(np.clip(np.rint(a / gamma), -1, 1).astype(np.int8))
        tensors[path + ".weight_scale"] = np.array([gamma], np.float32)
    save_file(tensors, HERE / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": VOCAB, "hidden_size": HIDDEN,
              "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
              "num_key_value_heads": KV, "max_position_embeddings": 512, "rms_norm_eps": EPS, "rope_theta": THETA,
              "hidden_act": "relu2", "tie_word_embeddings": True, "torch_dtype": "float16", "bos_token_id": 0,
              "eos_token_id": 0, "head_dim": DIM,
              "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                      "quantization_mode": "offline"}}
    (HERE / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tok.save(str(HERE / "tokenizer.json"))
    (HERE / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>", "add_bos_token": False}) + "\n")
    (HERE / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1200)
    steps = parser.parse_args().steps
    mx.random.seed(7)
    text = (HERE.parent.parent / "fixtures" / "own-prose.txt").read_text()
    tok = tokenizer(text)
    ids = tok.encode(text).ids
    cut = len(ids) * 9 // 10
    net = Net()
    print(len(ids), "tokens,", sum(v.size for _, v in tree_flatten(net.parameters())), "parameters")
    train(net, ids[:cut], steps)
    held, n_held = perplexity(net, ids[cut:])
    seen, n_seen = perplexity(net, ids[:cut // 9])
    reference = {"steps": steps, "window": WINDOW, "held_out_perplexity": held, "held_out_tokens": n_held,
                 "held_out_from_token": cut, "seen_perplexity": seen, "seen_tokens": n_seen}
    print(reference)
    write(net, tok, reference)


main()
