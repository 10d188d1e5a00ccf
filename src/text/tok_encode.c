/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_encode.c - a text to ids: added tokens, then normaliser, added tokens again, pre-tokenizer, model.
 *
 * Added tokens are matched leftmost, longest first, in two rounds: those that want the raw text, then,
 * between them, those that want the normalised one. A list is sorted by bytes, so the walk from a position is
 * a search that narrows an interval byte by byte: a trie without nodes. The 256-bit set of first bytes skips
 * nearly every position.
 *
 * Everything here works on one tok_enc on the caller's stack; the tokenizer itself is only read. */
#include "text/tok_int.h"

/* ---- state ----------------------------------------------------------------------------------- */

void tok_enc_init(tok_enc *e, const sq_tok *t, unsigned flags, const squish_alloc *a, squish_error *err) {
    *e = (tok_enc){.t = t, .flags = flags, .alloc = *a, .err = err};
    for (int i = 0; i < 2; i++) {
        sq_buf_init(&e->norm[i], a, SIZE_MAX / 4);
        sq_buf_init(&e->copy[i], a, SIZE_MAX / 4);
    }
}

void tok_enc_release(tok_enc *e) {
    tok_regex_enc_release(e);
    for (int i = 0; i < 2; i++) {
        sq_buf_deinit(&e->norm[i]);
        sq_buf_deinit(&e->copy[i]);
    }
    sq_alloc_free(&e->alloc, e->work, e->work_bytes);
    sq_alloc_free(&e->alloc, e->ids, e->cap_ids * sizeof *e->ids);
    e->work = NULL;
    e->ids = NULL;
}

squish_status tok_enc_reserve(tok_enc *e, size_t n) {
    if (n <= e->cap_ids - e->n_ids) return SQUISH_OK;
    size_t cap = e->cap_ids + e->cap_ids / 2;
    if (cap < e->n_ids + n) cap = e->n_ids + n;
    int32_t *ids = sq_alloc_resize(&e->alloc, e->ids, e->cap_ids * sizeof *ids, cap * sizeof *ids);
    if (!ids) return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory for %zu token ids", cap);
    e->ids = ids;
    e->cap_ids = cap;
    return SQUISH_OK;
}

static squish_status push(tok_enc *e, int32_t id) {
    SQ_TRY(tok_enc_reserve(e, 1));
    e->ids[e->n_ids++] = id;
    return SQUISH_OK;
}

/* ---- added tokens ---------------------------------------------------------------------------- */

/* Index of the longest token of the list that begins at s.p[at], -1. */
static int64_t longest_at(const sq_tok *t, int list, sq_span s, size_t at) {
    const tok_added *a = t->added[list];
    uint32_t lo = 0, hi = t->n_added[list]; /* tokens that agree with the text in their first `depth` bytes */
    int64_t best = -1;
    for (uint32_t depth = 0; lo < hi; depth++) {
        if (a[lo].bytes == depth) { /* the shortest sorts first */
            best = lo++;
            if (lo == hi) break;
        }
        if (at + depth >= s.n) break;
        uint8_t c = s.p[at + depth];
        uint32_t from = lo, to = hi;
        while (from < to) { /* first with a byte >= c */
            uint32_t mid = from + (to - from) / 2;
            if (t->pool[a[mid].offset + depth] < c)
                from = mid + 1;
            else
                to = mid;
        }
        lo = from;
        to = hi;
        while (from < to) { /* first with a byte > c */
            uint32_t mid = from + (to - from) / 2;
            if (t->pool[a[mid].offset + depth] <= c)
                from = mid + 1;
            else
                to = mid;
        }
        hi = from;
    }
    return best;
}

/* The character that ends before s.p[at], at > 0; *from: where it begins. */
static uint32_t char_before(sq_span s, size_t at, size_t *from) {
    size_t i = at - 1;
    while (i > 0 && (s.p[i] & 0xC0) == 0x80) i--;
    uint32_t cp;
    tok_decode(s.p + i, at - i, &cp);
    *from = i;
    return cp;
}

static bool stands_alone(sq_span s, size_t from, size_t to) {
    size_t unused;
    uint32_t cp;
    if (from > 0 && tok_is_word(char_before(s, from, &unused))) return false;
    if (to == s.n) return true;
    tok_decode(s.p + to, s.n - to, &cp);
    return !tok_is_word(cp);
}

/* Take in the white space that lstrip and rstrip claim, but nothing before `floor`. */
static void widen(sq_span s, uint32_t flags, size_t floor, size_t *from, size_t *to) {
    uint32_t cp;
    for (size_t before; (flags & TOK_ADD_LSTRIP) && *from > floor; *from = before)
        if (!tok_is_space(char_before(s, *from, &before)) || before < floor) break;
    while ((flags & TOK_ADD_RSTRIP) && *to < s.n) {
        size_t len = tok_decode(s.p + *to, s.n - *to, &cp);
        if (!tok_is_space(cp)) break;
        *to += len;
    }
}

typedef struct {
    size_t from, to; /* with the white space it claims */
    size_t next;     /* where the search goes on */
    int32_t id;
} found;

/* Next added token of the list at or after `at`. A match that is not wanted (special and not asked for, or
 * part of a word) still consumes its text, as it does in the reference. */
