/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_blob.c - compiled templates: they move freely, and a damaged one is refused or harmless. */
#include "support/tmpl_run.h"

#include <setjmp.h>

#include <cmocka.h>

static const char source[] =
    "{% macro m(a, b=1) %}{{ a ~ b }}{% endmacro %}{% for x in [1, 2.5, 'é'] if x != 3 %}{{ m(x, "
    "b=loop.index)|trim }}"
    "{% else %}none{% endfor %}{% set y = {'k': (1,)} %}{{ y.k[0:1] is defined and 1 < 2 }}";
static const char rendered[] = "112.52é3True";

static sq_buf compiled(void) {
    sq_buf blob;
    sq_buf_init(&blob, NULL, 1 << 20);
    assert_int_equal(sq_tmpl_compile(source, sizeof source - 1, NULL, &blob, NULL), SQUISH_OK);
    return blob;
}

/* Open and render; the status of whichever failed. */
static squish_status try_blob(const void *p, size_t n, sq_buf *out, squish_error *err) {
    sq_tmpl_view view;
    const sq_tmpl *t;
    const sq_tmpl_limits limits = {.steps_max = 20000, .output_max = 1 << 16};
    squish_status st = sq_tmpl_open(&view, (sq_span){p, n}, &t, err);
    return st == SQUISH_OK ? sq_tmpl_render(t, NULL, &limits, NULL, out, err) : st;
}

static void a_blob_works_wherever_it_lies(void **state) {
    (void)state;
    sq_buf blob = compiled(), again = compiled(), out;
    squish_error err = {0};
    assert_int_equal(blob.len, again.len);
    assert_memory_equal(blob.data, again.data, blob.len); /* the same source gives the same bytes */
    char *moved = malloc(blob.len + 8);
    for (size_t shift = 0; shift <= 4; shift += 4) {
        memcpy(moved + shift, blob.data, blob.len);
        sq_buf_init(&out, NULL, 1 << 16);
        assert_int_equal(try_blob(moved + shift, blob.len, &out, &err), SQUISH_OK);
        assert_string_equal(out.data, rendered);
        sq_buf_deinit(&out);
    }
    free(moved);
    sq_buf_deinit(&blob);
    sq_buf_deinit(&again);
}

static void a_cut_or_lengthened_blob_is_refused(void **state) {
    (void)state;
    sq_buf blob = compiled(), out;
    sq_buf_init(&out, NULL, 1 << 16);
    for (size_t n = 0; n < blob.len; n++) {
        squish_error err = {0};
        uint8_t *cut = malloc(n + 1); /* exact enough for ASan to see a step over the end */
        memcpy(cut, blob.data, n);
        assert_int_equal(try_blob(cut, n, &out, &err), SQUISH_CORRUPT);
        assert_true(err.text[0] != 0);
        free(cut);
    }
    sq_buf_putc(&blob, 0);
    assert_int_equal(try_blob(blob.data, blob.len, &out, NULL), SQUISH_CORRUPT);
    sq_buf_deinit(&blob);
    sq_buf_deinit(&out);
}

/* Every byte in turn, three ways: refused, or rendered to something within the limits. */
static void a_flipped_byte_is_refused_or_harmless(void **state) {
    (void)state;
    sq_buf blob = compiled();
    int refused = 0, ran = 0;
    for (size_t i = 0; i < blob.len; i++) {
        for (int how = 0; how < 3; how++) {
            char keep = blob.data[i];
            squish_error err = {0};
            sq_buf out;
            sq_buf_init(&out, NULL, 1 << 17);
            blob.data[i] = (char)(how == 0 ? keep ^ 1 : how == 1 ? keep + 7 : ~keep);
            squish_status st = try_blob(blob.data, blob.len, &out, &err);
            assert_true(st == SQUISH_OK || err.text[0] != 0);
            st == SQUISH_CORRUPT ? refused++ : ran++;
            blob.data[i] = keep;
            sq_buf_deinit(&out);
        }
    }
    print_message("%d changed bytes refused, %d rendered or stopped\n", refused, ran);
    assert_true(refused > 1000);
    assert_true(ran > 100); /* a changed letter of a text or a line number is still a template */
    sq_buf_deinit(&blob);
}

