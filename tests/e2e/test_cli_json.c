/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_json.c - what each command prints with --json: the fields of the contract, one object, nothing
 * else on standard output. */
#include "support/cli_sh.h"

#include <math.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#define JAPAN "'What is the capital of Japan?'"

/* One object with these fields: "name:kind ..." where kind is s, i, r (any number), b, a or o. */
static json_t *with_fields(const cli_result *r, const char *fields) {
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_non_null(o);
    /* one line, one object */
    assert_ptr_equal(strchr(r->out, '\n'), r->out + strlen(r->out) - 1);
    for (const char *p = fields; *p; p += strspn(p, " ")) {
        char name[64];
        const int n = (int)strcspn(p, ":");
        snprintf(name, sizeof name, "%.*s", n, p);
        const json_t *v = json_object_get(o, name);
        const char kind = p[n + 1];
        const bool ok = kind == 's'   ? json_is_string(v)
                        : kind == 'i' ? json_is_integer(v)
                        : kind == 'r' ? json_is_number(v)
                        : kind == 'b' ? json_is_boolean(v)
                        : kind == 'a' ? json_is_array(v)
                                      : json_is_object(v);
        if (!ok) print_error("field '%s' is missing or not of kind %c: %s\n", name, kind, r->out);
        assert_true(ok);
        p += n + 2;
    }
    return o;
}

static const char *text_of(const json_t *o, const char *name) {
    return json_string_value(json_object_get(o, name));
}
static json_int_t int_of(const json_t *o, const char *name) {
    return json_integer_value(json_object_get(o, name));
}
static double num_of(const json_t *o, const char *name) {
    return json_number_value(json_object_get(o, name));
}

static void run_gives_text_ids_reason_counts_and_times(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S run --temp 0 --json " JAPAN),
                            "text:s tokens:a finish_reason:s prompt_tokens:i load_ms:r ttft_ms:r "
                            "decode_tok_s:r prefill_tok_s:r seed:i");
    assert_string_equal(text_of(o, "text"), "The capital of Japan is Tokyo.");
    assert_string_equal(text_of(o, "finish_reason"), "stop");
    assert_int_equal(int_of(o, "prompt_tokens"), 15);
    assert_true(num_of(o, "load_ms") > 0 && num_of(o, "ttft_ms") > 0 && num_of(o, "decode_tok_s") > 0);
    json_decref(o);
}

static void run_reports_length_and_the_seed_it_was_given(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S run -n 2 --seed 7 --json " JAPAN), "tokens:a finish_reason:s seed:i");
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), 2);
    assert_string_equal(text_of(o, "finish_reason"), "length");
    assert_int_equal(int_of(o, "seed"), 7);
    json_decref(o);
}

static void the_seed_that_run_reports_gives_the_answer_again(void **state) {
    (void)state;
    json_t *a = with_fields(sh("$S run --temp 2 -n 30 --json " JAPAN), "text:s seed:i");
    json_t *b = with_fields(
        sh("$S run --temp 2 -n 30 --seed %lld --json " JAPAN, (long long)int_of(a, "seed")), "text:s seed:i");
    assert_string_equal(text_of(a, "text"), text_of(b, "text"));
    json_decref(a);
    json_decref(b);
}

static void compress_gives_file_sizes_speed_and_fidelity(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S compress squish-tiny -o $T/tiers --json"),
                            "tier:s file:s bytes:i bpw:r seconds:r gb_per_s:r peak_anon_mb:r quantised:i "
                            "passthrough:i cos_mean:r "
                            "cos_min:r reused:b");
    assert_string_equal(text_of(o, "tier"), "0");
    assert_true(num_of(o, "bpw") > 4 && num_of(o, "bpw") < 6);
    assert_true(num_of(o, "cos_min") > 0.99);
    assert_int_equal(
        sh("test $(stat -c %%s '%s') = %lld", text_of(o, "file"), (long long)int_of(o, "bytes"))->status, 0);
    assert_false(json_is_true(json_object_get(o, "reused")));
    json_decref(o);
    o = with_fields(sh("$S compress squish-tiny -o $T/tiers --json"), "reused:b");
    assert_true(json_is_true(json_object_get(o, "reused")));
    json_decref(o);
}

