/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_load.c - see tok_load.h. */
#include "support/tok_load.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void note_warning(void *user, const char *line) {
    sq_test_tok *t = user;
    t->n_warnings++;
    snprintf(t->warning, sizeof t->warning, "%s", line);
}

static void begin(sq_test_tok *t) {
    memset(t, 0, sizeof *t);
    sq_buf_init(&t->blob, NULL, SIZE_MAX / 4);
}

static squish_status finish(sq_test_tok *t, squish_status st) {
    if (st != SQUISH_OK) return st;
    return sq_tok_open(&t->view, (sq_span){(const uint8_t *)t->blob.data, t->blob.len}, NULL, &t->tok,
                       &t->err);
}

squish_status sq_test_tok_hf(sq_test_tok *t, const sq_tok_hf_source *src) {
    begin(t);
    return finish(t, sq_tok_compile_hf(src, NULL, &t->blob, note_warning, t, &t->err));
}

squish_status sq_test_tok_json(sq_test_tok *t, const char *json) {
    sq_tok_hf_source src = {.tokenizer_json = {(const uint8_t *)json, strlen(json)}};
    return sq_test_tok_hf(t, &src);
}

squish_status sq_test_tok_gguf(sq_test_tok *t, const sq_tok_gguf_source *src) {
    begin(t);
    return finish(t, sq_tok_compile_gguf(src, NULL, &t->blob, note_warning, t, &t->err));
}

squish_status sq_test_tok_base(sq_test_tok *t, const char *base, const char *patch) {
    char path[256];
    snprintf(path, sizeof path, "tests/golden/tok/bases/%s.json", base);
    json_t *j = json_load_file(path, 0, NULL), *p = patch ? json_loads(patch, 0, NULL) : NULL;
    if (!j || (patch && !p)) return sq_fail(&t->err, SQUISH_IO, "cannot read %s or its patch", path);
    if (p) json_object_update(j, p);
    char *text = json_dumps(j, JSON_COMPACT);
    squish_status st = sq_test_tok_json(t, text);
    free(text);
    json_decref(p);
    json_decref(j);
    return st;
}

const char *sq_test_tok_ids(const sq_tok *t, const char *text, size_t n, unsigned flags, char *out,
                            size_t out_n) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    int32_t *ids;
    size_t n_ids, at = 0;
    squish_error err = {0};
    out[0] = '\0';
    if (sq_tok_encode(t, text, n, flags, &ar, &ids, &n_ids, &err) != SQUISH_OK)
        snprintf(out, out_n, "%s", err.text);
    for (size_t i = 0; i < n_ids && at + 16 < out_n; i++)
        at += (size_t)snprintf(out + at, out_n - at, i ? " %d" : "%d", (int)ids[i]);
    sq_arena_deinit(&ar);
    return out;
}

const char *sq_test_tok_text(const sq_tok *t, const int32_t *ids, size_t n, bool special, char *out,
                             size_t out_n) {
    sq_buf b;
    sq_buf_init(&b, NULL, out_n - 1);
    sq_detok d;
    sq_detok_init(&d, t, special, true);
    for (size_t i = 0; i < n; i++) sq_detok_push(&d, ids[i], &b);
    sq_detok_finish(&d, &b);
    snprintf(out, out_n, "%s", b.data ? b.data : "");
    sq_buf_deinit(&b);
    return out;
}

void sq_test_tok_free(sq_test_tok *t) {
    sq_tok_close(t->tok);
    sq_buf_deinit(&t->blob);
    t->tok = NULL;
}

char *sq_test_slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    *n = 0;
    if (!f) return NULL;
    char *p = NULL;
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    rewind(f);
    if (size >= 0 && (p = malloc((size_t)size + 1)) != NULL) {
        *n = fread(p, 1, (size_t)size, f);
        p[*n] = '\0';
    }
    fclose(f);
    return p;
}
