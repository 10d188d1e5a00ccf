/* SPDX-License-Identifier: Apache-2.0
 *
 * json_suite.h - test suites made of JSON files: finding the files, values back to text, and the list of what
 * is known to come out otherwise. */
#ifndef SQ_TEST_JSON_SUITE_H
#define SQ_TEST_JSON_SUITE_H

#include "grammar/gram_schema_int.h"

/* A value as compact JSON text in the arena: members in their order, numbers as they were written, no
 * character escaped that need not be. */
char *sq_suite_text(sq_arena *ar, const gs_value *v, size_t *n);
/* The text of a member that is a string; "" if there is none. */
const char *sq_suite_string(const gs_value *object, const char *name);

/* Call fn for every .json below root/rel, sorted, but what bears a name of skip (NULL ends it). rel: path
 * below root. */
void sq_suite_each_file(sq_arena *ar, const char *root, const char *rel, const char *const *skip,
                        void (*fn)(const char *path, const char *rel));

/* $SQUISH_TESTDATA/fixtures/name in path[n]; false if it is not there. */
bool sq_suite_find(const char *name, char *path, size_t n);

/* A list of exceptions: lines of a key and, after the last tab, its reason. A case that begins to fail and
 * one that begins to pass are both unexpected, so the list is always the truth. */
enum { SQ_RATCHET_MAX = 2000 };
typedef struct {
    char *known[SQ_RATCHET_MAX];
    bool met[SQ_RATCHET_MAX];
    size_t n;
    int unexpected;
} sq_ratchet;
void sq_ratchet_read(sq_ratchet *r, sq_arena *ar, const char *path);
/* why: what happened instead, for the message. */
void sq_ratchet_judge(sq_ratchet *r, const char *key, bool pass, const char *why);
/* Exceptions that no case met are unexpected, too. Returns how many there are of all kinds. */
int sq_ratchet_end(sq_ratchet *r);

#endif
