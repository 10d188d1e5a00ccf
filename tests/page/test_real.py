# SPDX-License-Identifier: Apache-2.0
"""The chat page and the program itself: `squish serve` on the shipped model, in a real browser. `make test-page`.

What the model says is its own business; tested is that page and server understand each other.
"""
import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

import browser
from browser import Browser, find_browser
from selenium.webdriver.common.keys import Keys


WEATHER = """[{"type": "function", "function": {"name": "get_weather", "description": "Get the current weather for a city.",
"parameters": {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}, "required": ["city"]}}}]"""


class Squish:
    """A server of our own; start and stop may be called again and again on the same port."""

    def __init__(self, program, model, *flags):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.command = [program, "serve", model, "--port", str(self.port), *flags]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process = None
        self.log = tempfile.TemporaryFile()

    def start(self):
        self.log.seek(0)
        self.log.truncate()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=self.log)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise AssertionError(f"{self.command} ended: {self.log.read().decode()}")
            try:
                urllib.request.urlopen(self.url + "livez", timeout=5).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"{self.command} does not answer")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


browser.WAIT_S = 90  # a model at work on a busy machine


def equal(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def get(url, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as r:
            return r.status, dict(r.headers), r.read()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read()


# ---- tests: each gets a browser on a fresh page and the server ---------------------------------------------------

def the_page_comes_with_a_strict_policy_and_a_tag(b, server):
    status, headers, body = get(server.url)
    equal(status, 200)
    policy = headers["Content-Security-Policy"]
    for part in ("default-src 'self'", "frame-ancestors 'none'", "object-src 'none'", "base-uri 'none'"):
        assert part in policy, policy
    assert "unsafe" not in policy, policy
    equal(headers["X-Content-Type-Options"], "nosniff")
    assert body.lstrip().startswith(b"<!doctype html>")
    equal(get(server.url, {"If-None-Match": headers["ETag"]})[0], 304)
    equal(get(server.url + "chat")[2], body)
    status, headers, _ = get(server.url + "page/app.js")
    equal((status, headers["Content-Type"]), (200, "text/javascript; charset=utf-8"))
    equal(get(server.url + "page/nothing.js")[0], 404)
    assert get(server.url + "page/..%2Fapi_int.h")[0] in (400, 404)


def a_question_is_answered_with_figures(b, server):
    assert b.say("What is the capital of Japan?"), "an empty answer"
    facts = " ".join(b.text(".assistant .facts"))
    for part in ("tokens/s", "first token", "prompt tokens cached"):
        assert part in facts, facts
    assert not b.visible(".problem.error"), b.text(".problem")


def a_second_turn_finds_the_first_in_the_cache(b, server):
    b.say("What is the capital of Japan? " * 12)
    b.say("And of France?")
    fact = next(f for f in b.text(".assistant:last-child .facts span") if "cached" in f)
    assert not fact.startswith("0 of"), fact


def the_meter_counts_with_the_tokenizer(b, server):
    b.put("#box", "one two three")
    b.until(lambda: b.visible("#meter"), "the meter shows")
    short = int(b.text("#meter-text")[0].split()[0].replace(",", ""))
    b.put("#box", "one two three " * 20)
    b.until(lambda: int(b.text("#meter-text")[0].split()[0].replace(",", "")) > short + 20, "more words, more tokens")
    assert "/" in b.text("#meter-text")[0], "the window is known"


def stop_and_regenerate_work(b, server):
    b.open_settings()
    b.put("#s-temperature", "1")
    b.close_dialog()
    b.start("Write a very long story about a lighthouse, with many details.")
    b.until(lambda: b.text(".assistant .body")[0] or not b.all(".running"), "text comes")
    b.keys(Keys.ESCAPE)
    b.answered()
    b.click("[aria-label='Regenerate answer']")
    b.until(lambda: b.all(".assistant .versions") or b.all(".running"))
    b.keys(Keys.ESCAPE)
    b.answered()
    equal(b.all(".assistant .versions")[0].get_attribute("aria-label"), "Version 2 of 2")


def json_mode_answers_in_json(b, server):
    b.open_settings()
    b.put("#s-format", "json")
    b.close_dialog()
    answer = b.say("Extract the name, age and city as JSON: Anna is 31 years old and lives in Paris.")
    equal(json.loads(answer), {"name": "Anna", "age": 31, "city": "Paris"})


def a_schema_is_kept_to_and_a_wrong_one_told(b, server):
    b.open_settings()
    b.put("#s-format", "schema")
    b.put("#s-schema", '{"enum": ["left", "right"]}')
    b.close_dialog()
    assert json.loads(b.say("Where?")) in ("left", "right")
    b.open_settings()
    b.put("#s-schema", '{"$ref": "http://a.b/c"}')
    b.close_dialog()
    b.say("Where?")
    assert "$ref" in b.text(".problem")[-1], b.text(".problem")


def a_tool_is_called_and_its_result_told(b, server):
    b.open_settings()
    b.put("#s-tools", WEATHER)
    b.put("#s-temperature", "0")
    b.close_dialog()
    b.say("What is the weather in Paris?")
    equal(b.text(".card summary code"), ["get_weather"])
    assert "Paris" in b.text(".card code")[1], b.text(".card")
    b.put(".result textarea", '{"temperature": 21, "condition": "sunny"}')
    b.click(".result button")
    b.until(lambda: any("21 degrees" in t for t in b.text(".assistant .body")), "an answer with the result")


def history_survives_a_restart_of_the_server(b, server):
    b.say("Remember this.")
    server.stop()
    b.start("Are you there?")
    b.until(lambda: "does not answer" in b.text("#banner")[0], "notice")
    server.start()
    b.until(lambda: "Connected again" in b.text("#banner")[0], "notice of return")
    b.click("article:last-child [aria-label='Regenerate answer']")
    assert b.answered()
    b.driver.refresh()
    b.until(lambda: b.text(".said") == ["Remember this.", "Are you there?"], "history is back")


def a_key_opens_the_server(b, server):
    b.click("#banner button")
    b.put("#s-key", "opens-it")
    b.until(lambda: b.js("return document.querySelector('#model').value"), "models are listed")
    b.close_dialog()
    assert b.say("Hello"), "an empty answer"


TESTS = [the_page_comes_with_a_strict_policy_and_a_tag, a_question_is_answered_with_figures,
         a_second_turn_finds_the_first_in_the_cache, the_meter_counts_with_the_tokenizer, stop_and_regenerate_work,
         json_mode_answers_in_json, a_schema_is_kept_to_and_a_wrong_one_told,
         a_tool_is_called_and_its_result_told, history_survives_a_restart_of_the_server]


def run(tests, b, server, counts):
    try:
        server.start()
        for test in tests:
            name = test.__name__.replace("_", " ")
            try:
                b.requests, b.console = [], []
                b.drain_logs()
                b.requests, b.console = [], []
                b.fresh(server.url)
                test(b, server)
                b.drain_logs()
                equal([r for r in b.requests if not r.startswith((server.url, "data:", "blob:", "chrome", "about:"))], [])
                equal([e["message"] for e in b.console if "Content Security Policy" in e["message"]], [])
                counts[0] += 1
                print(f"[       OK ] {name}", flush=True)
            except Exception as e:  # a test that broke is a failure with its reason, the others still run
                counts[1] += 1
                print(f"[  FAILED  ] {name}: {e}", flush=True)
                traceback.print_exc(limit=-3, file=sys.stdout)
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description="the chat page with the real server")
    parser.add_argument("--squish", required=True)
    parser.add_argument("--model", default="squish-tiny")
    parser.add_argument("--only", default="", help="tests whose name contains this")
    args = parser.parse_args()
    wanted = [t for t in TESTS + [a_key_opens_the_server] if args.only.replace(" ", "_") in t.__name__]
    if not find_browser():
        print("skipped: chromium and chromedriver are not on this machine")
        print(f"0 passed, 0 failed, {len(wanted)} skipped")
        return 0
    counts = [0, 0]
    program = os.path.abspath(args.squish)
    with tempfile.TemporaryDirectory() as downloads:
        b = Browser(downloads)
        try:
            plain = [t for t in wanted if t is not a_key_opens_the_server]
            keyed = [t for t in wanted if t is a_key_opens_the_server]
            if plain:
                run(plain, b, Squish(program, args.model), counts)
            if keyed:
                run(keyed, b, Squish(program, args.model, "--api-key", "opens-it"), counts)
        finally:
            b.close()
    print(f"{counts[0]} passed, {counts[1]} failed, 0 skipped")
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
