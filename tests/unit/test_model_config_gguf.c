/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_config_gguf.c - the keys of a GGUF file to sq_config, and config.json text made from a config.
 */
#include "model/model.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

/* A GGUF v3 file in memory: keys first, then tensor infos whose data all lie at 0. */
typedef struct {
    uint8_t bytes[1 << 14];
    size_t n;
    uint64_t n_kv, n_tensors, data;
} file;

static void put(file *f, const void *p, size_t n) {
    assert_true(f->n + n <= sizeof f->bytes);
    memcpy(f->bytes + f->n, p, n);
    f->n += n;
}
static void put_u32(file *f, uint32_t v) { put(f, &v, sizeof v); }
static void put_u64(file *f, uint64_t v) { put(f, &v, sizeof v); }
static void put_text(file *f, const char *s) {
    put_u64(f, strlen(s));
    put(f, s, strlen(s));
}

static void key_u32(file *f, const char *key, uint32_t v) {
    put_text(f, key);
    put_u32(f, SQ_GGUF_U32);
    put_u32(f, v);
    f->n_kv++;
}
static void key_f32(file *f, const char *key, float v) {
    put_text(f, key);
    put_u32(f, SQ_GGUF_F32);
    put(f, &v, sizeof v);
    f->n_kv++;
}
static void key_str(file *f, const char *key, const char *v) {
    put_text(f, key);
    put_u32(f, SQ_GGUF_STRING);
    put_text(f, v);
    f->n_kv++;
}

static void begin(file *f) {
    *f = (file){0};
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put_u64(f, 0);
    put_u64(f, 0);
}

/* The least a file of architecture `arch` says. */
static void begin_model(file *f, const char *arch) {
    static const struct {
        const char *name;
        uint32_t v;
    } sizes[] = {{"block_count", 2},          {"embedding_length", 64},       {"feed_forward_length", 96},
                 {"attention.head_count", 4}, {"attention.head_count_kv", 2}, {"context_length", 512}};
    char key[80];
    begin(f);
    key_str(f, "general.architecture", arch);
    for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].name);
        key_u32(f, key, sizes[i].v);
    }
}

/* An F32 tensor [rows][cols]; cols 0: a vector. */
static void tensor(file *f, const char *name, uint64_t rows, uint64_t cols) {
    put_text(f, name);
    put_u32(f, cols ? 2 : 1);
    if (cols) put_u64(f, cols);
    put_u64(f, rows);
    put_u32(f, 0);
    put_u64(f, f->data);
    f->data += (rows * (cols ? cols : 1) * 4 + 31) / 32 * 32;
    f->n_tensors++;
}

static sq_gguf *parse(file *f, squish_error *err) {
    static uint8_t whole[1 << 16];
    *err = (squish_error){0};
    memcpy(f->bytes + 8, &f->n_tensors, 8);
    memcpy(f->bytes + 16, &f->n_kv, 8);
    const size_t base = (f->n + 31) / 32 * 32;
    assert_true(base + f->data <= sizeof whole);
    memset(whole, 0, sizeof whole);
    memcpy(whole, f->bytes, f->n);
    sq_gguf *g = NULL;
    assert_ok(sq_gguf_parse(&g, (sq_span){whole, base + f->data}, "test.gguf", NULL, err), err);
    return g;
}

static squish_status read_file(file *f, sq_config *c, squish_error *err) {
    sq_gguf *g = parse(f, err);
    const squish_status st = sq_config_from_gguf(g, c, err);
    sq_gguf_close(g);
    return st;
}

static sq_config assert_read(file *f) {
    sq_config c;
    squish_error err;
    if (read_file(f, &c, &err) != SQUISH_OK) fail_msg("%s", err.text);
    return c;
}

static void assert_refused(file *f, squish_status want, const char *words) {
    sq_config c;
    squish_error err;
    const squish_status st = read_file(f, &c, &err);
    if (st != want || !strstr(err.text, words))
        fail_msg("gave %s: %s\n  wanted %s with: %s", squish_status_name(st), err.text,
                 squish_status_name(want), words);
}

/* ---- what is understood ---------------------------------------------------------------------- */

static void sizes_come_from_keys_and_the_vocabulary_from_the_embedding(void **state) {
    (void)state;
    file f;
    begin_model(&f, "qwen2");
    key_f32(&f, "qwen2.rope.freq_base", 100000.0f);
    key_f32(&f, "qwen2.attention.layer_norm_rms_epsilon", 1e-5f);
    tensor(&f, "token_embd.weight", 40, 64);
    const sq_config c = assert_read(&f);
    assert_string_equal(c.arch, "qwen2");
    assert_int_equal(c.n_layers, 2);
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.ffn, 96);
    assert_int_equal(c.n_heads, 4);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.ctx, 512);
    assert_int_equal(c.n_vocab, 40);
    assert_true(c.rope[0].theta == 100000.0 && c.norm_eps == 1e-5f && c.softmax_scale == 0.25f);
}

