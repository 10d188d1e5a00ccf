/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pull.c - squish pull against a hub of our own: the same bytes, the faults of networks, what is said,
 * and that a model is listed whole or not at all. */
#include "support/cli_sh.h"
#include "support/hub_run.h"
#include "support/make_cert.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#define PULL "$S pull hf.co/me/wide -q --connections 4 "
/* A configuration and two files of random bytes, 7 and 1.5 MB: what is fetched, not what runs. */
static const double WIDE_BYTES = 8500000;

static void need_hub(void) {
    if (!hub_pid) skip();
}

static int begin(void **state) {
    if (cli_begin(state) != 0) return 1;
    if (!hub_begin("")) return 0;
    return sh("mkdir -p $T/root/me/wide $T/root/me/secret $T/root/me/quants $T/root/.ollama/library/little "
              "&& "
              "cp tests/fixtures/architectures/qwen2/*.json $T/root/me/wide/ && "
              "head -c 7000000 /dev/urandom >$T/root/me/wide/model-00001-of-00002.safetensors && "
              "head -c 1500000 /dev/urandom >$T/root/me/wide/model-00002-of-00002.safetensors && "
              "echo mit >$T/root/me/wide/.license && mkdir $T/root/me/tiny && "
              "for f in models/squish-tiny/*; do ln -s $PWD/$f $T/root/me/tiny/; done && "
              "cp -r tests/fixtures/architectures/qwen2 $T/root/me/arch && cp $T/root/me/wide/* "
              "$T/root/me/secret/ && echo open-sesame >$T/root/me/secret/.gated && "
              "for q in Q4_K_M Q8_0; do head -c 200000 /dev/urandom >$T/root/me/quants/m-$q.gguf; done && "
              "head -c 300000 /dev/urandom >$T/root/.ollama/library/little/1b.gguf && "
              "mkdir $T/root/me/bar && "
              "head -c 2500000 /dev/urandom >$T/root/me/bar/m.gguf")
        ->status;
}

static int end(void **state) {
    hub_end();
    return cli_end(state);
}

static void assert_said(const cli_result *r, int status, const char *words) {
    if (r->status != status || !strstr(r->err, words))
        fail_msg("status %d, wanted %d; '%s' does not say '%s'", r->status, status, r->err, words);
    const char *line = strstr(r->err, "squish: ");
    assert_non_null(line);
    assert_null(strchr(line, '\n')[1] ? strchr(line, '\n') + 1 : NULL); /* one line, the last */
}

static void assert_same_bytes(void) {
    assert_int_equal(sh("for f in $T/root/me/wide/*.safetensors $T/root/me/wide/config.json; do "
                        "cmp $f $T/.squish/models/hf.co--me--wide/$(basename $f) || exit 1; done")
                         ->status,
                     0);
    assert_string_equal(sh("ls -A $T/.squish/pulls")->out, "");
    assert_int_equal(hub_listed(), 1);
}

static void a_pulled_model_has_the_hubs_bytes_and_a_manifest(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    const cli_result *r = sh("$S pull hf.co/me/wide --json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "\"status\": \"found\""));
    assert_non_null(strstr(r->out, "\"license\": \"mit\""));
    assert_non_null(strstr(r->out, "\"status\": \"success\""));
    assert_non_null(strstr(r->err, "hf.co/me/wide: me/wide at "));
    assert_true(hub_sent() < WIDE_BYTES * 1.01);
    assert_same_bytes();
    assert_int_equal(sh("cd $T/.squish/models/hf.co--me--wide && python3 -c 'import hashlib, json\n"
                        "for f in json.load(open(\"squish-manifest.json\"))[\"files\"]:\n"
                        "  b = open(f[\"path\"], \"rb\").read()\n"
                        "  assert len(b) == f[\"bytes\"] and hashlib.sha256(b).hexdigest() == f[\"sha256\"]'")
                         ->status,
                     0);
    sh(": >$T/log");
    assert_non_null(strstr(sh(PULL)->out, "is here already"));
    assert_true(hub_sent() == 0);
}

