/* SPDX-License-Identifier: Apache-2.0
 *
 * model_int.h - what the files of the model room share. */
#ifndef SQ_MODEL_INT_H
#define SQ_MODEL_INT_H

#include "model/model.h"

/* An empty model with its arena and layers not yet made. */
squish_status sq_model_new(sq_model **out, const squish_model_options *opt, squish_error *err);
/* Make layers for m->cfg and the tensor list; both in the load arena. */
squish_status sq_model_make_layers(sq_model *m, squish_error *err);
/* Put a matrix or vector in its place. w is a view that outlives m; vec [rows] f32. */
void sq_model_bind_matrix(sq_model *m, const sq_want *want, const sq_weight *w);
void sq_model_bind_vector(sq_model *m, const sq_want *want, const float *vec);
/* After binding: flags of layers, tied head, counts and the info struct. */
squish_status sq_model_finish(sq_model *m, const char *path, const char *tier, squish_error *err);
/* Open views on compiled text; an empty template span is fine. */
squish_status sq_model_open_text(sq_model *m, sq_span tok, sq_span tmpl, squish_error *err);

#endif
