/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_completions.c - the routes that score and tokenise: what lm-evaluation-harness relies on, to the
 * digit. */
#include "support/api_run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;

#define TEXT "/v1/completions"
#define IDS "309,607,289,3542,298" /* "The capital of Japan is" */

static json_t *complete(const char *body) {
    json_t *o = ask_json(&server, "POST", TEXT, body, 200);
    assert_non_null(o);
    return o;
}

static void a_scoring_call_has_one_entry_per_token_and_one_for_the_answer(void **state) {
    (void)state;
    json_t *o =
        complete("{\"model\":\"squish-tiny\",\"prompt\":[[" IDS "]],\"temperature\":0,\"max_tokens\":1,"
                 "\"logprobs\":1,\"seed\":1234,\"echo\":true}");
    assert_string_equal(text_at(o, "object"), "text_completion");
    assert_memory_equal(text_at(o, "id"), "cmpl-", 5);
    const json_t *lp = at(o, "choices[0].logprobs");
    static const char *const lists[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    for (size_t i = 0; i < SQ_COUNT(lists); i++) assert_int_equal(json_array_size(at(lp, lists[i])), 6);
    assert_true(json_is_null(at(lp, "token_logprobs[0]")) && json_is_null(at(lp, "top_logprobs[0]")));
    for (size_t i = 1; i < 6; i++) { /* every map holds the token that is there, with the same number */
        const json_t *own = json_array_get(at(lp, "token_logprobs"), i);
        const json_t *map = json_array_get(at(lp, "top_logprobs"), i);
        const char *name = json_string_value(json_array_get(at(lp, "tokens"), i));
        assert_true(json_is_real(own));
        assert_true(json_real_value(json_object_get(map, name)) == json_real_value(own));
        assert_in_range(json_object_size(map), 1, 2);
    }
    assert_int_equal(int_at(lp, "text_offset[1]"), 3); /* after "The" */
    assert_string_equal(text_at(o, "choices[0].text"), "The capital of Japan is Tokyo");
    assert_int_equal(int_at(o, "x_squish_seed"), 1234);
    assert_int_equal(int_at(o, "usage.prompt_tokens"), 5);
    json_decref(o);
}

static void numbers_are_the_models_own_to_the_last_bit(void **state) {
    (void)state;
    json_t *o = complete("{\"prompt\":[" IDS "],\"max_tokens\":0,\"logprobs\":0,\"echo\":true}");
    const json_t *list = at(o, "choices[0].logprobs.token_logprobs");
    assert_int_equal(json_array_size(list), 5);
    for (size_t i = 1; i < 5; i++) { /* a f32 that was widened, and came through text unharmed */
        const double d = json_real_value(json_array_get(list, i));
        assert_true((double)(float)d == d && d < 0);
        assert_int_equal(json_object_size(json_array_get(at(o, "choices[0].logprobs.top_logprobs"), i)), 1);
    }
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "length");
    json_decref(o);
}

static void the_end_token_counts_with_an_empty_text(void **state) {
    (void)state;
    json_t *o = complete(
        "{\"prompt\":\"<|im_start|>user\\nWhat is the capital of Japan?<|im_end|>\\n<|im_start|>assistant"
        "\\nThe capital of Japan is Tokyo.\",\"temperature\":0,\"max_tokens\":1,\"logprobs\":1,"
        "\"echo\":true}");
    const size_t prompt = (size_t)int_at(o, "usage.prompt_tokens");
    const json_t *tokens = at(o, "choices[0].logprobs.tokens");
    assert_int_equal(json_array_size(tokens), prompt + 1);
    assert_string_equal(json_string_value(json_array_get(tokens, prompt)), "<|im_end|>");
    assert_true(json_is_real(json_array_get(at(o, "choices[0].logprobs.token_logprobs"), prompt)));
    const char *text = text_at(o, "choices[0].text");
    assert_string_equal(text + strlen(text) - 6, "Tokyo.");
    json_decref(o);
}