static void tensors_of_the_first_layer_say_which_parts_there_are(void **state) {
    (void)state;
    file f;
    begin_model(&f, "qwen3");
    tensor(&f, "token_embd.weight", 40, 64);
    sq_config c = assert_read(&f);
    assert_int_equal(c.tied + 2 * c.qkv_bias + 4 * c.qk_norm + 8 * c.o_bias + 16 * c.rope_factors, 1);
    tensor(&f, "output.weight", 40, 64);
    tensor(&f, "blk.0.attn_q.bias", 64, 0);
    tensor(&f, "blk.0.attn_q_norm.weight", 16, 0);
    tensor(&f, "rope_freqs.weight", 8, 0);
    c = assert_read(&f);
    assert_int_equal(c.tied + 2 * c.qkv_bias + 4 * c.qk_norm + 8 * c.o_bias + 16 * c.rope_factors,
                     2 + 4 + 16);
    sq_want w;
    assert_true(sq_config_want(&c, 0, &w));
    assert_int_equal(w.role, SQ_ROLE_ROPE_FACTORS);
    assert_int_equal(w.rows, 8);
    assert_string_equal(w.gguf_name, "rope_freqs.weight");
    assert_true(sq_config_want(&c, 3, &w));
    assert_string_equal(w.gguf_name, "blk.0.attn_q.weight");
}

static void only_the_llama_family_turns_neighbouring_pairs(void **state) {
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    for (size_t i = 0; i < SQ_COUNT(archs); i++) {
        file f;
        begin_model(&f, archs[i]);
        tensor(&f, "token_embd.weight", 40, 64);
        assert_int_equal(assert_read(&f).rope_pairs, i == 0);
    }
}

static void rope_scaling_is_read(void **state) {
    (void)state;
    file f;
    begin_model(&f, "qwen2");
    key_str(&f, "qwen2.rope.scaling.type", "yarn");
    key_f32(&f, "qwen2.rope.scaling.factor", 4.0f);
    key_u32(&f, "qwen2.rope.scaling.original_context_length", 128);
    tensor(&f, "token_embd.weight", 40, 64);
    const sq_config c = assert_read(&f);
    assert_int_equal(c.rope[0].type, SQ_ROPE_YARN);
    assert_true(c.rope[0].factor == 4.0 && c.rope[0].original_ctx == 128.0);
    begin_model(&f, "llama");
    key_f32(&f, "llama.rope.scale_linear", 2.0f);
    tensor(&f, "token_embd.weight", 40, 64);
    const sq_config d = assert_read(&f);
    assert_int_equal(d.rope[0].type, SQ_ROPE_LINEAR);
    assert_true(d.rope[0].factor == 2.0);
}

