/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_model.c - from what was typed to a model that can answer. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXT_MAX = 1 << 28 };

/* ---- which model ----------------------------------------------------------------------------- */

static bool names_model(const cli *c, const char *arg) {
    squish_text path = {0};
    const bool looks_like_text = strchr(arg, ' ') || strchr(arg, '\n') || strlen(arg) > 512;
    if (looks_like_text && !sq_os_exists(arg)) return false;
    const bool found = squish_locate(cli_home(c), arg, &path, NULL) == SQUISH_OK;
    squish_text_free(&path);
    return found || cli_hub_name(c, arg);
}

const char *cli_take_model(cli *c, bool required_if_two) {
    if (cli_has(c, OPT_MODEL)) return cli_text(c, OPT_MODEL);
    if (c->n_args == 0 || !*c->args[0]) return NULL;
    /* One argument may be a prompt; of two the first must be the model, known or not. */
    if (!(required_if_two && c->n_args >= 2) && !names_model(c, c->args[0])) return NULL;
    const char *name = c->args[0];
    memmove(c->args, c->args + 1, (size_t)--c->n_args * sizeof *c->args);
    return name;
}

squish_tier cli_tier_named(const char *name) {
    static const struct {
        const char *name;
        squish_tier tier;
    } tiers[] = {{"0", SQUISH_TIER_0}, {"q8", SQUISH_TIER_Q8}, {"1", SQUISH_TIER_1},
                 {"2", SQUISH_TIER_2}, {"3", SQUISH_TIER_3},   {"source", SQUISH_TIER_SOURCE}};
    for (size_t i = 0; i < SQ_COUNT(tiers); i++)
        if (strcmp(tiers[i].name, name) == 0) return tiers[i].tier;
    return SQUISH_TIER_AUTO;
}

squish_tier cli_tier(const cli *c) { return cli_tier_named(cli_text(c, OPT_TIER)); }

/* Build a tier; where another squish is building it just now, wait for that one. */
static squish_status compress_or_wait(cli *c, const char *path, const squish_compress_options *o,
                                      squish_compress_result *r, squish_error *err) {
    const struct timespec pause = {.tv_nsec = 200000000};
    for (bool said = false;; said = true) {
        squish_error now = {0};
        int32_t refining = 0;
        const squish_status st = cli_build(c, path, o, r, &refining, &now);
        if (st != SQUISH_BUSY || cli_signal_seen()) {
            *err = now;
            return st;
        }
        if (!said) cli_note(c, "squish: another program is compressing %s; waiting for it", path);
        nanosleep(&pause, NULL);
    }
}

/* A folder with the weights that tiers are made of; not one of tiers only. */
static bool is_checkpoint(const char *path) {
    char config[4096];
    return sq_os_is_dir(path) &&
           snprintf(config, sizeof config, "%s/config.json", path) < (int)sizeof config &&
           sq_os_exists(config);
}

/* The tier that o names, built unless it is there. */
static squish_status build_once(cli *c, const char *path, squish_compress_options *o, squish_error *err) {
    squish_text file = {0};
    bool ready = false;
    SQ_TRY(squish_tier_path(path, o, &file, &ready, err));
    squish_status st = SQUISH_OK;
    if (!ready) {
        squish_compress_result r;
        char size[32];
        o->progress = cli_progress;
        o->progress_user = c;
        o->threads = (int32_t)cli_int(c, OPT_THREADS);
        o->resume = true;
        o->allow_collapsed = cli_flag(c, OPT_ALLOW_COLLAPSED);
        st = compress_or_wait(c, path, o, &r, err);
        if (st == SQUISH_OK && !r.reused)
            cli_note(c, "compressed to %s (%s, %.1f s, once)", r.file, cli_bytes(r.bytes, size), r.seconds);
    }
    squish_text_free(&file);
    return st;
}

