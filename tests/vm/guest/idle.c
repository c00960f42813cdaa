/* SPDX-License-Identifier: MIT */
/*
 * `vm idle PID`: waits until a process has nothing left to do. It looks many times; a process that
 * is runnable, however little of the processor it gets, is not idle, and neither is one that has
 * used the processor for more than its timers need. So a script waits for what the agent has done,
 * and never for a time that a busy machine makes too short.
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

int idle_main(int argc, char **argv)
{
	uint64_t pid;

	if (argc != 3 || parse_u64(argv[2], 1, INT32_MAX, &pid) < 0) {
		fprintf(stderr, "usage: vm idle PID\n");
		return 64;
	}
	for (unsigned quiet = 0; quiet < LOOKS;) {
		static unsigned long first;
		unsigned long ticks;
		char state;
		int r = look((pid_t)pid, &state, &ticks);

		if (r < 0) {
			fprintf(stderr, "vm: idle %s: %s\n", argv[2], strerror(-r));
			return 1;
		}
		if (quiet == 0)
			first = ticks;
		quiet = state == 'S' && ticks <= first + TICKS_SPENT ? quiet + 1 : 0;
		usleep(LOOK_US);
	}
	return 0;
}
