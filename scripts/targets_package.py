#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the rows of the Debian package with scripts/check_package.sh (as root, with a network), into results/, and make the pages anew.

    scripts/targets_package.py [--dir DIR]      DIR keeps the bare system for the next time"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import targets
from targets import row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default="/var/tmp/squish-debian12")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        subprocess.run(["scripts/check_package.sh", o.dir, out], cwd=targets.ROOT, check=False)
        found = json.loads(out.read_text())
    command = "make test-package"
    rows = [
        row("Debian package in a bare Debian 12: squish run of the shipped model", "answers Tokyo",
            f"{'Tokyo' if found['tokyo'] else 'something else'}, {found['bytes'] / 1e6:.0f} MB, {found['files']} of 6 of man page, completions "
            f"and units, a program {'builds' if found['library'] else 'DOES NOT BUILD'} against the library",
            found["tokyo"] and found["files"] == 6 and found["library"], command),
        row("the unit: exposure by systemd-analyze security", "<= 1.5", f"{found['exposure']}", found["exposure"] <= 1.5, command),
    ]
    for r in rows:
        print(f"{'ok  ' if r['ok'] else 'MISS'} {r['name']}: {r['value']} ({r['bar']})")
    targets.write_result(rows)
    targets.pages()


if __name__ == "__main__":
    main()
