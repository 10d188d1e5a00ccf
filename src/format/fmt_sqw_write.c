/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_sqw_write.c - making a .sqw file: declare everything, fix all offsets, fill in any order, seal.
 *
 *   collecting --layout--> filling --seal--> sealed --publish--> published
 *
 * The file grows under its partial name with a journal (fmt_sqw_journal.c) beside it. Order is everything:
 * data are flushed before the journal speaks of them; an old journal is emptied before an old partial file
 * is; the superblock is written last, so a file cut short at any point begins with zeros and is refused.
 *
 * While filling, several threads may put bytes at once: each put is one positioned write and one atomic
 * count. All else belongs to one thread. Sums are taken from the file as it reads back, not from what the
 * caller handed over, and the sealed file is opened by the reader's own code and compared once more before it
 * can get its name. */
#include "format/fmt_sqw_int.h"

#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

enum { OWN_SECTIONS = 5 }; /* TENS, UNIT, NAME, SUMS, DATA */

/* When the data of finished tensors are flushed: what a crash can cost. */
static const uint64_t batch_bytes = 256u << 20, batch_ns = 10u * 1000000000ull;
static const uint64_t disk_spare = 64u << 20; /* left to others when the file has all its blocks */

typedef enum { COLLECTING, FILLING, SEALED, PUBLISHED } phase;

/* What is known of a finished tensor. */
typedef struct {
    bool is;
    uint16_t note_bytes;
    uint64_t sum;
    const void *note; /* in the arena */
} done;

/* A section and where its bytes come from. */
typedef struct {
    sq_sqw_section rec;
    const void *p;
    uint64_t bytes_max; /* room in the file; a late section may stay below it */
    bool late;
} part;

struct sq_sqw_writer {
    squish_alloc alloc;
    sq_arena arena; /* paths, notes and copies of sections */
    const char *path, *journal_path;
    phase phase;
    part parts[SQ_MAX_SECTIONS];
    uint32_t n_parts;
    sq_sqw_tensor *tensors;
    sq_sqw_unit *units;
    uint32_t n_tensors, n_units, tensors_cap, units_cap;
    _Atomic uint64_t *put; /* bytes put into each tensor */
    sq_buf names;
    uint64_t *sums;
    uint64_t n_sums;
    sq_newfile file;
    sq_map map; /* the same file, to read back from */
    sq_sqw_journal journal;
    done *done;
    uint64_t batch_bytes, batch_began_ns; /* finished but not flushed */
    sq_sqw_key key;
    uint64_t table_sum; /* once sealed */
};

static squish_status out_of_memory(const sq_sqw_writer *w, squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its tables", w->path);
}

static squish_status in_phase(const sq_sqw_writer *w, phase wanted, const char *what, squish_error *err) {
    static const char *const names[] = {"before", "while filling after", "when sealed after",
                                        "when published after"};
    if (w->phase == wanted) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "'%s': %s is called %s the layout", w->path, what, names[w->phase]);
}

squish_status sq_sqw_writer_new(sq_sqw_writer **out, const char *partial, const char *journal,
                                const squish_alloc *a, squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_sqw_writer *w = sq_alloc_zero(&alloc, sizeof *w);
    if (!w) return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory", partial);
    w->alloc = alloc;
    w->file.fd = w->journal.file.fd = -1;
    sq_arena_init(&w->arena, &alloc, 65536, 0);
    sq_buf_init(&w->names, &alloc, (size_t)SQ_MAX_TENSORS * (SQ_MAX_NAME + 1));
    w->path = sq_arena_strndup(&w->arena, partial, strlen(partial));
    w->journal_path = sq_arena_strndup(&w->arena, journal, strlen(journal));
    if (!w->path || !w->journal_path) {
        sq_sqw_writer_free(w, false);
        return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory", partial);
    }
    *out = w;
    return SQUISH_OK;
}

/* Let go of both files; remove: of their names too. */
static void drop_files(sq_sqw_writer *w, bool remove) {
    sq_os_map_close(&w->map);
    sq_sqw_journal_deinit(&w->journal, remove); /* first: a partial file without a journal is never trusted */
    if (remove) {
        sq_os_newfile_abandon(&w->file);
    } else {
        sq_os_newfile_close(&w->file);
    }
}

static squish_status flush_batch(sq_sqw_writer *w, squish_error *err);

