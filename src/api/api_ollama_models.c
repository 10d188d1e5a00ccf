/* SPDX-License-Identifier: Apache-2.0
 *
 * api_ollama_models.c - which models there are, in Ollama's words: GET /api/tags, /api/ps, /api/version and
 * POST /api/show.
 *
 * show says what stands in the model's files. A model that runs is asked itself; another is opened for the
 * answer, which maps its files and loads nothing. `digest` is an identity of the files (names, sizes, ages):
 * a checksum of gigabytes for each listing would cost minutes. Capabilities are those of this server: tools
 * are not among them while it cannot hold a model to their form. */
#include "api/api_int.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The version of Ollama whose routes these are: clients look at it to know what they may ask for. */
static const char ollama_version[] = "0.13.0";
enum { PATH_BYTES = 4096, LICENSE_MAX = 1 << 20 };
#define FOR_EVER_NS                                                                                          \
    ((uint64_t)INT64_MAX / 2) /* some 146 years: what Ollama's clients can still read as a date */

/* ---- parts ----------------------------------------------------------------------------------- */

void sq_api_hex(const unsigned char *bytes, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) out[2 * i] = digits[bytes[i] >> 4], out[2 * i + 1] = digits[bytes[i] & 15];
    out[2 * n] = 0;
}

static void add_file(EVP_MD_CTX *md, const char *name, const char *path) {
    const uint64_t numbers[2] = {sq_os_file_bytes(path), sq_os_file_mtime_ns(path)};
    EVP_DigestUpdate(md, name, strlen(name) + 1);
    EVP_DigestUpdate(md, numbers, sizeof numbers);
}

static void add_folder(EVP_MD_CTX *md, const char *dir) {
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    char **names = NULL, path[PATH_BYTES];
    size_t n = 0;
    sq_arena_init(&ar, &a, 4096, 0);
    if (sq_os_list_dir(dir, &ar, &names, &n, NULL) == SQUISH_OK)
        for (size_t i = 0; i < n; i++)
            if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path)
                add_file(md, names[i], path);
    sq_arena_deinit(&ar);
}

void sq_api_identity(const char *path, char out[65]) {
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const char *name = strrchr(path, '/');
    if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL)) {
        add_file(md, name ? name + 1 : path, path);
        if (sq_os_is_dir(path)) add_folder(md, path);
        EVP_DigestFinal_ex(md, sum, NULL);
    }
    EVP_MD_CTX_free(md);
    sq_api_hex(sum, 32, out);
}

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static const char *format_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (ends_with(path, ".gguf")) return "gguf";
    if (strncmp(slash ? slash + 1 : path, "sha256-", 7) == 0) return "gguf"; /* a blob of Ollama */
    return ends_with(path, ".sqw") ? "sqw" : "safetensors";
}

/* "19.9M", "7.6B", "360K", as Ollama writes them. */
static void count_text(uint64_t n, char out[16]) {
    const double v = (double)n;
    if (n >= 1000000000u)
        snprintf(out, 16, "%.1fB", v / 1e9);
    else if (n >= 1000000u)
        snprintf(out, 16, "%.1fM", v / 1e6);
    else
        snprintf(out, 16, "%.0fK", v / 1e3);
}

json_t *sq_api_ollama_details(const squish_model_info *i, const char *parent) {
    char size[16], quant[64];
    count_text(i->n_params, size);
    snprintf(quant, sizeof quant, "%.*s", (int)strcspn(i->weight_types, ","), i->weight_types);
    return json_pack("{s:s, s:s, s:s, s:[s], s:s, s:s}", "parent_model", parent, "format", format_of(i->path),
                     "family", i->architecture, "families", i->architecture, "parameter_size", size,
                     "quantization_level", quant);
}

