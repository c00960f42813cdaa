/* SPDX-License-Identifier: MIT */
/*
 * The struct that the two halves of the log share: log.c belongs to the committer's thread,
 * log_state.c answers any thread without waiting for a disk. Only these two files include it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "host-receiver/evidence/chain.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/evidence/own_mark.h"

struct evidence_log {
	struct evidence_sink sink; /* first */

	/* These belong to the committer after the start. */
	struct folder folder;
	struct chain chain;
	struct recovered found;
	struct evidence_limits limits; /* valid for this commit */
	uint64_t next_number;
	uint64_t age_since_ns;	/* of the newest segment; CLOCK_MONOTONIC, which nobody can set */
	uint64_t age_before_ms; /* its age when it was opened again */
	uint64_t uncached; /* bytes of the newest segment that were dropped from the page cache */
	struct segment_access access; /* of the newest segment, when it was opened */
	bool torn;		      /* bytes may follow the committed end of the newest segment */
	bool doubt;		      /* a write or sync has failed since the last good group */
	bool new_log;		      /* the next group begins a new log */
	bool retain_due;
	uint64_t noticed; /* the newest segment that a notice asks to delete */
	struct own_mark marked;

	/* Any thread reads and writes these, without waiting for a disk. */
	_Atomic uint64_t floor, shown_segments, shown_bytes, shown_size, deleted, lost, prune;
	_Atomic int retain_error;
	_Atomic int sync_error; /* of the newest segment; 0 after a later sync succeeded */

	/* Protected by the lock, which nobody holds during I/O. */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct evidence_limits next_limits;
	struct evidence_notice notices[EVIDENCE_NOTICES_MAX];
	unsigned n_notices;
	struct own_mark mark; /* the next one; segment 0: none */
	int fd;		      /* the newest segment; -1: none yet. Only the committer changes it */
	/*
	 * The end of the committed lines, and the end of the durable lines. Both are in the newest
	 * segment, because it is synced before another begins.
	 */
	struct evidence_position written, durable;
	uint64_t written_size, durable_size; /* entries of the tree up to there */
	bool syncing; /* only one at a time: the kernel reports an error to one fdatasync(2) only */
	bool stop;

	bool has_syncer;
	pthread_t syncer;
};
