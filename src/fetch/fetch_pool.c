/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_pool.c - see fetch_pool.h. One easy handle per ask, one multi handle for all. */
#include "fetch/fetch_pool.h"
#include "fetch/fetch_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#ifdef SQ_HAVE_CURL

enum { CONNECT_S = 20, HEADERS_MAX = 64 << 10, BUFFER = 256 << 10 };

typedef struct task {
    struct task *next;
    fetch_pool *pool;
    CURL *curl;
    struct curl_slist *headers;
    char url[FETCH_URL_MAX], token_origin[300], token[512], accept[120];
    bool has_token, begun, refused, too_long;
    int redirects;
    size_t header_bytes;
    uint64_t body_bytes, heard_ns;
    fetch_ask ask;
    fetch_head head;
    char said[CURL_ERROR_SIZE];
} task;

struct fetch_pool {
    fetch_libcurl l;
    CURLM *multi;
    task *tasks;
    int32_t n;
    double stall_s;
    uint64_t rate;
    squish_alloc alloc;
};

/* ---- one request ----------------------------------------------------------------------------- */

static size_t take_header(char *line, size_t one, size_t n, void *user) {
    task *t = user;
    n *= one;
    t->heard_ns = sq_os_now_ns();
    t->header_bytes += n;
    if (t->header_bytes > HEADERS_MAX) return 0;
    size_t len = n;
    while (len && (line[len - 1] == '\r' || line[len - 1] == '\n')) len--;
    fetch_read_header(&t->head, line, len);
    return n;
}

static bool is_good(long status) { return status >= 200 && status <= 299; }

/* The head of a 2xx is whole: does whoever asked want its body? */
static bool begin(task *t) {
    t->begun = true;
    t->pool->l.easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->head.status);
    if (is_good(t->head.status) && t->ask.begin) t->refused = !t->ask.begin(t->ask.user, &t->head);
    return !t->refused;
}

static size_t take_body(char *bytes, size_t one, size_t n, void *user) {
    task *t = user;
    n *= one;
    t->heard_ns = sq_os_now_ns();
    if (!t->begun && !begin(t)) return 0;
    if (!is_good(t->head.status)) return n; /* what an error page says is nobody's data */
    t->body_bytes += n;
    t->too_long = t->ask.bytes_max && t->body_bytes > t->ask.bytes_max;
    if (t->too_long) return 0;
    if (t->ask.sink) t->refused = !t->ask.sink(t->ask.user, bytes, n);
    return t->refused ? 0 : n;
}

static bool is_loopback(const char *origin) {
    const char *host = strstr(origin, "://");
    if (!host) return false;
    host += 3;
    const size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return (n == 9 && memcmp(host, "localhost", 9) == 0) || (n == 5 && memcmp(host, "[::1]", 5) == 0) ||
           (n >= 9 && memcmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= n);
}

/* Shall this request carry the token? To its own origin alone, and not in the clear to another machine. */
static bool carries_token(const task *t, const char *origin) {
    return t->has_token && strcmp(origin, t->token_origin) == 0 &&
           (strncmp(origin, "https:", 6) == 0 || is_loopback(origin));
}

static bool add_header(task *t, const char *line) {
    struct curl_slist *more = t->pool->l.slist_append(t->headers, line);
    if (more) t->headers = more;
    return more != NULL;
}

static bool put_headers(task *t, const char *origin) {
    char line[600];
    bool ok = true;
    t->pool->l.slist_free_all(t->headers);
    t->headers = NULL;
    if (carries_token(t, origin)) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", t->token);
        ok = add_header(t, line);
    }
    if (*t->accept) {
        snprintf(line, sizeof line, "Accept: %s", t->accept);
        ok = ok && add_header(t, line);
    }
    if (!t->ask.unpack) ok = ok && add_header(t, "Accept-Encoding: identity");
    if (t->ask.to) {
        snprintf(line, sizeof line, "Range: bytes=%llu-%llu", (unsigned long long)t->ask.from,
                 (unsigned long long)t->ask.to - 1);
        ok = ok && add_header(t, line);
    }
    return ok && t->pool->l.easy_setopt(t->curl, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK;
}

