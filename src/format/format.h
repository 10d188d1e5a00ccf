/* SPDX-License-Identifier: Apache-2.0
 *
 * format.h - containers: safetensors, GGUF and our own .sqw. Readers never trust a byte.
 *
 * Untrusted bytes are read only through the cursor below: it knows its end, checks every addition and stops
 * at the first fault. Every size that comes from outside has a ceiling, named in limits.h. A reader that
 * returns OK has checked all offsets, so what it hands out may be used without further checks. */
#ifndef SQ_FORMAT_H
#define SQ_FORMAT_H

#include "base/base.h"

/* ---- bounded cursor -------------------------------------------------------------------------- */

/* Reads little-endian values from p[0..n). After the first fault every read returns 0 and `fault` stays at
 * the offset where it happened (SIZE_MAX: none). */
typedef struct {
    const uint8_t *p;
    size_t n, at, fault;
} sq_cur;
sq_cur sq_cur_make(sq_span s);
bool sq_cur_ok(const sq_cur *c);
size_t sq_cur_left(const sq_cur *c); /* 0 after a fault */
uint8_t sq_cur_u8(sq_cur *c);
uint16_t sq_cur_u16(sq_cur *c);
uint32_t sq_cur_u32(sq_cur *c);
uint64_t sq_cur_u64(sq_cur *c);
float sq_cur_f32(sq_cur *c);
double sq_cur_f64(sq_cur *c);
sq_span sq_cur_bytes(sq_cur *c, uint64_t n);
void sq_cur_skip(sq_cur *c, uint64_t n);

/* ---- element types of foreign tensors -------------------------------------------------------- */

typedef enum { /* plain dtypes; block types of GGUF are above SQ_DT_GGUF + their id */
    SQ_DT_F32, SQ_DT_F16, SQ_DT_BF16, SQ_DT_F64,
    SQ_DT_I8, SQ_DT_U8, SQ_DT_BOOL, SQ_DT_I16, SQ_DT_U16, SQ_DT_I32, SQ_DT_U32, SQ_DT_I64, SQ_DT_U64,
    SQ_DT_F8_E4M3, SQ_DT_F8_E5M2,
    SQ_DT_GGUF = 64 /* SQ_DT_GGUF + ggml type id for quantised blocks */
} sq_dtype;
const char *sq_dtype_name(sq_dtype t);
size_t sq_dtype_bytes(sq_dtype t); /* 0 for block types */

/* One tensor of a foreign file. dims outermost first: [rows, cols] for a matrix. data may be unaligned. */
typedef struct {
    const char *name;
    sq_dtype dtype;
    int32_t n_dims;
    uint64_t dims[8];
    const uint8_t *data;
    uint64_t bytes;
    const char *file; /* the shard it lies in, for messages */
} sq_ftensor;

/* ---- safetensors ----------------------------------------------------------------------------- */

/* All tensors of a checkpoint directory (one file, an index with shards, or all *.safetensors without an
 * index) or of one file. Shards stay mapped until close. warn (may be NULL) hears of tensors the index does
 * not know. */
typedef struct sq_safetensors sq_safetensors;
/* NOT_FOUND: no safetensors there (the text names .bin/.pt files if they are all there is, and LFS pointers).
 * UNSUPPORTED: a dtype that is not read.
 * CORRUPT: any rule of the format broken; file, tensor, field, found and wanted are named. */
squish_status sq_st_open(sq_safetensors **out, const char *path, const squish_alloc *a, squish_warn_fn warn,
                         void *warn_user, squish_error *err);
void sq_st_close(sq_safetensors *s);
size_t sq_st_count(const sq_safetensors *s);
const sq_ftensor *sq_st_at(const sq_safetensors *s, size_t i);           /* sorted by name */
const sq_ftensor *sq_st_find(const sq_safetensors *s, const char *name); /* NULL if absent */
uint64_t sq_st_bytes(const sq_safetensors *s);                           /* all shards */
/* One file in memory: its tensors, checked, in data order, in the arena. Data are views into `file`. */
squish_status sq_st_parse(sq_span file, const char *file_name, sq_arena *out_arena, sq_ftensor **tensors,
                          size_t *n, squish_error *err);
