/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_schema.c - JSON Schema as a grammar: every keyword, against the validator, which shares no code
 * with it.
 *
 * Each schema of a list becomes a grammar that reads each instance of another list, and must take those that
 * the validator calls valid and no others. What cannot be said exactly is refused by name; bombs end within
 * their limits. */
#include "grammar/grammar.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const schemas[] = {
    "true",
    "{\"type\":\"integer\"}",
    "{\"type\":[\"null\",\"boolean\"]}",
    "{\"type\":\"number\",\"minimum\":0.5}",
    "{\"type\":\"number\",\"exclusiveMinimum\":-2.25,\"maximum\":10.5}",
    "{\"exclusiveMaximum\":1e1,\"minimum\":-1}",
    "{\"type\":\"integer\",\"minimum\":-2.5,\"maximum\":7.5}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":3}",
    "{\"multipleOf\":3}",
    "{\"multipleOf\":0.25}",
    "{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":-20,\"maximum\":40}",
    "{\"not\":{\"multipleOf\":2}}",
    "{\"enum\":[1,\"a\",null,[1],{\"a\":1}]}",
    "{\"const\":2.5}",
    "{\"const\":{\"a\":[1,null]}}",
    "{\"enum\":[1,2,3,12,\"a\",\"bb\"],\"minimum\":2,\"maxLength\":1}",
    "{\"not\":{\"enum\":[1,\"a\",true,[1]]}}",
    "{\"not\":{\"const\":{\"a\":1}}}",
    "{\"minLength\":1,\"maxLength\":2}",
    "{\"not\":{\"minLength\":2}}",
    "{\"pattern\":\"^a|b$\"}",
    "{\"type\":\"string\",\"pattern\":\"b\",\"not\":{\"pattern\":\"^a\"}}",
    "{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"},{\"maxLength\":3}]}",
    "{\"format\":\"ipv4\"}",
    "{\"format\":\"date\"}",
    "{\"not\":{\"format\":\"date\"}}",
    "{\"format\":\"of-no-standard\"}",
    "{\"items\":{\"type\":\"integer\"}}",
    "{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"items\":false}",
    "{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"string\"},\"minItems\":1}",
    "{\"type\":\"array\",\"minItems\":1,\"maxItems\":2}",
    "{\"not\":{\"items\":{\"type\":\"integer\"}}}",
    "{\"not\":{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"integer\"}]}}",
    "{\"not\":{\"minItems\":2}}",
    "{\"contains\":{\"type\":\"integer\"}}",
    "{\"contains\":{\"const\":1},\"minContains\":2,\"maxContains\":2}",
    "{\"contains\":{\"const\":1},\"maxContains\":1,\"items\":{\"type\":\"integer\"}}",
    "{\"contains\":{\"const\":1},\"minContains\":0}",
    "{\"not\":{\"contains\":{\"const\":1}}}",
    "{\"allOf\":[{\"contains\":{\"const\":1}},{\"contains\":{\"const\":2}}],\"minItems\":3}",
    "{\"items\":{\"enum\":[1,2,\"a\",null]},\"uniqueItems\":true}",
    "{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":false,\"uniqueItems\":true}",
    "{\"maxItems\":1,\"uniqueItems\":true}",
    "{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\"}},\"required\":[\"a\"]}",
    "{\"properties\":{\"a\":true},\"additionalProperties\":false}",
    "{\"properties\":{\"a\":{}},\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"required\":[\"b\",\"a\"]}",
    "{\"minProperties\":1,\"maxProperties\":2}",
    "{\"properties\":{\"a\":{},\"b\":{}},\"minProperties\":2}",
    "{\"properties\":{\"a\":{},\"b\":{}},\"maxProperties\":1}",
    "{\"not\":{\"minProperties\":1}}",
    "{\"not\":{\"required\":[\"a\",\"b\"]}}",
    "{\"not\":{\"properties\":{\"a\":{\"type\":\"integer\"}}}}",
    "{\"patternProperties\":{\"^a\":{\"type\":\"integer\"}}}",
    "{\"patternProperties\":{\"^a\":{\"type\":\"integer\"},\"b$\":{\"minimum\":2}},\"additionalProperties\":"
    "false}",
    "{\"properties\":{\"ab\":{\"type\":\"integer\"}},\"patternProperties\":{\"b\":{\"maximum\":1}}}",
    "{\"not\":{\"patternProperties\":{\"^a\":{\"type\":\"integer\"}}}}",
    "{\"not\":{\"properties\":{\"a\":{}},\"additionalProperties\":{\"type\":\"integer\"}}}",
    "{\"propertyNames\":{\"maxLength\":1}}",
    "{\"propertyNames\":{\"enum\":[\"a\",\"b\"]},\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"not\":{\"propertyNames\":{\"pattern\":\"^a\"}}}",
    "{\"dependentRequired\":{\"a\":[\"b\"]}}",
    "{\"not\":{\"dependentRequired\":{\"a\":[\"b\"]}}}",
    "{\"dependentSchemas\":{\"a\":{\"properties\":{\"b\":{\"type\":\"integer\"}}}}}",
    "{\"$schema\":\"http://json-schema.org/draft-07/"
    "schema#\",\"dependencies\":{\"a\":[\"b\"],\"b\":{\"maxProperties\":2}}}",
    "{\"anyOf\":[{\"type\":\"integer\"},{\"minLength\":2}]}",
    "{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}",
    "{\"oneOf\":[{\"required\":[\"a\"]},{\"required\":[\"b\"]}]}",
    "{\"oneOf\":[{\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"]},{\"properties\":{\"a\":{"
    "\"const\":2}},"
    "\"required\":[\"a\",\"b\"]}]}",
    "{\"not\":{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}}",
    "{\"not\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}}",
    "{\"not\":{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}}",
    "{\"not\":{\"not\":{\"type\":\"integer\"}}}",
    "{\"if\":{\"type\":\"integer\"},\"then\":{\"minimum\":2},\"else\":{\"type\":\"string\"}}",
    "{\"if\":{\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"]},\"then\":{\"required\":[\"b\"]}}",
    "{\"not\":{\"if\":{\"type\":\"integer\"},\"then\":{\"minimum\":2}}}",
    "{\"$ref\":\"#/$defs/x\",\"maximum\":2,\"$defs\":{\"x\":{\"type\":\"integer\"}}}",
    "{\"$ref\":\"#x\",\"$defs\":{\"y\":{\"$anchor\":\"x\",\"type\":\"string\"}}}",
    "{\"$dynamicRef\":\"#x\",\"$defs\":{\"y\":{\"$dynamicAnchor\":\"x\",\"type\":\"string\"}}}",
    "{\"$id\":\"http://x.test/a/b\",\"$ref\":\"../"
    "c\",\"$defs\":{\"y\":{\"$id\":\"/c\",\"type\":\"null\"}}}",
    "{\"items\":{\"$ref\":\"#\"},\"type\":[\"array\",\"integer\"]}",
    "{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"additionalProperties\":false}",
    "{\"not\":{\"items\":{\"$ref\":\"#/$defs/"
    "n\"}},\"$defs\":{\"n\":{\"type\":[\"array\",\"null\"],\"items\":{\"$ref\":"
    "\"#/$defs/n\"}}}}",
    "{\"properties\":{\"a\":true},\"unevaluatedProperties\":false}",
    "{\"anyOf\":[{\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"integer\"}}},{\"properties\":{\"b\":"
    "{\"type\":"
    "\"string\"}}}],\"unevaluatedProperties\":false}",
    "{\"allOf\":[{\"patternProperties\":{\"^a\":true}}],\"unevaluatedProperties\":{\"type\":\"string\"}}",
    "{\"prefixItems\":[true],\"unevaluatedItems\":{\"type\":\"string\"}}",
    "{\"contains\":{\"type\":\"integer\"},\"unevaluatedItems\":{\"type\":\"null\"}}",
    "{\"title\":\"t\",\"$comment\":\"c\",\"examples\":[1],\"of-no-standard\":{\"type\":3},\"type\":"
    "\"string\"}",
};

