#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Files as a C table, on standard output. Usage: scripts/embed.sh PATH=FILE...
# Each row of sq_api_files: path, media type by the ending of FILE, bytes, length, ETag. Only od and awk are needed.
#
# The ETag is two polynomial sums of the bytes modulo primes below 2^32 (products stay under 2^53, so awk's doubles are
# exact) and the length: it tells builds apart, it is no seal.
set -eu
export LC_ALL=C
for pair in "$@"; do
    [ -r "${pair#*=}" ] || { echo "embed.sh: ${pair#*=}: cannot be read" >&2; exit 1; }
done

type_of() {
    case $1 in
    *.html) echo "text/html; charset=utf-8" ;;
    *.js) echo "text/javascript; charset=utf-8" ;;
    *.css) echo "text/css; charset=utf-8" ;;
    *.svg) echo "image/svg+xml" ;;
    *.json) echo "application/json" ;;
    *.txt) echo "text/plain; charset=utf-8" ;;
    *) echo "embed.sh: $1: no media type for this ending" >&2; return 1 ;;
    esac
}

printf '/* SPDX-License-Identifier: Apache-2.0\n *\n * Made by scripts/embed.sh; not to be edited. */\n'
printf '#include "api/api_int.h"\n\n'
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
i=0
for pair in "$@"; do
    path=${pair%%=*} file=${pair#*=}
    type=$(type_of "$file")
    printf 'static const unsigned char file_%d[] = {\n' "$i"
    od -An -v -tu1 -w24 "$file" | awk -v rows="$rows" -v i="$i" -v path="$path" -v type="$type" '
        {
            line = ""
            for (k = 1; k <= NF; k++) {
                a = (a * 257 + $k + 1) % 4294967291
                b = (b * 65599 + $k + 1) % 4294967279
                line = line $k ","
            }
            n += NF
            print line
        }
        END {
            if (n == 0) print "0"
            printf "    {\"%s\", \"%s\", file_%d, %d, \"\\\"%.0f-%.0f-%d\\\"\"},\n", path, type, i, n, a, b, n >>rows
        }'
    printf '};\n'
    i=$((i + 1))
done
printf '\nconst sq_api_file sq_api_files[] = {\n'
cat "$rows"
printf '    {0},\n};\n'
