/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_stops.c - stop strings as one automaton over bytes (Aho and Corasick, CACM 1975).
 *
 * A state is the longest suffix of the text so far that is a prefix of some stop string, so its depth
 * is exactly the number of bytes that must be held back, and those bytes are the state's own path:
 * nothing else needs remembering but the last `depth` bytes. Bytes that occur in no stop string share
 * one class, which keeps the table small:
 *
 *   next[state][class_of[byte]]      root = 0      at most 4,097 states x 257 classes x 2 bytes
 *
 * A text is cut where the first stop string ends; if several end there, the longest counts. */
#include "sample/sample.h"

#include <string.h>

enum { STOPS_MAX = 16, STOP_BYTES_MAX = 256, STATES_MAX = STOPS_MAX * STOP_BYTES_MAX + 1, NO_STOP = -1 };

typedef struct {
    uint16_t depth;
    uint16_t fail;  /* state of the longest proper suffix; only used while building */
    int16_t stop;   /* longest stop string that ends here, or NO_STOP */
} state;

struct sq_stops {
    squish_alloc alloc;
    size_t bytes;
    int32_t n_stops, n_states, n_classes;
    uint16_t class_of[256];         /* 0: in no stop string */
    uint16_t length[STOPS_MAX];
    state *states;                  /* [n_states] */
    uint16_t *next;                 /* [n_states][n_classes] */
    uint16_t at;                    /* current state */
    char held[STOP_BYTES_MAX];      /* its path: the last depth bytes of the text */
};

/* ---- building -------------------------------------------------------------------------------- */

static squish_status check(const char *const *strings, int32_t n, size_t *total, squish_error *err) {
    if (n < 0 || n > STOPS_MAX)
        return sq_fail(err, SQUISH_INVALID, "stop: %d strings are outside 0..%d", n, STOPS_MAX);
    if (n > 0 && !strings)
        return sq_fail(err, SQUISH_INVALID, "stop: %d strings announced, but none given", n);
    *total = 0;
    for (int32_t i = 0; i < n; i++) {
        size_t bytes = strings[i] ? strnlen(strings[i], STOP_BYTES_MAX + 1) : 0;
        if (bytes < 1 || bytes > STOP_BYTES_MAX)
            return sq_fail(err, SQUISH_INVALID, "stop[%d]: %s, wanted 1..%d bytes", i,
                           bytes == 0 ? "an empty string" : "a longer string", STOP_BYTES_MAX);
        *total += bytes;
    }
    return SQUISH_OK;
}

static int32_t number_classes(const char *const *strings, int32_t n, uint16_t class_of[256]) {
    uint16_t classes = 1;
    memset(class_of, 0, 256 * sizeof *class_of);
    for (int32_t i = 0; i < n; i++)
        for (const char *c = strings[i]; *c; c++)
            if (class_of[(uint8_t)*c] == 0) class_of[(uint8_t)*c] = classes++;
    return classes;
}

static uint16_t *next_of(const sq_stops *s, uint16_t at, uint16_t class) {
    return &s->next[(size_t)at * (size_t)s->n_classes + class];
}

/* Add a string to the trie. A string that is there already keeps its first index. */
static void add(sq_stops *s, const char *string, int16_t index) {
    uint16_t at = 0;
    for (const char *c = string; *c; c++) {
        uint16_t *next = next_of(s, at, s->class_of[(uint8_t)*c]);
        if (*next == 0) {
            *next = (uint16_t)s->n_states++;
            s->states[*next] = (state){.depth = (uint16_t)(s->states[at].depth + 1), .stop = NO_STOP};
        }
        at = *next;
    }
    s->length[index] = s->states[at].depth;
    if (s->states[at].stop == NO_STOP) s->states[at].stop = index;
}

/* Turn the trie into an automaton, level by level: a missing edge of a state is the edge of its fail
 * state, which is shallower and therefore complete. A state without a string of its own takes that of
 * its fail state. */
