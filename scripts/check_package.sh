#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian's packages: built from what is committed, installed in a bare Debian 12 in a folder, and used there: the
# shipped model answers, sockets that listen already are served, a program is built against the library. And how exposed
# the unit is. As root, with a network. Usage: scripts/check_package.sh [DIR] [OUT.json]   DIR keeps the bare system
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-/var/tmp/squish-debian12}
out=${2:-}
for tool in debootstrap dpkg-buildpackage systemd-analyze dh; do
    command -v $tool >/dev/null || { echo "needs $tool (apt-get install debootstrap dpkg-dev debhelper systemd)" >&2; exit 1; }
done
cd "$src"
mkdir -p build
[ -x "$dir/bin/bash" ] || debootstrap --variant=minbase --include=git,gcc,make bookworm "$dir" >/dev/null
[ -n "${KEEP:-}" ] || make --no-print-directory -s deb >build/deb.log 2>&1 || { tail -n 20 build/deb.log >&2; exit 1; }
work=$dir.package
rm -rf --one-file-system "$work"
cp -a "$dir" "$work"
cp /etc/resolv.conf "$work/etc/" 2>/dev/null || true
cp build/deb/*.deb "$work/root/"
mount -t proc proc "$work/proc"
mount --bind /dev "$work/dev"
trap 'umount "$work/proc" "$work/dev"' EXIT
inside() { chroot "$work" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb DEBIAN_FRONTEND=noninteractive bash -c "cd /root && $1"; }
inside "apt-get update >/dev/null && apt-get install -y --no-install-recommends ./squish_*.deb ./libsquish-dev_*.deb >/dev/null"
# a service's home: a folder of its own, the package read-only
answer=$(inside "SQUISH_HOME=/var/lib/squish squish run 'What is the capital of Japan?' 2>/dev/null")
echo "squish run: $answer"
files=$(inside "dpkg -L squish | grep -cE '/(squish.1.gz|completions/squish|_squish|squish.fish|squish.service|squish.socket)$'")
echo "man page, completions, units: $files of 6"
inside "squish doctor" || { echo "squish doctor failed" >&2; exit 1; }
inside "apt-get install -y --no-install-recommends pkg-config libc6-dev >/dev/null && cat >x.c <<'C' && gcc x.c \$(pkg-config --static --cflags --libs squish) -o x && ./x
#include <squish.h>
#include <stdio.h>
int main(void) { squish_machine m; squish_machine_get(&m); return puts(m.isa) < 0; }
C" && built=true || built=false
exposure=$(systemd-analyze security --offline=true --root="$work" squish.service --no-pager 2>/dev/null |
    sed -n 's/.*exposure level for squish.service: \([0-9.]*\).*/\1/p')
bytes=$(stat -c %s "$work"/root/squish_*.deb)
echo "exposure of the unit: $exposure; a program against the library: $built; the package: $bytes bytes"
tokyo=false
case $answer in *Tokyo*) tokyo=true ;; esac
[ -z "$out" ] || printf '{"tokyo": %s, "files": %d, "exposure": %s, "library": %s, "bytes": %d}\n' \
    "$tokyo" "$files" "$exposure" "$built" "$bytes" >"$out"
[ "$tokyo" = true ] && [ "$files" = 6 ] && [ "$built" = true ] && awk "BEGIN { exit !($exposure <= 1.5) }"
