/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_config.c - config.json to sq_config: both spellings, every family, and what is refused with
 * which words. */
#include "model/model.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

static const char base[] =
    "{\"model_type\":\"llama\",\"num_hidden_layers\":4,\"hidden_size\":64,\"intermediate_size\":128,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":512,\"max_position_embeddings\":"
    "2048}";

static squish_status read_text(const char *json, sq_config *c, squish_error *err) {
    *err = (squish_error){0};
    return sq_config_from_json(json, strlen(json), c, err);
}

/* The base with the keys of `patch` (an object as text) put over it; a key whose value is "-" is taken away.
 */
static squish_status read_patched(const char *patch, sq_config *c, squish_error *err) {
    json_t *o = json_loads(base, 0, NULL), *p = json_loads(patch, 0, NULL), *v;
    const char *key;
    assert_non_null(p);
    json_object_foreach(p, key, v) {
        if (json_is_string(v) && strcmp(json_string_value(v), "-") == 0)
            json_object_del(o, key);
        else
            json_object_set(o, key, v);
    }
    char *text = json_dumps(o, 0);
    const squish_status st = read_text(text, c, err);
    free(text);
    json_decref(o);
    json_decref(p);
    return st;
}

static void assert_refused(const char *patch, squish_status want, const char *words) {
    sq_config c;
    squish_error err;
    const squish_status st = read_patched(patch, &c, &err);
    if (st != want || !strstr(err.text, words))
        fail_msg("%s\n  gave   %s: %s\n  wanted %s with: %s", patch, squish_status_name(st), err.text,
                 squish_status_name(want), words);
}

static sq_config assert_read(const char *patch) {
    sq_config c;
    squish_error err;
    if (read_patched(patch, &c, &err) != SQUISH_OK) fail_msg("%s: %s", patch, err.text);
    return c;
}

/* ---- what is understood ---------------------------------------------------------------------- */

static void both_spellings_of_rope_give_the_same_config(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"{\"rope_theta\":500000.0}",
         "{\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"default\"}}"},
        {"{\"rope_theta\":10000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}",
         "{\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4.0,\"rope_theta\":10000.0}}"},
        {"{\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_"
         "factor\":1.0,"
         "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":1024}}",
         "{\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
         "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":1024,\"rope_theta\":500000}}"},
        {"{\"rope_theta\":1000000.0,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
         "\"original_max_position_embeddings\":512},\"torch_dtype\":\"bfloat16\"}",
         "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":"
         "512,"
         "\"rope_theta\":1000000.0},\"dtype\":\"bfloat16\"}"}};
    for (size_t i = 0; i < SQ_COUNT(pairs); i++) {
        const sq_config a = assert_read(pairs[i][0]), b = assert_read(pairs[i][1]);
        assert_memory_equal(&a, &b, sizeof a);
        assert_int_equal(a.rope[0].type, i);
    }
}

static void rope_parameters_win_where_both_stand(void **state) {
    (void)state;
    const sq_config c =
        assert_read("{\"rope_theta\":5.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0},"
                    "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7.0}}");
    assert_int_equal(c.rope[0].type, SQ_ROPE_DEFAULT);
    assert_true(c.rope[0].theta == 7.0);
}

static void gemma_reads_two_ropes_in_both_spellings(void **state) {
    (void)state;
    const sq_config a =
        assert_read("{\"model_type\":\"gemma3_text\",\"rope_theta\":1000000.0,"
                    "\"rope_local_base_freq\":10000.0,\"sliding_window\":32,\"sliding_window_pattern\":2}");
    const sq_config b = assert_read(
        "{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\","
        "\"rope_theta\":1000000.0},\"sliding_attention\":{\"rope_theta\":10000.0,\"rope_type\":\"default\"}},"
        "\"sliding_window\":32,\"layer_types\":[\"sliding_attention\",\"full_attention\",\"sliding_"
        "attention\","
        "\"full_attention\"]}");
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(a.n_rope, 2);
    assert_true(a.rope[0].theta == 1e6 && a.rope[1].theta == 1e4);
    assert_int_equal(a.layer_flags[0], SQ_LAYER_WINDOWED | SQ_LAYER_ROPE1);
    assert_int_equal(a.layer_flags[1], 0);
    assert_true(a.softmax_scale == 1.0f / 16.0f); /* query_pre_attn_scalar is 256 where nothing is said */
    assert_true(a.embed_scale == 8.0f && a.norm_plus_one && a.post_norms && a.qk_norm && a.tied);
    assert_int_equal(a.activation, SQ_ACT_GELU_TANH);
}

