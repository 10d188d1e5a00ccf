/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_sqw.c - reading our container: map the file, check every table once, then hand out views.
 *
 *   | superblock 4 KiB | section table | CONF TOKZ ... TENS UNIT NAME SUMS | DATA: units, 16 KiB aligned |
 *
 * Opening looks at everything but the weights: bounds, order, alignment and the sums of all tables. Records
 * must lie in ascending order, so one linear pass finds any overlap. The only memory is one block, the struct
 * with a hash table of the names behind it. The weights themselves are compared with their sums on request
 * (sq_sqw_verify). An open container is immutable and may be shared by threads. */
#include "format/fmt_sqw_int.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

struct sq_sqw {
    squish_alloc alloc;
    size_t alloc_bytes;
    sq_map map;
    sq_span file;
    const sq_sqw_super *super;
    const sq_sqw_tensor *tensors;
    const sq_sqw_unit *units;
    const char *names;
    uint64_t names_bytes;
    uint32_t n_slots; /* a power of two, at least twice n_tensors */
    uint32_t slots[]; /* open addressing: tensor index + 1, 0 free */
};

/* What checking carries around. */
typedef struct {
    const char *file;
    sq_span span;
    squish_error *err;
} checker;

#define SQW_FAIL(k, ...) sq_fail((k)->err, SQUISH_CORRUPT, __VA_ARGS__)

const char *sq_sqw_fourcc_text(uint32_t fourcc, char out[5]) {
    for (int i = 0; i < 4; i++) {
        char c = (char)(fourcc >> 8 * i & 0xFF);
        out[i] = c >= ' ' && c < 0x7F ? c : '?';
    }
    out[4] = 0;
    return out;
}

/* [offset, offset + bytes) lies inside the file. */
static bool in_file(const checker *k, uint64_t offset, uint64_t bytes) {
    return offset <= k->span.n && bytes <= k->span.n - offset;
}

/* ---- superblock ------------------------------------------------------------------------------ */

static squish_status check_identity(const checker *k, const sq_sqw_super *sb) {
    static const uint8_t zero[sizeof sb->magic];
    if (memcmp(sb->magic, zero, sizeof zero) == 0) {
        return SQW_FAIL(k, "%s: empty superblock: the file was never finished; build it again", k->file);
    }
    if (memcmp(sb->magic, SQ_SQW_MAGIC, sizeof sb->magic) != 0) {
        return SQW_FAIL(k, "%s: not a .sqw file (magic bytes differ)", k->file);
    }
    if (sb->endian != SQ_SQW_ENDIAN) {
        return sq_fail(k->err, SQUISH_UNSUPPORTED,
                       "%s: endian tag 0x%08x, wanted 0x%08x: written for another byte order", k->file,
                       sb->endian, SQ_SQW_ENDIAN);
    }
    if (sb->major != SQ_SQW_MAJOR) {
        return sq_fail(
            k->err, SQUISH_UNSUPPORTED,
            "%s: format version %u.%u, this build reads %d.x; build it again with: squish compress", k->file,
            sb->major, sb->minor, SQ_SQW_MAJOR);
    }
    return SQUISH_OK;
}

