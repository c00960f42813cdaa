/* SPDX-License-Identifier: MIT */
#include "guest-agent/turn_watch.h"

#include <time.h>

#include "common/util.h"

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

void turn_watch_begin(struct turn_watch *w)
{
	w->woke_ns = w->lap_ns = monotonic_ns();
	/* The processor time of the agent's start belongs to no turn. */
	if (w->cpu_ns == 0)
		w->cpu_ns = thread_cpu_ns();
	w->longest_part_ns = 0;
	w->part = "none";
}

void turn_watch_part(struct turn_watch *w, const char *name)
{
	const uint64_t now_ns = monotonic_ns();

	if (now_ns - w->lap_ns > w->longest_part_ns) {
		w->longest_part_ns = now_ns - w->lap_ns;
		w->part = name;
	}
	w->lap_ns = now_ns;
}

void turn_watch_end(struct turn_watch *w)
{
	const uint64_t now_ns = monotonic_ns(), cpu_now_ns = thread_cpu_ns();
	/* One system call a turn: what the loop computed to fall asleep counts, too. */
	const uint64_t cpu_ns = cpu_now_ns - w->cpu_ns;

	w->cpu_ns = cpu_now_ns;
	w->most_cpu_ns = MAX(w->most_cpu_ns, cpu_ns);
	if (now_ns - w->woke_ns <= w->longest_ns)
		return;
	w->longest_ns = now_ns - w->woke_ns;
	w->longest_cpu_ns = cpu_ns;
	w->longest_in = w->part;
}