static void run_does_the_whole_way(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    sh("mkdir -p $T/.squish && printf '{\"models\": [{\"name\": \"small:30m\", \"repo\": \"me/tiny\"}]}' "
       ">$T/.squish/catalog.json");
    const cli_result *r = sh("$S run small --tier source --temp 0 'What is the capital of Japan?'");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "Tokyo"));
    assert_non_null(strstr(r->err, "small:30m: me/tiny at "));
    sh(": >$T/log");
    assert_non_null(
        strstr(sh("$S run small:30m --tier source --temp 0 --offline 'What is the capital of Japan?'")->out,
               "Tokyo"));
    assert_string_equal(sh("cat $T/log")->out, "");
    assert_int_equal(sh("$S rm small:30m && ! ls $T/.squish/models | grep small")->status, 0);
    /* what has no tier gets one, once */
    r = sh("$S logits hf.co/me/arch --ids 1,2,3 --json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "compressed to "));
    assert_non_null(strstr(r->err, "hf.co--me--arch-compressed"));
    assert_null(strstr(sh("$S logits hf.co/me/arch --ids 1,2,3")->err, "compressed to "));
}

static void connections_that_break_are_taken_up_again(void **state) {
    (void)state;
    need_hub();
    static const char *const faults[] = {"{\"cut_every\": 5000000}", "{\"cut_every\": 700000}",
                                         "{\"short\": 1}", "{\"stall_after\": 5000000, \"stall_s\": 20}",
                                         ("{\"status\": {\"resolve\": [503, 429, 500], \"tree\": [503], "
                                          "\"revision\": [429]}, \"retry_after\": 0}")};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        hub_fresh(faults[i]);
        const cli_result *r = sh(PULL "--stall-timeout 1");
        if (r->status != 0) fail_msg("%s: %s", faults[i], r->err);
        assert_true(hub_sent() < WIDE_BYTES * 1.1);
        assert_same_bytes();
    }
}

static void servers_without_ranges_and_packed_bodies_are_met_once(void **state) {
    (void)state;
    need_hub();
    static const char *const faults[] = {"{\"no_ranges\": 1}", "{\"gzip\": 1}"};
    for (size_t i = 0; i < 2; i++) {
        hub_fresh(faults[i]);
        const cli_result *r = sh(PULL);
        if (r->status != 0) fail_msg("%s: %s", faults[i], r->err);
        assert_same_bytes();
    }
    hub_fresh("{\"no_ranges\": 1, \"cut_every\": 5000000}"); /* nothing can come of it */
    assert_said(sh(PULL "--retries 1"), 6, "run the command again");
    assert_int_equal(hub_listed(), 0);
}

static void a_wrong_sum_is_never_installed(void **state) {
    (void)state;
    need_hub();
    static const char *const names[] = {"model-00002-of-00002.safetensors", "config.json"};
    for (size_t i = 0; i < 2; i++) {
        char faults[128];
        snprintf(faults, sizeof faults, "{\"wrong\": \"%s\"}", names[i]);
        hub_fresh(faults);
        const cli_result *r = sh(PULL);
        assert_said(r, 1, "its sum is ");
        assert_non_null(strstr(r->err, names[i]));
        assert_int_equal(hub_listed(), 0);
        assert_int_equal(sh("ls $T/.squish/pulls/hf.co--me--wide/files/%s", names[i])->status, 2);
    }
    cli_write("faults", "{}", 2); /* what is right of it is kept */
    sh(": >$T/log");
    assert_int_equal(sh(PULL)->status, 0);
    assert_true(hub_sent() < WIDE_BYTES / 4);
    assert_same_bytes();
    hub_fresh("{\"length\": \"model-00002-of-00002.safetensors\"}");
    assert_said(sh(PULL), 6, "another length");
}

static void a_killed_pull_goes_on(void **state) {
    (void)state;
    need_hub();
    const char *kills = getenv("SQUISH_PULL_KILLS");
    hub_fresh("{\"rate\": 4000000}");
    const cli_result *r = sh(
        "n=0; while [ $n -lt %d ]; do n=$((n + 1)); " PULL ">/dev/null 2>&1 & p=$!; "
        "sleep 0.$(awk -v s=$n 'BEGIN { srand(s); print int(10 + rand() * 30) }'); kill -9 $p 2>/dev/null; "
        "wait $p; if [ $? = 0 ]; then rm -r $T/.squish/models/hf.co--me--wide; : >$T/log; continue; fi; "
        "[ $($S list | grep -c hf.co) = 0 ] || exit 1; done",
        kills ? (int)strtol(kills, NULL, 10) : 6);
    assert_int_equal(r->status, 0);
    cli_write("faults", "{}", 2);
    assert_int_equal(sh(PULL)->status, 0);
    assert_true(hub_sent() < WIDE_BYTES + 64e6);
    assert_same_bytes();
}