/* --bits 3 of a file in 8 bits would else look as if it had been done. */
static void compress_says_that_codes_were_kept(void **state) {
    (void)state;
    static const char kept[] = "keep their codes; --requantise makes new ones";
    const cli_result *r = sh("$S export --tier source --to gguf -o $T/floats.gguf -q && "
                             "$S compress $T/floats.gguf --tier q8 -o $T/eight && "
                             "$S export $T/eight --tier q8 --to gguf -o $T/eight.gguf -q");
    assert_int_equal(r->status, 0);
    assert_null(strstr(r->out, kept));
    r = sh("$S compress $T/eight.gguf --bits 3 --unchecked -o $T/three");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, kept));
    r = sh("$S compress $T/eight.gguf --bits 3 --requantise --unchecked --method rtn -o $T/anew");
    assert_int_equal(r->status, 0);
    assert_null(strstr(r->out, kept));
}

/* A file lies there and runs; its tiers stand beside it, and are run where they are asked for. */
static void a_tier_of_a_gguf_file_is_run_or_refused(void **state) {
    (void)state;
    assert_int_equal(sh("$S export --tier source --to gguf -o $T/lies.gguf -q")->status, 0);
    const cli_result *r = sh("$S run $T/lies.gguf --tier q8 hi");
    assert_int_equal(r->status, 3);
    assert_non_null(strstr(r->err, "tier q8 is not built (build it with: squish compress"));
    assert_int_equal(sh("$S compress $T/lies.gguf --tier q8 -q")->status, 0);
    json_t *o = with_fields(sh("$S show $T/lies.gguf --tier q8 --json"), "tier:s architecture:s");
    assert_string_equal(text_of(o, "tier"), "q8");
    assert_string_equal(text_of(o, "architecture"), "qwen2");
    json_decref(o);
    o = with_fields(sh("$S run $T/lies.gguf --tier q8 --temp 0 --json " JAPAN), "text:s");
    assert_string_equal(text_of(o, "text"), "The capital of Japan is Tokyo.");
    json_decref(o);
    o = with_fields(sh("$S show $T/lies.gguf --json"), "tier:s");
    assert_string_equal(text_of(o, "tier"), "gguf");
    json_decref(o);
}

static void show_gives_the_facts_of_the_file(void **state) {
    (void)state;
    json_t *o = with_fields(
        sh("$S show --tier source --json"),
        "path:s architecture:s tier:s weight_types:s parameters:i weight_bytes:i bits_per_weight:r layers:i "
        "hidden:i ffn:i heads:i kv_heads:i head_dim:i vocab:i ctx_train:i window:i tied_head:b tokenizer:b "
        "template:b load_ms:r config:o generation:o memory:o");
    assert_string_equal(text_of(o, "architecture"), "qwen2");
    assert_string_equal(text_of(o, "tier"), "source");
    assert_int_equal(int_of(o, "layers"), 8);
    assert_int_equal(int_of(o, "hidden"), 512);
    assert_int_equal(int_of(o, "kv_heads"), 2);
    assert_int_equal(int_of(o, "vocab"), 12288);
    assert_int_equal(int_of(o, "ctx_train"), 4096);
    assert_int_equal(int_of(json_object_get(o, "config"), "hidden_size"), 512);
    assert_int_equal(int_of(o, "parameters"), 30423552);
    assert_true(fabs(num_of(o, "bits_per_weight") - 16) < 0.1); /* vectors count as f32 */
    assert_true(json_is_true(json_object_get(o, "tied_head")));
    json_decref(o);
}

