/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_ecma.c - ECMA-262 regular expressions (with the u flag) in the words of PCRE2.
 *
 * The two dialects agree on most of the language. What differs is rewritten here: \s and . by ECMA's lists of
 * code points, \u escapes and long property names; and what only PCRE2 knows (verbs, possessive
 * quantifiers, inline flags, \A \Z \Q and their like) is refused, because in ECMA it is no regex at all. */
#include "grammar/gram_schema_int.h"

typedef struct {
    const char *p;
    size_t n, at;
    sq_buf *out;
    const char *wrong;
    bool in_class;
} ecma;

#define SPACES                                                                                               \
    "\\t-\\r \\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}\\x{feff}"
#define NO_SPACES                                                                                            \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"      \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{fefe}\\x{ff00}-\\x{10ffff}"

static void fail(ecma *e, const char *why) {
    if (!e->wrong) e->wrong = why;
    e->at = e->n;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    const char low = (char)(c | 0x20);
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

/* n hexadecimal digits at e->at, or -1 and nothing taken. */
static int32_t take_hex(ecma *e, size_t n) {
    int32_t v = 0;
    if (e->n - e->at < n) return -1;
    for (size_t i = 0; i < n; i++) {
        const int d = hex_digit(e->p[e->at + i]);
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    e->at += n;
    return v;
}

static void put_code_point(ecma *e, int32_t cp) {
    if (cp < 0 || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
        fail(e, "an escape that is no code point");
    else
        sq_buf_printf(e->out, "\\x{%x}", (unsigned)cp);
}

/* Behind \u: {h...}, hhhh, or a pair of surrogates. */
static void take_unicode(ecma *e) {
    int32_t cp = 0;
    if (e->at < e->n && e->p[e->at] == '{') {
        size_t i = e->at + 1;
        for (; i < e->n && hex_digit(e->p[i]) >= 0 && cp <= 0x10FFFF; i++) cp = cp * 16 + hex_digit(e->p[i]);
        if (i >= e->n || e->p[i] != '}' || i == e->at + 1) cp = -1;
        e->at = i + 1 < e->n ? i + 1 : e->n;
    } else {
        cp = take_hex(e, 4);
        const size_t back = e->at;
        if (cp >= 0xD800 && cp < 0xDC00 && e->n - e->at >= 6 && !memcmp(e->p + e->at, "\\u", 2)) {
            e->at += 2;
            const int32_t low = take_hex(e, 4);
            if (low >= 0xDC00 && low < 0xE000)
                cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
            else
                e->at = back;
        }
    }
    put_code_point(e, cp);
}

/* ECMA's long names of general categories; a short name or a script goes through as it is. */
static const char *const categories[][2] = {{"Letter", "L"},
                                            {"Cased_Letter", "L&"},
                                            {"LC", "L&"},
                                            {"Uppercase_Letter", "Lu"},
                                            {"Lowercase_Letter", "Ll"},
                                            {"Titlecase_Letter", "Lt"},
                                            {"Modifier_Letter", "Lm"},
                                            {"Other_Letter", "Lo"},
                                            {"Mark", "M"},
                                            {"Combining_Mark", "M"},
                                            {"Nonspacing_Mark", "Mn"},
                                            {"Spacing_Mark", "Mc"},
                                            {"Enclosing_Mark", "Me"},
                                            {"Number", "N"},
                                            {"Decimal_Number", "Nd"},
                                            {"digit", "Nd"},
                                            {"Letter_Number", "Nl"},
                                            {"Other_Number", "No"},
                                            {"Punctuation", "P"},
                                            {"punct", "P"},
                                            {"Connector_Punctuation", "Pc"},
                                            {"Dash_Punctuation", "Pd"},
                                            {"Open_Punctuation", "Ps"},
                                            {"Close_Punctuation", "Pe"},
                                            {"Initial_Punctuation", "Pi"},
                                            {"Final_Punctuation", "Pf"},
                                            {"Other_Punctuation", "Po"},
                                            {"Symbol", "S"},
                                            {"Math_Symbol", "Sm"},
                                            {"Currency_Symbol", "Sc"},
                                            {"Modifier_Symbol", "Sk"},
                                            {"Other_Symbol", "So"},
                                            {"Separator", "Z"},
                                            {"Space_Separator", "Zs"},
                                            {"Line_Separator", "Zl"},
                                            {"Paragraph_Separator", "Zp"},
                                            {"Other", "C"},
                                            {"Control", "Cc"},
                                            {"cntrl", "Cc"},
                                            {"Format", "Cf"},
                                            {"Surrogate", "Cs"},
                                            {"Private_Use", "Co"},
                                            {"Unassigned", "Cn"}};

/* Behind \p or \P. */
static void take_property(ecma *e, char letter) {
    const char *close = e->at < e->n ? memchr(e->p + e->at, '}', e->n - e->at) : NULL;
    if (!close || e->p[e->at] != '{') {
        fail(e, "\\p without {name}");
        return;
    }
    const char *name = e->p + e->at + 1;
    size_t n = (size_t)(close - name);
    e->at += n + 2;
    const char *equals = memchr(name, '=', n);
    if (equals) n -= (size_t)(equals + 1 - name), name = equals + 1;
    for (size_t i = 0; i < n; i++) {
        const char low = (char)(name[i] | 0x20);
        if (!(low >= 'a' && low <= 'z') && name[i] != '_' && !(name[i] >= '0' && name[i] <= '9')) {
            fail(e, "a \\p whose name is no name");
            return;
        }
    }
    for (size_t i = 0; i < SQ_COUNT(categories); i++) {
        if (strlen(categories[i][0]) != n || memcmp(categories[i][0], name, n)) continue;
        name = categories[i][1];
        n = strlen(name);
        break;
    }
    sq_buf_printf(e->out, "\\%c{%.*s}", letter, (int)n, name);
}

static void take_group_name(ecma *e) {
    const char *close = e->at < e->n ? memchr(e->p + e->at, '>', e->n - e->at) : NULL;
    if (!close || e->p[e->at] != '<') {
        fail(e, "\\k without <name>");
        return;
    }
    const size_t n = (size_t)(close - e->p) - e->at - 1;
    sq_buf_printf(e->out, "\\k<%.*s>", (int)n, e->p + e->at + 1);
    e->at += n + 2;
}

static void take_backreference(ecma *e) {
    size_t end = e->at;
    while (end < e->n && e->p[end] >= '0' && e->p[end] <= '9') end++;
    if (e->in_class || end - e->at > 4)
        fail(e, "a back reference where there can be none");
    else
        sq_buf_printf(e->out, "\\g{%.*s}", (int)(end - e->at), e->p + e->at);
    e->at = e->wrong ? e->n : end;
}

/* A backslash was taken. */
static void take_escape(ecma *e) {
    if (e->at >= e->n) {
        fail(e, "a backslash at the end");
        return;
    }
    const char c = e->p[e->at++];
    switch (c) {
    case 'd':
    case 'D':
    case 'w':
    case 'W':
    case 't':
    case 'n':
    case 'v':
    case 'f':
    case 'r':
        if (c == 'v')
            sq_buf_puts(e->out, "\\x{b}");
        else
            sq_buf_printf(e->out, "\\%c", c);
        return;
    case 'b': sq_buf_puts(e->out, e->in_class ? "\\x{8}" : "\\b"); return;
    case 'B':
        if (e->in_class)
            fail(e, "\\B in a class");
        else
            sq_buf_puts(e->out, "\\B");
        return;
    case 's': sq_buf_puts(e->out, e->in_class ? SPACES : "[" SPACES "]"); return;
    case 'S': sq_buf_puts(e->out, e->in_class ? NO_SPACES : "[^" SPACES "]"); return;
    case 'u': take_unicode(e); return;
    case 'x': put_code_point(e, take_hex(e, 2)); return;
    case 'p':
    case 'P': take_property(e, c); return;
    case 'k': take_group_name(e); return;
    case '0': put_code_point(e, 0); return;
    case 'c': {
        const char letter = e->at < e->n ? (char)(e->p[e->at++] | 0x20) : 0;
        put_code_point(e, letter >= 'a' && letter <= 'z' ? letter & 31 : -1);
        return;
    }
    default: break;
    }
    const char low = (char)(c | 0x20);
    if (c >= '1' && c <= '9')
        e->at--, take_backreference(e);
    else if (low >= 'a' && low <= 'z')
        fail(e, "an escaped letter that ECMA-262 does not know");
    else if ((unsigned char)c >= 0x80)
        e->at--; /* the character itself follows */
    else
        sq_buf_printf(e->out, "\\%c", c);
}

/* Behind [ up to and with ]. PCRE2 reads an inner [ as the begin of [:name:], ECMA as itself. */
static void take_class(ecma *e) {
    const bool negated = e->at < e->n && e->p[e->at] == '^';
    e->at += negated;
    if (e->at < e->n && e->p[e->at] == ']') { /* [] is nothing, [^] anything */
        sq_buf_puts(e->out, negated ? "[\\x{0}-\\x{10ffff}]" : "(?!)");
        e->at++;
        return;
    }
    sq_buf_puts(e->out, negated ? "[^" : "[");
    e->in_class = true;
    while (e->at < e->n && e->p[e->at] != ']') {
        const char c = e->p[e->at++];
        if (c == '\\')
            take_escape(e);
        else if (c == '[')
            sq_buf_puts(e->out, "\\[");
        else
            sq_buf_putc(e->out, c);
    }
    e->in_class = false;
    if (e->at >= e->n)
        fail(e, "a class without ]");
    else
        e->at++;
    sq_buf_putc(e->out, ']');
}

/* Behind ( : only the groups that ECMA knows. */
static void take_group(ecma *e) {
    static const char *const known[] = {"?:", "?=", "?!", "?<=", "?<!", "?<"};
    sq_buf_putc(e->out, '(');
    if (e->at >= e->n || (e->p[e->at] != '?' && e->p[e->at] != '*')) return;
    for (size_t i = 0; i < SQ_COUNT(known); i++) {
        const size_t n = strlen(known[i]);
        if (e->n - e->at < n || memcmp(e->p + e->at, known[i], n)) continue;
        sq_buf_puts(e->out, known[i]);
        e->at += n;
        return;
    }
    fail(e, "a group that ECMA-262 does not know");
}

/* Length of {m}, {m,} or {m,n} at e->at, 0 if the brace is a plain character. */
static size_t braces(const ecma *e) {
    size_t i = e->at + 1, digits = 0;
    while (i < e->n && e->p[i] >= '0' && e->p[i] <= '9') i++, digits++;
    if (!digits) return 0;
    if (i < e->n && e->p[i] == ',') i++;
    while (i < e->n && e->p[i] >= '0' && e->p[i] <= '9') i++;
    return i < e->n && e->p[i] == '}' ? i + 1 - e->at : 0;
}

/* A quantifier of n bytes at e->at; a + behind it would be possessive in PCRE2. */
static void take_quantifier(ecma *e, size_t n) {
    sq_buf_append(e->out, e->p + e->at, n);
    e->at += n;
    if (e->at < e->n && e->p[e->at] == '?') sq_buf_putc(e->out, '?'), e->at++;
    if (e->at >= e->n) return;
    const char c = e->p[e->at];
    if (c == '+' || c == '*' || c == '?' || (c == '{' && braces(e)))
        fail(e, "a quantifier behind a quantifier");
}

const char *gs_ecma_translate(const char *source, size_t n, sq_buf *out) {
    ecma e = {.p = source, .n = n, .out = out};
    while (e.at < e.n) {
        const char c = e.p[e.at];
        const size_t repeat = c == '*' || c == '+' || c == '?' ? 1 : c == '{' ? braces(&e) : 0;
        if (repeat) {
            take_quantifier(&e, repeat);
            continue;
        }
        e.at++;
        if (c == '\\')
            take_escape(&e);
        else if (c == '[')
            take_class(&e);
        else if (c == '(')
            take_group(&e);
        else if (c == '.')
            sq_buf_puts(out, "[^\\n\\r\\x{2028}\\x{2029}]");
        else if (c == '{' || c == '}' || c == ']')
            sq_buf_printf(out, "\\%c", c);
        else
            sq_buf_putc(out, c);
    }
    return e.wrong;
}
