/* SPDX-License-Identifier: Apache-2.0
 *
 * api_int.h - what the files of this room share.
 *
 *   api_serve.c        life: listeners, the list of routes, timers, drain, reload
 *   api_models.c       names -> model + engine + batch: load on demand, share, unload when idle
 *   api_fields.c       request fields: one table of types and ranges; refusals name field, value, range
 *   api_prompt.c       messages -> chat template -> ids; texts -> ids
 *   api_tools.c        tools, tool_choice, calls of earlier turns
 *   api_parts.c        an answer taken apart: thoughts, text, calls
 *   api_shape.c        response_format, format, guided_...: what an answer must look like
 *   api_grammars.c     compiled grammars, kept by content
 *   api_call.c         one request in the making, from bytes to the last byte
 *   api_emit.c         JSON and stream frames on their way out; ids; errors and their form by path
 *   api_openai.c       what OpenAI routes share: error form, usage, timings, log-probabilities, models
 *   api_chat.c         POST /v1/chat/completions
 *   api_completions.c  POST /v1/completions
 *   api_embeddings.c   POST /v1/embeddings
 *   api_tokens.c       tokenizer_info, tokenize, detokenize, apply-template
 *   api_ops.c          health, livez, slots, cancel, openapi.json, rerank's refusal
 *   api_metrics.c      counters and /metrics
 *   api_log.c          one JSON line per request
 *   api_page.c         embedded files: the chat page and what it loads
 *   api_ollama.c       POST /api/chat, /api/generate; errors, dates, options of Ollama's routes
 *   api_ollama_embed.c POST /api/embed, /api/embeddings
 *   api_ollama_models.c  tags, show, ps, version
 *   api_ollama_store.c create, copy, push, delete
 *   api_pull.c         pull: jobs, and calls that watch them
 *   api_blobs.c        HEAD and POST /api/blobs/sha256:HEX
 *   api_made.c         models that are another one with words and numbers of their own
 *   api_anthropic.c    POST /v1/messages, /v1/messages/count_tokens
 *   api_responses.c    POST /v1/responses; api_responses_kept.c: answers that are kept
 *   openapi.json, page/  embedded at build time by scripts/embed.sh
 *
 * Threads. Everything here runs on the loop thread of http, except what says "worker": those functions see
 * the call alone, which nobody else touches meanwhile. A batch's own thread only ever sets a flag and posts.
 *
 * The way of a request (api_call.c):
 *
 *   handler -> sq_api_call_new
 *     worker   dialect->read      bytes -> JSON -> wish (no model is needed for it)
 *     loop     the model is found, loaded or waited for
 *     worker   prompts are rendered and tokenised, or dialect->work does the whole job
 *     loop     one answer per prompt and choice is submitted; a stream begins
 *     loop     events of answers -> dialect->event, in order
 *     loop     all ended: dialect->finish (closing frames, or the whole reply)
 *   a failure anywhere: before the stream dialect->error forms the body, after it dialect->fail
 *   sends the last frame */
#ifndef SQ_API_INT_H
#define SQ_API_INT_H

#include "api/api.h"
#include "calls/calls.h"
#include "http/http.h"
#include "store/store.h"

#include <jansson.h>
#include <stdatomic.h>

typedef struct sq_api_model sq_api_model;
typedef struct sq_api_call sq_api_call;
typedef struct sq_api_answer sq_api_answer;
typedef struct sq_api_use sq_api_use;
typedef struct sq_api_grammar sq_api_grammar;
typedef struct sq_api_grammars sq_api_grammars;
typedef struct sq_api_pull sq_api_pull;

enum { SQ_API_TAG_MAIN, SQ_API_TAG_OLLAMA, SQ_API_TAG_SOCKET }; /* of listeners: sq_http_tag */
enum {
    SQ_API_PROMPTS_MAX = 2048, /* of one request */
    SQ_API_CHOICES_MAX = 16,
    SQ_API_STOPS_MAX = 16,
    SQ_API_BIAS_MAX = 1024,
    SQ_API_JSON_ELEMENTS = 100000,       /* keys and elements of one body ... */
    SQ_API_JSON_IDS = 16 << 20,          /* ... on routes that take token ids */
    SQ_API_NAME_MAX = SQ_STORE_NAME_MAX, /* bytes of a model's name */
    SQ_API_TEXT_MAX = 64 << 20,          /* bytes of one answer */
    SQ_API_FLIGHT_MAX = 64               /* answers of one request at work at once; the others follow */
};

/* ---- errors (api_emit.c) --------------------------------------------------------------------- */

/* Why a request fails, independent of dialect. code is static text. status 0: nothing failed. */
typedef struct {
    int status;       /* of HTTP */
    const char *code; /* "invalid_type", "context_length_exceeded", "model_not_found", "queue_full" ... */
    char param[128];  /* the field, "messages[2].content"; "" : none */
    char message[480];
    int32_t n_prompt, n_ctx; /* of context_length_exceeded, else 0 */
    int retry_after_s;       /* 0: no Retry-After */
} sq_api_error;
/* Record unless something is recorded (the first cause wins); returns false, to be handed on. */
bool sq_api_refuse(sq_api_error *e, int status, const char *code, const char *param, const char *fmt, ...)
    SQ_PRINTF(5, 6);
