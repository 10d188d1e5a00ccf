/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_lora.c - adapters beside the weights: the same logits as a model with them merged in, and every
 * adapter that does not fit refused by name. */
#include "model/model_int.h"
#include "support/faults.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

enum { N_IDS = 40, RANK = 3, TENSORS_MAX = 128 };

/* ---- files made here ------------------------------------------------------------------------- */

typedef struct {
    char root[64], base[96], merged[96], lora[96], second[96], gguf[96];
    tiny_spec spec;
    sq_config cfg;
} place;

/* Values of a factor: a fixed function of who asks. */
static float value(uint64_t seed, size_t i) {
    uint64_t s = seed * 1000003u + i;
    return (float)((double)(sq_splitmix64(&s) >> 11) * 0x1p-52 - 1.0) * 0.3f;
}

static uint64_t seed_of(const sq_want *w, uint64_t adapter, bool up) {
    return (adapter * 64 + (uint64_t)w->role) * 128 + (uint64_t)(w->layer + 1) * 2 + up;
}

/* Matrices the adapters are for. */
static bool is_target(const sq_want *w) {
    return w->role == SQ_ROLE_Q || w->role == SQ_ROLE_K || w->role == SQ_ROLE_O || w->role == SQ_ROLE_GATE ||
           w->role == SQ_ROLE_UP || w->role == SQ_ROLE_DOWN || w->role == SQ_ROLE_HEAD;
}

