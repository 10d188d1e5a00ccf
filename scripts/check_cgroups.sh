#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The memory decision in three real cgroups: the shipped model with tiers 0 and q8 beside it, under limits where
# only tier 0 fits, where q8 does, and where the checkpoint does. Needs root and a memory controller (v1 or v2);
# says so and ends with 77 where there is none. BUILD=build scripts/check_cgroups.sh
set -u
cd "$(dirname "$0")/.." || exit 1
squish=${BUILD:-build}/squish
work=$(mktemp -d)
if [ -d /sys/fs/cgroup/memory ]; then
    root=/sys/fs/cgroup/memory limit=memory.limit_in_bytes
else
    root=/sys/fs/cgroup limit=memory.max
fi
group=$root/squish-check-$$
clean() {
    rmdir "$group" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
if ! mkdir "$group" 2>/dev/null || [ ! -w "$group/$limit" ]; then
    echo "skipped: no memory cgroup can be made here"
    exit 77
fi
cp -r models/squish-tiny "$work/m"
"$squish" compress "$work/m" --tier 0,q8 --method rtn --unchecked --quiet >/dev/null || exit 1
status=0
for case in "405:0" "425:q8" "600:source"; do
    mb=${case%%:*} want=${case##*:}
    echo $((mb * 1000000)) >"$group/$limit"
    line=$(bash -c "echo \$\$ >$group/cgroup.procs && exec $squish plan $work/m --policy quality" | head -n 1)
    got=$(echo "$line" | sed -n 's/^tier \([a-z0-9]*\):.*/\1/p')
    if [ "$got" = "$want" ]; then word=ok; else word=FAILED status=1; fi
    echo "$word  $mb MB: $line"
done
exit $status
