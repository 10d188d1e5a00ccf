/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_page.c - the chat page inside the program: a whole table, and the bytes of the source. */
#include "api/api_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void the_page_is_found_under_its_paths(void **state) {
    (void)state;
    const sq_api_file *index = sq_api_page_find("/");
    assert_non_null(index);
    assert_string_equal(index->type, "text/html; charset=utf-8");
    assert_string_equal(sq_api_page_find("/page/app.js")->type, "text/javascript; charset=utf-8");
    assert_string_equal(sq_api_page_find("/page/style.css")->type, "text/css; charset=utf-8");
    assert_string_equal(sq_api_page_find("/page/icon.svg")->type, "image/svg+xml");
    assert_string_equal(sq_api_page_find("/page/third-party.txt")->type, "text/plain; charset=utf-8");
    assert_null(sq_api_page_find("/page/"));
    assert_null(sq_api_page_find("/page/../api_int.h"));
    assert_null(sq_api_page_find(""));
}

static void embedded_bytes_are_those_of_the_source(void **state) {
    (void)state;
    static const char *const names[] = {"index.html", "app.js", "markdown.js", "style.css", "icon.svg"};
    static unsigned char bytes[1 << 16];
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        char file[128], path[128];
        snprintf(file, sizeof file, "src/api/page/%s", names[i]);
        snprintf(path, sizeof path, i == 0 ? "/" : "/page/%s", names[i]);
        FILE *in = fopen(file, "rb");
        assert_non_null(in);
        const size_t n = fread(bytes, 1, sizeof bytes, in);
        fclose(in);
        const sq_api_file *f = sq_api_page_find(path);
        assert_non_null(f);
        assert_int_equal(f->bytes, n);
        assert_memory_equal(f->data, bytes, n);
    }
}

static void every_row_is_whole_and_has_a_tag_of_its_own(void **state) {
    (void)state;
    size_t n = 0;
    for (const sq_api_file *f = sq_api_files; f->path; f++, n++) {
        assert_int_equal(f->path[0], '/');
        assert_non_null(f->data);
        assert_true(f->bytes > 0);
        const size_t len = strlen(f->etag);
        assert_true(len > 4 && f->etag[0] == '"' && f->etag[len - 1] == '"');
        assert_null(memchr(f->etag + 1, '"', len - 2));
        for (const sq_api_file *g = sq_api_files; g != f; g++) {
            assert_string_not_equal(g->path, f->path);
            if (g->bytes != f->bytes) assert_string_not_equal(g->etag, f->etag);
        }
    }
    assert_true(n > 20);
}

/* Whatever index.html asks for is there: a name that was changed on one side only shows here. */
static void all_the_page_loads_is_embedded(void **state) {
    (void)state;
    const sq_api_file *index = sq_api_page_find("/");
    static char html[1 << 16];
    assert_true(index->bytes < sizeof html);
    memcpy(html, index->data, index->bytes);
    html[index->bytes] = '\0';
    int n = 0;
    for (const char *p = strstr(html, "\"/page/"); p; p = strstr(p + 1, "\"/page/"), n++) {
        char path[128];
        const size_t len = strcspn(p + 1, "\"");
        assert_true(len < sizeof path);
        snprintf(path, sizeof path, "%.*s", (int)len, p + 1);
        assert_non_null(sq_api_page_find(path));
    }
    assert_true(n >= 8);
    assert_null(strstr(html, "<script>"));
    assert_null(strstr(html, "style=\""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_found_under_its_paths),
        cmocka_unit_test(embedded_bytes_are_those_of_the_source),
        cmocka_unit_test(every_row_is_whole_and_has_a_tag_of_its_own),
        cmocka_unit_test(all_the_page_loads_is_embedded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
