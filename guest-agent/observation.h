/* SPDX-License-Identifier: MIT */
/*
 * A declaration that a probe fills, with room for the texts that come from outside (comm, exe,
 * path); they are made valid UTF-8 when they are added. It lives on the probe's stack, and the
 * queue encodes it at once, so nothing outlives the call. Single-threaded, no allocation.
 */
#pragma once

#include <linux/limits.h>
#include <sys/types.h>

#include "common/wire.h"

struct observation {
	struct declaration d;
	size_t used;
	char room[WIRE_COMM_MAX + 4 * WIRE_DETAIL_TEXT_MAX];
};

/* comm: raw bytes up to the first NUL or comm_len (<= 16 in the kernel); may be NULL. */
void observation_init(struct observation *o, enum wire_source source, pid_t pid, const char *comm,
		      size_t comm_len, uint64_t at_ns);

/* Add a text of our own, which stays where it is until the observation is in the queue. */
void observation_add_name(struct observation *o, enum wire_key key, const char *name);

/* Add a text of arbitrary bytes: invalid bytes become U+FFFD, cut to WIRE_DETAIL_TEXT_MAX. */
void observation_add_bytes(struct observation *o, enum wire_key key, const char *data, size_t len);
