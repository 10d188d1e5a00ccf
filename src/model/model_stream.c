/* SPDX-License-Identifier: Apache-2.0
 *
 * model_stream.c - stages of a pass over weights that are streamed: which units they need, in which order,
 * and matrices with the addresses of the moment.
 *
 *   container   | embed | attn 0 | ffn 0 | attn 1 | ffn 1 | ... | head |      units
 *   dense         map     CYCLE ------------------------------->  PIN
 *   experts       map     PIN, PIN, experts POOL, ...             PIN
 *
 * A matrix moves by the distance between its unit in the mapping and its unit in memory; which unit that is
 * was looked up when the stream was made. */
#include "model/model_stream.h"

#include <stdio.h>
#include <string.h>

enum {
    AHEAD = 16,     /* units named to the cache before each stage */
    STAGE_UNITS = 2 /* cyclic units a stage may need at once: the ring has three places */
};

struct sq_stream {
    squish_alloc alloc;
    const sq_model *m;
    sq_io *io;
    bool on_demand;
    const uint8_t *map;
    sq_io_unit *units; /* [n_units] */
    size_t n_units;
    const sq_sqw_unit *at; /* [n_units], the container's */
    int32_t *stage_first;  /* [2 * layers + 1] into stage_unit: units of stage 2 * layer + stage */
    int32_t *stage_unit;   /* [n_units + some] in the order of a pass */
    int32_t n_order;
    int32_t *expert_unit;                    /* [layers][experts]; -1: a dense layer */
    int32_t held[2 * SQ_ROLE_COUNT], n_held; /* of the stage at hand */
    sq_layer layer;                          /* of the stage at hand */
    sq_lowrank low[SQ_ROLE_COUNT][1 + SQ_MAX_LORAS];
    sq_expert *experts;           /* [moe.n] of the layer at hand */
    int32_t *unrun, n_left;       /* [moe.n]: experts of the block at hand not run yet */
    int32_t *ids;                 /* [layers * moe.n]: those of a group; units wanted */
    int32_t group_max;            /* experts held at once */
    sq_weight embed, head;
    const float *final_norm;
    bool ends, warm; /* the ends stay; a whole pass has been made */
    bool rounds;     /* the layer at hand was asked for most of its experts */
    char heat[1100]; /* file of counts; "": none is kept */
    char heat_why[240];
};

static size_t table_bytes(const sq_stream *s) {
    const size_t layers = (size_t)s->m->cfg.n_layers;
    /* A unit may be of both stages of a layer. */
    return (2 * layers + 1 + 2 * s->n_units + 8 + (2 * layers + 1) * (size_t)s->m->cfg.moe.n) *
           sizeof(int32_t);
}

/* ---- which unit ------------------------------------------------------------------------------ */

/* The unit that holds p, a pointer into the mapping; -1: none. */
static int32_t unit_at(const sq_stream *s, const void *p) {
    const uint64_t off = (uint64_t)((uintptr_t)p - (uintptr_t)s->map);
    size_t lo = 0, hi = s->n_units;
    if ((uintptr_t)p < (uintptr_t)s->map) return -1;
    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (s->at[mid].offset <= off)
            lo = mid;
        else
            hi = mid;
    }
    return hi > lo && off >= s->at[lo].offset && off - s->at[lo].offset < s->at[lo].bytes ? (int32_t)lo : -1;
}

static sq_stage stage_of(sq_role r) {
    if (r >= SQ_ROLE_Q_A || r == SQ_ROLE_ATTN_SUB_NORM) return SQ_STAGE_ATTN;
    return r < SQ_ROLE_FFN_NORM ? SQ_STAGE_ATTN : SQ_STAGE_FFN;
}

static const void *data_of(const sq_layer *l, int r) {
    return l->mat[r].rows > 0 ? (const void *)l->mat[r].data : (const void *)l->vec[r];
}

/* Enter the units of a stage. What is no view into the container (an adapter that was merged, say) refuses.
 */
