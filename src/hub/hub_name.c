/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_name.c - what a name means, without asking anybody. Names are bytes of strangers (a request may bring
 * them): every part must be plain before it goes into a path or an address. */
#include "hub/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const endings[] = {".gguf", ".sqw"};

static squish_status wrong(const char *text, const char *why, squish_error *err) {
    return sq_fail(err, SQUISH_INVALID, "'%.120s' is no name of a model: %s", text, why);
}

/* A user, repository, branch or file of a hub: plain, no "..", no "--", which keys of the store need. */
static bool is_part(const char *s) {
    return sq_store_name_is_plain(s) && !strchr(s, ':') && !strstr(s, "..") && !strstr(s, "--");
}

/* Branches may have slashes. */
static bool is_revision(const char *s) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
    return *s && *s != '/' && *s != '.' && strspn(s, letters) == strlen(s) && !strstr(s, "..") &&
           !strstr(s, "//");
}

/* The next part of *p, up to one of `stops`, into out. false: empty, or too long. */
static bool part(const char **p, const char *stops, char *out, size_t n) {
    const size_t len = strcspn(*p, stops);
    if (len == 0 || len >= n) return false;
    memcpy(out, *p, len);
    out[len] = 0;
    *p += len;
    return true;
}

static bool has_ending(const char *s, const char *ending) {
    const size_t n = strlen(s), m = strlen(ending);
    return n > m && strcasecmp(s + n - m, ending) == 0;
}

/* What the store will call it, tried as a key. */
static squish_status settle_name(hub_ref *r, const char *text, squish_error *err) {
    char key[2 * SQ_STORE_NAME_MAX];
    return sq_store_key(r->name, key, sizeof key) ? SQUISH_OK
                                                  : wrong(text, "it is too long, or has no letters", err);
}

/* ---- Hugging Face: USER/REPO[:QUANT][@REVISION], or the rest of an address ---------------------- */

/* Behind USER/REPO/ in an address: resolve, blob or tree, a revision, and a file. */
static bool take_place(hub_ref *r, const char *p) {
    char verb[16];
    if (!part(&p, "/", verb, sizeof verb) || *p++ != '/') return false;
    const bool tree = strcmp(verb, "tree") == 0;
    if (!tree && strcmp(verb, "resolve") != 0 && strcmp(verb, "blob") != 0) return false;
    if (!part(&p, "/?", r->revision, sizeof r->revision) || !is_revision(r->revision)) return false;
    if (tree) return *p == 0 || strcmp(p, "/") == 0;
    if (*p++ != '/' || !part(&p, "?", r->file, sizeof r->file)) return false;
    return sq_store_file_is_plain(r->file);
}

static squish_status take_hf(hub_ref *r, const char *p, const char *text, squish_error *err) {
    char user[SQ_STORE_NAME_MAX + 1], repo[SQ_STORE_NAME_MAX + 1];
    r->kind = HUB_HF;
    snprintf(r->revision, sizeof r->revision, "main");
    if (!part(&p, "/:@", user, sizeof user) || *p++ != '/' || !part(&p, "/:@?", repo, sizeof repo) ||
        !is_part(user) || !is_part(repo))
        return wrong(text, "wanted hf.co/USER/REPO, and maybe :QUANT or @REVISION", err);
    if (*p == ':' && (++p, !part(&p, "@", r->quant, sizeof r->quant) || !is_part(r->quant)))
        return wrong(text, "behind the colon stands which GGUF file, as Q4_K_M", err);
    if (strcasecmp(r->quant, "latest") == 0) r->quant[0] = 0; /* as clients of Ollama call what has no tag */
    if (*p == '@' && (++p, !part(&p, "", r->revision, sizeof r->revision) || !is_revision(r->revision)))
        return wrong(text, "behind the @ stands a branch or a commit", err);
    if (*p == '/' && p[1] && !take_place(r, p + 1))
        return wrong(text, "its address is neither of a repository nor of a file in one", err);
    if (snprintf(r->repo, sizeof r->repo, "%s/%s", user, repo) >= (int)sizeof r->repo)
        return wrong(text, "it is too long", err);
    char what[SQ_STORE_NAME_MAX + 1];
    snprintf(what, sizeof what, "%s", r->quant);
    if (*r->file) { /* of FILE.gguf what distinguishes it: the whole stem */
        snprintf(what, sizeof what, "%s", r->file);
        for (size_t i = 0; i < SQ_COUNT(endings); i++)
            if (has_ending(what, endings[i])) what[strlen(what) - strlen(endings[i])] = 0;
        if (!sq_store_name_is_plain(what) || strstr(what, "--"))
            return wrong(text, "this file has no name the store could keep", err);
    }
    if (snprintf(r->name, sizeof r->name, "hf.co/%s%s%s", r->repo, *what ? ":" : "", what) >=
        (int)sizeof r->name)
        return wrong(text, "it is too long", err);
    return settle_name(r, text, err);
}

/* ---- Ollama: [library/]NAME[:TAG] --------------------------------------------------------------- */

static squish_status take_ollama(hub_ref *r, const char *p, const char *text, squish_error *err) {
    char first[SQ_STORE_NAME_MAX + 1], second[SQ_STORE_NAME_MAX + 1] = "";
    r->kind = HUB_OLLAMA;
    snprintf(r->revision, sizeof r->revision, "latest");
    bool ok = part(&p, "/:", first, sizeof first) && is_part(first);
    if (ok && *p == '/') ok = (++p, part(&p, "/:", second, sizeof second)) && is_part(second);
    if (ok && *p == ':') ok = (++p, part(&p, "/:", r->revision, sizeof r->revision)) && is_part(r->revision);
    if (!ok || *p) return wrong(text, "wanted ollama.com/library/NAME:TAG", err);
    const int n = *second ? snprintf(r->repo, sizeof r->repo, "%s/%s", first, second)
                          : snprintf(r->repo, sizeof r->repo, "library/%s", first);
    if (n >= (int)sizeof r->repo ||
        snprintf(r->name, sizeof r->name, "ollama.com/%s:%s", r->repo, r->revision) >= (int)sizeof r->name)
        return wrong(text, "it is too long", err);
    return settle_name(r, text, err);
}

