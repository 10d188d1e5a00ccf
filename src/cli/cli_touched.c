/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_touched.c - what options did: a flag that changed nothing in an answer says so, and why. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const cli *c;
    const squish_gen_stats *stats;
    squish_kv_options kv;
    squish_kv_census census;
    squish_engine_info engine;
    int32_t length; /* tokens of the timeline */
    json_t *out;
} report;

static void put(report *r, const char *name, double count, const char *unit, const char *why, ...)
    SQ_PRINTF(5, 6);
static void put(report *r, const char *name, double count, const char *unit, const char *why, ...) {
    char text[200];
    va_list ap;
    va_start(ap, why);
    vsnprintf(text, sizeof text, why, ap);
    va_end(ap);
    json_t *number = count == (double)(json_int_t)count ? json_integer((json_int_t)count) : json_real(count);
    json_t *o = json_pack("{s:s, s:o, s:s}", "name", name, "count", number, "unit", unit);
    if (count == 0) json_object_set_new(o, "why", json_string(text));
    json_array_append_new(r->out, o);
}

static int32_t sealed_tokens(const report *r) {
    return r->census.tokens[1] + r->census.tokens[2] + r->census.tokens[3];
}

static void put_cache(report *r) {
    const char *kv = cli_text(r->c, OPT_KV);
    const squish_kv_options *o = &r->kv;
    if (strcmp(kv, "f16") != 0 && strcmp(kv, "f32") != 0)
        put(r, "kv", sealed_tokens(r), "tokens in fewer bits",
            "%d tokens are all among the first %d or the last %d to %d", r->length, o->sink, o->residual,
            2 * o->residual);
    if (o->pm)
        put(r, "pm-kvq", sealed_tokens(r), "tokens in fewer bits",
            "%d tokens, and none is %d old (--pm-ages)", r->length, o->pm_age[0]);
    if (o->mix)
        put(r, "mix-kvq", r->census.tokens[2] + r->census.tokens[3],
            "tokens whose keys have channels in classes",
            "no token went to 4 or 2 bits, whose keys it is about");
    if (o->cocktail)
        put(r, "cocktail-kv", r->census.chunks[0] + r->census.chunks[1] + r->census.chunks[2], "tiles judged",
            "a prompt of %d tokens has no chunk between its first and its last", r->stats->prompt_tokens);
    if (o->snap)
        put(r, "snap-kv", r->census.dropped, "tokens given back",
            "a prompt of %d tokens, of which %d may stay", r->stats->prompt_tokens, o->snap);
}

static void put_attention(report *r) {
    const squish_attention a = cli_attention(r->c);
    const int32_t prompt = r->stats->prompt_tokens;
    if (a.sage)
        put(r, "sage-attention", (double)r->engine.attn_sage_tiles, "tiles of a head read in 8 bits",
            "no row of a prompt of %d tokens has 256 others behind it", prompt);
    if (!a.sparge) return;
    const double skipped = 1 - r->engine.attn_density;
    if (prompt <= a.sparge_min)
        put(r, "sparge-attn", skipped, "share of keys not read",
            "a prompt of %d tokens, and it begins at %d (--sparge-min)", prompt, a.sparge_min);
    else
        put(r, "sparge-attn", skipped, "share of keys not read", "every block of keys seemed to matter");
}

json_t *cli_touched(const cli *c, const cli_session *s, const squish_gen_stats *t) {
    report r = {.c = c,
                .stats = t,
                .kv = cli_kv_options(c),
                .length = squish_seq_length(s->seq),
                .out = json_array()};
    squish_seq_get_census(s->seq, &r.census);
    squish_engine_get_info(s->engine, &r.engine);
    put_cache(&r);
    if (cli_flag(c, OPT_MILO))
        put(&r, "milo", (double)s->info.weight_bytes, "bytes of weights", "no weights");
    if (cli_flag(c, OPT_AGILE_IO))
        put(&r, "agile-io", (double)r.engine.agile.bytes_read, "bytes of weights read", "%s",
            r.engine.agile.why);
    if (strcmp(cli_text(c, OPT_LOOKAHEAD), "auto") != 0 && strcmp(cli_text(c, OPT_LOOKAHEAD), "off") != 0)
        put(&r, "lookahead", (double)r.engine.lookahead.tokens, "choices of experts guessed", "%s",
            s->info.n_experts == 0 ? "the model has no experts"
            : r.engine.agile.on
                ? "no token was evaluated behind the prompt"
                : "no weights are streamed (--memory-limit), so there is nothing to read ahead");
    put_attention(&r);
    const char *spec = cli_text(c, OPT_SPEC);
    if (s->draft || (strcmp(spec, "auto") != 0 && strcmp(spec, "off") != 0))
        put(&r, s->draft ? "draft" : "spec", t->guessed_tokens, "tokens guessed",
            "no guess was worth its row in %d tokens", t->completion_tokens);
    return r.out;
}

void cli_note_untouched(const cli *c, const cli_session *s, const squish_gen_stats *t) {
    json_t *all = cli_touched(c, s, t), *one;
    size_t i;
    json_array_foreach(all, i, one) {
        const char *why = json_string_value(json_object_get(one, "why"));
        if (why)
            cli_note(c, "--%s touched nothing: %s", json_string_value(json_object_get(one, "name")), why);
    }
    json_decref(all);
}
