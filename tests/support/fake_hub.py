#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hub of our own: the parts of Hugging Face's and of an OCI registry's HTTP that a pull needs, and their faults.

    fake_hub.py --root DIR [--faults FILE] [--log FILE] [--tls CERT KEY] [--parent PID]

DIR/USER/REPO/FILE are the files of models; DIR/USER/REPO/.license and .gated say what they are called for.
DIR/.ollama/SPACE/NAME/TAG.gguf are models of the registry. Two servers on free ports: the hub, and a second host to which
`resolve` and blobs lead. One line of JSON when both listen: {"hub": URL, "cdn": URL, "pid": N}.

A request is a line in the log: host, method, path, range, authorization, status, bytes sent. The line is there before the last
byte leaves, so whoever has an answer finds it in the log. The file of faults is read
at every request, so a test changes it as it likes:

    cut_every N      a body ends after N bytes, without warning         short         one byte is announced and never sent
    stall_after N    a body stops after N bytes and waits               gzip          bodies of files come packed
    wrong NAME       this file has other bytes than its sum says        no_ranges     Range is not understood
    rate N           bytes a second of a connection                     length NAME   this file has one byte less than listed
    hold_after N     a body waits after N bytes for as long as this stands in the file
    status {PATH PART: [CODE, CODE, ...]}    answers one after the other; Retry-After is `retry_after`, or 1
