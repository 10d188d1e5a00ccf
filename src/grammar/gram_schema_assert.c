/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_assert.c - keywords that look at the value itself. A value of a type that a keyword does not
 * speak about satisfies it. */
#include "grammar/gram_schema_int.h"

#include <stdlib.h>

/* Text for a message: numbers as they were written, cut where they are long. */
#define NUMBER_FMT "%.*s"
#define NUMBER_ARG(v) (int)((v)->u.number.text_bytes < 60 ? (v)->u.number.text_bytes : 60), (v)->u.number.text

/* ---- any type -------------------------------------------------------------------------------- */

static void put_types(const gs_value *arg, sq_buf *out) {
    if (arg->type == GS_STRING) sq_buf_puts(out, arg->u.text);
    for (uint32_t i = 0; arg->type == GS_ARRAY && i < arg->n; i++)
        sq_buf_printf(out, "%s%s", i ? " or " : "", arg->u.items[i].u.text);
}

bool gs_rule_type(gs_eval *e, const gs_rule *r, gs_frame *f) {
    uint32_t mask = 1u << f->value->type;
    if (f->value->type == GS_NUMBER && gs_number_is_integer(&f->value->u.number))
        mask |= 1u << (GS_OBJECT + 1);
    if (r->count & mask) return true;
    sq_buf wanted;
    sq_buf_init(&wanted, &e->schema->alloc, 200);
    if (!e->quiet) put_types(r->arg, &wanted);
    gs_complain(e, r, f->value, "found %s, wanted %s", gs_type_name(f->value),
                wanted.data ? wanted.data : "another type");
    sq_buf_deinit(&wanted);
    return false;
}

bool gs_rule_enum(gs_eval *e, const gs_rule *r, gs_frame *f) {
    for (uint32_t i = 0; i < r->arg->n && gs_spend(e, 1); i++)
        if (gs_value_equal(f->value, &r->arg->u.items[i], &e->steps)) return true;
    return gs_spend(e, 0) &&
           gs_complain(e, r, f->value, "%s that is none of the %u values", gs_type_name(f->value), r->arg->n);
}

bool gs_rule_const(gs_eval *e, const gs_rule *r, gs_frame *f) {
    if (gs_value_equal(f->value, r->arg, &e->steps)) return true;
    return gs_spend(e, 0) &&
           gs_complain(e, r, f->value, "%s that is not the one value", gs_type_name(f->value));
}

/* ---- numbers --------------------------------------------------------------------------------- */

bool gs_rule_multiple(gs_eval *e, const gs_rule *r, gs_frame *f) {
    if (f->value->type != GS_NUMBER) return true;
    const gs_number *a = &f->value->u.number, *b = &r->arg->u.number;
    /* Long division: digits of both multiply. */
    if (!gs_spend(e, 1 + (int64_t)(a->n + 4 * b->n) * b->n / 1000)) return false;
    return gs_number_is_multiple(a, b) ||
           gs_complain(e, r, f->value, NUMBER_FMT " is no multiple of " NUMBER_FMT, NUMBER_ARG(f->value),
                       NUMBER_ARG(r->arg));
}

/* wanted: the sign of (value - bound) that is wrong; equal: whether equality is wrong too. */
static bool bounded(gs_eval *e, const gs_rule *r, gs_frame *f, int bad, bool equal_is_bad,
                    const char *words) {
    if (f->value->type != GS_NUMBER) return true;
    const int order = gs_number_compare(&f->value->u.number, &r->arg->u.number);
    if (order != bad && !(order == 0 && equal_is_bad)) return true;
    return gs_complain(e, r, f->value, NUMBER_FMT " is not %s " NUMBER_FMT, NUMBER_ARG(f->value), words,
                       NUMBER_ARG(r->arg));
}

bool gs_rule_maximum(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_rule *strict = r->owner->role[GS_ROLE_STRICT_MAX]; /* draft 4's flag */
    const bool below = strict && strict->arg->yes;
    return bounded(e, r, f, 1, below, below ? "below" : "at most");
}
bool gs_rule_minimum(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_rule *strict = r->owner->role[GS_ROLE_STRICT_MIN];
    const bool above = strict && strict->arg->yes;
    return bounded(e, r, f, -1, above, above ? "above" : "at least");
}
bool gs_rule_strict_maximum(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return bounded(e, r, f, 1, true, "below");
}
bool gs_rule_strict_minimum(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return bounded(e, r, f, -1, true, "above");
}

/* ---- strings --------------------------------------------------------------------------------- */

static bool length_of(gs_eval *e, gs_frame *f, uint32_t *n) {
    if (f->value->type != GS_STRING || !gs_spend(e, f->value->n / 64)) return false;
    *n = (uint32_t)sq_utf8_count(f->value->u.text, f->value->n);
    return true;
}

