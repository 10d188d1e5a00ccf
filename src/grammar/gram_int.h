/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_int.h - the inside of a grammar, shared by the files of its room.
 *
 *   gram_term.c     regular expressions as hash-consed terms; derivatives
 *   gram_symbolic.c terms that stand for many: multiples, members in any order
 *   gram_chars.c    sets of code points as terms over bytes, plain or as JSON writes them
 *   gram_regex.c    the syntax of regular expressions
 *   gram_build.c    expressions to rules: what is regular stays a term
 *   gram_gbnf.c, gram_ebnf.c, gram_lark.c, over gram_source.c; gram_notation.c    grammars in text
 *   gram_schema.c, gram_json_*.c, gram_number.c, gram_formats.c  JSON Schema
 *   gram_tags.c     structural tags            gram_token.c   control tokens as bytes
 *   gram_relax.c    schemas that need not be kept to in full
 *   gram_lex.c      states of the lexer     gram_rows.c   rows of the parser
 *   gram_place.c    places: the state of a matcher, interned     gram_counts.c   large counts beside them
 *   gram_trie.c     a vocabulary            gram_mask.c   the mask of a place
 *   gram_match.c    matchers                gram.c        grammars as a whole
 *
 * Failure. Growing parts fail with a sticky error (gram_pool.err): whoever builds goes on with the empty term
 * and looks at the end. A failure after compilation stays, too: a grammar over its limits is over for all. */
#ifndef SQ_GRAM_INT_H
#define SQ_GRAM_INT_H

#include "grammar/grammar.h"

#include <pthread.h>

/* ---- growing arrays and hash tables of indexes ----------------------------------------------- */

struct gram_pool;
typedef struct {
    void *p;
    size_t n, cap; /* elements */
} gram_vec;
/* Room for `more` elements of `size` bytes; NULL after setting the pool's error. Does not change n. */
void *gram_vec_room(struct gram_pool *g, gram_vec *v, size_t more, size_t size);
bool gram_vec_push_u32(struct gram_pool *g, gram_vec *v, uint32_t x);
void gram_vec_free(struct gram_pool *g, gram_vec *v, size_t size);
#define GRAM_AT(v, type, i) (((type *)(v).p)[i])

/* Open addressing over indexes + 1; the owner compares. */
typedef struct {
    uint32_t *slots;
    size_t n, cap;
} gram_index;
bool gram_index_reserve(struct gram_pool *g, gram_index *x, uint64_t (*hash_of)(void *owner, uint32_t i),
                        void *owner);
void gram_index_free(struct gram_pool *g, gram_index *x);
static inline uint64_t gram_mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

/* ---- terms ----------------------------------------------------------------------------------- */

typedef uint32_t gram_term;
enum { GRAM_EMPTY = 0, GRAM_EPS = 1, GRAM_NONE = UINT32_MAX };
enum { GRAM_INF = UINT32_MAX };
typedef enum {
    TERM_EMPTY,
    TERM_EPS,
    TERM_SET,
    TERM_CAT,
    TERM_ALT,
    TERM_AND,
    TERM_NOT,
    TERM_REP,
    TERM_MOD,
    TERM_ALL
} term_kind;

/* SET: a is the index of the byte set. CAT: a then b, a is no CAT. ALT, AND: b kids from a on, sorted, none
 * of the same kind. NOT: of a. REP: a, lo to hi times; b 1: marked (gram_counts.c). MOD and ALL: see
 * gram_symbolic.c. */
typedef struct {
    uint8_t kind;
    bool nullable : 1;
    bool logic : 1; /* AND or NOT is in it, so it may match nothing without being EMPTY */
    /* It is, or has among its parts outside of AND, NOT and what is repeated: a REP of many; a marked one. */
    bool counts : 1, running : 1;
    uint32_t a, b, lo, hi;
} gram_node;
typedef struct {
    uint64_t w[4];
} gram_set;

typedef struct gram_pool {
    squish_alloc alloc;
    squish_error err;        /* sticky */
    size_t bytes, bytes_max; /* of everything that grows here */
    gram_vec nodes, sets, kids;
    gram_index node_index, set_index;
    /* Memo of derivatives, once classes are known: for each term its row + 1, or 0; rows [classes],
     * GRAM_NONE: not known yet. */
    gram_vec derived_row, derived;
    gram_vec scratch;      /* lists in the making, a stack */
    gram_vec alive;        /* per term: 0 unknown, 1 matches something, 2 nothing */
    gram_term any_char;    /* inside of a JSON string; 0: not made yet */
    uint32_t digits_max;   /* beyond those that are asked for, where a number has no end of its own */
    uint8_t class_of[256]; /* bytes that no term tells apart */
    uint8_t byte_of[256];  /* one byte of each class */
    uint32_t n_classes;    /* 0: terms are still being made */
    size_t n_sets_classed; /* sets by which they were found */
} gram_pool;

