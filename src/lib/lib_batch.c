/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_batch.c - many answers at once: defaults in front of src/sched. */
#include "sched/sched.h"

squish_batch_options squish_batch_options_default(void) {
    return (squish_batch_options){
        .jobs_max = 8, .queue_max = 256, .prefix_cache = true, .snapshot_bytes_max = (uint64_t)8 << 30};
}

squish_status squish_batch_new(squish_batch **out, squish_engine *e, const squish_batch_options *opt,
                               squish_error *err) {
    const squish_batch_options o = opt ? *opt : squish_batch_options_default();
    return sq_batch_new(out, e, &o, err);
}

void squish_batch_free(squish_batch *b) { sq_batch_free(b); }
bool squish_batch_drain(squish_batch *b) { return sq_batch_drain(b); }
void squish_batch_get_stats(squish_batch *b, squish_batch_stats *out) { sq_batch_get_stats(b, out); }

squish_job_options squish_job_options_default(void) {
    return (squish_job_options){.gen = squish_gen_options_default(), .prompt_logprobs = -1};
}

squish_status squish_job_submit(squish_job **out, squish_batch *b, const squish_job_options *opt,
                                squish_error *err) {
    return sq_batch_submit(out, b, opt, err);
}

bool squish_job_next(squish_job *j, squish_job_event *ev) { return sq_job_next(j, ev); }
void squish_job_cancel(squish_job *j) { sq_job_cancel(j); }
void squish_job_get_stats(squish_job *j, squish_job_stats *out) { sq_job_stats(j, out); }
void squish_job_free(squish_job *j) { sq_job_free(j); }