void sq_sqw_writer_free(sq_sqw_writer *w, bool keep_partial) {
    if (!w) return;
    /* What is finished but not flushed is saved if it can be; if not, it is made again. */
    if (keep_partial && w->phase == FILLING && w->file.fd >= 0) (void)flush_batch(w, NULL);
    drop_files(w, !keep_partial);
    squish_alloc alloc = w->alloc;
    sq_alloc_free(&alloc, (void *)w->put, w->n_tensors * sizeof *w->put);
    sq_alloc_free(&alloc, w->done, w->n_tensors * sizeof *w->done);
    sq_alloc_free(&alloc, w->tensors, w->tensors_cap * sizeof *w->tensors);
    sq_alloc_free(&alloc, w->units, w->units_cap * sizeof *w->units);
    sq_alloc_free(&alloc, w->sums, w->n_sums * sizeof *w->sums);
    sq_buf_deinit(&w->names);
    sq_arena_deinit(&w->arena);
    sq_alloc_free(&alloc, w, sizeof *w);
}

/* ---- collecting ------------------------------------------------------------------------------ */

/* A new part; the room's own sections and repetitions are refused. */
static squish_status add_part(sq_sqw_writer *w, uint32_t fourcc, part **out, squish_error *err) {
    static const uint32_t own[OWN_SECTIONS] = {SQ_SEC_TENS, SQ_SEC_UNIT, SQ_SEC_NAME, SQ_SEC_SUMS,
                                               SQ_SEC_DATA};
    char name[5];
    sq_sqw_fourcc_text(fourcc, name);
    for (size_t i = 0; i < OWN_SECTIONS; i++) {
        if (own[i] == fourcc)
            return sq_fail(err, SQUISH_INVALID, "section %s is made by the writer itself", name);
    }
    for (uint32_t i = 0; i < w->n_parts; i++) {
        if (w->parts[i].rec.fourcc == fourcc)
            return sq_fail(err, SQUISH_INVALID, "section %s is given twice", name);
    }
    if (w->n_parts == SQ_MAX_SECTIONS - OWN_SECTIONS) {
        return sq_fail(err, SQUISH_INVALID, "section %s: more than %d sections", name, SQ_MAX_SECTIONS);
    }
    *out = &w->parts[w->n_parts++];
    **out = (part){.rec.fourcc = fourcc};
    return SQUISH_OK;
}

static squish_status fill_part(sq_sqw_writer *w, part *p, const void *bytes, size_t n, squish_error *err) {
    void *copy = n ? sq_arena_alloc(&w->arena, n, 8) : NULL;
    if (n && !copy) return out_of_memory(w, err);
    if (n) memcpy(copy, bytes, n);
    p->p = copy;
    p->rec.bytes = n;
    return SQUISH_OK;
}

squish_status sq_sqw_writer_section(sq_sqw_writer *w, uint32_t fourcc, const void *p, size_t n,
                                    squish_error *err) {
    part *made;
    SQ_TRY(in_phase(w, COLLECTING, "section", err));
    SQ_TRY(add_part(w, fourcc, &made, err));
    made->bytes_max = n;
    return fill_part(w, made, p, n, err);
}

squish_status sq_sqw_writer_late(sq_sqw_writer *w, uint32_t fourcc, size_t bytes_max, squish_error *err) {
    part *made;
    SQ_TRY(in_phase(w, COLLECTING, "late", err));
    SQ_TRY(add_part(w, fourcc, &made, err));
    made->bytes_max = bytes_max;
    made->late = true;
    return SQUISH_OK;
}

squish_status sq_sqw_writer_late_put(sq_sqw_writer *w, uint32_t fourcc, const void *p, size_t n,
                                     squish_error *err) {
    SQ_TRY(in_phase(w, FILLING, "late_put", err));
    char name[5];
    for (uint32_t i = 0; i < w->n_parts; i++) {
        part *at = &w->parts[i];
        if (at->rec.fourcc != fourcc || !at->late) continue;
        if (n > at->bytes_max) {
            return sq_fail(err, SQUISH_INVALID, "section %s: %zu bytes, %" PRIu64 " were reserved",
                           sq_sqw_fourcc_text(fourcc, name), n, at->bytes_max);
        }
        return fill_part(w, at, p, n, err);
    }
    return sq_fail(err, SQUISH_INVALID, "section %s was not declared late", sq_sqw_fourcc_text(fourcc, name));
}

