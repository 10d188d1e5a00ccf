/* SPDX-License-Identifier: Apache-2.0
 *
 * json_suite.c - see json_suite.h. */
#include "support/json_suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void put_string(sq_buf *b, const char *s, size_t n) {
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    sq_buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        const char *at = c ? strchr(plain, c) : NULL;
        if (at)
            sq_buf_putc(b, '\\'), sq_buf_putc(b, letters[at - plain]);
        else if (c < 0x20)
            sq_buf_printf(b, "\\u%04x", c);
        else
            sq_buf_putc(b, (char)c);
    }
    sq_buf_putc(b, '"');
}

static void put_value(sq_buf *b, const gs_value *v) {
    const bool object = v->type == GS_OBJECT;
    switch (v->type) {
    case GS_NULL: sq_buf_puts(b, "null"); return;
    case GS_BOOLEAN: sq_buf_puts(b, v->yes ? "true" : "false"); return;
    case GS_NUMBER: sq_buf_append(b, v->u.number.text, v->u.number.text_bytes); return;
    case GS_STRING: put_string(b, v->u.text, v->n); return;
    default: break;
    }
    sq_buf_putc(b, object ? '{' : '[');
    for (uint32_t i = 0; i < v->n; i++) {
        if (i) sq_buf_putc(b, ',');
        if (object)
            put_string(b, v->u.object.members[i].name, v->u.object.members[i].bytes), sq_buf_putc(b, ':');
        put_value(b, object ? &v->u.object.members[i].value : &v->u.items[i]);
    }
    sq_buf_putc(b, object ? '}' : ']');
}

char *sq_suite_text(sq_arena *ar, const gs_value *v, size_t *n) {
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 22);
    put_value(&b, v);
    assert_false(b.failed);
    *n = b.len;
    char *s = sq_arena_strndup(ar, b.data, b.len);
    sq_buf_deinit(&b);
    return s;
}

const char *sq_suite_string(const gs_value *object, const char *name) {
    const gs_value *v = gs_value_find(object, name);
    return v && v->type == GS_STRING ? v->u.text : "";
}

static bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

void sq_suite_each_file(sq_arena *ar, const char *root, const char *rel, const char *const *skip,
                        void (*fn)(const char *path, const char *rel)) {
    char path[1024], sub[512];
    char **names;
    size_t n;
    snprintf(path, sizeof path, "%s%s", root, rel);
    assert_int_equal(sq_os_list_dir(path, ar, &names, &n, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        bool skipped = false;
        for (const char *const *s = skip; *s; s++) skipped |= strcmp(*s, names[i]) == 0;
        if (skipped) continue;
        snprintf(sub, sizeof sub, "%s/%s", rel, names[i]);
        snprintf(path, sizeof path, "%s%s", root, sub);
        if (sq_os_is_dir(path))
            sq_suite_each_file(ar, root, sub, skip, fn);
        else if (ends_with(sub, ".json"))
            fn(path, sub);
    }
}

bool sq_suite_find(const char *name, char *path, size_t n) {
    const char *data = getenv("SQUISH_TESTDATA");
    snprintf(path, n, "%s/fixtures/%s", data ? data : "", name);
    return data && sq_os_is_dir(path);
}

/* ---- exceptions ------------------------------------------------------------------------------- */

void sq_ratchet_read(sq_ratchet *r, sq_arena *ar, const char *path) {
    sq_span bytes;
    *r = (sq_ratchet){.n = 0};
    assert_int_equal(sq_os_read_file(path, 1 << 20, ar, &bytes, NULL), SQUISH_OK);
    for (char *line = (char *)(uintptr_t)bytes.p, *end; *line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = 0;
        else
            end = line + strlen(line);
        char *reason = strrchr(line, '\t');
        if (*line == '#' || !*line) continue;
        assert_true(reason && reason[1] && r->n < SQ_RATCHET_MAX); /* every line says why */
        *reason = 0;
        r->known[r->n++] = line;
    }
}

void sq_ratchet_judge(sq_ratchet *r, const char *key, bool pass, const char *why) {
    size_t i = 0;
    while (i < r->n && strcmp(r->known[i], key)) i++;
    if (i < r->n) r->met[i] = true;
    if (pass == (i == r->n)) return;
    r->unexpected++;
    print_message("%s: %s\t%s\n", pass ? "passes now" : "fails now", key, why);
}

int sq_ratchet_end(sq_ratchet *r) {
    for (size_t i = 0; i < r->n; i++) {
        if (r->met[i]) continue;
        print_message("no such case: %s\n", r->known[i]);
        r->unexpected++;
    }
    return r->unexpected;
}
