/* SPDX-License-Identifier: MIT */
/*
 * A file beside the segments. It says which sequence the log's own stream had reached at a position
 * of the log, so the start reads from that position on instead of the whole log. An old mark stays
 * true, because nobody changes what stands before the position. It is a hint: without it the start
 * reads more.
 *
 * No state; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "host-receiver/evidence/note.h"

#define OWN_MARK_FILE "log-stream"
/* Bytes of the log after which a new mark is due. */
#define OWN_MARK_BYTES (1024u * 1024u)

struct own_mark {
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t sequence;	  /* of the last own record before the position */
	uint64_t segment, offset; /* the beginning of a line, or the end of the log */
};

/* Write a mark that is due after the last one. An error only means that there is no new mark. */
void own_mark_write(int dir_fd, const struct own_mark *mark, struct own_mark *last);
/* False: there is none. */
bool own_mark_read(int dir_fd, struct own_mark *ret);
