/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_regex.c - patterns on PCRE2, under limits.
 *
 * A pattern comes from a stranger and backtracking can take for ever. Each match first runs with a small
 * limit, which nearly all need; one that asks for more gets a large limit and pays for it from the steps of
 * the whole validation. So the time of all matches together is bounded, and a pattern that hits even the
 * large limit is an error, not a hang. PCRE2 counts per starting position; texts that may start anywhere pay
 * for that. */
#include "grammar/gram_schema_int.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    SMALL_LIMIT = 1000,
    LARGE_LIMIT = 100000,
    LARGE_STEPS = 10000,
    HEAP_KIB_MAX = 16384,
    SOURCE_BYTES_MAX = 65536,
    SIZE_PREFIX = 16
};

struct gs_regex {
    squish_alloc alloc;
    pcre2_code *code;
    bool anchored;
};

/* squish_alloc wants to know what is freed, PCRE2 does not say: the size stands in front. */
static void *regex_alloc(size_t n, void *user) {
    if (n > SIZE_MAX - SIZE_PREFIX) return NULL;
    char *p = sq_alloc_new(user, n + SIZE_PREFIX);
    if (!p) return NULL;
    memcpy(p, &n, sizeof n);
    return p + SIZE_PREFIX;
}

static void regex_free(void *block, void *user) {
    if (!block) return;
    char *p = (char *)block - SIZE_PREFIX;
    size_t n;
    memcpy(&n, p, sizeof n);
    sq_alloc_free(user, p, n + SIZE_PREFIX);
}

static squish_status compile(gs_regex *r, const sq_buf *text, const char *where, squish_error *err) {
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, &r->alloc);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    int code = PCRE2_ERROR_HEAP_FAILED;
    PCRE2_SIZE at = 0;
    if (context)
        r->code = pcre2_compile((PCRE2_SPTR)text->data, text->len,
                                PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_MATCH_UNSET_BACKREF |
                                    PCRE2_NEVER_BACKSLASH_C | PCRE2_NEVER_UCP,
                                &code, &at, context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(general);
    if (r->code) {
        uint32_t options = 0;
        pcre2_pattern_info(r->code, PCRE2_INFO_ALLOPTIONS, &options);
        r->anchored = options & PCRE2_ANCHORED;
        return SQUISH_OK;
    }
    if (code == PCRE2_ERROR_HEAP_FAILED) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory", where);
    PCRE2_UCHAR words[120];
    pcre2_get_error_message(code, words, sizeof words);
    return sq_fail(err, SQUISH_INVALID, "%s: %s", where, (const char *)words);
}

squish_status gs_regex_new(gs_regex **out, const squish_alloc *a, const char *source, size_t n,
                           const char *where, squish_error *err) {
    *out = NULL;
    if (n > SOURCE_BYTES_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: a pattern of %zu bytes, at most %d are read", where, n,
                       SOURCE_BYTES_MAX);
    gs_regex *r = sq_alloc_zero(a, sizeof *r);
    if (!r) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory", where);
    r->alloc = *a;
    sq_buf text; /* the longest rewriting is \S in a class */
    sq_buf_init(&text, a, n * 160 + 16);
    sq_buf_reserve(&text, 1);
    const char *wrong = gs_ecma_translate(source, n, &text);
    squish_status st = text.failed ? sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory", where)
                       : wrong     ? sq_fail(err, SQUISH_INVALID, "%s: %s", where, wrong)
                                   : compile(r, &text, where, err);
    sq_buf_deinit(&text);
    if (st == SQUISH_OK)
        *out = r;
    else
        gs_regex_free(r);
    return st;
}

void gs_regex_free(gs_regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    const squish_alloc a = r->alloc;
    sq_alloc_free(&a, r, sizeof *r);
}

static int run(const gs_regex *r, const char *text, size_t n, uint32_t limit) {
    /* PCRE2 keeps the pointer beside its memory and does not write through it. */
    squish_alloc a = r->alloc;
    pcre2_general_context *general = pcre2_general_context_create(regex_alloc, regex_free, &a);
    pcre2_match_context *context = general ? pcre2_match_context_create(general) : NULL;
    pcre2_match_data *data = general ? pcre2_match_data_create(1, general) : NULL;
    int rc = PCRE2_ERROR_NOMEMORY;
    if (context && data) {
        pcre2_set_match_limit(context, limit);
        pcre2_set_depth_limit(context, limit);
        pcre2_set_heap_limit(context, HEAP_KIB_MAX);
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, 0, PCRE2_NO_UTF_CHECK, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_general_context_free(general);
    return rc;
}

static bool ran_out(int rc) {
    return rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_DEPTHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT;
}

squish_status gs_regex_match(const gs_regex *r, const char *text, size_t n, int64_t *steps, bool *matched,
                             squish_error *err) {
    *matched = false;
    const int64_t length = (int64_t)n;
    *steps -= 10 + length / 16 + (r->anchored ? 0 : length / 32 * (length / 32));
    if (*steps < 0) return SQUISH_OK; /* the caller looks at the budget */
    int rc = run(r, text, n, SMALL_LIMIT);
    if (ran_out(rc)) {
        *steps -= LARGE_STEPS * (r->anchored ? 1 : 1 + length / 16);
        if (*steps < 0) return SQUISH_OK;
        rc = run(r, text, n, LARGE_LIMIT);
    }
    if (ran_out(rc))
        return sq_fail(err, SQUISH_UNSUPPORTED, "a pattern gave up on a string of %zu bytes after %d steps",
                       n, LARGE_LIMIT);
    if (rc == PCRE2_ERROR_NOMEMORY) return sq_fail(err, SQUISH_NO_MEMORY, "no memory to match a pattern");
    *matched = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return SQUISH_OK;
    return sq_fail(err, SQUISH_UNSUPPORTED, "a pattern could not be matched (PCRE2 error %d)", rc);
}
