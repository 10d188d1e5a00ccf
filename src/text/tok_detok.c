/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_detok.c - ids back to text, piece by piece, always whole characters.
 *
 * A token may end inside a character. What is held back is a proper prefix of one well-formed sequence, at
 * most three bytes; everything before it is certain, because no later byte can change how it is read. */
#include "text/tok_int.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

void sq_detok_init(sq_detok *d, const sq_tok *t, bool with_special, bool at_text_start) {
    *d = (sq_detok){.tok = t, .with_special = with_special,
                    .at_start = at_text_start && (t->h->flags & TOK_STRIP_FIRST)};
}

/* Copy s[0..n) with each ill-formed subpart replaced. */
static bool append_repaired(sq_buf *out, const char *s, size_t n) {
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool ok;
        size_t len = sq_utf8_decode(s + i, n - i, &cp, &ok);
        if (!ok) {
            if (!sq_buf_append(out, s + done, i - done) || !sq_buf_append(out, replacement, 3)) return false;
            done = i + len;
        }
        i += len;
    }
    return sq_buf_append(out, s + done, n - done);
}

/* Finish the character in d->pending with bytes from s; *used tells how many it took. */
static bool complete_pending(sq_detok *d, const char *s, size_t n, sq_buf *out, size_t *used) {
    char joint[8];
    size_t held = d->n_pending, take = n < 4 ? n : 4;
    memcpy(joint, d->pending, held);
    memcpy(joint + held, s, take);
    if (held + take <= 3 && sq_utf8_pending(joint, held + take) == held + take) {
        memcpy(d->pending + held, s, take);
        d->n_pending = (uint8_t)(held + take);
        *used = take;
        return true;
    }
    uint32_t cp;
    size_t len = sq_utf8_decode(joint, held + take, &cp, NULL);
    d->n_pending = 0;
    *used = len - held; /* pending is a prefix of something well-formed, so it is consumed whole */
    return append_repaired(out, joint, len);
}

bool sq_detok_push(sq_detok *d, int32_t id, sq_buf *out) {
    sq_span bytes;
    if (!sq_tok_bytes(d->tok, id, &bytes) || bytes.n == 0) return true;
    if (sq_tok_is_control(d->tok, id) && !d->with_special) return true;
    const char *s = (const char *)bytes.p;
    size_t n = bytes.n, used = 0;
    /* Each byte may become a U+FFFD. Reserving first means that a refusal leaves the state as it was. */
    if (!sq_buf_reserve(out, 3 * (n + d->n_pending))) return false;
    if (d->at_start && *s == ' ') {
        s++;
        n--;
    }
    d->at_start = false;
    if (d->n_pending && n > 0) {
        if (!complete_pending(d, s, n, out, &used)) return false;
        s += used;
        n -= used;
    }
    size_t tail = n ? sq_utf8_pending(s, n) : 0;
    if (!append_repaired(out, s, n - tail)) return false;
    if (tail) {
        memcpy(d->pending, s + n - tail, tail);
        d->n_pending = (uint8_t)tail;
    }
    return true;
}

bool sq_detok_finish(sq_detok *d, sq_buf *out) {
    if (d->n_pending && !sq_buf_append(out, replacement, 3)) return false;
    d->n_pending = 0;
    return true;
}