/* An error of the library: its code gives the status of HTTP. */
bool sq_api_refuse_lib(sq_api_error *e, const squish_error *err);
/* The body of an error in one dialect. */
typedef void (*sq_api_error_fn)(const sq_api_error *e, const char *request_id, sq_buf *out);
void sq_api_error_openai(const sq_api_error *e, const char *request_id, sq_buf *out);
void sq_api_error_ollama(const sq_api_error *e, const char *request_id, sq_buf *out);
void sq_api_error_anthropic(const sq_api_error *e, const char *request_id, sq_buf *out);
/* "invalid_request_error", "rate_limit_error" ... of a status, as OpenAI says it. */
const char *sq_api_error_type(int status);
/* The form that a path's clients read; other dialects add their prefix to the table in api_emit.c. */
sq_api_error_fn sq_api_error_form(const char *path);
/* Answer a request that has no call. */
void sq_api_reply_error(sq_http_req *r, const sq_api_error *e);

/* ---- what is wished (filled by dialect->read) ------------------------------------------------- */

/* One numeric or boolean field that ends in squish_gen_options: the rows of the table in api_fields.c.
 * Dialects call them by names of their own (num_predict, repeat_penalty). */
typedef enum {
    SQ_API_TEMPERATURE,
    SQ_API_TOP_P,
    SQ_API_TOP_K,
    SQ_API_MIN_P,
    SQ_API_TYPICAL_P,
    SQ_API_TOP_N_SIGMA,
    SQ_API_XTC_PROBABILITY,
    SQ_API_XTC_THRESHOLD,
    SQ_API_REPETITION_PENALTY,
    SQ_API_REPEAT_LAST_N,
    SQ_API_FREQUENCY_PENALTY,
    SQ_API_PRESENCE_PENALTY,
    SQ_API_DRY_MULTIPLIER,
    SQ_API_DRY_BASE,
    SQ_API_DRY_ALLOWED_LENGTH,
    SQ_API_DRY_LAST_N,
    SQ_API_SEED,
    SQ_API_MAX_TOKENS,
    SQ_API_MIN_TOKENS,
    SQ_API_IGNORE_EOS,
    SQ_API_INCLUDE_STOP,
    SQ_API_FIELDS
} sq_api_field;

/* A prompt that needs no template: text, or ids. */
typedef struct {
    const char *text; /* NULL: ids */
    size_t bytes;
    const int32_t *ids;
    size_t n_ids;
} sq_api_input;

/* What an answer must look like. */
typedef struct {
    const char *field; /* of the request, that says it; NULL: anything */
    squish_grammar_kind kind;
    const char *source; /* lives as long as the call */
    size_t bytes;
    bool relaxes; /* a schema that need not be kept to in full */
} sq_api_shape;

typedef struct {
    const char *model; /* NULL or "": the default model */
    /* Messages for the chat template (an array as sq_api_read_messages leaves it), or inputs, or neither. */
    json_t *messages;                           /* reference owned by the call */
    json_t *template_vars;                      /* reference owned by the call; NULL: none */
    bool add_generation_prompt, continue_final; /* default true, false */
    sq_api_input *inputs;
    size_t n_inputs;
    const char *suffix;     /* of the one text input: fill in the middle; NULL: none */
    unsigned token_flags;   /* SQUISH_TOK_... for texts of inputs; default BOS_EOS */
    squish_gen_options gen; /* what the request set; the rest comes from dialect and model */
    uint32_t set;           /* bit per sq_api_field that the request set */
    sq_api_shape shape;     /* compiled into gen.grammar once the model is known */
    bool canonical;         /* text that it forces is cut as the tokenizer cuts it */
    json_t *tools;          /* as api_tools.c leaves them; reference owned by the call; NULL: none */
    sq_calls_choice choice; /* default AUTO */
    json_t *allowed;      /* names of the tools that may be called; reference owned by the call; NULL: all */
    bool parallel;        /* several calls in one answer */
    int32_t think_tokens; /* budget of thoughts; 0: none */
    int32_t n;            /* answers per prompt */
    bool stream;
    bool spec_set;           /* gen.spec.mode was asked for */
    bool accept_set;         /* and gen.spec.accept */
    bool token_times;        /* frames of tokens say when each was drawn */
    bool whole_text;         /* collect sq_api_answer.text in streams as well */
    int32_t prompt_logprobs; /* -1: none (default) */
    squish_pooling pool;     /* default NONE; anything else: as the model is made for */
    bool pool_guessed;       /* set by the call: the model does not say */
    int32_t priority;
    uint64_t salt;   /* of cache_salt; the key is mixed in by the call */
    int32_t ctx_max; /* this request's window (num_ctx); 0: the model's */
    bool keep_alive_set;
    double keep_alive_s; /* < 0: for ever; 0: unload once idle */
    bool load_only;      /* the model shall be ready, nothing else: finish comes without answers */
    bool no_model;       /* with load_only: not even the model is needed */
    bool truncate; /* prompts of embeddings may lose their end to fit; c->truncated_tokens says how much */
    const char *template_source; /* Jinja instead of the model's own; NULL: the model's */
    const int32_t *before;       /* ids in front of a rendered prompt (Ollama's context) */
    size_t n_before;
    squish_gen_options under; /* of a made model (api_made.c): under the request, over the model's own */
    uint32_t under_set;       /* bit per sq_api_field */
} sq_api_wish;

