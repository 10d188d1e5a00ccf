/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_class.c - which characters are letters, numbers, white space and word characters.
 *
 * ASCII is a table; everything else asks utf8proc for the general category. White space and \w are the
 * Unicode properties White_Space and (Alphabetic, Mark, Nd, Pc, Join_Control): a few lines each on top of
 * categories. */
#include "text/tok_int.h"

#include <utf8proc.h>

#define BIT(c) (1u << UTF8PROC_CATEGORY_##c)
static const uint32_t letters = BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO);
static const uint32_t numbers = BIT(ND) | BIT(NL) | BIT(NO);
static const uint32_t words = BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO) | BIT(MN) | BIT(MC) | BIT(ME) |
                              BIT(ND) | BIT(NL) | BIT(PC);

#define L4 TOK_L, TOK_L, TOK_L, TOK_L
#define L26 L4, L4, L4, L4, L4, L4, TOK_L, TOK_L
#define N10 TOK_N, TOK_N, TOK_N, TOK_N, TOK_N, TOK_N, TOK_N, TOK_N, TOK_N, TOK_N
const uint8_t tok_ascii_kind[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, TOK_S, TOK_S | TOK_NL, TOK_S, TOK_S, TOK_S | TOK_NL, 0, 0, /* 00 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                                       /* 10 */
    TOK_S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                                   /* 20 */
    N10, 0, 0, 0, 0, 0, 0,                                                                /* 30 */
    0, L26, 0, 0, 0, 0, 0,                                                                /* 40 */
    0, L26, 0, 0, 0, 0, 0,                                                                /* 60 */
};

static uint32_t category_bit(uint32_t cp) {
    return 1u << utf8proc_category((utf8proc_int32_t)cp);
}

bool tok_is_space(uint32_t cp) {
    if (cp < 0x80) return tok_ascii_kind[cp] & TOK_S;
    if (cp < 0x1680) return cp == 0x85 || cp == 0xA0;
    return cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

uint32_t tok_kind_wide(uint32_t cp) {
    uint32_t bit = category_bit(cp);
    if (bit & letters) return TOK_L;
    if (bit & numbers) return TOK_N;
    return tok_is_space(cp) ? TOK_S : 0;
}

bool tok_is_word(uint32_t cp) {
    if (category_bit(cp) & words) return true;
    if (cp == 0x200C || cp == 0x200D) return true; /* Join_Control */
    /* Symbols that are Other_Alphabetic: circled and squared Latin letters. */
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
           (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

static bool has_slow(const tok_class *c, const tok_range *ranges, uint32_t cp) {
    bool in = (c->categories && (category_bit(cp) & c->categories)) || (c->space && tok_is_space(cp));
    uint32_t lo = 0, hi = c->n_ranges; /* ranges are sorted and do not overlap */
    while (!in && lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const tok_range *r = &ranges[c->first_range + mid];
        if (cp < r->lo)
            hi = mid;
        else if (cp > r->hi)
            lo = mid + 1;
        else
            in = true;
    }
    return in != (c->negate != 0);
}

bool tok_class_has(const tok_class *c, const tok_range *ranges, uint32_t cp) {
    if (cp < 128) return c->ascii[cp >> 5] >> (cp & 31) & 1;
    return has_slow(c, ranges, cp);
}

void tok_class_fill_ascii(tok_class *c, const tok_range *ranges) {
    memset(c->ascii, 0, sizeof c->ascii);
    for (uint32_t cp = 0; cp < 128; cp++)
        if (has_slow(c, ranges, cp)) c->ascii[cp >> 5] |= 1u << (cp & 31);
}