/* "x" -> "x:latest", as names look in Ollama's lists. */
static json_t *tagged(const char *name) {
    char full[SQ_API_NAME_MAX + 16];
    snprintf(full, sizeof full, "%.*s%s", SQ_API_NAME_MAX, name, strchr(name, ':') ? "" : ":latest");
    return json_string(full);
}

/* ---- version, ps (loop thread) --------------------------------------------------------------- */

static void get_version(void *user, sq_http_req *r) {
    (void)user;
    sq_api_reply_json(r, 200, json_pack("{s:s}", "version", ollama_version));
}

static json_t *running(const sq_api_model *m) {
    char until[SQ_API_STAMP], identity[65];
    const double s = sq_api_model_expires_s(m);
    const bool stays = s < 0 || s * 1e9 > (double)FOR_EVER_NS;
    sq_api_stamp(sq_os_unix_ns() + (stays ? FOR_EVER_NS : (uint64_t)(s * 1e9)), until);
    sq_api_identity(m->path, identity); /* as tags has it */
    return json_pack("{s:o, s:o, s:I, s:s, s:o, s:s, s:i, s:i}", "name", tagged(m->name), "model",
                     tagged(m->name), "size", (json_int_t)m->bytes, "digest", identity, "details",
                     sq_api_ollama_details(&m->info, ""), "expires_at", until, "size_vram", 0,
                     "context_length", m->engine_info.ctx_tokens);
}

static void get_ps(void *user, sq_http_req *r) {
    sq_api *api = user;
    json_t *list = json_array();
    for (const sq_api_model *m = sq_api_model_first(api); m; m = m->next)
        if (m->state == SQ_API_READY) json_array_append_new(list, running(m));
    sq_api_reply_json(r, 200, json_pack("{s:o}", "models", list));
}

/* ---- tags ------------------------------------------------------------------------------------ */

static bool read_nothing(sq_api_call *c, json_t *body) {
    (void)body;
    return c->error.status == 0;
}

static bool is_listed(const json_t *list, const json_t *name) {
    size_t i;
    json_t *o;
    json_array_foreach((json_t *)list, i, o) {
        if (json_equal(json_object_get(o, "name"), name)) return true;
    }
    return false;
}

/* Loop thread: models that run are asked themselves, under "running" by path; opening one costs tens of
 * milliseconds. */
