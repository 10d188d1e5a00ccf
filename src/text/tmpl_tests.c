/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_tests.c - `x is defined`, `x is string`, `x is divisibleby 3` and all others. */
#include "text/tmpl_int.h"

static squish_status t_odd(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval two = sq_tv_int(2), one = sq_tv_int(1);
    bool odd;
    (void)arg;
    SQ_TRY(sq_tmpl_math(r, SQ_TOP_MOD, v, &two, out));
    SQ_TRY(sq_tmpl_equal(r, out, &one, &odd));
    *out = sq_tv_bool(odd);
    return SQUISH_OK;
}

static squish_status t_divisible(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval zero = sq_tv_int(0);
    bool same;
    SQ_TRY(sq_tmpl_math(r, SQ_TOP_MOD, v, &arg[0], out));
    SQ_TRY(sq_tmpl_equal(r, out, &zero, &same));
    *out = sq_tv_bool(same);
    return SQUISH_OK;
}

static squish_status t_even(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval two[SQ_TMPL_PARAMS] = {sq_tv_int(2)};
    (void)arg;
    return t_divisible(r, v, two, out);
}

static squish_status t_in(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    bool found;
    SQ_TRY(sq_tmpl_contains(r, &arg[0], v, &found));
    *out = sq_tv_bool(found);
    return SQUISH_OK;
}

/* `is`: the same object, or the same small value. */
static squish_status t_sameas(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    bool same = v->type == arg[0].type;
    bool by_value = v->type == SQ_TV_NONE || v->type == SQ_TV_BOOL || v->type == SQ_TV_INT ||
                    v->type == SQ_TV_FLOAT || v->type == SQ_TV_STR;
    if (same && by_value) SQ_TRY(sq_tmpl_equal(r, v, &arg[0], &same));
    else if (same && v->type != SQ_TV_UNDEF) same = v->u.seq == arg[0].u.seq;
    *out = sq_tv_bool(same);
    return SQUISH_OK;
}

static squish_status t_filter(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)r;
    (void)arg;
    *out = sq_tv_bool(v->type == SQ_TV_STR && sq_tmpl_has_filter(v->u.s, v->n));
    return SQUISH_OK;
}

static squish_status t_test(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)r;
    (void)arg;
    *out = sq_tv_bool(v->type == SQ_TV_STR && sq_tmpl_has_test(v->u.s, v->n));
    return SQUISH_OK;
}

static squish_status case_test(sq_trun *r, const sq_tval *v, const char *method, sq_tval *out) {
    sq_tval text;
    SQ_TRY(sq_tmpl_to_str(r, v, &text));
    const sq_tmethod m = {.self = text, .name = method};
    const sq_targs none = {0};
    return sq_tmpl_call_method(r, &m, &none, out);
}

static squish_status t_lower(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return case_test(r, v, "islower", out);
}
static squish_status t_upper(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return case_test(r, v, "isupper", out);
}

static const sq_tmpl_native rows[] = {
    {"odd", t_odd, NULL, 0, 0, {0}},
    {"even", t_even, NULL, 0, 0, {0}},
    {"divisibleby", t_divisible, NULL, 1, 1, {"num"}},
    {"in", t_in, NULL, 1, 1, {"seq"}},
    {"sameas", t_sameas, NULL, 1, 1, {"other"}},
    {"filter", t_filter, NULL, 0, 0, {0}},
    {"test", t_test, NULL, 0, 0, {0}},
    {"lower", t_lower, NULL, 0, 0, {0}},
    {"upper", t_upper, NULL, 0, 0, {0}},
};

/* Tests that are comparisons with their argument. */
static const struct {
    const char *name;
    uint8_t op;
} comparisons[] = {
    {"equalto", SQ_TOP_EQ}, {"eq", SQ_TOP_EQ}, {"==", SQ_TOP_EQ}, {"ne", SQ_TOP_NE}, {"!=", SQ_TOP_NE},
    {"greaterthan", SQ_TOP_GT}, {"gt", SQ_TOP_GT}, {">", SQ_TOP_GT}, {"ge", SQ_TOP_GE}, {">=", SQ_TOP_GE},
    {"lessthan", SQ_TOP_LT}, {"lt", SQ_TOP_LT}, {"<", SQ_TOP_LT}, {"le", SQ_TOP_LE}, {"<=", SQ_TOP_LE},
};

