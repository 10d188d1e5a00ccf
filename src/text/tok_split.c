/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_split.c - pre-tokenizers: a text to the pieces that are encoded one by one.
 *
 * The steps run depth first: each cuts its piece and hands every part to the next step at once, so no list of
 * pieces is ever kept. The regexes everybody uses are written out as scanners below; each is the alternation
 * of its regex, in the same order, with the backtracking of \s+(?!\S) and \s*[\r\n]+ worked out:
 *
 * Qwen2    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
 *            \s+(?!\S)|\s+
 *   Llama 3  the same with \p{N}{1,3}
 *   GPT-2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
#include "text/tok_int.h"

/* ---- scanners -------------------------------------------------------------------------------- */

/* Kind of the character at p (n > 0) and its bytes. */
static inline uint32_t kind_at(const uint8_t *p, size_t n, size_t *len) {
    if (*p < 0x80) {
        *len = 1;
        return tok_ascii_kind[*p];
    }
    uint32_t cp;
    *len = sq_utf8_decode((const char *)p, n, &cp, NULL);
    return tok_kind_wide(cp);
}

/* End of the run of characters whose kind, masked, equals want; at most max of them. */
static inline size_t run_of(const uint8_t *p, size_t n, size_t at, uint32_t mask, uint32_t want, size_t max) {
    size_t len;
    for (; at < n && max > 0; at += len, max--)
        if ((kind_at(p + at, n - at, &len) & mask) != want) break;
    return at;
}

static inline size_t letters(const uint8_t *p, size_t n, size_t at) {
    while (at < n && p[at] < 0x80 && tok_ascii_kind[p[at]] == TOK_L) at++;
    return at < n && p[at] >= 0x80 ? run_of(p, n, at, TOK_L, TOK_L, SIZE_MAX) : at;
}

/* Bytes of an English contraction after the apostrophe at p[at], 0 if there is none. With fold, case does
 * not matter and U+017F is an s. */
