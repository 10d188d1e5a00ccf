/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_map.c - which blocks of a file are there, as text on disk. A map that is not exactly what would have
 * been written for this file counts as none. */
#include "fetch/fetch_files.h"

#include <stdio.h>
#include <string.h>

size_t fetch_map_header(uint64_t bytes, const char *sum, char *out, size_t n) {
    const int len = snprintf(out, n, "squish-parts 1 %llu %s\n", (unsigned long long)bytes, sum ? sum : "-");
    return len > 0 && (size_t)len < n ? (size_t)len : 0;
}

bool fetch_map_read(const char *text, size_t n, uint64_t bytes, const char *sum, uint8_t *blocks,
                    size_t n_blocks) {
    char head[160];
    const size_t len = fetch_map_header(bytes, sum, head, sizeof head);
    if (len == 0 || n != len + n_blocks || memcmp(text, head, len) != 0) return false;
    for (size_t i = 0; i < n_blocks; i++)
        if (text[len + i] != '#' && text[len + i] != '.') return false;
    for (size_t i = 0; i < n_blocks; i++) blocks[i] = text[len + i] == '#';
    return true;
}