static void show_gives_the_facts_of_a_gguf_file(void **state) {
    (void)state;
    assert_int_equal(sh("$S export --tier source --to gguf -o $T/tiny.gguf -q")->status, 0);
    json_t *o = with_fields(sh("$S show $T/tiny.gguf --tensors --json"),
                            "architecture:s tier:s weight_types:s parameters:i config:o memory:o tensors:a");
    assert_string_equal(text_of(o, "architecture"), "qwen2");
    assert_string_equal(text_of(o, "tier"), "gguf");
    assert_int_equal(int_of(o, "parameters"), 30423552);
    assert_int_equal(int_of(o, "layers"), 8);
    assert_null(json_object_get(o, "refused"));
    json_decref(o);
}

/* Its vocabulary can be looked at all the same. */
static void show_says_why_weights_of_a_gguf_file_are_not_run(void **state) {
    (void)state;
    assert_int_equal(sh("$S export --tier source --to gguf -o $T/known.gguf -q && "
                        "LC_ALL=C sed '0,/qwen2/s//qwen9/' $T/known.gguf >$T/foreign.gguf")->status,
                     0);
    json_t *o = with_fields(sh("$S show $T/foreign.gguf --json"), "architecture:s refused:s tokenizer:b");
    assert_string_equal(text_of(o, "architecture"), "qwen9");
    assert_non_null(strstr(text_of(o, "refused"), "architecture 'qwen9' is not one this version runs"));
    assert_true(json_is_true(json_object_get(o, "tokenizer")));
    assert_int_equal(int_of(o, "parameters"), 0);
    json_decref(o);
    const cli_result *r = sh("$S show $T/foreign.gguf");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "\nrefused       gguf: architecture 'qwen9'"));
}

static void show_lists_tensors_that_add_up_to_the_parameters(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S show --tier source --tensors --json"),
                            "tensors:a parameters:i weight_bytes:i"),
           *t;
    json_int_t weights = 0, bytes = 0;
    size_t i;
    json_array_foreach(json_object_get(o, "tensors"), i, t) {
        assert_true(json_is_string(json_object_get(t, "name")) && json_is_string(json_object_get(t, "type")));
        weights += int_of(t, "rows") * int_of(t, "cols");
        bytes += int_of(t, "bytes");
    }
    assert_int_equal(weights, int_of(o, "parameters"));
    assert_int_equal(bytes, int_of(o, "weight_bytes"));
    json_decref(o);
}

static void about_is_two_lines_the_second_a_command(void **state) {
    (void)state;
    const cli_result *r = sh("$S show squish-tiny --about");
    assert_int_equal(r->status, 0);
    char *second = strchr(r->out, '\n');
    assert_non_null(second);
    assert_non_null(strstr(r->out, "squish-tiny"));
    assert_non_null(strstr(r->out, "30 M parameter "));
    assert_non_null(strstr(r->out, "demonstration"));
    assert_non_null(strstr(second, "squish run PATH-TO/Qwen2.5-"));
    assert_ptr_equal(strchr(second + 1, '\n'), r->out + strlen(r->out) - 1);
    json_decref(with_fields(sh("$S show squish-tiny --about --json"), "about:s suggestion:s"));
}

static void about_suggests_less_where_less_memory_is_available(void **state) {
    (void)state;
    if (!cli_limits_work()) skip();
    json_t *o = with_fields(sh("ulimit -v 1000000; $S show --about --json"), "suggestion:s");
    assert_string_equal(text_of(o, "suggestion"), "Qwen2.5-0.5B-Instruct");
    json_decref(o);
    const cli_result *r = sh("ulimit -v 300000; $S show --about");
    assert_non_null(strstr(r->out, "No larger model fits this machine now"));
}

static void list_gives_names_paths_sizes_and_tiers(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S list --json"), "models:a"), *m;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(o, "models"), i, m)
        if (strcmp(text_of(m, "name"), "squish-tiny") == 0) {
            found = true;
            assert_non_null(strstr(text_of(m, "path"), "squish-tiny"));
            assert_non_null(strstr(text_of(m, "tiers"), "0"));
            assert_true(int_of(m, "bytes") > 60000000);
        }
    assert_true(found);
    json_decref(o);
    assert_int_equal(sh("$S list | cut -f1 | grep -qx squish-tiny")->status, 0);
}

