/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_snap.c - of a long prompt stay the tokens that its end looks at: in whole engines, held against a
 * cache from which nothing is dropped. What stays is what stood there, rotated as it was; the next token has
 * its true position; and all that a cache has to put up with beside holds: other chunks, threads and
 * instruction sets, going back, turns, company, giving way, restarts. */
#include "kv/kv_snap.h"
#include "sched/sched.h"
#include "support/batch_run.h"

#include <math.h>
#include <stdio.h>

static run base, shallow; /* a few layers do for what holds whatever is computed */
static squish_model *model;
static squish_model_info info;
static squish_tokens prose;
static bell *ring;

enum { KEEP = 256, LAYERS = 3, HEADS = 2, D = 64 };
static const squish_kv formats[] = {SQUISH_KV_F16, SQUISH_KV_Q8, SQUISH_KV_K8V4, SQUISH_KV_Q4};

typedef struct {
    squish_engine *e;
    squish_seq *s;
} alone;

static squish_engine_options options_of(squish_kv kv, int32_t ctx, int32_t keep) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = ctx;
    o.kv = kv;
    o.kv_options.snap = keep;
    return o;
}

static alone alone_of(const squish_engine_options *o) {
    alone a = {0};
    squish_error err = {0};
    assert_ok(squish_engine_new(&a.e, model, o, &err), &err);
    assert_ok(squish_seq_new(&a.s, a.e, &err), &err);
    return a;
}

static uint64_t bytes_now(const squish_engine *e) {
    squish_engine_info i;
    squish_engine_get_info(e, &i);
    return i.kv_bytes_now;
}

static void alone_free(alone *a) {
    squish_seq_free(a->s);
    assert_int_equal(bytes_now(a->e), 0);
    squish_engine_free(a->e);
}

static void read_prompt(alone *a, const int32_t *ids, int32_t n) {
    squish_error err = {0};
    assert_ok(squish_seq_sync(a->s, ids, (size_t)n, &err), &err);
}

static void go_on(alone *a, const int32_t *ids, int32_t n) {
    squish_error err = {0};
    for (int32_t i = 0; i < n; i++) assert_ok(sq_seq_append(a->s, ids + i, 1, &err), &err);
}

static float *keep_logits(const alone *a) {
    float *out = malloc((size_t)info.n_vocab * sizeof *out);
    memcpy(out, squish_seq_logits(a->s), (size_t)info.n_vocab * sizeof *out);
    return out;
}

static void assert_same_logits(const alone *a, const float *want) {
    assert_memory_equal(squish_seq_logits(a->s), want, (size_t)info.n_vocab * sizeof *want);
}

/* A prompt, and some tokens behind it. */
static float *logits_behind(const squish_engine_options *o, const int32_t *ids, int32_t n, int32_t more) {
    alone a = alone_of(o);
    read_prompt(&a, ids, n);
    go_on(&a, ids + n, more);
    float *out = keep_logits(&a);
    alone_free(&a);
    return out;
}

/* ---- what stays ------------------------------------------------------------------------------ */

/* The key of a slot in an open tile, and its value. */
static void row_of(const alone *a, int32_t layer, int32_t head, int32_t slot, uint16_t *k, uint16_t *v) {
    const sq_kv_geometry *g = sq_kv_pool_geometry(a->e->kv);
    const uint8_t *p = sq_kv_seq_pages(a->s->kv, layer)[slot / SQ_KV_TILE] + (size_t)head * g->head_stride;
    const uint16_t *keys = (const uint16_t *)(const void *)(p + g->k_off);
    for (int32_t c = 0; c < D; c++) k[c] = keys[c * SQ_KV_TILE + slot % SQ_KV_TILE];
    memcpy(v, p + g->v_off + (size_t)(slot % SQ_KV_TILE) * D * sizeof *v, D * sizeof *v);
}

static bool same_row(const alone *a, int32_t slot, const alone *b, int32_t other, int32_t layer,
                     int32_t head) {
    uint16_t k[2][D], v[2][D];
    row_of(a, layer, head, slot, k[0], v[0]);
    row_of(b, layer, head, other, k[1], v[1]);
    return memcmp(k[0], k[1], sizeof k[0]) == 0 && memcmp(v[0], v[1], sizeof v[0]) == 0;
}

