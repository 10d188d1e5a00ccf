/* SPDX-License-Identifier: Apache-2.0
 *
 * base_service.h - the service manager that started us: systemd's protocols, without its library. Nothing
 * happens where there is none. */
#ifndef SQ_BASE_SERVICE_H
#define SQ_BASE_SERVICE_H

#include "base/base.h"

typedef struct {
    int fd;
    char name[64]; /* FileDescriptorName= of its unit; "" : none */
} sq_service_socket;
/* Listening sockets that it made for this process (sd_listen_fds(3)), each handed out once. Call before
 * threads are made: the environment is changed. Errors: INVALID (more than max), IO (no open file). */
squish_status sq_service_sockets(sq_service_socket *out, int32_t max, int32_t *n, squish_error *err);
/* Tell it, as "READY=1\nSTATUS=serving" (sd_notify(3)). Does not wait. */
void sq_service_say(const char *lines);
/* It wants to hear "WATCHDOG=1" at least that often (sd_watchdog_enabled(3)); 0: it does not. */
uint64_t sq_service_watchdog_ns(void);

#endif