static const char *const instances[] = {"null",
                                        "true",
                                        "false",
                                        "0",
                                        "1",
                                        "2",
                                        "3",
                                        "-1",
                                        "-2",
                                        "-3",
                                        "7",
                                        "12",
                                        "14",
                                        "2.5",
                                        "0.5",
                                        "0.25",
                                        "-2.25",
                                        "-2.24",
                                        "10.5",
                                        "10.51",
                                        "7.0",
                                        "0.3",
                                        "9.99",
                                        "100",
                                        "\"\"",
                                        "\"a\"",
                                        "\"b\"",
                                        "\"ab\"",
                                        "\"bb\"",
                                        "\"ba\"",
                                        "\"cab\"",
                                        "\"abab\"",
                                        "\"\\n\"",
                                        "\"\xC3\xA9\"",
                                        "\"1.2.3.4\"",
                                        "\"1.2.3.256\"",
                                        "\"2024-02-29\"",
                                        "\"2023-02-29\"",
                                        "[]",
                                        "[1]",
                                        "[2]",
                                        "[null]",
                                        "[1,1]",
                                        "[1,2]",
                                        "[2,1]",
                                        "[1,null]",
                                        "[1,\"a\"]",
                                        "[\"a\",1]",
                                        "[\"a\"]",
                                        "[1,2,1]",
                                        "[1,2,3]",
                                        "[2,3,1]",
                                        "[1,1,1]",
                                        "[2,1,2]",
                                        "[null,\"a\",1,2]",
                                        "[[]]",
                                        "[[1]]",
                                        "[[null]]",
                                        "[[[]],null]",
                                        "[true,\"a\"]",
                                        "{}",
                                        "{\"a\":1}",
                                        "{\"a\":2}",
                                        "{\"a\":\"x\"}",
                                        "{\"b\":1}",
                                        "{\"b\":\"x\"}",
                                        "{\"ab\":1}",
                                        "{\"ab\":2}",
                                        "{\"c\":1}",
                                        "{\"a\":1,\"b\":1}",
                                        "{\"a\":2,\"b\":1}",
                                        "{\"a\":1,\"b\":\"x\"}",
                                        "{\"b\":\"x\",\"a\":1}",
                                        "{\"b\":2,\"a\":2,\"c\":3}",
                                        "{\"a\":1,\"c\":\"x\"}",
                                        "{\"a\":1,\"c\":null}",
                                        "{\"a\":[1,null]}",
                                        "{\"a\":{}}",
                                        "{\"a\":{\"a\":{}}}",
                                        "{\"a\":{\"b\":1}}",
                                        "{\"aa\":\"x\",\"c\":1}",
                                        "{\"aa\":\"x\",\"c\":\"y\"}",
                                        "{\"bab\":2,\"aab\":3}"};

