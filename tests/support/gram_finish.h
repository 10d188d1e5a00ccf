/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_finish.h - the shortest way from where a text stands to an end of it. */
#ifndef SQ_TEST_GRAM_FINISH_H
#define SQ_TEST_GRAM_FINISH_H

#include "grammar/gram_int.h"

/* NONE: no word of the language begins with the text. LOST: too long to be found out. */
typedef enum { SQ_TEST_FINISHED, SQ_TEST_FINISH_NONE, SQ_TEST_FINISH_LOST } sq_test_finish_result;

/* Append to a text the fewest bytes with which it is a word. A matcher holds the grammar, and nobody is at
 * it. */
sq_test_finish_result sq_test_finish_text(sq_gram *g, sq_buf *text);

#endif
