/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_plan.c - which tier of a model would run on this machine: the decision and a table. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

bool cli_parse_size(const char *text, uint64_t *out) {
    char *end = NULL;
    double v = strtod(text, &end);
    if (end == text || !(v > 0) || v > 1e15) return false;
    switch (*end) {
    case 'T':
    case 't': v *= 1024;
    /* fall through */
    case 'G':
    case 'g': v *= 1024;
    /* fall through */
    case 'M':
    case 'm': v *= 1024;
    /* fall through */
    case 'K':
    case 'k':
        v *= 1024;
        end++;
        break;
    default: break;
    }
    if (*end == 'B' || *end == 'b') end++;
    *out = (uint64_t)v;
    return *end == 0;
}

static void print_table(const json_t *o) {
    const json_t *t;
    size_t i;
    printf("%s\n\n  %-7s %-9s %10s %10s  %-5s %8s %9s\n", json_string_value(json_object_get(o, "line")),
           "tier", "state", "size", "needs", "fits", "tok/s", "context");
    json_array_foreach(json_object_get(o, "tiers"), i, t) {
        char size[32], need[32];
        printf("%c %-7s %-9s %10s %10s  %-5s %8.1f %9lld\n",
               json_is_true(json_object_get(t, "chosen")) ? '*' : ' ',
               json_string_value(json_object_get(t, "tier")),
               json_is_true(json_object_get(t, "ready")) ? "ready" : "not built",
               cli_bytes((uint64_t)json_integer_value(json_object_get(t, "bytes")), size),
               cli_bytes((uint64_t)json_integer_value(json_object_get(t, "need")), need),
               json_is_true(json_object_get(t, "fits")) ? "yes" : "no",
               json_real_value(json_object_get(t, "tok_s")),
               (long long)json_integer_value(json_object_get(t, "ctx_max")));
    }
    printf(
        "\nlongest context of tier %s by --kv, cache and the memory of steps in what is left:\n\n  %-7s %9s "
        "%10s %10s\n",
        json_string_value(json_object_get(o, "contexts_tier")), "kv", "context", "cache", "a token");
    json_array_foreach(json_object_get(o, "contexts"), i, t) {
        char all[32], one[32];
        printf("  %-7s %9lld %10s %10s\n", json_string_value(json_object_get(t, "kv")),
               (long long)json_integer_value(json_object_get(t, "ctx")),
               cli_bytes((uint64_t)json_integer_value(json_object_get(t, "kv_bytes")), all),
               cli_bytes((uint64_t)json_integer_value(json_object_get(t, "bytes_token")), one));
    }
}

int cli_plan(cli *c) {
    const char *name = cli_take_model(c, false), *memory = cli_text(c, OPT_MEMORY);
    squish_plan_options o = squish_plan_options_default();
    squish_text json = {0};
    squish_error err = {0};
    if (c->n_args) return cli_fail_text(c, 3, "no model '%.60s' (see: squish list)", c->args[0]);
    if (memory && *memory && !cli_parse_size(memory, &o.memory))
        return cli_fail_text(c, 2, "--memory: '%.40s' is not a size as 8G or 512M", memory);
    o.home = cli_home(c);
    o.ctx_tokens = (int32_t)cli_int(c, OPT_CTX);
    o.min_tok_s = cli_num(c, OPT_MIN_TPS);
    o.policy = cli_text(c, OPT_POLICY);
    if (cli_plan_of(c, name, &o, &json, &err) != SQUISH_OK) return cli_fail(c, &err);
    json_t *plan = json_loads(json.data, 0, NULL);
    squish_text_free(&json);
    if (!plan) return cli_fail_text(c, 1, "plan: out of memory");
    if (cli_flag(c, OPT_JSON)) return cli_print_json(plan);
    print_table(plan);
    json_decref(plan);
    return 0;
}
