/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_look.c - guesses of experts: no bit of an answer depends on them, what is counted is what a
 * second count finds, scores are those of the maps, each sequence is remembered for itself, layers with bad
 * guesses rest.
 *
 * Counts are held against hints, which hand out every list, and against choices that are made again from what
 * a tap sees. */
#include "sched/sched_look.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

enum { N_IDS = 48, EXPERTS_MAX = 16, LAYERS_MAX = 8, HIDDEN_MAX = 512, PROMPT = 7 };

static const char *const models[] = {
    "tests/fixtures/architectures/qwen2-moe", "tests/fixtures/architectures/qwen3-moe",
    "tests/fixtures/architectures/deepseek-v2", "tests/fixtures/architectures/deepseek-v2-lite"};

static void make_ids(int32_t *ids, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)((uint32_t)(i + 5) * 2654435761u >> 9) % n_vocab;
}

static run open_model(const char *path) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = 512;
    o.chunk_tokens = 32;
    return run_open(path, SQUISH_TIER_SOURCE, &o);
}

/* ---- maps of the test's own ------------------------------------------------------------------- */

/* All maps of fitted ones, made from rows: f(layer, part, r, out); part 0: now, 1: prev. */
typedef void row_fn(const sq_model *m, int32_t layer, int32_t part, int32_t r, float *out);

static void put(sq_look_maps *k, const sq_model *m, int32_t layer, int32_t part, row_fn *f, sq_weight *out) {
    const int32_t n = m->cfg.moe.n, cols = m->cfg.hidden;
    const sq_encoding e = {.type = SQ_W_I8_G64, .scale = SQ_SCALE_F16};
    uint64_t bytes;
    float *tile = calloc((size_t)n * (size_t)cols, sizeof *tile);
    assert_true(sq_weight_bytes(e.type, n, cols, &bytes));
    uint8_t *to = sq_arena_alloc(&k->arena, (size_t)bytes, 64);
    assert_true(tile && to && n <= SQ_TILE_ROWS);
    for (int32_t r = 0; r < n; r++) f(m, layer, part, r, tile + (size_t)r * (size_t)cols);
    sq_quant_tile(&e, tile, (size_t)cols, n, cols, to);
    *out = sq_weight_make(e.type, e.scale, n, cols, to);
    free(tile);
}

static sq_look_maps *make_maps(const sq_model *m, row_fn *f, float bias, float bias_unknown) {
    squish_error err = {0};
    sq_look_maps *k;
    const int32_t n = m->cfg.moe.n;
    assert_ok(sq_look_maps_new(&k, m, SQ_LOOK_CALIBRATED, &m->alloc, &err), &err);
    for (int32_t t = 0; t < k->n_layers; t++) {
        for (int32_t i = t > 0 ? 0 : 1; m->layers[t].experts && i < SQ_LOOK_MOMENTS; i++) {
            float *b = sq_arena_alloc(&k->arena, 2 * (size_t)n * sizeof *b, 64);
            put(k, m, t, 0, f, &k->map[t][i].now);
            put(k, m, t, 1, f, &k->map[t][i].prev);
            for (int32_t e = 0; e < n; e++)
                b[e] = e == n - 1 ? bias : 0, b[n + e] = e == 0 ? bias_unknown : 0;
            k->map[t][i].bias = b;
        }
    }
    return k;
}

static void noise(const sq_model *m, int32_t layer, int32_t part, int32_t r, float *out) {
    uint64_t state = (uint64_t)(layer * 1000 + part * 100 + r);
    for (int32_t i = 0; i < m->cfg.hidden; i++)
        out[i] = (float)((double)(sq_splitmix64(&state) >> 40) / (1 << 23) - 1) * 100;
}

static void zero(const sq_model *m, int32_t layer, int32_t part, int32_t r, float *out) {
    (void)layer, (void)part, (void)r;
    memset(out, 0, (size_t)m->cfg.hidden * sizeof *out);
}

/* The router on the row of the token before: its own choice, a token late. */
static void late_router(const sq_model *m, int32_t layer, int32_t part, int32_t r, float *out) {
    zero(m, layer, part, r, out);
    if (part == 1) sq_weight_row(&m->layers[layer].mat[SQ_ROLE_ROUTER], r, out);
}

