/* SPDX-License-Identifier: MIT */
/*
 * How long the turns of the agent's loop take: the longest one, the part of it that took longest,
 * and the agent's processor time in it. The rest of the turn is time in which other programs had
 * the processor, or in which a system call waited. Single-threaded, owned by the loop.
 */
#pragma once

#include <stdint.h>

struct turn_watch {
	uint64_t woke_ns, cpu_ns; /* when this turn began, and the thread's CPU time then */
	uint64_t lap_ns;	  /* when the part that runs began */
	uint64_t longest_part_ns; /* of this turn */
	const char *part;	  /* that one; static */

	/* The longest turn until now, and the most that a turn computed. */
	uint64_t longest_ns, longest_cpu_ns, most_cpu_ns;
	const char *longest_in; /* static */
};

/* The loop woke: a turn begins. */
void turn_watch_begin(struct turn_watch *w);

/* The part of this name (static) has ended; the next part begins. */
void turn_watch_part(struct turn_watch *w, const char *name);

void turn_watch_end(struct turn_watch *w);
