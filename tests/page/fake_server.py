# SPDX-License-Identifier: Apache-2.0
"""A server of scripted answers for the chat page: it stands where the engine would be.

    python3 tests/page/fake_server.py --page build/page [--port 8080] [--no-csp]

What it answers is decided by the last user message:

    /slow           a word every 60 ms, for stopping        /think     reasoning, then an answer
    /tool           a tool call; a text once it has results /rich      headings, table, code, list
    /hostile N      string N of hostile.json, in pieces     /cut       the connection ends once told
    /error          an error event in the middle            /long      400 paragraphs
    /utf8           code points cut between two writes     /tag       thinking inside <think> of the content
    /full           400 context_length_exceeded             else       an echo

Every request is kept: GET /test/log gives them, POST /test/set {"key": ..., "down": ..., "health": ...} changes the
server's state. --no-csp leaves the policy away, so that a test proves the page alone is inert.
"""
import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "hostile.json"), encoding="utf-8") as f:
    HOSTILE = json.load(f)
CSP = ("default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
       "frame-ancestors 'none'")
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
         "svg": "image/svg+xml", "txt": "text/plain; charset=utf-8"}
RICH = """## Finding a key

A hash table keeps **buckets**; the *hash* of a key says in which one to look. Looking up is `O(1)` on average:

| Operation | Average | Worst case |
|:----------|--------:|-----------:|
| insert    |    O(1) |       O(n) |
| find      |    O(1) |       O(n) |
| remove    |    O(1) |       O(n) |

```c
/* The bucket of a key; n_buckets is a power of two. */
static size_t bucket_of(const table *t, const char *key) {
    uint64_t h = 14695981039346656037ull;
    for (; *key; key++) h = (h ^ (unsigned char)*key) * 1099511628211ull;
    return h & (t->n_buckets - 1);
}
```

Three things decide how well it works:

1. a hash that spreads similar keys,
2. a load factor that stays below about 0.7,
3. what happens when two keys meet, see [open addressing](https://en.wikipedia.org/wiki/Open_addressing).

> Measure before choosing: for a handful of keys a sorted array is hard to beat.
"""


class State:
    def __init__(self):
        self.lock = threading.Lock()
        self.log = []
        self.cancelled = 0
        self.key = ""
        self.down = False
        self.health = "ok"
        self.loaded = True
        self.cut = threading.Event()


def user_text(messages):
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def pieces(text, size=5):
    return [text[i:i + size] for i in range(0, len(text), size)]