/* Tests that look at the type alone. */
enum {
    DEFINED,
    UNDEFINED,
    NONE,
    BOOLEAN,
    TRUE_,
    FALSE_,
    INTEGER,
    FLOAT_,
    NUMBER,
    STRING,
    MAPPING,
    SEQUENCE,
    ITERABLE,
    CALLABLE,
    ESCAPED,
    N_TYPE_TESTS
};
static const char *const type_tests[N_TYPE_TESTS] = {
    "defined", "undefined", "none",    "boolean",  "true",     "false",    "integer", "float",
    "number",  "string",    "mapping", "sequence", "iterable", "callable", "escaped"};

static bool type_test(int which, const sq_tval *v) {
    bool is_bool = v->type == SQ_TV_BOOL;
    switch (which) {
        case DEFINED: return v->type != SQ_TV_UNDEF;
        case UNDEFINED: return v->type == SQ_TV_UNDEF;
        case NONE: return v->type == SQ_TV_NONE;
        case BOOLEAN: return is_bool;
        case TRUE_: return is_bool && v->u.b;
        case FALSE_: return is_bool && !v->u.b;
        case INTEGER: return v->type == SQ_TV_INT;
        case FLOAT_: return v->type == SQ_TV_FLOAT;
        case NUMBER: return is_bool || v->type == SQ_TV_INT || v->type == SQ_TV_FLOAT;
        case STRING: return v->type == SQ_TV_STR;
        case MAPPING: return v->type == SQ_TV_DICT;
        case SEQUENCE: /* has a length and an index: the undefined, too, in Jinja */
            return v->type == SQ_TV_STR || v->type == SQ_TV_LIST || v->type == SQ_TV_TUPLE ||
                   v->type == SQ_TV_DICT || v->type == SQ_TV_RANGE || v->type == SQ_TV_UNDEF;
        case ITERABLE: return v->type == SQ_TV_LOOP || sq_tmpl_is_iterable(v);
        case CALLABLE:
            return v->type == SQ_TV_MACRO || v->type == SQ_TV_METHOD || v->type == SQ_TV_GLOBAL ||
                   v->type == SQ_TV_LOOP || v->type == SQ_TV_UNDEF;
        default: return false; /* escaped: nothing is, without autoescape */
    }
}

static int find_type_test(const char *name, size_t n) {
    int i = 0;
    while (i < N_TYPE_TESTS && !sq_tmpl_is_word(type_tests[i], name, n)) i++;
    return i;
}

static int find_comparison(const char *name, size_t n) {
    for (size_t i = 0; i < SQ_COUNT(comparisons); i++)
        if (sq_tmpl_is_word(comparisons[i].name, name, n)) return comparisons[i].op;
    return -1;
}

bool sq_tmpl_has_test(const char *name, size_t n) {
    return find_type_test(name, n) < N_TYPE_TESTS || find_comparison(name, n) >= 0 ||
           sq_tmpl_lookup(rows, SQ_COUNT(rows), name, n) != NULL;
}

squish_status sq_tmpl_test(sq_trun *r, const char *name, size_t n, const sq_tval *v, const sq_targs *args,
                           bool *out) {
    int type = find_type_test(name, n), op = find_comparison(name, n);
    const sq_tmpl_native *row = sq_tmpl_lookup(rows, SQ_COUNT(rows), name, n);
    if (row) {
        sq_tval result;
        SQ_TRY(sq_tmpl_invoke(r, row, v, args, &result));
        *out = sq_tmpl_truth(&result);
        return SQUISH_OK;
    }
    if (type == N_TYPE_TESTS && op < 0) return sq_tmpl_fail(r, "No test named '%.*s'.", (int)n, name);
    uint32_t wanted = op >= 0;
    if (args->n_pos != wanted || args->n_kw > 0)
        return sq_tmpl_fail(r, "the test %.*s takes %u arguments", (int)n, name, wanted);
    if (op >= 0) return sq_tmpl_compare(r, op, v, &args->pos[0], out);
    *out = type_test(type, v);
    return SQUISH_OK;
}
