# SPDX-License-Identifier: Apache-2.0
"""The chat page in a real browser, against scripted answers. `make test-page`; --only WORD runs some.

Each function named a_... is one test; its name is a sentence. It gets a browser on a fresh page and the server's
state. Nothing here passes or fails by how long something took; waiting only catches hangs.
"""
import argparse
import json
import os
import sys
import tempfile
import time
import traceback

import fake_server
from browser import Browser, find_browser
from selenium.webdriver.common.keys import Keys

HERE = os.path.dirname(os.path.abspath(__file__))


def equal(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def contains(text, part):
    assert part in text, f"{part!r} is not in {text!r}"


def chats(state):
    return [r["body"] for r in state.log if r["path"] == "/v1/chat/completions"]


# ---- conversation ------------------------------------------------------------------------------------------------

def an_answer_is_shown_while_it_grows(b, state, url):
    b.start("/slow")
    first = b.until(lambda: next((t for t in b.text(".assistant .body") if "word1" in t), None))
    b.until(lambda: len(b.text(".assistant .body")[0]) > len(first), "text grows")
    assert b.all(".running"), "the answer ended before it was seen growing"
    b.keys(Keys.ESCAPE)


def a_request_carries_the_conversation_and_only_what_was_set(b, state, url):
    equal(b.say("one"), "You said: one")
    b.say("two")
    body = chats(state)[-1]
    equal([m["role"] for m in body["messages"]], ["user", "assistant", "user"])
    equal(sorted(body), ["messages", "model", "stream", "stream_options"])
    equal(body["stream_options"], {"include_usage": True})


def an_answer_tells_its_figures(b, state, url):
    b.say("one")
    b.say("two")
    facts = " ".join(b.text(".assistant:last-child .facts"))
    for part in ("tokens/s", "first token", "3 tokens", "prompt tokens cached"):
        contains(facts, part)


def stop_keeps_the_text_and_leaves_the_server(b, state, url):
    b.start("/slow")
    b.until(lambda: any("word2" in t for t in b.text(".assistant .body")))
    b.click("#send.stop")
    contains(b.answered(), "word1")
    contains(b.text(".problem")[0], "Stopped by you")
    b.until(lambda: state.cancelled == 1, "server sees the client leave")


def escape_stops_an_answer(b, state, url):
    b.start("/slow")
    b.until(lambda: any("word2" in t for t in b.text(".assistant .body")))
    b.keys(Keys.ESCAPE)
    b.answered()
    contains(b.text(".problem")[0], "Stopped by you")


def regenerating_adds_a_version(b, state, url):
    b.say("hello")
    b.click("[aria-label='Regenerate answer']")
    b.answered()
    equal(b.all(".assistant .versions")[0].get_attribute("aria-label"), "Version 2 of 2")
    b.click(".assistant [aria-label='Previous version']")
    equal(b.all(".assistant .versions")[0].get_attribute("aria-label"), "Version 1 of 2")
    equal(len(chats(state)), 2)


def editing_branches_and_keeps_the_old_branch(b, state, url):
    b.say("first")
    b.say("second")
    b.js("document.querySelector('.user [aria-label=\"Edit message\"]').click()")
    b.put(".editor textarea", "changed")
    b.click(".editor .primary")
    equal(b.answered(), "You said: changed")
    equal(b.text(".said"), ["changed"])
    equal([m["content"] for m in chats(state)[-1]["messages"]], ["changed"])
    b.js("document.querySelector('.user [aria-label=\"Previous version\"]').click()")
    equal(b.text(".said"), ["first", "second"])


def reloading_keeps_everything(b, state, url):
    b.say("remember me")
    b.click("[aria-label='Regenerate answer']")
    b.answered()
    time.sleep(0.1)
    b.driver.refresh()
    b.until(lambda: b.text(".said") == ["remember me"], "history is back")
    equal(b.text(".assistant .body")[0].strip(), "You said: remember me")
    equal(b.all(".assistant .versions")[0].get_attribute("aria-label"), "Version 2 of 2")
    equal(b.text("#list .open"), ["remember me"])


def an_answer_cut_by_a_reload_says_so(b, state, url):
    b.start("/slow")
    b.until(lambda: any("word9" in t for t in b.text(".assistant .body")))
    time.sleep(1.2)  # it is written once a second
    b.driver.refresh()
    b.until(lambda: b.text(".problem"), "history is back")
    contains(b.text(".assistant .body")[0], "word1")
    contains(b.text(".problem")[0], "Interrupted")


def two_conversations_are_answered_at_once(b, state, url):
    b.start("/slow")
    b.until(lambda: any("word1" in t for t in b.text(".assistant .body")))
    b.chord(Keys.ALT, "n")
    equal(b.say("meanwhile"), "You said: meanwhile")
    b.js("[...document.querySelectorAll('#list .open')].find(e => e.title === '/slow').click()")
    assert b.all(".running"), "the first answer goes on"
    b.keys(Keys.ESCAPE)
    contains(b.answered(), "word1")


def another_tab_sees_what_was_said(b, state, url):
    b.say("from the first tab")
    first = b.driver.current_window_handle
    address = b.driver.current_url
    b.driver.switch_to.new_window("tab")
    b.size(1280, 800)
    b.open(address)
    b.say("from the second tab")
    b.driver.close()
    b.driver.switch_to.window(first)
    b.until(lambda: b.text(".said") == ["from the first tab", "from the second tab"], "both are here")
    equal(b.text("#list .open"), ["from the first tab"])


def the_back_button_goes_to_the_conversation_before(b, state, url):
    b.say("one")
    b.chord(Keys.ALT, "n")
    b.say("two")
    b.driver.back()
    b.driver.back()
    b.until(lambda: b.text(".said") == ["one"], "the first one again")


def code_points_cut_between_packets_stay_whole(b, state, url):
    equal(b.say("/utf8"), "Grüße, 世界 👩‍🔬 ok" * 3)


# ---- what an answer may contain --------------------------------------------------------------------------------------

def markdown_becomes_tables_code_and_links(b, state, url):
    b.say("/rich")
    equal(len(b.all(".assistant table tbody tr")), 3)
    assert b.all(".assistant .code .hljs-keyword"), "code is highlighted"
    equal(b.all(".assistant a")[0].get_attribute("rel"), "noopener noreferrer nofollow")
    equal(b.js("return getComputedStyle(document.querySelector('td:nth-child(2)')).textAlign"), "right")
    b.click(".code-copy")
    b.until(lambda: b.text(".copy-label")[0] != "Copy", "the button answers")


def finished_blocks_keep_their_elements(b, state, url):
    b.start("/rich")
    b.until(lambda: b.all(".assistant h2 ~ *, .assistant .block:nth-child(2)"))
    b.js("document.querySelector('.assistant .block').dataset.mark = 'same'")
    b.answered()
    equal(b.js("return document.querySelector('.assistant .block').dataset.mark"), "same")


def thinking_folds_away(b, state, url):
    b.say("/think")
    contains(b.text(".thought")[0], "First I look at the question.")
    equal(b.all(".thinking")[0].get_attribute("open"), None)
    contains(b.text(".thinking summary")[0], "Thought for")
    equal(b.text(".assistant strong"), ["42"])
    b.click(".thinking summary")
    b.say("go on")
    assert b.all(".thinking")[0].get_attribute("open"), "what the reader opened stays open"


def thinking_inside_the_text_is_taken_apart(b, state, url):
    equal(b.say("/tag"), "Done thinking.")
    equal(b.text(".thought"), ["Hm, let me see."])


def a_tool_call_is_answered_by_the_reader(b, state, url):
    b.open_settings()
    b.put("#s-tools", '[{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]')
    b.close_dialog()
    b.say("/tool")
    equal(b.text(".card summary code"), ["get_weather"])
    contains(b.text(".card code")[1], '"city": "Tokyo"')
    b.put(".result textarea", "rain, 12 degrees")
    b.click(".result button")
    b.until(lambda: any("With the result" in t for t in b.text(".assistant .body")))
    equal(b.answered(), "With the result: rain, 12 degrees")
    body = chats(state)[-1]
    equal(body["tools"][0]["function"]["name"], "get_weather")
    equal(body["messages"][-2]["tool_calls"][0]["function"]["arguments"], '{"city": "Tokyo", "days": 3}')
    equal(body["messages"][-1], {"role": "tool", "tool_call_id": "call_1", "content": "rain, 12 degrees"})


# ---- failures --------------------------------------------------------------------------------------------------------

def a_refused_format_is_told_kindly(b, state, url):
    b.open_settings()
    b.put("#s-format", "json")
    b.close_dialog()
    b.say("give me JSON")
    equal(chats(state)[-1]["response_format"], {"type": "json_object"})
    contains(b.text(".problem")[0], 'Set "Answer format" to Text')
    contains(b.text(".problem")[0], "no grammar engine")


def a_schema_is_sent_and_a_broken_one_is_not(b, state, url):
    b.open_settings()
    b.put("#s-format", "schema")
    b.put("#s-schema", '{"type": "object"')
    assert b.text("#p-schema")[0], "the field says what is wrong"
    b.close_dialog()
    b.say("one")
    contains(b.text(".problem")[0], "not valid JSON")
    equal(len(chats(state)), 0)
    b.open_settings()
    b.put("#s-schema", '{"type": "object"}')
    b.close_dialog()
    b.say("two")
    equal(chats(state)[-1]["response_format"]["json_schema"]["schema"], {"type": "object"})


def a_full_window_and_a_busy_server_are_told(b, state, url):
    b.say("/full")
    contains(b.text(".problem")[0], "no longer fits")
    contains(b.text(".problem")[0], "5000 tokens")
    b.say("/busy")
    contains(b.text(".problem")[1], "try again in 3 s")


def a_cut_answer_is_no_whole_one(b, state, url):
    b.start("/cut off here, please")
    b.until(lambda: "You said" in b.text(".assistant .body")[0], "text comes")
    state.cut.set()
    contains(b.answered(), "You said")
    contains(b.text(".problem")[0], "before the answer was whole")


def an_error_in_the_stream_is_text(b, state, url):
    b.say("/error")
    contains(b.text(".problem")[0], "the engine gave up <b>here</b>")


def a_server_that_went_away_is_noticed_and_its_return_too(b, state, url):
    state.down = True
    b.say("anyone?")
    b.until(lambda: "does not answer" in b.text("#banner")[0], "notice")
    equal(b.all("#status")[0].get_attribute("data-status"), "unreachable")
    state.down = False
    b.until(lambda: "Connected again" in b.text("#banner")[0], "notice of return")
    b.click("[aria-label='Regenerate answer']")
    equal(b.answered(), "You said: anyone?")


def a_loading_server_is_told(b, state, url):
    state.health = "loading"
    b.driver.refresh()
    b.until(lambda: "loading the model (42 %)" in b.text("#banner")[0], "notice")


def a_missing_key_is_asked_for_and_sent(b, state, url):
    state.key = "secret-key"
    b.driver.refresh()
    b.click("#banner button")
    b.put("#s-key", "secret-key")
    b.until(lambda: b.js("return document.querySelector('#model').value"), "models are listed")
    b.close_dialog()
    equal(b.say("hello"), "You said: hello")
    equal(state.log[-1]["key"], "Bearer secret-key")
    assert "secret-key" not in b.driver.current_url


# ---- settings --------------------------------------------------------------------------------------------------------

def sampler_fields_are_sent_as_numbers(b, state, url):
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
              "presence_penalty": -0.5, "frequency_penalty": 0.25, "max_tokens": 64, "seed": 7}
    b.open_settings()
    for name, value in wanted.items():
        b.put(f"#s-{name}", str(value))
    b.close_dialog()
    b.say("hello")
    body = chats(state)[-1]
    equal({name: body[name] for name in wanted}, wanted)
    b.driver.refresh()
    b.until(lambda: b.js("return document.querySelector('#s-seed').value") == "7", "settings survive a reload")
    b.open_settings()
    b.click("#sampler-reset")
    equal(b.js("return document.querySelector('#s-seed').value"), "")


