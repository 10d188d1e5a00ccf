/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink.h - the walk over a sealed tile that loses bits (R9), for the files of wide instructions. Whoever
 * includes it has made, before:
 *
 *     change                                           what two formats make of a code; .ratio, of the steps
 *     change_of(from, to)
 *     change_line(change, in, a, r, out, b)            64 bytes of codes at place a into place b of `out`,
 * where bytes are begun at bit 0; r: ratios of a lane's four bytes
 */
#ifndef SQ_K_SHRINK_H
#define SQ_K_SHRINK_H

static void shrink_k(const uint8_t *k, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = k + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memset(params, 0, sq_kv_k_bytes(to, d) - sq_kv_code_bytes(to, d));
    memcpy(params + sq_kv_k_z(d), in + sq_kv_k_z(d), (size_t)d * 2);
    for (int32_t c = 0; c < d; c += 4) {
        float r[4];
        for (int e = 0; e < 4; e++) {
            const float s = sq_kv_scale(in[c + e]);
            params[c + e] = sq_kv_scale_code(s * q.ratio);
            r[e] = s / sq_kv_scale(params[c + e]);
        }
        for (int32_t t = 0; t < SQ_KV_TILE; t += 16)
            change_line(&q, k, sq_kv_k_place(from, c, t), r, out, sq_kv_k_place(to, c, t));
    }
}

/* Token i % 32 of group i / 32: the wider step into params, and the ratio of both. */
static float widen_step(const uint8_t *in, uint8_t *params, int32_t i, float ratio) {
    uint16_t narrow, wide;
    memcpy(&narrow, in + (size_t)i * 2, sizeof narrow);
    const float s = sq_f16_to_f32(narrow);
    wide = sq_f32_to_f16(s * ratio);
    wide = (uint16_t)(wide + (sq_f16_to_f32(wide) < s * ratio));
    memcpy(params + (size_t)i * 2, &wide, sizeof wide);
    return wide ? s / sq_f16_to_f32(wide) : 0.0f;
}

static void shrink_v(const uint8_t *v, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = v + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    float r[4];
    memcpy(params + sq_kv_v_z(d), in + sq_kv_v_z(d), sq_kv_v_z(d));
    for (int32_t t = 0; t < SQ_KV_TILE; t += 4)
        for (int32_t c = 0; c < d; c += 16) {
            for (int e = 0; e < 4 && c % SQ_KV_GROUP == 0; e++)
                r[e] = widen_step(in, params, c / SQ_KV_GROUP * SQ_KV_TILE + t + e, q.ratio);
            change_line(&q, v, sq_kv_v_place(from, d, c, t), r, out, sq_kv_v_place(to, d, c, t));
        }
}

static void shrink_tile(const sq_kv_shrink_args *a) {
    if (a->k_from == a->k_to)
        memcpy(a->k_out, a->k, sq_kv_k_bytes(a->k_to, a->d));
    else
        shrink_k(a->k, a->d, a->k_from, a->k_to, a->k_out);
    if (a->v_from == a->v_to)
        memcpy(a->v_out, a->v, sq_kv_v_bytes(a->v_to, a->d));
    else
        shrink_v(a->v, a->d, a->v_from, a->v_to, a->v_out);
}

#endif
