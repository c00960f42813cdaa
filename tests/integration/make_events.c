/* SPDX-License-Identifier: MIT */
/*
 * `make_events RATE FOLDER...`: RATE events a second in each folder, until it is killed: a folder
 * of a new name is made and removed, so that the kernel merges nothing. If it is behind, it does
 * not sleep until it has caught up.
 */
#include <sys/stat.h>

#include "common/util.h"

int main(int argc, char **argv)
{
	const uint64_t rate = argc > 2 ? strtoull(argv[1], NULL, 10) : 0;
	const uint64_t begin_ns = monotonic_ns();
	uint64_t made = 0;

	if (rate == 0)
		return 64;
	for (uint64_t round = 1;; round++) {
		const uint64_t due_ns = begin_ns + round * 2 * NSEC_PER_SEC / rate;
		const struct timespec due = {
			.tv_sec = (time_t)(due_ns / NSEC_PER_SEC),
			.tv_nsec = (long)(due_ns % NSEC_PER_SEC),
		};

		for (int i = 2; i < argc; i++) {
			char path[4096];

			snprintf(path, sizeof(path), "%s/e%" PRIu64, argv[i], made++);
			if (mkdir(path, 0700) < 0 || rmdir(path) < 0) {
				perror(path);
				return 1;
			}
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
}