/* ---- dialects --------------------------------------------------------------------------------- */

typedef struct {
    const char *name;                     /* of logs and metrics: "openai-chat" */
    const char *stream_type;              /* "text/event-stream" or "application/x-ndjson" */
    const char *ping;                     /* ": ping\n\n" while nothing is sent; NULL: none */
    size_t state_bytes;                   /* of call->state, zeroed */
    size_t answer_bytes;                  /* of answer->state, zeroed */
    void (*sampling)(squish_sampling *s); /* the dialect's defaults, under the model's; NULL: OpenAI's */
    /* Loop thread, first of all: what must be copied from the request line or the tables. NULL: nothing. */
    void (*enter)(sq_api_call *c);
    /* Worker. body is an object that lives as long as the call. Fill c->wish; false: c->error says why. */
    bool (*read)(sq_api_call *c, json_t *body);
    /* Worker, instead of prompts and answers: the model is c->model (NULL with needs_no_model). Fill
     * c->result, and it is the reply. false: c->error. NULL: answers are made. */
    bool (*work)(sq_api_call *c);
    bool needs_no_model; /* with work only */
    /* Loop thread, after read: what must be looked up in tables of the loop thread. false: c->error. */
    bool (*look)(sq_api_call *c);
    /* Worker: the model is known and no prompt is made yet. false: c->error. */
    bool (*check)(sq_api_call *c);
    int (*status)(
        const sq_api_error *e); /* of HTTP, where the dialect has numbers of its own; NULL: e->status */
    size_t elements_max;        /* of the body's JSON; 0: SQ_API_JSON_ELEMENTS */
    bool schemas;               /* the body may carry schemas, which lie deep */
    /* A stream has begun (200 was sent), prompts are known. NULL: nothing to say yet. */
    void (*begin)(sq_api_call *c);
    /* The next event of an answer, in order: PROMPT, TOKEN, EMBEDDING, END. a's own fields are up to date. On
     * END the answer went well. In a stream frames are sent here. */
    void (*event)(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev);
    /* In a stream: the next part of an answer. A dialect that has this gets no text with its events, and
     * END's event comes after all parts. NULL: text comes with events, thoughts and calls are text. */
    void (*part)(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev);
    bool whole_calls; /* of tools: told when they are whole */
    /* Loop thread, in place of model, prompts and answers: what the call waits for; a stream has begun. The
     * call goes on with sq_api_call_resume, here or later. */
    void (*start)(sq_api_call *c);
    /* Loop thread: a call that had a start is over. It may not have been resumed. */
    void (*leave)(sq_api_call *c);
    /* Every answer ended well. In a stream: closing frames. Else, on a worker: fill c->result. */
    void (*finish)(sq_api_call *c);
    sq_api_error_fn error; /* the body of a refusal */
    /* The stream broke: send the last frame. NULL: "data: " and the body of `error`. */
    void (*fail)(sq_api_call *c, const sq_api_error *e);
} sq_api_dialect;

/* One call of a tool. */
struct sq_api_use {
    sq_api_use *next;
    int32_t index;
    char id[32];      /* 24 characters of base 62, to be put behind "call_" and the like */
    const char *name; /* in the call's arena */
    sq_buf arguments; /* a JSON object, or where the answer was cut a beginning of one */
    bool whole;
};

/* One answer: a job, and what came of it. */
struct sq_api_answer {
    sq_api_call *call;
    squish_job *job; /* NULL: not submitted yet, or over */
    int32_t index;   /* prompt * n + choice, the place in c->answers */
    int32_t i_prompt, i_choice;
    sq_buf text;    /* generated so far, without thoughts and calls; in streams only with wish.whole_text */
    sq_buf thought; /* as text */
    sq_api_use *uses, *last_use;
    int32_t n_uses, n_whole; /* calls begun, and those that are whole */
    int32_t n_thought;       /* tokens of thoughts */
    bool thinks;             /* the last part was thought */
    bool cut;                /* thoughts were over their budget */
    int32_t *ids;            /* generated so far; only with wish.think_tokens */
    size_t ids_cap;
    const squish_job_event *event; /* while its parts are told */
    sq_calls *parts;               /* NULL: the answer is text */
    int32_t n_tokens;              /* generated so far */
    bool started, ended;
    squish_finish finish;
    char *stop_reason;      /* in the call's arena; NULL: none */
    squish_job_stats stats; /* once ended */
    void *state;            /* dialect->answer_bytes, zeroed */
};

