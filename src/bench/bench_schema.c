/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_schema.c - what a grammar costs a decoded token: an answer with one and an answer without are made in
 * turn, token by token, so that both meet the same machine. Each run has a grammar that has seen nothing, the
 * first token, which has a prompt in it, is left out. Both are greedy.
 *
 * With a schema the text is another one; how well it can be guessed is a matter of the text, so there are no
 * guesses there. A grammar that takes the very text of the model is measured with guesses, too; a model whose
 * text it does not take has no row of it. */
#include "bench/bench.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 300, TOKENS_LEAST = 64, SECONDS_MAX = 6 };

typedef struct {
    const char *name, *prompt;
    squish_grammar_kind kind;
    const char *source;
    squish_spec_mode spec;
    bool same; /* only where both texts are the same */
} pairing;

static const char list_schema[] =
    "{\"type\":\"array\",\"minItems\":10000,\"items\":{\"type\":\"object\",\"properties\":{\"name\":{"
    "\"type\":"
    "\"string\"},\"year\":{\"type\":\"integer\"}},\"required\":[\"name\",\"year\"],"
    "\"additionalProperties\":false}}";
static const char prose[] = "root ::= part+\n"
                            "part ::= word | [ \\n] | mark | \"\\\"\" part+ \"\\\"\"\n"
                            "word ::= [A-Za-z'\\u2019-]+ | [0-9]+\n"
                            "mark ::= [.,;:!?]\n";
static const char story[] = "Once upon a time there was a river";

static const pairing pairings[] = {
    {"a list schema", "Some rivers: ", SQUISH_GRAMMAR_SCHEMA, list_schema, SQUISH_SPEC_OFF, false},
    {"the same text", story, SQUISH_GRAMMAR_GBNF, prose, SQUISH_SPEC_OFF, true},
    {"the same text, guessed", story, SQUISH_GRAMMAR_GBNF, prose, SQUISH_SPEC_AUTO, true}};

typedef struct {
    squish_model *m;
    squish_engine *e;
    squish_seq *s[2]; /* without, with */
    squish_tokens prompt;
    double ratio[BENCH_RUNS_MAX], tok_s[2][BENCH_RUNS_MAX];
    int32_t forced, checked;
    bool same;
} job;

static squish_status begin(job *j, const pairing *p, squish_grammar *g, squish_gen **gen, squish_error *err) {
    for (int k = 0; k < 2; k++) {
        squish_gen_options o = squish_gen_options_default();
        o.sampling.temperature = 0;
        o.max_tokens = TOKENS;
        o.spec.mode = p->spec;
        if (k == 1) o.grammar = g;
        if (k == 0) o.ignore_eos = !p->same;
        squish_seq_truncate(j->s[k], 0);
        SQ_TRY(squish_gen_new(&gen[k], j->s[k], j->prompt.ids, j->prompt.count, &o, err));
    }
    return SQUISH_OK;
}

/* One token of both, `first` first. */
static squish_status one_of_each(job *j, squish_gen *const *gen, int32_t first, double *ns, bool *over,
                                 squish_error *err) {
    squish_gen_event ev[2];
    for (int n = 0; n < 2; n++) {
        const int k = (first + n) % 2;
        const uint64_t from = sq_os_now_ns();
        SQ_TRY(squish_gen_next(gen[k], &ev[k], err));
        ns[k] += (double)(sq_os_now_ns() - from);
    }
    j->same &= ev[0].id == ev[1].id;
    *over = ev[0].finish != SQUISH_FINISH_NONE || ev[1].finish != SQUISH_FINISH_NONE;
    return SQUISH_OK;
}

static squish_status run_once(job *j, const pairing *p, int32_t r, squish_error *err) {
    squish_grammar *g = NULL;
    squish_gen *gen[2] = {NULL, NULL};
    squish_status st = SQUISH_OK;
    double ns[2] = {0, 0};
    int32_t i = 0;
    SQ_GUARD(squish_grammar_new(&g, j->m, p->kind, p->source, strlen(p->source), err));
    SQ_GUARD(begin(j, p, g, gen, err));
    for (bool over = false; !over && (i < TOKENS_LEAST || ns[0] + ns[1] < SECONDS_MAX * 1e9); i++) {
        SQ_GUARD(one_of_each(j, gen, i + r, ns, &over, err));
        if (i == 0) ns[0] = ns[1] = 0;
    }
    squish_gen_stats s;
    squish_gen_get_stats(gen[1], &s);
    j->forced = s.forced_tokens;
    j->checked = s.checked_tokens;
    j->ratio[r] = ns[0] / ns[1];
    for (int k = 0; k < 2; k++) j->tok_s[k][r] = (i - 1) / ns[k] * 1e9;
fail:
    for (int k = 0; k < 2; k++) squish_gen_free(gen[k]);
    squish_grammar_free(g);
    return st;
}

static squish_status measure(job *j, const pairing *p, const bench_options *o, json_t *rows,
                             squish_error *err) {
    SQ_TRY(squish_tokenize(j->m, p->prompt, strlen(p->prompt), 0, &j->prompt, err));
    squish_status st = SQUISH_OK;
    j->same = true;
    for (int32_t r = 0; r < o->runs && st == SQUISH_OK; r++) st = run_once(j, p, r, err);
    squish_tokens_free(&j->prompt);
    if (st != SQUISH_OK || (p->same && !j->same)) return st;
    SQ_TRY(bench_row(rows, p->name, "", j->ratio, o->runs, NAN, BENCH_LARGE_IS_GOOD, err));
    json_t *row = json_array_get(rows, json_array_size(rows) - 1);
    json_t *more = json_pack("{s:f, s:f, s:i, s:i}", "tok_s", bench_median(j->tok_s[1], o->runs), "tok_s_off",
                             bench_median(j->tok_s[0], o->runs), "forced_tokens", j->forced, "checked_tokens",
                             j->checked);
    const bool ok = more && json_object_update(row, more) == 0;
    json_decref(more);
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
}

squish_status bench_schema(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    SQ_TRY(bench_check_runs(o, err));
    job *j = sq_alloc_zero(&a, sizeof *j);
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    squish_status st = SQUISH_OK;
    mo.tier = o->tier;
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = 4 * TOKENS; /* both timelines, and what guesses take */
    SQ_GUARD(squish_model_open(&j->m, o->path, &mo, err));
    SQ_GUARD(squish_engine_new(&j->e, j->m, &eo, err));
    for (int k = 0; k < 2; k++) SQ_GUARD(squish_seq_new(&j->s[k], j->e, err));
    for (size_t i = 0; i < SQ_COUNT(pairings); i++) {
        SQ_GUARD(measure(j, &pairings[i], o, rows, err));
        if (o->progress && !o->progress(o->progress_user, "bench", i + 1, SQ_COUNT(pairings)))
            SQ_GUARD(sq_fail(err, SQUISH_CANCELLED, "stopped"));
    }
fail:
    for (int k = 0; k < 2; k++) squish_seq_free(j->s[k]);
    squish_engine_free(j->e);
    squish_model_close(j->m);
    sq_alloc_free(&a, j, sizeof *j);
    return st;
}