/* Write a small safetensors file (results of `squish logits`). Data are taken as they lie. */
squish_status sq_st_write(const char *path, const sq_ftensor *tensors, size_t n, squish_error *err);

/* Streaming writer: declared first, then data in any order and from several threads.
 *     new -> meta, tensor ... -> layout -> put ... -> finish
 * The header is padded with spaces so that data begin on a multiple of 4096. Tensors lie in the order they
 * were declared (declare those whose size is no multiple of 64 last). finish publishes: fsync, rename; before
 * it nothing appears. */
typedef struct sq_st_writer sq_st_writer;
squish_status sq_st_writer_new(sq_st_writer **out, const char *path, const squish_alloc *a,
                               squish_error *err);
squish_status sq_st_writer_meta(sq_st_writer *w, const char *key, const char *value, squish_error *err);
/* t->data is not read; bytes must be what dtype and dims say. *index is for put. */
squish_status sq_st_writer_tensor(sq_st_writer *w, const sq_ftensor *t, size_t *index, squish_error *err);
squish_status sq_st_writer_layout(sq_st_writer *w, uint64_t *file_bytes, squish_error *err);
squish_status sq_st_writer_put(sq_st_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                               squish_error *err);
squish_status sq_st_writer_finish(sq_st_writer *w,
                                  squish_error *err); /* every byte of every tensor was put */
void sq_st_writer_free(sq_st_writer *w); /* abandons an unfinished file */

/* ---- npy 1.0, 2.0 ---------------------------------------------------------------------------- */

/* One array: C order, little-endian, '<f2' '<f4' '<i8' '<i4' '|i1' '|u1' (F16 F32 I64 I32 I8 U8). Object
 * arrays are refused: they are pickles. t->data is a view into file; t->name is `name`. */
squish_status sq_npy_parse(sq_span file, const char *name, sq_ftensor *t, squish_error *err);
/* The header bytes for dtype and dims into out, a multiple of 64 bytes; INVALID if n is too small (256 do) */
squish_status sq_npy_header(const sq_ftensor *t, char *out, size_t n, size_t *used, squish_error *err);
/* Write one array whole: temporary name, fsync, rename. */
squish_status sq_npy_write(const char *path, const sq_ftensor *t, squish_error *err);
/* Tensor names as file names: every byte outside [A-Za-z0-9.-] becomes %XX; reversible. false: does not fit
 * n, or (decode) not such a name. */
bool sq_npy_name_encode(const char *name, char *out, size_t n);
bool sq_npy_name_decode(const char *file, char *out, size_t n);

/* ---- GGUF v2/v3 ------------------------------------------------------------------------------ */

typedef struct sq_gguf sq_gguf;
typedef enum {
    SQ_GGUF_U8, SQ_GGUF_I8, SQ_GGUF_U16, SQ_GGUF_I16, SQ_GGUF_U32, SQ_GGUF_I32, SQ_GGUF_F32, SQ_GGUF_BOOL,
    SQ_GGUF_STRING, SQ_GGUF_ARRAY, SQ_GGUF_U64, SQ_GGUF_I64, SQ_GGUF_F64
} sq_gguf_type;
typedef struct {
    sq_span key;
    sq_gguf_type type, item_type; /* item_type for arrays */
    uint64_t count;               /* items of an array, else 1 */
    sq_span value;                /* raw bytes of value or items; string arrays: see sq_gguf_strings */
} sq_gguf_kv;
/* A file in several parts (NAME-00001-of-00003.gguf) is opened by its first part; the others lie beside it.
 * Keys are those of the first, tensors those of all, checked against split.tensors.count. */
squish_status sq_gguf_open(sq_gguf **out, const char *path, const squish_alloc *a, squish_error *err);
squish_status sq_gguf_parse(sq_gguf **out, sq_span file, const char *file_name, const squish_alloc *a,
                            squish_error *err); /* the span must outlive it */
