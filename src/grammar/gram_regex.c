/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_regex.c - the syntax of regular expressions, read into terms.
 *
 * What ECMA-262 and RE2 agree on: | * + ? {m,n} (lazy forms mean the same language), groups, classes,
 * escapes. \d and \w are ASCII, \s is the white space of ECMA-262. What is not regular, or needs a look
 * around, is refused by name. Recursive descent over groups, at most SQ_GRAM_NESTING_MAX of them in each
 * other. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

enum { CLASS_RANGES_MAX = 1024, CODE_POINT_MAX = 0x10FFFF };

typedef struct {
    gram_pool *p;
    const char *s, *what;
    size_t n, at;
    int depth;
    gram_spelling spelling;
    bool whole;
    unsigned flags;  /* GRAM_BOTH_CASES and the like */
    gram_vec groups; /* of span, by where they begin; made when the first is asked for */
} reader;

/* One side of a part of the expression: inside of it, where no ^ or $ can hold; or at the border of the
 * text, which is held, or open for any text before or behind it. */
typedef enum { INSIDE, HELD, OPEN } side;

static gram_term alternatives(reader *r, side begin, side end);

static gram_term refuse(reader *r, squish_status st, const char *why) {
    gram_fail(r->p, st, "%s: %s at offset %zu", r->what, why, r->at);
    r->at = r->n;
    return GRAM_EMPTY;
}

static bool next_is(const reader *r, char c) { return r->at < r->n && r->s[r->at] == c; }
static bool take(reader *r, const char *token) {
    const size_t n = strlen(token);
    if (r->n - r->at < n || memcmp(r->s + r->at, token, n) != 0) return false;
    r->at += n;
    return true;
}

static uint32_t take_char(reader *r) {
    uint32_t c;
    bool ok;
    const size_t n = sq_utf8_decode(r->s + r->at, r->n - r->at, &c, &ok);
    if (!ok)
        refuse(r, SQUISH_INVALID, "ill-formed UTF-8");
    else
        r->at += n;
    return c;
}

/* ---- escapes and classes ---------------------------------------------------------------------- */

static bool take_hex(reader *r, int n_min, int n_max, uint32_t *out) {
    uint32_t v = 0;
    int n = 0;
    for (; n < n_max && r->at < r->n; n++, r->at++) {
        const char c = r->s[r->at];
        const int d = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
        if (d < 0) break;
        v = v * 16 + (uint32_t)d;
    }
    *out = v;
    return n >= n_min;
}

static const gram_range digits[] = {{'0', '9'}};
static const gram_range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
static const gram_range spaces[] = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                                    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                    {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

typedef struct {
    gram_range r[CLASS_RANGES_MAX];
    size_t n;
} char_class;

static bool add(reader *r, char_class *c, uint32_t lo, uint32_t hi) {
    if (c->n == CLASS_RANGES_MAX) {
        refuse(r, SQUISH_UNSUPPORTED, "more than 1024 ranges in a class");
        return false;
    }
    c->r[c->n++] = (gram_range){lo, hi};
    return true;
}

/* Sorted, apart from each other, without gaps between neighbours. */
static void normalise(char_class *c) {
    for (size_t i = 1; i < c->n; i++) {
        const gram_range x = c->r[i];
        size_t k = i;
        for (; k > 0 && c->r[k - 1].lo > x.lo; k--) c->r[k] = c->r[k - 1];
        c->r[k] = x;
    }
    size_t m = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (m && c->r[i].lo <= c->r[m - 1].hi + 1) {
            if (c->r[i].hi > c->r[m - 1].hi) c->r[m - 1].hi = c->r[i].hi;
        } else {
            c->r[m++] = c->r[i];
        }
    }
    c->n = m;
}

