/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_int.h - chat templates from the inside: tokens, the tree in its blob, values, one rendering.
 *
 *     source --lexer--> tokens --parser--> nodes --builder--> blob --open--> view --interpreter--> text
 *
 * The blob is one block of bytes without pointers, little-endian:
 *
 *     | header | nodes, 28 B each | lists, u32 | strings, {offset, bytes} | pool: source, NUL, strings |
 *
 * A node is a fixed record; children are node numbers, always smaller than the parent's, so a walk ends. A
 * list is a place in `lists`: a count, then that many node numbers. `height` is 1 + the largest height below,
 * so a reader knows how deep recursion can go without walking the tree. Chains (a + b - c, x.y[0]|trim) are
 * one node with a list, not a tower of nodes: height follows the nesting a person wrote, not the length of a
 * line. */
#ifndef SQ_TMPL_INT_H
#define SQ_TMPL_INT_H

#include "format/limits.h"
#include "text/text.h"

#include <jansson.h>
#include <string.h>

enum {
    SQ_TMPL_MAGIC = 0x4c504d54, /* "TMPL" */
    SQ_TMPL_VERSION = 1,
    SQ_TMPL_NESTING = 64,       /* brackets, blocks and operators inside each other in the source */
    SQ_TMPL_DEPTH = 1000,       /* nested evaluations at render time, macros calling macros included */
    SQ_TMPL_VALUE_DEPTH = 200,  /* containers inside containers */
    SQ_TMPL_RANGE_MAX = 100000, /* items of one range or repeated list */
    SQ_TMPL_REPEAT_MAX = 1 << 20,
    SQ_TMPL_ARENA_MAX = 64 << 20,
    SQ_TMPL_STEPS = 5000000,
    SQ_TMPL_OUTPUT = 16 << 20
};
#define SQ_TMPL_NONE UINT32_MAX /* "no node", "no list" */

/* ---- the tree -------------------------------------------------------------------------------- */

/* What may stand where. */
typedef enum {
    SQ_TC_STMT,
    SQ_TC_BODY,
    SQ_TC_MACRO,
    SQ_TC_PARAM,
    SQ_TC_EXPR,
    SQ_TC_OPERAND,
    SQ_TC_PART,
    SQ_TC_ARGS,
    SQ_TC_KWARG,
    SQ_TC_TARGET
} sq_tmpl_class;

/* Kind, class, largest op, operands. Operand letters:
 *
 *   s string   i any number   e expression   b body   t target   m macro   a arguments
 *   E B A      the same as their small letters, but may be absent
 *   U          list of strings, may be absent
 *
 * and lists of nodes:
 *
 *   S statements               X expressions    P expression pairs        I (expression, body)
 *   W (target, expression)     T targets        O operands                M parameters
 *   Q parts of a postfix chain                  K keyword arguments */
