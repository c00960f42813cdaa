/* SPDX-License-Identifier: MIT */
/*
 * `vm idle PID`: waits until a process has nothing left to do. It looks many times; a process that
 * is runnable, however little of the processor it gets, is not idle, and neither is one that has
 * used the processor for more than its timers need. A process that polls is seen running now and
 * then for ever: it is idle when it rests for more than half of the time, over many polls. So a
 * script waits for what the agent has done, and never for a time that a busy machine makes too
 * short.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "guest.h"

#define LOOKS	    12
#define LOOK_US	    30000
#define TICKS_SPENT 1 /* between the first look and the last, by a process that only keeps time */
#define TICK_MS	    10
#define ROUNDS	    3 /* of LOOKS looks each, for a process that polls */

/* State and processor time of a process (proc_pid_stat(5): fields 3, 14 and 15). */
static int look(pid_t pid, char *ret_state, unsigned long *ret_ticks)
{
	char path[64], text[1024], *at;
	unsigned long user, system;
	_cleanup_fclose_ FILE *f = NULL;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	len = fread(text, 1, sizeof(text) - 1, f);
	text[len] = '\0';
	/* The name before it may hold anything. */
	at = strrchr(text, ')');
	if (!at || sscanf(at + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", ret_state,
			  &user, &system) != 3)
		return -EBADMSG;
	*ret_ticks = user + system;
	return 0;
}

struct quiet {
	unsigned looks; /* in a row without anything to do */
	unsigned long first_ticks;
};

/* True once the process did nothing for LOOKS looks. */
static bool is_quiet(struct quiet *q, char state, unsigned long ticks)
{
	if (q->looks == 0)
		q->first_ticks = ticks;
	q->looks = state == 'S' && ticks <= q->first_ticks + TICKS_SPENT ? q->looks + 1 : 0;
	return q->looks == LOOKS;
}

struct polling {
	unsigned rounds, looks, running;
	unsigned long first_ticks;
	uint64_t start_ns;
};

/* True once the process rested for more than half of ROUNDS rounds, each for itself. */
static bool only_polls(struct polling *p, char state, unsigned long ticks)
{
	const uint64_t now_ns = monotonic_ns();

	if (p->looks == 0) {
		p->running = 0;
		p->first_ticks = ticks;
		p->start_ns = now_ns;
	}
	p->running += state != 'S';
	if (++p->looks < LOOKS)
		return false;
	p->looks = 0;
	p->rounds =
		p->running < LOOKS / 2 && (ticks - p->first_ticks) * TICK_MS * 2 * NSEC_PER_MSEC <
						  now_ns - p->start_ns
			? p->rounds + 1
			: 0;
	return p->rounds == ROUNDS;
}

int idle_main(int argc, char **argv)
{
	struct quiet quiet = {0};
	struct polling polling = {0};
	uint64_t pid;

	if (argc != 3 || parse_u64(argv[2], 1, INT32_MAX, &pid) < 0) {
		fprintf(stderr, "usage: vm idle PID\n");
		return 64;
	}
	for (;;) {
		unsigned long ticks;
		char state;
		int r = look((pid_t)pid, &state, &ticks);

		if (r < 0) {
			fprintf(stderr, "vm: idle %s: %s\n", argv[2], strerror(-r));
			return 1;
		}
		if (is_quiet(&quiet, state, ticks) || only_polls(&polling, state, ticks))
			return 0;
		usleep(LOOK_US);
	}
}