static squish_status check_super(const checker *k) {
    if (k->span.n < SQ_SQW_PAGE) {
        return SQW_FAIL(k, "%s: %zu bytes, a superblock has %d", k->file, k->span.n, SQ_SQW_PAGE);
    }
    const sq_sqw_super *sb = (const void *)k->span.p;
    SQ_TRY(check_identity(k, sb));
    uint64_t sum = XXH3_64bits(sb, offsetof(sq_sqw_super, sum));
    if (sum != sb->sum) {
        return SQW_FAIL(k, "%s: checksum of the superblock is %016" PRIx64 ", wanted %016" PRIx64, k->file,
                        sum, sb->sum);
    }
    if (sb->file_bytes != k->span.n) {
        return SQW_FAIL(k, "%s: file_bytes is %" PRIu64 ", the file has %zu", k->file, sb->file_bytes,
                        k->span.n);
    }
    uint64_t unknown = sb->incompatible & ~(uint64_t)SQ_SQW_INCOMPATIBLE_KNOWN;
    if (unknown) {
        return sq_fail(k->err, SQUISH_UNSUPPORTED,
                       "%s: needs features 0x%" PRIx64
                       " this build does not know; build it again with: squish compress",
                       k->file, unknown);
    }
    if (sb->n_sections > SQ_MAX_SECTIONS) {
        return SQW_FAIL(k, "%s: n_sections is %u, at most %d are read", k->file, sb->n_sections,
                        SQ_MAX_SECTIONS);
    }
    if (sb->n_tensors > SQ_MAX_TENSORS || sb->n_units > SQ_SQW_UNITS_MAX) {
        return SQW_FAIL(k, "%s: n_tensors is %u and n_units %u, at most %d and %d are read", k->file,
                        sb->n_tensors, sb->n_units, SQ_MAX_TENSORS, SQ_SQW_UNITS_MAX);
    }
    uint64_t table = sb->section_table, table_bytes = sb->n_sections * sizeof(sq_sqw_section);
    if (table < SQ_SQW_PAGE || table % _Alignof(sq_sqw_section) || !in_file(k, table, table_bytes)) {
        return SQW_FAIL(k, "%s: section_table of %u records at byte %" PRIu64 " of %zu", k->file,
                        sb->n_sections, table, k->span.n);
    }
    sum = XXH3_64bits(k->span.p + table, table_bytes);
    if (sum != sb->table_sum) {
        return SQW_FAIL(k, "%s: checksum of the section table is %016" PRIx64 ", wanted %016" PRIx64, k->file,
                        sum, sb->table_sum);
    }
    return SQUISH_OK;
}

/* ---- sections -------------------------------------------------------------------------------- */

static squish_status check_section(const checker *k, const sq_sqw_section *sec, uint64_t after) {
    char name[5];
    sq_sqw_fourcc_text(sec->fourcc, name);
    uint64_t align = sec->fourcc == SQ_SEC_DATA ? SQ_SQW_UNIT_ALIGN : SQ_SQW_SECTION_ALIGN;
    if (sec->offset % align) {
        return SQW_FAIL(k, "%s: section %s begins at byte %" PRIu64 ", wanted a multiple of %" PRIu64,
                        k->file, name, sec->offset, align);
    }
    if (sec->offset < after) {
        return SQW_FAIL(k, "%s: section %s begins at byte %" PRIu64 ", inside what ends at %" PRIu64, k->file,
                        name, sec->offset, after);
    }
    if (!in_file(k, sec->offset, sec->bytes)) {
        return SQW_FAIL(k, "%s: section %s takes %" PRIu64 " bytes at byte %" PRIu64 ", the file has %zu",
                        k->file, name, sec->bytes, sec->offset, k->span.n);
    }
    if (sec->fourcc == SQ_SEC_DATA) return SQUISH_OK;
    uint64_t sum = XXH3_64bits(k->span.p + sec->offset, (size_t)sec->bytes);
    if (sum != sec->sum) {
        return SQW_FAIL(k, "%s: checksum of section %s is %016" PRIx64 ", wanted %016" PRIx64, k->file, name,
                        sum, sec->sum);
    }
    return SQUISH_OK;
}

/* Sections lie one after another behind the table; each fourcc once. */
static squish_status check_sections(const checker *k) {
    const sq_sqw_super *sb = (const void *)k->span.p;
    const sq_sqw_section *sec = (const void *)(k->span.p + sb->section_table);
    uint64_t after = sb->section_table + sb->n_sections * sizeof *sec;
    for (uint32_t i = 0; i < sb->n_sections; i++) {
        SQ_TRY(check_section(k, &sec[i], after));
        after = sec[i].offset + sec[i].bytes;
        for (uint32_t j = 0; j < i; j++) {
            if (sec[j].fourcc == sec[i].fourcc) {
                char name[5];
                return SQW_FAIL(k, "%s: section %s stands there twice", k->file,
                                sq_sqw_fourcc_text(sec[i].fourcc, name));
            }
        }
    }
    return SQUISH_OK;
}