/* Set the handle up for t->url and let it run. */
static bool start(task *t) {
    const fetch_libcurl *l = &t->pool->l;
    CURL *c = t->curl;
    char origin[300];
    if (!fetch_origin(t->url, origin, sizeof origin)) return false;
    l->easy_reset(c);
    t->begun = t->refused = t->too_long = false;
    t->header_bytes = 0;
    t->body_bytes = 0;
    t->heard_ns = sq_os_now_ns();
    t->said[0] = 0;
    bool ok = l->easy_setopt(c, CURLOPT_URL, t->url) == CURLE_OK &&
              l->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK && put_headers(t, origin);
    l->easy_setopt(c, CURLOPT_ERRORBUFFER, t->said);
    l->easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    l->easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    l->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    l->easy_setopt(c, CURLOPT_USERAGENT, "squish/" SQUISH_VERSION);
    l->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    l->easy_setopt(c, CURLOPT_BUFFERSIZE, (long)BUFFER);
    if (is_loopback(origin)) l->easy_setopt(c, CURLOPT_PROXY, "");
    const char *certificates = getenv("SSL_CERT_FILE"); /* of one's own, as openssl and curl read it */
    if (certificates && *certificates) l->easy_setopt(c, CURLOPT_CAINFO, certificates);
    if (t->ask.unpack) l->easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "");
    l->easy_setopt(c, CURLOPT_HEADERFUNCTION, take_header);
    l->easy_setopt(c, CURLOPT_HEADERDATA, t);
    l->easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
    l->easy_setopt(c, CURLOPT_WRITEDATA, t);
    l->easy_setopt(c, CURLOPT_PRIVATE, t);
    return ok && l->multi_add_handle(t->pool->multi, c) == CURLM_OK;
}

static void drop(task *t) {
    fetch_pool *p = t->pool;
    for (task **at = &p->tasks; *at; at = &(*at)->next)
        if (*at == t) {
            *at = t->next;
            p->n--;
            break;
        }
    if (t->curl) {
        p->l.multi_remove_handle(p->multi, t->curl);
        p->l.easy_cleanup(t->curl);
    }
    p->l.slist_free_all(t->headers);
    sq_alloc_free(&p->alloc, t, sizeof *t);
}

/* ---- what came of it ------------------------------------------------------------------------- */

static squish_status judge_curl(const task *t, CURLcode code, const char *origin, bool *again,
                                squish_error *err) {
    const char *said = *t->said ? t->said : t->pool->l.easy_strerror(code);
    long proxy = 0;
    t->pool->l.easy_getinfo(t->curl, CURLINFO_HTTP_CONNECTCODE, &proxy);
    if (proxy == 407)
        return sq_fail(err, SQUISH_NETWORK,
                       "the proxy wants a name and a password (HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT)");
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return sq_fail(err, SQUISH_NETWORK,
                       "%.200s: no such host, or no name server (is this machine online? HF_ENDPOINT names "
                       "another hub)",
                       origin);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return sq_fail(err, SQUISH_NETWORK, "the proxy has no address: %.160s (see HTTPS_PROXY)", said);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return sq_fail(err, SQUISH_NETWORK,
                       "%.120s: its certificate is not accepted: %.160s (is the clock of this machine right? "
                       "date says it)",
                       origin, said);
    case CURLE_COULDNT_CONNECT:
        *again = true;
        return sq_fail(err, SQUISH_NETWORK,
                       "%.120s: no connection: %.160s (is there a route, a firewall, a proxy to name in "
                       "HTTPS_PROXY?)",
                       origin, said);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return sq_fail(err, SQUISH_INVALID, "%.200s: no address that can be asked", t->url);
    case CURLE_OPERATION_TIMEDOUT:
        *again = true;
        return sq_fail(err, SQUISH_NETWORK,
                       "%.160s: nothing came any more (run the command again: it goes on "
                       "where it stopped)",
                       origin);
    default:
        *again = true;
        return sq_fail(err, SQUISH_NETWORK,
                       "%.160s: %.160s (run the command again: it goes on where it stopped)", origin, said);
    }
}

static squish_status judge_status(const task *t, const char *origin, bool *again, squish_error *err) {
    const fetch_head *h = &t->head;
    const bool gated = strcmp(h->error_code, "GatedRepo") == 0;
    const bool unknown = strcmp(h->error_code, "RepoNotFound") == 0;
    if (is_good(h->status)) return SQUISH_OK;
    if (h->status == 407)
        return sq_fail(err, SQUISH_NETWORK,
                       "the proxy wants a name and a password (HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT)");
    if (gated)
        return sq_fail(err, SQUISH_NETWORK, "%.200s: gated: accept its licence on its page%s", origin,
                       t->has_token ? " as the user of HF_TOKEN" : ", then set HF_TOKEN to a token of yours");
    if (h->status == 404 || h->status == 410 || (h->status == 401 && unknown))
        return sq_fail(err, SQUISH_NOT_FOUND, "%.300s: the hub does not know it%s", t->url,
                       unknown && !t->has_token ? " (if it is private: set HF_TOKEN)" : "");
    if (h->status == 401 || h->status == 403)
        return sq_fail(err, SQUISH_NETWORK, "%.200s: status %ld: access refused (%s)", origin, h->status,
                       t->has_token ? "has the owner of HF_TOKEN been let in?"
                                    : "set HF_TOKEN to a token of yours");
    *again = h->status == 429 || h->status == 408 || h->status >= 500;
    if (h->status == 429)
        return sq_fail(err, SQUISH_NETWORK,
                       "%.200s: too many requests (wait%s; with HF_TOKEN more are allowed)", origin,
                       h->retry_after_s > 0 ? " as long as it said" : "");
    return sq_fail(err, SQUISH_NETWORK, "%.200s: status %ld%s", origin, h->status,
                   *again ? " (its own trouble: try later)" : "");
}