static void invert(char_class *c) {
    normalise(c);
    uint32_t from = 0;
    size_t m = 0;
    for (size_t i = 0; i < c->n; i++) {
        const gram_range x = c->r[i];
        if (x.lo > from) c->r[m++] = (gram_range){from, x.lo - 1};
        from = x.hi + 1;
    }
    if (from <= CODE_POINT_MAX && m < CLASS_RANGES_MAX) c->r[m++] = (gram_range){from, CODE_POINT_MAX};
    c->n = m;
}

static void add_named(reader *r, char_class *c, char name) {
    const char low = (char)(name | 32);
    const gram_range *l = low == 'd' ? digits : low == 'w' ? words : spaces;
    const size_t n = low == 'd' ? SQ_COUNT(digits) : low == 'w' ? SQ_COUNT(words) : SQ_COUNT(spaces);
    if (name == low) {
        for (size_t i = 0; i < n; i++) add(r, c, l[i].lo, l[i].hi);
        return;
    }
    uint32_t from = 0;
    for (size_t i = 0; i < n; i++) {
        if (l[i].lo > from) add(r, c, from, l[i].lo - 1);
        from = l[i].hi + 1;
    }
    add(r, c, from, CODE_POINT_MAX);
}

/* After a backslash. A named class goes into *c and gives false; a code point gives true. */
static bool escape(reader *r, char_class *c, bool in_class, uint32_t *out) {
    *out = 0;
    if (r->at == r->n) return refuse(r, SQUISH_INVALID, "a backslash ends the expression"), false;
    const char e = r->s[r->at];
    if (strchr("dDwWsS", e)) return r->at++, add_named(r, c, e), false;
    if (in_class && e == 'b') return r->at++, *out = '\b', true;
    if (e == 'b' || e == 'B')
        return refuse(r, SQUISH_UNSUPPORTED, "\\b looks around, which is no regular expression"), false;
    if (e == 'p' || e == 'P') return refuse(r, SQUISH_UNSUPPORTED, "\\p is not supported"), false;
    if (e >= '1' && e <= '9')
        return refuse(r, SQUISH_UNSUPPORTED, "a back reference is no regular expression"), false;
    if (e == 'k') return refuse(r, SQUISH_UNSUPPORTED, "a back reference is no regular expression"), false;
    static const char letters[] = "tnrfv0ae", values[] = "\t\n\r\f\v\0\a\x1b";
    const char *l = strchr(letters, e);
    if (l && e) return r->at++, *out = (uint8_t)values[l - letters], true;
    if (e == 'c' && r->at + 1 < r->n) return r->at += 2, *out = (uint8_t)(r->s[r->at - 1] & 31), true;
    if (e == 'x' || e == 'u') {
        r->at++;
        const bool braces = take(r, "{");
        const int want = e == 'x' ? 2 : 4;
        if (!take_hex(r, braces ? 1 : want, braces ? 6 : want, out) || (braces && !take(r, "}")))
            return refuse(r, SQUISH_INVALID, "wrong hexadecimal escape"), false;
        uint32_t low;
        if (*out >= 0xD800 && *out < 0xDC00 && take(r, "\\u") && take_hex(r, 4, 4, &low))
            *out = 0x10000 + ((*out - 0xD800) << 10) + (low - 0xDC00);
        if (*out > CODE_POINT_MAX) return refuse(r, SQUISH_INVALID, "no such code point"), false;
        return true;
    }
    if ((e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z'))
        return refuse(r, SQUISH_UNSUPPORTED, "unknown escape"), false;
    *out = take_char(r);
    return true;
}

static void add_other_case(reader *r, char_class *c) {
    for (size_t i = 0, n = c->n; i < n; i++) {
        const gram_range x = c->r[i];
        for (uint32_t from = 'A'; from <= 'a'; from += 'a' - 'A') {
            const uint32_t lo = x.lo > from ? x.lo : from, hi = x.hi < from + 25 ? x.hi : from + 25;
            if (lo <= hi) add(r, c, lo ^ 32, hi ^ 32);
        }
    }
}

static gram_term class_term(reader *r, char_class *c, bool negated) {
    if (r->flags & GRAM_BOTH_CASES) add_other_case(r, c);
    if (negated)
        invert(c);
    else
        normalise(c);
    return gram_chars(r->p, c->r, c->n, r->spelling);
}

/* After "[". */
static gram_term bracket(reader *r) {
    char_class c = {.n = 0};
    const bool negated = take(r, "^");
    bool first = true;
    for (;; first = false) {
        if (gram_failed(r->p)) return GRAM_EMPTY;
        if (r->at >= r->n) return refuse(r, SQUISH_INVALID, "a class without its ]");
        if (!first && take(r, "]")) break;
        if (first && take(r, "]")) break; /* ECMA: [] matches nothing, [^] everything */
        uint32_t lo, hi;
        const bool single = take(r, "\\") ? escape(r, &c, true, &lo) : (lo = take_char(r), true);
        hi = lo;
        if (single && r->at + 1 < r->n && next_is(r, '-') && r->s[r->at + 1] != ']') {
            r->at++;
            if (take(r, "\\")) {
                if (!escape(r, &c, true, &hi)) { /* [a-\d]: a minus and a class */
                    add(r, &c, '-', '-');
                    hi = lo;
                }
            } else {
                hi = take_char(r);
            }
        }
        if (hi < lo) return refuse(r, SQUISH_INVALID, "a range of a class runs backwards");
        if (single) add(r, &c, lo, hi);
    }
    return class_term(r, &c, negated);
}

/* ---- parts ------------------------------------------------------------------------------------ */

static gram_term group(reader *r, side begin, side end) {
    if (take(r, "?=") || take(r, "?!") || take(r, "?<=") || take(r, "?<!"))
        return refuse(r, SQUISH_UNSUPPORTED, "a look around is no regular expression");
    if (take(r, "?:")) {
    } else if (take(r, "?<") || take(r, "?P<")) {
        while (r->at < r->n && r->s[r->at] != '>') r->at++;
        r->at += r->at < r->n;
    } else if (next_is(r, '?')) {
        return refuse(r, SQUISH_UNSUPPORTED, "unknown kind of group");
    }
    if (++r->depth > SQ_GRAM_NESTING_MAX)
        return refuse(r, SQUISH_NO_MEMORY, "over the limit of 512 groups in each other");
    const gram_term t = alternatives(r, begin, end);
    r->depth--;
    if (!take(r, ")")) return refuse(r, SQUISH_INVALID, "a group without its )");
    return t;
}

/* Kept out of what recurses: a class is 8 KiB of stack. */
static __attribute__((noinline)) gram_term one_char(reader *r) {
    char_class c = {.n = 0};
    if (take(r, "[")) return bracket(r);
    if (take(r, ".")) {
        if (r->flags & GRAM_DOT_ALL) return gram_any_char(r->p, r->spelling);
        if (r->flags & GRAM_DOT_RETURN)
            c = (char_class){.r = {{0, '\n' - 1}, {'\n' + 1, CODE_POINT_MAX}}, .n = 2};
        else
            c = (char_class){.r = {{0, '\n' - 1}, {'\n' + 1, '\r' - 1}, {'\r' + 1, CODE_POINT_MAX}}, .n = 3};
        return class_term(r, &c, false);
    }
    uint32_t cp;
    if (take(r, "\\")) {
        if (!escape(r, &c, false, &cp)) return gram_failed(r->p) ? GRAM_EMPTY : class_term(r, &c, false);
    } else {
        if (strchr("*+?", r->s[r->at]) && r->s[r->at]) return refuse(r, SQUISH_INVALID, "nothing to repeat");
        if (next_is(r, '^') || next_is(r, '$'))
            return refuse(r, SQUISH_UNSUPPORTED, "^ and $ are only supported at the ends");
        cp = take_char(r);
    }
    c = (char_class){.r = {{cp, cp}}, .n = 1};
    return class_term(r, &c, false);
}

static gram_term atom(reader *r) { return take(r, "(") ? group(r, INSIDE, INSIDE) : one_char(r); }

static bool take_number(reader *r, uint32_t *out) {
    const size_t from = r->at;
    uint64_t v = 0;
    for (; r->at < r->n && r->s[r->at] >= '0' && r->s[r->at] <= '9'; r->at++)
        if (v <= SQ_GRAM_REPEAT_MAX) v = v * 10 + (uint64_t)(r->s[r->at] - '0');
    *out = v > SQ_GRAM_REPEAT_MAX ? SQ_GRAM_REPEAT_MAX + 1 : (uint32_t)v;
    return r->at > from;
}

/* {m}, {m,}, {m,n}; false, at the same place, if what stands there is no count. */
static bool take_count(reader *r, uint32_t *lo, uint32_t *hi) {
    const size_t from = r->at;
    if (take(r, "{") && take_number(r, lo)) {
        *hi = *lo;
        if (take(r, ",")) {
            if (next_is(r, '}'))
                *hi = GRAM_INF;
            else if (!take_number(r, hi))
                goto none;
        }
        if (take(r, "}")) return true;
    }
none:
    r->at = from;
    return false;
}

static gram_term repeated(reader *r) {
    gram_term t = atom(r);
    for (;;) {
        uint32_t lo, hi;
        if (take(r, "*"))
            lo = 0, hi = GRAM_INF;
        else if (take(r, "+"))
            lo = 1, hi = GRAM_INF;
        else if (take(r, "?"))
            lo = 0, hi = 1;
        else if (!take_count(r, &lo, &hi))
            return t;
        if (hi < lo) return refuse(r, SQUISH_INVALID, "a count runs backwards");
        if (lo > SQ_GRAM_REPEAT_MAX || (hi > SQ_GRAM_REPEAT_MAX && hi != GRAM_INF))
            return refuse(r, SQUISH_NO_MEMORY, "a count is over the limit of 16777216");
        t = gram_rep(r->p, t, lo, hi);
        if (take(r, "?")) continue; /* lazy: the same language */
        if (next_is(r, '+')) return refuse(r, SQUISH_UNSUPPORTED, "possessive repetition");
    }
}

/* ---- groups at the borders ---------------------------------------------------------------------- */

/* From a ( to its ), or the end; holds: a ^ or $ stands in it. */
typedef struct {
    uint32_t open, end, around; /* around: index of the group it lies in, or GRAM_NONE */
    bool holds;
} span;

static uint32_t open_group(reader *r, uint32_t at, uint32_t around) {
    span *to = gram_vec_room(r->p, &r->groups, 1, sizeof *to);
    if (!to) return around;
    *to = (span){at, (uint32_t)r->n, around, false};
    return (uint32_t)r->groups.n++;
}

/* All of the expression, in one pass: to look for the end of each where it begins would be one for each. */
static void find_groups(reader *r) {
    uint32_t in = GRAM_NONE;
    bool in_class = false;
    for (uint32_t i = 0; i < r->n; i++) {
        const char c = r->s[i];
        span *x = in == GRAM_NONE ? NULL : &GRAM_AT(r->groups, span, in);
        if (c == '\\') {
            i++;
        } else if (in_class) {
            in_class = c != ']';
        } else if (c == '[') {
            in_class = true;
        } else if (c == '(') {
            in = open_group(r, i, in);
        } else if (x && (c == '^' || c == '$')) {
            x->holds = true;
        } else if (x && c == ')') {
            x->end = i;
            in = x->around;
            if (in != GRAM_NONE) GRAM_AT(r->groups, span, in).holds |= x->holds;
        }
    }
}

static int by_open(const void *a, const void *b) {
    const span *x = a, *y = b;
    return x->open < y->open ? -1 : x->open > y->open;
}

/* The group that begins here; NULL after a failure. */
static const span *group_here(reader *r) {
    if (r->groups.n == 0) find_groups(r);
    const span key = {.open = (uint32_t)r->at};
    if (gram_failed(r->p) || r->groups.n == 0) return NULL;
    return bsearch(&key, r->groups.p, r->groups.n, sizeof key, by_open);
}

static bool ends_sequence(const reader *r, size_t at) {
    return at >= r->n || r->s[at] == '|' || r->s[at] == ')';
}

/* A group at a border of the text, in which that may be held: what is open there is open in each alternative
 * that does not hold it. False: what comes is no such group. */
static bool border_group(reader *r, side *begin, side *end) {
    const span *g = next_is(r, '(') ? group_here(r) : NULL;
    if (!g || !g->holds) return false;
    const size_t last = g->end;
    if (last + 1 < r->n && strchr("*+?{", r->s[last + 1])) return false;
    const side b = *begin, e = ends_sequence(r, last + 1) ? *end : INSIDE;
    if (b == INSIDE && e == INSIDE) return false;
    r->at++;
    const gram_term t = group(r, b, e);
    gram_vec_push_u32(r->p, &r->p->scratch, t);
    if (b == OPEN) *begin = HELD;
    if (e == OPEN) *end = HELD;
    return true;
}

/* One alternative. Parts wait on scratch, so that a long text is joined from its end. */
static gram_term sequence(reader *r, side begin, side end) {
    const gram_term any = gram_rep(r->p, gram_any_char(r->p, r->spelling), 0, GRAM_INF);
    const size_t base = r->p->scratch.n;
    if (take(r, "^")) {
        if (begin == INSIDE) return refuse(r, SQUISH_UNSUPPORTED, "^ is only supported at the beginning");
        begin = HELD;
    }
    for (side here = begin; !ends_sequence(r, r->at) && !gram_failed(r->p); here = INSIDE) {
        side held = here;
        if (end != INSIDE && ends_sequence(r, r->at + 1) && take(r, "$")) {
            end = HELD;
            break;
        }
        if (!border_group(r, &held, &end))
            gram_vec_push_u32(r->p, &r->p->scratch, repeated(r));
        else if (here == OPEN)
            begin = held;
    }
    gram_term t = end == OPEN ? any : GRAM_EPS;
    while (r->p->scratch.n > base) t = gram_cat(r->p, GRAM_AT(r->p->scratch, uint32_t, --r->p->scratch.n), t);
    return begin == OPEN ? gram_cat(r->p, any, t) : t;
}

static gram_term alternatives(reader *r, side begin, side end) {
    const size_t base = r->p->scratch.n;
    do {
        const gram_term t = sequence(r, begin, end);
        gram_vec_push_u32(r->p, &r->p->scratch, t);
    } while (take(r, "|") && !gram_failed(r->p));
    if (r->p->scratch.n < base) return GRAM_EMPTY; /* after a failure */
    return gram_alt_list(r->p, base);
}

static gram_term read(reader *r) {
    const side border = r->whole ? HELD : OPEN;
    const gram_term t = alternatives(r, border, border);
    if (r->at < r->n) refuse(r, SQUISH_INVALID, "a ) without its group");
    gram_vec_free(r->p, &r->groups, sizeof(span));
    return gram_failed(r->p) ? GRAM_EMPTY : t;
}

gram_term gram_regex(gram_pool *p, const char *s, size_t n, gram_spelling spelling, bool whole,
                     const char *what) {
    return read(&(reader){.p = p, .s = s, .what = what, .n = n, .spelling = spelling, .whole = whole});
}

gram_term gram_regex_with(gram_pool *p, const char *s, size_t n, unsigned flags, const char *what) {
    return read(&(reader){.p = p, .s = s, .what = what, .n = n, .whole = true, .flags = flags});
}