static squish_status list_stage(sq_stream *s, int32_t layer, sq_stage stage, sq_io_use use,
                                squish_error *err) {
    const sq_layer *l = &s->m->layers[layer];
    const int32_t first = s->stage_first[2 * layer + (int32_t)stage];
    int32_t n = first, cyclic = 0;
    for (int r = 0; r < SQ_ROLE_COUNT; r++) {
        if (stage_of((sq_role)r) != stage || !data_of(l, r)) continue;
        const int32_t unit = unit_at(s, data_of(l, r));
        int32_t i = first;
        while (i < n && s->stage_unit[i] != unit) i++;
        if (i < n) continue;
        if (unit < 0 || (size_t)n >= 2 * s->n_units)
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: a matrix of layer %d lies outside its units",
                           s->m->info.path, layer);
        s->stage_unit[n++] = unit;
        s->units[unit].use = use;
        cyclic += use == SQ_IO_CYCLE;
    }
    if (cyclic > STAGE_UNITS)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: layer %d lies in %d units, %d are read at once",
                       s->m->info.path, layer, cyclic, STAGE_UNITS);
    s->stage_first[2 * layer + (int32_t)stage + 1] = n;
    return SQUISH_OK;
}

static squish_status list_experts(sq_stream *s, int32_t layer, squish_error *err) {
    const sq_layer *l = &s->m->layers[layer];
    const int32_t n = s->m->cfg.moe.n;
    for (int32_t e = 0; e < n; e++) {
        int32_t *unit = &s->expert_unit[(size_t)layer * (size_t)n + (size_t)e];
        *unit = -1;
        if (!l->experts) continue;
        const sq_expert *x = &l->experts[e];
        *unit = unit_at(s, x->gate.data);
        if (*unit < 0 || unit_at(s, x->up.data) != *unit || unit_at(s, x->down.data) != *unit ||
            s->units[*unit].use != SQ_IO_NONE)
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: expert %d of layer %d is no unit of its own",
                           s->m->info.path, e, layer);
        s->units[*unit].use = SQ_IO_POOL;
    }
    return SQUISH_OK;
}

static squish_status list_end(sq_stream *s, const void *p, squish_error *err) {
    const int32_t unit = unit_at(s, p);
    if (unit < 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: the head lies outside its units", s->m->info.path);
    s->units[unit].use = SQ_IO_PIN;
    return SQUISH_OK;
}

/* What every unit is for, and the order of a pass. */
static squish_status list_units(sq_stream *s, squish_error *err) {
    const sq_model *m = s->m;
    const sq_io_use use = m->cfg.moe.n ? SQ_IO_PIN : SQ_IO_CYCLE;
    for (size_t i = 0; i < s->n_units; i++)
        s->units[i] = (sq_io_unit){s->at[i].offset, s->at[i].bytes, SQ_IO_NONE};
    for (int32_t l = 0; l < m->cfg.n_layers; l++) SQ_TRY(list_experts(s, l, err));
    for (int32_t l = 0; l < m->cfg.n_layers; l++)
        for (int stage = SQ_STAGE_ATTN; stage <= SQ_STAGE_FFN; stage++)
            SQ_TRY(list_stage(s, l, (sq_stage)stage, use, err));
    SQ_TRY(list_end(s, m->head.data, err));
    SQ_TRY(list_end(s, m->final_norm, err));
    s->n_order = s->stage_first[2 * m->cfg.n_layers];
    s->stage_unit[s->n_order++] = unit_at(s, m->final_norm);
    if (s->stage_unit[s->n_order - 1] != unit_at(s, m->head.data))
        s->stage_unit[s->n_order++] = unit_at(s, m->head.data);
    return SQUISH_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

static squish_status make(sq_stream **out, const sq_model *m, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    if (!m->sqw || !sq_sqw_map(m->sqw) || !m->has_weights)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: only weights in a .sqw file can be streamed (make one with: squish compress)",
                       m->info.path);
    sq_stream *s = sq_alloc_zero(a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "stream: out of memory");
    s->alloc = *a;
    s->m = m;
    s->map = sq_sqw_map(m->sqw)->data;
    s->at = sq_sqw_units(m->sqw, &s->n_units);
    s->units = sq_alloc_zero(a, s->n_units * sizeof *s->units);
    int32_t *p = s->stage_first = sq_alloc_zero(a, table_bytes(s));
    if (m->cfg.moe.n) s->experts = sq_alloc_zero(a, (size_t)m->cfg.moe.n * sizeof *s->experts);
    squish_status st = SQUISH_OK;
    if (!s->units || !p || (m->cfg.moe.n && !s->experts)) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "stream: out of memory");
        goto fail;
    }
    s->stage_unit = p += 2 * m->cfg.n_layers + 1;
    s->expert_unit = p += 2 * s->n_units + 8;
    s->unrun = p += (size_t)m->cfg.n_layers * (size_t)m->cfg.moe.n;
    s->ids = p += m->cfg.moe.n;
    s->embed = m->embed;
    SQ_GUARD(list_units(s, err));
    *out = s;
    return SQUISH_OK;
fail:
    sq_stream_free(s);
    return st;
}