static bool next_added(const tok_enc *e, int list, sq_span s, size_t at, size_t floor, found *out) {
    const sq_tok *t = e->t;
    if (t->n_added[list] == 0) return false;
    const uint64_t *first = t->first[list];
    for (; at < s.n; at++) {
        if (!(first[s.p[at] >> 6] >> (s.p[at] & 63) & 1)) continue;
        int64_t i = longest_at(t, list, s, at);
        if (i < 0) continue;
        const tok_added *a = &t->added[list][i];
        size_t from = at, to = at + a->bytes;
        at = to - 1;
        if ((a->flags & TOK_ADD_SPECIAL) && !(e->flags & SQ_TOK_SPECIAL)) continue;
        if ((a->flags & TOK_ADD_WORD) && !stands_alone(s, from, to)) continue;
        *out = (found){from, to, to, a->id};
        widen(s, a->flags, floor, &out->from, &out->to);
        if (out->from < floor) out->from = floor; /* an earlier rstrip has taken its first bytes */
        if (out->to <= floor) continue;
        return true;
    }
    return false;
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/* Round 2: normalised text. first: the raw text it comes from begins where the user's text begins. */
static squish_status encode_normalized(tok_enc *e, sq_span raw, bool first) {
    sq_span s;
    SQ_TRY(tok_normalize(e, raw, &s));
    size_t done = 0;
    found f = {0};
    while (next_added(e, 1, s, f.next, done, &f)) {
        SQ_TRY(tok_pre_tokenize(e, (sq_span){s.p + done, f.from - done}, first && done == 0));
        SQ_TRY(push(e, f.id));
        done = f.to;
    }
    return tok_pre_tokenize(e, (sq_span){s.p + done, s.n - done}, first && done == 0);
}

/* Round 1: raw text. */
static squish_status encode_raw(tok_enc *e, sq_span s) {
    size_t done = 0;
    found f = {0};
    while (next_added(e, 0, s, f.next, done, &f)) {
        if (f.from > done) SQ_TRY(encode_normalized(e, (sq_span){s.p + done, f.from - done}, done == 0));
        SQ_TRY(push(e, f.id));
        done = f.to;
    }
    return done < s.n ? encode_normalized(e, (sq_span){s.p + done, s.n - done}, done == 0) : SQUISH_OK;
}

/* A copy of the text with each ill-formed subpart made U+FFFD. */
static squish_status repair(tok_enc *e, sq_span s, sq_buf *out) {
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = sq_utf8_decode((const char *)s.p + i, s.n - i, &cp, NULL);
        char u[4];
        size_t n = sq_utf8_encode(cp, u);
        if (!sq_buf_append(out, u, n)) return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to repair a text");
        i += len;
    }
    return SQUISH_OK;
}

/* Put the ids of an affix in front (or behind), unless they stand there already: a chat template may have
 * written them. */
static squish_status affix(tok_enc *e, const int32_t *ids, uint32_t n, bool front) {
    if (n == 0) return SQUISH_OK;
    if (e->n_ids >= n && memcmp(front ? e->ids : e->ids + e->n_ids - n, ids, n * sizeof *ids) == 0)
        return SQUISH_OK;
    SQ_TRY(tok_enc_reserve(e, n));
    if (front) memmove(e->ids + n, e->ids, e->n_ids * sizeof *e->ids);
    memcpy(front ? e->ids : e->ids + e->n_ids, ids, n * sizeof *ids);
    e->n_ids += n;
    return SQUISH_OK;
}

static squish_status encode(tok_enc *e, sq_span s, sq_buf *repaired) {
    const sq_tok *t = e->t;
    if (!sq_utf8_valid((const char *)s.p, s.n)) {
        SQ_TRY(repair(e, s, repaired));
        s = (sq_span){(const uint8_t *)repaired->data, repaired->len};
    }
    SQ_TRY(tok_enc_reserve(e, s.n / 3 + 64));
    SQ_TRY(encode_raw(e, s));
    if (!(e->flags & SQ_TOK_BOS_EOS)) return SQUISH_OK;
    const int32_t *prefix = t->ids + t->h->n_eos;
    SQ_TRY(affix(e, prefix, t->h->n_prefix, true));
    return affix(e, prefix + t->h->n_prefix, t->h->n_suffix, false);
}

squish_status sq_tok_encode(const sq_tok *t, const char *text, size_t n, unsigned flags, sq_arena *out_arena,
                            int32_t **ids, size_t *n_ids, squish_error *err) {
    *ids = NULL;
    *n_ids = 0;
    if (n > TOK_TEXT_BYTES_MAX)
        return sq_fail(err, SQUISH_INVALID, "a text of %zu bytes; at most %zu are tokenized at once", n,
                       TOK_TEXT_BYTES_MAX);
    tok_enc e;
    tok_enc_init(&e, t, flags, &out_arena->alloc, err);
    sq_buf repaired;
    sq_buf_init(&repaired, &out_arena->alloc, SIZE_MAX / 4);
    static const uint8_t nothing[1];
    squish_status st = encode(&e, (sq_span){n ? (const uint8_t *)text : nothing, n}, &repaired);
    if (st == SQUISH_OK) {
        *ids = SQ_ARENA_ARRAY(out_arena, int32_t, e.n_ids);
        if (*ids) {
            memcpy(*ids, e.ids, e.n_ids * sizeof **ids);
            *n_ids = e.n_ids;
        } else {
            st = sq_fail(err, SQUISH_NO_MEMORY, "no memory for %zu token ids", e.n_ids);
        }
    }
    sq_buf_deinit(&repaired);
    tok_enc_release(&e);
    return st;
}
