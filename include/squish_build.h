/* SPDX-License-Identifier: Apache-2.0
 *
 * squish_build.h - libsquish's part that makes models ready to run: quantised tiers, calibration, what fits
 * where, what is left of a source, exchange with other formats. Habits as in squish.h. */
#ifndef SQUISH_BUILD_H
#define SQUISH_BUILD_H

#include "squish.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- building tiers -------------------------------------------------------------------------- */

/* How codes of 4 bits and fewer are found. */
typedef enum {
    SQUISH_METHOD_RTN,  /* rounding, as MLX does */
    SQUISH_METHOD_LSQ,  /* least squares; with a calibration, weighted by the inputs' mean squares */
    SQUISH_METHOD_AWQ,  /* columns scaled by activation (arXiv:2306.00978), then LSQ; needs a calibration */
    SQUISH_METHOD_GPTQ, /* error propagation (arXiv:2210.17323); needs a calibration with Hessians */
    SQUISH_METHOD_MILO  /* LSQ with low-rank compensators (MiLo, arXiv:2504.02658) */
} squish_method;

typedef struct {
    const squish_alloc *alloc;
    const char *out_dir; /* NULL: SRC-compressed beside the source, or in the store where that is read-only */
    const char *home;    /* the store; NULL: $SQUISH_HOME or ~/.squish */
    squish_tier tier;    /* any but AUTO and SOURCE */
    squish_method method;    /* of 4 bits and fewer; default LSQ */
    const char *calibration; /* file of squish_calibrate; NULL: SRC-compressed/calibration.safetensors where
                                the method needs one; "" with LSQ: none */
    int32_t rank;            /* MILO: of every compensator; 0: by gain per byte under rank_bpw */
    double rank_bpw;         /* MILO: bits per weight spent on compensators; 0: 0.15 */
    bool unchecked;          /* do not measure what came out; its quality is then "unverified" */
    bool allow_collapsed;    /* publish it although it collapsed */
    bool refine;             /* replace a ready tier that another method made */
    int32_t bits;            /* tier q8: 8; tier 0: 4, 3, 2, or 1 for ternary weights; 0: 8 or 4 */
    int32_t group;           /* 64; 32 with 8 or 4 bits; 0 with 8 bits: one scale per row */
    int32_t threads;         /* 0: all */
    bool force;              /* rebuild although a valid tier is there */
    bool resume;             /* go on with a build that was stopped or killed, if it is there and the same */
    bool requantise;         /* weights that come quantised: make new codes instead of keeping theirs */
    squish_progress_fn progress;
    void *progress_user;
} squish_compress_options;
squish_compress_options squish_compress_options_default(void);

typedef struct {
    char file[1024];
    uint64_t bytes, source_bytes;
    double bits_per_weight, seconds, gb_per_s; /* of source bytes */
    double peak_anon_mb;
    int32_t n_quantised, n_passthrough;
    double cos_mean, cos_min, snr_db_min; /* over quantised tensors */
    char worst_tensor[128];
    bool reused;            /* a valid tier was there already */
    uint64_t resumed_bytes; /* of the file that an earlier run had made */
    int32_t n_fallback;     /* tensors that method could not make: LSQ was taken, the report says why */
    squish_quality quality;
    double ppl_ratio, agreement, kl; /* against the source on held-out text; 0 where not measured */
    double check_seconds;            /* of measuring, not part of seconds */
    char verdict[160];               /* what decided the quality */
    char skipped[160];               /* why nothing was built (tiers 2 and 3 of large models), or "" */
} squish_compress_result;
/* Build one tier of a model: a Hugging Face or MLX directory, a GGUF file, or a tier 1. Crash-safe:
 * either the finished tier appears or nothing does. Tiers 0 and q8 that were cancelled, killed or ran out of
 * disk can be resumed; `file` of tiers 2 and 3 is their folder.
 * Errors: NOT_FOUND, CORRUPT, UNSUPPORTED, NO_SPACE, IO, CANCELLED, NO_MEMORY, QUALITY (weights that are not
 * ternary; what came out, or is there already, has collapsed), INVALID (also a tier that is there with other
 * bits, group or method, unless force). */