"""
import argparse
import base64
import gzip
import hashlib
import http.server
import json
import os
import re
import socket
import ssl
import sys
import threading
import time
import urllib.parse

LFS_BYTES = 100_000  # larger files have a SHA-256, smaller ones the SHA-1 of their git blob, as on the hub
COMMIT_OF = "squish fake hub"


class Sums:
    def __init__(self):
        self.known, self.lock = {}, threading.Lock()

    def of(self, path):
        st = os.stat(path)
        key = (path, st.st_mtime_ns, st.st_size)
        with self.lock:
            if key not in self.known:
                sha, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % st.st_size)
                with open(path, "rb") as f:
                    while block := f.read(1 << 20):
                        sha.update(block)
                        git.update(block)
                self.known[key] = (sha.hexdigest(), git.hexdigest())
            return self.known[key]


class Hub:
    def __init__(self, args):
        self.args, self.sums, self.lock = args, Sums(), threading.Lock()
        self.log = open(args.log, "a", buffering=1) if args.log else None
        self.given, self.cdn = {}, None

    def faults(self):
        try:
            with open(self.args.faults) as f:
                return json.load(f)
        except (OSError, ValueError, TypeError):
            return {}

    def next_status(self, path):
        for part, codes in self.faults().get("status", {}).items():
            if part not in path:
                continue
            with self.lock:
                i = self.given.get((part, str(codes)), 0)
                self.given[(part, str(codes))] = i + 1
            if i < len(codes):
                return codes[i]
        return None

    def repo(self, name):
        path = os.path.join(self.args.root, name)
        return path if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and ".." not in name and os.path.isdir(path) else None

    def files(self, repo):
        return sorted(n for n in os.listdir(repo) if not n.startswith(".") and os.path.isfile(os.path.join(repo, n)))

    def commit(self, repo):
        h = hashlib.sha1(COMMIT_OF.encode())
        for n in self.files(repo):
            h.update(n.encode() + self.sums.of(os.path.join(repo, n))[0].encode())
        return h.hexdigest()

    def entry(self, repo, name):
        path = os.path.join(repo, name)
        size, (sha, git) = os.path.getsize(path), self.sums.of(path)
        o = {"type": "file", "oid": git, "size": size, "path": name}
        if size >= LFS_BYTES:
            o["lfs"] = {"oid": sha, "size": size, "pointerSize": 134}
        return o

    def note(self, repo, name):
        try:
            with open(os.path.join(repo, name)) as f:
                return f.read().strip()
        except OSError:
            return None

    def wrong(self, name):
        return name == self.faults().get("wrong")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None
    is_cdn = False
    sent, noted = 0, False

    def log_message(self, *args):
        pass

    def note(self, status, sent=None):
        if self.hub.log and not self.noted:
            self.noted = True
            self.hub.log.write(json.dumps({
                "host": "cdn" if self.is_cdn else "hub", "method": self.command, "path": self.path, "status": status,
                "range": self.headers.get("Range"), "authorization": self.headers.get("Authorization"),
                "agent": self.headers.get("User-Agent"), "sent": self.sent if sent is None else sent}) + "\n")

    def answer(self, status, body=b"", headers=(), kind="application/json"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers:
            self.send_header(k, v)
        self.note(status)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, text):
        self.answer(status, {"error": text}, [("X-Error-Code", code), ("X-Error-Message", text)])

    def do_CONNECT(self):
        self.answer(407, b"", [("Proxy-Authenticate", 'Basic realm="x"')])

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.sent, self.noted = 0, False
        if self.path.startswith("http://"):  # somebody takes this for a proxy
            return self.answer(407, b"", [("Proxy-Authenticate", 'Basic realm="x"')])
        status = self.hub.next_status(self.path)
        if status:
            wait = self.hub.faults().get("retry_after", 1)
            return self.answer(status, {"error": "told to"}, [("Retry-After", str(wait))] if status in (429, 503) else [])
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        try:
            if self.is_cdn:
                return self.cdn_file(path)
            for pattern, fn in ((r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", self.info),
                                (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self.tree),
                                (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
                                (r"/v2/([^/]+/[^/]+)/manifests/(.+)", self.manifest),
                                (r"/v2/([^/]+/[^/]+)/blobs/sha256:([0-9a-f]{64})", self.blob),
                                (r"/file/(.+)", self.plain_file)):
                m = re.fullmatch(pattern, path)
                if m and not ("/tree/" in path and fn == self.info):
                    return fn(*m.groups())
            self.refuse(404, "EntryNotFound", "no such page")
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            self.note(0)

    # ---- Hugging Face

    def open_repo(self, name):
        repo = self.hub.repo(name)
        if not repo:
            return self.refuse(401, "RepoNotFound", "Repository Not Found")
        gated = self.hub.note(repo, ".gated")
        if gated and self.headers.get("Authorization") != "Bearer " + gated:
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo", "Access to it is restricted")
        return repo

    def info(self, name, revision=None):
        repo = self.hub.repo(name)
        if not repo:
            return self.refuse(401, "RepoNotFound", "Repository Not Found")
        license = self.hub.note(repo, ".license")
        sha = self.hub.commit(repo)
        if revision not in (None, "main", sha):
            return self.refuse(404, "RevisionNotFound", "no such revision")
        self.answer(200, {"id": name, "modelId": name, "sha": sha, "private": False,
                          "gated": "manual" if self.hub.note(repo, ".gated") else False, "disabled": False,
                          "tags": ["license:" + license] if license else [], "downloads": 0, "likes": 0,
                          "cardData": {"license": license} if license else {}, "lastModified": "2026-01-01T00:00:00.000Z",
                          "createdAt": "2026-01-01T00:00:00.000Z",
                          "siblings": [{"rfilename": n} for n in self.hub.files(repo)]})

    def tree(self, name, revision):
        repo = self.open_repo(name)
        if not repo:
            return None
        all_files = [self.hub.entry(repo, n) for n in self.hub.files(repo)]
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        page, per = int(query.get("cursor", ["0"])[0]), 5  # small pages, so that there is more than one
        headers = []
        if (page + 1) * per < len(all_files):
            headers.append(("Link", f'<{self.hub.url}/api/models/{name}/tree/{revision}?cursor={page + 1}>; rel="next"'))
        return self.answer(200, all_files[page * per:(page + 1) * per], headers)

    def resolve(self, name, revision, file):
        repo = self.open_repo(name)
        if not repo:
            return None
        path = os.path.join(repo, file)
        if "/" in file or file.startswith(".") or not os.path.isfile(path):
            return self.refuse(404, "EntryNotFound", "no such file")
        size, (sha, git) = os.path.getsize(path), self.hub.sums.of(path)
        commit = ("X-Repo-Commit", self.hub.commit(repo))
        if size < LFS_BYTES:
            return self.send_file(path, git, [commit])
        where = urllib.parse.quote(base64.urlsafe_b64encode(os.path.relpath(path, self.hub.args.root).encode()).decode())
        return self.answer(302, b"", [("Location", f"{self.hub.cdn}/{where}?signature=1"), commit,
                                      ("X-Linked-Etag", f'"{sha}"'), ("X-Linked-Size", str(size)), ("ETag", f'"{sha}"'),
                                      ("Accept-Ranges", "bytes")])

    # ---- an OCI registry

    def model(self, name, tag):
        path = os.path.join(self.hub.args.root, ".ollama", name, tag + ".gguf")
        return path if ".." not in name + tag and os.path.isfile(path) else None

    def manifest(self, name, tag):
        path = self.model(name, tag)
        if not path:
            return self.answer(404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]})
        layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + self.hub.sums.of(path)[0],
                   "size": os.path.getsize(path)},
                  {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64, "size": 10}]
        config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:" + "1" * 64, "size": 2}
        return self.answer(200, {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                                 "config": config, "layers": layers})

    def blob(self, name, digest):
        folder = os.path.join(self.hub.args.root, ".ollama", name)
        for n in os.listdir(folder) if os.path.isdir(folder) else []:
            path = os.path.join(folder, n)
            if self.hub.sums.of(path)[0] == digest:
                where = base64.urlsafe_b64encode(os.path.relpath(path, self.hub.args.root).encode()).decode()
                return self.answer(307, b"", [("Location", f"{self.hub.cdn}/{urllib.parse.quote(where)}")])
        return self.answer(404, {"errors": [{"code": "BLOB_UNKNOWN"}]})

    # ---- files

    def plain_file(self, name):
        path = os.path.join(self.hub.args.root, name)
        if ".." in name or not os.path.isfile(path):
            return self.answer(404, b"")
        return self.send_file(path, self.hub.sums.of(path)[0][:16], [])

    def cdn_file(self, path):
        try:
            name = base64.urlsafe_b64decode(path.lstrip("/")).decode()
        except ValueError:
            return self.answer(404, b"")
        full = os.path.join(self.hub.args.root, name)
        if ".." in name or not os.path.isfile(full):
            return self.answer(404, b"")
        return self.send_file(full, self.hub.sums.of(full)[0], [])

    def send_file(self, path, etag, headers):
        faults, size = self.hub.faults(), os.path.getsize(path)
        name = os.path.basename(path)
        if faults.get("length") == name:
            size -= 1
        begin, end, status = 0, size, 200
        asked = self.headers.get("Range")
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if asked and not faults.get("no_ranges") else None
        if m:
            begin, end, status = int(m[1]), min(int(m[2]) + 1, size) if m[2] else size, 206
            if begin >= size:
                return self.answer(416, b"", [("Content-Range", f"bytes */{size}")])
        packed = gzip.compress(open(path, "rb").read()[begin:end], 0) if faults.get("gzip") else None
        length = len(packed) if packed is not None else end - begin
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(length + (1 if faults.get("short") else 0)))
        self.send_header("ETag", f'"{etag}"')
        if not faults.get("no_ranges"):
            self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        if packed is not None:
            self.send_header("Content-Encoding", "gzip")
        for k, v in headers:
            self.send_header(k, v)
        if self.command == "HEAD" or length == 0:
            self.note(status)
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(path, begin, length, packed, faults, status)
        return None

    def wait_for_release(self):
        """A body that is held; the client may leave."""
        self.connection.setblocking(False)
        try:
            while self.sent >= self.hub.faults().get("hold_after", self.sent + 1):
                time.sleep(0.01)
                try:
                    if not self.connection.recv(1, socket.MSG_PEEK):
                        raise BrokenPipeError
                except BlockingIOError:
                    pass
        finally:
            self.connection.setblocking(True)

    def send_body(self, path, begin, length, packed, faults, status):
        name, stop = os.path.basename(path), length
        for key in ("cut_every", "stall_after"):
            if key in faults:
                stop = min(stop, faults[key])
        rate, plain = faults.get("rate"), packed is None and not self.hub.wrong(name) and not self.hub.args.tls
        with open(path, "rb") as f:
            f.seek(begin)
            self.wfile.flush()
            while self.sent < stop:
                n = min(stop - self.sent, 1 << 16 if rate else 1 << 22)
                if "hold_after" in faults:
                    n = min(n, 1 << 16)
                    self.wait_for_release()
                if n == stop - self.sent:  # the last byte goes alone, behind its line in the log
                    n = max(1, n - 1)
                if stop - self.sent == 1:
                    self.note(status, stop)
                if plain:
                    k = os.sendfile(self.connection.fileno(), f.fileno(), begin + self.sent, n)
                    if k == 0:
                        break
                else:
                    block = packed[self.sent:self.sent + n] if packed is not None else f.read(n)
                    if self.hub.wrong(name) and self.sent == 0:
                        block = bytes([block[0] ^ 1]) + block[1:]
                    self.wfile.write(block)
                    k = len(block)
                self.sent += k
                if rate:
                    time.sleep(k / rate)
        if stop < length or faults.get("short"):
            if "stall_after" in faults and stop < length:
                time.sleep(faults.get("stall_s", 60))
            self.close_connection = True
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--root", required=True)
    p.add_argument("--faults", default="")
    p.add_argument("--log", default="")
    p.add_argument("--tls", nargs=2)
    p.add_argument("--parent", type=int, help="end when this process has ended")
    args = p.parse_args()
    hub = Hub(args)
    servers = []
    for is_cdn in (False, True):
        handler = type("H", (Handler,), {"hub": hub, "is_cdn": is_cdn})
        s = Server(("127.0.0.1", 0), handler)
        if args.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*args.tls)
            s.socket = context.wrap_socket(s.socket, server_side=True)
        servers.append(s)
    scheme = "https" if args.tls else "http"
    hub.url = f"{scheme}://127.0.0.1:{servers[0].server_port}"
    hub.cdn = f"{scheme}://localhost:{servers[1].server_port}"
    print(json.dumps({"hub": hub.url, "cdn": hub.cdn, "pid": os.getpid()}), flush=True)
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()

    def watch():  # whoever started this is gone
        while os.path.exists(f"/proc/{args.parent}"):
            time.sleep(0.5)
        os._exit(0)

    if args.parent:
        threading.Thread(target=watch, daemon=True).start()
    try:
        servers[0].serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    sys.exit(main())
