/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_rans.c - an entropy coder of bytes (see kv_rans.h).
 *
 * A state x in [2^16, 2^32) stands for everything coded so far. To code a byte of frequency f (of 4096) that
 * begins at c among all: x -> x / f * 4096 + c + x % f, after 16 bits went out if x would leave its range.
 * Decoding undoes that from the last to the first, so coding begins with the last byte. */
#include "kv/kv_rans.h"

#include "kv/kv_bytes.h"

#include <string.h>

enum { BITS = 12, ALL = 1 << BITS, STATES = 4, HEAD = 9, TABLE = 512 + 4 * STATES };
enum { PLAIN, ONE_ROW, TWO_ROWS };
#define LOW 65536u /* least state */

typedef struct {
    uint16_t f[256], c[257];
} table;

size_t sq_rans_bound(size_t n) { return n + (n / SQ_RANS_BLOCK + 1) * HEAD; }

static void sum_up(table *t) {
    t->c[0] = 0;
    for (int i = 0; i < 256; i++) t->c[i + 1] = (uint16_t)(t->c[i] + t->f[i]);
}

/* Frequencies of 4096 in all, none of what occurs 0. in: every stride-th byte, n of them. */
static void count(const uint8_t *in, size_t n, size_t stride, table *t) {
    uint32_t seen[256] = {0};
    int32_t left = ALL, most = 0;
    for (size_t i = 0; i < n; i++) seen[in[i * stride]]++;
    for (int i = 0; i < 256; i++) {
        const uint64_t f = (uint64_t)seen[i] * ALL / n;
        t->f[i] = (uint16_t)(seen[i] && f == 0 ? 1 : f);
        left -= t->f[i];
        if (t->f[i] > t->f[most]) most = i;
    }
    /* What rounding left goes to the most frequent; what it took too much comes from those that have most. */
    for (; left < 0; left++) {
        for (int i = 0; i < 256; i++)
            if (t->f[i] > t->f[most]) most = i;
        t->f[most]--;
    }
    t->f[most] = (uint16_t)(t->f[most] + left);
    sum_up(t);
}

/* ---- one row --------------------------------------------------------------------------------- */

/* Code into out; 0: no fewer than `room` bytes. scratch holds `room` bytes, filled from its end. */
static size_t put_row(const uint8_t *in, size_t n, size_t stride, uint8_t *out, size_t room,
                      uint8_t *scratch) {
    table t;
    uint32_t x[STATES] = {LOW, LOW, LOW, LOW};
    size_t at = room;
    if (n == 0 || room < TABLE) return 0;
    count(in, n, stride, &t);
    for (size_t i = n; i-- > 0;) {
        const uint32_t f = t.f[in[i * stride]], c = t.c[in[i * stride]];
        uint32_t *s = &x[i % STATES];
        if (*s >= (uint64_t)f << (32 - BITS)) {
            if (at < 2) return 0;
            at -= 2;
            const uint16_t low = (uint16_t)*s;
            memcpy(scratch + at, &low, sizeof low);
            *s >>= 16;
        }
        *s = (*s / f << BITS) + c + *s % f;
    }
    if (TABLE + room - at >= room) return 0;
    memcpy(out, t.f, 512);
    memcpy(out + 512, x, sizeof x);
    memcpy(out + TABLE, scratch + at, room - at);
    return TABLE + room - at;
}

