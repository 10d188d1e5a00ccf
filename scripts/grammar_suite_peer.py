#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llguidance on the suites that test_grammar_suite.c and test_maskbench.c run, instances as bytes.

    grammar_suite_peer.py FOLDER [--list]

FOLDER holds json-schema-test-suite/ and maskbench/. One JSON object a line: for each part the tests judged as the suite
says (right), accepted or refused against it (accepted, rejected), and the tests of schemas that were not compiled
(refused); for maskbench schemas whose tests are all right. --list names each wrong test on stderr."""
import argparse
import json
import pathlib
import sys

import llguidance


def matcher_of(tokenizer, schema):
    """A matcher, or None if the schema is refused."""
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = llguidance.LLMatcher(tokenizer, grammar)
    except ValueError:
        return None
    return None if matcher.is_error() else matcher


def accepts(matcher, text):
    matcher = matcher.deep_copy()  # a matcher that refused a token stays in error
    for byte in text.encode():
        if not matcher.consume_token(byte):
            return False
    return matcher.is_accepting()


def judge(tokenizer, group, name, counts, listed):
    matcher = matcher_of(tokenizer, group["schema"])
    right = matcher is not None
    for test in group["tests"]:
        if matcher is None:
            counts["refused"] += 1
            continue
        text = json.dumps(test["data"], ensure_ascii=False)
        taken = accepts(matcher, text)
        verdict = "right" if taken == test["valid"] else "accepted" if taken else "rejected"
        counts[verdict] += 1
        if verdict != "right":
            right = False
            if listed:
                print(f"{verdict}\t{name}\t{group['description']}\t{test.get('description')}", file=sys.stderr)
    return right, matcher is None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder")
    arguments.add_argument("--list", action="store_true")
    a = arguments.parse_args()
    root = pathlib.Path(a.folder)
    tokenizer = llguidance.LLTokenizer("byte")
    parts = {"draft2020-12": lambda p: "optional" not in p.parts,
             "draft2020-12/optional": lambda p: "optional" in p.parts and "format" not in p.parts,
             "draft2020-12/optional/format": lambda p: "format" in p.parts,
             "draft7": lambda p: "optional" not in p.parts,
             "draft7/optional": lambda p: "optional" in p.parts and "format" not in p.parts,
             "draft7/optional/format": lambda p: "format" in p.parts}
    tests = root / "json-schema-test-suite" / "tests"
    for part, belongs in parts.items():
        counts = {"right": 0, "accepted": 0, "rejected": 0, "refused": 0}
        for path in sorted((tests / part.split("/")[0]).rglob("*.json")):
            if belongs(path.relative_to(tests)):
                for group in json.loads(path.read_text()):
                    judge(tokenizer, group, str(path.relative_to(tests)), counts, a.list)
        print(json.dumps({"part": part, **counts}), flush=True)
    counts = {"right": 0, "accepted": 0, "rejected": 0, "refused": 0}
    schemas = {"right": 0, "wrong": 0, "refused": 0}
    for path in sorted((root / "maskbench").glob("*.json")):
        right, refused = judge(tokenizer, json.loads(path.read_text()), path.name, counts, a.list)
        schemas["right" if right else "refused" if refused else "wrong"] += 1
    print(json.dumps({"part": "maskbench", **counts, "schemas": schemas}), flush=True)


main()
