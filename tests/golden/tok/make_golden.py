# SPDX-License-Identifier: Apache-2.0
#
# make_golden.py - makes the files beside it, with Hugging Face tokenizers as the reference (pip install tokenizers).
#
#   python3 tests/golden/tok/make_golden.py        from the project root; prints the version and a line per tokenizer
#
# bases/NAME.json   small tokenizers trained here on tests/fixtures/own-prose.txt
# variants.json     [{name, base, patch}]: a tokenizer is a base with some top-level keys replaced
# cases.json        the texts of cases.py, in hex
# ids/NAME.json     plain: ids of each case, special tokens not recognised; special: {case: ids} where recognising them
#                   makes a difference; affixed: {case: ids} with what the post-processor adds;
#                   decoded: {case: text} where decoding plain does not give the case (repaired) back
# own-prose.ids     ids of own-prose.txt by models/squish-tiny, one line of the file per line
import json
import os
import sys

import tokenizers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
sys.dont_write_bytecode = True
from cases import CASES  # noqa: E402

prose = open("tests/fixtures/own-prose.txt", encoding="utf-8").read()
texts = [c if isinstance(c, str) else c.decode("utf-8", "replace") for c in CASES]
corpus = prose.split("\n\n")[:400] + texts * 2

CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2, LLAMA3 = CL100K % r"\p{N}", CL100K % r"\p{N}{1,3}"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
MARK = "\u2581"

# Lu, Ll and Lt up to Unicode 11 without Georgian small letters, as the DeepSeek tokenizers list them.
CASED = ("A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
         "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
         "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
         "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
         "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
         "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
         "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
         "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
         "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
         "\U000118a0-\U000118df\U0001e900-\U0001e943")
DEEPSEEK = ["[\r\n]", "\\s?[" + CASED + "]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", "\\s+$",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]


def added(id, content, special=False, lstrip=False, rstrip=False, single_word=False, normalized=False):
    return {"id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
            "normalized": normalized, "special": special}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def digits(individual):
    return {"type": "Digits", "individual_digits": individual}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": cut}


