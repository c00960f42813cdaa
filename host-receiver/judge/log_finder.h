/* SPDX-License-Identifier: MIT */
/*
 * Finds the newest checkpoint, an entry or a proof in the segments of a log. It recomputes the tree
 * over the segments that it reads, and returns nothing that the entries do not support. It verifies
 * no signature. One thread, constant memory.
 */
#pragma once

#include "host-receiver/evidence/note.h"
#include "host-receiver/judge/sources.h"

#define FINDER_WHY_MAX 512u

/* A checkpoint, with the text that the log has. */
struct found_note {
	struct note_checkpoint checkpoint;
	size_t len;
	char text[NOTE_TEXT_MAX + 1]; /* NUL-terminated */
};

struct found_entry {
	uint64_t index;
	size_t len;
	char data[INPUT_LINE_MAX];
};

struct log_finder;

/*
 * The newest log of these sources (sorted; borrowed) whose origin begins with prefix (NULL: any).
 * Returns 0, -ENOENT when there is none, or another negative errno, with a sentence in why.
 */
int log_finder_open(const struct sources *sources, const char *prefix, struct log_finder **ret,
		    char why[FINDER_WHY_MAX]);
void log_finder_close(struct log_finder *finder);

/*
 * The functions below return 0, or a negative errno with a sentence in why. -ESTALE: a segment was
 * deleted after its folder was listed; another listing may help.
 */

int log_finder_newest(struct log_finder *finder, struct found_note *ret, char why[FINDER_WHY_MAX]);

/* The index of the event with this id. */
int log_finder_index(struct log_finder *finder, const char *id, uint64_t *ret,
		     char why[FINDER_WHY_MAX]);

/* An entry, the first checkpoint that covers it, and the proof. */
int log_finder_inclusion(struct log_finder *finder, uint64_t index, struct found_entry *ret_entry,
			 struct found_note *ret_note, struct tree_proof *ret_proof,
			 char why[FINDER_WHY_MAX]);

/* The newest checkpoint, and the proof that its tree begins with the old one. */
int log_finder_consistency(struct log_finder *finder, const struct note_checkpoint *old,
			   struct found_note *ret_note, struct tree_proof *ret_proof,
			   char why[FINDER_WHY_MAX]);