/* A checkpoint folder without the tier that is wanted: build it, once. */
static squish_status ensure_tier(cli *c, const char *path, squish_tier tier, squish_error *err) {
    squish_compress_options o = squish_compress_options_default();
    if (tier == SQUISH_TIER_SOURCE || !is_checkpoint(path)) return SQUISH_OK;
    o.home = cli_home(c);
    if (tier == SQUISH_TIER_AUTO) {
        squish_text file = {0};
        bool ready = false;
        o.tier = SQUISH_TIER_Q8;
        const squish_status st = squish_tier_path(path, &o, &file, &ready, NULL);
        squish_text_free(&file);
        if (st == SQUISH_OK && ready) return SQUISH_OK;
    }
    o.tier = tier == SQUISH_TIER_AUTO ? SQUISH_TIER_0 : tier;
    return build_once(c, path, &o, err);
}

/* --milo: 3 bits with low-rank compensators, in a folder of their own among the tiers of the checkpoint.
 * *path becomes that folder. */
static squish_status ensure_milo(cli *c, squish_text *path, squish_error *err) {
    squish_compress_options o = squish_compress_options_default();
    const squish_alloc a = sq_alloc_default();
    squish_text tier0 = {0}, folder = {0};
    sq_buf b;
    if (!is_checkpoint(path->data))
        return sq_fail(err, SQUISH_INVALID, "--milo makes its weights of a checkpoint's; %s is none",
                       path->data);
    o.home = cli_home(c);
    o.tier = SQUISH_TIER_0;
    SQ_TRY(squish_tier_path(path->data, &o, &tier0, NULL, err));
    int parts = 0; /* .../squish_4bit/model.sqw */
    size_t n = tier0.bytes;
    while (n > 0 && parts < 2) parts += tier0.data[--n] == '/';
    sq_buf_init(&b, &a, TEXT_MAX);
    sq_buf_append(&b, tier0.data, n);
    sq_buf_append(&b, "/milo", 5);
    squish_text_free(&tier0);
    squish_status st = sq_buf_take(&b, &folder, err);
    sq_buf_deinit(&b);
    if (st != SQUISH_OK) return st;
    o.bits = 3;
    o.method = SQUISH_METHOD_MILO;
    o.out_dir = folder.data;
    st = build_once(c, path->data, &o, err);
    squish_text_free(path);
    *path = folder;
    return st;
}

/* FILE[:SCALE]. Only a number behind the last colon is a scale, and only if no file is called so. */
static squish_lora lora_of(cli *c, const char *text) {
    squish_lora l = {text, 1.0f};
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    if (!colon || colon == text || !colon[1] || sq_os_exists(text)) return l;
    const double scale = strtod(colon + 1, &end);
    if (*end) return l;
    l.path = sq_arena_strndup(&c->arena, text, (size_t)(colon - text));
    l.scale = (float)scale;
    return l;
}

/* Adapters of the command line, l [CLI_LIST_MAX]. One whose path found no memory is refused by its opener. */
static void take_loras(cli *c, squish_lora *l, squish_model_options *o) {
    const cli_value *v = &c->values[OPT_LORA];
    for (int i = 0; i < v->n_list; i++) l[i] = lora_of(c, v->list[i]);
    o->loras = l;
    o->n_loras = v->n_list;
}

/* Where a model lies, its tier built if it can be: SOURCE needs none. */
static squish_status find_model(cli *c, const char *name, squish_tier tier, squish_text *path,
                                squish_error *err) {
    SQ_TRY(cli_locate(c, name, path, err));
    const squish_status st = cli_flag(c, OPT_MILO) ? ensure_milo(c, path, err)
                                                   : ensure_tier(c, path->data, tier, err);
    cli_progress_part(c, NULL, 0, 0);
    return st;
}

int cli_find_model(cli *c, const char *name, squish_tier tier, squish_text *path) {
    squish_error err = {0};
    if (find_model(c, name, tier, path, &err) == SQUISH_OK) return 0;
    squish_text_free(path);
    return cli_fail(c, &err);
}

const char *cli_heads(const cli *c) {
    const char *file = cli_text(c, OPT_HEADS), *spec = cli_text(c, OPT_SPEC);
    const squish_tier tier = cli_tier(c);
    const bool wide = tier == SQUISH_TIER_SOURCE || tier == SQUISH_TIER_1;
    if (file && *file) return file;
    if (!spec) return "none";
    return strcmp(spec, "heads") == 0 || (wide && strcmp(spec, "auto") == 0) ? NULL : "none";
}

