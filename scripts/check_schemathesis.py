#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Requests generated from the served /openapi.json, right ones and wrong ones, against a server built with sanitizers.

    make test-schemathesis [MINUTES=N]
    scripts/check_schemathesis.py --build DIR --schemathesis PROGRAM [--minutes N] [--seed N]

Fails on an answer of 500 and above, an undocumented status or media type, a body that is not what the description says,
on anything a sanitizer says, and if the server does not end well. What answers 501 by design is left out: three routes,
and PATCH and TRACE, which no route serves. The model has a window of 256 tokens here, so that no answer takes long."""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import server_client as sc
import targets

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
BY_DESIGN_501 = ("/v1/rerank", "/api/push", "/api/pull")
CONFIG = """[phases.coverage]
unexpected-methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    failed = []
    with sc.Server(o.build, targets.ROOT / "models" / "squish-tiny", "--tier", "source", "--ctx", 256, "--log-file",
                   "/dev/null") as s, tempfile.TemporaryDirectory() as work:
        url = f"http://127.0.0.1:{s.port}"
        config = pathlib.Path(work) / "schemathesis.toml"
        config.write_text(CONFIG)
        command = [str(pathlib.Path(o.schemathesis).absolute()), "--config-file", str(config), "run", f"{url}/openapi.json", "--url", url, "--checks", CHECKS,
                   "--phases", "examples,coverage,fuzzing,stateful", "--max-time", str(int(o.minutes * 60)), "--seed", str(o.seed),
                   "--workers", "4", "--request-timeout", "120", "--suppress-health-check", "all", "--continue-on-failure",
                   "--warnings", "off"]
        for path in BY_DESIGN_501:
            command += ["--exclude-path", path]
        if subprocess.run(command, cwd=work, check=False).returncode:
            failed.append("schemathesis found something")
        if s.process.poll() is not None:
            failed.append(f"the server ended by itself with {s.process.returncode}")
        elif code := s.stop():
            failed.append(f"the server ended with {code}")
        log = (pathlib.Path(s.folder.name) / "log").read_text(errors="replace")
        if "Sanitizer" in log or "runtime error" in log:
            failed.append(f"a sanitizer: {log[-4000:]}")
    print("; ".join(failed) or "no server error, nothing undocumented, nothing a sanitizer saw")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