static float *factor(const sq_want *w, uint64_t adapter, bool up) {
    const size_t n = (size_t)RANK * (size_t)(up ? w->rows : w->cols);
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = value(seed_of(w, adapter, up), i);
    return p;
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* PEFT's name of a factor. */
static void peft_name(const sq_want *w, bool up, char *out, size_t n) {
    snprintf(out, n, "base_model.model.%.*s.lora_%c.weight", (int)strlen(w->name) - 7, w->name,
             up ? 'B' : 'A');
}

/* How the adapter in a folder differs from a good one. */
typedef struct {
    const char *config;       /* NULL: r 3, alpha 6 */
    const char *drop, *extra; /* a tensor to leave out; one to add */
    const char *narrow;       /* a tensor with one column less */
    bool integers;            /* stored as I32 */
} flaws;

static const char config_good[] =
    "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"bias\": \"none\", "
    "\"modules_to_save\": null, \"rank_pattern\": {}}";

static void write_peft(const place *p, const char *dir, uint64_t adapter, const flaws *f) {
    static sq_ftensor t[TENSORS_MAX];
    size_t n = 0;
    char name[160], path[256];
    sq_want w;
    write_text(dir, "adapter_config.json", f->config ? f->config : config_good);
    for (size_t i = 0; sq_config_want(&p->cfg, i, &w); i++)
        for (int up = 0; up < 2 && is_target(&w); up++) {
            peft_name(&w, up, name, sizeof name);
            if (f->drop && strcmp(f->drop, name) == 0) continue;
            float *v = factor(&w, adapter, up);
            sq_ftensor x = {.name = strdup(name),
                            .n_dims = 2,
                            .data = (const uint8_t *)v,
                            .dtype = f->integers ? SQ_DT_I32 : SQ_DT_F32};
            x.dims[0] = up ? (uint64_t)w.rows : RANK, x.dims[1] = up ? RANK : (uint64_t)w.cols;
            if (f->narrow && strcmp(f->narrow, name) == 0) x.dims[1]--;
            x.bytes = x.dims[0] * x.dims[1] * 4;
            t[n++] = x;
        }
    if (f->extra)
        t[n++] = (sq_ftensor){.name = strdup(f->extra),
                              .n_dims = 1,
                              .dims = {1},
                              .bytes = 4,
                              .data = calloc(1, 4),
                              .dtype = SQ_DT_F32};
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    squish_error err = {0};
    assert_ok(sq_st_write(path, t, n, &err), &err);
    for (size_t i = 0; i < n; i++) free((void *)t[i].data), free((void *)t[i].name);
}

/* The file's row of row r where neighbours are rotated together: 2i + p of a head holds p * half + i. */
static int32_t half_row(int32_t r, int32_t d) { return r / d * d + r % d % 2 * (d / 2) + r % d / 2; }

/* The same adapter as a GGUF file of architecture `arch`; rows of q and k turned as its converter does. */
static void write_gguf(const place *p, const char *path, uint64_t adapter, const char *arch,
                       const char *type) {
    static sq_ftensor t[TENSORS_MAX];
    static char names[TENSORS_MAX][64];
    size_t n = 0, index[TENSORS_MAX];
    sq_gguf_writer *g = NULL;
    squish_error err = {0};
    uint64_t bytes;
    sq_want w;
    const struct {
        const char *key, *text;
    } keys[] = {{"general.architecture", arch}, {"general.type", type}, {"adapter.type", "lora"}};
    assert_ok(sq_gguf_writer_new(&g, path, NULL, &err), &err);
    for (size_t i = 0; i < SQ_COUNT(keys); i++)
        assert_ok(sq_gguf_writer_str(g, keys[i].key,
                                     (sq_span){(const uint8_t *)keys[i].text, strlen(keys[i].text)}, &err),
                  &err);
    assert_ok(sq_gguf_writer_f32(g, "adapter.lora.alpha", 6.0f, &err), &err);
    for (size_t i = 0; sq_config_want(&p->cfg, i, &w); i++)
        for (int up = 0; up < 2 && is_target(&w); up++) {
            float *v = factor(&w, adapter, up);
            const bool turned =
                up && strcmp(arch, "llama") == 0 && (w.role == SQ_ROLE_Q || w.role == SQ_ROLE_K);
            if (turned) {
                float *u = malloc((size_t)w.rows * RANK * sizeof *u);
                for (int32_t r = 0; r < w.rows; r++)
                    memcpy(u + r * RANK, v + half_row(r, p->cfg.head_dim) * RANK, RANK * sizeof *u);
                free(v);
                v = u;
            }
            snprintf(names[n], sizeof names[n], "%s.lora_%c", w.gguf_name, up ? 'b' : 'a');
            t[n] =
                (sq_ftensor){.name = names[n], .n_dims = 2, .data = (const uint8_t *)v, .dtype = SQ_DT_F32};
            t[n].dims[0] = up ? (uint64_t)w.rows : RANK, t[n].dims[1] = up ? RANK : (uint64_t)w.cols;
            t[n].bytes = t[n].dims[0] * t[n].dims[1] * 4;
            assert_ok(sq_gguf_writer_tensor(g, &t[n], &index[n], &err), &err);
            n++;
        }
    assert_ok(sq_gguf_writer_layout(g, &bytes, &err), &err);
    for (size_t i = 0; i < n; i++)
        assert_ok(sq_gguf_writer_put(g, index[i], 0, t[i].data, t[i].bytes, &err), &err);
    assert_ok(sq_gguf_writer_finish(g, &err), &err);
    sq_gguf_writer_free(g);
    for (size_t i = 0; i < n; i++) free((void *)t[i].data);
}

/* The base checkpoint with scale[a] * B A of every adapter in its weights. */
static void write_merged(const place *p, const double scale[2]) {
    static sq_ftensor t[TENSORS_MAX];
    char path[256];
    squish_error err = {0};
    sq_safetensors *st = NULL;
    const squish_alloc heap = sq_alloc_default();
    sq_want w;
    size_t n = 0;
    assert_ok(sq_st_open(&st, p->base, &heap, NULL, NULL, &err), &err);
    for (size_t i = 0; sq_config_want(&p->cfg, i, &w); i++) {
        sq_ftensor x = *sq_st_find(st, w.hf_name);
        float *v = malloc(x.bytes);
        memcpy(v, x.data, x.bytes);
        for (uint64_t a = 0; a < 2 && is_target(&w); a++) {
            float *A = factor(&w, a, false), *B = factor(&w, a, true);
            for (int32_t r = 0; r < w.rows; r++)
                for (int32_t c = 0; c < w.cols; c++) {
                    double sum = 0;
                    for (int32_t j = 0; j < RANK; j++)
                        sum += (double)B[r * RANK + j] * (double)A[j * w.cols + c];
                    v[r * w.cols + c] = (float)((double)v[r * w.cols + c] + scale[a] * sum);
                }
            free(A), free(B);
        }
        x.data = (const uint8_t *)v;
        t[n++] = x;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", p->merged);
    assert_ok(sq_st_write(path, t, n, &err), &err);
    for (size_t i = 0; i < n; i++) free((void *)t[i].data);
    sq_st_close(st);
}

static void make_dir(const place *p, const char *name, char *out, size_t n) {
    snprintf(out, n, "%s/%s", p->root, name);
    assert_int_equal(mkdir(out, 0700), 0);
}

static place make(void) {
    place p = {.spec = tiny_default()};
    squish_error err = {0};
    const squish_alloc heap = sq_alloc_default();
    const flaws none = {0};
    snprintf(p.root, sizeof p.root, "/tmp/squish-lora-XXXXXX");
    assert_non_null(mkdtemp(p.root));
    make_dir(&p, "base", p.base, sizeof p.base);
    make_dir(&p, "merged", p.merged, sizeof p.merged);
    make_dir(&p, "lora", p.lora, sizeof p.lora);
    make_dir(&p, "second", p.second, sizeof p.second);
    snprintf(p.gguf, sizeof p.gguf, "%s/a.gguf", p.root);
    tiny_write(&p.spec, p.base);
    tiny_write(&p.spec, p.merged);
    squish_model_options o = squish_model_options_default();
    sq_model *m = NULL;
    o.alloc = &heap;
    assert_ok(sq_model_open_hf(&m, p.base, &o, &err), &err);
    p.cfg = m->cfg;
    sq_model_close(m);
    write_peft(&p, p.lora, 0, &none);
    write_peft(&p, p.second, 1, &none);
    return p;
}

/* ---- runs ------------------------------------------------------------------------------------ */

typedef struct {
    float *rows;
    int32_t n_vocab;
} kept;

static bool keep(void *user, int32_t pos, const float *logits) {
    const kept *k = user;
    memcpy(k->rows + (size_t)pos * (size_t)k->n_vocab, logits, (size_t)k->n_vocab * sizeof *logits);
    return true;
}

static float *logits(const place *p, const char *path, const squish_lora *l, int32_t n, int32_t threads,
                     int32_t chunk) {
    run x = {0};
    int32_t ids[N_IDS];
    squish_error err = {0};
    squish_model_options mo = squish_model_options_default();
    squish_engine_options o = squish_engine_options_default();
    o.kv = SQUISH_KV_F32, o.threads = threads, o.chunk_tokens = chunk;
    mo.tier = SQUISH_TIER_SOURCE, mo.loras = l, mo.n_loras = n;
    for (int32_t i = 0; i < N_IDS; i++) ids[i] = (i * 37 + 5) % p->spec.vocab;
    assert_ok(squish_model_open(&x.m, path, &mo, &err), &err);
    assert_ok(squish_engine_new(&x.e, x.m, &o, &err), &err);
    assert_ok(squish_seq_new(&x.s, x.e, &err), &err);
    kept k = {calloc((size_t)N_IDS * (size_t)p->spec.vocab, sizeof(float)), p->spec.vocab};
    assert_ok(squish_seq_score(x.s, ids, N_IDS, 0, keep, &k, &err), &err);
    run_close(&x);
    return k.rows;
}

/* Largest difference over largest value. */
static double distance(const place *p, const float *a, const float *b) {
    double worst = 0, top = 0;
    for (int32_t i = 0; i < N_IDS * p->spec.vocab; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        top = fmax(top, fabs((double)b[i]));
    }
    return worst / top;
}

static void expect_merged(const place *p, const double scale[2], const squish_lora *l, int32_t n) {
    write_merged(p, scale);
    float *want = logits(p, p->merged, NULL, 0, 1, 64), *got = logits(p, p->base, l, n, 2, 64);
    float *base = logits(p, p->base, NULL, 0, 1, 64), *cut = logits(p, p->base, l, n, 1, 7);
    const double d = distance(p, got, want);
    print_message("max |adapter - merged| / absmax %.1e, without adapter %.1e\n", d, distance(p, base, want));
    assert_true(d <= 1e-4);
    assert_true(distance(p, base, want) > 1e-2);
    assert_memory_equal(got, cut, (size_t)N_IDS * (size_t)p->spec.vocab * sizeof *got);
    free(want), free(got), free(base), free(cut);
}

static void an_adapter_gives_the_logits_of_merged_weights(void **state) {
    (void)state;
    place p = make();
    const squish_lora one = {p.lora, 1.0f}, half = {p.lora, 0.5f};
    expect_merged(&p, (const double[]){2.0, 0}, &one, 1);
    expect_merged(&p, (const double[]){1.0, 0}, &half, 1);
    const flaws rs = {.config = "{\"r\": 3, \"lora_alpha\": 3, \"use_rslora\": true}"};
    write_peft(&p, p.lora, 0, &rs);
    expect_merged(&p, (const double[]){sqrt(3.0), 0}, &one, 1);
    remove_tree(p.root);
}

static void two_adapters_add_up(void **state) {
    (void)state;
    place p = make();
    const squish_lora two[] = {{p.lora, 1.0f}, {p.second, -0.5f}};
    expect_merged(&p, (const double[]){2.0, -1.0}, two, 2);
    remove_tree(p.root);
}

static void a_scale_of_zero_is_the_base_model_bit_for_bit(void **state) {
    (void)state;
    place p = make();
    const squish_lora zero = {p.lora, 0.0f};
    float *want = logits(&p, p.base, NULL, 0, 1, 64), *got = logits(&p, p.base, &zero, 1, 1, 64);
    assert_memory_equal(got, want, (size_t)N_IDS * (size_t)p.spec.vocab * sizeof *got);
    free(want), free(got);
    remove_tree(p.root);
}

static void a_gguf_adapter_is_the_same_whatever_the_order_of_its_rows(void **state) {
    (void)state;
    place p = make();
    const squish_lora peft = {p.lora, 1.0f}, gguf = {p.gguf, 1.0f};
    float *want = logits(&p, p.base, &peft, 1, 1, 64);
    static const char *const arches[] = {"llama", "qwen2"};
    for (size_t i = 0; i < SQ_COUNT(arches); i++) {
        write_gguf(&p, p.gguf, 0, arches[i], "adapter");
        float *got = logits(&p, p.base, &gguf, 1, 1, 64);
        assert_memory_equal(got, want, (size_t)N_IDS * (size_t)p.spec.vocab * sizeof *got);
        free(got);
    }
    free(want);
    remove_tree(p.root);
}

/* ---- terms on the matrices ------------------------------------------------------------------- */

static sq_model *open_base(const place *p, const squish_alloc *a) {
    sq_model *m = NULL;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.alloc = a;
    assert_ok(sq_model_open_hf(&m, p->base, &o, &err), &err);
    return m;
}

static void rows_of_q_and_k_follow_the_order_of_the_model(void **state) {
    (void)state;
    place p = make();
    const squish_alloc heap = sq_alloc_default();
    const squish_lora peft = {p.lora, 1.0f};
    squish_error err = {0};
    sq_model *a = open_base(&p, &heap), *b = open_base(&p, &heap);
    b->cfg.rope_pairs = 1; /* as if its file had neighbouring rows */
    assert_ok(sq_model_add_loras(a, &peft, 1, &err), &err);
    assert_ok(sq_model_add_loras(b, &peft, 1, &err), &err);
    static const sq_role roles[] = {SQ_ROLE_Q, SQ_ROLE_K, SQ_ROLE_O};
    float x[RANK], y[RANK];
    for (size_t i = 0; i < SQ_COUNT(roles); i++) {
        const sq_weight *u = &a->layers[1].mat[roles[i]].low->u, *v = &b->layers[1].mat[roles[i]].low->u;
        for (int32_t r = 0; r < u->rows; r++) {
            sq_weight_row(u, roles[i] == SQ_ROLE_O ? r : half_row(r, p.cfg.head_dim), x);
            sq_weight_row(v, r, y);
            assert_memory_equal(x, y, sizeof x);
        }
    }
    assert_int_equal(a->rank_max, 128); /* q and k; gate and up */
    sq_model_close(a);
    sq_model_close(b);
    remove_tree(p.root);
}

static void rows_of_a_fused_factor_go_to_their_slices(void **state) {
    (void)state;
    place p = make();
    const squish_alloc heap = sq_alloc_default();
    const squish_lora l = {p.second, 1.0f};
    squish_error err = {0};
    sq_model *m = open_base(&p, &heap);
    m->cfg.fused = 1; /* the matrices are bound; now its names are those of Phi-3 */
    const int32_t rows[] = {96, 48, 48};
    float *a = calloc(RANK * 96, sizeof *a), *b = malloc((96 + 48 + 48) * RANK * sizeof *b);
    for (int32_t i = 0; i < (96 + 48 + 48) * RANK; i++) b[i] = (float)i;
    const char stem[] = "base_model.model.model.layers.2.self_attn.qkv_proj";
    char na[96], nb[96], path[256];
    snprintf(na, sizeof na, "%s.lora_A.weight", stem);
    snprintf(nb, sizeof nb, "%s.lora_B.weight", stem);
    const sq_ftensor t[] = {
        {.name = na, .n_dims = 2, .dims = {RANK, 96}, .data = (uint8_t *)a, .bytes = RANK * 96 * 4},
        {.name = nb, .n_dims = 2, .dims = {192, RANK}, .data = (uint8_t *)b, .bytes = 192 * RANK * 4}};
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", p.second);
    assert_ok(sq_st_write(path, t, 2, &err), &err);
    assert_ok(sq_model_add_loras(m, &l, 1, &err), &err);
    int32_t row0 = 0;
    for (int i = 0; i < 3; i++) {
        const sq_weight *u = &m->layers[2].mat[SQ_ROLE_Q + i].low->u;
        float row[RANK];
        assert_int_equal(u->rows, rows[i]);
        sq_weight_row(u, 5, row);
        assert_true(row[1] == (float)((row0 + 5) * RANK + 1));
        row0 += rows[i];
    }
    free(a), free(b);
    sq_model_close(m);
    remove_tree(p.root);
}

static void a_tied_head_takes_a_term_that_the_embedding_does_not(void **state) {
    (void)state;
    place p = make();
    const squish_alloc heap = sq_alloc_default();
    const squish_lora l = {p.lora, 1.0f};
    squish_error err = {0};
    sq_model *m = open_base(&p, &heap);
    m->cfg.tied = 1;
    m->head = m->embed;
    assert_ok(sq_model_add_loras(m, &l, 1, &err), &err);
    assert_non_null(m->head.low);
    assert_null(m->embed.low);
    sq_model_close(m);
    remove_tree(p.root);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void expect_refused(const place *p, const char *path, squish_status code, const char *says) {
    const squish_lora l = {path, 1.0f};
    const squish_alloc heap = sq_alloc_default();
    squish_error err = {0};
    sq_model *m = open_base(p, &heap);
    assert_int_equal(sq_model_add_loras(m, &l, 1, &err), code);
    if (!strstr(err.text, says)) fail_msg("'%s' does not say '%s'", err.text, says);
    assert_null(strchr(err.text, '\n'));
    sq_model_close(m);
}

static void what_does_not_fit_is_refused_by_name(void **state) {
    (void)state;
    place p = make();
    char q_a[] = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    char up_b[] = "base_model.model.model.layers.2.mlp.up_proj.lora_B.weight";
    const struct {
        flaws f;
        squish_status code;
        const char *says;
    } cases[] = {
        {{.drop = q_a}, SQUISH_INVALID, "has no lora_A"},
        {{.drop = up_b}, SQUISH_INVALID, "has no lora_B"},
        {{.narrow = q_a}, SQUISH_INVALID, "q_proj.lora_A.weight' is 3 x 95 (2 dims), the model wants 3 x 96"},
        {{.narrow = up_b}, SQUISH_INVALID, "up_proj.lora_B.weight' is 160 x 2"},
        {{.integers = true}, SQUISH_UNSUPPORTED, "I32"},
        {{.extra = "base_model.model.model.layers.0.mlp.router.lora_A.weight"}, SQUISH_INVALID, "router"},
        {{.extra = "base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"}, SQUISH_INVALID, "layers.9"},
        {{.extra = "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector"},
         SQUISH_UNSUPPORTED,
         "DoRA"},
        {{.extra = "base_model.model.model.embed_tokens.lora_embedding_A"}, SQUISH_UNSUPPORTED, "embedding"},
        {{.config = "{\"r\": 4, \"lora_alpha\": 6}"}, SQUISH_INVALID, "the model wants 4 x 96"},
        {{.config = "{\"r\": 0, \"lora_alpha\": 6}"}, SQUISH_CORRUPT, "r"},
        {{.config = "{\"r\": 3}"}, SQUISH_CORRUPT, "lora_alpha"},
        {{.config = "[]"}, SQUISH_CORRUPT, "not an object"},
        {{.config = "{"}, SQUISH_CORRUPT, "adapter_config.json"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"use_dora\": true}"}, SQUISH_UNSUPPORTED, "use_dora"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"modules_to_save\": [\"lm_head\"]}"},
         SQUISH_UNSUPPORTED,
         "modules_to_save"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"rank_pattern\": {\"q\": 2}}"},
         SQUISH_UNSUPPORTED,
         "rank_pattern"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"alpha_pattern\": {\"q\": 2}}"},
         SQUISH_UNSUPPORTED,
         "alpha_pattern"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"bias\": \"all\"}"}, SQUISH_UNSUPPORTED, "bias"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"peft_type\": \"LOHA\"}"}, SQUISH_UNSUPPORTED, "LOHA"},
        {{.config = "{\"r\": 3, \"lora_alpha\": 6, \"init_lora_weights\": \"pissa_niter_4\"}"},
         SQUISH_UNSUPPORTED,
         "pissa"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        write_peft(&p, p.lora, 0, &cases[i].f);
        expect_refused(&p, p.lora, cases[i].code, cases[i].says);
    }
    expect_refused(&p, "/tmp/squish-no-such-adapter", SQUISH_NOT_FOUND, "no such adapter");
    expect_refused(&p, p.base, SQUISH_NOT_FOUND, "adapter_model.safetensors");
    write_gguf(&p, p.gguf, 0, "llama", "model");
    expect_refused(&p, p.gguf, SQUISH_INVALID, "not a LoRA adapter");
    remove_tree(p.root);
}

