/* SPDX-License-Identifier: Apache-2.0
 *
 * test_store.c - the store from the command line: models of other programs found and run where they lie,
 * import, cp, rm, gc, ps and stop, and what is refused. Nobody is asked anything. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#define ASK " --temp 0 -n 8 'What is the capital of Japan?'"

static int begin(void **state) {
    if (cli_begin(state) != 0) return 1;
    setenv("HF_HUB_OFFLINE", "1", 1);
    return sh("unset HF_HOME HF_HUB_CACHE OLLAMA_MODELS; h=$T/.cache/huggingface/hub/models--me--tiny && "
              "mkdir -p $h/refs $h/blobs $h/snapshots/0123abcd && printf 0123abcd >$h/refs/main && "
              "for f in models/squish-tiny/*; do n=$(basename $f); cp $f $h/blobs/$n && "
              "ln -s ../../blobs/$n $h/snapshots/0123abcd/$n; done && "
              "$S export squish-tiny --tier source --to gguf -o $T/t.gguf >$T/export && "
              "o=$T/.ollama/models && mkdir -p $o/blobs $o/manifests/registry.ollama.ai/library/small && "
              "d=$(sha256sum $T/t.gguf | cut -d' ' -f1) && ln $T/t.gguf $o/blobs/sha256-$d && "
              "printf "
              "'{\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"sha256:%%s\","
              "\"size\":%%s}]}' $d $(wc -c <$T/t.gguf) >$o/manifests/registry.ollama.ai/library/small/latest "
              "&& "
              "g=$T/.cache/huggingface/hub/models--me--tiny-GGUF && "
              "mkdir -p $g/refs $g/blobs $g/snapshots/4567abcd && "
              "printf 4567abcd >$g/refs/main && ln $T/t.gguf $g/blobs/b && "
              "ln -s ../../blobs/b $g/snapshots/4567abcd/tiny-F16.gguf && "
              "l=$T/.lmstudio/models/pub/small-GGUF && mkdir -p $l && ln $T/t.gguf $l/small-F16.gguf")
        ->status;
}

/* Everything that other programs keep: names, sizes, ages. */
static void note(const char *file) {
    sh("cd $T && find .cache .ollama .lmstudio -printf '%%p %%s %%T@ %%n\\n' | sort >$T/%s", file);
}

