/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.h - measurements for people: what this machine does with a model, beside what the machine can do at
 * all.
 *
 * A row is the median of runs with its spread; a limit, where there is one, was measured in the same run.
 * Benches are clients of squish.h and print nothing: the command does. */
#ifndef SQ_BENCH_H
#define SQ_BENCH_H

#include "base/base.h"

#include <jansson.h>
#include <stdio.h>

enum { BENCH_RUNS_MAX = 1000, BENCH_THREADS_MAX = 256, BENCH_POINTS_MAX = 16 };

typedef struct {
    const char *path; /* of the model */
    squish_tier tier;
    const char *tier_name; /* as --tier takes it */
    int32_t runs;          /* 1..BENCH_RUNS_MAX */
    int32_t threads;       /* 0: all */
    int32_t ctx;           /* longest context of bench_decode */
    squish_attention attention;
    squish_spec spec; /* of bench_spec: how answers are guessed */
    const squish_model *draft; /* and by which other model; NULL: none */
    const char *heads; /* of its answers, as squish_model_options.heads */
    bool one_kv;      /* bench_kv, _kv_memory and _needle: kv alone beside f16; else all formats */
    squish_kv kv;     /* not F32 */
    uint64_t memory_limit; /* of bench_agile; 0: half of the weights beside cache and scratch */
    const char *isa;  /* newest instruction set of the engine and of the probes; NULL: the best there is */
    const char *text; /* of bench_tokenizer, [text_bytes]; NULL: a built-in mix */
    size_t text_bytes;
    int32_t at[BENCH_POINTS_MAX]; /* [n_at] contexts, prompt lengths, batches or threads; n_at 0: the usual */
    int32_t n_at;
    const char *program; /* the squish to start for whole-process rows; NULL: none of these rows */
    squish_progress_fn progress;
    void *progress_user;
} bench_options;

/* INVALID where runs is not 1 to BENCH_RUNS_MAX. */
squish_status bench_check_runs(const bench_options *o, squish_error *err);

/* Append {"name", "unit", "value" (median), "mean", "sd", "noise" (half the range of the middle half), "min",
 * "max", "runs"[, "limit", "share"]} to rows; values are left sorted. limit NAN: none; share is limit / value
 * where small is good, value / limit where large is. */
typedef enum { BENCH_SMALL_IS_GOOD, BENCH_LARGE_IS_GOOD } bench_sense;
squish_status bench_row(json_t *rows, const char *name, const char *unit, double *values, int32_t n,
                        double limit, bench_sense sense, squish_error *err);
double bench_median(double *values, int32_t n); /* n >= 1; leaves them sorted */

/* Opening a model: time to ready and memory, each run in a process of its own, warm; then with the file's
 * pages dropped from the cache (proved by asking the system), beside reading the same file with nothing else;
 * and from the start of the program to the first byte of an answer. Rows: load_ms, load_anon_added_mb,
 * load_anon_peak_mb, load_cold_ms, cold_resident_s (limit: read_cold_s), first_byte_ms, prefill_ms (of the
 * same prompt, in a process that is up). Linux only where a figure needs it; else the row is left out. */
squish_status bench_load(const bench_options *o, json_t *rows, squish_error *err);

/* The quantisers on bf16 weights in memory, all threads: "encode TYPE METHOD" in GB/s of input (limit: a read
 * of the same memory); on fresh Gaussian matrices MiLo's error in dB and its time; and the packing of 3-bit
 * codes. Needs no model; takes 256 MB. */
squish_status bench_quant(const bench_options *o, json_t *rows, squish_error *err);

/* Speed of a model, tokens per second, beside what the machine allows: the bytes a step must read over the
 * memory's rate, or its operations over the peak of the arithmetic, whichever takes longer (a model that fits
 * the last cache can beat the first). The limits are measured before and after every run; "limit" is the
 * median of them, "share" the median of the shares of the runs, each against its own two.
 *   bench_decode   "decode at N": one token after another behind N tokens of context, up to o->ctx
 *   bench_prefill  "prefill N": a prompt of N tokens in one go; "first token after N" (ms), sampling included
 *   bench_batch    "batch N": N timelines of 128 tokens each, one token each a step; tokens of all
 *   bench_threads  "decode, N threads" and "prefill 128, N threads", against the limits of as many threads
 * Rows also have "bench", "at" (the N), "threads", and for a roofline "ops_per_byte", "gop_s" (reached),
 * "read_gb_s", "dots_gop_s" and "fma_gop_s" (of the machine). INVALID: a point of o->at out of range. */
squish_status bench_decode(const bench_options *o, json_t *rows, squish_error *err);
squish_status bench_prefill(const bench_options *o, json_t *rows, squish_error *err);
squish_status bench_batch(const bench_options *o, json_t *rows, squish_error *err);
squish_status bench_threads(const bench_options *o, json_t *rows, squish_error *err);