/* Room for one more record in a growing array. */
static bool grow(const squish_alloc *a, void **array, uint32_t *cap, uint32_t n, size_t size) {
    if (n < *cap) return true;
    uint32_t more = *cap ? *cap * 2 : 64;
    void *p = sq_alloc_resize(a, *array, *cap * size, more * size);
    if (!p) return false;
    *array = p;
    *cap = more;
    return true;
}

/* The unit tensor t belongs to: the last one if its key is the same, else a new one. */
static squish_status enter_unit(sq_sqw_writer *w, const sq_sqw_tensor *t, sq_unit_kind kind,
                                squish_error *err) {
    sq_sqw_unit *last = w->n_units ? &w->units[w->n_units - 1] : NULL;
    if (last && last->kind == kind && last->layer == t->layer && last->expert == t->expert) {
        last->n_tensors++;
        return SQUISH_OK;
    }
    if (w->n_units == SQ_SQW_UNITS_MAX) {
        return sq_fail(err, SQUISH_INVALID, "'%s': more than %d units", w->path, SQ_SQW_UNITS_MAX);
    }
    void *units = w->units;
    if (!grow(&w->alloc, &units, &w->units_cap, w->n_units, sizeof *w->units)) return out_of_memory(w, err);
    w->units = units;
    w->units[w->n_units++] = (sq_sqw_unit){.first_tensor = w->n_tensors,
                                           .n_tensors = 1,
                                           .kind = (uint16_t)kind,
                                           .layer = t->layer,
                                           .expert = t->expert};
    return SQUISH_OK;
}

squish_status sq_sqw_writer_tensor(sq_sqw_writer *w, const char *name, const sq_sqw_tensor *t,
                                   sq_unit_kind unit_kind, size_t *index, squish_error *err) {
    SQ_TRY(in_phase(w, COLLECTING, "tensor", err));
    size_t name_len = strlen(name);
    if (name_len < 1 || name_len > SQ_MAX_NAME || t->n_dims < 1 || t->n_dims > SQ_SQW_DIMS ||
        t->data_bytes == 0 || t->rank > SQ_MAX_RANK || w->n_tensors == SQ_MAX_TENSORS) {
        return sq_fail(err, SQUISH_INVALID,
                       "tensor '%s': %zu bytes of name, %u dimensions, rank %u, %" PRIu64 " bytes", name,
                       name_len, t->n_dims, t->rank, t->data_bytes);
    }
    sq_sqw_tensor rec = *t;
    for (int d = 0; d < SQ_SQW_DIMS; d++) {
        if (d >= t->n_dims) rec.dims[d] = 0;
        if (d < t->n_dims && t->dims[d] == 0) {
            return sq_fail(err, SQUISH_INVALID, "tensor '%s': dims[%d] is 0", name, d);
        }
    }
    void *tensors = w->tensors;
    if (!grow(&w->alloc, &tensors, &w->tensors_cap, w->n_tensors, sizeof rec)) return out_of_memory(w, err);
    w->tensors = tensors;
    rec.name_off = (uint32_t)w->names.len;
    rec.name_len = (uint16_t)name_len;
    if (!sq_buf_append(&w->names, name, name_len + 1)) return out_of_memory(w, err);
    SQ_TRY(enter_unit(w, &rec, unit_kind, err));
    rec.unit = (uint16_t)(w->n_units - 1);
    memset(rec.reserved, 0, sizeof rec.reserved);
    *index = w->n_tensors;
    w->tensors[w->n_tensors++] = rec;
    return SQUISH_OK;
}

/* ---- layout ---------------------------------------------------------------------------------- */

/* *at rounded up to a multiple of align; false on overflow. */
static bool round_up(uint64_t *at, uint64_t align) {
    uint64_t sum;
    if (!sq_add_ok(*at, align - 1, &sum)) return false;
    *at = sum / align * align;
    return true;
}

/* Lay part i at *at, aligned. */
static bool place_part(part *p, uint64_t *at, uint64_t align) {
    if (!round_up(at, align)) return false;
    p->rec.offset = *at;
    return sq_add_ok(*at, p->bytes_max, at);
}

