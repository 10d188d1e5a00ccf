/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_pagein.c - weights of a cold file come in by themselves, and letting go never waits for them. */
#include "model/model.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static squish_model *open_model(void) {
    squish_model *m = NULL;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    if (squish_model_open(&m, "models/squish-tiny", &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    return m;
}

#ifdef __linux__
static void forget_pages(void) {
    for (int i = 1; i <= 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "models/squish-tiny/model-%05d-of-00004.safetensors", i);
        const int fd = open(path, O_RDONLY);
        assert_true(fd >= 0);
        fdatasync(fd);
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
    }
}

/* Whole pages of a matrix that are in memory, and how many it has. */
static void count_pages(const sq_weight *w, size_t *present, size_t *all) {
    static unsigned char in[1 << 14];
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)w->data / page * page;
    const size_t n = (size_t)w->rows / SQ_TILE_ROWS * w->tile_bytes / page;
    assert_true(n <= sizeof in);
    if (n == 0 || mincore((void *)at, n * page, in) != 0) return;
    for (size_t i = 0; i < n; i++) *present += in[i] & 1;
    *all += n;
}

static void every_matrix_becomes_resident(void **state) {
    (void)state;
    forget_pages();
    squish_model *m = open_model();
    sq_pagein *p = NULL;
    squish_error err = {0};
    size_t present = 0, all = 1;
    assert_int_equal(sq_pagein_new(&p, m, &err), SQUISH_OK);
    for (int wait = 0; wait < 2000 && present < all; wait++) { /* only a hang takes that long */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        present = all = 0;
        sq_want w;
        for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++)
            if (!w.vector && w.layer >= 0) count_pages(sq_model_matrix(m, &w), &present, &all);
        count_pages(&m->head, &present, &all);
    }
    assert_true(all > 1000);
    assert_int_equal(present, all);
    sq_pagein_free(p);
    squish_model_close(m);
}
#endif

static void stopping_at_once_is_fine(void **state) {
    (void)state;
    squish_model *m = open_model();
    for (int i = 0; i < 20; i++) {
        sq_pagein *p = NULL;
        assert_int_equal(sq_pagein_new(&p, m, NULL), SQUISH_OK);
        sq_pagein_free(p);
    }
    sq_pagein_free(NULL);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#ifdef __linux__
        cmocka_unit_test(every_matrix_becomes_resident),
#endif
        cmocka_unit_test(stopping_at_once_is_fine),
    };
    return cmocka_run_group_tests_name("page-in", tests, NULL, NULL);
}
