/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_check.c - the ranges of a sampling request, in one table.
 *
 * A request comes from a command line or a socket. Whatever passes here can be computed without overflow or a
 * special case further down. */
#include "sample/sample_int.h"

typedef struct {
    const char *name;
    size_t offset;
    bool is_float;
    double lo, hi;
} range;

#define FLOAT_RANGE(field, lo, hi) {#field, offsetof(squish_sampling, field), true, lo, hi}
#define INT_RANGE(field, lo, hi) {#field, offsetof(squish_sampling, field), false, lo, hi}

static const range ranges[] = {
    FLOAT_RANGE(temperature, 0, 5),
    INT_RANGE(top_k, -1, INT32_MAX),
    FLOAT_RANGE(top_p, 0, 1),
    FLOAT_RANGE(min_p, 0, 1),
    FLOAT_RANGE(typical_p, 0, 1),
    FLOAT_RANGE(top_n_sigma, 0, 100),
    FLOAT_RANGE(xtc_probability, 0, 1),
    FLOAT_RANGE(xtc_threshold, 0, 1),
    FLOAT_RANGE(repetition_penalty, 0.01f, 100),
    INT_RANGE(repeat_last_n, -1, INT32_MAX),
    FLOAT_RANGE(frequency_penalty, -2, 2),
    FLOAT_RANGE(presence_penalty, -2, 2),
    FLOAT_RANGE(dry_multiplier, 0, 100),
    FLOAT_RANGE(dry_base, 1, 100),
    INT_RANGE(dry_allowed_length, 1, 1 << 20),
    INT_RANGE(dry_last_n, -1, INT32_MAX),
    INT_RANGE(n_bias, 0, SQ_SAMPLE_BIAS_MAX),
    INT_RANGE(choice, 0, INT32_MAX),
};

static double value_of(const squish_sampling *p, const range *r) {
    const char *field = (const char *)p + r->offset;
    return r->is_float ? (double)*(const float *)(const void *)field
                       : (double)*(const int32_t *)(const void *)field;
}

/* Floats print with the digits an f32 has, so that 0.01 reads as 0.01. */
static squish_status refuse(const range *r, double value, squish_error *err) {
    int digits = r->is_float ? 7 : 10;
    return sq_fail(err, SQUISH_INVALID, "%s: %.*g is outside %.*g..%.*g", r->name, digits, value, digits,
                   r->lo, digits, r->hi);
}

static squish_status check_bias(const squish_sampling *p, int32_t n_vocab, squish_error *err) {
    if (p->n_bias > 0 && (!p->bias_ids || !p->bias_values))
        return sq_fail(err, SQUISH_INVALID, "n_bias: %d pairs announced, but no ids or values given",
                       p->n_bias);
    for (int32_t i = 0; i < p->n_bias; i++) {
        int32_t id = p->bias_ids[i];
        if (id < 0 || id >= n_vocab)
            return sq_fail(err, SQUISH_INVALID, "bias_ids[%d]: %d is outside 0..%d", i, id, n_vocab - 1);
        float value = p->bias_values[i];
        if (!(value >= -100 && value <= 100))
            return sq_fail(err, SQUISH_INVALID, "bias_values[%d]: %g is outside -100..100 (token %d)", i,
                           value, id);
    }
    return SQUISH_OK;
}

squish_status sq_sampling_check(const squish_sampling *p, int32_t n_vocab, squish_error *err) {
    for (size_t i = 0; i < SQ_COUNT(ranges); i++) {
        const range *r = &ranges[i];
        double value = value_of(p, r);
        if (!(value >= r->lo && value <= r->hi)) /* also true for NaN */
            return refuse(r, value, err);
    }
    return check_bias(p, n_vocab, err);
}
