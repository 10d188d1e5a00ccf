/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schema_keywords.c - every keyword of JSON Schema with cases of our own: what satisfies and what does
 * not, one line each. */
#include "grammar/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
    int draft;
    const char *schema, *yes[4], *no[4];
} keyword_case;

static bool judged(const keyword_case *c, const char *json) {
    squish_schema_options opt = squish_schema_options_default();
    squish_schema *s = NULL;
    squish_error err = {0};
    bool valid = false;
    opt.draft = c->draft;
    opt.assert_format = true;
    if (squish_schema_new(&s, c->schema, strlen(c->schema), &opt, &err) != SQUISH_OK ||
        squish_schema_validate(s, json, strlen(json), NULL, NULL, &valid, &err) != SQUISH_OK)
        fail_msg("%s on %s: %s", c->schema, json, err.text);
    squish_schema_free(s);
    return valid;
}

static void check(const keyword_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < SQ_COUNT(cases[i].yes) && cases[i].yes[k]; k++)
            if (!judged(&cases[i], cases[i].yes[k]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].yes[k]);
        for (size_t k = 0; k < SQ_COUNT(cases[i].no) && cases[i].no[k]; k++)
            if (judged(&cases[i], cases[i].no[k])) fail_msg("%s accepts %s", cases[i].schema, cases[i].no[k]);
    }
}

static void keywords_about_the_value_itself(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {2020, "true", {"1", "null"}, {0}},
        {2020, "false", {0}, {"1", "{}"}},
        {2020, "{\"type\":\"integer\"}", {"1", "1.0", "1e300", "-0"}, {"1.5", "\"1\"", "1e-1"}},
        {2020, "{\"type\":[\"null\",\"boolean\"]}", {"null", "false"}, {"0", "[]"}},
        {2020,
         "{\"enum\":[1,\"a\",{\"x\":[2,null]}]}",
         {"1.0", "{\"x\":[2e0,null]}"},
         {"2", "{\"x\":[null,2]}"}},
        {2020, "{\"const\":{\"a\":1,\"b\":2}}", {"{\"b\":2,\"a\":1}"}, {"{\"a\":1}", "[1,2]"}},
        {2020, "{\"const\":\"a\\u0000b\"}", {"\"a\\u0000b\""}, {"\"a\""}},
        {2020, "{\"const\":false}", {"false"}, {"0", "null", "\"\""}},
        {2020, "{\"multipleOf\":0.01}", {"4.35", "1e308", "0", "\"x\""}, {"0.001", "4.355"}},
        {2020, "{\"multipleOf\":7}", {"70000000000000000000000000000000007", "-14"}, {"1e30", "8"}},
        {2020,
         "{\"multipleOf\":123456789012345678901234567890}",
         {"123456789012345678901234567890000", "246913578024691357802469135780"},
         {"123456789012345678901234567891"}},
        {2020,
         "{\"maximum\":18446744073709551616}",
         {"18446744073709551616", "-1e400"},
         {"18446744073709551617"}},
        {2020, "{\"minimum\":-0.30}", {"-0.3", "-3e-1"}, {"-0.30000000000000000000001"}},
        {2020, "{\"exclusiveMaximum\":1}", {"0.99999999999999999999"}, {"1.000", "2"}},
        {2020, "{\"exclusiveMinimum\":1}", {"1.00000000000000000001"}, {"1", "-5"}},
        {2020, "{\"maxLength\":2}", {"\"\\uD83D\\uDE00x\"", "\"\"", "123"}, {"\"abc\""}},
        {2020, "{\"minLength\":2}", {"\"ab\""}, {"\"\\uD83D\\uDE00\"", "\"\""}},
        {2020, "{\"pattern\":\"b+$\"}", {"\"abb\"", "4"}, {"\"abc\"", "\"b\\n\""}},
        {2020, "{\"maxItems\":1,\"minItems\":1}", {"[0]", "{}"}, {"[]", "[1,2]"}},
        {2020,
         "{\"uniqueItems\":true}",
         {"[1,\"1\",[1],[2]]", "[{\"a\":1},{\"a\":2}]", "[1,true]", "[0,false]"},
         {"[1,1.0]", "[{\"a\":1,\"b\":2},3,{\"b\":2,\"a\":1}]", "[[],[]]"}},
        {2020, "{\"maxProperties\":1,\"minProperties\":1}", {"{\"a\":1}", "[]"}, {"{}", "{\"a\":1,\"b\":1}"}},
        {2020, "{\"required\":[\"a\",\"\"]}", {"{\"a\":1,\"\":2}", "7"}, {"{\"a\":1}", "{}"}},
        {2020, "{\"dependentRequired\":{\"a\":[\"b\"]}}", {"{}", "{\"a\":1,\"b\":1}"}, {"{\"a\":1}"}},
    };
    check(cases, SQ_COUNT(cases));
}

