#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What grammars cost in xgrammar and llguidance: compiling, masks, advancing, one thread, as one line of JSON a peer
and document.

    scripts/grammar_peers.py --vocabulary tokenizer.gguf --documents FILE.json [--readings 20]
    scripts/grammar_peers.py --vocabulary tokenizer.gguf --write-tokenizer FOLDER     (as tokenizer.json, for make_shape.py)

FILE.json: {name: {"schema": ... or null (any JSON), "text": ..., "ids": [...]}}. Tokens are given, so that everybody
reads the same ones. A peer that is not installed is left out with a word on standard error."""
import argparse
import importlib.metadata
import json
import pathlib
import statistics
import sys
import time

now = time.perf_counter


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def report(peer, name, compiled, masks, cold, advances):
    print(json.dumps({"peer": peer, "version": importlib.metadata.version(peer), "document": name,
                      "compile_ms": statistics.median(compiled) * 1e3, "mask_us": statistics.median(masks) * 1e6,
                      "mask_p99_us": quantile(masks, 0.99) * 1e6, "cold_p99_us": quantile(cold, 0.99) * 1e6,
                      "advance_us": statistics.median(advances) * 1e6, "advance_p99_us": quantile(advances, 0.99) * 1e6}), flush=True)


def read(ids, fresh, mask, advance, readings):
    """Times of masks and steps over all readings, and of the masks of the first."""
    masks, advances = [], []
    for _ in range(readings):
        matcher = fresh()
        for i in ids:
            t0 = now()
            mask(matcher)
            t1 = now()
            ok = advance(matcher, i)
            t2 = now()
            if not ok:
                sys.exit(f"token {i} is refused")
            masks.append(t1 - t0)
            advances.append(t2 - t1)
    return masks, masks[:len(ids)], advances


def xgrammar(vocabulary, eos, documents, readings):
    import xgrammar as xg
    info = xg.TokenizerInfo(vocabulary, vocab_type=xg.VocabType.BYTE_LEVEL, vocab_size=len(vocabulary), stop_token_ids=[eos])
    bits = xg.allocate_token_bitmask(1, len(vocabulary))
    for name, d in documents.items():
        times = []
        for _ in range(5):
            compiler = xg.GrammarCompiler(info, max_threads=1, cache_enabled=False)
            t = now()
            g = (compiler.compile_json_schema(json.dumps(d["schema"]), strict_mode=True, any_whitespace=True) if d["schema"]
                 else compiler.compile_builtin_json_grammar())
            times.append(now() - t)
        report("xgrammar", name, times, *read(d["ids"], lambda g=g: xg.GrammarMatcher(g),
                                              lambda m: m.fill_next_token_bitmask(bits), lambda m, i: m.accept_token(i), readings))


def llguidance(tokenizer, n_vocab, eos, documents, readings):
    import llguidance as ll
    import numpy as np
    vocabulary = ll.LLTokenizer(tokenizer, n_vocab=n_vocab, eos_token=eos)
    bits = np.zeros((vocabulary.vocab_size + 31) // 32, dtype=np.int32)
    for name, d in documents.items():
        times = []
        for _ in range(5):
            t = now()
            m = ll.LLMatcher(vocabulary, ll.LLMatcher.grammar_from_json_schema(json.dumps(d["schema"] or {"type": "object"})))
            times.append(now() - t)
        report("llguidance", name, times, *read(d["ids"], m.deep_copy, lambda m: m.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes),
                                                lambda m, i: m.consume_token(i), readings))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True, help="a GGUF file with a byte-level vocabulary")
    parser.add_argument("--documents")
    parser.add_argument("--write-tokenizer", type=pathlib.Path)
    parser.add_argument("--readings", type=int, default=20)
    o = parser.parse_args()
    import gguf
    fields = gguf.GGUFReader(o.vocabulary).fields
    tokens = [str(bytes(fields["tokenizer.ggml.tokens"].parts[i]), "utf-8") for i in fields["tokenizer.ggml.tokens"].data]
    merges = [str(bytes(fields["tokenizer.ggml.merges"].parts[i]), "utf-8") for i in fields["tokenizer.ggml.merges"].data]
    eos = int(fields["tokenizer.ggml.eos_token_id"].parts[-1][0])
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    t = Tokenizer(models.BPE({s: i for i, s in enumerate(tokens)}, [tuple(m.split(" ", 1)) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    if o.write_tokenizer:
        types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
        t.add_special_tokens([AddedToken(s, special=True) for s, kind in zip(tokens, types) if kind == 3])
        o.write_tokenizer.mkdir(parents=True, exist_ok=True)
        t.save(str(o.write_tokenizer / "tokenizer.json"))
        (o.write_tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": tokens[eos]}))
        return
    documents = json.load(open(o.documents))
    for peer in (lambda: xgrammar(tokens, eos, documents, o.readings),
                 lambda: llguidance(t.to_str(), len(tokens), eos, documents, o.readings)):
        try:
            peer()
        except ImportError as e:
            print(f"left out: {e}", file=sys.stderr)


if __name__ == "__main__":
    main()
