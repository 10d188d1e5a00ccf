/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_text.c - text as the tasks want it. */
#include "eval/eval.h"

#include <string.h>
#include <utf8proc.h>

/* White space as Python's str.strip takes it. */
static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

sq_span eval_stripped(const char *s, size_t n) {
    size_t begin = 0, end = 0;
    bool seen = false;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const size_t k = sq_utf8_decode(s + i, n - i, &cp, NULL);
        if (!is_space(cp)) {
            if (!seen) begin = i;
            seen = true;
            end = i + k;
        }
        i += k;
    }
    return (sq_span){(const uint8_t *)s + begin, end - begin};
}

/* The end of a bracket that opens at s[0], on the same line; 0: it does not close. */
static size_t bracket(const char *s, size_t n) {
    for (size_t i = 1; i < n && s[i] != '\n'; i++)
        if (s[i] == ']') return i + 1;
    return 0;
}

/* " [title]" to ". ", then bracketed text away: three passes in the harness, each over the whole text. */
static bool without_brackets(sq_buf *out, const char *s, size_t n) {
    static const char title[] = " [title]";
    sq_buf titled;
    sq_buf_init(&titled, &out->alloc, out->max);
    for (size_t i = 0; i < n;) {
        const bool here = n - i >= sizeof title - 1 && memcmp(s + i, title, sizeof title - 1) == 0;
        if (here)
            sq_buf_puts(&titled, ". ");
        else
            sq_buf_putc(&titled, s[i]);
        i += here ? sizeof title - 1 : 1;
    }
    for (size_t i = 0; i < titled.len;) {
        const size_t k = titled.data[i] == '[' ? bracket(titled.data + i, titled.len - i) : 0;
        if (!k) sq_buf_putc(out, titled.data[i]);
        i += k ? k : 1;
    }
    const bool ok = !titled.failed && !out->failed;
    sq_buf_deinit(&titled);
    return ok;
}

bool eval_hellaswag_text(sq_buf *out, const char *s, size_t n) {
    const sq_span core = eval_stripped(s, n);
    sq_buf bare;
    sq_buf_init(&bare, &out->alloc, out->max);
    bool ok = without_brackets(&bare, (const char *)core.p, core.n);
    for (size_t i = 0; ok && i < bare.len; i++) {
        sq_buf_putc(out, bare.data[i]);
        if (bare.data[i] == ' ' && i + 1 < bare.len && bare.data[i + 1] == ' ') i++;
    }
    ok = ok && !out->failed;
    sq_buf_deinit(&bare);
    return ok;
}

bool eval_capitalised(sq_buf *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        char utf8[4];
        const bool first = i == 0;
        i += sq_utf8_decode(s + i, n - i, &cp, NULL);
        const utf8proc_int32_t c = (utf8proc_int32_t)cp;
        cp = (uint32_t)(first ? utf8proc_totitle(c) : utf8proc_tolower(c));
        sq_buf_append(out, utf8, sq_utf8_encode(cp, utf8));
    }
    return !out->failed;
}
