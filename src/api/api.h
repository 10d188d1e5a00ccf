/* SPDX-License-Identifier: Apache-2.0
 *
 * api.h - the server's mind: what OpenAI, Ollama and Anthropic clients say, mapped onto squish.h.
 *
 *     squish_error err = {0};  sq_api *api;
 *     sq_api_options o = sq_api_options_default();
 *     o.models = &model;  o.n_models = 1;
 *     if (sq_api_new(&api, &o, &err) == SQUISH_OK) sq_api_run(api, &err);
 *     sq_api_free(api);
 *
 * The caller names models and limits; the room owns listeners, models, engines and batches from there on. */
#ifndef SQ_API_H
#define SQ_API_H

#include "base/base_service.h"

typedef struct sq_api sq_api;

/* A model of the command line: it stays loaded. The path is what squish_locate gave; the name is what clients
 * say. Both are copied. */
typedef struct {
    const char *name, *path;
} sq_api_named;

typedef struct {
    const char *url;        /* "http://127.0.0.1:11435"; "" : socket files alone */
    const char *ollama_url; /* "" : no second listener */
    const char *socket;     /* "" : none */
    bool keyed;             /* a key is asked for */
    double load_ms;         /* from sq_api_new until the models of the command line were ready */
    int32_t n_models;       /* of the command line, loaded */
} sq_api_ready;

typedef struct {
    const squish_alloc *alloc; /* NULL: malloc */
    const char *host;          /* default 127.0.0.1 */
    int port;                  /* default 11435; 0: the system chooses */
    int ollama_port;           /* -1: none (default); 0: the system chooses */
    const char *socket;        /* NULL: none */
    /* Sockets that listen already, instead of host and ports; one called "ollama" is as ollama_port. They are
     * the server's once it listens. */
    const sq_service_socket *inherited;
    int32_t n_inherited;
    bool insecure;             /* an address that is not loopback, without keys */
    const char *const *keys;
    int32_t n_keys;
    const char *key_file; /* one key a line, # comments; mode 0600 or it is refused; read again on SIGHUP */
    const char *const *origins;
    int32_t n_origins;
    const char *home;           /* the store; NULL: $SQUISH_HOME or ~/.squish */
    const sq_api_named *models; /* the first is meant where a request names none */
    int32_t n_models;
    squish_tier tier;   /* of every model */
    int32_t ctx_tokens; /* 0: each model's own, as far as memory allows */
    int32_t parallel;   /* answers in one step, 1..32 */
    int32_t threads;    /* 0: what the machine gives */
    const char *isa_max;
    squish_kv kv;
    squish_kv_options kv_options;
    squish_attention attention;
    squish_spec spec;   /* of answers that do not say */
    const squish_model *draft; /* guesses for the first model; open as long as the server is. NULL: none */
    int32_t skip_layers;       /* as squish_engine_options has it; of models that have as many */
    uint64_t memory_limit; /* weights, caches and scratch of all models; 0: what is available */
    squish_lookahead lookahead; /* of experts that are streamed */
    bool agile;            /* weights that do not fit what is available are streamed; those that do not fit
                              memory_limit are in any case */
    double keep_alive_s;   /* of models loaded on demand; < 0: for ever */
    int32_t queue_max;     /* waiting answers per model */
    int32_t key_limit;     /* requests at once per key (or address); 0: no limit */
    double request_timeout_s, drain_timeout_s;
    const char *snapshot_dir; /* NULL: prefixes of prompts are never written to disk */
    bool snapshot_archive;    /* in fewer bytes */
    bool snapshot_codec;      /* as codes, in far fewer: answers behind them differ */
    bool pulls;               /* /api/pull may ask hubs (default: nobody is asked anything) */
    int32_t pull_connections; /* 0: 4 */
    uint64_t pull_rate;       /* bytes a second of a pull; 0: no cap */
    const char *log_path;     /* one JSON line per request; NULL: stderr; "": none */
    bool log_prompts;         /* with the text of prompts */
    bool handle_signals;      /* SIGTERM and SIGINT drain, a second one ends at once, SIGHUP reloads keys */
    /* Loop thread, once: the models of the command line are ready and requests are answered. */
    void (*ready)(void *user, const sq_api_ready *r);
    void *ready_user;
    squish_warn_fn warn;
    void *warn_user;
} sq_api_options;
sq_api_options sq_api_options_default(void);

/* What sq_api_new would say about keys, key file and addresses of these options, before anything is loaded,
 * made or listened on. Models are not looked at. Errors: INVALID, IO (the key file), NO_MEMORY. */
squish_status sq_api_check(const sq_api_options *opt, squish_error *err);
/* Options are copied; strings and lists must outlive the server. Listens (so that /health answers "loading"),
 * but answers nothing before sq_api_run. Errors: INVALID (an open address without a key, a key file others
 * may read), IO (the address is taken), NO_MEMORY. */
squish_status sq_api_new(sq_api **out, const sq_api_options *opt, squish_error *err);
/* Serve until drained or stopped. A model of the command line that cannot be loaded ends it. */
squish_status sq_api_run(sq_api *api, squish_error *err);
/* Any thread: as SIGTERM does; the second call ends at once. */
void sq_api_stop(sq_api *api);
void sq_api_free(sq_api *api);

#endif