static void each_family_brings_what_it_does_not_say(void **state) {
    (void)state;
    static const struct {
        const char *type;
        int32_t qkv_bias, o_bias, qk_norm, fused, gemma, tied;
    } families[] = {{"llama", 0, 0, 0, 0, 0, 0}, {"mistral", 0, 0, 0, 0, 0, 0},
                    {"qwen2", 1, 0, 0, 0, 0, 0}, {"qwen3", 0, 0, 1, 0, 0, 0},
                    {"phi3", 0, 0, 0, 1, 0, 0},  {"gemma3_text", 0, 0, 1, 0, 1, 1}};
    for (size_t i = 0; i < SQ_COUNT(families); i++) {
        char patch[64];
        snprintf(patch, sizeof patch, "{\"model_type\":\"%s\"}", families[i].type);
        const sq_config c = assert_read(patch);
        assert_string_equal(c.arch, families[i].type);
        assert_int_equal(c.qkv_bias, families[i].qkv_bias);
        assert_int_equal(c.o_bias, families[i].o_bias);
        assert_int_equal(c.qk_norm, families[i].qk_norm);
        assert_int_equal(c.fused, families[i].fused);
        assert_int_equal(c.post_norms, families[i].gemma);
        assert_int_equal(c.norm_plus_one, families[i].gemma);
        assert_int_equal(c.tied, families[i].tied);
        assert_int_equal(c.head_dim, 16);
    }
    const sq_config llama =
        assert_read("{\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true}");
    assert_true(llama.qkv_bias && llama.o_bias && llama.mlp_bias && llama.tied);
}