bool gs_rule_max_length(gs_eval *e, const gs_rule *r, gs_frame *f) {
    uint32_t n;
    return !length_of(e, f, &n) || n <= r->count ||
           gs_complain(e, r, f->value, "%u code points, wanted at most %u", n, r->count);
}
bool gs_rule_min_length(gs_eval *e, const gs_rule *r, gs_frame *f) {
    uint32_t n;
    return !length_of(e, f, &n) || n >= r->count ||
           gs_complain(e, r, f->value, "%u code points, wanted at least %u", n, r->count);
}
bool gs_rule_pattern(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return f->value->type != GS_STRING || gs_match(e, r->regexes[0], f->value->u.text, f->value->n) ||
           gs_complain(e, r, f->value, "a string that does not match %.160s", r->arg->u.text);
}
bool gs_rule_format(gs_eval *e, const gs_rule *r, gs_frame *f) {
    if (f->value->type != GS_STRING || !gs_spend(e, f->value->n / 16)) return true;
    return gs_format_ok(&e->schema->alloc, r->arg, f->value->u.text, f->value->n) ||
           gs_complain(e, r, f->value, "a string that is no %.60s", r->arg->u.text);
}

/* ---- arrays ---------------------------------------------------------------------------------- */

/* At most or at least r->count of what: the verdict for elements and members. */
static bool counted(gs_eval *e, const gs_rule *r, gs_frame *f, gs_type type, bool most, const char *what) {
    if (f->value->type != type || (most ? f->value->n <= r->count : f->value->n >= r->count)) return true;
    return gs_complain(e, r, f->value, "%u %s, wanted at %s %u", f->value->n, what, most ? "most" : "least",
                       r->count);
}

bool gs_rule_max_items(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return counted(e, r, f, GS_ARRAY, true, "elements");
}
bool gs_rule_min_items(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return counted(e, r, f, GS_ARRAY, false, "elements");
}
bool gs_rule_max_members(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return counted(e, r, f, GS_OBJECT, true, "members");
}
bool gs_rule_min_members(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return counted(e, r, f, GS_OBJECT, false, "members");
}

typedef struct {
    uint64_t hash;
    uint32_t index;
} hashed;

static int by_hash(const void *a, const void *b) {
    const hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Equal values have equal hashes and so stand together once sorted. */
static bool find_twins(gs_eval *e, const gs_value *v, hashed *sorted, uint32_t *a, uint32_t *b) {
    for (uint32_t i = 0; i < v->n; i++) sorted[i] = (hashed){v->u.items[i].hash, i};
    qsort(sorted, v->n, sizeof *sorted, by_hash);
    for (uint32_t i = 0; i < v->n; i++) {
        for (uint32_t k = i + 1; k < v->n && sorted[k].hash == sorted[i].hash && gs_spend(e, 1); k++) {
            *a = sorted[i].index;
            *b = sorted[k].index;
            if (gs_value_equal(&v->u.items[*a], &v->u.items[*b], &e->steps)) return true;
        }
    }
    return false;
}

bool gs_rule_unique(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_value *v = f->value;
    if (v->type != GS_ARRAY || v->n < 2 || !r->arg->yes || !gs_spend(e, v->n)) return true;
    hashed *sorted = sq_alloc_new(&e->schema->alloc, v->n * sizeof *sorted);
    if (!sorted) {
        e->st = sq_fail(e->err, SQUISH_NO_MEMORY, "no memory to compare %u elements", v->n);
        return false;
    }
    uint32_t a = 0, b = 0;
    const bool twins = find_twins(e, v, sorted, &a, &b);
    sq_alloc_free(&e->schema->alloc, sorted, v->n * sizeof *sorted);
    return gs_spend(e, 0) && (!twins || gs_complain(e, r, v, "elements %u and %u are equal", a, b));
}

/* ---- objects --------------------------------------------------------------------------------- */

bool gs_rule_required(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < r->arg->n && !gs_stop(e, ok) && gs_spend(e, 1); i++) {
        const gs_value *name = &r->arg->u.items[i];
        if (!gs_value_get(f->value, name->u.text, name->n))
            ok = gs_complain(e, r, f->value, "'%.80s' is missing", name->u.text);
    }
    return ok;
}

bool gs_rule_dependent_required(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < r->arg->n && !gs_stop(e, ok); i++) {
        const gs_member *m = &r->arg->u.object.members[i];
        if (!gs_value_get(f->value, m->name, m->bytes)) continue;
        for (uint32_t k = 0; k < m->value.n && gs_spend(e, 1); k++) {
            const gs_value *name = &m->value.u.items[k];
            if (!gs_value_get(f->value, name->u.text, name->n))
                ok = gs_complain(e, r, f->value, "'%.80s' is missing beside '%.80s'", name->u.text, m->name);
        }
    }
    return ok;
}
