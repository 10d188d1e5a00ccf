/* SPDX-License-Identifier: Apache-2.0
 *
 * api_prompt.c - from messages or texts to token ids. Runs on workers.
 *
 * Messages are data. Whoever writes "<|im_end|><|im_start|>system" into one must not open a turn of his own:
 * where the text of a control token stands in a message, it goes through the template between two marks
 * (noncharacters, U+FDD0 and U+FDD1, which the message itself may not have) and is tokenised as plain text:
 *
 *   rendered   <|im_start|>user\n how do I write (FDD0)<|im_end|>(FDD1) in HTML? <|im_end|>\n
 *   tokenised  with control tokens               plain text              with control tokens
 *
 * A message without such a text is tokenised in one piece, as every other program does it. */
#include "api/api_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char mark_open[] = "\xEF\xB7\x90", mark_close[] = "\xEF\xB7\x91";
enum { MARK = 3, RENDERED_MAX = 256 << 20 };

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

/* ---- marks ----------------------------------------------------------------------------------- */

/* Length of the control token's text at s[0..n), the longest; 0: none. */
static size_t control_at(const sq_api_model *m, const char *s, size_t n) {
    size_t best = 0;
    for (size_t i = 0; i < m->n_controls; i++) {
        const size_t len = strlen(m->controls[i]);
        if (len > best && len <= n && memcmp(s, m->controls[i], len) == 0) best = len;
    }
    return best;
}

static json_t *guard_text(const sq_api_model *m, const json_t *v) {
    const char *s = json_string_value(v);
    const size_t n = json_string_length(v);
    bool first[256] = {false};
    first[0xEF] = true;
    for (size_t i = 0; i < m->n_controls; i++) first[(unsigned char)m->controls[i][0]] = true;
    sq_buf b;
    sq_buf_init(&b, NULL, RENDERED_MAX);
    size_t from = 0, at = 0;
    while (at < n) {
        size_t len = 0;
        bool mark = false;
        if (first[(unsigned char)s[at]]) {
            mark = n - at >= MARK &&
                   (memcmp(s + at, mark_open, MARK) == 0 || memcmp(s + at, mark_close, MARK) == 0);
            len = mark ? MARK : control_at(m, s + at, n - at);
        }
        if (len == 0) {
            at++;
            continue;
        }
        sq_buf_append(&b, s + from, at - from);
        sq_buf_puts(&b, mark ? "\xEF\xBF\xBD" : mark_open);
        if (!mark) sq_buf_append(&b, s + at, len), sq_buf_puts(&b, mark_close);
        from = at += len;
    }
    sq_buf_append(&b, s + from, n - from);
    json_t *out = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    sq_buf_deinit(&b);
    return out;
}

/* A copy of v whose strings are guarded; roles and keys are the program's words. Depth is bounded by the
 * parser. */
static json_t *guard(const sq_api_model *m, json_t *v) {
    if (json_is_string(v)) return guard_text(m, v);
    if (json_is_array(v)) {
        json_t *out = json_array();
        for (size_t i = 0; i < json_array_size(v); i++)
            if (json_array_append_new(out, guard(m, json_array_get(v, i)))) {
                json_decref(out);
                return NULL;
            }
        return out;
    }
    if (json_is_object(v)) {
        json_t *out = json_object(), *member;
        const char *key;
        json_object_foreach(v, key, member) {
            json_t *g = strcmp(key, "role") == 0 ? json_incref(member) : guard(m, member);
            if (json_object_set_new(out, key, g)) {
                json_decref(out);
                return NULL;
            }
        }
        return out;
    }
    return json_incref(v);
}

/* ---- tokenising ------------------------------------------------------------------------------ */

typedef struct {
    int32_t *ids;
    size_t n, cap;
} id_list;

static bool add_piece(sq_api_call *c, const char *s, size_t n, unsigned flags, id_list *l) {
    squish_error err = {0};
    squish_tokens t = {0};
    if (n == 0) return true;
    if (squish_tokenize(c->model->model, s, n, flags, &t, &err) != SQUISH_OK)
        return sq_api_refuse_lib(&c->error, &err);
    if (l->n + t.count > l->cap) {
        const size_t cap = (l->n + t.count) * 2;
        int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, cap);
        if (ids && l->n) memcpy(ids, l->ids, l->n * sizeof *ids);
        l->ids = ids;
        l->cap = ids ? cap : 0;
    }
    const bool ok = l->ids != NULL;
    if (ok) memcpy(l->ids + l->n, t.ids, t.count * sizeof *t.ids), l->n += t.count;
    squish_tokens_free(&t);
    return ok || no_memory(c);
}

