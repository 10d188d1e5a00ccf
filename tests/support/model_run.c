/* SPDX-License-Identifier: Apache-2.0
 *
 * model_run.c - see model_run.h. */
#include "support/model_run.h"

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

run run_open(const char *path, squish_tier tier, const squish_engine_options *opt) {
    run x = {0};
    squish_error err = {0};
    squish_model_options mo = squish_model_options_default();
    mo.tier = tier;
    assert_ok(squish_model_open(&x.m, path, &mo, &err), &err);
    assert_ok(squish_engine_new(&x.e, x.m, opt, &err), &err);
    assert_ok(squish_seq_new(&x.s, x.e, &err), &err);
    return x;
}

run run_compressed(const char *src, squish_tier tier, squish_method method,
                   const squish_engine_options *opt) {
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_error err = {0};
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    o.out_dir = dir;
    o.tier = tier;
    o.method = method;
    o.unchecked = true; /* measuring what came out takes longer than all else */
    assert_ok(squish_compress(src, &o, &r, &err), &err);
    run x = run_open(r.file, SQUISH_TIER_AUTO, opt);
    snprintf(x.dir, sizeof x.dir, "%s", dir);
    return x;
}

/* A copy of config.json that says n layers, and links to the other files: weights of more layers than a model
 * says it has are left alone. */
void make_shallow(const char *src, int32_t n, const char *dir) {
    static const char KEY[] = "\"num_hidden_layers\":";
    char path[512], to[512], text[8192];
    DIR *d = opendir(src);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        char *from = realpath(src, NULL);
        snprintf(path, sizeof path, "%s/%s", from, e->d_name);
        snprintf(to, sizeof to, "%s/%s", dir, e->d_name);
        free(from);
        if (e->d_name[0] == '.' || strcmp(e->d_name, "config.json") == 0 ||
            strcmp(e->d_name, "heads.sqh") == 0)
            continue;
        assert_int_equal(symlink(path, to), 0);
    }
    closedir(d);
    snprintf(path, sizeof path, "%s/config.json", src);
    snprintf(to, sizeof to, "%s/config.json", dir);
    FILE *in = fopen(path, "r"), *out = fopen(to, "w");
    assert_true(in && out);
    text[fread(text, 1, sizeof text - 1, in)] = 0;
    char *at = strstr(text, KEY);
    assert_non_null(at);
    at += sizeof KEY - 1;
    fprintf(out, "%.*s %d%s", (int)(at - text), text, n, at + strspn(at, " 0123456789"));
    fclose(in);
    fclose(out);
}

run run_shallow(const char *src, int32_t n, squish_method method) {
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    make_shallow(src, n, dir);
    run x = run_compressed(dir, SQUISH_TIER_0, method, NULL);
    remove_tree(dir);
    return x;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    return remove(path);
}

void remove_tree(const char *dir) { nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS); }

void run_limit(const char *path, double share, squish_engine_options *o) {
    squish_model *m;
    squish_mem_estimate e;
    squish_error err = {0};
    assert_ok(squish_model_open(&m, path, NULL, &err), &err);
    assert_ok(squish_engine_estimate(m, o, &e, &err), &err);
    squish_model_close(m);
    o->memory_limit = e.kv_bytes + e.scratch_bytes + (uint64_t)((double)e.weight_bytes * share);
    o->agile.on = true;
}

squish_agile_info run_agile(const run *x) {
    squish_engine_info i;
    squish_engine_get_info(x->e, &i);
    return i.agile;
}

void run_close(run *x) {
    squish_seq_free(x->s);
    squish_engine_free(x->e);
    squish_model_close(x->m);
    if (x->dir[0]) remove_tree(x->dir);
    memset(x, 0, sizeof *x);
}

void run_greedy(run *x, const int32_t *prompt, size_t n_prompt, int32_t *out, int32_t n) {
    squish_error err = {0};
    squish_gen_options o = squish_gen_options_default();
    squish_gen *g = NULL;
    o.sampling.temperature = 0;
    o.ignore_eos = true;
    o.max_tokens = n;
    assert_ok(squish_gen_new(&g, x->s, prompt, n_prompt, &o, &err), &err);
    for (int32_t i = 0; i < n; i++) {
        squish_gen_event ev;
        assert_ok(squish_gen_next(g, &ev, &err), &err);
        out[i] = ev.id;
    }
    squish_gen_free(g);
}

squish_tokens run_tokens(const run *x, const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    char *text = malloc(4 << 20);
    const size_t n = fread(text, 1, 4 << 20, f);
    fclose(f);
    squish_tokens t;
    squish_error err = {0};
    assert_ok(squish_tokenize(x->m, text, n, 0, &t, &err), &err);
    free(text);
    return t;
}

typedef struct {
    const int32_t *tokens;
    int32_t n_vocab;
    size_t base, n;
    double sum;
    size_t count;
} nats;

static bool add_nats(void *user, int32_t pos, const float *logits) {
    nats *k = user;
    const size_t next = k->base + (size_t)pos + 1;
    if (next >= k->n) return true;
    float m = -INFINITY;
    double sum = 0;
    for (int32_t i = 0; i < k->n_vocab; i++) m = logits[i] > m ? logits[i] : m;
    for (int32_t i = 0; i < k->n_vocab; i++) sum += (double)expf(logits[i] - m);
    k->sum += (double)m + log(sum) - (double)logits[k->tokens[next]];
    k->count++;
    return true;
}

double run_nats(run *x, const squish_tokens *t, int32_t window, int32_t max_windows) {
    squish_model_info info;
    squish_model_get_info(x->m, &info);
    nats k = {t->ids, info.n_vocab, 0, t->count, 0, 0};
    squish_error err = {0};
    for (int32_t w = 0; w < max_windows && k.base < t->count; w++, k.base += (size_t)window) {
        const size_t n = t->count - k.base < (size_t)window ? t->count - k.base : (size_t)window;
        assert_ok(squish_seq_score(x->s, t->ids + k.base, n, 0, add_nats, &k, &err), &err);
    }
    return k.sum / (double)k.count;
}
