/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json.c - JSON itself and its white space.
 *
 * White space is bounded where a model writes: after a comma or a colon one blank, or a new line with at most
 * 40 blanks, and the same new line inside of brackets; else a model that likes blanks never comes to an end.
 */
#include "grammar/gram_json_int.h"

#include <string.h>

enum { INDENT_MAX = 40 };

static gram_term any_space(gram_pool *p) {
    gram_term t = gram_from_literal(p, " ");
    for (const char *c = "\t\n\r"; *c; c++) t = gram_alt(p, t, gram_literal(p, c, 1));
    return gram_rep(p, t, 0, GRAM_INF);
}

static gram_term new_line(gram_pool *p) {
    return gram_cat(p, gram_from_literal(p, "\n"), gram_rep(p, gram_from_literal(p, " "), 0, INDENT_MAX));
}

gram_term gram_space_inside(gram_pool *p, bool loose) {
    return loose ? any_space(p) : gram_opt(p, gram_alt(p, gram_from_literal(p, " "), new_line(p)));
}

gram_term gram_comma(gram_pool *p, bool loose) {
    if (loose) return gram_cat(p, any_space(p), gram_cat(p, gram_from_literal(p, ","), any_space(p)));
    return gram_cat(p, gram_from_literal(p, ","),
                    gram_opt(p, gram_alt(p, gram_from_literal(p, " "), new_line(p))));
}

gram_term gram_colon(gram_pool *p, bool loose) {
    if (loose) return gram_cat(p, any_space(p), gram_cat(p, gram_from_literal(p, ":"), any_space(p)));
    return gram_cat(p, gram_from_literal(p, ":"), gram_opt(p, gram_from_literal(p, " ")));
}

gram_term gram_quoted(gram_pool *p, gram_term inside) {
    return gram_cat(p, gram_from_literal(p, "\""), gram_cat(p, inside, gram_from_literal(p, "\"")));
}

gram_term gram_json_string(gram_pool *p) {
    return gram_quoted(p, gram_rep(p, gram_any_char(p, GRAM_IN_JSON), 0, GRAM_INF));
}

/* What all brackets have. */
typedef struct {
    gram_term space, comma, open_object, close_object, open_array, close_array;
} brackets;

/* open (item (, item)*)? close */
static gram_term bracketed(gram_pool *p, const brackets *x, bool object, gram_term item) {
    const gram_term more = gram_rep(p, gram_cat(p, x->comma, item), 0, GRAM_INF);
    const gram_term items = gram_opt(p, gram_cat(p, item, gram_cat(p, more, x->space)));
    const gram_term inside = gram_cat(p, items, object ? x->close_object : x->close_array);
    return gram_cat(p, object ? x->open_object : x->open_array, gram_cat(p, x->space, inside));
}

/* Level by level: a value of depth d is made of values of depth d - 1, each one term. */
gram_term gram_any_json(gram_pool *p, bool loose, bool object) {
    const gram_term key = gram_cat(p, gram_json_string(p), gram_colon(p, loose));
    const size_t base = p->scratch.n;
    gram_vec_push_u32(p, &p->scratch, gram_json_string(p));
    gram_vec_push_u32(p, &p->scratch, gram_json_number(p, loose));
    for (const char *const *w = (const char *const[]){"true", "false", "null", NULL}; *w; w++)
        gram_vec_push_u32(p, &p->scratch, gram_from_literal(p, *w));
    const gram_term scalar = gram_alt_list(p, base);
    const brackets x = {gram_space_inside(p, loose), gram_comma(p, loose),      gram_from_literal(p, "{"),
                        gram_from_literal(p, "}"),   gram_from_literal(p, "["), gram_from_literal(p, "]")};
    gram_term value = scalar, o = GRAM_EMPTY;
    for (int d = 0; d < GRAM_JSON_DEPTH && !gram_failed(p); d++) {
        o = bracketed(p, &x, true, gram_cat(p, key, value));
        const gram_term a = bracketed(p, &x, false, value);
        value = gram_alt(p, scalar, gram_alt(p, o, a));
    }
    return object ? o : value;
}
