/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_str_methods.c - the methods of texts: split, strip, replace, startswith and the rest.
 *
 * Results are views of the input wherever they can be. Searching works on bytes, counting on code points. */
#include "text/tmpl_int.h"

#include <utf8proc.h>

static bool given(const sq_tval *v) { return v->type != SQ_TV_UNSET && v->type != SQ_TV_NONE; }

static sq_tval part(const char *from, const char *to) { return sq_tv_str(from, (size_t)(to - from)); }

/* ---- case ------------------------------------------------------------------------------------ */

static squish_status m_upper(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_recase(r, SQ_TCASE_UPPER, s, out);
}
static squish_status m_lower(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_recase(r, SQ_TCASE_LOWER, s, out);
}
static squish_status m_title(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_recase(r, SQ_TCASE_TITLE, s, out);
}
static squish_status m_capitalize(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_recase(r, SQ_TCASE_CAPITALIZE, s, out);
}

/* ---- strip ----------------------------------------------------------------------------------- */

static squish_status strip(sq_trun *r, const sq_tval *s, const sq_tval *chars, bool left, bool right,
                           sq_tval *out) {
    if (given(chars)) SQ_TRY(sq_tmpl_want_str(r, chars, "strip arg"));
    sq_span kept = sq_tmpl_strip(s->u.s, s->n, given(chars) ? chars : NULL, left, right);
    *out = sq_tv_str((const char *)kept.p, kept.n);
    /* Each stripped character was looked for in the set. */
    return sq_tmpl_charge(r, (s->n - kept.n) / 4 * (given(chars) ? chars->n + 1u : 1u));
}

static squish_status m_strip(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return strip(r, s, &arg[0], true, true, out);
}
static squish_status m_lstrip(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return strip(r, s, &arg[0], true, false, out);
}
static squish_status m_rstrip(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return strip(r, s, &arg[0], false, true, out);
}

/* ---- looking --------------------------------------------------------------------------------- */

static const char *find_last(const char *s, size_t n, const char *sub, size_t n_sub) {
    for (size_t at = n_sub <= n ? n - n_sub + 1 : 0; at-- > 0;)
        if (memcmp(s + at, sub, n_sub) == 0) return s + at;
    return NULL;
}

/* Does s begin (or end) with `what`, or with one of a tuple? */
static squish_status has_affix(sq_trun *r, const sq_tval *s, const sq_tval *what, bool at_end, sq_tval *out) {
    const sq_tval *options = what;
    uint32_t n = 1;
    if (what->type == SQ_TV_TUPLE) {
        options = what->u.seq->items;
        n = what->u.seq->n;
    }
    *out = sq_tv_bool(false);
    SQ_TRY(sq_tmpl_charge(r, n));
    for (uint32_t i = 0; i < n && !out->u.b; i++) {
        const sq_tval *o = &options[i];
        if (o->type != SQ_TV_STR)
            return sq_tmpl_fail(r, "%s first arg must be str or a tuple of str, not %s",
                                at_end ? "endswith" : "startswith", sq_tmpl_type_name(o));
        out->u.b = o->n <= s->n && memcmp(at_end ? s->u.s + s->n - o->n : s->u.s, o->u.s, o->n) == 0;
    }
    return SQUISH_OK;
}

static squish_status m_startswith(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return has_affix(r, s, &arg[0], false, out);
}
static squish_status m_endswith(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return has_affix(r, s, &arg[0], true, out);
}

/* The position of a substring in code points; where it is missing -1 or, if `must`, an error. */
static squish_status position(sq_trun *r, const sq_tval *s, const sq_tval *sub, bool last, bool must,
                              sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, sub, "the substring"));
    SQ_TRY(sq_tmpl_charge(r, s->n / 8));
    const char *at =
        last ? find_last(s->u.s, s->n, sub->u.s, sub->n) : sq_tmpl_find(s->u.s, s->n, sub->u.s, sub->n);
    if (!at && must) return sq_tmpl_fail(r, "substring not found");
    *out = sq_tv_int(at ? (int64_t)sq_utf8_count(s->u.s, (size_t)(at - s->u.s)) : -1);
    return SQUISH_OK;
}