def a_value_out_of_range_is_named_and_not_sent(b, state, url):
    b.open_settings()
    b.put("#s-top_p", "1.5")
    contains(b.text("#p-top_p")[0], "not between 0 and 1")
    b.close_dialog()
    b.say("hello")
    contains(b.text(".problem")[0], "Top-p")
    equal(len(chats(state)), 0)


def a_system_prompt_leads_the_messages(b, state, url):
    b.open_settings()
    b.put("#s-system", "Answer briefly.")
    b.close_dialog()
    b.say("hello")
    equal(chats(state)[-1]["messages"][0], {"role": "system", "content": "Answer briefly."})


def another_model_is_chosen(b, state, url):
    b.put("#model", "squish-tiny")
    b.say("hello")
    equal(chats(state)[-1]["model"], "squish-tiny")
    contains(b.text(".by")[0], "squish-tiny")
    b.until(lambda: "/ 512" in b.text("#meter-text")[0], "its window is the meter's")


def a_model_is_unloaded_and_loaded(b, state, url):
    b.open_settings()
    b.click("#model-load")
    b.until(lambda: b.text("#model-load")[0] == "Load into memory", "it is gone")
    equal(state.log[-1]["body"]["keep_alive"], 0)
    b.click("#model-load")
    b.until(lambda: b.text("#model-load")[0] == "Unload from memory", "it is back")