static void windows_follow_the_family(void **state) {
    (void)state;
    sq_config c = assert_read("{\"model_type\":\"mistral\",\"sliding_window\":100}");
    assert_int_equal(c.window, 100);
    for (int i = 0; i < 4; i++) assert_int_equal(c.layer_flags[i], SQ_LAYER_WINDOWED);
    c = assert_read("{\"model_type\":\"mistral\",\"sliding_window\":null}");
    assert_int_equal(c.window, 0);
    assert_int_equal(c.layer_flags[0], 0);
    c = assert_read("{\"model_type\":\"mistral\",\"sliding_window\":100,\"max_window_layers\":3}");
    assert_int_equal(c.layer_flags[0], SQ_LAYER_WINDOWED); /* a key of Qwen's only */
    c = assert_read("{\"model_type\":\"mistral\"}");
    assert_int_equal(c.window, 4096);
    c = assert_read("{\"model_type\":\"qwen2\",\"sliding_window\":100}");
    assert_int_equal(c.window, 0);
    c = assert_read("{\"model_type\":\"qwen2\",\"sliding_window\":100,\"use_sliding_window\":true,\"max_"
                    "window_layers\":3}");
    assert_int_equal(c.layer_flags[2], 0);
    assert_int_equal(c.layer_flags[3], SQ_LAYER_WINDOWED);
    c = assert_read("{\"model_type\":\"qwen2\",\"sliding_window\":100,\"use_sliding_window\":true}");
    assert_int_equal(c.layer_flags[3], 0); /* the first 28 layers see everything */
    c = assert_read(
        "{\"model_type\":\"qwen3\",\"sliding_window\":100,\"use_sliding_window\":true,\"layer_types\":["
        "\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]}");
    assert_int_equal(c.layer_flags[1], SQ_LAYER_WINDOWED);
    assert_int_equal(c.layer_flags[3], 0);
    c = assert_read("{\"sliding_window\":100}"); /* llama has none */
    assert_int_equal(c.window, 0);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void every_size_is_refused_by_name_with_its_value(void **state) {
    (void)state;
    static const char *const keys[] = {"num_hidden_layers",   "hidden_size", "intermediate_size",
                                       "num_attention_heads", "vocab_size",  "max_position_embeddings",
                                       "num_key_value_heads", "head_dim"};
    static const char *const values[] = {"-1",   "0",  "1.5",   "99999999999", "\"64\"",
                                         "true", "[]", "1e300", "{}",          "-9223372036854775807"};
    for (size_t i = 0; i < SQ_COUNT(keys); i++) {
        for (size_t j = 0; j < SQ_COUNT(values); j++) {
            char patch[96], words[96];
            snprintf(patch, sizeof patch, "{\"%s\":%s}", keys[i], values[j]);
            snprintf(words, sizeof words, "'%s' is ", keys[i]);
            assert_refused(patch, SQUISH_CORRUPT, words);
        }
        if (i < 6) {
            char patch[96], words[96];
            snprintf(patch, sizeof patch, "{\"%s\":\"-\"}", keys[i]);
            snprintf(words, sizeof words, "'%s' is missing", keys[i]);
            assert_refused(patch, SQUISH_CORRUPT, words);
        }
    }
    assert_refused("{\"vocab_size\":-7}", SQUISH_CORRUPT,
                   "config.json: 'vocab_size' is -7, wanted an integer in [1, ");
    assert_refused("{\"hidden_size\":\"64\"}", SQUISH_CORRUPT, "'hidden_size' is the string '64'");
}

static void shapes_that_do_not_divide_are_refused(void **state) {
    (void)state;
    assert_refused("{\"num_key_value_heads\":3}", SQUISH_CORRUPT, "4 attention heads over 3 key/value heads");
    assert_refused("{\"num_key_value_heads\":8}", SQUISH_CORRUPT, "num_key_value_heads is 8, wanted 1 to 4");
    assert_refused("{\"head_dim\":17}", SQUISH_CORRUPT, "head_dim 17 is odd");
    assert_refused("{\"hidden_size\":3}", SQUISH_CORRUPT, "head_dim is 0");
    assert_refused("{\"num_attention_heads\":128,\"num_key_value_heads\":1,\"head_dim\":2}", SQUISH_CORRUPT,
                   "128 attention heads over 1");
}

static void unknown_architectures_list_those_that_run(void **state) {
    (void)state;
    assert_refused("{\"model_type\":\"mamba\"}", SQUISH_UNSUPPORTED,
                   "model_type 'mamba' is not one this version runs (qwen2, "
                   "qwen3, llama, mistral, phi3, bitnet, qwen2_moe, qwen3_moe, deepseek_v2, gemma3_text)");
    assert_refused("{\"model_type\":\"-\"}", SQUISH_CORRUPT, "'model_type' is missing");
    assert_refused("{\"model_type\":7}", SQUISH_CORRUPT, "'model_type' is 7, wanted a string");
    assert_refused("{\"model_type\":\"\"}", SQUISH_UNSUPPORTED, "model_type ''");
}

static void rope_that_is_not_understood_is_refused(void **state) {
    (void)state;
    assert_refused("{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}", SQUISH_UNSUPPORTED,
                   "rope type 'longrope' is not one this version runs (default, linear, llama3, yarn)");
    assert_refused("{\"rope_scaling\":\"yarn\"}", SQUISH_CORRUPT, "found the string 'yarn'");
    assert_refused("{\"rope_scaling\":[1]}", SQUISH_CORRUPT, "found an array");
    assert_refused("{\"rope_scaling\":{\"type\":\"linear\"}}", SQUISH_CORRUPT, "'factor' is missing");
    assert_refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", SQUISH_CORRUPT,
                   "'factor' is 0.5");
    assert_refused("{\"rope_scaling\":{\"type\":\"linear\",\"factor\":-4}}", SQUISH_CORRUPT,
                   "'factor' is -4");
    assert_refused("{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}}", SQUISH_CORRUPT,
                   "'low_freq_factor' is missing");
    assert_refused(
        "{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
        "\"original_max_position_embeddings\":512}}",
        SQUISH_CORRUPT, "high_freq_factor 4 is not above low_freq_factor 4");
    assert_refused("{\"rope_theta\":0}", SQUISH_CORRUPT, "'rope_theta' is 0");
    assert_refused("{\"rope_theta\":\"1e4\"}", SQUISH_CORRUPT, "'rope_theta' is the string '1e4'");
    assert_refused("{\"rope_theta\":1e300}", SQUISH_CORRUPT, "'rope_theta' is 1.0");
    assert_refused("{\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}}",
                   SQUISH_UNSUPPORTED, "partial_rotary_factor 0.5");
    assert_refused("{\"model_type\":\"gemma3_text\",\"rope_parameters\":{\"rope_theta\":1e4}}",
                   SQUISH_CORRUPT, "wanted full_attention and sliding_attention");
}

