/* SPDX-License-Identifier: MIT */
/*
 * What the host itself sees of a cell: its probes' readings as events of its stream, and beside
 * them what the guest says (host-receiver.md sections 6 and 7). Loop thread.
 */
#pragma once

#include "host-receiver/cell/witness.h"
#include "host-receiver/probes/schedule.h"

struct cell;

/* What an observer asks of its cell. */
struct observer_ops {
	/* Accept what waits at the socket now. False: somebody waits still. */
	bool (*accept_waiting)(struct cell *cell);
	/* The VMM counts n connections more than were accepted. */
	void (*contested)(struct cell *cell, uint64_t n);
	/* After observer_finish(). */
	void (*finished)(struct cell *cell);
};

struct observer {
	struct cell *cell;		/* borrowed */
	const struct observer_ops *ops; /* borrowed */
	struct probe_set *set;
	struct witness witness;
	bool reads_vmm, vmm_known;
	/* Connections that the VMM counted before this receiver served the cell, and those that
	 * were told to be too many. */
	uint64_t vmm_before, vmm_told, vmm_bytes;
};

/*
 * Begin to read what the cell's options want; *ret is NULL when that is nothing. taken_over: the
 * cell was served before, so that the VMM has counted connections that this receiver did not see.
 * Returns 0 or -ENOMEM.
 */
int observer_new(struct cell *cell, const struct observer_ops *ops, bool taken_over,
		 struct observer **ret);

/* The guest declared something. o may be NULL. */
void observer_declared(struct observer *o, const struct declaration *d, uint64_t now_ns);

/* A last reading of everything, then finished(). */
void observer_finish(struct observer *o);

void observer_free(struct observer *o);