typedef struct {
    const int32_t *ids; /* in the call's arena */
    size_t n;
} sq_api_prompt;

struct sq_api_call {
    sq_api *api;
    const sq_api_dialect *dialect;
    sq_http_req *req;    /* loop thread only */
    sq_arena arena;      /* lives as long as the call */
    char id[40];         /* 24 characters of base 62, to be put behind "chatcmpl-" and the like */
    char request_id[80]; /* x-request-id */
    int64_t created;     /* unix seconds */
    uint64_t t_start_ns;
    double load_ms; /* waited for the model */
    json_t *body;   /* the request, an object ({} where there was no body) */
    sq_api_wish wish;
    sq_api_model *model;    /* held until the call ends */
    const char *model_name; /* as the request spelt it, or the model's own: to be echoed */
    char fingerprint[16];   /* "sq-" and 8 hex digits of build and model */
    sq_calls_manner manner; /* of the template, once the model is known */
    sq_calls_start starts;  /* where the prompt left off */
    char *rendered;         /* the prompt as text where a template made it (NUL-terminated), else NULL */
    sq_api_prompt *prompts;
    size_t n_prompts;
    sq_api_answer *answers; /* [n_answers], n_answers = n_prompts * n */
    size_t n_answers;
    sq_api_grammar *grammar; /* of wish.gen.grammar, held until the call ends; NULL: none */
    sq_api_grammar *behind;  /* the same for an answer whose thoughts are over */
    const char
        *relaxed; /* what schemas are not kept to in (squish_grammar_relaxed), for a header; "": nothing */
    int64_t seed; /* in force, for x_squish_seed */
    int64_t truncated_tokens; /* of embeddings, where that was asked for */
    json_t *made;   /* file of the made model that was asked for; reference owned by the call; NULL: none */
    json_t *result; /* the reply; reference owned by the call */
    bool streaming; /* the stream has begun */
    sq_api_error error;
    void *state; /* dialect->state_bytes, zeroed */
    /* the rest is api_call.c's */
    struct sq_api_call_core *core;
};

extern const sq_api_dialect sq_api_chat, sq_api_text, sq_api_embed, sq_api_tokenize, sq_api_detokenize,
    sq_api_ollama_chat, sq_api_ollama_generate, sq_api_ollama_embed, sq_api_messages, sq_api_responses;

/* From a handler: takes the request over. */
void sq_api_call_new(sq_api *api, sq_http_req *r, const sq_api_dialect *d);
/* Totals over all answers, for usage and the log. cached: prompt tokens that were not evaluated. */
typedef struct {
    int64_t prompt_tokens, completion_tokens, cached_tokens, thought_tokens;
    int64_t guessed_tokens, right_tokens; /* speculation */
    double queue_ms, prompt_ms, predicted_ms, ttft_ms; /* of the slowest answer */
    bool behind_codes; /* a prompt's beginning came from codes: answers are not exact */
} sq_api_totals;
void sq_api_call_totals(const sq_api_call *c, sq_api_totals *out);

/* ---- going out (api_emit.c) ------------------------------------------------------------------- */

/* All take the reference of o. Numbers are printed with 17 significant digits, a f32 widened to double so
 * comes back bit by bit. NULL (no memory) ends the call with an error. */

/* "event: NAME\ndata: {..}\n\n"; event may be NULL. */
void sq_api_sse(sq_api_call *c, const char *event, json_t *o);
void sq_api_ndjson(sq_api_call *c, json_t *o);                 /* one line */
void sq_api_send(sq_api_call *c, const char *text);            /* as it is: "data: [DONE]\n\n" */
void sq_api_reply_json(sq_http_req *r, int status, json_t *o); /* a request without a call */
bool sq_api_dump(json_t *o, sq_buf *out);                      /* appends */
/* Sets o[key]; what finds no memory ends the call with an error. o may be NULL. */
void sq_api_put(sq_api_call *c, json_t *o, const char *key, json_t *v);
void sq_api_add(sq_api_call *c, json_t *array, json_t *v);
/* Log-probability as it is printed: -inf is -9999. */
double sq_api_logprob(float lp);
void sq_api_base62(char *out, size_t n_chars); /* n_chars random characters and a NUL */
/* Text of one token for log-probabilities: its bytes, or "bytes:\x.." where they are not UTF-8. A new
 * reference. */
json_t *sq_api_token_text(const squish_model *m, int32_t id);

/* ---- OpenAI's shapes (api_openai.c) ------------------------------------------------------------ */

