/* SPDX-License-Identifier: Apache-2.0
 *
 * base_utf8.c - UTF-8 as the Unicode Standard 15 defines it (table 3-7), with the replacement practice of its
 * section 3.9: one U+FFFD for each maximal subpart of an ill-formed sequence. */
#include "base/base.h"

#include <string.h>

/* Bytes a sequence with this lead has, and the range of its second byte; 0: not a lead. */
static size_t lead_shape(uint8_t lead, uint8_t *low, uint8_t *high) {
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0; /* continuation, overlong C0 C1, beyond U+10FFFF */
    if (lead < 0xE0) return 2;
    if (lead == 0xE0) *low = 0xA0;  /* else overlong */
    if (lead == 0xED) *high = 0x9F; /* else a surrogate */
    if (lead == 0xF0) *low = 0x90;  /* else overlong */
    if (lead == 0xF4) *high = 0x8F; /* else beyond U+10FFFF */
    return lead < 0xF0 ? 3 : 4;
}

/* Bytes of s[0..n) that fit the shape of one code point (0: not even the lead); *want: bytes it needs. */
static size_t well_formed_prefix(const uint8_t *s, size_t n, size_t *want) {
    uint8_t low, high;
    *want = lead_shape(s[0], &low, &high);
    if (*want == 0) return 0;
    size_t i = 1;
    for (; i < *want && i < n; i++) {
        if (s[i] < low || s[i] > high) break;
        low = 0x80;
        high = 0xBF;
    }
    return i;
}

size_t sq_utf8_decode(const char *s, size_t n, uint32_t *cp, bool *ok) {
    static const uint8_t lead_mask[5] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const uint8_t *u = (const uint8_t *)s;
    size_t want, have = well_formed_prefix(u, n, &want);
    bool good = want > 0 && have == want;
    if (ok) *ok = good;
    if (!good) {
        *cp = 0xFFFD;
        return have ? have : 1;
    }
    uint32_t value = u[0] & lead_mask[want];
    for (size_t i = 1; i < want; i++) value = value << 6 | (u[i] & 0x3Fu);
    *cp = value;
    return want;
}

size_t sq_utf8_encode(uint32_t cp, char out[4]) {
    if (cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF)) cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)(lead[n] | cp);
    return n;
}

bool sq_utf8_valid(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] < 0x80) {
            i++;
            continue;
        }
        size_t want, have = well_formed_prefix((const uint8_t *)s + i, n - i, &want);
        if (want == 0 || have != want) return false;
        i += have;
    }
    return true;
}

size_t sq_utf8_count(const char *s, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; count++) {
        uint32_t cp;
        i += sq_utf8_decode(s + i, n - i, &cp, NULL);
    }
    return count;
}

size_t sq_utf8_pending(const char *s, size_t n) {
    const uint8_t *u = (const uint8_t *)s;
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const uint8_t *lead = u + n - k;
        if (*lead >= 0x80 && *lead <= 0xBF) continue;
        size_t want, have = well_formed_prefix(lead, k, &want);
        return have == k && want > k ? k : 0;
    }
    return 0;
}
