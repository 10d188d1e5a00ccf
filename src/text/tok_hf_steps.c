/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_hf_steps.c - the steps around the model in a tokenizer.json: normalizer, pre_tokenizer, decoder,
 * post_processor.
 *
 * Each is a tree of {"type": ...}; sequences are flattened into ops. A step we do not run is refused by
 * name: leaving it out would give other ids than the model was trained on. */
#include "text/tok_int.h"

#include "format/json.h"

enum { NESTING_MAX = 8 };

/* The type of step j, "" (and OK) when j is absent. */
static squish_status type_of(tok_ir *ir, const json_t *j, const char *what, int depth, const char **type) {
    *type = "";
    if (!j || json_is_null(j)) return SQUISH_OK;
    if (depth > NESTING_MAX)
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: sequences nested deeper than %d", what, NESTING_MAX);
    return sq_json_str(j, "type", true, type, what, ir->err);
}

static squish_status unknown(tok_ir *ir, const char *what, const char *type) {
    tok_shown shown;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: type '%s' is not supported", what,
                   tok_show(&shown, type, strlen(type)));
}

typedef squish_status (*step_fn)(tok_ir *ir, const json_t *j, int depth);

static squish_status sequence(tok_ir *ir, const json_t *j, const char *key, const char *what, step_fn fn,
                              int depth) {
    const json_t *list = json_object_get(j, key);
    if (!json_is_array(list)) return sq_fail(ir->err, SQUISH_CORRUPT, "%s: '%s' is not an array", what, key);
    for (size_t i = 0; i < json_array_size(list); i++) SQ_TRY(fn(ir, json_array_get(list, i), depth + 1));
    return SQUISH_OK;
}

/* {"String": s} or {"Regex": s}. */
static squish_status pattern_of(tok_ir *ir, const json_t *j, const char *what, const json_t **s,
                                bool *regex) {
    const json_t *p = json_object_get(j, "pattern");
    *s = json_object_get(p, "String");
    *regex = !*s;
    if (!*s) *s = json_object_get(p, "Regex");
    if (json_is_string(*s) && json_string_length(*s) > 0) return SQUISH_OK;
    return sq_fail(ir->err, SQUISH_CORRUPT, "%s: 'pattern' is not {\"String\": ...} or {\"Regex\": ...}",
                   what);
}

static bool is_mark(const char *s) { return strcmp(s, TOK_MARK) == 0; }

/* ---- normalizer ------------------------------------------------------------------------------ */

static const char NORM[] = "tokenizer.json: normalizer";

/* A string for an op; once U+2581 is a space, so it is in the strings of later steps. */
static squish_status pool_text(tok_ir *ir, const char *s, uint32_t *offset, uint32_t *bytes) {
    sq_span span = {(const uint8_t *)s, strlen(s)};
    if (ir->flags & TOK_SPACE_MARK) {
        size_t n;
        span.p = tok_unmark(&ir->ar, span, &n);
        if (!span.p) return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory to compile a tokenizer");
        span.n = n;
    }
    return tok_ir_pool(ir, span, offset, bytes);
}

static squish_status replace(tok_ir *ir, const json_t *j) {
    const json_t *from;
    bool regex;
    const char *to = NULL;
    SQ_TRY(pattern_of(ir, j, NORM, &from, &regex));
    SQ_TRY(sq_json_str(j, "content", true, &to, NORM, ir->err));
    if (regex) return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Replace with a regex is not supported", NORM);
    bool marks = strcmp(json_string_value(from), " ") == 0 && is_mark(to);
    if (marks) {
        /* From here on text has U+2581 for each space; in text space that is the other way round. */
        ir->flags |= TOK_SPACE_MARK;
        return tok_ir_op(ir, false, TOK_OP_MARK) ? SQUISH_OK : SQUISH_UNSUPPORTED;
    }
    tok_op *op = tok_ir_op(ir, false, TOK_OP_REPLACE);
    if (!op) return SQUISH_UNSUPPORTED;
    SQ_TRY(pool_text(ir, json_string_value(from), &op->text, &op->text_bytes));
    return pool_text(ir, to, &op->with, &op->with_bytes);
}