/* {id, object, created, model, system_fingerprint}: all answers and frames begin so. New references. */
json_t *sq_api_openai_head(const sq_api_call *c, const char *prefix, const char *object);
json_t *sq_api_openai_usage(const sq_api_call *c);
json_t *sq_api_openai_timings(const sq_api_call *c);
/* With "x_squish_token_times": when the token was drawn, in ns of the monotonic clock. A client on the same
 * machine has that clock too, and sees what lies between drawing and reading. */
void sq_api_openai_token_time(sq_api_call *c, json_t *frame, const squish_job_event *ev);
const char *sq_api_finish_word(const sq_api_answer *a); /* "stop", "length", "tool_calls" */
/* What stands behind all choices: in c->result, or as the last frames of a stream (usage only if asked
 * for). */
void sq_api_openai_finish(sq_api_call *c, const char *prefix, const char *object, bool include_usage);
/* stream, stream_options.include_usage, n, and what is refused on every route that generates. */
bool sq_api_openai_common(sq_api_call *c, const json_t *body, bool *include_usage);
/* (api_embeddings.c) How a model, opened from path, makes one vector of a prompt; *told: it says so itself.
 * Worker. */
squish_pooling sq_api_pooling(const squish_model *m, const char *path, bool *told);
/* The vector of an event, [*n] in the call's arena: its first `dimensions` channels (0: all), made to have
 * length 1 if `unit`. NULL: c->error says why. */
float *sq_api_embedding(sq_api_call *c, const squish_job_event *ev, int64_t dimensions, bool unit,
                        int32_t *n);
json_t *sq_api_vector(const float *v, int32_t n); /* NULL: no memory */
/* (api_chat.c) Append {token, logprob, bytes, top_logprobs} of a TOKEN event. */
void sq_api_add_token(sq_api_call *c, json_t *list, const squish_job_event *ev);
/* (api_chat.c) messages, tools, chat_template_kwargs, continue_final_message, add_generation_prompt. */
bool sq_api_read_chat(sq_api_call *c, const json_t *body);

/* ---- fields (api_fields.c, worker) ------------------------------------------------------------ */

/* All return false after recording in c->error a 400 that names the field, the value found and what was
 * wanted. Absent and null leave *out as it was. path is put before the name in messages ("options."); "" at
 * the top. */
bool sq_api_get_int(sq_api_error *e, const json_t *o, const char *path, const char *name, int64_t lo,
                    int64_t hi, int64_t *out);
bool sq_api_get_num(sq_api_error *e, const json_t *o, const char *path, const char *name, double lo,
                    double hi, double *out);
bool sq_api_get_bool(sq_api_error *e, const json_t *o, const char *path, const char *name, bool *out);
bool sq_api_get_text(sq_api_error *e, const json_t *o, const char *path, const char *name, const char **out);
/* One field of the table under a name of the dialect's. false: c->error. */
bool sq_api_get_field(sq_api_call *c, const json_t *o, const char *path, const char *name, sq_api_field f);
/* Every field of the table under its OpenAI name, with stop, stop_token_ids, logit_bias, cache_salt,
 * priority. */
bool sq_api_get_sampling(sq_api_call *c, const json_t *o);
/* Copy the fields that `set` names. */
void sq_api_lay_sampling(squish_gen_options *onto, const squish_gen_options *from, uint32_t set);
/* A string or an array of strings -> wish.gen.stop. */
/* "spec": who guesses; "spec_accept": when a guess is kept. */
bool sq_api_get_spec(sq_api_call *c, const json_t *o, const char *path);
bool sq_api_get_stops(sq_api_call *c, const json_t *o, const char *path, const char *name);
/* A string, an array of strings, ids, or arrays of ids -> wish.inputs. */
bool sq_api_get_inputs(sq_api_call *c, const json_t *o, const char *name);
/* An array of messages -> a new array {role, content (a string), ...}: developer becomes system, content
 * parts of text are joined, parts of other kinds are refused. *out is a new reference. */
bool sq_api_read_messages(sq_api_call *c, const json_t *messages, const char *path, json_t **out);

/* ---- tools (api_tools.c, worker) ---------------------------------------------------------------- */

/* "tools" -> wish.tools. wrapped: a tool is {type, function: {..}}, else {name, ..}; schema: the key of its
 * parameters. false: c->error. */
bool sq_api_get_tools(sq_api_call *c, const json_t *body, bool wrapped, const char *schema);
/* tool_choice and parallel_tool_calls, after the tools. */
bool sq_api_get_tool_choice(sq_api_call *c, const json_t *body);
json_t *sq_api_offered_tools(const sq_api_call *c); /* those that may be called; a new reference */
/* tool_calls of an earlier message: arguments become objects; what is none is a 400. at: "messages[2]" */
bool sq_api_settle_calls(sq_api_call *c, json_t *message, const char *at);
/* c->manner by the template. false: there are tools, and it does not know any. */
bool sq_api_find_manner(sq_api_call *c);

/* ---- thoughts (api_tools.c, worker) --------------------------------------------------------------- */

