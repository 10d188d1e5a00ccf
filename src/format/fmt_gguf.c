/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_gguf.c - GGUF versions 2 and 3: header, key/values and tensor infos, every offset checked.
 *
 *   | magic, version, n_tensors, n_kv | kv ... | tensor info ... | padding to A | tensor data ... |
 *
 * A count is believed only as far as the file could hold that many of the smallest item, so memory stays in
 * proportion to the file. Values are views into it. Strings of arrays are walked once here (to find where the
 * array ends) and once more when somebody asks for them. No threads; a parsed file is immutable and may be
 * shared. */
#include "format/format.h"

#include "format/fmt_int.h"
#include "format/limits.h"

#include <stdio.h>
#include <string.h>

enum {
    KEY_BYTES_MAX = 65535,
    DIMS_MAX = 4,
    KV_BYTES_MIN = 8 + 1 + 4 + 1,           /* key length, one byte of key, type, a bool */
    INFO_BYTES_MIN = 8 + 1 + 4 + 8 + 4 + 8, /* name length, one byte, n_dims, one dim, type, offset */
    ALIGN_DEFAULT = 32
};

struct sq_gguf {
    squish_alloc alloc;
    sq_arena arena;
    sq_map map;
    const char *file; /* base name, for messages */
    sq_gguf_kv *kv;
    uint32_t *by_key; /* indexes of kv, sorted by key */
    size_t n_kv;
    sq_ftensor *tensors;
    uint32_t *by_name; /* indexes of tensors, sorted by name */
    size_t n_tensors;
    uint64_t bytes;
    sq_gguf **parts; /* the second file and those after it, where there are several */
    size_t n_parts;
};

/* What a parse carries around. data_offsets are relative until the data base is known. */
typedef struct {
    sq_cur c;
    sq_gguf *g;
    uint64_t *data_offsets;
    squish_error *err;
} reader;

/* Bytes of one value; 0: not a fixed-size type. */
static size_t value_bytes(uint32_t type) {
    static const uint8_t bytes[] = {
        [SQ_GGUF_U8] = 1,  [SQ_GGUF_I8] = 1,  [SQ_GGUF_U16] = 2,  [SQ_GGUF_I16] = 2,    [SQ_GGUF_U32] = 4,
        [SQ_GGUF_I32] = 4, [SQ_GGUF_F32] = 4, [SQ_GGUF_BOOL] = 1, [SQ_GGUF_STRING] = 0, [SQ_GGUF_ARRAY] = 0,
        [SQ_GGUF_U64] = 8, [SQ_GGUF_I64] = 8, [SQ_GGUF_F64] = 8,
    };
    return type < SQ_COUNT(bytes) ? bytes[type] : 0;
}

static squish_status truncated(reader *r, const char *field) {
    return sq_fail(r->err, SQUISH_CORRUPT, "%s: file ends at byte %zu inside %s", r->g->file, r->c.n, field);
}

static squish_status no_memory(reader *r) {
    return sq_fail(r->err, SQUISH_NO_MEMORY, "%s: no memory for the header", r->g->file);
}

/* A length and as many bytes. */
static squish_status read_string(reader *r, const char *field, uint64_t max, sq_span *out) {
    uint64_t n = sq_cur_u64(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    if (n > max) {
        return sq_fail(r->err, SQUISH_CORRUPT,
                       "%s: %s is %" PRIu64 " bytes long, at most %" PRIu64 " are read", r->g->file, field, n,
                       max);
    }
    if (n > sq_cur_left(&r->c)) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s is %" PRIu64 " bytes long, %zu remain in the file",
                       r->g->file, field, n, sq_cur_left(&r->c));
    }
    *out = sq_cur_bytes(&r->c, n);
    return SQUISH_OK;
}

/* A name: not empty, UTF-8, no NUL. */
static squish_status read_name(reader *r, const char *field, uint64_t max, sq_span *out) {
    SQ_TRY(read_string(r, field, max, out));
    if (out->n == 0) return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s is empty", r->g->file, field);
    if (memchr(out->p, 0, out->n) || !sq_utf8_valid((const char *)out->p, out->n)) {
        sq_shown shown;
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s '%s' is not UTF-8 text", r->g->file, field,
                       sq_fmt_show(&shown, (const char *)out->p, out->n));
    }
    return SQUISH_OK;
}

/* ---- key/values ------------------------------------------------------------------------------ */

