/* SPDX-License-Identifier: MIT */
/*
 * Reads the lines of an evidence log in their order, from one segment to the next, while it is
 * being written: tail and the forwarders. It never changes the log. One thread a reader.
 *
 * It gives lines as soon as they are whole in the file, which is a moment before they are on disk.
 * That is right for people. A forwarder must not pass on what a crash could still take back: it
 * sets the end with evidence_reader_set_end() to evidence_log_end().
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "host-receiver/evidence/log.h"

struct evidence_reader;

/* Returns 0 or a negative errno: the folder cannot be opened. */
int evidence_reader_open(const char *dir, const struct evidence_position *from,
			 struct evidence_reader **ret);
void evidence_reader_close(struct evidence_reader *reader);

/*
 * The next whole line, without its '\n'; borrowed until the next call. Returns 1; 0 when there is
 * none yet; -EMSGSIZE for a line above EVIDENCE_LINE_MAX, -ENODATA when segments that were to come
 * next are gone: both are passed over, the call after it goes on. Other errors are the disk's, and
 * are met again.
 */
int evidence_reader_next(struct evidence_reader *reader, const char **ret_line, size_t *ret_len);

/* After the line that was given last: where a reader goes on that is done with it. */
struct evidence_position evidence_reader_position(const struct evidence_reader *reader);

/* From now on no line after this position is given. */
void evidence_reader_set_end(struct evidence_reader *reader, const struct evidence_position *end);

/* Pass to the end of the newest segment, as if all lines so far had been read. */
int evidence_reader_seek_end(struct evidence_reader *reader);