static const sq_sqw_section *find_section(sq_span file, uint32_t fourcc) {
    const sq_sqw_super *sb = (const void *)file.p;
    const sq_sqw_section *sec = (const void *)(file.p + sb->section_table);
    for (uint32_t i = 0; i < sb->n_sections; i++) {
        if (sec[i].fourcc == fourcc) return &sec[i];
    }
    return NULL;
}

/* A table must have exactly the bytes its count wants. */
static squish_status check_table(const checker *k, uint32_t fourcc, uint64_t count, size_t record) {
    const sq_sqw_section *sec = find_section(k->span, fourcc);
    uint64_t bytes = sec ? sec->bytes : 0;
    if (bytes == count * record) return SQUISH_OK; /* both counts are far below 2^32 */
    char name[5];
    return SQW_FAIL(k, "%s: section %s has %" PRIu64 " bytes, %" PRIu64 " records want %" PRIu64, k->file,
                    sq_sqw_fourcc_text(fourcc, name), bytes, count, count * record);
}

static squish_status check_tables(const checker *k) {
    const sq_sqw_super *sb = (const void *)k->span.p;
    SQ_TRY(check_table(k, SQ_SEC_TENS, sb->n_tensors, sizeof(sq_sqw_tensor)));
    SQ_TRY(check_table(k, SQ_SEC_UNIT, sb->n_units, sizeof(sq_sqw_unit)));
    const sq_sqw_section *data = find_section(k->span, SQ_SEC_DATA);
    return check_table(k, SQ_SEC_SUMS, data ? sq_sqw_n_extents(data->bytes) : 0, sizeof(uint64_t));
}

/* ---- tensors and units ----------------------------------------------------------------------- */

static squish_status check_name(const checker *k, const sq_sqw *s, uint32_t i) {
    const sq_sqw_tensor *t = &s->tensors[i];
    uint64_t end = (uint64_t)t->name_off + t->name_len;
    if (t->name_len == 0 || t->name_len > SQ_MAX_NAME || end >= s->names_bytes) {
        return SQW_FAIL(k, "%s: tensor %u: name of %u bytes at byte %u of NAME, which has %" PRIu64, k->file,
                        i, t->name_len, t->name_off, s->names_bytes);
    }
    if (s->names[end] != 0 || memchr(s->names + t->name_off, 0, t->name_len)) {
        return SQW_FAIL(k, "%s: tensor %u: its name does not end at its name_len of %u", k->file, i,
                        t->name_len);
    }
    return SQUISH_OK;
}

/* Enter the name into the hash table; met before: CORRUPT. */
static squish_status enter_name(const checker *k, sq_sqw *s, uint32_t i) {
    const sq_sqw_tensor *t = &s->tensors[i];
    const char *name = s->names + t->name_off;
    uint32_t mask = s->n_slots - 1;
    uint32_t at = (uint32_t)XXH3_64bits(name, t->name_len) & mask;
    for (; s->slots[at]; at = (at + 1) & mask) {
        if (strcmp(s->names + s->tensors[s->slots[at] - 1].name_off, name) == 0) {
            sq_shown shown;
            return SQW_FAIL(k, "%s: tensor '%s' stands there twice", k->file,
                            sq_fmt_show(&shown, name, t->name_len));
        }
    }
    s->slots[at] = i + 1;
    return SQUISH_OK;
}

static squish_status check_dims(const checker *k, const sq_sqw_tensor *t, const char *name) {
    if (t->n_dims < 1 || t->n_dims > SQ_SQW_DIMS) {
        return SQW_FAIL(k, "%s: tensor '%s' has %u dimensions, wanted 1 to %d", k->file, name, t->n_dims,
                        SQ_SQW_DIMS);
    }
    uint64_t n = 1;
    for (int d = 0; d < SQ_SQW_DIMS; d++) {
        bool used = d < t->n_dims;
        if (used != (t->dims[d] > 0) || (used && !sq_mul_ok(n, t->dims[d], &n)) || n > INT64_MAX) {
            return SQW_FAIL(k, "%s: tensor '%s': dims[%d] is %" PRIu64 " with %u dimensions", k->file, name,
                            d, t->dims[d], t->n_dims);
        }
    }
    return SQUISH_OK;
}

