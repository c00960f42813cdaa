/* SPDX-License-Identifier: MIT */
/*
 * `spawn COUNT PROGRAM [ARG...]`: runs PROGRAM COUNT times, one after the other, as fast as one
 * core can. Prints "COUNT MILLISECONDS". Exits 1 if one of them did not exit with 0.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/util.h"

int main(int argc, char **argv)
{
	uint64_t count, start = monotonic_ns();

	if (argc < 3 || parse_u64(argv[1], 1, 1000000, &count) < 0) {
		fprintf(stderr, "usage: spawn COUNT PROGRAM [ARG...]\n");
		return 64;
	}
	for (uint64_t i = 0; i < count; i++) {
		int status;
		pid_t pid;
		int r = posix_spawn(&pid, argv[2], NULL, NULL, argv + 2, environ);

		if (r != 0) {
			fprintf(stderr, "spawn: %s: %s\n", argv[2], strerror(r));
			return 1;
		}
		if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status)) {
			fprintf(stderr, "spawn: pid %d did not exit with 0\n", pid);
			return 1;
		}
	}
	printf("%" PRIu64 " %" PRIu64 "\n", count, (monotonic_ns() - start) / NSEC_PER_MSEC);
	return 0;
}