#define SQ_TMPL_KINDS(X)                                                                          \
    X(TEXT, STMT, 0, "s")                                                                         \
    X(PRINT, STMT, 0, "e")                                                                        \
    X(IF, STMT, 0, "IB")        /* (test, body)..., else */                                       \
    X(FOR, STMT, 1, "teEbB")    /* target, items, filter, body, else; op 1: recursive */          \
    X(SET, STMT, 0, "te")                                                                         \
    X(SET_BLOCK, STMT, 0, "tEb") /* target, filter chain, body */                                 \
    X(FILTER_BLOCK, STMT, 0, "eb")                                                                \
    X(MACRO_DEF, STMT, 0, "m")                                                                    \
    X(CALL_BLOCK, STMT, 0, "em") /* the call, the block as a macro */                             \
    X(WITH, STMT, 0, "Wb")                                                                        \
    X(BREAK, STMT, 0, "")                                                                         \
    X(CONTINUE, STMT, 0, "")                                                                      \
    X(BODY, BODY, 0, "SU")      /* statements, names undefined at its start (tmpl_scope.c) */     \
    X(MACRO, MACRO, 7, "sMb")   /* name, parameters, body; op: SQ_TMPL_USES_... */                \
    X(PARAM, PARAM, 0, "sE")                                                                      \
    X(STR, EXPR, 0, "s")                                                                          \
    X(INT, EXPR, 0, "ii")       /* low and high word */                                           \
    X(FLOAT, EXPR, 0, "ii")                                                                       \
    X(CONST, EXPR, 2, "")       /* op: none, false, true */                                       \
    X(NAME, EXPR, 0, "s")                                                                         \
    X(LIST, EXPR, 0, "X")                                                                         \
    X(TUPLE, EXPR, 0, "X")                                                                        \
    X(DICT, EXPR, 0, "P")                                                                         \
    X(NOT, EXPR, 0, "e")                                                                          \
    X(NEG, EXPR, 0, "e")                                                                          \
    X(POS, EXPR, 0, "e")                                                                          \
    X(COND, EXPR, 0, "eeE")     /* test, then, else */                                            \
    X(AND, EXPR, 0, "X")                                                                          \
    X(OR, EXPR, 0, "X")                                                                           \
    X(CONCAT, EXPR, 0, "X")                                                                       \
    X(COMPARE, EXPR, 0, "eO")   /* a < b <= c */                                                  \
    X(MATH, EXPR, 0, "eO")      /* one level of precedence, left to right */                      \
    X(POSTFIX, EXPR, 0, "EQ")   /* base (absent in filter blocks), parts */                       \
    X(OPERAND, OPERAND, SQ_TOP_COUNT - 1, "e")                                                    \
    X(ATTR, PART, 0, "s")                                                                         \
    X(ITEM, PART, 0, "e")                                                                         \
    X(SLICE, PART, 0, "EEE")                                                                      \
    X(CALL, PART, 0, "a")                                                                         \
    X(FILTER, PART, 0, "sA")                                                                      \
    X(TEST, PART, 1, "sA")      /* op 1: is not */                                                \
    X(ARGS, ARGS, 0, "XKEE")    /* positional, keyword, *list, **dict */                          \
    X(KWARG, KWARG, 0, "se")                                                                      \
    X(T_NAME, TARGET, 0, "s")                                                                     \
    X(T_ATTR, TARGET, 0, "ss")  /* namespace, attribute */                                        \
    X(T_TUPLE, TARGET, 0, "T")

typedef enum {
    SQ_TOP_ADD, SQ_TOP_SUB, SQ_TOP_MUL, SQ_TOP_DIV, SQ_TOP_FLOORDIV, SQ_TOP_MOD, SQ_TOP_POW,
    SQ_TOP_EQ, SQ_TOP_NE, SQ_TOP_LT, SQ_TOP_LE, SQ_TOP_GT, SQ_TOP_GE, SQ_TOP_IN, SQ_TOP_NOT_IN,
    SQ_TOP_COUNT
} sq_tmpl_op;

typedef enum {
#define SQ_TMPL_KIND_ENUM(name, cls, op, args) SQ_TK_##name,
    SQ_TMPL_KINDS(SQ_TMPL_KIND_ENUM)
#undef SQ_TMPL_KIND_ENUM
        SQ_TK_COUNT
} sq_tmpl_kind;

/* A macro's body that mentions these names takes what its parameters do not. */
enum { SQ_TMPL_USES_CALLER = 1, SQ_TMPL_USES_VARARGS = 2, SQ_TMPL_USES_KWARGS = 4 };
/* Strings the interpreter needs by number; every blob begins its string table with them. */
enum { SQ_TMPL_S_LOOP, SQ_TMPL_S_CALLER, SQ_TMPL_S_VARARGS, SQ_TMPL_S_KWARGS, SQ_TMPL_S_COUNT };
extern const char *const sq_tmpl_fixed_strings[SQ_TMPL_S_COUNT];

typedef struct {
    uint8_t kind, op;
    uint16_t height;
    uint32_t line;
    uint32_t arg[5];
} sq_tmpl_node;
_Static_assert(sizeof(sq_tmpl_node) == 28, "a node is 28 bytes in the blob");