static bool reads(sq_gram *g, const char *text) {
    sq_matcher *m;
    bool ok;
    squish_error err = {0};
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, &err), SQUISH_OK);
    if (sq_matcher_bytes(m, text, strlen(text), &ok, &err) != SQUISH_OK) fail_msg("%s", err.text);
    ok = ok && sq_matcher_may_end(m);
    sq_matcher_free(m);
    return ok;
}

static void a_grammar_reads_what_the_validator_calls_valid(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < SQ_COUNT(schemas); i++) {
        const char *s = schemas[i];
        squish_schema_options opt = squish_schema_options_default();
        opt.assert_format = true;
        squish_schema *referee;
        sq_gram *g;
        squish_error err = {0};
        if (squish_schema_new(&referee, s, strlen(s), &opt, &err) != SQUISH_OK)
            fail_msg("%s: %s", s, err.text);
        if (sq_gram_new(&g, SQ_GRAM_SCHEMA_LOOSE, s, strlen(s), NULL, &err) != SQUISH_OK)
            fail_msg("%s: %s", s, err.text);
        for (size_t k = 0; k < SQ_COUNT(instances); k++) {
            const char *t = instances[k];
            bool valid;
            if (squish_schema_validate(referee, t, strlen(t), NULL, NULL, &valid, &err) != SQUISH_OK)
                fail_msg("%s on %s: %s", s, t, err.text);
            if (reads(g, t) == valid) continue;
            print_message("%s: %s is %s\n", s, t, valid ? "valid" : "invalid");
            wrong++;
        }
        sq_gram_free(g);
        squish_schema_free(referee);
    }
    assert_int_equal(wrong, 0);
}

