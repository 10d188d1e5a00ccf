/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_bytes.h - numbers in the files of this room, at any place of them. They are little-endian, as every
 * machine is that this is built for. Whoever calls has compared the place with the end. */
#ifndef SQ_KV_BYTES_H
#define SQ_KV_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t sq_kv_u16_at(const uint8_t *p, size_t at) {
    uint16_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static inline uint32_t sq_kv_u32_at(const uint8_t *p, size_t at) {
    uint32_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static inline uint64_t sq_kv_u64_at(const uint8_t *p, size_t at) {
    uint64_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static inline void sq_kv_put_u32(uint8_t *p, size_t at, uint32_t v) { memcpy(p + at, &v, sizeof v); }
static inline void sq_kv_put_u64(uint8_t *p, size_t at, uint64_t v) { memcpy(p + at, &v, sizeof v); }

#endif