squish_status squish_compress(const char *src, const squish_compress_options *opt,
                              squish_compress_result *out, squish_error *err);
/* What squish_compress would make and how long it would take: the size by the exact layout, seconds by
 * encoding a sample of this model on this machine (some tenths of a second), without writing and checking.
 * seconds is 0 where there is no saying: methods that look at whole matrices, copies. Nothing is written.
 * Errors as above. */
typedef struct {
    uint64_t bytes, source_bytes;
    double seconds, gb_per_s; /* of source bytes */
} squish_compress_estimate;
squish_status squish_compress_expect(const char *src, const squish_compress_options *opt,
                                     squish_compress_estimate *out, squish_error *err);
/* The file squish_compress would make (or has made) for tier o->tier of src. IO if
 * no place can be written. `ready` may be NULL. */
squish_status squish_tier_path(const char *src, const squish_compress_options *opt, squish_text *file,
                               bool *ready, squish_error *err);

/* ---- calibration ----------------------------------------------------------------------------- */

typedef struct {
    const char *text; /* UTF-8; NULL: the built-in mix, some 6000 to 9000 tokens */
    size_t text_bytes;
    const char *home;   /* the store; NULL: $SQUISH_HOME or ~/.squish */
    int32_t tokens_max; /* 0: 16384; of a shorter text, all */
    int32_t window;     /* tokens of a sequence; 0: 512 */
    int32_t block;      /* columns of a Hessian block: a multiple of 64 up to 4096; 0: 1024; 1: none, only
                           the diagonal (a hundredth of the memory; enough for LSQ and AWQ) */
    int32_t threads;    /* 0: all */
    squish_progress_fn progress;
    void *progress_user;
} squish_calibrate_options;
squish_calibrate_options squish_calibrate_options_default(void);
typedef struct {
    char file[1024];
    uint64_t bytes;
    int32_t tokens, n_inputs;
    double seconds;
} squish_calibrate_result;
/* Run text through the model and record what goes into its matrices: mean |x|, mean x^2 and x x^T summed, per
 * shared input, into `out` (a safetensors file; NULL: where squish_compress looks for it). The file appears
 * whole or not at all. Errors: INVALID (text too short, block), NO_MEMORY (with what it would take),
 * CANCELLED, IO, NO_SPACE. */
squish_status squish_calibrate(const squish_model *m, const char *out, const squish_calibrate_options *opt,
                               squish_calibrate_result *r, squish_error *err);

/* Fit maps that guess experts (squish_lookahead) to a text and write them into `out`; NULL: where engines
 * look for them, MODEL.lookahead beside what was opened. block is not read. The file appears whole or not at
 * all. Errors: UNSUPPORTED (no experts), and as above. */
squish_status squish_calibrate_lookahead(const squish_model *m, const char *out,
                                         const squish_calibrate_options *opt, squish_calibrate_result *r,
                                         squish_error *err);

/* Train codebooks of keys and values (squish_batch_options.snapshot_codec) on a text and measure what they
 * cost on its end, which they do not see: KL to f16 over 200 tokens behind a prefix that came from codes,
 * and pass keys found in it, if the model has a template. Into `out`; NULL: where engines look for them,
 * MODEL.codec beside what was opened. window and block are not read; tokens_max: of training. The file
 * appears whole or not at all, with what was measured in it, also where it is not enough: then it is refused.
 * Errors: UNSUPPORTED (latents, odd heads), and as above. */