/* "aaa@a.a.a" with so many characters before and behind the @; local 0: only the host. */
static void put_mail(char *out, int local, int host) {
    char *p = out;
    *p++ = '"';
    for (int i = 0; i < local; i++) *p++ = 'a';
    if (local) *p++ = '@';
    for (int i = 0; i < host; i++) *p++ = i % 2 == 0 || i + 1 == host ? 'a' : '.';
    *p++ = '"';
    *p = 0;
}

static void names_and_hosts_are_as_long_as_the_validator_has_them(void **state) {
    (void)state;
    static const char *const formats[] = {"{\"format\":\"email\"}", "{\"format\":\"hostname\"}"};
    int n_valid = 0;
    for (int f = 0; f < 2; f++) {
        squish_schema_options opt = squish_schema_options_default();
        opt.assert_format = true;
        squish_schema *referee;
        sq_gram *g;
        const char *s = formats[f];
        assert_int_equal(squish_schema_new(&referee, s, strlen(s), &opt, NULL), SQUISH_OK);
        assert_int_equal(sq_gram_new(&g, SQ_GRAM_SCHEMA, s, strlen(s), NULL, NULL), SQUISH_OK);
        for (int local = f ? 0 : 60; local <= (f ? 0 : 68); local++)
            for (int host = 248; host <= 258; host++) {
                char t[512];
                bool valid;
                put_mail(t, local, host);
                assert_int_equal(squish_schema_validate(referee, t, strlen(t), NULL, NULL, &valid, NULL),
                                 SQUISH_OK);
                if (reads(g, t) != valid) fail_msg("%s: %d, %d: %d", s, local, host, valid);
                n_valid += valid;
            }
        sq_gram_free(g);
        squish_schema_free(referee);
    }
    assert_int_equal(n_valid, 6 * 5 + 6); /* 248 to 253; 60 to 64 */
}

/* Of an answer, that is in one order; everything it reads is valid. */
static void a_grammar_for_answers_reads_nothing_else(void **state) {
    (void)state;
    int n_read = 0;
    for (size_t i = 0; i < SQ_COUNT(schemas); i++) {
        const char *s = schemas[i];
        sq_gram *strict, *loose;
        assert_int_equal(sq_gram_new(&strict, SQ_GRAM_SCHEMA, s, strlen(s), NULL, NULL), SQUISH_OK);
        assert_int_equal(sq_gram_new(&loose, SQ_GRAM_SCHEMA_LOOSE, s, strlen(s), NULL, NULL), SQUISH_OK);
        for (size_t k = 0; k < SQ_COUNT(instances); k++) {
            if (!reads(strict, instances[k])) continue;
            n_read++;
            if (!reads(loose, instances[k])) fail_msg("%s: %s", s, instances[k]);
        }
        sq_gram_free(strict);
        sq_gram_free(loose);
    }
    assert_true(n_read > 2000);
}

