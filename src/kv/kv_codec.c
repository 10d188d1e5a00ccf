/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_codec.c - vectors to codes and back, and pages through both (see kv_codec.h).
 *
 * Encoding is 256 distances for each subvector and stage, for which there is a kernel; a part's vectors go
 * through a book together, so that its 9 kB stay in the first-level cache. Decoding is 16 rows of 8 floats
 * that are added up, for 64 channels; the rows of a part (128 kB) stay in the second level. */
#include "kv/kv_codec.h"

#include <math.h>
#include <string.h>

enum { TILE = SQ_KV_TILE_TOKENS, DIMS = SQ_PQ_DIMS, ROWS = SQ_PQ_ROWS };

squish_status sq_codec_check_shape(const sq_kv_shape *s, squish_error *err) {
    if (s->latent)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--snapshot-codec beside latent rows: codes are of keys and values");
    if (s->head_dim % 16 || s->head_dim < 16 || s->head_dim > SQ_CODEC_DIM_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--snapshot-codec beside heads of %d channels: wanted a multiple of 16 up to %d",
                       s->head_dim, SQ_CODEC_DIM_MAX);
    return SQUISH_OK;
}

static size_t mean_floats(const sq_codec *c) { return (size_t)c->n_parts * (size_t)c->info.shape.head_dim; }
static size_t row_floats(const sq_codec *c) { return mean_floats(c) * SQ_CODEC_STAGES * ROWS; }

squish_status sq_codec_new(sq_codec **out, const sq_kv_shape *s, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    SQ_TRY(sq_codec_check_shape(s, err));
    sq_codec *c = sq_alloc_zero(a, sizeof *c);
    if (!c) return sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory");
    c->alloc = *a;
    c->info.shape = *s;
    c->n_parts = 2 * s->n_layers * s->n_kv_heads;
    c->subs = s->head_dim / DIMS;
    c->mean = sq_alloc_zero(a, mean_floats(c) * sizeof(float));
    c->rows = sq_alloc_zero(a, row_floats(c) * sizeof(float));
    if (!c->mean || !c->rows) {
        sq_codec_free(c);
        return sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory");
    }
    *out = c;
    return SQUISH_OK;
}

void sq_codec_free(sq_codec *c) {
    if (!c) return;
    const squish_alloc a = c->alloc;
    sq_alloc_free(&a, c->mean, c->mean ? mean_floats(c) * sizeof(float) : 0);
    sq_alloc_free(&a, c->rows, c->rows ? row_floats(c) * sizeof(float) : 0);
    sq_alloc_free(&a, c, sizeof *c);
}

/* ---- the gate -------------------------------------------------------------------------------- */

squish_status sq_codec_gate_check(const sq_codec_gate *g, squish_error *err) {
    const bool able = g->trials > 0 && 100 * g->found_f16 >= SQ_CODEC_KEYS_ABLE * g->trials;
    if (!(g->kl <= SQ_CODEC_KL_MAX))
        return sq_fail(err, SQUISH_QUALITY,
                       "codebooks refused: %d tokens behind %d from codes have a KL of %.4f nats to f16, at "
                       "most %.2f is wanted",
                       g->continued, g->prefix, g->kl, SQ_CODEC_KL_MAX);
    if (able && 100 * g->found < SQ_CODEC_KEYS_PERCENT * g->found_f16)
        return sq_fail(err, SQUISH_QUALITY,
                       "codebooks refused: %d of %d pass keys are found behind codes, %d with f16, at least "
                       "%d %% of these are wanted",
                       g->found, g->trials, g->found_f16, SQ_CODEC_KEYS_PERCENT);
    return SQUISH_OK;
}

/* At worst two cells are computed: d (n - 2 cells) + p 2 cells <= p n / 2. */
int32_t sq_codec_worth(const sq_codec_gate *g, uint64_t bytes_token) {
    const double p = (double)g->prefill_us, d = (double)g->decode_us + (double)bytes_token / 200.0;
    if (!(p / 2 > d)) return INT32_MAX;
    const double n = 2 * SQ_KV_CELL * (p - d) / (p / 2 - d);
    return n < 1e9 ? (int32_t)ceil(n) : INT32_MAX;
}

/* ---- vectors --------------------------------------------------------------------------------- */

void sq_codec_book(const float *rows, float *book) {
    for (int32_t c = 0; c < ROWS; c++) {
        float sum = 0.0f;
        for (int32_t k = 0; k < DIMS; k++) {
            const float v = rows[c * DIMS + k];
            book[k * ROWS + c] = v;
            sum += v * v;
        }
        book[DIMS * ROWS + c] = 0.5f * sum;
    }
}

