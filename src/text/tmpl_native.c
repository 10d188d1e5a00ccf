/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_native.c - from a table row to a call: looking a built-in function up and laying its arguments out. */
#include "text/tmpl_int.h"

const sq_tmpl_native *sq_tmpl_lookup(const sq_tmpl_native *rows, size_t n_rows, const char *name, size_t n) {
    for (size_t i = 0; i < n_rows; i++)
        if (sq_tmpl_is_word(rows[i].name, name, n)) return &rows[i];
    return NULL;
}

/* The parameter a keyword names; n_max: none. */
static uint32_t param_of(const sq_tmpl_native *row, const sq_tval *key) {
    uint32_t i = 0;
    while (i < row->n_max && !(row->params[i] && sq_tv_is(key, row->params[i]))) i++;
    return i;
}

squish_status sq_tmpl_invoke(sq_trun *r, const sq_tmpl_native *row, const sq_tval *self, const sq_targs *args,
                             sq_tval *out) {
    if (row->raw) return row->raw(r, self, args, out);
    sq_tval arg[SQ_TMPL_PARAMS] = {{0}}; /* UNSET */
    if (args->n_pos > row->n_max)
        return sq_tmpl_fail(r, "%s takes at most %u arguments (%u given)", row->name, row->n_max,
                            args->n_pos);
    for (uint32_t i = 0; i < args->n_pos; i++) arg[i] = args->pos[i];
    for (uint32_t i = 0; i < args->n_kw; i++) {
        const sq_tval *key = &args->kw[i].key;
        uint32_t at = param_of(row, key);
        if (at == row->n_max)
            return sq_tmpl_fail(r, "%s got an unexpected keyword argument '%.*s'", row->name, (int)key->n,
                                key->u.s);
        if (arg[at].type != SQ_TV_UNSET)
            return sq_tmpl_fail(r, "%s got multiple values for argument '%s'", row->name, row->params[at]);
        arg[at] = args->kw[i].value;
    }
    for (uint32_t i = 0; i < row->n_min; i++)
        if (arg[i].type == SQ_TV_UNSET) return sq_tmpl_fail(r, "%s is missing an argument", row->name);
    const sq_tval in = *self; /* out may be the same place */
    return row->fn(r, &in, arg, out);
}
