/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_history.c - what the timeline so far does to the logits: counts, penalties, DRY, bans.
 *
 * Counts live in entries found through an open-addressed map, so a draw costs O(distinct ids of the
 * history) and never O(vocabulary).
 *
 * DRY asks, for every candidate x: how long is the longest suffix of the history that was followed by x
 * before? A suffix automaton answers it too, but cannot forget tokens that leave a window and walks as
 * many states as there are occurrences. Hash chains over the last few tokens (as in LZ77) cost O(1) to
 * extend; a draw visits the earlier occurrences of the current ending and compares backwards, no
 * further than the length at which the penalty stops growing. */
#include "sample/sample_int.h"

#include <math.h>

static uint32_t hash_id(uint32_t id) {
    uint32_t h = id * 0x9E3779B1u;
    return h ^ h >> 15;
}

/* The map slot of id, or the free slot where it would go. The map is at most half full. */
static uint32_t slot_of(const sq_sampler *s, int32_t id) {
    uint32_t slot = hash_id((uint32_t)id) & s->map_mask;
    while (s->map[slot] != 0 && s->entries[s->map[slot] - 1].id != id) slot = (slot + 1) & s->map_mask;
    return slot;
}

sq_sample_entry *sq_sample_entry_of(sq_sampler *s, int32_t id) {
    uint32_t slot = slot_of(s, id);
    if (s->map[slot] != 0) return &s->entries[s->map[slot] - 1];
    if (s->n_entries == s->cap_entries) return NULL;
    sq_sample_entry *e = &s->entries[s->n_entries++];
    *e = (sq_sample_entry){.id = id};
    s->map[slot] = s->n_entries;
    s->special[id >> 6] |= (uint64_t)1 << (id & 63);
    return e;
}

bool sq_sampler_ban(sq_sampler *s, int32_t id, bool banned) {
    if (id < 0 || id >= s->n_vocab) return false;
    int32_t index = s->map[slot_of(s, id)] - 1;
    bool is_new = index < 0 || !s->entries[index].ever_banned;
    if (is_new && s->n_bans == SQ_SAMPLE_BANS_MAX) return false;
    sq_sample_entry *e = sq_sample_entry_of(s, id);
    if (!e) return false;
    if (is_new) s->n_bans++;
    e->ever_banned = true;
    e->banned = banned;
    return true;
}

/* ---- DRY ------------------------------------------------------------------------------------- */

/* Hash of the dry_key tokens that end at position p; false if they are too few or a breaker is among them. */
static bool dry_hash(const sq_sampler *s, int32_t p, uint32_t *out) {
    if (p + 1 < s->dry_key) return false;
    uint32_t h = 0;
    for (int32_t i = p + 1 - s->dry_key; i <= p; i++) {
        if (s->history[i] < 0) return false;
        h = (h ^ (uint32_t)s->history[i]) * 0x9E3779B1u;
        h ^= h >> 15;
    }
    *out = h & s->dry_mask;
    return true;
}

static void dry_extend(sq_sampler *s, int32_t p) {
    uint32_t slot;
    s->dry_prev[p] = 0;
    if (!dry_hash(s, p, &slot)) return;
    s->dry_prev[p] = s->dry_head[slot];
    s->dry_head[slot] = p + 1;
}

/* Tokens that agree, going backwards from positions a < b; at most len_max, stopping at a breaker. */
static int32_t common_suffix(const sq_sampler *s, int32_t a, int32_t b, int32_t len_max) {
    int32_t n = 0;
    while (n < len_max && s->history[a - n] == s->history[b - n] && s->history[a - n] >= 0) n++;
    return n;
}

/* Set entry.dry of every id that followed an earlier occurrence of the current ending. */
static void dry_match(sq_sampler *s) {
    int32_t last = s->n_history - 1;
    uint32_t slot;
    if (last < 0 || !dry_hash(s, last, &slot)) return;
    int32_t window = s->p.dry_last_n;
    int32_t begin = window >= 0 && window < s->n_history ? s->n_history - window : 0;
    for (int32_t end = s->dry_prev[last] - 1; end >= begin; end = s->dry_prev[end] - 1) {
        int32_t follower = s->history[end + 1];
        if (follower < 0) continue; /* a breaker is never penalised */
        int32_t len_max = end - begin + 1 < s->dry_len_max ? end - begin + 1 : s->dry_len_max;
        int32_t n = common_suffix(s, end, last, len_max);
        if (n < s->p.dry_allowed_length) continue;
        sq_sample_entry *e = sq_sample_entry_of(s, follower);
        if (e && n > e->dry) e->dry = n;
    }
}

/* ---- the timeline ---------------------------------------------------------------------------- */

static int32_t id_at(const sq_sampler *s, int32_t p) {
    return s->history[p] < 0 ? -1 - s->history[p] : s->history[p];
}

/* The token that this one pushes out of the repetition window. */
static void leave_window(sq_sampler *s, int32_t p) {
    int32_t window = s->p.repeat_last_n;
    if (window <= 0 || p < window) return;
    sq_sample_entry *old = sq_sample_entry_of(s, id_at(s, p - window));
    if (old) old->seen--;
}

void sq_sampler_accept(sq_sampler *s, int32_t id, bool generated) {
    if (!s->counts && !s->dry) return;
    if (id < 0 || id >= s->n_vocab || s->n_history == s->history_max) return;
    sq_sample_entry *e = sq_sample_entry_of(s, id);
    if (!e) return;
    int32_t p = s->n_history++;
    bool breaks = s->dry && sq_sample_has_bit(s->breakers, id);
    s->history[p] = breaks ? -1 - id : id;
    if (s->p.repeat_last_n != 0) e->seen++;
    if (generated) e->generated++;
    leave_window(s, p);
    if (s->dry) dry_extend(s, p);
}

/* ---- the price ------------------------------------------------------------------------------- */

static float dry_penalty(const sq_sampler *s, int32_t length) {
    return (float)(s->p.dry_multiplier * pow(s->p.dry_base, length - s->p.dry_allowed_length));
}

static float processed(const sq_sampler *s, const sq_sample_entry *e, float l) {
    float r = s->p.repetition_penalty;
    l += e->bias;
    if (e->seen > 0) l = l > 0 ? l / r : l * r;
    if (e->generated > 0) l -= (float)e->generated * s->p.frequency_penalty + s->p.presence_penalty;
    if (e->dry > 0) l -= dry_penalty(s, e->dry);
    return l;
}

void sq_sample_process(const sq_sample_row *r) {
    sq_sampler *s = r->s;
    if (s->dry) dry_match(s);
    for (int32_t i = 0; i < s->n_entries; i++) {
        sq_sample_entry *e = &s->entries[i];
        bool allowed = !e->banned && e->id < s->n_ids && (!r->mask || sq_sample_has_bit(r->mask, e->id));
        e->l = allowed ? processed(s, e, r->logits[e->id]) : -INFINITY;
        e->dry = 0;
    }
}
