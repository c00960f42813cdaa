/* SPDX-License-Identifier: MIT */
/*
 * The parent of the signer: a process that is forked before everything else. It alone opens keys,
 * also at a reload, starts signers and starts them again, and binds sockets for other owners. It
 * parses nothing of guests, and ends with the receiver.
 *
 *	receiver (decodes guests, holds no key)  <->  parent (reads keys)
 *	      \--- channels, shared memory --->  signer (keys, memory of the tree)
 */
#pragma once

#include <sys/types.h>

#include "host-receiver/privilege/users.h"
#include "host-receiver/sign/protocol.h"

/* After this many deaths within a minute the signer is not started again. */
#define KEEPER_DEATHS_MAX 3u
#define KEEPER_DEATHS_MS  60000u

struct keeper_options {
	struct process_users users;
	const char *state;  /* the signer's folder; NULL: the first PARENT_START names it */
	const char *config; /* the file that PARENT_CONFIG opens; NULL: there is none */
};

/*
 * Fork the parent. Call this first, with one thread; the strings are borrowed for the parent's
 * life. The keys in the environment are wiped from this process and stay in the parent. The parent
 * keeps its user and the capabilities that set ids. Returns 0, the receiver's socket and the
 * parent's pid, or a negative errno.
 */
int keeper_start(const struct keeper_options *options, int *ret_fd, pid_t *ret_pid);
