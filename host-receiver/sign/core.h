/* SPDX-License-Identifier: MIT */
/*
 * The work of a signer, in any process: it appends leaves to the tree of its state and signs the
 * result. It never signs a tree that does not extend the last tree that it signed.
 *
 * Any thread; each call holds a lock.
 */
#pragma once

#include "host-receiver/sign/signing_key.h"
#include "host-receiver/sign/state.h"

struct sign_core;

/* dir_fd -1: the state is in memory only. Borrowed for the call. One reference. */
int sign_core_new(int dir_fd, struct sign_core **ret);
struct sign_core *sign_core_ref(struct sign_core *core);
void sign_core_unref(struct sign_core *core);

/* The memory of a signer: its trees, the newest first, and the key that signed the newest. */
struct sign_memory {
	struct sign_point last, before, synced;
	char kid[LINE_KID_MAX + 1];
	uint8_t public_key[32];
	bool lost;
};

void sign_core_memory(struct sign_core *core, struct sign_memory *ret);

/*
 * See tree_signer_ops. previous: the key that signed until now, for the one checkpoint that both
 * sign; NULL: there is none. durable: this many entries of the log are on disk.
 */
int sign_core_append(struct sign_core *core, const struct signing_key *key,
		     const struct signing_key *previous, const char *origin, uint64_t first,
		     const struct tree_hash *leaves, size_t n, uint64_t durable,
		     char ret[static LINE_NOTE_MAX]);

/* Sync the state's file, if it has changed. */
int sign_core_sync(struct sign_core *core);

/* See sign_state_retreat() and sign_state_extend(). */
int sign_core_retreat(struct sign_core *core, const char *origin, uint64_t size);
int sign_core_extend(struct sign_core *core, const struct tree_hash *leaves, size_t n,
		     const char *note, size_t note_len);
