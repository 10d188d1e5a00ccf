/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_calib_text.h - the text that calibration runs where none is given: prose, code, dialogue, lists,
 * mathematics and some languages of Europe, written for this purpose, UTF-8. */
#ifndef SQ_LIB_CALIB_TEXT_H
#define SQ_LIB_CALIB_TEXT_H

extern const char sq_calib_text[];

#endif
