/* SPDX-License-Identifier: MIT */
/*
 * The totals that an agent reports in its heartbeats and byes, and their sum over all agents of the
 * cell. A total only grows while the agent lives. A total that shrinks is false and is ignored.
 *
 * A stream says the whole sum, also what the agent lost before the stream began: so nothing is lost
 * between two streams. Metrics count only the growth that this run of the receiver saw, or each
 * restart would count old losses again.
 *
 * Pure.
 */
#pragma once

#include "common/wire.h"

enum guest_total {
	GUEST_OBSERVED,
	GUEST_SENT,
	GUEST_DROPPED,
	GUEST_KERNEL_LOST,
	_GUEST_TOTAL_MAX,
};

/* Zero it before its first use. */
struct guest_totals {
	uint64_t said[_GUEST_TOTAL_MAX];  /* the last ones */
	uint64_t grown[_GUEST_TOTAL_MAX]; /* the sum of all growth; saturates */
	/* The growth since the receiver began to serve the cell; saturates. */
	uint64_t counted[_GUEST_TOTAL_MAX];
	bool fresh;    /* a new session began: the totals may start at 0 again */
	bool baseline; /* the next totals are older than this run of the receiver */
};

/*
 * Take what the frame says. Returns NULL, or the name of a total that shrank (static, as on the
 * wire).
 */
const char *guest_totals_note(struct guest_totals *t, const struct declaration *d);