static sq_look *new_look(const run *x, const sq_look_maps *maps, const sq_look_options *o) {
    squish_error err = {0};
    sq_look *l;
    assert_ok(sq_look_new(&l, x->m, x->e->b, maps, SQ_SEQS_MAX, o, &x->m->alloc, &err), &err);
    return l;
}

/* ---- the same bits ---------------------------------------------------------------------------- */

/* Logits of a prompt and of tokens behind it, [N_IDS][n_vocab]. */
static float *logits_with(run *x, const int32_t *ids, sq_look *l) {
    squish_error err = {0};
    const size_t n = (size_t)x->m->cfg.n_vocab;
    float *all = calloc(N_IDS * n, sizeof *all);
    sq_forward_set_look(x->e->f, l);
    squish_seq_truncate(x->s, 0);
    for (int32_t i = PROMPT; i <= N_IDS; i++) {
        assert_ok(squish_seq_sync(x->s, ids, (size_t)i, &err), &err);
        memcpy(all + (size_t)(i - 1) * n, squish_seq_logits(x->s), n * sizeof *all);
    }
    sq_forward_set_look(x->e->f, NULL);
    return all;
}

static void answers_have_the_same_bits_with_any_guess(void **state) {
    (void)state;
    for (size_t k = 0; k < SQ_COUNT(models); k++) {
        run x = open_model(models[k]);
        squish_error err = {0};
        int32_t ids[N_IDS];
        make_ids(ids, N_IDS, x.m->cfg.n_vocab);
        float *plain = logits_with(&x, ids, NULL);
        sq_look_maps *maps[4];
        assert_ok(sq_look_maps_new(&maps[0], x.m, SQ_LOOK_T0, &x.m->alloc, &err), &err);
        assert_ok(sq_look_maps_new(&maps[1], x.m, SQ_LOOK_ROUTER, &x.m->alloc, &err), &err);
        maps[2] = make_maps(x.m, noise, 1e30f, -1e30f);
        maps[3] = make_maps(x.m, noise, NAN, INFINITY);
        for (size_t i = 0; i < SQ_COUNT(maps); i++) {
            const sq_look_options o = {.extra = -1, .rows_max = 4};
            sq_look *l = new_look(&x, maps[i], &o);
            float *with = logits_with(&x, ids, l);
            sq_look_stats s;
            sq_look_get_stats(l, &s);
            assert_true(s.all.tokens > 0);
            assert_memory_equal(with, plain, (size_t)N_IDS * (size_t)x.m->cfg.n_vocab * sizeof *with);
            free(with);
            sq_look_free(l);
            sq_look_maps_free(maps[i]);
        }
        free(plain);
        run_close(&x);
    }
}

/* ---- counts ----------------------------------------------------------------------------------- */

/* Everything seen of steps of one row. */
typedef struct {
    const sq_model *m;
    const sq_look_maps *maps;
    float a[LAYERS_MAX][HIDDEN_MAX], h[LAYERS_MAX][HIDDEN_MAX];
    int32_t list[LAYERS_MAX][SQ_LOOK_MOMENTS][EXPERTS_MAX], n_list[LAYERS_MAX][SQ_LOOK_MOMENTS];
    int32_t moment_of_next[LAYERS_MAX];
    int32_t hints, sorted; /* sorted: hints whose weights fall */
    int32_t used, extra, past[LAYERS_MAX][EXPERTS_MAX];
    bool has_past;
    sq_look_count count[LAYERS_MAX][SQ_LOOK_MOMENTS];
    uint64_t overlap; /* chosen experts that the token before took too */
} observer;

static void choose(const sq_model *m, int32_t layer, const float *h, int32_t used, int32_t *out) {
    double score[EXPERTS_MAX];
    float row[HIDDEN_MAX];
    bool taken[EXPERTS_MAX] = {false};
    for (int32_t e = 0; e < m->cfg.moe.n; e++) {
        sq_weight_row(&m->layers[layer].mat[SQ_ROLE_ROUTER], e, row);
        score[e] = 0;
        for (int32_t i = 0; i < m->cfg.hidden; i++) score[e] += (double)row[i] * (double)h[i];
    }
    for (int32_t k = 0; k < used; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < m->cfg.moe.n; e++)
            if (!taken[e] && (best < 0 || score[e] > score[best])) best = e;
        taken[best] = true;
        out[k] = best;
    }
}