static void layer_types_are_checked_whether_windows_are_used_or_not(void **state) {
    (void)state;
    assert_refused("{\"layer_types\":[\"full_attention\"]}", SQUISH_CORRUPT,
                   "layer_types has 1 entries for 4 layers");
    assert_refused("{\"layer_types\":\"full_attention\"}", SQUISH_CORRUPT, "layer_types is not an array");
    assert_refused(
        "{\"layer_types\":[\"full_attention\",\"linear_attention\",\"full_attention\",\"full_attention\"]}",
        SQUISH_UNSUPPORTED, "layer_types[1] is 'linear_attention'");
    assert_refused("{\"layer_types\":[\"full_attention\",4,\"full_attention\",\"full_attention\"]}",
                   SQUISH_UNSUPPORTED, "layer_types[1] is 'not a string'");
    assert_refused(
        "{\"layer_types\":[\"full_attention\",\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
        SQUISH_CORRUPT, "layer_types[2] is sliding_attention, but sliding_window is not set");
    assert_refused("{\"model_type\":\"mistral\",\"sliding_window\":-1}", SQUISH_CORRUPT,
                   "'sliding_window' is -1");
    assert_refused("{\"model_type\":\"gemma3_text\",\"sliding_window_pattern\":0}", SQUISH_CORRUPT,
                   "'sliding_window_pattern' is 0");
}

static void features_we_do_not_compute_are_refused(void **state) {
    (void)state;
    assert_refused("{\"final_logit_softcapping\":30.0}", SQUISH_UNSUPPORTED,
                   "final_logit_softcapping is set");
    assert_refused("{\"hidden_act\":\"relu\"}", SQUISH_UNSUPPORTED, "hidden_act 'relu'");
    assert_refused("{\"rope_interleaved\":true}", SQUISH_UNSUPPORTED, "rope_interleaved is true");
    assert_refused("{\"rms_norm_eps\":0}", SQUISH_CORRUPT, "'rms_norm_eps' is 0");
    assert_refused("{\"rms_norm_eps\":-1e-6}", SQUISH_CORRUPT, "'rms_norm_eps' is ");
    assert_refused("{\"tie_word_embeddings\":1}", SQUISH_CORRUPT,
                   "'tie_word_embeddings' is 1, wanted true or false");
}

#define MOE(rest)                                                                                            \
    "{\"model_type\":\"qwen3_moe\",\"num_experts\":16,\"num_experts_per_tok\":4,\"moe_intermediate_size\":"  \
    "96" rest "}"

static void experts_are_read_and_checked(void **state) {
    (void)state;
    sq_config c = assert_read(MOE(",\"mlp_only_layers\":[0]"));
    assert_int_equal(c.moe.n, 16);
    assert_int_equal(c.moe.used, 4);
    assert_int_equal(c.moe.ffn, 96);
    assert_int_equal(c.moe.norm_topk, 0);
    assert_int_equal(c.moe.shared_ffn, 0);
    assert_false(sq_config_is_moe(&c, 0));
    assert_true(sq_config_is_moe(&c, 1));
    c = assert_read(MOE(",\"decoder_sparse_step\":2,\"norm_topk_prob\":true"));
    assert_int_equal(c.moe.norm_topk, 1);
    assert_false(sq_config_is_moe(&c, 0));
    assert_true(sq_config_is_moe(&c, 1));
    assert_refused(MOE(",\"num_experts_per_tok\":17"), SQUISH_CORRUPT,
                   "num_experts_per_tok is 17, wanted 1 to 16");
    assert_refused(MOE(",\"num_experts\":5000"), SQUISH_CORRUPT, "'num_experts' is 5000");
    assert_refused(MOE(",\"mlp_only_layers\":[99]"), SQUISH_CORRUPT, "mlp_only_layers[0] is not a layer");
    assert_refused(MOE(",\"mlp_only_layers\":3"), SQUISH_CORRUPT, "mlp_only_layers is not an array");
    assert_refused("{\"model_type\":\"qwen2_moe\",\"num_experts\":4,\"num_experts_per_tok\":2,"
                   "\"moe_intermediate_size\":96}",
                   SQUISH_CORRUPT, "'shared_expert_intermediate_size' is missing");
}

