/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_tokenizer.c - text to tokens and back, one thread, in MB of UTF-8 a second: a long text in one call,
 * the same in pieces as long as a prompt, and decoding. */
#include "bench/bench.h"

#include <math.h>
#include <string.h>

enum { TEXT_MIN = 4000000, TEXT_MAX = 256 << 20, PIECE = 1000 };

/* What people send: prose, a dialogue, code, a table, JSON, and languages that do not use the Latin script.
 */
static const char mix[] =
    "The ferry leaves at ten past seven, and whoever misses it waits until noon. Marta had counted on the "
    "early one; she stood on the pier with two suitcases, a violin case and a cage in which something "
    "rustled. \"Is that a parrot?\" asked the boy who sold the tickets. \"It's a hedgehog,\" she said, \"and "
    "it doesn't like boats.\"\n\n"
    "Question: how much water does a tank of 2.5 m by 1.2 m by 0.8 m hold? Answer: 2.5 * 1.2 * 0.8 = 2.4 "
    "cubic metres, which are 2,400 litres (about 634 US gallons).\n\n"
    "static int count_words(const char *s) {\n    int n = 0, inside = 0;\n    for (; *s; s++) {\n"
    "        const int letter = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z');\n"
    "        n += letter && !inside;\n        inside = letter;\n    }\n    return n;\n}\n\n"
    "def moving_average(values, width=7):\n    \"\"\"Mean of each window; shorter at the start.\"\"\"\n"
    "    return [sum(values[max(0, i - width + 1):i + 1]) / min(i + 1, width) for i in "
    "range(len(values))]\n\n"
    "| month | nights | guests | share |\n|---|---:|---:|---:|\n| May | 412 | 187 | 45.4 % |\n"
    "| June | 655 | 301 | 46.0 % |\n\n"
    "{\"order\": 10482, \"items\": [{\"sku\": \"TX-9\", \"count\": 3, \"price\": 12.95}, {\"sku\": \"RB-1\", "
    "\"count\": 1, \"price\": 149.0}], \"paid\": true, \"note\": null}\n\n"
    "Der Zug nach Köln hält heute nicht in Düren; Reisende mögen bitte in Aachen umsteigen. À la gare, on "
    "nous "
    "a dit que le train aurait vingt minutes de retard. El año pasado llovió más que en los diez "
    "anteriores.\n\n"
    "Весной река поднимается почти до самых домов, и мост закрывают на две недели.\n"
    "昨天下午我们在山脚下的茶馆里坐了很久,雨一直没有停。\n"
    "駅前の小さな本屋は、夜の十時まで開いている。\n\n";

typedef struct {
    squish_model *m;
    char *text; /* [bytes], repeated */
    size_t bytes;
    squish_tokens whole;
    double v[BENCH_RUNS_MAX];
} job;

/* The text as often as it takes to reach TEXT_MIN. */
static squish_status make_text(job *j, const squish_alloc *a, const bench_options *o, squish_error *err) {
    const char *once = o->text ? o->text : mix;
    const size_t n = o->text ? o->text_bytes : sizeof mix - 1;
    if (n == 0 || n > TEXT_MAX || !sq_utf8_valid(once, n))
        return sq_fail(err, SQUISH_INVALID,
                       "bench tokenizer: the text has %zu bytes%s, wanted 1 to %d of UTF-8", n,
                       n && n <= TEXT_MAX ? ", not all UTF-8" : "", TEXT_MAX);
    const size_t times = n < TEXT_MIN ? (TEXT_MIN + n - 1) / n : 1;
    j->text = sq_alloc_new(a, times * n);
    if (!j->text) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory for the text");
    for (size_t i = 0; i < times; i++) memcpy(j->text + i * n, once, n);
    j->bytes = times * n;
    return SQUISH_OK;
}

static squish_status encode_whole(job *j, squish_error *err) {
    squish_tokens_free(&j->whole);
    return squish_tokenize(j->m, j->text, j->bytes, 0, &j->whole, err);
}

static squish_status encode_pieces(job *j, squish_error *err) {
    for (size_t at = 0; at < j->bytes;) {
        size_t end = j->bytes - at > PIECE ? at + PIECE : j->bytes;
        while (end < j->bytes && (j->text[end] & 0xC0) == 0x80) end++; /* never inside a character */
        squish_tokens t = {0};
        const squish_status st = squish_tokenize(j->m, j->text + at, end - at, 0, &t, err);
        squish_tokens_free(&t);
        if (st != SQUISH_OK) return st;
        at = end;
    }
    return SQUISH_OK;
}

static squish_status decode(job *j, squish_error *err) {
    squish_text t = {0};
    const squish_status st = squish_detokenize(j->m, j->whole.ids, j->whole.count, false, &t, err);
    squish_text_free(&t);
    return st;
}

static squish_status measure(job *j, const bench_options *o, json_t *rows, squish_error *err) {
    static const struct {
        const char *name;
        squish_status (*run)(job *j, squish_error *err);
    } figures[] = {
        {"encode whole", encode_whole}, {"encode 1 kB pieces", encode_pieces}, {"decode tokens", decode}};
    for (size_t i = 0; i < SQ_COUNT(figures); i++) {
        SQ_TRY(figures[i].run(j, err)); /* caches and pages */
        for (int32_t r = 0; r < o->runs; r++) {
            const uint64_t begin = sq_os_now_ns();
            SQ_TRY(figures[i].run(j, err));
            j->v[r] = (double)j->bytes * 1e3 / (double)(sq_os_now_ns() - begin);
            if (o->progress &&
                !o->progress(o->progress_user, "bench", i * (uint64_t)o->runs + (uint64_t)r + 1,
                             SQ_COUNT(figures) * (uint64_t)o->runs))
                return sq_fail(err, SQUISH_CANCELLED, "stopped");
        }
        SQ_TRY(bench_row(rows, figures[i].name, "MB/s", j->v, o->runs, NAN, BENCH_LARGE_IS_GOOD, err));
    }
    return SQUISH_OK;
}

squish_status bench_tokenizer(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_model_options mo = squish_model_options_default();
    SQ_TRY(bench_check_runs(o, err));
    job *j = sq_alloc_zero(&a, sizeof *j);
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    squish_status st = SQUISH_OK;
    mo.tier = o->tier;
    mo.text_only = true;
    SQ_GUARD(squish_model_open(&j->m, o->path, &mo, err));
    SQ_GUARD(make_text(j, &a, o, err));
    SQ_GUARD(measure(j, o, rows, err));
fail:
    squish_tokens_free(&j->whole);
    if (j->text) sq_alloc_free(&a, j->text, j->bytes);
    squish_model_close(j->m);
    sq_alloc_free(&a, j, sizeof *j);
    return st;
}
