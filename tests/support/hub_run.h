/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_run.h - the fake hub (fake_hub.py) for tests that run the program: $H is its address, $T/root its
 * models, $T/faults what it does wrong, $T/log what it was asked. Include cli_sh.h first. */
#ifndef SQ_TEST_HUB_RUN_H
#define SQ_TEST_HUB_RUN_H

#include <signal.h>

static pid_t hub_pid;

/* false and a printed reason where there is no python3 to run it, or squish was built without libcurl. */
static inline bool hub_begin(const char *flags) {
    if (sh("python3 -c 'import http.server, ssl'")->status != 0) {
        printf("skipped: no python3 for the fake hub\n");
        return false;
    }
    if (strstr(sh("HF_ENDPOINT=http://127.0.0.1:9 $S pull hf.co/a/b")->err, "libcurl")) {
        printf("skipped: squish has no libcurl here\n");
        return false;
    }
    sh("mkdir -p $T/root; python3 tests/support/fake_hub.py --root $T/root --parent $PPID --faults "
       "$T/faults --log $T/log "
       "%s "
       ">$T/ready 2>$T/hub.err & echo $! >$T/hub.pid; i=0; until [ -s $T/ready ] || [ $i -gt 100 ]; do "
       "i=$((i + 1)); sleep 0.05; done",
       flags);
    char text[512] = "";
    cli_slurp("hub.pid", text, sizeof text);
    hub_pid = (pid_t)strtol(text, NULL, 10);
    cli_slurp("ready", text, sizeof text);
    json_t *o = json_loads(text, 0, NULL);
    const char *url = json_string_value(json_object_get(o, "hub"));
    if (url) setenv("H", url, 1), setenv("HF_ENDPOINT", url, 1), setenv("OLLAMA_REGISTRY", url, 1);
    json_decref(o);
    return url != NULL;
}

static inline void hub_end(void) {
    if (hub_pid > 0) kill(hub_pid, SIGTERM);
    hub_pid = 0;
    unsetenv("HF_ENDPOINT");
    unsetenv("OLLAMA_REGISTRY");
}

/* An empty store, an empty log, and these faults (JSON). */
static inline void hub_fresh(const char *faults) {
    cli_write("faults", faults, strlen(faults));
    sh("rm -rf $T/.squish; : >$T/log");
}

/* Bytes of bodies that the hub has sent since hub_fresh; a pull's own repetition is seen here. */
static inline double hub_sent(void) {
    return strtod(sh("awk -F'\"sent\": ' '{ s += $2 } END { print s + 0 }' $T/log")->out, NULL);
}

/* The number that a line of shell prints. */
static inline long hub_count(const char *line) { return strtol(sh("%s", line)->out, NULL, 10); }

/* Models that list shows of hubs. */
static inline long hub_listed(void) { return hub_count("$S list | grep -c -e '^hf.co' -e '^ollama.com'"); }

#endif
