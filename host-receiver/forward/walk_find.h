/* SPDX-License-Identifier: MIT */
/*
 * Puts a walk after the entry that a cursor names: the last one that the server acknowledged. It
 * compares index, origin and leaf hash, so a log that was replaced is noticed. For one thread.
 */
#pragma once

#include "host-receiver/forward/cursor.h"
#include "host-receiver/forward/walk.h"

/*
 * Look at the cursor's position first, then read from the oldest segment on. Returns 1: the walk is
 * after the entry; 0: the log has no such entry; or a negative errno.
 */
int walk_find(struct walk *walk, struct tree_hasher *hasher, const struct forward_cursor *cursor);
