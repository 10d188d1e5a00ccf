# SPDX-License-Identifier: Apache-2.0
"""Real clients against the real server: openai (three majors), ollama, anthropic, litellm, LangChain, instructor, llm
and lm-evaluation-harness, every call that a user of them makes, streaming and not.

    make test-clients        builds a virtual environment with the pinned clients (needs network once) and runs this

The server is started on a free port with the shipped model and a store of its own in a temporary folder. Each group
runs in a process of its own, so that two majors of one package can be tried; what a group prints is counted here. What
squish refuses on purpose must be refused with a reason.
"""
import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request

QUESTION = "What is the capital of Japan?"
TOKYO = "The capital of Japan is Tokyo."
ASK = [{"role": "user", "content": QUESTION}]
EXTRACT = [{"role": "user", "content": "Extract the name, age and city as JSON: Anna is 31 years old and lives in Paris."}]
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
          "required": ["name", "age", "city"]}
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the current weather for a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}, "required": ["city"]}}}
ADD = {"type": "function", "function": {
    "name": "add_numbers", "description": "Add two numbers.", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a"]}}}
TOOLS = [WEATHER, ADD]
CALLS = [("What is the weather in Paris?", "get_weather", {"city": "Paris"}),
         ("Please add 12 and 30 with the tool.", "add_numbers", {"a": 12, "b": 30})]
MODEL = "squish-tiny"
GREEDY = {"extra_body": {"temperature": 0}}  # anthropic 2 has no argument of that name
SMOOTH = {"temperature": 0, "repeat_penalty": 1}

groups = {}


def check(group):
    def add(fn):
        groups.setdefault(group, []).append(fn)
        return fn
    return add


def refused(call, status, *words):
    """The call fails with that status of HTTP, and its message says why."""
    try:
        call()
    except Exception as e:  # each client has exceptions of its own
        text = str(e)
        found = getattr(e, "status_code", None)
        assert found in (status, None), f"status {found}, wanted {status}: {text}"
        assert all(w in text for w in words), f"'{text}' does not say {words}"
        return
    raise AssertionError("was not refused")


# ---- openai -----------------------------------------------------------------------------------------------------


def openai_client(url):
    import openai
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)


@check("openai")
def models_list_and_retrieve(url):
    c = openai_client(url)
    assert MODEL in [m.id for m in c.models.list()]
    assert c.models.retrieve(MODEL).object == "model"
    refused(lambda: c.models.retrieve("nobody"), 404, "nobody")


@check("openai")
def chat_whole(url):
    r = openai_client(url).chat.completions.create(model=MODEL, messages=ASK, temperature=0, logprobs=True, top_logprobs=2)
    assert r.choices[0].message.content == TOKYO and r.choices[0].finish_reason == "stop"
    assert r.usage.prompt_tokens == 15 and r.usage.completion_tokens == 8
    assert len(r.choices[0].logprobs.content) == 8


@check("openai")
def chat_stream(url):
    text, usage, finish = "", None, None
    for ch in openai_client(url).chat.completions.create(model=MODEL, messages=ASK, temperature=0, stream=True,
                                                          stream_options={"include_usage": True}):
        usage = ch.usage or usage
        for x in ch.choices:
            text += x.delta.content or ""
            finish = x.finish_reason or finish
    assert text == TOKYO and finish == "stop" and usage.completion_tokens == 8


@check("openai")
def chat_two_choices_stop_and_seed(url):
    c = openai_client(url)
    r = c.chat.completions.create(model=MODEL, messages=ASK, n=2, seed=7, stop=["xyz"], max_completion_tokens=5)
    again = c.chat.completions.create(model=MODEL, messages=ASK, n=2, seed=7, stop=["xyz"], max_completion_tokens=5)
    assert [x.message.content for x in r.choices] == [x.message.content for x in again.choices]
    assert [x.index for x in r.choices] == [0, 1]


@check("openai")
def chat_async(url):
    import openai

    async def both():
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as c:
            return await asyncio.gather(*[c.chat.completions.create(model=MODEL, messages=ASK, temperature=0) for _ in range(4)])
    assert [r.choices[0].message.content for r in asyncio.run(both())] == [TOKYO] * 4


@check("openai")
def completions_whole_and_stream(url):
    c = openai_client(url)
    r = c.completions.create(model=MODEL, prompt="The capital of Japan is", max_tokens=3, temperature=0, logprobs=1, echo=True)
    assert r.choices[0].text.startswith("The capital of Japan is") and len(r.choices[0].logprobs.tokens) == \
        r.usage.prompt_tokens + r.usage.completion_tokens
    plain = c.completions.create(model=MODEL, prompt="The capital of Japan is", max_tokens=3, temperature=0)
    text = "".join(x.choices[0].text for x in c.completions.create(model=MODEL, prompt="The capital of Japan is",
                                                                    max_tokens=3, temperature=0, stream=True) if x.choices)
    assert text == plain.choices[0].text


@check("openai")
def embeddings_of_text_and_ids(url):
    c = openai_client(url)
    r = c.embeddings.create(model=MODEL, input=["Tokyo", "Paris"])  # base64 by default
    assert len(r.data) == 2 and len(r.data[0].embedding) == 512
    f = c.embeddings.create(model=MODEL, input=["Tokyo"], encoding_format="float")
    assert max(abs(a - b) for a, b in zip(r.data[0].embedding, f.data[0].embedding)) < 1e-6
    assert len(c.embeddings.create(model=MODEL, input=[[1, 2, 3]]).data[0].embedding) == 512


@check("openai")
def responses_whole(url):
    c = openai_client(url)
    r = c.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert r.output_text == TOKYO and r.status == "completed" and r.usage.output_tokens == 8
    kept = c.responses.create(model=MODEL, input=QUESTION, temperature=0, store=True)
    assert c.responses.retrieve(kept.id).output_text == TOKYO
    more = c.responses.create(model=MODEL, input="And of France?", previous_response_id=kept.id, max_output_tokens=4)
    assert more.usage.input_tokens > kept.usage.input_tokens
    c.responses.delete(kept.id)
    refused(lambda: c.responses.retrieve(kept.id), 404)


@check("openai")
def responses_stream(url):
    text, last = "", None
    for ev in openai_client(url).responses.create(model=MODEL, input=QUESTION, temperature=0, stream=True):
        last = ev
        if ev.type == "response.output_text.delta":
            text += ev.delta
    assert text == TOKYO and last.type == "response.completed" and last.response.output_text == TOKYO


@check("openai")
def responses_stream_helper(url):
    with openai_client(url).responses.stream(model=MODEL, input=QUESTION, temperature=0) as s:
        for _ in s:
            pass
        assert s.get_final_response().output_text == TOKYO


@check("openai")
def errors_are_of_the_right_class(url):
    import openai
    c = openai_client(url)
    for call, kind in [
            (lambda: c.chat.completions.create(model="nobody", messages=ASK), openai.NotFoundError),
            (lambda: c.chat.completions.create(model=MODEL, messages=ASK, temperature=99), openai.BadRequestError),
            (lambda: c.chat.completions.create(model=MODEL, messages=[]), openai.BadRequestError)]:
        try:
            call()
        except kind as e:
            assert e.body["message"] and "param" in e.body
        else:
            raise AssertionError(f"no {kind}")


@check("openai")
def chat_answers_in_a_schema(url):
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int
        city: str
    c = openai_client(url)
    r = c.chat.completions.create(model=MODEL, messages=EXTRACT, temperature=0, response_format={"type": "json_object"})
    assert json.loads(r.choices[0].message.content)["city"] == "Paris" and r.choices[0].finish_reason == "stop"
    parse = getattr(c.chat.completions, "parse", None) or c.beta.chat.completions.parse
    r = parse(model=MODEL, messages=EXTRACT, temperature=0, response_format=Person)
    assert r.choices[0].message.parsed == Person(name="Anna", age=31, city="Paris")
    with c.beta.chat.completions.stream(model=MODEL, messages=EXTRACT, temperature=0, response_format=Person) as s:
        for _ in s:
            pass
        assert s.get_final_completion().choices[0].message.parsed.age == 31
    assert c.responses.parse(model=MODEL, input=EXTRACT, temperature=0, text_format=Person).output_parsed.name == "Anna"
    elsewhere = {"name": "x", "schema": {"$ref": "http://a.b/c"}}
    refused(lambda: c.chat.completions.create(model=MODEL, messages=ASK, response_format={
        "type": "json_schema", "json_schema": {**elsewhere, "strict": True}}), 400, "$ref")
    r = c.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=60, temperature=0, response_format={
        "type": "json_schema", "json_schema": elsewhere})
    assert "$ref" in r.headers["x-squish-schema-relaxed"]


