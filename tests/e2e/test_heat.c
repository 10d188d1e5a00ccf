/* SPDX-License-Identifier: Apache-2.0
 *
 * test_heat.c - a second start of a model whose experts are streamed finds in memory what the first asked
 * for; the same bits with counts, without them, and with files that cannot be used; nothing is left behind.
 */
#include "sched/sched.h"
#include "support/api_run.h"
#include "support/cli_sh.h"
#include "support/model_run.h"

#include <sys/stat.h>
#include <xxhash.h>

enum { TOKENS = 60, CTX = 256 };

static char path[300], heat[320]; /* a copy of the model, and its counts */
static const int32_t prompt[] = {17, 301, 4021, 77, 1200, 6, 93};
static int32_t wanted[TOKENS];

static int begin(void **state) {
    if (cli_begin(state)) return 1;
    snprintf(path, sizeof path, "%s/model.sqw", cli_folder);
    snprintf(heat, sizeof heat, "%s.heat", path);
    if (sh("cp models/squish-tiny-moe/squish_q8/model.sqw $T/model.sqw && chmod 755 $T")->status) return 1;
    squish_engine_options o = squish_engine_options_default();
    o.ctx_tokens = CTX;
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    run_greedy(&x, prompt, SQ_COUNT(prompt), wanted, TOKENS);
    run_close(&x);
    return sq_os_exists(heat); /* of weights that are mapped nothing is counted */
}

static squish_engine_options streamed(void) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.ctx_tokens = CTX;
    o.chunk_tokens = 48;
    run_limit(path, 0.7, &o);
    o.agile.lookahead = SQUISH_LOOKAHEAD_OFF;
    return o;
}

/* Experts with a count in the file, at most as many as the pool holds. */
static uint64_t wait_until_warm(const run *x) {
    static uint8_t file[1 << 16];
    sq_io_stats s;
    uint64_t n = 0;
    FILE *f = fopen(heat, "rb");
    assert_non_null(f);
    const size_t bytes = fread(file, 1, sizeof file, f);
    fclose(f);
    for (size_t at = 32; at + 8 < bytes; at += 4) n += memcmp(file + at, "\0\0\0\0", 4) != 0;
    sq_stream_get_stats(x->e->stream, &s);
    if (n > (uint64_t)s.plan.pool_slots) n = (uint64_t)s.plan.pool_slots;
    for (int i = 0; run_agile(x).warmed < n; i++) {
        if (i > 100000) fail_msg("%d experts were read, wanted %d", (int)run_agile(x).warmed, (int)n);
        usleep(100);
    }
    return n;
}

/* Bytes that were read for it. */
static uint64_t answer_once(run *x) {
    int32_t got[TOKENS];
    const squish_agile_info a = run_agile(x);
    run_greedy(x, prompt, SQ_COUNT(prompt), got, TOKENS);
    assert_memory_equal(got, wanted, sizeof got);
    const squish_agile_info b = run_agile(x);
    assert_int_equal(b.failures, 0);
    return b.bytes_read - a.bytes_read;
}

static void a_second_start_finds_what_the_first_asked_for(void **state) {
    (void)state;
    const squish_engine_options o = streamed();
    unlink(heat);
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    assert_string_equal(run_agile(&x).heat_why, "");
    const uint64_t cold = answer_once(&x);
    assert_int_equal(run_agile(&x).warmed, 0);
    assert_false(sq_os_exists(heat)); /* when it ends */
    run_close(&x);
    assert_true(sq_os_exists(heat));
    x = run_open(path, SQUISH_TIER_AUTO, &o);
    const uint64_t ahead = wait_until_warm(&x);
    const uint64_t warm = answer_once(&x);
    const squish_agile_info a = run_agile(&x);
    printf(
        "%d KB were read for an answer, %d KB at the second start; of %d experts read ahead %d were used\n",
        (int)(cold >> 10), (int)(warm >> 10), (int)ahead, (int)a.warm_hits);
    assert_int_equal(a.warmed, ahead);
    assert_true(a.warm_hits > ahead / 4 && a.warm_hits <= ahead);
    assert_true(warm + a.warm_hits / 2 * sq_stream_expert_bytes(x.e->stream) <= cold);
    assert_string_equal(a.heat_why, "");
    run_close(&x);
    assert_int_equal(sh("test -e %s.partial", heat)->status, 1);
}