/* Offsets of all units and tensors from *at on. */
static bool place_units(sq_sqw_writer *w, uint64_t *at) {
    for (uint32_t i = 0; i < w->n_units; i++) {
        sq_sqw_unit *u = &w->units[i];
        if (!round_up(at, SQ_SQW_UNIT_ALIGN)) return false;
        u->offset = *at;
        for (uint32_t j = u->first_tensor; j < u->first_tensor + u->n_tensors; j++) {
            sq_sqw_tensor *t = &w->tensors[j];
            if (!round_up(at, sq_sqw_tensor_align(t->data_bytes))) return false;
            t->data_off = *at;
            if (!sq_add_ok(*at, t->data_bytes, at)) return false;
        }
        u->bytes = *at - u->offset;
    }
    return round_up(at, SQ_SQW_UNIT_ALIGN);
}

/* The five sections of our own behind the caller's; SUMS depends on the size of DATA, so DATA is measured
 * first. */
static squish_status place_all(sq_sqw_writer *w, uint64_t *file_bytes, squish_error *err) {
    part *own = &w->parts[w->n_parts];
    own[0] =
        (part){.rec.fourcc = SQ_SEC_TENS, .p = w->tensors, .bytes_max = w->n_tensors * sizeof *w->tensors};
    own[1] = (part){.rec.fourcc = SQ_SEC_UNIT, .p = w->units, .bytes_max = w->n_units * sizeof *w->units};
    own[2] = (part){.rec.fourcc = SQ_SEC_NAME, .p = w->names.data, .bytes_max = w->names.len};
    uint64_t data_bytes = 0;
    bool ok = place_units(w, &data_bytes);
    own[3] = (part){.rec.fourcc = SQ_SEC_SUMS, .bytes_max = sq_sqw_n_extents(data_bytes) * sizeof *w->sums};
    own[4] = (part){.rec.fourcc = SQ_SEC_DATA, .bytes_max = data_bytes};
    uint32_t n = w->n_parts + OWN_SECTIONS;
    uint64_t at = SQ_SQW_PAGE + n * sizeof(sq_sqw_section);
    for (uint32_t i = 0; i < n && ok; i++) {
        ok = place_part(&w->parts[i], &at, i == n - 1 ? SQ_SQW_UNIT_ALIGN : SQ_SQW_SECTION_ALIGN);
    }
    uint64_t data_off = own[4].rec.offset;
    ok = ok && place_units(w, &data_off); /* the same sizes again, now from where DATA begins */
    if (!ok || at > INT64_MAX)
        return sq_fail(err, SQUISH_INVALID, "'%s': more bytes than a file can have", w->path);
    for (int i = 0; i < OWN_SECTIONS; i++) own[i].rec.bytes = own[i].bytes_max;
    w->n_parts = n;
    *file_bytes = at;
    return SQUISH_OK;
}

static bool name_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_sqw_writer *w = ctx;
    return strcmp(w->names.data + w->tensors[a].name_off, w->names.data + w->tensors[b].name_off) < 0;
}

static squish_status check_names_differ(sq_sqw_writer *w, squish_error *err) {
    size_t bytes = w->n_tensors * sizeof(uint32_t);
    uint32_t *order = sq_alloc_new(&w->alloc, bytes);
    if (bytes && !order) return out_of_memory(w, err);
    squish_status st = SQUISH_OK;
    for (uint32_t i = 0; i < w->n_tensors; i++) order[i] = i;
    sq_fmt_sort(order, w->n_tensors, name_less, w);
    for (uint32_t i = 1; i < w->n_tensors && st == SQUISH_OK; i++) {
        const char *name = w->names.data + w->tensors[order[i]].name_off;
        if (!name_less(w, order[i - 1], order[i])) {
            st = sq_fail(err, SQUISH_INVALID, "tensor '%s' is declared twice", name);
        }
    }
    sq_alloc_free(&w->alloc, order, bytes);
    return st;
}

/* Everything that decides what the bytes of DATA mean and where they lie: declarations, offsets, and the
 * sections given so far, among them the recipe. Sums and late sections are not known yet and stay out. */