static squish_status check_bools(reader *r, const char *field, sq_span s) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] > 1) {
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s is a bool of value %u, wanted 0 or 1", r->g->file,
                           field, s.p[i]);
        }
    }
    return SQUISH_OK;
}

/* Item i of a string array. Vocabularies have 10^5 of them, so the text for a message is made only when it is
 * needed. */
static squish_status skip_item(reader *r, const char *field, uint64_t i, uint64_t n) {
    sq_cur before = r->c;
    uint64_t bytes = sq_cur_u64(&r->c);
    sq_cur_skip(&r->c, bytes);
    if (sq_cur_ok(&r->c) && bytes <= SQ_MAX_GGUF_STRING) return SQUISH_OK;
    char item[2 * SQ_SHOW_BYTES];
    snprintf(item, sizeof item, "%s, item %" PRIu64 " of %" PRIu64 ",", field, i, n);
    r->c = before;
    sq_span s;
    return read_string(r, item, SQ_MAX_GGUF_STRING, &s);
}

static squish_status read_array(reader *r, const char *field, sq_gguf_kv *kv) {
    uint32_t item = sq_cur_u32(&r->c);
    uint64_t n = sq_cur_u64(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    if (item == SQ_GGUF_ARRAY) {
        return sq_fail(r->err, SQUISH_UNSUPPORTED, "%s: %s is an array of arrays", r->g->file, field);
    }
    size_t size = item == SQ_GGUF_STRING ? sizeof(uint64_t) : value_bytes(item);
    if (!size) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s has items of unknown type %u, wanted 0 to 12",
                       r->g->file, field, item);
    }
    if (n > SQ_MAX_GGUF_ARRAY) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s has %" PRIu64 " items, at most %d are read",
                       r->g->file, field, n, SQ_MAX_GGUF_ARRAY);
    }
    if (n > sq_cur_left(&r->c) / size) {
        return sq_fail(r->err, SQUISH_CORRUPT,
                       "%s: %s claims %" PRIu64 " items of at least %zu bytes, %zu bytes remain in the file",
                       r->g->file, field, n, size, sq_cur_left(&r->c));
    }
    kv->item_type = (sq_gguf_type)item;
    kv->count = n;
    if (item != SQ_GGUF_STRING) {
        kv->value = sq_cur_bytes(&r->c, n * size);
        return item == SQ_GGUF_BOOL ? check_bools(r, field, kv->value) : SQUISH_OK;
    }
    size_t start = r->c.at;
    for (uint64_t i = 0; i < n; i++) SQ_TRY(skip_item(r, field, i, n));
    kv->value = (sq_span){r->c.p + start, r->c.at - start};
    return SQUISH_OK;
}

static squish_status read_kv(reader *r, size_t i) {
    sq_gguf_kv *kv = &r->g->kv[i];
    char field[SQ_SHOW_BYTES + 48];
    snprintf(field, sizeof field, "key %zu", i);
    SQ_TRY(read_name(r, field, KEY_BYTES_MAX, &kv->key));
    sq_shown shown;
    snprintf(field, sizeof field, "'%s'", sq_fmt_show(&shown, (const char *)kv->key.p, kv->key.n));
    uint32_t type = sq_cur_u32(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    kv->count = 1;
    kv->type = kv->item_type = (sq_gguf_type)type;
    if (type == SQ_GGUF_ARRAY) return read_array(r, field, kv);
    if (type == SQ_GGUF_STRING) return read_string(r, field, SQ_MAX_GGUF_STRING, &kv->value);
    size_t size = value_bytes(type);
    if (!size) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s has unknown type %u, wanted 0 to 12", r->g->file,
                       field, type);
    }
    kv->value = sq_cur_bytes(&r->c, size);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    return type == SQ_GGUF_BOOL ? check_bools(r, field, kv->value) : SQUISH_OK;
}

static int compare_keys(sq_span a, sq_span b) {
    int d = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return d ? d : (a.n > b.n) - (a.n < b.n);
}

static bool key_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_gguf_kv *kv = ctx;
    return compare_keys(kv[a].key, kv[b].key) < 0;
}