/* Bytes of `in` used, or 0: it is no row. */
static size_t get_row(sq_span in, uint8_t *out, size_t n, size_t stride) {
    table t;
    uint8_t byte_of[ALL];
    uint32_t x[STATES], all = 0;
    size_t at = TABLE;
    if (in.n < TABLE) return 0;
    memcpy(t.f, in.p, 512);
    for (int i = 0; i < 256; i++) all += t.f[i];
    if (all != ALL) return 0;
    sum_up(&t);
    for (int i = 0; i < 256; i++) memset(byte_of + t.c[i], i, t.f[i]);
    for (int i = 0; i < STATES; i++) x[i] = sq_kv_u32_at(in.p, 512 + 4 * (size_t)i);
    for (size_t i = 0; i < n; i++) {
        uint32_t *s = &x[i % STATES];
        const uint32_t low = *s & (ALL - 1);
        const uint8_t b = byte_of[low];
        out[i * stride] = b;
        *s = t.f[b] * (*s >> BITS) + low - t.c[b];
        if (*s >= LOW) continue;
        if (in.n - at < 2) return 0;
        *s = *s << 16 | sq_kv_u16_at(in.p, at);
        at += 2;
    }
    for (int i = 0; i < STATES; i++)
        if (x[i] != LOW) return 0;
    return at;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static size_t put_two(const uint8_t *in, size_t n, uint8_t *out, size_t room, uint8_t *scratch) {
    const size_t a = put_row(in, (n + 1) / 2, 2, out, room, scratch);
    if (a == 0) return 0;
    const size_t b = put_row(in + 1, n / 2, 2, out + a, room - a, scratch);
    return b ? a + b : 0;
}

static size_t put_block(const uint8_t *in, size_t n, uint8_t *out, uint8_t *scratch) {
    uint8_t *made = scratch + SQ_RANS_BLOCK;
    uint8_t kind = PLAIN;
    size_t best = put_row(in, n, 1, out + HEAD, n, scratch);
    if (best) kind = ONE_ROW;
    const size_t two = put_two(in, n, made, best ? best : n, scratch);
    if (two) {
        memcpy(out + HEAD, made, two);
        kind = TWO_ROWS, best = two;
    }
    if (kind == PLAIN) memcpy(out + HEAD, in, best = n);
    const uint32_t sizes[2] = {(uint32_t)n, (uint32_t)best};
    out[0] = kind;
    memcpy(out + 1, sizes, sizeof sizes);
    return HEAD + best;
}

size_t sq_rans_encode(const uint8_t *in, size_t n, uint8_t *out, uint8_t *scratch) {
    size_t at = 0;
    for (size_t i = 0; i < n; i += SQ_RANS_BLOCK)
        at += put_block(in + i, n - i < SQ_RANS_BLOCK ? n - i : SQ_RANS_BLOCK, out + at, scratch);
    return at;
}

static bool get_block(uint8_t kind, sq_span in, uint8_t *out, size_t n) {
    if (kind == PLAIN) {
        if (in.n != n) return false;
        memcpy(out, in.p, n);
        return true;
    }
    if (kind == ONE_ROW) return get_row(in, out, n, 1) == in.n;
    if (kind != TWO_ROWS || n < 2) return false;
    const size_t a = get_row(in, out, (n + 1) / 2, 2);
    return a > 0 && a + get_row((sq_span){in.p + a, in.n - a}, out + 1, n / 2, 2) == in.n && a < in.n;
}

squish_status sq_rans_decode(sq_span in, uint8_t *out, size_t n, squish_error *err) {
    size_t at = 0;
    for (size_t i = 0; i < n;) {
        const size_t left = in.n - at, want = n - i < SQ_RANS_BLOCK ? n - i : SQ_RANS_BLOCK;
        if (left < HEAD) return sq_fail(err, SQUISH_CORRUPT, "archive: ends inside a block's head");
        const size_t raw = sq_kv_u32_at(in.p, at + 1), coded = sq_kv_u32_at(in.p, at + 5);
        if (raw != want || coded > left - HEAD)
            return sq_fail(err, SQUISH_CORRUPT, "archive: a block of %zu bytes in %zu, wanted %zu in %zu",
                           raw, coded, want, left - HEAD);
        if (!get_block(in.p[at], (sq_span){in.p + at + HEAD, coded}, out + i, raw))
            return sq_fail(err, SQUISH_CORRUPT, "archive: a block of kind %d does not decode", in.p[at]);
        at += HEAD + coded;
        i += raw;
    }
    if (at != in.n) return sq_fail(err, SQUISH_CORRUPT, "archive: %zu bytes too many", in.n - at);
    return SQUISH_OK;
}