static squish_status m_find(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return position(r, s, &arg[0], false, false, out);
}
static squish_status m_rfind(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return position(r, s, &arg[0], true, false, out);
}
static squish_status m_index(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return position(r, s, &arg[0], false, true, out);
}
static squish_status m_rindex(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return position(r, s, &arg[0], true, true, out);
}

static squish_status m_count(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the substring"));
    SQ_TRY(sq_tmpl_charge(r, s->n / 16));
    int64_t n = 0;
    const char *end = s->u.s + s->n;
    if (arg[0].n == 0) n = (int64_t)sq_utf8_count(s->u.s, s->n) + 1;
    for (const char *p = s->u.s;
         arg[0].n > 0 && (p = sq_tmpl_find(p, (size_t)(end - p), arg[0].u.s, arg[0].n));) {
        p += arg[0].n;
        n++;
    }
    *out = sq_tv_int(n);
    return SQUISH_OK;
}

/* All characters of one kind, and at least one. */
static squish_status all_are(sq_trun *r, const sq_tval *s, bool (*is)(uint32_t cp), sq_tval *out) {
    bool all = s->n > 0;
    SQ_TRY(sq_tmpl_charge(r, s->n / 8));
    for (size_t at = 0; at < s->n && all;) {
        uint32_t cp;
        at += sq_utf8_decode(s->u.s + at, s->n - at, &cp, NULL);
        all = is(cp);
    }
    *out = sq_tv_bool(all);
    return SQUISH_OK;
}