static squish_status prepend(tok_ir *ir, const json_t *j) {
    const char *text = NULL;
    SQ_TRY(sq_json_str(j, "prepend", true, &text, NORM, ir->err));
    if (!*text) return SQUISH_OK;
    tok_op *op = tok_ir_op(ir, false, TOK_OP_PREPEND);
    return op ? pool_text(ir, text, &op->text, &op->text_bytes) : SQUISH_UNSUPPORTED;
}

squish_status tok_hf_normalizer(tok_ir *ir, const json_t *j, int depth) {
    static const char *const forms[TOK_FORM_COUNT] = {"NFC", "NFD", "NFKC", "NFKD"};
    const char *type;
    SQ_TRY(type_of(ir, j, NORM, depth, &type));
    if (!*type) return SQUISH_OK;
    if (strcmp(type, "Sequence") == 0) return sequence(ir, j, "normalizers", NORM, tok_hf_normalizer, depth);
    if (strcmp(type, "Replace") == 0) return replace(ir, j);
    if (strcmp(type, "Prepend") == 0) return prepend(ir, j);
    for (int i = 0; i < TOK_FORM_COUNT; i++) {
        if (strcmp(type, forms[i]) != 0) continue;
        tok_op *op = tok_ir_op(ir, false, TOK_OP_FORM);
        if (!op) return SQUISH_UNSUPPORTED;
        op->variant = (uint8_t)i;
        return SQUISH_OK;
    }
    return unknown(ir, NORM, type);
}

/* ---- pre_tokenizer --------------------------------------------------------------------------- */

static const char PRE[] = "tokenizer.json: pre_tokenizer";

bool tok_hf_is_byte_level(const json_t *j) {
    const char *type = json_string_value(json_object_get(j, "type"));
    if (type && strcmp(type, "ByteLevel") == 0) return true;
    const json_t *list = json_object_get(j, "pretokenizers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        type = json_string_value(json_object_get(json_array_get(list, i), "type"));
        if (type && strcmp(type, "ByteLevel") == 0) return true;
    }
    return false;
}

static squish_status behavior_of(tok_ir *ir, const json_t *j, tok_behavior *behavior, bool *invert) {
    static const char *const names[TOK_BEHAVIOR_COUNT] = {"Isolated", "Removed", "MergedWithPrevious",
                                                          "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    SQ_TRY(sq_json_str(j, "behavior", true, &name, PRE, ir->err));
    *invert = false;
    SQ_TRY(sq_json_bool(j, "invert", false, invert, PRE, ir->err));
    for (int i = 0; i < TOK_BEHAVIOR_COUNT; i++) {
        *behavior = (tok_behavior)i;
        if (strcmp(name, names[i]) == 0) return SQUISH_OK;
    }
    tok_shown shown;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Split behavior '%s' is not supported", PRE,
                   tok_show(&shown, name, strlen(name)));
}

static squish_status split(tok_ir *ir, const json_t *j) {
    const json_t *pattern;
    bool regex, invert;
    tok_behavior behavior;
    SQ_TRY(pattern_of(ir, j, PRE, &pattern, &regex));
    SQ_TRY(behavior_of(ir, j, &behavior, &invert));
    if (regex && (ir->flags & TOK_SPACE_MARK))
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Split by a regex after spaces were made U+2581",
                       PRE);
    if (regex)
        return tok_ir_regex(ir, json_string_value(pattern), json_string_length(pattern), behavior, invert);
    tok_op *op = tok_ir_op(ir, true, TOK_OP_LITERAL);
    if (!op) return SQUISH_UNSUPPORTED;
    op->behavior = (uint8_t)behavior;
    op->invert = invert;
    /* Where the normaliser made each space a mark, no text has a space left to split at, but ours does. */
    if ((ir->flags & TOK_SPACE_MARK) && strchr(json_string_value(pattern), ' ')) {
        ir->n_pre--;
        return SQUISH_OK;
    }
    return pool_text(ir, json_string_value(pattern), &op->text, &op->text_bytes);
}

static squish_status digits(tok_ir *ir, const json_t *j) {
    bool individual = false;
    SQ_TRY(sq_json_bool(j, "individual_digits", false, &individual, PRE, ir->err));
    const char *source = individual ? "\\p{N}" : "\\p{N}+";
    return tok_ir_regex(ir, source, strlen(source), TOK_ISOLATED, false);
}