def user(text):
    return [{"role": "user", "content": text}]


@check("openai")
def chat_calls_tools_whole_and_streamed(url):
    c = openai_client(url)
    for text, name, arguments in CALLS:
        args = dict(model=MODEL, messages=user(text), tools=TOOLS, temperature=0)
        r = c.chat.completions.create(**args)
        call = r.choices[0].message.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)
        assert r.choices[0].finish_reason == "tool_calls" and r.choices[0].message.content is None
        got, pieces, finish = {}, 0, None
        for ch in c.chat.completions.create(stream=True, **args):
            for x in ch.choices:
                finish = x.finish_reason or finish
                for d in x.delta.tool_calls or []:
                    pieces += 1
                    g = got.setdefault(d.index, {"name": "", "arguments": ""})
                    g["name"] += d.function.name or ""
                    g["arguments"] += d.function.arguments or ""
        assert finish == "tool_calls" and pieces > 3
        assert [(g["name"], json.loads(g["arguments"])) for g in got.values()] == [(name, arguments)]
    with c.beta.chat.completions.stream(**args) as s:
        for _ in s:
            pass
        assert s.get_final_completion().choices[0].message.tool_calls[0].function.name == name


@check("openai")
def chat_tool_choice(url):
    c = openai_client(url)
    for i in range(8):
        r = c.chat.completions.create(model=MODEL, messages=user("Hello!"), tools=TOOLS, tool_choice="required", seed=i,
                                      max_tokens=400, temperature=1.2)
        if r.choices[0].finish_reason == "length":
            continue
        for call in r.choices[0].message.tool_calls:
            assert call.function.name in ("get_weather", "add_numbers") and isinstance(json.loads(call.function.arguments), dict)
    named = {"type": "function", "function": {"name": "add_numbers"}}
    r = c.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice=named, temperature=0)
    assert r.choices[0].message.tool_calls[0].function.name == "add_numbers"
    r = c.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS, tool_choice="none", temperature=0)
    assert not r.choices[0].message.tool_calls and r.choices[0].message.content