def the_meter_shows_what_the_server_counted(b, state, url):
    b.put("#box", "one two three")
    b.until(lambda: b.text("#meter-text")[0] == "7 / 4,096 tokens", "three words and four for the frame")


# ---- files and the list ----------------------------------------------------------------------------------------------

def text_files_are_attached_and_others_refused(b, state, url):
    with tempfile.TemporaryDirectory() as folder:
        good, bad = os.path.join(folder, "notes ```.md"), os.path.join(folder, "picture.png")
        with open(good, "w", encoding="utf-8") as f:
            f.write("# Notes\n```\ncode\n```\n")
        with open(bad, "wb") as f:
            f.write(b"\x89PNG\0\0")
        b.all("#file")[0].send_keys(f"{good}\n{bad}")
        b.until(lambda: "not a text file" in " ".join(b.text(".toast")), "the picture is refused")
        equal(b.text("#files span"), ["notes ```.md"])
        b.say("what is in it?")
    sent = chats(state)[-1]["messages"][0]["content"]
    contains(sent, "````\n# Notes\n```\ncode\n```\n\n````")
    contains(sent, "what is in it?")


def a_dropped_file_is_attached(b, state, url):
    b.js("""const d = new DataTransfer(); d.items.add(new File(['dropped text'], 'drop.txt'));
         document.body.dispatchEvent(new DragEvent('dragenter', {bubbles: true, dataTransfer: d}));
         document.body.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: d}));""")
    b.until(lambda: b.text("#files span") == ["drop.txt"], "the file is listed")
    b.click("#files button")
    equal(b.text("#files span"), [])


