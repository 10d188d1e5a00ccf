/* SPDX-License-Identifier: Apache-2.0
 *
 * test_answer_text.c - the text of answers, event by event, over random vocabularies of byte strings: cut
 * characters, ill-formed bytes, stop strings across tokens.
 *
 * A model is played by logits that leave one choice. The oracle joins the bytes of all tokens, repairs them
 * in one go, and looks for stop strings at every position. What the events hand out, joined, must be that,
 * and every event must be whole characters. */
#include "sched/sched.h"
#include "support/tok_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCABS = 100, ANSWERS = 100, IDS = 320, TOKEN_BYTES = 7, TOKENS_MAX = 40, STOPS = 4, TEXT = 4096 };

static uint64_t dice;
static uint32_t below(uint32_t n) { return (uint32_t)(sq_splitmix64(&dice) >> 33) % n; }

/* ---- vocabularies ---------------------------------------------------------------------------- */

typedef struct {
    sq_test_tok t;
    struct {
        char bytes[TOKEN_BYTES];
        size_t n;
    } ids[IDS];
} vocab;

/* Few different bytes, so that they meet often: letters of stop strings, and parts of characters of every
 * length, some of which can never be well-formed. */
static char some_byte(void) {
    static const char bytes[] = "aab \n\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80\xED\xA0\xC0\xF5\xFF";
    return bytes[below(sizeof bytes - 1)];
}

static bool is_there(const vocab *v, int32_t n, const char *bytes, size_t len) {
    for (int32_t i = 0; i < n; i++)
        if (v->ids[i].n == len && memcmp(v->ids[i].bytes, bytes, len) == 0) return true;
    return false;
}

/* A byte as byte-level vocabularies write it. */
static size_t put_byte(uint8_t b, char *out) {
    static uint32_t as[256];
    if (!as['!']) {
        uint32_t next = 0x100;
        for (uint32_t i = 0; i < 256; i++) {
            const bool self = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
            as[i] = self ? i : next++;
        }
    }
    size_t n = 0;
    if (b == '"' || b == '\\') out[n++] = '\\';
    return n + sq_utf8_encode(as[b], out + n);
}

static void open_vocab(vocab *v) {
    static char json[32768];
    size_t n = (size_t)snprintf(json, sizeof json,
                                "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"added_tokens\":[{\"id\":%d,"
                                "\"content\":\"<|x|>\",\"special\":true}],\"model\":{\"merges\":[],"
                                "\"vocab\":{",
                                IDS);
    for (int32_t i = 0; i < IDS; i++) {
        char bytes[TOKEN_BYTES] = {(char)i};
        size_t len = 1;
        while (i >= 256 && (len < 2 || is_there(v, i, bytes, len))) {
            len = 1 + below(TOKEN_BYTES);
            for (size_t k = 0; k < len; k++) bytes[k] = some_byte();
        }
        memcpy(v->ids[i].bytes, bytes, sizeof bytes);
        v->ids[i].n = len;
        n += (size_t)snprintf(json + n, sizeof json - n, "%s\"", i ? "," : "");
        for (size_t k = 0; k < len; k++) n += put_byte((uint8_t)bytes[k], json + n);
        n += (size_t)snprintf(json + n, sizeof json - n, "\":%d", i);
    }
    snprintf(json + n, sizeof json - n, "}}}");
    if (sq_test_tok_json(&v->t, json) != SQUISH_OK) fail_msg("%s", v->t.err.text);
}

/* ---- the oracle ------------------------------------------------------------------------------ */

typedef struct {
    char text[TEXT];
    size_t n;
    const char *stop; /* NULL: none fired */
} result;

static void repair(result *r, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool ok;
        const size_t len = sq_utf8_decode(s + i, n - i, &cp, &ok);
        memcpy(r->text + r->n, ok ? s + i : "\xEF\xBF\xBD", ok ? len : 3);
        r->n += ok ? len : 3;
        i += len;
    }
}

/* The first place where a stop string ends, the longest of those that end there. */
static void cut(result *r, const squish_gen_options *o) {
    for (size_t end = 1; end <= r->n; end++) {
        size_t longest = 0;
        for (int32_t i = 0; i < o->n_stop; i++) {
            const size_t len = strlen(o->stop[i]);
            if (len > end || len <= longest || memcmp(r->text + end - len, o->stop[i], len) != 0) continue;
            longest = len;
            r->stop = o->stop[i];
        }
        if (!longest) continue;
        r->n = o->include_stop ? end : end - longest;
        return;
    }
}

static void expect(result *r, const vocab *v, const int32_t *ids, int32_t n, const squish_gen_options *o) {
    char bytes[TEXT];
    size_t at = 0;
    for (int32_t i = 0; i < n; at += v->ids[ids[i++]].n)
        memcpy(bytes + at, v->ids[ids[i]].bytes, v->ids[ids[i]].n);
    *r = (result){.n = 0};
    repair(r, bytes, at);
    cut(r, o);
}