static void two_pulls_of_one_name_fetch_once(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{\"hold_after\": 500000}");
    const cli_result *r =
        sh("$S pull hf.co/me/wide >$T/a 2>&1 & p=$!; $S pull hf.co/me/wide >$T/b 2>&1 & q=$!; "
           "until grep -q 'waiting for it' $T/a $T/b; do sleep 0.02; done; echo {} >$T/faults; "
           "wait $p && wait $q");
    assert_int_equal(r->status, 0);
    assert_true(hub_sent() < WIDE_BYTES * 1.05);
    assert_same_bytes();
}

static void the_token_goes_to_its_own_host_alone(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    assert_said(sh("$S pull hf.co/me/secret"), 6, "accept its licence");
    assert_said(sh("HF_TOKEN=guess $S pull hf.co/me/secret"), 6, "gated");
    assert_int_equal(hub_listed(), 0);
    sh(": >$T/log");
    assert_int_equal(sh("HF_TOKEN=open-sesame $S pull hf.co/me/secret -q")->status, 0);
    assert_int_equal(hub_count("grep '\"host\": \"hub\"' $T/log | grep -vc 'Bearer open-sesame'"), 0);
    assert_true(hub_count("grep -c '\"host\": \"cdn\"' $T/log") >= 2);
    assert_int_equal(hub_count("grep '\"host\": \"cdn\"' $T/log | grep -c sesame"), 0);
    assert_int_equal(hub_count("grep -rl sesame $T/.squish | wc -l"), 0);
}

static void what_stands_in_the_way_is_said_in_one_line(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    assert_said(sh("HF_ENDPOINT=http://127.0.0.1:9 " PULL "--retries 1"), 6, "no connection");
    assert_said(sh("HF_ENDPOINT=https://no-such-host.invalid " PULL), 6, "no such host");
    assert_said(sh("HF_ENDPOINT=http://hub.test http_proxy=$H " PULL), 6,
                "the proxy wants a name and a password");
    assert_said(sh("HF_ENDPOINT=https://hub.test HTTPS_PROXY=$H " PULL), 6, "the proxy wants a name");
    assert_said(sh("$S pull nobody/nothing"), 3, "the hub does not know it");
    assert_said(sh("$S pull hf.co/me/quants:Q2_K"), 3, "it has: m-Q4_K_M.gguf, m-Q8_0.gguf");
    assert_said(sh("$S pull 'what is this'"), 3, "neither in the catalogue");
    assert_said(sh("$S run nobodys-model hello"), 3, "to fetch: squish catalog");
    assert_string_equal(sh("ls -A $T/.squish/pulls")->out, ""); /* of what nobody knows or reached */
    sh(": >$T/log");
    assert_said(sh(PULL "--offline"), 3, "nobody is asked");
    assert_said(sh("HF_HUB_OFFLINE=1 " PULL), 3, "nobody is asked");
    assert_said(sh("$S run --offline hf.co/me/wide hello"), 3, "nobody is asked");
    assert_string_equal(sh("cat $T/log")->out, "");
}

/* Servers with certificates of our own: one that has run out, one nobody vouches for, and one that is good.
 */
static void certificates_are_checked(void **state) {
    (void)state;
    need_hub();
    char cert[512], key[512];
    for (int good = 0; good < 2; good++) {
        hub_fresh("{}");
        snprintf(cert, sizeof cert, "%s/%d.crt", cli_folder, good);
        snprintf(key, sizeof key, "%s/%d.key", cli_folder, good);
        assert_true(make_cert(cert, key, -7200, good ? 3600 : -3600));
        const cli_result *r =
            sh("python3 tests/support/fake_hub.py --root $T/root --tls $T/%d.crt $T/%d.key --parent $PPID "
               ">$T/tls & "
               "p=$!; i=0; until [ -s $T/tls ] || [ $i -gt 100 ]; do i=$((i + 1)); sleep 0.05; done; "
               "HF_ENDPOINT=$(sed 's/.*\"hub\": \"\\([^\"]*\\).*/\\1/' $T/tls); export HF_ENDPOINT; "
               "$S pull hf.co/me/wide -q 2>$T/alone; echo $?; SSL_CERT_FILE=$T/%d.crt $S pull hf.co/me/wide "
               "-q; s=$?; "
               "{ kill $p; wait $p; } 2>/dev/null; rm $T/tls; exit $s",
               good, good, good);
        assert_int_equal(strncmp(r->out, "6\n", 2), 0);
        if (good)
            assert_int_equal(r->status, 0);
        else
            assert_said(r, 6, "certificate has expired");
        if (good) assert_same_bytes();
        assert_int_equal(hub_listed(), good);
        assert_non_null(strstr(sh("cat $T/alone")->out, "its certificate is not accepted"));
        assert_int_equal(hub_count("wc -l <$T/alone"), 1);
    }
}