void gram_pool_init(gram_pool *p, const squish_alloc *a, size_t bytes_max);
void gram_pool_deinit(gram_pool *p);
static inline bool gram_failed(const gram_pool *p) { return p->err.code != SQUISH_OK; }
void gram_fail(gram_pool *p, squish_status st, const char *fmt, ...) SQ_PRINTF(3, 4);

gram_term gram_set_term(gram_pool *p, const gram_set *s);
gram_term gram_byte(gram_pool *p, uint8_t lo, uint8_t hi);
gram_term gram_literal(gram_pool *p, const void *bytes, size_t n);
gram_term gram_cat(gram_pool *p, gram_term a, gram_term b);
gram_term gram_alt(gram_pool *p, gram_term a, gram_term b);
gram_term gram_alt_list(gram_pool *p, size_t base); /* of scratch from base on; scratch is cut to base */
gram_term gram_and(gram_pool *p, gram_term a, gram_term b);
gram_term gram_not(gram_pool *p, gram_term a);
gram_term gram_rep(gram_pool *p, gram_term a, uint32_t lo, uint32_t hi);
/* The same, but nothing is made of it by its numbers, which are not what they seem (gram_counts.c). */
gram_term gram_rep_marked(gram_pool *p, gram_term a, uint32_t lo, uint32_t hi);
static inline gram_term gram_opt(gram_pool *p, gram_term a) { return gram_alt(p, a, GRAM_EPS); }
bool gram_nullable(const gram_pool *p, gram_term t);
/* What t may go on with after a byte. */
gram_term gram_derive(gram_pool *p, gram_term t, uint8_t byte);
void gram_forget_derived(gram_pool *p); /* the memo of that */
/* Does t match anything at all? Exact where it can be found out in a bounded search, else "yes". */
bool gram_matches_something(gram_pool *p, gram_term t);
/* Does t match whatever plain characters of a JSON string come next, and still go on? "No" is not certain. */
bool gram_is_open(gram_pool *p, gram_term t);
/* While terms are still being made: is this a word of t; does t match nothing (exact as above)? */
bool gram_accepts(gram_pool *p, gram_term t, const char *s, size_t n);
bool gram_is_empty(gram_pool *p, gram_term t);
/* Decimal digits, with a point and a fraction or without, of a multiple of modulus / 10^fraction_digits; at
 * most whole_digits (GRAM_INF: any) before the point. */
gram_term gram_multiple(gram_pool *p, uint32_t modulus, uint32_t fraction_digits, uint32_t whole_digits);
/* lo to hi members in any order, `separator` between them: each of the first n_once at most once, the first
 * n_required of these exactly once, the others as often as there is room. members [n]. */
gram_term gram_members(gram_pool *p, gram_term separator, const gram_term *members, uint32_t n_required,
                       uint32_t n_once, uint32_t n, uint32_t lo, uint32_t hi);
/* For gram_term.c: a node, interned (k: its kids); derivatives of these two kinds; do members match anything?
 */
gram_term gram_intern(gram_pool *p, gram_node n, const uint32_t *k);
gram_term gram_derive_multiple(gram_pool *p, const gram_node *x, uint8_t byte);
gram_term gram_derive_members(gram_pool *p, const gram_node *x, uint8_t byte);
bool gram_members_match(gram_pool *p, const gram_node *x);
/* Split bytes into classes by the sets there are. Later sets are unions of classes. */
void gram_find_classes(gram_pool *p);

/* ---- code points ----------------------------------------------------------------------------- */

typedef struct {
    uint32_t lo, hi;
} gram_range;
/* PLAIN: bytes of UTF-8. IN_JSON: as the inside of a JSON string writes them: what must be escaped is, in its
 * short form or as \u; what need not be is only in gram_any_char. */
