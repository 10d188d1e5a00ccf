/* SPDX-License-Identifier: Apache-2.0
 *
 * squish.h - the public header of libsquish: open a model, make answers. What builds, plans and tidies models
 * is in squish_build.h.
 *
 * Three nouns carry the core. A *model* is immutable once open and may be shared by threads. An *engine* owns
 * threads, kernels, cache memory and scratch for one model. A *seq* is one mutable timeline of tokens with
 * its key/value cache. A *gen* is one answer in the making on a seq.
 *
 *     squish_model *m;  squish_engine *e;  squish_seq *s;  squish_gen *g;  squish_error err = {0};
 *     squish_model_open(&m, "model.sqw", NULL, &err);
 *     squish_engine_new(&e, m, NULL, &err);
 *     squish_seq_new(&s, e, &err);
 *     squish_gen_new(&g, s, ids, n_ids, NULL, &err);
 *     while (squish_gen_next(g, &ev, &err) == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE)
 *         fwrite(ev.text, 1, ev.text_bytes, stdout);
 *
 * Habits. The out-parameter comes first, the error last and may be NULL. An options struct comes from its
 * ..._default() function; NULL means the defaults. If a constructor fails the caller owes nothing. Every
 * release function accepts NULL. The library never prints, exits or aborts, and needs no global set-up.
 * Unless said otherwise a handle is used by one thread at a time; different handles are independent, and
 * engines may share a model. */
#ifndef SQUISH_H
#define SQUISH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define SQUISH_VERSION_MAJOR 0
#define SQUISH_VERSION_MINOR 1
#define SQUISH_VERSION_PATCH 0
#define SQUISH_VERSION "0.1.0"

/* ---- errors ---------------------------------------------------------------------------------- */

/* One list of codes, names and texts. */
#define SQUISH_STATUS_LIST(X)                                                     \
    X(OK, "ok")                                                                   \
    X(INVALID, "the caller passed something wrong")                               \
    X(CORRUPT, "the data is damaged or hostile")                                  \
    X(UNSUPPORTED, "valid, but not supported here")                               \
    X(NO_HARDWARE, "this machine cannot do it")                                   \
    X(NO_MEMORY, "out of memory or over the budget")                              \
    X(IO, "the system refused")                                                   \
    X(CANCELLED, "stopped on request")                                            \
    X(NOT_FOUND, "no such model, file or name")                                   \
    X(QUALITY, "the result is too poor to use")                                   \
    X(NO_SPACE, "no room left on the disk")                                       \
    X(NETWORK, "the network failed")                                              \
    X(NUMERIC, "the model produced values that are not numbers")                  \
    X(BUSY, "full, closing or in use; later it may work")                         \
    X(TIMEOUT, "the deadline passed")

typedef enum {
#define SQUISH_STATUS_ENUM(name, text) SQUISH_##name,
    SQUISH_STATUS_LIST(SQUISH_STATUS_ENUM)
#undef SQUISH_STATUS_ENUM
        SQUISH_STATUS_COUNT
} squish_status;

/* What went wrong, in one line that names the thing, the value found and the value wanted. The first cause
 * wins; callers may put context in front of it. Zero-initialise before use. */
typedef struct {
    squish_status code;
    char text[480];
} squish_error;

const char *squish_status_name(squish_status code); /* "CORRUPT"; "?" for an unknown code */
const char *squish_status_text(squish_status code); /* the sentence of the list above */

/* ---- memory, progress, logging --------------------------------------------------------------- */

/* All heap memory of the library goes through one function: resize `ptr` from old_bytes to new_bytes.
 * ptr NULL means allocate, new_bytes 0 means free (returns NULL). Returns NULL on failure, the old block then
 * stays valid. Must be safe to call from several threads. */
typedef struct {
    void *(*resize)(void *user, void *ptr, size_t old_bytes, size_t new_bytes);
    void *user;
} squish_alloc;

/* Called now and then during long work: `what` names it ("compress"), done and total are in bytes or items.
 * Return false to stop: the operation then ends with SQUISH_CANCELLED and leaves nothing half-made. */
