/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_show.c - facts about one model, from its file, and the list of models one can name. */
#include "cli/cli.h"
#include "hub/hub.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- where it came from ---------------------------------------------------------------------- */

/* Of the folder at path, or of the one the file at path lies in. */
static void read_manifest(const char *path, sq_store_manifest *m) {
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!sq_os_is_dir(dir) && slash) *slash = 0;
    sq_store_manifest_read(dir, m, NULL); /* root NULL: none, or a damaged one */
}

static uint64_t manifest_bytes(const sq_store_manifest *m) {
    uint64_t sum = 0;
    size_t i;
    const json_t *f;
    json_array_foreach(m->files, i, f) sum += (uint64_t)json_integer_value(json_object_get(f, "bytes"));
    return sum;
}

static void print_manifest(const sq_store_manifest *m) {
    char size[32], day[32] = "?";
    const time_t when = (time_t)m->pulled;
    struct tm t;
    size_t i;
    const json_t *f;
    if (m->pulled > 0 && gmtime_r(&when, &t)) strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &t);
    printf("source        %s, %s%s%.40s\n", m->source ? m->source : "not stated", m->repo ? m->repo : "",
           m->revision && *m->revision ? " at " : "", m->revision ? m->revision : "");
    printf("licence       %s\n", m->license ? m->license : "not stated");
    printf("came          %s, %s in %zu %s\n", day, cli_bytes(manifest_bytes(m), size),
           json_array_size(m->files), json_array_size(m->files) == 1 ? "file" : "files");
    json_array_foreach(m->files, i, f) {
        const char *sum = json_string_value(json_object_get(f, "sha256"));
        printf("file          %s, %s, sha256 %.16s\n", json_string_value(json_object_get(f, "path")),
               cli_bytes((uint64_t)json_integer_value(json_object_get(f, "bytes")), size),
               sum ? sum : "not noted");
    }
}

/* ---- opening to look ------------------------------------------------------------------------- */

/* What there is to show. */
typedef struct {
    squish_model *model;
    sq_store_manifest came; /* root NULL: none */
    squish_error refused;   /* why weights are not run here, where the vocabulary can be read all the same */
} look;

/* Looking builds nothing: a checkpoint without a tier is shown as it lies. */
static squish_status open_to_look(const cli *c, const char *name, look *l, squish_error *err) {
    squish_text path = {0};
    squish_model_options o = squish_model_options_default();
    const char *tier = cli_text(c, OPT_TIER);
    o.tier = strcmp(tier, "0") == 0        ? SQUISH_TIER_0
             : strcmp(tier, "q8") == 0     ? SQUISH_TIER_Q8
             : strcmp(tier, "source") == 0 ? SQUISH_TIER_SOURCE
                                           : SQUISH_TIER_AUTO;
    SQ_TRY(cli_locate_here(c, name, &path, err));
    read_manifest(path.data, &l->came);
    o.allow_collapsed = true; /* its quality is one of the facts */
    squish_status st = squish_model_open(&l->model, path.data, &o, err);
    if (st == SQUISH_UNSUPPORTED && !sq_os_is_dir(path.data)) {
        o.text_only = true;
        st = squish_model_open(&l->model, path.data, &o, &l->refused);
        if (st == SQUISH_OK && err) {
            l->refused = *err;
            *err = (squish_error){0};
        }
    }
    squish_text_free(&path);
    return st;
}

/* ---- --about --------------------------------------------------------------------------------- */

/* Public checkpoints to suggest. Billions of parameters, and bytes of keys and values a token at f16. */
static const struct {
    const char *name;
    double billions;
    int32_t kv_bytes;
} suggestions[] = {
    {"Qwen2.5-32B-Instruct", 32.8, 262144}, {"Qwen2.5-14B-Instruct", 14.8, 196608},
    {"Qwen2.5-7B-Instruct", 7.62, 57344},   {"Qwen2.5-3B-Instruct", 3.09, 36864},
    {"Qwen2.5-1.5B-Instruct", 1.54, 28672}, {"Qwen2.5-0.5B-Instruct", 0.49, 12288},
};