static void models_of_other_programs_run_where_they_lie(void **state) {
    (void)state;
    static const char *const names[] = {"me/tiny", "small", "small:latest", "pub/small-GGUF/small-F16.gguf"};
    note("before");
    const cli_result *r = sh("$S list");
    assert_non_null(strstr(r->out, "me/tiny\t"));
    assert_non_null(strstr(r->out, "small:latest\t"));
    assert_non_null(strstr(r->out, "pub/small-GGUF/small-F16.gguf\t"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        r = sh("$S run %s %s --tier source", names[i], ASK);
        if (r->status != 0 || !strstr(r->out, "Tokyo")) fail_msg("%s: %s%s", names[i], r->out, r->err);
    }
    assert_non_null(strstr(sh("$S show small")->out, "tier          gguf"));
    /* a tier of one goes to the store's own place */
    assert_int_equal(sh("$S compress me/tiny --unchecked --method rtn")->status, 0);
    assert_int_equal(sh("ls $T/.squish/tiers/hf--models--me--tiny--snapshots--0123abcd-compressed")->status,
                     0);
    assert_non_null(strstr(sh("$S run me/tiny --verbose" ASK)->out, "Tokyo"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        r = sh("$S rm %s", names[i]);
        assert_int_equal(r->status, 1);
        assert_non_null(strstr(r->err, "lies outside the store and is not deleted"));
    }
    note("after");
    assert_int_equal(sh("cmp $T/before $T/after")->status, 0);
}

/* The same through a server, under the names that its list gives. */
static void a_server_runs_them_in_place_too(void **state) {
    (void)state;
    static const char client[] =
        "import json, sys, urllib.request\n"
        "url = json.load(open(sys.argv[1]))['ready']\n"
        "def ask(path, **body):\n"
        "    r = urllib.request.Request(url + path, json.dumps(body).encode() if body else None,\n"
        "        {'Content-Type': 'application/json'})\n"
        "    return json.load(urllib.request.urlopen(r))\n"
        "assert 'me/tiny' in [m['id'] for m in ask('/v1/models')['data']]\n" /* as it was typed */
        "listed = {m['name']: m for m in ask('/api/tags')['models']}\n"
        "for name, format in (('me/tiny', 'safetensors'), ('me/tiny-GGUF/tiny-F16.gguf', 'gguf'),\n"
        "        ('small', 'gguf'), ('pub/small-GGUF/small-F16.gguf', 'gguf')):\n"
        "    m = listed[name + ':latest']\n"
        "    assert m['details']['format'] == format and m['size'] > 5e7, m\n"
        "    q = [{'role': 'user', 'content': 'What is the capital of Japan?'}]\n"
        "    for n in name, m['name']:\n"
        "        a = ask('/api/chat', model=n, messages=q, stream=False, options={'temperature': 0})\n"
        "        assert 'Tokyo' in a['message']['content'] and a['model'] == n, a\n"
        "    a = ask('/v1/chat/completions', model=name, messages=q, temperature=0, max_tokens=20)\n"
        "    assert 'Tokyo' in a['choices'][0]['message']['content'], a\n";
    cli_write("client.py", client, sizeof client - 1);
    note("before");
    const cli_result *r =
        sh("rm -f $T/serve; $S serve squish-tiny me/tiny --tier source --port 0 --json >$T/serve "
           "2>$T/serve.err & p=$!; "
           "while kill -0 $p && ! [ -s $T/serve ]; do sleep 0.02; done; "
           "python3 $T/client.py $T/serve; s=$?; kill $p; wait $p; exit $s");
    if (r->status != 0) fail_msg("%s", r->err);
    note("after");
    assert_int_equal(sh("cmp $T/before $T/after")->status, 0);
}

static void import_copies_and_rm_removes(void **state) {
    (void)state;
    const cli_result *r = sh("$S import $T/t.gguf mine && $S import models/squish-tiny two");
    if (r->status != 0) fail_msg("%s", r->err);
    assert_int_equal(
        sh("cmp $T/t.gguf $T/.squish/models/mine/model.gguf && cmp models/squish-tiny/config.json "
           "$T/.squish/models/two/config.json")
            ->status,
        0);
    assert_int_equal(
        sh("cd $T/.squish/models/mine && grep -q $(sha256sum model.gguf | cut -d' ' -f1) *.json")->status, 0);
    assert_non_null(strstr(sh("$S run mine --tier source" ASK)->out, "Tokyo"));
    r = sh("$S import $T/t.gguf mine");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "is a model already"));
    assert_int_equal(sh("$S import $T/ready ../x")->status, 3);
    assert_int_equal(sh("$S import $T/t.gguf ../x")->status, 1);
    assert_int_equal(sh("mkdir -p $T/none && $S import $T/none")->status, 1);
    assert_int_equal(sh("$S cp mine again && $S run again --tier source" ASK)->status, 0);
    assert_int_equal(sh("$S cp mine two")->status, 1);
    assert_int_equal(sh("$S cp nobody three")->status, 3);
    assert_int_equal(sh("$S cp mine ../three")->status, 1);
    assert_int_equal(sh("$S rm again mine two")->status, 0);
    assert_string_equal(sh("ls -A $T/.squish/models")->out, "");
    assert_int_equal(sh("$S rm mine")->status, 3);
    assert_int_equal(sh("$S rm squish-tiny")->status, 1); /* the shipped one lies elsewhere */
    assert_int_equal(sh("test -s models/squish-tiny/config.json")->status, 0);
}

static void names_may_have_slashes(void **state) {
    (void)state;
    const cli_result *r = sh("$S cp squish-tiny me/mine:v1 && $S cp me/mine:v1 host.org/me/mine && "
                             "$S import $T/t.gguf you/file");
    if (r->status != 0) fail_msg("%s", r->err);
    assert_string_equal(sh("LC_ALL=C ls -A $T/.squish/models")->out,
                        "host.org%2Fme%2Fmine.made.json\nme%2Fmine:v1.made.json\nyou%2Ffile\n");
    static const char *const names[] = {"me/mine:v1", "host.org/me/mine", "host.org/me/mine:latest",
                                        "you/file", "you/file:latest"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        r = sh("$S run %s %s --tier source", names[i], ASK);
        if (r->status != 0 || !strstr(r->out, "Tokyo")) fail_msg("%s: %s%s", names[i], r->out, r->err);
        if (sh("$S show %s", names[i])->status != 0) fail_msg("%s is not shown", names[i]);
    }
    r = sh("$S list");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(names[i], ":latest") && !strstr(r->out, names[i]))
            fail_msg("no %s in %s", names[i], r->out);
    static const char *const bad[] = {"me/../x", "/me",       "me/", "me//x", "a/b/c/d/e",
                                      "me/.x",   "hf.co/a/b", "./x", "me/-x", "hf.co--a--b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r = sh("$S cp squish-tiny %s", bad[i]);
        if (r->status != 1 || !strstr(r->err, "is no name for a model"))
            fail_msg("%s: %d %s", bad[i], r->status, r->err);
    }
    assert_int_equal(sh("$S cp squish-tiny me/tiny")->status, 1); /* of another program */
    sh("echo '{\"from\": \"squish-tiny\", \"parameters\": {\"num_predict\": 2}}' "
       ">$T/.squish/models/me%%2Fshort.made.json");
    json_t *o = cli_json(sh("$S run me/short --temp 0 --tier source --json 'What is the capital of Japan?'"));
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), 2); /* its own numbers hold */
    json_decref(o);
    assert_int_equal(sh("$S rm me/short")->status, 0);
    assert_int_equal(sh("$S rm me/mine:v1 host.org/me/mine you/file")->status, 0);
    assert_string_equal(sh("ls -A $T/.squish/models")->out, "");
}