/* Template variables by which thinking is turned on and off; wish.template_vars may be NULL. */
bool sq_api_set_thinking(sq_api_call *c, bool on);
bool sq_api_set_effort(sq_api_call *c, const char *effort); /* "none" turns it off */
/* A budget of thoughts, in tokens. */
bool sq_api_get_think_tokens(sq_api_call *c, const json_t *o, const char *path, const char *name);

/* ---- parts of an answer (api_parts.c) ------------------------------------------------------------- */

bool sq_api_begin_parts(sq_api_call *c, sq_api_answer *a); /* worker */
void sq_api_free_parts(sq_api_answer *a);
/* Loop thread: text of an event into a's parts, and at the end what was held. */
void sq_api_take_text(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev);
const char *sq_api_text_of(const sq_buf *b); /* "" where it is empty */

/* ---- what an answer must look like (api_shape.c, worker) ---------------------------------------- */

/* All fill wish.shape, or refuse what is no shape, and a second one. Of OpenAI's routes and those like it: */
bool sq_api_get_shape(sq_api_call *c, const json_t *body);
/* {type: text | json_object | json_schema | structural_tag | grammar, ...} under that name of o. field: how
 * refusals call it. */
bool sq_api_get_format(sq_api_call *c, const json_t *o, const char *name, const char *field);
bool sq_api_get_ollama_format(sq_api_call *c, const json_t *body); /* "json" or a schema */
/* Once the model is known: wish.shape -> wish.gen.grammar. false: a 400 that names keyword and place. */
bool sq_api_make_grammar(sq_api_call *c);
/* Where the schema of the answer was relaxed, "schema_valid" into o: does the answer satisfy it as it was
 * asked for? null where nobody can say. */
void sq_api_put_verdict(sq_api_call *c, const sq_api_answer *a, json_t *o);

/* ---- compiled grammars (api_grammars.c) --------------------------------------------------------- */

/* Those of one model, kept by what they were compiled from. false: no memory. Free it before the model. */
bool sq_api_grammars_new(sq_api_grammars **out, const squish_alloc *alloc);
void sq_api_grammars_free(sq_api_grammars *l);
/* Any thread, as the rest. *out is held until it is released. canonical: see squish_grammar_cut_canonically.
 * Errors: as squish_grammar_new. */
squish_status sq_api_grammar_get(sq_api_grammars *l, const squish_model *m, squish_grammar_kind kind,
                                 bool canonical, const char *source, size_t n, sq_api_grammar **out,
                                 squish_error *err);
const squish_grammar *sq_api_grammar_of(const sq_api_grammar *g);
void sq_api_grammar_release(sq_api_grammars *l, sq_api_grammar *g); /* g may be NULL */

/* ---- prompts (api_prompt.c, worker) ----------------------------------------------------------- */

/* wish.messages or wish.inputs -> c->prompts, checked against the window. false: c->error. */
bool sq_api_make_prompts(sq_api_call *c);
/* The chat template over wish.messages -> c->rendered, and its ids (ids may be NULL). What looks like a
 * control token in a message is text, not a control token. */
bool sq_api_render(sq_api_call *c, squish_tokens *ids);
/* Ids of the marks before, suffix, middle; false: the model has none. */
bool sq_api_middle_marks(const squish_model *m, int32_t marks[3]);

/* ---- models (api_models.c) -------------------------------------------------------------------- */

typedef enum { SQ_API_LOADING, SQ_API_READY, SQ_API_FAILED, SQ_API_UNLOADING } sq_api_state;
struct sq_api_model {
    sq_api_model *next;
    sq_api *api;
    char name[SQ_API_NAME_MAX + 1];
    char *path;
    bool pinned; /* of the command line */
    sq_api_state state;
    squish_model *model; /* these: while READY */
    squish_engine *engine;
    squish_batch *batch;
    sq_api_grammars *grammars;
    squish_model_info info;
    squish_engine_info engine_info;
    squish_gen_options gen; /* of its generation_config.json, where `gen_set` has the bit */
    uint32_t gen_set;       /* bit per sq_api_field */
    const char **controls;  /* texts of control tokens, [n_controls] */
    size_t n_controls;
    uint64_t bytes;      /* weights, cache, scratch as planned */
    int32_t users;       /* calls that hold it */
    double keep_alive_s; /* < 0: for ever */
    uint64_t idle_since_ns;
    int64_t loaded_unix;
    double load_ms;
    uint64_t requests, tokens_generated;
    squish_error error;       /* FAILED */
    struct sq_api_load *load; /* api_models.c's */
};
/* Get a model ready: done(user, m, NULL) later or at once, with m held until sq_api_model_release; or
 * done(user, NULL, why). name NULL or "": the default one. A trailing ":latest" is ignored. Names are those
 * of the command line and of the store; nothing that a client says becomes a path. */
void sq_api_model_want(sq_api *api, const char *name,
                       void (*done)(void *user, sq_api_model *m, const sq_api_error *e), void *user);
