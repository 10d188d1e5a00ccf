#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packages of Python, measured for scripts/bench_peers.py; the last line printed is one JSON object.

    bench_python_peers.py tokenizers VOCABULARY.gguf TEXT   MB/s of tokenizers and tiktoken, one thread
    bench_python_peers.py mlx FOLDER                        tok/s of mlx-lm on a 4-bit folder; a few tokens, it is slow"""
import json
import os
import statistics
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

# How Qwen2 cuts text into words, as its tokenizer.json states it.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_letters():
    """The letter that stands for each byte in a byte-level vocabulary: itself where it can be printed."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def rate(n_bytes, run, times):
    """MB/s, the median of a few."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(n_bytes / 1e6 / (time.perf_counter() - begin))
    return statistics.median(found)


def vocabulary(path):
    from gguf import GGUFReader
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    return [t for t, kind in zip(tokens, types) if kind == 1], fields["tokenizer.ggml.merges"].contents()


def tokenizers(path, text_path):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    import tiktoken
    tokens, merges = vocabulary(path)
    vocab = {t: i for i, t in enumerate(tokens)}
    hf = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m.split(" ")) for m in merges]))
    hf.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"),
                                                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    hf.decoder = decoders.ByteLevel()
    letters = byte_letters()
    ranks = {bytes(letters[c] for c in t): i for t, i in vocab.items()}
    tt = tiktoken.Encoding("qwen2", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})
    with open(text_path, encoding="utf-8") as f:
        text = f.read()
    text *= max(1, 2_000_000 // len(text))
    n_bytes, pieces = len(text.encode()), [text[i:i + 1000] for i in range(0, len(text), 1000)]
    ids = hf.encode(text[:200_000]).ids
    if ids != tt.encode_ordinary(text[:200_000]):
        sys.exit("tokenizers and tiktoken disagree: the vocabulary was read wrongly")
    n_ids = len(text[:200_000].encode())
    print(json.dumps({"tiktoken whole": rate(n_bytes, lambda: tt.encode_ordinary(text), 3),
                      "tiktoken pieces": rate(n_bytes, lambda: [tt.encode_ordinary(p) for p in pieces], 3),
                      "tokenizers whole": rate(n_ids, lambda: hf.encode(text[:200_000]), 1),
                      "tokenizers pieces": rate(n_bytes, lambda: [hf.encode(p) for p in pieces], 1),
                      "tiktoken decode": rate(n_ids, lambda: tt.decode(ids), 3),
                      "tokenizers decode": rate(n_ids, lambda: hf.decode(ids), 3)}))


def mlx(folder):
    import pathlib
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model
    model = load_model(pathlib.Path(folder))[0]
    cache, times = make_prompt_cache(model), []
    y = mx.array([[1, 2]])
    for _ in range(4):  # the first reads the prompt of two tokens
        begin = time.perf_counter()
        y = mx.argmax(model(y, cache=cache)[:, -1], axis=-1)[None]
        mx.eval(y)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"decode": 1 / statistics.median(times[1:])}))


if __name__ == "__main__":
    {"tokenizers": tokenizers, "mlx": mlx}[sys.argv[1]](*sys.argv[2:])