void sq_gguf_close(sq_gguf *g);
size_t sq_gguf_n_kv(const sq_gguf *g);
const sq_gguf_kv *sq_gguf_kv_at(const sq_gguf *g, size_t i);
const sq_gguf_kv *sq_gguf_get(const sq_gguf *g, const char *key); /* NULL if absent */
/* Typed getters: false if absent or of another kind (any integer type serves i64 if it fits). */
bool sq_gguf_i64(const sq_gguf *g, const char *key, int64_t *out);
bool sq_gguf_f64(const sq_gguf *g, const char *key, double *out);
bool sq_gguf_bool(const sq_gguf *g, const char *key, bool *out);
bool sq_gguf_str(const sq_gguf *g, const char *key, sq_span *out);
/* Strings of a string array as views, in an arena. */
squish_status sq_gguf_strings(const sq_gguf *g, const char *key, sq_arena *out_arena, sq_span **out,
                              size_t *n, squish_error *err);
size_t sq_gguf_n_tensors(const sq_gguf *g);
const sq_ftensor *sq_gguf_tensor(const sq_gguf *g, size_t i); /* dims turned outermost first */
const sq_ftensor *sq_gguf_find(const sq_gguf *g, const char *name); /* NULL if absent */
uint64_t sq_gguf_bytes(const sq_gguf *g);                     /* all parts */

/* Writer of GGUF v3, alignment 32; order of calls as for safetensors. Keys appear in the order given. */
typedef struct sq_gguf_writer sq_gguf_writer;
squish_status sq_gguf_writer_new(sq_gguf_writer **out, const char *path, const squish_alloc *a,
                                 squish_error *err);
squish_status sq_gguf_writer_u32(sq_gguf_writer *w, const char *key, uint32_t v, squish_error *err);
squish_status sq_gguf_writer_f32(sq_gguf_writer *w, const char *key, float v, squish_error *err);
squish_status sq_gguf_writer_bool(sq_gguf_writer *w, const char *key, bool v, squish_error *err);
squish_status sq_gguf_writer_str(sq_gguf_writer *w, const char *key, sq_span v, squish_error *err);
squish_status sq_gguf_writer_strings(sq_gguf_writer *w, const char *key, const sq_span *v, size_t n,
                                     squish_error *err);
/* I32, U32 or F32 items. */
squish_status sq_gguf_writer_array(sq_gguf_writer *w, const char *key, sq_gguf_type item, const void *v,
                                   size_t n, squish_error *err);
/* Take a key over from another file as it is; general.alignment and split.* speak of that file and are
 * skipped. */
squish_status sq_gguf_writer_kv(sq_gguf_writer *w, const sq_gguf_kv *kv, squish_error *err);
/* t: dims outermost first; dtype F32, F16, BF16 or SQ_DT_GGUF + id. */
squish_status sq_gguf_writer_tensor(sq_gguf_writer *w, const sq_ftensor *t, size_t *index, squish_error *err);
squish_status sq_gguf_writer_layout(sq_gguf_writer *w, uint64_t *file_bytes, squish_error *err);
squish_status sq_gguf_writer_put(sq_gguf_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                                 squish_error *err);
squish_status sq_gguf_writer_finish(sq_gguf_writer *w, squish_error *err);
void sq_gguf_writer_free(sq_gguf_writer *w);

/* ---- .sqw, our container (docs/format-sqw.md) ------------------------------------------------ */

enum {
    SQ_SQW_MAJOR = 1, SQ_SQW_MINOR = 0,
    SQ_SQW_PAGE = 4096,        /* superblock bytes; alignment of packed tensors */
    SQ_SQW_UNIT_ALIGN = 16384  /* alignment of units */
};
#define SQ_FOURCC(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
enum {
    SQ_SEC_CONF = SQ_FOURCC('C', 'O', 'N', 'F'), /* config.json, original bytes */
    SQ_SEC_NCFG = SQ_FOURCC('N', 'C', 'F', 'G'), /* the model room's normalised config, binary */
    SQ_SEC_GENC = SQ_FOURCC('G', 'E', 'N', 'C'), /* generation_config.json */
    SQ_SEC_TOKZ = SQ_FOURCC('T', 'O', 'K', 'Z'), /* compiled tokenizer */
    SQ_SEC_TMPL = SQ_FOURCC('T', 'M', 'P', 'L'), /* compiled template */
    SQ_SEC_NAME = SQ_FOURCC('N', 'A', 'M', 'E'), /* tensor names, NUL-terminated */
    SQ_SEC_TENS = SQ_FOURCC('T', 'E', 'N', 'S'), /* tensor records */
    SQ_SEC_UNIT = SQ_FOURCC('U', 'N', 'I', 'T'), /* unit records */
    SQ_SEC_SUMS = SQ_FOURCC('S', 'U', 'M', 'S'), /* XXH3-64 per 4 MiB extent of DATA */
    SQ_SEC_FIDL = SQ_FOURCC('F', 'I', 'D', 'L'), /* fidelity report, JSON */
    SQ_SEC_RECP = SQ_FOURCC('R', 'E', 'C', 'P'), /* recipe, JSON */
    SQ_SEC_DATA = SQ_FOURCC('D', 'A', 'T', 'A')
};

