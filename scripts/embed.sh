#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# embed.sh - files as a C table: sq_api_files of src/api/api_int.h, on standard output.
#
#   scripts/embed.sh src/api/openapi.json src/api/page/index.html ...
#
# A file of page/ is found under /page/NAME, index.html under /, any other under /NAME. The tag changes with the
# contents: checksum and length. Only od, awk and cksum are needed, on every architecture alike.

set -eu
export LC_ALL=C

type_of() {
    case $1 in
    *.html) echo 'text/html; charset=utf-8' ;;
    *.css) echo 'text/css; charset=utf-8' ;;
    *.js) echo 'text/javascript; charset=utf-8' ;;
    *.json) echo 'application/json' ;;
    *.svg) echo 'image/svg+xml' ;;
    *.png) echo 'image/png' ;;
    *.ico) echo 'image/x-icon' ;;
    *.webmanifest) echo 'application/manifest+json' ;;
    *.txt | *.md) echo 'text/plain; charset=utf-8' ;;
    *) echo "embed.sh: $1: no media type for this ending" >&2; return 1 ;;
    esac
}

path_of() {
    case $1 in
    */page/index.html) echo / ;;
    */page/*) echo "/page/${1#*/page/}" ;;
    *) echo "/${1##*/}" ;;
    esac
}

echo '/* Made by scripts/embed.sh. */'
echo '#include "api/api_int.h"'
rows= i=0
for f; do
    type=$(type_of "$f")
    set -- $(cksum <"$f")
    echo "static const unsigned char file_$i[] = {"
    od -An -v -tu1 "$f" | awk '{ for (i = 1; i <= NF; i++) printf "%s,", $i; print "" }'
    echo '0};'
    rows="$rows    {\"$(path_of "$f")\", \"$type\", file_$i, $2, \"\\\\\"$1-$2\\\\\"\"},
"
    i=$((i + 1))
done
printf 'const sq_api_file sq_api_files[] = {\n%b    {0},\n};\n' "$rows"
