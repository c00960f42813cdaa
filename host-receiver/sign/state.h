/* SPDX-License-Identifier: MIT */
/*
 * The memory of a signer: trees that it signed, with their frontiers and notes, in a file of
 * checksummed slots (evidence-log.md section 5). It can only grow: nothing here ever makes a
 * signature possible over a tree that does not extend the last one.
 *
 *	synced ... before, last    the log ends at last, or, killed before the write, at before;
 *	                           after a power cut anywhere from synced on
 *
 * A power cut may tear all slots that were written since the last sync. So the slot of the last
 * sync stays as it is until another slot is synced. The third slot is for what is signed meanwhile.
 *
 * Belongs to one thread at a time; its caller locks.
 */
#pragma once

#include <stdbool.h>

#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/tree.h"

#define SIGN_STATE_FILE	 "tree.state"
#define SIGN_STATE_SLOTS 3u
/*
 * A receiver reports what is durable within a second or so. If it reports less, the signer goes by
 * its own clock: what is older than this can never be taken back without an alarm.
 */
#define SIGN_STATE_LAG_MS 5000u

/* A tree that was signed. origin "": none yet. */
struct sign_point {
	char origin[NOTE_ORIGIN_MAX + 1];
	struct tree_frontier frontier;
	size_t note_len; /* 0 at size 0 */
	char note[LINE_NOTE_MAX];
};

struct sign_state {
	int fd;	   /* -1: in memory only */
	bool lost; /* there was a file, and no slot of it was valid */
	uint64_t generation;
	unsigned slot;	       /* that is written now */
	unsigned synced_slot;  /* that the disk has; SIGN_STATE_SLOTS: none yet */
	unsigned syncing_slot; /* SIGN_STATE_SLOTS: no sync runs */
	uint64_t synced_generation, syncing_generation;
	struct tree_hasher *hasher;
	struct sign_point synced, before, last, next;
	/* The next `synced`: it was the last one at candidate_ns. Not in the file. */
	struct sign_point candidate;
	uint64_t candidate_ns;
	/* Of the key that signed last; "": none. */
	char kid[LINE_KID_MAX + 1];
	uint8_t public_key[32];
};

/* dir_fd -1: in memory only. Returns 0 or a negative errno. To be closed in any case. */
int sign_state_open(struct sign_state *state, int dir_fd);
void sign_state_close(struct sign_state *state);

/*
 * The tree after these leaves, in state->next. Returns 1: it is new, and is to be signed and then
 * given to sign_state_advance(); 0: it is the last one once more; -ESTALE: it extends nothing.
 */
int sign_state_propose(struct sign_state *state, const char *origin, uint64_t first,
		       const struct tree_hash *leaves, size_t n);
/*
 * The log is durable up to this size. Called before each sign_state_advance(), with the same
 * origin.
 */
void sign_state_note_durable(struct sign_state *state, const char *origin, uint64_t size);
/*
 * next was signed, and its note is in it: it becomes the last one. It is in the file when this
 * returns 0.
 */
int sign_state_advance(struct sign_state *state, const char *kid,
		       const uint8_t public_key[static 32]);

/*
 * At the start only. The log goes on from `before` or from `synced`, because what was signed after
 * it was never written, or is lost with the power. size: that of one of the two. Returns 0, or
 * -ESTALE: it is another size.
 */
int sign_state_retreat(struct sign_state *state, const char *origin, uint64_t size);
/*
 * At the start only. The log has more than `last`: these leaves, up to this note, whose signature
 * the caller has checked. Returns 0 or -ESTALE.
 */
int sign_state_extend(struct sign_state *state, const struct tree_hash *leaves, size_t n,
		      const char *note, size_t note_len);

/*
 * A sync in three steps, so that the caller need not hold its lock during the second one. begin:
 * false, nothing has changed since the last sync. wait: 0 or a negative errno of the disk. end:
 * its result.
 */
bool sign_state_sync_begin(struct sign_state *state);
int sign_state_sync_wait(const struct sign_state *state);
void sign_state_sync_end(struct sign_state *state, int result);