static bool is_alpha(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
static bool is_decimal(uint32_t cp) {
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_ND;
}
static bool is_digit(uint32_t cp) {
    bool raised = cp == 0xb2 || cp == 0xb3 || cp == 0xb9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079);
    return is_decimal(cp) || raised || (cp >= 0x2080 && cp <= 0x2089);
}
static bool is_alnum(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return is_alpha(cp) || (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
}

static squish_status m_isalpha(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return all_are(r, s, is_alpha, out);
}
static squish_status m_isdecimal(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return all_are(r, s, is_decimal, out);
}
static squish_status m_isdigit(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return all_are(r, s, is_digit, out);
}
static squish_status m_isalnum(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return all_are(r, s, is_alnum, out);
}
static squish_status m_isspace(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return all_are(r, s, sq_tmpl_is_space, out);
}

/* islower and isupper: no letter of the other case, and at least one of this. */
static squish_status one_case(sq_trun *r, const sq_tval *s, bool upper, sq_tval *out) {
    bool some = false, clean = true;
    SQ_TRY(sq_tmpl_charge(r, s->n / 8));
    for (size_t at = 0; at < s->n && clean;) {
        uint32_t cp;
        at += sq_utf8_decode(s->u.s + at, s->n - at, &cp, NULL);
        bool is_upper = utf8proc_isupper((utf8proc_int32_t)cp),
             is_lower = utf8proc_islower((utf8proc_int32_t)cp);
        some |= upper ? is_upper : is_lower;
        clean = !(upper ? is_lower : is_upper);
    }
    *out = sq_tv_bool(some && clean);
    return SQUISH_OK;
}
static squish_status m_islower(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return one_case(r, s, false, out);
}
static squish_status m_isupper(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return one_case(r, s, true, out);
}

/* ---- taking apart ---------------------------------------------------------------------------- */

static squish_status push_part(sq_trun *r, sq_tseq *list, const char *from, const char *to) {
    const sq_tval v = part(from, to);
    SQ_TRY(sq_tmpl_charge(r, 1));
    return sq_tmpl_seq_push(r, list, &v);
}

static void reverse_items(sq_tseq *s) {
    for (uint32_t i = 0, j = s->n; i + 1 < j; i++) {
        sq_tval keep = s->items[i];
        s->items[i] = s->items[--j];
        s->items[j] = keep;
    }
}

/* At a separator, from the left. max < 0: everywhere. */
static squish_status split_at(sq_trun *r, const sq_tval *s, const sq_tval *sep, int64_t max, sq_tseq *list) {
    const char *from = s->u.s, *end = from + s->n;
    for (; max != 0; max--) {
        const char *hit = sq_tmpl_find(from, (size_t)(end - from), sep->u.s, sep->n);
        if (!hit) break;
        SQ_TRY(push_part(r, list, from, hit));
        from = hit + sep->n;
    }
    return push_part(r, list, from, end);
}

static squish_status rsplit_at(sq_trun *r, const sq_tval *s, const sq_tval *sep, int64_t max, sq_tseq *list) {
    const char *from = s->u.s, *end = from + s->n;
    for (; max != 0; max--) {
        const char *hit = find_last(from, (size_t)(end - from), sep->u.s, sep->n);
        if (!hit) break;
        SQ_TRY(push_part(r, list, hit + sep->n, end));
        end = hit;
    }
    SQ_TRY(push_part(r, list, from, end));
    reverse_items(list);
    return SQUISH_OK;
}

/* The next word of s[0..n) from the left: [*from, *to). False: only white space is left. */
static bool first_word(const char *s, size_t n, const char **from, const char **to) {
    sq_span rest = sq_tmpl_strip(s, n, NULL, true, false);
    const char *p = (const char *)rest.p, *end = p + rest.n;
    *from = p;
    while (p < end) {
        uint32_t cp;
        size_t step = sq_utf8_decode(p, (size_t)(end - p), &cp, NULL);
        if (sq_tmpl_is_space(cp)) break;
        p += step;
    }
    *to = p;
    return rest.n > 0;
}

/* At runs of white space; the rest behind the last split keeps its inner blanks, not those before it. */
static squish_status split_words(sq_trun *r, const sq_tval *s, int64_t max, sq_tseq *list) {
    const char *at = s->u.s, *end = at + s->n, *from, *to;
    for (; first_word(at, (size_t)(end - at), &from, &to); at = to, max--) {
        if (max == 0) return push_part(r, list, from, end);
        SQ_TRY(push_part(r, list, from, to));
    }
    return SQUISH_OK;
}

static squish_status rsplit_words(sq_trun *r, const sq_tval *s, int64_t max, sq_tseq *list) {
    const char *from = s->u.s;
    sq_span rest = sq_tmpl_strip(from, s->n, NULL, false, true);
    for (; rest.n > 0; max--) {
        const char *end = from + rest.n, *start = end;
        while (start > from && max != 0) { /* back over one word */
            const char *back = start - 1;
            while (back > from && ((unsigned char)*back & 0xc0) == 0x80) back--;
            uint32_t cp;
            sq_utf8_decode(back, (size_t)(start - back), &cp, NULL);
            if (sq_tmpl_is_space(cp)) break;
            start = back;
        }
        if (max == 0) start = from;
        SQ_TRY(push_part(r, list, start, end));
        rest = sq_tmpl_strip(from, (size_t)(start - from), NULL, false, true);
    }
    reverse_items(list);
    return SQUISH_OK;
}

static squish_status split(sq_trun *r, const sq_tval *s, const sq_tval *arg, bool from_right, sq_tval *out) {
    int64_t max = -1;
    bool by_words = !given(&arg[0]);
    if (!by_words) SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the separator"));
    if (!by_words && arg[0].n == 0) return sq_tmpl_fail(r, "empty separator");
    if (arg[1].type != SQ_TV_UNSET) SQ_TRY(sq_tmpl_want_int(r, &arg[1], &max));
    SQ_TRY(sq_tmpl_charge(r, s->n / 16));
    sq_tval list;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, 0, &list));
    if (by_words)
        SQ_TRY(from_right ? rsplit_words(r, s, max, list.u.seq) : split_words(r, s, max, list.u.seq));
    else SQ_TRY((from_right ? rsplit_at : split_at)(r, s, &arg[0], max, list.u.seq));
    *out = list;
    return SQUISH_OK;
}