static void complete_level(sq_stops *s, uint16_t depth) {
    for (uint16_t at = 0; at < s->n_states; at++) {
        if (s->states[at].depth != depth) continue;
        uint16_t fail = s->states[at].fail;
        if (s->states[at].stop == NO_STOP) s->states[at].stop = s->states[fail].stop;
        for (uint16_t c = 0; c < s->n_classes; c++) {
            uint16_t *edge = next_of(s, at, c);
            uint16_t other = at == 0 ? 0 : *next_of(s, fail, c);
            if (*edge == 0)
                *edge = other;
            else
                s->states[*edge].fail = other;
        }
    }
}

squish_status sq_stops_new(sq_stops **out, const char *const *strings, int32_t n, const squish_alloc *a,
                           squish_error *err) {
    *out = NULL;
    size_t total = 0;
    SQ_TRY(check(strings, n, &total, err));
    sq_stops plan = {.alloc = a ? *a : sq_alloc_default(), .n_stops = n, .n_states = 1};
    plan.n_classes = number_classes(strings, n, plan.class_of);
    size_t states_at = sq_align_up(sizeof plan, 16), next_at = states_at + (total + 1) * sizeof(state);
    plan.bytes = next_at + (total + 1) * (size_t)plan.n_classes * sizeof(uint16_t);
    sq_stops *s = sq_alloc_zero(&plan.alloc, plan.bytes);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "stop strings: %zu bytes", plan.bytes);
    *s = plan;
    s->states = (state *)(void *)((char *)s + states_at);
    s->next = (uint16_t *)(void *)((char *)s + next_at);
    s->states[0].stop = NO_STOP;
    uint16_t deepest = 0;
    for (int32_t i = 0; i < n; i++) {
        add(s, strings[i], (int16_t)i);
        if (s->length[i] > deepest) deepest = s->length[i];
    }
    for (uint16_t depth = 0; depth <= deepest; depth++) complete_level(s, depth);
    *out = s;
    return SQUISH_OK;
}

void sq_stops_free(sq_stops *s) {
    if (!s) return;
    squish_alloc a = s->alloc;
    sq_alloc_free(&a, s, s->bytes);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Hand out the first n bytes of (held bytes, then text). */
static void hand_out(const sq_stops *s, size_t n_held, const char *text, size_t n, sq_buf *out) {
    size_t from_held = n < n_held ? n : n_held;
    sq_buf_append(out, s->held, from_held);
    if (n > from_held) sq_buf_append(out, text, n - from_held);
}

/* Make held the last `depth` bytes of (held, text[0..n)). */
static void hold(sq_stops *s, size_t n_held, const char *text, size_t n, size_t depth) {
    if (depth <= n) {
        memcpy(s->held, text + n - depth, depth);
        return;
    }
    size_t old = depth - n;
    memmove(s->held, s->held + n_held - old, old);
    if (n > 0) memcpy(s->held + old, text, n);
}

int32_t sq_stops_push(sq_stops *s, const char *text, size_t n, bool include, sq_buf *out) {
    size_t n_held = s->states[s->at].depth;
    for (size_t i = 0; i < n; i++) {
        s->at = *next_of(s, s->at, s->class_of[(uint8_t)text[i]]);
        int32_t stop = s->states[s->at].stop;
        if (stop == NO_STOP) continue;
        size_t certain = n_held + i + 1 - (include ? 0 : s->length[stop]);
        hand_out(s, n_held, text, certain, out);
        s->at = 0;
        return stop;
    }
    size_t depth = s->states[s->at].depth;
    hand_out(s, n_held, text, n_held + n - depth, out);
    hold(s, n_held, text, n, depth);
    return NO_STOP;
}

bool sq_stops_finish(sq_stops *s, sq_buf *out) {
    size_t n_held = s->states[s->at].depth;
    s->at = 0;
    return sq_buf_append(out, s->held, n_held);
}