/* Sink, window and everything between that was chosen are rows of the whole cache, in order, and heads choose
 * for themselves. The first layer knows a token by nothing but its id and position, so there even those
 * behind the prompt are: they stand at their true positions. */
static void what_stays_is_what_stood_there(void **state) {
    (void)state;
    enum { N = 700, MORE = 5, GONE = (N - 32) / 32 * 32 - (KEEP - 32) };
    const squish_engine_options o = options_of(SQUISH_KV_F16, 1024, KEEP),
                                all = options_of(SQUISH_KV_F16, 1024, 0);
    alone a = alone_of(&o), b = alone_of(&all);
    read_prompt(&a, prose.ids, N);
    go_on(&a, prose.ids + N, MORE);
    read_prompt(&b, prose.ids, N);
    go_on(&b, prose.ids + N, MORE);
    assert_int_equal(sq_kv_seq_dropped(a.s->kv), GONE);
    assert_int_equal(squish_seq_length(a.s), N + MORE);
    int32_t differ = 0, chosen[HEADS][KEEP];
    for (int32_t l = 0; l < LAYERS; l++) {
        for (int32_t h = 0; h < HEADS; h++) {
            for (int32_t t = 0; t < 32; t++) assert_true(same_row(&a, t, &b, t, l, h));
            int32_t from = 32;
            for (int32_t t = 32; t < KEEP - 32; t++, from++) {
                while (from < N - 32 && !same_row(&a, t, &b, from, l, h)) from++;
                assert_true(from < N - 32);
                chosen[h][t] = from;
            }
            for (int32_t t = KEEP - 32; t < N - GONE + (l == 0) * MORE; t++)
                assert_true(same_row(&a, t, &b, t + GONE, l, h));
        }
        differ += memcmp(chosen[0] + 32, chosen[1] + 32, (KEEP - 64) * sizeof chosen[0][0]) != 0;
    }
    assert_true(differ == LAYERS);
    alone_free(&a);
    alone_free(&b);
}

static void a_short_prompt_stays_whole(void **state) {
    (void)state;
    for (int32_t n = KEEP - 1; n <= KEEP + 33; n += 34) {
        const squish_engine_options o = options_of(SQUISH_KV_F16, 1024, KEEP),
                                    all = options_of(SQUISH_KV_F16, 1024, 0);
        float *want = logits_behind(&all, prose.ids, n, 9), *got = logits_behind(&o, prose.ids, n, 9);
        const bool same = memcmp(want, got, (size_t)info.n_vocab * sizeof *want) == 0;
        assert_true(same == (n < KEEP + 32)); /* and one that is longer by a tile is cut */
        free(want);
        free(got);
    }
}

/* Bytes after a prompt are those of what stays; while it is read they are those of the whole. */
static void memory_is_given_back(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(formats); i += run_long() ? 1 : 3) {
        const squish_engine_options o = options_of(formats[i], 2048, KEEP),
                                    all = options_of(formats[i], 2048, 0);
        alone a = alone_of(&o), b = alone_of(&all);
        squish_kv_census c;
        read_prompt(&a, prose.ids, 1800);
        read_prompt(&b, prose.ids, 1800);
        squish_seq_get_census(a.s, &c);
        assert_int_equal(c.dropped, 1800 / 32 * 32 - 32 - (KEEP - 32));
        assert_int_equal(c.tokens[0] + c.tokens[1] + c.tokens[2] + c.tokens[3] + c.dropped, 1800);
        assert_int_equal(c.bytes[0] + c.bytes[1] + c.bytes[2] + c.bytes[3], bytes_now(a.e));
        assert_true(bytes_now(a.e) * 2 < bytes_now(b.e));
        if (formats[i] == SQUISH_KV_F16) assert_true(bytes_now(a.e) * 6 < bytes_now(b.e));
        alone_free(&a);
        alone_free(&b);
    }
}

/* ---- near the reference ---------------------------------------------------------------------- */

