/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_eval.c - the handle, and the walk that judges one value.
 *
 * No threads run here; a handle is never written after it was made, so any number may judge with it, each
 * with a gs_eval of its own. Three things bound a judgement, whatever schema and instance say: steps (work),
 * frames (schemas inside one another, so that a schema that only refers to itself ends), and the size of the
 * sets of what was seen.
 *
 *   bits: | set of frame 0 | set of frame 1 | ...        one bit per member or element of the frame's value
 *
 * A frame's set is added to that of the frame around it when both judge the same value and the inner one is
 * satisfied: that is all there is to annotations for unevaluated*. */
#include "grammar/gram_schema_int.h"

#include <stdio.h>

enum { ARENA_BLOCK = 64 << 10, SEEN_WORDS_MAX = 1 << 24 };
static const size_t schema_arena_max = (size_t)256 << 20, instance_arena_max = (size_t)1 << 30;

/* ---- the handle ------------------------------------------------------------------------------ */

static squish_status check_options(const squish_schema_options *opt, gs_dialect *d, squish_error *err) {
    d->vocabularies = GS_CORE | GS_APPLICATOR | GS_UNEVALUATED | GS_VALIDATION | GS_FORMAT | GS_OTHER;
    d->draft = opt->draft == 2020   ? GS_D2020
               : opt->draft == 2019 ? GS_D2019
               : opt->draft == 7    ? GS_D7
               : opt->draft == 6    ? GS_D6
               : opt->draft == 4    ? GS_D4
                                    : 0;
    if (!d->draft)
        return sq_fail(err, SQUISH_INVALID, "draft is %d, wanted 4, 6, 7, 2019 or 2020", opt->draft);
    if (opt->errors_max < 0)
        return sq_fail(err, SQUISH_INVALID, "errors_max is %d, wanted 0 or more", opt->errors_max);
    if (opt->steps_max == 0 || opt->steps_max > INT64_MAX / 2)
        return sq_fail(err, SQUISH_INVALID, "steps_max is %llu, wanted 1 to 2^62",
                       (unsigned long long)opt->steps_max);
    return SQUISH_OK;
}

static squish_status load(sq_schema *s, const char *json, size_t bytes, const squish_schema_options *opt,
                          squish_error *err) {
    SQ_TRY(gs_documents_add(s, opt, err));
    gs_document *d = SQ_ARENA_NEW(&s->arena, gs_document);
    char *uri =
        d ? gs_uri_resolve(&s->arena, "", opt->uri ? opt->uri : "", opt->uri ? strlen(opt->uri) : 0) : NULL;
    if (!uri) return sq_fail(err, SQUISH_NO_MEMORY, "no memory for the schema");
    if (strchr(uri, '#')) *strchr(uri, '#') = 0;
    *d = (gs_document){.uri = uri, .json = json, .bytes = bytes, .is_main = true};
    SQ_TRY(gs_document_scan(s, d, err));
    gs_schema *root = d->root->schema;
    if (d->root->type != GS_OBJECT && d->root->type != GS_BOOLEAN)
        return gs_fail_at(s, root->resource, d->root, SQUISH_INVALID, err, "found %s, wanted a schema",
                          gs_type_name(d->root));
    root->queued = true;
    s->waiting = root;
    s->root = root;
    return gs_compile(s, err);
}

squish_status sq_schema_new(sq_schema **out, const char *json, size_t bytes, const squish_schema_options *opt,
                            squish_error *err) {
    *out = NULL;
    gs_dialect dialect;
    SQ_TRY(check_options(opt, &dialect, err));
    const squish_alloc a = opt->alloc && opt->alloc->resize ? *opt->alloc : sq_alloc_default();
    sq_schema *s = sq_alloc_zero(&a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "no memory for the schema");
    s->alloc = a;
    s->dialect = dialect;
    s->assert_format = opt->assert_format;
    s->errors_max = opt->errors_max;
    s->steps_max = (int64_t)opt->steps_max;
    sq_arena_init(&s->arena, &a, ARENA_BLOCK, schema_arena_max);
    const squish_status st = load(s, json, bytes, opt, err);
    if (st == SQUISH_OK)
        *out = s;
    else
        sq_schema_free(s);
    if (st != SQUISH_OK && err) gs_tidy(err->text);
    return st;
}

