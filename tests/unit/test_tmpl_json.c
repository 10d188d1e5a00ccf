/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_json.c - tojson and from_json beyond the golden cases: hard texts, depth, and there and back. */
#include "support/tmpl_run.h"

#include <setjmp.h>

#include <cmocka.h>

static void text_survives_the_way_there_and_back(void **state) {
    (void)state;
    json_t *vars = json_object();
    uint64_t seed = 3;
    for (int round = 0; round < 200; round++) {
        sq_buf text;
        sq_buf_init(&text, NULL, 4096);
        for (int i = 0; i < 50; i++) {
            uint64_t bits = sq_splitmix64(&seed);
            uint32_t cp = (uint32_t)(bits >> 8) % (bits & 1 ? 0x80 : bits & 2 ? 0x3000 : 0x110000);
            char utf8[4];
            if (cp == 0 || (cp >= 0xd800 && cp < 0xe000)) cp = 'x';
            sq_buf_append(&text, utf8, sq_utf8_encode(cp, utf8));
        }
        json_object_set_new(vars, "x", json_stringn(text.data, text.len));
        const char *source =
            "{{ x|tojson|from_json == x }} {{ x|tojson(true)|from_json == x }} {{ [x]|string != x }}";
        sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
        assert_string_equal(t.err.text, "");
        assert_string_equal(sq_test_text(&t), "True True True");
        sq_test_tmpl_free(&t);
        sq_buf_deinit(&text);
    }
    json_decref(vars);
}

static void output_is_what_json_dumps_writes(void **state) {
    (void)state;
    assert_renders("{{ x|tojson }}",
                   "{\"x\": {\"b\": [1, 2.0, 1e30, -0.5], \"a\": \"<'&\\u00e9\\u007f/\\\"\\\\\"}}",
                   "{\"b\": [1, 2.0, 1e+30, -0.5], \"a\": \"<'&é\x7f/\\\"\\\\\"}");
    assert_renders("{{ x|tojson(ensure_ascii=true) }}", "{\"x\": \"\\u00e9\\ud83d\\ude00\\u007f\"}",
                   "\"\\u00e9\\ud83d\\ude00\\u007f\"");
    assert_renders(
        "{{ x|tojson(indent=2) }}", "{\"x\": {\"a\": [], \"b\": {}, \"c\": [1, {\"d\": null}]}}",
        "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": null\n    }\n  ]\n}");
}

static void from_json_keeps_the_last_of_equal_keys_and_the_order(void **state) {
    (void)state;
    assert_renders("{{ x|from_json|tojson }}", "{\"x\": \" {\\\"b\\\":1,\\\"a\\\":[ ],\\\"b\\\":2.50} \"}",
                   "{\"b\": 2.5, \"a\": []}");
    assert_renders("{{ x|from_json }}", "{\"x\": \"-9223372036854775808\"}", "-9223372036854775808");
    assert_refused("{{ x|from_json }}", "{\"x\": \"9223372036854775808\"}", SQUISH_INVALID,
                   "template line 1: from_json: an integer of more than 64 bits at byte 19");
    assert_refused("{{ x|from_json }}", "{\"x\": \"\\\"\\\\ud800\\\"\"}", SQUISH_INVALID,
                   "template line 1: from_json: half a surrogate pair at byte 7");
    assert_refused("{{ x|from_json }}", "{\"x\": 5}", SQUISH_INVALID,
                   "template line 1: the JSON object must be str, not int");
}

static void depth_is_bounded(void **state) {
    (void)state;
    char text[400];
    json_t *vars = json_object();
    for (int depth = 60; depth <= 70; depth += 10) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        json_object_set_new(vars, "x", json_stringn(text, (size_t)depth * 2));
        const char *source = "{{ x|from_json|tojson == x }}";
        sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
        assert_int_equal(t.st, depth == 60 ? SQUISH_OK : SQUISH_INVALID);
        assert_string_equal(t.err.text,
                            depth == 60 ? "" : "template line 1: from_json: nested too deeply at byte 65");
        sq_test_tmpl_free(&t);
    }
    json_decref(vars);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_survives_the_way_there_and_back),
        cmocka_unit_test(output_is_what_json_dumps_writes),
        cmocka_unit_test(from_json_keeps_the_last_of_equal_keys_and_the_order),
        cmocka_unit_test(depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
