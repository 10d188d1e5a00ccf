/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_blob.c - opening a compiled template: every table, number and class is checked once, then trusted.
 *
 * After open the interpreter may follow any operand without looking again: it is in range, of the class its
 * place demands, and smaller than its parent. The same check runs on each node while the blob is built. */
#include "text/tmpl_int.h"

static const struct {
    const char *name, *operands;
    uint8_t cls, op_max;
} kinds[SQ_TK_COUNT] = {
#define KIND_ROW(name, cls, op, args) {#name, args, SQ_TC_##cls, op},
    SQ_TMPL_KINDS(KIND_ROW)
#undef KIND_ROW
};

const char *sq_tmpl_operands(int kind) { return kinds[kind].operands; }

static squish_status corrupt(squish_error *err, const char *what, uint32_t value) {
    return sq_fail(err, SQUISH_CORRUPT, "compiled template: %s %u", what, value);
}

/* Child c of node i must be earlier and of class cls; raises *height. */
static squish_status check_child(const sq_tmpl *t, uint32_t i, uint32_t c, int cls, uint32_t *height,
                                 squish_error *err) {
    if (c >= i) return corrupt(err, "a child does not come before node", i);
    if (kinds[t->nodes[c].kind].cls != cls) return corrupt(err, "a child of the wrong kind under node", i);
    if (t->nodes[c].height >= *height) *height = t->nodes[c].height + 1u;
    return SQUISH_OK;
}

/* Classes of the items of a list operand, by turns; -1: the letter is no list. */
static void list_classes(char letter, int *even, int *odd) {
    static const struct {
        char letter;
        int8_t even, odd;
    } rows[] = {
        {'S', SQ_TC_STMT, SQ_TC_STMT},     {'X', SQ_TC_EXPR, SQ_TC_EXPR},     {'P', SQ_TC_EXPR, SQ_TC_EXPR},
        {'I', SQ_TC_EXPR, SQ_TC_BODY},     {'T', SQ_TC_TARGET, SQ_TC_TARGET}, {'W', SQ_TC_TARGET, SQ_TC_EXPR},
        {'M', SQ_TC_PARAM, SQ_TC_PARAM},   {'O', SQ_TC_OPERAND, SQ_TC_OPERAND}, {'Q', SQ_TC_PART, SQ_TC_PART},
        {'K', SQ_TC_KWARG, SQ_TC_KWARG},
    };
    *even = *odd = -1;
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (rows[i].letter == letter) *even = rows[i].even, *odd = rows[i].odd;
}

static squish_status check_list(const sq_tmpl *t, uint32_t i, char letter, uint32_t list, uint32_t *height,
                                uint64_t *words, squish_error *err) {
    int even, odd;
    list_classes(letter, &even, &odd);
    if (list >= t->n_lists || t->lists[list] > t->n_lists - list - 1)
        return corrupt(err, "a list out of range under node", i);
    uint32_t n = t->lists[list];
    if (strchr("PIW", letter) && n % 2)
        return corrupt(err, "a list of pairs with an odd count under node", i);
    *words += n + 1u;
    if (*words > t->n_lists) return corrupt(err, "lists shared between nodes, seen at node", i);
    for (uint32_t k = 0; k < n; k++)
        SQ_TRY(check_child(t, i, t->lists[list + 1 + k], k % 2 ? odd : even, height, err));
    return SQUISH_OK;
}

static squish_status check_names(const sq_tmpl *t, uint32_t i, uint32_t list, uint64_t *words,
                                 squish_error *err) {
    if (list >= t->n_lists || t->lists[list] > t->n_lists - list - 1)
        return corrupt(err, "a list out of range under node", i);
    *words += t->lists[list] + 1u;
    if (*words > t->n_lists) return corrupt(err, "lists shared between nodes, seen at node", i);
    for (uint32_t k = 0; k < t->lists[list]; k++)
        if (t->lists[list + 1 + k] >= t->n_strings)
            return corrupt(err, "a string out of range under node", i);
    return SQUISH_OK;
}

static squish_status check_operand(const sq_tmpl *t, uint32_t i, char letter, uint32_t arg, uint32_t *height,
                                   uint64_t *words, squish_error *err) {
    bool absent = arg == SQ_TMPL_NONE;
    switch (letter) {
        case 'i': return SQUISH_OK;
        case 'U': return absent ? SQUISH_OK : check_names(t, i, arg, words, err);
        case 's': return arg < t->n_strings ? SQUISH_OK : corrupt(err, "a string out of range under node", i);
        case 'E': return absent ? SQUISH_OK : check_child(t, i, arg, SQ_TC_EXPR, height, err);
        case 'B': return absent ? SQUISH_OK : check_child(t, i, arg, SQ_TC_BODY, height, err);
        case 'A': return absent ? SQUISH_OK : check_child(t, i, arg, SQ_TC_ARGS, height, err);
        case 'e': return check_child(t, i, arg, SQ_TC_EXPR, height, err);
        case 'b': return check_child(t, i, arg, SQ_TC_BODY, height, err);
        case 'a': return check_child(t, i, arg, SQ_TC_ARGS, height, err);
        case 't': return check_child(t, i, arg, SQ_TC_TARGET, height, err);
        case 'm': return check_child(t, i, arg, SQ_TC_MACRO, height, err);
        default: return check_list(t, i, letter, arg, height, words, err);
    }
}

