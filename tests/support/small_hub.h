/* SPDX-License-Identifier: Apache-2.0
 *
 * small_hub.h - a hub in threads of the test itself, for tests that pull a thousand times: pages in memory,
 * with ranges and no faults of its own (tests/support/fake_hub.py has those). It allocates nothing through
 * realloc and writes no file, so that faults injected into the test do not reach it.
 *
 *     small_hub h;  small_hub_begin(&h);
 *     small_hub_page(&h, "/a/b", bytes, n);        lent
 *     ... h.url ...
 *     small_hub_end(&h); */
#ifndef SQ_TEST_SMALL_HUB_H
#define SQ_TEST_SMALL_HUB_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SMALL_HUB_PAGES = 16 };

typedef struct {
    int fd;
    pthread_t thread;
    char url[64];
    struct {
        char path[256];
        const void *bytes;
        size_t n;
    } pages[SMALL_HUB_PAGES];
    int n;
} small_hub;

static inline void small_hub_page(small_hub *h, const char *path, const void *bytes, size_t n) {
    snprintf(h->pages[h->n].path, sizeof h->pages[0].path, "%s", path);
    h->pages[h->n].bytes = bytes;
    h->pages[h->n++].n = n;
}

static inline bool small_hub_send(int fd, const char *head, size_t n_head, const void *body, size_t n) {
    struct iovec v[2] = {{(void *)(uintptr_t)head, n_head}, {(void *)(uintptr_t)body, n}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    while (v[0].iov_len + v[1].iov_len) {
        ssize_t k = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (k <= 0) return false;
        for (int i = 0; i < 2; i++) {
            const size_t take = (size_t)k < v[i].iov_len ? (size_t)k : v[i].iov_len;
            v[i].iov_base = (char *)v[i].iov_base + take;
            v[i].iov_len -= take;
            k -= (ssize_t)take;
        }
    }
    return true;
}

static inline bool small_hub_answer(const small_hub *h, int fd, char *request) {
    char head[512], *path = strchr(request, ' ') + 1, *end = path + strcspn(path, " ?");
    const char *range = strcasestr(end, "\nrange: bytes=");
    unsigned long long from = 0, to = 0;
    const bool part = range && sscanf(range + 14, "%llu-%llu", &from, &to) == 2;
    *end = 0;
    for (int i = 0; i < h->n; i++) {
        if (strcmp(h->pages[i].path, path) != 0) continue;
        const size_t all = h->pages[i].n;
        if (!part || to >= all) to = all ? all - 1 : 0;
        const size_t n = part ? (size_t)(to - from) + 1 : all;
        int k = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n",
                         part ? "206 Part" : "200 OK", n);
        if (part)
            k += snprintf(head + k, sizeof head - (size_t)k, "Content-Range: bytes %llu-%llu/%zu\r\n", from,
                          to, all);
        k += snprintf(head + k, sizeof head - (size_t)k, "\r\n");
        return small_hub_send(fd, head, (size_t)k, (const char *)h->pages[i].bytes + from, n);
    }
    static const char none[] = "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    return small_hub_send(fd, none, sizeof none - 1, "", 0);
}

typedef struct {
    const small_hub *h;
    int fd;
} small_hub_guest;

static inline void *small_hub_talk(void *user) {
    const small_hub_guest g = *(small_hub_guest *)user;
    char text[4096];
    size_t n = 0;
    __atomic_store_n(&((small_hub_guest *)user)->fd, -1, __ATOMIC_RELEASE); /* taken */
    for (ssize_t k; (k = recv(g.fd, text + n, sizeof text - 1 - n, 0)) > 0;) {
        n += (size_t)k;
        text[n] = 0;
        const char *gap = strstr(text, "\r\n\r\n");
        if (!gap) continue;
        if (!small_hub_answer(g.h, g.fd, text)) break;
        n = 0; /* nobody sends the next one before he has this one's answer */
    }
    shutdown(g.fd, SHUT_RDWR);
    close(g.fd);
    return NULL;
}

static inline void *small_hub_listen(void *user) {
    const small_hub *h = user;
    for (int fd; (fd = accept(h->fd, NULL, NULL)) >= 0;) {
        small_hub_guest g = {h, fd};
        pthread_t t;
        const int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&t, NULL, small_hub_talk, &g) != 0) break;
        pthread_detach(t);
        while (__atomic_load_n(&g.fd, __ATOMIC_ACQUIRE) >= 0) usleep(20);
    }
    return NULL;
}

static inline bool small_hub_begin(small_hub *h) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    memset(h, 0, sizeof *h);
    h->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(h->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(h->fd, 64) != 0 ||
        getsockname(h->fd, (struct sockaddr *)&a, &n) != 0)
        return false;
    snprintf(h->url, sizeof h->url, "http://127.0.0.1:%d", ntohs(a.sin_port));
    return pthread_create(&h->thread, NULL, small_hub_listen, h) == 0;
}

static inline void small_hub_end(small_hub *h) {
    shutdown(h->fd, SHUT_RDWR);
    pthread_join(h->thread, NULL);
    close(h->fd);
}

#endif