static int32_t common(const int32_t *a, int32_t na, const int32_t *b, int32_t nb) {
    int32_t n = 0;
    for (int32_t i = 0; i < na; i++)
        for (int32_t j = 0; j < nb; j++) n += a[i] == b[j];
    return n;
}

static void watch_hint(void *user, int32_t layer, const int32_t *experts, const float *weights, int32_t n) {
    observer *w = user;
    const int32_t moment = w->moment_of_next[layer];
    bool falls = weights[0] <= 1 && weights[n - 1] > 0;
    for (int32_t i = 1; i < n; i++) falls &= weights[i] <= weights[i - 1];
    w->hints++;
    w->sorted += falls;
    memcpy(w->list[layer][moment], experts, (size_t)n * sizeof *experts);
    w->n_list[layer][moment] = n;
}

/* The tap comes before the look at the same place: what it is about to guess late is known. */
static void watch_tap(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m) {
    observer *w = user;
    (void)ld;
    assert_int_equal(m, 1);
    if (tap == SQ_TAP_ATTN_IN) {
        memcpy(w->a[layer], x, (size_t)w->m->cfg.hidden * sizeof *x);
        w->moment_of_next[layer] = SQ_LOOK_LATE;
    }
    if (tap != SQ_TAP_FFN_IN) return;
    memcpy(w->h[layer], x, (size_t)w->m->cfg.hidden * sizeof *x);
    if (layer + 1 < w->m->cfg.n_layers) w->moment_of_next[layer + 1] = SQ_LOOK_EARLY;
    if (!w->m->layers[layer].experts) return;
    int32_t chosen[EXPERTS_MAX];
    choose(w->m, layer, x, w->used, chosen);
    for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
        if (w->n_list[layer][k] == 0) continue;
        assert_int_equal(w->n_list[layer][k], w->used + w->extra);
        w->count[layer][k].tokens++;
        w->count[layer][k].strict += (uint64_t)common(w->list[layer][k], w->used, chosen, w->used);
        w->count[layer][k].covered +=
            (uint64_t)common(w->list[layer][k], w->n_list[layer][k], chosen, w->used);
        w->n_list[layer][k] = 0;
    }
    if (w->has_past) w->overlap += (uint64_t)common(w->past[layer], w->used, chosen, w->used);
    memcpy(w->past[layer], chosen, sizeof chosen);
}

/* Tokens one by one, all of them watched; of *s what lives on: not `count`. */
static void watch_run(run *x, const sq_look_maps *maps, const int32_t *ids, int32_t n, observer *w,
                      sq_look_stats *s) {
    squish_error err = {0};
    memset(w, 0, sizeof *w);
    w->m = x->m;
    w->maps = maps;
    w->used = x->m->cfg.moe.used;
    w->extra = 2;
    const sq_look_options o = {
        .extra = 2, .unwatched = true, .hint_extra = true, .hint = watch_hint, .user = w};
    sq_look *l = new_look(x, maps, &o);
    sq_forward_set_look(x->e->f, l);
    sq_forward_set_tap(x->e->f, watch_tap, w);
    squish_seq_truncate(x->s, 0);
    for (int32_t i = 0; i < n; i++) {
        assert_ok(sq_seq_append(x->s, &ids[i], 1, &err), &err);
        w->has_past = true;
    }
    sq_forward_set_look(x->e->f, NULL);
    sq_forward_set_tap(x->e->f, NULL, NULL);
    sq_look_get_stats(l, s);
    for (int32_t t = 0; t < x->m->cfg.n_layers; t++)
        for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
            assert_int_equal(s->count[t][k].tokens, w->count[t][k].tokens);
            assert_int_equal(s->count[t][k].strict, w->count[t][k].strict);
            assert_int_equal(s->count[t][k].covered, w->count[t][k].covered);
        }
    assert_int_equal(w->sorted, w->hints);
    sq_look_free(l);
}