typedef struct {
    uint32_t offset, bytes; /* in the pool; a NUL follows */
} sq_tmpl_string;

typedef struct {
    uint32_t magic, version, bytes;
    uint32_t n_nodes, n_lists, n_strings, pool_bytes, source_bytes;
} sq_tmpl_header;

struct sq_tmpl {
    const sq_tmpl_node *nodes; /* the last one is the root body */
    const uint32_t *lists;
    const sq_tmpl_string *strings;
    const char *pool; /* begins with the source */
    uint32_t n_nodes, n_lists, n_strings, pool_bytes;
};
_Static_assert(sizeof(struct sq_tmpl) <= SQ_TMPL_VIEW_BYTES, "a view fits its storage");

/* Check node i against its kind: classes, ranges, order. *height is what its children demand; *list_words
 * grows by the list words it uses. Shared by the builder, which stores the height, and by open, which
 * compares it. */
squish_status sq_tmpl_check_node(const sq_tmpl *t, uint32_t i, uint32_t *height, uint64_t *list_words,
                                 squish_error *err);

const char *sq_tmpl_operands(int kind); /* its letters */

/* ---- building (tmpl_build.c) ----------------------------------------------------------------- */

typedef struct {
    sq_buf nodes, lists, strings, pool, stack;
    uint32_t *slots; /* hash table of string numbers + 1 */
    uint32_t n_slots;
    squish_alloc alloc;
    squish_error *err;
} sq_tmpl_build;

squish_status sq_tmpl_build_init(sq_tmpl_build *b, const squish_alloc *a, const char *source, size_t n,
                                 squish_error *err);
void sq_tmpl_build_deinit(sq_tmpl_build *b);
squish_status sq_tmpl_intern(sq_tmpl_build *b, const char *s, size_t n, uint32_t *id);
/* args: as many as the kind has operands. */
squish_status sq_tmpl_add(sq_tmpl_build *b, sq_tmpl_kind kind, int op, uint32_t line, const uint32_t *args,
                          uint32_t *out);
/* Children are pushed one by one; a list takes what was pushed since mark. */
size_t sq_tmpl_mark(const sq_tmpl_build *b);
squish_status sq_tmpl_push(sq_tmpl_build *b, uint32_t node);
squish_status sq_tmpl_list(sq_tmpl_build *b, size_t mark, uint32_t *out);
squish_status sq_tmpl_build_finish(sq_tmpl_build *b, size_t source_bytes, sq_buf *out);

/* Decide which names belong to which block (tmpl_scope.c). The root body is the last node. */
squish_status sq_tmpl_scope(sq_tmpl_build *b);

/* ---- lexer (tmpl_lex.c) ---------------------------------------------------------------------- */

typedef enum {
    SQ_TT_EOF, SQ_TT_DATA, SQ_TT_BLOCK_BEGIN, SQ_TT_BLOCK_END, SQ_TT_VAR_BEGIN, SQ_TT_VAR_END,
    SQ_TT_NAME, SQ_TT_STRING, SQ_TT_INT, SQ_TT_FLOAT,
    SQ_TT_ADD, SQ_TT_SUB, SQ_TT_MUL, SQ_TT_DIV, SQ_TT_FLOORDIV, SQ_TT_MOD, SQ_TT_POW, SQ_TT_TILDE,
    SQ_TT_EQ, SQ_TT_NE, SQ_TT_LT, SQ_TT_LE, SQ_TT_GT, SQ_TT_GE, SQ_TT_ASSIGN, SQ_TT_DOT, SQ_TT_COMMA,
    SQ_TT_COLON, SQ_TT_PIPE, SQ_TT_SEMICOLON,
    SQ_TT_LPAREN, SQ_TT_RPAREN, SQ_TT_LBRACKET, SQ_TT_RBRACKET, SQ_TT_LBRACE, SQ_TT_RBRACE
} sq_tmpl_token_type;