void sq_stream_free(sq_stream *s) {
    if (!s) return;
    const squish_alloc a = s->alloc;
    if (s->io) sq_stream_end(s);
    if (*s->heat) sq_io_heat_save(s->io, s->heat, sq_sqw_super_sum(s->m->sqw), NULL);
    sq_io_free(s->io);
    if (s->experts) sq_alloc_free(&a, s->experts, (size_t)s->m->cfg.moe.n * sizeof *s->experts);
    sq_alloc_free(&a, s->stage_first, s->stage_first ? table_bytes(s) : 0);
    sq_alloc_free(&a, s->units, s->n_units * sizeof *s->units);
    sq_alloc_free(&a, s, sizeof *s);
}

squish_status sq_stream_check(const sq_model *m, const squish_alloc *a, uint64_t *bytes_min,
                              squish_error *err) {
    sq_stream *s;
    SQ_TRY(make(&s, m, a, err));
    *bytes_min = sq_io_bytes_min(s->units, s->n_units);
    sq_stream_free(s);
    return SQUISH_OK;
}

/* Counts lie beside what was opened: of a link, beside the link. NO_MEMORY; all else ends in heat_why. */
static squish_status use_heat(sq_stream *s, squish_error *err) {
    const char *path = s->m->info.path, *slash = strrchr(path, '/');
    char folder[sizeof s->heat];
    squish_error why = {0};
    squish_status st = SQUISH_INVALID;
    if (snprintf(s->heat, sizeof s->heat, "%s.heat", path) < (int)sizeof s->heat) {
        snprintf(folder, sizeof folder, "%.*s.", slash ? (int)(slash - path) + 1 : 0, path);
        st = sq_io_heat_load(s->io, s->heat, sq_sqw_super_sum(s->m->sqw), &why);
    } else {
        *s->heat = 0;
        sq_fail(&why, st, "the path of %s is too long", path);
    }
    if (st == SQUISH_NO_MEMORY) return sq_fail(err, st, "%s", why.text);
    if (st != SQUISH_OK && st != SQUISH_NOT_FOUND)
        snprintf(s->heat_why, sizeof s->heat_why, "experts of earlier runs are not known: %.190s", why.text);
    else if (!sq_os_writable_dir(folder))
        snprintf(s->heat_why, sizeof s->heat_why,
                 "experts are not counted for the next run: %.150s cannot be written", folder);
    return SQUISH_OK;
}

squish_status sq_stream_new(sq_stream **out, const sq_model *m, const sq_stream_options *o,
                            const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_stream *s;
    SQ_TRY(make(&s, m, a, err));
    const sq_map *map = sq_sqw_map(m->sqw);
    const sq_io_options io = {.budget_bytes = o->budget_bytes,
                              .backend = o->backend,
                              .check = sq_io_check_sqw,
                              .check_user = m->sqw,
                              .inode = map->inode,
                              .mtime_ns = map->mtime_ns};
    s->on_demand = o->on_demand;
    sq_io_stats stats;
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_io_new(&s->io, m->info.path, s->units, s->n_units, &io, a, err));
    sq_io_get_stats(s->io, &stats);
    if (stats.plan.pool_slots && !o->on_demand && !o->cold) SQ_GUARD(use_heat(s, err));
    s->group_max = stats.plan.pool_slots > 3 ? stats.plan.pool_slots / 2 : 1;
    /* Rows that are looked up come from anywhere: what lies beside them is not wanted. */
    const int32_t embed = unit_at(s, m->embed.data);
    if (embed >= 0) sq_os_map_advise(map, s->at[embed].offset, s->at[embed].bytes, SQ_ADVISE_RANDOM);
    *out = s;
    return SQUISH_OK;
fail:
    sq_stream_free(s);
    return st;
}

const char *sq_stream_heat_why(const sq_stream *s) { return s->heat_why; }

void sq_stream_get_stats(const sq_stream *s, sq_io_stats *out) { sq_io_get_stats(s->io, out); }

/* ---- moved matrices -------------------------------------------------------------------------- */

/* p, a view into a unit of the mapping, in the unit at `to`. */
static const uint8_t *moved(const sq_stream *s, int32_t unit, const uint8_t *to, const void *p) {
    return to + ((uintptr_t)p - (uintptr_t)s->map - s->at[unit].offset);
}

