/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_experts.c - the ways in which files hold experts: each with tensors of its own, all of a layer
 * in one (MLX, plain and quantised; newer checkpoints, with gate and up in one; GGUF). The same weights give
 * the same bits. Damage is refused by name. */
#include "support/model_run.h"

#include <stdio.h>

static const char source[] = "tests/fixtures/architectures/qwen2-moe";
enum { LAYERS = 3, EXPERTS = 8, HIDDEN = 64, FFN = 48, VOCAB = 512, TENSORS_MAX = 400, GROUP = 32 };

typedef struct {
    char name[128];
    sq_ftensor t;
    const uint8_t *part[EXPERTS]; /* one after another; part[0] alone: t.bytes */
    size_t n_parts, part_bytes;
} item;

typedef struct {
    sq_safetensors *st;
    item items[TENSORS_MAX];
    size_t n;
    uint8_t codes[LAYERS * EXPERTS * 2][FFN * HIDDEN]; /* 8 bits each */
    uint16_t scales[LAYERS * EXPERTS * 2][FFN * HIDDEN / GROUP], biases[FFN * HIDDEN / GROUP];
} book;

typedef enum { OWN, OWN_CODES, MLX, MLX_CODES, FUSED } form;

static const char *const parts[] = {"gate", "up", "down"};

static item *add(book *b, const char *name, sq_dtype dtype, int32_t n_dims, const uint64_t *dims) {
    item *i = &b->items[b->n++];
    snprintf(i->name, sizeof i->name, "%s", name);
    i->t = (sq_ftensor){.name = i->name, .dtype = dtype, .n_dims = n_dims};
    i->t.bytes = sq_dtype_bytes(dtype);
    for (int32_t d = 0; d < n_dims; d++) i->t.dims[d] = dims[d], i->t.bytes *= dims[d];
    return i;
}

static void add_part(item *i, const void *p, size_t bytes) {
    i->part[i->n_parts++] = p;
    i->part_bytes = bytes;
}

static const sq_ftensor *expert(const book *b, int layer, int e, int part) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, e, parts[part]);
    const sq_ftensor *t = sq_st_find(b->st, name);
    assert_non_null(t);
    return t;
}

static void copy_others(book *b) {
    for (size_t i = 0; i < sq_st_count(b->st); i++) {
        const sq_ftensor *t = sq_st_at(b->st, i);
        if (strstr(t->name, ".experts.")) continue;
        add_part(add(b, t->name, t->dtype, t->n_dims, t->dims), t->data, t->bytes);
    }
}

static void stacked(book *b, int layer, int part, const char *name) {
    const sq_ftensor *t = expert(b, layer, 0, part);
    const uint64_t dims[3] = {EXPERTS, t->dims[0], t->dims[1]};
    item *i = add(b, name, t->dtype, 3, dims);
    for (int e = 0; e < EXPERTS; e++) add_part(i, expert(b, layer, e, part)->data, t->bytes);
}

/* gate | up of one expert lie in different tensors: they are joined in b->codes. */
static void fused(book *b, int layer) {
    char name[128];
    const uint64_t dims[3] = {EXPERTS, 2 * FFN, HIDDEN};
    snprintf(name, sizeof name, "model.layers.%d.mlp.experts.gate_up_proj", layer);
    item *i = add(b, name, SQ_DT_BF16, 3, dims);
    for (int e = 0; e < EXPERTS; e++) {
        static uint8_t joined[LAYERS * EXPERTS][4 * FFN * HIDDEN];
        uint8_t *to = joined[layer * EXPERTS + e];
        for (int p = 0; p < 2; p++)
            memcpy(to + p * 2 * FFN * HIDDEN, expert(b, layer, e, p)->data, 2 * FFN * HIDDEN);
        add_part(i, to, 4 * FFN * HIDDEN);
    }
}

