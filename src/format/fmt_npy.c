/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_npy.c - one array per file, as NumPy stores it (NEP 1, versions 1.0 and 2.0).
 *
 *   | 93 'NUMPY' | major minor | header length, 2 or 4 bytes | "{'descr': '<f4', ...}" spaces \n | data |
 *
 * The header is a Python literal; only the dictionary NumPy itself writes is read, by a small parser of our
 * own: three keys, each once, in any order. Object arrays are pickles, that is programs, and are refused. No
 * state, no threads. */
#include "format/format.h"

#include "format/fmt_int.h"
#include "format/limits.h"

#include <stdio.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
enum { MAGIC_BYTES = 6, HEADER_MAX = 65536, DATA_ALIGN = 64 };

static const struct {
    char descr[4];
    sq_dtype dtype;
} kinds[] = {{"<f2", SQ_DT_F16}, {"<f4", SQ_DT_F32}, {"<i8", SQ_DT_I64},
             {"<i4", SQ_DT_I32}, {"|i1", SQ_DT_I8},  {"|u1", SQ_DT_U8}};

/* The header's text while it is read. */
typedef struct {
    const char *p, *end, *name;
    squish_error *err;
} literal;

static squish_status bad(const literal *l, const char *wanted) {
    sq_shown shown;
    return sq_fail(l->err, SQUISH_CORRUPT, "%s: npy header at '%s': wanted %s", l->name,
                   sq_fmt_show(&shown, l->p, (size_t)(l->end - l->p)), wanted);
}

static void skip_spaces(literal *l) {
    while (l->p < l->end && (*l->p == ' ' || *l->p == '\n')) l->p++;
}

/* Step over c, with spaces before it; false: something else stands there. */
static bool accept(literal *l, char c) {
    skip_spaces(l);
    if (l->p == l->end || *l->p != c) return false;
    l->p++;
    return true;
}

static bool accept_word(literal *l, const char *word) {
    size_t n = strlen(word);
    skip_spaces(l);
    if ((size_t)(l->end - l->p) < n || memcmp(l->p, word, n) != 0) return false;
    l->p += n;
    return true;
}

/* 'text' or "text" without escapes. */
static squish_status read_text(literal *l, sq_span *out) {
    skip_spaces(l);
    if (l->p == l->end || (*l->p != '\'' && *l->p != '"')) return bad(l, "a string");
    const char *begin = l->p + 1, *close = memchr(begin, *l->p, (size_t)(l->end - begin));
    if (!close || memchr(begin, '\\', (size_t)(close - begin))) return bad(l, "a plain string");
    *out = (sq_span){(const uint8_t *)begin, (size_t)(close - begin)};
    l->p = close + 1;
    return SQUISH_OK;
}

static bool is_text(sq_span s, const char *word) {
    return s.n == strlen(word) && memcmp(s.p, word, s.n) == 0;
}

static squish_status read_descr(literal *l, sq_ftensor *t) {
    sq_span s;
    sq_shown shown;
    skip_spaces(l);
    if (l->p < l->end && *l->p == '[')
        return sq_fail(l->err, SQUISH_UNSUPPORTED, "%s: an npy array of records is not read", l->name);
    SQ_TRY(read_text(l, &s));
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        if (!is_text(s, kinds[i].descr)) continue;
        t->dtype = kinds[i].dtype;
        return SQUISH_OK;
    }
    if (s.n && memchr(s.p, 'O', s.n))
        return sq_fail(l->err, SQUISH_UNSUPPORTED,
                       "%s: an npy array of objects is a pickle, which is never read", l->name);
    return sq_fail(l->err, SQUISH_UNSUPPORTED, "%s: npy dtype '%s', wanted <f2 <f4 <i8 <i4 |i1 or |u1",
                   l->name, sq_fmt_show(&shown, (const char *)s.p, s.n));
}

static squish_status read_order(literal *l) {
    if (accept_word(l, "False")) return SQUISH_OK;
    if (!accept_word(l, "True")) return bad(l, "True or False");
    return sq_fail(l->err, SQUISH_UNSUPPORTED, "%s: an npy array in Fortran order, wanted C order", l->name);
}