static void keywords_that_apply_schemas(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {2020,
         "{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":false}}",
         {"{\"a\":null}", "{\"c\":1}"},
         {"{\"a\":1}", "{\"b\":null}"}},
        {2020,
         "{\"patternProperties\":{\"^x\":{\"type\":\"null\"}},\"properties\":{\"y\":true},"
         "\"additionalProperties\":{\"const\":1}}",
         {"{\"x1\":null,\"y\":9,\"z\":1}"},
         {"{\"x\":1}", "{\"z\":2}"}},
        {2020, "{\"propertyNames\":{\"maxLength\":1}}", {"{\"a\":1}"}, {"{\"ab\":1}"}},
        {2020, "{\"propertyNames\":{\"enum\":[\"a\"]}}", {"{\"a\":1}"}, {"{\"b\":1}"}},
        {2020,
         "{\"prefixItems\":[{\"const\":1}],\"items\":{\"const\":2}}",
         {"[1,2,2]", "[]", "[1]"},
         {"[2]", "[1,1]"}},
        {2020,
         "{\"contains\":{\"const\":1},\"minContains\":2,\"maxContains\":3}",
         {"[1,1]", "[1,0,1,1]"},
         {"[1]", "[1,1,1,1]"}},
        {2020, "{\"contains\":{\"const\":1},\"minContains\":0}", {"[]"}, {0}},
        {2020, "{\"contains\":{\"const\":1}}", {"[0,1]"}, {"[]", "[0]"}},
        {2020, "{\"allOf\":[{\"minimum\":1},{\"maximum\":2}]}", {"1"}, {"0", "3"}},
        {2020, "{\"anyOf\":[{\"minimum\":2},{\"type\":\"string\"}]}", {"2", "\"\""}, {"1"}},
        {2020, "{\"oneOf\":[{\"minimum\":2},{\"maximum\":3}]}", {"1", "4"}, {"2"}},
        {2020, "{\"not\":{\"type\":\"null\"}}", {"1"}, {"null"}},
        {2020,
         "{\"if\":{\"minimum\":10},\"then\":{\"multipleOf\":2},\"else\":{\"multipleOf\":3}}",
         {"12", "9"},
         {"11", "8"}},
        {2020, "{\"then\":false,\"else\":false}", {"1"}, {0}},
        {2020, "{\"dependentSchemas\":{\"a\":{\"required\":[\"b\"]}}}", {"{\"b\":1}"}, {"{\"a\":1}"}},
        {2020, "{\"dependencies\":{\"a\":[\"b\"],\"c\":false}}", {"{\"b\":1}"}, {"{\"a\":1}", "{\"c\":1}"}},
        {2020,
         "{\"allOf\":[{\"properties\":{\"a\":true}}],\"anyOf\":[{\"required\":[\"b\"],\"properties\":{\"b\":"
         "true}},"
         "{\"properties\":{\"c\":true}}],\"unevaluatedProperties\":false}",
         {"{\"a\":1,\"b\":2,\"c\":3}", "{\"a\":1}"},
         {"{\"b\":1,\"d\":1}"}},
        {2020,
         "{\"properties\":{\"a\":true},\"not\":{\"not\":{\"properties\":{\"b\":true}}},"
         "\"unevaluatedProperties\":false}",
         {"{\"a\":1}"},
         {"{\"b\":1}"}},
        {2020,
         "{\"prefixItems\":[true],\"contains\":{\"const\":9},\"unevaluatedItems\":{\"const\":1}}",
         {"[5,9,1]"},
         {"[5,9,2]"}},
        {2020,
         "{\"if\":{\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"]},\"then\":{\"properties\":{"
         "\"b\":true}},"
         "\"unevaluatedProperties\":false}",
         {"{\"a\":1,\"b\":2}"},
         {"{\"a\":2}"}},
    };
    check(cases, SQ_COUNT(cases));
}

