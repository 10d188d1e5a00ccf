/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_dtype.c - names and sizes of the element types of foreign files: one table for plain types, one for
 * GGUF's ids.
 *
 * A type that cannot be read is still known by name, so that a refusal can say what it met. */
#include "format/format.h"

#include "format/fmt_int.h"

static const struct {
    const char *name;
    uint8_t bytes;
} plain[] = {
    [SQ_DT_F32] = {"F32", 4},   [SQ_DT_F16] = {"F16", 2},         [SQ_DT_BF16] = {"BF16", 2},
    [SQ_DT_F64] = {"F64", 8},   [SQ_DT_I8] = {"I8", 1},           [SQ_DT_U8] = {"U8", 1},
    [SQ_DT_BOOL] = {"BOOL", 1}, [SQ_DT_I16] = {"I16", 2},         [SQ_DT_U16] = {"U16", 2},
    [SQ_DT_I32] = {"I32", 4},   [SQ_DT_U32] = {"U32", 4},         [SQ_DT_I64] = {"I64", 8},
    [SQ_DT_U64] = {"U64", 8},   [SQ_DT_F8_E4M3] = {"F8_E4M3", 1}, [SQ_DT_F8_E5M2] = {"F8_E5M2", 1},
};

/* GGUF type ids. items = 0: known, not readable here (codebook types, types made only at run time, removed
 * ids). */
static const struct {
    const char *name;
    uint16_t items, bytes;
} gguf[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [4] = {"Q4_2", 0, 0},        [5] = {"Q4_3", 0, 0},
    [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},      [8] = {"Q8_0", 32, 34},
    [9] = {"Q8_1", 0, 0},        [10] = {"Q2_K", 256, 84},    [11] = {"Q3_K", 256, 110},
    [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},   [14] = {"Q6_K", 256, 210},
    [15] = {"Q8_K", 0, 0},       [16] = {"IQ2_XXS", 0, 0},    [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},    [19] = {"IQ1_S", 0, 0},      [20] = {"IQ4_NL", 0, 0},
    [21] = {"IQ3_S", 0, 0},      [22] = {"IQ2_S", 0, 0},      [23] = {"IQ4_XS", 0, 0},
    [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},        [26] = {"I32", 1, 4},
    [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},        [29] = {"IQ1_M", 0, 0},
    [30] = {"BF16", 1, 2},       [31] = {"Q4_0_4_4", 0, 0},   [32] = {"Q4_0_4_8", 0, 0},
    [33] = {"Q4_0_8_8", 0, 0},   [34] = {"TQ1_0", 256, 54},   [35] = {"TQ2_0", 256, 66},
    [36] = {"IQ4_NL_4_4", 0, 0}, [37] = {"IQ4_NL_4_8", 0, 0}, [38] = {"IQ4_NL_8_8", 0, 0},
    [39] = {"MXFP4", 0, 0},
};

const char *sq_dtype_name(sq_dtype t) {
    if ((size_t)t < SQ_COUNT(plain)) return plain[t].name;
    if (t >= SQ_DT_GGUF && (size_t)(t - SQ_DT_GGUF) < SQ_COUNT(gguf)) return gguf[t - SQ_DT_GGUF].name;
    return "?";
}

size_t sq_dtype_bytes(sq_dtype t) { return (size_t)t < SQ_COUNT(plain) ? plain[t].bytes : 0; }

bool sq_fmt_gguf_type(uint32_t type_id, const char **name, uint32_t *block_items, uint32_t *block_bytes) {
    bool known = type_id < SQ_COUNT(gguf);
    *name = known ? gguf[type_id].name : "?";
    *block_items = known ? gguf[type_id].items : 0;
    *block_bytes = known ? gguf[type_id].bytes : 0;
    return *block_items > 0;
}

static const struct {
    uint8_t id, dtype;
} same[] = {{0, SQ_DT_F32},  {1, SQ_DT_F16},  {30, SQ_DT_BF16}, {24, SQ_DT_I8},
            {25, SQ_DT_I16}, {26, SQ_DT_I32}, {27, SQ_DT_I64},  {28, SQ_DT_F64}};

sq_dtype sq_fmt_gguf_dtype(uint32_t type_id) {
    for (size_t i = 0; i < SQ_COUNT(same); i++) {
        if (same[i].id == type_id) return (sq_dtype)same[i].dtype;
    }
    return (sq_dtype)(SQ_DT_GGUF + type_id);
}

bool sq_fmt_gguf_id(sq_dtype t, uint32_t *type_id) {
    *type_id = t >= SQ_DT_GGUF ? (uint32_t)(t - SQ_DT_GGUF) : 0;
    if (t >= SQ_DT_GGUF) return true;
    for (size_t i = 0; i < SQ_COUNT(same); i++) {
        if (same[i].dtype != t) continue;
        *type_id = same[i].id;
        return true;
    }
    return false;
}