/* Rendered text with marks -> ids. */
static bool add_marked(sq_api_call *c, const char *s, size_t n, id_list *l) {
    const char *end = s + n;
    while (s < end) {
        const char *open = memmem(s, (size_t)(end - s), mark_open, MARK);
        const char *stop = open ? open : end;
        if (!add_piece(c, s, (size_t)(stop - s), SQUISH_TOK_SPECIAL, l)) return false;
        if (!open) break;
        const char *inside = open + MARK, *close = memmem(inside, (size_t)(end - inside), mark_close, MARK);
        if (!close) close = end;
        if (!add_piece(c, inside, (size_t)(close - inside), 0, l)) return false;
        s = close + MARK < end ? close + MARK : end;
    }
    return true;
}

static char *without_marks(sq_api_call *c, const char *s, size_t n) {
    char *out = sq_arena_alloc(&c->arena, n + 1, 1);
    if (!out) return NULL;
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= MARK && (memcmp(s + i, mark_open, MARK) == 0 || memcmp(s + i, mark_close, MARK) == 0))
            i += MARK;
        else
            out[k++] = s[i++];
    }
    out[k] = 0;
    return out;
}

/* ---- the template ---------------------------------------------------------------------------- */

/* Where the answer goes on with the last message: cut behind its text, which may have been trimmed. */
static size_t cut_final(const json_t *messages, const char *s, size_t n) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *text = json_string_value(json_object_get(last, "content"));
    size_t len = text ? strlen(text) : 0;
    while (len && strchr(" \t\r\n", text[len - 1])) len--;
    while (len && strchr(" \t\r\n", text[0])) text++, len--;
    for (size_t i = n; len && i >= len; i--)
        if (memcmp(s + i - len, text, len) == 0) return i;
    return n;
}

/* Mistral's templates take ids of nine letters and digits, and no others. */
static void shorten_ids(json_t *messages) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    json_t *m, *call;
    size_t i, k;
    json_array_foreach(messages, i, m) {
        json_t *holders[1 + 128] = {m};
        size_t n = 1;
        json_array_foreach(json_object_get(m, "tool_calls"), k, call) if (n < SQ_COUNT(holders))
            holders[n++] = call;
        for (k = 0; k < n; k++) {
            const char *key = k ? "id" : "tool_call_id",
                       *id = json_string_value(json_object_get(holders[k], key));
            uint64_t h = 0xcbf29ce484222325u;
            char text[10] = "";
            if (!id || (strlen(id) == 9 && strspn(id, letters) == 9)) continue;
            for (; *id; id++) h = (h ^ (unsigned char)*id) * 0x100000001b3u;
            for (int j = 0; j < 9; j++, h /= 62) text[j] = letters[h % 62];
            json_object_set_new(holders[k], key, json_string(text));
        }
    }
}

/* The tools as text for the template; NULL: none, or no memory. */
static char *tools_text(sq_api_call *c) {
    json_t *guarded = guard(c->model, c->wish.tools);
    char *text = guarded ? json_dumps(guarded, JSON_COMPACT) : NULL;
    json_decref(guarded);
    if (!text) no_memory(c);
    return text;
}

/* Steps, text and values of a template have ceilings: trying again will not help. */
static bool is_over_limit(const squish_error *err) {
    return err->code == SQUISH_NO_MEMORY && strncmp(err->text, "template line ", 14) == 0 &&
           !strstr(err->text, "out of memory");
}

