/* SPDX-License-Identifier: Apache-2.0
 *
 * api_responses_kept.c - answers that clients asked to be kept: GET, DELETE and previous_response_id find
 * them.
 *
 * In memory alone, the last 256 within 64 MiB, each with the messages that led to it; the least recently used
 * goes first, the newest stays.
 * An answer belongs to the key (or address) that asked for it. Everything is kept as text and parsed again
 * for each reader: no JSON value is shared between threads.
 *
 * Threads. One mutex around the table; it is held while texts are copied, never while they are parsed. */
#include "api/api_int.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char id[48]; /* "" : free */
    uint64_t client, used;
    sq_buf response, messages;
} kept_one;

struct sq_api_kept {
    pthread_mutex_t lock;
    uint64_t clock;
    kept_one slots[SQ_API_KEPT_MAX];
};

enum { TEXT_MAX = 64 << 20 };

bool sq_api_kept_begin(sq_api *api) {
    if (api->kept) return true;
    sq_api_kept *k = sq_alloc_zero(&api->alloc, sizeof *k);
    if (!k) return false;
    pthread_mutex_init(&k->lock, NULL);
    for (size_t i = 0; i < SQ_API_KEPT_MAX; i++) {
        sq_buf_init(&k->slots[i].response, &api->alloc, TEXT_MAX);
        sq_buf_init(&k->slots[i].messages, &api->alloc, TEXT_MAX);
    }
    api->kept = k;
    return true;
}

static void clear(kept_one *o) {
    o->id[0] = 0;
    sq_buf_deinit(&o->response);
    sq_buf_deinit(&o->messages);
}

void sq_api_kept_free(sq_api *api) {
    sq_api_kept *k = api->kept;
    if (!k) return;
    for (size_t i = 0; i < SQ_API_KEPT_MAX; i++) clear(&k->slots[i]);
    pthread_mutex_destroy(&k->lock);
    sq_alloc_free(&api->alloc, k, sizeof *k);
    api->kept = NULL;
}

/* With the lock. */
static kept_one *find(sq_api_kept *k, uint64_t client, const char *id) {
    for (size_t i = 0; i < SQ_API_KEPT_MAX; i++)
        if (k->slots[i].id[0] && k->slots[i].client == client && strcmp(k->slots[i].id, id) == 0)
            return &k->slots[i];
    return NULL;
}

/* With room for a new one of so many bytes: a free place, else the one that was used longest ago. */
static kept_one *make_room(sq_api_kept *k, size_t bytes) {
    for (;;) {
        kept_one *oldest = NULL, *unused = NULL;
        size_t all = bytes;
        for (size_t i = 0; i < SQ_API_KEPT_MAX; i++) {
            kept_one *o = &k->slots[i];
            all += o->response.cap + o->messages.cap;
            if (!o->id[0])
                unused = o;
            else if (!oldest || o->used < oldest->used)
                oldest = o;
        }
        if (unused && (all <= SQ_API_KEPT_BYTES_MAX || !oldest)) return unused;
        clear(oldest);
    }
}

bool sq_api_kept_put(sq_api *api, uint64_t client, const char *id, const json_t *response,
                     const json_t *messages) {
    sq_api_kept *k = api->kept;
    sq_buf r, m;
    sq_buf_init(&r, &api->alloc, TEXT_MAX);
    sq_buf_init(&m, &api->alloc, TEXT_MAX);
    if (!k || strlen(id) >= sizeof k->slots[0].id || !sq_api_dump(json_incref((json_t *)response), &r) ||
        !sq_api_dump(json_incref((json_t *)messages), &m)) {
        sq_buf_deinit(&r);
        sq_buf_deinit(&m);
        return false;
    }
    pthread_mutex_lock(&k->lock);
    kept_one *o = make_room(k, r.cap + m.cap);
    *o = (kept_one){.client = client, .used = ++k->clock, .response = r, .messages = m};
    memcpy(o->id, id, strlen(id) + 1);
    pthread_mutex_unlock(&k->lock);
    return true;
}

/* text -> a value; NULL on no memory */
static json_t *parsed(const sq_buf *text) { return json_loadb(text->data, text->len, 0, NULL); }

bool sq_api_kept_get(sq_api *api, uint64_t client, const char *id, json_t **response, json_t **messages) {
    sq_api_kept *k = api->kept;
    sq_buf r, m;
    if (!k) return false;
    sq_buf_init(&r, &api->alloc, TEXT_MAX);
    sq_buf_init(&m, &api->alloc, TEXT_MAX);
    pthread_mutex_lock(&k->lock);
    kept_one *o = find(k, client, id);
    if (o) {
        o->used = ++k->clock;
        sq_buf_append(&r, o->response.data, o->response.len);
        sq_buf_append(&m, o->messages.data, o->messages.len);
    }
    pthread_mutex_unlock(&k->lock);
    const bool ok = o && !r.failed && !m.failed;
    if (ok && response) *response = parsed(&r);
    if (ok && messages) *messages = parsed(&m);
    sq_buf_deinit(&r);
    sq_buf_deinit(&m);
    return ok && (!response || *response) && (!messages || *messages);
}

bool sq_api_kept_remove(sq_api *api, uint64_t client, const char *id) {
    sq_api_kept *k = api->kept;
    if (!k) return false;
    pthread_mutex_lock(&k->lock);
    kept_one *o = find(k, client, id);
    if (o) clear(o);
    pthread_mutex_unlock(&k->lock);
    return o != NULL;
}
