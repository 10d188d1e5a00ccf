#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# check_style.sh - the mechanical part of the style: what a reader should not have to look for.
#
# Checks C sources and headers in src/, include/, tests/ and fuzz/: the SPDX line, line length, tabs, trailing
# blanks and banned calls; in src/ and include/ also the length of files and words of unfinished work, in src/
# calls of malloc and its family. Prints file:line: reason and exits 1.

set -u
export LC_ALL=C
root=${1:-.}
cd "$root" || exit 2

dirs=
for d in include src tests fuzz; do [ -d "$d" ] && dirs="$dirs $d"; done

# $dirs is a list of plain words, so it is not quoted. In src/ memory comes from the allocator table, whose default
# is the one place that names malloc.
find $dirs -name '*.[ch]' | sort | xargs awk '
    function complain(file, line, why) { print file ":" line ": " why; bad = 1 }
    # Columns of a line: UTF-8 continuation bytes take none.
    function columns(s) { gsub(/[\200-\277]/, "", s); return length(s) }
    # The line without string literals and comments, so that words in them are no calls. A comment may go on.
    function code_of(s,    out, i, c, two, quote) {
        out = ""; quote = ""
        for (i = 1; i <= length(s); i++) {
            c = substr(s, i, 1); two = substr(s, i, 2)
            if (in_comment) { if (two == "*/") { in_comment = 0; i++ } }
            else if (quote != "") { if (c == "\\") i++; else if (c == quote) quote = "" }
            else if (two == "/*") { in_comment = 1; i++ }
            else if (two == "//") return out
            else if (c == "\"" || c == "\047") { quote = c; out = out c }
            else out = out c
        }
        return out
    }
    function end_of_file() {
        if (file ~ /^(src|include)\// && lines > 800) complain(file, lines, lines " lines, at most 800")
    }
    FNR == 1 {
        if (file != "") end_of_file()
        file = FILENAME; in_comment = 0
        if ($0 != "/* SPDX-License-Identifier: Apache-2.0") complain(file, 1, "the first line is not the SPDX line")
    }
    {
        lines = FNR
        if (columns($0) > 110) complain(file, FNR, columns($0) " columns, at most 110")
        if (index($0, "\t")) complain(file, FNR, "a tab")
        if ($0 ~ /[ \r]$/) complain(file, FNR, "blanks at the end of the line")
        if (file ~ /^(src|include)\// && tolower($0) ~ /(^|[^a-z_])(todo|fixme|xxx|stubs?|placeholder|not implemented)([^a-z_]|$)/)
            complain(file, FNR, "a word of unfinished work")
        code = code_of($0)
        if (match(code, /(^|[^A-Za-z0-9_])(strcpy|strcat|sprintf|vsprintf|atoi|atol|atof|gets|strtok|alloca)[ ]*\(/)) {
            call = substr(code, RSTART, RLENGTH)
            gsub(/[^a-z]/, "", call)
            complain(file, FNR, "banned call " call)
        }
        if (file ~ /^src\// && file != "src/base/base_alloc.c" &&
            match(code, /(^|[^A-Za-z0-9_])(malloc|calloc|realloc|strdup|strndup)[ ]*\(/))
            complain(file, FNR, "memory not taken through squish_alloc")
    }
    END { end_of_file(); exit bad }
' || exit 1