static void a_batch_comes_back_in_order_and_text_scores_like_its_ids(void **state) {
    (void)state;
    json_t *a =
        complete("{\"prompt\":[[" IDS "],[1,2,3],[" IDS "]],\"n\":2,\"temperature\":0,\"max_tokens\":2,"
                 "\"logprobs\":1,\"echo\":true}");
    json_t *b = complete(
        "{\"prompt\":[\"The capital of Japan is\"],\"temperature\":0,\"max_tokens\":2,\"logprobs\":1,"
        "\"echo\":true}");
    assert_int_equal(json_array_size(at(a, "choices")), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *c = json_array_get(at(a, "choices"), i);
        assert_int_equal(int_at(c, "index"), i);
        if (i != 2 && i != 3)
            assert_true(json_equal(at(c, "logprobs"), at(b, "choices[0].logprobs")));
        else
            assert_false(json_equal(at(c, "logprobs"), at(b, "choices[0].logprobs")));
    }
    assert_int_equal(int_at(a, "usage.prompt_tokens"), 13);
    json_decref(a);
    json_decref(b);
}

static void many_prompts_in_one_call_all_answer(void **state) {
    (void)state;
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 20);
    sq_buf_puts(&b, "{\"max_tokens\":1,\"temperature\":0,\"logprobs\":1,\"echo\":true,\"prompt\":[");
    for (int i = 0; i < 300; i++) sq_buf_printf(&b, "%s[%d,%d]", i ? "," : "", 300 + i, 301 + i);
    sq_buf_puts(&b, "]}");
    json_t *o = complete(b.data);
    sq_buf_deinit(&b);
    assert_int_equal(json_array_size(at(o, "choices")), 300);
    for (size_t i = 0; i < 300; i++) {
        const json_t *c = json_array_get(at(o, "choices"), i);
        assert_int_equal(int_at(c, "index"), i);
        assert_int_equal(json_array_size(at(c, "logprobs.tokens")), 3);
    }
    json_decref(o);
}

static void frames_say_when_their_token_was_drawn_where_asked(void **state) {
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        char body[256];
        snprintf(body, sizeof body,
                 "{\"prompt\":[" IDS "],\"temperature\":0,\"max_tokens\":8,\"ignore_eos\":true,"
                 "\"stream\":true%s}",
                 asked ? ",\"x_squish_token_times\":true" : "");
        int64_t before = (int64_t)sq_os_now_ns(), n = 0;
        json_t *f = api_frames(ask(&server, "POST", TEXT, body));
        size_t i;
        const json_t *x;
        json_array_foreach(f, i, x) {
            const json_t *t = json_object_get(x, "x_squish_t_ns");
            if (!t) continue;
            assert_true(json_integer_value(t) > before && json_integer_value(t) < (int64_t)sq_os_now_ns());
            before = json_integer_value(t);
            n++;
        }
        json_decref(f);
        assert_int_equal(n, asked ? 8 : 0); /* also of tokens without text */
    }
}

static void a_stream_says_the_prompt_first_where_it_is_echoed(void **state) {
    (void)state;
    const api_reply *r =
        ask(&server, "POST", TEXT,
            "{\"prompt\":[" IDS "],\"temperature\":0,\"max_tokens\":2,\"logprobs\":1,\"echo\":true,"
            "\"stream\":true}");
    assert_int_equal(r->status, 200);
    json_t *f = api_frames(r), *joined = json_array();
    assert_non_null(f);
    assert_string_equal(text_at(f, "[0].choices[0].text"), "The capital of Japan is");
    assert_int_equal(json_array_size(at(f, "[0].choices[0].logprobs.tokens")), 5);
    assert_string_equal(text_at(f, "[0].object"), "text_completion");
    char text[256] = "";
    size_t i;
    const json_t *x;
    json_array_foreach(f, i, x) {
        const char *piece = text_at(x, "choices[0].text");
        if (piece) strncat(text, piece, sizeof text - strlen(text) - 1);
        json_array_extend(joined, (json_t *)at(x, "choices[0].logprobs.token_logprobs"));
    }
    json_t *whole =
        complete("{\"prompt\":[" IDS "],\"temperature\":0,\"max_tokens\":2,\"logprobs\":1,\"echo\":true}");
    assert_string_equal(text, text_at(whole, "choices[0].text"));
    assert_true(json_equal(joined, at(whole, "choices[0].logprobs.token_logprobs")));
    assert_string_equal(json_string_value(json_array_get(f, json_array_size(f) - 1)), "[DONE]");
    json_decref(whole);
    json_decref(joined);
    json_decref(f);
}

