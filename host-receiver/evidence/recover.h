/* SPDX-License-Identifier: MIT */
/*
 * Reads the newest log of a folder at the start, and changes nothing: its tree up to the newest
 * checkpoint, the bytes after that checkpoint, and the log's own stream (evidence-log.md sections 4
 * and 6). If the newest checkpoint is the signer's last one, only the end of the newest segment is
 * read. No state; any thread.
 */
#pragma once

#include <stdbool.h>

#include "host-receiver/event/uuid.h"
#include "host-receiver/evidence/folder.h"
#include "host-receiver/evidence/lines.h"

/* This many leaves after a point are kept. If the signer is further back, it has lost its state. */
#define RECOVER_LEAVES_MAX (512u * 1024u - 128u)

/* The trees that the signer remembers, the newest first. */
enum { RECOVER_LAST, RECOVER_BEFORE, RECOVER_SYNCED, RECOVER_POINTS };

/* A tree that was signed. origin "": none. */
struct recover_point {
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t size;
	struct tree_frontier frontier;
	struct tree_hash root;
	size_t note_len;
	char note[LINE_NOTE_MAX];
	bool matches; /* result: the log has this tree at this size */
};

struct recovered {
	bool any;  /* there are segments */
	bool tree; /* the newest log has a tree; the fields down to `own` are valid only then */
	bool damaged;
	const char *why; /* static, with damaged */
	char origin[NOTE_ORIGIN_MAX + 1];
	struct tree_frontier frontier; /* the tree at the newest checkpoint */
	struct tree_hash root;
	size_t note_len;
	char note[LINE_NOTE_MAX];
	/* The leaves from the size of the newest matching point up to the frontier. */
	uint64_t leaves_from;
	struct tree_hash *leaves; /* owned */
	size_t n_leaves;

	/* The newest segment: the end of the evidence in it, and the size of the rest. */
	uint64_t segment, end, cut_bytes, cut_lines;
	bool no_first_line; /* the newest segment has no whole first line, or a log that never began
			     */

	bool own; /* the log's own stream was found */
	uint8_t uuid[UUID_SIZE];
	uint64_t own_sequence;
	bool own_closed; /* its last record closes it */
};

/*
 * points: the signer's trees. Returns 0, or a negative errno if the disk fails. Call
 * recovered_free() in both cases.
 */
int recover_read(const struct folder *folder, struct recover_point points[static RECOVER_POINTS],
		 struct recovered *ret);
void recovered_free(struct recovered *r);

/* The uuid of a log with a tree, which is the last part of its origin. False: it has none. */
bool recover_uuid(const char *origin, uint8_t ret[static UUID_SIZE]);

/* The size of the tree at the newest checkpoint line of a segment. 0 or a negative errno. */
int recover_end_of_segment(const struct folder *folder, uint64_t number, uint64_t *ret);
