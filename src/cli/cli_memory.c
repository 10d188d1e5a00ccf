/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_memory.c - how much memory a command may take, and what it says of weights that do not fit. */
#include "cli/cli.h"

int cli_memory(cli *c, squish_engine_options *o) {
    const char *limit = cli_text(c, OPT_MEMORY_LIMIT);
    o->memory_limit = 0;
    if (limit && !cli_parse_size(limit, &o->memory_limit))
        return cli_fail_text(c, 2, "--memory-limit: '%.60s' is no size (as 8G or 512M)", limit);
    o->agile.on = cli_flag(c, OPT_AGILE_IO) || limit;
    squish_lookahead_from_name(cli_text(c, OPT_LOOKAHEAD), &o->agile.lookahead);
    return 0;
}

void cli_say_memory(const cli *c, const squish_engine *e, const squish_model *m) {
    squish_engine_info i;
    squish_model_info w;
    char all[32], kept[32];
    squish_engine_get_info(e, &i);
    squish_model_get_info(m, &w);
    if (!i.agile.on) return;
    cli_note(c,
             "squish: weights of %s do not fit: %s of memory for them, the rest is read again and again (%s)",
             cli_bytes(w.weight_bytes, all), cli_bytes(i.agile.budget_bytes, kept), i.agile.backend);
    if (*i.lookahead.why) cli_note(c, "squish: %s", i.lookahead.why);
}

json_t *cli_lookahead_json(const squish_engine *e) {
    squish_engine_info i;
    squish_engine_get_info(e, &i);
    const squish_lookahead_info *l = &i.lookahead;
    if (!i.agile.on) return NULL;
    if (l->kind == SQUISH_LOOKAHEAD_OFF) return json_pack("{s:s}", "kind", "off");
    return json_pack("{s:s, s:s, s:i, s:i, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:f}", "kind",
                     squish_lookahead_name(l->kind), "why", l->why, "used", (int)l->used, "extra",
                     (int)l->extra, "tokens", (json_int_t)l->tokens, "strict", l->strict, "covered",
                     l->covered, "resident", l->resident, "hit_bytes", (json_int_t)l->hit_bytes, "miss_bytes",
                     (json_int_t)l->miss_bytes, "predicted_bytes", (json_int_t)l->predicted_bytes,
                     "wasted_bytes", (json_int_t)l->wasted_bytes, "us_layer", l->us_layer);
}

json_t *cli_agile_json(const squish_engine *e) {
    squish_engine_info i;
    squish_engine_get_info(e, &i);
    const squish_agile_info *a = &i.agile;
    if (!*a->why) return NULL;
    if (!a->on) return json_pack("{s:b, s:s}", "on", 0, "why", a->why);
    return json_pack("{s:b, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, "
                     "s:f, s:f}",
                     "on", 1, "why", a->why, "backend", a->backend, "budget_bytes",
                     (json_int_t)a->budget_bytes, "pinned_bytes", (json_int_t)a->pinned_bytes, "hits",
                     (json_int_t)a->hits, "late_hits", (json_int_t)a->late_hits, "misses",
                     (json_int_t)a->misses, "bytes_read", (json_int_t)a->bytes_read, "wasted_bytes",
                     (json_int_t)a->wasted_bytes, "hinted", (json_int_t)a->hinted, "hint_hits",
                     (json_int_t)a->hint_hits, "retries", (json_int_t)a->retries, "failures",
                     (json_int_t)a->failures, "heat_why", a->heat_why, "warmed", (json_int_t)a->warmed,
                     "warm_hits", (json_int_t)a->warm_hits, "stall_ms", a->stall_ms, "busy_ms", a->busy_ms);
}

void cli_print_agile(const squish_engine *e) {
    squish_engine_info i;
    char bytes[32];
    squish_engine_get_info(e, &i);
    const squish_agile_info *a = &i.agile;
    if (!*a->why) return;
    if (!a->on) {
        fprintf(stderr, "%s\n", a->why);
        return;
    }
    fprintf(stderr,
            "%s read (%s), %llu units were there, %llu on their way, %llu not; waited %.1f ms of %.1f\n",
            cli_bytes(a->bytes_read, bytes), a->backend, (unsigned long long)a->hits,
            (unsigned long long)a->late_hits, (unsigned long long)a->misses, a->stall_ms, a->busy_ms);
    if (*a->heat_why) fprintf(stderr, "%s\n", a->heat_why);
    if (a->warmed > 0)
        fprintf(stderr, "of %llu experts read since earlier runs asked for them, %llu were asked for\n",
                (unsigned long long)a->warmed, (unsigned long long)a->warm_hits);
    const squish_lookahead_info *l = &i.lookahead;
    if (l->tokens == 0) return;
    fprintf(stderr,
            "experts guessed (%s): %.1f %% right, %.1f %% with %d more; %.1f %% in memory when asked for; "
            "%.1f us a layer\n",
            squish_lookahead_name(l->kind), 100 * l->strict, 100 * l->covered, l->extra, 100 * l->resident,
            l->us_layer);
}
