# SPDX-License-Identifier: Apache-2.0
"""The report of `squish poc` and `squish bench` in a real browser: it stands alone, says what the JSON says, fits a phone and a
sheet of paper. Part of `make test-page`."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import browser


def shown(value):
    size = abs(value)
    return f"{value:.0f}" if size >= 1000 else f"{value:.4g}" if size >= 100 else f"{value:.3g}"


def tables_say_what_the_json_says(page, report):
    cells = page.js("return [...document.querySelectorAll('.beside tr')].map(r => [...r.querySelectorAll('td')].map(c => c.textContent.trim()))")
    rows = [c for c in cells if c]
    assert len(rows) == len(report["beside"]), (len(rows), len(report["beside"]))
    for got, want in zip(rows, report["beside"]):
        assert got[0] == want["name"] and got[1] == want["seed"], (got, want)
        if want["value"] is not None:
            assert float(got[2]) == float(shown(want["value"])), (got, want)


def plots_are_drawn(page, report):
    n = page.js("return document.querySelectorAll('svg').length")
    assert n >= 1 and page.js("return [...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 40)")


def nothing_is_asked_for_and_nothing_complains(page, report):
    page.drain_logs()
    assert all(u.startswith(("file:", "data:")) for u in page.requests), page.requests
    assert not [c for c in page.console if c["level"] == "SEVERE"], page.console


def a_phone_scrolls_tables_not_the_page(page, report):
    page.size(390, 800, mobile=True)
    wide = page.js("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1] + 1, wide


def paper_is_white_and_holds_the_tables(page, report):
    page.size(794, 1123)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = page.js("return Math.max(...[...document.querySelectorAll('table')].map(t => t.getBoundingClientRect().right))")
    assert wide <= 794 + 1, wide


TESTS = (tables_say_what_the_json_says, plots_are_drawn, nothing_is_asked_for_and_nothing_complains, a_phone_scrolls_tables_not_the_page,
         paper_is_white_and_holds_the_tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--squish", required=True)
    options = parser.parse_args()
    if not browser.find_browser():
        print("skipped: no chromium and chromedriver on this machine")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    bad = 0
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([options.squish, "poc", "--runs", "1", "--skip-reference", "--report", d], check=True, capture_output=True)
        report = json.load(open(os.path.join(d, "bench.json"), encoding="utf-8"))
        page = browser.Browser(d)
        try:
            page.driver.get("file://" + os.path.join(d, "index.html"))
            for test in TESTS:
                try:
                    test(page, report)
                    print(f"ok   {test.__name__}")
                except AssertionError as e:
                    bad += 1
                    print(f"FAIL {test.__name__}: {e}")
        finally:
            page.close()
    print(f"{len(TESTS) - bad} passed, {bad} failed, 0 skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
