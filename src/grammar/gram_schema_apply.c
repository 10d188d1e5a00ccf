/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_apply.c - keywords that apply other schemas: to the same value, to members, to elements.
 *
 * Each returns the verdict of its keyword alone. A child that was judged is noted in the frame as evaluated;
 * a schema on the same value gets the frame, so that what it saw is added when it is satisfied. */
#include "grammar/gram_schema_int.h"

static const gs_value *child(const gs_value *v, uint32_t i) {
    return v->type == GS_ARRAY ? &v->u.items[i] : &v->u.object.members[i].value;
}

static bool judge_child(gs_eval *e, const gs_schema *s, gs_frame *f, uint32_t i) {
    gs_note_seen(e, f, i);
    return gs_judge(e, s, child(f->value, i), NULL);
}

/* Children from `from` on, all by one schema. */
static bool judge_rest(gs_eval *e, const gs_schema *s, gs_frame *f, uint32_t from) {
    bool ok = true;
    for (uint32_t i = from; i < f->value->n && !gs_stop(e, ok); i++) ok &= judge_child(e, s, f, i);
    return ok;
}

/* ---- references ------------------------------------------------------------------------------ */

bool gs_rule_ref(gs_eval *e, const gs_rule *r, gs_frame *f) { return gs_judge(e, r->subs[0], f->value, f); }

/* The outermost schema resource on the way here that has the anchor decides. */
bool gs_rule_dynamic_ref(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_schema *target = r->subs[0];
    for (const gs_scope *s = r->anchor ? e->scope : NULL; s; s = s->outer) {
        bool dynamic;
        const gs_value *v = gs_anchor_find(e->schema, s->resource, r->anchor, &dynamic);
        if (v && dynamic) target = v->schema;
        if (!gs_spend(e, 1)) return false;
    }
    return gs_judge(e, target, f->value, f);
}

bool gs_rule_recursive_ref(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_schema *target = r->subs[0];
    const gs_resource *first = target->resource;
    if (first->recursive_anchor && first->root == target->source) {
        for (const gs_scope *s = e->scope; s; s = s->outer) {
            if (s->resource->recursive_anchor) target = s->resource->root->schema;
            if (!gs_spend(e, 1)) return false;
        }
    }
    return gs_judge(e, target, f->value, f);
}

/* ---- the same value -------------------------------------------------------------------------- */

bool gs_rule_all_of(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    for (uint32_t i = 0; i < r->n_subs && !gs_stop(e, ok); i++) ok &= gs_judge(e, r->subs[i], f->value, f);
    return ok;
}

bool gs_rule_any_of(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = false;
    /* Where frames take notes every branch has its say. */
    for (uint32_t i = 0; i < r->n_subs && (!ok || e->schema->track) && e->st == SQUISH_OK; i++)
        ok |= gs_judge_quietly(e, r->subs[i], f->value, f);
    return ok || gs_complain(e, r, f->value, "none of %u schemas is satisfied", r->n_subs);
}

bool gs_rule_one_of(gs_eval *e, const gs_rule *r, gs_frame *f) {
    uint32_t n = 0, first = 0, second = 0;
    for (uint32_t i = 0; i < r->n_subs && n < 2 && e->st == SQUISH_OK; i++) {
        if (!gs_judge_quietly(e, r->subs[i], f->value, f)) continue;
        if (n++ == 0)
            first = i;
        else
            second = i;
    }
    if (n == 1) return true;
    if (n == 0) return gs_complain(e, r, f->value, "none of %u schemas is satisfied, wanted one", r->n_subs);
    return gs_complain(e, r, f->value, "schemas %u and %u are both satisfied, wanted one", first, second);
}

bool gs_rule_not(gs_eval *e, const gs_rule *r, gs_frame *f) {
    return !gs_judge_quietly(e, r->subs[0], f->value, NULL) ||
           gs_complain(e, r, f->value, "it must not be satisfied");
}

bool gs_rule_if(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const bool yes = gs_judge_quietly(e, r->subs[0], f->value, f);
    const gs_rule *next = r->owner->role[yes ? GS_ROLE_THEN : GS_ROLE_ELSE];
    return !next || gs_judge(e, next->subs[0], f->value, f);
}

/* dependencies and dependentSchemas: a schema, or in the older keyword a list of names. */
bool gs_rule_dependencies(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < r->n_subs && !gs_stop(e, ok) && gs_spend(e, 1); i++) {
        const gs_member *m = &r->arg->u.object.members[i];
        if (!gs_value_get(f->value, m->name, m->bytes)) continue;
        if (r->subs[i]) {
            ok &= gs_judge(e, r->subs[i], f->value, f);
            continue;
        }
        for (uint32_t k = 0; k < m->value.n && gs_spend(e, 1); k++) {
            const gs_value *name = &m->value.u.items[k];
            if (!gs_value_get(f->value, name->u.text, name->n))
                ok = gs_complain(e, r, f->value, "'%.80s' is missing beside '%.80s'", name->u.text, m->name);
        }
    }
    return ok;
}

