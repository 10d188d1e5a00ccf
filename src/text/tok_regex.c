/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_regex.c - what to do with the regex of a pre-tokenizer.
 *
 * Three tiers: a source text we know by heart is a scanner of tok_split.c; a single run of one character
 * class, such as \s?[a-z]+ or \p{N}{1,3}, is an op with that class; anything else runs on PCRE2, without
 * its JIT, with limits on steps, depth and memory, so that a pattern chosen by a stranger cannot hold a
 * thread. tokenizer.json is written for Oniguruma, where $ also stands before a line feed: hence
 * PCRE2_MULTILINE. */
#include "text/tok_int.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

enum { STEPS_MAX = 1000000, DEPTH_MAX = 100000, HEAP_KIB_MAX = 65536 };

/* ---- recognising ----------------------------------------------------------------------------- */

#define CL100K(digits) "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
                       "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char *const known_sources[TOK_KNOWN_COUNT] = {
    [TOK_KNOWN_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    [TOK_KNOWN_QWEN2] = CL100K("\\p{N}"),
    [TOK_KNOWN_LLAMA3] = CL100K("\\p{N}{1,3}"),
};

/* Reader of a class pattern. `ok` falls when it meets anything outside the little language below. */
typedef struct {
    const uint8_t *p;
    size_t n, at;
    bool ok;
} reader;

static bool take(reader *r, const char *s) {
    size_t n = strlen(s);
    if (r->n - r->at < n || memcmp(r->p + r->at, s, n) != 0) return false;
    r->at += n;
    return true;
}

/* Categories of the one or two letters of \p{..}, 0 if unknown. */
static uint32_t category_mask(uint8_t major, uint8_t minor) {
    static const char names[] =
        "CnLuLlLtLmLoMnMcMeNdNlNoPcPdPsPePiPfPoSmScSkSoZsZlZpCcCfCsCo"; /* utf8proc's order */
    uint32_t mask = 0;
    for (uint32_t i = 0; names[2 * i]; i++)
        if ((uint8_t)names[2 * i] == major && (minor == 0 || (uint8_t)names[2 * i + 1] == minor))
            mask |= 1u << i;
    return mask;
}

static void take_property(reader *r, tok_class *c) {
    size_t left = r->n - r->at;
    const uint8_t *p = r->p + r->at;
    uint32_t mask = 0;
    if (left >= 3 && p[0] == '{' && p[2] == '}') {
        mask = category_mask(p[1], 0);
        r->at += 3;
    } else if (left >= 4 && p[0] == '{' && p[3] == '}') {
        mask = category_mask(p[1], p[2]);
        r->at += 4;
    }
    c->categories |= mask;
    if (!mask) r->ok = false;
}

/* One member of a class: a literal code point (returned), or -1 when an escape for a whole set was added
 * to c. */
static int64_t take_member(reader *r, tok_class *c) {
    uint32_t cp;
    r->at += tok_decode(r->p + r->at, r->n - r->at, &cp);
    if (cp == '[' || cp == '&' || cp == '^') r->ok = false; /* nesting and intersection are Oniguruma's */
    if (cp != '\\') return cp;
    if (r->at >= r->n) {
        r->ok = false;
        return -1;
    }
    uint8_t e = r->p[r->at++];
    if (e == 'r') return '\r';
    if (e == 'n') return '\n';
    if (e == 't') return '\t';
    if (e == 's') {
        c->space = 1;
        return -1;
    }
    if (e == 'p') {
        take_property(r, c);
        return -1;
    }
    if (e >= 0x80 || (e >= '0' && e <= '9') || ((e | 0x20) >= 'a' && (e | 0x20) <= 'z')) r->ok = false;
    return e;
}

static void add_range(reader *r, sq_buf *ranges, uint32_t lo, uint32_t hi) {
    tok_range range = {lo, hi};
    if (lo > hi || !sq_buf_append(ranges, &range, sizeof range)) r->ok = false;
}

