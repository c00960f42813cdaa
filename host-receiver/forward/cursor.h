/* SPDX-License-Identifier: MIT */
/*
 * Where the forwarder goes on after any end: up to which entry the server has acknowledged all.
 * Two generations in two files, each written, synced and renamed: if the newer one is damaged, the
 * older one costs only some messages that are sent twice. No state; any thread.
 */
#pragma once

#include "host-receiver/evidence/note.h"
#include "host-receiver/evidence/reader.h"

struct forward_cursor {
	uint64_t generation;
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t index;		     /* of the next entry */
	struct evidence_position at; /* where the entry index - 1 begins */
	struct tree_hash before;     /* leaf hash of the entry index - 1; zeros at index 0 */
};

/*
 * The newer of the two. Returns 0; -ENOENT: there is none; -EBADMSG: there are files, and none is a
 * cursor; or another errno. *ret_damaged: one of the two files is not a cursor.
 */
int forward_cursor_load(int dir_fd, struct forward_cursor *ret, bool *ret_damaged);

/* Write the next generation over the older one, durably. Counts cursor->generation up. */
int forward_cursor_store(int dir_fd, struct forward_cursor *cursor);