typedef enum { GRAM_PLAIN, GRAM_IN_JSON } gram_spelling;
/* Ranges [n] of code points, in any order; surrogates are left out. */
gram_term gram_chars(gram_pool *p, const gram_range *r, size_t n, gram_spelling s);
gram_term gram_chars_except(gram_pool *p, const gram_range *r, size_t n); /* all others, plain */
gram_term gram_any_char(gram_pool *p, gram_spelling s);
/* A text as it is written: plain, or the inside of a JSON string (canonical spelling only). */
gram_term gram_text(gram_pool *p, const char *s, size_t n, gram_spelling spelling);
/* One of the texts; prefixes in common are shared. texts are sorted in place. */
gram_term gram_texts(gram_pool *p, sq_span *texts, size_t n);

/* whole: the expression is the whole text; else it may match anywhere in it (^ and $ hold it). */
gram_term gram_regex(gram_pool *p, const char *s, size_t n, gram_spelling spelling, bool whole,
                     const char *what);
/* The same for the whole of a plain text. BOTH_CASES: ASCII letters in either; DOT_ALL: a dot is any
 * character; DOT_RETURN: any but a new line, where ECMA leaves out the carriage return as well. */
enum { GRAM_BOTH_CASES = 1, GRAM_DOT_ALL = 2, GRAM_DOT_RETURN = 4 };
gram_term gram_regex_with(gram_pool *p, const char *s, size_t n, unsigned flags, const char *what);

/* ---- expressions and rules ------------------------------------------------------------------- */

/* A symbol: a term, or a nonterminal with this bit set. */
typedef uint32_t gram_sym;
enum { GRAM_NT = 0x80000000u };

/* In rules symbols are terminals (indexes of `terminals`) or nonterminals. REP: `sym` lo to hi times. */
typedef struct {
    uint32_t lhs, off, n;
    bool rep;
    uint32_t sym, lo, hi;
} gram_rule;
typedef struct {
    uint32_t first, n; /* its rules, once sorted */
    bool nullable, productive, defined;
} gram_nt;
typedef struct {
    gram_pool *p;
    gram_vec rules, syms, nts, terminals; /* terminals: gram_term, none nullable alone: eps is a rule */
    gram_index terminal_index;
    uint32_t start;
    const sq_tok *tok;              /* whose control tokens may be named; NULL: none */
    bool names_tokens;              /* one was */
    struct gram_relaxing *relaxing; /* of tags (gram_relax.c), else NULL */
} gram_rules;

uint32_t gram_nt_new(gram_rules *r);
/* Alternatives of a nonterminal that was declared. */
void gram_nt_define(gram_rules *r, uint32_t nt, gram_sym body);
gram_sym gram_seq(gram_rules *r, const gram_sym *s, size_t n);
gram_sym gram_either(gram_rules *r, const gram_sym *s, size_t n);
gram_sym gram_repeat(gram_rules *r, gram_sym s, uint32_t lo, uint32_t hi);
/* Sort, find what is nullable and productive. Fails if nothing can be derived from the start. */
void gram_rules_finish(gram_rules *r, gram_sym start);
void gram_rules_free(gram_rules *r);

gram_sym gram_from_gbnf(gram_rules *r, const char *s, size_t n);
gram_sym gram_from_schema(gram_rules *r, const char *s, size_t n, bool loose);
gram_sym gram_from_ebnf(gram_rules *r, const char *s, size_t n);
gram_sym gram_from_lark(gram_rules *r, const char *s, size_t n);
gram_sym gram_from_any_notation(gram_rules *r, const char *s,
                                size_t n); /* GBNF, EBNF or Lark, by what it looks like */
gram_sym gram_from_tags(gram_rules *r);    /* r->relaxing->root */
enum { GRAM_JSON_DEPTH = 64 };
gram_term gram_any_json(gram_pool *p, bool loose, bool object); /* a value; or an object */
gram_term gram_json_string(gram_pool *p);                       /* any */
/* A decimal: whole digits without leading zeros ("0" at least), then those of the fraction without trailing
 * ones. */
