#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own, and clients that notice when which byte came.

Clients keep what they read as (time, bytes) and look into it afterwards: a client that parses JSON while it measures
takes the processor away from the server beside it. Times are nanoseconds of the monotonic clock, which the server's
`x_squish_t_ns` counts by too. They are taken by the kernel when bytes reach the client's socket: over loopback that is
when the server writes them, however long the client takes to wake up."""
import contextlib
import json
import os
import pathlib
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HANG_S = int(os.environ.get("SQUISH_BENCH_HANG_S", "120"))  # sanitizers need more
SO_TIMESTAMPNS = 35  # Linux; the socket module has no name for it
# from the clock of those stamps to the monotonic one; the look that was interrupted least
STAMP_OFFSET = max(time.monotonic_ns() - time.time_ns() for _ in range(100))


def came(ancillary):
    """When the last of the bytes just read reached the socket."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, ns = struct.unpack("qq", data)
            return seconds * 10**9 + ns + STAMP_OFFSET
    return time.monotonic_ns()


def raise_files():
    """Thousands of sockets need more files than a shell gives."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """squish serve MODEL OPTIONS. start_ms: from before fork and execve to the first 200 of /health."""

    def __init__(self, build, model, *options, home=None):
        self.port, self.options = free_port(), list(map(str, options))
        self.command = [f"{build}/squish", "serve", str(model), "--port", str(self.port), *self.options]
        self.folder = tempfile.TemporaryDirectory()
        self.home = home or self.folder.name
        self.process = None

    def __enter__(self):
        log = pathlib.Path(self.folder.name) / "log"
        begin = time.perf_counter()
        with open(log, "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env={**os.environ, "SQUISH_HOME": str(self.home)})
        while True:
            with contextlib.suppress(OSError, ValueError):
                with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                    s.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    if s.recv(4096).startswith(b"HTTP/1.1 200"):
                        self.start_ms = (time.perf_counter() - begin) * 1e3
                        return self
            if self.process.poll() is not None or time.perf_counter() - begin > HANG_S:
                sys.exit(f"{' '.join(self.command)}: did not come up: {log.read_text()[-500:]}")
            time.sleep(0.0005)

    def __exit__(self, kind, *_):
        code = self.stop()
        if code and not kind:
            sys.exit(f"the server ended with {code}: {(pathlib.Path(self.folder.name) / 'log').read_text()[-500:]}")
        self.folder.cleanup()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(HANG_S / 3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def anon_kb(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1])
        return 0

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def get(self, path):
        return talk(self.port, get(path)).json()

    def blocks(self):
        """Blocks of the cache that somebody holds, and those that are kept for prefixes. An answer arrives before the step
        that ended it has been counted."""
        time.sleep(0.3)
        b = self.get("/health")["kv_blocks"]
        return b["total"] - b["free"] - b["cached"], b["cached"], b["total"]


# ---- one exchange ---------------------------------------------------------------------------------------------------

def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()


def post(path, body, kind="application/json", keep=False):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(data)}\r\n{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n").encode() + data


class Talk:
    """A request on a connection of its own, sent `after` seconds; what came back, and when."""

    def __init__(self, port, request, after=0.0):
        self.port, self.request, self.after = port, request, after
        self.socket, self.pieces, self.over = None, [], False
        self.t_sent = 0

    def open(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), HANG_S)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.t_sent = time.monotonic_ns()
        self.socket.sendall(self.request)
        self.socket.setblocking(False)

    def take(self):
        with contextlib.suppress(BlockingIOError):
            data, ancillary, _, _ = self.socket.recvmsg(1 << 18, 64)
            self.pieces.append((came(ancillary), data))
            self.over = not data

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    @property
    def raw(self):
        return b"".join(p for _, p in self.pieces)

    @property
    def status(self):
        head = self.raw[:12]
        return int(head[9:12]) if len(head) == 12 else 0

    def parts(self):
        """(time of its last byte, payload) of each chunk of the body; of the body itself where it has no chunks."""
        raw, ends, n = self.raw, [], 0
        for t, data in self.pieces:
            n += len(data)
            ends.append((n, t))
        head, _, _ = raw.partition(b"\r\n\r\n")
        at, i = len(head) + 4, 0

        def when(end):
            nonlocal i
            while i + 1 < len(ends) and ends[i][0] < end:
                i += 1
            return ends[i][1]
        if b"chunked" not in head.lower():
            return [(when(len(raw)), raw[at:])]
        found = []
        while (line := raw.find(b"\r\n", at)) > 0:
            size = int(raw[at:line], 16)
            if size == 0 or line + 4 + size > len(raw):
                break
            found.append((when(line + 4 + size), raw[line + 2:line + 2 + size]))
            at = line + 4 + size
        return found

    def body(self):
        return b"".join(p for _, p in self.parts())

    def json(self):
        return json.loads(self.body())

    def frames(self):
        """(time, JSON) of every frame of an OpenAI stream."""
        found, rest = [], b""
        for t, data in self.parts():
            *whole, rest = (rest + data).split(b"\n\n")
            found += [(t, json.loads(f[6:])) for f in whole if f.startswith(b"data: {")]
        return found

    def tokens(self):
        """(time, text, time of its drawing or None) of the frames of tokens of a stream of completions or chat: those with
        text, and where times were asked for, all."""
        found = []
        for t, f in self.frames():
            for c in f.get("choices", ()):
                text = c.get("text") or c.get("delta", {}).get("content")
                if (text or "x_squish_t_ns" in f) and not c.get("finish_reason"):
                    found.append((t, text, f.get("x_squish_t_ns")))
        return found

    def text(self):
        if b"text/event-stream" not in self.raw[:2000]:
            c = self.json()["choices"][0]
            return c["text"] if "text" in c else c["message"]["content"]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for _, f in self.frames() for c in f["choices"])

    def usage(self):
        if b"text/event-stream" not in self.raw[:2000]:
            return self.json()["usage"]
        return [f["usage"] for _, f in self.frames() if f.get("usage")][-1]

    def first_ms(self):
        return (self.tokens()[0][0] - self.t_sent) / 1e6


@contextlib.contextmanager
def first_in_line():
    """Where that is allowed, what we read is read at once: bytes that wait for us are joined by later ones, and the
    kernel keeps but the last one's time. What we need is a few microseconds a token."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def run(talks, until=None):
    """Have all of them at once; until() true ends it early. Exits if nothing came for HANG_S."""
    with first_in_line():
        return exchange(talks, until)