static const struct {
    const char *source;
    squish_status status;
    const char *says;
} refusals[] = {
    {"{\"type\":\"strange\"}", SQUISH_INVALID, "'type' is no type, at '#'"},
    {"{\"minLength\":-1}", SQUISH_INVALID, "'minLength' is no count"},
    {"{\"minItems\":99999999}", SQUISH_UNSUPPORTED, "'minItems' is over the limit"},
    {"{\"properties\":3}", SQUISH_INVALID, "'properties' is no object"},
    {"{\"required\":[3]}", SQUISH_INVALID, "'required' has an item"},
    {"{\"enum\":3}", SQUISH_INVALID, "'enum' is no array"},
    {"{\"anyOf\":3}", SQUISH_INVALID, "'anyOf' is no array"},
    {"{\"multipleOf\":0}", SQUISH_INVALID, "'multipleOf' is no number above 0"},
    {"{\"multipleOf\":123457}", SQUISH_UNSUPPORTED, "'multipleOf' has more digits"},
    {"{\"items\":3}", SQUISH_INVALID, "neither an object nor a boolean"},
    {"{\"properties\":{\"a/b\":{\"uniqueItems\":true}}}", SQUISH_UNSUPPORTED,
     "'uniqueItems' of items that cannot be listed is not supported, at '#/properties/a~1b'"},
    {"{\"not\":{\"uniqueItems\":true}}", SQUISH_UNSUPPORTED,
     "'uniqueItems' under 'not' is not supported, at '#/not'"},
    {"{\"not\":{\"unevaluatedProperties\":false}}", SQUISH_UNSUPPORTED,
     "'unevaluatedProperties' under 'not'"},
    {"{\"format\":\"idn-hostname\"}", SQUISH_UNSUPPORTED, "'format' of this kind"},
    {"{\"disallow\":\"string\"}", SQUISH_UNSUPPORTED, "'disallow' is not supported"},
    {"{\"pattern\":\"(?=a)\"}", SQUISH_UNSUPPORTED, "a look around"},
    {"{\"$ref\":\"http://x.test/\"}", SQUISH_UNSUPPORTED, "'$ref' leads out of the schema"},
    {"{\"$ref\":\"#/a\"}", SQUISH_INVALID, "'$ref' leads nowhere"},
    {"{\"$ref\":\"#\"}", SQUISH_INVALID, "'$ref' leads back to itself"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},true]}", SQUISH_INVALID, "'$ref' leads back to itself"},
    {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":1}", SQUISH_INVALID, "matches nothing"},
    {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", SQUISH_INVALID, "matches nothing"},
    {"{\"contains\":true,\"maxContains\":3000,\"allOf\":[{\"contains\":{\"type\":\"null\"},\"minContains\":9}"
     "],\"type\":"
     "\"array\"}",
     SQUISH_UNSUPPORTED, "'contains' counts further"},
};

/* Of n digits: the first, then the same one over and over, then the last. */
static bool reads_digits(const char *schema, bool loose, int n, char first, char between, char last) {
    char text[400];
    sq_gram *g;
    const sq_gram_kind kind = loose ? SQ_GRAM_SCHEMA_LOOSE : SQ_GRAM_SCHEMA;
    memset(text, between, (size_t)n);
    text[0] = first;
    text[n - 1] = last;
    text[n] = 0;
    assert_int_equal(sq_gram_new(&g, kind, schema, strlen(schema), NULL, NULL), SQUISH_OK);
    const bool ok = reads(g, text);
    sq_gram_free(g);
    return ok;
}

/* A model may run away in digits; others may have written what they like. */
static void numbers_that_are_multiples_or_not_end_in_answers(void **state) {
    (void)state;
    static const char even[] = "{\"type\":\"integer\",\"multipleOf\":2,\"minimum\":100}",
                      thousands[] = "{\"type\":\"integer\",\"multipleOf\":1000}",
                      odd[] = "{\"type\":\"integer\",\"not\":{\"multipleOf\":2}}";
    assert_true(reads_digits(even, false, 128, '1', '7', '2'));
    assert_false(reads_digits(even, false, 128, '1', '7', '3'));
    assert_false(reads_digits(even, false, 129, '1', '7', '2'));
    assert_true(reads_digits(even, true, 300, '1', '7', '2'));
    assert_true(reads_digits(thousands, false, 128, '1', '0', '0'));
    assert_false(reads_digits(thousands, false, 128, '1', '0', '1'));
    assert_true(reads_digits(odd, false, 128, '1', '7', '3'));
    assert_false(reads_digits(odd, false, 300, '1', '7', '3'));
    assert_true(reads_digits(odd, true, 300, '1', '7', '3'));
    assert_false(reads_digits(odd, true, 300, '1', '7', '2'));
}

/* No beginning of a number is taken that no digits are left for: each way to go on has an end. digit: taken
 * where it may be, else the next one down, round and round. */
static void check_last_digits(const char *schema, char digit) {
    sq_gram *g;
    sq_matcher *m;
    bool ok = true;
    int n = 0;
    squish_error err = {0};
    if (sq_gram_new(&g, SQ_GRAM_SCHEMA, schema, strlen(schema), NULL, &err) != SQUISH_OK)
        fail_msg("%s: %s", schema, err.text);
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    while (ok && n++ < 600) {
        char d = digit;
        for (int i = 0; i < 10; i++, d = d == '0' ? '9' : (char)(d - 1)) {
            assert_int_equal(sq_matcher_bytes(m, &d, 1, &ok, NULL), SQUISH_OK);
            if (ok) break;
        }
    }
    if (!ok && !sq_matcher_may_end(m)) fail_msg("%s: no way on behind %d digits from %c", schema, n, digit);
    sq_matcher_free(m);
    sq_gram_free(g);
}