def template(*names_and_ids):
    special = {n: {"id": n, "ids": [i], "tokens": [n]} for n, i, _ in names_and_ids}
    first = [{"SpecialToken": {"id": n, "type_id": 0}} for n, _, before in names_and_ids if before]
    last = [{"SpecialToken": {"id": n, "type_id": 0}} for n, _, before in names_and_ids if not before]
    seq = [{"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": first + seq + last,
            "pair": first + seq + [{"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": special}


def train(pre, alphabet, vocab_size, normalizer=None):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    if normalizer:
        tok.normalizer = normalizer
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet,
                                                        show_progress=False, limit_alphabet=len(alphabet)))
    return json.loads(tok.to_str())


def byte_base():
    """256 bytes, 420 merges over words of the Llama-3 regex, added tokens of every kind."""
    j = train(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
              pre_tokenizers.ByteLevel.alphabet(), 676)
    m = j["model"]
    n = len(m["vocab"])
    # Tokens that no merge yields: only ignore_merges can give them, so both answers are seen.
    for word in ["\u0120WORLD", "\u0120identifier", "function", "\u010a\u010a\u010a\u010a", "2024"]:
        if word not in m["vocab"]:
            m["vocab"][word] = n
            n += 1
    j["added_tokens"] = [
        added(n, "<|begin_of_text|>", special=True), added(n + 1, "<|eot_id|>", special=True),
        added(n + 2, "<|endoftext|>", special=True), added(n + 3, "<|im_start|>", special=True),
        added(n + 4, "<|im_end|>", special=True), added(n + 5, "<LS>", lstrip=True), added(n + 6, "<RS>", rstrip=True),
        added(n + 7, "<LR>", lstrip=True, rstrip=True), added(n + 8, "WORD", single_word=True),
        added(n + 9, "NORM", normalized=True), added(n + 10, "N\u00d6RM", normalized=True), added(n + 11, "AB"),
        added(n + 12, "ABC"), added(n + 13, "ABCD", normalized=True), added(n + 14, "<think>"),
        added(n + 15, " <sp>", special=False),
    ]
    j["decoder"] = byte_level(True, True)
    j["model"]["ignore_merges"] = True
    j["pre_tokenizer"] = sequence(split(LLAMA3), byte_level())
    j["post_processor"] = {"type": "Sequence", "processors": [byte_level(), template(("<|begin_of_text|>", n, True))]}
    return j


def spm_base():
    """Control tokens, 256 byte tokens, characters of the prose, 450 merges over words that begin with U+2581."""
    chars = sorted({c for c in prose if c not in "\n "} | set("\u4e2d\u6587\u00e9\u00df"))
    j = train(pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always", split=True), chars + [MARK],
              len(chars) + 1 + 450)
    names = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + [MARK * 2, MARK * 4]
    old = sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)
    vocab = {t: i for i, t in enumerate(names + [t for t in old if t not in names])}
    j["model"].update(vocab=vocab, unk_token="<unk>", fuse_unk=True, byte_fallback=True,
                      merges=[[MARK, MARK], [MARK * 2, MARK * 2]] + j["model"]["merges"])
    n = len(vocab)
    j["added_tokens"] = [
        added(0, "<unk>", special=True), added(1, "<s>", special=True), added(2, "</s>", special=True, rstrip=True),
        added(n, "<|im_start|>", special=True), added(n + 1, "<|im_end|>", special=True), added(n + 2, "<think>"),
        added(n + 3, "<LS>", lstrip=True), added(n + 4, "<RS>", rstrip=True), added(n + 5, "WORD", single_word=True),
        added(n + 6, "NORM", normalized=True), added(n + 7, "AB"), added(n + 8, "ABC"),
    ]
    j["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}
    j["pre_tokenizer"] = None
    j["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    j["post_processor"] = template(("<s>", 1, True), ("</s>", 2, False))
    return j


def variants(spm):
    plain_model = dict(spm["model"])
    no_bytes = {k: v for k, v in plain_model["vocab"].items() if not k.startswith("<0x")}
    renumber = {k: i for i, k in enumerate(no_bytes)}
    char_model = dict(plain_model, vocab=renumber, byte_fallback=False)
    char_added = [dict(a, id=renumber.get(a["content"], len(renumber) + k - 3)) for k, a in enumerate(spm["added_tokens"])]
    gemma = {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
             "pre_tokenizer": split(" ", "MergedWithPrevious", kind="String"),
             "decoder": {"type": "Sequence", "decoders": spm["decoder"]["decoders"][:3]}}

    return [
        ("llama3", "byte", {}),
        ("qwen2", "byte", {"normalizer": {"type": "NFC"}, "pre_tokenizer": sequence(split(QWEN2), byte_level())}),
        ("gpt2", "byte", {"pre_tokenizer": byte_level(True, True), "post_processor": None}),
        ("smollm", "byte", {"pre_tokenizer": sequence(digits(True), byte_level(False, True))}),
        ("deepseek", "byte", {"normalizer": {"type": "Sequence", "normalizers": []},
                              "pre_tokenizer": sequence(*[split(r) for r in DEEPSEEK], digits(True), byte_level())}),
        ("unknown-regex", "byte", {"normalizer": {"type": "NFKC"}, "pre_tokenizer": sequence(split(O200K), byte_level())}),
        ("nfd", "byte", {"normalizer": {"type": "NFD"}, "pre_tokenizer": sequence(digits(False), byte_level())}),
        ("nfkd", "byte", {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKD"}, {"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
            {"type": "Prepend", "prepend": "> "}]},
            "pre_tokenizer": sequence(split("\\s+$"), split("\\p{N}{1,3}"), byte_level())}),
        ("with-next", "byte", {"pre_tokenizer": sequence(split("'", "MergedWithNext", kind="String"),
                                                         split("a", "MergedWithPrevious", kind="String"), byte_level())}),
        ("contiguous", "byte", {"pre_tokenizer": sequence(split("[^\\p{L}]", "Contiguous"), split(" ?[a-c\\-]+", "Removed"),
                                                          byte_level(True))}),
        ("invert", "byte", {"pre_tokenizer": sequence(split(QWEN2, "Removed", True), split("\\p{Lu}", "MergedWithNext", True),
                                                      byte_level())}),
        ("spm", "spm", {}),
        ("gemma", "spm", gemma),
        ("metaspace-first", "spm", {"normalizer": {"type": "NFKC"}, "pre_tokenizer": metaspace("first", True),
                                    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"},
                                                                                 metaspace("never", True)]}}),
        ("metaspace-always", "spm", {"normalizer": None, "pre_tokenizer": metaspace("always", False)}),
        ("no-bytes", "spm", {"model": char_model, "added_tokens": char_added, "post_processor": None}),
        ("no-bytes-unfused", "spm", {"model": dict(char_model, fuse_unk=False), "added_tokens": char_added,
                                     "post_processor": None}),
        ("no-unk", "spm", {"model": dict(char_model, unk_token=None), "added_tokens": char_added,
                           "post_processor": None}),
    ]