static bool look_tags(sq_api_call *c) {
    json_t *running = json_object();
    for (const sq_api_model *m = sq_api_model_first(c->api); m; m = m->next)
        if (m->state == SQ_API_READY)
            json_object_set_new(running, m->path, sq_api_ollama_details(&m->info, ""));
    c->result = json_pack("{s:[], s:o}", "models", "running", running);
    return c->result || sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

/* Details that a look into the model's header tells; a folder that cannot be read has none. */
static json_t *details_of(const sq_api_call *c, const char *path, const char *parent) {
    json_t *known = json_copy(json_object_get(json_object_get(c->result, "running"), path));
    if (known) json_object_set_new(known, "parent_model", json_string(parent));
    if (known) return known;
    squish_model_options o = squish_model_options_default();
    squish_model *m;
    squish_model_info info;
    o.allow_collapsed = true;
    if (squish_model_open(&m, path, &o, NULL) != SQUISH_OK)
        return json_pack("{s:s, s:s, s:s, s:[], s:s, s:s}", "parent_model", parent, "format", format_of(path),
                         "family", "", "families", "parameter_size", "", "quantization_level", "");
    squish_model_get_info(m, &info);
    json_t *details = sq_api_ollama_details(&info, parent);
    squish_model_close(m);
    return details;
}

static bool add_entry(sq_api_call *c, const char *name, const char *path, uint64_t bytes, uint64_t mtime_ns,
                      const char *parent) {
    json_t *list = json_object_get(c->result, "models"), *full = tagged(name);
    char stamp[SQ_API_STAMP], identity[65];
    if (is_listed(list, full)) {
        json_decref(full);
        return true;
    }
    sq_api_stamp(mtime_ns, stamp);
    sq_api_identity(path, identity);
    sq_api_add(c, list,
               json_pack("{s:O, s:o, s:s, s:I, s:s, s:o}", "name", full, "model", full, "modified_at", stamp,
                         "size", (json_int_t)bytes, "digest", identity, "details",
                         details_of(c, path, parent)));
    return true;
}

static bool add_stored(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    (void)tiers;
    return add_entry(user, name, path, bytes, sq_os_file_mtime_ns(path), "");
}

static uint64_t bytes_at(const char *path) {
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    char **names = NULL, file[PATH_BYTES];
    size_t n = 0;
    uint64_t sum = sq_os_file_bytes(path);
    sq_arena_init(&ar, &a, 4096, 0);
    if (sq_os_is_dir(path) && sq_os_list_dir(path, &ar, &names, &n, NULL) == SQUISH_OK)
        for (size_t i = 0; i < n; i++)
            if (snprintf(file, sizeof file, "%s/%s", path, names[i]) < (int)sizeof file)
                sum += sq_os_file_bytes(file);
    sq_arena_deinit(&ar);
    return sum;
}

static bool add_made(void *user, const char *name, const char *file, const sq_store_made *made) {
    (void)file;
    sq_api_call *c = user;
    const char *path;
    if (sq_api_store_find(c->api, made->from, &c->arena, &path, NULL) != SQUISH_OK)
        return true; /* its base is gone */
    return add_entry(c, name, path, bytes_at(path), made->mtime_ns, made->from);
}

static bool work_tags(sq_api_call *c) {
    for (int32_t i = 0; i < c->api->opt.n_models; i++) {
        const sq_api_named *n = &c->api->opt.models[i];
        add_entry(c, n->name, n->path, bytes_at(n->path), sq_os_file_mtime_ns(n->path), "");
    }
    sq_store_made_each(c->api->opt.home, add_made, c, NULL);
    sq_api_store_each(c->api, add_stored, c, NULL); /* an unreadable folder holds no models */
    json_object_del(c->result, "running");
    return c->error.status == 0;
}

/* ---- show ------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    bool verbose;
    sq_store_made made; /* root NULL: none */
} show_state;

static bool read_show(sq_api_call *c, json_t *body) {
    show_state *s = c->state;
    squish_error err = {0};
    if (!sq_api_ollama_head(c, body) || !sq_api_get_bool(&c->error, body, "", "verbose", &s->verbose))
        return false;
    s->name = c->wish.model;
    c->wish.keep_alive_set = false;
    const squish_status st = sq_api_made_read(c->api, s->name, &s->made, &err);
    if (st != SQUISH_OK && st != SQUISH_NOT_FOUND) return sq_api_refuse_lib(&c->error, &err);
    c->made = s->made.root;
    if (st == SQUISH_OK) c->wish.model = s->made.from;
    return true;
}

/* Loop thread: a model that runs is asked itself. It is given back when the call ends. */
static bool look_show(sq_api_call *c) {
    sq_api_model *m = sq_api_model_find(c->api, c->wish.model);
    if (m && m->state == SQ_API_READY) m->users++, c->model = m;
    return true;
}

static void put_number(json_t *o, const char *arch, const char *key, const json_t *v) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    if (json_is_number(v)) json_object_set(o, name, (json_t *)v);
}

static void put_int(json_t *o, const char *arch, const char *key, int64_t v) {
    json_t *n = json_integer((json_int_t)v);
    put_number(o, arch, key, n);
    json_decref(n);
}

