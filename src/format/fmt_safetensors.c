/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_safetensors.c - one safetensors file: header to checked tensor views, and a small writer.
 *
 *   | u64 n | n bytes of JSON {name: {dtype, shape, data_offsets}} | data |
 *
 * The tensors must cover the data exactly: sorted by offset, each begins where the one before it ends and the
 * last ends with the file. That one rule excludes overlaps, holes, polyglot files and sizes that lie. Data
 * may lie at any address; whoever reads it uses unaligned loads. Which files belong to a checkpoint is
 * fmt_st_index.c's business. */
#include "format/format.h"

#include "format/fmt_int.h"
#include "format/json.h"
#include "format/limits.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, HEADER_BYTES_MIN = 2 };

/* One tensor being read: where we are, for messages. */
typedef struct {
    const char *file;
    sq_shown name;
    sq_span data; /* everything after the header */
    sq_arena *arena;
    squish_error *err;
} entry;

#define ENTRY_FAIL(e, code, fmt, ...)                                                                        \
    sq_fail((e)->err, code, "%s: tensor '%s': " fmt, (e)->file, (e)->name.text, __VA_ARGS__)

static const char *kind_of(const json_t *v) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array",  [JSON_STRING] = "a string",
        [JSON_INTEGER] = "a number", [JSON_REAL] = "a fraction", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",      [JSON_NULL] = "null",
    };
    return v ? names[json_typeof(v)] : "missing";
}

static squish_status read_dtype(entry *e, const json_t *info, sq_dtype *out) {
    const json_t *v = json_object_get(info, "dtype");
    if (!json_is_string(v)) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'dtype' is %s, wanted a string", kind_of(v));
    }
    for (int t = SQ_DT_F32; t <= SQ_DT_F8_E5M2; t++) {
        if (strcmp(json_string_value(v), sq_dtype_name((sq_dtype)t)) == 0) {
            *out = (sq_dtype)t;
            return SQUISH_OK;
        }
    }
    sq_shown shown;
    return ENTRY_FAIL(e, SQUISH_UNSUPPORTED,
                      "dtype '%s' is not read here, wanted one of BOOL, U8 to U64, I8 to I64, "
                      "F8_E4M3, F8_E5M2, F16, BF16, F32, F64",
                      sq_fmt_show(&shown, json_string_value(v), json_string_length(v)));
}

/* A JSON integer >= 0 as item i of the array called field. */
static squish_status read_index(entry *e, const json_t *array, size_t i, const char *field, uint64_t *out) {
    const json_t *v = json_array_get(array, i);
    if (!json_is_integer(v)) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'%s'[%zu] is %s, wanted an integer", field, i, kind_of(v));
    }
    if (json_integer_value(v) < 0) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'%s'[%zu] is %lld, wanted at least 0", field, i,
                          (long long)json_integer_value(v));
    }
    *out = (uint64_t)json_integer_value(v);
    return SQUISH_OK;
}

/* Dims and, from them and the dtype, the bytes the tensor must take. A scalar has no dims and one element. */
static squish_status read_shape(entry *e, const json_t *info, sq_ftensor *t) {
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape)) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'shape' is %s, wanted an array", kind_of(shape));
    }
    size_t n_dims = json_array_size(shape);
    if (n_dims > SQ_MAX_DIMS) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'shape' has %zu dimensions, at most %d are read", n_dims,
                          SQ_MAX_DIMS);
    }
    t->n_dims = (int32_t)n_dims;
    uint64_t bytes = sq_dtype_bytes(t->dtype);
    for (size_t i = 0; i < n_dims; i++) {
        SQ_TRY(read_index(e, shape, i, "shape", &t->dims[i]));
        if (!sq_mul_ok(bytes, t->dims[i], &bytes)) {
            return ENTRY_FAIL(e, SQUISH_CORRUPT, "the product of its 'shape' overflows at dimension %zu", i);
        }
    }
    t->bytes = bytes;
    return SQUISH_OK;
}

