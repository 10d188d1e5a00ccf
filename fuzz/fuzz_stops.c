/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_stops.c - stop strings and a text in pieces; the result must equal a plain substring search.
 *
 *   input: flags byte (bit 0: include), stop strings each ended by NUL, an empty one ends the list, text.
 * A byte 0xFF in the text ends a piece and is not part of it. */
#include "sample/sample.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STOPS_MAX = 16, TEXT_MAX = 4096 };

/* Earliest end, then longest; *cut: bytes of text before the match. */
static int32_t search(const char *const *stops, int32_t n_stops, const char *text, size_t n, size_t *cut) {
    for (size_t end = 1; end <= n; end++) {
        size_t longest = 0;
        int32_t hit = -1;
        for (int32_t i = 0; i < n_stops; i++) {
            size_t length = strlen(stops[i]);
            if (length <= longest || length > end || memcmp(text + end - length, stops[i], length) != 0)
                continue;
            longest = length;
            hit = i;
        }
        *cut = end - longest;
        if (hit >= 0) return hit;
    }
    *cut = n;
    return -1;
}

static void check(bool holds) {
    if (!holds) abort();
}

/* Feed the text piece by piece; `whole` collects it without the marks. */
static int32_t feed(sq_stops *s, const uint8_t *data, size_t size, bool include, sq_buf *whole, sq_buf *out) {
    int32_t hit = -1;
    while (size > 0) {
        const uint8_t *mark = memchr(data, 0xFF, size);
        size_t piece = mark ? (size_t)(mark - data) : size;
        sq_buf_append(whole, data, piece);
        if (hit < 0) hit = sq_stops_push(s, (const char *)data, piece, include, out);
        check(out->len <= whole->len && (out->len == 0 || memcmp(out->data, whole->data, out->len) == 0));
        data += piece + (mark != NULL);
        size -= piece + (mark != NULL);
    }
    if (hit < 0) sq_stops_finish(s, out);
    return hit;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *stops[STOPS_MAX + 1];
    int32_t n = 0;
    if (size < 2) return 0;
    bool include = data[0] & 1;
    const uint8_t *at = data + 1, *end = data + size, *nul;
    while ((nul = memchr(at, 0, (size_t)(end - at))) && nul > at && n <= STOPS_MAX) {
        stops[n++] = (const char *)at;
        at = nul + 1;
    }
    if (nul == at) at++;
    size_t left = (size_t)(end - at) < TEXT_MAX ? (size_t)(end - at) : TEXT_MAX;

    sq_stops *s;
    if (sq_stops_new(&s, stops, n, NULL, NULL) != SQUISH_OK) return 0;
    sq_buf whole, out;
    sq_buf_init(&whole, NULL, TEXT_MAX);
    sq_buf_init(&out, NULL, TEXT_MAX);
    int32_t hit = feed(s, at, left, include, &whole, &out);
    size_t cut;
    check(hit == search(stops, n, whole.data, whole.len, &cut));
    check(out.len == cut + (hit >= 0 && include ? strlen(stops[hit]) : 0));
    sq_buf_deinit(&whole);
    sq_buf_deinit(&out);
    sq_stops_free(s);
    return 0;
}