typedef struct {
    squish_calibrate_result file;
    int32_t prefix, continued, stretches; /* tokens behind which KL was measured, tokens of each, how often */
    double kl;                            /* nats */
    int32_t trials, found_f16, found;     /* pass keys; trials 0: there is no template */
    double bytes_token, bytes_token_f16;  /* of codes, before what is left to the entropy coder */
    double encode_us, decode_us;          /* of a vector, one thread */
    double restore_us, prefill_us;        /* of a token: decoding it into pages; computing it */
    bool passed;
    char why[480];                        /* not */
} squish_codec_result;
squish_status squish_calibrate_codec(const squish_model *m, const char *out,
                                     const squish_calibrate_options *opt, squish_codec_result *r,
                                     squish_error *err);

/* What guesses are worth on a text, which runs token by token. */
typedef struct {
    int32_t layer;        /* whose experts were guessed; -1: the mean, of the last guess of each */
    int32_t moment;       /* 0: from behind the attention of the layer before; 1: from before its own */
    int64_t tokens;       /* times layers, in the mean */
    double strict;        /* chosen experts among the k likeliest, over k */
    double covered;       /* ... among the k + extra likeliest, over k */
} squish_lookahead_row;
typedef void (*squish_lookahead_fn)(void *user, const squish_lookahead_row *row);
typedef struct {
    squish_lookahead kind;
    const char *file;     /* of CALIBRATED; NULL: where it is looked for */
    int32_t extra;        /* 0..8; -1: as engines do */
    int32_t at_once;      /* windows that run beside each other, 1..32 */
} squish_lookahead_options;
typedef struct {
    int32_t experts, used, extra;
    double us_layer;      /* time a layer's guesses took, with at_once rows in a step */
} squish_lookahead_result;
/* opt: text, tokens_max, window, threads, progress. Errors: as squish_calibrate_lookahead; CORRUPT,
 * INVALID, NOT_FOUND of the file. */
squish_status squish_lookahead_measure(const squish_model *m, const squish_lookahead_options *look,
                                       const squish_calibrate_options *opt, squish_lookahead_fn fn,
                                       void *user, squish_lookahead_result *out, squish_error *err);

/* ---- heads that guess ------------------------------------------------------------------------ */

typedef struct {
    const char *text;   /* UTF-8: where the model's own text begins, besides an empty page; NULL: none */
    size_t text_bytes;
    const char *home;   /* the store; NULL: $SQUISH_HOME or ~/.squish */
    int32_t heads;      /* tokens they can guess in a row, 1..8; 0: 4 */
    int32_t ids;        /* of the vocabulary, the commonest: what they can name; 0: 2048 */
    int32_t tokens;     /* that the model writes for them to learn from; 0: 131072 */
    int32_t steps;      /* of training; 0: 600 */
    int32_t bits;       /* of their weights, 4 or 8; 0: 4 */
    int32_t threads;    /* 0: all */
    uint64_t seed;
    squish_progress_fn progress;
    void *progress_user;
} squish_heads_options;
squish_heads_options squish_heads_options_default(void);
typedef struct {
    char file[1024];
    uint64_t bytes;
    int32_t heads, tokens, steps;
    float agreement[8];           /* how often head i, given right tokens before, names the likeliest one */
    float coverage;               /* share of likeliest tokens that heads can name */
    float loss_first, loss_last;  /* nats between the model and its heads */
    double seconds;
} squish_heads_result;
/* Train heads that guess the model's next tokens (squish_spec_mode) on text that it writes itself, into `out`
 * (NULL: where squish_model_open looks for them). The model does not change. The file appears whole or not at
 * all; a seed gives one file, whatever the threads. Errors: INVALID, UNSUPPORTED, NO_MEMORY, CANCELLED,
 * NUMERIC, IO, NO_SPACE. */
squish_status squish_train_heads(const squish_model *m, const char *out, const squish_heads_options *opt,
                                 squish_heads_result *r, squish_error *err);

/* ---- planning and tidying -------------------------------------------------------------------- */