static squish_status read_offsets(entry *e, const json_t *info, sq_ftensor *t) {
    const json_t *offsets = json_object_get(info, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'data_offsets' is %s of %zu items, wanted an array of 2",
                          kind_of(offsets), json_array_size(offsets));
    }
    uint64_t begin, end;
    SQ_TRY(read_index(e, offsets, 0, "data_offsets", &begin));
    SQ_TRY(read_index(e, offsets, 1, "data_offsets", &end));
    if (begin > end) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "'data_offsets' run backwards, %" PRIu64 " to %" PRIu64, begin,
                          end);
    }
    if (end > e->data.n) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT,
                          "'data_offsets' end at %" PRIu64 ", the file holds %zu bytes of data (%" PRIu64
                          " missing)",
                          end, e->data.n, end - e->data.n);
    }
    if (end - begin != t->bytes) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT,
                          "'data_offsets' span %" PRIu64 " bytes, dtype %s and 'shape' want %" PRIu64,
                          end - begin, sq_dtype_name(t->dtype), t->bytes);
    }
    t->data = e->data.p + begin;
    return SQUISH_OK;
}

static squish_status read_entry(entry *e, const char *name, const json_t *info, sq_ftensor *t) {
    size_t n = strlen(name);
    sq_fmt_show(&e->name, name, n);
    if (n == 0 || n > SQ_MAX_NAME) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "its name has %zu bytes, wanted 1 to %d", n, SQ_MAX_NAME);
    }
    if (!json_is_object(info)) {
        return ENTRY_FAIL(e, SQUISH_CORRUPT, "its entry is %s, wanted an object", kind_of(info));
    }
    t->name = sq_arena_strndup(e->arena, name, n);
    if (!t->name) return ENTRY_FAIL(e, SQUISH_NO_MEMORY, "no memory for its %zu bytes of name", n);
    t->file = e->file;
    SQ_TRY(read_dtype(e, info, &t->dtype));
    SQ_TRY(read_shape(e, info, t));
    return read_offsets(e, info, t);
}

static squish_status check_metadata(const char *file, const json_t *meta, squish_error *err) {
    if (!json_is_object(meta)) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: '__metadata__' is %s, wanted an object", file,
                       kind_of(meta));
    }
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)meta, key, v) {
        if (!json_is_string(v)) {
            sq_shown shown;
            return sq_fail(err, SQUISH_CORRUPT, "%s: '__metadata__' holds '%s', which is %s, wanted a string",
                           file, sq_fmt_show(&shown, key, strlen(key)), kind_of(v));
        }
    }
    return SQUISH_OK;
}

/* Empty tensors come before the one that begins at the same place. */
static bool begins_before(const void *ctx, uint32_t a, uint32_t b) {
    const sq_ftensor *t = ctx;
    return t[a].data != t[b].data ? t[a].data < t[b].data : t[a].bytes < t[b].bytes;
}

/* Put the tensors into data order and make sure that they tile the data. */
static squish_status sort_and_cover(entry *e, sq_ftensor *found, size_t n, sq_ftensor **out) {
    uint32_t *order = SQ_ARENA_ARRAY(e->arena, uint32_t, n);
    sq_ftensor *sorted = SQ_ARENA_ARRAY(e->arena, sq_ftensor, n);
    if (n && (!order || !sorted))
        return sq_fail(e->err, SQUISH_NO_MEMORY, "%s: no memory for %zu tensors", e->file, n);
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    sq_fmt_sort(order, n, begins_before, found);
    const uint8_t *at = e->data.p;
    for (size_t i = 0; i < n; i++) {
        sorted[i] = found[order[i]];
        const sq_ftensor *t = &sorted[i];
        sq_fmt_show(&e->name, t->name, strlen(t->name));
        if (t->data < at) {
            sq_shown before;
            const char *name = sorted[i - 1].name;
            return ENTRY_FAIL(e, SQUISH_CORRUPT,
                              "'data_offsets' begin at %td and overlap '%s', which ends at %td",
                              t->data - e->data.p, sq_fmt_show(&before, name, strlen(name)), at - e->data.p);
        }
        if (t->data > at) {
            return ENTRY_FAIL(e, SQUISH_CORRUPT,
                              "'data_offsets' begin at %td, wanted %td: a hole in the data",
                              t->data - e->data.p, at - e->data.p);
        }
        at = t->data + t->bytes;
    }
    if ((size_t)(at - e->data.p) != e->data.n) {
        return sq_fail(e->err, SQUISH_CORRUPT, "%s: %zu bytes of data, its tensors take %td", e->file,
                       e->data.n, at - e->data.p);
    }
    *out = sorted;
    return SQUISH_OK;
}