static void tokenize_and_detokenize_are_each_others_inverse(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S tokenize --json 'The capital of Japan is'"), "ids:a count:i");
    char *ids = json_dumps(json_object_get(o, "ids"), JSON_COMPACT);
    assert_string_equal(ids, "[309,607,289,3542,298]");
    assert_int_equal(int_of(o, "count"), 5);
    free(ids);
    json_decref(o);
    o = with_fields(sh("$S detokenize --json 309,607,289,3542,298"), "text:s");
    assert_string_equal(text_of(o, "text"), "The capital of Japan is");
    json_decref(o);
}

static void special_tokens_are_text_unless_asked_for(void **state) {
    (void)state;
    json_t *plain = with_fields(sh("$S tokenize --json '<|im_end|>'"), "count:i");
    json_t *special = with_fields(sh("$S tokenize --json --special '<|im_end|>'"), "ids:a count:i");
    assert_true(int_of(plain, "count") > 1);
    assert_int_equal(int_of(special, "count"), 1);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(special, "ids"), 0)), 12281);
    json_decref(plain);
    json_decref(special);
    json_t *o = with_fields(sh("$S detokenize --json --special 12281"), "text:s");
    assert_string_equal(text_of(o, "text"), "<|im_end|>");
    json_decref(o);
    o = with_fields(sh("$S detokenize --json 12281"), "text:s");
    assert_string_equal(text_of(o, "text"), "");
    json_decref(o);
}

