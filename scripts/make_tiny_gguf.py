#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write a Hugging Face directory of a small qwen2, qwen3 or llama model as one GGUF file, tokenizer included.

    scripts/make_tiny_gguf.py models/squish-tiny out.gguf [--type F16|BF16|F32|Q8_0|Q4_0|Q4_1|Q5_0|Q5_1]

Needs the packages gguf and numpy. The file serves tests: the same model as folder and as GGUF must say the
same. The tokenizer is taken to be byte-level BPE with the pre-tokenizer of Qwen2.
"""
import argparse
import glob
import json
import os
import struct

import gguf
import numpy as np

LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.down_proj": "ffn_down",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "self_attn.o_proj": "attn_output",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def name_of(name):
    module, kind = name.rsplit(".", 1)
    if module in OUTER:
        return f"{OUTER[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def tensors(folder):
    """(name, f32 array) of every tensor; sources are BF16, F16 or F32."""
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        data = np.memmap(path, np.uint8, "r")
        n = struct.unpack("<Q", data[:8].tobytes())[0]
        for name, info in json.loads(data[8:8 + n].tobytes()).items():
            if name == "__metadata__":
                continue
            begin, end = info["data_offsets"]
            raw = np.frombuffer(data[8 + n + begin:8 + n + end].tobytes(), np.uint8)
            if info["dtype"] == "BF16":
                values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = raw.view({"F16": np.float16, "F32": np.float32}[info["dtype"]]).astype(np.float32)
            yield name, values.reshape(info["shape"])


def turned(name, values, config):
    """Rows of q and k of the llama family lie in the order that rotation of neighbouring pairs wants."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    kind = name.split(".")[-2]
    if config["model_type"] != "llama" or kind not in heads:
        return values
    n = config[heads[kind]]
    shape = values.shape
    return values.reshape(n, 2, shape[0] // n // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_config(w, c):
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_rope_freq_base(c.get("rope_theta", 10000.0))
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    if "head_dim" in c:
        w.add_key_length(c["head_dim"])
        w.add_value_length(c["head_dim"])


def write_tokenizer(w, folder, c):
    t = json.load(open(os.path.join(folder, "tokenizer.json"), encoding="utf-8"))
    tokens, types = [f"[PAD{i}]" for i in range(c["vocab_size"])], [5] * c["vocab_size"]
    for text, i in t["model"]["vocab"].items():
        tokens[i], types[i] = text, 1
    for added in t["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], 3 if added["special"] else 4
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])
    w.add_bos_token_id(c["bos_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_add_bos_token(False)
    settings = json.load(open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8"))
    jinja = os.path.join(folder, "chat_template.jinja")
    template = open(jinja, encoding="utf-8").read() if os.path.exists(jinja) else settings.get("chat_template")
    if template:
        w.add_chat_template(template)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("out")
    p.add_argument("--type", default="F16", choices=["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
    a = p.parse_args()
    c = json.load(open(os.path.join(a.folder, "config.json"), encoding="utf-8"))
    kind = gguf.GGMLQuantizationType[a.type]
    w = gguf.GGUFWriter(a.out, c["model_type"])
    write_config(w, c)
    write_tokenizer(w, a.folder, c)
    for name, values in tensors(a.folder):
        values = np.ascontiguousarray(turned(name, values, c))
        if values.ndim == 1:
            w.add_tensor(name_of(name), values.astype(np.float32))
        else:
            w.add_tensor(name_of(name), gguf.quants.quantize(values, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
