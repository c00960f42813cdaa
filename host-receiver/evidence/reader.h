/* SPDX-License-Identifier: MIT */
/*
 * Reads the lines of an evidence log in order, from one segment to the next, while the log is being
 * written. `tail` and the forwarder use it. It never changes the log. A reader belongs to one
 * thread.
 *
 * It returns a line as soon as the file has all of it, which is a moment before the line is
 * durable. That is right for people. A forwarder must not send lines that a crash could still
 * remove: it calls evidence_reader_set_end() with evidence_log_end().
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
 * none yet; -EMSGSIZE for a line above EVIDENCE_LINE_MAX; -ENODATA when the next segments are
 * missing. After these two the next call continues with the following line. Other errors are errors
 * of the disk, and the next call tries again.
 */
int evidence_reader_next(struct evidence_reader *reader, const char **ret_line, size_t *ret_len);

/*
 * The position after the last line that was returned: a reader that has processed it continues
 * there.
 */
struct evidence_position evidence_reader_position(const struct evidence_reader *reader);

/* From now on no line after this position is returned. */
void evidence_reader_set_end(struct evidence_reader *reader, const struct evidence_position *end);

/* Go to the end of the newest segment, without reading the lines before it. */
int evidence_reader_seek_end(struct evidence_reader *reader);