static squish_status m_split(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return split(r, s, arg, false, out);
}
static squish_status m_rsplit(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return split(r, s, arg, true, out);
}

static bool ends_line(uint32_t cp) {
    return (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

static squish_status m_splitlines(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    bool keep = arg[0].type != SQ_TV_UNSET && sq_tmpl_truth(&arg[0]);
    const char *from = s->u.s, *end = from + s->n;
    sq_tval list;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, 0, &list));
    SQ_TRY(sq_tmpl_charge(r, s->n / 8));
    for (const char *p = from; p < end;) {
        uint32_t cp;
        const char *next = p + sq_utf8_decode(p, (size_t)(end - p), &cp, NULL);
        if (ends_line(cp)) {
            if (cp == '\r' && next < end && *next == '\n') next++;
            SQ_TRY(push_part(r, list.u.seq, from, keep ? next : p));
            from = next;
        }
        p = next;
    }
    if (from < end) SQ_TRY(push_part(r, list.u.seq, from, end));
    *out = list;
    return SQUISH_OK;
}

static squish_status partition(sq_trun *r, const sq_tval *s, const sq_tval *sep, bool last, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, sep, "the separator"));
    if (sep->n == 0) return sq_tmpl_fail(r, "empty separator");
    SQ_TRY(sq_tmpl_charge(r, s->n / 8));
    const char *from = s->u.s, *end = from + s->n;
    const char *hit =
        last ? find_last(from, s->n, sep->u.s, sep->n) : sq_tmpl_find(from, s->n, sep->u.s, sep->n);
    sq_tval parts;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_TUPLE, 3, &parts));
    sq_tval *p = parts.u.seq->items;
    p[0] = p[1] = p[2] = sq_tv_str("", 0);
    parts.u.seq->n = 3;
    if (hit) {
        p[0] = part(from, hit);
        p[1] = *sep;
        p[2] = part(hit + sep->n, end);
    } else {
        p[last ? 2 : 0] = *s;
    }
    *out = parts;
    return SQUISH_OK;
}

static squish_status m_partition(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return partition(r, s, &arg[0], false, out);
}
static squish_status m_rpartition(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return partition(r, s, &arg[0], true, out);
}

static squish_status m_removeprefix(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the prefix"));
    size_t n = arg[0].n <= s->n && memcmp(s->u.s, arg[0].u.s, arg[0].n) == 0 ? arg[0].n : 0;
    *out = sq_tv_str(s->u.s + n, s->n - n);
    return SQUISH_OK;
}

static squish_status m_removesuffix(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the suffix"));
    bool hit = arg[0].n <= s->n && memcmp(s->u.s + s->n - arg[0].n, arg[0].u.s, arg[0].n) == 0;
    *out = sq_tv_str(s->u.s, s->n - (hit ? arg[0].n : 0));
    return SQUISH_OK;
}

/* ---- putting together ------------------------------------------------------------------------ */

/* The empty text is found before every character and at the end. */
static squish_status replace_empty(sq_trun *r, const sq_tval *s, const sq_tval *to, int64_t max) {
    size_t at = 0;
    for (; max != 0 && at <= s->n; max--) {
        size_t n = sq_tmpl_offset(s->u.s + at, s->n - at, 1);
        SQ_TRY(sq_tmpl_put(r, &r->scratch, to->u.s, to->n));
        SQ_TRY(sq_tmpl_put(r, &r->scratch, s->u.s + at, n));
        SQ_TRY(sq_tmpl_charge(r, 1));
        at += n ? n : 1;
    }
    return at < s->n ? sq_tmpl_put(r, &r->scratch, s->u.s + at, s->n - at) : SQUISH_OK;
}