/* A network of its own without any way out of it. */
static void without_a_route_one_line_says_so(void **state) {
    (void)state;
    need_hub();
    if (sh("unshare -rn true")->status != 0) {
        printf("skipped: no network of its own can be made here\n");
        skip();
    }
    hub_fresh("{}");
    assert_said(sh("HF_ENDPOINT=https://192.0.2.1 unshare -rn " PULL "--retries 1"), 6, "no connection");
    assert_said(sh("HF_ENDPOINT=https://huggingface.co unshare -rn " PULL "--retries 1"), 6, "no such host");
}

static bool have_small_disk(void) {
    if (sh("mkdir -p $T/small; unshare -rm sh -c 'mount -t tmpfs -o size=20m x $T/small'")->status == 0)
        return true;
    printf("skipped: no small file system can be made here\n");
    return false;
}

/* Somebody else takes the rest of the disk while a pull runs: it ends, what has come stays, and it goes on.
 */
static void a_disk_that_fills_up_in_mid_write_keeps_the_part(void **state) {
    (void)state;
    need_hub();
    if (!have_small_disk()) skip();
    hub_fresh("{\"hold_after\": 3000000}");
    static const char script[] =
        "mount -t tmpfs -o size=90m x $T/small\n"
        "$S pull hf.co/me/wide -q --home $T/small & p=$!\n"
        "until grep -q '##' $T/small/pulls/*/maps/model-00001* 2>/dev/null; do sleep 0.02; done\n"
        "cat /dev/zero >$T/small/fill 2>/dev/null; echo {} >$T/faults; wait $p; echo first $?\n"
        "ls $T/small/models; echo listed; rm $T/small/fill\n"
        "$S pull hf.co/me/wide -q --home $T/small; echo second $?\n"
        "cd $T/small/models/* && for f in *.safetensors; do cmp $T/root/me/wide/$f $f || exit 1; done\n";
    cli_write("fill.sh", script, sizeof script - 1);
    const cli_result *r = sh("unshare -rm sh $T/fill.sh");
    if (r->status != 0 || strncmp(r->out, "first 5\nlisted\n", 15) != 0 || !strstr(r->out, "second 0\n"))
        fail_msg("%s%s", r->out, r->err);
    assert_non_null(strstr(r->err, "No space left on device"));
    assert_true(hub_sent() < WIDE_BYTES * 1.6);
}

static void a_full_disk_is_said_before_and_leaves_nothing(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    if (!have_small_disk()) skip();
    const cli_result *r = sh("unshare -rm sh -c 'mount -t tmpfs -o size=20m x $T/small; $S --version; $S "
                             "pull hf.co/me/wide --home "
                             "$T/small; s=$?; ls $T/small/models; exit $s'");
    assert_int_equal(r->status, 5);
    assert_non_null(strstr(r->err, "make room"));
    assert_null(strstr(r->out, "hf.co"));
}

static void a_gguf_file_a_registry_and_an_address_work_alike(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    assert_int_equal(sh("$S pull hf.co/me/quants -q && $S pull hf.co/me/quants:q8_0 -q")->status, 0);
    assert_int_equal(
        sh("cmp $T/root/me/quants/m-Q4_K_M.gguf $T/.squish/models/hf.co--me--quants/m-Q4_K_M.gguf && "
           "cmp $T/root/me/quants/m-Q8_0.gguf $T/.squish/models/hf.co--me--quants:q8_0/m-Q8_0.gguf")
            ->status,
        0);
    assert_int_equal(
        sh("$S pull ollama.com/library/little:1b -q && cmp $T/root/.ollama/library/little/1b.gguf "
           "$T/.squish/models/ollama.com--library--little:1b/model.gguf")
            ->status,
        0);
    assert_int_equal(sh("$S pull $H/file/me/quants/m-Q8_0.gguf -q && cmp $T/root/me/quants/m-Q8_0.gguf "
                        "$T/.squish/models/m-Q8_0/m-Q8_0.gguf")
                         ->status,
                     0);
    const cli_result *r = sh("$S list | cut -f1");
    assert_non_null(strstr(r->out, "hf.co/me/quants:q8_0\n"));
    assert_non_null(strstr(r->out, "ollama.com/library/little:1b\n"));
    assert_int_equal(sh("$S rm hf.co/me/quants:q8_0 m-Q8_0 ollama.com/library/little:1b")->status, 0);
    assert_int_equal(hub_listed(), 1);
}