static void the_last_digits_of_a_number_are_looked_to(void **state) {
    (void)state;
    static const char *const numbers[] = {
        "{\"multipleOf\":9973}",
        "{\"allOf\":[{\"multipleOf\":5},{\"multipleOf\":7},{\"multipleOf\":11}]}",
        "{\"multipleOf\":1000,\"not\":{\"multipleOf\":2000}}",
        "{\"multipleOf\":11,\"not\":{\"anyOf\":[{\"multipleOf\":7},{\"multipleOf\":5}]}}",
        "{\"not\":{\"anyOf\":[{\"multipleOf\":2},{\"multipleOf\":3},{\"multipleOf\":7}]}}",
        "{\"multipleOf\":5,\"oneOf\":[{\"not\":{\"multipleOf\":5}},{\"multipleOf\":7}]}",
        "{\"allOf\":[{\"multipleOf\":101},{\"multipleOf\":103}]}",
    };
    for (size_t i = 0; i < SQ_COUNT(numbers); i++) {
        char schema[200];
        snprintf(schema, sizeof schema, "{\"type\":\"integer\",%s", numbers[i] + 1);
        for (char digit = '0'; digit <= '9'; digit++) check_last_digits(schema, digit);
    }
}

static void what_cannot_be_said_is_refused_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(refusals); i++) {
        sq_gram *g = NULL;
        squish_error err = {0};
        const char *s = refusals[i].source;
        const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA, s, strlen(s), NULL, &err);
        if (st != refusals[i].status || !strstr(err.text, refusals[i].says) || g)
            fail_msg("%s: status %d, '%s'", s, st, err.text);
    }
}

/* ---- bombs ------------------------------------------------------------------------------------ */

typedef struct {
    char *s;
    size_t n, cap;
} text;

static void put(text *t, const char *s) {
    const size_t n = strlen(s);
    if (t->n + n + 1 > t->cap) {
        t->cap = (t->n + n + 1) * 2;
        t->s = realloc(t->s, t->cap);
        assert_non_null(t->s);
    }
    memcpy(t->s + t->n, s, n + 1);
    t->n += n;
}

/* `part`, where every @ is the number of the part, n times, with commas between. */
static void put_many(text *t, const char *part, int n) {
    for (int i = 0; i < n; i++) {
        if (i) put(t, ",");
        for (const char *s = part; *s; s++) {
            char c[16] = {*s};
            if (*s == '@') snprintf(c, sizeof c, "%d", i);
            put(t, c);
        }
    }
}

static void nested(text *t) {
    for (int i = 0; i < 60000; i++) put(t, "{\"not\":");
}

static const struct {
    const char *name, *before, *part;
    int n;
    const char *after;
    bool compiles;
} bombs[] = {
    {"a long string, one level down",
     "{\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":2000,\"maxLength\":65536}}", "", 0, "}",
     true},
    {"an object without properties", "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false",
     "", 0, "}", true},
    {"digits and word ends in patterns", "{\"type\":\"string\",\"pattern\":\"^\\\\d{3,5000}$\"", "", 0, "}",
     true},
    {"a word end in a pattern", "{\"type\":\"string\",\"pattern\":\"\\\\bx\"", "", 0, "}", false},
    {"an expression of maybes", "{\"type\":\"string\",\"pattern\":\"^(a? a? a? a? a? a? a? a? a? a?)*$\"", "",
     0, "}", true},
    {"repetitions multiplied", "{\"type\":\"string\",\"pattern\":\"^((a{1,1000}){1,1000}){1,1000}$\"", "", 0,
     "}", true},
    {"plus in plus", "{\"type\":\"string\",\"pattern\":\"^(a+)+$\"", "", 0, "}", true},
    {"ten thousand values", "{\"enum\":[", "\"value-@\"", 10000, "]}", true},
    {"ten thousand values that are not", "{\"type\":\"string\",\"not\":{\"enum\":[", "\"value-@\"", 10000,
     "]}}", true},
    {"two thousand members", "{\"type\":\"object\",\"properties\":{", "\"m@\":{\"type\":\"integer\"}", 2000,
     "}}", true},
    {"patterns that overlap", "{\"type\":\"object\",\"patternProperties\":{", "\"[a-z]*@\":{\"minimum\":@}",
     30, "}}", false},
    {"a choice of choices", "{\"allOf\":[", "{\"anyOf\":[{\"required\":[\"a@\"]},{\"required\":[\"b@\"]}]}",
     30, "]}", false},
    {"one of many that overlap", "{\"oneOf\":[", "{\"properties\":{\"a@\":{\"type\":\"integer\"}}}", 200,
     "]}", false},
    {"a chain of references", "{\"$ref\":\"#/$defs/0\",\"$defs\":{\"5000\":true,",
     "\"@\":{\"$ref\":\"#/$defs/x@\"},\"x@\":{\"$ref\":\"#/$defs/y@\"},\"y@\":{}", 5000, "}}", true},
    {"recursion three ways",
     "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"},\"b\":{\"$ref\":\"#\"},\"c\":{\"$ref\":\"#"
     "\"}}",
     "", 0, "}", true},
    {"ten thousand items", "{\"prefixItems\":[", "{\"const\":@}", 10000, "]}", true},
    {"a count of counts",
     "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"minItems\":5000,\"items\":{\"type\":\"array\","
     "\"minItems\":"
     "5000}},\"minItems\":5000",
     "", 0, "}", true},
};