static squish_status byte_level(tok_ir *ir, const json_t *j) {
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
                               "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    bool prefix = true, use_regex = true;
    SQ_TRY(sq_json_bool(j, "add_prefix_space", false, &prefix, PRE, ir->err));
    SQ_TRY(sq_json_bool(j, "use_regex", false, &use_regex, PRE, ir->err));
    if (prefix && !tok_ir_op(ir, true, TOK_OP_PREFIX)) return SQUISH_UNSUPPORTED;
    return use_regex ? tok_ir_regex(ir, gpt2, sizeof gpt2 - 1, TOK_ISOLATED, false) : SQUISH_OK;
}

/* prepend_scheme, or add_prefix_space in files from before it. */
static squish_status scheme_of(tok_ir *ir, const json_t *j, const char *what, tok_scheme *scheme) {
    const char *name = NULL;
    bool prefix = true;
    SQ_TRY(sq_json_str(j, "prepend_scheme", false, &name, what, ir->err));
    SQ_TRY(sq_json_bool(j, "add_prefix_space", false, &prefix, what, ir->err));
    *scheme = prefix ? TOK_SCHEME_ALWAYS : TOK_SCHEME_NEVER;
    if (!name || strcmp(name, "always") == 0) return SQUISH_OK;
    *scheme = strcmp(name, "first") == 0 ? TOK_SCHEME_FIRST : TOK_SCHEME_NEVER;
    if (*scheme == TOK_SCHEME_FIRST || strcmp(name, "never") == 0) return SQUISH_OK;
    tok_shown shown;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: prepend_scheme '%s' is not supported", what,
                   tok_show(&shown, name, strlen(name)));
}

static squish_status metaspace_mark(tok_ir *ir, const json_t *j, const char *what) {
    const char *mark = NULL;
    SQ_TRY(sq_json_str(j, "replacement", true, &mark, what, ir->err));
    if (is_mark(mark)) return SQUISH_OK;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Metaspace replacement is not U+2581", what);
}

static squish_status metaspace(tok_ir *ir, const json_t *j) {
    tok_scheme scheme;
    bool cut = true;
    SQ_TRY(metaspace_mark(ir, j, PRE));
    SQ_TRY(scheme_of(ir, j, PRE, &scheme));
    SQ_TRY(sq_json_bool(j, "split", false, &cut, PRE, ir->err));
    tok_op *op = tok_ir_op(ir, true, TOK_OP_METASPACE);
    if (!op) return SQUISH_UNSUPPORTED;
    op->variant = (uint8_t)scheme;
    op->max = cut;
    ir->flags |= TOK_SPACE_MARK;
    return SQUISH_OK;
}

squish_status tok_hf_pre_tokenizer(tok_ir *ir, const json_t *j, int depth) {
    const char *type;
    SQ_TRY(type_of(ir, j, PRE, depth, &type));
    if (!*type) return SQUISH_OK;
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(j, "pretokenizers");
        for (size_t i = 0; i + 1 < json_array_size(list); i++)
            if (tok_hf_is_byte_level(json_array_get(list, i)))
                return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: ByteLevel is not the last step", PRE);
        return sequence(ir, j, "pretokenizers", PRE, tok_hf_pre_tokenizer, depth);
    }
    if (strcmp(type, "Split") == 0) return split(ir, j);
    if (strcmp(type, "Digits") == 0) return digits(ir, j);
    if (strcmp(type, "ByteLevel") == 0) return byte_level(ir, j);
    if (strcmp(type, "Metaspace") == 0) return metaspace(ir, j);
    return unknown(ir, PRE, type);
}

/* ---- decoder --------------------------------------------------------------------------------- */

static const char DEC[] = "tokenizer.json: decoder";

