/* SPDX-License-Identifier: Apache-2.0
 *
 * test_install.c - a program that lies where installations have it: PREFIX/bin, with its model in
 * PREFIX/share. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define P "$T/p"

static int install(void **state) {
    if (cli_begin(state) != 0) return -1;
    return sh("mkdir -p " P "/bin " P "/share/squish/models && cp \"$S\" " P "/bin/squish && "
              "cp -r models/squish-tiny " P "/share/squish/models/")
        ->status;
}

static const char *detail(json_t *o, const char *name) {
    json_t *k;
    size_t i;
    json_array_foreach(json_object_get(o, "checks"), i, k) {
        if (strcmp(json_string_value(json_object_get(k, "name")), name) == 0)
            return json_string_value(json_object_get(k, "detail"));
    }
    return "";
}

static void tiers_never_lie_among_installed_files(void **state) {
    (void)state;
    const cli_result *r = sh("cd / && " P "/bin/squish run --home $T/h -n 8 'What is the capital of Japan?'");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "Tokyo"));
    assert_int_equal(sh("ls " P "/share/squish/models | grep -c compressed")->status, 1);
    assert_int_equal(sh("test -d $T/h/models/squish-tiny-compressed")->status, 0);
}

static void doctor_names_what_an_installation_lacks(void **state) {
    (void)state;
    json_t *o = cli_json(sh("cd / && " P "/bin/squish doctor --home $T/h --json"));
    assert_non_null(strstr(detail(o, "install"),
                           "without: man page, completion of bash, completion of zsh, "
                           "completion of fish, unit of the socket, unit of the service"));
    json_decref(o);
    /* as packages have it: the man page packed, units in /lib where /usr/lib is another folder */
    assert_int_equal(sh("mkdir -p " P "/share/man/man1 " P "/share/bash-completion/completions " P
                        "/share/zsh/site-functions " P
                        "/share/fish/vendor_completions.d $T/lib/systemd/system && touch " P
                        "/share/man/man1/squish.1.gz " P "/share/bash-completion/completions/squish " P
                        "/share/zsh/site-functions/_squish " P
                        "/share/fish/vendor_completions.d/squish.fish $T/lib/systemd/system/squish.socket")
                         ->status,
                     0);
    o = cli_json(sh("cd / && " P "/bin/squish doctor --home $T/h --json"));
    assert_non_null(strstr(detail(o, "install"), "without: unit of the service ("));
    json_decref(o);
    o = cli_json(
        sh("touch $T/lib/systemd/system/squish.service; cd / && " P "/bin/squish doctor --home $T/h --json"));
    assert_non_null(strstr(detail(o, "install"), "with man page, completions and units"));
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiers_never_lie_among_installed_files),
        cmocka_unit_test(doctor_names_what_an_installation_lacks),
    };
    return cmocka_run_group_tests(tests, install, cli_end);
}
