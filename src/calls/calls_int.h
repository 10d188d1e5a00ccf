/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_int.h - what the readers of styles share.
 *
 *   in:   | told or dropped | at: not decided yet ............. |
 *                             scan: marks were looked for up to here
 *                             solid: behind the last byte that is no blank
 *
 * A reader is called while the parser is in a call. It consumes what it has read, tells what it has learned,
 * and answers MORE (bytes are missing), YES (it is through with this call; the next begins where it left off,
 * or text) or NO: then everything consumed since the call began is told as text. */
#ifndef SQ_CALLS_INT_H
#define SQ_CALLS_INT_H

#include "calls/calls.h"

#include <string.h>

typedef enum { CALLS_MORE, CALLS_YES, CALLS_NO } calls_answer;

/* ---- JSON, byte by byte (calls_json.c) -------------------------------------------------------- */

enum { CALLS_JSON_DEPTH = 128 };
typedef struct {
    uint8_t state, digits; /* digits: hexadecimal ones that an escape still wants; letters of a word */
    int32_t depth;
    uint64_t objects[CALLS_JSON_DEPTH / 64]; /* bit per level: an object, not an array */
    const char *word;                        /* rest of true, false, null */
} calls_json;
/* Before the first byte of an object. */
void calls_json_begin(calls_json *j);
/* YES: the object ends with this byte. */
calls_answer calls_json_byte(calls_json *j, unsigned char c);

/* ---- the parser ------------------------------------------------------------------------------- */

typedef enum { CALLS_START, CALLS_THOUGHT, CALLS_AFTER_THOUGHT, CALLS_TEXT, CALLS_CALL } calls_state;
enum { CALLS_MARKS = 5 };

typedef struct {
    const char *name;
    const char *open[CALLS_MARKS]; /* marks that begin a call in the midst of text; NULL ends the list */
    const char *close;             /* mark that ends it, where there is just one */
    char bare;                     /* what begins one at the very start of an answer; 0: nothing */
    bool always;                   /* the reader reads all of the answer, text too */
    calls_answer (*read)(sq_calls *p);
} calls_style;

struct sq_calls {
    squish_alloc alloc;
    sq_calls_options o;
    sq_calls_fn fn;
    void *user;
    const calls_style *style; /* NULL: none */
    sq_buf in, raw, name, arguments;
    size_t at, scan, solid;
    calls_state state;
    int32_t stage, part; /* of the reader, and of an object within it; 0 when a call begins */
    int32_t n_calls;
    calls_json json;
    char quote;    /* of a reader that looks for the end of a string; 0: it is in none */
    bool escaped;  /* ... behind a backslash */
    int32_t depth; /* ... and of brackets */
    const json_t *properties, *property; /* schemas of the call's arguments, of the present one; NULL: none */
    bool thought;                        /* thoughts have begun, are over, or will not come */
    bool begun;                          /* BEGIN was told, or waits in `name` for the call to be whole */
    bool any;                            /* a call was told */
    bool ended;                          /* no more bytes will come */
};

extern const calls_style calls_hermes, calls_xml, calls_llama, calls_mistral, calls_deepseek, calls_python,
    calls_harmony;

/* What is not decided yet. */
static inline const char *calls_here(const sq_calls *p) { return p->in.data ? p->in.data + p->at : ""; }
static inline size_t calls_left(const sq_calls *p) { return p->in.len - p->at; }

/* Telling (calls.c). begin is false for a name that no tool has. */
void calls_tell(sq_calls *p, sq_calls_kind kind, const char *text, size_t n);
bool calls_begin(sq_calls *p, const char *name, size_t n);
void calls_arguments(sq_calls *p, const char *text, size_t n);
void calls_end(sq_calls *p);
void calls_consume(sq_calls *p, size_t n);
/* From `scan` on: the first of the marks. YES: it begins at `scan`, *which says which one; MORE: none is
 * whole. */
calls_answer calls_find(sq_calls *p, const char *const *marks, int32_t *which);
/* Tell what lies before `solid` and drop it. */
void calls_flush(sq_calls *p, sq_calls_kind kind);
/* The named tool's parameters' properties, or NULL. */
const json_t *calls_properties(const sq_calls *p, const char *name, size_t n);

/* ---- reading what is there (calls_read.c) ------------------------------------------------------ */

typedef struct {
    const char *s;
    size_t n, at;
    bool ended;
} calls_reader;
static inline calls_reader calls_read(const sq_calls *p) {
    return (calls_reader){calls_here(p), calls_left(p), 0, p->ended};
}
static inline bool calls_is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
void calls_blanks(calls_reader *r); /* a few hundred at most: nobody writes more between two words */
/* YES: it stood there, and is behind. At the end of what is there, a beginning of it is MORE. */
calls_answer calls_literal(calls_reader *r, const char *text);
/* A JSON string; the text appended to out. */
calls_answer calls_string(calls_reader *r, sq_buf *out);
/* Letters, digits and ._-: ; what a tool may be called. At least one. */
calls_answer calls_word(calls_reader *r, const char **word, size_t *n);
/* The object that is the arguments: told as it comes. YES: it is whole. */
calls_answer calls_read_arguments(sq_calls *p);
/* (calls_python.c) f's arguments: "(k=v, ...)" at `at` of what is there; begins and ends the call. */
calls_answer calls_python_call(sq_calls *p, const char *name, size_t n, size_t at);
/* (calls_object.c) {"name": F, "arguments": {..}} in any order of the keys; begins and ends the call. */
calls_answer calls_object(sq_calls *p);

#endif
