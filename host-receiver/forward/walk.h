/* SPDX-License-Identifier: MIT */
/*
 * Walks the lines of the evidence log in their order and tells for each one what it is: an entry
 * with its index, a segment line or a checkpoint line (evidence-log.md sections 1 and 3). It goes
 * no further than the end it was given. It never changes the log and never judges it: verify does.
 *
 * For one thread.
 */
#pragma once

#include "common/wire.h"
#include "host-receiver/evidence/note.h"
#include "host-receiver/evidence/reader.h"

enum walk_kind {
	WALK_ENTRY,
	WALK_SEGMENT,
	WALK_CHECKPOINT,
	_WALK_KIND_MAX,
};

/* Valid until the next call. */
struct walk_line {
	enum walk_kind kind;
	const char *text; /* without its '\n' */
	size_t len;
	struct wire_text id, type, time;
	struct wire_text cell; /* empty: an entry of the log's own stream, or no entry */
	uint64_t index;	       /* entry: its own; others: of the next entry */
	const char *origin;    /* valid as long as the walk */
	struct evidence_position start;
};

struct walk;

/* Returns 0 or a negative errno: the folder cannot be opened, or no memory. */
int walk_open(const char *dir, struct walk **ret);
void walk_close(struct walk *walk);

/* Go on after this position, where the next entry has this index, in the log of this origin. */
int walk_seek(struct walk *walk, const struct evidence_position *at, uint64_t index,
	      const char *origin);
/* Begin at the oldest segment. */
int walk_rewind(struct walk *walk);

/* No line after this position is given. */
void walk_set_end(struct walk *walk, const struct evidence_position *end);

/*
 * Returns 1 and the next line; 0: there is none yet. -ENODATA: lines that were to come next are
 * gone, by retention or otherwise: the walk goes on after them. -EBADMSG: a line is not of a log
 * (too long, no JSON object, no index known); it is passed over. Other errors: reading failed.
 */
int walk_next(struct walk *walk, struct walk_line *ret);

/* After the last line. */
struct evidence_position walk_position(const struct walk *walk);
/* The index of the next entry; false while no segment line was seen. */
bool walk_index(const struct walk *walk, uint64_t *ret);
/* Of the segment that the walk is in; "" before the first. Valid as long as the walk. */
const char *walk_origin(const struct walk *walk);

/*
 * The leaf hash of the entry that begins at this position, or after the line of a segment there.
 * Reads it again. Returns 0, -ENODATA: it is gone, or another errno.
 */
int walk_leaf(const struct walk *walk, const struct evidence_position *at, struct tree_hash *ret);