/* Who needs weights fetches them, who plans fetches headers, who only looks says how to get them. */
static void names_that_are_not_here_are_fetched_or_told(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    const cli_result *r = sh("$S plan hf.co/me/arch --memory 1G --json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "\"tiers\""));
    assert_non_null(strstr(r->err, "hf.co/me/arch: me/arch at "));
    r = sh("$S pull hf.co/me/arch --dry-run");
    assert_int_equal(r->status, 0);
    assert_string_equal(r->out, "");
    assert_int_equal(hub_listed(), 0);
    assert_string_equal(sh("ls $T/.squish/pulls")->out, "");
    assert_said(sh("$S show hf.co/me/arch"), 3, "(squish pull hf.co/me/arch)");
    assert_said(sh("$S gc hf.co/me/arch"), 3, "(squish pull hf.co/me/arch)");
    assert_said(sh("$S plan hf.co/nobody/x"), 3, "the hub does not know it");
    assert_said(sh("$S plan hf.co/me/arch --offline"), 3, "nobody is asked");
    assert_said(sh("$S fidelity hf.co/me/arch --offline"), 3, "nobody is asked");
    assert_int_equal(sh("$S compress hf.co/me/arch --unchecked --method rtn -q")->status, 0);
    r = sh("$S fidelity hf.co/me/tiny --tier source --json");
    if (r->status != 0) fail_msg("%s", r->err);
    assert_non_null(strstr(r->out, "\"cos_mean\""));
    r = sh("$S show hf.co/me/arch");
    assert_non_null(strstr(r->out, "source        http://127.0.0.1:"));
    assert_non_null(strstr(r->out, "me/arch at "));
    assert_non_null(strstr(r->out, "licence       not stated"));
    assert_non_null(strstr(r->out, "file          model.safetensors, "));
    r = sh("$S show hf.co/me/arch --json | grep -o '\"sha256\"' | wc -l");
    assert_true(strtol(r->out, NULL, 10) >= 3);
}

/* What a terminal of so many columns is sent by `squish ARGS`: the bar stays on its line. */
static void the_bar_fits_its_terminal(void **state) {
    (void)state;
    need_hub();
    static const char program[] =
        "import fcntl, os, pty, struct, sys, termios\n"
        "def shown(columns, args, **env):\n"
        "    pid, fd = pty.fork()\n"
        "    if pid == 0:\n"
        "        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))\n"
        "        os.execve(os.environ['S'], ['squish'] + args, {**os.environ, 'TERM': 'xterm', **env})\n"
        "    out = b''\n"
        "    while True:\n"
        "        try: more = os.read(fd, 65536)\n"
        "        except OSError: break\n"
        "        if not more: break\n"
        "        out += more\n"
        "    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "    return status, out.decode().replace('\\r\\n', '\\n')\n"
        "pull = ['pull', 'hf.co/me/bar']\n"
        "for columns in 100, 40, 12:\n"
        "    status, out = shown(columns, pull)\n"
        "    assert status == 0, out\n"
        "    bars = out.split('\\r')[1:-1]\n"
        "    assert len(bars) > 2 and all(len(b) < columns for b in bars), out\n"
        "    assert columns == 12 or any('%' in b and 'left' in b for b in bars), bars\n"
        "    assert columns < 100 or any(' kB/s' in b or ' MB/s' in b for b in bars), bars\n"
        "    assert '\\x1b' not in out, out\n"
        "    shown(columns, ['rm', 'hf.co/me/bar'])\n"
        "status, out = shown(80, pull, TERM='dumb')\n"
        "assert status == 0 and '\\r' not in out and '%' not in out, out\n"
        "assert '\\x1b[31msquish:' in shown(80, ['show', 'nobody'])[1]\n"
        "assert '\\x1b' not in shown(80, ['show', 'nobody'], NO_COLOR='1')[1]\n"
        "assert '\\x1b' not in shown(80, ['show', 'nobody'], TERM='dumb')[1]\n";
    cli_write("terminal.py", program, sizeof program - 1);
    hub_fresh("{\"rate\": 6000000}");
    const cli_result *r = sh("python3 $T/terminal.py");
    if (r->status != 0) fail_msg("%s%s", r->out, r->err);
    assert_null(strpbrk(sh("$S rm hf.co/me/bar; $S pull hf.co/me/bar")->err, "\r\033%"));
}

