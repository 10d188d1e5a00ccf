/* SPDX-License-Identifier: Apache-2.0
 *
 * base_error.c - the recorded failure: first cause wins, context goes in front, always one printable line.
 *
 * Messages quote names found in files from outside. So that a hostile tensor name cannot move the cursor of
 * somebody's terminal, control characters and broken UTF-8 are replaced before the text is kept. */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* strerror_r comes in two shapes (GNU returns the text, POSIX a number); _Generic picks by its type. */
static const char *text_of_gnu(const char *result, const char *buffer) {
    (void)buffer;
    return result;
}
static const char *text_of_posix(int result, const char *buffer) {
    return result == 0 ? buffer : "unknown error";
}
#define ERRNO_TEXT(value, buffer)                                                 \
    _Generic(strerror_r((value), (buffer), sizeof(buffer)), int: text_of_posix, \
             default: text_of_gnu)(strerror_r((value), (buffer), sizeof(buffer)), (buffer))

/* Replace what must not reach a terminal, in place, and drop a code point cut in two at the end. */
static void make_printable(char *text) {
    size_t n = strlen(text);
    n -= sq_utf8_pending(text, n);
    text[n] = '\0';
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool ok;
        size_t step = sq_utf8_decode(text + i, n - i, &cp, &ok);
        if (!ok || cp < 0x20 || (cp >= 0x7F && cp < 0xA0)) memset(text + i, '?', step);
        i += step;
    }
}

static void record(squish_error *err, squish_status code, const char *fmt, va_list args) {
    err->code = code;
    if (vsnprintf(err->text, sizeof err->text, fmt, args) < 0) err->text[0] = '\0';
    make_printable(err->text);
}

squish_status sq_fail(squish_error *err, squish_status code, const char *fmt, ...) {
    if (!err || err->code != SQUISH_OK) return code;
    va_list args;
    va_start(args, fmt);
    record(err, code, fmt, args);
    va_end(args);
    return code;
}

static squish_status status_of_errno(int errno_value) {
    switch (errno_value) {
    case ENOENT:
    case ENOTDIR: return SQUISH_NOT_FOUND;
    case ENOSPC:
    case EDQUOT: return SQUISH_NO_SPACE;
    case ENOMEM: return SQUISH_NO_MEMORY;
    default: return SQUISH_IO; /* EACCES, EROFS and the rest: the system refused */
    }
}

squish_status sq_fail_errno(squish_error *err, int errno_value, const char *fmt, ...) {
    squish_status code = status_of_errno(errno_value);
    if (!err || err->code != SQUISH_OK) return code;
    va_list args;
    va_start(args, fmt);
    record(err, code, fmt, args);
    va_end(args);
    char buffer[128];
    const char *reason = ERRNO_TEXT(errno_value, buffer);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", reason);
    make_printable(err->text);
    return code;
}

void sq_err_prefix(squish_error *err, const char *fmt, ...) {
    if (!err || err->code == SQUISH_OK) return;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, fmt);
    record(err, err->code, fmt, args);
    va_end(args);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", old);
    make_printable(err->text);
}
