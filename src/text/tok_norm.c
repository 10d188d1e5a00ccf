/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_norm.c - normalisation: Unicode forms, prefixes, replacements.
 *
 * A Unicode form is applied only where it can matter. A code point is *stable* when no form changes it and
 * nothing before it can combine with it: such text is copied, or not even that. Between two stable code
 * points lies a run that is decomposed, put into canonical order and composed again. utf8proc has the
 * tables; the ordering is ours, because its own is an exchange sort and a text of a million alternating
 * accents would keep it busy for hours. */
#include "text/tok_int.h"

#include <utf8proc.h>

static squish_status no_memory(tok_enc *e) {
    return sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to normalise a text");
}

/* ---- Unicode forms --------------------------------------------------------------------------- */

static bool is_hangul(uint32_t cp) { return cp >= 0xAC00 && cp <= 0xD7A3; }

static bool is_stable(uint32_t cp, tok_form form) {
    bool compat = form == TOK_NFKC || form == TOK_NFKD, compose = form == TOK_NFC || form == TOK_NFKC;
    if (cp < 0xA0 || (cp < 0x300 && form == TOK_NFC)) return true;
    if (is_hangul(cp)) return compose;
    if (cp >= 0x1160 && cp <= 0x11FF) return false; /* vowel and final jamo join the syllable before them */
    const utf8proc_property_t *u = utf8proc_get_property((utf8proc_int32_t)cp);
    if (u->combining_class != 0 || u->category == UTF8PROC_CATEGORY_MN || u->category == UTF8PROC_CATEGORY_MC)
        return false;
    return u->decomp_seqindex == UINT16_MAX || (u->decomp_type != 0 && !compat);
}

static int combining_class(utf8proc_int32_t cp) {
    return utf8proc_get_property(cp)->combining_class;
}

/* Canonical order: each run of marks is sorted by class, equal ones stay as they are. Counting keeps it
 * linear. */