void sq_schema_free(sq_schema *s) {
    if (!s) return;
    for (size_t i = 0; i < GS_BUCKETS; i++)
        for (gs_pattern *p = s->patterns[i]; p; p = p->next) gs_regex_free(p->regex);
    sq_arena_deinit(&s->arena);
    const squish_alloc a = s->alloc;
    sq_alloc_free(&a, s, sizeof *s);
}

/* ---- what rules ask of the walk -------------------------------------------------------------- */

bool gs_spend(gs_eval *e, int64_t steps) {
    e->steps -= steps;
    if (e->steps >= 0 || e->st != SQUISH_OK) return e->st == SQUISH_OK;
    e->st = sq_fail(e->err, SQUISH_UNSUPPORTED, "no verdict after %lld steps (steps_max)",
                    (long long)e->schema->steps_max);
    return false;
}

bool gs_stop(const gs_eval *e, bool ok) { return e->st != SQUISH_OK || (!ok && e->quiet > 0); }

bool gs_match(gs_eval *e, const gs_regex *r, const char *text, size_t n) {
    bool matched = false;
    const squish_status st = gs_regex_match(r, text, n, &e->steps, &matched, e->err);
    if (st != SQUISH_OK) e->st = st;
    return gs_spend(e, 0) && matched;
}

static void hear(gs_eval *e, const gs_rule *r, const gs_schema *s, const gs_value *at, const char *text) {
    sq_buf where, keyword;
    sq_buf_init(&where, &e->schema->alloc, 1 << 20);
    sq_buf_init(&keyword, &e->schema->alloc, 1 << 20);
    gs_value_pointer(at, &where);
    gs_place(s->resource, s->source, &keyword);
    if (r) sq_buf_printf(&keyword, "/%s", r->keyword->name);
    const squish_schema_violation v = {where.data ? where.data : "", keyword.data ? keyword.data : "#", text};
    if (e->report) e->report(e->user, &v);
    sq_buf_deinit(&where);
    sq_buf_deinit(&keyword);
}

bool gs_complain(gs_eval *e, const gs_rule *r, const gs_value *at, const char *fmt, ...) {
    if (e->quiet || e->st != SQUISH_OK || e->n_errors >= e->schema->errors_max) return false;
    char text[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    gs_tidy(text);
    e->n_errors++;
    if (e->n_errors == e->schema->errors_max) e->quiet++; /* enough was said: the verdict stands */
    hear(e, r, r->owner, at, text);
    return false;
}

/* ---- what was evaluated ---------------------------------------------------------------------- */

static size_t words_of(const gs_value *v) {
    return v->type == GS_ARRAY || v->type == GS_OBJECT ? ((size_t)v->n + 63) / 64 : 0;
}

static bool push_set(gs_eval *e, gs_frame *f) {
    const size_t words = words_of(f->value), need = e->bits_used + words;
    f->seen = e->bits_used;
    if (need > e->bits_cap) {
        const size_t cap = need * 2 + 64;
        uint64_t *bits =
            need > SEEN_WORDS_MAX
                ? NULL
                : sq_alloc_resize(&e->schema->alloc, e->bits, e->bits_cap * sizeof *bits, cap * sizeof *bits);
        if (!bits) {
            e->st = sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to note what of %u members was evaluated",
                            f->value->n);
            return false;
        }
        e->bits = bits;
        e->bits_cap = cap;
    }
    if (words) memset(e->bits + e->bits_used, 0, words * sizeof *e->bits);
    e->bits_used = need;
    return gs_spend(e, (int64_t)words);
}

void gs_note_seen(gs_eval *e, const gs_frame *f, uint32_t index) {
    if (e->schema->track) e->bits[f->seen + index / 64] |= (uint64_t)1 << index % 64;
}