def conversations_are_searched_renamed_deleted_and_brought_back(b, state, url):
    for text in ("apples", "pears"):
        b.chord(Keys.ALT, "n")
        b.say(text)
    b.put("#search", "said: APP")
    b.until(lambda: b.text("#list .open") == ["apples"], "found by the words of an answer")
    b.js("document.querySelector('[aria-label=\"Rename apples\"]').click()")
    b.until(lambda: b.js("return document.activeElement.className") == "rename", "the title can be typed over")
    b.keys("Fruit", Keys.ENTER)
    equal(b.text(".said"), ["pears"])
    b.put("#search", "")
    b.until(lambda: b.text("#list .open") == ["pears", "Fruit"], "renamed")
    equal(b.text(".said"), ["pears"])
    b.js("document.querySelector('[aria-label=\"Delete Fruit\"]').click()")
    b.until(lambda: b.text("#list .open") == ["pears"], "deleted")
    b.click(".toast .link-button")
    b.until(lambda: b.text("#list .open") == ["pears", "Fruit"], "undone")
    b.driver.refresh()
    b.until(lambda: b.text("#list .open") == ["pears", "Fruit"], "kept")


def an_export_is_imported_again(b, state, url):
    b.say("/think about exports")
    with tempfile.TemporaryDirectory() as folder:
        b.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": folder})
        b.open_settings()
        for kind in ("json", "markdown"):
            b.js(f"document.querySelector('#export-{kind}').click()")
        b.close_dialog()
        names = b.until(lambda: [n for n in sorted(os.listdir(folder)) if n.endswith((".json", ".md"))][:2:1] if len(
            [n for n in os.listdir(folder) if n.endswith((".json", ".md"))]) == 2 else None, "two files")
        with open(os.path.join(folder, names[1]), encoding="utf-8") as f:
            contains(f.read(), "> First I look at the question.")
        b.fresh(url)
        b.all("#import-file")[0].send_keys(os.path.join(folder, names[0]))
        b.until(lambda: b.text(".said") == ["/think about exports"], "it is shown")
    contains(b.text(".assistant .body")[0], "The answer is 42.")


