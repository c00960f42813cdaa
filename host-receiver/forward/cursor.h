/* SPDX-License-Identifier: MIT */
/*
 * The place at which the forwarder continues after it ended: the server has acknowledged all
 * entries before it. There are two generations in two files; each is written, synced and renamed.
 * If the newer one is damaged, the older one is used, and some messages are sent twice. No state;
 * any thread.
 */
#pragma once

#include "host-receiver/evidence/note.h"
#include "host-receiver/evidence/reader.h"

struct forward_cursor {
	uint64_t generation;
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t index;		     /* of the next entry */
	struct evidence_position at; /* the beginning of entry index - 1 */
	struct tree_hash before;     /* leaf hash of the entry index - 1; zeros at index 0 */
};

/*
 * Load the newer file. Returns 0; -ENOENT: there is none; -EBADMSG: there are files, but none is a
 * valid cursor; or another errno. *ret_damaged: one of the two files is not valid.
 */
int forward_cursor_load(int dir_fd, struct forward_cursor *ret, bool *ret_damaged);

/* Write the next generation over the older one, durably. Increases cursor->generation. */
int forward_cursor_store(int dir_fd, struct forward_cursor *cursor);