typedef struct {
    sq_tmpl_token_type type;
    uint32_t line;
    const char *p; /* the bytes in the normalised source, for names and messages */
    uint32_t n;
    uint32_t string; /* DATA and STRING: number of the interned text */
    union {
        int64_t i;
        double f;
    } u;
} sq_tmpl_token;

typedef struct {
    const char *s; /* source with \n line ends, final one dropped */
    size_t n, pos;
    uint32_t line;
    sq_tmpl_token_type mode; /* EOF: text; BLOCK_BEGIN or VAR_BEGIN: inside that tag */
    sq_tmpl_token_type pending; /* the tag that follows the text just given, EOF: none */
    char closers[256];
    uint32_t n_closers;
    sq_tmpl_build *build;
} sq_tmpl_lexer;

squish_status sq_tmpl_lex(sq_tmpl_lexer *l, sq_tmpl_token *out);
/* Read a number as Python writes it, whatever the locale. False if s[0..n) is not one. */
bool sq_tmpl_parse_f64(const char *s, size_t n, double *out);

/* ---- parser (tmpl_parse.c, tmpl_parse_expr.c) ------------------------------------------------ */

typedef struct {
    sq_tmpl_lexer lex;
    sq_tmpl_token cur, next;
    bool has_next;
    sq_tmpl_build *build;
    squish_error *err;
    int depth, loop_depth;
    int macro_uses; /* SQ_TMPL_USES_... of the macro being read */
} sq_tmpl_parser;

squish_status sq_tmpl_parse(sq_tmpl_parser *p);
squish_status sq_tmpl_advance(sq_tmpl_parser *p);
squish_status sq_tmpl_expect(sq_tmpl_parser *p, sq_tmpl_token_type type, const char *what);
squish_status sq_tmpl_unexpected(sq_tmpl_parser *p, const char *wanted);
squish_status sq_tmpl_nest(sq_tmpl_parser *p); /* one level deeper; the caller decrements depth */
bool sq_tmpl_at_word(const sq_tmpl_parser *p, const char *word);
squish_status sq_tmpl_skip_word(sq_tmpl_parser *p, const char *word, bool *found);
/* An expression; with commas a tuple where `tuple` is set. `cond`: a if b else c is allowed. */
squish_status sq_tmpl_parse_expr(sq_tmpl_parser *p, bool cond, uint32_t *out);
squish_status sq_tmpl_parse_tuple(sq_tmpl_parser *p, bool cond, const char *end_word, uint32_t *out);
squish_status sq_tmpl_parse_target(sq_tmpl_parser *p, bool with_attr, const char *end_word, uint32_t *out);
squish_status sq_tmpl_parse_filters(sq_tmpl_parser *p, bool first_is_bare, uint32_t *out);

/* ---- values ---------------------------------------------------------------------------------- */

typedef enum {
    SQ_TV_UNSET, /* an argument that was not given */
    SQ_TV_UNDEF,
    SQ_TV_NONE,
    SQ_TV_BOOL,
    SQ_TV_INT,
    SQ_TV_FLOAT,
    SQ_TV_STR,
    SQ_TV_LIST,
    SQ_TV_TUPLE,
    SQ_TV_DICT,
    SQ_TV_NAMESPACE,
    SQ_TV_RANGE,
    SQ_TV_GENERATOR,
    SQ_TV_VIEW,
    SQ_TV_LOOP,
    SQ_TV_MACRO,
    SQ_TV_METHOD,
    SQ_TV_GLOBAL
} sq_tval_type;

typedef struct sq_tval sq_tval;
typedef struct sq_tpair sq_tpair;

/* Items of a list, tuple or generator (whose first `taken` are gone). */
typedef struct {
    sq_tval *items;
    uint32_t n, cap, taken;
} sq_tseq;
/* Insertion order, keys unique; also the attributes of a namespace. */
typedef struct {
    sq_tpair *items;
    uint32_t n, cap;
} sq_tdict;
typedef struct {
    int64_t start, stop, step, n;
} sq_trange;
typedef struct sq_tloop sq_tloop;
typedef struct sq_tmacro sq_tmacro;
typedef struct sq_tmethod sq_tmethod;