def damaged_imports_are_refused(b, state, url):
    node = {"role": "user", "content": "x", "seq": 0}
    cases = {
        "not JSON": "{", "not an export": '{"a": 1}',
        "each other's parents": {"nodes": {"a": {**node, "id": "a", "parent": "b"}, "b": {**node, "id": "b", "parent": "a"}}},
        "no parent": {"nodes": {"a": {**node, "id": "a", "parent": "gone"}}},
        "has the role": {"nodes": {"a": {**node, "id": "a", "role": "root"}}},
    }
    for wanted, content in cases.items():
        if isinstance(content, dict):
            content = json.dumps({"format": "squish-chat", "version": 1, "conversations": [content]})
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            f.write(content)
            f.flush()
            b.all("#import-file")[0].send_keys(f.name)
            b.until(lambda: any(wanted in t for t in b.text(".toast")), wanted)
    equal(b.text("#list .open"), [])


# ---- hostile output --------------------------------------------------------------------------------------------------

INERT = """
    const bad = [];
    const root = document.querySelector('#messages');
    const forbidden = 'script,iframe,object,embed,link,style,meta,base,form:not(.result),img,svg:not(.icon),math,video,audio,' +
        'input,template,marquee,body,[id],[name],[style],[srcdoc],[src],[ping]';
    for (const e of root.querySelectorAll(forbidden)) bad.push(e.outerHTML.slice(0, 200));
    for (const e of document.querySelectorAll('*'))
        for (const a of e.attributes) if (/^on/i.test(a.name)) bad.push(e.outerHTML.slice(0, 200));
    for (const a of root.querySelectorAll('a')) {
        if (a.hasAttribute('href') && !/^(https?|mailto):$/.test(a.protocol)) bad.push(a.outerHTML);
        if (a.hasAttribute('href') && (!/noopener/.test(a.rel) || a.target !== '_blank')) bad.push(a.outerHTML);
    }
    if (window.pwned) bad.push('code ran: ' + window.pwned);
    return bad;"""


