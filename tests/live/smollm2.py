# SPDX-License-Identifier: Apache-2.0
"""What make_smollm2.py asks transformers and scripts/check_live.py asks squish: prompts, conversations, texts, and which logits of a
row are kept."""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
REFERENCE = pathlib.Path(__file__).with_name("smollm2.json")
N_NEXT = 24      # greedy tokens after each prompt
N_TOP = 4        # largest logits of a row that are kept, and
N_SPREAD = 8     # so many columns more, evenly over the vocabulary

PROMPTS = ["What is the capital of Japan?", "Write one sentence about the sea.", "What is 15 multiplied by 8?",
           "Name three colours of the rainbow.", "How do I get the length of a list in Python?"]
TALKS = {
    "a system message": [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": "Hello!"}],
    "three turns": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, how can I help?"},
                    {"role": "user", "content": "Tell me a story.\n  With two lines."}],
    "only a system message": [{"role": "system", "content": ""}],
    "signs and scripts": [{"role": "user", "content": "<b>\"it's\" & \u00e9\u4e16\U0001f600</b> {{ x }}"}]}


def talk(prompt):
    return [{"role": "user", "content": prompt}]


def texts():
    """name -> text for the tokenizer: the byte cases of tests/golden/tok that are text, and our own prose."""
    cases = []
    for case in json.loads((ROOT / "tests/golden/tok/cases.json").read_text()):
        try:
            text = bytes.fromhex(case).decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            cases.append(text)
    return {"cases": "\n".join(cases), "own prose": (ROOT / "tests/fixtures/own-prose.txt").read_text()}


def spread(n_vocab):
    return [i * n_vocab // N_SPREAD for i in range(N_SPREAD)]
