/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_cursor.c - the bounded cursor all untrusted bytes go through, and two helpers every reader needs: text
 * fit for a message and a sort that allocates nothing.
 *
 * The cursor never computes an address it has not checked: a read of n bytes compares n with what is left, so
 * no sum can wrap. After the first fault it yields zeros, which lets a reader take several fields and check
 * once. */
#include "format/format.h"

#include "format/fmt_int.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats are read in place, little-endian");

sq_cur sq_cur_make(sq_span s) {
    return (sq_cur){.p = s.p, .n = s.n, .at = 0, .fault = SIZE_MAX};
}

bool sq_cur_ok(const sq_cur *c) {
    return c->fault == SIZE_MAX;
}

size_t sq_cur_left(const sq_cur *c) {
    return sq_cur_ok(c) ? c->n - c->at : 0;
}

sq_span sq_cur_bytes(sq_cur *c, uint64_t n) {
    if (!sq_cur_ok(c)) return (sq_span){NULL, 0};
    if (n > c->n - c->at) {
        c->fault = c->at;
        return (sq_span){NULL, 0};
    }
    sq_span s = {c->p ? c->p + c->at : NULL, (size_t)n};
    c->at += (size_t)n;
    return s;
}

void sq_cur_skip(sq_cur *c, uint64_t n) {
    (void)sq_cur_bytes(c, n);
}

/* Values may lie at any address, so they are copied, not dereferenced. */
static void take(sq_cur *c, void *out, size_t n) {
    sq_span s = sq_cur_bytes(c, n);
    if (s.p) {
        memcpy(out, s.p, n);
    } else {
        memset(out, 0, n);
    }
}

uint8_t sq_cur_u8(sq_cur *c) {
    uint8_t v;
    take(c, &v, sizeof v);
    return v;
}

uint16_t sq_cur_u16(sq_cur *c) {
    uint16_t v;
    take(c, &v, sizeof v);
    return v;
}

uint32_t sq_cur_u32(sq_cur *c) {
    uint32_t v;
    take(c, &v, sizeof v);
    return v;
}

uint64_t sq_cur_u64(sq_cur *c) {
    uint64_t v;
    take(c, &v, sizeof v);
    return v;
}

float sq_cur_f32(sq_cur *c) {
    float v;
    take(c, &v, sizeof v);
    return v;
}

double sq_cur_f64(sq_cur *c) {
    double v;
    take(c, &v, sizeof v);
    return v;
}

/* ---- helpers of the room --------------------------------------------------------------------- */

const char *sq_fmt_show(sq_shown *out, const char *s, size_t n) {
    size_t w = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool ok;
        size_t len = sq_utf8_decode(s + i, n - i, &cp, &ok);
        /* C1 controls and the bidirectional overrides can rewrite a terminal line just as C0 can. */
        bool control = cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || (cp >= 0x202A && cp <= 0x202E) ||
                       (cp >= 0x2066 && cp <= 0x2069);
        size_t need = ok && !control ? len : 1;
        if (w + need > SQ_SHOW_BYTES) {
            memcpy(out->text + w, "...", 4);
            return out->text;
        }
        if (need == 1 && (!ok || control)) {
            out->text[w] = '?';
        } else {
            memcpy(out->text + w, s + i, len);
        }
        w += need;
        i += len;
    }
    out->text[w] = 0;
    return out->text;
}

bool sq_fmt_is_lfs_pointer(sq_span s) {
    static const char head[] = "version https://git-lfs";
    return s.n >= sizeof head - 1 && memcmp(s.p, head, sizeof head - 1) == 0;
}

/* Move item[root] down until both children are no greater: the step of a heap sort. */
static void sift_down(uint32_t *item, size_t root, size_t n, sq_fmt_less less, const void *ctx) {
    uint32_t moving = item[root];
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && less(ctx, item[child], item[child + 1])) child++;
        if (!less(ctx, moving, item[child])) break;
        item[root] = item[child];
    }
    item[root] = moving;
}

void sq_fmt_sort(uint32_t *item, size_t n, sq_fmt_less less, const void *ctx) {
    for (size_t i = n / 2; i > 0; i--) sift_down(item, i - 1, n, less, ctx);
    for (size_t end = n; end > 1; end--) {
        uint32_t top = item[0];
        item[0] = item[end - 1];
        item[end - 1] = top;
        sift_down(item, 0, end - 1, less, ctx);
    }
}
