/* SPDX-License-Identifier: MIT */
/*
 * Proves the lines of logs, in their order: recomputes the tree, compares it with every checkpoint,
 * and counts an entry only when a verified checkpoint covers it. Memory is bounded: at most
 * TREE_RUN_PENDING_MAX entries wait for a checkpoint. One thread.
 *
 * States of a run:
 *
 *	state    | entered by                                | entries are
 *	---------|-------------------------------------------|--------------------------------------
 *	outside  | the beginning of an input                 | judged by their own signatures
 *	whole    | a segment line                            | appended, and wait for a checkpoint
 *	copy     | a segment line whose index is before the  | the same, and compared with those
 *	         | log's end: these entries were read before | that were read before
 *	broken   | a root or a signature that does not hold, | bad
 *	         | a segment line that is bad                |
 *	refused  | a segment line of an origin that --origin | unverifiable
 *	         | does not allow                            |
 *
 * Only a segment line or the beginning of an input leaves broken and refused.
 */
#pragma once

#include "host-receiver/judge/logs.h"
#include "host-receiver/judge/streams.h"

#define TREE_RUN_PENDING_MAX   65536u
#define TREE_RUN_PENDING_BYTES (UINT64_C(64) * 1024 * 1024) /* of their lines */

struct tree_run;

/* Reads entries again that were read before, to compare a copy with them. */
struct tree_earlier {
	void *data;
	/*
	 * The frontier of the log at index, computed by reading earlier entries again. Returns 1, 0
	 * if it cannot be read again, or a negative errno.
	 */
	int (*seek)(void *data, const char *origin, uint64_t index, struct tree_frontier *ret);
	/* The next leaf hash. Returns 1, 0: there is none, or a negative errno. */
	int (*next)(void *data, struct tree_hash *ret);
};

struct tree_run_options {
	const char *origin; /* the only prefix that is allowed; NULL: any. Borrowed */
	bool live;	    /* entries after the newest checkpoint are in flight */
	const struct tree_earlier *earlier; /* borrowed; NULL: nothing can be read again */
};

struct tree_run_counts {
	uint64_t records;  /* entries, good or bad */
	uint64_t verified; /* covered by a verified checkpoint */
	uint64_t in_flight;
	uint64_t copies; /* entries that were there before */
	uint64_t checkpoints;
};

/* Everything is borrowed. NULL: no memory. */
struct tree_run *tree_run_new(const struct tree_run_options *options, struct logs *logs,
			      struct streams *streams, struct findings *findings);
void tree_run_free(struct tree_run *run);

/* A new input begins. It has no segment line yet. */
void tree_run_begin_input(struct tree_run *run);

/* Whether there was a segment line, so that entries belong to the run. */
bool tree_run_inside(const struct tree_run *run);

/* No further segment of the last log follows: entries without a checkpoint stay without one. */
void tree_run_leave(struct tree_run *run);

/* These return 0, -ENOMEM, or an error of `earlier`. bytes: the line's length. */
int tree_run_segment(struct tree_run *run, const struct line_facts *facts, struct place at);
int tree_run_entry(struct tree_run *run, const struct line_facts *facts, size_t bytes,
		   struct place at);
int tree_run_checkpoint(struct tree_run *run, const struct line_facts *facts, struct place at);

const struct tree_run_counts *tree_run_counts(const struct tree_run *run);