/* A server that is asked by CLIENT and what is written behind it: no times here, a slow machine is no fault.
 */
#define SERVE "rm -f $T/serve; $S serve --port 0 --json "
#define ANSWER                                                                                               \
    " >$T/serve 2>$T/serve.err & p=$!; while kill -0 $p && ! [ -s $T/serve ]; do sleep 0.02; done; "
#define CLOSE "; s=$?; kill $p; wait $p; [ $s = 0 ] || cat $T/serve.err >&2; exit $s"
#define CLIENT                                                                                               \
    "import json, sys, urllib.request\n"                                                                     \
    "url = json.load(open(sys.argv[1]))['ready']\n"                                                          \
    "def begin(path, body):\n"                                                                               \
    "    return urllib.request.urlopen(urllib.request.Request(url + path, json.dumps(body).encode(),\n"      \
    "        {'Content-Type': 'application/json'}))\n"                                                       \
    "def ask(path, body): return [json.loads(l) for l in begin(path, body)]\n"

/* What /api/pull brought answers (make test-hub asks it): a server that runs tiers makes them, and says so.
 */
static void a_server_compresses_what_it_pulls(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{}");
    static const char client[] =
        CLIENT "for i in range(2):\n"
               "    s = [l['status'] for l in ask('/api/pull', {'model': 'hf.co/me/arch'})]\n"
               "    assert s[0] == 'pulling manifest' and s[-1] == 'success', s\n"
               "    assert ('compressing' in s) == (i == 0), s\n";
    cli_write("client2.py", client, sizeof client - 1);
    const cli_result *r = sh(SERVE "squish-tiny" ANSWER "python3 $T/client2.py $T/serve" CLOSE);
    if (r->status != 0) fail_msg("%s", r->err);
    assert_int_equal(sh("ls $T/.squish/models/hf.co--me--arch-compressed/.squish_4bit_ready")->status, 0);
}

/* A server's /api/pull, asked by three clients at once. The hub holds the files until all of them have seen
 * that it goes on, and one has left; later everybody leaves, and the pull ends. */
