/* SPDX-License-Identifier: MIT */
/*
 * What the newest log of a folder holds, read at the start and never changed: its tree up to its
 * newest checkpoint, what stands after that checkpoint, and the log's own stream (evidence-log.md
 * sections 4 and 6). No state; any thread.
 */
#pragma once

#include <stdbool.h>

#include "host-receiver/event/uuid.h"
#include "host-receiver/evidence/folder.h"
#include "host-receiver/evidence/lines.h"

/* The longest line of a log, '\n' included. */
#define RECOVER_LINE_MAX (64u * 1024u)
/* So many leaves after a point are kept; a signer that is further back has lost its state. */
#define RECOVER_LEAVES_MAX (512u * 1024u - 128u)

/* A tree that was signed. origin "": none. */
struct recover_point {
	char origin[NOTE_ORIGIN_MAX + 1];
	uint64_t size;
	struct tree_hash root;
	bool matches; /* out: the log has this tree at this size */
};

struct recovered {
	bool any;  /* there are segments */
	bool tree; /* the newest log has a tree; the rest up to own is valid only then */
	bool damaged;
	const char *why; /* static, with damaged */
	char origin[NOTE_ORIGIN_MAX + 1];
	struct tree_frontier frontier; /* at the newest checkpoint */
	struct tree_hash root;
	size_t note_len;
	char note[LINE_NOTE_MAX];
	/* The leaves from the size of the first point that matches on, up to the frontier. */
	uint64_t leaves_from;
	struct tree_hash *leaves; /* owned */
	size_t n_leaves;

	/* The newest segment: where evidence ends in it, and what follows. */
	uint64_t segment, end, cut_bytes, cut_lines;
	bool no_first_line; /* all of it is torn */

	bool own; /* the log's own stream was found */
	uint8_t uuid[UUID_SIZE];
	uint64_t own_sequence;
	bool own_closed; /* its last record says so */
};

/*
 * points: the signer's trees, the newest first. Returns 0, or a negative errno: the disk's. To be
 * freed in any case.
 */
int recover_read(const struct folder *folder, struct recover_point points[static 2],
		 struct recovered *ret);
void recovered_free(struct recovered *r);

/* The size of the tree at the newest checkpoint line of a segment. 0 or a negative errno. */
int recover_end_of_segment(const struct folder *folder, uint64_t number, uint64_t *ret);
