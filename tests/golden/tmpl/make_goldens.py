# SPDX-License-Identifier: Apache-2.0
"""Makes cases.json and squish-tiny.json: what Jinja renders, for tests/golden/test_tmpl_golden.c.

    python3 -m venv V && V/bin/pip install jinja2==3.1.6 && V/bin/python make_goldens.py

The environment is that of transformers' chat templates: immutable sandbox, trim_blocks, lstrip_blocks, loop controls,
a transparent generation block, and these tojson, raise_exception and strftime_now (the clock stands still, in UTC).
from_json is json.loads: no filter of Jinja's, but one that some engines offer."""
import json
import os
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cases import CASES, CONVERSATIONS, TOOLS

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime(2026, 1, 2, 3, 4, 5)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("text"), [], [], body).set_lineno(line)

    def text(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.filters["from_json"] = json.loads
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(env, template, variables):
    try:
        return {"text": env.from_string(template).render(**variables)}
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"}


def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)
        f.write("\n")


def main():
    env = environment()
    cases = []
    for i, case in enumerate(CASES):
        template, variables = case if isinstance(case, tuple) else (case, {})
        cases.append({"template": template, "vars": variables, **render(env, template, variables)})
    write("cases.json", {"made_with": f"jinja2 {jinja2.__version__}", "cases": cases})

    config = os.path.join(HERE, "..", "..", "..", "models", "squish-tiny", "tokenizer_config.json")
    with open(config, encoding="utf-8") as f:
        template = json.load(f)["chat_template"]
    tiny = []
    for name, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS):
            for generation in (True, False):
                variables = {"messages": messages, "tools": tools, "add_generation_prompt": generation}
                tiny.append({"name": name, "vars": variables, **render(env, template, variables)})
    write("squish-tiny.json", {"made_with": f"jinja2 {jinja2.__version__}", "cases": tiny})
    print(len(cases), "cases,", sum("error" in c for c in cases), "of them errors;", len(tiny), "renderings")


if __name__ == "__main__":
    main()