/* The largest that leaves a fifth of the available memory to others: 4-bit weights with their scales are
 * about 0.6 bytes a parameter, and a context of 8192 tokens should fit beside them. */
static const char *suggestion(uint64_t available) {
    for (size_t i = 0; i < SQ_COUNT(suggestions); i++) {
        const double need = suggestions[i].billions * 1e9 * 0.6 + 8192.0 * suggestions[i].kv_bytes;
        if (need <= 0.8 * (double)available) return suggestions[i].name;
    }
    return NULL;
}

static void put_count(uint64_t n, char out[32]) {
    if (n >= 1000000000) snprintf(out, 32, "%.3g G", (double)n / 1e9);
    else if (n >= 1000000) snprintf(out, 32, "%.0f M", (double)n / 1e6);
    else snprintf(out, 32, "%llu", (unsigned long long)n);
}

/* The model that comes with the program, or a tier of it. */
static bool is_shipped(const squish_model_info *m) {
    const char *at = strstr(m->path, "squish-tiny");
    if (!at || m->n_params > 100000000 || (at > m->path && at[-1] != '/')) return false;
    at += strlen("squish-tiny");
    return *at == 0 || *at == '/' || *at == '.' || strncmp(at, "-compressed", 11) == 0;
}

static void about(const squish_model_info *m, json_t *o) {
    char count[32], room[32], what[480], next[480];
    squish_machine machine;
    squish_machine_get(&machine);
    put_count(m->n_params, count);
    const double bits = m->bits_per_weight;
    if (is_shipped(m))
        snprintf(
            what, sizeof what,
            "This is squish-tiny, a %s parameter demonstration model (%s, tier %s, %.2f bits per weight).",
            count, m->architecture, m->tier, bits);
    else
        snprintf(what, sizeof what, "This is %.200s: %s parameters (%s, tier %s, %.2f bits per weight).",
                 m->path, count, m->architecture, m->tier, bits);
    const char *name = suggestion(machine.memory_available);
    cli_bytes(machine.memory_available, room);
    if (name)
        snprintf(next, sizeof next,
                 "A real one for this machine (%s free), as a downloaded Hugging Face folder: squish run "
                 "PATH-TO/%s",
                 room, name);
    else
        snprintf(next, sizeof next,
                 "No larger model fits this machine now (%s free); with 1 GB: squish run "
                 "PATH-TO/Qwen2.5-0.5B-Instruct",
                 room);
    if (o) {
        json_object_set_new(o, "about", json_string(what));
        json_object_set_new(o, "suggestion", name ? json_string(name) : json_null());
    } else {
        printf("%s\n%s\n", what, next);
    }
}

/* ---- facts ----------------------------------------------------------------------------------- */

static json_t *facts_json(const squish_model *model, const squish_model_info *m) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, "
                          "s:i, s:b, s:b, s:b, s:f, s:s}",
                          "path", m->path, "architecture", m->architecture, "tier", m->tier, "weight_types",
                          m->weight_types ? m->weight_types : "", "parameters", (json_int_t)m->n_params,
                          "weight_bytes", (json_int_t)m->weight_bytes, "bits_per_weight", m->bits_per_weight,
                          "layers", m->n_layers, "hidden", m->hidden, "ffn", m->ffn, "heads", m->n_heads,
                          "kv_heads", m->n_kv_heads, "head_dim", m->head_dim, "vocab", m->n_vocab,
                          "vocab_tokens", m->n_vocab_tokens, "ctx_train", m->ctx_train, "window", m->window,
                          "tied_head", m->tied_head, "tokenizer", m->has_tokenizer, "template",
                          m->has_template, "load_ms", m->load_ms, "quality", squish_quality_name(m->quality));
    if (o && m->n_experts) {
        json_object_set_new(o, "experts", json_integer(m->n_experts));
        json_object_set_new(o, "experts_used", json_integer(m->n_experts_used));
    }
    if (o && m->guess_heads) json_object_set_new(o, "guess_heads", json_integer(m->guess_heads));
    const char *config = squish_model_config_json(model), *generation = squish_model_generation_json(model);
    if (o && config) json_object_set_new(o, "config", json_loads(config, 0, NULL));
    if (o && generation) json_object_set_new(o, "generation", json_loads(generation, 0, NULL));
    return o;
}

