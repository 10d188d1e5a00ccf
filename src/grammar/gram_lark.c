/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_lark.c - grammars as Lark writes them, in the subset that engines like ours share.
 *
 *   start: "{" pair ("," pair)* "}"        rules, in lower case: a text may be ignored behind each terminal
 *   pair.2: NAME "=" (INT | /"[^"]*"/i)    priorities choose between readings, not between texts: they change
 * nothing NAME: ("a".."z" | "_")~1..8            terminals, in upper case: regular, nothing ignored inside
 *   %ignore WS          %import common.WS          %import common (INT, CNAME)
 *   %json {...}         JSON valid for that schema     <token> <[id]>   a token of the vocabulary
 *
 * All readings count, as with Lark's own Earley parser; its LALR lexer, which takes the longest terminal, may
 * know fewer texts. Aliases, ? and ! in front of rules shape trees, which we do not build. */
#include "grammar/gram_source.h"

#include <string.h>

typedef struct {
    gram_source src;   /* first, so that one is the other */
    gram_vec ignored;  /* where the expressions of %ignore begin */
    gram_term between; /* what may stand behind a terminal in a rule */
    bool terminal;     /* a terminal is being read */
} reader;

static reader *reader_of(gram_source *c) { return (reader *)c; }

static gram_sym alternatives(gram_source *c, bool nested);

/* Blanks and comments; with newlines, all up to the next thing. */
static void skip_space(gram_source *c, bool newlines) {
    while (c->at < c->n) {
        const char x = c->s[c->at];
        if (x == '#' || (x == '/' && c->at + 1 < c->n && c->s[c->at + 1] == '/'))
            while (c->at < c->n && c->s[c->at] != '\n') c->at++;
        else if (x == ' ' || x == '\t' || (newlines && (x == '\n' || x == '\r')))
            c->at++;
        else
            return;
    }
}

/* A rule goes on in the next line if that begins with a bar. */
static void skip_to_bar(gram_source *c) {
    const size_t back = c->at;
    skip_space(c, true);
    if (!gram_next_is(c, '|')) c->at = back;
}

/* ---- terminals -------------------------------------------------------------------------------- */

static uint32_t string_char(gram_source *c) {
    if (!gram_take(c, "\\")) return gram_take_char(c);
    if (c->at == c->n) return gram_source_refuse(c, SQUISH_INVALID, "a backslash ends the source");
    const char e = c->s[c->at++];
    static const char letters[] = "nrtfvba\\\"'/", values[] = "\n\r\t\f\v\b\a\\\"'/";
    const char *l = e ? strchr(letters, e) : NULL;
    if (l) return (uint8_t)values[l - letters];
    const int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    uint32_t x;
    if (!digits) return gram_source_refuse(c, SQUISH_INVALID, "unknown escape");
    return gram_take_hex(c, digits, digits, &x) ? x : 0;
}

/* The characters of a string, in UTF-8. */
static bool string_bytes(gram_source *c, sq_buf *b) {
    while (!gram_take(c, "\"")) {
        if (c->at >= c->n || c->s[c->at] == '\n')
            return gram_source_refuse(c, SQUISH_INVALID, "a string without its end"), false;
        char bytes[4];
        const size_t n = sq_utf8_encode(string_char(c), bytes);
        sq_buf_append(b, bytes, n);
        if (gram_failed(c->p)) return false;
    }
    if (b->failed) gram_fail(c->p, SQUISH_NO_MEMORY, "lark: out of memory");
    return !b->failed;
}

