#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a folder with the arm64 libraries and headers squish is linked with, for cross building and qemu-user.
# Usage: scripts/arm_sysroot.sh DIR      (DIR/.complete afterwards: nothing more to do)
#
# For Debian; on Ubuntu the apt sources must name a mirror with arm64 (ports.ubuntu.com). apt-get resolves and
# downloads the packages against lists and a package state of its own inside DIR, dpkg-deb unpacks them:
# nothing on the system is installed, removed or configured, and root is not needed.
set -euo pipefail
dir=${1:?usage: scripts/arm_sysroot.sh DIR}
pkgs="libc6 libc6-dev libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libedit-dev libevent-dev libssl-dev libcmocka-dev"
[ -e "$dir/.complete" ] && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
    echo "arm_sysroot.sh needs apt-get and dpkg-deb (Debian or Ubuntu)" >&2
    exit 1
}

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
apt=$dir/.apt
rm -rf "$apt"
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
# A state without a single installed package makes apt resolve everything, libc included, for arm64 alone.
opts=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64
    -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::State::lists="$apt/lists"
    -o Dir::Cache="$apt/cache" -o Debug::NoLocking=1 -o Acquire::Retries=3
    -o Acquire::Languages=none -o APT::Sandbox::User= -o APT::Install-Recommends=false)
echo "downloading arm64 libraries into $dir ..."
if ! { apt-get "${opts[@]}" update &&
    apt-get "${opts[@]}" install -y --download-only $pkgs; } >"$apt/log" 2>&1; then
    tail -n 15 "$apt/log" >&2
    exit 1
fi
for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$dir"; done
rm -rf "$apt"
touch "$dir/.complete"