static void a_blob_off_its_alignment_is_refused(void **state) {
    (void)state;
    sq_buf blob = compiled(), out;
    sq_buf_init(&out, NULL, 1 << 16);
    char *moved = malloc(blob.len + 8);
    memcpy(moved + 1, blob.data, blob.len);
    squish_error err = {0};
    assert_int_equal(try_blob(moved + 1, blob.len, &out, &err), SQUISH_CORRUPT);
    free(moved);
    sq_buf_deinit(&blob);
    sq_buf_deinit(&out);
}

/* ---- single lies ----------------------------------------------------------------------------- */

static sq_tmpl_header *header(sq_buf *b) { return (sq_tmpl_header *)(void *)b->data; }
static sq_tmpl_node *nodes(sq_buf *b) { return (sq_tmpl_node *)(void *)(b->data + sizeof(sq_tmpl_header)); }
static uint32_t *lists(sq_buf *b) { return (uint32_t *)(void *)(nodes(b) + header(b)->n_nodes); }

static uint32_t find_node(sq_buf *b, int kind) {
    for (uint32_t i = 0; i < header(b)->n_nodes; i++)
        if (nodes(b)[i].kind == kind) return i;
    fail();
    return 0;
}

static void assert_corrupt(sq_buf *b, const char *words) {
    squish_error err = {0};
    sq_buf out;
    sq_buf_init(&out, NULL, 1 << 16);
    assert_int_equal(try_blob(b->data, b->len, &out, &err), SQUISH_CORRUPT);
    if (!strstr(err.text, words)) print_error("%s\n", err.text);
    assert_non_null(strstr(err.text, words));
    sq_buf_deinit(&out);
    sq_buf_deinit(b);
}

static void lies_in_the_tables_are_named(void **state) {
    (void)state;
    sq_buf b = compiled();
    header(&b)->version = 2;
    assert_corrupt(&b, "unknown version 2");

    b = compiled();
    uint32_t i = find_node(&b, SQ_TK_PRINT);
    nodes(&b)[i].arg[0] = i; /* its own child */
    assert_corrupt(&b, "a child does not come before node");

    b = compiled();
    i = find_node(&b, SQ_TK_FOR);
    nodes(&b)[i].arg[3] = nodes(&b)[i].arg[1]; /* an expression for a body */
    assert_corrupt(&b, "a child of the wrong kind under node");

    b = compiled();
    nodes(&b)[find_node(&b, SQ_TK_POSTFIX)].height = 1;
    assert_corrupt(&b, "a wrong height at node");

    b = compiled();
    nodes(&b)[find_node(&b, SQ_TK_STR)].arg[0] = header(&b)->n_strings;
    assert_corrupt(&b, "a string out of range under node");

    b = compiled();
    lists(&b)[nodes(&b)[header(&b)->n_nodes - 1].arg[0]] = UINT32_MAX;
    assert_corrupt(&b, "a list out of range under node");

    b = compiled();
    nodes(&b)[find_node(&b, SQ_TK_OPERAND)].op = 200;
    assert_corrupt(&b, "an unknown operator in node");

    b = compiled();
    nodes(&b)[0].kind = SQ_TK_COUNT;
    assert_corrupt(&b, "an unknown kind of node");

    b = compiled();
    header(&b)->n_nodes = UINT32_MAX;
    assert_corrupt(&b, "tables of");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_blob_works_wherever_it_lies),
        cmocka_unit_test(a_cut_or_lengthened_blob_is_refused),
        cmocka_unit_test(a_flipped_byte_is_refused_or_harmless),
        cmocka_unit_test(a_blob_off_its_alignment_is_refused),
        cmocka_unit_test(lies_in_the_tables_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