/* Sorted index of the keys; equal neighbours are an error. */
static squish_status index_keys(reader *r) {
    sq_gguf *g = r->g;
    g->by_key = SQ_ARENA_ARRAY(&g->arena, uint32_t, g->n_kv);
    if (g->n_kv && !g->by_key) return no_memory(r);
    for (size_t i = 0; i < g->n_kv; i++) g->by_key[i] = (uint32_t)i;
    sq_fmt_sort(g->by_key, g->n_kv, key_less, g->kv);
    for (size_t i = 1; i < g->n_kv; i++) {
        sq_span key = g->kv[g->by_key[i]].key;
        if (compare_keys(key, g->kv[g->by_key[i - 1]].key) == 0) {
            sq_shown shown;
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: key '%s' stands there twice", g->file,
                           sq_fmt_show(&shown, (const char *)key.p, key.n));
        }
    }
    return SQUISH_OK;
}

/* ---- tensor infos ---------------------------------------------------------------------------- */

/* Bytes from the dims (outermost first) and the type's block geometry. */
static squish_status tensor_bytes(reader *r, sq_ftensor *t, uint32_t type) {
    const char *type_name;
    uint32_t items, bytes;
    sq_shown shown;
    const char *name = sq_fmt_show(&shown, t->name, strlen(t->name));
    if (!sq_fmt_gguf_type(type, &type_name, &items, &bytes)) {
        return sq_fail(r->err, SQUISH_UNSUPPORTED,
                       "%s: tensor '%s' has type %s (id %u), which is not read here", t->file, name,
                       type_name, type);
    }
    uint64_t n = 1;
    for (int32_t d = 0; d < t->n_dims; d++) {
        if (t->dims[d] == 0) {
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: tensor '%s': dimension %d is 0, wanted at least 1",
                           t->file, name, t->n_dims - 1 - d);
        }
        if (!sq_mul_ok(n, t->dims[d], &n)) {
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: tensor '%s': the product of its dimensions overflows",
                           t->file, name);
        }
    }
    uint64_t cols = t->dims[t->n_dims - 1];
    if (cols % items) {
        return sq_fail(r->err, SQUISH_CORRUPT,
                       "%s: tensor '%s': %" PRIu64 " columns, not a multiple of %u (%s)", t->file, name, cols,
                       items, type_name);
    }
    if (!sq_mul_ok(n / items, bytes, &t->bytes)) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: tensor '%s': its size in bytes overflows", t->file, name);
    }
    t->dtype = sq_fmt_gguf_dtype(type);
    return SQUISH_OK;
}

static squish_status read_info(reader *r, size_t i) {
    sq_ftensor *t = &r->g->tensors[i];
    char field[SQ_SHOW_BYTES + 48];
    snprintf(field, sizeof field, "the name of tensor %zu", i);
    sq_span name;
    SQ_TRY(read_name(r, field, SQ_MAX_NAME, &name));
    t->name = sq_arena_strndup(&r->g->arena, (const char *)name.p, name.n);
    if (!t->name) return no_memory(r);
    t->file = r->g->file;
    sq_shown shown;
    snprintf(field, sizeof field, "tensor '%s'", sq_fmt_show(&shown, t->name, name.n));
    uint32_t n_dims = sq_cur_u32(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    if (n_dims < 1 || n_dims > DIMS_MAX) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: %s has %u dimensions, wanted 1 to %d", t->file, field,
                       n_dims, DIMS_MAX);
    }
    t->n_dims = (int32_t)n_dims;
    for (uint32_t d = 0; d < n_dims; d++)
        t->dims[n_dims - 1 - d] = sq_cur_u64(&r->c); /* innermost comes first */
    uint32_t type = sq_cur_u32(&r->c);
    r->data_offsets[i] = sq_cur_u64(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, field);
    return tensor_bytes(r, t, type);
}

static bool name_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_ftensor *t = ctx;
    return strcmp(t[a].name, t[b].name) < 0;
}

static bool data_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_ftensor *t = ctx;
    return t[a].data < t[b].data;
}

/* Sorted index of the names; equal neighbours are an error. */
static squish_status index_names(reader *r) {
    sq_gguf *g = r->g;
    g->by_name = SQ_ARENA_ARRAY(&g->arena, uint32_t, g->n_tensors);
    if (g->n_tensors && !g->by_name) return no_memory(r);
    for (size_t i = 0; i < g->n_tensors; i++) g->by_name[i] = (uint32_t)i;
    sq_fmt_sort(g->by_name, g->n_tensors, name_less, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        sq_shown shown;
        const char *name = g->tensors[g->by_name[i]].name;
        if (strcmp(name, g->tensors[g->by_name[i - 1]].name) == 0) {
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: tensor '%s' stands there twice", g->file,
                           sq_fmt_show(&shown, name, strlen(name)));
        }
    }
    return SQUISH_OK;
}