static void counts_are_those_of_a_second_count(void **state) {
    (void)state;
    for (size_t k = 0; k < SQ_COUNT(models); k++) {
        run x = open_model(models[k]);
        squish_error err = {0};
        int32_t ids[N_IDS];
        static observer w;
        sq_look_stats s;
        make_ids(ids, N_IDS, x.m->cfg.n_vocab);
        for (sq_look_kind kind = SQ_LOOK_T0; kind <= SQ_LOOK_CALIBRATED; kind++) {
            sq_look_maps *maps;
            if (kind == SQ_LOOK_CALIBRATED)
                maps = make_maps(x.m, noise, 0, 0);
            else
                assert_ok(sq_look_maps_new(&maps, x.m, kind, &x.m->alloc, &err), &err);
            watch_run(&x, maps, ids, N_IDS, &w, &s);
            assert_true(w.hints > N_IDS / 2);
            sq_look_maps_free(maps);
        }
        run_close(&x);
    }
}

static void what_is_remembered_is_the_token_before(void **state) {
    (void)state;
    run x = open_model(models[1]);
    int32_t ids[N_IDS];
    static observer w;
    sq_look_stats s;
    make_ids(ids, N_IDS, x.m->cfg.n_vocab);
    sq_look_maps *maps = make_maps(x.m, late_router, 0, 0);
    watch_run(&x, maps, ids, N_IDS, &w, &s);
    uint64_t late = 0, first = 0;
    for (int32_t t = 0; t < x.m->cfg.n_layers; t++) late += w.count[t][SQ_LOOK_LATE].strict;
    /* The first token has none before it: zeros, so the first experts are guessed. */
    first = (uint64_t)x.m->cfg.moe.used * 2;
    assert_true(late >= w.overlap && late - w.overlap <= first);
    assert_true(w.overlap > 0);
    sq_look_maps_free(maps);
    run_close(&x);
}

/* ---- scores ----------------------------------------------------------------------------------- */

/* Every guessed expert has a score that is as large as those of the others, by the map in double, but for
 * what 8 bits of rows take away. */
typedef struct {
    observer w;
    int32_t looked, wrong;
} scorer;

static void score_hint(void *user, int32_t layer, const int32_t *experts, const float *weights, int32_t n) {
    scorer *s = user;
    observer *w = &s->w;
    (void)weights;
    const int32_t moment = w->moment_of_next[layer];
    const sq_look_map *map = &w->maps->map[layer][moment];
    const float *x = moment == SQ_LOOK_LATE ? w->a[layer] : w->h[layer - 1];
    double score[EXPERTS_MAX], lo = INFINITY, hi = -INFINITY, least = INFINITY, most = -INFINITY;
    float row[HIDDEN_MAX];
    for (int32_t e = 0; e < w->m->cfg.moe.n; e++) {
        sq_weight_row(&map->now, e, row);
        score[e] = 0;
        for (int32_t i = 0; i < w->m->cfg.hidden; i++) score[e] += (double)row[i] * (double)x[i];
        lo = fmin(lo, score[e]), hi = fmax(hi, score[e]);
        bool in = false;
        for (int32_t i = 0; i < n; i++) in |= experts[i] == e;
        if (in)
            least = fmin(least, score[e]);
        else
            most = fmax(most, score[e]);
    }
    s->looked++;
    s->wrong += least < most - 0.03 * (hi - lo);
}

static void score_tap(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m) {
    observer *w = &((scorer *)user)->w;
    (void)ld, (void)m;
    if (tap == SQ_TAP_ATTN_IN) memcpy(w->a[layer], x, (size_t)w->m->cfg.hidden * sizeof *x);
    if (tap == SQ_TAP_FFN_IN) memcpy(w->h[layer], x, (size_t)w->m->cfg.hidden * sizeof *x);
    if (tap == SQ_TAP_ATTN_IN) w->moment_of_next[layer] = SQ_LOOK_LATE;
    if (tap == SQ_TAP_FFN_IN && layer + 1 < w->m->cfg.n_layers) w->moment_of_next[layer + 1] = SQ_LOOK_EARLY;
}

