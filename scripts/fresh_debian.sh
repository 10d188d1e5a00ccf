#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What a newcomer does, on a Debian 12 that has only git, gcc and make: clone, make run, make test. As root, with a network.
# Usage: scripts/fresh_debian.sh [DIR] [OUT.json]     DIR keeps the bare system for the next time
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/squish-debian12}
out=${2:-}
command -v debootstrap >/dev/null || { echo "needs debootstrap (apt-get install debootstrap)" >&2; exit 1; }
[ -x "$dir/bin/bash" ] || debootstrap --variant=minbase --include=git,gcc,make bookworm "$dir" >/dev/null
work=$dir.run
rm -rf --one-file-system "$work"
cp -a "$dir" "$work"
cp /etc/resolv.conf "$work/etc/" 2>/dev/null || true
mount -t proc proc "$work/proc"
mount --bind /dev "$work/dev"
mount --bind /dev/pts "$work/dev/pts" # tests of the chat open terminals
trap 'umount "$work/proc" "$work/dev/pts" "$work/dev"' EXIT
git clone -q "$src" "$work/root/squish"
inside() { chroot "$work" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb YES=1 bash -c "cd /root/squish && $1"; }
begin=$(date +%s)
answer=$(inside "make run")
run_s=$(($(date +%s) - begin))
printf '%s\n' "$answer"
begin=$(date +%s)
totals=$(inside "make test" | tee /dev/stderr | tail -n 1)
test_s=$(($(date +%s) - begin))
echo "make run: $run_s s with installs; make test: $test_s s with installs: $totals"
tokyo=false
case $answer in *Tokyo*) tokyo=true ;; esac
[ -z "$out" ] || printf '{"run_seconds": %d, "test_seconds": %d, "tokyo": %s, "totals": "%s"}\n' \
    "$run_s" "$test_s" "$tokyo" "$totals" >"$out"
[ "$tokyo" = true ]