/* ---- members --------------------------------------------------------------------------------- */

bool gs_rule_properties(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < r->n_subs && !gs_stop(e, ok) && gs_spend(e, 1); i++) {
        const gs_member *m = &r->arg->u.object.members[i];
        const gs_value *v = gs_value_get(f->value, m->name, m->bytes);
        if (v) ok &= judge_child(e, r->subs[i], f, v->index);
    }
    return ok;
}

bool gs_rule_patterns(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t k = 0; k < f->value->n; k++) {
        const gs_member *m = &f->value->u.object.members[k];
        for (uint32_t i = 0; i < r->n_subs && !gs_stop(e, ok); i++)
            if (gs_match(e, r->regexes[i], m->name, m->bytes)) ok &= judge_child(e, r->subs[i], f, k);
    }
    return ok;
}

/* properties or patternProperties of the same schema speak about the member. */
static bool is_covered(gs_eval *e, const gs_schema *s, const gs_member *m) {
    const gs_rule *properties = s->role[GS_ROLE_PROPERTIES], *patterns = s->role[GS_ROLE_PATTERNS];
    if (properties && gs_value_get(properties->arg, m->name, m->bytes)) return true;
    for (uint32_t i = 0; patterns && i < patterns->n_subs && e->st == SQUISH_OK; i++)
        if (gs_match(e, patterns->regexes[i], m->name, m->bytes)) return true;
    return false;
}

bool gs_rule_additional(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < f->value->n && !gs_stop(e, ok) && gs_spend(e, 1); i++)
        if (!is_covered(e, r->owner, &f->value->u.object.members[i])) ok &= judge_child(e, r->subs[0], f, i);
    return ok;
}

bool gs_rule_names(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_OBJECT) return true;
    for (uint32_t i = 0; i < f->value->n && !gs_stop(e, ok); i++) {
        const gs_value name = gs_value_name(f->value, i);
        ok &= gs_judge(e, r->subs[0], &name, NULL);
    }
    return ok;
}

/* ---- elements -------------------------------------------------------------------------------- */

bool gs_rule_prefix(gs_eval *e, const gs_rule *r, gs_frame *f) {
    bool ok = true;
    if (f->value->type != GS_ARRAY) return true;
    for (uint32_t i = 0; i < r->n_subs && i < f->value->n && !gs_stop(e, ok); i++)
        ok &= judge_child(e, r->subs[i], f, i);
    return ok;
}

bool gs_rule_items(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_rule *prefix = r->owner->role[GS_ROLE_PREFIX];
    return f->value->type != GS_ARRAY || judge_rest(e, r->subs[0], f, prefix ? prefix->n_subs : 0);
}

/* Up to 2019-09 items was either one schema or what prefixItems is now. */
bool gs_rule_old_items(gs_eval *e, const gs_rule *r, gs_frame *f) {
    if (r->arg->type == GS_ARRAY) return gs_rule_prefix(e, r, f);
    return f->value->type != GS_ARRAY || judge_rest(e, r->subs[0], f, 0);
}

bool gs_rule_additional_items(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_rule *items = r->owner->role[GS_ROLE_PREFIX];
    if (f->value->type != GS_ARRAY || !items || items->arg->type != GS_ARRAY) return true;
    return judge_rest(e, r->subs[0], f, items->n_subs);
}

bool gs_rule_contains(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_rule *low = r->owner->role[GS_ROLE_MIN_CONTAINS], *high = r->owner->role[GS_ROLE_MAX_CONTAINS];
    const uint32_t min = low ? low->count : 1, max = high ? high->count : UINT32_MAX;
    if (f->value->type != GS_ARRAY) return true;
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->value->n && e->st == SQUISH_OK; i++) {
        if (!gs_judge_quietly(e, r->subs[0], &f->value->u.items[i], NULL)) continue;
        n++;
        /* Only 2020-12 counts what contains found as evaluated. */
        if (r->owner->resource->dialect.draft == GS_D2020) gs_note_seen(e, f, i);
    }
    if (n < min) return gs_complain(e, r, f->value, "%u elements satisfy it, wanted at least %u", n, min);
    return n <= max ||
           gs_complain(e, high, f->value, "%u elements satisfy contains, wanted at most %u", n, max);
}

/* ---- what nobody looked at ------------------------------------------------------------------- */

bool gs_rule_unevaluated(gs_eval *e, const gs_rule *r, gs_frame *f) {
    const gs_type wanted = strcmp(r->keyword->name, "unevaluatedItems") == 0 ? GS_ARRAY : GS_OBJECT;
    bool ok = true;
    if (f->value->type != wanted) return true;
    for (uint32_t i = 0; i < f->value->n && !gs_stop(e, ok) && gs_spend(e, 1); i++)
        if (!gs_was_seen(e, f, i)) ok &= judge_child(e, r->subs[0], f, i);
    return ok;
}