/* Why something is undefined; becomes the message when it is used. */
enum { SQ_TU_NAME, SQ_TU_ATTR, SQ_TU_HINT };

struct sq_tval {
    uint8_t type;
    uint8_t sub;   /* UNDEF: SQ_TU_...; VIEW: 0 keys, 1 values, 2 items; GLOBAL: which */
    uint8_t owner; /* UNDEF of SQ_TU_ATTR: type of the object that lacks it */
    uint32_t n;    /* STR and UNDEF: bytes */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s; /* well-formed UTF-8, not NUL-terminated */
        sq_tseq *seq;
        sq_tdict *dict;
        sq_trange *range;
        sq_tloop *loop;
        sq_tmacro *macro;
        sq_tmethod *method;
    } u;
};
struct sq_tpair {
    sq_tval key, value;
};
struct sq_tmethod {
    sq_tval self;
    const char *name;
};

static inline sq_tval sq_tv(sq_tval_type type) { return (sq_tval){.type = (uint8_t)type}; }
static inline sq_tval sq_tv_bool(bool b) { return (sq_tval){.type = SQ_TV_BOOL, .u.b = b}; }
static inline sq_tval sq_tv_int(int64_t i) { return (sq_tval){.type = SQ_TV_INT, .u.i = i}; }
static inline sq_tval sq_tv_float(double f) { return (sq_tval){.type = SQ_TV_FLOAT, .u.f = f}; }
static inline sq_tval sq_tv_str(const char *s, size_t n) {
    return (sq_tval){.type = SQ_TV_STR, .n = (uint32_t)n, .u.s = s};
}
static inline sq_tval sq_tv_undef(int why, const char *s, size_t n) {
    return (sq_tval){.type = SQ_TV_UNDEF, .sub = (uint8_t)why, .n = (uint32_t)n, .u.s = s};
}
/* Is s[0..n), which may hold NUL bytes, this word? */
static inline bool sq_tmpl_is_word(const char *word, const char *s, size_t n) {
    return strlen(word) == n && memcmp(word, s, n) == 0;
}
static inline bool sq_tv_is(const sq_tval *v, const char *s) {
    return v->type == SQ_TV_STR && sq_tmpl_is_word(s, v->u.s, v->n);
}

/* ---- one rendering --------------------------------------------------------------------------- */

/* Names of one block: the template, one turn of a loop, a macro call. */
typedef struct sq_tscope sq_tscope;
struct sq_tscope {
    sq_tscope *parent;
    struct {
        uint32_t name; /* string number */
        sq_tval value;
    } *items;
    uint32_t n, cap;
    bool captured; /* a macro remembers it: the loop must not recycle it */
};

struct sq_tmacro {
    uint32_t node; /* SQ_TK_MACRO */
    sq_tscope *scope;
};

typedef struct {
    sq_tval *pos;
    uint32_t n_pos;
    sq_tpair *kw; /* keys are STR */
    uint32_t n_kw;
} sq_targs;

typedef enum { SQ_TFLOW_ON, SQ_TFLOW_BREAK, SQ_TFLOW_CONTINUE } sq_tmpl_flow;

typedef struct {
    const sq_tmpl *t;
    const json_t *vars;
    sq_arena arena; /* all values of this rendering */
    sq_buf scratch; /* a stack of texts being made: captured blocks, str(), joins */
    sq_buf *out;
    size_t out_start;
    int captures; /* > 0: statements print to scratch */
    uint64_t steps, steps_max;
    size_t output_max;
    int64_t now_unix;
    uint32_t line;
    int depth;
    sq_tmpl_flow flow;
    sq_tscope *scope;
    sq_tscope base; /* variables of the caller and globals, as they are asked for */
    squish_error *err;
} sq_trun;