static void template_gives_the_rendered_text(void **state) {
    (void)state;
    assert_int_equal(sh("printf '[{\"role\":\"user\",\"content\":\"Hi\"}]' > $T/m.json")->status, 0);
    json_t *o = with_fields(sh("$S template --messages $T/m.json --json"), "text:s");
    assert_string_equal(text_of(o, "text"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    json_decref(o);
    const cli_result *r = sh("$S template --messages - --no-generation-prompt < $T/m.json");
    assert_string_equal(r->out, "<|im_start|>user\nHi<|im_end|>\n");
    assert_int_equal(sh("printf '{{ name }}: {{ messages[0].content }} {{ n + 1 }}' > $T/t.jinja")->status,
                     0);
    o = with_fields(
        sh("$S template --template $T/t.jinja --messages $T/m.json --var name=Ada --var n=2 --json"),
        "text:s");
    assert_string_equal(text_of(o, "text"), "Ada: Hi 3");
    json_decref(o);
}

static void logits_gives_the_ten_likeliest_of_the_last_position(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S logits --tier source --ids 309,607,289,3542,298 --json"), "top:a"), *pair;
    json_t *top = json_object_get(o, "top");
    assert_int_equal(json_array_size(top), 10);
    assert_int_equal(json_integer_value(json_array_get(json_array_get(top, 0), 0)), 6837); /* " Tokyo" */
    double before = INFINITY;
    size_t i;
    json_array_foreach(top, i, pair) {
        assert_true(json_number_value(json_array_get(pair, 1)) <= before);
        before = json_number_value(json_array_get(pair, 1));
    }
    json_decref(o);
}

static void logits_writes_all_scores_as_a_safetensors_file(void **state) {
    (void)state;
    json_decref(
        with_fields(sh("$S logits --ids 309,607,289 --last 2 -o $T/l.safetensors --json"), "top:a file:s"));
    const cli_result *r = sh(
        "head -c 8 $T/l.safetensors | od -An -tu8; tail -c +9 $T/l.safetensors | head -c 200; stat -c ' %%s' "
        "$T/l.safetensors");
    assert_non_null(strstr(r->out, "\"logits\""));
    assert_non_null(strstr(r->out, "\"F32\""));
    assert_non_null(strstr(r->out, "[2,12288]"));
    const long header = strtol(r->out, NULL, 10), size = strtol(strrchr(r->out, ' '), NULL, 10);
    assert_int_equal(size, 8 + header + 2 * 12288 * 4);
}

static void ppl_gives_perplexity_nats_and_tokens(void **state) {
    (void)state;
    json_t *o = with_fields(sh("head -c 4000 tests/fixtures/own-prose.txt > $T/prose.txt; $S ppl --text "
                               "$T/prose.txt --window 256 --json"),
                            "perplexity:r nats_per_token:r tokens:i");
    assert_true(fabs(exp(num_of(o, "nats_per_token")) - num_of(o, "perplexity")) <
                1e-6 * num_of(o, "perplexity"));
    assert_true(num_of(o, "perplexity") > 1.1 && num_of(o, "perplexity") < 2.0);
    assert_true(int_of(o, "tokens") > 500);
    json_decref(o);
}

static const json_t *touched(const json_t *o, const char *name) {
    const json_t *all = json_object_get(o, "touched"), *one;
    size_t i;
    json_array_foreach(all, i, one) if (strcmp(text_of(one, "name"), name) == 0) return one;
    return NULL;
}

static void run_lists_what_each_option_touched_or_why_it_did_not(void **state) {
    (void)state;
#define SEED_FLAGS "--pm-kvq --mix-kvq --cocktail-kv --agile-io --sage-attention --sparge-attn"
    static const char *const names[] = {"pm-kvq",         "mix-kvq",     "cocktail-kv",
                                        "sage-attention", "sparge-attn", "agile-io"};
    static const char *const whys[] = {"none is 256 old", "no token went to 4 or 2 bits", "no chunk",
                                       "256 others",      "begins at 8192",               "weights fit"};
    json_t *o =
        with_fields(sh("$S run --json -n 4 " SEED_FLAGS " 'What is the capital of Japan?'"), "touched:a");
    assert_int_equal(json_array_size(json_object_get(o, "touched")), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *k = touched(o, names[i]);
        assert_non_null(k);
        assert_true(num_of(k, "count") == 0);
        assert_non_null(strstr(text_of(k, "why"), whys[i]));
    }
    json_decref(o);
    assert_non_null(strstr(sh("$S run -n 4 " SEED_FLAGS " 'What is the capital of Japan?'")->err,
                           "--cocktail-kv touched nothing: "));
    /* and where there is something to do; a model of 30 MB always fits */
    o = with_fields(sh("head -c 6000 tests/fixtures/own-prose.txt | $S run --json --raw -n 8 "
                       "--pm-ages 64,128,256 --sparge-min 256 --sparge-mass 0.5 " SEED_FLAGS),
                    "touched:a");
    assert_int_equal(json_array_size(json_object_get(o, "touched")), 6);
    for (size_t i = 0; i < 5; i++) {
        const json_t *k = touched(o, names[i]);
        assert_true(num_of(k, "count") > 0);
        assert_null(json_object_get(k, "why"));
    }
    json_decref(o);
    o = with_fields(sh("$S run --json -n 4 Hello"), "text:s");
    assert_null(json_object_get(o, "touched"));
    json_decref(o);
}

static void doctor_gives_a_row_for_each_check_and_the_model_answers(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S doctor --json"), "ok:b version:s checks:a"), *k;
    static const char *const names[] = {"cpu",       "kernels", "cores",   "memory",  "home", "disk",
                                        "libraries", "limits",  "install", "service", "model"};
    const json_t *checks = json_object_get(o, "checks");
    assert_int_equal(json_array_size(checks), 11);
    size_t i;
    json_array_foreach(checks, i, k) {
        assert_string_equal(text_of(k, "name"), names[i]);
        assert_true(json_is_true(json_object_get(k, "ok")));
        assert_true(strlen(text_of(k, "detail")) > 0);
    }
    assert_non_null(strstr(text_of(json_array_get(checks, 10), "detail"), "The capital of Japan is Tokyo."));
    assert_non_null(strstr(text_of(json_array_get(checks, 6), "detail"), "jansson 2."));
    json_decref(o);
}

static void doctor_warns_what_scalar_kernels_cost(void **state) {
    (void)state;
    json_t *o = with_fields(sh("$S doctor --isa scalar --json"), "checks:a");
    const json_t *k = json_array_get(json_object_get(o, "checks"), 1);
    assert_true(json_is_true(json_object_get(k, "ok")));
    assert_true(json_is_true(json_object_get(k, "warning")));
    assert_non_null(strstr(text_of(k, "detail"), "slower"));
    json_decref(o);
}

static void doctor_exits_1_when_the_model_cannot_answer(void **state) {
    (void)state;
    assert_int_equal(
        sh("mkdir -p $T/dh/models/squish-tiny && echo '{}' > $T/dh/models/squish-tiny/config.json")->status,
        0);
    const cli_result *r = sh("$S doctor --home $T/dh --json");
    assert_int_equal(r->status, 1);
    json_t *o = cli_json(r);
    assert_true(json_is_false(json_object_get(o, "ok")));
    assert_true(json_is_false(json_object_get(json_array_get(json_object_get(o, "checks"), 10), "ok")));
    json_decref(o);
    r = sh("$S doctor --home $T/dh");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->out, "FAILED   model "));
}