static squish_status make_key(sq_sqw_writer *w, const uint8_t source_id[16], uint64_t file_bytes,
                              squish_error *err) {
    XXH3_state_t *h = XXH3_createState();
    if (!h) return out_of_memory(w, err);
    XXH3_128bits_reset(h);
    for (uint32_t i = 0; i < w->n_parts; i++) {
        const part *p = &w->parts[i];
        const uint64_t facts[] = {p->rec.fourcc, p->rec.offset, p->bytes_max, p->late};
        XXH3_128bits_update(h, facts, sizeof facts);
        if (p->p && p->p != w->tensors) XXH3_128bits_update(h, p->p, (size_t)p->rec.bytes);
    }
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        sq_sqw_tensor t = w->tensors[i];
        t.sum = t.source_sum = 0;
        XXH3_128bits_update(h, &t, sizeof t);
    }
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(h));
    XXH3_freeState(h);
    w->key.file_bytes = file_bytes;
    memcpy(w->key.layout, digest.digest, sizeof w->key.layout);
    memcpy(w->key.source_id, source_id, sizeof w->key.source_id);
    return SQUISH_OK;
}

static squish_status make_tables(sq_sqw_writer *w, squish_error *err) {
    if (!w->n_tensors || w->done) return SQUISH_OK;
    if (!w->put) w->put = sq_alloc_zero(&w->alloc, w->n_tensors * sizeof *w->put);
    w->done = sq_alloc_zero(&w->alloc, w->n_tensors * sizeof *w->done);
    return w->put && w->done ? SQUISH_OK : out_of_memory(w, err);
}

static uint64_t data_sum(const sq_sqw_writer *w, const sq_sqw_tensor *t) {
    return XXH3_64bits(w->map.data + t->data_off, (size_t)t->data_bytes);
}

/* Tensor rec->index is finished, and this is said of it. */
static squish_status mark_done(sq_sqw_writer *w, const sq_sqw_journal_record *rec, const void *note,
                               squish_error *err) {
    done *d = &w->done[rec->index];
    void *copy = rec->note_bytes ? sq_arena_alloc(&w->arena, rec->note_bytes, 8) : NULL;
    if (rec->note_bytes && !copy) return out_of_memory(w, err);
    if (copy) memcpy(copy, note, rec->note_bytes);
    *d = (done){.is = true, .note_bytes = (uint16_t)rec->note_bytes, .sum = rec->data_sum, .note = copy};
    w->tensors[rec->index].source_sum = rec->source_sum;
    return SQUISH_OK;
}

/* Where the good records end and which batch comes last among them. A tensor met twice ends the reading too.
 */
static uint64_t survey(sq_sqw_writer *w, sq_span journal, uint32_t *last_batch) {
    sq_sqw_journal_record rec;
    const uint8_t *note;
    uint64_t end = 0;
    *last_batch = 0;
    for (uint64_t at = 0; sq_sqw_journal_next(journal, &w->key, &at, &rec, &note); end = at) {
        if (rec.index >= w->n_tensors || rec.batch < *last_batch || w->put[rec.index]) break;
        w->put[rec.index] = w->tensors[rec.index].data_bytes;
        *last_batch = rec.batch;
    }
    return end;
}

/* Take over what the journal says up to `end`; the last batch is compared with the data, and cut from the
 * first tensor that differs, for a disk may lie about a flush just before the power goes. */
static squish_status take_over(sq_sqw_writer *w, sq_span journal, uint64_t end, uint32_t last_batch,
                               uint64_t *kept, squish_error *err) {
    sq_sqw_journal_record rec;
    const uint8_t *note;
    uint64_t good = sizeof(sq_sqw_journal_head);
    for (uint64_t at = 0; good < end && sq_sqw_journal_next(journal, &w->key, &at, &rec, &note); good = at) {
        const sq_sqw_tensor *t = &w->tensors[rec.index];
        if (rec.batch == last_batch && data_sum(w, t) != rec.data_sum) break;
        SQ_TRY(mark_done(w, &rec, note, err));
        *kept += t->data_bytes;
    }
    for (uint32_t i = 0; i < w->n_tensors; i++) w->put[i] = w->done[i].is ? w->tensors[i].data_bytes : 0;
    return sq_sqw_journal_continue(&w->journal, &w->key, good, last_batch + 1, err);
}

/* Is there a journal of this very file? Then go on with it: *kept bytes are there. */
static squish_status continue_file(sq_sqw_writer *w, bool *resumed, uint64_t *kept, squish_error *err) {
    sq_map journal;
    SQ_TRY(sq_os_map_open(&journal, w->journal_path, err));
    const sq_span all = {journal.data, journal.bytes};
    uint32_t last_batch;
    uint64_t end = survey(w, all, &last_batch);
    squish_status st = SQUISH_OK;
    *resumed = end > 0;
    if (*resumed) {
        SQ_GUARD(sq_os_newfile_resize(&w->file, w->key.file_bytes, disk_spare, err));
        SQ_GUARD(sq_os_map_open(&w->map, w->path, err));
        SQ_GUARD(take_over(w, all, end, last_batch, kept, err));
        /* It may have been sealed already; until it is again, nobody shall take it for whole. */
        static const uint8_t zero[SQ_SQW_PAGE];
        SQ_GUARD(sq_os_newfile_write_at(&w->file, 0, zero, sizeof zero, err));
    }
fail:
    sq_os_map_close(&journal);
    return st;
}