static void put_config(json_t *o, const char *arch, const squish_model *m) {
    static const char *const rows[][2] = {{"rope_theta", "rope.freq_base"},
                                          {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
                                          {"sliding_window", "attention.sliding_window"},
                                          {"num_experts", "expert_count"},
                                          {"num_experts_per_tok", "expert_used_count"}};
    const char *text = squish_model_config_json(m);
    json_t *config = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        put_number(o, arch, rows[i][1], json_object_get(config, rows[i][0]));
    json_decref(config);
}

static int32_t first_eos(const squish_model *m, int32_t n_vocab) {
    for (int32_t i = 0; i < n_vocab; i++)
        if (squish_token_is_eos(m, i)) return i;
    return -1;
}

static json_t *token_list(const squish_model *m, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(list, sq_api_token_text(m, i));
    return list;
}

static json_t *model_info(const squish_model *m, const squish_model_info *i, bool verbose) {
    const char *arch = i->architecture;
    json_t *o = json_pack("{s:s, s:I}", "general.architecture", arch, "general.parameter_count",
                          (json_int_t)i->n_params);
    put_int(o, arch, "context_length", i->ctx_train);
    put_int(o, arch, "embedding_length", i->hidden);
    put_int(o, arch, "feed_forward_length", i->ffn);
    put_int(o, arch, "block_count", i->n_layers);
    put_int(o, arch, "attention.head_count", i->n_heads);
    put_int(o, arch, "attention.head_count_kv", i->n_kv_heads);
    put_int(o, arch, "attention.key_length", i->head_dim);
    put_int(o, arch, "attention.value_length", i->head_dim);
    put_int(o, arch, "vocab_size", i->n_vocab);
    put_config(o, arch, m);
    if (!i->has_tokenizer) return o;
    const int32_t bos = squish_token_bos(m), eos = first_eos(m, i->n_vocab_tokens);
    if (bos >= 0) put_int(o, "tokenizer.ggml", "bos_token_id", bos);
    if (eos >= 0) put_int(o, "tokenizer.ggml", "eos_token_id", eos);
    put_int(o, "tokenizer.ggml", "token_count", i->n_vocab_tokens);
    json_object_set_new(o, "tokenizer.ggml.tokens", verbose ? token_list(m, i->n_vocab_tokens) : json_null());
    return o;
}

static json_t *capabilities(const squish_model *m, const squish_model_info *i, const char *path) {
    int32_t marks[3];
    bool embeds;
    json_t *list = json_pack("[s]", "completion");
    if (i->has_tokenizer && sq_api_middle_marks(m, marks)) json_array_append_new(list, json_string("insert"));
    sq_calls_manner manner;
    sq_calls_detect(squish_model_template(m), &manner);
    if (manner.tools && manner.style != SQ_CALLS_NONE) json_array_append_new(list, json_string("tools"));
    if (manner.think_open || manner.style == SQ_CALLS_HARMONY)
        json_array_append_new(list, json_string("thinking"));
    sq_api_pooling(m, path, &embeds);
    if (embeds) json_array_append_new(list, json_string("embedding"));
    return list;
}

/* One "name value" a line; strings in quotes, lists one line each. */
static json_t *parameter_lines(const json_t *parameters, const char *before) {
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 20);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)parameters, key, v) {
        const size_t n = json_is_array(v) ? json_array_size(v) : 1;
        for (size_t i = 0; i < n; i++) {
            char *text = json_dumps(json_is_array(v) ? json_array_get(v, i) : v,
                                    JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
            sq_buf_printf(&b, "%s%s%-30s %s", b.len ? "\n" : "", before, key, text ? text : "");
            free(text);
        }
    }
    json_t *o = json_stringn(b.data ? b.data : "", b.len);
    sq_buf_deinit(&b);
    return o;
}

static json_t *modelfile(const show_state *s, const char *from, const char *source) {
    sq_buf b;
    sq_buf_init(&b, NULL, 8 << 20);
    sq_buf_printf(&b, "FROM %s\nTEMPLATE \"\"\"%s\"\"\"\n", from, source);
    if (s->made.system) sq_buf_printf(&b, "SYSTEM \"\"\"%s\"\"\"\n", s->made.system);
    json_t *lines = parameter_lines(s->made.parameters, "PARAMETER ");
    if (json_string_length(lines)) sq_buf_printf(&b, "%s\n", json_string_value(lines));
    json_decref(lines);
    json_t *o = b.failed ? json_string("") : json_stringn(b.data, b.len);
    sq_buf_deinit(&b);
    return o;
}