typedef struct {
    float *rows;
    int32_t first, n;
    double kl;
} compared;

static double log_sum(const float *v) {
    double most = -INFINITY, sum = 0;
    for (int32_t i = 0; i < info.n_vocab; i++) most = fmax(most, (double)v[i]);
    for (int32_t i = 0; i < info.n_vocab; i++) sum += exp((double)v[i] - most);
    return most + log(sum);
}

static bool keep_row(void *user, int32_t pos, const float *logits) {
    compared *c = user;
    memcpy(c->rows + (size_t)(pos - c->first) * (size_t)info.n_vocab, logits,
           (size_t)info.n_vocab * sizeof *logits);
    return true;
}

static bool compare_row(void *user, int32_t pos, const float *q) {
    compared *c = user;
    const float *p = c->rows + (size_t)(pos - c->first) * (size_t)info.n_vocab;
    const double zp = log_sum(p), zq = log_sum(q);
    for (int32_t i = 0; i < info.n_vocab; i++) {
        const double lp = (double)p[i] - zp;
        c->kl += exp(lp) * (lp - ((double)q[i] - zq));
    }
    c->n++;
    return true;
}

/* The more stays the nearer. (Of prose that the model knows this well the last tokens say as much as chosen
 * ones do: what choosing is for shows where something is asked, below.) */
static void more_is_nearer(void **state) {
    (void)state;
    enum { N = 1200, AFTER = 96 };
    static const int32_t keeps[] = {128, 512, 1024};
    squish_error err = {0};
    compared c = {.first = N};
    c.rows = malloc((size_t)AFTER * (size_t)info.n_vocab * sizeof *c.rows);
    squish_engine_options o = options_of(SQUISH_KV_F16, 2048, 0);
    alone a = alone_of(&o);
    read_prompt(&a, prose.ids, N);
    assert_ok(sq_seq_extend(a.s, prose.ids + N, AFTER, keep_row, &c, &err), &err);
    alone_free(&a);
    double kl[SQ_COUNT(keeps)];
    for (size_t i = 0; i < SQ_COUNT(keeps); i++) {
        o.kv_options.snap = keeps[i];
        a = alone_of(&o);
        c.kl = 0, c.n = 0;
        read_prompt(&a, prose.ids, N);
        assert_true(sq_kv_seq_dropped(a.s->kv) > 0);
        assert_ok(sq_seq_extend(a.s, prose.ids + N, AFTER, compare_row, &c, &err), &err);
        assert_int_equal(c.n, AFTER);
        kl[i] = c.kl / AFTER;
        alone_free(&a);
    }
    printf("KL to the whole: %.3g of 128 tokens, %.3g of 512, %.3g of 1024\n", kl[0], kl[1], kl[2]);
    assert_true(kl[0] > kl[1] && kl[1] > kl[2] && kl[2] > 1e-9 && kl[2] < 0.02);
    free(c.rows);
}

/* ---- what a question asks for ---------------------------------------------------------------- */

/* Tokens of a text behind those in ids; returns how many there are now. */
static int32_t add_text(int32_t *ids, int32_t n, const char *text) {
    squish_tokens t = {0};
    squish_error err = {0};
    assert_ok(squish_tokenize(model, text, strlen(text), SQUISH_TOK_SPECIAL, &t, &err), &err);
    memcpy(ids + n, t.ids, t.count * sizeof *ids);
    n += (int32_t)t.count;
    squish_tokens_free(&t);
    return n;
}

static int32_t add_prose(int32_t *ids, int32_t n, int32_t from, int32_t count) {
    memcpy(ids + n, prose.ids + from, (size_t)count * sizeof *ids);
    return add_text(ids, n + count, "\n\n");
}

