#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the rows of the Debian package with scripts/check_package.sh (as root, with a network), into results/, and make the pages anew.

    scripts/targets_package.py [--dir DIR]      DIR keeps the bare system for the next time"""
import json
import pathlib
import subprocess
import tempfile

import targets
from targets import row


def package(o):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        subprocess.run(["scripts/check_package.sh", o.dir, out], cwd=targets.ROOT, check=False)
        if not out.exists():
            raise SystemExit("scripts/check_package.sh did not come to its end")
        found = json.loads(out.read_text())
    command = "make test-package"
    return [
        row("Debian package in a bare Debian 12: squish run of the shipped model", "answers Tokyo",
            f"{'Tokyo' if found['tokyo'] else 'something else'}, {found['bytes'] / 1e6:.0f} MB, {found['files']} of 6 of man page, completions "
            f"and units, a program {'builds' if found['library'] else 'DOES NOT BUILD'} against the library",
            found["tokyo"] and found["files"] == 6 and found["library"], command),
        row("the unit: exposure by systemd-analyze security", "<= 1.5", f"{found['exposure']}", found["exposure"] <= 1.5, command),
    ]


PARTS = {"package": package}


def main():
    parser = targets.parser_of(__doc__, PARTS)
    parser.add_argument("--dir", default="/var/tmp/squish-debian12")
    targets.measure_parts(parser, parser.parse_args(), PARTS)


if __name__ == "__main__":
    main()