/* 1: the task goes on under another address; 0: no redirect; -1: one that is not followed (err). */
static int redirect(task *t, squish_error *err) {
    char *to = NULL, here[300], there[300];
    const long s = t->head.status;
    if (s != 301 && s != 302 && s != 303 && s != 307 && s != 308) return 0;
    t->pool->l.easy_getinfo(t->curl, CURLINFO_REDIRECT_URL, &to);
    if (!to || !fetch_origin(t->url, here, sizeof here) || !fetch_origin(to, there, sizeof there) ||
        strlen(to) >= sizeof t->url) {
        sq_fail(err, SQUISH_NETWORK, "%.200s: status %ld leads nowhere", t->url, s);
        return -1;
    }
    if (strncmp(here, "https", 5) == 0 && strncmp(there, "https", 5) != 0) {
        sq_fail(err, SQUISH_NETWORK, "%.160s leads to %.160s, which is not https; not followed", here, there);
        return -1;
    }
    if (++t->redirects > FETCH_REDIRECTS_MAX) {
        sq_fail(err, SQUISH_NETWORK, "%.200s: more than %d redirects", t->url, FETCH_REDIRECTS_MAX);
        return -1;
    }
    char next[FETCH_URL_MAX];
    snprintf(next, sizeof next, "%s", to);
    memcpy(t->url, next, sizeof next);
    t->pool->l.multi_remove_handle(t->pool->multi, t->curl);
    if (start(t)) return 1;
    sq_fail(err, SQUISH_NO_MEMORY, "%.200s: libcurl has no memory", t->url);
    return -1;
}

static void finish(task *t, CURLcode code) {
    fetch_end end = {.head = &t->head, .url = t->url};
    char origin[300] = "";
    fetch_origin(t->url, origin, sizeof origin);
    t->pool->l.easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->head.status);
    int moved = 0;
    if (t->too_long) {
        end.st = sq_fail(&end.err, SQUISH_CORRUPT, "%.200s: more than the %llu bytes it may have", origin,
                         (unsigned long long)t->ask.bytes_max);
    } else if (t->refused) {
        end.st = sq_fail(&end.err, SQUISH_CANCELLED, "stopped");
    } else if (code != CURLE_OK) {
        end.st = judge_curl(t, code, origin, &end.again, &end.err);
    } else if ((moved = redirect(t, &end.err)) == 1) {
        return;
    } else if (moved < 0) {
        end.st = end.err.code;
    } else if (!t->begun && is_good(t->head.status) && !begin(t)) { /* an empty body */
        end.st = sq_fail(&end.err, SQUISH_CANCELLED, "stopped");
    } else {
        end.st = judge_status(t, origin, &end.again, &end.err);
    }
    void (*done)(void *, const fetch_end *) = t->ask.done;
    void *user = t->ask.user;
    done(user, &end);
    drop(t);
}

/* ---- the pool -------------------------------------------------------------------------------- */

squish_status fetch_pool_new(fetch_pool **out, double stall_s, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    fetch_pool *p = sq_alloc_zero(&a, sizeof *p);
    *out = NULL;
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    p->alloc = a;
    p->stall_s = stall_s;
    if (!fetch_libcurl_open(&p->l)) {
        sq_alloc_free(&a, p, sizeof *p);
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "libcurl (libcurl.so.4) is not on this machine, and nothing is asked without it");
    }
    p->multi = p->l.multi_init();
    if (!p->multi) {
        sq_alloc_free(&a, p, sizeof *p);
        return sq_fail(err, SQUISH_NO_MEMORY, "libcurl has no memory");
    }
    *out = p;
    return SQUISH_OK;
}