def deltas_of(body):
    """(pause in seconds, delta) of the answer to a request."""
    messages = body["messages"]
    text = user_text(messages)
    if messages[-1]["role"] == "tool":
        return [(0.002, {"content": p}) for p in pieces(f"With the result: {messages[-1]['content']}")]
    if text.startswith("/slow"):
        return [(0.06, {"content": f"word{i} "}) for i in range(400)]
    if text.startswith("/think"):
        return ([(0.01, {"reasoning_content": p}) for p in pieces("First I look at the question. Then I answer it.")]
                + [(0.005, {"content": p}) for p in pieces("The answer is **42**.")])
    if text.startswith("/tool"):
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
        return [(0, {"content": "I will look. "}), (0, {"tool_calls": [first]})] + [
            (0.002, {"tool_calls": [{"index": 0, "function": {"arguments": p}}]})
            for p in pieces('{"city": "Tokyo", "days": 3}')]
    if text.startswith("/hostiletool"):
        bad = "<img src=x onerror=alert(1)>"
        call = {"index": 0, "id": bad, "type": "function", "function": {"name": bad, "arguments": f'{{"a": "{bad}"'}}
        return [(0, {"reasoning_content": bad}), (0, {"tool_calls": [call]})]
    if text.startswith("/hostile"):
        return [(0.001, {"content": p}) for p in pieces(HOSTILE[int(text.split()[1])], 7)]
    if text.startswith("/tag"):
        return [(0.002, {"content": p}) for p in pieces("<think>Hm, let me see.</think>\n\nDone thinking.")]
    if text.startswith("/utf8"):
        return [(0, {"content": "Grüße, 世界 👩‍🔬 ok"})] * 3
    if text.startswith("/long"):
        return [(0, {"content": f"Paragraph {i} of a long answer, with some words in it.\n\n"}) for i in range(400)]
    if "hash table" in text or text.startswith("/rich"):
        return [(0.004, {"content": p}) for p in pieces(RICH, 9)]
    return [(0.002, {"content": p}) for p in pieces(f"You said: {text}")]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State
    args: argparse.Namespace

    def log_message(self, *args):
        pass

    def reply(self, status, body, content_type="application/json", headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message, code, param=None, headers=()):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error", "param": param,
                                      "code": code}}, headers=headers)

    def is_down(self):
        if not self.state.down or self.path.startswith("/test/"):
            return False
        self.close_connection = True
        return True

    def may(self):
        if not self.state.key or self.headers.get("authorization") == f"Bearer {self.state.key}":
            return True
        self.refuse(401, "missing or unknown API key", "invalid_api_key")
        return False

    def do_GET(self):
        if self.is_down():
            return
        path = self.path.split("?")[0]
        if path in ("/", "/chat") or path.startswith("/page/"):
            self.file("index.html" if path in ("/", "/chat") else os.path.basename(path))
        elif path == "/health":
            self.reply(200 if self.state.health == "ok" else 503, {"status": self.state.health, "progress": 0.42})
        elif path == "/test/log":
            self.reply(200, {"requests": self.state.log, "cancelled": self.state.cancelled})
        elif not self.may():
            return
        elif path == "/v1/models":
            meta = {"n_params": 494032768, "size": 352321536, "n_ctx": 4096, "n_ctx_train": 32768,
                    "quant": "INT4 group 64"}
            self.reply(200, {"object": "list", "data": [
                {"id": "qwen2.5:0.5b", "object": "model", "created": 1, "owned_by": "squish", "meta": meta},
                {"id": "squish-tiny", "object": "model", "created": 1, "owned_by": "squish", "meta": {"n_ctx": 512}}]})
        elif path == "/api/ps":
            loaded = [{"name": "qwen2.5:0.5b", "model": "qwen2.5:0.5b", "size": 352321536,
                       "expires_at": "2999-01-01T00:00:00Z"}] if self.state.loaded else []
            self.reply(200, {"models": loaded})
        else:
            self.refuse(404, f"{path}: no such route", "unknown_url")

    def file(self, name):
        path = os.path.join(self.args.page, name)
        kind = TYPES.get(name.rsplit(".", 1)[-1])
        if not kind or not os.path.isfile(path):
            self.refuse(404, "no such file", "unknown_url")
            return
        headers = [("Cache-Control", "no-cache")] + ([] if self.args.no_csp else [("Content-Security-Policy", CSP)])
        if self.args.no_libs and name in ("marked.js", "purify.js", "highlight.js"):
            self.reply(200, b"/* absent */", kind, headers)
            return
        with open(path, "rb") as f:
            self.reply(200, f.read(), kind, headers)

    def do_POST(self):
        if self.is_down():
            return
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.path == "/test/set":
            for name, value in body.items():
                setattr(self.state, name, value)
            self.reply(200, {})
            return
        with self.state.lock:
            self.state.log.append({"path": self.path, "body": body, "key": self.headers.get("authorization")})
        if not self.may():
            return
        if self.path == "/v1/chat/completions":
            self.chat(body)
        elif self.path == "/tokenize":
            count = sum(len(str(m.get("content") or "").split()) + 4 for m in body["messages"])
            self.reply(200, {"tokens": [1] * count, "count": count, "max_model_len": 4096})
        elif self.path == "/api/generate":
            self.state.loaded = body.get("keep_alive") != 0
            self.reply(200, {"model": body["model"], "response": "", "done": True,
                             "done_reason": "load" if self.state.loaded else "unload"})
        else:
            self.refuse(404, f"{self.path}: no such route", "unknown_url")

    def chat(self, body):
        text = user_text(body["messages"])
        if body.get("response_format", {}).get("type", "text") != "text":
            self.refuse(400, "response_format: this build has no grammar engine", "unsupported_parameter", "response_format")
        elif text.startswith("/full"):
            self.refuse(400, "5000 tokens of prompt, the window holds 4096", "context_length_exceeded", "messages")
        elif text.startswith("/busy"):
            self.refuse(503, "the queue of 256 is full", "queue_full", headers=[("Retry-After", "3")])
        else:
            try:
                self.stream(body, text)
            except (BrokenPipeError, ConnectionResetError):
                with self.state.lock:
                    self.state.cancelled += 1
                self.close_connection = True

    def stream(self, body, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.raw(": ping\n\n")
        self.event(body, {"role": "assistant", "content": ""})
        begin, n = time.monotonic(), 0
        deltas = deltas_of(body)
        for pause, delta in deltas:
            time.sleep(pause)
            self.event(body, delta)
            n += 1
            if n == 3 and text.startswith("/cut"):
                # A browser drops what it has not handed over when the connection breaks: wait until it was seen.
                self.state.cut.wait(10)
                self.close_connection = True
                self.connection.close()
                return
            if n == 3 and text.startswith("/error"):
                self.raw('data: {"error":{"message":"the engine gave up <b>here</b>","type":"server_error",'
                         '"code":"kernel_failure"}}\n\n')
                self.raw("")
                return
        calls = any("tool_calls" in d for _, d in deltas)
        self.event(body, {}, "tool_calls" if calls else "stop")
        prompt = sum(len(str(m.get("content") or "").split()) + 4 for m in body["messages"])
        cached = max(0, prompt - 12) if len(body["messages"]) > 1 else 0
        per_second = n / max(time.monotonic() - begin, 1e-3)
        usage = {"prompt_tokens": prompt, "completion_tokens": n, "total_tokens": prompt + n,
                 "prompt_tokens_details": {"cached_tokens": cached}}
        timings = {"cache_n": cached, "prompt_n": prompt - cached, "predicted_n": n, "predicted_per_second": per_second}
        self.send_chunk(body, {"choices": [], "usage": usage, "timings": timings})
        self.raw("data: [DONE]\n\n")
        self.raw("")

    def event(self, body, delta, finish=None):
        self.send_chunk(body, {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None})

    def send_chunk(self, body, fields):
        frame = {"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": body.get("model"), **fields}
        self.raw(f"data: {json.dumps(frame, ensure_ascii=False)}\n\n")

    def raw(self, text):
        """One chunk of the body; an empty one ends it."""
        data = text.encode("utf-8", "surrogatepass")
        cut = next((i + 1 for i, b in enumerate(data) if b >= 0xc2), len(data))  # inside the first code point
        for part in filter(None, [data[:cut], data[cut:]]) if data else [b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Browsers leave whenever they like; everything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def start(page, port=0, no_csp=False, no_libs=False):
    """A running server and its state; for tests in the same process."""
    state = State()
    args = argparse.Namespace(page=page, no_csp=no_csp, no_libs=no_libs)
    server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"state": state, "args": args}))
    # shutdown waits for the end of an interval, after each test
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, state


def main():
    parser = argparse.ArgumentParser(description="scripted server for the chat page")
    parser.add_argument("--page", required=True, help="folder made by `make page`")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--no-csp", action="store_true")
    parser.add_argument("--no-libs", action="store_true")
    args = parser.parse_args()
    server, _ = start(args.page, args.port, args.no_csp, args.no_libs)
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