static void options_that_make_no_sense_are_refused(void **state) {
    (void)state;
    place p = make();
    const squish_alloc heap = sq_alloc_default();
    squish_lora l[SQ_MAX_LORAS + 1];
    squish_error err = {0};
    for (int i = 0; i <= SQ_MAX_LORAS; i++) l[i] = (squish_lora){p.lora, 1.0f};
    sq_model *m = open_base(&p, &heap);
    assert_int_equal(sq_model_add_loras(m, l, SQ_MAX_LORAS + 1, &err), SQUISH_INVALID);
    l[0].scale = NAN;
    assert_int_equal(sq_model_add_loras(m, l, 1, NULL), SQUISH_INVALID);
    sq_model_close(m);
    /* The public way: nothing stays open after a refusal. */
    squish_model_options o = squish_model_options_default();
    squish_model *x = NULL;
    o.tier = SQUISH_TIER_SOURCE, o.loras = l, o.n_loras = 1;
    assert_int_equal(squish_model_open(&x, p.base, &o, NULL), SQUISH_INVALID);
    assert_null(x);
    remove_tree(p.root);
}

static void every_failed_allocation_is_reported(void **state) {
    (void)state;
    place p = make();
    write_gguf(&p, p.gguf, 1, "llama", "adapter");
    const squish_lora l[] = {{p.lora, 1.0f}, {p.gguf, 1.0f}};
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state s = {0};
        squish_alloc a = sq_test_alloc(&s);
        sq_model *m = open_base(&p, &a);
        s.fail_at = s.count + n;
        squish_error err = {0};
        const squish_status st = sq_model_add_loras(m, l, 2, &err);
        sq_model_close(m);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
    remove_tree(p.root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_adapter_gives_the_logits_of_merged_weights),
        cmocka_unit_test(two_adapters_add_up),
        cmocka_unit_test(a_scale_of_zero_is_the_base_model_bit_for_bit),
        cmocka_unit_test(a_gguf_adapter_is_the_same_whatever_the_order_of_its_rows),
        cmocka_unit_test(rows_of_q_and_k_follow_the_order_of_the_model),
        cmocka_unit_test(rows_of_a_fused_factor_go_to_their_slices),
        cmocka_unit_test(a_tied_head_takes_a_term_that_the_embedding_does_not),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
        cmocka_unit_test(options_that_make_no_sense_are_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