static void references_of_every_kind(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {2020,
         "{\"$ref\":\"#/$defs/a~1b%25\",\"minimum\":2,\"$defs\":{\"a/b%\":{\"type\":\"integer\"}}}",
         {"2"},
         {"1", "2.5"}},
        {2020,
         "{\"properties\":{\"next\":{\"$ref\":\"#\"}},\"required\":[\"v\"]}",
         {"{\"v\":1,\"next\":{\"v\":1}}"},
         {"{\"v\":1,\"next\":{}}"}},
        {2020, "{\"$ref\":\"#n\",\"$defs\":{\"x\":{\"$anchor\":\"n\",\"const\":1}}}", {"1"}, {"2"}},
        {2020,
         "{\"$id\":\"http://h/a/b\",\"$ref\":\"../c?q#/$defs/d\",\"$defs\":{\"x\":{\"$id\":\"/c?q\","
         "\"$defs\":{\"d\":{\"const\":1}}}}}",
         {"1"},
         {"2"}},
        {2020,
         "{\"$id\":\"http://h/"
         "strict\",\"$ref\":\"tree\",\"$dynamicAnchor\":\"node\",\"unevaluatedProperties\":false,"
         "\"$defs\":{\"t\":{\"$id\":\"tree\",\"$dynamicAnchor\":\"node\",\"properties\":{\"c\":{\"items\":"
         "{\"$dynamicRef\":\"#node\"}}}}}}",
         {"{\"c\":[{\"c\":[]}]}"},
         {"{\"c\":[{\"d\":1}]}"}},
        {2020,
         "{\"$ref\":\"https://json-schema.org/draft/2020-12/schema\"}",
         {"{\"items\":{\"type\":\"null\"}}", "true"},
         {"{\"items\":{\"type\":\"nul\"}}", "{\"minLength\":-1}", "1"}},
        {2019,
         "{\"$ref\":\"https://json-schema.org/draft/2019-09/schema\"}",
         {"{\"items\":[{}]}"},
         {"{\"items\":[{\"type\":1}]}"}},
        {7, "{\"$ref\":\"http://json-schema.org/draft-07/schema#\"}", {"{\"if\":{}}"}, {"{\"if\":1}"}},
        {6, "{\"$ref\":\"http://json-schema.org/draft-06/schema#\"}", {"{\"const\":1}"}, {"{\"not\":1}"}},
        {4,
         "{\"$ref\":\"http://json-schema.org/draft-04/schema#\"}",
         {"{\"maximum\":1,\"exclusiveMaximum\":true}"},
         {"{\"exclusiveMaximum\":true}", "true"}},
    };
    check(cases, SQ_COUNT(cases));
}