static void the_likeliest_by_the_routers_are_guessed(void **state) {
    (void)state;
    static scorer k;
    for (size_t i = 0; i < SQ_COUNT(models); i++) {
        run x = open_model(models[i]);
        squish_error err = {0};
        int32_t ids[N_IDS];
        sq_look_maps *maps;
        memset(&k, 0, sizeof k);
        make_ids(ids, N_IDS, x.m->cfg.n_vocab);
        assert_ok(sq_look_maps_new(&maps, x.m, SQ_LOOK_ROUTER, &x.m->alloc, &err), &err);
        k.w.m = x.m;
        k.w.maps = maps;
        const sq_look_options o = {
            .extra = 1, .unwatched = true, .hint_extra = true, .hint = score_hint, .user = &k};
        sq_look *l = new_look(&x, maps, &o);
        sq_forward_set_look(x.e->f, l);
        sq_forward_set_tap(x.e->f, score_tap, &k);
        for (int32_t t = 0; t < N_IDS; t++) assert_ok(sq_seq_append(x.s, &ids[t], 1, &err), &err);
        sq_forward_set_look(x.e->f, NULL);
        sq_forward_set_tap(x.e->f, NULL, NULL);
        assert_true(k.looked >= N_IDS);
        assert_int_equal(k.wrong, 0);
        sq_look_free(l);
        sq_look_maps_free(maps);
        run_close(&x);
    }
}

/* ---- sequences beside each other -------------------------------------------------------------- */

static void each_sequence_is_remembered_for_itself(void **state) {
    (void)state;
    static const int32_t beside[] = {1, 2, 5};
    run x = open_model(models[0]);
    squish_error err = {0};
    int32_t ids[N_IDS];
    sq_look_stats s;
    sq_look_count first[LAYERS_MAX][SQ_LOOK_MOMENTS];
    make_ids(ids, N_IDS, x.m->cfg.n_vocab);
    squish_seq_truncate(x.s, 0);
    for (sq_look_kind kind = SQ_LOOK_T0; kind <= SQ_LOOK_CALIBRATED; kind++) {
        sq_look_maps *maps;
        if (kind == SQ_LOOK_CALIBRATED)
            maps = make_maps(x.m, noise, 3, 4);
        else
            assert_ok(sq_look_maps_new(&maps, x.m, kind, &x.m->alloc, &err), &err);
        for (size_t k = 0; k < SQ_COUNT(beside); k++) {
            const sq_look_options o = {.extra = 1, .rows_max = 8, .unwatched = true};
            sq_look *l = new_look(&x, maps, &o);
            assert_ok(sq_look_run(x.e, l, ids, N_IDS - 1, 8, beside[k], NULL, NULL, &err), &err);
            sq_look_get_stats(l, &s);
            assert_true(s.all.tokens > 0);
            /* T0 guesses the first tokens of windows as soon as any other is known: not the same ones. */
            for (int32_t t = 0; kind != SQ_LOOK_T0 && t < s.n_layers; t++) {
                if (k == 0) memcpy(first[t], s.count[t], sizeof first[t]);
                assert_memory_equal(first[t], s.count[t], sizeof first[t]);
            }
            sq_look_free(l);
        }
        sq_look_maps_free(maps);
    }
    run_close(&x);
}

static void many_rows_are_not_guessed_for(void **state) {
    (void)state;
    run x = open_model(models[0]);
    squish_error err = {0};
    int32_t ids[N_IDS];
    sq_look_stats s;
    sq_look_maps *maps = make_maps(x.m, noise, 0, 0);
    const sq_look_options o = {.extra = 1};
    sq_look *l = new_look(&x, maps, &o);
    make_ids(ids, N_IDS, x.m->cfg.n_vocab);
    sq_forward_set_look(x.e->f, l);
    assert_ok(squish_seq_sync(x.s, ids, 32, &err), &err);
    sq_look_get_stats(l, &s);
    assert_int_equal(s.all.tokens, 0);
    assert_ok(sq_seq_append(x.s, &ids[32], 1, &err), &err);
    sq_look_get_stats(l, &s);
    assert_int_equal(s.all.tokens, x.m->cfg.n_layers);
    sq_forward_set_look(x.e->f, NULL);
    sq_look_free(l);
    sq_look_maps_free(maps);
    run_close(&x);
}