/* Both files anew. The journal is emptied before the data it may speak of go, and begins only when the file
 * has its size, which makes all that nobody writes read as 0. */
static squish_status start_file(sq_sqw_writer *w, squish_error *err) {
    for (uint32_t i = 0; i < w->n_tensors; i++) w->put[i] = 0;
    SQ_TRY(sq_sqw_journal_clear(&w->journal, err));
    SQ_TRY(sq_os_newfile_resize(&w->file, 0, 0, err));
    SQ_TRY(sq_os_newfile_resize(&w->file, w->key.file_bytes, disk_spare, err));
    SQ_TRY(sq_os_newfile_sync(&w->file, err));
    SQ_TRY(sq_sqw_journal_start(&w->journal, &w->key, err));
    SQ_TRY(sq_os_sync_parent(w->path, err));
    SQ_TRY(sq_os_sync_parent(w->journal_path, err));
    return sq_os_map_open(&w->map, w->path, err);
}

squish_status sq_sqw_writer_layout(sq_sqw_writer *w, const uint8_t source_id[16], bool resume,
                                   uint64_t *file_bytes, uint64_t *kept, squish_error *err) {
    uint64_t there;
    bool resumed = false;
    *kept = 0;
    SQ_TRY(in_phase(w, COLLECTING, "layout", err));
    SQ_TRY(check_names_differ(w, err));
    SQ_TRY(make_tables(w, err));
    SQ_TRY(place_all(w, file_bytes, err));
    w->phase = FILLING;
    SQ_TRY(make_key(w, source_id, *file_bytes, err));
    SQ_TRY(sq_os_newfile_resume(&w->file, w->path, &there, err)); /* its lock keeps a second writer off */
    squish_status st = sq_sqw_journal_init(&w->journal, w->journal_path, &w->alloc, err);
    if (st == SQUISH_OK && resume && there == *file_bytes) st = continue_file(w, &resumed, kept, err);
    if (st == SQUISH_OK && !resumed) st = start_file(w, err);
    if (st != SQUISH_OK) drop_files(w, !resumed); /* what could have been continued still can be */
    w->batch_began_ns = sq_os_now_ns();
    return st;
}

/* ---- filling --------------------------------------------------------------------------------- */

squish_status sq_sqw_writer_put(sq_sqw_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                                squish_error *err) {
    SQ_TRY(in_phase(w, FILLING, "put", err));
    if (index >= w->n_tensors) {
        return sq_fail(err, SQUISH_INVALID, "'%s': put into tensor %zu of %u", w->path, index, w->n_tensors);
    }
    const sq_sqw_tensor *t = &w->tensors[index];
    if (at > t->data_bytes || n > t->data_bytes - at) {
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': put of %zu bytes at %" PRIu64 " of %" PRIu64,
                       w->names.data + t->name_off, n, at, t->data_bytes);
    }
    if (w->done[index].is) {
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': put after it was done",
                       w->names.data + t->name_off);
    }
    SQ_TRY(sq_os_newfile_write_at(&w->file, t->data_off + at, p, n, err));
    atomic_fetch_add_explicit(&w->put[index], n, memory_order_relaxed);
    return SQUISH_OK;
}

squish_status sq_sqw_writer_source_sum(sq_sqw_writer *w, size_t index, uint64_t sum, squish_error *err) {
    SQ_TRY(in_phase(w, FILLING, "source_sum", err));
    if (index >= w->n_tensors) {
        return sq_fail(err, SQUISH_INVALID, "'%s': source sum of tensor %zu of %u", w->path, index,
                       w->n_tensors);
    }
    w->tensors[index].source_sum = sum;
    return SQUISH_OK;
}

bool sq_sqw_writer_has(const sq_sqw_writer *w, size_t index) {
    return w->done && index < w->n_tensors && w->done[index].is;
}