static void measurements_begin_cold_and_leave_nothing(void **state) {
    (void)state;
    squish_engine_options o = streamed();
    o.agile.cold = true;
    struct stat a, b;
    assert_int_equal(stat(heat, &a), 0);
    for (int i = 0; i < 2; i++) {
        run x = run_open(path, SQUISH_TIER_AUTO, &o);
        answer_once(&x);
        assert_int_equal(run_agile(&x).warmed, 0);
        run_close(&x);
        assert_int_equal(stat(heat, &b), 0);
        assert_int_equal(a.st_ino, b.st_ino);
        o.agile.cold = false, o.agile.on_demand = true; /* nothing is read ahead, these neither */
    }
}

static void files_that_cannot_be_used_are_said_and_replaced(void **state) {
    (void)state;
    static const char *const damage[][2] = {
        {": > $T/model.sqw.heat", "no counts of squish"},
        {"head -c 100 $T/old > $T/model.sqw.heat", "damaged"},
        {"head -c 4000 $T/model.sqw > $T/model.sqw.heat", "no counts of squish"},
        {"cp $T/model.sqw $T/model.sqw.heat", "the limit is"},
        {"mkfifo $T/model.sqw.heat", "not a regular file"},
        {"cp $T/other $T/model.sqw.heat", "of other weights"}};
    const squish_engine_options o = streamed();
    assert_int_equal(sh("cp $T/model.sqw.heat $T/old && cp $T/old $T/other")->status, 0);
    /* The same counts of other weights, under a sum that is right. */
    sq_io_heat h;
    uint8_t file[1 << 16];
    char other[320];
    snprintf(other, sizeof other, "%s/other", cli_folder);
    FILE *f = fopen(other, "r+b");
    assert_non_null(f);
    const size_t n = fread(file, 1, sizeof file, f);
    assert_int_equal(sq_io_heat_parse(&h, (sq_span){file, n}, "f", 0, 0, NULL), SQUISH_INVALID);
    file[16] ^= 1;
    const uint64_t sum = XXH3_64bits(file, n - 8);
    memcpy(file + n - 8, &sum, sizeof sum);
    rewind(f);
    assert_int_equal(fwrite(file, 1, n, f), n);
    fclose(f);
    for (size_t i = 0; i < SQ_COUNT(damage); i++) {
        assert_int_equal(sh("rm -f $T/model.sqw.heat; %s", damage[i][0])->status, 0);
        run x = run_open(path, SQUISH_TIER_AUTO, &o);
        assert_non_null(strstr(run_agile(&x).heat_why, damage[i][1]));
        assert_null(strchr(run_agile(&x).heat_why, '\n'));
        answer_once(&x);
        assert_int_equal(run_agile(&x).warmed, 0);
        run_close(&x);
        x = run_open(path, SQUISH_TIER_AUTO, &o);
        assert_string_equal(run_agile(&x).heat_why, "");
        assert_true(wait_until_warm(&x) > 0);
        run_close(&x);
    }
    assert_int_equal(sh("rm $T/other $T/old")->status, 0);
}

/* 0: all is as it should be. As somebody who may only read; root is told nothing by a folder's bits. */
static int read_only_run(const squish_engine_options *o) {
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    squish_engine_info i;
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    if (squish_model_open(&m, path, NULL, NULL) != SQUISH_OK) return 3;
    if (squish_engine_new(&e, m, o, NULL) != SQUISH_OK || squish_seq_new(&s, e, NULL) != SQUISH_OK) return 4;
    squish_engine_get_info(e, &i);
    const bool said = strstr(i.agile.heat_why, "cannot be written") != NULL;
    const bool ran = squish_seq_sync(s, prompt, SQ_COUNT(prompt), NULL) == SQUISH_OK;
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
    return said && ran ? 0 : 5;
}

