/* SPDX-License-Identifier: MIT */
/*
 * The totals that the guest's agent says of itself in heartbeats and byes, and what they add to the
 * receiver's own counters. A total only grows while the agent lives; one that shrinks is a lie, and
 * changes nothing. Pure.
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
	uint64_t grown[_GUEST_TOTAL_MAX]; /* by how much they grew, ever; saturates */
	bool fresh;			  /* a new session began: they may start again */
};

/*
 * Take what the frame says. Returns NULL, or the name of a total that shrank (static, as on the
 * wire).
 */
const char *guest_totals_note(struct guest_totals *t, const struct declaration *d);
