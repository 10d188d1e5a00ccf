/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_read.c - what hubs answer, read strictly, and which of a repository's files a model needs.
 *
 *   GET /api/models/USER/REPO/revision/REV   {"sha", "gated", "cardData": {"license"}, "tags":
 * ["license:.."]} GET /api/models/USER/REPO/tree/SHA       [{"type": "file", "path", "size", "oid", "lfs":
 * {"oid", "size"}}] GET /v2/REPO/manifests/TAG               {"layers": [{"mediaType", "digest", "size"}]}
 *
 * A large file has the SHA-256 of its bytes as lfs.oid; a small one has oid, the SHA-1 of its git blob. */
#include "format/json.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { FILES_MAX = 4096 };

void hub_listing_init(hub_listing *l) {
    const squish_alloc a = sq_alloc_default();
    *l = (hub_listing){0};
    sq_arena_init(&l->arena, &a, 64 << 10, 0);
}

void hub_listing_free(hub_listing *l) {
    sq_arena_deinit(&l->arena);
    *l = (hub_listing){0};
}

bool hub_add_file(hub_listing *l, const char *path, uint64_t bytes, fetch_sum kind, const char *sum) {
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 32;
        hub_file *more = SQ_ARENA_ARRAY(&l->arena, hub_file, cap);
        if (!more) return false;
        if (l->n) memcpy(more, l->files, l->n * sizeof *more);
        l->files = more;
        l->cap = cap;
    }
    hub_file *f = &l->files[l->n++];
    *f = (hub_file){.bytes = bytes, .kind = kind};
    snprintf(f->path, sizeof f->path, "%s", path);
    snprintf(f->as, sizeof f->as, "%s", path);
    snprintf(f->sum, sizeof f->sum, "%s", sum ? sum : "");
    return true;
}

/* ---- Hugging Face ---------------------------------------------------------------------------- */

static bool is_hex(const char *s, size_t n) { return strlen(s) == n && strspn(s, "0123456789abcdef") == n; }

static void note_license(hub_listing *l, const char *s) {
    if (!s || *l->license) return;
    snprintf(l->license, sizeof l->license, "%.60s", s);
    for (char *p = l->license; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f) *p = '?';
}

squish_status hub_read_info(const char *text, size_t n, hub_listing *l, squish_error *err) {
    json_t *root = NULL, *tag;
    const char *sha = NULL;
    size_t i;
    SQ_TRY(sq_json_parse(text, n, SQ_JSON_DEPTH, "the hub's answer about the model", &root, err));
    squish_status st = sq_json_str(root, "sha", true, &sha, "the hub's answer about the model", err);
    if (st == SQUISH_OK && !is_hex(sha, 40) && !is_hex(sha, 64))
        st = sq_fail(err, SQUISH_CORRUPT, "the hub's answer about the model: 'sha' is no commit");
    if (st == SQUISH_OK) {
        const json_t *gated = json_object_get(root, "gated"), *card = json_object_get(root, "cardData");
        const json_t *license = json_object_get(card, "license");
        snprintf(l->revision, sizeof l->revision, "%s", sha);
        l->gated = json_is_true(gated) || json_is_string(gated);
        if (json_is_array(license)) license = json_array_get(license, 0);
        note_license(l, json_string_value(json_object_get(card, "license_name")));
        note_license(l, json_string_value(license));
        json_array_foreach(json_object_get(root, "tags"), i, tag) {
            const char *s = json_string_value(tag);
            if (s && strncmp(s, "license:", 8) == 0) note_license(l, s + 8);
        }
    }
    json_decref(root);
    return st;
}