/* x becomes its direction; returns its length, 0 where it has none. */
static float normalise(const float *mean, float *x, int32_t d) {
    float sum = 0.0f;
    for (int32_t i = 0; i < d; i++) x[i] -= mean[i], sum += x[i] * x[i];
    const float norm = sqrtf(sum), inv = norm > 1e-12f ? 1.0f / norm : 0.0f;
    for (int32_t i = 0; i < d; i++) x[i] *= inv;
    return inv > 0.0f ? norm : 0.0f;
}

/* Six bits of mantissa; never an infinity. */
static uint16_t gain_bits(float g) {
    const uint16_t h = sq_f32_to_f16(g), sign = h & 0x8000, size = (uint16_t)((h & 0x7fff) + 8) & 0x7ff0;
    return (uint16_t)(sign | (size >= 0x7c00 ? 0x7bf0 : size));
}

/* rest = u - row of the code, by subvectors. */
static void take_off(const float *rows, const uint8_t *code, int32_t n, size_t d, float *rest) {
    for (int32_t i = 0; i < n; i++) {
        const float *row = rows + (size_t)code[i] * DIMS;
        for (int32_t k = 0; k < DIMS; k++) rest[(size_t)i * d + (size_t)k] -= row[k];
    }
}

/* The gain g that makes g y nearest to norm u, where y = u - rest. */
static float best_gain(const float *u, const float *rest, int32_t d, float norm) {
    float uy = 0.0f, yy = 0.0f;
    for (int32_t i = 0; i < d; i++) {
        const float y = u[i] - rest[i];
        uy += u[i] * y;
        yy += y * y;
    }
    return yy > 0.0f ? norm * uy / yy : 0.0f;
}

void sq_codec_encode(const sq_codec *c, const sq_kernels *k, int32_t part, float *x, int32_t n, float *book,
                     float *rest, uint16_t *gain, uint8_t *code) {
    const int32_t d = c->info.shape.head_dim;
    const size_t ld = (size_t)d;
    float *norm = rest + (size_t)n * ld;
    for (int32_t i = 0; i < n; i++)
        norm[i] = normalise(c->mean + (size_t)part * ld, x + (size_t)i * ld, d);
    memcpy(rest, x, (size_t)n * ld * sizeof *x);
    for (int32_t stage = 0; stage < SQ_CODEC_STAGES; stage++)
        for (int32_t s = 0; s < c->subs; s++, code += n) {
            const float *rows = sq_codec_rows(c, part, stage, s);
            sq_codec_book(rows, book);
            k->pq_nearest(rest + s * DIMS, ld, n, book, code);
            take_off(rows, code, n, ld, rest + s * DIMS);
        }
    for (int32_t i = 0; i < n; i++)
        gain[i] = gain_bits(best_gain(x + (size_t)i * ld, rest + (size_t)i * ld, d, norm[i]));
}