/* The inside of [...] up to and with the closing bracket. */
static void take_class(reader *r, tok_class *c, sq_buf *ranges) {
    c->negate = take(r, "^");
    for (bool any = false; r->ok; any = true) {
        if (r->at >= r->n) r->ok = false;
        if (!r->ok) return;
        if (any && take(r, "]")) return;
        if (r->p[r->at] == ']') r->ok = false; /* first, or an empty class: dialects differ */
        int64_t lo = take_member(r, c);
        if (lo < 0 || !r->ok) continue;
        int64_t hi = lo;
        if (r->at + 1 < r->n && r->p[r->at] == '-' && r->p[r->at + 1] != ']') {
            r->at++;
            hi = take_member(r, c);
            if (hi < 0) r->ok = false;
        }
        if (r->ok) add_range(r, ranges, (uint32_t)lo, (uint32_t)hi);
    }
}

/* Sort the ranges from `first` on and join those that touch; how many remain. */
static uint32_t tidy_ranges(tok_range *r, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) { /* insertion: sources are nearly sorted */
        tok_range moving = r[i];
        uint32_t k = i;
        for (; k > 0 && r[k - 1].lo > moving.lo; k--) r[k] = r[k - 1];
        r[k] = moving;
    }
    uint32_t out = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (out && r[i].lo <= r[out - 1].hi + 1) {
            if (r[i].hi > r[out - 1].hi) r[out - 1].hi = r[i].hi;
        } else {
            r[out++] = r[i];
        }
    }
    return out;
}

/* lead? class quantifier, whole string: \s?[..]+  \s+$  [..]  \p{N}  \p{N}{1,3} and their like. */
static bool class_op(const char *source, size_t n, tok_op *op, sq_buf *ranges) {
    reader r = {(const uint8_t *)source, n, 0, true};
    size_t first = ranges->len;
    op->kind = TOK_OP_CLASS;
    op->cls.first_range = (uint32_t)(first / sizeof(tok_range));
    if (take(&r, "\\s?"))
        op->lead = TOK_LEAD_WHITE;
    else if (take(&r, " ?"))
        op->lead = TOK_LEAD_SPACE;
    if (take(&r, "["))
        take_class(&r, &op->cls, ranges);
    else if (take(&r, "\\s"))
        op->cls.space = 1;
    else if (take(&r, "\\p"))
        take_property(&r, &op->cls);
    else
        r.ok = false;
    op->max = 1;
    if (take(&r, "+"))
        op->max = UINT32_MAX;
    else if (take(&r, "{1,3}"))
        op->max = 3;
    if (op->lead == TOK_LEAD_NONE && op->max == UINT32_MAX && take(&r, "$")) op->at_end = 1;
    if (!r.ok || r.at != n) {
        ranges->len = first;
        return false;
    }
    if (ranges->len > first) {
        tok_range *mine = (tok_range *)(void *)(ranges->data + first);
        op->cls.n_ranges = tidy_ranges(mine, (uint32_t)((ranges->len - first) / sizeof *mine));
        ranges->len = first + op->cls.n_ranges * sizeof *mine;
    }
    tok_class_fill_ascii(&op->cls, (const tok_range *)(const void *)ranges->data);
    return true;
}

bool tok_regex_op(const char *source, size_t n, tok_op *op, sq_buf *ranges) {
    for (int i = 0; i < TOK_KNOWN_COUNT; i++) {
        if (strlen(known_sources[i]) != n || memcmp(known_sources[i], source, n) != 0) continue;
        op->kind = TOK_OP_KNOWN;
        op->variant = (uint8_t)i;
        return true;
    }
    tok_op fresh = *op;
    if (n > 0 && n <= TOK_REGEX_BYTES_MAX && class_op(source, n, &fresh, ranges)) {
        *op = fresh;
        return true;
    }
    op->kind = TOK_OP_PCRE;
    return false;
}

/* ---- PCRE2 ----------------------------------------------------------------------------------- */

/* PCRE2 frees without telling a size, so each block carries it in front. */
enum { SIZE_PREFIX = 16 };