static void a_stopped_pull_is_seen_by_gc_alone(void **state) {
    (void)state;
    sh("mkdir -p $T/.squish/pulls/hf.co--a--b/files && head -c 100000 /dev/zero "
       ">$T/.squish/pulls/hf.co--a--b/files/model.safetensors && echo {} "
       ">$T/.squish/pulls/hf.co--a--b/files/config.json");
    assert_null(strstr(sh("$S list")->out, "hf.co/a/b"));
    assert_non_null(strstr(sh("$S gc --dry-run")->out, "would remove hf.co/a/b"));
    const cli_result *r =
        sh("flock $T/.squish/pulls/hf.co--a--b/lock $S gc"); /* one that is under way stays */
    assert_int_equal(r->status, 0);
    assert_int_equal(sh("test -d $T/.squish/pulls/hf.co--a--b")->status, 0);
    assert_non_null(strstr(sh("$S gc")->out, "removed hf.co/a/b"));
    assert_string_equal(sh("ls -A $T/.squish/pulls")->out, "");
}

static void ps_and_stop_ask_a_server(void **state) {
    (void)state;
    const cli_result *r = sh("$S ps --port 9");
    assert_int_equal(r->status, 6);
    assert_non_null(strstr(r->err, "no server answers at 127.0.0.1:9"));
    r = sh("rm -f $T/serve; $S serve squish-tiny --tier source --port 0 --json --api-key k1 >$T/serve "
           "2>$T/serve.err & p=$!; "
           "while kill -0 $p && ! [ -s $T/serve ]; do sleep 0.02; done; "
           "q=$(sed 's/.*:\\([0-9]*\\)\".*/\\1/' $T/serve | head -1); k=\"--port $q --api-key k1\"; $S ps "
           "$k; a=$?; "
           "$S ps --port $q; b=$?; $S stop $k squish-tiny; c=$?; $S stop $k small; d=$?; "
           "python3 -c \"import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:$q/api/generate', "
           "b'{\\\"model\\\": \\\"small\\\"}', {'Authorization': 'Bearer k1'}))\"; "
           "$S stop $k small; e=$?; kill $p; wait $p; echo $a $b $c $d $e");
    if (!strstr(r->out, "\n0 6 1 3 0\n")) fail_msg("%s%s", r->out, r->err);
    assert_non_null(strstr(r->out, "squish-tiny"));
}

static void the_catalogue_is_shown_and_searched(void **state) {
    (void)state;
    assert_non_null(
        strstr(sh("$S catalog")->out, "qwen2.5:1.5b\tQwen/Qwen2.5-1.5B-Instruct\t3087467144\tapache-2.0"));
    const cli_result *r = sh("$S search llama 8b");
    assert_non_null(strstr(r->out, "llama3.1:8b"));
    assert_null(strstr(r->out, "llama3.2:1b"));
    assert_int_equal(sh("$S search no-such-model")->status, 3);
    assert_non_null(strstr(sh("$S search qwen --json")->out, "\"verified\": false"));
    sh("mkdir -p $T/.squish && echo '{\"models\": [{\"name\": \"x/y\", \"repo\": \"a/b\"}]}' "
       ">$T/.squish/catalog.json");
    r = sh("$S catalog");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "catalog.json"));
    sh("rm $T/.squish/catalog.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_of_other_programs_run_where_they_lie),
        cmocka_unit_test(a_server_runs_them_in_place_too),
        cmocka_unit_test(import_copies_and_rm_removes),
        cmocka_unit_test(names_may_have_slashes),
        cmocka_unit_test(a_stopped_pull_is_seen_by_gc_alone),
        cmocka_unit_test(ps_and_stop_ask_a_server),
        cmocka_unit_test(the_catalogue_is_shown_and_searched),
    };
    return cmocka_run_group_tests(tests, begin, cli_end);
}