void sq_api_model_release(sq_api_model *m);
void sq_api_model_keep(sq_api_model *m, double seconds); /* from now on; 0: unload once idle */
/* In the table by that name, in any state; NULL. */
sq_api_model *sq_api_model_find(sq_api *api, const char *name);
sq_api_model *sq_api_model_first(sq_api *api);        /* iterate by ->next */
double sq_api_model_expires_s(const sq_api_model *m); /* seconds until it goes; < 0: stays */
/* For api_serve.c: load those of the command line; unload what is idle too long; close all, when nothing
 * runs. */
squish_status sq_api_models_begin(sq_api *api, squish_error *err);
void sq_api_models_tick(sq_api *api);
void sq_api_models_dismiss(sq_api *api); /* those who wait are told that the server goes down */
void sq_api_models_end(sq_api *api);
/* Worker. Names of the store that may be loaded, with where and how large: fn(user, name, path, bytes,
 * tiers). */
squish_status sq_api_store_each(sq_api *api, squish_list_fn fn, void *user, squish_error *err);
/* Worker. A name of the store or the command line -> path (in ar), or NOT_FOUND. Looks nowhere else. */
squish_status sq_api_store_find(sq_api *api, const char *name, sq_arena *ar, const char **path,
                                squish_error *err);

/* ---- made models (api_made.c) ------------------------------------------------------------------ */

/* sq_store_made_read, but for names of the command line, which hide made ones: NOT_FOUND. Worker. */
squish_status sq_api_made_read(sq_api *api, const char *name, sq_store_made *out, squish_error *err);
/* After dialect->read: where wish.model is a made one, the model it is made from with its words and numbers
 * under the request's. false: c->error. */
bool sq_api_made_apply(sq_api_call *c);
/* $SQUISH_HOME/WHAT into out [n]. */
squish_status sq_api_home(const sq_api *api, const char *what, char *out, size_t n, squish_error *err);

/* ---- Ollama's shapes (api_ollama.c) ------------------------------------------------------------ */

/* options.* under Ollama's names -> c->wish. path: "options." */
bool sq_api_ollama_options(sq_api_call *c, const json_t *options, const char *path);
/* "5m", "1h30m", "-1", 300 -> seconds; negative: for ever. A duration as Go writes them. */
bool sq_api_duration(const char *s, double *seconds);
/* model (or name, the old key), stream (true unless it says otherwise), keep_alive. */
bool sq_api_ollama_head(sq_api_call *c, const json_t *body);
/* RFC 3339 with nanoseconds, UTC. out [40] */
enum { SQ_API_STAMP = 40 };
void sq_api_stamp(uint64_t unix_ns, char out[SQ_API_STAMP]);
void sq_api_ollama_fail(sq_api_call *c, const sq_api_error *e); /* {"error": ...} as the last line */
/* (api_ollama_models.c) "sha256 of what the model's files are called, how large and how old they are", 64 hex
 * digits: an identity, not a checksum of gigabytes. */
void sq_api_identity(const char *path, char out[65]);
/* {parent_model, format, family, families, parameter_size, quantization_level} */
json_t *sq_api_ollama_details(const squish_model_info *info, const char *parent);
void sq_api_hex(const unsigned char *bytes, size_t n, char *out); /* 2n digits and a NUL */

/* ---- kept answers (api_responses_kept.c) ------------------------------------------------------- */

/* The last 256 answers of POST /v1/responses with "store": true, within 64 MiB of memory, by id and client.
 */
typedef struct sq_api_kept sq_api_kept;
enum { SQ_API_KEPT_MAX = 256, SQ_API_KEPT_BYTES_MAX = 64 << 20 };
bool sq_api_kept_begin(sq_api *api); /* loop thread, before any of the others; false: no memory */
void sq_api_kept_free(sq_api *api);
/* Any thread, as the next two. response and messages (with the answer) are copied. false: no memory. */
bool sq_api_kept_put(sq_api *api, uint64_t client, const char *id, const json_t *response,
                     const json_t *messages);
/* New references to copies; either may be NULL. false: no such answer. */
bool sq_api_kept_get(sq_api *api, uint64_t client, const char *id, json_t **response, json_t **messages);
bool sq_api_kept_remove(sq_api *api, uint64_t client, const char *id);

/* ---- routes ------------------------------------------------------------------------------------ */

/* Each file lists its routes; api_serve.c lists the files. */
typedef struct {
    const sq_http_route *routes;
    size_t n;
} sq_api_routes;
const sq_http_route *sq_api_route(size_t i); /* all of them, in one row; NULL past the end */
extern const sq_api_routes sq_api_routes_openai, sq_api_routes_chat, sq_api_routes_completions,
    sq_api_routes_embeddings, sq_api_routes_tokens, sq_api_routes_ops, sq_api_routes_page,
    sq_api_routes_ollama, sq_api_routes_ollama_embed, sq_api_routes_ollama_models, sq_api_routes_ollama_store,
    sq_api_routes_blobs, sq_api_routes_anthropic, sq_api_routes_responses, sq_api_routes_pull;