typedef bool (*squish_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* One line of warning without a newline. May be called from any thread. */
typedef void (*squish_warn_fn)(void *user, const char *line);

const char *squish_version(void); /* SQUISH_VERSION of the library that is linked */
/* Version, commit and architecture of the build, e.g. "0.1.0 (1a2b3c4) x86_64". Static storage. */
const char *squish_build_info(void);

/* Bytes the library hands out for the caller to keep: text or tokens. data is NUL-terminated for text. */
typedef struct {
    char *data;
    size_t bytes;
    squish_alloc alloc; /* who allocated it */
} squish_text;
typedef struct {
    int32_t *ids;
    size_t count;
    squish_alloc alloc;
} squish_tokens;
void squish_text_free(squish_text *t);
void squish_tokens_free(squish_tokens *t);

/* ---- models ---------------------------------------------------------------------------------- */

typedef struct squish_model squish_model;
typedef struct squish_engine squish_engine;
typedef struct squish_seq squish_seq;
typedef struct squish_gen squish_gen;
typedef struct squish_grammar squish_grammar;

/* Which weights of a model directory to run. AUTO prefers a ready tier 0, then q8, then the source. */
typedef enum {
    SQUISH_TIER_AUTO,
    SQUISH_TIER_0,     /* squish_4bit/model.sqw: INT4 group 64 */
    SQUISH_TIER_Q8,    /* squish_q8/model.sqw: INT8 */
    SQUISH_TIER_SOURCE,/* the checkpoint's own dtype, as it lies */
    SQUISH_TIER_1,     /* squish_weights.safetensors: the checkpoint's bytes in one file */
    SQUISH_TIER_2,     /* finalized/NAME.npy: f16 */
    SQUISH_TIER_3      /* tensors/NAME__q.npy and their scales: INT8 by row, for exchange */
} squish_tier;

/* What a build was measured to be, over held-out text, against its source. */
typedef enum {
    SQUISH_QUALITY_UNVERIFIED,
    SQUISH_QUALITY_OK,
    SQUISH_QUALITY_DEGRADED,
    SQUISH_QUALITY_COLLAPSED
} squish_quality;
const char *squish_quality_name(squish_quality q); /* "unverified", "ok", ... */

/* A LoRA adapter (Hu et al., 2021, arXiv:2106.09685) that runs beside the weights: a PEFT folder
 * (adapter_config.json, adapter_model.safetensors) or a GGUF adapter. Its terms are multiplied by scale. */
typedef struct {
    const char *path;
    float scale;
} squish_lora;

typedef struct {
    const squish_alloc *alloc; /* NULL: malloc; copied */
    squish_tier tier;
    bool verify;      /* read every byte and compare checksums before use (default false: tables only) */
    bool text_only;   /* open tokenizer and template only; engines cannot be made on it */
    bool allow_collapsed; /* open a tier whose measured quality is "collapsed" (else QUALITY) */
    const squish_lora *loras; /* [n_loras], in order; at most 16 */
    int32_t n_loras;
    const char *heads; /* file of heads that guess (squish_train_heads); NULL: the one beside the tiers or
                          the checkpoint, if there is one; "none": without. One that cannot be used is told
                          warn */
    squish_warn_fn warn;     /* may be called as long as the model is open */
    void *warn_user;
} squish_model_options;
squish_model_options squish_model_options_default(void);

/* Open a model: a Hugging Face or MLX directory, a directory of ours (NAME-compressed), a .sqw or a GGUF
 * file. Weights are mapped, never copied. Errors: NOT_FOUND, IO, CORRUPT, UNSUPPORTED, QUALITY (a collapsed
 * tier), INVALID (an adapter that does not fit), NO_MEMORY. */
squish_status squish_model_open(squish_model **out, const char *path, const squish_model_options *opt,
                                squish_error *err);
/* Engines on the model must be freed first. */
void squish_model_close(squish_model *m);

typedef struct {
    const char *path;         /* file or directory actually opened */
    const char *architecture; /* "qwen2", "llama", ... */
    const char *tier;         /* "0", "q8", "source", or "gguf" (text only) */
    const char *weight_types; /* e.g. "int4-g64, embedding int8-g64" */
    uint64_t n_params;        /* weights of the network, tied tables counted once */
    uint64_t weight_bytes;    /* bytes mapped for weights */
    double bits_per_weight;
    int32_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, n_experts, n_experts_used;
    int32_t n_vocab;          /* rows of the embedding: logits per position */
    int32_t n_vocab_tokens;   /* ids the tokenizer knows; higher logits are padding and never sampled */
    int32_t ctx_train;        /* positions the model was trained for */
    int32_t window;           /* sliding window in tokens of the windowed layers, 0 = none */
    bool tied_head, has_tokenizer, has_template;
    int32_t guess_heads;      /* heads that guess (squish_train_heads); 0: none */
    squish_quality quality;   /* of a tier, when it was made */
    double load_ms;           /* open to ready */
} squish_model_info;
/* Strings live as long as the model. */
void squish_model_get_info(const squish_model *m, squish_model_info *out);

/* Iterate tensors, i in [0, n). Returns false past the end. Strings live as long as the model. */
typedef struct {
    const char *name, *type;
    int32_t layer; /* -1: not in a layer */
    uint64_t rows, cols, bytes;
} squish_tensor_info;
bool squish_model_tensor(const squish_model *m, size_t i, squish_tensor_info *out);

/* The model's own config.json / generation_config.json text, or NULL. Lives as long as the model. */
const char *squish_model_config_json(const squish_model *m);
const char *squish_model_generation_json(const squish_model *m);

/* ---- text ------------------------------------------------------------------------------------ */

enum {
    SQUISH_TOK_SPECIAL = 1, /* control tokens written in the text are recognised (never for user content) */
    SQUISH_TOK_BOS_EOS = 2  /* add what the model's post-processor adds */
};
/* Text (UTF-8; ill-formed bytes are read as U+FFFD) to ids. Free with squish_tokens_free.
 * Errors: UNSUPPORTED (no tokenizer), NO_MEMORY, INVALID. Safe from several threads. */
squish_status squish_tokenize(const squish_model *m, const char *text, size_t bytes, unsigned flags,
                              squish_tokens *out, squish_error *err);
/* Ids to text; the result is valid UTF-8 (ill-formed bytes become U+FFFD). with_special keeps control tokens.
 * Errors: INVALID (an id out of range, named). */
squish_status squish_detokenize(const squish_model *m, const int32_t *ids, size_t n, bool with_special,
                                squish_text *out, squish_error *err);
/* Raw bytes of one token as it stands in text; false if the id is out of range. Lives as long as the model.
 */
bool squish_token_bytes(const squish_model *m, int32_t id, const char **bytes, size_t *n);
int32_t squish_token_bos(const squish_model *m);              /* -1: none */
bool squish_token_is_eos(const squish_model *m, int32_t id);  /* ends a turn or the text */
bool squish_token_is_control(const squish_model *m, int32_t id);

typedef struct {
    const char *messages_json;  /* array of {role, content, ...}; required */
    const char *tools_json;     /* array or NULL */
    const char *vars_json;      /* object of extra variables or NULL */
    const char *template_source;/* Jinja source instead of the model's, or NULL */
    bool add_generation_prompt; /* default true */
    int64_t now_unix;           /* strftime_now's clock; 0: the system clock */
} squish_template_options;
squish_template_options squish_template_options_default(void);
/* Render the chat template. m may be NULL if template_source is given (bos/eos then come from vars_json).
 * Errors: UNSUPPORTED (no template, or a construct we do not read), INVALID (messages, or the template's own
 * raise_exception: its words are in err), NO_MEMORY. Safe from several threads. */
squish_status squish_template_render(const squish_model *m, const squish_template_options *opt,
                                     squish_text *out, squish_error *err);
/* Template source, or NULL. Lives as long as the model. */
const char *squish_model_template(const squish_model *m);

/* ---- grammars -------------------------------------------------------------------------------- */

/* What an answer may look like: a squish_gen_options.grammar leaves a model only tokens that keep the answer
 * a beginning of a word of a language, and an end only where it is a whole one. An answer is never made
 * without it: what cannot be compiled is refused. */
typedef enum {
    SQUISH_GRAMMAR_REGEX,  /* the whole answer matches; ECMA syntax without look-around, back references,
                              \b and \p */
    SQUISH_GRAMMAR_GBNF,   /* as llama.cpp reads it; starts at the rule `root` */
    SQUISH_GRAMMAR_SCHEMA, /* JSON valid for a JSON Schema, white space bounded (docs/grammar.md) */
    SQUISH_GRAMMAR_SCHEMA_LOOSE, /* the same with any white space: for reading, not for answers */
    SQUISH_GRAMMAR_JSON,         /* any JSON object, 64 values in each other at most; source is not read */
    SQUISH_GRAMMAR_TAGS, /* structural tags, as JSON (docs/grammar.md): free text in which triggers open
                            tags with contents of their own; names of control tokens mean the tokens */
    SQUISH_GRAMMAR_EBNF, /* of the W3C or of ISO 14977; starts at `root`, or at the first rule */
    SQUISH_GRAMMAR_LARK, /* Lark without templates and imports of others; starts at `start` */
    SQUISH_GRAMMAR_TEXT  /* one of the last two or GBNF, told apart by what stands in it (docs/grammar.md) */
} squish_grammar_kind;
/* Compile a source of bytes for the vocabulary of m, which must outlive the grammar. Safe to use from several
 * threads; what it learns while answers are made is shared by them. Errors: INVALID (syntax, with the place),
 * UNSUPPORTED (a construct or keyword, by name), NO_MEMORY (a limit, by name). */
squish_status squish_grammar_new(squish_grammar **out, const squish_model *m, squish_grammar_kind kind,
                                 const char *source, size_t bytes, squish_error *err);
void squish_grammar_free(squish_grammar *g); /* answers that use it go on */
/* What schemas of TAGS are not kept to in, where their elements allow that ("relax"): JSON pointers behind
 * the schemas' names, "weather#/properties/day/pattern, ..."; "": nothing. Lives as long as the grammar. */
const char *squish_grammar_relaxed(const squish_grammar *g);
/* Text that the grammar forces is cut into tokens as the tokenizer cuts it, without asking the model, which
 * might cut it otherwise. Call it before an answer uses the grammar. */
void squish_grammar_cut_canonically(squish_grammar *g);
/* Memory it holds by now: a grammar learns while answers are made with it. */
uint64_t squish_grammar_bytes(const squish_grammar *g);
/* Is the text a word of the language, read token by token as the model's tokenizer cuts it? */
typedef struct {
    bool accepted;
    size_t valid_bytes;        /* of the longest beginning that could still become a word, in whole tokens */
    double compile_ms;
    int32_t n_tokens;
    double mask_us[4], advance_us[4]; /* median, 90 %, 99 %, largest, over the tokens of the text */
    double cold_us[4];         /* masks of the first of the runs */
} squish_grammar_report;
/* runs: times the text is read; from the second on masks are there already. Errors: as for an answer. */
squish_status squish_grammar_check(const squish_grammar *g, const squish_model *m, const char *text,
                                   size_t bytes, int32_t runs, squish_grammar_report *out, squish_error *err);

/* ---- engines and timelines ------------------------------------------------------------------- */

/* How keys and values are kept. Q8 to Q2: fewer bits for old tokens (docs/kv.md); F32: slow, to verify. */
typedef enum { SQUISH_KV_F16, SQUISH_KV_F32, SQUISH_KV_Q8, SQUISH_KV_K8V4, SQUISH_KV_Q4, SQUISH_KV_K4V2,
               SQUISH_KV_Q2 } squish_kv;
const char *squish_kv_name(squish_kv kv); /* "f16" to "q2"; NULL: none */
bool squish_kv_from_name(const char *name, squish_kv *out);
/* What the tokens of long prompts leave out of their past, to be evaluated faster. Both are approximations
 * and off by default; tokens that were drawn attend exactly in any case. They need SQUISH_KV_F16. */
typedef struct {
    bool sage;            /* SageAttention: whole chunks of 256 tokens behind are read in 8 bits. Changes
                             results a little, and the same way however a prompt is cut */
    bool sparge;          /* SpargeAttn: only blocks of 64 keys that a prediction gives weight to. Changes
                             results; prompts cut in other places may differ too */
    int32_t sparge_min;   /* position of a prompt from which on; default 8192 */
    float sparge_mass;    /* share of the predicted weight that is read, (0, 1]; default 0.95 */
    int32_t sage_bits;    /* 8 (or 0); 4 bits are refused: no processor here multiplies them */
} squish_attention;

/* What becomes of old tokens beyond their format: docs/kv.md, "One policy". residual and sink are a matter of
 * taste; pm and cocktail lose something that depends on the text, are off by default, and work where a prompt
 * ends, in tiles that no other timeline reads. What does not go together is refused when an engine is made,
 * by the names of both options. */
typedef enum { SQUISH_KV_ROTATE_AUTO, SQUISH_KV_ROTATE_OFF, SQUISH_KV_ROTATE_KEYS } squish_kv_rotate;
typedef struct {
    int32_t residual;     /* tokens before a query that are read as computed: a multiple of 32; default 128 */
    int32_t sink;         /* first tokens, likewise; default 32 */
    squish_kv_rotate rotate; /* AUTO: values of 4 and 2 bits are stored rotated; KEYS is refused */
    const char *floors;   /* "LAYER:RUNG,...", RUNG one of q2 q4 q8: a layer's fewest bits. NULL: none */
    bool pm;              /* PM-KVQ: fewer bits with age */
    int32_t pm_age[3];    /* in tokens: from when on 8 bits, 4 bits, pm_floor; default 256, 1024, 4096 */
    int32_t pm_floor;     /* bits of the oldest, 4 or 2; default 2 */
    uint64_t pm_budget;   /* bytes behind a prompt; beyond, the oldest go down before their age. 0: none */
    bool mix; /* MixKVQ: keys of 4 and 2 bits have channels of 16, 4 and 2; heads of 256 at most */
    bool cocktail;        /* CocktailKV: chunks of a prompt that its end looks at keep more bits */
    float cocktail_high, cocktail_low; /* shares of chunks in 16 and in 2 bits, the rest takes 4; 0.15, 0.5 */
    int32_t cocktail_chunk; /* tokens of a chunk: a multiple of 32; default 32 */
    bool cocktail_embed;  /* chunks are judged by the mean of their embeddings, not by attention */
    int32_t snap;         /* SnapKV: tokens of a prompt that stay, sink and window included, a multiple of 32;
                             0: all. The rest is dropped where the prompt ends */
    uint64_t budget;      /* bytes of the whole cache, never exceeded: where they are used up the oldest
                             tokens take a rung less, down to pm_floor; then what wants more is refused. 0:
                             none */
    int32_t snap_window;  /* last tokens of a prompt, which judge and stay; a multiple of 32; default 32 */
    bool flash_mla;       /* attention on latents: only models that have them */
} squish_kv_options;
squish_kv_options squish_kv_options_default(void);

/* Which experts a layer will choose is guessed before it chooses, so that they can be read meanwhile
 * (docs/lookahead.md). A guess never changes an answer. */
typedef enum {
    SQUISH_LOOKAHEAD_AUTO,       /* CALIBRATED where there are maps, else ROUTER */
    SQUISH_LOOKAHEAD_OFF,
    SQUISH_LOOKAHEAD_T0,         /* those of the tokens before */
    SQUISH_LOOKAHEAD_ROUTER,     /* the layer's router, on the hidden state as it is a layer before */
    SQUISH_LOOKAHEAD_CALIBRATED  /* maps of squish_calibrate_lookahead */
} squish_lookahead;
const char *squish_lookahead_name(squish_lookahead k); /* "auto", "off", "t0", ...; NULL: none */
bool squish_lookahead_from_name(const char *name, squish_lookahead *out);

/* Weights that do not fit (docs/io.md): a .sqw container may be read in units, again and again, into as much
 * memory as is left beside cache and scratch. Answers keep their bits. */
typedef struct {
    bool on;              /* where weights do not fit; else they are mapped, or the engine is refused */
    bool on_demand;       /* nothing is read ahead: slow, for measurements */
    bool cold;            /* FILE.sqw.heat, what earlier runs asked for, is neither used nor kept: likewise */
    const char *backend;  /* "io_uring", "pread"; NULL: io_uring where it can be had */
    squish_lookahead lookahead; /* of experts, where they are read ahead */
} squish_agile;

typedef struct {
    int32_t threads;      /* 0: what the machine and its cgroup give */
    int32_t ctx_tokens;   /* longest timeline; 0: the model's own, as far as memory allows */
    int32_t chunk_tokens; /* prompt tokens per step, 1..2048; default 256. Never changes results */
    uint64_t kv_bytes_max;/* cap on cache memory; 0: what ctx_tokens needs */
    uint64_t memory_limit;/* of weights, cache and scratch together; 0: 90 % of what is available */
    squish_agile agile;
    squish_kv kv;
    squish_kv_options kv_options;
    squish_attention attention;
    const squish_model *draft; /* guesses the next tokens (SQUISH_SPEC_DRAFT, and AUTO where it pays): a
                             smaller model of the same vocabulary, open as long as the engine is; NULL: none.
                             Its weights, cache and scratch are counted in scratch_bytes */
    int32_t skip_layers;  /* first layers that guess with SQUISH_SPEC_SKIP; 0: a third of them */
    const char *isa_max;  /* "scalar", "avx2", "avx512", "neon" or NULL: $SQUISH_ISA is *not* read here */
} squish_engine_options;
squish_engine_options squish_engine_options_default(void);

typedef struct {
    uint64_t weight_bytes, kv_bytes, scratch_bytes, total_bytes; /* kv_bytes: at full context */
    int32_t ctx_tokens;                                          /* after the memory decision */
    uint64_t available_bytes;                                    /* memory the decision was made with */
    bool streamed; /* weights do not fit: weight_bytes of them are kept, others read as they are needed */
} squish_mem_estimate;
/* What an engine with these options would take; the engine uses the same arithmetic. NO_MEMORY: it would not
 * fit, and the text says what would. */
squish_status squish_engine_estimate(const squish_model *m, const squish_engine_options *opt,
                                     squish_mem_estimate *out, squish_error *err);

/* Errors: INVALID, NO_MEMORY, UNSUPPORTED. */
squish_status squish_engine_new(squish_engine **out, const squish_model *m, const squish_engine_options *opt,
                                squish_error *err);
/* Timelines of the engine must be freed first. */
void squish_engine_free(squish_engine *e);

/* What reading weights in units has done so far. Counts are of units: a layer's matrices, or an expert. */
typedef struct {
    bool on;
    const char *why;          /* "weights do not fit: streamed", "weights fit: mapped"; "": nobody asked */
    const char *backend;      /* "io_uring", "pread", or one of them with ", buffered" behind it; "": off */
    uint64_t budget_bytes, pinned_bytes;       /* memory of weights; of those that stay */
    uint64_t hits, late_hits, misses;          /* there; on its way; begun when it was asked for */
    uint64_t bytes_read, wasted_bytes;         /* wasted: read ahead and never asked for */
    uint64_t hinted, hint_hits, retries, failures;
    uint64_t warmed, warm_hits;                /* experts read as earlier runs used them; those asked for */
    const char *heat_why;     /* why earlier runs are not known, or this one is not kept; "": they are, or
                                 there is nothing to count. Lives as long as the engine */
    double stall_ms, busy_ms;                  /* waited; with a read in flight */
} squish_agile_info;

/* What guesses of experts did. Shares are strict: of experts that were chosen, those among as many guessed
 * ones; covered: those among all guessed ones; resident: those in memory when they were asked for. */
typedef struct {
    squish_lookahead kind;    /* OFF: nothing is guessed */
    const char *why;          /* why maps are not used, or ""; lives as long as the engine */
    int32_t used, extra;      /* experts a token takes, and those guessed beyond */
    uint64_t tokens;          /* guessed for, times layers */
    double strict, covered, resident;
    uint64_t hit_bytes, miss_bytes;          /* of experts that were asked for: in memory, or not */
    uint64_t predicted_bytes, wasted_bytes;  /* read for a guess; read ahead and never asked for */
    double us_layer;          /* time of a layer's guesses */
} squish_lookahead_info;

typedef struct {
    int32_t threads, ctx_tokens, chunk_tokens;
    const char *isa;          /* kernels in use: "avx512+vnni" */
    uint64_t scratch_bytes;   /* reserved; touched only as far as used */
    uint64_t kv_bytes_now, kv_bytes_max;
    double attn_density;      /* share of the keys that prompts read under sparge, so far; 1: all */
    squish_agile_info agile;
    uint64_t attn_sage_tiles; /* tiles, of a head of a layer each, that prompts read in 8 bits under sage */
    squish_lookahead_info lookahead;
} squish_engine_info;
void squish_engine_get_info(const squish_engine *e, squish_engine_info *out);
void squish_engine_get_lookahead(const squish_engine *e, squish_lookahead_info *out); /* from any thread */

/* What a timeline's cache holds now: tokens and bytes (headers, codes and scales of all layers) in 16, 8, 4
 * and 2 bits. */
typedef struct {
    int32_t tokens[4];
    uint64_t bytes[4];
    uint64_t bytes_f16;       /* of the same tiles in 16 bits */
    int32_t chunks[3];        /* tiles found low, middling, high */
    int32_t dropped;          /* tokens (SnapKV) */
} squish_kv_census;
void squish_seq_get_census(const squish_seq *s, squish_kv_census *out);

squish_status squish_seq_new(squish_seq **out, squish_engine *e, squish_error *err);
void squish_seq_free(squish_seq *s);
/* Make the timeline equal to tokens[0..n): keeps the longest shared prefix, evaluates the rest. Afterwards
 * squish_seq_logits() belongs to position n-1. Errors: INVALID (an id out of range, n = 0, or longer than the
 * context: "context_length_exceeded"), NO_MEMORY, CANCELLED. On error the timeline is a valid
 * shorter one. */
squish_status squish_seq_sync(squish_seq *s, const int32_t *tokens, size_t n, squish_error *err);
int32_t squish_seq_length(const squish_seq *s);
int32_t squish_seq_reused(const squish_seq *s);     /* tokens the last sync did not have to evaluate */
/* [n_vocab] f32 of the last position. NULL where there are none: before a sync, after a truncate or a score,
 * or when another timeline has used the engine since. */
const float *squish_seq_logits(const squish_seq *s);
/* Forget tokens from position n on; of a cache in fewer bits all, if n is not near the end. */
void squish_seq_truncate(squish_seq *s, int32_t n);
/* Stop a running sync or gen on this timeline from another thread or a signal handler (it only stores a
 * flag). */
void squish_seq_cancel(squish_seq *s);
void squish_seq_cancel_clear(squish_seq *s);

/* Evaluate tokens from an empty timeline and hand out the logits of positions first..n-1, in order, one row
 * of n_vocab f32 each, valid during the call only. Return false from fn to stop (CANCELLED). */
typedef bool (*squish_logits_fn)(void *user, int32_t position, const float *logits);
squish_status squish_seq_score(squish_seq *s, const int32_t *tokens, size_t n, int32_t first,
                               squish_logits_fn fn, void *user, squish_error *err);

/* ---- generation ------------------------------------------------------------------------------ */

/* How logits become a token. Processing order: bias, penalties, DRY, temperature, top-k, typical-p, top-p,
 * min-p, top-n-sigma, XTC, then argmax of l/T + Gumbel noise that depends on (seed, choice, position, token
 * id) alone. */
typedef struct {
    float temperature;        /* 0..5; < 1e-5 is greedy, lowest id wins ties */
    int32_t top_k;            /* 0 or -1: off */
    float top_p, min_p, typical_p; /* 1, 0, 1: off */
    float top_n_sigma;        /* 0: off */
    float xtc_probability, xtc_threshold; /* 0: off */
    float repetition_penalty; /* 1: off */
    int32_t repeat_last_n;    /* tokens it looks back on; 0: off, -1: the whole timeline */
    float frequency_penalty, presence_penalty; /* on generated tokens; 0: off */
    float dry_multiplier, dry_base;  /* 0: off; 1.75 */
    int32_t dry_allowed_length, dry_last_n; /* 2; -1: the whole timeline */
    const int32_t *bias_ids;  /* n_bias pairs; copied; at most 1024; bias in [-100, 100] */
    const float *bias_values;
    int32_t n_bias;
    int64_t seed;             /* -1: drawn from the system and reported in the gen's stats */
    int32_t choice;           /* index of this answer among several for one prompt */
} squish_sampling;
/* temperature 0.7, top_p 0.9, everything else off. */
squish_sampling squish_sampling_default(void);
/* The defaults overridden by what the model's generation_config.json says. */
squish_sampling squish_sampling_for(const squish_model *m);

/* Speculation: tokens an answer may go on with are guessed and tried in the step that evaluates the last
 * one; those that are what would have been drawn are kept. It never changes an answer, only how many steps it
 * takes. */
typedef enum {
    SQUISH_SPEC_AUTO,  /* what there is, where it pays */
    SQUISH_SPEC_OFF,
    SQUISH_SPEC_NGRAM, /* what followed the last time the text ended like this */
    SQUISH_SPEC_HEADS, /* heads that were trained to (squish_train_heads) */
    SQUISH_SPEC_DRAFT, /* another model (squish_engine_options.draft) */
    SQUISH_SPEC_SKIP,  /* the model's own first layers (squish_engine_options.skip_layers) */
    SQUISH_SPEC_COUNT
} squish_spec_mode;
/* "auto", "off", "ngram", "heads", "draft", "skip"; NULL: none */
const char *squish_spec_name(squish_spec_mode m);
bool squish_spec_from_name(const char *name, squish_spec_mode *out);
/* When a guess is kept. MATCH: where it is the token that would have been drawn without it: no text depends
 * on guesses. RATIO: with chance p / q of the two laws that it could have been drawn from; else another token
 * of what p has beyond q. Tokens have the same law, more guesses are kept at a temperature, and the text of a
 * seed depends on what was guessed. */
typedef enum { SQUISH_ACCEPT_MATCH, SQUISH_ACCEPT_RATIO, SQUISH_ACCEPT_COUNT } squish_spec_accept;
/* "match", "ratio"; NULL: none */
const char *squish_spec_accept_name(squish_spec_accept a);
bool squish_spec_accept_from_name(const char *name, squish_spec_accept *out);
typedef struct {
    squish_spec_mode mode;
    int32_t guesses;           /* in a step: 0: as many as pay, by what was measured; 1..31: always so many,
                                  where there is something to guess */
    int32_t branches;          /* other ways to go on that are tried beside these in the same step: 0: none;
                                  -1: as many as pay; 1..3: always so many, where there are any */
    squish_spec_accept accept; /* RATIO: without branches */
} squish_spec;

typedef struct {
    squish_sampling sampling;
    squish_spec spec;
    int32_t max_tokens;        /* -1: to the end of the context */
    const char *const *stop;   /* up to 16 strings of 1..256 bytes; copied */
    int32_t n_stop;
    bool include_stop;         /* keep the stop string in the text */
    bool ignore_eos;
    int32_t min_tokens;        /* end tokens are banned before this many */
    int32_t logprobs;          /* 0..20 alternatives per token; -1: none computed */
    bool special_text;         /* control tokens are in the text by their names; end tokens never are */
    const squish_grammar *grammar; /* the answer is a word of it, or a beginning of one where max_tokens cuts
                                      it; shared, so it may be freed at once. NULL: none */
} squish_gen_options;
squish_gen_options squish_gen_options_default(void);

typedef enum {
    SQUISH_FINISH_NONE,   /* more to come */
    SQUISH_FINISH_STOP,   /* end token or stop string */
    SQUISH_FINISH_LENGTH  /* max_tokens or the context is used up */
} squish_finish;

typedef struct {
    int32_t id;           /* the token sampled in this call; -1 if this event only closes */
    const char
        *text; /* text that became certain with it, valid UTF-8, may be empty; lives until the next call */
    size_t text_bytes;
    squish_finish finish;
    const char *stop_reason; /* the stop string that fired, or NULL */
    float logprob;           /* raw model log-probability of id (logprobs >= 0) */
    int32_t n_top;           /* alternatives, most likely first, ties by lower id */
    const int32_t *top_ids;
    const float *top_logprobs;
} squish_gen_event;

/* Begin an answer: syncs the timeline to prompt[0..n) and prepares sampling. opt may be NULL (defaults of the
 * model). Errors: as squish_seq_sync, plus INVALID for options out of range (named). */
squish_status squish_gen_new(squish_gen **out, squish_seq *s, const int32_t *prompt, size_t n,
                             const squish_gen_options *opt, squish_error *err);
/* One token. Concatenating all texts gives the whole answer, byte for byte; on the last event all held text
 * has been handed out. After a finish further calls are INVALID. Errors: NUMERIC, CANCELLED, NO_MEMORY. */
squish_status squish_gen_next(squish_gen *g, squish_gen_event *ev, squish_error *err);

typedef struct {
    int32_t prompt_tokens, reused_tokens, completion_tokens;
    int32_t forced_tokens; /* of the completion: the only ones a grammar left, so no step was made for them */
    int32_t checked_tokens; /* drawn without their mask, which was not there yet, and shown to the grammar */
    int32_t guessed_tokens, right_tokens; /* speculation: tried, and of these, kept */
    int32_t aside_tokens;                 /* of those that were kept, those of side branches */
    int64_t seed;
    double prefill_ms, ttft_ms, decode_ms; /* decode_ms: from the first token to the last */
    double prefill_tok_s, decode_tok_s;    /* 0 where there is nothing to divide */
} squish_gen_stats;
void squish_gen_get_stats(const squish_gen *g, squish_gen_stats *out);
void squish_gen_free(squish_gen *g);

/* ---- many answers at once -------------------------------------------------------------------- */

/* A *batch* makes many answers on one engine at once: every step of the model serves all of them (continuous
 * batching), prompts run in chunks between them, and what two timelines have in common is computed and stored
 * once. It owns the engine from its making to its end: no timeline made by hand may live on it then.
 *
 * An answer in a batch equals, byte for byte, the answer of squish_gen on the same prompt and options.
 *
 * One thread of the batch's own runs the steps. All functions here may be called from any thread; a job is
 * read (squish_job_next) and freed by one thread at a time. */
typedef struct squish_batch squish_batch;
typedef struct squish_job squish_job;

typedef struct {
    int32_t jobs_max;          /* answers in one step, 1..32; default 8. More jobs wait */
    int32_t queue_max;         /* waiting jobs, default 256; more are refused with BUSY */
    double itl_target_ms;      /* while answers stream, prompts take no more of a step than keeps it near
                                  this; 0: 1.75 times a step without prompts, as measured */
    bool prefix_cache;         /* default true: keep what was computed while memory lasts, for prompts that
                                  begin the same */
    const char *snapshot_dir;  /* prefixes on disk that survive a restart; NULL: none */
    uint64_t snapshot_bytes_max; /* default 8 GiB; the least recently used go first */
    bool snapshot_archive;     /* default false: files take fewer bytes and more time; nothing is lost */
    bool snapshot_codec;       /* default false: files are codes of trained codebooks, MODEL.codec
                                  (squish_calibrate_codec), a seventh of the bytes: answers behind what comes
                                  back differ. A cache of f16 alone. QUALITY: the codebooks failed */
    squish_warn_fn warn;
    void *warn_user;
} squish_batch_options;
squish_batch_options squish_batch_options_default(void);
squish_status squish_batch_new(squish_batch **out, squish_engine *e, const squish_batch_options *opt,
                               squish_error *err);
/* Cancels every job, writes the snapshots that wait, ends the thread. Jobs may be freed before or after;
 * those that had not ended report CANCELLED. */
void squish_batch_free(squish_batch *b);

/* How the hidden states of a prompt become one vector. */
typedef enum { SQUISH_POOL_NONE, SQUISH_POOL_MEAN, SQUISH_POOL_LAST, SQUISH_POOL_FIRST } squish_pooling;

typedef struct {
    const int32_t *prompt;     /* [n_prompt], copied; n_prompt >= 1 */
    size_t n_prompt;
    squish_gen_options gen;    /* copied. sampling.choice tells answers to one prompt apart */
    int32_t prompt_logprobs;   /* -1: none; 0..20: of every prompt token, with that many alternatives */
    int32_t prompt_logprobs_from; /* of prompt tokens from this one on (0 .. n_prompt - 1): those before may
                                  then come from the cache, and go through no head. The same bits */
    squish_pooling pool;       /* not NONE: an embedding of the prompt; nothing is generated */
    uint64_t client;           /* jobs of one client share its turn: the client served least goes first */
    int32_t priority;          /* -2..2; within a client, higher first; one more for every 10 s of waiting */
    double deadline_s;         /* from submission; then the job ends with TIMEOUT. 0: none */
    uint64_t salt;             /* jobs of different salts share no prefix */
    /* Called, from the batch's thread, when there is something to read after squish_job_next found nothing,
     * or for the first time; maybe before submit returns, never after squish_job_free. It runs under
     * a lock of the job: it must not block, call anything of this section, or take a lock that is held around
     * such a call. NULL: the caller polls. */
    void (*wake)(void *user);
    void *wake_user;
} squish_job_options;
squish_job_options squish_job_options_default(void);

/* Errors: INVALID (ids, options; "context_length_exceeded: ..." for a prompt that cannot fit), BUSY (the
 * queue is full, or the batch is draining), NO_MEMORY. */
squish_status squish_job_submit(squish_job **out, squish_batch *b, const squish_job_options *opt,
                                squish_error *err);

typedef enum {
    SQUISH_JOB_STARTED,  /* left the queue; its prompt is being evaluated */
    SQUISH_JOB_PROMPT,   /* one prompt token: id, logprob, top (the first has no logprob: n_top = -1) */
    SQUISH_JOB_TOKEN,    /* one generated token: id and the text that became certain, maybe empty */
    SQUISH_JOB_EMBEDDING,/* embedding [n_embedding] f32, neither normalised nor cut */
    SQUISH_JOB_END       /* the last: finish, and text that did not come with a token; or status and error */
} squish_job_event_kind;

typedef struct {
    squish_job_event_kind kind;
    int32_t id;               /* -1: none */
    const char *text;         /* valid UTF-8; text, tops and embedding live until the next call */
    size_t text_bytes;
    float logprob;
    int32_t n_top;
    const int32_t *top_ids;
    const float *top_logprobs;
    const float *embedding;
    int32_t n_embedding;
    uint64_t t_ns;            /* monotonic clock when it happened */
    squish_finish finish;     /* END: NONE if the job failed */
    const char *stop_reason;
    squish_status status;     /* END: OK, CANCELLED, TIMEOUT, NUMERIC, NO_MEMORY ... */
    const char *error;        /* END: "" or one line */
} squish_job_event;
/* The next event; false: nothing yet (or END was read). A reader that falls 256 kB behind pauses its job. */
bool squish_job_next(squish_job *j, squish_job_event *ev);
/* Ends the job before the next step; END follows with CANCELLED. */
void squish_job_cancel(squish_job *j);

typedef struct {
    squish_gen_stats gen;     /* reused_tokens: found in the cache */
    double queue_ms;
    int32_t preemptions;
    bool behind_codes;        /* its prompt's beginning came from codes (snapshot_codec): it is not exact */
} squish_job_stats;
/* As far as it has come; final once END was read. */
void squish_job_get_stats(squish_job *j, squish_job_stats *out);
/* Cancels it if it still runs. */
void squish_job_free(squish_job *j);

/* No new jobs from now on (BUSY), those that wait or run go on; true once none is left. */
bool squish_batch_drain(squish_batch *b);

enum { SQUISH_HIST_BUCKETS = 17 }; /* bucket i counts values <= 2^i ms, the last one all */
typedef struct {
    uint64_t count[SQUISH_HIST_BUCKETS];
    double sum_s;
} squish_hist;
typedef struct {
    int32_t queued, running;  /* now */
    int32_t tiles, tiles_free, tiles_cached; /* columns of 32 tokens: in all, never or no longer used, kept
                                                for prefixes only */
    uint64_t kv_bytes, kv_bytes_max;
    uint64_t jobs, finished, cancelled, failed, preemptions, steps; /* since the start */
    uint64_t prompt_tokens, cached_tokens, evaluated_tokens, generated_tokens;
    uint64_t guessed_tokens, right_tokens; /* speculation: tried, and of these, kept */
    uint64_t prefix_hits, snapshot_hits, snapshots_written, snapshots_dropped;
    uint64_t coded_tokens, coded_bytes; /* of snapshots written as codes */
    double solo_step_ms;      /* of one answer alone, as measured; 0: not yet */
    double attn_density;      /* as in squish_engine_info */
    double fairness;          /* Jain's index over clients with work, 1: equal */
    squish_agile_info agile;  /* weights that are read in units */
    squish_hist step, inter_token, queue, ttft;
    uint64_t step_age_ns;     /* since the running step began; 0: idle. For a watchdog */
} squish_batch_stats;
void squish_batch_get_stats(squish_batch *b, squish_batch_stats *out);

/* ---- names and places ------------------------------------------------------------------------ */

/* Turn what a user typed into a path: a path as it is, a name in the store (home, NULL: $SQUISH_HOME or
 * ~/.squish), or the shipped "squish-tiny" (NULL or "" means it). A made model lies where the one it is made
 * from does. NOT_FOUND names the nearest three. */
squish_status squish_locate(const char *home, const char *name, squish_text *path, squish_error *err);
/* A made model is another one with words and numbers of its own, as the server's /api/create makes them: its
 * {"from", "system", "template", "license", "parameters"} as JSON, all but "from" maybe null or absent.
 * NOT_FOUND: name is none. */
squish_status squish_made_json(const char *home, const char *name, squish_text *json, squish_error *err);
/* Names one can type: fn(user, name, path, bytes on disk, ready tiers as text). Made models come last, with
 * their own file as path and "made" in place of tiers. */
typedef bool (*squish_list_fn)(void *user, const char *name, const char *path, uint64_t bytes,
                               const char *tiers);
squish_status squish_list(const char *home, squish_list_fn fn, void *user, squish_error *err);
/* The same of one model at path: fn is called once, with its bytes and ready tiers. */
void squish_list_model(const char *home, const char *name, const char *path, squish_list_fn fn, void *user);

/* ---- schemas --------------------------------------------------------------------------------- */

/* JSON Schema as a referee: 2020-12 whole, 2019-09, 7, 6 and 4 by $schema. Nothing is ever fetched. */
typedef struct squish_schema squish_schema;
typedef struct {
    const char *uri;  /* what a $ref calls it; NULL: its own $id */
    const char *json; /* only read by squish_schema_new */
    size_t bytes;
} squish_schema_document;
typedef struct {
    const squish_alloc *alloc; /* NULL: malloc; copied */
    const char *uri;           /* of the schema itself, where it has no absolute $id; may be NULL */
    const squish_schema_document *documents; /* further ones that a $ref or $schema may name */
    size_t n_documents;
    int32_t draft;             /* where no $schema says it: 4, 6, 7, 2019 or 2020 (default) */
    bool assert_format;        /* format is a demand; by default it is a remark */
    int32_t errors_max;        /* violations reported of one instance (default 100) */
    uint64_t steps_max;        /* work spent on one instance (default 10 million steps) */
} squish_schema_options;
squish_schema_options squish_schema_options_default(void);
/* Where an instance breaks its schema. All three are valid during the call. */
typedef struct {
    const char *at;      /* JSON pointer into the instance; "" is the whole */
    const char *keyword; /* place of the keyword in the schema: "#/properties/a/type" */
    const char *text;    /* one sentence */
} squish_schema_violation;
typedef void (*squish_schema_report)(void *user, const squish_schema_violation *v);
/* Read a schema (at most 1 MiB, 128 levels). The handle never changes: threads may share it. Errors name the
 * place by JSON pointer: CORRUPT (no JSON), INVALID (no schema: a keyword with a wrong argument, a pattern
 * that is no regex, a $ref into nothing), UNSUPPORTED (a $ref or $schema to a document that is not known,
 * a required vocabulary unknown here), NO_MEMORY. */
squish_status squish_schema_new(squish_schema **out, const char *json, size_t bytes,
                                const squish_schema_options *opt, squish_error *err);
void squish_schema_free(squish_schema *s);
/* Judge one JSON text (at most 32 MiB, 128 levels). fn (may be NULL) hears of each violation. OK means there
 * is a verdict in *valid. Errors: CORRUPT (no JSON), UNSUPPORTED (a limit was hit: steps, recursion, a
 * pattern's matching; the text names it), NO_MEMORY. */
squish_status squish_schema_validate(const squish_schema *s, const char *json, size_t bytes,
                                     squish_schema_report fn, void *user, bool *valid, squish_error *err);

/* ---- machine --------------------------------------------------------------------------------- */

typedef struct {
    char cpu[128], arch[32], isa[64]; /* isa: best kernels this machine can run, e.g. "avx512+vnni" */
    char features[256];               /* space separated */
    int32_t cores;                    /* this process may use (affinity and cgroup quota) */
    uint64_t memory_total, memory_available; /* bytes, cgroup included */
} squish_machine;
void squish_machine_get(squish_machine *out);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
