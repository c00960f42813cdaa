/* SPDX-License-Identifier: MIT */
/*
 * `sched CLASS PROGRAM [ARG...]`: becomes PROGRAM in a scheduling class, which its children
 * inherit: idle, fifo and rr, or nice for the highest priority of the ordinary class.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define HIGHEST (-20)

static int enter(const char *class)
{
	static const struct {
		const char *name;
		int policy, priority;
	} classes[] = {{"idle", SCHED_IDLE, 0}, {"fifo", SCHED_FIFO, 50}, {"rr", SCHED_RR, 50}};

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (!strcmp(class, classes[i].name))
			return sched_setscheduler(
				0, classes[i].policy,
				&(struct sched_param){.sched_priority = classes[i].priority});
	if (!strcmp(class, "nice"))
		return setpriority(PRIO_PROCESS, 0, HIGHEST);
	errno = EINVAL;
	return -1;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: sched CLASS PROGRAM [ARG...]\n");
		return 64;
	}
	if (enter(argv[1]) < 0) {
		fprintf(stderr, "sched: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	execvp(argv[2], argv + 2);
	fprintf(stderr, "sched: %s: %s\n", argv[2], strerror(errno));
	return 127;
}