enum { GRAM_DIGITS_MAX = 64 };
typedef struct {
    bool negative;
    uint32_t n_whole, n_fraction;
    char digits[GRAM_DIGITS_MAX + 1];
} gram_decimal;
/* From the text of a JSON number; false if it has too many digits. */
bool gram_decimal_read(gram_decimal *d, const char *text);
typedef struct {
    bool there, open; /* open: the value itself is out */
    gram_decimal at;
} gram_bound;
gram_term gram_json_number(gram_pool *p, bool loose); /* any; unless loose, its exponent has two digits */
/* With a sign, and a fraction or none, without an exponent. */
gram_term gram_plain_number(gram_pool *p);
/* Of those, the ones without a fraction; zeros: or with one of zeros. */
gram_term gram_whole_number(gram_pool *p, bool zeros);
gram_term gram_number_range(gram_pool *p, const gram_bound *lo, const gram_bound *hi);
gram_term gram_integer_range(gram_pool *p, bool has_lo, int64_t lo, bool has_hi, int64_t hi);
bool gram_format_is_known(const char *name);
gram_term gram_format(gram_pool *p, const char *name, gram_spelling spelling); /* of a known one */
bool gram_format_is_beyond(const char *name); /* one of JSON Schema that is not regular */

/* ---- control tokens --------------------------------------------------------------------------- */

/* Control tokens have no text, so they stand in the language as bytes that UTF-8 never uses: the digits of
 * their id, as many for all, from GRAM_TOKEN_ZERO on. Tokens with such bytes of their own are in no mask. */
enum { GRAM_TOKEN_BYTES = 7, GRAM_TOKEN_ZERO = 0xF5 };
void gram_token_bytes(int32_t id, uint8_t out[GRAM_TOKEN_BYTES]);
bool gram_is_text(sq_span bytes); /* none of those bytes is in it */
/* A text in which names of control tokens mean these tokens. */
gram_term gram_spelled(gram_rules *r, const char *s, size_t n);
/* One token by its id, control or not. GRAM_EMPTY after a failure: no such token, or no vocabulary. */
gram_term gram_token(gram_rules *r, int32_t id);
gram_term gram_token_named(gram_rules *r, const char *name, size_t n); /* the same by its exact text */

/* ---- what a grammar learns ------------------------------------------------------------------- */

/* Lexer: a state is a sorted list of (terminal, what is left of it). */
typedef struct {
    uint32_t terminal;
    gram_term left;
} gram_lex_item;
typedef struct {
    uint32_t off, n;           /* items */
    uint32_t done_off, n_done; /* terminals that may end here */
    bool live;                 /* one may also go on */
    uint64_t hash;
} gram_lex_state;

/* Row: items whose next symbol is `next`, sorted by it. origin: a row, or GRAM_SELF. */
enum { GRAM_SELF = UINT32_MAX };
typedef struct {
    uint32_t next, rule, dot, origin;
} gram_item;
typedef struct {
    uint32_t off, n;
    uint32_t lex; /* state in which its terminals begin; 0: there are none */
    bool accept;
    uint64_t hash;
} gram_row;

/* Place: pairs (lexer state, row it began in), sorted, and whether the text may end. 0 is the dead one. */
typedef struct {
    uint32_t lex, row;
} gram_pair;
typedef struct {
    uint32_t off, n;
    bool accept;
    uint64_t hash;
    uint32_t mask; /* index + 1 in masks; 0: not made yet */
    enum { GRAM_STEPS_UNKNOWN, GRAM_STEPS_MANY, GRAM_STEPS_ONE } steps; /* bytes that may follow */
    /* A large count in it (gram_counts.c): none; one that is to be marked; a marked one; one that is to be
     * a plain number again. counted: the place that it is with counted_by beside it, or that much less. */
    enum gram_counting {
        GRAM_COUNT_UNKNOWN,
        GRAM_COUNT_NONE,
        GRAM_COUNT_BEGINS,
        GRAM_COUNT_RUNS,
        GRAM_COUNT_ENDS
    } counting;
    uint32_t counted, counted_by;
} gram_place;

/* ids of the fewer: those allowed (kind LISTED) or refused (EXCEPT); else a bitset. */
typedef enum { MASK_BITS, MASK_LISTED, MASK_EXCEPT } mask_kind;
typedef struct {
    uint64_t trie; /* id of the one it was made for */
    mask_kind kind;
    uint32_t n_allowed, n_ids;
    void *data;
    size_t bytes;
} gram_mask;