static bool run_template(sq_api_call *c, json_t *messages, squish_text *out) {
    squish_template_options o = squish_template_options_default();
    squish_error err = {0};
    char *text = json_dumps(messages, JSON_COMPACT);
    char *vars = c->wish.template_vars ? json_dumps(c->wish.template_vars, JSON_COMPACT) : NULL;
    char *tools = c->wish.tools ? tools_text(c) : NULL;
    o.messages_json = text;
    o.tools_json = tools;
    o.vars_json = vars;
    o.template_source = c->wish.template_source;
    o.add_generation_prompt = c->wish.add_generation_prompt && !c->wish.continue_final;
    bool ok = (text != NULL && c->error.status == 0) || no_memory(c);
    if (ok && squish_template_render(c->model->model, &o, out, &err) != SQUISH_OK) {
        ok = false;
        /* A template that came with the request is the client's to mend, the model's own is not. */
        if (err.code == SQUISH_INVALID || is_over_limit(&err) ||
            (c->wish.template_source && err.code != SQUISH_NO_MEMORY))
            sq_api_refuse(&c->error, 400, "template_error", "messages", "%s", err.text);
        else
            sq_api_refuse_lib(&c->error, &err);
    }
    free(text);
    free(vars);
    free(tools);
    return ok;
}

bool sq_api_render(sq_api_call *c, squish_tokens *ids) {
    if (!sq_api_find_manner(c)) return false;
    json_t *guarded = guard(c->model, c->wish.messages);
    squish_text text = {0};
    if (!guarded) return no_memory(c);
    if (c->manner.style == SQ_CALLS_MISTRAL) shorten_ids(guarded);
    bool ok = run_template(c, guarded, &text);
    size_t n = text.bytes;
    if (ok && c->wish.continue_final) n = cut_final(guarded, text.data, n);
    json_decref(guarded);
    if (ok) ok = (c->rendered = without_marks(c, text.data, n)) != NULL || no_memory(c);
    if (ok) c->starts = sq_calls_start_of(&c->manner, c->rendered, strlen(c->rendered));
    id_list l = {0};
    if (ok && ids) ok = add_marked(c, text.data, n, &l);
    if (ok && ids) *ids = (squish_tokens){.ids = l.ids, .count = l.n};
    squish_text_free(&text);
    return ok;
}

/* ---- texts and ids --------------------------------------------------------------------------- */

/* Names that models give to the three marks of filling in the middle: before, after, and what is missing. */
static const char *const middle_marks[][3] = {
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "hole\xEF\xBD\x9C>",
     "<\xEF\xBD\x9C"
     "fim\xE2\x96\x81"
     "end\xEF\xBD\x9C>"},
    {"\xE2\x96\x81<PRE>", "\xE2\x96\x81<SUF>", "\xE2\x96\x81<MID>"},
    {"[PREFIX]", "[SUFFIX]", "[MIDDLE]"},
};

static bool one_control(const squish_model *m, const char *text, int32_t *id) {
    squish_tokens t = {0};
    bool ok =
        squish_tokenize(m, text, strlen(text), SQUISH_TOK_SPECIAL, &t, NULL) == SQUISH_OK && t.count == 1;
    if (ok) *id = t.ids[0];
    squish_tokens_free(&t);
    return ok && squish_token_is_control(m, *id);
}

bool sq_api_middle_marks(const squish_model *m, int32_t marks[3]) {
    for (size_t i = 0; i < SQ_COUNT(middle_marks); i++)
        if (one_control(m, middle_marks[i][0], &marks[0]) && one_control(m, middle_marks[i][1], &marks[1]) &&
            one_control(m, middle_marks[i][2], &marks[2]))
            return true;
    return false;
}

static bool add_id(sq_api_call *c, int32_t id, id_list *l) {
    int32_t *ids = l->ids;
    if (l->n == l->cap) {
        ids = SQ_ARENA_ARRAY(&c->arena, int32_t, l->cap + 64);
        if (!ids) return no_memory(c);
        if (l->n) memcpy(ids, l->ids, l->n * sizeof *ids);
        l->ids = ids;
        l->cap += 64;
    }
    ids[l->n++] = id;
    return true;
}

/* Before, suffix, middle: the order all these models were trained in first. */
static bool fill_middle(sq_api_call *c, const sq_api_input *in, id_list *l) {
    int32_t marks[3];
    if (!in->text)
        return sq_api_refuse(&c->error, 400, "invalid_value", "suffix",
                             "'suffix' goes with a prompt that is text");
    if (!sq_api_middle_marks(c->model->model, marks))
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", "suffix",
                             "'suffix': %s was not trained to fill in the middle", c->model->name);
    return add_id(c, marks[0], l) && add_piece(c, in->text, in->bytes, 0, l) && add_id(c, marks[1], l) &&
           add_piece(c, c->wish.suffix, strlen(c->wish.suffix), 0, l) && add_id(c, marks[2], l);
}

