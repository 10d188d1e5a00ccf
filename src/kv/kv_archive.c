/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_archive.c - snapshot files in fewer bytes (see kv_archive.h). */
#include "kv/kv_archive.h"

#include "kv/kv_bytes.h"
#include "kv/kv_rans.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { VERSION = 1, LOSSLESS = 1, CODED = 2, SUMMED = 56 };
static const char magic[8] = {'S', 'Q', 'K', 'V', 'A', 'R', 'C', '1'};

size_t sq_archive_bound(size_t snapshot_bytes) { return SQ_ARCHIVE_HEADER + sq_rans_bound(snapshot_bytes); }
size_t sq_archive_scratch(void) { return 2 * (size_t)SQ_RANS_BLOCK; }

void sq_archive_mend(uint8_t *file, size_t n) {
    if (n < SQ_ARCHIVE_HEADER) return;
    sq_kv_put_u64(file, 24, n - SQ_ARCHIVE_HEADER);
    sq_kv_put_u64(file, 32, XXH3_64bits(file + SQ_ARCHIVE_HEADER, n - SQ_ARCHIVE_HEADER));
    sq_kv_put_u64(file, SUMMED, XXH3_64bits(file, SUMMED));
}

static size_t make(uint32_t codec, const uint8_t *p, size_t n, uint64_t books, uint8_t *out,
                   uint8_t *scratch) {
    const uint32_t kind[2] = {VERSION, codec};
    memset(out, 0, SQ_ARCHIVE_HEADER);
    memcpy(out, magic, sizeof magic);
    memcpy(out + 8, kind, sizeof kind);
    sq_kv_put_u64(out, 16, n);
    sq_kv_put_u64(out, 40, books);
    const size_t bytes = SQ_ARCHIVE_HEADER + sq_rans_encode(p, n, out + SQ_ARCHIVE_HEADER, scratch);
    sq_archive_mend(out, bytes);
    return bytes;
}

size_t sq_archive_make(const uint8_t *snapshot, size_t n, uint8_t *out, uint8_t *scratch) {
    return make(LOSSLESS, snapshot, n, 0, out, scratch);
}

size_t sq_archive_make_coded(const uint8_t *image, size_t n, uint64_t books, uint8_t *out, uint8_t *scratch) {
    return make(CODED, image, n, books, out, scratch);
}

uint64_t sq_archive_books(sq_span file) { return sq_kv_u64_at(file.p, 40); }

bool sq_archive_is_one(sq_span file) {
    return file.n >= sizeof magic && memcmp(file.p, magic, sizeof magic) == 0;
}

static squish_status bad(squish_error *err, const char *field, uint64_t found) {
    return sq_fail(err, SQUISH_CORRUPT, "archive: %s is %llu", field, (unsigned long long)found);
}

squish_status sq_archive_header(sq_span file, size_t bytes_max, size_t *n, squish_error *err) {
    uint32_t kind[2];
    if (file.n < SQ_ARCHIVE_HEADER) return bad(err, "file size", file.n);
    if (!sq_archive_is_one(file)) return sq_fail(err, SQUISH_CORRUPT, "archive: no magic");
    if (sq_kv_u64_at(file.p, SUMMED) != XXH3_64bits(file.p, SUMMED))
        return sq_fail(err, SQUISH_CORRUPT, "archive: header sum");
    memcpy(kind, file.p + 8, sizeof kind);
    if (kind[0] != VERSION) return bad(err, "version", kind[0]);
    if (kind[1] != LOSSLESS && kind[1] != CODED) return bad(err, "codec", kind[1]);
    if ((kind[1] == CODED) != (sq_archive_books(file) != 0))
        return bad(err, "sum of the books", sq_archive_books(file));
    if (sq_kv_u64_at(file.p, 48) != 0) return bad(err, "padding", sq_kv_u64_at(file.p, 48));
    const uint64_t bytes = sq_kv_u64_at(file.p, 16);
    if (bytes == 0 || bytes > bytes_max) return bad(err, "size of the snapshot", bytes);
    if (sq_kv_u64_at(file.p, 24) != file.n - SQ_ARCHIVE_HEADER) return bad(err, "file size", file.n);
    *n = (size_t)bytes;
    return SQUISH_OK;
}

squish_status sq_archive_open(sq_span file, uint8_t *snapshot, size_t n, squish_error *err) {
    const sq_span body = {file.p + SQ_ARCHIVE_HEADER, file.n - SQ_ARCHIVE_HEADER};
    if (sq_kv_u64_at(file.p, 32) != XXH3_64bits(body.p, body.n))
        return sq_fail(err, SQUISH_CORRUPT, "archive: sum");
    return sq_rans_decode(body, snapshot, n, err);
}