void fetch_pool_free(fetch_pool *p) {
    if (!p) return;
    while (p->tasks) drop(p->tasks);
    p->l.multi_cleanup(p->multi);
    const squish_alloc a = p->alloc;
    sq_alloc_free(&a, p, sizeof *p);
}

/* Shared evenly; set again whenever the number of connections changes. */
static void share_rate(fetch_pool *p) {
    for (task *t = p->tasks; t; t = t->next)
        p->l.easy_setopt(t->curl, CURLOPT_MAX_RECV_SPEED_LARGE,
                         (curl_off_t)(p->rate ? p->rate / (uint64_t)p->n + 1 : 0));
}

void fetch_pool_rate(fetch_pool *p, uint64_t bytes_s) { p->rate = bytes_s; }

squish_status fetch_pool_ask(fetch_pool *p, const fetch_ask *ask, squish_error *err) {
    char origin[300];
    if (strlen(ask->url) >= FETCH_URL_MAX || !fetch_origin(ask->url, origin, sizeof origin))
        return sq_fail(err, SQUISH_INVALID, "%.200s: no http or https address", ask->url);
    if (p->n >= FETCH_POOL_MAX) return sq_fail(err, SQUISH_INVALID, "more than %d requests", FETCH_POOL_MAX);
    task *t = sq_alloc_zero(&p->alloc, sizeof *t);
    if (!t) return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    t->pool = p;
    t->ask = *ask;
    snprintf(t->url, sizeof t->url, "%s", ask->url);
    snprintf(t->accept, sizeof t->accept, "%s", ask->accept ? ask->accept : "");
    t->has_token = ask->token && *ask->token && ask->token_origin && strlen(ask->token) < sizeof t->token &&
                   fetch_origin(ask->token_origin, t->token_origin, sizeof t->token_origin);
    if (t->has_token) snprintf(t->token, sizeof t->token, "%s", ask->token);
    for (const char *c = t->token; *c; c++)
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f) t->has_token = false;
    t->next = p->tasks;
    p->tasks = t;
    p->n++;
    t->curl = p->l.easy_init();
    if (!t->curl || !start(t)) {
        drop(t);
        return sq_fail(err, SQUISH_NO_MEMORY, "libcurl has no memory");
    }
    share_rate(p);
    return SQUISH_OK;
}

/* libcurl's own measure of silence is a mean over seconds. A connection under a cap may be made to wait for
 * its share, but never so long. */
static int end_stalled(fetch_pool *p, uint64_t now) {
    int n = 0;
    for (task *t = p->tasks, *next; t; t = next) {
        next = t->next;
        if ((double)(now - t->heard_ns) / 1e9 < p->stall_s) continue;
        finish(t, CURLE_OPERATION_TIMEDOUT);
        n++;
        next = p->tasks; /* done may have asked for more */
    }
    return n;
}

int32_t fetch_pool_wait(fetch_pool *p, double seconds) {
    const uint64_t until = sq_os_now_ns() + (uint64_t)(seconds * 1e9);
    for (;;) {
        int running = 0, left = 0, n_done = 0;
        p->l.multi_perform(p->multi, &running);
        for (CURLMsg *m; (m = p->l.multi_info_read(p->multi, &left));) {
            if (m->msg != CURLMSG_DONE) continue;
            task *t = NULL;
            const CURLcode code = m->data.result;
            p->l.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
            finish(t, code);
            n_done++;
        }
        const uint64_t now = sq_os_now_ns();
        n_done += end_stalled(p, now);
        if (n_done || p->n == 0 || now >= until) return p->n;
        const uint64_t left_ms = (until - now) / 1000000;
        p->l.multi_poll(p->multi, NULL, 0, left_ms < 1 ? 1 : left_ms > 1000 ? 1000 : (int)left_ms, NULL);
    }
}

#else

squish_status fetch_pool_new(fetch_pool **out, double stall_s, squish_error *err) {
    (void)stall_s;
    *out = NULL;
    return sq_fail(err, SQUISH_UNSUPPORTED, "this squish was built without libcurl and asks nobody");
}
void fetch_pool_free(fetch_pool *p) { (void)p; }
void fetch_pool_rate(fetch_pool *p, uint64_t bytes_s) { (void)p, (void)bytes_s; }
squish_status fetch_pool_ask(fetch_pool *p, const fetch_ask *ask, squish_error *err) {
    (void)p, (void)ask;
    return sq_fail(err, SQUISH_UNSUPPORTED, "this squish was built without libcurl and asks nobody");
}
int32_t fetch_pool_wait(fetch_pool *p, double seconds) {
    (void)p, (void)seconds;
    return 0;
}

#endif