static void add_memory(json_t *o, const squish_mem_estimate *e) {
    json_object_set_new(o, "memory",
                        json_pack("{s:I, s:I, s:I, s:I, s:i, s:I}", "weights", (json_int_t)e->weight_bytes,
                                  "kv", (json_int_t)e->kv_bytes, "scratch", (json_int_t)e->scratch_bytes,
                                  "total", (json_int_t)e->total_bytes, "ctx", e->ctx_tokens, "available",
                                  (json_int_t)e->available_bytes));
}

static json_t *tensors_json(const squish_model *model) {
    json_t *all = json_array();
    squish_tensor_info t;
    for (size_t i = 0; squish_model_tensor(model, i, &t); i++)
        json_array_append_new(all, json_pack("{s:s, s:s, s:i, s:I, s:I, s:I}", "name", t.name, "type", t.type,
                                             "layer", t.layer, "rows", (json_int_t)t.rows, "cols",
                                             (json_int_t)t.cols, "bytes", (json_int_t)t.bytes));
    return all;
}

static void print_facts(const squish_model_info *m, const squish_mem_estimate *e) {
    char count[32], bytes[32], a[32], b[32];
    put_count(m->n_params, count);
    printf("path          %s\n", m->path);
    printf("architecture  %s\n", m->architecture);
    printf("tier          %s\n", m->tier);
    if (m->quality != SQUISH_QUALITY_UNVERIFIED)
        printf("quality       %s, as measured when it was made\n", squish_quality_name(m->quality));
    if (m->n_params) {
        printf("weights       %s (%s, %.2f bits each)\n", m->weight_types ? m->weight_types : "",
               cli_bytes(m->weight_bytes, bytes), m->bits_per_weight);
        printf("parameters    %s (%llu)\n", count, (unsigned long long)m->n_params);
        printf("layers        %d of %d wide, feed-forward %d\n", m->n_layers, m->hidden, m->ffn);
        if (m->n_experts) printf("experts       %d of %d for each token\n", m->n_experts_used, m->n_experts);
        printf("heads         %d of %d, %d for keys and values\n", m->n_heads, m->head_dim, m->n_kv_heads);
        if (m->guess_heads) printf("guesses       %d tokens in a row, by heads of its own\n", m->guess_heads);
    }
    if (m->n_vocab)
        printf("vocabulary    %d rows, %d tokens%s\n", m->n_vocab, m->n_vocab_tokens,
               m->tied_head ? ", head tied to it" : "");
    if (m->ctx_train) printf("context       %d tokens", m->ctx_train);
    if (m->ctx_train && m->window) printf(", windowed layers see %d", m->window);
    if (m->ctx_train) putchar('\n');
    printf("tokenizer     %s\n", m->has_tokenizer ? "yes" : "no");
    printf("template      %s\n", m->has_template ? "yes" : "no");
    if (e)
        printf("memory        %s at %d tokens, %s of it keys and values\n", cli_bytes(e->total_bytes, a),
               e->ctx_tokens, cli_bytes(e->kv_bytes, b));
}

static void print_tensors(const squish_model *model) {
    squish_tensor_info t;
    char size[32];
    putchar('\n');
    for (size_t i = 0; squish_model_tensor(model, i, &t); i++)
        printf("%-44s %-10s %7llu x %-7llu %10s\n", t.name, t.type, (unsigned long long)t.rows,
               (unsigned long long)t.cols, cli_bytes(t.bytes, size));
}