static void older_drafts_differ_where_they_should(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {4,
         "{\"maximum\":3,\"exclusiveMaximum\":true,\"minimum\":1,\"exclusiveMinimum\":false}",
         {"1", "2"},
         {"3", "0"}},
        {4, "{\"const\":1,\"contains\":false,\"if\":true,\"then\":false}", {"2", "[1]"}, {0}},
        {4,
         "{\"id\":\"http://h/"
         "\",\"items\":{\"$ref\":\"x\"},\"definitions\":{\"x\":{\"id\":\"x\",\"type\":\"null\"}}}",
         {"[null]"},
         {"[1]"}},
        {6, "{\"exclusiveMaximum\":3,\"propertyNames\":{\"minLength\":1}}", {"2"}, {"3", "{\"\":1}"}},
        {7, "{\"items\":[{\"const\":1}],\"additionalItems\":{\"const\":2}}", {"[1,2]"}, {"[1,1]", "[2]"}},
        {7, "{\"items\":{\"const\":1},\"additionalItems\":false}", {"[1,1]"}, {"[1,2]"}},
        {7,
         "{\"$ref\":\"#/definitions/a\",\"maximum\":1,\"definitions\":{\"a\":{\"type\":\"integer\"}}}",
         {"5"},
         {"0.5"}},
        {7,
         "{\"allOf\":[{\"$ref\":\"#foo\"}],\"definitions\":{\"a\":{\"$id\":\"#foo\",\"const\":1}}}",
         {"1"},
         {"2"}},
        {7,
         "{\"dependentRequired\":{\"a\":[\"b\"]},\"unevaluatedItems\":false,\"prefixItems\":[false]}",
         {"{\"a\":1}", "[1]"},
         {0}},
        {2019,
         "{\"$recursiveAnchor\":true,\"properties\":{\"c\":{\"$recursiveRef\":\"#\"}},"
         "\"unevaluatedProperties\":false}",
         {"{\"c\":{\"c\":{}}}"},
         {"{\"c\":{\"d\":1}}"}},
        {2019,
         "{\"items\":[true],\"contains\":{\"const\":9},\"unevaluatedItems\":false}",
         {"[9]"},
         {"[1,9]"}},
        {2020,
         "{\"$schema\":\"http://json-schema.org/draft-07/schema#\",\"items\":[false]}",
         {"[]"},
         {"[1]"}},
        {2020,
         "{\"$schema\":\"http://json-schema.org/draft-04/schema\",\"maximum\":3,\"exclusiveMaximum\":true}",
         {"2"},
         {"3"}},
    };
    check(cases, SQ_COUNT(cases));
}

static void patterns_are_ecma_regexes(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {2020,
         "{\"pattern\":\"^\\\\s\\\\S$\"}",
         {"\"\\u00a0x\"", "\"\\ufeffx\""},
         {"\"xx\"", "\" \\u2029\""}},
        {2020, "{\"pattern\":\"^[\\\\S][^\\\\s]$\"}", {"\"xx\""}, {"\"\\u2028x\"", "\"x\\u00a0\""}},
        {2020, "{\"pattern\":\"^\\\\d\\\\w$\"}", {"\"1_\""}, {"\"\\u0967a\"", "\"1\\u00e9\""}},
        {2020,
         "{\"pattern\":\"^\\\\u{1F600}\\\\uD83D\\\\uDE00\\\\x41\\\\cA$\"}",
         {"\"\\uD83D\\uDE00\\uD83D\\uDE00A\\u0001\""},
         {"\"A\""}},
        {2020,
         "{\"pattern\":\"^\\\\p{Letter}\\\\p{Script=Greek}\\\\P{Lu}$\"}",
         {"\"\\u00e9\\u03b1x\""},
         {"\"1\\u03b1x\""}},
        {2020, "{\"pattern\":\"^.$\"}", {"\"\\u0085\"", "\"\\uD83D\\uDE00\""}, {"\"\\u2028\"", "\"\\r\""}},
        {2020, "{\"pattern\":\"^[[:a]{1}{$\"}", {"\"[{\"", "\":{\""}, {"\"x{\""}},
        {2020,
         "{\"pattern\":\"^(?<n>a|b)\\\\k<n>(?:c)(?=d)(?!e)d(?<=d)\\\\1?$\"}",
         {"\"aacd\""},
         {"\"abcd\""}},
        {2020, "{\"pattern\":\"^[^]$\"}", {"\"\\n\""}, {"\"\""}},
        {2020, "{\"pattern\":\"[]\"}", {0}, {"\"a\"", "\"\""}},
        {2020, "{\"pattern\":\"^a\\\\/\\\\-\\\\.$\"}", {"\"a/-.\""}, {"\"a/-x\""}},
    };
    check(cases, SQ_COUNT(cases));
}

