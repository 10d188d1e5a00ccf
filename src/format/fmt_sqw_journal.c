/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_sqw_journal.c - the journal beside an unfinished .sqw: which tensors are safely on the disk.
 *
 *   | head, 64 bytes: the file it belongs to | record, note, padding | record, note, padding | ...
 *
 * It only grows, and each record carries a sum seeded with the head and its own place, so a tail that a crash
 * tore, or that an older journal left behind, ends the reading instead of being believed. A record is written
 * only after the data it speaks of were flushed. One thread. */
#include "format/fmt_sqw_int.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC "SQWJRNL1"
enum { PENDING_MAX = 256 << 20 };

static sq_sqw_journal_head make_head(const sq_sqw_key *key) {
    sq_sqw_journal_head h = {.key = *key};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.sum = XXH3_64bits(&h, offsetof(sq_sqw_journal_head, sum));
    return h;
}

/* Bytes of the record with its note and padding. */
static size_t record_bytes(size_t note_bytes) {
    return sizeof(sq_sqw_journal_record) + sq_align_up(note_bytes, 8);
}

static uint64_t record_sum(sq_sqw_journal_record rec, const void *note, uint64_t seed, uint64_t at) {
    rec.sum = 0;
    uint64_t sum = XXH3_64bits_withSeed(&rec, sizeof rec, seed ^ at);
    return rec.note_bytes ? XXH3_64bits_withSeed(note, rec.note_bytes, sum) : sum;
}

squish_status sq_sqw_journal_init(sq_sqw_journal *j, const char *path, const squish_alloc *a,
                                  squish_error *err) {
    uint64_t bytes;
    *j = (sq_sqw_journal){.file.fd = -1};
    sq_buf_init(&j->pending, a, PENDING_MAX);
    return sq_os_newfile_resume(&j->file, path, &bytes, err);
}

squish_status sq_sqw_journal_clear(sq_sqw_journal *j, squish_error *err) {
    SQ_TRY(sq_os_newfile_resize(&j->file, 0, 0, err));
    return sq_os_newfile_sync(&j->file, err);
}

squish_status sq_sqw_journal_start(sq_sqw_journal *j, const sq_sqw_key *key, squish_error *err) {
    const sq_sqw_journal_head h = make_head(key);
    SQ_TRY(sq_os_newfile_write_at(&j->file, 0, &h, sizeof h, err));
    j->seed = h.sum;
    j->end = sizeof h;
    j->batch = 0;
    return sq_os_newfile_sync(&j->file, err);
}

bool sq_sqw_journal_next(sq_span file, const sq_sqw_key *key, uint64_t *at, sq_sqw_journal_record *rec,
                         const uint8_t **note) {
    const sq_sqw_journal_head h = make_head(key);
    if (file.n < sizeof h || memcmp(file.p, &h, sizeof h) != 0) return false;
    if (*at == 0) *at = sizeof h;
    if (*at > file.n || file.n - *at < sizeof *rec) return false;
    memcpy(rec, file.p + *at, sizeof *rec);
    if (rec->note_bytes > SQ_MAX_NOTE || record_bytes(rec->note_bytes) > file.n - *at) return false;
    *note = file.p + *at + sizeof *rec;
    if (rec->sum != record_sum(*rec, *note, h.sum, *at)) return false;
    *at += record_bytes(rec->note_bytes);
    return true;
}

squish_status sq_sqw_journal_continue(sq_sqw_journal *j, const sq_sqw_key *key, uint64_t end, uint32_t batch,
                                      squish_error *err) {
    j->seed = make_head(key).sum;
    j->end = end;
    j->batch = batch;
    SQ_TRY(sq_os_newfile_resize(&j->file, end, 0, err));
    return sq_os_newfile_sync(&j->file, err);
}

bool sq_sqw_journal_add(sq_sqw_journal *j, sq_sqw_journal_record rec, const void *note) {
    static const uint8_t zero[8];
    size_t before = j->pending.len, padding = sq_align_up(rec.note_bytes, 8) - rec.note_bytes;
    rec.batch = j->batch;
    rec.sum = record_sum(rec, note, j->seed, j->end + before);
    if (!sq_buf_reserve(&j->pending, record_bytes(rec.note_bytes))) return false;
    return sq_buf_append(&j->pending, &rec, sizeof rec) && sq_buf_append(&j->pending, note, rec.note_bytes) &&
           sq_buf_append(&j->pending, zero, padding);
}

squish_status sq_sqw_journal_flush(sq_sqw_journal *j, squish_error *err) {
    if (j->pending.len == 0) return SQUISH_OK;
    SQ_TRY(sq_os_newfile_write_at(&j->file, j->end, j->pending.data, j->pending.len, err));
    SQ_TRY(sq_os_newfile_sync(&j->file, err));
    j->end += j->pending.len;
    j->pending.len = 0;
    j->batch++;
    return SQUISH_OK;
}

void sq_sqw_journal_deinit(sq_sqw_journal *j, bool remove) {
    if (remove) {
        sq_os_newfile_abandon(&j->file);
    } else {
        sq_os_newfile_close(&j->file);
    }
    sq_buf_deinit(&j->pending);
}
