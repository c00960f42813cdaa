/* SPDX-License-Identifier: MIT */
/*
 * What the host itself sees of a cell: its probes' readings as events of the cell's stream, and the
 * guest's declarations compared with them (host-receiver.md sections 6 and 7). It knows the stream
 * and an opaque owner, never the cell. Loop thread.
 */
#pragma once

#include "host-receiver/cell/report.h"
#include "host-receiver/probes/schedule.h"

/* What a view asks of its owner. Static. */
struct host_view_ops {
	/*
	 * Accept what waits at the socket now. False when connections still wait; else the number
	 * of all that were accepted is in *ret.
	 */
	bool (*accept_waiting)(void *owner, uint64_t *ret);
	/* The VMM counts n connections more than were accepted. */
	void (*contested)(void *owner, uint64_t n);
	/* A probe was read, or could not be read. */
	void (*probed)(void *owner, enum probe_kind kind, bool failed);
	/* After host_view_finish(). */
	void (*finished)(void *owner);
};

struct host_view_options {
	const struct probe_options *probes; /* borrowed for host_view_new() */
	/* The cross-witness's window around a declaration; 0: one interval, and two. */
	unsigned witness_before_ms, witness_after_ms;
	/* The cell was served before: the VMM counted connections that were not seen here. */
	bool taken_over;
};

struct host_view;

/*
 * Begin to read what the options want. *ret is NULL when that is nothing. probes, stream, ops and
 * owner are borrowed until host_view_free(). Returns 0 or -ENOMEM.
 */
int host_view_new(struct probe_scheduler *probes, const struct host_view_options *options,
		  struct stream *stream, const struct host_view_ops *ops, void *owner,
		  struct host_view **ret);

/* The guest declared something. v may be NULL here and in the next three. */
void host_view_declared(struct host_view *v, const struct declaration *d, uint64_t now_ns);
/* Whether the VMM's metrics are read; the bytes that it counted are then in *ret. */
bool host_view_vmm_bytes(const struct host_view *v, uint64_t *ret);
/* The cell's probes, for probe_set_status(); may be NULL. */
const struct probe_set *host_view_probes(const struct host_view *v);
void host_view_free(struct host_view *v);

/* A last reading of everything, then finished(). */
void host_view_finish(struct host_view *v);