static squish_status replace_all(sq_trun *r, const sq_tval *s, const sq_tval *from, const sq_tval *to,
                                 int64_t max) {
    const char *p = s->u.s, *end = p + s->n;
    for (; max != 0; max--) {
        const char *hit = sq_tmpl_find(p, (size_t)(end - p), from->u.s, from->n);
        if (!hit) break;
        SQ_TRY(sq_tmpl_put(r, &r->scratch, p, (size_t)(hit - p)));
        SQ_TRY(sq_tmpl_put(r, &r->scratch, to->u.s, to->n));
        SQ_TRY(sq_tmpl_charge(r, 1));
        p = hit + from->n;
    }
    return sq_tmpl_put(r, &r->scratch, p, (size_t)(end - p));
}

static squish_status m_replace(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    int64_t max = -1;
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "replace() argument 1"));
    SQ_TRY(sq_tmpl_want_str(r, &arg[1], "replace() argument 2"));
    if (arg[2].type != SQ_TV_UNSET) SQ_TRY(sq_tmpl_want_int(r, &arg[2], &max));
    SQ_TRY(sq_tmpl_charge(r, s->n / 32));
    if (arg[0].n > 0 && !sq_tmpl_find(s->u.s, s->n, arg[0].u.s, arg[0].n)) {
        *out = *s;
        return SQUISH_OK;
    }
    size_t mark = r->scratch.len;
    SQ_TRY(arg[0].n == 0 ? replace_empty(r, s, &arg[1], max) : replace_all(r, s, &arg[0], &arg[1], max));
    return sq_tmpl_take(r, mark, out);
}

static squish_status m_join(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    sq_titer it;
    sq_tval item;
    SQ_TRY(sq_tmpl_iter(r, &arg[0], &it));
    size_t mark = r->scratch.len;
    for (uint64_t i = 0;; i++) {
        bool has;
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (!has) break;
        if (item.type != SQ_TV_STR)
            return sq_tmpl_fail(r, "sequence item %llu: expected str instance, %s found",
                                (unsigned long long)i, sq_tmpl_type_name(&item));
        if (i > 0) SQ_TRY(sq_tmpl_put(r, &r->scratch, s->u.s, s->n));
        SQ_TRY(sq_tmpl_put(r, &r->scratch, item.u.s, item.n));
    }
    return sq_tmpl_take(r, mark, out);
}

/* Padded to a width in code points. */
static squish_status pad(sq_trun *r, const sq_tval *s, const sq_tval *arg, int left_share, sq_tval *out) {
    int64_t width;
    sq_tval fill = given(&arg[1]) ? arg[1] : sq_tv_str(" ", 1);
    SQ_TRY(sq_tmpl_want_int(r, &arg[0], &width));
    SQ_TRY(sq_tmpl_want_str(r, &fill, "the fill character"));
    if (sq_utf8_count(fill.u.s, fill.n) != 1)
        return sq_tmpl_fail(r, "The fill character must be exactly one character long");
    if (width > SQ_TMPL_REPEAT_MAX / 4)
        return sq_tmpl_over(r, "a width of more than %d", SQ_TMPL_REPEAT_MAX / 4);
    int64_t n = width - (int64_t)sq_utf8_count(s->u.s, s->n);
    if (n < 0) n = 0;
    /* center puts the odd blank on the left if the width is odd: CPython's rule */
    int64_t left = left_share == 0 ? 0 : left_share == 2 ? n : n / 2 + (n & width & 1);
    size_t mark = r->scratch.len;
    for (int64_t i = 0; i < left; i++) SQ_TRY(sq_tmpl_put(r, &r->scratch, fill.u.s, fill.n));
    SQ_TRY(sq_tmpl_put(r, &r->scratch, s->u.s, s->n));
    for (int64_t i = left; i < n; i++) SQ_TRY(sq_tmpl_put(r, &r->scratch, fill.u.s, fill.n));
    SQ_TRY(sq_tmpl_charge(r, (uint64_t)n));
    return sq_tmpl_take(r, mark, out);
}

static squish_status m_ljust(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return pad(r, s, arg, 0, out);
}
static squish_status m_center(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return pad(r, s, arg, 1, out);
}
static squish_status m_rjust(sq_trun *r, const sq_tval *s, const sq_tval *arg, sq_tval *out) {
    return pad(r, s, arg, 2, out);
}