/* Who guesses is a field of a request; the text is the same. */
static void guesses_change_nothing_but_how_many_were_tried(void **state) {
    (void)state;
#define ASK                                                                                      \
    "{\"prompt\":\"one two, one two, one two, one\",\"max_tokens\":60,\"temperature\":0,\"ignore_eos\":" \
    "true,"
    json_t *off = complete(ASK "\"spec\":\"off\"}"), *on = complete(ASK "\"spec\":\"ngram\"}");
    assert_string_equal(text_at(off, "choices[0].text"), text_at(on, "choices[0].text"));
    assert_int_equal(int_at(off, "timings.draft_n"), 0);
    assert_true(int_at(on, "timings.draft_n") >= int_at(on, "timings.draft_n_accepted"));
    assert_int_equal(int_at(on, "usage.completion_tokens_details.accepted_prediction_tokens"),
                     int_at(on, "timings.draft_n_accepted"));
    json_decref(off);
    json_decref(on);
    json_t *bad = ask_json(&server, "POST", TEXT, ASK "\"spec\":\"magic\"}", 400);
    assert_non_null(strstr(text_at(bad, "error.message"),
                           "'spec' is the string 'magic', wanted auto, off, ngram, heads, draft or skip"));
    json_decref(bad);
#undef ASK
}

static void what_a_completion_cannot_do_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *body, *param;
    } rows[] = {
        {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix"}, /* not trained to fill in the middle */
        {"{\"prompt\":\"a\",\"best_of\":3}", "best_of"},
        {"{\"prompt\":[[1],[99999]]}", "prompt"},
        {"{\"prompt\":[[1],[]]}", "prompt"},
        {"{\"prompt\":[[1],[-1]]}", "prompt[0]"},
        {"{\"prompt\":{}}", "prompt"},
        {"{}", "prompt"},
        {"{\"prompt\":[]}", "prompt"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        json_t *o = ask_json(&server, "POST", TEXT, rows[i].body, 400);
        assert_non_null(o);
        assert_string_equal(text_at(o, "error.param"), rows[i].param);
        json_decref(o);
    }
}

/* ---- the tokenizer from outside -------------------------------------------------------------- */

static void a_remote_tokenizer_finds_what_it_probes_for(void **state) {
    (void)state;
    static const char *const roots[] = {"", "/v1"};
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/tokenizer_info", roots[i]);
        json_t *info = ask_json(&server, "GET", path, NULL, 200);
        assert_string_equal(text_at(info, "eos_token"), "<|im_end|>");
        assert_true(json_is_null(at(info, "bos_token")) || json_is_string(at(info, "bos_token")));
        assert_non_null(text_at(info, "chat_template"));
        json_decref(info);
        snprintf(path, sizeof path, "%s/tokenize", roots[i]);
        json_t *t = ask_json(&server, "POST", path,
                             "{\"prompt\":\"The capital of Japan is\",\"add_special_tokens\":false}", 200);
        json_t *want = json_pack("[i,i,i,i,i]", 309, 607, 289, 3542, 298);
        assert_true(json_equal(at(t, "tokens"), want) && json_equal(at(t, "token_ids"), want));
        assert_int_equal(int_at(t, "count"), 5);
        assert_int_equal(int_at(t, "max_model_len"), 4096);
        json_decref(want);
        json_decref(t);
        snprintf(path, sizeof path, "%s/detokenize", roots[i]);
        json_t *d = ask_json(&server, "POST", path, "{\"tokens\":[" IDS "]}", 200);
        assert_string_equal(text_at(d, "prompt"), "The capital of Japan is");
        json_decref(d);
    }
    json_t *p = ask_json(&server, "POST", "/tokenize", "{\"content\":\"\\u20ac\",\"with_pieces\":true}", 200);
    assert_true(json_is_integer(at(p, "tokens[0].id")) && at(p, "tokens[0].piece"));
    json_decref(p);
}