squish_status sq_tmpl_check_node(const sq_tmpl *t, uint32_t i, uint32_t *height, uint64_t *list_words,
                                 squish_error *err) {
    const sq_tmpl_node *n = &t->nodes[i];
    *height = 1;
    if (n->kind >= SQ_TK_COUNT) return corrupt(err, "an unknown kind of node", n->kind);
    if (n->op > kinds[n->kind].op_max) return corrupt(err, "an unknown operator in node", i);
    const char *letters = kinds[n->kind].operands;
    for (size_t k = 0; letters[k]; k++)
        SQ_TRY(check_operand(t, i, letters[k], n->arg[k], height, list_words, err));
    return SQUISH_OK;
}

/* Strings lie behind the source, end in NUL, are well-formed and together no larger than the pool. */
static squish_status check_strings(const sq_tmpl *t, uint32_t source_bytes, squish_error *err) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < t->n_strings; i++) {
        const sq_tmpl_string *s = &t->strings[i];
        if (s->offset <= source_bytes || s->offset >= t->pool_bytes ||
            s->bytes >= t->pool_bytes - s->offset || t->pool[s->offset + s->bytes] != 0)
            return corrupt(err, "a string out of range:", i);
        total += s->bytes;
        if (total > t->pool_bytes) return corrupt(err, "strings that overlap, seen at", i);
        if (!sq_utf8_valid(t->pool + s->offset, s->bytes))
            return corrupt(err, "ill-formed UTF-8 in string", i);
    }
    for (uint32_t i = 0; i < SQ_TMPL_S_COUNT; i++)
        if (i >= t->n_strings || strcmp(t->pool + t->strings[i].offset, sq_tmpl_fixed_strings[i]) != 0)
            return corrupt(err, "a fixed name is missing:", i);
    return SQUISH_OK;
}

static squish_status check_nodes(const sq_tmpl *t, squish_error *err) {
    uint64_t words = 0;
    for (uint32_t i = 0; i < t->n_nodes; i++) {
        uint32_t height;
        SQ_TRY(sq_tmpl_check_node(t, i, &height, &words, err));
        if (t->nodes[i].height != height || height > SQ_TMPL_DEPTH)
            return corrupt(err, "a wrong height at node", i);
    }
    if (t->n_nodes == 0 || t->nodes[t->n_nodes - 1].kind != SQ_TK_BODY)
        return corrupt(err, "no root behind the nodes:", t->n_nodes);
    return SQUISH_OK;
}

squish_status sq_tmpl_open(sq_tmpl_view *view, sq_span blob, const sq_tmpl **out, squish_error *err) {
    sq_tmpl_header h;
    if (blob.n < sizeof h || (uintptr_t)blob.p % 4)
        return sq_fail(err, SQUISH_CORRUPT, "compiled template: %zu bytes, too short or not aligned", blob.n);
    memcpy(&h, blob.p, sizeof h);
    if (h.magic != SQ_TMPL_MAGIC) return corrupt(err, "wrong magic", h.magic);
    if (h.version != SQ_TMPL_VERSION) return corrupt(err, "unknown version", h.version);
    uint64_t total = sizeof h + (uint64_t)h.n_nodes * sizeof(sq_tmpl_node) + (uint64_t)h.n_lists * 4 +
                     (uint64_t)h.n_strings * sizeof(sq_tmpl_string) + h.pool_bytes;
    if (total != blob.n || h.bytes != blob.n)
        return sq_fail(err, SQUISH_CORRUPT, "compiled template: tables of %llu bytes in a blob of %zu",
                       (unsigned long long)total, blob.n);
    struct sq_tmpl *t = (struct sq_tmpl *)(void *)view->bytes;
    t->nodes = (const sq_tmpl_node *)(const void *)(blob.p + sizeof h);
    t->lists = (const uint32_t *)(const void *)(t->nodes + h.n_nodes);
    t->strings = (const sq_tmpl_string *)(const void *)(t->lists + h.n_lists);
    t->pool = (const char *)(t->strings + h.n_strings);
    t->n_nodes = h.n_nodes;
    t->n_lists = h.n_lists;
    t->n_strings = h.n_strings;
    t->pool_bytes = h.pool_bytes;
    if (h.source_bytes >= h.pool_bytes || t->pool[h.source_bytes] != 0)
        return corrupt(err, "the source is out of range, bytes", h.source_bytes);
    SQ_TRY(check_strings(t, h.source_bytes, err));
    SQ_TRY(check_nodes(t, err));
    *out = t;
    return SQUISH_OK;
}

const char *sq_tmpl_source(const sq_tmpl *t) { return t->pool; }
