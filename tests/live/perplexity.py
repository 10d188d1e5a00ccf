#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Perplexity of a text as llama-perplexity and squish ppl --mode chunk define it (the second half of each window), by transformers in
float32 from the values of the GGUF's blocks.

    tests/live/perplexity.py FOLDER TEXT WINDOW       (packages: see make_smollm2.py)
"""
import math
import pathlib
import sys

import make_smollm2
import smollm2
import torch
import transformers


def main():
    folder, text, window = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text(), int(sys.argv[3])
    torch.set_grad_enabled(False)
    tokenizer = make_smollm2.tokenizer_of(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=smollm2.FILE, dtype=torch.float32)
    ids = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)
    sum_nats, n = 0.0, 0
    for at in range(0, len(ids) - window + 1, window):
        part = ids[at:at + window]
        logits = model(part[None]).logits[0, window // 2:-1].double()
        sum_nats += float(torch.nn.functional.cross_entropy(logits, part[window // 2 + 1:], reduction="sum"))
        n += window - 1 - window // 2
    print(f"perplexity {math.exp(sum_nats / n):.6f}\n{n} tokens of {len(ids)}")


if __name__ == "__main__":
    main()
