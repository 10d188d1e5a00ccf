/* SPDX-License-Identifier: Apache-2.0
 *
 * calls.h - an answer taken apart while it is written: thoughts, text, calls of tools.
 *
 *   "<think>Rain?</think>I look. <tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>"
 *      THOUGHT "Rain?"   TEXT "I look."   BEGIN weather   ARGUMENTS {"city": "Oslo"}   END
 *
 * How a model writes a call is its template's business; each way is a style with a reader of its own
 * (calls_hermes.c, calls_llama.c ...). All of them promise the same:
 *
 *   - what is told depends on the text alone, not on the pieces it came in;
 *   - text that is no call is told as text: no answer is lost, none becomes an error;
 *   - nothing is told twice or taken back, and memory grows only by what is not yet decided.
 *
 * Threads: a parser belongs to one thread at a time. Detection may run anywhere. */
#ifndef SQ_CALLS_H
#define SQ_CALLS_H

#include "base/base.h"

#include <jansson.h>

typedef enum {
    SQ_CALLS_NONE,   /* the template says nothing of calls */
    SQ_CALLS_HERMES, /* <tool_call>{"name": F, "arguments": {..}}</tool_call>: Qwen, Hermes, squish-tiny */
    SQ_CALLS_XML, /* <tool_call><function=F><parameter=K>V</parameter></function></tool_call>: Qwen3-Coder */
    SQ_CALLS_LLAMA,    /* {"name": F, "parameters": {..}}, maybe after <|python_tag|>: Llama 3 */
    SQ_CALLS_MISTRAL,  /* [TOOL_CALLS][{"name": F, "arguments": {..}}] or [TOOL_CALLS]F[ARGS]{..} */
    SQ_CALLS_DEEPSEEK, /* F and {..} between the marks of DeepSeek V3 and R1 */
    SQ_CALLS_PYTHON,   /* [f(k=v), g()]: Llama 4, LFM2 */
    SQ_CALLS_HARMONY,  /* messages on channels: gpt-oss */
    SQ_CALLS_STYLES
} sq_calls_style;
const char *sq_calls_style_name(sq_calls_style s); /* "hermes" */

/* How a template has its model write. */
typedef struct {
    sq_calls_style style;
    bool tools; /* the template tells the model what tools there are */
    bool named; /* of a style's two ways the later one: MISTRAL F[ARGS], DEEPSEEK without ```json, PYTHON in
                   marks */
    const char *think_open,
        *think_close; /* around thoughts; NULL: it has none, or (HARMONY) channels of its own */
} sq_calls_manner;
/* From the Jinja source of a template, by the marks that stand in it. source may be NULL. */
void sq_calls_detect(const char *source, sq_calls_manner *out);
/* Where a prompt left off, by the end of its text: inside thoughts, behind them (a template that was told not
 * to think writes an empty pair), or neither. */
typedef enum { SQ_CALLS_MAY_THINK, SQ_CALLS_THINKS, SQ_CALLS_THOUGHT_DONE } sq_calls_start;
sq_calls_start sq_calls_start_of(const sq_calls_manner *m, const char *prompt, size_t n);

/* What such a model may write, as structural tags (docs/grammar.md): thoughts where it may have some, then
 * text, then calls of the tools in its own manner, with arguments that are valid for their schemas.
 *
 *   AUTO       text, and then calls or the end      REQUIRED   calls
 *   FORBIDDEN  text in which no call can stand
 *
 * text: an element that stands for the text (a schema, say); NULL: any. tools: [{type, function: {name,
 * parameters, strict}}], at least one unless FORBIDDEN; names have no quotes in them. A schema that is not
 * strict may be relaxed. parallel: several calls. A new
 * reference; NULL: no memory. */
typedef enum { SQ_CALLS_AUTO, SQ_CALLS_REQUIRED, SQ_CALLS_FORBIDDEN } sq_calls_choice;
json_t *sq_calls_tags(const sq_calls_manner *m, sq_calls_start start, const json_t *tools,
                      sq_calls_choice choice, bool parallel, json_t *text);
/* Are the marks of calls control tokens in most vocabularies, so that an answer must show those? */
bool sq_calls_needs_special(const sq_calls_manner *m);

typedef enum {
    SQ_CALLS_TELL_THOUGHT,
    SQ_CALLS_TELL_TEXT,
    SQ_CALLS_TELL_BEGIN,     /* text: the name of the tool */
    SQ_CALLS_TELL_ARGUMENTS, /* the next piece of a JSON object */
    SQ_CALLS_TELL_END        /* of that call; missing where the answer was cut inside it */
} sq_calls_kind;
typedef struct {
    sq_calls_kind kind;
    int32_t i_call;   /* BEGIN, ARGUMENTS, END: 0, 1, 2 ... */
    const char *text; /* [bytes], lives during the call */
    size_t bytes;
} sq_calls_event;
typedef void (*sq_calls_fn)(void *user, const sq_calls_event *ev);

typedef struct {
    sq_calls_manner manner; /* style NONE: calls are not looked for */
    sq_calls_start start;
    /* [{type: function, function: {name, parameters}}]: names that may be called, types of arguments.
     * Outlives the parser. NULL: any name. */
    const json_t *tools;
    bool whole; /* a call is told when it is whole and right, and else is text. false: as it is written, which
                   is right where a grammar sees to it that it becomes whole */
} sq_calls_options;

typedef struct sq_calls sq_calls;
/* NULL: no memory. */
sq_calls *sq_calls_new(const sq_calls_options *o, sq_calls_fn fn, void *user, const squish_alloc *a);
void sq_calls_free(sq_calls *p);
/* The next bytes (UTF-8), and the end. fn is called before they return. false: no memory; what was not told
 * is lost. */
bool sq_calls_push(sq_calls *p, const char *text, size_t n);
bool sq_calls_finish(sq_calls *p);

#endif