static sq_weight moved_matrix(sq_stream *s, int32_t unit, const uint8_t *to, const sq_weight *w,
                              sq_lowrank *nodes) {
    sq_weight v = *w;
    v.data = moved(s, unit, to, w->data);
    const sq_lowrank **link = &v.low;
    for (int i = 0; nodes && *link && i <= SQ_MAX_LORAS; i++) {
        nodes[i] = **link;
        /* A compensator lies behind the codes; adapters have files of their own. */
        if (unit_at(s, nodes[i].v.data) == unit) nodes[i].v.data = moved(s, unit, to, nodes[i].v.data);
        if (unit_at(s, nodes[i].u.data) == unit) nodes[i].u.data = moved(s, unit, to, nodes[i].u.data);
        *link = &nodes[i];
        link = &nodes[i].next;
    }
    return v;
}

static void move_stage(sq_stream *s, const sq_layer *from, sq_stage stage, const uint8_t *const *to) {
    for (int r = 0; r < SQ_ROLE_COUNT; r++) {
        if (stage_of((sq_role)r) != stage || !data_of(from, r)) continue;
        const int32_t unit = unit_at(s, data_of(from, r));
        int32_t i = 0;
        while (s->held[i] != unit) i++;
        if (from->mat[r].rows > 0)
            s->layer.mat[r] = moved_matrix(s, unit, to[i], &from->mat[r], s->low[r]);
        else
            s->layer.vec[r] = (const float *)(const void *)moved(s, unit, to[i], from->vec[r]);
    }
}

/* ---- a pass ---------------------------------------------------------------------------------- */

void sq_stream_end(sq_stream *s) {
    for (int32_t i = 0; i < s->n_held; i++) sq_io_put(s->io, s->held[i]);
    s->n_held = 0;
}

/* Name what this stage needs and what comes behind it, around the end of the pass. */
static void read_ahead(sq_stream *s, int32_t from) {
    int32_t next[AHEAD], n = 0;
    bool any = false;
    if (s->on_demand || (s->warm && s->m->cfg.moe.n)) return;
    for (; n < AHEAD && n < s->n_order; n++) {
        next[n] = s->stage_unit[(from + n) % s->n_order];
        any |= !sq_io_has(s->io, next[n]);
    }
    if (any) sq_io_prefetch_sequence(s->io, next, n);
}

const sq_layer *sq_stream_begin(sq_stream *s, int32_t layer, sq_stage stage, squish_error *err) {
    const int32_t at = 2 * layer + (int32_t)stage;
    const uint8_t *p[2 * SQ_ROLE_COUNT];
    sq_stream_end(s);
    if (stage == SQ_STAGE_ATTN) s->layer = s->m->layers[layer];
    read_ahead(s, s->stage_first[at]);
    for (int32_t i = s->stage_first[at]; i < s->stage_first[at + 1]; i++) {
        const int32_t unit = s->stage_unit[i];
        if (sq_io_get(s->io, unit, &p[s->n_held], err) != SQUISH_OK) {
            sq_err_prefix(err, "layer %d", layer);
            sq_stream_end(s);
            return NULL;
        }
        s->held[s->n_held++] = unit;
    }
    move_stage(s, &s->m->layers[layer], stage, p);
    return &s->layer;
}

squish_status sq_stream_ends(sq_stream *s, squish_error *err) {
    const sq_model *m = s->m;
    const uint8_t *p;
    s->warm = true;
    if (s->ends) return SQUISH_OK;
    const int32_t norm = unit_at(s, m->final_norm), head = unit_at(s, m->head.data);
    SQ_TRY(sq_io_get(s->io, norm, &p, err)); /* never put: they stay */
    s->final_norm = (const float *)(const void *)moved(s, norm, p, m->final_norm);
    SQ_TRY(sq_io_get(s->io, head, &p, err));
    s->head = moved_matrix(s, head, p, &m->head, NULL);
    if (m->embed.data == m->head.data) s->embed = moved_matrix(s, head, p, &m->embed, NULL);
    s->ends = true;
    return SQUISH_OK;
}

const sq_weight *sq_stream_embed(const sq_stream *s) { return &s->embed; }
const sq_weight *sq_stream_head(const sq_stream *s) { return &s->head; }
const float *sq_stream_final_norm(const sq_stream *s) { return s->final_norm; }

/* ---- experts --------------------------------------------------------------------------------- */

static int32_t unit_of(const sq_stream *s, int32_t layer, int32_t expert) {
    return s->expert_unit[(size_t)layer * (size_t)s->m->cfg.moe.n + (size_t)expert];
}

static void move_expert(sq_stream *s, int32_t layer, int32_t e, const uint8_t *p) {
    const sq_expert *from = &s->m->layers[layer].experts[e];
    const int32_t unit = unit_of(s, layer, e);
    s->experts[e] =
        (sq_expert){moved_matrix(s, unit, p, &from->gate, NULL), moved_matrix(s, unit, p, &from->up, NULL),
                    moved_matrix(s, unit, p, &from->down, NULL)};
}