static void formats_are_judged_when_asked(void **state) {
    (void)state;
    static const keyword_case cases[] = {
        {2020,
         "{\"format\":\"date-time\"}",
         {"\"2024-02-29T12:00:00.5+01:30\"", "\"1998-12-31T23:59:60Z\"", "1"},
         {"\"2023-02-29T12:00:00Z\"", "\"2024-01-01T12:00:60Z\"", "\"2024-01-01\""}},
        {2020,
         "{\"format\":\"duration\"}",
         {"\"P1Y2M3DT4H5M6S\"", "\"P4W\"", "\"PT36H\""},
         {"\"P\"", "\"P1YT\"", "\"P1D2H\"", "\"PT1H3S\""}},
        {2020,
         "{\"format\":\"email\"}",
         {"\"a.b+c@example.com\"", "\"\\\"a b\\\"@x.org\"", "\"a@[127.0.0.1]\""},
         {"\"a\"", "\".a@x.org\"", "\"a@-x.org\""}},
        {2020, "{\"format\":\"hostname\"}", {"\"a-b.example\""}, {"\"-a\"", "\"a..b\"", "\"\"", "\"a_b\""}},
        {2020, "{\"format\":\"ipv4\"}", {"\"255.0.0.1\""}, {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
        {2020,
         "{\"format\":\"ipv6\"}",
         {"\"::\"", "\"1:2::ffff:1.2.3.4\"", "\"1:2:3:4:5:6:7:8\""},
         {"\"1::2::3\"", "\"12345::\"", "\"1:2:3:4:5:6:7\"", "\":1::\""}},
        {2020,
         "{\"format\":\"uri\"}",
         {"\"http://u:p@h:80/p?q#f\"", "\"urn:x:y\"", "\"http://[::1]/\""},
         {"\"/p\"", "\"http://a b/\"", "\"http://h/%zz\"", "\"http://[::1/\""}},
        {2020, "{\"format\":\"uri-reference\"}", {"\"../a?b\"", "\"#x\""}, {"\"a\\\\b\"", "\"1:b\""}},
        {2020, "{\"format\":\"iri\"}", {"\"http://h/\\u00e9\""}, {"\"\\u00e9\""}},
        {2020, "{\"format\":\"uri-template\"}", {"\"/a{?b,c*}{d:3}\""}, {"\"{a\"", "\"{}\"", "\"a}\""}},
        {2020,
         "{\"format\":\"uuid\"}",
         {"\"2EB8AA08-AA98-11EA-B4AA-73B441D16380\""},
         {"\"2eb8aa08-aa98-11ea-b4aa-73b441d1638\"", "\"2eb8aa08aa98-11ea-b4aa-73b441d163800\""}},
        {2020, "{\"format\":\"json-pointer\"}", {"\"\"", "\"/a~0~1\""}, {"\"a\"", "\"/~2\""}},
        {2020, "{\"format\":\"relative-json-pointer\"}", {"\"1/a\"", "\"0#\""}, {"\"/a\"", "\"01\"", "\"\""}},
        {2020, "{\"format\":\"regex\"}", {"\"a+\""}, {"\"(\"", "\"\\\\a\"", "\"a++\"", "\"(?i)a\""}},
        {2020, "{\"format\":\"no-such\"}", {"\"x\""}, {0}},
    };
    check(cases, SQ_COUNT(cases));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keywords_about_the_value_itself),
        cmocka_unit_test(keywords_that_apply_schemas),
        cmocka_unit_test(references_of_every_kind),
        cmocka_unit_test(older_drafts_differ_where_they_should),
        cmocka_unit_test(patterns_are_ecma_regexes),
        cmocka_unit_test(formats_are_judged_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
