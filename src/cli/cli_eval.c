/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_eval.c - what a model thinks of given tokens: logits and perplexity. */
#include "cli/cli.h"
#include "format/format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- logits ---------------------------------------------------------------------------------- */

typedef struct {
    float *rows; /* [last][n_vocab] */
    int32_t first, n_vocab;
} logits_ctx;

static bool keep_row(void *user, int32_t pos, const float *logits) {
    logits_ctx *k = user;
    memcpy(k->rows + (size_t)(pos - k->first) * (size_t)k->n_vocab, logits,
           (size_t)k->n_vocab * sizeof *logits);
    return true;
}

enum { TOP = 10 };

/* The ten largest of a row: ids and values, largest first, ties by lower id. */
static json_t *top_of(const float *row, int32_t n) {
    json_t *top = json_array();
    int32_t best[TOP], k = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t at = k < TOP ? k++ : TOP;
        while (at > 0 && row[best[at - 1]] < row[i]) {
            if (at < TOP) best[at] = best[at - 1];
            at--;
        }
        if (at < TOP) best[at] = i;
    }
    for (int32_t i = 0; i < k; i++)
        json_array_append_new(top, json_pack("[i, f]", best[i], (double)row[best[i]]));
    return top;
}

static int print_logits(const cli *c, const float *rows, int32_t n, int32_t n_vocab) {
    squish_error err = {0};
    const char *file = cli_text(c, OPT_OUT);
    if (file) {
        const sq_ftensor t = {.name = "logits",
                              .dtype = SQ_DT_F32,
                              .n_dims = 2,
                              .dims = {(uint64_t)n, (uint64_t)n_vocab},
                              .data = (const uint8_t *)rows,
                              .bytes = (uint64_t)n * (uint64_t)n_vocab * sizeof *rows};
        if (sq_st_write(file, &t, 1, &err) != SQUISH_OK) return cli_fail(c, &err);
    }
    json_t *top = top_of(rows + (size_t)(n - 1) * (size_t)n_vocab, n_vocab);
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(
            json_pack("{s:o, s:i, s:i, s:s?}", "top", top, "positions", n, "vocab", n_vocab, "file", file));
    size_t i;
    json_t *pair;
    json_array_foreach(top, i, pair)
        printf("%8lld  %.6f\n", (long long)json_integer_value(json_array_get(pair, 0)),
               json_real_value(json_array_get(pair, 1)));
    json_decref(top);
    return 0;
}

int cli_logits(cli *c) {
    const char *model = cli_take_model(c, false);
    int32_t *ids;
    size_t n;
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    if (!cli_has(c, OPT_IDS)) return cli_fail_text(c, 2, "logits needs --ids 1,2,3");
    if (!cli_parse_ids(c, "--ids", cli_text(c, OPT_IDS), &ids, &n)) return 2;
    const int64_t last = cli_int(c, OPT_LAST);
    if (last > (int64_t)n)
        return cli_fail_text(c, 2, "--last %lld is more than the %zu ids", (long long)last, n);
    cli_session s;
    int code = cli_open_session(c, model, &s);
    if (code) return code;
    const squish_alloc a = sq_alloc_default();
    const size_t bytes = (size_t)last * (size_t)s.info.n_vocab * sizeof(float);
    logits_ctx k = {sq_alloc_new(&a, bytes), (int32_t)n - (int32_t)last, s.info.n_vocab};
    squish_error err = {0};
    if (!k.rows)
        code = cli_fail_text(c, 5, "out of memory for %lld rows of logits", (long long)last);
    else if (squish_seq_score(s.seq, ids, n, k.first, keep_row, &k, &err) != SQUISH_OK)
        code = cli_fail(c, &err);
    else
        code = print_logits(c, k.rows, (int32_t)last, s.info.n_vocab);
    sq_alloc_free(&a, k.rows, bytes);
    cli_close_session(&s);
    return code;
}

/* ---- perplexity ------------------------------------------------------------------------------ */