/* On-disk records; all integers little-endian, used in place. */
typedef struct {
    uint32_t fourcc, reserved;
    uint64_t offset, bytes;
    uint64_t sum; /* XXH3-64 of the section; 0 for DATA, whose sums are in SUMS */
} sq_sqw_section;
typedef struct {
    uint32_t name_off;      /* into NAME */
    uint16_t name_len;
    uint8_t n_dims, scale_type; /* scale_type: sq_scale_type of quant.h */
    uint64_t dims[4];       /* outermost first */
    uint16_t wtype, role;   /* sq_wtype of quant.h, sq_role of model.h */
    uint16_t layer, unit;   /* layer 0xFFFF: none */
    uint32_t group, expert;
    uint64_t data_off, data_bytes; /* data_off from the start of the file */
    uint64_t sum;           /* XXH3-64 of the data */
    uint64_t source_sum;    /* XXH3-64 of the source tensor's bytes */
    uint32_t rank; /* of the low-rank compensator behind the codes, 0: none. On a multiple of 64 after them:
                      V f16 [rank][cols], then, on a multiple of 64, U f16 [rows][rank] */
    uint8_t reserved[36];
} sq_sqw_tensor;
typedef struct {
    uint64_t offset, bytes; /* from the start of the file; a multiple of SQ_SQW_UNIT_ALIGN */
    uint32_t first_tensor, n_tensors;
    uint16_t kind, layer;   /* kind: sq_unit_kind */
    uint32_t expert;
} sq_sqw_unit;
typedef enum {
    SQ_UNIT_EMBED, SQ_UNIT_ATTN, SQ_UNIT_FFN, SQ_UNIT_EXPERT, SQ_UNIT_SHARED, SQ_UNIT_HEAD, SQ_UNIT_MISC
} sq_unit_kind;
_Static_assert(sizeof(sq_sqw_section) == 32 && sizeof(sq_sqw_tensor) == 128, "on disk");
_Static_assert(sizeof(sq_sqw_unit) == 32, "on disk");

/* A mapped container. Load is open, map, check: O(sections + tensors), no allocation beyond the struct. */
typedef struct sq_sqw sq_sqw;
squish_status sq_sqw_open(sq_sqw **out, const char *path, const squish_alloc *a, squish_error *err);
squish_status sq_sqw_parse(sq_sqw **out, sq_span file, const char *file_name, const squish_alloc *a,
                           squish_error *err);
void sq_sqw_close(sq_sqw *s);
/* {NULL, 0} if absent; 64-byte aligned in the mapping. */
sq_span sq_sqw_section_of(const sq_sqw *s, uint32_t fourcc);
const sq_sqw_tensor *sq_sqw_tensors(const sq_sqw *s, size_t *n);
const sq_sqw_unit *sq_sqw_units(const sq_sqw *s, size_t *n);
const char *sq_sqw_name(const sq_sqw *s, const sq_sqw_tensor *t); /* NUL-terminated, checked */
const uint8_t *sq_sqw_data(const sq_sqw *s, const sq_sqw_tensor *t);
uint64_t sq_sqw_bytes(const sq_sqw *s);
const sq_map *sq_sqw_map(const sq_sqw *s);        /* of the file; NULL: parsed from memory */
uint64_t sq_sqw_super_sum(const sq_sqw *s);       /* checksum of the superblock, for the sentinel */
const uint8_t *sq_sqw_source_id(const sq_sqw *s); /* 16 bytes */
/* How good the contents are, from the superblock; see sq_quality of the forge. Older files: UNVERIFIED. */
typedef enum {
    SQ_QUALITY_UNVERIFIED,
    SQ_QUALITY_OK,
    SQ_QUALITY_DEGRADED,
    SQ_QUALITY_COLLAPSED
} sq_quality_flag;
sq_quality_flag sq_sqw_quality(const sq_sqw *s);
/* Read every byte of DATA and compare; CORRUPT names the tensor. */
squish_status sq_sqw_verify(const sq_sqw *s, squish_progress_fn progress, void *user, squish_error *err);