int cli_show(cli *c) {
    const char *name = cli_has(c, OPT_MODEL) ? cli_text(c, OPT_MODEL) : c->n_args ? c->args[0] : NULL;
    if (c->n_args > (cli_has(c, OPT_MODEL) ? 0 : 1)) return cli_fail_text(c, 2, "show takes one model");
    squish_error err = {0};
    look l = {0};
    if (open_to_look(c, name, &l, &err) != SQUISH_OK) {
        json_decref(l.came.root);
        return cli_fail(c, &err);
    }
    squish_model_info m;
    squish_mem_estimate e;
    squish_model_get_info(l.model, &m);
    const bool fits = m.n_params && squish_engine_estimate(l.model, NULL, &e, NULL) == SQUISH_OK;
    int code = 0;
    if (cli_flag(c, OPT_JSON)) {
        json_t *o = facts_json(l.model, &m);
        if (o && l.refused.code) json_object_set_new(o, "refused", json_string(l.refused.text));
        if (o && fits) add_memory(o, &e);
        if (o && cli_flag(c, OPT_ABOUT)) about(&m, o);
        if (o && l.came.root) json_object_set(o, "manifest", l.came.root);
        if (o && cli_flag(c, OPT_TENSORS)) json_object_set_new(o, "tensors", tensors_json(l.model));
        code = cli_print_json(o);
    } else if (cli_flag(c, OPT_ABOUT)) {
        about(&m, NULL);
    } else {
        print_facts(&m, fits ? &e : NULL);
        if (l.refused.code) printf("refused       %s\n", l.refused.text);
        if (l.came.root) print_manifest(&l.came);
        if (cli_flag(c, OPT_TENSORS)) print_tensors(l.model);
    }
    squish_model_close(l.model);
    json_decref(l.came.root);
    return code;
}

/* ---- list ------------------------------------------------------------------------------------ */

typedef struct {
    json_t *all;
} list_ctx;

static bool add_model(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    const list_ctx *k = user;
    json_t *seen;
    size_t i;
    /* The same name further down the search path is hidden by the first. */
    json_array_foreach(k->all, i, seen)
        if (strcmp(json_string_value(json_object_get(seen, "name")), name) == 0) return true;
    json_array_append_new(k->all, json_pack("{s:s, s:s, s:I, s:s}", "name", name, "path", path, "bytes",
                                            (json_int_t)bytes, "tiers", tiers));
    return true;
}

/* Aligned for eyes, or fields between tabs for programs: name, bytes, ready tiers, path. */
static void print_model(const json_t *m, bool eyes) {
    const char *name, *path, *tiers;
    json_int_t bytes;
    char size[32];
    if (json_unpack((json_t *)(uintptr_t)m, "{s:s, s:s, s:I, s:s}", "name", &name, "path", &path, "bytes",
                    &bytes, "tiers", &tiers))
        return;
    if (eyes)
        printf("%-28s %10s  %-8s %s\n", name, cli_bytes((uint64_t)bytes, size), *tiers ? tiers : "-", path);
    else printf("%s\t%lld\t%s\t%s\n", name, (long long)bytes, tiers, path);
}

int cli_list(cli *c) {
    if (c->n_args) return cli_fail_text(c, 2, "list takes no arguments");
    list_ctx k = {json_array()};
    squish_error err = {0};
    if (squish_list(cli_home(c), add_model, &k, &err) != SQUISH_OK) {
        json_decref(k.all);
        return cli_fail(c, &err);
    }
    if (cli_flag(c, OPT_JSON)) return cli_print_json(json_pack("{s:o}", "models", k.all));
    const bool eyes = isatty(STDOUT_FILENO);
    if (eyes) printf("%-28s %10s  %-8s %s\n", "name", "size", "tiers", "path");
    size_t i;
    json_t *m;
    json_array_foreach(k.all, i, m) print_model(m, eyes);
    json_decref(k.all);
    return 0;
}
