#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing on Debian and Ubuntu; elsewhere prints the packages. Usage: scripts/deps.sh run|test|arm
# Asks once on a terminal; YES=1 or no terminal means yes.
set -u
what=${1:-run}
run_pkgs="gcc make pkg-config libc6-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev libevent-dev libssl-dev libcurl4-openssl-dev libzip-dev liburing-dev"
page_pkgs="libjs-marked node-dompurify libjs-highlight.js" # Markdown in the chat page; without them it shows plain text
run_pkgs="$run_pkgs $page_pkgs"
test_pkgs="$run_pkgs git libcmocka-dev clang llvm lld libclang-rt-14-dev zsh fish bash mandoc python3-venv chromium chromium-driver"
arm_pkgs="$test_pkgs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
case $what in
run) pkgs=$run_pkgs ;;
test) pkgs=$test_pkgs ;;
arm) pkgs=$arm_pkgs ;;
*) echo "usage: scripts/deps.sh run|test|arm" >&2; exit 2 ;;
esac

have_headers() { # the quick answer, without a package manager
    command -v pkg-config >/dev/null && command -v "${CC:-gcc}" >/dev/null || return 1
    pkg-config --exists jansson libpcre2-8 libutf8proc libxxhash libedit libevent_extra libcrypto || return 1
    [ "$what" = run ] && return 0
    pkg-config --exists cmocka && command -v clang >/dev/null && command -v zsh >/dev/null &&
        command -v fish >/dev/null && command -v mandoc >/dev/null || return 1
    [ "$what" = test ] && return 0
    command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null
}
# What only makes more of it: a machine without apt-get, or without a network, builds and tests without.
have_extras() {
    [ -r /usr/share/javascript/marked/marked.umd.min.js ] && [ -r /usr/share/nodejs/dompurify/dist/purify.min.js ] &&
        [ -r /usr/share/javascript/highlight.js/highlight.min.js ] || return 1
    pkg-config --exists libcurl libzip liburing || return 1
    [ "$what" = run ] && return 0
    command -v chromedriver >/dev/null
}
needed=yes
if have_headers; then
    have_extras || command -v apt-get >/dev/null || exit 0
    have_extras && exit 0
    needed=no
fi

if ! command -v apt-get >/dev/null; then
    echo "squish needs these libraries with their headers: jansson, pcre2 (8 bit), utf8proc, xxhash, libedit, libevent, openssl, libcurl, libzip," >&2
    echo "and gcc or clang, make, pkg-config$([ "$what" = run ] || echo ', cmocka, clang, zsh, fish, mandoc'). Install them with your package manager." >&2
    exit 1
fi
missing=""
for p in $pkgs; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q "ok installed" || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "squish needs these packages:$missing"
if [ -z "${YES:-}" ] && [ -t 0 ] && [ -t 1 ]; then
    printf 'Install them now with apt-get? [Y/n] '
    read -r answer
    case $answer in "" | y | Y | yes) ;; *) [ $needed = no ]; exit ;; esac
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || [ $needed = yes ] || exit 0
    command -v sudo >/dev/null || { echo "run as root: apt-get install$missing" >&2; exit 1; }
    sudo=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing (apt-get, quiet) ..."
if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 update &&
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    [ $needed = no ] && { echo "could not install them; going on without" >&2; exit 0; }
    tail -n 15 "$log" >&2
    echo "apt-get failed; install by hand:$missing" >&2
    exit 1
fi