/* ---- one file ----------------------------------------------------------------------------------- */

static squish_status take_url(hub_ref *r, const char *text, squish_error *err) {
    r->kind = HUB_URL;
    if (snprintf(r->url, sizeof r->url, "%s", text) >= (int)sizeof r->url)
        return wrong(text, "it is too long", err);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            return wrong(text, "an address has no spaces and no bytes beyond ASCII", err);
    const size_t end = strcspn(text, "?#");
    size_t begin = end;
    while (begin > 0 && text[begin - 1] != '/') begin--;
    if (end - begin >= sizeof r->file) return wrong(text, "it is too long", err);
    snprintf(r->file, sizeof r->file, "%.*s", (int)(end - begin), text + begin);
    snprintf(r->name, sizeof r->name, "%s", r->file);
    bool known = false;
    for (size_t i = 0; i < SQ_COUNT(endings); i++)
        if (has_ending(r->name, endings[i])) {
            r->name[strlen(r->name) - strlen(endings[i])] = 0;
            known = true;
        }
    if (!known || !sq_store_file_is_plain(r->file) || !sq_store_name_is_plain(r->name))
        return wrong(text, "the address of a file ends in NAME.gguf or NAME.sqw", err);
    return SQUISH_OK;
}

/* ---- all of them -------------------------------------------------------------------------------- */

static const char *behind(const char *text, const char *prefix) {
    const size_t n = strlen(prefix);
    return strncasecmp(text, prefix, n) == 0 ? text + n : NULL;
}

squish_status hub_name(const hub_catalog *c, const char *text, bool bare, hub_ref *out, squish_error *err) {
    static const char *const hf[] = {"hf.co/", "huggingface.co/", "https://hf.co/", "https://huggingface.co/",
                                     "hf:"};
    static const char *const ollama[] = {"ollama.com/", "registry.ollama.ai/", "https://ollama.com/",
                                         "https://registry.ollama.ai/"};
    const char *rest;
    *out = (hub_ref){0};
    for (size_t i = 0; i < SQ_COUNT(hf); i++)
        if ((rest = behind(text, hf[i]))) return take_hf(out, rest, text, err);
    for (size_t i = 0; i < SQ_COUNT(ollama); i++)
        if ((rest = behind(text, ollama[i]))) return take_ollama(out, rest, text, err);
    if (behind(text, "https://") || behind(text, "http://")) return take_url(out, text, err);
    const hub_entry *e = c ? hub_catalog_find(c, text) : NULL;
    if (e) {
        SQ_TRY(take_hf(out, e->repo, text, err));
        out->entry = e;
        snprintf(out->name, sizeof out->name, "%s", e->name);
        if (*e->revision) snprintf(out->revision, sizeof out->revision, "%s", e->revision);
        return SQUISH_OK;
    }
    const char *slash = strchr(text, '/');
    if (bare && slash && slash > text && *text != '.' && !strchr(slash + 1, '/'))
        return take_hf(out, text, text, err);
    return sq_fail(err, SQUISH_NOT_FOUND,
                   "'%.100s' is neither in the catalogue (squish search) nor hf.co/USER/REPO nor a URL",
                   text);
}

bool hub_is_name(const hub_catalog *c, const char *text) {
    hub_ref r;
    return hub_name(c, text, false, &r, NULL) == SQUISH_OK;
}

/* ---- settings ----------------------------------------------------------------------------------- */

static bool is_on(const char *v) {
    static const char *const words[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; v && i < SQ_COUNT(words); i++)
        if (strcasecmp(v, words[i]) == 0) return true;
    return false;
}

static void read_token(const char *path, char *out, size_t n) {
    FILE *f = fopen(path, "rb");
    if (!f) return;
    const size_t got = fread(out, 1, n - 1, f);
    out[got] = 0;
    out[strcspn(out, " \t\r\n")] = 0;
    fclose(f);
}

void hub_settings_get(hub_settings *s) {
    char path[4096];
    const char *token = getenv("HF_TOKEN"), *file = getenv("HF_TOKEN_PATH"), *hf = getenv("HF_HOME");
    const char *home = getenv("HOME"), *endpoint = getenv("HF_ENDPOINT"),
               *registry = getenv("OLLAMA_REGISTRY");
    *s = (hub_settings){.offline = is_on(getenv("HF_HUB_OFFLINE"))};
    if (endpoint && *endpoint) s->endpoint = endpoint;
    if (registry && *registry) s->registry = registry;
    if (!token || !*token) token = getenv("HUGGING_FACE_HUB_TOKEN");
    if (token && *token) {
        if (strlen(token) < sizeof s->token) snprintf(s->token, sizeof s->token, "%s", token);
        return;
    }
    if (is_on(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return;
    if (file && *file)
        snprintf(path, sizeof path, "%s", file);
    else if (hf && *hf)
        snprintf(path, sizeof path, "%s/token", hf);
    else if (home && *home)
        snprintf(path, sizeof path, "%s/.cache/huggingface/token", home);
    else
        return;
    read_token(path, s->token, sizeof s->token);
}