/* A low-rank compensator has a sane rank, and its two factors fit into the data. */
static squish_status check_rank(const checker *k, const sq_sqw_tensor *t, const char *name) {
    uint64_t cols = t->dims[t->n_dims - 1], rows = 1, bytes;
    for (int d = 0; d < t->n_dims - 1; d++) rows *= t->dims[d]; /* check_dims saw the product */
    if (t->rank == 0) return SQUISH_OK;
    if (t->rank > SQ_MAX_RANK || t->n_dims < 2 || !sq_mul_ok(rows + cols, 2 * t->rank, &bytes) ||
        bytes >= t->data_bytes) {
        return SQW_FAIL(k, "%s: tensor '%s': rank %u with %" PRIu64 " bytes, wanted at most %d and to fit",
                        k->file, name, t->rank, t->data_bytes, SQ_MAX_RANK);
    }
    return SQUISH_OK;
}

/* The tensor lies in its unit, behind `after`, aligned. */
static squish_status check_place(const checker *k, const sq_sqw_tensor *t, const char *name,
                                 const sq_sqw_unit *u, uint32_t i_unit, uint64_t after) {
    uint64_t align = sq_sqw_tensor_align(t->data_bytes);
    if (t->unit != i_unit) {
        return SQW_FAIL(k, "%s: tensor '%s' names unit %u, unit %u holds it", k->file, name, t->unit, i_unit);
    }
    if (t->data_bytes == 0 || t->data_off % align) {
        return SQW_FAIL(
            k, "%s: tensor '%s': %" PRIu64 " bytes at data_off %" PRIu64 ", wanted a multiple of %" PRIu64,
            k->file, name, t->data_bytes, t->data_off, align);
    }
    if (t->data_off < after) {
        return SQW_FAIL(k, "%s: tensor '%s': data_off %" PRIu64 " lies inside what ends at %" PRIu64, k->file,
                        name, t->data_off, after);
    }
    if (t->data_off - u->offset > u->bytes || t->data_bytes > u->bytes - (t->data_off - u->offset)) {
        return SQW_FAIL(
            k, "%s: tensor '%s': %" PRIu64 " bytes at data_off %" PRIu64 ", its unit ends at %" PRIu64,
            k->file, name, t->data_bytes, t->data_off, u->offset + u->bytes);
    }
    return SQUISH_OK;
}

static squish_status check_unit(const checker *k, sq_sqw *s, uint32_t i_unit) {
    const sq_sqw_unit *u = &s->units[i_unit];
    uint64_t after = u->offset;
    for (uint32_t i = u->first_tensor; i < u->first_tensor + u->n_tensors; i++) {
        const sq_sqw_tensor *t = &s->tensors[i];
        SQ_TRY(check_name(k, s, i));
        sq_shown shown;
        const char *name = sq_fmt_show(&shown, s->names + t->name_off, t->name_len);
        SQ_TRY(check_dims(k, t, name));
        SQ_TRY(check_rank(k, t, name));
        SQ_TRY(check_place(k, t, name, u, i_unit, after));
        SQ_TRY(enter_name(k, s, i));
        after = t->data_off + t->data_bytes;
    }
    return SQUISH_OK;
}