const void *sq_sqw_writer_note(const sq_sqw_writer *w, size_t index, size_t *n) {
    bool has = sq_sqw_writer_has(w, index);
    *n = has ? w->done[index].note_bytes : 0;
    return has ? w->done[index].note : NULL;
}

/* Data down to the disk, then the journal that speaks of them. */
static squish_status flush_batch(sq_sqw_writer *w, squish_error *err) {
    if (w->journal.pending.len) {
        SQ_TRY(sq_os_newfile_sync(&w->file, err));
        SQ_TRY(sq_sqw_journal_flush(&w->journal, err));
    }
    w->batch_bytes = 0;
    w->batch_began_ns = sq_os_now_ns();
    return SQUISH_OK;
}

squish_status sq_sqw_writer_tensor_done(sq_sqw_writer *w, size_t index, const void *note, size_t n,
                                        squish_error *err) {
    SQ_TRY(in_phase(w, FILLING, "tensor_done", err));
    if (index >= w->n_tensors || n > SQ_MAX_NOTE || w->file.fd < 0) {
        return sq_fail(err, SQUISH_INVALID, "'%s': tensor %zu of %u done with a note of %zu bytes", w->path,
                       index, w->n_tensors, n);
    }
    const sq_sqw_tensor *t = &w->tensors[index];
    const char *name = w->names.data + t->name_off;
    uint64_t put = atomic_load_explicit(&w->put[index], memory_order_relaxed);
    if (put != t->data_bytes || w->done[index].is) {
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': done %s, %" PRIu64 " of %" PRIu64 " bytes were put",
                       name, w->done[index].is ? "twice" : "too early", put, t->data_bytes);
    }
    const sq_sqw_journal_record rec = {.index = (uint32_t)index,
                                       .note_bytes = (uint32_t)n,
                                       .data_sum = data_sum(w, t),
                                       .source_sum = t->source_sum};
    SQ_TRY(mark_done(w, &rec, note, err));
    if (!sq_sqw_journal_add(&w->journal, rec, note)) return out_of_memory(w, err);
    w->batch_bytes += t->data_bytes;
    bool due = w->batch_bytes >= batch_bytes || sq_os_now_ns() - w->batch_began_ns >= batch_ns;
    return due ? flush_batch(w, err) : SQUISH_OK;
}

/* ---- seal and publish ------------------------------------------------------------------------ */

static squish_status check_all_put(sq_sqw_writer *w, squish_error *err) {
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        uint64_t put = atomic_load_explicit(&w->put[i], memory_order_relaxed);
        const sq_sqw_tensor *t = &w->tensors[i];
        if (put != t->data_bytes) {
            return sq_fail(err, SQUISH_INVALID, "tensor '%s': %" PRIu64 " bytes were put, it has %" PRIu64,
                           w->names.data + t->name_off, put, t->data_bytes);
        }
    }
    return SQUISH_OK;
}

/* Sums of extents, and of the tensors nobody called done. */
static squish_status take_sums(sq_sqw_writer *w, squish_error *err) {
    const part *data = &w->parts[w->n_parts - 1];
    part *sums = &w->parts[w->n_parts - 2];
    if (!w->sums && data->rec.bytes) {
        w->n_sums = sq_sqw_n_extents(data->rec.bytes);
        w->sums = sq_alloc_new(&w->alloc, w->n_sums * sizeof *w->sums);
        if (!w->sums) {
            w->n_sums = 0;
            return out_of_memory(w, err);
        }
    }
    sums->p = w->sums;
    const uint8_t *p = w->map.data + data->rec.offset;
    for (uint64_t i = 0, left = data->rec.bytes; i < w->n_sums; i++) {
        size_t n = left < SQ_SQW_EXTENT ? (size_t)left : SQ_SQW_EXTENT;
        w->sums[i] = XXH3_64bits(p + i * SQ_SQW_EXTENT, n);
        left -= n;
    }
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        sq_sqw_tensor *t = &w->tensors[i];
        t->sum = w->done[i].is ? w->done[i].sum : data_sum(w, t);
    }
    return SQUISH_OK;
}

