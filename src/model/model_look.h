/* SPDX-License-Identifier: Apache-2.0
 *
 * model_look.h - lookahead routing: which experts a layer will choose, said before it chooses.
 *
 * Where experts come from a disk, a layer that knows only behind its attention whom it wants waits for them.
 * So they are guessed, twice for each layer T with experts, and whoever reads them is told:
 *
 *   layer T - 1   attention  h = norm(x)  experts ....... early: from h, a whole layer ahead
 *   layer T       a = norm(x)  attention ................ late: from a, an attention ahead
 *                 h = norm(x)  router: the choice         counted against both, never changed by them
 *
 * A guess is only a wish to read. The router runs on the true hidden state whatever was guessed, so answers
 * have the same bits with any kind of guess, with a damaged one and with none.
 *
 *   kind         scores of layer T for a token
 *   T0           the experts that the tokens before took there, the last one's first
 *   ROUTER       T's router on h of T - 1 (its norm's weights swapped for T's); on a where T - 1 has no
 *                experts. Nothing is trained (compare FATE, arXiv:2502.12224)
 *   CALIBRATED   now h + prev p (early), now a + prev p (late), p being what T's router saw of the token
 *                before: ridge regressions to T's scores, fitted by squish calibrate --moe
 *
 * Maps are kept in 8 bits, large ones in 4, so a guess is one pass over less than a router has. What `prev`
 * gives for the next token is made when p is there, off the way to the guess.
 *
 * With many rows most experts are wanted anyway: guesses are made for steps whose rows, choosing blindly,
 * would leave 40 % of the experts alone (SQ_LOOK_UNION), of which none is a prompt.
 *
 * Threads: a sq_look belongs to the thread of its forward pass; maps never change and may be shared. */
#ifndef SQ_MODEL_LOOK_H
#define SQ_MODEL_LOOK_H

#include "model/model.h"

typedef enum { SQ_LOOK_T0, SQ_LOOK_ROUTER, SQ_LOOK_CALIBRATED } sq_look_kind;
enum { SQ_LOOK_EARLY, SQ_LOOK_LATE, SQ_LOOK_MOMENTS };

/* ---- maps (model_look_maps.c) ---------------------------------------------------------------- */

/* Scores [n] of one layer's experts at one moment. */
typedef struct {
    sq_weight now,
        prev;          /* [n][hidden] on this token's row, and on the one of the token before; rows 0: none */
    const float *bias; /* [2][n]: where the token before is known, where it is not. NULL: none */
} sq_look_map;

typedef struct {
    squish_alloc alloc;
    sq_arena arena; /* owns everything */
    sq_look_kind kind;
    int32_t n_layers;
    sq_look_map (*map)[SQ_LOOK_MOMENTS]; /* [n_layers]; NULL: T0 has none */
} sq_look_maps;

/* Maps of a kind that needs no file. m has experts. NO_MEMORY. */
squish_status sq_look_maps_new(sq_look_maps **out, const sq_model *m, sq_look_kind kind,
                               const squish_alloc *a, squish_error *err);
/* Maps of a file of squish calibrate --moe (forge_look.h writes it), for m alone. A safetensors file; of each
 * layer T with experts, M early (not of layer 0) and late:
 *   T.M.now, T.M.prev  BF16 [n][hidden]     T.M.bias  F32 [2][n]
 * and in __metadata__: squish_lookahead "1", model (sq_look_model_sum), sum (XXH3-64 of all data), tokens.
 * CORRUPT: damaged, named; INVALID: of another model; UNSUPPORTED: a later version; NOT_FOUND, IO, NO_MEMORY.
 */
squish_status sq_look_maps_open(sq_look_maps **out, const char *path, const sq_model *m,
                                const squish_alloc *a, squish_error *err);
squish_status sq_look_maps_parse(sq_look_maps **out, sq_span file, const char *name, const sq_model *m,
                                 const squish_alloc *a, squish_error *err);
void sq_look_maps_free(sq_look_maps *k);
/* What such a file is for: routers, and the norms before them, of all layers. The same for all tiers that
 * keep these as they were. */