/* Attention of prompts, exact and as squish_attention has it, sparge_min and sparge_mass from o->attention
 * (min: a quarter of the prompt where it would be longer). Without o->text its speed, one layer in the
 * model's shape on planted keys: "attention MODE, N" in ms, with "speedup" over exact and "density"; exact
 * has the limit of the multiply-adds. With o->text its quality on the first N tokens: "KL MODE, N" to exact
 * attention at 256 positions of the second half, with "worst", "same_token" (share of equal most likely
 * tokens) and "density". INVALID: an N that is no multiple of 256, a text that is too short. */
squish_status bench_attention(const bench_options *o, json_t *rows, squish_error *err);

/* Formats of the cache beside f16, behind o->at tokens (rising multiples of 256; usual 1024, 2048, 3072):
 *   "bytes a token at N, F"  by which the process grew since the point before (limit: the format's own)
 *   "attention at N, F"      ms, all layers of one token (limit: the cache's bytes over the memory's rate)
 *   "token at N, F"          ms, all of a decoded token
 *   "KL to f16, F"           with a text: windows of 4096 tokens, scored from position 1536 on; rows have
 *                            "read" (shares of attended tokens in 16, 8, 4 and 2 bits), "read_sealed" (those
 *                            below 16), "ppl_ratio", "same_best", "bytes_ratio" (f16 to this, at the end
 *                            of a window, headers and scales counted). F is a format, or features that work
 *                            behind a prompt of 1536 tokens, which the rest of the window follows
 * Rows have "bench", "at", "kv" and "f16_ratio" (times better than f16). INVALID: a point out of range. */
squish_status bench_kv(const bench_options *o, json_t *rows, squish_error *err);

/* What the process holds more once it has read a prompt of o->at tokens (usual: 4064) of o->text, by the
 * system: "memory of N tokens, KIND" in bytes, with "f16_ratio", how many times less than f16; the last kind
 * has all flags of the first report's command. INVALID: no text, or one that is too short. */
squish_status bench_kv_memory(const bench_options *o, json_t *rows, squish_error *err);

/* What fewer bits behind a prompt take, without a model: "PM-KVQ advance, a token" and "lookup, a tile" in
 * ns, "seal a vector of 128, F" and "shrink a tile of 128, F to F" (of one head, keys or values) and
 * "CocktailKV: judge and seal 512 tokens of 64" in us, one thread. */
squish_status bench_kv_votes(const bench_options *o, json_t *rows, squish_error *err);

/* Latent attention of a decoded token, absorbed, beside the same heads with their keys and values kept:
 * "latent, bytes of a token and layer" with "smaller" (times), "expanded, a layer at N" and "latent, a layer
 * at N" in ms, with "speedup". UNSUPPORTED: a model without latent attention. */
squish_status bench_latent(const bench_options *o, json_t *rows, squish_error *err);

/* Is a pass key found that stands where it is read sealed? o->runs trials in prompts of about o->at tokens
 * (usual 600, 1000, 1500) among paragraphs of o->text, at three depths, through the chat template, greedily:
 *   "pass key, N, KIND"  % found, f16 first; rows have "found", "found_f16" and "trials"
 * INVALID: no text, too few paragraphs, or a model without a template. */
squish_status bench_needle(const bench_options *o, json_t *rows, squish_error *err);

/* The tokenizer of a model, one thread, MB/s of UTF-8: "encode whole" (one call), "encode 1 kB pieces" and
 * "decode tokens". The text is repeated to 4 MB. INVALID: it is empty or no UTF-8, or the model has no
 * tokenizer. */
squish_status bench_tokenizer(const bench_options *o, json_t *rows, squish_error *err);

/* What grammars cost answers, one thread, each run with freshly compiled ones: for a flat schema, a nested
 * one and any JSON "compile" (ms), "mask", "mask p99", "cold mask p99" (of masks made for the first time),
 * "advance", "advance p99" (us). */
squish_status bench_grammar(const bench_options *o, json_t *rows, squish_error *err);

/* Decoding under a grammar over decoding without, both in turn: "a list schema" and, where the model's text
 * is in the language, "the same text" and "the same text, guessed"; with "tok_s" and "tok_s_off",
 * "forced_tokens", "checked_tokens". */
squish_status bench_schema(const bench_options *o, json_t *rows, squish_error *err);

/* Speculation. Without o->text what rows of one answer cost: "step of N rows" in ms, logits of all included,
 * with "cost" in units of the first (limit: bytes or operations, as for bench_decode); "a guess of a third of
 * the layers", "a guess of another model" (o->draft), "draft of 4 heads" (ms); "n-gram guess" (us), "accept
 * 16 rows" (ms), drawing from their logits. With o->text, lines of JSON {"prompt"} or {"messages"}, and
 * "max_tokens" (128): greedy answers and sampled ones, o->runs to a prompt, without guesses and with them
 * (o->spec) in turns, "MODE, T t": the median over answers of time without over time with, and for all
 * together "speedup", "tok_s", "tok_s_off", "tokens_per_step", "guessed", "right", "answers", and of these
 * "differ", in which one token is another (0, or it is a bug). */