static squish_status take_file(hub_listing *l, const json_t *o, squish_error *err) {
    static const char what[] = "the hub's list of files";
    const char *type = NULL, *path = NULL, *oid = NULL;
    int64_t bytes = 0;
    if (!json_is_object(o)) return sq_fail(err, SQUISH_CORRUPT, "%s: an entry is no object", what);
    SQ_TRY(sq_json_str(o, "type", false, &type, what, err));
    SQ_TRY(sq_json_str(o, "path", true, &path, what, err));
    if ((type && strcmp(type, "file") != 0) || !sq_store_file_is_plain(path)) return SQUISH_OK;
    const json_t *lfs = json_object_get(o, "lfs");
    fetch_sum kind = FETCH_SUM_GIT;
    SQ_TRY(sq_json_i64(o, "size", true, 0, INT64_MAX, &bytes, what, err));
    SQ_TRY(sq_json_str(o, "oid", false, &oid, what, err));
    if (json_is_object(lfs)) {
        oid = NULL;
        kind = FETCH_SUM_SHA256;
        SQ_TRY(sq_json_str(lfs, "oid", true, &oid, what, err));
        SQ_TRY(sq_json_i64(lfs, "size", false, 0, INT64_MAX, &bytes, what, err));
        if (strncmp(oid, "sha256:", 7) == 0) oid += 7;
    }
    if (!oid) kind = FETCH_SUM_NONE;
    if (oid && !is_hex(oid, kind == FETCH_SUM_GIT ? 40 : 64))
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%.80s' has no sum that is one", what, path);
    if (l->n >= FILES_MAX) return sq_fail(err, SQUISH_CORRUPT, "%s: more than %d files", what, FILES_MAX);
    if (hub_add_file(l, path, (uint64_t)bytes, kind, oid)) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
}

squish_status hub_read_tree(const char *text, size_t n, hub_listing *l, squish_error *err) {
    json_t *root = NULL;
    const json_t *o;
    size_t i;
    SQ_TRY(sq_json_parse(text, n, SQ_JSON_DEPTH, "the hub's list of files", &root, err));
    squish_status st = SQUISH_OK;
    if (!json_is_array(root)) st = sq_fail(err, SQUISH_CORRUPT, "the hub's list of files is no array");
    json_array_foreach(root, i, o) if (st == SQUISH_OK) st = take_file(l, o, err);
    json_decref(root);
    return st;
}

/* ---- which of them --------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

static bool begins_with(const char *s, const char *begin) {
    return strncasecmp(s, begin, strlen(begin)) == 0;
}

/* Configuration, tokenizer, template, licence. */
static bool is_word_of_model(const char *p) {
    static const char *const names[] = {
        "config.json",     "generation_config.json",  "tokenizer.json",     "tokenizer_config.json",
        "tokenizer.model", "special_tokens_map.json", "added_tokens.json",  "vocab.json",
        "merges.txt",      "chat_template.jinja",     "chat_template.json", "model.safetensors.index.json"};
    for (size_t i = 0; i < SQ_COUNT(names); i++)
        if (strcmp(p, names[i]) == 0) return true;
    return begins_with(p, "LICENSE") || begins_with(p, "LICENCE") || begins_with(p, "NOTICE") ||
           begins_with(p, "USE_POLICY");
}

/* model.safetensors, model-00001-of-00004.safetensors; not consolidated.00.pth and adapters. */
static bool is_weights(const char *p) {
    return ends_with(p, ".safetensors") && begins_with(p, "model") && !strstr(p, "fp32") &&
           !strstr(p, "fp16");
}

static bool is_gguf(const char *p) { return ends_with(p, ".gguf") && !strstr(p, "mmproj"); }

/* Where part I of N stands in a split file's name, "-00001-of-00003.gguf"; NULL. */
static const char *split_part(const char *p) {
    const char *of = strstr(p, "-of-");
    if (!of || of - p < 6 || of[-6] != '-' || strspn(of - 5, "0123456789") != 5) return NULL;
    return of - 6;
}

/* Is the file's quantisation called so: QUANT stands at its end, behind - . or _? */
static bool is_quant(const char *p, const char *quant) {
    const char *cut = split_part(p);
    const size_t n = cut ? (size_t)(cut - p) : strlen(p) - 5, m = strlen(quant);
    return n > m && strncasecmp(p + n - m, quant, m) == 0 && strchr("-._", p[n - m - 1]);
}

static bool in_same_split(const char *a, const char *b) {
    const char *cut_a = split_part(a), *cut_b = split_part(b);
    return cut_a && cut_b && cut_a - a == cut_b - b && strncmp(a, b, (size_t)(cut_a - a)) == 0;
}