/* No name twice, no byte in two tensors. */
static squish_status check_tensors_apart(reader *r) {
    sq_gguf *g = r->g;
    SQ_TRY(index_names(r));
    uint32_t *order = SQ_ARENA_ARRAY(&g->arena, uint32_t, g->n_tensors);
    if (g->n_tensors && !order) return no_memory(r);
    for (size_t i = 0; i < g->n_tensors; i++) order[i] = (uint32_t)i;
    sq_shown a, b;
    sq_fmt_sort(order, g->n_tensors, data_less, g->tensors);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const sq_ftensor *s = &g->tensors[order[i - 1]], *t = &g->tensors[order[i]];
        if ((uint64_t)(t->data - s->data) < s->bytes) {
            return sq_fail(r->err, SQUISH_CORRUPT, "%s: tensor '%s' overlaps tensor '%s' at byte %td",
                           g->file, sq_fmt_show(&a, t->name, strlen(t->name)),
                           sq_fmt_show(&b, s->name, strlen(s->name)), t->data - r->c.p);
        }
    }
    return SQUISH_OK;
}

static squish_status read_alignment(reader *r, uint64_t *out) {
    *out = ALIGN_DEFAULT;
    const sq_gguf_kv *kv = sq_gguf_get(r->g, "general.alignment");
    if (!kv) return SQUISH_OK;
    if (kv->type != SQ_GGUF_U32) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: 'general.alignment' has type %d, wanted %d (u32)",
                       r->g->file, kv->type, SQ_GGUF_U32);
    }
    sq_cur c = sq_cur_make(kv->value);
    uint32_t a = sq_cur_u32(&c);
    if (a == 0 || (a & (a - 1))) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: 'general.alignment' is %u, wanted a power of two",
                       r->g->file, a);
    }
    *out = a;
    return SQUISH_OK;
}

/* Turn offsets into pointers once the whole range is known to lie in the file. */
static squish_status place_tensors(reader *r) {
    uint64_t align, padded;
    SQ_TRY(read_alignment(r, &align));
    if (!sq_add_ok(r->c.at, align - 1, &padded)) return truncated(r, "the padding before the data");
    uint64_t base = padded & ~(align - 1), room = base < r->c.n ? r->c.n - base : 0;
    for (size_t i = 0; i < r->g->n_tensors; i++) {
        sq_ftensor *t = &r->g->tensors[i];
        uint64_t off = r->data_offsets[i];
        sq_shown shown;
        const char *name = sq_fmt_show(&shown, t->name, strlen(t->name));
        if (off % align) {
            return sq_fail(r->err, SQUISH_CORRUPT,
                           "%s: tensor '%s' has offset %" PRIu64 ", wanted a multiple of %" PRIu64, t->file,
                           name, off, align);
        }
        if (off > room || t->bytes > room - off) {
            return sq_fail(r->err, SQUISH_CORRUPT,
                           "%s: tensor '%s' takes %" PRIu64 " bytes at offset %" PRIu64
                           " of the data, the file holds %" PRIu64,
                           t->file, name, t->bytes, off, room);
        }
        t->data = r->c.p + base + off;
    }
    return check_tensors_apart(r);
}

/* ---- the whole file -------------------------------------------------------------------------- */

