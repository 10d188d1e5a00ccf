/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_scope.c - which names of a block are its own from the start.
 *
 * Jinja decides the scope of names before a template runs. A block (the template, a loop's body, a macro,
 * ...) that sets a name outright before it reads it anywhere, while no block around it knows the name, owns
 * that name from its beginning: what is nested inside and runs before the `set` sees it undefined, even if
 * the caller gave a variable of that name. After parsing this pass lists such names with the block's body,
 * and running the body declares them.
 *
 * A block is walked twice: once at its own level, to see what it touches first and how, then once more to
 * enter the blocks inside it, when all names of this one are known. A `set` inside an `if` may not happen, so
 * it owns nothing. */
#include "text/tmpl_int.h"

typedef struct {
    sq_tmpl_build *b;
    uint32_t *known;   /* by string number: in how many of the blocks around us the name is known */
    uint32_t *touched; /* by string number: the last block that touched it */
    uint32_t serial, n_blocks;
    int in_if;
    sq_buf names; /* u32 pairs {name, is set outright}, of the blocks from the outermost to this one */
} scoping;

static const sq_tmpl_node *node_at(const scoping *s, uint32_t i) {
    return (const sq_tmpl_node *)(const void *)s->b->nodes.data + i;
}

static const uint32_t *list_at(const scoping *s, uint32_t list, uint32_t *n) {
    const uint32_t *p = (const uint32_t *)(const void *)s->b->lists.data + list;
    *n = *p;
    return p + 1;
}

static squish_status touch(scoping *s, uint32_t name, bool sets) {
    if (s->touched[name] == s->serial) return SQUISH_OK;
    s->touched[name] = s->serial;
    const uint32_t pair[2] = {name, sets && s->in_if == 0};
    if (sq_buf_append(&s->names, pair, sizeof pair)) return SQUISH_OK;
    return sq_fail(s->b->err, SQUISH_NO_MEMORY, "out of memory compiling a template");
}

/* ---- first walk: this level ------------------------------------------------------------------ */

static squish_status look(scoping *s, uint32_t i);

static squish_status look_list(scoping *s, uint32_t list, uint32_t from, uint32_t stride) {
    uint32_t n;
    list_at(s, list, &n);
    for (uint32_t k = from; k < n; k += stride) SQ_TRY(look(s, list_at(s, list, &n)[k]));
    return SQUISH_OK;
}

static squish_status look_if(scoping *s, const sq_tmpl_node *n) {
    uint32_t count;
    const uint32_t *branches = list_at(s, n->arg[0], &count);
    for (uint32_t k = 0; k < count; k += 2) {
        SQ_TRY(look(s, branches[k]));
        s->in_if++;
        SQ_TRY(look(s, branches[k + 1]));
        s->in_if--;
    }
    s->in_if++;
    if (n->arg[1] != SQ_TMPL_NONE) SQ_TRY(look(s, n->arg[1]));
    s->in_if--;
    return SQUISH_OK;
}

/* Every operand that is a node or a list of nodes. */
static squish_status look_all(scoping *s, const sq_tmpl_node *n) {
    const char *letters = sq_tmpl_operands(n->kind);
    for (int k = 0; letters[k]; k++) {
        if (n->arg[k] == SQ_TMPL_NONE || letters[k] == 's' || letters[k] == 'i' || letters[k] == 'U')
            continue;
        bool is_list = strchr("SXPITWMOQK", letters[k]) != NULL;
        SQ_TRY(is_list ? look_list(s, n->arg[k], 0, 1) : look(s, n->arg[k]));
    }
    return SQUISH_OK;
}

static squish_status look(scoping *s, uint32_t i) {
    const sq_tmpl_node *n = node_at(s, i);
    switch (n->kind) {
        case SQ_TK_NAME:
        case SQ_TK_T_ATTR: return touch(s, n->arg[0], false);
        case SQ_TK_T_NAME: return touch(s, n->arg[0], true);
        case SQ_TK_IF: return look_if(s, n);
        case SQ_TK_FOR: return look(s, n->arg[1]);
        case SQ_TK_SET:
            SQ_TRY(look(s, n->arg[1]));
            return look(s, n->arg[0]);
        case SQ_TK_SET_BLOCK:
        case SQ_TK_FILTER_BLOCK:
        case SQ_TK_CALL_BLOCK: return look(s, n->arg[0]);
        case SQ_TK_MACRO_DEF: return touch(s, node_at(s, n->arg[0])->arg[0], true);
        case SQ_TK_WITH: return look_list(s, n->arg[0], 1, 2);
        default: return look_all(s, n);
    }
}

/* ---- second walk: blocks inside -------------------------------------------------------------- */

static squish_status enter_blocks(scoping *s, uint32_t body);

static uint32_t *pairs_from(const scoping *s, size_t from) {
    return (uint32_t *)(void *)(s->names.data + from);
}

/* The names touched since `from`: list with the body those it owns. */
static squish_status list_owned(scoping *s, size_t from, uint32_t body) {
    size_t mark = sq_tmpl_mark(s->b), n = (s->names.len - from) / (2 * sizeof(uint32_t));
    for (size_t k = 0; k < n; k++) {
        const uint32_t *pair = pairs_from(s, from) + 2 * k;
        if (pair[1] && s->known[pair[0]] == 0) SQ_TRY(sq_tmpl_push(s->b, pair[0]));
    }
    if (sq_tmpl_mark(s->b) == mark) return SQUISH_OK;
    uint32_t list;
    SQ_TRY(sq_tmpl_list(s->b, mark, &list));
    ((sq_tmpl_node *)(void *)s->b->nodes.data)[body].arg[1] = list;
    return SQUISH_OK;
}

