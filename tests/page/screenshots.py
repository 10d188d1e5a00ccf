# SPDX-License-Identifier: Apache-2.0
"""Pictures of the chat page for the documentation: light, dark, phone. `make page-images`.

They show scripted answers, so the same commit gives the same pictures.
"""
import argparse
import os
import tempfile

import fake_server
from browser import Browser

SIZES = {"light": (1180, 800, False), "dark": (1180, 800, False), "phone": (360, 740, True)}


def earlier(b):
    """A list that looks used."""
    for text in ("Review of the parser's error messages", "Packing list for three days in Kyoto",
                 "Why is the build slow on two cores?"):
        b.say(text)
        b.click("#new") if b.visible("#new") else b.js("document.querySelector('#new').click()")


def take(b, url, name, out):
    width, height, mobile = SIZES[name]
    b.prefer("dark" if name == "dark" else "light")
    b.size(width, height, mobile)
    b.fresh(url)
    earlier(b)
    b.say("Explain how a hash table works, with a short example.")
    b.until(lambda: b.text("#meter-text")[0])
    b.js("document.querySelector('#log').scrollTop = arguments[0]", 0)
    b.js("document.activeElement.blur()")
    b.until(lambda: not b.all(".toast"))
    b.driver.save_screenshot(os.path.join(out, f"page-{name}.png"))


def main():
    parser = argparse.ArgumentParser(description="pictures of the chat page")
    parser.add_argument("--page", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    server, _ = fake_server.start(args.page)
    with tempfile.TemporaryDirectory() as downloads:
        browser = Browser(downloads)
        try:
            for name in SIZES:
                take(browser, f"http://127.0.0.1:{server.server_address[1]}/", name, args.out)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