static void pooling_is_a_word_in_config_json(void **state) {
    (void)state;
    static const char *const words[] = {NULL, "\"pooling\": \"mean\"", "\"pooling\": \"first\"",
                                        "\"pooling\": \"last\"", NULL};
    const squish_alloc heap = sq_alloc_default();
    for (uint32_t i = 0; i <= SQ_COUNT(words); i++) {
        file f;
        sq_config c;
        squish_error err;
        squish_text text;
        const char *pooling;
        begin_model(&f, "qwen2");
        key_u32(&f, "qwen2.pooling_type", i);
        tensor(&f, "token_embd.weight", 40, 64);
        sq_gguf *g = parse(&f, &err);
        const squish_status st = sq_config_gguf_pooling(g, &pooling, &err);
        assert_int_equal(st, i < SQ_COUNT(words) ? SQUISH_OK : SQUISH_CORRUPT);
        if (st == SQUISH_OK) {
            assert_ok(sq_config_from_gguf(g, &c, &err), &err);
            assert_ok(sq_config_to_json(&c, pooling, &heap, &text, &err), &err);
            assert_true(words[i] ? strstr(text.data, words[i]) != NULL : !strstr(text.data, "pooling"));
            sq_alloc_free(&heap, text.data, text.bytes + 1);
        }
        sq_gguf_close(g);
    }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void other_architectures_are_refused_by_name(void **state) {
    (void)state;
    file f;
    begin_model(&f, "falcon");
    assert_refused(&f, SQUISH_UNSUPPORTED, "architecture 'falcon'");
    begin(&f);
    assert_refused(&f, SQUISH_CORRUPT, "general.architecture");
}

static void missing_and_absurd_keys_are_named(void **state) {
    (void)state;
    file f;
    begin(&f);
    key_str(&f, "general.architecture", "qwen2");
    assert_refused(&f, SQUISH_CORRUPT, "qwen2.block_count' is missing");
    key_u32(&f, "qwen2.block_count", 1000000);
    assert_refused(&f, SQUISH_CORRUPT, "qwen2.block_count' is 1000000");
    begin_model(&f, "qwen2");
    assert_refused(&f, SQUISH_CORRUPT, "token_embd.weight");
    key_u32(&f, "qwen2.rope.dimension_count", 8);
    assert_refused(&f, SQUISH_UNSUPPORTED, "8 of them rotated");
    begin_model(&f, "llama");
    key_u32(&f, "llama.expert_count", 8);
    assert_refused(&f, SQUISH_UNSUPPORTED, "8 experts in architecture '");
    begin_model(&f, "llama");
    key_str(&f, "llama.rope.scaling.type", "longrope");
    tensor(&f, "token_embd.weight", 40, 64);
    assert_refused(&f, SQUISH_UNSUPPORTED, "llama.rope.scaling.type");
}

/* ---- and back to text ------------------------------------------------------------------------ */

static void config_json_made_from_a_config_reads_back_the_same(void **state) {
    (void)state;
    static const char *const texts[] = {
        "\"model_type\":\"qwen2\",\"tie_word_embeddings\":true,\"rope_theta\":100000.0",
        "\"model_type\":\"qwen3\",\"head_dim\":32,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2.5,"
        "\"original_max_position_embeddings\":128}",
        "\"model_type\":\"llama\",\"attention_bias\":true,\"mlp_bias\":true,\"rope_scaling\":{\"rope_type\":"
        "\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        "\"original_max_position_embeddings\":128}",
        "\"model_type\":\"mistral\",\"sliding_window\":64",
        "\"model_type\":\"mistral\",\"sliding_window\":null",
        "\"model_type\":\"phi3\"",
        "\"model_type\":\"gemma3_text\",\"sliding_window\":32,\"query_pre_attn_scalar\":168",
        "\"model_type\":\"bitnet\",\"tie_word_embeddings\":true"};
    for (size_t i = 0; i < SQ_COUNT(texts); i++) {
        char json[1024];
        sq_config a, b;
        squish_error err = {0};
        squish_text text;
        snprintf(json, sizeof json,
                 "{%s,\"num_hidden_layers\":7,\"hidden_size\":64,\"intermediate_size\":128,"
                 "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":512,"
                 "\"max_position_embeddings\":2048}",
                 texts[i]);
        const squish_alloc heap = sq_alloc_default();
        assert_ok(sq_config_from_json(json, strlen(json), &a, &err), &err);
        assert_ok(sq_config_to_json(&a, NULL, &heap, &text, &err), &err);
        assert_ok(sq_config_from_json(text.data, text.bytes, &b, &err), &err);
        if (memcmp(&a, &b, sizeof a) != 0) fail_msg("%s\n  became %s", json, text.data);
        sq_alloc_free(&heap, text.data, text.bytes + 1);
    }
}

static void bitnet_has_norms_inside_its_blocks_in_the_order_of_execution(void **state) {
    (void)state;
    static const char json[] = "{\"model_type\":\"bitnet\",\"num_hidden_layers\":1,\"hidden_size\":64,"
                               "\"intermediate_size\":128,\"num_attention_heads\":4,\"vocab_size\":512,"
                               "\"max_position_embeddings\":2048}";
    sq_config c;
    squish_error err = {0};
    assert_ok(sq_config_from_json(json, sizeof json - 1, &c, &err), &err);
    assert_int_equal(c.activation, SQ_ACT_RELU2);
    assert_true(c.ternary && c.sub_norms && c.rope[0].theta == 500000.0);
    sq_want w;
    int32_t last = -1, seen = 0;
    for (size_t i = 0; sq_config_want(&c, i, &w); i++) {
        if (w.role == SQ_ROLE_O) assert_int_equal(last, SQ_ROLE_ATTN_SUB_NORM);
        if (w.role == SQ_ROLE_DOWN) assert_int_equal(last, SQ_ROLE_FFN_SUB_NORM);
        seen += w.role == SQ_ROLE_O || w.role == SQ_ROLE_DOWN;
        if (w.role == SQ_ROLE_FFN_SUB_NORM) assert_int_equal(w.rows, 128);
        last = (int32_t)w.role;
    }
    assert_int_equal(seen, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_come_from_keys_and_the_vocabulary_from_the_embedding),
        cmocka_unit_test(tensors_of_the_first_layer_say_which_parts_there_are),
        cmocka_unit_test(only_the_llama_family_turns_neighbouring_pairs),
        cmocka_unit_test(rope_scaling_is_read),
        cmocka_unit_test(pooling_is_a_word_in_config_json),
        cmocka_unit_test(other_architectures_are_refused_by_name),
        cmocka_unit_test(missing_and_absurd_keys_are_named),
        cmocka_unit_test(config_json_made_from_a_config_reads_back_the_same),
        cmocka_unit_test(bitnet_has_norms_inside_its_blocks_in_the_order_of_execution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