static void count_known(scoping *s, size_t from, bool enter) {
    size_t n = (s->names.len - from) / (2 * sizeof(uint32_t));
    for (size_t k = 0; k < n; k++) {
        uint32_t *known = &s->known[pairs_from(s, from)[2 * k]];
        *known = enter ? *known + 1 : *known - 1;
    }
}

/* A block whose parameters have been touched since `from`. */
static squish_status finish_block(scoping *s, size_t from, uint32_t body) {
    int in_if = s->in_if;
    s->in_if = 0;
    SQ_TRY(look(s, body));
    SQ_TRY(list_owned(s, from, body));
    count_known(s, from, true);
    SQ_TRY(enter_blocks(s, body));
    count_known(s, from, false);
    s->names.len = from;
    s->in_if = in_if;
    return SQUISH_OK;
}

static size_t begin_block(scoping *s) {
    s->serial = ++s->n_blocks;
    return s->names.len;
}

/* Names a target binds are the block's parameters: known, but not undefined at its start. */
static squish_status touch_params(scoping *s, uint32_t target) {
    s->in_if++;
    SQ_TRY(look(s, target));
    s->in_if--;
    return SQUISH_OK;
}

static squish_status enter_for(scoping *s, const sq_tmpl_node *n) {
    const uint32_t target = n->arg[0], body = n->arg[3], otherwise = n->arg[4];
    size_t from = begin_block(s);
    SQ_TRY(touch(s, SQ_TMPL_S_LOOP, false));
    SQ_TRY(touch_params(s, target));
    SQ_TRY(finish_block(s, from, body));
    if (otherwise == SQ_TMPL_NONE) return SQUISH_OK;
    from = begin_block(s);
    return finish_block(s, from, otherwise);
}

static squish_status enter_macro(scoping *s, uint32_t macro) {
    const sq_tmpl_node *n = node_at(s, macro);
    uint32_t count;
    const uint32_t *params = list_at(s, n->arg[1], &count), body = n->arg[2];
    size_t from = begin_block(s);
    for (uint32_t k = 0; k < count; k++) SQ_TRY(touch(s, node_at(s, params[k])->arg[0], false));
    if (n->op & SQ_TMPL_USES_CALLER) SQ_TRY(touch(s, SQ_TMPL_S_CALLER, false));
    if (n->op & SQ_TMPL_USES_VARARGS) SQ_TRY(touch(s, SQ_TMPL_S_VARARGS, false));
    if (n->op & SQ_TMPL_USES_KWARGS) SQ_TRY(touch(s, SQ_TMPL_S_KWARGS, false));
    for (uint32_t k = 0; k < count; k++) SQ_TRY(look(s, params[k]));
    return finish_block(s, from, body);
}

static squish_status enter_with(scoping *s, const sq_tmpl_node *n) {
    const uint32_t list = n->arg[0], body = n->arg[1];
    uint32_t count;
    size_t from = begin_block(s);
    list_at(s, list, &count);
    for (uint32_t k = 0; k < count; k += 2) SQ_TRY(touch_params(s, list_at(s, list, &count)[k]));
    return finish_block(s, from, body);
}

static squish_status enter_statement(scoping *s, uint32_t i) {
    const sq_tmpl_node n = *node_at(s, i);
    uint32_t count;
    switch (n.kind) {
        case SQ_TK_FOR: return enter_for(s, &n);
        case SQ_TK_MACRO_DEF: return enter_macro(s, n.arg[0]);
        case SQ_TK_CALL_BLOCK: return enter_macro(s, n.arg[1]);
        case SQ_TK_WITH: return enter_with(s, &n);
        case SQ_TK_SET_BLOCK: return finish_block(s, begin_block(s), n.arg[2]);
        case SQ_TK_FILTER_BLOCK: return finish_block(s, begin_block(s), n.arg[1]);
        case SQ_TK_IF:
            list_at(s, n.arg[0], &count);
            for (uint32_t k = 1; k < count; k += 2) SQ_TRY(enter_blocks(s, list_at(s, n.arg[0], &count)[k]));
            return n.arg[1] == SQ_TMPL_NONE ? SQUISH_OK : enter_blocks(s, n.arg[1]);
        default: return SQUISH_OK;
    }
}

static squish_status enter_blocks(scoping *s, uint32_t body) {
    uint32_t list = node_at(s, body)->arg[0], n;
    list_at(s, list, &n);
    for (uint32_t k = 0; k < n; k++) SQ_TRY(enter_statement(s, list_at(s, list, &n)[k]));
    return SQUISH_OK;
}

squish_status sq_tmpl_scope(sq_tmpl_build *b) {
    size_t n_names = b->strings.len / sizeof(sq_tmpl_string), bytes = n_names * sizeof(uint32_t);
    uint32_t root = (uint32_t)(b->nodes.len / sizeof(sq_tmpl_node)) - 1;
    scoping s = {
        .b = b, .known = sq_alloc_zero(&b->alloc, bytes), .touched = sq_alloc_zero(&b->alloc, bytes)};
    sq_buf_init(&s.names, &b->alloc, b->nodes.max);
    squish_status st = SQUISH_OK;
    if (!s.known || !s.touched) st = sq_fail(b->err, SQUISH_NO_MEMORY, "out of memory compiling a template");
    if (st == SQUISH_OK) st = finish_block(&s, begin_block(&s), root);
    sq_buf_deinit(&s.names);
    sq_alloc_free(&b->alloc, s.known, bytes);
    sq_alloc_free(&b->alloc, s.touched, bytes);
    return st;
}