/* Does the greedy answer to a prompt name the key? */
static bool names(const squish_engine_options *o, const int32_t *ids, int32_t n, const char *key) {
    int32_t wanted[8], found = 0;
    const int32_t digits = add_text(wanted, 0, key);
    alone a = alone_of(o);
    read_prompt(&a, ids, n);
    for (int32_t i = 0; i < 16 && found < digits; i++) {
        const float *logits = squish_seq_logits(a.s);
        int32_t best = 0;
        for (int32_t t = 1; t < info.n_vocab; t++)
            if (logits[t] > logits[best]) best = t;
        found = best == wanted[found] ? found + 1 : best == wanted[0];
        go_on(&a, &best, 1);
    }
    alone_free(&a);
    return found == digits;
}

/* A key far back in prose, and a question of a dozen tokens behind more prose: most of the window is not the
 * question, and yet the answer stays. It does not where little but the last tokens stays, as many of them. */
static void what_is_asked_for_stays(void **state) {
    (void)state;
    static const char *const keys[] = {"4127", "9036", "5581", "2740", "6913", "8254"};
    const int32_t n_keys = run_long() ? (int32_t)SQ_COUNT(keys) : 3;
    int32_t ids[1400], whole = 0, kept = 0, last = 0;
    for (int32_t i = 0; i < n_keys; i++) {
        char sentence[64];
        snprintf(sentence, sizeof sentence, "The pass key is %s. Remember it.\n\n", keys[i]);
        int32_t n = add_text(ids, 0, "<|im_start|>user\n");
        n = add_prose(ids, n, 400 * i, 120 + 100 * i);
        n = add_text(ids, n, sentence);
        n = add_prose(ids, n, 400 * i + 800, 900 - 100 * i);
        n = add_text(ids, n, "What is the pass key?<|im_end|>\n<|im_start|>assistant\n");
        squish_engine_options o = options_of(SQUISH_KV_F16, 1400, 0);
        whole += names(&o, ids, n, keys[i]);
        o.kv_options.snap = KEEP;
        kept += names(&o, ids, n, keys[i]);
        o.kv_options.snap_window = KEEP - 64;
        last += names(&o, ids, n, keys[i]);
    }
    printf("keys found: %d with everything there, %d with %d tokens, %d with little but the last %d\n", whole,
           kept, KEEP, last, KEEP);
    assert_true(whole >= n_keys - 1 && kept >= whole - 1 && last < kept);
}

/* ---- the same bits --------------------------------------------------------------------------- */

static void every_way_of_computing_gives_the_same_bits(void **state) {
    (void)state;
    static const struct {
        int32_t chunk, threads;
        const char *isa;
    } ways[] = {{1, 2, NULL}, {33, 1, NULL}, {512, 2, "avx2"}, {20, 4, NULL}};
    for (size_t k = 0; k < SQ_COUNT(formats); k++) {
        squish_engine_options o = options_of(formats[k], 640, KEEP);
        float *want = logits_behind(&o, prose.ids, 500, 40);
        for (size_t i = k % 2; i < SQ_COUNT(ways); i += 2) {
            o.chunk_tokens = ways[i].chunk;
            o.threads = ways[i].threads;
            o.isa_max = ways[i].isa;
            alone a = alone_of(&o);
            read_prompt(&a, prose.ids, 500);
            go_on(&a, prose.ids + 500, 40);
            assert_same_logits(&a, want);
            alone_free(&a);
        }
        free(want);
    }
}

static void going_back(void **state) {
    (void)state;
    const squish_engine_options o = options_of(SQUISH_KV_Q8, 1024, KEEP);
    alone a = alone_of(&o), cold = alone_of(&o);
    read_prompt(&a, prose.ids, 600);
    go_on(&a, prose.ids + 600, 40);
    float *want = keep_logits(&a);
    go_on(&a, prose.ids + 640, 3);
    squish_seq_truncate(a.s, 639); /* inside the begun tiles behind the prompt: undone */
    assert_int_equal(squish_seq_length(a.s), 639);
    go_on(&a, prose.ids + 639, 1);
    assert_same_logits(&a, want);
    free(want);
    squish_seq_truncate(a.s, 540); /* before the window: what stood there is gone */
    assert_int_equal(squish_seq_length(a.s), 0);
    int32_t ids[700];
    memcpy(ids, prose.ids, sizeof ids);
    ids[300] ^= 1;
    read_prompt(&a, ids, 700);
    assert_int_equal(squish_seq_reused(a.s), 0);
    read_prompt(&cold, ids, 700);
    go_on(&a, prose.ids, 20);
    go_on(&cold, prose.ids, 20);
    want = keep_logits(&cold);
    assert_same_logits(&a, want);
    free(want);
    alone_free(&a);
    alone_free(&cold);
}