/* ---- embeddings ------------------------------------------------------------------------------ */

static double length_of(const json_t *v) {
    double sum = 0;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const double x = json_real_value(json_array_get(v, i));
        sum += x * x;
    }
    return sqrt(sum);
}

static int letter(char c) {
    static const char all[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = strchr(all, c);
    return p && c ? (int)(p - all) : 0;
}

static void embeddings_have_length_one_in_both_encodings(void **state) {
    (void)state;
    const api_reply *r = ask(&server, "POST", "/v1/embeddings",
                             "{\"input\":[\"one text\",\"another\"],\"encoding_format\":\"float\"}");
    assert_int_equal(r->status, 200);
    assert_non_null(strcasestr(r->head, "x-squish-warning: ")); /* a chat model */
    json_t *a = json_loads(r->body, 0, NULL);
    const json_t *v = at(a, "data[1].embedding");
    assert_int_equal(json_array_size(at(a, "data")), 2);
    assert_int_equal(json_array_size(v), 512);
    assert_true(fabs(length_of(v) - 1) < 1e-6);
    assert_false(json_equal(v, at(a, "data[0].embedding")));
    assert_true(int_at(a, "usage.prompt_tokens") > 0);
    json_t *b = ask_json(&server, "POST", "/v1/embeddings",
                         "{\"input\":\"another\",\"encoding_format\":\"base64\"}", 200);
    const char *text = text_at(b, "data[0].embedding");
    assert_int_equal(strlen(text), (512 * 4 + 2) / 3 * 4);
    uint8_t bytes[2048 + 3];
    for (size_t i = 0, k = 0; text[i]; i += 4, k += 3) {
        const uint32_t w = (uint32_t)letter(text[i]) << 18 | (uint32_t)letter(text[i + 1]) << 12 |
                           (uint32_t)letter(text[i + 2]) << 6 | (uint32_t)letter(text[i + 3]);
        bytes[k] = (uint8_t)(w >> 16), bytes[k + 1] = (uint8_t)(w >> 8), bytes[k + 2] = (uint8_t)w;
    }
    for (size_t i = 0; i < 512; i++) {
        float f;
        memcpy(&f, bytes + 4 * i, 4);
        assert_true((double)f == json_real_value(json_array_get(v, i)));
    }
    json_t *c = ask_json(&server, "POST", "/v1/embeddings", "{\"input\":[[1,2,3]],\"dimensions\":16}", 200);
    assert_int_equal(json_array_size(at(c, "data[0].embedding")), 16);
    assert_true(fabs(length_of(at(c, "data[0].embedding")) - 1) < 1e-6);
    json_t *d = ask_json(&server, "POST", "/v1/embeddings", "{\"input\":\"x\",\"dimensions\":513}", 400);
    assert_string_equal(text_at(d, "error.param"), "dimensions");
    json_decref(a);
    json_decref(b);
    json_decref(c);
    json_decref(d);
}

static int begin(void **state) {
    (void)state;
    return api_start(&server, NULL);
}
static int end(void **state) {
    (void)state;
    api_end(&server);
    return server.status == SQUISH_OK ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scoring_call_has_one_entry_per_token_and_one_for_the_answer),
        cmocka_unit_test(numbers_are_the_models_own_to_the_last_bit),
        cmocka_unit_test(the_end_token_counts_with_an_empty_text),
        cmocka_unit_test(a_batch_comes_back_in_order_and_text_scores_like_its_ids),
        cmocka_unit_test(many_prompts_in_one_call_all_answer),
        cmocka_unit_test(frames_say_when_their_token_was_drawn_where_asked),
        cmocka_unit_test(a_stream_says_the_prompt_first_where_it_is_echoed),
        cmocka_unit_test(guesses_change_nothing_but_how_many_were_tried),
        cmocka_unit_test(what_a_completion_cannot_do_is_refused),
        cmocka_unit_test(a_remote_tokenizer_finds_what_it_probes_for),
        cmocka_unit_test(embeddings_have_length_one_in_both_encodings),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
