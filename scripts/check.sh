#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make check: what must hold beyond the tests. Rooms, style, no warnings from gcc and clang, the tests under
# ASan+UBSan, the threaded ones under TSan, the kernels on aarch64 under qemu, a short fuzz of every parser.
# Each step counts as one check; closes with one line of totals. FUZZ_SECONDS=N (default 2) per target.
# SQUISH_LONG=1 (make check-long): every test under sanitizers, none of them shortened, and all of aarch64.
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
passed=0 failed=0 skipped=0
log=build/check.log
mkdir -p build
: >"$log"

step() { # step NAME COMMAND...
    local name=$1 begin=$SECONDS
    shift
    if "$@" >"$log.step" 2>&1; then
        passed=$((passed + 1))
        echo "ok      $name ($((SECONDS - begin)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED  $name ($((SECONDS - begin)) s)"
        tail -n 40 "$log.step"
    fi
    cat "$log.step" >>"$log"
}

quiet_make() { make --no-print-directory -s -j"$jobs" "$@"; }
long=${SQUISH_LONG:-}

# What finds wrong numbers, which the plain run looks for: sanitizers see the code of these in the tests of each room, of the
# API and of the command line. Others like them run in part where SQUISH_SAMPLE is set.
numbers='sameness|squish_tiny|squish_tiny_moe|collapse|refine|sample_draw|decode_allocations|repl|plan_kv|heads|eval_reference'
sanitized() { # the tests that run under ASan and UBSan
    for t in tests/{e2e,golden,fault,prop,unit}/test_*.c; do echo "build/asan/${t%.c}"; done |
        grep -vE "/test_${long:+none/}($numbers)$"
}
threaded=$(printf 'build/tsan/tests/%s ' unit/test_base_pool unit/test_http_server unit/test_sched_masks e2e/test_batch golden/test_architectures)
# The same objects serve the tests and libFuzzer, so they count edges as well.
asan='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer'

# The build that make test made says what it warned of.
without_warnings() {
    quiet_make test-build || return 1
    [ -n "$(find build/src build/tests build/fuzz -name '*.o.warnings' -print -quit)" ] || { echo "no warnings were kept"; return 1; }
    ! find build/src build/tests build/fuzz -name '*.o.warnings' -size +0 -exec cat {} + | grep .
}

# Wide kernels have no sanitizers: those builds take the ones of make test, and clang reads them for warnings alone, as it
# does tests that run without.
syntax() { quiet_make CC=clang WERROR=1 syntax SYNTAX_TESTS="${numbers//|/ }"; }

sanitized_build() {
    quiet_make CC=clang WERROR=1 BUILD=build/asan WIDE=build OPT="-O1 -gline-tables-only" SAN="$asan" all $(sanitized) libfuzzer-build
}

sanitized_tests() {
    # jansson keeps a hash seed for ever; nothing of ours may leak.
    [ -n "$long" ] || export SQUISH_SAMPLE=8
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 TEST_TIMEOUT=${TEST_TIMEOUT:-600} \
        scripts/run_tests.sh build/asan $(sanitized)
}

threaded_build() { quiet_make CC=clang BUILD=build/tsan WIDE=build OPT="-O1 -gline-tables-only" SAN="-fsanitize=thread" $threaded; }
threaded_tests() { TSAN_OPTIONS=halt_on_error=1 TEST_TIMEOUT=${TEST_TIMEOUT:-600} scripts/run_tests.sh build/tsan $threaded; }

# In make check-long as make test-arm does.
arm() { env SQUISH_SAMPLE=${long:-8} make --no-print-directory -s -j"$jobs" test-arm; }

# Each target first takes all of its seeds, and what was found before.
fuzz_all() {
    local seconds=${FUZZ_SECONDS:-2} status=0 name
    for f in fuzz/fuzz_*.c; do
        name=$(basename "${f%.c}")
        mkdir -p "build/fuzz/corpus/$name"
        echo "$name"
    done | xargs -P "$jobs" -I{} sh -c "build/asan/libfuzzer/{} -max_total_time=$seconds -timeout=10 -rss_limit_mb=1024 \
        -max_len=65536 -artifact_prefix=build/fuzz/{}- build/fuzz/corpus/{} fuzz/seeds/\$(echo {} | sed s/^fuzz_//) \
        >build/fuzz/{}.log 2>&1 || { echo '{} found something:'; tail -n 30 build/fuzz/{}.log; exit 255; }" || status=1
    return $status
}

step "rooms" scripts/check_rooms.sh
step "style" scripts/check_style.sh
step "no warnings, gcc" without_warnings
step "no warnings, clang; ASan and UBSan build" sanitized_build
step "no warnings of what has no sanitizers, clang" syntax
step "tests under ASan and UBSan" sanitized_tests
step "TSan build" threaded_build
step "threads under TSan" threaded_tests
step "short fuzz of every parser" fuzz_all
step "chat page in a browser" quiet_make test-page
step "kernels on aarch64 under qemu" arm
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