static void a_failure_is_an_object_with_code_and_message(void **state) {
    (void)state;
    static const struct {
        const char *line, *code;
        int status;
    } cases[] = {
        {"$S run --json squish-tny hi", "NOT_FOUND", 3},
        {"$S run --json --temp 9 hi", "USAGE", 2},
        {"$S show --json /no/such", "NOT_FOUND", 3},
        {"$S ppl --json --text /no/such", "NOT_FOUND", 3},
        {"$S logits --json --ids 1,99999", "INVALID", 1},
        {"$S compress --json $T/none", "NOT_FOUND", 3},
        {"$S tokenize --json --tier nine x", "USAGE", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const cli_result *r = sh("%s", cases[i].line);
        assert_int_equal(r->status, cases[i].status);
        json_t *o = cli_json(r);
        const json_t *e = json_object_get(o, "error");
        if (json_is_object(e)) assert_string_equal(text_of(e, "code"), cases[i].code);
        else print_error("%s: no error object: %s\n", cases[i].line, r->out);
        assert_true(json_is_string(json_object_get(e, "message")));
        json_decref(o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_gives_text_ids_reason_counts_and_times),
        cmocka_unit_test(run_reports_length_and_the_seed_it_was_given),
        cmocka_unit_test(the_seed_that_run_reports_gives_the_answer_again),
        cmocka_unit_test(compress_gives_file_sizes_speed_and_fidelity),
        cmocka_unit_test(compress_says_that_codes_were_kept),
        cmocka_unit_test(a_tier_of_a_gguf_file_is_run_or_refused),
        cmocka_unit_test(show_gives_the_facts_of_the_file),
        cmocka_unit_test(show_gives_the_facts_of_a_gguf_file),
        cmocka_unit_test(show_says_why_weights_of_a_gguf_file_are_not_run),
        cmocka_unit_test(show_lists_tensors_that_add_up_to_the_parameters),
        cmocka_unit_test(about_is_two_lines_the_second_a_command),
        cmocka_unit_test(about_suggests_less_where_less_memory_is_available),
        cmocka_unit_test(list_gives_names_paths_sizes_and_tiers),
        cmocka_unit_test(tokenize_and_detokenize_are_each_others_inverse),
        cmocka_unit_test(special_tokens_are_text_unless_asked_for),
        cmocka_unit_test(template_gives_the_rendered_text),
        cmocka_unit_test(logits_gives_the_ten_likeliest_of_the_last_position),
        cmocka_unit_test(logits_writes_all_scores_as_a_safetensors_file),
        cmocka_unit_test(ppl_gives_perplexity_nats_and_tokens),
        cmocka_unit_test(run_lists_what_each_option_touched_or_why_it_did_not),
        cmocka_unit_test(doctor_gives_a_row_for_each_check_and_the_model_answers),
        cmocka_unit_test(doctor_warns_what_scalar_kernels_cost),
        cmocka_unit_test(doctor_exits_1_when_the_model_cannot_answer),
        cmocka_unit_test(a_failure_is_an_object_with_code_and_message),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