void sq_codec_decode(const sq_codec *c, int32_t part, const uint16_t *gain, const uint8_t *code, int32_t n,
                     float *x) {
    const int32_t d = c->info.shape.head_dim, subs = c->subs;
    const float *mean = c->mean + (size_t)part * (size_t)d, *first = sq_codec_rows(c, part, 0, 0);
    const float *second = sq_codec_rows(c, part, 1, 0);
    const uint8_t *more = code + (size_t)subs * (size_t)n;
    for (int32_t i = 0; i < n; i++, x += d) {
        const float g = sq_f16_to_f32(gain[i]);
        for (int32_t s = 0; s < subs; s++) {
            const size_t book = (size_t)s * ROWS, at = (size_t)s * (size_t)n + (size_t)i;
            const float *a = first + (book + code[at]) * DIMS, *b = second + (book + more[at]) * DIMS;
            for (int32_t k = 0; k < DIMS; k++)
                x[s * DIMS + k] = mean[s * DIMS + k] + g * (a[k] + b[k]);
        }
    }
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* work: cos [sets][tokens][half] | sin, alike | keys [tokens][d] | values | rest [tokens][d + 1] | book */
typedef struct {
    float *cos, *sin, *x, *y, *rest, *book;
} space;

static space space_of(const sq_codec_run *r) {
    const size_t n = (size_t)r->n_tiles * TILE, d = (size_t)r->c->info.shape.head_dim;
    space s = {.cos = r->work};
    s.sin = s.cos + SQ_CODEC_SETS * n * d / 2;
    s.x = s.sin + SQ_CODEC_SETS * n * d / 2;
    s.y = s.x + n * d;
    s.rest = s.y + n * d;
    s.book = s.rest + n * (d + 1);
    return s;
}

size_t sq_codec_work_floats(const sq_codec *c, int32_t n_tiles) {
    const size_t n = (size_t)n_tiles * TILE, d = (size_t)c->info.shape.head_dim;
    return 2 * SQ_CODEC_SETS * n * d / 2 + 2 * n * d + n * (d + 1) + SQ_PQ_BOOK;
}

/* One frequency over the tokens of a tile: the first angle as it is, the others by turning further, in
 * double, where 31 steps cost nothing that a float would show. */
static void turn_tile(double freq, double pos, double scale, bool back, float *cs, float *sn, size_t half) {
    double c = cos(pos * freq), s = sin(pos * freq);
    const double dc = cos(freq), ds = sin(freq);
    for (int32_t t = 0; t < TILE; t++, cs += half, sn += half) {
        *cs = (float)(c * scale);
        *sn = (float)((back ? -s : s) * scale);
        const double next = c * dc - s * ds;
        s = s * dc + c * ds;
        c = next;
    }
}

void sq_codec_begin(const sq_codec_run *r, bool back) {
    const sq_codec_turns *turns = &r->c->turns;
    const size_t half = (size_t)r->c->info.shape.head_dim / 2;
    const space s = space_of(r);
    bool used[SQ_CODEC_SETS] = {false};
    for (int32_t l = 0; l < r->c->info.shape.n_layers; l++) used[turns->set[l]] = true;
    for (size_t set = 0; set < SQ_CODEC_SETS; set++) {
        const double f = turns->factor[set];
        for (int32_t t = 0; used[set] && t < r->n_tiles; t++) {
            const size_t at = (set * (size_t)r->n_tiles + (size_t)t) * TILE * half;
            for (size_t i = 0; i < half; i++)
                turn_tile(turns->inv_freq[set][i], (double)(r->first_tile + t) * TILE, back ? 1 / f : f, back,
                          s.cos + at + i, s.sin + at + i, half);
        }
    }
}

static void turn(const sq_codec_run *r, int32_t layer, float *x) {
    const sq_codec_turns *turns = &r->c->turns;
    const size_t d = (size_t)r->c->info.shape.head_dim, n = (size_t)r->n_tiles * TILE;
    const space s = space_of(r);
    sq_rope_fn *rope = turns->pairs ? r->k->rope_pairs : r->k->rope;
    for (size_t t = 0, at = turns->set[layer] * n * d / 2; t < n; t++, at += d / 2)
        rope(x + t * d, s.cos + at, s.sin + at, (int32_t)d / 2);
}

void sq_codec_gather(const sq_codec_run *r, int32_t layer, int32_t head, bool value,
                     const uint8_t *const *pages, float *x) {
    const sq_kv_geometry g = sq_kv_geometry_of(&r->c->info.shape, SQ_KV_F16);
    const size_t d = (size_t)r->c->info.shape.head_dim, from = (size_t)head * g.head_stride;
    for (int32_t tile = 0; tile < r->n_tiles; tile++) {
        const void *at = pages[tile] + from + (value ? g.v_off : g.k_off);
        const uint16_t *p = at;
        float *to = x + (size_t)tile * TILE * d;
        for (size_t i = 0; i < TILE * d; i++)
            to[value ? i : i % TILE * d + i / TILE] = sq_f16_to_f32(p[i]);
    }
    if (!value) turn(r, layer, x);
}

void sq_codec_put(const sq_codec_run *r, int32_t layer, const uint8_t *const *pages, uint16_t *gain,
                  uint8_t *code) {
    const int32_t n = r->n_tiles * TILE;
    const size_t bytes = (size_t)n * (sq_codec_vector_bytes(r->c) - 2);
    const space s = space_of(r);
    for (int32_t i = 0; i < 2 * r->c->info.shape.n_kv_heads; i++, gain += n, code += bytes) {
        sq_codec_gather(r, layer, i / 2, i % 2, pages, s.x);
        sq_codec_encode(r->c, r->k, sq_codec_part(r->c, layer, i / 2, i % 2), s.x, n, s.book, s.rest, gain,
                        code);
    }
}

void sq_codec_get(const sq_codec_run *r, int32_t layer, const uint16_t *gain, const uint8_t *code,
                  uint8_t *const *pages) {
    const sq_kv_geometry g = sq_kv_geometry_of(&r->c->info.shape, SQ_KV_F16);
    const int32_t d = r->c->info.shape.head_dim, n = r->n_tiles * TILE;
    const size_t bytes = (size_t)n * (sq_codec_vector_bytes(r->c) - 2);
    const space s = space_of(r);
    for (int32_t h = 0; h < r->c->info.shape.n_kv_heads; h++, gain += 2 * n, code += 2 * bytes) {
        sq_codec_decode(r->c, sq_codec_part(r->c, layer, h, false), gain, code, n, s.x);
        sq_codec_decode(r->c, sq_codec_part(r->c, layer, h, true), gain + n, code + bytes, n, s.y);
        turn(r, layer, s.x);
        for (int32_t t = 0; t < n; t++) {
            uint8_t *head = pages[t / TILE] + (size_t)h * g.head_stride;
            r->k->kv_put_f16(s.x + (size_t)t * (size_t)d, s.y + (size_t)t * (size_t)d, d, t % TILE,
                             (uint16_t *)(void *)(head + g.k_off), (uint16_t *)(void *)(head + g.v_off));
        }
    }
}
