/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_kv.c - what becomes of old tokens: options of the cache beside --kv. Numbers that are none are left to
 * the check of the engine, which names them. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

static void ages(const char *text, int32_t age[3]) {
    for (int i = 0; i < 3; i++) {
        char *end;
        const long n = strtol(text, &end, 10);
        age[i] = end == text || n < 0 || n > INT32_MAX ? -1 : (int32_t)n;
        text = *end == ',' ? end + 1 : end;
    }
}

/* Commands that know none of these options take the usual. */
squish_kv_options cli_kv_options(const cli *c) {
    squish_kv_options o = squish_kv_options_default();
    const char *rotate = cli_text(c, OPT_KV_ROTATE), *budget = cli_text(c, OPT_PM_BUDGET),
               *all = cli_text(c, OPT_KV_BUDGET);
    o.residual = (int32_t)cli_int(c, OPT_KV_RESIDUAL);
    o.sink = (int32_t)cli_int(c, OPT_KV_SINK);
    o.floors = cli_text(c, OPT_KV_FLOOR);
    o.rotate = strcmp(rotate, "off") == 0    ? SQUISH_KV_ROTATE_OFF
               : strcmp(rotate, "keys") == 0 ? SQUISH_KV_ROTATE_KEYS
                                             : SQUISH_KV_ROTATE_AUTO;
    o.pm = cli_flag(c, OPT_PM_KVQ);
    ages(cli_text(c, OPT_PM_AGES), o.pm_age);
    o.pm_floor = *cli_text(c, OPT_PM_FLOOR) - '0';
    if (budget) cli_parse_size(budget, &o.pm_budget); /* checked when they were read */
    if (all) cli_parse_size(all, &o.budget);
    o.mix = cli_flag(c, OPT_MIX_KVQ);
    o.cocktail = cli_flag(c, OPT_COCKTAIL);
    o.cocktail_high = (float)cli_num(c, OPT_COCKTAIL_HIGH);
    o.cocktail_low = (float)cli_num(c, OPT_COCKTAIL_LOW);
    o.cocktail_chunk = (int32_t)cli_int(c, OPT_COCKTAIL_CHUNK);
    o.cocktail_embed = strcmp(cli_text(c, OPT_COCKTAIL_BY), "embeddings") == 0;
    o.snap = (int32_t)cli_int(c, OPT_SNAP_KV);
    o.snap_window = (int32_t)cli_int(c, OPT_SNAP_WINDOW);
    o.flash_mla = cli_flag(c, OPT_FLASH_MLA);
    return o;
}