static gram_term letter(gram_pool *p, char x, bool both_cases) {
    const bool is = (x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z');
    const gram_term t = gram_byte(p, (uint8_t)x, (uint8_t)x);
    return is && both_cases ? gram_alt(p, t, gram_byte(p, (uint8_t)(x ^ 32), (uint8_t)(x ^ 32))) : t;
}

/* After the quote: "text", "text"i, or the range "a".."z". */
static gram_term string(gram_source *c) {
    sq_buf b;
    gram_term t = GRAM_EPS;
    sq_buf_init(&b, &c->p->alloc, SQ_GRAM_SOURCE_MAX);
    if (!string_bytes(c, &b)) goto done;
    if (gram_take(c, "..")) {
        gram_range r = {0, 0};
        bool ok, is_one = b.len > 0 && sq_utf8_decode(b.data, b.len, &r.lo, &ok) == b.len;
        b.len = 0;
        if (!gram_take(c, "\"") || !string_bytes(c, &b)) goto done;
        is_one = is_one && b.len > 0 && sq_utf8_decode(b.data, b.len, &r.hi, &ok) == b.len && r.lo <= r.hi;
        if (!is_one)
            t = gram_source_refuse(c, SQUISH_INVALID, "a range that is not of one character to a later one");
        else if (!c->dry)
            t = gram_chars(c->p, &r, 1, GRAM_PLAIN);
        goto done;
    }
    const bool both_cases = gram_take(c, "i");
    for (size_t i = b.len; i-- > 0 && !c->dry;) t = gram_cat(c->p, letter(c->p, b.data[i], both_cases), t);
done:
    sq_buf_deinit(&b);
    return gram_failed(c->p) ? GRAM_EMPTY : t;
}

/* After the slash: /expression/flags. */
static gram_term regexp(gram_source *c) {
    const size_t from = c->at;
    while (c->at < c->n && c->s[c->at] != '/' && c->s[c->at] != '\n') c->at += c->s[c->at] == '\\' ? 2 : 1;
    if (c->at > c->n) c->at = c->n;
    const size_t n = c->at < c->n ? c->at - from : 0;
    unsigned flags = GRAM_DOT_RETURN;
    if (!gram_take(c, "/")) return gram_source_refuse(c, SQUISH_INVALID, "an expression without its /");
    for (; c->at < c->n && strchr("imslux", c->s[c->at]); c->at++) {
        const char f = c->s[c->at];
        if (f == 'i') flags |= GRAM_BOTH_CASES;
        if (f == 's') flags |= GRAM_DOT_ALL;
        if (f == 'x' || f == 'l' || f == 'm')
            return gram_source_refuse(c, SQUISH_UNSUPPORTED, "a flag of an expression that is not i, s or u");
    }
    return c->dry ? GRAM_EPS : gram_regex_with(c->p, c->s + from, n, flags, "lark");
}

/* ---- what stands in rules --------------------------------------------------------------------- */

static bool is_terminal(const char *name, size_t n) {
    size_t i = 0;
    while (i < n && name[i] == '_') i++;
    return i < n && name[i] >= 'A' && name[i] <= 'Z';
}

/* A terminal as it stands in a rule, with what may be ignored behind it. */
static gram_sym placed(gram_source *c, gram_sym t) {
    const reader *r = reader_of(c);
    if (c->dry || r->terminal || gram_failed(c->p)) return t;
    return gram_seq(c->r, (gram_sym[]){t, r->between}, 2);
}

static gram_sym reference(gram_source *c) {
    const char *name;
    const size_t n = gram_take_name(c, "_", &name);
    if (n == 0) return gram_source_refuse(c, SQUISH_INVALID, "neither string, expression, rule nor group");
    const bool counted = c->at + 1 < c->n && c->s[c->at + 1] >= '0' && c->s[c->at + 1] <= '9';
    if (gram_next_is(c, '{') && !counted)
        return gram_source_refuse(c, SQUISH_UNSUPPORTED, "a template is not supported");
    if (reader_of(c)->terminal && !is_terminal(name, n))
        return gram_source_refuse(c, SQUISH_INVALID, "a terminal that refers to a rule");
    const gram_sym s = gram_source_reference(c, name, n);
    if (!is_terminal(name, n)) return s;
    if (s & GRAM_NT) return gram_source_refuse(c, SQUISH_INVALID, "a terminal that refers to itself");
    return placed(c, s);
}

/* After "%json": a schema, up to the brace that closes it. */
static gram_sym json(gram_source *c) {
    skip_space(c, true);
    const size_t from = c->at;
    int depth = 0;
    bool quoted = false;
    do {
        if (c->at >= c->n) return gram_source_refuse(c, SQUISH_INVALID, "a %json without its schema");
        const char x = c->s[c->at++];
        if (quoted && x == '\\' && c->at < c->n) c->at++;
        if (x == '"') quoted = !quoted;
        if (!quoted) depth += x == '{' ? 1 : x == '}' ? -1 : 0;
    } while (depth > 0);
    return c->dry ? GRAM_EPS : placed(c, gram_from_schema(c->r, c->s + from, c->at - from, false));
}

static gram_sym group(gram_source *c, const char *close, uint32_t lo) {
    if (!gram_enter(c)) return GRAM_EMPTY;
    const gram_sym s = alternatives(c, true);
    gram_leave(c);
    if (!gram_take(c, close)) return gram_source_refuse(c, SQUISH_INVALID, "a group without its end");
    return c->dry ? GRAM_EPS : gram_repeat(c->r, s, lo, 1);
}

static gram_sym element(gram_source *c) {
    if (gram_take(c, "\"")) return placed(c, string(c));
    if (gram_take(c, "/")) return placed(c, regexp(c));
    if (gram_take(c, "(")) return group(c, ")", 1);
    if (gram_take(c, "[")) return group(c, "]", 0);
    if (gram_next_is(c, '<')) return placed(c, gram_source_token(c));
    if (gram_take(c, "%json")) return json(c);
    return reference(c);
}

/* ~ n, ~ n..m, {n,m} */
static bool take_count(gram_source *c, const char *between, const char *close, uint32_t *lo, uint32_t *hi) {
    skip_space(c, false);
    if (!gram_take_number(c, lo))
        return gram_source_refuse(c, SQUISH_INVALID, "a count without a number"), false;
    *hi = *lo;
    if (gram_take(c, between) && !gram_take_number(c, hi)) *hi = GRAM_INF;
    if (close && !gram_take(c, close))
        return gram_source_refuse(c, SQUISH_INVALID, "a count without its }"), false;
    return gram_check_count(c, *lo, *hi);
}

static gram_sym repeated(gram_source *c) {
    gram_sym s = element(c);
    for (;;) {
        uint32_t lo = 0, hi = GRAM_INF;
        skip_space(c, false);
        if (gram_take(c, "+"))
            lo = 1;
        else if (gram_take(c, "?"))
            hi = 1;
        else if (gram_take(c, "~")) {
            if (!take_count(c, "..", NULL, &lo, &hi)) return GRAM_EMPTY;
        } else if (gram_take(c, "{")) {
            if (!take_count(c, ",", "}", &lo, &hi)) return GRAM_EMPTY;
        } else if (!gram_take(c, "*"))
            return s;
        if (!c->dry) s = gram_repeat(c->r, s, lo, hi);
    }
}

static bool at_end(const gram_source *c) {
    if (c->at >= c->n || gram_failed(c->p)) return true;
    return strchr("|)]\r\n", c->s[c->at]) ||
           (c->s[c->at] == '-' && c->at + 1 < c->n && c->s[c->at + 1] == '>');
}

static gram_sym sequence(gram_source *c, bool nested) {
    const char *alias;
    const size_t base = c->p->scratch.n;
    for (skip_space(c, nested); !at_end(c); skip_space(c, nested)) {
        const gram_sym s = repeated(c);
        gram_vec_push_u32(c->p, &c->p->scratch, s);
    }
    if (gram_take(c, "->")) {
        skip_space(c, false);
        if (!gram_take_name(c, "_", &alias)) gram_source_refuse(c, SQUISH_INVALID, "-> without a name");
        skip_space(c, nested);
    }
    return gram_source_seq(c, base);
}

static gram_sym alternatives(gram_source *c, bool nested) {
    const size_t base = c->p->scratch.n;
    do {
        const gram_sym s = sequence(c, nested);
        gram_vec_push_u32(c->p, &c->p->scratch, s);
        if (!nested) skip_to_bar(c);
    } while (gram_take(c, "|") && !gram_failed(c->p));
    return gram_source_either(c, base);
}

/* ---- statements ------------------------------------------------------------------------------- */

/* Terminals of lark's module `common`. A rule with its body behind the source is one of them. */
static const struct {
    const char *name, *regex;
} common[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?([0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"NUMBER", "[0-9]+|[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?"},
    {"SIGNED_NUMBER", "[+-]?([0-9]+|[0-9]+[eE][+-]?[0-9]+|([0-9]+\\.[0-9]*|\\.[0-9]+)([eE][+-]?[0-9]+)?)"},
    {"ESCAPED_STRING", "\"([^\"\\\\\\n]|\\\\[^\\n])*\""},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[A-Za-z_][A-Za-z_0-9]*"},
    {"WS_INLINE", "[ \\t]+"},
    {"WS", "[ \\t\\f\\r\\n]+"},
    {"CR", "\\r"},
    {"LF", "\\n"},
    {"NEWLINE", "(\\r?\\n)+"},
    {"SH_COMMENT", "#[^\\n]*"},
    {"CPP_COMMENT", "//[^\\n]*"},
    {"SQL_COMMENT", "--[^\\n]*"},
    {"C_COMMENT", "/\\*([^*]|\\*+[^*/])*\\*+/"},
};

static gram_sym body(gram_source *c, const gram_named *rule) {
    reader *r = reader_of(c);
    const bool was = r->terminal;
    gram_sym s;
    r->terminal = is_terminal(rule->name, rule->n);
    if (rule->body > c->n) {
        const char *regex = common[rule->body - c->n - 1].regex;
        s = gram_regex_with(c->p, regex, strlen(regex), GRAM_DOT_RETURN, "lark");
    } else {
        s = alternatives(c, false);
    }
    r->terminal = was;
    return s;
}

/* A name of `common`, under its own name or an alias. */
static void import_one(gram_source *c, const char *name, size_t n, const char *as, size_t n_as) {
    for (size_t i = 0; i < SQ_COUNT(common); i++) {
        if (strlen(common[i].name) != n || memcmp(common[i].name, name, n) != 0) continue;
        const size_t back = c->at;
        c->at = c->n + 1 + i;
        gram_source_rule(c, as, n_as);
        if (!gram_failed(c->p)) c->at = back;
        return;
    }
    gram_source_refuse(c, SQUISH_UNSUPPORTED, "an import of what common does not have");
}

static void import(gram_source *c) {
    const char *name, *as;
    skip_space(c, false);
    if (!gram_take(c, "common")) {
        gram_source_refuse(c, SQUISH_UNSUPPORTED, "an import from elsewhere than common");
        return;
    }
    if (gram_take(c, ".")) {
        size_t n = gram_take_name(c, "_", &name), n_as = n;
        as = name;
        skip_space(c, false);
        if (gram_take(c, "->")) {
            skip_space(c, false);
            n_as = gram_take_name(c, "_", &as);
        }
        import_one(c, name, n, as, n_as);
        return;
    }
    skip_space(c, false);
    bool more = gram_take(c, "(");
    if (!more) gram_source_refuse(c, SQUISH_INVALID, "an import without names");
    while (more && !gram_failed(c->p)) {
        skip_space(c, true);
        const size_t n = gram_take_name(c, "_", &name);
        import_one(c, name, n, name, n);
        skip_space(c, true);
        more = gram_take(c, ",");
        if (!more && !gram_take(c, ")")) gram_source_refuse(c, SQUISH_INVALID, "an import without its )");
    }
}

static void ignore(gram_source *c) {
    reader *r = reader_of(c);
    gram_vec_push_u32(c->p, &r->ignored, (uint32_t)c->at);
    r->terminal = true;
    alternatives(c, false);
}

static void definition(gram_source *c) {
    const char *name;
    uint32_t priority;
    if (!gram_take(c, "?")) gram_take(c, "!");
    const size_t n = gram_take_name(c, "_", &name);
    if (gram_next_is(c, '{') || gram_next_is(c, '[')) {
        gram_source_refuse(c, SQUISH_UNSUPPORTED, "a template or an attribute of a rule is not supported");
        return;
    }
    if (gram_take(c, ".")) {
        gram_take(c, "-");
        if (!gram_take_number(c, &priority))
            gram_source_refuse(c, SQUISH_INVALID, "a priority without a number");
    }
    skip_space(c, false);
    if (n == 0 || !gram_take(c, ":")) {
        gram_source_refuse(c, SQUISH_INVALID, "no 'name:'");
        return;
    }
    gram_source_rule(c, name, n);
    reader_of(c)->terminal = is_terminal(name, n);
    alternatives(c, false);
}

static void find_rules(gram_source *c) {
    for (skip_space(c, true); c->at < c->n && !gram_failed(c->p); skip_space(c, true)) {
        if (gram_take(c, "%import"))
            import(c);
        else if (gram_take(c, "%ignore"))
            ignore(c);
        else if (gram_next_is(c, '%'))
            gram_source_refuse(c, SQUISH_UNSUPPORTED, "a directive that is neither %import nor %ignore");
        else
            definition(c);
        skip_space(c, false);
        if (c->at < c->n && !strchr("\r\n", c->s[c->at]))
            gram_source_refuse(c, SQUISH_INVALID, "more than a rule");
    }
}

/* Read what is ignored, so that rules can have it behind their terminals. */
static void find_between(reader *r) {
    gram_source *c = &r->src;
    gram_term t = GRAM_EMPTY;
    c->dry = false;
    r->terminal = true;
    for (size_t i = 0; i < r->ignored.n && !gram_failed(c->p); i++) {
        c->at = GRAM_AT(r->ignored, uint32_t, i);
        const gram_sym s = alternatives(c, false);
        t = gram_alt(c->p, t, s);
    }
    r->terminal = false;
    r->between = gram_rep(c->p, t, 0, GRAM_INF);
}

gram_sym gram_from_lark(gram_rules *rules, const char *s, size_t n) {
    reader r = {
        .src = {.r = rules, .p = rules->p, .what = "lark", .s = s, .n = n, .dry = true, .body = body}};
    find_rules(&r.src);
    find_between(&r);
    const gram_sym start = gram_source_finish(&r.src, "start");
    gram_vec_free(r.src.p, &r.ignored, sizeof(uint32_t));
    gram_source_free(&r.src);
    return gram_failed(rules->p) ? GRAM_EMPTY : gram_seq(rules, (gram_sym[]){r.between, start}, 2);
}
