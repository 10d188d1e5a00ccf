#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make test-live: one small public model from the real hub, pulled into a store of its own, compressed, and its first 20
# tokens. Closes with one line of totals; without a network it is skipped. Usage: scripts/test_live.sh SQUISH MODEL
set -u
squish=$1 model=$2
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
"$squish" pull "$model" --dry-run --home "$home" --retries 1 >"$home/out" 2>&1
status=$?
if [ $status -eq 6 ]; then
    echo "skipped: no network: $(tail -n 1 "$home/out")"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
if [ $status -eq 0 ] && "$squish" run "$model" --home "$home" --temp 0 -n 20 "What is the capital of Japan?" &&
    "$squish" list --home "$home" | grep -q "^$model"; then
    echo "1 passed, 0 failed, 0 skipped"
else
    cat "$home/out"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
