/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_int.h - what the files of this room share. */
#ifndef SQ_HUB_INT_H
#define SQ_HUB_INT_H

#include "hub/hub.h"

/* The folder dir, with its manifest inside and its files on the disk, becomes the model at target, in one
 * step. Where one is there already the two change places, and its tiers go. */
squish_status hub_publish(const char *dir, const char *target, squish_error *err);

#endif