static void codes(book *b, int layer, int part, bool stack) {
    static const char *const suffix[] = {"weight", "scales", "biases"};
    for (int s = 0; s < 3; s++) {
        const uint64_t cols = s == 0 ? HIDDEN / 4 : HIDDEN / GROUP;
        const sq_dtype type = s == 0 ? SQ_DT_U32 : SQ_DT_BF16;
        item *i = NULL;
        for (int e = 0; e < EXPERTS; e++) {
            const int at = (layer * EXPERTS + e) * 2 + part;
            char name[128];
            snprintf(name, sizeof name, "model.layers.%d.mlp.switch_mlp.%s_proj.%s", layer, parts[part],
                     suffix[s]);
            if (!stack)
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s_proj.%s", layer, e,
                         parts[part], suffix[s]);
            const uint64_t dims[3] = {EXPERTS, FFN, cols};
            if (!stack || e == 0) i = add(b, name, type, stack ? 3 : 2, stack ? dims : dims + 1);
            add_part(i,
                     s == 0   ? (const void *)b->codes[at]
                     : s == 1 ? (const void *)b->scales[at]
                              : b->biases,
                     i->t.bytes / (stack ? EXPERTS : 1));
        }
    }
}

static void fill_codes(book *b) {
    uint32_t x = 1;
    for (size_t i = 0; i < SQ_COUNT(b->codes); i++) {
        for (size_t k = 0; k < sizeof b->codes[0]; k++)
            b->codes[i][k] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
        for (size_t k = 0; k < SQ_COUNT(b->scales[0]); k++) b->scales[i][k] = (uint16_t)(0x3A00 + i);
    }
    for (size_t k = 0; k < SQ_COUNT(b->biases); k++) b->biases[k] = 0xBD80; /* about the middle */
}

static void describe(book *b, form f) {
    copy_others(b);
    fill_codes(b);
    for (int l = 0; l < LAYERS; l++) {
        if (f == FUSED) fused(b, l);
        for (int p = f == FUSED ? 2 : 0; p < 3; p++) {
            char name[128];
            const bool coded = p < 2 && (f == OWN_CODES || f == MLX_CODES);
            snprintf(name, sizeof name, "model.layers.%d.mlp.switch_mlp.%s_proj.weight", l, parts[p]);
            if (f == FUSED) snprintf(name, sizeof name, "model.layers.%d.mlp.experts.down_proj", l);
            if (coded)
                codes(b, l, p, f == MLX_CODES);
            else if (f != OWN && f != OWN_CODES)
                stacked(b, l, p, name);
            else
                for (int e = 0; e < EXPERTS; e++) {
                    const sq_ftensor *t = expert(b, l, e, p);
                    add_part(add(b, t->name, t->dtype, 2, t->dims), t->data, t->bytes);
                }
        }
    }
}

static void write_items(const book *b, const char *path) {
    const squish_alloc a = sq_alloc_default();
    sq_st_writer *w;
    squish_error err = {0};
    uint64_t bytes;
    assert_ok(sq_st_writer_new(&w, path, &a, &err), &err);
    for (size_t i = 0; i < b->n; i++) {
        size_t index;
        assert_ok(sq_st_writer_tensor(w, &b->items[i].t, &index, &err), &err);
    }
    assert_ok(sq_st_writer_layout(w, &bytes, &err), &err);
    for (size_t i = 0; i < b->n; i++)
        for (size_t p = 0; p < b->items[i].n_parts; p++)
            assert_ok(sq_st_writer_put(w, i, p * b->items[i].part_bytes, b->items[i].part[p],
                                       b->items[i].part_bytes, &err),
                      &err);
    assert_ok(sq_st_writer_finish(w, &err), &err);
    sq_st_writer_free(w);
}

static void write_config(const char *dir, bool quantised) {
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", source);
    json_t *o = json_load_file(path, 0, NULL);
    if (quantised)
        json_object_set_new(o, "quantization", json_pack("{s:i, s:i}", "bits", 8, "group_size", GROUP));
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(json_dump_file(o, path, 0), 0);
    json_decref(o);
}

static book *book_new(void) {
    const squish_alloc a = sq_alloc_default();
    char path[128];
    squish_error err = {0};
    book *b = calloc(1, sizeof *b);
    snprintf(path, sizeof path, "%s/model.safetensors", source);
    assert_ok(sq_st_open(&b->st, path, &a, NULL, NULL, &err), &err);
    return b;
}

static void book_free(book *b) {
    sq_st_close(b->st);
    free(b);
}