/* All sections but DATA, then the table of sections. Returns the table's sum. */
static squish_status write_tables(sq_sqw_writer *w, uint64_t *table_sum, squish_error *err) {
    sq_sqw_section table[SQ_MAX_SECTIONS];
    for (uint32_t i = 0; i < w->n_parts; i++) {
        part *p = &w->parts[i];
        if (p->rec.fourcc != SQ_SEC_DATA) {
            size_t n = (size_t)p->rec.bytes;
            p->rec.sum = XXH3_64bits(n ? p->p : "", n);
            if (n) SQ_TRY(sq_os_newfile_write_at(&w->file, p->rec.offset, p->p, n, err));
        }
        table[i] = p->rec;
    }
    size_t bytes = w->n_parts * sizeof *table;
    *table_sum = XXH3_64bits(table, bytes);
    return sq_os_newfile_write_at(&w->file, SQ_SQW_PAGE, table, bytes, err);
}

static squish_status write_super(sq_sqw_writer *w, uint64_t table_sum, sq_quality_flag quality,
                                 uint64_t *super_sum, squish_error *err) {
    sq_sqw_super sb = {.endian = SQ_SQW_ENDIAN,
                       .major = SQ_SQW_MAJOR,
                       .minor = SQ_SQW_MINOR,
                       .file_bytes = w->key.file_bytes,
                       .n_sections = w->n_parts,
                       .section_table = SQ_SQW_PAGE,
                       .n_tensors = w->n_tensors,
                       .n_units = w->n_units,
                       .quality = quality,
                       .table_sum = table_sum,
                       .builder = "squish " SQUISH_VERSION};
    memcpy(sb.magic, SQ_SQW_MAGIC, sizeof sb.magic);
    memcpy(sb.source_id, w->key.source_id, sizeof sb.source_id);
    sb.sum = XXH3_64bits(&sb, offsetof(sq_sqw_super, sum));
    *super_sum = sb.sum;
    return sq_os_newfile_write_at(&w->file, 0, &sb, sizeof sb, err);
}

/* The reader must accept the file before anybody else sees it. */
static squish_status check_readable(sq_sqw_writer *w, squish_error *err) {
    sq_sqw *s;
    SQ_TRY(sq_sqw_open(&s, w->path, &w->alloc, err));
    sq_sqw_close(s);
    return SQUISH_OK;
}

/* Each tensor still reads as it did when it was done. If one does not, the journal cannot be trusted with it.
 */
static squish_status compare_data(sq_sqw_writer *w, squish_error *err) {
    for (uint32_t i = 0; i < w->n_tensors; i++) {
        const sq_sqw_tensor *t = &w->tensors[i];
        uint64_t sum = data_sum(w, t);
        if (sum == t->sum) continue;
        (void)sq_sqw_journal_clear(&w->journal, NULL);
        return sq_fail(err, SQUISH_CORRUPT,
                       "tensor '%s': reads back with checksum %016" PRIx64 ", %016" PRIx64 " was written",
                       w->names.data + t->name_off, sum, t->sum);
    }
    return SQUISH_OK;
}

squish_status sq_sqw_writer_seal(sq_sqw_writer *w, squish_error *err) {
    SQ_TRY(in_phase(w, FILLING, "seal", err));
    SQ_TRY(check_all_put(w, err));
    SQ_TRY(flush_batch(w, err));
    SQ_TRY(take_sums(w, err));
    uint64_t super_sum;
    SQ_TRY(write_tables(w, &w->table_sum, err));
    SQ_TRY(sq_os_newfile_sync(&w->file, err)); /* all it speaks of comes before the superblock */
    SQ_TRY(write_super(w, w->table_sum, SQ_QUALITY_UNVERIFIED, &super_sum, err));
    SQ_TRY(sq_os_newfile_sync(&w->file, err));
    SQ_TRY(check_readable(w, err));
    SQ_TRY(compare_data(w, err));
    w->phase = SEALED;
    return SQUISH_OK;
}

squish_status sq_sqw_writer_publish(sq_sqw_writer *w, const char *path, sq_quality_flag quality,
                                    uint64_t *super_sum, squish_error *err) {
    SQ_TRY(in_phase(w, SEALED, "publish", err));
    if ((unsigned)quality > SQ_QUALITY_COLLAPSED) {
        return sq_fail(err, SQUISH_INVALID, "'%s': quality flag %d", path, (int)quality);
    }
    SQ_TRY(write_super(w, w->table_sum, quality, super_sum, err));
    SQ_TRY(check_readable(w, err));
    SQ_TRY(sq_os_newfile_publish_as(&w->file, path, err));
    w->phase = PUBLISHED;
    sq_sqw_journal_deinit(&w->journal, true);
    return SQUISH_OK;
}
