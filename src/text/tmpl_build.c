/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_build.c - the blob in the making: nodes, lists and strings in growing buffers, put together at the
 * end.
 *
 * Equal strings are stored once, so that the interpreter may compare names by number. */
#include "text/tmpl_int.h"


enum { MAX_BYTES = 256 << 20 }; /* of each table; the source's ceiling keeps real templates far below */

const char *const sq_tmpl_fixed_strings[SQ_TMPL_S_COUNT] = {"loop", "caller", "varargs", "kwargs"};

static squish_status no_memory(sq_tmpl_build *b) {
    return sq_fail(b->err, SQUISH_NO_MEMORY, "out of memory compiling a template");
}

squish_status sq_tmpl_build_init(sq_tmpl_build *b, const squish_alloc *a, const char *source, size_t n,
                                 squish_error *err) {
    memset(b, 0, sizeof *b);
    b->err = err;
    sq_buf *all[] = {&b->nodes, &b->lists, &b->strings, &b->pool, &b->stack};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_buf_init(all[i], a, MAX_BYTES);
    b->alloc = b->nodes.alloc;
    if (!sq_buf_append(&b->pool, source, n) || !sq_buf_putc(&b->pool, 0)) return no_memory(b);
    for (uint32_t i = 0, id; i < SQ_TMPL_S_COUNT; i++)
        SQ_TRY(sq_tmpl_intern(b, sq_tmpl_fixed_strings[i], strlen(sq_tmpl_fixed_strings[i]), &id));
    return SQUISH_OK;
}

void sq_tmpl_build_deinit(sq_tmpl_build *b) {
    sq_buf *all[] = {&b->nodes, &b->lists, &b->strings, &b->pool, &b->stack};
    for (size_t i = 0; i < SQ_COUNT(all); i++) sq_buf_deinit(all[i]);
    sq_alloc_free(&b->alloc, b->slots, b->n_slots * sizeof *b->slots);
}

/* The tables so far, as open would show them. */
static sq_tmpl view_of(const sq_tmpl_build *b) {
    return (sq_tmpl){.nodes = (const sq_tmpl_node *)(const void *)b->nodes.data,
                     .lists = (const uint32_t *)(const void *)b->lists.data,
                     .strings = (const sq_tmpl_string *)(const void *)b->strings.data,
                     .pool = b->pool.data,
                     .n_nodes = (uint32_t)(b->nodes.len / sizeof(sq_tmpl_node)),
                     .n_lists = (uint32_t)(b->lists.len / 4),
                     .n_strings = (uint32_t)(b->strings.len / sizeof(sq_tmpl_string)),
                     .pool_bytes = (uint32_t)b->pool.len};
}

static uint64_t hash_of(const char *s, size_t n) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

/* The slot where s is, or would go. The table is never full. */
static uint32_t *slot_of(const sq_tmpl_build *b, const char *s, size_t n) {
    const sq_tmpl v = view_of(b);
    for (uint64_t i = hash_of(s, n);; i++) {
        uint32_t *slot = &b->slots[i & (b->n_slots - 1)];
        if (*slot == 0) return slot;
        const sq_tmpl_string *str = &v.strings[*slot - 1];
        if (str->bytes == n && memcmp(v.pool + str->offset, s, n) == 0) return slot;
    }
}

static squish_status grow_slots(sq_tmpl_build *b) {
    uint32_t n_new = b->n_slots ? b->n_slots * 2 : 256;
    uint32_t *fresh = sq_alloc_zero(&b->alloc, n_new * sizeof *fresh);
    if (!fresh) return no_memory(b);
    sq_alloc_free(&b->alloc, b->slots, b->n_slots * sizeof *b->slots);
    b->slots = fresh;
    b->n_slots = n_new;
    const sq_tmpl v = view_of(b);
    for (uint32_t i = 0; i < v.n_strings; i++)
        *slot_of(b, v.pool + v.strings[i].offset, v.strings[i].bytes) = i + 1;
    return SQUISH_OK;
}