/* Writer. All offsets are fixed before any tensor is written, so data may come in any order and from
 * several threads (put only; everything else belongs to one thread).
 *     new -> section, late, tensor ... -> layout -> put, source_sum, tensor_done, late_put ...
 *         -> seal -> publish
 * Tensors are declared in execution order; a change of unit kind, layer or expert starts a new unit.
 *
 * The file grows as `partial`; beside it lies `journal`. tensor_done records a finished tensor; every 256 MiB
 * or 10 s the data are flushed to the disk and the records of what is safely there appended to the journal.
 * After a crash, resume on a writer with the same declarations (checked by a hash of the layout and source
 * identity) tells which tensors need not be put again; the last batch is read again and compared. */
typedef struct sq_sqw_writer sq_sqw_writer;
squish_status sq_sqw_writer_new(sq_sqw_writer **out, const char *partial, const char *journal,
                                const squish_alloc *a, squish_error *err);
/* The bytes are copied. */
squish_status sq_sqw_writer_section(sq_sqw_writer *w, uint32_t fourcc, const void *p, size_t n,
                                    squish_error *err);
/* Declare a tensor; data_off, sum, unit and name fields of the record are filled in. *index is for put. */
squish_status sq_sqw_writer_tensor(sq_sqw_writer *w, const char *name, const sq_sqw_tensor *t,
                                   sq_unit_kind unit_kind, size_t *index, squish_error *err);
/* Fix offsets and make the file (or keep the one that is there if `resume` and it fits: same size, journal of
 * the same layout and source_id); afterwards total bytes are known. NO_SPACE if the disk cannot hold it,
 * before a byte is written. *kept: bytes of tensor data that need not be put again; sq_sqw_writer_has tells
 * which. */
squish_status sq_sqw_writer_layout(sq_sqw_writer *w, const uint8_t source_id[16], bool resume,
                                   uint64_t *file_bytes, uint64_t *kept, squish_error *err);
bool sq_sqw_writer_has(const sq_sqw_writer *w, size_t index);
/* All bytes of tensor index were put, and its source_sum and, for the report, up to 512 bytes of the caller's
 * own (note; kept in the journal, given back by sq_sqw_writer_note after a resume). */
squish_status sq_sqw_writer_tensor_done(sq_sqw_writer *w, size_t index, const void *note, size_t n,
                                        squish_error *err);
const void *sq_sqw_writer_note(const sq_sqw_writer *w, size_t index, size_t *n);
/* Write bytes [at, at+n) of tensor index; every byte of every tensor must be put exactly once. */
squish_status sq_sqw_writer_put(sq_sqw_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                                squish_error *err);
/* Checksum of the source bytes that tensor index was made from (record field source_sum). */
squish_status sq_sqw_writer_source_sum(sq_sqw_writer *w, size_t index, uint64_t sum, squish_error *err);
/* A section whose content is known only at the end (FIDL): space is reserved with the declared maximum. */
squish_status sq_sqw_writer_late(sq_sqw_writer *w, uint32_t fourcc, size_t bytes_max, squish_error *err);
squish_status sq_sqw_writer_late_put(sq_sqw_writer *w, uint32_t fourcc, const void *p, size_t n,
                                     squish_error *err);
/* Sums, tables, superblock last, fsync, read back and verify. The partial file is then whole and can be
 * opened, but has not its name yet. */
squish_status sq_sqw_writer_seal(sq_sqw_writer *w, squish_error *err);
/* Write the quality flag, fsync, rename partial to path, fsync the folder, remove the journal. */
squish_status sq_sqw_writer_publish(sq_sqw_writer *w, const char *path, sq_quality_flag quality,
                                    uint64_t *super_sum, squish_error *err);
/* keep_partial: an unfinished file and its journal stay for a later resume; else they are removed. */
void sq_sqw_writer_free(sq_sqw_writer *w, bool keep_partial);

#endif
