/* SPDX-License-Identifier: MIT */
/*
 * The place at which a reader of the evidence log continues after a restart: a small file that is
 * never half written. Retention waits for the readers that have a file in the folder. So a reader
 * creates its file before it reads its first line, and the file of a reader that will not return
 * has to be removed. No state; any thread.
 */
#pragma once

#include "host-receiver/evidence/reader.h"

/* Returns 0; -ENOENT: there is none yet; -EBADMSG: it is not a cursor; or another errno. */
int evidence_cursor_load(int dir_fd, const char *name, struct evidence_position *ret);
/* Durable when it returns 0; after an error the old one is still there. */
int evidence_cursor_store(int dir_fd, const char *name, const struct evidence_position *at);

#define CURSOR_NAME_MAX 256u

/*
 * The oldest segment that the cursors of the folder still need; UINT64_MAX when there is no cursor.
 * A file that is no valid cursor may stand for any place: then the result is 0, nothing may be
 * deleted, and bad has the file's name ("" otherwise). Returns 0, or a negative errno if the folder
 * cannot be read.
 */
int evidence_cursor_floor(int dir_fd, uint64_t *ret, char bad[CURSOR_NAME_MAX]);
