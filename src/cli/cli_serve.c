/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_serve.c - the server: from options to sq_api, and what is said when it is ready.
 *
 * Prompts go to disk only where --snapshot-dir says so: what somebody asked is nobody's business after the
 * answer, and a folder in the store would keep it for whoever reads the disk. */
#include "cli/cli.h"

#include "api/api.h"
#include "base/base_heap.h"
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

/* "30s", "5m", "2h", "1d", plain seconds; negative: for ever. */
static bool parse_time(const char *text, double *out) {
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    char *end = NULL;
    const double v = strtod(text, &end);
    if (end == text || !(v >= -1e9 && v <= 1e9)) return false;
    for (size_t i = 0; i < SQ_COUNT(units); i++)
        if (strcmp(end, units[i].unit) == 0) {
            *out = v < 0 ? -1 : v * units[i].seconds;
            return true;
        }
    return false;
}

/* What clients call a model: the name as typed, or of a path the last part without its ending. Where nothing
 * was typed the path may be that of the tiers, which are no other model. */
static const char *public_name(cli *c, const char *typed, const char *path) {
    const char *from = typed && *typed ? typed : path;
    char key[2 * SQ_STORE_NAME_MAX];
    if (from == typed && sq_store_key(typed, key, sizeof key) && !sq_os_exists(typed)) return typed;
    size_t n = strlen(from);
    while (n > 1 && from[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && from[begin - 1] != '/') begin--;
    static const char *const endings[] = {".sqw", ".gguf", "-compressed"};
    for (size_t i = 0; i < (from == typed ? 2 : SQ_COUNT(endings)); i++) {
        const size_t m = strlen(endings[i]);
        if (n - begin > m && strncmp(from + n - m, endings[i], m) == 0) n -= m;
    }
    return sq_arena_strndup(&c->arena, from + begin, n - begin);
}

/* Models of the command line, found and compressed if need be; none: the shipped one. */
static int find_models(cli *c, sq_api_named *named, int32_t *n) {
    *n = c->n_args ? c->n_args : 1;
    for (int32_t i = 0; i < *n; i++) {
        squish_text path = {0};
        const char *typed = c->n_args ? c->args[i] : NULL;
        const int code = cli_find_model(c, typed, cli_tier(c), &path);
        if (code) return code;
        named[i].path = sq_arena_strndup(&c->arena, path.data, path.bytes);
        named[i].name = public_name(c, typed, path.data);
        squish_text_free(&path);
        if (!named[i].path || !named[i].name || !*named[i].name)
            return cli_fail_text(c, 1, "%.200s: this has no name that clients could say", typed ? typed : "");
    }
    return 0;
}

/* ---- when it is ready ------------------------------------------------------------------------ */

typedef struct {
    cli *c;
    const sq_api_named *named;
} hello;

static void say_ready(void *user, const sq_api_ready *r) {
    const hello *h = user;
    const char *url = *r->url ? r->url : "http://localhost"; /* behind curl --unix-socket */
    cli_note(h->c, "squish serves %s (%s%s)", *r->url ? url : r->socket, h->named[0].name,
             r->n_models > 1 ? " and others; see /v1/models" : "");
    if (*r->ollama_url) cli_note(h->c, "for Ollama's clients: %s", r->ollama_url);
    if (*r->socket) cli_note(h->c, "socket: %s", r->socket);
    cli_note(h->c, "base URL for OpenAI's clients: %s/v1  key: %s", url,
             r->keyed ? "yours" : "none is asked for, anything will do");
    cli_note(h->c,
             "try: curl %s/v1/chat/completions -H 'Content-Type: application/json'%s -d '{\"model\": \"%s\", "
             "\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of Japan?\"}]}'",
             url, r->keyed ? " -H \"Authorization: Bearer $KEY\"" : "", h->named[0].name);
    if (cli_flag(h->c, OPT_JSON)) {
        cli_print_json(json_pack("{s:s, s:f, s:s?}", "ready", *r->url ? r->url : r->socket, "load_ms",
                                 r->load_ms, "ollama", *r->ollama_url ? r->ollama_url : NULL));
        fflush(stdout);
    }
}

/* ---- options --------------------------------------------------------------------------------- */

static int take_options(cli *c, sq_api_options *o) {
    const char *limit = cli_text(c, OPT_MEMORY_LIMIT);
    o->host = cli_text(c, OPT_HOST);
    o->port = (int)cli_int(c, OPT_PORT);
    o->ollama_port = (int)cli_int(c, OPT_OLLAMA_PORT);
    o->socket = cli_text(c, OPT_SOCKET);
    o->insecure = cli_flag(c, OPT_INSECURE);
    o->keys = c->values[OPT_API_KEY].list;
    o->n_keys = c->values[OPT_API_KEY].n_list;
    o->key_file = cli_text(c, OPT_API_KEY_FILE);
    o->origins = c->values[OPT_CORS].list;
    o->n_origins = c->values[OPT_CORS].n_list;
    o->home = cli_home(c);
    o->tier = cli_tier(c);
    o->ctx_tokens = (int32_t)cli_int(c, OPT_CTX);
    o->parallel = (int32_t)cli_int(c, OPT_PARALLEL);
    o->threads = (int32_t)cli_int(c, OPT_THREADS);
    o->isa_max = cli_text(c, OPT_ISA);
    squish_kv_from_name(cli_text(c, OPT_KV), &o->kv);
    o->kv_options = cli_kv_options(c);
    o->attention = cli_attention(c);
    o->spec = cli_spec(c);
    o->skip_layers = (int32_t)cli_int(c, OPT_SKIP_LAYERS);
    o->queue_max = (int32_t)cli_int(c, OPT_MAX_QUEUE);
    o->key_limit = (int32_t)cli_int(c, OPT_KEY_LIMIT);
    o->request_timeout_s = cli_num(c, OPT_REQUEST_TIMEOUT);
    o->drain_timeout_s = cli_num(c, OPT_DRAIN_TIMEOUT);
    o->snapshot_dir = cli_text(c, OPT_SNAPSHOT_DIR);
    o->snapshot_archive = cli_flag(c, OPT_SNAPSHOT_ARCHIVE);
    o->snapshot_codec = cli_flag(c, OPT_SNAPSHOT_CODEC);
    if (o->snapshot_codec && o->snapshot_archive)
        return cli_fail_text(c, 2,
                             "--snapshot-codec and --snapshot-archive contradict: the one loses something, "
                             "the other nothing");
    hub_settings hub;
    hub_settings_get(&hub);
    o->pulls = !hub.offline && !cli_flag(c, OPT_OFFLINE);
    o->pull_connections = (int32_t)cli_int(c, OPT_CONNECTIONS);
    if (cli_text(c, OPT_LIMIT_RATE)) cli_parse_size(cli_text(c, OPT_LIMIT_RATE), &o->pull_rate);
    o->log_path = cli_text(c, OPT_LOG_FILE);
    o->log_prompts = cli_flag(c, OPT_LOG_PROMPTS);
    o->warn = cli_warn;
    o->warn_user = c;
    if (limit && !cli_parse_size(limit, &o->memory_limit))
        return cli_fail_text(c, 2, "--memory-limit: '%.60s' is no size (as 8G or 512M)", limit);
    o->agile = cli_flag(c, OPT_AGILE_IO);
    squish_lookahead_from_name(cli_text(c, OPT_LOOKAHEAD), &o->lookahead);
    if (!parse_time(cli_text(c, OPT_KEEP_ALIVE), &o->keep_alive_s))
        return cli_fail_text(c, 2, "--keep-alive: '%.60s' is no time (as 30s, 5m or -1)",
                             cli_text(c, OPT_KEEP_ALIVE));
    return 0;
}

/* Shells give 1024 files; as many connections as the server takes need more, and models and pipes some. */
enum { FILES_WANTED = 12000 + 1024 };

int cli_serve(cli *c) {
    squish_error err = {0};
    sq_api_named named[CLI_ARGS_MAX];
    sq_api_options o = sq_api_options_default();
    hello h = {c, named};
    sq_api *api = NULL;
    squish_model *draft = NULL;
    sq_service_socket inherited[4];
    int code = take_options(c, &o);
    if (code) return code;
    if (sq_service_sockets(inherited, SQ_COUNT(inherited), &o.n_inherited, &err) != SQUISH_OK)
        return cli_fail(c, &err);
    o.inherited = inherited;
    /* Finding a model may mean making its tier, for minutes; who may not listen learns that now. */
    if (sq_api_check(&o, &err) != SQUISH_OK) return cli_fail(c, &err);
    if ((code = find_models(c, named, &o.n_models)) != 0) return code;
    if ((code = cli_open_draft(c, &draft)) != 0) return code;
    o.draft = draft;
    o.models = named;
    o.ready = say_ready;
    o.ready_user = &h;
    sq_os_files_max(FILES_WANTED);
    sq_heap_share();
    squish_status st = sq_api_new(&api, &o, &err);
    if (st == SQUISH_OK) st = sq_api_run(api, &err);
    sq_api_free(api);
    squish_model_close(draft);
    return st == SQUISH_OK ? 0 : cli_fail(c, &err);
}
