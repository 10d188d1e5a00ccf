/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_int.h - what the files of this room share: padding, foreign rows. */
#ifndef SQ_QUANT_INT_H
#define SQ_QUANT_INT_H

#include "quant/quant.h"
#include "quant/quant_lane.h"
#include "quant/quant_num.h"

/* sq_weight_row of foreign types. quant_blocks.c */
void sq_foreign_row(const sq_weight *w, int32_t r, float *out);

#endif
