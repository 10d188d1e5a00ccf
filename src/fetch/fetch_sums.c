/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_sums.c - one thread that sums files behind their connections: it reads what lies between what it has
 * summed and the front, which is still in the page cache. When a file is whole its sum is told and its bytes
 * are flushed to the disk, while others are still on their way. */
#include "fetch/fetch_files_int.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEP = 1 << 20 };

typedef struct {
    EVP_MD_CTX *sha256, *git;
    uint64_t summed;
    uint32_t generation;
    bool begun, told;
    fetch_verdict verdict;
    char found[65], hex[65];
    squish_error err;
} state;

struct fetch_sums {
    squish_alloc alloc;
    pthread_mutex_t lock;
    pthread_cond_t changed, verdict;
    pthread_t thread;
    bool running, stop, news; /* news: a verdict that nobody waited for yet */
    fetch_track *files;
    state *states; /* [n]; the thread's, but verdict, found, hex and err, which are under the lock */
    size_t n;
    uint8_t *bytes; /* [STEP] */
};

static void hex(const uint8_t *sum, size_t n, char out[65]) {
    for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

static bool begin(const fetch_track *f, state *k) {
    char head[64];
    if (!k->sha256) k->sha256 = EVP_MD_CTX_new();
    if (!k->sha256 || !EVP_DigestInit_ex(k->sha256, EVP_sha256(), NULL)) return false;
    k->summed = 0;
    k->begun = true;
    if (f->item->kind != FETCH_SUM_GIT) return true;
    if (!k->git) k->git = EVP_MD_CTX_new();
    const int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)f->item->bytes);
    return k->git && EVP_DigestInit_ex(k->git, EVP_sha1(), NULL) &&
           EVP_DigestUpdate(k->git, head, (size_t)n + 1);
}

/* One step of f up to `front`. false: it cannot be read or summed. */
static bool step(fetch_sums *s, const fetch_track *f, state *k, uint64_t front) {
    const uint64_t left = front - k->summed;
    const size_t n = left < STEP ? (size_t)left : STEP;
    ssize_t got;
    do got = pread(f->fd, s->bytes, n, (off_t)k->summed);
    while (got < 0 && errno == EINTR);
    if (got <= 0) return false;
    if (!EVP_DigestUpdate(k->sha256, s->bytes, (size_t)got)) return false;
    if (f->item->kind == FETCH_SUM_GIT && !EVP_DigestUpdate(k->git, s->bytes, (size_t)got)) return false;
    k->summed += (uint64_t)got;
    return true;
}

/* Everything of f is summed. */
static fetch_verdict judge(const fetch_track *f, const state *k, char found[65], char sha256[65]) {
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!EVP_DigestFinal_ex(k->sha256, sum, &n) || n != 32) return FETCH_SUM_FAILED;
    hex(sum, n, sha256);
    memcpy(found, sha256, 65);
    if (f->item->kind == FETCH_SUM_GIT) {
        if (!EVP_DigestFinal_ex(k->git, sum, &n) || n != 20) return FETCH_SUM_FAILED;
        hex(sum, n, found);
    }
    if (f->item->kind != FETCH_SUM_NONE && strcmp(found, f->item->sum) != 0) return FETCH_SUM_WRONG;
    return FETCH_SUM_RIGHT;
}

/* A file with something to sum, or a verdict to give; NULL. Under the lock. */
static fetch_track *next_file(const fetch_sums *s) {
    for (size_t i = 0; i < s->n; i++) {
        const state *k = &s->states[i];
        fetch_track *f = &s->files[i];
        if (k->generation != f->generation || !k->begun) return f;
        if (k->summed < f->front || (k->summed == f->item->bytes && !k->told)) return f;
    }
    return NULL;
}

static void *work(void *user) {
    fetch_sums *s = user;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        fetch_track *f = next_file(s);
        if (!f) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        state *k = &s->states[f - s->files];
        const uint64_t front = f->front;
        if (k->generation != f->generation) {
            k->begun = k->told = false;
            k->verdict = FETCH_SUM_OPEN;
            k->generation = f->generation;
        }
        const uint32_t generation = k->generation;
        pthread_mutex_unlock(&s->lock);
        bool ok = k->begun || begin(f, k);
        if (ok && k->summed < front) ok = step(s, f, k, front);
        char found[65] = "", sha256[65] = "";
        fetch_verdict v = FETCH_SUM_OPEN;
        int cause = ok ? 0 : errno ? errno : EIO;
        if (!ok)
            v = FETCH_SUM_FAILED;
        else if (k->summed == f->item->bytes)
            v = judge(f, k, found, sha256);
        if (v == FETCH_SUM_RIGHT && fdatasync(f->fd) != 0) v = FETCH_SUM_FAILED, cause = errno;
        pthread_mutex_lock(&s->lock);
        if (v == FETCH_SUM_OPEN || generation != f->generation) continue;
        k->told = true;
        k->summed = f->item->bytes;
        k->verdict = v;
        memcpy(k->found, found, sizeof found);
        memcpy(k->hex, sha256, sizeof sha256);
        if (v == FETCH_SUM_FAILED) sq_fail_errno(&k->err, cause, "cannot read back '%s'", f->item->path);
        s->news = true;
        pthread_cond_signal(&s->verdict);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

squish_status fetch_sums_new(fetch_sums **out, fetch_track *files, size_t n, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    fetch_sums *s = sq_alloc_zero(&a, sizeof *s);
    *out = s;
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    *s = (fetch_sums){.alloc = a, .files = files, .n = n};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    pthread_cond_init(&s->verdict, NULL);
    s->states = sq_alloc_zero(&a, (n + 1) * sizeof *s->states);
    s->bytes = sq_alloc_new(&a, STEP);
    s->running = s->states && s->bytes && pthread_create(&s->thread, NULL, work, s) == 0;
    return s->running ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "no thread to take sums");
}

void fetch_sums_free(fetch_sums *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->running) pthread_join(s->thread, NULL);
    for (size_t i = 0; s->states && i < s->n; i++) {
        EVP_MD_CTX_free(s->states[i].sha256);
        EVP_MD_CTX_free(s->states[i].git);
    }
    const squish_alloc a = s->alloc;
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    pthread_cond_destroy(&s->verdict);
    sq_alloc_free(&a, s->states, (s->n + 1) * sizeof *s->states);
    sq_alloc_free(&a, s->bytes, STEP);
    sq_alloc_free(&a, s, sizeof *s);
}

void fetch_sums_front(fetch_sums *s, fetch_track *f, uint64_t front, bool anew) {
    pthread_mutex_lock(&s->lock);
    f->front = front;
    if (anew) f->front_block = 0, f->generation++;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void fetch_sums_wait(fetch_sums *s, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    const uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)(seconds * 1e9);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&s->lock);
    if (!s->news) pthread_cond_timedwait(&s->verdict, &s->lock, &until);
    s->news = false;
    pthread_mutex_unlock(&s->lock);
}

fetch_verdict fetch_sums_verdict(fetch_sums *s, fetch_track *f, char found[65], squish_error *err) {
    pthread_mutex_lock(&s->lock);
    const state *k = &s->states[f - s->files];
    const fetch_verdict v = k->generation == f->generation ? k->verdict : FETCH_SUM_OPEN;
    memcpy(found, k->found, 65);
    if (v == FETCH_SUM_RIGHT) memcpy(f->sha256, k->hex, 65);
    if (v == FETCH_SUM_FAILED && err) *err = k->err;
    pthread_mutex_unlock(&s->lock);
    return v;
}
