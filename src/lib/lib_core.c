/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_core.c - status names, versions, owned results and facts about the machine. */
#include "kernels/kernels.h"

#include <stdio.h>
#include <string.h>

const char *squish_status_name(squish_status code) {
    switch (code) {
#define CASE(name, text) case SQUISH_##name: return #name;
        SQUISH_STATUS_LIST(CASE)
#undef CASE
    default: return "?";
    }
}

const char *squish_status_text(squish_status code) {
    switch (code) {
#define CASE(name, text) case SQUISH_##name: return text;
        SQUISH_STATUS_LIST(CASE)
#undef CASE
    default: return "unknown status";
    }
}

const char *squish_version(void) { return SQUISH_VERSION; }

#if defined(__x86_64__)
#define SQ_ARCH "x86_64"
#elif defined(__aarch64__)
#define SQ_ARCH "aarch64"
#else
#define SQ_ARCH "generic"
#endif

const char *squish_build_info(void) { return SQUISH_VERSION " (" SQ_COMMIT ") " SQ_ARCH; }

void squish_text_free(squish_text *t) {
    if (!t || !t->data) return;
    sq_alloc_free(&t->alloc, t->data, t->bytes + 1);
    *t = (squish_text){0};
}

void squish_tokens_free(squish_tokens *t) {
    if (!t || !t->ids) return;
    sq_alloc_free(&t->alloc, t->ids, t->count * sizeof *t->ids);
    *t = (squish_tokens){0};
}

void squish_machine_get(squish_machine *out) {
    memset(out, 0, sizeof *out);
    const uint32_t features = sq_cpu_features();
    sq_kernels k;
    sq_kernels_select(&k, features, SQ_ISA_COUNT);
    sq_os_cpu_name(out->cpu, sizeof out->cpu);
    snprintf(out->arch, sizeof out->arch, "%s", SQ_ARCH);
    snprintf(out->isa, sizeof out->isa, "%s", k.isa);
    sq_cpu_features_text(features, out->features, sizeof out->features);
    out->cores = sq_os_cores();
    out->memory_total = sq_os_memory_total();
    out->memory_available = sq_os_memory_available();
}