static squish_status read_head(reader *r, uint64_t *n_tensors, uint64_t *n_kv) {
    const char *file = r->g->file;
    sq_span all = {r->c.p, r->c.n};
    if (sq_fmt_is_lfs_pointer(all)) {
        return sq_fail(r->err, SQUISH_NOT_FOUND,
                       "%s is a git-lfs pointer, the model itself was never fetched: git lfs pull", file);
    }
    sq_span magic = sq_cur_bytes(&r->c, 4);
    if (!magic.p || memcmp(magic.p, "GGUF", 4) != 0) {
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: not a GGUF file (the first four bytes are not 'GGUF')",
                       file);
    }
    uint32_t version = sq_cur_u32(&r->c);
    *n_tensors = sq_cur_u64(&r->c);
    *n_kv = sq_cur_u64(&r->c);
    if (!sq_cur_ok(&r->c)) return truncated(r, "the header");
    if (version != 0 && (version & 0xFFFF) == 0) {
        return sq_fail(r->err, SQUISH_UNSUPPORTED, "%s: a big-endian GGUF file (version field 0x%08x)", file,
                       version);
    }
    if (version != 2 && version != 3) {
        return sq_fail(r->err, SQUISH_UNSUPPORTED, "%s: GGUF version %u, wanted 2 or 3", file, version);
    }
    if (*n_kv > SQ_MAX_GGUF_KV || *n_kv > sq_cur_left(&r->c) / KV_BYTES_MIN) {
        return sq_fail(r->err, SQUISH_CORRUPT,
                       "%s: kv_count is %" PRIu64 ", at most %d fit (and %zu bytes remain)", file, *n_kv,
                       SQ_MAX_GGUF_KV, sq_cur_left(&r->c));
    }
    if (*n_tensors > SQ_MAX_TENSORS || *n_tensors > sq_cur_left(&r->c) / INFO_BYTES_MIN) {
        return sq_fail(r->err, SQUISH_CORRUPT,
                       "%s: tensor_count is %" PRIu64 ", at most %d fit (and %zu bytes remain)", file,
                       *n_tensors, SQ_MAX_TENSORS, sq_cur_left(&r->c));
    }
    return SQUISH_OK;
}

static squish_status read_all(reader *r) {
    sq_gguf *g = r->g;
    uint64_t n_tensors = 0, n_kv = 0;
    SQ_TRY(read_head(r, &n_tensors, &n_kv));
    g->kv = SQ_ARENA_ARRAY(&g->arena, sq_gguf_kv, (size_t)n_kv);
    g->tensors = SQ_ARENA_ARRAY(&g->arena, sq_ftensor, (size_t)n_tensors);
    r->data_offsets = SQ_ARENA_ARRAY(&g->arena, uint64_t, (size_t)n_tensors);
    if ((n_kv && !g->kv) || (n_tensors && (!g->tensors || !r->data_offsets))) return no_memory(r);
    g->n_kv = (size_t)n_kv;
    g->n_tensors = (size_t)n_tensors;
    for (size_t i = 0; i < g->n_kv; i++) SQ_TRY(read_kv(r, i));
    SQ_TRY(index_keys(r));
    for (size_t i = 0; i < g->n_tensors; i++) SQ_TRY(read_info(r, i));
    return place_tensors(r);
}

/* Base name of a path. */
static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

squish_status sq_gguf_parse(sq_gguf **out, sq_span file, const char *file_name, const squish_alloc *a,
                            squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_gguf *g = sq_alloc_zero(&alloc, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory", file_name);
    g->alloc = alloc;
    g->bytes = file.n;
    sq_arena_init(&g->arena, &alloc, 16384, 0);
    squish_status st;
    const char *base = base_name(file_name);
    g->file = sq_arena_strndup(&g->arena, base, strlen(base));
    if (!g->file) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory", base);
        goto fail;
    }
    reader r = {.c = sq_cur_make(file), .g = g, .err = err};
    SQ_GUARD(read_all(&r));
    *out = g;
    return SQUISH_OK;
fail:
    sq_gguf_close(g);
    return st;
}

static squish_status open_one(sq_gguf **out, const char *path, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_map map;
    SQ_TRY(sq_os_map_open(&map, path, err));
    squish_status st = sq_gguf_parse(out, (sq_span){map.data, map.bytes}, path, a, err);
    if (st != SQUISH_OK) {
        sq_os_map_close(&map);
        return st;
    }
    (*out)->map = map;
    return SQUISH_OK;
}

/* ---- several parts --------------------------------------------------------------------------- */

/* NAME-00001-of-00003.gguf: the path of another part into out, or false if path is not of that shape. */
static bool part_path(const char *path, uint32_t i, uint32_t n, char *out, size_t out_bytes) {
    char tail[32], wanted[32];
    snprintf(tail, sizeof tail, "-%05u-of-%05u.gguf", 1u, n);
    snprintf(wanted, sizeof wanted, "-%05u-of-%05u.gguf", i + 1, n);
    size_t len = strlen(path), tail_len = strlen(tail);
    if (len < tail_len || strcmp(path + len - tail_len, tail) != 0) return false;
    return (size_t)snprintf(out, out_bytes, "%.*s%s", (int)(len - tail_len), path, wanted) < out_bytes;
}