/* Units lie one after another in DATA and share out the tensors in order. */
static squish_status check_units(const checker *k, sq_sqw *s) {
    const sq_sqw_section *data = find_section(k->span, SQ_SEC_DATA);
    uint64_t after = data ? data->offset : 0, end = data ? data->offset + data->bytes : 0;
    uint32_t next = 0;
    for (uint32_t i = 0; i < s->super->n_units; i++) {
        const sq_sqw_unit *u = &s->units[i];
        if (u->kind > SQ_UNIT_MISC) {
            return SQW_FAIL(k, "%s: unit %u has kind %u, wanted 0 to %d", k->file, i, u->kind, SQ_UNIT_MISC);
        }
        if (u->offset % SQ_SQW_UNIT_ALIGN || u->offset < after || u->offset > end ||
            u->bytes > end - u->offset) {
            return SQW_FAIL(k,
                            "%s: unit %u takes %" PRIu64 " bytes at byte %" PRIu64
                            ", wanted a multiple of %d in %" PRIu64 " to %" PRIu64,
                            k->file, i, u->bytes, u->offset, SQ_SQW_UNIT_ALIGN, after, end);
        }
        if (u->first_tensor != next || u->n_tensors == 0 || u->n_tensors > s->super->n_tensors - next) {
            return SQW_FAIL(k, "%s: unit %u holds %u tensors from %u, wanted some from %u of %u", k->file, i,
                            u->n_tensors, u->first_tensor, next, s->super->n_tensors);
        }
        SQ_TRY(check_unit(k, s, i));
        next += u->n_tensors;
        after = u->offset + u->bytes;
    }
    if (next != s->super->n_tensors) {
        return SQW_FAIL(k, "%s: units hold %u tensors of %u", k->file, next, s->super->n_tensors);
    }
    return SQUISH_OK;
}

/* ---- open, close ----------------------------------------------------------------------------- */

/* The struct with room for the names' hash table; the tables are known to fit their counts. */
static sq_sqw *make(sq_span file, const squish_alloc *alloc) {
    const sq_sqw_super *sb = (const void *)file.p;
    uint32_t n_slots = 2;
    while (n_slots < 2 * sb->n_tensors) n_slots *= 2; /* at most 2^21 */
    size_t bytes = sizeof(sq_sqw) + n_slots * sizeof(uint32_t);
    sq_sqw *s = sq_alloc_zero(alloc, bytes);
    if (!s) return NULL;
    s->alloc = *alloc;
    s->alloc_bytes = bytes;
    s->file = file;
    s->super = sb;
    s->n_slots = n_slots;
    s->tensors = (const void *)sq_sqw_section_of(s, SQ_SEC_TENS).p;
    s->units = (const void *)sq_sqw_section_of(s, SQ_SEC_UNIT).p;
    sq_span names = sq_sqw_section_of(s, SQ_SEC_NAME);
    s->names = (const char *)names.p;
    s->names_bytes = names.n;
    return s;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

squish_status sq_sqw_parse(sq_sqw **out, sq_span file, const char *file_name, const squish_alloc *a,
                           squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    checker k = {.file = base_name(file_name), .span = file, .err = err};
    if (file.n && (uintptr_t)file.p % _Alignof(sq_sqw_super)) {
        return sq_fail(err, SQUISH_INVALID, "%s: its bytes must lie at a multiple of %zu", k.file,
                       _Alignof(sq_sqw_super));
    }
    if (sq_fmt_is_lfs_pointer(file)) {
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "%s is a git-lfs pointer, the model itself was never fetched: git lfs pull", k.file);
    }
    SQ_TRY(check_super(&k));
    SQ_TRY(check_sections(&k));
    SQ_TRY(check_tables(&k));
    sq_sqw *s = make(file, &alloc);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory for its tables", k.file);
    squish_status st = check_units(&k, s);
    if (st != SQUISH_OK) {
        sq_sqw_close(s);
        return st;
    }
    *out = s;
    return SQUISH_OK;
}

squish_status sq_sqw_open(sq_sqw **out, const char *path, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_map map;
    SQ_TRY(sq_os_map_open(&map, path, err));
    squish_status st = sq_sqw_parse(out, (sq_span){map.data, map.bytes}, path, a, err);
    if (st != SQUISH_OK) {
        sq_os_map_close(&map);
        return st;
    }
    (*out)->map = map;
    return SQUISH_OK;
}

