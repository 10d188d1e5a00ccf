/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_quality.h - what a made model can still do, beside its source: both run the same held-out text and
 * continue the same beginnings. */
#ifndef SQ_LIB_QUALITY_H
#define SQ_LIB_QUALITY_H

#include "forge/forge.h"
#include "forge/forge_methods.h"

typedef struct {
    int32_t threads; /* 0: all */
    squish_progress_fn progress;
    void *progress_user;
} sq_quality_options;

/* An sq_measure_fn; user is an sq_quality_options. Text, tokens and prompts are built in; how many depends on
 * the size of the model alone. Logits of 32 positions of one model are held at a time. Errors: those of
 * opening and running a model, CANCELLED. */
squish_status sq_quality_measure_file(void *user, const char *file, const sq_model *source,
                                      sq_quality_measure *m, squish_error *err);

/* (lib_quality_text.c) English prose, talk, numbers and code of our own, that no model was trained on. */
extern const char sq_quality_text[];

#endif
