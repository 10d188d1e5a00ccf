#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The files the chat page consists of, gathered in one folder: our own, and three libraries of this machine.
# Usage: scripts/page_libs.sh OUT     PAGE_SHARE=DIR looks there and not in /usr/share
#
# marked, DOMPurify and highlight.js come from Debian's packages libjs-marked, node-dompurify and libjs-highlight.js.
# What is missing becomes a file without code, and the page shows plain text instead. Of highlight.js's 189 languages
# the ones below are taken: 106 of 846 kB. The licences of what was taken go along, as they ask.
set -eu
out=$1
here=$(cd "$(dirname "$0")/.." && pwd)
share=${PAGE_SHARE:-/usr/share}
languages="awk bash cmake cpp cs css diff dockerfile elixir go haskell http ini java javascript json kotlin less \
lua makefile markdown nginx objectivec perl php plaintext powershell properties protobuf python r ruby rust scala scss \
shell swift tex typescript xml yaml"

rm -rf "$out"
mkdir -p "$out"
cp "$here"/src/api/page/* "$out"/
notices=$out/third-party.txt
echo "Libraries of others in this page, with their licences." >"$notices"

# take NAME PACKAGE FILE...: the first FILE that is there
take() {
    name=$1 package=$2
    shift 2
    for file in "$@"; do
        [ -r "$share/$file" ] || continue
        cat "$share/$file" >"$out/$name"
        printf '\n\n==== %s: %s ====\n\n' "$name" "$package" >>"$notices"
        cat "$share/doc/$package/copyright" >>"$notices" 2>/dev/null || echo "(its package has no licence file)" >>"$notices"
        return
    done
    echo "/* not on the machine this program was built on */" >"$out/$name"
}
take marked.js libjs-marked javascript/marked/marked.umd.min.js javascript/marked/marked.min.js
take purify.js node-dompurify nodejs/dompurify/dist/purify.min.js javascript/dompurify/purify.min.js
# Debian 12's fix for CVE-2024-47875 reads a variable where it was never declared, and every call throws. The check
# that reads it is made again for each element, so a neutral value is all it needs.
if grep -q 'var shadowNode' "$out/purify.js" || ! grep -q 'shadowNode\.__depth' "$out/purify.js"; then :; else
    sed '1s/^/var shadowNode = {__depth: 0};/' "$out/purify.js" >"$out/purify.tmp"
    mv "$out/purify.tmp" "$out/purify.js"
fi
take highlight.js libjs-highlight.js javascript/highlight.js/highlight.min.js

# The file is its core and then one registerLanguage( a language. A file of another layout is left whole.
grep -q 'hljs\.registerLanguage("bash",' "$out/highlight.js" || exit 0
awk -v wanted="$languages" '
    BEGIN { RS = "hljs\\.registerLanguage\\("; n = split(wanted, w, " "); for (i = 1; i <= n; i++) keep[w[i]] = 1 }
    NR == 1 { printf "%s", $0; next }
    match($0, /^"[^"]*"/) && substr($0, 2, RLENGTH - 2) in keep { printf "hljs.registerLanguage(%s", $0 }
' "$out/highlight.js" >"$out/highlight.tmp"
mv "$out/highlight.tmp" "$out/highlight.js"
