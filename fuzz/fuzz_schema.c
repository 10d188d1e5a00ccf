/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_schema.c - schema and instance from strangers: there is a verdict or a status within the limits, the
 * verdict does not depend on whether anybody listens, a false one has a reason, and reasons are UTF-8.
 * Input: schema, a zero byte, instance. */
#include "squish.h"

#include "base/base.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void hear(void *user, const squish_schema_violation *v) {
    ++*(int *)user;
    if (!sq_utf8_valid(v->text, strlen(v->text)) || (*v->at && *v->at != '/') || !strchr(v->keyword, '#'))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data, *cut = size ? memchr(text, 0, size) : NULL;
    const size_t n = cut ? (size_t)(cut - text) : size;
    static const squish_schema_document other = {
        "http://x/other", "{\"$defs\":{\"a\":{\"$anchor\":\"a\",\"type\":\"integer\"}}}", 48};
    squish_schema_options opt = squish_schema_options_default();
    opt.documents = &other;
    opt.n_documents = 1;
    opt.assert_format = size & 1;
    opt.steps_max = 20000;
    squish_schema *s = NULL;
    squish_error err = {0};
    const squish_status st = squish_schema_new(&s, text, n, &opt, &err);
    if ((st == SQUISH_OK) != (s != NULL) || !sq_utf8_valid(err.text, strlen(err.text))) abort();
    if (!s || !cut) {
        squish_schema_free(s);
        return 0;
    }
    int complaints = 0;
    bool loud = false, silent = false;
    const squish_status a = squish_schema_validate(s, cut + 1, size - n - 1, hear, &complaints, &loud, &err);
    const squish_status b = squish_schema_validate(s, cut + 1, size - n - 1, NULL, NULL, &silent, NULL);
    if (a == SQUISH_OK && b == SQUISH_OK && loud != silent) abort();
    if (a == SQUISH_OK && loud != (complaints == 0)) abort();
    squish_schema_free(s);
    return 0;
}