squish_status sq_tmpl_fail(sq_trun *r, const char *fmt, ...) SQ_PRINTF(2, 3); /* INVALID, with the line */
squish_status sq_tmpl_over(sq_trun *r, const char *fmt, ...) SQ_PRINTF(2, 3); /* NO_MEMORY, with the line */
squish_status sq_tmpl_damaged(sq_trun *r);                                    /* CORRUPT: no such tree */
squish_status sq_tmpl_charge(sq_trun *r, uint64_t steps);
/* Zeroed; an error when the arena is full. */
squish_status sq_tmpl_alloc(sq_trun *r, size_t n, size_t size, void **out);
static inline const char *sq_tmpl_str(const sq_trun *r, uint32_t id) {
    return r->t->pool + r->t->strings[id].offset;
}
static inline size_t sq_tmpl_str_bytes(const sq_trun *r, uint32_t id) { return r->t->strings[id].bytes; }

/* Values (tmpl_value.c). */
const char *sq_tmpl_type_name(const sq_tval *v);
squish_status sq_tmpl_undefined(sq_trun *r, const sq_tval *v); /* the error of using it */
squish_status sq_tmpl_from_json(sq_trun *r, const json_t *j, int depth, sq_tval *out);
squish_status sq_tmpl_new_seq(sq_trun *r, sq_tval_type type, size_t cap, sq_tval *out);
squish_status sq_tmpl_seq_push(sq_trun *r, sq_tseq *s, const sq_tval *v);
squish_status sq_tmpl_pair(sq_trun *r, const sq_tval *a, const sq_tval *b, sq_tval *out); /* a tuple of two */
squish_status sq_tmpl_new_dict(sq_trun *r, sq_tval_type type, size_t cap, sq_tval *out);
squish_status sq_tmpl_dict_find(sq_trun *r, const sq_tdict *d, const sq_tval *key, sq_tval **out);
const sq_tval *sq_tmpl_dict_find_str(const sq_tdict *d, const char *key, size_t n);
squish_status sq_tmpl_dict_put(sq_trun *r, sq_tdict *d, const sq_tval *key, const sq_tval *value);
bool sq_tmpl_truth(const sq_tval *v);
squish_status sq_tmpl_len(sq_trun *r, const sq_tval *v, int64_t *out);
bool sq_tmpl_as_int(const sq_tval *v, int64_t *out); /* ints and booleans */
squish_status sq_tmpl_want_int(sq_trun *r, const sq_tval *v, int64_t *out);
squish_status sq_tmpl_want_str(sq_trun *r, const sq_tval *v, const char *what);

/* Iteration (tmpl_iter.c): over anything Python iterates. */
typedef struct {
    sq_tval src;
    uint64_t pos;
} sq_titer;
bool sq_tmpl_is_iterable(const sq_tval *v);
squish_status sq_tmpl_iter(sq_trun *r, const sq_tval *v, sq_titer *it);
squish_status sq_tmpl_next(sq_trun *r, sq_titer *it, sq_tval *out, bool *has);
squish_status sq_tmpl_to_seq(sq_trun *r, const sq_tval *v, sq_tval_type type, sq_tval *out);
squish_status sq_tmpl_reversed(sq_trun *r, const sq_tval *v, sq_tval *out);

/* Access (tmpl_access.c): a.b, a[b], a[b:c:d]. */
squish_status sq_tmpl_getattr(sq_trun *r, const sq_tval *v, const char *name, size_t n, sq_tval *out);
squish_status sq_tmpl_getitem(sq_trun *r, const sq_tval *v, const sq_tval *key, sq_tval *out);
squish_status sq_tmpl_slice(sq_trun *r, const sq_tval *v, const sq_tval part[3], sq_tval *out);
/* "a.b.0" as filters take it; `path` may be an int. UNSET: the value itself. */
squish_status sq_tmpl_getpath(sq_trun *r, const sq_tval *v, const sq_tval *path, const sq_tval *dflt,
                              sq_tval *out);