static squish_status read_number(literal *l, uint64_t *out) {
    skip_spaces(l);
    const char *begin = l->p;
    for (*out = 0; l->p < l->end && *l->p >= '0' && *l->p <= '9'; l->p++) {
        if (!sq_mul_ok(*out, 10, out) || !sq_add_ok(*out, (uint64_t)(*l->p - '0'), out))
            return bad(l, "a dimension below 2^64");
    }
    return l->p > begin ? SQUISH_OK : bad(l, "a dimension");
}

/* (), (3,), (3, 4): a comma behind each but the last, which may have one; a single one must. */
static squish_status read_shape(literal *l, sq_ftensor *t) {
    if (!accept(l, '(')) return bad(l, "'('");
    for (t->n_dims = 0; !accept(l, ')');) {
        if (t->n_dims == SQ_MAX_DIMS) return bad(l, "at most 8 dimensions");
        SQ_TRY(read_number(l, &t->dims[t->n_dims++]));
        if (accept(l, ',')) continue;
        if (t->n_dims == 1 || !accept(l, ')')) return bad(l, "',' or ')'");
        break;
    }
    return SQUISH_OK;
}

static squish_status read_literal(literal *l, sq_ftensor *t) {
    enum { DESCR = 1, ORDER = 2, SHAPE = 4, ALL = 7 };
    int seen = 0;
    if (!accept(l, '{')) return bad(l, "'{'");
    while (!accept(l, '}')) {
        sq_span key;
        SQ_TRY(read_text(l, &key));
        int one = is_text(key, "descr")           ? DESCR
                  : is_text(key, "fortran_order") ? ORDER
                  : is_text(key, "shape")         ? SHAPE
                                                  : 0;
        if (!one || (seen & one)) return bad(l, "descr, fortran_order and shape, each once");
        if (!accept(l, ':')) return bad(l, "':'");
        SQ_TRY(one == DESCR ? read_descr(l, t) : one == ORDER ? read_order(l) : read_shape(l, t));
        seen |= one;
        if (accept(l, ',')) continue;
        if (!accept(l, '}')) return bad(l, "',' or '}'");
        break;
    }
    skip_spaces(l);
    if (seen != ALL || l->p != l->end) return bad(l, "descr, fortran_order and shape and nothing else");
    return SQUISH_OK;
}

/* Product of the dimensions and the size of an item; false on overflow. */
static bool wanted_bytes(const sq_ftensor *t, uint64_t *out) {
    *out = sq_dtype_bytes(t->dtype);
    for (int32_t d = 0; d < t->n_dims; d++) {
        if (!sq_mul_ok(*out, t->dims[d], out)) return false;
    }
    return true;
}

