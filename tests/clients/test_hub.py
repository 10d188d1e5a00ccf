# SPDX-License-Identifier: Apache-2.0
"""PyPI's huggingface_hub and ollama against our fake hub and our server: what a real client downloads from the fake, unchanged,
is what squish pulls from it, which proves both.

    make test-hub            builds a virtual environment (needs network once) and runs this
"""
import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.join(HERE, "..", "..")
FAKE = os.path.join(HERE, "..", "support", "fake_hub.py")


def start(command, env=None):
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    return p, json.loads(p.stdout.readline())


def client(code, env):
    r = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    return r.stdout.strip().splitlines()[-1]


def fill(root):
    for repo in ("me/tiny", "me/gated"):
        os.makedirs(os.path.join(root, repo))
        for n in os.listdir(os.path.join(TREE, "models", "squish-tiny")):
            os.symlink(os.path.realpath(os.path.join(TREE, "models", "squish-tiny", n)), os.path.join(root, repo, n))
    with open(os.path.join(root, "me/gated/.gated"), "w") as f:
        f.write("open-sesame")


def huggingface_hub_downloads_what_squish_pulls(squish, hub, d):
    env = dict(os.environ, HF_ENDPOINT=hub["hub"], HF_HOME=os.path.join(d, "hf"), HF_HUB_DISABLE_PROGRESS_BARS="1",
               SQUISH_HOME=os.path.join(d, "home"), HF_HUB_DISABLE_TELEMETRY="1")
    theirs = client("from huggingface_hub import snapshot_download as s; print(s('me/tiny'))", env)
    subprocess.run([squish, "pull", "hf.co/me/tiny", "-q"], env=env, check=True, stdout=subprocess.DEVNULL)
    ours = os.path.join(d, "home", "models", "hf.co--me--tiny")
    names = [n for n in os.listdir(ours) if n != "squish-manifest.json"]
    assert len(names) >= 8, names
    for n in names:
        assert filecmp.cmp(os.path.join(theirs, n), os.path.join(ours, n), shallow=False), n
    # and what it downloaded is found in its cache and runs there
    r = subprocess.run([squish, "run", "me/tiny", "--tier", "source", "--temp", "0", "--offline", "What is the capital of Japan?"],
                       env=dict(env, SQUISH_HOME=os.path.join(d, "empty")), capture_output=True, text=True)
    assert "Tokyo" in r.stdout, r.stderr


def huggingface_hub_is_refused_and_let_in_as_squish_is(squish, hub, d):
    env = dict(os.environ, HF_ENDPOINT=hub["hub"], HF_HOME=os.path.join(d, "hf2"), SQUISH_HOME=os.path.join(d, "home2"),
               HF_HUB_DISABLE_PROGRESS_BARS="1")
    code = ("from huggingface_hub import hf_hub_download as h\nfrom huggingface_hub.errors import GatedRepoError\n"
            "try: print(h('me/gated', 'config.json'))\nexcept GatedRepoError: print('gated')")
    assert client(code, env) == "gated"
    assert subprocess.run([squish, "pull", "me/gated", "-q"], env=env, stderr=subprocess.DEVNULL).returncode == 6
    env["HF_TOKEN"] = "open-sesame"
    assert client(code, env).endswith("config.json")
    assert subprocess.run([squish, "pull", "me/gated", "-q"], env=env, stdout=subprocess.DEVNULL).returncode == 0


def ollamas_client_pulls_through_the_server(squish, hub, d):
    env = dict(os.environ, HF_ENDPOINT=hub["hub"], SQUISH_HOME=os.path.join(d, "home3"))
    server, ready = start([squish, "serve", "--port", "0", "--json", "-q"], env)
    try:
        import ollama
        c = ollama.Client(host=ready["ready"])
        seen = [x for x in c.pull("hf.co/me/tiny", stream=True)]
        assert seen[0].status == "pulling manifest" and seen[-1].status == "success", seen
        assert any(x.total and x.completed for x in seen)
        assert any(x.status == "compressing" for x in seen), "the tier that it runs is made"
        assert "hf.co/me/tiny:latest" in [m.model for m in c.list().models]
        a = c.chat(model="hf.co/me/tiny", messages=[{"role": "user", "content": "What is the capital of Japan?"}],
                   options={"temperature": 0})
        assert "Tokyo" in a.message.content, a
        assert c.delete("hf.co/me/tiny").status == "success"
    finally:
        server.terminate()
        server.wait(60)


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--squish", default="build/squish")
    o = a.parse_args()
    failed = 0
    tests = (huggingface_hub_downloads_what_squish_pulls, huggingface_hub_is_refused_and_let_in_as_squish_is,
             ollamas_client_pulls_through_the_server)
    with tempfile.TemporaryDirectory() as d:
        fill(os.path.join(d, "root"))
        fake, hub = start([sys.executable, FAKE, "--root", os.path.join(d, "root"), "--parent", str(os.getpid())])
        try:
            for t in tests:
                begin = time.time()
                try:
                    t(os.path.abspath(o.squish), hub, d)
                    print(f"ok   {t.__name__} ({time.time() - begin:.1f} s)", flush=True)
                except Exception as e:
                    failed += 1
                    print(f"FAIL {t.__name__}: {type(e).__name__}: {e}", flush=True)
        finally:
            fake.terminate()
            fake.wait(10)
    print(f"{len(tests) - failed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