static void check_bomb(const char *name, const text *t, bool compiles) {
    struct sq_test_alloc_state memory = {0};
    const squish_alloc a = sq_test_alloc(&memory);
    sq_gram *g = NULL;
    squish_error err = {0};
    const uint64_t begin = sq_os_now_ns();
    const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA, t->s, t->n, &a, &err);
    const double ms = (double)(sq_os_now_ns() - begin) / 1e6;
    print_message("%s: %.1f ms, %.1f MiB, %s\n", name, ms, (double)memory.peak_bytes / 0x1p20,
                  st == SQUISH_OK ? "compiled" : err.text);
    if ((st == SQUISH_OK) != compiles) fail_msg("%s: %s", name, err.text);
    assert_true(memory.peak_bytes <= 64 << 20);
    sq_gram_free(g);
    assert_int_equal(memory.live_blocks, 0);
}

static void bombs_are_compiled_or_refused_within_64_mib(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(bombs); i++) {
        text t = {0};
        put(&t, bombs[i].before);
        put_many(&t, bombs[i].part, bombs[i].n);
        put(&t, bombs[i].after);
        check_bomb(bombs[i].name, &t, bombs[i].compiles);
        free(t.s);
    }
    text t = {0};
    nested(&t);
    check_bomb("sixty thousand in each other", &t, false);
    free(t.s);
}

static void a_failed_allocation_is_a_status_and_leaves_nothing(void **state) {
    (void)state;
    static const char source[] = "{\"oneOf\":[{\"type\":\"integer\",\"multipleOf\":3},{\"properties\":{\"a\":"
                                 "{\"$ref\":\"#\"},\"b\":{\"enum\":[1,"
                                 "\"x\"]}},\"patternProperties\":{\"^x\":{\"not\":{\"minLength\":2}}},"
                                 "\"required\":[\"a\"],\"type\":\"object\"},"
                                 "{\"contains\":{\"const\":1},\"maxContains\":2,\"type\":\"array\"}]}";
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state memory = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&memory);
        sq_gram *g = NULL;
        const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA_LOOSE, source, sizeof source - 1, &a, NULL);
        sq_gram_free(g);
        assert_int_equal(memory.live_blocks, 0);
        assert_int_equal(memory.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grammar_reads_what_the_validator_calls_valid),
        cmocka_unit_test(a_grammar_for_answers_reads_nothing_else),
        cmocka_unit_test(names_and_hosts_are_as_long_as_the_validator_has_them),
        cmocka_unit_test(numbers_that_are_multiples_or_not_end_in_answers),
        cmocka_unit_test(the_last_digits_of_a_number_are_looked_to),
        cmocka_unit_test(what_cannot_be_said_is_refused_by_name),
        cmocka_unit_test(bombs_are_compiled_or_refused_within_64_mib),
        cmocka_unit_test(a_failed_allocation_is_a_status_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
