/* SPDX-License-Identifier: MIT */
/*
 * Where a reader of the evidence log goes on after a restart: a small file that is there whole
 * whatever happens. The files of one folder are the readers that retention waits for: who reads has
 * a file there from before its first line on, and one that will not come again has it removed. No
 * state; any thread.
 */
#pragma once

#include "host-receiver/evidence/reader.h"

/* Returns 0; -ENOENT: there is none yet; -EBADMSG: it is not a cursor; or another errno. */
int evidence_cursor_load(int dir_fd, const char *name, struct evidence_position *ret);
/* Durable when it returns 0; after an error the old one is still there. */
int evidence_cursor_store(int dir_fd, const char *name, const struct evidence_position *at);

#define CURSOR_NAME_MAX 256u

/*
 * The oldest segment that the cursors of the folder still need: UINT64_MAX when there is none. A
 * file that cannot be understood may be anywhere: then it is 0, nothing may be deleted, and its
 * name is in bad ("" otherwise). Returns 0 or a negative errno: the folder cannot be read.
 */
int evidence_cursor_floor(int dir_fd, uint64_t *ret, char bad[CURSOR_NAME_MAX]);