/* Comparison (tmpl_compare.c). */
squish_status sq_tmpl_equal(sq_trun *r, const sq_tval *a, const sq_tval *b, bool *out);
squish_status sq_tmpl_less(sq_trun *r, const char *op, const sq_tval *a, const sq_tval *b, bool *out);
squish_status sq_tmpl_contains(sq_trun *r, const sq_tval *container, const sq_tval *v, bool *out);
squish_status sq_tmpl_compare(sq_trun *r, int op, const sq_tval *a, const sq_tval *b, bool *out);
squish_status sq_tmpl_hashable(sq_trun *r, const sq_tval *v);
/* Stable order of n keys: order[] becomes a permutation. */
squish_status sq_tmpl_sort(sq_trun *r, const sq_tval *keys, uint32_t n, bool reverse, uint32_t *order);

/* Arithmetic (tmpl_math.c), % on strings (tmpl_format.c). */
squish_status sq_tmpl_math(sq_trun *r, int op, const sq_tval *a, const sq_tval *b, sq_tval *out);
squish_status sq_tmpl_negate(sq_trun *r, const sq_tval *a, sq_tval *out);
squish_status sq_tmpl_percent(sq_trun *r, const sq_tval *fmt, const sq_tval *args, sq_tval *out);

/* Text (tmpl_print.c). str() and repr() as Python's; o is scratch or the output. */
squish_status sq_tmpl_put(sq_trun *r, sq_buf *o, const char *s, size_t n);
squish_status sq_tmpl_puts(sq_trun *r, sq_buf *o, const char *s);
squish_status sq_tmpl_print(sq_trun *r, sq_buf *o, const sq_tval *v);
squish_status sq_tmpl_repr(sq_trun *r, sq_buf *o, const sq_tval *v, int depth);
squish_status sq_tmpl_to_str(sq_trun *r, const sq_tval *v, sq_tval *out);
/* What was appended to scratch since start becomes a string value. */
squish_status sq_tmpl_take(sq_trun *r, size_t start, sq_tval *out);
void sq_tmpl_float_repr(double f, char out[32]);

/* Unicode as Python sees it (tmpl_text.c, tmpl_case.c). */
bool sq_tmpl_is_space(uint32_t cp);
bool sq_tmpl_is_printable(uint32_t cp);
sq_span sq_tmpl_strip(const char *s, size_t n, const sq_tval *chars, bool left, bool right);
int sq_tmpl_digit(char c); /* value of a digit or letter: 0..35, else 99 */
size_t sq_tmpl_offset(const char *s, size_t n, uint64_t chars); /* bytes of the first `chars` code points */
const char *sq_tmpl_find(const char *s, size_t n, const char *sub, size_t n_sub);
typedef enum {
    SQ_TCASE_LOWER,
    SQ_TCASE_UPPER,
    SQ_TCASE_TITLE,
    SQ_TCASE_CAPITALIZE,
    SQ_TCASE_WORDS
} sq_tmpl_case;
squish_status sq_tmpl_recase(sq_trun *r, sq_tmpl_case how, const sq_tval *s, sq_tval *out);

/* JSON (tmpl_json.c, tmpl_json_read.c). */
typedef struct {
    bool ascii, sort_keys, pretty;
    sq_tval indent; /* STR, repeated per level, when pretty */
    sq_tval item_sep, key_sep;
} sq_tjson;
squish_status sq_tmpl_dump_json(sq_trun *r, const sq_tjson *how, const sq_tval *v, sq_tval *out);
squish_status sq_tmpl_load_json(sq_trun *r, const sq_tval *text, sq_tval *out);

/* strftime in UTC and English (tmpl_time.c). False: an unknown directive, named in *bad. */
bool sq_tmpl_strftime(int64_t unix_time, const char *fmt, size_t n, sq_buf *out, char *bad);

/* Native functions: a table row names the parameters, so that keywords work everywhere. arg[i] is UNSET if
 * absent. */