@check("openai")
def chat_answers_after_a_tool(url):
    c = openai_client(url)
    text, name, _ = CALLS[0]
    first = c.chat.completions.create(model=MODEL, messages=user(text), tools=TOOLS, temperature=0).choices[0].message
    told = user(text) + [first.model_dump(exclude_none=True), {
        "role": "tool", "tool_call_id": first.tool_calls[0].id, "content": '{"temperature": 21, "condition": "sunny"}'}]
    r = c.chat.completions.create(model=MODEL, messages=told, tools=TOOLS, temperature=0)
    assert r.choices[0].message.content == "It is 21 degrees and sunny in Paris."


@check("openai")
def responses_call_tools_whole_and_streamed(url):
    c = openai_client(url)
    tools = [dict(t["function"], type="function") for t in TOOLS]
    for text, name, arguments in CALLS:
        r = c.responses.create(model=MODEL, input=text, tools=tools, temperature=0)
        call = [x for x in r.output if x.type == "function_call"][0]
        assert (call.name, json.loads(call.arguments)) == (name, arguments)
        with c.responses.stream(model=MODEL, input=text, tools=tools, temperature=0) as s:
            kinds = {e.type for e in s}
            call = [x for x in s.get_final_response().output if x.type == "function_call"][0]
        assert "response.function_call_arguments.delta" in kinds and json.loads(call.arguments) == arguments
        more = c.responses.create(model=MODEL, tools=tools, temperature=0, input=user(text) + [
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            {"type": "function_call_output", "call_id": call.call_id, "output": '{"result": 42}'}])
        assert more.output_text


# ---- ollama -----------------------------------------------------------------------------------------------------


def ollama_client(url):
    import ollama
    return ollama.Client(host=url, timeout=120)


@check("ollama")
def ollama_chat(url):
    c = ollama_client(url)
    r = c.chat(model=MODEL, messages=ASK, options=SMOOTH)
    assert r.message.content == TOKYO and r.done and r.done_reason == "stop" and r.eval_count == 8
    assert r.total_duration >= r.eval_duration + r.prompt_eval_duration
    assert "".join(x.message.content for x in c.chat(model=MODEL, messages=ASK, options=SMOOTH, stream=True)) == TOKYO
    assert c.chat(model=MODEL, messages=ASK, options=SMOOTH, think=False, keep_alive="5m").message.content == TOKYO


@check("ollama")
def ollama_chat_async(url):
    import ollama

    async def go():
        c = ollama.AsyncClient(host=url)
        return "".join([x.message.content async for x in await c.chat(model=MODEL, messages=ASK, options=SMOOTH, stream=True)])
    assert asyncio.run(go()) == TOKYO


@check("ollama")
def ollama_generate(url):
    c = ollama_client(url)
    r = c.generate(model=MODEL, prompt=QUESTION, options=SMOOTH)
    assert r.response == TOKYO and len(r.context) == 23
    assert "".join(x.response for x in c.generate(model=MODEL, prompt=QUESTION, options=SMOOTH, stream=True)) == TOKYO
    assert c.generate(model=MODEL, prompt="And of France?", context=r.context, options={"num_predict": 2}).eval_count <= 2
    assert c.generate(model=MODEL).done_reason == "load"


