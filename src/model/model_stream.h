/* SPDX-License-Identifier: Apache-2.0
 *
 * model_stream.h - weights that do not fit the memory given, on their way from the file to the forward pass
 * (docs/io.md).
 *
 * A mapped model's matrices are views into the mapping. A stream keeps units of the container in memory of
 * its own (io.h) and gives the forward pass the same matrices with other addresses: the same bytes, so the
 * same bits. What stays: norms, head, and of a dense model as many layers as fit; of a model with experts all
 * but those. Rows of an embedding that is not the head are read through the mapping.
 *
 * Of a model with experts the stream begins with what runs before it asked for most (FILE.heat, io.h), read
 * while nothing else is, and leaves its own counts there when it ends. A file that cannot be used, or a
 * folder that cannot be written, costs nothing but that.
 *
 * One thread at a time, the one of its forward pass; sq_stream_get_stats from any. */
#ifndef SQ_MODEL_STREAM_H
#define SQ_MODEL_STREAM_H

#include "io/io.h"
#include "model/model.h"

typedef struct sq_stream sq_stream;

/* The two blocks of a layer. */
typedef enum { SQ_STAGE_ATTN, SQ_STAGE_FFN } sq_stage;

typedef struct {
    uint64_t budget_bytes; /* of all weights in memory */
    sq_io_backend backend;
    bool on_demand; /* nothing is read ahead: for measurements */
    bool cold;      /* counts of earlier runs are neither used nor kept: likewise */
} sq_stream_options;

/* Can m be streamed: is it a container of ours, whose units are layers and experts? UNSUPPORTED says why not.
 * *bytes_min: the least budget. */
squish_status sq_stream_check(const sq_model *m, const squish_alloc *a, uint64_t *bytes_min,
                              squish_error *err);
/* UNSUPPORTED, NO_MEMORY, IO; CORRUPT: the file is another one by now. m outlives it. Nothing is read yet but
 * experts that earlier runs asked for. */
squish_status sq_stream_new(sq_stream **out, const sq_model *m, const sq_stream_options *o,
                            const squish_alloc *a, squish_error *err);
void sq_stream_free(sq_stream *s); /* and writes the counts, if experts were run */
/* Why counts of earlier runs are not used, or those of this one not kept; "": they are, or there is nothing
 * to count. Lives as long as the stream. */
const char *sq_stream_heat_why(const sq_stream *s);

/* The weights of a stage, in memory until the next begin or end; those of other stages are not to be
 * followed. What comes behind it in the pass is read meanwhile. NULL: they could not be read, err says why.
 */
const sq_layer *sq_stream_begin(sq_stream *s, int32_t layer, sq_stage stage, squish_error *err);
void sq_stream_end(sq_stream *s);

/* The experts that rows chose will be run next: have them read. */
void sq_stream_experts_want(sq_stream *s, int32_t layer, const sq_routes *r);
/* sq_be_experts_run of these experts: those in memory first, the others as they come. */
squish_status sq_stream_experts_run(sq_stream *s, sq_backend *b, int32_t layer, const sq_routes *r,
                                    sq_activation act, sq_expert_rows *e, squish_error *err);
/* The head and the norm before it, and a table that is the head; from the first OK on they stay. */
squish_status sq_stream_ends(sq_stream *s, squish_error *err);
const sq_weight *sq_stream_embed(const sq_stream *s);
const sq_weight *sq_stream_head(const sq_stream *s);
const float *sq_stream_final_norm(const sq_stream *s);

/* Experts that may be wanted soon, with a weight in (0, 1] each: sq_io_hint. One call says all there is to
 * say now, of as many layers as it knows of. */
typedef struct {
    int32_t layer, expert;
    float weight;
} sq_expert_hint;
void sq_stream_hint(sq_stream *s, const sq_expert_hint *h, int32_t n);
bool sq_stream_has_expert(const sq_stream *s, int32_t layer, int32_t expert); /* in memory, just now */
uint64_t sq_stream_expert_bytes(const sq_stream *s); /* of an expert's unit; 0: there are none */

void sq_stream_get_stats(const sq_stream *s, sq_io_stats *out);

#endif
