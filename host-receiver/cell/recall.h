/* SPDX-License-Identifier: MIT */
/*
 * Restores the numbers of all cells' sessions from the lines of the log (delivery.md section 2). It
 * reads the lines in their order and applies each as the live receiver applied the frame. So it
 * ends with the numbers that were durable in that receiver.
 *
 * A log.v1.sessions entry holds all numbers at the time it was written. So the reading may begin
 * anywhere before the last of these entries. Earlier lines whose session is not known are ignored.
 * No I/O; one thread.
 */
#pragma once

#include "host-receiver/cell/sessions.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/event/uuid.h"

struct recall;

/* NULL: no memory. */
struct recall *recall_new(void);
void recall_free(struct recall *r);

/*
 * Read the next line, without its '\n'. Returns 0 or -ENOMEM. A line that is not an event is
 * ignored.
 */
int recall_line(struct recall *r, const char *line, size_t len);

/* NULL: the cell is not known. Valid until the next line. */
const struct sessions *recall_find(const struct recall *r, const char *cell_id);

/* The sequence of the stream's last line; 0: not known. */
uint64_t recall_sequence(const struct recall *r, const uint8_t stream_id[static UUID_SIZE]);

/*
 * As recall_put(), but for a stream: its sequence becomes known even if its last line is far before
 * the part of the log that is read.
 */
void recall_put_stream(struct json_writer *w, const uint8_t stream_id[static UUID_SIZE],
		       uint64_t sequence);

/*
 * One element of a log.v1.sessions entry. connection: the cell's connection that has this session
 * now, or 0.
 */
void recall_put(struct json_writer *w, const char *cell_id, uint64_t connection,
		const struct session *session);