/* Tokens are kept in text space, so a decoder has only one thing to tell: whether the first space goes. */
squish_status tok_hf_decoder(tok_ir *ir, const json_t *j, int depth) {
    const char *type;
    SQ_TRY(type_of(ir, j, DEC, depth, &type));
    if (!*type || strcmp(type, "ByteLevel") == 0 || strcmp(type, "ByteFallback") == 0 ||
        strcmp(type, "Fuse") == 0)
        return SQUISH_OK;
    if (strcmp(type, "Sequence") == 0) return sequence(ir, j, "decoders", DEC, tok_hf_decoder, depth);
    if (strcmp(type, "Replace") == 0) {
        const json_t *from;
        bool regex;
        const char *to = NULL;
        SQ_TRY(pattern_of(ir, j, DEC, &from, &regex));
        SQ_TRY(sq_json_str(j, "content", true, &to, DEC, ir->err));
        if (!regex && is_mark(json_string_value(from)) && strcmp(to, " ") == 0) return SQUISH_OK;
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Replace of anything but U+2581 by a space", DEC);
    }
    if (strcmp(type, "Strip") == 0) {
        const char *content = NULL;
        int64_t start = 0, stop = 0;
        SQ_TRY(sq_json_str(j, "content", true, &content, DEC, ir->err));
        SQ_TRY(sq_json_i64(j, "start", true, 0, 1, &start, DEC, ir->err));
        SQ_TRY(sq_json_i64(j, "stop", true, 0, 0, &stop, DEC, ir->err));
        if (strcmp(content, " ") != 0)
            return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: Strip of anything but a space", DEC);
        if (start) ir->flags |= TOK_STRIP_FIRST;
        return SQUISH_OK;
    }
    if (strcmp(type, "Metaspace") == 0) {
        tok_scheme scheme;
        SQ_TRY(metaspace_mark(ir, j, DEC));
        SQ_TRY(scheme_of(ir, j, DEC, &scheme));
        if (scheme != TOK_SCHEME_NEVER) ir->flags |= TOK_STRIP_FIRST;
        return SQUISH_OK;
    }
    return unknown(ir, DEC, type);
}

/* ---- post_processor -------------------------------------------------------------------------- */

static const char POST[] = "tokenizer.json: post_processor";

/* The ids of the special token `name` of a template, into the prefix or the suffix. */
static squish_status template_ids(tok_ir *ir, const json_t *j, const json_t *name, bool before) {
    const json_t *entry = json_object_get(json_object_get(j, "special_tokens"),
                                          json_is_string(name) ? json_string_value(name) : "");
    const json_t *ids = json_object_get(entry, "ids");
    if (!json_is_array(ids))
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: special_tokens has no ids for a token of 'single'",
                       POST);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        int32_t *list = before ? ir->prefix : ir->suffix;
        uint32_t *n = before ? &ir->n_prefix : &ir->n_suffix;
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= ir->n_tokens)
            return sq_fail(ir->err, SQUISH_CORRUPT, "%s: special_tokens: an id is not 0 to %d", POST,
                           (int)ir->n_tokens - 1);
        if (*n == TOK_AFFIX_MAX)
            return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: more than %d tokens around a text", POST,
                           TOK_AFFIX_MAX);
        list[(*n)++] = (int32_t)json_integer_value(id);
    }
    return SQUISH_OK;
}

static squish_status template_processing(tok_ir *ir, const json_t *j) {
    const json_t *single = json_object_get(j, "single");
    if (!json_is_array(single)) return sq_fail(ir->err, SQUISH_CORRUPT, "%s: 'single' is not an array", POST);
    bool before = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i), *special = json_object_get(piece, "SpecialToken");
        if (special)
            SQ_TRY(template_ids(ir, j, json_object_get(special, "id"), before));
        else if (json_object_get(piece, "Sequence"))
            before = false;
        else
            return sq_fail(ir->err, SQUISH_CORRUPT, "%s: single[%zu] is neither SpecialToken nor Sequence",
                           POST, i);
    }
    return SQUISH_OK;
}

squish_status tok_hf_post_processor(tok_ir *ir, const json_t *j, int depth) {
    const char *type;
    SQ_TRY(type_of(ir, j, POST, depth, &type));
    if (!*type || strcmp(type, "ByteLevel") == 0) return SQUISH_OK;
    if (strcmp(type, "Sequence") == 0)
        return sequence(ir, j, "processors", POST, tok_hf_post_processor, depth);
    if (strcmp(type, "TemplateProcessing") == 0) return template_processing(ir, j);
    return unknown(ir, POST, type);
}
