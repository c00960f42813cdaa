/* SPDX-License-Identifier: MIT */
/*
 * The host's own view of a cell: it writes the probes' readings as events of the cell's stream, and
 * compares the guest's declarations with them (host-receiver.md sections 6 and 7). It knows the
 * stream and an opaque owner, never the cell. Loop thread.
 */
#pragma once

#include "host-receiver/cell/report.h"
#include "host-receiver/probes/schedule.h"

/* A view calls its owner by these functions. Static. */
struct host_view_ops {
	/*
	 * Accept the connections that wait at the socket. Returns false if some still wait; else
	 * true, and the number of all that were ever accepted in *ret.
	 */
	bool (*accept_waiting)(void *owner, uint64_t *ret);
	/* The VMM counted n more connections than were accepted. */
	void (*contested)(void *owner, uint64_t n);
	/* A probe was read, or could not be read. */
	void (*probed)(void *owner, enum probe_kind kind, bool failed);
	/* After host_view_finish(). */
	void (*finished)(void *owner);
};

struct host_view_options {
	const struct probe_options *probes; /* borrowed for host_view_new() */
	/*
	 * The cross-witness's window before and after a declaration; 0: one interval before, two
	 * after.
	 */
	unsigned witness_before_ms, witness_after_ms;
	/*
	 * The cell was served by an earlier run, which accepted connections that the VMM still
	 * counts.
	 */
	bool taken_over;
};

struct host_view;

/*
 * Begin to read the probes that the options name. *ret is NULL when they name none. probes, stream,
 * ops and owner are borrowed until host_view_free(). Returns 0 or -ENOMEM.
 */
int host_view_new(struct probe_scheduler *probes, const struct host_view_options *options,
		  struct stream *stream, const struct host_view_ops *ops, void *owner,
		  struct host_view **ret);

/* The guest declared something. Here and in the next three functions v may be NULL. */
void host_view_declared(struct host_view *v, const struct declaration *d, uint64_t now_ns);
/* Whether the VMM's metrics are read; the bytes that it counted are then in *ret. */
bool host_view_vmm_bytes(const struct host_view *v, uint64_t *ret);
/* The cell's probes, for probe_set_status(); may be NULL. */
const struct probe_set *host_view_probes(const struct host_view *v);
void host_view_free(struct host_view *v);

/* Read every probe a last time, then call finished(). */
void host_view_finish(struct host_view *v);