static void *pcre_malloc(size_t n, void *user) {
    const squish_alloc *a = user;
    if (n > SIZE_MAX - SIZE_PREFIX) return NULL;
    char *p = sq_alloc_new(a, n + SIZE_PREFIX);
    if (!p) return NULL;
    memcpy(p, &n, sizeof n);
    return p + SIZE_PREFIX;
}

static void pcre_free(void *block, void *user) {
    if (!block) return;
    char *p = (char *)block - SIZE_PREFIX;
    size_t n;
    memcpy(&n, p, sizeof n);
    sq_alloc_free(user, p, n + SIZE_PREFIX);
}

squish_status tok_regex_compile(const uint8_t *source, size_t n, const squish_alloc *a, void **out,
                                squish_error *err) {
    *out = NULL;
    if (n == 0 || n > TOK_REGEX_BYTES_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED, "pre_tokenizer regex: %zu bytes, wanted 1 to %d", n,
                       TOK_REGEX_BYTES_MAX);
    pcre2_general_context *general = pcre2_general_context_create(pcre_malloc, pcre_free, (void *)a);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    if (!context) {
        pcre2_general_context_free(general);
        return sq_fail(err, SQUISH_NO_MEMORY, "no memory to compile the pre_tokenizer regex");
    }
    int code;
    PCRE2_SIZE where;
    *out = pcre2_compile(source, n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code,
                         &where, context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (*out) return SQUISH_OK;
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return sq_fail(err, SQUISH_NO_MEMORY, "no memory to compile the pre_tokenizer regex");
    PCRE2_UCHAR words[120];
    tok_shown shown;
    pcre2_get_error_message(code, words, sizeof words);
    return sq_fail(err, SQUISH_UNSUPPORTED, "pre_tokenizer regex '%s': %s at byte %zu",
                   tok_show(&shown, source, n), (const char *)words, (size_t)where);
}

void tok_regex_free(void *code) {
    pcre2_code_free(code);
}

static squish_status prepare(tok_enc *e, void *code) {
    if (!e->match_ctx) {
        pcre2_general_context *general = pcre2_general_context_create(pcre_malloc, pcre_free, &e->alloc);
        pcre2_match_context *context = general ? pcre2_match_context_create(general) : NULL;
        pcre2_general_context_free(general);
        if (!context) return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to match the pre_tokenizer regex");
        pcre2_set_match_limit(context, STEPS_MAX);
        pcre2_set_depth_limit(context, DEPTH_MAX);
        pcre2_set_heap_limit(context, HEAP_KIB_MAX);
        e->match_ctx = context;
    }
    if (!e->match_data) {
        e->match_data = pcre2_match_data_create_from_pattern(code, NULL);
        if (!e->match_data)
            return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to match the pre_tokenizer regex");
    }
    return SQUISH_OK;
}

squish_status tok_regex_next(tok_enc *e, void *code, const uint8_t *p, size_t n, size_t at, size_t *start,
                             size_t *end) {
    *start = SIZE_MAX;
    SQ_TRY(prepare(e, code));
    while (at < n) {
        int rc = pcre2_match(code, p, n, at, PCRE2_NO_UTF_CHECK, e->match_data, e->match_ctx);
        if (rc == PCRE2_ERROR_NOMATCH) return SQUISH_OK;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to match the pre_tokenizer regex");
        if (rc < 0)
            return sq_fail(e->err, SQUISH_UNSUPPORTED,
                           "the pre_tokenizer regex gave up after %d steps on a text of %zu bytes (PCRE2 "
                           "error %d)",
                           STEPS_MAX, n, rc);
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(e->match_data);
        if (found[0] >= at && found[1] > found[0]) {
            *start = found[0];
            *end = found[1];
            return SQUISH_OK;
        }
        /* An empty match divides nothing; go on behind the next character. */
        if (found[0] > at) at = found[0];
        uint32_t cp;
        if (at < n) at += tok_decode(p + at, n - at, &cp);
    }
    return SQUISH_OK;
}

void tok_regex_enc_release(tok_enc *e) {
    pcre2_match_data_free(e->match_data);
    pcre2_match_context_free(e->match_ctx);
    e->match_data = e->match_ctx = NULL;
}