void sq_sqw_close(sq_sqw *s) {
    if (!s) return;
    if (s->map.data) sq_os_map_close(&s->map);
    squish_alloc alloc = s->alloc;
    sq_alloc_free(&alloc, s, s->alloc_bytes);
}

/* ---- views ----------------------------------------------------------------------------------- */

sq_span sq_sqw_section_of(const sq_sqw *s, uint32_t fourcc) {
    const sq_sqw_section *sec = find_section(s->file, fourcc);
    return sec ? (sq_span){s->file.p + sec->offset, (size_t)sec->bytes} : (sq_span){NULL, 0};
}

const sq_sqw_tensor *sq_sqw_tensors(const sq_sqw *s, size_t *n) {
    *n = s->super->n_tensors;
    return s->tensors;
}

const sq_sqw_unit *sq_sqw_units(const sq_sqw *s, size_t *n) {
    *n = s->super->n_units;
    return s->units;
}

const char *sq_sqw_name(const sq_sqw *s, const sq_sqw_tensor *t) { return s->names + t->name_off; }

const uint8_t *sq_sqw_data(const sq_sqw *s, const sq_sqw_tensor *t) { return s->file.p + t->data_off; }

uint64_t sq_sqw_bytes(const sq_sqw *s) { return s->file.n; }

const sq_map *sq_sqw_map(const sq_sqw *s) { return s->map.data ? &s->map : NULL; }

uint64_t sq_sqw_super_sum(const sq_sqw *s) { return s->super->sum; }

const uint8_t *sq_sqw_source_id(const sq_sqw *s) { return s->super->source_id; }

sq_quality_flag sq_sqw_quality(const sq_sqw *s) {
    uint32_t flag = s->super->quality; /* a flag of a later version says nothing we know */
    return flag <= SQ_QUALITY_COLLAPSED ? (sq_quality_flag)flag : SQ_QUALITY_UNVERIFIED;
}

/* ---- verify ---------------------------------------------------------------------------------- */

/* Extent [begin, end) of the file is damaged: find the tensor whose own sum says so. */
static squish_status name_damage(const sq_sqw *s, uint64_t begin, uint64_t end, squish_error *err) {
    for (uint32_t i = 0; i < s->super->n_tensors; i++) {
        const sq_sqw_tensor *t = &s->tensors[i];
        if (t->data_off >= end || t->data_off + t->data_bytes <= begin) continue;
        uint64_t sum = XXH3_64bits(sq_sqw_data(s, t), (size_t)t->data_bytes);
        if (sum != t->sum) {
            sq_shown shown;
            return sq_fail(err, SQUISH_CORRUPT, "tensor '%s': checksum is %016" PRIx64 ", wanted %016" PRIx64,
                           sq_fmt_show(&shown, sq_sqw_name(s, t), t->name_len), sum, t->sum);
        }
    }
    return sq_fail(err, SQUISH_CORRUPT,
                   "bytes %" PRIu64 " to %" PRIu64 ": checksum differs between the tensors", begin, end);
}

squish_status sq_sqw_verify(const sq_sqw *s, squish_progress_fn progress, void *user, squish_error *err) {
    sq_span data = sq_sqw_section_of(s, SQ_SEC_DATA);
    const uint64_t *sums = (const void *)sq_sqw_section_of(s, SQ_SEC_SUMS).p;
    for (size_t at = 0, i = 0; at < data.n; i++) {
        size_t n = data.n - at < SQ_SQW_EXTENT ? data.n - at : SQ_SQW_EXTENT;
        if (XXH3_64bits(data.p + at, n) != sums[i]) {
            uint64_t begin = (uint64_t)(data.p - s->file.p) + at;
            return name_damage(s, begin, begin + n, err);
        }
        at += n;
        if (progress && !progress(user, "verify", at, data.n)) {
            return sq_fail(err, SQUISH_CANCELLED, "verification stopped on request");
        }
    }
    return SQUISH_OK;
}