static void want(hub_listing *l, hub_file *f) {
    if (!f->wanted) l->bytes += f->bytes;
    f->wanted = true;
}

/* One GGUF file, or all parts of it. */
static squish_status take_gguf(hub_listing *l, const char *quant, squish_error *err) {
    /* Where nobody says which: four bits of the better kind, then what is near to it. */
    static const char *const order[] = {"Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0",
                                        "Q6_K",   "Q3_K_M", "BF16", "F16"};
    hub_file *first = NULL;
    for (size_t k = 0; !first && k < (*quant ? 1 : SQ_COUNT(order)); k++)
        for (size_t i = 0; !first && i < l->n; i++)
            if (is_gguf(l->files[i].path) && is_quant(l->files[i].path, *quant ? quant : order[k]))
                first = &l->files[i];
    for (size_t i = 0; !first && !*quant && i < l->n; i++)
        if (is_gguf(l->files[i].path)) first = &l->files[i];
    if (!first) {
        char names[200] = "";
        for (size_t i = 0; i < l->n; i++) {
            const size_t n = strlen(names);
            if (is_gguf(l->files[i].path) && n + 60 < sizeof names)
                snprintf(names + n, sizeof names - n, "%s%.48s", n ? ", " : "", l->files[i].path);
        }
        return sq_fail(err, SQUISH_NOT_FOUND, "%.80s has no GGUF file of quantisation %.40s (it has: %s)",
                       l->repo, quant, *names ? names : "none at all");
    }
    snprintf(l->main, sizeof l->main, "%s", first->path);
    want(l, first);
    for (size_t i = 0; i < l->n; i++)
        if (is_gguf(l->files[i].path) && in_same_split(l->files[i].path, first->path)) {
            want(l, &l->files[i]);
            if (strcmp(l->files[i].path, l->main) < 0)
                snprintf(l->main, sizeof l->main, "%s", l->files[i].path);
        }
    return SQUISH_OK;
}

static squish_status take_one(hub_listing *l, const char *file, squish_error *err) {
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->files[i].path, file) == 0) {
            snprintf(l->main, sizeof l->main, "%s", file);
            want(l, &l->files[i]);
            if (is_gguf(file))
                for (size_t k = 0; k < l->n; k++)
                    if (in_same_split(l->files[k].path, file)) want(l, &l->files[k]);
            return SQUISH_OK;
        }
    return sq_fail(err, SQUISH_NOT_FOUND, "%.120s has no file '%.120s'", l->repo, file);
}

squish_status hub_choose(hub_listing *l, const char *quant, const char *file, squish_error *err) {
    bool weights = false, gguf = false, config = false;
    l->bytes = 0;
    for (size_t i = 0; i < l->n; i++) {
        weights = weights || is_weights(l->files[i].path);
        gguf = gguf || is_gguf(l->files[i].path);
        config = config || strcmp(l->files[i].path, "config.json") == 0;
    }
    if (*file) return take_one(l, file, err);
    if (*quant || (gguf && !weights)) return take_gguf(l, quant, err);
    if (!weights || !config)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%.120s has neither safetensors with a config.json nor GGUF files", l->repo);
    for (size_t i = 0; i < l->n; i++)
        if (is_word_of_model(l->files[i].path) || is_weights(l->files[i].path)) want(l, &l->files[i]);
    return SQUISH_OK;
}

/* ---- Ollama's registry ----------------------------------------------------------------------- */

squish_status hub_read_oci(const char *text, size_t n, hub_listing *l, squish_error *err) {
    char digest[72];
    uint64_t bytes = 0;
    if (!sq_store_model_layer(text, n, digest, &bytes))
        return sq_fail(err, SQUISH_CORRUPT, "the registry's manifest of %.120s names no model", l->repo);
    if (!hub_add_file(l, "model.gguf", bytes, FETCH_SUM_SHA256, digest + 7))
        return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    want(l, &l->files[l->n - 1]);
    snprintf(l->main, sizeof l->main, "model.gguf");
    return SQUISH_OK;
}
