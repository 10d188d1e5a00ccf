#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_rooms.sh - every #include "room/..." in src/ must be an edge of src/rooms.def.
#
# Everybody may include base/, squish.h and a room itself. Kernel folders (kernels/avx2) belong to kernels.
# Prints file:line: reason for each edge that is not listed, and exits 1.

set -u
root=${1:-.}
cd "$root" || exit 2
[ -f src/rooms.def ] || { echo "check_rooms: no src/rooms.def" >&2; exit 2; }

find src -name '*.[ch]' -o -name '*.def' | LC_ALL=C sort | xargs awk '
    FILENAME == "src/rooms.def" { next }
    { print FILENAME ":" FNR ":" $0 }
' | grep -E '^[^:]*:[0-9]+:[ \t]*#[ \t]*include[ \t]*"' | awk -v defs=src/rooms.def '
    BEGIN {
        while ((getline line < defs) > 0) {
            sub(/#.*/, "", line)
            colon = index(line, ":")
            if (colon == 0) continue
            room = substr(line, 1, colon - 1)
            gsub(/[ \t]/, "", room)
            known[room] = 1
            n = split(substr(line, colon + 1), uses, /[ \t]+/)
            for (i = 1; i <= n; i++) if (uses[i] != "") {
                allowed[room, uses[i]] = 1
                used[uses[i]] = room
            }
        }
        close(defs)
        for (u in used) if (!(u in known)) complain("src/rooms.def", 1, used[u] " uses " u ", which has no line")
    }
    function complain(file, line, why) { print file ":" line ": " why; bad = 1 }
    {
        split($0, at, ":")
        file = at[1]; line = at[2]
        split(file, parts, "/")
        room = parts[2]
        path = $0
        sub(/^[^"]*"/, "", path)
        sub(/".*/, "", path)
        slash = index(path, "/")
        target = slash ? substr(path, 1, slash - 1) : ""
        if (path == "squish.h" || path == "squish_build.h") next
        if (!(room in known)) { complain(file, line, "room " room " has no line in src/rooms.def"); next }
        if (path ~ /\.\./) { complain(file, line, path " climbs out of its room"); next }
        if (target == "") { # beside the file itself, as the helpers of one kernel folder are
            beside = file
            sub(/[^\/]*$/, path, beside)
            if ((getline line1 < beside) < 0) complain(file, line, path " is not beside this file; name its room")
            close(beside)
            next
        }
        if (target == "base" || target == room) next
        if (!((room, target) in allowed)) complain(file, line, room " may not include " target " (" path ")")
    }
    END { exit bad }
'