static void order_marks(utf8proc_int32_t *cps, size_t n, utf8proc_int32_t *spare) {
    for (size_t i = 0; i < n;) {
        if (combining_class(cps[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && combining_class(cps[end]) != 0) end++;
        if (end - i == 1) {
            i = end;
            continue;
        }
        size_t start[256] = {0};
        for (size_t k = i; k < end; k++) start[combining_class(cps[k])]++;
        for (size_t c = 0, sum = 0; c < 256; c++) {
            size_t in_class = start[c];
            start[c] = sum;
            sum += in_class;
        }
        for (size_t k = i; k < end; k++) spare[start[combining_class(cps[k])]++] = cps[k];
        memcpy(cps + i, spare, (end - i) * sizeof *cps);
        i = end;
    }
}

/* Decompose cp to at most n code points at out; returns how many it has. */
static size_t decompose(uint32_t cp, utf8proc_int32_t *out, size_t n, int options) {
    utf8proc_ssize_t got = utf8proc_decompose_char((utf8proc_int32_t)cp, out, (utf8proc_ssize_t)n,
                                                   (utf8proc_option_t)options, NULL);
    return got > 0 ? (size_t)got : 0;
}

/* Normalise the short run p[0..n) and append it to out. */
static squish_status append_run(tok_enc *e, sq_span run, tok_form form, sq_buf *out) {
    bool compat = form == TOK_NFKC || form == TOK_NFKD, compose = form == TOK_NFC || form == TOK_NFKC;
    int options = compat ? UTF8PROC_COMPAT : 0;
    options |= UTF8PROC_DECOMPOSE;
    size_t cap = 0, n = 0;
    for (size_t i = 0; i < run.n;) { /* how many code points it will be */
        uint32_t cp;
        i += tok_decode(run.p + i, run.n - i, &cp);
        cap += decompose(cp, NULL, 0, options);
    }
    size_t bytes = 2 * cap * sizeof(utf8proc_int32_t); /* and as much to sort in */
    utf8proc_int32_t *cps = sq_alloc_new(&e->alloc, bytes);
    if (!cps) return no_memory(e);
    for (size_t i = 0; i < run.n;) {
        uint32_t cp;
        i += tok_decode(run.p + i, run.n - i, &cp);
        n += decompose(cp, cps + n, cap - n, options);
    }
    order_marks(cps, n, cps + cap);
    if (compose && n > 0) {
        utf8proc_ssize_t left = utf8proc_normalize_utf32(
            cps, (utf8proc_ssize_t)n, (utf8proc_option_t)(options | UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        n = left > 0 ? (size_t)left : 0;
    }
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        char u[4];
        size_t len = sq_utf8_encode((uint32_t)cps[i], u);
        ok = sq_buf_append(out, u, len);
    }
    sq_alloc_free(&e->alloc, cps, bytes);
    return ok ? SQUISH_OK : no_memory(e);
}

/* Bytes from `at` that are certainly unchanged: up to the last stable code point before one that is not.
 * *run_end: where the run ends that has to be worked on; equal to the result when the text is done. */
static size_t skip_stable(sq_span in, size_t at, tok_form form, size_t *run_end) {
    size_t last = at;
    while (at < in.n) {
        if (in.p[at] < 0x80) {
            last = at++;
            continue;
        }
        uint32_t cp;
        size_t len = tok_decode(in.p + at, in.n - at, &cp);
        if (!is_stable(cp, form)) break;
        last = at;
        at += len;
    }
    if (at == in.n) {
        *run_end = in.n;
        return in.n;
    }
    while (at < in.n) {
        uint32_t cp;
        size_t len = tok_decode(in.p + at, in.n - at, &cp);
        if (is_stable(cp, form)) break;
        at += len;
    }
    *run_end = at;
    return last;
}

static squish_status apply_form(tok_enc *e, sq_span in, tok_form form, sq_buf *buf, sq_span *out) {
    size_t run_end, stable = skip_stable(in, 0, form, &run_end);
    *out = in;
    if (stable == in.n) return SQUISH_OK;
    buf->len = 0;
    for (size_t at = 0; at < in.n; at = run_end) {
        stable = skip_stable(in, at, form, &run_end);
        if (!sq_buf_append(buf, in.p + at, stable - at)) return no_memory(e);
        if (stable < run_end) SQ_TRY(append_run(e, (sq_span){in.p + stable, run_end - stable}, form, buf));
    }
    *out = (sq_span){(const uint8_t *)buf->data, buf->len};
    return SQUISH_OK;
}

/* ---- strings --------------------------------------------------------------------------------- */

static squish_status replace_all(tok_enc *e, sq_span in, sq_span from, sq_span to, sq_buf *buf,
                                 sq_span *out) {
    const uint8_t *hit = in.n ? memmem(in.p, in.n, from.p, from.n) : NULL;
    *out = in;
    if (!hit) return SQUISH_OK;
    buf->len = 0;
    size_t done = 0;
    while (hit) {
        size_t at = (size_t)(hit - in.p);
        if (!sq_buf_append(buf, in.p + done, at - done) || !sq_buf_append(buf, to.p, to.n))
            return no_memory(e);
        done = at + from.n;
        hit = memmem(in.p + done, in.n - done, from.p, from.n);
    }
    if (!sq_buf_append(buf, in.p + done, in.n - done)) return no_memory(e);
    *out = (sq_span){(const uint8_t *)buf->data, buf->len};
    return SQUISH_OK;
}

static squish_status prepend(tok_enc *e, sq_span in, sq_span prefix, sq_buf *buf, sq_span *out) {
    *out = in;
    if (in.n == 0) return SQUISH_OK;
    buf->len = 0;
    if (!sq_buf_append(buf, prefix.p, prefix.n) || !sq_buf_append(buf, in.p, in.n)) return no_memory(e);
    *out = (sq_span){(const uint8_t *)buf->data, buf->len};
    return SQUISH_OK;
}

squish_status tok_normalize(tok_enc *e, sq_span in, sq_span *out) {
    const sq_tok *t = e->t;
    static const sq_span mark = {(const uint8_t *)TOK_MARK, 3}, space = {(const uint8_t *)" ", 1};
    int spare = 0; /* the buffer that the current text does not lie in */
    for (uint32_t i = 0; i < t->h->n_norm; i++) {
        const tok_op *op = &t->ops[i];
        sq_span text = {t->pool + op->text, op->text_bytes}, with = {t->pool + op->with, op->with_bytes},
                next = in;
        sq_buf *buf = &e->norm[spare];
        switch ((tok_op_kind)op->kind) {
        case TOK_OP_FORM: SQ_TRY(apply_form(e, in, (tok_form)op->variant, buf, &next)); break;
        case TOK_OP_PREPEND: SQ_TRY(prepend(e, in, text, buf, &next)); break;
        case TOK_OP_REPLACE: SQ_TRY(replace_all(e, in, text, with, buf, &next)); break;
        case TOK_OP_MARK: SQ_TRY(replace_all(e, in, mark, space, buf, &next)); break;
        default: break;
        }
        if (next.p != in.p) spare = !spare;
        in = next;
    }
    *out = in;
    return SQUISH_OK;
}