/* Part i says that it is part i of n. */
static squish_status check_part(const sq_gguf *part, uint32_t i, uint32_t n, squish_error *err) {
    int64_t no = -1, count = -1;
    (void)sq_gguf_i64(part, "split.no", &no);
    (void)sq_gguf_i64(part, "split.count", &count);
    if (no == i && count == n) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT,
                   "%s: split.no is %" PRId64 " and split.count %" PRId64 ", wanted %u and %u", part->file,
                   no, count, i, n);
}

/* The tensors of all parts as one list. */
static squish_status merge_parts(sq_gguf *g, squish_error *err) {
    reader r = {.g = g, .err = err};
    size_t n = g->n_tensors;
    int64_t wanted = -1;
    for (size_t i = 0; i < g->n_parts; i++) n += g->parts[i]->n_tensors;
    if (!sq_gguf_i64(g, "split.tensors.count", &wanted) || wanted < 0 || (uint64_t)wanted != n ||
        n > SQ_MAX_TENSORS) {
        return sq_fail(err, SQUISH_CORRUPT,
                       "%s: split.tensors.count is %" PRId64 ", the parts hold %zu tensors", g->file, wanted,
                       n);
    }
    sq_ftensor *all = SQ_ARENA_ARRAY(&g->arena, sq_ftensor, n);
    if (n && !all) return no_memory(&r);
    size_t at = g->n_tensors;
    if (at) memcpy(all, g->tensors, at * sizeof *all);
    for (size_t i = 0; i < g->n_parts; i++) {
        const sq_gguf *part = g->parts[i];
        if (part->n_tensors) memcpy(all + at, part->tensors, part->n_tensors * sizeof *all);
        at += part->n_tensors;
        g->bytes += part->bytes;
    }
    g->tensors = all;
    g->n_tensors = n;
    return index_names(&r);
}

static squish_status open_parts(sq_gguf *g, const char *path, const squish_alloc *a, squish_error *err) {
    char other[4096];
    int64_t n = 1, no = 0;
    if (!sq_gguf_i64(g, "split.count", &n) || n == 1) return SQUISH_OK;
    if (n < 1 || n > SQ_MAX_SHARDS) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: split.count is %" PRId64 ", wanted 1 to %d", g->file, n,
                       SQ_MAX_SHARDS);
    }
    if (sq_gguf_i64(g, "split.no", &no) && no > 0 && no < n) {
        return sq_fail(err, SQUISH_INVALID, "%s is part %" PRId64 " of %" PRId64 ": open the first part",
                       g->file, no + 1, n);
    }
    SQ_TRY(check_part(g, 0, (uint32_t)n, err));
    g->parts = SQ_ARENA_ARRAY(&g->arena, sq_gguf *, (size_t)n);
    if (!g->parts) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory for its parts", g->file);
    for (uint32_t i = 1; i < (uint32_t)n; i++) {
        if (!part_path(path, i, (uint32_t)n, other, sizeof other)) {
            return sq_fail(err, SQUISH_INVALID,
                           "%s: the first of %" PRId64 " parts, wanted a name like "
                           "NAME-00001-of-%05u.gguf",
                           g->file, n, (unsigned)n);
        }
        SQ_TRY(open_one(&g->parts[g->n_parts], other, a, err));
        SQ_TRY(check_part(g->parts[g->n_parts++], i, (uint32_t)n, err));
    }
    return merge_parts(g, err);
}

squish_status sq_gguf_open(sq_gguf **out, const char *path, const squish_alloc *a, squish_error *err) {
    SQ_TRY(open_one(out, path, a, err));
    squish_status st = open_parts(*out, path, a, err);
    if (st != SQUISH_OK) {
        sq_gguf_close(*out);
        *out = NULL;
    }
    return st;
}

void sq_gguf_close(sq_gguf *g) {
    if (!g) return;
    for (size_t i = 0; i < g->n_parts; i++) sq_gguf_close(g->parts[i]);
    if (g->map.data) sq_os_map_close(&g->map);
    squish_alloc alloc = g->alloc;
    sq_arena_deinit(&g->arena);
    sq_alloc_free(&alloc, g, sizeof *g);
}

/* ---- getters --------------------------------------------------------------------------------- */

size_t sq_gguf_n_kv(const sq_gguf *g) { return g->n_kv; }