static squish_status read_entries(entry *e, json_t *root, sq_ftensor **tensors, size_t *n) {
    if (!json_is_object(root)) {
        return sq_fail(e->err, SQUISH_CORRUPT, "%s: header is %s, wanted an object", e->file, kind_of(root));
    }
    if (json_object_size(root) > SQ_MAX_TENSORS) {
        return sq_fail(e->err, SQUISH_CORRUPT, "%s: %zu tensors, at most %d are read", e->file,
                       json_object_size(root), SQ_MAX_TENSORS);
    }
    sq_ftensor *found = SQ_ARENA_ARRAY(e->arena, sq_ftensor, json_object_size(root));
    if (json_object_size(root) && !found) {
        return sq_fail(e->err, SQUISH_NO_MEMORY, "%s: no memory for %zu tensors", e->file,
                       json_object_size(root));
    }
    size_t count = 0;
    const char *name;
    json_t *info;
    json_object_foreach(root, name, info) {
        if (strcmp(name, "__metadata__") == 0) {
            SQ_TRY(check_metadata(e->file, info, e->err));
        } else {
            SQ_TRY(read_entry(e, name, info, &found[count++]));
        }
    }
    SQ_TRY(sort_and_cover(e, found, count, tensors));
    *n = count;
    return SQUISH_OK;
}

squish_status sq_st_parse(sq_span file, const char *file_name, sq_arena *out_arena, sq_ftensor **tensors,
                          size_t *n, squish_error *err) {
    *tensors = NULL;
    *n = 0;
    if (sq_fmt_is_lfs_pointer(file)) {
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "%s is a git-lfs pointer, the weights themselves were never fetched: git lfs pull",
                       file_name);
    }
    sq_cur c = sq_cur_make(file);
    uint64_t header = sq_cur_u64(&c);
    if (!sq_cur_ok(&c)) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: %zu bytes, wanted at least %d", file_name, file.n,
                       LENGTH_BYTES + HEADER_BYTES_MIN);
    }
    if (header < HEADER_BYTES_MIN || header > SQ_MAX_ST_HEADER) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: header length is %" PRIu64 ", wanted %d to %d", file_name,
                       header, HEADER_BYTES_MIN, SQ_MAX_ST_HEADER);
    }
    if (header > sq_cur_left(&c)) {
        return sq_fail(err, SQUISH_CORRUPT,
                       "%s: header length is %" PRIu64 ", the file holds %zu bytes after it", file_name,
                       header, sq_cur_left(&c));
    }
    sq_span json = sq_cur_bytes(&c, header);
    if (json.p[0] != '{') {
        return sq_fail(err, SQUISH_CORRUPT, "%s: header begins with byte 0x%02x, wanted '{'", file_name,
                       json.p[0]);
    }
    char *kept_name = sq_arena_strndup(out_arena, file_name, strlen(file_name));
    if (!kept_name) return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory for its name", file_name);
    json_t *root;
    squish_status st = sq_json_parse((const char *)json.p, json.n, SQ_JSON_DEPTH, file_name, &root, err);
    if (st != SQUISH_OK) return st;
    entry e = {.file = kept_name, .data = {file.p + c.at, sq_cur_left(&c)}, .arena = out_arena, .err = err};
    st = read_entries(&e, root, tensors, n);
    json_decref(root);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The entry of one tensor, whose data begin at `begin`; INVALID if its fields disagree. */