def watch(b):
    """Whatever runs calls alert; here it leaves a mark instead of a window that blocks the test."""
    b.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
        "source": "window.alert = window.prompt = window.confirm = (x) => { window.pwned = String(x); };"})


def inert(b, what):
    found = b.js(INERT)
    assert not found, f"{what!r} left {found}"
    b.js("for (const e of document.querySelectorAll('#messages .body *, #messages .thought')) "
         "for (const t of ['click', 'mouseover', 'pointerenter', 'focus', 'error', 'load', 'toggle']) "
         "if (!e.closest('button, a')) e.dispatchEvent(new Event(t))")
    assert not b.js("return window.pwned"), f"{what!r}: code ran"


def stream_hostile(b):
    """Each string as an answer that grows piece by piece, so that its halves are rendered too."""
    for i, text in enumerate(fake_server.HOSTILE):
        b.say(f"/hostile {i}")
        inert(b, text)
        if i % 8 == 7:
            b.chord(Keys.ALT, "n")


def import_hostile(b):
    """All strings at once, as questions, answers and thoughts of an imported conversation."""
    nodes = {}
    for i, text in enumerate(fake_server.HOSTILE):
        parent = f"a{i - 1}" if i else None
        nodes[f"q{i}"] = {"id": f"q{i}", "parent": parent, "role": "user", "content": text, "seq": 2 * i}
        nodes[f"a{i}"] = {"id": f"a{i}", "parent": f"q{i}", "role": "assistant", "content": text, "reasoning": text,
                          "seq": 2 * i + 1}
    last = f"a{len(fake_server.HOSTILE) - 1}"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"format": "squish-chat", "version": 1,
                   "conversations": [{"title": "hostile", "leaf": last, "nodes": nodes}]}, f)
        f.flush()
        b.all("#import-file")[0].send_keys(f.name)
        b.until(lambda: len(b.all(".assistant")) == len(fake_server.HOSTILE), "all are shown")
    inert(b, "the whole list")


def nothing_left_the_server(b, url):
    b.drain_logs()
    elsewhere = [r for r in b.requests if not r.startswith((url, "data:", "blob:", "chrome", "about:"))]
    equal(elsewhere, [])


def hostile_answers_are_inert(b, state, url):
    assert len(fake_server.HOSTILE) >= 40
    import_hostile(b)
    nothing_left_the_server(b, url)
    csp = [e["message"] for e in b.console if "Content Security Policy" in e["message"]]
    equal(csp, [])  # the policy had nothing to stop


def hostile_answers_are_inert_without_the_policy(b, state, url):
    stream_hostile(b)
    import_hostile(b)
    nothing_left_the_server(b, url)


def hostile_answers_are_inert_without_the_libraries(b, state, url):
    equal(b.js("return typeof window.marked"), "undefined")
    import_hostile(b)
    nothing_left_the_server(b, url)
    b.say("/rich")
    contains(b.text(".code code")[-1], "bucket_of")


def hostile_names_are_text_everywhere(b, state, url):
    bad = "<img src=x onerror=alert(1)>"
    b.say(bad)
    equal(b.text("#list .open")[0], bad)
    b.say("/hostiletool")
    equal(b.text(".card summary code"), [bad])
    conv = {"title": bad, "system": bad, "leaf": "b", "nodes": {
        "a": {"id": "a", "role": "user", "content": bad, "files": [{"name": bad, "text": bad}], "seq": 0},
        "b": {"id": "b", "parent": "a", "role": "assistant", "content": bad, "reasoning": bad, "model": bad, "error": bad,
              "calls": [{"id": bad, "name": bad, "arguments": bad}], "seq": 1}}}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"format": "squish-chat", "version": 1, "conversations": [conv]}, f)
        f.flush()
        b.all("#import-file")[0].send_keys(f.name)
        b.until(lambda: b.text(".by") == [bad], "it is shown")
    equal(b.js(INERT), [])
    b.until(lambda: bad in b.driver.title, "title")