static void a_folder_that_cannot_be_written_is_no_error(void **state) {
    (void)state;
    const squish_engine_options o = streamed();
    unlink(heat);
    assert_int_equal(sh("chmod 555 $T")->status, 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(read_only_run(&o));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    chmod(cli_folder, 0755);
    assert_int_equal(status, 0);
    assert_false(sq_os_exists(heat));
    /* Something in the way of the file's first name. */
    assert_int_equal(sh("mkdir $T/model.sqw.heat.partial")->status, 0);
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    answer_once(&x);
    run_close(&x);
    assert_false(sq_os_exists(heat));
    assert_int_equal(sh("rmdir $T/model.sqw.heat.partial")->status, 0);
}

/* Both begin with the same counts, and end at once or one after the other. */
static void two_engines_at_once_leave_a_whole_file(void **state) {
    (void)state;
    const squish_engine_options o = streamed();
    for (int i = 0; i < 2; i++) {
        run x = run_open(path, SQUISH_TIER_AUTO, &o), y = run_open(path, SQUISH_TIER_AUTO, &o);
        answer_once(&x);
        answer_once(&y);
        run_close(&x);
        run_close(&y);
    }
    run x = run_open(path, SQUISH_TIER_AUTO, &o);
    assert_string_equal(run_agile(&x).heat_why, "");
    run_close(&x);
    const cli_result *r = sh("for i in 1 2 3 4; do $S run $T/model.sqw 'The fox' --raw -n 8 --temp 0 -q "
                             "--memory-limit 40M --ctx 256 >$T/o$i & done; wait; "
                             "cmp $T/o1 $T/o2 && cmp $T/o1 $T/o3 && cmp $T/o1 $T/o4 && rm $T/o?");
    assert_int_equal(r->status, 0);
    assert_string_equal(sh("ls $T")->out, "model.sqw\nmodel.sqw.heat\n");
}

/* ---- the program and the server -------------------------------------------------------------- */

static json_t *agile_json(const char *more) {
    const cli_result *r = sh("$S run $T/model.sqw 'The fox' --raw -n 20 --temp 0 --json --memory-limit 40M "
                             "--ctx 256 -q %s",
                             more);
    assert_int_equal(r->status, 0);
    return cli_json(r);
}

static void run_says_what_was_read_for_earlier_runs(void **state) {
    (void)state;
    unlink(heat);
    json_t *a = agile_json(""), *b = agile_json("");
    const json_t *x = json_object_get(a, "agile_io"), *y = json_object_get(b, "agile_io");
    assert_int_equal(json_integer_value(json_object_get(x, "warmed")), 0);
    assert_true(json_integer_value(json_object_get(y, "warmed")) > 0);
    assert_string_equal(json_string_value(json_object_get(y, "heat_why")), "");
    assert_string_equal(json_string_value(json_object_get(a, "text")),
                        json_string_value(json_object_get(b, "text")));
    json_decref(a);
    json_decref(b);
    const char *line = "$S run $T/model.sqw 'The fox' --raw -n 2 --temp 0 --memory-limit 40M --ctx 256";
    const cli_result *r = sh("%s -v", line);
    assert_non_null(strstr(r->err, "experts read since earlier runs asked for them"));
    r = sh("echo garbage > $T/model.sqw.heat; %s", line);
    assert_int_equal(r->status, 0);
    assert_null(strstr(r->err, "heat"));
    r = sh("echo garbage > $T/model.sqw.heat; %s -v", line);
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "experts of earlier runs are not known: "));
    assert_non_null(strstr(r->err, "model.sqw.heat: no counts of squish"));
}

static void a_server_that_ends_leaves_its_counts(void **state) {
    (void)state;
    api_server s;
    sq_api_options o = api_options(&s);
    unlink(heat);
    snprintf(s.path, sizeof s.path, "%s", path);
    o.tier = SQUISH_TIER_AUTO;
    o.memory_limit = 40 << 20;
    o.agile = true;
    o.ctx_tokens = CTX;
    o.parallel = 1;
    api_start(&s, &o);
    const api_reply *r = ask(&s, "POST", "/v1/completions",
                             "{\"prompt\": \"The fox\", \"max_tokens\": 20, \"temperature\": 0}");
    assert_int_equal(r->status, 200);
    api_end(&s);
    assert_true(sq_os_exists(heat));
    json_t *a = agile_json("");
    assert_true(json_integer_value(json_object_get(json_object_get(a, "agile_io"), "warmed")) > 0);
    json_decref(a);
}

static void rm_takes_the_counts_along(void **state) {
    (void)state;
    const cli_result *r =
        sh("mkdir -p $T/.squish/models && cp $T/model.sqw $T/.squish/models/moe.sqw && "
           "$S run moe 'The fox' --raw -n 2 --memory-limit 40M --ctx 256 -q && "
           "touch $T/.squish/models/moe.sqw.heat.partial $T/.squish/models/moe.sqw.lookahead "
           "&& test -s $T/.squish/models/moe.sqw.heat");
    if (r->status != 0) fail_msg("%s", r->err);
    r = sh("$S list");
    assert_null(strstr(r->out, ".heat"));
    r = sh("$S rm moe.sqw");
    if (r->status != 0) fail_msg("%s", r->err);
    assert_string_equal(sh("ls -A $T/.squish/models")->out, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_start_finds_what_the_first_asked_for),
        cmocka_unit_test(measurements_begin_cold_and_leave_nothing),
        cmocka_unit_test(files_that_cannot_be_used_are_said_and_replaced),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_no_error),
        cmocka_unit_test(two_engines_at_once_leave_a_whole_file),
        cmocka_unit_test(run_says_what_was_read_for_earlier_runs),
        cmocka_unit_test(a_server_that_ends_leaves_its_counts),
        cmocka_unit_test(rm_takes_the_counts_along),
    };
    return cmocka_run_group_tests(tests, begin, cli_end);
}