squish_status sq_tmpl_intern(sq_tmpl_build *b, const char *s, size_t n, uint32_t *id) {
    uint32_t n_strings = (uint32_t)(b->strings.len / sizeof(sq_tmpl_string));
    if (n_strings * 2 >= b->n_slots) SQ_TRY(grow_slots(b));
    uint32_t *slot = slot_of(b, s, n);
    if (*slot == 0) {
        sq_tmpl_string str = {.offset = (uint32_t)b->pool.len, .bytes = (uint32_t)n};
        if (!sq_buf_append(&b->pool, s, n) || !sq_buf_putc(&b->pool, 0) ||
            !sq_buf_append(&b->strings, &str, sizeof str))
            return no_memory(b);
        *slot = n_strings + 1;
    }
    *id = *slot - 1;
    return SQUISH_OK;
}

squish_status sq_tmpl_add(sq_tmpl_build *b, sq_tmpl_kind kind, int op, uint32_t line, const uint32_t *args,
                          uint32_t *out) {
    sq_tmpl_node node = {.kind = (uint8_t)kind, .op = (uint8_t)op, .line = line};
    for (size_t i = 0; i < SQ_COUNT(node.arg); i++) node.arg[i] = SQ_TMPL_NONE;
    size_t n_args = strlen(sq_tmpl_operands(kind));
    if (n_args > 0) memcpy(node.arg, args, n_args * sizeof *args);
    if (!sq_buf_append(&b->nodes, &node, sizeof node)) return no_memory(b);
    const sq_tmpl v = view_of(b);
    uint32_t i = v.n_nodes - 1, height = 0;
    uint64_t words = 0;
    SQ_TRY(sq_tmpl_check_node(&v, i, &height, &words, b->err));
    if (height > SQ_TMPL_DEPTH)
        return sq_fail(b->err, SQUISH_UNSUPPORTED, "template line %u: nested too deeply", line);
    ((sq_tmpl_node *)(void *)b->nodes.data)[i].height = (uint16_t)height;
    *out = i;
    return SQUISH_OK;
}

size_t sq_tmpl_mark(const sq_tmpl_build *b) { return b->stack.len; }

squish_status sq_tmpl_push(sq_tmpl_build *b, uint32_t node) {
    return sq_buf_append(&b->stack, &node, sizeof node) ? SQUISH_OK : no_memory(b);
}

squish_status sq_tmpl_list(sq_tmpl_build *b, size_t mark, uint32_t *out) {
    uint32_t n = (uint32_t)((b->stack.len - mark) / sizeof n);
    *out = (uint32_t)(b->lists.len / sizeof n);
    bool ok = sq_buf_append(&b->lists, &n, sizeof n) &&
              (n == 0 || sq_buf_append(&b->lists, b->stack.data + mark, n * sizeof n));
    b->stack.len = mark;
    return ok ? SQUISH_OK : no_memory(b);
}

squish_status sq_tmpl_build_finish(sq_tmpl_build *b, size_t source_bytes, sq_buf *out) {
    const sq_tmpl v = view_of(b);
    const sq_buf *parts[] = {&b->nodes, &b->lists, &b->strings, &b->pool};
    size_t total = sizeof(sq_tmpl_header);
    for (size_t i = 0; i < SQ_COUNT(parts); i++) total += parts[i]->len;
    const sq_tmpl_header h = {.magic = SQ_TMPL_MAGIC, .version = SQ_TMPL_VERSION, .bytes = (uint32_t)total,
                              .n_nodes = v.n_nodes, .n_lists = v.n_lists, .n_strings = v.n_strings,
                              .pool_bytes = v.pool_bytes, .source_bytes = (uint32_t)source_bytes};
    bool ok = sq_buf_append(out, &h, sizeof h);
    for (size_t i = 0; i < SQ_COUNT(parts) && ok; i++)
        if (parts[i]->len > 0) ok = sq_buf_append(out, parts[i]->data, parts[i]->len);
    return ok ? SQUISH_OK : no_memory(b);
}
