/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_api_request.c - bodies of requests: the first byte picks the route, the rest is JSON. A reader either
 * refuses with a 400 whose body is JSON and says something, or leaves a wish within its limits. */
#include "api/api_int.h"
#include "format/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refusal(const sq_api_error *e) {
    if ((e->status != 400 && e->status != 503) || !e->code || !e->message[0]) abort();
    if (!sq_utf8_valid(e->message, strlen(e->message))) abort();
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 16);
    sq_api_error_openai(e, "id", &b);
    json_t *o = json_loadb(b.data ? b.data : "", b.len, 0, NULL);
    if (!json_is_string(json_object_get(json_object_get(o, "error"), "message"))) abort();
    json_decref(o);
    sq_buf_deinit(&b);
}

static void check_wish(const sq_api_wish *w) {
    const squish_sampling *s = &w->gen.sampling;
    if (w->n < 1 || w->n > SQ_API_CHOICES_MAX || w->n_inputs > SQ_API_PROMPTS_MAX) abort();
    if (w->gen.n_stop < 0 || w->gen.n_stop > SQ_API_STOPS_MAX) abort();
    for (int32_t i = 0; i < w->gen.n_stop; i++)
        if (!w->gen.stop[i] || strlen(w->gen.stop[i]) - 1 > 255) abort();
    if (!(s->temperature >= 0 && s->temperature <= 5) || !(s->top_p >= 0 && s->top_p <= 1)) abort();
    if (!(s->frequency_penalty >= -2 && s->frequency_penalty <= 2)) abort();
    if (w->gen.max_tokens < -1 || w->gen.logprobs < -1 || w->gen.logprobs > 20) abort();
    if (s->n_bias > SQ_API_BIAS_MAX) abort();
    for (int32_t i = 0; i < s->n_bias; i++)
        if (s->bias_ids[i] < 0 || !(fabsf(s->bias_values[i]) <= 100)) abort();
    for (size_t i = 0; i < w->n_inputs; i++)
        for (size_t k = 0; !w->inputs[i].text && k < w->inputs[i].n_ids; k++)
            if (w->inputs[i].ids[k] < 0) abort();
    for (size_t i = 0; i < json_array_size(w->messages); i++) {
        const json_t *m = json_array_get(w->messages, i);
        if (!json_is_string(json_object_get(m, "role")) || !json_is_string(json_object_get(m, "content")))
            abort();
    }
    if (w->shape.field && (!w->shape.source || w->shape.source[w->shape.bytes])) abort();
    if (w->ctx_max < 0 || !(w->keep_alive_s > -2 && w->keep_alive_s < 1e15)) abort();
    for (size_t i = 0; i < w->n_before; i++)
        if (w->before[i] < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const sq_api_dialect *const dialects[] = {
        &sq_api_chat,       &sq_api_text,        &sq_api_embed,           &sq_api_tokenize,
        &sq_api_detokenize, &sq_api_ollama_chat, &sq_api_ollama_generate, &sq_api_ollama_embed,
        &sq_api_messages,   &sq_api_responses};
    if (size == 0) return 0;
    const sq_api_dialect *d = dialects[data[0] % SQ_COUNT(dialects)];
    const squish_alloc a = sq_alloc_default();
    sq_api api = {.alloc = a};
    sq_api_call c = {.api = &api, .dialect = d};
    c.wish = (sq_api_wish){.gen = squish_gen_options_default(), .n = 1, .prompt_logprobs = -1};
    sq_arena_init(&c.arena, &a, 4096, 64 << 20);
    c.state = sq_arena_alloc(&c.arena, d->state_bytes, 16);
    char *text = malloc(size); /* NUL-terminated, as http hands it over */
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    const sq_span body = {(const uint8_t *)text, size - 1};
    if (!sq_api_parse(&c.error, body, SQ_API_JSON_ELEMENTS, SQ_JSON_DEPTH_SCHEMA, &c.body) ||
        !d->read(&c, c.body))
        check_refusal(&c.error);
    else if (c.error.status)
        abort();
    else
        check_wish(&c.wish);
    json_decref(c.body);
    json_decref(c.wish.messages);
    json_decref(c.wish.template_vars);
    json_decref(c.wish.tools);
    json_decref(c.wish.allowed);
    sq_arena_deinit(&c.arena);
    free(text);
    return 0;
}