squish_status bench_spec(const bench_options *o, json_t *rows, squish_error *err);

/* Guesses of experts (docs/lookahead.md). With o->text maps are fitted to its first half and guesses counted
 * on the second, "KIND, layer N early" or "late", and "KIND, mean": the share of chosen experts that were
 * among as many guessed ones, with "covered", among those and some more. "cost of a layer, KIND" in us, in
 * steps of one token, o->runs times (limit: its maps from memory, "map_bytes" of them). UNSUPPORTED: a model
 * without experts. */
squish_status bench_moe(const bench_options *o, json_t *rows, squish_error *err);

/* Reading weights in units (docs/io.md), of a .sqw. "read 64 KiB, cold" and "read 1 MiB, cold" beside gets:
 * "get, warm", "get and read 64 KiB, warm", "get 64 KiB, cold", "three cold gets in turn", "prefetch of three
 * and gets", "prefetch of three, time, gets" (us of the calls alone; no cold rows where direct reads are
 * refused). Then steps,
 * W being "token" (a greedy one) and "prompt of 64": "device, while Ws ran": GB/s of direct reads of 1 MiB,
 * 16 at once, between steps. "W, streamed", "W, on demand" (nothing is read ahead), "W, mapped": ms of a
 * step, the first two in o->memory_limit; rows have "bytes" (read for a step), "io_ms" (these at the device's
 * rate behind that step), "stall_ms", "busy_ms", "mean_ms", "budget", and "differ" (tokens unlike the mapped
 * ones: 0, or it is a bug). UNSUPPORTED: another file; NO_MEMORY: less than the least; INVALID: less than
 * 4 MiB. */
squish_status bench_agile(const bench_options *o, json_t *rows, squish_error *err);
/* The rows of gets and reads alone: nothing is decoded. */
squish_status bench_agile_gets(const bench_options *o, json_t *rows, squish_error *err);

/* What the machine can do at all, with o->threads: "read memory" (GB/s of 1 GiB of anonymous memory), "int8
 * dot products" and "f32 multiply-adds" (Gop/s). The same probes, one measurement a call, for benches that
 * take their limit between their own runs. NO_MEMORY; INVALID: too many threads, an isa nobody knows. */
squish_status bench_limits_rows(const bench_options *o, json_t *rows, squish_error *err);
typedef struct bench_limits bench_limits;
squish_status bench_limits_new(bench_limits **out, int32_t threads, const char *isa, squish_error *err);
void bench_limits_free(bench_limits *l);
const char *bench_isa(const char *isa); /* the kernels that run under this cap: "avx512+vnni" */
double bench_limits_read(bench_limits *l);
double bench_limits_dots(bench_limits *l);
double bench_limits_fma(bench_limits *l);

/* ---- beside the figures of others ------------------------------------------------------------ */

/* Another server at url (http://host:port, "#MODEL" behind it to choose one), o->runs times: "NAME: first
 * token, first run", "... put out before" (Ollama's keep_alive 0 before each run), "... loaded", in ms, and
 * "NAME: decode" in tok/s. NETWORK, CORRUPT, NOT_FOUND (it names no model). */
squish_status bench_peer(const bench_options *o, const char *name, const char *url, json_t *rows,
                         squish_error *err);

/* A figure of the first report as it was written, and the row (its "value", or key, times scale; 0: 1) that
 * stands beside it; row NULL: nothing in this build does that. */
typedef struct {
    const char *table, *name, *seed, *row, *key;
    double scale;
    const char *unit, *note;
} bench_claim;
extern const bench_claim bench_wave12_claims[], bench_eoe_claims[];
extern const size_t bench_wave12_count, bench_eoe_count;
/* [{"table", "name", "seed", "value" (maybe null), "unit", "note"[, "limit", "share"]}], a new reference. */
json_t *bench_beside(const bench_claim *list, size_t n, const json_t *rows);
/* Parts of a page: what bench_beside made, and [{"name", "ok", "detail"}]. */
void bench_beside_put(FILE *f, const json_t *beside);
void bench_checks_put(FILE *f, const json_t *checks);

/* ---- the page (bench_page.c) ----------------------------------------------------------------- */

/* Write DIR/index.html, a page that stands alone (styles and plots inside, no scripts, light and dark): the
 * headline figures, checks and figures of others ("checks", "beside" of the report), a roofline, time per
 * token against context, batch and threads, formats of the cache against context, and every row; and
 * DIR/bench.json, the report itself. report: what `bench --json` prints. Sections without rows are left out.
 */
squish_status bench_page_write(const json_t *report, const char *dir, squish_error *err);

#endif