typedef struct {
    const char *home;   /* the store; NULL: $SQUISH_HOME or ~/.squish */
    uint64_t memory;    /* bytes that may be used; 0: what is available now */
    int32_t ctx_tokens; /* 0: the model's own */
    double min_tok_s;   /* 0: 8 */
    const char *policy; /* "balanced" (NULL), "quality" or "small" */
    double read_gb_s;   /* memory read rate; 0: measured now, some tenths of a second */
} squish_plan_options;
squish_plan_options squish_plan_options_default(void);
/* Which tier of the model at path would run here and why, without loading weights: one JSON object
 *   {"model", "available", "usable", "read_gb_s", "ctx", "line",
 *    "tiers": [{"tier", "ready", "bytes", "need", "fits", "tok_s", "ctx_max", "chosen"}]}
 * Tiers that are not built are listed with the size they would have. */
squish_status squish_plan(const char *path, const squish_plan_options *opt, squish_text *json,
                          squish_error *err);

/* One thing that can go: path, bytes, and why. Return false to keep it. */
typedef bool (*squish_gc_fn)(void *user, const char *path, uint64_t bytes, const char *why);
typedef struct {
    squish_tier keep; /* AUTO: every ready tier stays, only leftovers go; else the other tiers go, too */
    bool drop_source; /* weights of the checkpoint go as well, once the kept tier was read back whole */
    bool dry_run;     /* name it, remove nothing */
    squish_gc_fn fn;  /* asked about each thing; NULL: yes */
    void *user;
} squish_gc_options;
/* Remove what a model at path no longer needs: leftovers of builds, tiers that are not kept, calibration
 * never. A source is only dropped where a ready tier passes a full check of its bytes. *freed (may be NULL):
 * bytes that went, or would. Errors: NOT_FOUND, INVALID (nothing would be left), CORRUPT (the kept tier is
 * damaged), IO. */
squish_status squish_gc(const char *path, const char *home, const squish_gc_options *opt, uint64_t *freed,
                        squish_error *err);

/* ---- fidelity -------------------------------------------------------------------------------- */

typedef struct {
    const char *const *prompts; /* for first_token_agreement; NULL: five short ones */
    int32_t n_prompts;
    int32_t threads;   /* 0: all */
    bool weights_only; /* run nothing */
    squish_progress_fn progress;
    void *progress_user;
} squish_fidelity_options;
squish_fidelity_options squish_fidelity_options_default(void);
/* What is left of `source` in `model`, as one JSON object: weights tensor by tensor and in all (fields in
 * forge_fidelity.h), and per prompt the first token of both ("first_tokens", "first_token_agreement" 0..1).
 * Errors: INVALID (not the same architecture and sizes), CANCELLED, NO_MEMORY. */
squish_status squish_fidelity(const squish_model *source, const squish_model *model,
                              const squish_fidelity_options *opt, squish_text *json, squish_error *err);

/* ---- exchange -------------------------------------------------------------------------------- */

typedef struct {
    const char *assets; /* folder with tokenizer.json and the like; NULL: where the model came from */
    squish_progress_fn progress;
    void *progress_user;
} squish_export_options;
typedef struct {
    uint64_t bytes;
    int32_t n_exact;    /* matrices whose codes, or floats, went over as they are */
    int32_t n_decoded;  /* matrices that the other format cannot hold: written as F16 */
    bool has_tokenizer; /* tokenizer.json went along */
} squish_export_result;
/* Write the model in the form of others: "mlx", a new folder; "gguf", one file (Q4_0, Q4_1, Q8_0, F16, BF16,
 * F32, blocks as they lie; else F16, or F32 beyond its range); "safetensors", a new folder with a checkpoint;
 * "npy", a new folder as tier 2 (F16 where that is exact, else F32). Errors: INVALID (out is there, or an
 * unknown form), UNSUPPORTED (the form has no place for it, named), IO, NO_SPACE, NO_MEMORY, CANCELLED. */
squish_status squish_export(const squish_model *m, const char *to, const char *out,
                            const squish_export_options *opt, squish_export_result *r, squish_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
