/* SPDX-License-Identifier: MIT */
/*
 * The tree of a log that is being written: its size, its frontier, its newest note. A group is
 * signed once. Until it is durable it is pending, and every new attempt writes the same bytes.
 *
 *	settled --chain_sign()--> pending --chain_accept()--> settled
 *
 * Belongs to the committer's thread.
 */
#pragma once

#include "host-receiver/evidence/sink.h"

struct chain {
	struct tree_hasher *hasher;
	char origin[NOTE_ORIGIN_MAX + 1]; /* "": the log has no tree */
	struct tree_frontier frontier;	  /* of the durable entries */
	size_t note_len;		  /* 0 at size 0 */
	char note[LINE_NOTE_MAX];

	bool pending;
	uint64_t pending_lines;
	struct tree_frontier next;
	size_t next_note_len, line_len;
	char next_note[LINE_NOTE_MAX];
	char line[LINE_OWN_MAX]; /* the checkpoint line of the pending group */
};

/* 0 or -ENOMEM. */
int chain_init(struct chain *chain);
void chain_done(struct chain *chain);

/* A new log's tree, empty; origin "": none. Nothing may be pending. */
void chain_begin(struct chain *chain, const char *origin);
/* Continue a tree. note_len is 0 only with an empty frontier. */
void chain_resume(struct chain *chain, const char *origin, const struct tree_frontier *frontier,
		  const char *note, size_t note_len);

/*
 * Get the group signed, unless it is pending already, and make its checkpoint line. durable: so
 * many entries of the log are on disk. Returns 0 or a negative errno; -EPROTO: the signer signed a
 * tree other than this one.
 */
int chain_sign(struct chain *chain, const struct evidence_group *group, uint64_t durable);
/* The pending group is durable now. */
void chain_accept(struct chain *chain);

/* The first line of a segment that begins here. Returns its length or -ENOBUFS. */
int chain_segment_line(const struct chain *chain, char ret[static LINE_OWN_MAX]);