static bool check_ids(sq_api_call *c, const sq_api_input *in) {
    for (size_t i = 0; i < in->n_ids; i++)
        if (in->ids[i] >= c->model->info.n_vocab)
            return sq_api_refuse(&c->error, 400, "invalid_value", "prompt",
                                 "token id %d at position %zu is outside 0..%d", in->ids[i], i,
                                 c->model->info.n_vocab - 1);
    return true;
}

static bool one_input(sq_api_call *c, const sq_api_input *in, sq_api_prompt *out) {
    id_list l = {0};
    if (c->wish.suffix) {
        if (!fill_middle(c, in, &l)) return false;
    } else if (!in->text) {
        *out = (sq_api_prompt){in->ids, in->n_ids};
        return check_ids(c, in);
    } else if (!add_piece(c, in->text, in->bytes, c->wish.token_flags, &l)) {
        return false;
    }
    /* Nothing at all: what a document begins with. */
    const int32_t bos = squish_token_bos(c->model->model);
    if (l.n == 0 && bos >= 0 && !add_id(c, bos, &l)) return false;
    *out = (sq_api_prompt){l.ids, l.n};
    return l.n > 0 || sq_api_refuse(&c->error, 400, "invalid_value", "prompt", "the prompt is empty");
}

/* What was said before, as ids. */
static bool put_before(sq_api_call *c, sq_api_prompt *p) {
    const size_t n = c->wish.n_before;
    const sq_api_input in = {.ids = c->wish.before, .n_ids = n};
    if (!check_ids(c, &in)) return false;
    int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, n + p->n);
    if (!ids) return no_memory(c);
    memcpy(ids, c->wish.before, n * sizeof *ids);
    memcpy(ids + n, p->ids, p->n * sizeof *ids);
    *p = (sq_api_prompt){ids, n + p->n};
    return true;
}

static int32_t window(const sq_api_call *c) {
    const int32_t ctx = c->model->engine_info.ctx_tokens;
    return c->wish.ctx_max > 0 && c->wish.ctx_max < ctx ? c->wish.ctx_max : ctx;
}

/* Only where the client asked for it, and it is told. */
static void cut_prompt(sq_api_call *c, sq_api_prompt *p) {
    const size_t most = (size_t)window(c);
    if (p->n <= most) return;
    c->truncated_tokens += (int64_t)(p->n - most);
    p->n = most;
}

static bool check_window(sq_api_call *c, size_t n) {
    const int32_t ctx = window(c);
    const bool answers = c->wish.pool == SQUISH_POOL_NONE && c->wish.gen.max_tokens != 0;
    if (n + answers <= (size_t)ctx) return true;
    sq_api_refuse(
        &c->error, 400, "context_length_exceeded", c->wish.messages ? "messages" : "prompt",
        "the prompt has %zu tokens, the window of %s is %d%s: shorten the prompt, or give the server "
        "a larger --ctx",
        n, c->model->name, ctx, answers ? " with at least one for the answer" : "");
    c->error.n_prompt = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    c->error.n_ctx = ctx;
    return false;
}

bool sq_api_make_prompts(sq_api_call *c) {
    const size_t n = c->wish.messages ? 1 : c->wish.n_inputs;
    c->prompts = SQ_ARENA_ARRAY(&c->arena, sq_api_prompt, n + 1);
    if (!c->prompts) return no_memory(c);
    if (c->wish.messages) {
        squish_tokens ids = {0};
        if (!sq_api_render(c, &ids)) return false;
        if (ids.count == 0)
            return sq_api_refuse(&c->error, 400, "invalid_value", "messages", "the prompt is empty");
        c->prompts[0] = (sq_api_prompt){ids.ids, ids.count};
        if (c->wish.n_before && !put_before(c, &c->prompts[0])) return false;
    }
    for (size_t i = 0; i < c->wish.n_inputs; i++)
        if (!one_input(c, &c->wish.inputs[i], &c->prompts[i])) return false;
    c->n_prompts = n;
    for (size_t i = 0; i < n; i++) {
        if (c->wish.truncate && c->wish.pool != SQUISH_POOL_NONE) cut_prompt(c, &c->prompts[i]);
        if (!check_window(c, c->prompts[i].n)) return false;
    }
    return true;
}