/* Experts of unrun that are in memory, into ids; if none is, the first as soon as it has come. */
static squish_status take_group(sq_stream *s, int32_t layer, int32_t *taken, squish_error *err) {
    int32_t left = 0;
    *taken = 0;
    for (int32_t i = 0; i < s->n_left; i++) {
        const int32_t e = s->unrun[i], unit = unit_of(s, layer, e);
        const uint8_t *p = *taken < s->group_max ? sq_io_try_get(s->io, unit) : NULL;
        if (!p) {
            s->unrun[left++] = e;
            continue;
        }
        move_expert(s, layer, e, p);
        s->ids[(*taken)++] = e;
    }
    s->n_left = left;
    if (*taken > 0) return SQUISH_OK;
    const uint8_t *p;
    SQ_TRY(sq_io_get(s->io, unit_of(s, layer, s->unrun[0]), &p, err));
    move_expert(s, layer, s->unrun[0], p);
    s->ids[(*taken)++] = s->unrun[0];
    memmove(s->unrun, s->unrun + 1, (size_t)(--s->n_left) * sizeof *s->unrun);
    return SQUISH_OK;
}

/* Rows of a prompt choose most experts of a layer, and so of those behind it, pass by pass. All that come in
 * this pass are named then: while layers are computed whose experts are there, others are read, in the place
 * of what was used last, which comes last again. */
void sq_stream_experts_want(sq_stream *s, int32_t layer, const sq_routes *r) {
    const int32_t all = r->rule.n;
    bool missing = false;
    int32_t n = 0;
    s->n_left = 0;
    for (int32_t e = 0; e < all; e++) {
        if (r->first[e + 1] == r->first[e]) continue;
        s->ids[s->n_left] = unit_of(s, layer, e);
        missing |= !sq_io_has(s->io, s->ids[s->n_left]);
        s->unrun[s->n_left++] = e;
    }
    if (s->on_demand) return;
    const bool rounds = s->n_left * 4 >= all * 3;
    if (rounds != s->rounds) sq_io_in_rounds(s->io, rounds);
    s->rounds = rounds;
    if (missing || rounds) sq_io_prefetch_sequence(s->io, s->ids, s->n_left);
    for (int32_t i = (layer + 1) * all; rounds && i < s->m->cfg.n_layers * all; i++)
        if (s->expert_unit[i] >= 0) s->ids[n++] = s->expert_unit[i];
    if (n > 0) sq_io_prefetch_behind(s->io, s->ids, n);
}

squish_status sq_stream_experts_run(sq_stream *s, sq_backend *b, int32_t layer, const sq_routes *r,
                                    sq_activation act, sq_expert_rows *e, squish_error *err) {
    while (s->n_left > 0) {
        int32_t taken;
        const squish_status st = take_group(s, layer, &taken, err);
        if (st != SQUISH_OK) {
            sq_err_prefix(err, "layer %d", layer);
            return st;
        }
        sq_be_experts_run_some(b, r, s->experts, s->ids, taken, act, e);
        for (int32_t i = 0; i < taken; i++) sq_io_put(s->io, unit_of(s, layer, s->ids[i]));
    }
    return SQUISH_OK;
}

void sq_stream_hint(sq_stream *s, const sq_expert_hint *h, int32_t n) {
    int32_t units[SQ_IO_HINTS_MAX];
    float weights[SQ_IO_HINTS_MAX];
    int32_t kept = 0;
    for (int32_t i = 0; i < n && kept < SQ_IO_HINTS_MAX && !s->on_demand; i++) {
        const int32_t unit = unit_of(s, h[i].layer, h[i].expert);
        if (unit < 0) continue;
        units[kept] = unit;
        weights[kept++] = h[i].weight;
    }
    if (kept > 0) sq_io_hint(s->io, units, weights, kept);
}

bool sq_stream_has_expert(const sq_stream *s, int32_t layer, int32_t expert) {
    const int32_t unit = unit_of(s, layer, expert);
    return unit >= 0 && sq_io_has(s->io, unit);
}

uint64_t sq_stream_expert_bytes(const sq_stream *s) {
    for (int32_t l = 0; l < s->m->cfg.n_layers && s->m->cfg.moe.n; l++)
        if (unit_of(s, l, 0) >= 0) return s->units[unit_of(s, l, 0)].bytes;
    return 0;
}