static void temporary(char *dir, size_t n) {
    snprintf(dir, n, "/tmp/squish-experts-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

/* Logits after a prompt, [VOCAB]; warned: what the opening had to say. */
static void warned(void *user, const char *line) { snprintf(user, 200, "%s", line); }

static void logits_of(const char *path, float *out, char *warning) {
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_error err = {0};
    int32_t ids[60];
    squish_model_options o = squish_model_options_default();
    o.warn = warned;
    o.warn_user = warning;
    warning[0] = 0;
    for (int i = 0; i < 60; i++) ids[i] = i * 37 % VOCAB;
    assert_ok(squish_model_open(&m, path, &o, &err), &err);
    assert_ok(squish_engine_new(&e, m, NULL, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    assert_ok(squish_seq_sync(s, ids, 60, &err), &err);
    memcpy(out, squish_seq_logits(s), VOCAB * sizeof *out);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
}

static void logits_of_form(form f, float *out) {
    char dir[64], path[128], warning[200];
    book *b = book_new();
    temporary(dir, sizeof dir);
    describe(b, f);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_items(b, path);
    write_config(dir, f == OWN_CODES || f == MLX_CODES);
    logits_of(dir, out, warning);
    assert_string_equal(warning, "");
    remove_tree(dir);
    book_free(b);
}

static void experts_in_one_tensor_are_the_same_experts(void **state) {
    (void)state;
    float own[VOCAB], other[VOCAB];
    logits_of_form(OWN, own);
    logits_of_form(MLX, other);
    assert_memory_equal(own, other, sizeof own);
    logits_of_form(FUSED, other);
    assert_memory_equal(own, other, sizeof own);
}

static void quantised_experts_in_one_tensor_are_the_same_experts(void **state) {
    (void)state;
    float own[VOCAB], other[VOCAB], plain[VOCAB];
    logits_of_form(OWN, plain);
    logits_of_form(OWN_CODES, own);
    logits_of_form(MLX_CODES, other);
    assert_memory_equal(own, other, sizeof own);
    assert_memory_not_equal(own, plain, sizeof own);
}

/* ---- GGUF ------------------------------------------------------------------------------------ */

static void gguf_name(const char *name, char *out, size_t n) {
    static const char *const map[][2] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                         {"model.norm.weight", "output_norm.weight"},
                                         {"lm_head.weight", "output.weight"}};
    static const char *const in_layer[][2] = {{"input_layernorm", "attn_norm"},
                                              {"self_attn.q_proj", "attn_q"},
                                              {"self_attn.k_proj", "attn_k"},
                                              {"self_attn.v_proj", "attn_v"},
                                              {"self_attn.o_proj", "attn_output"},
                                              {"post_attention_layernorm", "ffn_norm"},
                                              {"mlp.gate", "ffn_gate_inp"},
                                              {"mlp.shared_expert_gate", "ffn_gate_inp_shexp"},
                                              {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"},
                                              {"mlp.shared_expert.up_proj", "ffn_up_shexp"},
                                              {"mlp.shared_expert.down_proj", "ffn_down_shexp"},
                                              {"mlp.switch_mlp.gate_proj", "ffn_gate_exps"},
                                              {"mlp.switch_mlp.up_proj", "ffn_up_exps"},
                                              {"mlp.switch_mlp.down_proj", "ffn_down_exps"}};
    for (size_t i = 0; i < SQ_COUNT(map); i++)
        if (strcmp(name, map[i][0]) == 0) {
            snprintf(out, n, "%s", map[i][1]);
            return;
        }
    int layer, at = 0;
    assert_int_equal(sscanf(name, "model.layers.%d.%n", &layer, &at), 1);
    for (size_t i = 0; i < SQ_COUNT(in_layer); i++) {
        const size_t k = strlen(in_layer[i][0]);
        if (strncmp(name + at, in_layer[i][0], k) != 0 || (name[at + (int)k] != '.')) continue;
        if (strcmp(name + at + k, ".weight") != 0 && strcmp(name + at + k, ".bias") != 0) continue;
        snprintf(out, n, "blk.%d.%s%s", layer, in_layer[i][1], name + at + k);
        return;
    }
    fail_msg("%s has no name there", name);
}

static void write_gguf(book *b, const char *path, bool with_count) {
    const squish_alloc a = sq_alloc_default();
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"block_count", LAYERS},
                   {"context_length", 512},
                   {"embedding_length", HIDDEN},
                   {"feed_forward_length", 128},
                   {"attention.head_count", 4},
                   {"attention.head_count_kv", 2},
                   {"expert_used_count", 2},
                   {"expert_feed_forward_length", FFN},
                   {"expert_shared_feed_forward_length", 96}};
    sq_gguf_writer *w;
    squish_error err = {0};
    uint64_t bytes;
    char name[96];
    assert_ok(sq_gguf_writer_new(&w, path, &a, &err), &err);
    assert_ok(sq_gguf_writer_str(w, "general.architecture", (sq_span){(const uint8_t *)"qwen2moe", 8}, &err),
              &err);
    for (size_t i = 0; i < SQ_COUNT(numbers); i++) {
        snprintf(name, sizeof name, "qwen2moe.%s", numbers[i].key);
        assert_ok(sq_gguf_writer_u32(w, name, numbers[i].v, &err), &err);
    }
    if (with_count) assert_ok(sq_gguf_writer_u32(w, "qwen2moe.expert_count", EXPERTS, &err), &err);
    assert_ok(sq_gguf_writer_f32(w, "qwen2moe.rope.freq_base", 1e6f, &err), &err);
    assert_ok(sq_gguf_writer_f32(w, "qwen2moe.attention.layer_norm_rms_epsilon", 1e-6f, &err), &err);
    for (size_t i = 0; i < b->n; i++) {
        size_t index;
        gguf_name(b->items[i].name, name, sizeof name);
        sq_ftensor t = b->items[i].t;
        if (strstr(name, "inp_shexp")) t.n_dims = 1, t.dims[0] = HIDDEN; /* as files in the wild have it */
        t.name = name;
        assert_ok(sq_gguf_writer_tensor(w, &t, &index, &err), &err);
    }
    assert_ok(sq_gguf_writer_layout(w, &bytes, &err), &err);
    for (size_t i = 0; i < b->n; i++)
        for (size_t p = 0; p < b->items[i].n_parts; p++)
            assert_ok(sq_gguf_writer_put(w, i, p * b->items[i].part_bytes, b->items[i].part[p],
                                         b->items[i].part_bytes, &err),
                      &err);
    assert_ok(sq_gguf_writer_finish(w, &err), &err);
    sq_gguf_writer_free(w);
}

static void a_gguf_file_of_experts_gives_the_same_bits(void **state) {
    (void)state;
    char dir[64], path[128], warning[200];
    float own[VOCAB], other[VOCAB];
    book *b = book_new();
    temporary(dir, sizeof dir);
    describe(b, MLX);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    write_gguf(b, path, true);
    logits_of(path, other, warning);
    logits_of_form(OWN, own);
    assert_memory_equal(own, other, sizeof own);
    remove_tree(dir);
    book_free(b);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void refused(const char *path, squish_status want, const char *text) {
    squish_model *m = NULL;
    squish_error err = {0};
    assert_int_equal(squish_model_open(&m, path, NULL, &err), want);
    assert_non_null(strstr(err.text, text));
}

static void a_wrong_number_of_experts_is_named(void **state) {
    (void)state;
    char dir[64], path[128];
    book *b = book_new();
    temporary(dir, sizeof dir);
    describe(b, MLX);
    for (size_t i = 0; i < b->n; i++)
        if (strstr(b->items[i].name, "layers.1.mlp.switch_mlp.up_proj")) {
            b->items[i].t.dims[0]--;
            b->items[i].t.bytes -= b->items[i].part_bytes;
            b->items[i].n_parts--;
        }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    write_items(b, path);
    write_config(dir, false);
    refused(dir, SQUISH_CORRUPT, "model.layers.1.mlp.switch_mlp.up_proj.weight' has 3 dims, the first 7");
    remove_tree(dir);
    temporary(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    write_gguf(b, path, false);
    refused(path, SQUISH_CORRUPT, "qwen2moe.expert_count' is missing");
    remove_tree(dir);
    book_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_in_one_tensor_are_the_same_experts),
        cmocka_unit_test(quantised_experts_in_one_tensor_are_the_same_experts),
        cmocka_unit_test(a_gguf_file_of_experts_gives_the_same_bits),
        cmocka_unit_test(a_wrong_number_of_experts_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