/* Methods Python has and this does not: there, so that looking at them tells nothing new, but not to be
 * called. */
static squish_status m_unsupported(sq_trun *r, const sq_tval *s, const sq_targs *args, sq_tval *out) {
    (void)s;
    (void)args;
    (void)out;
    return sq_tmpl_fail(r, "this method of str is not supported");
}

const sq_tmpl_native sq_tmpl_str_methods[] = {
    {"split", m_split, NULL, 0, 2, {"sep", "maxsplit"}},
    {"strip", m_strip, NULL, 0, 1, {0}},
    {"lstrip", m_lstrip, NULL, 0, 1, {0}},
    {"rstrip", m_rstrip, NULL, 0, 1, {0}},
    {"startswith", m_startswith, NULL, 1, 1, {0}},
    {"endswith", m_endswith, NULL, 1, 1, {0}},
    {"replace", m_replace, NULL, 2, 3, {0}},
    {"upper", m_upper, NULL, 0, 0, {0}},
    {"lower", m_lower, NULL, 0, 0, {0}},
    {"title", m_title, NULL, 0, 0, {0}},
    {"capitalize", m_capitalize, NULL, 0, 0, {0}},
    {"join", m_join, NULL, 1, 1, {0}},
    {"rsplit", m_rsplit, NULL, 0, 2, {"sep", "maxsplit"}},
    {"splitlines", m_splitlines, NULL, 0, 1, {"keepends"}},
    {"partition", m_partition, NULL, 1, 1, {0}},
    {"rpartition", m_rpartition, NULL, 1, 1, {0}},
    {"removeprefix", m_removeprefix, NULL, 1, 1, {0}},
    {"removesuffix", m_removesuffix, NULL, 1, 1, {0}},
    {"find", m_find, NULL, 1, 1, {0}},
    {"rfind", m_rfind, NULL, 1, 1, {0}},
    {"index", m_index, NULL, 1, 1, {0}},
    {"rindex", m_rindex, NULL, 1, 1, {0}},
    {"count", m_count, NULL, 1, 1, {0}},
    {"isalpha", m_isalpha, NULL, 0, 0, {0}},
    {"isdecimal", m_isdecimal, NULL, 0, 0, {0}},
    {"isdigit", m_isdigit, NULL, 0, 0, {0}},
    {"isalnum", m_isalnum, NULL, 0, 0, {0}},
    {"isspace", m_isspace, NULL, 0, 0, {0}},
    {"islower", m_islower, NULL, 0, 0, {0}},
    {"isupper", m_isupper, NULL, 0, 0, {0}},
    {"ljust", m_ljust, NULL, 1, 2, {0}},
    {"center", m_center, NULL, 1, 2, {0}},
    {"rjust", m_rjust, NULL, 1, 2, {0}},
    {"casefold", NULL, m_unsupported, 0, 0, {0}},
    {"encode", NULL, m_unsupported, 0, 0, {0}},
    {"expandtabs", NULL, m_unsupported, 0, 0, {0}},
    {"format", NULL, m_unsupported, 0, 0, {0}},
    {"format_map", NULL, m_unsupported, 0, 0, {0}},
    {"isascii", NULL, m_unsupported, 0, 0, {0}},
    {"isidentifier", NULL, m_unsupported, 0, 0, {0}},
    {"isnumeric", NULL, m_unsupported, 0, 0, {0}},
    {"isprintable", NULL, m_unsupported, 0, 0, {0}},
    {"istitle", NULL, m_unsupported, 0, 0, {0}},
    {"maketrans", NULL, m_unsupported, 0, 0, {0}},
    {"swapcase", NULL, m_unsupported, 0, 0, {0}},
    {"translate", NULL, m_unsupported, 0, 0, {0}},
    {"zfill", NULL, m_unsupported, 0, 0, {0}},
};
const size_t sq_tmpl_n_str_methods = SQ_COUNT(sq_tmpl_str_methods);