struct sq_gram {
    squish_alloc alloc;
    sq_buf relaxed; /* what a schema is not kept to in */
    pthread_mutex_t lock;
    _Atomic int waiting;  /* who wants the lock: a long walk lets them in */
    int refs, n_matchers; /* under lock, as all below */
    gram_pool pool;
    gram_rules rules;
    gram_vec lex, lex_items, lex_done, lex_to; /* lex_to: [states][classes]; UINT32_MAX: not known yet */
    gram_index lex_index;
    gram_vec rows, row_items;
    gram_index row_index;
    gram_vec places, pairs, place_to;
    gram_index place_index;
    gram_vec masks;
    size_t mask_bytes;
    uint32_t start; /* place */
    /* Rows in the making. */
    gram_vec work, seen, wanted;
    uint32_t *stamp; /* [nonterminals]: row number in which it was predicted */
    uint32_t stamp_now;
    gram_vec ends, next_pairs;
};

static inline void gram_lock(sq_gram *g) {
    g->waiting++;
    pthread_mutex_lock(&g->lock);
    g->waiting--;
}
/* Compile; relaxing: of tags, else NULL. */
squish_status gram_compile(sq_gram **out, sq_gram_kind kind, const char *source, size_t n, const sq_tok *tok,
                           struct gram_relaxing *relaxing, const squish_alloc *alloc, squish_error *err);
/* Tags, compiled until no schema that may be relaxed is refused any more. */
squish_status gram_compile_tags(sq_gram **out, const char *source, size_t n, const sq_tok *tok,
                                const squish_alloc *alloc, squish_error *err);
/* (the lock is held) Forget what was learned if it is much and nobody is at a place of it. */
void gram_settle(sq_gram *g);
enum { GRAM_UNKNOWN = UINT32_MAX };
uint32_t gram_lex_intern(sq_gram *g, gram_lex_item *items, size_t n); /* sorts items; 0: dead */
uint32_t gram_lex_step(sq_gram *g, uint32_t state, uint32_t cls);
/* The row after these ends of terminals: (row, terminal) pairs, n > 0. GRAM_NONE: no item waits for them, or
 * a failure. */
uint32_t gram_row_after(sq_gram *g, const gram_pair *ends, size_t n);
uint32_t gram_row_first(sq_gram *g);
uint32_t gram_place_of(sq_gram *g, gram_pair *pairs, size_t n, bool accept);
uint32_t gram_place_step_slow(sq_gram *g, uint32_t place, uint32_t cls);
static inline uint32_t gram_place_step(sq_gram *g, uint32_t place, uint32_t cls) {
    const uint32_t to = GRAM_AT(g->place_to, uint32_t, (size_t)place * g->pool.n_classes + cls);
    return to != GRAM_UNKNOWN ? to : gram_place_step_slow(g, place, cls);
}
/* The same place with its large count beside it: *beside is what was there before, or 0. To be called every
 * GRAM_COUNT_STEP bytes, or sooner. */
enum { GRAM_COUNT_RUN = 256, GRAM_COUNT_FROM = 384, GRAM_COUNT_STEP = 128 };
uint32_t gram_place_settle(sq_gram *g, uint32_t place, uint32_t *beside);
/* The mask of a place for a trie, made if it is not there; NULL after a failure. Valid until the next call.
 */
const gram_mask *gram_mask_of(sq_gram *g, const sq_gram_trie *t, uint32_t place);

/* ---- vocabularies ---------------------------------------------------------------------------- */

/* Depth-first. A node's subtree ends before `end`. token: the first whose bytes end here, with GRAM_MORE if
 * there are others; or GRAM_NONE. */
enum { GRAM_MORE = 0x40000000 };
typedef struct {
    uint32_t end, token;
    uint16_t depth;      /* 1 for the first byte */
    uint8_t byte;
} gram_trie_node;
typedef struct {
    gram_trie_node *nodes;
    uint32_t n;
} gram_nodes;
enum { GRAM_SLICE_CHARS = 16 };
struct sq_gram_trie {
    squish_alloc alloc;
    _Atomic int refs;
    const sq_tok *tok;
    uint64_t id; /* equal for equal vocabularies */
    int32_t n_vocab;
    size_t words; /* of a mask */
    uint32_t depth_max;
    gram_nodes all;
    /* Plain tokens: whole characters which a JSON string writes as they are. plain [0]: all of them; [k]:
     * those of at most k characters. The other nodes: without all of them; without those of GRAM_SLICE_CHARS.
     */
    uint64_t *plain[GRAM_SLICE_CHARS + 1];
    gram_nodes not_plain, not_short;
    uint32_t *same;       /* [n_vocab]: the next token with the same bytes, or GRAM_NONE */
    uint64_t *ends;       /* end tokens */
    uint32_t n_ends;
};

#endif