typedef squish_status (*sq_tmpl_fn)(sq_trun *r, const sq_tval *self, const sq_tval *arg, sq_tval *out);
typedef squish_status (*sq_tmpl_raw_fn)(sq_trun *r, const sq_tval *self, const sq_targs *args, sq_tval *out);
enum { SQ_TMPL_PARAMS = 5 };
typedef struct {
    const char *name;
    sq_tmpl_fn fn;      /* or */
    sq_tmpl_raw_fn raw; /* any arguments */
    uint8_t n_min, n_max;
    const char *params[SQ_TMPL_PARAMS]; /* NULL: positional only */
} sq_tmpl_native;
const sq_tmpl_native *sq_tmpl_lookup(const sq_tmpl_native *rows, size_t n_rows, const char *name, size_t n);
squish_status sq_tmpl_invoke(sq_trun *r, const sq_tmpl_native *row, const sq_tval *self, const sq_targs *args,
                             sq_tval *out);
bool sq_tmpl_has_filter(const char *name, size_t n);
bool sq_tmpl_has_test(const char *name, size_t n);
squish_status sq_tmpl_filter(sq_trun *r, const char *name, size_t n, const sq_tval *v, const sq_targs *args,
                             sq_tval *out);
squish_status sq_tmpl_test(sq_trun *r, const char *name, size_t n, const sq_tval *v, const sq_targs *args,
                           bool *out);
extern const sq_tmpl_native sq_tmpl_seq_filters[];
extern const size_t sq_tmpl_n_seq_filters;
extern const sq_tmpl_native sq_tmpl_str_methods[];
extern const size_t sq_tmpl_n_str_methods;
/* Attributes of built-in objects that are methods. False: no such method. A list stays writable through
 * append. */
bool sq_tmpl_method(const sq_tval *self, const char *name, size_t n, const char **found, bool *forbidden);
squish_status sq_tmpl_call_method(sq_trun *r, const sq_tmethod *m, const sq_targs *args, sq_tval *out);
bool sq_tmpl_global(const char *name, size_t n, sq_tval *out);
squish_status sq_tmpl_call_global(sq_trun *r, int which, const sq_targs *args, sq_tval *out);

/* Interpreter (tmpl_eval.c, tmpl_call.c, tmpl_exec.c, tmpl_loop.c). */
squish_status sq_tmpl_eval(sq_trun *r, uint32_t node, sq_tval *out);
squish_status sq_tmpl_eval_parts(sq_trun *r, const sq_tmpl_node *postfix, sq_tval *v, uint32_t n_parts);
squish_status sq_tmpl_eval_args(sq_trun *r, uint32_t node, sq_targs *out);
squish_status sq_tmpl_exec(sq_trun *r, uint32_t body);
squish_status sq_tmpl_enter(sq_trun *r); /* one evaluation deeper; the caller decrements depth */
squish_status sq_tmpl_lookup_name(sq_trun *r, uint32_t name, sq_tval *out);
squish_status sq_tmpl_bind(sq_trun *r, sq_tscope *scope, uint32_t name, const sq_tval *v);
squish_status sq_tmpl_assign(sq_trun *r, uint32_t target, const sq_tval *v);
squish_status sq_tmpl_new_scope(sq_trun *r, sq_tscope *parent, sq_tscope **out);
squish_status sq_tmpl_capture(sq_trun *r, uint32_t body, sq_tscope *scope, sq_tval *out); /* runs in scope */
squish_status sq_tmpl_call(sq_trun *r, const sq_tval *f, const sq_targs *args, sq_tval *out);
squish_status sq_tmpl_call_macro(sq_trun *r, sq_tmacro *m, const sq_targs *args, sq_tval *out);
squish_status sq_tmpl_exec_for(sq_trun *r, const sq_tmpl_node *n);
squish_status sq_tmpl_loop_attr(sq_trun *r, sq_tloop *l, const char *name, size_t n, sq_tval *out,
                                bool *found);
squish_status sq_tmpl_loop_len(sq_trun *r, sq_tloop *l, int64_t *out);
squish_status sq_tmpl_call_loop(sq_trun *r, sq_tloop *l, const sq_targs *args, sq_tval *out);
squish_status sq_tmpl_loop_method(sq_trun *r, sq_tloop *l, const char *name, const sq_targs *args,
                                  sq_tval *out);

#endif
