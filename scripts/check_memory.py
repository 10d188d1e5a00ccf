#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The server under valgrind's memcheck: does anything it says or decides depend on memory that nobody wrote?

    make test-memory
    scripts/check_memory.py [--build build]

One request of every kind, whole and streamed, some of them together, clients that leave, a prefix that is found again.
What would leak from one client to another here is a buffer that was not filled: memcheck follows every byte up to the
socket. Other sanitizers would need all libraries built anew for that; kernels run as on a machine with AVX2."""
import argparse
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("SQUISH_BENCH_HANG_S", "900")

import server_client as sc
import targets
from server_client import Talk, get, post, talk

TINY = targets.ROOT / "models" / "squish-tiny"
SAID = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "max_tokens": 4}
NAMED = {"model": "squish-tiny", **SAID}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
REQUESTS = [
    ("/v1/chat/completions", {**SAID, "logprobs": True, "top_logprobs": 5, "n": 2}),
    ("/v1/chat/completions", {**SAID, "stream": True, "temperature": 1.3, "top_k": 20, "min_p": 0.01, "dry_multiplier": 0.5}),
    ("/v1/chat/completions", {**SAID, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}),
    ("/v1/chat/completions", {**SAID, "tools": [TOOL], "tool_choice": "required", "max_tokens": 20, "stream": True}),
    ("/v1/chat/completions", {"messages": [], "max_tokens": 1}),
    ("/v1/completions", {"prompt": ["a b", "c"], "max_tokens": 1, "echo": True, "logprobs": 2, "stop": ["x"]}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 3, "guided_regex": "[a-z]+"}),
    ("/v1/embeddings", {"input": ["a", "b c"], "encoding_format": "base64"}),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 16, "store": True}),
    ("/v1/responses", {"input": "hello", "max_output_tokens": 16, "stream": True}),
    ("/v1/messages", {**NAMED, "stream": True}),
    ("/v1/messages/count_tokens", NAMED),
    ("/api/chat", {**NAMED, "options": {"num_predict": 3}}),
    ("/api/generate", {"model": "squish-tiny", "prompt": "a", "options": {"num_predict": 3}, "stream": False}),
    ("/api/embed", {"model": "squish-tiny", "input": "a"}),
    ("/api/show", {"model": "squish-tiny"}),
    ("/tokenize", {"prompt": "a \u00fc"}),
    ("/detokenize", {"tokens": [300, 301]}),
    ("/apply-template", {"messages": SAID["messages"]}),
]
GETS = ["/health", "/metrics", "/slots", "/v1/models", "/api/tags", "/api/ps", "/openapi.json", "/", "/nothing"]


def requests(port):
    """(what, status wanted, status) of each."""
    for path, body in REQUESTS:
        wanted = 400 if body.get("messages") == [] else 200
        yield path, wanted, talk(port, post(path, body)).status
    for path in GETS:
        yield path, 404 if path == "/nothing" else 200, talk(port, get(path)).status
    long = {"prompt": list(range(400, 500)), "max_tokens": 2}
    for _ in range(2):  # the second finds the prefix
        yield "/v1/completions", 200, talk(port, post("/v1/completions", long)).status
    together = sc.run([Talk(port, post(p, b)) for p, b in REQUESTS[:3]])
    yield "three together", [200] * 3, [t.status for t in together]
    leaving = Talk(port, post("/v1/chat/completions", {**SAID, "stream": True, "ignore_eos": True, "max_tokens": 400}))
    sc.run([leaving], until=lambda: b"content" in leaving.raw)
    yield "/health after one left", 200, talk(port, get("/health")).status


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    o = parser.parse_args()
    wrong, n = [], 0
    with tempfile.TemporaryDirectory() as work:
        log, wrapper = pathlib.Path(work) / "log", pathlib.Path(work) / "squish"
        wrapper.write_text(f"#!/bin/sh\nexec valgrind -q --error-exitcode=9 --log-file={log} {pathlib.Path(o.build).absolute()}/squish \"$@\"\n")
        wrapper.chmod(0o755)
        with sc.Server(work, TINY, "--threads", 1, "--log-file", "/dev/null") as s:
            for what, wanted, status in requests(s.port):
                n += 1
                print(f"{what}: {status}", flush=True)
                if status != wanted:
                    wrong.append(f"{what}: {status}, wanted {wanted}")
            code = s.stop()
            if code:
                wrong.append(f"the server ended with {code}")
        said = log.read_text()
    if said:
        wrong.append(said[:4000])
    print("; ".join(wrong) or f"{n} requests, nothing depends on memory that was never written")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