int cli_open_model(cli *c, const char *name, bool text_only, squish_model **out) {
    squish_error err = {0};
    squish_text path = {0};
    squish_model_options o = squish_model_options_default();
    squish_lora loras[CLI_LIST_MAX];
    *out = NULL;
    if (cli_flag(c, OPT_MILO) && o.tier != cli_tier(c))
        return cli_fail_text(c, 2, "--milo and --tier both say which weights to run; give one of them");
    take_loras(c, loras, &o);
    o.tier = cli_tier(c);
    o.verify = cli_flag(c, OPT_VERIFY);
    o.text_only = text_only;
    o.allow_collapsed = cli_flag(c, OPT_ALLOW_COLLAPSED);
    o.heads = cli_heads(c);
    o.warn = cli_warn;
    o.warn_user = c;
    squish_status st = find_model(c, name, text_only ? SQUISH_TIER_SOURCE : o.tier, &path, &err);
    if (st == SQUISH_OK && cli_signal_seen()) st = sq_fail(&err, SQUISH_CANCELLED, "stopped while loading");
    if (st == SQUISH_OK) st = squish_model_open(out, path.data, &o, &err);
    squish_text_free(&path);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

int cli_open_draft(cli *c, squish_model **out) {
    const char *name = cli_text(c, OPT_DRAFT);
    squish_error err = {0};
    squish_text path = {0};
    squish_model_options o = squish_model_options_default();
    *out = NULL;
    if (!name) return 0;
    o.tier = cli_tier_named(cli_text(c, OPT_DRAFT_TIER));
    o.heads = "none";
    o.warn = cli_warn;
    o.warn_user = c;
    squish_status st = cli_locate(c, name, &path, &err);
    if (st == SQUISH_OK) st = ensure_tier(c, path.data, o.tier, &err);
    cli_progress_part(c, NULL, 0, 0);
    if (st == SQUISH_OK) st = squish_model_open(out, path.data, &o, &err);
    squish_text_free(&path);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}

/* ---- sessions -------------------------------------------------------------------------------- */

void cli_apply_sampling(const cli *c, squish_sampling *s) {
    if (cli_has(c, OPT_TEMP)) s->temperature = (float)cli_num(c, OPT_TEMP);
    if (cli_has(c, OPT_TOP_K)) s->top_k = (int32_t)cli_int(c, OPT_TOP_K);
    if (cli_has(c, OPT_TOP_P)) s->top_p = (float)cli_num(c, OPT_TOP_P);
    if (cli_has(c, OPT_MIN_P)) s->min_p = (float)cli_num(c, OPT_MIN_P);
    if (cli_has(c, OPT_REPEAT_PENALTY)) s->repetition_penalty = (float)cli_num(c, OPT_REPEAT_PENALTY);
    s->repeat_last_n = (int32_t)cli_int(c, OPT_REPEAT_LAST_N);
    s->presence_penalty = (float)cli_num(c, OPT_PRESENCE);
    s->frequency_penalty = (float)cli_num(c, OPT_FREQUENCY);
    s->seed = cli_int(c, OPT_SEED);
}

squish_attention cli_attention(const cli *c) {
    return (squish_attention){.sage = cli_flag(c, OPT_SAGE),
                              .sparge = cli_flag(c, OPT_SPARGE),
                              .sparge_min = (int32_t)cli_int(c, OPT_SPARGE_MIN),
                              .sparge_mass = (float)cli_num(c, OPT_SPARGE_MASS),
                              .sage_bits = *cli_text(c, OPT_SAGE_BITS) - '0'};
}

int cli_open_session(cli *c, const char *name, cli_session *s) {
    memset(s, 0, sizeof *s);
    int code = cli_open_model(c, name, false, &s->model);
    if (code) return code;
    squish_error err = {0};
    squish_engine_options o = squish_engine_options_default();
    o.threads = (int32_t)cli_int(c, OPT_THREADS);
    o.ctx_tokens = (int32_t)cli_int(c, OPT_CTX);
    o.chunk_tokens = (int32_t)cli_int(c, OPT_CHUNK);
    squish_kv_from_name(cli_text(c, OPT_KV), &o.kv);
    o.kv_options = cli_kv_options(c);
    o.attention = cli_attention(c);
    o.isa_max = cli_text(c, OPT_ISA);
    o.skip_layers = (int32_t)cli_int(c, OPT_SKIP_LAYERS);
    if ((code = cli_memory(c, &o)) != 0 || (code = cli_open_draft(c, &s->draft)) != 0) {
        cli_close_session(s);
        return code;
    }
    o.draft = s->draft;
    squish_status st = squish_engine_new(&s->engine, s->model, &o, &err);
    if (st == SQUISH_OK) st = squish_seq_new(&s->seq, s->engine, &err);
    if (st == SQUISH_OK && cli_signal_seen()) st = sq_fail(&err, SQUISH_CANCELLED, "stopped while loading");
    if (st != SQUISH_OK) {
        cli_close_session(s);
        return cli_fail(c, &err);
    }
    squish_model_get_info(s->model, &s->info);
    cli_say_memory(c, s->engine, s->model);
    s->sampling = squish_sampling_for(s->model);
    cli_apply_sampling(c, &s->sampling);
    cli_signal_watch(s->seq);
    return 0;
}

void cli_close_session(cli_session *s) {
    cli_signal_watch(NULL);
    squish_seq_free(s->seq);
    squish_engine_free(s->engine);
    squish_model_close(s->model);
    squish_model_close(s->draft);
    memset(s, 0, sizeof *s);
}

squish_spec cli_spec(const cli *c) {
    squish_spec s = {.guesses = (int32_t)cli_int(c, OPT_SPEC_GUESSES),
                     .branches = (int32_t)cli_int(c, OPT_SPEC_BRANCHES)};
    squish_spec_from_name(cli_text(c, OPT_SPEC), &s.mode);
    squish_spec_accept_from_name(cli_text(c, OPT_SPEC_ACCEPT), &s.accept);
    return s;
}

squish_gen_options cli_gen_options(const cli *c, const cli_session *s) {
    squish_gen_options g = squish_gen_options_default();
    g.sampling = s->sampling;
    g.spec = cli_spec(c);
    g.max_tokens = (int32_t)cli_int(c, OPT_MAX_TOKENS);
    g.stop = c->values[OPT_STOP].list;
    g.n_stop = c->values[OPT_STOP].n_list;
    g.ignore_eos = cli_flag(c, OPT_IGNORE_EOS);
    return g;
}

const char *cli_finish_name(squish_finish f) { return f == SQUISH_FINISH_LENGTH ? "length" : "stop"; }

/* ---- files ----------------------------------------------------------------------------------- */

int cli_read(cli *c, const char *path, bool text, squish_text *out) {
    const bool from_stdin = strcmp(path, "-") == 0;
    FILE *f = from_stdin ? stdin : fopen(path, "rb");
    if (!f) return cli_fail_text(c, errno == ENOENT ? 3 : 1, "%s: %s", path, strerror(errno));
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, TEXT_MAX);
    char block[1 << 16];
    size_t n;
    while ((n = fread(block, 1, sizeof block, f)) > 0 && !cli_signal_seen()) sq_buf_append(&b, block, n);
    const bool bad = ferror(f);
    const int why = errno;
    if (!from_stdin) fclose(f);
    int code = 0;
    squish_error err = {0};
    if (cli_signal_seen())
        code = cli_fail_text(c, 130, "stopped");
    else if (bad)
        code = cli_fail_text(c, 1, "%s: %s", path, strerror(why));
    else if (b.failed)
        code = cli_fail_text(c, 1, "%s: larger than %d MiB", path, TEXT_MAX >> 20);
    else if (text && !sq_utf8_valid(b.data ? b.data : "", b.len))
        code = cli_fail_text(c, 1, "%s: not UTF-8 text (convert it first, for example with iconv)",
                             from_stdin ? "standard input" : path);
    else if (sq_buf_take(&b, out, &err) != SQUISH_OK)
        code = cli_fail(c, &err);
    sq_buf_deinit(&b);
    return code;
}
