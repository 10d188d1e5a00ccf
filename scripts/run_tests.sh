#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs test programs and fuzz replays of a build, two at a time, and closes with one line of totals.
# Usage: scripts/run_tests.sh BUILD PROGRAM...     JOBS=N (default: the cores), VERBOSE=1 shows everything
set -u
build=$1
shift
jobs=${JOBS:-$(nproc)}
out=$build/test-output
rm -rf "$out"
mkdir -p "$out"
export SQUISH_BIN=${SQUISH_BIN:-$build/squish}

run_one() {
    local prog=$1 log begin=$EPOCHREALTIME
    log=$out/$(basename "$prog").log
    case $prog in
    */fuzz/*)
        if timeout 120 "$prog" "fuzz/seeds/$(basename "$prog" | sed 's/^fuzz_//')" >"$log" 2>&1; then
            echo "[       OK ] seeds" >>"$log"
        else
            echo "[  FAILED  ] seeds of $(basename "$prog")" >>"$log"
        fi ;;
    *)
        timeout "${TEST_TIMEOUT:-300}" ${RUNNER:-} "$prog" >"$log" 2>&1
        status=$?
        if [ $status -ne 0 ] && ! grep -q '^\[  FAILED  \]' "$log"; then
            echo "[  FAILED  ] $(basename "$prog"): exit status $status" >>"$log"
        fi ;;
    esac
    awk -v a="$begin" -v b="$EPOCHREALTIME" -v n="$(basename "$prog")" 'BEGIN { printf "%.1f %s\n", b - a, n }' >>"$out/seconds"
}
export -f run_one
export out

printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'run_one {}'

passed=0 failed=0 skipped=0
for prog in "$@"; do
    log=$out/$(basename "$prog").log
    p=$(grep -c '^\[       OK \]' "$log")
    # cmocka repeats failures in its summary, so the run lines are what counts
    f=$(grep '^\[  FAILED  \]' "$log" | sort -u | grep -vc ' test(s), listed below')
    s=$(grep '^\[  SKIPPED \]' "$log" | grep -v ' test(s)' | sort -u | grep -c .)
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then
        echo "--- $(basename "$prog")"
        grep -E '^\[  (FAILED|ERROR)|^ERROR|error: Failure|ERROR: |runtime error|SUMMARY' "$log" | sort -u | head -n 40
    fi
    if [ "$s" -gt 0 ]; then
        grep -iE '^skipped:' "$log" | sort -u | sed "s|^|$(basename "$prog"): |"
    fi
    [ -n "${VERBOSE:-}" ] && cat "$log"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
