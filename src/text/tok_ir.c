/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_ir.c - the tokenizer between its source and its blob, and the alphabets both sources share. */
#include "text/tok_int.h"

#include "format/limits.h"

#include <stdio.h>

void tok_ir_init(tok_ir *ir, const squish_alloc *a, squish_warn_fn warn, void *warn_user, squish_error *err) {
    *ir = (tok_ir){.alloc = a, .err = err, .warn = warn, .warn_user = warn_user, .bos = -1, .unk = -1};
    memset(ir->fallback, 0xFF, sizeof ir->fallback);
    sq_arena_init(&ir->ar, a, (size_t)1 << 18, 0);
    sq_buf_init(&ir->pool, a, (size_t)1 << 30);
    sq_buf_init(&ir->ranges, a, (size_t)1 << 20);
}

void tok_ir_deinit(tok_ir *ir) {
    sq_buf_deinit(&ir->ranges);
    sq_buf_deinit(&ir->pool);
    sq_arena_deinit(&ir->ar);
}

tok_op *tok_ir_op(tok_ir *ir, bool pre, tok_op_kind kind) {
    uint32_t n = ir->n_norm + ir->n_pre;
    if (n == TOK_OPS_MAX) {
        sq_fail(ir->err, SQUISH_UNSUPPORTED, "tokenizer: more than %d normalizer and pre_tokenizer steps",
                TOK_OPS_MAX);
        return NULL;
    }
    if (pre)
        ir->n_pre++;
    else
        ir->n_norm++;
    ir->ops[n] = (tok_op){.kind = (uint8_t)kind};
    return &ir->ops[n];
}

squish_status tok_ir_pool(tok_ir *ir, sq_span s, uint32_t *offset, uint32_t *bytes) {
    *offset = (uint32_t)ir->pool.len;
    *bytes = (uint32_t)s.n;
    if (s.n > UINT32_MAX || !sq_buf_append(&ir->pool, s.p, s.n))
        return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory for %zu bytes of tokenizer strings", s.n);
    return SQUISH_OK;
}

squish_status tok_ir_regex(tok_ir *ir, const char *source, size_t n, tok_behavior behavior, bool invert) {
    tok_op *op = tok_ir_op(ir, true, TOK_OP_PCRE);
    if (!op) return SQUISH_UNSUPPORTED;
    op->behavior = (uint8_t)behavior;
    op->invert = invert;
    bool known = tok_regex_op(source, n, op, &ir->ranges);
    if (ir->ranges.failed) return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory for a pre_tokenizer class");
    if (known) {
        /* These match everywhere, so keeping only the matches is the same as isolating them. */
        if (op->kind == TOK_OP_KNOWN && behavior == TOK_REMOVED && invert) {
            op->behavior = TOK_ISOLATED;
            op->invert = 0;
        }
        return SQUISH_OK;
    }
    void *code;
    SQ_TRY(tok_regex_compile((const uint8_t *)source, n, ir->alloc, &code, ir->err));
    tok_regex_free(code);
    if (ir->warn) {
        char line[200];
        tok_shown shown;
        snprintf(line, sizeof line,
                 "tokenizer: unknown pre_tokenizer regex '%s': runs on PCRE2, which is slower",
                 tok_show(&shown, source, n));
        ir->warn(ir->warn_user, line);
    }
    return tok_ir_pool(ir, (sq_span){(const uint8_t *)source, n}, &op->text, &op->text_bytes);
}

/* ---- end of turn ----------------------------------------------------------------------------- */

squish_status tok_ir_add_eos(tok_ir *ir, int64_t id, const char *what) {
    if (id < 0 || id >= ir->n_tokens || !(ir->items[id].attr & TOK_PRESENT))
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: %lld is no token; the vocabulary has %d", what,
                       (long long)id, (int)ir->n_tokens);
    for (uint32_t i = 0; i < ir->n_eos; i++)
        if (ir->eos[i] == id) return SQUISH_OK;
    if (ir->n_eos == TOK_EOS_MAX)
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: more than %d end tokens", what, TOK_EOS_MAX);
    ir->eos[ir->n_eos++] = (int32_t)id;
    return SQUISH_OK;
}

squish_status tok_ir_known_eos(tok_ir *ir) {
    static const char *const names[] = {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eot|>",
        "<|return|>",
        "<eos>",
        "</s>",
        ("<\xEF\xBD\x9C"
         "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"),
    };
    for (int32_t id = 0; id < ir->n_tokens; id++) {
        const tok_item *it = &ir->items[id];
        if (!(it->attr & TOK_CONTROL)) continue;
        for (size_t k = 0; k < SQ_COUNT(names); k++)
            if (it->bytes.n == strlen(names[k]) && memcmp(it->bytes.p, names[k], it->bytes.n) == 0)
                SQ_TRY(tok_ir_add_eos(ir, id, "tokenizer"));
    }
    return SQUISH_OK;
}

/* ---- alphabets ------------------------------------------------------------------------------- */

/* The byte a character of the byte-level alphabet stands for, -1: none. Printable Latin-1 stands for
 * itself; the other 68 bytes, in increasing order, are U+0100, U+0101, ... */
static int byte_of_char(uint32_t cp) {
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255)) return (int)cp;
    if (cp < 0x100 || cp >= 0x100 + 68) return -1;
    uint32_t k = cp - 0x100;
    if (k <= 32) return (int)k;             /* 0..32 */
    if (k <= 66) return (int)(127 + k - 33); /* 127..160 */
    return 173;
}

bool tok_byte_chars(sq_span s, uint8_t *out, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        bool ok;
        i += sq_utf8_decode((const char *)s.p + i, s.n - i, &cp, &ok);
        int byte = ok ? byte_of_char(cp) : -1;
        if (byte < 0) return false;
        out[(*n)++] = (uint8_t)byte;
    }
    return true;
}

static int hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int tok_byte_token(sq_span s) {
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int high = hex(s.p[3]), low = hex(s.p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

const uint8_t *tok_unmark(sq_arena *ar, sq_span s, size_t *n) {
    uint8_t *out = sq_arena_alloc(ar, s.n, 1);
    if (!out) return NULL;
    *n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.n - i >= 3 && memcmp(s.p + i, TOK_MARK, 3) == 0) {
            out[(*n)++] = ' ';
            i += 3;
        } else {
            out[(*n)++] = s.p[i++];
        }
    }
    return out;
}

const char *tok_show(tok_shown *buf, const void *p, size_t n) {
    const uint8_t *s = p;
    size_t out = 0, room = sizeof buf->text - 4; /* an escape or the dots fit behind */
    for (size_t i = 0; i < n; i++) {
        if (out + 4 > room) {
            memcpy(buf->text + out, "...", 4);
            return buf->text;
        }
        if (s[i] >= 0x20 && s[i] < 0x7F)
            buf->text[out++] = (char)s[i];
        else
            out += (size_t)snprintf(buf->text + out, 5, "\\x%02X", s[i]);
    }
    buf->text[out] = '\0';
    return buf->text;
}