/* ---- rest ------------------------------------------------------------------------------------- */

static void count_hint(void *user, int32_t layer, const int32_t *experts, const float *weights, int32_t n) {
    (void)layer, (void)experts, (void)weights, (void)n;
    ++*(int32_t *)user;
}

/* Guesses of the last experts only: of 8, 2 are taken, and in the mean a quarter of guesses is right. */
static void a_layer_with_bad_guesses_rests(void **state) {
    (void)state;
    run x = open_model(models[0]);
    squish_error err = {0};
    int32_t ids[400], hints = 0, after = 0;
    sq_look_stats s;
    sq_look_maps *maps = make_maps(x.m, zero, 0, 0);
    const sq_look_options o = {.extra = 0, .hint = count_hint, .user = &hints};
    sq_look *l = new_look(&x, maps, &o);
    make_ids(ids, 400, x.m->cfg.n_vocab);
    sq_forward_set_look(x.e->f, l);
    for (int32_t i = 0; i < 400; i++) {
        assert_ok(sq_seq_append(x.s, &ids[i], 1, &err), &err);
        if (i == SQ_LOOK_WATCHED) after = hints;
    }
    sq_look_get_stats(l, &s);
    assert_true(2 * s.all.strict < s.all.tokens * (uint64_t)s.used);
    assert_int_equal(s.rests, x.m->cfg.n_layers);
    assert_true(after > SQ_LOOK_WATCHED);
    assert_int_equal(hints, after);
    sq_forward_set_look(x.e->f, NULL);
    sq_look_free(l);
    sq_look_maps_free(maps);
    run_close(&x);
}

/* ---- no memory -------------------------------------------------------------------------------- */

static squish_status make_all(const run *x, const squish_alloc *a, sq_look_kind kind, squish_error *err) {
    sq_look_maps *maps = NULL;
    sq_look *l = NULL;
    const sq_look_options o = {.extra = 1};
    squish_status st = sq_look_maps_new(&maps, x->m, kind, a, err);
    if (st == SQUISH_OK) st = sq_look_new(&l, x->m, x->e->b, maps, 4, &o, a, err);
    assert_true((st == SQUISH_OK) == (l != NULL));
    sq_look_free(l);
    sq_look_maps_free(maps);
    return st;
}

static void without_memory_there_is_a_status(void **state) {
    (void)state;
    run x = open_model(models[1]);
    for (sq_look_kind kind = SQ_LOOK_T0; kind <= SQ_LOOK_CALIBRATED; kind++) {
        for (int64_t n = 1;; n++) {
            struct sq_test_alloc_state s = {.fail_at = n};
            const squish_alloc a = sq_test_alloc(&s);
            squish_error err = {0};
            const squish_status st = make_all(&x, &a, kind, &err);
            assert_int_equal(s.live_blocks, 0);
            assert_int_equal(s.wrong_sizes, 0);
            if (st == SQUISH_OK) break;
            assert_int_equal(st, SQUISH_NO_MEMORY);
            assert_true(n < 1000 && err.text[0]);
        }
    }
    const sq_look_options wrong = {.extra = SQ_LOOK_EXTRA_MAX + 1};
    sq_look_maps *maps;
    sq_look *l;
    squish_error err = {0};
    assert_ok(sq_look_maps_new(&maps, x.m, SQ_LOOK_T0, &x.m->alloc, &err), &err);
    assert_int_equal(sq_look_new(&l, x.m, x.e->b, maps, 4, &wrong, &x.m->alloc, &err), SQUISH_INVALID);
    assert_null(l);
    sq_look_maps_free(maps);
    run_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_have_the_same_bits_with_any_guess),
        cmocka_unit_test(counts_are_those_of_a_second_count),
        cmocka_unit_test(what_is_remembered_is_the_token_before),
        cmocka_unit_test(the_likeliest_by_the_routers_are_guessed),
        cmocka_unit_test(each_sequence_is_remembered_for_itself),
        cmocka_unit_test(many_rows_are_not_guessed_for),
        cmocka_unit_test(a_layer_with_bad_guesses_rests),
        cmocka_unit_test(without_memory_there_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