# ---- reach -----------------------------------------------------------------------------------------------------------

def the_keyboard_is_enough(b, state, url):
    equal(b.js("return document.activeElement.id"), "box")
    b.keys("typed", Keys.ENTER)
    equal(b.answered(), "You said: typed")
    b.keys(Keys.ARROW_UP)
    equal(b.js("return document.activeElement.value"), "typed")
    b.keys(Keys.ESCAPE)
    b.chord(Keys.ALT, "r")
    b.until(lambda: len(chats(state)) == 2, "regenerated")
    b.answered()
    b.chord(Keys.CONTROL, "k")
    equal(b.js("return document.activeElement.id"), "search")
    b.chord(Keys.ALT, "m")
    equal(b.js("return document.activeElement.id"), "box")
    b.chord(Keys.ALT, "s")
    assert b.all("#settings[open]")
    b.close_dialog()
    b.js("document.activeElement.blur()")
    b.keys("?")
    assert b.all("#help[open]")
    contains(" ".join(b.text("#help-keys kbd")), "Enter")
    b.close_dialog()
    b.chord(Keys.ALT, "b")
    assert not b.visible("#sidebar")
    b.chord(Keys.ALT, "b")
    b.chord(Keys.ALT, "n")
    equal(b.text(".said"), [])


def a_screen_reader_hears_the_answer_and_every_control_has_a_name(b, state, url):
    b.say("/think")
    contains(" ".join(b.text("#live p")), "The answer is **42**.")
    equal(b.all("#live")[0].get_attribute("aria-live"), "polite")
    b.open_settings()
    nameless = b.js("""return [...document.querySelectorAll('button, input:not([type=file]), select, textarea, a, summary')]
        .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('title') || e.textContent.trim() || e.labels?.length))
        .map(e => e.outerHTML)""")
    equal(nameless, [])
    for landmark in ("main", "nav[aria-label]", "header", "html[lang]", "[role=status]"):
        assert b.all(landmark), landmark
    tree = b.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {n["role"]["value"] for n in tree if not n.get("ignored") and "role" in n}
    assert "dialog" in roles, roles


CONTRAST = """
    const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] ?? 1]; };
    const light = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
        return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
    const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c[3] === 1) return c; } return [255, 255, 255]; };
    const low = [];
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.checkVisibility({opacityProperty: true}) || e.closest(':disabled, .visually-hidden, .skip, option')) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05);
        if (ratio < 4.5) low.push(`${e.tagName}.${e.className} "${e.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
    }
    return low;"""


def text_has_contrast_in_light_and_dark(b, state, url):
    b.say("/think")
    b.say("/rich")
    b.say("/tool")
    b.say("/error")
    for theme in ("light", "dark"):
        b.js(f"window.squishTheme.set('{theme}')")
        equal(b.js(CONTRAST), [])
        b.open_settings()
        equal(b.js(CONTRAST), [])
        b.close_dialog()


def dark_follows_the_system_and_the_button(b, state, url):
    ground = "return getComputedStyle(document.body).backgroundColor"
    b.prefer("dark")
    b.until(lambda: b.js(ground) == "rgb(21, 24, 22)", "dark")
    b.click("#theme")
    equal(b.js(ground), "rgb(252, 252, 250)")
    b.driver.refresh()
    equal(b.js(ground), "rgb(252, 252, 250)")
    b.prefer("light")


def a_phone_shows_everything_without_scrolling_sideways(b, state, url):
    b.size(360, 740, mobile=True)
    b.driver.refresh()
    b.say("/rich")
    b.say("averylongwordwithoutanyspace" * 10)
    wide = b.js("return [document.documentElement.scrollWidth, document.querySelector('#log').scrollWidth]")
    assert max(wide) <= 360, wide
    assert not b.visible("#search")
    b.click("#menu")
    b.until(lambda: b.visible("#search"), "the list slides in")
    b.click("#list .open")
    b.until(lambda: not b.visible("#search"), "and away")
    b.open_settings()
    equal(b.js("const r = document.querySelector('#settings').getBoundingClientRect(); return [r.left, r.right]"), [0, 360])
    small = b.js("""return [...document.querySelectorAll('header button, #composer button, .tools button')]
        .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect()).filter(r => r.width < 36 || r.height < 36).length""")
    equal(small, 0)
    b.close_dialog()
    b.size(1280, 800)


