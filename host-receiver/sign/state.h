/* SPDX-License-Identifier: MIT */
/*
 * The memory of a signer: the last two trees that it signed, with their frontiers and notes, in a
 *file of two checksummed slots that are written in turn (evidence-log.md section 5). It can only
 *grow: nothing here ever makes a signature possible over a tree that does not extend the last one.
 *
 *	before ... last          the log ends at last, or, killed before the write, at before
 *
 * Belongs to one thread at a time; its caller locks.
 */
#pragma once

#include <stdbool.h>

#include "host-receiver/evidence/lines.h"
#include "host-receiver/evidence/tree.h"

#define SIGN_STATE_FILE "tree.state"

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
	struct tree_hasher *hasher;
	struct sign_point before, last, next;
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
/* next was signed, its note is in it: it is the last one now. It is in the file when this returns
 * 0. */
int sign_state_advance(struct sign_state *state, const char *kid,
		       const uint8_t public_key[static 32]);

/*
 * At the start only. The log goes on from `before`, because what was signed after it was never
 * written. size: where the log ends. Returns 0, or -ESTALE: it does not end there.
 */
int sign_state_retreat(struct sign_state *state, const char *origin, uint64_t size);
/*
 * At the start only. The log has more than `last`: these leaves, up to this note, whose signature
 * the caller has checked. Returns 0 or -ESTALE.
 */
int sign_state_extend(struct sign_state *state, const struct tree_hash *leaves, size_t n,
		      const char *note, size_t note_len);

/* 0 or a negative errno: of the disk. */
int sign_state_sync(struct sign_state *state);