static void texts_that_are_no_config_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *words;
    } bad[] = {{"", "config.json"},
               {"[]", "not an object"},
               {"null", "not an object"},
               {"{", "line 1"},
               {"{\"model_type\":\"llama\",\"model_type\":\"llama\"}", "model_type"},
               {"{\"hidden_size\":NaN}", "line 1"},
               {"{\"hidden_size\":Infinity}", "line 1"},
               {"{\"hidden_size\":1e999}", "config.json"},
               {"{} {}", "config.json"},
               {"{\"a\":\"\xff\"}", "config.json"}};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        sq_config c;
        squish_error err;
        assert_int_equal(read_text(bad[i].json, &c, &err), SQUISH_CORRUPT);
        if (!strstr(err.text, bad[i].words)) fail_msg("%s: %s", bad[i].json, err.text);
    }
}

/* ---- the binary form ------------------------------------------------------------------------- */

/* Whatever passes the check can be listed, sized and turned into frequencies. */
static void use(const sq_config *c) {
    sq_want w;
    uint64_t bytes, total = 0;
    size_t n = 0;
    for (; n < 64 && sq_config_want(c, n, &w); n++) {
        assert_true(w.rows > 0 && w.cols > 0 && w.row0 >= 0 && w.row0 + w.rows <= w.parent_rows);
        assert_true(sq_weight_bytes(SQ_W_F32, w.rows, w.cols, &bytes));
        total += bytes;
    }
    assert_true(total > 0);
    const sq_kv_shape s = sq_model_kv_shape(c);
    assert_true(sq_kv_bytes(&s, &(sq_kv_policy){.open = SQ_KV_F32}, c->ctx) > 0);
    double f[SQ_MAX_HEAD_DIM], factor;
    for (int32_t r = 0; r < c->n_rope; r++) {
        sq_rope_frequencies(&c->rope[r], c->head_dim / 2, f, &factor);
        assert_true(isfinite(factor));
        for (int32_t i = 0; i < c->head_dim / 2; i++) assert_true(isfinite(f[i]));
    }
    assert_true(strlen(c->arch) < sizeof c->arch);
}

static void random_bit_flips_are_refused_or_harmless(void **state) {
    (void)state;
    static const char llama3[] = "{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":"
                                 "1.0,\"high_freq_factor\":4.0,"
                                 "\"original_max_position_embeddings\":1024}}";
    static const char *const patches[] = {"{}", "{\"model_type\":\"gemma3_text\",\"sliding_window\":32}",
                                          "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0}}", llama3};
    uint64_t rng = 5;
    int refused = 0, passed = 0;
    for (int i = 0; i < 20000; i++) {
        sq_config c = assert_read(patches[i % 4]);
        squish_error err = {0};
        for (uint64_t k = 1 + sq_splitmix64(&rng) % 3; k > 0; k--) {
            const uint64_t bit = sq_splitmix64(&rng) % (8 * offsetof(sq_config, layer_flags));
            ((uint8_t *)&c)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        if (sq_config_check(&c, &err) != SQUISH_OK) {
            assert_int_equal(err.code, SQUISH_CORRUPT);
            assert_memory_equal(err.text, "config: ", 8);
            refused++;
            continue;
        }
        use(&c);
        passed++;
    }
    assert_true(refused > 1000 && passed > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_spellings_of_rope_give_the_same_config),
        cmocka_unit_test(rope_parameters_win_where_both_stand),
        cmocka_unit_test(gemma_reads_two_ropes_in_both_spellings),
        cmocka_unit_test(each_family_brings_what_it_does_not_say),
        cmocka_unit_test(windows_follow_the_family),
        cmocka_unit_test(every_size_is_refused_by_name_with_its_value),
        cmocka_unit_test(shapes_that_do_not_divide_are_refused),
        cmocka_unit_test(unknown_architectures_list_those_that_run),
        cmocka_unit_test(rope_that_is_not_understood_is_refused),
        cmocka_unit_test(layer_types_are_checked_whether_windows_are_used_or_not),
        cmocka_unit_test(experts_are_read_and_checked),
        cmocka_unit_test(features_we_do_not_compute_are_refused),
        cmocka_unit_test(texts_that_are_no_config_are_refused),
        cmocka_unit_test(random_bit_flips_are_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