squish_status sq_npy_parse(sq_span file, const char *name, sq_ftensor *t, squish_error *err) {
    sq_cur c = sq_cur_make(file);
    sq_span magic = sq_cur_bytes(&c, MAGIC_BYTES);
    uint8_t major = sq_cur_u8(&c), minor = sq_cur_u8(&c);
    if (!sq_cur_ok(&c) || memcmp(magic.p, MAGIC, MAGIC_BYTES) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: not an npy file (the first bytes are not 93 'NUMPY')", name);
    if ((major != 1 && major != 2) || minor != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: npy version %u.%u, wanted 1.0 or 2.0", name, major,
                       minor);
    uint32_t n = major == 1 ? sq_cur_u16(&c) : sq_cur_u32(&c);
    if (!sq_cur_ok(&c) || n > HEADER_MAX || n > sq_cur_left(&c))
        return sq_fail(err, SQUISH_CORRUPT,
                       "%s: npy header of %u bytes, %zu remain in the file, at most %d are read", name, n,
                       sq_cur_left(&c), HEADER_MAX);
    sq_span text = sq_cur_bytes(&c, n);
    literal l = {(const char *)text.p, (const char *)text.p + text.n, name, err};
    sq_ftensor made = {.name = name, .file = name};
    SQ_TRY(read_literal(&l, &made));
    uint64_t left = sq_cur_left(&c);
    if (!wanted_bytes(&made, &made.bytes) || made.bytes != left)
        return sq_fail(err, SQUISH_CORRUPT, "%s: npy data have %" PRIu64 " bytes, the shape wants %" PRIu64,
                       name, left, made.bytes);
    made.data = file.p + c.at;
    *t = made;
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

squish_status sq_npy_header(const sq_ftensor *t, char *out, size_t n, size_t *used, squish_error *err) {
    const char *descr = NULL;
    uint64_t bytes;
    char shape[8 * 22 + 4] = "(", text[sizeof shape + 64];
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        if (kinds[i].dtype == t->dtype) descr = kinds[i].descr;
    }
    if (!descr || t->n_dims < 0 || t->n_dims > SQ_MAX_DIMS || !wanted_bytes(t, &bytes))
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': dtype %s with %d dimensions cannot be an npy file",
                       t->name, sq_dtype_name(t->dtype), (int)t->n_dims);
    size_t at = 1;
    for (int32_t d = 0; d < t->n_dims; d++) {
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%s%" PRIu64 "%s", d ? ", " : "", t->dims[d],
                               t->n_dims == 1 ? "," : "");
    }
    snprintf(shape + at, sizeof shape - at, ")");
    int len =
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    size_t head = MAGIC_BYTES + 4, whole = sq_align_up(head + (size_t)len + 1, DATA_ALIGN);
    if (whole > n)
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': an npy header of %zu bytes, room for %zu", t->name,
                       whole, n);
    memcpy(out, MAGIC "\x01\x00", MAGIC_BYTES + 2);
    out[head - 2] = (char)((whole - head) & 0xFF);
    out[head - 1] = (char)((whole - head) >> 8);
    memcpy(out + head, text, (size_t)len);
    memset(out + head + len, ' ', whole - head - (size_t)len);
    out[whole - 1] = '\n';
    *used = whole;
    return SQUISH_OK;
}

squish_status sq_npy_write(const char *path, const sq_ftensor *t, squish_error *err) {
    char header[512];
    size_t n;
    uint64_t bytes;
    sq_newfile f = {.fd = -1};
    SQ_TRY(sq_npy_header(t, header, sizeof header, &n, err));
    if (!wanted_bytes(t, &bytes) || bytes != t->bytes)
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': %" PRIu64 " bytes given, its shape wants %" PRIu64,
                       t->name, t->bytes, bytes);
    squish_status st = sq_os_newfile_open(&f, path, n + bytes, err);
    if (st == SQUISH_OK) st = sq_os_newfile_write_at(&f, 0, header, n, err);
    if (st == SQUISH_OK && bytes) st = sq_os_newfile_write_at(&f, n, t->data, (size_t)bytes, err);
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
    sq_os_newfile_abandon(&f);
    return st;
}

/* ---- names ----------------------------------------------------------------------------------- */

static bool is_plain(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
}

bool sq_npy_name_encode(const char *name, char *out, size_t n) {
    static const char hex[] = "0123456789ABCDEF";
    size_t at = 0;
    for (; *name; name++) {
        uint8_t c = (uint8_t)*name;
        size_t need = is_plain(*name) ? 1 : 3;
        if (at + need >= n) return false;
        if (is_plain(*name)) {
            out[at++] = *name;
        } else {
            out[at++] = '%';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
        }
    }
    if (at >= n) return false;
    out[at] = 0;
    return true;
}

/* Digit of an escape as encode writes it; -1: none. */
static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool sq_npy_name_decode(const char *file, char *out, size_t n) {
    size_t at = 0;
    for (; *file; file++) {
        char c = *file;
        if (c == '%') {
            int high = hex_digit(file[1]), low = high < 0 ? -1 : hex_digit(file[2]);
            c = (char)(low < 0 ? 0 : high << 4 | low);
            if (c == 0 || is_plain(c)) return false; /* one name, one spelling */
            file += 2;
        } else if (!is_plain(c)) {
            return false;
        }
        if (at + 1 >= n) return false;
        out[at++] = c;
    }
    if (at >= n) return false;
    out[at] = 0;
    return true;
}
