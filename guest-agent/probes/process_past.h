/* SPDX-License-Identifier: MIT */
/*
 * Processes that are not in the table of living ones: those that ended a moment ago, so that what
 * they did just before can still be given its program; and those that the table had no room for, of
 * which threads have ended.
 *
 * Bounded, the oldest goes first; single-threaded; no I/O, no allocation.
 */
#pragma once

#include <stdbool.h>

#include "guest-agent/probes/image_table.h"
#include "guest-agent/probes/pid_table.h"

#define PAST_MAX    256u
#define ORPHANS_MAX 64u

struct past_process {
	pid_t pid; /* 0: none */
	image_id image;
	uint64_t from_ns, to_ns; /* when it ran that image; CLOCK_MONOTONIC */
	uint8_t comm_len;
	char comm[PID_TABLE_COMM_MAX];
};

/* A process without an entry, by the ends of its threads. */
struct orphan {
	pid_t pid; /* 0: none */
	pid_t ppid;
	uint32_t exit_status; /* of the last thread seen to end */
	uint64_t at_ns;
	bool leader_gone; /* else one of its other threads has ended, and it may live on */
	bool reported;	  /* its end; more of its threads may still tell theirs */
};

struct process_past {
	size_t next, next_orphan;
	struct past_process ended[PAST_MAX];
	struct orphan orphans[ORPHANS_MAX];
};

/* Takes over the entry's reference to its image. */
void past_add(struct process_past *p, struct image_table *images, const struct pid_entry *e,
	      uint64_t to_ns);
/* The last one that had the pid. */
const struct past_process *past_last(const struct process_past *p, pid_t pid);
/* The process that had the pid at that time; NULL if it is not known any more. */
const struct past_process *past_find(const struct process_past *p, pid_t pid, uint64_t at_ns);
void past_forget(struct process_past *p, struct image_table *images);

struct orphan *orphan_find(struct process_past *p, pid_t pid);
/*
 * The orphan of this pid, new if need be. *ret_lost: it took the place of one whose end had not
 * been reported.
 */
struct orphan *orphan_get(struct process_past *p, pid_t pid, bool *ret_lost);