static void a_server_pulls_once_for_all_who_ask(void **state) {
    (void)state;
    need_hub();
    hub_fresh("{\"hold_after\": 600000}");
    static const char client[] =
        CLIENT
        "import fcntl, os, threading, time\n"
        "top = sys.argv[2]\n"
        "def faults(o):\n"
        "    with open(top + '/new', 'w') as f: json.dump(o, f)\n"
        "    os.rename(top + '/new', top + '/faults')\n"
        "def refused(path, body):\n"
        "    try: ask(path, body)\n"
        "    except urllib.error.HTTPError as e: return e.code, json.load(e)['error']\n"
        "def look():\n" /* until its bytes are counted */
        "    r = begin('/api/pull', {'model': 'hf.co/me/wide'})\n"
        "    while 'total' not in json.loads(r.readline()): pass\n"
        "    r.close()\n"
        "seen = threading.Semaphore(0)\n"
        "got = [[], []]\n"
        "def watch(lines):\n"
        "    try:\n"
        "        for l in begin('/api/pull', {'model': 'hf.co/me/wide'}):\n"
        "            lines.append(json.loads(l))\n"
        "            if 'total' in lines[-1]: seen.release()\n"
        "    finally: seen.release(2)\n"
        "threads = [threading.Thread(target=watch, args=(l,)) for l in got]\n"
        "for t in threads: t.start()\n"
        "def counted(): return all(any('total' in r for r in lines) for lines in got)\n"
        "while not counted() and any(t.is_alive() for t in threads): seen.acquire()\n"
        "look()\n" /* it is their job that he watches for a while */
        "faults({})\n"
        "for t in threads: t.join()\n"
        "for lines in got:\n"
        "    s = [l['status'] for l in lines]\n"
        "    assert s[0] == 'pulling manifest' and s[-1] == 'success', lines\n"
        "    assert 'verifying sha256 digest' in s and 'writing manifest' in s, lines\n"
        "    rows = [l for l in lines if 'total' in l]\n"
        "    assert rows[0]['completed'] < rows[0]['total'], rows\n"
        "    assert rows[-1]['completed'] == rows[-1]['total'] > 8e6, rows\n"
        "    assert all(r['digest'].startswith('sha256:') for r in rows if 'digest' in r)\n"
        "    done = [r['completed'] for r in rows]\n"
        "    assert done == sorted(done), done\n"
        "assert ask('/api/pull', {'model': 'hf.co/me/wide', 'stream': False}) == [{'status': 'success'}]\n"
        "s = [l['status'] for l in ask('/api/pull', {'model': 'hf.co/me/wide:latest'})]\n"
        "assert s == ['pulling manifest', 'success'], s\n"
        "tags = json.load(urllib.request.urlopen(url + '/api/tags'))['models']\n"
        "assert 'hf.co/me/wide:latest' in [m['name'] for m in tags], tags\n"
        "code, why = refused('/api/pull', {'model': 'hf.co/nobody/x', 'stream': False})\n"
        "assert code == 404 and 'does not know it' in why, (code, why)\n"
        "assert refused('/api/pull', {'model': 'http://127.0.0.1:1/x.gguf'})[0] == 400\n"
        "assert refused('/api/pull', {'model': '../../etc/passwd'})[0] in (400, 404)\n"
        "lines = ask('/api/pull', {'model': 'hf.co/me/secret'})\n"
        "assert 'accept its licence' in lines[-1]['error'], lines\n"
        "def drop():\n"
        "    r = urllib.request.Request(url + '/api/delete', b'{\"model\": \"hf.co/me/wide\"}', "
        "method='DELETE',\n"
        "        headers={'Content-Type': 'application/json'})\n"
        "    urllib.request.urlopen(r)\n"
        "drop()\n"
        "faults({'hold_after': 600000})\n"
        "look()\n" /* nobody is left: it ends, and the lock of that pull is free */
        "with open(top + '/.squish/pulls/hf.co--me--wide/lock') as f: fcntl.flock(f, fcntl.LOCK_EX)\n"
        "faults({})\n"
        "assert ask('/api/pull', {'model': 'hf.co/me/wide:latest'})[-1] == {'status': 'success'}\n"
        "drop()\n";
    cli_write("client.py", client, sizeof client - 1);
    const cli_result *r = sh(SERVE "--tier source" ANSWER "python3 $T/client.py $T/serve $T" CLOSE);
    if (r->status != 0) fail_msg("%s", r->err);
    if (hub_sent() > 2 * WIDE_BYTES * 1.1)
        fail_msg("sent too much: %s", sh("grep -v '\"sent\": 0' $T/log")->out);
    assert_int_equal(hub_listed(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pulled_model_has_the_hubs_bytes_and_a_manifest),
        cmocka_unit_test(run_does_the_whole_way),
        cmocka_unit_test(connections_that_break_are_taken_up_again),
        cmocka_unit_test(servers_without_ranges_and_packed_bodies_are_met_once),
        cmocka_unit_test(a_wrong_sum_is_never_installed),
        cmocka_unit_test(a_killed_pull_goes_on),
        cmocka_unit_test(two_pulls_of_one_name_fetch_once),
        cmocka_unit_test(the_token_goes_to_its_own_host_alone),
        cmocka_unit_test(what_stands_in_the_way_is_said_in_one_line),
        cmocka_unit_test(certificates_are_checked),
        cmocka_unit_test(without_a_route_one_line_says_so),
        cmocka_unit_test(a_disk_that_fills_up_in_mid_write_keeps_the_part),
        cmocka_unit_test(the_bar_fits_its_terminal),
        cmocka_unit_test(names_that_are_not_here_are_fetched_or_told),
        cmocka_unit_test(a_server_compresses_what_it_pulls),
        cmocka_unit_test(a_full_disk_is_said_before_and_leaves_nothing),
        cmocka_unit_test(a_server_pulls_once_for_all_who_ask),
        cmocka_unit_test(a_gguf_file_a_registry_and_an_address_work_alike),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