/* A conversation of many turns never holds more than a prompt that is kept, a turn and its answer. */
static void a_conversation_stays_small(void **state) {
    (void)state;
    enum { TURN = 150, ANSWER = 50, TURNS = 12 };
    for (size_t i = 0; i < SQ_COUNT(formats); i += 3) {
        const squish_engine_options o = options_of(formats[i], 4096, KEEP);
        alone a = alone_of(&o);
        const sq_kv_geometry *g = sq_kv_pool_geometry(a.e->kv);
        const uint64_t open = g->page_bytes * LAYERS;
        int32_t n = 0;
        for (int32_t turn = 0; turn < TURNS; turn++) {
            n += TURN;
            read_prompt(&a, prose.ids, n);
            assert_int_equal(squish_seq_reused(a.s), n - TURN);
            assert_true(n - sq_kv_seq_dropped(a.s->kv) < KEEP + 2 * SQ_KV_TILE);
            go_on(&a, prose.ids + n, ANSWER);
            n += ANSWER;
            assert_int_equal(squish_seq_length(a.s), n);
            assert_true(bytes_now(a.e) <= open * (KEEP + ANSWER + 2 * SQ_KV_TILE) / SQ_KV_TILE);
        }
        alone_free(&a);
    }
}

/* ---- in company ------------------------------------------------------------------------------ */

typedef struct {
    squish_engine *e;
    squish_batch *b;
} company;

static company company_of(const squish_engine_options *eo, const squish_batch_options *bo) {
    company c = {0};
    squish_error err = {0};
    assert_ok(squish_engine_new(&c.e, model, eo, &err), &err);
    assert_ok(squish_batch_new(&c.b, c.e, bo, &err), &err);
    return c;
}

static void company_free(company *c) {
    squish_batch_free(c->b);
    assert_int_equal(bytes_now(c->e), 0);
    squish_engine_free(c->e);
}

static squish_job_options job_of(const int32_t *ids, size_t n, int32_t max_tokens) {
    squish_job_options o = squish_job_options_default();
    o.prompt = ids;
    o.n_prompt = n;
    o.gen.max_tokens = max_tokens;
    o.gen.sampling.temperature = 0;
    o.gen.ignore_eos = true;
    o.gen.logprobs = 3;
    o.wake = bell_ring;
    o.wake_user = ring;
    return o;
}

static int32_t ask_all(company *c, const squish_job_options *o, int32_t n, answer *got) {
    squish_job *j[8];
    squish_error err = {0};
    int32_t preempted = 0;
    gate *g = gate_new(ring);
    squish_job_options first = o[0];
    first.wake = gate_wait, first.wake_user = g;
    for (int32_t i = 0; i < n; i++)
        assert_ok(squish_job_submit(&j[i], c->b, i ? &o[i] : &first, &err), &err);
    gate_open(g);
    answers_wait(ring, j, got, n);
    for (int32_t i = 0; i < n; i++) {
        preempted += got[i].stats.preemptions;
        squish_job_free(j[i]);
    }
    gate_free(g);
    return preempted;
}

static answer got[4], want[4];

/* Prompts that share a beginning; the third is the second again, as a fork of it would be. What is dropped
 * for one is there for the others: the tree keeps prompts whole. */