def reading_above_is_not_disturbed(b, state, url):
    b.say("/long")
    b.js("document.querySelector('#log').scrollTop = 0")
    b.until(lambda: b.visible("#to-end"), "the way back is offered")
    b.click("[aria-label='Copy message']")
    equal(b.js("return document.querySelector('#log').scrollTop"), 0)
    b.click("#to-end")
    b.until(lambda: not b.visible("#to-end"), "at the end")


def our_files_are_small_and_hold_nothing_inline(b, state, url):
    folder = os.path.join(HERE, "..", "..", "src", "api", "page")
    files = {n: open(os.path.join(folder, n), encoding="utf-8").read() for n in os.listdir(folder)}
    assert sum(len(t.encode()) for t in files.values()) <= 200000
    html = files["index.html"]
    for part in ("style=", "onclick", "<style", "javascript:", "http://", "https://"):
        assert part not in html, part
    for name, text in files.items():
        assert "innerHTML" not in text.replace("assigns innerHTML", ""), f"{name} uses innerHTML"
        assert "eval(" not in text and "Function(" not in text, name


# ---- running ---------------------------------------------------------------------------------------------------------

OPTIONS = {
    hostile_answers_are_inert_without_the_policy: {"no_csp": True},
    hostile_answers_are_inert_without_the_libraries: {"no_csp": True, "no_libs": True},
    hostile_names_are_text_everywhere: {"no_csp": True},
}


def all_tests():
    skip = {"equal", "contains", "chats", "watch", "inert", "stream_hostile", "import_hostile",
            "nothing_left_the_server", "all_tests", "run_one", "main"}
    return [f for n, f in globals().items() if callable(f) and getattr(f, "__module__", "") == "__main__" and n not in skip]


def run_one(browser, test, page):
    server, state = fake_server.start(page, **OPTIONS.get(test, {}))
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        browser.driver.get("about:blank")  # the page of the test before may still be asking its own server
        browser.drain_logs()
        browser.requests, browser.console = [], []
        browser.fresh(url)
        test(browser, state, url)
        browser.drain_logs()
        severe = [e["message"] for e in browser.console if e["level"] == "SEVERE" and "status of 4" not in e["message"]
                  and "status of 503" not in e["message"] and "net::" not in e["message"]]
        equal(severe, [])
    finally:
        server.shutdown()


def main():
    parser = argparse.ArgumentParser(description="tests of the chat page")
    parser.add_argument("--page", required=True)
    parser.add_argument("--only", default="", help="tests whose name contains this")
    args = parser.parse_args()
    tests = [t for t in all_tests() if args.only.replace(" ", "_") in t.__name__]
    if not find_browser():
        print("skipped: chromium and chromedriver are not on this machine")
        print(f"0 passed, 0 failed, {len(tests)} skipped")
        return 0
    passed = failed = 0
    with tempfile.TemporaryDirectory() as downloads:
        browser = Browser(downloads)
        watch(browser)
        try:
            for test in tests:
                try:
                    run_one(browser, test, args.page)
                    passed += 1
                    print(f"[       OK ] {test.__name__.replace('_', ' ')}", flush=True)
                except Exception as e:  # a test that broke is a failure with its reason, the others still run
                    failed += 1
                    print(f"[  FAILED  ] {test.__name__.replace('_', ' ')}: {e}", flush=True)
                    traceback.print_exc(limit=-3, file=sys.stdout)
                    browser.size(1280, 800)
        finally:
            browser.close()
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