bool gs_was_seen(const gs_eval *e, const gs_frame *f, uint32_t index) {
    return e->bits[f->seen + index / 64] >> index % 64 & 1;
}

/* ---- the walk -------------------------------------------------------------------------------- */

static bool run_rules(gs_eval *e, gs_frame *f) {
    const gs_schema *s = f->schema;
    bool ok = true;
    for (uint32_t i = 0; i < s->n_rules; i++) {
        const gs_rule *r = &s->rules[i];
        if (!r->keyword->eval) continue;
        /* What failed has noted nothing: complaints about the rest would be noise. */
        if (!ok && r->keyword->eval == gs_rule_unevaluated) break;
        if (!gs_spend(e, 1)) return false;
        ok &= r->keyword->eval(e, r, f);
        if (gs_stop(e, ok)) return false;
    }
    return ok;
}

static bool refuse_all(gs_eval *e, const gs_schema *s, const gs_value *v) {
    if (e->quiet || e->n_errors >= e->schema->errors_max) return false;
    e->n_errors++;
    if (e->n_errors == e->schema->errors_max) e->quiet++;
    hear(e, NULL, s, v, v->is_name ? "this name is not allowed" : "no value is allowed here");
    return false;
}

static bool judge(gs_eval *e, const gs_schema *s, const gs_value *v, const gs_frame *into) {
    gs_frame f = {.schema = s, .value = v};
    const size_t mark = e->bits_used;
    if (e->schema->track && !push_set(e, &f)) return false;
    const bool ok = run_rules(e, &f);
    if (ok && e->schema->track && into)
        for (size_t i = 0; i < words_of(v); i++) e->bits[into->seen + i] |= e->bits[f.seen + i];
    e->bits_used = mark;
    return ok;
}

bool gs_judge(gs_eval *e, const gs_schema *s, const gs_value *v, const gs_frame *into) {
    if (!gs_spend(e, 1)) return false;
    if (s->source->type == GS_BOOLEAN) return s->source->yes || refuse_all(e, s, v);
    if (e->frames >= SQ_SCHEMA_FRAMES_MAX) {
        e->st = sq_fail(e->err, SQUISH_UNSUPPORTED,
                        "schemas lie %d deep inside one another: does one refer to itself without end?",
                        SQ_SCHEMA_FRAMES_MAX);
        return false;
    }
    e->frames++;
    const gs_scope scope = {e->scope, s->resource}, *outer = e->scope;
    if (!outer || outer->resource != s->resource) e->scope = &scope;
    const bool ok = judge(e, s, v, into);
    e->scope = outer;
    e->frames--;
    return ok;
}

bool gs_judge_quietly(gs_eval *e, const gs_schema *s, const gs_value *v, const gs_frame *into) {
    e->quiet++;
    const bool ok = gs_judge(e, s, v, into);
    e->quiet--;
    return ok;
}

squish_status sq_schema_validate(const sq_schema *s, const char *json, size_t bytes, squish_schema_report fn,
                                 void *user, bool *valid, squish_error *err) {
    *valid = false;
    if (bytes > SQ_SCHEMA_INSTANCE_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "instance: %zu bytes, at most %d are read", bytes,
                       SQ_SCHEMA_INSTANCE_MAX);
    sq_arena arena;
    sq_arena_init(&arena, &s->alloc, ARENA_BLOCK, instance_arena_max);
    gs_value *v = NULL;
    squish_status st = gs_value_read(&arena, json, bytes, "instance", &v, err);
    if (st == SQUISH_OK) {
        gs_eval e = {.schema = s,
                     .steps = s->steps_max,
                     .err = err,
                     .report = fn,
                     .user = user,
                     .quiet = !fn || s->errors_max == 0};
        const bool ok = gs_judge(&e, s->root, v, NULL);
        sq_alloc_free(&s->alloc, e.bits, e.bits_cap * sizeof *e.bits);
        st = e.st;
        *valid = ok && st == SQUISH_OK;
    }
    sq_arena_deinit(&arena);
    return st;
}
