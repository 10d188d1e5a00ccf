/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_files.h - files made by hand for the tests of format/: bytes piece by piece, scratch directories, and
 * the repair of a .sqw's sums after it was damaged on purpose, so that the checks behind the sums are
 * reached. Everything is static inline, because the fuzz targets use it too. */
#ifndef SQ_TEST_FMT_FILES_H
#define SQ_TEST_FMT_FILES_H

#include "format/fmt_sqw_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* Growing bytes. */
typedef struct {
    uint8_t *p;
    size_t n, cap;
} bytes;

static inline void add(bytes *b, const void *p, size_t n) {
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n) + 64;
        b->p = realloc(b->p, b->cap);
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}
static inline void add_zero(bytes *b, size_t n) {
    static const uint8_t zero[64];
    for (; n > sizeof zero; n -= sizeof zero) add(b, zero, sizeof zero);
    add(b, zero, n);
}
static inline void add_u8(bytes *b, uint8_t v) { add(b, &v, sizeof v); }
static inline void add_u32(bytes *b, uint32_t v) { add(b, &v, sizeof v); }
static inline void add_u64(bytes *b, uint64_t v) { add(b, &v, sizeof v); }
static inline void add_f32(bytes *b, float v) { add(b, &v, sizeof v); }
/* GGUF's string: length and bytes. */
static inline void add_str(bytes *b, const char *s) {
    add_u64(b, strlen(s));
    add(b, s, strlen(s));
}
static inline void drop(bytes *b) {
    free(b->p);
    *b = (bytes){0};
}

/* An exact heap copy of the first n bytes: ASan sees a read one byte past it. At least one byte is allocated.
 */
static inline uint8_t *exact(const void *p, size_t n) {
    uint8_t *copy = calloc(n ? n : 1, 1);
    if (n) memcpy(copy, p, n);
    return copy;
}

/* A safetensors file: length, header, data_bytes bytes counting up. */
static inline bytes st_file(const char *header, size_t data_bytes) {
    bytes b = {0};
    add_u64(&b, strlen(header));
    add(&b, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++) add_u8(&b, (uint8_t)i);
    return b;
}

/* ---- scratch directories --------------------------------------------------------------------- */

typedef struct {
    char path[256];
} scratch;

static inline scratch scratch_make(void) {
    scratch s;
    const char *tmp = getenv("TMPDIR");
    snprintf(s.path, sizeof s.path, "%s/squish-fmt-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(s.path)) abort();
    return s;
}
/* dir/name into out. */
static inline const char *scratch_path(const scratch *s, char out[512], const char *name) {
    snprintf(out, 512, "%s/%s", s->path, name);
    return out;
}
static inline void scratch_write(const scratch *s, const char *name, const void *p, size_t n) {
    char path[512];
    FILE *f = fopen(scratch_path(s, path, name), "wb");
    if (!f || (n && fwrite(p, 1, n, f) != n) || fclose(f)) abort();
}
static inline void scratch_text(const scratch *s, const char *name, const char *text) {
    scratch_write(s, name, text, strlen(text));
}
/* Names in it, one after another with a space behind each. */
static inline void scratch_list(const scratch *s, char out[1024]) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    char **names;
    size_t n, at = 0;
    out[0] = 0;
    if (sq_os_list_dir(s->path, &ar, &names, &n, NULL) == SQUISH_OK) {
        for (size_t i = 0; i < n; i++) at += (size_t)snprintf(out + at, 1024 - at, "%s ", names[i]);
    }
    sq_arena_deinit(&ar);
}
static inline void scratch_remove(const scratch *s) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    char **names, path[512];
    size_t n;
    if (sq_os_list_dir(s->path, &ar, &names, &n, NULL) == SQUISH_OK) {
        for (size_t i = 0; i < n; i++) unlink(scratch_path(s, path, names[i]));
    }
    rmdir(s->path);
    sq_arena_deinit(&ar);
}

/* ---- .sqw ------------------------------------------------------------------------------------ */

/* A writer for path: path.partial and path.journal. */
static inline squish_status sqw_new(sq_sqw_writer **w, const char *path, const squish_alloc *a,
                                    squish_error *err) {
    char partial[600], journal[600];
    snprintf(partial, sizeof partial, "%s.partial", path);
    snprintf(journal, sizeof journal, "%s.journal", path);
    return sq_sqw_writer_new(w, partial, journal, a, err);
}

/* Make all sums of a damaged file right again, as far as its tables lie inside it. p is 8-byte aligned. */
static inline void sqw_repair(uint8_t *p, size_t n) {
    if (n < SQ_SQW_PAGE) return;
    sq_sqw_super *sb = (void *)p;
    uint64_t table = sb->section_table, table_bytes = sb->n_sections * sizeof(sq_sqw_section);
    if (sb->n_sections <= SQ_MAX_SECTIONS && table % 8 == 0 && table >= SQ_SQW_PAGE && table <= n &&
        table_bytes <= n - table) {
        sq_sqw_section *sec = (void *)(p + table);
        for (uint32_t i = 0; i < sb->n_sections; i++) {
            bool inside = sec[i].offset <= n && sec[i].bytes <= n - sec[i].offset;
            if (inside && sec[i].fourcc != SQ_SEC_DATA) {
                sec[i].sum = XXH3_64bits(p + sec[i].offset, (size_t)sec[i].bytes);
            }
        }
        sb->table_sum = XXH3_64bits(sec, (size_t)table_bytes);
    }
    sb->sum = XXH3_64bits(sb, offsetof(sq_sqw_super, sum));
}

#endif
