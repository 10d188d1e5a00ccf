#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the targets of the server into results/, and make the pages anew.

    scripts/targets_server.py [--build build] [--part NAME,...] [--shape-model DIR] [--minutes N] [--pause S] [--second] [--print]

Parts: start, stream, clients, gaps, prefix, disconnects, connections, attacks, soak (all of them unless named). The server runs in one
process, the clients in another. Rows of the 1.5B shape need a folder made by scripts/make_shape.py with --random and
--tokenizer; --shape-model names it, else it is made in a folder that goes away. --print measures and writes nothing.

When a token left: with `x_squish_token_times` each frame says when its token was drawn, on the clock that all processes
of a machine share. Arrival in the client less that is what drawing, printing, the way through the socket and waking up
the client take together; it can only be more than what the server alone takes."""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import server_client as sc
import targets
from server_client import Server, Talk, completion, percentile, post, talk

ROOT = targets.ROOT
TINY = ROOT / "models" / "squish-tiny"
TINY_NAME, SHAPE_NAME = "squish-tiny", "1.5b shape"
QUESTION = [{"role": "user", "content": "What is the capital of Japan?"}]
DISCONNECTS = 1000


def row(*of, **more):
    r = targets.row(*of, **more)
    print(f"{'met' if r['ok'] else 'NOT MET':8}{r['name']}: {r['value']} (bar {r['bar']})", flush=True)
    return r


def ids(rng, n):
    return [rng.randrange(300, 12000) for _ in range(n)]


def command(part):
    return f"make bench-server PART={part}"


def models(o):
    return [m for m in ((TINY_NAME, TINY), (SHAPE_NAME, o.shape_model)) if m[0].startswith(tuple(o.models))]


# ---- start ----------------------------------------------------------------------------------------------------------

def start(o):
    rows = []
    for name, model in models(o):
        bar, ms = 50 if model == TINY else 100, []
        for _ in range(12):
            with Server(o.build, model) as s:
                ms.append(s.start_ms)
        ms = ms[1:]  # the first one may have read the file
        rows.append(row(f"server, {name}: start of the program to /health 200, warm", f"<= {bar} ms",
                        f"median {statistics.median(ms):.1f} ms (least {min(ms):.1f}, most {max(ms):.1f})",
                        statistics.median(ms) <= bar, command("start")))
    return rows


# ---- streams --------------------------------------------------------------------------------------------------------

def lags(talks):
    return [(t - drawn) / 1e6 for x in talks for t, _, drawn in x.tokens() if drawn]


def stream(o):
    rows, rng = [], random.Random(1)
    for name, model in models(o):
        with Server(o.build, model) as s:
            n = 400 if model == TINY else 60
            alone = lags([talk(s.port, completion(ids(rng, 16), n, x_squish_token_times=True)) for _ in range(4)])
            eight = lags(sc.run([Talk(s.port, completion(ids(rng, 16), n, x_squish_token_times=True)) for _ in range(8)]))
            for who, v in (("one client", alone), ("8 clients", eight)):
                rows.append(row(f"server, {name}: from drawing a token to its frame read by the client, {who}", "p99 <= 5 ms",
                                f"p50 {percentile(v, 50):.2f} ms, p99 {percentile(v, 99):.2f}, most {max(v):.2f} ({len(v)} tokens)",
                                percentile(v, 99) <= 5, command("stream")))
            if model == TINY:
                rows.append(joined(s, rng))
    proof = targets.passes(o.build, "prop/test_answer_text",
                           "server: 10,000 random answers of bytes and stop strings: joined events against a plain search", "equal")
    rows.append(row(**{k: proof[k] for k in ("name", "bar", "value", "ok", "command")}))
    return rows


def joined(s, rng):
    """Streams joined against whole answers."""
    wrong, n = 0, 200
    for i in range(n):
        chat = i % 2
        stops = ["".join(rng.choice("aeinst .") for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(0, 4))]
        common = {"temperature": 0, "max_tokens": 40, **({"stop": stops} if stops else {})}
        words = " ".join(rng.choice(("Tokyo", "is", "the", "ü", "日本", "why", "\n", "🙂", "code")) for _ in range(rng.randint(1, 12)))
        ask = {"messages": [{"role": "user", "content": words}]} if chat else {"prompt": words}
        path = "/v1/chat/completions" if chat else "/v1/completions"
        whole, streamed = (talk(s.port, post(path, {**ask, **common, "stream": st})) for st in (False, True))
        wrong += whole.text() != streamed.text()
    return row("server, squish-tiny: streams joined against whole answers, temperature 0", "equal",
               f"{n - wrong} of {n} equal", wrong == 0, command("stream"))


# ---- clients --------------------------------------------------------------------------------------------------------

def rate(talks):
    """Tokens a second of all, while all of them stream."""
    frames = [[t for t, _, _ in x.tokens()] for x in talks]
    begin, end = max(f[0] for f in frames), min(f[-1] for f in frames)
    n = sum(x.usage()["completion_tokens"] * sum(begin < t <= end for t in f) / len(f) for x, f in zip(talks, frames))
    return n * 1e9 / (end - begin)


def bench_batch(o, model):
    done = subprocess.run([f"{o.build}/squish", "bench", "batch", str(model), "--runs", "2", "--json", "--quiet"], text=True,
                          capture_output=True, check=True)
    return next(r["value"] for r in json.loads(done.stdout)["rows"] if r["name"] == "batch 8")


def clients(o):
    rows = []
    for name, model in models(o):
        rng = random.Random(2)
        with Server(o.build, model) as s:
            rows += [throughput(o, s, name, model, rng), *company(s, name, model, rng)]
    return rows


def beside_a_prompt(o):
    rows = []
    for name, model in models(o):
        with Server(o.build, model, "--spec", "off") as s:  # tokens that were guessed come together: no time between them
            rows += prefilling(s, name, model, random.Random(8))
    return rows


def throughput(o, s, name, model, rng):
    served, bench = [], []
    n = 128 if model == TINY else 48
    for _ in range(3 if model == TINY else 2):
        bench.append(bench_batch(o, model))
        for _ in range(2):
            prompts = [ids(rng, 128) for _ in range(8)]
            for p in prompts:  # as the bench does it: prompts are there already
                talk(s.port, completion(p, 1))
            served.append(rate(sc.run([Talk(s.port, completion(p, n)) for p in prompts])))
    a, b = statistics.median(served), statistics.median(bench)
    return row(f"server, {name}: 8 streams, tokens a second together", ">= 0.9 x squish bench batch, in turn",
               f"{a:.0f} tok/s ({min(served):.0f} to {max(served):.0f}), bench {b:.0f}: {a / b:.2f} x", a >= 0.9 * b,
               command("clients"), figures={"ratio": a / b})


def company(s, name, model, rng):
    """Answers among others against the same alone."""
    rows = []
    for temperature in (0, 0.8):
        asks = [completion(ids(rng, rng.randint(5, 200)), 64 if model == TINY else 32, temperature=temperature, seed=i)
                for i in range(8)]
        alone = [talk(s.port, a).text() for a in asks]
        again = [x.text() for x in sc.run([Talk(s.port, a) for a in asks])]
        same = sum(a == b for a, b in zip(alone, again))
        rows.append(row(f"server, {name}: 8 clients at once against alone, temperature {temperature:g}{', seeds' if temperature else ''}",
                        "equal", f"{same} of 8 equal", same == 8, command("clients")))
    return rows


def gaps(talk):
    """(when, milliseconds since the token before) of all tokens but the first. Tokens without text count: of every token
    there is a frame where its time was asked for."""
    t = [a for a, _, _ in talk.tokens()]
    return [(b, (b - a) / 1e6) for a, b in zip(t, t[1:])]


def prefilling(s, name, model, rng):
    """Gaps between tokens while a prompt of 4,000 tokens is read, against those of the same streams at the same places
    without it: a text that grows makes its steps longer by itself."""
    rows, n = [], 3500 if model == TINY else 700
    for n_streams in (1, 7):
        asks = [completion(ids(rng, 16), n, x_squish_token_times=True) for _ in range(n_streams)]
        without = [gaps(x) for x in sc.run([Talk(s.port, a) for a in asks])]
        prompt = Talk(s.port, completion(ids(rng, 4000), 1), after=0.5 if model == TINY else 3.0)
        talks = sc.run([*(Talk(s.port, a) for a in asks), prompt], until=lambda p=prompt: p.over)[:-1]
        end = prompt.pieces[-1][0]
        busy, same = [], []
        for x, solo in zip(talks, without):
            at = [(i, ms) for i, (t, ms) in enumerate(gaps(x)) if prompt.t_sent <= t <= end]
            busy += [ms for _, ms in at]
            same += [solo[i][1] for i, _ in at]
        p99, alone = percentile(busy, 99), percentile(same, 50)
        rows.append(row(f"server, {name}: {n_streams} stream{'s' if n_streams > 1 else ''} while a prompt of 4,000 tokens is read: "
                        "time between tokens, without guesses", "p99 <= 2.5 x p50 of the same tokens without the prompt",
                        f"p99 {p99:.1f} ms, without p50 {alone:.1f}: {p99 / alone:.2f} x (p99 without it {percentile(same, 99) / alone:.2f} x); "
                        f"p50 {percentile(busy, 50):.1f}, prompt {(end - prompt.t_sent) / 1e9:.1f} s",
                        p99 <= 2.5 * alone, command("gaps"), figures={"ratio": alone / p99}))
    return rows


# ---- prefixes -------------------------------------------------------------------------------------------------------

def evaluated(usage):
    return usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]


def shared(s, rng):
    """Tokens evaluated of prompts whose beginnings were there: [(shared, new, evaluated)]."""
    found = []
    for n in (100, 512, 549):
        begin = ids(rng, n)
        talk(s.port, completion(begin + ids(rng, 8), 4))
        found.append((n, 8, evaluated(talk(s.port, completion(begin + ids(rng, 8), 4)).usage())))
    return found


def chat_turns(s):
    """Five turns: [(tokens that are new, evaluated, tokens of the turn before with its answer, cached)]."""
    messages, before, found = [], 0, []
    for text in ("What is the capital of Japan?", "And which language do they speak there? Tell me more about it.",
                 "Write three sentences about the sea.", "Why is the sky blue?", "Thank you. " * 30):
        messages.append({"role": "user", "content": text})
        r = talk(s.port, post("/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 200})).json()
        messages.append(r["choices"][0]["message"])
        u = r["usage"]
        found.append((u["prompt_tokens"] - before, evaluated(u), before, u["prompt_tokens_details"]["cached_tokens"]))
        before = u["prompt_tokens"] + u["completion_tokens"]
    return found


def first_tokens(s, rng):
    """Milliseconds to the first token of 520 tokens: cold, and with 512 of them known."""
    begin = ids(rng, 512)
    cold = talk(s.port, completion(begin + ids(rng, 8), 4)).first_ms()
    warm = [talk(s.port, completion(begin + ids(rng, 8), 4)).first_ms() for _ in range(5)]
    return cold, statistics.median(warm), begin


def prefix(o):
    rows = []
    for name, model in models(o):
        rng = random.Random(3)
        with tempfile.TemporaryDirectory() as folder:
            options = ("--snapshot-dir", folder)
            with Server(o.build, model, *options) as s:
                found = shared(s, rng)
                rows.append(row(f"server, {name}: tokens evaluated where 100, 512, 549 are known and 8 new", "<= new + 127",
                                ", ".join(f"{n}: {e}" for n, _, e in found), all(e <= new + 127 for _, new, e in found), command("prefix")))
                if model == TINY:
                    rows += chat_rows(chat_turns(s))
                times = [first_tokens(s, rng) for _ in range(5)]
                cold, warm = statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)
                begin = times[-1][2]
                rows.append(row(f"server, {name}: time to the first token, 512 known and 8 new", "<= 3.7 % of cold" if model != TINY else "printed",
                                f"{warm:.2f} ms, cold {cold:.1f}: {warm / cold * 100:.2f} %", model == TINY or warm <= 0.037 * cold, command("prefix"),
                                figures={"share": cold / warm}))
            rows += [restarted(o, name, model, options, begin, cold, rng, rest) for rest in (0, 1)]
    return rows


def restarted(o, name, model, options, begin, cold, rng, rest):
    """The first token of a server that finds the prefix on disk: three servers, one after the other, asked as soon as they
    are there, while weights are still entered into page tables, or `rest` seconds later."""
    firsts, evaluations = [], []
    for _ in range(3):
        with Server(o.build, model, *options) as s:
            time.sleep(rest)
            again = talk(s.port, completion(begin + ids(rng, 8), 4))
            firsts.append(again.first_ms())
            evaluations.append(evaluated(again.usage()))
    first, e = statistics.median(firsts), max(evaluations)
    return row(f"server, {name}: the same after a restart with --snapshot-dir" + (f", {rest} s later" if rest else ""),
               "<= new + 127 tokens" + (", <= 3.7 % of cold" if model != TINY else ""),
               f"{e} evaluated, first token {first:.1f} ms (of three: {min(firsts):.1f} to {max(firsts):.1f}), "
               f"{first / cold * 100:.1f} % of cold", e <= 8 + 127 and (model == TINY or first <= 0.037 * cold), command("prefix"))


def chat_rows(turns):
    rows = [row("server, squish-tiny: chat of five turns: tokens evaluated a turn", "<= new + 127",
                ", ".join(f"{e} of {new} new" for new, e, _, _ in turns), all(e <= new + 127 for new, e, _, _ in turns), command("prefix"))]
    # the last token drawn was never evaluated; blocks hold 32
    want = [(before - 1) // 32 * 32 if before else 0 for _, _, before, _ in turns]
    rows.append(row("server, squish-tiny: chat of five turns: tokens found of turns before, with their answers", "all, in whole blocks of 32",
                    ", ".join(f"{c} of {w}" for (_, _, _, c), w in zip(turns, want)), all(c >= w for (_, _, _, c), w in zip(turns, want)),
                    command("prefix")))
    return rows


# ---- clients that leave ---------------------------------------------------------------------------------------------

class Watch:
    """GET /health on a connection that stays."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), sc.HANG_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path="/health"):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.more()
        head, _, body = data.partition(b"\r\n\r\n")
        n = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
        while len(body) < n:
            body += self.more()
        return json.loads(body)

    def more(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise OSError("the server closed a connection that asks for /health")
        return data

    def close(self):
        self.socket.close()


def leave(s, rng):
    if rng.random() < 0.5:  # with a reset instead of an end
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def fill_cache(s, rng):
    """Use the cache up, so that its pages are touched once and for all."""
    for _ in range(200):
        if s.get("/health")["kv_blocks"]["free"] < 64:
            return
        talk(s.port, completion(ids(rng, 2000), 1))


def disconnect(s, watch, mode, rng, running):
    """One client that leaves. Milliseconds until nothing of it is at work."""
    c = socket.create_connection(("127.0.0.1", s.port), sc.HANG_S)
    if mode == "upload":
        request = completion(ids(rng, 3000), 100)
        c.sendall(request[:rng.randint(1, len(request) - 1)])
        time.sleep(rng.random() * 0.005)
    elif mode == "queue":
        c.sendall(completion(ids(rng, rng.randint(1, 500)), 100, stream=rng.random() < 0.5))
        time.sleep(rng.random() * 0.01)
    elif mode == "prefill":
        c.sendall(completion(ids(rng, 3500), 100, stream=rng.random() < 0.5))
        time.sleep(rng.random() * 0.1)
    else:
        c.sendall(completion(ids(rng, rng.randint(1, 64)), 3000))
        for _ in range(rng.randint(1, 10)):
            c.recv(4096)
    begin = time.monotonic()
    leave(c, rng)
    while True:
        h = watch.ask()
        if h["inflight"] <= running and h["queued"] == 0 and h["running"] <= running:
            return (time.monotonic() - begin) * 1e3
        if time.monotonic() - begin > sc.HANG_S:
            sys.exit(f"a client left during {mode}, and after {sc.HANG_S} s: {h}")
        time.sleep(0.001)


def hold_slots(s, watch, rng, n):
    """n answers that go on for long; the connections."""
    held = []
    for _ in range(n):
        c = socket.create_connection(("127.0.0.1", s.port), sc.HANG_S)
        c.sendall(completion(ids(rng, 8), 4000, stream=False))
        held.append(c)
    while watch.ask()["running"] < n:
        time.sleep(0.002)
    return held


def queue_round(s, watch, rng, n):
    """n clients that leave while all slots are taken; milliseconds each."""
    found = []
    while len(found) < n:
        held = hold_slots(s, watch, rng, 2)
        until = time.monotonic() + 0.5
        while time.monotonic() < until and len(found) < n:
            found.append(disconnect(s, watch, "queue", rng, 2))
        for c in held:
            c.close()
        while watch.ask()["inflight"]:
            time.sleep(0.001)
    return found


def disconnects(o):
    rng, ms = random.Random(4), {}
    with Server(o.build, TINY, "--parallel", 2) as s:
        fill_cache(s, rng)
        watch = Watch(s.port)
        for _ in range(2):  # heaps grow to what such a mix needs, and stay
            for mode in ("upload", "prefill", "decode"):
                [disconnect(s, watch, mode, rng, 0) for _ in range(DISCONNECTS // 4)]
            queue_round(s, watch, rng, DISCONNECTS // 4)
        held0, _, total = s.blocks()
        kb, files = s.anon_kb(), s.files()
        for mode in ("upload", "prefill", "decode"):
            ms[mode] = [disconnect(s, watch, mode, rng, 0) for _ in range(DISCONNECTS // 4)]
        ms["queue"] = queue_round(s, watch, rng, DISCONNECTS // 4)
        grown, files_grown = s.anon_kb() - kb, s.files() - files
        held, _, _ = s.blocks()
        after = talk(s.port, post("/v1/chat/completions", {"messages": QUESTION, "temperature": 0})).text()
        watch.close()
    most = max(max(v) for v in ms.values())
    return [row(f"server, squish-tiny: {DISCONNECTS} clients leave (upload, queue, prefill, decode): until their slot is free", "<= 250 ms",
                ", ".join(f"{m} p50 {percentile(v, 50):.1f} ms, most {max(v):.1f}" for m, v in ms.items()), most <= 250, command("disconnects")),
            row("server, squish-tiny: after them: blocks held, files, anonymous memory", "as before; < 1 kB each (after 2,000 others)",
                f"{held} of {total} blocks held ({held0} before), {files_grown:+d} files, {grown:+d} kB; answers {'as before' if 'Tokyo' in after else 'WRONG'}",
                held == held0 == 0 and files_grown == 0 and grown < DISCONNECTS and "Tokyo" in after, command("disconnects"))]


# ---- connections ----------------------------------------------------------------------------------------------------

def open_idle(port, n):
    """n connections that have asked once and stay."""
    found = []
    for at in range(0, n, 200):
        fresh = [socket.create_connection(("127.0.0.1", port), sc.HANG_S) for _ in range(min(200, n - at))]
        for s in fresh:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for s in fresh:
            if not s.recv(4096).startswith(b"HTTP/1.1 200"):
                sys.exit("a connection was not answered")
        found += fresh
    return found


def open_half(port, n):
    found = []
    for _ in range(n):
        s = socket.create_connection(("127.0.0.1", port), sc.HANG_S)
        s.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        found.append(s)
    return found


def health_while_generating(s, rng, n):
    """Milliseconds of n times /health on a connection of their own, while two answers stream; tokens a second."""
    ms = []
    done = threading.Event()

    def ask():
        watch = Watch(s.port)
        for _ in range(n):
            begin = time.perf_counter()
            watch.ask()
            ms.append((time.perf_counter() - begin) * 1e3)
            time.sleep(0.002)
        watch.close()
        done.set()
    asker = threading.Thread(target=ask)
    asker.start()
    speed = []
    while not done.is_set():
        speed.append(rate(sc.run([Talk(s.port, completion(ids(rng, 16), 600)) for _ in range(2)])))
    asker.join()
    return ms, statistics.median(speed)


def connections(o):
    rng, n_idle, n_half = random.Random(5), 10000, 1000
    files = sc.raise_files()
    if files < n_idle + n_half + 200:
        return [row("server: 10,000 idle and 1,000 half-open connections", "<= 4 kB each",
                    f"not measured: {files} open files are allowed here", False, command("connections"))]
    with Server(o.build, TINY, "--parallel", 2) as s:
        fill_cache(s, rng)
        _, alone = health_while_generating(s, rng, 300)
        kb = s.anon_kb()
        idle = open_idle(s.port, n_idle)
        half = open_half(s.port, n_half)
        begin = time.monotonic()  # heads are given 10 s
        each = (s.anon_kb() - kb) / (n_idle + n_half)
        ms, among = health_while_generating(s, rng, 300)
        took = time.monotonic() - begin
        there = s.files()
        for c in idle + half:
            c.close()
        time.sleep(1)
        left = s.files()
    return [row("server: 10,000 idle and 1,000 half-open connections: memory of the server", "<= 4 kB each",
                f"{each:.2f} kB each", each <= 4 and there > n_idle, command("connections")),
            row("server: /health among them, while two answers stream", "p99 <= 20 ms",
                f"p50 {percentile(ms, 50):.2f} ms, p99 {percentile(ms, 99):.2f}, most {max(ms):.2f}, within {took:.1f} s",
                percentile(ms, 99) <= 20 and took < 10, command("connections")),
            row("server: two answers among them", "printed", f"{among:.0f} tok/s, alone {alone:.0f}: {among / alone:.2f} x", True, command("connections")),
            row("server: files of the server after they have left", "< 100", f"{left}", left < 100, command("connections"))]


# ---- attacks --------------------------------------------------------------------------------------------------------

KEY, TRIES = "k" + "0123456789abcdef" * 2, 50000


def keys(o):
    """How long a refusal takes, with a key that is wrong at its first letter and one that is wrong at its last."""
    with Server(o.build, TINY, "--api-key", KEY) as s:
        c = socket.create_connection(("127.0.0.1", s.port), sc.HANG_S)
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asks = [f"GET /slots HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {k}\r\n\r\n".encode()
                for k in ("x" + KEY[1:], KEY[:-1] + "x")]
        us = ([], [])
        for i in range(2 * TRIES):
            begin = time.perf_counter_ns()
            c.sendall(asks[i % 2])
            answer = c.recv(4096)
            us[i % 2].append((time.perf_counter_ns() - begin) / 1e3)
            if not answer.startswith(b"HTTP/1.1 401"):
                sys.exit(f"a wrong key was answered with {answer[:20]!r}")
        c.close()
    first, last = map(statistics.median, us)
    return row("server: a key wrong at its first letter against one wrong at its last, 100,000 tries", "p50 differ < 1 us",
               f"p50 {first:.2f} and {last:.2f} us: {abs(first - last):.2f}", abs(first - last) < 1, command("attacks"))


def drain(o):
    """SIGTERM with 32 streams open; then again, and a second signal."""
    rng = random.Random(7)

    def begin(s, n):
        talks, late = [Talk(s.port, completion(ids(rng, 8), n)) for _ in range(32)], Talk(s.port, sc.get("/livez"), after=1.2)
        timer = threading.Timer(1.0, lambda: s.process.send_signal(signal.SIGTERM))
        timer.start()
        return talks, late
    with Server(o.build, TINY, "--parallel", 32) as s:
        talks, late = begin(s, 200)
        sc.run(talks)
        whole = sum(t.raw.rstrip().endswith(b"0") and b"[DONE]" in t.raw[-200:] for t in talks)
        try:
            sc.run([late])
            refused = late.status == 503
        except OSError:
            refused = True
        code = s.process.wait(35)
    with Server(o.build, TINY, "--parallel", 32) as s:
        talks, _ = begin(s, 3000)
        at = []

        def twice():
            at.append(time.monotonic())
            s.process.send_signal(signal.SIGTERM)
        threading.Timer(1.5, twice).start()
        sc.run(talks)
        second = s.process.wait(35)
        seconds = time.monotonic() - at[0]
    return row("server: SIGTERM with 32 streams open; a second signal", "all end whole, exit 0; gone within 1 s",
               f"{whole} of 32 whole, new ones {'refused' if refused else 'TAKEN'}, exit {code}; gone within {seconds:.2f} s, exit {second}",
               whole == 32 and refused and code == 0 and seconds <= 1, command("attacks"))


def attacks(o):
    return [keys(o), drain(o)]


# ---- soak -----------------------------------------------------------------------------------------------------------

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
STUCK_S = max(300, sc.HANG_S)  # without a byte; the machine may have other work


def fill_grammars(s, rng):
    """Use up what is kept of compiled grammars (64 of a model), then have those of the mix learn what they will: masks of
    the states that answers come to, most of them within 150 answers."""
    def ask(**more):
        return post(CHAT, {"messages": QUESTION, "max_tokens": 60, "temperature": 1.2, **more})

    def shaped(schema):
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    asks = [ask(**shaped(soak_schema(rng, True))) for _ in range(96)]
    for words in KNOWN:
        schema = schema_of(words)
        asks += [ask(**shaped(schema)) for _ in range(150)] + [ask(guided_json={"type": "array", "items": schema})] * 50
    tools = {"tools": [weather_tool("weather"), weather_tool("climate")]}
    asks += [ask(**tools, tool_choice="required")] * 50 + [ask(**tools)] * 50
    for i in range(0, len(asks), 8):
        sc.run([Talk(s.port, a) for a in asks[i:i + 8]])


def weather_tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer"}}, "required": ["city"]}}}


KNOWN = (("sun", "rain"), ("a", "b", "c"), ("yes", "no"), ("1", "2"), ("red",))


def soak_schema(rng, fresh=False):
    """One of five, or one that nobody has asked for before."""
    words = None if fresh else rng.choice((*KNOWN, None))
    return schema_of(words or tuple(f"{rng.getrandbits(40):x}" for _ in range(rng.randint(1, 30))))


def schema_of(words):
    return {"type": "object", "properties": {"kind": {"enum": list(words)}, "n": {"type": "integer", "maximum": 99, "minimum": 0},
                                             "text": {"type": "string", "maxLength": 20}}, "required": ["kind", "n"]}


def soak_requests(rng, second=None):
    """A request of the mix: (name, bytes, statuses that are right, leave after so many reads or 0). second: another
    model to be asked now and then."""
    words = " ".join(rng.choice(("Tokyo", "sea", "why", "list", "日本", "🙂", "river", "of", "the")) for _ in range(rng.randint(1, 60)))
    said, n = [{"role": "user", "content": words}], rng.randint(1, 60)
    draw = {"temperature": rng.choice((0, 0.8, 1.2)), "stream": rng.random() < 0.5}
    long = ids(rng, rng.randint(500, 2500))
    mix = (
        (8, "chat", post(CHAT, {"messages": said, "max_tokens": n, **draw}), (200,), 0),
        (2, "chat, logprobs, n", post(CHAT, {"messages": said, "max_tokens": n, "n": 3, "logprobs": True, "top_logprobs": 5}), (200,), 0),
        (5, "completions", post(TEXT, {"prompt": words, "max_tokens": n, "stop": ["e", "日"], **draw}), (200,), 0),
        (1, "long prompt", post(TEXT, {"prompt": long, "max_tokens": 5}), (200,), 0),
        (1, "scoring", post(TEXT, {"prompt": [words, "a"], "max_tokens": 0, "echo": True, "logprobs": 2}), (200,), 0),
        (3, "embeddings", post("/v1/embeddings", {"input": [words, "a b c"]}), (200,), 0),
        (3, "ollama chat", post("/api/chat", {"model": TINY_NAME, "messages": said, "options": {"num_predict": n}, "stream": draw["stream"]}), (200,), 0),
        (2, "ollama generate", post("/api/generate", {"model": TINY_NAME, "prompt": words, "options": {"num_predict": n}}), (200,), 0),
        (1, "ollama embed", post("/api/embed", {"model": TINY_NAME, "input": words}), (200,), 0),
        (3, "anthropic", post("/v1/messages", {"model": TINY_NAME, "max_tokens": n, "messages": said, "stream": draw["stream"]}), (200,), 0),
        (2, "responses", post("/v1/responses", {"model": TINY_NAME, "input": words, "max_output_tokens": max(n, 16), "stream": draw["stream"]}), (200,), 0),
        (2, "schema", post(CHAT, {"messages": said, "max_tokens": 60, **draw, "response_format": {
            "type": "json_schema", "json_schema": {"name": "a", "schema": soak_schema(rng)}}}), (200,), 0),
        (2, "tools", post(CHAT, {"messages": said, "max_tokens": 60, **draw, "tools": [weather_tool("weather"), weather_tool("climate")],
                                 "tool_choice": rng.choice(("auto", "required"))}), (200,), 0),
        (1, "ollama format", post("/api/chat", {"model": TINY_NAME, "messages": said, "format": soak_schema(rng),
                                                "options": {"num_predict": 60}}), (200,), 0),
        (1, "regex", post(TEXT, {"prompt": words, "guided_regex": "[a-z]{3,9}( [0-9]+)*", "max_tokens": n, **draw}), (200,), 0),
        (2, "leaves a schema", post(CHAT, {"messages": said, "max_tokens": 300, "stream": True, "guided_json": {"type": "array", "items": soak_schema(rng)}}),
         (200, 0), rng.randint(1, 20)),
        (4, "leaves while streaming", post(CHAT, {"messages": said, "ignore_eos": True, "max_tokens": 2000, "stream": True}), (200, 0), rng.randint(1, 20)),
        (2, "leaves at once", post(TEXT, {"prompt": long, "max_tokens": 100}), (0,), -1),
        (2, "no JSON", post(CHAT, b'{"messages": [' + words.encode()), (400,), 0),
        (1, "out of range", post(CHAT, {"messages": said, "temperature": -1}), (400,), 0),
        (1, "no such model", post(CHAT, {"model": "nobody", "messages": said}), (404,), 0),
        (1, "too long", post(TEXT, {"prompt": long * 10, "max_tokens": 1}), (400,), 0),
        (1, "no such route", post("/v1/nothing", {}), (404,), 0),
        (1, "wrong type", post(CHAT, b"a=b", "application/x-www-form-urlencoded"), (415,), 0),
        (1, "no HTTP", b"\x16\x03\x01\x02\x00" + words.encode() + b"\r\n\r\n", (400,), 0),
        (2, "health", sc.get("/health"), (200,), 0), (1, "metrics", sc.get("/metrics"), (200,), 0),
        (1, "slots", sc.get("/slots"), (200,), 0), (1, "models", sc.get("/v1/models"), (200,), 0),
        (1, "tokenize", post("/tokenize", {"prompt": words}), (200,), 0),
    )
    if second:
        mix += ((2, "another model", post("/api/chat", {"model": second, "messages": said, "options": {"num_predict": n},
                                                        "keep_alive": rng.choice((0, "5m"))}), (200,), 0),)
    return rng.choices([m[1:] for m in mix], [m[0] for m in mix])[0]


class Soak(threading.Thread):
    """One client after the other."""

    def __init__(self, port, seed, until, pause, second):
        super().__init__(daemon=True)
        self.port, self.rng, self.until, self.pause, self.second = port, random.Random(seed), until, pause, second
        self.n, self.stuck, self.wrong = 0, 0, []

    def run(self):
        while time.monotonic() < self.until:
            if self.pause:
                time.sleep(min(self.rng.expovariate(1 / self.pause), max(0, self.until - time.monotonic())))
            name, data, right, leaves = soak_requests(self.rng, self.second)
            try:
                status, text = self.one(data, leaves)
            except TimeoutError:
                self.stuck += 1
                self.wrong.append(f"{name}: stuck")
                continue
            self.n += 1
            if status not in right or (status == 200 and b'"error":{' in text):
                self.wrong.append(f"{name}: {status} {text[-200:]!r}")

    def one(self, data, leaves):
        s = socket.create_connection(("127.0.0.1", self.port), STUCK_S)
        text = b""
        try:
            s.sendall(data)
            reads = 0
            while leaves == 0 or reads < leaves:
                piece = s.recv(1 << 16)
                if not piece:
                    break
                text += piece
                reads += 1
        except ConnectionError:
            pass
        if leaves:
            leave(s, self.rng)
        else:
            s.close()
        return int(text[9:12]) if len(text) > 12 else 0, text


def slope(points):
    """Least squares: kB a minute."""
    x, y = [p[0] / 60 for p in points], [p[1] for p in points]
    mx, my = statistics.mean(x), statistics.mean(y)
    over = sum((a - mx) ** 2 for a in x)
    return sum((a - mx) * (b - my) for a, b in zip(x, y)) / over if over else 0


def soak(o):
    seconds = o.minutes * 60
    second = "second" if o.second else None
    with tempfile.TemporaryDirectory() as home, Server(o.build, TINY, home=home) as s:
        if second:
            shutil.copytree(TINY, pathlib.Path(home) / "models" / second)
        if not second:
            fill_cache(s, random.Random(6))
            fill_grammars(s, random.Random(7))
        begin = time.monotonic()
        workers = [Soak(s.port, i, begin + seconds, o.pause, second) for i in range(12)]
        for w in workers:
            w.start()
        points, files = [], []
        while (now := time.monotonic() - begin) < seconds:
            if now > seconds / 4:
                points.append((now, s.anon_kb()))
                files.append(s.files())
            time.sleep(0.5)
        ran = time.monotonic() - begin
        for w in workers:
            w.join(STUCK_S + 10)
        alive = sum(w.is_alive() for w in workers)
        time.sleep(0.5)
        h = s.get("/health")
        idle_files = s.files()
        text = talk(s.port, post(CHAT, {"messages": QUESTION, "temperature": 0})).text()
        held, _, _ = s.blocks()
    n, stuck = sum(w.n for w in workers), alive + sum(w.stuck for w in workers)
    wrong = [x for w in workers for x in w.wrong]
    for x in wrong[:10]:
        print(f"soak: {x}", file=sys.stderr)
    kb, late, span = slope(points), slope([p for p in points if p[0] > seconds * 0.75]), max(p[1] for p in points) - min(p[1] for p in points)
    minutes = f"{ran / 60:.1f} minutes" + (f" with pauses of {o.pause:g} s" if o.pause else "")
    if nice := os.nice(0):  # who is asked to wait for others may wait long, and that is not the server's doing
        minutes += f", all at nice {nice}"
    most = 1000 / 60 if o.minutes >= 60 else 100
    return [row("server, squish-tiny: mixed load of 12 clients: answers that were not what they should be", "0 stuck, 0 wrong",
                f"{n} requests in {minutes}: {stuck} stuck, {len(wrong)} wrong; then {'well' if 'Tokyo' in text else 'WRONG'}, {h['inflight']} at work, {held} blocks held",
                not stuck and not wrong and "Tokyo" in text and h["inflight"] == 0 and held == 0, command("soak")),
            row("server, squish-tiny: mixed load: anonymous memory, last three quarters", f"grows < {most:.0f} kB a minute",
                f"{kb:+.0f} kB a minute ({late:+.0f} in the last quarter of {minutes}), {points[-1][1] / 1024:.1f} MB at the end, range {span} kB", kb < most, command("soak")),
            row("server, squish-tiny: mixed load: open files", "constant",
                f"{min(files)} to {max(files)}, {idle_files} when idle", max(files) <= idle_files + 24, command("soak"))]


# ---- all ------------------------------------------------------------------------------------------------------------

PARTS = {"start": start, "stream": stream, "clients": clients, "gaps": beside_a_prompt, "prefix": prefix, "disconnects": disconnects,
         "connections": connections, "attacks": attacks, "soak": soak}


def make_shape(o, work):
    """The model in the 1.5B shape, with its tier built."""
    if not o.shape_model:
        o.shape_model = pathlib.Path(work) / "1.5b"
        subprocess.run([sys.executable, ROOT / "scripts" / "make_shape.py", o.shape_model, "1.5b", "--random", "--tokenizer", TINY],
                       check=True, stdout=subprocess.DEVNULL)
    if (o.shape_model.parent / f"{o.shape_model.name}-compressed" / "squish_4bit" / "model.sqw").exists():
        return
    subprocess.run([f"{o.build}/squish", "compress", o.shape_model, "--tier", "0", "--method", "rtn", "--unchecked", "--refine", "off",
                    "--quiet"], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--shape-model", type=pathlib.Path)
    parser.add_argument("--models", default="squish-tiny,1.5b", help="one of them, where both are measured")
    parser.add_argument("--minutes", type=float, default=5, help="of the soak; the bar was set for 60")
    parser.add_argument("--pause", type=float, default=0, help="of the soak: seconds a client waits before each request, on average")
    parser.add_argument("--second", action="store_true", help="in the soak a second model comes and goes (memory is not flat then)")
    parser.add_argument("--print", action="store_true", help="write no results")
    o = parser.parse_args()
    parts = o.part.split(",")
    if unknown := [p for p in parts if p not in PARTS]:
        parser.error(f"no part '{unknown[0]}', wanted {', '.join(PARTS)}")
    o.models = o.models.split(",")
    o.build = str(pathlib.Path(o.build).absolute())
    sc.raise_files()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        if "1.5b" in o.models and set(parts) & {"start", "stream", "clients", "gaps", "prefix"}:
            make_shape(o, work)
        for name in parts:
            rows += PARTS[name](o)
    if not o.print:
        targets.write_result(rows)
        targets.pages()


if __name__ == "__main__":
    main()