static void answers_in_company_equal_answers_alone(void **state) {
    (void)state;
    static int32_t ids[4 * 600];
    squish_job_options o[4];
    for (int32_t i = 0; i < 4; i++) {
        memcpy(ids + 600 * i, prose.ids, 600 * sizeof *ids);
        for (int32_t t = 300; i != 1 && i != 2 && t < 600; t++)
            ids[600 * i + t] = prose.ids[1000 + 37 * i + t];
        o[i] = job_of(ids + 600 * i, (size_t)(i == 1 || i == 2 ? 480 : 400 + 60 * i), 40);
    }
    for (size_t k = 0; k < SQ_COUNT(formats); k += 3) {
        squish_engine_options eo = options_of(formats[k], 1024, KEEP);
        squish_mem_estimate est;
        squish_error err = {0};
        alone a = alone_of(&eo);
        for (int32_t i = 0; i < 4; i++) answer_alone(a.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
        alone_free(&a);
        assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
        eo.kv_bytes_max = est.kv_bytes * 6;
        company c = company_of(&eo, NULL);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(ask_all(&c, o, 4, got), 0);
            for (int32_t i = 0; i < 4; i++) assert_same_answer(&got[i], &want[i]);
            for (int32_t i = 0; again && i < 4; i++) /* but for the window, which looks again */
                assert_true(got[i].stats.gen.reused_tokens >= (int32_t)o[i].n_prompt - 64 &&
                            got[i].stats.gen.reused_tokens <= (int32_t)o[i].n_prompt - 32);
        }
        company_free(&c);
    }
}

/* What gives way is computed again: the prompt ends where it ended, so the same tokens stay. */
static void giving_way_changes_no_answer(void **state) {
    (void)state;
    squish_engine_options eo = options_of(SQUISH_KV_F16, 640, KEEP);
    squish_mem_estimate est;
    squish_error err = {0};
    squish_job_options o[4];
    eo.chunk_tokens = 64;
    alone a = alone_of(&eo);
    for (int32_t i = 0; i < 4; i++) {
        o[i] = job_of(prose.ids + 300 * i, 340, 260);
        answer_alone(a.s, o[i].prompt, o[i].n_prompt, &o[i].gen, &want[i]);
    }
    alone_free(&a);
    assert_ok(squish_engine_estimate(model, &eo, &est, &err), &err);
    eo.kv_bytes_max = est.kv_bytes * 9 / 8; /* room for two while they read, and not when they answer */
    squish_batch_options bo = squish_batch_options_default();
    bo.itl_target_ms = 1e6; /* however slow the machine is: prompts in whole chunks */
    company c = company_of(&eo, &bo);
    const int32_t preempted = ask_all(&c, o, 4, got);
    for (int32_t i = 0; i < 4; i++) assert_same_answer(&got[i], &want[i]);
    assert_true(preempted > 0);
    company_free(&c);
}

static void prefixes_survive_a_restart(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_engine_options eo = options_of(SQUISH_KV_Q4, 1024, KEEP);
    squish_batch_options bo = squish_batch_options_default();
    bo.snapshot_dir = dir;
    squish_job_options o = job_of(prose.ids, 700, 30);
    company c = company_of(&eo, &bo);
    ask_all(&c, &o, 1, want);
    company_free(&c);
    c = company_of(&eo, &bo);
    ask_all(&c, &o, 1, got);
    assert_same_answer(got, want);
    assert_true(got->stats.gen.reused_tokens >= 700 - 64);
    company_free(&c);
    remove_tree(dir);
}

/* Fewer bits and fewer tokens: ages and channel classes work on what stays. */
static void votes_go_on_behind(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_Q4, 1200, 512);
    const int32_t age[3] = {128, 256, 384};
    o.kv_options.pm = o.kv_options.mix = true;
    memcpy(o.kv_options.pm_age, age, sizeof age);
    alone a = alone_of(&o);
    squish_kv_census c;
    read_prompt(&a, prose.ids, 900);
    go_on(&a, prose.ids + 900, 64);
    squish_seq_get_census(a.s, &c);
    assert_true(c.dropped > 0 && c.tokens[3] > 0 && c.tokens[2] > 0);
    assert_int_equal(c.tokens[0] + c.tokens[1] + c.tokens[2] + c.tokens[3] + c.dropped, 964);
    alone_free(&a);
}

/* ---- a budget -------------------------------------------------------------------------------- */

enum { TURN = 90, ANSWER = 30 };

/* A chat up to `n` tokens or where it is refused, in a cache of the bytes of `held` tokens in f16; never more
 * than these. Returns the tokens it came to. */