/* ---- the answer ------------------------------------------------------------------------------ */

static void answer(result *r, const sq_model *m, const int32_t *ids, int32_t n, const squish_gen_options *o) {
    static float logits[IDS + 1];
    sq_answer *a;
    squish_error err = {0};
    squish_gen_event ev = {.finish = SQUISH_FINISH_NONE};
    const squish_alloc alloc = sq_alloc_default();
    *r = (result){.n = 0};
    if (sq_answer_new(&a, m, TOKENS_MAX + 1, o, &alloc, &err) != SQUISH_OK) fail_msg("%s", err.text);
    for (int32_t i = 0; ev.finish == SQUISH_FINISH_NONE; i++) {
        assert_true(i < n);
        logits[ids[i]] = 10;
        if (sq_answer_next(a, logits, i, &ev, &err) != SQUISH_OK) fail_msg("%s", err.text);
        logits[ids[i]] = 0;
        assert_int_equal(ev.id, ids[i]);
        assert_true(sq_utf8_valid(ev.text, ev.text_bytes));
        memcpy(r->text + r->n, ev.text, ev.text_bytes);
        r->n += ev.text_bytes;
    }
    assert_int_equal(ev.finish, ev.stop_reason ? SQUISH_FINISH_STOP : SQUISH_FINISH_LENGTH);
    for (int32_t i = 0; ev.stop_reason && i < o->n_stop; i++)
        if (strcmp(ev.stop_reason, o->stop[i]) == 0) r->stop = o->stop[i];
    sq_answer_free(a);
}

/* Stop strings are whole characters (what is cut off must not be half of one), pieces of what will come and
 * near misses. C strings: no byte 0. */
static int32_t make_stops(const vocab *v, const int32_t *ids, int32_t n, const char **stop) {
    static char texts[STOPS][64];
    result all;
    const squish_gen_options none = {.n_stop = 0};
    expect(&all, v, ids, n, &none);
    int32_t k = 0;
    for (uint32_t wanted = below(STOPS + 1); wanted > 0; wanted--) {
        size_t from = all.n ? below((uint32_t)all.n) : 0, end = from, used = 0;
        while (from > 0 && ((unsigned char)all.text[from] & 0xC0) == 0x80) from--;
        for (uint32_t c = 1 + below(4); c > 0 && end < all.n && all.text[end]; c--)
            do end++;
            while (end < all.n && ((unsigned char)all.text[end] & 0xC0) == 0x80);
        if (end > from && memchr(all.text + from, 0, end - from) == NULL)
            memcpy(texts[k], all.text + from, used = end - from);
        if (below(4) == 0) texts[k][used++] = 'a';
        texts[k][used] = 0;
        bool known = used == 0;
        for (int32_t i = 0; i < k; i++) known |= strcmp(texts[i], texts[k]) == 0;
        if (!known) stop[k] = texts[k], k++;
    }
    return k;
}

static void events_joined_are_the_text_cut_where_a_plain_search_cuts_it(void **state) {
    (void)state;
    static vocab v;
    static sq_model m;
    int32_t n_stopped = 0, n_cases = 0;
    dice = 20260801;
    for (int32_t i = 0; i < VOCABS; i++) {
        open_vocab(&v);
        m.tok = v.t.tok;
        m.cfg.n_vocab = m.info.n_vocab_tokens = IDS + 1;
        for (int32_t k = 0; k < ANSWERS; k++) {
            const uint64_t seed = dice;
            const char *stop[STOPS];
            int32_t ids[TOKENS_MAX];
            const int32_t n = 1 + (int32_t)below(TOKENS_MAX);
            for (int32_t t = 0; t < n; t++)
                ids[t] = below(3) ? 256 + (int32_t)below(IDS - 256) : (int32_t)(uint8_t)some_byte();
            if (below(8) == 0) ids[below((uint32_t)n)] = (int32_t)below(256); /* any byte, 0 among them */
            squish_gen_options o = squish_gen_options_default();
            o.sampling.temperature = 0;
            o.max_tokens = n;
            o.stop = stop;
            o.n_stop = make_stops(&v, ids, n, stop);
            o.include_stop = below(4) == 0;
            result want, got;
            expect(&want, &v, ids, n, &o);
            answer(&got, &m, ids, n, &o);
            n_stopped += got.stop != NULL;
            n_cases++;
            if (got.n != want.n || memcmp(got.text, want.text, want.n) != 0 || got.stop != want.stop)
                fail_msg("seed %llu: %zu bytes, stop '%s', wanted %zu, '%s'", (unsigned long long)seed, got.n,
                         got.stop ? got.stop : "", want.n, want.stop ? want.stop : "");
        }
        sq_test_tok_free(&v.t);
    }
    printf("answers: %d, %d of them ended by a stop string\n", n_cases, n_stopped);
    assert_true(n_stopped > n_cases / 4 && n_stopped < n_cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_joined_are_the_text_cut_where_a_plain_search_cuts_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