static size_t contraction(const uint8_t *p, size_t n, size_t at, bool fold) {
    if (at + 1 >= n) return 0;
    uint8_t a = p[at + 1], b = at + 2 < n ? p[at + 2] : 0;
    if (fold) {
        if (a == 0xC5 && b == 0xBF) return 3;
        if (a < 0x80) a |= 0x20;
        if (b < 0x80) b |= 0x20;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ at a white space character: a run before more text leaves its last character to that text. */
static size_t blanks(const uint8_t *p, size_t n, size_t at) {
    size_t end = at, last = at, len;
    while (end < n && (kind_at(p + end, n - end, &len) & TOK_S)) {
        last = end;
        end += len;
    }
    return end == n || last == at ? end : last;
}

static size_t scan_gpt2(const uint8_t *p, size_t n, size_t at) {
    size_t len, c;
    if (p[at] == '\'' && (c = contraction(p, n, at, false)) > 0) return at + c;
    size_t from = p[at] == ' ' && at + 1 < n ? at + 1 : at;
    uint32_t kind = kind_at(p + from, n - from, &len);
    if (kind & TOK_S) return blanks(p, n, at);
    if (kind == TOK_L) return letters(p, n, from);
    return run_of(p, n, from, TOK_L | TOK_N | TOK_S, kind, SIZE_MAX);
}

/* \s*[\r\n]+ at white space: up to the last line break of the run; 0 if it has none. */
static size_t line_breaks(const uint8_t *p, size_t n, size_t at) {
    size_t end = 0, len;
    for (uint32_t kind; at < n && ((kind = kind_at(p + at, n - at, &len)) & TOK_S); at += len)
        if (kind & TOK_NL) end = at + len;
    return end;
}

static size_t scan_cl100k(const uint8_t *p, size_t n, size_t at, size_t digits) {
    size_t len, next_len = 0, c;
    if (p[at] == '\'' && (c = contraction(p, n, at, true)) > 0) return at + c;
    uint32_t kind = kind_at(p + at, n - at, &len);
    if (kind == TOK_L) return letters(p, n, at + len);
    if (kind == TOK_N) return run_of(p, n, at, TOK_N, TOK_N, digits);
    uint32_t next = at + len < n ? kind_at(p + at + len, n - at - len, &next_len) : (uint32_t)TOK_S;
    if (next == TOK_L && !(kind & TOK_NL)) return letters(p, n, at + len + next_len);
    if (kind == 0 || (p[at] == ' ' && next == 0)) {
        size_t end = run_of(p, n, at + len, TOK_L | TOK_N | TOK_S, 0, SIZE_MAX);
        while (end < n && (p[end] == '\r' || p[end] == '\n')) end++;
        return end;
    }
    size_t end = line_breaks(p, n, at);
    return end ? end : blanks(p, n, at);
}

/* End of the match that begins at p[at]; these regexes match everywhere. */
static inline size_t scan_known(tok_known known, const uint8_t *p, size_t n, size_t at) {
    switch (known) {
    case TOK_KNOWN_GPT2: return scan_gpt2(p, n, at);
    case TOK_KNOWN_QWEN2: return scan_cl100k(p, n, at, 1);
    default: return scan_cl100k(p, n, at, 3);
    }
}

/* ---- runs of a class ------------------------------------------------------------------------- */

/* End of the longest run of op's class from at; *breaks: the last place inside it where a line ends, 0
 * none. */
static size_t class_run(const sq_tok *t, const tok_op *op, sq_span s, size_t at, size_t *breaks) {
    uint32_t cp;
    size_t len, from = at;
    *breaks = 0;
    for (uint32_t max = op->max; at < s.n && max > 0; at += len, max--) {
        len = tok_decode(s.p + at, s.n - at, &cp);
        if (!tok_class_has(&op->cls, t->ranges, cp)) break;
        if (cp == '\n' && at > from) *breaks = at;
    }
    return at;
}

/* The match that begins at `at`: its end, or `at` if there is none; *skip: where to look next in that
 * case. */
static size_t class_match(const sq_tok *t, const tok_op *op, sq_span s, size_t at, size_t *skip) {
    uint32_t cp;
    size_t breaks, len = tok_decode(s.p + at, s.n - at, &cp);
    *skip = at + len;
    if ((op->lead == TOK_LEAD_SPACE && cp == ' ') || (op->lead == TOK_LEAD_WHITE && tok_is_space(cp))) {
        size_t end = class_run(t, op, s, at + len, &breaks);
        if (end > at + len) return end;
    }
    size_t end = class_run(t, op, s, at, &breaks);
    if (end == at || !op->at_end || end == s.n) return end;
    /* $ is also true before a line feed, so the run may give back what follows one. */
    if (breaks) return breaks;
    *skip = end;
    return at;
}

/* Next match of a splitting op at or after at; *start = SIZE_MAX: none. */
static squish_status next_match(tok_enc *e, uint32_t i_op, sq_span s, size_t at, size_t *start, size_t *end) {
    const sq_tok *t = e->t;
    const tok_op *op = &t->ops[i_op];
    *start = SIZE_MAX;
    if (at >= s.n) return SQUISH_OK;
    if (op->kind == TOK_OP_KNOWN) {
        *start = at;
        *end = scan_known((tok_known)op->variant, s.p, s.n, at);
    } else if (op->kind == TOK_OP_PCRE) {
        return tok_regex_next(e, t->regex[i_op], s.p, s.n, at, start, end);
    } else if (op->kind == TOK_OP_LITERAL) {
        const uint8_t *hit = memmem(s.p + at, s.n - at, t->pool + op->text, op->text_bytes);
        if (hit) {
            *start = (size_t)(hit - s.p);
            *end = *start + op->text_bytes;
        }
    } else {
        for (size_t skip; at < s.n; at = skip) {
            *end = class_match(t, op, s, at, &skip);
            if (*end > at) {
                *start = at;
                break;
            }
        }
    }
    return SQUISH_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static squish_status step(tok_enc *e, uint32_t i_op, sq_span s, bool first);

static squish_status part(tok_enc *e, uint32_t i_op, sq_span s, size_t from, size_t to, bool first) {
    if (from >= to) return SQUISH_OK;
    return step(e, i_op + 1, (sq_span){s.p + from, to - from}, first && from == 0);
}

/* What a split does with matches and the text between them. `held` is the part that the next one may still
 * join. */
typedef struct {
    uint32_t i_op;
    sq_span s;
    bool first, any, held_match;
    size_t from, to; /* held */
} joiner;

static squish_status flush(tok_enc *e, joiner *j) {
    if (!j->any) return SQUISH_OK;
    j->any = false;
    return part(e, j->i_op, j->s, j->from, j->to, j->first);
}

static squish_status feed(tok_enc *e, joiner *j, tok_behavior behavior, size_t from, size_t to, bool match) {
    if (from >= to) return SQUISH_OK;
    bool join = false;
    switch (behavior) {
    case TOK_REMOVED:
        if (match) return SQUISH_OK;
        break;
    case TOK_CONTIGUOUS: join = j->held_match == match; break;
    case TOK_WITH_PREVIOUS: join = match && !j->held_match; break;
    case TOK_WITH_NEXT: join = !match && j->held_match; break;
    default: break;
    }
    bool joined = join && j->any;
    if (!joined) {
        SQ_TRY(flush(e, j));
        j->from = from;
        j->any = true;
    }
    j->to = to;
    j->held_match = match;
    return SQUISH_OK;
}

static squish_status split(tok_enc *e, uint32_t i_op, sq_span s, bool first) {
    const tok_op *op = &e->t->ops[i_op];
    joiner j = {.i_op = i_op, .s = s, .first = first};
    tok_behavior behavior = (tok_behavior)op->behavior;
    for (size_t at = 0; at < s.n;) {
        size_t start, end;
        SQ_TRY(next_match(e, i_op, s, at, &start, &end));
        if (start == SIZE_MAX) start = end = s.n;
        SQ_TRY(feed(e, &j, behavior, at, start, op->invert));
        SQ_TRY(feed(e, &j, behavior, start, end, !op->invert));
        at = end;
    }
    return flush(e, &j);
}

/* The common case, a known regex whose matches are the pieces: no bookkeeping. */
static squish_status split_known(tok_enc *e, uint32_t i_op, sq_span s) {
    tok_known known = (tok_known)e->t->ops[i_op].variant;
    for (size_t at = 0; at < s.n;) {
        size_t end = scan_known(known, s.p, s.n, at);
        SQ_TRY(tok_bpe_piece(e, s.p + at, end - at));
        at = end;
    }
    return SQUISH_OK;
}

/* Copy of s with a space in front and, on demand, U+2581 made a space. */
static squish_status copy_piece(tok_enc *e, sq_buf *buf, sq_span s, bool space, bool unmark, sq_span *out) {
    buf->len = 0;
    bool ok = !space || sq_buf_putc(buf, ' ');
    size_t done = 0;
    while (unmark && ok) {
        const uint8_t *mark = s.n > done ? memmem(s.p + done, s.n - done, TOK_MARK, 3) : NULL;
        if (!mark) break;
        ok = sq_buf_append(buf, s.p + done, (size_t)(mark - s.p) - done) && sq_buf_putc(buf, ' ');
        done = (size_t)(mark - s.p) + 3;
    }
    if (!ok || !sq_buf_append(buf, s.p + done, s.n - done))
        return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to tokenize a piece of %zu bytes", s.n);
    *out = (sq_span){(const uint8_t *)buf->data, buf->len};
    return SQUISH_OK;
}

static squish_status metaspace(tok_enc *e, uint32_t i_op, sq_span s, bool first) {
    const tok_op *op = &e->t->ops[i_op];
    bool has_mark = memmem(s.p, s.n, TOK_MARK, 3) != NULL;
    bool starts = s.p[0] == ' ' || (s.n >= 3 && memcmp(s.p, TOK_MARK, 3) == 0);
    bool wanted = op->variant == TOK_SCHEME_ALWAYS || (op->variant == TOK_SCHEME_FIRST && first);
    if (has_mark || (wanted && !starts))
        SQ_TRY(copy_piece(e, &e->copy[1], s, wanted && !starts, has_mark, &s));
    if (op->max == 0) return part(e, i_op, s, 0, s.n, first);
    size_t from = 0;
    for (size_t i = 1; i < s.n; i++) {
        if (s.p[i] != ' ') continue;
        SQ_TRY(part(e, i_op, s, from, i, first));
        from = i;
    }
    return part(e, i_op, s, from, s.n, first);
}

static squish_status step(tok_enc *e, uint32_t i_op, sq_span s, bool first) {
    const tok_header *h = e->t->h;
    if (i_op == h->n_norm + h->n_pre) return tok_bpe_piece(e, s.p, s.n);
    const tok_op *op = &e->t->ops[i_op];
    if (op->kind == TOK_OP_METASPACE) return metaspace(e, i_op, s, first);
    if (op->kind == TOK_OP_PREFIX) {
        if (s.p[0] != ' ') SQ_TRY(copy_piece(e, &e->copy[0], s, true, false, &s));
        return part(e, i_op, s, 0, s.n, first);
    }
    bool last = i_op + 1 == h->n_norm + h->n_pre;
    if (op->kind == TOK_OP_KNOWN && op->behavior == TOK_ISOLATED && last) return split_known(e, i_op, s);
    return split(e, i_op, s, first);
}

squish_status tok_pre_tokenize(tok_enc *e, sq_span text, bool first) {
    return text.n ? step(e, e->t->h->n_norm, text, first) : SQUISH_OK;
}