static int32_t chat_under_budget(squish_engine_options o, int32_t held, int32_t n, squish_error *err) {
    const sq_kv_shape shape = {LAYERS, HEADS, D, false};
    const sq_kv_policy f16 = sq_kv_policy_of(SQUISH_KV_F16);
    o.ctx_tokens = n;
    o.chunk_tokens = 32;
    o.kv_options.budget = sq_kv_open_bytes(&shape, &f16) * (uint64_t)(held / SQ_KV_TILE);
    alone a = alone_of(&o);
    squish_engine_info i;
    squish_engine_get_info(a.e, &i);
    assert_true(i.kv_bytes_max <= o.kv_options.budget && i.ctx_tokens == n);
    int32_t at = 0;
    squish_status st = SQUISH_OK;
    for (int32_t turn = 0; st == SQUISH_OK && at + TURN + ANSWER <= n; turn++) {
        st = squish_seq_sync(a.s, prose.ids, (size_t)at + TURN, err);
        assert_true(bytes_now(a.e) <= o.kv_options.budget);
        for (int32_t k = 0; st == SQUISH_OK && k < ANSWER; k++) {
            st = sq_seq_append(a.s, prose.ids + at + TURN + k, 1, err);
            assert_true(bytes_now(a.e) <= o.kv_options.budget);
        }
        at = squish_seq_length(a.s);
    }
    squish_kv_census c;
    squish_seq_get_census(a.s, &c);
    assert_int_equal(c.bytes[0] + c.bytes[1] + c.bytes[2] + c.bytes[3], bytes_now(a.e));
    if (st != SQUISH_OK) { /* what there was is whole, and so is what comes after it */
        squish_error again = {0};
        squish_seq_truncate(a.s, 0);
        assert_ok(squish_seq_sync(a.s, prose.ids, 200, &again), &again);
    }
    alone_free(&a);
    return at;
}

static void a_chat_ten_times_too_long(void **state) {
    (void)state;
    enum { HELD = 384, LONG = 10 * HELD };
    for (size_t i = 0; i < SQ_COUNT(formats); i += run_long() ? 3 : SQ_COUNT(formats)) {
        squish_error err = {0};
        squish_engine_options o = options_of(formats[i], 0, 0);
        o.kv_options.residual = 32;
        o.kv_options.pm_floor = 4;
        const int32_t four = chat_under_budget(o, HELD, LONG, &err);
        assert_int_equal(err.code, SQUISH_NO_MEMORY);
        assert_non_null(strstr(err.text, "--kv-budget"));
        o.kv_options.pm_floor = 2;
        err = (squish_error){0};
        const int32_t two = chat_under_budget(o, HELD, LONG, &err);
        assert_int_equal(err.code, SQUISH_NO_MEMORY);
        printf("%s: %d tokens in f16 hold a chat of %d with a floor of 4 bits, of %d with one of 2\n",
               squish_kv_name(formats[i]), HELD, four, two);
        assert_true(four > HELD && two > four * 5 / 4);
        err = (squish_error){0};
        o.kv_options.snap = 128; /* and with fewer tokens it does not end */
        assert_int_equal(chat_under_budget(o, HELD, LONG, &err), LONG);
        assert_int_equal(err.code, SQUISH_OK);
    }
}

/* A prompt longer than the budget holds in its own format loses bits while it is read. */
static void a_prompt_gives_before_it_ends(void **state) {
    (void)state;
    squish_engine_options o = options_of(SQUISH_KV_F16, 1600, 0);
    const sq_kv_shape shape = {LAYERS, HEADS, D, false};
    const sq_kv_policy f16 = sq_kv_policy_of(SQUISH_KV_F16);
    o.chunk_tokens = 64;
    o.kv_options.budget = sq_kv_open_bytes(&shape, &f16) * 20;
    alone a = alone_of(&o);
    squish_kv_census c;
    squish_error err = {0};
    read_prompt(&a, prose.ids, 1200);
    squish_seq_get_census(a.s, &c);
    assert_int_equal(c.tokens[0] + c.tokens[1] + c.tokens[2] + c.tokens[3], 1200);
    assert_true(c.tokens[0] < 640 && bytes_now(a.e) <= o.kv_options.budget);
    alone_free(&a);
    o.kv_options.budget /= 10;
    assert_int_equal(squish_engine_new(&a.e, model, &o, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "--kv-budget"));
}

