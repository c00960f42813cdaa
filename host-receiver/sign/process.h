/* SPDX-License-Identifier: MIT */
/*
 * The signer process. It holds the keys and the memory of the signed tree, and has a thread for
 * each channel. It parses only the requests of protocol.h, opens nothing after its start, and no
 * other process can read its memory.
 */
#pragma once

#include "host-receiver/privilege/users.h"
#include "host-receiver/sign/protocol.h"

struct sign_process_options {
	int parent_fd;
	const int *channel_fds;
	void *const *shared; /* of each channel, SIGN_SHARED_SIZE bytes */
	unsigned channels;
	int state_fd;	/* its folder; -1: the state is in memory only */
	bool respawned; /* the log continues: only an extension of the last tree is signed */
	bool allow_unlocked;
	struct signing_key *const *keys; /* SIGN_KEYS_MAX, by number % SIGN_KEYS_MAX; NULL: none */
	const uint32_t *key_numbers;
	const struct user_ids *user; /* the signer's own; NULL: it stays the parent's */
};

/* Never returns. ready_fd gets an int: 0, or the negative errno why it cannot begin. */
_Noreturn void sign_process_run(const struct sign_process_options *options, int ready_fd);
