/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_page_int.h - what the sections of a report's page share: reading its rows. */
#ifndef SQ_BENCH_PAGE_INT_H
#define SQ_BENCH_PAGE_INT_H

#include "bench/bench.h"
#include "bench/bench_plot.h"

#include <string.h>

/* 0 and "" where a row has no such key. */
static inline double row_number(const json_t *row, const char *key) {
    return json_number_value(json_object_get(row, key));
}
static inline const char *row_text(const json_t *row, const char *key) {
    const char *s = json_string_value(json_object_get(row, key));
    return s ? s : "";
}
static inline bool row_of_bench(const json_t *row, const char *name) {
    return strcmp(row_text(row, "bench"), name) == 0;
}

/* (bench_page_kv.c) Plots of the formats of the cache: what attention and a token cost, bytes and error, all
 * against context. Nothing if there are no such rows. */
void bench_page_kv(FILE *f, const json_t *rows);

#endif