static json_t *license_of(const show_state *s, const char *path) {
    if (s->made.license) return json_string(s->made.license);
    const squish_alloc a = sq_alloc_default();
    char file[PATH_BYTES];
    sq_arena ar;
    sq_span text = {0};
    sq_arena_init(&ar, &a, 4096, 0);
    const bool there = snprintf(file, sizeof file, "%s/LICENSE", path) < (int)sizeof file &&
                       sq_os_is_dir(path) &&
                       sq_os_read_file(file, LICENSE_MAX, &ar, &text, NULL) == SQUISH_OK;
    json_t *o = there ? json_stringn((const char *)text.p, text.n) : NULL;
    sq_arena_deinit(&ar);
    return o ? o : json_string("");
}

static bool form_show(sq_api_call *c, const squish_model *m, const char *path) {
    const show_state *s = c->state;
    squish_model_info i;
    squish_model_get_info(m, &i);
    const char *source = squish_model_template(m);
    char stamp[SQ_API_STAMP];
    if (s->made.template_source) source = s->made.template_source;
    if (!source) source = "";
    sq_api_stamp(s->made.root ? s->made.mtime_ns : sq_os_file_mtime_ns(path), stamp);
    c->result = json_pack(
        "{s:o, s:o, s:s, s:s, s:o, s:s, s:o, s:o, s:o}", "modelfile", modelfile(s, path, source),
        "parameters", parameter_lines(s->made.parameters, ""), "template", source, "system",
        s->made.system ? s->made.system : "", "license", license_of(s, path), "modified_at", stamp, "details",
        sq_api_ollama_details(&i, s->made.root ? s->made.from : ""), "model_info",
        model_info(m, &i, s->verbose), "capabilities", capabilities(m, &i, c->model ? c->model->path : path));
    return c->result || sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

static bool work_show(sq_api_call *c) {
    const char *path;
    squish_error err = {0};
    squish_model *m;
    squish_model_options o = squish_model_options_default();
    if (c->model) return form_show(c, c->model->model, c->model->info.path);
    o.allow_collapsed = true;
    if (sq_api_store_find(c->api, c->wish.model, &c->arena, &path, &err) != SQUISH_OK ||
        squish_model_open(&m, path, &o, &err) != SQUISH_OK)
        return sq_api_refuse_lib(&c->error, &err);
    const bool ok = form_show(c, m, path);
    squish_model_close(m);
    return ok;
}

/* ---- routes ---------------------------------------------------------------------------------- */

static const sq_api_dialect tags = {.name = "ollama-tags",
                                    .read = read_nothing,
                                    .look = look_tags,
                                    .work = work_tags,
                                    .needs_no_model = true,
                                    .error = sq_api_error_ollama};
static const sq_api_dialect show = {.name = "ollama-show",
                                    .state_bytes = sizeof(show_state),
                                    .read = read_show,
                                    .look = look_show,
                                    .work = work_show,
                                    .needs_no_model = true,
                                    .error = sq_api_error_ollama};

static void get_tags(void *user, sq_http_req *r) { sq_api_call_new(user, r, &tags); }
static void post_show(void *user, sq_http_req *r) { sq_api_call_new(user, r, &show); }

static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/api/tags", 0, 0, get_tags},
    {SQ_HTTP_POST, "/api/show", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_show},
    {SQ_HTTP_GET, "/api/ps", 0, 0, get_ps},
    {SQ_HTTP_GET, "/api/version", 0, 0, get_version},
};
const sq_api_routes sq_api_routes_ollama_models = {routes, SQ_COUNT(routes)};