typedef struct {
    cli *c;
    const int32_t *ids;
    size_t n, base; /* tokens of the text; where the window begins */
    size_t end;     /* positions from here on are not predicted: the end of the text, or of the chunk */
    int32_t n_vocab;
    double nats;
    size_t scored;
} ppl_ctx;

static double nll(const float *row, int32_t n, int32_t id) {
    double m = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) m = fmax(m, (double)row[i]);
    for (int32_t i = 0; i < n; i++) sum += exp((double)row[i] - m);
    return m + log(sum) - (double)row[id];
}

static bool add_row(void *user, int32_t pos, const float *logits) {
    ppl_ctx *k = user;
    const size_t next = k->base + (size_t)pos + 1;
    if (next >= k->end) return true; /* the last position has nothing to predict */
    k->nats += nll(logits, k->n_vocab, k->ids[next]);
    k->scored++;
    return cli_progress(k->c, "ppl", next + 1, k->n);
}

static int print_ppl(const cli *c, const cli_session *s, const ppl_ctx *k) {
    squish_engine_info e;
    squish_engine_get_info(s->engine, &e);
    const double mean = k->nats / (double)k->scored, ppl = exp(mean);
    if (!isfinite(ppl)) return cli_fail_text(c, 1, "the model gives the text no finite probability");
    if (cli_flag(c, OPT_JSON))
        return cli_print_json(json_pack("{s:f, s:f, s:I, s:I, s:f}", "perplexity", ppl, "nats_per_token",
                                        mean, "tokens", (json_int_t)k->n, "scored", (json_int_t)k->scored,
                                        "attn_density", e.attn_density));
    printf("perplexity %.4f, %.6f nats per token, %zu tokens (%zu scored)\n", ppl, mean, k->n, k->scored);
    return 0;
}

static int score_text(cli *c, const cli_session *s, const squish_text *text) {
    squish_error err = {0};
    squish_tokens t = {0};
    if (squish_tokenize(s->model, text->data, text->bytes, 0, &t, &err) != SQUISH_OK)
        return cli_fail(c, &err);
    int code =
        t.count < 2 ? cli_fail_text(c, 1, "the text has %zu tokens, at least 2 are needed", t.count) : 0;
    squish_engine_info e;
    squish_engine_get_info(s->engine, &e);
    const size_t window = (size_t)cli_int(c, OPT_WINDOW);
    if (code == 0 && window > (size_t)e.ctx_tokens)
        code =
            cli_fail_text(c, 2, "--window %zu is more than the context of %d tokens", window, e.ctx_tokens);
    ppl_ctx k = {.c = c, .ids = t.ids, .n = t.count, .end = t.count, .n_vocab = s->info.n_vocab};
    const bool halves = strcmp(cli_text(c, OPT_MODE), "chunk") == 0;
    if (code == 0 && halves && t.count < window)
        code = cli_fail_text(c, 1, "the text has %zu tokens, fewer than one chunk of %zu (see --window)",
                             t.count, window);
    for (; code == 0 && k.base < t.count; k.base += window) {
        const size_t n = t.count - k.base < window ? t.count - k.base : window;
        if (halves && n < window) break; /* only whole chunks count */
        if (halves) k.end = k.base + window;
        if (squish_seq_score(s->seq, t.ids + k.base, n, halves ? (int32_t)(window / 2) : 0, add_row, &k,
                             &err) != SQUISH_OK)
            code = cli_fail(c, &err);
    }
    if (code == 0) code = print_ppl(c, s, &k);
    squish_tokens_free(&t);
    return code;
}

int cli_ppl(cli *c) {
    const char *model = cli_take_model(c, false);
    squish_text text = {0};
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    if (!cli_has(c, OPT_TEXT)) return cli_fail_text(c, 2, "ppl needs --text FILE (or - for standard input)");
    int code = cli_read(c, cli_text(c, OPT_TEXT), true, &text);
    cli_session s;
    if (code == 0 && (code = cli_open_session(c, model, &s)) == 0) {
        code = score_text(c, &s, &text);
        cli_close_session(&s);
    }
    squish_text_free(&text);
    return code;
}