def write(name, value):
    path = os.path.join(here, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def decode(tok, ids):
    """The reference's ByteLevel decoder reads the characters of an added token as bytes too, which breaks one that is
    not ASCII; such tokens are put in as they are."""
    wide = {i: tok.id_to_token(i) for i in tok.get_added_tokens_decoder() if not tok.id_to_token(i).replace(MARK, "").isascii()}
    text, run = "", []
    for i in ids + [None]:
        if i is None or i in wide:
            text += tok.decode(run, skip_special_tokens=True) + wide.get(i, "")
            run = []
        else:
            run.append(i)
    return text


def ids_of(tok):
    tok.encode_special_tokens = True
    plain = [tok.encode(t, add_special_tokens=False).ids for t in texts]
    decoded = {}
    for i, ids in enumerate(plain):
        d = decode(tok, ids)
        if d != texts[i]:
            decoded[str(i)] = d.encode().hex()
    tok.encode_special_tokens = False
    special = [tok.encode(t, add_special_tokens=False).ids for t in texts]
    affixed = {str(i): tok.encode(texts[i]).ids for i in range(0, 60, 5)}
    return {"plain": plain, "special": {str(i): s for i, (s, p) in enumerate(zip(special, plain)) if s != p},
            "affixed": affixed, "decoded": decoded}


def main():
    print("tokenizers", tokenizers.__version__)
    byte = byte_base()
    spm = spm_base()
    write("bases/byte.json", byte)
    write("bases/spm.json", spm)
    write("cases.json", [c.encode().hex() if isinstance(c, str) else c.hex() for c in CASES])
    listed = variants(spm)
    write("variants.json", [{"name": a, "base": b, "patch": p} for a, b, p in listed])
    for name, base, patch in listed:
        j = dict(byte if base == "byte" else spm, **patch)
        result = ids_of(Tokenizer.from_str(json.dumps(j)))
        write("ids/%s.json" % name, result)
        print(name, sum(map(len, result["plain"])), "ids,", len(result["special"]), "differ with specials,",
              len(result["decoded"]), "decode differently")
    tiny = Tokenizer.from_file("models/squish-tiny/tokenizer.json")
    write("ids/squish-tiny.json", ids_of(tiny))
    with open(os.path.join(here, "own-prose.ids"), "w") as f:
        ids = tiny.encode(prose, add_special_tokens=False).ids
        for i in range(0, len(ids), 24):
            f.write(" ".join(map(str, ids[i:i + 24])) + "\n")
    print("squish-tiny", len(ids), "ids of own-prose.txt")


main()