squish_status sq_look_model_sum(const sq_model *m, const squish_alloc *a, uint64_t *out, squish_error *err);
/* Where the file of a model lies: beside what was opened. INVALID: the path is too long. */
squish_status sq_look_path(const sq_model *m, char *out, size_t n, squish_error *err);

/* ---- guesses (model_look.c) ------------------------------------------------------------------ */

/* Experts of a layer that will probably be wanted, likeliest first, each once. weights in (0, 1]. Called
 * between operations of a step, by its thread. */
typedef void (*sq_look_hint_fn)(void *user, int32_t layer, const int32_t *experts, const float *weights,
                                int32_t n);

enum {
    SQ_LOOK_EXTRA_MAX = 8,
    SQ_LOOK_WATCHED = 256, /* tokens after which a layer with less than half of its experts guessed rests, */
    SQ_LOOK_REST = 4096    /* for so many */
};

typedef struct {
    int32_t extra;    /* experts guessed beyond those a token takes, 0..SQ_LOOK_EXTRA_MAX; -1: a quarter of
                         them, at least one */
    int32_t rows_max; /* of a step with guesses; 0: as many as leave SQ_LOOK_UNION */
    bool unwatched;   /* layers do not rest: for measurements */
    bool hint_extra;  /* those beyond are hinted, too: more bytes, and no fewer stalls where it was measured
                         (docs/lookahead.md) */
    sq_look_hint_fn hint; /* NULL: guesses are counted only */
    /* Is an expert in memory just now? NULL: nobody knows. */
    bool (*has)(void *user, int32_t layer, int32_t expert);
    void *user;
} sq_look_options;

typedef struct sq_look sq_look;
/* Of a forward pass on b for m; maps outlive it. seqs: sequences whose last token is remembered, at least as
 * many as one step has. NO_MEMORY; INVALID: extra out of range. */
squish_status sq_look_new(sq_look **out, const sq_model *m, sq_backend *b, const sq_look_maps *maps,
                          int32_t seqs, const sq_look_options *o, const squish_alloc *a, squish_error *err);
void sq_look_free(sq_look *l);
/* Let f ask l, or (NULL) nobody, which costs nothing. */
void sq_forward_set_look(sq_forward *f, sq_look *l);

/* What came of guesses, of one layer at one moment. Shares are over tokens * (experts a token takes). */
typedef struct {
    uint64_t tokens;
    uint64_t strict;  /* chosen experts among as many guessed ones */
    uint64_t covered; /* ... among all guessed ones, `extra` more */
} sq_look_count;
typedef struct {
    int32_t used, extra, n_layers;
    const sq_look_count (*count)[SQ_LOOK_MOMENTS]; /* [n_layers]; lives as long as the sq_look */
    sq_look_count all;                             /* of the last guess of each layer */
    uint64_t layers;                               /* layers, step by step, that guesses were made for; */
    uint64_t ns;                                   /* and the time it took: maps, choice, counting, hints */
    uint64_t rests;                                /* times a layer began to rest */
    uint64_t needed, resident; /* experts that a step wanted, of all steps, and those in memory then */
} sq_look_stats;
void sq_look_get_stats(const sq_look *l, sq_look_stats *out);
/* The same without `count`, as they were at some step: from any thread. */
void sq_look_get_totals(const sq_look *l, sq_look_stats *out);
void sq_look_reset(sq_look *l); /* counts to 0, nobody remembered */

/* (for the forward pass) A step of these segments begins; the first m rows, all of them rows of `segs`, may
 * be guessed for. */
void sq_look_begin(sq_look *l, const sq_step_seg *segs, int32_t n_segs, int32_t m);
/* h: a, before the attention of a layer. */
void sq_look_attention(sq_look *l, int32_t i_layer, const sq_rows *h);
/* What a layer's router chose: held against the guesses, before anybody asks for these experts. */
void sq_look_routed(sq_look *l, int32_t i_layer, const sq_routes *r);
/* h of a layer's second block; r: what its router chose, which was routed; NULL: it has none. */
void sq_look_block(sq_look *l, int32_t i_layer, const sq_rows *h, const sq_routes *r);

#endif