const sq_gguf_kv *sq_gguf_kv_at(const sq_gguf *g, size_t i) { return i < g->n_kv ? &g->kv[i] : NULL; }

const sq_gguf_kv *sq_gguf_get(const sq_gguf *g, const char *key) {
    sq_span wanted = {(const uint8_t *)key, strlen(key)};
    for (size_t lo = 0, hi = g->n_kv; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        const sq_gguf_kv *kv = &g->kv[g->by_key[mid]];
        int d = compare_keys(wanted, kv->key);
        if (d == 0) return kv;
        if (d < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

bool sq_gguf_i64(const sq_gguf *g, const char *key, int64_t *out) {
    const sq_gguf_kv *kv = sq_gguf_get(g, key);
    if (!kv) return false;
    sq_cur c = sq_cur_make(kv->value);
    uint64_t u;
    switch (kv->type) {
    case SQ_GGUF_U8: *out = sq_cur_u8(&c); return true;
    case SQ_GGUF_I8: *out = (int8_t)sq_cur_u8(&c); return true;
    case SQ_GGUF_U16: *out = sq_cur_u16(&c); return true;
    case SQ_GGUF_I16: *out = (int16_t)sq_cur_u16(&c); return true;
    case SQ_GGUF_U32: *out = sq_cur_u32(&c); return true;
    case SQ_GGUF_I32: *out = (int32_t)sq_cur_u32(&c); return true;
    case SQ_GGUF_I64: *out = (int64_t)sq_cur_u64(&c); return true;
    case SQ_GGUF_U64:
        u = sq_cur_u64(&c);
        if (u > INT64_MAX) return false;
        *out = (int64_t)u;
        return true;
    default: return false;
    }
}

bool sq_gguf_f64(const sq_gguf *g, const char *key, double *out) {
    const sq_gguf_kv *kv = sq_gguf_get(g, key);
    if (!kv || (kv->type != SQ_GGUF_F32 && kv->type != SQ_GGUF_F64)) return false;
    sq_cur c = sq_cur_make(kv->value);
    *out = kv->type == SQ_GGUF_F32 ? (double)sq_cur_f32(&c) : sq_cur_f64(&c);
    return true;
}

bool sq_gguf_bool(const sq_gguf *g, const char *key, bool *out) {
    const sq_gguf_kv *kv = sq_gguf_get(g, key);
    if (!kv || kv->type != SQ_GGUF_BOOL) return false;
    *out = kv->value.p[0] != 0;
    return true;
}

bool sq_gguf_str(const sq_gguf *g, const char *key, sq_span *out) {
    const sq_gguf_kv *kv = sq_gguf_get(g, key);
    if (!kv || kv->type != SQ_GGUF_STRING) return false;
    *out = kv->value;
    return true;
}

squish_status sq_gguf_strings(const sq_gguf *g, const char *key, sq_arena *out_arena, sq_span **out,
                              size_t *n, squish_error *err) {
    *out = NULL;
    *n = 0;
    const sq_gguf_kv *kv = sq_gguf_get(g, key);
    if (!kv) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no key '%s'", g->file, key);
    if (kv->type != SQ_GGUF_ARRAY || kv->item_type != SQ_GGUF_STRING) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' has type %d, wanted an array of strings", g->file, key,
                       kv->type);
    }
    sq_span *s = SQ_ARENA_ARRAY(out_arena, sq_span, (size_t)kv->count);
    if (kv->count && !s) {
        return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory for the %" PRIu64 " strings of '%s'", g->file,
                       kv->count, key);
    }
    sq_cur c = sq_cur_make(kv->value);
    for (uint64_t i = 0; i < kv->count; i++) s[i] = sq_cur_bytes(&c, sq_cur_u64(&c));
    *out = s;
    *n = (size_t)kv->count;
    return SQUISH_OK;
}

size_t sq_gguf_n_tensors(const sq_gguf *g) { return g->n_tensors; }

const sq_ftensor *sq_gguf_tensor(const sq_gguf *g, size_t i) {
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const sq_ftensor *sq_gguf_find(const sq_gguf *g, const char *name) {
    for (size_t lo = 0, hi = g->n_tensors; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        const sq_ftensor *t = &g->tensors[g->by_name[mid]];
        int d = strcmp(name, t->name);
        if (d == 0) return t;
        if (d < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

uint64_t sq_gguf_bytes(const sq_gguf *g) { return g->bytes; }