static squish_status add_entry(json_t *root, const sq_ftensor *t, uint64_t begin, uint64_t end,
                               squish_error *err) {
    uint64_t bytes = sq_dtype_bytes(t->dtype);
    if (!bytes)
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': dtype cannot be stored in safetensors", t->name);
    json_t *shape = json_array(), *offsets = json_array(), *info = json_object();
    int bad = json_array_append_new(offsets, json_integer((json_int_t)begin));
    bad |= json_array_append_new(offsets, json_integer((json_int_t)end));
    for (int32_t d = 0; d < t->n_dims; d++) {
        bytes *= t->dims[d];
        bad |= json_array_append_new(shape, json_integer((json_int_t)t->dims[d]));
    }
    bool twice = json_object_get(root, t->name) != NULL;
    bad |= json_object_set_new(info, "dtype", json_string(sq_dtype_name(t->dtype)));
    bad |= json_object_set_new(info, "shape", shape);
    bad |= json_object_set_new(info, "data_offsets", offsets);
    bad |= json_object_set_new(root, t->name, info);
    if (bad) return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': no memory for its entry", t->name);
    if (twice) return sq_fail(err, SQUISH_INVALID, "tensor '%s' is given twice", t->name);
    if (bytes != t->bytes) {
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': %" PRIu64 " bytes given, its shape wants %" PRIu64,
                       t->name, t->bytes, bytes);
    }
    return SQUISH_OK;
}

/* The header, padded with spaces so that the data begin at a multiple of 8. */
static squish_status make_header(const sq_ftensor *tensors, size_t n, sq_buf *out, uint64_t *data_bytes,
                                 squish_error *err) {
    squish_status st = SQUISH_OK;
    json_t *root = json_object();
    char *text = NULL;
    uint64_t at = 0;
    if (!root) return sq_fail(err, SQUISH_NO_MEMORY, "no memory for a safetensors header");
    for (size_t i = 0; i < n; i++) {
        SQ_GUARD(add_entry(root, &tensors[i], at, at + tensors[i].bytes, err));
        at += tensors[i].bytes;
    }
    text = json_dumps(root, JSON_COMPACT);
    if (!text) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "no memory for a safetensors header");
        goto fail;
    }
    uint64_t length = sq_align_up(strlen(text), 8);
    sq_buf_append(out, &length, sizeof length);
    sq_buf_puts(out, text);
    while (out->len < LENGTH_BYTES + length && sq_buf_putc(out, ' ')) {
    }
    if (out->failed) st = sq_fail(err, SQUISH_NO_MEMORY, "no memory for a safetensors header");
    *data_bytes = at;
fail:
    free(text);
    json_decref(root);
    return st;
}

squish_status sq_st_write(const char *path, const sq_ftensor *tensors, size_t n, squish_error *err) {
    squish_alloc alloc = sq_alloc_default();
    sq_buf header;
    sq_buf_init(&header, &alloc, SQ_MAX_ST_HEADER);
    sq_newfile f = {.fd = -1};
    uint64_t data_bytes = 0, at;
    squish_status st = make_header(tensors, n, &header, &data_bytes, err);
    if (st != SQUISH_OK) goto done;
    st = sq_os_newfile_open(&f, path, header.len + data_bytes, err);
    if (st != SQUISH_OK) goto done;
    st = sq_os_newfile_write_at(&f, 0, header.data, header.len, err);
    at = header.len;
    for (size_t i = 0; i < n && st == SQUISH_OK; i++) {
        st = sq_os_newfile_write_at(&f, at, tensors[i].data, (size_t)tensors[i].bytes, err);
        at += tensors[i].bytes;
    }
    if (st == SQUISH_OK) {
        st = sq_os_newfile_publish(&f, err);
    } else {
        sq_os_newfile_abandon(&f);
    }
done:
    sq_buf_deinit(&header);
    return st;
}
