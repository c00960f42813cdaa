/* SPDX-License-Identifier: MIT */
/*
 * Reads the lines of the evidence log in order, and classifies each: an entry with its index, a
 * segment line or a checkpoint line (evidence-log.md sections 1 and 3). It stops at the given end.
 * It never changes the log, and does not judge it: verify does. For one thread.
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

/* Continue after this position. index: of the next entry; origin: of its log. */
int walk_seek(struct walk *walk, const struct evidence_position *at, uint64_t index,
	      const char *origin);
/* Begin at the oldest segment. */
int walk_rewind(struct walk *walk);

/* Return no line after this position. */
void walk_set_end(struct walk *walk, const struct evidence_position *end);

/*
 * Returns 1 and the next line; 0: there is none yet. -ENODATA: the next lines are gone, by
 * retention or otherwise; the walk continues after them. -EBADMSG: the line is not of a log (too
 * long, no JSON object, no index known); it is skipped. Other errors: reading failed.
 */
int walk_next(struct walk *walk, struct walk_line *ret);

/* The position after the last line. */
struct evidence_position walk_position(const struct walk *walk);
/* The index of the next entry; false while no segment line was seen. */
bool walk_index(const struct walk *walk, uint64_t *ret);
/* The origin of the current segment; "" before the first. Valid as long as the walk. */
const char *walk_origin(const struct walk *walk);

/*
 * The leaf hash of the entry that begins at this position, or of the entry after a segment line
 * there. Reads the line again. Returns 0, -ENODATA: it is gone, or another errno.
 */
int walk_leaf(const struct walk *walk, const struct evidence_position *at, struct tree_hash *ret);