/* ---- embedded files (api_page.c) --------------------------------------------------------------- */

/* Made by scripts/embed.sh from src/api/page/ and openapi.json. The table ends with a NULL path. */
typedef struct {
    const char *path; /* "/" for page/index.html, "/page/NAME" for the others, "/openapi.json" */
    const char *type; /* media type, by the ending of the name */
    const unsigned char *data;
    size_t bytes;
    const char *etag; /* "\"crc-bytes\"" */
} sq_api_file;
extern const sq_api_file sq_api_files[];
const sq_api_file *sq_api_page_find(const char *path); /* NULL: none */
/* Answer with it: ETag and If-None-Match, a strict Content-Security-Policy, no scripts from anywhere else. */
void sq_api_page_reply(sq_http_req *r, const sq_api_file *f);

/* ---- the server (api_serve.c) ------------------------------------------------------------------ */

typedef enum {
    SQ_API_DONE_STOP,
    SQ_API_DONE_LENGTH,
    SQ_API_DONE_CANCELLED,
    SQ_API_DONE_TIMEOUT,
    SQ_API_DONE_ERROR,
    SQ_API_REASONS
} sq_api_reason;

enum { SQ_API_PREFILL_BUCKETS = 14 }; /* prompts of at most 16 << i tokens */
typedef struct {
    uint64_t http_requests, requests, tokens_generated, prompt_tokens, cached_tokens;
    uint64_t finished[SQ_API_REASONS], prefill[SQ_API_PREFILL_BUCKETS], prefill_count, prefill_sum;
    double http_seconds, ttft_sum_s, decode_sum_s;
    uint64_t ttft_count, decode_tokens;
    struct sq_api_route_count *routes;
    size_t n_routes;
} sq_api_counters;

struct sq_api {
    sq_api_options opt;
    squish_alloc alloc;
    sq_http *http;
    sq_http_route *routes;
    size_t n_routes;
    sq_api_model *models;
    sq_api_call *calls; /* at work, newest first */
    int32_t n_calls;
    uint64_t t_start_ns;
    int64_t started_unix;
    bool keyed, draining, ready, failed;
    bool loading;       /* a model is being opened or closed */
    bool stalled;       /* a step of some model does not end */
    bool ending;        /* sq_api_free is at work: nothing new begins */
    squish_error error; /* why it ends */
    uint64_t drain_until_ns;
    int log_fd; /* -1: none */
    sq_api_counters count;
    char url[128], ollama_url[128], socket[128];
    uint64_t watchdog_ns, watchdog_next_ns; /* the service manager wants to hear of us that often; 0: not */
    uint64_t memory_used; /* by loaded models, as planned */
    sq_api_pull *pulls;   /* that run (api_pull.c) */
    struct sq_api_kept
        *kept; /* answers that clients asked to be kept (api_responses_kept.c); NULL: none yet */
};

void sq_api_drain(sq_api *api);          /* no new work; ends when the last call did */
void sq_api_models_changed(sq_api *api); /* a load ended: are we ready? */
/* (api_call.c) */
/* By x-request-id, or by id with or without its prefix; NULL. */
sq_api_call *sq_api_call_find(sq_api *api, const char *id);
void sq_api_call_cancel(sq_api_call *c, int status, const char *code, const char *why);
/* Loop thread: what dialect->start waited for has come; c->error says so if it went wrong. */
void sq_api_call_resume(sq_api_call *c);
/* (api_pull.c) Stop those that run and wait for their threads; what they posted is still to come. */
void sq_api_pulls_stop(sq_api *api);
void sq_api_call_free(sq_api_call *c); /* http is done with the request */
sq_api_call *sq_api_call_next(const sq_api_call *c);
uint64_t sq_api_call_client(const sq_api_call *c);
bool sq_api_call_in_worker(const sq_api_call *c); /* then only id, request_id and dialect may be read */
/* Body -> object ({} where there is none), or a 400. *out is a new reference. Any thread. */
bool sq_api_parse(sq_api_error *e, sq_span body, size_t elements_max, int depth_max, json_t **out);
/* (api_metrics.c) Once per request; route: of the table. */
void sq_api_count_request(sq_api *api, const char *route, int status, double seconds);
void sq_api_count_call(sq_api *api, const sq_api_call *c);
void sq_api_metrics_free(sq_api *api);
void sq_api_get_metrics(void *user, sq_http_req *r);
double sq_api_mean_tps(const sq_api *api), sq_api_mean_ttft_s(const sq_api *api);
/* (api_log.c) */
squish_status sq_api_log_open(sq_api *api, squish_error *err);
void sq_api_log_request(sq_api *api, const sq_http_req *r, const char *route, int status, uint64_t bytes_out,
                        double seconds, const sq_api_call *c);
void sq_api_log_close(sq_api *api);

#endif
