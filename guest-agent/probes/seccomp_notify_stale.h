/* SPDX-License-Identifier: MIT */
/*
 * Find processes under the workload profile, as far as /proc shows it: a process that asks to be a
 * launcher, and workloads of `cellos-workload-exec --share-pidns` that an earlier agent served. The
 * filter of the latter protects the pid of the earlier agent, so they are not confined against this
 * one (seccomp-notify-stale).
 *
 * Single-threaded. Asks for status files (proc_facts.h), reads links and mountinfo.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "guest-agent/probes/proc_facts.h"

#define PID_NS_LINK_MAX	     64u
#define STALE_PIDS_PER_CHECK 128u /* processes that one check looks at */

/* The pid namespace of pid (0: our own) as its link says: "pid:[4026531836]". 0 or -errno. */
int pid_ns_read(pid_t pid, char ret[PID_NS_LINK_MAX]);

/*
 * A filter, and not the capability that the agent and every launcher have. True also while that
 * cannot be known.
 */
bool is_profile_workload(pid_t pid);

struct stale_workloads {
	bool found;
	pid_t last; /* the one that was found last */
	char pid_ns[PID_NS_LINK_MAX];
	struct proc_dir dir; /* of a search that goes on; fd -1: none */
};

void stale_workloads_init(struct stale_workloads *s);
/* Search all processes at once: before the loop begins. */
void stale_workloads_find(struct stale_workloads *s, const char *pid_ns);
/* Whether there still is one: a part of the search at a time. */
void stale_workloads_check(struct stale_workloads *s);
void stale_workloads_free(struct stale_workloads *s);