@check("ollama")
def ollama_tools_whole_and_streamed(url):
    c = ollama_client(url)
    assert "tools" in c.show(MODEL).capabilities
    for text, name, arguments in CALLS:
        for stream in (False, True):
            r = c.chat(model=MODEL, messages=user(text), tools=TOOLS, options={"temperature": 0}, stream=stream)
            got = [call for x in (r if stream else [r]) for call in x.message.tool_calls or []]
            assert [(g.function.name, g.function.arguments) for g in got] == [(name, arguments)], (stream, got)
    told = user(CALLS[0][0]) + [{"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "get_weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": '{"temperature": 21, "condition": "sunny"}'}]
    assert "21 degrees" in c.chat(model=MODEL, messages=told, tools=TOOLS, options=SMOOTH).message.content

    def get_weather(city: str) -> str:
        """Get the current weather for a city.

        Args:
            city: a city
        """
        return city
    r = c.chat(model=MODEL, messages=user(CALLS[0][0]), tools=[get_weather], options={"temperature": 0})
    assert r.message.tool_calls[0].function.name == "get_weather"


@check("ollama")
def ollama_format(url):
    c = ollama_client(url)
    for shape in ("json", PERSON):
        r = c.chat(model=MODEL, messages=EXTRACT, options=SMOOTH, format=shape)
        assert json.loads(r.message.content) == {"name": "Anna", "age": 31, "city": "Paris"} and r.done_reason == "stop"
    assert json.loads(c.generate(model=MODEL, prompt="A city?", options={"temperature": 2}, format={
        "type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}).response)["n"] in (1, 2)


@check("ollama")
def ollama_embed(url):
    c = ollama_client(url)
    assert len(c.embed(model=MODEL, input=["a b c", "d"]).embeddings) == 2
    assert len(c.embed(model=MODEL, input="x").embeddings[0]) == 512
    assert len(c.embeddings(model=MODEL, prompt="x").embedding) == 512


@check("ollama")
def ollama_lists(url):
    c = ollama_client(url)
    assert MODEL + ":latest" in [m.model for m in c.list().models]
    p = [m for m in c.ps().models if m.model == MODEL + ":latest"][0]
    assert p.context_length > 0 and p.expires_at.year > 2100
    s = c.show(MODEL)
    assert s.modelinfo["general.architecture"] == "qwen2" and "completion" in s.capabilities
    assert s.details.family == "qwen2"


@check("ollama")
def ollama_create_copy_delete(url):
    c = ollama_client(url)
    assert c.create(model="poet", from_=MODEL, system="Answer in rhymes.", parameters={"num_predict": 3}).status == "success"
    assert [x.status for x in c.create(model="poet", from_=MODEL, parameters={"num_predict": 3}, stream=True)][-1] == "success"
    assert c.chat(model="poet", messages=ASK).eval_count == 3
    assert c.copy("poet", "bard").status == "success"
    assert c.chat(model="bard", messages=ASK).eval_count == 3
    assert c.delete("poet").status == "success" and c.delete("bard").status == "success"
    refused(lambda: c.delete("bard"), 404, "bard")


@check("ollama")
def ollama_pull_and_push(url):
    c = ollama_client(url)
    assert c.pull(MODEL).status == "success"
    assert [x.status for x in c.pull(MODEL, stream=True)] == ["pulling manifest", "success"]
    # the server's hub is an address where nobody listens; tests/clients/test_hub.py has one that answers
    refused(lambda: c.pull("llama3.2"), 502, "no connection")
    refused(lambda: list(c.pull("llama3.2", stream=True)), -1, "no connection")  # a line of the stream: no status
    refused(lambda: c.push(MODEL), 501)


@check("ollama")
def ollama_errors(url):
    c = ollama_client(url)
    refused(lambda: c.chat(model="nobody", messages=ASK), 404, "not found", "nobody")
    refused(lambda: c.chat(model=MODEL, messages=ASK, think=True), 400, "does not support thinking")
    refused(lambda: c.generate(model=MODEL, prompt="x", suffix="y"), 400, "suffix")


# ---- anthropic --------------------------------------------------------------------------------------------------


def anthropic_client(url):
    import anthropic
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)


@check("anthropic")
def messages_whole(url):
    c = anthropic_client(url)
    r = c.messages.create(model=MODEL, max_tokens=64, messages=ASK, **GREEDY)
    assert r.content[0].text == TOKYO and r.stop_reason == "end_turn" and r.usage.output_tokens == 8
    assert r._request_id
    r = c.messages.create(model=MODEL, max_tokens=64, messages=ASK, **GREEDY, stop_sequences=[" is"],
                          system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}])
    assert r.content


@check("anthropic")
def messages_stream(url):
    c = anthropic_client(url)
    kinds = [e.type for e in c.messages.create(model=MODEL, max_tokens=64, messages=ASK, **GREEDY, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and "content_block_delta" in kinds
    with c.messages.stream(model=MODEL, max_tokens=64, messages=ASK, **GREEDY) as s:
        assert "".join(s.text_stream) == TOKYO
        m = s.get_final_message()
    assert m.content[0].text == TOKYO and m.stop_reason == "end_turn" and m.usage.output_tokens == 8


@check("anthropic")
def messages_count_tokens(url):
    assert anthropic_client(url).messages.count_tokens(model=MODEL, messages=ASK).input_tokens == 15


@check("anthropic")
def messages_call_tools_whole_and_streamed(url):
    c = anthropic_client(url)
    tools = [{"name": t["function"]["name"], "description": t["function"]["description"],
              "input_schema": t["function"]["parameters"]} for t in TOOLS]
    for text, name, arguments in CALLS:
        args = dict(model=MODEL, max_tokens=99, messages=user(text), tools=tools, **GREEDY)
        r = c.messages.create(**args)
        use = r.content[-1]
        assert (use.type, use.name, use.input, r.stop_reason) == ("tool_use", name, arguments, "tool_use")
        with c.messages.stream(**args) as s:
            kinds = {e.type for e in s}
            m = s.get_final_message()
        assert "input_json" in kinds and m.content[-1].input == arguments and m.stop_reason == "tool_use"
    r = c.messages.create(model=MODEL, max_tokens=400, messages=ASK, tools=tools, tool_choice={"type": "any"}, **GREEDY)
    assert r.content[-1].type == "tool_use"
    told = user(CALLS[0][0]) + [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
                                      "content": '{"temperature": 21, "condition": "sunny"}'}]}]
    r = c.messages.create(model=MODEL, max_tokens=99, messages=told, tools=tools, **GREEDY)
    assert r.content[0].text == "It is 21 degrees and sunny in Paris."


@check("anthropic")
def messages_errors(url):
    import anthropic
    c = anthropic_client(url)
    for call, kind in [(lambda: c.messages.create(model="nobody", max_tokens=9, messages=ASK), anthropic.NotFoundError),
                       (lambda: c.messages.create(model=MODEL, max_tokens=9, messages=[]), anthropic.BadRequestError)]:
        try:
            call()
        except kind as e:
            assert e.body["type"] == "error" and e.body["request_id"]
        else:
            raise AssertionError(f"no {kind}")


# ---- litellm ----------------------------------------------------------------------------------------------------


@check("litellm")
def litellm_openai(url):
    import litellm
    args = dict(model="openai/" + MODEL, api_base=url + "/v1", api_key="none", messages=ASK, temperature=0, num_retries=0)
    assert litellm.completion(**args).choices[0].message.content == TOKYO
    assert "".join(x.choices[0].delta.content or "" for x in litellm.completion(stream=True, **args)) == TOKYO
    r = litellm.embedding(model="openai/" + MODEL, api_base=url + "/v1", api_key="none", input=["x"])
    assert len(r.data[0]["embedding"]) == 512


@check("litellm")
def litellm_ollama(url):
    import litellm
    for route in ("ollama_chat/", "ollama/"):
        args = dict(model=route + MODEL, api_base=url, messages=ASK, temperature=0, repeat_penalty=1, num_retries=0)
        assert litellm.completion(**args).choices[0].message.content.strip(), route
        assert "".join(x.choices[0].delta.content or "" for x in litellm.completion(stream=True, **args)).strip(), route


@check("litellm")
def litellm_anthropic(url):
    import litellm
    args = dict(model="anthropic/" + MODEL, api_base=url, api_key="none", messages=ASK, temperature=0, num_retries=0)
    assert litellm.completion(**args).choices[0].message.content == TOKYO
    assert "".join(x.choices[0].delta.content or "" for x in litellm.completion(stream=True, **args)) == TOKYO


@check("litellm")
def litellm_tools(url):
    import litellm
    for model, base in (("openai/", url + "/v1"), ("ollama_chat/", url), ("anthropic/", url)):
        for text, name, arguments in CALLS:
            r = litellm.completion(model=model + MODEL, api_base=base, api_key="none", messages=user(text), tools=TOOLS,
                                   temperature=0, num_retries=0, max_tokens=99)
            call = r.choices[0].message.tool_calls[0].function
            assert (call.name, json.loads(call.arguments)) == (name, arguments), model


# ---- LangChain --------------------------------------------------------------------------------------------------


@check("langchain")
def langchain_openai_chat(url):
    from langchain_openai import ChatOpenAI
    m = ChatOpenAI(model=MODEL, base_url=url + "/v1", api_key="none", temperature=0, max_retries=0)
    assert m.invoke(QUESTION).content == TOKYO
    assert "".join(x.content for x in m.stream(QUESTION)) == TOKYO
    assert [x.content for x in m.batch([QUESTION, QUESTION])] == [TOKYO, TOKYO]


def langchain_models(url):
    from langchain_ollama import ChatOllama
    from langchain_openai import ChatOpenAI
    return [ChatOpenAI(model=MODEL, base_url=url + "/v1", api_key="none", temperature=0, max_retries=0),
            ChatOllama(model=MODEL, base_url=url, temperature=0)]


@check("langchain")
def langchain_tools_and_structured_output(url):
    for m in langchain_models(url):
        for text, name, arguments in CALLS:
            bound = m.bind_tools(TOOLS)
            call = bound.invoke(text).tool_calls[0]
            assert (call["name"], call["args"]) == (name, arguments), m
            whole = None
            for chunk in bound.stream(text):
                whole = chunk if whole is None else whole + chunk
            assert [(x["name"], x["args"]) for x in whole.tool_calls] == [(name, arguments)], m
        shaped = m.with_structured_output(dict(PERSON, title="person", description="a person"), method="json_schema")
        assert shaped.invoke(EXTRACT[0]["content"])["age"] == 31, m


@check("langchain")
def langchain_openai_embeddings(url):
    from langchain_openai import OpenAIEmbeddings
    e = OpenAIEmbeddings(model=MODEL, base_url=url + "/v1", api_key="none", check_embedding_ctx_length=False)
    assert len(e.embed_query("x")) == 512 and len(e.embed_documents(["a", "b"])) == 2


@check("langchain")
def langchain_ollama_chat(url):
    from langchain_ollama import ChatOllama, OllamaEmbeddings
    m = ChatOllama(model=MODEL, base_url=url, temperature=0, repeat_penalty=1.0, validate_model_on_init=True)
    assert m.invoke(QUESTION).content == TOKYO
    assert "".join(x.content for x in m.stream(QUESTION)) == TOKYO
    assert len(OllamaEmbeddings(model=MODEL, base_url=url).embed_query("x")) == 512


# ---- instructor, llm, lm-eval -----------------------------------------------------------------------------------


@check("instructor")
def instructor_fills_a_model(url):
    import instructor
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        c = instructor.from_openai(openai_client(url), mode=mode)
        p = c.chat.completions.create(model=MODEL, messages=EXTRACT, temperature=0, response_model=Person, max_retries=0)
        assert p.age == 31, mode


@check("llm")
def llm_program(url):
    with tempfile.TemporaryDirectory() as d:
        with open(os.path.join(d, "extra-openai-models.yaml"), "w") as f:
            f.write(f"- model_id: tiny\n  model_name: {MODEL}\n  api_base: {url}/v1\n")
        env = dict(os.environ, LLM_USER_PATH=d)
        for extra in ([], ["--no-stream"]):
            out = subprocess.run([sys.executable, "-m", "llm", "-m", "tiny", "-o", "temperature", "0", QUESTION] + extra,
                                 env=env, capture_output=True, text=True, timeout=120)
            assert out.stdout.strip() == TOKYO, out.stdout + out.stderr


LM_TASK = """task: squish_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
LM_ROWS = [("The capital of Japan is", ["Tokyo", "Berlin"], 0), ("The capital of France is", ["London", "Paris"], 1),
           ("The capital of Germany is", ["Berlin", "Tokyo"], 0), ("Two and two make", ["seven", "four"], 1)]


def lm_eval_samples(url, folder, args, batch, tasks, more=()):
    """The samples that lm-eval logs, in the order of the file, by task."""
    out = os.path.join(folder, "out")
    shutil.rmtree(out, ignore_errors=True)
    env = dict(os.environ, HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1", HF_HOME=os.path.join(folder, "hf"), OPENAI_API_KEY="none")
    p = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args",
                        f"model={MODEL},base_url={url}/v1/completions,max_retries=1,{args}", "--batch_size", str(batch),
                        "--tasks", ",".join(tasks), "--include_path", folder, "--output_path", out, "--log_samples", *more],
                       env=env, capture_output=True, text=True, timeout=3000)
    names = [os.path.join(r, n) for r, _, ns in os.walk(out) for n in ns]
    found = {}
    for task in tasks:
        samples = [n for n in names if os.path.basename(n).startswith(f"samples_{task}_")]
        assert p.returncode == 0 and samples, p.stdout[-1500:] + p.stderr[-1500:]
        with open(samples[0]) as f:
            found[task] = sorted((json.loads(line) for line in f), key=lambda r: r["doc_id"])
    return found


def lm_eval(url, folder, args, batch=1):
    return [r["filtered_resps"] for r in lm_eval_samples(url, folder, args, batch, ["squish_local"])["squish_local"]]


@check("lm-eval")
def lm_eval_scores_by_ids_and_by_text(url):
    with tempfile.TemporaryDirectory() as d:
        data = os.path.join(d, "rows.jsonl")
        with open(data, "w") as f:
            for q, choices, answer in LM_ROWS:
                f.write(json.dumps({"question": q, "choices": choices, "answer": answer}) + "\n")
        with open(os.path.join(d, "squish_local.yaml"), "w") as f:
            f.write(LM_TASK.format(data=data))
        by_ids = lm_eval(url, d, "tokenizer_backend=remote,tokenized_requests=True", batch=4)
        one = lm_eval(url, d, "tokenizer_backend=remote,tokenized_requests=True")
        by_text = lm_eval(url, d, "tokenizer_backend=remote,tokenized_requests=False,num_concurrent=2")
        assert len(by_ids) == len(LM_ROWS) and by_ids == one and by_ids == by_text, (by_ids, one, by_text)


# The tasks as lm-eval defines them, with the same local files as squish eval instead of the hub's.
LM_OWN = """include: {base}/{yaml}
task: squish_{task}
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    test: {data}
training_split: null
validation_split: null
test_split: test
"""
LM_FILES = {"arc_easy": ("arc/arc_easy.yaml", "test"), "arc_challenge": ("arc/arc_challenge.yaml", "test"),
            "hellaswag": ("hellaswag/hellaswag.yaml", "validation"), "piqa": ("piqa/piqa.yaml", "validation"),
            "winogrande": ("winogrande/default.yaml", "validation")}


def as_on_the_hub(task, doc, label):
    """A record of a public file in the form that lm-eval gets from the hub."""
    if task.startswith("arc"):
        q = doc["question"]
        choices = q["choices"] if isinstance(q, dict) else doc["choices"]
        if isinstance(choices, list):
            choices = {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}
        return {"question": q["stem"] if isinstance(q, dict) else q, "choices": choices, "answerKey": doc["answerKey"]}
    if task == "hellaswag":
        return {"activity_label": doc["activity_label"], "ctx_a": doc.get("ctx_a", doc["ctx"]), "ctx_b": doc.get("ctx_b", ""),
                "endings": doc["endings"], "label": str(doc["label"])}
    if task == "piqa":
        return {"goal": doc["goal"], "sol1": doc["sol1"], "sol2": doc["sol2"], "label": int(label)}
    return {k: doc[k] for k in ("sentence", "option1", "option2", "answer")}


def write_own_tasks(folder, data):
    from importlib.util import find_spec
    base = os.path.join(os.path.dirname(find_spec("lm_eval").origin), "tasks")
    for task, (yaml, split) in LM_FILES.items():
        path = os.path.join(data, task, split + ".jsonl")
        labels = path.replace(".jsonl", "-labels.lst")
        with open(path) as f:
            docs = [json.loads(line) for line in f if line.strip()]
        given = open(labels).read().split() if os.path.exists(labels) else [None] * len(docs)
        rows = os.path.join(folder, task + ".jsonl")
        with open(rows, "w") as f:
            f.writelines(json.dumps(as_on_the_hub(task, d, g)) + "\n" for d, g in zip(docs, given))
        with open(os.path.join(folder, f"squish_{task}.yaml"), "w") as f:
            f.write(LM_OWN.format(base=base, yaml=yaml, task=task, data=rows))


@check("lm-eval")
def lm_eval_gets_the_doubles_of_squish_eval(url):
    """Five tasks: every log-likelihood of every item is the same double, so are acc and acc_norm. LM_EVAL_LIMIT items of
    each public file where SQUISH_TESTDATA has them, else our own small set."""
    public = os.path.join(os.environ.get("SQUISH_TESTDATA", ""), "data", "eval")
    data = public if os.path.isdir(public) else os.path.join(os.path.dirname(__file__), "..", "fixtures", "eval")
    limit = os.environ.get("LM_EVAL_LIMIT", "12")
    squish = os.environ.get("SQUISH_BIN", "build/squish")
    with tempfile.TemporaryDirectory() as d:
        write_own_tasks(d, os.path.abspath(data))
        p = subprocess.run([squish, "eval", MODEL, "--tier", "source", "--data", data, "--limit", limit, "--json"],
                           capture_output=True, text=True, timeout=3000)
        assert p.returncode == 0, p.stderr
        ours = json.loads(p.stdout)["tasks"]
        theirs = lm_eval_samples(url, d, "tokenizer_backend=remote,tokenized_requests=True,num_concurrent=4", 1,
                                 ["squish_" + t for t in LM_FILES], ("--limit", limit))
        n = 0
        for task in LM_FILES:
            rows = theirs["squish_" + task]
            assert len(rows) == ours[task]["n"], (task, len(rows))
            for row, item in zip(rows, ours[task]["items"]):
                got = [float(r[0]) for r in row["filtered_resps"]]
                assert got == item["ll"], (task, row["doc_id"], got, item["ll"])
                assert [str(r[1]) == "True" for r in row["filtered_resps"]] == item["greedy"], (task, row["doc_id"])
                n += len(got)
            for metric in ("acc", "acc_norm") if task != "winogrande" else ("acc",):
                mean = sum(r[metric] for r in rows) / len(rows)
                assert abs(mean - ours[task][metric]) < 1e-12, (task, metric, mean, ours[task][metric])
        print(f"     {n} log-likelihoods, {limit} items a task: equal doubles")


# ---- running ----------------------------------------------------------------------------------------------------


def run_group(name, url):
    bad = 0
    for fn in groups[name]:
        try:
            fn(url)
            print(f"ok   {name}: {fn.__name__}", flush=True)
        except ImportError as e:
            print(f"skip {name}: {fn.__name__}: {e}", flush=True)
        except Exception:
            bad += 1
            print(f"FAIL {name}: {fn.__name__}: {traceback.format_exc(limit=-3)[-1500:]}", flush=True)
    return 1 if bad else 0


def start_server(squish, home, log):
    env = dict(os.environ, SQUISH_HOME=home, HF_ENDPOINT="http://127.0.0.1:9")
    with open(log, "w") as f:
        p = subprocess.Popen([squish, "serve", MODEL, "--port", "0", "--tier", "source"], env=env, stdout=f,
                             stderr=subprocess.STDOUT)
    end = time.time() + 120
    while time.time() < end and p.poll() is None:
        with open(log) as f:
            m = re.search(r"http://127\.0\.0\.1:\d+", f.read())
        if m:
            try:
                if urllib.request.urlopen(m.group(0) + "/health", timeout=5).status == 200:
                    return p, m.group(0)
            except OSError:
                pass
        time.sleep(0.05)
    p.kill()
    with open(log) as f:
        sys.exit("the server did not come up: " + f.read()[-1000:])


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--squish", default="build/squish")
    a.add_argument("--venv", default="build/venv-clients")
    a.add_argument("--only", help="groups, separated by commas")
    a.add_argument("--group", help=argparse.SUPPRESS)
    a.add_argument("--url", help="a server that runs already")
    o = a.parse_args()
    if o.group:
        sys.exit(run_group(o.group, o.url))
    plan = [("openai", p, os.path.join(o.venv, p)) for p in ("openai-1", "openai-3")] + [(g, g, None) for g in groups]
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    with tempfile.TemporaryDirectory() as d:
        server, url = (None, o.url) if o.url else start_server(o.squish, os.path.join(d, "home"), os.path.join(d, "log"))
        try:
            for group, title, path in plan:
                if o.only and title not in o.only.split(","):
                    continue
                env = dict(os.environ, PYTHONPATH=path or "", SQUISH_BIN=o.squish, LITELLM_LOCAL_MODEL_COST_MAP="True", NO_PROXY="127.0.0.1")
                if path and not os.path.isdir(path):
                    print(f"skip {title}: not installed")
                    counts["skip"] += len(groups[group])
                    continue
                p = subprocess.run([sys.executable, __file__, "--group", group, "--url", url], env=env, capture_output=True,
                                   text=True)
                found = re.findall(r"^(ok  |FAIL|skip) ", p.stdout, re.M)
                for word in found:
                    counts[word.strip()] += 1
                if len(found) != len(groups[group]):  # it died on the way
                    counts["FAIL"] += len(groups[group]) - len(found)
                    print(p.stderr[-1500:])
                print(p.stdout.replace(f" {group}: ", f" {title}: "), end="", flush=True)
            if server and server.poll() is not None:
                counts["FAIL"] += 1
                print("FAIL the server ended by itself")
        finally:
            if server:
                server.terminate()
                server.wait(60)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    sys.exit(1 if counts["FAIL"] else 0)


if __name__ == "__main__":
    main()