/* Answers of a batch under a budget are as long as they should be, whoever gives what. */
static void company_under_a_budget(void **state) {
    (void)state;
    squish_engine_options eo = options_of(SQUISH_KV_Q8, 1024, 0);
    const sq_kv_shape shape = {LAYERS, HEADS, D, false};
    const sq_kv_policy f16 = sq_kv_policy_of(SQUISH_KV_F16);
    squish_job_options o[4];
    eo.chunk_tokens = 64;
    eo.kv_options.budget = sq_kv_open_bytes(&shape, &f16) * 26;
    for (int32_t i = 0; i < 4; i++) o[i] = job_of(prose.ids + 300 * i, 400 + 50 * (size_t)i, 100);
    company c = company_of(&eo, NULL);
    ask_all(&c, o, 4, got);
    for (int32_t i = 0; i < 4; i++) assert_true(got[i].status == SQUISH_OK && got[i].n == 100);
    company_free(&c);
}

static void some_models_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *path, *why;
    } models[] = {{"tests/fixtures/architectures/deepseek-v2-lite", "latent attention"},
                  {"tests/fixtures/architectures/mistral-window", "sliding window"},
                  {"tests/fixtures/architectures/gemma3-text", "sliding window"}};
    for (size_t i = 0; i < SQ_COUNT(models); i++) {
        squish_model *m;
        squish_engine *e;
        squish_error err = {0};
        squish_engine_options o = options_of(SQUISH_KV_F16, 256, 128);
        assert_ok(squish_model_open(&m, models[i].path, NULL, &err), &err);
        assert_int_equal(squish_engine_new(&e, m, &o, &err), SQUISH_UNSUPPORTED);
        assert_non_null(strstr(err.text, "--snap-kv"));
        assert_non_null(strstr(err.text, models[i].why));
        squish_model_close(m);
    }
}

static int open_all(void **state) {
    (void)state;
    base = run_compressed("models/squish-tiny", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    shallow = run_shallow("models/squish-tiny", LAYERS, SQUISH_METHOD_RTN);
    model = shallow.m;
    squish_model_get_info(model, &info);
    prose = run_tokens(&base, "tests/fixtures/own-prose.txt");
    assert_true(prose.count > 3000);
    ring = bell_new();
    return 0;
}

static int with_the_whole_model(void **state) {
    (void)state;
    model = base.m;
    return 0;
}

static int with_a_shallow_one(void **state) {
    (void)state;
    model = shallow.m;
    return 0;
}

static int close_all(void **state) {
    (void)state;
    squish_tokens_free(&prose);
    run_close(&base);
    run_close(&shallow);
    bell_free(ring);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stays_is_what_stood_there),
        cmocka_unit_test(a_short_prompt_stays_whole),
        cmocka_unit_test(memory_is_given_back),
        cmocka_unit_test_setup_teardown(more_is_nearer, with_the_whole_model, with_a_shallow_one),
        cmocka_unit_test_setup_teardown(what_is_asked_for_stays, with_the_whole_model, with_a_shallow_one),
        cmocka_unit_test(every_way_of_computing_gives_the_same_bits),
        cmocka_unit_test(going_back),
        cmocka_unit_test(a_conversation_stays_small),
        cmocka_unit_test(answers_in_company_equal_answers_alone),
        cmocka_unit_test(giving_way_changes_no_answer),
        cmocka_unit_test(prefixes_survive_a_restart),
        cmocka_unit_test(votes_go_on_behind),
        cmocka_unit_test(a_chat_ten_times_too_long),
        cmocka_unit_test(a_prompt_gives_before_it_ends),
        cmocka_unit_test(company_under_a_budget),
        cmocka_unit_test(some_models_are_refused_by_name),
    };
    run_sampled("*company*");
    return cmocka_run_group_tests(tests, open_all, close_all);
}