def exchange(talks, until):
    begin, heard = time.monotonic(), time.monotonic()
    waiting = sorted(talks, key=lambda t: t.after)
    with selectors.DefaultSelector() as s:
        while waiting or s.get_map():
            now = time.monotonic() - begin
            while waiting and waiting[0].after <= now:
                t = waiting.pop(0)
                t.open()
                s.register(t.socket, selectors.EVENT_READ, t)
            ready = s.select(max(0, waiting[0].after - now) if waiting else 1)
            for key, _ in ready:
                key.data.take()
                if key.data.over:
                    s.unregister(key.fileobj)
                    key.data.close()
            if ready:
                heard = time.monotonic()
            elif not waiting and time.monotonic() - heard > HANG_S:
                sys.exit(f"no byte came for {HANG_S} s")
            if until and until():
                break
    for t in talks:
        t.close()
    return talks


def talk(port, request):
    return run([Talk(port, request)])[0]


def completion(prompt, n, stream=True, **more):
    """A request for n tokens behind a text or ids; without an end of its own."""
    body = {"prompt": prompt, "max_tokens": n, "ignore_eos": True, "temperature": 0, "stream": stream, **more}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return post("/v1/completions", body)


def percentile(values, p):
    v = sorted(values)
    return v[min(len(v) - 1, int(len(v) * p / 100))]
